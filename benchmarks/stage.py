"""What is installed: wheels in one directory, a lock for each size. Made once, then used without network."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import synthetic

LIST = Path(__file__).parent / "distributions.txt"

REAL_SIZE = 130
"""How many that are: the size that most lines are about."""

HEAVY = (10, 100, 400)
"""Sizes in MiB of the largest wheel, for the memory that an install needs."""


@dataclass(frozen=True)
class Subject:
    """The distribution that is upgraded: pure Python, with a `__version__`."""

    name: str
    versions: tuple[str, ...]
    """The first is that of the locks. Three, so that there is always one that differs from two others."""


REAL = Subject("requests", ("2.34.2", "2.34.1", "2.34.0"))
SYNTHETIC = Subject("bench_subject", ("1.0", "1.1", "1.2"))


@dataclass(frozen=True)
class Stage:
    """Where everything is."""

    root: Path
    sizes: tuple[int, ...]
    main: int
    """The size that most lines are about."""
    subject: Subject
    stack: str
    """A statement that imports something heavy in an environment of the main size."""
    heavy: tuple[int, ...]
    uv: Path
    """The newest one."""
    pip: str | None
    """A requirement for the newest one, or for what the interpreter brings; None: without pip."""
    synthetic: int
    """How many distributions of the largest size are synthetic."""

    @property
    def wheels(self) -> Path:
        """The directory for --find-links."""
        return self.root / "wheels"

    def lock(self, name: int | str) -> Path:
        """A pylock.toml that names files."""
        return self.root / f"pylock.{name}.toml"

    def requirements(self, size: int) -> Path:
        """The same for pip: pins with hashes."""
        return self.root / f"requirements.{size}.txt"


def real(root: Path, sizes: Sequence[int]) -> Stage:
    """The pinned set from the index, synthetic wheels on top for sizes beyond it, the newest uv and pip."""
    wheels = root / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pins = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    _download(root, wheels, pins)
    for version in REAL.versions[1:]:
        _download(root, wheels, [f"{REAL.name}=={version}"])
    tools = _newest(root)
    found = _by_pin(wheels)
    chosen = [found[_of(pin)] for pin in pins]
    chosen += [synthetic.small(wheels, number) for number in range(max(sizes) - len(chosen))]
    return _locked(
        Stage(
            root,
            tuple(sizes),
            REAL_SIZE,
            REAL,
            "import pandas, sklearn.ensemble, matplotlib.pyplot, sqlalchemy, django.db.models",
            HEAVY,
            tools / "bin/uv",
            _pip(root, wheels),
            max(sizes) - REAL_SIZE,
        ),
        chosen,
    )


def quick(root: Path, sizes: Sequence[int], uv: Path) -> Stage:
    """Small synthetic wheels, that uv, and the pip that the interpreter brings. No network."""
    wheels = root / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    chosen = [synthetic.subject(wheels, SYNTHETIC.name, version) for version in SYNTHETIC.versions][:1]
    chosen += [synthetic.small(wheels, number) for number in range(max(sizes) - 1)]
    main = sorted(sizes)[-2]
    stack = "import " + ", ".join(path.name.partition("-")[0] for path in chosen[:main])
    bundled = sorted(Path(sys.base_prefix).glob("lib/python3.*/ensurepip/_bundled/pip-*.whl"))
    for path in bundled[-1:]:
        (wheels / path.name).write_bytes(path.read_bytes())
    return _locked(
        Stage(root, tuple(sizes), main, SYNTHETIC, stack, (1, 4), uv, "pip" if bundled else None, max(sizes)),
        chosen,
    )


def _locked(stage: Stage, chosen: Sequence[Path]) -> Stage:
    for size in stage.sizes:
        _write_lock(stage.lock(size), chosen[:size])
        lines = [f"{name}=={version} --hash=sha256:{_digest(path)}\n" for path in chosen[:size]
                 for name, version in [_identity(path)]]  # fmt: skip
        stage.requirements(size).write_text("".join(lines))
    for size in stage.heavy:
        # A directory of its own, so that nobody has to list what only this is about.
        directory = stage.root / "heavy"
        directory.mkdir(exist_ok=True)
        _write_lock(stage.lock(f"heavy{size}"), [synthetic.heavy(directory, size)])
    return stage


def _write_lock(path: Path, wheels: Sequence[Path]) -> None:
    text = 'lock-version = "1.0"\ncreated-by = "siteswap benchmarks"\n'
    for wheel in wheels:
        name, version = _identity(wheel)
        place = json.dumps(str(wheel.relative_to(path.parent)))
        text += (
            f"\n[[packages]]\nname = {json.dumps(name)}\nversion = {json.dumps(version)}\n"
            f'wheels = [{{path = {place}, hashes = {{sha256 = "{_digest(wheel)}"}}}}]\n'
        )
    path.write_text(text)


def _download(root: Path, wheels: Path, pins: Sequence[str]) -> None:
    found = _by_pin(wheels)
    missing = [pin for pin in pins if _of(pin) not in found]
    if missing:
        _newest(root)
        _run(root / "own/bin/python", "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
             "-d", wheels, *missing)  # fmt: skip


def _pip(root: Path, wheels: Path) -> str:
    """Pin of the newest pip, its wheel beside the others."""
    newest = _newest(root)
    (about,) = newest.glob("pip-*.dist-info")
    pin = about.name.removesuffix(".dist-info").replace("-", "==")
    _download(root, wheels, [pin])
    return pin


def _newest(root: Path) -> Path:
    """A directory with the newest uv and pip; its name is the day, so that tomorrow's run looks again."""
    tools = root / f"tools-{datetime.date.today()}"
    if not (tools / "bin/uv").exists():
        _run(sys.executable, "-m", "venv", root / "own")
        _run(
            root / "own/bin/python", "-m", "pip", "install", "-q", "--upgrade", "--target", tools, "uv", "pip"
        )
    return tools


def _run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, stdin=subprocess.DEVNULL)


def _by_pin(wheels: Path) -> dict[tuple[str, str], Path]:
    return {_identity(path): path for path in sorted(wheels.glob("*.whl"))}


def _of(pin: str) -> tuple[str, str]:
    name, version = pin.split("==")
    return _normal(name), version


def _identity(wheel: Path) -> tuple[str, str]:
    name, version = wheel.name.split("-")[:2]
    return _normal(name), version


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
