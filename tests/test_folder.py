"""Plain directories from the command line: what is where, what stays, what is refused, who waits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import killing
from conftest import INTERPRETERS, STRESS, Ran, Siteswap
from siteswap import installation, place, scripts
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.place import Facts, hindrance
from wheelmaker import wheel

Install = Siteswap


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "plain"


@pytest.fixture
def versions(wheels: Path) -> Path:
    """Two versions of a package with a program, data and headers, and one that it needs."""
    for number in ("1.0", "2.0"):
        wheel(
            wheels, "demo", number, {"demo/__init__.py": f"V = {number!r}\n", f"demo/only{number[0]}.py": "",
                                     "demo/main.py": "def run():\n    import demo\n    print(demo.V)\n"},
            requires=["helper"], scripts={"demo": "demo.main:run"},
            data={"data/share/demo.txt": number, "headers/demo.h": number},
        )  # fmt: skip
    wheel(wheels, "helper", "1.0", {"helper.py": "H = 1\n"})
    return wheels


@pytest.fixture
def on(siteswap: Siteswap, top: Path, versions: Path) -> Install:
    """`siteswap install --target` from `versions`, without an index."""

    def run(*words: str | Path) -> Ran:
        return siteswap("install", "--target", top, "--no-index", "--find-links", versions, *words)

    return run


def everything(top: Path) -> dict[str, bytes]:
    """Every file and link by its path, byte-code aside."""
    return {
        str(path.relative_to(top)): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in top.rglob("*")
        if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts
    }


def run_in(top: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(top)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def siblings(top: Path) -> set[str]:
    return {path.name for path in top.parent.iterdir()} - {"wheels"}


def test_a_directory_from_nothing_to_gone(on: Install, siteswap: Siteswap, top: Path, tmp_path: Path) -> None:
    """Where pip puts things; files of nobody's stay, with their inodes; what goes leaves nothing behind."""
    assert on("demo==1.0", "--json").json["swap"] == "rename"
    assert {"demo/only1.py", "bin/demo", "share/demo.txt", "include/python/demo/demo.h"} <= everything(
        top
    ).keys()
    assert run_in(top, "import demo; print(demo.V)") == "1.0"
    script = (top / "bin/demo").read_text().splitlines()[0]
    assert script == f"#!{Path(sys.executable).resolve()}"
    assert all(path.stat().st_nlink == 1 for path in top.rglob("*") if path.is_file())
    (top / "mine.py").write_text("M = 1\n")
    (top / "link").symlink_to("mine.py")
    (top / "empty").mkdir()
    log = (top / "log").open("a")
    kept = (top / "log").stat().st_ino
    assert on("-U", "demo", "--json").json["swap"] == "exchange"
    print("still here", file=log, flush=True)
    log.close()
    assert ((top / "log").stat().st_ino, (top / "log").read_text()) == (kept, "still here\n")
    assert "demo/only1.py" not in everything(top)
    assert not list(top.rglob("only1*.pyc"))
    assert run_in(top, "import demo, mine; print(demo.V)") == "2.0"
    assert "nothing to do" in on("demo").ok().out
    listed = siteswap("list", "--target", top, "--json").json
    assert {(item["name"], item["version"], item["requested"]) for item in listed} == {
        ("demo", "2.0", True), ("helper", "1.0", False),
    }  # fmt: skip
    siteswap("uninstall", "--target", top, "demo").ok()
    assert everything(top).keys() == {"mine.py", "link", "log"}
    assert sorted(path.name for path in top.iterdir() if path.is_dir() and path.name != "__pycache__") == [
        "empty"
    ]
    assert siblings(top) == {"plain"}


