"""How a distribution's own tests are found, and that they run as they are found, by the real runners."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siteswap import plan
from siteswap.checks.suites import Suite, explain, find
from siteswap.fs import FileSystem
from siteswap.generation import Generation
from siteswap.interpreter import probe
from siteswap.layout import GenerationLayout, Number
from siteswap.manifest import Distribution, Interpreter, Manifest

FS = FileSystem()

USES_PYTEST = (
    "import pytest\n\n@pytest.fixture\ndef one():\n    return 1\n\ndef test_it(one):\n    assert one == 1\n"
)
PLAIN = "def test_it():\n    assert True\n"
CASE = (
    "import unittest\n\nclass Case(unittest.TestCase):\n    def test_it(self):\n        self.assertTrue(1)\n"
)


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    """The interpreter that runs the tests."""
    return probe(Path(sys.executable), FS)


class Made:
    """A generation made by hand, below a project and a directory whose name begins with a dot."""

    def __init__(self, root: Path, interpreter: Interpreter) -> None:
        self.project = root
        self.path = root / "project" / ".venv" / ".siteswap" / "generations" / "1"
        self.site = self.path / interpreter.purelib
        self.site.mkdir(parents=True)
        (self.path / "pyvenv.cfg").write_text("")
        self.interpreter = interpreter
        self.distributions: list[Distribution] = []
        self.overlaps: list[str] = []
        self.scratch = root / "scratch"
        self.scratch.mkdir()

    def add(
        self, name: str, files: Mapping[str, str], *, version: str = "1.0", requires: tuple[str, ...] = ()
    ) -> Distribution:
        """Install a distribution of these files."""
        rows = []
        for path, text in files.items():
            target = self.site / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            rows.append(plan.row_of(f"{self.interpreter.purelib}/{path}", text.encode()))
        info = f"{self.interpreter.purelib}/{name}-{version}.dist-info"
        (self.path / info).mkdir()
        (self.path / info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (self.path / info / "RECORD").write_bytes(plan.write_record(rows, info))
        self.distributions.append(Distribution(name, version, name, info, True, requires))
        return self.distributions[-1]

    @property
    def generation(self) -> Generation:
        """What was made so far."""
        manifest = Manifest(
            Number(1), "", "", None, self.interpreter, (), tuple(self.distributions), False, 0, "passed",
            overlaps=tuple(f"{self.interpreter.purelib}/{path}" for path in self.overlaps),
        )  # fmt: skip
        return Generation(FS, GenerationLayout(self.path), manifest)

    def find(self, name: str) -> Suite | None:
        """The suite of a distribution."""
        generation = self.generation
        distribution = generation.manifest.find(name)
        assert distribution is not None
        return find(generation, distribution)

    def suite(self, name: str) -> Suite:
        """The suite of a distribution that has one."""
        found = self.find(name)
        assert found is not None
        return found

    def run(self, suite: Suite, *more: str) -> tuple[int, str]:
        """Run a suite in the empty scratch directory; neither that nor the generation may be written to."""
        before = sorted(self.path.rglob("*"))
        done = subprocess.run(
            [sys.executable, *suite.words, *more], cwd=self.scratch, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert sorted(self.path.rglob("*")) == before
        assert list(self.scratch.iterdir()) == []
        return done.returncode, done.stdout + done.stderr

    def passes(self, suite: Suite, count: int, *more: str) -> None:
        """The suite runs just so many tests, and they pass."""
        status, output = self.run(suite, *more)
        assert status == 0, output
        assert f"{count} passed" in output or f"Ran {count} test" in output, output


@pytest.fixture
def made(tmp_path: Path, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A generation with nothing in it."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Made(tmp_path, interpreter)


# -- no tests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"app/__init__.py": ""},
        {"app.py": "", "test_app.py": PLAIN},  # at the top nobody knows whose it is
        {"jinja/__init__.py": "", "jinja/tests.py": "def test_odd(value):\n    return value % 2\n"},
        {"app/__init__.py": "", "app/ab_test.py": "def split():\n    pass\n"},
        {"app/__init__.py": "", "app/templates/my-project/test_x.py": PLAIN},  # data
        {"app/__init__.py": "", "app/conftest.py": "", "app/tests/__init__.py": ""},
    ],
)
def test_distribution_without_tests(made: Made, files: dict[str, str]) -> None:
    """Where no tests are installed there is no suite; what only looks like one is none."""
    made.add("app", files)
    assert made.find("app") is None


# -- a package that runs as a program -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["tests", "test"])
def test_package_that_is_a_program(made: Made, name: str) -> None:
    """`pkg.tests` with a `__main__` goes before every other habit."""
    made.add(
        "app",
        {
            "app/__init__.py": "",
            "app/conftest.py": "",
            f"app/{name}/__init__.py": "",
            f"app/{name}/__main__.py": "import sys\nprint('ran 1 test', sys.argv[1:])\n",
            f"app/{name}/test_a.py": CASE,
        },
    )
    suite = made.suite("app")
    assert suite == Suite("main", ("-m", f"app.{name}"))
    assert made.run(suite, "-x") == (0, "ran 1 test ['-x']\n")


def test_program_that_calls_pytest(made: Made) -> None:
    """Where the program's tests import pytest, pytest is needed."""
    made.add("app", {"app/__init__.py": "", "app/tests/__main__.py": "import sys, pytest\n"})
    assert made.suite("app") == Suite("main", ("-m", "app.tests"), ("pytest",))


