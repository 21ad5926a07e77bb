"""What people do in a virtual environment: the list is tests/habits.py, the page docs/compatibility.md."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import INTERPRETERS, STRESS, Siteswap
from habits import HABITS, RAN_ON, Habit
from places import OWN, compare, make_wheels

NEWEST = max((name for name in INTERPRETERS if name in RAN_ON), key=lambda name: int(name[2:]))

CASES = [
    pytest.param(habit, name, id=f"{name}: {habit.name}", marks=[pytest.mark.index] if habit.index else [])
    for habit in HABITS
    for name in sorted(INTERPRETERS)
    if name in RAN_ON
    and (STRESS or not habit.long)
    and name == (NEWEST if habit.index else name if STRESS else OWN)
]


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels by hand, and a pip newer than any."""
    return make_wheels(tmp_path_factory.mktemp("habits") / "wheels")


@pytest.mark.parametrize(("habit", "name"), CASES)
def test_habit(
    habit: Habit,
    name: str,
    tmp_path: Path,
    offline: Path,
    siteswap: Siteswap,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same lines in an environment of siteswap and in a plain venv beside it."""
    for program in habit.programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    if int(name[2:]) < habit.since:
        pytest.skip(f"not with Python {name}")
    if habit.own_cache:
        monkeypatch.setenv("SITESWAP_CACHE_DIR", str(tmp_path / "cache"))
    both = habit.plain and (not habit.generations or STRESS or habit.index)
    compare(habit, name, tmp_path, offline, siteswap, both=both)


def test_names_are_told_apart() -> None:
    """Thirty habits at least, none twice."""
    assert len({habit.name for habit in HABITS}) == len(HABITS) >= 30
