"""The commands that change what is installed: take what was typed, call the facade, print the result."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from siteswap.cli import render
from siteswap.cli.shared import (
    constraints_of,
    folder_gates,
    folder_of,
    gates_of,
    open_environment,
    options_of,
    print_json,
    read_file,
    report,
    report_folder,
    typed_word,
)
from siteswap.environment import Environment, read_lock
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.requirements import Request, parse_line
from siteswap.verdict import CheckError


def create_command(chosen: argparse.Namespace) -> None:
    if chosen.generation and not chosen.copy_of:
        raise SiteswapError(Kind.USAGE, "--generation of which environment?", hint="name it with --copy-of")
    made = Environment.create(
        chosen.env,
        python=chosen.python,
        system_site_packages=chosen.system_site_packages,
        command=chosen.typed,
        progress=chosen.view,
        copy_of=chosen.copy_of,
        generation=chosen.generation,
    )
    chosen.view.stop()
    found = made.current.interpreter
    if chosen.json:
        print_json({"environment": str(made.layout.root), "generation": 1, "python": found.version})
        return
    root = str(made.layout.root)
    count = len(made.current.manifest.distributions)
    what = f"a copy of {chosen.copy_of}: {count} distributions," if chosen.copy_of else "an empty environment"
    about = f"{root}: {what} with Python {found.version} ({found.executable})"
    print(render.printable(about))
    print(render.printable(f"activate it with: . {shlex.quote(root)}/bin/activate"))


def adopt_command(chosen: argparse.Namespace) -> None:
    if chosen.strict and chosen.no_check:
        raise SiteswapError(
            Kind.USAGE, "--strict and --no-check exclude each other", hint="leave one of them out"
        )
    adopted = Environment.adopt(
        chosen.env,
        check=not chosen.no_check,
        strict=chosen.strict,
        dry_run=chosen.dry_run,
        python=chosen.python,
        command=chosen.typed,
        progress=chosen.view,
    )
    chosen.done = adopted.done
    chosen.view.stop()
    if chosen.json:
        print_json(render.adopted_json(adopted))
    else:
        print(render.adopted_text(adopted))


def unadopt_command(chosen: argparse.Namespace) -> None:
    came = Environment.unadopt(
        chosen.env,
        drop_tags=chosen.drop_tags,
        dry_run=chosen.dry_run,
        command=chosen.typed,
        progress=chosen.view,
        lock_timeout=chosen.lock_timeout,
    )
    chosen.done = came.done
    chosen.view.stop()
    if chosen.json:
        print_json(render.unadopted_json(came))
    else:
        print(render.unadopted_text(came))


def install_command(chosen: argparse.Namespace) -> None:
    folder = folder_of(chosen)
    environment, fs = open_environment(chosen) if folder is None else None, FileSystem()
    request = Request(
        tuple(parse_line(text, Path.cwd(), fs) for text in chosen.requirements)
        + tuple(parse_line(text, Path.cwd(), fs, editable=True) for text in chosen.editable)
    )
    for name in chosen.requirement:
        request = request.plus(read_file(name, chosen))
    if not request.requirements and not chosen.upgrade:
        raise SiteswapError(Kind.USAGE, "nothing to install", hint="name a requirement, or a file with -r")
    request = request.plus(constraints_of(chosen))
    if environment is None:
        assert folder is not None
        if chosen.target and any(item.editable for item in request.requirements):
            raise SiteswapError(
                Kind.USAGE,
                "nothing in a --target directory can be editable: Python reads no .pth files there",
                hint="install the tree itself, or use an environment",
            )
        done = folder.install(
            request, options_of(chosen), gates=folder_gates(folder, chosen), upgrade=chosen.upgrade,
            allow_overlap=chosen.allow_overlap, dry_run=chosen.dry_run, compile_all=chosen.compile,
            command=chosen.typed,
        )  # fmt: skip
        return report_folder(done, chosen)
    outcome = environment.install(
        request,
        options_of(chosen),
        gates=gates_of(environment, chosen),
        upgrade=chosen.upgrade,
        allow_overlap=chosen.allow_overlap,
        dry_run=chosen.dry_run,
        compile_all=chosen.compile,
        command=chosen.typed,
    )
    report(outcome, chosen)


def uninstall_command(chosen: argparse.Namespace) -> None:
    folder = folder_of(chosen)
    if folder is not None:
        gates = folder_gates(folder, chosen)
        done = folder.uninstall(chosen.names, gates=gates, dry_run=chosen.dry_run, command=chosen.typed)
        return report_folder(done, chosen)
    environment = open_environment(chosen)
    outcome = environment.uninstall(
        chosen.names, gates=gates_of(environment, chosen), dry_run=chosen.dry_run, command=chosen.typed
    )
    report(outcome, chosen)


def sync_command(chosen: argparse.Namespace) -> None:
    path = Path(chosen.file)
    source: Path | Request = path
    if not (path.name == "pylock.toml" or (path.name.startswith("pylock.") and path.suffix == ".toml")):
        source = read_file(chosen.file, chosen).plus(constraints_of(chosen))
    folder = folder_of(chosen)
    if folder is not None:
        wanted = source if isinstance(source, Request) else read_lock(folder.fs, source, options_of(chosen))
        done = folder.sync(
            wanted, options_of(chosen), gates=folder_gates(folder, chosen),
            allow_overlap=chosen.allow_overlap, dry_run=chosen.dry_run,
            compile_all=chosen.compile, command=chosen.typed,
        )  # fmt: skip
        return report_folder(done, chosen)
    environment = open_environment(chosen)
    outcome = environment.sync(
        source,
        options_of(chosen),
        gates=gates_of(environment, chosen),
        allow_overlap=chosen.allow_overlap,
        dry_run=chosen.dry_run,
        compile_all=chosen.compile,
        command=chosen.typed,
    )
    report(outcome, chosen)


def exec_command(chosen: argparse.Namespace) -> None:
    environment = open_environment(chosen)
    words: list[str] = chosen.command
    if len(words) == 1 and len(words[0].split()) > 1:
        words = ["/bin/sh", "-c", words[0]]
    if chosen.as_pip:  # the history has what was typed, not how the runtime leads it here
        chosen.typed = shlex.join(typed_word(word) for word in words[2:])
    try:
        outcome = environment.exec(
            words,
            gates=gates_of(environment, chosen),
            dry_run=chosen.dry_run,
            streams=(0, 2, 2) if chosen.json else (0, 1, 2),
            command=chosen.typed,
        )
    except CheckError as error:
        if chosen.as_pip:  # pip has no such option
            error.hint = f"{error.hint}: siteswap exec OPTION -- {chosen.typed}"
        raise
    report(outcome, chosen)
