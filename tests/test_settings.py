"""Standing gates in files: what is read, which file counts, and whose file is not obeyed."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.gates import COMMAND_SECONDS, DEFAULT_GATES, Gate, Gates
from siteswap.settings import NONE, Settings, gates, merged, parse, read

FS = FileSystem()
HERE = Path("/srv/app")
ME = {os.getuid()}

EVERYTHING = """
offline-checks = true
check-user = "www-data"
startup-code = false
allow-broken = ["Some.Name", "other_one"]
import-timeout = 12.5
memory = "4 GiB"

[checks.selftest]
command = "python -m myapp --selftest"
timeout = 60
directory = "work"
environment = {A = "b", EMPTY = ""}
writable = ["build", "/var/tmp/x"]
needed = false

[checks."two words"]
command = "true"

[tests.My_App]
requirements = ["pytest-xdist>=3"]
arguments = ["-x", "-k", "not slow"]
timeout = 5
directory = "."
environment = {C = "d"}
writable = ["out"]
needed = false
"""


def toml(text: str) -> Settings:
    """The settings of a file's text."""
    return parse(tomllib.loads(text), "siteswap.toml", HERE)


def refusal(text: str) -> SiteswapError:
    """The error that a file's text is."""
    with pytest.raises(SiteswapError) as caught:
        toml(text)
    return caught.value


def test_every_key_is_read() -> None:
    """The whole schema, with relative paths taken from the file's directory."""
    found = toml(EVERYTHING)
    assert found.offline is True
    assert found.user == "www-data"
    assert found.startup_code is False
    assert found.allow_broken == frozenset({"some-name", "other-one"})
    assert found.import_timeout == 12.5
    assert found.memory == 4 << 30
    assert found.checks == {
        "selftest": Gate(
            "selftest",
            command="python -m myapp --selftest",
            timeout=60,
            directory=HERE / "work",
            environment={"A": "b", "EMPTY": ""},
            writable=(HERE / "build", Path("/var/tmp/x")),
            needed=False,
        ),
        "two words": Gate("two words", command="true", directory=HERE),
    }
    assert found.tests == {
        "my-app": Gate(
            "my-app",
            suite="my-app",
            requirements=("pytest-xdist>=3",),
            arguments=("-x", "-k", "not slow"),
            timeout=5,
            directory=HERE,
            environment={"C": "d"},
            writable=(HERE / "out",),
            needed=False,
        )
    }


