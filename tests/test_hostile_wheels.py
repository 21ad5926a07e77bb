"""Wheels that lie, take what is another's, or speak to a terminal: refused in one line, or harmless."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hostile
from bench import Bench
from conftest import Siteswap
from crooked import Part, archive, parts_of, write
from hostile import ESCAPE, FS, locked, no_wheel, refused, said, untouched
from siteswap import plan
from siteswap.cli import live, render
from siteswap.lockfile import LockFile
from siteswap.transaction import Outcome
from snapshots import current, record_problems
from wheelmaker import wheel


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.private_cache(tmp_path, monkeypatch)


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, siteswap: Siteswap) -> Bench:
    """One environment for all of these tests, with one distribution in it."""
    return hostile.inhabited(tmp_path_factory.getbasetemp() / Path(__file__).stem, siteswap)


HERE: Any = type("Python", (), {"schemes": {"purelib": "lib", "platlib": "lib", "scripts": "bin"}})


def points(text: str) -> bytes:
    """A wheel with these console scripts."""
    return archive(parts_of("w", points=f"[console_scripts]\n{text}\n".encode()))


def chain() -> str:
    """A few lines that expand to gigabytes."""
    lines = [f"n{number} = " + f"%(n{number + 1})s" * 9 for number in range(9)]
    return "\n".join([*lines, "n9 = a:b"])


SHAKE = "shake_128=" + base64.urlsafe_b64encode(b"x" * 16).decode().rstrip("=")
WHEELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "record missing": (lambda: archive(parts_of("w")[:-1]), "RECORD"),
    "record incomplete": (lambda: archive(parts_of("w", [Part("a.py", recorded=False)])), "not mentioned"),
    "record phantom": (lambda: archive(parts_of("w", more_rows="gone.py,,\n")), "not in the archive"),
    "record outside": (lambda: archive(parts_of("w", more_rows="../../../evil,,\n")), "not in the archive"),
    "record absolute": (lambda: archive(parts_of("w", more_rows="/etc/passwd,,\n")), "not in the archive"),
    "record twice": (lambda: archive(parts_of("w", more_rows="w.py,sha256=AAAA,6\n")), "RECORD twice"),
    "record malformed": (lambda: archive(parts_of("w", more_rows='"a\n')), "RECORD"),
    "record of two columns": (lambda: archive(parts_of("w", more_rows="a,b\n")), "RECORD"),
    "record no text": (lambda: archive(parts_of("w", record=b"\xff\xfe")), "RECORD"),
    "record huge field": (lambda: archive(parts_of("w", more_rows="a" * 200_000 + ",,\n")), "RECORD"),
    "record huge": (lambda: archive(parts_of("w", record=bytes(65 << 20))), "too large"),
    "md5": (lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,md5=AAAA,0\n")),
            "the format forbids"),
    "shake": (lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows=f"a.py,{SHAKE},0\n")),
              "the format forbids"),
    "unknown hash": (
        lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,crc=AAAA,0\n")),
        "invalid hash"),
    "size no number": (
        lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,sha256=AA,many\n")),
        "non-integer"),
    "size wrong": (
        lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,sha256=AA,999\n")),
        "does not have the size"),
    "hash wrong": (
        lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,sha256=AA,0\n")),
        "does not have the hash"),
    "scheme of the root": (lambda: archive(parts_of("w", [Part("w-1.0.data/purelib/w.py")])), "twice"),
    "two dist-infos": (lambda: archive(parts_of("w", [Part("W.-1.0.dist-info/METADATA")])), "exactly one"),
    "dist-info of another": (lambda: archive(parts_of("w", info="v-1.0.dist-info")), "match"),
    "dist-info of another version": (lambda: archive(parts_of("w", info="w-6.6.dist-info")), "6.6"),
    "metadata missing": (lambda: archive([p for p in parts_of("w") if "META" not in p.name]), "METADATA"),
    "metadata of another": (lambda: archive(parts_of("w", metadata=said("v"))), "says that it is v"),
    "metadata of another version": (lambda: archive(parts_of("w", metadata=said(version="6.6"))), "6.6"),
    "metadata that obeys": (lambda: archive(parts_of("w", metadata=said(version=f"1.0{ESCAPE}"))), "nvalid"),
    "metadata with two names": (lambda: archive(parts_of("w", metadata=said(more="Name: v\n"))), "say once"),
    "metadata empty": (lambda: archive(parts_of("w", metadata=b"")), "say once"),
    "metadata no text": (lambda: archive(parts_of("w", metadata=b"Name: \xff\n")), "utf-8"),
    "metadata with a huge number": (
        lambda: archive(parts_of("w", metadata=said(version="9" * 9000))), ""),
    "wheel missing": (lambda: archive([p for p in parts_of("w") if "WHEEL" not in p.name]), "WHEEL"),
    "wheel newer": (lambda: archive(parts_of("w", about=b"Wheel-Version: 2.0\n")), "2.0"),
    "wheel without version": (lambda: archive(parts_of("w", about=b"Root-Is-Purelib: true\n")), "None"),
    "script above": (lambda: points("../../evil = a:b"), "not allowed"),
    "script absolute": (lambda: points("/tmp/evil = a:b"), "not allowed"),
    "script inside": (lambda: points("a/b = a:b"), "not allowed"),
    "script dot": (lambda: points(". = a:b"), "not allowed"),
    "script dots": (lambda: points(".. = a:b"), "not allowed"),
    "script escape": (lambda: points(f"{ESCAPE} = a:b"), "not allowed"),
    "script long": (lambda: points("x" * 300 + " = a:b"), "too long"),
    "script without name": (lambda: points(" = a:b"), ""),
    "script with code": (lambda: points("x = y:z; import os"), ""),
    "script with lines": (lambda: points("x = y:z\n  import os"), ""),
    "script with a call": (lambda: points("x = y:z()"), ""),
    "script without function": (lambda: points("x = y"), ""),
    "script that expands": (lambda: points(chain()), "refers to itself"),
    "script twice": (lambda: points("x = a:b\nx = c:d"), "already exists"),
    "scheme above": (lambda: archive(parts_of("w", [Part("w-1.0.data/data/../../evil")])), "not allowed"),
    "scheme unknown": (lambda: archive(parts_of("w", [Part("w-1.0.data/evil/x")])), "valid .data"),
    "scheme itself": (lambda: archive(parts_of("w", [Part("w-1.0.data/evil")])), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", WHEELS)
def test_wheel_that_is_not_what_it_says(case: str, tmp_path: Path) -> None:
    """RECORD, names, versions, schemes and entry points that lie are refused for that reason."""
    make, reason = WHEELS[case]
    assert reason in no_wheel(make(), tmp_path)


@pytest.mark.parametrize("case", ["record outside", "shake", "metadata that obeys", "script above"])
def test_lying_wheel_changes_nothing(bench: Bench, tmp_path: Path, case: str) -> None:
    """The same end to end: one line that a terminal does not obey, and everything as it was."""
    with untouched(bench):
        refused(bench.run("sync", locked(tmp_path, write(tmp_path / "bad", "w", WHEELS[case][0]()))))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("w-1.0.data/scripts/python", "the environment itself"),
        ("w-1.0.data/scripts/activate", "the environment itself"),
        ("w-1.0.data/data/bin/python3", "the environment itself"),
        ("w-1.0.data/data/bin/pip3", "pass for pip"),
        ("w-1.0.data/scripts/$(touch evil)", "no name for a program"),
        ("w-1.0.data/data/bin/a;b", "no name for a program"),
        ("w-1.0.data/platlib/W.py", "one name where case"),
        ("w-1.0.data/data/bin/python._pth", "siteswap itself"),
        ("w-1.0.data/scripts/python3._pth", "siteswap itself"),
        ("w-1.0.data/data/pyvenv.cfg", "siteswap itself"),
        ("w-1.0.data/data/.generation/manifest.json", "siteswap itself"),
        ("w-1.0.data/data/.siteswap/lock", "siteswap itself"),
        ("w-1.0.data/data/siteswap.toml", "siteswap itself"),
        ("w-1.0.data/data/.gitignore", "in the way"),
        ("_siteswap.py", "siteswap itself"),
        ("00-siteswap.pth", "siteswap itself"),
        ("resident/__init__.py", "resident"),
        ("resident-1.0.dist-info/RECORD", "dist-info"),
        ("w-1.0.data/purelib/resident-1.0.dist-info/RECORD", "pass for metadata"),
        ("w-1.0.data/purelib/other-9.9.DIST-INFO/METADATA", "pass for metadata"),
        ("other.egg-info/PKG-INFO", "pass for metadata"),
        ("w-1.0.data/platlib/w.py", "two files for"),
    ],
)
def test_what_is_anothers_is_not_for_a_wheel(bench: Bench, tmp_path: Path, path: str, reason: str) -> None:
    """Neither siteswap's own files, nor the user's settings, nor another distribution's can be taken over."""
    content = archive(parts_of("w", [Part(path, b"evil = 1\n")]))
    with untouched(bench):
        refused(bench.run("install", "--no-index", write(tmp_path / "bad", "w", content)), reason)


