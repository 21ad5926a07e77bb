"""What a candidate, made in a workshop, changes in the plain directory that it was made for."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from packaging.utils import canonicalize_name

from siteswap import plan, scripts
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import Generation
from siteswap.holding import NOTE, Held, Holding, note, write_record
from siteswap.manifest import Distribution
from siteswap.requirements import parse_stored


@dataclass(frozen=True)
class Projection:
    """Paths are relative to the place's anchor, but for the values of `copies`: those are the candidate's."""

    copies: Mapping[str, str]
    """Files that come from the candidate."""
    made: Mapping[str, tuple[bytes, bool]]
    """Files that are written: content, and whether it is a program."""
    gone: frozenset[str]
    """Files that go."""
    replaced: frozenset[str]
    """Paths of new files at which another one is."""

    @property
    def new(self) -> list[str]:
        """All that comes."""
        return sorted([*self.copies, *self.made])

    def __bool__(self) -> bool:
        return bool(self.copies or self.made or self.gone)


def project(
    fs: FileSystem, holding: Holding, base: Generation, candidate: Generation, python: str, *, overwrite: bool
) -> Projection:
    """What is to change. Reads only.

    `python` is the workshop's interpreter, which the candidate's programs name. Raises SiteswapError
    (conflict) for files of no distribution that are in the way; `overwrite` lets new files take their place.
    """
    work = _Work(fs, holding, candidate, python)
    held = {item.distribution.name: item for item in holding.held}
    was = {item.name: item for item in base.manifest.distributions}
    staying: set[str] = set()
    leaving: set[str] = set()
    for item in candidate.manifest.distributions:
        before, here = was.get(item.name), held.get(item.name)
        same = before is not None and here is not None and before.dist_info == item.dist_info
        if same and before is not None and here is not None and item.name not in holding.damaged:
            if before.key == item.key and work.noted(item) in (None, here.note or None):
                staying.update(here.paths)
                continue
            if before.key.partition("+")[0] == item.key.partition("+")[0]:  # only what is noted of it
                work.bring(item, here, only_notes=True)
                kept = {row.path for row in here.rows if not work.is_note(row.path, here)}
                staying |= kept
                leaving |= set(here.paths) - kept
                continue
        if here is not None:
            leaving |= set(here.paths)
        work.bring(item, here, only_notes=False)
    for name in held.keys() - {item.name for item in candidate.manifest.distributions}:
        leaving |= set(held[name].paths)
    coming = {*work.copies, *work.made}
    holding = _with_surroundings(fs, holding, coming)
    present = {path for path, kind in holding.kinds.items() if kind != "directory"}
    old = leaving | coming
    stale = _byte_code(holding, {path for path in old if path not in staying}) - coming
    gone = ((leaving - staying - coming) & present) | stale
    _require_free(work, holding, candidate, gone, overwrite)
    return Projection(work.copies, work.made, frozenset(gone), frozenset(coming & present))


class _Work:
    def __init__(self, fs: FileSystem, holding: Holding, candidate: Generation, python: str) -> None:
        self._fs = fs
        self._place = holding.place
        self._candidate = candidate
        self._python = python
        self._interpreter = candidate.interpreter
        self._packages: dict[str, list[Any]] = {}
        for package in tomllib.loads(candidate.lock_file().text).get("packages", ()):
            self._packages.setdefault(canonicalize_name(package["name"]), []).append(package)
        asked = (parse_stored(line) for line in candidate.manifest.requirements)
        self._asked = {item.name: item.text for item in asked}
        self.hashes: dict[str, str] = {}
        """What RECORD says of the content of new files."""
        self.copies: dict[str, str] = {}
        self.made: dict[str, tuple[bytes, bool]] = {}

    def noted(self, item: Distribution) -> dict[str, Any] | None:
        """What the note of a distribution is to say; None for another tool's, which has none."""
        if item.foreign:
            return None
        packages = self._packages.get(item.name, [])
        asked = self._asked.get(item.name)
        return tomllib.loads(note(asked, item, packages, self._interpreter.executable).decode())

    @staticmethod
    def is_note(path: str, here: Held) -> bool:
        """Whether a file is one that the installer writes about a distribution."""
        head, _, name = path.rpartition("/")
        return head == here.dist_info and name in (*plan.GENERATED, NOTE)

    def bring(self, item: Distribution, here: Held | None, *, only_notes: bool) -> None:
        """All of a distribution, or only what its installer notes of it."""
        pure = b"Root-Is-Purelib: false" not in self._wheel(item)
        dist_info = self._outer(item.dist_info, pure)
        rows: list[plan.Row] = []
        for row in self._candidate.record(item):
            outer = self._outer(row.path, pure)
            if outer == f"{dist_info}/RECORD" or outer == f"{dist_info}/{NOTE}":
                continue
            if only_notes and here is not None:
                if not self.is_note(outer, here):
                    continue
            elif row.path.startswith(f"{self._interpreter.schemes['scripts']}/"):
                content = self._fs.read(self._candidate.layout.path / row.path)
                changed = scripts.rebound(content, self._python, self._place.python)
                if changed is not None:
                    self._make(outer, changed, item, executable=True)
                    rows.append(plan.row_of(outer, changed))
                    continue
            self._copy(outer, row.path, item)
            rows.append(plan.Row(outer, row.hash, row.size))
        if only_notes and here is not None:
            rows += [row for row in here.rows if not self.is_note(row.path, here)]
        else:
            self._bring_byte_code(item, pure)
        if not item.foreign:
            text = note(
                self._asked.get(item.name), item, self._packages.get(item.name, []),
                self._interpreter.executable,
            )  # fmt: skip
            self._make(f"{dist_info}/{NOTE}", text, item)
            rows.append(plan.row_of(f"{dist_info}/{NOTE}", text))
        self.hashes |= {row.path: row.hash for row in rows}
        self._make(f"{dist_info}/RECORD", write_record(rows, dist_info), item)

    def _bring_byte_code(self, item: Distribution, pure: bool) -> None:
        """What the checks compiled: without it the first start would pay."""
        sources = plan.sources_by_directory(row.path for row in self._candidate.record(item))
        for directory, names in sources.items():
            cache = f"{directory}/__pycache__" if directory else "__pycache__"
            listed = [
                name for name, kind in self._fs.entries(self._candidate.layout.path / cache) if kind == "file"
            ]
            for name in plan.byte_code_of(names, listed):
                self.copies[self._outer(f"{cache}/{name}", pure)] = f"{cache}/{name}"

    def _wheel(self, item: Distribution) -> bytes:
        try:
            return self._fs.read(self._candidate.layout.path / item.dist_info / "WHEEL")
        except FileNotFoundError:
            return b""

    def _outer(self, path: str, pure: bool) -> str:
        return self._place.outer(path, self._interpreter, pure=pure)

    def _copy(self, outer: str, inner: str, item: Distribution) -> None:
        self._require_ours(outer, inner, item)
        self.copies[outer] = inner

    def _make(self, outer: str, content: bytes, item: Distribution, *, executable: bool = False) -> None:
        self._require_ours(outer, None, item)
        self.made[outer] = (content, executable)

    def _require_ours(self, outer: str, inner: str | None, item: Distribution) -> None:
        """Two files of a candidate may be one here: modules, programs and data share a directory."""
        if outer in self.made or self.copies.get(outer, inner) != inner:
            raise SiteswapError(
                Kind.CONFLICT,
                f"two files would be {outer} in {self._place.top}, one of them of {item.title}",
                hint="leave one of them out, or install into an environment",
            )
        if not self._place.holds(outer) or outer.partition("/")[0] == self._place.inside.name:
            raise SiteswapError(
                Kind.CONFLICT, f"{outer} of {item.title} cannot be there", hint="leave that distribution out"
            )


