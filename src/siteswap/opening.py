"""Recognise an environment before anything in it is believed: whose, ours, of our format, in its place?"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from siteswap.errors import REPAIR_HINT, Kind, SiteswapError
from siteswap.fs import FileSystem, access_of
from siteswap.layout import FORMAT_VERSION, Layout, parse_number

TRUST = "SITESWAP_TRUST"
"""Names places whose environments are believed whoever they belong to: paths, with a colon between them."""


def find(path: Path) -> Layout:
    """The layout of the environment at `path`, which is one of ours. Changes nothing.

    The prefix of one of its generations leads to the environment too: it is what
    `sys.prefix` says inside, and what other tools make of it.
    Raises SiteswapError: usage when there is none or it is not ours, damaged when
    its format cannot be read or it was moved, system when this user may not look
    or somebody else could have planted it.
    """
    fs = FileSystem()
    layout = located(fs, path)
    try:
        if fs.entry(layout.home) is None:
            raise _not_ours(fs, path, layout)
        require_trusted(fs, layout)
        require_not_left(fs, layout)
        text = fs.read_text(layout.format)
    except (FileNotFoundError, NotADirectoryError):
        raise _not_ours(fs, path, layout) from None
    except UnicodeDecodeError:
        text = ""  # as damaged as an empty one
    except PermissionError as error:
        raise SiteswapError(
            Kind.SYSTEM,
            f"{layout.root} may not be read by this user",
            hint=f"it belongs to {user_name(access_of(layout.root).uid)}",
        ) from error
    _check_format(text, layout)
    return layout


def located(fs: FileSystem, path: Path) -> Layout:
    """Where the environment at `path` is, if there is one: also for the prefix of one of its generations."""
    layout = Layout(fs.resolve(path))
    parents = layout.root.parents
    if len(parents) > 2 and parse_number(layout.root.name):
        outer = Layout(parents[2])
        if layout.root.parent == outer.generations:
            return outer
    return layout


def maker(fs: FileSystem, layout: Layout) -> int | None:
    """The id of the user whose environment it is, or would be in the place where it is to be made.

    None where it is trusted whoever that is.
    """
    if _is_named(fs, layout):
        return None
    found = (fs.entry(path) for path in (layout.root, *layout.root.parents))
    return next(entry.uid for entry in found if entry is not None)


def require_trusted(fs: FileSystem, layout: Layout) -> None:
    """Refuse an environment, or a place for one, that somebody else can change or could have planted.

    It and all that it lies in must belong to us or to root, and not be writable for
    everybody (a directory like /tmp, where each can rename only what is theirs, may be).
    Whoever may write by group was given that right by one of these owners.
    Raises SiteswapError (system).
    """
    if _is_named(fs, layout):
        return
    home = fs.entry(layout.home)
    left = fs.read_link(layout.home) == layout.left_target  # there it leads to where `leaving` is
    places = (layout.root, layout.home, *([layout.leaving] if left else []))
    why = weakness(fs, places, layout.root.parents)
    if why is None and home is not None and home.kind != "directory" and not left:
        why = f"{layout.home} is no directory"
    if why is not None:
        raise SiteswapError(
            Kind.SYSTEM,
            f"{layout.root} is not trusted: {why}",
            hint=f"if whoever can change it may have anything run as you: "
            f"{TRUST}={shlex.quote(str(layout.root))} siteswap …",
        )


def require_not_left(fs: FileSystem, layout: Layout) -> None:
    """Raises SiteswapError (usage) for a plain virtual environment whose generations are still there."""
    if fs.read_link(layout.home) is not None:
        raise SiteswapError(
            Kind.USAGE,
            f"{layout.root} is a plain virtual environment again; programs may still run in its generations",
            hint=f"siteswap unadopt {shlex.quote(str(layout.root))} removes these when they have ended",
        )


def require_environment(fs: FileSystem, layout: Layout) -> None:
    """Raises SiteswapError (usage) for what was an environment, and is a plain virtual environment by now."""
    require_not_left(fs, layout)
    if fs.entry(layout.home) is None:
        raise SiteswapError(
            Kind.USAGE,
            f"{layout.root} is no environment any more",
            hint="siteswap adopt makes a virtual environment one",
        )


def weakness(fs: FileSystem, places: Collection[Path], around: Iterable[Path]) -> str | None:
    """How somebody else could change what is in `places`, or exchange them; None: nobody could.

    `around` is what they lie in; what is not there yet counts for nothing.
    """
    for path in (*places, *around):
        found = fs.entry(path)
        if found is None:
            continue
        if found.uid not in (0, os.geteuid()):
            return f"{path} belongs to {user_name(found.uid)}"
        if found.mode & 0o002 and (path in places or not found.mode & 0o1000) and found.kind != "link":
            return f"{path} may be changed by everybody"
    return None


def _is_named(fs: FileSystem, layout: Layout) -> bool:
    """Whether the user has said that it is trusted: by its own path, or by a directory that it lies in."""
    places = (fs.resolve(Path(text)) for text in os.environ.get(TRUST, "").split(os.pathsep) if text)
    return any(layout.root.is_relative_to(place) for place in places)


def require_writable(fs: FileSystem, layout: Layout) -> None:
    """Raises SiteswapError (system) when this user may not change the environment.

    Nor may a siteswap that imports from it [I10].
    """
    require_outside(fs, layout)
    require_environment(fs, layout)
    if fs.may_write(layout.home):
        return
    if os.geteuid() not in (0, fs.access.uid):
        raise SiteswapError(
            Kind.SYSTEM,
            f"{layout.root} belongs to {user_name(access_of(layout.root).uid)}; this user may not change it",
            hint="run the command as that user",
        )
    raise SiteswapError(Kind.SYSTEM, f"{layout.home} is not writable", hint="check its permissions")


def require_outside(fs: FileSystem, layout: Layout) -> None:
    """Raises SiteswapError (usage) for a siteswap that imports from the environment [I10]."""
    if any(fs.resolve(Path(entry)).is_relative_to(layout.root) for entry in sys.path):
        raise SiteswapError(
            Kind.USAGE,
            f"this siteswap imports from {layout.root}, so it cannot change it",
            hint="install siteswap outside of it (pipx, uv tool), and run that",
        )


def require_linux() -> None:
    """Raises SiteswapError (system) where the promises cannot be kept."""
    if sys.platform != "linux":
        raise SiteswapError(
            Kind.SYSTEM,
            f"siteswap keeps its promises on Linux only; this is {sys.platform}",
            hint="use it in a Linux container or virtual machine",
        )


def _not_ours(fs: FileSystem, path: Path, layout: Layout) -> SiteswapError:
    if fs.entry(layout.root) is None:
        return SiteswapError(
            Kind.USAGE, f"there is no environment at {path}", hint=f"siteswap create {shlex.quote(str(path))}"
        )
    if fs.is_directory(layout.generations):
        return SiteswapError(Kind.DAMAGED, f"{layout.format} is missing", hint=REPAIR_HINT)
    if fs.entry(layout.config) is not None:
        return SiteswapError(
            Kind.USAGE,
            f"{path} is a virtual environment that siteswap does not manage",
            hint=f"siteswap adopt {shlex.quote(str(path))} makes it one that siteswap manages",
        )
    return SiteswapError(Kind.USAGE, f"{path} is not an environment", hint="siteswap create PATH makes one")


def _check_format(text: str, layout: Layout) -> None:
    try:
        data = json.loads(text)
        version, path = data["format"], data["path"]
    except (ValueError, KeyError, TypeError) as error:
        raise SiteswapError(
            Kind.DAMAGED,
            f"{layout.format} cannot be read: {error}",
            hint=REPAIR_HINT,
        ) from error
    if version != FORMAT_VERSION:
        raise SiteswapError(
            Kind.DAMAGED,
            f"{layout.root} has layout version {version}, this siteswap knows {FORMAT_VERSION}",
            hint="use a newer siteswap",
        )
    if path != str(layout.root):
        raise SiteswapError(
            Kind.DAMAGED,
            f"this environment was made at {path} and is at {layout.root} now; its programs name {path}",
            hint="move it back, or create a new one here and sync it to an export of this one",
        )


def user_name(uid: int) -> str:
    """The name of a user, or the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
