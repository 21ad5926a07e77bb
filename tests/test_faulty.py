"""The failing file system does what the real one does, and its model of a disk loses what a disk may lose."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from crashing import Tree, look
from disk import (
    EVERYTHING,
    NAMES_ONLY,
    NOTHING,
    ZEROS,
    Fate,
    Image,
    Operation,
    any_order,
    ordered,
)
from faulty import Crash, Crashed, Failure, FaultyFileSystem
from siteswap.errors import SiteswapError
from siteswap.fs import FileSystem
from snapshots import tree

Make = Callable[[Path], FileSystem]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a file, a link and a directory in it."""
    path = tmp_path / "root"
    (path / "old").mkdir(parents=True)
    (path / "old/file").write_bytes(b"old")
    (path / "link").symlink_to("old/file")
    return path


# -- one suite for both ----------------------------------------------------------------------------


def _replace(fs: FileSystem, root: Path) -> object:
    fs.write(root / "old/file", b"new", executable=True, durable=True)
    fs.replace(root / "link", b"a file now")
    return fs.read(root / "old/file"), fs.read_link(root / "link")


def _append(fs: FileSystem, root: Path) -> object:
    fs.append_line(root / "log", "one")
    fs.append_line(root / "old/file", "two")
    return fs.read(root / "log"), fs.read(root / "old/file")


def _directories(fs: FileSystem, root: Path) -> object:
    fs.make_directory(root / "a/b/c", parents=True)
    fs.make_directories(root, ["a/b", "a/d", "a/d/e"])
    fs.write_stream(root / "a/d/file", iter([b"x", b"y"]), executable=True)
    return fs.remove_empty_directories(root, ["a/b/c", "a/d", "nowhere", "a/d/e"]), list(fs.walk(root))


def _links(fs: FileSystem, root: Path) -> object:
    fs.make_directory(root / "new")
    told: list[int] = []
    pairs = [("old/file", "new/one"), ("old/file", "two"), ("link", "new/link")]
    fs.link_files(root, root, pairs, copy=False, tick=told.append)
    fs.link_files(root, root, [("old/file", "new/copy")], copy=True, tick=told.append)
    one, copied = fs.entry(root / "new/one"), fs.entry(root / "new/copy")
    assert one is not None
    assert copied is not None
    return one.inode == copied.inode, sum(told), one.mtime_ns == copied.mtime_ns


def _trees(fs: FileSystem, root: Path) -> object:
    fs.copy_tree(root / "old", root / "copy")
    fs.exchange(root / "copy", root / "link")
    fs.rename(root / "copy", root / "moved")
    fs.remove_tree(root / "old")
    fs.remove_tree(root / "nothing")
    fs.unlink_files(root, ["moved", "nothing", "link/nothing"])
    return fs.entries(root)


def _locks(fs: FileSystem, root: Path) -> object:
    lock = fs.lock(root / "lock")
    assert lock is not None
    fs.note(lock, "who")
    with lock:
        return fs.lock(root / "lock"), fs.read(root / "lock"), fs.inode(lock) == fs.inode(lock)


def _syncs(fs: FileSystem, root: Path) -> object:
    fs.sync_directory(root)
    fs.barrier(root)
    return fs.entries(root)


def _ownership(fs: FileSystem, root: Path) -> None:
    fs.give(root / "old/file", os.geteuid(), os.getegid())
    fs.own_byte_code(root, [""])


def _archive(fs: FileSystem, root: Path) -> None:
    fs.extract(root / "old/file", root)


def _over_a_directory(fs: FileSystem, root: Path) -> None:
    fs.rename(root / "link", root / "old")


def _there_already(fs: FileSystem, root: Path) -> None:
    fs.link_files(root, root, [("old/file", "link")], copy=False, tick=lambda _: None)


def _no_directory(fs: FileSystem, root: Path) -> None:
    fs.write(root / "nowhere/file", b"")


def _not_there(fs: FileSystem, root: Path) -> None:
    fs.exchange(root / "nothing", root / "link")


def _through_a_link(fs: FileSystem, root: Path) -> None:
    fs.append_line(root / "link", "never")


SUITE = [
    _replace, _append, _directories, _links, _trees, _locks, _syncs, _ownership, _archive,
    _over_a_directory, _there_already, _no_directory, _not_there, _through_a_link,
]  # fmt: skip


