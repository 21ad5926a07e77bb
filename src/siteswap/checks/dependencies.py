"""Are the requirements of what is installed satisfied? Pure.

By PyPA's dependency specifiers and core metadata: what `pip check` says, and no less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from siteswap.manifest import Distribution, Interpreter
from siteswap.verdict import Check, Finding

_NONSENSE = (ValueError, RecursionError)
"""What `packaging` says of requirements, markers and versions that are none, too deep or too long."""


def check(distributions: Iterable[Distribution], interpreter: Interpreter) -> list[Finding]:
    """Requirements of installed distributions that nothing installed satisfies, Requires-Python included.

    Extras count where a requirement asks for them.
    """
    installed = {item.name: item for item in distributions}
    findings = []
    for item in installed.values():
        if item.requires_python and not _python_fits(item.requires_python, interpreter):
            message = f"needs Python {item.requires_python}, not {interpreter.version}"
            findings.append(_finding(item, "Python", message))
    for holder, requirement in _active(installed, interpreter):
        name = canonicalize_name(requirement.name)
        found = installed.get(name)
        if found is None:
            message = f"needs {requirement}, which is not installed"
            findings.append(_finding(holder, name, message))
        elif not _satisfies(found.version, requirement):
            message = f"needs {requirement}, but {found.title} is installed"
            findings.append(_finding(holder, name, message))
    return findings


def _finding(holder: Distribution, part: str, message: str) -> Finding:
    return Finding(Check.DEPENDENCIES, holder.name, message, part, holder.version)


def needed(
    roots: Iterable[str], distributions: Iterable[Distribution], interpreter: Interpreter
) -> dict[str, set[str]]:
    """Names that the requirements `roots` reach, each with the names that need it. Pure.

    The extras that a requirement names count; the roots need nothing themselves.
    """
    installed = {item.name: item for item in distributions}
    reached: dict[str, set[str]] = {}
    pending: list[tuple[str, frozenset[str]]] = []
    done: set[tuple[str, frozenset[str]]] = set()
    for line in roots:
        requirement = _parse(line)
        if requirement is not None:
            root = canonicalize_name(requirement.name)
            reached.setdefault(root, set())
            pending.append((root, frozenset(requirement.extras)))
    while pending:
        name, extras = pending.pop()
        if (name, extras) in done or name not in installed:
            continue
        done.add((name, extras))
        for requirement in _requirements(installed[name], extras, interpreter):
            inner = canonicalize_name(requirement.name)
            reached.setdefault(inner, set()).add(name)
            pending.append((inner, frozenset(requirement.extras)))
    return reached


def versions(distributions: Iterable[Distribution], interpreter: Interpreter) -> Iterable[str]:
    """What their requirements that apply here say of versions, as lines of a constraints file. Pure."""
    installed = {item.name: item for item in distributions}
    for _, requirement in _active(installed, interpreter):
        if requirement.specifier:
            yield f"{canonicalize_name(requirement.name)}{requirement.specifier}"


def declared(item: Distribution) -> set[str]:
    """Names of everything that a distribution may need, whatever the extra or the marker. Pure."""
    found = (_parse(text) for text in item.requires)
    return {canonicalize_name(requirement.name) for requirement in found if requirement is not None}


def _active(
    installed: Mapping[str, Distribution], interpreter: Interpreter
) -> Iterable[tuple[Distribution, Requirement]]:
    """Each requirement that applies here, with its holder; extras as far as somebody asks for them."""
    wanted: dict[str, set[str]] = {name: set() for name in installed}
    changed = True
    while changed:  # an extra's own requirement may ask for another's extra
        changed = False
        for item in installed.values():
            for requirement in _requirements(item, wanted[item.name], interpreter):
                name = canonicalize_name(requirement.name)
                if name in wanted and not requirement.extras <= wanted[name]:
                    wanted[name] |= requirement.extras
                    changed = True
    for item in installed.values():
        for requirement in _requirements(item, wanted[item.name], interpreter):
            yield item, requirement


def _requirements(
    item: Distribution, extras: Iterable[str], interpreter: Interpreter
) -> Iterable[Requirement]:
    here = tuple(interpreter.markers.items())
    asked = ("", *extras)
    for text in item.requires:
        requirement = _parse(text)
        if requirement is not None and any(_holds(text, (*here, ("extra", extra))) for extra in asked):
            yield requirement


# Large sets are gone through several times a command, and most of what they say they say often.
@cache
def _holds(text: str, context: tuple[tuple[str, str], ...]) -> bool:
    """Whether a requirement's marker, if it has one, says that it counts here."""
    requirement = _parse(text)
    assert requirement is not None
    try:
        return requirement.marker is None or requirement.marker.evaluate(dict(context))
    except _NONSENSE:
        return False


@cache
def _parse(text: str) -> Requirement | None:
    """The requirement, not to be changed: others get the same one. None for nonsense."""
    try:
        return Requirement(text.removeprefix("-e "))
    except _NONSENSE:
        return None  # what other installers overlook as well: nothing can be concluded from it


def _satisfies(version: str, requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except _NONSENSE:
        return True


def _python_fits(specifier: str, interpreter: Interpreter) -> bool:
    try:
        return SpecifierSet(specifier).contains(interpreter.version, prereleases=True)
    except _NONSENSE:
        return True
