"""Fixtures that all tests share: interpreters, a cache of the test run's own, the command line, wheels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import installer
import pytest

import siteswap as siteswap_package
from siteswap.confinement import Confinement, Terms

STRESS = os.environ.get("SITESWAP_STRESS") == "1"
"""Everything at its full length, for hours; the default run does a short version of all of it."""

_CLEARED = (
    "VIRTUAL_ENV",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPATH",
    "PYTHONHOME",
    "SITESWAP_GENERATION",
    "SITESWAP_TRUST",
    "PIP_FIND_LINKS",
)


def _interpreters() -> dict[str, Path]:
    """Every supported interpreter of this machine, one a minor version, plus the system's own."""
    found: dict[str, Path] = {}
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [Path(sys.executable).resolve()]
    candidates += sorted(root.glob("3.*/bin/python3.*[0-9]"), reverse=True)
    for minor in range(9, 16):
        located = shutil.which(f"python3.{minor}")
        candidates += [Path(located)] if located else []
    for path in candidates:
        name = path.name.removeprefix("python")
        if name.replace(".", "").isdigit() and name.startswith("3.") and int(name[2:]) >= 9:
            works = subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
            if works:
                found.setdefault(name, path)
    system = Path("/usr/bin/python3")
    if system.exists():
        recent = "import venv, sys; sys.exit(sys.version_info < (3, 9))"
        if subprocess.run([system, "-c", recent], capture_output=True, check=False).returncode == 0:
            found["system"] = system
    return found


INTERPRETERS = _interpreters()


def can_run(program: Path, user: int) -> bool:
    """Whether that user may run that program."""
    try:
        done = subprocess.run(
            [program, "-c", ""], user=user, group=user, extra_groups=[], cwd="/", check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def base_for(user: int) -> Path:
    """An interpreter that the user can run; skips where there is none."""
    for program in (INTERPRETERS.get("system"), *INTERPRETERS.values()):
        if program is not None and can_run(program, user):
            return program
    pytest.skip("no interpreter that another user can run")


def siteswap_for(user: int, directory: Path) -> Path:
    """An interpreter in a virtual environment with siteswap that the user can run; skips where there is none.

    `directory` is where to make it; every user can reach it.
    """
    packages = [str(Path(module.__file__ or "").parent.parent) for module in (siteswap_package, installer)]
    for base in (Path(sys.executable).resolve(), *INTERPRETERS.values()):
        answer = subprocess.run(
            [base, "-c", "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_path('purelib',"
             " 'venv', {'base': ''}))"], capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
        if not can_run(base, user) or not answer.startswith(str(sys.version_info[:2])):
            continue
        prefix = directory / "siteswap"
        library = Path(f"{prefix}{answer.rpartition(' ')[2]}")
        library.mkdir(parents=True)
        (library / "siteswap.pth").write_text("\n".join(packages) + "\n")
        (prefix / "bin").mkdir()
        (prefix / "bin/python").symlink_to(base)
        (prefix / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
        ran = subprocess.run(
            [prefix / "bin/python", "-I", "-m", "siteswap", "--version"],
            user=user, group=user, extra_groups=[], cwd="/", capture_output=True, check=False,
        )  # fmt: skip
        if ran.returncode == 0:
            return prefix / "bin/python"
        shutil.rmtree(prefix)
    pytest.skip("no interpreter with siteswap that another user can run")


@pytest.fixture(params=sorted(INTERPRETERS))
def python(request: pytest.FixtureRequest) -> Path:
    """Each supported interpreter of this machine in turn."""
    return INTERPRETERS[request.param]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    def ok(self) -> Ran:
        """Itself, having made sure that it succeeded."""
        assert self.status == 0, f"status {self.status}\n{self.out}\n{self.err}"
        return self

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.ok().out)


Siteswap = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No variable of the developer's shell reaches a test; the cache is the test run's own."""
    for name in _CLEARED:
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("SITESWAP_CACHE_DIR", str(cache))


@pytest.fixture
def siteswap(tmp_path: Path) -> Siteswap:
    """Run the real command line in a process of its own, in the test's directory."""

    def run(
        *words: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 300
    ) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "siteswap", *map(str, words)],
            capture_output=True, text=True, cwd=cwd or tmp_path, timeout=timeout, check=False,
            env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """An empty directory for the test's wheels, to be given to --find-links."""
    path = tmp_path / "wheels"
    path.mkdir()
    return path


@pytest.fixture
def env(tmp_path: Path, siteswap: Siteswap) -> Path:
    """A fresh environment with the interpreter that runs the tests."""
    siteswap("create", tmp_path / "env").ok()
    return tmp_path / "env"


@pytest.fixture
def install(siteswap: Siteswap, env: Path, wheels: Path) -> Siteswap:
    """`siteswap install` into `env` from `wheels`, without an index."""

    def run(*words: str | Path) -> Ran:
        return siteswap("install", "-e", env, "--no-index", "--find-links", wheels, *words)

    return run


@pytest.fixture
def signals(tmp_path: Path, env: Path) -> Path:
    """A directory in which everything that is checked in `env` may tell the test how far it is."""
    return let_write(env, tmp_path / "signals")


def let_write(env: Path, directory: Path) -> Path:
    """Make a directory that the checks of an environment may write to, by the environment's settings."""
    directory.mkdir(exist_ok=True)
    (env / "siteswap.toml").write_text(f"writable = [{json.dumps(str(directory))}]\n")
    return directory


def landlock() -> bool:
    """Whether this kernel confines what checks write."""
    with Confinement(Terms((), 0o022)) as found:
        found.start()
        return found.landlocked


def run_python(python: Path, code: str, *flags: str) -> str:
    """What a program prints, run by an environment's interpreter."""
    done = subprocess.run([python, *flags, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
