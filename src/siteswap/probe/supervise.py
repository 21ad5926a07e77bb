"""Start programs one at a time, confined, and leave no process of theirs behind.

Run by siteswap's own interpreter as `python -I -S supervise.py SETUP`. Requests come on stdin, answers go
to stdout, one line of JSON each. When stdin ends (siteswap is done, or was killed) whatever runs is killed.

A check runs in a session of its own, with no write access outside the places named in SETUP (Landlock), with
limits, as another user where that is asked for, and without a network where that is asked for. This process
is the reaper of everything that a check starts, however often it forks: when the check itself has ended, or
has had its time, every descendant is killed before the answer is given.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture

# Landlock's rights that change something; reading and executing stay free.
WRITE_FILE, REMOVE_DIR, REMOVE_FILE = 1 << 1, 1 << 4, 1 << 5
MAKE = sum(1 << bit for bit in range(6, 13))
REFER, TRUNCATE = 1 << 13, 1 << 14  # since the second and the third version
SCOPES = 0b11  # abstract sockets, signals: since the sixth version

DEVICES = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts",
    "/dev/dri", "/dev/kfd", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0",
)  # fmt: skip
"""May be written to, as programs do that mean no harm; nothing may be made there."""
SHARED_MEMORY = "/dev/shm"
"""Where POSIX semaphores and shared memory are: multiprocessing needs it."""

GIVE_UP_SECONDS = 10.0

libc = ctypes.CDLL(None, use_errno=True)


def main():
    setup = json.loads(sys.argv[1])
    for descriptor in setup["streams"]:
        os.set_inheritable(descriptor, False)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1) if setup["landlock"] else 0
    ruleset = make_ruleset(version, setup["writable"]) if version > 0 else None
    say({"landlock": max(version, 0)})
    requests = Requests()
    while (request := requests.next()) is not None:
        say(run(request, setup, ruleset, requests))


def say(answer):
    os.write(1, json.dumps(answer).encode() + b"\n")


class Requests:
    """Lines from stdin; their end is noticed while a check runs."""

    def __init__(self):
        self.buffer = b""
        self.ended = False

    def next(self):
        while b"\n" not in self.buffer:
            if not self.more():
                return None
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def more(self):
        data = os.read(0, 1 << 16)
        self.ended = self.ended or not data
        self.buffer += data
        return bool(data)


def make_ruleset(version, writable):
    """A descriptor of a Landlock ruleset that lets only `writable` be changed; None where there is none."""
    rights = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE
    rights |= (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("=QQQ", rights, 0, SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return None
    for path in (*writable, SHARED_MEMORY):
        allow(ruleset, path, rights)
    for path in DEVICES:
        allow(ruleset, path, WRITE_FILE)
    return ruleset


def allow(ruleset, path, rights):
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there: nothing to be written to
    try:
        if not os.path.isdir(path):
            rights &= WRITE_FILE | TRUNCATE
        libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def run(request, setup, ruleset, requests):
    """Run one check to its end. The answer says how it ended and how many processes it had left behind."""
    told, telling = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        become(request, setup, ruleset, telling)
    os.close(telling)
    problem = b""
    while data := os.read(told, 4096):  # ends when the exec has closed the other end
        problem += data
    os.close(told)
    timed_out = not wait(child, request["timeout"], requests)
    left, status = bury(child)
    if problem:
        return {"problem": problem.decode(errors="replace")}
    return {"status": status, "timed_out": timed_out, "left": left}


def wait(child, seconds, requests):
    """Whether the child ended by itself in time; not when siteswap has gone meanwhile."""
    end = time.monotonic() + seconds
    handle = os.pidfd_open(child)
    watched = select.poll()
    watched.register(handle, select.POLLIN)
    watched.register(0, select.POLLIN)
    try:
        while True:
            remaining = end - time.monotonic()
            ready = dict(watched.poll(min(max(remaining, 0) * 1000, 1e6)))
            if handle in ready:
                return True
            if 0 in ready and not requests.more():
                return False
            if remaining <= 0:
                return False
    finally:
        os.close(handle)


def bury(child):
    """Kill whatever is left of a check and of all that it started: (processes left behind, its exit status).

    Orphans become our children, so there is an end to it when we have none any more. What cannot be killed
    (another user's, a process stuck in the kernel) is given up after a while.
    """
    left, status = set(), None
    end = time.monotonic() + GIVE_UP_SECONDS
    while True:
        alive = children()
        left |= alive
        try:
            os.killpg(child, signal.SIGKILL)  # what forks faster than we look is in the group, mostly
        except OSError:
            pass  # nobody is left in it
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # gone meanwhile, or another user's
        try:
            while True:
                pid, found = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == child:
                    status = os.waitstatus_to_exitcode(found)
        except ChildProcessError:
            return len(left - {child}), status
        if time.monotonic() > end:
            return len(left - {child}), status
        time.sleep(0.0005)


def children():
    """Pids of our children that have not ended."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as stream:
            names = stream.read().split()
    except OSError:
        names = [name for name in os.listdir("/proc") if name.isdigit()]  # a kernel without that file
    found = set()
    for name in names:
        try:
            with open("/proc/" + name + "/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue  # ended while we looked
        if int(fields[1]) == os.getpid() and fields[0] not in (b"Z", b"X"):
            found.add(int(name))
    return found


def become(request, setup, ruleset, telling):
    """Confine this process and become the check. Never returns."""
    try:
        os.setsid()
        for number, descriptor in enumerate(setup["streams"]):
            os.dup2(setup["streams"][1] if number == 2 and request["merge"] else descriptor, number)
        if request["umask"] >= 0:
            os.umask(request["umask"])
        limit(setup["memory"])
        if setup["offline"]:
            leave_network()
        if setup["user"] is not None:
            uid, gid, groups = setup["user"]
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        os.chdir(request["cwd"])
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if ruleset is not None:
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            if libc.syscall(RESTRICT_SELF, ruleset, 0):
                raise OSError(ctypes.get_errno(), "Landlock refuses")
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(request["command"][0], request["command"], request["env"])
    except BaseException as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        where = getattr(error, "filename", None)  # bytes: the last place where the program was looked for
        os.write(telling, (f"{where}: {reason}" if isinstance(where, str) else reason).encode())
    finally:
        os._exit(126)


def limit(memory):
    if memory == 0:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or size < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def leave_network():
    """A network namespace of our own with nothing but the loopback device."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET):
        # Not root: a user namespace in which we are ourselves gives the right to it.
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "checks cannot be cut off the network here (user namespaces)")
        maps = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}
        for name, text in maps.items():
            with open("/proc/self/" + name, "w") as stream:
                stream.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP and IFF_RUNNING
        try:
            fcntl.ioctl(device, 0x8914, up)  # SIOCSIFFLAGS
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise


main()
