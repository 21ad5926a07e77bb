"""`siteswap export --plain`: a plain virtual environment that may be moved."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Siteswap, run_python
from siteswap import portable, scripts
from siteswap.environment import Environment
from siteswap.fs import FileSystem
from snapshots import generation, record_problems, site_packages, tree
from test_adopt import run
from wheelmaker import wheel


def naming(place: Path, needle: Path) -> list[str]:
    """Files and links that name a path."""
    found = []
    for directory, names, files in os.walk(place):
        for name in names + files:
            path = Path(directory, name)
            if path.is_symlink():
                content = os.fsencode(os.readlink(path))
            else:
                content = path.read_bytes() if path.is_file() else b""
            if os.fsencode(needle) in content:
                found.append(str(path.relative_to(place)))
    return sorted(found)


def test_moved_to_another_place(tmp_path: Path, wheels: Path, siteswap: Siteswap, python: Path) -> None:
    """On each Python: scripts of every kind, imports and RECORDs, with no path of before."""
    data = {"data/share/demo.txt": "x", "scripts/old": "#!python\n# coding: utf-8\nprint(1)\n"}
    wheel(wheels, "demo", scripts={"demo": "demo:main"}, data=data)
    env = tmp_path / "an env"
    siteswap("create", "--python", python, env).ok()
    siteswap("install", "-e", env, "--no-index", "--find-links", wheels, "demo").ok()
    before = tree(env)
    said = siteswap("export", "-e", env, "--plain", tmp_path / "out/first").ok().out
    assert f"at {python.resolve()}" in said
    assert "may not work elsewhere" not in said
    assert tree(env) == before
    assert os.listdir(tmp_path / "out") == ["first"]
    moved = tmp_path / "it's elsewhere"
    shutil.copytree(tmp_path / "out/first", moved, symlinks=True)
    shutil.rmtree(tmp_path / "out")
    env.rename(tmp_path / "gone")
    assert naming(moved, env) == naming(moved, tmp_path / "out") == []
    assert record_problems(moved) == []
    assert not [path for path in moved.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert not list(moved.rglob("*siteswap*"))
    assert (run(moved / "bin/demo").strip(), run(moved / "bin/old").strip()) == ("1.0", "1")
    (tmp_path / "link").symlink_to(moved / "bin/demo")
    assert run(tmp_path / "link").strip() == "1.0"
    assert run_python(moved / "bin/python", "import demo, sys; print(sys.prefix)") == str(moved)
    assert (moved / "share/demo.txt").read_text() == "x"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "dash"])
def test_activate_finds_where_it_is(tmp_path: Path, env: Path, siteswap: Siteswap, shell: str) -> None:
    """Each shell says where the script is that it reads; one that cannot is told."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    siteswap("export", "-e", env, "--plain", tmp_path / "first").ok()
    moved = tmp_path / "else where"
    (tmp_path / "first").rename(moved)
    name = "activate.fish" if shell == "fish" else "activate"
    words = (
        f". '{moved}/bin/{name}'; echo $VIRTUAL_ENV; command -v python; deactivate; echo \"[$VIRTUAL_ENV]\""
    )
    done = subprocess.run([shell, "-c", words], capture_output=True, text=True, cwd="/", check=False)
    if shell == "dash":
        assert "use bash, zsh, ksh or fish" in done.stderr
        assert str(moved) not in done.stdout
    else:
        assert done.stdout.splitlines() == [str(moved), f"{moved}/bin/python", "[]"], done.stderr


def test_of_another_generation_with_what_leaks(
    tmp_path: Path, env: Path, install: Siteswap, wheels: Path, siteswap: Siteswap
) -> None:
    """By number or tag; what others wrote with the environment's path in it is named."""
    wheel(wheels, "demo", scripts={"demo": "demo:main"})
    wheel(wheels, "demo", "2.0", scripts={"demo": "demo:main"})
    install("--no-check", "demo==1.0").ok()
    kernel = generation(env) / "share/kernel.json"
    kernel.parent.mkdir()
    kernel.write_text(f'{{"argv": ["{generation(env)}/bin/python"]}}\n')
    install("--no-check", "demo==2.0").ok()
    siteswap("tag", "-e", env, "2", "good").ok()
    said = siteswap("export", "-e", env, "--plain", tmp_path / "out", "--generation", "good").ok().out
    assert "of generation 2" in said
    assert "  share/kernel.json" in said
    assert naming(tmp_path / "out", env) == ["share/kernel.json"]
    assert ".siteswap" not in (tmp_path / "out/share/kernel.json").read_text()
    assert run(tmp_path / "out/bin/demo").strip() == "1.0"


def test_nothing_is_overwritten(tmp_path: Path, env: Path, siteswap: Siteswap) -> None:
    """An existing directory is refused, even an empty one; so is a place in the environment itself."""
    (tmp_path / "out").mkdir()
    for place, said in ((tmp_path / "out", "is there already"), (env / "out", "inside of the environment")):
        done = siteswap("export", "-e", env, "--plain", place)
        assert (done.status, said in done.err) == (2, True), done.err
    done = siteswap("export", "-e", env, "--plain", tmp_path / "new", "--format", "pylock")
    assert done.status == 2
    assert sorted(os.listdir(tmp_path)) == ["env", "out"]


def test_a_failure_leaves_nothing(tmp_path: Path, env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It appears whole and for good, or not at all: whatever is refused by the disk."""
    for name in ("barrier", "rename", "link_files", "sync_directory"):
        with monkeypatch.context() as patch:

            def refuse(*_: object, name: str = name, **more: object) -> None:
                patch.undo()
                raise OSError(28, f"no space for {name}")

            patch.setattr(FileSystem, name, refuse)
            with pytest.raises(OSError, match=f"no space for {name}"):
                Environment.open(env).copy_plain(tmp_path / "out")
        assert sorted(os.listdir(tmp_path)) == ["env"]
    done = Environment.open(env).copy_plain(tmp_path / "out")
    assert isinstance(done, portable.Copied)
    assert site_packages(tmp_path / "out").is_dir()


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"#!/e v/bin/python\n", b""),
        (b"#! /e v/bin/python3.11 -sE\n", b" -sE"),
        (b"#!/bin/sh\n'''exec' '/e v/bin/python' \"$0\" \"$@\"\n' '''\n", b""),
        (b"#!/bin/sh\n'''exec' \"/e v/bin/python3\" \"$0\" \"$@\"\n' '''\n", b""),
        (b"#!/bin/sh\n# coding: x\n'''exec' '/e v/bin/python' \"$0\" \"$@\"\n' '''\n", b""),
    ],
)
def test_first_lines_of_scripts(head: bytes, kept: bytes) -> None:
    """However they name the environment's interpreter, they find the one beside them."""
    made = scripts.relocatable(head + b"print(1)\n", "/e v")
    assert made is not None
    assert made.startswith(b"#!/bin/sh\n")
    assert b"/e v" not in made
    assert b"/'python'" + kept + b' "$0" "$@"\n' in made
    assert made.endswith(b"\n' '''\nprint(1)\n")
    compile(made.replace(b"# coding: x\n", b""), "script", "exec")


@pytest.mark.parametrize(
    "head", [b"#!/usr/bin/python\n", b"#!/e v/bin/pythonista\n", b"\x7fELF", b"#!/bin/sh\necho\n"]
)
def test_other_programs_stay_as_they_are(head: bytes) -> None:
    """What another interpreter runs, or none."""
    assert scripts.relocatable(head, "/e v") is None
