"""The commands about what is kept: going back, tags, running in a generation, collecting, the cache."""

from __future__ import annotations

import argparse

from siteswap.cache import open_cache
from siteswap.cli import render
from siteswap.cli.shared import open_environment, print_json, report
from siteswap.collect import DEFAULT_KEEP
from siteswap.errors import Kind, SiteswapError
from siteswap.layout import Number


def rollback_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    target = environment.find(chosen.generation) if chosen.generation else None
    report(environment.rollback(target, command=chosen.typed), chosen)


def tag_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    if chosen.delete is not None:
        if chosen.generation is not None:
            raise SiteswapError(Kind.USAGE, "--delete takes only the tag", hint="siteswap tag --delete NAME")
        environment.untag(chosen.delete)
    elif chosen.generation is not None and chosen.name is not None:
        environment.tag(environment.find(chosen.generation), chosen.name)
    elif chosen.generation is not None:
        raise SiteswapError(Kind.USAGE, "which name?", hint="siteswap tag N NAME")
    tags = environment.tags()
    if chosen.json:
        print_json(tags)
    elif tags:
        print(render.table(("Tag", "Gen"), [(name, str(number)) for name, number in sorted(tags.items())]))


def run_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    number = environment.find(chosen.generation) if chosen.generation else None
    environment.run(number, chosen.command)


def gc_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    keep = DEFAULT_KEEP if chosen.keep is None else chosen.keep
    if keep < 0:
        raise SiteswapError(Kind.USAGE, "--keep takes a number of 0 or more", hint="siteswap gc --keep 3")
    gone: list[Number] = []
    if chosen.dry_run:
        verdicts = environment.plan_collection(keep)
    else:
        gone, verdicts = environment.gc(keep, command=chosen.typed)
    if chosen.json:
        print_json(
            {
                "removed": gone,
                "generations": [
                    {"generation": item.number, "keep": item.keep, "reason": item.reason} for item in verdicts
                ],
            }
        )
    else:
        print(render.collection_text(verdicts, gone, dry_run=chosen.dry_run))


def cache_command(chosen: argparse.Namespace) -> None:
    cache = open_cache()
    if chosen.action == "dir":
        print(cache.root)
    elif chosen.action == "size":
        print(cache.size())
    else:
        print(f"{cache.prune() / 1e6:.1f} MB removed from {cache.root}")
