"""What a generation has before any distribution: configuration, activate scripts, launcher, runtime."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from siteswap import activate, launcher, runtime
from siteswap.fs import FileSystem
from siteswap.layout import CORNER, SETTINGS, GenerationLayout, Layout
from siteswap.manifest import Interpreter
from siteswap.version import __version__


@dataclass(frozen=True)
class PrefixFile:
    """A file with its content, path relative to the prefix."""

    path: str
    content: bytes
    executable: bool = False


def configuration(
    interpreter: Interpreter, layout: Layout, system_site_packages: bool, prompt: str | None = None
) -> bytes:
    """pyvenv.cfg, of the environment and of each generation alike (PEP 405).

    `executable` is there because some base interpreters have no program called
    `python`, and the interpreter would otherwise guess one.
    """
    lines = {
        "home": str(Path(interpreter.executable).parent),
        "include-system-site-packages": "true" if system_site_packages else "false",
        "version": interpreter.version,
        "executable": interpreter.executable,
        "prompt": prompt or layout.root.name,
        "siteswap": __version__,
    }
    # The file is read line by line, so a value cannot hold a line break.
    kept = {name: value for name, value in lines.items() if "\n" not in value and "\r" not in value}
    return "".join(f"{name} = {value}\n" for name, value in kept.items()).encode()


def python_names(interpreter: Interpreter) -> tuple[str, ...]:
    """Names that the launcher has in bin."""
    return ("python", "python3", f"python{interpreter.short_version}")


def names(interpreter: Interpreter) -> list[str]:
    """Paths of everything that siteswap itself puts into a generation's prefix (its corner apart)."""
    startup, _ = runtime.startup_file(interpreter.version_pair)
    return [
        "pyvenv.cfg",
        *(f"bin/{name}" for name in python_names(interpreter)),
        *(f"bin/{name}" for name in activate.scripts("", "")),
        *(f"{interpreter.purelib}/{name}" for name in runtime.sources()),
        f"{interpreter.purelib}/{startup}",
    ]


def reserved(interpreter: Interpreter) -> list[str]:
    """Paths that no distribution may claim: siteswap's own, and what must stay a directory or a link."""
    # A file of this kind beside the launcher would replace sys.path, the runtime with it.
    own = [*names(interpreter), *(f"bin/{name}._pth" for name in python_names(interpreter))]
    own += [CORNER, ".siteswap", SETTINGS, f"{interpreter.purelib}/_siteswap", "include/"]
    return [*own, "lib64"] if interpreter.lib64 else own


def files(
    interpreter: Interpreter, layout: Layout, system_site_packages: bool, prompt: str | None = None
) -> list[PrefixFile]:
    """Those files that are the same in every generation of an environment, the launcher apart."""
    startup, line = runtime.startup_file(interpreter.version_pair)
    scripts = activate.scripts(str(layout.root), prompt or layout.root.name)
    return [
        PrefixFile("pyvenv.cfg", configuration(interpreter, layout, system_site_packages, prompt)),
        *(PrefixFile(f"bin/{name}", text.encode()) for name, text in scripts.items()),
        *(
            PrefixFile(f"{interpreter.purelib}/{name}", text.encode())
            for name, text in runtime.sources().items()
        ),
        PrefixFile(f"{interpreter.purelib}/{startup}", line.encode()),
    ]


def maker() -> bytes:
    """What a generation calls its maker: interpreter and program, a line each; nothing where that is none."""
    words = (sys.executable or "", str(Path(__file__).with_name("__main__.py")))
    return "".join(f"{word}\n" for word in words).encode() if not any("\n" in word for word in words) else b""


def write_launcher(
    fs: FileSystem,
    target: Path,
    final: GenerationLayout,
    interpreter: Interpreter,
    base: GenerationLayout | None,
) -> None:
    """Put the launcher into the prefix at `target`, which will stand at `final`. Neither atomic nor durable.

    The compiled program is linked from the base generation where that has the
    same one; the stand-in for machines without a compiler names its generation,
    so it is written for each.
    """
    first, *others = python_names(interpreter)
    program = launcher.binary()
    if program is None:
        script = launcher.stand_in(final.path, interpreter.executable)
        for name in (first, *others):
            fs.write(target / "bin" / name, os.fsencode(script), executable=True)
        return
    content = fs.read(program)
    for name in (first, *others):
        fs.unlink(target / "bin" / name)
    if base is not None and _holds(fs, base.bin / first, content):
        pairs = [(first, name) for name in (first, *others)]
        fs.link_files(base.bin, target / "bin", pairs, copy=False, tick=lambda _: None)
        return
    fs.write(target / "bin" / first, content, executable=True)
    pairs = [(first, name) for name in others]
    fs.link_files(target / "bin", target / "bin", pairs, copy=False, tick=lambda _: None)


def _holds(fs: FileSystem, path: Path, content: bytes) -> bool:
    found = fs.entry(path)
    return (
        found is not None
        and found.kind == "file"
        and found.mode == fs.access.file(True)
        and found.size == len(content)
        and fs.read(path) == content
    )
