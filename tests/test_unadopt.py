"""`siteswap unadopt`: an environment becomes a plain virtual environment, at once or not at all."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import killing
from conftest import STRESS, Siteswap, run_python
from siteswap import collect, create, opening, plain, remains, venv
from siteswap.environment import Environment
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.layout import Layout
from siteswap.plan import Row
from snapshots import current, generation, record_problems, site_packages, tree
from test_adopt import by_uv, by_venv, contents, run, uv_install
from wheelmaker import application, wheel

UV = Path(sys.executable).with_name("uv")


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is just starting here; the tests of programs that are wait as everybody does."""
    monkeypatch.setattr(collect, "GRACE_SECONDS", 0.0)


@pytest.fixture
def filled(env: Path, install: Siteswap, wheels: Path) -> Path:
    """An environment with an application, in its second version."""
    application(wheels, "1.0")
    application(wheels, "2.0")
    install("--no-check", "swapapp==1.0").ok()
    install("--no-check", "swapapp==2.0").ok()
    return env


def assert_plain(place: Path) -> None:
    """Nothing in it is siteswap's, nothing has a name elsewhere, and RECORD says what is there."""
    for directory, names, files in os.walk(place):
        for name in names + files:
            path = Path(directory, name)
            assert path.name == "INSTALLER" or "siteswap" not in name, path
            if path.is_symlink():
                assert ".siteswap" not in os.readlink(path), path
            elif path.is_file():
                assert path.stat().st_nlink == 1, f"{path} has another name elsewhere"
                assert path.suffix == ".pyc" or b"/.siteswap/" not in path.read_bytes(), path
    assert record_problems(place) == []


# -- what comes of it ------------------------------------------------------------------------------


def test_like_what_venv_makes(tmp_path: Path, wheels: Path, siteswap: Siteswap, python: Path) -> None:
    """Beside `python -m venv` of each Python: the same names but for shells of its own."""
    wheel(
        wheels, "demo", scripts={"demo": "demo:main"},
        data={"data/share/demo.txt": "x", "headers/demo.h": "int x;", "scripts/old": "#!python\nprint(1)\n"},
    )  # fmt: skip
    env, plainly = tmp_path / "env", tmp_path / "plain"
    siteswap("create", "--python", python, env).ok()
    words = ("--no-index", "--find-links", wheels, "demo")
    siteswap("install", "-e", env, "--no-check", *words).ok()
    subprocess.run([python, "-m", "venv", "--without-pip", plainly], check=True, capture_output=True)
    uv_install(plainly, wheels, "demo")
    done = Environment.unadopt(env)
    assert (done.done, done.lost, done.stays) == (True, (1,), ())
    assert sorted(os.listdir(tmp_path)) == ["env", "plain", "wheels"]
    assert_plain(env)
    mine, theirs = tree(env), tree(plainly)
    differ = {path for path in mine.keys() ^ theirs.keys() if "/demo" not in path and "include/" not in path}
    made = re.compile(r"bin/(python.*|.*ctivate.*|pydoc.*|𝜋thon)|\.gitignore|\.lock|CACHEDIR.TAG")
    assert [path for path in differ if not made.fullmatch(path)] == []
    said = [venv.Configuration.parse((place / "pyvenv.cfg").read_text()).values for place in (env, plainly)]
    assert said[0].keys() == said[1].keys()
    for name in ("include-system-site-packages", "version", "executable"):
        assert said[0].get(name) == said[1].get(name)
    assert (env / "bin/python").resolve() == python.resolve()
    assert run_python(env / "bin/python", "import sys; print(sys.prefix, sys.executable)").split() == [
        str(env), str(env / "bin/python"),
    ]  # fmt: skip
    assert run(env / "bin/demo").strip() == "1.0"
    assert run(env / "bin/old").strip() == "1"
    assert "demo" in run(UV, "pip", "list", "-q", "--python", env)
    run(env / "bin/python", "-m", "venv", "--without-pip", tmp_path / "nested")
    assert run_python(tmp_path / "nested/bin/python", "print(7)") == "7"
    activated = f". {env}/bin/activate && echo $VIRTUAL_ENV && command -v python && deactivate && echo $PATH"
    assert run("sh", "-c", activated).split()[:2] == [str(env), f"{env}/bin/python"]
    uv_install(env, wheels, "--reinstall", "demo")
    assert record_problems(env) == []


