"""Which checks a candidate must pass, and within which limits: values only. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

COMMAND_SECONDS = 3600.0
"""How long a command or a test suite may take unless a setting says otherwise."""
IMPORT_SECONDS = 120.0
"""How long the modules of one distribution may take to import."""


@dataclass(frozen=True)
class Gate:
    """One check of the user's: a command, or a distribution's own tests."""

    name: str
    """What the report calls it."""
    command: str | None = None
    """A line for /bin/sh, run with the candidate's programs first on PATH."""
    suite: str | None = None
    """Normalised name of the distribution whose own tests are run; exactly one of the two is given."""
    requirements: tuple[str, ...] = ()
    """For a suite: what it needs besides, installed where only the check sees it."""
    arguments: tuple[str, ...] = ()
    """For a suite: more words for the test runner."""
    timeout: float = COMMAND_SECONDS
    """Seconds."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides those that siteswap was started with."""
    directory: Path | None = None
    """Where it runs; None: for a command where siteswap was started, for a suite a scratch directory."""
    writable: tuple[Path, ...] = ()
    """Directories that it may write to besides the scratch places."""
    needed: bool = True
    """False: advisory; a failure is told and does not block."""


@dataclass(frozen=True)
class Gates:
    """Everything that is asked of a candidate."""

    enabled: bool = True
    """False is the user's explicit --no-check."""
    own: tuple[Gate, ...] = ()
    """The user's checks, in order."""
    allow_broken: frozenset[str] = frozenset()
    """Normalised names of distributions whose failures to import are told and do not block."""
    missing_dependencies: bool = False
    """Unsatisfied requirements are told but do not block (--no-deps)."""
    startup_code: bool = True
    """False refuses a candidate with start-up code that the base does not have."""
    offline: bool = False
    """No network for whatever the checks run."""
    user: str | None = None
    """Who the checks run as; None: whoever runs siteswap, and where that is root, the environment's owner."""
    import_timeout: float = IMPORT_SECONDS
    """Seconds that the modules of one distribution may take to import."""
    writable: tuple[Path, ...] = ()
    """Directories that every check may write to besides the scratch places."""
    memory: int | None = None
    """Bytes of memory that one process of a check may have for its data; None: half of the machine's."""


DEFAULT_GATES = Gates()
