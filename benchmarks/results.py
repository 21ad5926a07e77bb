"""What a run found, as values and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1


@dataclass
class Series:
    """What was measured of one contender in one case."""

    values: list[float] = field(default_factory=list)
    """One a round, in the case's unit."""
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor time, one a round; empty where nothing is to be said of it."""
    of: list[int] = field(default_factory=list)
    """Of how many the values are, where they count something."""
    calls: float | None = None
    """System calls."""
    memory: float | None = None
    """Bytes, at most."""


@dataclass
class Result:
    """What was measured in one case."""

    name: str
    size: int
    title: str
    unit: str
    contenders: dict[str, Series]


@dataclass
class Run:
    """All cases, once through."""

    load: list[float]
    """Processes that wanted a processor, before and after: the averages of a minute."""
    results: list[Result]

    def find(self, name: str, size: int, contender: str) -> Series | None:
        """What was measured of somebody; None where nothing was."""
        for result in self.results:
            if (result.name, result.size) == (name, size):
                return result.contenders.get(contender)
        return None


@dataclass
class Report:
    """Everything that the page needs."""

    made: str
    machine: dict[str, str]
    versions: dict[str, str]
    sizes: list[int]
    main: int
    heavy: list[int]
    synthetic: int
    """How many of the largest size are synthetic."""
    rounds: int
    quick: bool
    runs: list[Run]

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; times to the microsecond."""
        return {"format": FORMAT, **_rounded(asdict(self))}

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Report:
        """The other way. Raises ValueError for another format, TypeError or KeyError for none at all."""
        data = dict(found)
        if data.pop("format") != FORMAT:
            raise ValueError("these results have another format: run the benchmarks again")
        data["runs"] = [
            Run(
                run["load"],
                [
                    Result(**{**item, "contenders": {n: Series(**s) for n, s in item["contenders"].items()}})
                    for item in run["results"]
                ],
            )
            for run in data["runs"]
        ]
        return Report(**data)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
