"""The only module that starts processes.

Everything started here runs in a process group of its own, which is killed as
a whole when the wait ends for any reason, so that no child outlives the command
that started it (an installer's child writing into a candidate, say).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from siteswap.errors import Kind, SiteswapError

Item = TypeVar("Item")
Result = TypeVar("Result")

_running: set[int] = set()
"""Leaders of the process groups that this process is waiting for."""


@dataclass(frozen=True)
class Finished:
    """How a process ended. `status` is negative for a signal, as subprocess has it."""

    status: int
    stdout: str
    stderr: str
    timed_out: bool = False
    left: int = 0
    """How many processes it had left behind; they were killed."""


@dataclass(frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def account(name: str) -> Account:
    """The user of that name or number. Raises SiteswapError (usage) when there is none."""
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as error:
        raise SiteswapError(
            Kind.USAGE, f"there is no user {name!r}", hint="name one of this machine's users"
        ) from error
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(found.pw_name, found.pw_uid, found.pw_gid, tuple(groups))


def owner_account(uid: int, gid: int) -> Account:
    """The user of that number, who need not have a name."""
    try:
        return account(str(uid))
    except SiteswapError:
        return Account(str(uid), uid, gid, (gid,))


_LONGEST_POLL = 2**31 - 1
"""Milliseconds: 24 days. The kernel takes no more, and a setting may be any number."""


def _wait(child: subprocess.Popen[bytes], timeout: float | None) -> None:
    """Wait for its end and no longer: with a timeout, Popen.wait only looks now and then, 50 ms apart.

    Raises subprocess.TimeoutExpired.
    """
    if timeout is not None:
        try:
            descriptor = os.pidfd_open(child.pid)
        except OSError:  # no descriptors left, or a kernel before 5.3
            child.wait(timeout)
            return
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(min(timeout * 1000, _LONGEST_POLL)):
                raise subprocess.TimeoutExpired(child.args, timeout)
        finally:
            os.close(descriptor)
    child.wait()


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
    merge: bool = False,
    umask: int = -1,
) -> Finished:
    """Run `command` to its end and return what it printed.

    `timeout` is in seconds; with `merge` stderr arrives in stdout in order;
    `umask` is the child's, -1 ours.
    Raises SiteswapError (system) when the program cannot be started. On return,
    and on any exception, no process of its group is left.
    """
    argv = [os.fspath(part) for part in command]
    # Output goes to anonymous memory, not to pipes: a descendant that escaped into a session of its
    # own would hold a pipe open, and we would wait for it.
    with _memory("stdin") as source, _memory("stdout") as out, _memory("stderr") as err:
        if stdin is not None:
            source.write(stdin.encode())
            source.seek(0)
        try:
            child = subprocess.Popen(
                argv,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                stdin=source,
                stdout=out,
                stderr=subprocess.STDOUT if merge else err,
                start_new_session=True,
                umask=umask,
            )
        except OSError as error:
            raise SiteswapError(
                Kind.SYSTEM,
                f"cannot run {argv[0]}: {error.strerror}",
                hint="check that it is there and executable",
            ) from error
        timed_out = False
        _running.add(child.pid)
        try:
            _wait(child, timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _kill_group(child.pid)
            child.wait()
            _running.discard(child.pid)
        return Finished(child.returncode, _text(out), _text(err), timed_out)


class Companion:
    """A program of ours that answers requests, a line of JSON each, until its stdin is closed.

    It finds the descriptors of three anonymous files, which it is to use as the
    standard streams of what it starts, in the JSON of its only argument, under
    "streams". One request at a time; `close` may come from another thread and
    ends a request that is under way.
    """

    def __init__(
        self, command: Sequence[str | Path], setup: Mapping[str, Any], streams: Sequence[int] = ()
    ) -> None:
        """With `streams`, three open descriptors of ours, what it starts uses those instead of files.

        Raises SiteswapError (system) when it cannot be started.
        """
        # Copies of given ones: their own numbers are those of the companion's standard streams.
        self._files = (
            [os.fdopen(os.dup(number), "w+b", buffering=0) for number in streams]
            if streams
            else [_memory(name) for name in ("stdin", "stdout", "stderr")]
        )
        self._keeps = not streams
        passed = [file.fileno() for file in self._files]
        argument = json.dumps({**setup, "streams": passed})
        try:
            self._child = subprocess.Popen(
                [*(os.fspath(part) for part in command), argument],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=passed,
                start_new_session=True,
            )
        except OSError as error:
            self._release()
            raise SiteswapError(
                Kind.SYSTEM,
                f"cannot run {command[0]}: {error.strerror}",
                hint="check that it is there and executable",
            ) from error

    def answer(self) -> dict[str, Any] | None:
        """The next answer, or None when the companion has ended."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def ask(self, request: Mapping[str, Any], stdin: str) -> dict[str, Any] | None:
        """Its answer to one request, or None when it has ended.

        `stdin` is what the request's program reads.
        """
        assert self._child.stdin is not None
        for file, content in zip(self._files if self._keeps else (), (stdin, "", ""), strict=False):
            file.seek(0)
            file.truncate()
            file.write(content.encode())
            file.flush()
            file.seek(0)
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except (BrokenPipeError, ValueError):
            return None  # it ended, or was closed by another thread
        return self.answer()

    def output(self) -> tuple[str, str]:
        """What the last request's program wrote to stdout and stderr."""
        return (_text(self._files[1]), _text(self._files[2])) if self._keeps else ("", "")

    def close(self) -> None:
        """Let it kill what it runs, and end. Harmless when repeated."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._child.stdin.close()

    def wait(self) -> None:
        """Close, wait for its end, release everything."""
        self.close()
        self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._release()

    def _release(self) -> None:
        for file in self._files:
            file.close()


def parallel(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    stop: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Results of `work` for each item, in order, from several threads.

    On any exception, one of ours or Ctrl-C, what has not begun is dropped,
    `stop` is called and every process that is running is killed, so that nobody
    waits for them.
    """
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            for pid in list(_running):
                _kill_group(pid)
            raise


