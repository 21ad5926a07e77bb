"""A crash at every change of the disk, or an error there, while a plain directory changes.

For the exchange every state of the disk is exactly old or exactly new by itself; for the journal it is after
the next command has finished or undone it. What that next command does may crash as well.
"""

from __future__ import annotations

import collections
import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import STRESS
from crashing import OPEN, Tree, World, assert_same, look
from disk import EVERYTHING, NAMES_ONLY, NOTHING, ZEROS, Fate, Image, any_order, ordered
from faulty import Failure, FaultyFileSystem
from siteswap import interpreter, moves, place, swap, workshop
from siteswap.cache import Cache
from siteswap.errors import Kind, SiteswapError
from siteswap.folder import Folder
from siteswap.fs import FileSystem, access_of
from siteswap.lockfile import LockFile
from siteswap.manifest import Interpreter
from siteswap.swap import Journal

pytestmark = pytest.mark.stress

SEEDS = 30 if STRESS else 2
PYTHON: list[Interpreter] = []
HIDDEN = ("plain/.siteswap-changing", ".plain.siteswap-changing")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread and no other program; the interpreter is asked once."""
    if not PYTHON:
        PYTHON.append(interpreter.probe(interpreter.find(None, FileSystem()), FileSystem()))
    monkeypatch.setattr(interpreter, "refresh", lambda known, _: known)


@pytest.fixture
def world() -> Iterator[World]:
    shared = Path("/dev/shm")
    where = shared if os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="siteswap-test-", dir=where) as base:
        yield World(Path(base))


def folder(world: World, fs: FileSystem | None = None) -> Folder:
    top = world.work / "plain"
    fs = fs or FileSystem(access_of(top) if top.exists() else None)
    where = place.directory(top, PYTHON[0].executable)
    return Folder(where, fs, PYTHON[0], lock_timeout=0, cache=Cache(world.cache, fs))


def sync(world: World, name: str, fs: FileSystem | None = None) -> None:
    path = world.lock(name)
    folder(world, fs).sync(LockFile.parse(path.read_text(), path.parent, str(path)), gates=OPEN)


def uninstall(world: World, fs: FileSystem | None = None) -> None:
    folder(world, fs).uninstall(["alpha"], gates=OPEN)


def one(world: World) -> None:
    """A version of two distributions, and beside them what others put there."""
    sync(world, "one")
    plain = world.work / "plain"
    (plain / "mine.py").write_text("M = 1\n")
    (plain / "alpha/notes").write_text("of no distribution\n")
    (plain / "link").symlink_to("mine.py")
    for directory in ("empty", "alpha/__pycache__"):
        (plain / directory).mkdir()
    for name in ("__init__", "old"):
        (plain / f"alpha/__pycache__/{name}.{PYTHON[0].cache_tag}.pyc").write_bytes(b"stale")
    for path in plain.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (10**9, 10**9))


def nothing(world: World) -> None:
    sync(world, "one")  # fills the cache
    import shutil

    shutil.rmtree(world.work / "plain")


@dataclass(frozen=True)
class Scenario:
    name: str
    prepare: Callable[[World], None]
    command: Callable[[World, FileSystem | None], None]
    journal: bool = False


SCENARIOS = [
    Scenario("appear", nothing, lambda world, fs: sync(world, "one", fs)),
    Scenario("exchange", one, lambda world, fs: sync(world, "two", fs)),
    Scenario("journal", one, lambda world, fs: sync(world, "two", fs), journal=True),
    Scenario("uninstall by journal", one, uninstall, journal=True),
]


class Run:
    """One undisturbed run of a command, with all that it did to the disk."""

    def __init__(
        self, world: World, scenario: Scenario, patch: pytest.MonkeyPatch, skipped: tuple[str, ...] = ()
    ) -> None:
        self.world, self.scenario = world, scenario
        scenario.prepare(world)
        if scenario.journal:
            patch.setattr(place, "hindrance", lambda facts: "for the test")
        self.old = plain(world.look())
        self.fs = FaultyFileSystem(world.work, skipped=skipped)
        self.begin = self.fs.journal.start
        scenario.command(world, self.fs)
        self.journal = self.fs.journal
        self.count = self.journal.mark()
        self.new = plain(world.look())
        assert self.old != self.new
        assert not any(hidden(world.look()))

    def states(self, seeds: int) -> Iterator[tuple[str, int, Image]]:
        for count in range(self.count + 1):
            if not self.telling(count - 1):
                continue
            yield "killed", count, self.journal.killed(count)
            fates: list[tuple[str, Fate]] = [
                ("nothing survived", NOTHING), ("everything survived", EVERYTHING),
                ("names without content", NAMES_ONLY), ("zeros for content", ZEROS),
            ]  # fmt: skip
            for seed in range(seeds):
                chance = random.Random(f"{self.scenario.name} {count} {seed}")
                fates.append((f"in any order, seed {seed}", any_order(chance)))
                fates.append((f"in order, seed {seed}", ordered(chance, count)))
            for label, fate in fates:
                yield f"power cut, {label}", count, self.journal.cut(count, fate)

    def telling(self, index: int) -> bool:
        """Whether an operation is one to look at: of those in the workshop, which is garbage, only some."""
        operations = self.journal.operations
        at_the_end = index < 0 or index >= self.count - 1
        return STRESS or at_the_end or index % 60 == 0 or "-changing/env/" not in operations[index].what

    def describe(self, label: str, count: int) -> str:
        operations = self.journal.operations
        last = f"{operations[count - 1].kind} {operations[count - 1].what}" if count else "nothing"
        return f"{self.scenario.name}: {label} after {count} of {self.count} operations, the last: {last}"


def plain(tree: Tree) -> Tree:
    """The directory itself, without what is hidden."""
    return {
        path: thing for path, thing in tree.items() if path.split("/")[0] == "plain" and not _is_hidden(path)
    }


def _is_hidden(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in HIDDEN)


def hidden(tree: Tree) -> list[str]:
    return [path for path in tree if _is_hidden(path)]


def journaled(tree: Tree) -> bool:
    return any(f"{HIDDEN[0]}/{name}" in tree for name in ("forward", "back"))


def which(run: Run, tree: Tree) -> str:
    """Old or new; raises AssertionError for what is neither."""
    found = plain(tree)
    if found == run.new:
        return "new"
    assert_same(found, run.old, f"neither old nor new (new differs at {len(_differ(found, run.new))})")
    return "old"


def _differ(one: Tree, other: Tree) -> list[str]:
    return [path for path in one.keys() | other.keys() if one.get(path) != other.get(path)]


def key(tree: Tree) -> object:
    """Tells apart what recovery could treat differently."""
    shown = tree if journaled(tree) else plain(tree)
    if not journaled(tree):
        return frozenset(shown.items()), frozenset(path for path in hidden(tree) if path.count("/") < 2)
    return frozenset(
        (path, thing) for path, thing in shown.items() if "/env/" not in path and "cache" not in path
    )


def examine(run: Run, tree: Tree, label: str, count: int) -> str:
    """What any reader may find at any time."""
    try:
        if journaled(tree):
            assert run.scenario.journal
            return "under way"
        return which(run, tree)
    except AssertionError as error:
        raise AssertionError(f"{run.describe(label, count)}: {error}") from error


def recover(
    run: Run, image: Image, place_of: str, *, reported: bool, fs: FaultyFileSystem | None = None
) -> str:
    """The next command: a reading one. Then it is exactly old or new, and nothing is left."""
    try:
        if (run.world.work / "plain").exists():
            folder(run.world, fs).list()
        tree = run.world.look()
        seen = which(run, tree)
        assert seen == "new" or not reported, "a reported success did not last"
        if (run.world.work / "plain").exists():
            assert hidden(tree) == [], "something is left of a crash"
    except (Exception, AssertionError) as error:
        raise AssertionError(f"{place_of}, then list: {error!r}") from error
    return seen


def explore(run: Run, seeds: int) -> tuple[collections.Counter[str], int]:
    histogram: collections.Counter[str] = collections.Counter()
    known: dict[object, Image] = {}
    for label, count, image in run.states(seeds):
        tree = look(image)
        seen = examine(run, tree, label, count)
        reported = count == run.count
        if reported:
            assert seen == "new", f"{run.describe(label, count)}: a reported success did not last"
        token = key(tree)
        if token not in known:
            known[token] = image
            run.world.restore(image)
            seen = f"{seen}, then {recover(run, image, run.describe(label, count), reported=reported)}"
            if seen.startswith("old"):
                run.scenario.command(run.world, None)
                assert which(run, run.world.look()) == "new", run.describe(label, count)
                assert hidden(run.world.look()) == [], run.describe(label, count)
        histogram[f"{label.split(',')[0]}: {seen.split(',')[0]}"] += 1
    return histogram, len(known)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda item: item.name)
def test_a_crash_at_any_operation_leaves_the_old_or_the_new(
    world: World, scenario: Scenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(world, scenario, monkeypatch)
    histogram, recoveries = explore(run, SEEDS)
    with capsys.disabled():
        print(f"\n    {scenario.name}: {run.count} operations, {histogram.total()} states,", end=" ")
        print(f"{recoveries} recoveries;", dict(sorted(histogram.items())), end="")


@pytest.mark.parametrize("scenario", SCENARIOS[2:], ids=lambda item: item.name)
def test_finishing_it_may_crash_as_well(
    world: World, scenario: Scenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crash of what finishes a journal after a crash, and of what undoes it."""
    run = Run(world, scenario, monkeypatch)
    first: dict[object, tuple[str, int, Image]] = {}
    for label, count, image in run.states(1):
        if journaled(look(image)):
            first.setdefault(key(look(image)), (label, count, image))
    chosen = list(first.values())[:: 1 if STRESS else max(1, len(first) // 3)]
    states = 0
    for number, (label, count, image) in enumerate(chosen):
        # Back begins only where nothing has been lost, and before empty directories go (J7).
        there = look(image)
        may_go_back = label == "killed" and all(
            path in there for path, thing in run.old.items() if thing[0] == "directory"
        )
        for back in (False, True) if may_go_back else (False,):
            run.world.restore(image)
            after = (run.journal, count) if label == "killed" else None
            fs = FaultyFileSystem(world.work, after=after)
            if back:  # as after an error that a crash came upon
                journal = Journal(fs, folder(world, fs).place)
                fs.barrier(world.work / HIDDEN[0])
                fs.rename(journal._onward, journal._backward)
                fs.sync_directory(world.work / HIDDEN[0])
            begin = fs.journal.mark()
            folder(world, fs).list()
            wanted = "old" if back else "new"
            assert which(run, world.look()) == wanted
            ends = fs.journal.mark()
            for at in range(begin, ends + 1, 1 if STRESS else 1 + (ends - begin) // 15):
                for fate in (None, any_order(random.Random(f"{number} {at}"))):
                    found = fs.journal.killed(at) if fate is None else fs.journal.cut(at, fate)
                    states += 1
                    run.world.restore(found)
                    said = f"{run.describe(label, count)}, {'back' if back else 'forward'} up to {at}"
                    tree = look(found)
                    # Where the first was only killed, that a journal stands may not have been durable.
                    never = not back and not journaled(tree) and plain(tree) == run.old
                    assert recover(run, found, said, reported=False) == ("old" if never else wanted), said
    with capsys.disabled():
        print(f"\n    {scenario.name}: {len(chosen)} crashes, {states} states", end="")


# -- others who work there ---------------------------------------------------------------------------


def _changed_by_another(world: World, patch: pytest.MonkeyPatch, journal: bool) -> tuple[Tree, Kind | None]:
    """A file comes after the place was read: what is there at the end, and what was said."""
    said = None
    one(world)
    if journal:
        patch.setattr(place, "hindrance", lambda facts: "for the test")
    barrier = FileSystem.barrier

    def meanwhile(fs: FileSystem, path: Path) -> None:
        if path.name in ("tree", "env"):
            (world.work / "plain/meanwhile").write_text("of another installer\n")
        barrier(fs, path)

    make = workshop.make

    def made(*arguments: Any) -> Any:
        (world.work / "plain/meanwhile").write_text("of another installer\n")
        return make(*arguments)

    patch.setattr(*((workshop, "make", made) if journal else (FileSystem, "barrier", meanwhile)))
    try:
        sync(world, "two")
    except SiteswapError as error:
        said = error.kind
    return world.look(), said


@pytest.mark.parametrize("journal", [False, True])
def test_what_others_put_there_meanwhile_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, journal: bool
) -> None:
    """It is noticed before the commit, and nothing changes."""
    tree, said = _changed_by_another(world, monkeypatch, journal)
    assert said is Kind.BUSY
    assert "plain/meanwhile" in tree
    assert tree["plain/alpha/__init__.py"][2] == b"V = 1\n"
    assert hidden(tree) == []


def test_looking_again_is_what_notices_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "require_same", lambda *_: None)
    tree, said = _changed_by_another(world, monkeypatch, False)
    assert ("plain/meanwhile" in tree, said) == (False, None)


# -- errors ----------------------------------------------------------------------------------------


def faults(run: Run, every: bool) -> Iterator[Failure]:
    """Each sync and some other places in the program that change the disk; all in the wide run."""
    wanted: dict[str, int] = {}
    for index, operation in enumerate(run.journal.operations):
        if not run.telling(index):
            continue
        wanted.setdefault(f"{operation.kind} {operation.code}", index)
    places = range(run.count) if STRESS else sorted(set(wanted.values()))
    for turn, index in enumerate(places):
        if not every and turn % 3 and not run.journal.operations[index].syncs:
            continue
        number = (errno.ENOSPC, errno.EIO, errno.EROFS)[turn % 3]
        yield Failure(index, number)
        if STRESS or run.journal.operations[index].syncs or turn % 3 == 0:
            yield Failure(index, number, lasting=True)


def fail(run: Run, fault: Failure) -> str:
    world = run.world
    operation = run.journal.operations[fault.at]
    said = f"{run.scenario.name}: {fault} of {run.count} ({operation.kind} {operation.what})"
    world.restore(run.begin)
    fs = FaultyFileSystem(world.work, fault)
    try:
        run.scenario.command(world, fs)
        ended = "done all the same"
    except (SiteswapError, OSError) as error:
        ended = "half changed" if "half changed" in str(error) else "refused"
        if "does not say which" in str(error):
            ended = "stuck"
    try:
        assert fs.held() == [], "a lock is held on"
        tree = world.look()
        if ended == "half changed":
            assert journaled(tree)
            assert fault.lasting
        elif ended == "stuck":
            assert fault.lasting
            which(run, tree)
            return ended
        elif ended == "refused" or not journaled(tree):  # else empty directories are for the next command
            assert which(run, tree) == ("new" if ended == "done all the same" else "old")
        for fate in (NOTHING, EVERYTHING):
            later = look(fs.journal.cut(fs.journal.mark(), fate))
            if not journaled(later):
                seen = which(run, later)
                struck = fault.lasting and any(item.kind == "fsync directory" for item in fs.struck)
                assert struck or ended == "half changed" or seen == ("new" if ended[0] == "d" else "old")
        if (world.work / "plain").exists():
            folder(world).list()
        seen = which(run, world.look())
        if ended == "refused":
            assert seen == "old"
        if seen == "old":
            run.scenario.command(world, None)
            assert which(run, world.look()) == "new"
        assert hidden(world.look()) == [], "something is left"
    except (Exception, AssertionError) as error:
        raise AssertionError(f"{said}, {ended}: {error!r}") from error
    return ended


def all_errors(run: Run, every: bool = True) -> collections.Counter[str]:
    return collections.Counter(fail(run, fault) for fault in reversed(list(faults(run, every))))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda item: item.name)
