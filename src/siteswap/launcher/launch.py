# What launcher.c does, for where no compiler was: ties the process to a generation, then becomes the base
# interpreter. The text is embedded in GEN/bin/python, a /bin/sh script, which runs it with
#
#     BASE -I -S -c TEXT GEN "$0" "$@"
#
# (embedded, because a file opened by path might belong to another generation by then, or be gone). The order
# of steps, lock -> see that the generation is in place -> exec, is explained in launcher.c, function by
# function under the same names. Standard library only, Python 3.9 or newer; everything is bytes, so that any
# path works.
import errno
import fcntl
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would double the time this takes
    from typing import NoReturn

REFUSED = 126
MISSING = 127
PATIENCE_SECONDS = 10
QUICK_TRIES = 4
LINKS_MAX = 40
HIGH_DESCRIPTOR = 100
DIGITS = b"0123456789"
ELSEWHERE = b"\0"  # below ENV/.siteswap but in no generation: in staging, say (no path holds a NUL)


def die(status: int, *parts: bytes) -> "NoReturn":
    try:
        os.write(2, b"siteswap: " + b"".join(parts) + b"\n")
    except OSError:
        pass  # nobody listens: the exit status says enough
    os._exit(status)


def reason(error: OSError) -> bytes:
    known = {
        errno.ENOENT: b"no such file",
        errno.EACCES: b"permission denied",
        errno.EPERM: b"permission denied",
        errno.ENOEXEC: b"not a program for this machine",
        errno.ENAMETOOLONG: b"the path is too long",
        errno.EMFILE: b"too many open files",
        errno.ENFILE: b"too many open files",
        errno.ENOLCK: b"this file system has no such locks",
        errno.EOPNOTSUPP: b"this file system has no such locks",
        errno.ENOSYS: b"this file system has no such locks",
        errno.ELOOP: b"too many links",
    }
    return known.get(error.errno or 0, b"the system refused")


def is_number(text: bytes) -> bool:
    return bool(text) and not text.strip(DIGITS) and text[:1] != b"0"


def absolute(path: bytes) -> bytes:
    """Raises OSError when the working directory is gone."""
    return path if path[:1] == b"/" else os.getcwdb() + b"/" + path


def same_file(path: bytes, other: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), other)
    except OSError:
        return False


def is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def enters(path: bytes, state: os.stat_result) -> "bytes | None":
    """Where `path` enters this environment: the rest below its generation, ELSEWHERE, or None for outside."""
    return entrance(path, state)[0]


def entrance(path: bytes, state: os.stat_result) -> "tuple[bytes | None, bytes]":
    """The same, with the number of the generation that the path names, b"" for `current`."""
    links = 0
    try:
        todo = absolute(path)
    except OSError:
        return None, b""
    done = b""
    while todo:
        todo = todo.lstrip(b"/")
        part, slash, rest = todo.partition(b"/")
        after = slash + rest
        if part in (b"", b".", b".."):
            if part == b"..":
                done = done.rpartition(b"/")[0]
            todo = after
            continue
        here = done + b"/" + part
        if part == b".siteswap" and same_file(here, state):
            first, _, below = after.lstrip(b"/").partition(b"/")
            if first == b"generations":
                first, _, below = below.partition(b"/")
                return (below.lstrip(b"/"), first) if is_number(first) else (ELSEWHERE, b"")
            return (below.lstrip(b"/") if first == b"current" else ELSEWHERE), b""
        try:
            target = os.readlink(here)
        except OSError as error:
            if error.errno != errno.EINVAL:
                return None, b""
            done, todo = here, after
            continue
        links += 1
        if links > LINKS_MAX:
            return None, b""
        todo = target + after
        if target[:1] == b"/":
            done = b""
    return None, b""


