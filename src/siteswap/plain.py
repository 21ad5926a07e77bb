"""A plain virtual environment out of a generation: every file a copy, nothing of siteswap's in it.

Either for the environment's own place, where scripts and activate scripts name it as
they do in any virtual environment; or relocatable, where none of them names any place.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from siteswap import activate, plan, prefix, runtime, scripts, venv
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import NOBODYS, Generation
from siteswap.layout import CORNER, Layout
from siteswap.manifest import Interpreter

_FIRST_WITH_EXECUTABLE = (3, 11)
"""Python that writes `executable` and `command` into pyvenv.cfg."""


@dataclass(frozen=True)
class Content:
    """What of a generation is not siteswap's."""

    directories: tuple[str, ...]
    files: tuple[str, ...]
    links: Mapping[str, str]


def lay_out(
    fs: FileSystem,
    generation: Generation,
    layout: Layout,
    target: Path,
    tick: Callable[[int], None],
    *,
    relocatable: bool = False,
) -> list[str]:
    """Copy what a generation holds to `target`, a directory of ours, and make that a virtual environment.

    `layout` is that of its environment. Its paths become the environment's own in texts, and RECORD says so;
    in a relocatable one scripts find their interpreter beside them, and byte-code, which names paths, is left
    out. Returns the files that still name a place that is not theirs. Neither atomic nor durable. Raises
    SiteswapError (usage) for what cannot be copied.
    """
    found = content(fs, generation, byte_code=not relocatable)
    root, source = str(layout.root), generation.layout.path
    fs.make_directories(target, found.directories)
    pairs = [(path, path) for path in found.files]
    fs.link_files(source, target, pairs, copy=True, tick=tick)
    for path, said in found.links.items():
        fs.symlink(target / path, _led(path, said, root, relocatable))
    changed, leaks = _lead(fs, found.files, target, root, generation.interpreter, relocatable)
    present = {*found.files, *found.links} if relocatable else None
    for path in found.files:
        if path.endswith(".dist-info/RECORD"):
            correct(fs, target / path, path.rpartition("/")[0], changed, present)
    _own(fs, generation, target, None if relocatable else layout)
    return leaks


def configuration(
    interpreter: Interpreter, system_site_packages: bool, prompt: str | None, root: Path | None
) -> bytes:
    """pyvenv.cfg as `python -m venv` writes it; without `root` that of one which may be moved. Pure."""
    program = interpreter.executable
    lines = {
        "home": str(Path(program).parent),
        "include-system-site-packages": "true" if system_site_packages else "false",
        "version": interpreter.version,
    }
    if prompt:
        lines["prompt"] = repr(prompt)
    if interpreter.version_pair >= _FIRST_WITH_EXECUTABLE:
        lines["executable"] = program
        if root is not None:
            option = " --system-site-packages" if system_site_packages else ""
            lines["command"] = f"{program} -m venv{option} {root}"
    if root is None:
        lines["relocatable"] = "true"
    kept = {name: value for name, value in lines.items() if "\n" not in value and "\r" not in value}
    return "".join(f"{name} = {value}\n" for name, value in kept.items()).encode()


def corrected(
    text: str, dist_info: str, changed: Mapping[str, plan.Row], present: Collection[str] | None
) -> str | None:
    """A RECORD with what is said of changed files put right, and byte-code left out that is not there. Pure.

    None where it is right as it is; all other rows stay as they are, without `present` byte-code too.
    """
    base = posixpath.dirname(dist_info)
    rows, right = [], True
    for fields in csv.reader(io.StringIO(text)):
        path = posixpath.normpath(f"{base}/{fields[0]}") if fields else ""
        if (
            present is not None
            and path.endswith((".pyc", "/__pycache__"))
            and path not in present
            and not path.startswith("..")
        ):
            right = False
            continue
        if path in changed and len(fields) > 1 and fields[1]:
            fields, right = [fields[0], changed[path].hash, changed[path].size], False
        rows.append(fields)
    if right:
        return None
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def content(fs: FileSystem, generation: Generation, *, byte_code: bool) -> Content:
    """What of a generation is not siteswap's. Raises SiteswapError (usage) for what cannot be copied."""
    place, python = generation.layout.path, generation.interpreter
    own = {*prefix.names(python), CORNER, *(f"bin/{name}" for name in prefix.python_names(python))}
    stems = tuple(f"{python.purelib}/__pycache__/{name.removesuffix('.py')}." for name in runtime.sources())
    directories, files, links = [], [], {}
    for path, kind in fs.walk(place):
        top, _, rest = path.partition("/")
        if path in own or top == CORNER or path.startswith(stems) or (not rest and top in NOBODYS):
            continue
        cached = "__pycache__" in path.split("/")
        if kind == "other":
            raise SiteswapError(
                Kind.USAGE,
                f"{place / path} is a socket, a pipe or a device, which cannot be copied",
                hint="end the program that uses it, or move it away",
            )
        if kind == "directory" and not cached:
            directories.append(path)
        elif kind == "link":
            links[path] = fs.read_link(place / path) or ""
        elif kind == "file" and (byte_code or not cached):
            files.append(path)
    needed = {*directories, *plan.directories_of(files), *plan.directories_of(["include/"])}
    return Content(tuple(sorted(needed)), tuple(files), links)


