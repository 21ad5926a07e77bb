"""Look at everything of an environment and of what the cache shares with it; nothing is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from siteswap import interpreter, launcher, lease, log, plan, prefix
from siteswap.cache import Cache, Entry, File, default_root, open_cache
from siteswap.doctor import around, lost
from siteswap.doctor.around import Around
from siteswap.doctor.contents import Contents, algorithm_of
from siteswap.doctor.findings import Finding, Kind, Severity, beyond, curable
from siteswap.doctor.judging import Judged, Known, judge
from siteswap.doctor.seen import Reader, Record, Seen
from siteswap.errors import SiteswapError
from siteswap.fs import Access, FileSystem
from siteswap.fs import Entry as Found
from siteswap.layout import GenerationLayout, Layout, Number
from siteswap.lockfile import LockFile
from siteswap.manifest import Distribution, Interpreter, Manifest
from siteswap.progress import Progress
from siteswap.version import __version__

_ATTEMPTS = 3


@dataclass(frozen=True)
class Stored:
    """What the cache has of a wheel."""

    entry: Entry
    files: Mapping[str, Found | None]
    """By their path in the entry."""


@dataclass(frozen=True)
class Source:
    """Where a damaged distribution can be had again."""

    kind: str
    """"cache", "copies" (other generations, or a part of the cache), "index"."""
    words: str


@dataclass(frozen=True)
class Examination:
    """What was found, and what a repair needs to know."""

    layout: Layout
    around: Around
    judged: Mapping[Number, Judged]
    unknown: Mapping[Number, str]
    """Generations whose manifest is lost for good, and why."""
    spare: Judged | None
    findings: tuple[Finding, ...]
    contents: Contents
    stored: Mapping[str, Stored]
    """Sound cache entries by the hash of their wheel."""
    spoilt: tuple[str, ...]
    """Hashes of the wheels whose cache entries are damaged."""
    instead: Mapping[str, Interpreter]
    """What may stand in for a base interpreter that is gone, by its path."""
    locks: Mapping[Number, LockFile]
    lost: frozenset[Number] = frozenset()
    """Generations whose manifest was lost, and could be put together again."""

    def lock(self, judged: Judged) -> LockFile | None:
        """The lock of a generation, its own or put together from those of others."""
        others = [lock for number, lock in self.locks.items() if number != judged.seen.number]
        return lost.lock(judged.seen.lock, others, judged.manifest.distributions, judged.manifest.interpreter)

    def source(self, judged: Judged, item: Distribution) -> Source | None:
        """Where a distribution of a generation can be had undamaged."""
        sha256 = item.key.partition("+")[0]
        record = judged.records.get(item.name)
        overlapping = record is not None and not record.paths.isdisjoint(judged.manifest.overlaps)
        if sha256 in self.stored and not overlapping:
            return Source("cache", "from the cache")
        if record is not None and (record.whole or item.foreign) and self._has_all(record, item):
            return Source("copies", "from undamaged copies of its files")
        if item.foreign:
            return None
        lock = self.lock(judged)
        if lock is not None and lost.has(lock, item, judged.manifest.interpreter):
            return Source("index", f"fetched anew ({item.origin})")
        return None

    def _has_all(self, record: Record, item: Distribution) -> bool:
        own = f"{item.dist_info}/RECORD"
        return all(row.path == own or self.contents.copy_of(row.hash) is not None for row in record.rows)

    def moved(self, manifest: Manifest) -> Manifest:
        """A manifest for the interpreter that takes the place of its own, where that is gone."""
        other = self.instead.get(manifest.interpreter.executable)
        return manifest if other is None else replace(manifest, interpreter=other)

    def executable(self, item: Distribution, manifest: Manifest) -> dict[str, bool]:
        """Which files of a distribution may be executed, as far as the cache says."""
        held = self.stored.get(item.key.partition("+")[0])
        return _executable(held, item, manifest.interpreter) if held is not None else {}

    def hopeless(self, judged: Judged) -> list[Distribution]:
        """Damaged distributions of a generation that cannot be had undamaged."""
        return [
            item
            for item in (*judged.manifest.distributions, *judged.drift.foreign)
            if item.name in judged.damaged and self.source(judged, item) is None
        ]


class Examiner:
    """Looks at one environment."""

    def __init__(
        self, fs: FileSystem, layout: Layout, progress: Progress, cache: Cache | None, python_path: str | None
    ) -> None:
        """`cache` is looked at too, where there is one; `python_path` is the value of PYTHONPATH."""
        self._fs = fs
        self._layout = layout
        self._progress = progress
        self._cache = cache
        self._python_path = python_path

    def examine(self) -> Examination:
        """Everything, held by leases meanwhile; once more where another command flipped under us."""
        for _ in range(_ATTEMPTS):
            with self._leases():
                found = self._examine()
                if around.read(self._fs, self._layout).current == found.around.current:
                    break
        return found

    @contextlib.contextmanager
    def _leases(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            for number, kind in around.read(self._fs, self._layout).present.items():
                if kind == "directory":
                    lock = lease.hold(self._fs, self._layout.generation(number))
                    if lock is not None:
                        held.enter_context(lock)
            yield

    def _examine(self) -> Examination:
        fs, layout = self._fs, self._layout
        near = around.read(fs, layout)
        reader = Reader(fs)
        self._progress.phase("look")
        seen = {}
        for number in self._numbers(near):
            seen[number] = reader.read(layout.generation(number), number)
            self._progress.step(len(seen[number].files))
        spare = self._spare(reader)
        manifests, unknown, anew = self._manifests(near, seen)
        everything = [*seen.values(), *([spare] if spare is not None else [])]
        contents = Contents(fs, self._progress)
        stored = self._stored([*manifests.values(), *_own_manifests([spare])])
        self._read_contents(contents, everything, stored)
        spoilt, of_cache = self._judge_cache(contents, stored)
        sound = {sha256: item for sha256, item in stored.items() if sha256 not in spoilt}
        for root in (layout.spare, *(stored[sha256].entry.path for sha256 in spoilt)):
            contents.forget(root)
        records = _records(everything, {**manifests})
        judged = {
            number: self._judge(seen[number], manifest, contents, records, stored)
            for number, manifest in manifests.items()
        }
        judged_spare = None
        if spare is not None and spare.manifest is not None:
            judged_spare = self._judge(spare, spare.manifest, contents, records, stored)
        left = near.replaced.keys() - {near.live}
        of_python, instead = around.python(
            fs, layout, {number: item for number, item in manifests.items() if number not in left}
        )
        live = near.live
        found = Examination(
            layout, near, judged, unknown, judged_spare, (), contents, sound, tuple(spoilt), instead,
            {number: item.lock for number, item in seen.items() if item.lock is not None}, anew,
        )  # fmt: skip
        findings = [*near.findings, *around.history(near, manifests), *of_python]
        if live in manifests:
            wanted = self._configuration(found.moved(manifests[live]))
            findings += around.configured(fs, layout, wanted)
            findings += around.sources(fs, manifests[live])
        for number in sorted(seen):
            findings += self._of_generation(found, seen[number])
        if judged_spare is not None and not judged_spare.sound:
            findings += [
                curable(item, "removed") for item in judged_spare.findings if item.severity is Severity.DAMAGE
            ]
        findings += of_cache
        findings += around.python_path(layout, fs, self._python_path)
        return replace(found, findings=tuple(findings))

    def judge_alone(self, where: GenerationLayout, manifest: Manifest) -> Judged:
        """One generation, wherever it lies: every byte of it is read."""
        seen = Reader(self._fs).read(where, manifest.number)
        contents = Contents(self._fs, self._progress)
        stored = self._stored([manifest])
        self._read_contents(contents, [seen], {})
        return self._judge(seen, manifest, contents, _records([seen], {manifest.number: manifest}), stored)

    # -- reading ---------------------------------------------------------------------------------

    def _numbers(self, near: Around) -> list[Number]:
        """Generations to look at: not what is being built, which is numbered above all that is published."""
        newest = max(near.published, default=Number(0))
        return [
            number
            for number, kind in sorted(near.present.items())
            if kind == "directory"
            and (
                number <= newest
                or (
                    not near.recorded and self._fs.entry(self._layout.generation(number).manifest) is not None
                )
            )
        ]

    def _spare(self, reader: Reader) -> Seen | None:
        where = GenerationLayout(self._layout.spare)
        if not self._fs.is_directory(where.path):
            return None
        found = reader.read(where, Number(0), "the spare")
        with contextlib.suppress(SiteswapError, OSError):
            manifest = Manifest.from_json(self._fs.read(where.manifest), str(where.manifest))
            return replace(found, manifest=manifest)
        return None  # nobody recycles a spare without a manifest

    def _manifests(
        self, near: Around, seen: Mapping[Number, Seen]
    ) -> tuple[dict[Number, Manifest], dict[Number, str], frozenset[Number]]:
        """The manifest of each generation, put together anew where it is lost; else why it cannot be."""
        found = {number: item.manifest for number, item in seen.items() if item.manifest is not None}
        unknown, anew = {}, set()
        others = list(found.values())
        records = {
            item.key: info.record.digest
            for number, manifest in found.items()
            for item in manifest.distributions
            if (info := seen[number].infos.get(item.dist_info)) is not None and info.record is not None
        }
        for number in sorted(seen.keys() - found.keys()):
            made = self._manifest(near, seen[number], others, records)
            if isinstance(made, str):
                unknown[number] = made
            else:
                found[number] = made
                anew.add(number)
        return dict(sorted(found.items())), unknown, frozenset(anew)

    def _manifest(
        self, near: Around, seen: Seen, others: Sequence[Manifest], records: Mapping[str, str]
    ) -> Manifest | str:
        if "manifest.json has format" in seen.why_not:
            return seen.why_not  # another siteswap wrote it, and knows what it means
        link = self._fs.read_link(seen.where.base_interpreter)
        python = next((item.interpreter for item in others if item.interpreter.executable == link), None)
        if python is None and link is not None:
            try:
                python = interpreter.probe(Path(link), self._fs)
            except (SiteswapError, OSError) as error:
                return f"its base interpreter cannot be asked: {error}"
        if python is None:
            return "nothing says which interpreter it was made for"
        notes = {
            path: self._fs.read(seen.full(f"{path}/direct_url.json"))
            for path in seen.infos
            if f"{path}/direct_url.json" in seen.files
        }
        configuration = self._content(seen.where.path / "pyvenv.cfg") or b""
        shared = others[-1].shared_mode if others else self._fs.access.shared
        checked = any(
            item["generation"] == seen.number and item["passed"] for item in log.read(self._fs, self._layout)
        )
        return lost.manifest(
            seen,
            others,
            records,
            near.operations,
            python,
            shared,
            configuration,
            notes,
            checked,
            self._layout.root.name,
        )

    def _stored(self, manifests: Iterable[Manifest]) -> dict[str, Stored]:
        """What the cache has of the distributions that any generation has."""
        if self._cache is None:
            return {}
        found = {}
        keys = {item.key.partition("+")[0] for manifest in manifests for item in manifest.distributions}
        for sha256 in sorted(keys):
            entry = self._cache.find(sha256)
            if entry is not None:
                paths = (f"{file.scheme}/{file.path}" for file in entry.index.files)
                found[sha256] = Stored(entry, {path: self._fs.entry(entry.path / path) for path in paths})
        return found

    def _read_contents(
        self, contents: Contents, everything: Sequence[Seen], stored: Mapping[str, Stored]
    ) -> None:
        work: list[tuple[Path, Found, str]] = []
        for seen in everything:
            for path, entry in seen.files.items():
                if entry.kind == "file":
                    contents.remember(entry, f"{seen.place}: {path}")
            for info in seen.infos.values():
                for row in info.record.rows if info.record is not None else ():
                    entry_of = seen.files.get(row.path)
                    if entry_of is not None and entry_of.kind == "file":
                        work.append((seen.full(row.path), entry_of, algorithm_of(row.hash) or "sha256"))
            # A file that no RECORD lists may be one that a damaged RECORD lost.
            work += [
                (seen.full(path), entry, "sha256")
                for path, entry in seen.files.items()
                if entry.kind == "file"
            ]
        for item in stored.values():
            for name, entry_in in item.files.items():
                if entry_in is not None and entry_in.kind == "file":
                    contents.remember(entry_in, f"cache: {item.entry.index.sha256[:12]}/{name}")
                    work.append((item.entry.path / name, entry_in, "sha256"))
        self._progress.phase("read")
        contents.read(work)

    # -- judging ---------------------------------------------------------------------------------

    def _judge(
        self,
        seen: Seen,
        manifest: Manifest,
        contents: Contents,
        records: Mapping[str, Sequence[Record]],
        stored: Mapping[str, Stored],
    ) -> Judged:
        return judge(seen, manifest, self._known(seen, manifest, contents, records, stored), self._fs.access)

    def _known(
        self,
        seen: Seen,
        manifest: Manifest,
        contents: Contents,
        records: Mapping[str, Sequence[Record]],
        stored: Mapping[str, Stored],
    ) -> Known:
        python = manifest.interpreter
        own = prefix.files(python, self._layout, manifest.system_site_packages, manifest.prompt)
        final = self._layout.generation(manifest.number)
        stand_in = launcher.stand_in(final.path, python.executable)
        program = launcher.binary()
        launchers = [self._fs.read(program)] if program is not None else []
        launchers.append(stand_in.encode("utf-8", "surrogateescape"))
        names = [*prefix.names(python), ".generation/directories"]
        read = {name: text for name in names if (text := self._content(seen.where.path / name)) is not None}
        links = {
            name: target
            for name in ("lib64", ".generation/python")
            if (target := self._fs.read_link(seen.where.path / name)) is not None
        }
        executable = {
            sha256: _executable(held, item, python)
            for item in manifest.distributions
            if (held := stored.get(sha256 := item.key.partition("+")[0])) is not None
        }
        return Known(
            contents, records, executable, {item.path: item.content for item in own}, launchers, __version__,
            read, links,
        )  # fmt: skip

    def _content(self, path: Path) -> bytes | None:
        """A regular file's content; None where there is none that can be read."""
        entry = self._fs.entry(path)
        if entry is None or entry.kind != "file":
            return None
        try:
            return self._fs.read(path)
        except OSError:
            return None

    def _judge_cache(
        self, contents: Contents, stored: Mapping[str, Stored]
    ) -> tuple[list[str], list[Finding]]:
        spoilt, findings = [], []
        for sha256, item in stored.items():
            policy = Access(0, 0, item.entry.index.shared_mode)
            problems = {
                f"{file.scheme}/{file.path}": problem
                for file in item.entry.index.files
                if (problem := _cached_problem(item, f"{file.scheme}/{file.path}", file, contents, policy))
            }
            if not problems:
                continue
            spoilt.append(sha256)
            index = item.entry.index
            for path, problem in problems.items():
                entry = item.files[path]
                place = f"cache: {sha256[:12]}/{path}"
                finding = Finding(
                    Kind.CACHE,
                    f"{path} of {index.name} {index.version} {problem}",
                    distribution=index.name,
                    path=str(item.entry.path / path),
                    shared=contents.sharing(entry, place) if entry is not None else (),
                    where="cache",
                )
                findings.append(curable(finding, "the entry is discarded"))
        return spoilt, findings

    def _configuration(self, manifest: Manifest) -> bytes:
        return prefix.configuration(
            manifest.interpreter, self._layout, manifest.system_site_packages, manifest.prompt
        )

    # -- what can be done about it ---------------------------------------------------------------

    def _of_generation(self, found: Examination, seen: Seen) -> Iterator[Finding]:
        number = seen.number
        if number in found.unknown:
            yield _without_manifest(found, seen, found.unknown[number])
            return
        judged = found.judged[number]
        newer = found.around.replaced.get(number)
        wrong = [finding for finding in judged.findings if finding.severity is Severity.DAMAGE]
        if number in found.lost:
            wrong.append(
                Finding(Kind.MANIFEST, seen.why_not, generation=number, path=".generation/manifest.json")
            )
        if newer is not None and found.around.live != number and wrong:
            yield _left(wrong, number, newer)
            return
        for finding in wrong:
            yield self._treated(found, judged, finding)
        yield from (finding for finding in judged.findings if finding.severity is not Severity.DAMAGE)

    def _treated(self, found: Examination, judged: Judged, finding: Finding) -> Finding:
        number = judged.seen.number
        hopeless = {item.name: item for item in found.hopeless(judged)}
        if hopeless and finding.distribution not in hopeless and finding.distribution in judged.damaged:
            names = ", ".join(item.title for item in hopeless.values())
            return beyond(finding, f"only together with {names}, which cannot be had undamaged")
        if finding.distribution in hopeless:
            return beyond(finding, self._instead(found, judged, hopeless[finding.distribution]))
        if found.around.live != number and "lease" not in judged.seen.corner:
            path = judged.seen.where.path
            how = f"nobody can tell who uses it; once nobody does (siteswap ps), remove {path}"
            return beyond(finding, how)
        if finding.kind is Kind.LOCK_FILE and found.lock(judged) is None:
            return curable(finding, "made anew by the resolver, held against what the manifest says")
        item = next(
            (one for one in _all(judged) if one.name == finding.distribution and one.name in judged.damaged),
            None,
        )
        source = found.source(judged, item) if item is not None else None
        how = source.words if source is not None else "written anew"
        end = "in a new generation" if found.around.live == number else "in its place, once nobody uses it"
        return curable(finding, f"{how}, {end}")

    @staticmethod
    def _instead(found: Examination, judged: Judged, item: Distribution) -> str:
        if found.around.live == judged.seen.number:
            return (
                f"no undamaged copy of {item.title} is left: siteswap uninstall {item.name}, then install it"
            )
        return f"no undamaged copy of {item.title} is left: siteswap gc removes the generation in time"


