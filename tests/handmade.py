"""Environments made by hand, so that launcher and runtime are tested without the rest of the package.

Every generation has a package `pair` whose modules, metadata and console script all carry the generation's
number: whoever sees two numbers has seen two generations.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siteswap import launcher, runtime

OLDEST = (3, 9)
LAUNCHER_SOURCE = Path(launcher.__file__).with_name("launcher.c")

_REPORT = """\
import json, os, sys

def report(script=None, wait=False):
    import pair
    if wait:
        print("ready", flush=True)
        sys.stdin.readline()
    from importlib.metadata import version
    from pair import late
    seen = [pair.NUMBER, late.NUMBER, int(version("pair"))]
    if script is not None:
        seen.append(script)
    with open("/proc/self/maps", errors="surrogateescape") as file:
        maps = [line.split(None, 5)[5].rstrip("\\n") for line in file if "/.generation/lease" in line]
    print(json.dumps({
        "seen": seen,
        "prefix": sys.prefix,
        "exec_prefix": sys.exec_prefix,
        "executable": sys.executable,
        "base_executable": getattr(sys, "_base_executable", None),
        "argv": sys.argv,
        "orig_argv": getattr(sys, "orig_argv", None),
        "file": getattr(sys.modules["__main__"], "__file__", None),
        "path": sys.path,
        "maps": maps,
        "descriptors": sorted(os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
                              if os.path.lexists("/proc/self/fd/" + name)),
    }))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that generations can be based on."""

    executable: Path
    version: tuple[int, int]

    @property
    def label(self) -> str:
        """For test names."""
        return "{}.{}-{}".format(*self.version, self.executable.parts[1])


def interpreters() -> list[Interpreter]:
    """One interpreter for each installation that is found and supported, the running one first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates: list[Path | str | None] = [sys.executable, "/usr/bin/python3", *_by_name()]
    candidates += sorted(pyenv.glob("versions/*/bin/python3"))
    found: dict[Path, Interpreter] = {}
    for candidate in candidates:
        known = _ask(str(candidate)) if candidate and os.access(candidate, os.X_OK) else None
        if known:
            found.setdefault(known.executable, known)
    return list(found.values())


def _by_name() -> Iterable[str | None]:
    return (shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 20))


@functools.cache
def _ask(program: str) -> Interpreter | None:
    text = (
        "import os, sys; print(*sys.version_info[:2],"
        " os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable))"
    )
    done = subprocess.run([program, "-I", "-c", text], capture_output=True, text=True, timeout=60)
    major, minor, executable = done.stdout.strip().split(" ", 2) if done.returncode == 0 else ("0", "0", "")
    version = int(major), int(minor)
    return Interpreter(Path(executable), version) if version >= OLDEST else None


_FREESTANDING = shlex.split(
    "-DFREESTANDING -nostdlib -static -no-pie -fno-pie -ffreestanding -fno-builtin -fno-stack-protector"
    " -fno-asynchronous-unwind-tables -U_FORTIFY_SOURCE"
)


