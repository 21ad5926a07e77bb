"""What happens on the disk before the power is cut: an environment's life, and its state after each command.

Run as an isolated program (`machine.Isolated`) this mounts the recorded disk,
runs the commands of a story one after the other, and puts "begin N" and "done N"
among the writes: what is reported by a command is reported at its "done N".
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snapshots
from power import machine
from siteswap.layout import Number
from siteswap.manifest import effective_history, parse_history
from wheelmaker import application, wheel

VERSIONS = ("1.0", "2.0", "3.0")

_LEFT_OUT = "left out on purpose"
"""On standard error, for a mutant that changes nothing proves nothing."""

_LEAVE_OUT = f"""
import sys
original = FileSystem.METHOD
def changed(self, place):
    if CALLERS and sys._getframe(1).f_code.co_name not in CALLERS:
        original(self, place)
    else:
        print({_LEFT_OUT!r}, file=sys.stderr)
FileSystem.METHOD = changed
"""


def _leave_out(method: str, *callers: str) -> str:
    """Code that makes a method of the file system do nothing, for these callers or for all."""
    return _LEAVE_OUT.replace("METHOD", method).replace("CALLERS", repr(callers))


MUTANTS = {
    "the barrier": _leave_out("barrier", "commit", "create"),
    "the cache's barrier": _leave_out("barrier", "publish"),
    "synced directories": _leave_out("sync_directory"),
    "synced tombstones": _leave_out("sync_directory", "settle"),
    "a synced history": _leave_out("_fsync", "append_line"),
}
"""What of durability can be left out, as code that runs before the command line does."""


@dataclass(frozen=True)
class Step:
    """One command."""

    words: tuple[str, ...]
    keep: int = 10
    """How many generations besides the current one stay after a commit; 0 also ends the grace period."""
    status: int = 0
    """How it ends."""
    pause: float = 0.0
    """Seconds that pass afterwards."""


def _install(version: str, *more: str, keep: int = 10) -> Step:
    words = ("install", f"swapapp=={version}", f"bulk=={version}", "steady", *more)
    return Step(words, keep)


STORIES = {
    "recycling": (
        Step(("create",)),
        _install("1.0", "--no-check", keep=0),  # 2; generation 1 becomes the spare
        _install("2.0", keep=0),  # 3, in the directory of 1, and checked; 2 becomes the spare
        _install("3.0", "--no-check"),  # 4, in the directory of 2
        Step(("rollback", "3")),
        Step(("gc", "--keep", "0"), keep=0),
    ),
    "keeping": (
        Step(("create",)),
        _install("1.0", "--no-check"),
        _install("2.0", "--no-check"),
        Step(("rollback", "2")),
        Step(("uninstall", "bulk", "--no-check")),
        Step(("gc", "--keep", "1"), keep=0),
    ),
    "checking": (Step(("create",)), _install("1.0"), _install("2.0", "--compile"), Step(("rollback", "2"))),
    "refusing": (
        Step(("create",)),
        # What was new stays in the cache, and nothing that follows syncs its content: the file system commits
        # names by itself, or because a file and a directory elsewhere are synced.
        Step(("install", "bulk==1.0", "--check", "exit 1"), status=1, pause=1.5),
        Step(("tag", "1", "first")),
        _install("1.0", "--no-check"),
    ),
    "creating": (Step(("create",)),),
    "short": (Step(("create",)), _install("1.0", "--no-check"), _install("2.0", "--no-check")),
}


def make_wheels(directory: Path) -> None:
    """Three versions of an application with files of every sort, and a distribution that stays as it is."""
    for version in VERSIONS:
        application(directory, version)
        files: dict[str, str | bytes] = {
            f"bulk/part{number}.py": f"VERSION = {version!r}\n" + f"# {version} {number}\n" * (number * 40)
            for number in range(24)
        }
        files |= {
            "bulk/__init__.py": f"VERSION = {version!r}\n",
            "bulk/empty.py": "",
            "bulk/inner/data.bin": bytes((int(float(version)), 7)) * 60_000,
            f"bulk/only_in_{version[0]}/__init__.py": "",
        }
        data: dict[str, str | bytes] = {"scripts/bulk-tool": f"#!/bin/sh\necho {version}\n"}
        if version != "1.0":
            data[f"data/etc{version[0]}/bulk.conf"] = f"version = {version}\n"
        wheel(directory, "bulk", version, files, data=data)
    wheel(directory, "steady", files={f"steady/part{number}.py": f"N = {number}\n" for number in range(12)})


@dataclass(frozen=True)
class State:
    """An environment between two commands. None of a value: there is no environment."""

    current: int
    history: list[list[Any]]
    """Kind, source and target of every flip that took place."""
    tags: str | None
    generations: dict[str, dict[str, list[Any]] | str]
    """By number: a tree as `snapshots.tree` has it, or what the link in its place says."""
    top: dict[str, list[Any]]
    """What is in the environment's own directory, and in siteswap's corner of it, and never changes."""

    @property
    def version(self) -> str | None:
        """The version of the application that is installed."""
        tree = self.generations[str(self.current)]
        assert isinstance(tree, dict)
        found = [path for path in tree if path.endswith(".dist-info") and "/swapapp-" in path]
        return found[0].rpartition("/swapapp-")[2].removesuffix(".dist-info") if found else None


def state(env: Path) -> State:
    """What is there, read without siteswap's help but for the meaning of the history."""
    home = env / ".siteswap"
    current = snapshots.current(env)
    operations = effective_history(
        parse_history((home / "history").read_text(errors="replace")), Number(current)
    )
    generations: dict[str, dict[str, list[Any]] | str] = {}
    for path in (home / "generations").iterdir():
        generations[path.name] = os.readlink(path) if path.is_symlink() else listed(path)
    top = {name: entry for name, entry in listed(env).items() if "/" not in name}
    top[".siteswap/format"] = listed(home)["format"]
    history: list[list[Any]] = [[item.kind, item.source, item.target] for item in operations]
    tags = (home / "tags").read_text() if (home / "tags").exists() else None
    return State(current, history, tags, generations, top)


