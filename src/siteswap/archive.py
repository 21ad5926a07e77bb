"""What may be in an archive: one reading of its bytes, or none. Pure: streams in, values out.

`zipfile` believes the central directory at an archive's end. Other programs
believe the header before each member, or another end record. An archive that
can be read in two ways is one thing to whoever looks through it and another to
whoever installs it (CVE-2025-54368), so every byte must have one meaning here:
members follow each other from the first byte on, then the central directory,
then the end records, then nothing.
"""

from __future__ import annotations

import stat
import struct
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

MOST_MEMBERS = 200_000
"""The largest wheels have some ten thousands."""
ANY_SIZE = 1 << 30
"""Bytes that an archive may always unpack to; beyond, no more than so many times its own size."""
MOST_TIMES = 100
LONGEST_PATH = 1024
DEEPEST_PATH = 64
_LONGEST_NAME = 255  # of one file, by the kernel

_CHUNK = 1 << 20
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LARGEST_COMMENT = 0xFFFF
_IN_ZIP64 = 0xFFFFFFFF
_ENCRYPTED, _DESCRIPTOR, _UTF8 = 1 << 0, 1 << 3, 1 << 11
_MEANT_FLAGS = _DESCRIPTOR | _UTF8 | 0b110  # the last two are hints about the compression
_STORED, _DEFLATED = 0, 8
_NOTHING = 2  # bytes that nothing is deflated to
_NEWEST = 63  # version of the format, times ten, that `zipfile` reads
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_MARK = b"PK\x07\x08"
_DESCRIPTORS = {12: ("", "<3L"), 16: ("mark", "<4x3L"), 20: ("", "<L2Q"), 24: ("mark", "<4xL2Q")}


class ArchiveError(ValueError):
    """An archive that is broken, can be read in two ways, or would fill the disk."""


@dataclass(frozen=True)
class Member:
    """One member of a zip archive."""

    name: str
    size: int
    compressed: int
    crc: int
    deflated: bool
    mode: int
    """Type and permissions, where the archive was made on Unix."""
    start: int
    """Where its data begins."""


def check_path(path: str, what: str | None = None) -> None:
    """Refuse a path that would leave its directory, or could not be listed, typed and removed safely.

    Raises ArchiveError.
    """
    parts = path.split("/")
    length = len(path.encode("utf-8", "surrogatepass"))
    if (
        not {"", ".", ".."}.isdisjoint(parts)
        or any(character in "\\\x7f" or character < " " or "\x80" <= character < "\xa0" for character in path)
        or any("\ud800" <= character <= "\udfff" for character in path)
    ):
        raise ArchiveError(f"{what or f'file {path!r}'} has a path that is not allowed")
    if (
        length > LONGEST_PATH
        or len(parts) > DEEPEST_PATH
        or any(len(part.encode("utf-8")) > _LONGEST_NAME for part in parts)
    ):
        raise ArchiveError(f"{what or f'file {path[:60]!r}…'} has a path that is too long")


def check_amount(size: int, archive: int) -> None:
    """Refuse to unpack so many bytes from an archive of that size. Raises ArchiveError."""
    if size > max(ANY_SIZE, archive * MOST_TIMES):
        raise ArchiveError(f"{archive:,} bytes would become {size:,}, more than {MOST_TIMES} times as many")


