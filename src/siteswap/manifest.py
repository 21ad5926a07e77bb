"""The values that describe environments, generations and operations, and their JSON. Pure.

Every `from_json` refuses what it does not understand with a SiteswapError
(damaged); nothing here reads or writes a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from siteswap.errors import REPAIR_HINT, Kind, SiteswapError
from siteswap.layout import Number

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Interpreter:
    """What siteswap knows of the base interpreter of an environment."""

    executable: str
    """Absolute path of the program that the launcher executes."""
    version: str
    """Full version, "3.12.1"."""
    implementation: str
    cache_tag: str
    """As in byte-code file names: "cpython-312"."""
    schemes: Mapping[str, str]
    """Installation paths relative to a prefix, from the interpreter's own sysconfig: purelib, platlib, …"""
    lib64: bool
    """Whether its virtual environments have a link lib64 -> lib."""
    markers: Mapping[str, str]
    """Environment markers (PyPA dependency specifiers)."""
    tags: tuple[str, ...]
    """Compatible wheel tags (PyPA platform compatibility tags), best first."""
    fingerprint: str
    """Tells whether the program at `executable` is still the one that was asked."""

    @property
    def short_version(self) -> str:
        """Major and minor version, "3.12"."""
        return ".".join(self.version.split(".")[:2])

    @property
    def version_pair(self) -> tuple[int, int]:
        """Major and minor version as numbers."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def purelib(self) -> str:
        """The site-packages directory, relative to a prefix."""
        return self.schemes["purelib"]


@dataclass(frozen=True)
class Distribution:
    """One distribution as installed in a generation."""

    name: str
    """Normalised name (PyPA name normalisation)."""
    version: str
    key: str
    """Identity of the files: equal keys in one environment mean equal files, so they may be linked."""
    dist_info: str
    """The .dist-info directory, relative to the prefix."""
    requested: bool
    """Asked for by the user, as opposed to having come along as a dependency."""
    requires: tuple[str, ...] = ()
    """Requires-Dist of its metadata."""
    requires_python: str | None = None
    origin: str | None = None
    """Where it came from: the wheel's URL or path, the source tree, …"""
    editable: str | None = None
    """The source directory of an editable install."""
    foreign: bool = False
    """Put there by another tool and carried along."""

    @property
    def title(self) -> str:
        """Name and version as people write them."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Manifest:
    """A generation's own description."""

    number: Number
    created: str
    """UTC, ISO 8601."""
    command: str
    """What the user typed, to be shown by history."""
    base: Number | None
    """The generation that this one was made from."""
    interpreter: Interpreter
    requirements: tuple[str, ...]
    """What the user asked for, as requirement lines."""
    distributions: tuple[Distribution, ...]
    system_site_packages: bool
    shared_mode: int
    """The bits for group and other that its files were made with."""
    checked: str
    """"passed", or "skipped" when the user said --no-check."""
    overlaps: tuple[str, ...] = ()
    """Files claimed by more than one distribution and allowed to be."""
    strays: tuple[str, ...] = ()
    """Files that belong to no distribution, carried along."""
    prompt: str | None = None
    """What shells show of the environment, where that is not its name."""
    format: int = field(default=MANIFEST_VERSION)

    def find(self, name: str) -> Distribution | None:
        """The distribution of that normalised name."""
        return next((item for item in self.distributions if item.name == name), None)

    def to_json(self) -> bytes:
        """The manifest as it stands on disk."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @staticmethod
    def from_json(text: bytes, where: str) -> Manifest:
        """Read a manifest; `where` names it in errors. Raises SiteswapError (damaged)."""
        try:
            data: dict[str, Any] = json.loads(text)
            if data["format"] != MANIFEST_VERSION:
                raise SiteswapError(
                    Kind.DAMAGED,
                    f"{where} has format {data['format']}, this siteswap knows {MANIFEST_VERSION}",
                    hint="use the siteswap that wrote it, or a newer one",
                )
            data["interpreter"] = _interpreter(data["interpreter"])
            data["distributions"] = tuple(_distribution(item) for item in data["distributions"])
            for name in ("requirements", "overlaps", "strays"):
                data[name] = tuple(data[name])
            return Manifest(**data)
        except (ValueError, KeyError, TypeError) as error:
            raise SiteswapError(
                Kind.DAMAGED,
                f"{where} cannot be read: {error}",
                hint=REPAIR_HINT,
            ) from error


@dataclass(frozen=True)
class Operation:
    """One flip, as the history records it."""

    time: str
    kind: str
    """create, install, uninstall, sync, rollback, …"""
    command: str
    source: Number | None
    """The generation that was current before."""
    target: Number
    """The generation that the flip made current."""
    user: str

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(asdict(self))


def parse_history(text: str) -> list[Operation]:
    """Operations in order. What is none (a line torn by a crash while it was appended) is left out."""
    operations = []
    for line in text.splitlines():
        try:
            found = Operation(**json.loads(line))
            datetime.fromisoformat(found.time)
            if type(found.target) is int and type(found.source) in (int, type(None)):
                operations.append(found)
        except (ValueError, TypeError):
            continue
    return operations


def effective_history(operations: list[Operation], current: Number) -> list[Operation]:
    """The operations that took place.

    A record is written just before its flip, so a crash may leave the record of
    a flip that never came. A record counts if the next one that counts started
    from its target, or, for the last, if its target is current.
    """
    effective: list[Operation] = []
    expected: Number | None = current
    for operation in reversed(operations):
        if operation.target == expected:
            effective.append(operation)
            expected = operation.source
    return effective[::-1]


@dataclass(frozen=True)
class Change:
    """One line of what differs between two generations."""

    name: str
    before: str | None
    after: str | None
    rebuilt: bool = False
    """Same version, other files."""

    @property
    def sign(self) -> str:
        """`+` for added, `-` for removed, `~` for changed."""
        if self.before is None:
            return "+"
        return "-" if self.after is None else "~"

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return f"{self.sign} {self.name} {self.after or self.before}"
        if self.rebuilt:
            return f"{self.sign} {self.name} {self.after} (other files)"
        return f"{self.sign} {self.name} {self.before} → {self.after}"


def changes(before: tuple[Distribution, ...], after: tuple[Distribution, ...]) -> list[Change]:
    """What one would have to do to `before` to get `after`, by name."""
    old = {item.name: item for item in before}
    new = {item.name: item for item in after}
    found = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if was is None or now is None:
            found.append(Change(name, was.version if was else None, now.version if now else None))
        elif was.version != now.version:
            found.append(Change(name, was.version, now.version))
        elif not same_content(was, now):
            found.append(Change(name, was.version, now.version, rebuilt=True))
    return found


def same_content(one: Distribution, other: Distribution) -> bool:
    """Whether two distributions come from the same wheel, whatever else is recorded of them."""
    return one.key.partition("+")[0] == other.key.partition("+")[0]


def with_number(manifest: Manifest, number: Number) -> Manifest:
    """The same description under another number."""
    return replace(manifest, number=number)


def _interpreter(data: dict[str, Any]) -> Interpreter:
    data["tags"] = tuple(data["tags"])
    return Interpreter(**data)


def _distribution(data: dict[str, Any]) -> Distribution:
    data["requires"] = tuple(data["requires"])
    return Distribution(**data)
