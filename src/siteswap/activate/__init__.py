"""The activate scripts of an environment: one template a shell, the path quoted for that shell. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

_HERE = """"$(
    if [ -n "${BASH_VERSION-}" ]; then
        here=$BASH_SOURCE
    elif [ -n "${ZSH_VERSION-}" ]; then
        here=${(%):-%x}
    elif [ -n "${KSH_VERSION-}" ]; then
        here=${.sh.file}
    else
        exit 1
    fi
    realpath -- "$(dirname -- "$here")/.."
)"
if [ -z "$VIRTUAL_ENV" ]; then
    echo 'activate: this shell does not say where a script is that it reads: use bash, zsh, ksh or fish' >&2
    unset VIRTUAL_ENV
    return 1
fi"""
"""For sh: the directory above the script's own, whatever that is by now."""

_SECOND = {
    "activate": "$VIRTUAL_ENV/.siteswap/bin:",
    "activate.fish": '"$VIRTUAL_ENV/.siteswap/bin" ',
    "activate.csh": "$VIRTUAL_ENV:q/.siteswap/bin:",
}
"""A second directory on PATH, for each shell: where the environment has no pip, one there says what to do."""


def scripts(environment: str, prompt: str) -> dict[str, str]:
    """Name and text of each activate script for the environment at that absolute path."""
    return _filled(environment, prompt, {name: _template(name, second) for name, second in _SECOND.items()})


def plain(environment: str, prompt: str) -> dict[str, str]:
    """The same for a virtual environment that siteswap has nothing to do with."""
    return _filled(environment, prompt, {name: _plain(name) for name in _SECOND})


def relocatable(prompt: str | None) -> dict[str, str]:
    """The same for one that may be moved: each asks its shell where it is. csh cannot tell, and has none."""
    values = {
        "activate": (_HERE, shlex.quote(prompt) if prompt else '"${VIRTUAL_ENV##*/}"'),
        "activate.fish": (
            "(realpath (dirname (status filename))/..)",
            _fish(prompt) if prompt else '(basename "$VIRTUAL_ENV")',
        ),
    }
    return {
        name: _plain(name).replace("@ENVIRONMENT@", where).replace("@PROMPT@", shown)
        for name, (where, shown) in values.items()
    }


def _filled(environment: str, prompt: str, templates: Mapping[str, str]) -> dict[str, str]:
    values = {"@ENVIRONMENT@": environment, "@PROMPT@": prompt}
    quotes: dict[str, Callable[[str], str]]
    quotes = {"activate": shlex.quote, "activate.fish": _fish, "activate.csh": _csh}

    def filled(template: str, quote: Callable[[str], str]) -> str:
        # In one pass: what is filled in may itself look like a place to fill.
        return re.sub("@ENVIRONMENT@|@PROMPT@", lambda found: quote(values[found[0]]), template)

    return {name: filled(template, quotes[name]) for name, template in templates.items()}


def _plain(name: str) -> str:
    """A template without what is siteswap's: the second directory on PATH, and the names."""
    text = _template(name, second="")
    return text.replace("_SITESWAP_OLD_", "_OLD_VIRTUAL_").replace("_siteswap_old_", "_old_virtual_")


def _template(name: str, second: str) -> str:
    return Path(__file__).with_name(f"{name}.in").read_text("utf-8").replace("@SECOND@", second)


def _fish(text: str) -> str:
    """Inside single quotes fish knows two escapes: of the quote and of the backslash."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _csh(text: str) -> str:
    """Csh expands `!` and ends a line even inside single quotes; a backslash stops both."""
    quoted = text.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n")
    return f"'{quoted}'"
