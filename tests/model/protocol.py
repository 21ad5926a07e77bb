"""The protocol as a system to explore: a cast of actors over one environment, and the promises they keep."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from . import collect, commit, recover, rollback, start
from .explorer import Move
from .past import valid
from .rules import Rules
from .world import ABSENT, TOMBSTONE, Actor, Directory, Disk, Moves, State

BEFORE = ("begin", "writer lock")
OVER = ("done", "crashed")
_PLAY: dict[str, Callable[[State, int, Rules], Moves]] = {
    "start": start.moves,
    "commit": commit.moves,
    "rollback": rollback.moves,
    "collect": collect.moves,
}


@dataclass(frozen=True)
class Cast:
    """Who takes part, and how much may go wrong."""

    starts: int = 0
    by_number: int = 0  # starts of generations/2/bin/python, a path that somebody wrote down
    commits: int = 0
    rollbacks: int = 0
    collects: int = 0
    collects_as_writer: int = 0  # collectors that take the writer lock first, and recover
    crashes: int = 0
    spare: bool = False  # whether a spare is there from the beginning


@dataclass(frozen=True)
class Environment:
    """1 has been collected already, 2 and 3 are there, 3 is current; then the cast does what it can."""

    cast: Cast
    rules: Rules = field(default_factory=Rules)

    def initial(self) -> State:
        """Everybody is about to begin."""
        cast = self.cast
        spare = Directory(1, 1, 1) if cast.spare else Directory()
        unused = (ABSENT,) * (cast.commits + 1)
        disk = Disk(
            current=3,
            generations=(ABSENT, TOMBSTONE, 2, 3, *unused),
            dirs=(Directory(), spare, Directory(2, 2, 2), Directory(3, 3, 3)),
            history=((0, 1), (1, 2), (2, 3)),
            spare=1 if cast.spare else 0,
            leases=3,
        )
        actors = (
            *[Actor("start", "resolve")] * cast.starts,
            *[Actor("start", "resolve", asked=2)] * cast.by_number,
            *[Actor("commit", "begin")] * cast.commits,
            *[Actor("rollback", "begin")] * cast.rollbacks,
            *[Actor("collect", "begin")] * cast.collects,
            *[Actor("collect", "writer lock")] * cast.collects_as_writer,
        )
        return State(disk, actors, cast.crashes, ((0, 1, 0), (1, 2, 1), (2, 3, 2)), (1, 2, 3))

    def moves(self, state: State) -> Iterable[Move[State]]:
        """Every step that some actor can make, and every crash that may still come."""
        for me, actor in enumerate(state.actors):
            if actor.at in OVER:
                continue
            yield from _PLAY[actor.role](state, me, self.rules)
            if state.crashes and actor.role != "start" and actor.at not in BEFORE:
                crashed = state.leaves(me, "CRASHES", "crashed")
                yield crashed._replace(state=crashed.state._replace(crashes=state.crashes - 1))

    def finished(self, state: State) -> bool:
        """Whether everybody is done or dead."""
        return all(actor.at in OVER for actor in state.actors)

    def key(self, state: State) -> Hashable:
        """Actors of the same kind are interchangeable."""
        return state._replace(actors=tuple(sorted(state.actors)))

    def broken(self, state: State) -> str | None:
        """The first promise that does not hold in this state."""
        return (
            _failed(state)
            or _current_is_whole(state)
            or _pins_hold(state)
            or _commits_are_serial(state, self.rules)
            or _spare_is_whole(state)
            or self._start_waits_for_nobody(state)
            or self._recovery_leaves_nothing(state)
        )

    def _start_waits_for_nobody(self, state: State) -> str | None:
        """Each start, left alone, comes up, whatever the others are doing and whatever they hold."""
        for me, actor in enumerate(state.actors):
            if actor.role != "start" or actor.at in OVER or actor.at in start.PINNED:
                continue
            alone, after = state, actor
            for _ in range(20):
                alone = start.moves(alone, me, self.rules)[0].state
                after = alone.actors[me]
                if after.at in start.PINNED or after.at == "failed":
                    break
            if after.at not in start.PINNED:
                return f"start {me}, left alone, does not come up: {after.at}"
        return None

    def _recovery_leaves_nothing(self, state: State) -> str | None:
        """When all writers are done or dead, recovering removes all that is not the environment."""
        if any(actor.role != "start" and actor.at not in OVER for actor in state.actors):
            return None
        me = len(state.actors)
        alone = state._replace(actors=(*state.actors, Actor("commit", recover.FIRST, writer=True)))
        while alone.actors[me].at != "base":
            moves = recover.moves(alone, me, self.rules, then="base")
            if not moves:
                # It waits for a start that passes by, which waits for nobody; what follows is explored too.
                return None
            alone = moves[0].state
        disk = alone.disk
        if disk.staging or disk.new_link:
            return "recovery leaves something behind"
        if any(entry > 0 and number not in state.published for number, entry in enumerate(disk.generations)):
            return "recovery leaves a generation that was never published"
        if any(
            not _whole(disk, number) and disk.generations[number] != TOMBSTONE for number in state.published
        ):
            return "a generation that was published is gone, and not by being collected"
        return _current_is_whole(alone) or _pins_hold(alone)


def _whole(disk: Disk, number: int) -> bool:
    entry = disk.generations[number]
    return entry > 0 and disk.dirs[entry][:2] == (number, number) and disk.dirs[entry].lease > 0


def _failed(state: State) -> str | None:
    for me, actor in enumerate(state.actors):
        if actor.at == "failed":
            return f"{actor.role} {me} fails"
    return None


def _current_is_whole(state: State) -> str | None:
    """[I1]: `current` names a complete generation, and one that was published."""
    current = state.disk.current
    if current not in state.published:
        return f"current is {current}, which no commit has published"
    return None if _whole(state.disk, current) else f"current is {current}, which is not complete"


def _pins_hold(state: State) -> str | None:
    """[I6], [I7]: what a process has pinned was published, stays in place, and stays what it was."""
    for me, actor in enumerate(state.actors):
        if actor.at in start.PINNED:
            if actor.number not in state.published:
                return f"start {me} has pinned {actor.number}, which was never published"
            if not _whole(state.disk, actor.number):
                return f"{actor.number} is changed or removed, and start {me} has pinned it"
    return None


def _commits_are_serial(state: State, rules: Rules) -> str | None:
    """[I8]: nothing is overwritten, no number means two things, and history tells what happened."""
    if len(set(state.published)) != len(state.published):
        return "a number was published twice"
    for origin, to, base in state.flips:
        if origin != base:
            return f"{to} was made from {base} and has overwritten {origin}"
    told = valid(state.disk.history, state.disk.current, rules)
    happened = tuple((origin, to) for origin, to, _ in state.flips)
    if state.flip_free() and told != happened:
        return f"history tells {told}, but what happened is {happened}"
    return None


def _spare_is_whole(state: State) -> str | None:
    """The next commit builds on the spare, so nothing of it may be missing."""
    if not state.disk.spare:
        return None
    a, b, lease = state.disk.dirs[state.disk.spare]
    return None if a == b and a and lease else "the spare is damaged"
