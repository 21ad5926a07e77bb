"""The programs of an environment: entry points and `.data/scripts`, with the logical interpreter. Pure.

All say `#!ENV/bin/python`, whichever generation they stand in, so they are the
same in every generation; the launcher ties what runs to one.
"""

from __future__ import annotations

import re

_KERNEL_LIMIT = 127
"""Bytes of a first line that every kernel still reads whole, `#!` included (BINPRM_BUF_SIZE was 128)."""
_CODING = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*[-\w.]+")
_PLAIN = re.compile(rb"[^\s\\'\"]+\Z")


def shebang(python: str) -> bytes:
    """The first line, or lines, that run a script with `python` (an absolute path).

    Where the kernel could not take the path in one line (too long, or with white
    space) /bin/sh executes it: the lines are a string to Python.
    """
    path = python.encode("utf-8", "surrogateescape")
    if len(path) + 2 <= _KERNEL_LIMIT and _PLAIN.match(path):
        return b"#!" + path + b"\n"
    # In sh 'a'"'"'b' is a'b, and 'a'"\\"'b' is a\b; to Python both are harmless inside '''…'''.
    quoted = path.replace(b"'", b"'\"'\"'").replace(b"\\", b"'\"\\\\\"'")
    return b"#!/bin/sh\n'''exec' '" + quoted + b"' \"$0\" \"$@\"\n' '''\n"


def entry_point(name: str, module: str, attribute: str, section: str, python: str) -> bytes:
    """The program of one entry point (PyPA entry points specification)."""
    from installer.scripts import Script

    _, text = Script(name, module, attribute, "gui" if section == "gui" else "console").generate(
        "/python", "posix"
    )
    return shebang(python) + text.partition(b"\n")[2]


def rewritten(content: bytes, python: str) -> bytes | None:
    """A script of a wheel with `#!python` put right (binary distribution format); None when there is none."""
    if not content.startswith(b"#!python"):
        return None
    first, rest = shebang(python), content.partition(b"\n")[2]
    if first.startswith(b"#!/bin/sh\n") and _CODING.match(rest):
        # Python looks for the encoding in the first two lines only (PEP 263); to sh it is a comment.
        coding, _, rest = rest.partition(b"\n")
        first = first.replace(b"\n", b"\n" + coding.rstrip(b"\r") + b"\n", 1)
    return first + rest
