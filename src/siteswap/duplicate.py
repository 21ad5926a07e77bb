"""A new environment that begins with what a generation of another one holds.

Files are linked where the two environments may share them, as they share those of the cache; what names the
other environment, or may be edited in place, is written anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from siteswap import carry, create, flip, interpreter, lease, plain, plan, scripts
from siteswap.assemble import Assembler, Member
from siteswap.errors import REPAIR_HINT, Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import Drift, Generation
from siteswap.layout import Layout, Number
from siteswap.manifest import Interpreter, Manifest
from siteswap.progress import Progress


class Duplicate:
    """The copy of one generation. Its lease is held from `make` to its end, so that it is not removed."""

    def __init__(
        self, generation: Generation, layout: Layout, python: str | None, command: str, progress: Progress
    ) -> None:
        """`layout` is that of its environment; `python` names the interpreter, None is its own."""
        self._source = generation
        self._layout = layout
        self._python = python
        self._command = command
        self._progress = progress

    def make(self, path: Path, *, system_site_packages: bool, fs: FileSystem | None = None) -> Layout:
        """Make the environment at `path`: atomic, and durable on return. Nothing of the other is changed.

        Raises SiteswapError: usage for another Python or when something is at `path`, busy when the
        generation is going away, damaged when it misses files.
        """
        plainly = fs or FileSystem()
        drift = self._source.drift()
        if drift.damaged:
            raise SiteswapError(
                Kind.DAMAGED,
                f"files of {', '.join(drift.damaged)} are missing in {self._layout.root}",
                hint=REPAIR_HINT,
            )
        found = self._interpreter(plainly)
        held = lease.hold(plainly, self._source.layout)
        if held is None:
            raise SiteswapError(
                Kind.BUSY, f"generation {self._source.number} is being removed", hint="see siteswap history"
            )
        with held:

            def fill(fs: FileSystem, making: Layout, final: Layout) -> None:
                self._fill(fs, making, final, drift, found, system_site_packages)

            return create.create(path, fs=fs, fill=fill)

    def _interpreter(self, fs: FileSystem) -> Interpreter:
        known = interpreter.refresh(self._source.interpreter, fs)
        if self._python is None:
            return known
        found = interpreter.probe(interpreter.find(self._python, fs), fs)
        if (found.cache_tag, found.schemes) != (known.cache_tag, known.schemes):
            raise SiteswapError(
                Kind.USAGE,
                f"{self._layout.root} has Python {known.short_version} ({known.cache_tag}), "
                f"and {self._python} is {found.short_version} ({found.cache_tag})",
                hint="leave --python out; or siteswap sync a new environment to an export of that one",
            )
        return found

    def _fill(
        self,
        fs: FileSystem,
        making: Layout,
        final: Layout,
        drift: Drift,
        python: Interpreter,
        system_site_packages: bool,
    ) -> None:
        was = self._source.manifest
        create.lay_out(fs, making, final)
        copy = making.staging / "copy"
        leaks = self._bring(fs, copy, final, drift)
        for path in leaks:
            self._progress.note(f"{path} is no text, and names {self._layout.root}")
        distributions = carry.distributions(was, drift)
        manifest = Manifest(
            number=Number(1),
            created=flip.now(),
            command=self._command,
            base=None,
            interpreter=python,
            requirements=tuple(item.text for item in carry.requirements(was, drift)),
            distributions=distributions,
            system_site_packages=was.system_site_packages or system_site_packages,
            shared_mode=fs.access.shared,
            checked=was.checked,
            strays=drift.strays,
        )
        self._progress.phase("link")
        assembler = Assembler(fs, making, None, manifest, allow_overlap=True, logical=final, strays=copy)
        members = [Member(item, copies=copy) for item in distributions]
        first = assembler.assemble(members, self._source.lock_file().text, self._progress.step)
        self._bring_byte_code(fs, first)
        first.remember_imports(self._source.imports())
        fs.remove_tree(copy)
        if fs.entry(self._layout.settings) is not None:
            fs.copy_tree(self._layout.settings, making.settings)
        fs.write(making.root / create.IGNORED, b"*\n")
        create.finish(fs, making, first, "create")

    def _bring(self, fs: FileSystem, copy: Path, final: Layout, drift: Drift) -> list[str]:
        """The files of the generation, below `copy`, as the new environment is to have them; what leaks."""
        source, root = self._source.layout.path, str(self._layout.root)
        content = plain.content(fs, self._source, byte_code=False)
        fs.make_directory(copy)
        fs.make_directories(copy, content.directories)
        pairs = [(path, path) for path in content.files]
        fs.link_files(source, copy, pairs, copy=self._may_not_share(fs), tick=lambda _: None)
        for path, said in content.links.items():
            led = (
                plain.logical(root).sub(os.fsencode(root), os.fsencode(said)).decode(errors="surrogateescape")
            )
            inside = f"{led}/".startswith(f"{root}/")
            fs.symlink(copy / path, f"{final.root}{led[len(root) :]}" if inside else led)
        programs = f"{self._source.interpreter.schemes['scripts']}/"
        suspects = {path for path in content.files if path.startswith(programs) or path.endswith(".pth")}
        suspects |= {*drift.strays} & {*content.files}
        for item in carry.distributions(self._source.manifest, drift):
            if item.foreign:
                suspects |= {row.path for row in self._source.record(item)} & {*content.files}
        changed, leaks = self._lead(fs, sorted(suspects), copy, str(final.root))
        for path in content.files:
            if path.endswith(".dist-info/RECORD"):
                plain.correct(fs, copy / path, path.rpartition("/")[0], changed, None)
        return leaks

    def _lead(
        self, fs: FileSystem, paths: Collection[str], copy: Path, final: str
    ) -> tuple[dict[str, plan.Row], list[str]]:
        """Put the new environment's path where texts name the other's: (new rows, what is no text)."""
        root = str(self._layout.root)
        physical, named = plain.logical(root), re.compile(re.escape(os.fsencode(root)) + rb"(?![\w.-])")
        changed, leaks = {}, []
        for path in paths:
            before = fs.read(copy / path)
            if b"\0" in before:
                if named.search(before):
                    leaks.append(path)
                continue
            after = physical.sub(os.fsencode(root), before)
            after = scripts.moved(after, root, f"{final}/bin/python") or after
            after = named.sub(os.fsencode(final).replace(b"\\", rb"\\"), after)
            if after != before:
                found = fs.entry(copy / path)
                fs.write(copy / path, after, executable=found is not None and bool(found.mode & 0o100))
                changed[path] = plan.row_of(path, after)
        return changed, leaks

    def _may_not_share(self, fs: FileSystem) -> bool:
        """Whether a link would have another owner, or other modes, than the new environment's files."""
        found = fs.entry(self._source.layout.manifest)
        owner = found is not None and (found.uid, found.gid) == (fs.access.uid, fs.access.gid)
        return self._source.manifest.shared_mode != fs.access.shared or not owner

    def _bring_byte_code(self, fs: FileSystem, first: Generation) -> None:
        """Without it the first start would pay seconds."""
        source, target = self._source.layout.path, first.layout.path
        paths = [path for path, kind in fs.walk(target) if kind == "file"]
        pairs = []
        for directory, names in plan.sources_by_directory(paths).items():
            cache = f"{directory}/__pycache__" if directory else "__pycache__"
            listed = [name for name, kind in fs.entries(source / cache) if kind == "file"]
            pairs += [f"{cache}/{name}" for name in plan.byte_code_of(names, listed)]
        fresh = [path for path in pairs if fs.entry(target / path) is None]
        fs.make_directories(target, plan.directories_of(fresh))
        fs.link_files(
            source, target, [(path, path) for path in fresh],
            copy=self._may_not_share(fs), tick=lambda _: None,
        )  # fmt: skip
