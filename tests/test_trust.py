"""Whom siteswap believes, as whom root works, and that no link, pipe or module leads it astray [I10]."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Ran, Siteswap, base_for, can_run, siteswap_for
from siteswap import create as creating
from siteswap import opening
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import Access, FileSystem
from siteswap.layout import Layout
from wheelmaker import wheel

NOBODY = 65534
STRANGER = 54321
"""A user without an entry in /etc/passwd."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users")

FS = FileSystem(Access(os.geteuid(), os.getegid(), 0o055))


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that other users can reach, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="siteswap-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def own(root: Path, user: int) -> None:
    """Give a directory and everything in it to a user."""
    for path in (root, *root.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def refused(done: Ran, *words: str) -> None:
    """Refused by the system, in one line with a next step, with these words in it."""
    assert done.status == 5, f"status {done.status}\n{done.out}\n{done.err}"
    lines = done.err.splitlines()
    assert len(lines) == 2, done.err
    assert lines[0].startswith("siteswap: ")
    assert lines[1].startswith("  → ")
    for word in words:
        assert word in done.err


def state(root: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Owner, mode, size and content of everything below a directory that is not siteswap's."""
    found = {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_uid, status.st_gid, status.st_mode, status.st_nlink, content)
    return found


class Others:
    """Runs siteswap from a place that every user can read."""

    def __init__(self, public: Path) -> None:
        self.public = public
        self.program = siteswap_for(STRANGER, public)

    def run(self, *words: str | Path, user: int = 0, cwd: Path | None = None, **env: Any) -> Ran:
        """As a user, root if nothing else is said."""
        home = "/nonexistent" if user else str(self.public / "root")
        known = {"PATH": os.defpath, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [self.program, "-m", "siteswap", *map(str, words)], user=user, group=user, extra_groups=[],
            cwd=cwd or self.public, env={**known, **env}, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def run_all(self, commands: list[list[str]], user: int) -> list[Ran]:
        """Several, in one process."""
        code = f"""
import contextlib, io, json
from siteswap.cli import main
found = []
for words in {commands!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(words)
    found.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""
        done = subprocess.run(
            [self.program, "-I", "-c", code], user=user, group=user, extra_groups=[], cwd="/",
            env={"HOME": "/nonexistent"}, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        return [Ran(*row) for row in json.loads(done.stdout)]

    def environment(self, user: int, where: Path | None = None) -> Path:
        """A new one that belongs to a user."""
        env = where or self.public / "env"
        self.run("create", env, "--python", base_for(user)).ok()
        own(env, user)
        return env


@pytest.fixture
def others(public: Path) -> Others:
    if os.geteuid() != 0:
        pytest.skip("only root can act as several users")
    return Others(public)


# -- an environment that somebody planted ---------------------------------------------------------------

EVERYTHING = (
    ("list",), ("show", "x"), ("export",), ("history",), ("diff",), ("rollback",), ("tag",),
    ("tag", "1", "x"), ("check",), ("log",), ("run", "--", "true"),
    ("run", "--generation", "1", "--", "true"), ("ps",), ("gc",), ("doctor",), ("doctor", "--repair"),
    ("install", "--no-index", "x"), ("uninstall", "x"), ("sync", "/dev/null"),
)  # fmt: skip


def test_nothing_of_a_planted_environment_is_believed(others: Others) -> None:
    """Every command refuses an environment of another user before it reads or runs anything in it."""
    shared = others.public / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    env = others.environment(STRANGER, shared / ".venv")
    told = others.public / "told"
    told.mkdir()
    told.chmod(0o777)
    (env / "siteswap.toml").write_text(f'[checks.x]\ncommand = "touch {told}/gate"\n')
    python = env / ".siteswap/generations/1/bin/python"
    python.unlink()
    python.write_text(f"#!/bin/sh\ntouch {told}/python\n")
    python.chmod(0o755)
    (env / ".siteswap/format").unlink()
    os.mkfifo(env / ".siteswap/format")
    own(env, STRANGER)
    words = [[verb, "-e", str(env), *rest] for verb, *rest in EVERYTHING]
    for done in others.run_all(words, NOBODY):
        refused(
            done, f"{env} is not trusted: {env} belongs to user {STRANGER}", f"SITESWAP_TRUST={env} siteswap"
        )
    refused(others.run("list", user=NOBODY, cwd=shared), "is not trusted")
    refused(others.run("list", user=NOBODY, VIRTUAL_ENV=str(env)), "is not trusted")
    assert list(told.iterdir()) == []


@needs_root
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda env: os.chown(env, NOBODY, NOBODY), "env belongs to nobody"),
        (lambda env: os.chown(env / ".siteswap", NOBODY, NOBODY), "env/.siteswap belongs to nobody"),
        (lambda env: os.chown(env.parent, NOBODY, NOBODY), "inner belongs to nobody"),
        (lambda env: os.chown(env.parent.parent, STRANGER, 0), f"outer belongs to user {STRANGER}"),
        (lambda env: env.chmod(0o777), "/env may be changed by everybody"),
        (lambda env: env.chmod(0o1777), "/env may be changed by everybody"),
        (lambda env: (env / ".siteswap").chmod(0o777), "env/.siteswap may be changed by everybody"),
        (lambda env: env.parent.parent.chmod(0o777), "outer may be changed by everybody"),
        (lambda env: linked(env / ".siteswap"), "env/.siteswap is no directory"),
    ],
)  # fmt: skip
def test_who_can_change_it_or_put_another_in_its_place(
    spoil: Callable[[Path], Any], why: str, public: Path
) -> None:
    """It, its own directory in it and all that it lies in must belong to us or to root."""
    env = public / "outer/inner/env"
    layout = creating.create(env, python=None, system_site_packages=False, command="")
    assert opening.find(env) == layout
    spoil(env)
    with pytest.raises(SiteswapError) as caught:
        opening.find(env)
    assert caught.value.kind is Kind.SYSTEM
    assert caught.value.message.startswith(f"{env} is not trusted: ")
    assert caught.value.message.endswith(why)


def linked(path: Path) -> None:
    """Put a link to a directory in its place."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@needs_root
@pytest.mark.parametrize(
    "change",
    [
        lambda env: env.parent.chmod(0o1777),  # each can rename only what is theirs
        lambda env: env.parent.chmod(0o2775),  # its owner gave the group that right
        lambda env: env.chmod(0o2775),
    ],
)
def test_directories_that_are_shared_on_purpose(change: Callable[[Path], Any], public: Path) -> None:
    """A directory like /tmp, and one that a group may write to, say nothing against what is in it."""
    layout = creating.create(public / "inner/env", python=None, system_site_packages=False, command="")
    change(layout.root)
    assert opening.find(layout.root) == layout


@needs_root
@pytest.mark.parametrize(
    ("named", "trusted"),
    [
        ("{env}", True),
        ("{env}/", True),
        ("/nowhere::{env}", True),
        ("{parent}", True),
        ("/", True),
        ("env", True),  # from the working directory, as anything
        ("{env}x", False),
        ("{env}/bin", False),
        ("", False),
        ("*", False),
    ],
)
def test_an_environment_is_trusted_by_its_name(
    named: str, trusted: bool, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SITESWAP_TRUST names environments, or directories that they lie in."""
    env = public / "env"
    layout = creating.create(env, python=None, system_site_packages=False, command="")
    os.chown(env, NOBODY, NOBODY)
    monkeypatch.chdir(public)
    monkeypatch.setenv("SITESWAP_TRUST", named.format(env=env, parent=public))
    with contextlib.nullcontext() if trusted else pytest.raises(SiteswapError, match="not trusted"):
        assert opening.find(env) == layout


def test_a_trusted_environment_is_like_ones_own(others: Others) -> None:
    """Who says that they trust it reads it, and has its gates run."""
    env = others.environment(STRANGER)
    (env / "siteswap.toml").write_text('[checks.x]\ncommand = "echo told; false"\n')
    own(env, STRANGER)
    trust: dict[str, Any] = {"SITESWAP_TRUST": str(env), "SITESWAP_CACHE_DIR": ""}
    assert others.run("list", "-e", env, "--json", user=NOBODY, **trust).json == []
    assert others.run("check", "-e", env, user=NOBODY, **trust).status == 1


def test_nothing_is_made_where_others_could_replace_it(others: Others) -> None:
    """`create` asks the same of the place as any command of the environment."""
    theirs = others.public / "theirs"
    theirs.mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    theirs.chmod(0o777)
    words = ("create", theirs / "deep/env", "--python", base_for(NOBODY))
    refused(others.run(*words, user=NOBODY), f"{theirs} belongs to user {STRANGER}")
    refused(others.run(*words), f"{theirs} belongs to user {STRANGER}")
    assert list(theirs.iterdir()) == []


def test_a_cache_that_others_could_exchange(others: Others, wheels: Path) -> None:
    """A cache in somebody else's directory is refused if named; else one is used that passes."""
    home = others.public / "home"
    (home / ".cache").mkdir(parents=True)
    own(home, NOBODY)
    before = state(home)
    env = others.environment(0)
    found = shutil.copy(wheel(wheels, "tool"), others.public)
    words = ("install", "-e", env, "--no-index", found)
    done = others.run(*words, SITESWAP_CACHE_DIR=str(home / "cache"))
    refused(done, "could be exchanged by others", f"{home} belongs to nobody")
    temporary = others.public / "tmp"
    temporary.mkdir()
    others.run(*words, HOME=str(home), TMPDIR=str(temporary), UV_NO_CACHE="1").ok()
    assert state(home) == before
    assert list(temporary.iterdir()) == []


# -- root in an environment of somebody else's ----------------------------------------------------------


def test_root_becomes_the_owner(others: Others, wheels: Path) -> None:
    """What root does in a user's environment that user does: with their rights, groups, home and caches."""
    env = others.environment(NOBODY)
    found = shutil.copy(wheel(wheels, "tool"), others.public)
    before = {path.name for path in Path(tempfile.gettempdir()).glob("siteswap-*")}
    foreign: dict[str, Any] = {
        name: str(others.public / name) for name in ("SITESWAP_CACHE_DIR", "UV_CACHE_DIR", "XDG_X")
    }
    others.run("install", "-e", env, "--no-index", found, HOME="/root", **foreign).ok()
    assert {path.lstat().st_uid for path in (env, *env.rglob("*"))} == {NOBODY}
    assert {path.name for path in Path(tempfile.gettempdir()).glob("siteswap-*")} <= before, "a cache is left"
    assert not [path for path in foreign.values() if Path(path).exists()], "root's caches are not that user's"
    shown = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), dict(os.environ))"
    done = others.run(
        "run", "-e", env, "--", "python", "-c", shown, HOME="/root", USER="root", **foreign
    ).ok()
    assert done.out.startswith(f"{(NOBODY,) * 3} {(NOBODY,) * 3} [{NOBODY}] ")
    assert "'HOME': '/nonexistent'" in done.out
    assert "'USER': 'nobody'" in done.out
    assert "SITESWAP_CACHE_DIR" not in done.out
    (others.public / "secret.txt").write_text("tool\n")
    (others.public / "secret.txt").chmod(0o600)
    done = others.run("install", "-e", env, "-r", others.public / "secret.txt")
    assert done.status == 2
    assert "Permission denied" in done.err


def test_root_makes_an_environment_for_who_owns_the_place(others: Others) -> None:
    """In somebody's own directory `create` works as that user too."""
    home = others.public / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    others.run("create", home / "env", "--python", base_for(NOBODY)).ok()
    assert {path.lstat().st_uid for path in (home / "env").rglob("*")} == {NOBODY}


@pytest.mark.parametrize("name", ["staging", "log", "generations", "history", "writer"])
def test_links_do_not_lead_root_out(name: str, others: Others, wheels: Path) -> None:
    """An owner who puts links into the environment has root change nothing that is not the owner's."""
    env = others.environment(NOBODY)
    outside = others.public / "outside"
    (outside / "1/inner").mkdir(parents=True)
    (outside / "1/inner/file").write_text("root's\n")
    (outside / "file").write_text("root's\n")
    inside = env / ".siteswap" / name
    if inside.is_dir():
        inside.rename(others.public / "aside")
    inside.unlink(missing_ok=True)
    inside.symlink_to(outside / "file" if name in ("history", "writer") else outside)
    own(env, NOBODY)
    found = shutil.copy(wheel(wheels, "tool"), others.public)
    before = state(outside)
    for words in (("install", "--no-index", found), ("tag", "1", "x"), ("gc", "--keep", "0")):
        others.run(words[0], "-e", env, *words[1:])
        assert state(outside) == before, words


def test_an_owner_who_swaps_directories_meanwhile_gains_nothing(others: Others, wheels: Path) -> None:
    """Directories that become links and back, as fast as can be, do not lead root out either."""
    env = others.environment(NOBODY)
    outside = others.public / "outside"
    (outside / "deep/inner").mkdir(parents=True)
    (outside / "deep/inner/file").write_text("root's\n")
    (outside / "file").write_text("root's\n")
    before = state(outside)
    swap = f"""
import os, time
os.chdir({str(env / ".siteswap")!r})
print("ready", flush=True)
while True:
    for name in ("staging", "log"):
        try:
            os.rename(name, name + ".real")
            os.symlink({str(outside)!r}, name)
            time.sleep(0.001)
            os.unlink(name)
            os.rename(name + ".real", name)
        except OSError:
            pass
    time.sleep(0.002)
"""
    found = shutil.copy(wheel(wheels, "tool"), others.public)
    swapping = subprocess.Popen(
        [others.program, "-c", swap], user=NOBODY, group=NOBODY, extra_groups=[], stdout=subprocess.PIPE
    )
    with swapping:
        assert swapping.stdout is not None
        assert swapping.stdout.readline() == b"ready\n"
        try:
            for words in (("install", "--no-index", found), ("check",), ("gc", "--keep", "0")):
                others.run(words[0], "-e", env, *words[1:])
                assert state(outside) == before
        finally:
            swapping.kill()


def test_root_says_so_where_the_owner_cannot_run_it(others: Others) -> None:
    """A siteswap in root's own home cannot be handed over; that is an error, unless root trusts the owner."""
    if can_run(Path(sys.executable), NOBODY):
        pytest.skip("everybody can run this one")
    env = others.environment(NOBODY)

    def run(**variables: str) -> Ran:
        words = [sys.executable, "-m", "siteswap", "list", "-e", str(env)]
        done = subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, **variables}, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    refused(run(), "belongs to nobody, who cannot run this siteswap", "SITESWAP_TRUST=ENV")
    run(SITESWAP_TRUST=str(env)).ok()


def test_root_does_not_guess_who_a_number_is(others: Others) -> None:
    """An owner whose groups nobody knows is not somebody to become."""
    env = others.environment(STRANGER)
    refused(others.run("list", "-e", env), f"env belongs to user {STRANGER}")
    assert others.run("list", "-e", env, "--json", SITESWAP_TRUST=str(env)).json == []


# -- names that others could use first ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "directory", "link", "pipe"])
@pytest.mark.parametrize("name", ["creating", "creating_lock"])
def test_what_others_put_at_the_names_of_making(name: str, kind: str, others: Others) -> None:
    """Where everybody may write, what lies at our names is neither taken, waited for nor emptied."""
    shared = others.public / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    victim = others.public / "victim"
    (victim / "inner").mkdir(parents=True)
    (victim / "file").write_text("precious\n")
    planted: Path = getattr(Layout(shared / "env"), name)
    if kind == "file":
        planted.write_text("x")
        planted.chmod(0o666)
    elif kind == "directory":
        (planted / "inner").mkdir(parents=True)
        planted.chmod(0o777)
    elif kind == "link":
        planted.symlink_to(victim / "file" if name == "creating_lock" else victim)
    else:
        os.mkfifo(planted, 0o666)
    own(planted, STRANGER) if kind != "link" else os.chown(planted, STRANGER, STRANGER, follow_symlinks=False)
    before, theirs = state(victim), planted.lstat()
    refused(others.run("create", shared / "env"), f"{planted} is in the way, and belongs to user {STRANGER}")
    assert state(victim) == before
    assert planted.lstat().st_mtime_ns == theirs.st_mtime_ns
    assert {path.name for path in shared.iterdir()} == {planted.name}


def test_recovery_leaves_what_others_put_beside_it(others: Others) -> None:
    """What `create` may have left beside an environment is removed only where it is the owner's."""
    shared = others.public / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    env = shared / "env"
    others.run("create", env).ok()
    layout = Layout(env)
    (layout.creating / "inner").mkdir(parents=True)
    layout.creating_lock.touch()
    own(layout.creating, STRANGER)
    os.chown(layout.creating_lock, STRANGER, STRANGER)
    others.run("gc", "-e", env).ok()
    assert (layout.creating / "inner").is_dir()
    os.chown(layout.creating_lock, 0, 0)
    others.run("gc", "-e", env).ok()
    assert not layout.creating_lock.exists()


def test_an_environment_is_private_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it stands at its name nobody else can enter it; staging can never be listed by others."""
    seen: list[int] = []
    make = creating._make

    def look(fs: FileSystem, making: Layout, *rest: Any) -> None:
        make(fs, making, *rest)
        seen.append(stat.S_IMODE(making.root.stat().st_mode))

    monkeypatch.setattr(creating, "_make", look)
    for shared, staging in ((0o055, 0o711), (0o075, 0o775), (0o050, 0o710), (0, 0o700)):
        fs = FileSystem(Access(os.geteuid(), os.getegid(), shared))
        where = tmp_path / f"env{shared:o}"
        layout = creating.create(where, python=None, system_site_packages=False, command="", fs=fs)
        assert seen.pop() == 0o700
        assert stat.S_IMODE(layout.root.stat().st_mode) == 0o700 | shared
        assert stat.S_IMODE(layout.staging.stat().st_mode) == staging


# -- links, pipes and second names in the place of files ------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["format", "history", "tags", "writer", "lock", "siteswap.toml", "manifest.json", "pylock.toml", "lease"],
)
def test_a_pipe_in_the_place_of_a_file_is_an_error(name: str, env: Path, siteswap: Siteswap) -> None:
    """Nobody waits for the other end of a pipe."""
    corner = env / ".siteswap/generations/1/.generation"
    path = {"siteswap.toml": env}.get(name, corner if (corner / name).exists() else env / ".siteswap") / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    words = {"siteswap.toml": "check", "lease": "check", "pylock.toml": "export", "writer": "gc"}
    verb = {**words, "lock": "gc"}.get(name, "history")
    done = siteswap(verb, "-e", env, timeout=20)
    if name == "siteswap.toml":
        done.ok()  # only a file is one with settings
    else:
        assert done.status in (4, 5), done.err
        assert "Traceback" not in done.err
        assert "BUG" not in done.err


@pytest.mark.parametrize("planted", ["pipe", "link", "directory", "socket"])
def test_the_port_opens_only_files(planted: str, tmp_path: Path) -> None:
    """What stands where a file should be and is none is an error for each way to open it, at once."""
    path, victim = tmp_path / "x", tmp_path / "victim"
    victim.write_text("precious\n")
    if planted == "pipe":
        os.mkfifo(path)
    elif planted == "link":
        path.symlink_to(victim)
    elif planted == "directory":
        path.mkdir()
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    calls: list[Callable[[], object]] = [
        lambda: FS.lock(path), lambda: FS.lock(path, make=False), lambda: FS.append_line(path, "more"),
        lambda: FS.write_stream(path, [b"more"]),
    ]  # fmt: skip
    if planted != "link":
        calls += [lambda: FS.read(path), lambda: FS.open(path)]
    before = state(tmp_path)
    for call in calls:
        with pytest.raises(OSError) as caught:  # noqa: PT011  the path is what counts
            call()
        assert caught.value.filename == str(path)
    assert state(tmp_path) == before
    if planted != "directory":
        FS.write(path, b"ours")
        assert stat.S_ISREG(path.lstat().st_mode)
    assert victim.read_text() == "precious\n"


def test_a_lease_that_a_collector_looks_at_is_busy(tmp_path: Path) -> None:
    """The moment in which a collector asks who has the file open is no error, and not waited for."""
    path = tmp_path / "lease"
    path.touch()
    with path.open("r+b") as stream:
        fcntl.fcntl(stream, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert FS.lock(path, shared=True, make=False) is None
        fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    lock = FS.lock(path, shared=True, make=False)
    assert lock is not None
    lock.release()


def test_a_file_with_another_name_is_not_changed(tmp_path: Path) -> None:
    """A hard link in the place of a lock, a history or any file leaves what it was made of alone."""
    victim, path = tmp_path / "victim", tmp_path / "x"
    for act in ("lock", "append", "write", "replace"):
        victim.write_text("precious\n")
        victim.chmod(0o640)
        path.unlink(missing_ok=True)
        os.link(victim, path)
        if act == "lock":
            lock = FS.lock(path)
            assert lock is not None
            with lock:
                FS.note(lock, "PID 1")
                assert FS.lock(path) is None
        elif act == "append":
            FS.append_line(path, "more")
            assert path.read_text() == "precious\nmore\n"
        else:
            getattr(FS, act)(path, b"new")
            assert path.read_bytes() == b"new"
        assert victim.read_text() == "precious\n"
        assert stat.S_IMODE(victim.stat().st_mode) == 0o640, act


class Swapping(FileSystem):
    """Right after a name has been made or before it is changed, somebody puts a link to `victim` there."""

    victim: Path
    aside: Path

    def _mkdir(self, path: Any, mode: int) -> None:
        super()._mkdir(path, mode)
        os.rename(path, self.aside)
        os.symlink(self.victim, path)

    def _chmod(self, place: Any, mode: int, *, dir_fd: int | None = None) -> None:
        if not isinstance(place, int) and not os.path.islink(place):
            os.rename(place, self.aside, src_dir_fd=dir_fd)
            os.symlink(self.victim, place, dir_fd=dir_fd)
        super()._chmod(place, mode, dir_fd=dir_fd)

    def _set_time(self, place: Any, nanoseconds: int) -> None:
        if not isinstance(place, int):
            os.rename(place, self.aside)
            os.symlink(self.victim, place)
        super()._set_time(place, nanoseconds)


def test_modes_and_times_are_not_set_through_links(tmp_path: Path) -> None:
    """A name that becomes a link between two steps leads no change of modes or times to what it names."""
    victim = tmp_path / "victim"
    victim.mkdir()
    victim.chmod(0o751)
    os.utime(victim, ns=(1, 1))
    fs = Swapping(Access(os.geteuid(), os.getegid(), 0o055))
    fs.victim, fs.aside = victim, tmp_path / "aside"
    deep = tmp_path / "deep"
    Path(deep, *["d"] * 70).mkdir(parents=True)
    (tmp_path / "file").touch()
    acts: tuple[Callable[[], object], ...] = (
        lambda: fs.make_directory(tmp_path / "one"),
        lambda: fs.make_directories(tmp_path, ["two"]),
        lambda: fs.publish(deep),
        lambda: fs.copy_tree(tmp_path / "file", tmp_path / "copy"),
    )
    for act in acts:
        with contextlib.suppress(OSError):
            act()
        with contextlib.suppress(OSError):
            shutil.rmtree(fs.aside) if fs.aside.is_dir() else fs.aside.unlink()
        found = victim.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o751, 1)


def test_trees_are_removed_without_following_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that becomes a link in the moment before it is entered is not entered."""
    victim = tmp_path / "victim"
    (victim / "inner").mkdir(parents=True)
    (victim / "file").write_text("precious\n")
    before = state(victim)
    really, done = os.open, list[bool]()
    for target in ("top", "inner"):
        top = tmp_path / "top"
        (top / "inner").mkdir(parents=True)
        done.clear()

        def swap(path: Any, flags: int, *rest: Any, target: str = target, **more: Any) -> int:
            if os.path.basename(path) == target and flags & os.O_DIRECTORY and not done:
                done.append(True)
                where = tmp_path / "top/inner" if target == "inner" else tmp_path / "top"
                where.rename(tmp_path / f"aside-{target}")
                where.symlink_to(victim)
            return really(path, flags, *rest, **more)

        monkeypatch.setattr(os, "open", swap)
        with contextlib.suppress(OSError):
            FS.remove_tree(top)
        monkeypatch.undo()
        assert done
        assert state(victim) == before
        FS.remove_tree(top)
        assert state(victim) == before


# -- what siteswap itself imports -----------------------------------------------------------------------

PLANTED = (
    "__future__", "argparse", "collections", "contextlib", "enum", "installer", "json", "packaging",
    "pathlib", "platformdirs", "re", "requests", "rich", "signal", "subprocess", "tomllib", "types", "typing",
    "uv", "zipfile",
)  # fmt: skip
STARTING = ("collections", "contextlib", "enum", "re", "types")
"""What Python's own `-m` imports in some version, before the package that it is to run."""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A directory with modules by the names of what siteswap imports; each tells when it is imported."""
    directory = tmp_path / "planted"
    directory.mkdir()
    where = str(tmp_path / "told")
    told = f"import sys\nopen({where!r}, 'a').write(f'{{__name__}} {{sys.flags.isolated}}\\n')\n"
    for name in PLANTED:
        (directory / f"{name}.py").write_text(f"{told}raise SystemExit('hijacked by {name}')\n")
    for name in ("sitecustomize", "usercustomize"):
        (directory / f"{name}.py").write_text(told)
    return directory


def told(tmp_path: Path) -> list[str]:
    """What was imported: the module, and "1" where that interpreter was isolated."""
    path = tmp_path / "told"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program as installers make it: a script that imports the entry point."""
    path = tmp_path / "bin/siteswap"
    path.parent.mkdir()
    path.write_text("import sys\nfrom siteswap.__main__ import run\nsys.exit(run())\n")
    return path


def test_the_program_is_the_isolated_one() -> None:
    """What is installed as `siteswap` goes through the start that leaves the rest out."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"siteswap": "siteswap.__main__:run"}


def run_program(program: Path, *words: str | Path, cwd: Path, **variables: str) -> Ran:
    """Run a script by this interpreter."""
    done = subprocess.run(
        [sys.executable, program, *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False,
        env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def test_modules_in_the_working_directory_are_not_imported(
    planted: Path, program: Path, env: Path, wheels: Path, tmp_path: Path, siteswap: Siteswap
) -> None:
    """Neither by siteswap, nor by what it starts: uv, interpreters, supervisors, builds."""
    wheel(wheels, "tool")
    words = ("install", "-e", env, "--no-index", "--find-links", wheels, "tool", "--check", "true")
    run_program(program, *words, cwd=planted).ok()
    run_program(program, "create", tmp_path / "other", "--python", sys.executable, cwd=planted).ok()
    assert told(tmp_path) == []
    for name in STARTING:
        (planted / f"{name}.py").unlink()
    assert siteswap("list", "-e", env, "--json", cwd=planted).json[0]["name"] == "tool"
    assert told(tmp_path) == [], "nor with python -m, once it has found the package"


@pytest.mark.parametrize("beside", [False, True])
def test_modules_beside_the_program_are_not_imported(
    beside: bool, planted: Path, program: Path, env: Path, wheels: Path, tmp_path: Path
) -> None:
    """Nor from the directory of the program, nor with PYTHONPATH and its like."""
    if beside:
        for path in planted.iterdir():
            shutil.copy(path, program.parent)
        run_program(program, "list", "-e", env, cwd=tmp_path).ok()
        assert told(tmp_path) == []
        return
    variables = {"PYTHONPATH": str(planted), "PYTHONSTARTUP": str(planted / "json.py"), "PYTHONINSPECT": ""}
    for name in PLANTED:  # first without what ends Python's own start, before anything of siteswap
        (planted / f"{name}.py").rename(tmp_path / f"{name}.aside")
    assert run_program(program, "list", "-e", env, "--json", cwd=tmp_path, **variables).json == []
    assert set(told(tmp_path)) <= {"sitecustomize 0", "usercustomize 0"}
    for name in set(PLANTED) - set(STARTING):
        (tmp_path / f"{name}.aside").rename(planted / f"{name}.py")
    wheel(wheels, "tool")
    words = ("install", "-e", env, "--no-index", "--find-links", wheels, "tool", "--check", "true")
    run_program(program, *words, cwd=tmp_path, **variables).ok()
    assert set(told(tmp_path)) <= {"sitecustomize 0", "usercustomize 0"}
    (tmp_path / "told").unlink(missing_ok=True)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    run_program(program, "create", "other", "--python", version, cwd=tmp_path, **variables)
    assert len(told(tmp_path)) <= 2, "what looks for interpreters starts them isolated"


def test_the_users_own_site_directory_is_left_out(
    planted: Path, env: Path, tmp_path: Path, siteswap: Siteswap
) -> None:
    """Where Python takes it in, siteswap starts over without."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    prefix, home = tmp_path / "venv", tmp_path / "home"
    library = prefix / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    library.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin/python").symlink_to(base)
    (prefix / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = true\n")
    packages = [entry for entry in sys.path if entry.endswith("-packages")]
    packages += [str(Path(opening.__file__).parent.parent)]
    (library / "siteswap.pth").write_text("\n".join(packages))
    user = home / f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    user.parent.mkdir(parents=True)
    planted.rename(user)
    where = str(tmp_path / "told")
    (user / "evil.pth").write_text(
        f"import atexit; open({where!r}, 'a').write('begun\\n'); "
        f"atexit.register(lambda: open({where!r}, 'a').write('ended\\n'))\n"
    )
    done = subprocess.run(
        [prefix / "bin/python", "-m", "siteswap", "list", "-e", env, "--json"],
        capture_output=True, text=True,
        env={**os.environ, "HOME": str(home)}, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert "begun" in told(tmp_path), "the test has a user site that Python takes in"
    assert "ended" not in told(tmp_path), "and siteswap went on there"


def test_it_does_not_change_what_it_imports_from(
    env: Path, siteswap: Siteswap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A siteswap that has a directory of the environment in its path refuses to change that."""
    layout = opening.find(env)
    opening.require_writable(FS, layout)
    (library,) = env.glob("lib/python3*/site-packages")
    for entry in (library, library.resolve()):
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(entry))
            with pytest.raises(SiteswapError, match="this siteswap imports from"):
                opening.require_writable(FS, layout)
    siteswap("gc", "-e", env, env={"PYTHONPATH": str(library)}).ok()  # which leads it nowhere


@needs_root
def test_settings_of_uv_that_are_somebody_elses_are_not_obeyed(
    env: Path, wheels: Path, tmp_path: Path, siteswap: Siteswap
) -> None:
    """Uv looks for them where it is started, and they name indexes."""
    work, evil = tmp_path / "work", tmp_path / "evil"
    work.mkdir()
    evil.mkdir()
    wheel(evil, "tool", "2.0")
    wheel(wheels, "tool", "1.0")
    settings = work / "uv.toml"
    settings.write_text(f"find-links = [{json.dumps(str(evil))}]\nno-index = true\n")
    words = ("install", "-e", env, "--no-index", "--find-links", wheels, "tool", "--no-check")
    os.chown(settings, STRANGER, STRANGER)
    siteswap(*words, cwd=work).ok()
    assert siteswap("list", "-e", env, "--json").json[0]["version"] == "1.0"
    os.chown(settings, 0, 0)
    siteswap(*words, "-U", cwd=work).ok()
    assert siteswap("list", "-e", env, "--json").json[0]["version"] == "2.0"
