"""Races, for real: programs start and run while everything that changes an environment runs at once.

The default run is short; SITESWAP_STRESS=1 raises every number. Each guarantee
is also left out once, to see that its loss would be noticed.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import racing
from conftest import STRESS, Siteswap
from racing import Driver, Inhabitant, Orders
from siteswap import process
from wheelmaker import application, wheel

pytestmark = pytest.mark.stress

STARTS = 3000 if STRESS else 60
STARTS_WHILE_COLLECTING = 6000 if STRESS else 150
INHABITANTS = 40 if STRESS else 12
INHABITED_SECONDS = 60.0 if STRESS else 6.0
KILLS = 400 if STRESS else 30
ROUNDS_OF_WRITERS = 20 if STRESS else 1

BACK_AND_FORTH = ("install swapapp==1.0", "install swapapp==2.0", *["rollback"] * 4)


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
    assert all([seen.answers["1.0"], seen.answers["2.0"], seen.crossed]), "nothing was proven"
    assert driver.deeds.steps["rollback"]
    assert driver.deeds.collected
    assert driver.deeds.recycled


def test_without_pins_programs_that_start_see_two_generations(
    tmp_path: Path, versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same race on links alone: were this not noticed, the test above would prove nothing."""
    env = tmp_path / "env"
    orders = Orders(str(env), str(versions), BACK_AND_FORTH, keep=2, create=sys.executable, without=("pin",))
    with Driver(orders):
        seen = racing.start_many(racing.forms(env, tmp_path), env / ".siteswap/current", 400, until_bad=True)
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
    """Nothing is kept and there is no grace period: what is not current goes, whoever is on the way to it."""
    env = tmp_path / "env"
    orders = Orders(str(env), str(versions), COLLECTING, keep=0, grace=0.0, create=sys.executable)
    with Driver(orders) as driver:
        seen = racing.start_many(
            racing.forms(env, tmp_path), env / ".siteswap/current", STARTS_WHILE_COLLECTING
        )
    say(capsys, seen, driver.deeds)
    assert not seen.bad, seen.wrong[:5]
    assert all([seen.answers["1.0"], seen.answers["2.0"], seen.crossed]), "nothing was proven"
    assert driver.deeds.collected
    assert driver.deeds.recycled


