"""A program: one siteswap command, with a clock around each time that it holds the flip lock.

The first word names a file; the seconds are written there. Nothing of siteswap is changed: `Waiting.flip` is
where every command takes the lock, `Lock.release` where it is given up. It runs isolated, so it imports
nothing of the benchmarks.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from siteswap import cli
from siteswap.fs import Lock
from siteswap.waiting import Waiting


def main() -> int:
    """Run the command; its exit status."""
    told = Path(sys.argv.pop(1))
    times: list[float] = []
    begun: dict[int, tuple[Lock, float]] = {}
    take, release = Waiting.flip, Lock.release

    def clocked_take(self: Waiting) -> Lock:
        lock = take(self)
        begun[id(lock)] = (lock, time.perf_counter())
        return lock

    def clocked_release(self: Lock) -> None:
        release(self)
        if id(self) in begun:
            times.append(time.perf_counter() - begun.pop(id(self))[1])

    Waiting.flip = clocked_take  # type: ignore[method-assign]
    Lock.release = clocked_release  # type: ignore[method-assign]
    try:
        return cli.main()
    finally:
        told.write_text(json.dumps(times))


if __name__ == "__main__":
    sys.exit(main())
