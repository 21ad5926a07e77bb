"""Wheels whose archive says one thing in one place and another elsewhere. Used by tests only."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Fields = Mapping[str, int | bytes]


@dataclass(frozen=True)
class Part:
    """One member; `local` and `central` override fields of its two headers."""

    name: str
    content: bytes = b""
    mode: int = 0o100644
    method: int = zlib.DEFLATED
    packed: bytes | None = None
    descriptor: bytes = b""
    recorded: bool = True
    local: Fields = field(default_factory=dict)
    central: Fields = field(default_factory=dict)


def archive(
    parts: Sequence[Part],
    *,
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
    wide: Fields | None = None,
    end: Fields | None = None,
) -> bytes:
    """A zip archive of these parts.

    `before`, `between` (members and central directory) and `after` are bytes that do not
    belong; `wide` adds the 64-bit end records, with these fields changed.
    """
    body, directory = bytearray(before), bytearray()
    for part in parts:
        packed = part.packed
        if packed is None:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = packer.compress(part.content) + packer.flush() if part.method else part.content
        common: dict[str, int | bytes] = {
            "flags": 0, "method": part.method, "crc": zlib.crc32(part.content), "compressed": len(packed),
            "size": len(part.content), "name": part.name.encode("utf-8", "surrogateescape"), "extra": b"",
        }  # fmt: skip
        if not part.name.isascii():
            common["flags"] = 1 << 11
        here, there = {**common, **part.local}, {**common, "offset": len(body), **part.central}
        body += struct.pack(
            "<4s5H3L2H", b"PK\x03\x04", 20, here["flags"], here["method"], 0, 0x21, here["crc"],
            here["compressed"], here["size"], len(bytes(here["name"])), len(bytes(here["extra"])),
        ) + bytes(here["name"]) + bytes(here["extra"]) + packed + part.descriptor  # fmt: skip
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 0x0314, there.get("version", 20), there["flags"], there["method"],
            0, 0x21, there["crc"],
            there["compressed"], there["size"], len(bytes(there["name"])), len(bytes(there["extra"])),
            0, there.get("disk", 0), 0, part.mode << 16, there["offset"],
        ) + bytes(there["name"]) + bytes(there["extra"])  # fmt: skip
    body += between
    start = len(body)
    body += directory
    values: dict[str, int | bytes] = {"count": len(parts), "size": len(directory), "start": start}
    if wide is not None:
        far = {**values, "place": len(body), **wide}
        body += struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", far.get("length", 44), 45, 45, far.get("disk", 0), 0,
                            far["count"], far["count"], far["size"], far["start"])  # fmt: skip
        body += struct.pack("<4sLQL", b"PK\x06\x07", 0, far["place"], 1)
    near = {**values, **(end or {})}
    body += struct.pack(
        "<4s4H2LH", b"PK\x05\x06", near.get("disk", 0), 0, near.get("here", near["count"]), near["count"],
        near["size"], near["start"], len(comment),
    )  # fmt: skip
    return bytes(body + comment + after)


def parts_of(
    name: str,
    extra: Sequence[Part] = (),
    *,
    metadata: bytes | None = None,
    about: bytes | None = None,
    points: bytes | None = None,
    record: bytes | None = None,
    more_rows: str = "",
    info: str | None = None,
) -> list[Part]:
    """The members of a wheel of one module `name` in version 1.0, with a RECORD that agrees with them."""
    info = info or f"{name}-1.0.dist-info"
    default = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    parts = [
        Part(f"{name}.py", b"x = 1\n"),
        *extra,
        Part(f"{info}/METADATA", default if metadata is None else metadata),
        Part(f"{info}/WHEEL", about or b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ]
    if points is not None:
        parts.append(Part(f"{info}/entry_points.txt", points))
    return [*parts, Part(f"{info}/RECORD", record_of(parts, info, more_rows) if record is None else record)]


def record_of(parts: Sequence[Part], info: str, more: str = "") -> bytes:
    """A RECORD of these parts."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for part in parts:
        if part.recorded:
            digest = base64.urlsafe_b64encode(hashlib.sha256(part.content).digest()).decode().rstrip("=")
            rows.writerow((part.name, f"sha256={digest}", len(part.content)))
    return (text.getvalue() + more + f"{info}/RECORD,,\n").encode("utf-8", "surrogateescape")


def write(directory: Path, name: str, content: bytes) -> Path:
    """A wheel's file with that content."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-1.0-py3-none-any.whl"
    path.write_bytes(content)
    return path
