"""What an ELF file says to the dynamic linker, read by pyelftools.

Apart from `libraries`, because loading pyelftools takes longer than most commands: only where there is a
shared object to read is this imported.
"""

from __future__ import annotations

import contextlib
import platform
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.structs import ELFStructs

from siteswap.checks.reading import UnreadableError
from siteswap.generation import Generation


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


class Program:
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
    def of(generation: Generation) -> Program | None:
        """That of a generation; None where it is no ELF file."""
        path = generation.fs.resolve(Path(generation.interpreter.executable))
        try:
            with generation.fs.open(path) as stream:
                kind = kind_of(stream.read(_HEAD))
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
        program = Program(path, kind, structs)
        with contextlib.suppress(UnreadableError):  # a static program says nothing to the linker
            program.linked = program.read(generation, path) or Linked()
        return program

    def fits(self, generation: Generation, path: Path) -> bool:
        """Whether the linker would take the file at `path`: it passes over those for other machines."""
        try:
            entry = generation.fs.entry(generation.fs.resolve(path))
            if entry is None or entry.kind != "file":
                return False
            with generation.fs.open(path) as stream:
                return kind_of(stream.read(_HEAD)) == self._kind
        except (OSError, ValueError):
            return False

    def read(self, generation: Generation, path: Path) -> Linked | None:
        """What a file says to the linker; None for a file that is not there or is for another machine.

        Raises UnreadableError for everything that is no shared library.
        """
        try:
            entry = generation.fs.entry(path)
            if entry is None or entry.kind != "file":
                return None
            with generation.fs.open(path) as stream:
                kind = kind_of(stream.read(_HEAD))
                if kind is None:
                    raise UnreadableError("it is no ELF file")
                return self._dynamic(stream, entry.size) if kind == self._kind else None
        except _ODD as error:
            raise UnreadableError("it is damaged") from error

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
            raise UnreadableError("its end is missing")
        places = {item["p_type"]: item for item in segments}
        if "PT_DYNAMIC" not in places:
            raise UnreadableError("it has nothing for the dynamic linker")

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
            glibc=max(map(glibc_version, versions), default=()),
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


def kind_of(head: bytes) -> bytes | None:
    """Class, byte order and machine from an ELF file's first bytes; None for other files. Pure."""
    return head[4:6] + head[18:20] if len(head) == _HEAD and head.startswith(b"\x7fELF") else None


def _string(stream: BinaryIO, offset: int) -> str:
    stream.seek(offset)
    text, end, _ = stream.read(_LONGEST_NAME).partition(b"\0")
    if not end:
        raise ValueError("a name without an end")
    return text.decode(errors="surrogateescape")


_GLIBC = re.compile(r"GLIBC_([0-9]{1,4}(?:\.[0-9]{1,4})+)\Z")


def glibc_version(name: str) -> tuple[int, ...]:
    """The version that a symbol version of glibc names; () for those of others."""
    match = _GLIBC.match(name)
    return tuple(map(int, match[1].split("."))) if match else ()


def machine_glibc() -> tuple[int, ...] | None:
    """The version of this machine's glibc; None where the C library is another one."""
    name, version = platform.libc_ver()
    return glibc_version(f"GLIBC_{version}") or None if name == "glibc" else None
