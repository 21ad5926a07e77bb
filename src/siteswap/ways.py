"""How sources are built, and whether a local one has changed since.

Apart from `sources`, which builds: the resolver and the command line need this, and not what builds take.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact

_DEFINING = ("pyproject.toml", "setup.py", "setup.cfg")
"""What an editable install is made from; the rest of its tree is live."""


@dataclass(frozen=True)
class Way:
    """How sources are built."""

    python: str | None = None
    """The interpreter of the environment that has what builds need; None: each build gets one of its own."""
    settings: tuple[str, ...] = ()
    """What backends are told (PEP 517 config settings), each "KEY=VALUE"."""

    @property
    def repeatable(self) -> bool:
        """Whether one source always becomes one wheel: not where the environment has a part in it."""
        return self.python is None

    @property
    def told(self) -> dict[str, str | list[str]]:
        """The settings as backends take them: a key that is there twice has a list, as with pip."""
        found: dict[str, list[str]] = {}
        for item in self.settings:
            key, _, value = item.partition("=")
            found.setdefault(key, []).append(value)
        return {key: values[0] if len(values) == 1 else values for key, values in found.items()}


ISOLATED = Way()


def settled(fs: FileSystem, scratch: Path) -> dict[str, str]:
    """Variables that make setuptools work below `scratch` instead of in the source tree.

    A user's own file of that kind is left alone. What other backends leave in a tree is theirs to say.
    """
    name = "DIST_EXTRA_CONFIG"
    if name in os.environ:
        return {}
    place = scratch / "setuptools"
    for directory in (place, place / "build", place / "egg"):
        fs.make_directory(directory, parents=True)
    escaped = str(place).replace("%", "%%")
    text = f"[build]\nbuild_base = {escaped}/build\n[egg_info]\negg_base = {escaped}/egg\n"
    fs.write(place / "setuptools.cfg", text.encode())
    return {name: str(place / "setuptools.cfg")}


def state_of(fs: FileSystem, artifact: Artifact) -> str:
    """What a local directory is like: equal where nothing that is built from it has changed.

    Names, inodes, modes and times of its files, as `make` would go by; byte-code, caches that say so
    (CACHEDIR.TAG) and virtual environments do not count. Of an editable only what defines it.
    """
    tree = Path(artifact.location)
    if not fs.is_directory(tree):
        return "not there"
    inside = f"{artifact.subdirectory}/" if artifact.subdirectory else ""
    names = [inside + name for name in _DEFINING] if artifact.editable else sorted(_files(fs, tree))
    digest = hashlib.sha256()
    for name, times in zip(names, fs.change_times(tree, names), strict=True):
        digest.update(f"{name}\0{times}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(fs: FileSystem, tree: Path) -> Iterator[str]:
    pending = [""]
    while pending:
        relative = pending.pop()
        try:
            inside = fs.entries(tree / relative)
        except OSError:  # it may not be read, and so nothing can be built from it
            continue
        if any(name in ("CACHEDIR.TAG", "pyvenv.cfg") for name, _ in inside):
            continue
        for name, kind in inside:
            path = f"{relative}/{name}" if relative else name
            if kind != "directory":
                yield path
            elif name != "__pycache__":
                pending.append(path)
