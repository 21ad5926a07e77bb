"""The only module that touches the disk: a small port with one real implementation.

Every method says whether its effect is *atomic* (all or nothing to observers)
and whether it is *durable* (survives power loss) when it returns; where it is
not durable, the caller syncs, with `sync_directory` for one entry or with
`barrier` for a whole tree. Errors of the operating system leave as OSError with
the path in them; the command line turns them into exit status 5.

Nothing here follows a symbolic link in the last component of a path that it
writes to, waits for the other end of a pipe that stands where a file should,
or changes a file that has names elsewhere.

Whatever changes the disk ends in one of the elementary operations at the end of
the class, one system call each: an implementation that counts, fails or loses
operations overrides those and nothing else (tests/faulty.py).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from siteswap.archive import ArchiveError, SourceTree, members
from siteswap.errors import Kind, SiteswapError

if TYPE_CHECKING:
    import tarfile

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_COPY_CHUNK = 1 << 20
_DEEPEST = 64
_FICLONE = 0x40049409
_LABELS = ("security.selinux", "security.SMACK64", "security.ima", "security.evm", "trusted.", "system.nfs")
"""Extended attributes that the system gives to new files by itself."""

_Path = str | Path
_Place = int | str | Path
"""A descriptor or a path."""


@dataclass(frozen=True)
class Access:
    """Whose files are made and with which bits: taken from the environment's own directory.

    Group and other get what the environment's directory gives them; the owner
    always has everything; setuid and setgid are never set.
    """

    uid: int
    gid: int
    shared: int
    """Bits of group and other on the environment's directory (at most 0o077)."""

    @property
    def directory(self) -> int:
        """Mode of a directory."""
        return 0o700 | self.shared

    @property
    def umask(self) -> int:
        """The mask with which other programs make files and directories of just these modes."""
        return 0o777 & ~self.directory

    @property
    def staging(self) -> int:
        """Mode of a directory for work in progress: others may not list it, unless the group works there."""
        return self.directory if self.shared & 0o020 else self.directory & ~0o066

    def file(self, executable: bool) -> int:
        """Mode of a file."""
        return 0o700 | self.shared if executable else 0o600 | (self.shared & 0o066)


@dataclass(frozen=True)
class Entry:
    """What lstat says of one path, as far as siteswap asks."""

    kind: str
    """"file", "directory", "link" or "other"."""
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    inode: tuple[int, int]
    """Device and inode number."""


