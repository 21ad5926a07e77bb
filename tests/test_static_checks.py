"""The checks that read files of a generation: files, tags, entry points, start-up code, shared libraries."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from siteswap import plan
from siteswap.checks import entry_points, files, libraries, reading, startup, tags
from siteswap.fs import FileSystem
from siteswap.generation import Generation
from siteswap.layout import GenerationLayout, Number
from siteswap.manifest import Distribution, Interpreter, Manifest
from siteswap.verdict import Check, Finding

SITE = "lib/python3.12/site-packages"
CACHE_TAG = "cpython-312"
EXTENSION = f".{CACHE_TAG}-{platform.machine()}-linux-gnu.so"
INTERPRETER = Interpreter(
    executable=os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    version="3.12.1", implementation="cpython", cache_tag=CACHE_TAG,
    schemes={"purelib": SITE, "platlib": SITE, "scripts": "bin", "data": "", "headers": "include"},
    lib64=True, markers={}, tags=("cp312-cp312-linux_x86_64", "cp312-abi3-linux_x86_64", "py3-none-any"),
    fingerprint="1:2",
)  # fmt: skip

Contents = Mapping[str, str | bytes]


class Prefix:
    """A generation made by hand: files, and for each distribution a RECORD that is right."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.distributions: list[Distribution] = []
        (root / SITE).mkdir(parents=True)

    def write(self, path: str, content: str | bytes) -> Path:
        """A file of the prefix."""
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(content.encode() if isinstance(content, str) else content)
        return where

    def add(
        self,
        name: str = "demo",
        contents: Contents | None = None,
        *,
        info: Contents | None = None,
        elsewhere: Contents | None = None,
        editable: str | None = None,
    ) -> Distribution:
        """A distribution: `contents` in site-packages, `info` in .dist-info, `elsewhere` in the prefix."""
        dist_info = f"{SITE}/{name}-1.0.dist-info"
        beside = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", **(info or {})}
        everything: dict[str, str | bytes] = {
            **{f"{SITE}/{path}": content for path, content in (contents or {}).items()},
            **{f"{dist_info}/{path}": content for path, content in beside.items()},
            **(elsewhere or {}),
        }
        rows = [plan.row_of(path, self.write(path, text).read_bytes()) for path, text in everything.items()]
        self.write(f"{dist_info}/RECORD", plan.write_record(rows, dist_info))
        item = Distribution(canonicalize_name(name), "1.0", "key", dist_info, True, editable=editable)
        self.distributions.append(item)
        return item

    def record(self, item: Distribution, change: Callable[[str], str]) -> None:
        """Edit a RECORD."""
        path = self.root / item.dist_info / "RECORD"
        path.write_text(change(path.read_text()))

    def generation(
        self,
        version: str = "3.12.1",
        *,
        overlaps: Sequence[str] = (),
        strays: Sequence[str] = (),
        system: bool = False,
    ) -> Generation:
        """The generation as siteswap reads it."""
        manifest = Manifest(
            Number(1), "", "", None, replace(INTERPRETER, version=version), (), tuple(self.distributions),
            system, 0, "passed", tuple(overlaps), tuple(strays),
        )  # fmt: skip
        return Generation(FileSystem(), GenerationLayout(self.root), manifest)


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    """An empty generation."""
    return Prefix(tmp_path / "generation")


