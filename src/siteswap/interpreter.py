"""Find a base interpreter and ask it about itself: version, schemes, markers, wheel tags.

Everything about where files go comes from the interpreter's own `sysconfig`,
never from a guess (Debian and Fedora each patch it in their own way).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import packaging

from siteswap import process, uv
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.manifest import Interpreter

OLDEST = (3, 9)
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*t?\Z")

# Runs inside the base interpreter, isolated and without site, so that nothing of the user's takes part.
# argv[1] is the directory that holds the `packaging` library, which computes markers and tags.
_PROBE = """
import json, os, sys, sysconfig
sys.path.append(sys.argv[1])
sys.dont_write_bytecode = True
from packaging.markers import default_environment
from packaging.tags import sys_tags
scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
prefix = "/siteswap-prefix"
where = dict(base=prefix, platbase=prefix)
paths = {name: sysconfig.get_path(name, scheme, where) for name in ("purelib", "platlib", "scripts", "data")}
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps({
    "executable": os.path.realpath(base),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name,
    "cache_tag": sys.implementation.cache_tag,
    "schemes": {name: os.path.relpath(path, prefix) for name, path in paths.items()},
    "include": "include/site/python%d.%d%s" % (sys.version_info[0], sys.version_info[1],
                                               getattr(sys, "abiflags", "")),
    "lib64": sys.maxsize > 2**32,
    "markers": default_environment(),
    "tags": [str(tag) for tag in sys_tags()],
    "prefix": sys.prefix != sys.base_prefix,
}))
"""


def find(request: str | None, fs: FileSystem) -> Path:
    """The program that `request` names: a path, a version such as "3.12", or a name; None for our own.

    Raises SiteswapError (usage) when there is none.
    """
    if request is None:
        return Path(getattr(sys, "_base_executable", None) or sys.executable)
    path = Path(request).absolute()
    if os.sep in request or fs.entry(path) is not None:
        if not fs.is_program(path):
            raise SiteswapError(
                Kind.USAGE,
                f"there is no interpreter at {request}",
                hint="name another with --python, or a version such as --python 3.12",
            )
        return path
    for candidate in _candidates(request, fs):
        if process.run([candidate, "-I", "-c", ""], timeout=60).status == 0:
            return candidate
    raise SiteswapError(
        Kind.USAGE,
        f"no interpreter found for {request}",
        hint="give --python the path of one",
    )


def _candidates(request: str, fs: FileSystem) -> Iterator[Path]:
    """Programs that may be what a version or name asks for, most likely first."""
    names = [f"python{request}"] if _VERSION.match(request) else [request]
    for name in names:
        for directory in os.environ.get("PATH", "").split(os.pathsep):
            found = Path(directory or ".", name).absolute()
            if fs.is_program(found):
                yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version, _ in reversed(fs.entries(pyenv)):
        found = pyenv / version / "bin" / "python"
        if (version == request or version.startswith(f"{request}.")) and fs.is_program(found):
            yield found
    done = uv.run(["python", "find", request])
    if done.status == 0:
        yield Path(done.stdout.strip())


def probe(program: Path, fs: FileSystem) -> Interpreter:
    """Ask the interpreter at `program`.

    Raises SiteswapError (usage) for something that is no interpreter, or too old a one.
    """
    library = str(Path(packaging.__file__).parent.parent)
    done = process.run([program, "-I", "-S", "-c", _PROBE, library], timeout=60)
    try:
        data = json.loads(done.stdout)
    except ValueError:
        raise SiteswapError(
            Kind.USAGE,
            f"{program} does not answer as a Python interpreter of version {OLDEST[0]}.{OLDEST[1]} or newer",
            hint="name another with --python",
            detail=done.stderr.strip() or None,
        ) from None
    include = data.pop("include")
    data.pop("prefix")
    # A link lib64 -> lib makes both spellings one directory; we always use the real one.
    schemes = {
        name: f"lib/{path.removeprefix('lib64/')}" if path.startswith("lib64/") else path
        for name, path in data["schemes"].items()
    }
    schemes["headers"] = include
    data["schemes"] = {name: "" if path == "." else path for name, path in schemes.items()}
    data["tags"] = tuple(data["tags"])
    found = Interpreter(**data, fingerprint=fingerprint(Path(data["executable"]), fs))
    if found.version_pair < OLDEST:
        raise SiteswapError(
            Kind.USAGE,
            f"{program} is Python {found.version}; siteswap manages environments of "
            f"{OLDEST[0]}.{OLDEST[1]} and newer",
            hint="name a newer one with --python",
        )
    return found


def fingerprint(program: Path, fs: FileSystem) -> str:
    """Tells one program file from its successor, without running it; "" when it is gone."""
    found = fs.entry(fs.resolve(program))
    return "" if found is None else f"{found.size}:{found.mtime_ns}"


def refresh(known: Interpreter, fs: FileSystem) -> Interpreter:
    """The interpreter as it is now: `known` itself unless the program changed since.

    Raises SiteswapError (system) when it is gone, or is another minor version now.
    """
    program = Path(known.executable)
    now = fingerprint(program, fs)
    if now == known.fingerprint:
        return known
    if not now:
        raise SiteswapError(
            Kind.SYSTEM,
            f"the interpreter of this environment, {known.executable}, is gone",
            hint=f"install Python {known.short_version} there again, or create a new environment",
        )
    found = probe(program, fs)
    if found.version_pair != known.version_pair:
        raise SiteswapError(
            Kind.SYSTEM,
            f"{known.executable} was Python {known.short_version} and is {found.short_version} now",
            hint="create a new environment for it and sync it to an export of this one",
        )
    return found
