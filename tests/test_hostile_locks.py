"""Requirements, lock files and caches that mean harm: refused in one line, or not believed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import hostile
from bench import Bench
from conftest import Siteswap
from crooked import archive, parts_of, write
from hostile import FS, lock, locked, plain, pylock, refused, said, untouched
from siteswap.cache import Cache, open_cache
from siteswap.checks import dependencies
from siteswap.errors import SiteswapError
from siteswap.lockfile import Artifact
from siteswap.manifest import Distribution
from siteswap.requirements import parse_file, parse_line
from siteswap.wheels import unpack


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.private_cache(tmp_path, monkeypatch)


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, siteswap: Siteswap) -> Bench:
    """One environment for all of these tests, with one distribution in it."""
    return hostile.inhabited(tmp_path_factory.getbasetemp() / Path(__file__).stem, siteswap)


PATHOLOGICAL = [
    "x; " + "(" * 5000 + "python_version > '3'" + ")" * 5000,
    "x; " + " and ".join(["python_version > '3'"] * 20_000),
    "x==" + "9" * 9000,
    "x" + "==1," * 50_000,
    "x[" + "a," * 50_000 + "]",
    "x>=" + "1." * 20_000 + "1",
    "[" * 100_000,
    "x @ https://" + "a" * 100_000,
    "(" * 100_000,
    "x==1!" + "0" * 5000 + "1.0.*",
    "x\0y",
]


@pytest.mark.parametrize("line", PATHOLOGICAL, ids=lambda line: repr(line[:20]))
def test_pathological_requirements_end_in_time(line: str, tmp_path: Path) -> None:
    """A requirement that is too deep or too long is read or refused within seconds, wherever it stands."""
    begun = time.monotonic()
    file = tmp_path / "requirements.txt"
    file.write_text(f"{line}\n")
    for read in (lambda: parse_line(line, tmp_path, FS), lambda: parse_file(file, FS)):
        with contextlib.suppress(SiteswapError):
            read()
    python: Any = type(
        "Python", (), {"markers": {"python_version": "3.11", "extra": ""}, "version": "3.11.0"}
    )
    item = Distribution("w", "1.0", "", "", False, (line,), requires_python=line)
    found = dependencies.check([item, Distribution("x", "1.0", "", "", False)], python)
    assert all(finding.subject == "w" for finding in found)
    assert time.monotonic() - begun < 10


def test_pathological_requirements_of_a_wheel(bench: Bench, tmp_path: Path) -> None:
    """A wheel whose METADATA asks for nonsense by the kilobyte is refused, in lines that can be read."""
    more = "".join(f"Requires-Dist: {line}\n" for line in PATHOLOGICAL[:1] + PATHOLOGICAL[2:3])
    content = archive(
        parts_of("deep", metadata=said("deep", more=f"Requires-Python: >={'9' * 9000}\n{more}"))
    )
    path = write(tmp_path / "deep", "deep", content)
    ways: list[list[str | Path]] = [["install", "--no-index", path], ["sync", locked(tmp_path, path)]]
    for words in ways:
        with untouched(bench):
            assert max(map(len, refused(bench.run(*words)).err.splitlines())) < 3000


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "shake_128", "crc32"])
def test_weak_pins_are_refused(tmp_path: Path, algorithm: str) -> None:
    """`--hash` takes what pip takes: a pin that can be forged is none."""
    file = tmp_path / "requirements.txt"
    file.write_text(f"x==1 --hash={algorithm}:00\n")
    with pytest.raises(SiteswapError, match=r"no hash to rely on|not a requirement"):
        parse_file(file, FS)


# -- lock files ------------------------------------------------------------------------------------

ZEROS = 'hashes = {sha256 = "' + "0" * 64 + '"}'
LOCKS = {
    "name": (pylock("").replace('"w"', '"../W"'), 2),
    "no hash": (pylock('version = "1.0"\n[[packages.wheels]]\nurl = "https://h/w-1.0-py3-none-any.whl"'), 2),
    "empty hashes": (
        pylock('version = "1.0"\n[[packages.wheels]]\npath = "w-1.0-py3-none-any.whl"\nhashes = {}\n'), 2),
    "quoted path in url": (
        pylock(f'[packages.archive]\nurl = "https://h.invalid/..%2F..%2Fevil.tar.gz%2f.."\n{ZEROS}\n'), 1),
    "nul in url": (pylock(f'[packages.archive]\nurl = "https://h.invalid/a%00b.whl"\n{ZEROS}\n'), 1),
    "scheme": (pylock(f'[packages.archive]\nurl = "ftp://h.invalid/w-1.0.tar.gz"\n{ZEROS}\n'), 1),
    "javascript": (pylock(f'[packages.archive]\nurl = "javascript:alert(1)"\n{ZEROS}\n'), 1),
    "file that is no wheel": (pylock(f'[packages.archive]\npath = "/etc/passwd"\n{ZEROS}\n'), 1),
    "subdirectory": (
        pylock(f'[packages.archive]\npath = "w.tar.gz"\nsubdirectory = "../../.."\n{ZEROS}\n'), 1),
    "commit": (
        pylock('[packages.vcs]\ntype = "git"\nurl = "https://h.invalid/r"\n'
               'commit-id = "--upload-pack=touch evil"\n'), 1),
    "repository": (
        pylock(f'[packages.vcs]\ntype = "git"\nurl = "--upload-pack=touch x"\ncommit-id = "{"0" * 40}"'), 1),
    "directory": (pylock('[packages.directory]\npath = "../nowhere"\n'), 1),
    "ext": (
        pylock(f'[packages.vcs]\ntype = "git"\nurl = "ext::sh -c touch% evil"\ncommit-id = "{"0" * 40}"'), 1),
    "huge version": (pylock(f'version = "{"9" * 9000}"\n[packages.archive]\npath = "w.zip"\n{ZEROS}\n'), 2),
}  # fmt: skip


@pytest.mark.parametrize("case", LOCKS)
def test_lock_that_leads_elsewhere(bench: Bench, tmp_path: Path, case: str) -> None:
    """A lock with addresses, commits, paths or names that are none is refused before anything is written."""
    text, status = LOCKS[case]
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock/pylock.toml").write_text(text)
    before = {item for item in tmp_path.rglob("*") if "cache" not in item.parts}
    with untouched(bench):
        refused(bench.run("sync", tmp_path / "lock/pylock.toml"), status=status)
    assert {item for item in tmp_path.rglob("*") if "cache" not in item.parts} == before
    assert not list(bench.root.rglob("evil*"))


OUTSIDE = {
    "wheel by path": '[[packages.wheels]]\npath = "{path}"\n{hashes}',
    "wheel above": '[[packages.wheels]]\npath = "../good/{name}"\n{hashes}',
    "wheel by address": '[[packages.wheels]]\nurl = "file://{path}"\n{hashes}',
    "address with a host": '[[packages.wheels]]\nurl = "file://localhost{path}"\n{hashes}',
    "address in capitals": '[[packages.wheels]]\nurl = "FILE:{path}"\n{hashes}',
    "address that climbs": '[[packages.wheels]]\nurl = "file://{base}/%2e%2e/good/{name}"\n{hashes}',
    "path that is an address": '[[packages.wheels]]\npath = "file://{path}"\n{hashes}',
    "behind a link": '[[packages.wheels]]\npath = "link/{name}"\n{hashes}',
    "archive": '[packages.archive]\npath = "{path}"\n{hashes}',
    "directory": '[packages.directory]\npath = "{project}"',
    "editable": '[packages.directory]\npath = "{project}"\neditable = true',
    "repository": '[packages.vcs]\ntype = "git"\npath = "{project}"\ncommit-id = "{commit}"',
    "repository by address": '[packages.vcs]\ntype = "git"\nurl = "file://{project}"\ncommit-id = "{commit}"',
    "repository by url": '[packages.vcs]\ntype = "git"\nurl = "{project}"\ncommit-id = "{commit}"',
    "repository below": '[packages.vcs]\ntype = "git"\nurl = "../project"\ncommit-id = "{commit}"',
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_lock_that_names_what_lies_elsewhere(bench: Bench, tmp_path: Path, case: str) -> None:
    """A lock reaches what lies beside it, and what the command line names; nothing else on this machine."""
    path = write(tmp_path / "good", "w", plain())
    (tmp_path / "project").mkdir()
    (tmp_path / "project/setup.py").write_text(f"open({str(tmp_path / 'evil')!r}, 'w')\n")
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock/link").symlink_to(tmp_path / "good")
    fields = OUTSIDE[case].format(
        path=path, name=path.name, base=tmp_path / "lock", project=tmp_path / "project", commit="0" * 40,
        hashes=f'hashes = {{sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"}}',
    )  # fmt: skip
    (tmp_path / "lock/pylock.toml").write_text(pylock(f'version = "1.0"\n{fields}\n'))
    with untouched(bench):
        refused(
            bench.run("sync", tmp_path / "lock/pylock.toml"), "the lock names", "not in its own directory"
        )
    assert not list(tmp_path.rglob("evil"))


def test_lock_may_name_what_lies_beside_it_or_is_vouched_for(bench: Bench, tmp_path: Path) -> None:
    """A wheel below the lock's directory, one below --find-links, and one that is installed are taken."""
    path = write(tmp_path / "lock/below", "w", plain())
    for lock_file, more in (
        (tmp_path / "lock/pylock.toml", ()),
        (tmp_path / "pylock.elsewhere.toml", ()),  # nothing is needed of it any more
        (tmp_path / "other/pylock.toml", ("--find-links", tmp_path / "lock")),
    ):
        lock_file.parent.mkdir(exist_ok=True)
        made = locked(tmp_path, path)
        made.rename(lock_file)
        if more:
            bench.run("rollback").ok()
        bench.run("sync", lock_file, *more).ok()
        assert (bench.site / "w.py").exists()
    bench.run("rollback", "2").ok()


