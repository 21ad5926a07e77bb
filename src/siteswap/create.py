"""Make an environment: everything at a hidden place beside it, then one rename.

Numbers such as C4 are those of docs/crash-safety.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from siteswap import flip, interpreter, opening, remains
from siteswap.assemble import Assembler
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, Lock
from siteswap.generation import Generation
from siteswap.layout import CORNER, FORMAT_VERSION, Layout, Number
from siteswap.lockfile import EMPTY
from siteswap.manifest import Interpreter, Manifest
from siteswap.version import __version__

IGNORED = ".gitignore"
"""The file that keeps an environment out of the repository it stands in."""

_STAND_IN = b"""\
#!/bin/sh
# Found where the environment is active and has no pip: another one on PATH would work on another Python.
exec "${0%/*}/../../bin/python" -m pip "$@"
"""


def create(
    path: Path,
    *,
    python: str | None = None,
    system_site_packages: bool = False,
    command: str = "",
    fs: FileSystem | None = None,
    fill: Callable[[FileSystem, Layout, Layout], None] | None = None,
) -> Layout:
    """Make an empty environment at `path`: atomic, and durable on return.

    `python` is a path, a version or a name of an interpreter; None is the one
    that runs siteswap. With `fill` that makes all of it instead: it is given the
    file system, the layout of where it is made and of where it will stand.
    Raises SiteswapError: usage when something is at `path` or there is no such
    interpreter, busy when another command makes it now, system where the file
    system cannot keep the promises [I11], or where somebody else could change what
    is made.
    """
    fs = fs or FileSystem()
    final = Layout(fs.resolve(path))
    require_nameable(final)
    opening.require_trusted(fs, final)
    _require_vacant(fs, final)
    if fill is None:
        found = interpreter.probe(interpreter.find(python, fs), fs)

        def fill(fs: FileSystem, making: Layout, final: Layout) -> None:
            _make(fs, making, final, found, system_site_packages, command)

    fs.make_directory(final.root.parent, parents=True)
    making, lock_path = Layout(final.creating), final.creating_lock
    with hold(fs, final):  # C1
        try:
            clear(fs, final)  # C1: what a crash left
            fill(fs, making, final)  # C2
            fs.publish(making.root)
            fs.barrier(making.root)  # C3
            _require_vacant(fs, final)
            fs.rename(making.root, final.root)  # C4
        except BaseException:
            fs.remove_tree(making.root)
            fs.unlink(lock_path)  # while it is held: see `hold` for who may be waiting at it
            raise
        with contextlib.suppress(OSError):
            fs.unlink(lock_path)  # C5; the environment is there, and what stays the next command removes
        # Last, so that the lock's file does not come back after a power cut.
        try:
            fs.sync_directory(final.root.parent)  # C6
        except OSError:
            # A failure that is reported is one [I5]: away by the same steps, each durable before the next.
            fs.rename(final.root, making.root)
            fs.sync_directory(final.root.parent)
            fs.remove_tree(making.root)
            raise
    return final


def hold(fs: FileSystem, final: Layout) -> Lock:
    """The lock of whoever makes an environment for that place. Raises SiteswapError (busy, system)."""
    making, lock_path = Layout(final.creating), final.creating_lock
    _require_ours(fs, lock_path, making.root, final.leaving)
    busy = SiteswapError(Kind.BUSY, f"another command is creating {final.root}", hint="wait for it to end")
    try:
        lock = fs.lock(lock_path)
    except SiteswapError:
        fs.unlink(lock_path)  # a file system without locks: the attempt leaves nothing
        raise
    if lock is None:
        raise busy
    try:
        named = fs.entry(lock_path)
        if named is None or named.inode != fs.inode(lock):
            # Its holder removed it between our opening and our locking it; what we locked protects nothing.
            raise busy
        _require_ours(fs, lock_path)
    except BaseException:
        lock.release()
        raise
    return lock


def clear(fs: FileSystem, final: Layout) -> None:
    """Remove what a crash left at the places where environments are made. Their lock is held.

    Raises SiteswapError (busy) while programs use what `unadopt` left.
    """
    if fs.entry(final.creating) is not None:
        # An exchange (A8) may not be durable yet, and what it put there is still the environment on the disk.
        fs.sync_directory(final.root.parent)
        fs.remove_tree(final.creating)
    stays = remains.clear(fs, final)
    if stays:
        raise SiteswapError(
            Kind.BUSY,
            f"programs still run in generations that {final.root} once had: {stays[0]}",
            hint="end them, then try again",
        )


class StuckError(SiteswapError):
    """Two directories were exchanged and the disk says no more which of them lasts where: neither may go."""


def exchange(fs: FileSystem, new: Layout, final: Layout, unchanged: Callable[[Layout], None]) -> None:
    """The commit point of what takes a place that is taken: atomic, and durable on return.

    `unchanged` raises where what stands at that layout's place is no longer what `new` was made from; it is
    asked before, and of the old one after. Raises SiteswapError, OSError: it is as it was; and StuckError.
    """
    unchanged(final)
    fs.exchange(new.root, final.root)  # A8, U5
    try:
        # Once more: nobody can come to the old files by their names any more.
        unchanged(new)
        fs.sync_directory(final.root.parent)  # A9, U6
    except BaseException as error:
        try:
            fs.exchange(new.root, final.root)
            fs.sync_directory(final.root.parent)
        except OSError:
            raise StuckError(
                Kind.SYSTEM,
                f"the disk does not say which of {new.root} and {final.root} lasts at which place: {error}",
                hint="both are whole; see to the disk, then look at both",
            ) from error
        raise


def _make(
    fs: FileSystem,
    making: Layout,
    final: Layout,
    found: Interpreter,
    system_site_packages: bool,
    command: str,
) -> None:
    """Everything of a new environment, at a place where nobody looks for one."""
    lay_out(fs, making, final)
    manifest = Manifest(
        number=Number(1),
        created=flip.now(),
        command=command,
        base=None,
        interpreter=found,
        requirements=(),
        distributions=(),
        system_site_packages=system_site_packages,
        shared_mode=fs.access.shared,
        checked="passed",
    )
    first = Assembler(fs, making, None, manifest, logical=final).assemble((), EMPTY, lambda _: None)
    # As venv and uv do it: an environment inside a repository is not for committing.
    fs.write(making.root / IGNORED, b"*\n")
    finish(fs, making, first, "create")


def lay_out(fs: FileSystem, making: Layout, final: Layout) -> None:
    """The directories of a new environment. Raises SiteswapError (system) where it cannot be one [I11]."""
    fs.make_directory(making.root, mode=0o700)  # nobody looks in while it is made
    for path in (making.home, making.generations, making.log):
        fs.make_directory(path)
    fs.make_directory(making.staging, mode=fs.access.staging)
    _require_capable(fs, making)
    fs.make_directory(making.stand_ins)
    for name in ("pip", "pip3"):
        fs.write(making.stand_ins / name, _STAND_IN, executable=True)
    format_text = json.dumps({"format": FORMAT_VERSION, "path": str(final.root), "created_by": __version__})
    fs.write(making.format, format_text.encode() + b"\n")


def finish(fs: FileSystem, making: Layout, first: Generation, kind: str) -> None:
    """The manifest of its first generation, and what leads there: where it is made, that is current now."""
    fs.write(first.layout.manifest, first.manifest.to_json())
    for name, _ in fs.entries(first.layout.path):
        if name == "pyvenv.cfg":
            fs.write(making.config, fs.read(first.layout.path / name))
        elif name != CORNER:
            fs.symlink(making.root / name, making.top_link_target(name))
    flip.flip(fs, making, flip.new_operation(kind, first.manifest.command, None, first.number))


def _require_capable(fs: FileSystem, layout: Layout) -> None:
    """Try what siteswap relies on, on this very file system [I11]. Raises SiteswapError (system)."""
    one, two = layout.staging / "try-1", layout.staging / "try-2"
    try:
        fs.write(one, b"x")
        fs.symlink(two, "try-1")
        fs.exchange(one, two)
        fs.link_files(layout.staging, layout.staging, [("try-2", "try-3")], copy=False, tick=lambda _: None)
        lock = fs.lock(layout.flip_lock)
        if lock is not None:
            lock.release()
    except OSError as error:
        raise SiteswapError(
            Kind.SYSTEM,
            f"the file system of {layout.root.parent} cannot hold an environment: {error.strerror}",
            hint="put it on a local file system with links and locks (ext4, xfs, btrfs, tmpfs)",
        ) from error
    finally:
        for name, _ in fs.entries(layout.staging):
            fs.unlink(layout.staging / name)


def require_nameable(layout: Layout) -> None:
    """Refuse a path that a script, pyvenv.cfg or PATH cannot hold, before anything is made there."""
    text = str(layout.root)
    if os.pathsep in text or any("\ud800" <= character <= "\udfff" for character in text):
        reason = f"has a {os.pathsep!r} in it" if os.pathsep in text else "is not valid UTF-8"
        raise SiteswapError(
            Kind.USAGE,
            f"an environment cannot stand at {text!r}: the path {reason}",
            hint="choose another path: PATH and Python's own files could not name this one",
        )


def _require_ours(fs: FileSystem, *paths: Path) -> None:
    """Refuse what another user put where everybody may, at the names that we use for the time of making."""
    for path in paths:
        found = fs.entry(path)
        if found is not None and found.uid != os.geteuid():
            raise SiteswapError(
                Kind.SYSTEM,
                f"{path} is in the way, and belongs to {opening.user_name(found.uid)}",
                hint="have it removed, or choose another path",
            )


def _require_vacant(fs: FileSystem, layout: Layout) -> None:
    found = fs.entry(layout.root)
    if found is None:
        return
    if found.kind != "directory":
        raise SiteswapError(
            Kind.USAGE, f"{layout.root} is there and is not a directory", hint="choose another path"
        )
    if fs.entry(layout.format) is not None and not remains.left(fs, layout):
        raise SiteswapError(
            Kind.USAGE,
            f"{layout.root} is an environment already",
            hint=f"siteswap install -e {shlex.quote(str(layout.root))} …",
        )
    if fs.entries(layout.root):
        raise SiteswapError(
            Kind.USAGE,
            f"{layout.root} is not empty and was not made by siteswap",
            hint="choose another path, or move what is there away",
        )