def _led(path: str, said: str, root: str, relocatable: bool) -> str:
    """What a link says there: one into the environment leads to the same file of what is made."""
    said = logical(root).sub(os.fsencode(root), os.fsencode(said)).decode(errors="surrogateescape")
    if relocatable and f"{said}/".startswith(f"{root}/"):
        return posixpath.relpath(said[len(root) + 1 :] or ".", posixpath.dirname(path) or ".")
    return said


def _lead(
    fs: FileSystem, files: Collection[str], target: Path, root: str, python: Interpreter, relocatable: bool
) -> tuple[dict[str, plan.Row], list[str]]:
    """Put texts right that name a generation or, if relocatable, the environment: (new rows, what leaks)."""
    needle = os.fsencode(root if relocatable else f"{root}/.siteswap/")
    physical, programs = logical(root), f"{python.schemes['scripts']}/"
    changed, leaks = {}, []
    for path in files:
        script = relocatable and path.startswith(programs)
        if path.endswith(".pyc") or not (script or fs.holds(target / path, needle)):
            continue
        before = fs.read(target / path)
        after = before if b"\0" in before else physical.sub(os.fsencode(root), before)
        if script:
            after = scripts.relocatable(after, root) or after
        if after != before:
            found = fs.entry(target / path)
            fs.write(target / path, after, executable=found is not None and bool(found.mode & 0o100))
            changed[path] = plan.row_of(path, after)
        named = re.search(re.escape(needle) + (rb"(?![\w.-])" if relocatable else b""), after)
        if named:
            leaks.append(path)
    return changed, leaks


def logical(root: str) -> re.Pattern[bytes]:
    """Matches the ways in which a file may name a generation, where it should name the environment."""
    number = rb"/\.siteswap/(?:generations/[1-9][0-9]*|current)(?![\w.-])"
    return re.compile(re.escape(os.fsencode(root)) + number)


def correct(
    fs: FileSystem,
    place: Path,
    dist_info: str,
    changed: Mapping[str, plan.Row],
    present: Collection[str] | None,
) -> None:
    """Do that to a file, if it can be read. Neither atomic nor durable."""
    try:
        text = corrected(fs.read_text(place), dist_info, changed, present)
    except (UnicodeDecodeError, csv.Error):
        return  # nobody could read it before
    if text is not None:
        fs.write(place, text.encode())


def _own(fs: FileSystem, generation: Generation, target: Path, layout: Layout | None) -> None:
    """What the maker of a virtual environment puts there; the base interpreter must be where it is."""
    manifest, python = generation.manifest, generation.interpreter
    where = layout.root if layout is not None else None
    settings = configuration(python, manifest.system_site_packages, manifest.prompt, where)
    contents = {"pyvenv.cfg": settings}
    for name, text in (
        activate.plain(str(where), manifest.prompt or where.name)
        if where is not None
        else activate.relocatable(manifest.prompt)
    ).items():
        contents[f"bin/{name}"] = text.encode()
    fs.make_directories(target, ["bin", *plan.directories_of([f"{python.purelib}/"])])
    kept = _kept(fs, layout, python) if layout is not None else []
    for path, content in contents.items():
        if path not in kept:
            fs.write(target / path, content)
    for path in kept:
        if layout is not None and fs.entry(target / path) is None:
            fs.make_directories(target, plan.directories_of([path]))
            fs.copy_tree(layout.adopted / path, target / path)
    first, *others = prefix.python_names(python)
    for name, leads in ((first, python.executable), *((other, first) for other in others)):
        if fs.resolve(target / "bin" / name) != Path(python.executable):
            fs.unlink(target / "bin" / name)
            fs.symlink(target / "bin" / name, leads)
    if python.lib64 and not kept and fs.entry(target / "lib64") is None:
        fs.symlink(target / "lib64", "lib")


def _kept(fs: FileSystem, layout: Layout, python: Interpreter) -> list[str]:
    """What `adopt` kept of the first maker's own files, if its interpreter is the one that is used now."""
    config = layout.adopted / "pyvenv.cfg"
    if fs.entry(config) is None:
        return []
    said = venv.Configuration.parse(fs.read(config).decode(errors="replace"))
    linked = fs.read_link(layout.adopted / "bin/python")
    places = venv.candidates(said, layout.root, linked)
    if not any(fs.resolve(Path(place)) == Path(python.executable) for place in places):
        return []
    return [
        path for path, kind in fs.walk(layout.adopted) if kind != "directory" and path not in venv.AT_THE_TOP
    ]
