"""The state of the model: one environment on disk, the actors, and what really happened.

Numbers stand for what the disk has: a directory is an index into `Disk.dirs` (its inode), a lease a serial
number (its inode), a module's content the number of the generation it was made for, 0 what is missing.
"""

from typing import Any, NamedTuple

from .explorer import Move

ABSENT = 0
TOMBSTONE = -1

CANDIDATE = 100  # staging/CANDIDATE+K: where generation K is built
DETACHED = 200  # staging/DETACHED+N: tombstone for N, after the exchange the directory that was N


class Directory(NamedTuple):
    """A generation's directory: the launcher and a first module, a second module, the lease."""

    a: int = 0
    b: int = 0
    lease: int = 0


class Disk(NamedTuple):
    """All that outlives a process."""

    current: int
    generations: tuple[int, ...]  # by number: a directory, TOMBSTONE or ABSENT
    dirs: tuple[Directory, ...]  # by inode; the first is nobody's
    history: tuple[tuple[int, int], ...]  # from, to
    staging: tuple[tuple[int, int], ...] = ()  # name, a directory or TOMBSTONE
    spare: int = 0
    new_link: int = 0  # what will be renamed over `current`
    leases: int = 0  # lease files made so far

    def walk(self, number: int) -> int:
        """The directory that a generation's path leads to, or 0; the kernel follows a tombstone."""
        entry = self.generations[number]
        if entry == TOMBSTONE:
            entry = self.generations[self.current]
        return max(entry, 0)

    def with_generation(self, number: int, entry: int) -> "Disk":
        """The disk with another entry in `generations`."""
        known = self.generations
        return self._replace(generations=(*known[:number], entry, *known[number + 1 :]))

    def with_directory(self, place: int, content: Directory) -> "Disk":
        """The disk with a directory changed."""
        return self._replace(dirs=(*self.dirs[:place], content, *self.dirs[place + 1 :]))

    def half_deleted(self, place: int) -> "Disk":
        """The disk with the first part of a directory deleted."""
        return self.with_directory(place, self.dirs[place]._replace(a=0))

    def with_staging(self, name: int, entry: int) -> "Disk":
        """The disk with an entry in staging made, replaced, or (ABSENT) removed."""
        others = [pair for pair in self.staging if pair[0] != name]
        if entry != ABSENT:
            others.append((name, entry))
        return self._replace(staging=tuple(sorted(others)))

    def in_staging(self, name: int) -> int:
        """What staging has under a name."""
        return dict(self.staging).get(name, ABSENT)


class Actor(NamedTuple):
    """A process: what it is, the step it makes next, what it knows, and the locks it holds.

    Locks are the kernel's, so they live here: a process that is gone holds none.
    """

    role: str
    at: str
    asked: int = 0  # start: the generation it was asked for by number
    number: int = 0  # the generation it is about
    base: int = 0  # commit: what was current when it began
    place: int = 0  # the directory it is in, as by an open descriptor
    name: int = 0  # recover: the name of that directory
    lease: int = 0  # the lease file it has open
    lock: str = ""  # "SH" or "EX" on that lease
    writer: bool = False
    flip: bool = False
    known: tuple[Any, ...] = ()  # recover: what it has read
    skipped: tuple[int, ...] = ()  # recover: what belongs to others


class State(NamedTuple):
    """Everything; `flips` and `published` are what really happened, which no actor may look at."""

    disk: Disk
    actors: tuple[Actor, ...]
    crashes: int  # how many may still come
    flips: tuple[tuple[int, int, int], ...]  # from, to, and from which base
    published: tuple[int, ...]

    def step(self, me: int, text: str, disk: Disk | None = None, **changes: Any) -> Move["State"]:
        """One step of actor `me`: perhaps another disk, and what changes in the actor."""
        mine = self.actors[me]
        actors = (*self.actors[:me], mine._replace(**changes), *self.actors[me + 1 :])
        name = f"{mine.role} {me}"
        return Move(name, text, State(disk or self.disk, actors, self.crashes, self.flips, self.published))

    def leaves(self, me: int, text: str, at: str) -> Move["State"]:
        """The process is gone, and with it what it knew and its locks."""
        return self.step(me, text, **Actor(self.actors[me].role, at)._asdict())

    def flipped(self, me: int, text: str, to: int, base: int, **changes: Any) -> Move["State"]:
        """The one commit point: the new link takes the place of `current`."""
        disk = self.disk._replace(current=to, new_link=0)
        move = self.step(me, text, disk, **changes)
        new = (to,) if self.actors[me].role == "commit" else ()
        flips = (*self.flips, (self.disk.current, to, base))
        return move._replace(state=move.state._replace(flips=flips, published=self.published + new))

    def locked(self, me: int, lease: int, exclusive: bool) -> bool:
        """Whether somebody else's lock on a lease refuses ours."""
        return any(
            other.lease == lease and (other.lock == "EX" or (exclusive and other.lock == "SH"))
            for who, other in enumerate(self.actors)
            if who != me
        )

    def writer_free(self) -> bool:
        """Whether the writer lock can be had."""
        return not any(actor.writer for actor in self.actors)

    def flip_free(self) -> bool:
        """Whether the flip lock can be had."""
        return not any(actor.flip for actor in self.actors)

    def walked_in(self, place: int) -> bool:
        """Whether a path walk is inside this directory: it has found it and looks for the launcher next."""
        return any(actor.at == "exec" and actor.place == place for actor in self.actors)


Moves = list[Move[State]]
