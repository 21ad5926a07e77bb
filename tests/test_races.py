"""Races, for real: programs start and run while everything that changes an environment runs at once.

The default run is short; SITESWAP_STRESS=1 raises every number. Each guarantee
is also left out once, to see that its loss would be noticed.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import racing
from conftest import Siteswap
from racing import Driver, Inhabitant, Orders
from wheelmaker import application, wheel

pytestmark = pytest.mark.stress

STRESS = os.environ.get("SITESWAP_STRESS") == "1"
STARTS = 3000 if STRESS else 60
STARTS_WHILE_COLLECTING = 6000 if STRESS else 150
INHABITANTS = 40 if STRESS else 12
INHABITED_SECONDS = 60.0 if STRESS else 6.0
KILLS = 400 if STRESS else 30
ROUNDS_OF_WRITERS = 20 if STRESS else 1

BACK_AND_FORTH = ("install swapapp==1.0", "install swapapp==2.0", "rollback", "rollback", "rollback", "rollback")


@pytest.fixture
def versions(wheels: Path) -> Path:
    """Wheels of two versions of the application."""
    application(wheels, "1.0")
    application(wheels, "2.0")
    return wheels


def say(capsys: pytest.CaptureFixture[str], *what: object) -> None:
    """Print where the developer sees it although the test passes."""
    with capsys.disabled():
        print("\n   ", *what)


# -- programs that start --------------------------------------------------------------------------


def test_programs_that_start_during_flips_see_one_generation(
    python: Path, tmp_path: Path, versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = tmp_path / "env"
    orders = Orders(str(env), str(versions), BACK_AND_FORTH, keep=2, create=str(python))
    with Driver(orders) as driver:
        seen = racing.start_many(racing.forms(env, tmp_path), env / ".siteswap/current", STARTS)
    say(capsys, f"{python.name}: {seen}", driver.deeds)
    assert not seen.bad, seen.wrong[:5]
    assert seen.answers["1.0"] and seen.answers["2.0"] and seen.crossed, "nothing was proven"
    assert driver.deeds.steps["rollback"] and driver.deeds.collected and driver.deeds.recycled


def test_without_pins_programs_that_start_see_two_generations(
    tmp_path: Path, versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same race on links alone: were this not noticed, the test above would prove nothing."""
    env = tmp_path / "env"
    orders = Orders(
        str(env), str(versions), BACK_AND_FORTH, keep=2, create=sys.executable, without=("pin",)
    )
    with Driver(orders):
        seen = racing.start_many(
            racing.forms(env, tmp_path), env / ".siteswap/current", 400, until_bad=True
        )
    say(capsys, "without pins:", seen)
    assert seen.answers["mixed"]


# -- programs that start while generations are collected ------------------------------------------

COLLECTING = (
    "install swapapp==1.0", "gc", "install swapapp==2.0",
    "install swapapp==1.0", "install swapapp==2.0", "gc",
)  # fmt: skip
"""With and without recycling: `gc` removes the spare, two commits in a row make and use one."""


