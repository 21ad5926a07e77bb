"""Build wheels from source: sdists, git repositories, local directories, editables (PEP 517, PEP 660).

Each build runs in an environment of its own, made by uv in a scratch directory
with the base interpreter (or, without isolation, in the user's environment as it
is); nothing of it reaches the environment but the wheel. Local directories are
built where they are, as pip and uv do it: what they refer to beside them must be
there. But setuptools would leave its work in them, and take up what an earlier
build left there, files that the project no longer has included: it is told to
work in the scratch directory.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from build import BuildBackendException, BuildException, FailedProcessError, ProjectBuilder
from build.env import IsolatedEnv

from siteswap import failed_builds, process, uv
from siteswap.confinement import Confinement
from siteswap.errors import Kind, SiteswapError
from siteswap.fetch import Fetcher, without_password
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact
from siteswap.manifest import Interpreter
from siteswap.ways import Way, settled

_COMMIT = re.compile(r"([0-9a-fA-F]{7,64}|HEAD)\Z")
_NO_ADDRESS = re.compile(r"-|[\w+-]+::")
"""What git would take for an option, or for a program to run (its `ext::` transport)."""


class Builder:
    """Builds wheels for one interpreter."""

    def __init__(
        self,
        fs: FileSystem,
        fetcher: Fetcher,
        interpreter: Interpreter,
        options: Sequence[str],
        place: Confinement,
        way: Way,
    ) -> None:
        """`options` are the user's index options in uv's spelling, for build requirements.

        Backends run in `place`, so that nothing they start outlives us.
        """
        self._place = place
        self._way = way
        self._fs = fs
        self._fetcher = fetcher
        self._interpreter = interpreter
        self._options = options

    def build(self, artifact: Artifact, scratch: Path) -> Path:
        """A wheel of `artifact`, in `scratch` (an empty directory of ours).

        Raises SiteswapError (requirement) with the end of the build's output.
        """
        tree = self._source_tree(artifact, scratch)
        if artifact.subdirectory:
            tree = tree / artifact.subdirectory
        output = scratch / "wheel"
        self._fs.make_directory(output)
        kind: Literal["editable", "wheel"] = "editable" if artifact.editable else "wheel"
        # What was unpacked or checked out for us is built where it is: some need to know where that will be.
        variables = settled(self._fs, scratch) if artifact.kind == "directory" else {}
        runner = _Runner(self._place, variables)
        try:
            builder = self._builder(artifact, tree, scratch, runner, kind)
            wheel = Path(builder.build(kind, str(output), self._way.told))
        except (
            BuildBackendException,
            BuildException,
            FailedProcessError,
            subprocess.CalledProcessError,
        ) as error:
            said = runner.output or str(error)
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"{artifact.title} cannot be built from {without_password(artifact.location)}",
                hint=failed_builds.hint(said, isolated=self._way.python is None),
                detail=failed_builds.tail(said),
            ) from error
        found = self._fs.entry(wheel)
        if wheel.parent != output or found is None or found.kind != "file":
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"the build of {artifact.title} says that it made {wheel.name!r}, which is not there",
                hint="report it to the makers of its build backend, or name a wheel",
            )
        return wheel

    def _builder(
        self,
        artifact: Artifact,
        tree: Path,
        scratch: Path,
        runner: _Runner,
        kind: Literal["editable", "wheel"],
    ) -> ProjectBuilder:
        """A backend that is ready to build, in an environment that has what it needs."""
        if self._way.python is not None:
            # What it needs is there, or its absence is what the backend says: as with pip.
            runner.path = str(Path(self._way.python).parent)
            return ProjectBuilder(str(tree), python_executable=self._way.python, runner=runner)
        environment = _BuildEnvironment(self._interpreter, scratch / "environment", self._options, artifact)
        builder = ProjectBuilder.from_isolated_env(environment, str(tree), runner=runner)
        environment.install(builder.build_system_requires)
        environment.install(builder.get_requires_for_build(kind, self._way.told))
        return builder

    def _source_tree(self, artifact: Artifact, scratch: Path) -> Path:
        if artifact.kind == "directory":
            return Path(artifact.location)
        tree = scratch / "source"
        if artifact.kind == "vcs":
            _check_out(artifact, tree)
            return tree
        archive = scratch / artifact.filename
        self._fetcher.fetch(artifact, archive, lambda _: None)
        self._fs.make_directory(tree)
        self._fs.extract(archive, tree)
        inside = self._fs.entries(tree)
        # An sdist holds one directory; an archive from elsewhere may hold the project itself.
        return tree / inside[0][0] if len(inside) == 1 and inside[0][1] == "directory" else tree


class _Runner:
    """Runs a backend's hooks for `build`, keeping their output to show when one fails."""

    def __init__(self, place: Confinement, variables: Mapping[str, str]) -> None:
        self._place = place
        self._variables = variables
        self.path: str | None = None
        """A directory to look for programs in before all others."""
        self.output = ""

    def __call__(
        self, cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None
    ) -> None:
        env = {**_clean_environment(), **self._variables, **(extra_environ or {})}
        if self.path is not None:
            env["PATH"] = os.pathsep.join([self.path, env.get("PATH", os.defpath)])
        done = self._place.run(cmd, env=env, cwd=Path(cwd) if cwd else Path.cwd(), merge=True)
        self.output += done.stdout
        if done.status != 0:
            raise subprocess.CalledProcessError(done.status, list(cmd), done.stdout)


