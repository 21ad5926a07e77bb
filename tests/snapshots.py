"""Look at what is on disk: trees to compare, RECORDs to verify. Used by tests only."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import stat
from pathlib import Path

_NOT_STATE = {".siteswap/writer", ".siteswap/lock"}
"""Lock files: their content is a note of who held them last."""

Tree = dict[str, tuple[str, int, str]]


def tree(root: Path) -> Tree:
    """Everything below `root` but byte-code: path to kind, mode and content (or link target)."""
    found: Tree = {}
    for directory, names, files in os.walk(root):
        if "__pycache__" in names:
            names.remove("__pycache__")
        for name in names + files:
            path = Path(directory, name)
            status = path.lstat()
            if path.is_symlink():
                entry = ("link", 0, os.readlink(path))
            elif path.is_dir():
                entry = ("directory", stat.S_IMODE(status.st_mode), "")
            else:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                entry = ("file", stat.S_IMODE(status.st_mode), digest)
            found[str(path.relative_to(root))] = entry
    return found


def state(env: Path) -> Tree:
    """Everything in an environment that a refused command must leave as it was.

    Left out are byte-code (a cache), the notes in lock files, and the logs of checks.
    """
    return {
        path: entry
        for path, entry in tree(env).items()
        if path not in _NOT_STATE and not path.startswith(".siteswap/log/")
    }


def current(env: Path) -> int:
    """The number of the live generation, read without siteswap's help."""
    return int(os.readlink(env / ".siteswap/current").rpartition("/")[2])


def generation(env: Path, number: int | None = None) -> Path:
    """The directory of a generation, by default of the live one."""
    return env / ".siteswap/generations" / str(number or current(env))


def site_packages(prefix: Path) -> Path:
    """The directory of installed modules below a prefix."""
    (found,) = prefix.glob("lib/python3*/site-packages")
    return found


def record_problems(prefix: Path) -> list[str]:
    """What is wrong with the RECORDs of a prefix: differing, missing and unlisted files."""
    packages = site_packages(prefix)
    listed: set[Path] = set()
    problems = []
    for info in packages.glob("*.dist-info"):
        for name, digest, size in csv.reader(io.StringIO((info / "RECORD").read_text())):
            path = Path(os.path.normpath(packages / name))
            listed.add(path)
            if not path.is_file():
                problems.append(f"{info.name} lists {name}, which is not there")
            elif name != f"{info.name}/RECORD":
                content = path.read_bytes()
                real = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
                if (digest, size) != (f"sha256={real}", str(len(content))):
                    problems.append(f"{info.name} has another {name}")
    for path in packages.rglob("*"):
        ours = path.name in ("_siteswap.py", "_siteswap_advance.py") or path.name.startswith("00-siteswap.")
        if path.is_file() and path not in listed and path.suffix != ".pyc" and not ours:
            problems.append(f"{path} is in no RECORD")
    return problems


def age(env: Path) -> None:
    """Let all that was recorded be a day old, so that no generation counts as just replaced."""
    history = env / ".siteswap/history"
    lines = []
    for line in history.read_text().splitlines():
        operation = json.loads(line)
        operation["time"] = "2020-01-01T00:00:00+00:00"
        lines.append(json.dumps(operation))
    history.write_text("".join(f"{line}\n" for line in lines))
