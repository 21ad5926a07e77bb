"""Does what is installed import? Each distribution's modules and programs, in processes of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from siteswap import probe, process
from siteswap.checks import entry_points, modules
from siteswap.checks.running import Stage
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.process import Finished
from siteswap.verdict import Check, Finding, Standing

_LONGEST_REASON = 240
"""Characters of an exception's text that a message shows; the log has the rest."""


@dataclass(frozen=True)
class Task:
    """One thing to import."""

    part: str
    """What a report calls it: `module` or `program NAME`."""
    module: str
    attribute: str | None = None
    """Of a program: what is called, by a dotted path."""
    single: bool = False
    """Whether it is a module by itself in a namespace package, as a part of another package would be."""

    @property
    def is_program(self) -> bool:
        """Whether it is an entry point that gets a program."""
        return self.attribute is not None


@dataclass
class Imported:
    """How one distribution's imports went."""

    distribution: Distribution
    tasks: list[Task]
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What was warned of while they ran."""
    loaded: set[str] = field(default_factory=set)
    """Modules from the generation that it loaded: top-level ones, and the first below a namespace."""
    left: int = 0
    """Processes that it left behind; they were killed."""

    @property
    def sound(self) -> set[str]:
        """Parts that work."""
        return {task.part for task in self.tasks} - {item.part for item in self.findings}


def tasks(generation: Generation, distribution: Distribution) -> list[Task]:
    """What is to be imported of a distribution: its modules, then what its programs call."""
    paths = [row.path for row in generation.record(distribution)]
    single = modules.single(paths, generation.interpreter)
    names = modules.importable(paths, generation.interpreter)
    found = [Task(name, name, single=name in single) for name in names]
    for point in entry_points.programs(generation, distribution):
        found.append(Task(f"program {point.name}", point.module, point.attribute))
    return found


def check(
    generation: Generation,
    subjects: Sequence[Distribution],
    stage: Stage,
    timeout: float,
    tick: Callable[[str], None] = lambda _: None,
) -> list[Imported]:
    """Import everything of `subjects` in the generation's own interpreter.

    One process a distribution, as many at once as there are processors; a crash or
    a hang is one finding, and the rest is tried in another process. `timeout` is in
    seconds, for each distribution; `tick` is told each one that is done.
    """

    def one(distribution: Distribution) -> Imported:
        done = Imported(distribution, tasks(generation, distribution))
        _try(generation, done, stage, timeout)
        tick(distribution.name)
        return done

    return process.parallel(one, subjects, os.cpu_count() or 1, stage.confinement.stop)


def once(findings: Iterable[Finding]) -> list[Finding]:
    """Without what is the same defect again.

    That is a program that fails as its module does, and a further module that
    wants what another did not find.
    """
    seen: dict[tuple[str, str], set[Standing]] = {}
    kept = []
    for item in findings:
        same = seen.setdefault((item.subject, item.message.partition(": ")[2]), set())
        foldable = item.part.startswith("program ") or item.missing is not None
        if not (foldable and same & {item.standing, Standing.BLOCKS}):
            kept.append(item)
        same.add(item.standing)
    return kept


def _try(generation: Generation, done: Imported, stage: Stage, timeout: float) -> None:
    start = 0
    while start < len(done.tasks):
        todo = done.tasks[start:]
        words = json.dumps([(task.module, task.attribute) for task in todo])
        ran = stage.confinement.run(
            [generation.layout.bin / "python", "-c", probe.import_source(), words],
            env=stage.variables(generation),
            cwd=stage.scratch,
            timeout=timeout,
        )
        done.left += ran.left
        broken = _read(ran, todo, done, f"{generation.layout.path}/")
        if broken is None:
            return
        done.findings.append(_finding(done.distribution, todo[broken], _why(ran, timeout), ran.stderr))
        start += broken + 1


def _read(ran: Finished, todo: Sequence[Task], done: Imported, prefix: str) -> int | None:
    """Take in what the process told; the index of the task that ended it, None when none did.

    `prefix` is the generation's path, which is left out of messages.
    """
    begun = 0
    for line in ran.stdout.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut short by a crash
        if "begin" in event:
            begun = event["begin"]
        elif "failed" in event:
            task, why = todo[event["failed"]], event["error"].replace(prefix, "")
            done.findings.append(_finding(done.distribution, task, why, event["trace"], event["missing"]))
        elif "warned" in event:
            done.warnings.append(event["warned"])
        elif "loaded" in event:
            done.loaded |= set(event["loaded"])
            return None
    return begun


def _finding(
    distribution: Distribution, task: Task, why: str, detail: str, missing: str | None = None
) -> Finding:
    why = why if len(why) <= _LONGEST_REASON else f"{why[:_LONGEST_REASON]} …"
    if missing is not None and missing not in why:
        why += f" (there is no module {missing})"
    what = f"{task.part} cannot be loaded" if task.is_program else f"import {task.module} fails"
    return Finding(
        Check.IMPORTS, distribution.name, f"{what}: {why}", task.part, distribution.version, detail, missing
    )


def _why(ran: Finished, timeout: float) -> str:
    if ran.timed_out:
        return f"it does not end within {timeout:g} s"
    if ran.status < 0:
        return f"it kills the interpreter (signal {-ran.status})"
    return f"it ends the interpreter (exit status {ran.status})"
