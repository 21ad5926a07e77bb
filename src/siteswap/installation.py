"""An interpreter's own site-packages: where it is, and whether somebody else manages it (PEP 668)."""

from __future__ import annotations

import configparser
import json
import locale
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from siteswap import process
from siteswap.errors import Kind, SiteswapError

# Runs in the interpreter, isolated, as pip's own start would find things: with `site`, which tells
# a virtual environment from an installation.
_PROBE = """
import json, os, sys, sysconfig
scheme = (getattr(sysconfig, "get_default_scheme", None) or sysconfig._get_default_scheme)()
marker = os.path.join(sysconfig.get_path("stdlib", scheme), "EXTERNALLY-MANAGED")
try:
    with open(marker, encoding="utf-8", errors="replace") as stream:
        marked = stream.read()
except FileNotFoundError:
    marked = None
print(json.dumps({
    "prefix": sys.prefix, "virtual": sys.prefix != sys.base_prefix, "program": sys.executable,
    "paths": {name: os.path.abspath(sysconfig.get_path(name, scheme))
              for name in ("purelib", "platlib", "scripts", "data", "include")},
    "marker": marker, "marked": marked,
}))
"""


@dataclass(frozen=True)
class Installation:
    """What an interpreter says of where its packages are."""

    prefix: str
    virtual: bool
    """It is that of a virtual environment."""
    program: str
    paths: Mapping[str, str]
    marker: str
    """Where an external manager says that it is one."""
    marked: str | None
    """What it says there; None where nobody does."""


def ask(program: Path) -> Installation:
    """Ask the interpreter at `program`. Raises SiteswapError (usage) for something that is none."""
    done = process.run([program, "-I", "-c", _PROBE], timeout=60)
    try:
        return Installation(**json.loads(done.stdout))
    except (ValueError, TypeError):
        raise SiteswapError(
            Kind.USAGE,
            f"{program} does not answer as a Python interpreter",
            hint="name another with --python",
            detail=done.stderr.strip() or None,
        ) from None


def require_unmanaged(found: Installation) -> None:
    """Refuse an interpreter whose packages are another program's, with that one's own words, as pip does.

    Raises SiteswapError (system).
    """
    if found.marked is not None:
        language = locale.getlocale(locale.LC_MESSAGES)[0]
        raise SiteswapError(
            Kind.SYSTEM,
            f"{found.program} is externally managed ({found.marker})",
            hint="make an environment with siteswap create; --break-system-packages goes on all the same, "
            "at the risk of breaking your Python installation or operating system",
            detail=reason(found.marked, language),
        )


def reason(marked: str, language: str | None) -> str | None:
    """What a marker says, in the reader's language where it knows that (PEP 668). Pure."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(marked)
        section = parser["externally-managed"]
    except (configparser.Error, KeyError):
        return None  # a marker without words is one all the same
    names = ["Error"]
    if language:
        short = language.partition("_")[0]
        names = [f"Error-{language}", f"Error-{language.replace('_', '-')}", f"Error-{short}", "Error"]
    return next((section[name].strip() for name in names if name in section), None)
