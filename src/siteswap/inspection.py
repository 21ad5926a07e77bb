"""Try a published generation as it is: nothing in it changes, and no lock but its lease is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from siteswap import carry, lease, overlay, resolve
from siteswap.cache import Cache
from siteswap.comparison import Comparison
from siteswap.confinement import Confinement, Terms, account_for
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.gates import Gates
from siteswap.generation import Generation
from siteswap.layout import Layout
from siteswap.progress import Progress
from siteswap.trial import Trial
from siteswap.verdict import Verdict


@dataclass(frozen=True)
class Inspection:
    """What is needed to try generations of one environment."""

    fs: FileSystem
    layout: Layout
    cache: Callable[[], Cache]
    """Where what tests need besides is unpacked; asked for only then."""
    progress: Progress

    def run(self, where: Generation, gates: Gates, options: resolve.Options, command: str) -> Verdict:
        """Try a generation, other tools' work included, held against nothing.

        Works for whoever may read the environment: scratch is in the system's temporary
        directory. Raises CheckError; SiteswapError (usage) when it is being removed.
        """
        held = lease.hold(self.fs, where.layout)
        if held is None:
            raise SiteswapError(
                Kind.USAGE, f"generation {where.number} is being removed", hint="see siteswap history"
            )
        with held, self.fs.temporary_directory() as scratch:
            return self._run(self._as_it_is(where), gates, options, scratch, command)

    def _as_it_is(self, where: Generation) -> Generation:
        drift = where.drift()
        for note in carry.notes(drift):
            self.progress.note(note)
        manifest = replace(where.manifest, distributions=carry.distributions(where.manifest, drift))
        return Generation(self.fs, where.layout, manifest)

    def _run(
        self, where: Generation, gates: Gates, options: resolve.Options, scratch: Path, command: str
    ) -> Verdict:
        home = scratch / "home"
        self.fs.make_directory(home)
        account = account_for(gates.user, self.fs.access)
        if account is not None:
            self.fs.give(home, account.uid, account.gid)

        def make_overlay(requirements: Sequence[str]) -> Path:
            return overlay.make(
                self.fs, self.cache(), scratch, where.manifest.distributions, where.interpreter,
                where.lock_file(), requirements, options, self.progress, taken=where.files,
            )  # fmt: skip

        terms = Terms((home, *gates.writable), self.fs.access.umask, gates.offline, account, gates.memory)
        with Confinement(terms) as confinement:
            confinement.start()
            alone = Comparison(where, None, ())
            return Trial(
                self.fs, self.layout, alone, gates, confinement, home, make_overlay, command, self.progress
            ).run()