def test_programs_that_start_while_everything_old_is_collected_at_once_find_no_hole(
    tmp_path: Path, versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is kept and there is no grace period: what is not current goes, whoever may be on the way to it."""
    env = tmp_path / "env"
    orders = Orders(str(env), str(versions), COLLECTING, keep=0, grace=0.0, create=sys.executable)
    with Driver(orders) as driver:
        seen = racing.start_many(
            racing.forms(env, tmp_path), env / ".siteswap/current", STARTS_WHILE_COLLECTING
        )
    say(capsys, seen, driver.deeds)
    assert not seen.bad, seen.wrong[:5]
    assert seen.answers["1.0"] and seen.answers["2.0"] and seen.crossed, "nothing was proven"
    assert driver.deeds.collected and driver.deeds.recycled


def test_without_the_proof_of_disuse_programs_that_start_find_holes(
    tmp_path: Path, versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = tmp_path / "env"
    orders = Orders(
        str(env), str(versions), COLLECTING, keep=0, create=sys.executable, without=("proof",)
    )
    with Driver(orders):
        seen = racing.start_many(
            racing.forms(env, tmp_path), env / ".siteswap/current", 400, until_bad=True
        )
    say(capsys, "without proof of disuse:", seen)
    assert seen.bad


# -- programs that stay ---------------------------------------------------------------------------

LONG_VERSIONS = tuple(f"{major}.0" for major in range(1, 8))


@pytest.fixture
def long_versions(wheels: Path) -> Path:
    """Wheels of seven versions: an overwritten generation is unlikely to look right by chance."""
    for version in LONG_VERSIONS:
        racing.long_application(wheels, version)
    return wheels


def upgrading(env: Path, wheels: Path, **more: Any) -> Orders:
    """Upgrade and collect without end; each second time the collected generation is recycled."""
    steps = [f"install swaplong=={version}" for version in LONG_VERSIONS]
    cycle = [step for pair in zip(steps, _every_second(len(steps)), strict=True) for step in pair if step]
    return Orders(str(env), str(wheels), tuple(cycle), keep=0, create=sys.executable, **more)


def _every_second(count: int) -> Iterator[str]:
    """A `gc` after every second step."""
    for index in range(count):
        yield "gc" if index % 2 else ""


def test_programs_that_stay_keep_their_generation(
    tmp_path: Path, long_versions: Path, siteswap: Siteswap, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever they do with descriptors, flags and workers; and `ps` knows them; and nothing is left when they went."""
    env = tmp_path / "env"
    interval = INHABITED_SECONDS / racing.LAZY
    with Driver(upgrading(env, long_versions)) as driver:
        inhabitants: list[Inhabitant] = []
        for one in racing.inhabit(env, tmp_path / "inhabitant.py", INHABITANTS, interval, gap=0.1):
            inhabitants.append(one.wait_until_ready())
        shown = {entry["pid"]: entry["generation"] for entry in siteswap("ps", "-e", env, "--json").json}
        told = {
            pid: (one.kind, shown.get(pid), _number_of(env, one.version, shown.get(pid)))
            for one in inhabitants
            for pid in one.pids
        }
        wrong = [trouble for one in inhabitants if (trouble := one.end())]
    say(capsys, f"{len(told)} lasting processes in {len(set(shown.values()))} generations;", driver.deeds)
    assert not wrong, "\n".join(wrong)
    assert all(number is not None and right for _, number, right in told.values()), told
    assert len({one.version for one in inhabitants}) > 2, "nothing was proven"
    assert driver.deeds.collected > 5 and driver.deeds.recycled

    def collected() -> bool:
        # What was current a moment ago is left alone, so it may take a few seconds.
        return len(siteswap("gc", "-e", env, "--keep", "0", "--json").json["generations"]) == 1

    assert racing.eventually(collected), siteswap("gc", "-e", env, "--keep", "0").out
    left = racing.inside(env)
    assert [os.readlink(env / ".siteswap/current")] == [f"generations/{item}" for item in left["generations"]]
    assert left["staging"] == [] and "spare" not in left["home"]


def _number_of(env: Path, version: str | None, number: int | None) -> bool:
    """Whether that generation is there and has that version of the application."""
    manifest = env / f".siteswap/generations/{number}/.generation/manifest.json"
    if number is None or (env / f".siteswap/generations/{number}").is_symlink() or not manifest.exists():
        return False
    return version in {item["version"] for item in json.loads(manifest.read_text())["distributions"]}


def test_without_the_proof_of_disuse_programs_that_stay_lose_their_generation(
    tmp_path: Path, long_versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = tmp_path / "env"
    with Driver(upgrading(env, long_versions, without=("proof",))):
        started = list(racing.inhabit(env, tmp_path / "inhabitant.py", 4, 2 / racing.LAZY, gap=0.0))
        wrong = [trouble for one in started if (trouble := one.wait_until_ready().end())]
    say(capsys, f"without proof of disuse {len(wrong)} of {len(started)} lose theirs")
    assert wrong


# -- several writers ------------------------------------------------------------------------------


def test_writers_at_once_make_a_serial_history_and_lose_nothing(
    env: Path, wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"part{letter}" for letter in "abcd"]
    for number in range(ROUNDS_OF_WRITERS):
        for name in names:
            wheel(wheels, name, f"{number + 1}.0")
    waited = 0
    statuses: collections.Counter[str] = collections.Counter()
    for number in range(ROUNDS_OF_WRITERS):
        jobs = [
            *((f"install {name}", _cli("install", env, "--no-index", "--find-links", wheels, "--json", f"{name}=={number + 1}.0")) for name in names),
            *((verb, _cli(verb, env, *words, "--json")) for verb, words in (
                ("gc", ("--keep", "2")), ("rollback", ()), ("gc", ("--keep", "0")), ("rollback", ()),
            )),
        ]  # fmt: skip
        for title, job in jobs:
            out, err = job.communicate(timeout=180)
            statuses[f"{title.split()[0]} {job.returncode}"] += 1
            waited += "waiting for PID" in err
            # A rollback may find nothing to go back to; an install gives up when it was overtaken three times.
            allowed = {"rollback": {0, 2}, "install": {0, 3}}.get(title.split()[0], {0})
            assert job.returncode in allowed, (title, out, err)
    say(capsys, dict(statuses), f"{waited} said that they wait")
    assert waited
    records = _records(env)
    # Serial: each began where the one before ended. No crash, so every record is of a flip that took place.
    assert all(after["source"] == before["target"] for before, after in zip(records, records[1:], strict=False))
    assert os.readlink(env / ".siteswap/current") == f"generations/{records[-1]['target']}"
    installs = [item["target"] for item in records if item["kind"] == "install"]
    assert len(installs) == len(set(installs)) == statuses["install 0"]
    # Nothing lost: what an install made is its base and its own part, nothing else.
    content: dict[int, dict[str, str]] = {1: {}}
    for item in records[1:]:
        if item["kind"] == "install":
            name, _, version = item["command"].split()[-1].partition("==")
            content[item["target"]] = {**content[item["source"]], name: version}
    done = subprocess.run(
        [sys.executable, "-m", "siteswap", "list", "-e", env, "--json"], capture_output=True, check=True
    )
    shown = {entry["name"]: entry["version"] for entry in json.loads(done.stdout)}
    assert shown == content[records[-1]["target"]]
    assert racing.inside(env)["staging"] == []


def _cli(verb: str, env: Path, *words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "siteswap", verb, "-e", env, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _records(env: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (env / ".siteswap/history").read_text().splitlines()]


def test_a_writer_that_is_killed_while_it_builds_blocks_nobody(
    env: Path, wheels: Path, siteswap: Siteswap, tmp_path: Path
) -> None:
    wheel(wheels, "parta")
    wheel(wheels, "partb")
    marker = tmp_path / "checking"
    check = f"echo $$ > {marker}; exec sleep 100"
    words = ("--no-index", "--find-links", wheels)
    first = _cli("install", env, *words, "parta", "--check", check)
    assert racing.eventually(lambda: marker.exists() and bool(marker.read_text().strip()))
    try:
        # While it lives it does block, and the other says for whom it waits.
        other = siteswap("install", "-e", env, *words, "partb", "--lock-timeout", "0.2")
        assert other.status == 3 and f"PID {first.pid}" in other.err
        first.kill()
        first.communicate()
        assert racing.inside(env)["staging"] and racing.inside(env)["generations"] == ["1", "2"]
        siteswap("install", "-e", env, *words, "partb", "--lock-timeout", "0.2").ok()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(marker.read_text()), signal.SIGKILL)
    assert [entry["name"] for entry in siteswap("list", "-e", env, "--json").json] == ["partb"]
    _assert_no_cruft(env)


_FREEZE = """
import os, sys, time
from siteswap import cli, collect, fs
collect.GRACE_SECONDS, collect.DEFAULT_KEEP = 0, 1
name, end, owner = sys.argv[1], sys.argv[2], os if hasattr(os, sys.argv[1]) else fs.FileSystem
real = getattr(owner, name)
def freeze(*arguments, **more):
    if any(str(item).endswith(end) for item in arguments):
        print("frozen", flush=True)
        time.sleep(100)
    return real(*arguments, **more)
setattr(owner, name, freeze)
cli.main(sys.argv[3:])
"""
"""Run a command, and stop for good right before an operation on a path with a certain end."""


@pytest.mark.parametrize("after", ["install", "rollback", "gc"])
@pytest.mark.parametrize(
    ("primitive", "path", "verb"),
    [
        ("append_line", "/history", "install"),
        ("rename", "/.siteswap/current", "install"),
        ("exchange", "/.siteswap/generations/2", "install"),
        ("rename", "/.siteswap/current", "rollback"),
        ("exchange", "/.siteswap/generations/2", "gc"),
        ("unlink", "manifest.json", "gc"),
        ("unlink", "directories", "gc"),
        ("rename", "/.siteswap/tags", "tag"),
    ],
)
def test_a_writer_that_is_killed_at_the_worst_moment_blocks_nobody_and_leaves_nothing(
    primitive: str, path: str, verb: str, after: str, env: Path, versions: Path, siteswap: Siteswap
) -> None:
    """Killed right before one operation, with the locks that it holds there."""
    source = ("--no-index", "--find-links", versions, "--no-check")
    wheel(versions, "other")
    wheel(versions, "third")
    for requirement in ("swapapp==1.0", "swapapp==2.0", "swapapp==1.0"):
        siteswap("install", "-e", env, *source, requirement).ok()
    if (primitive, verb) == ("unlink", "gc"):
        _make_spare(env)
    words = {
        "install": ("install", "-e", env, *source, "other"),
        "rollback": ("rollback", "-e", env),
        "gc": ("gc", "-e", env, "--keep", "1"),
        "tag": ("tag", "-e", env, "2", "name"),
    }
    frozen = subprocess.Popen(
        [sys.executable, "-c", _FREEZE, primitive, path, *map(str, words[verb])],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert frozen.stdout is not None
    assert frozen.stdout.readline() == "frozen\n"
    frozen.kill()
    frozen.communicate()
    next_words = ("install", "-e", env, *source, "third") if after == "install" else words[after]
    done = siteswap(*next_words, "--lock-timeout", "1").ok()
    assert "waiting" not in done.err
    if after != "rollback":  # which is quick: it takes only the flip lock, and clears nothing
        _assert_no_cruft(env)
    _assert_linked(env)


def _make_spare(env: Path) -> None:
    """Bring the environment into the state after an automatic collection: with a spare to be recycled."""
    code = (
        "import sys; from siteswap import collect; from siteswap.environment import Environment;"
        "collect.GRACE_SECONDS = 0; e = Environment.open(sys.argv[1]);"
        "e._sweep(1, seconds=None, spare=True, command='')"
    )
    subprocess.run([sys.executable, "-c", code, env], check=True)
    assert (env / ".siteswap/spare").is_dir()


def _assert_no_cruft(env: Path) -> None:
    """Nothing is there but what belongs there."""
    left = racing.inside(env)
    assert left["staging"] == []
    known = {"current", "format", "generations", "history", "lock", "log", "spare", "staging", "tags", "writer"}
    assert set(left["home"]) <= known, left["home"]
    assert not [name for name in left["log"] if name.startswith(".")]
    published = {str(item["target"]) for item in _records(env)}
    assert set(left["generations"]) <= published


def _assert_linked(env: Path) -> None:
    """ENV has a link for each name at the top of the current generation, and no other."""
    links = {item.name for item in env.iterdir() if item.is_symlink()}
    there = {item.name for item in (env / ".siteswap/current").iterdir()}
    assert links == there - {".generation", "pyvenv.cfg"}


# -- kill -9 --------------------------------------------------------------------------------------


def test_killed_at_any_moment_it_is_exactly_old_or_exactly_new(
    env: Path, versions: Path, siteswap: Siteswap, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--no-index", "--find-links", versions)
    siteswap("install", "-e", env, *words, "swapapp==1.0").ok()
    begun = time.monotonic()
    siteswap("install", "-e", env, *words, "swapapp==2.0").ok()
    lasting = time.monotonic() - begun
    was = "2.0"
    outcomes: collections.Counter[str] = collections.Counter()
    chance = random.Random(os.getpid())
    for _ in range(KILLS):
        wanted = "1.0" if was == "2.0" else "2.0"
        before = os.readlink(env / ".siteswap/current")
        running = _cli("install", env, *words, f"swapapp=={wanted}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(chance.uniform(0.1, 1.05) * lasting)
        running.kill()
        running.communicate()
        now = os.readlink(env / ".siteswap/current")
        left = racing.inside(env)
        flipped = now != before
        if running.returncode == 0:
            stage = "ended before the kill"
        elif flipped:
            stage = "killed after the flip"
        elif any(name not in {str(item["target"]) for item in _records(env)} for name in left["generations"]):
            stage = "killed with a candidate"
        else:
            stage = "killed while it resolved" if left["staging"] else "killed before it began"
        outcomes[stage] += 1
        expected = wanted if flipped else was
        shown = {entry["name"]: entry["version"] for entry in siteswap("list", "-e", env, "--json").json}
        assert shown == {"swapapp": expected, "swaplib": expected}, stage
        said = subprocess.run([env / "bin/swapapp"], capture_output=True, text=True)
        assert said.stdout.split()[:2] == ["same", expected], (stage, said)
        assert said.stderr == ""
        siteswap("gc", "-e", env, "--keep", "3", "--lock-timeout", "5").ok()
        _assert_no_cruft(env)
        was = expected
    say(capsys, f"an install takes {lasting:.2f} s;", dict(outcomes))
    assert any(stage.startswith("killed") and stage != "killed before it began" for stage in outcomes), outcomes