def test_what_was_asked_for_is_remembered_without_a_database(
    on: Install, siteswap: Siteswap, top: Path, tmp_path: Path
) -> None:
    """In the .dist-info, so a copy knows it too; and a lock of it makes another directory the same."""
    on("demo<2").ok()
    copy = tmp_path / "copy"
    shutil.copytree(top, copy)
    again = siteswap(
        "install", "--target", copy, "--no-index", "--find-links", tmp_path / "wheels", "-U", "demo<2"
    )
    assert "nothing to do" in again.ok().out
    (tmp_path / "pylock.toml").write_text(siteswap("export", "--target", top).ok().out)
    siteswap("sync", "--target", tmp_path / "other", "-f", tmp_path / "wheels", "pylock.toml").ok()
    assert everything(tmp_path / "other") == everything(top)
    second = siteswap("sync", "--target", tmp_path / "other", "-f", tmp_path / "wheels", "pylock.toml")
    assert "nothing to do" in second.ok().out


def test_pip_reads_and_changes_what_siteswap_put_there(on: Install, siteswap: Siteswap, top: Path) -> None:
    """RECORD is right for others, and what they did is seen."""
    on("demo==1.0").ok()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    path = {**os.environ, "PYTHONPATH": str(top)}
    shown = subprocess.run([*pip, "show", "-f", "demo"], env=path, capture_output=True, text=True, check=True)
    assert "bin/demo" in shown.stdout
    assert "Requires: helper" in shown.stdout
    # pip itself uninstalls nothing from such a directory; uv does.
    uv = [sys.executable, "-m", "uv", "pip", "uninstall", "-q", "--target", str(top), "demo"]
    subprocess.run(uv, check=True)
    assert not (top / "bin/demo").exists()
    assert [item["name"] for item in siteswap("list", "--target", top, "--json").json] == ["helper"]
    wheels = top.parent / "wheels"
    subprocess.run(
        [*pip, "install", "-q", "--no-index", "-f", wheels, "-t", top, "demo==1.0", "--upgrade"], check=True
    )
    listed = {item["name"]: item["foreign"] for item in siteswap("list", "--target", top, "--json").json}
    assert listed == {"demo": True, "helper": True}
    on("-U", "demo").ok()
    assert run_in(top, "import demo; print(demo.V)") == "2.0"
    assert not (top / "demo/only1.py").exists()
    siteswap("uninstall", "--target", top, "demo").ok()
    assert not (top / "bin/demo").exists()


def test_what_is_missing_comes_back(on: Install, top: Path) -> None:
    on("demo==1.0").ok()
    (top / "demo/only1.py").unlink()
    on("demo==1.0").ok()
    assert (top / "demo/only1.py").exists()


@pytest.mark.parametrize("journal", [False, True])
def test_what_is_refused_changes_nothing(on: Install, top: Path, journal: bool) -> None:
    """Files of nobody's in the way; a candidate that fails its checks; an interruption by a failing gate."""
    on("helper").ok()
    if journal:
        (top / "private").mkdir(mode=0o700)
    (top / "demo").mkdir()
    (top / "demo/__init__.py").write_text("mine\n")
    before = everything(top)
    refused = on("demo")
    assert (refused.status, everything(top), siblings(top)) == (1, before, {"plain"})
    assert "demo/__init__.py is there already, and belongs to no distribution" in refused.err
    failed = on("--allow-overlap", "--check", "false", "demo")
    assert (failed.status, everything(top), siblings(top)) == (1, before, {"plain"})
    assert "the checks found 1 thing wrong; nothing was changed" in failed.err
    assert "would change" in on("--allow-overlap", "--dry-run", "demo").ok().out
    assert everything(top) == before
    done = on("--allow-overlap", "demo", "--json").json
    assert (done["swap"], "another owner or mode" in (done["why"] or "")) == (
        ("journal", True) if journal else ("exchange", False)
    )
    assert run_in(top, "import demo; print(demo.V)") == "2.0"
    assert not (top / ".siteswap-changing").exists()


