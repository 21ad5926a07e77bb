"""The planner of the journal against a model of a disk: forward is exactly new, back exactly old."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siteswap import moves
from siteswap.errors import Kind, SiteswapError
from siteswap.moves import Move, Seen
from siteswap.plan import directories_of

DIRECTORY = "a directory"


@dataclass
class Disk:
    """Files and directories by path, and what is staged and kept by slot."""

    tree: dict[str, str]
    new: dict[int, str] = field(default_factory=dict)
    old: dict[int, str] = field(default_factory=dict)

    def see(self, move: Move) -> Seen:
        at = self.tree.get(move.path)
        kind = None if at is None else "directory" if at == DIRECTORY else "file"
        same = at is not None and (len(at), 0) == move.was
        return Seen(kind, move.slot in self.new, move.slot in self.old, same)

    def do(self, step: str, move: Move) -> None:
        """One elementary operation, as a kernel does it."""
        path, slot, tree = move.path, move.slot, self.tree
        parent = path.rpartition("/")[0]
        inner = [other for other in tree if other.startswith(f"{path}/")]
        if step not in (moves.KEEP, moves.TAKE, moves.UNLINK, moves.RMDIR):
            assert parent == "" or tree.get(parent) == DIRECTORY, f"{step} {path}: no directory to put it in"
        if step == moves.RMDIR:
            assert tree[path] == DIRECTORY
            if not inner:
                del tree[path]
        elif step in (moves.PUT, moves.RESTORE):
            assert tree.get(path) != DIRECTORY, f"{path}: a directory is in the way"
            what = (self.new if step == moves.PUT else self.old).pop(slot)
            assert what != DIRECTORY or path not in tree, f"{path}: a file is in the way"
            tree[path] = what
        elif step == moves.KEEP:
            self.old[slot] = tree[path]
        elif step == moves.TAKE:
            assert not inner, f"{path}: it is not empty"
            self.old[slot] = tree.pop(path)
        else:
            assert step == moves.UNLINK
            assert tree[path] != DIRECTORY
            del tree[path]


def with_directories(files: dict[str, str]) -> dict[str, str]:
    return {**files, **dict.fromkeys(directories_of(files), DIRECTORY)}


Files = dict[str, str]


def planned(before: Files, after: Files) -> tuple[Disk, list[Move]]:
    """The disk before the change, everything staged, and the moves."""
    new = {path: text for path, text in after.items() if before.get(path) != text}
    gone = {path: (len(text), 0) for path, text in before.items() if path not in after}
    there = [path for path, kind in with_directories(before).items() if kind == DIRECTORY]
    steps = moves.plan(list(new), gone, new.keys() & before.keys(), there)
    coming = [move for move in steps if move.kind in (moves.PLACE, moves.MAKE)]
    return Disk(with_directories(before), {m.slot: new.get(m.path, DIRECTORY) for m in coming}), steps


def steps_forward(disk: Disk, steps: list[Move], *, last: bool) -> Iterator[None]:
    """One elementary operation at a time; with `last` also what is done when nothing goes back any more."""
    late = [move for move in steps if move.kind == moves.DROP and not move.early]
    for move in [move for move in steps if move not in late] + (late if last else []):
        for step in moves.forward(move, disk.see(move)):
            disk.do(step, move)
            yield


def steps_back(disk: Disk, steps: list[Move]) -> Iterator[None]:
    for move in reversed(steps):
        for step in moves.back(move, disk.see(move)):
            disk.do(step, move)
            yield


def run(steps: Iterator[None], count: int | None = None) -> bool:
    """So many of them, or all; whether there were so many."""
    done = 0
    while count is None or done < count:
        try:
            next(steps)
        except StopIteration:
            return count is None
        done += 1
    return True


def everything(before: Files, after: Files) -> None:
    """Every way through one change, with up to two interruptions, comes to exactly the old or the new."""
    old, new = with_directories(before), with_directories(after)
    first, steps = planned(before, after)
    at = 0
    while True:
        disk = copy.deepcopy(first)
        if not run(steps_forward(disk, steps, last=True), at):
            break
        run(steps_forward(disk, steps, last=True))
        assert disk.tree == new, f"forward again after {at}"
        disk = copy.deepcopy(first)
        if run(steps_forward(disk, steps, last=False), at):
            back = 0
            while True:
                again = copy.deepcopy(disk)
                if not run(steps_back(again, steps), back):
                    break
                run(steps_back(again, steps))
                assert again.tree == old, f"back after {at}, again after {back}"
                back += 1
        at += 1
    assert at > 0


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
contents = st.sampled_from(["x", "yy", "zzz"])


@st.composite
def trees(draw: Callable[[st.SearchStrategy[Files]], Files]) -> Files:
    """Files, none of them below another."""
    found = draw(st.dictionaries(paths, contents, max_size=6))
    return {path: text for path, text in found.items() if not set(directories_of([path])) & found.keys()}


@given(trees(), trees())
@settings(max_examples=300, deadline=None)
def test_any_change_from_any_point_forward_and_back(before: Files, after: Files) -> None:
    """Also where a file becomes a directory or the other way round."""
    everything(before, after)


CHANGES = [
    ({}, {"a": "x"}),
    ({"a": "x"}, {}),
    ({"a": "x"}, {"a": "yy"}),
    ({"a/b": "x", "a/c": "x"}, {"a/b": "yy", "d/e/f": "x"}),
    ({"a": "x"}, {"a/b": "x"}),
    ({"a/b/c": "x"}, {"a": "x"}),
    ({"a/b/c": "x", "b": "x"}, {"a/b": "yy", "b/c": "x"}),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_some_changes(change: tuple[Files, Files]) -> None:
    everything(*change)


def everything_of_all() -> None:
    for change in CHANGES:
        everything(*change)


FAULTS: dict[str, Callable[[Move, Seen], list[str]]] = {
    "no second name": lambda move, seen: [s for s in moves.forward(move, seen) if s != moves.KEEP],
    "taken away for good": lambda move, seen: [
        moves.UNLINK if step == moves.TAKE else step for step in moves.forward(move, seen)
    ],
    "no directories": lambda move, seen: [] if move.kind == moves.MAKE else moves.forward(move, seen),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes it true is left out once."""
    instead = FAULTS[fault]
    original = moves.forward
    monkeypatch.setattr(moves, "forward", lambda move, seen: _with(original, instead, move, seen))
    with pytest.raises((AssertionError, KeyError)):
        everything_of_all()