def test_silence_is_the_default() -> None:
    """An empty file asks for what no file asks for."""
    assert toml("") == NONE
    assert gates(NONE) == DEFAULT_GATES
    suite = toml("[tests.x]").tests["x"]
    assert suite == Gate("x", suite="x")
    assert suite.timeout == COMMAND_SECONDS
    assert suite.directory is None


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("16777216", 1 << 24),
        ('"16777216 KB"', 16777216000),
        ('"1.5GiB"', 3 << 29),
        ('"512 MB"', 512 * 10**6),
        ('"512 MiB"', 512 << 20),
        ('"20000 KiB"', 20000 << 10),
        ('"2 GB"', 2 * 10**9),
    ],
)
def test_amounts_of_memory(text: str, amount: int) -> None:
    """Bytes as a number, or text with a unit."""
    assert toml(f"memory = {text}").memory == amount


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("offline = true", "offline", "not known"),
        ('offline-checks = "yes"', "offline-checks", "a text"),
        ("offline-checks = 1", "offline-checks", "a number"),
        ("check-user = 33", "check-user", "not a text"),
        ('check-user = " "', "check-user", "empty"),
        ("startup-code = []", "startup-code", "a list"),
        ('allow-broken = "name"', "allow-broken", "not a list"),
        ('allow-broken = ["a", "b c"]', "allow-broken[1]", "name"),
        ("allow-broken = [1]", "allow-broken[0]", "not a text"),
        ("import-timeout = 0", "import-timeout", "cannot be 0"),
        ("import-timeout = -3", "import-timeout", "cannot be -3"),
        ("import-timeout = nan", "import-timeout", "cannot be nan"),
        ("import-timeout = inf", "import-timeout", "cannot be inf"),
        ("import-timeout = true", "import-timeout", "true"),
        ('import-timeout = "2 min"', "import-timeout", "a text"),
        ("memory = 4", "memory", "cannot be 4"),
        ('memory = "4"', "memory", "'4'"),
        ('memory = "4 giga"', "memory", "4 giga"),
        ('memory = "-4 GiB"', "memory", "-4 GiB"),
        ("memory = 1e9", "memory", "1000000000.0"),
        ("memory = true", "memory", "True"),
        ("checks = 3", "checks", "not a table"),
        ("checks.a = 3", "checks.a", "not a table"),
        ("[checks.a]", "checks.a", "has no command"),
        ("checks.a.command = ''", "checks.a.command", "empty"),
        ("checks.a.command = '  '", "checks.a.command", "empty"),
        ('checks.a.command = "a\\u0000"', "checks.a.command", "character"),
        ("checks.a.command = ['ls']", "checks.a.command", "a list"),
        ("checks.a = {command = 'x', timeout = -1}", "checks.a.timeout", "cannot be -1"),
        ("checks.a = {command = 'x', arguments = []}", "checks.a.arguments", "not known"),
        ("checks.'a/b' = {command = 'x'}", 'checks."a/b"', "no name"),
        ('checks."a\\nb" = {command = "x"}', "checks.'a\\nb'", "no name"),
        ("checks.'' = {command = 'x'}", 'checks.""', "no name"),
        ("checks.a = {command = 'x', directory = 1}", "checks.a.directory", "not a text"),
        ("checks.a = {command = 'x', environment = ['A=b']}", "checks.a.environment", "not a table"),
        ("checks.a = {command = 'x', environment = {A = 1}}", "checks.a.environment.A", "not a text"),
        (
            "checks.a = {command = 'x', environment = {'A=B' = ''}}",
            'checks.a.environment."A=B"',
            "variable",
        ),
        ("checks.a = {command = 'x', writable = 'b'}", "checks.a.writable", "not a list"),
        ("checks.a = {command = 'x', writable = ['']}", "checks.a.writable[0]", "empty"),
        ("checks.a = {command = 'x', needed = 0}", "checks.a.needed", "a number"),
        ("tests.a.command = 'x'", "tests.a.command", "not known"),
        ("tests.'-a'.needed = true", "tests.-a", "distribution's name"),
        ("tests.a_b = {}\ntests.a-b = {}", "tests.a-b", "twice"),
        ("tests.a.requirements = 'x'", "tests.a.requirements", "not a list"),
        ("tests.a.requirements = ['x', '-r y']", "tests.a.requirements[1]", "no requirement"),
        ("tests.a.arguments = [1]", "tests.a.arguments[0]", "not a text"),
    ],
)
def test_what_is_wrong_is_named(text: str, key: str, words: str) -> None:
    """The error names file and key, says what is wrong, and what would be right."""
    error = refusal(text)
    assert error.kind is Kind.USAGE
    assert error.message.startswith(f"siteswap.toml: {key} ")
    assert words in error.message
    assert error.hint
    assert len(error.message.splitlines()) == 1


def test_key_of_a_project_is_named_whole() -> None:
    """In pyproject.toml the key has the table's name before it."""
    with pytest.raises(SiteswapError) as caught:
        parse({"checks": {"a": {}}}, "pyproject.toml", HERE, table="tool.siteswap")
    assert caught.value.message == "pyproject.toml: tool.siteswap.checks.a has no command"


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.datetimes()
words = st.sampled_from(
    ["offline-checks", "check-user", "allow-broken", "import-timeout", "memory", "startup-code", "command",
     "timeout", "directory", "environment", "writable", "needed", "requirements", "arguments"]
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)
tables = st.dictionaries(words | st.text(max_size=4), anything, max_size=5)
likely = st.fixed_dictionaries(
    {},
    optional={
        "checks": st.dictionaries(st.text(max_size=4), tables, max_size=3) | anything,
        "tests": st.dictionaries(st.text(max_size=4), tables, max_size=3) | anything,
        "allow-broken": st.lists(anything, max_size=3),
        "import-timeout": scalars,
        "memory": scalars | st.from_regex(r"[0-9.]{0,3} ?[KMG]i?B", fullmatch=True),
    },
)


