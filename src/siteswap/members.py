"""Distributions of a candidate as values: from an artifact and its wheel, or from the base. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from siteswap.assemble import Member
from siteswap.cache import Entry
from siteswap.fetch import without_password
from siteswap.lockfile import Artifact
from siteswap.manifest import Distribution, Interpreter


def new_member(artifact: Artifact, entry: Entry, requested: bool, python: Interpreter) -> Member:
    """What was obtained, as a member of a candidate."""
    index = entry.index
    note = direct_url(artifact)
    parts = [index.sha256]
    if requested:
        parts.append("requested")
    if note is not None:
        parts.append(hashlib.sha256(note).hexdigest()[:12])
    distribution = Distribution(
        name=artifact.name,
        version=index.version,
        key="+".join(parts),
        dist_info=f"{python.schemes[index.root]}/{index.dist_info}",
        requested=requested,
        requires=index.requires,
        requires_python=index.requires_python,
        origin=artifact.identity,
        editable=artifact.location if artifact.editable else None,
    )
    return Member(distribution, entry, note)


def direct_url(artifact: Artifact) -> bytes | None:
    """direct_url.json (PEP 610) of what was named by URL or path."""
    if not artifact.direct:
        return None
    location = artifact.location
    url = without_password(location) if "://" in location else Path(location).as_uri()
    data: dict[str, object] = {"url": url}
    if artifact.kind == "directory":
        data["dir_info"] = {"editable": True} if artifact.editable else {}
    elif artifact.kind == "vcs":
        info = {"vcs": "git", "commit_id": artifact.commit}
        if artifact.requested_revision:
            info["requested_revision"] = artifact.requested_revision
        data["vcs_info"] = info
    else:
        data["archive_info"] = {"hashes": dict(artifact.hashes)}
    if artifact.subdirectory:
        data["subdirectory"] = artifact.subdirectory
    return json.dumps(data, sort_keys=True).encode()


def is_same(held: Distribution, artifact: Artifact, exact: bool) -> bool:
    """Whether what the base has is what the lock names."""
    if held.foreign:
        return not exact and held.version == artifact.version
    return held.origin == artifact.identity


def live_notes(before: Iterable[Distribution], after: Iterable[Distribution]) -> list[str]:
    """What to say once of editables that come in: no generation keeps what their directories hold."""
    known = {(item.name, item.editable) for item in before}
    return [
        f"{item.name} is editable: changes in {item.editable} are live at once, in every generation with it"
        for item in after
        if item.editable is not None and (item.name, item.editable) not in known
    ]


def kept_member(held: Distribution, requested: bool, note: bytes | None) -> Member:
    """What the base has, with other notes in its .dist-info where it is asked for differently now.

    `note` is the content of its direct_url.json, if it has one.
    """
    if held.foreign or held.requested == requested:
        return Member(replace(held, requested=requested))
    content, _, rest = held.key.partition("+")
    parts = [part for part in rest.split("+") if part and part != "requested"]
    key = "+".join([content, *(["requested"] if requested else []), *parts])
    return Member(replace(held, requested=requested, key=key), direct_url=note)
