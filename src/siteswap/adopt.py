"""Make a virtual environment of another tool an environment at the same path, in one step.

The environment is made beside it, as `create` does, with what the old one holds as its first
generation; then the two directories are exchanged. Numbers such as A8 are those of
docs/crash-safety.md.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from siteswap import create, flip, interpreter, lease, opening, plan, process, remains, venv
from siteswap.assemble import Assembler, Member
from siteswap.cache import open_cache
from siteswap.checks import dependencies
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, access_of
from siteswap.gates import Gates
from siteswap.generation import Generation
from siteswap.inspection import Inspection
from siteswap.intake import Content, Intake, Sight, changing
from siteswap.launcher import binary
from siteswap.layout import SETTINGS, Layout, Number
from siteswap.lockfile import EMPTY
from siteswap.manifest import Distribution, Interpreter, Manifest
from siteswap.progress import Progress
from siteswap.requirements import Requirement
from siteswap.resolve import DEFAULTS
from siteswap.verdict import CheckError, Verdict

_TOOLS = frozenset({"pip", "setuptools", "wheel", "distribute"})
"""What makers of virtual environments put there themselves: nobody asked for it."""


@dataclass(frozen=True)
class Adopted:
    """What came of it."""

    layout: Layout
    interpreter: Interpreter
    distributions: tuple[Distribution, ...]
    requirements: tuple[str, ...]
    strays: tuple[str, ...]
    """What belongs to no distribution, in few names."""
    notes: tuple[str, ...]
    running: tuple[lease.User, ...]
    """Programs that were started in the old one, as far as this user may look."""
    verdict: Verdict | None
    """What was tried; None without checks."""
    done: bool
    """False where it was only tried (`--dry-run`)."""


def adopt(
    path: Path,
    *,
    command: str,
    gates: Callable[[FileSystem, Path], Gates],
    strict: bool = False,
    dry_run: bool = False,
    python: str | None = None,
    progress: Progress | None = None,
    fs: FileSystem | None = None,
) -> Adopted:
    """Make the virtual environment at `path` one of ours: atomic, and durable on return.

    On any exception it is as it was. `python` names its base interpreter, where that is not the one that it
    names itself; it must be of the same version. `gates` gives what to ask of the content; what is wrong
    with it blocks only with `strict`: it is what has been running. `fs` makes files with its access. Raises
    SiteswapError: usage for what is no virtual environment, or an environment already, busy when
    somebody changes it, check with `strict`, system where the file system cannot exchange two names.
    """
    plain = fs or FileSystem()
    final = Layout(plain.resolve(path))
    _require_adoptable(plain, final, path)  # A1
    fs = fs or FileSystem(access_of(final.root))
    configuration = venv.Configuration.parse(fs.read(final.config).decode(errors="replace"))
    found = _chosen(fs, final, configuration, python) if python else _interpreter(fs, final, configuration)
    work = _Adoption(fs, final, configuration, found, command, progress or Progress())
    with create.hold(fs, final):  # A2
        try:
            create.clear(fs, final)  # A2: what a crash left
            return work.run(gates, strict=strict, dry_run=dry_run)
        except KeyboardInterrupt:
            if work.outcome is None:
                raise  # else it came after the exchange, too late: what is durable is reported as done
            return work.outcome
        finally:
            with process.uninterruptible(too_late=lambda: work.outcome is not None):
                work.leave()


class _Adoption:
    """One adoption, with the lock for it held."""

    def __init__(
        self,
        fs: FileSystem,
        final: Layout,
        configuration: venv.Configuration,
        python: Interpreter,
        command: str,
        progress: Progress,
    ) -> None:
        self._fs = fs
        self._final = final
        self._making = Layout(final.creating)
        self._configuration = configuration
        self._python = python
        self._command = command
        self._progress = progress
        self._notes: list[str] = []
        self._left = False
        self._stuck = False
        self.outcome: Adopted | None = None
        """What came of it, once it is durable."""

    def run(self, gates: Callable[[FileSystem, Path], Gates], *, strict: bool, dry_run: bool) -> Adopted:
        """From A3 to A10; without the exchange where it is only tried."""
        fs, making = self._fs, self._making
        wanted = gates(fs, self._final.root)
        create.lay_out(fs, making, self._final)  # A3
        copy = making.staging / "venv"
        intake = Intake(fs, self._final.root, copy, self._python)
        sight = intake.look()
        self._progress.phase("copy")
        intake.take(sight, self._progress.step)  # A4
        for note in intake.lost(sight):
            self._note(note)
        content, first = self._assemble(intake, copy)  # A5
        fs.remove_tree(copy)
        verdict = self._try(first, wanted, strict)  # A6
        checked = "passed" if verdict is not None and verdict.passed else "skipped"
        first = Generation(fs, first.layout, replace(first.manifest, checked=checked))
        self._keep(sight)
        for name in venv.AT_THE_TOP:
            if fs.entry(self._final.root / name) is not None:
                fs.copy_tree(self._final.root / name, making.root / name)
        if fs.entry(making.root / create.IGNORED) is None:
            fs.write(making.root / create.IGNORED, b"*\n")
        create.finish(fs, making, first, "adopt")  # A7
        fs.publish(making.root)
        manifest = first.manifest
        adopted = Adopted(
            self._final, self._python, manifest.distributions, manifest.requirements, content.named,
            (*content.notes, *self._notes), (), verdict, done=False,
        )  # fmt: skip
        if dry_run:
            return adopted
        fs.barrier(making.root)  # A7
        self._progress.phase("commit")
        adopted = replace(adopted, running=tuple(programs(self._final)), done=True)
        with process.uninterruptible(too_late=lambda: self.outcome is not None):
            self._exchange(intake, sight)  # A8, A9
            self.outcome = adopted
            self.leave()  # A10
        return adopted

    def leave(self) -> None:
        """Remove what stands beside: what was made if nothing came of it, else the old one (A10)."""
        if self._stuck or self._left:
            return
        self._left = True
        with contextlib.suppress(OSError) if self.outcome is not None else contextlib.nullcontext():
            self._fs.remove_tree(self._making.root)
            # The lock's file is what leads recovery here: it goes when the rest is gone for good.
            self._fs.sync_directory(self._final.root.parent)
            self._fs.unlink(self._final.creating_lock)

    def _keep(self, sight: Sight) -> None:
        """Keep the maker's own files for the way back, but for a copy of the interpreter."""
        fs, old, kept = self._fs, self._final.root, self._making.adopted
        own = [
            path
            for path in sight
            if venv.is_makers(path, self._python)
            and path not in (".lock", SETTINGS)
            and not (fs.is_program(old / path) and fs.read_link(old / path) is None)
        ]
        fs.make_directory(kept)
        fs.make_directories(kept, plan.directories_of(own))
        for path in own:
            fs.copy_tree(old / path, kept / path)

    def _assemble(self, intake: Intake, copy: Path) -> tuple[Content, Generation]:
        fs = self._fs
        bare = Manifest(
            number=Number(1),
            created=flip.now(),
            command=self._command,
            base=None,
            interpreter=self._python,
            requirements=(),
            distributions=(),
            system_site_packages=self._configuration.system_site_packages,
            prompt=self._configuration.prompt,
            shared_mode=fs.access.shared,
            checked="",
        )
        content = intake.sort(bare)
        for note in content.notes:
            self._progress.note(note)
        wanted = requirements(content.distributions, self._python)
        names = {item.name for item in wanted}
        distributions = tuple(
            replace(item, requested=item.name in names)
            for item in sorted(content.distributions, key=lambda item: item.name)
        )
        manifest = replace(
            bare,
            requirements=tuple(item.text for item in wanted),
            distributions=distributions,
            strays=content.strays,
        )
        assembler = Assembler(
            fs, self._making, None, manifest, allow_overlap=True, logical=self._final, strays=copy
        )
        self._progress.phase("link")
        members = [Member(item, copies=copy) for item in distributions]
        first = assembler.assemble(members, EMPTY, self._progress.step)
        intake.bring_byte_code(first.layout.path)
        return content, first

    def _try(self, first: Generation, gates: Gates, strict: bool) -> Verdict | None:
        """Try it where it stands; what is wrong is told. Raises CheckError with `strict`."""
        if not gates.enabled:
            return None
        if binary() is None:
            # The stand-in names the place where it will stand, and does not run before it stands there.
            self._note("not tried, for there is no compiled launcher: siteswap check does it now")
            return None
        self._fs.write(first.layout.manifest, first.manifest.to_json())
        inspection = Inspection(self._fs, self._making, open_cache, self._progress)
        try:
            return inspection.run(first, gates, DEFAULTS, self._command)
        except CheckError as error:
            if strict:
                raise
            for finding in error.verdict.blocking:
                self._note(f"as it was before: {finding}")
            return error.verdict

    def _exchange(self, intake: Intake, sight: Sight) -> None:
        """The commit point, and what makes it last. Raises SiteswapError, OSError: then it is as it was."""
        fs, final = self._fs, self._final

        def unchanged(place: Layout) -> None:
            now = intake.look(place.root)
            for path in sight.keys() | now.keys():
                if sight.get(path) != now.get(path):
                    raise changing(final.root, path)

        try:
            create.exchange(fs, self._making, final, unchanged)
        except create.StuckError:
            self._stuck = True
            raise

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._progress.note(text)


