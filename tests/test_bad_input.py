"""Whatever is wrong: the documented exit status, one clear line with the next step, and nothing changed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import INTERPRETERS, Ran, Siteswap, base_for, run_python
from siteswap import fs as file_system
from siteswap.environment import Environment
from siteswap.errors import Kind, SiteswapError
from siteswap.requirements import Request
from siteswap.resolve import Options
from snapshots import current, generation, record_problems, site_packages, state, tree
from wheelmaker import wheel


def refused(ran: Ran, status: int, *words: str) -> Ran:
    """Make sure that a command was refused in the documented way; `words` are in its one line."""
    assert ran.status == status, f"status {ran.status}\n{ran.out}\n{ran.err}"
    assert "Traceback" not in ran.err
    (line,) = re.findall(r"^siteswap: (?!note: |waiting for ).*$", ran.err, re.MULTILINE)
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"
    assert re.search(r"^  → \S", ran.err, re.MULTILINE), f"no next step in {ran.err!r}"
    assert ran.out == ""
    return ran


@contextmanager
def unchanged(env: Path) -> Iterator[None]:
    """The block leaves the environment as it was, with nothing unpublished and nothing half done."""
    before = state(env)
    yield
    assert state(env) == before
    if (env / ".siteswap/staging").is_dir():
        assert list((env / ".siteswap/staging").iterdir()) == []


# -- paths ---------------------------------------------------------------------------------------

EVERY_COMMAND = [
    ["install", "demo"], ["uninstall", "demo"], ["sync", "pylock.toml"], ["list"], ["show", "demo"],
    ["export"],
    ["history"], ["diff"], ["rollback"], ["tag"], ["run", "true"], ["ps"], ["gc"],
]  # fmt: skip


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=lambda words: words[0])
def test_no_environment(siteswap: Siteswap, tmp_path: Path, words: list[str]) -> None:
    """Every command says that there is no environment, and makes none."""
    verb, *rest = words
    refused(siteswap(verb, "-e", tmp_path / "none", *rest), 2, "no environment at")
    refused(siteswap(verb, *rest), 2, "no environment at .venv")
    assert list(tmp_path.iterdir()) == []


def test_foreign_directory(siteswap: Siteswap, tmp_path: Path, env: Path) -> None:
    """A directory that siteswap did not make is neither used nor overwritten."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").write_text("precious")
    refused(siteswap("install", "-e", foreign, "demo"), 2, "is not an environment")
    refused(siteswap("create", foreign), 2, "not empty and was not made by siteswap")
    refused(siteswap("create", foreign / "file"), 2, "is not a directory")
    refused(siteswap("install", "-e", foreign / "file", "demo"), 2)
    assert tree(foreign).keys() == {"file"}
    with unchanged(env):
        refused(siteswap("create", env), 2, "is an environment already")


def test_foreign_venv(siteswap: Siteswap, tmp_path: Path) -> None:
    """A venv of another tool is told apart, and left alone."""
    venv.create(tmp_path / "theirs", symlinks=True)
    before = tree(tmp_path / "theirs")
    refused(siteswap("install", "-e", tmp_path / "theirs", "x"), 2, "siteswap does not manage")
    refused(siteswap("create", tmp_path / "theirs"), 2, "not empty")
    assert tree(tmp_path / "theirs") == before