class Lock:
    """A held kernel lock (flock). Released by `release`, by leaving the context, or by the process's end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Give the lock up; harmless when done twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class FileSystem:
    """The real file system."""

    _link_threads = 2

    def __init__(self, access: Access | None = None) -> None:
        """With `access`, what is made here gets that owner and those bits; else the process's own."""
        self._umask = _umask()
        self.access = access or Access(os.geteuid(), os.getegid(), 0o077 & ~self._umask)
        self._owner = _owner(self.access)

    # -- reading ---------------------------------------------------------------------------------

    def read(self, path: Path, *, pipes: bool = False) -> bytes:
        """The content of a file; with `pipes` of whatever the user named, however long it takes."""
        with open(path, "rb") if pipes else self.open(path) as stream:
            return stream.read()

    def read_text(self, path: Path, *, pipes: bool = False) -> str:
        """The content of a file as UTF-8."""
        return self.read(path, pipes=pipes).decode("utf-8")

    def holds(self, path: Path, needle: bytes) -> bool:
        """Whether these bytes are somewhere in a file, of which little is in memory at a time."""
        tail = b""
        with self.open(path) as stream:
            while chunk := stream.read(_COPY_CHUNK):
                if needle in tail + chunk:
                    return True
                tail = chunk[-len(needle) :]
        return False

    def open(self, path: Path) -> BinaryIO:
        """A file opened for reading. Anything but a file is an OSError, at once."""
        return open(path, "rb", opener=_open_file)

    def entry(self, path: Path) -> Entry | None:
        """What is at `path` itself (links not followed), or None when nothing is."""
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _entry(found)

    def is_program(self, path: Path) -> bool:
        """Whether `path` leads to a file that this user may execute."""
        return os.path.isfile(path) and os.access(path, os.X_OK)

    def free(self, path: Path) -> int:
        """Bytes that this user may still write to the file system that holds `path`."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def may_write(self, path: Path) -> bool:
        """Whether this user may make entries in a directory."""
        return os.access(path, os.W_OK)

    def is_directory(self, path: Path) -> bool:
        """Whether `path` itself is a real directory."""
        found = self.entry(path)
        return found is not None and found.kind == "directory"

    def entries(self, path: Path) -> list[tuple[str, str]]:
        """Names and kinds of what is in a directory, sorted; [] when the directory is not there."""
        try:
            with os.scandir(path) as found:
                return sorted((item.name, _kind_of(item)) for item in found)
        except FileNotFoundError:
            return []

    def walk(self, path: Path) -> Iterator[tuple[str, str]]:
        """Relative path and kind of everything below `path`, parents first, links not followed."""
        pending = [""]
        while pending:
            relative = pending.pop()
            for name, kind in self.entries(path / relative):
                inner = f"{relative}/{name}" if relative else name
                yield inner, kind
                if kind == "directory":
                    pending.append(inner)

    def read_link(self, path: Path) -> str | None:
        """What a symbolic link says, or None when `path` is not one."""
        try:
            return os.readlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise

    def resolve(self, path: Path) -> Path:
        """The physical path."""
        return Path(os.path.realpath(path))

    def modification_times(self, root: Path, paths: Iterable[str]) -> list[int | None]:
        """Nanoseconds of each directory below `root`, None where there is no directory."""
        times: list[int | None] = []
        for path in paths:
            try:
                found = os.lstat(f"{root}/{path}" if path else root)
            except (FileNotFoundError, NotADirectoryError):
                times.append(None)
                continue
            times.append(found.st_mtime_ns if stat.S_ISDIR(found.st_mode) else None)
        return times

    def change_times(self, root: Path, paths: Iterable[str]) -> list[tuple[int, int, int] | None]:
        """Inode, mode and modification time (ns) of many files below `root`; None for what is not there.

        Not the change time: linking a file into another generation changes that.
        """
        times: list[tuple[int, int, int] | None] = []
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path in paths:
                try:
                    found = os.stat(path, dir_fd=descriptor, follow_symlinks=False)
                except (FileNotFoundError, NotADirectoryError):
                    times.append(None)
                else:
                    times.append((found.st_ino, found.st_mode, found.st_mtime_ns))
        finally:
            os.close(descriptor)
        return times

    def attributes(self, path: Path) -> list[str]:
        """Names of the extended attributes of a path itself, but for those that the system gives."""
        try:
            return [
                name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith(_LABELS)
            ]
        except OSError:
            return []  # a file system without them, or what is gone by now

    def stamps(self, root: Path, paths: Iterable[str]) -> list[tuple[int, int]]:
        """Inode and change time (ns) of files below `root`: nobody can write to one and keep both."""
        found = (os.lstat(f"{root}/{path}") for path in paths)
        return [(item.st_ino, item.st_ctime_ns) for item in found]

    def age(self, path: Path) -> float:
        """Seconds since something was last made, renamed or exchanged."""
        return (time.time_ns() - os.lstat(path).st_ctime_ns) / 1e9

    def mount_points(self) -> list[Path]:
        """Where file systems are mounted, directories mounted a second time included."""
        with open("/proc/self/mountinfo", "rb") as stream:
            fields = [line.split(b" ")[4] for line in stream]
        octal = re.compile(rb"\\([0-7]{3})")
        return [Path(os.fsdecode(octal.sub(lambda m: bytes([int(m[1], 8)]), path))) for path in fields]

    def has_attributes(self, path: Path) -> bool:
        """Whether a directory has attributes beyond its mode that one made anew would lack."""
        try:
            return any(not name.startswith("security.") for name in os.listxattr(path))
        except OSError:
            return False  # a file system without any

    def free_name(self, directory: Path, stem: str) -> Path:
        """A path in `directory` that nothing uses: pid and time make it ours."""
        return directory / f"{stem}.{os.getpid()}.{time.monotonic_ns()}"

    # -- making ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def temporary_directory(self) -> Iterator[Path]:
        """A directory of ours in the system's place for such, removed at the end of the block.

        Others may pass through it by name, not look into it: what is in it says itself who may read it.
        """
        import tempfile

        path = Path(tempfile.mkdtemp(prefix="siteswap-"))
        self._chmod(path, 0o711)
        try:
            yield path
        finally:
            self.remove_tree(path)

    def directory_until_exit(self) -> Path:
        """A directory of ours alone in the system's place for such, removed when this process ends."""
        import tempfile

        path = Path(tempfile.mkdtemp(prefix="siteswap-"))
        atexit.register(self.remove_tree, path)
        return path

    def make_directory(self, path: Path, *, parents: bool = False, mode: int | None = None) -> None:
        """Make a directory with the owner of `access`, and its mode unless another is given.

        Atomic, not durable; until it has that mode, it is ours alone.
        """
        if parents and not os.path.isdir(path.parent):
            self.make_directory(path.parent, parents=True)
        try:
            self._mkdir(path, 0o700)
        except FileExistsError:
            if not parents or not os.path.isdir(path):
                raise
            return
        self._own(path, self.access.directory if mode is None else mode)

    def publish(self, path: Path) -> None:
        """Give a directory that was made with another mode that of `access`. Not durable."""
        self._chmod(path, self.access.directory)

    def make_directories(self, root: Path, relative: Iterable[str]) -> None:
        """Make directories below `root`, parents listed before children; existing ones are kept.

        Neither atomic nor durable.
        """
        own, mode = self._needs_owner(), self.access.directory
        exact = mode & self._umask == 0
        for path in relative:
            full = f"{root}/{path}"
            try:
                self._mkdir(full, mode)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(full).st_mode):
                    raise
                continue
            if own or not exact:
                self._own(full, mode)

    def write(self, path: Path, content: bytes, *, executable: bool = False, durable: bool = False) -> None:
        """Write a new file, or replace one. Not atomic; durable (file only) on request."""
        with contextlib.suppress(FileNotFoundError):
            # A link or a shared inode at this path must be replaced, never written through.
            self._unlink(path)
        descriptor = self._create(path)
        try:
            with _naming(path):
                self._write(descriptor, content)
                self._own(descriptor, self.access.file(executable))
                if durable:
                    self._fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_stream(self, path: Path, chunks: Iterable[bytes], *, executable: bool = False) -> None:
        """Write a new file piece by piece. Neither atomic nor durable."""
        descriptor = self._create(path)
        try:
            with _naming(path):
                for chunk in chunks:
                    self._write(descriptor, chunk)
                self._own(descriptor, self.access.file(executable))
        finally:
            os.close(descriptor)

    def replace(self, path: Path, content: bytes) -> None:
        """Replace a file's content. Atomic and durable."""
        fresh = self.free_name(path.parent, f".{path.name}")
        try:
            self.write(fresh, content, durable=True)
            self._rename(fresh, path)
        except BaseException:
            with contextlib.suppress(OSError):  # the failure that brought us here is the one to report
                self._unlink(fresh)
            raise
        self.sync_directory(path.parent)

    def append_line(self, path: Path, line: str) -> None:
        """Append one line to a file, made when missing. Durable; a crash may tear the line.

        A line torn by an earlier crash is ended first, so that it cannot spoil this one.
        """
        new = self.entry(path) is None
        descriptor = self._open_or_create(path, os.O_RDWR | os.O_APPEND)
        try:
            found = _require_file(descriptor, path)
            size = found.st_size
            if found.st_nlink > 1:  # the other name may be a copy of the environment, or a file of yours
                self.replace(path, os.pread(descriptor, size, 0) + line.encode() + b"\n")
                return
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            self._write(descriptor, (b"\n" if torn else b"") + line.encode() + b"\n")
            if new:
                self._own(descriptor, self.access.file(False))
            self._fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            self.sync_directory(path.parent)

    def symlink(self, path: Path, target: str) -> None:
        """Make a symbolic link. Atomic, not durable."""
        self._symlink(target, path)
        if self._owner is not None:
            self._chown(path, *self._owner)

    def link_files(
        self,
        source: Path,
        target: Path,
        pairs: Iterable[tuple[str, str]],
        *,
        copy: bool,
        tick: Callable[[int], None],
    ) -> None:
        """Bring files from below `source` to below `target`: (path there, path here) each.

        By hard link, or by copy (reflink where the file system has it) with
        `copy` and where a link is not possible (another file system, too many
        links). Directories must exist. A path that is already there raises
        FileExistsError. Neither atomic nor durable; the caller's `barrier` is
        what makes it last. `tick` is told how many more are done.
        """
        by_directory: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for there, here in pairs:
            there_dir, _, there_name = there.rpartition("/")
            here_dir, _, here_name = here.rpartition("/")
            by_directory.setdefault((there_dir, here_dir), []).append((there_name, here_name))

        def one(item: tuple[tuple[str, str], list[tuple[str, str]]]) -> None:
            (there_dir, here_dir), names = item
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            source_fd = os.open(f"{source}/{there_dir}" if there_dir else source, flags)
            try:
                target_fd = os.open(f"{target}/{here_dir}" if here_dir else target, flags)
                try:
                    with _naming(target / here_dir):
                        for there_name, here_name in names:
                            self._link_one(source_fd, there_name, target_fd, here_name, copy)
                finally:
                    os.close(target_fd)
            finally:
                os.close(source_fd)
            tick(len(names))

        with ThreadPoolExecutor(self._link_threads) as pool:
            for _ in pool.map(one, by_directory.items()):
                pass

    def copy_tree(self, source: Path, target: Path) -> None:
        """Copy a file, link or directory as it is, with the modes of `access`. Neither atomic nor durable."""
        found = self.entry(source)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        if found.kind == "link":
            self.symlink(target, os.readlink(source))
        elif found.kind == "directory":
            self.make_directory(target)
            for name, _ in self.entries(source):
                self.copy_tree(source / name, target / name)
        elif found.kind == "file":
            with self.open(source) as stream:
                self.write_stream(
                    target,
                    iter(lambda: stream.read(_COPY_CHUNK), b""),
                    executable=bool(found.mode & 0o100),
                )
            self._set_time(target, found.mtime_ns)

    def extract(self, archive: Path, target: Path) -> None:
        """Unpack a source archive into a directory of ours; members that would leave it are refused.

        Neither atomic nor durable. Raises SiteswapError (requirement) for what is no safe archive.
        """
        import lzma
        import tarfile
        import zipfile
        import zlib

        try:
            with self.open(archive) as stream:
                if archive.name.endswith(".zip"):
                    members(stream)
                    with zipfile.ZipFile(stream) as opened:
                        opened.extractall(target)
                else:
                    with tarfile.open(fileobj=stream) as tar:
                        tar.extractall(target, _looked_through(tar, stream), filter="data")
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, KeyError, RecursionError,
                OverflowError, OSError, lzma.LZMAError, zlib.error) as error:  # fmt: skip
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the archive's
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"{archive.name} is not a source archive that can be unpacked: {error}",
                hint="name another version, or a wheel",
            ) from error

    # -- changing names --------------------------------------------------------------------------

    def second_name(self, path: Path, other: Path) -> None:
        """Give a file or link another name. Atomic, not durable. Raises OSError where that cannot be."""
        source = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            target = os.open(other.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._link(path.name, other.name, source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def remove_directory(self, path: Path) -> bool:
        """Remove a directory if it is empty; whether it was. Atomic, not durable."""
        return bool(self.remove_empty_directories(path.parent, [path.name]))

    def rename(self, source: Path, target: Path) -> None:
        """Move within one file system, replacing a file or link at `target`. Atomic, not durable."""
        self._rename(source, target)

    def move_directory(self, source: Path, target: Path) -> bool:
        """Like `rename`, of a directory; False, and nothing happened, where it cannot be moved.

        On an overlay file system that is so for directories of lower layers (EXDEV, with `redirect_dir`
        off, as container engines have it).
        """
        try:
            self._rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        return True

    def exchange(self, one: Path, other: Path) -> None:
        """Swap what two paths name. Atomic, not durable. Raises SiteswapError where the kernel cannot."""
        try:
            self._exchange(one, other)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise SiteswapError(
                    Kind.SYSTEM,
                    f"{other} lies in a lower layer of an overlay file system, which cannot move it",
                    hint="make the environment, and remove generations, in the layer where it is made",
                ) from error
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            raise SiteswapError(
                Kind.SYSTEM,
                f"the file system of {one.parent} cannot exchange two names in one step",
                hint="put the environment on a local file system (ext4, xfs, btrfs, tmpfs)",
            ) from error

    # -- removing --------------------------------------------------------------------------------

    def unlink(self, path: Path) -> None:
        """Remove a file or link; nothing happens when it is not there. Atomic, not durable."""
        with contextlib.suppress(FileNotFoundError):
            self._unlink(path)

    def unlink_files(self, root: Path, relative: Iterable[str]) -> None:
        """Remove many files below `root`; missing ones are skipped. Neither atomic nor durable."""
        for path in relative:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._unlink(f"{root}/{path}")

    def remove_empty_directories(self, root: Path, relative: Iterable[str]) -> list[str]:
        """Remove those directories that are empty, in the order given; says which. Not durable."""
        removed = []
        for path in relative:
            try:
                self._rmdir(f"{root}/{path}")
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST, errno.ENOTDIR):
                    raise
                continue
            removed.append(path)
        return removed

    def remove_tree(self, path: Path) -> None:
        """Remove whatever is at `path`, links not followed; nothing happens when it is not there."""
        found = self.entry(path)
        if found is None:
            return
        if found.kind != "directory":
            self.unlink(path)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while self._empty(descriptor, descriptor, 0):
                pass  # what was too deep has been moved up
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            self._rmdir(path)

    # -- durability ------------------------------------------------------------------------------

    def sync_directory(self, path: Path) -> None:
        """Make the entries of a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._fsync(descriptor)
        finally:
            os.close(descriptor)

    def barrier(self, path: Path) -> None:
        """Make everything written so far to the file system that holds `path` durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _naming(path):
                self._syncfs(descriptor)
        finally:
            os.close(descriptor)

    # -- locks -----------------------------------------------------------------------------------

    def lock(self, path: Path, *, shared: bool = False, make: bool = True) -> Lock | None:
        """Take the kernel lock of a file without waiting; None when somebody else holds it.

        Raises SiteswapError (system) where the file system has no locks: siteswap
        never goes on without [I11]. Raises FileNotFoundError without `make`.
        """
        try:
            if make:
                descriptor = self._open_or_create(path, os.O_RDWR)
            else:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except BlockingIOError:
            return None  # somebody asks in this moment whether anybody has it open: `nobody_else_has_open`
        try:
            found = _require_file(descriptor, path)
            if make and found.st_uid == os.geteuid() and found.st_nlink == 1:
                self._own(descriptor, self.access.file(False))
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise SiteswapError(
                    Kind.SYSTEM,
                    f"the file system of {path.parent} has no locks",
                    hint="put the environment on a local file system (ext4, xfs, btrfs, tmpfs)",
                ) from error
            raise
        return Lock(descriptor)

    def lock_directory(self, path: Path) -> Lock | None:
        """Take the kernel lock of a directory itself; None when somebody else holds it.

        Raises FileNotFoundError and NotADirectoryError for what is none, a link to one included;
        SiteswapError (system) where the file system has no locks [I11].
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise SiteswapError(
                Kind.SYSTEM,
                f"the file system of {path} has no locks for directories: {error.strerror}",
                hint="use a directory of a local file system (ext4, xfs, btrfs, tmpfs)",
            ) from error
        return Lock(descriptor)

    def note(self, lock: Lock, text: str) -> None:
        """Write who we are into a locked file, for those who wait. Neither atomic nor durable."""
        if os.fstat(lock.descriptor).st_nlink > 1:
            return
        self._truncate(lock.descriptor)
        self._write(lock.descriptor, text.encode(errors="replace"))

    def nobody_else_has_open(self, lock: Lock) -> bool:
        """Whether no other open file, mapping or descriptor of the locked file exists (F_SETLEASE).

        True also where the file belongs to another user and the kernel does not
        let us ask: the lock itself is the proof, this is its second witness.
        """
        # A process that opens the file in this moment makes the kernel signal us, by default with SIGIO,
        # which would end us; SIGURG is ignored where nobody asks for it.
        fcntl.fcntl(lock.descriptor, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(lock.descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            return error.errno != errno.EAGAIN
        fcntl.fcntl(lock.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True

    def inode(self, lock: Lock) -> tuple[int, int]:
        """Device and inode number of a locked file."""
        found = os.fstat(lock.descriptor)
        return found.st_dev, found.st_ino

    # -- ownership -------------------------------------------------------------------------------

    def give(self, path: Path, uid: int, gid: int) -> None:
        """Give a file or directory of ours to another user; a link is not followed. Not durable."""
        self._chown(path, uid, gid)

    def own_byte_code(self, root: Path, directories: Iterable[str], maker: int | None = None) -> None:
        """Give the byte-code that checks left below `root` to the owner that `access` names.

        `maker` is the user id that the checks ran as, if not ours. A file with other
        names elsewhere is left alone: it is not one that a check just made. Not durable.
        """
        if self._owner is None and maker is None:
            return
        wanted = self._owner or (self.access.uid, self.access.gid)
        makers = {os.geteuid(), maker}
        for directory in directories:
            cache = root / directory / "__pycache__"
            if not self.is_directory(cache):
                continue
            descriptor = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_uid in makers:
                    self._chown(descriptor, *wanted)
                for name in os.listdir(descriptor):
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if found.st_uid in makers and found.st_nlink == 1:
                        self._chown(name, *wanted, dir_fd=descriptor)
            finally:
                os.close(descriptor)

    def _needs_owner(self) -> bool:
        return self._owner is not None

    def _own(self, place: _Place, mode: int) -> None:
        """Give something of ours, by path or descriptor, its owner and mode."""
        if self._owner is not None:
            self._chown(place, *self._owner)
        self._chmod(place, mode)

    def _link_one(self, source_fd: int, source: str, target_fd: int, target: str, copy: bool) -> None:
        if not copy:
            try:
                self._link(source, target, source_fd, target_fd)
            except OSError as error:
                # Another file system; too many links to one inode; a kernel that protects hard links to
                # files of other users. A copy is right in each of these cases, only slower.
                if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES):
                    raise
            else:
                return
        self._copy_one(source_fd, source, target_fd, target)

    def _copy_one(self, source_fd: int, source: str, target_fd: int, target: str) -> None:
        read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)
        try:
            found = os.fstat(read)
            write = self._create(target, dir_fd=target_fd)
            try:
                self._copy_content(read, write)
                self._own(write, self.access.file(bool(found.st_mode & 0o100)))
                self._set_time(write, found.st_mtime_ns)
            finally:
                os.close(write)
        finally:
            os.close(read)

    def _empty(self, descriptor: int, top: int, depth: int) -> bool:
        """Remove everything in an open directory, by descriptor: no renamed parent leads us astray.

        Programs may leave trees deeper than there are descriptors: from some depth on,
        directories are moved to `top` instead. Returns whether there were such.
        """
        moved = False
        if os.fstat(descriptor).st_mode & 0o700 != 0o700:
            self._chmod(descriptor, 0o700)  # a directory without the write bit cannot be emptied
        with os.scandir(descriptor) as entries:
            items = [(item.name, item.is_dir(follow_symlinks=False)) for item in entries]
        for name, is_directory in items:
            try:
                if not is_directory:
                    self._unlink(name, dir_fd=descriptor)
                    continue
                if depth == _DEEPEST:
                    self._chmod(name, 0o700, dir_fd=descriptor)
                    fresh = self.free_name(Path(f"/proc/self/fd/{top}"), "deep")
                    self._rename(f"/proc/self/fd/{descriptor}/{name}", fresh)
                    moved = True
                    continue
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                try:
                    inner = os.open(name, flags, dir_fd=descriptor)
                except PermissionError:  # programs leave such directories behind; nobody runs here any more
                    self._chmod(name, 0o700, dir_fd=descriptor)
                    inner = os.open(name, flags, dir_fd=descriptor)
                try:
                    moved |= self._empty(inner, top, depth + 1)
                finally:
                    os.close(inner)
                self._rmdir(name, dir_fd=descriptor)
            except FileNotFoundError:
                continue  # somebody else clears the same garbage
        return moved

    # -- elementary operations: all that changes the disk, one system call each -------------------

    def _mkdir(self, path: _Path, mode: int) -> None:
        os.mkdir(path, mode)

    def _create(self, path: _Path, *, dir_fd: int | None = None) -> int:
        """A new empty file, open for writing; what is there already is never opened."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o600, dir_fd=dir_fd)

    def _open_or_create(self, path: _Path, flags: int) -> int:
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)

    def _write(self, descriptor: int, content: bytes) -> None:
        """Write all of it, where the descriptor stands."""
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def _copy_content(self, source: int, target: int) -> None:
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            # No reflinks here: the bytes are copied instead.
            offset = 0
            while sent := os.sendfile(target, source, offset, _COPY_CHUNK):
                offset += sent

    def _truncate(self, descriptor: int) -> None:
        os.ftruncate(descriptor, 0)

    def _chmod(self, place: _Place, mode: int, *, dir_fd: int | None = None) -> None:
        if isinstance(place, int):
            os.fchmod(place, mode)
            return
        # By name it would follow a link that somebody puts there meanwhile.
        found = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.chmod(f"/proc/self/fd/{found}", mode)
        finally:
            os.close(found)

    def _chown(self, place: _Place, uid: int, gid: int, *, dir_fd: int | None = None) -> None:
        if isinstance(place, int):
            os.fchown(place, uid, gid)
        else:
            os.chown(place, uid, gid, dir_fd=dir_fd, follow_symlinks=False)

    def _set_time(self, place: _Place, nanoseconds: int) -> None:
        if isinstance(place, int):
            os.utime(place, ns=(nanoseconds, nanoseconds))
        else:
            os.utime(place, ns=(nanoseconds, nanoseconds), follow_symlinks=False)

    def _link(self, source: str, target: str, source_fd: int, target_fd: int) -> None:
        os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)

    def _symlink(self, target: str, path: _Path) -> None:
        os.symlink(target, path)

    def _rename(self, source: _Path, target: _Path) -> None:
        os.rename(source, target)

    def _exchange(self, one: _Path, other: _Path) -> None:
        result = _libc().renameat2(
            _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
        )
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(one))

    def _unlink(self, path: _Path, *, dir_fd: int | None = None) -> None:
        os.unlink(path, dir_fd=dir_fd)

    def _rmdir(self, path: _Path, *, dir_fd: int | None = None) -> None:
        os.rmdir(path, dir_fd=dir_fd)

    def _fsync(self, descriptor: int) -> None:
        """Make a file's content, or a directory's entries, durable."""
        os.fsync(descriptor)

    def _syncfs(self, descriptor: int) -> None:
        """Make everything on that file system durable."""
        if _libc().syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _looked_through(tar: tarfile.TarFile, stream: BinaryIO) -> list[tarfile.TarInfo]:
    """The members of a source archive, once all of it is known to be harmless. Raises ArchiveError."""
    tree, before = SourceTree(os.fstat(stream.fileno()).st_size), -1
    found: list[tarfile.TarInfo] = []
    for member in tar:
        if member.offset <= before or member.size < 0:
            raise ArchiveError("it leads back into itself")  # and `tarfile` would go round for ever
        before = member.offset
        kinds = ((member.isreg(), "file"), (member.isdir(), "directory"), (member.issym(), "link"))
        kind = next((kind for fits, kind in kinds if fits), "hard" if member.islnk() else "other")
        tree.add(member.name, kind, member.size, member.linkname)
        found.append(member)
    tree.finish()
    return found


