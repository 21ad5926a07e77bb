"""The user's own checks, settings and limits; trying a generation; what is kept of verdicts."""

from __future__ import annotations

import json
import os
import pty
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import packaging
import pytest

import siteswap as siteswap_package
from bench import Bench, needs_landlock, needs_root
from conftest import Siteswap
from siteswap.confinement import Confinement, Terms
from siteswap.errors import SiteswapError
from snapshots import current, generation, state


@pytest.fixture
def bench(siteswap: Siteswap, tmp_path: Path, env: Path) -> Bench:
    """A fresh environment of the test's own, with a wheel `demo` to install."""
    bench = Bench(siteswap, tmp_path)
    bench.wheel("demo")
    return bench


def settings(bench: Bench, text: str) -> None:
    """Write the environment's own settings."""
    (bench.env / "siteswap.toml").write_text(text)


def titles(bench: Bench) -> list[tuple[str, str]]:
    """What the user's own checks in the newest verdict were called, and how they ended."""
    rows = bench.verdict()["checks"]
    return [(row["what"], row["outcome"]) for row in rows if row["check"] in ("command", "tests")]


# -- commands --------------------------------------------------------------------------------------


def test_every_command_must_succeed(bench: Bench) -> None:
    """All of them run, in order, also after one failed; the report has each that failed with its output."""
    done = bench.refused(
        "demo", "--check", "echo one; false", "--check", "exit 0", "--check", "echo three >&2; exit 7"
    )
    assert "echo one; false: exit status 1\n    one" in done.err
    assert "echo three >&2; exit 7: exit status 7\n    three" in done.err
    assert "the checks found 2 things wrong" in done.err
    assert titles(bench) == [
        ("echo one; false", "failed"), ("exit 0", "passed"), ("echo three >&2; exit 7", "failed"),
    ]  # fmt: skip


def test_commands_are_not_run_where_the_rest_fails(bench: Bench, tmp_path: Path) -> None:
    """What cannot be imported need not be tried in longer words."""
    bench.module("failing", "1 / 0")
    bench.refused("failing", "--check", f"touch {tmp_path}/ran", "--check", "exit 9")
    assert titles(bench) == []


@needs_landlock
def test_what_a_command_sees(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs where siteswap was started, pinned to the candidate, with a home of its own, no PYTHONPATH."""
    for name in ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTHONSTARTUP"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("KEPT", "as it was")
    monkeypatch.delenv("PYTHONHOME", raising=False)
    names = ("PWD", "PATH", "VIRTUAL_ENV", "SITESWAP_GENERATION", "HOME", "TMPDIR", "KEPT", "PYTHONPATH",
             "PYTEST_ADDOPTS", "PYTHONSTARTUP")  # fmt: skip
    words = " ".join(f'"${{{name}-unset}}"' for name in names)
    inner = "import sys, demo; print(sys.prefix); print(demo.__file__)"
    done = bench.lives("demo", "--check", f"printf '%s\\n' {words}; command -v python; python -c '{inner}'")
    text = bench.run("log", "2").ok().out
    seen = [line for line in text.split("== command:")[1].splitlines()[1:] if line]
    where = dict(zip(names, seen, strict=False))
    prefix = str(generation(bench.env))
    assert where["PWD"] == str(bench.root)
    assert where["PATH"].split(":")[0] == f"{prefix}/bin"
    assert where["VIRTUAL_ENV"] == str(bench.env)
    assert where["SITESWAP_GENERATION"] == prefix
    assert where["HOME"] == where["TMPDIR"] != os.environ["HOME"]
    assert where["HOME"].startswith(f"{bench.env}/.siteswap/staging/")
    assert where["KEPT"] == "as it was"
    assert [where[name] for name in names[7:]] == ["unset"] * 3
    assert seen[len(names)] == f"{prefix}/bin/python"
    assert seen[len(names) + 1] == prefix
    assert seen[len(names) + 2].startswith(f"{prefix}/lib/")
    assert done.err == ""


def test_programs_of_the_environment_are_the_candidates(bench: Bench) -> None:
    """By whatever path a check starts a program of the environment, it is that of the candidate."""
    bench.wheel("told", "1.0", scripts={"told": "told:main"})
    bench.lives("told")
    bench.wheel("told", "2.0", scripts={"told": "told:main"})
    same = f'test "$(told)" = 2.0 && test "$({bench.env}/bin/told)" = 2.0'
    bench.lives("-U", "told", "--check", same)


@needs_landlock
def test_a_command_writes_to_its_scratch_places_only(bench: Bench, tmp_path: Path) -> None:
    """HOME and TMPDIR may be written to, and what is named as writable; nothing else."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open too").mkdir()
    settings(bench, "[checks.a]\ncommand = 'touch $HOME/x $TMPDIR/y ../open/a'\nwritable = ['../open']\n"
                    "directory = '../open'\n")  # fmt: skip
    bench.lives("demo")
    assert [path.name for path in (tmp_path / "open").iterdir()] == ["a"]
    settings(bench, "writable = ['../open too']\n"
                    "[checks.a]\ncommand = 'touch \"../open too/b\"; touch ../open/b'\n"
                    "[checks.b]\ncommand = 'touch \"../open too/c\"'\ndirectory = '../open'\n")  # fmt: skip
    bench.wheel("other")
    done = bench.refused("other")
    assert "a: exit status 1" in done.err
    assert "b: exit" not in done.err
    assert {path.name for path in (tmp_path / "open too").iterdir()} == {"b", "c"}
    assert [path.name for path in (tmp_path / "open").iterdir()] == ["a"]


