"""Where the files of distributions go, who claims what, and what must change to recycle. Pure.

Paths are strings relative to a generation's prefix, with `/`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from siteswap.archive import folded
from siteswap.cache import File, Index
from siteswap.errors import Kind, SiteswapError
from siteswap.manifest import Interpreter

INSTALLER = b"siteswap\n"
SITESWAP = "siteswap itself"
"""The owner of files that no distribution may claim."""

GENERATED = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD")
"""Files of a .dist-info that the installer writes (PyPA recording installed projects, PEP 610)."""

_PROGRAM = re.compile(r"\w[\w.+@:,-]*\Z")
"""Names of programs that any shell takes for one word and for no option; real ones need no more."""
_FOREIGN_PROGRAM = re.compile(r"(pythonw?[\d.]*[a-z]?|(de)?activate(_this\.py|\..*)?)\Z", re.IGNORECASE)
"""Names of interpreters, and of what environments have to be activated by."""
_PIP = re.compile(r"pip[\d.]*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One row of RECORD, its path relative to the prefix."""

    path: str
    hash: str
    size: str


def destination(file: File, interpreter: Interpreter, name: str) -> str:
    """Where a wheel's file goes, by the interpreter's schemes."""
    base, path = interpreter.schemes[file.scheme], file.path
    if file.scheme == "headers":
        base = f"{base}/{name}"
    if file.scheme == "data" and interpreter.lib64 and path.startswith("lib64/"):
        path = f"lib/{path.removeprefix('lib64/')}"  # lib64 is a link to lib
    return f"{base}/{path}" if base else path


def dist_info_path(index: Index, interpreter: Interpreter) -> str:
    """Where the .dist-info directory of a wheel goes."""
    return f"{interpreter.schemes[index.root]}/{index.dist_info}"


def row_of(path: str, content: bytes) -> Row:
    """The row of RECORD for a file that was made here."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return Row(path, f"sha256={digest}", str(len(content)))


def write_record(rows: Iterable[Row], dist_info: str) -> bytes:
    """RECORD's text: paths relative to the directory of the .dist-info, itself last and without a hash."""
    base = posixpath.dirname(dist_info)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in sorted(rows, key=lambda row: row.path):
        writer.writerow((_relative(row.path, base), row.hash, row.size))
    writer.writerow((_relative(f"{dist_info}/RECORD", base), "", ""))
    return text.getvalue().encode()


def read_record(text: str, dist_info: str) -> list[Row]:
    """Rows of a RECORD with their paths relative to the prefix.

    Rows that lead out of the prefix, and byte-code, are left out: neither is ours to touch.
    """
    base = posixpath.dirname(dist_info)
    rows = []
    for fields in csv.reader(io.StringIO(text)):
        if not fields or not fields[0] or fields[0].startswith("/"):
            continue
        path = fields[0] if fields[0][0] != "." and "/.." not in fields[0] else ""
        path = f"{base}/{path}" if path else posixpath.normpath(f"{base}/{fields[0]}")
        if path.startswith("../") or path == ".." or path.endswith((".pyc", "/__pycache__")):
            continue  # virtualenv lists the directories of byte-code too
        rows.append(Row(path, fields[1] if len(fields) > 1 else "", fields[2] if len(fields) > 2 else ""))
    return rows


def _relative(path: str, base: str) -> str:
    prefix = f"{base}/"
    return path[len(prefix) :] if path.startswith(prefix) else posixpath.relpath(path, base)


def misplaced(
    files: Sequence[str], programs: Sequence[str], dist_info: str, name: str, interpreter: Interpreter
) -> list[str]:
    """What is wrong with where a distribution's files go, and the programs of its entry points: a line each.

    Two that would be one, what readers of metadata would take for another distribution's, and programs
    whose names a shell would obey or that pass for others.
    """
    problems = [f"{name} has two files for {path}" for path, count in Counter(files).items() if count > 1]
    seen: dict[str, str] = {}
    for path in dict.fromkeys([*files, *programs]):
        other = seen.setdefault(folded(path), path)
        if other != path:
            problems.append(f"{path} and {other} of {name} are one name where case does not count")
    sites = {interpreter.schemes["purelib"], interpreter.schemes["platlib"]}
    for path in files:
        if any(_is_foreign_metadata(path, site, dist_info, name) for site in sites):
            problems.append(f"{path} of {name} would pass for metadata of another distribution")
    for path in dict.fromkeys([*files, *programs]):
        directory, _, program = path.rpartition("/")
        problem = _unfit(program, name) if directory == interpreter.schemes["scripts"] else None
        if problem:
            problems.append(f"{path} of {name} {problem}")
    return problems


