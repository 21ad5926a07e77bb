"""Lock files: pylock.toml (PEP 751) in and out, and what it says to obtain. Pure.

Reading and validating is `packaging.pylock`'s; here is only what siteswap makes
of a lock: the artifact of each package for one interpreter.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from packaging.markers import Environment
from packaging.pylock import (
    Package,
    PackageArchive,
    PackageDirectory,
    PackageSdist,
    PackageVcs,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)
from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name

from siteswap.errors import Kind, SiteswapError
from siteswap.manifest import Interpreter

EMPTY = 'lock-version = "1.0"\ncreated-by = "siteswap"\npackages = []\n'


@dataclass(frozen=True)
class Artifact:
    """One thing to obtain: a wheel, or a source to build one from."""

    name: str
    version: str | None
    kind: str
    """"wheel", "sdist" (a file to unpack and build), "directory" or "vcs"."""
    location: str
    """URL or absolute path."""
    hashes: Mapping[str, str]
    size: int | None = None
    direct: bool = False
    """Named by URL or path rather than taken from an index (then direct_url.json is written)."""
    editable: bool = False
    subdirectory: str | None = None
    commit: str | None = None
    requested_revision: str | None = None
    alternatives: frozenset[str] = frozenset()
    """Identities of other wheels of the same version that would do as well."""

    @property
    def identity(self) -> str:
        """Two artifacts with one identity are the same content."""
        if self.kind == "vcs":
            return f"git+{self.location}@{self.commit}#{self.subdirectory or ''}"
        if self.kind == "directory":
            return f"{'editable' if self.editable else 'directory'}:{self.location}"
        digest = self.hashes.get("sha256")
        return f"{self.kind}:sha256:{digest}" if digest else f"{self.kind}:{self.location}"

    @property
    def title(self) -> str:
        """Name and version for people."""
        return f"{self.name} {self.version}" if self.version else self.name

    @property
    def location_line(self) -> str:
        """A line of a requirements file for what is named by URL or path."""
        url = self.location if "://" in self.location else Path(self.location).as_uri()
        if self.kind == "vcs":
            url = f"git+{url}@{self.commit}"
        if self.subdirectory:
            url = f"{url}#subdirectory={self.subdirectory}"
        return f"-e {self.name} @ {url}" if self.editable else f"{self.name} @ {url}"

    @property
    def place(self) -> Path | None:
        """The file or directory of this machine that is meant; None where something else is."""
        scheme = urlsplit(self.location).scheme.lower()
        if scheme == "file":
            return _path(self.location, Path("/"))
        if "://" in self.location or (self.kind == "vcs" and scheme):
            return None
        return Path(self.location)

    @property
    def filename(self) -> str:
        """Last part of the location: one name, whatever is quoted in it."""
        path = unquote(urlsplit(self.location).path) if "://" in self.location else self.location
        return path.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class LockFile:
    """A lock file's text with its parsed form. Relative paths in it are below `base`."""

    data: Mapping[str, Any]
    base: Path
    places: tuple[Path, ...] | None = None
    """Directories that what it names on this machine must lie in; None: anywhere, for it is our own."""

    @staticmethod
    def parse(text: str, base: Path, where: str, places: tuple[Path, ...] | None = None) -> LockFile:
        """Read and validate; `where` names the file in errors. Raises SiteswapError (usage)."""
        try:
            data = tomllib.loads(text)
            data.setdefault("packages", [])
            Pylock.from_dict(data)
        except (tomllib.TOMLDecodeError, PylockValidationError, ValueError) as error:
            raise SiteswapError(
                Kind.USAGE,
                f"{where} is not a valid pylock.toml: {error}",
                hint="make it again with siteswap export",
            ) from error
        return LockFile(data, base, places)

    @property
    def names(self) -> set[str]:
        """Normalised names of its packages."""
        return {canonicalize_name(item["name"]) for item in self.data["packages"]}

    @property
    def text(self) -> str:
        """The lock as a file, with local paths made absolute."""
        data = {**self.data, "packages": [_absolute(item, self.base) for item in self.data["packages"]]}
        import tomli_w

        return tomli_w.dumps(data)

    @property
    def requirements(self) -> list[str] | None:
        """What was asked for, as an export of ours notes it in the lock's `tool` table; None elsewhere."""
        found = self.data.get("tool", {}).get("siteswap", {}).get("requirements")
        return [str(line) for line in found] if isinstance(found, list) else None

    def noting(self, requirements: Iterable[str]) -> LockFile:
        """The lock with what was asked for noted in it."""
        tool = {**self.data.get("tool", {}), "siteswap": {"requirements": list(requirements)}}
        return replace(self, data={**self.data, "tool": tool})

    def only(self, names: Iterable[str]) -> LockFile:
        """The lock with just these packages."""
        keep = set(names)
        packages = [item for item in self.data["packages"] if canonicalize_name(item["name"]) in keep]
        return replace(self, data={**self.data, "packages": packages})

    def merged(self, other: LockFile) -> LockFile:
        """The lock with the packages of `other` added, replacing those of the same name."""
        mine = self.only(self.names - other.names)
        packages = [_absolute(item, mine.base) for item in mine.data["packages"]]
        packages += [_absolute(item, other.base) for item in other.data["packages"]]
        packages.sort(key=lambda item: cast("str", item["name"]))
        return replace(self, data={**self.data, "packages": packages})

    def artifacts(self, interpreter: Interpreter, held: Mapping[str, str]) -> list[Artifact]:
        """What to obtain for that interpreter, by name.

        `held` gives identities of what the base generation has, by name: where
        the lock allows that very wheel too, it is the one chosen. Raises
        SiteswapError (requirement) where a package has nothing for this interpreter.
        """
        lock = Pylock.from_dict(self.data)
        tags = [Tag(*text.split("-", 2)) for text in interpreter.tags]
        environment = cast("Environment", dict(interpreter.markers))
        try:
            selected = list(lock.select(environment=environment, tags=tags))
        except PylockSelectError as error:
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"the lock does not fit Python {interpreter.version} here: {error}",
                hint="make the lock for this interpreter and platform",
            ) from error
        found = [_sound(_artifact(package, chosen, self.base)) for package, chosen in selected]
        compatible = set(tags)
        result = []
        for (package, _), artifact in zip(selected, found, strict=True):
            kept = _held(package, artifact, held.get(artifact.name), compatible, self.base)
            result.append(kept or artifact)
        return sorted(result, key=lambda item: item.name)

    def check_places(self, artifacts: Iterable[Artifact]) -> None:
        """Refuse what lies on this machine out of the lock's reach. Raises SiteswapError (requirement).

        A lock that came from elsewhere could have any file here read, and any directory built.
        """
        for artifact in artifacts if self.places is not None else ():
            place = artifact.place
            if place is not None and not any(place.is_relative_to(known) for known in self.places or ()):
                raise SiteswapError(
                    Kind.REQUIREMENT,
                    f"{artifact.title}: the lock names {artifact.location[:200]!r}, not in its own directory",
                    hint="put it beside the lock, or name the directory that it is in with --find-links",
                )

    def direct(self, interpreter: Interpreter) -> list[Artifact]:
        """Those artifacts that are named by URL or path."""
        return [item for item in self.artifacts(interpreter, {}) if item.direct]


