"""Two places to type the same lines in: an environment of siteswap, and a plain venv with the same in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from uv import find_uv_bin

from conftest import INTERPRETERS, Ran, Siteswap
from habits import Habit
from snapshots import current, generation, tree
from wheelmaker import wheel

OWN = f"3.{sys.version_info[1]}"
"""The interpreter of the default run."""

HELPER = "siteswap-demo-helper"
"""What `demo` requires: a name that no index has, so that no tool is given another with a newer version."""

_FORWARD = """#!/bin/sh
# In a plain venv: runs what `siteswap exec` would run.
test "$1" = exec && test "$2" = -- && shift 2 && exec "$@"
"""


def make_wheels(place: Path) -> Path:
    """Wheels by hand, and a pip newer than any."""
    for version in ("1.0", "2.0"):
        code = f"__version__ = {version!r}\n\n\ndef main():\n    print(__version__)\n"
        files = {"demo/__init__.py": code, "demo/__main__.py": "from demo import main\nmain()\n"}
        wheel(place, "demo", version, files, scripts={"demo": "demo:main"}, requires=[HELPER])
    wheel(place, HELPER)
    wheel(place, "broken", files={"broken/__init__.py": "import nowhere_at_all\n"})
    bundled = _bundled(OWN)
    with zipfile.ZipFile(bundled) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name.startswith("pip/")}
    first = members["pip/__init__.py"].decode()
    members["pip/__init__.py"] = re.sub(r'__version__ = ".*"', '__version__ = "99.0"', first).encode()
    starts = "pip._internal.cli.main:main"
    wheel(place, "pip", "99.0", members, scripts={"pip": starts, "pip3": starts})
    return place


def _bundled(name: str) -> Path:
    """The pip that an interpreter brings along; the tests' own where a distributor took that away."""
    base = INTERPRETERS[name].resolve()
    found = list(base.parent.parent.glob(f"lib/python{name}/ensurepip/_bundled/pip-*.whl"))
    return found[0] if found else _bundled(OWN)


