"""COLLECT: detaches one generation that nobody needs, and deletes it or leaves it as the spare."""

from . import recover
from .past import published
from .rules import Rules
from .world import ABSENT, DETACHED, TOMBSTONE, Directory, Moves, State


def moves(s: State, me: int, rules: Rules) -> Moves:
    """The next step of a collector; it may choose any generation that it may take."""
    a, disk = s.actors[me], s.disk
    name = DETACHED + a.number
    if a.at.startswith(recover.FIRST):
        return recover.moves(s, me, rules, then="begin")
    match a.at:
        case "writer lock":
            return (
                [s.step(me, "takes the writer lock", at=recover.FIRST, writer=True)]
                if s.writer_free()
                else []
            )
        case "begin":
            if not rules.collect_looks_under_lock:
                return _choose(s, me, rules, then="flip lock")
            return [s.step(me, "takes the flip lock", at="choose", flip=True)] if s.flip_free() else []
        case "choose":
            return _choose(s, me, rules, then="prove")
        case "flip lock":
            return [s.step(me, "takes the flip lock", at="prove", flip=True)] if s.flip_free() else []
        case "prove":
            return _prove(s, me, rules)
        case "link":
            linked = disk.with_staging(name, TOMBSTONE)
            return [s.step(me, f"makes a tombstone, staging/{name}", linked, at="detach")]
        case "detach" | "detach, link":
            return _detach(s, me, rules)
        case "unlock":
            return [
                s.step(me, "drops the flip lock", at="keep" if not disk.spare else "delete half", flip=False)
            ]
        case "keep":
            if disk.spare or disk.in_staging(name) != a.place:
                return [s.step(me, "cannot keep it as the spare", at="delete half")]
            kept = disk.with_staging(name, ABSENT)._replace(spare=a.place)
            return [s.step(me, f"keeps directory {a.place} as the spare", kept, at="end")]
        case "delete half" | "delete all" | "in place half" | "in place all" | "in place link":
            return _delete(s, me, rules)
        case "end":
            return [s.leaves(me, "exits", "done")]
    return []


def _choose(s: State, me: int, rules: Rules, then: str) -> Moves:
    disk = s.disk
    known = published(disk.history, disk.current, rules)
    chosen = [
        s.step(me, f"current is {disk.current}; will collect {number}", at=then, number=number, place=entry)
        for number, entry in enumerate(disk.generations)
        if entry > 0 and number != disk.current and (number in known or not rules.collect_only_published)
    ]
    return chosen or [s.step(me, "finds nothing to collect", at="end")]


def _prove(s: State, me: int, rules: Rules) -> Moves:
    a, disk = s.actors[me], s.disk
    lease = disk.dirs[a.place].lease
    after = "link" if rules.collect_detaches_first else "in place half"
    needed = rules.collect_takes_lease if disk.spare else rules.spare_takes_lease
    if disk.generations[a.number] != a.place:
        return [s.step(me, f"{a.number} is not there any more", at="end")]
    if not needed:
        return [s.step(me, f"takes it that nobody uses {a.number}", at=after)]
    if s.locked(me, lease, exclusive=True):
        return [s.step(me, f"leaves {a.number}: lease {lease} is locked", at="end")]
    return [s.step(me, f"locks lease {lease} of {a.number}, exclusive", at=after, lease=lease, lock="EX")]


def _detach(s: State, me: int, rules: Rules) -> Moves:
    a, disk = s.actors[me], s.disk
    name = DETACHED + a.number
    if a.at == "detach, link":
        linked = disk.with_generation(a.number, TOMBSTONE)
        return [s.step(me, f"links generations/{a.number} to current", linked, at="unlock")]
    if disk.in_staging(name) != TOMBSTONE:
        return [s.step(me, "cannot exchange: the tombstone is gone", at="end")]
    moved = disk.with_staging(name, a.place)
    if rules.collect_exchanges:
        moved = moved.with_generation(a.number, TOMBSTONE)
        return [s.step(me, f"exchanges generations/{a.number} and its tombstone", moved, at="unlock")]
    moved = moved.with_generation(a.number, ABSENT)
    return [s.step(me, f"moves generations/{a.number} to staging", moved, at="detach, link")]


def _delete(s: State, me: int, rules: Rules) -> Moves:
    a, disk = s.actors[me], s.disk
    where = a.at.removesuffix(" half").removesuffix(" all")
    if a.at == "in place link":
        return [s.step(me, "makes the tombstone", disk.with_generation(a.number, TOMBSTONE), at="end")]
    if a.at.endswith("half"):
        if rules.collect_outlasts_walks and s.walked_in(a.place):
            return []
        text = f"deletes half of directory {a.place}"
        return [s.step(me, text, disk.half_deleted(a.place), at=f"{where} all")]
    gone = disk.with_directory(a.place, Directory())
    if where == "in place":
        return [s.step(me, f"deletes {a.number}", gone.with_generation(a.number, ABSENT), at="in place link")]
    if gone.in_staging(DETACHED + a.number) == a.place:
        gone = gone.with_staging(DETACHED + a.number, ABSENT)
    return [s.step(me, f"deletes directory {a.place}", gone, at="end")]
