"""What people do in a virtual environment: the list is tests/habits.py, the page docs/compatibility.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from conftest import INTERPRETERS, STRESS, Ran, Siteswap
from habits import HABITS, RAN_ON, Habit, page
from snapshots import current, generation, tree
from wheelmaker import wheel

OWN = f"3.{sys.version_info[1]}"
"""The interpreter of the default run."""

NEWEST = max((name for name in INTERPRETERS if name in RAN_ON), key=lambda name: int(name[2:]))

CASES = [
    pytest.param(habit, name, id=f"{name}: {habit.name}", marks=[pytest.mark.index] if habit.index else [])
    for habit in HABITS
    for name in sorted(INTERPRETERS)
    if name in RAN_ON
    and (STRESS or not habit.long)
    and name == (NEWEST if habit.index else name if STRESS else OWN)
]


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels by hand, and a pip newer than any."""
    place = tmp_path_factory.mktemp("habits") / "wheels"
    for version in ("1.0", "2.0"):
        code = f"__version__ = {version!r}\n\n\ndef main():\n    print(__version__)\n"
        files = {"demo/__init__.py": code, "demo/__main__.py": "from demo import main\nmain()\n"}
        wheel(place, "demo", version, files, scripts={"demo": "demo:main"}, requires=["helper"])
    wheel(place, "helper")
    wheel(place, "broken", files={"broken/__init__.py": "import nowhere_at_all\n"})
    (bundled,) = _bundled(OWN)
    with zipfile.ZipFile(bundled) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name.startswith("pip/")}
    first = members["pip/__init__.py"].decode()
    members["pip/__init__.py"] = re.sub(r'__version__ = ".*"', '__version__ = "99.0"', first).encode()
    starts = "pip._internal.cli.main:main"
    wheel(place, "pip", "99.0", members, scripts={"pip": starts, "pip3": starts})
    return place


def _bundled(name: str) -> list[Path]:
    """The pip that an interpreter brings along."""
    base = INTERPRETERS[name].resolve()
    return list(base.parent.parent.glob(f"lib/python{name}/ensurepip/_bundled/pip-*.whl"))


class Place:
    """A directory with an environment `.venv` in it, and a shell to type in."""

    def __init__(self, root: Path, wheels: Path, habit: Habit, name: str) -> None:
        self.root, self.env = root / "project", root / "project/.venv"
        self.root.mkdir(parents=True)
        self.base, self._habit = INTERPRETERS[name], habit
        self.pip = _bundled(name)[0]
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
        (tools / "siteswap").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m siteswap "$@"\n')
        (tools / "siteswap").chmod(0o755)
        self.variables = os.environ | {
            "PATH": f"{tools}:/usr/bin:/bin",
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
        for path, text in habit.files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
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


@pytest.mark.parametrize(("habit", "name"), CASES)
def test_habit(
    habit: Habit,
    name: str,
    tmp_path: Path,
    offline: Path,
    siteswap: Siteswap,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same lines in an environment of siteswap and in a plain venv beside it."""
    for program in habit.programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    if int(name[2:]) < habit.since:
        pytest.skip(f"not with Python {name}")
    if habit.own_cache:
        monkeypatch.setenv("SITESWAP_CACHE_DIR", str(tmp_path / "cache"))
    ours = Place(tmp_path / "ours", offline, habit, name)
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
    if not habit.plain or (habit.generations and not STRESS and not habit.index):
        return
    theirs = Place(tmp_path / "plain", offline, habit, name)
    plain(theirs, habit)
    other = theirs.types(habit.typed)
    assert other.status == habit.plain_status, f"{other.out}\n{other.err}"
    if not habit.differs:
        assert done.out == other.out


def test_the_page_says_what_is_tested() -> None:
    """docs/compatibility.md is made of the list."""
    written = Path(__file__).parent.with_name("docs") / "compatibility.md"
    assert written.read_text() == page(), "python tests/habits.py > docs/compatibility.md"


def test_names_are_told_apart() -> None:
    """Thirty habits at least, none twice."""
    assert len({habit.name for habit in HABITS}) == len(HABITS) >= 30
