"""Damage by hand is found, named, and repaired from what is left; or said to be beyond repair."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import killing
from conftest import STRESS, Siteswap
from crashing import OPEN, Tree, World, assert_same, comparable, current, flips, generations, inside, look
from disk import EVERYTHING, NAMES_ONLY, NOTHING, ZEROS, any_order
from faulty import FaultyFileSystem
from siteswap import collect, lease
from siteswap.cache import Cache
from siteswap.doctor import around
from siteswap.doctor.contents import encoded
from siteswap.doctor.examination import examiner
from siteswap.doctor.findings import Finding, Severity, damage
from siteswap.doctor.repair import Repair, Repaired, open_layout
from siteswap.doctor.seen import Reader
from siteswap.environment import Environment
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem, access_of
from siteswap.layout import GenerationLayout, Number
from siteswap.progress import Progress
from siteswap.waiting import Waiting
from snapshots import age, site_packages, state


class Patient:
    """Generations 1 (empty), 2 (alpha 1, beta) and 3 (alpha 2, beta), and what they were before."""

    def __init__(self, base: Path) -> None:
        self.world = World(base)
        self.world.create()
        self.world.sync("one")
        self.world.sync("two")
        self.env = self.world.env
        age(self.env)
        self.sound = self.world.look()

    def generation(self, number: int = 3) -> Path:
        return self.env / ".siteswap/generations" / str(number)

    def site(self, number: int = 3) -> Path:
        return site_packages(self.generation(number))

    def doctor(self, python_path: str | None = None) -> tuple[Finding, ...]:
        fs, layout = self._open(None)
        cache = Cache(self.world.cache, FileSystem())
        return examiner(fs, layout, Progress(), cache, python_path).examine().findings

    def repair(self, fs: FileSystem | None = None) -> Repaired:
        fs, layout = self._open(fs)
        waiting = Waiting(fs, layout, Progress(), 0, "doctor --repair")
        cache = Cache(self.world.cache, fs)
        return Repair(fs, layout, Progress(), waiting, lambda: OPEN, command="doctor", cache=cache).run()

    def _open(self, fs: FileSystem | None):  # type: ignore[no-untyped-def]
        layout = open_layout(FileSystem(), self.env)
        return fs or FileSystem(access_of(layout.root)), layout

    def assert_healed(self, *numbers: int) -> None:
        """What is current holds exactly what generation 3 held, and nothing is left to repair."""
        tree = self.world.look()
        number = current(tree)
        assert number in numbers
        assert_same(comparable(inside(tree, number)), comparable(inside(self.sound, 3)), "not what it was")
        for older in (1, 2):
            assert_same(
                comparable(inside(tree, older)), comparable(inside(self.sound, older)), f"{older} is damaged"
            )
        assert [path for path in tree if path.startswith("env/.siteswap/staging/")] == []
        assert damage(self.doctor()) == []


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def said(findings: tuple[Finding, ...] | list[Finding]) -> str:
    return "\n".join(
        f"{item.severity.value} {item.place}: {item.distribution}: {item.what}" for item in findings
    )


def write_through(path: Path, text: str) -> None:
    """Into the very inode, as an editor that does not replace files does."""
    with path.open("r+") as stream:
        stream.truncate()
        stream.write(text)


def test_a_sound_environment_is_left_alone(patient: Patient) -> None:
    before = state(patient.env)
    assert patient.doctor() == ()
    assert state(patient.env) == before
    assert patient.repair().done == ()
    assert state(patient.env) == before


def test_it_holds_leases_while_it_reads(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every reader does: nothing that it looks at is collected meanwhile."""
    real, held = Reader.read, []

    def read(self: Reader, where: GenerationLayout, *more: Any) -> Any:
        held.append(FileSystem().lock(where.lease, make=False) is None)
        return real(self, where, *more)

    monkeypatch.setattr(Reader, "read", read)
    patient.doctor()
    assert held == [True] * 3


# -- damage to the current generation ------------------------------------------------------------

Hurt = Callable[[Patient], Any]

X = "alpha/new/x.py"
INFO = "alpha-2.0.dist-info"

