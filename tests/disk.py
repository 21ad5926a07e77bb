"""A model of what a disk holds: inodes, directories, and the operations that a power cut may lose.

An image is what is on the disk at one moment. A journal starts from an image
and has the operations since, in the order in which they happened, each with
whether something has made it durable. From both follow all images that may be
there after the process was killed, or after the power was cut, at any operation.

What a file system may do (POSIX says no more than this):

- Metadata operations that no sync covers are lost one by one, in any
  combination, whatever the order between directories. One operation is atomic:
  a rename is there with both its ends or not at all.
- Content that no sync covers is there, or a prefix of it, or zeros, or nothing.
- `fsync` of a file makes its content and attributes durable, not its name; of a
  directory its entries, and the existence of what they name; `syncfs` everything.
- What something durable is made of is durable: the history of the names that it moved.
- A directory has one place: an operation that moves one applies only where it
  still stands where it is moved from.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

Slot = tuple[int, str]
"""One name in one directory: the directory's number in the model, and the name."""


@dataclass(frozen=True)
class Inode:
    """A file, directory or link without its name. A directory's entries are the image's."""

    kind: str
    mode: int = 0
    owner: tuple[int, int] = (0, 0)
    mtime_ns: int = 0
    content: bytes = b""
    """Of a link: where it leads."""


@dataclass
class Image:
    """Everything on a disk, below one root (which is inode 0)."""

    inodes: dict[int, Inode]
    names: dict[Slot, int]

    @staticmethod
    def of(root: Path) -> tuple[Image, dict[tuple[int, int], int]]:
        """The image of what is really there, and the model's number for each real inode."""
        image, known = Image({}, {}), dict[tuple[int, int], int]()

        def take(path: Path) -> int:
            found = path.lstat()
            real = (found.st_dev, found.st_ino)
            if real in known:
                return known[real]
            number = known[real] = len(known)
            image.inodes[number] = inode_at(path)
            if stat.S_ISDIR(found.st_mode):
                for name in sorted(os.listdir(path)):
                    image.names[number, name] = take(path / name)
            return number

        take(root)
        return image, known

    def numbers(self, root: Path) -> dict[tuple[int, int], int]:
        """The model's number for each real inode, where this image was built."""
        known: dict[tuple[int, int], int] = {}
        children = self.children()

        def take(number: int, path: str) -> None:
            found = os.lstat(path)
            known[found.st_dev, found.st_ino] = number
            for name, inner in children.get(number, {}).items():
                take(inner, f"{path}/{name}")

        take(0, str(root))
        return known

    def children(self) -> dict[int, dict[str, int]]:
        """Entries by directory."""
        found: dict[int, dict[str, int]] = {}
        for (directory, name), number in self.names.items():
            found.setdefault(directory, {})[name] = number
        return found

    def build(self, root: Path) -> None:
        """Make it real at `root`, an empty directory."""
        children, done = self.children(), dict[int, str]()

        def fill(number: int, path: str) -> None:
            for name, inner in children.get(number, {}).items():
                place, inode = f"{path}/{name}", self.inodes[inner]
                if inode.kind == "directory":
                    os.mkdir(place, 0o700)
                    fill(inner, place)
                    os.chmod(place, inode.mode)
                elif inner in done:
                    os.link(done[inner], place, follow_symlinks=False)
                    continue
                elif inode.kind == "link":
                    os.symlink(inode.content, place)
                else:
                    with open(place, "xb", buffering=0) as stream:
                        stream.write(inode.content)
                        os.fchmod(stream.fileno(), inode.mode)
                done[inner] = place
                if inode.owner != (os.geteuid(), os.getegid()):
                    os.chown(place, *inode.owner, follow_symlinks=False)
                os.utime(place, ns=(inode.mtime_ns, inode.mtime_ns), follow_symlinks=False)

        fill(0, str(root))

    def digest(self) -> bytes:
        """Tells images apart by what is in them (times, and numbers of staging names aside)."""
        children, hasher = self.children(), hashlib.sha256()

        def take(number: int, path: str) -> None:
            for name, inner in sorted(children.get(number, {}).items()):
                inode = self.inodes[inner]
                hasher.update(f"{path}/{name}\0{inode.kind}\0{inode.mode}\0{len(inode.content)}\0".encode())
                hasher.update(inode.content)
                if inode.kind == "directory":
                    take(inner, f"{path}/{name}")

        take(0, "")
        return hasher.digest()


