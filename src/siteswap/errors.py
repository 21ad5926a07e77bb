"""Every error that siteswap raises on purpose: one root, with kind and hints as data.

The command line turns a kind into an exit status through `EXIT_STATUS`; the
library's callers may look at `SiteswapError.kind`. Anything that is not a
`SiteswapError` is a bug in siteswap.
"""

from __future__ import annotations

import enum

REPAIR_HINT = "siteswap doctor shows all that is damaged, siteswap doctor --repair repairs it"
"""The next step where what is on disk is not what siteswap wrote."""


class Kind(enum.Enum):
    """Why something was refused, as a caller would sort it."""

    REQUIREMENT = "requirement"
    """A requirement cannot be satisfied, fetched, built or verified."""
    CHECK = "check"
    """The candidate was tried and failed; it was discarded."""
    CONFLICT = "conflict"
    """Two distributions claim one file."""
    USAGE = "usage"
    """The request itself makes no sense: wrong path, option, name or number."""
    BUSY = "busy"
    """Somebody else holds a lock for longer than we were told to wait."""
    STALE = "stale"
    """The base of a transaction is no longer current."""
    DAMAGED = "damaged"
    """What is on disk is not what siteswap wrote."""
    SYSTEM = "system"
    """The operating system refused: space, permission, I/O, an unsupported file system."""
    INTERRUPTED = "interrupted"
    """The user or the system asked the command to stop."""
    BUG = "bug"
    """An invariant of siteswap's own does not hold."""


EXIT_STATUS: dict[Kind, int] = {
    Kind.REQUIREMENT: 1,
    Kind.CHECK: 1,
    Kind.CONFLICT: 1,
    Kind.USAGE: 2,
    Kind.BUSY: 3,
    Kind.STALE: 3,
    Kind.DAMAGED: 4,
    Kind.SYSTEM: 5,
    Kind.BUG: 70,
    Kind.INTERRUPTED: 130,
}
"""Exit status of the command line for each kind; documented in docs/reference.md."""


class SiteswapError(Exception):
    """Something that was refused, with what to do next.

    `message` is one line that names the thing; `hint` is the next step;
    `detail` is longer text worth showing below it (a resolver's explanation,
    the output of a check).
    """

    def __init__(
        self, kind: Kind, message: str, *, hint: str | None = None, detail: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.detail = detail

    @property
    def exit_status(self) -> int:
        """The status that the command line exits with for this error."""
        return EXIT_STATUS[self.kind]


def bug(message: str) -> SiteswapError:
    """A broken invariant of siteswap's own, to be raised by the caller."""
    return SiteswapError(
        Kind.BUG, f"BUG: {message}", hint="please report this; the environment was left as it was"
    )