class Place:
    """A directory with an environment `.venv` in it, and a shell to type in."""

    def __init__(
        self,
        root: Path,
        wheels: Path,
        habit: Habit,
        name: str,
        beside: Sequence[Path] = (),
        *,
        ours: bool = True,
        served: str = "",
    ) -> None:
        """`beside` has programs that are installed elsewhere; at `served` the wheels are an index."""
        self.root, self.env = root / "project", root / "project/.venv"
        self.root.mkdir(parents=True)
        self.base, self._habit = INTERPRETERS[name], habit
        self.pip = _bundled(name)
        self.sources = [
            "-f",
            str(wheels),
            "-f",
            str(self.pip.parent),
            *([] if habit.index else ["--no-index"]),
        ]
        self.wanted_pip = "pip==" + self.pip.name.split("-")[1]
        tools = root / "tools"
        tools.mkdir()
        (tools / "uv").symlink_to(find_uv_bin())
        own = f'#!/bin/sh\nexec "{sys.executable}" -m siteswap "$@"\n'
        (tools / "siteswap").write_text(own if ours else _FORWARD)
        (tools / "siteswap").chmod(0o755)
        self.variables = os.environ | {
            "PATH": os.pathsep.join([str(tools), *map(str, beside), "/usr/bin", "/bin"]),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_CACHE_DIR": str(root.parent / "pip-cache"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": str(wheels),
            "UV_LINK_MODE": "copy",
            "UV_CACHE_DIR": str(root.parent / "uv-cache"),
            "IPYTHONDIR": str(root / "ipython"),
            "JUPYTER_DATA_DIR": str(root / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
        }
        if habit.online:
            (root / "home").mkdir()
            self.variables["HOME"] = str(root / "home")
            for name in ("PIP_NO_INDEX", "UV_OFFLINE"):
                del self.variables[name]
        for path, text in habit.files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text.replace("{index}", served))
            if text.startswith("#!"):
                (self.root / path).chmod(0o755)

    def types(self, lines: str) -> Ran:
        """What a shell says to these lines, with the environment active in it."""
        start = "" if not self._habit.active else ". .venv/bin/activate\n"
        done = subprocess.run(
            ["bash", "--norc", "-c", start + lines.replace("{base}", str(self.base))],
            cwd=self.root, env=self.variables, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip
        return Ran(done.returncode, self._plainly(done.stdout), self._plainly(done.stderr))

    def _plainly(self, text: str) -> str:
        """Without what is bound to differ: where the environment lies, and which generation is meant."""
        text = re.sub(re.escape(str(self.env)) + r"(/\.siteswap/(generations/\d+|current))?", "ENV", text)
        return text.replace(str(self.root), "PROJECT").replace(str(self.root.parent), "PLACE")


def of_siteswap(place: Place, habit: Habit, siteswap: Siteswap) -> None:
    """An environment of siteswap, with what the habit takes for granted."""
    siteswap("create", place.env, "-p", place.base).ok()
    wanted = [*([place.wanted_pip] if habit.pip else []), *habit.needs]
    if wanted:
        siteswap("install", "-e", place.env, "--no-check", *place.sources, *wanted).ok()


def plain(place: Place, habit: Habit) -> None:
    """A plain venv with the same in it."""
    subprocess.run([place.base, "-m", "venv", "--without-pip", place.env], check=True)
    wanted = [*([place.wanted_pip] if habit.pip else []), *habit.needs]
    if wanted:
        install = [find_uv_bin(), "pip", "install", "-q", "--link-mode", "copy", *place.sources, *wanted]
        subprocess.run([*install, "--python", str(place.env / "bin/python")], check=True)


def compare(
    habit: Habit,
    name: str,
    root: Path,
    wheels: Path,
    siteswap: Siteswap,
    *,
    beside: Sequence[Path] = (),
    both: bool = True,
    served: str = "",
) -> None:
    """Type the lines in an environment of siteswap, with `both` in a plain venv; fails unless all is so."""
    ours = Place(root / "ours", wheels, habit, name, beside, served=served)
    of_siteswap(ours, habit, siteswap)
    number = current(ours.env)
    before = tree(generation(ours.env))
    done = ours.types(habit.typed)
    told = f"{done.out}\n{done.err}"
    assert done.status == habit.status, told
    lines = done.out.splitlines()
    assert [line for line in habit.shows if line not in lines] == [], told
    assert [text for text in habit.says if text not in told] == [], told
    if not habit.drift:
        assert current(ours.env) == number + habit.generations, told
        assert tree(generation(ours.env, number)) == before, "a published generation has changed"
    if "noticed by the next command" in habit.differs:
        assert "other tool" in siteswap("list", "-e", ours.env).ok().out
    if "`siteswap doctor` finds" in habit.differs:
        assert siteswap("doctor", "-e", ours.env).status == 4
    if not both:
        return
    theirs = Place(root / "plain", wheels, habit, name, beside, ours=False, served=served)
    plain(theirs, habit)
    other = theirs.types(habit.typed)
    assert other.status == habit.plain_status, f"{other.out}\n{other.err}"
    if not habit.differs:
        assert done.out == other.out


def fails_plainly(
    habit: Habit,
    name: str,
    root: Path,
    wheels: Path,
    reason: str,
    *,
    beside: Sequence[Path] = (),
    served: str = "",
) -> None:
    """Type the lines in a plain venv alone; fails unless they fail there, for the reason that is known."""
    theirs = Place(root / "plain", wheels, habit, name, beside, ours=False, served=served)
    plain(theirs, habit)
    done = theirs.types(habit.typed)
    assert done.status != habit.plain_status, f"works with {name}: take `since` down\n{done.out}"
    log = theirs.root / "log"
    told = done.out + done.err + (log.read_text() if log.exists() else "")
    assert reason in told, told
