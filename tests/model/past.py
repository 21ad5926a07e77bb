"""What history says: the one reading of it that every actor shares."""

from .rules import Rules

Record = tuple[int, int]


def valid(history: tuple[Record, ...], current: int, rules: Rules) -> tuple[Record, ...]:
    """The records whose flip came.

    A record is written before its flip, so a crash between them leaves a void one; the next
    writer appends after it.
    """
    if not rules.void_records:
        return history
    last = len(history) - 1
    kept = []
    for at, (origin, to) in enumerate(history):
        follows = current if at == last else history[at + 1][0]
        if to == follows or (at < last and not rules.void_anywhere):
            kept.append((origin, to))
    return tuple(kept)


def published(history: tuple[Record, ...], current: int, rules: Rules) -> frozenset[int]:
    """The generations that have been current, as far as history tells."""
    return frozenset(to for _, to in valid(history, current, rules))
