"""docs/performance.md and its charts, made from results. Nothing in them is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.charts import Bar, Group, draw, short
from benchmarks.measure import summary
from benchmarks.results import Report, Result, Series
from benchmarks.targets import Judged, judge

PAGE, RESULTS, CHARTS = "performance.md", "performance.json", "performance"

_HEAD = (Path(__file__).parent / "page.md").read_text("utf-8")
"""What stands above all figures."""

_EMPTY = """
There are no figures yet: the command has not been run on a quiet machine.
"""


@dataclass(frozen=True)
class _Chart:
    name: str
    title: str
    cases: tuple[str, ...]


_DRAWN = (
    _Chart("fresh", "A fresh environment from a lock, warm caches", ("fresh",)),
    _Chart("fresh-cold", "A fresh environment from a lock, empty caches", ("fresh-cold",)),
    _Chart("upgrade", "Upgrade of one distribution", ("upgrade", "upgrade-young")),
    _Chart("small", "Nothing new, and rollback", ("same", "rollback")),
    _Chart("checked", "Upgrade of one distribution, default checks", ("upgrade-checked",)),
    _Chart("programs", "Programs in the environment", ("start", "imports")),
    _Chart("other", "Byte-code of everything, checks of everything, pip",
           ("fresh-compiled", "fresh-checked", "fresh-pip")),
)  # fmt: skip


def write(directory: Path, report: Report | None) -> None:
    """Write page, charts and results into a directory; without results a page that says how they are made."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / PAGE).write_text(page(report), "utf-8")
    if report is None:
        return
    (directory / RESULTS).write_text(json.dumps(report.to_json(), indent=1) + "\n", "utf-8")
    (directory / CHARTS).mkdir(exist_ok=True)
    for name, text in charts(report).items():
        (directory / CHARTS / f"{name}.svg").write_text(text, "utf-8")


def page(report: Report | None) -> str:
    """The page."""
    if report is None:
        return _HEAD + _EMPTY
    drawn = charts(report)
    pictures = "".join(
        f"\n![{item.title}]({CHARTS}/{item.name}.svg)\n" for item in _DRAWN if item.name in drawn
    )
    caption = "Bars are medians, the lines on them go from the lower to the upper quartile."
    return "".join([
        _HEAD, _about(report), "\n## Targets\n\n", _targets(judge(report), len(report.runs)),
        "\n## Charts\n\n", caption, "\n", pictures, "\n## Everything\n\n", _everything(report),
    ])  # fmt: skip


def charts(report: Report) -> dict[str, str]:
    """Texts of the charts, by name; of all runs together."""
    found = {}
    for chart in _DRAWN:
        results = [item for item in _pooled(report) if item.name in chart.cases]
        if results:
            groups = [_group(item) for item in results]
            found[chart.name] = draw(chart.title, "ms", groups)
    return found


def _about(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    load = ", ".join(f"{before:.1f} → {after:.1f}" for before, after in (run.load for run in report.runs))
    lines = [
        "\n## This run\n",
        f"- {report.made}; {versions}; {len(report.runs)} runs of {report.rounds} rounds"
        + (", **quick: its figures say nothing**" if report.quick else ""),
        *(f"- {name}: {text}" for name, text in report.machine.items()),
        f"- load before and after each run: {load}",
        f"- distributions: {', '.join(map(str, report.sizes))}"
        + (f"; of the largest {report.synthetic} are synthetic" if report.synthetic else ""),
    ]
    return "\n".join(lines) + "\n"


def _targets(judged: Sequence[Judged], runs: int) -> str:
    head = ["work", "against", "at most", *(f"run {number + 1}" for number in range(runs)), "met",
            "processor time", "system calls"]  # fmt: skip
    rows = []
    for item in judged:
        unit = item.target.comparison.unit
        met = {True: "yes", False: "**no**", None: "not measured"}[item.met]
        rows.append([
            item.target.work, item.target.against, f"{item.target.bound:g} {unit}",
            *(_figure(figure, unit) for figure in item.figures), met,
            _figure(item.cpu, "×"), _figure(item.calls, "×"),
        ])  # fmt: skip
    about = "Ratios unless another unit is given; of processor time and system calls the worst run.\n\n"
    return about + _table(head, rows)


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} ×" if unit == "×" else f"{short(value)} {unit}"


def _everything(report: Report) -> str:
    head = ["case", "who", "median", "quartiles", "lowest, highest", "samples", "processor time"]
    head += ["system calls", "memory"]
    rows = []
    for item in _pooled(report):
        title = item.title
        for who, series in item.contenders.items():
            cells = ["–"] * 4
            if series.values:
                found = summary(series.values)
                scaled = [
                    _scaled(value, item.unit)
                    for value in (found.median, found.low, found.high, found.least, found.most)
                ]
                cells = [f"{scaled[0]} {_unit(item.unit)}", f"{scaled[1]} – {scaled[2]}",
                         f"{scaled[3]}, {scaled[4]}", str(found.count)]  # fmt: skip
                if series.of:
                    cells[0] = f"{sum(series.values):.0f} of {sum(series.of)}"
            rows.append([
                title, who, *cells,
                f"{_scaled(summary(series.cpu).median, 's')} ms" if series.cpu else "–",
                f"{series.calls:,.0f}" if series.calls is not None else "–",
                f"{series.memory / (1 << 20):.0f} MiB" if series.memory is not None else "–",
            ])  # fmt: skip
            title = ""
    return _table(head, rows)


def _scaled(value: float, unit: str) -> str:
    return short(value * 1000 if unit == "s" else value)


def _unit(unit: str) -> str:
    return "ms" if unit == "s" else unit


def _pooled(report: Report) -> list[Result]:
    """The results of all runs together."""
    first, *others = report.runs
    pooled = []
    for item in first.results:
        contenders = {}
        for who, series in item.contenders.items():
            more = [found for run in others if (found := run.find(item.name, item.size, who)) is not None]
            every = [series, *more]
            contenders[who] = Series(
                [value for one in every for value in one.values],
                [value for one in every for value in one.cpu],
                [value for one in every for value in one.of],
                max((one.calls for one in every if one.calls is not None), default=None),
                max((one.memory for one in every if one.memory is not None), default=None),
            )
        pooled.append(Result(item.name, item.size, item.title, item.unit, contenders))
    return pooled


def _group(item: Result) -> Group:
    bars = [
        Bar(who, summary([1000 * value for value in series.values]), who.startswith("siteswap"))
        for who, series in item.contenders.items()
        if series.values
    ]
    return Group(item.title, tuple(bars))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
