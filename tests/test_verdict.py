"""What findings mean and how they are shown, what is imported, and the programs that try it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siteswap import probe
from siteswap.checks.modules import brings, importable
from siteswap.layout import Number
from siteswap.manifest import Interpreter
from siteswap.verdict import Check, Finding, Standing, Tried, Verdict, judged, shown

# -- judging ---------------------------------------------------------------------------------------

words = st.text(max_size=30)
findings = st.builds(
    Finding, st.sampled_from(Check), st.sampled_from(["a", "b"]), words, st.sampled_from(["p", "q"]),
    suspected=st.booleans(), standing=st.sampled_from(Standing),
)  # fmt: skip


@given(
    st.lists(findings), st.lists(findings), st.dictionaries(st.sampled_from(["a:p", "b:q"]), st.booleans())
)
def test_each_finding_gets_one_standing(
    found: list[Finding], before: list[Finding], sound: dict[str, bool]
) -> None:
    """Nothing is lost or added; what blocks is new, and no mere suspicion about a part that was not sound."""
    result = judged(found, before, sound=sound)
    assert [replace(item, standing=Standing.TOLD) for item in result] == [
        replace(item, standing=Standing.TOLD) for item in found
    ]
    ways = {item.way for item in before}
    for was, now in zip(found, result, strict=True):
        if was.standing is not Standing.BLOCKS:
            assert now.standing is was.standing
        elif was.way in ways:
            assert now.standing is Standing.UNCHANGED
        elif was.suspected:
            known = sound.get(f"{was.subject}:{was.part}", False)
            assert now.standing is (Standing.BLOCKS if known else Standing.TOLD)
        else:
            assert now.standing is Standing.BLOCKS


def finding(message: str, **more: Any) -> Finding:
    """A finding about one module."""
    return Finding(**{"check": Check.IMPORTS, "subject": "a", "message": message, "part": "m", **more})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("fails at 0x7f12ab", "fails at 0xdeadBEEF", True),
        ("line 3 of 17", "line 30000 of 1", True),
        ("in /e/.siteswap/generations/3/lib/x.py", "in /other/.siteswap/generations/12/lib/x.py", True),
        ("needs a 1.0", "needs a 2.0.1", True),
        ("fails", "fails otherwise", False),
        ("in /e/.siteswap/generations/3/lib/x.py", "in /e/.siteswap/generations/3/lib/y.py", False),
        ("No module named 'a'", "No module named 'b'", False),
        ("one 1", "one", False),
    ],
)
def test_in_the_same_way(one: str, other: str, same: bool) -> None:
    """The same words up to numbers, addresses and paths of generations."""
    assert (finding(one).way == finding(other).way) is same


@given(words, st.integers(min_value=0), st.integers(min_value=0))
def test_numbers_do_not_count(text: str, one: int, other: int) -> None:
    """Whatever stands around a number or an address, it may differ."""
    assert finding(f"{text} {one} {one:#x}").way == finding(f"{text} {other} {other:#x}").way


@pytest.mark.parametrize(
    "change", [{"check": Check.FILES}, {"subject": "b"}, {"part": "n"}, {"message": "other"}]
)
def test_another_part_is_another_way(change: dict[str, Any]) -> None:
    """Check, distribution and part count; version, output and standing do not."""
    one = finding("message")
    assert replace(one, **change).way != one.way
    assert replace(one, version="9", detail="x", standing=Standing.TOLD, missing="z").way == one.way


def test_the_worst_counts() -> None:
    """A row is as bad as its worst finding; a verdict passes unless one blocks."""

    def row(*standings: Standing) -> Tried:
        return Tried(Check.FILES, "x", 0, tuple(finding("m", standing=item) for item in standings))

    assert row().outcome == "passed"
    assert row(Standing.UNCHANGED).outcome == "unchanged-failure"
    assert row(Standing.UNCHANGED, Standing.TOLD).outcome == "told"
    assert row(Standing.TOLD, Standing.BLOCKS, Standing.UNCHANGED).outcome == "failed"
    good = Verdict(Number(2), None, "", "", (row(Standing.TOLD), row()))
    assert good.passed
    assert not replace(good, tried=(row(), row(Standing.BLOCKS))).passed


# -- showing ---------------------------------------------------------------------------------------

TRACE = """Traceback (most recent call last):
  File "/e/.siteswap/generations/2/lib/python3.11/site-packages/a.py", line 1, in <module>
    import b
  File "/e/.siteswap/generations/2/lib/python3.11/site-packages/b.py", line 7, in f
    1 / 0
