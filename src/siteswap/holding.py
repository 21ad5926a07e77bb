"""What a plain directory holds: its distributions by their RECORD, and files of none.

There is no database: what siteswap must remember of a distribution stands in that one's own
.dist-info, is listed in its RECORD, and goes with it, whoever takes it away.
"""

from __future__ import annotations

import csv
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tomli_w
from packaging.requirements import InvalidRequirement

from siteswap import plan, venv
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import foreign
from siteswap.lockfile import EMPTY, LockFile
from siteswap.manifest import Distribution, Interpreter
from siteswap.place import CHANGING, Place, joined
from siteswap.requirements import Requirement, parse_stored
from siteswap.workspace import described

NOTE = "siteswap_note.toml"
"""The file in a .dist-info with what siteswap remembers of how the distribution came there."""


@dataclass(frozen=True)
class Held:
    """One distribution, as it lies in the place."""

    distribution: Distribution
    """With its .dist-info where an environment would have it."""
    dist_info: str
    rows: tuple[plan.Row, ...]
    """What its RECORD names here, but for RECORD itself."""
    also: tuple[str, ...]
    """Metadata of other versions of it that another tool left: it goes when this one goes or changes."""
    note: Mapping[str, Any]
    """Empty where another tool put it there."""

    @property
    def paths(self) -> list[str]:
        """All that belongs to it."""
        return [*(row.path for row in self.rows), f"{self.dist_info}/RECORD", *self.also]


@dataclass(frozen=True)
class Holding:
    """What a place holds."""

    place: Place
    held: tuple[Held, ...]
    kinds: Mapping[str, str]
    """Kind of all that is in it, directories included; byte-code too."""
    strays: tuple[str, ...]
    """Files and links that belong to no distribution, byte-code aside."""
    damaged: tuple[str, ...]
    """Names of distributions of ours that miss files."""
    notes: tuple[str, ...]

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """All of them, by name."""
        return tuple(sorted((item.distribution for item in self.held), key=lambda item: item.name))

    def owners(self) -> dict[str, str]:
        """The distribution that each path belongs to."""
        return {path: item.distribution.name for item in self.held for path in item.paths}

    def lock(self) -> LockFile:
        """What is known of where its distributions came from: a lock of those that siteswap installed."""
        lock = LockFile.parse(EMPTY, self.place.top, "a lock")
        packages = [dict(package) for item in self.held for package in item.note.get("packages", ())]
        return replace(lock, data={**lock.data, "packages": packages})

    def requirements(self) -> list[Requirement]:
        """What counts as asked for."""
        found = []
        for item in self.held:
            distribution = item.distribution
            if distribution.requested:
                found.append(_requirement(item.note.get("requirement"), distribution.name))
        return found


def _requirement(line: object, name: str) -> Requirement:
    try:
        return parse_stored(str(line)) if line is not None else Requirement(name, name)
    except InvalidRequirement:
        return Requirement(name, name)


def noted_python(fs: FileSystem, place: Place) -> str | None:
    """The interpreter that what is there was installed for; None where no note says it, or it is gone."""
    for site in place.sites:
        for name, kind in fs.entries(place.anchor / site):
            if kind == "directory" and name.endswith(".dist-info"):
                found = _read_note(fs, place, joined(site, name)).get("python")
                if isinstance(found, str):
                    return found
    return None


def note(requirement: str | None, distribution: Distribution, packages: Iterable[Any], python: str) -> bytes:
    """The note of a distribution."""
    data: dict[str, Any] = {"format": 1, "key": distribution.key, "python": python}
    if distribution.origin is not None:
        data["origin"] = distribution.origin
    if requirement is not None:
        data["requirement"] = requirement
    return tomli_w.dumps({**data, "packages": list(packages)}).encode()


def read(fs: FileSystem, place: Place, python: Interpreter) -> Holding:
    """What is there now. Takes no lock; raises SiteswapError (busy) when it changes meanwhile."""
    try:
        return _read(fs, place, python)
    except FileNotFoundError as error:
        raise changing(place, str(error.filename)) from error


def changing(place: Place, path: str) -> SiteswapError:
    """The error where somebody else changes the place."""
    return SiteswapError(
        Kind.BUSY,
        f"{place.top} changed meanwhile: {path}",
        hint="let the other installer, or the program that writes there, come to its end, then try again",
    )


