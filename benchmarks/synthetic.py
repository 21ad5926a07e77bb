"""Wheels that nobody wrote: always the same for the same name, for their content comes from a fixed seed."""

from __future__ import annotations

import base64
import hashlib
import random
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

_SEED = "siteswap benchmarks"
_MIB = 1 << 20

Pieces = Callable[[], Iterable[bytes]]
"""Makes a file's content, a piece after the other."""


def small(directory: Path, number: int) -> Path:
    """A distribution like most: a package with a dozen modules and a program."""
    dice = random.Random(f"{_SEED} {number}")
    name = f"bench_small_{number:03}"
    files = {f"{name}/__init__.py": f"from {name} import part0\n\n\ndef main():\n    print(part0.VALUE)\n"}
    for part in range(dice.randint(6, 18)):
        files[f"{name}/part{part}.py"] = _module(dice)
    files[f"{name}/data/table.csv"] = "".join(f"{dice.random()}\n" for _ in range(dice.randint(10, 400)))
    return write(directory, name, "1.0", {path: text.encode() for path, text in files.items()}, script=True)


def subject(directory: Path, name: str, version: str) -> Path:
    """The distribution that is upgraded in quick runs; it knows its version."""
    dice = random.Random(f"{_SEED} {name} {version}")
    files = {f"{name}/__init__.py": f"__version__ = {version!r}\n".encode()}
    files |= {f"{name}/part{part}.py": _module(dice).encode() for part in range(12)}
    return write(directory, name, version, files)


def heavy(directory: Path, mebibytes: int) -> Path:
    """One file of so many MiB, of which a half can be compressed."""
    name = f"bench_heavy_{mebibytes}"
    path = directory / f"{name}-1.0-py3-none-any.whl"
    if path.exists():
        return path

    def pieces() -> Iterator[bytes]:
        dice = random.Random(f"{_SEED} {name}")
        for _ in range(mebibytes):
            yield dice.randbytes(_MIB // 2) + bytes(_MIB // 2)

    return write(directory, name, "1.0", {f"{name}/__init__.py": b""}, large=(f"{name}/blob.bin", pieces))


def _module(dice: random.Random) -> str:
    lines = ["import os", f"VALUE = {dice.random()}"]
    for number in range(dice.randint(5, 60)):
        lines += [
            "",
            "",
            f"def f{number}(a, b={dice.randint(0, 99)}):",
            f"    return a * b + {dice.random()}",
        ]
    return "\n".join(lines) + "\n"


def write(
    directory: Path,
    name: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    script: bool = False,
    large: tuple[str, Pieces] | None = None,
) -> Path:
    """Write a pure-Python wheel, unless it is there; its path. `large` is a file that is made in pieces."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    if path.exists():
        return path
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    texts = {
        **files,
        f"{about}/METADATA": metadata.encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        texts[f"{about}/entry_points.txt"] = _entry(name)
    contents: dict[str, Pieces] = {inside: _whole(body) for inside, body in texts.items()}
    if large is not None:
        contents[large[0]] = large[1]
    rows = []
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for inside, pieces in contents.items():
            digest, size = hashlib.sha256(), 0
            with archive.open(_info(inside), "w") as stream:
                for piece in pieces():
                    stream.write(piece)
                    digest.update(piece)
                    size += len(piece)
            code = base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
            rows.append(f"{inside},sha256={code},{size}\n")
        record = "".join([*rows, f"{about}/RECORD,,\n"])
        archive.writestr(_info(f"{about}/RECORD"), record)
    part.rename(path)
    return path


def _whole(body: bytes) -> Pieces:
    return lambda: [body]


def _entry(name: str) -> bytes:
    return f"[console_scripts]\n{name.replace('_', '-')} = {name}:main\n".encode()


def _info(path: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    return info