def requirements(distributions: Sequence[Distribution], python: Interpreter) -> list[Requirement]:
    """What counts as asked for: what installers noted as that, else all that nothing else needs. Pure."""
    asked = {item.name for item in distributions if item.requested}
    if not asked - _TOOLS:
        tree = dependencies.needed([item.name for item in distributions], distributions, python)
        asked |= {item.name for item in distributions if not tree[item.name] - {item.name}}
    found = []
    for item in distributions:
        if item.name in asked:
            line = f"{item.name} @ {Path(item.editable).as_uri()}" if item.editable else item.name
            found.append(Requirement(line, item.name, editable=item.editable is not None))
    return sorted(found, key=lambda item: item.name or "")


def programs(layout: Layout) -> list[lease.User]:
    """Processes that name a virtual environment: mapped files, words, directory, VIRTUAL_ENV."""
    pattern = re.compile(re.escape(str(layout.root)) + r"(/|\s|$)", re.MULTILINE)
    return sorted(
        (
            lease.User(seen.pid, seen.uid, seen.command, Number(0))
            for seen in process.survey(str(layout.root), "VIRTUAL_ENV")
            if pattern.search(seen.mentions)
        ),
        key=lambda user: user.pid,
    )


def _require_adoptable(fs: FileSystem, final: Layout, path: Path) -> None:
    """Refuse what is no virtual environment, or not ours to change; nothing is made before."""
    opening.require_trusted(fs, final)
    root = final.root
    if not fs.is_directory(root):
        raise SiteswapError(
            Kind.USAGE, f"there is no virtual environment at {path}", hint="siteswap create makes a new one"
        )
    if fs.entry(final.home) is not None and not remains.left(fs, final):
        raise SiteswapError(
            Kind.USAGE, f"{root} is an environment of siteswap already", hint="siteswap list -e ENV"
        )
    if fs.is_directory(root / "conda-meta"):
        raise SiteswapError(
            Kind.USAGE,
            f"{root} is a conda environment: its interpreter and libraries are packages themselves",
            hint="siteswap create a new one, with its python as --python if need be",
        )
    if fs.entry(final.config) is None:
        what = (
            "the prefix of an interpreter"
            if fs.entry(final.python) is not None
            else "no directory of that kind"
        )
        raise SiteswapError(
            Kind.USAGE,
            f"{root} has no pyvenv.cfg: it is {what}, no virtual environment",
            hint="name the directory that has bin/activate in it",
        )
    create.require_nameable(final)
    opening.require_outside(fs, final)
    for place in (root, root.parent):
        if not fs.may_write(place):
            raise SiteswapError(
                Kind.SYSTEM, f"{place} is not writable", hint="run the command as the user whom it belongs to"
            )


