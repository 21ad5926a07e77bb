"""From the word that was typed to the function of that command; what all of them have in common."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib import import_module

from siteswap.cli import live
from siteswap.cli.shared import print_json, typed_word
from siteswap.verdict import CheckError

_MODULES = {
    "changing": ("create", "adopt", "unadopt", "install", "uninstall", "sync", "exec"),
    "looking": ("list", "show", "export", "history", "diff", "log", "ps"),
    "keeping": ("rollback", "tag", "run", "gc", "cache"),
    "trying": ("check", "doctor"),
}
"""Which module has which commands: only that of the command is imported."""


def run(chosen: argparse.Namespace, words: Sequence[str]) -> int:
    """Run the chosen command; returns 0, or raises SiteswapError."""
    # It is kept in the history, which whoever may run the environment may read.
    chosen.typed = shlex.join(typed_word(word) for word in words)
    chosen.view = live.choose(chosen.quiet)
    chosen.done = False
    try:
        (module,) = (name for name, verbs in _MODULES.items() if chosen.verb in verbs)
        getattr(import_module(f"siteswap.cli.{module}"), f"{chosen.verb}_command")(chosen)
    except KeyboardInterrupt:
        if not chosen.done:
            raise  # else it only cut the report short: the change itself is done
    except CheckError as error:
        if getattr(chosen, "json", False):
            chosen.view.stop()
            verdict = error.verdict.to_json()
            print_json(verdict if chosen.verb == "check" else {"committed": False, "verdict": verdict})
        raise
    finally:
        chosen.view.stop()
    return 0
