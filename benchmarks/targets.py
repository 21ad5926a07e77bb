"""The table of targets: what is held against what, and at most how much. Values in, values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.measure import difference, ratio, summary
from benchmarks.results import Report, Run, Series


class Comparison(Protocol):
    """Makes a figure of what a run measured; None where it did not measure that."""

    @property
    def unit(self) -> str:
        """Of the figure."""

    def figure(self, run: Run) -> float | None:
        """The figure."""

    def work(self, run: Run, /) -> tuple[float | None, float | None]:
        """The same of processor time and of system calls, where there are some."""


def _values(series: Series, what: str) -> list[float]:
    if what == "values":
        return series.values
    if what == "cpu":
        return series.cpu
    found = series.calls if what == "calls" else series.memory
    return [] if found is None else [found]


@dataclass(frozen=True)
class Times:
    """How many times theirs ours is."""

    ours: tuple[str, int, str]
    """Case, size, contender."""
    theirs: tuple[str, int, str]
    what: str = "values"
    unit: str = "×"

    def figure(self, run: Run) -> float | None:
        """Median of the rounds' ratios."""
        return self._of(run, self.what)

    def work(self, run: Run) -> tuple[float | None, float | None]:
        """The same of processor time and system calls."""
        return (None, None) if self.what != "values" else (self._of(run, "cpu"), self._of(run, "calls"))

    def _of(self, run: Run, what: str) -> float | None:
        ours, theirs = run.find(*self.ours), run.find(*self.theirs)
        if ours is None or theirs is None:
            return None
        ours_, theirs_ = _values(ours, what), _values(theirs, what)
        return ratio(ours_, theirs_) if ours_ and theirs_ else None


@dataclass(frozen=True)
class More:
    """How many milliseconds more ours takes."""

    ours: tuple[str, int, str]
    theirs: tuple[str, int, str]
    unit: str = "ms"

    def figure(self, run: Run) -> float | None:
        """Median of the rounds' differences."""
        ours, theirs = run.find(*self.ours), run.find(*self.theirs)
        if ours is None or theirs is None or not ours.values:
            return None
        return 1000 * difference(ours.values, theirs.values)

    def work(self, run: Run) -> tuple[float | None, float | None]:
        """Of processor time, the ratio; too short for a difference."""
        return Times(self.ours, self.theirs).work(run)


@dataclass(frozen=True)
class Median:
    """The middle of the samples."""

    ours: tuple[str, int, str]
    unit: str
    scale: float = 1.0

    def figure(self, run: Run) -> float | None:
        """Scaled to the unit."""
        found = run.find(*self.ours)
        return None if found is None or not found.values else self.scale * summary(found.values).median

    def work(self, _run: Run) -> tuple[float | None, float | None]:
        """Nothing: it is no comparison."""
        return None, None


@dataclass(frozen=True)
class Total:
    """The sum of the samples."""

    ours: tuple[str, int, str]
    unit: str

    def figure(self, run: Run) -> float | None:
        """All of them."""
        found = run.find(*self.ours)
        return None if found is None or not found.values else sum(found.values)

    def work(self, _run: Run) -> tuple[float | None, float | None]:
        """Nothing: it is no comparison."""
        return None, None


@dataclass(frozen=True)
class Worst:
    """The highest of several."""

    of: tuple[Comparison, ...]

    @property
    def unit(self) -> str:
        """That of all of them."""
        return self.of[0].unit

    def figure(self, run: Run) -> float | None:
        """The highest that was measured."""
        found = [value for item in self.of if (value := item.figure(run)) is not None]
        return max(found, default=None)

    def work(self, run: Run) -> tuple[float | None, float | None]:
        """The highest of each."""
        cpu, calls = zip(*(item.work(run) for item in self.of), strict=True)
        return _highest(cpu), _highest(calls)


def _highest(found: Sequence[float | None]) -> float | None:
    return max((value for value in found if value is not None), default=None)


@dataclass(frozen=True)
class Target:
    """One line of the table."""

    work: str
    against: str
    bound: float
    comparison: Comparison


