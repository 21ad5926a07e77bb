"""What files really hold: each inode is read once, whatever generations and cache entries share it."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from siteswap import process
from siteswap.fs import Entry, FileSystem
from siteswap.progress import Progress

Inode = tuple[int, int]

_PIECE = 1 << 20
_THREADS = 8
_PORTION = 64
"""Files that one thread takes at a time."""


class Contents:
    """Hashes of files, and where content of a hash is to be had."""

    def __init__(self, fs: FileSystem, progress: Progress) -> None:
        self._fs = fs
        self._progress = progress
        self._hashes: dict[tuple[Inode, str], str | None] = {}
        self._places: dict[Inode, list[str]] = {}
        self._copies: dict[str, list[Path]] = {}

    def read(self, files: Iterable[tuple[Path, Entry, str]]) -> None:
        """Hash those of the files, (path, entry, algorithm) each, whose inode was not hashed yet."""
        fresh: dict[tuple[Inode, str], Path] = {}
        for path, entry, algorithm in files:
            key = (entry.inode, algorithm)
            if key not in self._hashes:
                fresh.setdefault(key, path)
        work = list(fresh.items())
        portions = [work[start : start + _PORTION] for start in range(0, len(work), _PORTION)]

        def one(portion: list[tuple[tuple[Inode, str], Path]]) -> list[str | None]:
            found = [self._hash(path, algorithm) for (_, algorithm), path in portion]
            self._progress.step(len(portion))
            return found

        results = process.parallel(one, portions, min(_THREADS, os.cpu_count() or 1))
        for portion, hashes in zip(portions, results, strict=True):
            for (key, path), digest in zip(portion, hashes, strict=True):
                self._hashes[key] = digest
                if digest is not None:
                    self._copies.setdefault(digest, []).append(path)

    def hash_of(self, entry: Entry, algorithm: str) -> str | None:
        """As RECORD writes it; None where the file could not be read, or was not yet."""
        return self._hashes.get((entry.inode, algorithm))

    def copy_of(self, digest: str) -> Path | None:
        """A file that had that very content when it was read."""
        return next(iter(self._copies.get(digest, ())), None)

    def forget(self, root: Path) -> None:
        """Take no copies from below `root`: it is about to go."""
        for paths in self._copies.values():
            paths[:] = [path for path in paths if not path.is_relative_to(root)]

    def remember(self, entry: Entry, place: str) -> None:
        """Note that a place has that inode."""
        places = self._places.setdefault(entry.inode, [])
        if place not in places:
            places.append(place)

    def sharing(self, entry: Entry, place: str) -> tuple[str, ...]:
        """Other places that have the very same file."""
        return tuple(other for other in self._places.get(entry.inode, ()) if other != place)

    def _hash(self, path: Path, algorithm: str) -> str | None:
        digest = hashlib.new(algorithm, usedforsecurity=False)
        try:
            with self._fs.open(path) as stream:
                while piece := stream.read(_PIECE):
                    digest.update(piece)
        except OSError:
            return None
        return f"{algorithm}={encoded(digest.digest())}"


def encoded(digest: bytes) -> str:
    """A digest as RECORD writes it."""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def algorithm_of(field: str) -> str | None:
    """The kind of hash in a row of RECORD; None where there is nothing to compare."""
    name, sign, _ = field.partition("=")
    try:
        # The shake family has digests of any length, and RECORD does not say which.
        return name if sign and hashlib.new(name, usedforsecurity=False).digest_size else None
    except (ValueError, TypeError):
        return None


def same_hash(one: str, other: str) -> bool:
    """Whether two hashes are one, padded or not."""
    return one.rstrip("=") == other.rstrip("=")
