"""Owners and modes follow the environment, whoever installs and whatever the archive says [R10]."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Siteswap, base_for, let_write, run_python, siteswap_for
from wheelmaker import wheel

NOBODY = 65534
"""A user and group that owns nothing."""
INSTALLER = 54321
"""Another user and group; neither needs an entry in /etc/passwd."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users")


def tool(directory: Path, version: str = "1.0") -> Path:
    """A wheel with everything whose mode matters: code, data, a program, a script, headers."""
    return wheel(
        directory, "tool", version,
        {"tool/__init__.py": "def main():\n    print('tool ran')\n", "tool/deep/data.txt": version,
         "tool/run": "#!/bin/sh\n"},
        scripts={"tool": "tool:main"},
        data={"scripts/tool-sh": "#!/bin/sh\necho tool ran\n", "data/share/tool/x.txt": "",
              "headers/tool.h": ""},
        executable=["tool/run"],
    )  # fmt: skip


def below(root: Path) -> dict[str, os.stat_result]:
    """Everything below a directory but links, by relative path."""
    found = {}
    for parent, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(parent, name)
            if not path.is_symlink():
                found[str(path.relative_to(root))] = path.lstat()
    return found


def wrong_modes(env: Path, number: int) -> list[str]:
    """Paths of a generation whose mode is not what the environment's directory asks for."""
    shared = stat.S_IMODE(env.stat().st_mode) & 0o077
    wrong = []
    for path, status in below(env / ".siteswap/generations" / str(number)).items():
        mode = stat.S_IMODE(status.st_mode)
        runs = stat.S_ISDIR(status.st_mode) or mode & 0o100
        wanted = 0o700 | shared if runs else 0o600 | shared & 0o066
        if mode != wanted:
            wrong.append(f"{path}: {mode:o}, not {wanted:o}")
    return wrong


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o775, 0o700, 0o2775])
def test_modes_follow_the_environments_directory(
    mode: int, env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap
) -> None:
    """Bits of group and other on the environment's directory decide those of all in new generations."""
    tool(wheels)
    tool(wheels, "2.0")
    wheel(wheels, "other")
    install("other").ok()  # made with the modes from before the change: may not be shared as they are
    env.chmod(mode)
    install("tool==1.0", "--compile").ok()
    assert wrong_modes(env, 3) == []
    assert (env / "bin/tool").stat().st_mode & 0o100
    assert not (env / "lib").joinpath("python3").exists()
    install("tool==2.0").ok()
    assert wrong_modes(env, 4) == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_environment_follows_the_umask(
    mask: int, tmp_path: Path, wheels: Path, siteswap: Siteswap
) -> None:
    """`create` makes what `mkdir` would, and what is installed later keeps to it under any umask."""
    tool(wheels)
    env = tmp_path / "env"
    before = os.umask(mask)
    try:
        siteswap("create", env).ok()
    finally:
        os.umask(before)
    assert stat.S_IMODE(env.stat().st_mode) == 0o777 & ~mask
    before = os.umask(0o027)
    try:
        siteswap("install", "-e", env, "--no-index", "--find-links", wheels, "tool", "--compile").ok()
    finally:
        os.umask(before)
    assert wrong_modes(env, 1) == []
    assert wrong_modes(env, 2) == []


def test_a_shared_cache_entry_does_not_leak_its_modes(
    tmp_path: Path, wheels: Path, siteswap: Siteswap
) -> None:
    """Two environments with different modes use one cache; changing one's files never changes the other's."""
    tool(wheels)
    for name, mode in (("open", 0o755), ("closed", 0o700)):
        siteswap("create", tmp_path / name).ok()
        (tmp_path / name).chmod(mode)
        siteswap("install", "-e", tmp_path / name, "--no-index", "--find-links", wheels, "tool").ok()
    assert wrong_modes(tmp_path / "open", 2) == []
    assert wrong_modes(tmp_path / "closed", 2) == []