class _BuildEnvironment(IsolatedEnv):
    """A throw-away virtual environment for one build."""

    def __init__(
        self, interpreter: Interpreter, path: Path, options: Sequence[str], artifact: Artifact
    ) -> None:
        self._path = path
        self._options = options
        self._title = artifact.title
        done = uv.run(["venv", "--quiet", "--no-project", "--python", interpreter.executable, path])
        if done.status != 0:
            raise SiteswapError(
                Kind.SYSTEM,
                "no environment could be made to build in",
                hint="see the reason above",
                detail=uv.explanation(done.stderr),
            )

    @property
    def python_executable(self) -> str:
        return str(self._path / "bin" / "python")

    def make_extra_environ(self) -> Mapping[str, str]:
        return {"PATH": os.pathsep.join([str(self._path / "bin"), os.environ.get("PATH", os.defpath)])}

    def install(self, requirements: set[str]) -> None:
        """Put build requirements in. Raises SiteswapError (requirement) with uv's explanation."""
        if not requirements:
            return
        done = uv.run(
            [
                "pip",
                "install",
                "--quiet",
                "--python",
                self.python_executable,
                *self._options,
                *sorted(requirements),
            ]
        )
        if done.status != 0:
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"what {self._title} needs to be built cannot be installed",
                hint="add an index that has it, or name a wheel",
                detail=uv.explanation(done.stderr),
            )


def _clean_environment() -> dict[str, str]:
    """The user's variables without those that would lead a build into another Python."""
    doomed = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SITESWAP_GENERATION", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in doomed}


def _check_out(artifact: Artifact, tree: Path) -> None:
    """A work tree of one commit of a git repository, submodules included."""
    commit = artifact.commit or "HEAD"
    if not _COMMIT.match(commit) or _NO_ADDRESS.match(artifact.location):
        raise SiteswapError(
            Kind.REQUIREMENT,
            f"{artifact.title}: {commit!r} of {without_password(artifact.location)} is no commit",
            hint="a lock names a commit by its whole number",
        )  # and git would take it for an option
    steps: list[list[str | Path]] = [
        ["git", "init", "--quiet", tree],
        ["git", "-C", tree, "remote", "add", "origin", artifact.location],
    ]
    shallow: list[str | Path] = ["git", "-C", tree, "fetch", "--quiet", "--depth", "1", "origin", commit]
    whole: list[str | Path] = [
        "git",
        "-C",
        tree,
        "fetch",
        "--quiet",
        "--tags",
        "origin",
        "+refs/*:refs/remotes/origin/*",
    ]
    for step in steps:
        _git(artifact, step)
    # Some servers hand out only what a branch or tag names: then everything is fetched.
    if process.run(shallow).status != 0:
        _git(artifact, whole)
    _git(artifact, ["git", "-C", tree, "checkout", "--quiet", "--detach", commit])
    _git(artifact, ["git", "-C", tree, "submodule", "--quiet", "update", "--init", "--recursive"])


def _git(artifact: Artifact, step: list[str | Path]) -> None:
    done = process.run(step)
    if done.status != 0:
        raise SiteswapError(
            Kind.REQUIREMENT,
            f"{artifact.title}: {without_password(artifact.location)} cannot be cloned",
            hint="check the address, and the permission to read it",
            detail=done.stderr.strip(),
        )
