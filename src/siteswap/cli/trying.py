"""The commands that try and heal: check, doctor."""

from __future__ import annotations

import argparse
import os

from siteswap.cli import render
from siteswap.cli.shared import gates_of, open_environment, options_of, place, print_json
from siteswap.environment import Environment
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, access_of
from siteswap.progress import Progress


def check_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    number = environment.find(chosen.generation) if chosen.generation else None
    verdict = environment.check(
        number, gates_of(environment, chosen), options_of(chosen), command=chosen.typed
    )
    chosen.view.stop()
    if chosen.json:
        print_json(verdict.to_json())
    else:
        print(render.verdict_text(verdict))


def doctor_command(chosen: argparse.Namespace) -> None:
    from siteswap.doctor.examination import examiner
    from siteswap.doctor.findings import damage
    from siteswap.doctor.repair import Repair, open_layout
    from siteswap.waiting import Waiting

    layout = open_layout(FileSystem(), place(chosen))
    fs = FileSystem(access_of(layout.root))
    view: Progress = chosen.view
    python_path = os.environ.get("PYTHONPATH")
    if not chosen.repair:
        findings = examiner(fs, layout, view, None, python_path).examine().findings
        view.stop()
        if chosen.json:
            print_json(render.findings_json(layout, findings))
        else:
            print(render.findings_text(findings))
        left = damage(findings)
        hint = "siteswap doctor --repair repairs what can be repaired"
    else:
        environment = Environment(layout, fs, progress=view, lock_timeout=chosen.lock_timeout)
        waiting = Waiting(fs, layout, view, chosen.lock_timeout, chosen.typed)
        options, typed = options_of(chosen), chosen.typed
        repair = Repair(
            fs, layout, view, waiting, lambda: gates_of(environment, chosen), options, typed,
            python_path=python_path,
        )  # fmt: skip
        try:
            repaired = repair.run()
        except (SiteswapError, OSError, KeyboardInterrupt) as error:
            for line in repair.done:
                view.note(line)  # each of these steps is whole, and stays done
            if repair.done and isinstance(error, KeyboardInterrupt):
                hint = "siteswap doctor --repair goes on"
                raise SiteswapError(Kind.INTERRUPTED, "interrupted half way", hint=hint) from None
            raise
        chosen.done = True
        view.stop()
        if chosen.json:
            print_json(render.repaired_json(layout, repaired))
        else:
            print(render.repaired_text(repaired))
        left = damage(repaired.after)
        hint = "the next step for each is said there"
    if left:
        count = f"{len(left)} thing{'s are' if len(left) > 1 else ' is'}"
        raise SiteswapError(Kind.DAMAGED, f"{layout.root}: {count} damaged", hint=hint)
