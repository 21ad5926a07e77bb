"""The journal of a change that cannot be one rename: its moves, forward and back. Pure.

A journal is a list of moves in an order in which each is possible. New files wait, staged, under
`new/SLOT`; old ones go to `old/SLOT` or keep a second name there. What is to be done for one move,
in either direction, follows from what is there: so a journal can be gone through again from any
point of either, and comes to exactly the new, or exactly the old.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from siteswap.errors import Kind, SiteswapError
from siteswap.plan import directories_of

FORMAT = 1

MAKE = "make"
"""A directory comes to be, staged like a file."""
PLACE = "place"
"""A staged file comes to its place; with `replaces` it takes that of another, in one step."""
REMOVE = "remove"
"""A file goes."""
DROP = "drop"
"""A directory goes, if nothing is left in it."""


@dataclass(frozen=True)
class Move:
    """One entry of the journal."""

    kind: str
    path: str
    """Relative to the place's anchor."""
    slot: int
    replaces: bool = False
    was: tuple[int, int] | None = None
    """Size and modification time (ns) of a file that goes: another one of that name is somebody else's."""
    early: bool = False
    """It goes before anything comes, because it is in the way."""


@dataclass(frozen=True)
class Seen:
    """What is there for one move."""

    at: str | None
    """Kind of what is at its path, None where nothing is."""
    staged: bool
    kept: bool
    """Whether `old/SLOT` is there."""
    same: bool = True
    """Whether what is at the path is the file that is to go."""


RMDIR = "rmdir"
KEEP = "keep"
"""A second name for the old file, at old/SLOT."""
PUT = "put"
"""new/SLOT, a file or an empty directory, is renamed to its place."""
TAKE = "take"
"""The old file, or the directory that is in the way, is renamed to old/SLOT."""
RESTORE = "restore"
"""old/SLOT is renamed to its place."""
UNLINK = "unlink"


def plan(
    new: Collection[str],
    gone: Mapping[str, tuple[int, int] | None],
    replaced: Collection[str],
    directories: Collection[str],
    lasting: Collection[str] = (),
) -> list[Move]:
    """The moves that bring `new` files (some of them in the place of `replaced` ones) and take `gone` ones.

    `directories` are those that are there; those in `lasting` stay, empty or not. What is in the way goes
    first, then directories come, then files, then the rest goes. Directories come by a rename too: what is
    moved into one that is durable is not lost with it.
    """
    wanted = directories_of(new)
    blocked = set(wanted)
    coming = set(new)

    def in_the_way(path: str) -> bool:
        return path in blocked or any(parent in coming for parent in _parents(path))

    early = sorted(path for path in gone if in_the_way(path))
    late = sorted(path for path in gone if not in_the_way(path))
    emptied = {parent for path in gone for parent in _parents(path)} & set(directories)
    emptied -= blocked | set(lasting)
    first = {path for path in emptied if path in coming or any(up in coming for up in _parents(path))}
    moves: list[tuple[str, str, bool]] = [(REMOVE, path, True) for path in early]
    moves += [(DROP, path, True) for path in sorted(first, reverse=True)]
    moves += [(MAKE, path, False) for path in wanted if path not in directories]
    moves += [(PLACE, path, False) for path in sorted(coming)]
    moves += [(REMOVE, path, False) for path in late]
    moves += [(DROP, path, False) for path in sorted(emptied - first, reverse=True)]
    return [
        Move(
            kind, path, slot, replaces=kind == PLACE and path in replaced,
            was=gone.get(path) if kind == REMOVE else None,
            early=early_one,
        )
        for slot, (kind, path, early_one) in enumerate(moves)
    ]  # fmt: skip


def forward(move: Move, seen: Seen) -> list[str]:
    """What brings one move about, from wherever it is."""
    if move.kind == MAKE:
        return [PUT] if seen.staged and seen.at is None else []
    if move.kind == DROP and seen.at != "directory":
        return []
    if move.kind == DROP:
        return [RMDIR] if not move.early else [] if seen.kept else [TAKE]
    if move.kind == PLACE:
        if not seen.staged:
            return []  # it is in its place: one rename took it there
        return [KEEP, PUT] if move.replaces and seen.at is not None and not seen.kept else [PUT]
    return [TAKE] if seen.at is not None and not seen.kept and seen.same else []


def back(move: Move, seen: Seen) -> list[str]:
    """What undoes one move, from wherever it is."""
    if move.kind == MAKE:
        return [RMDIR] if seen.at == "directory" and not seen.staged else []
    if seen.kept:
        return [RESTORE]
    if move.kind != PLACE or move.replaces or seen.staged:
        return []
    # A directory at its path is one that stood there before, put back already.
    return [UNLINK] if seen.at not in (None, "directory") else []


def to_json(moves: Iterable[Move], anchor: str) -> bytes:
    """The journal as it stands on disk."""
    rows = [asdict(move) for move in moves]
    return (json.dumps({"format": FORMAT, "anchor": anchor, "moves": rows}) + "\n").encode()


def from_json(text: bytes, where: str, anchor: str, holds: Callable[[str], bool]) -> list[Move]:
    """Read a journal of that place. Raises SiteswapError (damaged), also for paths that are elsewhere."""
    try:
        data: dict[str, Any] = json.loads(text)
        if data["format"] != FORMAT or data["anchor"] != anchor:
            raise ValueError("it is that of another place, or of another siteswap")
        moves = [_move(item) for item in data["moves"]]
        outside = [move.path for move in moves if not holds(move.path)]
        if outside:
            raise ValueError(f"it names {outside[0]!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise SiteswapError(
            Kind.DAMAGED,
            f"{where} cannot be read: {error}",
            hint="the change that it tells of may be half done; old/ and new/ beside it have all files",
        ) from error
    return moves


def _move(item: dict[str, Any]) -> Move:
    was = item.pop("was")
    move = Move(**item, was=tuple(was) if was is not None else None)
    known = move.kind in (MAKE, PLACE, REMOVE, DROP)
    if not known or type(move.path) is not str or type(move.slot) is not int:
        raise ValueError(f"it has an entry of no known kind: {item}")
    return move


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]
