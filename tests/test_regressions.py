"""Upgrades that broke an import in real life are refused, told in words that help, and leave no trace.

A few are tried by default; SITESWAP_STRESS=1 tries all of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import snapshots
from conftest import INTERPRETERS, STRESS, Siteswap, run_python
from historical import REGRESSIONS, Regression

pytestmark = pytest.mark.index


BY_DEFAULT = {
    "apscheduler-setuptools",
    "bottleneck-numpy",
    "environs-marshmallow",
    "flask-werkzeug",
    "inflect-pydantic",
    "jinja2-markupsafe",
}
"""Small ones, each of another kind, on as many interpreters as can be; and numpy's binary interface."""

CASES = [item for item in REGRESSIONS if STRESS or item.name in BY_DEFAULT]

NUMBERS = {item.name: number for number, item in enumerate(CASES)}


def pinned(line: str) -> tuple[str, str]:
    """Name and version of a requirement with an exact pin, extras left out."""
    name, _, version = line.partition("==")
    return name.partition("[")[0], version


@pytest.fixture
def before(regression: Regression, tmp_path: Path, siteswap: Siteswap) -> Path:
    """An environment in which everything works, as it was before the upgrade."""
    if regression.python not in INTERPRETERS:
        pytest.skip(f"there is no Python {regression.python} here")
    env = tmp_path / "env"
    siteswap("create", env, "--python", INTERPRETERS[regression.python]).ok()
    done = siteswap("install", "-e", env, *regression.before).ok()
    notes = [line for line in done.err.splitlines() if "runs code at every start of Python" not in line]
    assert notes == [], "what works is passed without a word"
    return env


@pytest.mark.parametrize("regression", CASES, ids=lambda item: item.name)
def test_the_upgrade_is_refused(regression: Regression, before: Path, siteswap: Siteswap) -> None:
    """It names what broke, how, and since which change; the environment is as it was; it can be overruled."""
    env = before
    dependent, version = pinned(regression.before[0])
    old = dict(map(pinned, regression.before))
    was = snapshots.state(env)

    refused = siteswap("install", "-e", env, *regression.upgrade)
    assert refused.status == 1, refused
    assert refused.out == ""
    found = next(line for line in refused.err.splitlines() if line.startswith(f"{dependent} {version}: "))
    assert f"import {regression.broken} fails: " in found
    assert re.search(regression.words, found)
    assert f"works in generation 2 ({dependent} {version})" in refused.err
    for name, new in map(pinned, regression.upgrade):
        assert f"{name} {old[name]} → {new}" in refused.err
    assert "Traceback" not in refused.err
    assert "nothing was changed (generation 2 is current)" in refused.err

    assert snapshots.state(env) == was
    assert snapshots.current(env) == 2
    assert list((env / ".siteswap/staging").iterdir()) == []
    run_python(env / "bin/python", f"import {regression.broken}")

    # One way through for each, so that both are tried without trying everything twice.
    way = ("--allow-broken", dependent) if NUMBERS[regression.name] % 2 == 0 else ("--no-check",)
    done = siteswap("install", "-e", env, *way, *regression.upgrade).ok()
    told = re.search(regression.words, done.err) is not None
    assert told == (way[0] == "--allow-broken"), "what is let pass is told; what is not tried is not known"
    for name, new in map(pinned, regression.upgrade):
        assert f"{name} {old[name]} → {new}" in done.out
    assert snapshots.current(env) == 3


def test_the_default_ones_exist() -> None:
    """Every name of the short run is one of the upgrades that are described."""
    assert {item.name for item in REGRESSIONS} >= BY_DEFAULT
