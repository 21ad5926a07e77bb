"""Properties of the pure parts: plans, histories, manifests, locks, collecting, first lines of scripts."""

from __future__ import annotations

import ast
import csv
import json
import os
import posixpath
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import default_environment
from packaging.utils import canonicalize_name

from siteswap import collect, plan, scripts
from siteswap.errors import Kind, SiteswapError
from siteswap.layout import Layout, Number, parse_number
from siteswap.lease import User
from siteswap.lockfile import EMPTY, LockFile
from siteswap.manifest import (
    Distribution,
    Interpreter,
    Manifest,
    Operation,
    changes,
    effective_history,
    parse_history,
)

INTERPRETER = Interpreter(
    executable="/usr/bin/python3", version="3.12.1", implementation="cpython", cache_tag="cpython-312",
    schemes={"purelib": "lib/python3.12/site-packages", "platlib": "lib/python3.12/site-packages",
             "scripts": "bin", "data": "", "headers": "include/site/python3.12"},
    lib64=True, markers={key: str(value) for key, value in default_environment().items()},
    tags=("py3-none-any",), fingerprint="1:2",
)  # fmt: skip

# -- layout --------------------------------------------------------------------------------------


@given(st.integers(min_value=1))
def test_numbers_are_spelled_one_way(number: int) -> None:
    """What `current` says is read back, and no other spelling of a number is."""
    assert Layout.parse_current(Layout.current_target(Number(number))) == number
    assert parse_number(f"0{number}") is None
    assert parse_number(f"{number}\n") is None


@given(st.text())
def test_any_text_of_current_is_taken_or_refused(text: str) -> None:
    """A `current` that is accepted is exactly one that siteswap writes."""
    number = Layout.parse_current(text)
    assert number is None or Layout.current_target(number) == text


# -- RECORD and plans ----------------------------------------------------------------------------

part = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs", "Cc", "Zl", "Zp")),
    min_size=1,
    max_size=6,
).filter(lambda text: text not in (".", "..") and not text.endswith(".pyc"))
relative = st.lists(part, min_size=1, max_size=4).map("/".join)
INFO = "lib/python3.12/site-packages/x-1.0.dist-info"


@given(st.lists(relative, unique=True), st.binary())
def test_record_is_read_as_it_was_written(paths: list[str], content: bytes) -> None:
    """RECORD names every file again, in site-packages and outside of it, and itself without a hash."""
    rows = [plan.row_of(path, content) for path in paths]
    own = plan.Row(f"{INFO}/RECORD", "", "")
    found = plan.read_record(plan.write_record(rows, INFO).decode(), INFO)
    assert found == [*sorted(rows, key=lambda row: row.path), own]


@given(st.text())
def test_no_record_leads_out_of_the_prefix(text: str) -> None:
    """Whatever a RECORD says, what is read of it stays below the prefix, or it is refused as damaged."""
    try:
        rows = plan.read_record(text, INFO)
    except csv.Error:
        return  # the caller makes that a refusal
    for row in rows:
        assert not posixpath.normpath(row.path).startswith(("/", "../"))
        assert posixpath.normpath(row.path) != ".."


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../../../etc/passwd",
        "a/../../../../../x",
        "../../../..",
        "x/../../../../..",
        "a.pyc",
        "",
    ],
)
def test_rows_that_are_not_ours_are_left_out(path: str) -> None:
    """Rows that lead elsewhere, empty rows and byte-code are no files of the distribution."""
    assert plan.read_record(f"{path},,\nfine.py,,\n", INFO) == [
        plan.Row("lib/python3.12/site-packages/fine.py", "", "")
    ]


@given(st.lists(relative))
def test_directories_come_parents_first(paths: list[str]) -> None:
    """Every directory that a path needs is there, after its own parent, and no other."""
    found = plan.directories_of(paths)
    assert len(found) == len(set(found))
    seen: set[str] = set()
    for directory in found:
        parent = posixpath.dirname(directory)
        assert parent == "" or parent in seen
        seen.add(directory)
    assert {posixpath.dirname(path) for path in paths} - {""} <= seen
    assert all(any(path.startswith(f"{directory}/") for path in paths) for directory in seen)


few = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
claims = st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), st.lists(few, max_size=4)), max_size=4)


