"""Wheels as they really are: namespaces, overlaps, data files, extensions, scripts, odd names and times."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from conftest import Siteswap, run_python
from wheelmaker import wheel

PKGUTIL = '__path__ = __import__("pkgutil").extend_path(__path__, __name__)\n'


def site(env: Path, number: int | None = None) -> Path:
    """The site-packages directory of the environment, or of one generation of it."""
    root = env if number is None else env / ".siteswap/generations" / str(number)
    (found,) = root.glob("lib/python3.*/site-packages")
    return found


def python(env: Path, code: str, *flags: str) -> str:
    """What the environment's interpreter prints."""
    return run_python(env / "bin/python", code, *flags)


def program(path: Path, *words: str, **env: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [path, *words], capture_output=True, text=True, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def verify_records(env: Path) -> int:
    """Hold every file of every distribution against its RECORD; how many rows there were."""
    rows = 0
    base = site(env)
    for record in base.glob("*.dist-info/RECORD"):
        for path, digest, size in csv.reader(record.read_text().splitlines()):
            target = base / path
            assert target.is_file(), f"{record}: {path} is missing"
            rows += 1
            if target == record:
                assert not digest
                continue
            content = target.read_bytes()
            name, _, value = digest.partition("=")
            found = base64.urlsafe_b64encode(hashlib.new(name, content).digest()).decode().rstrip("=")
            assert (found, str(len(content))) == (value, size), f"{record}: {path} differs"
    return rows


# -- namespace packages ----------------------------------------------------------------------------


@pytest.mark.parametrize("init", [None, PKGUTIL], ids=["pep420", "pkgutil"])
def test_parts_of_a_namespace_come_and_go_one_by_one(
    init: str | None, env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap
) -> None:
    """Upgrading or uninstalling one part of a namespace package leaves the other part alone."""
    shared = {} if init is None else {"space/__init__.py": init}
    wheel(wheels, "space-one", "1.0", {**shared, "space/one/__init__.py": "V = 1\n"})
    wheel(wheels, "space-one", "2.0", {**shared, "space/one/__init__.py": "V = 2\n", "space/one/new.py": ""})
    wheel(wheels, "space-two", "1.0", {**shared, "space/two/__init__.py": "V = 1\n"})
    both = "import space.one, space.two; print(space.one.V, space.two.V)"

    install("space-one==1.0", "space-two").ok()  # the same content twice is no conflict
    assert python(env, both) == "1 1"
    install("space-one==2.0").ok()
    assert python(env, both) == "2 1"
    siteswap("uninstall", "-e", env, "space-one").ok()
    assert python(env, "import space.two; print(space.two.V)") == "1"
    assert not (site(env) / "space/one").exists()
    install("space-one==1.0").ok()
    siteswap("uninstall", "-e", env, "space-two").ok()
    assert python(env, "import space.one; print(space.one.V)") == "1"
    siteswap("uninstall", "-e", env, "space-one").ok()
    assert not (site(env) / "space").exists()


# -- one path, two owners --------------------------------------------------------------------------


def test_a_file_of_two_distributions_is_refused_by_name(env: Path, wheels: Path, install: Siteswap) -> None:
    """The refusal names the file and both distributions, and says how to have it anyway."""
    wheel(wheels, "left", files={"left.py": "", "common/data.txt": "left"})
    wheel(wheels, "right", files={"right.py": "", "common/data.txt": "right"})
    install("left").ok()
    done = install("right")
    assert done.status == 1
    (line,) = (line for line in done.err.splitlines() if line.startswith("siteswap: "))
    assert "common/data.txt" in line
    assert "left" in line
    assert "right" in line
    assert "--allow-overlap" in done.err
    assert python(env, "import left") == ""
    assert not (site(env) / "right.py").exists()


@pytest.mark.parametrize(("first", "second"), [("aaa", "zzz"), ("zzz", "aaa")])
def test_the_later_of_two_owners_wins_and_leaving_gives_the_file_back(
    first: str, second: str, env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap
) -> None:
    """With --allow-overlap the one installed later wins; once it leaves, the file is the other's again."""
    common = "common/data.txt"
    for name in (first, second):
        wheel(wheels, name, "1.0", {f"{name}.py": "", common: f"{name} 1"})
        wheel(wheels, name, "2.0", {f"{name}.py": "", common: f"{name} 2"})
        wheel(wheels, name, "3.0", {f"{name}.py": ""})
    wheel(wheels, "bystander")

    def content() -> str:
        return (site(env) / common).read_text()

    install(f"{first}==1.0").ok()
    install(f"{second}==1.0", "--allow-overlap").ok()
    assert content() == f"{second} 1"
    install("bystander").ok()  # what was allowed before needs no saying again
    assert content() == f"{second} 1"
    install(f"{first}==2.0").ok()  # now this one is the later
    assert content() == f"{first} 2"
    siteswap("uninstall", "-e", env, first).ok()
    assert content() == f"{second} 1"
    verify_records(env)
    install(f"{first}==1.0", "--allow-overlap").ok()
    assert content() == f"{first} 1"
    install(f"{first}==3.0").ok()  # upgraded to a version that does not have the file any more
    assert content() == f"{second} 1"
    verify_records(env)
    siteswap("uninstall", "-e", env, second).ok()
    assert not (site(env) / common).exists()


def test_an_unrelated_overlap_still_needs_saying(env: Path, wheels: Path, install: Siteswap) -> None:
    """Having allowed one overlap does not allow the next one."""
    for name, path in (("aa", "one.txt"), ("bb", "one.txt"), ("cc", "two.txt"), ("dd", "two.txt")):
        wheel(wheels, name, files={f"{name}.py": "", path: name})
    install("aa", "bb", "--allow-overlap").ok()
    done = install("cc", "dd")
    assert done.status == 1
    assert "two.txt" in done.err


def test_a_file_where_another_has_a_directory_is_refused(env: Path, wheels: Path, install: Siteswap) -> None:
    """No option makes one path a file and a directory."""
    wheel(wheels, "filey", files={"filey.py": "", "thing": "a file"})
    wheel(wheels, "diry", files={"diry.py": "", "thing/inner.txt": "in a directory"})
    for option in ([], ["--allow-overlap"]):
        done = install("filey", "diry", *option)
        assert done.status == 1, done.err
        assert "thing" in done.err
        assert "filey" in done.err
        assert "Traceback" not in done.err
    install("filey").ok()
    assert install("diry").status == 1
    assert (site(env) / "thing").read_text() == "a file"


@pytest.mark.parametrize(
    "path",
    [
        "data/bin/python",
        "scripts/python3",
        "data/pyvenv.cfg",
        "purelib/_siteswap.py",
        "purelib/_siteswap/__init__.py",
        "scripts/activate",
        "data/.generation/manifest.json",
        "data/.generation/lease",
        "data/.siteswap/current",
        "data/lib64/evil.txt",
        "data/include",
        "data/bin/python/x",
        "data/lib",
    ],
)
def test_what_is_siteswaps_own_is_not_for_distributions(
    path: str, env: Path, wheels: Path, install: Siteswap
) -> None:
    """A wheel that would replace a part of the environment itself is refused, whatever is allowed."""
    wheel(wheels, "greedy", files={"greedy.py": ""}, data={path: "evil"})
    done = install("greedy", "--allow-overlap")
    if path == "data/lib64/evil.txt":  # lib64 is lib, so this is a file like any other
        done.ok()
        assert (site(env).parents[1] / "evil.txt").read_text() == "evil"
        assert (env / "lib64").resolve() == (env / "lib").resolve()
        return
    assert done.status == 1, f"{done.status} {done.out} {done.err}"
    assert "greedy" in done.err
    assert path.partition("/")[2] in done.err
    assert (env / ".siteswap/current").readlink() == Path("generations/1")
    assert python(env, "import sys; print(sys.prefix)") == str(env.resolve() / ".siteswap/generations/1")


# -- data files, headers, platlib ------------------------------------------------------------------


def test_data_files_headers_and_top_level_names_follow_the_generation(
    env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap
) -> None:
    """A new top-level name appears with the distribution that needs it and leaves with the last of them."""
    wheel(
        wheels, "etcone", data={"data/etc/one/one.conf": "1", "data/share/one.txt": "s", "headers/one.h": "h"}
    )
    wheel(wheels, "etctwo", data={"data/etc/two.conf": "2", "data/top-file": "t"})
    install("etcone").ok()
    assert (env / "etc/one/one.conf").read_text() == "1"
    assert (env / "share/one.txt").read_text() == "s"
    assert [path.read_text() for path in (env / "include").rglob("one.h")] == ["h"]
    install("etctwo").ok()
    assert (env / "etc/two.conf").read_text() == "2"
    assert (env / "top-file").read_text() == "t"
    siteswap("uninstall", "-e", env, "etcone").ok()
    assert not os.path.lexists(env / "share")
    assert not os.path.lexists(env / "etc/one")
    assert (env / "etc/two.conf").exists()
    siteswap("uninstall", "-e", env, "etctwo").ok()
    assert not os.path.lexists(env / "etc")
    assert not os.path.lexists(env / "top-file")
    siteswap("rollback", "-e", env, "3").ok()
    assert (env / "etc/one/one.conf").read_text() == "1"
    assert (env / "top-file").read_text() == "t"


def test_a_users_own_directory_in_the_way_is_refused_by_name(
    env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap
) -> None:
    """What a user keeps in the environment's directory is neither replaced nor merged."""
    (env / "etc").mkdir()
    (env / "etc/mine.conf").write_text("mine")
    wheel(wheels, "etcone", data={"data/etc/one.conf": "1", "data/aaa/x": "a", "data/zzz/x": "z"})
    done = install("etcone")
    assert done.status == 1
    assert str(env / "etc") in done.err
    assert [path.name for path in (env / "etc").iterdir()] == ["mine.conf"]
    wheel(wheels, "plain")
    install("plain").ok()
    assert not os.path.lexists(env / "aaa")
    assert not os.path.lexists(env / "zzz")
    shutil.move(env / "etc", env.parent / "etc")
    install("etcone").ok()
    assert (env / "etc/one.conf").exists()


def test_platlib_wheels_lie_where_the_interpreter_says(env: Path, wheels: Path, install: Siteswap) -> None:
    """A wheel whose root is platlib is importable, also through lib64, and its RECORD is right."""
    wheel(wheels, "plat", pure=False, data={"purelib/purepart.py": "P = 1\n"})
    wheel(wheels, "pure", data={"platlib/platpart.py": "P = 2\n"})
    install("plat", "pure").ok()
    assert python(env, "import plat, purepart, platpart; print(purepart.P, platpart.P)") == "1 2"
    through = env / "lib64" / site(env).parent.name / "site-packages/plat/__init__.py"
    assert through.samefile(site(env) / "plat/__init__.py")
    verify_records(env)


_EXTENSION = r"""
#include <Python.h>
extern int neighbour_answer(void);
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(neighbour_answer()); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", 0, -1, methods};
PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&module); }
"""


def test_an_extension_finds_the_library_of_its_neighbour(
    env: Path, wheels: Path, install: Siteswap, tmp_path: Path
) -> None:
    """RUNPATH $ORIGIN/../neighbour.libs leads to the other distribution's library of the same generation."""
    include = Path(sysconfig.get_path("include"))
    if shutil.which("gcc") is None or not (include / "Python.h").exists():
        pytest.skip("needs gcc and Python.h")
    build = tmp_path / "build"
    build.mkdir()
    (build / "native.c").write_text(_EXTENSION)

    def neighbour(number: int) -> bytes:
        (build / "n.c").write_text(f"int neighbour_answer(void) {{ return {number}; }}\n")
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-Wl,-soname,libneighbour.so", "-o", "libneighbour.so", "n.c"],
            cwd=build, check=True,
        )  # fmt: skip
        return (build / "libneighbour.so").read_bytes()

    first, second = neighbour(1), neighbour(2)
    name = "_native" + str(sysconfig.get_config_var("EXT_SUFFIX"))
    subprocess.run(
        ["gcc", "-shared", "-fPIC", f"-I{include}", "-o", name, "native.c", "-L.", "-lneighbour",
         "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../neighbour.libs"],
        cwd=build, check=True,
    )  # fmt: skip
    library = "neighbour.libs/libneighbour.so"
    wheel(wheels, "neighbour", "1.0", {"neighbour.py": "", library: first}, pure=False)
    wheel(wheels, "neighbour", "2.0", {"neighbour.py": "", library: second}, pure=False)
    extension = {"native/__init__.py": "from native._native import answer\n"}
    wheel(
        wheels, "native", "1.0", {**extension, f"native/{name}": (build / name).read_bytes()}, pure=False,
        requires=["neighbour"], executable=[f"native/{name}"],
    )  # fmt: skip
    shutil.rmtree(build)
    install("native", "neighbour==1.0").ok()
    code = "import native; print(native.answer()); print(open('/proc/self/maps').read())"
    answer, _, maps = python(env, code).partition("\n")
    assert answer == "1"
    assert f"generations/2/lib/{site(env).parent.name}/site-packages/{library}" in maps
    install("neighbour==2.0").ok()
    assert python(env, code).startswith("2\n")


