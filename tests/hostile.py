"""An environment that every refusal leaves as it is, and what is tried on it. Used by tests only."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import Bench, exact
from conftest import Ran, Siteswap
from crooked import Part, archive, parts_of, write
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.wheels import unpack
from snapshots import state

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
FS = FileSystem()


def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test unpacked is not here."""
    monkeypatch.setenv("SITESWAP_CACHE_DIR", str(tmp_path / "cache"))


def inhabited(root: Path, siteswap: Siteswap) -> Bench:
    """The environment below `root`, with one distribution in it; made when it is first asked for."""
    found = Bench(siteswap, root)
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


def odd(**more: Any) -> bytes:
    """A wheel with one member `odd.py` that is not quite right."""
    return archive(parts_of("w", [Part("odd.py", b"y = 2\n", **more)]))


def plain() -> bytes:
    """A wheel that is right."""
    return archive(parts_of("w"))


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


def said(name: str = "w", version: str = "1.0", more: str = "") -> bytes:
    """METADATA."""
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}".encode()


def pylock(fields: str) -> str:
    """A lock of one package `w`."""
    return f'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "w"\n{fields}'
