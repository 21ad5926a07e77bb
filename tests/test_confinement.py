"""What checks may do: limits, places to write to, and that nothing of them is left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import needs_landlock, needs_root
from siteswap import confinement, process
from siteswap.confinement import Confinement, Terms
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import Access


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def confined(scratch: Path) -> Iterator[Confinement]:
    with Confinement(Terms((scratch,), 0o027)) as found:
        yield found


def first(where: Confinement) -> Path:
    """The first directory that may be written to."""
    assert where.terms.writable is not None
    return where.terms.writable[0]


def run(
    where: Confinement, command: str, *, timeout: float = 20, writable: tuple[Path, ...] = ()
) -> process.Finished:
    """Run a line of shell in the scratch directory."""
    return where.run(
        ["/bin/sh", "-c", command],
        env=dict(os.environ),
        cwd=first(where),
        timeout=timeout,
        merge=True,
        writable=writable,
    )


def alive(marker: str) -> bool:
    """Whether a process with that word in its command line runs."""
    return any(marker in seen.command for seen in process.survey(marker, "NOTHING"))


def test_what_a_program_prints_and_how_it_ends(confined: Confinement, scratch: Path) -> None:
    """Output, exit status, umask, input and working directory arrive as asked for."""
    done = run(confined, "echo out; echo err >&2; touch made; exit 7")
    assert (done.status, done.stdout, done.timed_out, done.left) == (7, "out\nerr\n", False, 0)
    assert (scratch / "made").stat().st_mode & 0o777 == 0o640
    apart = confined.run(["cat"], env={"PATH": os.defpath}, cwd=scratch, timeout=20, stdin="text\n")
    assert (apart.stdout, apart.stderr) == ("text\n", "")


def test_one_check_after_the_other_sees_only_its_own_output(confined: Confinement) -> None:
    """The files that carry output are emptied between checks."""
    assert run(confined, "echo a long first line").stdout == "a long first line\n"
    assert run(confined, "echo b").stdout == "b\n"


@needs_landlock
def test_nothing_is_written_elsewhere(confined: Confinement, scratch: Path, tmp_path: Path) -> None:
    """Creating, changing, emptying, renaming and removing are refused outside of the scratch places."""
    mine = tmp_path / "mine"
    mine.write_text("as it was")
    (tmp_path / "directory").mkdir()
    for attempt in (
        f"echo x > {tmp_path}/new", f"echo x >> {mine}", f": > {mine}", f"rm {mine}", f"mkdir {tmp_path}/sub",
        f"mv {mine} {scratch}/", f"ln -s x {tmp_path}/link", f"ln {mine} {tmp_path}/hard",
        f"rmdir {tmp_path}/directory", f"mkfifo {tmp_path}/fifo",
    ):  # fmt: skip
        assert run(confined, attempt).status != 0, attempt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "mine", "scratch"]
    assert mine.read_text() == "as it was"
    assert run(confined, "echo x > inside && cat inside && rm inside").stdout == "x\n"


def test_without_landlock_the_same_attempt_succeeds(
    monkeypatch: pytest.MonkeyPatch, scratch: Path, tmp_path: Path
) -> None:
    """It is Landlock that refuses, and a kernel without it is told of."""
    monkeypatch.setattr(confinement, "LANDLOCK", False)
    with Confinement(Terms((scratch,), 0o022)) as found:
        assert run(found, f"echo x > {tmp_path}/new").status == 0
        assert not found.landlocked


@needs_landlock
def test_more_places_for_one_check(confined: Confinement, tmp_path: Path) -> None:
    """What one check may write to besides is not for the next one."""
    more = tmp_path / "more"
    more.mkdir()
    assert run(confined, f"touch {more}/a", writable=(more,)).status == 0
    assert run(confined, f"touch {more}/b").status != 0


@needs_landlock
def test_programs_find_what_they_need(confined: Confinement) -> None:
    """/dev/null, semaphores and shared memory work: multiprocessing is tried."""
    code = "import multiprocessing as m; m.Lock(); print(m.Pool(2).map(abs, [1, -2]))"
    done = confined.run([sys.executable, "-c", code], env=dict(os.environ), cwd=first(confined), timeout=60)
    assert done.stdout == "[1, 2]\n", done.stderr


def test_a_check_that_takes_too_long_is_killed_with_all_it_started(confined: Confinement) -> None:
    """The time is up for the whole group."""
    begin = time.monotonic()
    done = run(confined, "sleep 4011 & exec sleep 4011", timeout=0.3)
    assert done.timed_out
    assert time.monotonic() - begin < 10
    assert not alive("sleep 4011")


@pytest.mark.parametrize(
    "command",
    [
        "sleep 4012 & sleep 0.1",
        "setsid sleep 4012 & sleep 0.1",
        "(setsid sh -c 'setsid sleep 4012 & sleep 0.1' &); sleep 0.3",
        "nohup sleep 4012 > /dev/null 2>&1 & sleep 0.1",
    ],
)
def test_nothing_that_was_started_is_left(confined: Confinement, command: str) -> None:
    """However a process leaves its group and its session, it ends with the check, and is counted."""
    done = run(confined, command)
    assert done.status == 0
    assert done.left >= 1
    assert not alive("sleep 4012")


@needs_landlock
@pytest.mark.parametrize("command", ["kill -9 -1; echo still here", "kill -9 $PPID; echo still here"])
def test_a_check_cannot_kill_what_is_not_its_own(confined: Confinement, command: str) -> None:
    """Signals reach the check's own processes only."""
    bystander = subprocess.Popen(["sleep", "4013"])
    try:
        assert "still here" in run(confined, command).stdout
        assert bystander.poll() is None
        assert run(confined, "echo next").stdout == "next\n"
    finally:
        bystander.kill()
        bystander.wait()


