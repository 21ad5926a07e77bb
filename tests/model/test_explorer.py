"""The explorer itself, on systems small enough to count by hand."""

from collections.abc import Hashable, Iterable
from typing import NamedTuple

import pytest

from .explorer import Move, TooManyStatesError, explore


class Counter(NamedTuple):
    """Two actors that each add one to a shared number, by a read and a write."""

    shared: int = 0
    read: tuple[int, int] = (-1, -1)
    done: tuple[bool, bool] = (False, False)


class Adders:
    """With `atomic`, the read and the write are one step."""

    def __init__(self, atomic: bool) -> None:
        self.atomic = atomic

    def initial(self) -> Counter:
        """Nobody has done anything."""
        return Counter()

    def moves(self, state: Counter) -> Iterable[Move[Counter]]:
        """Each reads, then writes."""
        for me in (0, 1):
            if state.done[me]:
                continue
            done = (me == 0 or state.done[0], me == 1 or state.done[1])
            if self.atomic:
                yield Move(f"adder {me}", "adds", Counter(state.shared + 1, state.read, done))
            elif state.read[me] < 0:
                read = (state.shared, state.read[1]) if me == 0 else (state.read[0], state.shared)
                yield Move(f"adder {me}", "reads", state._replace(read=read))
            else:
                yield Move(f"adder {me}", "writes", Counter(state.read[me] + 1, state.read, done))

    def broken(self, state: Counter) -> str | None:
        """Nothing is lost."""
        return "one is lost" if all(state.done) and state.shared != 2 else None

    def finished(self, state: Counter) -> bool:
        """Both have added."""
        return all(state.done)

    def key(self, state: Counter) -> Hashable:
        """Every state is its own."""
        return state


class Stuck(Adders):
    """Nobody ever counts as finished."""

    def finished(self, state: Counter) -> bool:
        """Never."""
        return False


def test_a_lost_update_is_found_and_told_in_time_order() -> None:
    """The counter-example is a shortest one, and the report prints it step by step."""
    report = explore(Adders(atomic=False))
    assert report.broken == "one is lost"
    assert [step for _, step in report.trace] == ["reads", "reads", "writes", "writes"]
    assert "   1  adder 0  reads\n" in str(report)
    assert str(report).endswith("BROKEN: one is lost")


def test_every_state_is_visited_once() -> None:
    """With atomic adders there are four states, and four moves between them."""
    report = explore(Adders(atomic=True))
    assert (report.states, report.moves, report.depth, report.broken) == (4, 4, 2, None)


def test_being_stuck_is_broken() -> None:
    """A state without moves in which not everybody is done is a counter-example."""
    report = explore(Stuck(atomic=True))
    assert report.broken == "nobody can move, and not everybody is done"
    assert len(report.trace) == 2


def test_the_limit_is_an_error() -> None:
    """An exploration that was cut short never passes for a complete one."""
    with pytest.raises(TooManyStatesError):
        explore(Adders(atomic=True), limit=2)
