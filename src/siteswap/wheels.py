"""From artifacts to unpacked wheels in the cache: fetch or build, verify, unpack.

`installer` reads a wheel and walks through it (PyPA binary distribution format);
it writes to the destination below, which puts each file under its scheme in a
cache entry, hashes it on the way, and holds it against RECORD.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import stat
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import installer
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, RecordEntry, parse_record_file
from installer.sources import WheelContentElement
from installer.sources import WheelFile as AnyWheelFile
from installer.utils import parse_metadata_file
from packaging.metadata import RawMetadata, parse_email
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from siteswap import archive, process
from siteswap.cache import Cache, Entry, File, Index
from siteswap.confinement import Confinement, Terms
from siteswap.errors import Kind, SiteswapError
from siteswap.fetch import Fetcher
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact
from siteswap.manifest import Interpreter
from siteswap.progress import Progress as Whole
from siteswap.sources import Builder
from siteswap.ways import ISOLATED, Way, state_of

if TYPE_CHECKING:
    from installer.scripts import ScriptSection
    from installer.utils import Scheme

_THREADS = 8
_CHUNK = 1 << 20
_STRONG = frozenset({"sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "blake2b", "blake2s"})
"""Hashes that RECORD may use: SHA-256 or better (PyPA binary distribution format)."""
_LARGEST_TEXT = 64 << 20
"""Bytes of the largest file of a .dist-info that is read whole."""


@dataclass(frozen=True)
class Progress:
    """What the caller is told while wheels are obtained."""

    expect: Callable[[str, int], None]
    """(title, bytes or 0): a download begins."""
    bytes: Callable[[int], None]
    """So many more bytes are here."""
    building: Callable[[str], None]
    """A source is being built."""
    unpacked: Callable[[str], None]
    """A wheel is unpacked."""

    @staticmethod
    def of(whole: Whole) -> Progress:
        """The part of a command's progress that is about wheels."""
        return Progress(whole.expect, whole.bytes, whole.building, whole.unpacked)


def obtain(
    artifacts: Sequence[Artifact],
    cache: Cache,
    interpreter: Interpreter,
    scratch: Path,
    options: Sequence[str],
    progress: Progress,
    *,
    fresh: Collection[str] = (),
    way: Way = ISOLATED,
) -> dict[str, Entry]:
    """Unpacked wheels of all artifacts, by name, in the cache and durable there.

    Downloads and unpacking run in parallel. Sources whose identity is in
    `fresh` are built even if a wheel of theirs is remembered; `way` says how. Raises
    SiteswapError (requirement) for the first that fails; the others are stopped.
    """
    cache.clear_incoming()
    fetcher = Fetcher(cache.fs, options)
    # No limits: a build is a compiler's work, and may use what its user may.
    with Confinement(Terms(None, umask=-1, memory=0)) as place:
        builder = Builder(cache.fs, fetcher, interpreter, options, place, way)
        work = _Work(cache, fetcher, builder, interpreter, scratch, progress, fresh, way)

        def stop() -> None:
            work.stop()
            place.stop()

        try:
            hashes = process.parallel(work.one, artifacts, _THREADS, stop)
        except BaseException:
            for path, _ in work.incoming:
                cache.fs.remove_tree(path)
            raise
    cache.publish(work.incoming)
    for source, sha256 in work.built:
        cache.remember_built(source, sha256)
    found = {}
    for artifact, sha256 in zip(artifacts, hashes, strict=True):
        entry = cache.find(sha256)
        if entry is None:
            raise SiteswapError(
                Kind.SYSTEM, f"the cache lost {artifact.name} while it was filled", hint="try again"
            )
        found[artifact.name] = entry
    return found


def source_key(fs: FileSystem, artifact: Artifact, interpreter: Interpreter, way: Way) -> str:
    """What the wheel of a source is remembered by. A directory counts as it is now."""
    parts = [artifact.identity, interpreter.cache_tag, interpreter.tags[0], *way.settings]
    if artifact.kind == "directory":
        parts += [artifact.subdirectory or "", state_of(fs, artifact)]
    return " ".join(parts)