def take(gen: bytes) -> "int | None":
    """One attempt to pin `gen`: the locked descriptor, or None for "start over"."""
    lease = gen + b"/.generation/lease"
    try:
        fd = os.open(lease, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return None
        die(REFUSED, b"cannot open ", lease, b": ", reason(error))
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError as error:
        die(REFUSED, b"cannot lock ", lease, b": ", reason(error))
    # After the lock: whoever wants to move this generation needs the lock first.
    if is_directory(gen) and same_file(lease, os.fstat(fd)):
        return fd
    os.close(fd)
    return None


def find_current(home: bytes) -> bytes:
    link = home + b"/current"
    try:
        target = os.readlink(link)
    except OSError as error:
        die(
            REFUSED,
            b"cannot read ",
            link,
            b": ",
            reason(error),
            b"; next step: make it a link to one of generations/*",
        )
    head, _, number = target.partition(b"/")
    if head != b"generations" or not is_number(number):
        die(REFUSED, link, b" names no generation; next step: make it a link to one of generations/*")
    return home + b"/" + target


def handed_over(home: bytes, environ: "dict[bytes, bytes]") -> "bytes | None":
    """Which generation SITESWAP_GENERATION asks for, when it names one of this environment."""
    parent, slash, number = environ.get(b"SITESWAP_GENERATION", b"").rpartition(b"/")
    if parent[:1] != b"/" or not is_number(number):
        return None
    try:
        if not same_file(parent + slash, os.stat(home + b"/generations/")):
            return None
    except OSError:
        return None
    return home + b"/generations/" + number


def pin(home: bytes, gen: "bytes | None", environ: "dict[bytes, bytes]", asked: bytes) -> "tuple[int, bytes]":
    """Returns the locked descriptor and the generation that it pins.

    `asked` is the number that we were started by, b"" for the logical path.
    """
    wanted = handed_over(home, environ)
    if asked and gen and os.path.basename(gen) != asked:
        gen, asked = None, b""
    gen = wanted or gen
    start = time.monotonic()
    attempt = 0
    while True:
        attempt += 1
        fd = take(gen) if gen else None
        if gen and fd is not None:
            if wanted or asked or find_current(home) == gen:
                return fd, gen
            os.close(fd)
        if wanted and not is_directory(wanted):
            number = os.path.basename(wanted)
            die(REFUSED, b"generation ", number, b", which SITESWAP_GENERATION asks for, was collected: ",
                wanted, b"; next step: siteswap history")  # fmt: skip
        if attempt >= QUICK_TRIES:
            time.sleep(0.002)
        if time.monotonic() - start > PATIENCE_SECONDS:
            die(REFUSED, b"could not pin a generation of ", home, b" for ten seconds, last tried: ",
                gen or b"none", b"; next step: siteswap rollback N")  # fmt: skip
        gen, asked = wanted or find_current(home), b""


def keep_open(fd: int) -> None:
    """The lease stays open across the exec, out of the way of programs that use small numbers at will."""
    for lowest in (HIGH_DESCRIPTOR, 3):
        try:
            os.set_inheritable(fcntl.fcntl(fd, fcntl.F_DUPFD, lowest), True)
        except OSError:
            continue  # the limit on descriptors is below that
        os.close(fd)
        return
    os.set_inheritable(fd, True)


def script_index(args: "list[bytes]") -> "int | None":
    """The index of the script among the arguments. Reads options exactly as CPython's own loop does."""
    index = 0
    while index < len(args):
        option = args[index]
        last = option == b"--"
        if last:
            index += 1
            option = args[index] if index < len(args) else b""
        if option in (b"", b"-"):
            return None
        if last or option[:1] != b"-":
            return index
        for place in range(1, len(option)):
            letter = option[place : place + 1]
            if letter in (b"c", b"m"):
                return None
            if letter in (b"W", b"X"):
                index += place + 1 == len(option)
                break
            if letter == b"-":
                index += option[place + 1 :] == b"check-hash-based-pycs"
                break
        index += 1
    return None


def foreign(invoked: bytes, env: bytes, state: os.stat_result) -> "bytes | None":
    """The path we were invoked by, if it belongs to a virtual environment that was made from this one."""
    try:
        path = absolute(invoked)
    except OSError:
        return None
    directory = path.rpartition(b"/")[0]
    if b"/" not in invoked or enters(directory or b"/", state) is not None:
        return None
    for place in (directory, directory.rpartition(b"/")[0]):
        try:
            theirs = os.stat(place + b"/pyvenv.cfg")
        except OSError:
            continue
        return None if same_file(env + b"/pyvenv.cfg", theirs) else path
    return None


def main() -> None:
    # The kernel's record of our arguments and environment: what sys.argv and os.environ say went through a
    # decoder, and Python may have put LC_CTYPE into the environment meanwhile.
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:-1]
        with open("/proc/self/environ", "rb") as file:
            pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if b"=" in entry)
            environ = {name: value for name, _, value in pairs}
    except OSError as error:
        die(REFUSED, b"cannot read /proc/self (", reason(error), b"); is /proc mounted?")
    own, invoked, *args = words[len(words) - len(sys.argv) + 1 :]

    env = own.rpartition(b"/.siteswap/")[0]
    home = env + b"/.siteswap"
    try:
        state = os.stat(home)
    except OSError as error:
        die(REFUSED, b"cannot find ", home, b": ", reason(error))
    found, asked = entrance(invoked, state)
    fd, gen = pin(home, own, environ, asked)

    inside = found or b""
    name = inside[4:] if inside[:4] == b"bin/" and b"/" not in inside[4:] else b"python"
    program = foreign(invoked, env, state)
    if program is None:
        program = gen + b"/bin/" + name
        if not os.path.exists(program):  # handed over to a generation of another Python version
            program = gen + b"/bin/python"

    index = script_index(args)
    if index is not None:
        rest = enters(args[index], state)
        if rest is not None and rest != ELSEWHERE:
            script = gen + b"/" + rest
            if not rest.endswith(b" (deleted)") or os.path.exists(script):
                args[index] = script

    link = gen + b"/.generation/python"
    try:
        base = os.readlink(link)
    except OSError as error:
        die(REFUSED, b"cannot read ", link, b": ", reason(error), b"; next step: siteswap rollback N")
    keep_open(fd)
    try:
        os.execve(base, [program, *args], environ)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        die(MISSING if missing else REFUSED, b"cannot start the base interpreter ", base, b" of ", gen, b": ",
            reason(error), b"; next step: install that Python again, or siteswap create")  # fmt: skip


if __name__ == "__main__":
    main()
