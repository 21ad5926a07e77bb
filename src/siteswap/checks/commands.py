"""The user's own checks: a command, or a distribution's own tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from siteswap.checks.reading import shown
from siteswap.checks.running import Stage
from siteswap.checks.suites import Suite, explain
from siteswap.gates import Gate
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.process import Finished
from siteswap.verdict import Check, Finding, Standing

_LONGEST_TITLE = 1000


def command(generation: Generation, gate: Gate, stage: Stage) -> tuple[list[Finding], Finished]:
    """Run a command of the user's by the shell, with the generation's programs first on PATH."""
    assert gate.command is not None
    done = _run(generation, gate, stage, ["/bin/sh", "-c", gate.command], gate.directory or Path.cwd())
    return _judged(gate, Check.COMMAND, done, f"exit status {done.status}"), done


def suite(
    generation: Generation,
    distribution: Distribution,
    gate: Gate,
    found: Suite,
    overlay: Path | None,
    stage: Stage,
) -> tuple[list[Finding], Finished]:
    """Run a distribution's own tests; `overlay` is a directory with what they need besides."""
    words: list[str | Path] = [generation.layout.bin / "python", *found.words, *gate.arguments]
    paths = [str(overlay)] if overlay is not None else []
    if "PYTHONPATH" in gate.environment:
        paths.append(gate.environment["PYTHONPATH"])
    # pytest would leave byte-code of its own kind beside what it rewrites.
    more = {"PYTHONDONTWRITEBYTECODE": "1", **gate.environment}
    if paths:
        more["PYTHONPATH"] = os.pathsep.join(paths)
    gate = replace(gate, environment=more)
    done = _run(generation, gate, stage, words, gate.directory or stage.scratch)
    findings = _judged(gate, Check.TESTS, done, explain(found, done.status))
    return [replace(item, version=distribution.version) for item in findings], done


def _run(
    generation: Generation, gate: Gate, stage: Stage, words: Sequence[str | Path], directory: Path
) -> Finished:
    return stage.confinement.run(
        words,
        env=stage.variables(generation, gate.environment),
        cwd=directory,
        timeout=gate.timeout,
        merge=True,
        writable=gate.writable,
    )


def _judged(gate: Gate, kind: Check, done: Finished, failure: str) -> list[Finding]:
    if done.status == 0 and not done.timed_out:
        return []
    if done.timed_out:
        failure = f"did not end within {gate.timeout:g} s"
    elif done.status < 0:
        failure = f"was killed by signal {-done.status}"
    standing = Standing.BLOCKS if gate.needed else Standing.TOLD
    return [Finding(kind, title(gate), failure, detail=done.stdout, standing=standing)]


def title(gate: Gate) -> str:
    """What a report calls a gate: one line."""
    return shown(gate.name.strip(), _LONGEST_TITLE)
