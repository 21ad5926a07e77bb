"""What the README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def _steps() -> list[tuple[str, list[str]]]:
    """Commands of the README's transcript, each with the lines that it says follow."""
    transcript = re.search(r"```console\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert transcript is not None
    steps: list[tuple[str, list[str]]] = []
    for line in transcript.group(1).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


@pytest.mark.index
def test_the_transcript_is_what_happens(tmp_path: Path) -> None:
    """Each command of the README prints the lines shown, in that order (others may stand between them)."""
    programs = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": os.pathsep.join([programs, os.environ["PATH"]])}
    for command, expected in _steps():
        done = subprocess.run(
            ["/bin/bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        shown = (done.stdout + done.stderr).splitlines()
        rest = iter(shown)
        for line in expected:
            pattern = re.compile(".*".join(re.escape(part) for part in line.split("…")))
            found = any(pattern.fullmatch(candidate.rstrip()) for candidate in rest)
            assert found, f"$ {command}\nmissing: {line}\n" + "\n".join(shown)
