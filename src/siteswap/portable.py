"""A plain, relocatable copy of a generation: for a place without siteswap, such as a container image.

Made at a hidden place beside where it will stand, then one rename. Numbers such as X3 are those of
docs/crash-safety.md.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from siteswap import create, lease, plain
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import Generation
from siteswap.layout import Layout, Number
from siteswap.manifest import Interpreter
from siteswap.progress import Progress


@dataclass(frozen=True)
class Copied:
    """What was made."""

    path: Path
    generation: Number
    interpreter: Interpreter
    """Must stand at the same place where the copy is used."""
    leaks: tuple[str, ...]
    """Files that name the environment's path, which need not be there."""


def copy_plain(
    generation: Generation, layout: Layout, path: Path, progress: Progress, fs: FileSystem | None = None
) -> Copied:
    """Make a relocatable virtual environment at `path` of what a generation holds: atomic, durable on return.

    `layout` is that of its environment, in which nothing is changed and of which no lock but the lease is
    taken. Raises SiteswapError: usage when something is at `path`, busy when another command makes it now
    or the generation is going away.
    """
    fs = fs or FileSystem()
    final = Layout(fs.resolve(path.parent) / path.name)
    _require_nothing(fs, final)
    if final.root.is_relative_to(layout.root):
        raise SiteswapError(
            Kind.USAGE, f"{final.root} is inside of the environment itself", hint="choose a place outside"
        )
    held = lease.hold(fs, generation.layout)
    if held is None:
        raise SiteswapError(
            Kind.BUSY, f"generation {generation.number} is being removed", hint="see siteswap history"
        )
    fs.make_directory(final.root.parent, parents=True)
    making = final.creating
    with held, create.hold(fs, final):  # X1
        try:
            create.clear(fs, final)  # X1: what a crash left
            fs.make_directory(making, mode=0o700)
            progress.phase("copy")
            leaks = plain.lay_out(fs, generation, layout, making, progress.step, relocatable=True)  # X2
            fs.publish(making)
            fs.barrier(making)  # X3
            _require_nothing(fs, final)
            fs.rename(making, final.root)  # X4
        except BaseException:
            fs.remove_tree(making)
            fs.unlink(final.creating_lock)
            raise
        with contextlib.suppress(OSError):
            fs.unlink(final.creating_lock)  # X5
        try:
            fs.sync_directory(final.root.parent)  # X6
        except OSError:
            # A failure that is reported is one [I5]: away by the same steps, each durable before the next.
            fs.rename(final.root, making)
            fs.sync_directory(final.root.parent)
            fs.remove_tree(making)
            raise
    return Copied(final.root, generation.number, generation.interpreter, tuple(leaks))


def _require_nothing(fs: FileSystem, final: Layout) -> None:
    if os.pathsep in str(final.root):
        create.require_nameable(final)
    if fs.entry(final.root) is not None:
        raise SiteswapError(
            Kind.USAGE, f"{final.root} is there already", hint="choose another path, or remove what is there"
        )
