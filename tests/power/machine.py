"""What of the machine the power cuts need: namespaces, loop devices, file systems; and whether it is there.

Whatever is mounted is mounted in a mount namespace of one program's own, and
its processes live in a PID namespace of which that program is the first: when it
ends, however it does, the kernel ends the others, unmounts and detaches.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
_RECORDER = Path(__file__).with_name("recorder.py")

# linux/loop.h
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_AUTOCLEAR, _LO_DIRECT = 4, 16


@dataclass(frozen=True)
class Kind:
    """A kind of file system."""

    name: str
    megabytes: int
    """Sparse. Large enough: under pressure of space a file system writes early what nobody synced."""
    make: tuple[str, ...]
    options: str
    atomic: int
    """Writes may be torn at multiples of this. ext4 and btrfs rely on 4096: their superblocks have checksums
    and are written in place, and a mount refuses one that is torn."""


KINDS = {
    kind.name: kind
    for kind in (
        # A commit every second, as on a machine where others sync too: more of what is half done is durable.
        Kind("ext4", 256, ("mkfs.ext4", "-q", "-b", "4096", "-J", "size=8"), "nodiscard,commit=1", 4096),
        Kind("xfs", 300, ("mkfs.xfs", "-q", "-K"), "nodiscard,nouuid", 512),
        # One copy of everything: a second one would heal what is to be seen.
        Kind("btrfs", 2048, ("mkfs.btrfs", "-qK", "-msingle", "-dsingle"), "nodiscard,commit=1", 4096),
    )
}


_ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@functools.cache
def lacks(kind: Kind) -> str | None:
    """Why power cannot be cut here under this kind of file system; None when it can.

    Tried with the system's own tools and nothing of ours, whose faults must fail a test, not skip it.
    """
    if os.geteuid() != 0:
        return "only root mounts file systems"
    for tool in ("unshare", "mount", "umount", "sync", kind.make[0]):
        if shutil.which(tool) is None:
            return f"no {tool} here"
    for device in ("/dev/fuse", "/dev/loop-control"):
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError as error:
            return f"{device}: {error.strerror}"
    with workplace() as work:
        image, mount = work / "image", work / "mount"
        make_image(kind, image)
        mount.mkdir()
        command = [
            *_ISOLATED,
            "mount",
            "-t",
            kind.name,
            "-o",
            f"loop,{kind.options}",
            *map(str, (image, mount)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"no {kind.name} on a loop device here: {done.stderr.splitlines()[0]}" if done.returncode else None


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A directory for images, in memory where there is some: they are written often and kept by nobody."""
    memory = Path("/dev/shm")
    spacious = memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30
    with tempfile.TemporaryDirectory(
        prefix="siteswap-power-", dir=memory if spacious else None, ignore_cleanup_errors=True
    ) as path:
        yield Path(path)


def make_image(kind: Kind, path: Path) -> None:
    """An empty file system in a file."""
    with path.open("wb") as stream:
        stream.truncate(kind.megabytes << 20)
    subprocess.run([*kind.make, path], check=True, capture_output=True)


def traces(work: Path) -> list[str]:
    """What of processes, mounts and loop devices has to do with a workplace."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it went while we looked
            found += [f"{path}: {text}" for text in [path.read_text()] if work.name in text]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (process / "cmdline").read_bytes() + (process / "mounts").read_bytes()
            found += [str(process)] * (work.name.encode() in text)
    return found


# -- programs ------------------------------------------------------------------------------------


@contextlib.contextmanager
def recording(image: Path, record: Path, directory: Path) -> Iterator[tuple[int, int]]:
    """Descriptors of a disk that begins as `image` and whose record goes to `record`, and of its marks."""
    directory.mkdir()
    server = subprocess.Popen(
        [sys.executable, _RECORDER, json.dumps([str(directory), str(image), str(record)])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with server, contextlib.ExitStack() as stack:
        assert server.stdin is not None
        assert server.stdout is not None
        stack.callback(server.stdin.close)  # which ends it
        assert server.stdout.readline() == "ready\n", "the recorder does not start"
        inside = Path(f"/proc/{server.pid}/root{directory}")  # what is mounted there is in its namespace only
        disk = os.open(inside / "disk", os.O_RDWR | os.O_DIRECT)
        stack.callback(os.close, disk)
        marks = os.open(inside / "marks", os.O_WRONLY)
        stack.callback(os.close, marks)
        yield disk, marks


class Isolated:
    """A program of ours, `MODULE.main(orders)`, in namespaces of its own; it ends when we do."""

    def __init__(self, module: str, orders: dict[str, Any], pass_fds: Sequence[int] = ()) -> None:
        code = (
            f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
            f"from power import machine\nfrom {module} import main\n"
            "import json; main(json.loads(machine.orders()))"
        )
        self._process = subprocess.Popen(
            [*_ISOLATED, sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            pass_fds=pass_fds, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, whatever it is doing; on return everything in its namespaces is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # which ends the first process in there, and with it all others
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def lines(self) -> Iterator[Any]:
        """What it says, as it comes: one JSON value a line. Raises AssertionError when it fails."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)
        assert self._process.wait() == 0, "an isolated program failed; see its standard error"


# -- inside of an isolated program ---------------------------------------------------------------


def orders() -> str:
    """What we are told to do. From here on we end when whoever started us does."""
    text = sys.stdin.readline()

    def watch() -> None:
        while os.read(0, 4096):  # not through sys.stdin, whose lock the interpreter wants when it ends
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return text


def say(value: Any) -> None:
    """Tell whoever started us."""
    print(json.dumps(value), flush=True)


@contextlib.contextmanager
def mounted(kind: Kind, file: int, where: Path) -> Iterator[None]:
    """The file system in an open file, mounted through a loop device that goes with it.

    A file that is to see every write when it is made must be open with O_DIRECT.
    Raises OSError when the file system cannot be mounted.
    """
    device = _attach(file)
    try:
        options = ",".join(filter(None, ["noatime", kind.options]))
        path = f"/dev/{os.path.basename(os.readlink(f'/proc/self/fd/{device}'))}"
        done = subprocess.run(
            ["mount", "-t", kind.name, "-o", options, path, where],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(device)
    if done.returncode != 0:
        raise OSError(errno.EUCLEAN, f"cannot be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


def write_out(where: Path) -> None:
    """Let a mounted file system write all it has. Not sync(2), which is for all of this machine: a power cut
    that is tested beside us would find written what it is to find lost."""
    subprocess.run(["sync", "--file-system", where], check=True)


def _attach(file: int) -> int:
    """A loop device over an open file, which the kernel detaches when nobody has it open any more."""
    direct = _LO_DIRECT if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT else 0
    # struct loop_config of linux/loop.h, with a struct loop_info64 in it
    info = struct.pack("<5Q4I64s64s32s2Q", *[0] * 8, _LO_AUTOCLEAR | direct, b"", b"", b"", 0, 0)
    with open("/dev/loop-control", "rb") as control:
        for _ in range(100):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, struct.pack("<II", file, 0) + info + bytes(64))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was faster
                    raise
            else:
                return device
    raise OSError(errno.EBUSY, "no free loop device")
