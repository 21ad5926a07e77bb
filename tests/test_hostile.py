"""Wheels, sources, indexes, locks, caches and paths that mean harm: refused in one line, or harmless."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import ssl
import stat
import struct
import subprocess
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import Bench, exact
from conftest import Ran, Siteswap, run_python
from crooked import Part, archive, parts_of, write
from siteswap import archive as archives
from siteswap import fetch
from siteswap.cache import Cache, open_cache
from siteswap.checks import dependencies
from siteswap.cli import live, render
from siteswap.errors import Kind, SiteswapError
from siteswap.fetch import Fetcher
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact, LockFile
from siteswap.manifest import Distribution
from siteswap.requirements import parse_file, parse_line
from siteswap.transaction import Outcome
from siteswap.wheels import unpack
from snapshots import current, record_problems, state
from wheelmaker import wheel

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
FS = FileSystem()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test unpacked is not here."""
    monkeypatch.setenv("SITESWAP_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for one environment that every refusal leaves as it is."""
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture
def bench(shared: Path, siteswap: Siteswap) -> Bench:
    """The shared environment, with one distribution in it."""
    found = Bench(siteswap, shared)
    if not found.env.exists():
        siteswap("create", found.env).ok()
        found.wheel("resident", scripts={"resident": "resident:main"})
        found.install("resident").ok()
    return found


@contextmanager
def untouched(bench: Bench) -> Iterator[None]:
    """The block changes nothing in the environment, and leaves no half-made thing in it or in the cache."""
    before = (state(bench.env), exact(bench.env / ".siteswap/generations"))
    yield
    assert (state(bench.env), exact(bench.env / ".siteswap/generations")) == before
    assert list((bench.env / ".siteswap/staging").iterdir()) == []
    assert list(Path(os.environ["SITESWAP_CACHE_DIR"]).glob("incoming/*")) == []


def refused(ran: Ran, *words: str, status: int = 1) -> Ran:
    """One clear line, the documented status, no traceback, nothing that a terminal would obey."""
    assert ran.status == status, f"status {ran.status}\n{ran.out}\n{ran.err}"
    lines = [line for line in ran.err.splitlines() if line.startswith("siteswap: ")]
    assert len([line for line in lines if not line.startswith("siteswap: note: ")]) == 1, ran.err
    assert "Traceback" not in ran.err
    assert "BUG" not in ran.err
    assert all(character.isprintable() or character == "\n" for character in ran.out + ran.err)
    for word in words:
        assert word in ran.err, f"{word!r} is not in {ran.err!r}"
    return ran


def lock(path: Path, name: str, sha256: str, location: Path, **more: Any) -> Path:
    """A pylock.toml of one wheel: what siteswap itself reads, with no resolver before it."""
    fields = {"path": str(location), **more}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())
    path.write_text(
        f'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "{name}"\nversion = "1.0"\n'
        f'[[packages.wheels]]\n{text}hashes = {{ sha256 = "{sha256}" }}\n'
    )
    return path


def locked(directory: Path, wheel_file: Path) -> Path:
    """The lock of a wheel as it is."""
    digest = hashlib.sha256(wheel_file.read_bytes()).hexdigest()
    return lock(directory / "pylock.toml", wheel_file.name.partition("-")[0], digest, wheel_file)


# -- archives ------------------------------------------------------------------------------------

WIDE = struct.pack("<2H2Q", 1, 16, 6, 8)
"""An extra field with sizes of 64 bits: those of `odd.py`, 6 bytes packed as 8."""


def odd(**more: Any) -> bytes:
    """A wheel with one member `odd.py` that is not quite right."""
    return archive(parts_of("w", [Part("odd.py", b"y = 2\n", **more)]))


def plain() -> bytes:
    """A wheel that is right."""
    return archive(parts_of("w"))


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
    "deep": (lambda: archive(parts_of("w", [Part("a/" * 200 + "b.py")])), "too long"),
    "twice": (lambda: archive(parts_of("w", [Part("w.py", b"evil\n")])), "in the archive twice"),
    "file as directory": (lambda: archive(parts_of("w", [Part("w.py/x.py")])), "a file and a directory"),
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
    "bomb": (bomb, "times as many"),
    "crowd": (crowd, "members, more than"),
    "empty": (lambda: b"", "no zip archive"),
    "only an end": (lambda: archive([]), "dist-info"),
}  # fmt: skip


def no_wheel(content: bytes, tmp_path: Path, name: str = "w") -> str:
    """Refuse to unpack this, in time and with nothing written elsewhere; returns the reason."""
    path = write(tmp_path / "wheels", name, content)
    target = tmp_path / "target/incoming"
    target.mkdir(parents=True)
    before = {item for item in tmp_path.rglob("*") if target not in item.parents}
    begun = time.monotonic()
    with pytest.raises(SiteswapError) as caught:
        unpack(FS, path, "0" * 64, target)
    assert time.monotonic() - begun < 5
    assert {item for item in tmp_path.rglob("*") if target not in item.parents} == before
    assert not list(tmp_path.rglob("*evil*"))
    assert caught.value.kind is Kind.REQUIREMENT
    assert "not a valid wheel" in caught.value.message
    return caught.value.detail or ""


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
        Part("directory/", mode=0o040755, recorded=False),
        Part("C:/odd name. /trailing .", body),
        Part("$(touch evil)`;&|'\" -rf.txt", body),
    ]  # fmt: skip
    content = archive(parts_of("w", members), comment=b"made by somebody", wide={})
    target = tmp_path / "target"
    target.mkdir()
    index = unpack(FS, write(tmp_path, "w", content), "0" * 64, target)
    assert len(index.files) == len(members) + 3 - 1
    assert (target / "purelib/later.py").read_bytes() == body
    assert (target / "purelib/C:/odd name. /trailing .").read_bytes() == body
    with zipfile.ZipFile(tmp_path / "w-1.0-py3-none-any.whl") as opened:
        assert opened.testzip() is None


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_members_are_files_whatever_they_claim(tmp_path: Path, kind: int) -> None:
    """A member that claims to be a link, a pipe or a device becomes a plain file without special bits."""
    content = archive(parts_of("w", [Part("odd", b"/etc/passwd", mode=kind | 0o7777)]))
    (tmp_path / "target").mkdir()
    unpack(FS, write(tmp_path, "w", content), "0" * 64, tmp_path / "target")
    found = (tmp_path / "target/purelib/odd").lstat()
    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) & ~0o666 == 0


