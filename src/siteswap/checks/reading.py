"""What the static checks read of a generation, whatever state it is in, and how they show it.

Names and texts in here come from strangers: they may be missing, huge, no text
at all, or hold characters that do things to a terminal.
"""

from __future__ import annotations

from siteswap import plan
from siteswap.errors import SiteswapError
from siteswap.generation import Generation
from siteswap.manifest import Distribution, Interpreter

_LARGEST = 64 << 20
"""Bytes of the largest file that is read whole: beyond, it is not the text that it should be."""


class UnreadableError(Exception):
    """A file that is not the shared library it should be; the message says why."""


def rows(generation: Generation, distribution: Distribution) -> list[plan.Row]:
    """The distribution's files; none where its RECORD cannot be read, which the check of files tells."""
    try:
        return generation.record(distribution)
    except SiteswapError:
        return []


def content(generation: Generation, path: str) -> bytes | None:
    """A file of the prefix, or None where there is no regular file that can be read."""
    where = generation.layout.path / path
    try:
        entry = generation.fs.entry(where)
        if entry is None or entry.kind != "file" or entry.size > _LARGEST:
            return None
        return generation.fs.read(where)
    except (OSError, ValueError):  # ValueError: a name with a NUL in it
        return None


def site_directories(interpreter: Interpreter) -> tuple[str, ...]:
    """Where modules are installed, relative to the prefix: one directory, or two that differ. Pure."""
    return tuple(dict.fromkeys((interpreter.schemes["purelib"], interpreter.schemes["platlib"])))


def below_site(path: str, interpreter: Interpreter) -> str:
    """A path of the prefix as people say it: from site-packages on, where it lies in there. Pure."""
    for directory in site_directories(interpreter):
        if path.startswith(f"{directory}/"):
            return path[len(directory) + 1 :]
    return path


def shown(text: str, limit: int = 200) -> str:
    """Foreign text as part of one line: nothing in it but what can be printed, and not too much. Pure."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(character if character.isprintable() else "\ufffd" for character in cut)