def _sound(artifact: Artifact) -> Artifact:
    """The artifact, if what it says of itself can be a file's name and a directory below the source."""
    parts = (artifact.subdirectory or "").split("/")
    if ".." in parts or (artifact.subdirectory or "").startswith("/"):
        problem = f"the subdirectory {artifact.subdirectory!r} of {artifact.title} is not inside its source"
    elif artifact.kind in ("wheel", "sdist") and not _is_name(artifact.filename):
        problem = f"{artifact.title} has no file name in its address {artifact.location[:200]!r}"
    else:
        return artifact
    raise SiteswapError(Kind.REQUIREMENT, problem, hint="make the lock again, from an index that you trust")


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and text.isprintable() and len(text.encode()) <= 255


def _held(
    package: Package, chosen: Artifact, identity: str | None, compatible: set[Tag], base: Path
) -> Artifact | None:
    """The wheel of the lock that the base has already, when it fits."""
    if identity is None or chosen.kind != "wheel" or chosen.direct:
        return None
    for wheel in package.wheels or ():
        candidate = _artifact(package, wheel, base)
        if candidate.identity == identity and compatible & _tags(candidate.filename):
            return candidate
    return None


def _tags(filename: str) -> frozenset[Tag]:
    return frozenset(parse_tag("-".join(filename.removesuffix(".whl").split("-")[-3:])))


def _artifact(package: Package, chosen: object, base: Path) -> Artifact:
    name = str(package.name)
    version = str(package.version) if package.version is not None else None
    if isinstance(chosen, PackageWheel):
        return Artifact(name, version, "wheel", _location(chosen, base), dict(chosen.hashes), chosen.size)
    if isinstance(chosen, PackageSdist):
        return Artifact(name, version, "sdist", _location(chosen, base), dict(chosen.hashes), chosen.size)
    if isinstance(chosen, PackageArchive):
        location = _location(chosen, base)
        kind = "wheel" if urlsplit(location).path.endswith(".whl") else "sdist"
        return Artifact(
            name,
            version,
            kind,
            location,
            dict(chosen.hashes),
            chosen.size,
            direct=True,
            subdirectory=chosen.subdirectory,
        )
    if isinstance(chosen, PackageDirectory):
        return Artifact(
            name,
            version,
            "directory",
            str(_path(chosen.path, base)),
            {},
            direct=True,
            editable=bool(chosen.editable),
            subdirectory=chosen.subdirectory,
        )
    if isinstance(chosen, PackageVcs):
        if chosen.type != "git":
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"{name} comes from {chosen.type}; only git repositories are supported",
                hint="name a git repository, an archive or a directory instead",
            )
        return Artifact(
            name,
            version,
            "vcs",
            chosen.url or str(_path(chosen.path or "", base)),
            {},
            direct=True,
            subdirectory=chosen.subdirectory,
            commit=chosen.commit_id,
            requested_revision=chosen.requested_revision,
        )
    raise SiteswapError(
        Kind.REQUIREMENT, f"the lock has nothing to install for {name}", hint="make the lock again"
    )


def _location(source: PackageWheel | PackageSdist | PackageArchive, base: Path) -> str:
    if source.url:
        if source.url.lower().startswith("file:"):
            return str(_path(source.url, base))
        return source.url
    return str(_path(source.path or "", base))


def _path(path: str, base: Path) -> Path:
    if path.lower().startswith("file:"):
        path = unquote(urlsplit(path).path)
    return (base / path).resolve()


def _absolute(package: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The package's table with its local paths made absolute."""
    result = dict(package)
    for name in ("directory", "archive", "vcs", "sdist"):
        if "path" in result.get(name, {}):
            result[name] = {**result[name], "path": str(_path(result[name]["path"], base))}
    if "wheels" in result:
        result["wheels"] = [
            {**wheel, "path": str(_path(wheel["path"], base))} if "path" in wheel else wheel
            for wheel in result["wheels"]
        ]
    return result
