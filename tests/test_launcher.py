"""The launcher, compiled and as a stand-in: however Python is started, the process has one generation."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import STRESS
from handmade import (
    LAUNCHER_SOURCE,
    WAIT,
    Environment,
    Flipping,
    Interpreter,
    clean,
    compile_launcher,
    interpreters,
    last_report,
)
from siteswap import launcher

REPORT = "from pair.report import report; report()"
INTERPRETERS = interpreters()
STARTS = 250 if STRESS else 4
"""How many starts of each kind the flip stress makes: few by default."""

Make = Callable[..., Environment]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A launcher compiled from the source that this package has."""
    return compile_launcher(tmp_path_factory.mktemp("compiled") / "launcher")


@pytest.fixture(scope="session")
def with_libc(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The same with a C library, as it is built for most processors."""
    return compile_launcher(tmp_path_factory.mktemp("with-libc") / "launcher", freestanding=False)


@pytest.fixture(params=["compiled", "stand-in"])
def form(request: pytest.FixtureRequest, compiled: Path | None) -> Path | None:
    """Both forms of the launcher."""
    if request.param == "stand-in":
        return None
    if compiled is None:
        pytest.skip("there is no C compiler")
    return compiled


@pytest.fixture(params=INTERPRETERS, ids=[found.label for found in INTERPRETERS])
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    """Every supported Python that is found."""
    found: Interpreter = request.param
    return found


@pytest.fixture
def env(tmp_path: Path, interpreter: Interpreter, form: Path | None) -> Environment:
    """An environment with generations 1 (current) and 2."""
    return Environment(tmp_path / "env", interpreter, form)


@pytest.fixture(params=["freestanding", "libc", "stand-in"])
def one(
    tmp_path: Path, request: pytest.FixtureRequest, compiled: Path | None, with_libc: Path | None
) -> Environment:
    """The same on one Python only, for what does not depend on its version."""
    program = {"freestanding": compiled, "libc": with_libc, "stand-in": None}[request.param]
    if program is None and request.param != "stand-in":
        pytest.skip("there is no C compiler")
    return Environment(tmp_path / "env", INTERPRETERS[0], program)


# --- every way to start -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [[], ["-I"], ["-E"], ["-s"], ["-X", "utf8"], ["-Xdev", "-Wignore"], ["-bB"]]
)
def test_every_start_form_is_pinned(env: Environment, tmp_path: Path, options: list[str]) -> None:
    """-c, -m, a file, a console script and a script as an argument, under common options."""
    script = tmp_path / "elsewhere.py"
    script.write_text(REPORT)
    for arguments in (
        ["-c", REPORT],
        ["-m", "pair"],
        [script],
        [env.tool],
        [env.generation(2) / "bin" / "tool"],
    ):
        report = env.report(env.python, *options, *arguments)
        assert set(report["seen"]) == {1}
        assert report["prefix"] == report["exec_prefix"] == str(env.generation(1))
        assert report["executable"] == str(env.python)
        assert report["maps"] == [str(env.lease(1))]
        assert not any("lease" in name for name in report["descriptors"])
    assert set(env.report(env.tool)["seen"]) == {1}


def test_safe_path_option(env: Environment) -> None:
    """-P works where Python has it."""
    if env.interpreter.version < (3, 11):
        pytest.skip("no such option")
    assert set(env.report(env.python, "-P", env.tool)["seen"]) == {1}


def test_all_names_of_the_program(env: Environment) -> None:
    """python, python3 and python3.X all start it, and sys.executable keeps the name."""
    for name in ("python", "python3", "python{}.{}".format(*env.interpreter.version)):
        program = env.root / "bin" / name
        assert env.report(program, "-c", REPORT)["executable"] == str(program)


def test_without_site_the_lease_stays_a_descriptor(env: Environment) -> None:
    """With -S no runtime is loaded, and the descriptor keeps the lease to the end."""
    code = "import os; print('ready', flush=True); input(); print(os.readlink('/proc/self/fd/100'))"
    with env.start(env.python, "-S", "-c", code) as process:
        assert env.is_pinned(1)
        assert process.go_on() == f"{env.lease(1)}\n"
    assert not env.is_pinned(1)


@pytest.mark.parametrize("start", ["-c", "-m", "file", "script", "link", "-I"])
def test_a_running_process_keeps_its_generation(env: Environment, tmp_path: Path, start: str) -> None:
    """What a process imports late, after a flip, is of the generation it began with."""
    file = tmp_path / "file.py"
    file.write_text(WAIT)
    link = tmp_path / "link"
    link.symlink_to(env.tool)
    (env.packages(1) / "waiting.py").write_text(WAIT)
    commands: dict[str, list[str | Path]] = {
        "-c": [env.python, "-c", WAIT],
        "-m": [env.python, "-m", "waiting"],
        "file": [env.python, file],
        "script": [env.tool, "--wait"],
        "link": [link, "--wait"],
        "-I": [env.python, "-I", "-c", WAIT],
    }
    with env.start(*commands[start]) as process:
        env.flip(2)
        assert env.is_pinned(1)
        with pytest.raises(BlockingIOError):
            env.collect(1)
        assert set(process.report()["seen"]) == {1}
    assert not env.is_pinned(1)
    env.collect(1)
    assert set(env.report(env.python, "-c", REPORT)["seen"]) == {2}


def test_relative_paths(env: Environment, tmp_path: Path) -> None:
    """A relative program, a relative script and a relative entry of PATH work."""
    for command, directory in (
        (["bin/python", "-c", REPORT], env.root),
        (["./python", "tool"], env.root / "bin"),
        (["../env/bin/python", "bin/../bin/./tool"], env.root),
        (["./tool"], env.root / "bin"),
    ):
        report = env.report(*command, cwd=directory)
        assert set(report["seen"]) == {1}
        assert report["executable"] == str(env.python)
    for path, directory in (
        ("bin:/nowhere", env.root),
        ("", env.root / "bin"),
        (str(env.python.parent), tmp_path),
    ):
        variables = clean(PATH=path + ":" + os.environ["PATH"])
        report = env.report("/bin/sh", "-c", "exec python -m pair", cwd=directory, env=variables)
        assert report["executable"] == str(env.python)
        report = env.report("/bin/sh", "-c", "exec tool", cwd=directory, env=variables)
        assert report["file"] == str(env.generation(1) / "bin" / "tool")


def test_an_environment_reached_by_a_link(env: Environment, tmp_path: Path) -> None:
    """Links to the environment, to its bin directory and to its programs lead to the same place."""
    (tmp_path / "by-link").symlink_to("env")
    (tmp_path / "bin").symlink_to("by-link/bin")
    (tmp_path / "py").symlink_to("by-link/bin/python")
    (tmp_path / "script").symlink_to("bin/tool")
    for command in (
        ["by-link/bin/python", "by-link/bin/tool"],
        ["bin/python", "bin/tool"],
        ["py", "script"],
        ["py", "--", "script"],
        ["py", "--check-hash-based-pycs", "default", "-X", "utf8", "-W", "ignore", "script"],
    ):
        program, *arguments = command
        report = env.report(tmp_path / program, *arguments, cwd=tmp_path)
        assert report["seen"] == [1] * 4
        assert report["prefix"] == str(env.generation(1))
        assert report["argv"] == [str(env.tool)]
        assert report["file"] == str(env.generation(1) / "bin" / "tool")


def test_arguments_that_are_no_script_are_left_alone(one: Environment, tmp_path: Path) -> None:
    """Only the script argument is replaced: not what follows it, nor what follows -c and -m."""
    code = "import sys, json; print(json.dumps(sys.argv))"
    file = tmp_path / "print.py"
    file.write_text(code)
    tool = str(one.tool)
    for arguments, expected in (
        (["-c", code, tool], ["-c", tool]),
        (["-Bc", code, tool], ["-c", tool]),
        ([f"-c{code}", tool], ["-c", tool]),
        ([str(file), tool, "-c"], [str(file), tool, "-c"]),
        (["-W", "ignore", str(file), tool, ""], [str(file), tool, ""]),
    ):
        assert json.loads(one.run(one.python, *arguments).stdout) == expected
    done = one.run(one.python, "-", tool, input=code)
    assert json.loads(done.stdout) == ["-", tool]
    done = one.run(one.python, input=f"print({tool!r})")
    assert done.stdout == tool + "\n"


def test_strange_bytes_pass_through(one: Environment) -> None:
    """Arguments and variables that are no text arrive as they are."""
    code = b"import os, sys; sys.stdout.buffer.write(os.fsencode(sys.argv[1]) + os.environb[b'ODD'])"
    done = subprocess.run(
        [os.fsencode(one.python), b"-c", code, b"\xff '\n\""],
        env={**{os.fsencode(k): os.fsencode(v) for k, v in clean().items()}, b"ODD": b"\xfe\n"},
        capture_output=True,
    )
    assert done.stdout == b"\xff '\n\"\xfe\n", done


def test_script_rule_without_the_file_in_this_generation(one: Environment) -> None:
    """A script that only another generation has is not found, rather than taken from there."""
    one.flip(2)
    with one.start(one.python, "-S", "-c", "print('ready'); import sys; sys.stdout.flush(); input()"):
        (one.generation(1) / "bin" / "tool").unlink()
        one.flip(1)
        done = one.run(one.generation(1) / "bin" / "python", one.generation(2) / "bin" / "tool")
    assert done.returncode == 2
    assert "can't open file" in done.stderr


def test_a_module_directory_as_a_script(one: Environment) -> None:
    """A directory below lib, in a generation or by the logical path, is this generation's."""
    for number, form in ((1, "pair/"), (2, "pair")):
        there = one.packages(2).relative_to(one.generation(2))
        for root in (one.root, one.generation(number)):
            done = one.run(one.python, "-c", "pass", cwd=root)
            assert done.returncode == 0
            report = one.report(
                one.python, f"{root / there}/{form}", env=clean(PYTHONPATH=str(one.packages(1)))
            )
            assert report["seen"] == [1] * 3
            assert report["file"].startswith(str(one.generation(1)))


def test_no_arguments_at_all(one: Environment) -> None:
    """An empty argument vector, which execve allows, starts an interpreter that reads standard input."""
    code = (
        "import ctypes, os, sys; "
        "ctypes.CDLL(None).execv(os.fsencode(sys.argv[1]), (ctypes.c_char_p * 1)(None))"
    )
    done = one.run(sys.executable, "-c", code, one.python, input="import sys; print(sys.prefix)")
    assert done.stdout == f"{one.generation(1)}\n", done


def test_started_by_descriptor(one: Environment) -> None:
    """fexecve of the program and of a script works."""
    code = "import os, sys; os.execve(int(sys.argv[1]), sys.argv[2:], os.environ)"
    commands: list[list[str | Path]] = [[one.python, "-c", REPORT], [one.tool]]
    for command in commands:
        fd = os.open(command[0], os.O_RDONLY)
        try:
            done = one.run(sys.executable, "-c", code, str(fd), *command, pass_fds=[fd])
        finally:
            os.close(fd)
        assert set(last_report(done.stdout)["seen"]) == {1}, done


@pytest.mark.parametrize("name", ["with space", "new\nline", "quo'te", "dollar$HOME", "x" * 200])
def test_strange_directories(tmp_path: Path, form: Path | None, name: str) -> None:
    """Spaces, newlines, quotes and great length in the environment's path do no harm."""
    root = tmp_path / name / ("y" * 100 if len(name) > 100 else "env")
    env = Environment(root, INTERPRETERS[0], form)
    assert env.report(env.python, "-c", REPORT)["executable"] == str(env.python)
    assert env.report(env.python, env.tool)["seen"] == [1] * 4
    if "$" not in name:  # that would be for the writer of the script to quote
        assert env.report(env.tool)["seen"] == [1] * 4


def test_a_low_limit_on_descriptors(one: Environment) -> None:
    """Where numbers from 100 on are not allowed the lease takes another one, never a standard stream."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    report = one.report(one.python, "-c", REPORT, preexec_fn=limit)
    assert report["maps"] == [str(one.lease(1))]
    assert not any("lease" in name for name in report["descriptors"])
    code = "import os; print([n for n in range(3) if os.path.exists(f'/proc/self/fd/{n}')])"
    done = one.run("/bin/sh", "-c", f'exec "{one.python}" -S -c "{code}" 0<&-', preexec_fn=limit)
    assert done.stdout == "[1, 2]\n", done


# --- virtual environments made from it --------------------------------------------------------------------


def test_a_foreign_environment_keeps_its_own_prefix(env: Environment, tmp_path: Path) -> None:
    """A virtual environment whose python is a link to ours, as virtualenv makes them, is itself."""
    foreign = tmp_path / "foreign"
    (foreign / "bin").mkdir(parents=True)
    (foreign / "pyvenv.cfg").write_text((env.root / "pyvenv.cfg").read_text())
    (foreign / "bin" / "python").symlink_to(env.python)
    script = foreign / "bin" / "script"
    script.write_text(f"#!{foreign}/bin/python\nimport sys; print(sys.prefix)\n")
    script.chmod(0o755)
    show = "import sys; print(sys.prefix)"
    assert env.run(foreign / "bin" / "python", "-c", show).stdout == f"{foreign}\n"
    assert env.run("bin/python", "-c", show, cwd=foreign).stdout == f"{foreign}\n"
    assert env.run(script).stdout == f"{foreign}\n"
    variables = clean(PATH=f"{foreign}/bin:" + os.environ["PATH"])
    assert env.run("/bin/sh", "-c", f"exec python -c '{show}'", env=variables).stdout == f"{foreign}\n"


def test_a_nested_venv_is_one_of_the_base(env: Environment, tmp_path: Path) -> None:
    """`python -m venv` inside makes an environment of the base interpreter, with a prefix of its own."""
    done = env.run(env.python, "-m", "venv", "--without-pip", tmp_path / "nested")
    assert done.returncode == 0, done
    python = tmp_path / "nested" / "bin" / "python"
    assert not python.resolve().is_relative_to(env.root)
    done = env.run(python, "-c", "import sys; print(sys.prefix, sys.base_prefix)")
    base = env.run(env.interpreter.executable, "-c", "import sys; print(sys.base_prefix)").stdout
    assert done.stdout == f"{tmp_path / 'nested'} {base}"


# --- a generation on order --------------------------------------------------------------------------------


def test_handed_over_to_a_generation(env: Environment, tmp_path: Path) -> None:
    """SITESWAP_GENERATION pins to that generation, with all paths physical, however it is spelt."""
    (tmp_path / "by-link").symlink_to("env")
    for root in (env.root, tmp_path / "by-link"):
        wanted = clean(SITESWAP_GENERATION=f"{root}/.siteswap/generations/2")
        for command in ([env.python, "-c", REPORT], [env.tool], [env.python, env.tool]):
            report = env.report(*command, env=wanted)
            assert set(report["seen"]) == {2}
            assert report["prefix"] == str(env.generation(2))
            assert report["executable"] == str(env.generation(2) / "bin" / "python")
            assert report["maps"] == [str(env.lease(2))]
    assert report["argv"] == [str(env.generation(2) / "bin" / "tool")]


def test_another_environments_generation_is_not_ours(one: Environment, tmp_path: Path) -> None:
    """SITESWAP_GENERATION of another environment, or of none, is ignored."""
    other = Environment(tmp_path / "other", one.interpreter, one.program)
    for text in (other.generation(2), "/nowhere/.siteswap/generations/2", "", "2", f"{one.generation(2)}/x"):
        assert (
            one.report(one.python, "-c", REPORT, env=clean(SITESWAP_GENERATION=str(text)))["seen"] == [1] * 3
        )


def test_a_collected_generation_cannot_be_ordered(one: Environment) -> None:
    """The refusal names the generation and a next step; no other generation is taken instead."""
    one.collect(2)
    done = one.run(one.python, "-c", REPORT, env=clean(SITESWAP_GENERATION=str(one.generation(2))))
    assert done.returncode == 126
    assert done.stderr.startswith("siteswap: generation 2, which SITESWAP_GENERATION asks for, was collected")
    assert "siteswap history" in done.stderr


# --- collected in between ---------------------------------------------------------------------------------


def test_started_from_a_collected_generation(env: Environment) -> None:
    """A launcher that finds itself moved away starts over with what is current."""
    env.flip(2)
    away = env.collect(1)
    assert env.report(away / "bin" / "python", "-c", REPORT)["seen"] == [2] * 3
    assert (
        env.report(env.generation(1) / "bin" / "python", env.generation(1) / "bin" / "tool")["seen"]
        == [2] * 4
    )
    gone = env.home / "staging" / "gone"
    away.rename(gone)
    assert env.report(gone / "bin" / "python", "-c", REPORT)["seen"] == [2] * 3


def test_started_from_a_file_that_was_removed(compiled: Path | None, tmp_path: Path) -> None:
    """A launcher that the kernel calls deleted starts over too."""
    if compiled is None:
        pytest.skip("there is no C compiler")
    env = Environment(tmp_path / "env", INTERPRETERS[0], compiled)
    old = env.generation(1) / "bin" / "python3"
    fd = os.open(old, os.O_RDONLY)
    try:
        env.flip(2)
        old.unlink()
        code = "import os, sys; os.execve(int(sys.argv[1]), ['python', '-c', sys.argv[2]], os.environ)"
        report = last_report(env.run(sys.executable, "-c", code, str(fd), REPORT, pass_fds=[fd]).stdout)
    finally:
        os.close(fd)
    assert report["seen"] == [2] * 3
    assert report["executable"] == str(env.root / "bin" / "python3")


def test_waits_for_a_collector_and_starts_over(env: Environment) -> None:
    """While a collector holds the lease exclusively nobody is pinned to that generation."""
    with env.lease(1).open() as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        process = subprocess.Popen([env.python, "-c", REPORT], stdout=subprocess.PIPE, text=True, env=clean())
        time.sleep(0.2)
        assert process.poll() is None
        env.flip(2)
        output, _ = process.communicate(timeout=60)
    assert last_report(output)["seen"] == [2] * 3


def test_a_collector_that_changes_its_mind(one: Environment) -> None:
    """A collector that lets go without removing anything only delays a start."""
    with one.lease(1).open() as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        timer = threading.Timer(0.3, fcntl.flock, (os.dup(lease.fileno()), fcntl.LOCK_UN))
        timer.start()
        assert one.report(one.python, "-c", REPORT)["seen"] == [1] * 3
        timer.join()


def test_a_lease_that_moved_to_another_generation(one: Environment) -> None:
    """A tombstone is never taken for a generation, although a lease can be seen through it."""
    one.flip(2)
    one.collect(1)
    report = one.report(one.generation(1) / "bin" / "python", "-c", REPORT)
    assert report["maps"] == [str(one.lease(2))]
    assert report["prefix"] == str(one.generation(2))


@pytest.mark.parametrize("rule", ["kept", "taken out"])
def test_a_directory_that_was_recycled_is_not_the_generation_it_was(tmp_path: Path, rule: str) -> None:
    """A start that is held up until its directory is a candidate goes to what is current.

    The launcher is made to wait before its first step; without the rule that
    what was started by the logical path must be current, it takes the candidate.
    """
    first_step = "    if (read_link(SELF, self) < 0"
    look = "            if (!strcmp(current, gen))\n"
    source = LAUNCHER_SOURCE.read_text()
    assert source.count(first_step) == source.count(look) == 1
    source = source.replace(
        first_step, f"    while (access(environ[0] + 3, F_OK)) usleep(1000);\n{first_step}"
    )
    if rule == "taken out":
        source = source.replace(look, "")
    slow = compile_launcher(tmp_path / "slow", source, freestanding=False)
    if slow is None:
        pytest.skip("there is no C compiler")
    env = Environment(tmp_path / "env", INTERPRETERS[0], slow)
    go = tmp_path / "go"
    process = subprocess.Popen(
        [env.python, "-c", REPORT], stdout=subprocess.PIPE, text=True, env={"GO": str(go)}
    )
    while Path(f"/proc/{process.pid}/exe").readlink().parent != env.generation(1) / "bin":
        time.sleep(0.001)
    env.flip(2)
    candidate = env.generation(3)
    env.collect(1).rename(candidate)
    (candidate / ".generation" / "lease").unlink()
    (candidate / ".generation" / "lease").write_text("generation 3\n")
    go.touch()
    output, _ = process.communicate(timeout=60)
    assert last_report(output)["prefix"] == str(env.generation(2) if rule == "kept" else candidate)


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_base_interpreter_that_is_gone(one: Environment, tmp_path: Path) -> None:
    """The refusal names the interpreter and a next step, with the exit status a shell would give."""
    missing = Interpreter(tmp_path / "gone" / "python3", one.interpreter.version)
    env = Environment(tmp_path / "second", missing, one.program)
    done = env.run(env.python, "-c", REPORT)
    assert done.returncode == 127
    assert done.stderr.startswith(f"siteswap: cannot start the base interpreter {missing.executable} of ")
    assert done.stderr.endswith("no such file; next step: install that Python again, or siteswap create\n")
    missing.executable.parent.mkdir()
    missing.executable.write_text("")
    done = env.run(env.python, "-c", REPORT)
    assert done.returncode == 126
    assert done.stderr.endswith(
        "permission denied; next step: install that Python again, or siteswap create\n"
    )


def test_no_current_generation(one: Environment) -> None:
    """Where nothing can be pinned nothing is started."""
    away = one.collect(1)
    (one.home / "current").unlink()
    done = one.run(away / "bin" / "python", "-c", REPORT)
    assert done.returncode == 126
    assert done.stderr.startswith("siteswap: cannot read ")
    (one.home / "current").symlink_to("elsewhere")
    done = one.run(away / "bin" / "python", "-c", REPORT)
    assert "names no generation" in done.stderr


def test_a_launcher_outside_of_any_environment(compiled: Path | None) -> None:
    """A copy of the program somewhere else refuses."""
    if compiled is None:
        pytest.skip("there is no C compiler")
    done = subprocess.run([compiled, "-c", "pass"], capture_output=True, text=True)
    assert done.returncode == 126
    assert (
        done.stderr
        == f"siteswap: {compiled} is a launcher outside of any environment; next step: siteswap create\n"
    )


def test_the_packaged_program() -> None:
    """What the package offers as its program runs; a package without one offers none."""
    program = launcher.binary()
    assert program is None or os.access(program, os.X_OK)


def test_the_build_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: Path | None) -> None:
    """The hook makes a program that runs, or says why there is none."""
    pytest.importorskip("hatchling")
    hook = Path(__file__).parent.parent / "hatch_build.py"
    if compiled is None or not hook.exists():
        pytest.skip("nothing to build with")
    namespace = runpy.run_path(str(hook))
    target = tmp_path / "launcher"
    assert namespace["compile_launcher"](LAUNCHER_SOURCE, target) == []
    assert namespace["runs"](target)
    assert namespace["platform_tag"]().startswith("linux_")
    for compiler in ("false", "/nowhere/cc"):
        monkeypatch.setenv("CC", compiler)
        assert compiler in namespace["compile_launcher"](LAUNCHER_SOURCE, target)[0]
        assert not target.exists()


def test_stand_in_refuses_relative_paths() -> None:
    """A text that would mean another file in every directory is never made."""
    for generation, base in (("env/1", "/usr/bin/python3"), ("/env/1", "python3"), ("/env\0", "/python3")):
        with pytest.raises(ValueError, match="not an absolute path"):
            launcher.stand_in(generation, base)


# --- the proof: a flip in a tight loop --------------------------------------------------------------------


def _commands(env: Environment, file: Path) -> dict[str, list[str | Path]]:
    return {
        "-c": [env.python, "-c", REPORT],
        "-m": [env.python, "-m", "pair"],
        "file": [env.python, file],
        "isolated": [env.python, "-I", "-c", REPORT],
        "script": [env.tool],
        "script as argument": [env.python, env.tool],
    }


def _outcomes(env: Environment, commands: dict[str, list[str | Path]], starts: int) -> Iterator[str]:
    """Starts of every kind, in turn: "1" or "2" for a process that saw only that one, else what happened."""
    for _ in range(starts):
        for kind, command in commands.items():
            done = env.run(*command)
            if done.returncode or done.stderr:
                yield f"{kind}: failed: {done.stderr[-300:]}"
                continue
            report = last_report(done.stdout)
            seen = {*map(str, report["seen"]), Path(report["prefix"]).name}
            yield min(seen) if len(seen) == 1 else f"{kind}: mixed: {report['seen']} under {report['prefix']}"


def test_no_start_sees_two_generations(env: Environment, tmp_path: Path) -> None:
    """While `current` flips as fast as it can, every process starts, and sees one generation."""
    file = tmp_path / "file.py"
    file.write_text(REPORT)
    with Flipping(env):
        outcomes = list(_outcomes(env, _commands(env, file), STARTS))
    wrong = [outcome for outcome in outcomes if outcome not in ("1", "2")]
    assert not wrong, f"{len(wrong)} of {len(outcomes)}: {wrong[:5]}"
    assert set(outcomes) == {"1", "2"}, "nothing was flipped"


def test_the_stress_finds_a_launcher_without_the_script_rule(compiled: Path | None, tmp_path: Path) -> None:
    """The stress is able to fail: it does so when console scripts are opened by their logical path."""
    if compiled is None:
        pytest.skip("there is no C compiler")
    rule = "            argv[index] = script;\n"
    source = LAUNCHER_SOURCE.read_text()
    assert source.count(rule) == 1
    broken = compile_launcher(tmp_path / "broken", source.replace(rule, "            ;\n"))
    env = Environment(tmp_path / "env", INTERPRETERS[0], broken)
    with Flipping(env):
        assert any(outcome not in ("1", "2") for outcome in _outcomes(env, {"script": [env.tool]}, 400))


def test_the_stress_finds_plain_links(tmp_path: Path) -> None:
    """The stress is able to fail: it does so when `bin/python` is a link, as in an ordinary venv."""
    env = Environment(tmp_path / "env", INTERPRETERS[0], plain=True)
    with Flipping(env):
        assert any(
            outcome not in ("1", "2") for outcome in _outcomes(env, {"-c": [env.python, "-c", REPORT]}, 400)
        )


def test_no_start_is_lost_while_generations_are_collected(one: Environment) -> None:
    """While generations are made, published and collected at once, every start finds one, whole."""
    done = threading.Event()
    collected = []

    def churn() -> None:
        number = 2
        while not done.is_set():
            one.flip(number)
            for old in one.numbers[:-1]:
                try:
                    shutil.rmtree(one.collect(old))
                except BlockingIOError:
                    continue  # in use: next time
                one.numbers.remove(old)
                collected.append(old)
            number += 1
            one.add(number)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(STARTS * 3):
            finished = one.run(one.python, "-m", "pair")
            assert finished.returncode == 0, finished
            assert len(set(last_report(finished.stdout)["seen"])) == 1
    finally:
        done.set()
        thread.join()
    assert collected
