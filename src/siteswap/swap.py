"""Change a plain directory: by one exchange where the place allows it, else by a journal.

Numbers such as P4 and J5 are those of docs/crash-safety.md. All of it runs with the place's lock held.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from siteswap import moves, opening
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, Lock
from siteswap.moves import Move, Seen
from siteswap.place import Facts, Place
from siteswap.plan import directories_of
from siteswap.progress import Progress

_POLL_SECONDS = 0.05

Kinds = Mapping[str, str]


@dataclass
class Hold:
    """The lock of a place, held: that of the directory itself, whichever stands there.

    Where there is none yet, it is that of the hidden directory beside it.
    """

    locks: list[Lock] = field(default_factory=list)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        for lock in self.locks:
            lock.release()


def hold(fs: FileSystem, place: Place, progress: Progress, timeout: float | None) -> Hold:
    """Take the lock of a place, waiting for as long as `timeout` seconds (None: for ever).

    Raises SiteswapError: busy, system where there are no locks, or where somebody else's hidden directory
    is in the way.
    """
    begun, told = time.monotonic(), False
    while True:
        held = _try(fs, place)
        if held is not None:
            return held
        if timeout is not None and time.monotonic() - begun >= timeout:
            raise SiteswapError(
                Kind.BUSY,
                f"{place.top} is being changed by another command",
                hint="wait for it to end, or allow more time with --lock-timeout SECONDS",
            )
        if not told:
            progress.waiting("another command")
            told = True
        time.sleep(_POLL_SECONDS)


def _try(fs: FileSystem, place: Place) -> Hold | None:
    """The lock, if nobody has it and what was locked still is what it was."""
    new = not fs.is_directory(place.top)
    path = place.beside if new else place.top
    if new:
        _require_ours(fs, place.beside)
        if fs.entry(path) is None:
            fs.make_directory(path.parent, parents=True)
            try:
                fs.make_directory(path, mode=fs.access.staging)
            except FileExistsError:
                return None  # another command makes it in this moment
    try:
        lock = fs.lock_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if lock is None:
        return None
    found = fs.entry(path)
    # What was locked may have been exchanged away, removed, or made to be the place, before it was locked.
    if found is None or found.inode != fs.inode(lock) or new != (not fs.is_directory(place.top)):
        lock.release()
        return None
    held = Hold([lock])
    if not new and fs.entry(place.beside) is not None and not lock_beside(fs, place, held):
        lock.release()  # its maker is at work still: it began where there was no such directory yet
        return None
    return held


def lock_beside(fs: FileSystem, place: Place, held: Hold) -> bool:
    """Lock the hidden directory beside as well: who finds no place there would take it for its lock."""
    _require_ours(fs, place.beside)
    try:
        lock = fs.lock_directory(place.beside)
    except FileNotFoundError:
        return True
    if lock is not None:
        held.locks.append(lock)
    return lock is not None


def _require_ours(fs: FileSystem, path: Path) -> None:
    found = fs.entry(path)
    if found is not None and (found.uid not in (fs.access.uid, os.geteuid()) or found.kind != "directory"):
        raise SiteswapError(
            Kind.SYSTEM,
            f"{path} is in the way, and belongs to {opening.user_name(found.uid)}",
            hint="have it removed, or choose another directory",
        )


# -- after a crash ---------------------------------------------------------------------------------


def unfinished(fs: FileSystem, place: Place) -> bool:
    """Whether a crash, or a change that is under way, left something for the next command."""
    return any(fs.entry(path) is not None for path in (place.beside, place.inside))


def recover(fs: FileSystem, place: Place) -> None:
    """Finish, or undo, what a crash cut short, and remove what it left. Durable on return.

    Raises SiteswapError (damaged) for a journal that cannot be read, OSError where the disk refuses.
    """
    new = not fs.is_directory(place.top)
    _require_ours(fs, place.beside)
    if fs.entry(place.beside) is not None:
        # An exchange (P4) may not be durable yet; what stands beside is still the place on the disk then.
        fs.sync_directory(place.top.parent)
        _empty(fs, place.beside)
        if not new:
            fs.remove_tree(place.beside)
    if not new and fs.entry(place.inside) is not None:
        _require_ours(fs, place.inside)
        journal = Journal(fs, place)
        journal.finish()
        clear(fs, place)


def _empty(fs: FileSystem, path: Path) -> None:
    """Empty a directory that is the lock itself."""
    for name, _ in fs.entries(path):
        fs.remove_tree(path / name)


def clear(fs: FileSystem, place: Place) -> None:
    """Remove the directories for work in progress. No journal that counts is in them."""
    journal = Journal(fs, place)
    if journal.stands():
        return  # neither way was possible: the next command tries again, and nothing of it may go
    for path in (place.inside, place.beside):
        fs.remove_tree(path)


# -- what is possible ------------------------------------------------------------------------------


def look(fs: FileSystem, place: Place, kinds: Kinds, work: Path) -> Facts:
    """What decides on the swap. `work` is a directory of ours on the file system of the place."""
    exists = fs.is_directory(place.top)
    return Facts(
        whole=place.whole,
        exists=exists,
        parent_writable=fs.may_write(place.top.parent),
        mounted=_mounted(fs, place.top) if place.whole and exists else None,
        odd=_odd(fs, place, kinds) if place.whole and exists else None,
        attributed=place.whole and exists and fs.has_attributes(place.top),
        exchanges=place.whole and exists and _exchanges(fs, work),
    )


def _mounted(fs: FileSystem, top: Path) -> str | None:
    return next((str(path) for path in fs.mount_points() if path.is_relative_to(top)), None)


def _odd(fs: FileSystem, place: Place, kinds: Kinds) -> str | None:
    """What would not come out as it is: what is made anew is ours, and has the modes of the place itself."""
    access, me = fs.access, os.geteuid()
    device = None
    for path in ["", *(path for path in kinds if path)]:
        found = fs.entry(place.anchor / path)
        if found is None:
            continue
        device = found.inode[0] if device is None else device
        if found.kind == "directory":
            uid = access.uid if me == 0 else me
            like = (found.uid, found.gid, found.mode) == (uid, access.gid, access.directory)
        else:
            like = found.kind in ("file", "link") and me in (0, found.uid)
        if not like or found.inode[0] != device:
            return str(place.anchor / path)
    return None


def _exchanges(fs: FileSystem, work: Path) -> bool:
    one, two = work / "try-1", work / "try-2"
    try:
        fs.write(one, b"")
        fs.write(two, b"")
        fs.exchange(one, two)
    except (OSError, SiteswapError):
        return False
    finally:
        fs.unlink(one)
        fs.unlink(two)
    return True


# -- one exchange ----------------------------------------------------------------------------------


Sight = Mapping[str, int]
"""Every file and link but byte-code, with its inode: it is another one when somebody puts another there."""

Changing = Callable[[str], SiteswapError]
"""Makes the error for a path that somebody else changed."""


def sight(fs: FileSystem, place: Place, top: Path | None = None) -> Sight:
    """What stands in the place now; `top` is where, if that is not where it always stood."""
    found: dict[str, int] = {}
    for site in (place.anchor / site for site in place.sites) if top is None else (top,):
        paths = [
            path
            for path, kind in fs.walk(site)
            if kind != "directory" and "__pycache__" not in path.split("/") and not _is_own(path, place)
        ]
        if not paths:
            continue
        items = zip(paths, fs.change_times(site, paths), strict=True)
        here = top or place.anchor
        base = "" if site == here else f"{site.relative_to(here)}/"
        found |= {base + path: item[0] for path, item in items if item is not None}
    return found


def _is_own(path: str, place: Place) -> bool:
    return path.partition("/")[0] == place.inside.name


def require_same(before: Sight, now: Sight, changing: Changing) -> None:
    """Nothing came, went or was replaced. Raises SiteswapError (busy)."""
    for path in before.keys() | now.keys():
        if before.get(path) != now.get(path):
            raise changing(path)


class Exchange:
    """A new tree beside the place, that takes its place in one step."""

    def __init__(self, fs: FileSystem, place: Place, held: Hold, seen: Sight) -> None:
        """`seen` is from before anything was read of what the tree is made from."""
        self._fs = fs
        self._place = place
        self._held = held
        self._tree = place.beside / "tree"
        self._seen = seen
        self.stuck = False
        """The disk may have either tree at either place: neither may go."""

    def build(self, kinds: Kinds, changed: Kinds, bring: Callable[[Path], None]) -> None:
        """P2: the tree as it is to be. `kinds` is what is there, `changed` what of it goes or is replaced.

        What stays gets a second name, so that who writes to it goes on doing so. `bring` puts what is new.
        """
        fs, place = self._fs, self._place
        staying = [path for path, kind in kinds.items() if kind != "directory" and path not in changed]
        emptied = {parent for path in changed for parent in directories_of([path])}
        # Directories that were empty before stay, and so do their parents.
        empty = [
            f"{path}/" for path, kind in kinds.items() if kind == "directory" and path not in emptied
        ]  # fmt: skip
        fs.make_directory(self._tree)
        fs.make_directories(self._tree, directories_of([*staying, *empty]))
        files = [(path, path) for path in staying if kinds[path] == "file"]
        fs.link_files(place.top, self._tree, files, copy=False, tick=lambda _: None)
        for path in staying:
            if kinds[path] == "link":
                fs.symlink(self._tree / path, fs.read_link(place.top / path) or "")
        bring(self._tree)

    def commit(self, changing: Changing) -> None:
        """P3 to P5. Raises SiteswapError (busy), OSError: then the place is as it was."""
        fs, place = self._fs, self._place
        fs.barrier(self._tree)  # P3: all that the exchange makes visible is durable
        # Whoever comes from now on finds the new directory locked.
        lock = fs.lock_directory(self._tree)
        if lock is not None:
            self._held.locks.append(lock)
        if not fs.is_directory(place.top):
            self._appear()
            return
        require_same(self._seen, sight(fs, place), changing)
        fs.exchange(self._tree, place.top)  # P4
        try:
            require_same(
                self._seen, sight(fs, place, self._tree), changing
            )  # nobody can come to the old one by its name any more
            fs.sync_directory(place.top.parent)  # P5
        except BaseException as error:
            try:
                fs.exchange(self._tree, place.top)
                fs.sync_directory(place.top.parent)
            except OSError:
                self.stuck = True
                raise SiteswapError(
                    Kind.SYSTEM,
                    f"the disk does not say which of {self._tree} and {place.top} lasts: {error}",
                    hint="both are whole; see to the disk, then look at both",
                ) from error
            raise

    def _appear(self) -> None:
        """P4 where there was nothing."""
        fs, place = self._fs, self._place
        fs.rename(self._tree, place.top)
        try:
            fs.sync_directory(place.top.parent)  # P5
        except OSError as error:
            try:
                fs.rename(place.top, self._tree)
                fs.sync_directory(place.top.parent)
            except OSError:
                self.stuck = True
                raise SiteswapError(
                    Kind.SYSTEM,
                    f"the disk does not say which lasts, {place.top} or that it is not there: {error}",
                    hint="what is there is whole; see to the disk, then look whether it is there",
                ) from error
            raise


# -- a journal -------------------------------------------------------------------------------------


class Journal:
    """Moves that are made one by one, and can be gone through again from anywhere, forward or back."""

    def __init__(self, fs: FileSystem, place: Place) -> None:
        self._fs = fs
        self._place = place
        self._home = place.inside
        self._onward = self._home / "forward"
        self._backward = self._home / "back"

    def stands(self) -> bool:
        """Whether there is a journal that counts."""
        return any(self._fs.entry(path) is not None for path in (self._onward, self._backward))

    def stage(
        self,
        new: Mapping[str, object],
        gone: set[str],
        replaced: set[str],
        bring: Callable[[Path, Mapping[str, str]], None],
    ) -> list[Move]:
        """J2: everything that is to come, in the hidden directory. Returns the moves.

        `bring` puts new files into a directory, under the names that it is given for their paths.
        """
        fs, anchor = self._fs, self._place.anchor
        was: dict[str, tuple[int, int] | None] = {}
        for path in gone:
            found = fs.entry(anchor / path)
            if found is not None:
                was[path] = (found.size, found.mtime_ns)
        parents = directories_of([*new, *was])
        entries = {path: fs.entry(anchor / path) for path in parents}
        # A link on the way to a base directory is the interpreter's own (/lib leads to /usr/lib).
        there = [path for path, entry in entries.items() if entry and entry.kind != "file"]
        place = self._place
        lasting = set() if place.whole else place.above
        planned = moves.plan(list(new), was, replaced, there, lasting)
        self._require_one_disk(planned)
        fs.make_directory(self._home / "new")
        fs.make_directory(self._home / "old")
        for move in planned:
            if move.kind == moves.MAKE:
                fs.make_directory(self._home / "new" / str(move.slot))
        slots = {move.path: str(move.slot) for move in planned if move.kind == moves.PLACE}
        bring(self._home / "new", slots)
        return planned

    def commit(self, planned: list[Move]) -> None:
        """J3 to J8. On return the new is there, durably.

        Raises OSError, SiteswapError: then the old is there, or (where the disk refuses that too) the next
        command sees to it.
        """
        fs, home = self._fs, self._home
        fs.barrier(home)  # J3: what is staged is durable
        fresh = home / "journal"
        fs.write(fresh, moves.to_json(planned, str(self._place.anchor)), durable=True)
        fs.rename(fresh, self._onward)  # J4: from here on a crash comes to the new
        try:
            fs.sync_directory(home)
            self._go(planned)  # J5
            fs.barrier(home)  # J6: every move is durable before the journal goes
        except OSError as error:
            self._go_back(planned, error)
            raise
        # What is durable is done; the next command would find nothing to do in the journal, and remove it.
        with contextlib.suppress(OSError):
            self._forget(self._onward, planned)

    def finish(self) -> None:
        """After a crash: forward; back where that had begun. Raises OSError where the disk refuses.

        Not back instead: a power cut may have lost second names of old files whose places are taken.
        """
        fs = self._fs
        if fs.entry(self._backward) is not None:
            planned = self._read(self._backward)
            fs.sync_directory(self._home)  # that it goes back may not be durable yet
            self._undo(planned)
        elif fs.entry(self._onward) is not None:
            planned = self._read(self._onward)
            fs.sync_directory(self._home)  # where the command was only killed, it may not be durable yet
            self._go(planned)
            fs.barrier(self._home)
            self._forget(self._onward, planned)

    def _read(self, path: Path) -> list[Move]:
        place = self._place
        return moves.from_json(self._fs.read(path), str(path), str(place.anchor), place.holds)

    def _go(self, planned: list[Move]) -> None:
        """J5, but for what goes when nothing goes back any more."""
        for move in planned:
            if move.kind != moves.DROP or move.early:
                for step in moves.forward(move, self._see(move)):
                    self._do(step, move)

    def _go_back(self, planned: list[Move], error: OSError) -> None:
        fs = self._fs
        try:
            fs.barrier(self._home)  # the old files' second names, before they are what counts
            fs.rename(self._onward, self._backward)
            fs.sync_directory(self._home)
            self._undo(planned)
        except OSError:
            raise SiteswapError(
                Kind.SYSTEM,
                f"{self._place.top} is half changed, and the disk refuses to go on or back: {error}",
                hint="see to the disk; the next command of siteswap there finishes or undoes it",
            ) from error

    def _undo(self, planned: list[Move]) -> None:
        for move in reversed(planned):
            for step in moves.back(move, self._see(move)):
                self._do(step, move)
        self._fs.barrier(self._home)
        self._forget(self._backward, [])

    def _forget(self, path: Path, planned: list[Move]) -> None:
        """J7, J8: what is left empty goes, then the journal, for good before anything that it names."""
        fs = self._fs
        for move in planned:
            if move.kind == moves.DROP and not move.early:
                fs.remove_directory(self._place.anchor / move.path)
        fs.barrier(self._home)
        fs.unlink(path)
        fs.sync_directory(self._home)

    def _see(self, move: Move) -> Seen:
        fs, slot = self._fs, str(move.slot)
        at = fs.entry(self._place.anchor / move.path)
        same = at is not None and at.kind != "directory" and (at.size, at.mtime_ns) == move.was
        return Seen(
            at.kind if at is not None else None,
            staged=fs.entry(self._home / "new" / slot) is not None,
            kept=fs.entry(self._home / "old" / slot) is not None,
            same=same,
        )

    def _do(self, step: str, move: Move) -> None:
        fs, path = self._fs, self._place.anchor / move.path
        new, old = (self._home / name / str(move.slot) for name in ("new", "old"))
        if step == moves.RMDIR:
            fs.remove_directory(path)
        elif step == moves.KEEP:
            try:
                fs.second_name(path, old)
            except PermissionError:
                # The kernel gives no second names to other users' files: for a moment it has none here.
                fs.rename(path, old)
        elif step == moves.PUT:
            fs.rename(new, path)
        elif step == moves.TAKE:
            fs.rename(path, old)
        elif step == moves.RESTORE:
            fs.rename(old, path)
        else:
            fs.unlink(path)

    def _require_one_disk(self, planned: list[Move]) -> None:
        """Raises SiteswapError (system) where a file would have to move between file systems."""
        fs, place = self._fs, self._place
        home = fs.entry(self._home)
        for directory in {
            move.path.rpartition("/")[0] for move in planned if move.kind in ("place", "remove")
        }:
            path = place.anchor / directory
            while (found := fs.entry(fs.resolve(path))) is None:
                path = path.parent
            if home is not None and found.inode[0] != home.inode[0]:
                raise SiteswapError(
                    Kind.SYSTEM,
                    f"{path} is on another file system than {place.top}: no rename leads there",
                    hint="install into an environment, or into a --target directory of one file system",
                )
            if not fs.may_write(path):
                raise SiteswapError(
                    Kind.SYSTEM,
                    f"{path} is not writable",
                    hint="run the command as the user whom it belongs to",
                )