def said(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Part and message of findings."""
    return [(item.part, item.message) for item in findings]


def parts(findings: Iterable[Finding]) -> list[str]:
    """Parts of findings."""
    return [item.part for item in findings]


def encoded(algorithm: str, content: bytes) -> str:
    """A hash as RECORD writes it."""
    digest = hashlib.new(algorithm, content).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


# -- what they share -----------------------------------------------------------------------------


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_foreign_text_is_shown_harmless(text: str, limit: int) -> None:
    """Whatever a name holds, what is shown of it is short and can be printed."""
    found = reading.shown(text, limit)
    assert len(found) <= limit
    assert found.isprintable()


def test_what_is_no_regular_file_is_not_read(prefix: Prefix) -> None:
    """A pipe or a directory where a text should be keeps nobody waiting."""
    os.mkfifo(prefix.root / "pipe")
    generation = prefix.generation()
    assert reading.content(generation, "pipe") is None
    assert reading.content(generation, "lib") is None
    assert reading.content(generation, "no\0name") is None


# -- files ---------------------------------------------------------------------------------------


def test_files_as_recorded_are_right(prefix: Prefix) -> None:
    """A distribution that is what its RECORD says has no findings, large and empty files included."""
    item = prefix.add("De.mo", {"demo/__init__.py": "", "demo/big.bin": bytes(3_000_000), "demo/é.py": "x"})
    assert files.check(prefix.generation(), [item]) == []


def test_each_kind_of_wrong_file_is_found(prefix: Prefix) -> None:
    """Missing, cut, changed in place, replaced by a link or a directory, unreadable: each is named."""
    names = ("gone", "cut", "same_size", "link", "folder", "pipe", "fine")
    item = prefix.add(contents={f"demo/{name}.py": "x = 1\n" for name in names})
    where = prefix.root / SITE / "demo"
    for name in ("gone", "link", "folder", "pipe"):
        (where / f"{name}.py").unlink()
    (where / "cut.py").write_text("x")
    (where / "same_size.py").write_text("x = 2\n")
    (where / "link.py").symlink_to("fine.py")
    (where / "folder.py").mkdir()
    os.mkfifo(where / "pipe.py")
    found = {
        part.rpartition("/")[2]: message for part, message in said(files.check(prefix.generation(), [item]))
    }
    assert found == {
        "gone.py": f"{SITE}/demo/gone.py is missing",
        "cut.py": f"{SITE}/demo/cut.py has 1 bytes where RECORD says 6",
        "same_size.py": f"{SITE}/demo/same_size.py does not have the content that RECORD says"
        " (sha256 differs)",
        "link.py": f"{SITE}/demo/link.py is a link and not a regular file",
        "folder.py": f"{SITE}/demo/folder.py is a directory and not a regular file",
        "pipe.py": f"{SITE}/demo/pipe.py is a device or a pipe and not a regular file",
    }


def test_a_finding_about_a_file_says_whose_it_is(prefix: Prefix) -> None:
    """Check, distribution, version and path are in the finding; the same damage is the same finding."""
    item = prefix.add(contents={"demo.py": "x"})
    (prefix.root / SITE / "demo.py").unlink()
    one, again = (files.check(prefix.generation(), [item])[0] for _ in range(2))
    assert (one.check, one.subject, one.version, one.part) == (Check.FILES, "demo", "1.0", f"{SITE}/demo.py")
    assert one.way == again.way


@pytest.mark.parametrize("algorithm", ["sha512", "blake2b", "sha3_256", "md5"])
def test_every_hash_that_python_knows_counts(prefix: Prefix, algorithm: str) -> None:
    """RECORD may use another algorithm than sha256."""
    item = prefix.add(contents={"demo.py": "x"})
    right = encoded("sha256", b"x")
    prefix.record(item, lambda text: text.replace(right, encoded(algorithm, b"x")))
    assert files.check(prefix.generation(), [item]) == []
    prefix.record(item, lambda text: text.replace(encoded(algorithm, b"x"), encoded(algorithm, b"y")))
    assert parts(files.check(prefix.generation(), [item])) == [f"{SITE}/demo.py"]


@pytest.mark.parametrize("field", ["", "unheard=of", "shake_128=x", "=x", "sha256"])
def test_without_a_usable_hash_only_presence_counts(prefix: Prefix, field: str) -> None:
    """Rows without hash and size, or with a hash that nobody can compute, need only be there."""
    item = prefix.add(contents={"demo.py": "x"})
    row = f"demo.py,{encoded('sha256', b'x')},1"
    prefix.record(item, lambda text: text.replace(row, f"demo.py,{field},"))
    (prefix.root / SITE / "demo.py").write_text("anything")
    assert files.check(prefix.generation(), [item]) == []
    (prefix.root / SITE / "demo.py").unlink()
    assert parts(files.check(prefix.generation(), [item])) == [f"{SITE}/demo.py"]


def test_a_shared_file_is_not_compared(prefix: Prefix) -> None:
    """Where two distributions may claim a file, the one whose content lost is not damaged; a gap is."""
    item = prefix.add(contents={"shared.py": "mine"})
    where = prefix.write(f"{SITE}/shared.py", "the other's")
    generation = prefix.generation(overlaps=[f"{SITE}/shared.py"])
    assert files.check(generation, [item]) == []
    where.unlink()
    assert parts(files.check(generation, [item])) == [f"{SITE}/shared.py"]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\xff\xfe")])
def test_a_record_that_cannot_be_read_is_a_finding(prefix: Prefix, damage: Callable[[Path], None]) -> None:
    """Without RECORD nothing can be checked, and that is said."""
    item = prefix.add()
    damage(prefix.root / item.dist_info / "RECORD")
    [found] = files.check(prefix.generation(), [item])
    assert found.part == "RECORD"
    assert found.message.startswith("RECORD cannot be read: ")


def test_odd_rows_are_findings_and_no_more(prefix: Prefix) -> None:
    """Names that no file system takes, and control characters, come out as findings of one clean line."""
    item = prefix.add()
    rows = ["no\0name.py,,", f"{'n' * 300}.py,,", '"evil\x1b[2J\nname.py",,', "demo.py,,many"]
    prefix.write(f"{SITE}/demo.py", "")
    prefix.record(item, lambda text: text + "\n".join(rows) + "\n")
    found = files.check(prefix.generation(), [item])
    assert len(found) == 4
    assert all(finding.message.isprintable() for finding in found)


def test_many_files_are_all_looked_at(prefix: Prefix) -> None:
    """More files than one thread takes at a time: the last one counts too, and the order is RECORD's."""
    item = prefix.add(contents={f"demo/m{number:03}.py": "x" for number in range(300)})
    for number in (5, 150, 299):
        (prefix.root / SITE / f"demo/m{number:03}.py").unlink()
    found = parts(files.check(prefix.generation(), [item]))
    assert found == [f"{SITE}/demo/m{number}.py" for number in ("005", "150", "299")]


@pytest.mark.parametrize(
    ("metadata", "count"),
    [
        ("Name: other\nVersion: 1.0\n", 1),
        ("Name: demo\nVersion: 2.0\n", 1),
        ("Name: \x1b[31m\nVersion: no\n", 2),
        ("", 2),
        ("Name: demo\nName: demo\nVersion: 1.0\n", 1),
        ("Name: DEMO\nVersion: 1.0.0\n\nName: other\n", 0),
        ("Name: demo\r\nVersion: v1.0\r\n\r\n\xff", 0),
    ],
)
def test_metadata_speaks_of_the_distribution(prefix: Prefix, metadata: str, count: int) -> None:
    """Another name or version in METADATA is found; other spellings, and descriptions, are not."""
    item = prefix.add(info={"METADATA": metadata.encode("latin-1")})
    found = files.check(prefix.generation(), [item])
    assert parts(found) == ["METADATA"] * count
    assert all(finding.message.isprintable() for finding in found)


# -- tags ----------------------------------------------------------------------------------------


def wheel_file(*lines: str) -> str:
    """A WHEEL file with these tags."""
    return "Wheel-Version: 1.0\nGenerator: tests\n" + "".join(f"Tag: {line}\n" for line in lines)


def test_a_wheel_for_another_platform_is_found(prefix: Prefix) -> None:
    """No tag of the wheel fits: the finding names them and what the interpreter would take."""
    item = prefix.add(info={"WHEEL": wheel_file("cp39-cp39-win_amd64", "cp38-cp38-macosx_11_0_arm64")})
    assert said(tags.check(prefix.generation(), [item])) == [
        (
            "WHEEL",
            "its wheel is made for cp39-cp39-win_amd64, cp38-cp38-macosx_11_0_arm64,"
            " not for cpython 3.12.1 (best tag cp312-cp312-linux_x86_64)",
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        wheel_file("py2.py3-none-any"),
        wheel_file("cp39-cp39-win_amd64", "cp39.cp312-abi3-linux_x86_64.win32"),
        "tag :  py3-none-any \r\n",
        wheel_file(),
        wheel_file("nonsense", "a-b-c-d"),
        "\x00\x01",
    ],
)
def test_wheels_that_fit_or_say_nothing_pass(prefix: Prefix, text: str) -> None:
    """One fitting tag is enough, compressed or not; without a readable tag there is nothing to say."""
    item = prefix.add(info={"WHEEL": text})
    assert tags.check(prefix.generation(), [item]) == []


def test_no_wheel_or_an_editable_has_nothing_to_say(prefix: Prefix) -> None:
    """Other tools leave no WHEEL; an editable's is about its source tree."""
    without = prefix.add("without")
    editable = prefix.add("edit", info={"WHEEL": wheel_file("cp39-cp39-win32")}, editable="/src")
    assert tags.check(prefix.generation(), [without, editable]) == []


@given(st.text())
def test_any_wheel_text_gives_tags(text: str) -> None:
    """Reading tags never fails."""
    assert all(tag.count("-") == 2 for tag in tags.tags(text))


# -- entry points --------------------------------------------------------------------------------

identifier = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
dotted = st.lists(identifier, min_size=1, max_size=3).map(".".join)
extra = st.from_regex(r"[a-z][a-z0-9]{0,3}([._-][a-z0-9]{1,3})?", fullmatch=True)
entry_point = st.builds(
    entry_points.EntryPoint,
    group=st.from_regex(r"[A-Za-z_]\w{0,5}(\.\w{1,5})?", fullmatch=True),
    name=st.from_regex(r"[\w.-]{1,8}", fullmatch=True),
    module=dotted,
    attribute=dotted,
    extras=st.lists(extra, max_size=3).map(tuple),
)


@given(st.lists(entry_point, max_size=6), st.sampled_from(["", " ", "  "]))
def test_entry_points_are_read_as_they_were_written(
    points: list[entry_points.EntryPoint], space: str
) -> None:
    """What the specification allows is read back, whatever the spacing, and has no problems."""
    text = ""
    for point in points:
        names = f"{space},{space}".join(point.extras)
        extras = f"{space}[{space}{names}{space}]" if names else ""
        value = f"{point.module}{space}:{space}{point.attribute}{extras}"
        text += f"# comment\n[{point.group}]\n\n{point.name}{space}={space}{value}\n; comment\n"
    assert entry_points.parse(text) == (points, [])


@given(st.text() | st.text("[]=:.# \nab"))
def test_any_text_of_entry_points_is_read(text: str) -> None:
    """The parser never fails, and what it reports can be printed."""
    points, problems = entry_points.parse(text)
    assert all(point.module for point in points)
    assert all(problem.message.isprintable() for problem in problems)


def test_names_are_case_sensitive_and_may_be_odd() -> None:
    """Names keep their case and may hold all but an equals sign; a module alone is a value."""
    points, problems = entry_points.parse("[a.b]\nX y:z = m\nx y:z = m:a.b [e]\n")
    assert problems == []
    assert [(point.name, point.attribute, point.extras) for point in points] == [
        ("X y:z", None, ()),
        ("x y:z", "a.b", ("e",)),
    ]


@pytest.mark.parametrize(
    "text",
    ["[console_scripts\nx = m:f", "[g]\n= m:f", "x = m:f", "[g]\nno sign", "[g]\n[x = m:f"],
)
def test_malformed_lines_are_problems(text: str) -> None:
    """An open bracket, a missing name or sign, and what stands before any group."""
    points, problems = entry_points.parse(text)
    assert points == []
    assert problems[0].part == "entry_points.txt"


@pytest.mark.parametrize(
    "value", ["", "m", "m:", ":f", "m:f()", "m-n:f", "m:f g", "m:f[x", "m:f [x,,y]", "1m:f"]
)
def test_malformed_programs_are_found(prefix: Prefix, value: str) -> None:
    """A program whose value is no module:function fails when it is started, so it is found for certain."""
    item = prefix.add(info={"entry_points.txt": f"[console_scripts]\ndemo = {value}\n"})
    [found] = entry_points.check(prefix.generation(), [item])
    assert (found.part, found.suspected) == ("console_scripts:demo", False)
    assert entry_points.programs(prefix.generation(), item) == []


def test_a_malformed_plugin_is_suspected_but_a_line_without_sign_is_certain(prefix: Prefix) -> None:
    """Only who asks for a plug-in meets its value; importlib.metadata fails for all on a line without `=`."""
    odd = prefix.add("odd", info={"entry_points.txt": "[plugins]\ndemo = free text\n"})
    worse = prefix.add("worse", info={"entry_points.txt": "[plugins]\nfree text\n"})
    bytes_ = prefix.add("bytes", info={"entry_points.txt": b"[plugins]\n\xff = m\n"})
    found = entry_points.check(prefix.generation(), [odd, worse, bytes_])
    assert [(item.subject, item.suspected) for item in found] == [
        ("odd", True),
        ("worse", False),
        ("bytes", False),
    ]


def scripts(*modules: str, group: str = "console_scripts") -> Contents:
    """A .dist-info with an entry point for each module."""
    lines = [f"p{number} = {module}:main" for number, module in enumerate(modules)]
    return {"entry_points.txt": f"[{group}]\n" + "\n".join(lines) + "\n"}


def test_a_program_without_its_module_is_found(prefix: Prefix) -> None:
    """The module is nowhere: certain for programs, suspected for plug-ins."""
    item = prefix.add(
        contents={"demo/__init__.py": ""},
        info={"entry_points.txt": "[console_scripts]\np = demo.cli:main\n[plug.ins]\nq = demo_plugin\n"},
    )
    found = entry_points.check(prefix.generation(), [item])
    assert said(found) == [
        ("console_scripts:p", "the program p needs module demo.cli, which nothing installed has"),
        ("plug.ins:q", "its plug.ins q needs module demo_plugin, which nothing installed has"),
    ]
    assert [finding.suspected for finding in found] == [False, True]
    assert found[0].check is Check.ENTRY_POINTS


def test_modules_of_every_form_are_seen(prefix: Prefix) -> None:
    """Packages, sources, extension modules of any suffix, byte-code, namespaces, what others have."""
    prefix.add("other", {"other/cli.py": "", "space/theirs/x.py": ""})
    item = prefix.add(
        contents={
            "demo/__init__.py": "",
            "demo/source.py": "",
            f"demo/one{EXTENSION}": "",
            "demo/two.abi3.so": "",
            "demo/three.so": "",
            "space/ours/y.py": "",
            "alone.pyc": "",
        },
        info=scripts(
            "demo", "demo.source", "demo.one", "demo.two", "demo.three", "space", "space.theirs.x",
            "space.ours", "alone", "other.cli", "json.tool", "sys",
        ),
    )  # fmt: skip
    assert entry_points.check(prefix.generation(), [item]) == []


def test_a_module_is_not_mistaken_for_its_neighbour(prefix: Prefix) -> None:
    """A name that only begins like a file's, or lies in a data directory, is not there."""
    item = prefix.add(
        contents={"demo/client.py": "", "demo/client.so": "", "demo/cli.txt": ""},
        elsewhere={"share/tool/__init__.py": ""},
        info=scripts("demo.cli", "tool", "demo.client.deeper"),
    )
    found = parts(entry_points.check(prefix.generation(), [item]))
    assert found == ["console_scripts:p0", "console_scripts:p1", "console_scripts:p2"]


def test_editables_are_left_to_the_import_check(prefix: Prefix) -> None:
    """What an editable's source tree holds is not said by files: neither ours nor other tools'."""
    # Both have a part in site-packages, as editable installs with compiled modules do.
    ours = prefix.add("ours", {"ours/_x.so": ""}, info=scripts("ours.cli"), editable="/src/ours")
    files_ = {"theirs.pth": "/src/theirs\n", "theirs/_x.so": ""}
    theirs = prefix.add("theirs", files_, info=scripts("theirs.cli"))
    assert entry_points.check(prefix.generation(), [ours, theirs]) == []


def test_a_module_may_come_from_another_ones_source_tree(prefix: Prefix) -> None:
    """With an editable or the base's site-packages at hand, only parts of installed packages are missed."""
    item = prefix.add(contents={"demo/__init__.py": ""}, info=scripts("demo.cli", "tree.cli"))
    both, certain = ["console_scripts:p0", "console_scripts:p1"], ["console_scripts:p0"]
    assert parts(entry_points.check(prefix.generation(), [item])) == both
    assert parts(entry_points.check(prefix.generation(system=True), [item])) == certain
    prefix.add("tree", editable="/src/tree")
    assert parts(entry_points.check(prefix.generation(), [item])) == certain


def test_a_path_file_of_anybody_may_bring_the_module(prefix: Prefix) -> None:
    """A .pth with a directory makes modules unsure; one that only runs code does not."""
    item = prefix.add(info=scripts("tree.cli"))
    where = prefix.write(f"{SITE}/a.pth", "import something\n# comment\n\n")
    assert parts(entry_points.check(prefix.generation(), [item])) == ["console_scripts:p0"]
    where.write_text("/src/tree\n")
    assert entry_points.check(prefix.generation(), [item]) == []


def test_programs_are_the_scripts_only(prefix: Prefix) -> None:
    """Console and GUI scripts, in order; not plug-ins."""
    text = "[gui_scripts]\ng = m:g\n[pytest11]\nx = m\n[console_scripts]\nc = m.n:c.d [e]\n"
    item = prefix.add(info={"entry_points.txt": text})
    found = entry_points.programs(prefix.generation(), item)
    assert [(point.name, point.module, point.attribute) for point in found] == [
        ("g", "m", "g"),
        ("c", "m.n", "c.d"),
    ]


# -- start-up code -------------------------------------------------------------------------------


def test_import_lines_of_path_files_are_found(prefix: Prefix) -> None:
    """A .pth in site-packages that executes a line runs in every program: the finding shows the line."""
    item = prefix.add(contents={"demo.pth": "# why\n/some/where\nimport demo_hook; demo_hook.start()\n"})
    [found] = startup.check(prefix.generation(), [item])
    assert (found.check, found.subject, found.part) == (Check.STARTUP_CODE, "demo", f"{SITE}/demo.pth")
    assert (
        found.message == "runs code at every start of Python: demo.pth: import demo_hook; demo_hook.start()"
    )


def test_long_and_strange_lines_are_shown_harmless(prefix: Prefix) -> None:
    """Control characters, bytes that are no text, and length do nothing to a terminal."""
    item = prefix.add(
        contents={"demo.pth": b"import a\x1b[2J\xff" + b"; x" * 4000 + b"\nimport b\nimport c\n"}
    )
    [found] = startup.check(prefix.generation(), [item])
    assert found.message.isprintable()
    assert len(found.message) < 250
    assert found.message.endswith("(and 2 more lines)")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("only_paths.pth", "/some/where\n\n./relative\nimportant/place\n"),
        ("comment.pth", "# import x\n#import y\n"),
        ("from.pth", "from x import y\n"),
        ("demo/inner.pth", "import x\n"),
        ("demo.pth.txt", "import x\n"),
        ("demo/sitecustomize.py", "x"),
        ("sitecustomize_extra.py", "x"),
        ("sitecustomize/data.txt", "x"),
        ("demo.start", "demo:start\n"),
    ],
)
def test_files_that_run_nothing_are_not_found(prefix: Prefix, path: str, text: str) -> None:
    """Paths alone, comments, other directories, other names; a .start file before Python 3.15."""
    item = prefix.add(contents={path: text})
    assert startup.check(prefix.generation("3.12.1"), [item]) == []


