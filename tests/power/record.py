"""The record of a disk, and what a power cut would leave of it.

A flush that was answered makes everything before it durable. Of what was
written after the last flush a power cut leaves any part, in any order, each
write whole or torn at the boundaries of what a disk writes at once.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from power.recorder import ENTRY, FLUSH, MARK, WRITE


@dataclass(frozen=True)
class Entry:
    """One entry of a record."""

    kind: bytes
    offset: int
    """On the disk."""
    size: int
    where: int
    """Of the content, in the record."""


@dataclass(frozen=True, order=True)
class Cut:
    """A power cut: the first `position` entries of the record have happened."""

    position: int
    left: str
    """Of the writes that no flush has covered: "none", "all", or "some"."""
    seed: int = 0


class Record:
    """A record that was read."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self.entries: list[Entry] = []
        offset = 0
        while offset < len(self._content):
            kind, start, size = ENTRY.unpack_from(self._content, offset)
            offset += ENTRY.size
            self.entries.append(Entry(kind, start, size, offset))
            offset += size

    def content(self, entry: Entry) -> bytes:
        """What was written."""
        return self._content[entry.where : entry.where + entry.size]

    def marks(self) -> dict[str, int]:
        """The position right after each mark."""
        return {
            self.content(entry).decode(): index + 1
            for index, entry in enumerate(self.entries)
            if entry.kind == MARK
        }

    def flushes(self, begin: int, end: int) -> list[int]:
        """The positions right before flushes that something was written for."""
        found, written = [], False
        for index in range(begin, end):
            kind = self.entries[index].kind
            written |= kind == WRITE
            if kind == FLUSH and written:
                found.append(index)
                written = False
        return found

    def pending(self, position: int) -> list[Entry]:
        """What was written before `position` and after the last flush before it."""
        found: list[Entry] = []
        for entry in reversed(self.entries[:position]):
            if entry.kind == FLUSH:
                break
            if entry.kind == WRITE:
                found.append(entry)
        return found[::-1]

    def survivors(self, cut: Cut, atomic: int) -> Iterator[tuple[int, bytes]]:
        """What of the pending writes a power cut leaves: (offset, content) each."""
        chance = random.Random(f"{cut.position} {cut.seed}")
        share = chance.choice((0.1, 0.5, 0.9))
        size = atomic if chance.random() < 0.5 else None
        for entry in self.pending(cut.position) if cut.left != "none" else ():
            content = self.content(entry)
            if cut.left == "all":
                yield entry.offset, content
                continue
            for start in range(0, entry.size, size or entry.size):
                if chance.random() < share:
                    yield entry.offset + start, content[start : start + (size or entry.size)]


class Platter:
    """The disk as power cuts at later and later moments leave it."""

    def __init__(self, image: Path, work: Path, record: Record) -> None:
        """`image` is what the disk was at first; a file in `work` is what it is."""
        self._file = os.open(work / "platter", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _copy_sparsely(image, self._file)
        self._record = record
        self._done = 0

    def close(self) -> None:
        """Forget it."""
        os.close(self._file)

    def after(self, cut: Cut, atomic: int, path: Path) -> None:
        """Write what a cut leaves to a new file; cuts must come in order of their position."""
        durable = 0
        for index in range(cut.position, 0, -1):
            if self._record.entries[index - 1].kind == FLUSH:
                durable = index
                break
        for entry in self._record.entries[self._done : durable]:
            if entry.kind == WRITE:
                os.pwrite(self._file, self._record.content(entry), entry.offset)
        self._done = max(self._done, durable)
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy_sparsely(self._file, target)
            for offset, content in self._record.survivors(cut, atomic):
                os.pwrite(target, content, offset)
        finally:
            os.close(target)


def _copy_sparsely(image: Path | int, target: int) -> None:
    source = os.open(image, os.O_RDONLY | os.O_CLOEXEC) if isinstance(image, Path) else os.dup(image)
    try:
        size = os.fstat(source).st_size
        os.ftruncate(target, size)
        end = 0
        while end < size:
            try:
                begin = os.lseek(source, end, os.SEEK_DATA)
            except OSError:
                return  # nothing but holes from here on
            end = os.lseek(source, begin, os.SEEK_HOLE)
            while begin < end:
                begin += os.pwrite(target, os.pread(source, min(end - begin, 1 << 20), begin), begin)
    finally:
        os.close(source)
