"""Archives with bytes changed at random: read in the one way that all readers agree on, or refused.

The default run takes seconds; SITESWAP_STRESS=1 takes minutes. A failure names the seed that brings it back.
"""

from __future__ import annotations

import functools
import io
import random
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import STRESS
from crooked import Part, archive, parts_of, write
from siteswap import archive as archives
from siteswap.archive import ArchiveError
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.wheels import unpack

INPUTS = 600_000 if STRESS else 10_000
WHEELS = 40_000 if STRESS else 500
SIGNATURES = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08")
NUMBERS = (
    0,
    1,
    2,
    8,
    9,
    0x41,
    0x7F,
    0xFF,
    0xFFFE,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFFF,
    1 << 32,
    (1 << 64) - 1,
)


# -- what is mutated --------------------------------------------------------------------------------


class Unseekable(io.BytesIO):
    """A stream that is only written to, which makes `zipfile` put sizes after the data."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError

    def seek(self, *_: int) -> int:
        raise OSError


def written(stream: io.BytesIO, *, wide: bool = False) -> bytes:
    """What `zipfile` writes."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.mkdir("w")
        for name, content in {
            "w/__init__.py": b"x = 1\n" * 9,
            "w/\xe9.py": b"",
            "w/data": bytes(200),
        }.items():
            with opened.open(name, "w", force_zip64=wide) as member:
                member.write(content)
    return stream.getvalue()


@functools.cache
def sound() -> tuple[bytes, ...]:
    """Archives of every form that is allowed."""
    body = b"y = 2\n"
    size = len(zlib.compress(body, 9)) - 6
    after = struct.pack("<4s3L", b"PK\x07\x08", zlib.crc32(body), size, len(body))
    wide = struct.pack("<2H2Q", 1, 16, len(body), size)
    later: dict[str, int | bytes] = {"flags": 8}
    unknown: dict[str, int | bytes] = {"crc": 0, "size": 0, "compressed": 0}
    large: dict[str, int | bytes] = {"size": 0xFFFFFFFF, "compressed": 0xFFFFFFFF, "extra": wide}
    members = [
        Part("stored.py", body, method=0),
        Part("later.py", body, descriptor=after, local={**later, **unknown}, central=later),
        Part("unmarked.py", body, descriptor=after[4:], local=later, central=later),
        Part("wide.py", body, local=large, central=large),
        Part("padded.py", body, local={"extra": bytes(7)}),
        Part("directory/", mode=0o040755, recorded=False),
    ]  # fmt: skip
    made = (
        archive(parts_of("w")),
        archive(parts_of("w", members), comment=b"made by somebody", wide={}),
        archive(parts_of("w", members[:2], points=b"[console_scripts]\nw = w:main\n")),
        written(io.BytesIO()),
        written(io.BytesIO(), wide=True),
        written(Unseekable()),
    )
    assert all(judge(content) for content in made), "each is read as it is"
    return made


# -- how --------------------------------------------------------------------------------------------


def at(random: random.Random, data: bytes) -> int:
    """A position: often just behind a signature, where the fields are, else anywhere."""
    if random.random() < 0.6:
        signature = random.choice(SIGNATURES)
        found = [place for place in range(len(data)) if data.startswith(signature, place)]
        if found:
            return min(random.choice(found) + random.randrange(60), len(data))
    return random.randrange(len(data) + 1)


def flip(random: random.Random, data: bytes) -> bytes:
    place = min(at(random, data), len(data) - 1)
    return data[:place] + bytes([data[place] ^ (1 << random.randrange(8))]) + data[place + 1 :]


def number(random: random.Random, data: bytes) -> bytes:
    width, form = random.choice(((1, "<B"), (2, "<H"), (4, "<L"), (8, "<Q")))
    place = at(random, data)
    old = int.from_bytes(data[place : place + width], "little")
    new = random.choice((*NUMBERS, len(data), old + 1, max(old - 1, 0), old * 2)) % (1 << (8 * width))
    return data[:place] + struct.pack(form, new) + data[place + width :]


def cut(random: random.Random, data: bytes) -> bytes:
    place = at(random, data)
    return data[:place] if random.random() < 0.3 else data[:place] + data[place + random.randrange(1, 90) :]


def repeat(random: random.Random, data: bytes) -> bytes:
    """A piece again, in its own place or another: whole records, often."""
    starts = [place for place in range(len(data)) if data[place : place + 2] == b"PK"] or [0]
    start = random.choice(starts)
    end = random.choice([place for place in starts if place > start] or [len(data)])
    place = random.choice([*starts, at(random, data)])
    return data[:place] + data[start:end] + data[place:]


def splice(random: random.Random, data: bytes) -> bytes:
    other = random.choice(sound())
    return data[: at(random, data)] + other[at(random, other) :]


def counted(random: random.Random, data: bytes) -> bytes:
    """A record of the central directory twice, with everything that counts them put right."""
    end, first = data.rfind(b"PK\x05\x06"), data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", first + 4)
    if end < 0 or second < 0 or len(data) < end + 22:
        return data
    here, count, size = struct.unpack_from("<2HL", data, end + 8)
    record = data[first:second]
    fields = struct.pack("<2HL", (here + 1) % 65536, (count + 1) % 65536, (size + len(record)) % (1 << 32))
    return data[:second] + record + data[second : end + 8] + fields + data[end + 16 :]


