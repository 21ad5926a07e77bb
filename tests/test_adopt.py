"""`siteswap adopt`: a virtual environment of another tool becomes an environment, at once or not at all."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import killing
from conftest import INTERPRETERS, STRESS, Siteswap, run_python
from siteswap import venv
from siteswap.adopt import requirements
from siteswap.fs import FileSystem
from siteswap.interpreter import probe
from siteswap.manifest import Distribution
from snapshots import current, generation, site_packages, tree
from wheelmaker import application, wheel

UV = Path(sys.executable).with_name("uv")
BASE = Path(sys.executable).resolve()


def run(*words: str | Path) -> str:
    """What another program prints."""
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True).stdout


def by_venv(place: Path, *more: str) -> Path:
    run(BASE, "-m", "venv", *(more or ("--without-pip",)), place)
    return place


def by_uv(place: Path, *more: str) -> Path:
    run(UV, "venv", "-q", "--python", BASE, *more, place)
    return place


def uv_install(place: Path, wheels: Path, *words: str | Path) -> None:
    run(UV, "pip", "install", "-q", "--no-index", "--find-links", wheels, "--python", place, *words)


@pytest.fixture
def versions(wheels: Path) -> Path:
    """Wheels of two versions of an application that is in two parts."""
    application(wheels, "1.0")
    application(wheels, "2.0")
    return wheels


@pytest.fixture
def old(tmp_path: Path, versions: Path) -> Path:
    """A virtual environment with the application in it."""
    place = by_venv(tmp_path / "old")
    uv_install(place, versions, "swapapp==1.0")
    return place


def contents(place: Path) -> dict[str, str]:
    """Every file that the RECORDs below a prefix list, byte-code aside, with its digest."""
    packages = site_packages(place)
    found = {}
    for record in packages.glob("*.dist-info/RECORD"):
        for line in record.read_text().splitlines():
            path = packages / line.rsplit(",", 2)[0].strip('"')
            if path.suffix != ".pyc" and path.name != "__pycache__":
                name = os.path.relpath(os.path.realpath(path.parent), os.path.realpath(place))
                found[f"{name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# -- who made it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [by_venv, by_uv], ids=lambda item: item.__name__)
def test_what_other_tools_made(
    tmp_path: Path, wheels: Path, siteswap: Siteswap, maker: Callable[..., Path]
) -> None:
    """Every distribution byte for byte, RECORD too; its programs run; what comes next is a transaction."""
    wheel(wheels, "demo", scripts={"demo": "demo:main"}, requires=["lib"], data={"data/share/demo.txt": "x"})
    wheel(wheels, "demo", "2.0", scripts={"demo": "demo:main"}, requires=["lib"])
    wheel(wheels, "lib", data={"headers/lib.h": "int x;"})
    place = maker(tmp_path / "old")
    uv_install(place, wheels, "demo==1.0")
    before = contents(place)
    done = siteswap("adopt", place).ok()
    assert "asked for: demo" in done.out
    assert contents(generation(place)) == before
    assert run(place / "bin/demo").strip() == "1.0"
    assert run_python(place / "bin/python", "import sys; print(sys.prefix)") == str(generation(place, 1))
    assert sorted(os.listdir(tmp_path)) == ["old", "wheels"]
    siteswap("doctor", "-e", place).ok()
    siteswap("install", "-e", place, "--no-index", "--find-links", wheels, "demo==2.0").ok()
    assert run(place / "bin/demo").strip() == "2.0"
    assert not (place / "share").exists()
    siteswap("rollback", "-e", place).ok()
    assert run(place / "bin/demo").strip() == "1.0"
    assert (place / "share/demo.txt").read_text() == "x"


@pytest.mark.index
def test_what_virtualenv_made(tmp_path: Path, wheels: Path, siteswap: Siteswap) -> None:
    """With all that it seeds and its scripts for seven shells; it works, and comes back as it was."""
    tool, place = by_uv(tmp_path / "tool"), tmp_path / "old"
    run(UV, "pip", "install", "-q", "--python", tool, "virtualenv")
    run(tool / "bin/virtualenv", "-q", "-p", BASE, place)
    wheel(wheels, "demo", scripts={"demo": "demo:main"})
    uv_install(place, wheels, "demo")
    kept = contents(place)
    before = tree(place)
    assert "RECORD says so now" not in siteswap("adopt", place).ok().err
    assert contents(generation(place)) == kept
    assert (run(place / "bin/demo").strip(), "pip" in run(place / "bin/pip", "--version")) == ("1.0", True)
    assert run_python(place / "bin/python", "import sys; print(sys.prefix)") == str(generation(place))
    shown = {item["name"] for item in siteswap("list", "-e", place, "--json").json}
    assert {"demo", "pip"} <= shown
    siteswap("doctor", "-e", place).ok()
    siteswap("unadopt", place).ok()
    del before[".lock"]  # uv's
    assert tree(place) == before
    assert run(place / "bin/demo").strip() == "1.0"


def test_each_interpreter_with_its_pip(tmp_path: Path, python: Path, siteswap: Siteswap) -> None:
    """`python -m venv` as it is, pip included, which then changes the environment by a transaction."""
    place = tmp_path / "old"
    if subprocess.run([python, "-m", "venv", place], capture_output=True, check=False).returncode != 0:
        pytest.skip("this interpreter has no ensurepip")
    before = contents(place)
    siteswap("adopt", place).ok()
    assert contents(generation(place)) == before
    assert "pip" in run(place / "bin/pip", "--version")
    shown = {item["name"]: item for item in siteswap("list", "-e", place, "--json").json}
    assert shown["pip"]["requested"]


@pytest.mark.parametrize("options", [("--copies",), ("--symlinks",), ("--system-site-packages",)])
def test_ways_to_make_one(tmp_path: Path, wheels: Path, siteswap: Siteswap, options: tuple[str, ...]) -> None:
    """A copied interpreter is no base; what it says of itself is kept."""
    place = by_venv(tmp_path / "old", "--without-pip", "--prompt", "it's mine", *options)
    siteswap("adopt", place).ok()
    config = venv.Configuration.parse((place / "pyvenv.cfg").read_text())
    assert config.values["executable"] == str(BASE)
    assert config.prompt == "it's mine"
    assert config.system_site_packages == (options == ("--system-site-packages",))
    wheel(wheels, "other")
    siteswap("install", "-e", place, "--no-index", "--find-links", wheels, "other").ok()
    assert venv.Configuration.parse((generation(place) / "pyvenv.cfg").read_text()).values == config.values
    siteswap("doctor", "-e", place).ok()


def test_links_into_a_cache_become_files(tmp_path: Path, wheels: Path, siteswap: Siteswap) -> None:
    """uv can link every file to its cache, which may be emptied at any time."""
    wheel(wheels, "demo")
    place = by_uv(tmp_path / "old")
    uv_install(place, wheels, "--link-mode", "symlink", "demo")
    assert (site_packages(place) / "demo/__init__.py").is_symlink()
    before = contents(place)
    siteswap("adopt", place).ok()
    assert contents(generation(place)) == before
    assert not (site_packages(generation(place)) / "demo/__init__.py").is_symlink()


# -- what is in it ---------------------------------------------------------------------------------


def test_what_belongs_to_no_distribution(
    old: Path, siteswap: Siteswap, versions: Path, tmp_path: Path
) -> None:
    """Kept and named: eggs, .egg-info, .pth, one's own programs, kernels; links lead where they led."""
    packages = site_packages(old)
    (packages / "oldie-1.0-py3.egg/oldie").mkdir(parents=True)
    (packages / "oldie-1.0-py3.egg/oldie/__init__.py").write_text("VALUE = 7\n")
    (packages / "easy-install.pth").write_text("./oldie-1.0-py3.egg\n")
    (packages / "legacy.egg-info").write_text("Name: legacy\nVersion: 1\n")
    (old / "share/jupyter/kernels/me").mkdir(parents=True)
    kernel = json.dumps({"argv": [f"{old}/bin/python", "-m", "kernel"]})
    (old / "share/jupyter/kernels/me/kernel.json").write_text(kernel)
    (old / "bin/mine").write_text(f"#!{old}/bin/python\nimport oldie\nprint(oldie.VALUE)\n")
    (old / "bin/mine").chmod(0o755)
    (tmp_path / "outside").write_text("outside\n")
    (old / "etc").mkdir()
    (old / "etc/out").symlink_to("../../outside")
    (old / "etc/in").symlink_to("../share/jupyter")
    (old / "notes").write_text("mine\n")
    done = siteswap("adopt", "--json", old)
    named = done.json["strays"]
    site = str(packages.relative_to(old))
    assert named == sorted(
        [
            "bin/mine", "etc", f"{site}/easy-install.pth", f"{site}/legacy.egg-info",
            f"{site}/oldie-1.0-py3.egg", "notes", "share",
        ]
    )  # fmt: skip
    assert run(old / "bin/mine").strip() == "7"
    assert (old / "share/jupyter/kernels/me/kernel.json").read_text() == kernel
    assert (old / "etc/out").read_text() == "outside\n"
    assert os.path.samefile(old / "etc/in", old / "share/jupyter")
    wheel(versions, "other")
    siteswap("install", "-e", old, "--no-index", "--find-links", versions, "other").ok()
    assert (run(old / "bin/mine").strip(), (old / "notes").read_text()) == ("7", "mine\n")


