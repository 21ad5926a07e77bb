"""Imports of a program whose environment changes: what is new can be had, two versions never meet."""

from __future__ import annotations

import os
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Ran, Siteswap
from snapshots import current, generation
from wheelmaker import wheel

PRELUDE = """
import sys
def ask(line):
    try:
        exec(line, globals())
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
    else:
        print("ok", flush=True)
for line in sys.stdin:
    ask(line)
"""


class Program:
    """A Python of the environment that does what it is told, a line at a time: a notebook's kernel, say."""

    def __init__(self, python: Path, *flags: str, **variables: str) -> None:
        self._running = subprocess.Popen(
            [python, *flags, "-c", PRELUDE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **variables},
        )  # fmt: skip

    def does(self, line: str) -> str:
        """What comes of a line: "ok", what it prints, or the error."""
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(line + "\n")
        self._running.stdin.flush()
        return self._running.stdout.readline().strip()

    def says(self, expression: str) -> str:
        """The value of an expression."""
        said = self.does(f"print({expression})")
        assert self._running.stdout is not None
        if self._running.stdout.readline().strip() != "ok":
            raise AssertionError(said)
        return said

    def end(self) -> None:
        """Let it end."""
        self._running.communicate(timeout=20)


@pytest.fixture
def add(siteswap: Siteswap, env: Path, wheels: Path) -> Siteswap:
    """`siteswap install` without checks, which are not what is tried here."""

    def run(*words: str) -> Ran:
        return siteswap("install", "-e", env, "--no-check", "--no-index", "-f", wheels, *words).ok()

    return run


@pytest.fixture
def program(env: Path, add: Siteswap, wheels: Path) -> Iterator[Program]:
    """A program that has imported `old` and `stable`, in generation 2; `new` can be installed."""
    for version in ("1.0", "2.0"):
        wheel(wheels, "old", version, files=_package("old", version))
    wheel(wheels, "stable", files=_package("stable", "1.0"))
    wheel(wheels, "new", files=_package("new", "1.0"), requires=["helper"])
    wheel(wheels, "helper", files=_package("helper", "1.0"))
    add("old==1.0", "stable")
    running = Program(env / "bin/python")
    assert running.does("import old, stable") == "ok"
    yield running
    running.end()


def _package(name: str, version: str) -> dict[str, str]:
    return {
        f"{name}/__init__.py": f"VERSION = {version!r}\n",
        f"{name}/late.py": f"VERSION = {version!r}\n",
        f"{name}/data.txt": f"{version}\n",
    }


def test_what_is_installed_can_be_imported(program: Program, add: Siteswap, env: Path) -> None:
    """The next cell of a notebook after the one that installs; all that follows is of one generation."""
    assert program.does("import new") == "ModuleNotFoundError No module named 'new'"
    add("new")
    assert program.does("import new") == "ok"
    now = str(generation(env))
    assert program.says("new.__file__").startswith(now)
    assert program.says("sys.prefix") == now
    assert program.does("import helper, stable.late") == "ok"
    assert program.says("stable.late.__file__").startswith(now)
    assert program.says("__import__('importlib.metadata').metadata.version('new')") == "1.0"
    assert program.says("sys.executable") == f"{env}/bin/python"


def test_in_every_python(python: Path, tmp_path: Path, siteswap: Siteswap, wheels: Path) -> None:
    """The same on each supported interpreter."""
    place = tmp_path / "another"
    siteswap("create", place, "-p", python).ok()
    for name in ("first", "second"):
        wheel(wheels, name, files=_package(name, "1.0"))
    words = ("install", "-e", place, "--no-check", "--no-index", "-f", wheels)
    siteswap(*words, "first").ok()
    running = Program(place / "bin/python")
    assert running.does("import first") == "ok"
    siteswap(*words, "second").ok()
    assert running.does("import second.late") == "ok"
    assert running.does("from multiprocessing import get_context") == "ok"
    code = "get_context('spawn').Process(target=print, args=()).start()"
    assert running.does(code) in ("", "ok")
    running.end()


def test_two_versions_never_meet(program: Program, add: Siteswap, env: Path) -> None:
    """Where something that is imported has changed, the import fails as it would have, and says why."""
    add("old==2.0", "new")
    said = program.does("import new")
    assert said.startswith(
        "ModuleNotFoundError No module named 'new' in generation 2, which this process keeps."
    )
    assert "old (1.0 -> 2.0)" in said
    assert "Start the program again" in said
    assert program.does("import old.late") == "ok"
    assert program.says("old.late.VERSION") == "1.0"
    assert program.says("sys.prefix") == str(generation(env, 2))


def test_lazy_parts_are_of_the_generation_that_it_is_in(
    program: Program, add: Siteswap, wheels: Path
) -> None:
    """A package of which only equal files are imported: the others come from the new generation then."""
    files = _package("stable", "1.0") | {"stable/late.py": "VERSION = 'later'\n"}
    wheel(wheels, "stable", "1.1", files=files)
    assert program.does("del sys.modules['old'], old") == "ok"
    add("stable==1.1", "new")
    assert program.does("import new, stable.late") == "ok"
    assert program.says("stable.late.VERSION") == "later"


