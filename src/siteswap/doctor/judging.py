"""Hold a generation against its manifest, its RECORDs and what siteswap itself puts there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from siteswap import plan, prefix
from siteswap.checks.reading import shown
from siteswap.doctor import lost
from siteswap.doctor.contents import Contents, algorithm_of, same_hash
from siteswap.doctor.findings import Finding, Kind, Severity
from siteswap.doctor.seen import Record, Seen
from siteswap.fs import Access, Entry
from siteswap.generation import Drift
from siteswap.manifest import Distribution, Manifest
from siteswap.plan import Row

_KINDS = {"link": "a link", "directory": "a directory", "other": "a device or a pipe", "file": "a file"}


@dataclass
class Judged:
    """What came of it."""

    seen: Seen
    manifest: Manifest
    findings: list[Finding] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    """Names of distributions that are not what they should be."""
    edited: dict[str, list[str]] = field(default_factory=dict)
    """Files of theirs with other content than they came with: somebody's edits, maybe."""
    own: bool = False
    """Something that siteswap itself puts there is damaged, or a directory has a wrong mode."""
    records: dict[str, Record] = field(default_factory=dict)
    """RECORDs to go by, of this generation or of another that has the very same distribution."""
    drift: Drift = field(default_factory=Drift)

    @property
    def sound(self) -> bool:
        """Whether there is nothing to repair."""
        return not (self.damaged or self.own)

    def add(self, kind: Kind, what: str, **more: object) -> None:
        """Note damage."""
        self.note(kind, what, Severity.DAMAGE, **more)

    def note(self, kind: Kind, what: str, severity: Severity, **more: object) -> None:
        """Note something."""
        finding = Finding(
            kind, what, severity, self.seen.number, where=self.seen.label, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        self.findings.append(finding)


@dataclass(frozen=True)
class Known:
    """What generations are held against, besides themselves."""

    contents: Contents
    records: Mapping[str, Sequence[Record]]
    """RECORDs by the key of the distribution, of every generation."""
    executable: Mapping[str, Mapping[str, bool]]
    """Which files of a wheel may be executed, by its hash, as far as the cache says."""
    own: Mapping[str, bytes]
    """Content of what siteswap itself puts into every generation (the launcher apart)."""
    launchers: Sequence[bytes]
    """What the launcher of this generation may be."""
    version: str
    """Of siteswap."""
    read: Mapping[str, bytes]
    """Content of the generation's own files, as far as it could be read."""
    links: Mapping[str, str]
    """Where links lead."""


def judge(seen: Seen, manifest: Manifest, known: Known, access: Access) -> Judged:
    """Everything that is wrong with one generation, or worth knowing."""
    found = Judged(seen, manifest)
    access = Access(access.uid, access.gid, manifest.shared_mode)
    foreign = _foreign(seen, manifest)
    removed = [
        item.name for item in manifest.distributions if _is_removed(seen, manifest, item, foreign, known)
    ]
    present = [item for item in manifest.distributions if item.name not in removed]
    owner: dict[str, str] = {}
    rows: dict[str, list[tuple[Distribution, Row]]] = {}
    for item in (*present, *foreign):
        record = _record(found, item, known)
        if record is None:
            for path in known.executable.get(item.key.partition("+")[0], {}):
                owner.setdefault(path, item.name)
            continue
        found.records[item.name] = record
        for row in record.rows:
            rows.setdefault(row.path, []).append((item, row))
            owner.setdefault(row.path, item.name)
    for path, claims in rows.items():
        _judge_file(found, path, claims, known, access)
    strays = _strays(seen, manifest, owner)
    carried = tuple(path for path in manifest.strays if path in strays)
    found.drift = Drift(tuple(foreign), tuple(sorted(removed)), (), tuple(sorted(strays)), carried)
    _judge_own(found, known, access)
    _judge_directories(found, owner, access)
    _tell_drift(found)
    return found


# -- distributions -------------------------------------------------------------------------------


def _foreign(seen: Seen, manifest: Manifest) -> list[Distribution]:
    known = {item.dist_info for item in manifest.distributions}
    made = [
        info.distribution(path)
        for path, info in sorted(seen.infos.items())
        if path not in known and info.record is not None and f"{path}/METADATA" not in manifest.strays
    ]
    return [item for item in made if item is not None]


def _is_removed(
    seen: Seen, manifest: Manifest, item: Distribution, foreign: Iterable[Distribution], known: Known
) -> bool:
    """Whether another tool took a distribution away, as opposed to somebody who tore it apart."""
    if any(other.name == item.name for other in foreign):
        return True  # that one took its place
    if item.dist_info in seen.infos or _is_torn(seen, manifest):
        return False
    paths = {path for record in known.records.get(item.key, ()) for path in record.paths}
    paths |= known.executable.get(item.key.partition("+")[0], {}).keys()
    return not any(path in seen.files for path in paths)


def _is_torn(seen: Seen, manifest: Manifest) -> bool:
    """Whether siteswap's own files beside the distributions are gone too: no tool that uninstalls does so."""
    base = manifest.interpreter.purelib
    return any(
        path.startswith(f"{base}/") and path not in seen.files for path in prefix.names(manifest.interpreter)
    )


def _record(found: Judged, item: Distribution, known: Known) -> Record | None:
    """The RECORD to go by. What is wrong with the one that is there is noted."""
    seen = found.seen
    info = seen.infos.get(item.dist_info)
    mine = info.record if info is not None else None
    others = [record for record in known.records.get(item.key, ()) if record.whole]
    problem = ""
    if info is None:
        problem = "its .dist-info directory is gone"
    elif mine is None:
        problem = "RECORD cannot be read" if f"{item.dist_info}/RECORD" in seen.files else "RECORD is missing"
    elif not mine.whole and not item.foreign:
        problem = "RECORD was cut short: it does not list itself"
    elif _reinstalled(found, item, known):
        by = (info.installer or b"").decode(errors="replace").strip()
        text = f"{item.title} was installed again by another tool ({shown(by, 40)})"
        found.note(Kind.DRIFT, text, Severity.NOTE, distribution=item.name)
        return mine
    if not problem and mine is not None:
        fuller = [other for other in others if other.paths > mine.paths]
        if not fuller or item.foreign:
            return mine
        problem = "RECORD lacks files that the same distribution has elsewhere"
        others = fuller
    path = f"{item.dist_info}/RECORD"
    entry = seen.files.get(path)
    shared = known.contents.sharing(entry, _place(seen, path)) if entry is not None else ()
    found.damaged.add(item.name)
    found.add(Kind.RECORD, problem, distribution=item.name, path=path, shared=shared)
    better = max(others, key=lambda other: len(other.rows), default=None)
    return better  # rows of one that was cut short prove nothing


def _reinstalled(found: Judged, item: Distribution, known: Known) -> bool:
    """Whether another tool put the same version in the place of ours; RECORD says so, and not by damage."""
    info = found.seen.infos.get(item.dist_info)
    if item.foreign or info is None or info.record is None or info.installer is None or info.ours:
        return False
    return _agrees(found, info.record, f"{item.dist_info}/INSTALLER", known)


def _agrees(found: Judged, record: Record, path: str, known: Known) -> bool:
    entry = found.seen.files.get(path)
    row = next((row for row in record.rows if row.path == path), None)
    if row is None or entry is None:
        return False
    digest = known.contents.hash_of(entry, algorithm_of(row.hash) or "")
    return digest is not None and same_hash(digest, row.hash)


def _judge_file(
    found: Judged, path: str, claims: Sequence[tuple[Distribution, Row]], known: Known, access: Access
) -> None:
    """One file, against the rows of all who claim it: where it is shared, one of them is enough."""
    seen = found.seen
    problems = [_problem(seen.files.get(path), row, known.contents, seen) for _, row in claims]
    if all(problems):
        kind, text = problems[-1] or ("", "")
        entry = seen.files.get(path)
        shared = known.contents.sharing(entry, _place(seen, path)) if entry is not None else ()
        for item, _ in claims:
            if path == f"{item.dist_info}/RECORD" and item.name in found.damaged:
                continue  # said already
            found.damaged.add(item.name)
            if kind == "edited":
                found.edited.setdefault(item.name, []).append(path)
            found.add(Kind.FILE, f"{shown(path)} {text}", distribution=item.name, path=path, shared=shared)
        return
    entry = seen.files[path]
    item = claims[-1][0]
    may = _executable(found.manifest, item, path, known)
    wanted = {access.file(may)} if may is not None else {access.file(False), access.file(True)}
    if entry.mode not in wanted and not item.foreign:
        found.damaged.add(item.name)
        text = f"{shown(path)} has mode {entry.mode:03o}, not {' or '.join(f'{mode:03o}' for mode in wanted)}"
        shared = known.contents.sharing(entry, _place(seen, path))
        found.add(Kind.MODE, text, distribution=item.name, path=path, shared=shared)


def _problem(entry: Entry | None, row: Row, contents: Contents, seen: Seen) -> tuple[str, str] | None:
    """What is wrong with a file by one row: its kind, and words to follow the file's name."""
    if entry is None:
        if row.path in seen.directories:
            return "kind", "is a directory and not a regular file"
        return "missing", "is missing"
    if entry.kind != "file":
        return "kind", f"is {_KINDS[entry.kind]} and not a regular file"
    size = row.size.lstrip("0") or row.size[-1:]
    if size and size != str(entry.size):
        return "edited", f"has {entry.size} bytes where RECORD says {shown(row.size, 20)}"
    algorithm = algorithm_of(row.hash)
    if algorithm is None:
        return None
    digest = contents.hash_of(entry, algorithm)
    if digest is None:
        return "unreadable", "cannot be read"
    return None if same_hash(digest, row.hash) else ("edited", "does not have the content that RECORD says")


def _executable(manifest: Manifest, item: Distribution, path: str, known: Known) -> bool | None:
    """Whether a file is one to execute; None where nothing says so."""
    if path.startswith(f"{manifest.interpreter.schemes['scripts']}/"):
        return True
    if path.rpartition("/")[0] == item.dist_info and path.rpartition("/")[2] in plan.GENERATED:
        return False
    return known.executable.get(item.key.partition("+")[0], {}).get(path)


def _place(seen: Seen, path: str) -> str:
    return f"{seen.place}: {path}"


# -- what siteswap itself puts there --------------------------------------------------------------


def _judge_own(found: Judged, known: Known, access: Access) -> None:
    seen, manifest = found.seen, found.manifest
    launchers = {f"bin/{name}" for name in prefix.python_names(manifest.interpreter)}
    # Another version of siteswap puts other files there: those can only be looked at from outside.
    same_version = f"siteswap = {known.version}\n".encode() in known.read.get("pyvenv.cfg", b"")
    other_version = b"\nsiteswap = " in known.read.get("pyvenv.cfg", b"") and not same_version
    told: set[tuple[int, int]] = set()  # the launcher has several names
    for path in prefix.names(manifest.interpreter):
        entry = seen.files.get(path)
        executable = path in launchers
        if entry is not None and entry.inode in told:
            continue
        if entry is not None:
            told.add(entry.inode)
        if entry is None:
            _own(found, path, "is missing")
        elif entry.kind != "file":
            _own(found, path, f"is {_KINDS[entry.kind]} and not a regular file", Kind.LINK)
        elif path not in known.read:
            _own(found, path, "cannot be read")
        elif executable and not _starts(known.read[path], known.launchers):
            _own(found, path, "is not a launcher of siteswap's", shared=_sharing(found, path, known))
        elif not executable and not other_version and known.read[path] != known.own[path]:
            text = f"is not what siteswap {known.version} puts there"
            _own(found, path, text, shared=_sharing(found, path, known))
        elif not known.read[path]:
            _own(found, path, "is empty", shared=_sharing(found, path, known))
        elif entry.mode != access.file(executable):
            _own(found, path, f"has mode {entry.mode:03o}, not {access.file(executable):03o}", Kind.MODE)
    if manifest.interpreter.lib64 and known.links.get("lib64") != "lib":
        _own(found, "lib64", "is not the link to lib that it should be", Kind.LINK)
    _judge_corner(found, known)


def _own(found: Judged, path: str, text: str, kind: Kind = Kind.OWN, **more: object) -> None:
    found.own = True
    found.add(kind, f"{path} {text}", path=path, **more)


def _sharing(found: Judged, path: str, known: Known) -> tuple[str, ...]:
    return known.contents.sharing(found.seen.files[path], _place(found.seen, path))


def _judge_corner(found: Judged, known: Known) -> None:
    seen, manifest = found.seen, found.manifest
    if known.links.get(".generation/python") != manifest.interpreter.executable:
        text = f"does not lead to the base interpreter {manifest.interpreter.executable}"
        _own(found, ".generation/python", text, Kind.LINK)
    lease = seen.corner.get("lease")
    if lease is None or lease.kind != "file":
        _own(found, ".generation/lease", "is missing: nothing can start in this generation", Kind.LEASE)
    listed = known.read.get(".generation/directories")
    if listed is None:
        _own(found, ".generation/directories", "is missing, or cannot be read")
    else:
        _judge_list(found, listed.decode(errors="replace").split("\n"))
    if seen.lock is None:
        _own(found, ".generation/pylock.toml", "is missing, or is no lock file", Kind.LOCK_FILE)
    else:
        lacking = lost.lacking(seen.lock, manifest.distributions, manifest.interpreter)
        if lacking:
            text = f"does not name what is installed of {', '.join(lacking)}"
            _own(found, ".generation/pylock.toml", text, Kind.LOCK_FILE)


def _judge_list(found: Judged, listed: list[str]) -> None:
    ours = found.records.keys() - {*found.drift.removed, *(item.name for item in found.drift.foreign)}
    needed = {path.rpartition("/")[0] for name in ours for path in found.records[name].paths}
    if not listed or listed[0] != "" or not needed - {""} <= {*listed}:
        _own(found, ".generation/directories", "does not list every directory")
    for path in listed:
        # Further down, an empty one may have gone with what another tool removed.
        if path and "/" not in path and path not in found.seen.directories:
            _own(found, path, "is missing, a directory")


def _starts(content: bytes, launchers: Sequence[bytes]) -> bool:
    """Whether a file is a launcher: one that this siteswap makes, or a whole one that another built."""
    if content in launchers:
        return True
    if content.startswith(b"#!/bin/sh\n"):
        return content.startswith(launchers[-1][:200])
    if not content.startswith(b"\x7fELF\x02\x01") or b"siteswap: " not in content:
        return False
    table, size, count = (
        int.from_bytes(content[at : at + n], "little") for at, n in ((40, 8), (58, 2), (60, 2))
    )
    return 0 < table + size * count <= len(content)


# -- directories, and what belongs to nobody ------------------------------------------------------


def _judge_directories(found: Judged, owner: Mapping[str, str], access: Access) -> None:
    ours = {""}
    for path in (*owner, *prefix.names(found.manifest.interpreter)):
        parent = path.rpartition("/")[0]
        while parent and parent not in ours:
            ours.add(parent)
            parent = parent.rpartition("/")[0]
    for path in sorted(ours - {""}):
        entry = found.seen.directories.get(path)
        if entry is not None and entry.mode & 0o777 != access.directory:
            text = f"has mode {entry.mode & 0o777:03o}, not {access.directory:03o}"
            _own(found, path, text, Kind.MODE)


_NOBODYS = frozenset({"lib64", ".lock"})
"""Names at the top that are nobody's content; uv leaves `.lock` behind."""


def _strays(seen: Seen, manifest: Manifest, owner: Mapping[str, str]) -> set[str]:
    """Files that belong to no distribution; those of a .dist-info that cannot be read are not among them."""
    own = {*prefix.names(manifest.interpreter), *_NOBODYS}
    broken = [item.dist_info for item in manifest.distributions]
    return {
        path
        for path in seen.files
        if path not in owner and path not in own and path.rpartition("/")[0] not in broken
    }


def _tell_drift(found: Judged) -> None:
    replaced = {item.name for item in found.drift.foreign}
    for item in found.drift.foreign:
        text = f"another tool installed {item.title}"
        found.note(Kind.DRIFT, text, Severity.NOTE, distribution=item.name)
    for name in found.drift.removed:
        if name not in replaced:
            found.note(Kind.DRIFT, f"another tool removed {name}", Severity.NOTE, distribution=name)
    strays = found.drift.strays
    if strays:
        more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
        text = f"files of no distribution: {', '.join(map(shown, strays[:3]))}{more}"
        found.note(Kind.DRIFT, text, Severity.NOTE)