def test_edited_incomplete_and_double(old: Path, siteswap: Siteswap) -> None:
    """A broken venv is adopted as it is, and all that is odd is told; RECORD then says what is there."""
    packages = site_packages(old)
    (packages / "swaplib/lazy.py").write_text("VERSION = 'edited'\n")
    (packages / "swapapp/late.py").unlink()
    shutil.copytree(packages / "swaplib-1.0.dist-info", packages / "swaplib-0.9.dist-info")
    metadata = packages / "swaplib-0.9.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 0.9"))
    (packages / "bare-1.dist-info").mkdir()
    (packages / "bare-1.dist-info/METADATA").write_text("Name: bare\nVersion: 1\n")
    done = siteswap("adopt", old).ok()
    assert "swaplib is there twice: swaplib-0.9.dist-info is kept" in done.err
    assert "bare-1.dist-info has no RECORD" in done.err
    assert "RECORD says so now: swapapp 1.0, swaplib 1.0" in done.err
    assert (packages / "swaplib/lazy.py").read_text() == "VERSION = 'edited'\n"
    shown = {item["name"]: item["version"] for item in siteswap("list", "-e", old, "--json").json}
    assert shown == {"swapapp": "1.0", "swaplib": "1.0"}
    siteswap("doctor", "-e", old).ok()


