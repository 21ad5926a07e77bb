"""Real packages from the package index: siteswap, pip, uv and importlib.metadata see the same environment."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from conftest import INTERPRETERS, Siteswap, run_python

pytestmark = pytest.mark.index

Versions = dict[str, str]

NEWEST = sorted((name for name in INTERPRETERS if name != "system"), key=lambda name: int(name[2:]))[-1]
"""The interpreter for what takes long."""


def normalised(name: str) -> str:
    """A distribution's name as the index knows it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def output(*command: str | Path, status: int = 0) -> str:
    """What a program prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def of_siteswap(siteswap: Siteswap, env: Path) -> Versions:
    """Names and versions as siteswap lists them."""
    return {item["name"]: item["version"] for item in siteswap("list", "-e", env, "--json").json}


def of_json(text: str) -> Versions:
    """Names and versions from the JSON that pip and uv print."""
    return {normalised(item["name"]): item["version"] for item in json.loads(text)}


def of_metadata(env: Path) -> Versions:
    """Names and versions as importlib.metadata finds them in a program of the environment."""
    code = "import json; from importlib.metadata import distributions as all; "
    code += "print(json.dumps([[item.metadata['Name'], item.version] for item in all()]))"
    found = json.loads(run_python(env / "bin/python", code, "-I"))
    assert len(found) == len({name for name, _ in found}), "every distribution once"
    return {normalised(name): version for name, version in found}


def agreed(siteswap: Siteswap, env: Path) -> Versions:
    """What is installed, having made sure that all tools say the same and find nothing wrong."""
    expected = of_siteswap(siteswap, env)
    python = env / "bin/python"
    # Each pip drops old interpreters; the base interpreter's own one knows its kind.
    version = ".".join(run_python(python, "import sys; print(*sys.version_info[:2])").split())
    outer = sys.executable if int(version[2:]) >= sys.version_info[1] else INTERPRETERS[version]
    pip = [outer, "-m", "pip", "--disable-pip-version-check", "--python", python]
    assert of_json(output(*pip, "list", "--format", "json")) == expected
    assert of_json(output(find_uv_bin(), "pip", "list", "--python", python, "--format", "json")) == expected
    assert of_metadata(env) == expected
    assert "No broken requirements" in output(*pip, "check")
    output(find_uv_bin(), "pip", "check", "--python", python)
    return expected


def verified(env: Path) -> int:
    """How many files RECORD names, each of them there with its hash and size, in every distribution."""
    count = 0
    for record in env.glob("lib/python3.*/site-packages/*.dist-info/RECORD"):
        base = record.parent.parent
        for path, digest, size in csv.reader(record.read_text().splitlines()):
            content = (base / path).read_bytes()
            count += 1
            if base / path == record:
                continue
            algorithm, _, value = digest.partition("=")
            found = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).decode().rstrip("=")
            assert (found, str(len(content))) == (value, size), f"{record.parent.name}: {path}"
    return count


@pytest.mark.parametrize("name", sorted(INTERPRETERS))
def test_flask_and_requests(name: str, tmp_path: Path, siteswap: Siteswap) -> None:
    """An application and a library through install, upgrade, uninstall and rollback on every interpreter."""
    env = tmp_path / "env"
    siteswap("create", env, "--python", INTERPRETERS[name]).ok()
    siteswap("install", "-e", env, "flask<3", "requests").ok()
    first = agreed(siteswap, env)
    assert {"flask", "requests", "jinja2", "urllib3"} <= first.keys()
    assert verified(env) > 100
    assert f"Flask {first['flask']}" in output(env / "bin/flask", "--version")
    siteswap("install", "-e", env, "-U", "flask>=3").ok()
    second = agreed(siteswap, env)
    assert second["flask"].startswith("3.")
    assert f"Flask {second['flask']}" in output(env / "bin/flask", "--version")
    verified(env)
    siteswap("uninstall", "-e", env, "flask").ok()
    third = agreed(siteswap, env)
    assert "flask" not in third
    assert "jinja2" not in third, "what nothing needs any more goes too"
    assert not os.path.lexists(env / "bin/flask")
    siteswap("rollback", "-e", env, "2").ok()
    assert agreed(siteswap, env) == first
    verified(env)
    run_python(env / "bin/python", "import flask, requests, markupsafe._speedups")


def test_jupyterlab_and_pandas(tmp_path: Path, siteswap: Siteswap) -> None:
    """A large environment with data files, kernels and extensions; and its lock in another environment."""
    env, twin, lock = tmp_path / "env", tmp_path / "twin", tmp_path / "pylock.toml"
    siteswap("create", env, "--python", INTERPRETERS[NEWEST]).ok()
    siteswap("install", "-e", env, "jupyterlab<4.4", "pandas<2.3", "flask", "requests", timeout=600).ok()
    first = agreed(siteswap, env)
    assert verified(env) > 5000
    assert f"jupyterlab       : {first['jupyterlab']}" in output(env / "bin/jupyter", "--version")
    assert f"Flask {first['flask']}" in output(env / "bin/flask", "--version")
    assert (
        run_python(env / "bin/python", "import pandas; print(pandas.DataFrame({'a': [1, 2]}).a.sum())") == "3"
    )
    assert (env / "share/jupyter/kernels/python3/kernel.json").exists()
    assert (env / "etc/jupyter").is_dir()
    assert str(env.resolve()) in output(env / "bin/jupyter", "--paths")

    siteswap("install", "-e", env, "-U", "pandas", timeout=600).ok()
    second = agreed(siteswap, env)
    assert second["pandas"] != first["pandas"]
    changed = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    assert changed <= {"pandas", "pytz"}, "only what was named, and what it needs no more"
    verified(env)
    siteswap("export", "-e", env, "-o", lock).ok()
    siteswap("create", twin, "--python", INTERPRETERS[NEWEST]).ok()
    siteswap("sync", "-e", twin, lock, timeout=600).ok()
    assert agreed(siteswap, twin) == second
    verified(twin)
    assert run_python(twin / "bin/python", "import pandas; print(pandas.__version__)") == second["pandas"]
    output(twin / "bin/jupyter", "--version")
    one = next(env.glob("lib/python3.*/site-packages/pandas/core/frame.py"))
    other = next(twin.glob("lib/python3.*/site-packages/pandas/core/frame.py"))
    assert one.samefile(other), "both environments share the cache's files"

    siteswap("uninstall", "-e", env, "jupyterlab").ok()
    third = agreed(siteswap, env)
    assert {"pandas", "flask", "requests"} <= third.keys()
    assert not {"jupyterlab", "ipykernel"} & third.keys()
    assert not os.path.lexists(env / "share/jupyter/kernels/python3")
    siteswap("rollback", "-e", env, "2").ok()
    assert agreed(siteswap, env) == first
    verified(env)
    output(env / "bin/jupyter", "--version")


# -- sources -----------------------------------------------------------------------------------------


def project(path: Path, version: str, value: str) -> Path:
    """A source tree that is built with hatchling, which has to come from the index."""
    (path / "src/sourcery").mkdir(parents=True, exist_ok=True)
    (path / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "sourcery"\nversion = "{version}"\nscripts = {{ sourcery = "sourcery:main" }}\n'
    )
    (path / "src/sourcery/__init__.py").write_text(f"def main():\n    print({value!r})\n")
    return path


def git(directory: Path, *words: str) -> str:
    """Run git with an identity of its own."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return output("git", "-C", directory, *identity, *words).strip()


