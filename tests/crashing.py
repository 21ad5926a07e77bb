"""What test_crashes does to a small environment, what it expects of it, and how it looks at the result.

Everything stands below one directory, `work`: an environment and a cache. It is
looked at as a dictionary of paths, read from the disk or from a model of it, by
code of its own: siteswap's is what is being tested.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disk import Image
from siteswap import adopt, create
from siteswap.cache import Cache
from siteswap.environment import Environment
from siteswap.errors import SiteswapError
from siteswap.fs import FileSystem
from siteswap.gates import Gates
from siteswap.layout import Number
from siteswap.workspace import Workspace
from wheelmaker import wheel

Thing = tuple[str, int, bytes]
"""Kind, mode, and content or where a link leads."""
Tree = dict[str, Thing]

HOME = "env/.siteswap"
REMAINS = ".env.siteswap-leaving/.siteswap/"
OPEN = Gates(enabled=False)
_LOCKS = {f"{HOME}/writer", f"{HOME}/lock"}
_OWN_TOP = {".siteswap", "pyvenv.cfg", ".gitignore"}
_NUMBERED = re.compile(rf"{HOME}/generations/(\d+)(?:/(.*))?\Z")


class World:
    """One environment and one cache, and wheels and locks beside them that no command changes."""

    def __init__(self, base: Path) -> None:
        self.work = base / "work"
        self.env, self.cache = self.work / "env", self.work / "cache"
        self.locks, self.wheels = base / "locks", base / "locks/wheels"
        self.work.mkdir(parents=True)
        self.locks.mkdir()
        self.wheels.mkdir()
        self._make_wheels()

    def _make_wheels(self) -> None:
        one = {"alpha/__init__.py": "V = 1\n", "alpha/same.py": "S = 0\n", "alpha/old.py": "O = 1\n"}
        two = {"alpha/__init__.py": "V = 2\n", "alpha/same.py": "S = 0\n", "alpha/new/x.py": "N = 2\n"}
        paths = {
            "alpha1": wheel(
                self.wheels, "alpha", "1.0", one, scripts={"alpha": "alpha:main"},
                data={"data/share/alpha.txt": "1"},
            ),
            "alpha2": wheel(
                self.wheels, "alpha", "2.0", two, scripts={"alpha": "alpha:main", "alpha2": "alpha:main"},
                data={"data/etc/alpha.conf": "2"},
            ),
            "beta": wheel(self.wheels, "beta", "1.0", {"beta.py": "B = 1\n"}),
        }  # fmt: skip
        for name, members in {
            "one": ("alpha1", "beta"),
            "two": ("alpha2", "beta"),
            "beta": ("beta",),
        }.items():
            lines = ['lock-version = "1.0"', 'created-by = "siteswap"']
            for member in members:
                path = paths[member]
                project, version = path.name.split("-")[:2]
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                lines += ["[[packages]]", f'name = "{project}"', f'version = "{version}"']
                lines += [f'wheels = [{{path = "{path}", hashes = {{sha256 = "{digest}"}}}}]']
            asked = ", ".join(f'"{member.rstrip("12")}"' for member in members)
            lines += ["[tool.siteswap]", f"requirements = [{asked}]"]
            (self.locks / f"pylock.{name}.toml").write_text("\n".join(lines) + "\n")

    def environment(self, fs: FileSystem | None = None) -> Environment:
        """The environment, to be worked on through that file system; never waits for a lock."""
        opened = Environment.open(self.env, lock_timeout=0)
        fs = fs or opened.fs
        return Environment(opened.layout, fs, lock_timeout=0, cache=Cache(self.cache, fs))

    def lock(self, name: str) -> Path:
        return self.locks / f"pylock.{name}.toml"

    def create(self, fs: FileSystem | None = None) -> None:
        fs = fs or FileSystem()
        create.create(self.env, python=None, system_site_packages=False, command="create", fs=fs)

    def adopt(self, fs: FileSystem | None = None) -> None:
        adopt.adopt(self.env, command="adopt", gates=lambda _fs, _root: OPEN, fs=fs)

    def unadopt(self, fs: FileSystem | None = None) -> None:
        try:
            Environment.unadopt(self.env, lock_timeout=0, fs=fs)
        except SiteswapError as error:
            if "already" not in error.message:
                raise

    def sync(self, name: str, fs: FileSystem | None = None, **more: Any) -> None:
        """Make the environment what a lock says; without checks, which are programs of their own."""
        self.environment(fs).sync(self.lock(name), gates=OPEN, **more)

    def restore(self, image: Image) -> None:
        """Make `work` what an image says."""
        shutil.rmtree(self.work)
        self.work.mkdir()
        image.build(self.work)

    def look(self) -> Tree:
        """Everything that is really there."""
        found: Tree = {}

        def take(path: str, relative: str) -> None:
            with os.scandir(path) as entries:
                for item in entries:
                    inner = relative + item.name
                    if item.is_symlink():
                        found[inner] = ("link", 0, os.fsencode(os.readlink(item.path)))
                        continue
                    mode = stat.S_IMODE(item.stat(follow_symlinks=False).st_mode)
                    if item.is_dir(follow_symlinks=False):
                        found[inner] = ("directory", mode, b"")
                        take(item.path, inner + "/")
                    else:
                        with open(item.path, "rb", buffering=0) as stream:
                            found[inner] = ("file", mode, stream.read())

        take(str(self.work), "")
        return found


def look(image: Image) -> Tree:
    """Everything that an image has, as `World.look` shows it."""
    children, found = image.children(), dict[str, Thing]()

    def take(number: int, path: str) -> None:
        for name, inner in children.get(number, {}).items():
            inode = image.inodes[inner]
            found[path + name] = (inode.kind, 0 if inode.kind == "link" else inode.mode, inode.content)
            if inode.kind == "directory":
                take(inner, f"{path}{name}/")

    take(0, "")
    return found


# -- commands --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """One command, and what was there before it."""

    name: str
    prepare: Callable[[World], None]
    command: Callable[[World, FileSystem | None], object]
    flips: bool = True
    """It makes another generation current."""
    lasts: bool = True
    """What it reports is durable: so it is of all but the cache, which may be deleted at any time."""


def _nothing(_: World) -> None:
    """No environment yet."""


def _venv(world: World) -> None:
    """A virtual environment of another tool, with a distribution, a file of none and a link."""
    base = Path(sys.executable).resolve()
    site = world.env / f"lib/python3.{sys.version_info.minor}/site-packages"
    files = {
        "bin/activate": "export VIRTUAL_ENV\n",
        "bin/alpha": f"#!{world.env}/bin/python\nimport alpha\n",
        "etc/notes": "mine\n",
        "pyvenv.cfg": f"home = {base.parent}\nexecutable = {base}\n",
        f"{site.relative_to(world.env)}/alpha/__init__.py": "V = 1\n",
    }
    info = site / "alpha-1.0.dist-info"
    rows = ["../../../bin/alpha,,", "alpha/__init__.py,,", f"{info.name}/METADATA,,", f"{info.name}/RECORD,,"]
    files[str((info / "METADATA").relative_to(world.env))] = "Name: alpha\nVersion: 1.0\n"
    files[str((info / "RECORD").relative_to(world.env))] = "\n".join([*rows, ""])
    for path, text in files.items():
        (world.env / path).parent.mkdir(parents=True, exist_ok=True)
        (world.env / path).write_text(text)
    (world.env / "bin/python").symlink_to(base)
    (world.env / "etc/link").symlink_to("notes")


def _empty(world: World) -> None:
    world.create()


def _one(world: World) -> None:
    world.create()
    world.sync("one")


def _beta(world: World) -> None:
    world.create()
    world.sync("beta")


def _two(world: World) -> None:
    _one(world)
    world.sync("two")


def _with_spare(world: World) -> None:
    """Generations 3 and 4, a tagged 1, and 2 as the spare: of `one`, ready to be made something else."""
    _one(world)
    world.environment().tag(Number(1), "first")
    world.sync("two")
    world.sync("beta")


def _tagged(world: World) -> None:
    _two(world)
    world.environment().tag(Number(2), "good")


def _try_two(world: World, fs: FileSystem | None) -> None:
    """Everything but the commit: what stays is what the cache got."""
    world.sync("two", fs, dry_run=True)


def _let_another_install(world: World, fs: FileSystem | None) -> None:
    world.environment(fs).exec(["an", "installer"], gates=OPEN)


def another_installer(workspace: Workspace, command: Sequence[str], streams: tuple[int, int, int]) -> int:
    """Stands for what `exec` runs, which would be a process of its own: it adds a file and removes one."""
    workspace.fs.unlink(workspace.prefix / "share/alpha.txt")
    workspace.fs.write(workspace.prefix / "new.txt", f"made at {workspace.prefix}\n".encode())
    return 0


def _drop(world: World, fs: FileSystem | None) -> None:
    """What is done with an entry that turns out to be damaged."""
    names = sorted(path.name for path in (world.cache / "wheels").iterdir())
    Cache(world.cache, fs or FileSystem()).discard(names[0])


def _prune(world: World, fs: FileSystem | None) -> None:
    Cache(world.cache, fs or FileSystem()).prune()


SCENARIOS = [
    Scenario("create", _nothing, lambda world, fs: world.create(fs)),
    Scenario("adopt", _venv, lambda world, fs: world.adopt(fs)),
    Scenario("unadopt", _beta, lambda world, fs: world.unadopt(fs)),
    Scenario("install", _empty, lambda world, fs: world.sync("one", fs)),
    Scenario("upgrade", _one, lambda world, fs: world.sync("two", fs)),
    Scenario("upgrade, recycled", _with_spare, lambda world, fs: world.sync("one", fs)),
    Scenario("uninstall", _two, lambda world, fs: world.environment(fs).uninstall(["alpha"], gates=OPEN)),
    Scenario("exec", _one, _let_another_install),
    Scenario("rollback", _two, lambda world, fs: world.environment(fs).rollback(Number(2))),
    Scenario("tag", _tagged, lambda world, fs: world.environment(fs).tag(Number(3), "first"), flips=False),
    Scenario("untag", _tagged, lambda world, fs: world.environment(fs).untag("good"), flips=False),
    Scenario("gc", _with_spare, lambda world, fs: world.environment(fs).gc(0), flips=False),
    Scenario("fill the cache", _empty, _try_two, flips=False, lasts=False),
    Scenario("drop from the cache", _two, _drop, flips=False, lasts=False),
    Scenario("prune the cache", _two, _prune, flips=False, lasts=False),
]


# -- what is true of an environment ----------------------------------------------------------------


def current(tree: Tree) -> int | None:
    """The number that `current` names, None where there is no environment."""
    found = tree.get(f"{HOME}/current")
    if found is None:
        return None
    assert found[0] == "link", "[I1] current is no link"
    return int(os.fsdecode(found[2]).removeprefix("generations/"))


def inside(tree: Tree, number: int | None) -> Tree:
    """One generation, byte-code aside."""
    start = f"{HOME}/generations/{number}/"
    return {
        path[len(start) :]: thing
        for path, thing in tree.items()
        if path.startswith(start) and "__pycache__" not in path
    }


def generations(tree: Tree) -> dict[int, str]:
    """What stands in `generations/`, by number: "directory" or "link"."""
    found = {}
    for path, thing in tree.items():
        if (match := _NUMBERED.match(path)) and match[2] is None:
            found[int(match[1])] = thing[0]
    return found


def flips(tree: Tree) -> list[tuple[str, int | None, int]]:
    """The history as it counts: each record leads to the next, the last to what is current."""
    expected, found = current(tree), []
    content = tree.get(f"{HOME}/history", ("", 0, b""))[2]
    for line in reversed(content.split(b"\n")):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["target"] == expected:
            found.append((record["kind"], record["source"], record["target"]))
            expected = record["source"]
    return found[::-1]


def tags(tree: Tree) -> dict[str, int]:
    found = tree.get(f"{HOME}/tags")
    return {} if found is None else dict(json.loads(found[2]))


def comparable(tree: Tree) -> Tree:
    """A generation without what differs between two that were made alike: number and time."""
    found = {path: thing for path, thing in tree.items() if path != ".generation/lease"}
    if ".generation/manifest.json" in found:
        manifest = json.loads(found[".generation/manifest.json"][2])
        for name in ("number", "created", "base", "command"):
            del manifest[name]
        found[".generation/manifest.json"] = ("file", 0, json.dumps(manifest).encode())
    return found


@dataclass
class Truth:
    """What a scenario starts from and comes to, told by one undisturbed run."""

    before: Tree
    after: Tree
    flips: bool
    known: dict[int, Tree] = field(default_factory=dict)
    """Every generation that was published before or after."""

    def __post_init__(self) -> None:
        for tree in (self.before, self.after):
            for number in {item[2] for item in flips(tree)} & generations(tree).keys():
                if generations(tree)[number] == "directory":
                    self.known.setdefault(number, inside(tree, number))

    def outcome(self, tree: Tree) -> str:
        """Which of the two is seen: "old" or "new"; of what does not flip: "tags", "gone" and the like."""
        if self.flips:
            return "new" if current(tree) == current(self.after) else "old"
        if tags(self.before) != tags(self.after):
            return "new" if tags(tree) == tags(self.after) else "old"
        return "new" if self._seen(tree) == self._seen(self.after) else "old"

    def _seen(self, tree: Tree) -> object:
        """What a command that does not flip is for."""
        return sorted(generations(tree).items()), sorted(entries(tree))


def entries(tree: Tree) -> set[str]:
    """Wheels that the cache has."""
    return {path.split("/")[2] for path in tree if re.match(r"cache/wheels/[^/]*/index\.json\Z", path)}


def check(tree: Tree, truth: Truth, *, reported: bool) -> str:
    """Whether what is on the disk is what any reader may find at any time; says whether it is old or new."""
    number, old, new = current(tree), current(truth.before), current(truth.after)
    check_cache(tree)
    if number is None and is_plain(truth.after):
        check_plain(tree, truth)
        return "new"
    if number is None:
        assert old is None, "[I1] the environment has no current generation"
        assert_same(below_env(tree), below_env(truth.before), "[I1] half an environment")
        assert not reported, "[I5] a reported success did not last"
        return "old"
    assert number in (old, new), f"[I1] generation {number} is current"
    assert generations(tree).get(number) == "directory", "[I1] what is current is not there"
    wanted = inside(truth.after if number == new else truth.before, number)
    assert_same(inside(tree, number), wanted, "[I1] [I3] the current generation is not whole")
    for other, kind in generations(tree).items():
        published = other in {item[2] for item in flips(tree)}
        if kind == "directory" and other in truth.known and published:
            assert_same(inside(tree, other), truth.known[other], f"[I2] [I7] generation {other} has changed")
        if kind == "link":
            assert tree[f"{HOME}/generations/{other}"][2] == b"../current", "[I7] a tombstone leads elsewhere"
            known = (generations(found).get(other) for found in (truth.before, truth.after))
            assert "link" in known, f"[I7] generation {other} is gone"
    for other in {*tags(tree).values()}:
        assert generations(tree).get(other) == "directory", "[I7] a tagged generation is gone"
    assert tags(tree) in (tags(truth.before), tags(truth.after)), "tags are neither old nor new"
    assert flips(tree) in (flips(truth.before), flips(truth.after)), "[I8] history is neither old nor new"
    for name in {path.split("/")[0] for path in inside(tree, number)} - {".generation", "pyvenv.cfg"}:
        assert tree.get(f"env/{name}") == ("link", 0, f".siteswap/current/{name}".encode()), (
            f"[I1] env/{name} does not lead to the current generation"
        )
    for name in ("format", "generations", "staging"):
        assert f"{HOME}/{name}" in tree, f"[I1] {name} is not there"
    seen = truth.outcome(tree)
    assert seen == "new" or not reported, "[I5] a reported success did not last"
    return seen


def is_plain(tree: Tree) -> bool:
    """Whether a virtual environment without generations stands at the environment's place."""
    return "env/pyvenv.cfg" in tree and f"{HOME}/format" not in tree


