"""Power cuts, for real: whatever the disk was doing, an environment comes back as it was or as it was to be.

An environment lives on a file system whose disk remembers every write and flush
(`recorder`); for many moments the disk that a power cut would have left is
rebuilt (`record`), mounted afresh and looked at (`inspector`). Each guarantee is
also left out once, to see that its loss would be noticed. The default run is
short; SITESWAP_STRESS=1 tells every story and leaves every guarantee out, and
SITESWAP_POWER_CUTS says how many cuts are looked at for each story.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from power import machine
from power.inspector import Finding
from power.machine import KINDS, Isolated, Kind
from power.record import Cut, Platter, Record
from power.story import STORIES, make_wheels

pytestmark = pytest.mark.power

STRESS = os.environ.get("SITESWAP_STRESS") == "1"
CUTS = int(os.environ.get("SITESWAP_POWER_CUTS", "200" if STRESS else "12"))
INSPECTORS = 2


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of file system in turn."""
    found = KINDS[request.param]
    if reason := machine.lacks(found):
        pytest.skip(reason)
    return found


@dataclass(frozen=True)
class Told:
    """A story that was told on a recorded disk."""

    kind: Kind
    story: str
    work: Path
    places: dict[str, str]
    record: Record
    states: list[Any]

    def cuts(self, count: int) -> list[Cut]:
        """Right after each success, and of the rest two in three around flushes and one anywhere."""
        marks, chance = self.record.marks(), random.Random(f"{self.kind.name} {self.story}")
        begin, end = marks["begin 0"], marks[f"done {len(self.states) - 1}"]
        # What was reported must be there, though the disk loses all that no flush has covered by then.
        chosen = [Cut(marks[f"done {number}"], "none", number) for number in range(len(self.states))]
        # What is written just before a flush is most of what can be lost, and just after one it is there.
        flushes = self.record.flushes(begin, end)
        around = [Cut(index, left, index) for index in flushes for left in ("none", "all", "some")]
        around += [Cut(index + 1, "none", index) for index in flushes]
        around += [Cut(cut.position, "some", cut.seed) for cut in chosen]
        chance.shuffle(around)
        chosen += around[: max(0, count - len(chosen)) * 2 // 3]
        while len(chosen) < count:
            chosen.append(Cut(chance.randrange(begin, end + 1), "some", chance.randrange(1 << 30)))
        return chosen

    def inspect(self, cuts: list[Cut]) -> Iterator[Finding]:
        """What is found after each cut, in no certain order."""
        cuts = sorted(cuts)
        with contextlib.ExitStack() as stack:
            inspectors = []
            for number in range(INSPECTORS):
                share = [(cut.position, cut.left, cut.seed) for cut in cuts[number::INSPECTORS]]
                work = self.work / f"inspector-{number}-{time.monotonic_ns()}"
                work.mkdir()
                orders = self.places | {
                    "kind": self.kind.name, "story": self.story, "states": self.states, "cuts": share,
                    "record": str(self.work / "record"), "work": str(work),
                    "image": str(self.work / "image"),
                }  # fmt: skip
                inspectors.append(stack.enter_context(Isolated("power.inspector", orders)))
            for inspector in inspectors:
                for said in inspector.lines():
                    yield Finding(**said)


@contextlib.contextmanager
def told(
    kind: Kind,
    story: str,
    *,
    cache: bool = True,
    mutant: str | None = None,
    progress: Callable[[Path], None] | None = None,
) -> Iterator[Told]:
    """Tell a story on a fresh disk; with `cache` the cache is on it too.

    `progress` is told the directory of it all after each command.
    """
    with machine.workplace() as work:
        image, record, mount, wheels = (work / name for name in ("image", "record", "mount", "wheels"))
        machine.make_image(kind, image)
        make_wheels(wheels)
        mount.mkdir()
        places = {
            "mount": str(mount),
            "env": str(mount / "env"),
            "wheels": str(wheels),
            "cache": str((mount if cache else work) / "cache"),
        }
        with machine.recording(image, record, work / "fuse") as (disk, marks):
            orders = places | {
                "kind": kind.name,
                "story": story,
                "mutant": mutant,
                "disk": disk,
                "marks": marks,
            }
            with Isolated("power.story", orders, (disk, marks)) as program:
                states = []
                for said in program.lines():
                    states.append(said)
                    if progress is not None:
                        progress(work)
        assert len(states) == len(STORIES[story])
        yield Told(kind, story, work, places, Record(record), states)


def say(capsys: pytest.CaptureFixture[str], *what: object) -> None:
    """Print where the developer sees it although the test passes."""
    with capsys.disabled():
        print("\n   ", *what)


@pytest.mark.parametrize("story", sorted(STORIES) if STRESS else ["recycling"])
def test_after_a_power_cut_there_is_the_old_state_or_the_new_one(
    kind: Kind, story: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the new one once success was reported; it works, and the next command clears what is left."""
    begun = time.monotonic()
    with told(kind, story, cache=story != "keeping") as tale:
        recorded = time.monotonic()
        findings = list(tale.inspect(tale.cuts(CUTS)))
    outcomes = collections.Counter(finding.outcome for finding in findings)
    say(
        capsys, f"{kind.name}, {story}: {len(findings)} cuts, {dict(outcomes)},",
        f"{len(tale.record.entries)} entries,",
        f"{recorded - begun:.1f} s to record, {time.monotonic() - recorded:.1f} s to look",
    )  # fmt: skip
    broken = [finding for finding in findings if finding.problems]
    assert not broken, "\n".join(map(str, broken[:5]))
    assert outcomes["old"], "nothing was proven"
    assert outcomes["kept"], "nothing was proven"


WITHOUT = (
    ("the barrier", "short"), ("synced directories", "short"),
    ("a synced history", "short"), ("the cache's barrier", "refusing"),
    ("the barrier", "creating"), ("synced directories", "creating"),
    ("synced tombstones", "recycling"),
)  # fmt: skip
"""What is left out, and the story that shows it."""


@pytest.mark.parametrize(("mutant", "story"), WITHOUT if STRESS else WITHOUT[:1])
def test_without_the_guarantees_of_durability_a_power_cut_breaks_it(
    kind: Kind, mutant: str, story: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same without a barrier, or with something that is not synced: at least one cut shows it."""
    # Told again if need be: pressure of memory, or a sync by somebody else, writes out what was to be lost.
    for attempt in range(1, 4):
        with told(kind, story, mutant=mutant) as tale:
            for number, finding in enumerate(tale.inspect(tale.cuts(12)), 1):
                if finding.problems:
                    what = f"{kind.name}, {story} without {mutant}: cut {number} of 12, attempt {attempt}"
                    say(capsys, f"{what}: {finding.problems[0][:160]}")
                    return
    pytest.fail("nothing was noticed")


# -- the instrument ------------------------------------------------------------------------------


def test_the_record_has_every_flush_and_what_was_written_before_it(kind: Kind) -> None:
    """A file that was synced is on the rebuilt disk, and one that was only written is not."""
    with machine.workplace() as work:
        image, mount = work / "image", work / "mount"
        mount.mkdir()
        machine.make_image(kind, image)
        orders = {"kind": kind.name, "mount": str(mount)}
        with machine.recording(image, work / "record", work / "fuse") as (disk, marks):
            more = {"disk": disk, "marks": marks}
            with Isolated("power.proof", orders | more, (disk, marks)) as program:
                assert list(program.lines()) == ["written"]
        record = Record(work / "record")
        found = record.marks()
        flushed = record.flushes(found["written"], found["synced"])
        seen = {}
        for name, position in {**found, "before": flushed[0], "flushed": flushed[-1] + 1}.items():
            (work / name).mkdir()
            platter = Platter(image, work / name, record)
            platter.after(Cut(position, "none"), kind.atomic, work / f"{name}.cut")
            platter.close()
            with Isolated("power.proof", orders | {"image": str(work / f"{name}.cut")}) as program:
                (seen[name],) = program.lines()
    assert seen["written"] == seen["before"] == []
    assert seen["flushed"] == seen["synced"] == seen["end"] == ["synced"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_whoever_cuts_power_leaves_nothing_when_it_is_ended(kind: Kind, how: signal.Signals) -> None:
    """No process, no mount, no loop device; after Ctrl-C no file either."""
    code = (
        f"import signal, sys; sys.path.insert(0, {str(machine.TESTS)!r})\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where we run in the background
        "from power.test_power import told\nfrom power.machine import KINDS\n"
        "def tell(work): print(work, flush=True)\n"
        f"with told(KINDS[{kind.name!r}], 'recycling', progress=tell): pass"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as cutter:  # fmt: skip
        assert cutter.stdout is not None
        said = cutter.stdout.readline().strip()
        if not said:
            pytest.fail("no story is told")
        work = Path(said)
        assert machine.traces(work)
        cutter.send_signal(how)
    try:
        deadline = time.monotonic() + 60
        while machine.traces(work) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert machine.traces(work) == []
        assert how == signal.SIGKILL or not work.exists()
    finally:
        shutil.rmtree(work, ignore_errors=True)