@pytest.mark.parametrize(
    "path",
    [
        "sitecustomize.py", "usercustomize.py", "sitecustomize/__init__.py", f"usercustomize{EXTENSION}",
        "sitecustomize.abi3.so", "sitecustomize.so", "sitecustomize.pyc", "usercustomize/__init__.pyc",
    ],
)  # fmt: skip
def test_modules_that_site_imports_are_found(prefix: Prefix, path: str) -> None:
    """sitecustomize and usercustomize in every form, byte-code alone included."""
    item, other = prefix.add(contents={path: "x"}), prefix.add("other")
    found = startup.code(prefix.generation(), [item, other])
    module = path.partition(".")[0].partition("/")[0]
    assert found == [startup.Startup("demo", f"{SITE}/{path}", (f"import {module}",))]


def test_start_files_count_where_python_knows_them(prefix: Prefix) -> None:
    """By PEP 829 a .start file runs from 3.15 on, and replaces the import lines of the .pth beside it."""
    item = prefix.add(contents={"demo.pth": "/x\nimport old\n", "demo.start": "\ufeff# why\n demo:start \n"})
    both = {version: startup.code(prefix.generation(version), [item]) for version in ("3.14.1", "3.15.0")}
    assert [(found.path, found.runs) for found in both["3.14.1"]] == [(f"{SITE}/demo.pth", ("import old",))]
    assert [(found.path, found.runs) for found in both["3.15.0"]] == [(f"{SITE}/demo.start", ("demo:start",))]


