"""What a long command tells while it works. The base class is silent; the command line shows it."""

from __future__ import annotations


class Progress:
    """Receives what happens, possibly from several threads. Every method may be left as it is."""

    def phase(self, name: str, total: int = 0) -> None:
        """A phase begins: resolve, download, unpack, link, check, commit. `total` steps when known."""

    def step(self, count: int = 1) -> None:
        """So many steps of the phase are done."""

    def expect(self, title: str, size: int) -> None:
        """A download begins; `size` in bytes, 0 when unknown."""

    def bytes(self, count: int) -> None:
        """So many more bytes have arrived."""

    def building(self, title: str) -> None:
        """A source is being built to a wheel."""

    def unpacked(self, title: str) -> None:
        """A wheel was unpacked."""

    def checked(self, name: str) -> None:
        """A distribution was tried."""

    def tried(self, check: str, what: str, outcome: str, seconds: float) -> None:
        """A kind of check is done, with its outcome."""

    def waiting(self, holder: str) -> None:
        """Somebody else holds the lock; `holder` says who."""

    def note(self, text: str) -> None:
        """Something that the user should know and need not act on at once."""

    def stop(self) -> None:
        """Nothing more comes before the result is printed."""
