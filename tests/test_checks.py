"""What can be wrong with a candidate, kind by kind: what is refused and what is told, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench import Bench, needs_landlock
from conftest import Siteswap, run_python
from snapshots import current, generation
from test_static_checks import for_glibc, library, needs_compiler, needs_glibc
from test_static_checks import module as linked


@pytest.fixture(scope="module")
def _lasting(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"root": tmp_path_factory.mktemp("lasting")}


@pytest.fixture
def shared(siteswap: Siteswap, _lasting: dict[str, Path]) -> Bench:
    """An environment for attempts that are refused and so leave it as it is; it has `neighbour` 1.0."""
    bench = Bench(siteswap, _lasting["root"])
    if bench.env.exists() and current(bench.env) != 2:  # a test failed: the others are not to blame for it
        _lasting["root"] = bench.root / "again"
        bench = Bench(siteswap, _lasting["root"])
    if not bench.env.exists():
        bench.root.mkdir(exist_ok=True)
        bench.wheel("neighbour", files={"neighbour/__init__.py": "", "neighbour/data.txt": "as it was\n"})
        siteswap("create", bench.env).ok()
        bench.lives("neighbour")
        subprocess.run([bench.env / "bin/python", "-c", "import neighbour"], check=True)
    return bench


@pytest.fixture
def bench(siteswap: Siteswap, tmp_path: Path, env: Path) -> Bench:
    """A fresh environment of the test's own."""
    return Bench(siteswap, tmp_path)


def lines(text: str) -> str:
    """A program that stands indented in a test."""
    return textwrap.dedent(text).strip()


# -- modules that do not import --------------------------------------------------------------------

