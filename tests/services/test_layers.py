"""An overlay file system, as container engines stack it: what works, what a generation costs in a layer."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Ran, Siteswap
from services.serving import until
from siteswap import collect
from siteswap.fs import FileSystem
from wheelmaker import wheel

LEASE = ".siteswap/generations/4/.generation/lease"
"""Of the generation that is current when the layer ends."""


class Layers:
    """Directories stacked as an image's layers are; the top one takes what is written."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, root / "mounted"
        self._layers: list[Path] = []

    def _mount(self, *words: str | Path) -> bool:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            return False
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0

    def start(self) -> None:
        """Mount the first layer; skips where that cannot be."""
        self.root.mkdir()
        # Memory, for a file system that may lie below: an overlay cannot lie on another.
        if not self._mount("-t", "tmpfs", "-o", "size=1g", "layers", self.root):
            pytest.skip("mounting needs root, and a kernel or container that lets it")
        self.top.mkdir()
        self._stack()

    def commit(self) -> Path:
        """End the layer, as an image's build does after each instruction; gives it, and begins another."""
        subprocess.run(["umount", self.top], check=True)
        ended = self._layers[-1]
        self._stack()
        return ended

    def _stack(self) -> None:
        number = len(self._layers)
        lower = ":".join(str(layer) for layer in reversed(self._layers)) or str(self.root / "none")
        new, work = self.root / f"layer{number}", self.root / f"work{number}"
        for path in (new, work, self.root / "none"):
            path.mkdir(exist_ok=True)
        options = f"lowerdir={lower},upperdir={new},workdir={work},redirect_dir=off"
        if not self._mount("-t", "overlay", "-o", options, "overlay", self.top):
            pytest.skip("this kernel has no overlay file system")
        self._layers.append(new)

    def written(self) -> int:
        """Bytes of files in the layer on top."""
        found = {}
        for directory, _, names in os.walk(self._layers[-1]):
            for name in names:
                status = os.lstat(os.path.join(directory, name))
                found[status.st_ino] = status.st_size
        return sum(found.values())

    def end(self) -> None:
        """Unmount everything."""
        for path in (self.top, self.root):
            subprocess.run(["umount", "-l", path], capture_output=True, check=False)


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Layers]:
    """One layer, empty."""
    layers = Layers(tmp_path / "layers")
    try:
        layers.start()
        yield layers
    finally:
        layers.end()


@pytest.fixture
def shipped(layers: Layers, siteswap: Siteswap, wheels: Path) -> Path:
    """An environment in a lower layer: a large distribution and a small one, and a spare to be recycled."""
    wheel(wheels, "large", files={f"large/m{n}.py": f"#{n}\n" + "x = 1\n" * 5000 for n in range(50)})
    for version in ("1", "2", "3", "4"):
        wheel(wheels, "small", version)
    env = layers.top / "env"
    siteswap("create", env).ok()
    for wanted in ("large", "small==1", "small==2"):
        siteswap("install", "-e", env, "--no-check", "--no-index", "-f", wheels, wanted).ok()
    return env


@pytest.fixture
def install(siteswap: Siteswap, shipped: Path, wheels: Path) -> Siteswap:
    """Install into the environment that was shipped."""

    def run(*words: str | Path, **_: object) -> Ran:
        return siteswap("install", "-e", shipped, "--no-index", "-f", wheels, "--no-check", *words).ok()

    return run


def test_every_command_works_on_layers(
    layers: Layers, siteswap: Siteswap, shipped: Path, install: Siteswap
) -> None:
    """Above an environment of a lower layer too, whose directories the kernel does not move."""
    unpublished = shipped / ".siteswap/generations/9"  # what a crash left
    (unpublished / "lib").mkdir(parents=True)
    layers.commit()
    install("small==3")
    assert not unpublished.exists()
    siteswap("rollback", "-e", shipped).ok()
    siteswap("uninstall", "-e", shipped, "--no-check", "small").ok()
    time.sleep(collect.GRACE_SECONDS)
    found = siteswap("gc", "-e", shipped, "--keep", "0").ok()
    assert "lower layer" in found.out, "what cannot be moved stays, and that is no failure"
    assert "lower layer" in siteswap("gc", "-e", shipped, "--keep", "0").ok().out
    siteswap("doctor", "-e", shipped).ok()
    siteswap("create", layers.top / "another").ok()


def test_a_spare_in_a_lower_layer_is_no_hindrance(
    layers: Layers, siteswap: Siteswap, shipped: Path, install: Siteswap
) -> None:
    """Such a directory cannot be recycled: the candidate is made afresh."""
    # What collecting after a commit leaves.
    (shipped / ".siteswap/generations/3").rename(shipped / ".siteswap/spare")
    (shipped / ".siteswap/generations/3").symlink_to("../current")
    layers.commit()
    install("small==3")
    install("small==4")
    siteswap("gc", "-e", shipped).ok()
    siteswap("doctor", "-e", shipped).ok()


def test_what_a_generation_costs_in_a_layer(layers: Layers, shipped: Path, install: Siteswap) -> None:
    """The first one above another layer copies all that it links to; the next one there shares that."""
    whole = layers.written()
    layers.commit()
    before = layers.written()
    install("small==3")
    first = layers.written() - before
    install("small==4")
    second = layers.written() - before - first
    print(f"{whole} bytes in the lower layer; above it {first}, then {second}")
    assert first > 0.9 * whole, "docs/services.md says that a copy is to be paid for"
    assert second < 0.2 * whole


def test_a_lease_holds_when_its_file_is_copied_up(
    layers: Layers, siteswap: Siteswap, shipped: Path, install: Siteswap
) -> None:
    """A lock taken on a file of a lower layer counts for the copy in the layer on top."""
    layers.commit()
    fs, lease = FileSystem(), shipped / LEASE
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [shipped / "bin/python", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as before:
        assert before.stdout is not None
        assert before.stdin is not None
        assert before.stdout.readline() == "ready\n"
        below = lease.stat()
        os.utime(lease)
        copies = list(layers.root.glob("layer1/env/.siteswap/generations/4/.generation/lease"))
        assert copies, "it was not copied up: nothing was tried"
        assert fs.lock(lease, make=False) is None, "the lock of a running program was lost"
        assert lease.stat().st_ino == below.st_ino
        install("small==3")
        assert before.pid in {item["pid"] for item in siteswap("ps", "-e", shipped, "--json").json}
        time.sleep(collect.GRACE_SECONDS)
        assert "used by" in siteswap("gc", "-e", shipped, "--keep", "0").ok().out
        before.stdin.close()
    until(lambda: fs.lock(lease, make=False) is not None)
