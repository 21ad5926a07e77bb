"""The program at a generation's `bin/python`, in two forms that pass the same tests.

`launcher.c` is compiled when the package is built; `binary()` gives the result. Where no compiler was, or
where its result does not run, `stand_in()` gives a /bin/sh script that does the same, some ten milliseconds
slower.

What the shell alters is not in our hands: dash drops environment variables whose names are no identifiers,
and a shell may add PWD.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent

_SCRIPT = """\
#!/bin/sh
# Starts Python in this generation and no other; made by siteswap where no C compiler was at hand.
# The shell has read this text once, through whatever link led here: what it names is what the process gets.
base={base}
if ! [ -x "$base" ]; then
    reason='no such file' status=127
    [ -e "$base" ] && reason='permission denied' status=126
    printf 'siteswap: cannot start the base interpreter %s of %s: %s; next step: %s\\n' \\
        "$base" {generation} "$reason" 'install that Python again, or siteswap create' >&2
    exit "$status"
fi
exec "$base" -I -S -c {program} {generation} "$0" "$@"
"""


@functools.cache
def binary() -> Path | None:
    """The compiled launcher, if the package has one that runs on this machine.

    The file is a program to link or copy to `bin/python` of any generation (it finds out by its own path
    where it is). None when the package was built without a compiler or for another machine, or lies on a file
    system that is mounted noexec. Tried once per process. Raises nothing, locks nothing.
    """
    program = _HERE / "launcher"
    try:
        tried = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None  # not there, or not for this machine: the stand-in does the same
    # Outside of an environment it can only refuse; that it does so in its own words is the proof that it
    # runs.
    return program if tried.returncode == 126 and tried.stderr.startswith(b"siteswap: ") else None


def stand_in(generation: str | os.PathLike[str], base: str | os.PathLike[str]) -> str:
    """The text of a /bin/sh script that is the launcher of one generation.

    `generation` is the absolute path where the generation will be when it is used
    (`ENV/.siteswap/generations/N`, ENV resolved), `base` that of the base interpreter. Unlike the compiled
    launcher the text names its generation, so it must be written afresh for each and never be linked from
    another. Write it to `bin/python`, `bin/python3` and `bin/python3.X` with mode 755, encoded by
    `os.fsencode` (the paths may hold bytes that are no text). Raises ValueError for a path that is not
    absolute or holds a NUL.
    """
    texts = [os.fspath(generation), os.fspath(base)]
    for text in texts:
        if not text.startswith("/") or "\0" in text:
            raise ValueError(f"not an absolute path: {text!r}")
    program = (_HERE / "launch.py").read_text(encoding="utf-8")
    return _SCRIPT.format(base=_quote(texts[1]), generation=_quote(texts[0]), program=_quote(program))


def _quote(text: str) -> str:
    """One word of the shell, whatever `text` holds (a NUL aside)."""
    return "'" + text.replace("'", "'\\''") + "'"