def test_a_check_that_kills_its_own_group_is_one_that_failed(confined: Confinement) -> None:
    """The supervisor is not in that group: it tells, and goes on with the next."""
    assert run(confined, "kill -9 0").status == -9
    assert run(confined, "echo next").stdout == "next\n"


def test_a_check_that_kills_its_supervisor_is_one_that_failed(
    monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    """Where nothing keeps it from that, the next check gets another supervisor."""
    monkeypatch.setattr(confinement, "LANDLOCK", False)
    with Confinement(Terms((scratch,), 0o022)) as found:
        assert run(found, "kill -9 $PPID; sleep 4014").status == -9
        assert run(found, "echo next").stdout == "next\n"
    for _ in range(100):
        if not alive("sleep 4014"):
            break
        time.sleep(0.05)
    assert not alive("sleep 4014")


def test_memory_is_limited(scratch: Path) -> None:
    """A program that wants more than it may have gets a MemoryError, not the machine's memory."""
    with Confinement(Terms((scratch,), 0o022, memory=256 << 20)) as found:
        done = run(found, f"{sys.executable} -c 'bytearray(1 << 30)'")
        assert "MemoryError" in done.stdout
        assert run(found, f"{sys.executable} -c 'bytearray(1 << 20)'").status == 0


def test_no_core_files(confined: Confinement) -> None:
    """A crash leaves no core file behind."""
    done = run(confined, f"ulimit -c; {sys.executable} -c 'import os; os.abort()'; ls")
    assert done.stdout.splitlines()[0] == "0"
    assert not [line for line in done.stdout.splitlines() if line.startswith("core")]


_CONNECT = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 5); print('loopback')"  # noqa: E501


def _network_namespaces(scratch: Path) -> bool:
    try:
        with Confinement(Terms((scratch,), 0o022, offline=True)) as found:
            return run(found, "true").status == 0
    except SiteswapError:
        return False


def test_offline(scratch: Path) -> None:
    """Without a network only the loopback device is there, and it works; or the refusal says why."""
    with Confinement(Terms((scratch,), 0o022, offline=True)) as found:
        if not _network_namespaces(scratch):
            with pytest.raises(SiteswapError, match="cut off the network") as refused:
                run(found, "true")
            assert refused.value.kind is Kind.SYSTEM
            return
        assert run(found, "cat /proc/net/dev | tail -n +3 | cut -d: -f1").stdout.split() == ["lo"]
        done = found.run([sys.executable, "-c", _CONNECT], env=dict(os.environ), cwd=scratch, timeout=30)
        assert done.stdout == "loopback\n", done.stderr


def test_with_a_network_there_is_one(confined: Confinement) -> None:
    """Only --offline-checks takes the network away."""
    here = os.readlink("/proc/self/ns/net")
    assert run(confined, "readlink /proc/self/ns/net").stdout.strip() == here


