"""The module that each generation loads at start-up, and the file that makes `site` load it.

The modules beside this file are copied into the generation; they are never imported here.
"""

from __future__ import annotations

from pathlib import Path

MODULE = "_siteswap"
"""The name of the module; its file is `_siteswap.py` in the generation's site-packages."""

LATER = "_siteswap_advance"
"""The name of a second one, which the first loads when an import would fail."""

_FIRST_WITH_START_FILES = (3, 18)  # PEP 829


def startup_file(version: tuple[int, int]) -> tuple[str, str]:
    """Name and text of the file in site-packages that starts the runtime on Python `version` (major, minor).

    One of the two kinds, never both: an interpreter that knows both would start the runtime twice. Pure.
    """
    if version < _FIRST_WITH_START_FILES:
        return f"00-{MODULE.strip('_')}.pth", f"import {MODULE}; {MODULE}.start()\n"
    return f"00-{MODULE.strip('_')}.start", f"{MODULE}:start\n"


def sources() -> dict[str, str]:
    """File name and text of each module. Raises OSError when the package is damaged."""
    names = (f"{MODULE}.py", f"{LATER}.py")
    return {name: Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names}
