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
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem

INDEX_VERSION = 1


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
        path = self.root / "wheels" / sha256
        try:
            data = json.loads(self.fs.read(path / "index.json"))
            if data["format"] != INDEX_VERSION:
                return None
            data["files"] = tuple(File(*row) for row in data["files"])
            data["scripts"] = tuple((row[0], row[1], row[2], row[3]) for row in data["scripts"])
            data["requires"] = tuple(data["requires"])
            return Entry(path, Index(**data))
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, IndexError):
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
        self.fs.barrier(self.root)
        self.fs.make_directory(self.root / "wheels", parents=True)
        for path, sha256 in incoming:
            final = self.root / "wheels" / sha256
            if self.find(sha256) is None:
                self.fs.remove_tree(final)  # an entry of another format, or a damaged one
                try:
                    self.fs.rename(path, final)
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
        for name, _ in self.fs.entries(self.root):
            doomed = self.fs.free_name(self.root, f"{name}.pruned")
            self.fs.rename(self.root / name, doomed)
            self.fs.remove_tree(doomed)
        return total


def default_root() -> Path:
    """Where the user's cache is: SITESWAP_CACHE_DIR, else the platform's directory for caches."""
    given = os.environ.get("SITESWAP_CACHE_DIR")
    return Path(given).absolute() if given else platformdirs.user_cache_path("siteswap")


def open_cache(root: Path | None = None) -> Cache:
    """The user's cache. Raises SiteswapError (system) where it cannot be made."""
    path = root or default_root()
    fs = FileSystem()
    try:
        fs.make_directory(path, parents=True)
    except OSError as error:
        raise SiteswapError(
            Kind.SYSTEM,
            f"the cache directory {path} cannot be made: {error.strerror}",
            hint="name another with SITESWAP_CACHE_DIR",
        ) from error
    return Cache(path, fs)
