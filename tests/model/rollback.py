"""ROLLBACK: makes a generation current that has been current before."""

from .explorer import Move
from .past import published
from .rules import Rules
from .world import Moves, State


def moves(s: State, me: int, rules: Rules) -> Moves:
    """The next step of a rollback; it may choose any target."""
    a, disk = s.actors[me], s.disk
    match a.at:
        case "begin":
            if not rules.rollback_takes_flip_lock:
                return [s.step(me, "begins", at="choose")]
            return [s.step(me, "takes the flip lock", at="choose", flip=True)] if s.flip_free() else []
        case "choose":
            targets = _targets(s, rules)
            if not targets:
                return [s.step(me, "finds nothing to go back to", at="end")]
            text = f"current is {disk.current}; will go back to "
            return [s.step(me, f"{text}{n}", at="record", number=n, base=disk.current) for n in targets]
        case "record":
            written = disk._replace(history=(*disk.history, (a.base, a.number)))
            return [s.step(me, f"appends {a.base} -> {a.number} to history", written, at="link")]
        case "link":
            return [
                s.step(me, f"makes the new link -> {a.number}", disk._replace(new_link=a.number), at="flip")
            ]
        case "flip":
            return [_flip(s, me)]
        case "end":
            return [s.leaves(me, "exits", "done")]
    return []


def _targets(s: State, rules: Rules) -> list[int]:
    disk = s.disk
    known = published(disk.history, disk.current, rules)
    return [
        number
        for number, entry in enumerate(disk.generations)
        if entry > 0 and number != disk.current and (number in known or not rules.rollback_only_published)
    ]


def _flip(s: State, me: int) -> Move[State]:
    a = s.actors[me]
    if s.disk.new_link != a.number:
        return s.step(me, "cannot flip: the new link is gone", at="failed")
    return s.flipped(me, f"FLIPS {s.disk.current} -> {a.number}", a.number, a.base, at="end")
