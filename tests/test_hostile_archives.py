"""Archives that climb, lie, hide something or would fill the disk: refused in one line."""

from __future__ import annotations

import functools
import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import hostile
from bench import Bench
from conftest import Siteswap
from crooked import Part, archive, parts_of, write
from hostile import ESCAPE, FS, locked, no_wheel, odd, plain, refused, untouched
from siteswap import archive as archives
from siteswap.errors import SiteswapError
from siteswap.fs import FileSystem
from siteswap.wheels import unpack


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.private_cache(tmp_path, monkeypatch)


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, siteswap: Siteswap) -> Bench:
    """One environment for all of these tests, with one distribution in it."""
    return hostile.inhabited(tmp_path_factory.getbasetemp() / Path(__file__).stem, siteswap)


WIDE = struct.pack("<2H2Q", 1, 16, 6, 8)
"""An extra field with sizes of 64 bits: those of `odd.py`, 6 bytes packed as 8."""


@functools.cache
def bomb(size: int = 1200 << 20) -> bytes:
    """A megabyte that becomes more than a gigabyte."""
    packer, packed, crc, piece = zlib.compressobj(9, zlib.DEFLATED, -15), b"", 0, bytes(1 << 20)
    for _ in range(size >> 20):
        packed += packer.compress(piece)
        crc = zlib.crc32(piece, crc)
    packed += packer.flush()
    fields: dict[str, int | bytes] = {"size": size, "crc": crc}
    return archive(parts_of("w", [Part("bomb.bin", packed=packed, local=fields, central=fields)]))


def overlapping() -> bytes:
    """Two members that are the same bytes: the way to a bomb without a high ratio."""
    return archive(parts_of("w", [Part("a.py", b"a = 1\n"), Part("b.py", b"a = 1\n", central={"offset": 0})]))


def crowd() -> bytes:
    """More members than any wheel has."""
    one = Part("x", b"")
    head = archive([one] * 2)
    start = head.index(b"PK\x01\x02")
    record = head[start : head.index(b"PK\x01\x02", start + 1)]
    count = archives.MOST_MEMBERS + 1
    size = len(record) * count
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, start, 0)
    return head[:start] + record * count + wide + locator + end


def hidden_in_comment() -> bytes:
    """The comment of one archive is the end of another."""
    other = archive([Part("evil.py", b"evil\n")])
    return archive(parts_of("w"), comment=other[other.index(b"PK\x01\x02") :])