# -- several users -----------------------------------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that other users can reach, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="siteswap-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def as_user(
    user: int, *command: str | Path, groups: list[int] | None = None, mask: int = 0o022, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as another user, in a directory and with variables that say nothing of ours."""
    return subprocess.run(
        [*map(str, command)], user=user, group=user, extra_groups=groups or [], umask=mask, cwd="/",
        env={"PATH": os.defpath, "HOME": "/nonexistent", **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def own(root: Path, user: int) -> None:
    """Give a directory and everything in it to a user."""
    os.chown(root, user, user)
    for parent, directories, files in os.walk(root):
        for name in (*directories, *files):
            os.chown(Path(parent, name), user, user, follow_symlinks=False)


def owners(root: Path) -> set[tuple[int, int]]:
    """Every owner and group of something below a directory, links too."""
    found = {(root.stat().st_uid, root.stat().st_gid)}
    for parent, directories, files in os.walk(root):
        for name in (*directories, *files):
            status = Path(parent, name).lstat()
            found.add((status.st_uid, status.st_gid))
    return found


@needs_root
def test_root_installs_for_the_owner(
    public: Path, wheels: Path, siteswap: Siteswap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root does in another user's environment belongs to that user, byte-code and logs included.

    Here root stays root, which it is told to do; else it works as that user (test_trust.py).
    """
    env = public / "env"
    monkeypatch.setenv("SITESWAP_TRUST", str(env))
    tool(wheels)
    tool(wheels, "2.0")
    wheel(wheels, "broken", files={"broken.py": "raise RuntimeError('broken')\n"})
    siteswap("create", env, "--python", base_for(NOBODY)).ok()
    own(env, NOBODY)
    for words in (("install", "tool==1.0", "--compile"), ("install", "tool==2.0"), ("uninstall", "tool")):
        verb, *rest = words
        index = ["--no-index", "--find-links", wheels] if verb == "install" else []
        siteswap(verb, "-e", env, *index, *rest).ok()
        assert owners(env) == {(NOBODY, NOBODY)}, words
    assert siteswap("install", "-e", env, "--no-index", "--find-links", wheels, "broken").status == 1
    siteswap("rollback", "-e", env).ok()
    siteswap("tag", "-e", env, "2", "kept").ok()
    assert owners(env) == {(NOBODY, NOBODY)}
    ran = as_user(NOBODY, env / "bin/tool")
    assert (ran.returncode, ran.stdout) == (0, "tool ran\n"), ran.stderr