def test_without_the_proof_of_disuse_programs_that_start_find_holes(
    tmp_path: Path, versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = tmp_path / "env"
    orders = Orders(str(env), str(versions), COLLECTING, keep=0, create=sys.executable, without=("proof",))
    with Driver(orders):
        seen = racing.start_many(racing.forms(env, tmp_path), env / ".siteswap/current", 400, until_bad=True)
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
    """Whatever they do with descriptors, flags and workers; `ps` knows them; nothing is left after."""
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
    assert driver.deeds.collected > 5
    assert driver.deeds.recycled

    def collected() -> bool:
        # What was current a moment ago is left alone, so it may take a few seconds.
        return len(siteswap("gc", "-e", env, "--keep", "0", "--json").json["generations"]) == 1

    assert racing.eventually(collected), siteswap("gc", "-e", env, "--keep", "0").out
    left = racing.inside(env)
    assert [os.readlink(env / ".siteswap/current")] == [f"generations/{item}" for item in left["generations"]]
    assert left["staging"] == []
    assert "spare" not in left["home"]


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
    tmp_path: Path, wheels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    race = _race_writers(tmp_path / "env", wheels, ROUNDS_OF_WRITERS)
    say(capsys, dict(race.statuses), f"{race.waited} said that they wait")
    assert not race.wrong, "\n".join(race.wrong)
    assert all([race.waited, race.statuses["install 0"], race.statuses["rollback 0"]]), "nothing was proven"
    _assert_no_cruft(tmp_path / "env")


def test_without_locks_writers_at_once_spoil_it(
    tmp_path: Path, wheels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With locks that everybody gets: writers clear away each other's work, or overwrite it."""
    race = _race_writers(tmp_path / "env", wheels, 1, before=_NO_LOCKS)
    say(capsys, "without locks:", dict(race.statuses), f"{len(race.wrong)} things go wrong")
    assert race.wrong


_NO_LOCKS = """
import os
from siteswap import fs
def lock(self, path, *, shared=False, make=True):
    return fs.Lock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
fs.FileSystem.lock = lock
"""


@dataclass
class _WritersRace:
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    waited: int = 0
    wrong: list[str] = field(default_factory=list)


def _race_writers(env: Path, wheels: Path, rounds: int, *, before: str = "") -> _WritersRace:
    """Rounds of four installs, two rollbacks and two collections at once, and what was wrong afterwards."""
    names = [f"part{letter}" for letter in "abcd"]
    for number in range(rounds):
        for name in names:
            wheel(wheels, name, f"{number + 1}.0")
    for name in ("one", "two"):
        wheel(wheels, name)
    racing.prepare(env, wheels, "one", "two")
    race = _WritersRace()
    for number in range(rounds):
        source = ("--no-index", "--find-links", wheels, "--json")
        commands: list[tuple[str, tuple[str | Path, ...]]] = [
            *(("install", (*source, f"{name}=={number + 1}.0")) for name in names),
            ("gc", ("--keep", "2")), ("rollback", ()), ("gc", ("--keep", "0")), ("rollback", ()),
        ]  # fmt: skip
        # Each begins while those before it are at work.
        jobs = [(verb, _cli(verb, env, *words, before=before, delay=0.08)) for verb, words in commands]
        for verb, job in jobs:
            out, err = job.communicate(timeout=180)
            race.statuses[f"{verb} {job.returncode}"] += 1
            race.waited += "waiting for PID" in err
            # A rollback may find nothing to go back to; an install gives up when overtaken three times.
            if job.returncode not in {"rollback": (0, 2), "install": (0, 3), "gc": (0,)}[verb]:
                race.wrong.append(f"{verb} ends with {job.returncode}: {out}{err}")
    records = _records(env)
    # Serial: each began where the one before ended. Nothing crashed, so every record's flip took place.
    for one, other in itertools.pairwise(records):
        if other["source"] != one["target"]:
            race.wrong.append(f"{other} did not begin where {one} ended")
    if os.readlink(env / ".siteswap/current") != f"generations/{records[-1]['target']}":
        race.wrong.append("the last record does not say what is current")
    installs = [item["target"] for item in records if item["kind"] == "install"]
    if not len(installs) == len(set(installs)) == race.statuses["install 0"] + 2:
        race.wrong.append(f"{installs} came of {race.statuses['install 0']} installs that succeeded")
    # Nothing lost: what an install makes is what was there, and its own part, and nothing else.
    content: dict[int, dict[str, str]] = {1: {}, 2: {"one": "1.0"}, 3: {"one": "1.0", "two": "1.0"}}
    for item in records[3:]:
        if item["kind"] == "install":
            name, _, version = item["command"].split()[-1].partition("==")
            content[item["target"]] = {**content.get(item["source"], {}), name: version}
    done = subprocess.run(
        [sys.executable, "-m", "siteswap", "list", "-e", env, "--json"], capture_output=True, text=True
    )
    shown = {entry["name"]: entry["version"] for entry in json.loads(done.stdout or "[]")}
    if shown != content.get(records[-1]["target"]):
        race.wrong.append(f"{shown} is there, not {content.get(records[-1]['target'])}")
    return race


def _cli(
    verb: str, env: Path, *words: str | Path, before: str = "", delay: float = 0
) -> subprocess.Popen[str]:
    """The real command line in a process of its own, with some code executed before and time passed since."""
    start = ["-c", f"{before}\nfrom siteswap.cli import main\nraise SystemExit(main())"]
    if not before:
        start = ["-m", "siteswap"]
    running = subprocess.Popen(
        [sys.executable, *start, verb, "-e", env, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(delay)
    return running


def _records(env: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (env / ".siteswap/history").read_text().splitlines()]


def test_a_writer_that_is_killed_while_it_builds_blocks_nobody(
    env: Path, wheels: Path, siteswap: Siteswap, signals: Path
) -> None:
    """While it lives it does block, and the other says for whom it waits; killed, it holds nothing."""
    wheel(wheels, "parta")
    wheel(wheels, "partb")
    begun = signals / "begun"
    words = ("--no-index", "--find-links", wheels)
    first = _cli("install", env, *words, "parta", "--check", f"touch {begun}; exec sleep 100")
    try:
        assert racing.eventually(begun.exists)
        other = siteswap("install", "-e", env, *words, "partb", "--lock-timeout", "0.2")
        assert other.status == 3
        assert f"PID {first.pid}" in other.err
    finally:
        first.kill()
        first.communicate()
    assert racing.inside(env)["staging"]
    assert racing.inside(env)["generations"] == ["1", "2"]
    siteswap("install", "-e", env, *words, "partb", "--lock-timeout", "0.2").ok()
    assert [entry["name"] for entry in siteswap("list", "-e", env, "--json").json] == ["partb"]
    _assert_no_cruft(env)


_BUSY = """\
while :; do
    i=$((i+1))
    mkdir -p $TMPDIR/d$((i%50)) && : > $TMPDIR/d$((i%50))/f$i && touch {begun}
done
"""
"""A program that writes into its scratch place without end."""

_STARTS_BUSY = """\
import subprocess, time
subprocess.Popen(["/bin/sh", "-c", {busy!r}], start_new_session=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["check", "import"])
def test_nothing_of_a_check_outlives_its_killed_writer(
    env: Path, wheels: Path, siteswap: Siteswap, signals: Path, tmp_path: Path, how: str
) -> None:
    """Its processes end, even in sessions of their own, and nothing that they wrote is left."""
    begun = signals / "begun"
    busy = _BUSY.format(begun=begun)
    wheel(wheels, "parta", files={"parta.py": ""})
    wheel(wheels, "partb", files={"partb.py": _STARTS_BUSY.format(busy=busy)})
    words: list[str | Path] = ["--no-index", "--find-links", wheels]
    what = ["partb"] if how == "import" else ["parta", "--check", f"setsid sh -c '{busy}' & sleep 600"]
    with _cli("install", env, *words, *what) as first:
        running = racing.eventually(begun.exists)
        seen = process.survey(str(tmp_path), "NOTHING")
        first.kill()
    assert running
    assert {"/bin/sh" if how == "import" else "sh"} & {found.command.split()[0] for found in seen}
    siteswap("install", "-e", env, *words, "parta", "--no-check", "--lock-timeout", "0.2").ok()
    assert racing.eventually(lambda: not process.survey(str(tmp_path), "NOTHING"), 10)
    siteswap("gc", "-e", env).ok()
    assert not racing.inside(env)["staging"]
    _assert_no_cruft(env)


_FREEZE = """
import os, sys
from siteswap import cli, collect, fs
collect.GRACE_SECONDS, collect.DEFAULT_KEEP = 0, 1
name, end, owner = sys.argv[1], sys.argv[2], os if hasattr(os, sys.argv[1]) else fs.FileSystem
real = getattr(owner, name)
def freeze(*arguments, **more):
    if any(str(item).endswith(end) for item in arguments):
        print("frozen", flush=True)
        sys.stdin.readline()
    return real(*arguments, **more)
setattr(owner, name, freeze)
cli.main(sys.argv[3:])
"""
"""Run a command, and stop right before each operation on a path with a certain end, until told to go on."""


@contextlib.contextmanager
def _frozen(primitive: str, path: str, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command that has stopped before such an operation."""
    with subprocess.Popen(
        [sys.executable, "-c", _FREEZE, primitive, path, *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "frozen\n"
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("after", ["install", "rollback", "gc"] if STRESS else ["install", "gc"])
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
    primitive: str, path: str, verb: str, after: str, tmp_path: Path, versions: Path, siteswap: Siteswap
) -> None:
    """Killed right before one operation, with the locks that it holds there."""
    env = tmp_path / "env"
    source = ("--no-index", "--find-links", versions, "--no-check")
    wheel(versions, "other")
    wheel(versions, "third")
    with_spare = (primitive, verb) == ("unlink", "gc")
    racing.prepare(env, versions, "swapapp==1.0", "swapapp==2.0", "swapapp==1.0", with_spare=with_spare)
    assert (env / ".siteswap/spare").exists() == with_spare
    words = {
        "install": ("install", "-e", env, *source, "other"),
        "rollback": ("rollback", "-e", env),
        "gc": ("gc", "-e", env, "--keep", "1"),
        "tag": ("tag", "-e", env, "2", "name"),
    }
    with _frozen(primitive, path, *words[verb]):
        pass  # killed there
    next_words = ("install", "-e", env, *source, "third") if after == "install" else words[after]
    done = siteswap(*next_words, "--lock-timeout", "1").ok()
    assert "waiting" not in done.err
    if after != "rollback":  # which is quick: it takes only the flip lock, and clears nothing
        _assert_no_cruft(env)
    _assert_linked(env)


@pytest.mark.parametrize("moment", [0, 1], ids=["while it recovers", "after its flip"])
def test_a_rollback_during_an_install_keeps_its_top_level_links(
    moment: int, tmp_path: Path, wheels: Path, siteswap: Siteswap
) -> None:
    """Whoever removes links that the current generation does not need must know which one that is.

    Told in time order: the install takes a look at what is current; the rollback
    makes another current, and links its `etc`; the install removes what it saw no need for.
    """
    env = tmp_path / "env"
    wheel(wheels, "configured", data={"data/etc/configured.conf": "x"})
    for name in ("one", "two"):
        wheel(wheels, name)
    racing.prepare(env, wheels, "one", "configured")
    racing.prepare(env, wheels, uninstall="configured")
    siteswap("tag", "-e", env, "3", "kept").ok()
    words = ("install", "-e", env, "--no-index", "--find-links", wheels, "--no-check", "two")
    with _frozen("entries", "/env", *words) as install:
        assert install.stdin is not None
        assert install.stdout is not None
        for _ in range(moment):
            install.stdin.write("\n")
            install.stdin.flush()
            assert install.stdout.readline() == "frozen\n"
        rollback = _cli("rollback", env, "3")
        with contextlib.suppress(subprocess.TimeoutExpired):  # then it waits for the install's lock
            rollback.wait(1)
        install.communicate("\n" * 100)
        assert rollback.wait(60) == 0, rollback.communicate()
        rollback.communicate()
        assert install.returncode == 0
    assert [item["kind"] for item in _records(env)].count("rollback") == 1
    _assert_linked(env)


def _assert_no_cruft(env: Path) -> None:
    """Nothing is there but what belongs there."""
    left = racing.inside(env)
    assert left["staging"] == []
    known = [
        "bin",
        "current",
        "format",
        "generations",
        "history",
        "lock",
        "log",
        "spare",
        "staging",
        "tags",
        "writer",
    ]
    assert set(left["home"]) <= set(known), left["home"]
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
    for number in range(KILLS):
        wanted = "1.0" if was == "2.0" else "2.0"
        before = os.readlink(env / ".siteswap/current")
        running = _cli("install", env, *words, f"swapapp=={wanted}")
        begun = time.monotonic()
        if number % 2:  # half of the moments lie after the interpreter's start
            while running.poll() is None and not os.listdir(env / ".siteswap/staging"):
                time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(chance.uniform(0, 0.7 if number % 2 else 1) * lasting)
            lasting = (lasting + time.monotonic() - begun) / 2  # the machine may be busy with other things
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
    assert set(outcomes) - {"ended before the kill", "killed before it began"}, outcomes
