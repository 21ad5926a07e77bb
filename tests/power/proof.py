"""One file that is synced and one that is not: what the record must tell apart.

Run as an isolated program (`machine.Isolated`) this writes them to a recorded
disk, or looks for them on a rebuilt one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from power import machine

CONTENT = bytes(range(256)) * 5000
"""More than one write of any file system."""


def main(orders: Mapping[str, Any]) -> None:
    """Write, or with an `image` look; says what is whole there."""
    kind, where = machine.KINDS[orders["kind"]], Path(orders["mount"])
    if "image" in orders:
        file = os.open(orders["image"], os.O_RDWR | os.O_CLOEXEC)
        with machine.mounted(kind, file, where):
            # Whole ones: a name alone may become durable at any time, with a commit of the file system's own.
            files = [path for path in where.iterdir() if path.is_file()]
            machine.say([path.name for path in files if path.read_bytes() == CONTENT])
        return
    disk, marks = orders["disk"], orders["marks"]
    with machine.mounted(kind, disk, where):
        os.close(disk)
        machine.write_out(where)
        with (where / "synced").open("wb") as stream:
            stream.write(CONTENT)
            stream.flush()
            os.write(marks, b"written")
            os.fsync(stream.fileno())
        os.write(marks, b"synced")
        (where / "only written").write_bytes(CONTENT)
        os.write(marks, b"end")
        machine.say("written")
