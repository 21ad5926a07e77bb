"""The command line as its users meet it: real wheels, a real interpreter, a real process, no index."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from conftest import Ran, Siteswap, landlock, run_python
from siteswap import confinement
from siteswap.environment import Environment
from siteswap.errors import Kind, SiteswapError
from siteswap.gates import Gates
from siteswap.requirements import Request
from siteswap.resolve import Options
from snapshots import age, current, generation, record_problems, site_packages, state
from wheelmaker import application, wheel

Installed = dict[str, str]


def listed(siteswap: Siteswap, env: Path, *words: str) -> Installed:
    """Name and version of what `siteswap list` says."""
    return {item["name"]: item["version"] for item in siteswap("list", "-e", env, "--json", *words).json}


def requested(siteswap: Siteswap, env: Path) -> set[str]:
    """Names of what counts as asked for."""
    return {item["name"] for item in siteswap("list", "-e", env, "--json").json if item["requested"]}


def uv(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run uv as a user would, on an environment."""
    return subprocess.run(
        [find_uv_bin(), *words], capture_output=True, text=True, check=True,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"},
    )  # fmt: skip


def offline(wheels: Path) -> Options:
    """Options that take everything from a directory."""
    return Options(("--no-index", "--find-links", str(wheels)), no_index=True)


def layered(wheels: Path) -> None:
    """`top` 1.0 and 2.0, which need `low`, of which there are 1.0 and 2.0."""
    for version in ("1.0", "2.0"):
        wheel(wheels, "top", version, requires=["low>=1"])
        wheel(wheels, "low", version)


# -- create --------------------------------------------------------------------------------------


def test_environment_is_an_ordinary_venv(env: Path) -> None:
    """Python finds a virtual environment, and its own idea of where things go is inside."""
    code = (
        "import sys, sysconfig; assert sys.prefix != sys.base_prefix; print(sysconfig.get_path('purelib'));"
        "print(sys.executable)"
    )
    purelib, executable = run_python(env / "bin/python", code).splitlines()
    assert purelib.startswith(f"{env}/")
    assert executable == str(env / "bin/python")
    assert (env / "pyvenv.cfg").read_text().startswith("home = ")


def test_every_interpreter(siteswap: Siteswap, tmp_path: Path, wheels: Path, python: Path) -> None:
    """On each supported Python: create, install, import, run a program, and stay a valid installation."""
    wheel(
        wheels,
        "demo",
        files={"demo.py": "def main():\n    print('demo runs')\n"},
        scripts={"demo": "demo:main"},
    )
    env = tmp_path / "env"
    siteswap("create", env, "--python", python).ok()
    siteswap("install", "-e", env, "--no-index", "-f", wheels, "demo").ok()
    version = "import sys; print('%d.%d' % sys.version_info[:2])"
    assert run_python(env / "bin/python", version) == run_python(python, version)
    assert run_python(env / "bin/python", "import demo; demo.main()") == "demo runs"
    assert subprocess.run([env / "bin/demo"], capture_output=True, text=True).stdout == "demo runs\n"
    assert record_problems(generation(env)) == []


def test_python_by_version(siteswap: Siteswap, tmp_path: Path) -> None:
    """--python takes a version as well as a path."""
    version = ".".join(map(str, sys.version_info[:2]))
    found = siteswap("create", tmp_path / "env", "--python", version, "--json").json
    assert found["python"].startswith(f"{version}.")


@pytest.mark.parametrize("name", ["plain", "with space", "it's $HOME; \"`!*"])
@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "tcsh"])
def test_activate(siteswap: Siteswap, tmp_path: Path, wheels: Path, shell: str, name: str) -> None:
    """Sourcing the activate script puts the environment first; `deactivate` undoes it, whatever the path."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    env = tmp_path / name
    siteswap("create", env).ok()
    script = {"fish": "activate.fish", "tcsh": "activate.csh"}.get(shell, "activate")
    source = "source" if shell in ("fish", "tcsh") else "."
    show = "python -c 'import sys; print(sys.prefix); import os; print(os.environ.get(\"VIRTUAL_ENV\"))'"
    program = f"{source} bin/{script}\n{show}\ndeactivate\nenv\n"
    flags = ["-f"] if shell == "tcsh" else ["--no-config"] if shell == "fish" else []
    # From a file: tcsh would expand the words of -c once more. The shell's own quoting is not tested here.
    (tmp_path / "program").write_text(program)
    done = subprocess.run(
        [shell, *flags, tmp_path / "program"], cwd=env, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    prefix, variable, *after = done.stdout.splitlines()
    assert prefix == str(generation(env))
    assert variable == str(env)
    assert not any(line.startswith("VIRTUAL_ENV") for line in after)
    assert f"PATH={os.environ['PATH']}" in after


def test_programs_run_whatever_the_path(siteswap: Siteswap, tmp_path: Path, wheels: Path) -> None:
    """A console script works from an environment whose path is long, and has spaces and quotes."""
    wheel(
        wheels,
        "demo",
        files={"demo.py": "def main():\n    print('demo runs')\n"},
        scripts={"demo": "demo:main"},
    )
    env = tmp_path / ('it\'s a \\ "path" ' + "x" * 100)
    siteswap("create", env).ok()
    siteswap("install", "-e", env, "--no-index", "-f", wheels, "demo").ok()
    done = subprocess.run([env / "bin/demo"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("demo runs\n", "")


def test_system_site_packages(siteswap: Siteswap, tmp_path: Path) -> None:
    """With --system-site-packages the base interpreter's packages are there, without it they are not."""
    base = Path(getattr(sys, "_base_executable", sys.executable))
    if subprocess.run([base, "-I", "-c", "import pip"], capture_output=True).returncode:
        pytest.skip("the base interpreter has no package to see")
    code = "import importlib.util; print(importlib.util.find_spec('pip') is not None)"
    siteswap("create", tmp_path / "with", "--system-site-packages").ok()
    siteswap("create", tmp_path / "without").ok()
    assert run_python(tmp_path / "with/bin/python", code) == "True"
    assert run_python(tmp_path / "without/bin/python", code) == "False"


def test_create_takes_an_empty_directory(siteswap: Siteswap, tmp_path: Path) -> None:
    """An existing directory with nothing in it becomes the environment."""
    (tmp_path / "env").mkdir()
    siteswap("create", tmp_path / "env").ok()
    assert run_python(tmp_path / "env/bin/python", "print(1)") == "1"
    assert [path.name for path in tmp_path.iterdir() if "siteswap" in path.name] == []