@needs_root
def test_as_another_user(tmp_path: Path) -> None:
    """Everything about the user is the other one's, and no way leads back."""
    scratch = Path("/tmp") / f"siteswap-test-{os.getpid()}"
    scratch.mkdir()
    nobody = process.account("nobody")
    try:
        os.chown(scratch, nobody.uid, nobody.gid)
        with Confinement(Terms((scratch,), 0o022, account=nobody)) as found:
            code = "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"
            done = found.run(["/usr/bin/python3", "-c", code], env={}, cwd=scratch, timeout=30)
            assert done.stdout.startswith(f"({nobody.uid}, {nobody.uid}, {nobody.uid})"), done.stderr
            assert "(0" not in done.stdout
            assert run(found, "touch mine").status == 0
            assert (scratch / "mine").stat().st_uid == nobody.uid
            assert found.run(["/bin/sh", "-c", "kill -0 1"], env={}, cwd=scratch, timeout=30).status != 0
    finally:
        subprocess.run(["rm", "-rf", scratch], check=True)


def test_who_checks_run_as() -> None:
    """The user named; the environment's owner where root runs siteswap; else whoever runs it."""
    we = os.geteuid()
    other = Access(12345, 12345, 0o055)
    mine = Access(we, os.getegid(), 0o055)
    assert confinement.account_for(None, mine) is None
    found = confinement.account_for(None, other)
    if we == 0:
        assert found is not None
        assert (found.uid, found.gid, found.groups) == (12345, 12345, (12345,))
        assert confinement.account_for("root", other) is None
    else:
        assert found is None
        with pytest.raises(SiteswapError, match="only root"):
            confinement.account_for("root", mine)
    with pytest.raises(SiteswapError, match="no user 'nobody-of-that-name'"):
        confinement.account_for("nobody-of-that-name", mine)


def test_a_program_that_cannot_be_started_is_named(confined: Confinement, scratch: Path) -> None:
    """A program that is not there is no finding about the candidate: the command says what is wrong."""
    with pytest.raises(SiteswapError, match="no-such-program: No such file"):
        confined.run(["/no-such-program"], env={}, cwd=scratch, timeout=5)
    with pytest.raises(SiteswapError, match="nowhere: No such file"):
        confined.run(["/bin/true"], env={}, cwd=scratch / "nowhere", timeout=5)


def test_stopping_from_another_thread_ends_what_runs(scratch: Path) -> None:
    """Ctrl-C must not wait for a check that does not end."""
    with Confinement(Terms((scratch,), 0o022)) as found:
        found.start()
        threading.Timer(0.3, found.stop).start()
        begin = time.monotonic()
        with pytest.raises(SiteswapError, match="stopped"):
            run(found, "sleep 4015", timeout=60)
        assert time.monotonic() - begin < 10
    assert not alive("sleep 4015")


def test_checks_end_with_a_siteswap_that_is_killed(scratch: Path) -> None:
    """kill -9 of the program that asked for a check leaves nothing of the check running."""
    code = f"""
import os
from pathlib import Path
from siteswap.confinement import Confinement, Terms
with Confinement(Terms((Path({str(scratch)!r}),), 0o022)) as found:
    found.run(["/bin/sh", "-c", "setsid sleep 4016 & touch begun; sleep 4016"], env=dict(os.environ),
              cwd=Path({str(scratch)!r}), timeout=600)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as asking:
        for _ in range(400):
            if (scratch / "begun").exists():
                break
            time.sleep(0.05)
        assert alive("sleep 4016")
        asking.kill()
    for _ in range(200):
        if not alive("sleep 4016"):
            break
        time.sleep(0.05)
    assert not alive("sleep 4016")


@pytest.mark.parametrize("timeout", [None, 60.0, 1e9, float("inf")])
def test_any_number_of_seconds_is_a_timeout(timeout: float | None) -> None:
    """Also more than the kernel can wait for at once."""
    assert process.run([sys.executable, "-c", "print('done')"], timeout=timeout).stdout == "done\n"


def test_what_takes_too_long_is_ended() -> None:
    begun = time.monotonic()
    assert process.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2).timed_out
    assert time.monotonic() - begun < 30