# -- scripts -----------------------------------------------------------------------------------------


def test_scripts_of_every_kind(env: Path, wheels: Path, install: Siteswap) -> None:
    """Entry points, `#!python`, `#!pythonw`, a shell script and a binary run; all are executable."""
    wheel(
        wheels, "tools", "1.0",
        {"tools.py": "import sys\ndef main():\n    print(sys.argv[1:], sys.prefix)\n    return 0\n"
                     "class group:\n    class inner:\n        run = staticmethod(main)\n"},
        scripts={"tools-console": "tools:main", "tools.dotted_Name": "tools:group.inner.run"},
        gui_scripts={"tools-gui": "tools:main"},
        data={
            "scripts/tools-py": "#!python\nimport tools; tools.main()\n",
            "scripts/tools-pyw": "#!pythonw\r\nimport tools; tools.main()\r\n",
            "scripts/tools-py-args": "#!python -E -s\nimport tools; tools.main()\n",
            "scripts/tools-sh": "#!/bin/sh\necho shell \"$@\"\n",
            "scripts/tools-other": "#!/usr/bin/env -S sh -e\necho other\n",
            "scripts/tools-binary": Path("/bin/true").read_bytes(),
            "scripts/tools-latin": b"#!python\n# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n",
        },
    )  # fmt: skip
    install("tools").ok()
    prefix = env.resolve() / ".siteswap/generations/2"
    python_ones = (
        "tools-console",
        "tools.dotted_Name",
        "tools-gui",
        "tools-py",
        "tools-pyw",
        "tools-py-args",
    )
    for name in python_ones:
        assert program(env / "bin" / name, "a b", "c") == f"['a b', 'c'] {prefix}", name
        assert (env / "bin" / name).read_bytes().startswith(f"#!{env.resolve()}/bin/python\n".encode()), name
    assert program(env / "bin/tools-sh", "x") == "shell x"
    assert program(env / "bin/tools-other") == "other"
    assert program(env / "bin/tools-binary") == ""
    assert program(env / "bin/tools-latin") == r"'\xe9'"
    for name in (path.name for path in (env / "bin").iterdir() if path.name.startswith("tools")):
        assert os.access(env / "bin" / name, os.X_OK)
    verify_records(env)


