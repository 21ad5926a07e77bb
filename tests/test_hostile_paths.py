"""Environments at paths that are code to a shell, or that a terminal would obey."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import hostile
from conftest import Siteswap, run_python
from hostile import ESCAPE, refused
from wheelmaker import wheel


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.private_cache(tmp_path, monkeypatch)


NASTY = [
    "-rf",
    "$(touch evil)",
    "`touch evil`",
    "a;touch evil",
    "a'b\"c",
    "ünï cödé",
    "%s {0} @PROMPT@",
    "a\\nb",
]
SHELLS = {
    "sh": "activate",
    "bash": "activate",
    "zsh": "activate",
    "fish": "activate.fish",
    "tcsh": "activate.csh",
}


@pytest.mark.parametrize("name", NASTY)
def test_environment_whose_path_is_code(siteswap: Siteswap, tmp_path: Path, wheels: Path, name: str) -> None:
    """A path with quotes, `$()` or backticks is a path to every shell, in shebangs and in pyvenv.cfg."""
    wheel(
        wheels, "demo", files={"demo.py": "def main():\n    print('runs')\n"}, scripts={"demo": "demo:main"}
    )
    env = tmp_path / name
    siteswap("create", env).ok()
    siteswap("install", "-e", env, "--no-index", "-f", wheels, "--no-check", "demo").ok()
    assert subprocess.run([env / "bin/demo"], capture_output=True, text=True).stdout == "runs\n"
    assert run_python(env / "bin/python", "import sys; print(sys.prefix)").startswith(str(env))
    for shell, script in SHELLS.items():
        if shutil.which(shell) is None:
            continue
        source = "source" if shell in ("fish", "tcsh") else "."
        (tmp_path / "program").write_text(f"{source} bin/{script}\ndemo\ndeactivate\n")
        flags = {"tcsh": ["-f"], "fish": ["--no-config"]}.get(shell, [])
        done = subprocess.run(
            [shell, *flags, tmp_path / "program"], cwd=env, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )  # fmt: skip
        assert (shell, done.stdout, done.returncode) == (shell, "runs\n", 0), done.stderr
    assert not [item for item in tmp_path.rglob("*") if item.name == "evil"]


@pytest.mark.parametrize("name", ["a\nhome = b", "a\rb", f"a{ESCAPE}", "a\x9bb"])
def test_environment_whose_path_a_terminal_would_obey(siteswap: Siteswap, tmp_path: Path, name: str) -> None:
    """Control characters in a path end no line of pyvenv.cfg, and no command shows them as they are."""
    env = tmp_path / name
    made, again = siteswap("create", env).ok(), siteswap("create", env)
    listed = siteswap("list", "-e", env).ok()
    assert run_python(env / "bin/python", "import sys; print(ascii(sys.prefix))").strip("'").startswith("/")
    assert (env / "pyvenv.cfg").read_bytes().count(b"home = ") == 1
    told = made.out + made.err + again.err + listed.out + listed.err
    assert [c for c in told if not c.isprintable() and c != "\n"] == []
    refused(again, "is an environment already", status=2)
