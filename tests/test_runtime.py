"""The runtime: what it makes of a process that the launcher has pinned, or that came past the launcher."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from handmade import WAIT, Environment, Interpreter, clean, compile_launcher, interpreters, last_report
from siteswap import runtime

REPORT = "from pair.report import report; report()"
INTERPRETERS = interpreters()
SHOW = "import json, sys; print(json.dumps({}))"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A compiled launcher, or None (the stand-in) where there is no compiler."""
    return compile_launcher(tmp_path_factory.mktemp("compiled") / "launcher")


@pytest.fixture(params=INTERPRETERS, ids=[found.label for found in INTERPRETERS])
def env(tmp_path: Path, request: pytest.FixtureRequest, program: Path | None) -> Environment:
    """An environment on every Python."""
    found: Interpreter = request.param
    return Environment(tmp_path / "env", found, program)


@pytest.fixture
def one(tmp_path: Path, program: Path | None) -> Environment:
    """An environment on one Python, for what does not depend on its version."""
    return Environment(tmp_path / "env", INTERPRETERS[0], program)


def show(where: Environment, expression: str, *before: str, **options: Any) -> Any:
    """The value of an expression in a process of the environment."""
    done = where.run(where.python, *before, "-c", SHOW.format(expression), **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


# --- the files --------------------------------------------------------------------------------------------


def test_startup_file_is_of_one_kind_only() -> None:
    """A .pth file up to Python 3.17 and a .start file from 3.18 on."""
    for version in ((3, 9), (3, 13), (3, 17)):
        assert runtime.startup_file(version) == ("00-siteswap.pth", "import _siteswap; _siteswap.start()\n")
    for version in ((3, 18), (3, 19), (4, 0)):
        assert runtime.startup_file(version) == ("00-siteswap.start", "_siteswap:start\n")


def test_runtime_is_written_for_the_oldest_python() -> None:
    """The source parses as Python 3.9, and at the top imports nothing but os and sys."""
    for text in runtime.sources().values():
        ast.parse(text, feature_version=(3, 9))
    tree = ast.parse(runtime.sources()["_siteswap.py"], feature_version=(3, 9))
    assert [name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names] == [
        "os",
        "sys",
    ]
    assert not any(isinstance(node, ast.ImportFrom) for node in tree.body)


def test_start_up_imports_little(env: Environment) -> None:
    """Only mmap is imported on the way of an ordinary start."""
    (env.packages(1) / "00-a.pth").write_text("import sys; vars(sys).setdefault('before', {*sys.modules})\n")
    (env.packages(1) / "00-t.pth").write_text("import sys; vars(sys).setdefault('after', {*sys.modules})\n")
    assert show(env, "sorted(sys.after - sys.before)") == ["_siteswap", "mmap"]


# --- the lease --------------------------------------------------------------------------------------------


def test_the_public_face(env: Environment) -> None:
    """Three names say where the process is."""
    expression = "(lambda s: [s.generation, s.prefix, s.environment])(__import__('_siteswap'))"
    assert show(env, expression) == [1, str(env.generation(1)), str(env.root)]


def test_the_lease_survives_programs_that_close_everything(env: Environment) -> None:
    """Daemons close all descriptors; the mapping keeps the lock."""
    code = "import os; os.closerange(3, 4096); print('ready', flush=True); input()"
    with env.start(env.python, "-c", code):
        assert env.is_pinned(1)
    assert not env.is_pinned(1)


def test_the_lease_follows_fork_and_ends_with_exit(env: Environment) -> None:
    """A forked child keeps the generation after its parent is gone."""
    code = (
        "import os, sys\nif os.fork():\n os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\n"
        "sys.stdin.readline(); import pair.late; print(pair.late.NUMBER)"
    )
    process = subprocess.Popen(
        [env.python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean()
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.wait(60) == 0
        assert env.is_pinned(1)
        env.flip(2)
        assert process.communicate("\n", timeout=60)[0] == "1\n"
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    # The pipe closes a moment before the mapping goes, and a process of another parent cannot be waited for.
    deadline = time.monotonic() + 60
    while env.is_pinned(1):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_exec_releases_the_lease_and_starts_afresh(env: Environment) -> None:
    """After an exec of sys.executable the process is in the generation that is current then."""
    again = f"import os, sys; os.execv(sys.executable, [sys.executable, '-c', {WAIT!r}])"
    with env.start(env.python, "-c", f"print('ready', flush=True); input(); {again}") as process:
        env.flip(2)
        process.answer("ready\n")
        assert env.is_pinned(2)
        assert not env.is_pinned(1)
        assert process.report()["seen"] == [2] * 3


def test_the_number_that_mmap_duplicated_is_never_closed_again(env: Environment) -> None:
    """At the end of the process nobody's descriptor is closed by a mapping that once had its number."""
    code = (
        "import os, sys\nr, w = os.pipe()\n"
        "for _ in range(20): os.dup(w)\n"
        "os.set_inheritable(w, True)\n"
        "import _siteswap\ndel _siteswap._mapping\ndel sys.modules['_siteswap']\n"
        "import gc; gc.collect()\n"
        "for n in range(3, 20): os.fstat(n)\n"
        "print(any('lease' in line for line in open('/proc/self/maps')))"
    )
    done = env.run(env.python, "-c", code)
    assert (done.stdout, done.stderr) == ("True\n", ""), done


def test_the_descriptor_is_found_among_others(env: Environment) -> None:
    """Descriptors from 100 on that were inherited are left alone, and the lease's is found behind them."""
    fds = [os.open("/dev/null", os.O_RDONLY)]
    try:
        for number in range(100, 104):
            os.dup2(fds[0], number)
            fds.append(number)
        report = env.report(env.python, "-c", REPORT, pass_fds=fds[1:])
    finally:
        for fd in fds:
            os.close(fd)
    assert report["maps"] == [str(env.lease(1))]
    assert not any("lease" in name for name in report["descriptors"])
    assert report["descriptors"].count("/dev/null") >= 4


# --- what the process says about itself -------------------------------------------------------------------


def test_base_executable_is_the_base(env: Environment) -> None:
    """As in Python 3.11 and newer, on all."""
    assert show(env, "sys._base_executable") == str(env.interpreter.executable)


def test_what_is_written_down_is_logical(env: Environment) -> None:
    """The names in sys are of the environment; those that are opened are of the generation."""
    report = env.report(env.tool, "word")
    assert report["executable"] == str(env.python)
    assert report["argv"] == [str(env.tool), "word"]
    if env.interpreter.version >= (3, 10):
        assert report["orig_argv"] == [str(env.python), str(env.tool), "word"]
    assert report["prefix"] == report["exec_prefix"] == str(env.generation(1))
    assert report["file"] == str(env.generation(1) / "bin" / "tool")
    assert report["path"][0] == str(env.generation(1) / "bin")


def test_started_afresh_means_current(env: Environment) -> None:
    """`subprocess` with sys.executable gets the new generation after a flip."""
    code = f"""if 1:
        import subprocess, sys
        print("ready", flush=True); input()
        import pair; print(pair.NUMBER, flush=True)
        subprocess.run([sys.executable, "-c", {REPORT!r}])
    """
    with env.start(env.python, "-c", code) as process:
        env.flip(2)
        output = process.go_on()
    assert output.startswith("1\n")
    assert last_report(output)["seen"] == [2] * 3


# --- children that exchange live objects ------------------------------------------------------------------

_WORKERS = """
import sys
sys.path.insert(0, {directory!r})
from work import seen
if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context({method!r})
    import pair
    print("ready", flush=True); sys.stdin.readline()
    with context.Pool(2) as pool:
        found = pool.map(seen, range(4))
    from multiprocessing import resource_tracker
    print(found, multiprocessing.get_context({method!r}).get_start_method())
"""
_WORK = """
def seen(_):
    import sys
    from pair import NUMBER, late
    from importlib.metadata import version
    return NUMBER, late.NUMBER, int(version("pair")), sys.executable.count("generations")
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_multiprocessing_workers_match_their_parent(env: Environment, tmp_path: Path, method: str) -> None:
    """Workers made after a flip see what their parent sees."""
    (tmp_path / "work.py").write_text(_WORK)
    script = tmp_path / "workers.py"
    script.write_text(_WORKERS.format(directory=str(tmp_path), method=method))
    with env.start(env.python, script) as process:
        env.flip(2)
        assert process.go_on() == f"{[(1, 1, 1, 0)] * 4} {method}\n"


def test_the_modules_that_start_workers_look_untouched(env: Environment) -> None:
    """The spec, the loader, a reload, pickling and inspect see an ordinary module."""
    code = f"""if 1:
        import importlib, importlib.util, inspect, pickle, sys
        assert "multiprocessing" not in sys.modules
        assert importlib.util.find_spec("multiprocessing.spawn").loader.name == "multiprocessing.spawn"
        import multiprocessing.spawn as spawn
        from os import fsdecode
        physical = {str(env.generation(1) / "bin" / "python")!r}
        assert fsdecode(spawn.get_executable()) == physical
        loader = spawn.__spec__.loader
        assert type(loader) is type(inspect.__spec__.loader) or "Frozen" in repr(inspect.__spec__)
        assert "exec_module" not in vars(loader) and spawn.__loader__ is loader
        assert vars(loader).keys() == vars(importlib.util.find_spec("json.tool").loader).keys()
        assert "def get_executable" in inspect.getsource(spawn)
        assert pickle.loads(pickle.dumps(spawn.get_executable)) is spawn.get_executable
        importlib.reload(spawn)
        assert fsdecode(spawn.get_executable()) == physical
        assert "exec_module" not in vars(spawn.__spec__.loader)
        spawn.set_executable("/chosen")
        assert fsdecode(spawn.get_executable()) == "/chosen"
        import multiprocessing
        multiprocessing.get_context("spawn").set_executable("/other")
        assert fsdecode(spawn.get_executable()) == "/other"
    """
    done = env.run(env.python, "-c", code)
    assert done.returncode == 0, done.stderr


def test_an_executable_chosen_before_is_respected(one: Environment) -> None:
    """Whoever sets sys.executable before multiprocessing is imported meant it."""
    code = "import multiprocessing.spawn as spawn; print(os.fsdecode(spawn.get_executable()))"
    done = one.run(one.python, "-c", f"import os, sys; sys.executable = '/chosen'; {code}")
    assert done.stdout == "/chosen\n", done


def test_loky_starts_its_workers_here(one: Environment) -> None:
    """A module that looks at sys.executable itself gets the generation's, and all else of sys unchanged."""
    backend = one.packages(1) / "loky" / "backend"
    backend.mkdir(parents=True)
    (backend / "__init__.py").write_text("")
    (backend / "spawn.py").write_text("import sys\n_python_exe = sys.executable\n")
    (backend / "popen_loky_posix.py").write_text(
        "import sys\ndef command(): return [sys.executable, sys.argv]\n"
    )
    code = (
        "import sys; from loky.backend import spawn, popen_loky_posix as popen\n"
        "print(spawn._python_exe, *popen.command()); sys.executable = '/chosen'; print(popen.command()[0])"
    )
    physical = one.generation(1) / "bin" / "python"
    assert one.run(one.python, "-c", code).stdout == f"{physical} {physical} ['-c']\n/chosen\n"


def test_a_pinned_tree_needs_no_matching(one: Environment) -> None:
    """Under SITESWAP_GENERATION every path is physical already, in children too."""
    wanted = clean(SITESWAP_GENERATION=str(one.generation(2)))
    expression = "[sys.executable, '_siteswap' in [getattr(f, '__name__', '') for f in sys.meta_path]]"
    assert show(one, expression, env=wanted) == [str(one.generation(2) / "bin" / "python"), False]


# --- ways in that skip the launcher -----------------------------------------------------------------------


def test_embedding_with_the_environments_program_name(env: Environment) -> None:
    """The base interpreter under the name ENV/bin/python, as embedding programs have it, gets pinned."""
    (env.packages(1) / "zz-later.pth").write_text("later\n")
    (env.packages(1) / "later").mkdir()
    code = "import os, sys; os.execv(sys.argv[1], [sys.argv[2], '-c', sys.argv[3]])"
    command: list[str | Path] = [sys.executable, "-c", code, env.interpreter.executable, env.python]
    with env.start(*command, WAIT) as process:
        assert env.is_pinned(1)
        env.flip(2)
        report = process.report()
    assert report["seen"] == [1] * 3
    assert report["prefix"] == report["exec_prefix"] == str(env.generation(1))
    assert report["executable"] == str(env.python)
    assert report["maps"] == [str(env.lease(1))]
    assert str(env.packages(1)) in report["path"]
    assert str(env.packages(1) / "later") in report["path"]
    assert not any(path.startswith(f"{env.root}/lib") for path in report["path"])
    assert not any("lease" in name for name in report["descriptors"])


def test_a_site_directory_added_from_outside(env: Environment, tmp_path: Path) -> None:
    """site.addsitedir() of the logical path pins the process; its own prefix stays what it is."""
    (tmp_path / "by-link").symlink_to("env")
    for root in (env.root, tmp_path / "by-link"):
        env.flip(1)
        packages = root / env.packages(1).relative_to(env.generation(1))
        code = f"import sys, site; before = sys.prefix; site.addsitedir({str(packages)!r}); {WAIT}"
        with env.start(env.interpreter.executable, "-I", "-c", code) as process:
            assert env.is_pinned(1)
            env.flip(2)
            report = process.report()
        assert report["seen"] == [1] * 3
        assert report["maps"] == [str(env.lease(1))]
        assert not report["prefix"].startswith(str(env.root))
        assert str(env.packages(1)) in report["path"]


def test_a_lease_that_was_closed_on_the_way_is_taken_again(env: Environment) -> None:
    """Without the launcher's descriptor, the runtime locks the lease of the generation itself."""
    gen = env.generation(1)
    code = "import os, sys; os.execv(sys.argv[1], [sys.argv[2], '-c', sys.argv[3]])"
    command: list[str | Path] = [
        sys.executable,
        "-c",
        code,
        env.interpreter.executable,
        gen / "bin" / "python",
    ]
    with env.start(*command, WAIT) as process:
        env.flip(2)
        assert env.is_pinned(1)
        assert process.report()["seen"] == [1] * 3


def test_a_process_that_cannot_be_pinned_says_so(env: Environment) -> None:
    """One line on stderr, and Python runs: a damaged environment must stay open to inspection."""
    env.lease(1).unlink()
    env.lease(1).symlink_to("lease")  # cannot be opened, by root either
    ask = "import _siteswap; print(_siteswap.generation)"
    code = "import os, sys; os.execv(sys.argv[1], [sys.argv[2], '-c', sys.argv[3]])"
    done = env.run(sys.executable, "-c", code, env.interpreter.executable, env.python, ask)
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert done.stderr.startswith("siteswap: this process is not pinned to a generation")
    assert done.stderr.count("\n") == 1


def test_without_a_mapping_the_descriptor_keeps_the_lease(env: Environment) -> None:
    """Where the lease cannot be mapped the descriptor stays, and an exec ends it."""
    env.lease(1).write_text("")  # nothing in it to map
    code = "import os; print('ready', flush=True); input(); os.execv('/bin/echo', ['echo', 'done'])"
    with env.start(env.python, "-c", code) as process:
        assert env.is_pinned(1)
        assert process.go_on() == "done\n"
    code = "import os; print(os.get_inheritable(100))"
    assert env.run(env.python, "-c", code).stdout == "False\n"


def test_start_is_done_once(one: Environment) -> None:
    """A second call, which site makes when a directory is added twice, changes nothing."""
    assert show(one, "(lambda s: [s.start(), s.start(), len([f for f in sys.meta_path if f is s])])"
                     "(__import__('_siteswap'))") == [None, None, 1]  # fmt: skip
