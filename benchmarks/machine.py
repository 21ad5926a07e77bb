"""What the benchmarks ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def describe(directory: Path) -> dict[str, str]:
    """Processor, memory, kernel, Python, and the file system of a directory."""
    return {
        "processors": f"{os.cpu_count()} × {_line('/proc/cpuinfo', 'model name') or platform.machine()}",
        "memory": _memory(),
        "system": f"Linux {platform.release()}",
        "file system": _file_system(directory),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def load() -> float:
    """Processes that want a processor, on average of the last minute."""
    return os.getloadavg()[0]


def version_of(*command: str | Path) -> str:
    """What a program says of its version: its second word."""
    done = subprocess.run([*map(str, command), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def _memory() -> str:
    kibibytes = int((_line("/proc/meminfo", "MemTotal") or "0 kB").split()[0])
    return f"{kibibytes / (1 << 20):.0f} GiB"


def _line(path: str, name: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        before, _, after = line.partition(":")
        if before.strip() == name:
            return after.strip()
    return None


def _file_system(directory: Path) -> str:
    """Kind and options of the mount that the directory is on: the longest path that leads there."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        place = Path(where.encode().decode("unicode_escape"))
        if directory.resolve().is_relative_to(place) and len(where) >= len(best[0]):
            best = (where, f"{kind} ({options})")
    return best[1]