def folded(path: str) -> str:
    """The path as a file system sees it that tells neither case nor Unicode form apart."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


# -- zip -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """One record of the central directory, its 64-bit fields resolved."""

    name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    size: int
    offset: int
    mode: int


def members(stream: BinaryIO) -> list[Member]:
    """The members of a zip archive in the order of its central directory. Raises ArchiveError."""
    total = stream.seek(0, 2)
    start, end, count = _directory(stream, total)
    if count > MOST_MEMBERS:
        raise ArchiveError(f"it has {count:,} members, more than {MOST_MEMBERS:,}")
    entries = _entries(_read(stream, start, end - start), count)
    check_amount(sum(entry.size for entry in entries), total)
    by_offset = sorted(entries, key=lambda entry: entry.offset)
    if (by_offset[0].offset if by_offset else start) != 0:
        raise ArchiveError("there are bytes before its first member")
    following = [*(entry.offset for entry in by_offset), start][1:]
    data = {
        entry.offset: _data(stream, entry, after) for entry, after in zip(by_offset, following, strict=True)
    }
    result = [_member(entry, data[entry.offset]) for entry in entries]
    _check_names([member.name for member in result])
    return result


def check_wheel(members: Sequence[Member]) -> None:
    """Refuse what may be in other zip archives and no wheel has (none of 1,142 looked through).

    Links, devices and set-user-id bits, and names that are one name on some file
    systems: what becomes of them depends on who unpacks. Raises ArchiveError.
    """
    for member in members:
        kind, directory = stat.S_IFMT(member.mode), member.name.endswith("/")
        if kind not in (0, stat.S_IFREG) and not (directory and kind == stat.S_IFDIR):
            raise ArchiveError(f"{member.name} claims to be a link or a device")
        # A directory has such a bit where the wheel was made in a shared one; no directory is taken over.
        if member.mode & (stat.S_ISUID | stat.S_ISGID) and not directory:
            raise ArchiveError(f"{member.name} claims the rights of its owner (setuid, setgid)")
    known: dict[str, str] = {}
    paths = set[str]()
    for member in members:
        path = member.name.removesuffix("/")
        while path and path not in paths:  # what is above a known path is known too
            other = known.setdefault(folded(path), path)
            if other != path:
                raise ArchiveError(
                    f"{path} and {other} are one name where case or Unicode form does not count"
                )
            paths.add(path)
            path = path.rpartition("/")[0]


def content(stream: BinaryIO, member: Member) -> Iterator[bytes]:
    """The unpacked bytes of a member, piece by piece. Raises ArchiveError where they are not as announced."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.deflated else None
    position, end = member.start, member.start + member.compressed
    size = crc = 0
    while position < end and not (inflate is not None and inflate.eof):
        packed = _read(stream, position, min(_CHUNK, end - position))
        position += len(packed)
        for piece in _inflated(inflate, packed, member) if inflate is not None else (packed,):
            size += len(piece)
            if size > member.size:
                raise ArchiveError(f"{member.name} unpacks to more than its header says")
            crc = zlib.crc32(piece, crc)
            yield piece
    ended = inflate is None or (inflate.eof and not inflate.unused_data)
    if (size, crc, position) != (member.size, member.crc, end) or not ended:
        raise ArchiveError(f"{member.name} is damaged: its content is not what its header says")


def _inflated(inflate: zlib._Decompress, packed: bytes, member: Member) -> Iterator[bytes]:
    try:
        while True:
            piece = inflate.decompress(packed, _CHUNK)
            if piece:
                yield piece
            packed = inflate.unconsumed_tail
            if not packed and len(piece) < _CHUNK:
                return
    except zlib.error as error:
        raise ArchiveError(f"{member.name} is damaged: {error}") from error


def _directory(stream: BinaryIO, total: int) -> tuple[int, int, int]:
    """Where the central directory starts and ends, and how many entries it has."""
    tail_start = max(0, total - _END.size - _LARGEST_COMMENT)
    tail = _read(stream, tail_start, total - tail_start)
    position = tail.rfind(b"PK\x05\x06")
    if position < 0 or len(tail) - position < _END.size:
        raise ArchiveError("it is no zip archive, or cut short")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(tail, position)
    end = tail_start + position
    if end + _END.size + comment != total:
        raise ArchiveError("there are bytes after its end")
    if total - end > _END.size and b"PK" in tail[position + _END.size :]:
        raise ArchiveError("its comment could be taken for a part of it")
    wide = _wide_end(stream, end)
    if wide is not None:
        end, *values = wide
        told = (here, count, size, start)
        limits = (0xFFFF, 0xFFFF, _IN_ZIP64, _IN_ZIP64)
        for narrow, value, limit in zip(told, values, limits, strict=True):
            if narrow not in (value, limit):
                raise ArchiveError("its two end records disagree")
        here, count, size, start = values
    if disk or first_disk or here != count:
        raise ArchiveError("it is a part of an archive only")
    if start + size != end:
        raise ArchiveError("its central directory is not where its end record says")
    return start, end, count


def _wide_end(stream: BinaryIO, end: int) -> tuple[int, int, int, int, int] | None:
    """From the 64-bit end record: its place, entries here and in all, size and start; None without one."""
    if end < _LOCATOR.size:
        return None
    mark, disk, place, disks = _LOCATOR.unpack(_read(stream, end - _LOCATOR.size, _LOCATOR.size))
    if mark != b"PK\x06\x07":
        return None
    if disk or disks > 1 or place + _END_64.size + _LOCATOR.size != end:
        raise ArchiveError("its 64-bit end record is not where its locator says")
    mark, length, _, _, disk, first_disk, here, count, size, start = _END_64.unpack(
        _read(stream, place, _END_64.size)
    )
    if mark != b"PK\x06\x06" or length != _END_64.size - 12 or disk or first_disk:
        raise ArchiveError("its 64-bit end record is malformed")
    return place, here, count, size, start