def test_a_link_leads_nothing_out_of_place(on: Install, top: Path, tmp_path: Path) -> None:
    """A link where a package's directory should be is refused, not followed."""
    (tmp_path / "elsewhere").mkdir()
    on("helper").ok()
    (top / "demo").symlink_to("../elsewhere")
    refused = on("--allow-overlap", "demo")
    assert (refused.status, list((tmp_path / "elsewhere").iterdir())) == (1, [])
    assert "demo is no directory" in refused.err


@pytest.mark.parametrize("journal", [False, True])
def test_nothing_behind_a_link_is_removed(
    on: Install, siteswap: Siteswap, top: Path, tmp_path: Path, journal: bool
) -> None:
    """A RECORD that names files through a link: they are somebody else's."""
    on("demo==1.0").ok()
    (top / "demo").rename(tmp_path / "elsewhere")
    (top / "demo").symlink_to("../elsewhere")
    if journal:
        (top / "private").mkdir(mode=0o700)
    there = everything(tmp_path / "elsewhere")
    siteswap("uninstall", "--target", top, "demo").ok()
    assert everything(tmp_path / "elsewhere") == there
    assert everything(top).keys() == {"demo"}


def test_places_that_are_none(siteswap: Siteswap, env: Path, tmp_path: Path) -> None:
    """Environments, virtual environments, files, and options that do not go together."""
    for target in (env, env / "lib", env / ".siteswap/current/share"):
        refused = siteswap("install", "--target", target, "x")
        assert (refused.status, "in an environment of siteswap" in refused.err) == (2, True)
    (tmp_path / "file").write_text("")
    assert siteswap("install", "--target", tmp_path / "file", "x").status == 2
    assert siteswap("list", "--target", tmp_path / "nothing").status == 2
    assert siteswap("install", "--target", "x", "-e", env, "x").status == 2
    assert siteswap("install", "--break-system-packages", "x").status == 2
    assert siteswap("install", "--target", "x", "--editable", tmp_path).status == 2
    inside = siteswap("install", "--python", env / "bin/python", "x")
    assert (inside.status, f"siteswap install -e {env}" in inside.err) == (2, True)
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_somebody_elses_directory_is_not_trusted(on: Install, top: Path) -> None:
    top.mkdir()
    top.chmod(0o777)
    assert on("demo").status == 5
    assert list(top.iterdir()) == []


def test_two_commands_wait_for_each_other(on: Install, siteswap: Siteswap, top: Path, versions: Path) -> None:
    """Also where there was no such directory yet: one after the other, and both are there at the end."""
    words = [sys.executable, "-m", "siteswap", "install", "-q", "--target", str(top), "--no-index", "-f"]
    words.append(str(versions))
    both = [subprocess.Popen([*words, name]) for name in ("demo", "helper")]
    assert [running.wait() for running in both] == [0, 0]
    listed = siteswap("list", "--target", top, "--json").json
    assert {item["name"]: item["requested"] for item in listed} == {"demo": True, "helper": True}
    assert siblings(top) == {"plain"}
    held = FileSystem().lock_directory(top)
    assert held is not None
    with held:
        assert on("-U", "demo", "--lock-timeout", "0").status == 3


