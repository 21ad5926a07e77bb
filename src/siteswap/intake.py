"""What is in a virtual environment of another tool: a private copy of it, and what that holds.

Everything is copied (by reflink where the file system has it), nothing linked: programs that
run from the old files may write to them in place, which must not reach what is published [I2].
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from siteswap import plan, venv
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import Generation, is_metadata
from siteswap.layout import GenerationLayout
from siteswap.manifest import Distribution, Interpreter, Manifest
from siteswap.workspace import described, list_note


@dataclass(frozen=True)
class Content:
    """What a virtual environment holds, as its private copy has it."""

    distributions: tuple[Distribution, ...]
    strays: tuple[str, ...]
    """Files that belong to no distribution, all of them."""
    named: tuple[str, ...]
    """The same in few names, for people."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """One .dist-info with a RECORD that can be read."""

    distribution: Distribution
    rows: tuple[plan.Row, ...]
    whole: bool
    """Whether every file is there."""


Sight = Mapping[str, tuple[int, int]]
"""Every file and link, with what changes whenever it is written or replaced."""


class Intake:
    """The virtual environment at `root`, taken in at `copy`, in staging."""

    def __init__(self, fs: FileSystem, root: Path, copy: Path, interpreter: Interpreter) -> None:
        self._fs = fs
        self._root = root
        self._copy = copy
        self._interpreter = interpreter

    def look(self, root: Path | None = None) -> Sight:
        """What is there now. `root` is where it stands, if not where it always stood.

        Raises SiteswapError (usage) for what could not be taken in.
        """
        place = root or self._root
        top = self._fs.entry(place)
        kinds = dict(self._fs.walk(place))
        for path, kind in kinds.items():
            if kind == "other":
                raise SiteswapError(
                    Kind.USAGE,
                    f"{place / path} is a socket, a pipe or a device, which cannot be taken in",
                    hint="end the program that uses it, or move it away",
                )
            found = self._fs.entry(place / path) if kind == "directory" else None
            if found is not None and top is not None and found.inode[0] != top.inode[0]:
                raise SiteswapError(
                    Kind.USAGE,
                    f"{place / path} is on another file system",
                    hint="unmount it, or move it out of the environment",
                )
        if kinds.get("lib64") == "directory" and self._interpreter.lib64:
            raise SiteswapError(
                Kind.USAGE,
                f"{place / 'lib64'} is a directory of its own, where siteswap has a link to lib",
                hint="create a new environment beside it, and sync it to what this one has",
            )
        paths = [path for path, kind in kinds.items() if kind in ("file", "link") and not _is_byte_code(path)]
        try:
            return dict(zip(paths, self._fs.stamps(place, paths), strict=True))
        except FileNotFoundError as error:
            raise changing(self._root, str(error.filename)) from error

    def lost(self, sight: Sight) -> list[str]:
        """What to tell of what is not taken along: empty directories, extended attributes."""
        directories = [path for path, kind in self._fs.walk(self._root) if kind == "directory"]
        headers = self._interpreter.schemes["headers"]
        there = {"", "include", headers, *plan.directories_of([headers, *sight])}
        there.add(headers.replace("/site/", "/"))  # `venv` makes these
        empty = [
            path
            for path in directories
            if path not in there and path.rpartition("/")[0] in there and not _is_byte_code(path)
        ]
        marked = [path for path in (*directories, *sight) if self._fs.attributes(self._root / path)]
        return [
            *list_note("empty, and so not kept", empty),
            *list_note("extended attributes are not kept", sorted(marked)),
        ]

    def take(self, sight: Sight, tick: Callable[[int], None]) -> None:
        """Copy what was seen, but for the maker's own files. Neither atomic nor durable."""
        kept = [path for path in sight if not venv.is_makers(path, self._interpreter)]
        links = {path: self._fs.read_link(self._root / path) for path in kept}
        files = [path for path in kept if links[path] is None]
        self._fs.make_directory(self._copy)
        self._fs.make_directories(self._copy, plan.directories_of(kept))
        try:
            pairs = [(path, path) for path in files]
            self._fs.link_files(self._root, self._copy, pairs, copy=True, tick=tick)
        except FileNotFoundError as error:
            raise changing(self._root, str(error.filename)) from error
        for path, target in links.items():
            if target is not None:
                deeper = venv.outside(path, target, str(self._root))
                self._fs.symlink(self._copy / path, deeper or target)

    def sort(self, bare: Manifest) -> Content:
        """What belongs to which distribution, by RECORD; one that says other than what is there is corrected.

        `bare` describes a generation without any.
        """
        kinds = {path: kind for path, kind in self._fs.walk(self._copy) if kind != "directory"}
        notes: list[str] = []
        by_name: dict[str, list[_Found]] = {}
        for path in sorted(kinds):
            dist_info = path.rpartition("/")[0]
            if is_metadata(path, self._interpreter):
                found = self._read(dist_info, bare, kinds)
                if found is None:
                    name = dist_info.rpartition("/")[2]
                    notes.append(f"{name} has no RECORD that can be read: kept as files of no distribution")
                else:
                    by_name.setdefault(found.distribution.name, []).append(found)
        picked: list[_Found] = []
        for name, rivals in sorted(by_name.items()):
            first = venv.chosen([(i.distribution.version, i.distribution.dist_info, i.whole) for i in rivals])
            picked.append(rivals[first])
            for other in rivals[:first] + rivals[first + 1 :]:
                told = (
                    f"{other.distribution.dist_info.rpartition('/')[2]} is kept as files of no distribution"
                )
                notes.append(f"{name} is there twice: {told}")
        shares = Counter(path for item in picked for path in {row.path for row in item.rows})
        claimed: set[str] = set()
        wrong: list[str] = []
        for item in picked:
            rows, right = self._corrected(item, kinds, shares)
            claimed |= {row.path for row in rows}
            if not right:
                wrong.append(item.distribution.title)
        notes += list_note("not what RECORD says: kept as it is, and RECORD says so now", wrong)
        strays = tuple(path for path in sorted(kinds) if path not in claimed)
        common = (f"{self._interpreter.schemes['scripts']}/.", f"{self._interpreter.purelib}/.")
        told_of = [path for path in strays if not venv.is_activate(path, self._interpreter)]
        named = tuple(venv.summits(told_of, {*claimed, *common}))
        notes += list_note("belongs to no distribution, carried along", named)
        return Content(tuple(item.distribution for item in picked), strays, named, tuple(notes))

    def bring_byte_code(self, target: Path) -> None:
        """Copy the byte-code of what was taken in: else the first start would pay seconds."""
        sources = plan.sources_by_directory(
            path for path, kind in self._fs.walk(self._copy) if kind == "file"
        )
        directories, pairs = [], []
        for directory, names in sources.items():
            cache = f"{directory}/__pycache__" if directory else "__pycache__"
            listed = [name for name, kind in self._fs.entries(self._root / cache) if kind == "file"]
            found = plan.byte_code_of(names, listed)
            if found and self._fs.entry(target / cache) is None:
                directories.append(cache)
                pairs += [(f"{cache}/{name}", f"{cache}/{name}") for name in found]
        self._fs.make_directories(target, directories)
        try:
            self._fs.link_files(self._root, target, pairs, copy=True, tick=lambda _: None)
        except FileNotFoundError as error:
            raise changing(self._root, str(error.filename)) from error

    # -- one distribution ------------------------------------------------------------------------

    def _read(self, dist_info: str, bare: Manifest, kinds: Mapping[str, str]) -> _Found | None:
        generation = Generation(self._fs, GenerationLayout(self._copy), bare)
        try:
            item = generation.foreign(dist_info)
            if item is None:
                return None
            text = self._fs.read_text(self._copy / dist_info / "RECORD")
            rows = plan.read_record(text, dist_info)
        except (OSError, UnicodeDecodeError, csv.Error):
            return None
        whole = all(row.path in kinds for row in rows)
        return _Found(described(self._fs, self._copy, item), tuple(rows), whole)

    def _corrected(
        self, item: _Found, kinds: dict[str, str], shares: Mapping[str, int]
    ) -> tuple[Sequence[plan.Row], bool]:
        """The rows of what is there, and whether RECORD says just that; else it is made to."""
        dist_info = item.distribution.dist_info
        own = f"{dist_info}/RECORD"
        rows: list[plan.Row] = []
        for row in {row.path: row for row in item.rows}.values():
            if row.path != own and self._is_file(row.path, kinds):
                rows.append(row if shares[row.path] > 1 else self._as_it_is(row))
        listed = [row for row in item.rows if row.path != own]
        right = rows == list({row.path: row for row in listed}.values()) and len(listed) < len(item.rows)
        if not right:
            self._fs.write(self._copy / own, plan.write_record(rows, dist_info))
        return [*rows, plan.Row(own, "", "")], right

    def _as_it_is(self, row: plan.Row) -> plan.Row:
        if not row.hash.startswith("sha256="):
            return row
        found = plan.row_of(row.path, self._fs.read(self._copy / row.path))
        return row if found.hash == row.hash.rstrip("=") else found

    def _is_file(self, path: str, kinds: dict[str, str]) -> bool:
        """Whether a distribution's file is there; a link to one (as uv can make them) becomes that file."""
        if kinds.get(path) == "link":
            place, real = self._copy / path, self._fs.resolve(self._root / path)
            found = self._fs.entry(real)
            if found is None or found.kind != "file":
                return False
            self._fs.unlink(place)
            self._fs.copy_tree(real, place)
            kinds[path] = "file"
        return kinds.get(path) == "file"


def changing(root: Path, path: str) -> SiteswapError:
    """The error where somebody writes to the environment while it is read."""
    return SiteswapError(
        Kind.BUSY,
        f"{root} changed while it was copied: {path}",
        hint="let the other installer, or the program that writes there, come to its end, then try again",
    )


def _is_byte_code(path: str) -> bool:
    return "__pycache__" in path.split("/")
