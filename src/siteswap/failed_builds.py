"""What a failed build or resolution says, made into one line and a next step. Pure.

Backends and compilers write pages; what is looked for here is the handful of lines that name what
is missing. Everything else is shown as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINES = 30
"""How many of the last lines of a build's output are shown."""

_TOOLS = (
    "x86_64-linux-gnu-gcc|aarch64-linux-gnu-gcc|gcc|cc|clang|g\\+\\+|c\\+\\+|clang\\+\\+|gfortran|cargo|rustc|"
    "cmake|ninja|meson|make|pkg-config|swig|cython|git|hg"
)
_NO_PROGRAM = re.compile(
    r"(?:No such file or directory: |command |unable to execute )"
    rf"['\"](?:\S*/)?(?P<tool>{_TOOLS})['\"](?! failed with exit| returned non-zero)"
)
_NO_COMPILER = re.compile(
    r"Unknown compiler\(s\)|No CMAKE_(?:C|CXX)_COMPILER could be found|no acceptable C compiler"
)
_NO_RUST = re.compile(r"can't find Rust compiler|Rust not found|requires Rust")
_NO_HEADER = re.compile(r"fatal error: ['\"]?(?P<header>[\w./+-]+\.h(?:pp)?)['\"]?(?::| file) ", re.ASCII)
_NO_LIBRARY = re.compile(r"cannot find -l(?P<library>[\w.+-]+)")
_NO_MODULE = re.compile(
    r"(?:ModuleNotFoundError: No module named|BackendUnavailable: Cannot import) '(?P<module>[\w.]+)'"
)

_UNFINISHED = re.compile(
    r"(?:Failed to (?:download and )?build|Failed to (?:fetch|download|prepare)[^`]*) `(?P<what>[^`]+)`"
)
_GONE = re.compile(r"Distribution not found at: (?P<url>\S+)")


@dataclass(frozen=True)
class Failure:
    """What went wrong, in one line, and what to do about it."""

    message: str
    hint: str


def hint(output: str, *, isolated: bool = True) -> str:
    """The next step after a build that ended with this output."""
    program = _NO_PROGRAM.search(output)
    if program is not None or _NO_COMPILER.search(output) or _NO_RUST.search(output):
        missing = (
            program["tool"] if program is not None else "Rust" if _NO_RUST.search(output) else "a C compiler"
        )
        return f"{missing} is missing here: install it, or have a wheel with --only-binary"
    header = _NO_HEADER.search(output)
    if header is not None and header["header"] == "Python.h":
        return "the interpreter's headers are missing here: install them (python3-dev), or have a wheel"
    if header is not None:
        return (
            f"the header {header['header']} is missing here: install the library that has it, or have a wheel"
        )
    library = _NO_LIBRARY.search(output)
    if library is not None:
        return f"the library {library['library']} is missing here: install it, or have a wheel"
    module = _NO_MODULE.search(output)
    if module is not None and isolated:
        return (
            f"its build needs {module['module']} and does not say so: "
            "install that, then this with --no-build-isolation"
        )
    if module is not None:
        return (
            f"its build needs {module['module']}, which with --no-build-isolation has to be installed first"
        )
    return "see the build's output above; a compiler or a library may be missing"


def tail(output: str) -> str:
    """The end of a build's output, as it is shown."""
    return "\n".join(output.strip().splitlines()[-LINES:])


def of_resolver(stderr: str, *, isolated: bool = True) -> Failure | None:
    """What uv says of a source that it could not get or build; None where it is about something else."""
    gone = _GONE.search(stderr)
    if gone is not None:
        path = Path(unquote(urlsplit(gone["url"]).path))
        return Failure(f"there is nothing at {path}", "put it back, or name another place")
    if "Git executable not found" in stderr:
        return Failure(
            f"{_what(stderr)} comes from git, which is not installed here", "install git, or name an archive"
        )
    if "Git operation failed" in stderr:
        return Failure(
            f"{_what(stderr)} cannot be cloned", "check the address, and the permission to read it"
        )
    if "does not appear to be a Python project" in stderr:
        return Failure(
            f"{_what(stderr)} is no source of a Python project", "it needs a pyproject.toml or a setup.py"
        )
    if "build backend returned an error" in stderr or "Failed to build" in stderr:
        return Failure(f"{_what(stderr)} cannot be built", hint(stderr, isolated=isolated))
    return None


def without_advice(stderr: str) -> str:
    """The end of uv's account of a build, without its advice about settings that are uv's alone."""
    return tail(stderr.partition("\n\nhint: This error likely indicates")[0])


def _what(stderr: str) -> str:
    """What uv names as not built, without the address."""
    found = _UNFINISHED.search(stderr)
    if found is None:
        path = re.match(r"`(?P<path>[^`]+)`", stderr)
        return path["path"] if path is not None else "a source"
    return found["what"].partition(" @ ")[0].replace("==", " ")
