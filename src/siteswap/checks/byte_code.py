"""Does every source compile? Leaves byte-code of all of them (`--compile`)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from siteswap import probe
from siteswap.checks.running import Stage
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.verdict import Check, Finding

_SECONDS = 1800.0


def check(generation: Generation, subjects: Sequence[Distribution], stage: Stage) -> list[Finding]:
    """Compile every source of `subjects`, where `stage` has byte-code written; findings for what does not.

    Distributions ship sources that are not meant to compile (templates, test data):
    so each is only suspected.
    """
    owner = {
        str(generation.layout.path / row.path): (item, row.path)
        for item in subjects
        for row in generation.record(item)
        if row.path.endswith(".py")
    }
    if not owner:
        return []
    done = stage.confinement.run(
        [
            generation.layout.bin / "python", "-I", "-c", probe.compile_source(),
            "write" if stage.byte_code else "look",
        ],
        env=stage.variables(generation),
        cwd=stage.scratch,
        timeout=_SECONDS,
        stdin="".join(f"{path}\0" for path in owner),
    )  # fmt: skip
    findings = []
    for line in done.stdout.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if "path" in event:
            item, path = owner[event["path"]]
            message = f"{path} does not compile: {event['problem']}"
            findings.append(Finding(Check.BYTE_CODE, item.name, message, path, item.version, suspected=True))
    return findings
