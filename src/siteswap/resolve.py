"""Turn requirements into a complete lock file: uv does it, the base's versions preferred."""

from __future__ import annotations

import io
import signal
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from siteswap import failed_builds, process, uv
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact, LockFile
from siteswap.manifest import Distribution, Interpreter
from siteswap.requirements import Request, Requirement
from siteswap.ways import ISOLATED, Way, settled


@dataclass(frozen=True)
class Options:
    """How to resolve: what the user typed, in uv's spelling."""

    arguments: tuple[str, ...] = ()
    """Index and build options, passed through."""
    no_index: bool = False
    no_deps: bool = False
    upgrade: bool = False
    """Versions of the base are not preferred."""
    upgrade_packages: tuple[str, ...] = ()
    """Names whose base versions are not preferred."""
    require_hashes: bool = False
    way: Way = ISOLATED
    """How sources are built."""

    @property
    def directories(self) -> list[Path]:
        """Directories of this machine where the user says that there are distributions."""
        pairs = zip(self.arguments, self.arguments[1:], strict=False)
        return [Path(value) for name, value in pairs if name == "--find-links" and "://" not in value]

    def found_in(self, request: Request) -> Options:
        """With the options that requirement files hold: for what comes before and after resolving."""
        return replace(self, arguments=self.arguments + request.options)


DEFAULTS = Options()


class UnsatisfiableError(SiteswapError):
    """The resolver found no answer; nothing that it had to get or build was in its way."""


def resolve(
    fs: FileSystem,
    scratch: Path,
    requirements: Sequence[Requirement],
    request: Request,
    options: Options,
    interpreter: Interpreter,
    base: LockFile,
    held: Iterable[tuple[Distribution, bytes]],
    staying: Collection[str] = (),
    limits: Sequence[str] = (),
) -> LockFile:
    """A lock of everything that `requirements` need on `interpreter`.

    `base` gives the versions to prefer. `held` are the base's distributions with
    their METADATA, offered to the resolver as candidates when it may not ask an
    index, so that what is installed counts as available. Of the names in `staying` what
    is installed counts for a local directory too, which is not looked at. `limits` are lines of
    constraints besides those of the request. `scratch` is a directory of ours. Raises SiteswapError
    (requirement) with uv's explanation.
    """
    output = scratch / "pylock.toml"
    if base.data["packages"]:
        fs.write(output, base.text.encode())
    arguments: list[str | Path] = [
        "pip", "compile", "-", "--format", "pylock.toml", "--output-file", output, "--no-header", "--quiet",
        *_building(options, interpreter.executable), *options.arguments, *request.options,
    ]  # fmt: skip
    for constraint in request.constraints:
        arguments += ["--constraints", constraint]
    if limits:
        fs.write(scratch / "limits.txt", "".join(f"{line}\n" for line in limits).encode())
        arguments += ["--constraints", scratch / "limits.txt"]
    if options.no_deps:
        arguments.append("--no-deps")
    if options.upgrade:
        arguments.append("--upgrade")
    for name in options.upgrade_packages:
        arguments += ["--upgrade-package", name]
    offered = scratch / "held"
    fs.make_directory(offered, parents=True)
    no_index = options.no_index or "--no-index" in request.options
    if no_index or any(item.place is not None for item in requirements):
        known = {distribution.name: (distribution, metadata) for distribution, metadata in held}
    else:
        known = {}  # nobody asks, and reading it all takes its time
    if no_index and known:
        for distribution, metadata in known.values():
            _offer(fs, offered, distribution, metadata)
        arguments += ["--find-links", offered.as_uri()]  # in a path uv would expand variables
    lines = "".join(f"{_line(fs, item, known, offered, staying)}\n" for item in requirements)
    done = uv.run(arguments, stdin=lines, extra=_variables(fs, scratch, requirements))
    if done.status != 0:
        raise _refusal(
            done,
            options,
            "these requirements cannot be satisfied together",
            "relax one of them, or add an index that has what is missing",
        )
    lock = LockFile.parse(fs.read_text(output), scratch, "the resolver's answer")
    return _without_offers(lock, offered, base)


def name_of(fs: FileSystem, scratch: Path, requirement: Requirement, options: Options, python: str) -> str:
    """The name of a source that only building it tells. Raises SiteswapError (requirement)."""
    output = scratch / "pylock.name.toml"
    done = uv.run(
        ["pip", "compile", "-", "--format", "pylock.toml", "-o", output, "--no-header", "-q", "--no-deps",
         *_building(options, python), *options.arguments],
        stdin=requirement.text + "\n", extra=_variables(fs, scratch, [requirement]),
    )  # fmt: skip
    if done.status != 0:
        raise _refusal(
            done,
            options,
            f"{requirement.text} cannot be read",
            "name a wheel, an archive of a source or a source directory",
            requirement.line,
        )
    lock = LockFile.parse(fs.read_text(output), scratch, "the resolver's answer")
    fs.unlink(output)
    return next(iter(lock.names))