ODD_PATHS = {
    "spaces": "with two  spaces",
    "quotes": 'it\'s "quoted" $HOME `id` %s & (x) #! *',
    "backslash": "back\\slash\\n \\",
    "unicode": "ünï-日本語-😀",
    "long": "/".join(["d" * 60] * 5),
    "newline": "new\nline",
    "carriage": "carriage\rhome = x",
    "dash": "-dash ~",
    "plain-dollar": "$dollar;semi&amp",
    "triple": "tri'''ple\\'''",
}


@pytest.mark.parametrize("kind", ODD_PATHS)
def test_an_environment_works_at_any_path(
    kind: str, tmp_path: Path, wheels: Path, siteswap: Siteswap
) -> None:
    """Scripts, activation by sh and the interpreter work wherever the environment stands."""
    env = tmp_path / ODD_PATHS[kind]
    wheel(
        wheels, "tool", "1.0",
        {"tool.py": "import sys\ndef main():\n    print(ascii([sys.prefix, *sys.argv[1:]]))\n"},
        scripts={"tool": "tool:main"},
        data={
            "scripts/tool-script": "#!python\nimport tool; tool.main()\n",
            "scripts/tool-latin": b"#!python\n# -*- coding: latin-1 -*-\n'\xe9'; import tool; tool.main()\n",
        },
    )  # fmt: skip
    siteswap("create", env).ok()
    siteswap("install", "-e", env, "--no-index", "--find-links", wheels, "tool").ok()
    prefix = str(env.resolve() / ".siteswap/generations/2")
    for name in ("tool", "tool-script", "tool-latin"):
        assert program(env / "bin" / name, "a 'b'\\n") == ascii([prefix, "a 'b'\\n"]), name
    code = "import sys; print(ascii([sys.executable, sys.base_prefix == sys.prefix]))"
    assert python(env, code) == ascii([str(env / "bin/python"), False])
    shell = 'cd / && . "$1" && tool activated && printf %s "$VIRTUAL_ENV" && deactivate && ! command -v tool'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", env / "bin/activate"], capture_output=True, check=False,
        env={**os.environ, "PATH": os.defpath},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == ascii([prefix, "activated"]) + "\n" + str(env)
    assert [item["name"] for item in siteswap("list", "-e", env, "--json").json] == ["tool"]