class _Work:
    """What one call of `obtain` shares between its threads."""

    def __init__(
        self,
        cache: Cache,
        fetcher: Fetcher,
        builder: Builder,
        interpreter: Interpreter,
        scratch: Path,
        progress: Progress,
        fresh: Collection[str],
        way: Way,
    ) -> None:
        self.cache = cache
        self.fetcher = fetcher
        self.builder = builder
        self.interpreter = interpreter
        self.scratch = scratch
        self.progress = progress
        self.fresh = fresh
        self.way = way
        self.incoming: list[tuple[Path, str]] = []
        self.built: list[tuple[str, str]] = []
        self.stopped = False

    def one(self, artifact: Artifact) -> str:
        """The sha256 of the artifact's wheel, which is in the cache or incoming afterwards."""
        if artifact.kind != "wheel":
            return self._from_source(artifact)
        known = artifact.hashes.get("sha256")
        if known and self.cache.find(known):
            return known
        self.progress.expect(artifact.title, artifact.size or 0)
        directory = self.cache.incoming("download")
        self.cache.fs.make_directory(directory)
        try:
            wheel = directory / artifact.filename
            sha256 = self.fetcher.fetch(artifact, wheel, self._tick)["sha256"]
            self._unpack(wheel, sha256, artifact)
        finally:
            self.cache.fs.remove_tree(directory)
        return sha256

    def _from_source(self, artifact: Artifact) -> str:
        source = source_key(self.cache.fs, artifact, self.interpreter, self.way)
        repeatable = self.way.repeatable
        known = self.cache.built(source) if repeatable and artifact.identity not in self.fresh else None
        if known and self.cache.find(known):
            return known
        self.progress.building(artifact.title)
        directory = self.scratch / f"build-{artifact.name}"
        self.cache.fs.make_directory(directory)
        try:
            wheel = self.builder.build(artifact, directory)
            sha256 = _digest(self.cache.fs, wheel)
            self._unpack(wheel, sha256, artifact)
        finally:
            self.cache.fs.remove_tree(directory)
        if repeatable:
            self.built.append((source, sha256))
        return sha256

    def _unpack(self, wheel: Path, sha256: str, artifact: Artifact) -> None:
        if self.cache.find(sha256) is not None:
            return
        path = self.cache.incoming(sha256)
        self.cache.fs.make_directory(path)
        self.incoming.append((path, sha256))
        index = unpack(self.cache.fs, wheel, sha256, path)
        if canonicalize_name(index.name) != artifact.name or not _same_version(
            index.version, artifact.version
        ):
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"{wheel.name} says that it is {index.name} {index.version}, expected {artifact.title}",
                hint="name it by what it is, or name another file",
            )
        self.cache.seal(path, index)
        self.progress.unpacked(artifact.title)

    def stop(self) -> None:
        """Let downloads that are under way end at their next piece."""
        self.stopped = True

    def _tick(self, count: int) -> None:
        if self.stopped:
            raise SiteswapError(Kind.INTERRUPTED, "stopped", hint="run the command again")
        self.progress.bytes(count)


def unpack(fs: FileSystem, wheel: Path, sha256: str, target: Path) -> Index:
    """Unpack a wheel below `target`, by scheme. Neither atomic nor durable: the cache publishes it.

    Raises SiteswapError (requirement) for anything that is not a valid wheel,
    for a path that would leave its scheme, and for a file that differs from RECORD;
    (system) where the disk has no room for it.
    """
    try:
        parse_wheel_filename(wheel.name)
        with fs.open(wheel) as stream:
            members = archive.members(stream)
            archive.check_wheel(members)
            _require_room(fs, wheel, target, members)
            with zipfile.ZipFile(stream) as opened:
                return _unpacked(fs, WheelFile(opened, stream, members), sha256, target)
    except (
        InstallerError, InvalidWheelFilename, zipfile.BadZipFile, KeyError, ValueError,
        configparser.Error, AssertionError,  # what `installer` says of malformed entry points
    ) as error:  # fmt: skip
        issues = getattr(error, "issues", None)
        detail = "\n".join(issues[:10]) if issues else str(error) or "its entry points are malformed"
        raise SiteswapError(
            Kind.REQUIREMENT,
            f"{wheel.name} is not a valid wheel",
            detail=detail,
            hint="nothing of it was installed",
        ) from error


