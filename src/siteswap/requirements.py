"""What the user asks for: requirement lines and requirement files. Reads, and writes nothing.

One line is what pip and uv take (PyPA dependency specifiers, paths, URLs,
`-e`). Lines are kept in a form that does not depend on the working directory.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.dependency_groups import resolve_dependency_groups
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Specifier
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem

_PATH_LIKE = re.compile(r"^(\.{1,2}(/|$|\[)|/|~/|file:)|.*\.(whl|tar\.gz|zip|tgz|tar\.bz2|tar\.xz)(\[.*\])?$")
_URL_LIKE = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_OTHER_VCS = re.compile(r"(?:^|@\s*)(?P<kind>hg|svn|bzr)\+", re.IGNORECASE)
_EXTRAS = re.compile(r"\[[^\]]*\]$")
_HASH = re.compile(r"\s--hash[=\s]([a-z0-9]+):([0-9a-fA-F]+)")
_STRONG = ("sha256", "sha384", "sha512")
_LONGEST_LINE = 16_384
_COMMENT = re.compile(r"(^|\s)#.*$")

# Options that a requirements file may hold, and how many words follow them.
_FILE_OPTIONS = {
    "-i": ("--index-url", 1),
    "--index-url": ("--index-url", 1),
    "--extra-index-url": ("--extra-index-url", 1),
    "-f": ("--find-links", 1),
    "--find-links": ("--find-links", 1),
    "--no-index": ("--no-index", 0),
    "--no-binary": ("--no-binary", 1),
    "--only-binary": ("--only-binary", 1),
    "--pre": ("--pre", 0),
    "--require-hashes": ("--require-hashes", 0),
    "--trusted-host": ("--allow-insecure-host", 1),
    "--prefer-binary": (None, 0),
    "--use-feature": (None, 1),
}


@dataclass(frozen=True)
class Requirement:
    """One thing that the user asks for."""

    line: str
    """What uv is given, independent of the working directory, without `-e`."""
    name: str | None
    """Normalised name; None while only building the source would tell."""
    editable: bool = False

    @property
    def text(self) -> str:
        """The line as a requirements file has it."""
        return f"-e {self.line}" if self.editable else self.line

    @property
    def specifier(self) -> Specifier | None:
        """The parsed dependency specifier; None for a bare path or URL."""
        try:
            return Specifier(self.line)
        except InvalidRequirement:
            return None

    @property
    def place(self) -> Path | None:
        """The file or directory of this machine that is asked for; None for anything else."""
        specifier = self.specifier
        url = self.line if specifier is None else specifier.url or ""
        if url.startswith("file:"):
            return Path(unquote(urlsplit(url).path))
        return Path(split_extras(url)[0]) if url.startswith("/") else None

    def named(self, name: str) -> Requirement:
        """The same requirement with its name made known, as `name[extras] @ URL`."""
        if self.specifier is not None:
            return replace(self, name=name)
        location, extras = split_extras(self.line)
        url = location if _URL_LIKE.match(location) else Path(location).as_uri()
        return Requirement(f"{name}{extras} @ {url}", name, self.editable)


@dataclass(frozen=True)
class Request:
    """Everything that requirement lines and files together ask for."""

    requirements: tuple[Requirement, ...] = ()
    constraints: tuple[Path, ...] = ()
    hashes: dict[str, frozenset[str]] = field(default_factory=dict)
    """Allowed "algorithm:digest" by name."""
    options: tuple[str, ...] = ()
    """Resolver options found in the files, as uv spells them."""
    require_hashes: bool = False

    @staticmethod
    def of(*lines: str) -> Request:
        """What these requirement lines ask for; relative paths are taken from the working directory.

        Raises SiteswapError (usage).
        """
        return Request(tuple(parse_line(line, Path.cwd(), FileSystem()) for line in lines))

    def plus(self, other: Request) -> Request:
        """Both together."""
        return Request(
            self.requirements + other.requirements,
            self.constraints + other.constraints,
            {**self.hashes, **other.hashes},
            self.options + other.options,
            self.require_hashes or other.require_hashes,
        )


def parse_line(text: str, base: Path, fs: FileSystem, *, editable: bool = False) -> Requirement:
    """Read one requirement; relative paths are taken from `base`.

    Raises SiteswapError (usage) for what is no requirement.
    """
    text = text.strip()
    _refuse_other_vcs(text)
    if "\0" in text:
        raise SiteswapError(
            Kind.USAGE, f"not a requirement: {text[:100]!r}", hint="it has a character that no name can have"
        )
    if editable and " @ " not in text and not _URL_LIKE.match(text):
        return _local(text, base, fs, editable)  # a bare name is a directory then, as with pip
    if not _PATH_LIKE.match(text) or " @ " in text:
        try:
            parsed = Specifier(text)
        except (InvalidRequirement, RecursionError) as error:
            if not _URL_LIKE.match(text):
                if os.sep in text and fs.entry(base / split_extras(text)[0]) is not None:
                    return _local(text, base, fs, editable)
                raise SiteswapError(
                    Kind.USAGE,
                    f"not a requirement: {text!r}",
                    hint="write NAME, NAME==VERSION, NAME>=VERSION, NAME @ URL, a path or a URL",
                    detail=str(error),
                ) from error
            return Requirement(text, _name_from_file(text), editable)
        if parsed.url and parsed.url.startswith("file:") and not parsed.url.startswith("file:///"):
            parsed.url = fs.resolve(base / parsed.url.removeprefix("file:").removeprefix("//")).as_uri()
        return Requirement(str(parsed), canonicalize_name(parsed.name), editable)
    if text.startswith("file:") and not text.startswith("file:///"):
        return _local(unquote(text.removeprefix("file:").removeprefix("//")), base, fs, editable)
    if _URL_LIKE.match(text):
        return Requirement(text, _name_from_file(text), editable)
    return _local(text, base, fs, editable)


def _on_one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _refuse_other_vcs(text: str) -> None:
    found = _OTHER_VCS.search(text)
    if found is not None:
        system = {"hg": "Mercurial", "svn": "Subversion", "bzr": "Bazaar"}[found["kind"].lower()]
        raise SiteswapError(
            Kind.USAGE,
            f"{_on_one_line(text[:200])}: {system} is not supported; of version control, only git is",
            hint="check it out yourself and name the directory, or name an archive of it",
        )


def _local(text: str, base: Path, fs: FileSystem, editable: bool) -> Requirement:
    location, extras = split_extras(os.path.expanduser(text))
    path = fs.resolve(base / location)
    if fs.entry(path) is None:
        raise SiteswapError(
            Kind.USAGE,
            f"there is nothing at {_on_one_line(str(path))}",
            hint="check the path of the requirement",
        )
    found = Requirement(f"{path}{extras}", None, editable)
    name = _name_from_file(path.name) or _name_from_project(path, fs)
    return found.named(name) if name else found


def parse_file(
    path: Path,
    fs: FileSystem,
    *,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    within: Sequence[Path] = (),
) -> Request:
    """Read a requirements file with all that it includes, or a pyproject.toml with `extras` and `groups`.

    `within` are the files that led here. Raises SiteswapError (usage) naming the
    file and line that it cannot take.
    """
    within = (*within, fs.resolve(path))
    if within[-1] in within[:-1]:
        raise SiteswapError(Kind.USAGE, f"{path} includes itself", hint="take one of the -r lines out")
    try:
        text = fs.read_text(path, pipes=True)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SiteswapError(
            Kind.USAGE, f"cannot read {path}: {why}", hint="check the path given to -r"
        ) from error
    if path.name == "pyproject.toml":
        return _project(path, text, fs, extras, groups)
    request = Request()
    for number, line in _logical_lines(text):
        try:
            request = request.plus(_file_line(line, path, fs, within))
        except SiteswapError as error:
            if error.kind is not Kind.USAGE or f"{path}:" in error.message:
                raise
            raise SiteswapError(
                Kind.USAGE, f"{path}:{number}: {error.message}", hint=error.hint, detail=error.detail
            ) from error
    return request


def _file_line(line: str, path: Path, fs: FileSystem, within: Sequence[Path]) -> Request:
    hashes = frozenset(f"{algorithm}:{digest.lower()}" for algorithm, digest in _HASH.findall(line))
    line = _HASH.sub("", line).strip()
    weak = {item for item in hashes if item.partition(":")[0] not in _STRONG}
    if weak or len(line) > _LONGEST_LINE:
        raise SiteswapError(
            Kind.USAGE,
            f"{min(weak)[:100]} is no hash to rely on" if weak else f"a line has {len(line):,} characters",
            hint=f"one requirement a line, with hashes of {', '.join(_STRONG)}",
        )
    option, _, rest = (
        line.replace("=", " ", 1).partition(" ") if line.startswith("--") else line.partition(" ")
    )
    rest = rest.strip()
    if option in ("-r", "--requirement"):
        return parse_file(path.parent / rest, fs, within=within)
    if option in ("-c", "--constraint"):
        return Request(constraints=(fs.resolve(path.parent / rest),))
    if option in ("-e", "--editable"):
        return Request((parse_line(rest, path.parent, fs, editable=True),))
    if option in _FILE_OPTIONS:
        spelled, count = _FILE_OPTIONS[option]
        if spelled == "--require-hashes":
            return Request(require_hashes=True)
        if spelled is None:
            return Request()
        try:
            words = shlex.split(rest)
        except ValueError:  # a quotation mark without its other half
            words = []
        if len(words) != count:
            raise SiteswapError(
                Kind.USAGE, f"{option} takes {count} value(s)", hint="one option a line, as pip has it"
            )
        if spelled == "--find-links" and not _URL_LIKE.match(words[0]):
            words = [str(fs.resolve(path.parent / words[0]))]
        return Request(options=(spelled, *words))
    if option.startswith("-"):
        raise SiteswapError(
            Kind.USAGE,
            f"option {option} is not known in a requirements file",
            hint="leave it out, or give it to siteswap itself",
        )
    found = parse_line(line, path.parent, fs)
    pins = {found.name: hashes} if hashes and found.name else {}
    return Request((found,), hashes=pins, require_hashes=bool(hashes))


def _project(path: Path, text: str, fs: FileSystem, extras: Sequence[str], groups: Sequence[str]) -> Request:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SiteswapError(
            Kind.USAGE, f"{path} is not valid TOML: {error}", hint="correct it there"
        ) from error
    project: dict[str, Any] = data.get("project", {})
    if "dependencies" in project.get("dynamic", ()) or "optional-dependencies" in project.get("dynamic", ()):
        raise SiteswapError(
            Kind.USAGE,
            f"the dependencies of {path} are dynamic: only building the project tells them",
            hint=f"siteswap install {path.parent}",
        )
    lines: list[str] = list(project.get("dependencies", ()))
    optional: dict[str, list[str]] = {
        canonicalize_name(name): value for name, value in project.get("optional-dependencies", {}).items()
    }
    own = canonicalize_name(project["name"]) if "name" in project else None
    lines += _optional(path, own, optional, [canonicalize_name(extra) for extra in extras])
    try:
        lines += resolve_dependency_groups(data.get("dependency-groups", {}), *groups)
    except (
        Exception
    ) as error:  # the library raises groups of its own and LookupError alike: all mean one thing
        known = ", ".join(data.get("dependency-groups", {}))
        raise SiteswapError(
            Kind.USAGE, f"{path}: dependency group {', '.join(groups)}: {error}", hint=f"it has: {known}"
        ) from error
    return Request(tuple(parse_line(line, fs.resolve(path.parent), fs) for line in lines))


def _optional(
    path: Path, own: str | None, optional: dict[str, list[str]], wanted: Sequence[str]
) -> list[str]:
    """Lines of the wanted extras, with references to the project's own other extras followed."""
    lines: list[str] = []
    pending, seen = list(wanted), set[str]()
    while pending:
        extra = pending.pop(0)
        if extra in seen:
            continue
        seen.add(extra)
        if extra not in optional:
            raise SiteswapError(
                Kind.USAGE, f"{path} has no extra {extra!r}", hint=f"it has: {', '.join(optional)}"
            )
        for line in optional[extra]:
            parsed = Specifier(line)
            if own is not None and canonicalize_name(parsed.name) == own:
                pending += [canonicalize_name(name) for name in parsed.extras]
            else:
                lines.append(line)
    return lines