def test_a_command_that_takes_too_long(bench: Bench) -> None:
    """`timeout` limits a check; what it had started ends with it."""
    settings(bench, "[checks.slow]\ncommand = 'echo begun; setsid sleep 4201 & sleep 4201'\ntimeout = 0.5\n")
    done = bench.refused("demo")
    assert "slow: did not end within 0.5 s\n    begun" in done.err


def test_a_command_that_kills_its_group(bench: Bench) -> None:
    """A check that ends itself and all around it is one that failed, and no more."""
    done = bench.refused("demo", "--check", "echo last words; kill -9 0", "--check", "true")
    assert "kill -9 0: was killed by signal 9\n    last words" in done.err
    assert [outcome for _, outcome in titles(bench)] == ["failed", "passed"]


def test_processes_that_a_command_leaves_are_killed(bench: Bench) -> None:
    """A server that a check forgot is told and ended."""
    done = bench.lives("demo", "--check", "setsid sleep 4202 > /dev/null 2>&1 & sleep 0.1")
    assert "sleep 0.1 left 1 process behind: killed" in done.err


GARBAGE = (
    "import os, sys; os.write(1, bytes(range(256)) * 4 + b'\\x1b[31m\\x1b]0;title\\x07' + b'x' * (5 << 20)); "
)


@pytest.mark.parametrize("status", [0, 1])
def test_garbage_is_kept_and_not_obeyed(bench: Bench, status: int) -> None:
    """Any bytes, control characters, and megabytes: the exit status counts, and no terminal is moved."""
    command = f'{sys.executable} -c "{GARBAGE}sys.exit({status})"'
    attempt = bench.refused if status else bench.lives
    done = attempt("demo", "--check", command)
    assert not any(character in done.err + done.out for character in "\x1b\x07\0")
    assert len(done.err) < 100_000
    (log,) = (bench.env / ".siteswap/log").glob("*.txt")
    assert log.stat().st_size > 5 << 20
    assert "\x1b" not in bench.run("log").ok().out
    assert bench.run("log", "--json").json[0]["passed"] == (status == 0)


def test_a_name_with_control_characters(bench: Bench) -> None:
    """The command itself may hold anything that a shell takes; the report shows it harmless."""
    done = bench.refused("demo", "--check", "printf '\x1b[31m'; false\n")
    assert "\x1b" not in done.err
    assert "\x1b" not in bench.run("log").ok().out


def test_advisory_checks(bench: Bench) -> None:
    """`needed = false`: a failure is told and does not block."""
    settings(bench, "[checks.advice]\ncommand = 'echo hm; exit 3'\nneeded = false\n")
    done = bench.lives("demo")
    assert "note: advice: exit status 3" in done.err
    assert titles(bench) == [("advice", "told")]


