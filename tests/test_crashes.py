"""Every command that writes is killed, and loses power, at each operation that changes the disk.

Each command runs once on a file system that keeps a journal (faulty.py); from
that follows what the disk holds at every moment, and what it may hold after a
power cut (disk.py). Each such state is held against what any reader may find,
and from each that recovery could tell apart the next command starts.

The default run tries a few of the states that a power cut may leave; SITESWAP_STRESS=1
tries many.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import errno
import itertools
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import STRESS
from crashing import (
    SCENARIOS,
    Scenario,
    Tree,
    Truth,
    World,
    another_installer,
    assert_same,
    check,
    check_cache,
    comparable,
    current,
    flips,
    inside,
    leftovers,
    look,
    recovery_key,
    tags,
)
from disk import EVERYTHING, NAMES_ONLY, NOTHING, ZEROS, Fate, Image, any_order, ordered
from faulty import Failure, FaultyFileSystem
from siteswap import adopt, collect, flip, interpreter, lease, transaction, wheels
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, Lock
from siteswap.generation import Generation
from siteswap.layout import Layout, Number
from siteswap.manifest import Interpreter, Operation
from siteswap.workspace import Workspace

pytestmark = pytest.mark.stress

SEEDS = 40 if STRESS else 2
"""Choices of what survives a power cut, for each operation."""
WITHOUT_RECOVERY = ("rollback", "tag", "untag", "drop from the cache", "prune the cache")
"""They do not take the writer lock, so they leave the clearing to the next command that does."""
MAKING = ("create", "adopt")
"""They work beside the place of the environment, where there is none of ours yet."""
BESIDE = (*MAKING, "unadopt")
"""They make what they make beside the environment's place, and change what stands there by one rename."""
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS", "EMFILE")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, so that operations have an order; no other program; nothing is kept for its age."""
    known: dict[Path, Interpreter] = {}
    probe = interpreter.probe

    def remembered(program: Path, fs: FileSystem) -> Interpreter:
        if program not in known:
            known[program] = probe(program, fs)
        return known[program]

    monkeypatch.setattr(interpreter, "probe", remembered)
    for module in (flip, transaction):
        monkeypatch.setattr(module, "now", lambda: "2026-01-01T00:00:00+00:00")
    monkeypatch.setattr(wheels, "_THREADS", 1)
    monkeypatch.setattr(Workspace, "run", another_installer)
    monkeypatch.setattr(lease, "users", lambda _: [])
    monkeypatch.setattr(adopt, "programs", lambda _: [])
    monkeypatch.setattr(collect, "DEFAULT_KEEP", 1)
    monkeypatch.setattr(collect, "GRACE_SECONDS", 0.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """In memory where that is possible: nothing here depends on what the disk does."""
    shared = Path("/dev/shm")
    where = shared if os.access(shared, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(prefix="siteswap-test-", dir=where) as base:
        yield World(Path(base))


class Run:
    """One undisturbed run of a scenario's command, with all that it did to the disk."""

    def __init__(self, world: World, scenario: Scenario, **options: Any) -> None:
        self.world, self.scenario = world, scenario
        scenario.prepare(world)
        world.cache.mkdir(exist_ok=True)
        before = world.look()
        self.fs = FaultyFileSystem(world.work, **options)
        self.start = self.fs.journal.start
        scenario.command(world, self.fs)
        self.journal = self.fs.journal
        self.begun, self.count = 0, self.journal.mark()
        self.truth = Truth(before, world.look(), scenario.flips)
        self.pristine: dict[tuple[str, str], Tree] = {}

    @staticmethod
    def of(first: Run, fs: FaultyFileSystem, truth: Truth) -> Run:
        """What came after a crash, as a run."""
        run = copy.copy(first)
        run.fs, run.journal, run.start, run.truth = fs, fs.journal, fs.journal.start, truth
        run.begun, run.count = fs.begun, fs.journal.mark()
        return run

    def after(self, outcome: str, following: str) -> Tree:
        """What the next command comes to where no crash was before it."""
        key = outcome, following
        if key not in self.pristine:
            self.world.restore(self.journal.killed(self.count if outcome == "new" else 0))
            self.go_on(outcome, following)
            self.pristine[key] = self.world.look()
        return self.pristine[key]

    def go_on(self, outcome: str, following: str, fs: FileSystem | None = None) -> None:
        """The next command: the same again, or one that only clears."""
        none = (self.scenario.name == "unadopt") == (
            outcome == "new"
        )  # there is no environment to look after
        if none and self.scenario.name in BESIDE:
            self.scenario.command(self.world, fs)
        elif following == "again" and outcome == "old":
            self.scenario.command(self.world, fs)
            if self.scenario.name in WITHOUT_RECOVERY:
                self.world.environment(fs).gc(100)
        else:
            self.world.environment(fs).gc(0 if following == "gc, nothing kept" else 100)

    def states(self, seeds: int) -> Iterator[tuple[str, int, Image]]:
        """What the disk may hold: how it came to that, after how many operations, and the state."""
        journal = self.journal
        for count in range(self.begun, self.count + 1):
            yield "killed", count, journal.killed(count)
            if count < self.count and journal.operations[count].content is not None:
                yield "killed half way", count, journal.killed(count, half=True)
            fates: list[tuple[str, Fate]] = [
                ("power cut, nothing survived", NOTHING),
                ("power cut, everything survived", EVERYTHING),
                ("power cut, names without content", NAMES_ONLY),
                ("power cut, zeros for content", ZEROS),
            ]
            for seed in range(seeds):
                chance = random.Random(f"{self.scenario.name} {count} {seed}")
                fates.append((f"power cut, in any order, seed {seed}", any_order(chance)))
                fates.append((f"power cut, in order, seed {seed}", ordered(chance, count)))
            for label, fate in fates:
                yield label, count, journal.cut(count, fate)

    def describe(self, label: str, count: int) -> str:
        """Where in the run that was."""
        operations = self.journal.operations
        last = f"{operations[count - 1].kind} {operations[count - 1].what}" if count else "nothing"
        return f"{self.scenario.name}: {label} after {count} of {self.count} operations, the last: {last}"


def examine(run: Run, tree: Tree, label: str, count: int) -> str:
    """Whether a state is one that readers may see."""
    try:
        reported = count == run.count and run.scenario.lasts
        return check(tree, run.truth, reported=reported)
    except (AssertionError, ValueError, KeyError) as error:
        raise AssertionError(f"{run.describe(label, count)}: {error!r}") from error


def recover(run: Run, image: Image, seen: str, following: str, place: str) -> None:
    """Let the next command run from a state, and compare with a run that no crash preceded."""
    run.world.restore(image)
    try:
        run.go_on(seen, following)
        check_recovered(run, run.world.look(), seen, following)
    except Exception as error:
        raise AssertionError(f"{place}, then {following}: {error!r}") from error


def check_recovered(run: Run, tree: Tree, seen: str, following: str) -> None:
    wanted = run.after(seen, following)
    assert leftovers(tree) == [], "[I9] something is left of a crash"
    check_cache(tree)
    if following == "again" and seen == "old" and run.scenario.name in ("install", "fill the cache"):
        assert not any(path.startswith("cache/incoming/") for path in tree), "[I9] the cache holds garbage"
    check_like(tree, wanted)


def check_like(tree: Tree, wanted: Tree) -> None:
    """Two environments with the same content, history, tags, names and modes."""
    assert_same(
        comparable(inside(tree, current(tree))),
        comparable(inside(wanted, current(wanted))),
        "[I3] other content",
    )
    assert [item[0] for item in flips(tree)] == [item[0] for item in flips(wanted)], "[I8] another history"
    assert tags(tree).keys() == tags(wanted).keys(), "other tags"
    outside = {path for path in tree if path.startswith("env/") and not path.startswith("env/.siteswap/")}
    assert_same(
        {path: tree[path] for path in outside},
        {path: wanted[path] for path in wanted if path.startswith("env/") and "/.siteswap/" not in path},
        "[I9] other top-level names",
    )  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda item: item.name)
def test_a_crash_at_any_operation_leaves_the_old_or_the_new(
    world: World, scenario: Scenario, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed or without power, anywhere: exactly old or exactly new, and the next command clears up."""
    wheels_before = sorted((path, path.read_bytes()) for path in world.wheels.iterdir())
    run = Run(world, scenario)
    histogram, recoveries = explore(run, SEEDS)
    assert sorted((path, path.read_bytes()) for path in world.wheels.iterdir()) == wheels_before, "[I10]"
    with capsys.disabled():
        print(f"\n    {scenario.name}: {run.count} operations, {histogram.total()} states,", end=" ")
        print(f"{recoveries} recoveries;", dict(sorted(histogram.items())), end="")


def explore(run: Run, seeds: int) -> tuple[collections.Counter[str], int]:
    """Look at every state, and recover from each that recovery could tell from others."""
    histogram: collections.Counter[str] = collections.Counter()
    recovered: set[bytes] = set()
    for label, count, image in run.states(seeds):
        tree = look(image)
        seen = examine(run, tree, label, count)
        histogram[f"{label.split(',')[0]}: {seen}"] += 1
        key = recovery_key(tree)
        if key in recovered:
            continue
        recovered.add(key)
        recover(run, image, seen, ("again", "gc")[len(recovered) % 2], run.describe(label, count))
        if len(recovered) % 40 == 1 and run.scenario.flips and current(run.world.look()) is not None:
            start_a_program(run.world)
    return histogram, len(recovered)


def start_a_program(world: World) -> None:
    """What is current can really be started."""
    code = "import sys; sys.exit(sys.prefix == sys.base_prefix)"
    done = subprocess.run([world.env / "bin/python", "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


# -- crashes of what clears up after a crash --------------------------------------------------------


def check_either(run: Run, second: Run, tree: Tree, place: str) -> None:
    """What may be seen: what the second command made of it, or what was before the first."""
    try:
        check(tree, second.truth, reported=False)
    except AssertionError as error:
        try:
            assert current(tree) == current(run.truth.before)
            check(tree, run.truth, reported=False)
        except AssertionError:
            raise AssertionError(f"{place}: {error}") from error


def outcome(run: Run, tree: Tree) -> str:
    """Old or new in terms of the first command, whatever number the new has."""
    if run.scenario.flips:
        return "old" if current(tree) == current(run.truth.before) else "new"
    return run.truth.outcome(tree)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda item: item.name)
def test_recovery_may_crash_as_well(
    world: World, scenario: Scenario, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a crash at any operation of what follows a crash, the command after that clears up."""
    run = Run(world, scenario)
    crashes, states, recoveries = explore_twice(run, every=STRESS)
    with capsys.disabled():
        print(f"\n    {scenario.name}: {crashes} crashes, {states} states, {recoveries} recoveries", end="")


def explore_twice(run: Run, *, every: bool) -> tuple[int, int, int]:
    """From some states, or each that recovery could tell apart, look at every state of what comes next."""
    first: dict[bytes, tuple[str, int, Image]] = {}
    for label, count, image in run.states(1):
        first.setdefault(recovery_key(look(image)), (label, count, image))
    chosen = list(first.values())[:: 1 if every else max(1, len(first) // 2)]
    both = ("again", "gc, nothing kept")
    states = recoveries = 0
    for index, crash in enumerate(chosen):
        for following in both if every else both[index % 2 :][:1]:
            more = explore_after(run, *crash, following)
            states, recoveries = states + more[0], recoveries + more[1]
    return len(chosen), states, recoveries


def explore_after(run: Run, label: str, count: int, image: Image, following: str) -> tuple[int, int]:
    """After one crash, every state of the command that comes next."""
    place = f"{run.describe(label, count)}, then {following}"
    seen = examine(run, look(image), label, count)
    run.world.restore(image)
    # Only killed: what was not durable then is not durable now.
    fs = FaultyFileSystem(run.world.work, after=(run.journal, count) if label == "killed" else None)
    run.go_on(seen, following, fs)
    second = Run.of(run, fs, Truth(look(image), run.world.look(), run.scenario.flips))
    known: set[bytes] = set()
    states = 0
    for again, later, found in second.states(2 if STRESS else 1):
        states += 1
        tree = look(found)
        now = f"{place}, {again} at {later} of it"
        check_either(run, second, tree, now)
        key = recovery_key(tree)
        if key not in known:
            known.add(key)
            recover(run, found, outcome(run, tree), "gc", now)
    return states, len(known)


# -- errors ----------------------------------------------------------------------------------------


def places(run: Run) -> list[int]:
    """Operations to fail: each place in the program that asks for one, the first time it does."""
    if STRESS:
        return list(range(run.count))
    first: dict[str, int] = {}
    for index, operation in enumerate(run.journal.operations):
        first.setdefault(f"{operation.kind} {operation.code}", index)
    return sorted(first.values())


def faults(run: Run) -> Iterator[Failure]:
    """Every place with one of the errors, in turn, once or from then on; with all of them in the wide run."""
    errors = itertools.cycle(getattr(errno, name) for name in ERRORS)
    for turn, index in enumerate(places(run)):
        ways = [(False, False), (True, False)]
        if run.journal.operations[index].kind == "write":
            ways.append((False, True))
        crucial = run.journal.operations[index].syncs
        for lasting, half in ways if STRESS or crucial else [ways[0], ways[turn % len(ways)]][: 1 + turn % 2]:
            for number in itertools.islice(errors, len(ERRORS) if STRESS else 1):
                yield Failure(index, number, lasting=lasting, half=half)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda item: item.name)
def test_an_error_at_any_operation_is_reported_and_changes_nothing(
    world: World, scenario: Scenario, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refused operation, once or from then on: an error and the old, or a success that lasts."""
    run = Run(world, scenario)
    histogram: collections.Counter[str] = collections.Counter()
    for fault in faults(run):
        histogram[fail(run, fault)] += 1
    with capsys.disabled():
        print(f"\n    {scenario.name}: {histogram.total()} errors;", dict(sorted(histogram.items())), end="")


def fail(run: Run, fault: Failure) -> str:
    """One run with an error in it, judged; says how it ended."""
    world, scenario = run.world, run.scenario
    operation = run.journal.operations[fault.at]
    place = f"{scenario.name}: {fault} of {run.count} ({operation.kind} {operation.what})"
    world.restore(run.start)
    fs = FaultyFileSystem(world.work, fault)
    said = ""
    try:
        scenario.command(world, fs)
        ended = "done all the same"
    except (SiteswapError, OSError) as error:
        said = str(error)
        if isinstance(error, SiteswapError) and error.kind is Kind.BUG:
            raise AssertionError(f"{place}: {error!r}") from error
        ended = "refused"
    except Exception as error:
        raise AssertionError(f"{place}: {error!r}") from error
    try:
        assert fs.held() == [], "a lock is held on"
        judge(run, fs, world.look(), ended == "refused", fault.lasting)
        seen = run.truth.outcome(world.look())
        if ended == "refused" and scenario.flips and scenario.name not in BESIDE and seen == "new":
            assert "as current for good" in said, "[I5] it does not say that the new is there"
    except AssertionError as error:
        raise AssertionError(f"{place}, {ended}: {error}") from error
    if current(world.look()) is not None or scenario.name in BESIDE:
        try:
            run.go_on(seen, "again")
            check_recovered(run, world.look(), seen, "again")
        except (Exception, AssertionError) as error:
            raise AssertionError(f"{place}, {ended}, then again: {error!r}") from error
    return f"{ended}, {seen}"


def judge(run: Run, fs: FaultyFileSystem, tree: Tree, refused: bool, lasting: bool) -> None:
    """A failure that is reported is one, a success lasts; also when the power is cut right after."""
    truth, flips_or_tags = run.truth, run.scenario.flips or run.scenario.name in ("tag", "untag")
    # Where the disk refuses even to put back what was there, the new stays: it is whole, and readers have it.
    unsynced = any(item.kind == "fsync directory" for item in fs.struck)
    stuck = lasting and unsynced
    seen = check(tree, truth, reported=not refused and run.scenario.lasts)
    if refused and flips_or_tags and not stuck:
        assert seen == "old", "[I5] a failure was reported, and the new is there"
    journal = fs.journal
    fates = [NOTHING, EVERYTHING]
    fates += [any_order(random.Random(f"{journal.mark()} {seed}")) for seed in range(SEEDS - 1)]
    for fate in fates:
        image = journal.cut(journal.mark(), fate)
        later = check(look(image), truth, reported=not refused and run.scenario.lasts)
        if refused and flips_or_tags and not stuck:
            assert later == "old", "[I5] a failure was reported, and after a power cut the new is there"


# -- each guarantee left out -----------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One guarantee left out, and what must notice that."""

    name: str
    scenario: str
    notices: str
    """What the complaint says."""
    skipped: tuple[str, ...] = ()
    """Syncs that do nothing."""
    patch: Callable[[pytest.MonkeyPatch], None] = lambda _: None
    how: Callable[[Run], object] = lambda run: explore(run, 5)


def _record_late(patch: pytest.MonkeyPatch) -> None:
    def late(fs: FileSystem, layout: Layout, operation: Operation) -> None:
        flip._point(fs, layout, operation.target)
        fs.sync_directory(layout.home)
        fs.append_line(layout.history, operation.to_json())

    patch.setattr(transaction, "flip", late)


def _in_two_steps(patch: pytest.MonkeyPatch) -> None:
    def point(fs: FileSystem, layout: Layout, number: Number) -> None:
        fs.unlink(layout.current)
        fs.symlink(layout.current, layout.current_target(number))

    patch.setattr(flip, "_point", point)


def _manifest_late(patch: pytest.MonkeyPatch) -> None:
    """Written when the barrier has been."""
    write, barrier = FileSystem.write, FileSystem.barrier
    waiting: list[tuple[Path, bytes]] = []

    def hold(fs: FileSystem, path: Path, content: bytes, **options: Any) -> None:
        if path.name == "manifest.json":
            waiting.append((path, content))
        else:
            write(fs, path, content, **options)

    def after(fs: FileSystem, path: Path) -> None:
        barrier(fs, path)
        for held in waiting:
            write(fs, *held)
        waiting.clear()

    patch.setattr(FileSystem, "write", hold)
    patch.setattr(FileSystem, "barrier", after)


def _links_late(patch: pytest.MonkeyPatch) -> None:
    def late(fs: FileSystem, layout: Layout, candidate: Generation) -> None:
        flip.link_top_level(fs, layout, candidate)
        flip.tidy_top_level(fs, layout, candidate)

    patch.setattr(transaction, "tidy_top_level", late)
    patch.setattr(transaction, "link_top_level", lambda *_: False)


def _nothing_cleared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(collect, "clear", lambda *_: [])


def _errors_swallowed(patch: pytest.MonkeyPatch) -> None:
    barrier = FileSystem.barrier

    def quiet(fs: FileSystem, path: Path) -> None:
        with contextlib.suppress(OSError):
            barrier(fs, path)

    patch.setattr(FileSystem, "barrier", quiet)


def _flip_not_undone(patch: pytest.MonkeyPatch) -> None:
    def left(fs: FileSystem, layout: Layout, operation: Operation) -> None:
        fs.append_line(layout.history, operation.to_json())
        flip._point(fs, layout, operation.target)
        fs.sync_directory(layout.home)

    patch.setattr(transaction, "flip", left)


def _lock_held(patch: pytest.MonkeyPatch) -> None:
    def kept(self: Lock, *_: object) -> None: ...

    patch.setattr(Lock, "release", kept)


def _emptied_in_place(patch: pytest.MonkeyPatch) -> None:
    def detach(fs: FileSystem, layout: Layout, number: Number, *_: object) -> None:
        fs.remove_tree(layout.generation(number).path)
        fs.symlink(layout.generation(number).path, layout.TOMBSTONE)

    patch.setattr(collect, "detach", detach)


def _trusting(patch: pytest.MonkeyPatch) -> None:
    """As if a `current` that is there were durable."""
    sync = FileSystem.sync_directory

    def trusting(fs: FileSystem, path: Path) -> None:
        asked = sys._getframe(1).f_globals["__name__"]
        if path.name != ".siteswap" or asked not in ("siteswap.recovery", "siteswap.collect"):
            sync(fs, path)

    patch.setattr(FileSystem, "sync_directory", trusting)


def _exchanged_in_two_steps(patch: pytest.MonkeyPatch) -> None:
    exchange = FileSystem.exchange

    def renames(fs: FileSystem, one: Path, other: Path) -> None:
        if other.name != "env":
            exchange(fs, one, other)
            return
        aside = one.with_name("aside")
        fs.rename(other, aside)
        fs.rename(one, other)
        fs.rename(aside, one)

    patch.setattr(FileSystem, "exchange", renames)


def _exchange_not_undone(patch: pytest.MonkeyPatch) -> None:
    exchange, done = FileSystem.exchange, set[FileSystem]()

    def once(fs: FileSystem, one: Path, other: Path) -> None:
        if other.name != "env" or fs not in done:
            exchange(fs, one, other)
        if other.name == "env":
            done.add(fs)

    patch.setattr(FileSystem, "exchange", once)


def _unsynced_beside(patch: pytest.MonkeyPatch) -> None:
    """As if what stands at the environment's place stood there for good."""
    sync = FileSystem.sync_directory

    def trusting(fs: FileSystem, path: Path) -> None:
        if path.name != "work" or sys._getframe(1).f_globals["__name__"] != "siteswap.recovery":
            sync(fs, path)

    patch.setattr(FileSystem, "sync_directory", trusting)


def _link_last(patch: pytest.MonkeyPatch) -> None:
    unlink, remove, kept = FileSystem.unlink, FileSystem.remove_tree, list[Path]()

    def keep(fs: FileSystem, path: Path) -> None:
        if path.name == ".siteswap":
            kept.append(path)
        else:
            unlink(fs, path)

    def then(fs: FileSystem, path: Path) -> None:
        remove(fs, path)
        while kept:
            unlink(fs, kept.pop())

    patch.setattr(FileSystem, "unlink", keep)
    patch.setattr(FileSystem, "remove_tree", then)


def _lock_file_first(patch: pytest.MonkeyPatch) -> None:
    remove = FileSystem.remove_tree

    def after_the_lock(fs: FileSystem, path: Path) -> None:
        if path.name == ".env.siteswap-creating" and fs.entry(path) is not None:
            fs.unlink(path.with_name(f"{path.name}.lock"))
        remove(fs, path)

    patch.setattr(FileSystem, "remove_tree", after_the_lock)


def from_the_barrier(run: Run) -> None:
    """Every state since shortly before the commit point of what is made beside the environment."""
    run.begun = run.count * 2 // 5
    explore(run, 5)


def every_second(run: Run) -> None:
    """Crashes of what follows every crash."""
    explore_twice(run, every=True)


def after_the_exchange(run: Run) -> None:
    """Crashes of what follows a crash that came right after the commit point."""
    for label, count, image in run.states(0):
        tree = look(image)
        beside = sum(path.startswith(".env.siteswap-creating/") for path in tree)
        if label == "killed" and current(tree) is not None and beside:
            explore_after(run, label, count, image, "gc, nothing kept")
            return


def all_errors(run: Run) -> None:
    """An error at every place."""
    for fault in reversed(list(faults(run))):
        fail(run, fault)


MUTANTS = [
    Mutant("no barrier", "install", r"\[I3\]", (r"syncfs .*/\.siteswap$",)),
    Mutant("no barrier", "upgrade, recycled", r"\[I3\]", ("syncfs",)),
    Mutant("no barrier", "create", r"\[I3\]|has no current|JSONDecodeError", ("syncfs",)),
    Mutant("no sync after the flip", "rollback", r"\[I5\]", (r"fsync directory .*/env/\.siteswap$",)),
    Mutant("no sync of tags", "tag", r"\[I5\]|tags|JSONDecodeError", ("fsync",)),
    Mutant("no sync of the history", "install", r"\[I8\]", ("fsync file",)),
    Mutant("record after the flip", "install", r"\[I8\]", patch=_record_late),
    Mutant("flip in two steps", "rollback", r"\[I1\]", patch=_in_two_steps),
    Mutant("manifest after the barrier", "install", r"\[I3\]", patch=_manifest_late),
    Mutant("top-level links after the flip", "upgrade", r"\[I1\]", patch=_links_late),
    Mutant("tombstones not synced", "gc", r"\[I2\] \[I7\]", ("fsync directory",)),
    Mutant("removed in place", "gc", r"\[I2\] \[I7\]|\[I7\]", patch=_emptied_in_place),
    Mutant("entries without a barrier", "fill the cache", "the cache", ("syncfs",)),
    Mutant("an entry emptied before it is gone", "drop from the cache", "the cache", ("fsync directory",)),
    Mutant("entries emptied before they are gone", "prune the cache", "the cache", ("fsync directory",)),
    Mutant(
        "a spare made over before it is gone",
        "uninstall",
        "ValueError|DAMAGED|again",
        (r"fsync directory .*/staging$",),
        how=lambda run: explore(run, 15),
    ),
    Mutant("nothing cleared", "upgrade", r"\[I9\]", patch=_nothing_cleared),
    Mutant("an error swallowed", "install", r"\[I[135]\]", patch=_errors_swallowed, how=all_errors),
    Mutant("a flip not undone", "upgrade", r"\[I5\]", patch=_flip_not_undone, how=all_errors),
    Mutant("a flip of the dead not synced", "rollback", r"\[I[127]\]", patch=_trusting, how=every_second),
    Mutant("no barrier", "adopt", r"\[I3\]|JSONDecodeError", (r"syncfs .*-creating$",)),
    Mutant("the old removed before the new lasts", "adopt", r"\[I[13]\]", (r"fsync directory .*/work$",)),
    Mutant("two renames for an exchange", "adopt", r"\[I1\]", patch=_exchanged_in_two_steps),
    Mutant("an exchange not undone", "adopt", r"\[I5\]", patch=_exchange_not_undone, how=all_errors),
    Mutant(
        "an exchange of the dead not synced",
        "adopt",
        r"\[I[13]\]",
        patch=_unsynced_beside,
        how=after_the_exchange,
    ),
    Mutant("the lock file gone first", "adopt", r"\[I9\]", patch=_lock_file_first),
    Mutant("no barrier", "unadopt", r"\[I3\]", (r"syncfs .*-leaving$",), how=from_the_barrier),
    Mutant(
        "the old removed before the new lasts",
        "unadopt",
        r"\[I[1379]\]",
        (r"fsync directory .*/work$",),
        how=from_the_barrier,
    ),
    Mutant(
        "two renames for an exchange",
        "unadopt",
        r"\[I1\]",
        patch=_exchanged_in_two_steps,
        how=from_the_barrier,
    ),
    Mutant("an exchange not undone", "unadopt", r"\[I[257]\]", patch=_exchange_not_undone, how=all_errors),
    Mutant(
        "generations gone before the way to them",
        "unadopt",
        r"\[I7\]",
        patch=_link_last,
        how=from_the_barrier,
    ),
    Mutant(
        "the way to generations not durably gone",
        "unadopt",
        r"\[I7\]",
        (r"fsync directory .*/env$",),
        how=from_the_barrier,
    ),
    Mutant("a lock held on", "tag", "lock is held on|being changed by", patch=_lock_held, how=all_errors),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda item: f"{item.name}, {item.scenario}")
def test_mutants_are_found(world: World, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes the promises true is left out once, and noticed."""
    (scenario,) = [item for item in SCENARIOS if item.name == mutant.scenario]
    if mutant.how is all_errors:
        run = Run(world, scenario)
        mutant.patch(monkeypatch)
    else:
        scenario.prepare(world)
        mutant.patch(monkeypatch)
        prepared = dataclasses.replace(scenario, prepare=lambda _: None)
        run = Run(world, prepared, skipped=mutant.skipped)
    with pytest.raises(AssertionError, match=mutant.notices):
        mutant.how(run)