def test_an_exchange_killed_at_any_change(
    on: Install, siteswap: Siteswap, top: Path, versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL at changes of the disk around the exchange: exactly one version, without any recovery."""
    on("demo==1.0").ok()
    patterns = {"1.0": everything(top)}
    words = ("install", "--target", top, "--no-index", "--find-links", versions, "--no-check")
    whole = killing.run(0, signal.SIGKILL, *words, "demo==2.0")
    assert whole.status == 0, whole.err
    patterns["2.0"], old, seen = everything(top), "2.0", set()
    count = whole.changes
    for at in range(1, count + 1) if STRESS else range(count // 4, count, count // 8):
        wanted = "1.0" if old == "2.0" else "2.0"
        ended = killing.run(at, signal.SIGKILL, *words, f"demo=={wanted}")
        now = everything(top)
        old = "1.0" if "demo/only1.py" in now else "2.0"
        assert not ended.reported_success or old == wanted
        assert _without_notes(now) == _without_notes(patterns[old]), at
        seen.add("new" if old == wanted else "old")
        siteswap("list", "--target", top).ok()
        assert siblings(top) == {"plain"}
    with capsys.disabled():
        print(f"\n    killed: {seen}", end="")
    assert seen == {"old", "new"}


def _without_notes(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without what says which version was asked for by which words."""
    return {path: content for path, content in found.items() if "dist-info" not in path}


# -- interpreters ----------------------------------------------------------------------------------


@pytest.fixture
def own_python(tmp_path: Path) -> Path:
    """An interpreter of our own: a copy of one that finds its library by where it stands."""
    base = Path(sys.executable).resolve()
    prefix = base.parent.parent
    minor = f"python3.{sys.version_info.minor}"
    library = prefix / "lib" / minor
    if not (library / "os.py").exists():
        pytest.skip("this interpreter's library is elsewhere")
    (tmp_path / "own/bin").mkdir(parents=True)
    shutil.copy2(base, tmp_path / "own/bin" / minor)
    ignored = shutil.ignore_patterns(
        "test", "site-packages", "__pycache__", "idlelib", "ensurepip", "config-*"
    )
    shutil.copytree(library, tmp_path / "own/lib" / minor, ignore=ignored, symlinks=True)
    for shared in (prefix / "lib").glob("libpython*"):
        shutil.copy2(shared, tmp_path / "own/lib", follow_symlinks=False)
    (tmp_path / "own/lib" / minor / "site-packages").mkdir()
    return tmp_path / "own/bin" / minor


def test_site_packages_of_an_interpreter(
    own_python: Path, siteswap: Siteswap, versions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a journal: modules, programs, data and headers where its sysconfig says; killed, it is finished."""
    own = own_python.parent.parent
    site = own / "lib" / own_python.name / "site-packages"
    more = ("--python", own_python, "--no-index", "--find-links", versions)
    bare = everything(own)
    done = siteswap("install", *more, "demo==1.0", "--json").json
    assert (done["swap"], done["directory"]) == ("journal", str(site))
    assert (own / "share/demo.txt").read_text() == "1.0"
    run = subprocess.run([own / "bin/demo"], capture_output=True, text=True, check=True)
    assert run.stdout == "1.0\n"
    first = everything(own)
    whole = killing.run(0, signal.SIGKILL, "install", *more, "-U", "demo")
    assert whole.status == 0, whole.err
    second = everything(own)
    assert first != second
    assert (own / "share/demo.txt").read_text() == "2.0"
    seen, old = set(), "2.0"
    count = whole.changes
    moments = range(1, count + 1) if STRESS else sorted({*range(count - 60, count, 15), count // 2})
    for at in moments:
        wanted = "1.0" if old == "2.0" else "2.0"
        ended = killing.run(at, signal.SIGKILL, "install", *more, f"demo=={wanted}")
        listed = siteswap("list", "--python", own_python, "--json").json
        (version,) = [item["version"] for item in listed if item["name"] == "demo"]
        assert not ended.reported_success or version == wanted
        exactly = {path: content for path, content in everything(own).items() if "dist-info" not in path}
        pattern = first if version == "1.0" else second
        assert exactly == {path: content for path, content in pattern.items() if "dist-info" not in path}, at
        assert not (site / ".siteswap-changing").exists()
        seen.add("new" if version == wanted else "old")
        old = version
    with capsys.disabled():
        print(f"\n    {len(moments)} kills: {seen}", end="")
    assert seen == {"old", "new"}
    siteswap("uninstall", *more[:2], "demo").ok()
    assert everything(own) == bare


def test_an_externally_managed_interpreter_is_refused(
    own_python: Path, siteswap: Siteswap, versions: Path
) -> None:
    """With its manager's own words; --break-system-packages goes on; reading needs no leave."""
    own = own_python.parent.parent
    marker = own / "lib" / own_python.name / "EXTERNALLY-MANAGED"
    marker.write_text("[externally-managed]\nError=Ask the keeper\n of this machine.\n")
    more = ("--python", own_python, "--no-index", "--find-links", versions)
    before = everything(own)
    refused = siteswap("install", *more, "helper")
    assert (refused.status, everything(own)) == (5, before)
    assert "Ask the keeper\nof this machine." in refused.err
    assert "--break-system-packages" in refused.err
    assert siteswap("list", "--python", own_python, "--json").json == []
    siteswap("install", *more, "--break-system-packages", "helper").ok()
    assert siteswap("uninstall", *more[:2], "helper").status == 5
    siteswap("uninstall", *more[:2], "--break-system-packages", "helper").ok()
    assert everything(own) == before


def test_the_systems_own_interpreter_is_left_alone(siteswap: Siteswap) -> None:
    """Where the distribution of this machine manages it."""
    system = INTERPRETERS.get("system")
    if system is None or installation.ask(system).marked is None:
        pytest.skip("no interpreter here is managed by a distribution")
    refused = siteswap("install", "--python", system, "no-such-thing")
    assert refused.status == 5
    assert "is externally managed" in refused.err


# -- pure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "said"),
    [(None, "plain"), ("de_DE", "deutsch"), ("pt_BR", "brasil"), ("fr_FR", "plain"), ("de", "deutsch")],
)
def test_reasons_in_the_readers_language(language: str | None, said: str) -> None:
    marker = "[externally-managed]\nError=plain\nError-de=deutsch\nError-pt_BR=brasil\n"
    assert installation.reason(marker, language) == said


@pytest.mark.parametrize("marker", ["", "nonsense", "[other]\nError=x\n", "[externally-managed]\n"])
def test_a_marker_without_words(marker: str) -> None:
    assert installation.reason(marker, None) is None


GOOD = Facts(
    whole=True, exists=True, parent_writable=True, mounted=None, odd=None, attributed=False, exchanges=True
)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"exists": False, "exchanges": False}, None),
        ({"whole": False}, "something bigger"),
        ({"parent_writable": False}, "not writable"),
        ({"mounted": "/x"}, "mount point"),
        ({"odd": "/x"}, "another owner"),
        ({"attributed": True}, "attributes"),
        ({"exchanges": False}, "cannot exchange"),
    ],
)
def test_which_swap_a_place_allows(change: dict[str, object], why: str | None) -> None:
    said = hindrance(Facts(**{**GOOD.__dict__, **change}))
    assert (said is None) if why is None else (said is not None and why in said)


