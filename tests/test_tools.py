"""Tools that work with virtual environments: the list is tests/tools.py, the page docs/compatibility.md."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from conftest import INTERPRETERS, STRESS, Siteswap
from habits import RAN_ON
from places import OWN, Place, compare, fails_plainly, make_wheels
from tools import AS_EXPECTED, NOT_PLAIN_EITHER, RECORD, TOOLS, Tool, page, read_record

NEWEST = max((name for name in INTERPRETERS if name in RAN_ON), key=lambda name: int(name[2:]))

CASES = [
    pytest.param(tool, name, id=f"{name}: {tool.name}", marks=[pytest.mark.index] if tool.index else [])
    for tool in TOOLS
    for name in sorted(INTERPRETERS)
    if name in (*RAN_ON, "system") and (STRESS or (tool.sample and name == (NEWEST if tool.index else OWN)))
]


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels by hand."""
    return make_wheels(tmp_path_factory.mktemp("tools") / "wheels")


@pytest.fixture(scope="session")
def served(offline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The wheels as an index, for tools that take no directory of them."""
    pages = tmp_path_factory.mktemp("index")
    for path in offline.iterdir():
        project = pages / path.name.partition("-")[0].replace("_", "-")
        project.mkdir(exist_ok=True)
        shutil.copy(path, project)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(pages))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Path]:
    """Install a tool outside of any environment of ours, once; the directory of its programs."""
    place = Path(os.environ.get("SITESWAP_TOOLS") or tmp_path_factory.mktemp("beside"))

    def install(wanted: Sequence[str]) -> Path:
        name, *others = wanted
        variables = {"UV_TOOL_DIR": str(place / name), "UV_TOOL_BIN_DIR": str(place / name / "bin")}
        line: list[str | Path] = [
            find_uv_bin(),
            "tool",
            "install",
            "-q",
            "--python",
            INTERPRETERS[NEWEST],
            name,
        ]
        line += [f"--with={other}" for other in others]
        subprocess.run(line, check=True, env={**os.environ, **variables})
        return place / name / "bin"

    return install


@pytest.mark.parametrize(("tool", "name"), CASES)
def test_tool(
    tool: Tool,
    name: str,
    tmp_path: Path,
    offline: Path,
    programs: Callable[[Sequence[str]], Path],
    served: str,
    siteswap: Siteswap,
) -> None:
    """The same lines in an environment of siteswap and in a plain venv beside it.

    Where the tool does not go together with a Python, in the plain venv only: they must fail.
    """
    beside = [programs(tool.beside)] if tool.beside else []
    too_old = name != "system" and int(name[2:]) < tool.since
    expected = NOT_PLAIN_EITHER if too_old else AS_EXPECTED
    seen = {"result": "failed"}
    try:
        if too_old:
            fails_plainly(tool, name, tmp_path, offline, tool.before, beside=beside, served=served)
        else:
            compare(tool, name, tmp_path, offline, siteswap, beside=beside, served=served)
        seen = {"result": expected}
    finally:
        if os.environ.get("SITESWAP_RECORD") == "1":
            place = Place(tmp_path / "version", offline, tool, name, beside)
            place.env.symlink_to(tmp_path / ("plain" if too_old else "ours") / "project/.venv")
            record(tool, name, seen | {"version": version(tool, place)})
    assert read_record()[tool.name].get(name, seen)["result"] == expected


def version(tool: Tool, place: Place) -> str:
    """Which version of the tool it was."""
    asks = tool.version or (f"{tool.beside[0]} --version" if tool.beside else "")
    if not asks:
        name = tool.needs[-1].partition("<")[0]
        asks = f"python -c 'import importlib.metadata as m; print(m.version(\"{name}\"))'"
    found = re.search(r"\d[\w.]*", place.types(asks).out)
    return found[0] if found else ""


def record(tool: Tool, name: str, seen: dict[str, str]) -> None:
    """Write down what was seen, beside what others write down meanwhile."""
    with RECORD.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        found = dict(read_record()) if RECORD.stat().st_size else {}
        found[tool.name] = dict(sorted({**found.get(tool.name, {}), name: seen}.items()))
        RECORD.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")


def test_the_page_says_what_was_seen() -> None:
    """docs/compatibility.md is made of the habits, the tools and the record."""
    written = Path(__file__).parent.with_name("docs") / "compatibility.md"
    assert written.read_text() == page(), "python tests/tools.py > docs/compatibility.md"


def test_every_tool_has_been_run() -> None:
    """Nothing is in the page that nobody saw, and nothing was recorded that is no longer run."""
    assert read_record().keys() == {tool.name for tool in TOOLS}
