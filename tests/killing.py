"""Run the real command line and send it a signal at a chosen change of the disk. Used by test_kills.

Every change that Python code makes is announced by an audit hook before it happens; barriers and syncs, which
are not, are wrapped. So `at` counts the same things in the same order in every run, whatever the time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGING = {
    "open", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
    "os.truncate", "os.utime",
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
WRAPPED = ("barrier", "sync_directory", "exchange")
"""Methods of the port that no audit event announces; they count before and after."""


GRACE = "KILLING_GRACE_SECONDS"
"""A variable that gives the command another time of grace for programs that are just starting."""


@dataclass(frozen=True)
class Killed:
    """How a command ended that was sent a signal."""

    status: int
    out: str
    err: str
    changes: int
    """How many changes it made, as far as it came to say so; -1 when it could not."""

    @property
    def reported_success(self) -> bool:
        """Whether it said that it is done."""
        return self.status == 0


def run(at: int, number: signal.Signals, *words: str | Path) -> Killed:
    """Run `siteswap` with these words and send itself the signal at change `at` (0: never)."""
    told, telling = os.pipe()
    try:
        with subprocess.Popen(
            [sys.executable, __file__, str(at), str(int(number)), str(telling), *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            pass_fds=[telling],
        ) as running:  # fmt: skip
            os.close(telling)
            telling = -1
            out, err = running.communicate(timeout=120)
        said = os.read(told, 100)
        return Killed(running.returncode, out, err, int(said or b"-1"))
    finally:
        os.close(told)
        if telling >= 0:
            os.close(telling)


class _Counter:
    """Counts changes and sends the signal when its turn has come."""

    def __init__(self, at: int, number: int) -> None:
        self.at = at
        self.number = number
        self.count = 0

    def change(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), self.number)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGING:
            return
        if event == "open":
            path, _, flags = arguments
            harmless = not isinstance(flags, int) or not flags & WRITING or str(path).startswith("/dev/")
            if harmless:
                return
        self.change()

    def wrapped(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.change()
            result = method(*arguments, **more)
            self.change()
            return result

        return call


def main() -> int:
    """The command's own process."""
    from siteswap import cli, collect
    from siteswap.fs import FileSystem

    sys.dont_write_bytecode = True  # siteswap's own byte-code is no part of what it does
    collect.GRACE_SECONDS = float(os.environ.get(GRACE, collect.GRACE_SECONDS))
    at, number, telling = map(int, sys.argv[1:4])
    counter = _Counter(at, number)
    for name in WRAPPED:
        setattr(FileSystem, name, counter.wrapped(getattr(FileSystem, name)))
    sys.addaudithook(counter.audit)
    try:
        return cli.main(sys.argv[4:])
    finally:
        os.write(telling, str(counter.count).encode())


if __name__ == "__main__":
    sys.exit(main())