def test_source_tree_as_environment(siteswap: Siteswap, tmp_path: Path) -> None:
    """`-e .` as pip means it is answered with what siteswap means by it."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    ran = refused(siteswap("install", "-e", "."), 2, "is a source tree")
    assert "siteswap install --editable ." in ran.err


@pytest.mark.parametrize("request_", ["no-such-python", "2.7", "3.99", "/bin/true", "./none", "/etc/passwd"])
def test_no_such_interpreter(siteswap: Siteswap, tmp_path: Path, request_: str) -> None:
    """An interpreter that is not there, is none or is too old is refused before anything is made."""
    refused(siteswap("create", tmp_path / "env", "--python", request_), 2)
    assert list(tmp_path.iterdir()) == []


def test_moved_environment(siteswap: Siteswap, env: Path, tmp_path: Path) -> None:
    """An environment that was moved says where it came from; moved back it works."""
    env.rename(tmp_path / "moved")
    refused(siteswap("list", "-e", tmp_path / "moved"), 4, f"made at {env}", f"{tmp_path / 'moved'} now")
    (tmp_path / "moved").rename(env)
    siteswap("list", "-e", env).ok()


def test_environment_through_a_link(siteswap: Siteswap, env: Path, tmp_path: Path) -> None:
    """A link to an environment is that environment."""
    (tmp_path / "link").symlink_to(env)
    siteswap("tag", "-e", tmp_path / "link", "1", "seen").ok()
    assert siteswap("tag", "-e", env, "--json").json == {"seen": 1}


# -- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], 2),
        (["not a requirement"], 2),
        (["demo=1"], 2),
        (["./missing.whl"], 2),
        (["-r", "missing.txt"], 2),
        (["-r", "latin.txt"], 2),
        (["-r", "options.txt"], 2),
        (["-r", "loop.txt"], 2),
        (["-c", "missing.txt", "demo"], 2),
        (["-r", "pyproject.toml"], 2),
        (["--check", "true", "--no-check", "demo"], 2),
        (["--no-such-option"], None),
        (["nosuch"], 1),
        (["demo>=2"], 1),
        (["./demo-9.9-py3-none-any.whl"], 1),
        (["./text.whl"], 1),
        (["./empty"], 1),
        (["needy"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_request_that_cannot_be(
    install: Siteswap, env: Path, wheels: Path, tmp_path: Path, words: list[str], status: int | None
) -> None:
    """A request that makes no sense is a usage error; one that cannot be satisfied changes nothing."""
    wheel(wheels, "demo")
    wheel(wheels, "needy", requires_python="<3")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "options.txt").write_text("--no-such-option\n")
    (tmp_path / "loop.txt").write_text("-r loop.txt\n")
    (tmp_path / "pyproject.toml").write_text("[project\n")
    (tmp_path / "demo-9.9-py3-none-any.whl").write_bytes(b"this is no archive")
    (tmp_path / "text.whl").write_bytes(b"this is no archive")
    (tmp_path / "empty").mkdir()
    with unchanged(env):
        ran = install(*words)
        if status is None:
            assert (ran.status, "Traceback" in ran.err) == (2, False)
        else:
            refused(ran, status)


def test_line_that_is_wrong_is_named(siteswap: Siteswap, env: Path, tmp_path: Path) -> None:
    """An error in a requirements file comes with file and line."""
    (tmp_path / "lines.txt").write_text("# fine\ndemo\ndemo = 1\n")
    refused(siteswap("install", "-e", env, "-r", "lines.txt"), 2, "lines.txt:3")


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff", b"nonsense", b"[packages]", b'lock-version = "9.0"\ncreated-by = "x"\npackages = []\n',
     b'lock-version = "1.0"\ncreated-by = "x"\npackages = [1]\n',
     b'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nversion = "1"\n'],
)  # fmt: skip
def test_lock_file_that_is_none(siteswap: Siteswap, env: Path, tmp_path: Path, text: bytes) -> None:
    """A lock file that cannot be read is refused by name."""
    (tmp_path / "pylock.toml").write_bytes(text)
    with unchanged(env):
        refused(siteswap("sync", "-e", env, "pylock.toml"), 2, "pylock.toml")
    refused(siteswap("sync", "-e", env, "pylock.none.toml"), 2, "pylock.none.toml")


def test_lock_that_notes_nonsense(siteswap: Siteswap, env: Path, tmp_path: Path) -> None:
    """What an export notes of what was asked for is read as strictly as what a user types."""
    note = '[tool.siteswap]\nrequirements = ["=="]\n'
    (tmp_path / "pylock.toml").write_text(f'lock-version = "1.0"\ncreated-by = "x"\npackages = []\n{note}')
    with unchanged(env):
        refused(siteswap("sync", "-e", env, "pylock.toml"), 2, "the lock notes")


def test_hash_of_a_lock_does_not_match(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path
) -> None:
    """A file that is not the one that was locked is refused, with both hashes."""
    wheel(wheels, "demo")
    install("demo").ok()
    text = siteswap("export", "-e", env).ok().out
    digest = re.findall(r'sha256 = "([0-9a-f]{64})"', text)[0]
    (tmp_path / "pylock.toml").write_text(text.replace(digest, "0" * 64))
    with unchanged(env):
        ran = refused(siteswap("sync", "-e", env, "pylock.toml"), 1, "not the one that was locked")
        assert digest in ran.err
        assert "0" * 64 in ran.err


def test_wheel_that_differs_from_its_record(install: Siteswap, env: Path, wheels: Path) -> None:
    """A wheel whose content is not what its RECORD says is refused."""
    wheel(wheels, "demo", record={"demo/__init__.py": "sha256=" + "A" * 43})
    with unchanged(env):
        ran = refused(install("demo"), 1, "is not a valid wheel")
        assert "demo/__init__.py" in ran.err


@pytest.mark.parametrize(
    "path", ["../evil.py", "demo/../../evil.py", "/evil.py", "demo/./evil.py", "a\\b.py"]
)
def test_wheel_that_would_leave_its_place(install: Siteswap, env: Path, wheels: Path, path: str) -> None:
    """A wheel with a path that leads elsewhere is refused."""
    wheel(wheels, "demo", files={"demo/__init__.py": "", path: "evil"})
    with unchanged(env):
        refused(install("demo"), 1)
    assert not [found for found in wheels.parent.rglob("evil.py") if "cache" not in found.parts]


# -- users and permissions -----------------------------------------------------------------------

NOBODY = 65534


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may enter, with a home for nobody in it."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become somebody else")
    path = Path(tempfile.mkdtemp(prefix="siteswap-test-"))
    path.chmod(0o755)
    (path / "home").mkdir()
    os.chown(path / "home", NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def as_nobody(public: Path) -> Callable[..., Ran]:
    """Run siteswap as a user who may read everything and owns nothing."""
    # The test's own interpreter may lie where nobody else may read; this capability lets it.
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    tried = subprocess.run([*become, sys.executable, "-c", "import siteswap"], capture_output=True)
    if tried.returncode:
        pytest.skip("capabilities cannot be handed on here")

    def run(*words: str | Path) -> Ran:
        done = subprocess.run(
            [*become, sys.executable, "-m", "siteswap", *map(str, words)],
            capture_output=True, text=True, cwd=public,
            env={**os.environ, "HOME": str(public / "home"), "SITESWAP_CACHE_DIR": str(public / "home/cache"),
                 "UV_CACHE_DIR": str(public / "home/uv")},
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


def test_environment_of_another_user(as_nobody: Callable[..., Ran], siteswap: Siteswap, public: Path) -> None:
    """Whoever may read an environment may look at it and run it; changing it is refused, naming the owner."""
    env, wheels = public / "env", public / "wheels"
    wheel(wheels, "demo")
    wheel(wheels, "other")
    options = ("-e", env, "--no-index", "-f", wheels)
    siteswap("create", env).ok()
    siteswap("install", *options, "demo").ok()
    with unchanged(env):
        assert as_nobody("list", "-e", env, "--json").json[0]["name"] == "demo"
        as_nobody("history", "-e", env).ok()
        as_nobody("ps", "-e", env).ok()
        refused(as_nobody("install", *options, "other"), 5, "belongs to root", "may not change it")
        refused(as_nobody("uninstall", "-e", env, "demo"), 5, "belongs to root")
        refused(as_nobody("rollback", "-e", env), 5, "belongs to root")
        refused(as_nobody("tag", "-e", env, "1", "x"), 5, "belongs to root")
        refused(as_nobody("gc", "-e", env), 5, "belongs to root")


def test_no_permission_to_create(as_nobody: Callable[..., Ran], public: Path) -> None:
    """Creating where one may not write is refused without a trace."""
    refused(as_nobody("create", public / "env"), 5, str(public))
    assert {path.name for path in public.iterdir()} == {"home"}


def test_root_changes_an_environment_of_another_user(
    as_nobody: Callable[..., Ran], siteswap: Siteswap, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root installs belongs to the environment's owner, who can go on with it."""
    wheels = public / "wheels"
    for name in ("demo", "other", "third"):
        wheel(wheels, name, scripts={name: f"{name}:main"})
    env = public / "home/env"
    monkeypatch.setenv("SITESWAP_TRUST", str(env))
    as_nobody("create", env, "--python", base_for(NOBODY)).ok()
    as_nobody("install", "-e", env, "--no-index", "-f", wheels, "other").ok()
    siteswap("install", "-e", env, "--no-index", "-f", wheels, "demo").ok()
    assert {path.lstat().st_uid for path in [env, *env.rglob("*")]} == {NOBODY}
    as_nobody("install", "-e", env, "--no-index", "-f", wheels, "third").ok()
    as_nobody("rollback", "-e", env).ok()


