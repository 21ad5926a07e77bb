"""Source archives and builds that mean harm: refused in one line."""

from __future__ import annotations

import io
import struct
import tarfile
import time
from pathlib import Path

import pytest

import hostile
from bench import Bench
from conftest import Siteswap
from crooked import Part, archive
from hostile import FS, plain, pylock, refused, untouched
from siteswap import archive as archives
from siteswap.errors import Kind, SiteswapError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.private_cache(tmp_path, monkeypatch)


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, siteswap: Siteswap) -> Bench:
    """One environment for all of these tests, with one distribution in it."""
    return hostile.inhabited(tmp_path_factory.getbasetemp() / Path(__file__).stem, siteswap)


def tarball(path: Path, members: list[tuple[str, bytes, str]]) -> Path:
    """A source archive of (name, type, link target) each; files hold a line."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o777
            info.size = 5 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"evil\n") if info.size else None)
    return path


F, D, S, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
DEEP = "/".join(["d" * 247] * 16)
TARS: dict[str, list[tuple[str, bytes, str]]] = {
    "parent": [("../evil", F, "")],
    "parent inside": [("a/../../evil", F, "")],
    "absolute": [("/tmp/siteswap-evil", F, "")],
    "backslash": [("..\\evil", F, "")],
    "newline": [("a\nevil", F, "")],
    "link outside": [("a/evil", S, "../../outside")],
    "link absolute": [("evil", S, "/etc/passwd")],
    "link to nothing": [("evil", S, "")],
    "behind a link": [("a", S, "b"), ("b", D, ""), ("a/evil", F, "")],
    "link on a link": [("a", S, "."), ("a/evil", S, "..")],
    "links around": [("d/b", S, ".."), ("a", S, "d/b/.."), ("a/evil", F, "")],
    "link then file": [("evil", S, "b"), ("evil", F, "")],
    "long links": [(DEEP, D, ""), ("evil", S, DEEP + "/.." * 40)],
    "hard outside": [("evil", H, "../outside")],
    "hard absolute": [("evil", H, "/etc/passwd")],
    "hard to a link": [("a", S, "b"), ("evil", H, "a")],
    "hard forward": [("evil", H, "b"), ("b", F, "")],
    "fifo": [("evil", tarfile.FIFOTYPE, "")],
    "device": [("evil", tarfile.CHRTYPE, "")],
    "block device": [("evil", tarfile.BLKTYPE, "")],
    "long link": [("evil", S, "a/" * 600 + "b")],
    "double slash": [("a//evil", F, "")],
    "link through a link": [("d/s", S, "../e"), ("l", S, "d/s/../../x")],
    "deep": [("a/" * 300 + "evil", F, "")],
    "no utf-8": [("\udcff", F, "")],
}


@pytest.mark.parametrize("case", TARS)
def test_source_archive_that_climbs(tmp_path: Path, case: str) -> None:
    """A source archive with paths, links or devices that lead elsewhere is refused before it is unpacked."""
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "tree").mkdir()
    with pytest.raises(SiteswapError, match="is not a source archive") as caught:
        FS.extract(tarball(tmp_path / "s-1.0.tar.gz", TARS[case]), tmp_path / "tree")
    assert caught.value.kind is Kind.REQUIREMENT
    assert list((tmp_path / "tree").iterdir()) == []
    assert {item.name for item in tmp_path.iterdir()} == {"outside", "tree", "s-1.0.tar.gz"}
    assert not Path("/tmp/siteswap-evil").exists()


KINDS = {F: "file", D: "directory", S: "link", H: "hard"}


@pytest.mark.parametrize("case", TARS)
def test_source_archive_is_refused_whatever_tarfile_thinks(case: str) -> None:
    """The same by our own account alone, without the filter that not every Python has in working order."""
    tree = archives.SourceTree(1000)

    def look() -> None:
        for name, kind, target in TARS[case]:
            tree.add(name, KINDS.get(kind, "other"), 5, target)
        tree.finish()

    with pytest.raises(archives.ArchiveError):
        look()


def test_source_archive_with_ordinary_links(tmp_path: Path) -> None:
    """Links that stay inside are unpacked as they are, special bits are not."""
    members = [("s-1.0", D, ""), ("./s-1.0/a", F, ""), ("s-1.0/sub/l", S, "../a"), ("s-1.0/h", H, "s-1.0/a")]
    (tmp_path / "tree").mkdir()
    FS.extract(tarball(tmp_path / "s-1.0.tar.gz", members), tmp_path / "tree")
    assert (tmp_path / "tree/s-1.0/sub/l").read_text() == "evil\n"
    assert (tmp_path / "tree/s-1.0/h").read_text() == "evil\n"
    assert (tmp_path / "tree/s-1.0/a").stat().st_mode & 0o7022 == 0


def header(size: int, kind: bytes = F) -> bytes:
    """One header of a tar archive, its size as it is."""
    info = tarfile.TarInfo("x")
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 4 + struct.pack(">q", size) if size < 0 else block[124:136]
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\x1f\x8b" + b"x" * 50, b"BZh9" + b"x" * 50, header(-1024) + bytes(2048),
     header(-512) * 3, header(0, tarfile.XHDTYPE) * 3000, plain()],
    ids=["empty", "nonsense", "gzip", "bzip2", "backwards", "round", "headers", "zip"],
)  # fmt: skip
def test_source_archive_that_is_none(tmp_path: Path, content: bytes) -> None:
    """What is no source archive, or leads its reader in a circle, is refused in time."""
    path = tmp_path / "s-1.0.tar.gz"
    path.write_bytes(content)
    (tmp_path / "tree").mkdir()
    begun = time.monotonic()
    with pytest.raises(SiteswapError, match="is not a source archive"):
        FS.extract(path, tmp_path / "tree")
    assert time.monotonic() - begun < 10


def test_source_archive_that_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source archive that would fill the disk, in bytes or in files, is refused by its own account."""
    (tmp_path / "tree").mkdir()
    path = tarball(tmp_path / "s-1.0.tar.gz", [(f"f{number}", F, "") for number in range(50)])
    for name, value in (("ANY_SIZE", 200), ("MOST_MEMBERS", 20)):
        with monkeypatch.context() as changed:
            changed.setattr(archives, name, value)
            changed.setattr(archives, "MOST_TIMES", 0 if name == "ANY_SIZE" else 100)
            with pytest.raises(SiteswapError, match="is not a source archive"):
                FS.extract(path, tmp_path / "tree")
    assert list((tmp_path / "tree").iterdir()) == []


