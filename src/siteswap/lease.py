"""Who uses which generation: the leases of pinned processes, and the proof that nobody does [I7].

A pinned process holds LOCK_SH on its generation's lease file, through a
descriptor until the runtime has turned it into a mapping. Whoever wants to
remove the generation must get LOCK_EX first, and renames it away while holding
that. A process that is just starting and locks too late finds, after locking,
that the lease at the path is not the one it locked, and starts over.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from siteswap import process
from siteswap.fs import FileSystem, Lock
from siteswap.layout import GenerationLayout, Layout, Number, parse_number

VARIABLE = "SITESWAP_GENERATION"
"""Names the generation that a process tree is pinned to (`siteswap run --generation`)."""

_HOLD_ATTEMPTS = 100
_HOLD_PAUSE_SECONDS = 0.02

DESCRIPTOR = 100
"""Lowest number of a descriptor that carries a lease across exec: out of the way of programs."""


@dataclass(frozen=True)
class User:
    """A process that uses a generation."""

    pid: int
    uid: int
    command: str
    generation: Number


def users(layout: Layout) -> list[User]:
    """Processes of this machine that use a generation of the environment, as far as we may look."""
    needle = f"{layout.generations}/"
    pattern = re.compile(re.escape(needle) + r"([0-9]+)(?![0-9])")
    found = []
    for seen in process.survey(needle, VARIABLE):
        numbers = {parse_number(text) for text in pattern.findall(seen.mentions)}
        found += [User(seen.pid, seen.uid, seen.command, number) for number in numbers if number is not None]
    return sorted(found, key=lambda user: (user.generation, user.pid))


def hold(fs: FileSystem, where: GenerationLayout) -> Lock | None:
    """Take the shared lease of a generation, or None when somebody is removing it.

    A collector that only asks whether it may remove holds the lease for a moment: hence a few attempts.
    """
    for _ in range(_HOLD_ATTEMPTS):
        try:
            lock = fs.lock(where.lease, shared=True, make=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if lock is not None:
            # The same check as the launcher's: only a lease that is still in place protects anything.
            found = fs.entry(where.lease)
            if found is not None and found.inode == fs.inode(lock) and fs.is_directory(where.path):
                return lock
            lock.release()
            return None
        time.sleep(_HOLD_PAUSE_SECONDS)
    return None


def prove_unused(
    fs: FileSystem, where: GenerationLayout, number: Number, known_users: Iterable[User]
) -> Lock | str:
    """The exclusive lease of a generation that nobody uses, or the reason why there is no such proof.

    Three witnesses: nobody holds the lock, nobody has the file open (a process
    between opening and locking), and no process of this machine names the
    generation. The caller holds the flip lock, so the generation cannot become
    current meanwhile, and renames it away before letting go of the lease.
    """
    named = [user for user in known_users if user.generation == number]
    if named:
        return "used by " + ", ".join(describe(user) for user in named)
    try:
        lock = fs.lock(where.lease, make=False)
    except (FileNotFoundError, NotADirectoryError):
        return "its lease is gone, so that nobody can tell who uses it"  # [I11]
    if lock is None:
        return "used by a process that this user may not look at"
    if not fs.nobody_else_has_open(lock):
        lock.release()
        return "a process is just starting in it"
    return lock


def describe(user: User) -> str:
    """A process for people: number and program."""
    words = user.command.split(" ")
    name = words[0].rsplit("/", 1)[-1]
    if name.startswith("python") and len(words) > 1:
        first = next((word for word in words[1:] if not word.startswith("-") or word in ("-c", "-m")), "")
        if first == "-m":
            name = words[words.index("-m") + 1] if words[-1] != "-m" else name
        elif first != "-c":
            name = first.rsplit("/", 1)[-1] or name
    return f"PID {user.pid} {name[:30]}".rstrip()
