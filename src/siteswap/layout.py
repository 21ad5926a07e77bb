"""The layout of an environment on disk: the one module that spells its paths. Pure.

ENV/pyvenv.cfg                     an ordinary venv to every tool
ENV/bin, lib, include, …           relative links to .siteswap/current/<same>
ENV/siteswap.toml                  the user's settings, if any
ENV/.siteswap/format               version of this layout, and the environment's own path
ENV/.siteswap/current              -> generations/43
ENV/.siteswap/generations/43/      a complete prefix
ENV/.siteswap/generations/12       tombstone -> ../current
ENV/.siteswap/spare/               a collected generation, ready to be recycled
ENV/.siteswap/staging/             work in progress
ENV/.siteswap/history              one JSON line per flip
ENV/.siteswap/tags                 names that keep generations
ENV/.siteswap/damaged              generations that could not be repaired
ENV/.siteswap/log/                 output of the checks of the last transactions
ENV/.siteswap/writer               lock of whoever builds a candidate
ENV/.siteswap/lock                 lock of whoever flips or detaches
ENV/.siteswap/adopted/             what the maker of an adopted virtual environment had put there itself
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NewType

Number = NewType("Number", int)
"""The number of a generation: 1 or more, never reused once published."""

FORMAT_VERSION = 1
CORNER = ".generation"
"""Directory inside a generation for what is siteswap's own."""

SETTINGS = "siteswap.toml"
"""The user's settings, in the environment's own directory."""

_NUMBER = re.compile(r"[1-9][0-9]*\Z")


def parse_number(text: str) -> Number | None:
    """The generation number that a directory name spells, or None."""
    return Number(int(text)) if _NUMBER.match(text) else None


@dataclass(frozen=True)
class GenerationLayout:
    """Paths inside one generation (or a candidate, or a spare)."""

    path: Path

    @property
    def corner(self) -> Path:
        """What is siteswap's own in here."""
        return self.path / CORNER

    @property
    def manifest(self) -> Path:
        """The generation's description; written last, so its presence says the content is complete."""
        return self.corner / "manifest.json"

    @property
    def lock_file(self) -> Path:
        """The pylock.toml (PEP 751) that this generation was made from."""
        return self.corner / "pylock.toml"

    @property
    def lease(self) -> Path:
        """The file whose kernel lock pinned processes share."""
        return self.corner / "lease"

    @property
    def base_interpreter(self) -> Path:
        """A link to the interpreter that the launcher executes."""
        return self.corner / "python"

    @property
    def maker(self) -> Path:
        """The siteswap that made it: its interpreter and its program, a line each; pip is led to it."""
        return self.corner / "siteswap"

    @property
    def directories(self) -> Path:
        """Every directory of the generation, one path a line; lets drift be found without a walk."""
        return self.corner / "directories"

    @property
    def imports(self) -> Path:
        """What each distribution was seen to import (JSON); a hint for the next checks, not content."""
        return self.corner / "imports.json"

    @property
    def bin(self) -> Path:
        """Programs."""
        return self.path / "bin"


@dataclass(frozen=True)
class Layout:
    """Paths of one environment. `root` is absolute and resolved."""

    root: Path

    @property
    def creating(self) -> Path:
        """Where an environment is made before it stands at its root: beside it."""
        return self.root.parent / f".{self.root.name[:40]}.siteswap-creating"

    @property
    def creating_lock(self) -> Path:
        """Held by whoever makes it."""
        return self.creating.with_name(f"{self.creating.name}.lock")

    @property
    def leaving(self) -> Path:
        """Where a plain virtual environment is made out of it, and where its generations stay after that."""
        name, digest = self.root.name, hashlib.sha256(os.fsencode(self.root.name)).hexdigest()
        # Generations may stay there for long: so two long names must not come to one place.
        short = name if len(name) <= 40 else f"{name[:31]}-{digest[:8]}"
        return self.root.parent / f".{short}.siteswap-leaving"

    @property
    def left_target(self) -> str:
        """What the link at `home` says while programs go on in generations that were left: there they are."""
        return f"../{self.leaving.name}/.siteswap"

    @property
    def home(self) -> Path:
        """Everything that is siteswap's own."""
        return self.root / ".siteswap"

    @property
    def adopted(self) -> Path:
        """What the maker of an adopted virtual environment had put there itself, for `unadopt`."""
        return self.home / "adopted"

    @property
    def config(self) -> Path:
        """The pyvenv.cfg that other tools look for."""
        return self.root / "pyvenv.cfg"

    @property
    def settings(self) -> Path:
        """Standing gates of the environment (TOML), if the user wrote some; no generation's."""
        return self.root / SETTINGS

    @property
    def format(self) -> Path:
        """Version of the layout and the environment's own path (JSON)."""
        return self.home / "format"

    @property
    def current(self) -> Path:
        """The link that names the live generation."""
        return self.home / "current"

    @property
    def next_current(self) -> Path:
        """The link about to be renamed over `current`; touched only under the flip lock."""
        return self.home / "current.next"

    @property
    def generations(self) -> Path:
        """The directory of generations and tombstones."""
        return self.home / "generations"

    @property
    def spare(self) -> Path:
        """At most one detached generation, ready to be recycled."""
        return self.home / "spare"

    @property
    def staging(self) -> Path:
        """Work in progress: garbage whenever the writer lock is free."""
        return self.home / "staging"

    @property
    def history(self) -> Path:
        """One JSON line per flip."""
        return self.home / "history"

    @property
    def tags(self) -> Path:
        """Names that keep generations (JSON)."""
        return self.home / "tags"

    @property
    def damaged(self) -> Path:
        """Numbers of generations that a repair could not repair (JSON): rollback refuses them."""
        return self.home / "damaged"

    @property
    def log(self) -> Path:
        """Output of the checks of the last transactions."""
        return self.home / "log"

    @property
    def writer_lock(self) -> Path:
        """Held by whoever builds a candidate, for as long as that takes."""
        return self.home / "writer"

    @property
    def flip_lock(self) -> Path:
        """Held for the few milliseconds of a flip or a detachment."""
        return self.home / "lock"

    @property
    def bin(self) -> Path:
        """The logical directory of programs."""
        return self.root / "bin"

    @property
    def stand_ins(self) -> Path:
        """Programs for an active environment that has none of its own by those names."""
        return self.home / "bin"

    @property
    def python(self) -> Path:
        """The logical interpreter: what shebang lines and `sys.executable` say."""
        return self.bin / "python"

    def generation(self, number: Number) -> GenerationLayout:
        """Paths of generation `number`."""
        return GenerationLayout(self.generations / str(number))

    @staticmethod
    def current_target(number: Number) -> str:
        """What `current` must say to make generation `number` live."""
        return f"generations/{number}"

    @staticmethod
    def parse_current(target: str) -> Number | None:
        """The generation that a value of `current` names, or None when it is malformed."""
        head, _, tail = target.partition("/")
        return parse_number(tail) if head == "generations" else None

    TOMBSTONE = "../current"
    """What stands in `generations/` where a collected generation was."""

    @staticmethod
    def top_link_target(name: str) -> str:
        """What the link ENV/<name> must say."""
        return f".siteswap/current/{name}"


NOT_LINKED = frozenset({CORNER, "pyvenv.cfg"})
"""Names at the top of a generation that get no link in the environment."""
