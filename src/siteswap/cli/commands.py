"""One function a command: take what was typed, call the facade, print the result."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from siteswap.cache import open_cache
from siteswap.checks import dependencies
from siteswap.cli import folders, live, render
from siteswap.collect import DEFAULT_KEEP
from siteswap.environment import Environment, read_lock
from siteswap.errors import Kind, SiteswapError
from siteswap.fetch import without_password
from siteswap.folder import Folder, FolderOutcome
from siteswap.fs import FileSystem, access_of
from siteswap.gates import Gates
from siteswap.generation import Generation, read_current
from siteswap.layout import Layout, Number
from siteswap.manifest import Distribution
from siteswap.progress import Progress
from siteswap.requirements import Request, parse_file, parse_line
from siteswap.resolve import Options
from siteswap.sources import Way
from siteswap.transaction import Outcome
from siteswap.verdict import CheckError


def run(chosen: argparse.Namespace, words: Sequence[str]) -> int:
    """Run the chosen command; returns 0, or raises SiteswapError."""
    # It is kept in the history, which whoever may run the environment may read.
    chosen.typed = shlex.join(_without_password(word) for word in words)
    chosen.view = live.choose(chosen.quiet)
    chosen.done = False
    try:
        _COMMANDS[chosen.verb](chosen)
    except KeyboardInterrupt:
        if not chosen.done:
            raise  # else it only cut the report short: the change itself is done
    except CheckError as error:
        if getattr(chosen, "json", False):
            chosen.view.stop()
            verdict = error.verdict.to_json()
            _print_json(verdict if chosen.verb == "check" else {"committed": False, "verdict": verdict})
        raise
    finally:
        chosen.view.stop()
    return 0


def _create(chosen: argparse.Namespace) -> None:
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
        _print_json({"environment": str(made.layout.root), "generation": 1, "python": found.version})
        return
    root = str(made.layout.root)
    count = len(made.current.manifest.distributions)
    what = f"a copy of {chosen.copy_of}: {count} distributions," if chosen.copy_of else "an empty environment"
    about = f"{root}: {what} with Python {found.version} ({found.executable})"
    print(render.printable(about))
    print(render.printable(f"activate it with: . {shlex.quote(root)}/bin/activate"))


def _adopt(chosen: argparse.Namespace) -> None:
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
        _print_json(render.adopted_json(adopted))
    else:
        print(render.adopted_text(adopted))


def _unadopt(chosen: argparse.Namespace) -> None:
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
        _print_json(render.unadopted_json(came))
    else:
        print(render.unadopted_text(came))


def _install(chosen: argparse.Namespace) -> None:
    folder = _folder(chosen)
    environment, fs = _open(chosen) if folder is None else None, FileSystem()
    request = Request(
        tuple(parse_line(text, Path.cwd(), fs) for text in chosen.requirements)
        + tuple(parse_line(text, Path.cwd(), fs, editable=True) for text in chosen.editable)
    )
    for name in chosen.requirement:
        request = request.plus(_read_file(name, chosen))
    if not request.requirements and not chosen.upgrade:
        raise SiteswapError(Kind.USAGE, "nothing to install", hint="name a requirement, or a file with -r")
    request = request.plus(_constraints(chosen))
    if environment is None:
        assert folder is not None
        if chosen.target and any(item.editable for item in request.requirements):
            raise SiteswapError(
                Kind.USAGE,
                "nothing in a --target directory can be editable: Python reads no .pth files there",
                hint="install the tree itself, or use an environment",
            )
        done = folder.install(
            request, _options(chosen), gates=_folder_gates(folder, chosen), upgrade=chosen.upgrade,
            allow_overlap=chosen.allow_overlap, dry_run=chosen.dry_run, compile_all=chosen.compile,
            command=chosen.typed,
        )  # fmt: skip
        return _report_folder(done, chosen)
    outcome = environment.install(
        request,
        _options(chosen),
        gates=_gates(environment, chosen),
        upgrade=chosen.upgrade,
        allow_overlap=chosen.allow_overlap,
        dry_run=chosen.dry_run,
        compile_all=chosen.compile,
        command=chosen.typed,
    )
    _report(outcome, chosen)


def _uninstall(chosen: argparse.Namespace) -> None:
    folder = _folder(chosen)
    if folder is not None:
        gates = _folder_gates(folder, chosen)
        done = folder.uninstall(chosen.names, gates=gates, dry_run=chosen.dry_run, command=chosen.typed)
        return _report_folder(done, chosen)
    environment = _open(chosen)
    outcome = environment.uninstall(
        chosen.names, gates=_gates(environment, chosen), dry_run=chosen.dry_run, command=chosen.typed
    )
    _report(outcome, chosen)


def _sync(chosen: argparse.Namespace) -> None:
    path = Path(chosen.file)
    source: Path | Request = path
    if not (path.name == "pylock.toml" or (path.name.startswith("pylock.") and path.suffix == ".toml")):
        source = _read_file(chosen.file, chosen).plus(_constraints(chosen))
    folder = _folder(chosen)
    if folder is not None:
        wanted = source if isinstance(source, Request) else read_lock(folder.fs, source, _options(chosen))
        done = folder.sync(
            wanted, _options(chosen), gates=_folder_gates(folder, chosen), allow_overlap=chosen.allow_overlap,
            dry_run=chosen.dry_run, compile_all=chosen.compile, command=chosen.typed,
        )  # fmt: skip
        return _report_folder(done, chosen)
    environment = _open(chosen)
    outcome = environment.sync(
        source,
        _options(chosen),
        gates=_gates(environment, chosen),
        allow_overlap=chosen.allow_overlap,
        dry_run=chosen.dry_run,
        compile_all=chosen.compile,
        command=chosen.typed,
    )
    _report(outcome, chosen)


def _exec(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
    words: list[str] = chosen.command
    if len(words) == 1 and len(words[0].split()) > 1:
        words = ["/bin/sh", "-c", words[0]]
    if chosen.as_pip:  # the history has what was typed, not how the runtime leads it here
        chosen.typed = shlex.join(_without_password(word) for word in words[2:])
    try:
        outcome = environment.exec(
            words,
            gates=_gates(environment, chosen),
            dry_run=chosen.dry_run,
            streams=(0, 2, 2) if chosen.json else (0, 1, 2),
            command=chosen.typed,
        )
    except CheckError as error:
        if chosen.as_pip:  # pip has no such option
            error.hint = f"{error.hint}: siteswap exec OPTION -- {chosen.typed}"
        raise
    _report(outcome, chosen)


def _list(chosen: argparse.Namespace) -> None:
    folder = _folder(chosen)
    distributions = folder.list() if folder is not None else _as_it_is(_generation(chosen))
    if chosen.json:
        _print_json(render.list_json(distributions, _gone(distributions)))
    else:
        print(render.list_text(distributions, _gone(distributions)))


def _show(chosen: argparse.Namespace) -> None:
    generation = _open(chosen).current
    distributions = {item.name: item for item in _as_it_is(generation)}
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
            "editable_gone": bool(_gone([item])),
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
        _print_json([data for _, data in everything])
    else:
        print("\n---\n".join(render.show_text(item, data) for item, data in everything))


def _export(chosen: argparse.Namespace) -> None:
    if chosen.plain:
        _export_plain(chosen)
        return
    folder = _folder(chosen)
    if folder is not None:
        distributions: Sequence[Distribution] = folder.list()
        lock, python = folder.lock(), folder.python
    else:
        generation = _generation(chosen)
        distributions = _as_it_is(generation)
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
    environment = _open(chosen)
    number = environment.find(chosen.generation) if chosen.generation else None
    made = environment.copy_plain(chosen.plain, number)
    chosen.done = True
    chosen.view.stop()
    print(render.printable_lines(render.copied_text(made)))


def _history(chosen: argparse.Namespace) -> None:
    past = _open(chosen).history()
    if chosen.json:
        _print_json(render.history_json(past))
    else:
        print(render.history_text(past))


def _diff(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
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
        _print_json(
            {"before": before, "after": after, "changes": [render.change_json(item) for item in found]}
        )
    else:
        text = "\n".join(render.printable(str(item)) for item in found)
        print(text or f"generations {before} and {after} hold the same")


def _rollback(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
    target = environment.find(chosen.generation) if chosen.generation else None
    _report(environment.rollback(target, command=chosen.typed), chosen)


def _tag(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
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
        _print_json(tags)
    elif tags:
        print(render.table(("Tag", "Gen"), [(name, str(number)) for name, number in sorted(tags.items())]))


def _check(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
    number = environment.find(chosen.generation) if chosen.generation else None
    verdict = environment.check(number, _gates(environment, chosen), _options(chosen), command=chosen.typed)
    chosen.view.stop()
    if chosen.json:
        _print_json(verdict.to_json())
    else:
        print(render.verdict_text(verdict))


def _log(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
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
        _print_json(verdicts)
    else:
        print(render.verdicts_table(verdicts))


def _doctor(chosen: argparse.Namespace) -> None:
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
            _print_json(render.findings_json(layout, findings))
        else:
            print(render.findings_text(findings))
        left = damage(findings)
        hint = "siteswap doctor --repair repairs what can be repaired"
    else:
        environment = Environment(layout, fs, progress=view, lock_timeout=chosen.lock_timeout)
        waiting = Waiting(fs, layout, view, chosen.lock_timeout, chosen.typed)
        options, typed = _options(chosen), chosen.typed
        repair = Repair(
            fs, layout, view, waiting, lambda: _gates(environment, chosen), options, typed,
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
            _print_json(render.repaired_json(layout, repaired))
        else:
            print(render.repaired_text(repaired))
        left = damage(repaired.after)
        hint = "the next step for each is said there"
    if left:
        count = f"{len(left)} thing{'s are' if len(left) > 1 else ' is'}"
        raise SiteswapError(Kind.DAMAGED, f"{layout.root}: {count} damaged", hint=hint)


def _run(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
    number = environment.find(chosen.generation) if chosen.generation else None
    environment.run(number, chosen.command)


def _ps(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
    current = read_current(environment.fs, environment.layout)
    users = environment.users()
    if chosen.json:
        _print_json(
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


def _gc(chosen: argparse.Namespace) -> None:
    environment = _open(chosen)
    keep = DEFAULT_KEEP if chosen.keep is None else chosen.keep
    if keep < 0:
        raise SiteswapError(Kind.USAGE, "--keep takes a number of 0 or more", hint="siteswap gc --keep 3")
    gone: list[Number] = []
    if chosen.dry_run:
        verdicts = environment.plan_collection(keep)
    else:
        gone, verdicts = environment.gc(keep, command=chosen.typed)
    if chosen.json:
        _print_json(
            {
                "removed": gone,
                "generations": [
                    {"generation": item.number, "keep": item.keep, "reason": item.reason} for item in verdicts
                ],
            }
        )
    else:
        print(render.collection_text(verdicts, gone, dry_run=chosen.dry_run))


def _cache(chosen: argparse.Namespace) -> None:
    cache = open_cache()
    if chosen.action == "dir":
        print(cache.root)
    elif chosen.action == "size":
        print(cache.size())
    else:
        print(f"{cache.prune() / 1e6:.1f} MB removed from {cache.root}")


def _without_password(word: str) -> str:
    option, equals, url = word.partition("=")
    if "://" in option or "://" not in url:
        return without_password(word) if "://" in word else word
    return f"{option}{equals}{without_password(url)}"


# -- what commands share -------------------------------------------------------------------------


def place(chosen: argparse.Namespace) -> Path:
    """Where the environment is, or is to be."""
    return Path(chosen.env or os.environ.get("VIRTUAL_ENV") or ".venv")


def _open(chosen: argparse.Namespace) -> Environment:
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


def _folder(chosen: argparse.Namespace) -> Folder | None:
    """The plain directory that the command is about; None where it is about an environment."""
    if not folders.is_meant(chosen):
        return None
    if getattr(chosen, "generation", None):
        raise SiteswapError(Kind.USAGE, "a plain directory has no generations", hint="leave --generation out")
    return folders.open_folder(chosen)


def _folder_gates(folder: Folder, chosen: argparse.Namespace) -> Gates:
    return _gates(Environment(Layout(folder.place.top), folder.fs, progress=chosen.view), chosen)


def _report_folder(outcome: FolderOutcome, chosen: argparse.Namespace) -> None:
    chosen.done = outcome.committed
    chosen.view.stop()
    if chosen.json:
        _print_json(folders.outcome_json(outcome))
    else:
        print(render.printable_lines(folders.outcome_text(outcome, dry_run=chosen.dry_run)))


def _generation(chosen: argparse.Namespace) -> Generation:
    environment = _open(chosen)
    if chosen.generation:
        return environment.generation(environment.find(chosen.generation))
    return environment.current


def _as_it_is(generation: Generation) -> list[Distribution]:
    """What is really there: the manifest's distributions, as other tools left them."""
    drift = generation.drift()
    foreign = {item.name: item for item in drift.foreign}
    kept = [
        item
        for item in generation.manifest.distributions
        if item.name not in foreign and item.name not in drift.removed
    ]
    return sorted([*kept, *foreign.values()], key=lambda item: item.name)