def test_modes_of_an_archive_do_not_reach_the_environment(bench: Bench, tmp_path: Path) -> None:
    """Setuid, setgid, sticky and write-for-all bits are gone in the environment too."""
    content = archive(parts_of("modal", [Part("modal_run", b"#!/bin/sh\n", mode=0o107777)]))
    bench.run("install", "--no-index", write(tmp_path, "modal", content)).ok()
    assert stat.S_IMODE((bench.site / "modal_run").stat().st_mode) & 0o7022 == 0
    bench.run("rollback").ok()


def test_names_that_differ_by_case_or_form_are_two_files(tmp_path: Path) -> None:
    """Names that only differ by case or by Unicode normal form are two files here, as in every directory."""
    members = [Part("Case.py", b"1"), Part("case.py", b"2"), Part("\xe9.py", b"3"), Part("e\u0301.py", b"4")]
    (tmp_path / "target").mkdir()
    unpack(FS, write(tmp_path, "w", archive(parts_of("w", members))), "0" * 64, tmp_path / "target")
    found = {item.read_bytes() for item in (tmp_path / "target/purelib").glob("*.py")}
    assert {b"1", b"2", b"3", b"4"} <= found


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel larger than what is free is refused by its own account, status 5."""
    monkeypatch.setattr(FileSystem, "free", lambda *_: 10)
    (tmp_path / "target").mkdir()
    with pytest.raises(SiteswapError, match="bytes unpacked, and the disk") as caught:
        unpack(FS, write(tmp_path, "w", plain()), "0" * 64, tmp_path / "target")
    assert caught.value.exit_status == 5
    assert list((tmp_path / "target").iterdir()) == []


# -- what a wheel says of itself -------------------------------------------------------------------


def points(text: str) -> bytes:
    """A wheel with these console scripts."""
    return archive(parts_of("w", points=f"[console_scripts]\n{text}\n".encode()))


def chain() -> str:
    """A few lines that expand to gigabytes."""
    lines = [f"n{number} = " + f"%(n{number + 1})s" * 9 for number in range(9)]
    return "\n".join([*lines, "n9 = a:b"])


def said(name: str = "w", version: str = "1.0", more: str = "") -> bytes:
    """METADATA."""
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}".encode()


SHAKE = "shake_128=" + base64.urlsafe_b64encode(b"x" * 16).decode().rstrip("=")
WHEELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "record missing": (lambda: archive(parts_of("w")[:-1]), "RECORD"),
    "record incomplete": (lambda: archive(parts_of("w", [Part("a.py", recorded=False)])), "not mentioned"),
    "record phantom": (lambda: archive(parts_of("w", more_rows="gone.py,,\n")), "not in the archive"),
    "record outside": (lambda: archive(parts_of("w", more_rows="../../../evil,,\n")), "not in the archive"),
    "record absolute": (lambda: archive(parts_of("w", more_rows="/etc/passwd,,\n")), "not in the archive"),
    "record twice": (lambda: archive(parts_of("w", more_rows="w.py,sha256=AAAA,6\n")), "RECORD twice"),
    "record malformed": (lambda: archive(parts_of("w", more_rows='"a\n')), "RECORD"),
    "record of two columns": (lambda: archive(parts_of("w", more_rows="a,b\n")), "RECORD"),
    "record no text": (lambda: archive(parts_of("w", record=b"\xff\xfe")), "RECORD"),
    "record huge field": (lambda: archive(parts_of("w", more_rows="a" * 200_000 + ",,\n")), "RECORD"),
    "record huge": (lambda: archive(parts_of("w", record=bytes(65 << 20))), "too large"),
    "md5": (lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,md5=AAAA,0\n")),
            "the format forbids"),
    "shake": (lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows=f"a.py,{SHAKE},0\n")),
              "the format forbids"),
    "unknown hash": (
        lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,crc=AAAA,0\n")),
        "invalid hash"),
    "size no number": (
        lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,sha256=AA,many\n")),
        "non-integer"),
    "size wrong": (
        lambda: archive(parts_of("w", [Part("a.py", recorded=False)], more_rows="a.py,sha256=AA,999\n")),
        "does not have the size"),
    "two dist-infos": (lambda: archive(parts_of("w", [Part("W.-1.0.dist-info/METADATA")])), "exactly one"),
    "dist-info of another": (lambda: archive(parts_of("w", info="v-1.0.dist-info")), "match"),
    "dist-info of another version": (lambda: archive(parts_of("w", info="w-6.6.dist-info")), "6.6"),
    "metadata missing": (lambda: archive([p for p in parts_of("w") if "META" not in p.name]), "METADATA"),
    "metadata of another": (lambda: archive(parts_of("w", metadata=said("v"))), "says that it is v"),
    "metadata of another version": (lambda: archive(parts_of("w", metadata=said(version="6.6"))), "6.6"),
    "metadata that obeys": (lambda: archive(parts_of("w", metadata=said(version=f"1.0{ESCAPE}"))), "nvalid"),
    "metadata with two names": (lambda: archive(parts_of("w", metadata=said(more="Name: v\n"))), "say once"),
    "metadata empty": (lambda: archive(parts_of("w", metadata=b"")), "say once"),
    "metadata no text": (lambda: archive(parts_of("w", metadata=b"Name: \xff\n")), "utf-8"),
    "metadata with a huge number": (
        lambda: archive(parts_of("w", metadata=said(version="9" * 9000))), ""),
    "wheel missing": (lambda: archive([p for p in parts_of("w") if "WHEEL" not in p.name]), "WHEEL"),
    "wheel newer": (lambda: archive(parts_of("w", about=b"Wheel-Version: 2.0\n")), "2.0"),
    "wheel without version": (lambda: archive(parts_of("w", about=b"Root-Is-Purelib: true\n")), "None"),
    "script above": (lambda: points("../../evil = a:b"), "not allowed"),
    "script absolute": (lambda: points("/tmp/evil = a:b"), "not allowed"),
    "script inside": (lambda: points("a/b = a:b"), "not allowed"),
    "script dot": (lambda: points(". = a:b"), "not allowed"),
    "script dots": (lambda: points(".. = a:b"), "not allowed"),
    "script escape": (lambda: points(f"{ESCAPE} = a:b"), "not allowed"),
    "script long": (lambda: points("x" * 300 + " = a:b"), "too long"),
    "script without name": (lambda: points(" = a:b"), ""),
    "script with code": (lambda: points("x = y:z; import os"), ""),
    "script with lines": (lambda: points("x = y:z\n  import os"), ""),
    "script with a call": (lambda: points("x = y:z()"), ""),
    "script without function": (lambda: points("x = y"), ""),
    "script that expands": (lambda: points(chain()), "refers to itself"),
    "script twice": (lambda: points("x = a:b\nx = c:d"), "already exists"),
    "scheme above": (lambda: archive(parts_of("w", [Part("w-1.0.data/data/../../evil")])), "not allowed"),
    "scheme unknown": (lambda: archive(parts_of("w", [Part("w-1.0.data/evil/x")])), "valid .data"),
    "scheme itself": (lambda: archive(parts_of("w", [Part("w-1.0.data/evil")])), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", WHEELS)
def test_wheel_that_is_not_what_it_says(case: str, tmp_path: Path) -> None:
    """RECORD, names, versions, schemes and entry points that lie are refused for that reason."""
    make, reason = WHEELS[case]
    assert reason in no_wheel(make(), tmp_path)


@pytest.mark.parametrize("case", ["record outside", "shake", "metadata that obeys", "script above"])
def test_lying_wheel_changes_nothing(bench: Bench, tmp_path: Path, case: str) -> None:
    """The same end to end: one line that a terminal does not obey, and everything as it was."""
    with untouched(bench):
        refused(bench.run("sync", locked(tmp_path, write(tmp_path / "bad", "w", WHEELS[case][0]()))))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("w-1.0.data/scripts/python", "siteswap itself"),
        ("w-1.0.data/scripts/activate", "siteswap itself"),
        ("w-1.0.data/data/bin/python3", "siteswap itself"),
        ("w-1.0.data/data/bin/python._pth", "siteswap itself"),
        ("w-1.0.data/scripts/python3._pth", "siteswap itself"),
        ("w-1.0.data/data/pyvenv.cfg", "siteswap itself"),
        ("w-1.0.data/data/.generation/manifest.json", "siteswap itself"),
        ("w-1.0.data/data/.siteswap/lock", "siteswap itself"),
        ("w-1.0.data/data/siteswap.toml", "siteswap itself"),
        ("w-1.0.data/data/.gitignore", "in the way"),
        ("_siteswap.py", "siteswap itself"),
        ("00-siteswap.pth", "siteswap itself"),
        ("resident/__init__.py", "resident"),
        ("resident-1.0.dist-info/RECORD", "dist-info"),
        ("w-1.0.data/purelib/resident-1.0.dist-info/RECORD", "pass for metadata"),
        ("w-1.0.data/purelib/other-9.9.DIST-INFO/METADATA", "pass for metadata"),
        ("other.egg-info/PKG-INFO", "pass for metadata"),
        ("w-1.0.data/platlib/w.py", "two files for"),
    ],
)
def test_what_is_anothers_is_not_for_a_wheel(bench: Bench, tmp_path: Path, path: str, reason: str) -> None:
    """Neither siteswap's own files, nor the user's settings, nor another distribution's can be taken over."""
    content = archive(parts_of("w", [Part(path, b"evil = 1\n")]))
    with untouched(bench):
        refused(bench.run("install", "--no-index", write(tmp_path / "bad", "w", content)), reason)