def test_an_error_at_any_operation_is_reported_and_changes_nothing(
    world: World, scenario: Scenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    histogram = all_errors(Run(world, scenario, monkeypatch), STRESS)
    assert histogram["refused"] > 5
    with capsys.disabled():
        print(f"\n    {scenario.name}: {histogram.total()} errors;", dict(sorted(histogram.items())), end="")


# -- the same with a guarantee left out ------------------------------------------------------------


def without_barriers(*left_out: int) -> Callable[[pytest.MonkeyPatch], None]:
    """The journal's barriers of those numbers do nothing: 1 is J3, 2 is J6, 3 is J7."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        done = collections.Counter[int]()
        original = FileSystem.barrier

        def barrier(fs: FileSystem, path: Path) -> None:
            done[id(fs)] += path.name == ".siteswap-changing"
            if path.name != ".siteswap-changing" or done[id(fs)] not in left_out:
                original(fs, path)

        monkeypatch.setattr(FileSystem, "barrier", barrier)

    return patch


def made_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """New directories come by mkdir."""
    original = Journal._do

    def do(journal: Journal, step: str, move: moves.Move) -> None:
        if move.kind == moves.MAKE and step == moves.PUT:
            journal._fs.make_directory(journal._place.anchor / move.path)
        else:
            original(journal, step, move)

    monkeypatch.setattr(Journal, "_do", do)


def without_second_names(monkeypatch: pytest.MonkeyPatch) -> None:
    original = moves.forward
    monkeypatch.setattr(
        moves, "forward", lambda move, seen: [s for s in original(move, seen) if s != moves.KEEP]
    )


def in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def renames(fs: FileSystem, one: Path, other: Path) -> None:
        aside = one.parent / "aside"
        fs.rename(other, aside)
        fs.rename(one, other)
        fs.rename(aside, one)

    monkeypatch.setattr(FileSystem, "exchange", renames)


def not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "_go_back", lambda *_: None)


def without_a_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moves are made, and no journal tells of them."""

    def commit(journal: Any, planned: list[moves.Move]) -> None:
        journal._fs.barrier(journal._home)
        journal._go(planned)
        journal._fs.barrier(journal._home)
        for move in planned:
            if move.kind == moves.DROP and not move.early:
                journal._fs.remove_directory(journal._place.anchor / move.path)
        journal._fs.barrier(journal._home)

    monkeypatch.setattr(Journal, "commit", commit)


def old_removed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery empties the hidden directory before the exchange that filled it is durable."""
    original = FileSystem.sync_directory

    def trusting(fs: FileSystem, path: Path) -> None:
        if path.name != "work":
            original(fs, path)

    monkeypatch.setattr(FileSystem, "sync_directory", trusting)


def not_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "recover", lambda *_: None)


@dataclass(frozen=True)
class Mutant:
    name: str
    scenario: str
    noticed: str
    skipped: tuple[str, ...] = ()
    patch: Callable[[pytest.MonkeyPatch], None] = lambda _: None
    how: Callable[[Run], object] = lambda run: explore(run, 4)


MUTANTS = [
    Mutant("no barrier before the exchange", "exchange", "neither old nor new", ("syncfs .*/tree$",)),
    Mutant("no barrier before it appears", "appear", "neither old nor new", ("syncfs .*/tree$",)),
    Mutant("no sync after the exchange", "exchange", "neither|did not last", patch=old_removed_first),
    Mutant("two renames for an exchange", "exchange", "neither old nor new", patch=in_two_steps),
    Mutant("no sync of the journal's text", "journal", "neither|is left", ("fsync file .*/journal$",)),
    Mutant("staged files not durable", "journal", "neither old nor new", patch=without_barriers(1)),
    Mutant(
        "applied before the journal is durable", "journal", "neither old nor new",
        (r"fsync directory .*/\.siteswap-changing$",),
    ),
    Mutant("directories made in place", "journal", "neither old nor new", patch=made_in_place),
    Mutant("the journal gone before the moves last", "journal", "neither|last", patch=without_barriers(2, 3)),
    Mutant("the journal gone before directories are", "uninstall by journal", "neither|last",
           patch=without_barriers(3)),
    Mutant("no journal", "journal", "neither old nor new", patch=without_a_journal),
    Mutant("no second names", "journal", "neither old nor new", patch=without_second_names, how=all_errors),
    Mutant("an error not undone", "journal", "neither|new.* == .*old", patch=not_undone, how=all_errors),
    Mutant("nothing finished or cleared", "journal", "neither|something is left", patch=not_cleared),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda item: item.name)
def test_mutants_are_found(world: World, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes the promises true is left out once, and noticed."""
    (scenario,) = [item for item in SCENARIOS if item.name == mutant.scenario]
    if mutant.how is all_errors:
        run = Run(world, scenario, monkeypatch)
        mutant.patch(monkeypatch)
    else:
        mutant.patch(monkeypatch)
        run = Run(world, scenario, monkeypatch, mutant.skipped)
    with pytest.raises(AssertionError, match=mutant.noticed):
        mutant.how(run)