def check_hashes(artifacts: Sequence[Artifact], request: Request, required: bool) -> None:
    """Hold the chosen artifacts against the hashes that the user pinned (pip's hash-checking mode).

    Raises SiteswapError (requirement) naming every package that lacks a pin or differs from it.
    """
    if not required and not request.hashes:
        return
    problems = []
    for artifact in artifacts:
        pins = request.hashes.get(artifact.name)
        if pins is None:
            if required:
                problems.append(f"{artifact.title}: no hash was given")
            continue
        have = {f"{name}:{digest}" for name, digest in artifact.hashes.items()}
        if not have & pins:
            problems.append(
                f"{artifact.title}: expected {' or '.join(sorted(pins))}, found {' '.join(sorted(have))}"
            )
    if problems:
        raise SiteswapError(
            Kind.REQUIREMENT,
            "the hashes of what was found are not the ones that were required",
            hint="once one requirement has a hash, all need one; make the file again if it is outdated",
            detail="\n".join(problems),
        )


def _building(options: Options, python: str) -> list[str]:
    """The interpreter to resolve for, and how sources are built whose metadata only a build tells."""
    words = ["--python", options.way.python or python]
    if options.way.python is not None:
        words.append("--no-build-isolation")
    for setting in options.way.settings:
        words += ["--config-setting", setting]
    return words


def _variables(fs: FileSystem, scratch: Path, requirements: Sequence[Requirement]) -> dict[str, str]:
    """For the backends that uv runs: those of local directories are to leave nothing there."""
    return settled(fs, scratch) if any(item.place is not None for item in requirements) else {}


def _refusal(
    done: process.Finished, options: Options, message: str, hint: str, what: str = ""
) -> SiteswapError:
    """What is said of a failure of uv's: a build that failed is no conflict of requirements."""
    detail = uv.explanation(done.stderr)
    if -done.status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        what = f"the resolver was killed (signal {-done.status})"
        return SiteswapError(Kind.SYSTEM, what, hint="run the command again")
    if done.status < 0:  # nonsense by the kilobyte makes it run out of stack
        what = f"the resolver broke down over these requirements (signal {-done.status})"
        hint = "look for one that makes no sense, or leave out what was asked for last"
        return SiteswapError(Kind.REQUIREMENT, what, hint=hint, detail=detail)
    failure = failed_builds.of_resolver(detail, isolated=options.way.python is None)
    if failure is None:
        # With another status uv could not find out, for want of a connection, say.
        kind = UnsatisfiableError if done.status == 1 else SiteswapError
        return kind(Kind.REQUIREMENT, message, hint=hint, detail=detail)
    told = failure.message.replace("a source", what, 1) if what else failure.message
    return SiteswapError(
        Kind.REQUIREMENT, told, hint=failure.hint, detail=failed_builds.without_advice(detail)
    )


def _line(
    fs: FileSystem,
    item: Requirement,
    known: Mapping[str, tuple[Distribution, bytes]],
    offered: Path,
    staying: Collection[str],
) -> str:
    """What uv is asked for a requirement: of a local source that stays or is gone, what is installed of it.

    Else nothing could be installed any more beside what came from a directory that is deleted since, or
    that can be built in a certain way only. By a direct URL, so that no index can answer for it.
    """
    specifier = item.specifier
    place = item.place
    if specifier is None or place is None or item.name is None or item.name not in known:
        return item.text
    distribution, metadata = known[item.name]
    there = fs.entry(place)
    stays = item.name in staying and there is not None and there.kind == "directory"
    if distribution.foreign or (there is not None and not stays):
        return item.text
    _offer(fs, offered, distribution, metadata)
    extras = f"[{','.join(sorted(specifier.extras))}]" if specifier.extras else ""
    return f"{distribution.name}{extras} @ {(offered / _offer_name(distribution)).as_uri()}"


def _offer_name(distribution: Distribution) -> str:
    return f"{distribution.name.replace('-', '_')}-{distribution.version}-py3-none-any.whl"


def _offer(fs: FileSystem, directory: Path, distribution: Distribution, metadata: bytes) -> None:
    """A wheel of metadata only, for the resolver to read."""
    stem = f"{distribution.name.replace('-', '_')}-{distribution.version}"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: siteswap\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    fs.write(directory / _offer_name(distribution), content.getvalue())


def _without_offers(lock: LockFile, offered: Path, base: LockFile) -> LockFile:
    """The lock with entries that point at our offers replaced by the base's own."""
    ours = {item["name"] for item in lock.data["packages"] if _is_offer(item, offered)}
    if not ours:
        return lock
    # Of what another tool installed the base has a version only: it is in no lock, and carried along.
    sourced = {item["name"] for item in base.data["packages"] if item.keys() - {"name", "version"}}
    return lock.only(lock.names - ours).merged(base.only(ours & sourced))


def _is_offer(package: Mapping[str, Any], offered: Path) -> bool:
    files = [*package.get("wheels", ()), package.get("archive", {})]
    places = [str(file.get("url") or file.get("path") or "") for file in files]
    return any(place.startswith((offered.as_uri(), str(offered), f"{offered.name}/")) for place in places)
