"""What of an environment is removed, when: by `gc`, and in bounded time after each commit."""

from __future__ import annotations

from collections.abc import Sequence

from siteswap import collect, flip, lease, tags
from siteswap.errors import SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import listed, read_current
from siteswap.layout import Layout, Number
from siteswap.recovery import recover
from siteswap.waiting import Waiting

_SECONDS = 1.0
"""How long collecting after a commit may take before the rest is left to the next one."""


def plan(fs: FileSystem, layout: Layout, keep: int, users: Sequence[lease.User]) -> list[collect.Verdict]:
    """What is to be done with each published generation, and why. Changes nothing."""
    operations = flip.history(fs, layout)
    known = flip.published(operations)
    numbers = [
        number for number, kind in listed(fs, layout).items() if kind == "directory" and number in known
    ]
    return collect.plan(
        numbers,
        read_current(fs, layout),
        collect.recently_current(operations),
        keep,
        tags.read(fs, layout),
        users,
    )


def gc(waiting: Waiting, keep: int) -> tuple[list[Number], list[collect.Verdict]]:
    """Remove every generation that is not current, kept or used, and the spare: (what went, what stays).

    Takes the writer lock, so that nobody builds on what goes; the flip lock only to detach.
    """
    fs, layout = waiting.fs, waiting.layout
    with waiting.writer():
        recover(fs, layout, waiting.flip)
        gone, verdicts = sweep(waiting, keep, seconds=None, spare=False)
        if fs.entry(layout.spare) is not None:
            # Out of the way by one rename first: a crash while it is emptied must not leave half a spare.
            fs.move_directory(layout.spare, fs.free_name(layout.staging, "spare"))
        collect.clear(fs, layout)
    return gone, verdicts


def after_commit(waiting: Waiting) -> None:
    """Collect in bounded time, never on the way to the flip. The writer lock is still held.

    What goes wrong here must not turn a durable commit into a failure: it is told, and
    the next command tries again.
    """
    try:
        sweep(waiting, collect.DEFAULT_KEEP, seconds=_SECONDS, spare=True)
    except (OSError, SiteswapError) as error:
        waiting.progress.note(f"old generations could not be collected: {error}")


def sweep(
    waiting: Waiting, keep: int, *, seconds: float | None, spare: bool
) -> tuple[list[Number], list[collect.Verdict]]:
    """Detach what may go and remove it, for as long as `seconds`; with `spare` one is kept to be recycled."""
    fs, layout = waiting.fs, waiting.layout
    with waiting.flip():
        verdicts = plan(fs, layout, keep, ())
        if all(verdict.keep for verdict in verdicts):
            return [], verdicts  # nothing may go, whoever uses it: no need to look at every process
        users = lease.users(layout)
        verdicts = plan(fs, layout, keep, users)
        gone, stays = collect.sweep(fs, layout, verdicts, users, seconds=seconds)
    collect.settle(fs, layout, spare=spare)  # G4, G5
    late = {verdict.number: verdict for verdict in stays}
    return gone, [late.get(item.number, item) for item in verdicts if item.number not in gone]
