"""Remove generations that nobody needs: a pure plan, and a sweep that proves disuse before each removal.

Numbers such as G3 are those of docs/crash-safety.md.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from siteswap import lease
from siteswap.errors import SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import read_current
from siteswap.layout import Layout, Number
from siteswap.lease import User
from siteswap.manifest import Operation

DEFAULT_KEEP = 10
"""Generations kept besides the current one, newest first, where the user says nothing else."""

GRACE_SECONDS = 5.0
"""A generation that was current so short a while ago is left alone: a start may be about to lock it."""


_COLLECTED = "collected-"


@dataclass(frozen=True)
class Verdict:
    """Why a generation stays, or that it goes."""

    number: Number
    keep: bool
    reason: str


def plan(
    numbers: Iterable[Number],
    current: Number,
    recent: Iterable[Number],
    keep: int,
    tags: Mapping[str, Number],
    users: Iterable[User],
) -> list[Verdict]:
    """What to do with each generation. Pure.

    `keep` is how many generations besides the current one stay, newest first;
    `recent` are those inside the grace period.
    """
    tagged: dict[Number, list[str]] = {}
    for name, number in tags.items():
        tagged.setdefault(number, []).append(name)
    used: dict[Number, list[User]] = {}
    for user in users:
        used.setdefault(user.generation, []).append(user)
    young = set(recent)
    verdicts = []
    others = 0
    for number in sorted(numbers, reverse=True):
        if number == current:
            verdicts.append(Verdict(number, True, "current"))
            continue
        others += 1
        if number in tagged:
            verdicts.append(Verdict(number, True, f"tagged {', '.join(sorted(tagged[number]))}"))
        elif others <= keep:
            verdicts.append(Verdict(number, True, f"kept: one of the {keep} newest"))
        elif number in used:
            names = ", ".join(lease.describe(user) for user in used[number])
            verdicts.append(Verdict(number, True, f"used by {names}"))
        elif number in young:
            verdicts.append(Verdict(number, True, "was current a moment ago"))
        else:
            verdicts.append(Verdict(number, False, "not needed"))
    return verdicts


def recently_current(operations: Iterable[Operation]) -> list[Number]:
    """Generations that stopped being current within the grace period."""
    now = datetime.now(UTC)
    return [
        item.source
        for item in operations
        if item.source is not None
        and abs((now - datetime.fromisoformat(item.time)).total_seconds()) < GRACE_SECONDS
    ]


def detach(fs: FileSystem, layout: Layout, number: Number, users: Iterable[User]) -> str | None:
    """Take one generation out of `generations/`, a tombstone in its place; the flip lock is held.

    Returns None when it is gone, else why it stays. It lies in staging then, for
    `settle` to make the spare, or for `clear` to remove.

    The order: prove under the flip lock that it is neither current nor in use
    (exclusive lease); swap it with the tombstone in one step, so that a path
    that somebody wrote down always leads somewhere; only then let go of the
    lease. A process that locks the lease later sees that it moved.
    """
    where = layout.generation(number)
    if read_current(fs, layout) == number:
        return "current"
    proof = lease.prove_unused(fs, where, number, users)  # G2
    if isinstance(proof, str):
        return proof
    with proof:
        away = fs.free_name(layout.staging, f"{_COLLECTED}{number}")
        fs.symlink(away, layout.TOMBSTONE)
        fs.exchange(away, where.path)  # G3
    return None


def supplant(
    fs: FileSystem, layout: Layout, number: Number, rebuilt: Path, users: Iterable[User]
) -> str | None:
    """Put a rebuilt generation, which is durable, in the place of a damaged one; the flip lock is held.

    Returns None when it stands there, for good, else why the damaged one stays. By the same proof as for
    removal [I7]: whoever is just starting finds another lease than the one it locked, and starts over.
    """
    where = layout.generation(number)
    if read_current(fs, layout) == number:
        return "current"
    proof = lease.prove_unused(fs, where, number, users)  # D8
    if isinstance(proof, str):
        return proof
    with proof:
        fs.exchange(rebuilt, where.path)  # D8
    # What was damaged lies in staging now: its name is gone for good before anybody empties that.
    fs.sync_directory(layout.generations)  # D9
    fs.sync_directory(layout.staging)  # D9
    return None


def standing_by(number: Number) -> str:
    """The name in staging of what is to supplant a generation; `settle` knows it, after a crash."""
    return f"{_COLLECTED}{number}.rebuilt"


def settle(fs: FileSystem, layout: Layout, *, spare: bool) -> None:
    """Make tombstones durable; then one of what they replaced may become the spare. The writer lock is held.

    In this order, and nothing in staging is emptied before: else a power cut
    could bring a generation back under its old name, half of it recycled or gone.
    """
    names = [name for name, _ in fs.entries(layout.staging) if name.startswith(_COLLECTED)]
    collected = sorted(names, key=_collected, reverse=True)  # the newest is most like what is built next
    if not collected:
        return
    fs.sync_directory(layout.generations)  # G4
    fs.sync_directory(layout.staging)  # G4
    for name in collected:
        # A tombstone that was not put in place lies there too, when a crash or an error came before.
        if spare and fs.is_directory(layout.staging / name) and fs.entry(layout.spare) is None:
            fs.rename(layout.staging / name, layout.spare)  # G5


def _collected(name: str) -> int:
    return int(name.removeprefix(_COLLECTED).partition(".")[0])


def sweep(
    fs: FileSystem,
    layout: Layout,
    verdicts: Iterable[Verdict],
    users: list[User],
    *,
    seconds: float | None,
) -> tuple[list[Number], list[Verdict]]:
    """Carry a plan out: (what went, what stays after all and why). The flip lock is held.

    With `seconds` no further generation is begun after that long. What was
    detached still takes up space in staging until `clear`.
    """
    # What is current must be so for good, whoever made it so, before what it might be instead is detached.
    fs.sync_directory(layout.home)
    begun = time.monotonic()
    gone: list[Number] = []
    stays: list[Verdict] = []
    for verdict in verdicts:
        if verdict.keep or (seconds is not None and time.monotonic() - begun > seconds):
            continue
        try:
            reason = detach(fs, layout, verdict.number, users)
        except SiteswapError as error:
            reason = error.message
        if reason is None:
            gone.append(verdict.number)
        else:
            stays.append(Verdict(verdict.number, True, reason))
    return gone, stays


def clear(fs: FileSystem, layout: Layout) -> list[str]:
    """Remove everything in staging. The writer lock is held, so all of it is garbage [I9]."""
    settle(fs, layout, spare=False)  # G4 comes before G6
    names = [name for name, _ in fs.entries(layout.staging)]
    for name in names:
        try:
            fs.remove_tree(layout.staging / name)  # G6
        except OSError as error:
            # A check that outlived its killed command goes on writing there: a later call removes the rest.
            # No name in staging is used twice but a candidate's, and checks begin after it has moved.
            if error.errno != errno.ENOTEMPTY:
                raise
    return names
