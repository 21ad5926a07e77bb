"""What programs that try a generation find around them: variables and scratch places."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from siteswap.confinement import Confinement
from siteswap.generation import Generation
from siteswap.lease import VARIABLE

_DOOMED = frozenset(
    {
        "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONSTARTUP",
        "PYTHONUSERBASE", "PYTEST_ADDOPTS", "PYTEST_PLUGINS",
    }
)  # fmt: skip
"""What a developer's shell may hold and a service's start does not."""


@dataclass(frozen=True)
class Stage:
    """Where and how a generation is tried."""

    confinement: Confinement
    scratch: Path
    """An existing directory of ours that checks may write to."""
    environment: Path
    """What VIRTUAL_ENV says."""
    byte_code: bool
    """Whether what is imported leaves byte-code behind: in a candidate, never in what is published [I2]."""

    def variables(self, generation: Generation, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Pinned to the generation, with its programs first on PATH, HOME, TMPDIR and caches of its own."""
        env = {name: value for name, value in os.environ.items() if name not in _DOOMED}
        env[VARIABLE] = str(generation.layout.path)
        env["VIRTUAL_ENV"] = str(self.environment)
        env["PATH"] = os.pathsep.join([str(generation.layout.bin), env.get("PATH", os.defpath)])
        env["HOME"] = env["TMPDIR"] = str(self.scratch)
        env["XDG_CACHE_HOME"] = str(self.scratch / ".cache")
        env["XDG_CONFIG_HOME"] = str(self.scratch / ".config")
        env["XDG_DATA_HOME"] = str(self.scratch / ".local" / "share")
        env["XDG_STATE_HOME"] = str(self.scratch / ".local" / "state")
        env["PYTHONNOUSERSITE"] = "1"
        if not self.byte_code:
            env["PYTHONDONTWRITEBYTECODE"] = "1"
        env.update(more or {})
        return env
