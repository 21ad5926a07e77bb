"""What test suites need besides: resolved against the candidate as it is, and kept out of its way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from siteswap import overlay
from siteswap.cache import Cache
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.interpreter import probe
from siteswap.lockfile import EMPTY, LockFile
from siteswap.manifest import Distribution, Interpreter
from siteswap.progress import Progress
from siteswap.resolve import Options
from wheelmaker import wheel

FS = FileSystem()
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def interpreter() -> Interpreter:
    """The interpreter that runs the tests."""
    return probe(Path(sys.executable), FS)


@pytest.fixture
def make(tmp_path: Path, wheels: Path, interpreter: Interpreter) -> Make:
    """`overlay.make` with wheels of the test's own and no index."""
    cache = Cache(tmp_path / "cache", FS)
    FS.make_directory(cache.root)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    lock = LockFile.parse(EMPTY, tmp_path, "lock")

    def run(
        candidate: Sequence[Distribution],
        *requirements: str,
        lock: LockFile = lock,
        arguments: Sequence[str] = ("--no-index", "--find-links", str(wheels)),
        no_deps: bool = False,
        taken: Sequence[str] = (),
    ) -> Path:
        options = Options(tuple(arguments), no_deps=no_deps, upgrade=True)
        return overlay.make(
            FS, cache, scratch, candidate, interpreter, lock, requirements, options, Progress(),
            taken=[f"{interpreter.purelib}/{path}" for path in taken],
        )  # fmt: skip

    return run


def has(name: str, version: str = "1.0", *requires: str, editable: bool = False) -> Distribution:
    """A distribution of the candidate."""
    source = "/src" if editable else None
    return Distribution(name, version, "key", f"x/{name}.dist-info", True, requires, editable=source)


def names(path: Path) -> list[str]:
    """What is at the top of a directory."""
    return sorted(item.name for item in path.iterdir())


def files(path: Path) -> set[str]:
    """Every file below a directory."""
    return {str(item.relative_to(path)) for item in path.rglob("*") if item.is_file()}


def test_nothing_asked_is_nothing_brought(make: Make) -> None:
    """Without requirements nobody is asked, and the directory is empty."""
    assert names(make([has("app")])) == []


def test_requirements_come_with_what_they_need(make: Make, wheels: Path) -> None:
    """What is asked for and what that needs is there, and what the candidate has is not."""
    wheel(wheels, "runner", requires=["helper", "app>=1"])
    wheel(wheels, "helper")
    wheel(wheels, "app")
    made = make([has("app")], "runner")
    assert names(made) == ["helper", "helper-1.0.dist-info", "runner", "runner-1.0.dist-info"]