# -- the interpreter -----------------------------------------------------------------------------


@pytest.fixture
def movable_python(tmp_path: Path) -> Path:
    """An interpreter to be upgraded and removed: a copy of the program, its library linked."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    prefix = tmp_path / "python"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib").symlink_to(base.parent.parent / "lib")
    program = prefix / "bin/python3"
    shutil.copy2(base, program)
    if subprocess.run([program, "-c", "import json"], capture_output=True).returncode:
        pytest.skip("a copy of this interpreter does not run")
    return program


def test_interpreter_is_gone(siteswap: Siteswap, tmp_path: Path, wheels: Path, movable_python: Path) -> None:
    """Without its interpreter an environment can be looked at, not changed; with it all is well again."""
    wheel(wheels, "demo")
    env = tmp_path / "env"
    siteswap("create", env, "--python", movable_python).ok()
    options = ("-e", env, "--no-index", "-f", wheels)
    movable_python.rename(tmp_path / "away")
    with unchanged(env):
        refused(siteswap("install", *options, "demo"), 5, str(movable_python), "is gone")
        siteswap("list", "-e", env).ok()
        siteswap("history", "-e", env).ok()
    (tmp_path / "away").rename(movable_python)
    siteswap("install", *options, "demo").ok()


def test_interpreter_was_upgraded(
    siteswap: Siteswap, tmp_path: Path, wheels: Path, movable_python: Path
) -> None:
    """A new program of the same minor version is taken note of by the next command."""
    wheel(wheels, "demo")
    env = tmp_path / "env"
    siteswap("create", env, "--python", movable_python).ok()
    os.utime(movable_python, (1, 1))
    siteswap("install", "-e", env, "--no-index", "-f", wheels, "demo").ok()
    marks = [
        json.loads((generation(env, number) / ".generation/manifest.json").read_text())["interpreter"][
            "fingerprint"
        ]
        for number in (1, 2)
    ]
    assert marks[0] != marks[1]
    assert run_python(env / "bin/python", "import demo; print(demo.__version__)") == "1.0"


def test_interpreter_is_another_minor_version(
    siteswap: Siteswap, tmp_path: Path, movable_python: Path
) -> None:
    """Python 3.X replaced by 3.Y under an environment is refused: its packages are not made for it."""
    own = f"3.{sys.version_info[1]}"
    others = [path for name, path in INTERPRETERS.items() if name not in (own, "system")]
    if not others:
        pytest.skip("there is one version of Python only")
    env = tmp_path / "env"
    siteswap("create", env, "--python", movable_python).ok()
    movable_python.unlink()
    (movable_python.parent.parent / "lib").unlink()
    (movable_python.parent.parent / "lib").symlink_to(others[0].resolve().parent.parent / "lib")
    shutil.copy2(others[0].resolve(), movable_python)
    with unchanged(env):
        refused(siteswap("install", "-e", env, "--no-index", "demo"), 5, f"was Python {own}")


# -- the cache -----------------------------------------------------------------------------------


def _delete_files(entry: Path) -> None:
    for path in entry.rglob("*.py"):
        path.unlink()


def _delete_index(entry: Path) -> None:
    (entry / "index.json").unlink()


def _empty_index(entry: Path) -> None:
    (entry / "index.json").write_text("")


def _other_index(entry: Path) -> None:
    (entry / "index.json").write_text("[]")


def _short_index(entry: Path) -> None:
    (entry / "index.json").write_text('{"format": 1}')


def _change_files(entry: Path) -> None:
    for path in entry.rglob("*.py"):
        path.write_text(path.read_text().replace("1.0", "6.6"))


def _delete_schemes(entry: Path) -> None:
    for path in entry.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


@pytest.mark.parametrize(
    "harm",
    [_delete_files, _change_files, _delete_index, _empty_index, _other_index, _short_index, _delete_schemes],
)
def test_cache_that_is_damaged(
    siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """A cache that is not what it was costs a second try at most: no broken environment, no dead end."""
    wheel(wheels, "demo", scripts={"demo": "demo:main"})
    variables = {"SITESWAP_CACHE_DIR": str(tmp_path / "cache")}

    def install() -> Ran:
        return siteswap("install", "-e", env, "--no-index", "-f", wheels, "demo", env=variables)

    install().ok()
    siteswap("uninstall", "-e", env, "demo", env=variables).ok()
    (entry,) = (tmp_path / "cache/wheels").iterdir()
    harm(entry)
    (tmp_path / "cache/incoming").mkdir(exist_ok=True)
    (tmp_path / "cache/incoming/stray").write_text("")
    with_first = state(env)
    ran = install()
    if ran.status:
        refused(ran, 1 if harm is _change_files else 4)
        assert state(env) == with_first
        install().ok()
    assert run_python(env / "bin/python", "import demo; print(demo.__version__)") == "1.0"
    assert record_problems(generation(env)) == []


def test_cache_that_cannot_be_made(siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path) -> None:
    """A cache directory that is a file is refused with the way to name another."""
    wheel(wheels, "demo")
    (tmp_path / "file").write_text("")
    with unchanged(env):
        refused(siteswap("install", "-e", env, "--no-index", "-f", wheels, "demo",
                         env={"SITESWAP_CACHE_DIR": str(tmp_path / "file/cache")}), 5, "cache")  # fmt: skip


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[]", b"{}", b'{"format": 99, "path": "/x"}'])
def test_format_that_is_not_known(siteswap: Siteswap, env: Path, text: bytes) -> None:
    """An environment of another layout is refused, never guessed at."""
    (env / ".siteswap/format").write_bytes(text)
    with unchanged(env):
        for words in (["list"], ["install", "--no-index", "demo"], ["rollback"], ["gc"]):
            verb, *rest = words
            refused(siteswap(verb, "-e", env, *rest), 4)


@pytest.mark.parametrize("harm", ["missing", "nonsense", "outside", "dangling", "file", "directory"])
def test_current_is_damaged(siteswap: Siteswap, env: Path, harm: str) -> None:
    """A `current` that names no generation is damage, and nothing is built on it."""
    link = env / ".siteswap/current"
    link.unlink()
    if harm == "file":
        link.write_text("generations/1")
    elif harm == "directory":
        link.mkdir()
    elif harm != "missing":
        link.symlink_to({"nonsense": "x", "outside": "../../1", "dangling": "generations/7"}[harm])
    with unchanged(env):
        for words in (["list"], ["install", "--no-index", "demo"], ["gc"]):
            verb, *rest = words
            refused(siteswap(verb, "-e", env, *rest), 4)


@pytest.mark.parametrize("text", [None, b"", b"[]", b"{}", b"\xff", b'{"format": 99}', b'{"format": 1}'])
def test_manifest_is_damaged(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, text: bytes | None
) -> None:
    """A generation without a readable manifest is damage; going back to a whole one works."""
    wheel(wheels, "demo")
    install("demo").ok()
    manifest = generation(env) / ".generation/manifest.json"
    if text is None:
        manifest.unlink()
    else:
        manifest.write_bytes(text)
    with unchanged(env):
        refused(siteswap("list", "-e", env), 4)
        refused(install("other"), 4)
        refused(siteswap("uninstall", "-e", env, "demo"), 4)
    siteswap("rollback", "-e", env, "1").ok()
    assert current(env) == 1
    siteswap("list", "-e", env).ok()
    (_, second) = siteswap("history", "-e", env, "--json").json
    assert (second["damaged"], second["collected"]) == (True, False)
    refused(siteswap("rollback", "-e", env, "2"), 4)


@pytest.mark.parametrize("name", [".generation/directories", ".generation/pylock.toml", ".generation/lease"])
def test_corner_is_damaged(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, name: str) -> None:
    """A generation that lacks a file of siteswap's own does not lead to a bug report."""
    for demo in ("demo", "other"):
        wheel(wheels, demo)
    install("demo").ok()
    (generation(env) / name).unlink()
    for words in (["list"], ["export"], ["gc", "--dry-run"], ["uninstall", "demo", "--dry-run"]):
        verb, *rest = words
        ran = siteswap(verb, "-e", env, *rest)
        if ran.status:
            refused(ran, 4)
    siteswap("rollback", "-e", env, "1").ok()
    siteswap("list", "-e", env).ok()


