"""The command: stage wheels, measure everything in interleaved rounds, write results, charts and page."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from uv import find_uv_bin

from benchmarks import machine, page, stage
from benchmarks.cases import Case, Cases, Scale
from benchmarks.contenders import clean_variables
from benchmarks.measure import Mode, RunError, Runner, can_count_calls
from benchmarks.results import Report, Result, Run, Series
from benchmarks.targets import judge

DOCS = Path(__file__).parent.parent / "docs"
SIZES, QUICK_SIZES = (10, 50, 130, 500), (2, 3)
QUIET = 1.0
"""A load up to which a machine counts as one that does nothing else."""


def main() -> int:
    """The command line; returns the exit status."""
    chosen = _parser().parse_args()
    if chosen.redraw:
        results = chosen.out / page.RESULTS
        found = Report.from_json(json.loads(results.read_text("utf-8"))) if results.exists() else None
        page.write(chosen.out, found)
        return 0
    part = chosen.quick or chosen.only or chosen.sizes or chosen.no_counts
    if chosen.out == DOCS and (part or machine.load() > QUIET):
        print(
            "figures for docs/ need a full run on a machine that does nothing else (load below "
            f"{QUIET:g}); name another place with --out",
            file=sys.stderr,
        )
        return 2
    if chosen.work:
        chosen.work.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="siteswap-benchmarks-", dir=chosen.work))
    try:
        for report in _measure(chosen, root):
            page.write(chosen.out, report)  # after each run: hours of work must not hang on the last minute
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for item in judge(report):
        figures = " ".join("–" if figure is None else f"{figure:.2f}" for figure in item.figures)
        print(f"{_MET[item.met]:12}  {figures:>8} (≤ {item.target.bound:g} {item.target.comparison.unit})  "
              f"{item.target.work} {item.target.against and f'/ {item.target.against}'}")  # fmt: skip
    print(chosen.out / page.PAGE)
    return 0


_QUICK = Scale(recycling=False, changes=2)
_MET = {True: "met", False: "NOT MET", None: "not measured"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="everything so many times (1)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds in a run (20, quick 3)")
    parser.add_argument(
        "--quick", action="store_true", help="a minute on small synthetic wheels: does it work?"
    )
    parser.add_argument(
        "--only", action="append", metavar="CASE", help="just this case: fresh, upgrade, same, …"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help=f"other sizes than {SIZES}; {stage.REAL_SIZE} is one",
    )
    parser.add_argument(
        "--out", type=Path, default=DOCS, metavar="DIR", help="where page and results go (docs)"
    )
    parser.add_argument("--stage", type=Path, metavar="DIR", help="where wheels are kept for later runs")
    parser.add_argument("--work", type=Path, metavar="DIR", help="on which disk (that for temporary files)")
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing: page and charts from the results"
    )
    parser.add_argument("--no-counts", action="store_true", help="neither system calls nor memory")
    return parser


def _measure(chosen: argparse.Namespace, root: Path) -> Iterator[Report]:
    """After each run, what all runs so far have found. Raises RunError."""
    (root / "home").mkdir()
    staged = (chosen.stage or root / "stage").absolute()
    if chosen.quick:
        where = stage.quick(staged, QUICK_SIZES, Path(find_uv_bin()))
    else:
        where = stage.real(staged, sorted({*(chosen.sizes or SIZES), stage.REAL_SIZE}))
    rounds = chosen.rounds or (3 if chosen.quick else 20)
    variables = clean_variables(root)
    modes = [Mode.TIME]
    if not chosen.no_counts:
        modes += [Mode.MEMORY, *([Mode.CALLS] if can_count_calls() else [])]
    runs: list[Run] = []
    for number in range(chosen.runs):
        work = root / f"run-{number}"
        work.mkdir()
        runner = Runner(work, variables, settle=not chosen.quick)
        cases = [
            case
            for case in Cases(where, runner, work, _QUICK if chosen.quick else Scale()).all()
            if not chosen.only or case.name in chosen.only
        ]
        before = machine.load()
        results = _run(cases, runner, rounds, modes, warm=not chosen.quick)
        runs.append(Run([before, machine.load()], results))
        shutil.rmtree(work)
        yield Report(
            made=datetime.now(UTC).isoformat(timespec="minutes"),
            machine=machine.describe(root),
            versions=_versions(where),
            sizes=list(where.sizes),
            main=where.main,
            heavy=list(where.heavy),
            synthetic=where.synthetic,
            rounds=rounds,
            quick=chosen.quick,
            runs=runs,
        )


def _versions(where: stage.Stage) -> dict[str, str]:
    found = {
        "siteswap": machine.version_of(sys.executable, "-m", "siteswap"),
        "uv": machine.version_of(where.uv),
    }
    pips = sorted(where.wheels.glob("pip-*.whl"))
    return {**found, **({"pip": pips[-1].name.split("-")[1]} if pips else {})}


def _run(
    cases: Sequence[Case], runner: Runner, rounds: int, modes: Sequence[Mode], *, warm: bool
) -> list[Result]:
    """All cases: every round once through all of them. With `warm`, once before, which does not count."""
    results = [
        Result(case.name, case.size, case.title, case.unit, {who: Series() for who in case.contenders})
        for case in cases
    ]
    finest = max(case.rounds for case in cases)
    ticks = max(1, round(rounds * finest))
    for mode in modes:
        runner.mode = mode
        turns = range(-1 if warm else 0, ticks) if mode is Mode.TIME else range(1)
        for tick in turns:
            for case, result in zip(cases, results, strict=True):
                if mode in case.modes and _is_due(case.rounds / finest, tick):
                    _say(f"{mode.value}, {max(tick, 0)}/{ticks}: {case.title}")
                    _once(case, result, mode, tick)
    _say("")
    return results


def _is_due(share: float, tick: int) -> bool:
    """Whether a case that is measured in a part of all ticks is in this one: evenly, and in the first."""
    return tick < 0 or tick == 0 or int((tick + 1) * share) > max(1, int(tick * share))


def _once(case: Case, result: Result, mode: Mode, tick: int) -> None:
    """Everybody in a case, beginning with another one each time."""
    order = list(case.contenders)
    turn = max(tick, 0) % len(order)
    for who in [*order[turn:], *order[:turn]]:
        sample, series = case.contenders[who](), result.contenders[who]
        if mode is Mode.CALLS:
            series.calls = sample.value
        elif mode is Mode.MEMORY:
            series.memory = sample.value
        elif tick >= 0:
            series.values.append(sample.value)
            series.cpu += [sample.cpu] if sample.cpu is not None else []
            series.of += [sample.of] if sample.of is not None else []


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:100]}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
