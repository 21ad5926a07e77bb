"""How a distribution's own tests, as installed, are run. Reads files of a generation, runs nothing.

Three habits are known: a package `tests` or `test` that runs as a program,
modules for pytest, and modules for unittest. What is run are the files of the
generation that is tried, by path or by module name, and no configuration but
what the distribution itself installs: a pytest.ini or conftest.py of the
project that the environment lies in has no say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from siteswap.checks import dependencies
from siteswap.generation import Generation
from siteswap.manifest import Distribution

_EXTRAS = ("test", "tests", "testing")
"""What distributions call the extra with what their tests need."""
_PACKAGES = ("tests", "test")
_PYTEST = ("pytest",)
_PATTERNS = "test_*.py *_test.py"
"""Names of test modules, as pytest has them."""
_ODD_NAME = "tests.py"
"""Django's habit; but elsewhere a module of another meaning (jinja2's), so its text must say so too."""
_CONFIGURATIONS = {
    "pytest.toml": "",
    "pytest.ini": "",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}
"""Files that configure pytest, and what in them says so."""

_IMPORTS_PYTEST = re.compile(r"^\s*(?:import\s[^#\n]*\b_?pytest\b|from\s+_?pytest\b)", re.MULTILINE)
# `test_suite` and `test_main` are functions that older runners call: no tests in themselves.
_FOR_PYTEST = re.compile(
    r"^(?:async\s+)?def\s+test_(?!suite\b|main\b)|^class\s+Test\w*\s*(?:\(\s*(?:object)?\s*\))?\s*:",
    re.MULTILINE,
)
_FOR_UNITTEST = re.compile(r"\b(?:unittest|doctest|TestCase|load_tests)\b|^class\s+\w*Test", re.MULTILINE)
_FUNCTION = re.compile(r"^(?:async\s+)?def\s+test_\w*\(\)", re.MULTILINE)
_LOADS_ITSELF = re.compile(r"^def\s+load_tests\b", re.MULTILINE)


@dataclass(frozen=True)
class Suite:
    """How to run the tests of one distribution."""

    runner: Literal["main", "pytest", "unittest"]
    words: tuple[str, ...]
    """What follows `python`; more words for the runner may follow them."""
    requirements: tuple[str, ...] = ()
    """What it needs besides and the generation does not have."""


def find(generation: Generation, distribution: Distribution) -> Suite | None:
    """The distribution's tests; None where it installs none.

    An editable install has its files elsewhere, so it has no tests here. Raises
    SiteswapError (damaged) where its RECORD cannot be read.
    """
    files = _Files(generation, distribution)
    found = _as_main(files) or _as_pytest(files) or _as_unittest(files)
    if found is None:
        return None
    needs = [*found.requirements, *_extra_lines(generation, distribution)]
    return replace(found, requirements=tuple(_unsatisfied(generation, needs)))


def explain(suite: Suite, status: int) -> str:
    """What an exit status other than 0 of the suite means, in one line."""
    meanings = _MEANINGS.get(suite.runner, {})
    return f"{meanings.get(status, 'its tests failed')} ({' '.join(suite.words[:2])}: exit status {status})"


_MEANINGS = {
    "pytest": {
        2: "its tests could not be loaded",
        3: "pytest itself failed",
        4: "pytest could not start",
        5: "pytest found none of its tests to run",
    },
    "unittest": {
        2: "unittest could not start",
        5: "unittest found none of its tests to run",
    },
}


class _Files:
    """Those files of a distribution that lie in directories of site-packages, by their paths below it."""

    def __init__(self, generation: Generation, distribution: Distribution) -> None:
        self.generation = generation
        self.name = distribution.name
        self.paths: dict[str, Path] = {}
        schemes = generation.interpreter.schemes
        for row in generation.record(distribution):
            for site in {schemes["purelib"], schemes["platlib"]}:
                relative = row.path.removeprefix(f"{site}/")
                if relative != row.path and "/" in relative and self._owns(row.path):
                    self.paths[relative] = generation.layout.path / row.path

    def _owns(self, path: str) -> bool:
        """Whether the file that stands at a path is this distribution's: two may claim one."""
        overlaps = self.generation.manifest.overlaps
        return path not in overlaps or self.generation.files.get(path) == self.name

    @cached_property
    def code(self) -> list[str]:
        """Python sources that can be imported by name."""
        return sorted(
            path
            for path in self.paths
            if path.endswith(".py") and all(part.isidentifier() for part in path[:-3].split("/"))
        )

    @cached_property
    def tests(self) -> list[str]:
        """Those of them that are test modules."""
        return [path for path in self.code if self._is_test(path)]

    def _is_test(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        if name == _ODD_NAME:
            return self.any_has([path], _IMPORTS_PYTEST, _FUNCTION, _FOR_UNITTEST)
        return name.startswith("test_") or name.endswith("_test.py")

    @cached_property
    def tops(self) -> list[str]:
        """Top packages with code in them, the one with the distribution's name first."""
        found = {path.partition("/")[0] for path in self.code}
        return sorted(found, key=lambda top: (canonicalize_name(top) != self.name, top))

    @cached_property
    def for_pytest(self) -> bool:
        """Whether it has tests that only pytest runs. A conftest.py means something to nobody else."""
        if not self.tests:
            return False
        conftest = any(path.endswith("/conftest.py") for path in self.code)
        return conftest or self.any_has(self.tests, _IMPORTS_PYTEST, _FOR_PYTEST)

    def below(self, directory: str) -> list[str]:
        """Code below a directory."""
        return [path for path in self.code if path.startswith(f"{directory}/")]

    def text(self, path: str) -> str:
        """The text of a file; nothing where it is gone."""
        try:
            return self.generation.fs.read(self.paths[path]).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def any_has(self, paths: Iterable[str], *patterns: re.Pattern[str]) -> bool:
        """Whether one of the files has one of the patterns; reads no more of them than it must."""
        return any(pattern.search(self.text(path)) for path in paths for pattern in patterns)

    @cached_property
    def shared(self) -> set[str]:
        """Directories with code of other distributions in or below them."""
        found: set[str] = set()
        sites = {self.generation.interpreter.schemes[name] for name in ("purelib", "platlib")}
        for path, owner in self.generation.files.items():
            site = next((site for site in sites if path.startswith(f"{site}/")), None)
            if owner == self.name or site is None or not path.endswith(".py"):
                continue
            parent = path[len(site) + 1 :].rpartition("/")[0]
            while parent and parent not in found:
                found.add(parent)
                parent = parent.rpartition("/")[0]
        return found

    @property
    def site(self) -> Path:
        """The site-packages directory."""
        return self.generation.layout.path / self.generation.interpreter.purelib


def _as_main(files: _Files) -> Suite | None:
    """A test package that is a program."""
    code = set(files.code)
    for package in (f"{top}/{name}" for top in files.tops for name in _PACKAGES):
        if f"{package}/__main__.py" in code:
            uses_pytest = files.any_has(files.below(package), _IMPORTS_PYTEST)
            return Suite("main", ("-m", package.replace("/", ".")), _PYTEST if uses_pytest else ())
    return None


# -- pytest -------------------------------------------------------------------------------------------


def _as_pytest(files: _Files) -> Suite | None:
    """Tests that only pytest runs; it is to obey nothing but the distribution's own files.

    By path rather than by `--pyargs`: only then are the options known that a
    conftest.py adds, and only then does a namespace package count. Without
    `-c` and `--confcutdir` pytest would take pytest.ini and conftest.py of
    whatever lies above, and would skip everything: it passes over directories
    with a pyvenv.cfg, and over those whose names begin with a dot.
    """
    if not files.for_pytest:
        return None
    tops = [top for top in files.tops if any(path.startswith(f"{top}/") for path in files.tests)]
    own = _configuration(files, tops)
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-c", str(own or "/dev/null")]
    words += ["--rootdir", str(files.site), "--confcutdir", str(files.site / tops[0])]
    if own is None:
        odd = any(path.endswith(f"/{_ODD_NAME}") for path in files.tests)
        words += ["-o", f"python_files={_PATTERNS} {_ODD_NAME}"] if odd else []
    if any(f"{top}/__init__.py" not in files.paths for top in tops):
        # Else a module below a namespace package would be imported by another name than its own.
        words += ["-o", "consider_namespace_packages=true"]
    words += [str(files.site / root) for top in tops for root in _roots(files, top)]
    return Suite("pytest", tuple(words), _PYTEST)


def _configuration(files: _Files, tops: Sequence[str]) -> Path | None:
    """The file by which the distribution configures pytest, if it installs one."""
    for top in tops:
        for directory in (top, *(f"{top}/{name}" for name in _PACKAGES)):
            for name, mark in _CONFIGURATIONS.items():
                path = f"{directory}/{name}"
                if path in files.paths and mark in files.text(path):
                    return files.paths[path]
    return None


def _roots(files: _Files, directory: str) -> list[str]:
    """The directories and files at or below `directory` that hold its tests and nobody else's."""
    if directory not in files.shared:
        return [directory]
    depth = directory.count("/") + 2
    inside = [path for path in files.tests if path.startswith(f"{directory}/")]
    inner = dict.fromkeys("/".join(path.split("/")[:depth]) for path in inside)
    return [root for path in inner for root in ([path] if path in files.paths else _roots(files, path))]


# -- unittest -----------------------------------------------------------------------------------------


def _as_unittest(files: _Files) -> Suite | None:
    """Test modules by their names.

    `discover` would want one directory with an `__init__.py` in every directory
    below, and one pattern. A package that says itself how it is loaded stands for what is in it.
    """
    if not files.any_has(files.tests, _FOR_UNITTEST):
        return None
    loaders = [
        path.rpartition("/")[0]
        for path in files.code
        if path.endswith("/__init__.py") and path.split("/")[-2] in _PACKAGES and _loads(files, path)
    ]
    paths = [path for path in files.tests if not any(path.startswith(f"{item}/") for item in loaders)]
    modules = sorted(path.removesuffix(".py").replace("/", ".") for path in [*loaders, *paths])
    return Suite("unittest", ("-m", "unittest", *modules))


def _loads(files: _Files, path: str) -> bool:
    return _LOADS_ITSELF.search(files.text(path)) is not None


# -- what they need -----------------------------------------------------------------------------------


def _extra_lines(generation: Generation, distribution: Distribution) -> list[str]:
    """What the distribution's extras for tests ask for here, references to other extras of its followed."""
    lines: list[str] = []
    pending, seen = list(_EXTRAS), set[str]()
    while pending:
        extra = pending.pop(0)
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in _of_extra(generation, distribution, extra):
            if canonicalize_name(requirement.name) == distribution.name:
                pending += [canonicalize_name(name) for name in requirement.extras]
            else:
                requirement.marker = None
                lines.append(str(requirement))
    return list(dict.fromkeys(lines))


def _of_extra(generation: Generation, distribution: Distribution, extra: str) -> Iterable[Requirement]:
    """Requirements that hold with an extra, and not without it."""
    markers = generation.interpreter.markers
    for line in distribution.requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({**markers, "extra": ""}):
            continue
        if marker.evaluate({**markers, "extra": extra}):
            yield requirement


def _unsatisfied(generation: Generation, lines: Sequence[str]) -> list[str]:
    """Those requirements that what is installed does not satisfy, extras and what they need included."""
    installed = generation.manifest.distributions
    before = {str(item) for item in dependencies.check(installed, generation.interpreter)}
    missing = []
    for line in lines:
        # As if something were installed that asks for it.
        asking = Distribution("siteswap: tests", "", "", "", False, (line,))
        found = dependencies.check([*installed, asking], generation.interpreter)
        if {str(item) for item in found} - before:
            missing.append(line)
    return missing