def test_a_start_file_that_python_passes_over_replaces_nothing(prefix: Prefix) -> None:
    """One that is not UTF-8 counts for nothing; an empty one runs nothing and still replaces."""
    item = prefix.add(contents={"demo.pth": "import old\n", "demo.start": b"\xff"})
    assert parts(startup.check(prefix.generation("3.15.0"), [item])) == [f"{SITE}/demo.pth"]
    prefix.write(f"{SITE}/demo.start", "# nothing\n")
    assert startup.check(prefix.generation("3.15.0"), [item]) == []


def test_hidden_path_files_count_for_old_versions_only(prefix: Prefix) -> None:
    """Since 3.13 a .pth whose name begins with a dot is passed over."""
    item = prefix.add(contents={".demo.pth": "import x\n"})
    assert parts(startup.check(prefix.generation("3.12.1"), [item])) == [f"{SITE}/.demo.pth"]
    assert startup.check(prefix.generation("3.13.0"), [item]) == []


def test_import_lines_end_with_python_3_18() -> None:
    """From 3.18 on they are ignored (PEP 829)."""
    assert startup.executed_lines(b"import x\n", (3, 17)) == ["import x"]
    assert startup.executed_lines(b"import x\n", (3, 18)) == []


@given(
    st.lists(st.sampled_from(["import a", "import\tb", " import c", "importd", "/path", "# import e", ""]))
)
def test_lines_are_told_apart_as_site_does(lines: list[str]) -> None:
    """Against the rule as Lib/site.py spells it, before and after 3.15."""
    text = "\r\n".join(lines).encode()
    for version, strip in (((3, 9), False), ((3, 13), False), ((3, 15), True)):
        seen = [line.strip() if strip else line for line in lines]
        expected = [line for line in seen if line.startswith(("import ", "import\t"))]
        assert startup.executed_lines(text, version) == expected


