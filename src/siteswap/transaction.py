"""A transaction: base generation → candidate → checks → commit or discard.

Work happens under the writer lock (one builder at a time); the flip lock is
held only while `current` is changed. The write order that crash safety rests
on, by number, is the one commit point's context:

 1. the candidate's files, at generations/N, which nothing refers to
 2. links for top-level names that are new (dangling until the flip)
 3. the manifest
 4. the barrier: everything above is durable
 5. under the flip lock: is the base still current?
 6. the history's record, durable
 7. rename of `current.next` over `current`: the commit point
 8. sync of the directory that holds `current`: the commit is durable
 9. top-level links that nothing needs any more are removed

A crash before 7 leaves the old generation current, and garbage that the next
writer removes; after 7, the new one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from packaging.requirements import InvalidRequirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from siteswap import carry, checks, collect, interpreter, process, resolve, wheels
from siteswap.assemble import Assembler, Member
from siteswap.cache import Cache, Entry
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
from siteswap.generation import Generation, read_current
from siteswap.layout import Layout, Number
from siteswap.lockfile import Artifact, LockFile
from siteswap.manifest import (
    Change,
    Distribution,
    Manifest,
    changes,
)
from siteswap.members import is_same, kept_member, new_member
from siteswap.progress import Progress
from siteswap.recovery import recover
from siteswap.requirements import Request, Requirement, merge, parse_stored
from siteswap.trial import DEFAULT_GATES, Gates, Trial


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
    ) -> None:
        """The writer lock is held and handed over. What crashes left behind is removed here [I9]."""
        self._fs = fs
        self._layout = layout
        self._cache = cache
        self._writer = writer
        self._flip_lock = flip_lock
        self._kind = kind
        self._command = command
        self._progress = progress
        self._state = _State.OPEN
        self._notes: list[str] = []
        self._candidate: Generation | None = None
        self.outcome: Outcome | None = None
        """What was committed, once it is: also when `commit` was interrupted right after the flip."""
        recover(fs, layout, flip_lock)
        self.base = Generation.read(fs, layout.generation(read_current(fs, layout)))
        self.drift = self.base.drift()
        self._interpreter = interpreter.refresh(self.base.interpreter, fs)
        self._scratch = fs.free_name(layout.staging, "work")
        fs.make_directory(self._scratch)
        self._base_distributions = carry.distributions(self.base.manifest, self.drift)
        self._base_requirements = carry.requirements(self.base.manifest, self.drift)
        self._notes += carry.notes(self.drift, self.base.manifest.strays)
        for note in self._notes:
            progress.note(note)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

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
        asked = self._named(request.requirements, options.found_in(request))
        if not upgrade and not options.no_deps and self._satisfied(asked, request):
            return
        wanted = merge(self._base_requirements, asked)
        if upgrade:
            names = tuple(item.name for item in asked if item.name)
            options = replace(options, upgrade=not names, upgrade_packages=names)
        base_lock = carry.preferred(self.base.lock_file(), self._base_distributions)
        self._progress.phase("resolve")
        held = [(item, self.base.metadata(item)) for item in self._base_distributions]
        if options.no_deps:
            new = resolve.resolve(
                self._fs, self._scratch, asked, request, options, self._interpreter, base_lock, held
            )
            lock = self.base.lock_file().merged(new)
            resolve.check_hashes(self._artifacts(new), request, self._hashes_required(request, options))
        else:
            lock = resolve.resolve(
                self._fs, self._scratch, wanted, request, options, self._interpreter, base_lock, held
            )
            mine = lock.only({item.name for item in asked if item.name} | set(request.hashes))
            everything = self._hashes_required(request, options)
            resolve.check_hashes(
                self._artifacts(lock.only(lock.names - self._unchanged(lock)) if everything else mine),
                request,
                everything,
            )
        rebuild = {item.name for item in asked if item.name and _is_local(item)}
        self._make(
            lock, wanted, options.found_in(request), allow_overlap=allow_overlap, rebuild=rebuild
        )

    def uninstall(self, names: Sequence[str]) -> None:
        """Make a candidate without `names` and without what nothing needs any more.

        Needs no index. Raises SiteswapError (requirement) when a name is not
        installed, or is needed by something that stays.
        """
        self._expect(_State.OPEN)
        doomed = {canonicalize_name(name) for name in names}
        installed = {item.name: item for item in self._base_distributions}
        missing = sorted(doomed - installed.keys())
        if missing:
            raise SiteswapError(
                Kind.REQUIREMENT, f"{', '.join(missing)}: not installed", hint="siteswap list shows what is"
            )
        wanted = [item for item in self._base_requirements if item.name not in doomed]
        foreign = [item.name for item in installed.values() if item.foreign and item.name not in doomed]
        before = checks.needed(
            [*(item.line for item in self._base_requirements), *foreign],
            installed.values(),
            self._interpreter,
        )
        after = checks.needed(
            [*(item.line for item in wanted), *foreign], installed.values(), self._interpreter
        )
        holders = {name: sorted(after[name] - doomed) for name in doomed if name in after}
        if holders:
            name, by = next(iter(holders.items()))
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"{name} is needed by {', '.join(by) or 'a requirement'}",
                hint=f"siteswap uninstall {' '.join(sorted(doomed | set(by)))}",
            )
        # What was unreachable before (another tool's leavings) is not ours to judge.
        gone = doomed | {name for name in installed if name in before and name not in after}
        lock = self.base.lock_file()
        keep = [item for item in installed.values() if item.name not in gone]
        lock = lock.only(lock.names - gone)
        displaced = self._displaced(keep)
        artifacts = [item for item in self._artifacts(lock) if item.name in displaced]
        entries = self._obtain(artifacts, resolve.Options(), set()) if artifacts else {}
        members = [Member(item) for item in keep if item.name not in entries]
        members += [
            new_member(item, entries[item.name], installed[item.name].requested, self._interpreter)
            for item in artifacts
        ]
        self._assemble(members, lock, wanted, allow_overlap=True)

    def sync(self, lock: LockFile, wanted: Sequence[Requirement] | None, options: resolve.Options) -> None:
        """Make a candidate that is exactly what the lock says; `wanted` is what counts as asked for.

        None leaves that to be found out. Raises SiteswapError (requirement, conflict).
        """
        self._expect(_State.OPEN)
        self._make(lock, wanted, options, allow_overlap=False, exact=True)

    def lock_for(self, request: Request, options: resolve.Options) -> tuple[LockFile, list[Requirement]]:
        """A lock of just `request`, the base's versions preferred, for `sync` to a requirements file."""
        asked = self._named(request.requirements, options.found_in(request))
        self._progress.phase("resolve")
        lock = resolve.resolve(
            self._fs,
            self._scratch,
            asked,
            request,
            options,
            self._interpreter,
            carry.preferred(self.base.lock_file(), self._base_distributions),
            (),
        )
        resolve.check_hashes(self._artifacts(lock), request, self._hashes_required(request, options))
        return lock, asked

    @staticmethod
    def lock_file(text: str, path: Path) -> tuple[LockFile, list[Requirement] | None]:
        """A pylock.toml as `sync` takes it, with what was asked for if it is one that siteswap exported."""
        lock = LockFile.parse(text, path.parent.resolve(), str(path))
        asked = lock.requirements
        try:
            return lock, None if asked is None else [parse_stored(line) for line in asked]
        except InvalidRequirement as error:
            raise SiteswapError(
                Kind.USAGE,
                f"{path} notes something that is no requirement: {error}".splitlines()[0],
                hint="make it again with siteswap export",
            ) from error

    # -- judging and ending ----------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether there is a candidate to commit."""
        return self._candidate is not None

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

    def compile(self) -> None:
        """Compile everything that is new to byte-code; comes before `check`."""
        if self._candidate is not None:
            self._expect(_State.ASSEMBLED)
            self._trial(self._candidate).compile()

    def check(self, gates: Gates = DEFAULT_GATES) -> None:
        """Try the candidate. Raises SiteswapError (check) with what is wrong; then it cannot be committed.

        What a check wrote into the candidate is removed; byte-code stays.
        """
        if self._candidate is None:
            return
        self._expect(_State.ASSEMBLED)
        trial = self._trial(self._candidate)
        if gates.enabled:
            trial.run(gates)
        trial.restore()
        self._notes += trial.notes
        checked = "passed" if gates.enabled else "skipped"
        manifest = replace(self._candidate.manifest, checked=checked)
        self._candidate = Generation(self._fs, self._candidate.layout, manifest)
        self._state = _State.CHECKED

    def commit(self) -> Outcome:
        """Publish the candidate; on return it is current and durable.

        Raises SiteswapError (stale) when the base is no longer current [I8].
        """
        if self._candidate is None:
            return Outcome(self.base.number, self.base.number, (), committed=False, notes=self.notes)
        self._expect(_State.CHECKED)
        self._progress.phase("commit")
        candidate, planned = self._candidate, self.planned
        link_top_level(self._fs, self._layout, candidate)  # 2
        self._fs.write(candidate.layout.manifest, candidate.manifest.to_json())  # 3
        self._fs.barrier(self._layout.home)  # 4
        # A signal during the flip must find the candidate either unpublished or DONE, never in between.
        with self._flip_lock(), process.uninterruptible():
            if read_current(self._fs, self._layout) != self.base.number:  # 5
                raise SiteswapError(
                    Kind.STALE,
                    f"generation {self.base.number}, which this was based on, is no longer current",
                    hint="run the command again",
                )
            if link_top_level(self._fs, self._layout, candidate):
                # Two rollbacks, there and back again, since step 2: they took our links for leftovers.
                self._fs.sync_directory(self._layout.root)
            operation = new_operation(self._kind, self._command, self.base.number, candidate.number)
            flip(self._fs, self._layout, operation)  # 6, 7, 8
            self._state = _State.DONE
            self._candidate = None
            self.outcome = Outcome(
                candidate.number, self.base.number, planned, committed=True, notes=self.notes
            )
            tidy_top_level(self._fs, self._layout, candidate)  # 9
        return self.outcome

    def discard(self) -> None:
        """Remove the candidate, if any, and all scratch; give up the writer lock. Harmless when repeated."""
        if self._writer.descriptor < 0:
            return
        try:
            if self._candidate is not None:
                doomed = self._fs.free_name(self._layout.staging, "discarded")
                # A flip that failed may not have been undone (the disk refused that too): then it is live.
                live = self._fs.read_link(self._layout.current)
                published = live == self._layout.current_target(self._candidate.number)
                if self._fs.entry(self._candidate.layout.path) is not None and not published:
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

    def _make(
        self,
        lock: LockFile,
        wanted: Sequence[Requirement] | None,
        options: resolve.Options,
        *,
        allow_overlap: bool,
        rebuild: set[str] | None = None,
        exact: bool = False,
    ) -> None:
        """Obtain what the lock names and the base lacks, and assemble."""
        artifacts = self._artifacts(lock)
        base = {item.name: item for item in self._base_distributions}
        kept: list[Distribution] = []
        missing: list[Artifact] = []
        for artifact in artifacts:
            held = base.get(artifact.name)
            if (
                held is not None
                and artifact.name not in (rebuild or ())
                and artifact.name not in self.drift.damaged
                and is_same(held, artifact, exact)
            ):
                kept.append(held)
            else:
                missing.append(artifact)
        for name in self._displaced(kept):
            kept = [item for item in kept if item.name != name]
            missing += [artifact for artifact in artifacts if artifact.name == name]
        entries = self._obtain(missing, options, rebuild or set()) if missing else {}
        if wanted is None:
            wanted = self._unneeded(kept, entries)
        requested = {item.name for item in wanted if item.name}
        members = [kept_member(item, item.name in requested, self._direct_url(item)) for item in kept]
        members += [
            new_member(item, entries[item.name], item.name in requested, self._interpreter)
            for item in missing
        ]
        if not exact:
            # What another tool put there stays, unless the lock has it in a version of its own.
            members += [
                Member(item) for item in base.values() if item.foreign and item.name not in lock.names
            ]
        self._assemble(members, lock, wanted, allow_overlap=allow_overlap)

    def _displaced(self, kept: Sequence[Distribution]) -> list[str]:
        """Names of those whose file the base lacks, because that of one which leaves or changes won."""
        overlaps = set(self.base.manifest.overlaps)
        if not overlaps:
            return []
        staying = {item.name for item in kept}
        going = [item for item in self.base.manifest.distributions if item.name not in staying]
        freed = {row.path for item in going for row in self.base.record(item)} & overlaps
        return [item.name for item in kept if not item.foreign and self.base.differs(item, freed)]

    def _direct_url(self, held: Distribution) -> bytes | None:
        path = self.base.layout.path / held.dist_info / "direct_url.json"
        return self._fs.read(path) if self._fs.entry(path) is not None else None

    def _unneeded(self, kept: Sequence[Distribution], entries: Mapping[str, Entry]) -> list[Requirement]:
        """What counts as asked for in a lock that does not say: all that nothing else in it needs."""
        everything = {item.name: item for item in kept}
        for name, entry in entries.items():
            everything[name] = Distribution(name, entry.index.version, "", "", False, entry.index.requires)
        tree = checks.needed(list(everything), everything.values(), self._interpreter)
        return [Requirement(name, name) for name in sorted(everything) if not tree[name] - {name}]

    def _obtain(
        self, artifacts: Sequence[Artifact], options: resolve.Options, rebuild: set[str]
    ) -> dict[str, Entry]:
        progress = self._progress
        progress.phase("download", len(artifacts))
        return wheels.obtain(
            artifacts,
            self._cache,
            self._interpreter,
            self._scratch,
            options.arguments,
            wheels.Progress(progress.expect, progress.bytes, progress.building, progress.unpacked),
            fresh={artifact.identity for artifact in artifacts if artifact.name in rebuild},
        )

    def _assemble(
        self, members: Sequence[Member], lock: LockFile, wanted: Sequence[Requirement], *, allow_overlap: bool
    ) -> None:
        base = self.base.manifest
        members = sorted(members, key=lambda member: member.distribution.name)
        distributions = tuple(member.distribution for member in members)
        lines = tuple(item.text for item in wanted)
        same = (
            distributions == base.distributions
            and sorted(lines) == sorted(base.requirements)
            and self._interpreter == base.interpreter
            and not self.drift
        )
        if same:
            return
        manifest = Manifest(
            number=next_number(self._fs, self._layout),
            created=now(),
            command=self._command,
            base=self.base.number,
            interpreter=self._interpreter,
            requirements=lines,
            distributions=distributions,
            system_site_packages=base.system_site_packages,
            shared_mode=self._fs.access.shared,
            checked="",
            strays=self.drift.strays or base.strays,
        )
        self._progress.phase("link")
        assembler = Assembler(
            self._fs, self._layout, self.base, manifest, allow_overlap=allow_overlap
        )
        try:
            self._candidate = assembler.assemble(members, lock.text, self._progress.step)
        except FileNotFoundError as error:
            # A cache or a base that lost files after we looked: nothing was published, and the next
            # attempt sees the loss (drift, or a missing cache entry).
            for member in members:
                if member.entry is not None:
                    self._cache.discard(member.entry.index.sha256)
            raise SiteswapError(
                Kind.DAMAGED,
                f"a file vanished while the candidate was put together: {error.filename}",
                hint="run the command again; siteswap doctor if it persists",
            ) from error
        self._state = _State.ASSEMBLED

    def _artifacts(self, lock: LockFile) -> list[Artifact]:
        held = {item.name: item.origin for item in self._base_distributions if item.origin}
        return lock.artifacts(self._interpreter, held)

    def _unchanged(self, lock: LockFile) -> set[str]:
        """Names in the lock that the base has in just that version: no hash needs to be given again."""
        base = {item.name: item for item in self._base_distributions}
        return {
            artifact.name
            for artifact in self._artifacts(lock)
            if artifact.name in base and is_same(base[artifact.name], artifact, exact=False)
        }

    def _named(self, requirements: Sequence[Requirement], options: resolve.Options) -> list[Requirement]:
        """The requirements, each with its name, even if only building its source tells it."""
        named = []
        for item in requirements:
            if item.name is None:
                name = resolve.name_of(self._fs, self._scratch, item, options, self._interpreter.executable)
                named.append(item.named(name))
            else:
                named.append(item if item.specifier is not None else item.named(item.name))
        return named

    def _satisfied(self, asked: Sequence[Requirement], request: Request) -> bool:
        """Whether nothing needs to be resolved: all of it is asked for already, and there."""
        if request.constraints or request.hashes or request.require_hashes or self.drift:
            return False
        known = {item.name: item for item in self._base_requirements}
        installed = {item.name: item for item in self._base_distributions}
        for item in asked:
            specifier = item.specifier
            found = installed.get(item.name or "")
            if specifier is None or specifier.url or item.editable or found is None or item.name not in known:
                return False
            was = known[item.name].specifier
            if was is None or not specifier.extras <= was.extras or was.url:
                return False
            try:
                if not specifier.specifier.contains(Version(found.version), prereleases=True):
                    return False
            except InvalidVersion:
                return False
        return True

    @staticmethod
    def _hashes_required(request: Request, options: resolve.Options) -> bool:
        return request.require_hashes or options.require_hashes

    def _trial(self, candidate: Generation) -> Trial:
        home = self._scratch / "home"
        self._fs.make_directory(home, parents=True)
        return Trial(
            self._fs, self._layout, self.base, self._base_distributions, candidate, home, self._progress
        )

    def _expect(self, state: _State) -> None:
        if self._state is not state:
            raise bug(f"transaction is {self._state.value}, not {state.value}")


def _is_local(requirement: Requirement) -> bool:
    specifier = requirement.specifier
    return specifier is None or (specifier.url or "").startswith("file:")
