"""Put a candidate together: link what is, materialise what is new, recycle a spare where there is one.

A candidate is built in staging and then moved to its final path in
`generations/`, where nothing refers to it until it is published: what the
checks run is at the path where it will live, and what a crash leaves is removed
by the next command that writes [I9].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from siteswap import plan, prefix, runtime, scripts
from siteswap.cache import Entry
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import Generation
from siteswap.layout import GenerationLayout, Layout
from siteswap.manifest import Distribution, Manifest

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Member:
    """One distribution of a candidate, and where its files come from."""

    distribution: Distribution
    entry: Entry | None = None
    """The unpacked wheel; None: the base generation has it."""
    direct_url: bytes | None = None
    """Content of direct_url.json, for what was named by URL or path (PEP 610)."""
    copies: Path | None = None
    """A directory laid out like a prefix that has it, RECORD and all, instead of the base: a repair, or what
    another installer did."""


@dataclass(frozen=True)
class _Files:
    """Everything one member brings."""

    links: tuple[tuple[str, str], ...]
    """(path below the source, path below the prefix)."""
    made: tuple[tuple[str, bytes, bool], ...]
    """(path, content, executable) of what is written here."""
    rows: tuple[plan.Row, ...]
    """RECORD's rows, but for its own."""

    @property
    def paths(self) -> list[str]:
        return [here for _, here in self.links] + [path for path, _, _ in self.made]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What RECORD says of the content at each path; "" where it does not say."""
        return {row.path: row.hash for row in self.rows}

    def has_same(self, path: str, other: _Files) -> bool:
        """Whether both are known to bring the same content to a path."""
        return self.hashes.get(path, "") == other.hashes.get(path) != ""


class Assembler:
    """Assembles one candidate. Runs under the writer lock, which is what makes staging ours."""

    def __init__(
        self,
        fs: FileSystem,
        layout: Layout,
        base: Generation | None,
        manifest: Manifest,
        *,
        allow_overlap: bool = False,
        logical: Layout | None = None,
        strays: Path | None = None,
    ) -> None:
        """`manifest` is the candidate's own, its overlaps not yet known.

        `logical` is where the environment will stand, if that is not where it stands while it is created;
        `strays` has the files of no distribution, if that is not the base.
        """
        self._fs = fs
        self._layout = layout
        self._base = base
        self._manifest = manifest
        self._allow_overlap = allow_overlap
        self._logical = logical or layout
        self._strays = strays or (base.layout.path if base is not None else None)
        self._python = str(self._logical.python)

    def assemble(
        self, members: Sequence[Member], lock_text: str, tick: Tick, *, stand_by: str = ""
    ) -> Generation:
        """The candidate at its final path, complete but for its manifest, referred to by nothing.

        With `stand_by`, the name it stays under in staging: where a generation is rebuilt under its number.
        `tick` is told of files as they arrive. Raises SiteswapError (conflict)
        before anything is touched. Nothing is durable yet: the barrier comes
        before the flip.
        """
        files = {item.distribution.name: self._files(item) for item in members}
        mine = self._manifest
        own = prefix.files(mine.interpreter, self._logical, mine.system_site_packages, mine.prompt)
        claims = [(name, files[name].paths) for name in self._by_age(members)]
        ownership = plan.assign(
            claims,
            prefix.reserved(self._manifest.interpreter),
            self._allow_overlap,
            allowed=self._base.manifest.overlaps if self._base is not None else (),
            same=lambda path, one, other: files[one].has_same(path, files[other]),
        )
        strays = self._strays_beside(ownership.owner)
        manifest = replace(self._manifest, overlaps=ownership.overlaps, strays=strays)
        # Every virtual environment has an include directory, so that tools may put headers there.
        directories = plan.directories_of([*ownership.owner, *manifest.strays, "include/"])
        final = self._layout.generation(manifest.number)
        target = self._layout.staging / (stand_by or str(manifest.number))
        in_place = self._recycle(target, manifest, directories)
        if in_place is None:
            in_place = set()
            self._fs.make_directory(target)
            self._fs.make_directories(target, directories)
            self._fs.make_directory(target / final.corner.name)
        for member in members:
            name = member.distribution.name
            if name not in in_place:
                self._bring(member, files[name], ownership.owner, target, tick)
        self._byte_code(members, in_place, files, target)
        self._own_files(own, target)
        for path in manifest.strays:
            if self._strays is not None:
                self._fs.remove_tree(target / path)
                self._fs.copy_tree(self._strays / path, target / path)
        corner = GenerationLayout(target)
        self._fs.write(corner.lock_file, lock_text.encode())
        # A new file each time: its inode tells this generation from what the directory was before [I7].
        self._fs.write(corner.lease, f"generation {manifest.number}\n".encode())
        self._fs.unlink(corner.imports)  # a recycled directory may have one that is not of this generation
        self._fs.unlink(corner.base_interpreter)
        self._fs.symlink(corner.base_interpreter, manifest.interpreter.executable)
        self._fs.write(corner.maker, prefix.maker())
        # Last: its time is what drift is measured against.
        self._fs.write(corner.directories, "\n".join(["", *directories]).encode())
        if not stand_by:
            self._fs.rename(target, final.path)
        return Generation(self._fs, corner if stand_by else final, manifest)

    def _strays_beside(self, owner: Mapping[str, str]) -> tuple[str, ...]:
        """Files of no distribution, but for those whose place is a distribution's where that is allowed.

        Raises SiteswapError (conflict) for one where a distribution needs a directory.
        """
        strays = self._manifest.strays
        needed = set(plan.directories_of(owner)) if strays else set()
        for path in strays:
            if path in needed:
                raise SiteswapError(
                    Kind.CONFLICT,
                    f"{path} is no directory, and belongs to no distribution",
                    hint="move it away: what is to be installed has files below it",
                )
        return tuple(path for path in strays if not (self._allow_overlap and path in owner))

    def _by_age(self, members: Sequence[Member]) -> list[str]:
        """Names in order of installation: what the base has as it is, then what is new."""
        was = self._base.manifest if self._base is not None else None

        def is_new(member: Member) -> bool:
            held = was.find(member.distribution.name) if was is not None else None
            return member.entry is not None and (held is None or held.key != member.distribution.key)

        return [member.distribution.name for member in sorted(members, key=is_new)]

    # -- what a member brings --------------------------------------------------------------------

    def _files(self, member: Member) -> _Files:
        if member.entry is not None:
            return self._from_wheel(member, member.entry)
        if member.copies is not None:
            dist_info = member.distribution.dist_info
            text = self._fs.read_text(member.copies / dist_info / "RECORD")
            listed = plan.read_record(text, dist_info)
            once = dict.fromkeys(row.path for row in listed)  # some tools list a file twice
            return _Files(tuple((path, path) for path in once), (), tuple(listed))
        assert self._base is not None  # a member without a wheel is by definition the base's
        was = self._base.manifest.find(member.distribution.name)
        rows = self._base.record(member.distribution)
        paths = [row.path for row in rows]
        if was is None or was.key == member.distribution.key:
            return _Files(tuple((path, path) for path in paths), (), tuple(rows))
        return self._retouched(member, rows)

    def _from_wheel(self, member: Member, entry: Entry) -> _Files:
        index, interpreter = entry.index, self._manifest.interpreter
        links: list[tuple[str, str]] = []
        made: list[tuple[str, bytes, bool]] = []
        rows: list[plan.Row] = []
        programs = [f"{interpreter.schemes['scripts']}/{script[0]}" for script in index.scripts]
        for file in index.files:
            target = plan.destination(file, interpreter, member.distribution.name)
            if target in programs:
                continue  # an entry point takes the place of a script of its name, as with other installers
            source = f"{file.scheme}/{file.path}"
            content = (
                scripts.rewritten(self._fs.read(entry.path / source), self._python)
                if file.scheme == "scripts"
                else None
            )
            if content is not None:
                made.append((target, content, True))
                rows.append(plan.row_of(target, content))
            elif not _is_generated(target, member.distribution.dist_info):
                links.append((source, target))
                rows.append(plan.Row(target, file.hash, str(file.size)))
        problems = plan.misplaced(
            [path for _, path in links] + [path for path, _, _ in made], programs,
            member.distribution.dist_info, member.distribution.name, interpreter,
        )  # fmt: skip
        if problems:
            raise SiteswapError(
                Kind.CONFLICT,
                problems[0],
                hint="leave that distribution out",
                detail="\n".join(problems[:20]) if len(problems) > 1 else None,
            )
        for name, module, attribute, section in index.scripts:
            target = f"{interpreter.schemes['scripts']}/{name}"
            content = scripts.entry_point(name, module, attribute, section, self._python)
            made.append((target, content, True))
            rows.append(plan.row_of(target, content))
        return self._with_generated(member, links, made, rows)

    def _retouched(self, member: Member, rows: Sequence[plan.Row]) -> _Files:
        """The base's files with other notes about how the distribution came here."""
        kept = [row for row in rows if not _is_generated(row.path, member.distribution.dist_info)]
        return self._with_generated(member, [(row.path, row.path) for row in kept], [], list(kept))

    def _with_generated(
        self,
        member: Member,
        links: list[tuple[str, str]],
        made: list[tuple[str, bytes, bool]],
        rows: list[plan.Row],
    ) -> _Files:
        dist_info = member.distribution.dist_info
        notes = {"INSTALLER": plan.INSTALLER}
        if member.distribution.requested:
            notes["REQUESTED"] = b""
        if member.direct_url is not None:
            notes["direct_url.json"] = member.direct_url
        for name, content in notes.items():
            made.append((f"{dist_info}/{name}", content, False))
            rows.append(plan.row_of(f"{dist_info}/{name}", content))
        made.append((f"{dist_info}/RECORD", plan.write_record(rows, dist_info), False))
        return _Files(tuple(links), tuple(made), tuple(rows))

    # -- bringing it -----------------------------------------------------------------------------

    def _bring(
        self, member: Member, files: _Files, owner: Mapping[str, str], target: Path, tick: Tick
    ) -> None:
        name = member.distribution.name
        pairs = [pair for pair in files.links if owner[pair[1]] == name]
        if member.entry is not None:
            source, made_with = member.entry.path, member.entry.index.shared_mode
            found, access = self._fs.entry(source), self._fs.access
            same_owner = found is not None and (found.uid, found.gid) == (access.uid, access.gid)
        elif member.copies is not None:
            source, made_with, same_owner = member.copies, self._fs.access.shared, True
        else:
            assert self._base is not None
            source, made_with = self._base.layout.path, self._base.manifest.shared_mode
            same_owner = True
        # A link shares owner and mode with its source; where those are not what the environment wants, copy.
        copy = made_with != self._fs.access.shared or not same_owner
        self._fs.link_files(source, target, pairs, copy=copy, tick=tick)
        for path, content, executable in files.made:
            if owner[path] == name:
                self._fs.write(target / path, content, executable=executable)

    def _own_files(self, own: Sequence[prefix.PrefixFile], target: Path) -> None:
        base = self._base.layout if self._base is not None else None
        linked = []
        for item in own:
            if base is not None and self._same(base.path / item.path, item):
                self._fs.unlink(target / item.path)
                linked.append((item.path, item.path))
            else:
                self._fs.write(target / item.path, item.content, executable=item.executable)
        if base is not None:
            self._fs.link_files(base.path, target, linked, copy=False, tick=lambda _: None)
            ours = {self._manifest.interpreter.purelib: [*runtime.sources()]}
            self._link_byte_code(base.path, target, ours)
        lasting = self._logical.generation(self._manifest.number)
        prefix.write_launcher(self._fs, target, lasting, self._manifest.interpreter, base)
        if self._manifest.interpreter.lib64 and self._fs.entry(target / "lib64") is None:
            self._fs.symlink(target / "lib64", "lib")

    def _same(self, path: Path, item: prefix.PrefixFile) -> bool:
        found = self._fs.entry(path)
        return (
            found is not None
            and found.kind == "file"
            and found.mode == self._fs.access.file(item.executable)
            and found.size == len(item.content)
            and self._fs.read(path) == item.content
        )

    def _byte_code(
        self, members: Sequence[Member], in_place: set[str], files: Mapping[str, _Files], target: Path
    ) -> None:
        """Link the byte-code of what the base has too; without it the first start would pay seconds."""
        if self._base is None:
            return
        paths = [
            here
            for member in members
            if member.entry is None and member.copies is None and member.distribution.name not in in_place
            for _, here in files[member.distribution.name].links
        ]
        self._link_byte_code(self._base.layout.path, target, plan.sources_by_directory(paths))

    def _link_byte_code(self, source: Path, target: Path, sources: Mapping[str, Sequence[str]]) -> None:
        directories, pairs = [], []
        for directory, names in sources.items():
            cache = f"{directory}/__pycache__" if directory else "__pycache__"
            listed = [name for name, kind in self._fs.entries(source / cache) if kind == "file"]
            found = plan.byte_code_of(names, listed)
            if found:
                directories.append(cache)
                pairs += [(f"{cache}/{name}", f"{cache}/{name}") for name in found]
        self._fs.make_directories(target, directories)
        fresh = [pair for pair in pairs if self._fs.entry(target / pair[1]) is None]
        copy = self._base is not None and self._base.manifest.shared_mode != self._fs.access.shared
        self._fs.link_files(source, target, fresh, copy=copy, tick=lambda _: None)

    # -- recycling -------------------------------------------------------------------------------

    def _recycle(self, target: Path, manifest: Manifest, directories: Sequence[str]) -> set[str] | None:
        """Bring the spare from what it was to what the candidate is, up to what must be linked.

        Returns the names of the distributions that are in place already, or None
        when there is no spare that can be trusted to be what its manifest says.
        """
        spare = self._usable_spare(manifest)
        if spare is None:
            return None
        wanted = {item.name: item.key for item in manifest.distributions}
        in_place = {
            item.name
            for item in spare.manifest.distributions
            if wanted.get(item.name) == item.key and item.key
        }
        leaving = [
            row.path
            for item in spare.manifest.distributions
            if item.name not in in_place
            for row in spare.record(item)
        ]
        old_directories = spare.directories
        if not self._fs.move_directory(spare.layout.path, target):
            return None
        # From here it is no spare any more, and without its manifest nobody takes it for complete. For good:
        # a spare that a power cut brings back half made over, some of its files empty, cannot be recognised.
        self._fs.sync_directory(self._layout.staging)
        self._fs.unlink(GenerationLayout(target).manifest)
        self._fs.unlink_files(target, leaving)
        self._remove_byte_code(target, leaving)
        obsolete = set(old_directories) - set(directories) - {""}
        for path in sorted(obsolete, reverse=True):
            self._fs.remove_tree(target / path / "__pycache__")
        self._fs.remove_empty_directories(target, sorted(obsolete, reverse=True))
        had = set(old_directories)
        self._fs.make_directories(target, [path for path in directories if path not in had])
        return in_place

    def _usable_spare(self, manifest: Manifest) -> Generation | None:
        where = GenerationLayout(self._layout.spare)
        if not self._fs.is_directory(where.path):
            return None
        try:
            spare = Generation.read(self._fs, where)
            same = (
                spare.interpreter.schemes == manifest.interpreter.schemes
                and spare.manifest.shared_mode == manifest.shared_mode
            )
            # Overlapping and stray files have no single owner to go by: not worth the risk.
            odd = spare.manifest.overlaps or spare.manifest.strays or manifest.overlaps or spare.drift()
            if same and not odd:
                return spare
        except (SiteswapError, FileNotFoundError):
            pass  # half recycled when a crash came, or damaged since: a fresh directory does as well
        self._fs.move_directory(where.path, self._fs.free_name(self._layout.staging, "spare"))
        return None

    def _remove_byte_code(self, target: Path, leaving: Sequence[str]) -> None:
        """Byte-code is matched by time and size of its source: it must not outlive it here."""
        for directory, names in plan.sources_by_directory(leaving).items():
            cache = f"{directory}/__pycache__" if directory else "__pycache__"
            listed = [name for name, _ in self._fs.entries(target / cache)]
            self._fs.unlink_files(target, [f"{cache}/{name}" for name in plan.byte_code_of(names, listed)])
            self._fs.remove_empty_directories(target, [cache])


def _is_generated(path: str, dist_info: str) -> bool:
    head, _, name = path.rpartition("/")
    return head == dist_info and name in plan.GENERATED
