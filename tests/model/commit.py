"""COMMIT: builds the next generation beside the live one, afresh or out of the spare, and flips."""

from . import recover
from .explorer import Move
from .rules import Rules
from .world import ABSENT, CANDIDATE, Actor, Directory, Disk, Moves, State


def moves(s: State, me: int, rules: Rules) -> Moves:
    """The next step of a commit."""
    a, disk = s.actors[me], s.disk
    if a.at.startswith(recover.FIRST):
        return recover.moves(s, me, rules, then="base")
    match a.at:
        case "begin":
            if not rules.recover_takes_writer_lock:
                return [s.step(me, "begins", at=recover.FIRST)]
            if not s.writer_free():
                return []
            return [s.step(me, "takes the writer lock", at=recover.FIRST, writer=True)]
        case "base":
            if not a.writer:
                return [s.step(me, "takes the writer lock", writer=True)] if s.writer_free() else []
            number = next_number(disk)
            text = f"reads current -> {disk.current}; will make {number}"
            return [s.step(me, text, at="build", base=disk.current, number=number)]
        case "build" | "take" | "renew" | "fill A" | "fill B" | "place":
            return [_build(s, me, rules)]
        case "flip lock":
            return [s.step(me, "takes the flip lock", at="verify", flip=True)] if s.flip_free() else []
        case "verify" | "record" | "link" | "flip" | "record late" | "unlock":
            return [_publish(s, me, rules)]
        case "discard":
            moved = disk.with_generation(a.number, ABSENT).with_staging(CANDIDATE + a.number, a.place)
            return [s.step(me, f"gives up: moves {a.number} to staging", moved, at="discard half")]
        case "discard half":
            if rules.collect_outlasts_walks and s.walked_in(a.place):
                return []
            return [s.step(me, "deletes half of it", disk.half_deleted(a.place), at="discard all")]
        case "discard all":
            gone = disk.with_directory(a.place, Directory()).with_staging(CANDIDATE + a.number, ABSENT)
            return [s.step(me, "deletes it", gone, at="end")]
        case "fill B late":
            return [s.step(me, f"puts B of {a.number}", _filled(disk, a), at="end")]
        case "end":
            return [s.leaves(me, "exits", "done")]
    return []


def next_number(disk: Disk) -> int:
    """One more than any number ever used, whether or not it was published."""
    there = [number for number, entry in enumerate(disk.generations) if entry != ABSENT]
    return 1 + max([*there, *(to for _, to in disk.history)])


def _build(s: State, me: int, rules: Rules) -> Move[State]:
    a, disk = s.actors[me], s.disk
    directory = disk.dirs[a.place]
    match a.at:
        case "build":
            lease = disk.dirs[disk.spare].lease
            if disk.spare and not rules.recycler_takes_lease:
                return s.step(me, "finds a spare", at="take", place=disk.spare)
            if disk.spare and not s.locked(me, lease, exclusive=True):
                return s.step(me, "locks the spare", at="take", place=disk.spare, lease=lease, lock="EX")
            place = len(disk.dirs)
            made = disk._replace(dirs=(*disk.dirs, Directory())).with_staging(CANDIDATE + a.number, place)
            return s.step(me, f"makes directory {place} in staging", made, at="fill A", place=place)
        case "take":
            taken = disk._replace(spare=0).with_staging(CANDIDATE + a.number, a.place)
            after = "renew" if rules.recycle_renews_lease else "fill A"
            return s.step(me, f"moves the spare, directory {a.place}, to staging", taken, at=after)
        case "renew":
            renewed = disk._replace(leases=disk.leases + 1)
            renewed = renewed.with_directory(a.place, directory._replace(lease=renewed.leases))
            return s.step(me, f"gives it lease {renewed.leases}", renewed, at="fill A")
        case "fill A":
            filled = disk.with_directory(a.place, directory._replace(a=a.number))
            after = "fill B" if rules.commit_completes_first else "place"
            return s.step(me, f"puts A of {a.number}", filled, at=after)
        case "fill B":
            return s.step(me, f"puts B of {a.number}", _filled(disk, a), at="place")
    if disk.generations[a.number] != ABSENT or disk.in_staging(CANDIDATE + a.number) != a.place:
        return s.step(me, f"cannot move the candidate to generations/{a.number}", at="failed")
    placed = disk.with_staging(CANDIDATE + a.number, ABSENT).with_generation(a.number, a.place)
    return s.step(me, f"moves the candidate to generations/{a.number}", placed, at="flip lock")


def _filled(disk: Disk, a: Actor) -> Disk:
    directory = disk.dirs[a.place]
    if not directory.lease:
        disk = disk._replace(leases=disk.leases + 1)
        directory = directory._replace(lease=disk.leases)
    return disk.with_directory(a.place, directory._replace(b=a.number))


def _publish(s: State, me: int, rules: Rules) -> Move[State]:
    a, disk = s.actors[me], s.disk
    match a.at:
        case "verify":
            if rules.commit_verifies_base and disk.current != a.base:
                text = f"base {a.base} is not current: drops the flip lock"
                return s.step(me, text, at="discard", flip=False)
            first = "record" if rules.record_before_flip else "link"
            return s.step(me, "base is current", at=first)
        case "record":
            written = disk._replace(history=(*disk.history, (a.base, a.number)))
            return s.step(me, f"appends {a.base} -> {a.number} to history", written, at="link")
        case "link":
            return s.step(
                me, f"makes the new link -> {a.number}", disk._replace(new_link=a.number), at="flip"
            )
        case "flip":
            if disk.new_link != a.number:
                return s.step(me, "cannot flip: the new link is gone", at="failed")
            text = f"FLIPS {disk.current} -> {a.number}"
            after = "unlock" if rules.record_before_flip else "record late"
            return s.flipped(me, text, a.number, a.base, at=after)
        case "record late":
            written = disk._replace(history=(*disk.history, (a.base, a.number)))
            return s.step(me, f"appends {a.base} -> {a.number} to history", written, at="unlock")
    after = "end" if rules.commit_completes_first else "fill B late"
    return s.step(me, "drops the flip lock", at=after, flip=False)