ZeroDivisionError: division by zero
"""


def test_where_a_traceback_ends() -> None:
    """Of a traceback the last frame, if the message says the rest; otherwise the output's end."""
    assert shown(
        [finding("import a fails: ZeroDivisionError: division by zero", detail=TRACE)]
    ).splitlines() == [
        "a: import a fails: ZeroDivisionError: division by zero",
        '    File "lib/python3.11/site-packages/b.py", line 7, in f',
        "      1 / 0",
    ]
    assert shown([finding("exit status 1", detail=TRACE)]).splitlines()[1:] == [
        *("    " + line for line in TRACE.replace("/e/.siteswap/generations/2/", "").splitlines()[1:]),
    ]


def test_the_end_of_other_output() -> None:
    """The last lines that are not empty, then why; nothing for no output."""
    long = "\n\n".join(f"line {number}" for number in range(20))
    found = finding("failed", version="1.0", detail=long, why=("asked for by name",))
    assert shown([found]).splitlines() == [
        "a 1.0: failed", *(f"    line {number}" for number in range(15, 20)), "    asked for by name",
    ]  # fmt: skip
    assert shown([finding("failed")]) == "a: failed"
    assert shown([]) == ""


@given(st.lists(st.builds(finding, words, detail=st.text() | st.just(TRACE)), min_size=1))
def test_nothing_shown_moves_a_terminal(found: list[Finding]) -> None:
    """Whatever was printed, only printable text in lines is shown, and a bounded amount of it."""
    lines = shown(found).split("\n")
    assert all(line.isprintable() and len(line) <= 1000 for line in lines)
    assert len(lines) <= 6 * len(found)


# -- what is imported ------------------------------------------------------------------------------

SITE = "lib/python3.12/site-packages"
INTERPRETER = Interpreter(
    executable="/usr/bin/python3", version="3.12.1", implementation="cpython", cache_tag="cpython-312",
    schemes={"purelib": SITE, "platlib": SITE, "scripts": "bin", "data": "", "headers": "include"},
    lib64=True, markers={}, tags=("py3-none-any",), fingerprint="1:2",
)  # fmt: skip


@pytest.mark.parametrize(
    ("paths", "modules"),
    [
        (["a/__init__.py", "a/b.py", "a/c/__init__.py"], ["a"]),
        (["a.py", "b.py", "_c.py"], ["a", "b"]),
        (["_a.py", "_b/__init__.py"], ["_a", "_b"]),
        (["ns/a/__init__.py", "ns/b/__init__.py", "ns/b/c.py"], ["ns.a", "ns.b"]),
        (["ns/a/__init__.py", "ns/loose.py"], ["ns.a"]),
        (["ns/one.py", "ns/deep/two.py"], ["ns.deep.two", "ns.one"]),
        (["ns/_private/__init__.py", "ns/a/__init__.py"], ["ns.a"]),
        (["a-stubs/__init__.pyi", "a-stubs/b.pyi"], []),
        (["a/__init__.pyi", "a/data.txt", "a/py.typed"], []),
        (["a/__init__.pyi", "a/__init__.py"], ["a"]),
        (["a/__init__.py", "tests/__init__.py", "docs/conf.py", "setup.py", "conftest.py"], ["a"]),
        (["tests/__init__.py", "test/x.py"], []),
        (["a/tests/__init__.py", "a/__init__.py"], ["a"]),
        (["a.cpython-312-x86_64-linux-gnu.so"], ["a"]),
        (["a.abi3.so", "b.so", "libc.so"], ["a", "b"]),
        (["a.cpython-39-x86_64-linux-gnu.so", "b.pypy39-pp73-x86_64-linux-gnu.so"], []),
        (["a.cpython-313-x86_64-linux-gnu.so", "a.cpython-312-x86_64-linux-gnu.so"], ["a"]),
        (["a/__init__.cpython-312-x86_64-linux-gnu.so"], ["a"]),
        (["a.libs/libx.so.1", "a.libs/libx.so"], []),
        (["a-b.py", "2to3.py", "class/__init__.py"], ["class"]),
        (["a-1.0.dist-info/METADATA", "a.pth"], []),
        ([], []),
    ],
)  # fmt: skip
def test_what_can_be_imported(paths: Sequence[str], modules: list[str]) -> None:
    """Packages, modules and extension modules; what begins below a namespace; no stubs, no accidents."""
    assert importable([f"{SITE}/{path}" for path in paths], INTERPRETER) == modules


