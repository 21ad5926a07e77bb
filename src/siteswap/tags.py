"""Tags: names that the user gives to generations, and that keep them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from siteswap.errors import REPAIR_HINT, Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.layout import Layout, Number


def read(fs: FileSystem, layout: Layout) -> dict[str, Number]:
    """The generations by name. Raises SiteswapError (damaged)."""
    if fs.entry(layout.tags) is None:
        return {}
    try:
        return {name: Number(number) for name, number in json.loads(fs.read(layout.tags)).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise SiteswapError(
            Kind.DAMAGED, f"{layout.tags} cannot be read: {error}", hint=REPAIR_HINT
        ) from error


def require_name(name: str) -> None:
    """Raise SiteswapError (usage) for what cannot be a tag."""
    odd = not name.isprintable() or any(c.isspace() or c == "/" for c in name)
    if not name or name.isdecimal() or odd:
        raise SiteswapError(
            Kind.USAGE,
            f"{name!r} cannot be a tag",
            hint="a tag has no spaces or slashes and is no number",
        )


def replace(
    fs: FileSystem, layout: Layout, after: Mapping[str, Number], before: Mapping[str, Number]
) -> None:
    """Write the tags anew, under the flip lock. Durable on return; on an error they are what they were."""

    def keep(found: Mapping[str, Number]) -> None:
        text = json.dumps(found, indent=1, sort_keys=True) + "\n"
        fs.replace(layout.tags, text.encode())

    try:
        keep(after)
    except OSError:
        # The new ones may stand there, only not for good: a failure that is reported is one [I5].
        if read(fs, layout) != before:
            keep(before)
        raise