def _read(fs: FileSystem, place: Place, python: Interpreter) -> Holding:
    kinds: dict[str, str] = {}
    for site in place.sites:
        for path, kind in fs.walk(place.anchor / site):
            if path.partition("/")[0] != place.inside.name:
                kinds[joined(site, path)] = kind
    notes: list[str] = []
    by_name: dict[str, list[Held]] = {}
    for path in sorted(kinds):
        head, _, name = path.rpartition("/")
        if (
            name != "METADATA"
            or not head.endswith(".dist-info")
            or head.rpartition("/")[0] not in place.sites
        ):
            continue
        found = _held(fs, place, python, head, kinds)
        if found is None:
            notes.append(
                f"{head} has no RECORD that can be read: its files are taken for files of no distribution"
            )
        else:
            by_name.setdefault(found.distribution.name, []).append(found)
    held = [_only(rivals, kinds) for _, rivals in sorted(by_name.items())]
    claimed = {path for item in held for path in item.paths}
    strays = tuple(
        path
        for path, kind in sorted(kinds.items())
        if kind != "directory" and path not in claimed and "__pycache__" not in path.split("/")
    )
    damaged = tuple(
        item.distribution.name
        for item in held
        if not item.distribution.foreign and any(row.path not in kinds for row in item.rows)
    )
    return Holding(place, tuple(held), kinds, strays, damaged, tuple(notes))


def _only(rivals: list[Held], kinds: Mapping[str, str]) -> Held:
    """Of several .dist-info of one name the one that counts; the others' metadata goes along with it."""
    order = [
        (item.distribution.version, item.dist_info, all(row.path in kinds for row in item.rows))
        for item in rivals
    ]
    first = rivals[venv.chosen(order)]
    others = [f"{item.dist_info}/" for item in rivals if item is not first]
    also = tuple(
        path
        for path, kind in sorted(kinds.items())
        if kind != "directory" and any(path.startswith(other) for other in others)
    )
    return replace(first, also=also)


def _held(
    fs: FileSystem, place: Place, python: Interpreter, dist_info: str, kinds: dict[str, str]
) -> Held | None:
    where = place.anchor / dist_info
    try:
        record = fs.read(where / "RECORD")
        inner = place.inner(dist_info, python)
        item = foreign(inner or dist_info, fs.read(where / "METADATA"), hashlib.sha256(record).hexdigest())
        if item is None or inner is None:
            return None
        rows = _rows(record.decode(), dist_info, place)
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    for row in rows:
        # Outside of what was walked: a program, data. Never what only a link leads to: that is elsewhere.
        if row.path not in kinds and not place.whole and not _behind_a_link(fs, place, row.path):
            found = fs.entry(place.anchor / row.path)
            if found is not None:
                kinds[row.path] = found.kind
    item = replace(described(fs, place.anchor, replace(item, dist_info=dist_info)), dist_info=inner)
    known = _read_note(fs, place, dist_info)
    if known:
        item = replace(item, key=str(known["key"]), origin=known.get("origin"), foreign=False)
    own = f"{dist_info}/RECORD"
    return Held(item, dist_info, tuple(row for row in rows if row.path != own), (), known)


def _behind_a_link(fs: FileSystem, place: Place, path: str) -> bool:
    found = (
        fs.entry(place.anchor / parent) for parent in plan.directories_of([path]) if parent not in place.above
    )
    return any(entry is not None and entry.kind == "link" for entry in found)


def _rows(text: str, dist_info: str, place: Place) -> list[plan.Row]:
    """RECORD's rows, once each, with their paths relative to the anchor."""
    if place.whole:
        # pip notes where programs and data were before it moved them here.
        text = re.sub(r'(?m)^("?)\.\./\.\./', r"\1", text)
    at_the_top = "/" not in dist_info
    found = plan.read_record(text, f"./{dist_info}" if at_the_top else dist_info)
    rows = (replace(row, path=row.path.removeprefix("./")) for row in found)
    return [row for row in {row.path: row for row in rows}.values() if place.holds(row.path)]


def write_record(rows: Iterable[plan.Row], dist_info: str) -> bytes:
    """RECORD's text for a .dist-info of a place."""
    if "/" in dist_info:
        return plan.write_record(rows, dist_info)
    return plan.write_record((replace(row, path=f"./{row.path}") for row in rows), f"./{dist_info}")


def _read_note(fs: FileSystem, place: Place, dist_info: str) -> dict[str, Any]:
    try:
        data = tomllib.loads(fs.read_text(place.anchor / dist_info / NOTE))
        LockFile.parse(tomli_w.dumps({"lock-version": "1.0", "created-by": "siteswap",
                                      "packages": data["packages"]}), place.top, NOTE)  # fmt: skip
        return data if data["format"] == 1 and isinstance(data["key"], str) else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, SiteswapError, KeyError, TypeError):
        return {}  # without a note it is what another tool put there


def is_hidden(name: str) -> bool:
    """Whether a name is that of a directory for work in progress."""
    return name.endswith(f".{CHANGING}")