def _with_surroundings(fs: FileSystem, holding: Holding, coming: Iterable[str]) -> Holding:
    """The holding with what is at the paths of new files outside of what was walked: programs, data."""
    place, kinds, strays = holding.place, dict(holding.kinds), set(holding.strays)
    owned = holding.owners()
    above = set() if place.whole else place.above
    for path in sorted({*coming, *plan.directories_of(coming)}):
        found = fs.entry(place.anchor / path) if path not in kinds and path not in above else None
        if found is not None:
            kinds[path] = found.kind
            if found.kind != "directory" and path not in owned:
                strays.add(path)
    return replace(holding, kinds=kinds, strays=tuple(sorted(strays)))


def _byte_code(holding: Holding, sources: set[str]) -> set[str]:
    """Byte-code that is there of sources that go or change: it must not outlive them."""
    listed: dict[str, list[str]] = {}
    for path, kind in holding.kinds.items():
        head, _, name = path.rpartition("/")
        if kind != "directory" and head.rpartition("/")[2] == "__pycache__":
            listed.setdefault(head, []).append(name)
    found = set()
    for directory, names in plan.sources_by_directory(sources).items():
        cache = f"{directory}/__pycache__" if directory else "__pycache__"
        found |= {f"{cache}/{name}" for name in plan.byte_code_of(names, listed.get(cache, ()))}
    return found


def _require_free(
    work: _Work, holding: Holding, candidate: Generation, gone: set[str], overwrite: bool
) -> None:
    """Refuse to take the place of what belongs to no distribution, unless it is the very same."""
    strays = {path for path in holding.strays if path not in gone}
    coming = {*work.copies, *work.made}
    problems = []
    for path in sorted(coming):
        if "__pycache__" in path.split("/"):
            continue
        if holding.kinds.get(path) == "directory" and any(
            other.startswith(f"{path}/") and other not in gone and kind != "directory"
            for other, kind in holding.kinds.items()
        ):
            problems.append((f"{path} is a directory with other files in it", False))
        elif path in strays and not overwrite and not _same(work, holding, candidate, path):
            problems.append((f"{path} is there already, and belongs to no distribution", True))
    for directory in plan.directories_of(coming):
        kind = holding.kinds.get(directory)
        if kind not in (None, "directory") and directory not in gone:
            problems.append((f"{directory} is no directory, and belongs to no distribution", False))
    if problems:
        more = f" (and {len(problems) - 1} more such files)" if len(problems) > 1 else ""
        raise SiteswapError(
            Kind.CONFLICT,
            f"{holding.place.top}: {problems[0][0]}{more}",
            hint="move it away, or say --allow-overlap to have it replaced"
            if all(mild for _, mild in problems)
            else "move it away",
            detail="\n".join(text for text, _ in problems[:20]) if len(problems) > 1 else None,
        )


def _same(work: _Work, holding: Holding, candidate: Generation, path: str) -> bool:
    """By RECORD: in the candidate stands what is in the way itself."""
    if holding.kinds[path] != "file":
        return False
    return plan.row_of(path, candidate.fs.read(holding.place.anchor / path)).hash == work.hashes.get(path)