def _attempt(make: Make, action: Callable[[FileSystem, Path], object], root: Path) -> object:
    """What an action gives, or how it fails, and what is there afterwards."""
    fs = make(root)
    try:
        result = action(fs, root)
    except OSError as error:
        result = type(error), error.errno, str(error.filename).removeprefix(str(root))
    except SiteswapError as error:
        result = type(error), error.kind
    return result, tree(root)


@pytest.mark.parametrize("action", SUITE, ids=lambda item: item.__name__.strip("_"))
def test_both_file_systems_do_the_same(
    root: Path, tmp_path: Path, action: Callable[[FileSystem, Path], object]
) -> None:
    """Same results, same errors, same content; and the model has what is really there."""
    start, _ = Image.of(root)
    real = _attempt(lambda _: FileSystem(), action, root)
    root.rename(tmp_path / "used")
    root.mkdir()
    start.build(root)
    made: list[FaultyFileSystem] = []

    def faulty(path: Path) -> FileSystem:
        made.append(FaultyFileSystem(path))
        return made[0]

    assert _attempt(faulty, action, root) == real
    journal = made[0].journal
    built = tmp_path / "built"
    built.mkdir()
    image = journal.killed(journal.mark())
    image.build(built)
    assert tree(built) == tree(root)
    assert Image.of(built)[0].digest() == Image.of(root)[0].digest() == image.digest()
    times = {path: (root / path).lstat().st_mtime_ns for path in tree(root)}
    assert {path: (built / path).lstat().st_mtime_ns for path in tree(built)} == times


# -- dying and failing -----------------------------------------------------------------------------


def _busy(fs: FileSystem, root: Path) -> None:
    """A few operations of every kind."""
    fs.make_directory(root / "new")
    fs.write(root / "new/file", b"content", durable=True)
    fs.symlink(root / "new/link", "file")
    fs.rename(root / "new", root / "moved")
    fs.append_line(root / "old/file", "line")
    fs.remove_tree(root / "moved")
    fs.sync_directory(root)


def _busy_and_tidy(fs: FileSystem, root: Path) -> None:
    try:
        _busy(fs, root)
    finally:
        fs.remove_tree(root / "old")


def test_a_crash_stops_at_each_operation(root: Path) -> None:
    """The first k operations are done, and no clean-up after that reaches the disk; half of a write may."""
    start, _ = Image.of(root)
    whole = FaultyFileSystem(root)
    _busy(whole, root)
    for count, half in [(index, half) for index in range(whole.journal.mark()) for half in (False, True)]:
        FileSystem().remove_tree(root)
        root.mkdir()
        start.build(root)
        fs = FaultyFileSystem(root, Crash(count, half))
        with pytest.raises(Crashed):
            _busy_and_tidy(fs, root)
        half = half and whole.journal.operations[count].kind == "write"
        expected = whole.journal.killed(count, half=half)
        assert look(Image.of(root)[0]) == look(expected), f"{count}, {half}"


def test_locks_of_the_dead_are_free(root: Path) -> None:
    """As the kernel releases them."""
    fs = FaultyFileSystem(root, Crash(4))
    assert fs.lock(root / "lock") is not None
    with pytest.raises(Crashed):
        _busy(fs, root)
    assert FileSystem().lock(root / "lock") is None
    fs.bury()
    assert FileSystem().lock(root / "lock") is not None


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "EDQUOT", "EROFS", "EMFILE"])
def test_an_operation_fails_once_or_from_then_on(root: Path, name: str) -> None:
    """With the error that was asked for, and what fails changes nothing."""
    number = getattr(errno, name)
    before = tree(root)
    once = FaultyFileSystem(root, Failure(0, number))
    with pytest.raises(OSError, match=os.strerror(number)) as refused:
        once.make_directory(root / "new")
    assert (refused.value.errno, tree(root)) == (number, before)
    once.make_directory(root / "new")
    assert [item.kind for item in once.struck] == ["mkdir"]
    always = FaultyFileSystem(root, Failure(0, number, lasting=True))
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(number)):
            always.unlink(root / "link")
    assert always.read(root / "old/file") == b"old"


def test_half_of_a_write_may_be_there_when_it_fails(root: Path) -> None:
    """As on a full disk."""
    fs = FaultyFileSystem(root, Failure(1, errno.ENOSPC, half=True))
    with pytest.raises(OSError, match="No space"):
        fs.write(root / "new", b"content")
    assert (root / "new").read_bytes() == b"con"


