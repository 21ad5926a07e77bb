"""The commands that only look."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from siteswap.checks import dependencies
from siteswap.cli import render
from siteswap.cli.shared import as_it_is, folder_of, generation_of, gone_of, open_environment, print_json
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import read_current
from siteswap.manifest import Distribution


def list_command(chosen: argparse.Namespace) -> None:
    folder = folder_of(chosen)
    distributions = folder.list() if folder is not None else as_it_is(generation_of(chosen))
    if chosen.json:
        print_json(render.list_json(distributions, gone_of(distributions)))
    else:
        print(render.list_text(distributions, gone_of(distributions)))


def show_command(chosen: argparse.Namespace) -> None:
    generation = open_environment(chosen).current
    distributions = {item.name: item for item in as_it_is(generation)}
    names = [canonicalize_name(name) for name in chosen.names]
    missing = [name for name in names if name not in distributions]
    if missing:
        raise SiteswapError(
            Kind.REQUIREMENT, f"{', '.join(missing)}: not installed", hint="siteswap list shows what is"
        )
    everything = []
    tree = dependencies.needed(list(distributions), distributions.values(), generation.interpreter)
    for name in names:
        item = distributions[name]
        metadata, _ = parse_email(generation.metadata(item))
        data: dict[str, Any] = {
            "name": item.name,
            "version": item.version,
            "requested": item.requested,
            "origin": item.origin,
            "editable": item.editable,
            "editable_gone": bool(gone_of([item])),
            "location": str(generation.layout.path / Path(item.dist_info).parent),
            "requires": sorted(found for found, holders in tree.items() if name in holders),
            "required_by": sorted(tree.get(name, ())),
        }
        for field in ("summary", "home_page", "author", "license"):
            data[field] = metadata.get(field)
        if chosen.files:
            data["files"] = [row.path for row in generation.record(item)]
        everything.append((item, data))
    if chosen.json:
        print_json([data for _, data in everything])
    else:
        print("\n---\n".join(render.show_text(item, data) for item, data in everything))


def export_command(chosen: argparse.Namespace) -> None:
    if chosen.plain:
        _export_plain(chosen)
        return
    folder = folder_of(chosen)
    if folder is not None:
        distributions: Sequence[Distribution] = folder.list()
        lock, python = folder.lock(), folder.python
    else:
        generation = generation_of(chosen)
        distributions = as_it_is(generation)
        lock, python = generation.lock_file().noting(generation.manifest.requirements), generation.interpreter
    if chosen.format != "requirements":
        text = lock.text
        outside = [item.title for item in distributions if item.name not in lock.names]
        if outside:
            chosen.view.note(f"installed by another tool, so not in the lock: {', '.join(outside)}")
    else:
        direct = {item.name: item.location_line for item in lock.direct(python)}
        lines = [direct.get(item.name) or f"{item.name}=={item.version}" for item in distributions]
        text = "".join(f"{line}\n" for line in lines)
    if chosen.output:
        FileSystem().replace(Path(chosen.output).absolute(), text.encode())
    else:
        sys.stdout.write(text)


def _export_plain(chosen: argparse.Namespace) -> None:
    if chosen.format or chosen.output:
        raise SiteswapError(
            Kind.USAGE, "--plain writes no lock file", hint="leave --format and --output out, or --plain"
        )
    environment = open_environment(chosen)
    number = environment.find(chosen.generation) if chosen.generation else None
    made = environment.copy_plain(chosen.plain, number)
    chosen.done = True
    chosen.view.stop()
    print(render.printable_lines(render.copied_text(made)))


def history_command(chosen: argparse.Namespace) -> None:
    past = open_environment(chosen).history()
    if chosen.json:
        print_json(render.history_json(past))
    else:
        print(render.history_text(past))


def diff_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    after = (
        environment.find(chosen.after) if chosen.after else read_current(environment.fs, environment.layout)
    )
    if chosen.before:
        before = environment.find(chosen.before)
    else:
        base = environment.generation(after).manifest.base
        if base is None:
            raise SiteswapError(
                Kind.USAGE, f"generation {after} was made from none", hint="siteswap diff A B"
            )
        before = base
    found = environment.diff(before, after)
    if chosen.json:
        print_json(
            {"before": before, "after": after, "changes": [render.change_json(item) for item in found]}
        )
    else:
        text = "\n".join(render.printable(str(item)) for item in found)
        print(text or f"generations {before} and {after} hold the same")


def log_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    verdicts = environment.verdicts()
    if chosen.which:
        names = [item["name"] for item in verdicts]
        named = [name for name in names if name == chosen.which]
        if not named and (chosen.which.isdecimal() or chosen.which in environment.tags()):
            number = environment.tags().get(chosen.which, chosen.which)
            named = [item["name"] for item in verdicts if str(item["generation"]) == str(number)]
        if not named:
            raise SiteswapError(
                Kind.USAGE,
                f"no verdict of {chosen.which!r} is kept",
                hint="siteswap log shows those that are",
            )
        if not chosen.json:
            print(render.printable_lines(environment.log(named[-1])))
            return
        verdicts = [item for item in verdicts if item["name"] == named[-1]]
    if chosen.json:
        print_json(verdicts)
    else:
        print(render.verdicts_table(verdicts))


def ps_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    current = read_current(environment.fs, environment.layout)
    users = environment.users()
    if chosen.json:
        print_json(
            [
                {
                    "pid": user.pid,
                    "generation": user.generation,
                    "behind": current - user.generation,
                    "uid": user.uid,
                    "command": user.command,
                }
                for user in users
            ]
        )
    else:
        print(render.users_text(users, current))
