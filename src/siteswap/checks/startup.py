"""What code runs at every start of Python because a distribution is installed?

`.pth` files with import lines, `.start` files (PEP 829), `sitecustomize` and
`usercustomize`. It runs in every program, whether that uses the distribution or
not. By Lib/site.py of CPython 3.9 to 3.15.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from siteswap.checks.reading import below_site, content, rows, shown, site_directories
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.verdict import Check, Finding

Version = tuple[int, int]

_UTF8_FIRST = (3, 13)
"""From here on `.pth` files are split as str.splitlines does, and hidden ones are passed over."""
_START_FILES = (3, 15)
"""From here on `.start` files count, and lines of `.pth` files may be indented."""
_NO_IMPORT_LINES = (3, 18)
"""From here on import lines of `.pth` files are ignored."""


@dataclass(frozen=True)
class Startup:
    """One file of a distribution that makes code run at start-up."""

    name: str
    """The distribution's normalised name."""
    path: str
    """Relative to the prefix."""
    runs: tuple[str, ...]
    """The lines that are executed, the entry points that are called, or the import of the module."""


def check(
    generation: Generation, subjects: Sequence[Distribution], known: Sequence[Startup] = ()
) -> list[Finding]:
    """One finding for each file of the subjects that makes code run at start-up, but for those `known`."""
    versions = {item.name: item.version for item in subjects}
    return [
        Finding(
            Check.STARTUP_CODE,
            item.name,
            f"runs code at every start of Python: {_summary(item, generation)}",
            item.path,
            versions[item.name],
            detail="\n".join(shown(line, 2000) for line in item.runs),
        )
        for item in code(generation, subjects)
        if item not in known
    ]


def _summary(item: Startup, generation: Generation) -> str:
    more = len(item.runs) - 1
    tail = f" (and {more} more {'line' if more == 1 else 'lines'})" if more else ""
    return f"{shown(below_site(item.path, generation.interpreter))}: {shown(item.runs[0], 100)}{tail}"


def code(generation: Generation, subjects: Sequence[Distribution]) -> list[Startup]:
    """Everything of the subjects that runs at every start of the generation's Python."""
    found = []
    for item in subjects:
        paths = dict.fromkeys(row.path for row in rows(generation, item))
        for path in [*paths, *_byte_code(generation, item)]:
            runs = _runs(generation, path)
            if runs:
                found.append(Startup(item.name, path, tuple(runs)))
    return found


def _runs(generation: Generation, path: str) -> list[str]:
    """What runs because of the file at `path`; mostly nothing."""
    version = generation.interpreter.version_pair
    directory = next(
        (base for base in site_directories(generation.interpreter) if path.startswith(f"{base}/")), None
    )
    if directory is None:
        return []
    name = path[len(directory) + 1 :]
    module = _CUSTOM.match(name)
    if module:
        return [f"import {module['module']}"]
    if "/" in name or (name.startswith(".") and version >= _UTF8_FIRST):
        return []
    if name.endswith(".pth"):
        lines = executed_lines(content(generation, path) or b"", version)
        return [] if lines and _replaced(generation, path) else lines
    if name.endswith(".start") and version >= _START_FILES:
        return called_entry_points(content(generation, path) or b"") or []
    return []


_CUSTOM = re.compile(r"(?P<module>sitecustomize|usercustomize)(/__init__)?(\.py|\.pyc|(\.[^/]*)?\.so)\Z")


def _replaced(generation: Generation, path: str) -> bool:
    """Whether a `.start` file of the same name, whoever's it is, makes Python pass over import lines."""
    if generation.interpreter.version_pair < _START_FILES:
        return False
    text = content(generation, f"{path.removesuffix('.pth')}.start")
    return text is not None and called_entry_points(text) is not None


def _byte_code(generation: Generation, item: Distribution) -> list[str]:
    """Files like `sitecustomize.pyc`, which run without a source and which `record` leaves out."""
    present = [
        path
        for directory in site_directories(generation.interpreter)
        for module in ("sitecustomize", "usercustomize")
        for path in (f"{directory}/{module}.pyc", f"{directory}/{module}/__init__.pyc")
        if generation.fs.entry(generation.layout.path / path) is not None
    ]
    if not present:
        return []
    record = (content(generation, f"{item.dist_info}/RECORD") or b"").decode(errors="replace")
    listed = {line.partition(",")[0].strip('"') for line in record.splitlines()}
    return [path for path in present if below_site(path, generation.interpreter) in listed]


# -- the formats, pure ---------------------------------------------------------------------------


def executed_lines(text: bytes, version: Version) -> list[str]:
    """Lines of a `.pth` file that Python `version` executes. Pure; never raises."""
    if version >= _NO_IMPORT_LINES:
        return []
    return [line for line in _lines(text, version) if line.startswith(_IMPORTS)]


def added_paths(text: bytes, version: Version) -> list[str]:
    """Lines of a `.pth` file that name a directory for `sys.path`. Pure; never raises."""
    return [line for line in _lines(text, version) if not line.startswith(_IMPORTS)]


def called_entry_points(text: bytes) -> list[str] | None:
    """Entry points that a `.start` file has called; None for one that Python passes over. Pure."""
    try:
        lines = text.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return None
    return [line for raw in lines if (line := raw.strip()) and not line.startswith("#")]


_IMPORTS = ("import ", "import\t")
_NEWLINE = re.compile(r"\r\n|\r|\n")


def _lines(text: bytes, version: Version) -> list[str]:
    """Lines that are neither empty nor a comment, without what ends them.

    A byte order mark is dropped for every version, although old ones stumble over
    it: whoever wrote such a file means the line to run.
    """
    whole = text.decode("utf-8-sig", "surrogateescape")
    lines = whole.splitlines() if version >= _UTF8_FIRST else _NEWLINE.split(whole)
    if version >= _START_FILES:
        lines = [line.lstrip() for line in lines]
    return [line.rstrip() for line in lines if line.strip() and not line.startswith("#")]
