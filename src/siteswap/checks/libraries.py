"""Would the dynamic linker find what the shared objects of a distribution need?

Read from the files alone, as ld.so(8) would: libraries (DT_NEEDED) and versions
of glibc. What is not found is suspected only: programs load libraries by path
before they import the module that needs them, and some modules are never used.
"""

from __future__ import annotations

import os
import platform
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from siteswap import process
from siteswap.checks.reading import UnreadableError, below_site, rows, shown
from siteswap.errors import SiteswapError
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.verdict import Check, Finding

if TYPE_CHECKING:
    from siteswap.checks.elf import Linked, Program


def check(generation: Generation, subjects: Sequence[Distribution]) -> list[Finding]:
    """Shared objects of the subjects that need a library or a glibc that is not there, or cannot be read."""
    objects = [(item, path) for item in subjects for path in _shared_objects(generation, item)]
    if not objects:
        return []
    from siteswap.checks import elf

    program = elf.Program.of(generation)
    if program is None:
        return []  # an interpreter that is no ELF file: nothing is known of its linker
    linker = _Linker(generation, program)
    glibc = elf.machine_glibc()
    return [finding for item, path in objects for finding in _of_file(linker, item, path, glibc)]


def _of_file(
    linker: _Linker, item: Distribution, path: str, glibc: tuple[int, ...] | None
) -> Iterator[Finding]:
    """Everything that is wrong with one shared object."""
    name = shown(below_site(path, linker.generation.interpreter))
    for_python = _is_extension(path, linker.generation.interpreter.cache_tag)

    def finding(part: str, message: str, suspected: bool = True) -> Finding:
        return Finding(
            Check.LIBRARIES, item.name, f"{name} {message}", part, item.version, suspected=suspected
        )

    if for_python is False:
        return  # an extension module for another Python, which this one never loads
    try:
        linked = linker.read(path)
    except UnreadableError as error:
        if for_python:
            yield finding(path, f"is not a shared library that can be read: {error}")
        return
    if linked is None:
        return
    for library in linked.needed:
        if not linker.finds(library, path, linked):
            message = f"needs {shown(library)}, which neither this environment nor this machine's linker has"
            yield finding(f"{path}:{library}", message)
    if glibc is not None and linked.glibc > glibc:
        message = f"needs glibc {_dotted(linked.glibc)} or newer, and this machine has {_dotted(glibc)}"
        yield finding(f"{path}:glibc", message, suspected=not for_python)


def _shared_objects(generation: Generation, item: Distribution) -> list[str]:
    return [path for path in dict.fromkeys(row.path for row in rows(generation, item)) if _is_library(path)]


# -- names, pure ---------------------------------------------------------------------------------


def _is_library(path: str) -> bool:
    name = posixpath.basename(path)
    return name.endswith(".so") or ".so." in name


_TAGGED = re.compile(r"\.(?P<tag>(cpython|pypy|graalpy)-?[0-9]+)[a-z]*(?P<platform>-[^.]*)?\.so\Z")


def _is_extension(path: str, cache_tag: str) -> bool | None:
    """Whether a file is by its name an extension module for this Python; False: for another one.

    None for what has no such name: a library, or a module named plainly `x.so`.
    """
    match = _TAGGED.search(path)
    if match is None:
        return True if path.endswith((".abi3.so", ".abi3t.so")) else None
    where = match["platform"] or ""
    # PyPy writes pypy39-pp73-x86_64-linux-gnu, CPython cpython-39-x86_64-linux-gnu.
    return match["tag"] == cache_tag and (not where or "linux" in where)


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def linker_cache(listing: str) -> dict[str, list[str]]:
    """Paths by library name, from what `ldconfig -p` prints. Pure; never raises."""
    found: dict[str, list[str]] = {}
    for line in listing.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow and path.startswith("/"):
            found.setdefault(name.partition(" (")[0], []).append(path)
    return found


