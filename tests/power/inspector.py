"""Look at what a power cut left: exactly the state before or after the command that was under way.

Run as an isolated program (`machine.Isolated`) this rebuilds the disk of one
cut after the other, lets the file system recover it, and says what it found:
first as the cut left it, then after the next command, which is to clear up.
What is allowed comes from the states that the story told (`story.State`), and is
compared by reading the disk, not by asking siteswap.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import snapshots
from power import machine
from power.record import Cut, Platter, Record
from power.story import STORIES, Stage, State, Step, state


@dataclass(frozen=True)
class Expected:
    """What may be there after a cut."""

    step: int
    """The command that was under way, or is next."""
    under_way: bool
    before: State | None
    """None: there was no environment yet."""
    after: State | None
    """What that command makes; None when there is no further one."""

    @staticmethod
    def at(position: int, marks: Mapping[str, int], states: list[State]) -> Expected:
        """What was reported, and what had begun, when the power was cut."""
        done = sum(marks[f"done {number}"] <= position for number in range(len(states)))
        before = states[done - 1] if done else None
        if done == len(states):
            return Expected(done, False, before, None)
        return Expected(done, marks[f"begin {done}"] <= position, before, states[done])

    def allowed(self, number: str, *, later: bool) -> list[Any]:
        """What generation `number` may be: at the cut, or with `later` after the next command."""
        possible = [self.before, self.after if later or self.under_way else None]
        return [one.generations[number] for one in possible if one is not None and number in one.generations]


@dataclass(frozen=True)
class Finding:
    """What was found after one cut."""

    position: int
    left: str
    seed: int
    step: int
    outcome: str
    """"old" or "new" where a command was under way, "kept" where what was reported is there; or "broken"."""
    problems: tuple[str, ...]


def main(orders: Mapping[str, Any]) -> None:
    """Look at each cut; says a finding for each."""
    kind, work = machine.KINDS[orders["kind"]], Path(orders["work"])
    record = Record(Path(orders["record"]))
    marks, states = record.marks(), [State(**item) for item in orders["states"]]
    stage = Stage(*(Path(orders[name]) for name in ("env", "wheels", "cache")))
    platter = Platter(Path(orders["image"]), work, record)
    for position, left, seed in sorted(orders["cuts"]):
        image = work / "cut.img"
        platter.after(Cut(position, left, seed), kind.atomic, image)
        expected = Expected.at(position, marks, states)
        file = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        image.unlink()
        outcome, problems = "broken", list[str]()
        # That a file system cannot be mounted is no finding about siteswap: it ends us, like a fault of ours.
        with machine.mounted(kind, file, Path(orders["mount"])):
            look = Look(stage, STORIES[orders["story"]], expected)
            try:
                outcome = look.outcome()
                # Half of the time the user tries again what did not come to be, else does something else.
                problems += look.problems(repeat=seed % 2 == 0)
            except Exception as error:  # noqa: BLE001 - what is damaged can raise anything
                problems.append(f"{type(error).__name__}: {error}")
        os.close(file)
        outcome = "broken" if problems else outcome
        machine.say(asdict(Finding(position, left, seed, expected.step, outcome, tuple(problems))))


class Look:
    """One environment after a cut."""

    def __init__(self, stage: Stage, story: tuple[Step, ...], expected: Expected) -> None:
        self._stage = stage
        self._env = stage.env
        self._story = story
        self._expected = expected
        self._found: State | None = None
        self._accepted: State | None = None

    def outcome(self) -> str:
        """Which state `current` names. Raises AssertionError when it names another."""
        expected = self._expected
        if os.path.lexists(self._env):
            self._found = state(self._env)
        if self._key(self._found) == self._key(expected.before):
            self._accepted = expected.before
            return "old" if expected.under_way else "kept"
        if expected.under_way and self._key(self._found) == self._key(expected.after):
            self._accepted = expected.after
            return "new"
        shown = (self._key(item) for item in (self._found, expected.before, expected.after))
        raise AssertionError("{} is there, not {} or {}".format(*shown))

    @staticmethod
    def _key(one: State | None) -> tuple[Any, ...] | None:
        return (one.current, one.history, one.tags) if one is not None else None

    def problems(self, *, repeat: bool) -> Iterator[str]:
        """What is wrong, first as the cut left it and then after the next command."""
        yield from self._cache_problems()
        if self._accepted is not None:
            yield from self._left_problems(self._accepted)
            yield from self._start_problems(self._accepted)
        wanted = self._accepted
        if wanted is None or (
            repeat and wanted is not self._expected.after and self._expected.after is not None
        ):
            wanted = self._expected.after
            yield from self._run(self._story[self._expected.step])
        # A rollback takes no lock that would let it clear; everything else that writes does clear.
        yield from self._run(Step(("gc", "--keep", "10")))
        yield from self._next_problems(wanted)

    def _run(self, step: Step) -> Iterator[str]:
        done = self._stage.run(step)
        if done.returncode != step.status:
            yield f"{step.words} fails with {done.returncode}: {done.stdout}{done.stderr}"

    # -- as the cut left it ----------------------------------------------------------------------

    def _left_problems(self, wanted: State) -> Iterator[str]:
        assert self._found is not None
        for name, entry in wanted.top.items():
            if self._found.top.get(name) != entry:
                yield f"{name} is {self._found.top.get(name)}, not {entry}"
        for name in self._found.top.keys() - wanted.top.keys():
            if (self._env / name).exists():
                yield f"{name} is there and leads somewhere"
        yield from snapshots.record_problems(snapshots.generation(self._env))
        for number in sorted({str(target) for _, _, target in wanted.history}):
            found = self._found.generations.get(number)
            # Collecting is no part of the commit: while it is under way a generation is whole or a tombstone.
            allowed = self._expected.allowed(number, later=False)
            if found not in allowed:
                yield f"generation {number} is {_difference(found, allowed)}"
        if not isinstance(self._found.generations.get(str(wanted.current)), dict):
            yield "the current generation is not there"

    def _start_problems(self, wanted: State) -> Iterator[str]:
        version, prefix = wanted.version, snapshots.generation(self._env, wanted.current)
        command: list[str | Path] = [self._env / "bin/python", "-c", "import sys; print(sys.prefix)"]
        said = str(prefix)
        if version is not None:
            command, said = [self._env / "bin/swapapp"], " ".join(["same", *[version] * 7])
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0 or done.stdout.strip() != said:
            yield f"{command[0]} says {done.stdout}{done.stderr}"

    def _cache_problems(self) -> Iterator[str]:
        """An entry that is in the cache is whole, for it will be linked from."""
        for path in (self._stage.cache / "wheels").glob("*"):
            for scheme, name, digest, *_ in json.loads((path / "index.json").read_bytes())["files"]:
                content = (path / scheme / name).read_bytes()
                real = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
                if digest != f"sha256={real}":
                    yield f"the cache has another {name}"

    # -- after the next command ------------------------------------------------------------------

    def _next_problems(self, wanted: State | None) -> Iterator[str]:
        home, now = self._env / ".siteswap", state(self._env)
        known = {str(target) for _, _, target in now.history}
        for where, names in {
            "staging": os.listdir(home / "staging"),
            "generations": set(now.generations) - known,
            "siteswap's corner": [
                name for name in os.listdir(home) if name.startswith(".") or "next" in name
            ],
            "the logs": [name for name in os.listdir(home / "log") if name.startswith(".")],
            "the directory around": [name for name in os.listdir(self._env.parent) if name.startswith(".")],
            "the environment": [name for name in now.top if not (self._env / name).exists()],
        }.items():
            if names:
                yield f"left in {where} after the next command: {sorted(names)}"
        yield from snapshots.record_problems(snapshots.generation(self._env))
        if wanted is None:
            return
        if now.version != wanted.version:
            yield f"version {now.version} is there after the next command, not {wanted.version}"
        yield from self._start_problems(now)
        for number, tree in now.generations.items():
            allowed = self._expected.allowed(number, later=True)
            # What was made anew says another time of its making.
            if number != str(now.current) and allowed and tree not in allowed:
                yield f"generation {number} is {_difference(tree, allowed)} after the next command"


def _difference(found: Any, allowed: list[Any]) -> str:
    trees = [tree for tree in allowed if isinstance(tree, dict)]
    if not isinstance(found, dict) or not trees:
        kinds = [item if isinstance(item, str) else "there" for item in [found, *allowed]]
        return f"{kinds[0]}, not {kinds[1:]}"
    wrong = {name for name in found.keys() | trees[0].keys() if found.get(name) != trees[0].get(name)}
    shown = [f"{name}: {found.get(name)}, not {trees[0].get(name)}" for name in sorted(wrong)[:4]]
    return f"another in {len(wrong)} places, such as " + "; ".join(shown)