@pytest.mark.parametrize("text", [b"", b"nonsense\n", b"[]\n{}\n1\n", b"\xff\xfe\n", b'{"time": "never"}\n'])
def test_history_is_damaged(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, text: bytes
) -> None:
    """Without a readable history the environment works, and no published generation is taken for garbage."""
    for demo in ("demo", "other"):
        wheel(wheels, demo)
    install("demo").ok()
    (env / ".siteswap/history").write_bytes(text)
    siteswap("history", "-e", env).ok()
    install("other").ok()
    assert run_python(env / "bin/python", "import demo, other; print(1)") == "1"
    assert current(env) == 3
    assert generation(env, 1).is_dir()
    assert not generation(env, 1).is_symlink()


def test_tags_are_damaged(siteswap: Siteswap, install: Siteswap, env: Path, wheels: Path) -> None:
    """Tags that cannot be read keep everything from being collected, and block nothing else."""
    wheel(wheels, "demo")
    (env / ".siteswap/tags").write_text("nonsense")
    refused(siteswap("gc", "-e", env, "--keep", "0"), 4, "tags")
    install("demo").ok()
    assert generation(env, 1).is_dir()


def test_record_is_missing(siteswap: Siteswap, install: Siteswap, env: Path, wheels: Path) -> None:
    """A distribution without RECORD is damage: what its files are is not known."""
    wheel(wheels, "demo")
    install("demo").ok()
    (record,) = site_packages(generation(env)).glob("demo*/RECORD")
    record.unlink()
    with unchanged(env):
        refused(siteswap("uninstall", "-e", env, "demo"), 4, "RECORD of demo 1.0")