def access_of(path: Path) -> Access:
    """The access policy that an environment's directory spells."""
    found = os.stat(path)
    return Access(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode) & 0o077)


def _owner(access: Access) -> tuple[int, int] | None:
    """The user and group that what we make must be given to (-1: stays); None where it is right by itself.

    Root gives everything to the environment's owner; a user gives it to the environment's group, if a member.
    """
    if os.geteuid() == 0:
        wanted = (access.uid, access.gid)
        return None if wanted == (0, os.getegid()) else wanted
    if access.gid != os.getegid() and access.gid in os.getgroups():
        return -1, access.gid
    return None


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of calls that work on descriptors say which path they were about."""
    try:
        yield
    except OSError as error:
        if not isinstance(error.filename, str):
            error.filename = str(path)
        elif not os.path.isabs(error.filename):
            error.filename = str(path / error.filename)
        raise


def _open_file(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    try:
        _require_file(descriptor, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_file(descriptor: int, path: _Path) -> os.stat_result:
    """What fstat says of a file. Raises OSError for a directory, a pipe, a socket or a device."""
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return found


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _entry(found: os.stat_result) -> Entry:
    if stat.S_ISLNK(found.st_mode):
        kind = "link"
    elif stat.S_ISDIR(found.st_mode):
        kind = "directory"
    else:
        kind = "file" if stat.S_ISREG(found.st_mode) else "other"
    return Entry(
        kind,
        found.st_size,
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_mtime_ns,
        (found.st_dev, found.st_ino),
    )


def _kind_of(item: os.DirEntry[str]) -> str:
    if item.is_symlink():
        return "link"
    if item.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if item.is_file(follow_symlinks=False) else "other"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
