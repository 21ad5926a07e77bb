"""Do the entry points of a distribution lead to modules that are there?

By PyPA's entry points specification. Whether the attribute is in the module is
for the check that imports to say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from siteswap.checks import startup
from siteswap.checks.reading import content, rows, shown, site_directories
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.verdict import Check, Finding

PROGRAMS = ("console_scripts", "gui_scripts")
"""The groups whose entry points become programs."""


@dataclass(frozen=True)
class EntryPoint:
    """One entry point that is well formed."""

    group: str
    name: str
    module: str
    attribute: str | None
    """Dotted path of the object in the module; None: the module itself is meant."""
    extras: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """What findings call it."""
        return f"{self.group}:{self.name}"


@dataclass(frozen=True)
class Problem:
    """Something in entry_points.txt that is not as the specification wants it."""

    part: str
    message: str
    everyone: bool
    """It breaks whoever reads entry points, not only whoever wants this one."""


def check(generation: Generation, subjects: Sequence[Distribution]) -> list[Finding]:
    """Entry points of the subjects that are malformed, or whose module is not there."""
    modules = _Modules(generation)
    findings = []
    for item in subjects:
        points, problems = _read(generation, item)
        for problem in problems:
            findings.append(_finding(item, problem.part, problem.message, not problem.everyone))
        if item.editable is not None or not points:
            continue
        missing = [point for point in points if not modules.has(point.module)]
        if missing and not _brings_path(generation, item):
            for point in missing:
                findings.append(
                    _finding(item, point.part, _not_there(point), suspected=point.group not in PROGRAMS)
                )
    return findings


def programs(generation: Generation, distribution: Distribution) -> list[EntryPoint]:
    """The distribution's console and GUI programs, as far as they are well formed."""
    points, _ = _read(generation, distribution)
    return [point for point in points if point.group in PROGRAMS]


def parts(generation: Generation, distribution: Distribution) -> set[str]:
    """What findings would call the distribution's entry points, and the file that they stand in."""
    points, _ = _read(generation, distribution)
    there = content(generation, f"{distribution.dist_info}/entry_points.txt") is not None
    return {point.part for point in points} | ({"entry_points.txt"} if there else set())


def _finding(item: Distribution, part: str, message: str, suspected: bool) -> Finding:
    return Finding(Check.ENTRY_POINTS, item.name, message, part, item.version, suspected=suspected)


def _not_there(point: EntryPoint) -> str:
    module = shown(point.module)
    if point.group in PROGRAMS:
        return f"the program {shown(point.name)} needs module {module}, which nothing installed has"
    return f"its {shown(point.group)} {shown(point.name)} needs module {module}, which nothing installed has"


def _read(generation: Generation, item: Distribution) -> tuple[list[EntryPoint], list[Problem]]:
    found = content(generation, f"{item.dist_info}/entry_points.txt")
    if found is None:
        return [], []
    try:
        return parse(found.decode())
    except UnicodeDecodeError:
        return [], [Problem("entry_points.txt", "entry_points.txt is not UTF-8", True)]


# -- the format ----------------------------------------------------------------------------------


def parse(text: str) -> tuple[list[EntryPoint], list[Problem]]:
    """Entry points of an entry_points.txt, and what is wrong with it. Pure; never raises.

    Line by line as importlib.metadata reads it (configparser's continuation lines
    mean nothing to it). Names of groups are not judged: no reader refuses one.
    """
    points: list[EntryPoint] = []
    problems: list[Problem] = []
    group: str | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            group = line[1:-1]
            continue
        name, sign, value = (part.strip() for part in line.partition("="))
        if not sign or not name or name[0] == "[" or group is None:
            reason = "stands before any group" if group is None else "is neither a group nor name = value"
            message = f"line {number} of entry_points.txt {reason}: {shown(line, 80)}"
            # importlib.metadata fails on a line without "=", and with it every reader of entry points.
            problems.append(Problem("entry_points.txt", message, group is not None and not sign))
            continue
        point = _value(group, name, value)
        if isinstance(point, Problem):
            problems.append(point)
        else:
            points.append(point)
    return points, problems


