"""What the recipes of docs/services.md serve, and how it is watched: an application, a server, a load."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from conftest import Siteswap
from wheelmaker import wheel

DOCUMENT = Path(__file__).parent.parent.with_name("docs") / "services.md"
LATE = 40
"""How many modules of the application are imported by requests, one after the other."""

_SEEN = '''\
import importlib, itertools, os, pathlib, sys
from importlib.metadata import version

VERSION = {version!r}
_next = itertools.count()

def seen():
    """What one request sees of the application, from modules that nobody has imported before too."""
    late = importlib.import_module("shop.late%d" % (next(_next) % {late}))
    data = pathlib.Path(__file__).with_name("data.txt").read_text()
    installed = pathlib.Path(sys.prefix, "share/shop/version")
    installed = installed.read_text() if installed.exists() else VERSION
    return {{
        "versions": [VERSION, late.VERSION, data, installed, version("shop")],
        "pid": os.getpid(),
        "prefix": sys.prefix,
        "executable": sys.executable,
    }}
'''

_WEB = """\
import json
from shop import seen

def wsgi(environ, start_response):
    body = json.dumps(seen()).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        body = json.dumps(seen()).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


def shop(directory: Path, version: int) -> Path:
    """A wheel of the application; every module and every file of it knows the version."""
    files: dict[str, str | bytes] = {
        "shop/__init__.py": _SEEN.format(version=str(version), late=LATE),
        "shop/__main__.py": "import json, shop\nprint(json.dumps(shop.seen()))\n",
        "shop/web.py": _WEB,
        "shop/data.txt": str(version),
    }
    files |= {f"shop/late{number}.py": f"VERSION = {str(version)!r}\n" for number in range(LATE)}
    data = {"data/share/shop/version": str(version)}
    return wheel(directory, "shop", str(version), files, data=data)


def recipe(name: str) -> str:
    """The block of docs/services.md that stands below the line `<!-- name -->`, word for word."""
    text = DOCUMENT.read_text()
    found = re.search(rf"<!-- {re.escape(name)} -->\n+```[a-z]*\n(.*?)```", text, re.DOTALL)
    assert found, f"docs/services.md has no block {name}"
    return found[1]


@dataclass(frozen=True)
class Place:
    """An environment with the application and what serves it, in a directory of its own."""

    root: Path
    wheels: Path
    siteswap: Siteswap

    @property
    def env(self) -> Path:
        return self.root / "env"

    def write(self, name: str, text: str) -> Path:
        """A file beside the environment; `/srv/shop` in it is the place."""
        path = self.root / name
        path.write_text(text.replace("/srv/shop", str(self.root)))
        return path

    def release(self, version: int, *, check: bool = False) -> None:
        """Install a version of the application, as its next release."""
        shop(self.wheels, version)
        options = [] if check else ["--no-check"]
        self.install(*options, "--no-index", f"shop=={version}")

    def install(self, *words: str) -> None:
        """`siteswap install` from the place's own wheels too."""
        self.siteswap("install", "-e", self.env, "--find-links", self.wheels, *words).ok()

    def current(self) -> str:
        """The physical path of the current generation."""
        return str((self.env / ".siteswap/current").resolve())

    def users(self) -> set[int]:
        """Numbers of the generations that somebody uses."""
        return {item["generation"] for item in self.siteswap("ps", "-e", self.env, "--json").json}


class Server:
    """A program from its start to the end of the `with` block, with all of its children."""

    def __init__(
        self,
        place: Place,
        command: Sequence[str | Path],
        port: int = 0,
        *,
        env: Mapping[str, str] | None = None,
        inherit: bool = True,
        **options: Any,
    ) -> None:
        self.place, self.port, self.log = place, port, place.root / "server.log"
        self._command, self._options = [*map(str, command)], options
        self._env = {**(os.environ if inherit else {}), **(env or {})}

    def __enter__(self) -> Server:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.place.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._env, start_new_session=True, **self._options,
            )  # fmt: skip
        if self.port:
            try:
                until(lambda: self._answers(), self.said)
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)
        if error is not None:
            error.add_note(self.said())

    def said(self) -> str:
        """What it wrote."""
        return self.log.read_text()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(OSError, http.client.HTTPException):
            ask(self.port)
            return True
        return False


def until(true: Callable[[], object], explain: Callable[[], object] = str, seconds: float = 60) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.05)


def free_port() -> int:
    """A number that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        number: int = found.getsockname()[1]
        return number


def ask(port: int) -> dict[str, Any]:
    """One request. Raises OSError or HTTPException when it fails in any way."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"{response.status} {body[:2000]!r}")
        answer: dict[str, Any] = json.loads(body)
        return answer
    finally:
        connection.close()


@dataclass
class Load:
    """Requests, one after the other in each of a few threads, for the time of the `with` block."""

    port: int
    threads: int = 2
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    mixed: list[Any] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._end = threading.Event()
        self._running = [threading.Thread(target=self._ask) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._running:
            thread.join()

    def _ask(self) -> None:
        while not self._end.wait(0.03):
            try:
                answer = ask(self.port)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                continue
            if len(set(answer["versions"])) == 1:
                self.answers[answer["versions"][0]] += 1
            else:
                self.mixed.append(answer)

    def good(self) -> None:
        """Every request was answered, and wholly by one version."""
        assert not self.failed, f"{len(self.failed)} failed: {self.failed[:3]}"
        assert not self.mixed, f"{len(self.mixed)} mixed: {self.mixed[:3]}"


def versions(port: int, count: int = 12) -> set[str]:
    """The versions that answer now, one after the other."""
    answers = [ask(port)["versions"] for _ in range(count)]
    assert all(len(set(answer)) == 1 for answer in answers), answers
    return {answer[0] for answer in answers}


def children(pid: int) -> list[int]:
    """The children of a process."""
    found = []
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        found += [int(word) for word in path.read_text().split()]
    return found