@pytest.mark.parametrize("maker", [by_venv, by_uv], ids=lambda item: item.__name__)
def test_there_and_back_again(tmp_path: Path, wheels: Path, maker: Callable[..., Path]) -> None:
    """What was adopted comes back as it was, to the links of its interpreter and each byte of pyvenv.cfg."""
    wheel(wheels, "demo", scripts={"demo": "demo:main"}, data={"headers/demo.h": "int x;"})
    place = maker(tmp_path / "old", "--prompt", "it's mine", *(["--without-pip"] if maker is by_venv else []))
    uv_install(place, wheels, "demo")
    (place / "etc").mkdir()
    (place / "etc/mine").write_text("mine\n")
    (place / "etc/link").symlink_to("../pyvenv.cfg")
    before = tree(place)
    Environment.adopt(place, check=False)
    (place / "later").write_text("put there later, at the top\n")
    Environment.unadopt(place)
    (place / "later").unlink()
    after = tree(place)
    empty = {
        path
        for path, (kind, _, _) in before.items()
        if kind == "directory" and not any(other.startswith(f"{path}/") for other in before)
    }
    differ = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path for path in differ if path not in empty and not path.endswith(".lock")} == set()
    assert sorted(os.listdir(tmp_path)) == ["old", "wheels"]
    assert run(place / "bin/demo").strip() == "1.0"


def test_all_that_is_there(filled: Path, wheels: Path, siteswap: Siteswap) -> None:
    """Settings, files beside the generations and in them, other tools' work; paths become the logical."""
    (filled / "siteswap.toml").write_text("")
    (filled / "mine").mkdir()
    (filled / "mine/file").write_text("mine\n")
    inside = generation(filled)
    (inside / "etc").mkdir()
    (inside / "etc/where").write_text(f"{inside}/etc and {filled}/.siteswap/current/lib and {filled}\n")
    (inside / "etc/binary").write_bytes(b"\0" + os.fsencode(inside))
    (inside / "etc/link").symlink_to(inside / "etc/where")
    wheel(wheels, "other", scripts={"other": "other:main"}, data={"scripts/old": "#!python\nprint(1)\n"})
    run(UV, "pip", "install", "-q", "--no-index", "--find-links", wheels, "--python", inside, "other")
    (inside / "bin/old").write_text(f"#!{inside}/bin/python\nprint(1)\n")
    before = contents(inside)
    done = siteswap("unadopt", "--json", filled).json
    assert done["leaks"] == ["etc/binary"]
    assert done["distributions"] == ["other 1.0", "swapapp 2.0", "swaplib 2.0"]
    (filled / "etc/binary").unlink()
    assert (filled / "etc/where").read_text() == f"{filled}/etc and {filled}/lib and {filled}\n"
    assert (filled / "etc/link").samefile(filled / "etc/where")
    assert (filled / "mine/file").read_text() == "mine\n"
    assert (filled / "siteswap.toml").exists()
    (filled / "siteswap.toml").unlink()
    assert_plain(filled)
    after = contents(filled)
    scripts = {
        path for path in before if path.startswith("bin/") or path.endswith("other-1.0.dist-info/RECORD")
    }
    assert {path: before[path] for path in before.keys() - scripts}.items() <= after.items()
    assert (run(filled / "bin/other").strip(), run(filled / "bin/old").strip()) == ("1.0", "1")


# -- what is given up ------------------------------------------------------------------------------


def test_tags_are_not_given_up_unasked(filled: Path, siteswap: Siteswap) -> None:
    """They say that somebody wants that generation; the refusal names them, --dry-run what would be lost."""
    siteswap("tag", "-e", filled, "2", "good").ok()
    before = tree(filled.parent)
    done = siteswap("unadopt", filled)
    assert done.status == 2
    assert "given up: good" in done.err
    assert "--drop-tags" in done.err
    said = siteswap("unadopt", "--dry-run", filled).ok().out
    assert "would be a plain virtual environment" in said
    assert "given up: generations 1, 2, tag good" in said
    locks = {"env/.siteswap/writer", "env/.siteswap/lock"}
    assert {path: item for path, item in tree(filled.parent).items() if path not in locks} == {
        path: item for path, item in before.items() if path not in locks
    }
    assert Environment.unadopt(filled, drop_tags=True).tags == ("good",)
    assert not (filled / ".siteswap").exists()


