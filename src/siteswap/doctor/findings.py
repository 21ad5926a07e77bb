"""What may be wrong with an environment, as values. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from siteswap.layout import Number


class Severity(enum.Enum):
    """How much a finding matters."""

    DAMAGE = "damage"
    """The environment is not what siteswap wrote: exit status 4."""
    WARNING = "warning"
    """Nothing is damaged, and yet something will not be as promised."""
    NOTE = "note"
    """Good to know: what other tools changed, what a crash left, what was repaired elsewhere."""


class Kind(enum.Enum):
    """What a finding is about."""

    FORMAT = "format"
    CURRENT = "current"
    HISTORY = "history"
    TAGS = "tags"
    LINK = "link"
    """A link or directory around the generations."""
    CONFIGURATION = "configuration"
    INTERPRETER = "interpreter"
    MANIFEST = "manifest"
    REPLACED = "replaced"
    """A damaged generation that a repaired one took the place of."""
    LOCK_FILE = "lock-file"
    LEASE = "lease"
    OWN = "own"
    """A file that siteswap itself puts into a generation."""
    RECORD = "record"
    FILE = "file"
    MODE = "mode"
    CACHE = "cache"
    DRIFT = "drift"
    """Another tool's work, and files of no distribution."""
    SOURCE = "source"
    """The source directory of an editable."""
    LEFTOVER = "leftover"
    PYTHONPATH = "pythonpath"


class Cure(enum.Enum):
    """What can be done about a finding."""

    REPAIR = "repair"
    """`siteswap doctor --repair` does it."""
    BEYOND = "beyond"
    """siteswap cannot; `how` has the next step."""
    NONE = "none"
    """Nothing need be done."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    kind: Kind
    what: str
    """One line, without the place."""
    severity: Severity = Severity.DAMAGE
    generation: Number | None = None
    distribution: str | None = None
    path: str | None = None
    """Relative to the generation, or to the environment."""
    shared: tuple[str, ...] = ()
    """Other places that have the very same file, and so the same damage."""
    cure: Cure = Cure.NONE
    how: str = ""
    """How it is repaired, or what to do instead."""
    where: str = ""
    """The place, where it is neither a generation nor the environment."""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        if self.where:
            return self.where
        return "environment" if self.generation is None else f"generation {self.generation}"

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "kind": self.kind.value,
            "severity": self.severity.value,
            "place": self.place,
            "generation": self.generation,
            "distribution": self.distribution,
            "path": self.path,
            "what": self.what,
            "shared": list(self.shared),
            "repair": self.cure.value,
            "how": self.how,
        }


def damage(findings: Iterable[Finding]) -> list[Finding]:
    """Those that make the environment a damaged one."""
    return [item for item in findings if item.severity is Severity.DAMAGE]


def curable(finding: Finding, how: str) -> Finding:
    """The finding, repaired by `siteswap doctor --repair` as `how` says."""
    return replace(finding, cure=Cure.REPAIR, how=how)


def beyond(finding: Finding, how: str) -> Finding:
    """The finding, which siteswap cannot repair; `how` is the next step."""
    return replace(finding, cure=Cure.BEYOND, how=how)