@dataclass(frozen=True)
class Judged:
    """A target, and what came out in each run."""

    target: Target
    figures: tuple[float | None, ...]
    cpu: float | None
    calls: float | None

    @property
    def met(self) -> bool | None:
        """Whether every run kept to the bound; None where not every run measured it."""
        found = [value for value in self.figures if value is not None]
        if len(found) < len(self.figures) or not found:
            return None
        return max(found) <= self.target.bound


def judge(report: Report) -> list[Judged]:
    """Every target."""
    judged = []
    for target in targets(report.sizes, report.main, report.heavy):
        figures = tuple(target.comparison.figure(run) for run in report.runs)
        works = [target.comparison.work(run) for run in report.runs]
        judged.append(
            Judged(
                target, figures, _highest([cpu for cpu, _ in works]), _highest([calls for _, calls in works])
            )
        )
    return judged


def targets(sizes: Sequence[int], main: int, heavy: Sequence[int]) -> list[Target]:
    """All lines, for environments of these sizes."""
    least, most = min(sizes), max(sizes)
    bare, uv, synced = "bare interpreter", "uv", "uv, then sync"

    def times(case: str, size: int, other: str, what: str = "values") -> Times:
        return Times((case, size, "siteswap"), (case, size, other), what)

    def growth(case: str) -> Times:
        return Times((case, most, "siteswap"), (case, least, "siteswap"))

    grown = f"{most} against {least}"
    holders = ("siteswap install", "siteswap rollback")
    upgrade, young = f"upgrade of one distribution in {main}", "nothing to recycle yet"
    held = tuple(Median(("held", size, who), "ms", 1000.0) for size in sizes for who in holders)
    memory = "peak memory of an install"
    plain = "plain venv"
    heaviest, lightest = ("heavy", max(heavy), "siteswap"), ("heavy", min(heavy), "siteswap")
    return [
        Target(
            f"fresh environment of {main} from a lock, warm caches, durable",
            "uv venv + uv pip sync, not durable", 0.7, times("fresh", main, uv),
        ),
        Target("the same, empty caches, wheels on disk", uv, 1.2, times("fresh-cold", main, uv)),
        Target(upgrade, uv, 2.0, times("upgrade", main, uv)),
        Target(upgrade, synced, 1.0, times("upgrade", main, synced)),
        Target(f"{upgrade}, {young}", uv, 2.0, times("upgrade-young", main, uv)),
        Target(f"{upgrade}, {young}", synced, 1.0, times("upgrade-young", main, synced)),
        Target("growth of that upgrade", grown, 1.3, growth("upgrade")),
        Target(f"growth of that upgrade, {young}", grown, 1.3, growth("upgrade-young")),
        Target(
            f"sync of {main} that already are as the lock says",
            "start of a bare interpreter", 3.0, times("same", main, bare),
        ),
        Target(
            "rollback, any size",
            "start of a bare interpreter", 4.0, Worst(tuple(times("rollback", size, bare) for size in sizes)),
        ),
        Target("growth of the rollback", grown, 1.1, growth("rollback")),
        Target("how long the flip lock is held, any size", "", 5.0, Worst(held)),
        Target(
            "starts that fail during changes",
            "", 0.0, Worst(tuple(Total(("starts-failed", main, who), "starts") for who in holders)),
        ),
        Target(
            "start of a program", plain, 0.7, More(("start", main, "siteswap"), ("start", main, plain))
        ),
        Target("imports of a heavy stack", plain, 1.02, times("imports", main, plain)),
        Target(f"{memory}, fresh, warm caches", uv, 1.5, times("fresh", main, uv, "memory")),
        Target(f"{memory}, fresh, empty caches", uv, 1.5, times("fresh-cold", main, uv, "memory")),
        Target(f"{memory}, upgrade of one", uv, 1.5, times("upgrade", main, uv, "memory")),
        Target(
            "growth of that memory with the largest wheel",
            f"{max(heavy)} MiB against {min(heavy)} MiB", 1.1, Times(heaviest, lightest, "memory"),
        ),
        Target("disk of one more kept generation, a file", "", 1536, Median(("disk", main, "siteswap"), "B")),
        Target(f"{upgrade}, default checks", "pip", 1.0, times("upgrade-checked", main, "pip")),
    ]  # fmt: skip