def longer_stream() -> bytes:
    """A member that unpacks to more than its headers say; `zipfile` would cut it off there."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return odd(packed=packer.compress(b"y = 2\nimport evil\n") + packer.flush())


def bytes_after_stream() -> bytes:
    """A member with bytes behind the end of its compressed data."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return odd(packed=packer.compress(b"y = 2\n") + packer.flush() + b"evil")


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "parent": (lambda: archive(parts_of("w", [Part("../evil.py")])), "path that is not allowed"),
    "parent inside": (lambda: archive(parts_of("w", [Part("a/../../evil.py")])), "not allowed"),
    "absolute": (lambda: archive(parts_of("w", [Part("/evil.py")])), "not allowed"),
    "prefix": (lambda: archive(parts_of("w", [Part("../purelib2/evil.py")])), "not allowed"),
    "directory above": (lambda: archive(parts_of("w", [Part("../evil/", recorded=False)])), "not allowed"),
    "backslash": (lambda: archive(parts_of("w", [Part("a\\..\\..\\evil.py")])), "not allowed"),
    "drive": (lambda: archive(parts_of("w", [Part("C:\\evil.py")])), "not allowed"),
    "nul": (lambda: archive(parts_of("w", [Part("fine.py\0/../evil.py")])), "not allowed"),
    "newline": (lambda: archive(parts_of("w", [Part("a\nb.py")])), "not allowed"),
    "escape": (lambda: archive(parts_of("w", [Part(f"{ESCAPE}.py")])), "not allowed"),
    "c1 control": (lambda: archive(parts_of("w", [Part("a\x9b31m.py")])), "not allowed"),
    "empty name": (lambda: archive(parts_of("w", [Part("a//b.py")])), "not allowed"),
    "no utf-8": (lambda: odd(local={"name": b"\xff.py"}, central={"name": b"\xff.py"}), "no known encoding"),
    "long name": (lambda: archive(parts_of("w", [Part("x" * 300)])), "too long"),
    "long path": (lambda: archive(parts_of("w", [Part("/".join(["d" * 100] * 11))])), "too long"),
    "deep": (lambda: archive(parts_of("w", [Part("a/" * 200 + "b.py")])), "too long"),
    "twice": (lambda: archive(parts_of("w", [Part("w.py", b"evil\n")])), "in the archive twice"),
    "file as directory": (lambda: archive(parts_of("w", [Part("w.py/x.py")])), "a file and a directory"),
    "file and directory": (
        lambda: archive(parts_of("w", [Part("w.py/", recorded=False)])), "a file and a directory"),
    "full directory": (lambda: archive(parts_of("w", [Part("a/", b"x", recorded=False)])), "with content"),
    "other name before": (lambda: odd(local={"name": b"evl.py"}), "not the same in both"),
    "other size before": (lambda: odd(local={"size": 9}), "not the same in both"),
    "other length before": (lambda: odd(local={"compressed": 5}), "not the same in both"),
    "other method before": (lambda: odd(local={"method": 0}), "not the same in both"),
    "other crc before": (lambda: odd(local={"crc": 1}), "not the same in both"),
    "descriptor missing": (lambda: odd(local={"flags": 8}, central={"flags": 8}), "belong to no member"),
    "descriptor lies": (
        lambda: odd(local={"flags": 8}, central={"flags": 8}, descriptor=struct.pack("<3L", 1, 2, 3)),
        "not the same in both",
    ),
    "descriptor with another mark": (
        lambda: odd(local={"flags": 8}, central={"flags": 8},
                    descriptor=struct.pack("<4s3L", b"evil", zlib.crc32(b"y = 2\n"), 8, 6)),
        "not the same in both",
    ),
    "bytes in the extra field": (lambda: odd(central={"extra": b"\1\2\3"}), "malformed extra"),
    "unknown flag": (lambda: odd(local={"flags": 32}, central={"flags": 32}), "not supported"),
    "stored and smaller": (
        lambda: archive(parts_of("w", [Part("d/", packed=b"evil", method=0, recorded=False)])), "disagree"),
    "hidden in a directory": (
        lambda: archive(parts_of("w", [Part("d/", packed=b"\3\0evil", recorded=False)])), "with content"),
    "wrong crc": (lambda: odd(local={"crc": 1}, central={"crc": 1}), "damaged"),
    "longer stream": (longer_stream, "more than its header says"),
    "bytes after stream": (bytes_after_stream, "damaged"),
    "no stream": (lambda: odd(packed=b"\xff" * 8), "damaged"),
    "prepended": (lambda: b"#!/bin/sh\nevil\n" + plain(), "central directory is not where"),
    "prepended and counted": (lambda: archive(parts_of("w"), before=b"#!/bin/sh\n"), "before its first"),
    "appended": (lambda: plain() + b"evil", "after its end"),
    "two archives": (lambda: archive([Part("evil.py", b"evil\n")]) + plain(), "is not where"),
    "two archives, reversed": (lambda: plain() + archive([Part("evil.py")]), "is not where"),
    "tar and zip": (lambda: bytes(1024) + plain(), "is not where"),
    "hidden member": (
        lambda: archive(parts_of("w"), between=archive([Part("evil.py", b"evil\n")]).partition(b"PK\1\2")[0]),
        "belong to no member",
    ),
    "comment": (hidden_in_comment, "is not where"),
    "comment that looks": (lambda: archive(parts_of("w"), comment=b"PK\x01\x02"), "its comment"),
    "overlap": (overlapping, "overlaps another"),
    "count": (lambda: archive(parts_of("w"), end={"count": 2}), "more than it says"),
    "other flags before": (lambda: odd(local={"flags": 2}), "not the same in both"),
    "part of a disk": (lambda: archive(parts_of("w"), end={"here": 1}), "part of an archive"),
    "second disk": (lambda: archive(parts_of("w"), end={"disk": 1}), "part of an archive"),
    "member of a second disk": (lambda: odd(central={"disk": 1}), "malformed"),
    "wide end of a second disk": (lambda: archive(parts_of("w"), wide={"disk": 1}), "malformed"),
    "wide end longer": (lambda: archive(parts_of("w"), wide={"length": 45}), "malformed"),
    "wide end lies": (lambda: archive(parts_of("w"), wide={"count": 2}), "disagree"),
    "wide end elsewhere": (lambda: archive(parts_of("w"), wide={"place": 0}), "not where its locator"),
    "wide sizes lie": (
        lambda: odd(local={"extra": struct.pack("<2H2Q", 1, 16, 9, 9)}), "sizes that disagree"
    ),
    "wide sizes twice": (lambda: odd(local={"extra": WIDE + WIDE}), "malformed extra"),
    "wide sizes missing": (
        lambda: odd(central={"size": 0xFFFFFFFF, "extra": struct.pack("<2H", 1, 0)}), "sizes that disagree"
    ),
    "second name": (
        lambda: odd(central={"extra": struct.pack("<2HBL", 0x7075, 12, 1, 0) + b"evil.py"}), "two names"
    ),
    "cut extra": (lambda: odd(central={"extra": b"\x01\x00\xff\x00"}), "malformed extra"),
    "encrypted": (lambda: odd(local={"flags": 1}, central={"flags": 1}), "is encrypted"),
    "packed with lzma": (lambda: odd(method=14, packed=b"y = 2\n"), "not supported"),
    "packed with zstd": (lambda: odd(method=93, packed=b"y = 2\n"), "not supported"),
    "of a later format": (lambda: odd(central={"version": 64}), "not supported"),
    "bomb": (bomb, "times as many"),
    "crowd": (crowd, "members, more than"),
    "empty": (lambda: b"", "no zip archive"),
    "only an end": (lambda: archive([]), "dist-info"),
    **{
        kind: (functools.partial(odd, mode=mode | 0o777), "claims to be a link or a device")
        for kind, mode in {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "device": stat.S_IFCHR,
                           "block device": stat.S_IFBLK, "socket": stat.S_IFSOCK, "directory": stat.S_IFDIR,
                           "unknown kind": 0o030000}.items()
    },
    "link with a slash": (
        lambda: archive(parts_of("w", [Part("d/", mode=0o120777, recorded=False)])), "a link or a device"),
    "setuid": (lambda: odd(mode=0o104755), "rights of its owner"),
    "setgid": (lambda: odd(mode=0o102755), "rights of its owner"),
    "case": (lambda: archive(parts_of("w", [Part("W.py")])), "one name where case"),
    "case of a directory": (lambda: archive(parts_of("w", [Part("a/b/x.py"), Part("A/b/y.py")])), "one name"),
    "case of an empty directory": (
        lambda: archive(parts_of("w", [Part("a/x.py"), Part("A/", mode=0, recorded=False)])), "one name"),
    "form": (lambda: archive(parts_of("w", [Part("\xe9.py"), Part("e\u0301.py")])), "one name"),
    "compatible form": (lambda: archive(parts_of("w", [Part("\ufb01x.py"), Part("fix.py")])), "one name"),
    "case and form": (lambda: archive(parts_of("w", [Part("\xc9.py"), Part("e\u0301.py")])), "one name"),
    "case of two letters": (lambda: archive(parts_of("w", [Part("stra\xdfe"), Part("STRASSE")])), "one name"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_archive_that_can_be_read_in_two_ways(case: str, tmp_path: Path) -> None:
    """An archive that climbs, lies, hides something or would fill the disk is refused for that reason."""
    make, reason = ARCHIVES[case]
    assert reason in no_wheel(make(), tmp_path)


@pytest.mark.parametrize("case", ["parent", "nul", "two archives", "longer stream", "bomb", "crowd"])
@pytest.mark.parametrize("way", ["install", "sync"])
def test_crooked_archive_changes_nothing(bench: Bench, tmp_path: Path, case: str, way: str) -> None:
    """The same end to end, through the resolver and past it: one line, and everything as it was."""
    path = write(tmp_path / "bad", "w", ARCHIVES[case][0]())
    words: list[str | Path] = (
        ["install", "--no-index", path] if way == "install" else ["sync", locked(tmp_path, path)]
    )
    with untouched(bench):
        refused(bench.run(*words))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert not (tmp_path / "cache/wheels" / digest).exists()


def test_archives_that_are_only_unusual(tmp_path: Path) -> None:
    """Sizes after the data, sizes of 64 bits, a comment, padding and stored members are nothing wrong."""
    body = b"y = 2\n"
    after = struct.pack("<4s3L", b"PK\x07\x08", zlib.crc32(body), 8, 6)
    later: dict[str, int | bytes] = {"flags": 8}
    wide: dict[str, int | bytes] = {"size": 0xFFFFFFFF, "compressed": 0xFFFFFFFF, "extra": WIDE}
    members = [
        Part("stored.py", body, method=0),
        Part("later.py", body, descriptor=after, local={**later, "crc": 0, "size": 0, "compressed": 0},
             central=later),
        Part("unmarked.py", body, descriptor=after[4:], local=later, central=later),
        Part("wide.py", body, local=wide),
        Part("both.py", body, local=wide, central=wide),
        Part("padded.py", body, local={"extra": bytes(7)}),
        Part("names/ünï.py", body),
        Part("empty.py"),
        Part("directory/", mode=0o042755, recorded=False),
        Part("unmarked/", mode=0o100644, recorded=False),
        Part("C:/odd name. /trailing .", body),
        Part("$(touch evil)`;&|'\" -rf.txt", body),
    ]  # fmt: skip
    content = archive(parts_of("w", members), comment=b"made by somebody", wide={})
    target = tmp_path / "target"
    target.mkdir()
    index = unpack(FS, write(tmp_path, "w", content), "0" * 64, target)
    assert len(index.files) == len(members) + 3 - 2
    assert (target / "purelib/later.py").read_bytes() == body
    assert (target / "purelib/C:/odd name. /trailing .").read_bytes() == body
    with zipfile.ZipFile(tmp_path / "w-1.0-py3-none-any.whl") as opened:
        assert opened.testzip() is None


def test_modes_of_an_archive_do_not_reach_the_environment(bench: Bench, tmp_path: Path) -> None:
    """Sticky and write-for-all bits are gone in the environment."""
    content = archive(parts_of("modal", [Part("modal_run", b"#!/bin/sh\n", mode=0o101777)]))
    bench.run("install", "--no-index", write(tmp_path, "modal", content)).ok()
    assert stat.S_IMODE((bench.site / "modal_run").stat().st_mode) & 0o7022 == 0
    bench.run("rollback").ok()


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel larger than what is free is refused by its own account, status 5."""
    monkeypatch.setattr(FileSystem, "free", lambda *_: 10)
    (tmp_path / "target").mkdir()
    with pytest.raises(SiteswapError, match="bytes unpacked, and the disk") as caught:
        unpack(FS, write(tmp_path, "w", plain()), "0" * 64, tmp_path / "target")
    assert caught.value.exit_status == 5
    assert list((tmp_path / "target").iterdir()) == []
