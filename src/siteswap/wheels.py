"""From artifacts to unpacked wheels in the cache: fetch or build, verify, unpack.

`installer` reads a wheel and walks through it (PyPA binary distribution format);
it writes to the destination below, which puts each file under its scheme in a
cache entry, hashes it on the way, and holds it against RECORD.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import installer
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, RecordEntry, parse_record_file
from installer.sources import WheelContentElement
from installer.sources import WheelFile as AnyWheelFile
from packaging.metadata import parse_email
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from siteswap import process
from siteswap.cache import Cache, Entry, File, Index
from siteswap.errors import Kind, SiteswapError
from siteswap.fetch import Fetcher
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact
from siteswap.manifest import Interpreter
from siteswap.progress import Progress as Whole
from siteswap.sources import Builder

if TYPE_CHECKING:
    from installer.scripts import ScriptSection
    from installer.utils import Scheme

_THREADS = 8
_CHUNK = 1 << 20
_WEAK = frozenset({"md5", "sha1", "sha224"})
"""Hashes that RECORD may not use (PyPA binary distribution format)."""


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
) -> dict[str, Entry]:
    """Unpacked wheels of all artifacts, by name, in the cache and durable there.

    Downloads and unpacking run in parallel. Sources whose identity is in
    `fresh` are built even if a wheel of theirs is remembered. Raises
    SiteswapError (requirement) for the first that fails; the others are stopped.
    """
    cache.clear_incoming()
    fetcher = Fetcher(cache.fs, options)
    builder = Builder(cache.fs, fetcher, interpreter, options)
    work = _Work(cache, fetcher, builder, interpreter, scratch, progress, fresh)
    try:
        hashes = process.parallel(work.one, artifacts, _THREADS, work.stop)
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
    ) -> None:
        self.cache = cache
        self.fetcher = fetcher
        self.builder = builder
        self.interpreter = interpreter
        self.scratch = scratch
        self.progress = progress
        self.fresh = fresh
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
        source = f"{artifact.identity} {self.interpreter.cache_tag} {self.interpreter.tags[0]}"
        repeatable = artifact.kind != "directory"
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
    for a path that would leave its scheme, and for a file that differs from RECORD.
    """
    try:
        parse_wheel_filename(wheel.name)
        with WheelFile.open(wheel) as source:
            source.validate_record(validate_contents=False)
            destination = _CacheDestination(fs, target, source)
            installer.install(source, destination, {})
            destination.require_complete()
            metadata, _ = parse_email(source.read_dist_info("METADATA"))
            return Index(
                sha256=sha256,
                name=metadata.get("name", source.distribution),
                version=metadata.get("version", source.version),
                root=destination.root,
                dist_info=source.dist_info_dir,
                requires=tuple(metadata.get("requires_dist", ())),
                requires_python=metadata.get("requires_python"),
                files=tuple(destination.files),
                scripts=tuple(destination.scripts),
                shared_mode=fs.access.shared,
            )
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


class WheelFile(AnyWheelFile):
    """A wheel without the byte-code in it.

    `installer` leaves that out too, but with a warning each; and warnings are the
    whole process's, where several threads cannot turn them off and on again.
    """

    def get_contents(self) -> Iterator[WheelContentElement]:
        """What `installer` is to install."""
        for element in super().get_contents():
            if "__pycache__" not in element[0][0].split("/")[:-1]:
                yield element


class _CacheDestination(WheelDestination):
    """Where `installer` writes: a directory for each scheme below one target."""

    def __init__(self, fs: FileSystem, target: Path, source: AnyWheelFile) -> None:
        self._fs = fs
        self._target = target
        self._data_dir = source.data_dir
        lines = source.read_dist_info("RECORD").splitlines()
        self._expected = {path: (hash_, size) for path, hash_, size in parse_record_file(lines)}
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
        expected, expected_size = self._expected.get(archived, ("", ""))
        self._unseen.discard(archived)
        algorithm = expected.partition("=")[0] or "sha256"
        if algorithm in _WEAK:
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
        if expected_size and int(expected_size) != size:
            raise ValueError(f"{archived} does not have the size that RECORD gives")
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
    """Refuse what would leave its directory, or could not be listed and typed safely."""
    parts = path.split("/")
    bad = any(part in ("", ".", "..") for part in parts) or "\\" in path or (single and len(parts) > 1)
    if bad or any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise ValueError(f"{what} has a path that is not allowed")


def _is_unchecked(path: str, dist_info: str) -> bool:
    """Rows of RECORD that need not have a file here: its own, signatures', byte-code's, directories'."""
    own = {f"{dist_info}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s")}
    return path in own or path.endswith((".pyc", "/"))


def _root_is_pure(source: AnyWheelFile) -> bool:
    for line in source.read_dist_info("WHEEL").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "root-is-purelib":
            return value.strip().lower() == "true"
    return False


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
