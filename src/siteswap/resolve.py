"""Turn requirements into a complete lock file: uv does it, the base's versions preferred."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from siteswap import uv
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact, LockFile
from siteswap.manifest import Distribution, Interpreter
from siteswap.requirements import Request, Requirement


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

    @property
    def directories(self) -> list[Path]:
        """Directories of this machine where the user says that there are distributions."""
        pairs = zip(self.arguments, self.arguments[1:], strict=False)
        return [Path(value) for name, value in pairs if name == "--find-links" and "://" not in value]

    def found_in(self, request: Request) -> Options:
        """With the options that requirement files hold: for what comes before and after resolving."""
        return replace(self, arguments=self.arguments + request.options)


DEFAULTS = Options()


def resolve(
    fs: FileSystem,
    scratch: Path,
    requirements: Sequence[Requirement],
    request: Request,
    options: Options,
    interpreter: Interpreter,
    base: LockFile,
    held: Sequence[tuple[Distribution, bytes]],
) -> LockFile:
    """A lock of everything that `requirements` need on `interpreter`.

    `base` gives the versions to prefer. `held` are the base's distributions with
    their METADATA, offered to the resolver as candidates when it may not ask an
    index, so that what is installed counts as available. `scratch` is an empty
    directory of ours. Raises SiteswapError (requirement) with uv's explanation.
    """
    output = scratch / "pylock.toml"
    if base.data["packages"]:
        fs.write(output, base.text.encode())
    arguments: list[str | Path] = [
        "pip", "compile", "-", "--format", "pylock.toml", "--output-file", output, "--no-header", "--quiet",
        "--python", interpreter.executable, *options.arguments, *request.options,
    ]  # fmt: skip
    for constraint in request.constraints:
        arguments += ["--constraints", constraint]
    if options.no_deps:
        arguments.append("--no-deps")
    if options.upgrade:
        arguments.append("--upgrade")
    for name in options.upgrade_packages:
        arguments += ["--upgrade-package", name]
    offered = scratch / "held"
    if held and (options.no_index or "--no-index" in request.options):
        fs.make_directory(offered)
        for distribution, metadata in held:
            _offer(fs, offered, distribution, metadata)
        arguments += ["--find-links", offered]
    lines = "".join(f"{item.text}\n" for item in requirements)
    done = uv.run(arguments, stdin=lines)
    if done.status != 0:
        raise SiteswapError(
            Kind.REQUIREMENT,
            "these requirements cannot be satisfied together",
            hint="relax one of them, or add an index that has what is missing",
            detail=uv.explanation(done.stderr),
        )
    lock = LockFile.parse(fs.read_text(output), scratch, "the resolver's answer")
    return _without_offers(lock, offered, base)


def name_of(fs: FileSystem, scratch: Path, requirement: Requirement, options: Options, python: str) -> str:
    """The name of a source that only building it tells. Raises SiteswapError (requirement)."""
    output = scratch / "pylock.name.toml"
    done = uv.run(
        ["pip", "compile", "-", "--format", "pylock.toml", "-o", output, "--no-header", "-q", "--no-deps",
         "--python", python, *options.arguments],
        stdin=requirement.text + "\n",
    )  # fmt: skip
    if done.status != 0:
        raise SiteswapError(
            Kind.REQUIREMENT,
            f"{requirement.text} cannot be read",
            hint="name a wheel, an archive of a source or a source directory",
            detail=uv.explanation(done.stderr),
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
    fs.write(directory / f"{stem}-py3-none-any.whl", content.getvalue())


def _without_offers(lock: LockFile, offered: Path, base: LockFile) -> LockFile:
    """The lock with entries that point at our offers replaced by the base's own."""
    marker = offered.as_uri()
    ours = {
        item["name"]
        for item in lock.data["packages"]
        if any(str(wheel.get("url", "")).startswith(marker) for wheel in item.get("wheels", ()))
    }
    if not ours:
        return lock
    # Of what another tool installed the base has a version only: it is in no lock, and carried along.
    sourced = {item["name"] for item in base.data["packages"] if item.keys() - {"name", "version"}}
    return lock.only(lock.names - ours).merged(base.only(ours & sourced))
