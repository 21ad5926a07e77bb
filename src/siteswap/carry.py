"""The base of a transaction as other tools left it.

Another tool's work is the user's work: distributions that it put there stay,
and what it removed or replaced is no longer asked for as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from siteswap import interpreter
from siteswap.fs import FileSystem
from siteswap.generation import Drift, Generation, read_current
from siteswap.layout import Layout
from siteswap.lockfile import LockFile
from siteswap.manifest import Distribution, Interpreter, Manifest
from siteswap.requirements import Requirement, parse_stored


@dataclass(frozen=True)
class Base:
    """The generation that a transaction starts from, with all that happened to it since."""

    generation: Generation
    drift: Drift
    interpreter: Interpreter
    """As it is now: its patch version may have changed."""
    distributions: tuple[Distribution, ...]
    requirements: tuple[Requirement, ...]

    @staticmethod
    def read(fs: FileSystem, layout: Layout) -> Base:
        """The current generation. Raises SiteswapError (damaged, system)."""
        generation = Generation.read(fs, layout.generation(read_current(fs, layout)))
        drift = generation.drift()
        return Base(
            generation,
            drift,
            interpreter.refresh(generation.interpreter, fs),
            distributions(generation.manifest, drift),
            tuple(requirements(generation.manifest, drift)),
        )

    def preferred_lock(self) -> LockFile:
        """The base's lock, for the resolver to prefer its versions."""
        return preferred(self.generation.lock_file(), self.distributions)


def distributions(manifest: Manifest, drift: Drift) -> tuple[Distribution, ...]:
    """The base's distributions as they are now, other tools' work included."""
    foreign = {item.name: item for item in drift.foreign}
    kept = [
        item for item in manifest.distributions if item.name not in drift.removed and item.name not in foreign
    ]
    return tuple(sorted([*kept, *foreign.values()], key=lambda item: item.name))


def requirements(manifest: Manifest, drift: Drift) -> list[Requirement]:
    """What is asked for, as other tools' work changed it: the newest act of the user counts."""
    return adjusted([parse_stored(text) for text in manifest.requirements], drift)


def adjusted(asked: Iterable[Requirement], drift: Drift) -> list[Requirement]:
    """The same for requirements that are at hand."""
    foreign: Mapping[str, Distribution] = {item.name: item for item in drift.foreign}
    lines = []
    for item in asked:
        if item.name is not None and item.name in foreign:
            specifier = item.specifier
            version = foreign[item.name].version
            if (
                specifier is None
                or specifier.url
                or not specifier.specifier.contains(version, prereleases=True)
            ):
                lines.append(Requirement(f"{item.name}=={version}", item.name))
                continue
        elif item.name in drift.removed:
            continue
        lines.append(item)
    return lines


def preferred(lock: LockFile, held: tuple[Distribution, ...]) -> LockFile:
    """The base's lock, with what other tools put there since as versions to prefer as well.

    Such an entry has a name and a version only: good for the resolver to prefer, not to install from.
    """
    foreign = [{"name": item.name, "version": item.version} for item in held if item.foreign]
    if not foreign:
        return lock
    kept = lock.only(lock.names - {item["name"] for item in foreign})
    return LockFile({**kept.data, "packages": [*kept.data["packages"], *foreign]}, kept.base)


def notes(drift: Drift) -> list[str]:
    """What to tell the user of it."""
    found = []
    if drift.foreign:
        names = ", ".join(item.title for item in drift.foreign)
        found.append(f"another tool installed {names}: carried along")
    replaced = {item.name for item in drift.foreign}
    removed = [name for name in drift.removed if name not in replaced]
    if removed:
        found.append(f"another tool removed {', '.join(removed)}")
    if drift.foreign or removed:
        found.append("siteswap exec -- uv pip … (or any other tool) makes such a change a transaction")
    if drift.damaged:
        found.append(f"files of {', '.join(drift.damaged)} are missing: they are brought back")
    new = [path for path in drift.strays if path not in drift.carried]
    if new:
        more = f" and {len(new) - 3} more" if len(new) > 3 else ""
        found.append(f"files of no distribution are carried along: {', '.join(new[:3])}{more}")
    return found
