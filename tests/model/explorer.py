"""Visit every state that a small concurrent system can reach, and show the shortest way to a broken one.

A system is its initial state and, for a state, the moves that its actors could make next. Exploration is
breadth first with a memo, so that a counter-example is as short as any, and reads as what happened: the
actors' steps in time order.
"""

import time
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S")


class Move(NamedTuple, Generic[S]):
    """One step of one actor, and the state after it."""

    actor: str
    step: str
    state: S


class System(Protocol[S]):
    """What can be explored."""

    def initial(self) -> S:
        """The state everything begins with."""
        ...

    def moves(self, state: S) -> Iterable[Move[S]]:
        """Every step that some actor can make in this state."""
        ...

    def broken(self, state: S) -> str | None:
        """The first promise that does not hold in this state."""
        ...

    def finished(self, state: S) -> bool:
        """Whether it is all right that nobody can move."""
        ...

    def key(self, state: S) -> Hashable:
        """What makes two states the same; states that differ only in who is who may share one."""
        ...


class TooManyStatesError(Exception):
    """The bounds of a configuration are too wide for its limit."""


@dataclass(frozen=True)
class Report:
    """What an exploration saw; `broken` and `trace` tell the counter-example, if there is one."""

    states: int
    moves: int
    depth: int
    seconds: float
    broken: str | None = None
    trace: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """One line of numbers, then the counter-example with one line a step."""
        head = f"{self.states} states, {self.moves} moves, depth {self.depth}, {self.seconds:.1f} s"
        if self.broken is None:
            return head
        width = max((len(actor) for actor, _ in self.trace), default=0)
        steps = [f"{n:4}  {actor:{width}}  {step}" for n, (actor, step) in enumerate(self.trace, 1)]
        return "\n".join([head, *steps, f"      BROKEN: {self.broken}"])


def explore(system: System[S], limit: int = 1_000_000) -> Report:
    """Visit all states, or stop at the first broken one. Raises TooManyStatesError beyond `limit` states."""
    began = time.perf_counter()
    first = system.initial()
    # For each state: the state before it, and the step between them.
    seen: list[tuple[int, str, str]] = [(-1, "", "")]
    memo = {system.key(first)}
    queue = deque([(0, 0, first)])
    moves = depth = 0

    def report(broken: str | None = None, at: int = -1) -> Report:
        trace: list[tuple[str, str]] = []
        while at > 0:
            at, actor, step = seen[at]
            trace.append((actor, step))
        spent = time.perf_counter() - began
        return Report(len(seen), moves, depth, spent, broken, tuple(reversed(trace)))

    if (wrong := system.broken(first)) is not None:
        return report(wrong)
    while queue:
        here, depth, state = queue.popleft()
        could_move = False
        for actor, step, after in system.moves(state):
            could_move = True
            moves += 1
            key = system.key(after)
            if key in memo:
                continue
            memo.add(key)
            seen.append((here, actor, step))
            at = len(seen) - 1
            if (wrong := system.broken(after)) is not None:
                depth += 1
                return report(wrong, at)
            if at >= limit:
                raise TooManyStatesError(f"more than {limit} states")
            queue.append((at, depth + 1, after))
        if not could_move and not system.finished(state):
            return report("nobody can move, and not everybody is done", here)
    return report()