@given(claims, st.lists(few, max_size=2), st.booleans())
def test_every_path_has_one_owner(
    asked: list[tuple[str, list[str]]], reserved: list[str], allow: bool
) -> None:
    """The last who claims a path owns it, if that is allowed; siteswap's own files are never given away."""
    everything = [(name, path) for name, paths in asked for path in paths]
    directories = set(plan.directories_of([path for _, path in everything] + reserved))
    files = {path for _, path in everything} | set(reserved)
    shared = {
        path for name, path in everything for other, same in everything if path == same and name != other
    }
    stolen = {path for _, path in everything} & set(reserved)
    if stolen or files & directories or (shared and not allow):
        with pytest.raises(SiteswapError) as caught:
            plan.assign(asked, reserved, allow)
        assert caught.value.kind is Kind.CONFLICT
        only_overlaps = not stolen and not files & directories
        assert ("--allow-overlap" in (caught.value.hint or "")) == only_overlaps
        return
    found = plan.assign(asked, reserved, allow)
    assert found.owner == dict.fromkeys(reserved, plan.SITESWAP) | {path: name for name, path in everything}
    assert set(found.overlaps) == shared


@given(st.lists(part, unique=True), st.sampled_from(["cpython-312", "cpython-312.opt-1", "pypy.39"]))
def test_byte_code_belongs_to_its_source(stems: list[str], tag: str) -> None:
    """Byte-code is found by its source's name, dots and all; other sources' is not."""
    sources = [f"{stem}.py" for stem in stems]
    byte_code = [f"{stem}.{tag}.pyc" for stem in stems]
    assert plan.byte_code_of(sources, byte_code) == byte_code
    assert plan.byte_code_of([], byte_code) == []
    assert plan.byte_code_of([f"{stem}.txt" for stem in stems], byte_code) == []


# -- history -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(min_value=0, max_value=20))))
def test_history_is_what_took_place(steps: list[tuple[bool, int]]) -> None:
    """Of commits and rollbacks, some cut off between their record and their flip, just the others remain."""
    current, newest = Number(1), 1
    written = [Operation("2020-01-01T00:00:00+00:00", "create", "", None, Number(1), "me")]
    happened = list(written)
    published = {1}
    for flipped, choice in steps:
        older = sorted(published - {current})
        if choice < 10 or not older:
            newest += 1
            target = Number(newest)
        else:
            target = Number(older[choice % len(older)])
        operation = Operation("2020-01-01T00:00:00+00:00", "x", "", current, target, "me")
        written.append(operation)
        if flipped:
            happened.append(operation)
            published.add(target)
            current = target
    text = "".join(f"{operation.to_json()}\n" for operation in written)
    assert effective_history(parse_history(text), current) == happened


@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)).map(json.dumps)
)
def test_lines_that_are_no_operation_are_left_out(text: str) -> None:
    """A damaged line never keeps the others from being read."""
    good = Operation("2020-01-01T00:00:00+00:00", "create", "a → b", None, Number(1), "me")
    assert parse_history(f"{good.to_json()}\n{text}\n{good.to_json()}\n") == [good, good]


# -- manifests -----------------------------------------------------------------------------------

distributions = st.lists(
    st.builds(
        Distribution,
        name=st.sampled_from("abcdef"),
        version=st.sampled_from(["1", "2"]),
        key=st.sampled_from(["x", "y", "x+requested", "y+requested"]),
        dist_info=st.text(max_size=3),
        requested=st.booleans(),
        requires=st.lists(st.text(max_size=3), max_size=2).map(tuple),
        origin=st.none() | st.text(max_size=3),
        foreign=st.booleans(),
    ),
    unique_by=lambda item: item.name,
).map(tuple)


def manifest(items: tuple[Distribution, ...] = (), command: str = "") -> Manifest:
    """A manifest with these distributions."""
    return Manifest(Number(3), "2020-01-01T00:00:00+00:00", command, Number(2), INTERPRETER, ("a",), items, False, 0o055, "passed")  # fmt: skip  # noqa: E501


@given(distributions, st.text(st.characters(exclude_categories=["Cs"])))
def test_manifest_is_read_as_it_was_written(items: tuple[Distribution, ...], command: str) -> None:
    """Nothing of a manifest is lost on disk."""
    made = manifest(items, command)
    assert Manifest.from_json(made.to_json(), "it") == made


