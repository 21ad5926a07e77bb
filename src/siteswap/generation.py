"""Read generations: what they hold, and how what is on disk differs from it (drift)."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from siteswap import plan, prefix
from siteswap.errors import REPAIR_HINT, Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.layout import GenerationLayout, Layout, Number, parse_number
from siteswap.lockfile import LockFile
from siteswap.manifest import Distribution, Interpreter, Manifest


@dataclass(frozen=True)
class Drift:
    """What other tools changed in a generation since it was assembled."""

    foreign: tuple[Distribution, ...] = ()
    """Distributions that are there and were not."""
    removed: tuple[str, ...] = ()
    """Names of distributions that were there and are not."""
    damaged: tuple[str, ...] = ()
    """Names of distributions that miss files."""
    strays: tuple[str, ...] = ()
    """Files that no distribution owns, all of them."""
    carried: tuple[str, ...] = ()
    """Those of them that the generation was assembled with."""

    def __bool__(self) -> bool:
        return bool(self.foreign or self.removed or self.damaged or self.strays != self.carried)


class Generation:
    """One complete generation (or a candidate, or the spare) on disk."""

    def __init__(self, fs: FileSystem, where: GenerationLayout, manifest: Manifest) -> None:
        self.fs = fs
        self.layout = where
        self.manifest = manifest

    @staticmethod
    def read(fs: FileSystem, where: GenerationLayout) -> Generation:
        """The generation at `where`. Raises SiteswapError (damaged) when its manifest cannot be read."""
        try:
            text = fs.read(where.manifest)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SiteswapError(
                Kind.DAMAGED,
                f"generation {where.path.name} has no manifest",
                hint=REPAIR_HINT,
            ) from error
        return Generation(fs, where, Manifest.from_json(text, str(where.manifest)))

    @property
    def number(self) -> Number:
        """The generation's number."""
        return self.manifest.number

    @property
    def interpreter(self) -> Interpreter:
        """The interpreter it was made for."""
        return self.manifest.interpreter

    def lock_file(self) -> LockFile:
        """The lock it was made from."""
        try:
            text = self.fs.read_text(self.layout.lock_file)
            return LockFile.parse(text, self.layout.corner, str(self.layout.lock_file))
        except (FileNotFoundError, UnicodeDecodeError, SiteswapError) as error:
            raise self._lacks("its lock file") from error

    def _lacks(self, what: str) -> SiteswapError:
        return SiteswapError(
            Kind.DAMAGED,
            f"generation {self.number} lacks {what}",
            hint=REPAIR_HINT,
        )

    def record(self, distribution: Distribution) -> list[plan.Row]:
        """The distribution's RECORD. Raises SiteswapError (damaged) when it cannot be read."""
        path = self.layout.path / distribution.dist_info / "RECORD"
        try:
            return plan.read_record(self.fs.read_text(path), distribution.dist_info)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SiteswapError(
                Kind.DAMAGED,
                f"RECORD of {distribution.title} in generation {self.number} cannot be read",
                hint=REPAIR_HINT,
            ) from error

    def metadata(self, distribution: Distribution) -> bytes:
        """The distribution's METADATA."""
        return self.fs.read(self.layout.path / distribution.dist_info / "METADATA")

    def differs(self, distribution: Distribution, paths: Collection[str]) -> bool:
        """Whether one of the distribution's files, of those in `paths`, is not what its RECORD says."""
        for row in self.record(distribution):
            if row.path in paths:
                path = self.layout.path / row.path
                if self.fs.entry(path) is None or plan.row_of(row.path, self.fs.read(path)) != row:
                    return True
        return False

    def imports(self) -> dict[str, set[str]]:
        """Modules that each distribution was seen to import, as far as its imports were ever checked."""
        try:
            data = json.loads(self.fs.read(self.layout.imports))
            return {name: set(loaded) for name, loaded in data.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # a hint only: none is as good as one that is lost

    def remember_imports(self, known: Mapping[str, Collection[str]]) -> None:
        """Note in a candidate what its distributions were seen to import. Not durable by itself."""
        names = sorted(known.keys() & {item.name for item in self.manifest.distributions})
        text = json.dumps({name: sorted(known[name]) for name in names})
        self.fs.write(self.layout.imports, text.encode())

    @cached_property
    def files(self) -> dict[str, str]:
        """Owner of every file that a distribution or siteswap itself put here."""
        owner = dict.fromkeys(prefix.names(self.interpreter), plan.SITESWAP)
        for distribution in self.manifest.distributions:
            info = distribution.dist_info
            if self.fs.entry(self.layout.path / info / "METADATA") is None:
                # Another tool removed it, RECORD included: that these two are gone is how drift knows.
                owner |= dict.fromkeys((f"{info}/METADATA", f"{info}/RECORD"), distribution.name)
                continue
            for row in self.record(distribution):
                owner[row.path] = distribution.name
        return owner

    @cached_property
    def directories(self) -> list[str]:
        """Every directory of the generation but those of byte-code; "" is the prefix itself."""
        try:
            return self.fs.read_text(self.layout.directories).split("\n")
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise self._lacks("its list of directories") from error

    def touched(self) -> list[str]:
        """Directories whose entries changed since the generation was assembled (None of it proves harm)."""
        reference = self.fs.entry(self.layout.directories)
        if reference is None:
            return self.directories
        times = self.fs.modification_times(self.layout.path, self.directories)
        return [
            path
            for path, changed in zip(self.directories, times, strict=True)
            if changed is None or changed > reference.mtime_ns
        ]

    def drift(self) -> Drift:
        """What other tools changed, by looking at the directories whose entries changed.

        Edits inside a file do not show here: that would mean reading every byte.
        """
        touched = self.touched()
        if not touched:
            return Drift(strays=self.manifest.strays, carried=self.manifest.strays)
        known = set(self.directories)
        gone: set[str] = set()
        found: list[str] = []
        for directory in touched:
            self._compare(directory, known, gone, found)
        foreign = self._foreign(found)
        names = {path for item in foreign for path in self._claimed(item)}
        by_dist_info = {item.dist_info: item.name for item in self.manifest.distributions}
        removed = {
            name
            for path, name in by_dist_info.items()
            if f"{path}/METADATA" in gone or f"{path}/RECORD" in gone
        }
        damaged = {owner for path in gone if (owner := self.files[path]) not in removed | {plan.SITESWAP}}
        kept = set(self.manifest.strays)
        strays = tuple(sorted({path for path in found if path not in names} | self._still_there(kept)))
        return Drift(
            tuple(foreign), tuple(sorted(removed)), tuple(sorted(damaged)), strays, self.manifest.strays
        )

    def _still_there(self, paths: set[str]) -> set[str]:
        return {path for path in paths if self.fs.entry(self.layout.path / path) is not None}

    def _compare(self, directory: str, known: set[str], gone: set[str], found: list[str]) -> None:
        """Note what a touched directory lacks and what it has beyond what we put there."""
        base = f"{directory}/" if directory else ""
        listed = self.fs.entries(self.layout.path / directory)
        present = {name for name, _ in listed}
        for path in self._expected.get(directory, ()):
            if path.rpartition("/")[2] not in present:
                gone.add(path)
        for name, kind in listed:
            path = base + name
            if (
                name == "__pycache__"
                or path in known
                or path in self.files
                or (not directory and name in NOBODYS)
            ):
                continue
            if kind != "directory":
                found.append(path)
                continue
            inner = self.fs.walk(self.layout.path / path)
            found += [
                f"{path}/{item}"
                for item, what in inner
                if what != "directory" and "__pycache__" not in item.split("/")
            ]

    @cached_property
    def _expected(self) -> dict[str, list[str]]:
        """Files by directory."""
        found: dict[str, list[str]] = {}
        for path in self.files:
            found.setdefault(path.rpartition("/")[0], []).append(path)
        return found

    def _foreign(self, found: list[str]) -> list[Distribution]:
        """Distributions that the unexpected files make up."""
        distributions = []
        for path in found:
            if not self.is_metadata(path) or path in self.manifest.strays:
                continue
            item = self.foreign(path.rpartition("/")[0])
            if item is not None:
                distributions.append(item)
        return distributions

    def is_metadata(self, path: str) -> bool:
        """Whether a path is the METADATA of something installed."""
        return is_metadata(path, self.interpreter)

    def foreign(self, dist_info: str) -> Distribution | None:
        """The distribution that another tool put here, told by its metadata; None when that is not whole."""
        record = self.layout.path / dist_info / "RECORD"
        metadata = self.fs.read(self.layout.path / dist_info / "METADATA")
        if self.fs.entry(record) is None:
            return None
        found = foreign(dist_info, metadata, hashlib.sha256(self.fs.read(record)).hexdigest())
        return found and replace(found, editable=editable_source(self.fs, self.layout.path / dist_info))

    def _claimed(self, distribution: Distribution) -> list[str]:
        return [row.path for row in self.record(distribution)]


def is_metadata(path: str, interpreter: Interpreter) -> bool:
    """Whether a path is the METADATA of something installed. Pure.

    Packages bring copies of others along, `.dist-info` and all (setuptools/_vendor): these are data.
    """
    head, _, name = path.rpartition("/")
    site, _, dist_info = head.rpartition("/")
    sites = (interpreter.schemes["purelib"], interpreter.schemes["platlib"])
    return name == "METADATA" and dist_info.endswith(".dist-info") and site in sites


def foreign(dist_info: str, metadata: bytes, record: str) -> Distribution | None:
    """What another tool put there, by its METADATA and the SHA-256 of its RECORD. Pure.

    None when the metadata names nothing.
    """
    from packaging.metadata import parse_email

    fields, _ = parse_email(metadata)
    if "name" not in fields or "version" not in fields:
        return None
    return Distribution(
        name=canonicalize_name(fields["name"]),
        version=fields["version"],
        key=f"foreign:{record}",
        dist_info=dist_info,
        requested=False,
        requires=tuple(fields.get("requires_dist", ())),
        requires_python=fields.get("requires_python"),
        foreign=True,
    )


def editable_source(fs: FileSystem, dist_info: Path) -> str | None:
    """The source directory of an editable, by its direct_url.json (PEP 610); None of anything else."""
    try:
        data = json.loads(fs.read(dist_info / "direct_url.json"))
        return unquote(urlsplit(data["url"]).path) if data["dir_info"]["editable"] is True else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


NOBODYS = frozenset({".generation", "pyvenv.cfg", "lib64", ".lock"})
"""Names at the top of a generation that are nobody's content; `.lock` is what uv leaves behind."""


def read_current(fs: FileSystem, layout: Layout) -> Number:
    """The number of the live generation. Raises SiteswapError (damaged) when `current` names none."""
    target = fs.read_link(layout.current)
    number = layout.parse_current(target) if target is not None else None
    if number is None:
        raise SiteswapError(
            Kind.DAMAGED,
            f"{layout.current} does not name a generation",
            hint=REPAIR_HINT,
        )
    return number


def no_generation(layout: Layout, number: Number) -> SiteswapError:
    """The error where `current` names a generation that is not there."""
    return SiteswapError(
        Kind.DAMAGED,
        f"{layout.current} names generation {number}, which is not there",
        hint="siteswap rollback N to one that is; siteswap history shows them, siteswap doctor more",
    )


def listed(fs: FileSystem, layout: Layout) -> dict[Number, str]:
    """Numbers in `generations/` and what stands there: "directory" or "link" (a tombstone)."""
    found = {}
    for name, kind in fs.entries(layout.generations):
        number = parse_number(name)
        if number is not None:
            found[number] = kind
    return found