def test_what_lies_elsewhere_is_not_imported() -> None:
    """Programs, headers and data are no modules."""
    assert importable(["bin/a.py", "a.py", "share/x/__init__.py", f"{SITE}x/a.py"], INTERPRETER) == []


names = st.sampled_from(["a", "b", "_c", "tests", "x-y", "__init__", "libz"])
endings = st.sampled_from([".py", ".pyi", ".so", ".txt", ".abi3.so", ".cpython-312-x86_64-linux-gnu.so"])
paths = st.builds(lambda parts, end: "/".join(parts) + end, st.lists(names, min_size=1, max_size=4), endings)


@given(st.lists(paths))
def test_every_module_has_a_file(given_paths: list[str]) -> None:
    """What is imported stands in a file or directory of that name, once each and whatever the order."""
    found = importable([f"{SITE}/{path}" for path in given_paths], INTERPRETER)
    assert found == sorted(set(found))
    assert found == importable([f"{SITE}/{path}" for path in reversed(given_paths)], INTERPRETER)
    for name in found:
        stem = name.replace(".", "/")
        assert any(path.startswith((f"{stem}.", f"{stem}/")) for path in given_paths), name
        assert all(part.isidentifier() for part in name.split("."))
        assert brings([f"{SITE}/{path}" for path in given_paths], INTERPRETER, name)


def test_what_is_brought() -> None:
    """Any module of a package counts as brought, its file there or not; a namespace alone does not."""
    files = [f"{SITE}/a/__init__.py", f"{SITE}/ns/b/__init__.py", f"{SITE}/c.py"]
    for module in ("a", "a.x.y", "ns.b", "ns.b.x", "c"):
        assert brings(files, INTERPRETER, module), module
    for module in ("ns", "ns.c", "ab", "d", ""):
        assert not brings(files, INTERPRETER, module), module


# -- the program that imports ----------------------------------------------------------------------


