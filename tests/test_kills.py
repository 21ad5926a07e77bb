"""Signals at chosen changes of the disk: whatever the moment, the environment is exactly old or exactly new.

Unlike the random moments of test_races, these are spread over every change that a command makes. The default
run takes a sample; SITESWAP_STRESS=1 takes every change.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import killing
import racing
from conftest import STRESS, Siteswap
from snapshots import current, record_problems, state
from wheelmaker import application, wheel

pytestmark = pytest.mark.stress

SAMPLE = 6
"""Moments of each signal in the default run."""
MANY_SECONDS = 180.0 if STRESS else 8.0

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
HOME = {
    "bin", "current", "format", "generations", "history", "lock", "log", "spare", "staging", "tags", "writer",
}  # fmt: skip


@pytest.fixture
def versions(wheels: Path) -> Path:
    """Wheels of two versions of the application."""
    application(wheels, "1.0")
    application(wheels, "2.0")
    return wheels


def moments(changes: int) -> list[int]:
    """Which changes to interrupt: all, or a sample that covers the whole run and differs from day to day."""
    if STRESS:
        return list(range(1, changes + 1))
    step = changes / SAMPLE
    chance = random.Random(os.getpid())
    return sorted({1, changes, *(1 + int(step * (n + chance.random())) for n in range(SAMPLE))})


def say(capsys: pytest.CaptureFixture[str], *what: object) -> None:
    """Print where the developer sees it although the test passes."""
    with capsys.disabled():
        print("\n   ", *what)


def installed(siteswap: Siteswap, env: Path) -> dict[str, str]:
    """Versions by name."""
    return {item["name"]: item["version"] for item in siteswap("list", "-e", env, "--json").json}


def assert_no_cruft(env: Path) -> None:
    """Nothing is there but what belongs there."""
    left = racing.inside(env)
    assert left["staging"] == []
    assert set(left["home"]) <= HOME
    assert not [name for name in left["log"] if name.startswith(".")]
    known = {str(item["target"]) for item in history(env)}
    assert set(left["generations"]) <= known


def history(env: Path) -> list[dict[str, Any]]:
    """The records as they stand in the file, torn ones left out."""
    records = []
    for line in (env / ".siteswap/history").read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def assert_whole(siteswap: Siteswap, env: Path, version: str) -> None:
    """The environment is exactly that of one version, and its programs run."""
    assert installed(siteswap, env) == {"swapapp": version, "swaplib": version}
    assert record_problems(env / ".siteswap/current") == []
    said = subprocess.run([env / "bin/swapapp"], capture_output=True, text=True, check=False)
    assert (said.stdout.split()[:2], said.stderr) == (["same", version], "")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_an_install_interrupted_at_any_change(
    env: Path, versions: Path, siteswap: Siteswap, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """An upgrade with its checks: asked to stop it also clears up, killed it leaves that to the next one."""
    words = ("install", "-e", env, "--no-index", "--find-links", versions)
    siteswap(*words, "swapapp==2.0").ok()
    whole = killing.run(0, number, *words, "swapapp==1.0")
    assert whole.status == 0, whole.err
    assert whole.changes > 50
    was = "1.0"
    outcomes: collections.Counter[str] = collections.Counter()
    for at in moments(whole.changes):
        wanted = "2.0" if was == "1.0" else "1.0"
        before, exactly = current(env), state(env)
        done = killing.run(at, number, *words, f"swapapp=={wanted}")
        flipped = current(env) != before
        outcomes[f"{'new' if flipped else 'old'}, exit {done.status}"] += 1
        if number is not signal.SIGKILL:
            # Asked to stop: either nothing happened and nothing is left, or it was too late and it is done.
            assert done.status in (0, 130), done
            assert flipped == done.reported_success
            assert_no_cruft(env)
            if not flipped:
                assert state(env) == exactly
        was = wanted if flipped else was
        assert_whole(siteswap, env, was)
        siteswap("gc", "-e", env, "--keep", "2", "--lock-timeout", "5").ok()
        assert_no_cruft(env)
        assert_whole(siteswap, env, was)
    say(capsys, number.name, f"{whole.changes} changes:", dict(outcomes))
    assert len(outcomes) > 1, "nothing was interrupted, or everything"


@pytest.mark.parametrize(
    "command",
    [
        ("rollback",),
        ("gc", "--keep", "0"),
        ("tag", "CURRENT", "name"),
        ("uninstall", "swapapp", "--no-check"),
    ],
    ids=lambda words: words[0],
)
def test_other_commands_killed_at_any_change(
    env: Path,
    versions: Path,
    siteswap: Siteswap,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
) -> None:
    """Short commands, killed at each of their changes in turn, until one of them comes to its end."""
    words = ("install", "-e", env, "--no-index", "--find-links", versions, "--no-check")
    outcomes: collections.Counter[str] = collections.Counter()
    at = 0
    while True:
        at += 1
        siteswap(*words, "swapapp==1.0").ok()
        siteswap(*words, "swapapp==2.0").ok()
        before = current(env)
        given = [str(before) if word == "CURRENT" else word for word in command[1:]]
        done = killing.run(at, signal.SIGKILL, command[0], "-e", env, *given)
        outcomes[f"{'new' if current(env) != before else 'old'}, exit {done.status}"] += 1
        assert done.status in (0, -9), done
        version = installed(siteswap, env).get("swapapp")
        assert version in ("1.0", "2.0", None)
        assert record_problems(env / ".siteswap/current") == []
        siteswap("gc", "-e", env, "--keep", "2", "--lock-timeout", "5").ok()
        assert_no_cruft(env)
        if done.status == 0:
            break
        at += 0 if STRESS else random.Random(at).randrange(2 + at // 4)
    say(capsys, command[0], f"{done.changes} changes:", dict(outcomes))
    assert len(outcomes) > 1, "nothing was interrupted"


def test_create_killed_at_any_change(
    tmp_path: Path, siteswap: Siteswap, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no environment, or a whole one; the next create goes through and leaves nothing beside it."""
    whole = killing.run(0, signal.SIGKILL, "create", tmp_path / "first")
    assert whole.status == 0, whole.err
    env = tmp_path / "place/env"
    outcomes: collections.Counter[str] = collections.Counter()
    for at in [*moments(whole.changes), 10 * whole.changes]:
        done = killing.run(at, signal.SIGKILL, "create", env)
        made = env.exists()
        outcomes["whole" if made else "none"] += 1
        if made:
            assert record_problems(env / ".siteswap/current") == []
            assert subprocess.run([env / "bin/python", "-c", ""], check=False).returncode == 0
            refused = siteswap("create", env)
            assert refused.status == 2
            subprocess.run(["rm", "-rf", env], check=True)
        assert done.status in (0, -9)
    siteswap("create", env).ok()
    assert os.listdir(env.parent) == ["env"]
    say(capsys, f"create, {whole.changes} changes:", dict(outcomes))
    assert set(outcomes) == {"whole", "none"}


