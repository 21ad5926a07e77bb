"""Processes run to their end: time, processor time, system calls, memory. And what is made of samples."""

from __future__ import annotations

import contextlib
import enum
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Command = tuple[str, ...]

_LOOK_SECONDS = 0.002


class RunError(Exception):
    """A process that is measured did not succeed: there is nothing to compare."""


class Mode(enum.Enum):
    """What is measured of a process."""

    TIME = "time"
    CALLS = "calls"
    MEMORY = "memory"


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    value: float
    """In the unit of its case: seconds of wall time, bytes, …"""
    cpu: float | None = None
    """Seconds of processor time, user and system, of the processes and all that they waited for."""
    of: int | None = None
    """How many there were, where the value counts some of them."""


class Runner:
    """Runs what is measured, in a clean environment of variables. What it does not measure it may run too."""

    def __init__(self, root: Path, variables: Mapping[str, str], *, settle: bool = True) -> None:
        """`root` is the working directory. With `settle` what was written is synced before a measurement."""
        self.root = root
        self.settle = settle
        self.variables = dict(variables)
        self.mode = Mode.TIME

    def measure(self, commands: Iterable[Sequence[str | Path]], **more: str) -> Sample:
        """Run commands one after the other and measure all of it, with `more` variables. Raises RunError."""
        words = [tuple(map(str, command)) for command in commands]
        if self.settle:
            os.sync()
        if self.mode is Mode.CALLS:
            return Sample(sum(self._calls(command, more) for command in words))
        if self.mode is Mode.MEMORY:
            return Sample(max(self._memory(command, more) for command in words))
        found = [self._time(command, more) for command in words]
        return Sample(sum(item.value for item in found), sum(item.cpu or 0.0 for item in found))

    def run(self, *command: str | Path, **more: str) -> None:
        """Run something that is not measured. Raises RunError."""
        self._time(tuple(map(str, command)), more)

    def _time(self, command: Command, more: Mapping[str, str]) -> Sample:
        with tempfile.TemporaryFile() as said:
            begin = time.perf_counter()
            process = self._start(command, more, said.fileno())
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            _require_success(command, process.returncode, said.read())
        return Sample(seconds, usage.ru_utime + usage.ru_stime)

    def _calls(self, command: Command, more: Mapping[str, str]) -> float:
        """System calls of the process and its children, by strace."""
        with tempfile.NamedTemporaryFile("r", suffix=".strace") as counted:
            traced = ("strace", "-f", "-c", "-U", "calls,name", "-o", counted.name, *command)
            self._time(traced, more)
            return float(_total_calls(counted.read()))

    def _memory(self, command: Command, more: Mapping[str, str]) -> float:
        """The most memory that the process and its children had together, in bytes of resident pages.

        Looked at every two milliseconds. Not by wait4: there each process begins with what its parent had
        before the exec, and what two processes have at the same time does not add up.
        """
        with tempfile.TemporaryFile() as said:
            process = self._start(command, more, said.fileno())
            done, peak = threading.Event(), [0]

            def look() -> None:
                highest: dict[int, int] = {}
                while not done.is_set():
                    alive = _descendants(process.pid)
                    now = {pid: _status(pid) for pid in alive}
                    for pid, (_, most) in now.items():
                        highest[pid] = max(most, highest.get(pid, 0))
                    peak[0] = max(peak[0], sum(current for current, _ in now.values()), *highest.values(), 0)
                    time.sleep(_LOOK_SECONDS)

            watcher = threading.Thread(target=look)
            watcher.start()
            try:
                status = process.wait()
            finally:
                done.set()
                watcher.join()
            said.seek(0)
            _require_success(command, status, said.read())
        return float(peak[0])

    def _start(self, command: Command, more: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.root,
            env={**self.variables, **more},
        )  # fmt: skip


def can_count_calls() -> bool:
    """Whether strace is there and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-c", "true"], capture_output=True, check=False).returncode == 0


def _require_success(command: Command, status: int, said: bytes) -> None:
    if status:
        raise RunError(f"exit status {status}: {' '.join(command)}\n{said.decode(errors='replace')[-4000:]}")


def _total_calls(text: str) -> int:
    found = re.search(r"^\s*(\d+)\s+total\s*$", text, re.MULTILINE)
    if found is None:
        raise RunError(f"strace has another form of summary here:\n{text[-1000:]}")
    return int(found.group(1))


def _descendants(pid: int) -> list[int]:
    """That process and all below it that are alive."""
    found, todo = [], [pid]
    while todo:
        this = todo.pop()
        found.append(this)
        with contextlib.suppress(OSError):  # it ended meanwhile
            for task in os.listdir(f"/proc/{this}/task"):
                todo += map(int, Path(f"/proc/{this}/task/{task}/children").read_text().split())
    return found


def _status(pid: int) -> tuple[int, int]:
    """Bytes of resident memory, now and at most; 0 for a process that ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^Vm(RSS|HWM):\s+(\d+) kB", text, re.M)}
    return sizes.get("RSS", 0), sizes.get("HWM", 0)


@dataclass(frozen=True)
class Summary:
    """The middle of some samples, and how far they spread."""

    median: float
    low: float
    """A quarter of the samples is lower."""
    high: float
    """A quarter is higher."""
    least: float
    most: float
    count: int


def summary(values: Sequence[float]) -> Summary:
    """What is shown of samples; there is at least one."""
    if len(values) == 1:
        return Summary(values[0], values[0], values[0], values[0], values[0], 1)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(statistics.median(values), low, high, min(values), max(values), len(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times theirs ours is: the median of each round's ratio, where the machine was the same."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How much more ours is: the median of the differences of each round."""
    return statistics.median(one - other for one, other in zip(ours, theirs, strict=True))