@needs_root
@pytest.mark.parametrize(("words", "user"), [((), NOBODY), (("--check-user", "root"), 0)])
def test_checks_run_as_the_owner(
    words: tuple[str, ...],
    user: int,
    public: Path,
    wheels: Path,
    siteswap: Siteswap,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where root changes another user's environment as root, its code runs as that user by default.

    What it leaves behind belongs to the owner either way.
    """
    env = public / "env"
    monkeypatch.setenv("SITESWAP_TRUST", str(env))
    siteswap("create", env, "--python", base_for(NOBODY)).ok()
    told = let_write(env, public / "told")
    own(env, NOBODY)
    own(told, NOBODY)
    code = f"""
import os
who = f"{{os.getresuid()}} {{os.getresgid()}}"
for path in (os.environ["HOME"] + "/own", {str(told)!r} + "/" + os.environ.get("STEP", "import")):
    with open(path, "w") as file:
        file.write(who)
"""
    wheel(wheels, "tells", files={"tells.py": code})
    check = "STEP=check python -c 'import tells' && test $(stat -c %u $HOME/own) = " + str(user)
    command = ("install", "-e", env, "--no-index", "--find-links", wheels, "tells", "--check", check, *words)
    if user != 0:  # a command runs where siteswap was started, which here is nowhere for others
        done = siteswap(*command)
        assert done.status == 5
        assert f"{wheels.parent}: Permission denied\n  → be where nobody may be" in done.err
    siteswap(*command, cwd=public).ok()
    group = os.getgid() if user == 0 else pwd.getpwuid(user).pw_gid
    for step in ("import", "check"):
        assert (told / step).read_text() == f"{(user,) * 3} {(group,) * 3}"
        assert (told / step).stat().st_uid == user
    assert owners(env) == {(NOBODY, NOBODY)}
    assert list(env.glob("lib/python3.*/site-packages/__pycache__/tells.*.pyc"))


@needs_root
def test_a_service_user_runs_what_it_may_only_read(public: Path, wheels: Path, siteswap: Siteswap) -> None:
    """A user without write permission imports, runs scripts and holds a lease; the cache may be gone."""
    env = public / "env"
    tool(wheels)
    siteswap("create", env, "--python", base_for(NOBODY)).ok()
    cache = public / "cache"
    siteswap(
        "install",
        "-e",
        env,
        "--no-index",
        "--find-links",
        wheels,
        "tool",
        env={"SITESWAP_CACHE_DIR": str(cache)},
    ).ok()
    for state in ("unreadable", "deleted"):
        if state == "unreadable":
            cache.chmod(0)
        else:
            shutil.rmtree(cache)
        assert as_user(NOBODY, env / "bin/tool").stdout == "tool ran\n", state
        assert as_user(NOBODY, env / "bin/tool-sh").stdout == "tool ran\n", state
        ran = as_user(NOBODY, env / "bin/python", "-c", "import tool; tool.main()")
        assert (ran.returncode, ran.stdout) == (0, "tool ran\n"), ran.stderr
    assert owners(env) == {(0, 0)}, "running it wrote nothing"
    holding = subprocess.Popen(
        [env / "bin/python", "-c", "print('ready', flush=True); input()"], user=NOBODY, group=NOBODY,
        extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip
    with holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "ready\n"
        users = siteswap("ps", "-e", env, "--json").ok().out
        assert str(holding.pid) in users
        for number in range(4):  # enough that the generation in use would be collected
            wheel(wheels, "filler", f"{number}.0")
            siteswap("install", "-e", env, "--no-index", "--find-links", wheels, f"filler=={number}.0").ok()
        done = siteswap("gc", "-e", env, "--keep", "0").ok()
        assert (env / ".siteswap/generations/2/bin/python").exists(), done.out
        holding.communicate("\n")
    assert holding.returncode == 0


@needs_root
@pytest.mark.parametrize("mode", [0o750, 0o700])
def test_who_may_not_read_the_environment_may_not_run_it(
    mode: int, public: Path, wheels: Path, siteswap: Siteswap
) -> None:
    """Closing the directory closes everything in it."""
    env = public / "env"
    siteswap("create", env, "--python", base_for(NOBODY)).ok()
    env.chmod(mode)
    with pytest.raises(PermissionError):
        as_user(NOBODY, env / "bin/python", "-c", "")


As = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def siteswap_as(public: Path) -> As:
    """Run siteswap as another user; skips where no interpreter that the user can run has what it needs."""
    program = siteswap_for(INSTALLER, public)
    (public / "homes").mkdir()
    (public / "homes").chmod(0o1777)

    def run(
        user: int, *words: str | Path, groups: list[int] | None = None
    ) -> subprocess.CompletedProcess[str]:
        home = str(public / "homes" / str(user))
        return as_user(
            user, program, "-m", "siteswap", *words, groups=groups, HOME=home,
            SITESWAP_CACHE_DIR=f"{home}/cache", UV_CACHE_DIR=f"{home}/uv",
            SITESWAP_TRUST=str(public / "env"), PYTHONDONTWRITEBYTECODE="1",
        )  # fmt: skip

    return run


@needs_root
def test_a_user_may_not_change_anothers_environment(
    public: Path, siteswap_as: As, siteswap: Siteswap
) -> None:
    """A user without permission is told whose the environment is, with exit status 5, and reads it freely."""
    env = public / "env"
    siteswap("create", env, "--python", base_for(INSTALLER)).ok()
    done = siteswap_as(INSTALLER, "install", "-e", env, "--no-index", "x")
    assert done.returncode == 5, done.stderr
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr
    done = siteswap_as(INSTALLER, "list", "-e", env, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@needs_root
def test_members_of_a_group_share_an_environment(
    public: Path, siteswap_as: As, wheels: Path, siteswap: Siteswap
) -> None:
    """In a directory that a group may write, each member installs, and all of it is the group's."""
    team, one, two = 60000, INSTALLER, INSTALLER + 1
    for version in ("1.0", "2.0", "3.0", "4.0"):
        shutil.copy(tool(wheels, version), public)
    env = public / "env"
    siteswap("create", env, "--python", base_for(one)).ok()
    own(env, one)
    for path in [env, *env.rglob("*")]:
        os.chown(path, one, team, follow_symlinks=False)
    for path in [env, *env.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o060 | (0o2010 if path.is_dir() else 0))
    left = env / ".siteswap/staging/left/inner"  # as if member one had crashed, and two comes next
    left.mkdir(parents=True)
    (left / "file").touch()
    for path in (left / "file", left, left.parent):
        os.chown(path, one, team)
        path.chmod(0o775)
    for user, version in ((two, "3.0"), (one, "1.0"), (two, "2.0"), (one, "3.0"), (two, "4.0")):
        links = ("--no-index", "--find-links", public)
        done = siteswap_as(user, "install", "-e", env, *links, f"tool=={version}", groups=[team])
        assert done.returncode == 0, done.stderr
        number = int((env / ".siteswap/current").readlink().name)
        groups = {status.st_gid for status in below(env / ".siteswap/generations" / str(number)).values()}
        assert groups == {team}
        assert wrong_modes(env, number) == []
        assert as_user(two, env / "bin/tool", groups=[team]).stdout == "tool ran\n"
        assert not left.exists()


# -- another file system -------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system than the test's own; skips where there is none."""
    for candidate in (Path("/dev/shm"), Path("/var/tmp"), Path.home()):
        if (
            candidate.is_dir()
            and os.access(candidate, os.W_OK)
            and candidate.stat().st_dev != tmp_path.stat().st_dev
        ):
            path = Path(tempfile.mkdtemp(prefix="siteswap-test-", dir=candidate))
            yield path
            shutil.rmtree(path)
            return
    pytest.skip("no second file system")


def test_a_cache_on_another_file_system(
    env: Path, wheels: Path, elsewhere: Path, install: Siteswap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no hard link is possible files are copied, byte for byte, with modes and times as linked ones."""
    monkeypatch.setenv("SITESWAP_CACHE_DIR", str(elsewhere / "cache"))
    blob = os.urandom(3_000_000)
    files: dict[str, str | bytes] = {
        "big/__init__.py": "",
        "big/blob": blob,
        "big/run": "#!/bin/sh\n",
        "big/nothing": "",
    }
    wheel(wheels, "big", files=files, executable=["big/run"])
    install("big").ok()
    (base,) = env.glob("lib/python3.*/site-packages/big")
    assert (base / "blob").read_bytes() == blob
    assert (base / "nothing").read_bytes() == b""
    assert os.access(base / "run", os.X_OK)
    (cached,) = elsewhere.glob("cache/wheels/*/purelib/big/blob")
    assert cached.stat().st_dev != (base / "blob").stat().st_dev
    assert cached.stat().st_mtime_ns == (base / "blob").stat().st_mtime_ns
    assert wrong_modes(env, 2) == []
    wheel(wheels, "small")
    shutil.rmtree(elsewhere / "cache")
    install("small").ok()
    (again,) = env.glob("lib/python3.*/site-packages/big")
    assert (again / "blob").read_bytes() == blob
    assert (again / "blob").stat().st_nlink == 2, "unchanged files are shared with the generation before"
    assert run_python(env / "bin/python", "import big, small; print(small.__version__)") == "1.0"
