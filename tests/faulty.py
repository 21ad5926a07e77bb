"""A file system that fails: the real one, which counts what changes the disk, and dies or refuses where told.

Everything is really done, below one root, so whatever siteswap reads is right.
Besides, each elementary operation is put down in a journal (disk.Journal), from
which follows what a disk may hold after a power cut. Operations outside the root
are let through and not counted.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from disk import Fate, Image, Inode, Journal, Operation, Slot, attributes
from siteswap.fs import Access, FileSystem, Lock

_Place = int | str | Path


DEAD = 1 << 30
"""No process has such a number."""


class Crashed(BaseException):
    """The process is dead; nothing may catch this and go on."""


@dataclass(frozen=True)
class Crash:
    """The process is killed at an operation: before it, or in the middle of one that has parts."""

    at: int
    half: bool = False


@dataclass(frozen=True)
class Failure:
    """An operation is refused, and with `lasting` every one from then on."""

    at: int
    number: int
    """As in errno."""
    lasting: bool = False
    half: bool = False
    """Part of what was to be written is there."""

    def __str__(self) -> str:
        often = " from then on" if self.lasting else ""
        return f"{errno.errorcode[self.number]} at operation {self.at}{often}"


class FaultyFileSystem(FileSystem):
    """The real file system below `root`, with a journal, and with one fault at most."""

    _link_threads = 1

    def __init__(
        self,
        root: Path,
        fault: Crash | Failure | None = None,
        *,
        access: Access | None = None,
        skipped: tuple[str, ...] = (),
        after: tuple[Journal, int] | None = None,
    ) -> None:
        """`skipped` are syncs that say they are done and do nothing, by patterns of "fsync directory /path".

        `after` is what another process did, up to an operation at which it was killed: what it left in the
        root is not durable for that.
        """
        super().__init__(access)
        if after is None:
            image, self._known = Image.of(root)
            self.journal = Journal(image)
            self._next = len(self._known)
        else:
            journal, count = after
            self.journal = Journal(journal.start, journal.operations[:count])
            self._known = journal.killed(count).numbers(root)
            self._next = journal.unused()
        self.begun = self.journal.mark()
        """How many operations there were before the first of ours."""
        self.fault = fault
        self.dead = False
        self.struck: list[Operation] = []
        """What failed, in order."""
        self._skipped = skipped
        self._held: list[Lock] = []
        self._guard = threading.RLock()
        self._names = itertools.count(time.monotonic_ns())

    # -- what a test asks ------------------------------------------------------------------------

    def after_power_cut(self, target: Path, fate: Fate, count: int | None = None) -> Image:
        """Build into an empty directory a state that the disk could hold after `count` operations, or now."""
        image = self.journal.cut(self.journal.mark() if count is None else count, fate)
        image.build(target)
        return image

    def bury(self) -> None:
        """Give up the locks of a process that crashed, as the kernel does."""
        for lock in self._held:
            lock.release()

    def held(self) -> list[Lock]:
        """Locks that nobody released."""
        return [lock for lock in self._held if lock.descriptor >= 0]

    # -- bookkeeping -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _step(self, kind: str, what: object, inside: bool = True) -> Iterator[bool]:
        """One operation: dies, fails, or is done; yields whether only half of it is to be."""
        if not inside:
            yield False
            return
        with self._guard:
            if self.dead:
                raise Crashed
            refusal = self._refusal(kind, what)
            half = self.fault is not None and self.fault.half and kind == "write"
            if refusal is None:
                yield False
            elif half:
                self.dead = False  # for the half that is done
                yield True
                self.dead = isinstance(refusal, Crashed)
            if refusal is not None:
                raise refusal

    def _refusal(self, kind: str, what: object) -> BaseException | None:
        """What comes of an operation instead of its being done, or after half of it."""
        index, fault = self.journal.mark(), self.fault
        if isinstance(fault, Crash) and index == fault.at:
            self.dead = True
            return Crashed()
        if isinstance(fault, Failure) and self._strikes(fault, index):
            self.struck.append(Operation(kind, str(what), _code()))
            return OSError(fault.number, os.strerror(fault.number), str(what))
        return None

    def _strikes(self, fault: Failure, index: int) -> bool:
        return index >= fault.at if fault.lasting else index == fault.at and not self.struck

    def _note(self, kind: str, what: str, **more: Any) -> None:
        self.journal.operations.append(Operation(kind, what, _code(), **more))

    def _slot(self, path: str | Path, dir_fd: int | None = None) -> Slot | None:
        """The model's directory and the name in it; None outside the root."""
        head, name = os.path.split(os.fspath(path))
        try:
            found = os.fstat(dir_fd) if dir_fd is not None else os.stat(head or ".")
        except OSError:
            return None  # the operation itself will say what is wrong
        directory = self._known.get((found.st_dev, found.st_ino))
        return None if directory is None else (directory, name)

    def _inode(self, place: _Place, dir_fd: int | None = None) -> int | None:
        """The model's number of what is at a path or behind a descriptor."""
        try:
            found = _status(place, dir_fd)
        except OSError:
            return None
        return self._known.get((found.st_dev, found.st_ino))

    def _last_name(self, path: str | Path, dir_fd: int | None = None) -> tuple[int, int] | None:
        """What loses its last name when this one goes: its real number may be given to something new."""
        try:
            found = _status(path, dir_fd)
        except OSError:
            return None
        last = found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)
        return (found.st_dev, found.st_ino) if last else None

    def _forget(self, real: tuple[int, int] | None) -> None:
        if real is not None:
            self._known.pop(real, None)

    def _added(self, kind: str, path: str | Path, slot: Slot | None, dir_fd: int | None = None) -> None:
        """A new inode has come to be at a path."""
        if slot is None:
            return
        found, number = _status(path, dir_fd), self._next
        self._known[found.st_dev, found.st_ino] = number
        self._next += 1
        made = _about(path, dir_fd)
        if made.kind == "link":
            made = replace(made, content=os.fsencode(os.readlink(path)))
        times = ((slot[0], _parent(path, dir_fd)),)
        self._note(kind, _name(path, dir_fd), sets=((slot, number),), makes=(number, made), times=times)

    def _removed(self, kind: str, path: str | Path, slot: Slot | None, dir_fd: int | None = None) -> None:
        if slot is not None:
            times = ((slot[0], _parent(path, dir_fd)),)
            self._note(kind, _name(path, dir_fd), sets=((slot, None),), times=times)

    def _changed(self, kind: str, place: _Place, number: int | None, dir_fd: int | None = None) -> None:
        if number is not None:
            self._note(kind, _name(place, dir_fd), inode=number, about=_about(place, dir_fd))

    # -- elementary operations -------------------------------------------------------------------

    def _mkdir(self, path: str | Path, mode: int) -> None:
        slot = self._slot(path)
        with self._step("mkdir", path, slot is not None):
            super()._mkdir(path, mode)
            self._added("mkdir", path, slot)

    def _create(self, path: str | Path, *, dir_fd: int | None = None) -> int:
        slot = self._slot(path, dir_fd)
        with self._step("create", path, slot is not None):
            descriptor = super()._create(path, dir_fd=dir_fd)
            self._added("create", path, slot, dir_fd)
        return descriptor

    def _open_or_create(self, path: str | Path, flags: int) -> int:
        slot = self._slot(path)
        new = slot is not None and not os.path.lexists(path)
        with self._step("create", path, new):
            descriptor = super()._open_or_create(path, flags)
            self._added("create", path, slot if new else None)
        return descriptor

    def _write(self, descriptor: int, content: bytes) -> None:
        number = self._inode(descriptor)
        with self._step("write", _name(descriptor), number is not None) as half:
            if half:
                content = content[: len(content) // 2]
            offset = os.fstat(descriptor).st_size
            super()._write(descriptor, content)
            if number is not None:
                about = _about(descriptor)
                self._note("write", _name(descriptor), inode=number, content=(offset, content), about=about)

    def _copy_content(self, source: int, target: int) -> None:
        number = self._inode(target)
        with self._step("write", _name(target), number is not None):
            super()._copy_content(source, target)
            if number is not None:
                content = (0, os.pread(source, os.fstat(source).st_size, 0))
                self._note("write", _name(target), inode=number, content=content, about=_about(target))

    def _truncate(self, descriptor: int) -> None:
        number = self._inode(descriptor)
        with self._step("truncate", _name(descriptor), number is not None):
            super()._truncate(descriptor)
            if number is not None:
                self._note("truncate", _name(descriptor), inode=number, content=(-1, b""))

    def _chmod(self, place: _Place, mode: int, *, dir_fd: int | None = None) -> None:
        number = self._inode(place, dir_fd)
        with self._step("chmod", _name(place, dir_fd), number is not None):
            super()._chmod(place, mode, dir_fd=dir_fd)
            self._changed("chmod", place, number, dir_fd)

    def _chown(self, place: _Place, uid: int, gid: int, *, dir_fd: int | None = None) -> None:
        number = self._inode(place, dir_fd)
        with self._step("chown", _name(place, dir_fd), number is not None):
            super()._chown(place, uid, gid, dir_fd=dir_fd)
            self._changed("chown", place, number, dir_fd)

    def _set_time(self, place: _Place, nanoseconds: int) -> None:
        number = self._inode(place)
        with self._step("utime", _name(place), number is not None):
            super()._set_time(place, nanoseconds)
            self._changed("utime", place, number)

    def _link(self, source: str, target: str, source_fd: int, target_fd: int) -> None:
        slot = self._slot(target, target_fd)
        with self._step("link", _name(target, target_fd), slot is not None):
            super()._link(source, target, source_fd, target_fd)
            if slot is not None:
                number = self._inode(target, target_fd)
                assert number is not None, f"{source} is not below the root"
                times = ((slot[0], _parent(target, target_fd)),)
                self._note("link", _name(target, target_fd), sets=((slot, number),), times=times)

    def _symlink(self, target: str, path: str | Path) -> None:
        slot = self._slot(path)
        with self._step("symlink", path, slot is not None):
            super()._symlink(target, path)
            self._added("symlink", path, slot)

    def _rename(self, source: str | Path, target: str | Path) -> None:
        one, other, number = self._slot(source), self._slot(target), self._inode(source)
        with self._step("rename", f"{source} to {target}", number is not None):
            replaced = self._last_name(target)
            super()._rename(source, target)
            if one is not None and other is not None and number is not None:
                self._forget(replaced)
                self._note(
                    "rename", f"{source} to {target}", sets=((one, None), (other, number)),
                    takes=((one, number),), times=((one[0], _parent(source)), (other[0], _parent(target))),
                )  # fmt: skip

    def _exchange(self, one: str | Path, other: str | Path) -> None:
        first, second = self._slot(one), self._slot(other)
        was, becomes = self._inode(one), self._inode(other)
        with self._step("exchange", f"{one} and {other}", was is not None):
            super()._exchange(one, other)
            if first is not None and second is not None and was is not None and becomes is not None:
                self._note(
                    "exchange", f"{one} and {other}", sets=((first, becomes), (second, was)),
                    takes=((first, was), (second, becomes)),
                    times=((first[0], _parent(one)), (second[0], _parent(other))),
                )  # fmt: skip

    def _unlink(self, path: str | Path, *, dir_fd: int | None = None) -> None:
        slot, there = self._slot(path, dir_fd), self._inode(path, dir_fd) is not None
        with self._step("unlink", _name(path, dir_fd), there):
            real = self._last_name(path, dir_fd)
            super()._unlink(path, dir_fd=dir_fd)
            self._forget(real)
            self._removed("unlink", path, slot, dir_fd)

    def _rmdir(self, path: str | Path, *, dir_fd: int | None = None) -> None:
        slot, there = self._slot(path, dir_fd), self._inode(path, dir_fd) is not None
        with self._step("rmdir", _name(path, dir_fd), there):
            real = self._last_name(path, dir_fd)
            super()._rmdir(path, dir_fd=dir_fd)
            self._forget(real)
            self._removed("rmdir", path, slot, dir_fd)

    def _fsync(self, descriptor: int) -> None:
        kind = "fsync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file"
        self._sync(kind, descriptor)

    def _syncfs(self, descriptor: int) -> None:
        self._sync("syncfs", descriptor)

    def _sync(self, kind: str, descriptor: int) -> None:
        """The real thing is left out: no power is cut here, and it takes long on a disk."""
        number, name = self._inode(descriptor), _name(descriptor)
        with self._step(kind, name, number is not None):
            if not any(re.search(pattern, f"{kind} {name}") for pattern in self._skipped):
                self._note(kind, name, inode=number)

    # -- what is not made of them ----------------------------------------------------------------

    def lock(self, path: Path, *, shared: bool = False, make: bool = True) -> Lock | None:
        if self.dead:
            raise Crashed
        found = super().lock(path, shared=shared, make=make)
        if found is not None:
            self._held.append(found)
        return found

    def lock_directory(self, path: Path) -> Lock | None:
        if self.dead:
            raise Crashed
        found = super().lock_directory(path)
        if found is not None:
            self._held.append(found)
        return found

    def free_name(self, directory: Path, stem: str) -> Path:
        """With the number of a process that is gone, as ours is after a crash; always in the same order."""
        return directory / f"{stem}.{DEAD}.{next(self._names)}"

    def extract(self, archive: Path, target: Path) -> None:
        """What others wrote is there afterwards, each file whole, and none of it durable."""
        super().extract(archive, target)
        for relative, _ in self.walk(target):
            path = target / relative
            slot = self._slot(path)
            if slot is not None and self._inode(path) is None:
                self._added("extract", path, slot)
                number = self._inode(path)
                if not path.is_dir() and not path.is_symlink():
                    content = (0, path.read_bytes())
                    self._note("write", str(path), inode=number, content=content, about=_about(path))


def _status(place: _Place, dir_fd: int | None = None) -> os.stat_result:
    if isinstance(place, int):
        return os.fstat(place)
    return os.stat(place, dir_fd=dir_fd, follow_symlinks=False)


def _about(place: _Place, dir_fd: int | None = None) -> Inode:
    """Attributes as they are now."""
    return attributes(_status(place, dir_fd))


def _parent(path: str | Path, dir_fd: int | None = None) -> int:
    """The time of the directory that has a name."""
    found = os.fstat(dir_fd) if dir_fd is not None else os.stat(os.path.dirname(path) or ".")
    return found.st_mtime_ns


def _name(place: _Place, dir_fd: int | None = None) -> str:
    """Its path, for people."""
    if isinstance(place, int):
        return os.readlink(f"/proc/self/fd/{place}")
    return str(place) if dir_fd is None else f"{_name(dir_fd)}/{place}"


def _code() -> str:
    """The lines of siteswap that are at work, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    found: list[str] = []
    while frame is not None and len(found) < 12:
        name = frame.f_code.co_filename
        if "/siteswap/" in name:
            found.append(f"{name.rpartition('/')[2]}:{frame.f_lineno}")
        frame = frame.f_back
    return " ".join(found)
