"""Repair an environment: around the generations first, then the current one by a new one, then older ones.

The write order (docs/crash-safety.md has every gap), under the writer lock:

 D1. the writer lock
 D2. under the flip lock, each atomic and durable by itself: what stands around the generations
 D3. recovery (V1 to V6)
 D4. the spare, and damaged entries of the cache, go
 D5. the current generation, if it is damaged: a new one with what it should hold, as T1 to T9
 D6. an older one: what it should hold, in staging, with its manifest, held against it
 D7. the barrier: all of that is durable
 D8. under the flip lock: proof of disuse, then the exchange with the damaged one: the commit point
 D9. sync of both directories: the exchange is durable
D10. the damaged one, in staging now, is removed
D11. generations that stay damaged are marked, so that no rollback makes one of them current

No published generation is changed in place [I2]. What is current is replaced by a flip; what is older
only where nobody uses it [I7].
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from siteswap import carry, collect, flip, interpreter, lease, opening, plan, prefix, resolve, wheels
from siteswap.assemble import Assembler, Member
from siteswap.cache import Cache, Entry, open_cache
from siteswap.doctor import around, lost
from siteswap.doctor.examination import Examination, Examiner, examiner
from siteswap.doctor.findings import Cure, Finding, Severity, beyond, damage
from siteswap.doctor.findings import Kind as Sort
from siteswap.doctor.judging import Judged
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, Lock
from siteswap.gates import Gates
from siteswap.generation import Drift, Generation
from siteswap.layout import FORMAT_VERSION, Layout, Number
from siteswap.lockfile import EMPTY, Artifact, LockFile
from siteswap.manifest import Distribution, Interpreter, Manifest
from siteswap.members import direct_url, new_member
from siteswap.progress import Progress
from siteswap.requirements import Request, Requirement
from siteswap.target import Target
from siteswap.transaction import Transaction
from siteswap.verdict import CheckError
from siteswap.version import __version__
from siteswap.waiting import Waiting

_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Repaired:
    """What a repair came to."""

    before: tuple[Finding, ...]
    after: tuple[Finding, ...]
    """What is left."""
    done: tuple[str, ...]
    """What was done, a line each."""
    current: Number | None
    was: Number | None


@dataclass(frozen=True)
class Contents:
    """What a generation is to hold, and where it comes from."""

    members: tuple[Member, ...]
    lock: LockFile
    manifest: Manifest
    """The generation's own, with what is carried along."""
    drift: Drift
    renewed: frozenset[str]
    """Names of the distributions that come from elsewhere."""


