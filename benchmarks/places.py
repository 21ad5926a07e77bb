"""Environments that are measured in. Those that nobody changes, or all change alike, are shared by cases."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import disk
from benchmarks.contenders import Siteswap, Uv
from benchmarks.measure import Command, RunError, Runner
from benchmarks.stage import Stage

_KEPT = 11
"""As many generations siteswap keeps by default, with the current one."""
_PATIENCE = 30


@dataclass(frozen=True)
class Pair:
    """An environment of siteswap with two generations, 2 and 3."""

    env: Path
    numbers: Iterator[int] = field(default_factory=lambda: itertools.cycle((2, 3)))
    """Which one is not current."""


class Places:
    """Makes them when they are first asked for, below one directory."""

    def __init__(self, stage: Stage, runner: Runner, root: Path) -> None:
        self.stage = stage
        self.runner = runner
        self.root = root
        self.siteswap, self.uv = Siteswap(stage), Uv(stage)
        self._pairs: dict[int, Pair] = {}

    def managed(self, size: int) -> Path:
        """One of siteswap with what a lock says. Nobody changes it."""
        return self._made(f"managed-{size}", lambda env: self.make_managed(env, size))

    def plain(self, size: int) -> Path:
        """A virtual environment with the same. Nobody changes it."""
        return self._made(f"plain-{size}", lambda env: self.make_plain(env, size))

    def upgraded(self, size: int, *, recycling: bool) -> Path:
        """One of siteswap in which one distribution is changed over and over.

        With `recycling` so often that siteswap has an old generation, as large as the others, to make the
        next one of. Raises RunError where that does not come.
        """
        env = self._made(f"upgraded-{size}", lambda env: self.make_managed(env, size))
        for attempt in range(_PATIENCE if recycling else 0):
            if disk.version_in(env / ".siteswap/spare", self.stage.subject.name) is not None:
                break
            if attempt > _KEPT:
                time.sleep(1)  # what was current a few seconds ago is left alone
            self._run(self.siteswap.upgrade(env, self.other(env), "--no-check"))
        else:
            if recycling:
                raise RunError(f"siteswap recycles nothing in {env}")
        return env

    def changing(self, size: int) -> Path:
        """A plain one in which uv changes one distribution over and over."""
        return self._made(f"changing-{size}", lambda env: self.make_plain(env, size))

    def with_pip(self, size: int) -> Path:
        """A plain one, with pip, in which pip changes one distribution over and over."""
        return self._made(f"with-pip-{size}", lambda env: self.make_plain(env, size, pip=True))

    def pair(self, size: int) -> Pair:
        """Two generations that are gone between; whoever goes takes the next of its numbers."""
        if size not in self._pairs:
            env = self._made(f"pair-{size}", lambda env: self._make_pair(env, size))
            self._pairs[size] = Pair(env)
        return self._pairs[size]

    def make_managed(self, env: Path, size: int) -> None:
        """Make one of siteswap there, anew."""
        remove(env)
        self._run(self.siteswap.fresh(env, self.stage.lock(size), "--no-check"))

    def make_plain(self, env: Path, size: int | None, *, pip: bool = False) -> None:
        """Make a plain one there, anew; with nothing from a lock if there is no size."""
        remove(env)
        self._run([self.uv.create(env)] if size is None else self.uv.fresh(env, self.stage.lock(size)))
        if pip and self.stage.pip is not None:
            self._run(self.uv.upgrade(env, self.stage.pip))

    def other(self, env: Path) -> str:
        """A version to change to: one that the environment does not have.

        Nor what siteswap would recycle there: that would save it what is to be measured.
        """
        subject = self.stage.subject
        prefixes = [prefix for prefix in (env, env / ".siteswap/spare") if prefix.exists()]
        had = {disk.version_in(prefix, subject.name) for prefix in prefixes}
        return f"{subject.name}=={next(version for version in subject.versions if version not in had)}"

    def _make_pair(self, env: Path, size: int) -> None:
        self.make_managed(env, size)
        self._run(self.siteswap.upgrade(env, self.other(env), "--no-check"))

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        env = self.root / name
        if not env.exists():
            make(env)
        return env

    def _run(self, commands: list[Command]) -> None:
        for command in commands:
            self.runner.run(*command)


def remove(directory: Path) -> None:
    """Remove an environment or a cache, if it is there."""
    if directory.exists():
        shutil.rmtree(directory)
