"""The command line: everything a user sees, and no rules of its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType

from siteswap.errors import EXIT_STATUS, Kind, SiteswapError

_WIDEST = 2000
"""Characters of a line of an error: what packages say of themselves may be endless."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (docs/reference.md lists them).

    Every failure is one clear line on stderr with the next step; a traceback
    appears only for a bug and only with SITESWAP_TRACEBACK=1.
    """
    from siteswap.cli import commands, parser, render  # noqa: F401  render: `_tell` may be too late to find it

    words = list(sys.argv[1:] if arguments is None else arguments)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # for those who write programs; what users should know is a note
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        chosen = parser.build().parse_args(words)
        if arguments is None and os.geteuid() == 0 and hasattr(chosen, "env"):
            _hand_over(chosen, words)
        return commands.run(chosen, words)
    except KeyboardInterrupt:
        print("siteswap: interrupted; the environment is as it was", file=sys.stderr)
        return EXIT_STATUS[Kind.INTERRUPTED]
    except SiteswapError as error:
        _tell(error)
        return error.exit_status
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _tell(
            SiteswapError(
                Kind.SYSTEM, f"{where}{error.strerror or error}", hint="the environment is as it was"
            )
        )
        return EXIT_STATUS[Kind.SYSTEM]
    except Exception as error:
        if os.environ.get("SITESWAP_TRACEBACK"):
            raise
        problem = f"BUG: {type(error).__name__}: {error}"
        _tell(SiteswapError(Kind.BUG, problem, hint="SITESWAP_TRACEBACK=1 shows where; please report it"))
        return EXIT_STATUS[Kind.BUG]


def _hand_over(chosen: argparse.Namespace, words: Sequence[str]) -> None:
    """Where root works on somebody else's environment: start over as that user, who can do no harm there.

    Raises SiteswapError (system) for an owner who is no user of this machine, or cannot run siteswap.
    """
    from siteswap import opening, process
    from siteswap.cli import folders
    from siteswap.cli.shared import place
    from siteswap.fs import FileSystem

    fs = FileSystem()
    if "target" in chosen and folders.is_meant(chosen):
        owner = folders.whose(chosen)
        if owner:
            process.start_over_as(process.account(str(owner)), words)
        return
    layout = opening.located(fs, place(chosen))
    if chosen.verb not in ("create", "adopt", "unadopt") and fs.entry(layout.home) is None:
        return  # there is none, as we shall say
    owner = opening.maker(fs, layout)
    if not owner:
        return
    try:
        user = process.account(str(owner))
    except SiteswapError:
        opening.require_trusted(fs, layout)
        return
    process.start_over_as(user, words)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell(error: SiteswapError) -> None:
    from siteswap.cli.render import printable, printable_lines

    if error.detail:
        print(printable_lines(error.detail, _WIDEST), file=sys.stderr)
    print(f"siteswap: {printable(error.message, _WIDEST)}", file=sys.stderr)
    if error.hint:
        print(f"  → {printable(error.hint, _WIDEST)}", file=sys.stderr)