def _logical_lines(text: str) -> Iterable[tuple[int, str]]:
    """Lines with continuations joined and comments dropped, each with the number it starts on."""
    joined, start = "", 0
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        start = start or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            joined += line[:-1] + " "
            continue
        whole = _COMMENT.sub("", joined + line).strip()
        if whole:
            yield start, whole
        joined, start = "", 0
    if joined.strip():
        yield start, joined.strip()


def split_extras(text: str) -> tuple[str, str]:
    """A path or URL apart from its trailing `[extras]`."""
    found = _EXTRAS.search(text)
    return (text[: found.start()], found.group()) if found else (text, "")


def _name_from_file(location: str) -> str | None:
    """The name that a wheel's or sdist's file name spells."""
    path = unquote(urlsplit(split_extras(location)[0]).path if _URL_LIKE.match(location) else location)
    name = path.rsplit("/", 1)[-1]
    try:
        if name.endswith(".whl"):
            return parse_wheel_filename(name)[0]
        if name.endswith((".tar.gz", ".zip")):
            return parse_sdist_filename(name)[0]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
    return None


def _name_from_project(path: Path, fs: FileSystem) -> str | None:
    """The name that a source directory's pyproject.toml states."""
    try:
        data = tomllib.loads(fs.read_text(path / "pyproject.toml"))
        return canonicalize_name(data["project"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def merge(old: Iterable[Requirement], new: Iterable[Requirement]) -> list[Requirement]:
    """What is wanted after asking for `new` on top of `old`: the newer line replaces one of the same name."""
    merged = {item.name or item.line: item for item in old}
    for item in new:
        merged.pop(item.name or item.line, None)
        merged[item.name or item.line] = item
    return list(merged.values())


def parse_stored(text: str) -> Requirement:
    """Read back a line of a manifest."""
    line = text.removeprefix("-e ")
    return Requirement(line, canonicalize_name(Specifier(line).name), editable=line != text)