def test_broken_imports_are_told_unless_strict(tmp_path: Path, wheels: Path, siteswap: Siteswap) -> None:
    """What fails has failed before; --strict leaves it alone."""
    wheel(wheels, "demo", files={"demo/__init__.py": "import gone\n"})
    place = by_venv(tmp_path / "old")
    uv_install(place, wheels, "demo")
    before = tree(tmp_path)
    done = siteswap("adopt", "--strict", place)
    assert done.status == 1
    assert "No module named 'gone'" in done.err
    assert tree(tmp_path) == before
    done = siteswap("adopt", place).ok()
    assert "as it was before: demo 1.0" in done.err
    wheel(wheels, "other")
    siteswap("install", "-e", place, "--no-index", "--find-links", wheels, "other").ok()


def test_editable_install(tmp_path: Path, siteswap: Siteswap) -> None:
    """It goes on leading to its source tree."""
    source = tmp_path / "project"
    (source / "mine").mkdir(parents=True)
    (source / "mine/__init__.py").write_text("VALUE = 1\n")
    place = by_venv(tmp_path / "old")
    info = site_packages(place) / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "direct_url.json").write_text(
        json.dumps({"url": source.as_uri(), "dir_info": {"editable": True}})
    )
    (site_packages(place) / "__editable__.mine.pth").write_text(f"{source}\n")
    rows = [
        "__editable__.mine.pth,,",
        *(f"mine-1.dist-info/{x},," for x in ("METADATA", "direct_url.json", "RECORD")),
    ]
    (info / "RECORD").write_text("".join(f"{row}\n" for row in rows))
    done = siteswap("adopt", "--json", place)
    assert done.json["requirements"] == [f"-e mine @ {source.as_uri()}"]
    (source / "mine/__init__.py").write_text("VALUE = 2 + 0\n")
    assert run_python(place / "bin/python", "import mine; print(mine.VALUE)") == "2"