def direct_url(env: Path) -> dict[str, object]:
    """What direct_url.json of the source package says."""
    (path,) = env.glob("lib/python3.*/site-packages/sourcery-*.dist-info/direct_url.json")
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_a_distribution_that_is_only_a_source_archive(env: Path, siteswap: Siteswap) -> None:
    """A release without any wheel is built, away from the environment, and committed like any other."""
    siteswap("install", "-e", env, "docopt==0.6.2").ok()
    assert agreed(siteswap, env) == {"docopt": "0.6.2"}
    assert run_python(env / "bin/python", "import docopt; print(docopt.__version__)") == "0.6.2"
    verified(env)


def test_a_local_directory_and_a_new_state_of_it(env: Path, tmp_path: Path, siteswap: Siteswap) -> None:
    """A directory is built and installed; installed again after an edit, the edit is what runs."""
    tree = project(tmp_path / "tree", "1.0", "one")
    siteswap("install", "-e", env, tree).ok()
    assert output(env / "bin/sourcery") == "one\n"
    assert direct_url(env) == {"url": tree.as_uri(), "dir_info": {}}
    project(tree, "1.0", "two")
    assert output(env / "bin/sourcery") == "one\n"
    siteswap("install", "-e", env, tree).ok()
    assert output(env / "bin/sourcery") == "two\n"
    siteswap("rollback", "-e", env).ok()
    assert output(env / "bin/sourcery") == "one\n"
    agreed(siteswap, env)
    verified(env)
    assert {path.name for path in tree.iterdir()} == {"pyproject.toml", "src"}, "nothing is left in the tree"


def test_an_editable_install(env: Path, tmp_path: Path, siteswap: Siteswap) -> None:
    """An editable install runs the tree itself, and says so in direct_url.json."""
    tree = project(tmp_path / "tree", "1.0", "one")
    siteswap("install", "-e", env, "--editable", tree).ok()
    project(tree, "1.0", "edited")
    assert output(env / "bin/sourcery") == "edited\n"
    assert direct_url(env) == {"url": tree.as_uri(), "dir_info": {"editable": True}}
    siteswap("install", "-e", env, "six").ok()
    assert output(env / "bin/sourcery") == "edited\n"
    assert agreed(siteswap, env).keys() == {"sourcery", "six"}
    siteswap("uninstall", "-e", env, "sourcery").ok()
    assert (tree / "src/sourcery/__init__.py").exists()


def test_a_git_repository(env: Path, tmp_path: Path, siteswap: Siteswap) -> None:
    """A requirement by git URL is pinned to its commit, and goes to a newer one when asked."""
    tree = project(tmp_path / "repository", "1.0", "one")
    git(tree, "init", "-q", "-b", "main")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "one")
    commit = git(tree, "rev-parse", "HEAD")
    url = f"sourcery @ git+{tree.as_uri()}@main"
    siteswap("install", "-e", env, url).ok()
    assert output(env / "bin/sourcery") == "one\n"
    assert direct_url(env) == {
        "url": tree.as_uri(),
        "vcs_info": {"vcs": "git", "commit_id": commit, "requested_revision": "main"},
    }
    project(tree, "2.0", "two")
    git(tree, "commit", "-q", "-am", "two")
    siteswap("install", "-e", env, "six").ok()
    assert output(env / "bin/sourcery") == "one\n", "nobody asked for another commit"
    siteswap("install", "-e", env, "-U", url).ok()
    assert output(env / "bin/sourcery") == "two\n"
    assert agreed(siteswap, env)["sourcery"] == "2.0"
    verified(env)
