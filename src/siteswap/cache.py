"""The user's cache of unpacked wheels, by the hash of the wheel; shared between environments.

    CACHE/wheels/<sha256>/index.json      what is in the entry; an entry has it or is not there
    CACHE/wheels/<sha256>/<scheme>/…      the wheel's files, by installation scheme
    CACHE/built/<digest>                  which wheel was built from a source
    CACHE/incoming/…                      being made; removed when its maker is gone

Safe to delete at any time: environments hold links of their own. An entry gets
its final name only after its content is durable, so an entry that is there after
a power cut is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from siteswap.archive import check_path
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import Access, FileSystem, access_of
from siteswap.opening import weakness

INDEX_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SCHEMES = ("purelib", "platlib", "scripts", "data", "headers")


@dataclass(frozen=True)
class File:
    """One file of an unpacked wheel."""

    scheme: str
    """purelib, platlib, scripts, data or headers."""
    path: str
    """Relative to the scheme's directory."""
    hash: str
    """As in RECORD: "sha256=<urlsafe base64>"."""
    size: int
    executable: bool


@dataclass(frozen=True)
class Index:
    """What an unpacked wheel holds."""

    sha256: str
    name: str
    version: str
    root: str
    """Scheme of the archive's root: purelib or platlib."""
    dist_info: str
    """Name of the .dist-info directory."""
    requires: tuple[str, ...]
    requires_python: str | None
    files: tuple[File, ...]
    scripts: tuple[tuple[str, str, str, str], ...]
    """Entry points that get a program: name, module, attribute, "console" or "gui"."""
    shared_mode: int
    """The bits for group and other that the files were made with."""
    format: int = INDEX_VERSION


@dataclass(frozen=True)
class Entry:
    """An unpacked wheel in the cache."""

    path: Path
    index: Index


class Cache:
    """One cache directory. Several processes may use it at once: entries appear by rename."""

    def __init__(self, root: Path, fs: FileSystem) -> None:
        self.root = root
        self.fs = fs

    def find(self, sha256: str) -> Entry | None:
        """The entry of a wheel, or None when there is none that can be used."""
        if not _SHA256.match(sha256):
            return None  # a lock may say anything, and this becomes a path
        path = self.root / "wheels" / sha256
        try:
            data = json.loads(self.fs.read(path / "index.json"))
            if data["format"] != INDEX_VERSION:
                return None
            data["files"] = tuple(File(*row) for row in data["files"])
            data["scripts"] = tuple((row[0], row[1], row[2], row[3]) for row in data["scripts"])
            data["requires"] = tuple(data["requires"])
            index = Index(**data)
            _validate(index, sha256)
            return Entry(path, index)
        except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError, AttributeError):
            return None  # not there, or damaged: it will be made anew

    def incoming(self, stem: str) -> Path:
        """A path of ours to make something at. Its directory exists; what crashed makers left is cleared."""
        directory = self.root / "incoming"
        self.fs.make_directory(directory, parents=True)
        return self.fs.free_name(directory, stem)

    def clear_incoming(self) -> None:
        """Remove what processes that are gone left behind."""
        for name, _ in self.fs.entries(self.root / "incoming"):
            pid = f"..{name}".rsplit(".", 2)[-2]  # what has another form is nobody's
            if not pid.isdigit() or self.fs.entry(Path("/proc", pid)) is None:
                self.fs.remove_tree(self.root / "incoming" / name)

    def seal(self, path: Path, index: Index) -> None:
        """Write the index of an incoming entry; `publish` makes it findable."""
        data = asdict(index)
        data["files"] = [[row.scheme, row.path, row.hash, row.size, row.executable] for row in index.files]
        self.fs.write(path / "index.json", json.dumps(data).encode())

    def publish(self, incoming: list[tuple[Path, str]]) -> None:
        """Give incoming entries their final names: (path, sha256) each. Durable content, atomic names.

        One barrier for all of them comes first: a name must not be durable before what it names.
        """
        if not incoming:
            return
        self.fs.barrier(self.root)  # K2
        self.fs.make_directory(self.root / "wheels", parents=True)
        for path, sha256 in incoming:
            final = self.root / "wheels" / sha256
            if self.find(sha256) is None:
                self.discard(sha256)  # an entry of another format, or a damaged one
                try:
                    self.fs.rename(path, final)  # K3
                    continue
                except OSError:
                    if self.find(sha256) is None:
                        raise
            self.fs.remove_tree(path)  # somebody else was faster with the same content

    def discard(self, sha256: str) -> None:
        """Remove an entry that turned out to be damaged."""
        path = self.root / "wheels" / sha256
        if self.fs.entry(path) is not None:
            doomed = self.incoming("damaged")
            self.fs.rename(path, doomed)
            # The name goes first, for good: else a power cut could bring it back with half of the content.
            self.fs.sync_directory(path.parent)
            self.fs.remove_tree(doomed)

    def built(self, source: str) -> str | None:
        """The hash of the wheel that was built from `source` (an identity with its interpreter)."""
        try:
            return self.fs.read_text(self._built_path(source)).strip()
        except FileNotFoundError:
            return None

    def remember_built(self, source: str, sha256: str) -> None:
        """Note which wheel came out of building `source`."""
        self.fs.make_directory(self.root / "built", parents=True)
        self.fs.replace(self._built_path(source), sha256.encode())

    def _built_path(self, source: str) -> Path:
        return self.root / "built" / hashlib.sha256(source.encode()).hexdigest()

    def size(self) -> int:
        """Bytes of the files in the cache."""
        total = 0
        for relative, kind in self.fs.walk(self.root):
            found = self.fs.entry(self.root / relative) if kind == "file" else None
            total += found.size if found else 0
        return total

    def prune(self) -> int:
        """Remove everything; returns the bytes of what was removed. Environments are not affected."""
        total = self.size()
        doomed = []
        for name, _ in self.fs.entries(self.root):
            if name != "incoming":
                doomed.append(self.incoming(name))
                self.fs.rename(self.root / name, doomed[-1])
        # The names go first, for good: else a power cut could bring an entry back with half of its content.
        # What is left when we are killed lies where the next command that fills the cache clears.
        self.fs.sync_directory(self.root)
        for path in doomed:
            self.fs.remove_tree(path)
        self.clear_incoming()  # not what running commands are making there
        self.fs.remove_empty_directories(self.root, ["incoming"])
        return total


