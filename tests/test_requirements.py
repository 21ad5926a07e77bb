"""Requirement lines and files: what is read, what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.requirements import Requirement as Specifier

from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.requirements import (
    Request,
    Requirement,
    merge,
    parse_file,
    parse_line,
    parse_stored,
    split_extras,
)
from wheelmaker import wheel

FS = FileSystem()

names = st.from_regex(r"[A-Za-z]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True)
versions = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", fullmatch=True)
specifiers = st.lists(
    st.tuples(st.sampled_from(["==", ">=", "<", "!=", "~="]), versions).map(
        lambda pair: pair[0] + pair[1] + (".0" if pair[0] == "~=" else "")
    ),
    max_size=2,
).map(",".join)
extras = st.lists(names, max_size=2, unique=True).map(lambda found: f"[{','.join(found)}]" if found else "")
markers = st.sampled_from(["", "; python_version >= '3.9'", '; sys_platform == "linux" and extra == "x"'])
lines = st.builds(lambda *parts: "".join(parts), names, extras, specifiers, markers)


@given(lines, st.text(alphabet=" ", max_size=3))
def test_line_means_what_was_written(line: str, space: str) -> None:
    """Reading a line keeps its meaning, whatever stands around it, and does not look at the disk."""
    found = parse_line(space + line + space, Path("/nowhere"), FS)
    assert found.specifier == Specifier(line)
    assert found.name == Specifier(line).name.lower().replace("_", "-").replace(".", "-").replace(
        "--", "-"
    ) or (found.name is not None and "_" not in found.name)


@given(lines, names, st.booleans())
def test_stored_line_is_read_back(line: str, name: str, editable: bool) -> None:
    """What a manifest keeps of a requirement is that requirement."""
    written = f"{name} @ file:///some/tree" if editable else line
    found = parse_line(written, Path("/nowhere"), FS, editable=editable)
    assert parse_stored(found.text) == found


@given(st.lists(lines, max_size=6), st.lists(lines, max_size=6))
def test_newer_requirement_replaces_the_older(old: list[str], new: list[str]) -> None:
    """Merged, each name is there once: with the newest line that asks for it."""
    before = merge([], [parse_line(line, Path("/"), FS) for line in old])
    asked = [parse_line(line, Path("/"), FS) for line in new]
    merged = merge(before, asked)
    by_name = {item.name: item for item in merged}
    assert len(by_name) == len(merged)
    assert by_name == {item.name: item for item in [*before, *asked]}


@example("\0/")
@example("/\r0")
@example("hg+a:/\n0")
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text whatever is more than a usage error, and its message is one line."""
    refusal = None
    try:
        parse_line(text, Path("/nowhere"), FS)
    except SiteswapError as error:
        refusal = error
    if refusal is not None:
        assert refusal.kind is Kind.USAGE
        assert refusal.hint
        assert len(refusal.message.splitlines()) <= 1


@given(st.text(alphabet=st.characters(exclude_characters="[]")), names)
def test_extras_come_off(path: str, extra: str) -> None:
    """Extras are told apart from a path that has none."""
    assert split_extras(f"{path}[{extra}]") == (path, f"[{extra}]")
    assert split_extras(path) == (path, "")


def test_paths_do_not_depend_on_the_directory(tmp_path: Path) -> None:
    """However a wheel is named, what is kept names it by its absolute URL, extras included."""
    made = wheel(tmp_path / "with space", "Some.Name")
    for text in (
        "./with space/Some_Name-1.0-py3-none-any.whl",
        str(made),
        made.as_uri(),
        "with space/Some_Name-1.0-py3-none-any.whl",
        f"file:with%20space/{made.name}",
        f"file:./with%20space/{made.name}",
    ):
        found = parse_line(text, tmp_path, FS)
        named = found if found.specifier else found.named(found.name or "")
        assert (named.name, Specifier(named.line).url) == ("some-name", made.as_uri()), text
    with_extra = parse_line(f"./with space/{made.name}[x]", tmp_path, FS)
    assert Specifier(with_extra.line).extras == {"x"}
    named = parse_line(f"some-name @ file:with%20space/{made.name}", tmp_path, FS)
    assert named.specifier is not None


def test_source_directory_is_named_by_its_project(tmp_path: Path) -> None:
    """A directory gets its name from pyproject.toml; without one only building tells it."""
    (tmp_path / "with").mkdir()
    (tmp_path / "with/pyproject.toml").write_text("[project]\nname = 'It_Is'\n")
    (tmp_path / "without").mkdir()
    named = parse_line("./with[a]", tmp_path, FS, editable=True)
    assert (named.name, named.text) == ("it-is", f"-e it-is[a] @ {(tmp_path / 'with').as_uri()}")
    assert parse_line("./without", tmp_path, FS).name is None
    assert parse_line("~/", tmp_path, FS).line == str(Path.home().resolve())