@pytest.mark.parametrize("name", ["python", "python3", "activate", "activate.fish"])
def test_script_with_a_name_of_siteswaps_own(bench: Bench, name: str) -> None:
    """A console script cannot stand where the launcher or an activate script does."""
    bench.wheel("taker", scripts={name: "taker:main"})
    with untouched(bench):
        refused(bench.install("taker", "--allow-overlap"), f"bin/{name} of taker")


def test_what_is_odd_and_harmless(bench: Bench, tmp_path: Path) -> None:
    """Odd script names are file names; foreign notes and byte-code in a wheel are not taken over."""
    names = ["pip", "-rf", "$(touch evil)", "a;b", "deactivate", "two words"]
    site = f"lib/{bench.site.parent.name}/site-packages"
    extra = [
        Part("w-1.0.dist-info/direct_url.json", b'{"url": "https://trusted.example/w"}'),
        Part("w-1.0.dist-info/INSTALLER", b"somebody\n"),
        Part("w-1.0.dist-info/REQUESTED", b""),
        Part("__pycache__/resident.cpython-311.pyc", b"evil"),
        Part(f"w-1.0.data/data/{site}/__pycache__/w.cpython-311.pyc", b"evil"),
        Part("w-1.0.data/scripts/odd-shebang", b"#!python -c 'import evil'; touch evil\nprint('runs')\n"),
    ]
    text = "[console_scripts]\n" + "".join(f"{name} = w:main\n" for name in names)
    content = archive(parts_of("w", extra, points=text.encode()))
    write(tmp_path / "more", "w", content)
    wheel(tmp_path / "more", "needs-w", requires=["w"])
    bench.install("--find-links", tmp_path / "more", "needs-w", "--no-check").ok()
    info = bench.site / "w-1.0.dist-info"
    assert not (info / "direct_url.json").exists()
    assert not (info / "REQUESTED").exists()
    assert (info / "INSTALLER").read_text() == "siteswap\n"
    assert not [item for item in bench.site.rglob("*.pyc") if item.read_bytes() == b"evil"]
    assert {item.name for item in (bench.env / "bin").iterdir()} >= {*names, "odd-shebang"}
    assert (bench.env / "bin/odd-shebang").read_text().splitlines()[0] == f"#!{bench.env}/bin/python"
    done = subprocess.run([bench.env / "bin/odd-shebang"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "runs\n"
    assert record_problems(bench.site.parents[2]) == []
    assert not list(tmp_path.rglob("evil"))
    bench.run("rollback").ok()


def test_tree_that_is_too_deep_is_removed(bench: Bench, tmp_path: Path) -> None:
    """A package under check may leave a tree of thousands of directories: it goes with everything else."""
    code = (
        "import os\nos.chdir(os.environ['TMPDIR'])\nfor n in range(3000):\n    os.mkdir('d'); os.chdir('d')\n"
    )
    bench.wheel("digger", files={"digger.py": code})
    bench.install("digger").ok()
    bench.nothing_left()
    bench.run("rollback").ok()
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        for number in range(200):
            os.mkdir("d", dir_fd=directory)
            os.mkdir(f"beside{number}", dir_fd=directory)
            inner = os.open("d", os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = inner
    finally:
        os.close(directory)
    FS.remove_tree(tmp_path / "d")
    assert not (tmp_path / "d").exists()


# -- what a terminal shows -------------------------------------------------------------------------


def test_nothing_from_a_package_is_obeyed_by_a_terminal(bench: Bench, tmp_path: Path) -> None:
    """Names and texts of a foreign distribution are shown without control characters, by every command."""
    info = bench.site / f"odd{ESCAPE}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: odd{ESCAPE}\nVersion: 1{ESCAPE}\nSummary: s{ESCAPE}\x9b31m\n")
    (info / "RECORD").write_text("")
    try:
        shown = [
            bench.run("list"), bench.run("list", "--json"), bench.run("show", f"odd{ESCAPE}"),
            bench.run("show", "--json", f"odd{ESCAPE}"), bench.run("history"), bench.run("check"),
            bench.run("install", "--no-index", f"x{ESCAPE}"), bench.run("show", f"no{ESCAPE}"),
            bench.run("uninstall", f"no{ESCAPE}"),
        ]  # fmt: skip
    finally:
        shutil.rmtree(info)
    assert "odd" in shown[0].out
    for ran in shown:
        assert "Traceback" not in ran.err
        assert [c for c in ran.out + ran.err if not c.isprintable() and c != "\n"] == []


def test_changes_and_progress_are_not_obeyed_either(capsys: pytest.CaptureFixture[str]) -> None:
    """Summaries of changes, the note of who holds a lock and the live view show no control characters."""
    from siteswap.layout import Number
    from siteswap.manifest import Change

    outcome = Outcome(Number(2), Number(1), (Change(f"a{ESCAPE}", None, f"1{ESCAPE}"),), True)
    view = live.Live()
    live.Quiet().waiting(ESCAPE)
    view.phase("check")
    view.tried(ESCAPE, ESCAPE, "passed", 1)
    view.expect(f"name{ESCAPE}", 3)
    view.waiting(ESCAPE)
    view.stop()
    print(render.outcome_text(outcome))
    told = capsys.readouterr()
    assert "\x1b]" not in told.out + told.err
    assert "\x07" not in told.out + told.err


# -- requirements ----------------------------------------------------------------------------------

PATHOLOGICAL = [
    "x; " + "(" * 5000 + "python_version > '3'" + ")" * 5000,
    "x; " + " and ".join(["python_version > '3'"] * 20_000),
    "x==" + "9" * 9000,
    "x" + "==1," * 50_000,
    "x[" + "a," * 50_000 + "]",
    "x>=" + "1." * 20_000 + "1",
    "[" * 100_000,
    "x @ https://" + "a" * 100_000,
    "(" * 100_000,
    "x==1!" + "0" * 5000 + "1.0.*",
    "x\0y",
]


@pytest.mark.parametrize("line", PATHOLOGICAL, ids=lambda line: repr(line[:20]))
def test_pathological_requirements_end_in_time(line: str, tmp_path: Path) -> None:
    """A requirement that is too deep or too long is read or refused within seconds, wherever it stands."""
    begun = time.monotonic()
    file = tmp_path / "requirements.txt"
    file.write_text(f"{line}\n")
    for read in (lambda: parse_line(line, tmp_path, FS), lambda: parse_file(file, FS)):
        with contextlib.suppress(SiteswapError):
            read()
    python: Any = type(
        "Python", (), {"markers": {"python_version": "3.11", "extra": ""}, "version": "3.11.0"}
    )
    item = Distribution("w", "1.0", "", "", False, (line,), requires_python=line)
    found = dependencies.check([item, Distribution("x", "1.0", "", "", False)], python)
    assert all(finding.subject == "w" for finding in found)
    assert time.monotonic() - begun < 10


def test_pathological_requirements_of_a_wheel(bench: Bench, tmp_path: Path) -> None:
    """A wheel whose METADATA asks for nonsense by the kilobyte is refused, in lines that can be read."""
    more = "".join(f"Requires-Dist: {line}\n" for line in PATHOLOGICAL[:1] + PATHOLOGICAL[2:3])
    content = archive(
        parts_of("deep", metadata=said("deep", more=f"Requires-Python: >={'9' * 9000}\n{more}"))
    )
    path = write(tmp_path / "deep", "deep", content)
    ways: list[list[str | Path]] = [["install", "--no-index", path], ["sync", locked(tmp_path, path)]]
    for words in ways:
        with untouched(bench):
            assert max(map(len, refused(bench.run(*words)).err.splitlines())) < 3000


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "shake_128", "crc32"])
def test_weak_pins_are_refused(tmp_path: Path, algorithm: str) -> None:
    """`--hash` takes what pip takes: a pin that can be forged is none."""
    file = tmp_path / "requirements.txt"
    file.write_text(f"x==1 --hash={algorithm}:00\n")
    with pytest.raises(SiteswapError, match=r"no hash to rely on|not a requirement"):
        parse_file(file, FS)