def _entries(directory: bytes, count: int) -> list[_Entry]:
    entries, position = [], 0
    for _ in range(count):
        if len(directory) - position < _CENTRAL.size:
            raise ArchiveError("its central directory is cut short")
        (
            mark, _, version, flags, method, _, _, crc, compressed, size, name_length, extra_length,
            comment_length, disk, _, attributes, offset,
        ) = _CENTRAL.unpack_from(directory, position)  # fmt: skip
        position += _CENTRAL.size
        name = directory[position : position + name_length]
        position += name_length
        extra = directory[position : position + extra_length]
        position += extra_length + comment_length
        if mark != b"PK\x01\x02" or disk:
            raise ArchiveError("its central directory is malformed")
        if version & 0xFF > _NEWEST:
            raise ArchiveError(f"{_shown(name)} is packed in a way that is not supported")
        size, compressed, offset = _widened(extra, name, (size, compressed, offset))
        entries.append(_Entry(name, flags, method, crc, compressed, size, offset, attributes >> 16))
    if position != len(directory):
        raise ArchiveError("its central directory has more than it says")
    return entries


def _data(stream: BinaryIO, entry: _Entry, following: int) -> int:
    """Where a member's data begins, its own header being in agreement with the central directory."""
    problem = ArchiveError(f"{_shown(entry.name)} is not the same in both places where the archive lists it")
    mark, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = _LOCAL.unpack(
        _read(stream, entry.offset, _LOCAL.size)
    )
    position = entry.offset + _LOCAL.size
    name = _read(stream, position, name_length)
    extra = _read(stream, position + name_length, extra_length)
    size, compressed = _widened(extra, name, (size, compressed))
    told = (crc, compressed, size)
    wanted = (entry.crc, entry.compressed, entry.size)
    later = bool(flags & _DESCRIPTOR)
    agreed = told == wanted or (later and all(one in (0, two) for one, two in zip(told, wanted, strict=True)))
    same = (name, flags, method) == (entry.name, entry.flags, entry.method)
    if mark != b"PK\x03\x04" or not same or not agreed:
        raise problem
    start: int = position + name_length + extra_length
    gap = following - start - entry.compressed
    if gap < 0:
        raise ArchiveError(f"{_shown(entry.name)} overlaps another member")
    if later and gap in _DESCRIPTORS:
        marked, form = _DESCRIPTORS[gap]
        after = _read(stream, start + entry.compressed, gap)
        if struct.unpack(form, after) != wanted or (after[:4] == _MARK) != bool(marked):
            raise problem
    elif later or gap:
        raise ArchiveError(f"there are bytes after {_shown(entry.name)} that belong to no member")
    return start


