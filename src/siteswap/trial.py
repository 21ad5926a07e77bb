"""Try a generation: run the checks, hold what they find against the base, keep the verdict.

A candidate is held against its base: what is newly wrong blocks, what was wrong
in the same way before is told. A generation that is tried by itself
(`siteswap check`) is held against nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_name

from siteswap import log
from siteswap.checks import (
    byte_code,
    commands,
    dependencies,
    entry_points,
    files,
    imports,
    libraries,
    startup,
    suites,
    tags,
)
from siteswap.checks.running import Stage
from siteswap.comparison import Comparison
from siteswap.confinement import Confinement
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.gates import Gate, Gates
from siteswap.generation import Generation
from siteswap.layout import Layout
from siteswap.manifest import Distribution
from siteswap.progress import Progress
from siteswap.verdict import Check, CheckError, Finding, Standing, Tried, Verdict, judged

_NEVER_ALLOWED = frozenset({Check.FILES, Check.TESTS, Check.COMMAND})
"""What --allow-broken does not let pass: damage, and what the user asked for by a gate of its own."""

Overlay = Callable[[Sequence[str]], Path]
"""Makes a directory with what requirements ask for beyond the generation's own distributions."""


@dataclass
class Trial:
    """The trial of one generation. `notes` collects what does not block and should be known."""

    fs: FileSystem
    layout: Layout
    compared: Comparison
    gates: Gates
    confinement: Confinement
    scratch: Path
    """An existing directory of ours that checks may write to."""
    overlay: Overlay
    command: str
    """What the user typed."""
    progress: Progress
    compile_all: bool = False
    """Whether everything that is new is compiled to byte-code."""
    notes: list[str] = field(default_factory=list)
    imported: list[imports.Imported] = field(default_factory=list)
    """How the imports went, once they were tried."""

    def run(self) -> Verdict:
        """Run everything that the gates ask for; the verdict is kept in the environment's log.

        Raises CheckError with what blocks, after everything that can be tried was.
        """
        self.progress.phase("check")
        rows: list[Tried] = []
        for step in (
            self._dependencies, self._files, self._tags, self._entry_points, self._startup, self._libraries,
            *((self.compile,) if self.compile_all else ()), self._imports,
        ):  # fmt: skip
            rows.append(self._timed(step))
        rows = [self._overruled(row) for row in rows]
        if not any(row.outcome == "failed" for row in rows):  # else they would only fail in longer words
            for gate in self.gates.own:
                rows.append(self._timed(lambda gate=gate: self._own(gate)))  # type: ignore[misc]
        if not self.confinement.landlocked:
            self._note("this kernel does not confine what checks write (no Landlock)")
        base = self.base.number if self.base is not None else None
        time_of_day = datetime.now(UTC).isoformat()
        verdict = Verdict(
            self.generation.number, base, self.command, time_of_day, tuple(rows), tuple(self.notes)
        )
        try:
            verdict = log.write(self.fs, self.layout, verdict)
        except OSError as error:
            if self.base is not None:
                raise
            self._note(f"the log cannot be kept: {error.strerror}")  # a reader's own check
        if not verdict.passed:
            raise self._refusal(verdict)
        return verdict

    @property
    def generation(self) -> Generation:
        """What is tried."""
        return self.compared.generation

    @property
    def base(self) -> Generation | None:
        """What it is held against; None: against nothing."""
        return self.compared.base

    # -- the checks, one method a row ------------------------------------------------------------

    def _dependencies(self) -> Tried:
        distributions = self.generation.manifest.distributions
        found = dependencies.check(distributions, self.generation.interpreter)
        before = (
            dependencies.check(self.compared.base_distributions, self.base.interpreter) if self.base else []
        )
        found = [self._allowed(item) for item in judged(found, before)]
        if self.gates.missing_dependencies:
            found = [_told(item) for item in found]
        return Tried(Check.DEPENDENCIES, _count(len(distributions), "distribution"), 0, tuple(found))

    def _files(self) -> Tried:
        # A file that is not what RECORD says is never excused, but for what another tool made of its own.
        foreign = [item for item in self.compared.before if item.foreign]
        return self._static(Check.FILES, files.check, foreign)

    def _tags(self) -> Tried:
        return self._static(Check.TAGS, tags.check, self.compared.before)

    def _entry_points(self) -> Tried:
        return self._static(Check.ENTRY_POINTS, entry_points.check, self.compared.before)

    def _libraries(self) -> Tried:
        return self._static(Check.LIBRARIES, libraries.check, self.compared.before)

    def compile(self) -> Tried:
        """Compile every module of what changed to byte-code. What does not compile is left as it is."""
        self.progress.phase("compile")
        tried = self._static(
            Check.BYTE_CODE,
            lambda generation, items: byte_code.check(
                generation, items, self._stage(published=generation is not self.generation)
            ),
            self.compared.before,
        )
        self.progress.phase("check")
        return tried

    def _startup(self) -> Tried:
        """Start-up code is named where it is new; it blocks only where it is to be refused."""
        # By what runs, every line of it: words that are cut short or lose their numbers would hide a change.
        known = startup.code(self.base, self.compared.before) if self.base else []
        fresh = startup.check(self.generation, self.compared.subjects, known)
        if self.gates.startup_code:
            fresh = [_told(item) for item in fresh]
        return Tried(Check.STARTUP_CODE, self._subjects_text, 0, tuple(fresh))

    def _imports(self) -> Tried:
        subjects = self.compared.affected
        self.progress.phase("check", len(subjects))
        self.imported = imports.check(
            self.generation, subjects, self._stage(), self.gates.import_timeout, self.progress.checked
        )
        found = [self.compared.doubted(item, done) for done in self.imported for item in done.findings]
        left = sum(done.left for done in self.imported)
        if left:
            self._note(f"imports left {_count(left, 'process', 'processes')} behind: killed")
        findings = self._held_against_base(found)
        tasks = [task for done in self.imported for task in done.tasks]
        programs = sum(task.is_program for task in tasks)
        what = f"{_count(len(tasks) - programs, 'module')} and {_count(programs, 'program')}"
        return Tried(Check.IMPORTS, f"{what} of {_count(len(subjects), 'distribution')}", 0, tuple(findings))

    def _own(self, gate: Gate) -> Tried:
        if gate.suite is None:
            findings, ran = commands.command(self.generation, gate, self._stage())
            kind = Check.COMMAND
        else:
            distribution, suite = self._suite(gate.suite)
            wanted = [*suite.requirements, *gate.requirements]
            overlay = self.overlay(wanted) if wanted else None
            findings, ran = commands.suite(self.generation, distribution, gate, suite, overlay, self._stage())
            kind = Check.TESTS
        if ran.left:
            self._note(
                f"{commands.title(gate)} left {_count(ran.left, 'process', 'processes')} behind: killed"
            )
        return Tried(kind, commands.title(gate), 0, tuple(findings), ran.stdout)

    def _suite(self, name: str) -> tuple[Distribution, suites.Suite]:
        distribution = self.generation.manifest.find(canonicalize_name(name))
        if distribution is None:
            raise SiteswapError(
                Kind.USAGE, f"{name} is not installed: there is nothing to test", hint="siteswap list"
            )
        found = suites.find(self.generation, distribution)
        if found is None:
            raise SiteswapError(
                Kind.USAGE,
                f"{distribution.title} installs no tests",
                hint="say how to try it with --check CMD",
            )
        return distribution, found

    # -- what it means ---------------------------------------------------------------------------

    def _static(
        self,
        kind: Check,
        check: Callable[[Generation, Sequence[Distribution]], list[Finding]],
        before: Sequence[Distribution],
    ) -> Tried:
        found = check(self.generation, self.compared.subjects)
        known = check(self.base, before) if found and before and self.base is not None else []
        sound = {
            f"{item.subject}:{item.part}": self.compared.was_sound(item, known)
            for item in found
            if item.suspected
        }
        findings = [self._allowed(item) for item in judged(found, known, sound=sound)]
        return Tried(kind, self._subjects_text, 0, tuple(map(self.compared.explained, findings)))

    def _overruled(self, row: Tried) -> Tried:
        """Without programs whose module was not found among the files, and that could be loaded all the same.

        A package may widen its path as it runs.
        """
        if row.check is not Check.ENTRY_POINTS:
            return row
        works = {(done.distribution.name, part) for done in self.imported for part in done.sound}
        kept = [
            item
            for item in row.findings
            if (item.subject, f"program {item.part.partition(':')[2]}") not in works
        ]
        return replace(row, findings=tuple(kept))

    def _held_against_base(self, found: list[Finding]) -> list[Finding]:
        """Import again, in the base, what fails or newly warns, to tell what is new about it."""
        warned = {done.distribution.name: done for done in self.imported if done.warnings}
        names = {item.subject for item in found} | (
            warned.keys() & {item.name for item in self.compared.before}
        )
        again = [item for item in self.compared.base_distributions if item.name in names]
        if self.base is None or not again:
            was = []
        else:
            was = imports.check(self.base, again, self._stage(published=True), self.gates.import_timeout)
        before = [item for done in was for item in done.findings]
        sound = {f"{done.distribution.name}:{part}": True for done in was for part in done.sound}
        for done in was:
            self._note_warnings(done, warned.get(done.distribution.name))
        by_name = {done.distribution.name: done for done in was}
        return [
            self.compared.explained(self._allowed(item), by_name.get(item.subject))
            for item in imports.once(judged(found, before, sound=sound))
        ]

    def _note_warnings(self, was: imports.Imported, now: imports.Imported | None) -> None:
        if now is not None:
            for text in dict.fromkeys(now.warnings):
                if text not in was.warnings:
                    self._note(f"{now.distribution.title} now warns when it is imported: {text}")

    def _allowed(self, finding: Finding) -> Finding:
        named = finding.subject in self.gates.allow_broken and finding.standing is Standing.BLOCKS
        return _told(finding) if named and finding.check not in _NEVER_ALLOWED else finding

    @property
    def _subjects_text(self) -> str:
        return _count(len(self.compared.subjects), "distribution")

    def _stage(self, *, published: bool = False) -> Stage:
        """Where programs run; what is published gets no byte-code from us [I2]."""
        candidate = self.base is not None and not published
        return Stage(self.confinement, self.scratch, self.layout.root, byte_code=candidate)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.note(text)

    def _timed(self, step: Callable[[], Tried]) -> Tried:
        begin = time.monotonic()
        row = step()
        row = replace(row, seconds=time.monotonic() - begin)
        self.progress.tried(row.check.value, row.what, row.outcome, row.seconds)
        return row

    def _refusal(self, verdict: Verdict) -> CheckError:
        count = len(verdict.blocking)
        found = f"the checks found {count} thing{'s' if count > 1 else ''} wrong"
        if self.base is None:
            return CheckError(verdict, f"{found} in generation {verdict.generation}", hint=_log_hint(verdict))
        return CheckError(
            verdict,
            f"{found}; nothing was changed (generation {self.base.number} is current)",
            hint=f"{_log_hint(verdict)}; {_way_out(verdict)}",
        )


def _way_out(verdict: Verdict) -> str:
    names = {item.subject for item in verdict.blocking if item.check not in _NEVER_ALLOWED}
    if len(names) == 1 and len(names) == len({item.subject for item in verdict.blocking}):
        return f"--allow-broken {names.pop()} lets it pass"
    return "--no-check goes on without checks"


def _log_hint(verdict: Verdict) -> str:
    return f"the whole output is in {verdict.log}" if verdict.log else "siteswap check --json has the rest"


def _told(finding: Finding) -> Finding:
    return replace(finding, standing=Standing.TOLD) if finding.standing is Standing.BLOCKS else finding


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
