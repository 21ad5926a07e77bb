"""Unpacking wheels: what is taken over, and everything that is refused with nothing left behind."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import stat
import time
import zipfile
from pathlib import Path

import pytest

from conftest import Ran, Siteswap, run_python
from siteswap.errors import Kind, SiteswapError
from siteswap.fs import Access, FileSystem
from siteswap.wheels import unpack
from wheelmaker import wheel

HELD = {"held/__init__.py": "HELD = True\n"}


def raw(directory: Path, name: str, members: list[tuple[str, bytes]], *, record: bool = True) -> Path:
    """A wheel of just these members, whatever they are called, with a RECORD that agrees with them."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-1.0-py3-none-any.whl"
    if record:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for member, content in dict(members).items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            rows.writerow((member, f"sha256={digest}", len(content)))
        rows.writerow((f"{name}-1.0.dist-info/RECORD", "", ""))
        members = [*members, (f"{name}-1.0.dist-info/RECORD", text.getvalue().encode())]
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members:
            info = zipfile.ZipInfo("x", (1980, 1, 1, 0, 0, 0))
            info.filename = member
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)
    return path


def notes(name: str, inside: str | None = None) -> list[tuple[str, bytes]]:
    """METADATA and WHEEL of a distribution; `inside` says which distribution's directory they lie in."""
    directory = f"{inside or name}-1.0.dist-info"
    return [
        (f"{directory}/METADATA", f"Metadata-Version: 2.1\nName: {inside or name}\nVersion: 1.0\n".encode()),
        (f"{directory}/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ]


def odd_member(member: str) -> object:
    """A maker of wheels that hold one member of that name."""
    return lambda directory, name: raw(
        directory, name, [("fine.py", b""), (member, b"x = 1\n"), *notes(name)]
    )


def wrong_hash(directory: Path, name: str) -> Path:
    """RECORD gives a hash of something else."""
    other = base64.urlsafe_b64encode(hashlib.sha256(b"other").digest()).decode().rstrip("=")
    return wheel(directory, name, "1.0", {"a.py": "a = 1\n"}, record={"a.py": f"sha256={other}"})


def wrong_hash_in_data(directory: Path, name: str) -> Path:
    """The same, for a file whose scheme is spelled out although it is the root's own."""
    other = base64.urlsafe_b64encode(hashlib.sha256(b"other").digest()).decode().rstrip("=")
    row = {f"{name}-1.0.data/purelib/a.py": f"sha256={other}"}
    return wheel(directory, name, "1.0", {}, data={"purelib/a.py": "a = 1\n"}, record=row)


def wrong_size(directory: Path, name: str) -> Path:
    """RECORD gives the right hash and another size."""
    path = raw(directory, name, [("a.py", b"a = 1\n"), *notes(name)])
    with zipfile.ZipFile(path) as archive:
        contents = {item: archive.read(item) for item in archive.namelist()}
    contents[f"{name}-1.0.dist-info/RECORD"] = contents[f"{name}-1.0.dist-info/RECORD"].replace(
        b",6\n", b",7\n"
    )
    return raw(directory, name, list(contents.items()), record=False)


def unrecorded(directory: Path, name: str) -> Path:
    """A file is there that RECORD does not mention."""
    return wheel(directory, name, "1.0", {"a.py": "a = 1\n", "b.py": ""}, record={"b.py": None})


def lost(directory: Path, name: str) -> Path:
    """RECORD mentions a file that is not there."""
    path = raw(directory, name, [("a.py", b"a = 1\n"), ("b.py", b"b = 1\n"), *notes(name)])
    with zipfile.ZipFile(path) as archive:
        contents = [(item, archive.read(item)) for item in archive.namelist() if item != "b.py"]
    return raw(directory, name, contents, record=False)


def no_record(directory: Path, name: str) -> Path:
    """There is no RECORD at all."""
    return raw(directory, name, [("a.py", b""), *notes(name)], record=False)


def twice(directory: Path, name: str) -> Path:
    """One name is in the archive twice, with different contents."""
    with pytest.warns(UserWarning, match="Duplicate"):
        return raw(directory, name, [("a.py", b"good = 1\n"), *notes(name), ("a.py", b"evil = 1\n")])


def no_dist_info(directory: Path, name: str) -> Path:
    """Just files."""
    return raw(directory, name, [("a.py", b"")], record=False)


def anothers_dist_info(directory: Path, name: str) -> Path:
    """The metadata is of another distribution."""
    return raw(directory, name, [("a.py", b""), *notes(name, "stranger")], record=False)


def lying_metadata(directory: Path, name: str) -> Path:
    """The directory has the right name, METADATA another."""
    made = notes(name)
    made[0] = (made[0][0], b"Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    return raw(directory, name, [("a.py", b""), *made])


def two_dist_infos(directory: Path, name: str) -> Path:
    """Two distributions in one archive."""
    return raw(directory, name, [("a.py", b""), *notes(name), *notes(name, "stranger")])


def no_zip(directory: Path, name: str) -> Path:
    """Not an archive."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-1.0-py3-none-any.whl"
    path.write_bytes(b"<html>502 Bad Gateway</html>\n" * 40)
    return path


def truncated(directory: Path, name: str) -> Path:
    """The download ended early."""
    path = wheel(directory, name, "1.0", {"big.bin": os.urandom(20_000), "a.py": "a = 1\n"})
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def rotten(directory: Path, name: str) -> Path:
    """A byte in the middle of a member is another one."""
    path = wheel(directory, name, "1.0", {"big.bin": os.urandom(20_000)})
    content = bytearray(path.read_bytes())
    content[9000] ^= 0xFF
    path.write_bytes(content)
    return path


def empty_record_hash(directory: Path, name: str) -> Path:
    """RECORD lists a file without saying what it must be."""
    return wheel(directory, name, "1.0", {"a.py": "a = 1\n"}, record={"a.py": ""})


def weak_hash(directory: Path, name: str) -> Path:
    """RECORD gives only an MD5, which the format forbids."""
    weak = base64.urlsafe_b64encode(hashlib.md5(b"a = 1\n").digest()).decode().rstrip("=")
    return wheel(directory, name, "1.0", {"a.py": "a = 1\n"}, record={"a.py": f"md5={weak}"})


def evil_entry_point(directory: Path, name: str) -> Path:
    """A console script whose name is a path."""
    return wheel(directory, name, "1.0", scripts={"../../evil": "a:main"})


BAD = {
    "wronghash": wrong_hash,
    "wronghash-data": wrong_hash_in_data,
    "wrongsize": wrong_size,
    "unrecorded": unrecorded,
    "lost": lost,
    "norecord": no_record,
    "parent": odd_member("../escaped.py"),
    "inner-parent": odd_member("pkg/../../escaped.py"),
    "absolute": odd_member("/tmp/siteswap-test-escaped.py"),
    "backslash": odd_member("pkg\\..\\escaped.py"),
    "newline": odd_member("pkg/new\nline.py"),
    "data-parent": odd_member("datap-1.0.data/data/../../escaped.py"),
    "unknown-scheme": odd_member("schemed-1.0.data/elsewhere/escaped.py"),
    "twice": twice,
    "nodistinfo": no_dist_info,
    "anothers": anothers_dist_info,
    "lying": lying_metadata,
    "twodistinfos": two_dist_infos,
    "nozip": no_zip,
    "truncated": truncated,
    "rotten": rotten,
    "nohash": empty_record_hash,
    "weakhash": weak_hash,
    "evilentry": evil_entry_point,
}
NAMES = {"data-parent": "datap", "unknown-scheme": "schemed"}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for one environment that every refused wheel of this file leaves as it is."""
    return tmp_path_factory.mktemp("held")


def everything(root: Path) -> dict[str, tuple[int, int]]:
    """Every path below a directory, with inode and time; what a lock holder notes about itself aside."""
    found = {}
    for parent, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(parent, name)
            if path.parent.name != ".siteswap" or name not in ("writer", "lock", "staging", "log"):
                status = path.lstat()
                found[str(path.relative_to(root))] = (status.st_ino, status.st_mtime_ns)
    return found


def refused(done: Ran, word: str) -> None:
    """A refusal is exit status 1 and one line that names what it is about; never a traceback."""
    assert done.status == 1, f"{done.status}\n{done.out}\n{done.err}"
    lines = [line for line in done.err.splitlines() if line.startswith("siteswap: ")]
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    assert "BUG" not in done.err
    assert word in done.err


@pytest.mark.parametrize("case", BAD)
def test_a_bad_wheel_is_refused_and_leaves_nothing(
    case: str, held: Path, tmp_path: Path, wheels: Path, siteswap: Siteswap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel that is not what it says it is changes neither the environment nor the cache."""
    env, cache = held / "env", tmp_path / "cache"
    if not env.exists():
        siteswap("create", env).ok()
        good = wheel(held / "good", "held", "1.0", HELD)
        siteswap("install", "-e", env, "--no-index", good).ok()
    name = NAMES.get(case, case.replace("-", ""))
    make = BAD[case]
    assert callable(make)
    path = make(wheels, name)
    monkeypatch.setenv("SITESWAP_CACHE_DIR", str(cache))
    before = everything(env)

    done = siteswap("install", "-e", env, "--no-index", path)

    refused(done, name)
    assert everything(env) == before
    assert run_python(env / "bin/python", "import held; print(held.HELD)") == "True"
    assert not list((env / ".siteswap/staging").iterdir())
    assert not list(cache.glob("incoming/*"))
    assert not list(cache.glob("wheels/*"))
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/siteswap-test-escaped.py").exists()


def test_one_bad_wheel_among_good_ones_stops_all(
    env: Path, wheels: Path, install: Siteswap, tmp_path: Path
) -> None:
    """Good wheels that were unpacked beside a bad one are not installed, and nothing lies about."""
    for number in range(6):
        wheel(wheels, f"good{number}")
    wrong_hash(wheels, "spoiled")
    refused(install(*(f"good{number}" for number in range(6)), "spoiled"), "spoiled")
    cache = Path(os.environ["SITESWAP_CACHE_DIR"])
    assert not list(cache.glob("incoming/*"))
    assert (env / ".siteswap/current").readlink() == Path("generations/1")
    install("good0", "good1").ok()


# -- unpack itself -------------------------------------------------------------------------------


def unpacked(path: Path, target: Path, access: Access | None = None) -> dict[str, int]:
    """Unpack a wheel; the mode of every file by its path."""
    target.mkdir()
    index = unpack(FileSystem(access), path, "0" * 64, target)
    return {
        f"{file.scheme}/{file.path}": stat.S_IMODE((target / file.scheme / file.path).stat().st_mode)
        for file in index.files
    }


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_stronger_hashes_of_record_are_checked(algorithm: str, tmp_path: Path) -> None:
    """RECORD may use a stronger hash than SHA-256, and a wrong one of those is noticed too."""
    content = b"a = 1\n"

    def row(body: bytes) -> str:
        digest = base64.urlsafe_b64encode(hashlib.new(algorithm, body).digest()).decode().rstrip("=")
        return f"{algorithm}={digest}"

    good = wheel(tmp_path / "good", "strong", files={"a.py": content}, record={"a.py": row(content)})
    assert "purelib/a.py" in unpacked(good, tmp_path / "unpacked")
    bad = wheel(tmp_path / "bad", "strong", files={"a.py": content}, record={"a.py": row(b"other")})
    with pytest.raises(SiteswapError, match="not a valid wheel") as caught:
        unpacked(bad, tmp_path / "refused")
    assert caught.value.kind is Kind.REQUIREMENT
    assert "a.py" in (caught.value.detail or "")


def test_modes_come_from_the_policy_and_not_from_the_archive(tmp_path: Path) -> None:
    """Only the executable bit of an archive counts; sticky and write-for-all do not."""
    path = raw(
        tmp_path / "w", "modes", [("a.py", b""), ("run", b"#!/bin/sh\n"), ("open", b""), *notes("modes")]
    )
    content = {}
    with zipfile.ZipFile(path) as archive:
        content = {item: archive.read(item) for item in archive.namelist()}
    wanted = {"a.py": 0o101644, "run": 0o101777, "open": 0o100666}
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = wanted.get(name, 0o100644) << 16
            archive.writestr(info, body)
    modes = unpacked(path, tmp_path / "unpacked", Access(os.geteuid(), os.getegid(), 0o050))
    assert modes["purelib/a.py"] == 0o640
    assert modes["purelib/run"] == 0o750
    assert modes["purelib/open"] == 0o640


def test_files_carry_the_time_they_were_unpacked(tmp_path: Path) -> None:
    """A wheel that stamps 1980 on everything does not date what is unpacked from it."""
    path = wheel(tmp_path / "w", "stamped")
    begun = time.time() - 1
    unpacked(path, tmp_path / "unpacked")
    times = [item.stat().st_mtime for item in (tmp_path / "unpacked").rglob("*") if item.is_file()]
    assert times
    assert all(begun <= moment <= time.time() + 1 for moment in times)


def test_byte_code_of_an_archive_is_left_out(tmp_path: Path) -> None:
    """Byte-code that came in a wheel would be believed without question, so it is not taken over."""
    path = wheel(
        tmp_path / "w", "cached", files={"cached.py": "", "__pycache__/cached.cpython-311.pyc": b"\0" * 32}
    )
    assert not [name for name in unpacked(path, tmp_path / "unpacked") if name.endswith(".pyc")]
    assert not list((tmp_path / "unpacked").rglob("*.pyc"))