def inode_at(path: Path) -> Inode:
    """What is really at a path."""
    about = attributes(path.lstat())
    if about.kind == "file":
        return replace(about, content=path.read_bytes())
    return replace(about, content=os.fsencode(os.readlink(path))) if about.kind == "link" else about


def attributes(found: os.stat_result) -> Inode:
    """An inode as `stat` describes it, without its content."""
    mode = found.st_mode
    kind = "directory" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "file"
    return Inode(kind, stat.S_IMODE(mode), (found.st_uid, found.st_gid), found.st_mtime_ns)


@dataclass(frozen=True)
class Operation:
    """One elementary operation, as it went."""

    kind: str
    what: str
    """For people: the path, or both paths."""
    code: str = ""
    """Where in the program it was asked for: tells operations of one loop from others."""
    sets: tuple[tuple[Slot, int | None], ...] = ()
    """What it makes of names: an inode, or None for a name that is gone."""
    takes: tuple[tuple[Slot, int], ...] = ()
    """What it needs to find at names in order to move it."""
    times: tuple[tuple[int, int], ...] = ()
    """What it makes of the times of directories: belongs to the change of their entries."""
    makes: tuple[int, Inode] | None = None
    inode: int | None = None
    """Whose content or attributes it changes, or what it syncs."""
    content: tuple[int, bytes] | None = None
    """What is written from which offset on; from offset -1: the file is cut to nothing first."""
    about: Inode | None = None
    """The inode with its new attributes."""

    @property
    def syncs(self) -> bool:
        """Whether it changes nothing itself."""
        return self.kind in ("fsync file", "fsync directory", "syncfs")


@dataclass(frozen=True)
class Fate:
    """What a power cut leaves of the operations that are not durable."""

    survives: Callable[[int, Operation], bool]
    """Of a metadata operation: is it there?"""
    content: Callable[[int, Operation], str]
    """Of a write: "all", "nothing", "prefix" or "zeros"."""
    unborn: Callable[[int], bool] = lambda _: False
    """Of an inode that is not durable: did it never come to be?"""


NOTHING = Fate(lambda *_: False, lambda *_: "nothing")
"""Nothing that was not synced survived."""
EVERYTHING = Fate(lambda *_: True, lambda *_: "all")
"""All of it did: the same as when only the process was killed."""
NAMES_ONLY = Fate(lambda *_: True, lambda *_: "nothing")
"""All metadata did, and no content."""
HALF = Fate(lambda *_: True, lambda *_: "prefix")
"""All metadata did, and half of the content."""
ZEROS = Fate(lambda *_: True, lambda *_: "zeros")
"""All metadata did, sizes too, and no content."""


def any_order(chance: random.Random) -> Fate:
    """All that POSIX allows: each operation by itself."""
    names, data, birth = (chance.choice((0.05, 0.3, 0.7, 0.95)) for _ in range(3))
    how = ("nothing", "prefix", "zeros")
    unborn: dict[int, bool] = {}
    return Fate(
        lambda *_: chance.random() < names,
        lambda *_: "all" if chance.random() < data else chance.choice(how),
        lambda number: unborn.setdefault(number, chance.random() > max(birth, 0.5)),
    )


def ordered(chance: random.Random, last: int) -> Fate:
    """As ext4, xfs and btrfs do it: metadata in order up to some operation, content as it comes."""
    cut, data = chance.randint(0, last), chance.choice((0.1, 0.5, 0.9))
    how = ("nothing", "prefix", "zeros")
    return Fate(
        lambda index, _: index < cut,
        lambda index, _: "all" if chance.random() < data else chance.choice(how),
    )