@given(st.binary(), st.sampled_from([(3, 9), (3, 13), (3, 15), (3, 18)]))
def test_any_path_file_is_read(text: bytes, version: tuple[int, int]) -> None:
    """The parsers never fail, and no line is both code and path."""
    runs, paths = startup.executed_lines(text, version), startup.added_paths(text, version)
    assert not set(runs) & set(paths)
    startup.called_entry_points(text)


def test_pythons_of_this_machine_execute_just_those_lines(tmp_path: Path) -> None:
    """The running interpreter's own site executes what we say it does, and nothing else."""
    kinds = ["import {0}", "import\t{0}", " import {0}", "#import {0}", "import {0};x=1", "from {0} import *"]
    lines = [f"{kind.format('marker')}; raise SystemError({n})" for n, kind in enumerate(kinds)]
    ran = []
    for number, line in enumerate(lines):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "marker.py").write_text("")
        (directory / "x.pth").write_text(f"{line}\n")
        code = f"import site, sys; sys.path.append({str(directory)!r}); site.addsitedir({str(directory)!r})"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
        ran += [line] if "SystemError" in done.stderr else []
    found = startup.executed_lines("\n".join(lines).encode(), sys.version_info[:2])
    assert found == [line.strip() if sys.version_info >= (3, 15) else line for line in ran]