def _unpacked(fs: FileSystem, source: WheelFile, sha256: str, target: Path) -> Index:
    source.validate_record(validate_contents=False)
    source.validate_entry_points()
    name, version, metadata = _identity(source)
    destination = _CacheDestination(fs, target, source)
    installer.install(source, destination, {})
    destination.require_complete()
    return Index(
        sha256=sha256,
        name=name,
        version=version,
        root=destination.root,
        dist_info=source.dist_info_dir,
        requires=tuple(metadata.get("requires_dist", ())),
        requires_python=metadata.get("requires_python"),
        files=tuple(destination.files),
        scripts=tuple(destination.scripts),
        shared_mode=fs.access.shared,
    )


def _require_room(fs: FileSystem, wheel: Path, target: Path, members: Sequence[archive.Member]) -> None:
    needed, free = sum(member.size for member in members), fs.free(target)
    if needed > free:
        raise SiteswapError(
            Kind.SYSTEM,
            f"{wheel.name} needs {needed:,} bytes unpacked, and the disk of {target.parent} has {free:,}",
            hint="make room there, or name another cache with SITESWAP_CACHE_DIR",
        )


def _identity(source: WheelFile) -> tuple[str, str, RawMetadata]:
    """Name and version, on which file name, .dist-info and METADATA agree. Raises ValueError."""
    metadata, _ = parse_email(source.read_dist_info("METADATA"))
    name, version = metadata.get("name"), metadata.get("version")
    if name is None or version is None:
        raise ValueError("METADATA does not say once which name and version this is")
    inside = source.dist_info_dir.removesuffix(".dist-info").partition("-")[2]
    if canonicalize_name(name) != canonicalize_name(source.distribution):
        raise ValueError(f"METADATA says that it is {name}")
    for found in (version, inside):
        if Version(found) != Version(source.version):
            raise ValueError(f"the file's name says version {source.version}, what is in it says {found}")
    return name, version, metadata


class WheelFile(AnyWheelFile):
    """A wheel as `archive` reads it, without the byte-code in it.

    `installer` leaves that out too, but with a warning each; and warnings are the
    whole process's, where several threads cannot turn them off and on again.
    """

    def __init__(self, opened: zipfile.ZipFile, stream: BinaryIO, members: Sequence[archive.Member]) -> None:
        super().__init__(opened)
        self._stream = stream
        self.members = members

    def read_dist_info(self, filename: str) -> str:
        """Content of a file in the .dist-info directory. Raises ValueError."""
        path = f"{self.dist_info_dir}/{filename}"
        member = next((member for member in self.members if member.name == path), None)
        if member is None:
            raise ValueError(f"it has no {path}")
        if member.size > _LARGEST_TEXT:
            raise ValueError(f"{path} is too large: {member.size:,} bytes")
        return b"".join(archive.content(self._stream, member)).decode("utf-8")

    def validate_entry_points(self) -> None:
        """Refuse what `installer` would expand, a few lines to gigabytes. Raises ValueError."""
        if "entry_points.txt" not in self.dist_info_filenames:
            return
        text = self.read_dist_info("entry_points.txt")
        if "%(" in text:
            raise ValueError("entry_points.txt refers to itself with %(…)")

    def get_contents(self) -> Iterator[WheelContentElement]:
        """What `installer` is to install."""
        for member in self.members:
            if member.name.endswith("/") or "__pycache__" in member.name.split("/")[:-1]:
                continue
            pieces = cast("BinaryIO", _Pieces(archive.content(self._stream, member)))
            executable = stat.S_ISREG(member.mode) and bool(member.mode & 0o111)
            yield (member.name, "", ""), pieces, executable


