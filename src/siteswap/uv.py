"""uv, found as a package: the resolver, and the installer of build environments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from siteswap import process
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem

# What would make uv act on another interpreter or environment than the one we name.
_FOREIGN = ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT")


def program() -> str:
    """Path of the uv program that came with siteswap. Raises SiteswapError (system) when it is not there."""
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError as error:
        raise SiteswapError(
            Kind.SYSTEM,
            f"the uv program is missing: {error}",
            hint="reinstall siteswap with its dependencies",
        ) from error


def run(
    arguments: Sequence[str | Path],
    *,
    stdin: str | None = None,
    cwd: Path | None = None,
    extra: Mapping[str, str] | None = None,
) -> process.Finished:
    """Run uv, quiet and without colour, with the user's settings for indexes, proxies and certificates.

    `extra` are further variables: for the backends that it runs.
    """
    env = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {**(extra or {})}
    env["UV_PYTHON_DOWNLOADS"] = "never"
    env["UV_NO_PROGRESS"] = "1"
    env["NO_COLOR"] = "1"
    # The system's certificates, as our downloads and pip have them: an index inside of a company, say.
    env.setdefault("UV_NATIVE_TLS", "1")
    return process.run([program(), *arguments], env=env, stdin=stdin, cwd=cwd or _trusted_directory())


def _trusted_directory() -> Path | None:
    """Where to start uv: not where it would find settings of somebody else's, or any that it may not read.

    It looks for them from the working directory upwards, and they name indexes. None is where we are.
    """
    fs, here = FileSystem(), Path.cwd()
    try:
        for directory in (here, *here.parents):
            found = [fs.entry(directory / name) for name in ("uv.toml", "pyproject.toml")]
            if any(entry is not None and entry.uid not in (0, os.geteuid()) for entry in found):
                return Path("/")
    except PermissionError:
        return Path("/")
    return None


def explanation(stderr: str) -> str:
    """Uv's own words on a failure, without its prefix."""
    text = stderr.strip()
    return text.removeprefix("error: ")
