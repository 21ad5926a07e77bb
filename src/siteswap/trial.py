"""Judge a candidate against its base: what is newly wrong blocks, what was wrong before is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from siteswap import checks, process
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import Generation
from siteswap.layout import Layout
from siteswap.manifest import Change, Distribution, changes
from siteswap.progress import Progress

_LOGS_KEPT = 20


@dataclass(frozen=True)
class Gates:
    """Which checks a candidate must pass."""

    enabled: bool = True
    """False is the user's explicit --no-check."""
    commands: tuple[str, ...] = ()
    """Shell commands that must succeed in the candidate."""
    missing_dependencies: bool = False
    """Unsatisfied requirements are told but do not block (--no-deps)."""


DEFAULT_GATES = Gates()


@dataclass
class Trial:
    """The trial of one candidate. `notes` collects what does not block and should be known."""

    fs: FileSystem
    layout: Layout
    base: Generation
    base_distributions: tuple[Distribution, ...]
    """The base's, as other tools left them."""
    candidate: Generation
    scratch: Path
    """An existing directory of ours."""
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def compile(self) -> None:
        """Compile every module of what changed to byte-code. What does not compile is left as it is."""
        candidate = self.candidate
        changed = {change.name for change in self._changes()}
        names = [
            str(candidate.layout.path / row.path)
            for item in candidate.manifest.distributions
            if item.name in changed
            for row in candidate.record(item)
            if row.path.endswith(".py")
        ]
        self.progress.phase("compile", len(names))
        process.run(
            [candidate.layout.bin / "python", "-I", "-m", "compileall", "-q", "-j", "0", "-i", "-"],
            env=checks.check_environment(candidate, self.scratch),
            stdin="".join(f"{name}\n" for name in names),
            umask=candidate.fs.access.umask,
        )

    def run(self, gates: Gates) -> None:
        """Run the checks. Raises SiteswapError (check) with what is newly wrong; all output is logged."""
        self.progress.phase("check")
        findings = self._new(
            checks.dependencies(self.candidate.manifest.distributions, self.candidate.interpreter),
            checks.dependencies(self.base_distributions, self.base.interpreter),
        )
        if gates.missing_dependencies:
            self.notes += [str(item) for item in findings]
            findings = []
        findings += self._imports()
        if not findings:
            for text in gates.commands:
                findings += checks.command(self.candidate, text, self.layout.root, self.scratch)
        if findings:
            raise self._refusal(findings)

    def restore(self) -> None:
        """Undo what checks did to the candidate, byte-code aside; then note how it looks from now on.

        Raises SiteswapError (check) for what cannot be undone.
        """
        candidate = self.candidate
        found = candidate.drift()
        for path in set(found.strays) - set(candidate.manifest.strays):
            self.fs.remove_tree(candidate.layout.path / path)
            self.notes.append(f"a check wrote {path}: removed")
        if found.foreign or found.removed or found.damaged:
            names = ", ".join([*(item.title for item in found.foreign), *found.removed, *found.damaged])
            raise SiteswapError(
                Kind.CHECK,
                f"a check changed what it should only try ({names}); nothing was changed",
                hint="make the check leave the environment alone",
            )
        self.fs.own_byte_code(candidate.layout.path, candidate.directories)
        # Its time is what drift is measured against: byte-code that the checks left is no drift.
        self.fs.write(candidate.layout.directories, "\n".join(candidate.directories).encode())

    def _changes(self) -> list[Change]:
        return changes(self.base.manifest.distributions, self.candidate.manifest.distributions)

    def _new(self, found: Iterable[checks.Finding], before: Iterable[checks.Finding]) -> list[checks.Finding]:
        """Those findings that the base did not have in the same words; the others are noted."""
        known = {str(item) for item in before}
        fresh = []
        for item in found:
            if str(item) in known:
                self.notes.append(f"not new: {item}")
            else:
                fresh.append(item)
        return fresh

    def _imports(self) -> list[checks.Finding]:
        """Modules that cannot be imported any more, of what changed and of what needs that directly.

        What came along and wants a module that its metadata does not ask for (an
        optional part of it, that nobody here uses yet) is noted and does not block.
        """
        changed = {change.name for change in self._changes() if change.after is not None}
        distributions = self.candidate.manifest.distributions
        tree = checks.needed([item.name for item in distributions], distributions, self.candidate.interpreter)
        affected = changed | {holder for name in changed for holder in tree.get(name, ())}
        subjects = [item for item in distributions if item.name in affected]
        self.progress.phase("check", len(subjects))
        findings = checks.imports(self.candidate, subjects, self.scratch, self.progress.checked)
        was = {item.name for item in self.base.manifest.distributions}
        optional = {item.title for item in subjects if not item.requested and item.name not in was}
        blocking = []
        for item in findings:
            if item.missing and item.subject in optional:
                self.notes.append(f"{item} (its metadata does not ask for it)")
            else:
                blocking.append(item)
        if not blocking:
            return []
        titles = {item.subject for item in blocking}
        again = [item for item in self.base_distributions if item.title in titles]
        return self._new(blocking, checks.imports(self.base, again, self.scratch, lambda _: None))

    def _refusal(self, findings: list[checks.Finding]) -> SiteswapError:
        log = self.layout.log / f"{self.candidate.number}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.txt"
        checks.write_log(self.fs, log, findings)
        names = sorted(
            (name for name, _ in self.fs.entries(self.layout.log)), key=lambda name: name.rpartition("-")[2]
        )
        for name in names[:-_LOGS_KEPT]:
            self.fs.unlink(self.layout.log / name)
        count = len(findings)
        return SiteswapError(
            Kind.CHECK,
            f"the checks found {count} thing{'s' if count > 1 else ''} wrong; "
            f"nothing was changed (generation {self.base.number} is current)",
            hint=f"the whole output is in {log}; --no-check goes on without checks",
            detail=checks.shown(findings),
        )
