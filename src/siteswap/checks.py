"""Try a candidate before it goes live: its metadata, its imports, and the user's own commands."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from siteswap import process
from siteswap.fs import FileSystem
from siteswap.generation import Generation
from siteswap.lease import VARIABLE
from siteswap.manifest import Distribution, Interpreter

IMPORT_TIMEOUT = 120.0
"""Seconds that one distribution's modules may take to import."""
COMMAND_TIMEOUT = 3600.0
"""Seconds that a command of the user's may take."""
_SHOWN_LINES = 12
_NOT_PACKAGES = frozenset(
    {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmarks", "setup"}
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a candidate."""

    check: str
    """dependencies, imports or command."""
    subject: str
    """The distribution, or the command."""
    message: str
    detail: str = ""
    missing: str | None = None
    """The module that an import did not find, if that is what failed."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}"


def dependencies(distributions: Iterable[Distribution], interpreter: Interpreter) -> list[Finding]:
    """Requirements of installed distributions that nothing installed satisfies. Pure.

    By PyPA's dependency specifiers and core metadata: what `pip check` says,
    extras included where a requirement asks for them.
    """
    installed = {item.name: item for item in distributions}
    findings = []
    for item in installed.values():
        if item.requires_python and not _python_fits(item.requires_python, interpreter):
            findings.append(
                Finding(
                    "dependencies",
                    item.title,
                    f"needs Python {item.requires_python}, not {interpreter.version}",
                )
            )
    for holder, requirement in _active(installed, interpreter):
        name = canonicalize_name(requirement.name)
        found = installed.get(name)
        if found is None:
            findings.append(
                Finding("dependencies", holder.title, f"needs {requirement}, which is not installed")
            )
        elif not _satisfies(found.version, requirement):
            findings.append(
                Finding("dependencies", holder.title, f"needs {requirement}, but {found.title} is installed")
            )
    return findings


def needed(
    roots: Iterable[str], distributions: Iterable[Distribution], interpreter: Interpreter
) -> dict[str, set[str]]:
    """Names that the requirements `roots` reach, each with the names that need it. Pure.

    The extras that a requirement names count; the roots need nothing themselves.
    """
    installed = {item.name: item for item in distributions}
    reached: dict[str, set[str]] = {}
    pending: list[tuple[str, frozenset[str]]] = []
    done: set[tuple[str, frozenset[str]]] = set()
    for line in roots:
        requirement = _parse(line)
        if requirement is not None:
            root = canonicalize_name(requirement.name)
            reached.setdefault(root, set())
            pending.append((root, frozenset(requirement.extras)))
    while pending:
        name, extras = pending.pop()
        if (name, extras) in done or name not in installed:
            continue
        done.add((name, extras))
        for requirement in _requirements(installed[name], extras, interpreter):
            inner = canonicalize_name(requirement.name)
            reached.setdefault(inner, set()).add(name)
            pending.append((inner, frozenset(requirement.extras)))
    return reached


def modules(generation: Generation, distribution: Distribution) -> list[str]:
    """Top-level modules that a distribution brings, by its RECORD: what can be imported by name."""
    found: set[str] = set()
    base = {generation.interpreter.schemes["purelib"], generation.interpreter.schemes["platlib"]}
    for row in generation.record(distribution):
        for directory in base:
            relative = row.path.removeprefix(f"{directory}/")
            if relative != row.path:
                module = _module_of(relative)
                if module is not None:
                    found.add(module)
    public = {name for name in found if not name.startswith("_")}
    return sorted(public or found)


def _module_of(path: str) -> str | None:
    parts = path.split("/")
    if len(parts) == 2 and parts[1] == "__init__.py":
        name = parts[0]
    elif len(parts) == 1 and parts[0].endswith(".py"):
        name = parts[0][:-3]
    elif len(parts) == 1 and parts[0].endswith(".so"):
        name = parts[0].partition(".")[0]
    else:
        return None
    return name if name.isidentifier() and name not in _NOT_PACKAGES else None


# Imports the modules named in argv[1] (JSON), one line of JSON each, so that what was imported before
# a crash is known. The line goes to the descriptor that was stdout before the modules could print there.
_IMPORTER = """
import importlib, json, os, sys, traceback
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for name in json.loads(sys.argv[1]):
    report.write(json.dumps({"begin": name}) + "\\n"); report.flush()
    try:
        importlib.import_module(name)
    except BaseException as error:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        report.write(json.dumps({"failed": name, "error": "%s: %s" % (type(error).__name__, error),
                                 "trace": text, "missing": missing}) + "\\n"); report.flush()
report.write(json.dumps({"end": True}) + "\\n"); report.flush()
os._exit(0)
"""


def imports(
    candidate: Generation,
    distributions: Sequence[Distribution],
    scratch: Path,
    tick: Callable[[str], None],
) -> list[Finding]:
    """Import every top-level module of `distributions` in the candidate's own interpreter.

    One process a distribution, as many at once as there are processors; a crash
    or a hang is one finding. `tick` is told each distribution that is done.
    """
    env = check_environment(candidate, scratch)

    def one(distribution: Distribution) -> list[Finding]:
        names = modules(candidate, distribution)
        findings = _import(candidate, distribution, names, env, scratch) if names else []
        tick(distribution.name)
        return findings

    results = process.parallel(one, distributions, os.cpu_count() or 1)
    return [finding for findings in results for finding in findings]


def _import(
    candidate: Generation, distribution: Distribution, names: list[str], env: Mapping[str, str], scratch: Path
) -> list[Finding]:
    findings = []
    while names:
        command = [str(candidate.layout.bin / "python"), "-c", _IMPORTER, json.dumps(names)]
        done = process.run(
            command, env=env, cwd=scratch, timeout=IMPORT_TIMEOUT, umask=candidate.fs.access.umask
        )
        begun: list[str] = []
        ended = False
        for line in done.stdout.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if "begin" in event:
                begun.append(event["begin"])
            elif "failed" in event:
                message = f"import {event['failed']} fails: {event['error']}"
                findings.append(
                    Finding("imports", distribution.title, message, event["trace"], event["missing"])
                )
            ended = ended or "end" in event
        if ended:
            break
        broken = begun[-1] if begun else names[0]
        if done.timed_out:
            why = f"does not end within {IMPORT_TIMEOUT:.0f} s"
        elif done.status < 0:
            why = f"kills the interpreter (signal {-done.status})"
        else:
            why = f"ends the interpreter (status {done.status})"
        findings.append(Finding("imports", distribution.title, f"import {broken} {why}", done.stderr))
        names = names[names.index(broken) + 1 :]
    return findings


def command(candidate: Generation, text: str, environment: Path, scratch: Path) -> list[Finding]:
    """Run a command of the user's by the shell, with the candidate's programs first on PATH."""
    env = check_environment(candidate, scratch)
    env["VIRTUAL_ENV"] = str(environment)
    umask = candidate.fs.access.umask
    done = process.run(["/bin/sh", "-c", text], env=env, timeout=COMMAND_TIMEOUT, merge=True, umask=umask)
    if done.status == 0 and not done.timed_out:
        return []
    why = f"did not end within {COMMAND_TIMEOUT:.0f} s" if done.timed_out else f"exit status {done.status}"
    return [Finding("command", shlex.quote(text) if "\n" in text else text, why, done.stdout)]


def check_environment(candidate: Generation, scratch: Path) -> dict[str, str]:
    """Variables for what runs in a candidate: pinned to it, with a HOME and TMPDIR of its own."""
    doomed = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONSTARTUP"}
    env = {name: value for name, value in os.environ.items() if name not in doomed}
    env[VARIABLE] = str(candidate.layout.path)
    env["PATH"] = os.pathsep.join([str(candidate.layout.bin), env.get("PATH", os.defpath)])
    env["HOME"] = env["TMPDIR"] = str(scratch)
    env["PYTHONNOUSERSITE"] = "1"
    return env


def write_log(fs: FileSystem, path: Path, findings: Sequence[Finding]) -> None:
    """Keep the whole output of failed checks."""
    text = "".join(f"== {item.check}: {item}\n{item.detail}\n" for item in findings)
    fs.make_directory(path.parent, parents=True)
    fs.replace(path, text.encode(errors="replace"))


def shown(findings: Sequence[Finding]) -> str:
    """The lines of each finding that matter on a terminal."""
    lines = []
    for item in findings:
        lines.append(str(item))
        tail = [line for line in item.detail.strip().splitlines() if line.strip()][-_SHOWN_LINES:]
        if item.check != "imports":
            lines += [f"    {line}" for line in tail]
        else:
            lines += [f"    {line}" for line in tail[-5:-1]]
    return "\n".join(lines)


def _active(
    installed: Mapping[str, Distribution], interpreter: Interpreter
) -> Iterable[tuple[Distribution, Requirement]]:
    """Each requirement that applies here, with its holder; extras as far as somebody asks for them."""
    wanted: dict[str, set[str]] = {name: set() for name in installed}
    changed = True
    while changed:  # an extra's own requirement may ask for another's extra
        changed = False
        for item in installed.values():
            for requirement in _requirements(item, frozenset(wanted[item.name]), interpreter):
                name = canonicalize_name(requirement.name)
                extras = set(requirement.extras)
                if name in wanted and not extras <= wanted[name]:
                    wanted[name] |= extras
                    changed = True
    for item in installed.values():
        for requirement in _requirements(item, frozenset(wanted[item.name]), interpreter):
            yield item, requirement


def _requirements(
    item: Distribution, extras: frozenset[str], interpreter: Interpreter
) -> Iterable[Requirement]:
    for text in item.requires:
        requirement = _parse(text)
        if requirement is None:
            continue
        contexts = [{**interpreter.markers, "extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(requirement.marker.evaluate(context) for context in contexts):
            yield requirement


def _parse(text: str) -> Requirement | None:
    try:
        return Requirement(text.removeprefix("-e "))
    except InvalidRequirement:
        return None  # what other installers overlook as well: nothing can be concluded from it


def _satisfies(version: str, requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _python_fits(specifier: str, interpreter: Interpreter) -> bool:
    try:
        return SpecifierSet(specifier).contains(interpreter.version, prereleases=True)
    except InvalidSpecifier:
        return True