def test_settings_and_marks_stay_at_the_top(old: Path, siteswap: Siteswap) -> None:
    """They are about the environment, not of a generation."""
    (old / ".gitignore").write_text("# mine\n*\n")
    (old / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (old / "siteswap.toml").write_text("")
    siteswap("adopt", old).ok()
    assert (old / ".gitignore").read_text() == "# mine\n*\n"
    for name in ("CACHEDIR.TAG", "siteswap.toml"):
        assert (old / name).exists()
        assert not (old / name).is_symlink()


def test_what_is_not_kept_is_told(old: Path, siteswap: Siteswap) -> None:
    """Empty directories and extended attributes; not those that every virtual environment has."""
    assert "not kept" not in siteswap("adopt", "--dry-run", old).ok().err
    (old / "var/spool/mine").mkdir(parents=True)
    (old / "notes").write_text("mine\n")
    try:
        os.setxattr(old / "notes", "user.mine", b"1")
    except OSError:
        pytest.skip("no extended attributes here")
    said = siteswap("adopt", old).ok().err
    assert "empty, and so not kept: var\n" in said
    assert "extended attributes are not kept: notes\n" in said


def test_the_base_interpreter_has_moved(old: Path, siteswap: Siteswap, tmp_path: Path) -> None:
    """--python says where it is, if it is of the same version; `unadopt` does not put back what is gone."""
    base_gone(old)
    (old / "pyvenv.cfg").write_text(f"home = /nowhere/bin\nversion = 3.{sys.version_info.minor}.0\n")
    assert "name one of the same version with --python" in siteswap("adopt", old).err
    others = [path for name, path in INTERPRETERS.items() if name != f"3.{sys.version_info.minor}"]
    for other in others[:1]:
        refused = siteswap("adopt", old, "--python", other)
        assert (refused.status, "was made for 3." in refused.err) == (2, True), refused.err
    siteswap("adopt", old, "--python", BASE).ok()
    assert run(old / "bin/swapapp").split()[:2] == ["same", "1.0"]
    siteswap("unadopt", old).ok()
    assert run(old / "bin/swapapp").split()[:2] == ["same", "1.0"]
    assert venv.Configuration.parse((old / "pyvenv.cfg").read_text()).values["home"] == str(BASE.parent)


def test_dry_run_changes_nothing(old: Path, siteswap: Siteswap) -> None:
    """It only says what would be taken in."""
    before = tree(old.parent)
    assert "would take in" in siteswap("adopt", "--dry-run", old).ok().out
    assert tree(old.parent) == before


# -- refused ---------------------------------------------------------------------------------------


def no_pyvenv_cfg(place: Path) -> str:
    (place / "pyvenv.cfg").unlink()
    return "no virtual environment"


def conda(place: Path) -> str:
    (place / "conda-meta").mkdir()
    return "is a conda environment"


def base_gone(place: Path) -> str:
    for name in ("python", "python3", f"python3.{sys.version_info.minor}"):
        (place / "bin" / name).unlink(missing_ok=True)
    (place / "pyvenv.cfg").write_text("home = /nowhere/bin\nversion = 3.11.0\n")
    return "the base interpreter"


def other_version(place: Path) -> str:
    (place / f"lib/python3.{sys.version_info.minor}").rename(place / "lib/python3.1")
    return "was made for another version"


def a_socket(place: Path) -> str:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(place / "x.sock"))
    return "is a socket"


def nothing_there(place: Path) -> str:
    shutil.rmtree(place)
    return "there is no virtual environment"


def own_lib64(place: Path) -> str:
    (place / "lib64").unlink(missing_ok=True)
    (place / "lib64").mkdir()
    return "is a directory of its own"


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (no_pyvenv_cfg, 2), (conda, 2), (base_gone, 5), (other_version, 5), (a_socket, 2), (nothing_there, 2),
        (own_lib64, 2),
    ],
    ids=lambda item: getattr(item, "__name__", None),
)  # fmt: skip
def test_refused(old: Path, siteswap: Siteswap, spoil: Callable[[Path], str], status: int) -> None:
    """With the reason, and nothing is changed or left beside it."""
    reason = spoil(old)
    left = sorted(os.listdir(old.parent))
    done = siteswap("adopt", old)
    assert (done.status, reason in done.err) == (status, True), done.err
    assert sorted(os.listdir(old.parent)) == left


def test_an_environment_already(env: Path, siteswap: Siteswap) -> None:
    """Nothing to adopt."""
    done = siteswap("adopt", env)
    assert done.status == 2
    assert "is an environment of siteswap already" in done.err


