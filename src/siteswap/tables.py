"""Values of a TOML file, each with the place where it stands, for the error that may have to name it. Pure.

Every method that asks for a kind of value raises SiteswapError (usage) for another,
naming file and key, and what is allowed there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidName, canonicalize_name

from siteswap.errors import Kind, SiteswapError

_LONGEST = 1e8
"""Seconds: what every clock takes."""
_LEAST_MEMORY = 16 << 20
"""No interpreter starts in less."""
_MOST_MEMORY = (1 << 63) - 1
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_AMOUNT = re.compile(rf"([0-9]{{1,18}}(?:\.[0-9]{{1,9}})?) ?({'|'.join(_UNITS)})\Z", re.ASCII)


class _Absent:
    """Stands for what a file does not say: TOML itself has no such value."""


_ABSENT = _Absent()


@dataclass(frozen=True)
class Value:
    """One value of a file."""

    value: object
    where: str
    key: str
    """Dotted."""

    @property
    def absent(self) -> bool:
        """Whether the file is silent about it."""
        return isinstance(self.value, _Absent)

    def refuse(self, problem: str, allowed: str) -> NoReturn:
        """Raise the error that names the file, the key and what is allowed there."""
        place = f"{self.where}: {self.key}" if self.key else self.where
        raise SiteswapError(Kind.USAGE, f"{place} {problem}", hint=allowed)

    def entries(self) -> list[tuple[str, Value]]:
        """What a table holds; nothing where there is none."""
        if self.absent:
            return []
        if not isinstance(self.value, Mapping):
            self.refuse(f"is {_kind(self.value)}, not a table", "a table, [NAME] with keys below it")
        return [(str(name), self._inner(str(name), value)) for name, value in self.value.items()]

    def table(self, known: Sequence[str]) -> dict[str, Value]:
        """A table that may have these keys, each of them there or absent."""
        found = dict(self.entries())
        for name, value in found.items():
            if name not in known:
                value.refuse("is not known", f"known there: {', '.join(known)}")
        return {name: found.get(name) or self._inner(name, _ABSENT) for name in known}

    def _inner(self, name: str, value: object) -> Value:
        # Printable and of one line, whatever was put in quotes.
        plain = re.fullmatch(r"[\w-]+", name) is not None
        part = name if plain else f'"{name}"' if name.isprintable() and '"' not in name else ascii(name)
        return Value(value, self.where, f"{self.key}.{part}" if self.key else part)

    def items(self) -> list[Value]:
        """What a list holds; nothing where there is none."""
        if self.absent:
            return []
        if not isinstance(self.value, list | tuple):
            self.refuse(f"is {_kind(self.value)}, not a list", 'a list of texts: ["…", "…"]')
        return [Value(item, self.where, f"{self.key}[{number}]") for number, item in enumerate(self.value)]

    def text(self, *, empty: bool = False) -> str:
        """A text that a program can be given."""
        if not isinstance(self.value, str):
            self.refuse(f"is {_kind(self.value)}, not a text", 'a text in quotes: "…"')
        if "\0" in self.value or not _encodable(self.value):
            self.refuse("has a character that no program can be given", "text without NUL")
        if not empty and not self.value.strip():
            self.refuse("is empty", "write what is meant, or leave the key out")
        return self.value

    def optional_word(self) -> str | None:
        """A text, or None."""
        return None if self.absent else self.text().strip()

    def optional_flag(self) -> bool | None:
        """True or false, or None."""
        if self.absent:
            return None
        if not isinstance(self.value, bool):
            self.refuse(f"is {_kind(self.value)}", "true or false")
        return self.value

    def seconds(self, default: float) -> float:
        """A length of time."""
        if self.absent:
            return default
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.refuse(f"is {_kind(self.value)}, not a number", "seconds, such as 120 or 0.5")
        if not 0 < self.value <= _LONGEST:
            self.refuse(f"cannot be {_brief(self.value)}", "seconds, more than 0")
        return float(self.value)

    def optional_amount(self) -> int | None:
        """Bytes, or None."""
        if self.absent:
            return None
        allowed = f'bytes, or text such as "4 GiB" ({", ".join(_UNITS)}); at least 16 MiB'
        amount: int
        if isinstance(self.value, str) and (found := _AMOUNT.match(self.value.strip())):
            amount = int(float(found[1]) * _UNITS[found[2]])
        elif isinstance(self.value, int) and not isinstance(self.value, bool):
            amount = self.value
        else:
            self.refuse(f"is {_brief(self.value)}", allowed)
        if not _LEAST_MEMORY <= amount <= _MOST_MEMORY:
            self.refuse(f"cannot be {_brief(self.value)}", allowed)
        return amount

    def distribution(self, text: str | None = None) -> str:
        """The normalised name of a distribution: this text, or else the value."""
        try:
            return canonicalize_name(self.text() if text is None else text, validate=True)
        except InvalidName:
            self.refuse("is not a distribution's name", "letters, digits and . _ - between them")

    def requirement(self) -> str:
        """A requirement by name (PyPA dependency specifiers)."""
        try:
            return str(Requirement(self.text()))
        except InvalidRequirement:
            self.refuse(f"is no requirement: {_brief(self.value)}", "NAME, NAME==VERSION, NAME @ URL")

    def variable(self, name: str) -> str:
        """The value of an environment variable of that name."""
        if not name or "=" in name or "\0" in name or not _encodable(name):
            self.refuse("is no name for a variable", "letters, digits and _")
        return self.text(empty=True)


def _kind(value: object) -> str:
    """What sort of value something is, in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")


def _brief(value: object) -> str:
    """The value in at most a few words."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of that size"
    text = ascii(value) if isinstance(value, str | int | float) else _kind(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