# -- shared libraries ----------------------------------------------------------------------------

compiler = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(
    compiler is None, reason="there is no C compiler to make shared objects with"
)
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


@functools.cache
def built(words: tuple[str, ...], code: str, beside: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """A shared object; `beside` are files that it is linked with, in its working directory."""
    import tempfile

    assert compiler is not None
    with tempfile.TemporaryDirectory() as directory:
        for name, content in beside:
            Path(directory, name).write_bytes(content)
        command = [compiler, "-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-x", "none", *words]
        subprocess.run([*command, "-o", "out.so"], input=code.encode(), cwd=directory, check=True)
        return Path(directory, "out.so").read_bytes()


def library(soname: str = "libdemo.so.1") -> bytes:
    """A library with a name."""
    return built((f"-Wl,-soname,{soname}",), "int demo(void) { return 1; }")


def module(*flags: str, soname: str = "libdemo.so.1") -> bytes:
    """A shared object that needs the library of that name."""
    words = ("libneeded.so", *flags)
    return built(
        words, "int demo(void); int use(void) { return demo(); }", (("libneeded.so", library(soname)),)
    )


@needs_compiler
def test_a_library_that_is_nowhere_is_suspected(prefix: Prefix) -> None:
    """The finding names the file and the library, and is a suspicion: the module may never be used."""
    item = prefix.add(contents={f"demo/_x{EXTENSION}": module()})
    [found] = libraries.check(prefix.generation(), [item])
    assert (found.check, found.subject, found.suspected) == (Check.LIBRARIES, "demo", True)
    assert found.part == f"{SITE}/demo/_x{EXTENSION}:libdemo.so.1"
    assert found.message.startswith(f"demo/_x{EXTENSION} needs libdemo.so.1, which neither ")


@needs_compiler
@pytest.mark.parametrize("tags_", ["--enable-new-dtags", "--disable-new-dtags"])
@pytest.mark.parametrize("path", ["$ORIGIN/../demo.libs", "${ORIGIN}/../demo.libs", "/none:$ORIGIN/../$LIB"])
def test_run_paths_are_followed(prefix: Prefix, path: str, tags_: str) -> None:
    """RPATH and RUNPATH, $ORIGIN and $LIB in both spellings; without the library the same file is found."""
    flags = (f"-Wl,-rpath,{path}", f"-Wl,{tags_}")
    # The library has another distribution's RECORD nowhere: only the path leads to it.
    item = prefix.add(contents={f"demo/_x{EXTENSION}": module(*flags)})
    for directory in ("demo.libs", "lib", "lib64"):
        prefix.write(f"{SITE}/{directory}/libdemo.so.1", library())
    assert libraries.check(prefix.generation(), [item]) == []
    for directory in ("demo.libs", "lib", "lib64"):
        (prefix.root / SITE / directory / "libdemo.so.1").unlink()
    assert len(libraries.check(prefix.generation(), [item])) == 1


@needs_compiler
def test_a_file_for_another_machine_is_no_library(prefix: Prefix) -> None:
    """The linker passes over files of another class or machine, over texts and over directories."""
    item = prefix.add(contents={f"demo/_x{EXTENSION}": module("-Wl,-rpath,$ORIGIN")})
    where = prefix.write(f"{SITE}/demo/libdemo.so.1", b"INPUT(libother.so)")
    assert len(libraries.check(prefix.generation(), [item])) == 1
    where.write_bytes(foreign(library()))
    assert len(libraries.check(prefix.generation(), [item])) == 1
    where.write_bytes(library())
    assert libraries.check(prefix.generation(), [item]) == []


def foreign(content: bytes) -> bytes:
    """The same ELF file for a machine that this one is not."""
    return content[:18] + struct.pack("<H", 0x1234) + content[20:]


@needs_compiler
def test_libraries_that_programs_load_before_are_no_false_alarm(prefix: Prefix) -> None:
    """A file of that name or that SONAME in any distribution may be loaded first, by ctypes for instance."""
    item = prefix.add(contents={f"demo/_x{EXTENSION}": module()})
    alone = prefix.generation()
    prefix.add("vendor", {"vendor/lib/libdemo.so.1": library("libother.so")})
    named = prefix.generation()
    prefix.distributions.pop()
    prefix.add("renamed", {"renamed/libdemo-0a1b.so": library()})
    by_soname = prefix.generation()
    assert len(libraries.check(alone, [item])) == 1
    assert libraries.check(named, [item]) == []
    assert libraries.check(by_soname, [item]) == []


@needs_compiler
def test_a_carried_file_counts_as_a_library(prefix: Prefix) -> None:
    """What no distribution owns may be what the user put there for this."""
    item = prefix.add(contents={f"demo/_x{EXTENSION}": module()})
    prefix.write(f"{SITE}/extra/libdemo.so.1", library())
    generation = prefix.generation(strays=[f"{SITE}/extra/libdemo.so.1"])
    assert libraries.check(generation, [item]) == []


@needs_compiler
def test_variables_and_the_system_count(
    prefix: Prefix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """LD_LIBRARY_PATH, the system's libraries and the linker's cache are places like any other."""
    system = prefix.add("system", {f"_s{EXTENSION}": module(soname="libc.so.6")})
    if platform.libc_ver()[0] == "glibc":
        assert libraries.check(prefix.generation(), [system]) == []
    item = prefix.add(contents={f"demo/_x{EXTENSION}": module()})
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert len(libraries.check(prefix.generation(), [item])) == 1
    (tmp_path / "libdemo.so.1").write_bytes(library())
    assert libraries.check(prefix.generation(), [item]) == []
    monkeypatch.delenv("LD_LIBRARY_PATH")
    monkeypatch.setattr(
        libraries, "linker_cache", lambda _: {"libdemo.so.1": [str(tmp_path / "libdemo.so.1")]}
    )
    if shutil.which("ldconfig", path="/sbin:/usr/sbin"):
        assert libraries.check(prefix.generation(), [item]) == []


@needs_compiler
def test_the_base_interpreters_own_libraries_count(prefix: Prefix, tmp_path: Path) -> None:
    """What lies in lib beside the directory of the base interpreter is found, as libpython is."""
    item = prefix.add(contents={f"demo/_x{EXTENSION}": module()})
    generation = prefix.generation()
    program = tmp_path / "base" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_bytes(module())
    manifest = replace(generation.manifest, interpreter=replace(INTERPRETER, executable=str(program)))
    generation = Generation(generation.fs, generation.layout, manifest)
    assert len(libraries.check(generation, [item])) == 1
    (tmp_path / "base" / "lib").mkdir()
    (tmp_path / "base" / "lib" / "libdemo.so.1").write_bytes(library())
    assert libraries.check(generation, [item]) == []


@needs_compiler
def test_files_that_this_python_never_loads_are_skipped(prefix: Prefix) -> None:
    """Other Pythons' extension modules, other machines' files, linker scripts, other names."""
    item = prefix.add(
        contents={
            "demo/_x.cpython-39-x86_64-linux-gnu.so": module(),
            "demo/_x.pypy39-pp73-x86_64-linux-gnu.so": module(),
            f"demo/_x.{CACHE_TAG}-darwin.so": b"\xcf\xfa\xed\xfe",
            f"demo/_y{EXTENSION}": foreign(module()),
            "demo/plain.so": "INPUT(libdemo.so.1)\n",
            "demo/cut.so": module()[:3000],
            "demo/_x.so.txt/readme.py": module(),
            "demo/program": module(),
        }
    )
    assert libraries.check(prefix.generation(), [item]) == []


@needs_compiler
@pytest.mark.parametrize("suffix", [EXTENSION, ".abi3.so", f".{CACHE_TAG}.so", ".abi3t.so"])
def test_broken_extension_modules_are_suspected(prefix: Prefix, suffix: str) -> None:
    """A file named as this Python's extension module that is empty, a text, or cut short."""
    good = module("-Wl,-rpath,$ORIGIN")
    item = prefix.add(
        contents={
            f"demo/empty{suffix}": b"",
            f"demo/text{suffix}": "hello",
            f"demo/cut{suffix}": good[: len(good) // 3],
            f"demo/object{suffix}": good[:64] + bytes(len(good)),
        }
    )
    found = libraries.check(prefix.generation(), [item])
    assert parts(found) == [f"{SITE}/demo/{name}{suffix}" for name in ("cut", "empty", "object", "text")]
    assert all("is not a shared library that can be read" in finding.message for finding in found)
    assert all(finding.suspected for finding in found)


@needs_compiler
def test_a_missing_end_is_seen_where_all_else_can_be_read(prefix: Prefix) -> None:
    """A download cut short in its data has everything that the linker asks for, and crashes when used."""
    whole = built((), 'char mark[] = "HERE THE DATA IS"; char *use(void) { return mark; }')
    cut = whole[: whole.index(b"HERE THE DATA IS")]
    item = prefix.add(contents={f"demo/_x{EXTENSION}": cut, f"demo/_y{EXTENSION}": whole})
    assert said(libraries.check(prefix.generation(), [item])) == [
        (
            f"{SITE}/demo/_x{EXTENSION}",
            f"demo/_x{EXTENSION} is not a shared library that can be read: its end is missing",
        )
    ]


def for_glibc(version: str) -> bytes:
    """A shared object that needs a version of glibc, made against a library that pretends to be it."""
    script = f"GLIBC_{version} {{ global: demo; }};".encode()
    words = ("-Wl,-soname,libc.so.6", "-Wl,--version-script,map")
    fake = built(words, "int demo(void) { return 1; }", (("map", script),))
    return built(
        ("libneeded.so",), "int demo(void); int use(void) { return demo(); }", (("libneeded.so", fake),)
    )


@needs_compiler
@needs_glibc
def test_a_newer_glibc_than_the_machines_is_found(prefix: Prefix) -> None:
    """Certain for an extension module, suspected for a library; an old version is no finding."""
    has = platform.libc_ver()[1]
    item = prefix.add(
        contents={
            f"demo/_x{EXTENSION}": for_glibc("9.87"),
            "demo.libs/libother.so.1": for_glibc("9.87"),
            f"demo/_old{EXTENSION}": for_glibc("2.2.5"),
        }
    )
    found = libraries.check(prefix.generation(), [item])
    assert [(finding.part, finding.suspected) for finding in found] == [
        (f"{SITE}/demo.libs/libother.so.1:glibc", True),
        (f"{SITE}/demo/_x{EXTENSION}:glibc", False),
    ]
    assert found[1].message == f"demo/_x{EXTENSION} needs glibc 9.87 or newer, and this machine has {has}"


@needs_compiler
@needs_glibc
def test_a_weak_need_of_a_newer_glibc_is_none(prefix: Prefix) -> None:
    """The linker goes on without a version that is marked weak."""
    content = for_glibc("9.87")
    number = struct.pack("<L", elf_hash("GLIBC_9.87"))
    assert content.count(number + bytes(2)) == 1
    weak = content.replace(number + bytes(2), number + b"\2\0")
    item = prefix.add(contents={f"demo/_x{EXTENSION}": weak})
    assert libraries.check(prefix.generation(), [item]) == []


def elf_hash(name: str) -> int:
    """The hash by which ELF files know a symbol version."""
    found = 0
    for byte in name.encode():
        found = (found << 4) + byte
        high = found & 0xF0000000
        found = (found ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return found


@needs_compiler
def test_on_another_c_library_versions_are_not_judged(
    prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """musl has no versions to compare with."""
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2.4"))
    item = prefix.add(contents={f"demo/_x{EXTENSION}": for_glibc("9.87")})
    assert [part for part in parts(libraries.check(prefix.generation(), [item])) if "glibc" in part] == []


@needs_compiler
def test_an_interpreter_that_is_no_elf_file_silences_the_check(prefix: Prefix, tmp_path: Path) -> None:
    """Nothing is known of a machine whose interpreter is a script."""
    item = prefix.add(contents={f"demo/_x{EXTENSION}": module()})
    generation = prefix.generation()
    program = tmp_path / "python"
    for content in (b"#!/bin/sh\n", b"\x7fELF", b""):
        program.write_bytes(content)
        interpreter = replace(INTERPRETER, executable=str(program))
        manifest = replace(generation.manifest, interpreter=interpreter)
        assert libraries.check(Generation(generation.fs, generation.layout, manifest), [item]) == []


@needs_compiler
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(64, 20_000),
)
def test_no_damage_of_an_elf_file_makes_the_check_fail(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], length: int
) -> None:
    """Bytes changed and ends cut off at will: there are findings or none, and nothing is raised."""
    content = bytearray(for_glibc("2.2.5"))
    for start, piece in changes:
        content[start : start + len(piece)] = piece
    prefix = Prefix(tmp_path_factory.mktemp("damaged") / "generation")
    item = prefix.add(contents={f"_x{EXTENSION}": bytes(content[:length]), "libx.so.1": bytes(content)})
    assert all(found.message.isprintable() for found in libraries.check(prefix.generation(), [item]))


@given(st.text())
def test_any_listing_of_the_linkers_cache_is_read(text: str) -> None:
    """Whatever `ldconfig` prints on an odd system, what is taken from it are absolute paths."""
    assert all(path.startswith("/") for found in libraries.linker_cache(text).values() for path in found)


def test_the_linkers_cache_is_read_as_it_is_printed() -> None:
    """Names may come several times, for several machines."""
    listing = (
        "2 libs found in cache `/etc/ld.so.cache'\n"
        "\tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1\n"
        "\tlibz.so.1 (libc6) => /lib/i386-linux-gnu/libz.so.1\n"
        "Cache generated by: ldconfig\n"
    )
    assert libraries.linker_cache(listing) == {
        "libz.so.1": ["/lib/x86_64-linux-gnu/libz.so.1", "/lib/i386-linux-gnu/libz.so.1"]
    }


@given(st.lists(st.text("$ORIGNLB{}/x_.", max_size=20)))
def test_search_paths_are_absolute(entries: list[str]) -> None:
    """Whatever a run path says, only directories that do not depend on where a program starts come out."""
    assert all(path.startswith("/") for path in libraries.search_path(entries, "/home"))


def test_search_paths_expand_just_the_tokens() -> None:
    """$ORIGIN, not $ORIGINAL; a backslash in a directory's name is no group of a pattern."""
    assert libraries.search_path(["$ORIGIN/a", "${ORIGIN}/b", "$ORIGINAL/c", "d"], "/x\\1") == [
        "/x\\1/a",
        "/x\\1/b",
    ]
