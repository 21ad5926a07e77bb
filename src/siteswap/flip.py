"""The flip: the one commit point of an environment, and what must be true right before and after it [I1, I3].

Numbers such as T7 are those of docs/crash-safety.md.

Only `transaction`, `create` and `environment` (for rollback) call `flip`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from siteswap import process
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, Lock
from siteswap.generation import Generation, listed, read_current
from siteswap.layout import NOT_LINKED, GenerationLayout, Layout, Number
from siteswap.manifest import Operation, effective_history, parse_history

FlipLock = Callable[[], Lock]
"""How to get the flip lock, waiting as long as the command was told to. Raises SiteswapError (busy)."""


REPAIR = "repair"
"""Kind of the operation by which a rebuilt generation takes the place of a damaged one."""


def flip(fs: FileSystem, layout: Layout, operation: Operation) -> None:
    """Make `operation.target` current: atomic, and durable on return. The flip lock is held.

    The record is written first: it must not be missing once the flip is
    durable, and a record of a flip that never came is recognised, because its
    target is not current. When the directory cannot be synced the old link is
    put back, so that a failure that is reported is one [I5]. Raises OSError then;
    SiteswapError (system) when the disk refuses that too.
    """
    fs.append_line(layout.history, operation.to_json())  # T6
    with process.uninterruptible():
        _point(fs, layout, operation.target)  # T7
        try:
            fs.sync_directory(layout.home)  # T8
        except OSError as error:
            if operation.source is None:
                raise
            try:
                _point(fs, layout, operation.source)
                # For good, before anybody removes the target: the disk may have it as current already.
                fs.sync_directory(layout.home)
            except OSError:
                raise SiteswapError(
                    Kind.SYSTEM,
                    f"the disk keeps neither generation {operation.source} nor {operation.target} as current"
                    f" for good: {error.strerror}",
                    hint="both are whole; see to the disk, then to siteswap history",
                ) from error
            raise


def restore(fs: FileSystem, layout: Layout, number: Number) -> None:
    """Put a lost `current` back: atomic, and durable on return. The flip lock is held.

    No record is written: the history has the flip that made it current.
    """
    _point(fs, layout, number)
    fs.sync_directory(layout.home)


def _point(fs: FileSystem, layout: Layout, number: Number) -> None:
    fs.unlink(layout.next_current)
    fs.symlink(layout.next_current, layout.current_target(number))
    fs.rename(layout.next_current, layout.current)


def new_operation(kind: str, command: str, source: Number | None, target: Number) -> Operation:
    """The record of a flip that is about to happen."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Operation(now(), kind, command, source, target, user)


def history(fs: FileSystem, layout: Layout) -> list[Operation]:
    """The operations that took place, oldest first.

    Hold the flip lock where a flip between the two reads would do harm.
    """
    current = read_current(fs, layout)
    return effective_history(_recorded(fs, layout), current)


def _recorded(fs: FileSystem, layout: Layout) -> list[Operation]:
    text = fs.read(layout.history) if fs.entry(layout.history) is not None else b""
    return parse_history(text.decode(errors="replace"))


def published(operations: Sequence[Operation]) -> set[Number]:
    """Generations that were current at some time: the only ones that may be rolled back to or collected."""
    return {item.target for item in operations}


def replaced(operations: Sequence[Operation]) -> dict[Number, Number]:
    """Damaged generations, and the repaired ones that took their place."""
    return {
        item.source: item.target for item in operations if item.kind == REPAIR and item.source is not None
    }


def marked(fs: FileSystem, layout: Layout) -> list[int]:
    """Generations that `doctor --repair` found damaged and could not repair."""
    try:
        return [int(number) for number in json.loads(fs.read(layout.damaged))]
    except (OSError, ValueError, TypeError):
        return []  # a hint for rollback only


def require_undamaged(
    fs: FileSystem, layout: Layout, operations: Sequence[Operation], number: Number
) -> None:
    """Raises SiteswapError (damaged) for a generation that is known not to be what it was."""
    newer = replaced(operations).get(number)
    if newer is not None or number in marked(fs, layout):
        raise SiteswapError(
            Kind.DAMAGED,
            f"generation {number} is damaged" + (f"; {newer} was repaired from it" if newer else ""),
            hint="name another one; siteswap history shows them" if newer else "siteswap doctor says how",
        )


def link_top_level(fs: FileSystem, layout: Layout, candidate: Generation) -> bool:
    """Link top-level names that the candidate has and the environment lacks; whether there were any.

    The links lead nowhere until the flip, so nobody sees them yet. Not durable.
    Raises SiteswapError (conflict) where something that is not ours is in the way.
    """
    made = False
    for name, _ in fs.entries(candidate.layout.path):
        if name in NOT_LINKED:
            continue
        path, target = layout.root / name, layout.top_link_target(name)
        found = fs.entry(path)
        if found is None:
            fs.symlink(path, target)
            made = True
        elif fs.read_link(path) != target:
            raise SiteswapError(
                Kind.CONFLICT,
                f"{path} is in the way of a distribution's files",
                hint="move it away, then try again",
            )
    return made


def unlink_top_level(fs: FileSystem, layout: Layout, current: GenerationLayout) -> None:
    """Remove top-level links that lead nowhere in the generation that is current now."""
    for name, kind in fs.entries(layout.root):
        if kind != "link" or fs.read_link(layout.root / name) != layout.top_link_target(name):
            continue
        if fs.entry(current.path / name) is None:
            fs.unlink(layout.root / name)


def tidy_top_level(fs: FileSystem, layout: Layout, current: Generation) -> None:
    """`unlink_top_level` right after a flip, when nothing may fail any more [I4].

    A link that leads nowhere harms nobody, and the next command that writes removes it.
    """
    with contextlib.suppress(OSError):
        unlink_top_level(fs, layout, current.layout)


def next_number(fs: FileSystem, layout: Layout) -> Number:
    """The number of the next generation: above every one that was ever published."""
    used = [0, *listed(fs, layout), *(item.target for item in _recorded(fs, layout))]
    return Number(max(used) + 1)


def now() -> str:
    """The moment as it is recorded: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