class _Pieces:
    """As much of a stream as `write_file` needs."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int = -1) -> bytes:
        """The next piece, b"" after the last."""
        return next(self._pieces, b"")


class _CacheDestination(WheelDestination):
    """Where `installer` writes: a directory for each scheme below one target."""

    def __init__(self, fs: FileSystem, target: Path, source: WheelFile) -> None:
        self._fs = fs
        self._target = target
        self._data_dir = source.data_dir
        self._expected = _record(source)
        self._unseen = {path for path in self._expected if not _is_unchecked(path, source.dist_info_dir)}
        self._made: set[Path] = set()
        self._seen: set[tuple[str, str]] = set()
        self.root = "purelib" if _root_is_pure(source) else "platlib"
        self.files: list[File] = []
        self.scripts: list[tuple[str, str, str, str]] = []

    def write_script(self, name: str, module: str, attr: str, section: ScriptSection) -> RecordEntry:
        """Entry points become programs in each environment; here they are only noted."""
        _check_path(name, f"entry point {name!r}", single=True)
        self.scripts.append((name, module, attr, section))
        return RecordEntry(name, None, None)

    def write_file(self, scheme: Scheme, path: object, stream: BinaryIO, is_executable: bool) -> RecordEntry:
        """Write one file below its scheme and hold it against RECORD."""
        relative = str(path)
        _check_path(relative, f"file {relative!r}")
        if (scheme, relative) in self._seen:
            raise ValueError(f"file {relative!r} is in the archive twice")
        self._seen.add((scheme, relative))
        archived = relative if scheme == self.root else f"{self._data_dir}/{scheme}/{relative}"
        if archived not in self._expected:
            archived = f"{self._data_dir}/{scheme}/{relative}"  # the root's own scheme may be spelled out too
        if archived not in self._expected and not archived.endswith(_SIGNATURES):
            raise ValueError(f"{archived} is not in RECORD")
        expected, _ = self._expected.get(archived, ("", ""))
        self._unseen.discard(archived)
        algorithm = expected.partition("=")[0] or "sha256"
        if algorithm not in _STRONG:
            raise ValueError(f"RECORD gives {archived} a hash that the format forbids ({algorithm})")
        digests = {name: hashlib.new(name) for name in {"sha256", algorithm}}
        size = 0

        def chunks() -> Iterable[bytes]:
            nonlocal size
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                for digest in digests.values():
                    digest.update(chunk)
                yield chunk

        target = self._target / scheme / relative
        if target.parent not in self._made:
            self._fs.make_directory(target.parent, parents=True)
            self._made.add(target.parent)
        executable = is_executable or scheme == "scripts"
        self._fs.write_stream(target, chunks(), executable=executable)
        if expected and _encode(digests[algorithm].digest()) != expected.partition("=")[2].rstrip("="):
            raise ValueError(f"{archived} does not have the hash that RECORD gives")
        digest = _encode(digests["sha256"].digest())
        self.files.append(File(scheme, relative, f"sha256={digest}", size, executable))
        return RecordEntry(relative, Hash("sha256", digest), size)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """RECORD is written in each environment, with that environment's programs in it."""

    def require_complete(self) -> None:
        """Raise ValueError when RECORD names a file that the archive does not have."""
        if self._unseen:
            raise ValueError(f"{min(self._unseen)} is in RECORD and not in the archive")


def _check_path(path: str, what: str, *, single: bool = False) -> None:
    """Refuse what would leave its directory, or could not be listed and typed safely. Raises ValueError."""
    archive.check_path(path, what)
    if single and "/" in path:
        raise ValueError(f"{what} has a path that is not allowed")


def _record(source: WheelFile) -> Mapping[str, tuple[str, str]]:
    """Hash and size of each file, by RECORD; the sizes are those of the archive. Raises ValueError."""
    sizes = {member.name: member.size for member in source.members}
    found: dict[str, tuple[str, str]] = {}
    for path, hash_, size in parse_record_file(source.read_dist_info("RECORD").splitlines()):
        if found.setdefault(path, (hash_, size)) != (hash_, size):
            raise ValueError(f"{path} is in RECORD twice")
        if size and path in sizes and int(size) != sizes[path]:
            raise ValueError(f"{path} does not have the size that RECORD gives")
    return found


_SIGNATURES = (".dist-info/RECORD.jws", ".dist-info/RECORD.p7s")


def _is_unchecked(path: str, dist_info: str) -> bool:
    """Rows of RECORD that need not have a file here: its own, signatures', byte-code's, directories'."""
    own = {f"{dist_info}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s")}
    return path in own or path.endswith((".pyc", "/"))


def _root_is_pure(source: AnyWheelFile) -> bool:
    """As `installer` has it, which says where each file goes."""
    return bool(parse_metadata_file(source.read_dist_info("WHEEL"))["Root-Is-Purelib"] == "true")


def _same_version(found: str, expected: str | None) -> bool:
    try:
        return expected is None or Version(found) == Version(expected)
    except InvalidVersion:
        return found == expected


def _encode(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _digest(fs: FileSystem, path: Path) -> str:
    digest = hashlib.sha256()
    with fs.open(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