def _executable(held: Stored, item: Distribution, python: Interpreter) -> dict[str, bool]:
    """Every file that a wheel brings, and whether it may be executed."""
    index = held.entry.index
    found = {plan.destination(file, python, item.name): file.executable for file in index.files}
    return found | {f"{python.schemes['scripts']}/{script[0]}": True for script in index.scripts}


def _all(judged: Judged) -> list[Distribution]:
    return [*judged.manifest.distributions, *judged.drift.foreign]


def _own_manifests(seen: Iterable[Seen | None]) -> list[Manifest]:
    return [item.manifest for item in seen if item is not None and item.manifest is not None]


def _records(everything: Iterable[Seen], manifests: Mapping[Number, Manifest]) -> dict[str, list[Record]]:
    """RECORDs by the key of their distribution."""
    found: dict[str, list[Record]] = {}
    for seen in everything:
        manifest = manifests.get(seen.number) or seen.manifest
        for item in manifest.distributions if manifest is not None else ():
            info = seen.infos.get(item.dist_info)
            if info is None or info.record is None or not (info.ours or item.foreign):
                continue
            known = found.setdefault(item.key, [])
            if all(info.record.digest != other.digest for other in known):
                known.append(info.record)
    return found


def _cached_problem(item: Stored, path: str, file: File, contents: Contents, policy: Access) -> str | None:
    entry = item.files[path]
    size, digest = file.size, file.hash
    if entry is None:
        return "is missing"
    if entry.kind != "file":
        return "is no regular file"
    if entry.size != size:
        return f"has {entry.size} bytes, not {size}"
    if contents.hash_of(entry, "sha256") != digest:
        return "does not have the content that it was unpacked with"
    if entry.mode != policy.file(file.executable):
        return f"has mode {entry.mode:03o}, not {policy.file(file.executable):03o}"
    return None