# -- lock files --------------------------------------------------------------------------------------


def pylock(fields: str) -> str:
    """A lock of one package `w`."""
    return f'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "w"\n{fields}'


ZEROS = 'hashes = {sha256 = "' + "0" * 64 + '"}'
LOCKS = {
    "name": (pylock("").replace('"w"', '"../W"'), 2),
    "no hash": (pylock('version = "1.0"\n[[packages.wheels]]\nurl = "https://h/w-1.0-py3-none-any.whl"'), 2),
    "empty hashes": (
        pylock('version = "1.0"\n[[packages.wheels]]\npath = "w-1.0-py3-none-any.whl"\nhashes = {}\n'), 2),
    "quoted path in url": (
        pylock(f'[packages.archive]\nurl = "https://h.invalid/..%2F..%2Fevil.tar.gz%2f.."\n{ZEROS}\n'), 1),
    "nul in url": (pylock(f'[packages.archive]\nurl = "https://h.invalid/a%00b.whl"\n{ZEROS}\n'), 1),
    "scheme": (pylock(f'[packages.archive]\nurl = "ftp://h.invalid/w-1.0.tar.gz"\n{ZEROS}\n'), 1),
    "javascript": (pylock(f'[packages.archive]\nurl = "javascript:alert(1)"\n{ZEROS}\n'), 1),
    "file that is no wheel": (pylock(f'[packages.archive]\npath = "/etc/passwd"\n{ZEROS}\n'), 1),
    "subdirectory": (
        pylock(f'[packages.archive]\npath = "w.tar.gz"\nsubdirectory = "../../.."\n{ZEROS}\n'), 1),
    "commit": (
        pylock('[packages.vcs]\ntype = "git"\nurl = "https://h.invalid/r"\n'
               'commit-id = "--upload-pack=touch evil"\n'), 1),
    "repository": (
        pylock(f'[packages.vcs]\ntype = "git"\nurl = "--upload-pack=touch x"\ncommit-id = "{"0" * 40}"'), 1),
    "directory": (pylock('[packages.directory]\npath = "../nowhere"\n'), 1),
    "huge version": (pylock(f'version = "{"9" * 9000}"\n[packages.archive]\npath = "w.zip"\n{ZEROS}\n'), 2),
}  # fmt: skip


