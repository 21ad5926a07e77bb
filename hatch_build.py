"""Build hook: compile the launcher into the wheel.

A wheel with the program is for one platform (any Python 3: the program knows nothing of Python); one that was
built without a compiler is for all, and siteswap then uses its /bin/sh launcher, which does the same some ten
milliseconds slower. An editable install gets the program in the source tree, where git ignores it.

Environment variables: CC names the compiler; SITESWAP_WHEEL_PLATFORM the platform tag, for cross compilers
and releases ("manylinux2014_x86_64.musllinux_1_1_x86_64" is true of a static program).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging import tags

LAUNCHER = "src/siteswap/launcher/launcher"
FLAGS = ["-std=gnu11", "-Os", "-s", "-Wall", "-Wextra"]
FORMS = [
    # Without a C library (x86-64 only): the quickest at exec, and nothing of anybody else's in the wheel.
    [
        *("-DFREESTANDING", "-nostdlib", "-static", "-no-pie", "-fno-pie", "-ffreestanding", "-fno-builtin"),
        *("-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-U_FORTIFY_SOURCE"),
    ],
    # With one inside: no loader to run at every start of Python, and no version of a library to depend on.
    ["-static"],
    [],
]


def compilers() -> list[list[str]]:
    """The compilers to try, in order: only $CC where that is set."""
    if chosen := shlex.split(os.environ.get("CC", "")):
        return [chosen]
    return [[name] for name in ("cc", "gcc", "clang") if shutil.which(name)]


def compile_launcher(source: Path, target: Path) -> list[str]:
    """Compile `source` to `target` in the best form that works here; returns why not, empty when done."""
    problems = []
    for compiler in compilers():
        for form in FORMS:
            command = [*compiler, *FLAGS, *form, str(source), "-o", str(target)]
            try:
                done = subprocess.run(command, capture_output=True, text=True)
            except OSError as error:
                problems.append(f"{compiler[0]}: {error}")
                break
            if done.returncode != 0:
                problems.append(f"{shlex.join(command)}: {done.stderr.strip()}")
            elif not runs(target) and "SITESWAP_WHEEL_PLATFORM" not in os.environ:
                problems.append(f"{shlex.join(command)}: what it makes does not run")
            else:
                target.chmod(0o755)
                return []
    target.unlink(missing_ok=True)
    return problems or ["there is no C compiler (cc, gcc, clang or $CC)"]


def runs(program: Path) -> bool:
    """Whether the program runs on this machine: outside of an environment it says so, and leaves."""
    try:
        done = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 126 and done.stderr.startswith(b"siteswap: ")


class LauncherHook(BuildHookInterface[BuilderConfig]):
    """Adds the compiled launcher to a wheel."""

    _scratch: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; with the program the wheel gets a platform tag, without it stays one for any platform."""
        if self.target_name != "wheel":
            return  # a source distribution has the source
        root = Path(self.root)
        if version == "editable":
            target = root / LAUNCHER
        else:
            self._scratch = tempfile.TemporaryDirectory(prefix="siteswap-launcher-")
            target = Path(self._scratch.name) / "launcher"
        if problems := compile_launcher(root / f"{LAUNCHER}.c", target):
            self.app.display_warning("no compiled launcher; the /bin/sh launcher will stand in:")
            for problem in problems:
                self.app.display_warning(f"  {problem}")
            return
        if version != "editable":
            build_data["force_include"][str(target)] = LAUNCHER.removeprefix("src/")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what `initialize` left."""
        if self._scratch is not None:
            self._scratch.cleanup()


def platform_tag() -> str:
    """The general tag of this machine, such as linux_x86_64; or what SITESWAP_WHEEL_PLATFORM says.

    (The more specific ones name the C library of this machine, of which a static program needs nothing.)
    """
    return os.environ.get("SITESWAP_WHEEL_PLATFORM") or next(
        tag for tag in tags.platform_tags() if tag.startswith("linux_")
    )