def test_a_path_that_is_no_unicode_is_usable_or_refused(tmp_path: Path, siteswap: Siteswap) -> None:
    """Python sources and pyvenv.cfg are UTF-8 and cannot hold such a path; PATH cannot hold a colon."""
    env = tmp_path / os.fsdecode(b"latin-\xe9")
    done = siteswap("create", env)
    assert done.status in (0, 2), done.err
    if done.status == 0:
        assert python(env, "print(1)") == "1"
    else:
        assert not os.path.lexists(env)
    colon = siteswap("create", tmp_path / "a:b")
    assert colon.status == 2
    assert "':'" in colon.err
    assert not list(tmp_path.iterdir())


# -- names and bits ------------------------------------------------------------------------------------


def test_names_that_are_not_ascii(env: Path, wheels: Path, install: Siteswap) -> None:
    """File names may be any Unicode, and stay in the form that they have."""
    decomposed = "caf" + "e\u0301"
    wheel(
        wheels, "names", "1.0",
        {"Foo.py": "W = 'Foo'\n", "grün/__init__.py": "W = 'grün'\n", "names.py": "",
         "grün/日本.txt": "日本", f"data/{decomposed}.txt": "two", "data/caf\xe9s.txt": "one",
         "data/with space,comma\"quote.txt": "csv"},
    )  # fmt: skip
    install("names").ok()
    assert python(env, "import Foo, grün; print(ascii([Foo.W, grün.W]))") == ascii(["Foo", "grün"])
    assert (site(env) / "grün/日本.txt").read_text() == "日本"
    assert (site(env) / "data/caf\xe9s.txt").read_text() == "one"
    assert (site(env) / f"data/{decomposed}.txt").read_text() == "two"
    verify_records(env)
    code = "from importlib.metadata import files; print(all(f.locate().exists() for f in files('names')))"
    assert python(env, code) == "True"


