"""What checks found, and what follows from it: values and their judgement. Pure.

A finding is one thing that is wrong. Held against the base generation it is
new, which blocks; an unchanged failure; or told, because nobody can say that it
matters here (docs/decisions/0006-import-failures.md).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from siteswap.errors import Kind, SiteswapError
from siteswap.layout import Number


class Check(enum.Enum):
    """Every kind of check, in the order in which they run."""

    DEPENDENCIES = "dependencies"
    FILES = "files"
    TAGS = "tags"
    ENTRY_POINTS = "entry points"
    STARTUP_CODE = "start-up code"
    LIBRARIES = "shared libraries"
    BYTE_CODE = "byte-code"
    IMPORTS = "imports"
    TESTS = "tests"
    COMMAND = "command"


class Standing(enum.Enum):
    """What a finding means for the candidate."""

    BLOCKS = "blocks"
    UNCHANGED = "unchanged-failure"
    """The base has it in the same way."""
    TOLD = "told"
    """Worth knowing; does not block."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a generation."""

    check: Check
    subject: str
    """The distribution's normalised name, or what the user's check is called."""
    message: str
    """One line; it does not repeat the subject."""
    part: str = ""
    """What in the subject is meant: a module, a program, a file, a requirement."""
    version: str = ""
    """The distribution's version."""
    detail: str = ""
    """The whole output, or nothing."""
    missing: str | None = None
    """The module that was not found, where that is what failed."""
    suspected: bool = False
    """It concerns a part that no check has tried: blocks only where that part was sound in the base."""
    standing: Standing = Standing.BLOCKS
    why: tuple[str, ...] = ()
    """Lines on where the subject comes from and since when it fails."""

    @property
    def title(self) -> str:
        """The subject as people write it."""
        return f"{self.subject} {self.version}".rstrip()

    @property
    def way(self) -> tuple[str, ...]:
        """Equal for findings that fail in the same way, whatever version, address or path they name."""
        return (self.check.value, self.subject, self.part, _same_words(self.message))

    def __str__(self) -> str:
        return f"{self.title}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """For scripts and logs; without the whole output."""
        return {
            "check": self.check.value,
            "subject": self.subject,
            "version": self.version,
            "part": self.part,
            "message": self.message,
            "standing": self.standing.value,
            "why": list(self.why),
        }


@dataclass(frozen=True)
class Tried:
    """One row of the report: a check that ran, and how it ended."""

    check: Check
    what: str
    """What was tried, in a few words."""
    seconds: float
    findings: tuple[Finding, ...] = ()
    output: str = ""
    """All that the check printed, where it is one program."""

    @property
    def outcome(self) -> str:
        """`passed`, or the worst standing among its findings: `failed`, `told`, `unchanged-failure`."""
        standings = {item.standing for item in self.findings}
        if Standing.BLOCKS in standings:
            return "failed"
        if Standing.TOLD in standings:
            return Standing.TOLD.value
        return Standing.UNCHANGED.value if standings else "passed"

    def to_json(self) -> dict[str, Any]:
        """For scripts and logs."""
        return {
            "check": self.check.value,
            "what": self.what,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 3),
            "findings": [item.to_json() for item in self.findings],
        }


@dataclass(frozen=True)
class Verdict:
    """All that was tried on one generation."""

    generation: Number
    base: Number | None
    """What it was held against; None: against nothing."""
    command: str
    """What the user typed."""
    time: str
    """UTC, ISO 8601."""
    tried: tuple[Tried, ...] = ()
    notes: tuple[str, ...] = ()
    """What limits the checks, and what they did besides."""
    log: str | None = None
    """Path of the whole output, once it is kept."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that was found."""
        return tuple(finding for row in self.tried for finding in row.findings)

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """What keeps the generation from going live."""
        return tuple(item for item in self.findings if item.standing is Standing.BLOCKS)

    @property
    def passed(self) -> bool:
        """Whether nothing blocks."""
        return not self.blocking

    def to_json(self) -> dict[str, Any]:
        """For scripts and logs."""
        return {
            "generation": self.generation,
            "base": self.base,
            "command": self.command,
            "time": self.time,
            "passed": self.passed,
            "checks": [row.to_json() for row in self.tried],
            "notes": list(self.notes),
            "log": self.log,
        }


class CheckError(SiteswapError):
    """The candidate, or the generation that was to be looked at, failed its checks."""

    def __init__(self, verdict: Verdict, message: str, *, hint: str | None = None) -> None:
        super().__init__(Kind.CHECK, message, hint=hint, detail=shown(verdict.blocking))
        self.verdict = verdict


def judged(
    found: Iterable[Finding], before: Iterable[Finding], *, sound: Mapping[str, bool] | None = None
) -> list[Finding]:
    """The findings with their standing, given those of the base.

    What the base has in the same way is unchanged. A suspected defect blocks only
    where `sound` says of its subject and part (`subject:part`) that the base had
    that part; else it is told.
    """
    ways = {item.way for item in before}
    result = []
    for item in found:
        if item.standing is not Standing.BLOCKS:
            result.append(item)
        elif item.way in ways:
            result.append(replace(item, standing=Standing.UNCHANGED))
        elif item.suspected and not (sound or {}).get(f"{item.subject}:{item.part}"):
            result.append(replace(item, standing=Standing.TOLD))
        else:
            result.append(item)
    return result


_SHOWN_LINES = 5
_SHOWN_CHARACTERS = 1000


def shown(findings: Iterable[Finding]) -> str:
    """The lines of each finding that matter on a terminal."""
    lines = []
    for item in findings:
        lines.append(str(item))
        lines += [f"    {line}" for line in (*_telling(item), *item.why)]
    return "\n".join(map(_harmless, lines))


def _telling(finding: Finding) -> list[str]:
    """Of a traceback where it was raised, if the message says what was; of other output its end."""
    whole = (_GENERATION.sub("", line.expandtabs()).rstrip() for line in finding.detail.splitlines())
    lines = [line for line in whole if line]
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if frames and lines[0].startswith("Traceback ") and " ".join(lines[-1].split()) in finding.message:
        return [line.removeprefix("  ") for line in lines[frames[-1] : frames[-1] + 2]]
    return lines[-_SHOWN_LINES:]


def _harmless(text: str) -> str:
    """Without what a terminal would obey, and not too much: it comes from what was tried."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
    return "".join(character if character.isprintable() else "\ufffd" for character in cut)


_GENERATION = re.compile(r"/\S*/\.siteswap/generations/[0-9]+/")
_VARYING = re.compile(r"0x[0-9a-fA-F]+|/\S*/\.siteswap/generations/[0-9]+|[0-9]+(\.[0-9]+)*")


def _same_words(message: str) -> str:
    """The message without what differs from one run to the next."""
    return _VARYING.sub("#", message)


def told(findings: Iterable[Finding]) -> list[str]:
    """What to tell of findings that do not block."""
    lines = []
    for item in findings:
        if item.standing is Standing.UNCHANGED:
            lines.append(f"not new: {item}")
        elif item.standing is Standing.TOLD:
            lines.append(str(item))
    return lines