def test_names_of_files_come_from_one_part_of_an_address() -> None:
    """What is quoted in an address cannot make the download land in another directory."""
    for url in (
        "https://h/a/..%2F..%2Fevil.whl",
        "https://h/%2Fetc%2Fevil.whl",
        "https://h/a/evil.whl?x=/../y",
    ):
        assert Artifact("w", None, "wheel", url, {}).filename == "evil.whl"


def test_sizes_and_hashes_of_a_lock_are_held_against_the_file(bench: Bench, tmp_path: Path) -> None:
    """A lock with another size, another hash, or one of no known kind does not fit the file."""
    path = write(tmp_path / "good", "w", plain())
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    with untouched(bench):
        refused(bench.run("sync", lock(tmp_path / "pylock.toml", "w", "0" * 64, path)), "not the one")
        refused(bench.run("sync", lock(tmp_path / "pylock.toml", "w", good, path, size=10)), "more than 10")
        refused(bench.run("sync", lock(tmp_path / "pylock.toml", "w", good, path, size=10**9)), "expected")
        for kind in ("shake_128", "nonsense"):
            made = lock(tmp_path / "pylock.toml", "w", good, path)
            made.write_text(made.read_text().replace("sha256", kind))
            refused(bench.run("sync", made), "not the one")


# -- the cache -------------------------------------------------------------------------------------