CURRENT: dict[str, tuple[Hurt, str]] = {
    "deleted file": (lambda p: (p.site() / X).unlink(), f"{X} is missing"),
    "truncated file": (lambda p: os.truncate(p.site() / X, 2), "has 2 bytes where RECORD"),
    "edited file": (
        lambda p: write_through(p.site() / X, "N = 3\n"), "not have the content"
    ),
    "edited script": (lambda p: write_through(p.generation() / "bin/alpha", "#!/bin/sh\n"), "alpha has 10"),
    "broken link": (
        lambda p: _linked(p.site() / X, "gone"),
        "is a link and not a regular file",
    ),
    "directory for a file": (
        lambda p: _linked(p.site() / X, None),
        "is a directory and not a regular file",
    ),
    "lost RECORD": (lambda p: (p.site() / f"{INFO}/RECORD").unlink(), "RECORD is missing"),
    "RECORD cut short": (
        lambda p: os.truncate(p.site() / f"{INFO}/RECORD", 100), "RECORD was cut short"
    ),
    "RECORD with a row less": (
        lambda p: _without_row(p.site() / "beta-1.0.dist-info/RECORD", "beta.py"), "RECORD lacks files"
    ),
    "lost METADATA": (lambda p: (p.site() / f"{INFO}/METADATA").unlink(), "METADATA is missing"),
    "lost .dist-info": (lambda p: shutil.rmtree(p.site() / INFO), ".dist-info directory is"),
    "half a generation": (
        lambda p: _without(p.generation(), "lib", "etc"), "is missing"
    ),
    "lost manifest": (
        lambda p: (p.generation() / ".generation/manifest.json").unlink(), "generation 3 has no manifest"
    ),
    "truncated manifest": (
        lambda p: os.truncate(p.generation() / ".generation/manifest.json", 200), "json cannot be read"
    ),
    "manifest of another": (
        lambda p: shutil.copy(p.generation(2) / ".generation/manifest.json", p.generation() / ".generation"),
        "its manifest is that of generation 2",
    ),
    "manifest without one of them": (lambda p: _forget(p, "beta"), "does not have beta-1.0"),
    "file without mode": (lambda p: (p.site() / X).chmod(0o600), "has mode 600, not 644"),
    "script not executable": (lambda p: (p.generation() / "bin/alpha").chmod(0o644), "has mode 644, not 755"),
    "directory without mode": (lambda p: (p.site() / "alpha").chmod(0o700), "alpha has mode 700, not 755"),
    "truncated launcher": (lambda p: _replaced(p.generation() / "bin/python", b"\x7fELF"), "not a launcher"),
    "edited runtime": (lambda p: _replaced(p.site() / "_siteswap.py", b"boom\n"), "_siteswap.py is not what"),
    "lost pyvenv.cfg": (lambda p: (p.generation() / "pyvenv.cfg").unlink(), "pyvenv.cfg is missing"),
    "edited activate": (lambda p: _replaced(p.generation() / "bin/activate", b"x\n"), "activate is not what"),
    "lost lease": (lambda p: (p.generation() / ".generation/lease").unlink(), "lease is missing"),
    "lost list": (lambda p: (p.generation() / ".generation/directories").unlink(), "directories is missing"),
    "lost link to the base": (lambda p: (p.generation() / ".generation/python").unlink(), "base interpreter"),
    "lost lib64": (lambda p: (p.generation() / "lib64").unlink(), "lib64 is not the link"),
}  # fmt: skip


def _forget(patient: Patient, name: str) -> None:
    path = patient.generation() / ".generation/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["distributions"] = [item for item in manifest["distributions"] if item["name"] != name]
    path.write_text(json.dumps(manifest))


def _without(directory: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(directory / name)


def _linked(path: Path, target: str | None) -> None:
    """A link where something else was; a directory without a target."""
    path.unlink()
    if target is None:
        path.mkdir()
    else:
        path.symlink_to(target)


def _without_row(path: Path, start: str) -> None:
    """In a copy: others keep theirs."""
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith(start)]
    _replaced(path, "".join(lines).encode())


def _replaced(path: Path, content: bytes) -> None:
    mode = path.lstat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(stat.S_IMODE(mode))


@pytest.mark.parametrize("name", CURRENT)
def test_damage_to_the_current_generation(patient: Patient, name: str) -> None:
    """Found, named, and replaced by a new generation that is what the damaged one was."""
    hurt, words = CURRENT[name]
    hurt(patient)
    damaged = state(patient.env)
    found = patient.doctor()
    assert state(patient.env) == damaged
    assert words in said(damage(found))
    assert all(item.cure.value == "repair" and item.how for item in damage(found)), found
    was = inside(patient.world.look(), 3)
    done = patient.repair()
    assert damage(done.after) == []
    patient.assert_healed(4)
    assert_same(inside(patient.world.look(), 3), was, "[I2] the damaged generation was changed in place")
    assert flips(patient.world.look())[-1] == ("repair", 3, 4)
    environment = Environment.open(patient.env)
    with pytest.raises(SiteswapError, match="generation 3 is damaged; 4 was repaired from it"):
        environment.rollback(Number(3))
    assert patient.repair().done == ()


