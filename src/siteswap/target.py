"""What the user asks for becomes what the candidate is to be: resolve, keep, obtain.

Nothing here touches the environment: wheels go to the cache, work to a scratch
directory of the transaction's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import InvalidRequirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from siteswap import narrow, resolve
from siteswap.assemble import Member
from siteswap.cache import Cache, Entry
from siteswap.carry import Base, adjusted
from siteswap.checks import dependencies
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact, LockFile
from siteswap.manifest import Distribution
from siteswap.members import is_same, kept_member, new_member
from siteswap.progress import Progress
from siteswap.requirements import Request, Requirement, merge, parse_stored
from siteswap.workspace import Work


@dataclass(frozen=True)
class Target:
    """What a candidate is to be."""

    members: tuple[Member, ...]
    lock: LockFile
    requirements: tuple[Requirement, ...]
    """What counts as asked for."""
    allow_overlap: bool = False
    """Two distributions may claim one file; the later one wins."""
    work: Work | None = None
    """What another installer did, where the candidate is that."""


class Planner:
    """Finds targets for one base. All that needs the network or a build happens here."""

    def __init__(self, fs: FileSystem, cache: Cache, scratch: Path, base: Base, progress: Progress) -> None:
        """`scratch` is an existing directory of ours; `fs` makes files with the environment's access."""
        self._fs = fs
        self._cache = cache
        self._scratch = scratch
        self._base = base
        self._progress = progress

    def install(
        self,
        request: Request,
        options: resolve.Options,
        *,
        allow_overlap: bool,
        upgrade: bool,
    ) -> Target | None:
        """What satisfies `request` too, with the base's versions where they can stay; None: the base does.

        With `upgrade` the named distributions go to the newest that fits, or
        all of them when the request names none. Raises SiteswapError (requirement).
        """
        asked = self._named(request.requirements, options.found_in(request))
        if not upgrade and not options.no_deps and self._satisfied(asked, request):
            return None
        wanted = merge(self._base.requirements, asked)
        if upgrade:
            names = tuple(item.name for item in asked if item.name)
            options = replace(options, upgrade=not names, upgrade_packages=names)
        self._progress.phase("resolve")
        found = self._narrow(asked, wanted, request, options, allow_overlap=allow_overlap)
        if found is not None:
            return found
        base_lock = self._base.preferred_lock()
        if options.no_deps:
            new = self._resolve(asked, request, options, base_lock)
            lock = self._base.generation.lock_file().merged(new)
            resolve.check_hashes(self._artifacts(new), request, self._hashes_required(request, options))
        else:
            # An install leaves what it does not name as it is, unless it upgrades everything.
            staying = set() if options.upgrade else {item.name for item in wanted if item not in asked}
            lock = self._resolve(
                wanted, request, options, base_lock, staying={name for name in staying if name}
            )
            mine = lock.only({item.name for item in asked if item.name} | set(request.hashes))
            everything = self._hashes_required(request, options)
            resolve.check_hashes(
                self._artifacts(lock.only(lock.names - self._unchanged(lock)) if everything else mine),
                request,
                everything,
            )
        return self._target(
            lock, wanted, options.found_in(request), allow_overlap=allow_overlap,
            rebuild=_local_names(asked), refresh=options.upgrade,
        )  # fmt: skip

    def _narrow(
        self,
        asked: Sequence[Requirement],
        wanted: Sequence[Requirement],
        request: Request,
        options: resolve.Options,
        *,
        allow_overlap: bool,
    ) -> Target | None:
        """The same, with only what is asked for resolved; None where that does not do."""
        base = self._base
        picky = request.constraints or request.hashes or self._hashes_required(request, options)
        if picky or options.no_deps or options.upgrade or base.drift or not base.distributions:
            return None
        names = {item.name for item in asked if item.name}
        limits = narrow.constraints(base.distributions, wanted, names, base.interpreter)
        if limits is None:
            return None
        mine = [item for item in wanted if item.name in names]
        try:
            new = self._resolve(mine, request, options, base.preferred_lock(), limits=limits)
        except resolve.UnsatisfiableError:
            return None  # with all the rest free to move there may be an answer; if not, that one is told
        lock = narrow.lock_of(base.generation.lock_file(), new, base.distributions, names)
        target = self._target(
            lock, wanted, options.found_in(request), allow_overlap=allow_overlap, rebuild=_local_names(asked)
        )
        after = [member.distribution for member in target.members]
        gone = narrow.unneeded(base.distributions, after, base.requirements, wanted, base.interpreter)
        if gone is None:
            return None
        members = tuple(member for member in target.members if member.distribution.name not in gone)
        return replace(target, members=members, lock=lock.only(lock.names - gone))

    def _resolve(
        self,
        wanted: Sequence[Requirement],
        request: Request,
        options: resolve.Options,
        preferred: LockFile,
        *,
        staying: Collection[str] = (),
        limits: Sequence[str] = (),
    ) -> LockFile:
        base = self._base
        held = ((item, base.generation.metadata(item)) for item in base.distributions)
        return resolve.resolve(
            self._fs, self._scratch, wanted, request, options, base.interpreter, preferred, held,
            staying, limits,
        )  # fmt: skip

    def uninstall(self, names: Sequence[str]) -> Target:
        """The base without `names` and without what nothing needs any more.

        Needs no index. Raises SiteswapError (requirement) when a name is not
        installed, or is needed by something that stays.
        """
        doomed = {canonicalize_name(name) for name in names}
        installed = {item.name: item for item in self._base.distributions}
        missing = sorted(doomed - installed.keys())
        if missing:
            raise SiteswapError(
                Kind.REQUIREMENT, f"{', '.join(missing)}: not installed", hint="siteswap list shows what is"
            )
        wanted = [item for item in self._base.requirements if item.name not in doomed]
        foreign = [item.name for item in installed.values() if item.foreign and item.name not in doomed]
        before = dependencies.needed(
            [*(item.line for item in self._base.requirements), *foreign],
            installed.values(),
            self._base.interpreter,
        )
        after = dependencies.needed(
            [*(item.line for item in wanted), *foreign], installed.values(), self._base.interpreter
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
        lock = self._base.generation.lock_file()
        keep = [item for item in installed.values() if item.name not in gone]
        lock = lock.only(lock.names - gone)
        anew = {*self._displaced(keep), *self._base.drift.damaged}
        artifacts = [item for item in self._artifacts(lock) if item.name in anew]
        entries = self._obtain(artifacts, resolve.DEFAULTS, set()) if artifacts else {}
        members = [Member(item) for item in keep if item.name not in entries]
        members += [
            new_member(item, entries[item.name], installed[item.name].requested, self._base.interpreter)
            for item in artifacts
        ]
        # What is left overlapped before if it does now.
        return Target(tuple(members), lock, tuple(wanted), allow_overlap=True)

    def taken_in(self, work: Work) -> Target:
        """The base as another installer changed a private copy of it. Needs no index."""
        drift = work.drift
        changed = {item.name for item in drift.foreign} | set(drift.removed)
        members = [Member(item) for item in self._base.distributions if item.name not in changed]
        members += [Member(item, copies=work.prefix) for item in drift.foreign]
        lock = self._base.generation.lock_file()
        return Target(
            tuple(members),
            lock.only(lock.names - changed),
            tuple(adjusted(self._base.requirements, drift)),
            allow_overlap=True,
            work=work,
        )

    def sync(
        self,
        lock: LockFile,
        wanted: Sequence[Requirement] | None,
        options: resolve.Options,
        *,
        allow_overlap: bool,
    ) -> Target:
        """Exactly what the lock says; `wanted` is what counts as asked for, None leaves that to be found out.

        Raises SiteswapError (requirement).
        """
        return self._target(lock, wanted, options, allow_overlap=allow_overlap, exact=True, refresh=True)

    def lock_for(self, request: Request, options: resolve.Options) -> tuple[LockFile, list[Requirement]]:
        """A lock of just `request`, the base's versions preferred, for `sync` to a requirements file."""
        asked = self._named(request.requirements, options.found_in(request))
        self._progress.phase("resolve")
        lock = resolve.resolve(
            self._fs, self._scratch, asked, request, options, self._base.interpreter,
            self._base.preferred_lock(), (),
        )  # fmt: skip
        resolve.check_hashes(self._artifacts(lock), request, self._hashes_required(request, options))
        return lock, asked

    def _target(
        self,
        lock: LockFile,
        wanted: Sequence[Requirement] | None,
        options: resolve.Options,
        *,
        allow_overlap: bool,
        rebuild: set[str] | None = None,
        exact: bool = False,
        refresh: bool = False,
    ) -> Target:
        """What the lock says, with everything obtained that the base lacks.

        Of `rebuild` anew in any case; with `refresh` also local directories that changed since.
        """
        artifacts = self._artifacts(lock)
        base = {item.name: item for item in self._base.distributions}
        kept: list[Distribution] = []
        missing: list[Artifact] = []
        for artifact in artifacts:
            held = base.get(artifact.name)
            if (
                held is not None
                and artifact.name not in (rebuild or ())
                and artifact.name not in self._base.drift.damaged
                and is_same(held, artifact, exact)
                and not (refresh and artifact.kind == "directory" and self._changed(held, artifact, options))
            ):
                kept.append(held)
            else:
                missing.append(artifact)
        for name in self._displaced(kept):
            kept = [item for item in kept if item.name != name]
            missing += [artifact for artifact in artifacts if artifact.name == name]
        lock.check_places(missing)
        entries = self._obtain(missing, options, rebuild or set()) if missing else {}
        if wanted is None:
            wanted = self._unneeded(kept, entries)
        requested = {item.name for item in wanted if item.name}
        members = [kept_member(item, item.name in requested, self._direct_url(item)) for item in kept]
        members += [
            new_member(item, entries[item.name], item.name in requested, self._base.interpreter)
            for item in missing
        ]
        if not exact:
            # What another tool put there stays, unless the lock has it in a version of its own.
            members += [
                Member(item) for item in base.values() if item.foreign and item.name not in lock.names
            ]
        return Target(tuple(members), lock, tuple(wanted), allow_overlap)

    def _changed(self, held: Distribution, artifact: Artifact, options: resolve.Options) -> bool:
        """Whether a local directory is no longer what `held` was built from; never where it is gone."""
        if not self._fs.is_directory(Path(artifact.location)):
            return False
        from siteswap import wheels

        key = wheels.source_key(self._fs, artifact, self._base.interpreter, options.way)
        return self._cache.built(key) != held.key.partition("+")[0]

    def _displaced(self, kept: Sequence[Distribution]) -> list[str]:
        """Names of those whose file the base lacks, because that of one which leaves or changes won."""
        overlaps = set(self._base.generation.manifest.overlaps)
        if not overlaps:
            return []
        staying = {item.name for item in kept}
        going = [item for item in self._base.generation.manifest.distributions if item.name not in staying]
        freed = {row.path for item in going for row in self._base.generation.record(item)} & overlaps
        return [item.name for item in kept if not item.foreign and self._base.generation.differs(item, freed)]

    def _direct_url(self, held: Distribution) -> bytes | None:
        path = self._base.generation.layout.path / held.dist_info / "direct_url.json"
        return self._fs.read(path) if self._fs.entry(path) is not None else None

    def _unneeded(self, kept: Sequence[Distribution], entries: Mapping[str, Entry]) -> list[Requirement]:
        """What counts as asked for in a lock that does not say: all that nothing else in it needs."""
        everything = {item.name: item for item in kept}
        for name, entry in entries.items():
            everything[name] = Distribution(name, entry.index.version, "", "", False, entry.index.requires)
        tree = dependencies.needed(list(everything), everything.values(), self._base.interpreter)
        return [Requirement(name, name) for name in sorted(everything) if not tree[name] - {name}]

    def _obtain(
        self, artifacts: Sequence[Artifact], options: resolve.Options, rebuild: set[str]
    ) -> dict[str, Entry]:
        from siteswap import wheels

        self._progress.phase("download", len(artifacts))
        return wheels.obtain(
            artifacts,
            self._cache,
            self._base.interpreter,
            self._scratch,
            options.arguments,
            wheels.Progress.of(self._progress),
            fresh={artifact.identity for artifact in artifacts if artifact.name in rebuild},
            way=options.way,
        )

    def _artifacts(self, lock: LockFile) -> list[Artifact]:
        held = {item.name: item.origin for item in self._base.distributions if item.origin}
        return lock.artifacts(self._base.interpreter, held)

    def _unchanged(self, lock: LockFile) -> set[str]:
        """Names in the lock that the base has in just that version: no hash needs to be given again."""
        base = {item.name: item for item in self._base.distributions}
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
                name = resolve.name_of(
                    self._fs, self._scratch, item, options, self._base.interpreter.executable
                )
                named.append(item.named(name))
            else:
                named.append(item if item.specifier is not None else item.named(item.name))
        return named

    def _satisfied(self, asked: Sequence[Requirement], request: Request) -> bool:
        """Whether nothing needs to be resolved: all of it is asked for already, and there."""
        if request.constraints or request.hashes or request.require_hashes or self._base.drift:
            return False
        known = {item.name: item for item in self._base.requirements}
        installed = {item.name: item for item in self._base.distributions}
        for item in asked:
            specifier = item.specifier
            found = installed.get(item.name or "")
            if specifier is None or specifier.url or item.editable or found is None or item.name not in known:
                return False
            was = known[item.name].specifier
            if was is None or not specifier.extras <= was.extras or was.url:
                return False
            if specifier.specifier and specifier.specifier != was.specifier:
                return False  # it fits what is there, and is to hold from now on
            try:
                if not specifier.specifier.contains(Version(found.version), prereleases=True):
                    return False
            except InvalidVersion:
                return False
        return True

    @staticmethod
    def _hashes_required(request: Request, options: resolve.Options) -> bool:
        return request.require_hashes or options.require_hashes


def asked_in(lock: LockFile) -> list[Requirement] | None:
    """What was asked for, if the lock is one that siteswap exported; None elsewhere.

    Raises SiteswapError (usage) when it notes something that is no requirement.
    """
    try:
        return None if lock.requirements is None else [parse_stored(line) for line in lock.requirements]
    except InvalidRequirement as error:
        raise SiteswapError(
            Kind.USAGE,
            f"the lock notes something that is no requirement: {error}".splitlines()[0],
            hint="make it again with siteswap export",
        ) from error


def _local_names(asked: Sequence[Requirement]) -> set[str]:
    """What is built anew each time it is asked for: its content may have changed."""
    found = {item.name: item.specifier for item in asked if item.name}
    return {name for name, it in found.items() if it is None or (it.url or "").startswith("file:")}