@given(likely | tables)
def test_any_value_is_read_or_refused(data: dict[str, Any]) -> None:
    """No value whatever is more than a usage error of one line with a hint; what is read makes gates."""
    refused = None
    try:
        found = parse(data, "file", HERE)
    except SiteswapError as error:
        refused = error
    if refused is not None:
        assert refused.kind is Kind.USAGE
        assert refused.hint
        assert len(refused.message.splitlines()) == 1
        return
    result = gates(found)
    assert all((gate.command is None) != (gate.suite is None) and gate.timeout > 0 for gate in result.own)


@given(likely, likely)
def test_merging_keeps_what_is_said(one: dict[str, Any], other: dict[str, Any]) -> None:
    """What the upper file says holds; what it is silent about comes from the lower one."""
    try:
        under, over = parse(one, "one", HERE), parse(other, "other", HERE)
    except SiteswapError:
        return
    both = merged(under, over)
    assert merged(NONE, over) == over
    assert merged(under, NONE) == under
    assert both.memory == (under.memory if over.memory is None else over.memory)
    assert both.checks.keys() == under.checks.keys() | over.checks.keys()
    assert all(both.checks[name] == gate for name, gate in over.checks.items())
    assert all(both.tests[name] == gate for name, gate in over.tests.items())


def test_command_line_goes_over_the_files() -> None:
    """Options add to what the files ask for; a suite named twice runs once, and is needed."""
    found = gates(
        toml(EVERYTHING),
        commands=["make check", "make check"],
        tests=["my.app", "Other", "other"],
        allow_broken=["Third"],
        user="nobody",
    )
    assert [gate.name for gate in found.own] == ["my-app", "other", "selftest", "two words", "make check"]
    assert found.own[0].needed
    assert found.own[0].requirements == ("pytest-xdist>=3",)
    assert found.own[1] == Gate("other", suite="other")
    assert found.own[-1] == Gate("make check", command="make check")
    assert found.allow_broken == {"some-name", "other-one", "third"}
    assert found.user == "nobody"
    assert found.offline
    assert not found.startup_code
    assert found.memory == 4 << 30


def test_command_line_alone() -> None:
    """Without files the options say everything."""
    found = gates(NONE, enabled=False, startup_code=False, offline=True)
    assert found == Gates(enabled=False, startup_code=False, offline=True)


