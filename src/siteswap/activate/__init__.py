"""The activate scripts of an environment: one template a shell, the path quoted for that shell. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib import resources


def scripts(environment: str, prompt: str) -> dict[str, str]:
    """Name and text of each activate script for the environment at that absolute path."""
    values = {"@ENVIRONMENT@": environment, "@PROMPT@": prompt}

    def filled(name: str, quote: Callable[[str], str]) -> str:
        # In one pass: what is filled in may itself look like a place to fill.
        return re.sub("@ENVIRONMENT@|@PROMPT@", lambda found: quote(values[found[0]]), _template(name))

    quotes = {"activate": shlex.quote, "activate.fish": _fish, "activate.csh": _csh}
    return {name: filled(name, quote) for name, quote in quotes.items()}


def _template(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.in").read_text("utf-8")


def _fish(text: str) -> str:
    """Inside single quotes fish knows two escapes: of the quote and of the backslash."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _csh(text: str) -> str:
    """Csh expands `!` and ends a line even inside single quotes; a backslash stops both."""
    quoted = text.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n")
    return f"'{quoted}'"