PROGRAMS = {
    "no name for a program": (
        "two words", "-rf", "$(touch evil)", "a`b`", "a;b", "a&b", "a|b", "a>b", "a<b", "a(b", "a)b", "a*",
        "a?", "[", "a]b", "a{b", "a}", "hey!", "#a", "~a", "a'b", 'a"b', ".hidden", "+x", "a^b", "X=1",
        "%1", "a\u00a0b", "a\u2028b", "\u202etset",
    ),
    "the environment itself": (
        "python", "python3", "python3.9", "Python", "python3.13t", "pythonw", "python2.7", "activate",
        "activate.fish", "Activate.ps1", "activate_this.py", "deactivate", "deactivate.bat",
    ),
    "pass for pip": ("pip", "pip3", "pip3.11", "PIP"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"), [(name, reason) for reason, names in PROGRAMS.items() for name in names]
)
def test_program_that_no_shell_should_meet(name: str, reason: str) -> None:
    """No program has a name that a shell takes apart or obeys, or passes for the interpreter or pip."""
    for files, programs in (([f"bin/{name}"], []), ([], [f"bin/{name}"])):
        (problem,) = plan.misplaced(files, programs, "", "w", HERE)
        assert reason in problem
        assert plan.misplaced([f"share/{path.rpartition('/')[2]}" for path in files], [], "", "w", HERE) == []
    two = plan.misplaced([], ["bin/tool", "bin/Tool"], "", "w", HERE)
    assert two == ["bin/Tool and bin/tool of w are one name where case does not count"]


@pytest.mark.parametrize("name", ["python", "activate", "pip", "a;b"])
def test_entry_point_that_no_shell_should_meet(bench: Bench, name: str) -> None:
    """The same end to end: whatever is allowed, one line, and everything as it was."""
    bench.wheel("taker", scripts={name: "taker:main"})
    with untouched(bench):
        refused(bench.install("taker", "--allow-overlap"), f"bin/{name} of taker")


def test_what_is_odd_and_harmless(bench: Bench, tmp_path: Path) -> None:
    """Unusual programs are installed; foreign notes and byte-code in a wheel are not taken over."""
    names = [
        "clang++",
        "2to3-3.9",
        "python-zig",
        "activate-global-python-argcomplete",
        "pip-compile",
        "a@b:c",
    ]
    site = f"lib/{bench.site.parent.name}/site-packages"
    extra = [
        Part("w-1.0.dist-info/direct_url.json", b'{"url": "https://trusted.example/w"}'),
        Part("w-1.0.dist-info/INSTALLER", b"somebody\n"),
        Part("w-1.0.dist-info/REQUESTED", b""),
        Part("__pycache__/resident.cpython-311.pyc", b"evil"),
        Part(f"w-1.0.data/data/{site}/__pycache__/w.cpython-311.pyc", b"evil"),
        Part("w-1.0.data/scripts/clang++", b"#!python\nthe entry point of that name takes its place\n"),
        Part("w-1.0.data/scripts/odd-shebang", b"#!python -c 'import evil'; touch evil\nprint('runs')\n"),
    ]
    text = "[console_scripts]\n" + "".join(f"{name} = w:main\n" for name in names)
    content = archive(parts_of("w", extra, points=text.encode()))
    write(tmp_path / "more", "w", content)
    wheel(tmp_path / "more", "needs-w", requires=["w"])
    bench.install("--find-links", tmp_path / "more", "needs-w", "--no-check").ok()
    info = bench.site / "w-1.0.dist-info"
    assert not (info / "direct_url.json").exists()
    assert not (info / "REQUESTED").exists()
    assert (info / "INSTALLER").read_text() == "siteswap\n"
    assert not [item for item in bench.site.rglob("*.pyc") if item.read_bytes() == b"evil"]
    assert {item.name for item in (bench.env / "bin").iterdir()} >= {*names, "odd-shebang"}
    assert "from w import main" in (bench.env / "bin/clang++").read_text()
    assert (info / "RECORD").read_text().count("bin/clang++,") == 1
    assert (bench.env / "bin/odd-shebang").read_text().splitlines()[0] == f"#!{bench.env}/bin/python"
    done = subprocess.run([bench.env / "bin/odd-shebang"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "runs\n"
    assert record_problems(bench.site.parents[2]) == []
    assert not list(tmp_path.rglob("evil"))
    bench.run("rollback").ok()


def test_tree_that_is_too_deep_is_removed(bench: Bench, tmp_path: Path) -> None:
    """A package under check may leave a tree of thousands of directories: it goes with everything else."""
    code = (
        "import os\nos.chdir(os.environ['TMPDIR'])\nfor n in range(3000):\n    os.mkdir('d'); os.chdir('d')\n"
    )
    bench.wheel("digger", files={"digger.py": code})
    bench.install("digger").ok()
    bench.nothing_left()
    bench.run("rollback").ok()
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        for number in range(200):
            os.mkdir("d", dir_fd=directory)
            os.mkdir(f"beside{number}", dir_fd=directory)
            inner = os.open("d", os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = inner
    finally:
        os.close(directory)
    FS.remove_tree(tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_lock_of_the_environment_is_not_taken_over(bench: Bench) -> None:
    """After all of that the environment is what it was: one distribution that runs."""
    assert bench.run("list", "--json").json[0]["name"] == "resident"
    assert current(bench.env) >= 2
    assert LockFile.parse(bench.run("export").ok().out, bench.root, "the export").names == {"resident"}
    done = subprocess.run([bench.env / "bin/resident"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("1.0\n", 0)


# -- what a terminal shows -------------------------------------------------------------------------


def test_nothing_from_a_package_is_obeyed_by_a_terminal(bench: Bench, tmp_path: Path) -> None:
    """Names and texts of a foreign distribution are shown without control characters, by every command."""
    info = bench.site / f"odd{ESCAPE}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: odd{ESCAPE}\nVersion: 1{ESCAPE}\nSummary: s{ESCAPE}\x9b31m\n")
    (info / "RECORD").write_text("")
    try:
        shown = [
            bench.run("list"), bench.run("list", "--json"), bench.run("show", f"odd{ESCAPE}"),
            bench.run("show", "--json", f"odd{ESCAPE}"), bench.run("history"), bench.run("check"),
            bench.run("install", "--no-index", f"x{ESCAPE}"), bench.run("show", f"no{ESCAPE}"),
            bench.run("uninstall", f"no{ESCAPE}"),
        ]  # fmt: skip
    finally:
        shutil.rmtree(info)
    assert "odd" in shown[0].out
    for ran in shown:
        assert "Traceback" not in ran.err
        assert [c for c in ran.out + ran.err if not c.isprintable() and c != "\n"] == []


def test_changes_and_progress_are_not_obeyed_either(capsys: pytest.CaptureFixture[str]) -> None:
    """Summaries of changes, the note of who holds a lock and the live view show no control characters."""
    from siteswap.layout import Number
    from siteswap.manifest import Change

    outcome = Outcome(Number(2), Number(1), (Change(f"a{ESCAPE}", None, f"1{ESCAPE}"),), True)
    view = live.Live()
    live.Quiet().waiting(ESCAPE)
    view.phase("check")
    view.tried(ESCAPE, ESCAPE, "passed", 1)
    view.expect(f"name{ESCAPE}", 3)
    view.waiting(ESCAPE)
    view.stop()
    print(render.outcome_text(outcome))
    told = capsys.readouterr()
    assert "\x1b]" not in told.out + told.err
    assert "\x07" not in told.out + told.err
