"""What is shown while a command works: something on a terminal, nothing in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from conftest import Siteswap
from wheelmaker import wheel


def _on_a_terminal(*words: str | Path) -> str:
    """Everything that the command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "siteswap", *map(str, words)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:  # fmt: skip
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


def test_a_terminal_shows_the_phases(env: Path, wheels: Path) -> None:
    """Each phase of an install appears, and the summary stands at the end."""
    wheel(wheels, "demo")
    seen = _on_a_terminal(
        "install", "-e", env, "--no-index", "--find-links", wheels, "demo", "--check", "true"
    )
    for phase in ("resolve", "download", "link", "check", "commit"):
        assert phase in seen, phase
    assert "generation 2 is current (was 1)" in seen.rsplit("commit", 1)[1]
    assert "go back with: siteswap rollback 1" in seen


def test_a_pipe_sees_only_the_result(siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """Nothing but the summary is printed where nobody watches, and --quiet is quiet on a terminal too."""
    wheel(wheels, "demo")
    ran = siteswap("install", "-e", env, "--no-index", "--find-links", wheels, "demo").ok()
    assert ran.err == ""
    assert ran.out.splitlines()[0] == "generation 2 is current (was 1)"
    seen = _on_a_terminal("uninstall", "-q", "-e", env, "demo")
    assert seen.splitlines()[0] == "generation 3 is current (was 2)"
