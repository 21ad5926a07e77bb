"""Commands on plain directories: `--target DIR`, `--python PY`, `--system`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siteswap import interpreter, opening
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.layout import Layout

if TYPE_CHECKING:
    from siteswap.folder import Folder, FolderOutcome

SYSTEM = "python3"
"""What --system means: the interpreter of that name, first on PATH."""


def is_meant(chosen: argparse.Namespace) -> bool:
    """Whether the command is about a plain directory, not an environment. Raises SiteswapError (usage)."""
    named = [
        option
        for option, value in (
            ("--target", chosen.target),
            ("--system", chosen.system),
            ("--env", chosen.env),
            ("--python", chosen.python),
        )
        if value
    ]
    if len(named) > 1 and named != ["--target", "--python"]:
        raise SiteswapError(
            Kind.USAGE, f"{' and '.join(named)} exclude each other", hint="leave all but one of them out"
        )
    if chosen.break_system_packages and not (chosen.system or (chosen.python and not chosen.target)):
        raise SiteswapError(
            Kind.USAGE,
            "--break-system-packages is about the packages of an interpreter",
            hint="name it with --python PY or --system",
        )
    return bool(named) and named != ["--env"]


def open_folder(chosen: argparse.Namespace) -> Folder:
    """The directory that was named. Raises SiteswapError."""
    from siteswap.folder import Folder

    about: Any = {"progress": chosen.view, "lock_timeout": getattr(chosen, "lock_timeout", None)}
    if chosen.target:
        return Folder.target(chosen.target, python=chosen.python, **about)
    return Folder.site_packages(
        chosen.python or SYSTEM,
        break_system_packages=chosen.break_system_packages,
        only_read=chosen.verb in ("list", "export"),
        **about,
    )


def whose(chosen: argparse.Namespace) -> int | None:
    """The id of the user whose directory or interpreter it is; None where it is trusted whoever that is."""
    fs = FileSystem()
    if chosen.target:
        return opening.maker(fs, Layout(fs.resolve(Path(chosen.target).absolute())))
    return opening.maker(fs, Layout(fs.resolve(interpreter.find(chosen.python or SYSTEM, fs))))


def outcome_text(outcome: FolderOutcome, *, dry_run: bool = False) -> str:
    """The summary of a change."""
    lines = [f"  {change}" for change in outcome.changes]
    if dry_run:
        return "\n".join(["would change:", *lines] if lines else ["nothing would change"])
    if not outcome.committed:
        return f"nothing to do in {outcome.top}"
    return "\n".join(
        [f"{outcome.top}: changed", *(lines or ["  the same packages; how they are noted changed"])]
    )


def outcome_json(outcome: FolderOutcome) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "directory": str(outcome.top),
        "committed": outcome.committed,
        "swap": outcome.swap,
        "why": outcome.why,
        "changes": [
            {"name": change.name, "before": change.before, "after": change.after}
            for change in outcome.changes
        ],
        "notes": list(outcome.notes),
        "verdict": outcome.verdict.to_json() if outcome.verdict is not None else None,
    }