@pytest.mark.parametrize("case", LOCKS)
def test_lock_that_leads_elsewhere(bench: Bench, tmp_path: Path, case: str) -> None:
    """A lock with addresses, commits, paths or names that are none is refused before anything is written."""
    text, status = LOCKS[case]
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock/pylock.toml").write_text(text)
    before = {item for item in tmp_path.rglob("*") if "cache" not in item.parts}
    with untouched(bench):
        refused(bench.run("sync", tmp_path / "lock/pylock.toml"), status=status)
    assert {item for item in tmp_path.rglob("*") if "cache" not in item.parts} == before
    assert not list(bench.root.rglob("evil*"))


def test_names_of_files_come_from_one_part_of_an_address() -> None:
    """What is quoted in an address cannot make the download land in another directory."""
    for url in (
        "https://h/a/..%2F..%2Fevil.whl",
        "https://h/%2Fetc%2Fevil.whl",
        "https://h/a/evil.whl?x=/../y",
    ):
        assert Artifact("w", None, "wheel", url, {}).filename == "evil.whl"


def test_sizes_and_hashes_of_a_lock_are_held_against_the_file(bench: Bench, tmp_path: Path) -> None:
    """A lock with another size, another hash, or one of no known kind does not fit the file."""
    path = write(tmp_path / "good", "w", plain())
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    with untouched(bench):
        refused(bench.run("sync", lock(tmp_path / "pylock.toml", "w", "0" * 64, path)), "not the one")
        refused(bench.run("sync", lock(tmp_path / "pylock.toml", "w", good, path, size=10)), "more than 10")
        refused(bench.run("sync", lock(tmp_path / "pylock.toml", "w", good, path, size=10**9)), "expected")
        for kind in ("shake_128", "nonsense"):
            made = lock(tmp_path / "pylock.toml", "w", good, path)
            made.write_text(made.read_text().replace("sha256", kind))
            refused(bench.run("sync", made), "not the one")


# -- the cache ---------------------------------------------------------------------------------------


def filled(tmp_path: Path) -> tuple[Cache, str, Path]:
    """A cache with one entry, its hash and its directory."""
    cache = open_cache(tmp_path / "cache")
    sha256 = "a" * 64
    path = cache.incoming(sha256)
    path.mkdir()
    cache.seal(path, unpack(FS, write(tmp_path, "w", plain()), sha256, path))
    cache.publish([(path, sha256)])
    assert cache.find(sha256) is not None
    return cache, sha256, tmp_path / "cache/wheels" / sha256


@pytest.mark.parametrize(
    "change",
    [
        {"files": [["purelib", "../../../etc/evil", "sha256=x", 1, False]]},
        {"files": [["purelib", "/etc/evil", "sha256=x", 1, False]]},
        {"files": [["../../x", "evil", "sha256=x", 1, False]]},
        {"files": [[1, 2, 3, 4, 5]]},
        {"dist_info": "../../evil.dist-info"},
        {"dist_info": "a/b.dist-info"},
        {"root": "data"},
        {"scripts": [["../../evil", "a", "b", "console"]]},
        {"scripts": [["a/b", "a", "b", "console"]]},
        {"sha256": "b" * 64},
        {"files": 7},
        {"surprise": 1},
    ],
    ids=str,
)
def test_edited_cache_is_not_believed(tmp_path: Path, change: Mapping[str, Any]) -> None:
    """An entry whose index leads elsewhere, or is another wheel's, counts as damaged and is made anew."""
    cache, sha256, path = filled(tmp_path)
    data = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps({**data, **change}))
    assert cache.find(sha256) is None