def test_package_of_the_distributions_name_comes_first(made: Made) -> None:
    """Of several packages with such a program, the one that is called like the distribution counts."""
    made.add("my-app", {f"{name}/tests/__main__.py": "" for name in ("another", "my_app")})
    assert made.suite("my-app").words == ("-m", "my_app.tests")


# -- pytest -------------------------------------------------------------------------------------------


def test_pytest_runs_what_is_installed(made: Made) -> None:
    """Tests in `pkg/tests` and deeper, with conftest.py, options of its own, relative imports and helpers."""
    made.add(
        "app",
        {
            "app/__init__.py": "ANSWER = 42\n",
            "app/conftest.py": (
                "import pytest\n"
                "def pytest_addoption(parser):\n    parser.addoption('--answer', default=42)\n"
                "@pytest.fixture\ndef answer(request):\n"
                "    return int(request.config.getoption('--answer'))\n"
            ),
            "app/tests/__init__.py": "",
            "app/tests/test_a.py": "from .. import ANSWER\ndef test(answer):\n    assert answer == ANSWER\n",
            "app/sub/__init__.py": "",
            "app/sub/tests/__init__.py": "",
            "app/sub/tests/test_a.py": "def test_a(answer):\n    assert __name__ == 'app.sub.tests.test_a'\n",
            "app/sub/b_test.py": "def test_b(tmp_path):\n    (tmp_path / 'x').write_text('')\n",
        },
    )
    suite = made.suite("app")
    assert suite.runner == "pytest"
    assert suite.words[:4] == ("-m", "pytest", "-p", "no:cacheprovider")
    assert suite.requirements == ("pytest",)
    made.passes(suite, 3)
    assert made.run(suite, "--answer", "41")[0] == 1


