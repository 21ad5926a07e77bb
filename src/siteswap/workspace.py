"""A private copy of the base in which another installer works (`siteswap exec`), and what it made of it.

Every file in it is a copy, so nothing that is written in place there reaches what
is published [I2]. It stands where the candidate will stand: a path of it that
ends up somewhere leads to the candidate, and later to its tombstone.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from siteswap import plan, prefix
from siteswap.carry import Base
from siteswap.confinement import Confinement, Terms
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import NOBODYS, Drift, Generation, editable_source
from siteswap.layout import CORNER, Layout, Number
from siteswap.lease import VARIABLE
from siteswap.manifest import Distribution

BUSY_VARIABLE = "SITESWAP_EXEC"
"""Names the environment that a command of `siteswap exec` works for: it must not wait for itself."""

_MISLEADING = ("PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_TARGET", "PIP_USER", "CONDA_PREFIX")
"""Would make an installer work elsewhere than in the environment it is run in."""


@dataclass(frozen=True)
class Work:
    """What another installer did."""

    prefix: Path
    """The private copy, in staging, its files as they are to be carried along."""
    drift: Drift
    notes: tuple[str, ...]
    """What the user should know of it."""


class Workspace:
    """The private copy. The writer lock is held from before `make` to after the candidate is assembled."""

    def __init__(self, fs: FileSystem, layout: Layout, base: Base, number: Number) -> None:
        """`number` is the candidate's: unused so far, so recovery removes what a crash leaves."""
        self.fs = fs
        self._layout = layout
        self._base = base
        self._where = layout.generation(number)
        self._before: Mapping[str, tuple[int, int]] = {}
        self._copied = False

    @property
    def prefix(self) -> Path:
        """Where the copy stands."""
        return self._where.path

    def make(self, tick: Callable[[int], None]) -> None:
        """Copy the base; `tick` is told of files as they arrive. Neither atomic nor durable."""
        source, target = self._base.generation.layout.path, self.prefix
        interpreter = self._base.interpreter
        launchers = {f"bin/{name}" for name in prefix.python_names(interpreter)}
        kinds: dict[str, list[str]] = {"directory": [CORNER], "file": [], "link": [], "other": []}
        for path, kind in self.fs.walk(source):
            if path.partition("/")[0] != CORNER and path not in launchers:
                kinds[kind].append(path)
        self._copied = True
        self.fs.make_directory(target)
        self.fs.make_directories(target, kinds["directory"])
        self.fs.link_files(source, target, [(path, path) for path in kinds["file"]], copy=True, tick=tick)
        for path in kinds["link"]:
            self.fs.symlink(target / path, self.fs.read_link(source / path) or "")
        prefix.write_launcher(self.fs, target, self._where, interpreter, None)
        self.fs.symlink(self._where.base_interpreter, interpreter.executable)
        self.fs.write(self._where.lease, b"a private copy\n")
        self._before = self._stamps()

    def run(self, command: Sequence[str], streams: tuple[int, int, int]) -> int:
        """Let the installer work, with these descriptors as standard streams; how many processes it left.

        Raises SiteswapError: requirement when it fails, system when it cannot be
        started. When this ends, however it does, none of its processes is left.
        """
        terms = Terms(None, self.fs.access.umask, memory=0, streams=streams)
        with Confinement(terms) as alone:
            done = alone.run(command, env=self.variables(os.environ), cwd=Path.cwd())
        if done.status != 0:
            how = f"exit status {done.status}" if done.status > 0 else signal.Signals(-done.status).name
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"{shlex.join(command)} ended with {how}: nothing was changed",
                hint="see its output above",
            )
        return done.left

    def leave(self, aside: Path) -> None:
        """Give the copy up, if it is still there: moved to `aside`, in staging, it is garbage."""
        if self._copied and self.fs.entry(self.prefix) is not None:
            self.fs.rename(self.prefix, aside)
        self._copied = False

    def variables(self, env: Mapping[str, str]) -> dict[str, str]:
        """`env` with the private copy in the environment's place.

        VIRTUAL_ENV is the physical path: uv remembers what it learns of an
        interpreter by its real path, and would take ENV for what is current.
        """
        found = {name: value for name, value in env.items() if name not in _MISLEADING}
        found["VIRTUAL_ENV"] = found["UV_PROJECT_ENVIRONMENT"] = str(self.prefix)
        own = [str(self._where.bin), str(self._layout.stand_ins)]
        found["PATH"] = os.pathsep.join([*own, env.get("PATH", os.defpath)])
        found[VARIABLE] = str(self.prefix)
        found[BUSY_VARIABLE] = str(self._layout.root)
        return found

    def take_in(self, aside: Path) -> Work | None:
        """What changed since `make`, moved to `aside`, which is in staging; None when nothing did.

        Files are as they are to be carried along: the copy's own path in texts
        has become the environment's, and RECORD of what was edited says so.
        """
        after = self._stamps()
        touched = {path for path, stamp in after.items() if self._before.get(path) != stamp}
        gone = self._before.keys() - after.keys()
        own = {*prefix.names(self._base.interpreter)}
        notes = list_note("left out, for it is siteswap's own", sorted((touched | gone) & own))
        if not (touched | gone) - own:
            return None
        rewritten, leaked = self._lead_to_the_environment(sorted(touched - own))
        notes += list_note("the candidate's own path is in a file that is no text", leaked)
        touched |= rewritten
        drift, more = self._drift(after, touched, gone)
        self.leave(aside)
        return Work(aside, drift, (*notes, *more))

    # -- looking ---------------------------------------------------------------------------------

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Every file and link that is content, with what changes whenever it is written or replaced."""
        paths = [
            path
            for path, kind in self.fs.walk(self.prefix)
            if kind in ("file", "link") and not _is_noise(path)
        ]
        return dict(zip(paths, self.fs.stamps(self.prefix, paths), strict=True))

    def _drift(
        self, after: Collection[str], touched: Collection[str], gone: Collection[str]
    ) -> tuple[Drift, list[str]]:
        copy = Generation(self.fs, self._where, self._base.generation.manifest)
        held = {item.dist_info: item for item in self._base.distributions}
        dist_infos = {path.rpartition("/")[0] for path in after if copy.is_metadata(path)}
        foreign: list[Distribution] = []
        edited: list[str] = []
        claimed: set[str] = set()
        changed = {*touched, *gone}
        for dist_info in sorted(dist_infos):
            if f"{dist_info}/RECORD" not in after:
                continue  # without RECORD nobody can say what belongs to it: strays
            rows = plan.read_record(self.fs.read_text(self.prefix / dist_info / "RECORD"), dist_info)
            paths = {row.path for row in rows}
            known = held.get(dist_info)
            if known is not None and changed.isdisjoint(paths | {f"{dist_info}/RECORD"}):
                claimed |= paths
                continue
            if self._correct(dist_info, rows, after, touched) and f"{dist_info}/RECORD" not in touched:
                edited.append(dist_info.rpartition("/")[2].removesuffix(".dist-info"))
            item = copy.foreign(dist_info)
            if item is not None:
                foreign.append(described(self.fs, self.prefix, item))
                claimed |= paths
        removed = tuple(sorted(item.name for path, item in held.items() if path not in dist_infos))
        own = {*prefix.names(self._base.interpreter)}
        strays = tuple(sorted(path for path in after if path not in claimed and path not in own))
        fresh = [path for path in strays if path in touched or path not in self._before]
        notes = list_note("edited by hand, and carried along so", edited)
        notes += list_note("belongs to no distribution, carried along", fresh)
        return Drift(tuple(foreign), removed, (), strays, self._base.generation.manifest.strays), notes

    # -- correcting ------------------------------------------------------------------------------

    def _lead_to_the_environment(self, paths: Iterable[str]) -> tuple[set[str], list[str]]:
        """Put the environment's path where files name the copy's: (files rewritten, files that are no text).

        In scripts above all: their first line names the interpreter that wrote them.
        """
        physical, logical = os.fsencode(self.prefix), os.fsencode(self._layout.root)
        rewritten, leaked = set(), []
        for path in paths:
            place = self.prefix / path
            found = self.fs.entry(place)
            if found is None or found.kind != "file":
                continue
            content = self.fs.read(place)
            if physical not in content:
                continue
            if b"\0" in content:
                leaked.append(path)
                continue
            executable = bool(found.mode & 0o100)
            self.fs.unlink(place)
            self.fs.write(place, content.replace(physical, logical), executable=executable)
            rewritten.add(path)
        return rewritten, leaked

    def _correct(
        self, dist_info: str, rows: Sequence[plan.Row], after: Collection[str], touched: Collection[str]
    ) -> bool:
        """Let RECORD say what is there of a distribution that was touched; whether it said something else."""
        said = [row for row in rows if row.path != f"{dist_info}/RECORD"]
        right = [
            plan.row_of(row.path, self.fs.read(self.prefix / row.path))
            if row.path in touched and row.hash and self._is_file(row.path)
            else row
            for row in said
            if row.path in after
        ]
        if right == said:
            return False
        place = self.prefix / dist_info / "RECORD"
        self.fs.unlink(place)
        self.fs.write(place, plan.write_record(right, dist_info))
        return True

    def _is_file(self, path: str) -> bool:
        found = self.fs.entry(self.prefix / path)
        return found is not None and found.kind == "file"


def described(fs: FileSystem, where: Path, item: Distribution) -> Distribution:
    """The distribution with what its own notes say of how it came here (PEP 610, PEP 376)."""
    notes = where / item.dist_info
    requested = fs.entry(notes / "REQUESTED") is not None
    return replace(item, requested=requested, editable=editable_source(fs, notes))


def _is_noise(path: str) -> bool:
    """Byte-code, which is a cache, and what is nobody's content."""
    parts = path.split("/")
    return "__pycache__" in parts or parts[0] in NOBODYS


def list_note(what: str, names: Sequence[str]) -> list[str]:
    """A line that names the first of them, if there are any."""
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]