def filled(tmp_path: Path) -> tuple[Cache, str, Path]:
    """A cache with one entry, its hash and its directory."""
    cache = open_cache(tmp_path / "cache")
    sha256 = "a" * 64
    path = cache.incoming(sha256)
    path.mkdir()
    cache.seal(path, unpack(FS, write(tmp_path, "w", plain()), sha256, path))
    cache.publish([(path, sha256)])
    assert cache.find(sha256) is not None
    return cache, sha256, tmp_path / "cache/wheels" / sha256


@pytest.mark.parametrize(
    "change",
    [
        {"files": [["purelib", "../../../etc/evil", "sha256=x", 1, False]]},
        {"files": [["purelib", "/etc/evil", "sha256=x", 1, False]]},
        {"files": [["../../x", "evil", "sha256=x", 1, False]]},
        {"files": [[1, 2, 3, 4, 5]]},
        {"dist_info": "../../evil.dist-info"},
        {"dist_info": "a/b.dist-info"},
        {"root": "data"},
        {"scripts": [["../../evil", "a", "b", "console"]]},
        {"scripts": [["a/b", "a", "b", "console"]]},
        {"sha256": "b" * 64},
        {"files": 7},
        {"surprise": 1},
    ],
    ids=str,
)
def test_edited_cache_is_not_believed(tmp_path: Path, change: Mapping[str, Any]) -> None:
    """An entry whose index leads elsewhere, or is another wheel's, counts as damaged and is made anew."""
    cache, sha256, path = filled(tmp_path)
    data = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps({**data, **change}))
    assert cache.find(sha256) is None


def test_hash_of_a_lock_is_no_path_into_the_cache(tmp_path: Path) -> None:
    """What a lock calls a hash cannot name a directory: an entry prepared elsewhere is not found by it."""
    cache, sha256, path = filled(tmp_path)
    for name in (f"../wheels/{sha256}", str(path), f"{sha256}/", ".", "", sha256.upper()):
        assert cache.find(name) is None


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_cache_that_others_may_write_to_is_refused(bench: Bench, tmp_path: Path, mode: int) -> None:
    """Whoever may write to the cache could change what is installed: status 5, with the way out."""
    bench.wheel("cached")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    bench.variables["SITESWAP_CACHE_DIR"] = str(tmp_path / "open")
    with untouched(bench):
        refused(bench.install("cached"), "written to by others", "SITESWAP_CACHE_DIR", status=5)
    assert list((tmp_path / "open").iterdir()) == []


def test_cache_of_another_user_is_refused(tmp_path: Path) -> None:
    """A cache directory that belongs to somebody else is not used, not even by root."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    (tmp_path / "theirs").mkdir(mode=0o755)
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(SiteswapError, match="belongs to another user") as caught:
        open_cache(tmp_path / "theirs")
    assert caught.value.exit_status == 5


def test_own_cache_is_private(tmp_path: Path) -> None:
    """A cache directory that siteswap makes is for its user alone, whatever the umask."""
    mask = os.umask(0o002)
    try:
        open_cache(tmp_path / "a/b/cache")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a/b/cache").stat().st_mode) == 0o700
