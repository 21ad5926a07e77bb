"""What the import check of one changed distribution adds, against twice the time of importing it plus 100 ms.

Each distribution is changed from one version to another and back in an environment that holds nothing but it
and what it needs, everything in the caches: once with the checks on, once without. After the change without
checks it is imported as a user would, by a fresh process: at first without byte-code, as the check finds it
too, then with. What is compared is interleaved, so that a busy machine slows all of it alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Subject:
    """A distribution that is changed, and nothing else with it."""

    name: str
    versions: tuple[str, str]
    """Two that want the same of others."""
    needs: tuple[str, ...] = ()
    """Pins of what it needs, so that a change of it is one of nothing else."""
    module: str = ""

    @property
    def imported(self) -> str:
        """What is imported of it."""
        return self.module or self.name


SUBJECTS = (
    Subject("click", ("8.1.7", "8.1.8")),
    Subject("requests", ("2.32.3", "2.32.4")),
    Subject("flask", ("3.1.0", "3.1.1")),
    Subject("pydantic", ("2.11.5", "2.11.7")),
    Subject("sqlalchemy", ("2.0.40", "2.0.41")),
    Subject("numpy", ("2.2.5", "2.2.6")),
    Subject("pandas", ("2.2.2", "2.2.3"), ("numpy==2.2.6",)),
)

FACTOR, PLUS = 2.0, 0.1
"""The limit: so many times the import, plus so many seconds."""

COLUMNS = {
    "start": "python -c ''",
    "warm": "import, byte-code there",
    "cold": "import, byte-code absent and written",
    "row": "the import check, as the verdict has it",
    "checked": "the whole command",
    "unchecked": "the whole command with --no-check",
}
"""What is measured, in seconds of wall time."""


@dataclass
class Measured:
    """Samples of one distribution."""

    subject: Subject
    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def median(self, column: str) -> float:
        """The middle of the samples."""
        return statistics.median(self.samples[column])

    def limit(self, column: str) -> float:
        """What the check may add, going by one of the imports."""
        return FACTOR * self.median(column) + PLUS

    def to_json(self) -> dict[str, Any]:
        """Everything, for scripts."""
        return {
            "name": self.subject.name,
            "versions": self.subject.versions,
            "samples": {name: [round(value, 4) for value in found] for name, found in self.samples.items()},
            "medians": {name: round(self.median(name), 4) for name in COLUMNS},
            "limit": round(self.limit("cold"), 4),
            "ok": self.median("row") <= self.limit("cold"),
        }


class Bench:
    """Where it happens: a directory with a cache, and one environment at a time."""

    def __init__(self, root: Path, python: str | None) -> None:
        self.root = root
        self.python = python
        doomed = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "SITESWAP_GENERATION"}
        self.variables = {name: value for name, value in os.environ.items() if name not in doomed}
        self.variables["SITESWAP_CACHE_DIR"] = str(root / "cache")

    def siteswap(self, *words: str | Path) -> tuple[float, str]:
        """Run a command: how long it took, and what it printed."""
        return self.timed(sys.executable, "-m", "siteswap", *words)

    def timed(self, *command: str | Path) -> tuple[float, str]:
        """Run a program to its end; it has to succeed."""
        begin = time.perf_counter()
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, check=False, env=self.variables,
            cwd=self.root, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return seconds, done.stdout

    def round(self, subject: Subject, number: int) -> Iterator[tuple[str, float]]:
        """Each column once, in a fresh environment: an old one recycles generations, byte-code and all."""
        first, second = subject.versions
        env = self.root / "env"
        self.siteswap("create", env, *(("--python", self.python) if self.python else ()))
        self.siteswap("install", "-e", env, *subject.needs, f"{subject.name}=={first}")
        self.timed(env / "bin/python", "-c", f"import {subject.imported}")
        if number % 2 == 0:
            yield from self.checked(env, subject, second)
            yield from self.unchecked(env, subject, first)
        else:
            yield from self.unchecked(env, subject, second)
            yield from self.checked(env, subject, first)
        shutil.rmtree(env)

    def checked(self, env: Path, subject: Subject, version: str) -> Iterator[tuple[str, float]]:
        """Change to a version with the checks on."""
        seconds, out = self.siteswap("install", "-e", env, "--json", f"{subject.name}=={version}")
        result = json.loads(out)
        if [change["name"] for change in result["changes"]] != [subject.name]:
            raise SystemExit(f"not only {subject.name} has changed: {result['changes']}")
        yield "checked", seconds
        (row,) = (row for row in result["verdict"]["checks"] if row["check"] == "imports")
        if row["outcome"] != "passed":
            raise SystemExit(f"{subject.name}: {row}")
        yield "row", row["seconds"]

    def unchecked(self, env: Path, subject: Subject, version: str) -> Iterator[tuple[str, float]]:
        """Change to a version without, and import it."""
        python, load = env / "bin/python", f"import {subject.imported}"
        yield (
            "unchecked",
            self.siteswap("install", "-e", env, "--json", "--no-check", f"{subject.name}=={version}")[0],
        )
        if list(env.glob(f"lib/python3.*/site-packages/{subject.imported}/__pycache__/*.pyc")):
            raise SystemExit(f"{subject.name} has byte-code that nobody made")
        yield "cold", self.timed(python, "-c", load)[0]
        yield "warm", self.timed(python, "-c", load)[0]
        yield "start", self.timed(python, "-c", "")[0]


def table(measured: list[Measured]) -> str:
    """Medians in milliseconds; in brackets the lowest and highest of what is compared."""
    head = ["distribution", "start", "warm", "cold", "check", "limit", "", "command", "--no-check", "added"]
    rows = [head]
    for item in measured:
        ms = {name: f"{item.median(name) * 1000:.0f}" for name in COLUMNS}
        spread = {
            name: f"{ms[name]} [{_ms(min(found))}–{_ms(max(found))}]" for name, found in _compared(item)
        }
        rows.append(
            [
                f"{item.subject.name} {item.subject.versions[1]}",
                ms["start"],
                ms["warm"],
                spread["cold"],
                spread["row"],
                _ms(item.limit("cold")),
                "ok" if item.median("row") <= item.limit("cold") else "OVER",
                ms["checked"],
                ms["unchecked"],
                _ms(item.median("checked") - item.median("unchecked")),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _compared(item: Measured) -> list[tuple[str, list[float]]]:
    return [(name, item.samples[name]) for name in ("cold", "row")]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="how often each is measured (7)")
    parser.add_argument("--python", metavar="PY", help="the interpreter of the environments")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure only this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    chosen = parser.parse_args()
    subjects = [item for item in SUBJECTS if not chosen.only or item.name in chosen.only]
    root = Path(tempfile.mkdtemp(prefix="siteswap-benchmark-"))
    try:
        bench = Bench(root, chosen.python)
        found = [Measured(item) for item in subjects]
        for number in range(-1, chosen.rounds):  # the first fills the caches
            for item in found:
                for column, seconds in bench.round(item.subject, number):
                    if number >= 0:
                        item.samples[column].append(seconds)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    version = platform.python_version()
    print(f"milliseconds, medians of {chosen.rounds} rounds; {os.cpu_count()} processors, Python {version}")
    print(f"limit = {FACTOR:g} × cold + {PLUS * 1000:g}\n")
    print(table(found))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([item.to_json() for item in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