FAILING = {
    "raises": ("raise RuntimeError('no such luck')", "RuntimeError: no such luck"),
    "syntax": ("def f(:", "SyntaxError: invalid syntax (failing.py, line 1)"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "it kills the interpreter (signal 11)"),
    "quiet end": ("import os; os._exit(0)", "it ends the interpreter (exit status 0)"),
    "system exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "own group": ("import os; os.killpg(0, 9)", "it kills the interpreter (signal 9)"),
    "no descriptors": ("import os; os.closerange(0, 256)", "it ends the interpreter (exit status 1)"),
    "display": (
        "import os\nif not os.environ.get('DISPLAY'): raise ImportError('no display name')",
        "ImportError: no display name",
    ),
    "missing": ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "recursion": ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_module_that_does_not_import_is_refused(
    shared: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way a module of what was asked for fails: status 1, what and why, and nothing happened."""
    monkeypatch.delenv("DISPLAY", raising=False)
    code, why = FAILING[kind]
    shared.module("failing", code)
    done = shared.refused("failing")
    assert f"failing 1.0: import failing fails: {why}" in done.err
    assert "asked for by name" in done.err
    assert (
        "siteswap: the checks found 1 thing wrong; nothing was changed (generation 2 is current)" in done.err
    )
    assert done.out == ""


def test_where_it_was_raised_is_shown(shared: Bench) -> None:
    """Of a traceback the place in the package is shown, relative to the generation."""
    shared.wheel("failing", files={"failing/__init__.py": "from . import deep", "failing/deep.py": "\n1 / 0"})
    done = shared.refused("failing")
    assert "import failing fails: ZeroDivisionError: division by zero" in done.err
    assert 'site-packages/failing/deep.py", line 2' in done.err
    assert ".siteswap/generations" not in done.err.split("siteswap:")[0]
    assert "division by zero" in shared.run("log", str(shared.verdict()["generation"])).ok().out


def test_a_display_that_is_there_reaches_the_import(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be imported where the user has a display is judged there."""
    monkeypatch.setenv("DISPLAY", ":7")
    bench.module("failing", FAILING["display"][0])
    bench.lives("failing")


def test_an_import_that_does_not_end_is_stopped(bench: Bench) -> None:
    """`import-timeout` limits each distribution; what the module had started ends with it."""
    (bench.env / "siteswap.toml").write_text("import-timeout = 1\n")
    bench.module("hanging", "import subprocess; subprocess.run(['sleep', '4101'])")
    bench.module("healthy", "")
    done = bench.refused("hanging", "healthy")
    assert "hanging 1.0: import hanging fails: it does not end within 1 s" in done.err
    assert "healthy" not in done.err.split("siteswap:")[0]


def test_what_stands_after_a_crash_is_tried_too(shared: Bench) -> None:
    """A crash is one finding: the modules and programs after it are tried in another process."""
    shared.wheel(
        "several",
        files={
            "a_fine.py": "", "b_dead.py": "import os; os.abort()", "c_fine.py": "", "d_bad.py": "1 / 0",
            "several.py": "",
        },
        scripts={"several-tool": "several:nothing"},
    )  # fmt: skip
    done = shared.refused("several")
    assert "import b_dead fails: it kills the interpreter (signal 6)" in done.err
    assert "import d_bad fails: ZeroDivisionError" in done.err
    assert "program several-tool cannot be loaded: AttributeError" in done.err
    assert "the checks found 3 things wrong" in done.err


def test_memory_is_limited(bench: Bench) -> None:
    """An import that eats memory gets a MemoryError at the limit of the settings."""
    (bench.env / "siteswap.toml").write_text('memory = "256 MiB"\n')
    bench.module("hungry", "block = bytearray(1 << 30)")
    assert "hungry 1.0: import hungry fails: MemoryError" in bench.refused("hungry").err
    (bench.env / "siteswap.toml").unlink()
    bench.lives("hungry")


ODD_BUT_FINE = {
    "no stdout": "import sys; sys.stdout = sys.stderr = None",
    "stdout closed": "import os, sys; sys.stdout.close(); os.close(1)",
    "odd output": 'import os; os.write(1, b\'\\xff\\0{"begin": 99}\\n{"failed": 0}\\n\\x1b[2J\')',
    "much output": "import os\nfor _ in range(80): os.write(1, b'x' * 65536)",
    "its own session": "import os\ntry: os.setsid()\nexcept OSError: pass",
    "thread": "import threading, time; threading.Thread(target=time.sleep, args=(4102,)).start()",
    "exit function": "import atexit, time; atexit.register(time.sleep, 4102)",
    "other directory": "import os; os.chdir('/')",
    "signals": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.alarm(100)",
    "no import": "import builtins, json; json.dumps = builtins.print = None",
    "replaced itself": "import sys; sys.modules['odd'] = 1",
}


def test_modules_that_behave_oddly_are_no_findings(bench: Bench) -> None:
    """What a module does to its own process while it is imported does not confuse the check."""
    for number, code in enumerate(ODD_BUT_FINE.values()):
        bench.module(f"odd{number}", code)
    done = bench.lives(*(f"odd{number}" for number in range(len(ODD_BUT_FINE))))
    assert done.err == ""
    (row,) = [row for row in bench.verdict()["checks"] if row["check"] == "imports"]
    assert row["outcome"] == "passed"
    assert row["what"] == f"{len(ODD_BUT_FINE)} modules and 0 programs of {len(ODD_BUT_FINE)} distributions"


def test_a_module_is_imported_from_where_it_is_installed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the working directory nor PYTHONPATH brings what the environment lacks."""
    for directory in (bench.root, tmp_path / "path"):
        directory.mkdir(exist_ok=True)
        (directory / "stray_module.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    bench.module("lost", "import stray_module")
    assert "No module named 'stray_module'" in bench.refused("lost").err


# -- what imports do besides -----------------------------------------------------------------------

STAYS = {
    "child": "import subprocess; subprocess.Popen(['sleep', '4103'])",
    "daemon": """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 256)
                os.execlp('sleep', 'sleep', '4103')
            os._exit(0)
        time.sleep(0.2)
    """,
}


@pytest.mark.parametrize("kind", STAYS)
def test_processes_that_an_import_leaves_are_killed(bench: Bench, kind: str) -> None:
    """A child that stays is told and ended, however it left; the import counts as good."""
    bench.module("leaving", lines(STAYS[kind]))
    done = bench.lives("leaving")
    assert "imports left 1 process behind: killed" in done.err


@needs_landlock
@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        ("open(os.path.join(os.path.dirname(__file__), 'new.txt'), 'w')", "new.txt"),
        ("open(__file__, 'a').write('# more')", "writing.py"),
        ("os.truncate(__file__, 0)", "writing.py"),
        ("os.remove(__file__)", "writing.py"),
        ("os.remove(neighbour.__path__[0] + '/data.txt')", "data.txt"),
        ("open(neighbour.__path__[0] + '/data.txt', 'w')", "data.txt"),
        ("os.rename(neighbour.__path__[0] + '/data.txt', neighbour.__path__[0] + '/x')", "data.txt"),
        ("open(os.environ['VIRTUAL_ENV'] + '/lib/python%d.%d/site-packages/neighbour/data.txt' % "
         "sys.version_info[:2], 'w')", "data.txt"),
        ("os.remove(os.environ['VIRTUAL_ENV'] + '/.siteswap/current')", "current"),
        ("open(os.environ['VIRTUAL_ENV'] + '/.siteswap/history', 'a').write('x')", "history"),
        ("os.mkdir(os.environ['VIRTUAL_ENV'] + '/made')", "made"),
    ],
)  # fmt: skip
def test_writing_into_an_environment_fails(shared: Bench, attempt: str, why: str) -> None:
    """Neither the candidate nor what is live can be written to: an import that must is refused."""
    shared.module("writing", f"import os, sys, neighbour\n{attempt}", requires=["neighbour"])
    done = shared.refused("writing")
    assert "writing 1.0: import writing fails: PermissionError: " in done.err
    assert why in done.err
    assert (shared.site / "neighbour/data.txt").read_text() == "as it was\n"


@needs_landlock
def test_an_import_that_takes_the_refusal_is_fine(bench: Bench) -> None:
    """Who only tries to write, and goes on without, is installed; nothing was written anywhere."""
    bench.wheel("neighbour", files={"neighbour.py": "NAME = 1\n"})
    bench.lives("neighbour")
    live = bench.site / "neighbour.py"
    code = """
        import os, neighbour
        here = os.path.dirname(__file__)
        for path in (here + '/new.txt', here + '/sub', __file__, neighbour.__file__, LIVE):
            for attempt in (lambda: open(path, 'a').write('# more'), lambda: os.remove(path)):
                try:
                    attempt()
                except OSError:
                    continue
                raise SystemExit('it worked: ' + path)
    """
    bench.module("trying", f"LIVE = {str(live)!r}\n{lines(code)}", requires=["neighbour"])
    bench.lives("trying")
    assert live.read_text() == "NAME = 1\n"
    assert {path.name for path in bench.site.iterdir() if "." in path.name and path.suffix == ".py"} == {
        "neighbour.py", "trying.py", "_siteswap.py", "_siteswap_advance.py",
    }  # fmt: skip


def test_what_is_no_byte_code_is_removed_from_where_byte_code_goes(bench: Bench) -> None:
    """The one place in the candidate that an import may write to keeps just byte-code of sources."""
    code = """
        import os
        cache = os.path.dirname(__file__) + '/__pycache__/'
        os.makedirs(cache + 'deep')
        for name in ('data.txt', 'nobody.cpython-311.pyc', 'deep/x'):
            open(cache + name, 'w').close()
    """
    bench.wheel("caching", files={"caching/__init__.py": lines(code), "caching/other.py": ""})
    bench.lives("caching")
    assert [path.name.partition(".")[0] for path in (bench.site / "caching/__pycache__").iterdir()] == [
        "__init__"
    ]


def test_a_home_of_its_own(bench: Bench, tmp_path: Path) -> None:
    """An import may write to HOME, TMPDIR and the caches; not the user's, and gone afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    bench.variables = {"HOME": str(home), "UV_CACHE_DIR": str(tmp_path / "uv"), "TMPDIR": str(tmp_path)}
    bench.variables |= {"XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    code = """
        import os, pathlib, tempfile
        home = pathlib.Path.home()
        (home / '.homely').write_text('x')
        tempfile.NamedTemporaryFile(delete=False)
        for name in ('CACHE', 'CONFIG', 'DATA', 'STATE'):
            where = pathlib.Path(os.environ[f'XDG_{name}_HOME'])
            assert where.is_relative_to(home), where
            where.mkdir(parents=True)
            (where / 'file').write_text('x')
    """
    bench.module("homely", lines(code))
    before = sorted(tmp_path.iterdir())
    bench.lives("homely")
    assert list(home.rglob("*")) == []
    assert {path.name for path in sorted(tmp_path.iterdir()) if path not in before} <= {"uv", "uv.lock"}


# -- warnings --------------------------------------------------------------------------------------


def test_an_import_that_now_warns_is_told(bench: Bench) -> None:
    """New warnings are told, those that were there are not, and neither blocks."""
    warn = "import warnings; warnings.warn({!r}, UserWarning)\n"
    bench.module("warning", warn.format("the old one"))
    assert "warns" not in bench.lives("warning").err
    bench.module("warning", warn.format("the old one") + warn.format("something new"), "2.0")
    done = bench.lives("-U", "warning")
    assert "note: warning 2.0 now warns when it is imported: UserWarning: something new" in done.err
    assert "the old one" not in done.err


# -- what came along, and what is optional ----------------------------------------------------------


def test_what_came_along_must_import(shared: Bench) -> None:
    """A dependency that fails of itself is refused like what was asked for, and says what pulled it in."""
    shared.wheel("puller", requires=["dragged"])
    shared.module("dragged", "1 / 0")
    done = shared.refused("puller")
    assert "dragged 1.0: import dragged fails: ZeroDivisionError" in done.err
    assert "needed by puller 1.0" in done.err


def test_an_optional_part_of_what_came_along_is_told(bench: Bench) -> None:
    """What came along and wants a module that nothing brings is told; asked for by name, it is refused."""
    bench.module("dragged", "import optional_thing")
    assert "No module named 'optional_thing'" in bench.refused("dragged").err
    bench.wheel("puller", requires=["dragged"])
    done = bench.lives("puller")
    assert "note: dragged 1.0: import dragged fails: ModuleNotFoundError: " in done.err


def test_a_part_of_something_installed_is_not_optional(shared: Bench) -> None:
    """A module that an installed package should have and has not is a break, also of what came along."""
    shared.wheel("puller", requires=["dragged"])
    shared.module("dragged", "import neighbour.part", requires=["neighbour"])
    assert "dragged 1.0: import dragged fails: ModuleNotFoundError" in shared.refused("puller").err


def test_an_optional_module_that_is_gone_is_a_break(bench: Bench) -> None:
    """The same wanted module, where it was there before: refused."""
    bench.module("extra-thing", "")
    bench.wheel("holder", requires=["extra-thing"])
    bench.module("dragged", "import extra_thing", requires=["settings-of-it"])
    bench.wheel("settings-of-it")
    bench.wheel("puller", requires=["dragged"])
    bench.wheels.joinpath("extra_thing-1.0-py3-none-any.whl").unlink()
    bench.wheel("extra-thing", files={"extra_thing.py": ""})
    bench.lives("holder", "puller")
    bench.wheel("extra-thing", "2.0", {"another_name.py": ""})
    done = bench.refused("-U", "extra-thing")
    assert "dragged 1.0: import dragged fails: ModuleNotFoundError: No module named 'extra_thing'" in done.err
    assert "needed by puller 1.0" in done.err
    assert "works in generation 2 (dragged 1.0); since then: extra-thing 1.0 → 2.0" in done.err


# -- held against the base -------------------------------------------------------------------------


def pair(bench: Bench, first: str = "name = 1", second: str = "") -> None:
    """`upper` imports a name from `lower`, which its 2.0 does not have."""
    bench.module("lower", first)
    bench.module("upper", "from lower import name", requires=["lower"])
    bench.lives("upper")
    bench.module("lower", second, "2.0")


def test_an_upgrade_that_breaks_what_needs_it(bench: Bench) -> None:
    """The message names what breaks, what pulled it in, and what changed since it worked."""
    bench.wheel("puller", requires=["upper"])
    bench.module("lower", "name = 1")
    bench.module("upper", "from lower import name", requires=["lower"])
    bench.lives("puller")
    bench.module("lower", "", "2.0")
    done = bench.refused("-U", "lower")
    assert "upper 1.0: import upper fails: ImportError: cannot import name 'name' from 'lower'" in done.err
    assert "needed by puller 1.0" in done.err
    assert "works in generation 2 (upper 1.0); since then: lower 1.0 → 2.0" in done.err
    assert run_python(bench.env / "bin/python", "import upper; print(upper.name)") == "1"


def test_an_upgrade_that_breaks_itself(bench: Bench) -> None:
    """What worked in the base and fails now is refused, with both versions."""
    bench.module("itself", "")
    bench.lives("itself")
    bench.module("itself", "1 / 0", "2.0")
    done = bench.refused("-U", "itself")
    assert "itself 2.0: import itself fails: ZeroDivisionError" in done.err
    assert "works in generation 2 (itself 1.0); since then: itself 1.0 → 2.0" in done.err


def test_undeclared_use_that_an_earlier_check_saw(bench: Bench) -> None:
    """What was seen to import a distribution is tried when that changes, declared or not."""
    bench.module("lower", "name = 1")
    bench.module("upper", "from lower import name")
    bench.module("stranger", "import sys; open(sys.argv[0] + 'x' if 0 else '/dev/null')")
    bench.lives("lower", "upper", "stranger")
    known = json.loads((generation(bench.env) / ".generation/imports.json").read_text())
    assert set(known["upper"]) == {"upper", "lower"}
    bench.module("lower", "", "2.0")
    done = bench.refused("-U", "lower")
    assert "upper 1.0: import upper fails: ImportError" in done.err
    assert "since then: lower 1.0 → 2.0" in done.err
    (row,) = [row for row in bench.verdict()["checks"] if row["check"] == "imports"]
    assert row["what"] == "2 modules and 0 programs of 2 distributions", "lower and upper, not stranger"


def test_undeclared_use_is_remembered_across_generations(bench: Bench) -> None:
    """What was seen stays known when something else is installed, and a lost note loses only that."""
    bench.module("lower", "name = 1")
    bench.module("upper", "from lower import name")
    bench.lives("lower", "upper")
    bench.module("other", "")
    bench.lives("other")
    bench.module("lower", "", "2.0")
    assert "import upper fails" in bench.refused("-U", "lower").err
    (generation(bench.env) / ".generation/imports.json").write_text("{")
    bench.lives("-U", "lower")


def test_a_failure_that_was_there_is_not_new(bench: Bench) -> None:
    """What was broken in the same way before does not block an upgrade of what it needs; it is told."""
    bench.module("lower", "")
    bench.module(
        "upper", "import lower\nraise RuntimeError('as ever, at 0x%x' % id(lower))", requires=["lower"]
    )
    bench.lives("upper", "--no-check")
    bench.module("lower", "X = 2", "2.0")
    done = bench.lives("-U", "lower")
    assert "note: not new: upper 1.0: import upper fails: RuntimeError: as ever" in done.err
    (row,) = [row for row in bench.verdict()["checks"] if row["check"] == "imports"]
    assert row["outcome"] == "unchanged-failure"


def test_a_failure_of_another_kind_is_new(bench: Bench) -> None:
    """What was broken, and is broken in another way now, blocks."""
    bench.module("lower", "raise RuntimeError('one way')")
    bench.lives("lower", "--no-check")
    bench.module("lower", "raise RuntimeError('another way')", "2.0")
    done = bench.refused("-U", "lower")
    assert "lower 2.0: import lower fails: RuntimeError: another way" in done.err
    bench.module("lower", "raise RuntimeError('one way')", "3.0")
    assert "not new: lower 3.0" in bench.lives("-U", "lower").err


def test_allow_broken(bench: Bench) -> None:
    """What is named is told and let pass, by option or by setting; others are not."""
    bench.wheel("bad-one", files={"bad_one.py": "1 / 0"})
    bench.wheel("bad-two", files={"bad_two.py": "1 / 0"})
    done = bench.refused("bad-one", "bad-two", "--allow-broken", "Bad_One")
    assert "bad-two 1.0: import bad_two fails" in done.err
    assert "the checks found 1 thing wrong" in done.err
    assert (
        "note: bad-one 1.0: import bad_one fails" in bench.lives("bad-one", "--allow-broken", "Bad_One").err
    )
    (bench.env / "siteswap.toml").write_text('allow-broken = ["bad.two"]\n')
    assert "note: bad-two 1.0: import bad_two fails" in bench.lives("bad-two").err


# -- entry points ----------------------------------------------------------------------------------

NOWHERE = {
    "module": ("nowhere.at.all:main", "the program pointing needs module nowhere.at.all"),
    "own module": ("pointing.missing:main", "the program pointing needs module pointing.missing"),
    "attribute": ("pointing:missing", "program pointing cannot be loaded: AttributeError: module 'pointing'"),
    "dotted": ("pointing:main.missing", "program pointing cannot be loaded: AttributeError"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOWHERE)
@pytest.mark.parametrize("group", ["scripts", "gui_scripts"])
def test_a_program_that_leads_nowhere_is_refused(shared: Bench, kind: str, group: str) -> None:
    """A console or gui program whose module or function is not there keeps the change from going live."""
    target, why = NOWHERE[kind]
    points: dict[str, Any] = {group: {"pointing": target}}
    shared.wheel("pointing", files={"pointing/__init__.py": "def main(): pass\n"}, **points)
    assert why in shared.refused("pointing").err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[console_scripts]\nx = :main\n", "the value is not module:attribute"),
        ("[console_scripts]\nx = pointing\n", "the value names no function to call"),
        ("[console_scripts]\nx pointing:main\n", "is neither a group nor name = value"),
        (b"[plugins]\nx = \xff\n", "entry_points.txt is not UTF-8"),
    ],
)
def test_malformed_entry_points(shared: Bench, content: str | bytes, why: str) -> None:
    """Entry points that are no entry points are refused: as a wheel, or by the check."""
    shared.wheel("pointing", files={"pointing.py": "", "pointing-1.0.dist-info/entry_points.txt": content})
    done = shared.refused("pointing")
    assert why in done.err or "pointing-1.0-py3-none-any.whl is not a valid wheel" in done.err


def test_a_program_that_wants_an_optional_module_is_told(bench: Bench) -> None:
    """A program may need what only an extra brings; what worked before must go on to work."""
    bench.wheel(
        "tooled", files={"tooled/__init__.py": "", "tooled/cli.py": "import click_like\ndef main(): pass\n"},
        scripts={"tooled": "tooled.cli:main"},
    )  # fmt: skip
    done = bench.lives("tooled")
    assert "note: tooled 1.0: program tooled cannot be loaded: ModuleNotFoundError" in done.err
    bench.wheel("click-like", files={"click_like.py": ""})
    bench.lives("click-like")
    files = {"tooled/__init__.py": "", "tooled/cli.py": "import gone\ndef main(): pass\n"}
    bench.wheel("tooled", "2.0", files, scripts={"tooled": "tooled.cli:main"})
    done = bench.refused("-U", "tooled")
    assert (
        "tooled 2.0: program tooled cannot be loaded: ModuleNotFoundError: No module named 'gone'" in done.err
    )


def test_a_program_of_a_widened_path(bench: Bench) -> None:
    """A program whose module no file shows, and that can be loaded all the same, is no finding."""
    code = "import os; __path__.append(os.path.dirname(__file__) + '/_vendored')\n"
    bench.wheel(
        "widening", files={"widening/__init__.py": code, "widening/_vendored/inner.py": "def main(): pass\n"},
        scripts={"widening": "widening.inner:main"},
    )  # fmt: skip
    assert bench.lives("widening").err == ""


def test_a_program_without_its_module_before_and_after(bench: Bench) -> None:
    """The same dead program in the base does not block the next version."""
    for version in ("1.0", "2.0"):
        bench.wheel("pointing", version, {"pointing.py": ""}, scripts={"pointing": "nowhere:main"})
    bench.lives("pointing==1.0", "--no-check")
    assert (
        "not new: pointing 2.0: the program pointing needs module nowhere"
        in bench.lives("-U", "pointing").err
    )


def test_a_plug_in_that_leads_nowhere(bench: Bench) -> None:
    """A plug-in for something that is not here is told at first, and blocks where it was sound."""
    bench.wheel("plugged", files={"plugged.py": ""}, plugins={"somewhere": {"it": "nowhere:thing"}})
    assert "note: plugged 1.0: its somewhere it needs module nowhere" in bench.lives("plugged").err
    bench.wheel("plugged", "2.0", {"plugged.py": ""}, plugins={"somewhere": {"it": "plugged:thing"}})
    assert bench.lives("-U", "plugged").err == ""
    bench.wheel("plugged", "3.0", {"plugged.py": ""}, plugins={"somewhere": {"it": "nowhere:thing"}})
    assert "plugged 3.0: its somewhere it needs module nowhere" in bench.refused("-U", "plugged").err


def test_a_plug_in_that_is_new_and_leads_nowhere(bench: Bench) -> None:
    """A plug-in that the base does not have is told, as at a first install."""
    bench.wheel("plugged", files={"plugged.py": ""}, plugins={"somewhere": {"old": "plugged:thing"}})
    bench.lives("plugged")
    points = {"old": "plugged:thing", "new": "nowhere:thing"}
    bench.wheel("plugged", "2.0", {"plugged.py": ""}, plugins={"somewhere": points})
    assert "note: plugged 2.0: its somewhere new needs module nowhere" in bench.lives("-U", "plugged").err


def test_a_plug_in_that_led_nowhere_before(bench: Bench) -> None:
    """A plug-in that was broken in another way was not sound, so that it is broken is told."""
    bench.wheel("plugged", files={"plugged.py": ""}, plugins={"somewhere": {"it": "nowhere:thing"}})
    bench.lives("plugged")
    bench.wheel("plugged", "2.0", {"plugged.py": ""}, plugins={"somewhere": {"it": "elsewhere:thing"}})
    assert "note: plugged 2.0: its somewhere it needs module elsewhere" in bench.lives("-U", "plugged").err


# -- byte-code -------------------------------------------------------------------------------------

LAZY = {"lazy/__init__.py": "def use():\n    import lazy.late\n", "lazy/late.py": "def f(:\n"}


def test_a_syntax_error_that_nothing_imports(bench: Bench) -> None:
    """A lazily imported module is not tried, told with --compile, and blocks where it compiled before."""
    wrong = "lazy/late.py does not compile: SyntaxError: invalid syntax (line 1)"
    bench.wheel("lazy", files=LAZY)
    assert bench.lives("lazy").err == ""
    bench.run("uninstall", "lazy").ok()
    done = bench.lives("lazy", "--compile")
    assert "note: lazy 1.0: " in done.err
    assert wrong in done.err
    bench.wheel("lazy", "2.0", {**LAZY, "lazy/other.py": ""})
    done = bench.lives("-U", "lazy", "--compile")
    assert "note: not new: lazy 2.0: " in done.err
    assert wrong in done.err
    bench.wheel("lazy", "3.0", {**LAZY, "lazy/late.py": "X = 1\n"})
    assert bench.lives("-U", "lazy", "--compile").err == ""
    bench.wheel("lazy", "4.0", LAZY)
    done = bench.refused("-U", "lazy", "--compile")
    assert "lazy 4.0: " in done.err
    assert wrong in done.err
    assert bench.lives("-U", "lazy").err == ""


def test_nothing_is_compiled_where_it_is_published(bench: Bench) -> None:
    """Looking whether the base compiled leaves no byte-code there."""
    bench.wheel("lazy", files={**LAZY, "lazy/late.py": "X = 1\n", "lazy/more.py": ""})
    bench.lives("lazy")
    was = generation(bench.env)
    bench.wheel("lazy", "2.0", LAZY)
    bench.refused("-U", "lazy", "--compile")
    bench.lives("-U", "lazy", "--compile", "--no-check")
    assert list(was.rglob("lazy/__pycache__/more*")) == []
    assert list(generation(bench.env).rglob("lazy/__pycache__/__init__*")) != []


# -- shared libraries ------------------------------------------------------------------------------

EXTENSION = ".abi3.so"


@needs_compiler
def test_a_library_that_is_missing_at_the_top(shared: Bench) -> None:
    """An extension module that is imported at once fails with what the linker says."""
    shared.wheel(
        "native", files={"native/__init__.py": "from . import _x", f"native/_x{EXTENSION}": linked()}
    )
    done = shared.refused("native")
    assert (
        "native 1.0: import native fails: ImportError: libdemo.so.1: cannot open shared object file"
        in done.err
    )


@needs_compiler
def test_a_library_that_is_missing_below(bench: Bench) -> None:
    """A lazily imported extension module that lacks its library is told; it blocks where it was whole."""
    broken: dict[str, str | bytes] = {"native/__init__.py": "", f"native/_x{EXTENSION}": linked()}
    whole: dict[str, str | bytes] = {
        "native/__init__.py": "", f"native/_x{EXTENSION}": linked("-Wl,-rpath,$ORIGIN"),
        "native/libdemo.so.1": library(),
    }  # fmt: skip
    wrong = f"native/_x{EXTENSION} needs libdemo.so.1, which neither this"
    bench.wheel("native", files=broken)
    assert f"note: native 1.0: {wrong}" in bench.lives("native").err
    bench.wheel("native", "2.0", {**broken, "native/more.py": ""})
    assert f"note: not new: native 2.0: {wrong}" in bench.lives("-U", "native").err
    bench.wheel("native", "2.5", {**broken, f"native/_x{EXTENSION}": linked(soname="libother.so.1")})
    assert "note: native 2.5: native/_x" in bench.lives("-U", "native").err, "it was broken already"
    bench.wheel("native", "3.0", whole)
    assert bench.lives("-U", "native").err == ""
    bench.wheel("native", "4.0", broken)
    assert f"native 4.0: {wrong}" in bench.refused("-U", "native").err


@needs_compiler
@needs_glibc
def test_a_newer_glibc(bench: Bench) -> None:
    """An extension module for a newer C library is refused at once, imported or not; not new where it was."""
    bench.wheel("native", files={"native/__init__.py": "", f"native/_x{EXTENSION}": for_glibc("9.87")})
    assert f"native 1.0: native/_x{EXTENSION} needs glibc 9.87 or newer" in bench.refused("native").err
    bench.lives("native", "--no-check")
    bench.wheel("native", "2.0", {"native/__init__.py": "", f"native/_x{EXTENSION}": for_glibc("9.87"),
                                  "native/more.py": ""})  # fmt: skip
    assert "not new: native 2.0: " in bench.lives("-U", "native").err


# -- tags, metadata, files -------------------------------------------------------------------------


def test_a_wheel_for_another_interpreter(bench: Bench) -> None:
    """The tags inside count, whatever the file is called; what was there in the same way is not new."""
    tag = "cp27-cp27mu-linux_x86_64"
    bench.wheel("tagged", tag_inside=tag)
    assert f"tagged 1.0: its wheel is made for {tag}, not for cpython 3." in bench.refused("tagged").err
    bench.lives("tagged", "--no-check")
    bench.wheel("tagged", "2.0", tag_inside=tag)
    assert "not new: tagged 2.0: its wheel is made for" in bench.lives("-U", "tagged").err
    bench.wheel("tagged", "3.0")
    bench.lives("-U", "tagged")
    bench.wheel("tagged", "4.0", tag_inside=tag)
    bench.refused("-U", "tagged")


def test_metadata_of_another_name(shared: Bench) -> None:
    """A wheel whose METADATA is somebody else's is refused before anything is tried."""
    shared.wheel("named", name_inside="otherwise")
    done = shared.refused("named")
    assert "otherwise" in done.err
    assert len(done.err.splitlines()) <= 8


def test_dependencies_that_are_missing(bench: Bench) -> None:
    """A requirement that is not met is refused, told with --no-deps, and not new afterwards."""
    bench.wheel("needing", requires=["absent"])
    bench.wheel("unrelated")
    done = bench.refused("needing")
    assert "absent" in done.err
    done = bench.lives("needing", "--no-deps")
    assert "note: needing 1.0: needs absent, which is not installed" in done.err
    done = bench.lives("unrelated", "--no-deps")
    assert "not new: needing 1.0: needs absent, which is not installed" in done.err


def test_a_dependency_of_the_wrong_version(bench: Bench) -> None:
    """Bringing a version that something installed does not allow is refused by resolving or by the check."""
    bench.wheel("needing", requires=["needed<2"])
    bench.wheel("needed", "1.0")
    bench.lives("needing")
    bench.wheel("needed", "2.0")
    assert "needed" in bench.refused("needed==2.0").err
    done = bench.lives("needed==2.0", "--no-deps")
    assert "note: needing 1.0: needs needed<2, but needed 2.0 is installed" in done.err


def test_a_lock_whose_parts_do_not_fit(bench: Bench) -> None:
    """`sync` takes what a lock says; the check of dependencies refuses what does not fit together."""
    bench.wheel("needing", requires=["needed<2"])
    two = bench.wheel("needed", "2.0")
    one = bench.wheels / "needing-1.0-py3-none-any.whl"
    (bench.root / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "tests"\n'
        + "".join(
            f'[[packages]]\nname = "{name}"\nversion = "{version}"\n[[packages.wheels]]\n'
            f'name = "{path.name}"\npath = "wheels/{path.name}"\nhashes = {{sha256 = "{_sha256(path)}"}}\n'
            for name, version, path in (("needing", "1.0", one), ("needed", "2.0", two))
        )
    )
    number = current(bench.env)
    done = bench.run("sync", "pylock.toml", "--no-index")
    assert done.status == 1
    assert "needing 1.0: needs needed<2, but needed 2.0 is installed" in done.err
    assert current(bench.env) == number
    bench.nothing_left()
    bench.run("sync", "pylock.toml", "--no-index", "--allow-broken", "needing").ok()


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_requires_python(bench: Bench) -> None:
    """A wheel that another Python must run is refused, by whoever notices first."""
    path = bench.wheel("modern", requires_python=">=4")
    assert "4" in bench.refused("modern").err
    (bench.root / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "tests"\n[[packages]]\nname = "modern"\nversion = "1.0"\n'
        f'[[packages.wheels]]\nname = "{path.name}"\npath = "wheels/{path.name}"\n'
        f'hashes = {{sha256 = "{_sha256(path)}"}}\n'
    )
    done = bench.run("sync", "pylock.toml", "--no-index")
    assert done.status == 1
    assert "modern 1.0: needs Python >=4, not 3." in done.err
    assert current(bench.env) == 1


def cached(cache: Path, name: str) -> Path:
    """The file of that name in a cache of unpacked wheels."""
    (found,) = cache.glob(f"wheels/*/**/{name}")
    return found


def test_a_damaged_cache(bench: Bench, tmp_path: Path) -> None:
    """A cached file that was edited is refused in the next environment, and the file is named."""
    cache = tmp_path / "cache"
    bench.variables = {"SITESWAP_CACHE_DIR": str(cache)}
    bench.wheel("cached", files={"cached/__init__.py": "", "cached/data.txt": "as it was\n"})
    bench.lives("cached")
    path = cached(cache, "data.txt")
    path.unlink()
    path.write_text("something else\n")
    second = Bench(bench._siteswap, tmp_path / "second")
    second.variables, second.wheels = bench.variables, bench.wheels
    second.root.mkdir()
    bench._siteswap("create", second.env).ok()
    done = second.refused("cached", "--allow-broken", "cached")
    assert "site-packages/cached/data.txt has 15 bytes where RECORD says 10" in done.err
    second.lives("cached")
    assert (second.site / "cached/data.txt").read_text() == "as it was\n", "unpacked anew"
    assert (bench.site / "cached/data.txt").read_text() == "as it was\n"


def test_a_damaged_file_is_never_excused(bench: Bench, tmp_path: Path) -> None:
    """What the base has damaged in the same way does not let the next version's damage pass."""
    cache = tmp_path / "cache"
    bench.variables = {"SITESWAP_CACHE_DIR": str(cache)}
    for version in ("1.0", "2.0"):
        bench.wheel("cached", version, {"cached/__init__.py": "", "cached/data.txt": "as it was\n"})
        bench.run("uninstall", "cached")
        bench.install(f"cached=={version}").ok()
    bench.run("uninstall", "cached").ok()
    for path in cache.glob("wheels/*/**/data.txt"):
        path.unlink()
        path.write_text("as it wos\n")
    bench.lives("cached==1.0", "--no-check")
    done = bench.refused("cached==2.0")
    assert "site-packages/cached/data.txt does not have the content that RECORD says" in done.err


# -- start-up code ---------------------------------------------------------------------------------


def starting(bench: Bench, version: str, line: str) -> None:
    """A distribution with a .pth file of one line."""
    bench.wheel("starting", version, {"starting.py": "", "starting.pth": f"{line}\n"})


def test_start_up_code_is_named(bench: Bench) -> None:
    """New code at every start is named and may be refused; a changed line is new, the same is not."""
    starting(bench, "1.0", "import sys; sys.one = 1")
    said = "starting {}: runs code at every start of Python: starting.pth: import sys; {}"
    assert said.format("1.0", "sys.one = 1") in bench.refused("starting", "--no-startup-code").err
    assert f"note: {said.format('1.0', 'sys.one = 1')}" in bench.lives("starting").err
    starting(bench, "2.0", "import sys; sys.one = 1")
    assert bench.lives("-U", "starting", "--no-startup-code").err == ""
    starting(bench, "3.0", "import sys; sys.one = 2")
    assert said.format("3.0", "sys.one = 2") in bench.refused("-U", "starting", "--no-startup-code").err
    (bench.env / "siteswap.toml").write_text("startup-code = false\n")
    bench.refused("-U", "starting")
    (bench.env / "siteswap.toml").unlink()
    assert said.format("3.0", "sys.one = 2") in bench.lives("-U", "starting").err


def test_a_sitecustomize_is_start_up_code(shared: Bench) -> None:
    """A module that Python imports by itself counts as well."""
    shared.wheel("customizing", files={"sitecustomize.py": "", "customizing.py": ""})
    done = shared.refused("customizing", "--no-startup-code")
    assert "runs code at every start of Python: sitecustomize.py: import sitecustomize" in done.err


def test_start_up_code_that_breaks_python_is_found(shared: Bench) -> None:
    """Code that ends every start of Python keeps the change from going live."""
    starting(shared, "1.0", "import os; os._exit(9)")
    assert "it ends the interpreter (exit status 9)" in shared.refused("starting").err


# -- --no-check ------------------------------------------------------------------------------------


def test_without_checks_nothing_is_tried(bench: Bench) -> None:
    """--no-check lets everything pass, leaves no verdict, and history remembers it."""
    bench.module("failing", "import os; os._exit(1)")
    bench.lives("failing", "--no-check")
    assert not (bench.env / ".siteswap/log").exists() or list((bench.env / ".siteswap/log").iterdir()) == []
    rows = bench.run("history", "--json").json
    assert [row["checked"] for row in rows] == ["passed", "skipped"]
    assert "not checked" in bench.run("history").ok().out


# -- without Landlock ------------------------------------------------------------------------------


# -- without Landlock ------------------------------------------------------------------------------

NO_LANDLOCK = (
    "import sys; from siteswap import cli, confinement; confinement.LANDLOCK = False; sys.exit(cli.main())"
)


def unconfined(bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    """An install as on a kernel without Landlock."""
    options = ("install", "-e", str(bench.env), "--no-index", "-f", str(bench.wheels), *words)
    return subprocess.run([sys.executable, "-c", NO_LANDLOCK, *options], capture_output=True, text=True)


def test_without_landlock_new_files_are_removed(bench: Bench) -> None:
    """Where writing is not confined a note says so, and what was made in the candidate goes again."""
    code = "import os; open(os.path.dirname(__file__) + '/new.txt', 'w')"
    bench.wheel("writing", files={"writing/__init__.py": code})
    done = unconfined(bench, "writing")
    assert done.returncode == 0, done.stderr
    assert "this kernel does not confine what checks write (no Landlock)" in done.stderr
    assert "a check wrote" in done.stderr
    assert {path.name for path in (bench.site / "writing").iterdir()} <= {"__init__.py", "__pycache__"}
    bench.nothing_left(2)


@pytest.mark.parametrize(
    "change", ["open(path, 'a').write('# more')", "os.chmod(path, 0o700)", "os.remove(path)"]
)
def test_without_landlock_edits_are_found(bench: Bench, change: str) -> None:
    """A file of the candidate that was edited, or is gone, refuses it; its wheel is unpacked anew."""
    bench.module("other", "X = 1")
    bench.lives("other")
    bench.module("writing", f"import os\npath = __file__\n{change}", requires=["other"])
    done = unconfined(bench, "writing")
    assert done.returncode == 1, done.stderr
    assert "a check changed what it should only try" in done.stderr
    assert "writing" in done.stderr
    assert "generation 2 stays current" in done.stderr
    assert current(bench.env) == 2
    bench.nothing_left()
    assert bench.lives("writing", "--no-check")
    assert "# more" not in (bench.site / "writing.py").read_text().replace(change, "")
