"""A plain directory that packages are installed into: where what goes, and which swap it allows. Pure.

`--target DIR` is a directory of its own; an interpreter's site-packages is a part of something
bigger, with programs, headers and data in other directories. Paths of files are strings relative
to the place's anchor, with `/`; "" is the anchor itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from siteswap.errors import Kind, SiteswapError
from siteswap.manifest import Interpreter

CHANGING = "siteswap-changing"
"""Ends the names of hidden directories for work in progress: they exist during a change, or after a crash."""


@dataclass(frozen=True)
class Place:
    """Where packages are installed as files that no environment manages."""

    top: Path
    """DIR, or the interpreter's site-packages: what is locked. Absolute and resolved."""
    anchor: Path
    """What paths of files are relative to."""
    sites: tuple[str, ...]
    """Directories that modules are in: for pure and for compiled distributions; they may be one."""
    scripts: str
    headers: str
    data: str
    python: str
    """The interpreter that programs in it are started with."""
    whole: bool
    """All of it is below `top`, so that it may be exchanged as a whole."""

    @property
    def beside(self) -> Path:
        """Where a new tree is made for an exchange: on the same file system, and never carried along."""
        name = self.top.name
        if len(name.encode(errors="surrogateescape")) > 200:
            name = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
        return self.top.parent / f".{name}.{CHANGING}"

    @property
    def inside(self) -> Path:
        """Where files are staged that go in one by one, and the journal of that."""
        return self.top / f".{CHANGING}"

    @property
    def above(self) -> set[str]:
        """The directories that everything is below: where a link leads there, it is the interpreter's own."""
        parts = [base.split("/") for base in (*self.sites, self.scripts, self.headers, self.data)]
        return {"/".join(names[:end]) for names in parts for end in range(1, len(names) + 1)} - {""}

    def outer(self, path: str, interpreter: Interpreter, *, pure: bool) -> str:
        """Where a file goes that has this path in an environment of that interpreter."""
        schemes = interpreter.schemes
        for site in (schemes["purelib"], schemes["platlib"]):
            if path.startswith(f"{site}/"):
                return joined(self.sites[0 if pure else -1], path[len(site) + 1 :])
        for name, base in (("scripts", self.scripts), ("headers", self.headers)):
            if path.startswith(f"{schemes[name]}/"):
                return joined(base, path[len(schemes[name]) + 1 :])
        return joined(self.data, path)

    def inner(self, path: str, interpreter: Interpreter) -> str | None:
        """The path that a file of this place would have in an environment; None for what is elsewhere."""
        schemes = interpreter.schemes
        bases = [(site, schemes["purelib"]) for site in self.sites]
        bases += [(self.scripts, schemes["scripts"]), (self.headers, schemes["headers"])]
        bases += [(self.data, schemes["data"])]
        for base, instead in sorted(bases, key=lambda pair: -len(pair[0])):
            if base == "" or path.startswith(f"{base}/"):
                return joined(instead, path[len(base) + 1 :] if base else path)
        return None

    def holds(self, path: str) -> bool:
        """Whether a path is one that something may be installed at: nothing else is ever written to."""
        parts = path.split("/")
        if not path or any(part in ("", ".", "..") for part in parts):
            return False
        return any(
            base == "" or path.startswith(f"{base}/")
            for base in (*self.sites, self.scripts, self.headers, self.data)
        )


def joined(base: str, path: str) -> str:
    """A path below a base that may be ""."""
    return f"{base}/{path}" if base and path else base or path


def directory(top: Path, python: str) -> Place:
    """A directory of its own, laid out as `pip install --target` does it."""
    return Place(top, top, ("",), "bin", "include/python", "", python, whole=True)


def site_packages(paths: Mapping[str, str], python: str) -> Place:
    """What an interpreter's own `sysconfig` says. Raises SiteswapError (system) for what is no path."""
    try:
        inside = {name: paths[name].lstrip("/") for name in ("purelib", "platlib", "scripts", "data")}
        headers = paths["include"].lstrip("/")
        if not all(path.startswith("/") and ".." not in path.split("/") for path in paths.values()):
            raise ValueError(paths)
    except (KeyError, ValueError, AttributeError) as error:
        raise SiteswapError(
            Kind.SYSTEM, f"{python} does not say where its packages are", hint="name another with --python"
        ) from error
    sites = tuple(dict.fromkeys((inside["purelib"], inside["platlib"])))
    top = Path("/", inside["purelib"])
    return Place(top, Path("/"), sites, inside["scripts"], headers, inside["data"], python, whole=False)


@dataclass(frozen=True)
class Facts:
    """What was seen of a place, as far as the choice of the swap asks."""

    whole: bool
    """It is a directory of its own."""
    exists: bool
    parent_writable: bool
    mounted: str | None
    """A mount point at or in it."""
    odd: str | None
    """Something in it that would come out otherwise if it were made anew: another owner, mode, kind."""
    attributed: bool
    """It has attributes (an access list, say) that a new directory would lack."""
    exchanges: bool
    """The file system can exchange two names in one step."""


def hindrance(facts: Facts) -> str | None:
    """Why the place cannot change as a whole by one rename; None: it can."""
    if not facts.whole:
        return "it is a part of something bigger"
    if not facts.parent_writable:
        return "its parent directory is not writable"
    if not facts.exists:
        return None  # one rename puts it there
    if facts.mounted is not None:
        return f"{facts.mounted} is a mount point"
    if facts.odd is not None:
        return f"{facts.odd} has another owner or mode, or is no file"
    if facts.attributed:
        return "it has attributes that a new directory would not have"
    if not facts.exchanges:
        return "its file system cannot exchange two names"
    return None