def swap(random: random.Random, data: bytes) -> bytes:
    """A byte of a name or of content replaced everywhere: the two headers of a member stay in agreement."""
    names = [b"stored.py", b"later.py", b"w.py", b"w/data", b"METADATA", b"RECORD"]
    old = random.choice(names)
    new = bytearray(old)
    new[random.randrange(len(new))] = random.choice(b"/\\.\0\x1b:AW\xff\xc3")
    return data.replace(old, bytes(new))


WAYS: tuple[Callable[[random.Random, bytes], bytes], ...] = (flip, number, cut, repeat, splice, counted, swap)


def mutated(seed: int) -> bytes:
    """A sound archive with one to four changes."""
    chance = random.Random(seed)
    data = chance.choice(sound())
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = chance.choice(WAYS)(chance, data) or b"P"
    return data


# -- what must hold ----------------------------------------------------------------------------------


def walk(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The members as a reader finds them that starts at the first byte and never looks at the end."""
    place = 0
    while data[place : place + 4] == b"PK\x03\x04":
        flags, method, crc, packed, size, name_length, extra_length = struct.unpack_from(
            "<2xHH4x3L2H", data, place + 4
        )
        name = data[place + 30 : place + 30 + name_length]
        extra = data[place + 30 + name_length :][:extra_length]
        place += 30 + name_length + extra_length
        while len(extra) >= 4 and (packed == 0xFFFFFFFF or size == 0xFFFFFFFF):
            kind, length = struct.unpack_from("<2H", extra)
            if kind == 1:
                size, packed = struct.unpack_from("<2Q", extra, 4)
            extra = extra[4 + length :]
        if method == 8:
            inflate = zlib.decompressobj(-15)
            content = inflate.decompress(data[place:]) + inflate.flush()
            used = len(data) - place - len(inflate.unused_data)
        else:
            content, used = data[place : place + packed], packed
        place += used
        if flags & 8:
            candidates = [
                length
                for length, form in ((16, "<4s3L"), (24, "<4sL2Q"), (12, "<3L"), (20, "<L2Q"))
                if struct.unpack_from(form, data[place:].ljust(24))[-3:]
                == (zlib.crc32(content), used, len(content))
            ]
            place += candidates[0]
        else:
            assert (crc, size) == (zlib.crc32(content), len(content))
        yield name.decode(), content
    assert data[place : place + 4] in (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06")


def judge(data: bytes) -> bool:
    """Whether the archive is taken; then all three readers must find the same. Raises for anything else."""
    stream = io.BytesIO(data)
    try:
        members = archives.members(stream)
        mine = [(member.name, b"".join(archives.content(stream, member))) for member in members]
    except ArchiveError:
        return False
    assert sum(len(content) for _, content in mine) == sum(member.size for member in members)
    assert sum(member.size for member in members) <= max(archives.ANY_SIZE, len(data) * archives.MOST_TIMES)
    for name, _ in mine:
        assert not {"", ".", ".."} & set(name.removesuffix("/").split("/"))
        assert name.isprintable()
        assert "\\" not in name
    with zipfile.ZipFile(stream) as opened:
        assert [(info.filename, opened.read(info)) for info in opened.infolist()] == mine
    assert sorted(walk(data)) == sorted(mine)
    return True


@pytest.mark.parametrize("part", range(4))
def test_changed_bytes_have_one_meaning_or_none(part: int) -> None:
    """Here, `zipfile` and a walk from header to header find the same members and bytes, or it is refused."""
    verdicts = Counter[bool]()
    for seed in range(part, INPUTS, 4):
        try:
            verdicts[judge(mutated(seed))] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    assert verdicts[False] > verdicts.total() // 2, "hardly anything was changed"
    assert verdicts[True] > verdicts.total() // 200, "nothing was left to compare"


def test_changed_wheels_are_unpacked_inside_or_refused(tmp_path: Path) -> None:
    """Whatever the bytes, unpacking writes below its target or raises the documented error."""
    (tmp_path / "a/b").mkdir(parents=True)
    target = tmp_path / "a/b/target"
    for seed in range(WHEELS):
        target.mkdir()
        content = mutated(seed)
        path = write(tmp_path, "w", content)
        try:
            index = unpack(FileSystem(), path, "0" * 64, target)
            with zipfile.ZipFile(path) as opened:
                for file in index.files:
                    assert (target / file.scheme / file.path).read_bytes() == opened.read(file.path)
        except Exception as error:
            if not isinstance(error, SiteswapError) or error.kind is not Kind.REQUIREMENT:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        shutil.rmtree(target)
        assert {item.relative_to(tmp_path).as_posix() for item in tmp_path.rglob("*")} == {
            "a",
            "a/b",
            path.name,
        }


def test_sound_archives_are_read_as_other_readers_do(tmp_path: Path) -> None:
    """Members and bytes of every allowed form are those that `unzip` finds."""
    if shutil.which("unzip") is None:
        pytest.skip("needs unzip")
    for number_, content in enumerate(sound()):
        path = tmp_path / f"{number_}.zip"
        path.write_bytes(content)
        out = tmp_path / str(number_)
        done = subprocess.run(["unzip", "-q", path, "-d", out], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        stream = io.BytesIO(content)
        for member in archives.members(stream):
            if not member.name.endswith("/"):
                assert (out / member.name).read_bytes() == b"".join(archives.content(stream, member))