def compile_launcher(target: Path, source: str | None = None, *, freestanding: bool = True) -> Path | None:
    """Compile the launcher, or another text in its place; None where there is no compiler.

    Without a C library in it where that is wanted and possible, as the package's build does it.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        return None
    text = LAUNCHER_SOURCE.read_text() if source is None else source
    for form in [_FREESTANDING] * freestanding + [["-static"], []]:
        done = subprocess.run(
            [
                *compiler.split(),
                "-std=gnu11",
                "-Os",
                *form,
                f"-I{LAUNCHER_SOURCE.parent}",
                "-x",
                "c",
                "-",
                "-o",
                str(target),
            ],
            input=text,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return target
    raise AssertionError(done.stderr)


@dataclass
class Environment:
    """An environment at `root`. `program` is a compiled launcher, or None for the stand-in."""

    root: Path
    interpreter: Interpreter
    program: Path | None = None
    plain: bool = False
    """No launcher at all but a link to the interpreter, as in an ordinary venv."""
    numbers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True)
        self.root = self.root.resolve()
        self.generations.mkdir(parents=True)
        (self.home / "staging").mkdir()
        (self.root / "pyvenv.cfg").write_text(self._config)
        for number in (1, 2):
            self.add(number)
        self.flip(1)
        for name in ("bin", "lib", "lib64"):
            (self.root / name).symlink_to(f".siteswap/current/{name}")

    @property
    def home(self) -> Path:
        """ENV/.siteswap"""
        return self.root / ".siteswap"

    @property
    def generations(self) -> Path:
        """ENV/.siteswap/generations"""
        return self.home / "generations"

    @property
    def python(self) -> Path:
        """ENV/bin/python"""
        return self.root / "bin" / "python"

    @property
    def tool(self) -> Path:
        """ENV/bin/tool, a console script."""
        return self.root / "bin" / "tool"

    @property
    def _config(self) -> str:
        base = self.interpreter.executable
        version = "{}.{}.0".format(*self.interpreter.version)
        return (
            f"home = {base.parent}\ninclude-system-site-packages = false\n"
            f"version = {version}\nexecutable = {base}\n"
        )

    def generation(self, number: int) -> Path:
        """The physical path of a generation."""
        return self.generations / str(number)

    def lease(self, number: int) -> Path:
        """The lease file of a generation."""
        return self.generation(number) / ".generation" / "lease"

    def packages(self, number: int) -> Path:
        """The physical site-packages of a generation."""
        return (
            self.generation(number)
            / "lib"
            / "python{}.{}".format(*self.interpreter.version)
            / "site-packages"
        )

    def add(self, number: int) -> None:
        """Make a generation that differs from all others in its number, everywhere."""
        gen = self.generation(number)
        packages = self.packages(number)
        for directory in (gen / "bin", gen / ".generation", packages / "pair", packages / "pair-0.dist-info"):
            directory.mkdir(parents=True)
        (gen / "lib64").symlink_to("lib")
        (gen / "pyvenv.cfg").write_text(self._config)
        (gen / ".generation" / "lease").write_text(f"{number}\n")
        (gen / ".generation" / "python").symlink_to(self.interpreter.executable)
        (packages / "pair" / "__init__.py").write_text(f"NUMBER = {number}\n")
        (packages / "pair" / "late.py").write_text(f"NUMBER = {number}\n")
        (packages / "pair" / "report.py").write_text(_REPORT)
        (packages / "pair" / "__main__.py").write_text("from pair.report import report; report()\n")
        metadata = f"Metadata-Version: 2.1\nName: pair\nVersion: {number}\n"
        (packages / "pair-0.dist-info" / "METADATA").write_text(metadata)
        self._add_programs(number)
        if not self.plain:
            for name, text in runtime.sources().items():
                (packages / name).write_text(text)
            name, text = runtime.startup_file(self.interpreter.version)
            (packages / name).write_text(text)
        self.numbers.append(number)

    def _add_programs(self, number: int) -> None:
        directory = self.generation(number) / "bin"
        names = ("python", "python3", "python{}.{}".format(*self.interpreter.version))
        for name in names:
            program = directory / name
            if self.plain:
                program.symlink_to(self.interpreter.executable)
            elif self.program is None:
                text = launcher.stand_in(self.generation(number), self.interpreter.executable)
                program.write_bytes(os.fsencode(text))
                program.chmod(0o755)
            elif name == names[0] and number == 1:
                shutil.copy(self.program, program)
                program.chmod(0o755)
            else:
                os.link(self.generation(self.numbers[0] if self.numbers else 1) / "bin" / names[0], program)
        tool = directory / "tool"
        tool.write_text(
            f"{self._shebang}import sys\nfrom pair.report import report\n"
            f"report({number}, '--wait' in sys.argv)\n"
        )
        tool.chmod(0o755)

    @property
    def _shebang(self) -> str:
        text = str(self.python)
        if len(text) < 120 and not set(text) & set(" \n\t"):
            return f"#!{text}\n"
        return f"#!/bin/sh\n'''exec' \"{text}\" \"$0\" \"$@\"\n' '''\n"

    def flip(self, number: int) -> None:
        """Make a generation current."""
        link = self.home / "current.next"
        link.symlink_to(f"generations/{number}")
        link.rename(self.home / "current")

    def collect(self, number: int) -> Path:
        """Remove a generation by the protocol; says where it went. Raises BlockingIOError when in use."""
        with self.lease(number).open() as lease:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            away = self.home / "staging" / f"spare-{number}"
            self.generation(number).rename(away)
            self.generation(number).symlink_to("../current")
        return away

    def is_pinned(self, number: int) -> bool:
        """Whether some process holds the lease of a generation."""
        with self.lease(number).open() as lease:
            try:
                fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        options.setdefault("env", clean())
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )

    def report(self, *command: str | Path, **options: Any) -> dict[str, Any]:
        """Run a command that prints a report, and return that."""
        done = self.run(*command, **options)
        assert done.returncode == 0, done
        assert done.stderr == "", done
        return last_report(done.stdout)

    def start(self, *command: str | Path, **options: Any) -> Waiting:
        """Start a command that says "ready" and waits for a line; returns when it is ready."""
        options.setdefault("env", clean())
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        return Waiting(process)


class Waiting:
    """A process that waits in the middle of its work; a context manager that leaves none behind."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", line + process.stdout.read()

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def answer(self, expected: str) -> None:
        """Let it go on to where it waits again, and says `expected`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == expected

    def go_on(self) -> str:
        """Let it go on to its end; returns what it printed."""
        output, _ = self.process.communicate("\n", timeout=120)
        assert self.process.returncode == 0, output
        return output

    def report(self) -> dict[str, Any]:
        """Let it go on and return its report."""
        return last_report(self.go_on())


def last_report(output: str) -> dict[str, Any]:
    """The report in the last line of an output."""
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def clean(**changes: str) -> Mapping[str, str]:
    """The environment of this process without what would lead Python astray, with changes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "SITESWAP_", "VIRTUAL_ENV", "COV_"))
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **changes}


WAIT = "from pair.report import report; report(wait=True)"
"""For -c: imports one module, waits, imports the others."""

FLIPPER = """
import os, sys, time
os.chdir(sys.argv[1])
numbers = sys.argv[2:]
while os.getppid() == int(numbers[0]):
    for number in numbers[1:]:
        os.symlink("generations/" + number, "current.next")
        os.rename("current.next", "current")
"""


class Flipping:
    """A process that flips between generations as fast as it can, for the time of a `with` block."""

    def __init__(self, environment: Environment, numbers: Sequence[int] = (1, 2)) -> None:
        words = [str(environment.home), str(os.getpid()), *map(str, numbers)]
        self.command = [sys.executable, "-I", "-S", "-c", FLIPPER, *words]

    def __enter__(self) -> None:
        self.process = subprocess.Popen(self.command)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
