"""Would the dynamic linker find what the shared objects of a distribution need?

Read from the files alone, as ld.so(8) would: libraries (DT_NEEDED) and versions
of glibc. What is not found is suspected only: programs load libraries by path
before they import the module that needs them, and some modules are never used.
"""

from __future__ import annotations

import contextlib
import os
import platform
import posixpath
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.structs import ELFStructs

from siteswap import process
from siteswap.checks.reading import below_site, rows, shown
from siteswap.errors import SiteswapError
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.verdict import Check, Finding


def check(generation: Generation, subjects: Sequence[Distribution]) -> list[Finding]:
    """Shared objects of the subjects that need a library or a glibc that is not there, or cannot be read."""
    program = _Program.of(generation)
    if program is None:
        return []  # an interpreter that is no ELF file: nothing is known of its linker
    linker = _Linker(generation, program)
    glibc = machine_glibc()
    findings: list[Finding] = []
    for item in subjects:
        for path in _shared_objects(generation, item):
            findings += _of_file(linker, item, path, glibc)
    return findings


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
    except _UnreadableError as error:
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


_GLIBC = re.compile(r"GLIBC_([0-9]{1,4}(?:\.[0-9]{1,4})+)\Z")


def _glibc_version(name: str) -> tuple[int, ...]:
    """The version that a symbol version of glibc names; () for those of others."""
    match = _GLIBC.match(name)
    return tuple(map(int, match[1].split("."))) if match else ()


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


# -- reading ELF ---------------------------------------------------------------------------------


class _UnreadableError(Exception):
    """A file that is not the shared library it should be; the message says why."""


@dataclass(frozen=True)
class Linked:
    """What a file says to the dynamic linker."""

    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    """Where to look first: DT_RUNPATH, or DT_RPATH where there is no DT_RUNPATH."""
    soname: str = ""
    glibc: tuple[int, ...] = ()
    """The newest version of glibc that it cannot do without."""
    loader: str = ""
    """The dynamic linker that a program names (PT_INTERP)."""


_HEAD = 20
_MOST_SEGMENTS = 1000
_MOST_TAGS = 10_000
_MOST_VERSIONS = 1000
_LONGEST_NAME = 4096
"""Bounds of what is believed, far above what linkers write: a damaged count must not keep us busy."""

_ODD = (
    ELFError, OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, AssertionError,
    MemoryError, struct.error,
)  # fmt: skip
"""What reading a damaged ELF file may raise."""