@pytest.mark.parametrize(
    "options", [{"tests": ["a b"]}, {"tests": [""]}, {"allow_broken": ["-"]}, {"commands": [" "]}]
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    """What is no name or no command is a usage error."""
    with pytest.raises(SiteswapError) as caught:
        gates(NONE, **options)
    assert caught.value.kind is Kind.USAGE


# -- which files count ------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment's directory, two below a project's, which ends every search."""
    path = tmp_path / "project" / "deep" / "env"
    path.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").write_text("")
    return path


def test_nearest_project_counts(environment: Path) -> None:
    """The first pyproject.toml upwards is the one, even if it is silent; paths are below its directory."""
    outer = environment.parents[1] / "pyproject.toml"
    outer.write_text("[tool.siteswap.checks.a]\ncommand = 'x'\n")
    found, notes = read(FS, environment, ME)
    assert found.checks["a"].directory == outer.parent
    assert notes == []
    (environment.parent / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert read(FS, environment, ME) == (NONE, [])


def test_project_inside_the_environment_does_not_count(environment: Path) -> None:
    """A pyproject.toml in the environment itself is nobody's project."""
    (environment / "pyproject.toml").write_text("[tool.siteswap]\nunknown = 1\n")
    assert read(FS, environment, ME) == (NONE, [])


def test_own_file_goes_over_the_project(environment: Path) -> None:
    """ENV/siteswap.toml wins key by key, with paths below ENV."""
    project = environment.parents[1] / "pyproject.toml"
    project.write_text(
        "[tool.siteswap]\nmemory = '1 GiB'\nimport-timeout = 5\n[tool.siteswap.checks.a]\ncommand = 'x'\n"
    )
    (environment / "siteswap.toml").write_text("memory = '2 GiB'\nchecks.a = {command = 'y'}\n")
    found, _ = read(FS, environment, ME)
    assert found.memory == 2 << 30
    assert found.import_timeout == 5
    assert found.checks["a"] == Gate("a", command="y", directory=environment)


def test_files_of_others_are_not_obeyed(environment: Path) -> None:
    """A file of somebody who is not trusted is named in a note, whatever is in it."""
    project = environment.parents[1] / "pyproject.toml"
    project.write_text("[tool.siteswap]\nunknown = 1\n")
    own = environment / "siteswap.toml"
    own.write_text("no TOML at all")
    found, notes = read(FS, environment, {os.getuid() + 1})
    assert found == NONE
    assert [note.split(" ")[0] for note in notes] == [str(project), str(own)]
    assert all(f"user id {os.getuid()}" in note for note in notes)


def test_file_that_everybody_may_write_is_not_obeyed(environment: Path) -> None:
    """Who may write to it is as good as its owner."""
    own = environment / "siteswap.toml"
    own.write_text("offline-checks = true\n")
    own.chmod(0o666)
    found, notes = read(FS, environment, ME)
    assert found == NONE
    assert len(notes) == 1
    assert "everybody may write" in notes[0]
    own.chmod(0o664)
    assert read(FS, environment, ME)[0].offline


def test_links_are_followed(environment: Path, tmp_path: Path) -> None:
    """A link counts as what it leads to, whose owner and mode count too; one that leads nowhere is none."""
    real = tmp_path / "real.toml"
    real.write_text("offline-checks = true\n")
    link = environment / "siteswap.toml"
    link.symlink_to(real)
    assert read(FS, environment, ME)[0].offline
    real.chmod(0o666)
    assert read(FS, environment, ME)[0] == NONE
    real.unlink()
    assert read(FS, environment, ME) == (NONE, [])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_link_of_somebody_else_is_not_obeyed(environment: Path, tmp_path: Path) -> None:
    """Whoever made a link chose what we read: a trusted file does not make it trusted."""
    real = tmp_path / "real.toml"
    real.write_text("offline-checks = true\n")
    link = environment / "siteswap.toml"
    link.symlink_to(real)
    os.lchown(link, 12345, 12345)
    found, notes = read(FS, environment, ME)
    assert found == NONE
    assert "user id 12345" in notes[0]


@pytest.mark.parametrize("what", ["directory", "pipe"])
def test_what_is_no_file_does_not_count(environment: Path, what: str) -> None:
    """Only files are read: nobody waits for a pipe."""
    path = environment / "siteswap.toml"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert read(FS, environment, ME) == (NONE, [])


@pytest.mark.parametrize(
    "content",
    [
        b"[tool.siteswap\n",
        b"[tool.siteswap]\nx = \n",
        b"\xff [tool.siteswap]",
        b'["tool"."siteswap"] x',
        b"tool.siteswap.memory = " + b"9" * 5000,
        b"# tool.siteswap\nx = " + b"[" * 9000,
    ],
)
def test_broken_project_with_settings_is_refused(environment: Path, content: bytes) -> None:
    """A broken pyproject.toml that is meant for us is an error, of one line, with the file's name."""
    path = environment.parents[1] / "pyproject.toml"
    path.write_bytes(content)
    with pytest.raises(SiteswapError) as caught:
        read(FS, environment, ME)
    assert caught.value.kind is Kind.USAGE
    assert str(path) in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def test_broken_project_of_others_is_only_noted(environment: Path) -> None:
    """A broken pyproject.toml that does not speak of us stops nobody."""
    path = environment.parents[1] / "pyproject.toml"
    path.write_text("[project\n")
    found, notes = read(FS, environment, ME)
    assert found == NONE
    assert len(notes) == 1
    assert str(path) in notes[0]


def test_broken_own_file_is_refused(environment: Path) -> None:
    """ENV/siteswap.toml is there for us: broken, it is an error."""
    (environment / "siteswap.toml").write_text("[")
    with pytest.raises(SiteswapError) as caught:
        read(FS, environment, ME)
    assert caught.value.kind is Kind.USAGE


@pytest.mark.parametrize("text", ["tool = 3\n", "[tool]\n", "[tool.other]\nx = 1\n", ""])
def test_project_without_the_table(environment: Path, text: str) -> None:
    """A pyproject.toml without our table counts as found and empty."""
    (environment.parents[1] / "pyproject.toml").write_text(text)
    assert read(FS, environment, ME) == (NONE, [])


def test_table_that_is_none_is_refused(environment: Path) -> None:
    """`siteswap = 3` under [tool] is named as what it is."""
    (environment.parents[1] / "pyproject.toml").write_text("[tool]\nsiteswap = 3\n")
    with pytest.raises(SiteswapError, match=r"tool\.siteswap is a number, not a table"):
        read(FS, environment, ME)
