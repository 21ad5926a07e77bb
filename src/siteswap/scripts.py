"""The programs of an environment: entry points and `.data/scripts`, with the logical interpreter. Pure.

All say `#!ENV/bin/python`, whichever generation they stand in, so they are the
same in every generation; the launcher ties what runs to one.
"""

from __future__ import annotations

import os
import re

_KERNEL_LIMIT = 127
"""Bytes of a first line that every kernel still reads whole, `#!` included (BINPRM_BUF_SIZE was 128)."""
_CODING = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*[-\w.]+")
_THROUGH_SH = re.compile(rb"#!/bin/sh\n(?P<coding>[ \t\f]*#[^\n]*\n)?(?P<exec>'''exec' [^\n]*\n)' '''\n")
_OPTIONS = re.compile(rb"( -[A-Za-z]+)?\Z")
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


def relocatable(content: bytes, root: str) -> bytes | None:
    """A script that runs with the interpreter of the environment at `root`, made to run with that beside it.

    Whoever wrote its first lines; None for what is no such script. It needs /bin/sh, dirname and realpath.
    """
    found = _head(content, root)
    if found is None:
        return None
    coding, options, rest = found
    here = b'"$(dirname -- "$(realpath -- "$0")")"/\'python\'' + options
    return _with_coding(b"#!/bin/sh\n'''exec' " + here + b" \"$0\" \"$@\"\n' '''\n", coding) + rest


def moved(content: bytes, root: str, python: str) -> bytes | None:
    """The same, made to run with `python` (an absolute path)."""
    found = _head(content, root)
    if found is None:
        return None
    coding, options, rest = found
    first = shebang(python)
    if not first.startswith(b"#!/bin/sh\n"):
        return first.rstrip(b"\n") + options + b"\n" + coding + rest
    return _with_coding(first.replace(b'\' "$0"', b"'" + options + b' "$0"'), coding) + rest


def _with_coding(first: bytes, coding: bytes) -> bytes:
    """The lines for /bin/sh; Python looks for the encoding in the first two lines only (PEP 263)."""
    return first.replace(b"\n", b"\n" + coding, 1)


def _head(content: bytes, root: str) -> tuple[bytes, bytes, bytes] | None:
    """What the first lines of a script say (encoding, options), and the rest, if that environment runs it."""
    place = re.escape(os.fsencode(f"{root}/bin/python"))
    found = re.match(rb"#![ \t]*" + place + rb"[0-9.]*t?(?:[ \t]+([^\r\n]*?))?[ \t]*\r?\n", content)
    coding, options = b"", b""
    if found:
        options = b" " + found[1] if found[1] else b""
        if not _OPTIONS.match(options):
            return None
    else:
        found = _THROUGH_SH.match(content)
        own = shebang(f"{root}/bin/python").splitlines(keepends=True)[1:2]
        if not found or (
            found["exec"] not in own and not re.search(place + rb"[0-9.]*t?['\" ]", found["exec"])
        ):
            return None
        coding = found["coding"] or b""
    rest = content[found.end() :]
    if not coding and _CODING.match(rest):
        coding, _, rest = rest.partition(b"\n")
        coding = coding.rstrip(b"\r") + b"\n"
    return coding, options, rest


def rebound(content: bytes, before: str, after: str) -> bytes | None:
    """A program for another interpreter than the one that it names; None where it names none of `before`."""
    first = shebang(before)
    if content.startswith(first):
        return rewritten(b"#!python\n" + content[len(first) :], after)
    if first.startswith(b"#!/bin/sh\n") and content.startswith(b"#!/bin/sh\n"):
        # A line that names the encoding stands between (see `rewritten`).
        rest = first.partition(b"\n")[2]
        coding, newline, tail = content.partition(b"\n")[2].partition(b"\n")
        if _CODING.match(coding) and tail.startswith(rest):
            return rewritten(b"#!python\n" + coding + newline + tail[len(rest) :], after)
    return None
