"""A generation made of a recycled directory is the same as one made afresh, whatever it was before."""

from __future__ import annotations

import json
import marshal
import random
import shutil
import struct
from pathlib import Path

import pytest

from siteswap import collect
from siteswap.environment import Environment
from siteswap.fs import FileSystem
from siteswap.gates import Gates
from siteswap.requirements import Request
from siteswap.resolve import Options
from siteswap.transaction import Outcome
from snapshots import Tree, current, generation, record_problems, tree
from wheelmaker import wheel

NAMES = ("plain", "shape", "script", "data", "spaced")


def make(wheels: Path) -> None:
    """Two versions of distributions that differ in every way that matters."""
    for version in ("1.0", "2.0"):
        first = version == "1.0"
        wheel(wheels, "plain", version, {"plain/__init__.py": f"V = {version}\n", "plain/same.py": "X = 1\n"})
        # A module that becomes a package, a directory that becomes a file, and the other way round.
        shape = (
            {"shape.py": "A = 1\n", "shape_data/x": "x"}
            if first
            else {"shape/__init__.py": "", "shape_data": "x"}
        )
        wheel(wheels, "shape", version, shape)
        wheel(wheels, "script", version, {"script.py": "def main(): pass\n"},
              scripts={"run": "script:main", f"run{version[0]}": "script:main"})  # fmt: skip
        files = (
            {f"data/etc/data/{version}.conf": version, "data/etc/data/both.conf": version} if first else {}
        )
        wheel(wheels, "data", version, data={**files, "scripts/tool": f"#!/bin/sh\necho {version}\n"})
        # Shares a namespace and its directories with `plain`.
        wheel(
            wheels,
            "spaced",
            version,
            {f"plain/extra/part{version[0]}.py": "Y = 1\n", "spacedns/mod.py": "Z = 1\n"},
        )


def comparable(env: Path) -> Tree:
    """The live generation, without byte-code and the moment at which it was made."""
    found = tree(generation(env))
    manifest = json.loads((generation(env) / ".generation/manifest.json").read_text())
    del found[".generation/manifest.json"], manifest["created"]
    found["manifest"] = ("", 0, json.dumps(manifest))
    return found


def stale(env: Path) -> list[str]:
    """Byte-code of the live generation that has no source, or is of another one than it has."""
    problems = []
    for path in generation(env).rglob("*.pyc"):
        source = path.parent.parent / (path.name.partition(".")[0] + ".py")
        time, size = struct.unpack("<II", path.read_bytes()[8:16])
        if not source.is_file():
            problems.append(f"{path} has no source")
        elif (time, size) != (int(source.stat().st_mtime), source.stat().st_size):
            problems.append(f"{path} is of another source")
        elif marshal.loads(path.read_bytes()[16:]) != compile(
            source.read_bytes(), source, "exec", dont_inherit=True
        ):
            problems.append(f"{path} is of a source of the same size and time")
    return problems


def change(env: Path, wheels: Path, wanted: dict[str, str], gates: Gates) -> Outcome:
    """Make the environment hold exactly these."""
    request = Request.of(*(f"{name}=={version}" for name, version in wanted.items()))
    options = Options(("--no-index", "--find-links", str(wheels)), no_index=True)
    return Environment.open(env).sync(request, options, gates=gates)


@pytest.mark.parametrize("seed", range(2))
def test_recycled_is_the_same_as_fresh(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Names, modes, contents and link targets are the same without a spare; no byte-code is stale."""
    monkeypatch.setattr(collect, "DEFAULT_KEEP", 1)
    monkeypatch.setattr(collect, "GRACE_SECONDS", 0.0)
    make(wheels)
    chance = random.Random(seed)
    env, saved, used = tmp_path / "env", tmp_path / "saved", tmp_path / "used"
    Environment.create(env)
    recycled = 0
    for _ in range(10):
        names = chance.sample(NAMES, chance.randint(1, len(NAMES)))
        wanted = {name: chance.choice(["1.0", "2.0"]) for name in names}
        gates = Gates(enabled=chance.random() < 0.5)
        shutil.copytree(env, saved, symlinks=True)
        spare = env / ".siteswap/spare"
        inode = spare.stat().st_ino if spare.is_dir() else None
        if not change(env, wheels, wanted, gates).committed:
            shutil.rmtree(saved)
            continue
        with_spare = comparable(env)
        assert record_problems(generation(env)) == []
        assert stale(env) == []
        if generation(env).stat().st_ino == inode:
            recycled += 1
            env.rename(used)
            saved.rename(env)
            shutil.rmtree(spare)
            change(env, wheels, wanted, gates)
            assert comparable(env) == with_spare
            shutil.rmtree(env)
            used.rename(env)
        else:
            shutil.rmtree(saved)
    assert recycled >= 4, "too little was recycled to mean anything"
    assert current(env) > recycled


def test_a_tombstone_lasts_before_what_it_replaces_is_touched(
    env: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collecting syncs the directory of generations after the last exchange, before anything is deleted."""
    wheel(wheels, "demo", "1.0")
    wheel(wheels, "demo", "2.0")
    environment = Environment.open(env)
    options = Options(("--no-index", "--find-links", str(wheels)), no_index=True)
    for version in ("1.0", "2.0"):
        environment.install(Request.of(f"demo=={version}"), options)
    monkeypatch.setattr("siteswap.collect.GRACE_SECONDS", 0.0)
    steps: list[str] = []

    def noted(name: str) -> None:
        original = getattr(FileSystem, name)

        def call(fs: FileSystem, path: Path, *rest: object) -> object:
            steps.append(f"{name} {path.name}")
            return original(fs, path, *rest)

        monkeypatch.setattr(FileSystem, name, call)

    for name in ("exchange", "sync_directory", "remove_tree"):
        noted(name)
    assert environment.gc(0)[0] == [2, 1]
    last_exchange = max(index for index, step in enumerate(steps) if step.startswith("exchange"))
    synced = steps.index("sync_directory generations", last_exchange)
    deleted = next(index for index, step in enumerate(steps) if step.startswith("remove_tree collected-"))
    assert last_exchange < synced < deleted