def test_an_edit_through_a_hard_link_is_named_everywhere(patient: Patient) -> None:
    """It damages each generation that shares the file, and the cache: all are named, none is trusted."""
    write_through(patient.site() / "beta.py", "B = 9\n")
    found = {item.place: item for item in damage(patient.doctor())}
    assert found.keys() == {"generation 2", "generation 3", "cache"}
    for item in found.values():
        assert len(item.shared) == 2, item
    done = patient.repair()
    assert "what was edited in beta is not in generation 4" in "\n".join(done.done)
    patient.assert_healed(4)
    assert (patient.site(3) / "beta.py").read_text() == "B = 9\n"
    (entry,) = [
        path for path in (patient.world.cache / "wheels").iterdir() if (path / "purelib/beta.py").exists()
    ]
    assert (entry / "purelib/beta.py").read_text() == "B = 1\n"


def test_a_damaged_spare_is_recycled_by_nobody(patient: Patient) -> None:
    shutil.copytree(patient.generation(2), patient.env / ".siteswap/spare", symlinks=True)
    write_through(patient.env / ".siteswap/spare/lib" / site_packages(patient.generation(2)).relative_to(
        patient.generation(2) / "lib") / "beta.py", "B = 9\n")  # fmt: skip
    assert [item.place for item in damage(patient.doctor())] == ["the spare"]
    patient.repair()
    assert not (patient.env / ".siteswap/spare").exists()
    patient.assert_healed(3)


def test_what_belongs_to_nobody_is_kept(patient: Patient) -> None:
    """Added files are named, no damage, and carried along by a repair; not where they are in the way."""
    (patient.generation() / "etc/mine.conf").write_text("mine\n")
    found = patient.doctor()
    assert damage(found) == []
    assert "note generation 3: None: files of no distribution: etc/mine.conf" in said(found)
    (patient.site() / "alpha/new/x.py").unlink()
    (patient.site() / "alpha/new").rename(patient.site() / "alpha/moved")
    (patient.site() / "alpha/new").symlink_to("nowhere")
    done = patient.repair()
    assert damage(done.after) == []
    assert (patient.generation(4) / "etc/mine.conf").read_text() == "mine\n"
    assert (patient.site(4) / "alpha/new/x.py").read_text() == "N = 2\n"
    assert "alpha/new is in the way and is not carried along" in "\n".join(done.done)