def test_what_is_outside_is_let_through(root: Path, tmp_path: Path) -> None:
    """Only what happens below the root counts."""
    fs = FaultyFileSystem(root, Crash(0))
    fs.write(tmp_path / "outside", b"x")
    assert fs.journal.mark() == 0


# -- the model -------------------------------------------------------------------------------------


def cut(fs: FaultyFileSystem, fate: Fate) -> Tree:
    """What may be there after a power cut now."""
    return look(fs.journal.cut(fs.journal.mark(), fate))


def losing(*kinds: str) -> Fate:
    """Operations of some kinds are lost, with all content that can be."""
    return Fate(lambda _, item: item.kind not in kinds, lambda *_: "all")


def test_a_rename_is_lost_or_there_as_a_whole(root: Path) -> None:
    """Never both names, never none; and with the directory synced it is there."""
    fs = FaultyFileSystem(root)
    fs.rename(root / "old/file", root / "moved")
    assert {"old/file", "moved"} & cut(fs, NOTHING).keys() == {"old/file"}
    assert {"old/file", "moved"} & cut(fs, EVERYTHING).keys() == {"moved"}
    fs.sync_directory(root)
    assert {"old/file", "moved"} & cut(fs, NOTHING).keys() == {"moved"}


def test_a_rename_may_come_before_the_data(root: Path) -> None:
    """The classic: a new file renamed over the old one, without `fsync`, is empty."""
    fs = FaultyFileSystem(root)
    fs.write(root / "fresh", b"new")
    fs.rename(root / "fresh", root / "old/file")
    assert cut(fs, NAMES_ONLY)["old/file"][2] == b""
    assert cut(fs, ZEROS)["old/file"][2] == b"\0\0\0"
    assert cut(fs, NOTHING)["old/file"][2] == b"old"


def test_a_synced_file_may_lack_its_name(root: Path) -> None:
    """`fsync` of a file makes its content durable; that of its directory, its name."""
    fs = FaultyFileSystem(root)
    fs.write(root / "new", b"new", durable=True)
    assert "new" not in cut(fs, NOTHING)
    assert cut(fs, NAMES_ONLY)["new"][2] == b"new"
    fs.sync_directory(root)
    assert cut(fs, NOTHING)["new"][2] == b"new"


def test_a_synced_directory_may_have_empty_files(root: Path) -> None:
    fs = FaultyFileSystem(root)
    fs.write(root / "new", b"new")
    fs.sync_directory(root)
    assert cut(fs, NOTHING)["new"] == ("file", 0o600, b"")


def test_a_lost_directory_takes_everything_along(root: Path) -> None:
    """Whatever in it was synced."""
    fs = FaultyFileSystem(root)
    fs.make_directory(root / "new")
    fs.write(root / "new/file", b"new", durable=True)
    fs.sync_directory(root / "new")
    assert not any(path.startswith("new") for path in cut(fs, losing("mkdir")))
    assert cut(fs, losing())["new/file"][2] == b"new"


def test_a_lost_removal_brings_the_file_back(root: Path) -> None:
    fs = FaultyFileSystem(root)
    fs.unlink(root / "old/file")
    assert cut(fs, NOTHING)["old/file"][2] == b"old"
    fs.sync_directory(root / "old")
    assert "old/file" not in cut(fs, NOTHING)


def test_a_tree_may_be_emptied_before_it_is_moved(root: Path) -> None:
    """What must be synced between the two, and what that costs where it is not."""
    fs = FaultyFileSystem(root)
    fs.rename(root / "old", root / "away")
    fs.remove_tree(root / "away")
    half = cut(fs, losing("rename", "rmdir"))
    assert "old" in half
    assert "old/file" not in half


def test_an_exchange_is_atomic(root: Path) -> None:
    fs = FaultyFileSystem(root)
    fs.exchange(root / "old", root / "link")
    assert (cut(fs, NOTHING)["old"][0], cut(fs, NOTHING)["link"][0]) == ("directory", "link")
    assert (cut(fs, EVERYTHING)["old"][0], cut(fs, EVERYTHING)["link"][0]) == ("link", "directory")


