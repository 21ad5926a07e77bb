"""What checks leave in a candidate: byte-code of what they imported stays, everything else is undone.

Checks may write to the `__pycache__` directories of what changed and nowhere else
in the candidate, where Landlock confines them. Where it does not, they can write
into files, and the files are shared with other generations by hard links: that
cannot be undone, so it is found out and the candidate refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siteswap import plan
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.generation import Generation
from siteswap.manifest import Distribution
from siteswap.process import Account


class Traces:
    """The candidate before and after its checks."""

    def __init__(
        self,
        fs: FileSystem,
        candidate: Generation,
        changed: Sequence[Distribution],
        account: Account | None,
        aside: Path,
    ) -> None:
        """`changed` get byte-code; `account` is who the checks run as, if not us.

        `aside` is an empty directory of ours that no check can write to.
        """
        self._fs = fs
        self._candidate = candidate
        self._account = account
        paths = [row.path for item in changed for row in candidate.record(item)]
        self._sources = plan.sources_by_directory(paths)
        self._aside = aside
        self._kept: list[tuple[Path, Path]] = []
        self._watched: Sequence[str] = ()
        self._before: list[tuple[int, int, int] | None] = []

    def allow(self) -> tuple[Path, ...]:
        """Make the directories that byte-code goes to, for whoever runs the checks to write to.

        Byte-code that is there already, of what did not change, is shared with other generations: checks get
        copies of it, and the files themselves come back afterwards.
        """
        root = self._candidate.layout.path
        self._fs.make_directories(root, self._caches())
        for cache in self._caches():
            for name, _ in self._fs.entries(root / cache):
                kept = self._aside / str(len(self._kept))
                self._fs.rename(root / cache / name, kept)
                self._fs.copy_tree(kept, root / cache / name)
                self._kept.append((kept, root / cache / name))
        paths = tuple(root / path for path in self._caches())
        if self._account is not None:
            for path in paths:
                self._fs.give(path, self._account.uid, self._account.gid)
        return paths

    def remember(self, *, everything: bool) -> None:
        """Note how files look now, of what changed or of everything, to tell afterwards what was edited.

        Everything where nothing keeps a check from writing into what is shared with other generations.
        """
        candidate = self._candidate
        mine = [path for directory, names in self._sources.items() for path in _join(directory, names)]
        self._watched = list(candidate.files) if everything else mine
        self._before = self._fs.change_times(candidate.layout.path, self._watched)

    def undo(self) -> list[str]:
        """Remove what checks left behind, byte-code aside; says what it was. Not durable.

        Raises SiteswapError (check) for what cannot be undone.
        """
        candidate, notes = self._candidate, []
        for kept, place in self._kept:
            self._fs.remove_tree(place)
            self._fs.rename(kept, place)
        self._clean_byte_code()
        found = candidate.drift()
        for path in set(found.strays) - set(candidate.manifest.strays):
            self._fs.remove_tree(candidate.layout.path / path)
            notes.append(f"a check wrote {path}: removed")
        edited = self._edited()
        if found.foreign or found.removed or found.damaged or edited:
            names = ", ".join(
                [*(item.title for item in found.foreign), *found.removed, *found.damaged, *edited]
            )
            raise SiteswapError(
                Kind.CHECK,
                f"a check changed what it should only try ({names}); generation "
                f"{candidate.manifest.base} stays current",
                hint="make the check leave the environment alone",
            )
        self._fs.own_byte_code(
            candidate.layout.path, candidate.directories, self._account.uid if self._account else None
        )
        # Its time is what drift is measured against: byte-code that the checks left is no drift.
        self._fs.write(candidate.layout.directories, "\n".join(candidate.directories).encode())
        return notes

    def _caches(self) -> list[str]:
        return sorted(f"{path}/__pycache__" if path else "__pycache__" for path in self._sources)

    def _clean_byte_code(self) -> None:
        """Keep byte-code of what changed, and what was there before; drop the rest, and empty directories.

        An import that was killed leaves half a file under a name of its own.
        """
        root = self._candidate.layout.path
        before = {place for _, place in self._kept}
        for directory, names in self._sources.items():
            cache = root / directory / "__pycache__"
            listed = self._fs.entries(cache)
            ours = set(plan.byte_code_of(names, [name for name, kind in listed if kind == "file"]))
            for name, _ in listed:
                if name not in ours and cache / name not in before:
                    self._fs.remove_tree(cache / name)
        self._fs.remove_empty_directories(root, self._caches())

    def _edited(self) -> list[str]:
        """Files whose content or mode was touched in place since the candidate was assembled."""
        after = self._fs.change_times(self._candidate.layout.path, self._watched)
        pairs = zip(self._watched, self._before, after, strict=True)
        return [path for path, was, found in pairs if was != found]


def _join(directory: str, names: Sequence[str]) -> list[str]:
    return [f"{directory}/{name}" if directory else name for name in names]
