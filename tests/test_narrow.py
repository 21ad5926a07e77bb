"""What is asked for is resolved alone where all else can stay, and then the answer is that of the whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from conftest import STRESS
from siteswap import narrow, process, uv
from siteswap.environment import Environment
from siteswap.errors import SiteswapError
from siteswap.fs import FileSystem
from siteswap.manifest import Change
from siteswap.requirements import Request
from siteswap.resolve import Options
from wheelmaker import wheel

Plan = Callable[..., "tuple[Change, ...] | str"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the resolver was asked, one entry a call."""
    seen: list[str] = []
    real = uv.run

    def run(
        arguments: list[str | Path], *, stdin: str | None = None, extra: Mapping[str, str] | None = None
    ) -> process.Finished:
        seen.append(stdin or "")
        return real(arguments, stdin=stdin, extra=extra)

    monkeypatch.setattr(uv, "run", run)
    return seen


def plan(env: Path, wheels: Path, *lines: str, upgrade: bool = False, commit: bool = False) -> object:
    """What installing would change, or the error."""
    options = Options(("--no-index", "--find-links", str(wheels)), no_index=True)
    with Environment.open(env).begin() as tx:
        try:
            tx.install(Request.of(*lines), options, upgrade=upgrade)
        except SiteswapError as error:
            return f"{error.kind.name}: {error.message}"
        planned = tx.planned
        if commit:
            tx.check(Environment.open(env).gates(enabled=False))
            tx.commit()
        return planned


def titles(planned: object) -> list[str]:
    assert isinstance(planned, tuple), planned
    return [f"{change.name} {change.after}" for change in planned]


@pytest.fixture
def small(env: Path, wheels: Path) -> Path:
    """An environment with `app` (needs lib<3, plug) and `tool` (needs lib)."""
    for version in ("1.0", "2.0", "3.0"):
        wheel(wheels, "lib", version)
    wheel(wheels, "plug", "1.0", requires=["extra-one; extra == 'one'"])
    wheel(wheels, "extra-one")
    wheel(wheels, "app", "1.0", requires=["lib<3", "plug"])
    wheel(wheels, "app", "2.0", requires=["lib<3"])
    wheel(wheels, "tool", "1.0", requires=["lib"])
    wheel(wheels, "other", "1.0", requires=["lib>=2"])
    plan(env, wheels, "app==1.0", "tool", "lib==1.0", commit=True)
    return env


def test_only_what_is_asked_for_is_resolved(small: Path, wheels: Path, asked: list[str]) -> None:
    planned = plan(small, wheels, "extra-one")
    assert titles(planned) == ["extra-one 1.0"]
    assert asked == ["extra-one\n"]


def test_what_stays_limits_what_is_asked_for(small: Path, wheels: Path, asked: list[str]) -> None:
    """app needs lib<3: asked for a newer lib, it is 2.0 in one go."""
    assert titles(plan(small, wheels, "lib>1")) == ["lib 2.0"]
    assert asked == ["lib>1\n"]


def test_extras_of_what_is_there(small: Path, wheels: Path, asked: list[str]) -> None:
    assert "extra-one 1.0" in titles(plan(small, wheels, "plug[one]"))
    assert asked == ["plug[one]\n"]


def test_what_nothing_needs_any_more_goes(small: Path, wheels: Path, asked: list[str]) -> None:
    """As it would if everything were resolved anew."""
    assert titles(plan(small, wheels, "app==2.0")) == ["app 2.0", "plug None"]
    assert asked == ["app==2.0\n"]


def test_what_must_move_is_left_to_the_whole(small: Path, wheels: Path, asked: list[str]) -> None:
    """other needs lib>=2, and the user had asked for 1.0: no answer, and the whole says why."""
    assert "cannot be satisfied" in str(plan(small, wheels, "other"))
    assert len(asked) == 2
    assert "lib==1.0" in asked[1]


def test_something_else_moves_where_it_may(small: Path, wheels: Path, asked: list[str]) -> None:
    plan(small, wheels, "lib>=1", commit=True)  # from now on any version
    asked.clear()
    assert titles(plan(small, wheels, "other")) == ["lib 2.0", "other 1.0"]
    assert len(asked) == 2


@pytest.mark.parametrize("seed", range(40 if STRESS else 3))
def test_the_answer_is_that_of_the_whole(
    env: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random worlds and random wishes, each resolved both ways."""
    chance = random.Random(seed)
    names = [f"pkg{letter}" for letter in "abcdefg"]
    for index, name in enumerate(names):
        for version in (1, 2, 3):
            needs = []
            for other in names[index + 1 :]:
                if chance.random() < 0.35:
                    bound = chance.choice(["", "", "<3", ">=2", "!=2", "==1", "<=2"])
                    marker = chance.choice(["", "", "; extra == 'x'", "; python_version < '3'"])
                    needs.append(f"{other}{chance.choice(['', '', '[x]'])}{bound}{marker}")
            wheel(wheels, name, f"{version}.0", requires=needs)
    agreed = narrowed = 0
    for _ in range(12):
        name = chance.choice(names)
        wish = name + chance.choice(["", "[x]", "==1.0", "==2.0", "==3.0", ">=2", "<3"])
        upgrade = chance.random() < 0.3
        calls: list[object] = []
        real = narrow.unneeded

        def watched(*arguments: object, calls: list[object] = calls, real: object = real) -> object:
            found = real(*arguments)  # type: ignore[operator]
            calls.append(found)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(narrow, "unneeded", watched)
            alone = plan(env, wheels, wish, upgrade=upgrade)
        with monkeypatch.context() as patched:
            patched.setattr(narrow, "constraints", lambda *_: None)
            whole = plan(env, wheels, wish, upgrade=upgrade, commit=True)
        assert alone == whole, f"{wish} upgrade={upgrade}"
        agreed += 1
        narrowed += any(found is not None for found in calls)
    assert agreed == 12
    assert FileSystem().is_directory(env)
    print(f"seed {seed}: {narrowed} of {agreed} narrowed")
