"""Rules about the source that no linter knows: who touches the disk, who may flip, what an error has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import siteswap
from siteswap.errors import EXIT_STATUS, Kind

SOURCE = Path(siteswap.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

MAY_TOUCH_THE_DISK = {
    "fs.py",  # that is what it is for
    "process.py",  # /proc, pipes and memory files
    "launcher/__init__.py",  # beside the layers: data of the package, and what runs in users' environments
    "launcher/launch.py",
    "runtime/__init__.py",
    "runtime/_siteswap.py",
    "runtime/_siteswap_advance.py",
    "activate/__init__.py",
    "probe/__init__.py",
    "probe/compile.py",
    "probe/imports.py",
    "probe/supervise.py",
}

HARMLESS_OS = {
    "PathLike", "cpu_count", "defpath", "devnull", "environ", "fsdecode", "fsencode", "fspath", "getegid",
    "geteuid", "getgid", "getpid", "getuid", "path", "pathsep", "sep", "strerror",
}  # fmt: skip
"""What of `os` neither reads nor writes the disk."""

HARMLESS_OS_PATH = {"abspath", "basename", "dirname", "expanduser", "isabs", "join", "normpath", "relpath"}

PATH_METHODS = {
    "chmod", "exists", "expanduser", "glob", "hardlink_to", "is_block_device", "is_char_device",
    "is_dir", "is_fifo", "is_file", "is_mount", "is_socket", "is_symlink", "iterdir", "lchmod", "link_to",
    "lstat", "mkdir", "open", "owner", "read_bytes", "read_text", "readlink", "rename", "replace", "resolve",
    "rglob", "rmdir", "samefile", "stat", "symlink_to", "touch", "unlink", "walk", "write_bytes",
    "write_text",
}  # fmt: skip

THE_PORT = {"fs", "_fs", "plain", "FileSystem"}
"""What objects of fs.FileSystem are called: their methods have the names of Path's."""

BANNED_MODULES = {
    "shutil",
    "tempfile",
    "glob",
    "fileinput",
    "mmap",
    "tarfile",
    "fcntl",
    "ctypes",
    "subprocess",
}

EXCEPTIONS = {
    ("__main__.py", "os.execv"),  # itself again, isolated, before anything else is imported
    ("cli/__init__.py", "os.dup2"),  # stdout leads nowhere once its reader is gone
    ("cli/__init__.py", "os.open"),
    ("cli/__init__.py", "os.O_WRONLY"),
    ("sources.py", "import subprocess"),  # an exception of its, which a hook runner is to raise
    ("lockfile.py", "(base / path).resolve"),  # relative paths of a lock file, links followed
}
"""Uses that are looked at and meant: (module, what)."""


def name_of(path: Path) -> str:
    """A module as these tests write it."""
    return path.relative_to(SOURCE).as_posix()


def port(node: ast.expr) -> bool:
    """Whether an expression is an object of fs.FileSystem, going by what it is called."""
    if isinstance(node, ast.Call):
        return port(node.func)
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) in THE_PORT


def disk_uses(tree: ast.AST) -> Iterator[str]:
    """Everything in a module by which it could read or write the disk itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            for name in names:
                if name.split(".")[0] in BANNED_MODULES:
                    yield f"import {name}"
            if isinstance(node, ast.ImportFrom) and node.module in ("os", "os.path", "io"):
                yield f"from {node.module} import"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open"
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if (
                isinstance(node.value, ast.Name) and node.value.id == "os" and node.attr not in HARMLESS_OS
            ) or (ast.unparse(node.value) == "os.path" and node.attr not in HARMLESS_OS_PATH):
                yield text
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            function = node.func
            if function.attr not in PATH_METHODS or port(function.value):
                continue
            if function.attr == "replace" and len(node.args) >= 2:
                continue  # of a string; that of a path takes one argument
            if ast.unparse(function) == "resolve.resolve":
                continue  # the resolver
            if ast.unparse(function.value).startswith("os"):
                continue  # judged above
            yield ast.unparse(function)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_fs_and_process_touch_the_disk(path: Path) -> None:
    """Durability and fault injection have one place: everything else goes through fs (and process)."""
    name = name_of(path)
    if name in MAY_TOUCH_THE_DISK:
        return
    found = {use for use in disk_uses(ast.parse(path.read_text())) if (name, use) not in EXCEPTIONS}
    found -= {"Environment.open"}
    assert found == set()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open('x')", {"open"}),
        ("import os\nos.rename(a, b)", {"os.rename"}),
        ("from os import rename", {"from os import"}),
        ("import shutil", {"import shutil"}),
        ("import os\nos.path.exists(x)", {"os.path.exists"}),
        ("Path(x).write_text('')", {"Path(x).write_text"}),
        ("a.b.unlink()", {"a.b.unlink"}),
        ("path.replace(other)", {"path.replace"}),
        (
            "self._fs.unlink(x); FileSystem().read_text(y); text.replace('a', 'b'); os.environ",
            set(),
        ),
    ],
)
def test_the_rule_finds_what_it_should(code: str, expected: set[str]) -> None:
    """The rule above can fail."""
    assert set(disk_uses(ast.parse(code))) == expected


def test_exceptions_are_used() -> None:
    """An exception that is not needed any more is removed."""
    uses = {(name_of(path), use) for path in MODULES for use in disk_uses(ast.parse(path.read_text()))}
    assert uses >= EXCEPTIONS


def test_every_kind_has_an_exit_status() -> None:
    """No kind of refusal without a documented exit status."""
    assert set(EXIT_STATUS) == set(Kind)
    assert set(EXIT_STATUS.values()) == {1, 2, 3, 4, 5, 70, 130}


def calls(path: Path, function: str) -> bool:
    """Whether a module calls a function by that name, or as an attribute of its module."""
    return any(
        isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == function)
            or (isinstance(node.func, ast.Attribute) and node.func.attr == function
                and ast.unparse(node.func.value) in ("flip", "collect"))
        )
        for node in ast.walk(ast.parse(path.read_text()))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("function", "callers"),
    [
        ("flip", {"transaction.py", "environment.py", "create.py"}),
        ("detach", {"collect.py"}),
        ("sweep", {"housekeeping.py"}),
        ("supplant", {"doctor/repair.py"}),
        ("restore", {"doctor/repair.py"}),
        ("unlink_top_level", {"flip.py", "recovery.py"}),
    ],
)
def test_who_may_change_what_is_live(function: str, callers: set[str]) -> None:
    """The commit point and the removal of a generation have few callers, each known by name."""
    assert {name_of(path) for path in MODULES if calls(path, function)} == callers


def test_every_refusal_says_what_to_do() -> None:
    """Each SiteswapError that is made names the next step."""
    lacking = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "SiteswapError"
        and not any(keyword.arg == "hint" for keyword in node.keywords)
    ]
    assert lacking == []
