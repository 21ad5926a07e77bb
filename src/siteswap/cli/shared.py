"""What commands share: which environment is meant, what was asked for, how results are told."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siteswap.cli import folders, render
from siteswap.environment import Environment
from siteswap.errors import Kind, SiteswapError
from siteswap.fetch import without_password
from siteswap.fs import FileSystem
from siteswap.gates import Gates
from siteswap.generation import Generation
from siteswap.layout import Layout
from siteswap.manifest import Distribution
from siteswap.progress import Progress
from siteswap.requirements import Request, parse_file
from siteswap.resolve import Options
from siteswap.ways import Way

if TYPE_CHECKING:
    from siteswap.folder import Folder, FolderOutcome
    from siteswap.transaction import Outcome


def place(chosen: argparse.Namespace) -> Path:
    """Where the environment is, or is to be."""
    return Path(chosen.env or os.environ.get("VIRTUAL_ENV") or ".venv")


def open_environment(chosen: argparse.Namespace) -> Environment:
    """The environment that is meant. Raises SiteswapError (usage) where there is none."""
    path, fs = place(chosen), FileSystem()
    tree = chosen.env and fs.entry(Path(path, "pyproject.toml")) and not fs.entry(Path(path, ".siteswap"))
    if tree:
        raise SiteswapError(
            Kind.USAGE,
            f"{path} is a source tree, not an environment: -e names the environment",
            hint=f"siteswap install --editable {shlex.quote(chosen.env)}",
        )
    view: Progress = chosen.view
    return Environment.open(path, progress=view, lock_timeout=getattr(chosen, "lock_timeout", None))


def folder_of(chosen: argparse.Namespace) -> Folder | None:
    """The plain directory that the command is about; None where it is about an environment."""
    if not folders.is_meant(chosen):
        return None
    if getattr(chosen, "generation", None):
        raise SiteswapError(Kind.USAGE, "a plain directory has no generations", hint="leave --generation out")
    return folders.open_folder(chosen)


def folder_gates(folder: Folder, chosen: argparse.Namespace) -> Gates:
    """The gates of a change of a plain directory."""
    return gates_of(Environment(Layout(folder.place.top), folder.fs, progress=chosen.view), chosen)


def report_folder(outcome: FolderOutcome, chosen: argparse.Namespace) -> None:
    """Say what became of a plain directory."""
    chosen.done = outcome.committed
    chosen.view.stop()
    if chosen.json:
        print_json(folders.outcome_json(outcome))
    else:
        print(render.printable_lines(folders.outcome_text(outcome, dry_run=chosen.dry_run)))


def generation_of(chosen: argparse.Namespace) -> Generation:
    """The generation that is meant: the one named, else the current one."""
    environment = open_environment(chosen)
    if chosen.generation:
        return environment.generation(environment.find(chosen.generation))
    return environment.current


def as_it_is(generation: Generation) -> list[Distribution]:
    """What is really there: the manifest's distributions, as other tools left them."""
    drift = generation.drift()
    foreign = {item.name: item for item in drift.foreign}
    kept = [
        item
        for item in generation.manifest.distributions
        if item.name not in foreign and item.name not in drift.removed
    ]
    return sorted([*kept, *foreign.values()], key=lambda item: item.name)


def gone_of(distributions: Iterable[Distribution]) -> set[str]:
    """Source directories of editables that are not there."""
    fs = FileSystem()
    return {
        item.editable for item in distributions if item.editable and fs.entry(Path(item.editable)) is None
    }


def read_file(name: str, chosen: argparse.Namespace) -> Request:
    """What a requirements file, a pyproject.toml or stdin (`-`) asks for."""
    path = Path("/dev/stdin") if name == "-" else Path(name)
    return parse_file(path, FileSystem(), extras=chosen.extra, groups=chosen.group)


def constraints_of(chosen: argparse.Namespace) -> Request:
    """The constraint files that were named. Raises SiteswapError (usage) for one that is not there."""
    paths = tuple(Path(name).absolute() for name in chosen.constraint)
    for path in paths:
        if FileSystem().entry(path) is None:
            raise SiteswapError(
                Kind.USAGE, f"there is no constraints file {path}", hint="check the path given to -c"
            )
    return Request(constraints=paths)


def gates_of(environment: Environment, chosen: argparse.Namespace) -> Gates:
    """The standing gates with those that were named. Raises SiteswapError (usage)."""
    no_check = getattr(chosen, "no_check", False)
    if no_check and (chosen.check or chosen.test):
        raise SiteswapError(
            Kind.USAGE,
            f"--{'check' if chosen.check else 'test'} and --no-check exclude each other",
            hint="leave one of them out",
        )
    return environment.gates(
        enabled=not no_check,
        commands=chosen.check,
        tests=chosen.test,
        allow_broken=chosen.allow_broken,
        startup_code=not getattr(chosen, "no_startup_code", False),
        offline=chosen.offline_checks,
        user=chosen.check_user,
    )


def options_of(chosen: argparse.Namespace) -> Options:
    """What was said about indexes and builds, in uv's spelling. Raises SiteswapError (usage)."""
    words: list[str] = []
    if chosen.index_url:
        words += ["--index-url", chosen.index_url]
    for name, values in (
        ("--extra-index-url", chosen.extra_index_url),
        ("--find-links", chosen.find_links),
        ("--allow-insecure-host", chosen.trusted_host),
        ("--no-binary", chosen.no_binary),
        ("--only-binary", chosen.only_binary),
    ):
        for value in values:
            local = name == "--find-links" and "://" not in value
            words += [name, str(Path(value).absolute()) if local else value]
    for name, value in (
        ("--index-strategy", chosen.index_strategy),
        ("--keyring-provider", chosen.keyring_provider),
        ("--resolution", chosen.resolution),
        ("--exclude-newer", chosen.exclude_newer),
    ):
        if value:
            words += [name, value]
    for name, on in (
        ("--no-index", chosen.no_index),
        ("--no-build", chosen.no_build),
        ("--offline", chosen.offline),
    ):
        if on:
            words.append(name)
    if chosen.pre:
        words += ["--prerelease", "allow"]
    for setting in chosen.config_setting:
        if "=" not in setting:
            raise SiteswapError(
                Kind.USAGE, f"not a setting: {setting!r}", hint="write --config-setting KEY=VALUE"
            )
    python = str(place(chosen).absolute() / "bin/python") if chosen.no_build_isolation else None
    return Options(
        tuple(words),
        no_index=chosen.no_index,
        no_deps=chosen.no_deps,
        require_hashes=chosen.require_hashes,
        way=Way(python, tuple(chosen.config_setting)),
    )


def report(outcome: Outcome, chosen: argparse.Namespace) -> None:
    """Say what became of a transaction."""
    chosen.done = outcome.committed
    chosen.view.stop()
    dry_run = getattr(chosen, "dry_run", False)
    if chosen.json:
        print_json(render.outcome_json(outcome))
    else:
        # What pip prints on stdout may be for a program: a report, say.
        stream = sys.stderr if getattr(chosen, "as_pip", False) else sys.stdout
        print(render.outcome_text(outcome, dry_run=dry_run), file=stream)


def print_json(value: Any) -> None:
    """Print a result for scripts, with nothing in it that a terminal would obey."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    plain = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    print("".join(plain))


def typed_word(word: str) -> str:
    """A word as it was typed, but for passwords in addresses."""
    option, equals, url = word.partition("=")
    if "://" in option or "://" not in url:
        return without_password(word) if "://" in word else word
    return f"{option}{equals}{without_password(url)}"