def test_hash_of_a_lock_is_no_path_into_the_cache(tmp_path: Path) -> None:
    """What a lock calls a hash cannot name a directory: an entry prepared elsewhere is not found by it."""
    cache, sha256, path = filled(tmp_path)
    for name in (f"../wheels/{sha256}", str(path), f"{sha256}/", ".", "", sha256.upper()):
        assert cache.find(name) is None


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_cache_that_others_may_write_to_is_refused(bench: Bench, tmp_path: Path, mode: int) -> None:
    """Whoever may write to the cache could change what is installed: status 5, with the way out."""
    bench.wheel("cached")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    bench.variables["SITESWAP_CACHE_DIR"] = str(tmp_path / "open")
    with untouched(bench):
        refused(bench.install("cached"), "written to by others", "SITESWAP_CACHE_DIR", status=5)
    assert list((tmp_path / "open").iterdir()) == []


def test_cache_of_another_user_is_refused(tmp_path: Path) -> None:
    """A cache directory that belongs to somebody else is not used, not even by root."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    (tmp_path / "theirs").mkdir(mode=0o755)
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(SiteswapError, match="belongs to another user") as caught:
        open_cache(tmp_path / "theirs")
    assert caught.value.exit_status == 5


def test_own_cache_is_private(tmp_path: Path) -> None:
    """A cache directory that siteswap makes is for its user alone, whatever the umask."""
    mask = os.umask(0o002)
    try:
        open_cache(tmp_path / "a/b/cache")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a/b/cache").stat().st_mode) == 0o700


# -- sources -----------------------------------------------------------------------------------------


def tarball(path: Path, members: list[tuple[str, bytes, str]]) -> Path:
    """A source archive of (name, type, link target) each; files hold a line."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o777
            info.size = 5 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"evil\n") if info.size else None)
    return path


F, D, S, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
DEEP = "/".join(["d" * 247] * 16)
TARS: dict[str, list[tuple[str, bytes, str]]] = {
    "parent": [("../evil", F, "")],
    "parent inside": [("a/../../evil", F, "")],
    "absolute": [("/tmp/siteswap-evil", F, "")],
    "backslash": [("..\\evil", F, "")],
    "newline": [("a\nevil", F, "")],
    "link outside": [("a/evil", S, "../../outside")],
    "link absolute": [("evil", S, "/etc/passwd")],
    "link to nothing": [("evil", S, "")],
    "behind a link": [("a", S, "b"), ("b", D, ""), ("a/evil", F, "")],
    "link on a link": [("a", S, "."), ("a/evil", S, "..")],
    "links around": [("d/b", S, ".."), ("a", S, "d/b/.."), ("a/evil", F, "")],
    "link then file": [("evil", S, "b"), ("evil", F, "")],
    "long links": [(DEEP, D, ""), ("evil", S, DEEP + "/.." * 40)],
    "hard outside": [("evil", H, "../outside")],
    "hard absolute": [("evil", H, "/etc/passwd")],
    "hard to a link": [("a", S, "b"), ("evil", H, "a")],
    "hard forward": [("evil", H, "b"), ("b", F, "")],
    "fifo": [("evil", tarfile.FIFOTYPE, "")],
    "device": [("evil", tarfile.CHRTYPE, "")],
    "block device": [("evil", tarfile.BLKTYPE, "")],
    "deep": [("a/" * 300 + "evil", F, "")],
}


@pytest.mark.parametrize("case", TARS)
def test_source_archive_that_climbs(tmp_path: Path, case: str) -> None:
    """A source archive with paths, links or devices that lead elsewhere is refused before it is unpacked."""
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "tree").mkdir()
    with pytest.raises(SiteswapError, match="is not a source archive") as caught:
        FS.extract(tarball(tmp_path / "s-1.0.tar.gz", TARS[case]), tmp_path / "tree")
    assert caught.value.kind is Kind.REQUIREMENT
    assert list((tmp_path / "tree").iterdir()) == []
    assert {item.name for item in tmp_path.iterdir()} == {"outside", "tree", "s-1.0.tar.gz"}
    assert not Path("/tmp/siteswap-evil").exists()


def test_source_archive_with_ordinary_links(tmp_path: Path) -> None:
    """Links that stay inside are unpacked as they are, special bits are not."""
    members = [("s-1.0", D, ""), ("./s-1.0/a", F, ""), ("s-1.0/sub/l", S, "../a"), ("s-1.0/h", H, "s-1.0/a")]
    (tmp_path / "tree").mkdir()
    FS.extract(tarball(tmp_path / "s-1.0.tar.gz", members), tmp_path / "tree")
    assert (tmp_path / "tree/s-1.0/sub/l").read_text() == "evil\n"
    assert (tmp_path / "tree/s-1.0/h").read_text() == "evil\n"
    assert (tmp_path / "tree/s-1.0/a").stat().st_mode & 0o7022 == 0


def header(size: int, kind: bytes = F) -> bytes:
    """One header of a tar archive, its size as it is."""
    info = tarfile.TarInfo("x")
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 4 + struct.pack(">q", size) if size < 0 else block[124:136]
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\x1f\x8b" + b"x" * 50, b"BZh9" + b"x" * 50, header(-1024) + bytes(2048),
     header(-512) * 3, header(0, tarfile.XHDTYPE) * 3000, plain()],
    ids=["empty", "nonsense", "gzip", "bzip2", "backwards", "round", "headers", "zip"],
)  # fmt: skip
def test_source_archive_that_is_none(tmp_path: Path, content: bytes) -> None:
    """What is no source archive, or leads its reader in a circle, is refused in time."""
    path = tmp_path / "s-1.0.tar.gz"
    path.write_bytes(content)
    (tmp_path / "tree").mkdir()
    begun = time.monotonic()
    with pytest.raises(SiteswapError, match="is not a source archive"):
        FS.extract(path, tmp_path / "tree")
    assert time.monotonic() - begun < 10


