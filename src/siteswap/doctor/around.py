"""What stands around the generations: format, current, history, tags, links, the base interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from siteswap import interpreter
from siteswap.doctor import lost
from siteswap.doctor.findings import Finding, Kind, Severity, beyond, curable
from siteswap.errors import SiteswapError
from siteswap.flip import replaced
from siteswap.fs import FileSystem
from siteswap.generation import listed
from siteswap.layout import FORMAT_VERSION, NOT_LINKED, Layout, Number
from siteswap.manifest import Interpreter, Manifest, Operation, effective_history, parse_history


@dataclass(frozen=True)
class Around:
    """What was read there."""

    current: Number | None
    """What `current` names, if that is there."""
    likely: Number | None
    """What was current last, where `current` names nothing."""
    recorded: tuple[Operation, ...]
    operations: tuple[Operation, ...]
    """Those that took place."""
    present: Mapping[Number, str]
    tags: Mapping[str, Number]
    findings: tuple[Finding, ...]

    @property
    def live(self) -> Number | None:
        """The generation that is current, or would be after a repair."""
        return self.current if self.current is not None else self.likely

    @property
    def published(self) -> set[Number]:
        """Generations that were current at some time."""
        if self.live is None:
            return {item.target for item in self.recorded}
        return {item.target for item in self.operations} | {self.live}

    @property
    def replaced(self) -> dict[Number, Number]:
        """Generations whose place a repaired one took."""
        return replaced(self.operations)


def read(fs: FileSystem, layout: Layout) -> Around:
    """Read what stands around the generations, and say what is wrong with it."""
    findings = [*_format(fs, layout)]
    present = listed(fs, layout)
    recorded = tuple(_recorded(fs, layout))
    try:
        target = fs.read_link(layout.current)
    except OSError:
        target = None
    named = layout.parse_current(target) if target is not None else None
    current = named if named is not None and present.get(named) == "directory" else None
    likely = lost.current(recorded, present) if named is None else None
    if named is None:
        findings.append(_lost_current(fs, layout, likely))
    elif current is None:
        findings.append(_gone(layout, named, recorded, present))
    live = current if current is not None else likely
    operations = effective_history(list(recorded), live) if live is not None else []
    found = Around(current, likely, recorded, tuple(operations), present, {}, ())
    tags, of_tags = _tags(fs, layout, present)
    findings += of_tags
    findings += _directories(fs, layout)
    for number in stray_tombstones(fs, layout):
        what = f"the tombstone of generation {number} leads elsewhere"
        findings.append(
            curable(Finding(Kind.LINK, what, path=f".siteswap/generations/{number}"), "put right")
        )
    if live is not None:
        findings += _top_level(fs, layout, live)
    findings += _leftovers(fs, layout, found)
    return Around(current, likely, recorded, tuple(operations), present, tags, tuple(findings))


def _recorded(fs: FileSystem, layout: Layout) -> list[Operation]:
    try:
        return parse_history(fs.read(layout.history).decode(errors="replace"))
    except OSError:
        return []


def _format(fs: FileSystem, layout: Layout) -> Iterable[Finding]:
    finding = Finding(Kind.FORMAT, ".siteswap/format is missing, or cannot be read", path=".siteswap/format")
    try:
        data = json.loads(fs.read(layout.format))
        version, path = data["format"], data["path"]
    except (OSError, ValueError, KeyError, TypeError):
        yield curable(finding, "written anew")
        return
    if version != FORMAT_VERSION:
        what = f"its layout has version {version}, this siteswap knows {FORMAT_VERSION}"
        yield beyond(Finding(Kind.FORMAT, what, path=".siteswap/format"), "use a newer siteswap")
    elif path != str(layout.root):
        what = f"it was made at {path}; its programs name that path"
        how = "move it back, or create a new one here and sync it to an export of this one"
        yield beyond(Finding(Kind.FORMAT, what, path=".siteswap/format"), how)


def _lost_current(fs: FileSystem, layout: Layout, likely: Number | None) -> Finding:
    kind = "is missing" if fs.entry(layout.current) is None else "is no link to a generation"
    finding = Finding(Kind.CURRENT, f".siteswap/current {kind}", path=".siteswap/current")
    if likely is None:
        return beyond(finding, "no generation is left: create a new environment")
    return curable(finding, f"made to name generation {likely}, which was current last by the history")


def _gone(
    layout: Layout, named: Number, recorded: Sequence[Operation], present: Mapping[Number, str]
) -> Finding:
    finding = Finding(
        Kind.CURRENT,
        f".siteswap/current names generation {named}, which is not there",
        path=".siteswap/current",
    )
    others = [item.target for item in recorded if present.get(item.target) == "directory"]
    if not others:
        return beyond(finding, "no generation is left: create a new environment")
    return beyond(finding, f"siteswap rollback -e {shlex.quote(str(layout.root))} {others[-1]}")


def _tags(
    fs: FileSystem, layout: Layout, present: Mapping[Number, str]
) -> tuple[dict[str, Number], list[Finding]]:
    if fs.entry(layout.tags) is None:
        return {}, []
    text = ""
    findings = []
    try:
        text = fs.read(layout.tags).decode(errors="replace")
        tags = {str(name): Number(int(number)) for name, number in json.loads(text).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        tags = lost.tags(text)
        kept = ", ".join(f"{name} ({number})" for name, number in sorted(tags.items())) or "none"
        finding = Finding(Kind.TAGS, ".siteswap/tags cannot be read", path=".siteswap/tags")
        findings.append(curable(finding, f"written anew with the tags that can still be read: {kept}"))
    for name, number in sorted(tags.items()):
        if present.get(number) != "directory":
            finding = Finding(Kind.TAGS, f"tag {name} names generation {number}, which is gone")
            findings.append(curable(finding, "the tag is removed"))
    return tags, findings


def history(found: Around, manifests: Mapping[Number, Manifest]) -> Iterable[Finding]:
    """Generations that the history has lost: rollback would refuse them, and recovery might remove them."""
    live = found.live
    if live is None:
        return
    mended = lost.history(found.recorded, live, manifests)
    known = {item.target for item in mended}
    missing = sorted((known - {item.target for item in found.operations}) & manifests.keys())
    if missing:
        names = ", ".join(map(str, missing))
        finding = Finding(
            Kind.HISTORY, f"the history does not know generation {names}", path=".siteswap/history"
        )
        yield curable(finding, "recorded again, as their manifests tell it")


def stray_tombstones(fs: FileSystem, layout: Layout) -> list[Number]:
    """Collected generations whose tombstone leads elsewhere than to the current one."""
    return [
        number
        for number, kind in listed(fs, layout).items()
        if kind == "link" and fs.read_link(layout.generation(number).path) != layout.TOMBSTONE
    ]


def _directories(fs: FileSystem, layout: Layout) -> Iterable[Finding]:
    for path in (layout.staging, layout.log):
        if not fs.is_directory(path):
            name = f".siteswap/{path.name}"
            finding = Finding(Kind.LINK, f"{name} is missing", path=name)
            yield (
                curable(finding, "made again")
                if fs.entry(path) is None
                else beyond(finding, f"{path} is in the way: move it away")
            )


def configured(fs: FileSystem, layout: Layout, wanted: bytes) -> Iterable[Finding]:
    """ENV/pyvenv.cfg, by which other tools know an environment; written once: versions in it may be old."""
    try:
        found = _settings(fs.read(layout.config)) if fs.entry(layout.config) else {}
    except OSError:
        found = {}
    expected = _settings(wanted)
    wrong = [
        name for name in ("home", "include-system-site-packages") if found.get(name) != expected.get(name)
    ]
    if wrong:
        what = (
            f"pyvenv.cfg {'does not have the right ' + ', '.join(wrong) if found else 'is missing or empty'}"
        )
        yield curable(Finding(Kind.CONFIGURATION, what, path="pyvenv.cfg"), "written anew")


def _settings(text: bytes) -> dict[str, str]:
    lines = (line.partition("=") for line in text.decode(errors="replace").splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in lines}


def missing_links(fs: FileSystem, layout: Layout, live: Number) -> list[str]:
    """Top-level names of the live generation that no link of the environment leads to."""
    names = [name for name, _ in fs.entries(layout.generation(live).path) if name not in NOT_LINKED]
    return [name for name in names if fs.read_link(layout.root / name) != layout.top_link_target(name)]


def _top_level(fs: FileSystem, layout: Layout, live: Number) -> Iterable[Finding]:
    for name in missing_links(fs, layout, live):
        entry = fs.entry(layout.root / name)
        if entry is None or entry.kind == "link":
            kind = "is missing" if entry is None else "leads elsewhere"
            finding = Finding(Kind.LINK, f"the link {name} {kind}", path=name)
            yield curable(finding, "put back")
        else:
            finding = Finding(
                Kind.LINK, f"{name} is a {entry.kind} and not the link that it should be", path=name
            )
            path = shlex.quote(str(layout.root / name))
            yield beyond(finding, f"move {path} away, then siteswap doctor --repair")


def _leftovers(fs: FileSystem, layout: Layout, found: Around) -> Iterable[Finding]:
    left = [f"staging/{name}" for name, _ in fs.entries(layout.staging)]
    left += [name for name, _ in fs.entries(layout.home) if name.startswith(".") or name == "current.next"]
    left += [f"log/{name}" for name, _ in fs.entries(layout.log) if name.startswith(".")]
    newest = max(found.published, default=Number(0))
    if found.recorded:
        left += [
            f"generations/{number}"
            for number, kind in found.present.items()
            if kind == "directory" and number > newest
        ]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        what = f"work in progress, or left by a crash: {', '.join(left[:3])}{more}"
        how = "the next command that writes removes what a crash left"
        yield Finding(Kind.LEFTOVER, what, Severity.NOTE, how=how)


def python(
    fs: FileSystem, layout: Layout, manifests: Mapping[Number, Manifest]
) -> tuple[list[Finding], dict[str, Interpreter]]:
    """What is wrong with the base interpreters, and what may stand in for those that are gone, by path."""
    findings: list[Finding] = []
    instead: dict[str, Interpreter] = {}
    users: dict[str, list[Number]] = {}
    known: dict[str, Interpreter] = {}
    for number, manifest in sorted(manifests.items()):
        users.setdefault(manifest.interpreter.executable, []).append(number)
        known[manifest.interpreter.executable] = manifest.interpreter
    for path, numbers in users.items():
        try:
            interpreter.refresh(known[path], fs)
            if fs.is_program(Path(path)):
                continue
            problem, hint = f"the base interpreter {path} may not be executed", ""
        except SiteswapError as error:
            problem, hint = error.message, error.hint or ""
        names = ", ".join(map(str, numbers))
        finding = Finding(Kind.INTERPRETER, f"{problem} (generation {names})", generation=numbers[-1])
        other = _stand_in(fs, known[path])
        if other is not None:
            instead[path] = other
            findings.append(curable(finding, f"{other.executable} takes its place"))
            continue
        lock = layout.generation(numbers[-1]).lock_file
        how = (
            f"{hint}: siteswap create NEW --python {known[path].short_version}, "
            f"then siteswap sync -e NEW {shlex.quote(str(lock))}"
        )
        findings.append(beyond(finding, how))
    return findings, instead


def _stand_in(fs: FileSystem, known: Interpreter) -> Interpreter | None:
    """Another interpreter of the same version, for which everything that is installed fits."""
    with contextlib.suppress(SiteswapError, OSError):
        found = interpreter.probe(interpreter.find(known.short_version, fs), fs)
        if lost.same_python(found, known) and found.executable != known.executable:
            return found
    return None


def sources(fs: FileSystem, manifest: Manifest) -> Iterable[Finding]:
    """Editables whose source directory is gone: nothing of ours is damaged, and they cannot be imported."""
    for item in manifest.distributions:
        if item.editable is not None and fs.entry(Path(item.editable)) is None:
            what = f"{item.title} is editable, and its directory is gone: {item.editable}"
            how = f"put it back, or: siteswap uninstall {item.name}"
            yield Finding(
                Kind.SOURCE, what, Severity.WARNING, manifest.number, distribution=item.name, how=how
            )


def python_path(layout: Layout, fs: FileSystem, value: str | None) -> Iterable[Finding]:
    """A PYTHONPATH into the environment: what is imported through it cannot be pinned."""
    for text in (value or "").split(os.pathsep):
        if not text:
            continue
        spelled = Path(os.path.abspath(text))
        inside = [path for path in (spelled, fs.resolve(spelled)) if path.is_relative_to(layout.root)]
        if inside:
            what = f"PYTHONPATH leads into the environment ({text}): what is imported so cannot be pinned"
            how = "take it out of PYTHONPATH; start programs with ENV/bin/python or siteswap run"
            yield Finding(Kind.PYTHONPATH, what, Severity.WARNING, how=how)
