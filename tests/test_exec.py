"""`siteswap exec`: any installer works on a private copy; what it did goes live at once, or not at all."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Ran, Siteswap, run_python
from snapshots import current, generation, record_problems, site_packages, state
from wheelmaker import wheel

UV = Path(sys.executable).with_name("uv")


def pip_line(wheels: Path, *words: str) -> list[str]:
    """The environment's own pip."""
    return ["python", "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-index",
            "--find-links", str(wheels), *words]  # fmt: skip


@pytest.fixture
def execute(siteswap: Siteswap, env: Path) -> Siteswap:
    """`siteswap exec` in the environment."""

    def run(*words: str | Path, **more: object) -> Ran:
        return siteswap("exec", "-e", env, "--", *words, **more)

    return run


def listed(siteswap: Siteswap, env: Path) -> dict[str, str]:
    """Versions by name."""
    return {item["name"]: item["version"] for item in siteswap("list", "-e", env, "--json").json}


def program(env: Path, name: str) -> str:
    """What a program of the environment prints."""
    return subprocess.run([env / "bin" / name], capture_output=True, text=True, check=True).stdout.strip()


# -- installers ------------------------------------------------------------------------------------


def test_pip_in_a_transaction(execute: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """pip installs, upgrades, uninstalls: a generation each; its scripts name the environment."""
    wheel(wheels, "demo", scripts={"demo": "demo:main"}, requires=["lib"])
    wheel(wheels, "demo", "2.0", scripts={"demo": "demo:main"}, requires=["lib"])
    wheel(wheels, "lib")
    execute("python", "-m", "ensurepip", "--default-pip").ok()
    assert current(env) == 2
    execute(*pip_line(wheels, "demo==1.0")).ok()
    assert (current(env), program(env, "demo")) == (3, "1.0")
    assert (env / "bin/demo").read_text().splitlines()[0] == f"#!{env}/bin/python"
    execute(*pip_line(wheels, "-U", "demo")).ok()
    assert (current(env), program(env, "demo")) == (4, "2.0")
    problems = record_problems(generation(env))
    assert [
        item for item in problems if "__pycache__" not in item
    ] == []  # pip lists byte-code, without hashes
    shown = {item["name"]: item for item in siteswap("list", "-e", env, "--json").json}
    assert (shown["demo"]["requested"], shown["lib"]["requested"]) == (True, False)
    execute("pip", "uninstall", "-q", "-y", "demo").ok()
    assert "demo" not in listed(siteswap, env)
    assert not (env / "bin/demo").exists()
    siteswap("rollback", "-e", env, "3").ok()
    assert program(env, "demo") == "1.0"


def test_uv_in_a_transaction(execute: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """Also when uv is told the environment by its path: it asks the interpreter, and that hands over."""
    wheel(wheels, "demo")
    wheel(wheels, "other")
    options = ("--no-index", "--find-links", wheels)
    execute(UV, "pip", "install", "-q", *options, "demo").ok()
    before = generation(env)
    execute(UV, "pip", "install", "-q", "--python", env, *options, "other").ok()
    assert listed(siteswap, env) == {"demo": "1.0", "other": "1.0"}
    assert not (site_packages(before) / "other").exists()
    assert record_problems(generation(env)) == []


def test_several_steps_are_one_change(execute: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """A shell line that also makes files of no distribution: they are named and carried along."""
    wheel(wheels, "demo")
    uv = f"{UV} pip install -q --no-index --find-links {wheels}"
    line = f'{uv} demo && mkdir -p "$VIRTUAL_ENV/etc" && echo "$VIRTUAL_ENV" > "$VIRTUAL_ENV/etc/demo.conf"'
    done = execute(line).ok()
    assert current(env) == 2
    assert "etc/demo.conf" in done.err
    assert (env / "etc/demo.conf").read_text() == f"{env}\n"  # not the path of the copy
    siteswap("uninstall", "-e", env, "demo").ok()
    assert (env / "etc/demo.conf").exists()


@pytest.mark.index
def test_legacy_setup_py(execute: Siteswap, siteswap: Siteswap, env: Path, tmp_path: Path) -> None:
    """`setup.py install` leaves an egg or an .egg-info: carried along as files of no distribution."""
    tree = tmp_path / "tree"
    (tree / "oldie").mkdir(parents=True)
    (tree / "oldie/__init__.py").write_text("VALUE = 7\n")
    (tree / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='oldie', version='1', packages=['oldie'])\n"
    )
    siteswap("install", "-e", env, "setuptools<80").ok()
    done = execute("python", "setup.py", "-q", "install", cwd=tree).ok()
    assert "oldie" in done.err
    assert run_python(env / "bin/python", "import oldie; print(oldie.VALUE)") == "7"
    siteswap("install", "-e", env, "six").ok()
    assert run_python(env / "bin/python", "import oldie; print(oldie.VALUE)") == "7"


def test_what_it_looks_like_from_inside(execute: Siteswap, env: Path) -> None:
    """Every way to the environment leads to the copy: variables, PATH, the environment's own path."""
    code = "import sys, os; print(sys.prefix, sys.executable, os.environ['VIRTUAL_ENV'])"
    inside = str(generation(env, 2))
    for words in (["python"], [str(env / "bin/python")], ["/bin/sh", "-c", 'exec python "$@"', "sh"]):
        done = execute(*words, "-c", code).ok()
        assert done.out.splitlines()[0].split() == [inside, f"{inside}/bin/python", inside]
    assert current(env) == 1


# -- nothing happened ------------------------------------------------------------------------------


def test_failing_installer_changes_nothing(execute: Siteswap, env: Path, wheels: Path) -> None:
    """Whatever it did before it failed."""
    wheel(wheels, "demo")
    before = state(env)
    done = execute(f"{UV} pip install -q --no-index --find-links {wheels} demo && exit 7")
    assert done.status == 1
    assert "ended with exit status 7: nothing was changed" in done.err
    assert state(env) == before


def test_installer_that_is_not_there(execute: Siteswap, env: Path) -> None:
    """One clear line."""
    before = state(env)
    done = execute("no-such-installer")
    assert done.status == 5
    assert done.err.splitlines()[-2:] == [
        "siteswap: cannot run no-such-installer: No such file or directory",
        "  → name a program of the environment or of PATH",
    ]
    assert state(env) == before


def test_installer_that_does_nothing(execute: Siteswap, env: Path) -> None:
    """No generation is made for it."""
    before = state(env)
    assert "nothing to do; generation 1 is current" in execute("true").ok().out
    assert state(env) == before


def test_broken_work_is_not_taken_in(install: Siteswap, execute: Siteswap, env: Path, wheels: Path) -> None:
    """The checks are those of any install."""
    wheel(wheels, "demo")
    install("demo").ok()
    wheel(wheels, "demo", "2.0", files={"demo/__init__.py": "import gone\n"})
    before = state(env)
    done = execute(UV, "pip", "install", "-q", "--no-index", "--find-links", wheels, "demo==2.0")
    assert done.status == 1
    assert "No module named 'gone'" in done.err
    assert state(env) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted(env: Path, siteswap: Siteswap, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, or worse: nothing of the installer is left running, nothing changed, nothing stays behind."""
    mark = tmp_path / "mark"
    line = (
        f"(sleep 300; true) & echo $! > {mark}.new; touch $VIRTUAL_ENV/half; mv {mark}.new {mark}; sleep 300"
    )
    before = state(env)
    with subprocess.Popen(
        [sys.executable, "-m", "siteswap", "exec", "-e", env, "--", "sh", "-c", line],
        stdin=subprocess.DEVNULL,
    ) as running:
        _wait_for(mark.exists)
        running.send_signal(number)
        status = running.wait(20)
    assert status == (-9 if number is signal.SIGKILL else 130)
    _wait_for(lambda: not _alive(int(mark.read_text())))
    if number is signal.SIGKILL:
        siteswap("gc", "-e", env).ok()
    assert state(env) == before


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _wait_for(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_it_leaves_running_is_ended(execute: Siteswap, env: Path, tmp_path: Path) -> None:
    """Before anything is published: a daemon of the installer's could go on writing."""
    mark = tmp_path / "mark"
    code = (
        "import os, time\nif os.fork() == 0:\n os.setsid()\n"
        f" open({str(mark)!r}, 'w').write(str(os.getpid()))\n time.sleep(300)"
    )
    line = f"touch $VIRTUAL_ENV/new; python -c {shlex.quote(code)}; until [ -s {mark} ]; do sleep 0.01; done"
    done = execute(line).ok()
    assert "left 1 process" in done.err
    assert not _alive(int(mark.read_text()))
    assert (env / "new").exists()


# -- nothing published changes ---------------------------------------------------------------------


def test_writing_in_place_reaches_nothing_published(
    install: Siteswap, execute: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path
) -> None:
    """Neither the base nor the cache, which share files; the edit is told and carried along."""
    wheel(wheels, "demo", files={"demo/__init__.py": "VALUE = 1\n", "demo/more.py": "VALUE = 1\n"})
    install("demo").ok()
    base = generation(env)
    before = (site_packages(base) / "demo/more.py").read_bytes()
    code = "import demo.more as m; open(m.__file__, 'a').write('VALUE = 2\\n')"
    done = execute("python", "-c", code).ok()
    assert "edited by hand, and carried along so: demo-1.0" in done.err
    assert (site_packages(base) / "demo/more.py").read_bytes() == before
    assert run_python(env / "bin/python", "import demo.more; print(demo.more.VALUE)") == "2"
    assert record_problems(generation(env)) == []
    other = tmp_path / "other"
    siteswap("create", other).ok()
    siteswap("install", "-e", other, "--no-index", "--find-links", wheels, "demo").ok()
    assert (site_packages(generation(other)) / "demo/more.py").read_bytes() == before


def test_what_did_not_change_is_shared(install: Siteswap, execute: Siteswap, env: Path, wheels: Path) -> None:
    """The copy is for the installer only: the new generation links what it did not touch."""
    wheel(wheels, "kept")
    wheel(wheels, "demo")
    install("kept").ok()
    base = site_packages(generation(env)) / "kept/__init__.py"
    execute(UV, "pip", "install", "-q", "--no-index", "--find-links", wheels, "demo").ok()
    now = site_packages(generation(env)) / "kept/__init__.py"
    assert base.stat().st_ino == now.stat().st_ino


def test_files_of_siteswap_itself_stay(execute: Siteswap, env: Path) -> None:
    """An installer that replaces the launcher or an activate script has no effect, and that is told."""
    before = (env / "bin/activate").read_bytes()
    done = execute('echo broken > "$VIRTUAL_ENV/bin/activate"; touch "$VIRTUAL_ENV/new"').ok()
    assert "left out, for it is siteswap's own: bin/activate" in done.err
    assert (env / "bin/activate").read_bytes() == before


# -- odds and ends ---------------------------------------------------------------------------------


def test_siteswap_inside_of_it_is_refused(execute: Siteswap, env: Path) -> None:
    """It would wait for itself for ever."""
    done = execute(sys.executable, "-m", "siteswap", "uninstall", "-e", env, "x")
    assert done.status == 1
    assert "is being changed by the siteswap exec that this runs in" in done.err


def test_base_that_moved_is_refused(install: Siteswap, execute: Siteswap, env: Path, wheels: Path) -> None:
    """Somebody went back meanwhile: the installer is not run twice, and nothing is overwritten [I8]."""
    wheel(wheels, "demo")
    install("demo").ok()
    line = (
        f"touch $VIRTUAL_ENV/new; env -u SITESWAP_EXEC {sys.executable} -m siteswap rollback -e {env} 1 >&2"
    )
    done = execute(line)
    assert done.status == 3
    assert "is no longer current" in done.err
    assert current(env) == 1
    assert not (env / "new").exists()
    assert not generation(env, 3).exists()


def test_json(execute: Siteswap, siteswap: Siteswap, env: Path) -> None:
    """The result alone is on stdout; what the installer says is on stderr."""
    done = siteswap("exec", "-e", env, "--json", "--", "sh", "-c", "echo talk; touch $VIRTUAL_ENV/new")
    assert json.loads(done.ok().out)["committed"] is True
    assert "talk" in done.err


def test_dry_run(execute: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """The installer runs; what it did is shown and thrown away."""
    wheel(wheels, "demo")
    before = state(env)
    words = (UV, "pip", "install", "-q", "--no-index", "--find-links", wheels, "demo")
    assert "demo 1.0" in siteswap("exec", "-e", env, "--dry-run", "--", *words).ok().out
    assert state(env) == before


def test_editable_install_of_pip(execute: Siteswap, siteswap: Siteswap, env: Path, tmp_path: Path) -> None:
    """It is listed as one: its own changes are live by nature."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "live.py").write_text("VALUE = 1\n")
    (tree / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "live"\nversion = "1"\n[tool.setuptools]\npy-modules = ["live"]\n'
    )
    execute(UV, "pip", "install", "-q", "-e", tree).ok()
    (item,) = siteswap("list", "-e", env, "--json").json
    assert item["editable"] == str(tree)
    (tree / "live.py").write_text("VALUE = 2\n")
    assert run_python(env / "bin/python", "import live; print(live.VALUE)") == "2"


def test_streams_are_the_users(env: Path, siteswap: Siteswap, tmp_path: Path) -> None:
    """An installer may ask: it reads what the user types."""
    done = subprocess.run(
        [sys.executable, "-m", "siteswap", "exec", "-e", env, "--", "read answer; echo got $answer"],
        input="yes\n", capture_output=True, text=True, check=True, env={**os.environ},
    )  # fmt: skip
    assert "got yes" in done.stdout


# -- pip, from inside ------------------------------------------------------------------------------


@pytest.fixture
def with_pip(env: Path, siteswap: Siteswap, wheels: Path) -> Path:
    """An environment that has pip, and wheels of two versions for it."""
    siteswap("exec", "-e", env, "--no-check", "--", "python", "-m", "ensurepip", "--default-pip").ok()
    for version in ("1.0", "2.0"):
        wheel(wheels, "demo", version, scripts={"demo": "demo:main"})
    return env


def inside(env: Path, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a shell does in which the environment is active."""
    path = os.pathsep.join([str(env / "bin"), os.environ["PATH"]])
    variables = {**os.environ, "VIRTUAL_ENV": str(env), "PATH": path, **more}
    return subprocess.run(
        ["/bin/sh", "-c", 'exec "$@"', "sh", *words],
        capture_output=True, text=True, check=False, env=variables, stdin=subprocess.DEVNULL,
    )  # fmt: skip


WAYS_TO_START_PIP = (
    ["pip"], ["pip3"], ["python", "-m", "pip"], ["python3", "-Im", "pip"], ["python", "-mpip"],
    ["python", "-W", "ignore", "-m", "pip"], ["python", "ENV/bin/pip"],
)  # fmt: skip


def test_pip_inside_of_the_environment(with_pip: Path, wheels: Path) -> None:
    """However it is started, what it installs is a generation of its own; stdout is pip's."""
    for turn, words in enumerate(WAYS_TO_START_PIP):
        start = [word.replace("ENV", str(with_pip)) for word in words]
        version = f"{1 + turn % 2}.0"
        before = current(with_pip)
        done = inside(with_pip, *start, "install", "--no-index", "-f", wheels, f"demo=={version}")
        assert done.returncode == 0, (words, done.stderr)
        assert f"Successfully installed demo-{version}" in done.stdout, words
        assert "is current" not in done.stdout, words
        assert f"generation {before + 1} is current (was {before})" in done.stderr, words
        assert program(with_pip, "demo") == version, words


def test_pip_from_a_program(with_pip: Path, wheels: Path) -> None:
    """As notebooks and many scripts do it, by sys.executable; then the program can import it."""
    code = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-m', 'pip', '-q', 'install', '--no-index', '-f', {str(wheels)!r},"
        " 'demo'], check=True)\n"
        "import demo; print(demo.__version__)"
    )
    assert inside(with_pip, "python", "-c", code).stdout.split() == ["2.0"]


def test_pip_that_fails_or_uninstalls(with_pip: Path, wheels: Path) -> None:
    """Its exit status says so, and nothing changed; uninstalling is a change like others."""
    before = state(with_pip)
    done = inside(with_pip, "pip", "install", "--no-index", "-f", wheels, "demo==9")
    assert done.returncode == 1
    assert "No matching distribution found for demo==9" in done.stderr
    assert state(with_pip) == before
    assert inside(with_pip, "pip", "install", "--no-index", "-f", wheels, "demo==2.0").returncode == 0
    assert inside(with_pip, "pip", "uninstall", "-y", "demo").returncode == 0
    assert not (with_pip / "bin/demo").exists()
    assert current(with_pip) == 4


WORDS_THAT_CHANGE_NOTHING = (
    ["list"], ["check"], ["freeze"], ["--version"], ["install", "--help"],
    ["install", "--no-index", "-f", "WHEELS", "--target", "DIR", "demo"],
    ["download", "-q", "--no-index", "-f", "WHEELS", "-d", "DIR", "demo"],
    ["install", "--dry-run", "--no-index", "-f", "WHEELS", "demo"],
)  # fmt: skip


def test_pip_that_changes_nothing_here(with_pip: Path, wheels: Path, tmp_path: Path) -> None:
    """It is pip itself, at once."""
    before = state(with_pip)
    for words in WORDS_THAT_CHANGE_NOTHING:
        told = [word.replace("WHEELS", str(wheels)).replace("DIR", str(tmp_path / "dir")) for word in words]
        done = inside(with_pip, "pip", *told)
        assert done.returncode == 0, (words, done.stderr)
        assert "generation" not in done.stderr, words
        assert state(with_pip) == before, words


@pytest.mark.parametrize("words", [["list"], ["install", "demo"]], ids=" ".join)
def test_pip_where_there_is_none(env: Path, words: list[str]) -> None:
    """Which most people expect in a fresh environment: one line says what to do instead."""
    before = state(env)
    done = inside(env, "python", "-m", "pip", *words)
    assert done.returncode == 1
    assert "there is no pip in this environment" in done.stderr
    assert "siteswap install pip puts one here" in done.stderr
    assert "Traceback" not in done.stderr
    assert state(env) == before
    code = "import importlib.util as u; print(u.find_spec('pip'))"
    assert run_python(env / "bin/python", code) == "None"


def test_ensurepip_inside_of_the_environment(env: Path) -> None:
    """It runs pip in a process that is not called so."""
    before = generation(env)
    done = inside(env, "python", "-m", "ensurepip", "--default-pip")
    assert done.returncode == 0, done.stderr
    assert "generation 2 is current (was 1)" in done.stderr
    assert not (site_packages(before) / "pip").exists()
    assert "pip" in inside(env, "pip", "--version").stdout
    assert inside(env, "python", "-m", "ensurepip", "--version").stdout.startswith("pip ")
    assert current(env) == 2


def test_copies_of_distributions_inside_of_packages(
    install: Siteswap, execute: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """setuptools brings some along in `_vendor`, `.dist-info` and all: they are data, however they come."""
    copies = {
        "vendor/__init__.py": "",
        "vendor/_vendor/lib-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: lib\nVersion: 0.1\n",
        "vendor/_vendor/lib-0.1.dist-info/RECORD": "lib/__init__.py,,\n",
    }
    wheel(wheels, "vendor", files=copies)
    wheel(wheels, "vendor", "2.0", files=copies)
    for name in ("lib", "demo", "other"):
        wheel(wheels, name)
    install("lib", "vendor==1.0").ok()
    uv = (UV, "pip", "install", "-q", "--no-index", "--find-links", wheels)
    expected = {"lib": "1.0", "vendor": "1.0", "demo": "1.0"}
    execute(*uv, "demo").ok()
    assert listed(siteswap, env) == expected
    execute(*uv, "vendor==2.0").ok()
    assert listed(siteswap, env) == expected | {"vendor": "2.0"}
    subprocess.run([*uv, "--python", env / "bin/python", "vendor==1.0"], check=True)
    assert listed(siteswap, env) == expected
    install("other").ok()
    assert listed(siteswap, env) == expected | {"other": "1.0"}
    assert run_python(env / "bin/python", "import lib; print(lib.__version__)") == "1.0"


def test_refused_work_of_pip_says_how_it_could_pass(with_pip: Path, wheels: Path) -> None:
    """pip has no options of ours: the line is spelled that has them."""
    wheel(wheels, "lacking", requires=["nowhere"])
    done = inside(with_pip, "pip", "install", "--no-deps", "--no-index", "-f", wheels, "lacking")
    assert done.returncode == 1
    assert "lacking 1.0: needs nowhere, which is not installed" in done.stderr
    assert "--allow-broken lacking lets it pass: siteswap exec OPTION -- pip install" in done.stderr


def test_pip_of_a_pinned_generation_is_refused(with_pip: Path, wheels: Path, siteswap: Siteswap) -> None:
    """What is published does not change, for nobody."""
    before = state(with_pip)
    words = ("pip", "install", "--no-index", "-f", wheels, "demo")
    done = siteswap("run", "-e", with_pip, "--generation", "2", "--", *words)
    assert done.status == 1
    assert "cannot change" in done.err
    assert state(with_pip) == before


def test_pip_without_the_siteswap_that_made_the_environment(with_pip: Path, wheels: Path) -> None:
    """Another on PATH does; without any, one line says what to do."""
    maker = generation(with_pip) / ".generation/siteswap"
    maker.write_text("/gone/python\n/gone/siteswap\n")
    words = ("pip", "install", "--no-index", "-f", wheels, "demo")
    done = inside(with_pip, *words, PATH=f"{with_pip}/bin:/usr/bin:/bin")
    assert done.returncode == 1
    assert "is gone" in done.stderr
    path = f"{with_pip}/bin:{Path(sys.executable).parent}:/usr/bin:/bin"
    if not Path(sys.executable).with_name("siteswap").exists():
        pytest.skip("siteswap is not installed as a program beside this Python")
    assert inside(with_pip, *words, PATH=path).returncode == 0