def _validate(index: Index, sha256: str) -> None:
    """Refuse an index that no wheel of that hash can have. Raises ValueError."""
    if index.sha256 != sha256 or index.root not in ("purelib", "platlib"):
        raise ValueError(index.sha256)
    for name in (index.dist_info, *(script[0] for script in index.scripts)):
        check_path(name)
        if "/" in name:
            raise ValueError(name)
    for file in index.files:
        if file.scheme not in _SCHEMES:
            raise ValueError(file.scheme)
        check_path(file.path)


def default_root() -> Path:
    """Where the user's cache is: SITESWAP_CACHE_DIR, else the platform's directory for caches."""
    given = os.environ.get("SITESWAP_CACHE_DIR")
    if given:
        return Path(given).absolute()
    import platformdirs

    return platformdirs.user_cache_path("siteswap")


def open_cache(root: Path | None = None) -> Cache:
    """The user's cache. Raises SiteswapError (system) where it cannot be made, or others may write to it.

    What is in it becomes part of environments without being unpacked again.
    """
    path = root or default_root()
    named = root is not None or "SITESWAP_CACHE_DIR" in os.environ
    private = FileSystem(Access(os.geteuid(), os.getegid(), 0))
    try:
        why = weakness(private, (), FileSystem().resolve(path).parents)
    except PermissionError:
        why = None  # then nothing can be made there either
    if why is not None and not named:
        return _passing(private)  # as with sudo, which may leave HOME as it was
    if why is not None:
        raise SiteswapError(
            Kind.SYSTEM,
            f"the cache directory {path} could be exchanged by others: {why}",
            hint="name another with SITESWAP_CACHE_DIR",
        )
    try:
        private.make_directory(path, parents=True)
        found = access_of(path)
    except OSError as error:
        if not named and not private.may_write(Path(os.path.expanduser("~"))):
            return _passing(private)  # a service's user, without a home
        raise SiteswapError(
            Kind.SYSTEM,
            f"the cache directory {path} cannot be made: {error.strerror}",
            hint="name another with SITESWAP_CACHE_DIR",
        ) from error
    if found.uid != os.geteuid() or found.shared & 0o022:
        whose = "may be written to by others" if found.uid == os.geteuid() else "belongs to another user"
        raise SiteswapError(
            Kind.SYSTEM,
            f"the cache directory {path} {whose}, who could change what is installed",
            hint="chmod go-w it if it is yours, or name another with SITESWAP_CACHE_DIR",
        )
    return Cache(path, FileSystem())


def _passing(fs: FileSystem) -> Cache:
    """A cache for as long as this process lives."""
    return Cache(fs.directory_until_exit(), FileSystem())