@pytest.mark.parametrize("spoil", ["plain", "nothing", "exec"])
def test_refused(tmp_path: Path, filled: Path, siteswap: Siteswap, spoil: str) -> None:
    """With the reason and the next step."""
    if spoil == "plain":
        done, said = siteswap("unadopt", by_venv(tmp_path / "old")), "is a plain virtual environment already"
    elif spoil == "nothing":
        done, said = siteswap("unadopt", tmp_path / "none"), "there is no environment at"
    else:
        done = siteswap("unadopt", filled, env={"SITESWAP_EXEC": str(filled)})
        said = "is being changed by the siteswap exec"
    assert (done.status, said in done.err) == (2, True), done.err


def test_changed_meanwhile(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another installer that writes into the generation: refused, and what it wrote stays."""
    real = FileSystem.barrier

    def write(fs: FileSystem, path: Path) -> None:
        (site_packages(generation(filled)) / "late.py").write_text("late\n")
        real(fs, path)

    monkeypatch.setattr(FileSystem, "barrier", write)
    with pytest.raises(SiteswapError, match="changed while it was copied") as refused:
        Environment.unadopt(filled)
    assert refused.value.kind is Kind.BUSY
    assert current(filled) == 3
    assert sorted(os.listdir(filled.parent)) == ["env", "wheels"]


def test_who_waited_for_it(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that waited meanwhile finds no environment, and flips nothing of what was left."""
    environment = Environment.open(filled)
    with monkeypatch.context() as patch:
        patch.setattr(remains, "clear", lambda *_: ["generation 3 is used by somebody"])
        patch.setattr(create, "clear", lambda *_: None)
        assert Environment.unadopt(filled).stays
    # It had looked at the environment before, and waits for the lock.
    monkeypatch.setattr(opening, "require_writable", lambda *_: None)
    for said in ("is a plain virtual environment again", "is no environment any more"):
        with pytest.raises(SiteswapError, match=said):
            environment.rollback()
        if (filled / ".siteswap").is_symlink():
            assert current(filled) == 3
            Environment.unadopt(filled)


# -- while programs run ----------------------------------------------------------------------------

_LAZY = """
import sys, multiprocessing, swapapp
def say(queue):
    import swaplib
    queue.put((swaplib.VERSION, sys.prefix))
if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    import swapapp.late, swaplib.lazy, importlib.metadata
    seen = [swapapp.late.VERSION, swaplib.lazy.VERSION, importlib.metadata.version("swaplib")]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=say, args=(queue,))
    worker.start()
    print(*seen, swapapp.late.__file__, queue.get()[0], sys.executable)
    worker.join()
"""


def test_running_programs_keep_their_generation(
    filled: Path, siteswap: Siteswap, tmp_path: Path, wheels: Path
) -> None:
    """Later imports and workers come from it, whatever pip does meanwhile; when they end, it goes."""
    script = tmp_path / "lazy.py"
    script.write_text(_LAZY)
    first = generation(filled)
    with subprocess.Popen(
        [filled / "bin/python", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        said = siteswap("unadopt", filled).ok().out
        assert f"generation 3 is used by PID {running.pid}" in said
        uv_install(filled, wheels, "--reinstall", "swapapp==1.0")
        assert run(filled / "bin/swapapp").split()[:2] == ["same", "1.0"]
        for words in (("--json",), ("--json", "--dry-run")):
            again = siteswap("unadopt", *words, filled).json
            assert [user["pid"] for user in again["running"]] == [running.pid]
        for more in (
            ("list", "-e"),
            ("install", "--no-index", "swaplib", "-e"),
            ("gc", "-e"),
            ("doctor", "-e"),
        ):
            assert "is a plain virtual environment again" in siteswap(*more, filled).err
        refused = siteswap("adopt", filled)
        assert (refused.status, f"PID {running.pid}" in refused.err) == (3, True)
        out, _ = running.communicate("go\n")
    late = f"{first}/lib/python3.{sys.version_info.minor}/site-packages/swapapp/late.py"
    assert out.split() == ["2.0", "2.0", "2.0", late, "2.0", str(filled / "bin/python")]
    assert Environment.unadopt(filled).stays == ()
    assert sorted(os.listdir(tmp_path)) == ["env", "lazy.py", "wheels"]
    assert not (filled / ".siteswap").is_symlink()
    Environment.adopt(filled, check=False)
    assert current(filled) == 1


def test_starting_all_the_time(filled: Path) -> None:
    """Every program that starts meanwhile finds it whole: a generation or the plain one."""
    wrong, last = [], False
    command = [sys.executable, "-m", "siteswap", "unadopt", str(filled)]
    seen = set()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as working:
        while not last:
            last = working.poll() is not None
            seen.add("siteswap" in (filled / "pyvenv.cfg").read_text())
            done = subprocess.run([filled / "bin/swapapp"], capture_output=True, text=True, check=False)
            seen.add("siteswap" in (filled / "pyvenv.cfg").read_text())
            if done.stdout.split()[:2] != ["same", "2.0"] or done.stderr:
                wrong.append(done)
    assert working.returncode == 0
    assert wrong == []
    assert seen == {True, False}


def test_in_place_writes_reach_nothing(
    filled: Path, wheels: Path, siteswap: Siteswap, tmp_path: Path
) -> None:
    """What is edited in the plain one is in no cache and no other environment."""
    Environment.unadopt(filled)
    with (site_packages(filled) / "swaplib/lazy.py").open("r+") as stream:
        stream.write("VERSION = 'x.y'")
    siteswap("create", tmp_path / "other").ok()
    words = ("--no-index", "--find-links", wheels, "--no-check", "swapapp==2.0")
    siteswap("install", "-e", tmp_path / "other", *words).ok()
    assert (
        site_packages(generation(tmp_path / "other")) / "swaplib/lazy.py"
    ).read_text() == "VERSION = '2.0'\n"


# -- killed ----------------------------------------------------------------------------------------


@pytest.mark.stress
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_killed_at_any_change(
    tmp_path: Path,
    filled: Path,
    siteswap: Siteswap,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An environment as it was, or a plain one whole; the next command leaves nothing beside."""
    monkeypatch.setenv(killing.GRACE, "0")
    kept, aside = tmp_path / "place/env", tmp_path / "aside"
    kept.parent.mkdir()
    filled.rename(kept)
    text = (kept / ".siteswap/format").read_text()
    (kept / ".siteswap/format").write_text(text.replace(str(filled), str(kept)))
    shutil.copytree(kept, aside, symlinks=True)
    whole = killing.run(0, number, "unadopt", kept)
    assert whole.status == 0, whole.err
    outcomes: collections.Counter[str] = collections.Counter()
    count = 100 if STRESS else 5 if number is signal.SIGKILL else 2
    moments = set(range(1, whole.changes, max(1, whole.changes // count)))
    for at in sorted(moments | {whole.changes - 1}):
        shutil.rmtree(kept)
        shutil.copytree(aside, kept, symlinks=True)
        done = killing.run(at, number, "unadopt", kept)
        old = (kept / ".siteswap/current").is_symlink() and not (kept / ".siteswap").is_symlink()
        outcomes[f"{'old' if old else 'new'}, exit {done.status}"] += 1
        if number is not signal.SIGKILL:
            assert old == (done.status != 0), "reported as interrupted and done, or the reverse"
        if old:
            if number is not signal.SIGKILL:
                assert os.listdir(kept.parent) == ["env"]
            siteswap("gc", "-e", kept).ok()
            assert os.listdir(kept.parent) == ["env"]
            assert json.loads((generation(kept) / ".generation/manifest.json").read_text())["number"] == 3
        else:
            beside = os.listdir(kept.parent)
            if beside != ["env"]:
                Environment.unadopt(kept)
            assert os.listdir(kept.parent) == ["env"]
            assert record_problems(kept) == []
            assert not (kept / ".siteswap").is_symlink()
    assert len(outcomes) > 1, outcomes


# -- decisions -------------------------------------------------------------------------------------


def test_what_record_says_afterwards() -> None:
    """New hashes of what changed, no byte-code that is not there; every other row as it was."""
    rows = [
        "a/__init__.py,sha256=x,1",
        "a/__pycache__/__init__.cpython-311.pyc,,",
        "../../../bin/a,sha256=y,2",
        "/outside,sha256=z,3",
        "a-1.dist-info/RECORD,,",
    ]
    text, info = "".join(f"{row}\n" for row in rows), "lib/p/site/a-1.dist-info"
    cached = "lib/p/site/a/__pycache__/__init__.cpython-311.pyc"
    assert plain.corrected(text, info, {}, [cached]) is None
    assert plain.corrected(text, info, {"bin/a": Row("bin/a", "sha256=w", "4")}, ()) == "".join(
        f"{row}\n" for row in [rows[0], "../../../bin/a,sha256=w,4", *rows[3:]]
    )


def test_long_names_have_places_of_their_own() -> None:
    """What stays there may stay for long: two environments must not share it."""
    one, other = (Layout(Path(f"/x/{'n' * 60}{end}")).leaving for end in "ab")
    assert one != other
    assert len(one.name) <= len(Layout(Path(f"/x/{'n' * 40}")).leaving.name)
