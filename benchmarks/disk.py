"""What is on the disk: sizes, and what an environment has."""

from __future__ import annotations

import os
from pathlib import Path


def usage(root: Path) -> int:
    """Bytes that all below `root` takes on the disk, directories too; what has two names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _, files in os.walk(root):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            status = os.lstat(path)
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def files(root: Path) -> int:
    """How many files and links are below `root`."""
    return sum(len(names) for _, _, names in os.walk(root))


def newest_generation(env: Path) -> Path:
    """The directory of an environment's newest generation."""
    generations = env / ".siteswap/generations"
    return generations / str(max(int(name) for name in os.listdir(generations)))


def version_in(prefix: Path, name: str) -> str | None:
    """Version of a distribution in a prefix, by the name of its .dist-info; None where there is none."""
    found = sorted(prefix.glob(f"lib/python3.*/site-packages/{name}-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").rpartition("-")[2] if found else None
