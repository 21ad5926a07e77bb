"""Run programs so that nothing of theirs stays: checks within limits, builds and installers without.

What a program may do is enforced by `probe/supervise.py`, one supervisor for each
program that runs at the same time. On Linux with Landlock nothing outside the
places named can be written to, created, removed or signalled; what Landlock does
not cover (modes and times of files) is not prevented. When `run` returns, no
process that the program had started is left; nor when siteswap itself is killed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from siteswap import probe, process
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import Access

LANDLOCK = True
"""Whether to use Landlock where the kernel has it; tests turn it off to see what it prevents."""


FOREVER = 1e9
"""Seconds: no limit on how long something may run."""


@dataclass(frozen=True)
class Terms:
    """What programs may do."""

    writable: tuple[Path, ...] | None
    """Directories that they may write to, with all that is in them; None: wherever their user may."""
    umask: int
    """Theirs; -1: ours."""
    offline: bool = False
    """Without a network."""
    account: process.Account | None = None
    """Who they run as; None: whoever runs siteswap."""
    memory: int | None = None
    """Bytes that one process may have for its data; None: half of the machine's memory; 0: no limit."""
    streams: tuple[int, ...] = ()
    """Descriptors to use as standard streams, of programs that a user talks to; none: output is kept."""


class Confinement:
    """Runs programs within terms, several at once from several threads. Use it as a context manager."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.landlocked = False
        """Whether writing is confined; known once something has run."""
        self._guard = threading.Lock()
        self._free: dict[tuple[Path, ...], list[process.Companion]] = {}
        self._all: list[process.Companion] = []
        self._closed = False

    def __enter__(self) -> Confinement:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for companion in self._all:
            companion.wait()

    def start(self) -> None:
        """Start a supervisor, so that it is known whether writing is confined.

        Raises SiteswapError (system).
        """
        self._give_back((), self._take(()))

    def run(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        timeout: float = FOREVER,
        stdin: str = "",
        merge: bool = False,
        writable: tuple[Path, ...] = (),
    ) -> process.Finished:
        """Run one program to its end, which is at most `timeout` seconds away, and return what it printed.

        `writable` are directories that it may write to besides those of the terms;
        with `merge` stderr arrives in stdout in order. Raises SiteswapError (system)
        when it cannot be started within the terms.
        """
        request = {
            "command": [os.fspath(word) for word in command],
            "env": dict(env),
            "cwd": str(cwd),
            "timeout": timeout,
            "merge": merge,
            "umask": self.terms.umask,
        }
        companion = self._take(writable)
        answer = companion.ask(request, stdin)
        if self._closed:
            raise SiteswapError(Kind.INTERRUPTED, "stopped", hint="run the command again")
        if answer is None:
            out, err = companion.output()
            return process.Finished(-9, out, err)  # it killed even its supervisor: one finding, like others
        if "problem" in answer:
            raise SiteswapError(
                Kind.SYSTEM, f"cannot run {command[0]}: {answer['problem']}", hint=self._advice()
            )
        out, err = companion.output()
        self._give_back(writable, companion)
        status = answer["status"] if answer["status"] is not None else -9
        return process.Finished(status, out, err, answer["timed_out"], answer["left"])

    def stop(self) -> None:
        """Kill what runs; from any thread."""
        self._closed = True
        for companion in list(self._all):
            companion.close()

    def _take(self, writable: tuple[Path, ...]) -> process.Companion:
        with self._guard:
            free = self._free.get(writable)
            if free:
                return free.pop()
        account = self.terms.account
        companion = process.Companion(
            [sys.executable, "-I", "-S", probe.SUPERVISE],
            {
                "writable": [str(path) for path in (*(self.terms.writable or ()), *writable)],
                "offline": self.terms.offline,
                "user": [account.uid, account.gid, list(account.groups)] if account else None,
                "memory": self.terms.memory,
                "landlock": LANDLOCK and self.terms.writable is not None,
            },
            self.terms.streams,
        )
        with self._guard:
            self._all.append(companion)
        greeting = companion.answer()
        if greeting is None:
            raise SiteswapError(
                Kind.SYSTEM,
                "the supervisor of other programs does not start",
                hint="see that siteswap's own Python works",
            )
        self.landlocked = greeting["landlock"] > 0
        return companion

    def _give_back(self, writable: tuple[Path, ...], companion: process.Companion) -> None:
        with self._guard:
            self._free.setdefault(writable, []).append(companion)

    def _advice(self) -> str:
        if self.terms.account is not None:
            name = self.terms.account.name
            return f"be where {name} may be, let {name} read the environment, or name another --check-user"
        if self.terms.offline:
            return "leave out --offline-checks, or allow user namespaces"
        if self.terms.writable is None:
            return "name a program of the environment or of PATH"
        return "--no-check goes on without checks"


def account_for(user: str | None, access: Access) -> process.Account | None:
    """Who checks run as: the user named, else the environment's owner where root runs siteswap; None is us.

    Raises SiteswapError (usage) for a user that is not there, or whom only root could become.
    """
    we = os.geteuid()
    if user is None:
        return process.owner_account(access.uid, access.gid) if we == 0 and access.uid != 0 else None
    found = process.account(user)
    if found.uid == we:
        return None
    if we != 0:
        raise SiteswapError(
            Kind.USAGE, f"only root can run checks as {found.name}", hint="leave out --check-user"
        )
    return found
