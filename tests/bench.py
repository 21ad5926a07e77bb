"""An environment on which things are tried, with an eye on what must not change. Used by tests only."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import Ran, Siteswap, landlock
from siteswap import process
from snapshots import Tree, current, generation, site_packages, state
from wheelmaker import wheel

needs_landlock = pytest.mark.skipif(not landlock(), reason="this kernel has no Landlock")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")

Exact = dict[str, tuple[int, int, str]]


def exact(root: Path) -> Exact:
    """Every file and link below `root`, byte-code too: path to mode, time and content."""
    found: Exact = {}
    for directory, _, files in os.walk(root):
        for name in files:
            path = Path(directory, name)
            status = path.lstat()
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            entry = (stat.S_IMODE(status.st_mode), status.st_mtime_ns, hashlib.sha256(content).hexdigest())
            found[str(path.relative_to(root))] = entry
    return found


class Bench:
    """One environment and its wheels. Every attempt to change it is watched."""

    def __init__(self, siteswap: Siteswap, root: Path) -> None:
        self._siteswap = siteswap
        self.root = root
        self.env = root / "env"
        self.wheels = root / "wheels"
        self.variables: dict[str, str] = {}
        """For siteswap itself, besides those of the test."""

    def wheel(
        self, name: str, version: str = "1.0", files: Mapping[str, str | bytes] | None = None, **more: Any
    ) -> Path:
        """Make a wheel that can be installed by name."""
        return wheel(self.wheels, name, version, files, **more)

    def module(self, name: str, code: str, version: str = "1.0", **more: Any) -> Path:
        """Make a wheel of one module, which runs `code` when it is imported."""
        return self.wheel(name, version, {f"{name}.py": f"{code}\n"}, **more)

    def run(self, *words: str | Path) -> Ran:
        """A command on the environment."""
        return self._siteswap(words[0], "-e", self.env, *words[1:], env=self.variables, cwd=self.root)

    def install(self, *words: str | Path) -> Ran:
        """`siteswap install` from the wheels, without an index."""
        return self.run("install", "--no-index", "--find-links", self.wheels, *words)

    def refused(self, *words: str | Path, status: int = 1) -> Ran:
        """An install that must fail and leave everything as it was."""
        before = (state(self.env), exact(self.env / ".siteswap/generations"))
        done = self.install(*words)
        assert done.status == status, f"status {done.status}\n{done.out}\n{done.err}"
        after = (state(self.env), exact(self.env / ".siteswap/generations"))
        assert _difference(before[0], after[0]) == []
        assert _difference(before[1], after[1]) == []
        self.nothing_left()
        return done

    def lives(self, *words: str | Path) -> Ran:
        """An install that must become current, and leave every older generation as it was."""
        number = current(self.env)
        before = exact(self.env / ".siteswap/generations")
        done = self.install(*words).ok()
        assert current(self.env) == number + 1, done.out
        after = exact(self.env / ".siteswap/generations")
        assert _difference(before, {path: after.get(path) for path in before}) == []
        self.nothing_left(number + 1)
        return done

    def nothing_left(self, newest: int | None = None) -> None:
        """Make sure that no process, no scratch file and no candidate of a check is there any more."""
        assert process.survey(str(self.env), "SITESWAP_GENERATION") == []
        assert list((self.env / ".siteswap/staging").iterdir()) == []
        numbers = {int(path.name) for path in (self.env / ".siteswap/generations").iterdir()}
        assert max(numbers) == (newest or current(self.env))

    def findings(self, *words: str | Path) -> list[dict[str, Any]]:
        """All that a generation is found to have, by `siteswap check`."""
        return [item for row in self.verdict(*words)["checks"] for item in row["findings"]]

    def verdict(self, *words: str | Path) -> Any:
        """The newest verdict that is kept."""
        return self.run("log", "--json").json[-1]

    @property
    def site(self) -> Path:
        """The live site-packages."""
        return site_packages(generation(self.env))


def _difference(before: Mapping[str, object] | Tree, after: Mapping[str, object] | Tree) -> list[str]:
    return [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
