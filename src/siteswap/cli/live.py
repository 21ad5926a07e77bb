"""What a long command shows while it works: a live view on a terminal, next to nothing in a pipe."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from siteswap.cli.render import printable
from siteswap.progress import Progress


class Quiet(Progress):
    """For pipes: only what the user must know."""

    def waiting(self, holder: str) -> None:
        print(f"siteswap: waiting for {printable(holder)}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(f"siteswap: note: {printable(text)}", file=sys.stderr, flush=True)


class Live(Quiet):
    """For terminals: one line a phase, with a bar where the size of the work is known."""

    def __init__(self) -> None:
        # Imported here: it takes longer to import than most commands run.
        from rich.console import Console
        from rich.progress import Progress as Bars
        from rich.progress import (
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self._guard = threading.Lock()
        self._console = Console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=self._console, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, Any] = {}
        self._phase = ""
        self._count = 0
        self._total = 0
        self._received = 0
        self._expected = 0
        self._started = False

    def phase(self, name: str, total: int = 0) -> None:
        with self._guard:
            if not self._started:
                self._bars.start()
                self._started = True
            self._finish()
            self._phase, self._count, self._total = name, 0, total
            self._received = self._expected = 0
            self._tasks["phase"] = self._bars.add_task(name, total=None)

    def step(self, count: int = 1) -> None:
        self._say(f"{self._phase}: {self._add(count):,} files")

    def expect(self, title: str, size: int) -> None:
        with self._guard:
            self._expected += size
        self._say(f"download {title}{self._amount()}")

    def bytes(self, count: int) -> None:
        with self._guard:
            self._received += count
        self._say(f"download{self._amount()}")

    def building(self, title: str) -> None:
        self._say(f"build {title}")

    def unpacked(self, title: str) -> None:
        self._say(f"unpack {title} ({self._add(1)}/{self._total}){self._amount()}")

    def checked(self, name: str) -> None:
        self._say(f"check {name} ({self._add(1)}/{self._total})")

    def tried(self, check: str, what: str, outcome: str, seconds: float) -> None:
        line = f"{check:<16} {seconds:7.2f} s  {outcome:<7} {what}"
        self._console.print(printable(line), highlight=False, markup=False)

    def waiting(self, holder: str) -> None:
        self._console.print(f"waiting for {printable(holder)}", highlight=False, markup=False)

    def note(self, text: str) -> None:
        self._console.print(f"note: {printable(text)}", highlight=False, markup=False)

    def stop(self) -> None:
        with self._guard:
            if self._started:
                self._finish()
                self._bars.stop()
                self._started = False

    def _add(self, count: int) -> int:
        with self._guard:
            self._count += count
            return self._count

    def _amount(self) -> str:
        if not self._expected:
            return ""
        return f" {self._received / 1e6:.1f}/{self._expected / 1e6:.1f} MB"

    def _say(self, text: str) -> None:
        with self._guard:
            task = self._tasks.get("phase")
            if task is not None:
                # Names come from archives and indexes: they must not be taken for markup.
                self._bars.update(task, description=printable(text).replace("[", "\\["))

    def _finish(self) -> None:
        task = self._tasks.pop("phase", None)
        if task is not None:
            self._bars.remove_task(task)


def choose(quiet: bool) -> Progress:
    """The view that fits where stderr goes."""
    if quiet:
        return Progress()
    # A notebook's cells run programs on a terminal of their own, and keep all that it shows.
    notebook = "JPY_PARENT_PID" in os.environ
    return Live() if sys.stderr.isatty() and not notebook else Quiet()
