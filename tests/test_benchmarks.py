"""The benchmarks run from end to end, and what they write is what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

# The benchmarks are no part of what is installed.
sys.path.append(str(ROOT))

from benchmarks import measure, page, stage, synthetic, targets  # noqa: E402
from benchmarks.charts import Bar, Group, draw  # noqa: E402
from benchmarks.results import Report, Result, Run, Series  # noqa: E402

CASES = ("fresh", "same", "held", "starts-failed", "heavy")


def report(ours: list[float], theirs: list[float], *, runs: int = 1) -> Report:
    """Results of one case: that of an upgrade."""
    series = {"siteswap": Series(ours, ours, [], 300.0, 64.0), "uv": Series(theirs, theirs, [], 100.0, 32.0)}
    result = Result("upgrade", 130, "upgrade of one distribution in 130", "s", series)
    return Report(
        "2026-01-01T00:00+00:00", {"memory": "1 GiB"}, {"uv": "1"}, [10, 130, 500], 130, [10, 400], 370, 3,
        False, [Run([0.1, 0.2], [result]) for _ in range(runs)],
    )  # fmt: skip


def test_quick_from_end_to_end(tmp_path: Path) -> None:
    """Real processes on synthetic wheels: every kind of measurement, results, page and charts."""
    only = [word for case in CASES for word in ("--only", case)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", *only, "--out", tmp_path / "out",
         "--work", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PIP_NO_INDEX": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "out" / page.RESULTS).read_text()
    found = Report.from_json(json.loads(text))
    assert json.loads(text) == found.to_json()
    assert found.quick
    (run,) = found.runs
    assert {result.name for result in run.results} == {*CASES}
    for result in run.results:
        for who, series in result.contenders.items():
            case = f"{result.name} {result.size} {who}"
            if result.name == "heavy":
                assert (series.memory or 0) > 1 << 20, case
                continue
            assert len(series.values) == (2 if result.name == "same" else 1), case
            if result.unit == "s":
                assert all(0 < value < 60 for value in series.values), case
            if result.name in ("fresh", "same"):
                assert all(0 < value < 60 for value in series.cpu), case
                assert (series.memory or 0) > 1 << 20, case
                assert not measure.can_count_calls() or (series.calls or 0) > 100, case
    started = run.find("starts-failed", found.main, "siteswap install")
    assert started is not None
    assert started.values == [0.0]
    assert started.of[0] > 0
    written = (tmp_path / "out" / page.PAGE).read_text()
    assert "its figures say nothing" in written
    assert "not measured" in written  # what was left out is not called met
    drawn = sorted((tmp_path / "out" / page.CHARTS).glob("*.svg"))
    assert {path.stem for path in drawn} == {"fresh", "small"}
    for path in drawn:
        assert f"({page.CHARTS}/{path.name})" in written
        root = ElementTree.parse(path).getroot()
        assert len(root.findall("{http://www.w3.org/2000/svg}rect")) >= 4
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]  # nothing of it is left


def test_figures_in_docs_are_those_of_a_run() -> None:
    """The page in docs/ is what the command draws from the results beside it: nothing is typed by hand."""
    results = DOCS / page.RESULTS
    made = Report.from_json(json.loads(results.read_text("utf-8"))) if results.exists() else None
    assert (DOCS / page.PAGE).read_text("utf-8") == page.page(made)
    if made is not None:
        assert not made.quick
        for name, text in page.charts(made).items():
            assert (DOCS / page.CHARTS / f"{name}.svg").read_text("utf-8") == text


def test_quick_figures_do_not_reach_docs() -> None:
    """They would look like figures of a run."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "full run" in done.stderr


@pytest.mark.parametrize(
    ("ours", "met"), [([0.1, 0.2, 0.3], True), ([0.1, 0.5, 0.3], True), ([0.5] * 3, False)]
)
def test_a_target_is_judged_by_the_rounds(ours: list[float], met: bool) -> None:
    """The ratio is the median of the rounds' ratios; at the bound it is met."""
    judged = [item for item in targets.judge(report(ours, [0.1, 0.1, 0.15], runs=2)) if item.figures[0]]
    assert {item.target.comparison.unit for item in judged} == {"×"}
    upgrade = next(item for item in judged if item.target.against == "uv" and "peak" not in item.target.work)
    assert upgrade.target.bound == 2.0
    assert upgrade.met is met
    assert upgrade.calls == 3.0


def test_a_target_must_be_met_in_every_run() -> None:
    """One run that keeps to it does not make up for one that does not; one that lacks it says nothing."""
    found = report([0.1], [0.1])
    found.runs += report([0.9], [0.1]).runs
    upgrade = next(item for item in targets.judge(found) if item.figures[0] is not None)
    assert upgrade.figures == (1.0, 9.0)
    assert upgrade.met is False
    found.runs[1] = Run([0.0, 0.0], [])
    assert next(item for item in targets.judge(found) if item.figures[0] is not None).met is None


def test_charts_are_xml_whatever_the_names(tmp_path: Path) -> None:
    """Titles with special characters, no spread, nothing at all."""
    bar = Bar("a < b & c", measure.summary([0.0]), True)
    for groups in (
        [],
        [Group("<&>", (bar,))],
        [Group("x", (bar, Bar("y", measure.summary([1.0, 2e6]), False)))],
    ):
        ElementTree.fromstring(draw("<title> & more", "ms", groups))


def test_synthetic_wheels_are_the_same_every_time(tmp_path: Path) -> None:
    """From a fixed seed, so that runs of different days compare."""
    for where in (tmp_path / "a", tmp_path / "b"):
        where.mkdir()
        synthetic.small(where, 3)
        synthetic.heavy(where, 1)
    made = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert len(made[0]) == 2
    assert made[0] == made[1]


def test_the_pinned_set() -> None:
    """As many as the sizes say, each once, the distribution that is upgraded among the first."""
    pins = [line for line in stage.LIST.read_text().splitlines() if not line.startswith("#")]
    assert len(pins) == len({pin.partition("==")[0] for pin in pins}) == stage.REAL_SIZE
    assert f"{stage.REAL.name}=={stage.REAL.versions[0]}" in pins[:10]