def test_source_archive_that_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source archive that would fill the disk, in bytes or in files, is refused by its own account."""
    (tmp_path / "tree").mkdir()
    path = tarball(tmp_path / "s-1.0.tar.gz", [(f"f{number}", F, "") for number in range(50)])
    for name, value in (("ANY_SIZE", 200), ("MOST_MEMBERS", 20)):
        with monkeypatch.context() as changed:
            changed.setattr(archives, name, value)
            changed.setattr(archives, "MOST_TIMES", 0 if name == "ANY_SIZE" else 100)
            with pytest.raises(SiteswapError, match="is not a source archive"):
                FS.extract(path, tmp_path / "tree")
    assert list((tmp_path / "tree").iterdir()) == []


def test_zipped_source_is_read_as_strictly(tmp_path: Path) -> None:
    """A source archive of the other kind follows the rules for wheels."""
    (tmp_path / "tree").mkdir()
    for content in (archive([Part("../evil", b"x")]), archive([Part("a", b"x")]) + b"trailing"):
        (tmp_path / "s-1.0.zip").write_bytes(content)
        with pytest.raises(SiteswapError, match="is not a source archive"):
            FS.extract(tmp_path / "s-1.0.zip", tmp_path / "tree")
    (tmp_path / "s-1.0.zip").write_bytes(archive([Part("s/way", b"/etc", mode=0o120777), Part("s/a", b"x")]))
    FS.extract(tmp_path / "s-1.0.zip", tmp_path / "tree")
    assert not (tmp_path / "tree/s/way").is_symlink()


BACKEND = """
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    {body}
"""
LIES = {
    "another name": "return make(directory, 'stranger', 'stranger-1.0-py3-none-any.whl')",
    "another file name": "return make(directory, 'w', 'stranger-1.0-py3-none-any.whl')",
    "elsewhere": "make(directory, 'w', '../w-1.0-py3-none-any.whl'); return '../w-1.0-py3-none-any.whl'",
    "nothing": "return 'w-1.0-py3-none-any.whl'",
    "no wheel": "open(os.path.join(directory, 'w.whl'), 'w').close(); return 'w.whl'",
}
MAKE = """
def make(directory, name, file):
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(directory, file), "w") as z:
        z.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        z.writestr(f"{info}/RECORD", f"{info}/METADATA,,\\n{info}/WHEEL,,\\n{info}/RECORD,,\\n")
    return file
"""


@pytest.mark.parametrize("case", LIES)
def test_build_that_lies(bench: Bench, tmp_path: Path, case: str) -> None:
    """A build backend that makes another distribution's wheel, none, or one elsewhere gets nothing in."""
    project = tmp_path / "w"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "w"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (project / "backend.py").write_text(BACKEND.format(body=LIES[case]) + MAKE)
    (tmp_path / "pylock.toml").write_text(pylock('[packages.directory]\npath = "w"\n'))
    with untouched(bench):
        refused(bench.run("sync", tmp_path / "pylock.toml"))


# -- indexes -----------------------------------------------------------------------------------------


class Server:
    """A server on this machine that answers as a function says, by http or https."""

    def __init__(self, tls: Path | None = None) -> None:
        self.answers: Callable[[http.server.BaseHTTPRequestHandler], None] = lambda _: None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):  # the other side may have seen enough
                    outer.answers(self)

            do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server by http."""
    found = Server()
    yield found
    found.close()


def send(request: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """An answer, with the right length unless `headers` say another."""
    request.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        if value:
            request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


def got(url: str, target: Path, content: bytes, size: int | None = None) -> None:
    """Fetch what should be `content`."""
    digest = {"sha256": hashlib.sha256(content).hexdigest()}
    Fetcher(FS).fetch(Artifact("w", "1.0", "wheel", url, digest, size), target, lambda _: None)


def test_redirect_to_a_place_without_encryption(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect from https to anything less is refused, however it is spelled; others are followed."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    tls = tmp_path / "tls.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tls,
         "-out", tmp_path / "c.pem",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls.write_bytes(tls.read_bytes() + (tmp_path / "c.pem").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c.pem"))
    safe = Server(tls)
    asked, where = list[str](), [""]

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path == "/start":
            send(request, b"", 302, Location=where[0])
        else:
            send(request, b"content")

    safe.answers = answer
    server.answers = lambda request: asked.append(request.path)
    try:
        for where[0] in (f"{server.url}/x", f"{server.url}/x".replace("http:", "HTTP:"), "ftp://h.invalid/x"):
            with pytest.raises(SiteswapError, match="redirects from https to"):
                got(f"{safe.url}/start", tmp_path / "file", b"content")
        where[0] = "//" + safe.url.partition("//")[2] + "/x"
        got(f"{safe.url}/start", tmp_path / "good", b"content")
        got(f"{safe.url}/x".replace("https:", "HTTPS:"), tmp_path / "good2", b"content")
    finally:
        safe.close()
    assert asked == []
    assert (tmp_path / "good").read_bytes() == b"content"


@pytest.mark.parametrize("announced", ["", "1000000000"])
def test_endless_bytes_end_where_the_lock_says(tmp_path: Path, server: Server, announced: str) -> None:
    """A server that sends more than the locked size is cut off there, not once the disk is full."""
    sent = list[int]()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        send(request, b"", Content_Length=announced)
        while len(sent) < 2000:
            request.wfile.write(bytes(1 << 20))
            sent.append(1)

    server.answers = answer
    with pytest.raises(SiteswapError, match="expected 1000 bytes, more than 1000 arrived"):
        got(f"{server.url}/w", tmp_path / "file", b"", size=1000)
    assert len(sent) < 100
    assert (tmp_path / "file").stat().st_size <= 1000


def test_trickle_without_end_is_given_up(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends a byte now and then, for ever, is not listened to for ever."""
    monkeypatch.setattr(fetch, "_PATIENCE", 0.5)

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        send(request, b"", Content_Length="100000")
        for _ in range(600):
            request.wfile.write(b"x")
            time.sleep(0.05)

    server.answers = answer
    begun = time.monotonic()
    with pytest.raises(SiteswapError, match="arrives too slowly"):
        got(f"{server.url}/w", tmp_path / "file", b"")
    assert time.monotonic() - begun < 10


