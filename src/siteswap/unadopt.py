"""Make an environment a plain virtual environment again, at the same path, in one step.

`adopt` the other way round: the plain one is made beside it, out of the current generation, then the
two directories are exchanged. Numbers such as U5 are those of docs/crash-safety.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from siteswap import carry, create, lease, plain, process, recovery, remains
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import Generation, listed, read_current
from siteswap.intake import changing
from siteswap.layout import Layout, Number
from siteswap.manifest import Distribution, Interpreter
from siteswap.progress import Progress
from siteswap.waiting import Waiting


@dataclass(frozen=True)
class Unadopted:
    """What came of it."""

    layout: Layout
    interpreter: Interpreter | None
    """None where it was a plain one already, and only what had stayed beside it was looked at."""
    distributions: tuple[Distribution, ...]
    lost: tuple[Number, ...]
    """The other generations."""
    tags: tuple[str, ...]
    leaks: tuple[str, ...]
    """Files that name a generation and are no texts."""
    running: tuple[lease.User, ...]
    """Programs that run in a generation; it stays for them."""
    stays: tuple[str, ...]
    """Why the generations stay beside it; nothing where they are gone."""
    done: bool
    """False where it was only tried (`--dry-run`)."""


def unadopt(
    fs: FileSystem,
    final: Layout,
    waiting: Waiting,
    tags: Mapping[str, Number],
    *,
    drop_tags: bool,
    dry_run: bool,
    progress: Progress,
) -> Unadopted:
    """Make the environment a plain virtual environment: atomic, and durable on return.

    On any exception it is as it was. Its other generations and its tags are given up; with `drop_tags` even
    if there are tags. Generations that programs use stay until `finish`. Takes both locks of the
    environment. Raises SiteswapError: usage where there are tags, busy when somebody changes it meanwhile.
    """
    if not fs.may_write(final.root.parent):
        raise SiteswapError(
            Kind.SYSTEM,
            f"{final.root.parent} is not writable",
            hint="run the command as the user whom it belongs to",
        )
    if tags and not (drop_tags or dry_run):
        raise SiteswapError(
            Kind.USAGE,
            f"tags keep generations that would be given up: {', '.join(sorted(tags))}",
            hint="say --drop-tags to give them up, or siteswap export --plain makes a copy elsewhere",
        )
    with waiting.writer():  # U1
        recovery.recover(fs, final, waiting.flip)  # U1
        with create.hold(fs, final):  # U2
            work = _Return(fs, final, waiting, tags, progress)
            try:
                create.clear(fs, final)  # U2: what a crash left
                return work.run(dry_run=dry_run)
            except KeyboardInterrupt:
                if work.outcome is None:
                    raise  # else it came after the exchange, too late: what is durable is reported as done
                return work.outcome
            finally:
                with process.uninterruptible(too_late=lambda: work.outcome is not None):
                    work.leave()


def finish(fs: FileSystem, final: Layout, *, dry_run: bool = False) -> Unadopted:
    """Remove the generations that stayed for programs, if they have ended. Durable when nothing stays.

    Raises SiteswapError: usage where nothing stayed, busy while somebody else works there.
    """
    running = tuple(remains.users(final))
    if fs.entry(final.leaving) is None and fs.entry(final.creating_lock) is None:
        raise SiteswapError(
            Kind.USAGE,
            f"{final.root} is a plain virtual environment already",
            hint="siteswap adopt makes it one that siteswap manages",
        )
    if dry_run:
        stays = [f"generation {user.generation} is used by {lease.describe(user)}" for user in running]
    else:
        with create.hold(fs, final):
            stays = remains.clear(fs, final)
            fs.unlink(final.creating_lock)
    return Unadopted(
        final, None, (), (), (), (), running if stays else (), tuple(stays), done=not dry_run
    )  # fmt: skip


class _Return:
    """One way back, with the locks for it held."""

    def __init__(
        self,
        fs: FileSystem,
        final: Layout,
        waiting: Waiting,
        tags: Mapping[str, Number],
        progress: Progress,
    ) -> None:
        self._fs = fs
        self._final = final
        self._waiting = waiting
        self._tags = tags
        self._progress = progress
        self._left = self._stuck = False
        self.outcome: Unadopted | None = None
        """What came of it, once it is durable."""

    def run(self, *, dry_run: bool) -> Unadopted:
        """From U3 to U9; without the exchange where it is only tried."""
        fs, final = self._fs, self._final
        number = read_current(fs, final)
        generation = Generation.read(fs, final.generation(number))
        held = carry.distributions(generation.manifest, generation.drift())
        present = listed(fs, final)
        outcome = Unadopted(
            final, generation.interpreter, held,
            tuple(sorted(other for other in present if present[other] == "directory" and other != number)),
            tuple(sorted(self._tags)), (), tuple(lease.users(final)), (), done=False,
        )  # fmt: skip
        if dry_run:
            return outcome
        before = self._look(generation)
        leaks = self._lay_out(generation)  # U3
        fs.barrier(final.leaving)  # U4
        self._progress.phase("commit")
        outcome = replace(outcome, leaks=tuple(leaks), done=True)
        # Not to be interrupted: the generation must not be removed before, nor the plain one after.
        with self._waiting.flip(), process.uninterruptible(too_late=lambda: self.outcome is not None):
            if read_current(fs, final) != number:
                raise SiteswapError(
                    Kind.STALE,
                    f"generation {number}, which this was to keep, is no longer current",
                    hint="run the command again",
                )

            def unchanged(place: Layout) -> None:
                now = self._look(Generation(fs, place.generation(number), generation.manifest))
                for path in before.keys() | now.keys():
                    if before.get(path) != now.get(path):
                        raise changing(final.root, path)

            try:
                create.exchange(fs, Layout(final.leaving), final, unchanged)  # U5, U6
            except create.StuckError:
                self._stuck = True
                raise
            self.outcome = replace(outcome, stays=("interrupted before it was clear who uses what",))
        with contextlib.suppress(OSError, SiteswapError):
            # What goes wrong here must not turn what is durable into a failure; `finish` tries again.
            self.outcome = replace(outcome, stays=("not looked at: the disk refused",))
            self.outcome = replace(outcome, stays=tuple(remains.clear(fs, final)))  # U7, U8, U9
        return self.outcome

    def leave(self) -> None:
        """Remove what was made if nothing came of it, and the lock's file."""
        if self._stuck or self._left:
            return
        self._left = True
        with contextlib.suppress(OSError) if self.outcome is not None else contextlib.nullcontext():
            if self.outcome is None:
                self._fs.remove_tree(self._final.leaving)
                self._fs.sync_directory(self._final.root.parent)
            self._fs.unlink(self._final.creating_lock)

    def _lay_out(self, generation: Generation) -> list[str]:
        """The plain virtual environment at the hidden place, with the way to where generations will lie."""
        fs, final, making = self._fs, self._final, self._final.leaving
        fs.make_directory(making, mode=0o700)  # nobody looks in while it is made
        self._progress.phase("copy")
        leaks = plain.lay_out(fs, generation, final, making, self._progress.step)
        for name in self._own_names(final):
            # Adopting put that one there.
            mine = name == create.IGNORED and fs.entry(final.adopted / "pyvenv.cfg") is not None
            if not (mine and fs.entry(final.adopted / name) is None) and fs.entry(making / name) is None:
                fs.copy_tree(final.root / name, making / name)
        fs.symlink(making / final.home.name, final.left_target)
        fs.publish(making)
        return leaks

    def _own_names(self, place: Layout) -> list[str]:
        """What people have at the top of the environment, beside the generations."""
        return [
            name
            for name, kind in self._fs.entries(place.root)
            if name not in (place.home.name, place.config.name)
            and not (kind == "link" and self._fs.read_link(place.root / name) == place.top_link_target(name))
        ]

    def _look(self, generation: Generation) -> Mapping[str, tuple[int, int, int] | None]:
        """Every file of a generation, with what changes when it is written or replaced."""
        fs, place = self._fs, generation.layout.path
        paths: Sequence[str] = [
            path
            for path, kind in fs.walk(place)
            if kind != "directory" and "__pycache__" not in path.split("/")
        ]
        return dict(zip(paths, fs.change_times(place, paths), strict=True))