def put_by_another_tool(site: Path, name: str) -> Path:
    """A distribution as another tool installs one; returns its module."""
    module, info = site / f"{name}.py", site / f"{name}-1.0.dist-info"
    info.mkdir()
    rows = []
    for path, text in (
        (module, "G = 1\n"),
        (info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"),
        (info / "INSTALLER", "pip\n"),
    ):
        path.write_text(text)
        rows.append(f"{path.relative_to(site)},sha256={encoded(hashlib.sha256(text.encode()).digest())},")
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")
    return module


def test_work_of_another_tool_is_no_damage_but_may_be_damaged(patient: Patient) -> None:
    """Nobody knows where it came from: what no generation has any more is beyond repair."""
    module = put_by_another_tool(patient.site(), "gamma")
    shutil.rmtree(patient.site() / "beta-1.0.dist-info")
    (patient.site() / "beta.py").unlink()
    found = patient.doctor()
    assert damage(found) == []
    assert "another tool installed gamma 1.0" in said(found)
    assert "another tool removed beta" in said(found)
    module.write_text("G = 2\n")
    (patient.site() / X).unlink()
    done = patient.repair()
    assert {item.distribution for item in damage(done.after)} == {"alpha", "gamma"}
    assert {item.cure.value for item in damage(done.after)} == {"beyond"}
    assert any("no undamaged copy of gamma 1.0 is left" in item.how for item in done.after)
    module.write_text("G = 1\n")
    assert damage(patient.repair().after) == []
    assert (patient.site(4) / "gamma.py").read_text() == "G = 1\n"
    assert not (patient.site(4) / "beta.py").exists()


def test_an_upgrade_by_another_tool_is_no_damage(patient: Patient) -> None:
    """Also where it brings directories that we never listed."""
    shutil.rmtree(patient.site() / "beta-1.0.dist-info")
    (patient.site() / "beta.py").unlink()
    put_by_another_tool(patient.site(), "beta").write_text("G = 1\n")
    (patient.site() / "beta-1.0.dist-info").rename(patient.site() / "beta-2.0.dist-info")
    for name in ("METADATA", "RECORD"):
        path = patient.site() / "beta-2.0.dist-info" / name
        text = path.read_text().replace("Version: 1.0", "Version: 2.0").replace("beta-1.0", "beta-2.0")
        path.write_text(text)
    record = patient.site() / "beta-2.0.dist-info/RECORD"
    digest = hashlib.sha256((record.parent / "METADATA").read_bytes()).digest()
    lines = [line for line in record.read_text().splitlines() if "METADATA" not in line]
    lines.append(f"beta-2.0.dist-info/METADATA,sha256={encoded(digest)},")
    record.write_text("\n".join(lines) + "\n")
    found = patient.doctor()
    assert damage(found) == []
    assert "another tool installed beta 2.0" in said(found)


def test_a_manifest_that_nothing_proves_is_not_guessed_at(patient: Patient) -> None:
    for name in ("manifest.json", "pylock.toml"):
        (patient.generation() / ".generation" / name).unlink()
    (found,) = damage(patient.doctor())
    assert "it cannot be put together again: nothing says where alpha 2.0 came from" in found.what
    assert (found.cure.value, found.how) == ("beyond", "siteswap rollback 2")
    before = state(patient.env)
    with pytest.raises(SiteswapError, match="beyond repair") as refused:
        patient.repair()
    assert refused.value.hint == "siteswap rollback 2"
    assert state(patient.env) == before
    Environment.open(patient.env).rollback(Number(2))


# -- where undamaged content comes from -----------------------------------------------------------


def test_without_a_cache_other_generations_have_it(patient: Patient) -> None:
    shutil.rmtree(patient.world.cache)
    shutil.rmtree(patient.world.wheels)
    (patient.site() / "beta.py").unlink()
    assert "from undamaged copies of its files" in [item.how.partition(",")[0] for item in patient.doctor()]
    patient.repair()
    patient.assert_healed(4)


def test_without_a_cache_the_index_has_it(patient: Patient) -> None:
    """By the recorded place and hash."""
    shutil.rmtree(patient.world.cache)
    (patient.site() / "alpha/new/x.py").unlink()
    assert "fetched anew (wheel:sha256:" in patient.doctor()[0].how
    patient.repair()
    patient.assert_healed(4)


def test_a_copy_that_is_damaged_too_is_none(patient: Patient) -> None:
    """Every copy is held against the hash that RECORD has: one with other content is as good as none."""
    shutil.rmtree(patient.world.cache)
    shutil.rmtree(patient.world.wheels)
    (patient.site(3) / "beta.py").unlink()
    _replaced(patient.site(2) / "beta.py", b"B = 2\n")
    before = patient.world.look()
    done = patient.repair()
    assert "beta" in said(damage(done.after))
    assert {item.cure.value for item in damage(done.after)} == {"beyond"}
    tree = patient.world.look()
    assert current(tree) == 3
    assert_same(inside(tree, 3), inside(before, 3), "nothing was papered over")


def test_a_copy_that_changes_meanwhile_is_found_out(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was built is read again before it goes live: every byte of it."""
    shutil.rmtree(patient.world.cache)
    (patient.site(3) / "beta.py").unlink()
    monkeypatch.setattr(Repair, "_discard", lambda *_: write_through(patient.site(2) / "beta.py", "B = 9\n"))
    with pytest.raises(SiteswapError, match=r"are damaged too: .*beta\.py"):
        patient.repair()
    tree = patient.world.look()
    assert (current(tree), sorted(generations(tree))) == (3, [1, 2, 3])


def test_what_cannot_be_had_is_said_to_be_beyond_repair(patient: Patient) -> None:
    shutil.rmtree(patient.world.cache)
    shutil.rmtree(patient.world.wheels)
    (patient.site() / "alpha/new/x.py").unlink()
    done = patient.repair()
    (left,) = damage(done.after)
    assert left.cure.value == "beyond"
    assert "cannot read" in left.how
    assert current(patient.world.look()) == 3


# -- older generations ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deleted", "manifest", "half", "modes", "lock"])
def test_an_older_generation_is_rebuilt_in_its_place(patient: Patient, name: str) -> None:
    site, corner = patient.site(2), patient.generation(2) / ".generation"
    hurts: dict[str, Callable[[], object]] = {
        "deleted": (site / "alpha/old.py").unlink,
        "manifest": (corner / "manifest.json").unlink,
        "half": lambda: shutil.rmtree(patient.generation(2) / "lib"),
        "modes": lambda: (site / "alpha/old.py").chmod(0o666),
        "lock": lambda: shutil.copy(patient.generation(1) / ".generation/pylock.toml", corner),
    }
    if name == "lock":
        patient.world.sync("one")  # another generation has the same lock
        age(patient.env)
        patient.sound = patient.world.look()
    hurts[name]()
    assert {item.generation for item in damage(patient.doctor()) if item.place != "cache"} == {2}
    done = patient.repair()
    assert "generation 2 was rebuilt in its place" in done.done
    tree = patient.world.look()
    assert_same(comparable(inside(tree, 2)), comparable(inside(patient.sound, 2)), "not what it was")
    assert current(tree) == current(patient.sound)
    assert damage(patient.doctor()) == []
    Environment.open(patient.env).rollback(Number(2))


def test_an_older_generation_beyond_repair_is_refused_by_rollback(patient: Patient) -> None:
    """Also where only content is wrong, which rollback itself would not see."""
    shutil.rmtree(patient.world.cache)
    shutil.rmtree(patient.world.wheels)
    _replaced(patient.site(2) / "alpha/old.py", b"O = 2\n")
    done = patient.repair()
    assert {item.generation for item in damage(done.after)} == {2}
    with pytest.raises(SiteswapError, match="generation 2 is damaged") as refused:
        Environment.open(patient.env).rollback(Number(2))
    assert refused.value.kind is Kind.DAMAGED


@pytest.mark.parametrize("visible", [True, False])
def test_who_uses_a_damaged_generation_is_not_disturbed(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, visible: bool
) -> None:
    """A pinned process goes on in its generation, damaged as it is; that one is repaired later [I6] [I7].

    Also where it cannot be seen: its lease is the proof.
    """
    if not visible:
        monkeypatch.setattr(lease, "users", lambda _: [])
    Environment.open(patient.env).rollback(Number(2))
    script = (
        "import sys, beta\nprint('ready', flush=True)\nsys.stdin.readline()\nimport alpha.old, alpha.same\n"
    )
    script += "print(sys.prefix, alpha.old.O, alpha.same.S)\n"
    with subprocess.Popen(
        [patient.env / "bin/python", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "ready\n"
        Environment.open(patient.env).rollback(Number(3))
        age(patient.env)
        write_through(patient.site(2) / "alpha/old.py", "O = 'edited'\n")
        lease_before = (patient.generation(2) / ".generation/lease").stat().st_ino
        done = patient.repair()
        words = "generation 2 is in use" if visible else "used by a process that this user may not look at"
        assert words in "\n".join(done.done)
        assert "later" in damage(done.after)[0].how
        assert (patient.generation(2) / ".generation/lease").stat().st_ino == lease_before
        out, _ = user.communicate("\n", timeout=60)
    assert out.split() == [str(patient.generation(2)), "edited", "0"]
    assert damage(patient.repair().after) == []
    assert (patient.site(2) / "alpha/old.py").read_text() == "O = 1\n"


def test_who_uses_the_damaged_current_generation_keeps_it(patient: Patient) -> None:
    script = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    script += "import alpha\nprint(sys.prefix, alpha.V)\n"
    with subprocess.Popen(
        [patient.env / "bin/python", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        (patient.site() / "alpha/new/x.py").unlink()
        patient.repair()
        out, _ = user.communicate("\n", timeout=60)
    assert out.split() == [str(patient.generation(3)), "2"]
    patient.assert_healed(4)


def test_without_its_lease_nothing_proves_disuse(patient: Patient) -> None:
    """[I11] An older generation that lost its lease stays, and the finding says why."""
    (patient.generation(2) / ".generation/lease").unlink()
    done = patient.repair()
    (left,) = damage(done.after)
    assert (left.generation, left.cure.value) == (2, "beyond")
    assert "nobody can tell who uses it" in left.how
    gone, stays = Environment.open(patient.env).gc(0)
    assert 2 not in gone
    assert "its lease is gone" in next(item.reason for item in stays if item.number == 2)


# -- around the generations -----------------------------------------------------------------------

AROUND: dict[str, tuple[Hurt, str]] = {
    "current is missing": (lambda p: (p.env / ".siteswap/current").unlink(), ".siteswap/current is missing"),
    "current is no link": (
        lambda p: _replaced(p.env / ".siteswap/current", b"3"),
        ".siteswap/current is no link",
    ),
    "format is missing": (lambda p: (p.env / ".siteswap/format").unlink(), ".siteswap/format is missing"),
    "format is empty": (lambda p: os.truncate(p.env / ".siteswap/format", 0), ".siteswap/format is missing"),
    "link is missing": (lambda p: (p.env / "bin").unlink(), "the link bin is missing"),
    "link leads elsewhere": (
        lambda p: _linked(p.env / "lib", "/nowhere"), "lib leads elsewhere"
    ),
    "pyvenv.cfg is missing": (lambda p: (p.env / "pyvenv.cfg").unlink(), "pyvenv.cfg is missing"),
    "pyvenv.cfg is empty": (lambda p: os.truncate(p.env / "pyvenv.cfg", 0), "pyvenv.cfg is missing or empty"),
    "staging is missing": (lambda p: (p.env / ".siteswap/staging").rmdir(), ".siteswap/staging is missing"),
    "history is missing": (lambda p: (p.env / ".siteswap/history").unlink(), "does not know generation 1, 2"),
    "history lost a line": (lambda p: _without_line(p.env / ".siteswap/history", 1), "not know generation 1"),
}  # fmt: skip


def _without_line(path: Path, number: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:number] + lines[number + 1 :]))


@pytest.mark.parametrize("name", AROUND)
def test_damage_around_the_generations(patient: Patient, name: str) -> None:
    """Each is put back as it was, no new generation is made, and every generation is known again."""
    hurt, words = AROUND[name]
    hurt(patient)
    damaged = state(patient.env)
    assert words in said(damage(patient.doctor()))
    assert state(patient.env) == damaged
    patient.repair()
    patient.assert_healed(3)
    tree = patient.world.look()
    for path, thing in patient.sound.items():
        if not path.startswith(("env/.siteswap/history", "env/.siteswap/writer", "cache/")):
            same = tree.get(path) == thing or path in ("env/pyvenv.cfg", "env/.siteswap/lock")
            assert same, (path, thing, tree.get(path))
    assert {item[2] for item in flips(tree)} == {1, 2, 3}
    environment = Environment.open(patient.env)
    environment.rollback(Number(2))
    environment.rollback(Number(3))


def test_a_generation_that_was_gone_back_from_survives_the_loss_of_history(patient: Patient) -> None:
    """It is numbered above all that is known then: recovery would take it for garbage."""
    Environment.open(patient.env).rollback(Number(2))
    (patient.env / ".siteswap/history").unlink()
    assert "does not know generation 1, 2, 3" in said(damage(patient.doctor()))
    patient.repair()
    assert generations(patient.world.look()) == {1: "directory", 2: "directory", 3: "directory"}
    Environment.open(patient.env).rollback(Number(3))


def test_an_environment_that_was_moved_is_left_alone(patient: Patient) -> None:
    """Its programs name another place: nothing that a repair could put back would make it whole."""
    moved = patient.env.with_name("moved")
    patient.env.rename(moved)
    patient.env = moved
    (moved / "bin").unlink()
    before = state(moved)
    found = next(item for item in patient.repair().after if item.kind.value == "format")
    assert "it was made at" in found.what
    assert found.cure.value == "beyond"
    assert state(moved) == before
    (moved / ".siteswap/format").unlink()
    with pytest.raises(SiteswapError, match="nothing proves that the environment was made here"):
        patient.repair()


def test_a_tombstone_that_leads_elsewhere(patient: Patient) -> None:
    Environment.open(patient.env).gc(1)
    tombstone = patient.generation(1)
    tombstone.unlink()
    tombstone.symlink_to("/etc")
    assert "the tombstone of generation 1 leads elsewhere" in said(damage(patient.doctor()))
    assert damage(patient.repair().after) == []
    assert os.readlink(tombstone) == "../current"


def test_tags(patient: Patient) -> None:
    """What can still be read of a torn file of tags is kept; a tag of a generation that is gone goes."""
    environment = Environment.open(patient.env)
    for number, name in ((1, "first"), (2, "good"), (3, "z")):
        environment.tag(Number(number), name)
    tags = patient.env / ".siteswap/tags"
    os.truncate(tags, tags.stat().st_size - 6)
    assert "tags cannot be read" in said(damage(patient.doctor()))
    patient.repair()
    assert environment.tags() == {"first": 1, "good": 2}
    tags.write_text(json.dumps({"good": 2, "gone": 9}))
    assert "tag gone names generation 9, which is gone" in said(damage(patient.doctor()))
    patient.repair()
    assert environment.tags() == {"good": 2}


def test_a_current_generation_that_is_gone_is_not_guessed_at(patient: Patient) -> None:
    """Going back is a decision: the next step is named, and nothing else is touched."""
    shutil.rmtree(patient.generation(3))
    (found,) = damage(patient.doctor())
    assert "names generation 3, which is not there" in found.what
    assert found.how == f"siteswap rollback -e {patient.env} 2"
    before = state(patient.env)
    assert damage(patient.repair().after)
    assert state(patient.env) == before
    Environment.open(patient.env).rollback(Number(2))
    assert damage(patient.doctor()) == []


def test_what_stands_in_the_way_of_a_link_is_left_alone(patient: Patient) -> None:
    (patient.env / "bin").unlink()
    (patient.env / "bin").mkdir()
    (patient.env / "bin/mine").write_text("mine")
    (left,) = damage(patient.repair().after)
    assert left.cure.value == "beyond"
    assert "move" in left.how
    assert (patient.env / "bin/mine").read_text() == "mine"


def test_what_a_crash_left_is_no_damage(patient: Patient) -> None:
    (patient.env / ".siteswap/staging/work.1.2").mkdir()
    shutil.copytree(patient.generation(3), patient.generation(4), symlinks=True)
    found = patient.doctor()
    assert damage(found) == []
    assert "left by a crash: staging/work.1.2, generations/4" in said(found)
    patient.repair()
    patient.assert_healed(3)


# -- the base interpreter, PYTHONPATH --------------------------------------------------------------


def lose_the_interpreter(patient: Patient) -> None:
    """As if it had stood elsewhere, where it is no more."""
    executable = Environment.open(patient.env).current.interpreter.executable
    for number in (1, 2, 3):
        corner = patient.generation(number) / ".generation"
        manifest = json.loads((corner / "manifest.json").read_text())
        manifest["interpreter"]["executable"] = "/nowhere/bin/python"
        (corner / "manifest.json").write_text(json.dumps(manifest))
        (corner / "python").unlink()
        (corner / "python").symlink_to("/nowhere/bin/python")
    config = patient.generation() / "pyvenv.cfg"
    write_through(config, config.read_text().replace(executable, "/nowhere/bin/python"))


def test_another_copy_of_the_base_interpreter_takes_its_place(patient: Patient) -> None:
    lose_the_interpreter(patient)
    found = damage(patient.doctor())
    assert "the interpreter of this environment, /nowhere/bin/python, is gone" in said(found)
    assert subprocess.run([patient.env / "bin/alpha"], capture_output=True, check=False).returncode != 0
    done = patient.repair()
    assert damage(done.after) == []
    ran = subprocess.run([patient.env / "bin/python", "-c", "import alpha"], check=False)
    assert ran.returncode == 0


def test_without_any_the_next_step_is_named(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_the_interpreter(patient)
    monkeypatch.setattr(around, "_stand_in", lambda fs, known: None)
    before = inside(patient.world.look(), 3)
    left = [item for item in damage(patient.repair().after) if item.kind.value == "interpreter"]
    assert "siteswap create NEW --python" in left[0].how
    assert f"siteswap sync -e NEW {patient.generation()}/.generation/pylock.toml" in left[0].how
    assert_same(inside(patient.world.look(), 3), before, "changed")


def test_a_pythonpath_into_the_environment_is_told(patient: Patient) -> None:
    """It cannot be pinned; nothing is damaged."""
    path = os.pathsep.join(["/somewhere", str(patient.env / "lib/python3/site-packages")])
    (found,) = patient.doctor(path)
    assert (found.kind.value, found.severity) == ("pythonpath", Severity.WARNING)
    assert patient.doctor("/somewhere") == ()


# -- the command line ------------------------------------------------------------------------------


def test_the_command(patient: Patient, siteswap: Siteswap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITESWAP_CACHE_DIR", str(patient.world.cache))
    words = ("doctor", "-e", patient.env)
    sound = siteswap(*words)
    assert (sound.status, sound.out) == (0, "nothing is damaged\n")
    (patient.site() / "alpha/new/x.py").unlink()
    (patient.env / ".siteswap/current").unlink()
    refused = siteswap("list", "-e", patient.env)
    assert refused.status == 4
    assert "siteswap doctor --repair" in refused.err
    found = siteswap(*words, "--json")
    assert found.status == 4
    data = json.loads(found.out)
    assert data["damaged"] is True
    assert {item["kind"] for item in data["findings"]} == {"current", "file"}
    shown = siteswap(*words)
    assert shown.status == 4
    assert "→ from the cache, in a new generation" in shown.out
    assert "2 things are damaged" in shown.err
    done = siteswap(*words, "--repair", "--json").json
    assert (done["generation"], done["was"], done["damaged"]) == (4, 3, False)
    assert siteswap(*words).status == 0
    patient.assert_healed(4)


@pytest.mark.parametrize("lost", ["format", "current"])
def test_other_commands_name_the_next_step(patient: Patient, lost: str) -> None:
    (patient.env / ".siteswap" / lost).unlink()
    with pytest.raises(SiteswapError) as refused:
        Environment.open(patient.env).current  # noqa: B018
    assert refused.value.kind is Kind.DAMAGED
    assert "siteswap doctor --repair" in (refused.value.hint or "")


# -- crashes ---------------------------------------------------------------------------------------


def hurt_both(patient: Patient) -> None:
    """Work for every step: links, the cache, the current generation and an older one."""
    (patient.env / "etc").unlink()
    (patient.site() / "alpha/new/x.py").unlink()
    write_through(patient.site(2) / "beta.py", "B = 'edited'\n")


@pytest.mark.stress
def test_a_repair_killed_at_any_change(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The damaged generation is current, or the repaired one; the next repair goes through."""
    monkeypatch.setenv("SITESWAP_CACHE_DIR", str(patient.world.cache))
    hurt_both(patient)
    backup = patient.world.work.with_name("backup")
    subprocess.run(["cp", "-a", patient.world.work, backup], check=True)
    words = ("doctor", "--repair", "--no-check", "-e", patient.env)
    whole = killing.run(0, signal.SIGKILL, *words)
    assert whole.status == 0, whole.err
    patient.assert_healed(4)
    chance, outcomes = random.Random(os.getpid()), set()
    step = 1 if STRESS else whole.changes // 6
    for at in range(1 if STRESS else 1 + chance.randrange(step), whole.changes, step):
        shutil.rmtree(patient.world.work)
        subprocess.run(["cp", "-a", backup, patient.world.work], check=True)
        damaged = patient.world.look()
        done = killing.run(at, signal.SIGKILL, *words)
        assert done.status in (0, -9), done
        tree = patient.world.look()
        outcomes.add(check_old_or_new(patient, damaged, tree))
        patient.repair()
        patient.assert_healed(4, 5)  # killed between record and flip, the number is not used again (T6)
    assert outcomes == {3, 4}


def check_old_or_new(patient: Patient, damaged: Tree, tree: Tree) -> int:
    """Each generation is what it was, damaged, or what it should be; says which one is current."""
    number = current(tree)
    assert number in (3, 4), "[I1]"
    if number == 4:
        assert_same(comparable(inside(tree, 4)), comparable(inside(patient.sound, 3)), "[I1] half a repair")
    assert_same(inside(tree, 3), inside(damaged, 3), "[I2] changed in place")
    assert generations(tree)[2] == "directory"
    if inside(tree, 2) != inside(damaged, 2):
        assert_same(comparable(inside(tree, 2)), comparable(inside(patient.sound, 2)), "half rebuilt")
    return number


def test_a_repair_that_loses_power(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk keeps, after any operation; and from some of these states the next repair starts."""
    monkeypatch.setattr(lease, "users", lambda _: [])
    hurt_both(patient)
    damaged = patient.world.look()
    fs = FaultyFileSystem(patient.world.work)
    monkeypatch.setattr(FileSystem, "_link_threads", 1)
    patient.repair(fs)
    journal = fs.journal
    chance = random.Random(1)
    outcomes = set()
    count = journal.mark()
    for at in range(count + 1):
        for fate in (NOTHING, EVERYTHING, NAMES_ONLY, ZEROS, any_order(chance)):
            tree = look(journal.cut(at, fate))
            outcomes.add(check_old_or_new(patient, damaged, tree))
        check_old_or_new(patient, damaged, look(journal.killed(at)))
    assert outcomes == {3, 4}
    final = look(journal.cut(count, NOTHING))
    assert current(final) == 4, "[I5] a reported repair did not last"
    assert_same(comparable(inside(final, 2)), comparable(inside(patient.sound, 2)), "[I5] not for good")
    for at in sorted(chance.sample(range(1, count), 8)):
        patient.world.restore(journal.cut(at, any_order(chance)))
        patient.repair()
        patient.assert_healed(4, 5)


def test_a_rebuilt_generation_waits_for_who_may_be_starting(patient: Patient) -> None:
    """What was current a moment ago is left alone as long as collecting leaves it."""
    Environment.open(patient.env).rollback(Number(2))
    Environment.open(patient.env).rollback(Number(3))
    (patient.site(2) / "alpha/old.py").unlink()
    seen: list[bool] = []
    real = collect.supplant

    def supplant(fs, layout, number, rebuilt, users):  # type: ignore[no-untyped-def]
        operations = Environment.open(patient.env).history()
        seen.append(bool(operations) and number in collect.recently_current(
            [item for past in operations for item in past.operations]))  # fmt: skip
        return real(fs, layout, number, rebuilt, users)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "supplant", supplant)
        patch.setattr(collect, "GRACE_SECONDS", 1.5)
        patient.repair()
    assert seen == [False]