def test_what_was_moved_here_from_somewhere_is_durable_with_all_its_moves(root: Path) -> None:
    """A directory that was synced where it came to is not lost with an earlier move."""
    fs = FaultyFileSystem(root)
    fs.make_directory(root / "stage")
    fs.exchange(root / "stage", root / "link")
    fs.make_directory(root / "home")
    fs.rename(root / "link", root / "home/there")
    fs.sync_directory(root / "home")
    found = cut(fs, NOTHING)
    assert found["stage"][0] == "link"
    assert "link" not in found


def test_an_append_may_be_torn(root: Path) -> None:
    """What stood there before stays."""
    fs = FaultyFileSystem(root)
    with (root / "old/file").open("rb") as stream:
        assert stream.read() == b"old"
    descriptor = fs._open_or_create(root / "old/file", os.O_RDWR | os.O_APPEND)
    fs._write(descriptor, b"1234")
    os.close(descriptor)
    torn = Fate(lambda *_: True, lambda *_: "prefix")
    assert [cut(fs, fate)["old/file"][2] for fate in (NOTHING, torn, EVERYTHING)] == [
        b"old", b"old12", b"old1234"
    ]  # fmt: skip


def test_a_barrier_makes_everything_durable(root: Path) -> None:
    fs = FaultyFileSystem(root)
    _busy(fs, root)
    fs.write(root / "more", b"more")
    fs.barrier(root)
    assert cut(fs, NOTHING) == cut(fs, EVERYTHING) == look(Image.of(root)[0])


def test_a_barrier_that_failed_makes_nothing_durable(root: Path) -> None:
    fs = FaultyFileSystem(root, Failure(3, errno.EIO))
    fs.write(root / "new", b"new")
    with pytest.raises(OSError, match="Input/output"):
        fs.barrier(root)
    assert "new" not in cut(fs, NOTHING)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_synced_is_never_lost(root: Path, seed: int) -> None:
    """In no combination: what was durable is there, and later operations are there one by one."""
    fs = FaultyFileSystem(root)
    chance = random.Random(seed)
    fs.write(root / "kept", b"kept", durable=True)
    fs.sync_directory(root)
    _busy(fs, root)
    fs.write(root / "later", b"later")
    for fate in (any_order(chance), ordered(chance, fs.journal.mark())):
        found = cut(fs, fate)
        assert found["kept"][2] == b"kept"
        assert found["old/file"][2] == b"old" or found["old/file"][2].startswith(b"old")
        assert found.get("later", ("", 0, b""))[2] in (b"", b"la", b"\0" * 5, b"later")


def test_in_order_means_that_nothing_comes_before_what_was_asked_for_first(root: Path) -> None:
    """In the profile of journaling file systems a name is there only if all earlier ones are."""
    fs = FaultyFileSystem(root)
    for index in range(9):
        fs.symlink(root / f"n{index}", "x")
    for seed in range(50):
        fate = ordered(random.Random(seed), fs.journal.mark())
        there = sorted(path for path in cut(fs, fate) if path.startswith("n"))
        assert there == [f"n{index}" for index in range(len(there))]


def test_a_second_process_goes_on_where_the_first_was_killed(root: Path) -> None:
    """What the first left is not durable for being there."""
    first = FaultyFileSystem(root)
    first.symlink(root / "one", "x")
    second = FaultyFileSystem(root, after=(first.journal, first.journal.mark()))
    second.symlink(root / "two", "x")
    assert {"one", "two"} & cut(second, NOTHING).keys() == set()
    second.sync_directory(root)
    assert {"one", "two"} <= cut(second, NOTHING).keys()


def test_a_state_can_be_built(root: Path, tmp_path: Path) -> None:
    """One that has lost the name of a new directory."""
    fs = FaultyFileSystem(root)
    fs.make_directory(root / "new")
    (tmp_path / "built").mkdir()
    fs.after_power_cut(tmp_path / "built", NOTHING)
    assert tree(tmp_path / "built").keys() == {"old", "old/file", "link"}


def test_operations_say_where_they_come_from(root: Path) -> None:
    """For messages, and to tell a loop's operations from others."""
    fs = FaultyFileSystem(root)
    fs.make_directory(root / "new")
    (made, changed) = fs.journal.operations
    assert isinstance(made, Operation)
    assert (made.kind, changed.kind, made.what) == ("mkdir", "chmod", str(root / "new"))
    assert "fs.py:" in made.code
