"""Results as text for people and as JSON for scripts. Pure: strings and values out, nothing printed."""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from siteswap.doctor.findings import Cure, Finding, Kind, Severity, damage
from siteswap.layout import Layout
from siteswap.lease import User, describe
from siteswap.manifest import Change, Distribution, Manifest, Operation, changes
from siteswap.verdict import Verdict, told

if TYPE_CHECKING:
    from siteswap import collect
    from siteswap.adopt import Adopted
    from siteswap.doctor.repair import Repaired
    from siteswap.environment import Past
    from siteswap.portable import Copied
    from siteswap.transaction import Outcome
    from siteswap.unadopt import Unadopted


def outcome_text(outcome: Outcome, *, dry_run: bool = False) -> str:
    """The summary of a transaction, with the way back."""
    lines = [f"  {printable(str(change))}" for change in outcome.changes]
    if dry_run:
        return "\n".join(["would change:", *lines] if lines else ["nothing would change"])
    if not outcome.committed:
        return f"nothing to do; generation {outcome.number} is current"
    head = f"generation {outcome.number} is current (was {outcome.base})"
    lines = lines or ["  the same packages; what is asked for, or how they are noted, changed"]
    return "\n".join([head, *lines, f"go back with: siteswap rollback {outcome.base}"])


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "generation": outcome.number,
        "was": outcome.base,
        "committed": outcome.committed,
        "changes": [change_json(change) for change in outcome.changes],
        "notes": list(outcome.notes),
        "verdict": outcome.verdict.to_json() if outcome.verdict is not None else None,
    }


def adopted_text(adopted: Adopted) -> str:
    """What was taken in, and which programs go on with the old files."""
    root = str(adopted.layout.root)
    count = len(adopted.distributions)
    what = f"{count} distribution{'s' if count != 1 else ''}, Python {adopted.interpreter.version}"
    if not adopted.done:
        return printable(f"would take in {root}: {what}")
    lines = [f"{root}: generation 1 is current, with {what}"]
    if adopted.requirements:
        lines.append(f"asked for: {', '.join(adopted.requirements)}")
    if adopted.running:
        lines.append("started before, so tied to no generation: start them again before the next change")
        lines += [f"  {describe(user)}" for user in adopted.running]
    return "\n".join(map(printable, lines))


def adopted_json(adopted: Adopted) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "environment": str(adopted.layout.root),
        "generation": 1,
        "committed": adopted.done,
        "python": adopted.interpreter.version,
        "distributions": [item.title for item in adopted.distributions],
        "requirements": list(adopted.requirements),
        "strays": list(adopted.strays),
        "notes": list(adopted.notes),
        "running": [{"pid": user.pid, "command": user.command} for user in adopted.running],
        "verdict": adopted.verdict.to_json() if adopted.verdict is not None else None,
    }


def unadopted_text(came: Unadopted) -> str:
    """What is left, what was given up, and for whom generations stay."""
    root = str(came.layout.root)
    lines = []
    if came.interpreter is not None:
        count = len(came.distributions)
        what = f"{count} distribution{'s' if count != 1 else ''}, Python {came.interpreter.version}"
        would = "" if came.done else "would be "
        lines.append(f"{root}: {would}a plain virtual environment, with {what}")
        given_up = [f"generation{'s' if len(came.lost) > 1 else ''} {', '.join(map(str, came.lost))}"]
        given_up = (given_up if came.lost else []) + [f"tag {tag}" for tag in came.tags]
        if given_up:
            lines.append(f"given up: {', '.join(given_up)}")
        if came.leaks:
            lines.append("these are no texts, and name a generation that is given up:")
            lines += [f"  {path}" for path in came.leaks]
    if came.stays:
        lines.append(f"its generations stay beside it, at {came.layout.leaving}")
        lines += [f"  {reason}" for reason in came.stays]
        lines.append(f"when these have ended: siteswap unadopt {shlex.quote(root)}")
    elif came.interpreter is None:
        is_left = "is left" if came.done else "would be left"
        lines.append(f"{root}: nothing {is_left} of its generations")
    return "\n".join(map(printable, lines))


def unadopted_json(came: Unadopted) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "environment": str(came.layout.root),
        "committed": came.done,
        "python": came.interpreter.version if came.interpreter is not None else None,
        "distributions": [item.title for item in came.distributions],
        "generations_lost": list(came.lost),
        "tags_lost": list(came.tags),
        "leaks": list(came.leaks),
        "running": [
            {"pid": user.pid, "command": user.command, "generation": user.generation} for user in came.running
        ],
        "stays": list(came.stays),
    }


