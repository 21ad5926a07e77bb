"""Run projects' own test suites in an environment and in a plain venv, from one lock, and compare them.

    python tests/upstream.py numpy --part lib,ma     a part of it
    python tests/upstream.py pytest --python 3.12    another Python
    python tests/upstream.py                         what there is

The same files, the same options, the same variables; what differs between the two is told test by test.
docs/upstream-suites.md has what came out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from uv import find_uv_bin

from conftest import INTERPRETERS

Outcomes = Counter[tuple[str, str]]
"""How often each (test, outcome) came up: a test can be there twice."""


@dataclass(frozen=True)
class Suite:
    """One project's own tests, and what they need."""

    requirements: tuple[str, ...]
    package: str | None = None
    """The importable package that the tests are installed in; None where only the sdist has them."""
    sdist: str | None = None
    """The distribution whose sdist has them; they run in a fresh copy of it."""
    editable: str | None = None
    """That sdist is what is installed, as an editable with these extras; the tests run in its directory."""
    options: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()
    """The parts that run unless others are asked for: below the package, or paths in the sdist."""


SUITES = {
    "numpy": Suite(
        ("numpy", "pytest", "hypothesis", "setuptools", "meson", "ninja"),
        package="numpy",
        options=("-m", "not slow"),
    ),
    "pandas": Suite(
        ("pandas", "numpy", "pytest", "hypothesis", "pyarrow"),
        package="pandas",
        options=("-m", "not slow and not network and not db"),
        usual=("tests/api", "tests/config", "tests/dtypes", "tests/util", "tests/tslibs", "tests/internals",
               "tests/reductions", "tests/reshape", "tests/series", "tests/window/test_api.py"),
    ),
    "pyarrow": Suite(
        ("pyarrow", "pandas", "numpy", "pytest", "hypothesis", "cffi", "pytz", "fsspec"), package="pyarrow"
    ),
    "pytest": Suite(
        ("pytest", "attrs", "hypothesis", "mock", "pygments", "requests", "setuptools", "xmlschema",
         "argcomplete"),
        sdist="pytest",
        usual=("testing",),
    ),
    "setuptools": Suite(
        ("pytest-cov",),
        sdist="setuptools",
        editable="[test,core]",
        options=("-m", "not uses_network"),
        usual=("setuptools/tests",),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """What came out on both sides."""

    versions: str
    plain: Outcomes
    ours: Outcomes
    seconds: tuple[float, float]

    @property
    def differences(self) -> list[str]:
        """Tests that ended otherwise, one a line."""
        lines = [
            f"plain venv only: {name}: {how} (×{n})" for (name, how), n in (self.plain - self.ours).items()
        ]
        lines += [
            f"environment only: {name}: {how} (×{n})" for (name, how), n in (self.ours - self.plain).items()
        ]
        return sorted(lines, key=lambda line: line.partition(": ")[2])

    def __str__(self) -> str:
        lines = [f"with {self.versions}"]
        for title, outcomes, seconds in zip(
            ("plain venv", "environment"), (self.plain, self.ours), self.seconds, strict=True
        ):
            counts = Counter[str]()
            for (_, how), number in outcomes.items():
                counts[how] += number
            told = ", ".join(f"{number:,} {how}" for how, number in sorted(counts.items()))
            lines.append(f"{title:12} {outcomes.total():,} tests in {seconds:.0f} s: {told}")
        return "\n".join([*lines, f"differences: {len(self.differences)}", *self.differences])


def compare(
    name: str, python: Path, place: Path, parts: Sequence[str] = (), options: Sequence[str] = ()
) -> Compared:
    """Run the suite of that name (or `parts` of it) on both sides, in `place`, an empty directory."""
    suite = SUITES[name]
    requirements, source = list(suite.requirements), None
    if suite.sdist:
        source = _sdist(suite.sdist, python, place)
        if not suite.editable:
            # The wheel of the very version that the tests are from.
            requirements.append(f"{suite.sdist}=={source.name.rpartition('-')[2]}")
    tree = place / "source"
    if source is not None:
        shutil.copytree(source, tree, symlinks=True)
    lines = "\n".join([*requirements, *([f"-e {tree}{suite.editable}"] if suite.editable else [])])
    lock = place / "pylock.toml"
    _run([find_uv_bin(), "pip", "compile", "-q", "-", "--format", "pylock.toml", "-o", lock,
          "--python", python], stdin=lines)  # fmt: skip
    plain, ours = place / "plain", place / "environment"
    _run([find_uv_bin(), "venv", "-q", "--no-project", "--python", python, plain])
    _run([find_uv_bin(), "pip", "sync", "-q", "--python", plain / "bin/python", lock])
    _run([sys.executable, "-m", "siteswap", "create", ours, "--python", python])
    _run([sys.executable, "-m", "siteswap", "sync", "-e", ours, lock])
    chosen = list(parts or suite.usual)
    targets = ["--pyargs", *_modules(suite.package, chosen)] if suite.package else chosen
    words = [*suite.options, *options, *targets]
    locked = {item["name"]: item.get("version") for item in tomllib.loads(lock.read_text())["packages"]}
    told = ", ".join(f"{key} {version}" for key, version in locked.items() if version and key in _told(suite))
    results = []
    for side in (plain, ours):
        started = time.monotonic()
        work = tree if suite.editable else place / f"work-{side.name}"
        if suite.editable:
            shutil.rmtree(work)
        if source is None:
            work.mkdir()
        else:
            shutil.copytree(source, work, symlinks=True)
        results.append((_outcomes(side, work, words, place), time.monotonic() - started))
    return Compared(told, results[0][0], results[1][0], (results[0][1], results[1][1]))


def _modules(package: str, parts: Sequence[str]) -> list[str]:
    """Parts of a package as modules."""
    inner = [part.removesuffix(".py").replace("/", ".") for part in parts]
    return [f"{package}.{part}" for part in inner] or [package]


def _told(suite: Suite) -> set[str]:
    return {"numpy", "pandas", "pyarrow", "pytest", "setuptools", suite.sdist or ""}


def _outcomes(prefix: Path, work: Path, words: Sequence[str], place: Path) -> Outcomes:
    """What pytest says in that virtual environment, activated, in a directory."""
    report, home = place / f"{prefix.name}.xml", place / f"home-{prefix.name}"
    home.mkdir()
    doomed = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME"}
    variables = {name: value for name, value in os.environ.items() if name not in doomed}
    variables |= {
        "VIRTUAL_ENV": str(prefix), "PATH": f"{prefix}/bin:{os.environ['PATH']}", "HOME": str(home),
        "TMPDIR": str(home), "PYTHONHASHSEED": "0", "CI": "1",
    }  # fmt: skip
    with (place / f"{prefix.name}.log").open("w") as log:
        done = subprocess.run(
            [prefix / "bin/python", "-m", "pytest", "-q", f"--junitxml={report}", "-o", _LONG_NAMES, *words],
            cwd=work, env=variables, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    if not report.exists():
        raise SystemExit(f"pytest ended with {done.returncode}; see {log.name}")
    return read(report, {str(prefix): "PREFIX", str(work): "WORK", str(home): "HOME"})


def read(report: Path, paths: dict[str, str]) -> Outcomes:
    """The outcomes in pytest's XML, the side's own paths and addresses in memory taken out of the names."""
    found: Outcomes = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        for path, word in paths.items():
            name = name.replace(path, word)
        name = re.sub(r"PREFIX/\.siteswap/generations/\d+", "PREFIX", name)
        name = re.sub(r"\b0x[0-9a-f]{6,}\b", "0x…", name)
        how = next((child.get("type") or child.tag for child in case if child.tag in _BAD), None)
        found[name, _SAID.get(how or "", how or "passed")] += 1
    return found


_LONG_NAMES = "parametrize_long_str_id_strategy=legacy"
"""Else pytest numbers a parameter of over 100 characters, which a generation's path may have."""
_BAD = ("failure", "error", "skipped")
_SAID = {"failure": "failed", "pytest.skip": "skipped", "pytest.xfail": "xfailed"}


def _sdist(name: str, python: Path, place: Path) -> Path:
    """The newest sdist of that name, unpacked."""
    lock = place / "pylock.sdist.toml"
    _run([find_uv_bin(), "pip", "compile", "-q", "-", "--format", "pylock.toml", "-o", lock, "--no-deps",
          "--python", python], stdin=name)  # fmt: skip
    (package,) = tomllib.loads(lock.read_text())["packages"]
    with urllib.request.urlopen(package["sdist"]["url"]) as answer:
        content = answer.read()
    assert hashlib.sha256(content).hexdigest() == package["sdist"]["hashes"]["sha256"]
    archive = place / "sdist.tar.gz"
    archive.write_bytes(content)
    with tarfile.open(archive) as opened:
        opened.extractall(place / "unpacked", filter="data")
    (found,) = (place / "unpacked").iterdir()
    return found


def _run(command: Sequence[str | Path], stdin: str | None = None) -> None:
    done = subprocess.run([*map(str, command)], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=sorted(SUITES), nargs="?")
    parser.add_argument("--part", help="parts of it, with commas between: subpackages, or paths in the sdist")
    parser.add_argument("--python", default="3.12", choices=sorted(INTERPRETERS))
    parser.add_argument("--place", type=Path, help="an empty directory to work in, which stays")
    parser.add_argument("options", nargs="*", help="further options of pytest, after --")
    given = parser.parse_args()
    if given.suite is None:
        print("\n".join(f"{name}: {' '.join(suite.usual) or 'all of it'}" for name, suite in SUITES.items()))
        return 0
    place = given.place or Path(tempfile.mkdtemp(prefix="upstream-"))
    place.mkdir(exist_ok=True, parents=True)
    result = compare(
        given.suite, INTERPRETERS[given.python], place.resolve(), given.part.split(",") if given.part else (),
        given.options,
    )  # fmt: skip
    print(f"{given.suite} on Python {given.python}, {result}")
    if given.place is None and not result.differences:
        shutil.rmtree(place)
    return bool(result.differences)


if __name__ == "__main__":
    sys.exit(main())
