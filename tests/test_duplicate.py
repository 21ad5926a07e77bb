"""`siteswap create --copy-of`: a new environment that begins with what another one holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import INTERPRETERS, Siteswap
from siteswap import scripts
from snapshots import current, generation, record_problems, site_packages, state
from test_adopt import run
from test_portable import naming
from wheelmaker import application, wheel


@pytest.fixture
def filled(env: Path, install: Siteswap, wheels: Path) -> Path:
    """An environment with an application, in its second version."""
    application(wheels, "1.0")
    application(wheels, "2.0")
    install("--no-check", "swapapp==1.0").ok()
    install("swapapp==2.0").ok()
    return env


def test_it_is_one_like_it(filled: Path, siteswap: Siteswap, tmp_path: Path, wheels: Path) -> None:
    """The same distributions, requirements and lock; files are shared, scripts its own."""
    before = state(filled)
    new = tmp_path / "a new one"
    said = siteswap("create", new, "--copy-of", filled).ok().out
    assert "a copy of" in said
    assert state(filled) == before
    assert current(new) == 1
    for words in (("list", "--json"), ("export", "--format", "requirements"), ("export",)):
        assert siteswap(*words, "-e", new).ok().out == siteswap(*words, "-e", filled).ok().out
    assert run(new / "bin/swapapp").split()[:2] == ["same", "2.0"]
    assert record_problems(generation(new)) == []
    named = [path for path in naming(generation(new), filled) if not path.endswith(".pyc")]
    assert named == [".generation/manifest.json"]  # the command that made it
    mine, theirs = (site_packages(generation(place)) / "swaplib/lazy.py" for place in (new, filled))
    assert mine.samefile(theirs)
    assert list((mine.parent / "__pycache__").glob("lazy.*"))
    siteswap("doctor", "-e", new).ok()
    siteswap("install", "-e", new, "--no-index", "--find-links", wheels, "swapapp==1.0").ok()
    assert run(new / "bin/swapapp").split()[:2] == ["same", "1.0"]
    assert run(filled / "bin/swapapp").split()[:2] == ["same", "2.0"]
    siteswap("rollback", "-e", new).ok()
    assert sorted(os.listdir(tmp_path)) == ["a new one", "env", "wheels"]


def test_of_another_generation_while_it_is_used(
    filled: Path, siteswap: Siteswap, tmp_path: Path, wheels: Path
) -> None:
    """By tag; a program that runs, and another command that waits for the lock, are no matter."""
    siteswap("tag", "-e", filled, "2", "good").ok()
    with subprocess.Popen(
        [filled / "bin/python", "-c", "import swapapp; print(1, flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        running.stdout.readline()
        siteswap("create", tmp_path / "new", "--copy-of", filled, "--generation", "good").ok()
        running.communicate("\n")
    assert run(tmp_path / "new/bin/swapapp").split()[:2] == ["same", "1.0"]


def test_what_others_put_there(filled: Path, siteswap: Siteswap, tmp_path: Path, wheels: Path) -> None:
    """Files of no distribution and another installer's work come along; paths become the new one's."""
    inside = generation(filled)
    (inside / "share").mkdir()
    (inside / "share/where").write_text(f"{filled}/bin {inside}/lib {filled}2\n")
    (inside / "share/link").symlink_to(f"{filled}/share/where")
    wheel(wheels, "other", scripts={"other": "other:main"})
    uv = Path(sys.executable).with_name("uv")
    run(uv, "pip", "install", "-q", "--no-index", "--find-links", wheels, "--python", inside, "other")
    siteswap("create", tmp_path / "new", "--copy-of", filled).ok()
    new = tmp_path / "new"
    assert (new / "share/where").read_text() == f"{new}/bin {new}/lib {filled}2\n"
    assert (new / "share/link").samefile(new / "share/where")
    assert not (new / "share/where").samefile(inside / "share/where")
    assert run(new / "bin/other").strip() == "1.0"
    assert record_problems(generation(new)) == []
    shown = {item["name"] for item in siteswap("list", "-e", new, "--json").json}
    assert shown == {"other", "swapapp", "swaplib"}
    wheel(wheels, "more")
    siteswap("install", "-e", new, "--no-index", "--find-links", wheels, "more").ok()
    assert run(new / "bin/other").strip() == "1.0"


def test_refused(filled: Path, siteswap: Siteswap, tmp_path: Path) -> None:
    """One clear line: another Python, no environment, no such generation, an option without its other."""
    (tmp_path / "dir").mkdir()
    others = [path for name, path in INTERPRETERS.items() if name != f"3.{sys.version_info.minor}"]
    tried: list[tuple[tuple[str | Path, ...], str]] = [
        (("--copy-of", tmp_path / "none"), "there is no environment at"),
        (("--copy-of", tmp_path / "dir"), "is not an environment"),
        (("--copy-of", filled, "--generation", "9"), "there is no generation 9"),
        (("--generation", "1"), "--generation of which environment?"),
    ]
    if others:
        tried.append((("--copy-of", filled, "--python", others[0]), f"has Python 3.{sys.version_info.minor}"))
    for words, said in tried:
        done = siteswap("create", tmp_path / "new", *words)
        assert (done.status, said in done.err) == (2, True), done.err
        assert len(done.err.splitlines()) == 2
    (site_packages(generation(filled)) / "swaplib/lazy.py").unlink()
    done = siteswap("create", tmp_path / "new", "--copy-of", filled)
    assert (done.status, "files of swaplib are missing" in done.err) == (4, True), done.err
    assert sorted(os.listdir(tmp_path)) == ["dir", "env", "wheels"]


@pytest.mark.parametrize("root", ["/e", "/e v", "/it's"])
@pytest.mark.parametrize("python", ["/new/bin/python", "/a new/bin/python"])
def test_first_lines_of_scripts(root: str, python: str) -> None:
    """From each form to each: as if it had been made for the new interpreter."""
    text = b"# coding: utf-8\nprint(1)\n"
    old = scripts.rewritten(b"#!python\n" + text, f"{root}/bin/python")
    assert old is not None
    assert scripts.moved(old, root, python) == scripts.rewritten(b"#!python\n" + text, python)
    plainly = scripts.shebang(f"{root}/bin/python") + b"print(1)\n"
    assert scripts.moved(plainly, root, python) == scripts.shebang(python) + b"print(1)\n"