def check_plain(tree: Tree, truth: Truth) -> None:
    """The plain one is whole; as long as the link leads to what it was made from, so is that."""
    found, wanted = below_env(tree), below_env(truth.after)
    link = found.pop(HOME, None)
    wanted.pop(HOME, None)
    assert_same(found, wanted, "[I1] [I3] the plain virtual environment is not whole")
    if link is not None:
        assert link == ("link", 0, b"../.env.siteswap-leaving/.siteswap")
        were = old_generations(truth.before, f"{HOME}/") or old_generations(truth.before, REMAINS)
        assert_same(old_generations(tree, REMAINS), were, "[I2] [I7] generations that may be used changed")


def old_generations(tree: Tree, home: str) -> Tree:
    """The generations of an environment, wherever it lies, and what leads to the current one."""
    return {
        path[len(home) :]: thing
        for path, thing in tree.items()
        if path.startswith((f"{home}generations/", f"{home}current"))
    }


def below_env(tree: Tree) -> Tree:
    """What stands at the environment's place."""
    return {path: thing for path, thing in tree.items() if path == "env" or path.startswith("env/")}


def check_cache(tree: Tree) -> None:
    """An entry that is there is whole."""
    for digest in entries(tree):
        try:
            index = json.loads(tree[f"cache/wheels/{digest}/index.json"][2])
            rows = index["files"]
        except (ValueError, KeyError):
            continue  # recognised by siteswap, and made anew
        for scheme, path, expected, size, _ in rows:
            found = tree.get(f"cache/wheels/{digest}/{scheme}/{path}")
            assert found is not None, f"the cache lacks {path} of {index['name']}"
            assert len(found[2]) == size, f"the cache has another {path} of {index['name']}"
            assert expected.startswith("sha256=")
            assert mode_fits(found[1]), f"the cache has {path} with mode {found[1]:o}"