@dataclass
class Journal:
    """An image, and what happened since."""

    start: Image
    operations: list[Operation] = field(default_factory=list)
    _pending: list[frozenset[int]] = field(default_factory=lambda: [frozenset()])
    """What is not durable after so many operations."""

    def mark(self) -> int:
        """How many operations there are."""
        return len(self.operations)

    def unused(self) -> int:
        """A number that no inode has."""
        made = [item.makes[0] for item in self.operations if item.makes is not None]
        return max([*self.start.inodes, *made]) + 1

    def pending(self, count: int) -> frozenset[int]:
        """Which of the first `count` operations are not durable after them."""
        while len(self._pending) <= count:
            index = len(self._pending) - 1
            operation, before = self.operations[index], self._pending[index]
            if not operation.syncs:
                after = before | {index}
            elif operation.kind == "syncfs":
                after = frozenset[int]()
            elif operation.kind == "fsync file":
                after = before - {
                    found for found in before if self.operations[found].inode == operation.inode
                }
            else:
                after = self._settle(before, operation.inode)
            self._pending.append(after)
        return self._pending[count]

    def _settle(self, before: frozenset[int], directory: int | None) -> frozenset[int]:
        """A directory was synced: its entries, its attributes, and what names it got them from."""
        wanted: set[Slot] = set()
        after = set(before)
        for index in sorted(before, reverse=True):
            operation = self.operations[index]
            slots = {slot for slot, _ in operation.sets}
            if operation.inode == directory or slots & wanted or any(slot[0] == directory for slot in slots):
                wanted |= slots
                after.remove(index)
        return frozenset(after)

    def killed(self, count: int, *, half: bool = False) -> Image:
        """What is there when the process was killed after `count` operations, or during the next."""
        image = self._image(count, set(range(count)), EVERYTHING)
        if half:
            _change(image.inodes, self.operations[count], False, count, HALF)
        return image

    def cut(self, count: int, fate: Fate) -> Image:
        """One image that may be there when the power was cut after `count` operations."""
        return self._image(count, set(range(count)) - self.pending(count), fate)

    def _image(self, count: int, durable: set[int], fate: Fate) -> Image:
        inodes, names = dict(self.start.inodes), dict(self.start.names)
        first = self.operations[:count]
        safe = {number for index in durable for _, number in first[index].sets if number is not None}
        safe |= {item.inode for index, item in enumerate(first) if item.kind == "fsync file" and item.inode}
        for index, operation in enumerate(first):
            if operation.syncs:
                continue
            if operation.makes is not None:
                number, made = operation.makes
                if number in safe or not fate.unborn(number):
                    inodes[number] = made
            if operation.inode is not None:
                _change(inodes, operation, index in durable, index, fate)
                continue
            wanted = [number for _, number in operation.sets if number is not None]
            fits = all(names.get(slot) == number for slot, number in operation.takes)
            born = all(number in inodes for number in wanted)
            if fits and born and (index in durable or fate.survives(index, operation)):
                for slot, result in operation.sets:
                    if result is None:
                        names.pop(slot, None)
                    else:
                        names[slot] = result
                for directory, time in operation.times:
                    if directory in inodes:
                        inodes[directory] = replace(inodes[directory], mtime_ns=time)
        return Image(inodes, names)


def _change(inodes: dict[int, Inode], operation: Operation, durable: bool, index: int, fate: Fate) -> None:
    """Content or attributes of an inode, as far as they are there."""
    was = inodes.get(operation.inode or 0)
    if was is None or operation.inode is None:
        return
    if operation.content is None:
        assert operation.about is not None
        if durable or fate.survives(index, operation):
            about = operation.about
            inodes[operation.inode] = replace(
                was, mode=about.mode, owner=about.owner, mtime_ns=about.mtime_ns
            )
        return
    offset, content = operation.content
    how = "all" if durable else fate.content(index, operation)
    if how == "nothing":
        return
    if offset < 0:
        inodes[operation.inode] = replace(was, content=b"")
        return
    content = {"all": content, "prefix": content[: len(content) // 2], "zeros": bytes(len(content))}[how]
    whole = was.content[:offset].ljust(offset, b"\0") + content + was.content[offset + len(content) :]
    time = operation.about.mtime_ns if operation.about is not None else was.mtime_ns
    inodes[operation.inode] = replace(was, content=whole, mtime_ns=time)
