"""A generation and the base that it is held against: what changed, what that reaches, and since when.

Reads RECORDs and manifests; runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from siteswap.checks import dependencies, entry_points, modules
from siteswap.checks.imports import Imported
from siteswap.generation import Generation
from siteswap.manifest import Change, Distribution, changes
from siteswap.verdict import Check, Finding, Standing

_SHOWN = 4
"""How many names a line of an explanation holds."""


@dataclass(frozen=True)
class Comparison:
    """`base` is None where a generation is tried by itself."""

    generation: Generation
    base: Generation | None
    base_distributions: tuple[Distribution, ...]
    """The base's, as other tools left them."""
    only: frozenset[str] | None = None
    """Names of all that is new, where it is known without a base (a repair)."""

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """Everything in the generation."""
        return self.generation.manifest.distributions

    @cached_property
    def changes(self) -> list[Change]:
        """What the generation changes."""
        return changes(self.base.manifest.distributions if self.base is not None else (), self.distributions)

    @cached_property
    def subjects(self) -> list[Distribution]:
        """What is new or changed; everything where there is no base."""
        changed = {change.name for change in self.changes} if self.only is None else self.only
        return [item for item in self.distributions if item.name in changed]

    @cached_property
    def before(self) -> list[Distribution]:
        """What the base has of the subjects' names."""
        names = {item.name for item in self.subjects}
        return [item for item in self.base_distributions if item.name in names]

    @cached_property
    def affected(self) -> list[Distribution]:
        """The subjects, what directly needs something that changed or went, what was seen to import it."""
        if self.base is None:
            return self.subjects
        changed = {change.name for change in self.changes}
        tree = self._needed([item.name for item in self.distributions])
        affected = {holder for name in changed for holder in tree.get(name, ())} | changed
        went = [item for item in self.base_distributions if item.name in changed]
        touched = _modules(self.generation, self.subjects) | _modules(self.base, went)
        affected |= {name for name, loaded in self.base.imports().items() if touched & loaded}
        return [item for item in self.distributions if item.name in affected]

    def was_sound(self, finding: Finding, known: Sequence[Finding]) -> bool:
        """Whether the base has the part that a finding is about (an entry point, else a file) in order.

        `known` are the base's own findings of that kind.
        """
        item = self._was(finding.subject)
        if item is None or self.base is None or _place(finding) in map(_place, known):
            return False
        if finding.check is Check.ENTRY_POINTS:
            return finding.part in entry_points.parts(self.base, item)
        return any(row.path == _place(finding)[1] for row in self.base.record(item))

    def doubted(self, finding: Finding, done: Imported) -> Finding:
        """The finding, marked as suspected where it wants a module that nothing installed brings.

        An optional part: of a program, of what came along, or a module of a namespace package beside others
        that work.
        """
        task = next(task for task in done.tasks if task.part == finding.part)
        beside = task.single and any(other.single and other.part in done.sound for other in done.tasks)
        optional = not done.distribution.requested or task.is_program or beside
        if finding.missing is None or not optional or f"{task.module}.".startswith(f"{finding.missing}."):
            return finding  # what leads nowhere itself is no optional part
        brought = any(
            modules.brings(_paths(self.generation, item), self.generation.interpreter, finding.missing)
            for item in self.distributions
        )
        return replace(finding, suspected=not brought)

    def explained(self, finding: Finding, was: Imported | None = None) -> Finding:
        """With what pulled the subject in, and since when it is so. `was` is how it imports in the base."""
        if finding.standing is Standing.UNCHANGED:
            return finding
        return replace(finding, why=(*self._pulled_in(finding.subject), *self._since(finding, was)))

    def _pulled_in(self, name: str) -> list[str]:
        item = self.generation.manifest.find(name)
        if item is None or item.requested:
            return ["asked for by name"] if item is not None else []
        tree = self._needed([found.name for found in self.distributions])
        holders = sorted(tree.get(name, set()) - {name})
        titles = [found.title for found in self.distributions if found.name in holders]
        return [f"needed by {_some(titles)}"] if titles else []

    def _since(self, finding: Finding, was: Imported | None) -> list[str]:
        before = self._was(finding.subject)
        if self.base is None:
            return []
        if before is None:
            return [f"new: generation {self.base.number} does not have it"]
        if was is not None and finding.part not in was.sound:
            return [f"generation {self.base.number} ({before.title}) does not have it, or fails otherwise"]
        reach = self._needed([finding.subject])
        near = [change for change in self.changes if change.name in reach] or self.changes
        what = _some([str(change).removeprefix(f"{change.sign} ") for change in near])
        return [f"works in generation {self.base.number} ({before.title}); since then: {what}"]

    def _was(self, name: str) -> Distribution | None:
        return next((item for item in self.base_distributions if item.name == name), None)

    def _needed(self, roots: Sequence[str]) -> dict[str, set[str]]:
        return dependencies.needed(roots, self.distributions, self.generation.interpreter)


def _modules(generation: Generation, distributions: Sequence[Distribution]) -> set[str]:
    return {
        module
        for item in distributions
        for module in modules.importable(_paths(generation, item), generation.interpreter)
    }


def _paths(generation: Generation, distribution: Distribution) -> list[str]:
    return [row.path for row in generation.record(distribution)]


def _place(finding: Finding) -> tuple[str, str]:
    """The distribution and what of it is meant: of a file, whatever is wrong with it."""
    whole = finding.check is Check.ENTRY_POINTS
    return finding.subject, finding.part if whole else finding.part.partition(":")[0]


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return f"{', '.join(texts[:_SHOWN])}{more}"
