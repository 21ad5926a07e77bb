"""START: a process comes up through the launcher, pins a generation, and imports two modules, one late.

Where the launcher starts over, it reads `current` and goes on with that generation; it need not be run again.
"""

from .explorer import Move
from .rules import Rules
from .world import ABSENT, TOMBSTONE, Actor, Disk, Moves, State

PINNED = ("import A", "import B")


def moves(s: State, me: int, rules: Rules) -> Moves:
    """The next step of a starting process; it never has a choice."""
    a, disk = s.actors[me], s.disk
    match a.at:
        case "resolve":
            if a.asked:
                return [s.step(me, f"exec: enters generations/{a.asked}", at="enter", number=a.asked)]
            return [s.step(me, f"exec: reads current -> {disk.current}", at="enter", number=disk.current)]
        case "enter":
            return [_enter(s, me)]
        case "exec":
            if not disk.dirs[a.place].a:
                return [s.step(me, "exec: there is no launcher in it", at="failed")]
            return [s.step(me, "exec: runs the launcher", at="who am I")]
        case "who am I":
            return [_who_am_i(s, me)]
        case "again":
            return [s.step(me, f"reads current -> {disk.current}", at="walk", number=disk.current, asked=0)]
        case "walk":
            place = disk.walk(a.number)
            text = f"open lease: walks generations/{a.number} to directory {place}"
            return [s.step(me, text, at="open" if place else "again", place=place)]
        case "open":
            lease = disk.dirs[a.place].lease
            if not lease:
                return [s.step(me, "open lease: there is none", at="again", place=0)]
            first = "lock" if rules.start_locks_before_recheck or not rules.start_rechecks else "check"
            return [s.step(me, f"opens lease {lease}", at=first, lease=lease)]
        case "lock":
            if s.locked(me, a.lease, exclusive=False):
                return [s.step(me, f"cannot lock lease {a.lease}", at="again", place=0, lease=0)]
            after = "check" if rules.start_rechecks and rules.start_locks_before_recheck else "import A"
            return [s.step(me, f"locks lease {a.lease}, shared", at=after, lock="SH", place=0)]
        case "check":
            if not in_place(disk, a, rules):
                return [
                    s.step(me, f"{a.number} is not right any more", at="again", lease=0, lock="", place=0)
                ]
            after = "import A" if rules.start_locks_before_recheck else "lock"
            return [s.step(me, f"{a.number} is still right", at=after)]
        case "import A" | "import B":
            return [_import(s, me)]
    return []


def _enter(s: State, me: int) -> Move[State]:
    number = s.actors[me].number
    entry = s.disk.generations[number]
    if entry == ABSENT:
        return s.step(me, f"exec: there is no generations/{number}", at="failed")
    if entry == TOMBSTONE:
        return s.step(me, f"exec: {number} is a link to current", at="resolve", asked=0, number=0)
    return s.step(me, f"exec: enters directory {entry}", at="exec", place=entry)


def _who_am_i(s: State, me: int) -> Move[State]:
    a = s.actors[me]
    if a.place not in s.disk.generations:
        return s.step(me, "its own path is in no generation", at="again", place=0, number=0)
    number = s.disk.generations.index(a.place)
    asked = a.asked if a.asked == number else 0
    return s.step(me, f"its own path says {number}", at="walk", place=0, number=number, asked=asked)


def _import(s: State, me: int) -> Move[State]:
    a = s.actors[me]
    content = s.disk.dirs[s.disk.walk(a.number)]
    module, found = ("A", content.a) if a.at == "import A" else ("B", content.b)
    if found != a.number:
        return s.step(me, f"imports {module} of {a.number}, gets {found or 'nothing'}", at="failed")
    if module == "A":
        return s.step(me, f"imports A of {a.number}", at="import B")
    return s.leaves(me, f"imports B of {a.number} and exits", "done")


def in_place(disk: Disk, a: Actor, rules: Rules) -> bool:
    """Whether what has been locked protects what will be read."""
    if rules.start_rechecks_current and not a.asked:
        return disk.current == a.number
    if rules.start_sees_tombstones:
        return disk.generations[a.number] > 0
    return disk.dirs[disk.walk(a.number)].lease == a.lease
