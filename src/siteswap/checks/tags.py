"""Was the wheel of a distribution made for this interpreter and machine?

By PyPA's platform compatibility tags, as `pip check` says it: what cannot be
loaded here often says so only when it is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.tags import InvalidTag, parse_tag

from siteswap.checks.reading import content, shown
from siteswap.generation import Generation
from siteswap.manifest import Distribution, Interpreter
from siteswap.verdict import Check, Finding

_SHOWN_TAGS = 3


def check(generation: Generation, subjects: Sequence[Distribution]) -> list[Finding]:
    """Subjects none of whose wheel's tags is one of the interpreter's."""
    findings = []
    for item in subjects:
        if item.editable is not None:
            continue
        # Not every tool leaves a WHEEL file; where there is none, nothing is said about tags.
        text = content(generation, f"{item.dist_info}/WHEEL") or b""
        message = _unfit(tags(text.decode(errors="replace")), generation.interpreter)
        if message is not None:
            findings.append(Finding(Check.TAGS, item.name, message, "WHEEL", item.version))
    return findings


def tags(wheel: str) -> list[str]:
    """The tags in a WHEEL file's text, each one spelled out; malformed ones are left out. Pure."""
    found: list[str] = []
    for line in wheel.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() != "tag":
            continue
        try:
            found += sorted(map(str, parse_tag(value.strip())))
        except InvalidTag:
            continue
    return list(dict.fromkeys(found))


def _unfit(found: Sequence[str], interpreter: Interpreter) -> str | None:
    if not found or not set(found).isdisjoint(interpreter.tags):
        return None
    named = ", ".join(shown(tag, 80) for tag in found[:_SHOWN_TAGS])
    more = f" and {len(found) - _SHOWN_TAGS} more" if len(found) > _SHOWN_TAGS else ""
    best = f" (best tag {interpreter.tags[0]})" if interpreter.tags else ""
    here = f"{interpreter.implementation} {interpreter.version}{best}"
    return f"its wheel is made for {named}{more}, not for {here}"
