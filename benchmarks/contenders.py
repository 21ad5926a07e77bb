"""What is typed to have siteswap, uv or pip do one thing: commands, to be run one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Command
from benchmarks.stage import Stage

PYTHON = os.path.realpath(sys.executable)
"""The interpreter of all environments; not the one of the virtual environment that siteswap may run in."""

_NO_INDEX = ("--no-index", "--find-links")


def clean_variables(root: Path) -> dict[str, str]:
    """What everybody gets: nothing of the caller's settings, and caches of the benchmark's own."""
    led = ("UV_", "PIP_", "SITESWAP_", "PYTHON", "VIRTUAL_ENV", "CONDA_", "XDG_")
    found = {name: value for name, value in os.environ.items() if not name.startswith(led)}
    return {
        **found,
        **caches(root / "cache"),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_OFFLINE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "HOME": str(root / "home"),
    }


def caches(directory: Path) -> dict[str, str]:
    """Variables that put every cache below `directory`."""
    return {
        "SITESWAP_CACHE_DIR": str(directory / "siteswap"),
        "UV_CACHE_DIR": str(directory / "uv"),
        "PIP_CACHE_DIR": str(directory / "pip"),
    }


class Contender:
    """An installer, on the wheels and locks of a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @property
    def links(self) -> Command:
        """The wheels and nothing else."""
        return (*_NO_INDEX, str(self.stage.wheels))


class Siteswap(Contender):
    """siteswap as it is installed beside the interpreter that runs the benchmarks."""

    def command(self, *words: str | Path) -> Command:
        """One siteswap command."""
        return (sys.executable, "-m", "siteswap", *map(str, words))

    def create(self, env: Path) -> Command:
        """Make an empty environment."""
        return self.command("create", "-q", env, "--python", PYTHON)

    def sync(self, env: Path, lock: Path, *options: str) -> Command:
        """Make it what the lock says."""
        return self.command("sync", "-q", "-e", env, *options, lock)

    def fresh(self, env: Path, lock: Path, *options: str) -> list[Command]:
        """Make an environment from the lock."""
        return [self.create(env), self.sync(env, lock, *options)]

    def upgrade(self, env: Path, requirement: str, *options: str) -> list[Command]:
        """Change one distribution."""
        return [self.command("install", "-q", "-e", env, *self.links, *options, requirement)]

    def rollback(self, env: Path, number: int) -> list[Command]:
        """Make another generation current."""
        return [self.command("rollback", "-q", "-e", env, str(number))]


class Uv(Contender):
    """The newest uv."""

    def command(self, *words: str | Path) -> Command:
        """One uv command."""
        return (str(self.stage.uv), *map(str, words))

    def create(self, env: Path) -> Command:
        """Make an empty environment."""
        return self.command("venv", "-q", "--python", PYTHON, env)

    def sync(self, env: Path, lock: Path, *options: str) -> Command:
        """Make it what the lock says."""
        return self.command("pip", "sync", "-q", "--python", env, *self.links, *options, lock)

    def fresh(self, env: Path, lock: Path, *options: str) -> list[Command]:
        """Make an environment from the lock."""
        return [self.create(env), self.sync(env, lock, *options)]

    def upgrade(self, env: Path, requirement: str, *options: str) -> list[Command]:
        """Change one distribution in place."""
        return [self.command("pip", "install", "-q", "--python", env, *self.links, *options, requirement)]


class Pip(Contender):
    """pip inside of a virtual environment, as it is used; the stage has one."""

    def sync(self, env: Path, requirements: Path, *options: str) -> Command:
        """Install pins with hashes."""
        return (str(env / "bin/python"), "-m", "pip", "install", "-q", *self.links, "--no-deps",
                "--require-hashes", *options, "-r", str(requirements))  # fmt: skip

    def upgrade(self, env: Path, requirement: str, *options: str) -> list[Command]:
        """Change one distribution in place."""
        return [(str(env / "bin/python"), "-m", "pip", "install", "-q", *self.links, *options, requirement)]


def durable(commands: Sequence[Command], env: Path) -> list[Command]:
    """The same, and then everything on that disk is written: what siteswap does by itself."""
    return [*commands, ("sync", "-f", str(env))]
