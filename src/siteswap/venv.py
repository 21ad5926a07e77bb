"""Virtual environments of other tools: what pyvenv.cfg says, and which files are their maker's own. Pure.

Made by `python -m venv`, virtualenv, uv or poetry: all have a pyvenv.cfg (PEP 405), each in its own words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from siteswap import activate, plan
from siteswap.layout import SETTINGS
from siteswap.manifest import Interpreter

AT_THE_TOP = (".gitignore", "CACHEDIR.TAG", SETTINGS)
"""Files that are about the environment, whatever is installed: they stay beside the generations."""

_NOBODYS = frozenset({"pyvenv.cfg", ".lock"})
_INTERPRETER = re.compile(r"(python|pypy|\U0001d70bthon)w?[\d.]*[a-z]?\Z")
_ACTIVATE = re.compile(r"(de)?activate(_this\.py|\..*)?\Z", re.IGNORECASE)
_MAKERS_MODULES = ("_virtualenv.py", "_virtualenv.pth")
"""What virtualenv and uv put beside the distributions, for an interpreter without a launcher."""


@dataclass(frozen=True)
class Configuration:
    """What a pyvenv.cfg says."""

    values: Mapping[str, str]

    @staticmethod
    def parse(text: str) -> Configuration:
        """By line, as the interpreter reads it: what has no `=` in it says nothing."""
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return Configuration({name.strip().lower(): value.strip() for name, _, value in pairs})

    @property
    def system_site_packages(self) -> bool:
        """Whether it sees the base interpreter's packages."""
        return self.values.get("include-system-site-packages", "").lower() == "true"

    @property
    def prompt(self) -> str | None:
        """What shells are to show, if that was chosen; `venv` writes it as Python does."""
        text = self.values.get("prompt", "")
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        return (text[1:-1] if quoted else text) or None

    @property
    def version(self) -> str:
        """Major and minor version that it was made for; "" where it does not say."""
        return ".".join(self.values.get("version", self.values.get("version_info", "")).split(".")[:2])

    def interpreters(self, linked: str | None) -> list[str]:
        """Where its base interpreter may be, most likely first; `linked` is where bin/python leads."""
        home = self.values.get("home")
        found = [self.values.get("base-executable"), self.values.get("executable"), linked]
        if home:
            names = (f"python{self.version}", "python3", "python", "pypy3", "pypy")
            found += [f"{home}/{name}" for name in names]
        return [path for path in dict.fromkeys(found) if path and path.startswith("/")]


def is_makers(path: str, interpreter: Interpreter) -> bool:
    """Whether a file or link of the environment is its maker's: replaced by siteswap's, or needed no more."""
    directory, _, name = path.rpartition("/")
    if not directory:
        return name in _NOBODYS or name in AT_THE_TOP or name == "lib64"
    if directory == interpreter.schemes["scripts"]:
        return name in _activates() or bool(_INTERPRETER.match(name))
    return directory == interpreter.purelib and name in _MAKERS_MODULES


@functools.cache
def _activates() -> frozenset[str]:
    return frozenset(activate.scripts("", ""))


def is_activate(path: str, interpreter: Interpreter) -> bool:
    """Whether it is for a shell that siteswap has no script for: kept, and not worth a word."""
    directory, _, name = path.rpartition("/")
    return directory == interpreter.schemes["scripts"] and bool(_ACTIVATE.match(name))


def outside(path: str, target: str, root: str) -> str | None:
    """What a link at `path` must say to lead where it led from `root`, if that is not what it says.

    It is going to stand deeper: a relative way out of the environment becomes an absolute one.
    """
    if target.startswith("/"):
        return None
    steps: list[str] = path.split("/")[:-1]
    for step in target.split("/"):
        if step == ".." and not steps:
            return _normal(f"{root}/{path.rpartition('/')[0]}/{target}")
        if step == "..":
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return None


def _normal(path: str) -> str:
    steps: list[str] = []
    for step in path.split("/"):
        if step == "..":
            del steps[-1:]
        elif step not in ("", "."):
            steps.append(step)
    return "/" + "/".join(steps)


def chosen(rivals: Sequence[tuple[str, str, bool]]) -> int:
    """Which of several .dist-info of one name is the one that is installed: an index.

    Each is (version, path, whether all its files are there). The whole ones count first, then the newest.
    """

    def rank(index: int) -> tuple[bool, Version, str]:
        version, path, whole = rivals[index]
        try:
            return whole, Version(version), path
        except InvalidVersion:
            return whole, Version("0"), path

    return max(range(len(rivals)), key=rank)


def summits(strays: Iterable[str], claimed: Collection[str]) -> list[str]:
    """The strays in few names: whole directories where nothing in them belongs to a distribution."""
    mixed = set(plan.directories_of(claimed))
    found = dict[str, None]()
    for path in strays:
        steps = path.split("/")
        heads = ("/".join(steps[: count + 1]) for count in range(len(steps)))
        found[next((head for head in heads if head not in mixed and head != path), path)] = None
    return sorted(found)


def candidates(configuration: Configuration, root: Path, linked: str | None) -> list[str]:
    """Places of the base interpreter that are not in the environment itself (a copy of it is)."""
    return [
        path for path in configuration.interpreters(linked) if not Path(_normal(path)).is_relative_to(root)
    ]