def _is_foreign_metadata(path: str, site: str, dist_info: str, name: str) -> bool:
    if not path.startswith(f"{site}/"):
        return False
    first = path[len(site) + 1 :].partition("/")[0]
    stem, _, kind = first.lower().rpartition(".")
    if kind == "dist-info":
        return f"{site}/{first}" != dist_info
    return kind == "egg-info" and canonicalize_name(stem.partition("-")[0]) != name


def _unfit(program: str, name: str) -> str | None:
    """What speaks against a program of that name from the distribution `name`."""
    if not _PROGRAM.match(program):
        return "is no name for a program: a shell would not take it for one word"
    if _FOREIGN_PROGRAM.match(program):
        return "would pass for a part of the environment itself"
    if _PIP.match(program) and name != "pip":
        return "would pass for pip"
    return None


def directories_of(paths: Iterable[str]) -> list[str]:
    """Every directory that the paths need, parents first."""
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(found)


@dataclass(frozen=True)
class Ownership:
    """Who owns each path of a candidate."""

    owner: Mapping[str, str]
    """The distribution (or siteswap itself) whose file stands at a path."""
    overlaps: tuple[str, ...]
    """Paths claimed by more than one distribution, where that was allowed."""


def assign(
    claims: Sequence[tuple[str, Sequence[str]]],
    reserved: Iterable[str],
    allow_overlap: bool,
    *,
    allowed: Collection[str] = (),
    same: Callable[[str, str, str], bool] | None = None,
) -> Ownership:
    """Give every path one owner: `claims` are (distribution, its paths) in order of installation.

    Where two claim one path the later one gets it, as pip does, if that is
    allowed: always with `allow_overlap`, else for the paths in `allowed`, and
    where `same` says of a path and its two claimants that their files have the
    same content (the `__init__.py` of a pkgutil-style namespace, say). Raises
    SiteswapError (conflict) naming both, or naming siteswap's own files, or
    where one's file is another's directory.
    """
    owner = dict.fromkeys(reserved, SITESWAP)
    problems: list[str] = []
    overlaps: list[str] = []
    clashes = 0
    for name, paths in claims:
        for path in paths:
            other = owner.get(path)
            if other is not None and other != name:
                if other == SITESWAP:
                    problems.append(f"{path} of {name} would replace a file of {SITESWAP}")
                    continue
                overlaps.append(path)
                if not (allow_overlap or path in allowed or (same and same(path, other, name))):
                    clashes += 1
                    problems.append(f"{path} is claimed by {other} and by {name}")
            owner[path] = name
    for directory in directories_of(owner):
        if directory in owner:
            inner = next(path for path in owner if path.startswith(f"{directory}/"))
            problems.append(
                f"{inner} of {owner[inner]} cannot be: {directory} is a file of {owner[directory]}"
            )
    if problems:
        only_overlaps = len(problems) == clashes
        raise SiteswapError(
            Kind.CONFLICT,
            problems[0] if len(problems) == 1 else f"{problems[0]} (and {len(problems) - 1} more such files)",
            hint="leave one of them out, or say --allow-overlap to let the later one win as pip does"
            if only_overlaps
            else "leave that distribution out",
            detail="\n".join(problems[:20]) if len(problems) > 1 else None,
        )
    return Ownership(owner, tuple(sorted(set(overlaps))))


def byte_code_of(directory_files: Iterable[str], byte_code: Iterable[str]) -> list[str]:
    """Those of the names in a `__pycache__` that belong to the given source names beside it."""
    stems = {name[:-3] for name in directory_files if name.endswith(".py")}
    return [name for name in byte_code if name.endswith(".pyc") and not stems.isdisjoint(_stems(name))]


def _stems(name: str) -> set[str]:
    """What a byte-code file's source may be called: a module's name may have dots, and so may a tag."""
    return {name[:position] for position, character in enumerate(name) if character == "."}


def sources_by_directory(paths: Iterable[str]) -> dict[str, list[str]]:
    """Names of Python sources by their directory."""
    found: dict[str, list[str]] = {}
    for path in paths:
        if path.endswith(".py"):
            directory, _, name = path.rpartition("/")
            found.setdefault(directory, []).append(name)
    return found