class _Program:
    """The interpreter's executable: what it is made for, and what it says to the linker.

    The structures of its class and machine are made once: making them costs more
    than reading a file.
    """

    def __init__(self, path: Path, kind: bytes, structs: ELFStructs) -> None:
        self.path = path
        self._kind = kind
        self._structs = structs
        self.linked = Linked()

    @staticmethod
    def of(generation: Generation) -> _Program | None:
        """That of a generation; None where it is no ELF file."""
        path = generation.fs.resolve(Path(generation.interpreter.executable))
        try:
            with generation.fs.open(path) as stream:
                kind = _kind(stream.read(_HEAD))
                if kind is None:
                    return None
                structs = ELFStructs(little_endian=kind[1] == 1, elfclass=64 if kind[0] == 2 else 32)
                structs.create_basic_structs()
                structs.create_advanced_structs()
                header = struct_parse(structs.Elf_Ehdr, stream, 0)
                structs.create_advanced_structs(
                    header["e_type"], header["e_machine"], header["e_ident"]["EI_OSABI"]
                )
        except _ODD:
            return None
        program = _Program(path, kind, structs)
        with contextlib.suppress(_UnreadableError):  # a static program says nothing to the linker
            program.linked = program.read(generation, path) or Linked()
        return program

    def fits(self, generation: Generation, path: Path) -> bool:
        """Whether the linker would take the file at `path`: it passes over those for other machines."""
        try:
            entry = generation.fs.entry(generation.fs.resolve(path))
            if entry is None or entry.kind != "file":
                return False
            with generation.fs.open(path) as stream:
                return _kind(stream.read(_HEAD)) == self._kind
        except (OSError, ValueError):
            return False

    def read(self, generation: Generation, path: Path) -> Linked | None:
        """What a file says to the linker; None for a file that is not there or is for another machine.

        Raises _UnreadableError for everything that is no shared library.
        """
        try:
            entry = generation.fs.entry(path)
            if entry is None or entry.kind != "file":
                return None
            with generation.fs.open(path) as stream:
                kind = _kind(stream.read(_HEAD))
                if kind is None:
                    raise _UnreadableError("it is no ELF file")
                return self._dynamic(stream, entry.size) if kind == self._kind else None
        except _ODD as error:
            raise _UnreadableError("it is damaged") from error

    def _dynamic(self, stream: BinaryIO, size: int) -> Linked:
        """What the dynamic section says; the section table, which may be stripped, is not looked at."""
        structs = self._structs
        header = struct_parse(structs.Elf_Ehdr, stream, 0)
        segments = [
            struct_parse(structs.Elf_Phdr, stream, header["e_phoff"] + index * header["e_phentsize"])
            for index in range(min(header["e_phnum"], _MOST_SEGMENTS))
        ]
        loads = [item for item in segments if item["p_type"] == "PT_LOAD"]
        if any(item["p_offset"] + item["p_filesz"] > size for item in loads):
            raise _UnreadableError("its end is missing")
        places = {item["p_type"]: item for item in segments}
        if "PT_DYNAMIC" not in places:
            raise _UnreadableError("it has nothing for the dynamic linker")

        def offset(address: int) -> int:
            for item in loads:
                if item["p_vaddr"] <= address < item["p_vaddr"] + item["p_filesz"]:
                    return int(address - item["p_vaddr"] + item["p_offset"])
            raise ValueError("an address outside of the file")

        tags = self._tags(stream, places["PT_DYNAMIC"])
        strings = offset(tags["DT_STRTAB"][0]) if "DT_STRTAB" in tags else 0

        def named(tag: str) -> tuple[str, ...]:
            return tuple(_string(stream, strings + value) for value in tags.get(tag, ()))

        versions: list[str] = []
        if "DT_VERNEED" in tags:
            count = min(tags.get("DT_VERNEEDNUM", [_MOST_VERSIONS])[0], _MOST_VERSIONS)
            versions = self._versions(stream, offset(tags["DT_VERNEED"][0]), count, strings)
        loader = _string(stream, places["PT_INTERP"]["p_offset"]) if "PT_INTERP" in places else ""
        rpath = named("DT_RUNPATH") or named("DT_RPATH")
        return Linked(
            needed=tuple(dict.fromkeys(named("DT_NEEDED"))),
            rpath=tuple(entry for text in rpath for entry in text.split(":") if entry),
            soname="".join(named("DT_SONAME")[:1]),
            glibc=max(map(_glibc_version, versions), default=()),
            loader=loader,
        )

    def _tags(self, stream: BinaryIO, segment: Mapping[str, int]) -> dict[str, list[int]]:
        form = self._structs.Elf_Dyn
        width = form.sizeof()
        found: dict[str, list[int]] = {}
        for index in range(min(segment["p_filesz"] // width, _MOST_TAGS)):
            tag = struct_parse(form, stream, segment["p_offset"] + index * width)
            if tag["d_tag"] == "DT_NULL":
                break
            found.setdefault(tag["d_tag"], []).append(tag["d_val"])
        return found

    def _versions(self, stream: BinaryIO, start: int, count: int, strings: int) -> list[str]:
        """Names of the symbol versions that the file needs, weak ones left out (.gnu.version_r)."""
        names: list[str] = []
        for _ in range(count):
            need = struct_parse(self._structs.Elf_Verneed, stream, start)
            inner = start + need["vn_aux"]
            for _ in range(min(need["vn_cnt"], _MOST_VERSIONS)):
                version = struct_parse(self._structs.Elf_Vernaux, stream, inner)
                if not version["vna_flags"] & _WEAK:
                    names.append(_string(stream, strings + version["vna_name"]))
                inner += version["vna_next"]
                if not version["vna_next"] or len(names) > _MOST_VERSIONS:
                    break
            start += need["vn_next"]
            if not need["vn_next"] or len(names) > _MOST_VERSIONS:
                break
        return names


_WEAK = 2
"""VER_FLG_WEAK: the linker does without such a version."""


def _kind(head: bytes) -> bytes | None:
    """Class, byte order and machine from an ELF file's first bytes; None for other files. Pure."""
    return head[4:6] + head[18:20] if len(head) == _HEAD and head.startswith(b"\x7fELF") else None


def _string(stream: BinaryIO, offset: int) -> str:
    stream.seek(offset)
    text, end, _ = stream.read(_LONGEST_NAME).partition(b"\0")
    if not end:
        raise ValueError("a name without an end")
    return text.decode(errors="surrogateescape")


def machine_glibc() -> tuple[int, ...] | None:
    """The version of this machine's glibc; None where the C library is another one."""
    name, version = platform.libc_ver()
    return _glibc_version(f"GLIBC_{version}") or None if name == "glibc" else None


# -- finding libraries ---------------------------------------------------------------------------


class _Linker:
    """Where libraries are found: whether there is one, not which one comes first.

    So the cheapest place is looked at first, and each one only if it must be.
    """

    def __init__(self, generation: Generation, program: _Program) -> None:
        self.generation = generation
        self.program = program
        self._read: dict[str, Linked | None] = {}
        self._known: dict[str, bool] = {}
        self._everywhere: dict[str, bool] = {}

    def read(self, path: str) -> Linked | None:
        """What a file of the generation says to the linker, as `_Program.read`."""
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
            except _UnreadableError:
                continue
            if linked is not None and linked.soname:
                found.add(linked.soname)
        return frozenset(found)
