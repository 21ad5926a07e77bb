"""The protocol keeps its promises in every order of its steps, whoever crashes where, within these bounds."""

from collections.abc import Callable

import pytest

from conftest import STRESS

from .explorer import explore
from .protocol import Cast, Environment
from .rules import Rules

CASTS = {
    "two starts against recycling": Cast(starts=2, commits=1, collects=1, spare=True),
    "a start by number beside another": Cast(starts=1, by_number=1, commits=1, collects=1),
    "a start by number against recycling": Cast(by_number=1, commits=2, collects=1),
    "a start by number, two crashes": Cast(by_number=1, commits=1, collects=1, crashes=2, spare=True),
    "all kinds, one crash": Cast(starts=1, commits=1, rollbacks=1, collects=1, crashes=1),
    "a start against two commits, one crash": Cast(starts=1, commits=2, collects=1, crashes=1),
    "writers only, two crashes": Cast(commits=2, rollbacks=1, collects=1, crashes=2),
    "flips only, two crashes": Cast(commits=2, rollbacks=2, crashes=2),
    "two collectors": Cast(starts=1, commits=1, rollbacks=1, collects=2),
    "a collector with the writer lock": Cast(
        starts=1, commits=1, rollbacks=1, collects_as_writer=1, crashes=1
    ),
}
WIDE = {
    "all kinds, two commits, one crash": Cast(starts=1, commits=2, rollbacks=1, collects=1, crashes=1),
    "two commits, two collectors": Cast(starts=1, commits=2, collects=2),
    "all kinds and a spare, one crash": Cast(
        starts=1, commits=1, rollbacks=1, collects=1, crashes=1, spare=True
    ),
}


def _holds(cast: Cast, rules: Rules, record_property: Callable[[str, object], None]) -> None:
    report = explore(Environment(cast, rules))
    record_property("states", report.states)
    print(report)
    assert report.broken is None, str(report)


@pytest.mark.parametrize("name", CASTS)
def test_the_protocol_holds(name: str, record_property: Callable[[str, object], None]) -> None:
    """No order of steps and crashes breaks a promise."""
    _holds(CASTS[name], Rules(), record_property)


@pytest.mark.skipif(not STRESS, reason="a minute; set SITESWAP_STRESS=1")
@pytest.mark.parametrize("name", WIDE)
def test_the_protocol_holds_in_wider_bounds(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Nor do more actors at once."""
    _holds(WIDE[name], Rules(), record_property)


@pytest.mark.parametrize(
    "cast",
    [
        Cast(by_number=1, commits=1, collects=1, crashes=1),
        Cast(by_number=1, commits=1, collects=1, spare=True),
        Cast(commits=2, rollbacks=1, collects=1, crashes=1),
    ],
    ids=str,
)
def test_locking_the_spare_while_changing_it_is_a_second_line(
    cast: Cast, record_property: Callable[[str, object], None]
) -> None:
    """What is detached was proven unused, and a start that has its lease open still fails the recheck."""
    _holds(cast, Rules().without("recycler_takes_lease"), record_property)


@pytest.mark.parametrize(
    "cast",
    [
        Cast(by_number=1, commits=1, collects_as_writer=1, crashes=1),
        Cast(commits=2, rollbacks=1, collects_as_writer=1, crashes=1),
    ],
    ids=str,
)
def test_a_collector_with_the_writer_lock_needs_fewer_rules(
    cast: Cast, record_property: Callable[[str, object], None]
) -> None:
    """Where collectors take the writer lock, they and candidates never meet, nor do they and recovery."""
    needless = ("recover_asks_lease", "recover_waits", "collect_only_published")
    _holds(cast, Rules().without(*needless), record_property)