def _left(wrong: Sequence[Finding], number: Number, newer: Number) -> Finding:
    """A damaged generation is left as it is once another took its place: it has what somebody edited."""
    names = list(dict.fromkeys(item.path or item.what for item in wrong))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    what = f"it is damaged, and left as it is: {', '.join(names[:3])}{more}"
    how = f"generation {newer} was repaired from it"
    return Finding(Kind.REPLACED, what, Severity.NOTE, number, how=how)


def _without_manifest(found: Examination, seen: Seen, why: str) -> Finding:
    number = seen.number
    what = f"{seen.why_not or 'no manifest'}; it cannot be put together again: {why}"
    finding = Finding(Kind.MANIFEST, what, generation=number, path=".generation/manifest.json")
    if found.around.live != number:
        return beyond(finding, "rollback refuses it; siteswap gc removes it in time")
    others = sorted(set(found.judged) & found.around.published - {number}, reverse=True)
    if others:
        how = f"siteswap rollback {others[0]}"
    else:
        how = f"create a new environment and siteswap sync -e NEW {seen.where.lock_file}, if that is there"
    return beyond(finding, how)


def examiner(
    fs: FileSystem, layout: Layout, progress: Progress, cache: Cache | None, python_path: str | None
) -> Examiner:
    """An examiner; where no cache is given, the user's, if there is one that may be trusted."""
    if cache is None and fs.entry(default_root()) is not None:
        try:
            cache = open_cache()
        except SiteswapError as error:
            progress.note(error.message)
    return Examiner(fs, layout, progress, cache, python_path)