@given(st.binary() | st.recursive(st.none() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(lambda value: json.dumps(value).encode()))  # fmt: skip  # noqa: E501
def test_any_other_manifest_is_damaged(text: bytes) -> None:
    """What is no manifest is refused with the file's name."""
    with pytest.raises(SiteswapError, match=r"^where") as caught:
        Manifest.from_json(text, "where")
    assert caught.value.kind is Kind.DAMAGED


def test_manifest_without_any_one_field_is_damaged() -> None:
    """Each field that has no default must be there, at every level."""
    data = json.loads(manifest((Distribution("a", "1", "x", "i", True),)).to_json())
    for table in (data, data["interpreter"], data["distributions"][0]):
        for name in list(table):
            if name in ("editable", "foreign", "origin", "prompt", "requires_python"):
                continue
            value = table.pop(name)
            with pytest.raises(SiteswapError):
                Manifest.from_json(json.dumps(data).encode(), "it")
            table[name] = value


@given(distributions, distributions)
def test_changes_lead_from_one_to_the_other(
    before: tuple[Distribution, ...], after: tuple[Distribution, ...]
) -> None:
    """Applied to what was, the changes give what is; there and back are opposites; none is in vain."""
    versions = {item.name: item.version for item in before}
    found = changes(before, after)
    for change in found:
        assert versions.get(change.name) == change.before
        if change.after is None:
            del versions[change.name]
        else:
            versions[change.name] = change.after
    assert versions == {item.name: item.version for item in after}
    back = changes(after, before)
    assert [(item.name, item.after, item.before) for item in back] == [
        (item.name, item.before, item.after) for item in found
    ]
    assert changes(before, before) == []
    for item in found:
        assert item.before != item.after or item.rebuilt


# -- collecting ----------------------------------------------------------------------------------


@given(
    st.sets(st.integers(min_value=1, max_value=30), min_size=1),
    st.data(),
    st.integers(min_value=0, max_value=12),
)
def test_plan_keeps_what_is_needed_and_nothing_else(
    numbers: set[int], data: st.DataObject, keep: int
) -> None:
    """Current, tagged, newest, used and just replaced generations stay, for a reason; the rest goes."""
    known = sorted(numbers)
    current = data.draw(st.sampled_from(known))
    some = st.lists(st.sampled_from(known), max_size=3)
    tags = {f"tag{index}": Number(number) for index, number in enumerate(data.draw(some))}
    users = [User(100 + number, 0, "python x", Number(number)) for number in data.draw(some)]
    recent = [Number(number) for number in data.draw(some)]
    found = collect.plan([Number(n) for n in known], Number(current), recent, keep, tags, users)
    assert sorted(item.number for item in found) == known
    stays = {item.number for item in found if item.keep}
    newest = [number for number in reversed(known) if number != current][:keep]
    assert stays == {current, *tags.values(), *newest, *(user.generation for user in users), *recent}
    assert all(item.reason for item in found)


# -- lock files ----------------------------------------------------------------------------------

package_names = st.lists(st.sampled_from(["a", "B", "c-d", "e_f", "g.h"]), unique=True)


def lock(names: list[str], version: str = "1.0", base: Path = Path("/base")) -> LockFile:
    """A lock of a wheel each."""
    packages = ""
    for name in map(canonicalize_name, names):
        file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        packages += f'[[packages]]\nname = "{name}"\nversion = "{version}"\n'
        packages += f'[[packages.wheels]]\nname = "{file}"\npath = "wheels/{file}"\n'
        packages += f'hashes = {{sha256 = "{"0" * 64}"}}\n'
    head = EMPTY.replace("packages = []\n", "") if packages else EMPTY
    return LockFile.parse(head + packages, base, "it")


@given(package_names, package_names)
def test_locks_are_cut_and_joined_by_name(one: list[str], other: list[str]) -> None:
    """`only` keeps what is named, `merged` takes the other's where both have one; both give valid locks."""
    first, second = lock(one, "1.0"), lock(other, "2.0", Path("/other"))
    mine, theirs = {canonicalize_name(name) for name in one}, {canonicalize_name(name) for name in other}
    assert first.only(theirs).names == mine & theirs
    joined = LockFile.parse(first.merged(second).text, Path("/third"), "joined")
    assert joined.names == mine | theirs
    found = {item.name: (item.version, item.location) for item in joined.artifacts(INTERPRETER, {})}
    for name in mine | theirs:
        version, base = ("2.0", "/other") if name in theirs else ("1.0", "/base")
        stem = name.replace("-", "_")
        assert found[name] == (version, f"{base}/wheels/{stem}-{version}-py3-none-any.whl")


@given(package_names, st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_lock_keeps_its_meaning_as_text(names: list[str], lines: list[str]) -> None:
    """Written and read again, from wherever, a lock says the same; what was asked for is noted in it."""
    made = lock(names).noting(lines)
    again = LockFile.parse(made.text, Path("/elsewhere"), "again")
    assert again.text == made.text
    assert again.artifacts(INTERPRETER, {}) == made.artifacts(INTERPRETER, {})
    assert again.requirements == lines
    assert lock(names).requirements is None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_other_text_is_no_lock(text: str) -> None:
    """What is no lock is refused by name, with a next step."""
    with pytest.raises(SiteswapError) as caught:
        LockFile.parse(text, Path("/"), "it")
    assert caught.value.kind is Kind.USAGE
    assert caught.value.message.startswith("it is not a valid pylock.toml")


def test_what_is_held_is_chosen_where_the_lock_allows_it() -> None:
    """Of several wheels that would do, the one that the environment has already is kept."""
    text = EMPTY.replace("packages = []\n", "") + (
        '[[packages]]\nname = "a"\nversion = "1.0"\n'
        + "".join(
            f'[[packages.wheels]]\nurl = "https://example.org/a-1.0{build}-py3-none-any.whl"\n'
            f'hashes = {{sha256 = "{digit * 64}"}}\n'
            for build, digit in (("-2", "2"), ("-1", "1"))
        )
    )
    found = LockFile.parse(text, Path("/"), "it")
    (preferred,) = found.artifacts(INTERPRETER, {})
    identities = {"wheel:sha256:" + digit * 64 for digit in "12"}
    for identity in identities:
        (kept,) = found.artifacts(INTERPRETER, {"a": identity})
        assert kept.identity == identity
    (other,) = found.artifacts(INTERPRETER, {"a": "wheel:sha256:" + "3" * 64})
    assert other == preferred
    other_tag = replace(INTERPRETER, tags=("cp312-cp312-linux_x86_64",))
    with pytest.raises(SiteswapError) as caught:
        found.artifacts(other_tag, {})
    assert caught.value.kind is Kind.REQUIREMENT


# -- scripts -------------------------------------------------------------------------------------

absolute = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1, max_size=140
).map(lambda text: f"/{text}/bin/python")


@given(absolute)
def test_first_line_fits_the_kernel_and_means_nothing_to_python(path: str) -> None:
    """The kernel can take the path as it stands, or /bin/sh is asked; to Python it is no code."""
    head = scripts.shebang(path)
    if not head.startswith(b"#!/bin/sh\n"):
        assert head == b"#!" + path.encode() + b"\n"
        assert len(head) <= 128
        assert not any(character in " \t" for character in path)
    tree = ast.parse(head + b"x = 1\n")
    assert isinstance(tree.body[-1], ast.Assign)
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree.body[:-1])


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "a b",
        "it's",
        'say "x"',
        "back\\slash",
        "dollar$HOME`id`",
        "'''",
        "\\'",
        "ü" * 40,
        "x" * 120,
        "!#*?",
    ],
)
def test_scripts_run_whatever_the_path(tmp_path: Path, name: str) -> None:
    """A script whose interpreter has an awkward path runs with just that interpreter and its arguments."""
    python = tmp_path / name / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$0"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    script = tmp_path / "script"
    script.write_bytes(scripts.shebang(str(python)) + b"import sys\nprint(sys.argv[1:])\n")
    script.chmod(0o755)
    done = subprocess.run([script, "a b", "$c"], capture_output=True, text=True, env={"PATH": os.defpath})
    assert (done.stdout, done.stderr) == (f"{python}\n['a b', '$c']\n", "")


@given(st.binary(), absolute)
def test_only_scripts_that_ask_for_python_are_rewritten(body: bytes, python: str) -> None:
    """Of a wheel's scripts those with `#!python` get the environment's, all others stay byte for byte."""
    rewritten = scripts.rewritten(b"#!python -E\nx" + body, python)
    assert rewritten == scripts.shebang(python) + b"x" + body
    if not body.startswith(b"#!python"):
        assert scripts.rewritten(body, python) is None


def test_locks_written_here_are_valid_toml() -> None:
    """The empty lock is one."""
    assert tomllib.loads(EMPTY)["packages"] == []
