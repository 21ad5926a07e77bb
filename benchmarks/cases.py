"""What is measured: for each line of the table one or more cases, each with those who are compared in it.

Environments are made when they are first needed: in the round that does not count. Where something has to be
fresh each time, it is made anew outside of what is measured.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import disk, starts
from benchmarks.contenders import Pip, Siteswap, Uv, caches, durable
from benchmarks.measure import Command, Mode, RunError, Runner, Sample
from benchmarks.places import Places, remove
from benchmarks.stage import Stage

Measurement = Callable[[], Sample]
"""Measures once."""


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    recycling: bool = True
    """Upgrades are made where there is a generation to recycle, too; it takes a dozen changes to have one."""
    changes: int = 20
    """How many are made while programs start."""


@dataclass(frozen=True)
class Case:
    """What is compared with each other, one after the other, in each round."""

    name: str
    size: int
    """Distributions in the environment; for `heavy` cases MiB of the wheel."""
    title: str
    contenders: Mapping[str, Measurement]
    unit: str = "s"
    rounds: float = 1.0
    """How often, as a part of all rounds: less for what is slow, more for what is short."""
    modes: frozenset[Mode] = field(default_factory=lambda: frozenset(Mode))
    """What can be measured of it; without TIME only that."""


_TIMED = frozenset({Mode.TIME})

_CLOCKED = Path(__file__).parent / "clocked.py"


class Cases:
    """All cases, on one stage. `root` is where the environments are made, on the disk of the stage."""

    def __init__(self, stage: Stage, runner: Runner, root: Path, scale: Scale) -> None:
        self.stage = stage
        self.runner = runner
        self.root = root
        self.scale = scale
        self.places = Places(stage, runner, root)
        self.siteswap, self.uv, self.pip = Siteswap(stage), Uv(stage), Pip(stage)

    def all(self) -> list[Case]:
        """Those of the table's lines, then what is only worth knowing."""
        stage = self.stage
        found = [self.fresh(size) for size in stage.sizes]
        found += [self.fresh_cold(stage.main)]
        found += [case for size in stage.sizes for case in (self.upgrade(size), self.upgrade_young(size))]
        found += [self.noop(size) for size in stage.sizes]
        found += [self.rollback(size) for size in stage.sizes]
        found += [self.lock_held(size) for size in stage.sizes]
        found += [self.starts_during_changes(), self.start(), self.imports()]
        found += [self.heavy(size) for size in stage.heavy]
        found += [self.disk_of_a_generation(), self.checked_upgrade()]
        found += [self.fresh_compiled(), self.fresh_checked()]
        if stage.pip is not None:
            found.append(self.fresh_pip())
        return found

    # -- a fresh environment ---------------------------------------------------------------------

    def fresh(self, size: int) -> Case:
        """From a lock, everything in the caches."""
        lock = self.stage.lock(size)
        return Case(
            "fresh", size, f"fresh environment of {size} distributions, warm caches",
            {
                "siteswap": self._fresh("siteswap", lambda env: self.siteswap.fresh(env, lock, "--no-check")),
                "uv": self._fresh("uv", lambda env: self.uv.fresh(env, lock)),
                "uv, then sync": self._fresh("uv", lambda env: durable(self.uv.fresh(env, lock), env)),
            },
        )  # fmt: skip

    def fresh_cold(self, size: int) -> Case:
        """From a lock, with caches that are empty; the wheels themselves are in the page cache."""
        lock = self.stage.lock(size)
        return Case(
            "fresh-cold", size, f"fresh environment of {size} distributions, empty caches, wheels on disk",
            {
                "siteswap": self._fresh(
                    "siteswap", lambda env: self.siteswap.fresh(env, lock, "--no-check"), cold=True
                ),
                "uv": self._fresh("uv", lambda env: self.uv.fresh(env, lock), cold=True),
                "uv, then sync": self._fresh(
                    "uv", lambda env: durable(self.uv.fresh(env, lock), env), cold=True
                ),
            },
            rounds=0.5,
        )  # fmt: skip

    def fresh_compiled(self) -> Case:
        """With byte-code of everything."""
        size, lock = self.stage.main, self.stage.lock(self.stage.main)
        return Case(
            "fresh-compiled", size, f"fresh environment of {size} distributions, byte-code of everything",
            {
                "siteswap": self._fresh(
                    "siteswap", lambda env: self.siteswap.fresh(env, lock, "--no-check", "--compile")
                ),
                "uv": self._fresh("uv", lambda env: self.uv.fresh(env, lock, "--compile-bytecode")),
            },
            rounds=0.2,
            modes=_TIMED,
        )  # fmt: skip

    def fresh_checked(self) -> Case:
        """With the default checks: every import of everything."""
        size, lock = self.stage.main, self.stage.lock(self.stage.main)
        return Case(
            "fresh-checked", size, f"fresh environment of {size} distributions, default checks",
            {"siteswap": self._fresh("siteswap", lambda env: self.siteswap.fresh(env, lock))},
            rounds=0.2,
            modes=_TIMED,
        )  # fmt: skip

    def fresh_pip(self) -> Case:
        """pip, with and without byte-code."""
        size, requirements = self.stage.main, self.stage.requirements(self.stage.main)
        env = self.root / "fresh-pip"

        def measure(*options: str) -> Measurement:
            def once() -> Sample:
                self.places.make_plain(env, None, pip=True)
                return self.runner.measure([self.pip.sync(env, requirements, *options)])

            return once

        return Case(
            "fresh-pip", size, f"{size} distributions into an empty environment, by pip",
            {"pip": measure("--no-compile"), "pip, with byte-code": measure()},
            rounds=0.1,
            modes=_TIMED,
        )  # fmt: skip

    def heavy(self, size: int) -> Case:
        """Memory with a wheel of so many MiB, empty caches."""
        lock = self.stage.lock(f"heavy{size}")
        return Case(
            "heavy", size, f"memory of an install whose largest wheel has {size} MiB, empty caches",
            {
                "siteswap": self._fresh(
                    "siteswap", lambda env: self.siteswap.fresh(env, lock, "--no-check"), cold=True
                ),
                "uv": self._fresh("uv", lambda env: self.uv.fresh(env, lock), cold=True),
            },
            modes=frozenset({Mode.MEMORY}),
        )  # fmt: skip

    def _fresh(self, name: str, make: Callable[[Path], list[Command]], *, cold: bool = False) -> Measurement:
        env, empty = self.root / f"fresh-{name}", self.root / "empty-caches"

        def once() -> Sample:
            remove(env)
            remove(empty)
            return self.runner.measure(make(env), **(caches(empty) if cold else {}))

        return once

    # -- a change of one distribution ------------------------------------------------------------

    def upgrade(self, size: int) -> Case:
        """In an environment that has had so many changes that an old generation can be recycled."""

        def siteswap() -> Sample:
            env = self.places.upgraded(size, recycling=self.scale.recycling)
            return self.runner.measure(self.siteswap.upgrade(env, self.places.other(env), "--no-check"))

        title = f"upgrade of one distribution in {size}"
        return Case("upgrade", size, title, {"siteswap": siteswap, **self._uv_upgrades(size)})

    def upgrade_young(self, size: int) -> Case:
        """In an environment that has nothing to recycle: one of the first changes."""

        def siteswap() -> Sample:
            env = self._renewed(size)
            return self.runner.measure(self.siteswap.upgrade(env, self.places.other(env), "--no-check"))

        title = f"upgrade of one distribution in {size}, nothing to recycle yet"
        return Case("upgrade-young", size, title, {"siteswap": siteswap, **self._uv_upgrades(size)})

    def checked_upgrade(self) -> Case:
        """With the default checks, against pip's plain upgrade; the new version has no byte-code yet."""
        size = self.stage.main

        def siteswap() -> Sample:
            env = self._renewed(size)
            return self.runner.measure(self.siteswap.upgrade(env, self.places.other(env)))

        def pip() -> Sample:
            env = self.places.with_pip(size)
            return self.runner.measure(self.pip.upgrade(env, self.places.other(env)))

        found = {"siteswap": siteswap, **({"pip": pip} if self.stage.pip is not None else {})}
        title = f"upgrade of one distribution in {size}, default checks"
        return Case("upgrade-checked", size, title, found)

    def disk_of_a_generation(self) -> Case:
        """What an upgrade of one distribution adds to the disk, per file of the generation."""
        size = self.stage.main

        def siteswap() -> Sample:
            env = self._renewed(size)
            before = disk.usage(env)
            for command in self.siteswap.upgrade(env, self.places.other(env), "--no-check"):
                self.runner.run(*command)
            added = disk.usage(env) - before
            return Sample(added / disk.files(disk.newest_generation(env)))

        title = f"disk of one more generation of {size} distributions, a file"
        return Case("disk", size, title, {"siteswap": siteswap}, unit="B", rounds=0.1, modes=_TIMED)

    def _renewed(self, size: int) -> Path:
        """A fresh environment of siteswap, at a place that is used for nothing else."""
        env = self.root / f"renewed-{size}"
        self.places.make_managed(env, size)
        return env

    def _uv_upgrades(self, size: int) -> dict[str, Measurement]:
        def commands() -> tuple[Path, list[Command]]:
            env = self.places.changing(size)
            return env, self.uv.upgrade(env, self.places.other(env))

        def uv() -> Sample:
            return self.runner.measure(commands()[1])

        def synced() -> Sample:
            env, found = commands()
            return self.runner.measure(durable(found, env))

        return {"uv": uv, "uv, then sync": synced}

    # -- nothing new -----------------------------------------------------------------------------

    def noop(self, size: int) -> Case:
        """A sync of what is as the lock says, against the start of a bare interpreter."""
        lock, places = self.stage.lock(size), self.places
        return Case(
            "same", size, f"sync of {size} distributions that already are as the lock says",
            {
                "siteswap": lambda: self.runner.measure(
                    [self.siteswap.sync(places.managed(size), lock, "--no-check")]
                ),
                "uv": lambda: self.runner.measure([self.uv.sync(places.plain(size), lock)]),
                "bare interpreter": self._bare,
            },
            rounds=2,
        )  # fmt: skip

    def rollback(self, size: int) -> Case:
        """To one of two generations and back, against the start of a bare interpreter."""
        return Case(
            "rollback", size, f"rollback in an environment of {size} distributions",
            {"siteswap": lambda: self.runner.measure(self._back(size)), "bare interpreter": self._bare},
            rounds=2,
        )  # fmt: skip

    def _back(self, size: int) -> list[Command]:
        pair = self.places.pair(size)
        return self.siteswap.rollback(pair.env, next(pair.numbers))

    def _bare(self) -> Sample:
        return self.runner.measure([(sys.executable, "-c", "pass")])

    def lock_held(self, size: int) -> Case:
        """How long commands hold the flip lock: the longest of the times that one command takes it."""

        def held(commands: Sequence[Command]) -> Sample:
            return Sample(max(_longest_hold(self.runner, command) for command in commands))

        def install() -> Sample:
            env = self._renewed(size)
            return held(self.siteswap.upgrade(env, self.places.other(env), "--no-check"))

        return Case(
            "held", size, f"how long the flip lock is held, {size} distributions",
            {"siteswap install": install, "siteswap rollback": lambda: held(self._back(size))},
            modes=_TIMED,
        )  # fmt: skip

    # -- programs in the environment -------------------------------------------------------------

    def start(self) -> Case:
        """An interpreter of the environment that does nothing."""
        return self._programs("start", "start of a program", "pass", rounds=5)

    def imports(self) -> Case:
        """An interpreter of the environment that imports much."""
        return self._programs("imports", "imports of a heavy stack", self.stage.stack, rounds=2)

    def _programs(self, name: str, title: str, code: str, rounds: float) -> Case:
        size = self.stage.main

        def program(place: Callable[[int], Path]) -> Measurement:
            return lambda: self.runner.measure([(str(place(size) / "bin/python"), "-c", code)])

        return Case(
            name, size, f"{title}, {size} distributions",
            {"siteswap": program(self.places.managed), "plain venv": program(self.places.plain)},
            rounds=rounds,
        )  # fmt: skip

    def starts_during_changes(self) -> Case:
        """How many of the programs that start while distributions change fail, or see two versions."""
        size, subject, places = self.stage.main, self.stage.subject.name, self.places

        def failed(env: Path, change: Callable[[], list[Command]]) -> Sample:
            return starts.failed(self.runner, env / "bin/python", subject, change, self.scale.changes)

        def rollback() -> Sample:
            return failed(places.pair(size).env, lambda: self._back(size))

        def install() -> Sample:
            env = self._renewed(size)
            return failed(env, lambda: self.siteswap.upgrade(env, places.other(env), "--no-check"))

        def uv() -> Sample:
            env = places.changing(size)
            return failed(env, lambda: self.uv.upgrade(env, places.other(env)))

        return Case(
            "starts-failed", size,
            f"starts that fail during {self.scale.changes} changes, {size} distributions",
            {"siteswap rollback": rollback, "siteswap install": install, "uv": uv},
            unit="starts", rounds=0.1, modes=_TIMED,
        )  # fmt: skip


def _longest_hold(runner: Runner, command: Command) -> float:
    """Run a siteswap command; the longest time in seconds that it held the flip lock. Raises RunError."""
    words = command[command.index("siteswap") + 1 :]
    with tempfile.NamedTemporaryFile("r") as told:
        runner.run(sys.executable, "-I", _CLOCKED, told.name, *words)
        found = json.loads(Path(told.name).read_text())
    if not found:
        raise RunError(f"it never took the flip lock: {' '.join(command)}")
    return float(max(found))