def search_path(entries: Iterable[str], origin: str) -> list[str]:
    """Directories that DT_RPATH or DT_RUNPATH entries name for a file in `origin` (ld.so(8)). Pure.

    $LIB differs between systems: each directory that it may mean is there. Entries
    relative to the working directory are left out, for nobody knows that.
    """
    machine = platform.machine()
    found = []
    for entry in entries:
        path = _token(entry, "ORIGIN", origin)
        path = _token(path, "PLATFORM", machine)
        for lib in ("lib64", "lib", f"lib/{machine}-linux-gnu"):
            expanded = _token(path, "LIB", lib)
            if expanded.startswith("/"):
                found.append(expanded)
    return list(dict.fromkeys(found))


def _token(text: str, name: str, value: str) -> str:
    return re.sub(rf"\$(?:{name}(?![A-Za-z0-9_])|\{{{name}\}})", lambda _: value, text)


# -- finding libraries ---------------------------------------------------------------------------


class _Linker:
    """Where libraries are found: whether there is one, not which one comes first.

    So the cheapest place is looked at first, and each one only if it must be.
    """

    def __init__(self, generation: Generation, program: Program) -> None:
        self.generation = generation
        self.program = program
        self._read: dict[str, Linked | None] = {}
        self._known: dict[str, bool] = {}
        self._everywhere: dict[str, bool] = {}

    def read(self, path: str) -> Linked | None:
        """What a file of the generation says to the linker, as `Program.read`."""
        if path not in self._read:
            self._read[path] = self.program.read(self.generation, self.generation.layout.path / path)
        return self._read[path]

    def finds(self, name: str, path: str, linked: Linked) -> bool:
        """Whether the library that the file at `path` needs can be found."""
        origin = posixpath.dirname(f"{self.generation.layout.path}/{path}")
        if "/" in name:
            expanded = search_path([name], origin)
            return not expanded or any(map(self._stands, expanded))
        if any(self._stands(f"{directory}/{name}") for directory in search_path(linked.rpath, origin)):
            return True
        if name not in self._everywhere:
            self._everywhere[name] = self._found_anywhere(name)
        return self._everywhere[name]

    def _found_anywhere(self, name: str) -> bool:
        return (
            any(self._stands(f"{directory}/{name}") for directory in self._directories)
            or any(map(self._stands, self._cache.get(name, ())))
            or name in self._names
            or name in self._sonames
        )

    def _stands(self, path: str) -> bool:
        if path not in self._known:
            self._known[path] = self.program.fits(self.generation, Path(path))
        return self._known[path]

    @cached_property
    def _directories(self) -> list[str]:
        """Those that count for every file: of variables, of the interpreter, of the system."""
        program = self.program
        home = program.path.parent
        fixed = [entry for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":") if entry]
        own = search_path(program.linked.rpath, str(home))
        near = [str(home.parent / "lib"), str(home.parent / "lib64")]
        # The C library's own directory is where its linker is, on systems with unusual ones too.
        loader = [posixpath.dirname(program.linked.loader)] if program.linked.loader else []
        system = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"]
        multiarch = [
            f"{base}/{name}"
            for base in ("/lib", "/usr/lib")
            for name, _ in self.generation.fs.entries(Path(base))
            if "-linux-" in name
        ]
        return list(dict.fromkeys([*fixed, *own, *near, *loader, *system, *multiarch]))

    @cached_property
    def _cache(self) -> dict[str, list[str]]:
        """What ld.so.conf adds, as `ldconfig` tells it; nothing where there is none."""
        directories = ["/sbin", "/usr/sbin", *os.environ.get("PATH", "").split(":")]
        for directory in directories:
            program = Path(directory, "ldconfig")
            if directory.startswith("/") and self.generation.fs.is_program(program):
                try:
                    done = process.run([program, "-p"], timeout=10)
                except SiteswapError:
                    continue
                return linker_cache(done.stdout)
        return {}

    @cached_property
    def _objects(self) -> list[str]:
        """Every shared object of the generation."""
        manifest = self.generation.manifest
        own = [path for item in manifest.distributions for path in _shared_objects(self.generation, item)]
        return [*own, *filter(_is_library, manifest.strays)]

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(map(posixpath.basename, self._objects))

    @cached_property
    def _sonames(self) -> frozenset[str]:
        """Names by which the linker knows the generation's libraries once they are loaded."""
        found = set()
        for path in self._objects:
            try:
                linked = self.read(path)
            except UnreadableError:
                continue
            if linked is not None and linked.soname:
                found.add(linked.soname)
        return frozenset(found)