def test_usage(bench: Bench) -> None:
    """Contradictions and empty commands are refused before anything is done."""
    for words, why in (
        (("--check", "true", "--no-check"), "--check and --no-check exclude each other"),
        (("--test", "demo", "--no-check"), "--test and --no-check exclude each other"),
        (("--check", "  "), "--check was given an empty command"),
        (("--allow-broken", "no name!"), "this is not a distribution's name"),
        (("--check-user", "nobody-of-that-name"), "nobody-of-that-name"),
    ):
        done = bench.refused("demo", *words, status=2)
        assert why in done.err
        assert len(done.err.splitlines()) == 2, done.err


# -- settings --------------------------------------------------------------------------------------


def test_settings_of_the_environment(bench: Bench) -> None:
    """Commands of ENV/siteswap.toml hold for every candidate, in its directory, with their variables."""
    first = f'test "$X" = "a b" && test "$PWD" = "{bench.env}"'
    settings(bench, f"[checks.first]\ncommand = '{first}'\nenvironment = {{X = 'a b'}}\n"
                    "[checks.second]\ncommand = 'exit 5'\n")  # fmt: skip
    done = bench.refused("demo", "--check", "true")
    assert "second: exit status 5" in done.err
    assert titles(bench) == [("first", "passed"), ("second", "failed"), ("true", "passed")]
    done = bench.run("check")
    assert (done.status, "second: exit status 5" in done.err) == (1, True)
    bench.lives("demo", "--no-check")


def test_settings_of_the_project(bench: Bench, tmp_path: Path, siteswap: Siteswap) -> None:
    """The pyproject.toml above the environment counts, the environment's own go over it, others never."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "pyproject.toml").write_text("[tool.siteswap.checks.foreign]\ncommand = 'exit 1'\n")
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'x'\n[tool.siteswap.checks]\none.command = 'exit 4'\ntwo.command = 'test -d env'\n"
    )
    words = ("install", "-e", bench.env, "--no-index", "-f", bench.wheels, "demo")
    done = siteswap(*words, cwd=elsewhere)
    assert (done.status, "one: exit status 4" in done.err) == (1, True)
    assert titles(bench) == [("one", "failed"), ("two", "passed")]
    settings(bench, "[checks.one]\ncommand = 'exit 0'\n")
    siteswap(*words, cwd=elsewhere).ok()
    assert titles(bench) == [("one", "passed"), ("two", "passed")]


def test_broken_settings_stop_everything(bench: Bench) -> None:
    """A file that cannot be understood is named; nothing is tried without what it may have asked for."""
    settings(bench, "[checks.x]\ncomand = 'true'\n")
    done = bench.refused("demo", status=2)
    assert f"{bench.env}/siteswap.toml: checks.x.comand is not known" in done.err


@needs_root
def test_settings_of_somebody_else_are_not_obeyed(bench: Bench, tmp_path: Path) -> None:
    """A file of another user would have commands run as us: a note says that it is passed over."""
    settings(bench, "[checks.x]\ncommand = 'exit 1'\n")
    os.chown(bench.env / "siteswap.toml", 12345, 12345)
    done = bench.lives("demo")
    assert f"{bench.env}/siteswap.toml is not obeyed: it belongs to user id 12345" in done.err


# -- tests of distributions ------------------------------------------------------------------------

CASE = "import unittest\n\n\nclass Case(unittest.TestCase):\n    def test_it(self):\n        {}\n"


def suite(bench: Bench, body: str, version: str = "1.0", **more: object) -> None:
    """A distribution `tested` that installs a test."""
    files = {
        "tested/__init__.py": "",
        "tested/tests/__init__.py": "",
        "tested/tests/test_it.py": CASE.format(body),
    }
    bench.wheel("tested", version, files, **more)


def test_a_suite_that_fails(bench: Bench) -> None:
    """--test runs what the distribution installs; a failure refuses it and the log has it all."""
    suite(bench, "self.assertEqual(1, 2)")
    done = bench.refused("tested", "--test", "Tested")
    assert "tested 1.0: its tests failed (-m unittest: exit status 1)" in done.err
    assert "AssertionError: 1 != 2" in bench.run("log", "2").ok().out
    assert titles(bench) == [("tested", "failed")]
    suite(bench, "print('ran here')", "2.0")
    bench.lives("tested", "--test", "tested")
    assert "ran here" in bench.run("log", "2").ok().out


def test_a_suite_that_never_ends(bench: Bench) -> None:
    """The timeout of the settings ends it; standing tests need no option."""
    suite(bench, "import time; time.sleep(4203)")
    settings(bench, "[tests.tested]\ntimeout = 1\n")
    done = bench.refused("tested")
    assert "tested 1.0: did not end within 1 s" in done.err


@needs_landlock
def test_a_suite_that_writes_beside_its_files(bench: Bench) -> None:
    """Tests that write into their own package fail, and leave nothing in it."""
    suite(bench, "import os; open(os.path.dirname(__file__) + '/x', 'w')")
    assert "PermissionError" in bench.refused("tested", "--test", "tested").err


def test_nothing_to_test(bench: Bench) -> None:
    """A distribution without tests, or one that is not there, is a wrong word: status 2, one clear line."""
    done = bench.refused("demo", "--test", "demo", status=2)
    assert done.err.splitlines()[0] == "siteswap: demo 1.0 installs no tests"
    done = bench.refused("demo", "--test", "absent", status=2)
    assert done.err.splitlines()[0] == "siteswap: absent is not installed: there is nothing to test"
    assert done.err.count("\n") == 2


RUNNER = """
import os, runpy, sys
import helper
paths = [word for word in sys.argv[1:] if os.path.isdir(word)]
print("fake runner", sys.argv[-1])
for path in paths[-1:]:
    for name in sorted(os.listdir(path + "/tests")):
        if name.startswith("test_"):
            for key, value in runpy.run_path(path + "/tests/" + name).items():
                if key.startswith("test_"):
                    value()
