"""Remove what a crash left behind [I9]. Numbers such as V1 are those of docs/crash-safety.md."""

from __future__ import annotations

import contextlib

from siteswap import collect, remains
from siteswap.errors import SiteswapError
from siteswap.flip import FlipLock, history, published, unlink_top_level
from siteswap.fs import FileSystem
from siteswap.generation import listed, no_generation, read_current
from siteswap.layout import Layout


def recover(fs: FileSystem, layout: Layout, flip_lock: FlipLock) -> list[str]:
    """Remove what a crash left: staging, and candidates that were never published. The writer lock is held.

    `current` and the history are read together under the flip lock: a rollback
    between the two would make the newest generation look unpublished. So are
    the top-level links removed: a rollback between the two would lose those that
    it has just made. Returns the names of what was removed.
    """
    removed = []
    with flip_lock():
        current = read_current(fs, layout)
        if not fs.is_directory(layout.generation(current).path):
            raise no_generation(layout, current)  # every link would look like one that leads nowhere
        # A command that was killed in the middle of a flip may have left a `current` that is not durable. It
        # becomes so before anything is built on it, removed because of it, or reported to be done already.
        fs.sync_directory(layout.home)  # V1
        known = published(history(fs, layout)) | {current}
        fs.unlink(layout.next_current)  # V2
        # What `fs.replace` was about to give its name: tags under the flip lock, logs under the writer lock.
        for directory in (layout.home, layout.log):
            for name, _ in fs.entries(directory):
                if name.startswith("."):
                    fs.unlink(directory / name)  # V2
        unlink_top_level(fs, layout, layout.generation(current))  # V3
    for number, kind in listed(fs, layout).items():
        # A candidate is numbered above all that was ever published: so a history that lost its first lines
        # makes no older generation look like garbage.
        if kind == "directory" and number > max(known):
            doomed = fs.free_name(layout.staging, f"unpublished-{number}")
            if not fs.move_directory(layout.generation(number).path, doomed):  # V4
                fs.remove_tree(layout.generation(number).path)  # half of it is as unpublished as the whole
            removed.append(str(number))
    _clear_creation(fs, layout)  # V6
    return removed + collect.clear(fs, layout)  # V5


def _clear_creation(fs: FileSystem, layout: Layout) -> None:
    """Remove what `create`, `adopt` or `unadopt` left beside the environment, killed after its commit."""
    # The lock's file leads to what `create` and `adopt` make; what `unadopt` makes has a name of its own.
    found = fs.entry(layout.creating_lock)
    leaving = fs.entry(layout.leaving)
    if any(item is not None and item.uid != fs.access.uid for item in (found, leaving)):
        return  # somebody else's who may write there
    if found is None and leaving is None:
        return
    # The directory beside is not ours: what may not be removed there, or has no lock, stays.
    with contextlib.suppress(OSError, SiteswapError):
        lock = fs.lock(layout.creating_lock, make=found is None)
        if lock is None:
            return  # long names share their beginning: another environment is being created
        with lock:
            named = fs.entry(layout.creating_lock)
            if named is not None and named.inode == fs.inode(lock):
                # What `adopt` exchanged must be so for good before what it put there is touched.
                fs.sync_directory(layout.root.parent)
                fs.remove_tree(layout.creating)
                remains.clear(fs, layout)
                fs.unlink(layout.creating_lock)
