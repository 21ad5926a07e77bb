"""A disk that remembers: a FUSE file system with one file `disk`, whose every write and flush is recorded.

Run as a program it serves until its standard input ends. A loop device over
`disk` turns what a file system submits into requests here: WRITE for writes,
FSYNC for flushes and FUA (the block layer takes a FUA write apart into a write
and a flush). One thread serves one request after the other, so the record is in
the order in which the requests were answered. What is written to the other file,
`marks`, is put into the same record as a mark: so a test says when it did what.

Nothing on the disk ever touches a real one: the image that it begins with is
mapped privately. The server must live in a mount namespace of its own, without
the file system that stands on its disk: its end is then never behind an unmount
that waits for it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import select
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

ENTRY = struct.Struct("<cQI")
"""Before each entry of the record: kind, offset on the disk, bytes that follow."""

WRITE, FLUSH, MARK = b"W", b"F", b"M"

# linux/fuse.h, version 7.31, has these, and the numbers and structures below.
_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_LARGEST = 1 << 20
_ROOT, _DISK, _MARKS = 1, 2, 3
_NAMES = {b"disk\0": _DISK, b"marks\0": _MARKS}

_CLONE_NEWNS = 0x20000
_MS_NOSUID_NODEV, _MS_PRIVATE_ALL = 0x6, 0x44000
_ASYNC_READ, _BIG_WRITES, _ASYNC_DIO, _MAX_PAGES = 1, 1 << 5, 1 << 15, 1 << 22
_OPEN_DIRECT = 1
_FOREVER = 1 << 30


class Server:
    """Answers the kernel's requests."""

    def __init__(self, fuse: int, image: Path, record: Path) -> None:
        self._fuse = fuse
        with image.open("rb") as stream:
            self._disk = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._operations: dict[int, Callable[[int, memoryview], bytes]] = {
            1: self._lookup,
            3: self._attributes,  # GETATTR
            4: self._attributes,  # SETATTR: there is nothing to change
            14: self._open,
            15: self._read,
            16: self._write,
            17: self._statistics,
            18: lambda node, body: b"",  # RELEASE
            20: self._flush,  # FSYNC
            25: lambda node, body: b"",  # FLUSH: a descriptor is closed
            26: self._begin,  # INIT
            27: self._open,  # OPENDIR
            29: lambda node, body: b"",  # RELEASEDIR
        }

    def serve(self) -> None:
        """Answer requests until standard input ends or the file system is unmounted."""
        waiting = select.poll()
        waiting.register(self._fuse, select.POLLIN)
        waiting.register(0, select.POLLIN)
        while True:
            ready = dict(waiting.poll())
            if 0 in ready and not os.read(0, 4096):
                return
            if self._fuse in ready:
                try:
                    request = os.read(self._fuse, _LARGEST + 8192)
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                        continue  # the request was taken back
                    return
                self._answer(memoryview(request))

    def _answer(self, request: memoryview) -> None:
        _, operation, unique, node, *_ = _IN.unpack_from(request)
        if operation in (2, 36, 42):
            return  # FORGET, INTERRUPT, BATCH_FORGET: nobody waits for an answer
        status, answer = 0, b""
        try:
            answer = self._operations[operation](node, request[_IN.size :])
        except KeyError:
            status = -errno.ENOSYS
        except OSError as error:
            status = -(error.errno or errno.EIO)
        os.writev(self._fuse, [_OUT.pack(_OUT.size + len(answer), status, unique), answer])

    def _begin(self, node: int, body: memoryview) -> bytes:
        major, _, ahead, offered = struct.unpack_from("<IIII", body)
        flags = offered & (_ASYNC_READ | _BIG_WRITES | _ASYNC_DIO | _MAX_PAGES)
        pages = _LARGEST // mmap.PAGESIZE
        return struct.pack(
            "<IIIIHHIIHHIIH22x", major, 31, ahead, flags, 64, 48, _LARGEST, 1, pages, 0, 0, 0, 0
        )

    def _lookup(self, node: int, body: memoryview) -> bytes:
        found = _NAMES.get(bytes(body))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return struct.pack("<QQQQII", found, 0, _FOREVER, _FOREVER, 0, 0) + self._describe(found)

    def _attributes(self, node: int, body: memoryview) -> bytes:
        return struct.pack("<QII", _FOREVER, 0, 0) + self._describe(node)

    def _describe(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o700 if node == _ROOT else stat.S_IFREG | 0o600
        size = len(self._disk) if node == _DISK else 0
        return struct.pack(
            "<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0
        )

    def _open(self, node: int, body: memoryview) -> bytes:
        return struct.pack("<QII", node, 0 if node == _ROOT else _OPEN_DIRECT, 0)

    def _read(self, node: int, body: memoryview) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return self._disk[offset : offset + size] if node == _DISK else b""

    def _write(self, node: int, body: memoryview) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        content = body[40 : 40 + size]
        if node == _DISK:
            if offset + size > len(self._disk):
                raise OSError(errno.ENOSPC, "beyond the end of the disk")
            self._disk[offset : offset + size] = content
            self._note(WRITE, offset, content)
        else:
            self._note(MARK, 0, content)
        return struct.pack("<II", size, 0)

    def _flush(self, node: int, body: memoryview) -> bytes:
        self._note(FLUSH, 0, memoryview(b""))
        return b""

    def _statistics(self, node: int, body: memoryview) -> bytes:
        return struct.pack("<QQQQQIIII24x", len(self._disk) // 4096, 0, 0, 3, 0, 4096, 255, 4096, 0)

    def _note(self, kind: bytes, offset: int, content: memoryview) -> None:
        entry = ENTRY.pack(kind, offset, len(content)) + content
        written = os.write(self._record, entry)
        if written != len(entry):
            raise OSError(errno.EIO, "the record could not be written")


def main() -> None:
    """Mount at the directory named, say so, and serve: DIRECTORY IMAGE RECORD, as JSON."""
    directory, image, record = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    server = Server(fuse, Path(image), Path(record))
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,max_read={_LARGEST}".encode()
    if (
        libc.unshare(_CLONE_NEWNS) != 0
        or libc.mount(b"none", b"/", None, _MS_PRIVATE_ALL, None) != 0
        or libc.mount(b"siteswap-power", os.fsencode(directory), b"fuse", _MS_NOSUID_NODEV, options) != 0
    ):
        raise SystemExit(f"no FUSE file system here: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