def test_nothing_of_the_surroundings_counts(made: Made) -> None:
    """Configuration and conftest.py above the distribution's own packages have no say."""
    bad = "raise RuntimeError('not mine')\n"
    for path in [made.project / "project", made.path.parent, made.path, made.site]:
        (path / "conftest.py").write_text(bad)
        (path / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
        (path / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--nonsense'\n")
    made.add("app", {"app/__init__.py": "", "app/tests/test_a.py": PLAIN})
    made.passes(made.suite("app"), 1)


def test_own_configuration_counts(made: Made) -> None:
    """What the distribution installs to configure pytest is obeyed."""
    made.add(
        "app",
        {
            "app/__init__.py": "",
            "app/pyproject.toml": "[tool.pytest.ini_options]\npython_files = 'test_*.py check_*.py'\n",
            "app/check_more.py": PLAIN,
            "app/tests/test_a.py": PLAIN,
        },
    )
    made.passes(made.suite("app"), 2)


def test_configuration_of_another_kind_does_not_count(made: Made) -> None:
    """A pyproject.toml that says nothing on pytest does not configure it."""
    made.add(
        "app", {"app/__init__.py": "", "app/pyproject.toml": "[project]\n", "app/tests/test_a.py": PLAIN}
    )
    assert "/dev/null" in made.suite("app").words


def test_tests_without_init(made: Made) -> None:
    """A directory of tests that is no package may have helpers beside them, as pytest has it."""
    made.add(
        "app",
        {
            "app/__init__.py": "",
            "app/tests/helper.py": "VALUE = 1\n",
            "app/tests/test_a.py": "import helper\ndef test_a():\n    assert helper.VALUE == 1\n",
        },
    )
    made.passes(made.suite("app"), 1)


def test_top_level_tests_of_its_own(made: Made) -> None:
    """A top-level package `tests` counts, beside the package itself."""
    made.add(
        "app",
        {
            "app/__init__.py": "",
            "app/test_inner.py": PLAIN,
            "tests/__init__.py": "",
            "tests/test_outer.py": PLAIN,
        },
    )
    made.passes(made.suite("app"), 2)


def test_top_level_tests_of_others(made: Made) -> None:
    """Two distributions that both install `tests` each run what is theirs."""
    made.add("one", {"one/__init__.py": "", "tests/__init__.py": "", "tests/test_one.py": PLAIN})
    made.add("two", {"two/__init__.py": "", "tests/__init__.py": "", "tests/test_two.py": USES_PYTEST})
    made.overlaps.append("tests/__init__.py")
    suite = made.suite("one")
    assert suite.words[-1] == str(made.site / "tests" / "test_one.py")
    made.passes(suite, 1)


def test_file_that_another_distribution_replaced(made: Made) -> None:
    """Where two claim one test module, it belongs to the one whose file stands there."""
    made.add("one", {"one/__init__.py": "", "tests/test_it.py": PLAIN})
    made.add("two", {"two/__init__.py": "", "tests/test_it.py": PLAIN})
    made.overlaps.append("tests/test_it.py")
    assert made.find("one") is None
    made.passes(made.suite("two"), 1)


def test_namespace_package(made: Made) -> None:
    """Below a namespace package only its own part is tried, under the names that it has."""
    text = (
        "from .. import VALUE\n\ndef test_it():\n    assert VALUE and __name__ == 'space.one.tests.test_it'\n"
    )
    made.add(
        "space-one",
        {
            "space/one/__init__.py": "VALUE = 1\n",
            "space/one/tests/__init__.py": "",
            "space/one/tests/test_it.py": text,
        },
    )
    made.add(
        "space-two", {"space/two/__init__.py": "", "space/two/test_bad.py": "import pytest\nassert False\n"}
    )
    suite = made.suite("space-one")
    assert suite.words[-1] == str(made.site / "space" / "one")
    made.passes(suite, 1)


def test_django_habit(made: Made) -> None:
    """A module `tests.py` is collected too where it is one of tests."""
    made.add("app", {"app/__init__.py": "", "app/tests.py": USES_PYTEST, "app/other/tests.py": CASE})
    made.passes(made.suite("app"), 2)


@pytest.mark.parametrize(
    ("text", "runner"),
    [
        (CASE, "unittest"),
        ("from unittest import TestCase\n", "unittest"),
        (PLAIN, "pytest"),
        ("async def test_it():\n    pass\n", "pytest"),
        ("    import os, pytest\n", "pytest"),
        ("from pytest import fixture\n", "pytest"),
        ("class TestIt:\n    def test(self): pass\n", "pytest"),
        ("class TestIt(object):\n    def test(self): pass\n", "pytest"),
        ("class TestIt(Base):\n    def test(self): pass\n", "unittest"),
        (CASE + "def test_suite():\n    return unittest.TestSuite()\n", "unittest"),
        (CASE + "# import pytest\n", "unittest"),
        ("def f[T]() -> T: ...\n" + PLAIN, "pytest"),  # newer Python than this one may be
    ],
)
def test_which_runner(made: Made, text: str, runner: str) -> None:
    """Pytest where anything needs it, else unittest."""
    made.add("app", {"app/__init__.py": "", "app/tests/__init__.py": "", "app/tests/test_a.py": text})
    assert made.suite("app").runner == runner


@given(st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_looked_at(made: Made, text: str) -> None:
    """No text of a test module makes the search fail."""
    if not made.distributions:
        made.add("app", {"app/tests/test_a.py": PLAIN})
    (made.site / "app" / "tests" / "test_a.py").write_text(text, errors="surrogatepass")
    made.find("app")


# -- unittest -----------------------------------------------------------------------------------------


def test_unittest_runs_what_is_installed(made: Made) -> None:
    """Every test module is named, wherever it lies: `__init__.py` or not, whatever its name."""
    made.add(
        "app",
        {
            "app/__init__.py": "VALUE = 1\n",
            "app/tests/__init__.py": "",
            "app/tests/test_a.py": "from .. import VALUE\n" + CASE,
            "app/sub/tests/test_a.py": CASE,
            "app/sub/b_test.py": CASE,
            "app/other/tests.py": CASE,
        },
    )
    suite = made.suite("app")
    assert suite.words == (
        "-m", "unittest", "app.other.tests", "app.sub.b_test", "app.sub.tests.test_a", "app.tests.test_a"
    )  # fmt: skip
    assert suite.requirements == ()
    made.passes(suite, 4)


def test_package_that_loads_its_tests(made: Made) -> None:
    """Where a package says itself what its tests are, it is asked."""
    loads = (
        "import unittest\n"
        "def load_tests(loader, tests, pattern):\n"
        "    return loader.loadTestsFromName('app.tests.inner')\n"
    )
    made.add(
        "app",
        {
            "app/__init__.py": "",
            "app/tests/__init__.py": loads,
            "app/tests/inner.py": CASE,
            "app/tests/test_not_this.py": CASE,
            "app/sub/test_that.py": CASE,
        },
    )
    suite = made.suite("app")
    assert suite.words == ("-m", "unittest", "app.sub.test_that", "app.tests")
    made.passes(suite, 2)


def test_broken_test_module_fails(made: Made) -> None:
    """A test module that cannot be imported is a failure, not a suite without it."""
    made.add(
        "app",
        {"app/__init__.py": "", "app/test_a.py": "import nonsense_module\n" + CASE, "app/test_b.py": CASE},
    )
    status, _ = made.run(made.suite("app"))
    assert status == 1


# -- what they need -----------------------------------------------------------------------------------


def test_extras_for_tests(made: Made) -> None:
    """The extras test, tests and testing are followed as far as their markers hold here."""
    requires = (
        "base",
        "one>=2 ; extra == 'test'",
        "two ; extra == 'tests'",
        "three[x] ; python_version >= '3' and extra == 'testing'",
        "app[more] ; extra == 'test'",
        "four ; extra == 'more'",
        "never ; sys_platform == 'none' and extra == 'test'",
        "docs ; extra == 'docs'",
        "one>=2 ; extra == 'tests'",
    )
    made.add("app", {"app/__init__.py": "", "app/test_a.py": CASE}, requires=requires)
    assert made.suite("app").requirements == ("one>=2", "two", "three[x]", "four")


def test_what_is_there_is_not_asked_for(made: Made) -> None:
    """What is installed in a version that fits needs not be brought, its extras' needs included."""
    requires = tuple(f"{line} ; extra == 'test'" for line in ("new>=2", "old>=2", "fast[x]", "slow[x]"))
    made.add("app", {"app/__init__.py": "", "app/test_a.py": PLAIN}, requires=requires)
    made.add("pytest", {})
    made.add("new", {}, version="2.0")
    made.add("old", {}, version="1.0")
    made.add("fast", {}, requires=("new ; extra == 'x'",))
    made.add("slow", {}, requires=("absent ; extra == 'x'",))
    assert made.suite("app").requirements == ("old>=2", "slow[x]")


def test_line_that_is_no_requirement_is_passed_over(made: Made) -> None:
    """Metadata with nonsense in it is no reason to fail."""
    made.add("app", {"app/__init__.py": "", "app/test_a.py": CASE}, requires=("??? ; extra == 'test'",))
    assert made.suite("app").requirements == ()


# -- what came of it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["main", "pytest", "unittest"])
@pytest.mark.parametrize("status", [1, 2, 3, 4, 5, 99, -9])
def test_every_status_is_explained(runner: str, status: int) -> None:
    """One line that names the status."""
    line = explain(Suite(runner, ("-m", runner, "more")), status)  # type: ignore[arg-type]
    assert str(status) in line
    assert "\n" not in line
    if status == 5 and runner != "main":
        assert f"{runner} found none of its tests" in line


def test_nothing_collected_is_no_success(made: Made) -> None:
    """Pytest ends with status 5 when there is nothing to run."""
    made.add("app", {"app/__init__.py": "", "app/test_a.py": "import pytest\n"})
    suite = made.suite("app")
    status, _ = made.run(suite)
    assert explain(suite, status) == "pytest found none of its tests to run (-m pytest: exit status 5)"