def test_executable_bits_are_kept(env: Path, wheels: Path, install: Siteswap) -> None:
    """What an archive marks as executable is, what it does not mark is not."""
    wheel(
        wheels, "bits", files={"bits/__init__.py": "", "bits/run": "#!/bin/sh\necho ran\n", "bits/data": "x"},
        executable=["bits/run"],
    )  # fmt: skip
    install("bits").ok()
    assert program(site(env) / "bits/run") == "ran"
    assert stat.S_IMODE((site(env) / "bits/data").stat().st_mode) & 0o111 == 0


def test_a_pth_file_is_obeyed(env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap) -> None:
    """Paths and import lines of a distribution's .pth file work, within the generation."""
    wheel(
        wheels, "pathy",
        files={
            "pathy.pth": "pathy_inner\nimport sys; sys.pathy = 1\n",
            "pathy_inner/deep.py": "D = __file__\n",
        },
    )  # fmt: skip
    install("pathy").ok()
    found = python(env, "import deep, sys; print(deep.D, sys.pathy)")
    assert found == f"{site(env.resolve(), 2)}/pathy_inner/deep.py 1"
    siteswap("uninstall", "-e", env, "pathy").ok()
    assert python(env, "import sys; print(hasattr(sys, 'pathy'))") == "False"


def test_wheels_with_next_to_nothing_in_them(
    env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap
) -> None:
    """A wheel of metadata only and one of scripts only are installed, listed and uninstalled."""
    wheel(wheels, "empty", files={})
    wheel(wheels, "scripted", files={}, data={"scripts/scripted": "#!/bin/sh\necho here\n"})
    install("empty", "scripted").ok()
    assert program(env / "bin/scripted") == "here"
    assert (
        python(env, "from importlib.metadata import version as v; print(v('empty'), v('scripted'))")
        == "1.0 1.0"
    )
    verify_records(env)
    siteswap("uninstall", "-e", env, "empty", "scripted").ok()
    assert not (env / "bin/scripted").exists()
    assert not list(site(env).glob("*.dist-info"))