def _with(
    original: Callable[[Move, Seen], list[str]],
    instead: Callable[[Move, Seen], list[str]],
    move: Move,
    seen: Seen,
) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moves, "forward", original)
        return instead(move, seen)


def test_undoing_it_twice_needs_to_know_what_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, undoing a second time would remove what the first had put back."""
    original = moves.back

    def forgetful(move: Move, seen: Seen) -> list[str]:
        return original(Move(move.kind, move.path, move.slot, was=move.was, early=move.early), seen)

    monkeypatch.setattr(moves, "back", forgetful)
    with pytest.raises(AssertionError, match="back after"):
        everything({"a": "x"}, {"a": "yy"})


def test_what_somebody_put_there_since_is_not_taken() -> None:
    """A file that is to go, and is another one by now, belongs to somebody else."""
    disk, steps = planned({"a": "x", "b": "x"}, {"a": "x"})
    disk.tree["b"] = "another"
    run(steps_forward(disk, steps, last=True))
    assert disk.tree == {"a": "x", "b": "another"}


def test_directories_that_last_are_not_dropped() -> None:
    directories = ["usr", "usr/bin", "usr/lib", "usr/lib/p"]
    gone = {"usr/bin/x": (1, 0), "usr/lib/p/x": (1, 0)}
    steps = moves.plan([], gone, [], directories, directories[:3])
    assert [move.path for move in steps if move.kind == moves.DROP] == ["usr/lib/p"]


def test_a_journal_survives_its_json() -> None:
    _, steps = planned({"a/b/c": "x", "b": "x"}, {"a/b": "yy", "b/c": "x"})
    assert moves.from_json(moves.to_json(steps, "/x"), "j", "/x", lambda _: True) == steps


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(format=2),
        lambda data: data.update(anchor="/elsewhere"),
        lambda data: data["moves"][0].update(path="../../etc/passwd"),
        lambda data: data["moves"][0].update(path="/etc/passwd"),
        lambda data: data["moves"][0].update(kind="chmod"),
        lambda data: data["moves"][0].update(slot="../x"),
        lambda data: data["moves"][0].pop("was"),
        lambda data: data.update(moves=7),
    ],
)
def test_a_journal_that_is_none_is_refused(change: Callable[[dict[str, object]], object]) -> None:
    """It would be obeyed by whoever comes next, root perhaps."""
    _, steps = planned({"a": "x"}, {"a": "yy"})
    data = json.loads(moves.to_json(steps, "/x"))
    change(data)
    with pytest.raises(SiteswapError) as caught:
        moves.from_json(json.dumps(data).encode(), "j", "/x", lambda path: not path.startswith(("/", "..")))
    assert caught.value.kind is Kind.DAMAGED
