"""What stays beside a virtual environment that is a plain one again: generations that programs still run in.

The old environment lies at `Layout.leaving` then, whole, and the link ENV/.siteswap leads there: so every
path that a running program knows goes on to lead to its files. The link is the reference: it goes once the
proof is there that nobody uses any generation [I7], and durably before anything of them does. What lies
there without the link is garbage. Numbers such as U8 are those of docs/crash-safety.md.
"""

from __future__ import annotations

import contextlib
import time

from siteswap import collect, lease
from siteswap.errors import SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import listed
from siteswap.layout import Layout


def users(final: Layout) -> list[lease.User]:
    """Processes that use a generation: what they map is where it lies now, what they say where it was."""
    found = [*lease.users(final), *lease.users(Layout(final.leaving))]
    return sorted({(user.pid, user.generation): user for user in found}.values(), key=lambda user: user.pid)


def left(fs: FileSystem, final: Layout) -> bool:
    """Whether it is a plain virtual environment again, and programs may still run in its generations."""
    return fs.read_link(final.home) == final.left_target


def is_plain(fs: FileSystem, final: Layout) -> bool:
    """Whether it is a virtual environment with no generations of its own, or the remains of one beside it."""
    if fs.entry(final.home) is not None:
        return left(fs, final)
    return fs.entry(final.config) is not None and fs.entry(final.generations) is None


def clear(fs: FileSystem, final: Layout) -> list[str]:
    """Remove it; the lock for what is made beside `final` is held. Durable when nothing stays.

    Returns why it stays: no generation goes as long as any is used. Waits until nobody can be just starting.
    """
    place = final.leaving
    here = fs.entry(place) is not None
    if here:
        # An exchange may not be durable yet, and what it put there is still the environment on the disk.
        fs.sync_directory(final.root.parent)
    with contextlib.ExitStack() as proofs:
        if left(fs, final):
            if here:
                with contextlib.ExitStack() as early:
                    reasons = _prove(fs, final, early)
                if not reasons:
                    # Who found the way through `current` before the exchange has its lease after this time.
                    rest = collect.GRACE_SECONDS - fs.age(place)
                    time.sleep(max(0.0, min(collect.GRACE_SECONDS, rest)))
                    reasons = _prove(fs, final, proofs)  # U7
                if reasons:
                    return reasons
            fs.unlink(final.home)  # U8
            fs.sync_directory(final.root)  # U8
        if here:
            fs.remove_tree(place)  # U9
            fs.sync_directory(final.root.parent)
    return []


def _prove(fs: FileSystem, final: Layout, proofs: contextlib.ExitStack) -> list[str]:
    """Take the exclusive lease of every generation; why that cannot be done of some."""
    where, known, reasons = Layout(final.leaving), users(final), []
    for number, kind in listed(fs, where).items():
        if kind == "directory":
            try:
                proof = lease.prove_unused(fs, where.generation(number), number, known)
            except SiteswapError as error:
                proof = error.message
            if isinstance(proof, str):
                reasons.append(f"generation {number} is {proof}")
            else:
                proofs.enter_context(proof)
    return reasons