@contextlib.contextmanager
def uninterruptible(*, too_late: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold back signals that ask to stop until the block is done: for the few steps of a flip.

    Those that came meanwhile are raised again at its end, unless `too_late` says then
    that what they were to stop is done. By handlers, not by the
    signal mask: another thread (one that shows progress) would take the signal
    instead, and Python runs handlers in the main thread whatever its mask is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only: nothing interrupts this one
        return
    held: list[int] = []
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in asked}
    try:
        for number in asked:
            if before[number] is not None:  # None: not Python's, so nothing of ours runs on it
                signal.signal(number, lambda number, _: held.append(number))
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        for late in held:
            if not too_late():
                signal.raise_signal(late)


_PLACES = ("SITESWAP_CACHE_DIR", "UV_CACHE_DIR", "TMPDIR", "MAIL")
"""Variables that name places of the user who calls, as do those that begin with XDG_."""


def start_over_as(user: Account, words: Sequence[str]) -> None:
    """Replace this process, root's, by siteswap with the arguments `words`, run by a user with a name.

    It has that user's rights, groups, home and caches, and nothing else. Returns
    only by raising SiteswapError (system), and this process is that user's then, too.
    """
    home = pwd.getpwuid(user.uid).pw_dir
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in _PLACES and not name.startswith("XDG_")
    }
    env |= {"HOME": home, "USER": user.name, "LOGNAME": user.name}
    program = str(Path(__file__).with_name("__main__.py"))
    try:
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        if not os.access(home, os.W_OK | os.X_OK):
            env["UV_NO_CACHE"] = "1"
        if os.access(program, os.R_OK):
            os.execve(sys.executable, [sys.executable, "-I", program, *words], env)
        problem = f"{program} may not be read"
    except OSError as error:
        problem = f"{sys.executable}: {error.strerror}"
    raise SiteswapError(
        Kind.SYSTEM,
        f"the environment belongs to {user.name}, who cannot run this siteswap: {problem}",
        hint="install siteswap where every user may read it, or trust that user with SITESWAP_TRUST=ENV",
    )


def become(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Replace this process by `command`, looked up on `env`'s PATH. Returns only by raising.

    Raises SiteswapError (usage) when there is no such program.
    """
    try:
        os.execvpe(command[0], list(command), dict(env))
    except OSError as error:
        raise SiteswapError(
            Kind.USAGE,
            f"cannot run {command[0]}: {error.strerror}",
            hint="name a program of the environment or of PATH",
        ) from error


def _memory(name: str) -> BinaryIO:
    """An anonymous file in memory, closed on exec except where it is handed over."""
    return os.fdopen(os.memfd_create(f"siteswap-{name}", os.MFD_CLOEXEC), "w+b")


def _text(stream: BinaryIO) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _kill_group(pid: int) -> None:
    """Kill the session that `pid` leads; its number stays ours until the group is empty."""
    # Nobody left in the group, or only processes that changed their user: nothing more we can do.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Seen:
    """One process of this machine, as /proc shows it to us."""

    pid: int
    uid: int
    command: str
    """Its command line, words separated by spaces."""
    mentions: str
    """Where it names the path: mapped and open files, program, directory, words, variables."""
    readable: bool
    """Whether we may look at its mappings; not at those of other users' processes, unless root."""


def survey(needle: str, variable: str) -> list[Seen]:
    """Processes (other than this one) that name `needle` anywhere the kernel lets us look.

    `variable` is the environment variable that counts as naming. Processes that
    end while we look are left out.
    """
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            seen = _look(int(name), needle, variable)
            if seen is not None:
                found.append(seen)
    return found


def _look(pid: int, needle: str, variable: str) -> Seen | None:
    home = f"/proc/{pid}"
    parts: list[str] = []
    readable = True
    try:
        uid = os.stat(home).st_uid
        words = _proc_text(f"{home}/cmdline").split("\0")
    except OSError:
        return None
    parts += words
    try:
        maps = _proc_text(f"{home}/maps")
        parts += [line for line in maps.splitlines() if needle in line]
        parts += [
            word for word in _proc_text(f"{home}/environ").split("\0") if word.startswith(f"{variable}=")
        ]
        for link in ("exe", "cwd"):
            parts.append(_proc_link(f"{home}/{link}"))
        for descriptor in os.listdir(f"{home}/fd"):
            parts.append(_proc_link(f"{home}/fd/{descriptor}"))
    except PermissionError:
        readable = False
    except OSError:
        return None
    mentions = "\n".join(part for part in parts if needle in part)
    return Seen(pid, uid, " ".join(words).strip(), mentions, readable) if mentions else None


def _proc_text(path: str) -> str:
    with open(path, "rb") as stream:
        return stream.read().decode(errors="surrogateescape")


def _proc_link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""  # a descriptor that was closed meanwhile, or a kernel thread without a program


def keep_across_exec(descriptor: int, lowest: int) -> None:
    """Give a descriptor a number of at least `lowest` and let programs that we become inherit it."""
    try:
        number = fcntl.fcntl(descriptor, fcntl.F_DUPFD, lowest)
    except OSError:
        number = descriptor  # a limit below that: the low number does as well
    os.set_inheritable(number, True)
