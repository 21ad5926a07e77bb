"""Programs that start while something is changed: how many fail, or see two versions at once."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Command, Runner, Sample

_CODE = "import {0}; from importlib.metadata import version; assert version('{0}') == {0}.__version__"


def failed(
    runner: Runner, python: Path, name: str, change: Callable[[], list[Command]], changes: int
) -> Sample:
    """Make so many changes one after the other; how many of the programs started meanwhile failed.

    Each imports `name` and compares its version with that of its metadata. Raises RunError.
    """
    program = [str(python), "-c", _CODE.format(name)]
    done, ended = threading.Event(), list[int]()

    def start() -> None:
        while not done.is_set():
            found = subprocess.run(program, capture_output=True, env=runner.variables, check=False)
            ended.append(found.returncode)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        for _ in range(changes):
            for command in change():
                runner.run(*command)
    finally:
        done.set()
        thread.join()
    return Sample(sum(map(bool, ended)), of=len(ended))
