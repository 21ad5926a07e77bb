"""Standing gates: what a project, or an environment itself, asks of every candidate.

`[tool.siteswap]` in the pyproject.toml of the project that an environment lies
in, and ENV/siteswap.toml with the same keys. Whoever can write these files has
commands run as us: a file of somebody else's is not obeyed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from packaging.utils import InvalidName, canonicalize_name

from siteswap.errors import Kind, SiteswapError
from siteswap.fs import Entry, FileSystem
from siteswap.gates import COMMAND_SECONDS, IMPORT_SECONDS, Gate, Gates
from siteswap.layout import Layout
from siteswap.tables import Value

PROJECT_FILE = "pyproject.toml"
PROJECT_TABLE = "tool.siteswap"

_CHECK_NAME = re.compile(r"\w[\w .-]{0,99}\Z")
_MENTION = re.compile(rb"""\btool["']?\s*\.\s*["']?siteswap\b""")

_KEYS = (
    "offline-checks",
    "check-user",
    "startup-code",
    "allow-broken",
    "import-timeout",
    "memory",
    "writable",
    "checks",
    "tests",
)
_GATE_KEYS = ("timeout", "directory", "environment", "writable", "needed")
_CHECK_KEYS = ("command", *_GATE_KEYS)
_TEST_KEYS = ("requirements", "arguments", *_GATE_KEYS)


@dataclass(frozen=True)
class Settings:
    """What the files say; None for what they are silent about."""

    offline: bool | None = None
    user: str | None = None
    startup_code: bool | None = None
    allow_broken: frozenset[str] | None = None
    """Normalised names."""
    import_timeout: float | None = None
    memory: int | None = None
    writable: tuple[Path, ...] | None = None
    """Directories that every check may write to."""
    checks: Mapping[str, Gate] = field(default_factory=dict)
    """Commands by name, in the order of the file."""
    tests: Mapping[str, Gate] = field(default_factory=dict)
    """Test suites by the distribution's normalised name."""


NONE = Settings()


def merged(under: Settings, over: Settings) -> Settings:
    """Both together: what `over` says counts, key by key; of checks and tests, name by name."""
    said = {item.name: getattr(over, item.name) for item in fields(over)}
    known = {name: value for name, value in said.items() if value is not None}
    known["checks"] = {**under.checks, **over.checks}
    known["tests"] = {**under.tests, **over.tests}
    return replace(under, **known)


def gates(
    settings: Settings,
    *,
    enabled: bool = True,
    commands: Sequence[str] = (),
    tests: Sequence[str] = (),
    allow_broken: Iterable[str] = (),
    startup_code: bool = True,
    offline: bool = False,
    user: str | None = None,
) -> Gates:
    """The settings, with what the command line says over them.

    Each of its options only adds to what is asked of a candidate, but for
    `allow_broken` and `user`. Raises SiteswapError (usage) for what is no name,
    and for an empty command.
    """
    suites = dict(settings.tests)
    for text in tests:
        name = _typed_name(text, "--test")
        suites[name] = replace(suites.get(name) or Gate(name, suite=name), needed=True)
    own = [*suites.values(), *settings.checks.values()]
    for text in dict.fromkeys(commands):
        if not text.strip() or "\0" in text:
            raise SiteswapError(
                Kind.USAGE,
                "--check was given an empty command",
                hint="write --check 'COMMAND', a line for /bin/sh",
            )
        own.append(Gate(text, command=text))
    allowed = {_typed_name(text, "--allow-broken") for text in allow_broken}
    return Gates(
        enabled=enabled,
        own=tuple(own),
        allow_broken=(settings.allow_broken or frozenset()) | allowed,
        startup_code=startup_code and settings.startup_code is not False,
        offline=offline or bool(settings.offline),
        user=user if user is not None else settings.user,
        import_timeout=IMPORT_SECONDS if settings.import_timeout is None else settings.import_timeout,
        memory=settings.memory,
        writable=settings.writable or (),
    )


def _typed_name(text: str, option: str) -> str:
    try:
        return canonicalize_name(text.strip(), validate=True)
    except InvalidName as error:
        raise SiteswapError(
            Kind.USAGE,
            f"{option} {text!r}: this is not a distribution's name",
            hint="siteswap list shows the names",
        ) from error


# -- reading ------------------------------------------------------------------------------------------


def read(fs: FileSystem, environment: Path, trusted: Collection[int]) -> tuple[Settings, list[str]]:
    """The settings that hold for an environment, and notes on files that are not obeyed.

    The environment's own go over those of the project: the first pyproject.toml
    from its parent directory upwards. Files that belong to a user whose id is
    not in `trusted`, or that everybody may write to, are not obeyed. Raises
    SiteswapError (usage).
    """
    notes: list[str] = []
    project = _project(fs, environment, trusted, notes)
    return merged(project, _own(fs, environment, trusted, notes)), notes


def _project(fs: FileSystem, environment: Path, trusted: Collection[int], notes: list[str]) -> Settings:
    for directory in environment.parents:
        path = directory / PROJECT_FILE
        try:
            if _file(fs, path) is None:
                continue
            content = _trusted_content(fs, path, trusted, notes)
        except OSError as error:
            notes.append(f"{path} cannot be read ({error.strerror}): nothing in it is obeyed")
            return NONE
        return NONE if content is None else _of_project(content, path, notes)
    return NONE


def _of_project(content: bytes, path: Path, notes: list[str]) -> Settings:
    try:
        data = _toml(content, path)
    except SiteswapError as error:
        # A broken file of a project that has nothing to do with us must not stop anybody.
        if _MENTION.search(content):
            raise
        notes.append(f"{error.message}: nothing in it is obeyed")
        return NONE
    tool = data.get("tool", {})
    table = tool.get("siteswap", {}) if isinstance(tool, dict) else {}
    return parse(table, str(path), path.parent, table=PROJECT_TABLE)


def _own(fs: FileSystem, environment: Path, trusted: Collection[int], notes: list[str]) -> Settings:
    path = Layout(environment).settings
    try:
        content = None if _file(fs, path) is None else _trusted_content(fs, path, trusted, notes)
    except OSError as error:
        # It is there for us: going on without the checks in it would be no small thing.
        raise SiteswapError(
            Kind.USAGE,
            f"cannot read {path}: {error.strerror}",
            hint="make it readable for whoever runs siteswap, or remove it",
        ) from error
    return NONE if content is None else parse(_toml(content, path), str(path), path.parent)


def _file(fs: FileSystem, path: Path) -> Entry | None:
    """The file that a path leads to, links followed; None where there is none."""
    found = fs.entry(path)
    if found is not None and found.kind == "link":
        found = fs.entry(fs.resolve(path))
    return found if found is not None and found.kind == "file" else None


def _trusted_content(fs: FileSystem, path: Path, trusted: Collection[int], notes: list[str]) -> bytes | None:
    """What the file says; None, and a note, where it is not to be obeyed."""
    before = _trust(fs, path, trusted)
    content = b"" if isinstance(before, str) else fs.read(path)
    after = _trust(fs, path, trusted)
    if not isinstance(before, str) and before == after:
        return content
    why = next((item for item in (before, after) if isinstance(item, str)), "it changed while it was read")
    notes.append(f"{path} is not obeyed: {why}")
    return None


def _trust(fs: FileSystem, path: Path, trusted: Collection[int]) -> list[Entry] | str:
    """What stands at a path, and where it leads to; or why it is not to be obeyed."""
    real = fs.resolve(path)
    entries = [entry for entry in (fs.entry(path), fs.entry(real)) if entry is not None]
    for entry in entries:
        # Whoever made a link decides what we read, whoever's the file is.
        if entry.uid not in trusted:
            return f"it belongs to user id {entry.uid}, who could have commands run as you with it"
        if entry.kind != "link" and entry.mode & 0o002:
            return "everybody may write to it, and so have commands run as you"
    return entries


def _toml(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # ValueError: what is no TOML, no UTF-8, or a number of thousands of digits.
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error).splitlines()[0]
        raise SiteswapError(
            Kind.USAGE, f"{path} is not valid TOML: {why}", hint="correct it there"
        ) from error


# -- what the keys mean -------------------------------------------------------------------------------


def parse(data: Mapping[str, Any], where: str, directory: Path, *, table: str = "") -> Settings:
    """What a file says. Pure.

    `where` names the file in errors and `table` the table in it that `data` is;
    relative paths in it are below `directory`. Raises SiteswapError (usage)
    with the first thing that is wrong.
    """
    root = Value(data, where, table)
    keys = root.table(_KEYS)
    names, writable = keys["allow-broken"], keys["writable"]
    return Settings(
        offline=keys["offline-checks"].optional_flag(),
        user=keys["check-user"].optional_word(),
        startup_code=keys["startup-code"].optional_flag(),
        allow_broken=None if names.absent else frozenset(item.distribution() for item in names.items()),
        import_timeout=None if keys["import-timeout"].absent else keys["import-timeout"].seconds(0),
        memory=keys["memory"].optional_amount(),
        writable=None if writable.absent else tuple(directory / item.text() for item in writable.items()),
        checks={name: _check(value, name, directory) for name, value in keys["checks"].entries()},
        tests=_tests(keys["tests"], directory),
    )


def _check(value: Value, name: str, directory: Path) -> Gate:
    if not _CHECK_NAME.match(name):
        value.refuse("is no name for a check", "letters, digits, spaces and . _ -, at most 100 of them")
    keys = value.table(_CHECK_KEYS)
    if keys["command"].absent:
        value.refuse("has no command", 'write command = "…", a line for /bin/sh')
    command = keys["command"].text()
    return _gate(keys, Gate(name, command=command, directory=directory), directory)


def _tests(value: Value, directory: Path) -> dict[str, Gate]:
    found: dict[str, Gate] = {}
    for key, inner in value.entries():
        name = inner.distribution(key)
        if name in found:
            inner.refuse(f"is there twice, as {name}", "one table for each distribution")
        keys = inner.table(_TEST_KEYS)
        gate = Gate(
            name,
            suite=name,
            requirements=tuple(item.requirement() for item in keys["requirements"].items()),
            arguments=tuple(item.text(empty=True) for item in keys["arguments"].items()),
        )
        found[name] = _gate(keys, gate, directory)
    return found


def _gate(keys: Mapping[str, Value], gate: Gate, base: Path) -> Gate:
    """The gate with what checks and tests have in common."""
    directory = keys["directory"]
    return replace(
        gate,
        timeout=keys["timeout"].seconds(COMMAND_SECONDS),
        directory=gate.directory if directory.absent else base / directory.text(),
        environment={name: value.variable(name) for name, value in keys["environment"].entries()},
        writable=tuple(base / item.text() for item in keys["writable"].items()),
        needed=keys["needed"].optional_flag() is not False,
    )