def _widened(extra: bytes, name: bytes, values: Sequence[int]) -> list[int]:
    """Sizes (and offset) with those taken from the 64-bit field that are only there."""
    fields = _fields(extra, name)
    unicode_path = fields.get(_UNICODE_PATH)
    if unicode_path is not None and unicode_path[5:] != name:
        raise ArchiveError(f"{_shown(name)} has two names")
    wide = fields.get(_ZIP64)
    missing = [value == _IN_ZIP64 for value in values]
    if wide is None:
        return list(values)
    found = [number for (number,) in struct.iter_unpack("<Q", wide[: len(wide) // 8 * 8])]
    if len(found) == len(wide) / 8 == sum(missing):
        following = iter(found)
        return [next(following) if absent else value for value, absent in zip(values, missing, strict=True)]
    if found[:2] != list(values[:2]):
        raise ArchiveError(f"{_shown(name)} has sizes that disagree")
    return list(values)


def _fields(extra: bytes, name: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if length > len(extra) - 4 or (kind in fields and kind in (_ZIP64, _UNICODE_PATH)):
            raise ArchiveError(f"{_shown(name)} has malformed extra fields")
        fields[kind] = extra[4 : 4 + length]
        extra = extra[4 + length :]
    if extra.strip(b"\0"):
        raise ArchiveError(f"{_shown(name)} has malformed extra fields")
    return fields


def _member(entry: _Entry, start: int) -> Member:
    if entry.flags & _ENCRYPTED:
        raise ArchiveError(f"{_shown(entry.name)} is encrypted")
    if entry.flags & ~_MEANT_FLAGS or entry.method not in (_STORED, _DEFLATED):
        raise ArchiveError(f"{_shown(entry.name)} is packed in a way that is not supported")
    if entry.method == _STORED and entry.size != entry.compressed:
        raise ArchiveError(f"{_shown(entry.name)} has sizes that disagree")
    try:
        name = entry.name.decode("utf-8" if entry.flags & _UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{_shown(entry.name)} has a name in no known encoding") from error
    check_path(name.removesuffix("/"), f"file {name!r}")
    if name.endswith("/") and (entry.size or entry.compressed > _NOTHING):
        raise ArchiveError(f"{name} is a directory with content")
    return Member(name, entry.size, entry.compressed, entry.crc, entry.method == _DEFLATED, entry.mode, start)


def _check_names(names: Sequence[str]) -> None:
    files = [name for name in names if not name.endswith("/")]
    for name, count in Counter(names).most_common(1):
        if count > 1:
            raise ArchiveError(f"file {name!r} is in the archive twice")
    known = set(files)
    for name in names:
        parent = name.removesuffix("/")
        if parent != name and parent in known:
            raise ArchiveError(f"{parent} is a file and a directory")
        while parent := parent.rpartition("/")[0]:
            if parent in known:
                raise ArchiveError(f"{parent} is a file and a directory")


def _read(stream: BinaryIO, position: int, length: int) -> bytes:
    stream.seek(position)
    found = stream.read(length)
    if len(found) != length:
        raise ArchiveError("it is cut short")
    return found


def _shown(name: bytes) -> str:
    return repr(name[:200].decode("utf-8", "replace"))


# -- source archives -----------------------------------------------------------------------------


class SourceTree:
    """What a source archive may hold (PEP 721), told member by member; nothing is followed or written.

    Stricter than `tarfile`'s own filter, which some versions of Python can be led around with links that
    stand on links (CVE-2025-4517): nothing here may be reached through a link.
    """

    def __init__(self, archive: int) -> None:
        """`archive` is the size of the archive in bytes."""
        self._archive = archive
        self._size = 0
        self._kinds: dict[str, str] = {}
        self._targets: dict[str, str] = {}

    def add(self, name: str, kind: str, size: int, target: str = "") -> None:
        """One member: `kind` is "file", "directory", "link", "hard" or "other". Raises ArchiveError."""
        path = "/".join(part for part in name.rstrip("/").split("/") if part != ".")
        if not path:
            return  # the directory itself
        check_path(path)
        known = self._kinds.get(path)
        if kind == "other":
            raise ArchiveError(f"{path} is a device or a pipe")
        if known is not None and "link" in (kind, known):
            raise ArchiveError(f"{path} is in the archive twice")
        if kind == "hard" and self._kinds.get(target.removeprefix("./")) not in ("file", "hard"):
            raise ArchiveError(f"{path} is a link to {target!r}, which is no file before it")
        if kind == "link":
            self._targets[path] = target
        self._kinds[path] = kind
        self._size += size
        check_amount(self._size, self._archive)
        if len(self._kinds) > MOST_MEMBERS:
            raise ArchiveError(f"it has more than {MOST_MEMBERS:,} members")

    def finish(self) -> None:
        """What only the whole tells: nothing is behind a link, and links stay inside. Raises ArchiveError."""
        for path in self._kinds if self._targets else ():
            parent = path
            while parent := parent.rpartition("/")[0]:
                if parent in self._targets:
                    raise ArchiveError(f"{path} lies behind the link {parent}")
        for path, target in self._targets.items():
            where = path.split("/")[:-1]
            parts = target.split("/")
            inside = not target.startswith("/") and bool(target) and len(target) <= LONGEST_PATH
            for position, part in enumerate(parts):
                if part == ".." and not where:
                    inside = False
                    break
                if part == "..":
                    where.pop()
                elif part not in ("", "."):
                    where.append(part)
                inside = inside and (position == len(parts) - 1 or "/".join(where) not in self._targets)
            if not inside:
                raise ArchiveError(f"{path} is a link to {target[:200]!r}, which may lead elsewhere")
