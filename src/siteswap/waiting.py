"""Wait for a lock of an environment, telling for whom."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from siteswap import opening
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, Lock
from siteswap.layout import Layout
from siteswap.progress import Progress

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Waiting:
    """How one command waits: for as long as `timeout` seconds (None: for ever), telling `progress`."""

    fs: FileSystem
    layout: Layout
    progress: Progress
    timeout: float | None
    command: str

    def writer(self) -> Lock:
        """The lock of whoever builds candidates. Raises SiteswapError (busy)."""
        return self._take(self.layout.writer_lock)

    def flip(self) -> Lock:
        """The lock of whoever changes `current` or detaches a generation. Raises SiteswapError (busy)."""
        return self._take(self.layout.flip_lock)

    def _take(self, path: Path) -> Lock:
        begun = time.monotonic()
        told = ""
        while True:
            try:
                lock = self.fs.lock(path)
            except FileNotFoundError:
                opening.require_environment(self.fs, self.layout)
                raise
            if lock is not None:
                try:
                    # While we waited it may have become a plain virtual environment, all this elsewhere.
                    opening.require_environment(self.fs, self.layout)
                except BaseException:
                    lock.release()
                    raise
                # For those who wait, no more: a full disk must not stop a command that may make room.
                with contextlib.suppress(OSError):
                    self.fs.note(lock, f"PID {os.getpid()} siteswap {self.command}".rstrip())
                return lock
            holder = self._holder(path)
            if self.timeout is not None and time.monotonic() - begun >= self.timeout:
                raise SiteswapError(
                    Kind.BUSY,
                    f"{self.layout.root} is being changed by {holder}",
                    hint="wait for it to end, or allow more time with --lock-timeout SECONDS",
                )
            if holder != told:
                self.progress.waiting(holder)
                told = holder
            time.sleep(_POLL_SECONDS)

    def _holder(self, path: Path) -> str:
        try:
            return self.fs.read_text(path).strip() or "another command"
        except (OSError, UnicodeDecodeError):
            return "another command"
