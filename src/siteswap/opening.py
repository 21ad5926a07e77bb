"""Recognise an environment before anything in it is believed: ours, of our format, in its place?"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import sys
from pathlib import Path

from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, access_of
from siteswap.layout import FORMAT_VERSION, Layout, parse_number


def find(path: Path) -> Layout:
    """The layout of the environment at `path`, which is one of ours. Changes nothing.

    The prefix of one of its generations leads to the environment too: it is what
    `sys.prefix` says inside, and what other tools make of it.
    Raises SiteswapError: usage when there is none or it is not ours, damaged when
    its format cannot be read or it was moved, system when this user may not look.
    """
    fs = FileSystem()
    layout = _of_generation(Layout(fs.resolve(path)))
    try:
        text = fs.read_text(layout.format)
    except (FileNotFoundError, NotADirectoryError):
        raise _not_ours(fs, path, layout) from None
    except UnicodeDecodeError:
        text = ""  # as damaged as an empty one
    except PermissionError as error:
        raise SiteswapError(
            Kind.SYSTEM,
            f"{layout.root} may not be read by this user",
            hint=f"it belongs to {_owner(layout.root)}",
        ) from error
    _check_format(text, layout)
    return layout


def _of_generation(layout: Layout) -> Layout:
    """The environment whose generation stands at the root of `layout`; itself when it is none."""
    parents = layout.root.parents
    if len(parents) > 2 and parse_number(layout.root.name):
        outer = Layout(parents[2])
        if layout.root.parent == outer.generations:
            return outer
    return layout


def require_writable(fs: FileSystem, layout: Layout) -> None:
    """Raises SiteswapError (system) when this user may not change the environment."""
    if fs.may_write(layout.home):
        return
    if os.geteuid() not in (0, fs.access.uid):
        raise SiteswapError(
            Kind.SYSTEM,
            f"{layout.root} belongs to {_owner(layout.root)}; this user may not change it",
            hint="run the command as that user",
        )
    raise SiteswapError(Kind.SYSTEM, f"{layout.home} is not writable", hint="check its permissions")


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
    if fs.entry(layout.config) is not None:
        return SiteswapError(
            Kind.USAGE,
            f"{path} is a virtual environment that siteswap does not manage",
            hint="create a new one beside it: siteswap create PATH",
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
            hint="create a new environment; its generations are still in this one",
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


def _owner(path: Path) -> str:
    uid = access_of(path).uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