@dataclass
class Repair:
    """One run of `siteswap doctor --repair`."""

    fs: FileSystem
    layout: Layout
    progress: Progress
    waiting: Waiting
    gates: Callable[[], Gates]
    options: resolve.Options = resolve.DEFAULTS
    command: str = ""
    cache: Cache | None = None
    python_path: str | None = None
    done: list[str] = field(default_factory=list)
    failed: dict[Number, str] = field(default_factory=dict)
    """Generations that were to be repaired and could not be, and why."""

    def run(self) -> Repaired:
        """Repair what can be; says what was found, done and left. Durable on return.

        Raises SiteswapError: busy, system, and CheckError when the new generation fails its checks.
        """
        opening.require_writable(self.fs, self.layout)
        writer = self.waiting.writer()  # D1
        try:
            before = self._examine()
            if any(item.cure is Cure.BEYOND and item.kind is Sort.FORMAT for item in before.findings):
                # Not ours to touch: moved, so that every script names another place, or of another layout.
                live = before.around.live
                return Repaired(before.findings, before.findings, (), live, live)
            if damage(before.findings):
                self._around(before)  # D2
            near = around.read(self.fs, self.layout)
            if near.current is not None:
                writer = self._generations(self._examine(), writer)
            after = self._examine()
            self._mark(after)  # D11
        finally:
            writer.release()
        left = tuple(self._left(item) for item in after.findings)
        return Repaired(before.findings, left, tuple(self.done), after.around.current, before.around.live)

    def _left(self, finding: Finding) -> Finding:
        """What is left of it after a repair was tried."""
        if finding.cure is Cure.REPAIR and finding.generation in self.failed:
            return beyond(finding, self.failed[finding.generation])
        return finding

    def _examiner(self) -> Examiner:
        return examiner(self.fs, self.layout, self.progress, self.cache, self.python_path)

    def _examine(self) -> Examination:
        return self._examiner().examine()

    def _say(self, text: str) -> None:
        self.done.append(text)

    # -- around the generations ------------------------------------------------------------------

    def _around(self, found: Examination) -> None:
        """Put back what leads to the generations. Each step is atomic, and durable before the next."""
        fs, layout = self.fs, self.layout
        for path, mode in ((layout.staging, fs.access.staging), (layout.log, fs.access.directory)):
            if fs.entry(path) is None:
                fs.make_directory(path, mode=mode)
                self._say(f".siteswap/{path.name} was made again")
        with self.waiting.flip():
            near = around.read(fs, layout)
            live = near.live
            if live is None:
                return
            manifests = {number: item.manifest for number, item in found.judged.items()}
            kinds = {item.kind.value for item in near.findings if item.cure is Cure.REPAIR}
            if "format" in kinds:
                self._format(live)
            # Before `current`, by which it counts, and before recovery, which goes by it.
            mended = lost.history(near.recorded, live, manifests)
            if [*around.history(near, manifests)]:
                text = "".join(f"{operation.to_json()}\n" for operation in mended)
                fs.replace(layout.history, text.encode())
                self._say("lost records of the history were written again")
            if near.current is None:
                flip.restore(fs, layout, live)
                self._say(f"current names generation {live} again")
            if "tags" in kinds:
                kept = {name: number for name, number in near.tags.items() if _stands(near.present, number)}
                fs.replace(layout.tags, (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())
                names = ", ".join(sorted(kept)) or "none"
                self._say(f"tags were written again: {names}")
            for number in around.stray_tombstones(fs, layout):
                self._put_link(layout.generation(number).path, layout.TOMBSTONE)
                self._say(f"the tombstone of generation {number} was put right")
            self._links(live)
            if live in manifests:
                self._configuration(found.moved(manifests[live]))

    def _format(self, live: Number) -> None:
        """Only where it is proven that the environment was made for this very place."""
        programs = self.layout.generation(live).bin
        texts = {
            name: self.fs.read(programs / name)
            for name, kind in self.fs.entries(programs)
            if kind == "file" and name not in ("python", "python3")
        }
        if not lost.made_for(texts, self.layout):
            raise SiteswapError(
                Kind.DAMAGED,
                f"{self.layout.format} is lost, and nothing proves that the environment was made here",
                hint="create a new environment, and siteswap sync it to "
                f"{self.layout.generation(live).lock_file}",
            )
        data = {"format": FORMAT_VERSION, "path": str(self.layout.root), "created_by": __version__}
        self.fs.replace(self.layout.format, json.dumps(data).encode() + b"\n")
        self._say(".siteswap/format was written again")

    def _links(self, live: Number) -> None:
        put = []
        for name in around.missing_links(self.fs, self.layout, live):
            path = self.layout.root / name
            found = self.fs.entry(path)
            if found is not None and found.kind != "link":
                continue  # what stands there is somebody's: it is named, and left alone
            self._put_link(path, self.layout.top_link_target(name))
            put.append(name)
        if put:
            self.fs.sync_directory(self.layout.root)
            self._say(f"links were put back: {', '.join(put)}")

    def _put_link(self, path: Path, target: str) -> None:
        fresh = self.fs.free_name(self.layout.home, ".link")  # recovery knows names with a dot (V2)
        self.fs.symlink(fresh, target)
        self.fs.rename(fresh, path)

    def _configuration(self, manifest: Manifest) -> None:
        wanted = prefix.configuration(
            manifest.interpreter, self.layout, manifest.system_site_packages, manifest.prompt
        )
        if [*around.configured(self.fs, self.layout, wanted)]:
            fresh = self.fs.free_name(self.layout.home, ".pyvenv.cfg")
            self.fs.write(fresh, wanted, durable=True)
            self.fs.rename(fresh, self.layout.config)
            self.fs.sync_directory(self.layout.root)
            self._say("pyvenv.cfg was written again")

    # -- generations -----------------------------------------------------------------------------

    def _generations(self, found: Examination, writer: Lock) -> Lock:
        """Repair generations; returns the writer lock, which a transaction may have taken over."""
        from_base = self._base(found)
        # D3: a transaction recovers. Without one to be made, this still clears what a crash left.
        tx = Transaction(
            self.fs, self.layout, self.cache or open_cache(), writer, self.waiting.flip,
            kind=flip.REPAIR, command=self.command, progress=self.progress, standing=self.gates,
            base=from_base,
        )  # fmt: skip
        with tx:
            if damage(found.findings):
                self._discard(found)  # D4
            live = found.around.current
            judged = found.judged.get(live) if live is not None else None
            if judged is not None and self._needs_repair(found, judged):
                self._renew(found, judged, tx)  # D5
            for number in sorted(found.judged, reverse=True):
                item = found.judged[number]
                if number == live or number in found.around.replaced or not self._needs_repair(found, item):
                    continue
                try:
                    self._rebuild(found, item)
                except SiteswapError as error:  # what is done by now stays done
                    self._say(f"generation {number} stays damaged: {error.message}")
                    self.failed[number] = f"{error.message}: {error.hint}"
        return self.waiting.writer()

    def _needs_repair(self, found: Examination, judged: Judged) -> bool:
        gone = judged.manifest.interpreter.executable in found.instead
        return not judged.sound or judged.seen.number in found.lost or gone

    def _base(self, found: Examination) -> carry.Base:
        live = found.around.current
        if live is None or live not in found.judged:
            why = found.unknown.get(live, "it is not there") if live is not None else "there is none"
            others = sorted(found.judged, reverse=True)
            raise SiteswapError(
                Kind.DAMAGED,
                f"the current generation is beyond repair: {why}",
                hint=f"siteswap rollback {others[0]}" if others else "create a new environment",
            )
        judged = found.judged[live]
        generation = Generation(self.fs, judged.seen.where, judged.manifest)
        return carry.Base(
            generation,
            replace(judged.drift, strays=judged.drift.carried),  # what else is carried is known later
            self._interpreter(found, judged),
            carry.distributions(judged.manifest, judged.drift),
            tuple(carry.requirements(judged.manifest, judged.drift)),
        )

    def _interpreter(self, found: Examination, judged: Judged) -> Interpreter:
        python = judged.manifest.interpreter
        other = found.instead.get(python.executable)
        if other is not None:
            return other
        try:
            return interpreter.refresh(python, self.fs)
        except SiteswapError:
            return python  # it is named, with the next step; nothing that needs it is built

    def _discard(self, found: Examination) -> None:
        """Nothing damaged must be taken for sound later: neither by a recycler nor out of the cache."""
        if self.fs.entry(self.layout.spare) is not None:
            self.fs.move_directory(self.layout.spare, self.fs.free_name(self.layout.staging, "spare"))
        for sha256 in found.spoilt:
            (self.cache or open_cache()).discard(sha256)
            self._say(f"the damaged cache entry {sha256[:12]} was discarded")

    def _renew(self, found: Examination, judged: Judged, tx: Transaction) -> None:
        number = judged.seen.number
        contents = self._try_contents(found, judged)
        if contents is None:
            return
        target = Target(
            contents.members, contents.lock, tuple(carry.requirements(judged.manifest, contents.drift)),
            allow_overlap=True,
        )  # fmt: skip
        candidate = tx.renew(target, contents.renewed, contents.drift.strays)
        self._require_sound(candidate)
        self._try(tx, judged)
        outcome = tx.commit()
        self._say(f"generation {outcome.number} holds what generation {number} should; it is current")
        for name, paths in sorted(judged.edited.items()):
            shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
            self._say(
                f"what was edited in {name} is not in generation {outcome.number}: {shown}; "
                f"generation {number} still has it"
            )

    @staticmethod
    def _gates_for(judged: Judged, gates: Gates) -> Gates:
        """What was let live untried is not held to checks now; what lacks a dependency did so before."""
        tried = gates.enabled and judged.manifest.checked != "skipped"
        return replace(gates, enabled=tried, missing_dependencies=True)

    def _try(self, tx: Transaction, judged: Judged) -> None:
        try:
            tx.check(self._gates_for(judged, self.gates()))
        except CheckError as error:
            way = "siteswap doctor --repair --no-check lets it go live untried"
            raise CheckError(error.verdict, error.message, hint=f"{error.hint}; {way}") from error

    def _require_sound(self, fresh: Generation) -> None:
        """The proof that a repair is one: what was built is held against RECORDs like everything else."""
        wrong = damage(self._examiner().judge_alone(fresh.layout, fresh.manifest).findings)
        if wrong:
            raise SiteswapError(
                Kind.DAMAGED,
                f"the copies that generation {fresh.manifest.number} was to be rebuilt from are damaged too: "
                f"{wrong[0].what}",
                hint="siteswap doctor shows what can be had undamaged",
            )

    def _rebuild(self, found: Examination, judged: Judged) -> None:
        """Rebuild an older generation in staging, and put it in the place of the damaged one."""
        number = judged.seen.number
        if "lease" not in judged.seen.corner:
            return  # without it nobody can prove that it is not used: it is named
        if any(user.generation == number for user in lease.users(self.layout)):
            self._say(f"generation {number} is in use: it stays damaged until a later repair")
            self.failed[number] = "in use (siteswap ps): repair it later"
            return
        contents = self._try_contents(found, judged)
        if contents is None:
            return
        base = Generation(self.fs, judged.seen.where, judged.manifest)
        name = collect.standing_by(number)
        assembler = Assembler(self.fs, self.layout, base, contents.manifest, allow_overlap=True)
        self.progress.phase("link")
        fresh = assembler.assemble(contents.members, contents.lock.text, self.progress.step, stand_by=name)
        fresh.remember_imports(base.imports())
        self.fs.write(fresh.layout.manifest, fresh.manifest.to_json())  # D6
        self._require_sound(fresh)
        self.fs.barrier(self.layout.home)  # D7
        rebuilt = self.layout.staging / name
        self._outwait(found, number)
        with self.waiting.flip():
            users = lease.users(self.layout)
            reason = collect.supplant(self.fs, self.layout, number, rebuilt, users)  # D8, D9
        self.fs.remove_tree(rebuilt)  # D10
        if reason is None:
            self._say(f"generation {number} was rebuilt in its place")
        else:
            self._say(f"generation {number} stays damaged until a later repair: {reason}")
            self.failed[number] = f"{reason}: repair it later"

    def _outwait(self, found: Examination, number: Number) -> None:
        """Let a generation that was current a moment ago become one of which no start is under way."""
        while number in collect.recently_current(found.around.operations):
            time.sleep(_PAUSE_SECONDS)

    def _mark(self, found: Examination) -> None:
        """Note which older generations are damaged, for rollback to refuse them. Atomic and durable."""
        wrong = sorted(
            {
                item.generation
                for item in found.findings
                if item.generation is not None
                and item.severity is Severity.DAMAGE
                and item.generation != found.around.live
            }
        )
        if wrong != flip.marked(self.fs, self.layout):
            self.fs.replace(self.layout.damaged, (json.dumps(wrong) + "\n").encode())

    # -- what a generation is to hold ------------------------------------------------------------

    def _try_contents(self, found: Examination, judged: Judged) -> Contents | None:
        """What it is to hold, all of it obtained; None where that cannot be had, which is told."""
        number = judged.seen.number
        hopeless = found.hopeless(judged)
        if hopeless:
            return None  # the findings say so
        python = judged.manifest.interpreter
        if self.fs.entry(Path(python.executable)) is None and python.executable not in found.instead:
            return None
        try:
            return self._contents(found, judged)
        except SiteswapError as error:
            self._say(f"generation {number} stays damaged: {error.message}")
            self.failed[number] = f"{error.message}: {error.hint}"
            return None

    def _contents(self, found: Examination, judged: Judged) -> Contents:
        scratch = self.fs.free_name(self.layout.staging, "repair")
        self.fs.make_directory(scratch)
        python = self._interpreter(found, judged)
        manifest = replace(judged.manifest, interpreter=python)
        lock = found.lock(judged) or self._resolved(judged, scratch)
        everything = carry.distributions(manifest, judged.drift)
        cache = self.cache or open_cache()
        members: list[Member] = []
        fetched: list[tuple[Distribution, Artifact]] = []
        for item in everything:
            if item.name not in judged.damaged:
                members.append(Member(item))
                continue
            source = found.source(judged, item)
            entry = cache.find(item.key.partition("+")[0])
            if source is not None and source.kind == "cache" and entry is not None:
                members.append(Member(item, entry, self._note(found, judged, item, lock)))
            elif source is not None and source.kind == "copies":
                members.append(Member(item, copies=self._copied(found, judged, item, scratch)))
            else:
                artifact = lost.artifact(lock, item, python)
                assert artifact is not None  # else it would be hopeless
                fetched.append((item, artifact))
        members += self._fetched(fetched, cache, python, scratch)
        distributions = tuple(
            member.distribution for member in sorted(members, key=lambda member: member.distribution.name)
        )
        drift = replace(judged.drift, strays=self._strays(judged, members, manifest))
        manifest = replace(manifest, distributions=distributions, strays=drift.strays)
        renewed = frozenset(member.distribution.name for member in members if _is_new(member))
        return Contents(tuple(members), lock, manifest, drift, renewed)

    def _fetched(
        self,
        wanted: Sequence[tuple[Distribution, Artifact]],
        cache: Cache,
        python: Interpreter,
        scratch: Path,
    ) -> list[Member]:
        """From the index, or from wherever they came: proven by the hash that the lock has."""
        if not wanted:
            return []
        artifacts = [artifact for _, artifact in wanted]
        self.progress.phase("download", len(artifacts))
        entries = wheels.obtain(
            artifacts, cache, python, scratch, self.options.arguments, wheels.Progress.of(self.progress),
            way=self.options.way,
        )  # fmt: skip
        members = []
        for item, artifact in wanted:
            made = new_member(artifact, entries[item.name], item.requested, python)
            if made.distribution.key != item.key:
                self._say(f"{item.title} was built again from its source: its files may differ")
            members.append(made)
        return members

    def _note(self, found: Examination, judged: Judged, item: Distribution, lock: LockFile) -> bytes | None:
        """The content of direct_url.json, if the distribution had one."""
        path = f"{item.dist_info}/direct_url.json"
        record = judged.records.get(item.name)
        row = next((row for row in record.rows if row.path == path), None) if record is not None else None
        if row is not None:
            copy = found.contents.copy_of(row.hash)
            if copy is not None:
                return self.fs.read(copy)
        artifact = lost.artifact(lock, item, judged.manifest.interpreter)
        return direct_url(artifact) if artifact is not None else None

    def _copied(self, found: Examination, judged: Judged, item: Distribution, scratch: Path) -> Path:
        """A tree with the distribution's files, each from a copy that has the content that RECORD says."""
        record = judged.records[item.name]
        root = scratch / f"copies-{item.name}"
        self.fs.make_directory(root)
        self.fs.make_directories(root, plan.directories_of(record.paths))
        programs = f"{judged.manifest.interpreter.schemes['scripts']}/"
        flags = found.executable(item, judged.manifest)
        for row in record.rows:
            own = row.path == f"{item.dist_info}/RECORD"
            source = record.path if own else found.contents.copy_of(row.hash)
            assert source is not None  # else it would be hopeless
            entry = self.fs.entry(source)
            may = bool(entry and entry.mode & 0o100)
            executable = row.path.startswith(programs) or flags.get(row.path, may)
            self.fs.write(root / row.path, self.fs.read(source), executable=executable)
        return root

    def _resolved(self, judged: Judged, scratch: Path) -> LockFile:
        """A lock for what a generation has, by its names and versions; it must name the very same wheels."""
        wanted = [item for item in judged.manifest.distributions if not item.foreign]
        lines = [f"{item.name}=={item.version}" for item in wanted]
        asked = [Requirement(line, item.name) for line, item in zip(lines, wanted, strict=True)]
        work = scratch / "lock"
        self.fs.make_directory(work)
        made = LockFile.parse(EMPTY, work, "an empty lock")
        python = judged.manifest.interpreter
        if asked:
            self.progress.phase("resolve")
            options = replace(self.options, no_deps=True)
            try:
                made = resolve.resolve(self.fs, work, asked, Request(), options, python, made, ())
            except SiteswapError as error:
                raise SiteswapError(
                    Kind.DAMAGED,
                    "its lock file is lost, and the index does not have all that it holds",
                    hint="name the index or --find-links that it came from",
                    detail=error.detail,
                ) from error
        lacking = [item.title for item in wanted if not lost.has(made, item, python)]
        if lacking:
            raise SiteswapError(
                Kind.DAMAGED,
                f"its lock file is lost, and nothing names the wheels of {', '.join(lacking[:5])} any more",
                hint="siteswap sync with a lock file or requirements that you keep",
            )
        return made

    def _strays(self, judged: Judged, members: Sequence[Member], manifest: Manifest) -> tuple[str, ...]:
        """What is carried along: nothing that stands where a file of a distribution belongs."""
        taken: set[str] = set()
        for member in members:
            if member.entry is not None:
                taken |= _paths(member.entry, member.distribution, manifest.interpreter)
            record = judged.records.get(member.distribution.name)
            taken |= record.paths if record is not None else set()
        taken |= {*prefix.names(manifest.interpreter)}
        parents = {*plan.directories_of(taken)}
        kept = []
        for path in judged.drift.strays:
            parts = path.split("/")
            inside = any("/".join(parts[:count]) in taken for count in range(1, len(parts) + 1))
            if not inside and path not in parents:
                kept.append(path)
            elif path not in taken:
                self._say(f"{path} is in the way and is not carried along")
        return tuple(kept)


def _stands(present: Mapping[Number, str], number: Number) -> bool:
    return present.get(number) == "directory"


def _is_new(member: Member) -> bool:
    return member.entry is not None or member.copies is not None


def _paths(entry: Entry, item: Distribution, python: Interpreter) -> set[str]:
    """Where an entry's files go."""
    found = {plan.destination(file, python, item.name) for file in entry.index.files}
    found |= {f"{python.schemes['scripts']}/{script[0]}" for script in entry.index.scripts}
    return found | {f"{item.dist_info}/{name}" for name in plan.GENERATED}


def open_layout(fs: FileSystem, path: Path) -> Layout:
    """The layout of an environment, also of one that is too damaged to be opened.

    Raises SiteswapError: usage when there is none, system when it is not to be trusted.
    """
    opening.require_linux()
    try:
        return opening.find(path)
    except SiteswapError as error:
        layout = opening.located(fs, path)
        if error.kind not in (Kind.DAMAGED, Kind.USAGE) or not fs.is_directory(layout.generations):
            raise
        opening.require_trusted(fs, layout)
        opening.require_not_left(fs, layout)
        return layout
