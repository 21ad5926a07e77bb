"""What test suites need besides, beside the environment: a directory for PYTHONPATH that only they see.

Resolved with every distribution of the candidate pinned, so that what is tried
is what will be live. The directory comes before site-packages on the path of the
tests: nothing goes into it that would hide a part of the candidate.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.version import InvalidVersion, Version

from siteswap import plan, resolve, wheels
from siteswap.cache import Cache, Entry, File
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.lockfile import LockFile
from siteswap.manifest import Distribution, Interpreter
from siteswap.progress import Progress
from siteswap.requirements import Request, parse_line

_EXTRA = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']""")
_CODE = (".py", ".so")


def make(
    fs: FileSystem,
    cache: Cache,
    scratch: Path,
    candidate: Sequence[Distribution],
    interpreter: Interpreter,
    lock: LockFile,
    requirements: Sequence[str],
    options: resolve.Options,
    progress: Progress,
    *,
    request: Request | None = None,
    taken: Collection[str] = (),
) -> Path:
    """A new directory below `scratch` with what `requirements` need and the candidate does not have.

    `candidate` are its distributions and `lock` is what it was made from; of
    `request` only constraints and options count. `taken` are the paths of its
    files, relative to its prefix. Nothing is durable. Raises SiteswapError
    (requirement) where the requirements do not fit the candidate as it is.
    """
    where = fs.free_name(scratch, "overlay")
    work, site = where / "work", where / "site"
    for directory in (where, work, site):
        fs.make_directory(directory)
    if requirements:
        progress.phase("resolve")
        given = request or Request()
        lines = Request(tuple(parse_line(line, work, fs) for line in requirements))
        asked = replace(
            lines, constraints=(*given.constraints, _pins(fs, work, candidate)), options=given.options
        )
        found = _resolved(fs, work, candidate, interpreter, lock, asked, options)
        artifacts = found.artifacts(interpreter, {})
        progress.phase("download", len(artifacts))
        arguments = options.found_in(asked).arguments
        entries = wheels.obtain(
            artifacts, cache, interpreter, work, arguments, wheels.Progress.of(progress), way=options.way
        )
        _bring(fs, site, entries.values(), _Candidate(taken, interpreter))
    fs.remove_tree(work)
    return site


# -- resolving ----------------------------------------------------------------------------------------


def _resolved(
    fs: FileSystem,
    work: Path,
    candidate: Sequence[Distribution],
    interpreter: Interpreter,
    lock: LockFile,
    asked: Request,
    options: resolve.Options,
) -> LockFile:
    """What the requirements need, without what the candidate has."""
    held = [(item, _metadata(item)) for item in candidate if _version(item.version) is not None]
    # `no_index` has the resolver offered what is installed: what comes from a source tree, a URL or
    # another tool is on no index in that version. Whether it asks an index too is said by the arguments.
    plain = replace(options, no_index=True, no_deps=False, upgrade=False, upgrade_packages=())
    try:
        found = resolve.resolve(fs, work, asked.requirements, asked, plain, interpreter, lock, held)
    except SiteswapError as error:
        if error.kind is not Kind.REQUIREMENT:
            raise
        raise _refusal(asked, error.detail or error.message) from error
    installed = {item.name: item for item in candidate}
    for package in found.data["packages"]:
        has = installed.get(package["name"])
        wanted = package.get("version")
        if has is not None and wanted is not None and _differ(has.version, wanted):
            raise _refusal(asked, f"they want {has.name} {wanted}, and {has.title} is what is tried")
    return found.only(found.names - installed.keys())


def _refusal(asked: Request, detail: str) -> SiteswapError:
    lines = ", ".join(item.line for item in asked.requirements)
    return SiteswapError(
        Kind.REQUIREMENT,
        f"what the tests need cannot be had beside what is to be tried: {lines}",
        hint="add an index that has it, or change `requirements` of that test in the settings",
        detail=detail,
    )


def _pins(fs: FileSystem, work: Path, candidate: Iterable[Distribution]) -> Path:
    """A constraints file by which no version of the candidate can move."""
    path = work / "candidate.txt"
    pinned = [f"{item.name}=={item.version}\n" for item in candidate if _version(item.version) is not None]
    fs.write(path, "".join(pinned).encode())
    return path


def _metadata(item: Distribution) -> bytes:
    """What the resolver needs to know of an installed distribution (PyPA core metadata)."""
    extras = {name for line in item.requires for name in _EXTRA.findall(line)}
    lines = ["Metadata-Version: 2.1", f"Name: {item.name}", f"Version: {item.version}"]
    lines += [f"Requires-Python: {item.requires_python}"] if item.requires_python else []
    lines += [f"Provides-Extra: {name}" for name in sorted(extras)]
    lines += [f"Requires-Dist: {' '.join(line.split())}" for line in item.requires]
    return "".join(f"{line}\n" for line in lines).encode()


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _differ(one: str, other: str) -> bool:
    return one != other and (_version(one) is None or _version(one) != _version(other))


# -- bringing it --------------------------------------------------------------------------------------


class _Candidate:
    """Names that the candidate's files give to its modules."""

    def __init__(self, paths: Iterable[str], interpreter: Interpreter) -> None:
        sites = {f"{interpreter.schemes[name]}/" for name in ("purelib", "platlib")}
        self.paths = {path.removeprefix(site) for path in paths for site in sites if path.startswith(site)}
        code = [path for path in self.paths if path.endswith(_CODE)]
        self.packages = set(plan.directories_of(code))
        self.modules = {_module(path) for path in code} - self.packages

    def hides(self, path: str) -> bool:
        """Whether a file of that path must stay away, because it would hide a part of the candidate.

        A directory without `__init__.py` hides nothing: a package of that name
        further along the path is found, and two such directories are one package.
        """
        if path in self.paths:
            return True
        if any(parent in self.modules for parent in plan.directories_of([path])):
            return True
        name = _module(path)
        return path.endswith(_CODE) and (name in self.modules or name in self.packages)


def _module(path: str) -> str:
    """The module or package that a source or shared library is, as a path."""
    head, _, name = path.rpartition("/")
    stem = name.partition(".")[0]
    if stem == "__init__":
        return head
    return f"{head}/{stem}" if head else stem


def _bring(fs: FileSystem, site: Path, entries: Iterable[Entry], candidate: _Candidate) -> None:
    """Copy the importable files of wheels into one directory, each with a RECORD.

    Copies, not links: the tests may write to them, and the cache is everybody's.
    """
    there: set[str] = set()
    for entry in entries:
        record = f"{entry.index.dist_info}/RECORD"
        files = [file for file in entry.index.files if _is_brought(file, record, candidate)]
        files = list({file.path: file for file in files if file.path not in there}.values())
        there |= {file.path for file in files}
        fs.make_directories(site, plan.directories_of(file.path for file in files))
        pairs = [(f"{file.scheme}/{file.path}", file.path) for file in files]
        fs.link_files(entry.path, site, pairs, copy=True, tick=lambda _: None)
        # Plugins are found by the files that RECORD lists.
        rows = [plan.Row(f"./{file.path}", file.hash, str(file.size)) for file in files]
        fs.write(site / record, plan.write_record(rows, f"./{entry.index.dist_info}"))


def _is_brought(file: File, record: str, candidate: _Candidate) -> bool:
    return file.scheme in ("purelib", "platlib") and file.path != record and not candidate.hides(file.path)
