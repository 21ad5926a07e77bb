"""A transaction: base generation → candidate → checks → commit or discard.

Work happens under the writer lock (one builder at a time); the flip lock is
held only while `current` is changed. The write order that crash safety rests
on, by number, is the one commit point's context:

 T1. the candidate's files, at generations/N, which nothing refers to
 T2. links for top-level names that are new (dangling until the flip)
 T3. the manifest
 T4. the barrier: everything above is durable
 T5. under the flip lock: is the base still current?
 T6. the history's record, durable
 T7. rename of `current.next` over `current`: the commit point
 T8. sync of the directory that holds `current`: the commit is durable
 T9. top-level links that nothing needs any more are removed

A crash before T7 leaves the old generation current, and garbage that the next
writer removes; after T7, the new one. docs/crash-safety.md has every gap.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from siteswap import carry, collect, process, resolve
from siteswap.assemble import Assembler
from siteswap.cache import Cache
from siteswap.comparison import Comparison
from siteswap.confinement import Confinement, Terms, account_for
from siteswap.errors import Kind, SiteswapError, bug
from siteswap.flip import (
    FlipLock,
    flip,
    link_top_level,
    new_operation,
    next_number,
    now,
    tidy_top_level,
)
from siteswap.fs import FileSystem, Lock
from siteswap.gates import DEFAULT_GATES, Gates
from siteswap.generation import Generation, read_current
from siteswap.layout import Layout, Number
from siteswap.lockfile import LockFile
from siteswap.manifest import Change, Manifest, changes
from siteswap.members import live_notes
from siteswap.progress import Progress
from siteswap.recovery import recover
from siteswap.requirements import Request, Requirement
from siteswap.target import Planner, Target, asked_in
from siteswap.traces import Traces
from siteswap.verdict import Check, CheckError, Verdict, told
from siteswap.workspace import Workspace

if TYPE_CHECKING:
    from siteswap.trial import Overlay


@dataclass(frozen=True)
class Outcome:
    """What a transaction came to."""

    number: Number
    """The generation that is current now."""
    base: Number
    """The generation that was current before."""
    changes: tuple[Change, ...]
    committed: bool
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None
    """What was tried; None without checks."""


class _State(enum.Enum):
    OPEN = "open"
    ASSEMBLED = "assembled"
    CHECKED = "checked"
    DONE = "done"


class Transaction:
    """One change of an environment, from `begin` to `commit` or `discard`.

    Use it as a context manager: leaving it without a commit discards the
    candidate, whatever the reason, and gives up the writer lock.
    """

    def __init__(
        self,
        fs: FileSystem,
        layout: Layout,
        cache: Cache,
        writer: Lock,
        flip_lock: FlipLock,
        *,
        kind: str,
        command: str,
        progress: Progress,
        standing: Callable[[], Gates] = lambda: DEFAULT_GATES,
        base: carry.Base | None = None,
    ) -> None:
        """The writer lock is held and handed over. What crashes left behind is removed here [I9].

        `standing` gives the gates of a `check` that names none. `base` is what the current generation
        is to be taken for, where that cannot be read from it as it is (a repair).
        """
        self._fs = fs
        self._layout = layout
        self._cache = cache
        self._writer = writer
        self._flip_lock = flip_lock
        self._kind = kind
        self._command = command
        self._progress = progress
        self._standing = standing
        self._state = _State.OPEN
        self._notes: list[str] = []
        self._candidate: Generation | None = None
        self._workspace: Workspace | None = None
        self._target: Target | None = None
        self._options = resolve.DEFAULTS
        self._verdict: Verdict | None = None
        self._renewed: frozenset[str] | None = None
        self.outcome: Outcome | None = None
        """What was committed, once it is: also when `commit` was interrupted right after the flip."""
        recover(fs, layout, flip_lock)
        self._base = base or carry.Base.read(fs, layout)
        self._scratch = fs.free_name(layout.staging, "work")
        self._planner = Planner(fs, cache, self._scratch, self._base, progress)
        self._notes += carry.notes(self._base.drift)
        for note in self._notes:
            progress.note(note)

    def __enter__(self) -> Transaction:
        # Here, not before: what is made from here on is cleared when we are asked to stop meanwhile.
        try:
            self._fs.make_directory(self._scratch)
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.discard()
        except OSError:
            if error is None:
                raise
            # What went wrong first is what the user must hear of; the next command clears.

    # -- what to change --------------------------------------------------------------------------

    def install(
        self,
        request: Request,
        options: resolve.Options = resolve.DEFAULTS,
        *,
        allow_overlap: bool = False,
        upgrade: bool = False,
    ) -> None:
        """Make a candidate in which `request` is satisfied too, with the base's versions where they can stay.

        With `upgrade` the named distributions go to the newest that fits, or
        all of them when the request names none. Raises SiteswapError
        (requirement, conflict).
        """
        self._expect(_State.OPEN)
        self._options = options.found_in(request)
        self._assemble(self._planner.install(request, options, allow_overlap=allow_overlap, upgrade=upgrade))

    def uninstall(self, names: Sequence[str]) -> None:
        """Make a candidate without `names` and without what nothing needs any more.

        Needs no index. Raises SiteswapError (requirement) when a name is not
        installed, or is needed by something that stays.
        """
        self._expect(_State.OPEN)
        self._assemble(self._planner.uninstall(names))

    def sync(
        self,
        source: Request | LockFile,
        options: resolve.Options = resolve.DEFAULTS,
        *,
        allow_overlap: bool = False,
    ) -> None:
        """Make a candidate that is exactly what a lock says, or what just `request` resolves to.

        Raises SiteswapError (usage, requirement, conflict).
        """
        self._expect(_State.OPEN)
        wanted: Sequence[Requirement] | None
        if isinstance(source, Request):
            lock, wanted = self._planner.lock_for(source, options)
            options = options.found_in(source)
        else:
            lock, wanted = source, asked_in(source)
        self._options = options
        self._assemble(self._planner.sync(lock, wanted, options, allow_overlap=allow_overlap))

    def run(self, command: Sequence[str], streams: tuple[int, int, int] = (0, 1, 2)) -> None:
        """Let another installer change a private copy of the base; what it did becomes the candidate.

        It talks to the user, through these descriptors of ours. Raises SiteswapError: requirement when it
        fails, system when it cannot be started; then, and on Ctrl-C, nothing of it is left running.
        """
        self._expect(_State.OPEN)
        number = next_number(self._fs, self._layout)
        self._workspace = Workspace(self._fs, self._layout, self._base, number)
        self._progress.phase("copy")
        self._workspace.make(self._progress.step)
        self._progress.stop()
        left = self._workspace.run(command, streams)
        if left:
            self._note(f"{command[0]} left {left} process{'es' if left > 1 else ''} running: killed")
        work = self._workspace.take_in(self._fs.free_name(self._layout.staging, "private"))
        if work is not None:
            for note in work.notes:
                self._note(note)
            self._assemble(self._planner.taken_in(work))

    def renew(self, target: Target, renewed: Iterable[str], strays: tuple[str, ...]) -> Generation:
        """Make a candidate of what the base holds, or should: `renewed` are the names of what comes anew.

        These are tried, held against nothing: the base has them damaged. `strays` are
        carried along. Returns the candidate.
        """
        self._expect(_State.OPEN)
        self._renewed = frozenset(renewed)
        self._base = replace(self._base, drift=replace(self._base.drift, strays=strays))
        self._assemble(target)
        assert self._candidate is not None
        return self._candidate

    # -- judging and ending ----------------------------------------------------------------------

    @property
    def base(self) -> Generation:
        """The generation that this starts from."""
        return self._base.generation

    @property
    def pending(self) -> bool:
        """Whether there is a candidate to commit."""
        return self._candidate is not None

    @property
    def candidate(self) -> Generation | None:
        """The candidate, if there is one: to be looked at."""
        return self._candidate

    @property
    def planned(self) -> tuple[Change, ...]:
        """What the candidate changes."""
        if self._candidate is None:
            return ()
        return tuple(changes(self.base.manifest.distributions, self._candidate.manifest.distributions))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know besides."""
        return tuple(self._notes)

    def check(self, gates: Gates | None = None, *, compile_all: bool = False) -> Verdict | None:
        """Try the candidate; returns what was tried, None without checks (and without a candidate).

        Without `gates` the environment's standing ones count (docs/reference.md).
        Raises CheckError with what is wrong; then it cannot be committed. What a
        check wrote into the candidate is removed; byte-code stays, with
        `compile_all` that of everything that is new.
        """
        if self._candidate is None:
            return None
        self._expect(_State.ASSEMBLED)
        candidate = self._candidate
        gates = self._standing() if gates is None else gates
        changed = {change.name for change in self.planned}
        imported = {name: loaded for name, loaded in self.base.imports().items() if name not in changed}
        if gates.enabled or compile_all:
            imported |= self._try(candidate, gates, compile_all)
        candidate.remember_imports(imported)
        checked = "passed" if gates.enabled else "skipped"
        manifest = replace(candidate.manifest, checked=checked)
        self._candidate = Generation(self._fs, candidate.layout, manifest)
        self._state = _State.CHECKED
        return self._verdict

    def commit(self) -> Outcome:
        """Publish the candidate; on return it is current and durable.

        Raises SiteswapError (stale) when the base is no longer current [I8].
        """
        if self._candidate is None:
            return Outcome(self.base.number, self.base.number, (), committed=False, notes=self.notes)
        self._expect(_State.CHECKED)
        self._progress.phase("commit")
        candidate, planned = self._candidate, self.planned
        link_top_level(self._fs, self._layout, candidate)  # T2
        self._fs.write(candidate.layout.manifest, candidate.manifest.to_json())  # T3
        self._fs.barrier(self._layout.home)  # T4
        # A signal during the flip must find the candidate either unpublished or DONE, never in between.
        with self._flip_lock(), process.uninterruptible():
            if read_current(self._fs, self._layout) != self.base.number:  # T5
                raise SiteswapError(
                    Kind.STALE,
                    f"generation {self.base.number}, which this was based on, is no longer current",
                    hint="run the command again",
                )
            if link_top_level(self._fs, self._layout, candidate):
                # Two rollbacks, there and back again, since T2: they took our links for leftovers.
                self._fs.sync_directory(self._layout.root)
            operation = new_operation(self._kind, self._command, self.base.number, candidate.number)
            flip(self._fs, self._layout, operation)  # T6, T7, T8
            self._state = _State.DONE
            self._candidate = None
            self.outcome = Outcome(
                candidate.number,
                self.base.number,
                planned,
                committed=True,
                notes=self.notes,
                verdict=self._verdict,
            )
            tidy_top_level(self._fs, self._layout, candidate)  # T9
        return self.outcome

    def discard(self) -> None:
        """Remove the candidate, if any, and all scratch; give up the writer lock. Harmless when repeated."""
        # Asked to stop meanwhile, we still clear up; and what was committed is not reported as interrupted.
        with process.uninterruptible(too_late=lambda: self.outcome is not None):
            self._discard()

    def _discard(self) -> None:
        if self._writer.descriptor < 0:
            return
        try:
            if self._workspace is not None:
                self._workspace.leave(self._fs.free_name(self._layout.staging, "private"))
            if self._candidate is not None:
                doomed = self._fs.free_name(self._layout.staging, "discarded")
                # A flip that failed may not have been undone (the disk refused that too): then it is live.
                live = self._fs.read_link(self._layout.current)
                published = live == self._layout.current_target(self._candidate.number)
                if self._fs.entry(self._candidate.layout.path) is not None and not published:
                    if self._state is _State.CHECKED:
                        # It may be current on the disk, where a flip was undone: not after this.
                        self._fs.sync_directory(self._layout.home)
                    self._fs.rename(self._candidate.layout.path, doomed)
                self._candidate = None
            collect.clear(self._fs, self._layout)
        except OSError:
            if self.outcome is None:
                raise
            # What is durable is not reported as a failure; the next command clears.
        finally:
            self._state = _State.DONE
            self._writer.release()

    # -- making the candidate --------------------------------------------------------------------

    def _assemble(self, target: Target | None) -> None:
        """Put the candidate together, unless it would be just what the base is."""
        if target is None:
            return
        self._target = target
        was = self.base.manifest
        members = sorted(target.members, key=lambda member: member.distribution.name)
        manifest = Manifest(
            number=next_number(self._fs, self._layout),
            created=now(),
            command=self._command,
            base=was.number,
            interpreter=self._base.interpreter,
            requirements=tuple(item.text for item in target.requirements),
            distributions=tuple(member.distribution for member in members),
            system_site_packages=was.system_site_packages,
            prompt=was.prompt,
            shared_mode=self._fs.access.shared,
            checked="",
            strays=target.work.drift.strays if target.work is not None else self._base.drift.strays,
        )
        same = self._renewed is None and target.work is None and not self._base.drift
        if same and _is_like(manifest, was):
            return
        self._progress.phase("link")
        assembler = Assembler(
            self._fs, self._layout, self.base, manifest, allow_overlap=target.allow_overlap,
            strays=target.work.prefix if target.work is not None else None,
        )  # fmt: skip
        try:
            self._candidate = assembler.assemble(members, target.lock.text, self._progress.step)
        except FileNotFoundError as error:
            # A cache or a base that lost files after we looked: nothing was published, and the next
            # attempt sees the loss (drift, or a missing cache entry).
            for member in members:
                if member.entry is not None:
                    self._cache.discard(member.entry.index.sha256)
            raise SiteswapError(
                Kind.DAMAGED,
                f"a file vanished while the candidate was put together: {error.filename}",
                hint="run the command again",
            ) from error
        self._state = _State.ASSEMBLED
        for note in live_notes(was.distributions, manifest.distributions):
            self._note(note)

    def _try(self, candidate: Generation, gates: Gates, compile_all: bool) -> dict[str, set[str]]:
        """Run checks where they can do no harm, and undo what they did to the candidate all the same.

        Returns what each distribution was seen to import.
        """
        from siteswap.trial import Trial

        home = self._scratch / "home"
        self._fs.make_directory(home)
        account = account_for(gates.user, self._fs.access)
        if account is not None:
            self._fs.give(home, account.uid, account.gid)
        compared = Comparison(candidate, self.base, self._base.distributions)
        if self._renewed is not None:
            compared = Comparison(candidate, None, (), self._renewed)
        aside = self._scratch / "byte-code"
        self._fs.make_directory(aside)
        traces = Traces(self._fs, candidate, compared.subjects, account, aside)
        terms = Terms(
            (home, *traces.allow(), *gates.writable),
            self._fs.access.umask,
            gates.offline,
            account,
            gates.memory,
        )
        with Confinement(terms) as confinement:
            confinement.start()
            traces.remember(everything=not confinement.landlocked)
            trial = Trial(
                self._fs, self._layout, compared, gates, confinement,
                home, self._overlay(candidate), self._command, self._progress, compile_all,
            )  # fmt: skip
            try:
                if gates.enabled:
                    self._verdict = trial.run()
                else:
                    trial.compile()
            except CheckError as error:
                self._distrust(item.subject for item in error.verdict.blocking if item.check is Check.FILES)
                raise
        try:
            undone = traces.undo()
        except SiteswapError:
            self._distrust(item.name for item in compared.subjects)
            raise
        said = [*told(self._verdict.findings if self._verdict else ()), *undone]
        for note in said:
            self._progress.note(note)
        self._notes += [*trial.notes, *said]
        return {done.distribution.name: done.loaded for done in trial.imported}

    def _distrust(self, names: Iterable[str]) -> None:
        """Forget what the cache has of distributions that were changed: it shares their blocks."""
        assert self._target is not None
        distrusted = set(names)
        for member in self._target.members:
            if member.entry is not None and member.distribution.name in distrusted:
                self._cache.discard(member.entry.index.sha256)

    def _overlay(self, candidate: Generation) -> Overlay:
        """Makes what test suites need besides, in the scratch directory."""
        assert self._target is not None
        lock, options = self._target.lock, self._options

        def make(requirements: Sequence[str]) -> Path:
            from siteswap import overlay

            return overlay.make(
                self._fs, self._cache, self._scratch, candidate.manifest.distributions,
                candidate.interpreter, lock, requirements, options, self._progress,
                taken=candidate.files,
            )  # fmt: skip

        return make

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._progress.note(text)

    def _expect(self, state: _State) -> None:
        if self._state is not state:
            raise bug(f"transaction is {self._state.value}, not {state.value}")


def _is_like(one: Manifest, other: Manifest) -> bool:
    """Whether two generations hold the same for the same reasons."""
    return (
        one.distributions == other.distributions
        and sorted(one.requirements) == sorted(other.requirements)
        and one.interpreter == other.interpreter
    )