"""


def test_what_tests_need_besides_is_seen_only_by_them(bench: Bench) -> None:
    """A runner that the environment does not have is found for the tests, and is not there afterwards."""
    bench.wheel(
        "pytest", "8.0", {"pytest/__init__.py": "", "pytest/__main__.py": RUNNER}, requires=["helper"]
    )
    bench.wheel("helper", files={"helper.py": ""})
    bench.wheel("plugin", files={"plugin.py": "WORD = 'from the plugin'\n"})
    text = "def test_it():\n    import plugin\n    print(plugin.WORD)\n"
    files = {"tested/__init__.py": "", "tested/tests/__init__.py": "", "tested/tests/test_it.py": text}
    bench.wheel("tested", files=files)
    settings(bench, "[tests.tested]\nrequirements = ['plugin']\narguments = ['--word']\n")
    bench.lives("tested")
    out = bench.run("log", "2").ok().out
    assert "fake runner --word" in out
    assert "from the plugin" in out
    assert [item["name"] for item in bench.run("list", "--json").json] == ["tested"]
    assert list(bench.env.rglob("pytest*")) == list(bench.env.rglob("plugin*")) == []
    done = bench.run("check", "--no-index", "--find-links", bench.wheels)
    assert done.status == 0, done.err
    (bench.wheels / "plugin-1.0-py3-none-any.whl").unlink()
    bench.wheel("other")
    done = bench.refused("other")
    assert "what the tests need cannot be had beside what is to be tried" in done.err


@pytest.mark.index
def test_a_real_suite(bench: Bench, siteswap: Siteswap) -> None:
    """A distribution from the index is tried with its own tests by the real pytest, which stays outside."""
    siteswap("install", "-e", bench.env, "toolz", "--test", "toolz").ok()
    assert " passed" in bench.run("log", "2").ok().out
    assert [item["name"] for item in bench.run("list", "--json").json] == ["toolz"]


# -- limits ----------------------------------------------------------------------------------------


def _namespaces() -> bool:
    try:
        with Confinement(Terms((), 0o022, offline=True)) as found:
            return found.run(["true"], env=dict(os.environ), cwd=Path("/"), timeout=20).status == 0
    except SiteswapError:
        return False


def test_offline_checks(bench: Bench) -> None:
    """With --offline-checks, or the setting, nothing outside answers; without, it does."""
    if not _namespaces():
        pytest.skip("this machine allows no network namespaces")
    code = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = f'python -c "{code}" {server.getsockname()[1]}'
        assert "ConnectionRefusedError" in bench.refused("demo", "--check", command, "--offline-checks").err
        settings(bench, "offline-checks = true\n")
        bench.refused("demo", "--check", command)
        (bench.env / "siteswap.toml").unlink()
        bench.lives("demo", "--check", command)


@pytest.fixture
def open_bench(siteswap: Siteswap) -> Iterator[Bench]:
    """An environment that everybody may read, with a cache that everybody may read."""
    root = Path(tempfile.mkdtemp(prefix="siteswap-test-", dir="/tmp"))
    root.chmod(0o755)
    try:
        bench = Bench(siteswap, root)
        bench.wheel("demo", files={"demo/__init__.py": "", "demo/tool.py": "def main(): print('runs')\n"},
                    scripts={"demo": "demo.tool:main"})  # fmt: skip
        siteswap("create", bench.env, "--python", SYSTEM_PYTHON).ok()
        yield bench
    finally:
        shutil.rmtree(root)


SYSTEM_PYTHON = "/usr/bin/python3"


def as_nobody(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user who owns nothing here, by the one interpreter that everybody has."""
    user = pwd.getpwnam("nobody")
    found = [str(Path(module.__file__ or "").parent.parent) for module in (siteswap_package, packaging)]
    start = f"import sys; sys.path[:0] = {found}; from siteswap.cli import main; sys.exit(main())"
    return subprocess.run(
        [SYSTEM_PYTHON, "-I", "-c", start, *map(str, words)], capture_output=True, text=True, check=False,
        user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd="/",
        env={"PATH": os.defpath, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def _others_can_run_it() -> bool:
    """Whether another user can run siteswap at all: its files, and an interpreter new enough."""
    try:
        return as_nobody("--version").returncode == 0
    except (OSError, KeyError):
        return False


needs_nobody = pytest.mark.skipif(not _others_can_run_it(), reason="no other user can run siteswap here")


@needs_nobody
def test_checks_as_another_user(open_bench: Bench) -> None:
    """--check-user has imports and commands run as somebody else, who can write to their scratch only."""
    uid = pwd.getpwnam("nobody").pw_uid
    open_bench.module("who", f"import os\nassert os.getuid() == {uid}, os.getuid()")
    done = open_bench.refused("who", "--check", "true")
    assert "AssertionError: 0" in done.err
    words = ("--check", f"test $(id -u) = {uid}", "--check", "touch $HOME/x", "--check")
    done = open_bench.lives("who", "demo", "--check-user", "nobody", *words, f"! touch {open_bench.root}/x")
    assert done.err == ""
    assert {path.lstat().st_uid for path in generation(open_bench.env).rglob("*")} == {0}
    open_bench.run("check", "--check-user", "nobody").ok()


@needs_nobody
def test_checks_as_somebody_who_may_not_look(open_bench: Bench) -> None:
    """A user who cannot read the environment cannot try it, and the message says so."""
    open_bench.root.chmod(0o700)
    done = open_bench.refused("demo", "--check-user", "nobody", status=5)
    assert "let nobody read the environment, or name another --check-user" in done.err


# -- siteswap check --------------------------------------------------------------------------------


def test_a_sound_generation(bench: Bench) -> None:
    """Status 0 and a row for each check; nothing is written to the generation, byte-code neither."""
    bench.wheel("demo", files={"demo/__init__.py": "from . import more", "demo/more.py": ""})
    bench.lives("demo", "--no-check")
    before = (state(bench.env), sorted(generation(bench.env).rglob("*")))
    done = bench.run("check").ok()
    assert done.out.startswith("generation 2: passed\n")
    names = [line.split("  ")[0] for line in done.out.splitlines()[3:]]
    assert names == ["dependencies", "files", "tags", "entry points", "start-up code", "shared libraries",
                     "imports"]  # fmt: skip
    assert (state(bench.env), sorted(generation(bench.env).rglob("*"))) == before
    bench.nothing_left()


def test_a_damaged_generation(bench: Bench) -> None:
    """Status 1 and what is wrong, for a file that was changed in place; --json has the verdict."""
    bench.wheel("demo", files={"demo/__init__.py": "", "demo/data.txt": "as it was\n"})
    bench.lives("demo")
    (bench.site / "demo/data.txt").write_text("as it wos\n")
    (bench.site / "demo/__init__.py").write_text("1 / 0")
    done = bench.run("check")
    assert done.status == 1
    assert "demo/data.txt does not have the content that RECORD says" in done.err
    assert "demo/__init__.py has 5 bytes where RECORD says 0" in done.err
    assert "import demo fails: ZeroDivisionError" in done.err
    assert "the checks found 3 things wrong in generation 2" in done.err
    (bench.site / "demo/__init__.py").write_text("")
    done = bench.run("check", "--json")
    assert done.status == 1
    found = json.loads(done.out)
    assert (found["generation"], found["base"], found["passed"]) == (2, None, False)
    assert [item["subject"] for row in found["checks"] for item in row["findings"]] == ["demo"]
    assert bench.run("check", "--allow-broken", "demo").status == 1


def test_an_older_generation(bench: Bench) -> None:
    """Any generation or tag can be tried, with commands of one's own; a number that never was is usage."""
    bench.lives("demo")
    bench.module("late", "")
    bench.lives("late")
    done = bench.run("check", "2", "--check", "python -c 'import late'")
    assert done.status == 1
    assert "No module named 'late'" in done.err
    assert bench.run("check", "2", "--check", "python -c 'import demo'").status == 0
    assert bench.run("check", "--check", "python -c 'import late'").status == 0
    siteswap_tag = bench.run("tag", "2", "before")
    assert siteswap_tag.status == 0
    assert bench.run("check", "before", "--json").json["generation"] == 2
    assert bench.run("check", "77").status == 2
    assert bench.run("check", "--test", "absent").status == 2


def test_checks_of_a_generation_write_nothing_in_it(bench: Bench) -> None:
    """Neither imports nor commands can change what is published."""
    bench.lives("demo")
    before = state(bench.env)
    for command in (
        "touch $VIRTUAL_ENV/lib/x",
        "rm $SITESWAP_GENERATION/bin/python",
        "echo > $VIRTUAL_ENV/x",
    ):
        assert bench.run("check", "--check", command).status == 1
    assert state(bench.env) == before


@needs_nobody
def test_check_by_somebody_who_may_only_read(open_bench: Bench) -> None:
    """Who may not write to an environment can try it all the same; only the log is not kept."""
    open_bench.lives("demo")
    before = (state(open_bench.env), sorted((open_bench.env / ".siteswap/log").iterdir()))
    done = as_nobody("check", "-e", open_bench.env, "--check", "demo")
    assert done.returncode == 0, done.stderr
    assert "generation 2: passed" in done.stdout
    assert "the log cannot be kept: Permission denied" in done.stderr
    done = as_nobody("check", "-e", open_bench.env, "--check", "exit 3")
    assert done.returncode == 1
    assert "exit 3: exit status 3" in done.stderr
    assert (state(open_bench.env), sorted((open_bench.env / ".siteswap/log").iterdir())) == before


# -- siteswap log, and JSON ------------------------------------------------------------------------


def test_past_verdicts(bench: Bench) -> None:
    """The list, one by name, by generation and by tag; what is not kept is a wrong word."""
    assert "no verdict is kept yet" in bench.run("log").ok().out
    assert bench.run("log", "--json").json == []
    bench.refused("demo", "--check", "echo the reason; exit 3")
    bench.lives("demo")
    bench.run("check").ok()
    rows = bench.run("log").ok().out.splitlines()[2:]
    assert ["failed" in row for row in rows] == [True, False, False]
    assert "echo the reason; exit 3: exit status 3" in rows[0]
    names = [item["name"] for item in bench.run("log", "--json").json]
    assert [name.partition("-")[0] for name in names] == ["2", "2", "2"]
    first = bench.run("log", names[0]).ok().out
    assert "the reason" in first
    assert "held against 1" in first
    assert "held against nothing" in bench.run("log", "2").ok().out, "the last of that generation"
    assert [item["name"] for item in bench.run("log", names[1], "--json").json] == [names[1]]
    bench.run("tag", "2", "good").ok()
    assert bench.run("log", "good").ok().out == bench.run("log", "2").ok().out
    for word in ("3", "nothing", "../../history", "2-"):
        done = bench.run("log", word)
        assert (done.status, f"no verdict of {word!r} is kept" in done.err) == (2, True)


def test_at_most_twenty_are_kept_and_damage_is_passed_over(bench: Bench) -> None:
    """The oldest go first; files that are no verdicts do no harm."""
    log = bench.env / ".siteswap/log"
    log.mkdir(exist_ok=True)
    for number in range(30):
        for kind in ("json", "txt"):
            (log / f"1-20200101T0000{number:02}.000000Z.{kind}").write_text("{")
    bench.lives("demo")
    assert len(list(log.glob("*.json"))) == len(list(log.glob("*.txt"))) == 20
    kept = bench.run("log", "--json").json
    assert [item["generation"] for item in kept] == [2]
    for damage in (
        b"",
        b"[]",
        b'{"generation": "x", "checks": []}',
        b'{"generation": 1, "checks": {}}',
        b"\xff",
    ):
        (log / "1-20200101T000029.000000Z.json").write_bytes(damage)
        assert [item["generation"] for item in bench.run("log", "--json").json] == [2]
    (log / "1-20200101T000029.000000Z.json").write_text('{"generation": 1, "checks": [{}], "time": 3}')
    assert bench.run("log").status == 0


def test_json_of_an_install(bench: Bench) -> None:
    """stdout is one document with the verdict, whether it went live or not."""
    found = bench.lives("demo", "--json", "--check", "echo noise").json
    assert found["committed"]
    assert found["verdict"]["passed"]
    assert (found["verdict"]["generation"], found["verdict"]["base"]) == (2, 1)
    assert Path(found["verdict"]["log"]).is_file()
    bench.module("failing", "1 / 0")
    done = bench.refused("failing", "--json")
    found = json.loads(done.out)
    assert (found["committed"], found["verdict"]["passed"], found["verdict"]["base"]) == (False, False, 2)
    (finding,) = [item for row in found["verdict"]["checks"] for item in row["findings"]]
    assert (finding["check"], finding["subject"], finding["version"]) == ("imports", "failing", "1.0")
    assert (finding["part"], finding["standing"]) == ("failing", "blocks")
    assert finding["message"] == "import failing fails: ZeroDivisionError: division by zero"
    assert bench.lives("failing", "--json", "--no-check").json["verdict"] is None


# -- what is shown meanwhile -----------------------------------------------------------------------


def on_a_terminal(*words: str | Path) -> tuple[int, str]:
    """Exit status and everything that the command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "siteswap", *map(str, words)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:  # fmt: skip
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            seen += piece
    os.close(ours)
    return process.returncode, seen.decode()


def test_rows_appear_on_a_terminal(bench: Bench) -> None:
    """Each check is shown with its outcome as it ends; in a pipe only what is wrong is said."""
    words = ("install", "-e", bench.env, "--no-index", "-f", bench.wheels, "demo")
    bench.module("failing", "1 / 0")
    status, seen = on_a_terminal(*words, "failing")
    assert status == 1
    rows = {line.split("  ")[0].lstrip("\r"): line for line in seen.replace("\x1b[2K", "").splitlines()}
    for check in ("dependencies", "files", "tags", "entry points", "start-up code", "shared libraries"):
        assert "passed" in next(row for name, row in rows.items() if name.endswith(check)), check
    assert "2 modules and 0 programs of 2 distributions" in seen
    assert "failed" in next(row for name, row in rows.items() if name.endswith("imports"))
    status, seen = on_a_terminal(*words, "--check", "echo '[bold]'")
    assert status == 0
    assert "echo '[bold]'" in seen, "no markup"
    done = bench.install("failing")
    assert done.status == 1
    assert "passed" not in done.err + done.out
    assert "shared libraries" not in done.err
    assert current(bench.env) == 2