# -- children that are killed ----------------------------------------------------------------------


_KILL_A_CHILD = """
import os, signal, subprocess, sys, threading
from siteswap import cli
number, count = int(sys.argv[1]), 0
real = subprocess.Popen.__init__
def start(self, *arguments, **more):
    global count
    real(self, *arguments, **more)
    count += 1
    if count == number:
        os.kill(self.pid, signal.SIGKILL)
subprocess.Popen.__init__ = start
status = cli.main(sys.argv[2:])
print(count, file=sys.stderr)
sys.exit(status)
"""


def test_every_child_killed_in_turn(env: Path, versions: Path, siteswap: Siteswap) -> None:
    """The resolver or a supervisor that dies fails the command with one clear error, and changes nothing."""
    words = ("install", "-e", env, "--no-index", "--find-links", versions)
    siteswap(*words, "swapapp==1.0").ok()
    outcomes: collections.Counter[int] = collections.Counter()
    for number in range(1, 20):
        before = state(env)
        done = subprocess.run(
            [sys.executable, "-c", _KILL_A_CHILD, str(number), *map(str, words), "swapapp==2.0"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        outcomes[done.returncode] += 1
        assert "Traceback" not in done.stderr
        assert "BUG" not in done.stderr
        assert_no_cruft(env)
        if done.returncode == 0:
            break
        assert done.returncode in (1, 5), done
        assert state(env) == before
    assert installed(siteswap, env)["swapapp"] == "2.0"
    assert len(outcomes) > 1, "no child was killed"


_SLOW_BACKEND = """
import os, subprocess, time
def get_requires_for_build_wheel(config_settings=None):
    return []
def build_wheel(directory, config_settings=None, metadata_directory=None):
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    with open("pids.new", "w") as stream:
        stream.write(f"{os.getpid()} {child.pid}")
    os.rename("pids.new", "pids")
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_build_ends_with_siteswap(
    env: Path, siteswap: Siteswap, tmp_path: Path, number: signal.Signals
) -> None:
    """A build backend and what it started, in a session of its own even: none of it goes on."""
    tree = tmp_path / "slow"
    tree.mkdir()
    (tree / "backend.py").write_text(_SLOW_BACKEND)
    (tree / "pyproject.toml").write_text(
        '[project]\nname = "slow"\nversion = "1"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    before = state(env)
    with subprocess.Popen(
        [sys.executable, "-m", "siteswap", "install", "-e", env, "--no-index", tree],
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        _wait_until((tree / "pids").exists)
        running.send_signal(number)
        assert running.wait(20) == (-number if number is signal.SIGKILL else 130)
    for pid in map(int, (tree / "pids").read_text().split()):
        _wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}/exe"))  # type: ignore[misc]
    siteswap("gc", "-e", env).ok()
    assert state(env) == before


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- many at once ----------------------------------------------------------------------------------


class Crowd:
    """Threads that each run commands over and over, and what they saw go wrong."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.wrong: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()

    def run(self, workers: list[Callable[[], Iterator[str]]]) -> None:
        """Let every worker go on until the time is over; each yields the name of what it did."""
        threads = [threading.Thread(target=self._one, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=300)
            assert not thread.is_alive(), "a deadlock"

    def _one(self, worker: Callable[[], Iterator[str]]) -> None:
        try:
            for deed in worker():
                self.counts[deed] += 1
                if time.monotonic() > self.end:
                    return
        except Exception as error:  # noqa: BLE001 — told by the main thread
            self.wrong.append(repr(error))


def test_many_writers_and_readers_at_once(
    env: Path, versions: Path, siteswap: Siteswap, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writers of their own packages lose nothing; one that is killed with the lock in hand blocks nobody."""
    words = ("install", "-e", env, "--no-index", "--find-links", versions, "--no-check")
    names = [f"own{number}" for number in range(4)]
    for name in names:
        wheel(versions, name, "1.0")
        wheel(versions, name, "2.0")
    siteswap(*words, "swapapp==1.0").ok()
    last: dict[str, str] = {}
    crowd = Crowd(MANY_SECONDS)
    waited: list[str] = []

    def owner(name: str) -> Callable[[], Iterator[str]]:
        def work() -> Iterator[str]:
            version = "1.0"
            while True:
                done = siteswap(*words, f"{name}=={version}")
                assert done.status == 0, done.err
                waited.extend(line for line in done.err.splitlines() if "waiting for" in line)
                last[name] = version
                yield "install of one's own"
                version = "2.0" if version == "1.0" else "1.0"

        return work

    def switcher() -> Iterator[str]:
        for number in range(10**6):
            done = siteswap(*words, f"swapapp=={1 + number % 2}.0")
            assert done.status == 0, done.err
            yield "switch"

    def victim() -> Iterator[str]:
        chance = random.Random(1)
        while True:
            done = killing.run(chance.randrange(1, 150), signal.SIGKILL, *words, "swapapp==2.0")
            assert done.status in (0, -9), done
            yield "killed" if done.status else "not killed"

    def collector() -> Iterator[str]:
        while True:
            siteswap("gc", "-e", env, "--keep", "1").ok()
            yield "gc"

    def reader() -> Iterator[str]:
        while True:
            said = subprocess.run([env / "bin/swapapp"], capture_output=True, text=True, check=False)
            assert said.stdout.startswith("same"), (said.stdout, said.stderr)
            yield "start"

    crowd.run([*map(owner, names), switcher, switcher, victim, collector, *[reader] * 8])
    assert not crowd.wrong, crowd.wrong[:3]
    found = installed(siteswap, env)
    assert {name: found[name] for name in last} == last  # nothing was lost
    assert set(last) == set(names)
    _assert_serial(env)
    siteswap("gc", "-e", env, "--lock-timeout", "10").ok()
    assert_no_cruft(env)
    say(capsys, dict(crowd.counts), f"{len(waited)} waits shown")
    assert waited, "nobody ever waited"
    assert crowd.counts["killed"]


def test_upgrade_against_rollback_against_gc(
    env: Path, versions: Path, siteswap: Siteswap, capsys: pytest.CaptureFixture[str]
) -> None:
    """However they interleave, history is one line of steps, and every start sees one version."""
    words = ("install", "-e", env, "--no-index", "--find-links", versions, "--no-check")
    siteswap(*words, "swapapp==1.0").ok()
    siteswap(*words, "swapapp==2.0").ok()
    crowd = Crowd(MANY_SECONDS)

    def upgrader() -> Iterator[str]:
        for number in range(10**6):
            done = siteswap(*words, f"swapapp=={1 + number % 2}.0")
            assert done.status in (0, 3), done.err  # 3: the base moved three times under it
            yield f"install, exit {done.status}"

    def returner() -> Iterator[str]:
        while True:
            done = siteswap("rollback", "-e", env)
            assert done.status in (0, 2), done.err  # 2: what it was made from is collected
            yield f"rollback, exit {done.status}"

    def collector() -> Iterator[str]:
        while True:
            siteswap("gc", "-e", env, "--keep", "2").ok()
            yield "gc"

    def reader() -> Iterator[str]:
        while True:
            try:
                said = subprocess.run([env / "bin/swapapp"], capture_output=True, text=True, check=False)
            except FileNotFoundError:
                yield "not there"  # going back can lead to the empty generation
                continue
            # The interpreter may come to open a script that the empty generation lacks.
            assert said.stdout.startswith("same") or "No such file" in said.stderr, said
            yield "start"

    siteswap("tag", "-e", env, "2", "first").ok()
    crowd.run([upgrader, upgrader, returner, returner, collector, reader, reader])
    assert not crowd.wrong, crowd.wrong[:3]
    _assert_serial(env)
    siteswap("gc", "-e", env, "--lock-timeout", "10").ok()
    assert_no_cruft(env)
    say(capsys, dict(crowd.counts))


def _assert_serial(env: Path) -> None:
    """Every step that took place started where the one before it led to [I8]."""
    from siteswap.layout import Number
    from siteswap.manifest import effective_history, parse_history

    steps = effective_history(parse_history((env / ".siteswap/history").read_text()), Number(current(env)))
    assert steps[0].source is None
    for before, after in itertools.pairwise(steps):
        assert after.source == before.target
    assert steps[-1].target == current(env)
    recorded = history(env)
    # Only a kill between record and flip leaves a record that never took place.
    assert len(steps) >= len(recorded) * 0.8
