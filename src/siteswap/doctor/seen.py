"""One generation as it lies on the disk, read without believing any of it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from siteswap import plan
from siteswap.errors import SiteswapError
from siteswap.fs import Entry, FileSystem
from siteswap.generation import Generation, foreign
from siteswap.layout import CORNER, GenerationLayout, Number
from siteswap.lockfile import LockFile
from siteswap.manifest import Distribution, Manifest
from siteswap.plan import Row


@dataclass(frozen=True)
class Record:
    """A RECORD that can be read."""

    path: Path
    rows: tuple[Row, ...]
    digest: str
    whole: bool
    """It lists itself, which it does last: so nothing was cut off."""

    @property
    def paths(self) -> frozenset[str]:
        """What it lists."""
        return frozenset(row.path for row in self.rows)


@dataclass(frozen=True)
class Info:
    """A .dist-info directory."""

    record: Record | None
    metadata: bytes | None
    installer: bytes | None
    requested: bool

    @property
    def ours(self) -> bool:
        """Whether siteswap put it there, going by what it says."""
        return self.installer == plan.INSTALLER

    def distribution(self, dist_info: str) -> Distribution | None:
        """What it says of itself, as something that another tool put there; None when it does not say."""
        if self.metadata is None or self.record is None:
            return None
        return foreign(dist_info, self.metadata, self.record.digest)


@dataclass(frozen=True)
class Seen:
    """What is there."""

    number: Number
    where: GenerationLayout
    manifest: Manifest | None
    why_not: str
    """Why there is no manifest to go by."""
    lock: LockFile | None
    files: Mapping[str, Entry]
    """Everything that is no directory, byte-code and siteswap's corner aside."""
    directories: Mapping[str, Entry]
    infos: Mapping[str, Info]
    """By the path of the .dist-info directory."""
    label: str = ""
    """What people call it, where that is not its number."""
    corner: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """What it is called."""
        return self.label or f"generation {self.number}"

    def full(self, path: str) -> Path:
        """Where a path of it is."""
        return self.where.path / path


class Reader:
    """Reads generations; a RECORD that several share is read once."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._records: dict[tuple[int, int], Record | None] = {}

    def read(self, where: GenerationLayout, number: Number, label: str = "") -> Seen:
        """Everything of a generation but the content of its files."""
        files: dict[str, Entry] = {}
        directories: dict[str, Entry] = {}
        corner: dict[str, Entry] = {}
        for path, kind in self._fs.walk(where.path):
            if "__pycache__" in path.split("/"):
                continue
            entry = self._fs.entry(where.path / path)
            if entry is None:
                continue
            if path == CORNER or path.startswith(f"{CORNER}/"):
                corner[path.removeprefix(f"{CORNER}/")] = entry
            elif kind == "directory":
                directories[path] = entry
            else:
                files[path] = entry
        manifest, why_not = self._manifest(where, number)
        infos = self._infos(where, files, directories)
        if manifest is not None:
            known = {item.dist_info for item in manifest.distributions}
            unknown = sorted(path for path, info in infos.items() if info.ours and path not in known)
            if unknown:
                what = unknown[0].rpartition("/")[2].removesuffix(".dist-info")
                manifest, why_not = None, f"its manifest does not have {what}, which siteswap put there"
        return Seen(
            number, where, manifest, why_not, self._lock(where), files, directories,
            infos, label, corner,
        )  # fmt: skip

    def _manifest(self, where: GenerationLayout, number: Number) -> tuple[Manifest | None, str]:
        try:
            found = Generation.read(self._fs, where).manifest
        except (SiteswapError, OSError, AttributeError) as error:
            return None, getattr(error, "message", str(error))
        if found.number != number:
            return None, f"its manifest is that of generation {found.number}"
        return found, ""

    def _lock(self, where: GenerationLayout) -> LockFile | None:
        try:
            text = self._fs.read_text(where.lock_file)
            return LockFile.parse(text, where.corner, str(where.lock_file))
        except (OSError, UnicodeDecodeError, SiteswapError):
            return None

    def _infos(
        self, where: GenerationLayout, files: Mapping[str, Entry], directories: Mapping[str, Entry]
    ) -> dict[str, Info]:
        found = {}
        for path in directories:
            head, _, name = path.rpartition("/")
            if name.endswith(".dist-info") and head.endswith(("site-packages", "dist-packages")):
                found[path] = Info(
                    self._record(where, path, files.get(f"{path}/RECORD")),
                    self._content(where, files, f"{path}/METADATA"),
                    self._content(where, files, f"{path}/INSTALLER"),
                    f"{path}/REQUESTED" in files,
                )
        return found

    def _content(self, where: GenerationLayout, files: Mapping[str, Entry], path: str) -> bytes | None:
        entry = files.get(path)
        if entry is None or entry.kind != "file":
            return None
        try:
            return self._fs.read(where.path / path)
        except OSError:
            return None

    def _record(self, where: GenerationLayout, dist_info: str, entry: Entry | None) -> Record | None:
        if entry is None or entry.kind != "file":
            return None
        if entry.inode not in self._records:
            self._records[entry.inode] = self._parsed(where.path / dist_info / "RECORD", dist_info)
        found = self._records[entry.inode]
        return found

    def _parsed(self, path: Path, dist_info: str) -> Record | None:
        try:
            content = self._fs.read(path)
            rows = tuple(dict.fromkeys(plan.read_record(content.decode(), dist_info)))
        except (OSError, UnicodeDecodeError, csv.Error):
            return None
        if not rows:
            return None
        whole = any(row.path == f"{dist_info}/RECORD" for row in rows)
        return Record(path, rows, hashlib.sha256(content).hexdigest(), whole)