def test_names_and_versions_that_are_not_normalised(
    env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap
) -> None:
    """Foo.Bar-1.0, an epoch and a local version are installed, seen by the usual tools, and upgraded."""
    odd = wheel(wheels, "foobar", "1.0", {"foobar.py": ""})
    # The directory inside keeps the dot and the capitals, as older build tools left them.
    rewrite_name(odd, "foobar-1.0", "Foo.Bar-1.0", "foobar", "Foo.Bar")
    wheel(wheels, "epochal", "1!2.0", {"epochal.py": ""})
    wheel(wheels, "local", "1.0+cu118.post1", {"local.py": ""})
    install("foo-bar", "epochal", "local==1.0+cu118.post1").ok()
    assert (site(env) / "Foo.Bar-1.0.dist-info").is_dir()
    code = "from importlib.metadata import version as v; print(v('foo_bar'), v('epochal'), v('local'))"
    assert python(env, code) == "1.0 1!2.0 1.0+cu118.post1"
    listed = {item["name"]: item["version"] for item in siteswap("list", "-e", env, "--json").json}
    assert listed == {"foo-bar": "1.0", "epochal": "1!2.0", "local": "1.0+cu118.post1"}
    wheel(wheels, "foo.bar", "2.0", {"foobar.py": "TWO = 2\n"})
    install("FOO_bar>=2").ok()
    assert not (site(env) / "Foo.Bar-1.0.dist-info").exists()
    assert python(env, "import foobar; print(foobar.TWO)") == "2"
    siteswap("uninstall", "-e", env, "Foo.Bar", "EPOCHAL").ok()
    verify_records(env)


def rewrite_name(path: Path, stem: str, new_stem: str, name: str, new: str) -> None:
    """Rename the .dist-info directory inside a wheel, and the wheel, keeping RECORD right."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        contents = {item: archive.read(item) for item in archive.namelist()}
    path.unlink()
    files = {item: body for item, body in contents.items() if ".dist-info/" not in item}
    made = wheel(path.parent, "placeholder", "1.0", files)
    with zipfile.ZipFile(made) as archive:
        contents = {item: archive.read(item) for item in archive.namelist()}
    made.unlink()
    metadata = contents["placeholder-1.0.dist-info/METADATA"].replace(b"placeholder", new.encode())
    contents["placeholder-1.0.dist-info/METADATA"] = metadata
    digest = base64.urlsafe_b64encode(hashlib.sha256(metadata).digest()).decode().rstrip("=")
    record = contents["placeholder-1.0.dist-info/RECORD"].decode().splitlines()
    record = [
        f"placeholder-1.0.dist-info/METADATA,sha256={digest},{len(metadata)}" if "METADATA" in line else line
        for line in record
    ]
    contents["placeholder-1.0.dist-info/RECORD"] = "\n".join(record).encode()
    with zipfile.ZipFile(path.parent / f"{new_stem}-py3-none-any.whl", "w") as archive:
        for item, body in contents.items():
            archive.writestr(
                item.replace("placeholder-1.0", new_stem), body.replace(b"placeholder-1.0", new_stem.encode())
            )


# -- times and byte-code -------------------------------------------------------------------------------


def cached(env: Path, name: str, number: int | None = None) -> list[Path]:
    """The byte-code of a module at the top of site-packages or of a package's __init__."""
    base = site(env, number)
    return [*base.glob(f"__pycache__/{name}.*.pyc"), *base.glob(f"{name}/__pycache__/__init__.*.pyc")]


_EAGER = """
import sys
from siteswap import collect
collect.DEFAULT_KEEP = collect.GRACE_SECONDS = 0
from siteswap.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line, collecting all it may at once, so that directories are recycled without a long wait."""