def test_coding_and_type_that_a_server_claims_do_not_matter(tmp_path: Path, server: Server) -> None:
    """A file is what its hash says: a wrong type is passed over, and a coding is not undone, bomb or not."""
    packed = zlib.compress(bytes(50 << 20), 9)
    server.answers = lambda request: send(
        request, packed, Content_Type="text/html", Content_Encoding="deflate", Content_Disposition="a/../../x"
    )
    got(f"{server.url}/w", tmp_path / "file", packed, size=len(packed))
    assert (tmp_path / "file").read_bytes() == packed


def pages(server: Server, links: str, files: Mapping[str, list[bytes]]) -> None:
    """An index of one page, and files; of each, the next version with each whole download."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.path.rpartition("/")[2]
        if request.path == "/simple/w/":
            send(request, f"<html><body>{links}</body></html>".encode(), Content_Type="text/html")
        elif name in files:
            versions = files[name]
            mine = request.headers["User-Agent"] == "siteswap" and request.command == "GET"
            send(request, versions.pop(0) if mine and len(versions) > 1 else versions[0])
        else:
            send(request, b"", 404)

    server.answers = answer


def from_index(bench: Bench, server: Server) -> Ran:
    """Install `w` from the server; what is there already is known from elsewhere."""
    known = ("--find-links", bench.wheels)
    return bench.run("install", "--index-url", f"{server.url}/simple", *known, "w")


def test_file_that_changes_after_resolving(bench: Bench, server: Server) -> None:
    """An index that hands out another file than it announced changes nothing; both hashes are named."""
    name = "w-1.0-py3-none-any.whl"
    announced = hashlib.sha256(plain()).hexdigest()
    other = archive(parts_of("w", [Part("evil.py", b"evil\n")]))
    other_hash = hashlib.sha256(other).hexdigest()
    pages(server, f'<a href="/files/{name}#sha256={announced}">{name}</a>', {name: [other]})
    with untouched(bench):
        refused(from_index(bench, server), other_hash)


def test_links_that_are_no_files_of_an_index(bench: Bench, server: Server, tmp_path: Path) -> None:
    """Links to scripts are no files; one to a file of this machine brings that wheel, read like any other."""
    local = write(tmp_path / "local", "w", plain())
    links = "".join(
        f'<a href="{target}">w-1.0-py3-none-any.whl</a>'
        for target in ("javascript:alert(1)//w-1.0-py3-none-any.whl", "data:,w-1.0-py3-none-any.whl")
    )
    pages(server, links, {})
    with untouched(bench):
        refused(from_index(bench, server))
    pages(server, f'<a href="{local.as_uri()}">{local.name}</a>', {})
    from_index(bench, server).ok()
    assert (bench.site / "w.py").read_bytes() == b"x = 1\n"
    bench.run("rollback").ok()


# -- paths -------------------------------------------------------------------------------------------

NASTY = [
    "-rf",
    "$(touch evil)",
    "`touch evil`",
    "a;touch evil",
    "a'b\"c",
    "ünï cödé",
    "%s {0} @PROMPT@",
    "a\\nb",
]
SHELLS = {
    "sh": "activate",
    "bash": "activate",
    "zsh": "activate",
    "fish": "activate.fish",
    "tcsh": "activate.csh",
}


@pytest.mark.parametrize("name", NASTY)
def test_environment_whose_path_is_code(siteswap: Siteswap, tmp_path: Path, wheels: Path, name: str) -> None:
    """A path with quotes, `$()` or backticks is a path to every shell, in shebangs and in pyvenv.cfg."""
    wheel(
        wheels, "demo", files={"demo.py": "def main():\n    print('runs')\n"}, scripts={"demo": "demo:main"}
    )
    env = tmp_path / name
    siteswap("create", env).ok()
    siteswap("install", "-e", env, "--no-index", "-f", wheels, "--no-check", "demo").ok()
    assert subprocess.run([env / "bin/demo"], capture_output=True, text=True).stdout == "runs\n"
    assert run_python(env / "bin/python", "import sys; print(sys.prefix)").startswith(str(env))
    for shell, script in SHELLS.items():
        if shutil.which(shell) is None:
            continue
        source = "source" if shell in ("fish", "tcsh") else "."
        (tmp_path / "program").write_text(f"{source} bin/{script}\ndemo\ndeactivate\n")
        flags = {"tcsh": ["-f"], "fish": ["--no-config"]}.get(shell, [])
        done = subprocess.run(
            [shell, *flags, tmp_path / "program"], cwd=env, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )  # fmt: skip
        assert (shell, done.stdout, done.returncode) == (shell, "runs\n", 0), done.stderr
    assert not [item for item in tmp_path.rglob("*") if item.name == "evil"]


@pytest.mark.parametrize("name", ["a\nhome = b", "a\rb", f"a{ESCAPE}", "a\x9bb"])
def test_environment_whose_path_a_terminal_would_obey(siteswap: Siteswap, tmp_path: Path, name: str) -> None:
    """Control characters in a path end no line of pyvenv.cfg, and no command shows them as they are."""
    env = tmp_path / name
    made, again = siteswap("create", env).ok(), siteswap("create", env)
    listed = siteswap("list", "-e", env).ok()
    assert run_python(env / "bin/python", "import sys; print(ascii(sys.prefix))").strip("'").startswith("/")
    assert (env / "pyvenv.cfg").read_bytes().count(b"home = ") == 1
    told = made.out + made.err + again.err + listed.out + listed.err
    assert [c for c in told if not c.isprintable() and c != "\n"] == []
    refused(again, "is an environment already", status=2)


def test_lock_of_the_environment_is_not_taken_over(bench: Bench) -> None:
    """After all of that the environment is what it was: one distribution that runs."""
    assert bench.run("list", "--json").json[0]["name"] == "resident"
    assert current(bench.env) >= 2
    assert LockFile.parse(bench.run("export").ok().out, bench.root, "the export").names == {"resident"}
    done = subprocess.run([bench.env / "bin/resident"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("1.0\n", 0)
