"""RECOVER: whoever has got the writer lock first removes what a crash left."""

from typing import Any

from .past import published
from .rules import Rules
from .world import ABSENT, TOMBSTONE, Directory, Moves, State

FIRST = "recover"
NOWHERE: dict[str, Any] = {"place": 0, "name": 0, "lease": 0, "lock": ""}


def moves(s: State, me: int, rules: Rules, then: str) -> Moves:
    """The next step of recovering; after the last one the actor goes on at `then`."""
    a, disk = s.actors[me], s.disk
    match a.at:
        case "recover":
            if not rules.recover_reads_under_flip_lock:
                return [s.step(me, "recovers", at="recover: history")]
            if not s.flip_free():
                return []
            return [s.step(me, "takes the flip lock to recover", at="recover: history", flip=True)]
        case "recover: history":
            return [s.step(me, f"reads history {disk.history}", at="recover: current", known=disk.history)]
        case "recover: current":
            # Without a look at `current`, the last record counts as void.
            current = disk.current if rules.recover_looks_at_current else 0
            known = tuple(sorted(published(a.known, current, rules)))
            text = f"reads current -> {disk.current}: published are {known}"
            return [s.step(me, text, at="recover: link", known=known)]
        case "recover: link":
            if rules.recover_leaves_link:
                text = "drops a left-over link and the flip lock" if disk.new_link else "drops the flip lock"
                cleared = disk._replace(new_link=0) if a.flip else disk
                return [s.step(me, text, cleared, at="recover: staging", flip=False)]
            return [s.step(me, "drops the flip lock", at="recover: no lock", flip=False)]
        case "recover: no lock":
            return [s.step(me, "removes the new link", disk._replace(new_link=0), at="recover: staging")]
        case "recover: staging":
            return _staging(s, me, rules)
        case "recover: lock":
            return _lock(s, me, rules)
        case "recover: look":
            if disk.in_staging(a.name) == a.place:
                return [s.step(me, f"finds it still there, as staging/{a.name}", at="recover: empty")]
            return [s.step(me, f"finds staging/{a.name} gone", at="recover: staging", **NOWHERE)]
        case "recover: generations":
            return _generations(s, me, then)
        case "recover: empty":
            if rules.collect_outlasts_walks and s.walked_in(a.place):
                return []
            text = f"deletes half of directory {a.place}"
            return [s.step(me, text, disk.half_deleted(a.place), at="recover: remove")]
        case "recover: remove":
            gone = disk.with_directory(a.place, Directory())
            if a.name < len(disk.generations):
                if disk.generations[a.name] == a.place:
                    gone = gone.with_generation(a.name, ABSENT)
            elif disk.in_staging(a.name) == a.place:
                gone = gone.with_staging(a.name, ABSENT)
            back = "recover: generations" if a.name < len(disk.generations) else "recover: staging"
            return [s.step(me, f"deletes directory {a.place}", gone, at=back, **NOWHERE)]
    return []


def _staging(s: State, me: int, rules: Rules) -> Moves:
    a = s.actors[me]
    for name, entry in s.disk.staging:
        if name in a.skipped:
            continue
        if entry == TOMBSTONE:
            return [s.step(me, f"unlinks staging/{name}", s.disk.with_staging(name, ABSENT))]
        lease = s.disk.dirs[entry].lease
        if not lease or not rules.recover_asks_lease:
            return [s.step(me, f"opens staging/{name}", at="recover: empty", place=entry, name=name)]
        text = f"opens lease {lease} of staging/{name}"
        return [s.step(me, text, at="recover: lock", place=entry, name=name, lease=lease)]
    return [s.step(me, "is done with staging", at="recover: generations", skipped=())]


def _lock(s: State, me: int, rules: Rules) -> Moves:
    a = s.actors[me]
    if not s.locked(me, a.lease, exclusive=True):
        return [s.step(me, f"locks lease {a.lease}, exclusive", at="recover: look", lock="EX")]
    if rules.recover_waits:
        return []
    skipped = (*a.skipped, a.name)
    return [s.step(me, f"leaves staging/{a.name}", at="recover: staging", skipped=skipped, **NOWHERE)]


def _generations(s: State, me: int, then: str) -> Moves:
    for number, entry in enumerate(s.disk.generations):
        if entry > 0 and number not in s.actors[me].known:
            text = f"finds {number} was never published"
            return [s.step(me, text, at="recover: empty", place=entry, name=number)]
    return [s.step(me, "has recovered", at=then, known=())]