def test_spare_is_damaged(siteswap: Siteswap, install: Siteswap, env: Path, wheels: Path) -> None:
    """What should have been recycled and is damaged is thrown away, and nothing else suffers."""
    wheel(wheels, "demo")
    shutil.copytree(generation(env), env / ".siteswap/spare", symlinks=True)
    (env / ".siteswap/spare/.generation/manifest.json").write_text("nonsense")
    install("demo").ok()
    assert not (env / ".siteswap/spare").exists()
    assert run_python(env / "bin/python", "import demo; print(demo.__version__)") == "1.0"


def test_what_a_crash_left_is_removed(siteswap: Siteswap, install: Siteswap, env: Path, wheels: Path) -> None:
    """Staging, an unpublished generation and links that lead nowhere go with the next command that writes."""
    wheel(wheels, "demo")
    (env / ".siteswap/staging/left/deep").mkdir(parents=True)
    (env / ".siteswap/current.next").symlink_to("generations/9")
    shutil.copytree(generation(env), generation(env, 2), symlinks=True)
    (env / "share").symlink_to(".siteswap/current/share")
    (env / "mine").symlink_to("elsewhere")
    install("demo").ok()
    assert list((env / ".siteswap/staging").iterdir()) == []
    assert current(env) == 2
    assert run_python(env / "bin/python", "import demo; print(demo.__version__)") == "1.0"
    assert not (env / "share").is_symlink()
    assert (env / "mine").is_symlink()


