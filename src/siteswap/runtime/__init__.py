"""The module that each generation loads at start-up, and the file that makes `site` load it.

`_siteswap.py` beside this file is copied into the generation; it is never imported here.
"""

from __future__ import annotations

from pathlib import Path

MODULE = "_siteswap"
"""The name of the module; its file is `_siteswap.py` in the generation's site-packages."""

_FIRST_WITH_START_FILES = (3, 18)  # PEP 829


def startup_file(version: tuple[int, int]) -> tuple[str, str]:
    """Name and text of the file in site-packages that starts the runtime on Python `version` (major, minor).

    One of the two kinds, never both: an interpreter that knows both would start the runtime twice. Pure.
    """
    if version < _FIRST_WITH_START_FILES:
        return f"00-{MODULE.strip('_')}.pth", f"import {MODULE}; {MODULE}.start()\n"
    return f"00-{MODULE.strip('_')}.start", f"{MODULE}:start\n"


def runtime_source() -> str:
    """The text of `_siteswap.py`. Raises OSError when the package is damaged."""
    return Path(__file__).with_name(f"{MODULE}.py").read_text(encoding="utf-8")
