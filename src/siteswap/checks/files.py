"""Is every file of a distribution there, and what its RECORD says?

By PyPA's "recording installed projects": existence, kind, size and hash of each
row; and whether METADATA speaks of the distribution that we hold it for.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from siteswap import process
from siteswap.checks.reading import content, shown
from siteswap.errors import SiteswapError
from siteswap.fs import Entry
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.plan import Row
from siteswap.verdict import Check, Finding

_PIECE = 1 << 20
_THREADS = 8
_PORTION = 64
"""Files that one thread takes at a time: most are small, and handing out costs more than hashing them."""


def check(generation: Generation, subjects: Sequence[Distribution]) -> list[Finding]:
    """Files of the subjects that are missing, or are not what RECORD says."""
    findings: list[Finding] = []
    portions: list[_Portion] = []
    for item in subjects:
        findings += [_finding(item, "METADATA", message) for message in _metadata(generation, item)]
        try:
            rows = list(dict.fromkeys(generation.record(item)))
        except SiteswapError as error:
            findings.append(_finding(item, "RECORD", f"RECORD cannot be read: {_reason(error.__cause__)}"))
            continue
        portions += [
            _Portion(item, rows[start : start + _PORTION]) for start in range(0, len(rows), _PORTION)
        ]
    shared = frozenset(generation.manifest.overlaps)

    def one(portion: _Portion) -> list[Finding]:
        problems = [(row.path, _problem(generation, row, shared)) for row in portion.rows]
        return [
            _finding(portion.item, path, f"{shown(path)} {problem}") for path, problem in problems if problem
        ]

    for found in process.parallel(one, portions, min(_THREADS, os.cpu_count() or 1)):
        findings += found
    return findings


@dataclass(frozen=True)
class _Portion:
    item: Distribution
    rows: Sequence[Row]


def _finding(item: Distribution, part: str, message: str) -> Finding:
    return Finding(Check.FILES, item.name, message, part, item.version)


def _problem(generation: Generation, row: Row, shared: frozenset[str]) -> str | None:
    """What is wrong with one file, to follow its name; None when nothing is."""
    path = generation.layout.path / row.path
    try:
        entry = generation.fs.entry(path)
        wrong = _wrong_outside(entry, row, row.path in shared)
        digest = _digest_of(row.hash)
        if entry is None or wrong is not None or digest is None or row.path in shared:
            return wrong
        # Most files are small: room for a whole piece each time would cost more than hashing them.
        most = min(_PIECE, entry.size + 1)
        with generation.fs.open(path) as stream:
            while piece := stream.read(most):
                digest.update(piece)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        return f"cannot be read: {_reason(error)}"
    return _wrong_inside(digest.name, digest.digest(), row)


def _wrong_outside(entry: Entry | None, row: Row, shared: bool) -> str | None:
    """What its directory entry says against a file. Pure.

    Where a file may be another distribution's too, its content is not this one's to judge.
    """
    if entry is None:
        return "is missing"
    if entry.kind != "file":
        kind = {"link": "a link", "directory": "a directory"}.get(entry.kind, "a device or a pipe")
        return f"is {kind} and not a regular file"
    expected = row.size.lstrip("0") or row.size[-1:]
    if expected and not shared and expected != str(entry.size):
        return f"has {entry.size} bytes where RECORD says {shown(row.size, 20)}"
    return None


def _wrong_inside(algorithm: str, digest: bytes, row: Row) -> str | None:
    """What its content's hash says against a file. Pure."""
    encoded = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    if encoded == row.hash.partition("=")[2].rstrip("="):
        return None
    return f"does not have the content that RECORD says ({algorithm} differs)"


def _digest_of(field: str) -> hashlib._Hash | None:
    """An empty digest of the kind that a row's hash is of; None where there is nothing to compare."""
    algorithm, sign, _ = field.partition("=")
    try:
        digest = hashlib.new(algorithm, usedforsecurity=False) if sign else None
    except (ValueError, TypeError):  # none that this Python knows
        return None
    # The shake family has digests of any length, and RECORD does not say which.
    return digest if digest is not None and digest.digest_size else None


def _metadata(generation: Generation, item: Distribution) -> list[str]:
    found = content(generation, f"{item.dist_info}/METADATA")
    return ["METADATA cannot be read"] if found is None else _misnamed(found, item)


_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


def _misnamed(metadata: bytes, item: Distribution) -> list[str]:
    """How METADATA contradicts what its distribution is taken for. Pure."""
    from packaging.metadata import parse_email

    head = _BLANK_LINE.split(metadata, maxsplit=1)[0]  # the rest is a description, long and slow to parse
    fields, _ = parse_email(head + b"\n")
    name, version = fields.get("name"), fields.get("version")
    problems = []
    if name is None or canonicalize_name(name) != item.name:
        problems.append(f"METADATA names {_said(name)}, not {shown(item.name)}")
    if version is None or not _same_version(version, item.version):
        problems.append(f"METADATA has version {_said(version)}, not {shown(item.version)}")
    return problems


def _said(value: str | None) -> str:
    return "none, or several" if value is None else shown(value, 80) or "an empty one"


def _same_version(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one.strip() == other.strip()


def _reason(error: BaseException | None) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else shown(str(error), 80)
