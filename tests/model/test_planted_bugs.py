"""Each rule is needed: forget one, and the explorer shows what goes wrong."""

from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

import pytest

from .explorer import explore
from .protocol import Cast, Environment
from .rules import Rules


class Planted(NamedTuple):
    """What is forgotten, who is enough to show it, and what breaks."""

    forgotten: tuple[str, ...]
    cast: Cast
    breaks: str


FLIPPED_AND_COLLECTED = Cast(starts=1, commits=1, collects=1)
BY_NUMBER = Cast(by_number=1, collects=1)
BY_NUMBER_AND_SPARE = Cast(by_number=1, collects=1, spare=True)
RECYCLED = Cast(starts=1, commits=2, collects=1)
ROLLED_BACK = Cast(starts=1, commits=1, rollbacks=1)
ROLLED_BACK_AND_COLLECTED = Cast(rollbacks=1, collects=1)
CRASHED = Cast(commits=1, rollbacks=1, crashes=1)

BUGS = {
    "start does not look again": Planted(
        ("start_rechecks",), FLIPPED_AND_COLLECTED, "3 is changed or removed"
    ),
    "start looks before it locks": Planted(
        ("start_locks_before_recheck",), FLIPPED_AND_COLLECTED, "3 is changed or removed"
    ),
    "start compares leases through a tombstone": Planted(
        ("start_rechecks_current", "start_sees_tombstones"), FLIPPED_AND_COLLECTED, "3 is changed or removed"
    ),
    "start by number compares leases through a tombstone": Planted(
        ("start_sees_tombstones",), BY_NUMBER, "2 is changed or removed"
    ),
    "start is content with any generation in place": Planted(
        ("start_rechecks_current",), RECYCLED, "has pinned 5, which was never published"
    ),
    "collector deletes without the exclusive lease": Planted(
        ("collect_takes_lease",), BY_NUMBER_AND_SPARE, "2 is changed or removed"
    ),
    "recycling without the exclusive lease": Planted(
        ("spare_takes_lease",), BY_NUMBER, "2 is changed or removed"
    ),
    "collector read current before the lock": Planted(
        ("collect_looks_under_lock",), ROLLED_BACK_AND_COLLECTED, "current is 2, which is not complete"
    ),
    "collector takes a candidate": Planted(
        ("collect_only_published",), FLIPPED_AND_COLLECTED, "current is 4, which is not complete"
    ),
    "collector deletes in place": Planted(
        ("collect_detaches_first",), FLIPPED_AND_COLLECTED, "does not come up"
    ),
    "tombstone in two steps": Planted(("collect_exchanges",), BY_NUMBER, "does not come up"),
    "collector deletes under a path walk": Planted(
        ("collect_outlasts_walks",), BY_NUMBER_AND_SPARE, "does not come up"
    ),
    "recycled directory keeps its lease": Planted(
        ("recycle_renews_lease",), Cast(starts=1, commits=1, spare=True), "does not come up"
    ),
    "candidate published half done": Planted(
        ("commit_completes_first",), Cast(commits=1), "current is 4, which is not complete"
    ),
    "commit does not verify its base": Planted(
        ("commit_verifies_base",), ROLLED_BACK, "4 was made from 3 and has overwritten 2"
    ),
    "flip before the record": Planted(("record_before_flip",), CRASHED, "history tells"),
    "record believed without its flip": Planted(("void_records",), CRASHED, "history tells"),
    "only the last record can be void": Planted(("void_anywhere",), CRASHED, "history tells"),
    "rollback without the flip lock": Planted(
        ("rollback_takes_flip_lock",), ROLLED_BACK_AND_COLLECTED, "current is 2, which is not complete"
    ),
    "rollback to a candidate": Planted(
        ("rollback_only_published",), ROLLED_BACK, "current is 4, which no commit has published"
    ),
    "recovery without the writer lock": Planted(
        ("recover_takes_writer_lock",), Cast(commits=2), "commit 0 fails"
    ),
    "recovery reads history, then current": Planted(
        ("recover_reads_under_flip_lock",),
        Cast(commits=1, rollbacks=1),
        "is gone, and not by being collected",
    ),
    "recovery deletes what was published last": Planted(
        ("recover_looks_at_current",), Cast(commits=1), "current is 3, which is not complete"
    ),
    "recovery deletes under a collector": Planted(
        ("recover_asks_lease",), Cast(commits=1, collects=1), "the spare is damaged"
    ),
    "recovery passes over a locked directory": Planted(
        ("recover_waits",), Cast(by_number=1, collects=1, crashes=1), "leaves something behind"
    ),
    "recovery removes the link of a rollback": Planted(
        ("recover_leaves_link",), Cast(commits=1, rollbacks=1), "rollback 1 fails"
    ),
}
SECOND_LINES = {"recycler_takes_lease"}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, record_property: Callable[[str, object], None]) -> None:
    """The protocol with something forgotten breaks, in the way it should, where the whole protocol holds."""
    bug = BUGS[name]
    report = explore(Environment(bug.cast, Rules().without(*bug.forgotten)))
    record_property("states", report.states)
    print(report)
    assert bug.breaks in (report.broken or "nothing")


@pytest.mark.parametrize("cast", sorted({bug.cast for bug in BUGS.values()}, key=str), ids=str)
def test_without_a_bug_nothing_is_found(cast: Cast) -> None:
    """Where bugs are planted, the protocol itself holds: it was the bug that was found."""
    assert explore(Environment(cast)).broken is None


def test_every_rule_is_planted() -> None:
    """No switch is without its bug, but for what is known to be a second line of defence."""
    alone = {bug.forgotten[0] for bug in BUGS.values() if len(bug.forgotten) == 1}
    assert alone | SECOND_LINES == {rule.name for rule in fields(Rules)}