def test_paths_that_no_place_holds() -> None:
    where = place.site_packages(
        {
            "purelib": "/u/lib/p",
            "platlib": "/u/lib64/p",
            "scripts": "/u/bin",
            "data": "/u",
            "include": "/u/inc",
        },
        "x",
    )
    assert all(map(where.holds, ("u/lib/p/x.py", "u/bin/x", "u/share/x")))
    assert not any(map(where.holds, ("", "etc/passwd", "u/../etc/passwd", "/etc/passwd", "u//x", "u/./x")))
    with pytest.raises(SiteswapError) as caught:
        place.site_packages({"purelib": "relative"}, "x")
    assert caught.value.kind is Kind.SYSTEM


@pytest.mark.parametrize("before", ["/usr/bin/python3", f"/long/{'x' * 130}/python", "/with a space/python"])
@pytest.mark.parametrize("after", ["/opt/bin/python", f"/other/{'y' * 130}/python"])
@pytest.mark.parametrize("rest", [b"import x\n", b"# -*- coding: latin-1 -*-\nimport x\n", b""])
def test_programs_move_to_another_interpreter(before: str, after: str, rest: bytes) -> None:
    program = scripts.rewritten(b"#!python\n" + rest, before)
    assert program is not None
    assert scripts.rebound(program, before, after) == scripts.rewritten(b"#!python\n" + rest, after)
    assert scripts.rebound(b"#!/bin/sh\n" + rest, before, after) is None