_VALUE = re.compile(
    r"(?P<module>[^\s:\[\]]+)\s*(:\s*(?P<attribute>[^\s:\[\]]+)\s*)?(\[(?P<extras>[^\[\]]*)\])?\Z"
)
_EXTRA = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


def _value(group: str, name: str, value: str) -> EntryPoint | Problem:
    """The object reference and extras that a value spells, or what is wrong with it. Pure."""
    program = group in PROGRAMS
    match = _VALUE.match(value)
    module, attribute = (match["module"], match["attribute"]) if match else ("", None)
    extras = [extra.strip() for extra in (match["extras"] or "").split(",")] if match else []
    if extras == [""]:
        extras = []
    said = f"{shown(group)} {shown(name)} = {shown(value, 80)}"
    if not (_dotted(module) and (attribute is None or _dotted(attribute)) and all(map(_EXTRA.match, extras))):
        return Problem(f"{group}:{name}", f"{said}: the value is not module:attribute", program)
    if program and attribute is None:
        return Problem(f"{group}:{name}", f"{said}: the value names no function to call", program)
    return EntryPoint(group, name, module, attribute, tuple(extras))


def _dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


# -- what can be imported ------------------------------------------------------------------------


def _brings_path(generation: Generation, item: Distribution) -> bool:
    """Whether a `.pth` file of the distribution adds a directory: an editable install of another tool."""
    directories = site_directories(generation.interpreter)
    for row in rows(generation, item):
        directory, _, name = row.path.rpartition("/")
        if directory in directories and name.endswith(".pth"):
            text = content(generation, row.path) or b""
            if startup.added_paths(text, generation.interpreter.version_pair):
                return True
    return False


class _Modules:
    """The modules that the interpreter would find, by looking where it looks.

    By directory and not by RECORD: cheaper, and what carried files and byte-code
    without sources bring counts too.
    """

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._listed: dict[str, dict[str, str]] = {}

    def has(self, module: str) -> bool:
        """Whether the module is there, or nobody can say without running something."""
        path = module.replace(".", "/")
        first = path.partition("/")[0]
        if first in sys.stdlib_module_names:
            return True
        directories = site_directories(self._generation.interpreter)
        if any(self._stands(f"{directory}/{path}") for directory in directories):
            return True
        return self._more_elsewhere and not any(
            self._stands(f"{directory}/{first}") for directory in directories
        )

    def _stands(self, path: str) -> bool:
        """Whether a module or package stands at a path: source, byte-code, extension or namespace."""
        directory, _, name = path.rpartition("/")
        found = self._entries(directory)
        return (
            found.get(name) == "directory"
            or f"{name}.py" in found
            or f"{name}.pyc" in found
            or any(entry.startswith(f"{name}.") and entry.endswith(".so") for entry in found)
        )

    def _entries(self, directory: str) -> dict[str, str]:
        if directory not in self._listed:
            try:
                listed = self._generation.fs.entries(self._generation.layout.path / directory)
            except (OSError, ValueError):  # a file where a package should be; a name too long
                listed = []
            self._listed[directory] = dict(listed)
        return self._listed[directory]

    @cached_property
    def _more_elsewhere(self) -> bool:
        """Whether modules may come from directories that are not the generation's."""
        generation = self._generation
        manifest = generation.manifest
        if manifest.system_site_packages or any(item.editable is not None for item in manifest.distributions):
            return True
        return any(
            startup.added_paths(
                content(generation, f"{directory}/{name}") or b"", generation.interpreter.version_pair
            )
            for directory in site_directories(generation.interpreter)
            for name in self._entries(directory)
            if name.endswith(".pth")
        )