def test_it_is_found_by_the_interpreter(make: Make, wheels: Path) -> None:
    """On PYTHONPATH modules can be imported, and metadata lists the files by which plugins are found."""
    wheel(
        wheels,
        "runner",
        files={"runner/__init__.py": "", "runner.py_data": "x"},
        data={"scripts/r": "#!python"},
    )
    made = make([], "runner")
    code = (
        "import runner, importlib.metadata as m; d = m.distribution('runner');"
        "print(d.version, sorted(map(str, d.files)), all(f.locate().exists() for f in d.files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(made)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    names = ["METADATA", "RECORD", "WHEEL"]
    listed = ["runner/__init__.py", *(f"runner-1.0.dist-info/{name}" for name in names), "runner.py_data"]
    assert done.stdout == f"1.0 {sorted(listed)} True\n"


def test_candidate_keeps_its_versions(make: Make, wheels: Path) -> None:
    """A newer version on the index tempts nobody: the one that is tried is the one that counts."""
    wheel(wheels, "runner", requires=["lib"])
    wheel(wheels, "lib", "1.0")
    wheel(wheels, "lib", "2.0")
    assert names(make([has("lib", "1.0")], "runner")) == ["runner", "runner-1.0.dist-info"]


def test_requirements_that_want_another_version_are_refused(make: Make, wheels: Path) -> None:
    """What would test another version than the candidate's is an error that says so."""
    wheel(wheels, "runner", requires=["lib>=2"])
    wheel(wheels, "lib", "2.0")
    with pytest.raises(SiteswapError, match="cannot be had beside") as caught:
        make([has("lib", "1.0")], "runner")
    assert caught.value.kind is Kind.REQUIREMENT
    assert "lib" in (caught.value.detail or "")


def test_older_requirement_is_chosen_where_it_fits(make: Make, wheels: Path) -> None:
    """The resolver may take an older tool so that the candidate can stay."""
    wheel(wheels, "runner", "2.0", requires=["lib>=2"])
    wheel(wheels, "runner", "1.0", requires=["lib"])
    wheel(wheels, "lib", "2.0")
    assert "runner-1.0.dist-info" in names(make([has("lib", "1.0")], "runner"))


@pytest.mark.parametrize("version", ["1.0", "2.0rc1", "1.0+local.3", "1.2.dev3", "1!3"])
def test_what_is_on_no_index_counts_as_it_is(make: Make, wheels: Path, version: str) -> None:
    """A tool may need what came from a source tree, a URL or another tool: the installed version counts."""
    wheel(wheels, "plugin", requires=["app"])
    made = make([has("app", version, editable=True)], "plugin")
    assert names(made) == ["plugin", "plugin-1.0.dist-info"]


def test_with_an_index(make: Make, tmp_path: Path, wheels: Path) -> None:
    """Where an index is asked, what it does not know and the candidate has is no obstacle either."""
    index = tmp_path / "index"
    for name, requires in (("plugin", ["app", "lib"]), ("lib", [])):
        made = wheel(index / name, name, requires=requires)
        (index / name / "index.html").write_text(f'<a href="{made.name}">{made.name}</a>')
    newer = wheel(index / "lib", "lib", "2.0")
    with (index / "lib" / "index.html").open("a") as page:
        page.write(f'<a href="{newer.name}">{newer.name}</a>')
    arguments = ("--index-url", index.as_uri())
    result = make([has("app", "3.1", editable=True), has("lib", "1.0")], "plugin", arguments=arguments)
    assert names(result) == ["plugin", "plugin-1.0.dist-info"]
    with pytest.raises(SiteswapError, match="cannot be had"):
        make([], "absent", arguments=arguments)


def test_candidates_lock_does_no_harm(make: Make, wheels: Path, tmp_path: Path) -> None:
    """Whatever the candidate came from is in its lock, and is not obtained again."""
    made = wheel(wheels, "lib")
    text = (
        f'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "lib"\nversion = "1.0"\n'
        f'wheels = [{{path = "{made}", hashes = {{sha256 = "{"0" * 64}"}}}}]\n'
        f'[[packages]]\nname = "app"\ndirectory = {{path = "{tmp_path}/gone", editable = true}}\n'
    )
    wheel(wheels, "runner", requires=["lib", "app"])
    lock = LockFile.parse(text, tmp_path, "lock")
    result = make([has("lib"), has("app", "0.1", editable=True)], "runner", lock=lock)
    assert names(result) == ["runner", "runner-1.0.dist-info"]


def test_extras_of_the_candidate(make: Make, wheels: Path) -> None:
    """A tool may want an extra of something installed: then what that needs is brought."""
    wheel(wheels, "more")
    wheel(wheels, "runner", requires=["lib[fast]"])
    made = make([has("lib", "1.0", "more ; extra == 'fast'", "never ; extra == 'slow'")], "runner")
    assert names(made) == ["more", "more-1.0.dist-info", "runner", "runner-1.0.dist-info"]


def test_markers_hold_here(make: Make, wheels: Path) -> None:
    """A requirement for another platform is none."""
    wheel(wheels, "runner")
    assert names(make([], "runner ; sys_platform == 'none'")) == []


def test_no_deps_is_about_the_environment(make: Make, wheels: Path) -> None:
    """The tests' tools get what they need, whatever the candidate was installed without."""
    wheel(wheels, "runner", requires=["helper"])
    wheel(wheels, "helper")
    assert "helper" in names(make([], "runner", no_deps=True))


def test_odd_version_stays_away(make: Make, wheels: Path) -> None:
    """A candidate's version that is none is not pinned; a tool that does not need it is not kept from it."""
    wheel(wheels, "runner")
    wheel(wheels, "needy", requires=["strange"])
    wheel(wheels, "strange", "2.0")
    strange = has("strange", "not a version")
    assert "runner" in names(make([strange], "runner"))
    with pytest.raises(SiteswapError, match="cannot be had"):
        make([strange], "needy")


def test_two_in_one_scratch_directory(make: Make, wheels: Path) -> None:
    """Each suite gets a directory of its own."""
    wheel(wheels, "one")
    wheel(wheels, "two")
    first, second = make([], "one"), make([], "two")
    assert (names(first)[0], names(second)[0]) == ("one", "two")


def test_it_is_a_copy(make: Make, wheels: Path, tmp_path: Path) -> None:
    """What a test writes into it does not reach the cache."""
    wheel(wheels, "runner")
    made = make([], "runner")
    (made / "runner" / "__init__.py").write_text("raise SystemExit")
    (again,) = (tmp_path / "cache" / "wheels").glob("*/purelib/runner/__init__.py")
    assert again.read_text().startswith("__version__ = '1.0'\n")


def test_nothing_of_the_candidate_is_hidden(make: Make, wheels: Path) -> None:
    """Files that would come before the candidate's modules stay away; the rest of a namespace comes."""
    wheel(
        wheels,
        "runner",
        files={
            "runner.py": "",
            "tests/__init__.py": "an accident",  # a package of the candidate
            "tests/more.py": "",
            "single/__init__.py": "",  # a module of the candidate
            "single/inner.py": "",
            "double.py": "",  # a package of the candidate
            "space/__init__.py": "",  # a namespace of the candidate
            "space/plugin.py": "",
            "space/core.cpython-311-x86_64-linux-gnu.so": "",  # a module in it
            "LICENSE": "",
        },
    )
    taken = ["tests/__init__.py", "single.py", "double/__init__.py", "space/core.py", "LICENSE"]
    made = make([has("app")], "runner", taken=taken)
    info = {f"runner-1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")}
    assert files(made) == {"runner.py", "tests/more.py", "space/plugin.py", *info}
    record = (made / "runner-1.0.dist-info" / "RECORD").read_text()
    assert {line.partition(",")[0] for line in record.splitlines()} == files(made)