def listed(root: Path) -> dict[str, list[Any]]:
    """A tree as JSON gives it back."""
    return {path: list(entry) for path, entry in snapshots.tree(root).items()}


@dataclass(frozen=True)
class Stage:
    """Where a story plays."""

    env: Path
    wheels: Path
    cache: Path

    def run(
        self, step: Step, *more: str, mutant: str | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own."""
        code = (
            "from siteswap import collect\n"
            f"collect.DEFAULT_KEEP, collect.GRACE_SECONDS = {step.keep}, {0.0 if step.keep == 0 else 5.0}\n"
            f"from siteswap.fs import FileSystem\n{MUTANTS.get(mutant or '', '')}\n"
            "from siteswap.cli import main\nraise SystemExit(main())"
        )
        verb, *words = step.words
        words[:0] = [str(self.env)] if verb == "create" else ["-e", str(self.env)]
        if verb == "install":
            words += ["--no-index", "--find-links", str(self.wheels)]
        return subprocess.run(
            [sys.executable, "-c", code, verb, *words, *more],
            capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL,
            env={**os.environ, "SITESWAP_CACHE_DIR": str(self.cache)},
        )  # fmt: skip


def main(orders: Mapping[str, Any]) -> None:
    """Tell the story; says the state after each command."""
    kind, disk, marks = machine.KINDS[orders["kind"]], orders["disk"], orders["marks"]
    where = Path(orders["mount"])
    stage = Stage(*(Path(orders[name]) for name in ("env", "wheels", "cache")))
    mutant, left_out = orders["mutant"], False
    with machine.mounted(kind, disk, where):
        os.close(disk)
        machine.write_out(where)
        os.write(marks, b"mounted")
        for number, step in enumerate(STORIES[orders["story"]]):
            os.write(marks, b"begin %d" % number)
            # An environment that was never whole proves nothing about what comes later.
            spared = number == 0 and len(STORIES[orders["story"]]) > 1
            done = stage.run(step, mutant=None if spared else mutant)
            assert done.returncode == step.status, f"{step.words}: {done.stdout}{done.stderr}"
            os.write(marks, b"done %d" % number)
            left_out |= _LEFT_OUT in done.stderr
            machine.say(vars(state(stage.env)))
            time.sleep(step.pause)
    assert left_out == (mutant is not None), f"nothing calls {mutant} any more"