def test_an_import_that_is_nowhere(program: Program, add: Siteswap) -> None:
    """It fails as ever, and the process stays where it is: optional imports are no reason to move."""
    add("new")
    assert program.does("import nowhere_at_all") == "ModuleNotFoundError No module named 'nowhere_at_all'"
    assert program.does("import old.nowhere") == "ModuleNotFoundError No module named 'old.nowhere'"
    assert program.says("sys.prefix").endswith("/2")


def test_a_module_of_a_package(program: Program, add: Siteswap, wheels: Path) -> None:
    """Also a part of a namespace that another distribution brings."""
    wheel(wheels, "space-one", files={"space/one.py": "VALUE = 1\n"})
    wheel(wheels, "space-two", files={"space/two.py": "VALUE = 2\n"})
    add("space-one")
    assert program.does("import space.one") == "ok"
    add("space-two")
    assert program.does("import space.two") == "ok"
    assert program.says("space.one.VALUE + space.two.VALUE") == "3"


def test_finders_of_the_program_come_first(program: Program, add: Siteswap) -> None:
    """Who appends a finder of its own is asked before the process moves."""
    lines = """
        import types
        finder = types.ModuleType('finder')
        spec = __import__('importlib.machinery').machinery.ModuleSpec('new', None, is_package=True)
        finder.find_spec = lambda name, path=None, target=None: spec if name == 'new' else None
        sys.meta_path.append(finder)
    """
    for line in textwrap.dedent(lines).strip().splitlines():
        assert program.does(line) == "ok"
    add("new")
    assert program.does("import new") == "ok"
    assert program.says("new.__spec__.origin") == "None"
    assert program.says("sys.prefix").endswith("/2")


def test_it_can_be_turned_off(env: Path, add: Siteswap, wheels: Path) -> None:
    """By a variable: then a process keeps its generation, whatever happens."""
    wheel(wheels, "new")
    running = Program(env / "bin/python", SITESWAP_ADVANCE="0")
    add("new")
    assert running.does("import new") == "ModuleNotFoundError No module named 'new'"
    running.end()


def test_a_pinned_tree_stays(env: Path, add: Siteswap, wheels: Path, siteswap: Siteswap) -> None:
    """`run --generation` means that generation."""
    wheel(wheels, "new")
    add("new")
    code = "import importlib.util as u; print(u.find_spec('new'))"
    assert siteswap("run", "-e", env, "--generation", "1", "--", "python", "-c", code).ok().out == "None\n"


def test_both_generations_are_kept(program: Program, add: Siteswap, siteswap: Siteswap, env: Path) -> None:
    """What it came from, whose files its modules name, and what it is in: neither is collected under it."""
    add("new")
    assert program.does("import new") == "ok"
    add("old==2.0")
    siteswap("rollback", "-e", env, "2").ok()
    siteswap("rollback", "-e", env, "4").ok()
    time.sleep(5.2)  # the grace of what was current a moment ago
    siteswap("gc", "-e", env, "--keep", "0").ok()
    assert [number for number in (2, 3) if not generation(env, number).is_symlink()] == [2, 3]
    assert program.does("import helper.late, old.late") == "ok"
    assert program.says("old.late.VERSION") == "1.0"


def test_interface_for_programs(program: Program, add: Siteswap, env: Path) -> None:
    """Which generation, is there a newer one, what would change, advance, call me."""
    assert program.does("import _siteswap, _siteswap_advance as here") == "ok"
    assert (
        program.says("_siteswap.generation, here.newer(), here.changes(), here.advance()") == "2 None [] True"
    )
    assert program.does("seen = []; end = here.call_when_newer(seen.append, 0.01)") == "ok"
    add("old==2.0")
    assert program.says("here.newer(), here.changes(), here.advance()") == "3 ['old (1.0 -> 2.0)'] False"
    time.sleep(0.1)
    assert program.says("seen") == "[3]"
    assert program.does("end()") == "ok"
    add("old==1.0", "new")
    assert program.says("here.newer(), here.changes(), here.advance()") == "4 [] True"
    assert program.says("_siteswap.generation, sys.prefix") == f"4 {generation(env)}"
    assert current(env) == 4


def test_imports_while_generations_come_and_go(
    env: Path, add: Siteswap, siteswap: Siteswap, wheels: Path
) -> None:
    """Many programs that ask for something new while others flip and collect: none holds two versions."""
    for version in ("1.0", "2.0"):
        wheel(wheels, "pair", version, files=_package("pair", version))
    for number in range(6):
        wheel(wheels, f"extra{number}", files=_package(f"extra{number}", "1.0"))
    add("pair==1.0")
    programs = []
    for number in range(6):
        running = Program(env / "bin/python")
        assert running.does("import pair") == "ok"
        programs.append(running)
        add(f"extra{number}", f"pair=={1 + number % 2}.0")
        siteswap("gc", "-e", env, "--keep", "0").ok()
        for older in programs:
            said = older.does(f"import extra{number}")
            assert said == "ok" or "which this process keeps" in said
            assert older.does("import pair.late") == "ok"
            assert older.says("pair.VERSION == pair.late.VERSION") == "True"
    for running in programs:
        running.end()
