"""Resolve only what was asked for, where everything else can stay as it is. Pure.

The resolver's time grows with what it is asked. When the base is consistent, what the user names (and
what that needs) can be resolved alone: under the requirements of all that stays, as constraints. The
answer is taken only if all of it holds together afterwards with the base's other distributions as they
are; then resolving everything anew, the base's versions preferred, would find the same. Otherwise the
whole is resolved. docs/decisions/0022-narrow-resolution.md
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from siteswap.checks import dependencies
from siteswap.lockfile import LockFile
from siteswap.manifest import Distribution, Interpreter
from siteswap.requirements import Requirement

_ROOTS = ""
"""The name of the pseudo-distribution that needs what the user asked for; no distribution has it."""


def constraints(
    base: Sequence[Distribution],
    wanted: Sequence[Requirement],
    asked: Collection[str],
    interpreter: Interpreter,
) -> list[str] | None:
    """Lines that what is `asked` for (names) must fit, by all that stays; None where the base is no help.

    It is none when its own requirements do not hold, and when another tool had its hand in it.
    """
    if any(item.foreign or item.origin is None for item in base):
        return None
    staying = [item for item in wanted if item.name not in asked]
    if dependencies.check([*base, _roots(staying)], interpreter):
        return None
    holders = [item for item in base if item.name not in asked]
    return sorted(set(dependencies.versions([*holders, _roots(staying)], interpreter)))


def lock_of(
    base: LockFile, found: LockFile, held: Iterable[Distribution], asked: Collection[str]
) -> LockFile:
    """The base's lock with what is asked for, and what is new, as it was found."""
    staying = {item.name for item in held if item.name not in asked}
    return base.merged(found.only(found.names - staying))


def unneeded(
    before: Sequence[Distribution],
    after: Sequence[Distribution],
    was_wanted: Sequence[Requirement],
    wanted: Sequence[Requirement],
    interpreter: Interpreter,
) -> set[str] | None:
    """Names that nothing needs any more after the change; None when something would not hold together."""
    if dependencies.check([*after, _roots(wanted)], interpreter):
        return None
    was = dependencies.needed([item.line for item in was_wanted], before, interpreter)
    now = dependencies.needed([item.line for item in wanted], after, interpreter)
    return {item.name for item in after if item.name in was and item.name not in now}


def _roots(wanted: Sequence[Requirement]) -> Distribution:
    lines = tuple(item.line for item in wanted)
    return Distribution(_ROOTS, "0", "", "", requested=True, requires=lines)