def imported(
    python: Path, directory: Path, tasks: list[tuple[str, str | None]]
) -> tuple[int, list[Any], str]:
    """Exit status, events and other output of importing, with `directory` to import from."""
    done = subprocess.run(
        [python, "-c", probe.import_source(), json.dumps(tasks)], capture_output=True, text=True,
        env={"PYTHONPATH": str(directory), "PATH": os.defpath}, check=False, timeout=60, cwd=directory.parent,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_importing_on_every_interpreter(python: Path, tmp_path: Path) -> None:
    """Each step is told before it is taken; failures carry their reason; output never mixes with events."""
    site = tmp_path / "site"
    site.mkdir()
    for name, text in {
        "good": "import os, warnings as w\nos.write(1, b'{}\\n')\nw.warn('take\\ncare')\nclass K: m = 1\n",
        "bad": "def f():\n    raise ValueError('two\\nlines')\nf()\n",
        "lacking": "try: import nowhere.at\nexcept ImportError as e: raise RuntimeError('x') from e\n",
        "leaving": "raise SystemExit(3)\n",
        "odd": "import json, sys\njson.dumps = None\nsys.stdout = None\n",
    }.items():
        (site / f"{name}.py").write_text(text)
    (tmp_path / "stray.py").write_text("")
    tasks: list[tuple[str, str | None]] = [
        ("good", None), ("bad", None), ("lacking", None), ("leaving", None), ("odd", None), ("good", "K.m"),
        ("good", "K.n"), ("stray", None), ("json", "dumps"),
    ]  # fmt: skip
    status, events, output = imported(python, site, tasks)
    assert status == 0, output
    assert [item["begin"] for item in events if "begin" in item] == list(range(9))
    failed = {item["failed"]: item for item in events if "failed" in item}
    assert {number: (item["error"], item["missing"]) for number, item in failed.items()} == {
        1: ("ValueError: two lines", None),
        2: ("RuntimeError: x", "nowhere"),
        3: ("SystemExit: 3", None),
        6: ("AttributeError: type object 'K' has no attribute 'n'", None),
        7: ("ModuleNotFoundError: No module named 'stray'", "stray"),
    }
    first = failed[1]["trace"].splitlines()
    assert first[0] == "Traceback (most recent call last):"
    assert str(site / "bad.py") in first[1], "nothing of the program itself"
    assert [item["warned"] for item in events if "warned" in item] == ["UserWarning: take care"]
    assert "{}" in output
    assert not {"good", "odd"} & set(events[-1]["loaded"]), "nothing of these is below its prefix"


@pytest.mark.parametrize(("code", "status"), [("import os; os._exit(7)", 7), ("import os; os.abort()", -6)])
def test_a_crash_is_known_by_what_was_begun(python: Path, tmp_path: Path, code: str, status: int) -> None:
    """When the interpreter ends, the last event names the module."""
    (tmp_path / "deadly.py").write_text(code)
    found, events, _ = imported(python, tmp_path, [("json", None), ("deadly", None), ("os", None)])
    assert found == status
    assert events[-1] == {"begin": 1}


def test_threads_and_exit_functions_do_not_keep_it(python: Path, tmp_path: Path) -> None:
    """It ends at once after the last import."""
    (tmp_path / "waiting.py").write_text(
        "import atexit, threading, time\nthreading.Thread(target=time.sleep, args=(300,)).start()\n"
        "atexit.register(time.sleep, 300)\n"
    )
    assert imported(python, tmp_path, [("waiting", None)])[0] == 0


def test_what_was_loaded(python: Path, tmp_path: Path) -> None:
    """Of what lies below the prefix the top-level names are told, and those first below a namespace."""
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    for path in ("ns/inner/__init__.py", "ns/inner/more.py", "package/__init__.py", "package/sub.py"):
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text("")
    (site / "single.py").write_text("import json, ns.inner.more, package.sub")
    _, events, _ = imported(tmp_path / "venv/bin/python", tmp_path, [("single", None)])
    assert events[-1] == {"loaded": ["ns.inner", "package", "single"]}


@pytest.mark.parametrize("write", ["write", "look"])
def test_compiling_on_every_interpreter(python: Path, tmp_path: Path, write: str) -> None:
    """What does not compile is named, whether byte-code is written or not; the rest has byte-code then."""
    files = {"fine.py": b"X = 1\n", "wrong.py": b"def f(:\n", "odd.py": b"x = '\xff'\n", "nul.py": b"\0"}
    for name, text in files.items():
        (tmp_path / name).write_bytes(text)
    names = [str(tmp_path / name) for name in (*files, "gone.py")]
    done = subprocess.run(
        [python, "-I", "-c", probe.compile_source(), write], input="".join(f"{name}\0" for name in names),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(item["path"]).name for item in events[:-1]] == ["wrong.py", "odd.py", "nul.py"]
    assert events[0]["problem"] == "SyntaxError: invalid syntax (line 1)"
    assert events[-1] == {"end": True}
    made = [path.name.partition(".")[0] for path in tmp_path.glob("__pycache__/*")]
    assert made == (["fine"] if write == "write" else [])