def test_a_same_size_edit_never_runs_stale(env: Path, wheels: Path, tmp_path: Path) -> None:
    """Versions that agree in size and time are told apart, in clones and in recycled directories."""
    versions = (1, 2, 3)
    for number in versions:
        code = {"stale.py": f"V = {number}\n", "stale_late.py": f"V = {number}\n"}
        wheel(wheels, "stale", f"{number}.0", code)
    cache, spare = tmp_path / "cache", env / ".siteswap/spare"
    recycled = 0

    def go(number: int) -> None:
        nonlocal recycled
        before = spare.stat().st_ino if spare.exists() else None
        done = subprocess.run(
            [sys.executable, "-c", _EAGER, "install", "-e", env, "--no-index", "-f", wheels,
             f"stale=={number}.0"],
            capture_output=True, text=True, check=False, env={**os.environ, "SITESWAP_CACHE_DIR": str(cache)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        recycled += (env / ".siteswap/current").stat().st_ino == before
        assert python(env, "import stale, stale_late; print(stale.V, stale_late.V)") == f"{number} {number}"
        assert cached(env, "stale"), "without byte-code this test could not fail"

    for number in versions:
        go(number)
        assert (site(env) / "stale.py").stat().st_mtime > 1_000_000_000, "not the 1980 of the archive"
    for path in cache.glob("wheels/*/purelib/stale*.py"):
        os.utime(path, (1_600_000_000, 1_600_000_000))  # as if all had been unpacked in the same second
    for number in (1, 2, 3, 1, 3):
        go(number)
        assert (site(env) / "stale.py").stat().st_mtime == 1_600_000_000
    assert recycled >= 4


def test_byte_code_travels_and_leaves_with_its_distribution(
    env: Path, wheels: Path, install: Siteswap, siteswap: Siteswap
) -> None:
    """What does not change shares its byte-code too, by inode; what leaves takes it along."""
    wheel(
        wheels, "stays", files={"stays/__init__.py": "", "stays/deep/__init__.py": "", "stays_module.py": ""}
    )
    wheel(wheels, "goes", "1.0", {"goes/__init__.py": "", "goes_module.py": ""})
    wheel(wheels, "goes", "2.0", {"goes_module.py": "TWO = 2\n"})
    install("stays", "goes==1.0", "--compile").ok()
    python(env, "import stays.deep, stays_module, goes, goes_module")
    before = {path.name: path.stat().st_ino for path in site(env).rglob("stays*.pyc")}
    before |= {
        str(path.relative_to(site(env))): path.stat().st_ino for path in site(env).glob("stays/**/*.pyc")
    }
    assert len(before) >= 3
    install("goes==2.0").ok()
    after = {path.name: path.stat().st_ino for path in site(env).rglob("stays*.pyc")}
    after |= {
        str(path.relative_to(site(env))): path.stat().st_ino for path in site(env).glob("stays/**/*.pyc")
    }
    assert after == before
    assert not (site(env) / "goes").exists()
    siteswap("uninstall", "-e", env, "goes").ok()
    assert not cached(env, "goes_module")
    assert cached(env, "stays_module")


def test_byte_code_that_is_shared_is_not_for_checks_to_change(
    env: Path, wheels: Path, install: Siteswap
) -> None:
    """An import that writes into byte-code of what does not change reaches a copy, and even that goes."""
    code = """
import pathlib
for path in pathlib.Path(__file__).parent.glob("__pycache__/stays_module*.pyc"):
    with open(path, "r+b") as stream:
        stream.write(b"overwritten")
    path.with_name("stays_module.cpython-39.pyc").write_bytes(b"invented")
"""
    wheel(wheels, "stays", files={"stays_module.py": "HERE = 1\n"})
    wheel(wheels, "goes", "1.0", {"goes_module.py": ""})
    wheel(wheels, "goes", "2.0", {"goes_module.py": code})
    install("stays", "goes==1.0", "--compile").ok()
    [shared] = cached(env, "stays_module")
    before, inode = shared.read_bytes(), shared.stat().st_ino
    install("goes==2.0").ok()
    [now] = cached(env, "stays_module")
    assert (now.read_bytes(), now.stat().st_ino) == (before, inode)
    assert shared.read_bytes() == before
    assert cached(env, "goes_module")


def test_direct_url_and_requested_are_recorded(env: Path, wheels: Path, install: Siteswap) -> None:
    """INSTALLER, REQUESTED and direct_url.json say how a distribution came here (PEP 376, 610)."""
    wheel(wheels, "dependency")
    path = wheel(wheels, "named", requires=["dependency"])
    install(path).ok()
    notes = site(env) / "named-1.0.dist-info"
    assert (notes / "INSTALLER").read_text().strip() == "siteswap"
    assert (notes / "REQUESTED").exists()
    assert json.loads((notes / "direct_url.json").read_text())["url"] == path.as_uri()
    assert not (site(env) / "dependency-1.0.dist-info/REQUESTED").exists()
    verify_records(env)