def read(tmp_path: Path, text: str) -> Request:
    """A requirements file's request."""
    (tmp_path / "lines.txt").write_text(text)
    return parse_file(tmp_path / "lines.txt", FS)


def test_file_as_pip_writes_it(tmp_path: Path) -> None:
    """Comments, continuations, markers, hashes, options and a byte order mark."""
    request = read(
        tmp_path,
        "\ufeff# comment\n\n--index-url=https://example.org/simple\n--extra-index-url  https://example.com/x\n"
        "-f wheels\n--pre\n"
        "one==1.0 \\\n  --hash=sha256:" + "AB" * 32 + " \\\n  --hash=sha256:" + "cd" * 32 + "  # why\n"
        "two>=1 ; python_version < '3'  # comment\n"
        "three @ https://example.org/three-1.0-py3-none-any.whl#sha256=00\n"
        "four \\\n",
    )
    assert [item.name for item in request.requirements] == ["one", "two", "three", "four"]
    assert request.hashes == {"one": frozenset({"sha256:" + "ab" * 32, "sha256:" + "cd" * 32})}
    assert request.require_hashes
    assert request.options == (
        "--index-url", "https://example.org/simple", "--extra-index-url", "https://example.com/x",
        "--find-links", str(tmp_path / "wheels"), "--pre",
    )  # fmt: skip
    assert request.requirements[2].line.endswith("#sha256=00")


def test_included_paths_are_relative_to_the_including_file(tmp_path: Path) -> None:
    """-r, -c and paths in a file are taken from where the file is."""
    (tmp_path / "sub/deep").mkdir(parents=True)
    made = wheel(tmp_path / "sub/deep", "demo")
    (tmp_path / "sub/inner.txt").write_text(f"./deep/{made.name}\n-c limits.txt\n")
    request = read(tmp_path, "-r sub/inner.txt\n--requirement=sub/inner.txt\n")
    assert [item.name for item in request.requirements] == ["demo", "demo"]
    assert set(request.constraints) == {tmp_path / "sub/limits.txt"}


@pytest.mark.parametrize(
    "text",
    [
        "one two",
        "--no-such",
        "--index-url",
        "-f a b",
        "--find-links 'a",
        "-r none.txt",
        "-r lines.txt",
        "-e ./none",
    ],
)
def test_file_that_is_refused_names_the_line(tmp_path: Path, text: str) -> None:
    """A line that cannot be taken is a usage error with file and number, and a next step."""
    with pytest.raises(SiteswapError) as caught:
        read(tmp_path, f"# fine\n\n{text}\n")
    assert caught.value.kind is Kind.USAGE
    assert f"{tmp_path / 'lines.txt'}:3: " in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[project]\nname = 'x'\ndynamic = ['dependencies']", "dynamic"),
        ("[project]\nname = 'x'", "no extra"),
        ("[project", "not valid TOML"),
    ],
)
def test_project_that_is_refused(tmp_path: Path, table: str, words: str) -> None:
    """A pyproject.toml that does not tell its dependencies says why."""
    (tmp_path / "pyproject.toml").write_text(table)
    with pytest.raises(SiteswapError, match=words) as caught:
        parse_file(tmp_path / "pyproject.toml", FS, extras=["more"])
    assert caught.value.kind is Kind.USAGE


def test_project_with_groups(tmp_path: Path) -> None:
    """Extras that name each other and groups that include each other are followed, once."""
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'X'\ndependencies = ['a']\n"
        "[project.optional-dependencies]\nOne = ['b', 'x[two]']\ntwo = ['c', 'x[one]']\n"
        "[dependency-groups]\ndev = ['d', {include-group = 'test'}]\ntest = ['e']\n"
    )
    request = parse_file(tmp_path / "pyproject.toml", FS, extras=["one"], groups=["dev"])
    assert [item.name for item in request.requirements] == ["a", "b", "c", "d", "e"]
    with pytest.raises(SiteswapError, match="nosuch"):
        parse_file(tmp_path / "pyproject.toml", FS, groups=["nosuch"])


def test_requirement_without_a_name_gets_one() -> None:
    """A bare URL becomes `name @ URL` once its name is known, its extras kept."""
    found = Requirement("https://example.org/x.zip[a]", None).named("x")
    assert found.line == "x[a] @ https://example.org/x.zip"
    assert Requirement("/a b/c", None, editable=True).named("c").text == "-e c @ file:///a%20b/c"