def test_zipped_source_is_read_as_strictly(tmp_path: Path) -> None:
    """A source archive of the other kind follows the rules for wheels."""
    (tmp_path / "tree").mkdir()
    for content in (archive([Part("../evil", b"x")]), archive([Part("a", b"x")]) + b"trailing"):
        (tmp_path / "s-1.0.zip").write_bytes(content)
        with pytest.raises(SiteswapError, match="is not a source archive"):
            FS.extract(tmp_path / "s-1.0.zip", tmp_path / "tree")
    (tmp_path / "s-1.0.zip").write_bytes(archive([Part("s/way", b"/etc", mode=0o120777), Part("s/a", b"x")]))
    FS.extract(tmp_path / "s-1.0.zip", tmp_path / "tree")
    assert not (tmp_path / "tree/s/way").is_symlink()


BACKEND = """
import base64, hashlib, os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    {body}
"""
LIES = {
    "another name": "return make(directory, 'stranger', 'stranger-1.0-py3-none-any.whl')",
    "another file name": "return make(directory, 'w', 'stranger-1.0-py3-none-any.whl')",
    "elsewhere": "make(directory, 'w', '../w-1.0-py3-none-any.whl'); return '../w-1.0-py3-none-any.whl'",
    "nothing": "return 'w-1.0-py3-none-any.whl'",
    "no wheel": "open(os.path.join(directory, 'w.whl'), 'w').close(); return 'w.whl'",
}
MAKE = """
def make(directory, name, file):
    info = f"{name}-1.0.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(text)}\\n"
    with zipfile.ZipFile(os.path.join(directory, file), "w") as z:
        for path, text in files.items():
            z.writestr(path, text)
        z.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\\n")
    return file
"""


@pytest.mark.parametrize("case", LIES)
def test_build_that_lies(bench: Bench, tmp_path: Path, case: str) -> None:
    """A build backend that makes another distribution's wheel, none, or one elsewhere gets nothing in."""
    project = tmp_path / "w"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "w"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (project / "backend.py").write_text(BACKEND.format(body=LIES[case]) + MAKE)
    (tmp_path / "pylock.toml").write_text(pylock('[packages.directory]\npath = "w"\n'))
    with untouched(bench):
        reason = "says that it is stranger" if case == "another name" else ""
        refused(bench.run("sync", tmp_path / "pylock.toml"), reason)