def test_something_is_in_the_way(install: Siteswap, env: Path, wheels: Path) -> None:
    """A file of the user's where a distribution needs a top-level name is never replaced."""
    wheel(wheels, "demo", data={"data/etc/demo.conf": ""})
    (env / "etc").mkdir()
    with unchanged(env):
        refused(install("demo"), 1, "in the way")


# -- two at once ---------------------------------------------------------------------------------


def start(*words: str | Path) -> subprocess.Popen[str]:
    """The command line in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "siteswap", *map(str, words)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_two_at_once(siteswap: Siteswap, env: Path, wheels: Path, signals: Path) -> None:
    """The second waits and says for whom; told how long to wait, it gives up busy; both end up installed."""
    wheel(wheels, "first")
    wheel(wheels, "second")
    options = ("-e", env, "--no-index", "-f", wheels)
    go, begun = signals / "go", signals / "begun"
    slow = f"touch {begun}; while ! [ -e {go} ]; do sleep 0.05; done"
    first = start("install", *options, "first", "--check", slow)
    second = None
    try:
        wait_for(begun.exists)
        busy = siteswap("install", *options, "second", "--lock-timeout", "0.2")
        refused(busy, 3, f"is being changed by PID {first.pid} siteswap install")
        second = start("install", *options, "second")
        assert second.stderr
        assert second.stderr.readline().startswith(f"siteswap: waiting for PID {first.pid} siteswap install")
        siteswap("list", "-e", env).ok()  # reading waits for nobody
    finally:
        go.touch()
        assert first.communicate(timeout=60)[0].startswith("generation 2 is current")
    assert second.communicate(timeout=60)[0].startswith("generation 3 is current (was 2)")
    assert run_python(env / "bin/python", "import first, second; print(1)") == "1"


def test_rollback_need_not_wait(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, signals: Path
) -> None:
    """A rollback during a long install takes effect at once; the install then starts over on the new base."""
    for name in ("before", "long"):
        wheel(wheels, name)
    install("before").ok()
    go, begun = signals / "go", signals / "begun"
    slow = f"touch {begun}; while ! [ -e {go} ]; do sleep 0.05; done"
    options = ("-e", env, "--no-index", "-f", wheels)
    program = start("install", *options, "long", "--check", slow)
    try:
        wait_for(begun.exists)
        siteswap("rollback", "-e", env, "--lock-timeout", "5").ok()
        assert current(env) == 1
    finally:
        go.touch()
    out, err = program.communicate(timeout=60)
    assert "starting over" in err
    assert out.startswith("generation 3 is current (was 1)")
    assert [item["name"] for item in siteswap("list", "-e", env, "--json").json] == ["long"]


# -- interruptions -------------------------------------------------------------------------------


def mentioning(text: str) -> list[int]:
    """Processes whose command line holds `text`."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and text.encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue  # gone meanwhile
    return found