def mode_fits(mode: int) -> bool:
    return mode in (0o644, 0o755)


def assert_same(found: Tree, wanted: Tree, what: str) -> None:
    differ = [path for path in sorted(found.keys() | wanted.keys()) if found.get(path) != wanted.get(path)]
    assert not differ, f"{what}: {', '.join(differ[:5])}"


def leftovers(tree: Tree) -> list[str]:
    """Whatever a command that writes should have removed [I9]."""
    number, found = current(tree), []
    published = {item[2] for item in flips(tree)}
    known = {
        "adopted", "bin", "current", "format", "generations", "history", "lock", "log", "spare", "staging",
        "tags",
        "writer",
    }  # fmt: skip
    tops = {path.split("/")[0] for path in inside(tree, number)}
    for path, thing in tree.items():
        parts = path.split("/")
        if len(parts) == 1 and path not in ("env", "cache"):
            found.append(path)
        elif parts[0] == "env" and len(parts) == 2:
            if number is not None and parts[1] not in _OWN_TOP and parts[1] not in tops:
                found.append(path)
        elif path.startswith(f"{HOME}/"):
            inner = parts[2:]
            match = _NUMBERED.match(path)
            if (
                inner[0] not in known
                or (inner[0] == "staging" and len(inner) > 1)
                or (inner[0] == "log" and len(inner) > 1)
                or (inner[0] == "bin" and inner[1:] not in ([], ["pip"], ["pip3"]))
                or (match and match[2] is None and thing[0] == "directory" and int(match[1]) not in published)
            ):
                found.append(path)
    return found


def recovery_key(tree: Tree) -> bytes:
    """Tells apart what recovery could treat differently: garbage counts by its top name only."""
    hasher = hashlib.sha256()
    published = {item[2] for item in flips(tree)}
    beside = "creating" if HOME in tree and tree[HOME][0] == "link" else "(creating|leaving)"
    for path in sorted(tree):
        match = _NUMBERED.match(path)
        garbage = re.match(rf"({HOME}/staging|cache/incoming|\.env\.siteswap-{beside})/.+/", path)
        if path in _LOCKS or garbage or (match and match[2] and int(match[1]) not in published):
            continue
        kind, mode, content = tree[path]
        name = re.sub(r"\.\d+\.\d+", "", path)
        hasher.update(f"{name}\0{kind}\0{mode}\0{len(content)}\0".encode() + content)
    return hasher.digest()
