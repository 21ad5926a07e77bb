"""The facade: open or create an environment, begin transactions, go back, run, watch, collect.

Opening an environment checks that it is one of ours and of a format that we
know, and changes nothing; recovery happens in the first command that takes the
writer lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siteswap import (
    collect,
    flip,
    housekeeping,
    interpreter,
    lease,
    log,
    opening,
    process,
    resolve,
    settings,
    tags,
)
from siteswap.cache import Cache, open_cache
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, access_of
from siteswap.gates import Gates
from siteswap.generation import Generation, listed, no_generation, read_current
from siteswap.layout import Layout, Number
from siteswap.lockfile import LockFile
from siteswap.manifest import Change, Manifest, Operation, changes
from siteswap.progress import Progress
from siteswap.requirements import Request
from siteswap.transaction import Outcome, Transaction
from siteswap.verdict import Verdict
from siteswap.waiting import Waiting
from siteswap.workspace import BUSY_VARIABLE

if TYPE_CHECKING:
    from siteswap.adopt import Adopted
    from siteswap.portable import Copied
    from siteswap.unadopt import Unadopted

_RETRIES = 3


@dataclass(frozen=True)
class Past:
    """One generation as history shows it."""

    number: Number
    manifest: Manifest | None
    """None once it was collected, and when it is damaged."""
    operations: tuple[Operation, ...]
    """The flips that made it current."""
    tags: tuple[str, ...]
    current: bool
    damaged: bool = False
    """It is there, and its description cannot be read."""


class Environment:
    """One environment. Values of this class hold no lock and no open file."""

    def __init__(
        self,
        layout: Layout,
        fs: FileSystem,
        *,
        progress: Progress | None = None,
        lock_timeout: float | None = None,
        cache: Cache | None = None,
    ) -> None:
        """Use `open` or `create` instead."""
        self.layout = layout
        self.fs = fs
        self.progress = progress or Progress()
        self.lock_timeout = lock_timeout
        self._cache = cache

    # -- opening and creating --------------------------------------------------------------------

    @staticmethod
    def open(
        path: Path | str,
        *,
        progress: Progress | None = None,
        lock_timeout: float | None = None,
        cache: Cache | None = None,
    ) -> Environment:
        """The environment at `path`. `lock_timeout` is in seconds; None waits for ever.

        Raises SiteswapError: usage when there is none or it is not ours, damaged
        when its format cannot be read, system on anything but Linux.
        """
        opening.require_linux()
        layout = opening.find(Path(path))
        fs = FileSystem(access_of(layout.root))
        return Environment(layout, fs, progress=progress, lock_timeout=lock_timeout, cache=cache)

    @staticmethod
    def create(
        path: Path | str,
        *,
        python: str | None = None,
        system_site_packages: bool = False,
        command: str = "",
        progress: Progress | None = None,
        cache: Cache | None = None,
        copy_of: Path | str | None = None,
        generation: str | None = None,
    ) -> Environment:
        """Make an empty environment: atomic, and durable on return.

        `python` is a path, a version or a name of an interpreter; None is the
        one that runs siteswap. With `copy_of` it begins with what that environment's
        current generation holds, or the one that number or tag names, and with its Python. Raises
        SiteswapError (usage) when something is at `path`, or there is no such interpreter.
        """
        from siteswap import create

        opening.require_linux()
        if copy_of is not None:
            from siteswap import duplicate

            other = Environment.open(copy_of)
            source = other.generation(other.find(generation)) if generation else other.current
            copying = duplicate.Duplicate(source, other.layout, python, command, progress or Progress())
            layout = copying.make(Path(path), system_site_packages=system_site_packages)
            return Environment(layout, FileSystem(access_of(layout.root)), progress=progress, cache=cache)
        layout = create.create(
            Path(path), python=python, system_site_packages=system_site_packages, command=command
        )
        return Environment(layout, FileSystem(access_of(layout.root)), progress=progress, cache=cache)

    @staticmethod
    def adopt(
        path: Path | str,
        *,
        check: bool = True,
        strict: bool = False,
        dry_run: bool = False,
        python: str | None = None,
        command: str = "",
        progress: Progress | None = None,
    ) -> Adopted:
        """Make another tool's virtual environment one of ours, at the same path: atomic, durable on return.

        What is wrong with its content is told; with `strict` it is refused. `python` names its base
        interpreter, where that is not where it was, in the same version. On any exception it
        is as it was. Raises SiteswapError: usage for what is none, busy when it changes meanwhile.
        """
        from siteswap import adopt

        opening.require_linux()

        def gates(fs: FileSystem, root: Path) -> Gates:
            return Environment(Layout(root), fs, progress=progress).gates(enabled=check)

        return adopt.adopt(
            Path(path),
            command=command,
            gates=gates,
            strict=strict,
            dry_run=dry_run,
            python=python,
            progress=progress,
        )

    @staticmethod
    def unadopt(
        path: Path | str,
        *,
        drop_tags: bool = False,
        dry_run: bool = False,
        command: str = "",
        progress: Progress | None = None,
        lock_timeout: float | None = None,
        fs: FileSystem | None = None,
    ) -> Unadopted:
        """Make an environment a plain virtual environment again, at the same path: atomic, durable on return.

        What the current generation holds stays, the others and the tags are given up. Programs that run keep
        their generation: it stays beside until this is called again after they have ended. On any exception
        it is as it was. `fs` makes files with its access. Raises SiteswapError: usage where there are tags
        (without `drop_tags`) or no environment, busy when it changes meanwhile.
        """
        from siteswap import remains, unadopt

        opening.require_linux()
        final = opening.located(FileSystem(), Path(path))
        if remains.is_plain(FileSystem(), final):
            opening.require_trusted(FileSystem(), final)
            return unadopt.finish(fs or FileSystem(access_of(final.root)), final, dry_run=dry_run)
        found = Environment.open(path, progress=progress, lock_timeout=lock_timeout)
        fs = fs or found.fs
        found.require_changeable()
        return unadopt.unadopt(
            fs,
            found.layout,
            Waiting(fs, found.layout, found.progress, lock_timeout, command),
            found.tags(),
            drop_tags=drop_tags,
            dry_run=dry_run,
            progress=found.progress,
        )

    # -- reading ---------------------------------------------------------------------------------

    @property
    def current(self) -> Generation:
        """The live generation. Raises SiteswapError (damaged)."""
        number = read_current(self.fs, self.layout)
        if not self.fs.is_directory(self.layout.generation(number).path):
            raise no_generation(self.layout, number)
        return self.generation(number)

    def generation(self, number: int) -> Generation:
        """Generation `number`. Raises SiteswapError (usage) when it was collected or never was."""
        where = self.layout.generation(Number(number))
        if not self.fs.is_directory(where.path):
            known = [
                str(found) for found, kind in listed(self.fs, self.layout).items() if kind == "directory"
            ]
            raise SiteswapError(
                Kind.USAGE,
                f"there is no generation {number}",
                hint=f"there are {', '.join(known)}; see siteswap history",
            )
        return Generation.read(self.fs, where)

    def find(self, text: str) -> Number:
        """The generation that a number or a tag names. Raises SiteswapError (usage)."""
        tags = self.tags()
        if text in tags:
            return tags[text]
        if text.isdecimal() and int(text) > 0:
            return self.generation(int(text)).number
        raise SiteswapError(
            Kind.USAGE, f"{text!r} is neither a generation nor a tag", hint="see siteswap history"
        )

    def copy_plain(self, path: Path | str, number: Number | None = None) -> Copied:
        """Make a plain virtual environment that may be moved of a generation (the current one by default).

        Atomic, and durable on return; changes nothing here. Raises SiteswapError (usage) when something
        is at `path`.
        """
        from siteswap import portable

        where = self.generation(number) if number is not None else self.current
        return portable.copy_plain(where, self.layout, Path(path), self.progress)

    def history(self) -> list[Past]:
        """Every generation that ever was current, oldest first."""
        current = read_current(self.fs, self.layout)
        by_number: dict[Number, list[Operation]] = {}
        for operation in flip.history(self.fs, self.layout):
            by_number.setdefault(operation.target, []).append(operation)
        tags = self.tags()
        present = listed(self.fs, self.layout)
        found = []
        for number in sorted(by_number):
            manifest, damaged = None, False
            if present.get(number) == "directory":
                try:
                    manifest = self.generation(number).manifest
                except SiteswapError:
                    damaged = True
            names = tuple(sorted(name for name, target in tags.items() if target == number))
            found.append(Past(number, manifest, tuple(by_number[number]), names, number == current, damaged))
        return found

    def diff(self, before: Number, after: Number) -> list[Change]:
        """What changed from one generation to another."""
        return changes(
            self.generation(before).manifest.distributions, self.generation(after).manifest.distributions
        )

    def tags(self) -> dict[str, Number]:
        """Names that keep generations. Raises SiteswapError (damaged)."""
        return tags.read(self.fs, self.layout)

    def users(self) -> list[lease.User]:
        """Processes of this machine that use a generation, as far as this user may look."""
        return lease.users(self.layout)

    # -- changing --------------------------------------------------------------------------------

    def begin(self, *, kind: str = "install", command: str = "") -> Transaction:
        """Begin a transaction on the current generation; waits for the writer lock and holds it to the end.

        Raises SiteswapError: busy when the lock is not free in time, system
        when this user may not write here.
        """
        self.require_changeable()
        waiting = self._waiting(command)
        writer = waiting.writer()
        try:
            return Transaction(
                self.fs,
                self.layout,
                self._cache or open_cache(),
                writer,
                waiting.flip,
                kind=kind,
                command=command,
                progress=self.progress,
                standing=self.gates,
            )
        except BaseException:
            writer.release()
            raise

    def require_changeable(self) -> None:
        """Raises SiteswapError: system when this user may not write here, usage inside of `exec`."""
        opening.require_writable(self.fs, self.layout)
        if os.environ.get(BUSY_VARIABLE) == str(self.layout.root):
            raise SiteswapError(
                Kind.USAGE,
                f"{self.layout.root} is being changed by the siteswap exec that this runs in",
                hint="end that command first; inside it, other installers change the environment",
            )

    def install(
        self,
        request: Request,
        options: resolve.Options = resolve.DEFAULTS,
        *,
        gates: Gates | None = None,
        upgrade: bool = False,
        allow_overlap: bool = False,
        dry_run: bool = False,
        compile_all: bool = False,
        command: str = "",
    ) -> Outcome:
        """Install what `request` asks for. Durable on return; on any exception nothing changed."""
        gates = replace(gates or self.gates(), missing_dependencies=options.no_deps)
        return self._transact(
            "install",
            command,
            lambda tx: tx.install(request, options, allow_overlap=allow_overlap, upgrade=upgrade),
            gates,
            dry_run,
            compile_all,
        )

    def uninstall(
        self, names: Sequence[str], *, gates: Gates | None = None, dry_run: bool = False, command: str = ""
    ) -> Outcome:
        """Uninstall `names` and what nothing needs any more.

        Durable on return; on any exception nothing changed.
        """
        return self._transact(
            "uninstall", command, lambda tx: tx.uninstall(names), gates, dry_run, compile_all=False
        )

    def sync(
        self,
        source: Path | Request,
        options: resolve.Options = resolve.DEFAULTS,
        *,
        gates: Gates | None = None,
        allow_overlap: bool = False,
        dry_run: bool = False,
        compile_all: bool = False,
        command: str = "",
    ) -> Outcome:
        """Make the environment exactly what a pylock.toml (a path) or requirements (resolved first) say.

        Durable on return; on any exception nothing changed.
        """
        wanted = source if isinstance(source, Request) else read_lock(self.fs, source, options)
        return self._transact(
            "sync",
            command,
            lambda tx: tx.sync(wanted, options, allow_overlap=allow_overlap),
            gates,
            dry_run,
            compile_all,
        )

    def exec(
        self,
        words: Sequence[str],
        *,
        gates: Gates | None = None,
        dry_run: bool = False,
        streams: tuple[int, int, int] = (0, 1, 2),
        command: str = "",
    ) -> Outcome:
        """Run any installer on a private copy of the environment, and make what it did a generation.

        It uses these descriptors of ours as its standard streams. Durable on return; on any exception
        nothing changed. It is run once: where the base moved meanwhile (rollback), that is refused.
        """
        return self._transact(
            "exec", command, lambda tx: tx.run(words, streams), gates, dry_run, compile_all=False, attempts=1
        )

    def rollback(self, target: Number | None = None, *, command: str = "") -> Outcome:
        """Make an older generation current: the one named, else the one that the current one was made from.

        Takes only the flip lock, so it need not wait for a long install. Durable on return.
        """
        opening.require_writable(self.fs, self.layout)
        with self._waiting(command).flip():
            current = read_current(self.fs, self.layout)
            number = target if target is not None else self._previous(self.current)
            if number == current:
                self.fs.sync_directory(self.layout.home)  # a command that was killed may have made it so
                return Outcome(current, current, (), committed=False)
            operations = flip.history(self.fs, self.layout)
            if number not in flip.published(operations):
                raise SiteswapError(
                    Kind.USAGE, f"generation {number} was never current", hint="see siteswap history"
                )
            flip.require_undamaged(self.fs, self.layout, operations, number)
            chosen = self.generation(number)
            interpreter.refresh(chosen.interpreter, self.fs)
            drift = chosen.drift()
            if drift.damaged or drift.removed:
                raise SiteswapError(
                    Kind.DAMAGED,
                    f"generation {number} misses files of {', '.join([*drift.damaged, *drift.removed])}",
                    hint="choose another generation; siteswap history shows them",
                )
            flip.link_top_level(self.fs, self.layout, chosen)  # R1
            self.fs.sync_directory(self.layout.root)  # R2
            done = False
            # An interruption that comes after the flip is too late: what is durable is reported as done.
            with process.uninterruptible(too_late=lambda: done):
                operation = flip.new_operation("rollback", command, current, chosen.number)
                flip.flip(self.fs, self.layout, operation)  # T6, T7, T8
                done = True
                flip.tidy_top_level(self.fs, self.layout, chosen)
                try:
                    planned = self.diff(current, chosen.number)
                except SiteswapError:
                    planned = []  # a damaged generation was the reason to go back
                return Outcome(chosen.number, current, tuple(planned), committed=True)

    def tag(self, number: Number, name: str) -> None:
        """Name a generation, which keeps it. Durable on return. Raises SiteswapError (usage)."""
        opening.require_writable(self.fs, self.layout)
        tags.require_name(name)
        with self._waiting(f"tag {name}").flip():
            before = self.tags()
            tags.replace(self.fs, self.layout, {**before, name: self.generation(number).number}, before)

    def untag(self, name: str) -> None:
        """Take a name off its generation. Durable on return. Raises SiteswapError (usage)."""
        opening.require_writable(self.fs, self.layout)
        with self._waiting(f"tag --delete {name}").flip():
            before = self.tags()
            if name not in before:
                raise SiteswapError(Kind.USAGE, f"there is no tag {name!r}", hint="see siteswap history")
            after = {other: before[other] for other in before if other != name}
            tags.replace(self.fs, self.layout, after, before)

    # -- checking --------------------------------------------------------------------------------

    def gates(
        self,
        *,
        enabled: bool = True,
        commands: Sequence[str] = (),
        tests: Sequence[str] = (),
        allow_broken: Sequence[str] = (),
        startup_code: bool = True,
        offline: bool = False,
        user: str | None = None,
    ) -> Gates:
        """The environment's standing gates (its settings) and those that are named here.

        Raises SiteswapError (usage) when a settings file cannot be understood.
        """
        trusted = {os.geteuid(), self.fs.access.uid, 0}
        found, notes = settings.read(self.fs, self.layout.root, trusted)
        for note in notes:
            self.progress.note(note)
        return settings.gates(
            found,
            enabled=enabled,
            commands=commands,
            tests=tests,
            allow_broken=allow_broken,
            startup_code=startup_code,
            offline=offline,
            user=user,
        )

    def check(
        self,
        number: Number | None = None,
        gates: Gates | None = None,
        options: resolve.Options = resolve.DEFAULTS,
        *,
        command: str = "",
    ) -> Verdict:
        """Try a published generation (the current one by default) as it is; changes nothing in it.

        Holds its lease meanwhile, so that it is not removed; takes no other lock. The
        verdict is kept in the log where this user may write there. Raises CheckError.
        """
        from siteswap.inspection import Inspection

        where = self.generation(number if number is not None else read_current(self.fs, self.layout))
        inspection = Inspection(self.fs, self.layout, lambda: self._cache or open_cache(), self.progress)
        return inspection.run(where, gates or self.gates(), options, command)

    def verdicts(self) -> list[dict[str, Any]]:
        """Past verdicts that are kept, oldest first, with the `name` of each."""
        return log.read(self.fs, self.layout)

    def log(self, name: str) -> str:
        """The whole output of a past verdict. Raises SiteswapError (usage)."""
        return log.text(self.fs, self.layout, name)

    # -- collecting ------------------------------------------------------------------------------

    def plan_collection(self, keep: int = collect.DEFAULT_KEEP) -> list[collect.Verdict]:
        """What `gc` would do with each generation, and why. Changes nothing."""
        return housekeeping.plan(self.fs, self.layout, keep, self.users())

    def gc(
        self, keep: int = collect.DEFAULT_KEEP, *, command: str = ""
    ) -> tuple[list[Number], list[collect.Verdict]]:
        """Remove every generation that is not current, kept or used: (what went, what stays and why).

        Takes the writer lock, so that nobody builds on what goes; the flip lock only to detach.
        """
        opening.require_writable(self.fs, self.layout)
        return housekeeping.gc(self._waiting(command), keep)

    # -- running ---------------------------------------------------------------------------------

    def run(self, number: Number | None, command: Sequence[str]) -> None:
        """Replace this process by `command`, pinned to a generation as a whole tree.

        The generation's programs come first on PATH, and a variable makes this
        environment's launchers hand over to it in every process that inherits
        it. Without a number the environment is just activated for the command.
        Returns only by raising SiteswapError (usage).
        """
        env = dict(os.environ)
        env.pop("PYTHONHOME", None)
        env["VIRTUAL_ENV"] = str(self.layout.root)
        bin_directory = self.layout.bin
        if number is not None:
            where = self.generation(number).layout
            held = lease.hold(self.fs, where)
            if held is None:
                raise SiteswapError(
                    Kind.USAGE, f"generation {number} is being removed", hint="see siteswap history"
                )
            process.keep_across_exec(held.descriptor, lease.DESCRIPTOR)
            env[lease.VARIABLE] = str(where.path)
            bin_directory = where.bin
        own = [str(bin_directory), str(self.layout.stand_ins)]
        env["PATH"] = os.pathsep.join([*own, env.get("PATH", os.defpath)])
        process.become(command, env)

    # -- helpers ---------------------------------------------------------------------------------

    def _transact(
        self,
        kind: str,
        command: str,
        make: Callable[[Transaction], None],
        gates: Gates | None,
        dry_run: bool,
        compile_all: bool,
        attempts: int = _RETRIES,
    ) -> Outcome:
        """Run one transaction to its end; start over when the base moved under it [I8]."""
        for attempt in range(attempts):
            with self.begin(kind=kind, command=command) as tx:
                try:
                    make(tx)
                    if dry_run:
                        return Outcome(
                            tx.base.number, tx.base.number, tx.planned, committed=False, notes=tx.notes
                        )
                    tx.check(gates, compile_all=compile_all)
                    tx.commit()
                except SiteswapError as error:
                    if error.kind is not Kind.STALE or attempt + 1 == attempts:
                        raise
                    self.progress.note(f"{error.message}: starting over")
                    continue
                except KeyboardInterrupt:
                    if tx.outcome is None:
                        raise  # else it came after the flip, too late: what is durable is reported as done
                if tx.outcome is None:
                    return Outcome(tx.base.number, tx.base.number, (), committed=False, notes=tx.notes)
                with process.uninterruptible(too_late=lambda: True):
                    housekeeping.after_commit(self._waiting(command))
                    tx.discard()
                return tx.outcome
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _previous(self, current: Generation) -> Number:
        base = current.manifest.base
        if base is None or not self.fs.is_directory(self.layout.generation(base).path):
            raise SiteswapError(
                Kind.USAGE,
                f"generation {current.number} has no predecessor that is still kept",
                hint="name one of those in siteswap history",
            )
        return base

    def _waiting(self, command: str) -> Waiting:
        return Waiting(self.fs, self.layout, self.progress, self.lock_timeout, command)


def read_lock(fs: FileSystem, path: Path, options: resolve.Options) -> LockFile:
    """The lock at `path`; what it names of this machine lies beside it, or where `options` say.

    Raises SiteswapError (usage).
    """
    hint = "siteswap export > pylock.toml makes one"
    try:
        text = fs.read_text(path, pipes=True)
    except OSError as error:
        raise SiteswapError(Kind.USAGE, f"cannot read {path}: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise SiteswapError(Kind.USAGE, f"cannot read {path}: it is not UTF-8 text", hint=hint) from error
    base = fs.resolve(path.parent)
    places = (base, *map(fs.resolve, options.directories))
    return LockFile.parse(text, base, str(path), places)