def copied_text(made: Copied) -> str:
    """Where it is, and what must be where it is used."""
    lines = [
        f"{made.path}: a plain virtual environment of generation {made.generation}, which may be moved",
        f"it needs Python {made.interpreter.short_version} at {made.interpreter.executable}; "
        "its programs need /bin/sh, dirname and realpath",
    ]
    if made.leaks:
        lines.append("these files name the path of the environment, and may not work elsewhere:")
        lines += [f"  {path}" for path in made.leaks]
    return "\n".join(lines)


def change_json(change: Change) -> dict[str, Any]:
    """One change."""
    return {"name": change.name, "before": change.before, "after": change.after}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    everything = [list(head), *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]
    everything.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in everything
    )


def printable(text: str, limit: int | None = None) -> str:
    """Text from outside without what a terminal would obey, cut where it has more characters than `limit`."""
    cut = text if limit is None or len(text) <= limit else f"{text[:limit]}…"
    return "".join(character if character.isprintable() else "\ufffd" for character in cut)


def printable_lines(text: str, limit: int | None = None) -> str:
    """The same for a text of several lines."""
    return "\n".join(printable(line.expandtabs(), limit) for line in text.splitlines())


def list_text(distributions: Sequence[Distribution], gone: Container[str] = ()) -> str:
    """What is installed. `gone` are source directories of editables that are not there."""
    rows = [
        (
            item.name,
            item.version,
            "yes" if item.requested else "",
            _list_note(item, gone),
        )
        for item in distributions
    ]
    if any(row[3] for row in rows):
        return table(("Package", "Version", "Requested", "Note"), rows)
    return table(("Package", "Version", "Requested"), [row[:3] for row in rows])


def _list_note(item: Distribution, gone: Container[str]) -> str:
    if item.editable:
        place = printable(item.editable)
        return f"editable, but {place} is gone" if item.editable in gone else f"editable: {place}"
    return "other tool" if item.foreign else ""


def list_json(distributions: Sequence[Distribution], gone: Container[str] = ()) -> list[dict[str, Any]]:
    """The same for scripts; `name` and `version` are spelled as pip's JSON has them."""
    return [
        {
            "name": item.name,
            "version": item.version,
            "requested": item.requested,
            "editable": item.editable,
            "editable_gone": item.editable in gone if item.editable else False,
            "origin": item.origin,
            "foreign": item.foreign,
        }
        for item in distributions
    ]


def show_text(item: Distribution, data: dict[str, Any]) -> str:
    """What is known of one distribution."""
    lines = [f"Name: {printable(item.name)}", f"Version: {printable(item.version)}"]
    for title in ("summary", "home_page", "author", "license", "location", "origin"):
        if data.get(title):
            lines.append(f"{title.replace('_', '-').capitalize()}: {printable(str(data[title]))}")
    lines.append(f"Requested: {'yes' if item.requested else 'no, it came along'}")
    lines.append(f"Requires: {printable(', '.join(data['requires']))}")
    lines.append(f"Required-by: {printable(', '.join(data['required_by']))}")
    if "files" in data:
        lines += ["Files:", *(f"  {printable(path)}" for path in data["files"])]
    return "\n".join(lines)


def history_text(past: Sequence[Past]) -> str:
    """One line a generation, oldest first; the current one has an arrow."""
    rows = []
    before: Manifest | None = None
    for item in past:
        operation = item.operations[-1]
        mark = "→" if item.current else ""
        notes = [f"tag {name}" for name in item.tags]
        if item.manifest is None:
            notes.append("damaged" if item.damaged else "collected")
        elif item.manifest.checked == "skipped":
            notes.append("not checked")
        if operation.kind == "rollback":
            notes.append(f"gone back to from {operation.source}")
        rows.append(
            (
                mark,
                str(item.number),
                local_time(operation),
                operation.user,
                item.operations[0].command or item.operations[0].kind,
                summary(before, item.manifest),
                ", ".join(notes),
            )
        )
        before = item.manifest
    return table(("", "Gen", "When", "Who", "Command", "Changed", "Notes"), rows)


def summary(before: Manifest | None, after: Manifest | None) -> str:
    """What changed, in a few words."""
    if after is None:
        return ""
    found = changes(before.distributions if before else (), after.distributions)
    if len(found) <= 3:
        return ", ".join(str(change) for change in found)
    signs = [change.sign for change in found]
    return " ".join(f"{sign}{signs.count(sign)}" for sign in "+~-" if sign in signs)


