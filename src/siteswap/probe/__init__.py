"""Programs that checks run: they import nothing of siteswap.

`supervise.py` runs under siteswap's own interpreter and starts every check, confined;
`imports.py` and `compile.py` run in a candidate's interpreter.
"""

from __future__ import annotations

from pathlib import Path

SUPERVISE = Path(__file__).with_name("supervise.py")
"""The supervisor's program."""


def import_source() -> str:
    """The program that imports modules, for `python -c`. Raises OSError for a damaged package."""
    return _text("imports.py")


def compile_source() -> str:
    """The program that compiles sources, for `python -c`. Raises OSError for a damaged package."""
    return _text("compile.py")


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
