"""What was lost, put together again from what is left: a manifest, the history, tags. Pure.

Only what is proven: each distribution by its RECORD in another generation, or by
the lock file that the generation was made from. Else the reason why it cannot be.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from siteswap import activate, scripts
from siteswap.doctor.seen import Info, Seen
from siteswap.errors import SiteswapError
from siteswap.layout import Layout, Number
from siteswap.lockfile import EMPTY, Artifact, LockFile
from siteswap.manifest import Distribution, Interpreter, Manifest, Operation
from siteswap.requirements import parse_stored

LOST = "lost"
"""Kind of the records that stand for lost ones."""


def manifest(
    seen: Seen,
    others: Sequence[Manifest],
    records: Mapping[str, str],
    operations: Sequence[Operation],
    python: Interpreter,
    shared_mode: int,
    configuration: bytes,
    notes: Mapping[str, bytes],
    checked: bool,
    name: str,
) -> Manifest | str:
    """The manifest of a generation that lost its own, or why it cannot be put together.

    `records` are digests of RECORDs by the key of their distribution, in other
    generations; `notes` the content of each direct_url.json by .dist-info; `checked`
    says whether a verdict on it is kept; `name` is the environment's.
    """
    if seen.lock is None:
        artifacts: dict[str, Artifact] = {}
    else:
        try:
            held = {item.name: item.origin for other in others for item in other.distributions if item.origin}
            artifacts = {item.name: item for item in seen.lock.artifacts(python, held)}
        except SiteswapError:
            artifacts = {}
    known = {item.dist_info: item for other in others for item in other.distributions}
    found = []
    for path, info in sorted(seen.infos.items()):
        item = _distribution(path, info, known, records, artifacts, notes.get(path))
        if isinstance(item, str):
            return item
        found.append(item)
    gone = sorted(artifacts.keys() - {item.name for item in found})
    if gone:
        return f"its lock file has {', '.join(gone)}, of which nothing is there"
    made = next((item for item in operations if item.target == seen.number), None)
    return Manifest(
        number=seen.number,
        created=made.time if made is not None else "1970-01-01T00:00:00+00:00",
        command=made.command if made is not None else "",
        base=made.source if made is not None else None,
        interpreter=python,
        requirements=requirements(found, others, seen.number),
        distributions=tuple(sorted(found, key=lambda item: item.name)),
        system_site_packages=b"include-system-site-packages = true" in configuration,
        shared_mode=shared_mode,
        checked="passed" if checked else "skipped",
        overlaps=_overlaps(seen),
        prompt=_prompt(configuration, name),
    )


def _prompt(configuration: bytes, name: str) -> str | None:
    found = re.search(rb"^prompt = (.+)$", configuration, re.MULTILINE)
    prompt = found[1].decode(errors="replace") if found else name
    return prompt if prompt != name else None


def _distribution(
    path: str,
    info: Info,
    known: Mapping[str, Distribution],
    records: Mapping[str, str],
    artifacts: Mapping[str, Artifact],
    note: bytes | None,
) -> Distribution | str:
    if info.record is None or not info.record.whole or info.metadata is None:
        return f"RECORD or METADATA of {path.rpartition('/')[2]} cannot be read"
    twin = known.get(path)
    if twin is not None and records.get(twin.key) == info.record.digest:
        return twin
    fields, _ = parse_email(info.metadata)
    if "name" not in fields or "version" not in fields:
        return f"METADATA of {path.rpartition('/')[2]} names nothing"
    if not info.ours:
        foreign = info.distribution(path)
        return foreign if foreign is not None else f"{path} says nothing of itself"
    name, version = canonicalize_name(fields["name"]), fields["version"]
    artifact = artifacts.get(name)
    if artifact is None or artifact.version not in (None, version):
        return f"nothing says where {name} {version} came from"
    sha256 = artifact.hashes.get("sha256") if artifact.kind == "wheel" else None
    parts = [sha256 or f"record:{info.record.digest}"]
    if info.requested:
        parts.append("requested")
    if note is not None:
        parts.append(hashlib.sha256(note).hexdigest()[:12])
    return Distribution(
        name=name,
        version=version,
        key="+".join(parts),
        dist_info=path,
        requested=info.requested,
        requires=tuple(fields.get("requires_dist", ())),
        requires_python=fields.get("requires_python"),
        origin=artifact.identity,
        editable=artifact.location if artifact.editable else None,
    )


def requirements(
    found: Iterable[Distribution], others: Sequence[Manifest], number: Number
) -> tuple[str, ...]:
    """What was asked for: as the nearest generation has it where that fits, else by its bare name."""
    near = sorted(others, key=lambda other: abs(other.number - number))
    lines = []
    for item in found:
        if not item.requested:
            continue
        asked = [
            text
            for other in near
            for text in other.requirements
            if parse_stored(text).name == item.name and _fits(text, item)
        ]
        lines.append(asked[0] if asked else item.name)
    return tuple(lines)


def _fits(text: str, item: Distribution) -> bool:
    specifier = parse_stored(text).specifier
    if specifier is None or specifier.url:
        return item.origin is not None and not item.origin.startswith("wheel:sha256")
    return specifier.specifier.contains(item.version, prereleases=True)


def _overlaps(seen: Seen) -> tuple[str, ...]:
    owner: dict[str, str] = {}
    twice = set()
    for path, info in seen.infos.items():
        for listed in info.record.paths if info.record is not None else ():
            if owner.setdefault(listed, path) != path:
                twice.add(listed)
    return tuple(sorted(twice))


# -- the lock file -------------------------------------------------------------------------------


def lock(
    mine: LockFile | None, others: Sequence[LockFile], wanted: Sequence[Distribution], python: Interpreter
) -> LockFile | None:
    """A lock with just what a generation has: its own, else from others'; None where they lack some.

    What counts is the identity that the manifest notes of each distribution.
    """
    needed = [item for item in wanted if not item.foreign]
    if mine is not None and not lacking(mine, needed, python):
        return mine
    names = {item.name for item in needed}
    for other in others:
        if other.names == names and not lacking(other, needed, python):
            return other
    made = LockFile.parse(EMPTY, Path("/"), "an empty lock")
    for item in needed:
        source = next(
            (lock for lock in (mine, *others) if lock is not None and has(lock, item, python)), None
        )
        if source is None:
            return None
        made = made.merged(source.only({item.name}))
    return made


def lacking(found: LockFile, wanted: Iterable[Distribution], python: Interpreter) -> list[str]:
    """Names of distributions that a lock does not name as what they were made from."""
    needed = {item.name: item.origin or "" for item in wanted if not item.foreign}
    try:
        named = {item.name: item.identity for item in found.only(needed).artifacts(python, needed)}
    except SiteswapError:
        return sorted(needed.keys() - found.names)  # for another platform than this, maybe
    return sorted(name for name, origin in needed.items() if named.get(name) != origin)


def has(found: LockFile, item: Distribution, python: Interpreter) -> bool:
    """Whether a lock names just what a distribution was made from."""
    return artifact(found, item, python) is not None


def artifact(found: LockFile, item: Distribution, python: Interpreter) -> Artifact | None:
    """What a distribution was made from, as a lock names it."""
    if item.name not in found.names or item.origin is None:
        return None
    try:
        chosen = found.only({item.name}).artifacts(python, {item.name: item.origin})
    except SiteswapError:
        return None
    return next((one for one in chosen if one.name == item.name and one.identity == item.origin), None)


# -- history and tags ----------------------------------------------------------------------------


def history(
    recorded: Sequence[Operation], current: Number, manifests: Mapping[Number, Manifest]
) -> list[Operation]:
    """The recorded operations with those that are lost put in, so that every generation is known again.

    `manifests` are those of the generations that are there. Records that stand for
    lost ones say what their generation's manifest says.
    """
    chain: list[Operation] = []
    expected: Number | None = current
    rest = list(recorded)
    seen: set[Number] = set()
    while expected is not None:
        at = next((n for n in range(len(rest) - 1, -1, -1) if rest[n].target == expected), None)
        if at is not None:
            chain.append(rest[at])
            expected = rest[at].source
            del rest[at:]
            continue
        known = manifests.get(expected)
        if known is None or expected in seen:
            break
        seen.add(expected)
        chain.append(Operation(known.created, LOST, known.command, known.base, expected, ""))
        expected = known.base
    chain.reverse()
    reached = {item.target for item in chain}
    # What was gone back from, in a history of which nothing else is left: there and back again.
    lost = [number for number in sorted(manifests) if number not in reached]
    for number in lost:
        if not recorded or number < max(reached, default=0):
            known = manifests[number]
            chain.append(Operation(known.created, LOST, known.command, current, number, ""))
            chain.append(Operation(known.created, LOST, "", number, current, ""))
    return chain


_TAG = re.compile(r'^\s*"((?:[^"\\]|\\.)+)": ([1-9][0-9]*),?$', re.MULTILINE)


def tags(text: str) -> dict[str, Number]:
    """Tags out of what is left of the file."""
    return {match[1]: Number(int(match[2])) for match in _TAG.finditer(text)}


# -- current -------------------------------------------------------------------------------------


def current(recorded: Sequence[Operation], there: Mapping[Number, str]) -> Number | None:
    """What was current last, going by the history: the newest target that is there."""
    return next(
        (item.target for item in reversed(recorded) if there.get(item.target) == "directory"),
        max((number for number, kind in there.items() if kind == "directory"), default=None)
        if not recorded
        else None,
    )


def same_python(one: Interpreter, other: Interpreter) -> bool:
    """Whether what was installed for one works with the other."""
    return (
        one.version_pair == other.version_pair
        and one.implementation == other.implementation
        and one.cache_tag == other.cache_tag
        and one.schemes == other.schemes
    )


def made_for(programs: Mapping[str, bytes], layout: Layout) -> bool:
    """Whether one of the programs was made for the environment at that very path."""
    first = scripts.shebang(str(layout.python))
    activates = activate.scripts(str(layout.root), layout.root.name)
    return any(
        text.startswith(first) or text == activates.get(name, "").encode(errors="surrogateescape")
        for name, text in programs.items()
    )