def local_time(operation: Operation) -> str:
    """When it was, in the reader's own time zone."""
    return datetime.fromisoformat(operation.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def history_json(past: Sequence[Past]) -> list[dict[str, Any]]:
    """The same for scripts."""
    return [
        {
            "generation": item.number,
            "current": item.current,
            "collected": item.manifest is None and not item.damaged,
            "damaged": item.damaged,
            "tags": list(item.tags),
            "checked": item.manifest.checked if item.manifest else None,
            "base": item.manifest.base if item.manifest else None,
            "requirements": list(item.manifest.requirements) if item.manifest else None,
            "operations": [asdict(operation) for operation in item.operations],
        }
        for item in past
    ]


def verdict_text(verdict: Verdict) -> str:
    """What was tried on a generation, a row a check, and what does not block."""
    rows = [(row.check.value, row.what, row.outcome, f"{row.seconds:.2f}") for row in verdict.tried]
    lines = [f"generation {verdict.generation}: {'passed' if verdict.passed else 'failed'}"]
    lines.append(table(("Check", "Tried", "Verdict", "Seconds"), rows))
    lines += [printable(line) for line in told(verdict.findings)]
    return "\n".join(lines)


def verdicts_table(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Past verdicts, oldest first."""
    rows = []
    for item in verdicts:
        findings = [finding for row in item["checks"] for finding in row["findings"]]
        blocking = [finding for finding in findings if finding["standing"] == "blocks"]
        first = blocking[0] if blocking else None
        rows.append(
            (
                item["name"],
                str(item["generation"]),
                datetime.fromisoformat(item["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
                "passed" if item["passed"] else "failed",
                f"{first['subject']}: {first['message']}"[:100] if first else "",
                item["command"],
            )
        )
    if not rows:
        return "no verdict is kept yet"
    return table(("Log", "Gen", "When", "Verdict", "First finding", "Command"), rows)


def findings_text(findings: Sequence[Finding]) -> str:
    """What doctor found, a row each, damage first; below it what shares the damage, and what to do."""
    lines = []
    order = sorted(findings, key=lambda item: list(Severity).index(item.severity))
    width = max((len(item.place) for item in order), default=0)
    for item in order:
        subject = f"{item.distribution}: " if item.distribution else ""
        lines.append(f"{item.severity.value:<7}  {item.place:<{width}}  {subject}{item.what}")
        margin = " " * (7 + 2 + width + 4)
        if item.shared:
            lines.append(f"{margin}the very same file: {_some(item.shared)}")
        if item.how:
            lines.append(f"{margin}{'beyond repair:' if item.cure is Cure.BEYOND else '→'} {item.how}")
    if not damage(findings):
        replaced = any(item.kind is Kind.REPLACED for item in findings)
        lines.append(f"nothing {'else ' if replaced else ''}is damaged")
    return "\n".join(map(printable, lines))


def findings_json(layout: Layout, findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "environment": str(layout.root),
        "damaged": bool(damage(findings)),
        "findings": [item.to_json() for item in findings],
    }


def repaired_text(repaired: Repaired) -> str:
    """What was repaired, and what is left."""
    lines = list(map(printable, repaired.done)) or ["nothing was to be repaired"]
    return "\n".join([*lines, findings_text(repaired.after)])


def repaired_json(layout: Layout, repaired: Repaired) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "environment": str(layout.root),
        "generation": repaired.current,
        "was": repaired.was,
        "damaged": bool(damage(repaired.after)),
        "done": list(repaired.done),
        "found": [item.to_json() for item in repaired.before],
        "findings": [item.to_json() for item in repaired.after],
    }


_SHOWN_PLACES = 4


def _some(places: Sequence[str]) -> str:
    more = f" and {len(places) - _SHOWN_PLACES} more" if len(places) > _SHOWN_PLACES else ""
    return f"{'; '.join(places[:_SHOWN_PLACES])}{more}"


def users_text(users: Sequence[User], current: int) -> str:
    """Processes by generation."""
    rows = [
        (
            str(user.pid),
            str(user.generation),
            ""
            if user.generation == current
            else f"{current - user.generation:+d}".replace("+", "behind by "),
            user.command[:80],
        )
        for user in users
    ]
    return table(("PID", "Gen", "", "Command"), rows) if rows else "no process uses this environment"


def collection_text(verdicts: Sequence[collect.Verdict], gone: Sequence[int], *, dry_run: bool) -> str:
    """What gc did, or would do, and why."""
    rows = [(str(item.number), "stays" if item.keep else "goes", item.reason) for item in verdicts]
    rows += [(str(number), "gone", "") for number in gone]
    rows.sort(key=lambda row: int(row[0]))
    head = "Would" if dry_run else "Did"
    return table(("Gen", head, "Why"), rows)
