"""The facade of plain directories: `--target DIR`, and site-packages that no environment manages.

What is asked for is made and tried in a short-lived environment (workshop.py) on the file system of
the place; what that changes (projection.py) is brought to the place in one step, or by a journal (swap.py).
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from siteswap import holding, installation, interpreter, opening, place, process, resolve, swap, workshop
from siteswap.cache import Cache, open_cache
from siteswap.carry import Base
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, access_of
from siteswap.gates import DEFAULT_GATES, Gates
from siteswap.generation import Generation
from siteswap.holding import Holding
from siteswap.layout import Layout
from siteswap.lockfile import LockFile
from siteswap.manifest import Change, Distribution, Interpreter, changes
from siteswap.place import Place
from siteswap.plan import directories_of
from siteswap.progress import Progress
from siteswap.projection import Projection, project
from siteswap.requirements import Request
from siteswap.swap import Exchange, Journal
from siteswap.transaction import Transaction
from siteswap.verdict import CheckError, Verdict
from siteswap.waiting import Waiting

EXCHANGE, APPEAR, JOURNAL = "exchange", "rename", "journal"
"""How a place changes: as a whole, by one exchange or, where there was none, one rename; or file by file."""


@dataclass(frozen=True)
class FolderOutcome:
    """What a command on a plain directory came to."""

    top: Path
    changes: tuple[Change, ...]
    committed: bool
    swap: str
    """By which swap it changed, or would."""
    why: str | None
    """Why that is not an exchange of the whole."""
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None


class Folder:
    """One plain directory. Values of this class hold no lock and no open file."""

    def __init__(
        self,
        where: Place,
        fs: FileSystem,
        python: Interpreter,
        *,
        progress: Progress | None = None,
        lock_timeout: float | None = None,
        cache: Cache | None = None,
    ) -> None:
        """Use `target` or `site_packages` instead."""
        self.place = where
        self.fs = fs
        self.python = python
        self.progress = progress or Progress()
        self.lock_timeout = lock_timeout
        self._cache = cache

    @staticmethod
    def target(
        path: Path | str,
        *,
        python: str | None = None,
        progress: Progress | None = None,
        lock_timeout: float | None = None,
        cache: Cache | None = None,
    ) -> Folder:
        """The directory at `path`, which need not be there yet.

        `python` names the interpreter that what is in it is for; None is the one that it was
        installed for so far, else the one that runs siteswap. Raises SiteswapError: usage for what is no
        plain directory, system where somebody else could have planted it.
        """
        opening.require_linux()
        plain = FileSystem()
        layout = Layout(plain.resolve(Path(path).absolute()))
        opening.require_trusted(plain, layout)
        _require_plain(plain, layout)
        there = plain.entry(layout.root) is not None
        fs = FileSystem(access_of(layout.root)) if there else plain
        if python is None and there:
            noted = holding.noted_python(fs, place.directory(layout.root, ""))
            python = noted if noted is not None and fs.is_program(Path(noted)) else None
        found = interpreter.probe(interpreter.find(python, fs), fs)
        return Folder(
            place.directory(layout.root, found.executable), fs, found,
            progress=progress, lock_timeout=lock_timeout, cache=cache,
        )  # fmt: skip

    @staticmethod
    def site_packages(
        python: str | None,
        *,
        break_system_packages: bool = False,
        only_read: bool = False,
        progress: Progress | None = None,
        lock_timeout: float | None = None,
        cache: Cache | None = None,
    ) -> Folder:
        """The site-packages of the interpreter that `python` names, where no virtual environment is.

        Raises SiteswapError: usage for a virtual environment's, system for an interpreter whose packages
        another program manages (unless `break_system_packages`, or `only_read`, which changes nothing), or
        that somebody else could have planted.
        """
        opening.require_linux()
        fs = FileSystem()
        program = interpreter.find(python, fs)
        opening.require_trusted(fs, Layout(fs.resolve(program)))
        asked = installation.ask(program)
        if asked.virtual:
            raise SiteswapError(
                Kind.USAGE,
                f"{program} is the interpreter of a virtual environment, {asked.prefix}",
                hint=f"siteswap install -e {shlex.quote(asked.prefix)} …, or siteswap adopt it first",
            )
        if not break_system_packages and not only_read:
            installation.require_unmanaged(asked)
        where = place.site_packages(asked.paths, asked.program)
        where = replace(where, top=fs.resolve(where.top))
        layout = Layout(where.top)
        opening.require_trusted(fs, layout)
        if not fs.is_directory(where.top) and not only_read:
            fs.make_directory(where.top, parents=True)
        fs = FileSystem(access_of(where.top)) if fs.is_directory(where.top) else fs
        return Folder(
            where, fs, interpreter.probe(program, fs),
            progress=progress, lock_timeout=lock_timeout, cache=cache,
        )  # fmt: skip

    # -- reading ---------------------------------------------------------------------------------

    def list(self) -> tuple[Distribution, ...]:
        """What is there. What a crash cut short is finished first, by whoever may; else that is told."""
        if not self.fs.is_directory(self.place.top):
            raise SiteswapError(
                Kind.USAGE,
                f"there is no directory {self.place.top}",
                hint="siteswap install --target DIR makes it",
            )
        return self._read_settled().distributions

    def lock(self) -> LockFile:
        """A lock of what siteswap installed there, with what was asked for noted in it."""
        found = self._read_settled()
        return found.lock().noting([item.text for item in found.requirements()])

    def _read_settled(self) -> Holding:
        if swap.unfinished(self.fs, self.place):
            try:
                with swap.hold(self.fs, self.place, self.progress, 0):
                    swap.recover(self.fs, self.place)
            except (OSError, SiteswapError):
                self.progress.note("a change is under way here, or was cut short: this may be half of it")
        return holding.read(self.fs, self.place, self.python)

    # -- changing --------------------------------------------------------------------------------

    def install(
        self,
        request: Request,
        options: resolve.Options = resolve.DEFAULTS,
        *,
        gates: Gates = DEFAULT_GATES,
        upgrade: bool = False,
        allow_overlap: bool = False,
        dry_run: bool = False,
        compile_all: bool = False,
        command: str = "",
    ) -> FolderOutcome:
        """Install what `request` asks for. Durable on return; on any exception nothing changed."""
        gates = replace(gates, missing_dependencies=options.no_deps)
        return self._transact(
            "install", command,
            lambda tx: tx.install(request, options, allow_overlap=allow_overlap, upgrade=upgrade),
            gates, allow_overlap, dry_run, compile_all,
        )  # fmt: skip

    def uninstall(
        self, names: Sequence[str], *, gates: Gates = DEFAULT_GATES, dry_run: bool = False, command: str = ""
    ) -> FolderOutcome:
        """Uninstall `names` and what nothing needs any more. As `install`."""
        return self._transact(
            "uninstall", command, lambda tx: tx.uninstall(names), gates, False, dry_run, False
        )

    def sync(
        self,
        source: LockFile | Request,
        options: resolve.Options = resolve.DEFAULTS,
        *,
        gates: Gates = DEFAULT_GATES,
        allow_overlap: bool = False,
        dry_run: bool = False,
        compile_all: bool = False,
        command: str = "",
    ) -> FolderOutcome:
        """Make its distributions exactly what a lock says, or requirements resolve to. As `install`."""
        return self._transact(
            "sync", command, lambda tx: tx.sync(source, options, allow_overlap=allow_overlap),
            gates, allow_overlap, dry_run, compile_all,
        )  # fmt: skip

    def _transact(
        self,
        kind: str,
        command: str,
        work: Callable[[Transaction], None],
        gates: Gates,
        overwrite: bool,
        dry_run: bool,
        compile_all: bool,
    ) -> FolderOutcome:
        self._require_writable()
        change = _Change(self, kind, command, gates)
        try:
            with swap.hold(self.fs, self.place, self.progress, self.lock_timeout) as held:  # P1, J1
                try:
                    swap.recover(self.fs, self.place)
                    change.run(held, work, overwrite, dry_run, compile_all)
                finally:
                    # Asked to stop meanwhile, we still clear up; what is durable is reported as done.
                    with process.uninterruptible(too_late=lambda: change.committed):
                        change.leave()
        except KeyboardInterrupt:
            if not change.committed:
                raise
        assert change.outcome is not None
        return change.outcome

    def _require_writable(self) -> None:
        fs, layout = self.fs, Layout(self.place.top)
        opening.require_outside(fs, layout)
        there = layout.root
        while fs.entry(there) is None:
            there = there.parent
        if not fs.may_write(there):
            raise SiteswapError(
                Kind.SYSTEM, f"{there} is not writable", hint="run the command as the user whom it belongs to"
            )


class _Change:
    """One change of a place, with its lock held."""

    def __init__(self, folder: Folder, kind: str, command: str, gates: Gates) -> None:
        self._folder = folder
        self._fs = folder.fs
        self._place = folder.place
        self._progress = folder.progress
        self._kind = kind
        self._command = command
        self._gates = gates
        self._stuck = False
        self.committed = False
        self.outcome: FolderOutcome | None = None

    def run(
        self,
        held: swap.Hold,
        work: Callable[[Transaction], None],
        overwrite: bool,
        dry_run: bool,
        compile_all: bool,
    ) -> None:
        folder, fs = self._folder, self._fs
        seen = swap.sight(fs, self._place)
        found = holding.read(fs, self._place, folder.python)
        for note in found.notes:
            self._progress.note(note)
        home, why = self._make_home(held, found)
        base = workshop.make(fs, home / "env", found, folder.python, self._command)
        layout = Layout(home / "env")
        waiting = Waiting(fs, layout, self._progress, None, self._command)
        try:
            with self._begin(layout, waiting, base) as tx:
                work(tx)
                if tx.candidate is not None:  # before it is tried: what is in the way is in its place there
                    self._project(found, base, tx.candidate, overwrite)
                verdict = tx.check(self._gates, compile_all=compile_all)
                verdict = replace(verdict, log=None) if verdict is not None else None
                candidate = tx.candidate
                planned: Projection | None = None
                if candidate is not None:
                    planned = self._project(found, base, candidate, overwrite)
                how = JOURNAL if why is not None else EXCHANGE if fs.is_directory(self._place.top) else APPEAR
                outcome = FolderOutcome(
                    self._place.top, self._changes(found, candidate), False, how, why, tx.notes, verdict
                )
                self.outcome = outcome
                if planned and candidate is not None and not dry_run:
                    self._progress.phase("commit")
                    self._commit(planned, candidate, found, seen, held, outcome)
        except CheckError as error:
            raise _unlogged(error) from error
        except OSError:
            if not self.committed:
                raise  # else it is the workshop's, which the next command removes

    def _project(self, found: Holding, base: Base, candidate: Generation, overwrite: bool) -> Projection:
        python = str(Layout(candidate.layout.path.parents[2]).python)
        return project(self._fs, found, base.generation, candidate, python, overwrite=overwrite)

    def _begin(self, layout: Layout, waiting: Waiting, base: Base) -> Transaction:
        cache = self._folder._cache or open_cache()
        writer = waiting.writer()
        try:
            return Transaction(
                self._fs, layout, cache, writer, waiting.flip,
                kind=self._kind, command=self._command, progress=self._progress,
                standing=lambda: self._gates, base=base,
            )  # fmt: skip
        except BaseException:
            writer.release()
            raise

    def _changes(self, found: Holding, candidate: Generation | None) -> tuple[Change, ...]:
        if candidate is None:
            return ()
        return tuple(changes(found.distributions, candidate.manifest.distributions))

    def _make_home(self, held: swap.Hold, found: Holding) -> tuple[Path, str | None]:
        """P2, J2: the hidden directory that the swap wants; and why it is none of the whole."""
        fs, where = self._fs, self._place
        beside = where.whole and fs.may_write(where.top.parent)
        home = where.beside if beside else where.inside
        if fs.entry(home) is None:
            fs.make_directory(home, mode=fs.access.staging)
            if beside:
                swap.lock_beside(fs, where, held)
        why = place.hindrance(swap.look(fs, where, found.kinds, home))
        if why is not None and beside:
            fs.remove_tree(home)
            home = where.inside
            fs.make_directory(home, mode=fs.access.staging)
        return home, why

    def _commit(
        self,
        planned: Projection,
        candidate: Generation,
        found: Holding,
        seen: swap.Sight,
        held: swap.Hold,
        outcome: FolderOutcome,
    ) -> None:
        fs, where = self._fs, self._place

        def bring(target: Path, names: Mapping[str, str]) -> None:
            # Copies (reflinks, where the file system has them): a place may be written to by anybody, the
            # cache and its environments must not be by that.
            fs.make_directories(target, directories_of(names.values()))
            pairs = [(inner, names[path]) for path, inner in planned.copies.items()]
            fs.link_files(candidate.layout.path, target, pairs, copy=True, tick=self._progress.step)
            for path, (content, executable) in planned.made.items():
                fs.write(target / names[path], content, executable=executable)

        def changing(path: str) -> SiteswapError:
            return holding.changing(where, path)

        if outcome.why is None:
            tree = Exchange(fs, where, held, seen)
            changed = {path: found.kinds[path] for path in (*planned.gone, *planned.replaced)}
            tree.build(
                found.kinds, changed, lambda target: bring(target, {path: path for path in planned.new})
            )
            with process.uninterruptible(too_late=lambda: self.committed):
                try:
                    tree.commit(changing)
                finally:
                    self._stuck = tree.stuck
                self.committed, self.outcome = True, replace(outcome, committed=True)
            return
        journal = Journal(fs, where)
        steps = journal.stage(dict.fromkeys(planned.new), set(planned.gone), set(planned.replaced), bring)
        swap.require_same(seen, swap.sight(fs, where), changing)
        with process.uninterruptible(too_late=lambda: self.committed):
            journal.commit(steps)
            self.committed, self.outcome = True, replace(outcome, committed=True)

    def leave(self) -> None:
        """Remove the hidden directories (P6, J8): what was made, or the old tree."""
        if self._stuck:
            return
        # What is durable is not reported as a failure; what stays the next command removes.
        with contextlib.suppress(OSError) if self.committed else contextlib.nullcontext():
            swap.clear(self._fs, self._place)


def _unlogged(error: CheckError) -> CheckError:
    """The refusal in words that fit a place which has no generations and no log."""
    count = len(error.verdict.blocking)
    hint = (error.hint or "").partition("; ")[2] or error.hint
    return CheckError(
        replace(error.verdict, log=None),
        f"the checks found {count} thing{'s' if count > 1 else ''} wrong; nothing was changed",
        hint=hint,
    )


def _require_plain(fs: FileSystem, layout: Layout) -> None:
    """Refuse an environment, and what is in one. Raises SiteswapError (usage)."""
    found = fs.entry(layout.root)
    if found is not None and found.kind != "directory":
        raise SiteswapError(Kind.USAGE, f"{layout.root} is no directory", hint="name another with --target")
    for path in (layout.root, *layout.root.parents):
        if fs.entry(Layout(path).format) is not None:
            raise SiteswapError(
                Kind.USAGE,
                f"{layout.root} is in an environment of siteswap's, {path}",
                hint=f"siteswap install -e {shlex.quote(str(path))} …",
            )
    if fs.entry(layout.config) is not None:
        raise SiteswapError(
            Kind.USAGE,
            f"{layout.root} is a virtual environment, no plain directory",
            hint=f"siteswap adopt {shlex.quote(str(layout.root))} makes it one that siteswap manages",
        )
    if layout.root == layout.root.parent:
        raise SiteswapError(Kind.USAGE, "/ is no directory for packages", hint="name another with --target")