def test_environment_is_found(siteswap: Siteswap, tmp_path: Path) -> None:
    """Without -e it is $VIRTUAL_ENV, else .venv; `create` makes .venv too."""
    siteswap("create", cwd=tmp_path).ok()
    siteswap("create", tmp_path / "other").ok()
    siteswap("tag", "1", "here").ok()
    assert siteswap("tag", "--json").json == {"here": 1}
    assert siteswap("tag", "--json", env={"VIRTUAL_ENV": str(tmp_path / "other")}).json == {}


# -- install -------------------------------------------------------------------------------------


def test_install_brings_what_is_needed(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """What was asked for is requested, what it needs came along, and everything agrees on what is there."""
    layered(wheels)
    outcome = install("top", "--json").json
    assert outcome["committed"]
    assert (outcome["was"], outcome["generation"]) == (1, 2)
    assert outcome["changes"] == [
        {"name": "low", "before": None, "after": "2.0"},
        {"name": "top", "before": None, "after": "2.0"},
    ]
    assert requested(siteswap, env) == {"top"}
    mine = listed(siteswap, env)
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['name']: d.version for d in m.distributions()}))"
    )
    assert json.loads(run_python(env / "bin/python", code)) == mine
    theirs = json.loads(uv("pip", "list", "-p", env, "--format", "json").stdout)
    assert {item["name"]: item["version"] for item in theirs} == mine == {"top": "2.0", "low": "2.0"}
    uv("pip", "check", "-p", env)


def test_installed_as_the_standards_say(install: Siteswap, env: Path, wheels: Path, tmp_path: Path) -> None:
    """RECORD verifies; INSTALLER, REQUESTED and direct_url.json are there exactly where they should be."""
    application(wheels, "1.0")
    direct = wheel(
        tmp_path / "elsewhere", "direct", scripts={"direct": "direct:main"},
        data={"data/etc/direct.conf": "x\n", "headers/direct.h": "/* */\n",
              "scripts/tool": "#!/bin/sh\necho tool\n"},
    )  # fmt: skip
    install("swapapp", direct).ok()
    prefix = generation(env)
    assert record_problems(prefix) == []
    packages = site_packages(prefix)

    def info(name: str, file: str) -> Path:
        return packages / f"{name}-1.0.dist-info" / file

    for name in ("swapapp", "swaplib", "direct"):
        assert info(name, "INSTALLER").read_text() == "siteswap\n"
        assert info(name, "REQUESTED").exists() == (name != "swaplib")
        assert info(name, "direct_url.json").exists() == (name == "direct")
    assert json.loads(info("direct", "direct_url.json").read_text()) == {
        "url": direct.as_uri(),
        "archive_info": {"hashes": {"sha256": hashlib.sha256(direct.read_bytes()).hexdigest()}},
    }
    assert (env / "etc/direct.conf").read_text() == "x\n"
    assert subprocess.run([env / "bin/tool"], capture_output=True, text=True).stdout == "tool\n"
    assert (prefix / f"include/site/python{packages.parent.name[6:]}/direct/direct.h").exists()
    assert subprocess.run([env / "bin/swapapp"], capture_output=True, text=True).stdout.startswith("same 1.0")


def test_nothing_to_do(install: Siteswap, env: Path, wheels: Path) -> None:
    """When all that is asked for is there, no generation is made."""
    layered(wheels)
    install("top").ok()
    before = state(env)
    again = install("top").ok()
    assert "nothing to do; generation 2 is current" in again.out
    assert state(env) == before