def _interpreter(fs: FileSystem, final: Layout, configuration: venv.Configuration) -> Interpreter:
    """The base interpreter. Raises SiteswapError: system when it is gone or another one, usage if too old."""
    linked = fs.resolve(final.python)
    places = [
        place
        for text in venv.candidates(configuration, final.root, str(linked))
        if fs.is_program(place := Path(text))
    ]
    error: SiteswapError | None = None
    for place in dict.fromkeys(map(fs.resolve, places)):
        try:
            found = interpreter.probe(place, fs)
        except SiteswapError as refused:
            error = error or refused
            continue
        if fs.is_directory(final.root / found.purelib):
            return found
        error = error or SiteswapError(
            Kind.SYSTEM,
            f"{place} is Python {found.short_version}; {final.root} was made for another version",
            hint="create a new environment, and install into it what this one has",
        )
    raise error or SiteswapError(
        Kind.SYSTEM,
        f"the base interpreter of {final.root} is gone (home = {configuration.values.get('home', '')})",
        hint="name one of the same version with --python, or make the virtual environment anew",
    )


def _chosen(fs: FileSystem, final: Layout, configuration: venv.Configuration, python: str) -> Interpreter:
    """The base interpreter that the user names. Raises SiteswapError (usage) for one of another version."""
    found = interpreter.probe(interpreter.find(python, fs), fs)
    said = configuration.version
    if (said and said != found.short_version) or not fs.is_directory(final.root / found.purelib):
        raise SiteswapError(
            Kind.USAGE,
            f"{python} is Python {found.short_version}; {final.root} was made for {said or 'another'}",
            hint="name one of that version, or create a new environment",
        )
    return found