@pytest.mark.parametrize("how", ["check", "import"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(env: Path, wheels: Path, signals: Path, number: signal.Signals, how: str) -> None:
    """Asked to stop, a command stops at once: all it started is gone and nothing of it is left."""
    begun = signals / "begun"
    code = f"import time\nopen('{begun}', 'w').close()\ntime.sleep(50)\n"
    wheel(wheels, "demo", files={"demo.py": code if how == "import" else ""})
    options: list[str | Path] = ["-e", env, "--no-index", "-f", wheels, "demo"]
    if how == "check":
        options += ["--check", f"touch {begun}; sleep 50 & sleep 50; true"]
    with unchanged(env):
        program = start("install", *options)
        try:
            wait_for(begun.exists)
            asked = time.monotonic()
        finally:
            program.send_signal(number)
        out, err = program.communicate(timeout=40)
        assert time.monotonic() - asked < 20
        assert (program.returncode, out) == (130, "")
        assert err == "siteswap: interrupted; the environment is as it was\n"
    assert mentioning(f"{env}/") == []
    assert [path.name for path in (env / ".siteswap/generations").iterdir()] == ["1"]


def _request(*lines: str) -> Request:
    return Request.of(*lines)


def test_interrupted_at_the_flip(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that arrives with the flip itself comes too late: the change is done, and reported as done."""
    wheel(wheels, "demo")
    env = Environment.create(tmp_path / "env")
    rename = file_system.FileSystem.rename

    def interrupting(self: file_system.FileSystem, source: Path, target: Path) -> None:
        rename(self, source, target)
        if target.name == "current":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(file_system.FileSystem, "rename", interrupting)
    options = Options(("--no-index", "--find-links", str(wheels)), no_index=True)
    outcome = env.install(_request("demo"), options)
    assert (outcome.committed, outcome.number, current(tmp_path / "env")) == (True, 2, 2)
    assert run_python(tmp_path / "env/bin/python", "import demo; print(demo.__version__)") == "1.0"
    outcome = env.rollback()
    assert (outcome.committed, outcome.number, current(tmp_path / "env")) == (True, 1, 1)


def test_flip_that_can_neither_last_nor_be_undone(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk refuses the sync after the flip and then the way back too, what is live stays whole."""
    wheel(wheels, "demo")
    env = Environment.create(tmp_path / "env")
    rename, sync = file_system.FileSystem.rename, file_system.FileSystem.sync_directory
    flipped = False

    def once(self: file_system.FileSystem, source: Path, target: Path) -> None:
        nonlocal flipped
        if target.name == "current":
            if flipped:
                raise OSError(5, "Input/output error", str(target))
            flipped = True
        rename(self, source, target)

    def failing(self: file_system.FileSystem, path: Path) -> None:
        if flipped:
            raise OSError(5, "Input/output error", str(path))
        sync(self, path)

    monkeypatch.setattr(file_system.FileSystem, "rename", once)
    monkeypatch.setattr(file_system.FileSystem, "sync_directory", failing)
    options = Options(("--no-index", "--find-links", str(wheels)), no_index=True)
    with pytest.raises((OSError, SiteswapError)):
        env.install(_request("demo"), options)
    assert run_python(tmp_path / "env/bin/python", "print(1)") == "1"
    monkeypatch.undo()
    assert env.current.number == current(tmp_path / "env")


@pytest.mark.parametrize(
    ("where", "call", "number"),
    [
        ("siteswap.fs.fcntl.flock", "flock", errno.ENOLCK),
        ("siteswap.fs.os.symlink", "symlink", errno.EPERM),
        ("siteswap.fs.os.link", "link", errno.EPERM),
    ],
)
def test_file_system_without_links_or_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, call: str, number: int
) -> None:
    """No environment is made where links and locks cannot be had; without hard links files are copied."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(where, refuse)
    if call == "link":
        Environment.create(tmp_path / "new")
        assert run_python(tmp_path / "new" / "bin" / "python", "print(1)") == "1"
        return
    with pytest.raises(SiteswapError) as caught:
        Environment.create(tmp_path / "new")
    assert caught.value.kind is Kind.SYSTEM
    assert "local file system" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_another_operating_system(tmp_path: Path, env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the promises cannot be kept nothing is opened or made."""
    monkeypatch.setattr("siteswap.opening.sys.platform", "darwin")
    for act in (Environment.open, Environment.create):
        with pytest.raises(SiteswapError, match="Linux only") as caught:
            act(env if act is Environment.open else tmp_path / "new")
        assert caught.value.exit_status == 5
    assert not (tmp_path / "new").exists()
