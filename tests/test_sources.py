"""Sources: directories, editables, projects with only a setup.py, C extensions; how they are built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import INTERPRETERS, STRESS, Siteswap, run_python
from siteswap import failed_builds
from snapshots import current, generation, state
from wheelmaker import wheel

OWN = f"3.{sys.version_info[1]}"

BACKEND = '''\
"""A build backend that needs nothing. Files: VERSION, treedist.py; BROKEN if a build is to fail."""
import base64
import hashlib
import os
import zipfile


def _build(directory, files, settings):
    if os.path.exists("BROKEN"):
        print(open("BROKEN").read())
        raise SystemExit(1)
    with open(os.environ.get("BUILDS", os.devnull), "a") as stream:
        stream.write(f"{settings}\\n")
    version = open("VERSION").read().strip()
    info = f"treedist-{version}.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: treedist\\nVersion: {version}\\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    name = f"treedist-{version}-py3-none-any.whl"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(map(_row, files.items())) + f"{info}/RECORD,,\\n")
    return name


def _row(item):
    digest = base64.urlsafe_b64encode(hashlib.sha256(item[1].encode()).digest()).decode().rstrip("=")
    return f"{item[0]},sha256={digest},{len(item[1])}\\n"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _build(wheel_directory, {"treedist.py": open("treedist.py").read()}, config_settings)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _build(wheel_directory, {"treedist.pth": os.getcwd() + "\\n"}, config_settings)
'''
SHOW = "import treedist; print(treedist.VALUE)"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project that is built by a backend of its own, so without an index."""
    tree = tmp_path / "tree"
    tree.mkdir()
    write(tree, {"backend.py": BACKEND, "VERSION": "1.0", "treedist.py": "VALUE = 'first'\n"})
    (tree / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return tree


def write(directory: Path, files: Mapping[str, str]) -> None:
    """Write text files below a directory."""
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


# -- directories ----------------------------------------------------------------------------------------


def test_a_directory_is_built_again_when_it_changed(
    siteswap: Siteswap, env: Path, wheels: Path, tree: Path, tmp_path: Path
) -> None:
    """`sync` and `install -U` build a directory again when it changed since; what does not name it, never."""
    builds = tmp_path / "builds"
    builds.touch()
    words = ("-e", env, "--no-index", "--find-links", wheels)
    (tmp_path / "lines.txt").write_text("./tree\n")

    def run(*more: str | Path) -> bool:
        before = len(builds.read_text().splitlines())
        siteswap(more[0], *words, *more[1:], env={"BUILDS": str(builds)}).ok()
        return len(builds.read_text().splitlines()) > before

    def shown() -> str:
        return run_python(env / "bin/python", SHOW)

    assert run("sync", "lines.txt")
    number = current(env)
    run("sync", "lines.txt")
    run("install", "-U")
    assert current(env) == number, "nothing changed, so there is nothing to do"
    (tree / "treedist.py").write_text("VALUE = 'second'\n")
    wheel(wheels, "other")
    assert not run("install", "other"), "nobody asked for it"
    assert shown() == "first"
    assert run("install", "-U")
    assert shown() == "second"
    write(tree, {"treedist.py": "VALUE = 'third'\n", "VERSION": "2.0"})
    assert run("sync", "lines.txt")
    assert shown() == "third"
    write(tree, {"__pycache__/x.pyc": "", "cache/CACHEDIR.TAG": "", "venv/pyvenv.cfg": ""})
    number = current(env)
    run("sync", "lines.txt")
    assert current(env) == number, "byte-code, caches and virtual environments are not part of it"


@pytest.mark.parametrize("editable", [False, True])
def test_a_directory_that_is_gone(
    siteswap: Siteswap, env: Path, wheels: Path, tree: Path, tmp_path: Path, editable: bool
) -> None:
    """Other things can be installed, upgraded and uninstalled all the same; it is told where it matters."""
    words = ("-e", env, "--no-index", "--find-links", wheels)
    siteswap("install", *words, *(["--editable"] if editable else []), tree).ok()
    gone = tree.rename(tmp_path / "elsewhere")
    wheel(wheels, "other")
    siteswap("install", *words, "other").ok()
    siteswap("install", *words, "-U").ok()
    found = {item["name"]: item for item in siteswap("list", "-e", env, "--json").json}
    assert found.keys() == {"treedist", "other"}
    assert found["treedist"]["origin"] == f"{'editable' if editable else 'directory'}:{tree}"
    assert found["treedist"]["editable_gone"] is editable
    assert (f"editable, but {tree} is gone" in siteswap("list", "-e", env).ok().out) is editable
    assert (f"its directory is gone: {tree}" in siteswap("doctor", "-e", env).ok().out) is editable
    siteswap("uninstall", "-e", env, "treedist").ok()
    assert "is editable" not in siteswap("doctor", "-e", env).ok().out
    gone.rename(tree)
    siteswap("rollback", "-e", env).ok()
    assert run_python(env / "bin/python", SHOW) == "first"


# -- editables ------------------------------------------------------------------------------------------


def test_an_editable_is_told_of_once(siteswap: Siteswap, env: Path, wheels: Path, tree: Path) -> None:
    """That its changes are live is said when it comes in and not again; `list` shows the directory."""
    words = ("-e", env, "--no-index", "--find-links", wheels)
    told = f"treedist is editable: changes in {tree} are live at once"
    assert told in siteswap("install", *words, "--editable", tree).ok().err
    wheel(wheels, "other")
    for command in (
        ("install", *words, "other"),
        ("install", *words, "--editable", tree),
        ("list", "-e", env),
    ):
        assert told not in siteswap(*command).ok().err
    assert f"editable: {tree}" in siteswap("list", "-e", env).ok().out
    siteswap("install", *words, tree).ok()
    assert "editable" not in siteswap("list", "-e", env).ok().out
    assert told in siteswap("install", *words, "--editable", tree).ok().err


def test_an_editable_across_generations(
    siteswap: Siteswap, env: Path, wheels: Path, tree: Path, tmp_path: Path
) -> None:
    """What leads to the directory belongs to the generation; what is in the directory to none."""
    words = ("-e", env, "--no-index", "--find-links", wheels)
    other = shutil.copytree(tree, tmp_path / "other")
    (other / "treedist.py").write_text("VALUE = 'the other'\n")
    siteswap("install", *words, "--editable", tree).ok()
    siteswap("install", *words, "--editable", other).ok()
    assert run_python(env / "bin/python", SHOW) == "the other"
    (tree / "treedist.py").write_text("VALUE = 'edited meanwhile'\n")
    siteswap("rollback", "-e", env).ok()
    assert run_python(env / "bin/python", SHOW) == "edited meanwhile"
    siteswap("run", "-e", env, "--generation", "3", "--", "python", "-c", SHOW).ok()


def test_an_editable_that_uv_installed(siteswap: Siteswap, env: Path, wheels: Path, tree: Path) -> None:
    """It is shown as what it is, before and after it is carried along."""
    from uv import find_uv_bin

    words = ("-e", env, "--no-index", "--find-links", wheels)
    subprocess.run(
        [find_uv_bin(), "pip", "install", "-q", "--no-index", "-e", tree, "--python", env / "bin/python"],
        check=True,
    )
    assert f"editable: {tree}" in siteswap("list", "-e", env).ok().out
    wheel(wheels, "other")
    siteswap("install", *words, "other").ok()
    assert f"editable: {tree}" in siteswap("list", "-e", env).ok().out


@pytest.mark.index
def test_an_editable_by_an_import_hook(siteswap: Siteswap, tmp_path: Path) -> None:
    """Setuptools' finder: a src layout, a namespace package, a program and a plug-in; and its rollback."""
    env, tree = tmp_path / "env", tmp_path / "hooked"
    write(tree, {
        "pyproject.toml":
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "hooked"\nversion = "1.0"\nscripts = { hooked = "space.inner:main" }\n'
        '[project.entry-points."a.group"]\nplug = "space.inner:main"\n'
        '[tool.setuptools]\npackage-dir = { "space.inner" = "code" }\npackages = ["space.inner"]\n',
        "code/__init__.py": "def main():\n    print('first')\n",
    })  # fmt: skip
    siteswap("create", env).ok()
    siteswap("install", "-e", env, "--editable", tree).ok()
    (site,) = generation(env).glob("lib/python3.*/site-packages")
    assert list(site.glob("__editable___*_finder.py")), "a finder, or this tests nothing"
    (tree / "code/__init__.py").write_text("def main():\n    print('edited')\n")
    assert (
        subprocess.run([env / "bin/hooked"], capture_output=True, text=True, check=True).stdout == "edited\n"
    )
    code = "from importlib.metadata import entry_points as e; e(group='a.group')['plug'].load()()"
    assert run_python(env / "bin/python", code) == "edited"
    assert {path.name for path in tree.iterdir()} == {"pyproject.toml", "code"}, "nothing is left in the tree"
    siteswap("uninstall", "-e", env, "hooked").ok()
    assert not list(env.glob("lib/python3.*/site-packages/__editable__*"))
    siteswap("rollback", "-e", env).ok()
    assert (
        subprocess.run([env / "bin/hooked"], capture_output=True, text=True, check=True).stdout == "edited\n"
    )


# -- builds ---------------------------------------------------------------------------------------------

EXTENSION = """\
#include <Python.h>
static PyObject *version(PyObject *self, PyObject *args) { return PyUnicode_FromString(VERSION); }
static PyMethodDef methods[] = {{"version", version, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "oldc._oldc", NULL, -1, methods};
PyMODINIT_FUNC PyInit__oldc(void) { return PyModule_Create(&module); }
"""


def legacy(tree: Path, version: str, *modules: str) -> Path:
    """A project with only a setup.py, and a C extension in it."""
    shutil.rmtree(tree / "oldc", ignore_errors=True)
    write(tree, {
        "setup.py": "from setuptools import Extension, setup\n"
        f"setup(name='oldc', version='{version}', packages=['oldc'],\n"
        "      ext_modules=[Extension('oldc._oldc', ['oldc.c'], "
        f"define_macros=[('VERSION', '\"{version}\"')])])\n",
        "oldc.c": EXTENSION,
        "oldc/__init__.py": "",
        **{f"oldc/{name}.py": "" for name in modules},
    })  # fmt: skip
    return tree


@pytest.mark.index
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler here")
@pytest.mark.parametrize("name", sorted(INTERPRETERS) if STRESS else [OWN])
def test_a_c_extension_with_only_a_setup_py(name: str, tmp_path: Path, siteswap: Siteswap) -> None:
    """Built away from the environment and from the tree; programs that run keep the one they started with."""
    env = tmp_path / "env"
    siteswap("create", env, "--python", INTERPRETERS[name]).ok()
    tree = legacy(tmp_path / "tree", "1.0", "stays", "goes")
    siteswap("install", "-e", env, tree).ok()
    code = "import sys; print('up', flush=True); sys.stdin.read(); import oldc._oldc, oldc.goes; "
    code += "print(oldc._oldc.version())"
    runs = subprocess.Popen([env / "bin/python", "-c", code], stdin=-1, stdout=-1, text=True)
    assert runs.stdout is not None
    runs.stdout.readline()
    legacy(tree, "2.0", "stays")
    siteswap("install", "-e", env, tree).ok()
    new = "import oldc._oldc; from importlib.metadata import version as v; "
    new += "print(oldc._oldc.version(), v('oldc'))"
    assert run_python(env / "bin/python", new) == "2.0 2.0"
    assert runs.communicate("")[0] == "1.0\n"
    inside = {path.name for path in generation(env).glob("lib/python3.*/site-packages/oldc/*.py")}
    assert inside == {"__init__.py", "stays.py"}, "what the project has no longer does not come back"
    assert {path.name for path in tree.iterdir()} == {"setup.py", "oldc.c", "oldc"}, "no litter"


@pytest.mark.index
def test_what_keeps_an_old_build_out(tmp_path: Path, siteswap: Siteswap, env: Path) -> None:
    """The planted fault: where setuptools works in the tree, a module that is gone is installed again."""
    tree = tmp_path / "tree"
    write(tree, {"setup.py": "from setuptools import setup; setup(name='pure', packages=['pure'])\n"})
    write(tree, {"pure/__init__.py": "", "pure/goes.py": ""})
    own = tmp_path / "own.cfg"
    own.touch()
    for settings in ({"DIST_EXTRA_CONFIG": str(own)}, {}):
        (tree / "pure/goes.py").touch()
        siteswap("install", "-e", env, tree, env=settings).ok()
        (tree / "pure/goes.py").unlink()
        siteswap("install", "-e", env, tree, env=settings).ok()
        comes_back = bool(list(generation(env).glob("lib/python3.*/site-packages/pure/goes.py")))
        assert comes_back == bool(settings)
        assert (tree / "build").exists() == bool(settings)
        shutil.rmtree(tree / "build", ignore_errors=True)
        shutil.rmtree(tree / "pure.egg-info", ignore_errors=True)


def test_a_build_that_fails(siteswap: Siteswap, env: Path, wheels: Path, tree: Path) -> None:
    """The project is named, the end of the output shown, the next step given; and nothing changed."""
    words = ("install", "-e", env, "--no-index", "--find-links", wheels)
    siteswap(*words, tree).ok()
    before = state(env)
    (tree / "BROKEN").write_text(
        "a line\n" * 500 + "error: command 'gcc' failed: No such file or directory\n"
    )
    # With a version that only a build tells the resolver is the first to build it; without, we are.
    static = '[project]\nname = "treedist"\nversion = "1.0"\n'
    for text in ("# so that uv looks again\n", static):
        with (tree / "pyproject.toml").open("a") as stream:
            stream.write(text)
        ran = siteswap(*words, tree)
        assert ran.status == 1
        assert "cannot be built" in ran.err
        assert str(tree) in ran.err
        assert "gcc is missing here: install it" in ran.err
        assert "satisfied" not in ran.err
        assert 0 < ran.err.count("a line") < 40
        assert state(env) == before
    assert run_python(env / "bin/python", SHOW) == "first"


def test_without_build_isolation(
    siteswap: Siteswap, env: Path, wheels: Path, tree: Path, tmp_path: Path
) -> None:
    """The build finds what the environment has, and says where it does not; settings reach the backend."""
    (tree / "pyproject.toml").write_text('[build-system]\nrequires = ["hidden"]\nbuild-backend = "hidden"\n')
    words = ("install", "-e", env, "--no-index", "--find-links", wheels)
    assert "hidden was not found" in siteswap(*words, tree).err
    ran = siteswap(*words, "--no-build-isolation", tree)
    assert (ran.status, "its build needs hidden, which" in ran.err) == (1, True), ran.err
    wheel(tmp_path / "elsewhere", "hidden", files={"hidden.py": BACKEND})
    siteswap(*words, "--find-links", tmp_path / "elsewhere", "hidden").ok()
    builds = tmp_path / "builds"
    settings = ("-C", "a=1", "--config-setting", "b=2", "-C", "a=3")
    siteswap(*words, "--no-build-isolation", *settings, tree, env={"BUILDS": str(builds)}).ok()
    assert builds.read_text().splitlines()[-1] == "{'a': ['1', '3'], 'b': '2'}"
    assert run_python(env / "bin/python", SHOW) == "first"
    wheel(wheels, "other")
    siteswap(*words, "other").ok()  # which does not build it again, in a way that does not work
    assert "not a setting" in siteswap(*words, "-C", "nonsense", tree).err


@pytest.mark.parametrize("spelled", ["hg+https://h/x", "it @ svn+ssh://h/x", "bzr+lp:x", "it @ HG+file:///x"])
def test_other_version_control(siteswap: Siteswap, env: Path, spelled: str) -> None:
    """What is not git is refused by its name, asked for in any way."""
    for words in ([spelled], ["--editable", spelled]):
        ran = siteswap("install", "-e", env, *words)
        assert (ran.status, "is not supported; of version control, only git is" in ran.err) == (2, True)
        assert len(ran.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("output", "step"),
    [
        ("error: [Errno 2] No such file or directory: 'gcc'", "gcc is missing"),
        ("error: command '/usr/bin/gcc' failed: No such file or directory", "gcc is missing"),
        ("unable to execute 'x86_64-linux-gnu-gcc': No such file", "x86_64-linux-gnu-gcc is missing"),
        ("error: command '/usr/bin/gcc' failed with exit code 1", "a compiler or a library may be missing"),
        ("../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc']]", "a C compiler is missing"),
        ("error: can't find Rust compiler", "Rust is missing"),
        ("x.c:1:10: fatal error: Python.h: No such file or directory", "python3-dev"),
        ("x.c:1:10: fatal error: libpq/pq.h: No such file or directory", "the header libpq/pq.h is missing"),
        ("/usr/bin/ld: cannot find -lpq: No such file or directory", "the library pq is missing"),
        (
            "ModuleNotFoundError: No module named 'numpy.core'",
            "its build needs numpy.core and does not say so",
        ),
    ],
)
def test_what_a_failed_build_says(output: str, step: str) -> None:
    """The one line that matters is found in what compilers and backends say."""
    assert step in failed_builds.hint("before\n" + output + "\nafter")