def test_one_that_others_may_change(old: Path, siteswap: Siteswap) -> None:
    """The rules of trust are those of any environment."""
    old.chmod(0o777)
    done = siteswap("adopt", old)
    assert done.status == 5
    assert "is not trusted" in done.err


def test_a_link_to_it(old: Path, siteswap: Siteswap, tmp_path: Path) -> None:
    """The environment is where the link leads; the link stays one."""
    link = tmp_path / "link"
    link.symlink_to(old)
    siteswap("adopt", link).ok()
    assert link.is_symlink()
    assert current(old) == 1
    assert run(link / "bin/swapapp").split()[:2] == ["same", "1.0"]


# -- while programs run ----------------------------------------------------------------------------

_LAZY = """
import sys, swapapp
print("ready", flush=True)
sys.stdin.readline()
import swapapp.late, swaplib.lazy, importlib.metadata
seen = [swapapp.late.VERSION, swaplib.lazy.VERSION, importlib.metadata.version("swaplib")]
print(*seen, swapapp.late.__file__)
"""


def test_running_programs_go_on(old: Path, siteswap: Siteswap) -> None:
    """What was started before imports the same files later; it is named with its number."""
    with subprocess.Popen(
        [old / "bin/python", "-c", _LAZY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        done = siteswap("adopt", old).ok()
        assert f"PID {running.pid} " in done.out
        out, _ = running.communicate("go\n")
    where = site_packages(old) / "swapapp/late.py"
    assert out.split() == ["1.0", "1.0", "1.0", str(where)]


def test_starting_all_the_time(old: Path, siteswap: Siteswap) -> None:
    """Every interpreter that starts meanwhile finds the environment whole, the old or the new."""
    wrong, seen = [], set()
    command = [sys.executable, "-m", "siteswap", "adopt", "--no-check", str(old)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as adopting:
        last = False
        while not last:
            last = adopting.poll() is not None
            done = subprocess.run([old / "bin/swapapp"], capture_output=True, text=True, check=False)
            seen.add((old / ".siteswap").exists())
            if done.stdout.split()[:2] != ["same", "1.0"]:
                wrong.append(done)
    assert adopting.returncode == 0
    assert wrong == []
    assert True in seen


def test_what_runs_cannot_write_into_a_generation(old: Path, siteswap: Siteswap) -> None:
    """Files are copied: an open one, written in place, is not the one that was taken in."""
    with (site_packages(old) / "swaplib/lazy.py").open("r+") as stream:
        siteswap("adopt", old).ok()
        stream.write("VERSION = 'x.y'")
        stream.flush()
        assert (site_packages(old) / "swaplib/lazy.py").read_text() == "VERSION = '1.0'\n"


def test_changed_meanwhile(old: Path, siteswap: Siteswap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another installer at work: refused, whenever it wrote; what it wrote stays."""
    from siteswap import adopt
    from siteswap.environment import Environment
    from siteswap.errors import Kind, SiteswapError

    real = FileSystem.exchange
    for late in (False, True):

        def write(text: str = f"late: {late}") -> None:
            (site_packages(old) / "swaplib/lazy.py").write_text(text)

        def survey(_: object, late: bool = late) -> list[object]:
            if not late:
                write()
            return []

        def exchange(fs: FileSystem, one: Path, other: Path, late: bool = late) -> None:
            if other == old and late and not (old / ".siteswap").exists():
                write()
            real(fs, one, other)

        monkeypatch.setattr(adopt, "programs", survey)
        monkeypatch.setattr(FileSystem, "exchange", exchange)
        with pytest.raises(SiteswapError, match="changed while it was copied") as refused:
            Environment.adopt(old, check=False)
        assert refused.value.kind is Kind.BUSY
        assert (site_packages(old) / "swaplib/lazy.py").read_text() == f"late: {late}"
        assert not (old / ".siteswap").exists()
        assert sorted(os.listdir(old.parent)) == ["old", "wheels"]


# -- killed ----------------------------------------------------------------------------------------


@pytest.mark.stress
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_killed_at_any_change(
    tmp_path: Path, versions: Path, siteswap: Siteswap, number: signal.Signals
) -> None:
    """Exactly as it was, or adopted whole; the next command goes through and leaves nothing beside."""
    kept = by_venv(tmp_path / "place/old")
    uv_install(kept, versions, "swapapp==1.0")
    (kept / "notes").write_text("mine\n")
    aside, before = tmp_path / "aside", tree(kept)
    shutil.copytree(kept, aside, symlinks=True)
    whole = killing.run(0, number, "adopt", kept)
    assert whole.status == 0, whole.err
    outcomes: collections.Counter[str] = collections.Counter()
    step = max(1, whole.changes // (10 if STRESS else 5))
    moments = {1, *range(step, whole.changes, step), *range(whole.changes - 9, whole.changes + 1, 3)}
    for at in sorted(moments):
        shutil.rmtree(kept)
        shutil.copytree(aside, kept, symlinks=True)
        done = killing.run(at, number, "adopt", kept)
        adopted = (kept / ".siteswap").exists()
        outcomes[f"{'new' if adopted else 'old'}, exit {done.status}"] += 1
        if number is not signal.SIGKILL:
            assert adopted == (done.status == 0), (
                "an adoption that is reported as interrupted, or the reverse"
            )
        if not adopted:
            assert tree(kept) == before
            if number is not signal.SIGKILL:
                assert os.listdir(kept.parent) == ["old"]
            siteswap("adopt", kept).ok()
        else:
            siteswap("gc", "-e", kept).ok()
        assert os.listdir(kept.parent) == ["old"]
        assert run(kept / "bin/swapapp").split()[:2] == ["same", "1.0"]
        assert (kept / "notes").read_text() == "mine\n"
    assert len(outcomes) > 1, outcomes


# -- decisions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("home = /a/bin\nversion = 3.9.1\n", ["/link", "/a/bin/python3.9", "/a/bin/python3"]),
        ("home = /a/bin\nexecutable = /b/python\n", ["/b/python", "/link", "/a/bin/python"]),
        (
            "base-executable = /c/p\nversion_info = 3.8.0.final.0\nhome = /c",
            ["/c/p", "/link", "/c/python3.8"],
        ),
        ("HOME=/u\nuv = 0.9\nrelocatable = true\n", ["/link", "/u/python", "/u/python3"]),
        ("nonsense\n", ["/link"]),
    ],
)
def test_where_the_base_interpreter_may_be(text: str, expected: list[str]) -> None:
    """Each maker has words of its own."""
    assert venv.Configuration.parse(text).interpreters("/link")[: len(expected)] == expected


def test_a_copied_interpreter_is_no_base() -> None:
    """bin/python of the environment itself, however it is spelled."""
    found = venv.candidates(venv.Configuration({"executable": "/x/v/../v/bin/python"}), Path("/x/v"), "/b/py")
    assert found == ["/b/py"]


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        ("etc/a", "../share/b", None),
        ("etc/a", "/abs", None),
        ("etc/a", "../../b", "/x/b"),
        ("a", "../v/bin", "/x/v/bin"),
        ("lib/p/a", "../../../y/../z", "/x/z"),
        ("a", "./b", None),
    ],
)
def test_links_out_of_it(path: str, target: str, expected: str | None) -> None:
    """A relative way out becomes an absolute one: the link is going to stand deeper."""
    assert venv.outside(path, target, "/x/v") == expected


def test_which_of_two_is_installed() -> None:
    """What is whole, then what is newest."""
    assert venv.chosen([("1.0", "a", True), ("2.0", "b", False)]) == 0
    assert venv.chosen([("1.9", "a", True), ("1.10", "b", True)]) == 1
    assert venv.chosen([("odd version", "a", True), ("0.1", "b", True)]) == 1


def test_what_counts_as_asked_for() -> None:
    """What installers noted; where only pip was noted, or nothing, all that nothing else needs."""
    python = probe(INTERPRETERS[min(INTERPRETERS)], FileSystem())

    def distribution(name: str, requested: bool, *requires: str) -> Distribution:
        return Distribution(name, "1", "", "", requested, requires)

    app, lib, pip = distribution("app", False, "lib"), distribution("lib", False), distribution("pip", True)
    assert [item.text for item in requirements([app, lib, pip], python)] == ["app", "pip"]
    asked = distribution("lib", True)
    assert [item.text for item in requirements([app, asked, pip], python)] == ["lib", "pip"]