def test_versions_are_kept_unless_upgraded(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """Installing changes no version that may stay; -U NAME upgrades that one, -U alone everything."""
    layered(wheels)
    install("top==1.0", "low==1.0").ok()
    wheel(wheels, "third", requires=["low"])
    install("third", "top>=1", "low>=1").ok()
    assert listed(siteswap, env) == {"top": "1.0", "low": "1.0", "third": "1.0"}
    install("-U", "top").ok()
    assert listed(siteswap, env)["top"] == "2.0"
    assert listed(siteswap, env)["low"] == "1.0"
    install("-U").ok()
    assert listed(siteswap, env) == {"top": "2.0", "low": "2.0", "third": "1.0"}


def test_asked_for_after_it_came_along(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """What came along and is asked for later stays for its own sake, and its metadata says so."""
    wheel(wheels, "low", "1.5")
    wheel(wheels, "top", requires=["low"])
    install("top").ok()
    assert requested(siteswap, env) == {"top"}
    install("low").ok()
    assert requested(siteswap, env) == {"top", "low"}
    info = site_packages(generation(env)) / "low-1.5.dist-info"
    assert (info / "REQUESTED").exists()
    assert record_problems(generation(env)) == []
    assert siteswap("diff", "-e", env).ok().out == "generations 2 and 3 hold the same\n"
    siteswap("uninstall", "-e", env, "top").ok()
    assert listed(siteswap, env) == {"low": "1.5"}


def test_a_pin_of_what_is_there_holds(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """A requirement that fits what is installed is noted, so that a later upgrade of everything obeys it."""
    wheel(wheels, "pinned", "1.0")
    install("pinned").ok()
    assert "the same packages" in install("pinned==1.0").ok().out
    wheel(wheels, "pinned", "2.0")
    install("-U").ok()
    assert listed(siteswap, env) == {"pinned": "1.0"}


def test_a_prefix_names_its_environment(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """What `sys.prefix` says is taken for the environment, by -e and in VIRTUAL_ENV."""
    wheel(wheels, "demo")
    install("demo").ok()
    prefix = run_python(env / "bin" / "python", "import sys; print(sys.prefix)")
    siteswap("rollback", "-e", prefix).ok()
    assert siteswap("list", "--json", env={"VIRTUAL_ENV": prefix}).json == []


def test_upgrade_of_an_empty_environment(install: Siteswap) -> None:
    """-U where nothing was ever asked for has nothing to do."""
    assert "nothing to do" in install("-U").ok().out


def test_extras(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """An extra brings its own requirements, also when it is asked for later; they go with what asked."""
    wheel(wheels, "low")
    wheel(wheels, "main", requires=['low ; extra == "more"'], extra_metadata=["Provides-Extra: more"])
    install("main").ok()
    assert listed(siteswap, env) == {"main": "1.0"}
    install("main[more]").ok()
    assert listed(siteswap, env) == {"main": "1.0", "low": "1.0"}
    siteswap("uninstall", "-e", env, "main").ok()
    assert listed(siteswap, env) == {}


def test_no_deps(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """--no-deps installs just what is named; that something is missing is told and does not block."""
    layered(wheels)
    done = install("--no-deps", "top", "--json")
    assert listed(siteswap, env) == {"top": "2.0"}
    assert any("low" in note for note in done.json["notes"])


def test_dry_run_changes_nothing(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """--dry-run says what would change and leaves no trace, for each command that has it."""
    layered(wheels)
    install("top==1.0").ok()
    (wheels.parent / "lines.txt").write_text("low\n")
    before = state(env)
    assert "~ top 1.0 → 2.0" in install("-U", "top", "--dry-run").ok().out
    assert "- top 1.0" in siteswap("uninstall", "-e", env, "top", "--dry-run").ok().out
    options = ("--no-index", "-f", wheels, "--dry-run", "--json")
    dry = siteswap("sync", "-e", env, "lines.txt", *options).json
    assert not dry["committed"]
    assert [item["name"] for item in dry["changes"]] == ["top"]
    assert state(env) == before


def test_local_wheel(install: Siteswap, siteswap: Siteswap, env: Path, tmp_path: Path) -> None:
    """A wheel is installed by its path, relative or absolute, or its URL."""
    one = wheel(tmp_path / "one", "demo", "1.0")
    wheel(tmp_path / "two", "demo", "2.0")
    wheel(tmp_path / "three", "demo", "3.0")
    four = wheel(tmp_path / "four", "demo", "4.0")
    for version, words in {
        "1.0": str(one),
        "2.0": "./two/demo-2.0-py3-none-any.whl",
        "3.0": "file:./three/demo-3.0-py3-none-any.whl",
        "4.0": f"demo @ {four.as_uri()}",
    }.items():
        install(words).ok()
        assert listed(siteswap, env) == {"demo": version}
    assert run_python(env / "bin/python", "import demo; print(demo.__version__)") == "4.0"


BACKEND = '''\
"""A build backend that needs nothing."""
import base64
import hashlib
import zipfile


def _build(directory, version, files):
    name = f"treedist-{version}-py3-none-any.whl"
    info = f"treedist-{version}.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: treedist\\nVersion: {version}\\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    with zipfile.ZipFile(f"{directory}/{name}", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(map(_row, files.items())) + f"{info}/RECORD,,\\n")
    return name


def _row(item):
    digest = base64.urlsafe_b64encode(hashlib.sha256(item[1].encode()).digest()).decode().rstrip("=")
    return f"{item[0]},sha256={digest},{len(item[1])}\\n"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _build(wheel_directory, "1.0", {"treedist.py": open("treedist.py").read()})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    import os
    return _build(wheel_directory, "1.0", {"treedist.pth": os.getcwd() + "\\n"})
'''


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """A project that is built by a backend of its own, so without an index."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "backend.py").write_text(BACKEND)
    (tree / "treedist.py").write_text("VALUE = 'first'\n")
    (tree / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "treedist"\nversion = "1.0"\n'
    )
    return tree


SHOW_VALUE = "import treedist; print(treedist.VALUE)"


def test_source_directory(install: Siteswap, siteswap: Siteswap, env: Path, source_tree: Path) -> None:
    """A source directory is built and installed, and built again when it is named again."""
    install(source_tree).ok()
    assert run_python(env / "bin/python", SHOW_VALUE) == "first"
    (source_tree / "treedist.py").write_text("VALUE = 'second'\n")
    assert run_python(env / "bin/python", SHOW_VALUE) == "first"
    install(source_tree).ok()
    assert run_python(env / "bin/python", SHOW_VALUE) == "second"
    (found,) = site_packages(generation(env)).glob("*/direct_url.json")
    assert json.loads(found.read_text()) == {"url": source_tree.as_uri(), "dir_info": {}}


def test_editable(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, source_tree: Path) -> None:
    """An editable install follows its source tree, and survives the install of something else."""
    install("--editable", source_tree).ok()
    (source_tree / "treedist.py").write_text("VALUE = 'edited'\n")
    wheel(wheels, "other")
    install("other").ok()
    assert run_python(env / "bin/python", SHOW_VALUE) == "edited"
    (found,) = (item for item in siteswap("list", "-e", env, "--json").json if item["name"] == "treedist")
    assert found["editable"] == str(source_tree)
    (note,) = site_packages(generation(env)).glob("treedist*/direct_url.json")
    assert json.loads(note.read_text())["dir_info"] == {"editable": True}


def test_editable_by_the_name_of_a_directory(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, source_tree: Path
) -> None:
    """As pip takes it: a bare word is a directory then; it is asked for from then on, wherever one stands."""
    with (source_tree / "backend.py").open("a") as stream:
        stream.write("import warnings; warnings.warn('of no interest to who installs')\n")
    done = install("--editable", source_tree.name).ok()
    assert "no interest" not in done.err
    (found,) = siteswap("list", "-e", env, "--json").json
    assert (found["requested"], found["editable"]) == (True, str(source_tree))
    wheel(wheels, "other")
    words = ("install", "-e", env, "--no-index", "--find-links", wheels, "other")
    siteswap(*words, cwd=source_tree).ok()
    assert "there is nothing at" in install("--editable", "elsewhere").err


@pytest.mark.index
def test_source_directory_with_a_backend_from_the_index(
    siteswap: Siteswap, env: Path, tmp_path: Path
) -> None:
    """What a build needs is fetched for the build and does not reach the environment."""
    tree = tmp_path / "tree"
    (tree / "src/hatched").mkdir(parents=True)
    (tree / "src/hatched/__init__.py").write_text("VALUE = 1\n")
    (tree / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "hatched"\nversion = "1.0"\n'
    )
    siteswap("install", "-e", env, tree).ok()
    assert listed(siteswap, env) == {"hatched": "1.0"}
    siteswap("install", "-e", env, "--editable", tree).ok()
    assert run_python(env / "bin/python", "import hatched; print(hatched.__file__)").startswith(str(tree))


def test_requirements_file(siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path) -> None:
    """-r reads options, includes, constraints, comments and continuations as pip writes them."""
    layered(wheels)
    wheel(wheels, "inner")
    wheel(wheels, "other")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/inner.txt").write_text("inner # a comment\n")
    (tmp_path / "limits.txt").write_text("low<2\n")
    (tmp_path / "lines.txt").write_text(
        "# a comment\n--no-index\n--find-links wheels\n-r sub/inner.txt\n-c limits.txt\n"
        "top \\\n  >=1\nother ; python_version < '3'\n"
    )
    siteswap("install", "-e", env, "-r", "lines.txt").ok()
    assert listed(siteswap, env) == {"top": "2.0", "low": "1.0", "inner": "1.0"}
    assert requested(siteswap, env) == {"top", "inner"}


def test_options_of_a_file_count_for_builds(
    siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path, source_tree: Path
) -> None:
    """Where a requirements file says to look, what a build needs is looked for too."""
    wheel(wheels, "buildneed")
    project = source_tree / "pyproject.toml"
    project.write_text(project.read_text().replace("requires = []", 'requires = ["buildneed"]'))
    (tmp_path / "lines.txt").write_text("--no-index\n--find-links wheels\n./tree\n")
    siteswap("install", "-e", env, "-r", "lines.txt").ok()
    assert listed(siteswap, env) == {"treedist": "1.0"}
    siteswap("uninstall", "-e", env, "treedist").ok()
    siteswap("sync", "-e", env, "lines.txt").ok()
    assert listed(siteswap, env) == {"treedist": "1.0"}


def test_hashes(siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path) -> None:
    """The right hash installs; a wrong one and one that is missing in hash mode are refused by name."""
    layered(wheels)
    sha = {path.name[:7]: hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels.iterdir()}
    lines = tmp_path / "lines.txt"

    def run(text: str, *words: str) -> Ran:
        lines.write_text(text)
        return siteswap("install", "-e", env, "--no-index", "-f", wheels, "-r", lines, *words)

    right_low = f"low==2.0 --hash=sha256:{sha['low-2.0']}\n"
    right_top = f"top==2.0 \\\n    --hash=sha256:{sha['top-2.0']}\n"
    before = state(env)
    wrong = run(right_low + f"top==2.0 --hash=sha256:{sha['low-1.0']}\n")
    assert (wrong.status, "top 2.0: expected sha256:" in wrong.err) == (1, True), wrong.err
    missing = run(right_top)
    assert (missing.status, "low 2.0: no hash was given" in missing.err) == (1, True), missing.err
    unpinned = run("top==2.0\n", "--require-hashes")
    assert (unpinned.status, "no hash was given" in unpinned.err) == (1, True), unpinned.err
    assert state(env) == before
    run(right_low + right_top).ok()
    assert listed(siteswap, env) == {"top": "2.0", "low": "2.0"}


def test_pyproject(siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path) -> None:
    """-r pyproject.toml installs the project's dependencies, with --extra and --group what those name."""
    for name in ("base", "extra-one", "inner", "tool"):
        wheel(wheels, name)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "It"\nversion = "1"\ndependencies = ["base"]\n'
        '[project.optional-dependencies]\nAll = ["it[one]"]\none = ["extra-one"]\n'
        '[dependency-groups]\nin = ["inner"]\ndev = ["tool", {include-group = "in"}]\n'
    )
    options = ("--no-index", "-f", wheels, "-r", "pyproject.toml")
    siteswap("install", "-e", env, *options).ok()
    assert set(listed(siteswap, env)) == {"base"}
    siteswap("install", "-e", env, *options, "--extra", "all", "--group", "dev").ok()
    assert set(listed(siteswap, env)) == {"base", "extra-one", "inner", "tool"}
    unknown = siteswap("install", "-e", env, *options, "--extra", "none")
    assert (unknown.status, "no extra 'none'" in unknown.err) == (2, True)


def test_unsatisfiable(install: Siteswap, env: Path, wheels: Path) -> None:
    """What cannot be satisfied is explained in the resolver's words, and nothing changes."""
    layered(wheels)
    install("top").ok()
    before = state(env)
    done = install("top==2.0", "low>=3")
    assert done.status == 1
    assert "low>=3" in done.err
    assert "siteswap: these requirements cannot be satisfied together\n  → " in done.err
    assert state(env) == before


def test_overlap(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """Two distributions with one file are refused by name; with --allow-overlap the later one wins."""
    wheel(wheels, "first", files={"shared.py": "FROM = 'first'\n", "first.py": ""})
    wheel(wheels, "second", files={"shared.py": "FROM = 'second'\n", "second.py": ""})
    before = state(env)
    done = install("first", "second")
    assert done.status == 1
    assert "shared.py is claimed by first and by second" in done.err
    assert "--allow-overlap" in done.err
    assert state(env) == before
    install("first", "second", "--allow-overlap").ok()
    show = "import shared; print(shared.FROM)"
    assert run_python(env / "bin/python", show) == "second"
    siteswap("uninstall", "-e", env, "second").ok()
    assert (
        run_python(env / "bin/python", "import importlib.util as u; print(u.find_spec('second'))") == "None"
    )
    assert "first.py" in {path.name for path in site_packages(generation(env)).iterdir()}


def test_own_files_are_not_for_the_taking(install: Siteswap, env: Path, wheels: Path) -> None:
    """A distribution that brings a file of siteswap's own is refused, whatever is allowed."""
    wheel(wheels, "thief", files={"_siteswap.py": ""})
    done = install("thief", "--allow-overlap")
    assert (done.status, "thief" in done.err) == (1, True)


# -- uninstall and sync --------------------------------------------------------------------------


def test_uninstall(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """What came along goes with what needed it, what was asked for stays; what is needed is refused."""
    layered(wheels)
    wheel(wheels, "other", requires=["shared"])
    wheel(wheels, "shared")
    install("top", "other", "shared").ok()
    refused = siteswap("uninstall", "-e", env, "low")
    assert refused.status == 1
    assert "low is needed by top" in refused.err
    assert "siteswap uninstall low top" in refused.err
    unknown = siteswap("uninstall", "-e", env, "nosuch")
    assert (unknown.status, "nosuch: not installed" in unknown.err) == (1, True)
    assert listed(siteswap, env).keys() == {"top", "low", "other", "shared"}
    siteswap("uninstall", "-e", env, "Top").ok()
    assert listed(siteswap, env).keys() == {"other", "shared"}
    siteswap("uninstall", "-e", env, "other").ok()
    assert listed(siteswap, env).keys() == {"shared"}
    assert record_problems(generation(env)) == []


def test_uninstall_takes_names_without_files(
    siteswap: Siteswap, install: Siteswap, env: Path, wheels: Path
) -> None:
    """After an uninstall no module, metadata, program or directory of it is left."""
    before_names = {path.name for path in env.iterdir()}
    wheel(wheels, "demo", scripts={"demo": "demo:main"}, data={"data/etc/demo/x": "x"})
    install("demo").ok()
    assert (env / "etc/demo/x").exists()
    siteswap("uninstall", "-e", env, "demo").ok()
    assert [str(path) for path in generation(env).rglob("*") if "demo" in path.name] == []
    assert {path.name for path in env.iterdir()} == before_names


def test_sync_to_requirements_is_exact(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """sync leaves exactly what the file says, another tool's work removed as well."""
    layered(wheels)
    wheel(wheels, "other")
    wheel(wheels, "foreign")
    install("other", "low==1.0").ok()
    uv("pip", "install", "-p", env, "--no-index", "--find-links", wheels, "foreign")
    (wheels.parent / "lines.txt").write_text("top\n")
    siteswap("sync", "-e", env, "--no-index", "-f", wheels, "lines.txt").ok()
    assert listed(siteswap, env) == {"top": "2.0", "low": "1.0"}
    assert requested(siteswap, env) == {"top"}


def test_export_and_sync(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path
) -> None:
    """An export makes the same environment elsewhere, with what was asked for remembered."""
    layered(wheels)
    wheel(wheels, "plain")
    install("top<2", "low<2", "plain").ok()
    (tmp_path / "pylock.toml").write_text(siteswap("export", "-e", env).ok().out)
    install("-U", "top", "top>=2").ok()
    siteswap("export", "-e", env, "--generation", "2", "-o", "pylock.two.toml").ok()
    assert (tmp_path / "pylock.two.toml").read_text() == (tmp_path / "pylock.toml").read_text()
    siteswap("create", "second").ok()
    second = tmp_path / "second"
    siteswap("sync", "-e", second, "pylock.toml", "--no-index").ok()
    assert listed(siteswap, second) == {"top": "1.0", "low": "1.0", "plain": "1.0"}
    assert requested(siteswap, second) == {"top", "low", "plain"}
    assert "nothing to do" in siteswap("sync", "-e", second, "pylock.toml").ok().out
    lines = siteswap("export", "-e", env, "--generation", "2", "--format", "requirements").ok().out
    assert lines == "low==1.0\nplain==1.0\ntop==1.0\n"


# -- checks --------------------------------------------------------------------------------------


def test_failing_import_blocks(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """What cannot be imported does not go live; --no-check goes on, and history remembers it."""
    wheel(wheels, "broken", files={"broken.py": "import sys\nraise RuntimeError('no such luck')\n"})
    before = state(env)
    done = install("broken")
    assert done.status == 1
    assert "import broken fails: RuntimeError: no such luck" in done.err
    assert "nothing was changed (generation 1 is current)" in done.err
    assert state(env) == before
    (log,) = (env / ".siteswap/log").glob("*.txt")
    assert "no such luck" in log.read_text()
    (verdict,) = siteswap("log", "-e", env, "--json").json
    assert (verdict["passed"], verdict["log"]) == (False, str(log))
    assert str(log) in done.err
    install("broken", "--no-check").ok()
    assert "not checked" in siteswap("history", "-e", env).ok().out
    assert [item["checked"] for item in siteswap("history", "-e", env, "--json").json] == [
        "passed",
        "skipped",
    ]


def test_upgrade_that_breaks_another_blocks(install: Siteswap, env: Path, wheels: Path) -> None:
    """What needs a changed distribution is imported too."""
    wheel(wheels, "low", "1.0", {"low.py": "name = 1\n"})
    wheel(wheels, "high", requires=["low"], files={"high.py": "from low import name\n"})
    install("high").ok()
    wheel(wheels, "low", "2.0", {"low.py": "\n"})
    done = install("-U", "low")
    assert done.status == 1
    assert "high 1.0: import high fails" in done.err


@pytest.mark.parametrize("code", ["import os; os._exit(3)", "import os; os.kill(os.getpid(), 11)"])
def test_import_that_kills_the_interpreter_blocks(install: Siteswap, wheels: Path, code: str) -> None:
    """A module that ends the interpreter is a finding like any other."""
    wheel(wheels, "deadly", files={"deadly.py": code + "\n"})
    done = install("deadly")
    assert (done.status, "deadly 1.0: import deadly" in done.err) == (1, True)


def test_check_command(install: Siteswap, env: Path, wheels: Path, signals: Path) -> None:
    """--check runs in the candidate before it goes live; all of them must succeed."""
    wheel(wheels, "demo")
    before = state(env)
    done = install("demo", "--check", "python -c 'import demo'", "--check", "echo the reason; exit 7")
    assert done.status == 1
    assert "exit status 7" in done.err
    assert "the reason" in done.err
    assert state(env) == before
    probe = f"python -c 'import demo' && readlink {env}/.siteswap/current > {signals}/seen"
    install("demo", "--check", probe).ok()
    assert (signals / "seen").read_text() == "generations/1\n"
    both = install("demo", "--check", "true", "--no-check")
    assert both.status == 2


def writing(wheels: Path) -> None:
    """`leaves`, which makes a file beside its own when it is imported, and `edits`, which changes one."""
    writes = "import os\nwith open(os.path.dirname(__file__) + '/{}', 'w') as file:\n    file.write('new')\n"
    wheel(wheels, "leaves", files={"leaves/__init__.py": writes.format("left")})
    wheel(wheels, "edits", files={"edits/__init__.py": writes.format("data"), "edits/data": "old"})


@pytest.mark.parametrize(("name", "file"), [("leaves", "left"), ("edits", "data")])
def test_what_an_import_would_write_is_refused(
    install: Siteswap, env: Path, wheels: Path, name: str, file: str
) -> None:
    """A check can neither leave files behind nor change any in what goes live: that it tries is a finding."""
    if not landlock():
        pytest.skip("this kernel has no Landlock")
    writing(wheels)
    before = state(env)
    done = install(name)
    assert done.status == 1
    assert f"{name} 1.0: import {name} fails: PermissionError" in done.err
    assert f"{name}/{file}" in done.err
    assert "a check wrote" not in done.err
    assert state(env) == before
    install(name, "--no-check").ok()  # nothing was written on the way, into the cache either
    assert record_problems(generation(env)) == []


def test_what_a_check_wrote_is_removed(env: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not confine checks, what one leaves behind is removed, and told."""
    monkeypatch.setattr(confinement, "LANDLOCK", False)
    writing(wheels)
    outcome = Environment.open(env).install(Request.of("leaves"), offline(wheels))
    told = " ".join(outcome.notes)
    assert "does not confine what checks write" in told
    assert f"a check wrote {site_packages(generation(env)).relative_to(generation(env))}/leaves/left" in told
    assert not (site_packages(generation(env)) / "leaves/left").exists()
    assert record_problems(generation(env)) == []


def test_what_a_check_edited_does_not_go_live(
    env: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel does not confine checks, a file that one edits in place keeps the candidate out."""
    monkeypatch.setattr(confinement, "LANDLOCK", False)
    writing(wheels)
    before = state(env)
    with pytest.raises(
        SiteswapError, match=r"a check changed what it should only try \(.*edits/data\)"
    ) as why:
        Environment.open(env).install(Request.of("edits"), offline(wheels))
    assert why.value.kind is Kind.CHECK
    assert state(env) == before
    Environment.open(env).install(Request.of("edits"), offline(wheels), gates=Gates(enabled=False))
    assert (site_packages(generation(env)) / "edits/data").read_text() == "old"  # the cache forgot it


def test_compile(install: Siteswap, env: Path, wheels: Path) -> None:
    """--compile leaves byte-code of everything that is new, what no check imports included."""
    wheel(wheels, "demo", files={"demo/__init__.py": "", "demo/rare.py": "X = 1\n"})
    install("demo", "--compile").ok()
    assert list(site_packages(generation(env)).glob("demo/__pycache__/rare.*.pyc"))


# -- drift ---------------------------------------------------------------------------------------


def test_work_of_another_tool_is_carried_along(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """What uv installs or removes is listed at once, and told and carried along by the next command."""
    for name in ("mine", "doomed", "later", "foreign"):
        wheel(wheels, name)
    install("mine", "doomed").ok()
    options = ("-p", env, "--no-index", "--find-links", wheels)
    uv("pip", "install", *options, "foreign")
    uv("pip", "uninstall", "-p", env, "doomed")
    assert listed(siteswap, env).keys() == {"mine", "foreign"}
    assert "other tool" in siteswap("list", "-e", env).ok().out
    done = install("later").ok()
    assert "another tool installed foreign 1.0: carried along" in done.err
    assert "siteswap exec -- uv pip …" in done.err
    assert "another tool removed doomed" in done.err
    assert listed(siteswap, env).keys() == {"mine", "foreign", "later"}
    assert run_python(env / "bin/python", "import foreign; print(foreign.__version__)") == "1.0"
    assert record_problems(generation(env)) == []
    assert "another tool" not in siteswap("uninstall", "-e", env, "later").ok().err
    siteswap("uninstall", "-e", env, "foreign").ok()
    assert listed(siteswap, env).keys() == {"mine"}


def test_another_tools_upgrade_is_respected(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """A version that uv put in place of ours stays with the next install."""
    layered(wheels)
    wheel(wheels, "later")
    install("top", "low==1.0").ok()
    uv("pip", "install", "-p", env, "--no-index", "--find-links", wheels, "low==2.0")
    assert listed(siteswap, env)["low"] == "2.0"
    install("later").ok()
    assert listed(siteswap, env) == {"top": "2.0", "low": "2.0", "later": "1.0"}
    assert run_python(env / "bin/python", "import low; print(low.__version__)") == "2.0"
    assert record_problems(generation(env)) == []


def test_strays_are_carried_along_as_copies(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """A file of no distribution is in the next generation too, and editing it there leaves the old one."""
    wheel(wheels, "configured", data={"data/etc/configured/default.conf": "x\n"})
    wheel(wheels, "later")
    install("configured").ok()
    own = env / "etc/configured/own.conf"
    own.write_text("first\n")
    own.chmod(0o600)
    assert "own.conf" in install("later").ok().err
    old, new = (generation(env, number) / "etc/configured/own.conf" for number in (2, 3))
    assert new.read_text() == "first\n"
    assert old.stat().st_ino != new.stat().st_ino
    own.write_text("second\n")
    assert (old.read_text(), new.read_text()) == ("first\n", "second\n")
    siteswap("uninstall", "-e", env, "later").ok()
    assert own.read_text() == "second\n"


def test_missing_file_is_brought_back(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """A module file that somebody deleted is there again after the next install, of whatever."""
    wheel(wheels, "hurt", files={"hurt/__init__.py": "", "hurt/part.py": "X = 1\n"})
    wheel(wheels, "later")
    install("hurt").ok()
    (site_packages(env) / "hurt/part.py").unlink()
    assert "files of hurt are missing: they are brought back" in install("later").ok().err
    assert run_python(env / "bin/python", "import hurt.part; print(hurt.part.X)") == "1"
    assert record_problems(generation(env)) == []


# -- reading -------------------------------------------------------------------------------------


def test_show(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """show tells what a distribution needs and what needs it."""
    layered(wheels)
    install("top").ok()
    top, low = siteswap("show", "-e", env, "Top", "low", "--files", "--json").json
    assert (top["requires"], top["required_by"], top["requested"]) == (["low"], [], True)
    assert (low["requires"], low["required_by"], low["requested"]) == ([], ["top"], False)
    assert any(path.endswith("/top/__init__.py") for path in top["files"])
    text = siteswap("show", "-e", env, "low").ok().out
    assert "Name: low\nVersion: 2.0\n" in text
    assert "Required-by: top" in text
    assert siteswap("show", "-e", env, "nosuch").status == 1


def test_history_and_diff(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """Each generation is in the history with the command that made it, and any two can be compared."""
    layered(wheels)
    install("top==1.0", "low==1.0").ok()
    install("-U", "low", "low>=1").ok()
    text = siteswap("history", "-e", env).ok().out
    assert "~ low 1.0 → 2.0" in text
    assert text.splitlines()[-1].startswith("→  3 ")
    (first, second, third) = siteswap("history", "-e", env, "--json").json
    assert [item["generation"] for item in (first, second, third)] == [1, 2, 3]
    assert [item["current"] for item in (first, second, third)] == [False, False, True]
    assert third["base"] == 2
    assert third["operations"][0]["kind"] == "install"
    assert "-U low" in third["operations"][0]["command"]
    assert siteswap("diff", "-e", env).ok().out == "~ low 1.0 → 2.0\n"
    both = siteswap("diff", "-e", env, "3", "1", "--json").json
    assert both["changes"] == [
        {"name": "low", "before": "2.0", "after": None},
        {"name": "top", "before": "1.0", "after": None},
    ]
    assert listed(siteswap, env, "--generation", "2")["low"] == "1.0"


def test_passwords_are_not_written_down(siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """What history shows of a command has no password of an index in it."""
    wheel(wheels, "demo")
    url = "https://user:secret@localhost:1/simple"
    siteswap("install", "-e", env, "--no-index", "-f", wheels, f"--extra-index-url={url}", "demo").ok()
    assert "localhost" in siteswap("history", "-e", env).ok().out
    found = [
        path for path in (env / ".siteswap").rglob("*") if path.is_file() and b"secret" in path.read_bytes()
    ]
    assert found == []


def test_quiet_and_pipes(install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path) -> None:
    """Results go to stdout and nothing else does; a reader that goes away is no error."""
    wheel(wheels, "demo")
    done = install("demo", "-q").ok()
    assert done.err == ""
    assert done.out.startswith("generation 2 is current (was 1)\n  + demo 1.0\n")
    program = f"{sys.executable} -m siteswap history -e {env} | true"
    piped = subprocess.run(["/bin/bash", "-o", "pipefail", "-c", program], capture_output=True, text=True)
    assert (piped.returncode, piped.stderr) == (0, "")


# -- going back, keeping, collecting -------------------------------------------------------------


@pytest.fixture
def many(install: Siteswap, env: Path, wheels: Path) -> Path:
    """An environment with generations 1 to 4, all of them a day old: 1 is empty, each has one more."""
    for name in ("one", "two", "three"):
        wheel(wheels, name)
        install(name, "--no-check").ok()
    age(env)
    return env


def test_rollback(many: Path, siteswap: Siteswap, install: Siteswap, wheels: Path) -> None:
    """Back to the one before, to a number, to a tag; forward again; numbers are never used twice."""
    siteswap("tag", "-e", many, "2", "good").ok()
    assert siteswap("rollback", "-e", many).ok().out.startswith("generation 3 is current (was 4)")
    assert listed(siteswap, many).keys() == {"one", "two"}
    siteswap("rollback", "-e", many, "good").ok()
    assert listed(siteswap, many).keys() == {"one"}
    assert "nothing to do" in siteswap("rollback", "-e", many, "2").ok().out
    siteswap("rollback", "-e", many, "4").ok()
    assert current(many) == 4
    siteswap("rollback", "-e", many, "2").ok()
    assert "gone back to from 4" in siteswap("history", "-e", many).ok().out
    wheel(wheels, "new")
    install("new").ok()
    assert current(many) == 5
    assert listed(siteswap, many).keys() == {"one", "new"}
    (last,) = (item for item in siteswap("history", "-e", many, "--json").json if item["current"])
    assert last["base"] == 2
    for wrong in ("17", "nosuch", "0", "-1", "1x"):
        assert siteswap("rollback", "-e", many, wrong).status == 2


def test_rollback_from_the_first(env: Path, siteswap: Siteswap) -> None:
    """There is nothing before the first generation."""
    assert siteswap("rollback", "-e", env).status == 2


def test_tags(many: Path, siteswap: Siteswap) -> None:
    """A tag names a generation until it is taken away."""
    assert "known" in siteswap("tag", "-e", many, "3", "known").ok().out
    assert siteswap("list", "-e", many, "--generation", "known", "--json").json[0]["name"] == "one"
    siteswap("tag", "-e", many, "known", "same").ok()
    assert siteswap("tag", "-e", many, "--delete", "known", "--json").json == {"same": 3}
    for words in (
        ["3", "12"],
        ["3", "a b"],
        ["3", ""],
        ["3", "a/b"],
        ["99", "x"],
        ["3"],
        ["--delete", "known"],
    ):
        assert siteswap("tag", "-e", many, *words).status == 2


def verdicts(ran: Ran) -> dict[int, str]:
    """Reasons by generation."""
    return {item["generation"]: item["reason"] for item in ran.json["generations"]}


def test_collecting(many: Path, siteswap: Siteswap, install: Siteswap, wheels: Path) -> None:
    """gc removes what nobody needs and says why the rest stays; old paths keep leading somewhere."""
    siteswap("tag", "-e", many, "1", "empty").ok()
    program = subprocess.Popen([generation(many, 2) / "bin/python", "-c", "print(1, flush=True); input()"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert program.stdout
    program.stdout.readline()
    before = state(many)
    try:
        plan = verdicts(siteswap("gc", "-e", many, "--keep", "0", "--dry-run", "--json"))
        assert plan == {
            4: "current", 3: "not needed", 2: f"used by PID {program.pid} python", 1: "tagged empty",
        }  # fmt: skip
        assert "would" in siteswap("gc", "-e", many, "--dry-run").ok().out.lower()
        assert state(many) == before
        assert siteswap("gc", "-e", many, "--keep", "0", "--json").json["removed"] == [3]
        assert listed(siteswap, many, "--generation", "2") == {"one": "1.0"}
    finally:
        program.communicate(b"\n")
    assert siteswap("gc", "-e", many, "--keep", "0", "--json").json["removed"] == [2]
    tombstone = generation(many, 3)
    assert os.readlink(tombstone) == "../current"
    assert run_python(tombstone / "bin/python", "import three; print(three.__version__)") == "1.0"
    history = siteswap("history", "-e", many, "--json").json
    assert [item["collected"] for item in history] == [False, True, True, False]
    assert siteswap("rollback", "-e", many, "3").status == 2
    assert list((many / ".siteswap/staging").iterdir()) == []
    wheel(wheels, "new")
    install("new").ok()
    assert current(many) == 5


def test_gc_keeps_as_many_as_it_is_told(many: Path, siteswap: Siteswap) -> None:
    """--keep N leaves N besides the current one, the newest; what was current just now stays as well."""
    assert verdicts(siteswap("gc", "-e", many, "--dry-run", "--json"))[1] == "kept: one of the 10 newest"
    siteswap("rollback", "-e", many, "1").ok()
    plan = verdicts(siteswap("gc", "-e", many, "--keep", "0", "--dry-run", "--json"))
    assert plan == {4: "was current a moment ago", 3: "not needed", 2: "not needed", 1: "current"}
    assert siteswap("gc", "-e", many, "--keep", "1", "--json").json["removed"] == [3, 2]
    assert siteswap("gc", "-e", many, "--keep", "-1").status == 2


def test_numbers_are_not_used_again_after_collecting(
    many: Path, siteswap: Siteswap, install: Siteswap, wheels: Path
) -> None:
    """Not even when the tombstones are gone: the history remembers."""
    siteswap("rollback", "-e", many, "1").ok()
    age(many)
    siteswap("gc", "-e", many, "--keep", "0").ok()
    for number in (2, 3, 4):
        generation(many, number).unlink()
    wheel(wheels, "new")
    install("new").ok()
    assert current(many) == 5


def test_commits_collect_by_themselves(
    install: Siteswap, siteswap: Siteswap, env: Path, wheels: Path
) -> None:
    """Ten generations besides the current one are kept without being asked."""
    for number in range(1, 13):
        wheel(wheels, "demo", f"{number}.0")
        install(f"demo=={number}", "--no-check").ok()
        age(env)
    directories = [path for path in (env / ".siteswap/generations").iterdir() if not path.is_symlink()]
    assert sorted(int(path.name) for path in directories) == list(range(3, 14))
    assert run_python(env / "bin/python", "import demo; print(demo.__version__)") == "12.0"
    assert list((env / ".siteswap/staging").iterdir()) == []


# -- running -------------------------------------------------------------------------------------


def test_run(many: Path, siteswap: Siteswap) -> None:
    """`run` gives a command the environment, `run --generation N` pins it and all it starts to N."""
    names = "n for n in ('one', 'two', 'three') if u.find_spec(n)"
    show = f"import sys, importlib.util as u; print(sys.prefix, [{names}])"
    everything = siteswap("run", "-e", many, "--", "python", "-c", show).ok().out
    assert everything == f"{generation(many, 4)} ['one', 'two', 'three']\n"
    pinned = siteswap("run", "-e", many, "--generation", "2", "--", "python", "-c", show).ok().out
    assert pinned == f"{generation(many, 2)} ['one']\n"
    shell = f'{many}/bin/python -c "{show}"; echo $VIRTUAL_ENV'
    nested = siteswap("run", "-e", many, "--generation", "2", "--", "sh", "-c", shell).ok().out
    assert nested == f"{generation(many, 2)} ['one']\n{many}\n"
    assert siteswap("run", "-e", many, "--", "sh", "-c", "exit 9").status == 9
    assert siteswap("run", "-e", many, "--", "no-such-program").status == 2


def test_ps(many: Path, siteswap: Siteswap) -> None:
    """ps tells which process uses which generation, and how far it is behind."""
    assert siteswap("ps", "-e", many).ok().out == "no process uses this environment\n"
    code = "import sys; print(1, flush=True); sys.stdin.readline()"
    program = subprocess.Popen(
        [many / "bin/python", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout
    program.stdout.readline()
    try:
        (user,) = siteswap("ps", "-e", many, "--json").json
        assert (user["pid"], user["generation"], user["behind"]) == (program.pid, 4, 0)
        siteswap("rollback", "-e", many, "2").ok()
        (user,) = siteswap("ps", "-e", many, "--json").json
        assert (user["generation"], user["behind"]) == (4, -2)
        siteswap("uninstall", "-e", many, "one").ok()
        (user,) = siteswap("ps", "-e", many, "--json").json
        assert (user["generation"], user["behind"]) == (4, 1)
        assert "behind by 1" in siteswap("ps", "-e", many).ok().out
    finally:
        program.communicate(b"\n")


# -- the cache -----------------------------------------------------------------------------------


def test_cache(siteswap: Siteswap, env: Path, wheels: Path, tmp_path: Path) -> None:
    """The cache is where it is said to be, and removing all of it breaks no environment."""
    variables = {"SITESWAP_CACHE_DIR": str(tmp_path / "cache")}
    wheel(wheels, "demo")
    siteswap("install", "-e", env, "--no-index", "-f", wheels, "demo", env=variables).ok()
    assert siteswap("cache", "dir", env=variables).ok().out == f"{tmp_path / 'cache'}\n"
    assert int(siteswap("cache", "size", env=variables).ok().out) > 0
    siteswap("cache", "prune", env=variables).ok()
    assert int(siteswap("cache", "size", env=variables).ok().out) == 0
    assert run_python(env / "bin/python", "import demo; print(demo.__version__)") == "1.0"
    siteswap("uninstall", "-e", env, "demo", env=variables).ok()
    siteswap("install", "-e", env, "--no-index", "-f", wheels, "demo", env=variables).ok()
    assert record_problems(generation(env)) == []


def test_pruning_the_cache_leaves_what_others_are_making(siteswap: Siteswap, tmp_path: Path) -> None:
    """A wheel that a running command unpacks stays; what a command that is gone left does not."""
    incoming = tmp_path / "cache/incoming"
    incoming.mkdir(parents=True)
    running, gone = incoming / f"wheel.{os.getpid()}.1", incoming / f"wheel.{2**22 + 1}.1"
    for path in (running, gone):
        path.mkdir()
    siteswap("cache", "prune", env={"SITESWAP_CACHE_DIR": str(tmp_path / "cache")}).ok()
    assert (running.exists(), gone.exists()) == (True, False)


def test_help_names_every_command(siteswap: Siteswap) -> None:
    """--help lists the commands and the exit codes."""
    text = siteswap("--help").ok().out
    words = [
        "create",
        "install",
        "uninstall",
        "sync",
        "list",
        "show",
        "export",
        "history",
        "diff",
        "rollback",
        "tag",
        "run",
        "ps",
        "gc",
        "cache",
    ]
    assert [word for word in words if word not in text] == []
    assert "exit status" in text
    assert siteswap("--version").ok().out.startswith("siteswap ")
    assert siteswap("no-such-command").status == 2