def _gone(distributions: Iterable[Distribution]) -> set[str]:
    """Source directories of editables that are not there."""
    fs = FileSystem()
    return {
        item.editable for item in distributions if item.editable and fs.entry(Path(item.editable)) is None
    }


def _read_file(name: str, chosen: argparse.Namespace) -> Request:
    path = Path("/dev/stdin") if name == "-" else Path(name)
    return parse_file(path, FileSystem(), extras=chosen.extra, groups=chosen.group)


def _constraints(chosen: argparse.Namespace) -> Request:
    paths = tuple(Path(name).absolute() for name in chosen.constraint)
    for path in paths:
        if FileSystem().entry(path) is None:
            raise SiteswapError(
                Kind.USAGE, f"there is no constraints file {path}", hint="check the path given to -c"
            )
    return Request(constraints=paths)


def _gates(environment: Environment, chosen: argparse.Namespace) -> Gates:
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


def _options(chosen: argparse.Namespace) -> Options:
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


def _report(outcome: Outcome, chosen: argparse.Namespace) -> None:
    chosen.done = outcome.committed
    chosen.view.stop()
    dry_run = getattr(chosen, "dry_run", False)
    if chosen.json:
        _print_json(render.outcome_json(outcome))
    else:
        # What pip prints on stdout may be for a program: a report, say.
        stream = sys.stderr if getattr(chosen, "as_pip", False) else sys.stdout
        print(render.outcome_text(outcome, dry_run=dry_run), file=stream)


def _print_json(value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    plain = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    print("".join(plain))


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "create": _create,
    "adopt": _adopt,
    "unadopt": _unadopt,
    "install": _install,
    "uninstall": _uninstall,
    "sync": _sync,
    "exec": _exec,
    "list": _list,
    "show": _show,
    "export": _export,
    "history": _history,
    "diff": _diff,
    "rollback": _rollback,
    "tag": _tag,
    "check": _check,
    "log": _log,
    "doctor": _doctor,
    "run": _run,
    "ps": _ps,
    "gc": _gc,
    "cache": _cache,
}
