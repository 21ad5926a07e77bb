"""Past verdicts, kept in the environment: each as JSON, and as text with the whole output.

`ENV/.siteswap/log/N-TIME.json` and `N-TIME.txt`, N the generation that was
tried and TIME in UTC. Not durable: a power cut may cost the newest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.layout import Layout
from siteswap.verdict import Verdict

KEPT = 20
"""How many verdicts are kept."""


def write(fs: FileSystem, layout: Layout, verdict: Verdict) -> Verdict:
    """Keep a verdict, drop the oldest beyond those kept; returns it with the path of its log.

    Not durable, and never in two halves that are taken for a whole: the JSON, by which a verdict is
    found, comes last.
    """
    stamp = datetime.fromisoformat(verdict.time).strftime("%Y%m%dT%H%M%S.%fZ")
    text = layout.log / f"{verdict.generation}-{stamp}.txt"
    verdict = replace(verdict, log=str(text))
    fs.make_directory(layout.log, parents=True)
    fs.write(text, "\n".join(_text(verdict)).encode(errors="replace"))
    fs.write(text.with_suffix(".json"), json.dumps(verdict.to_json(), indent=1).encode())
    for name in _names(fs, layout)[:-KEPT]:
        fs.unlink(layout.log / f"{name}.json")
        fs.unlink(layout.log / f"{name}.txt")
    return verdict


def read(fs: FileSystem, layout: Layout) -> list[dict[str, Any]]:
    """Kept verdicts, oldest first, as `Verdict.to_json` made them, with their `name`."""
    found = []
    for name in _names(fs, layout):
        try:
            data = json.loads(fs.read(layout.log / f"{name}.json"))
            data = {"name": name, **data, "log": str(layout.log / f"{name}.txt")}
            if _is_whole(data):
                found.append(data)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # cut short by a crash, edited, or just dropped by another command
    return found


def _is_whole(data: dict[str, Any]) -> bool:
    """Whether everything is there that is shown of a verdict. Raises for what is not even of that form."""
    datetime.fromisoformat(data["time"])
    findings = [item for row in data["checks"] for item in row["findings"]]
    words = [data["command"], *(item[key] for item in findings for key in ("subject", "message", "standing"))]
    kinds = isinstance(data["generation"], int) and isinstance(data["passed"], bool)
    return kinds and all(isinstance(word, str) for word in words)


def text(fs: FileSystem, layout: Layout, name: str) -> str:
    """The whole output of a verdict. Raises SiteswapError (usage) when it is not kept any more."""
    try:
        return fs.read(layout.log / f"{name}.txt").decode(errors="replace")
    except OSError as error:
        raise SiteswapError(
            Kind.USAGE, f"there is no log {name}", hint="siteswap log shows those that are kept"
        ) from error


def _names(fs: FileSystem, layout: Layout) -> list[str]:
    names = {name.rpartition(".")[0] for name, _ in fs.entries(layout.log) if not name.startswith(".")}
    return sorted(names, key=lambda name: name.partition("-")[2])


def _text(verdict: Verdict) -> Iterable[str]:
    yield f"{verdict.command or 'checks'}"
    yield f"generation {verdict.generation}, held against {verdict.base or 'nothing'}, {verdict.time}"
    yield "passed" if verdict.passed else "failed"
    for note in verdict.notes:
        yield f"note: {note}"
    for row in verdict.tried:
        yield f"\n== {row.check.value}: {row.what}: {row.outcome} ({row.seconds:.2f} s)"
        if row.output:
            yield row.output
        for item in row.findings:
            yield f"-- {item.standing.value}: {item}"
            yield from (f"   {line}" for line in item.why)
            if item.detail and item.detail != row.output:
                yield item.detail
    yield ""
