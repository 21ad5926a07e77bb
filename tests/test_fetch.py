"""Downloads: from a real server on this machine, with everything that can go wrong on the way."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import Siteswap
from siteswap import process, uv
from siteswap.errors import SiteswapError
from siteswap.fetch import Fetcher
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact
from wheelmaker import wheel


@dataclass
class Index:
    """A simple index (PEP 503) of a directory of wheels, that can be told to misbehave."""

    wheels: Path
    password: str = ""
    """When set, every request must carry user "me" and this password."""
    fail: list[str] = field(default_factory=list)
    """What to do with the next downloads: "503", "cut" half way, "404", "other" content."""
    proxied: list[str] = field(default_factory=list)
    """Whole URLs that we were asked for, as a proxy is."""
    served: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path
        if path.startswith("http://"):
            self.proxied.append(path)
            path = "/" + path.split("/", 3)[3]
        expected = "Basic " + base64.b64encode(f"me:{self.password}".encode()).decode()
        if self.password and request.headers.get("Authorization") != expected:
            request.send_response(401)
            request.send_header("WWW-Authenticate", "Basic")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if path.startswith("/simple/"):
            names = [item.name for item in self.wheels.iterdir()]
            links = "".join(f'<a href="/files/{name}">{name}</a>' for name in names)
            self._send(request, 200, f"<html><body>{links}</body></html>".encode(), "text/html")
            return
        content = (self.wheels / path.rpartition("/")[2]).read_bytes()
        # uv asks for parts of a wheel to read its metadata: only whole downloads are to be troubled.
        whole = request.command == "GET" and "Range" not in request.headers
        trouble = (
            self.fail.pop(0) if self.fail and whole and "siteswap" in request.headers["User-Agent"] else ""
        )
        if trouble in ("503", "404"):
            self._send(request, int(trouble), b"", "text/plain")
        elif trouble == "cut":
            request.send_response(200)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content[: len(content) // 2])
            request.close_connection = True
        else:
            self.served.append(path)
            body = content if trouble != "other" else b"x" * len(content)
            self._send(request, 200, body, "application/octet-stream")

    @staticmethod
    def _send(request: http.server.BaseHTTPRequestHandler, status: int, body: bytes, kind: str) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test downloaded is not here."""
    monkeypatch.setenv("SITESWAP_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def index(wheels: Path) -> Iterator[Index]:
    """A running index of the test's wheels, on the loopback interface."""
    found = Index(wheels)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.answer(self)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def demo(wheels: Path) -> Path:
    """One wheel on the index, of a size that arrives in several pieces."""
    return wheel(wheels, "demo", files={"demo.py": "", "demo_data.bin": bytes(range(256)) * 4000})


@pytest.mark.parametrize("trouble", [[], ["503", "503"], ["cut"], ["cut", "503", "cut"]])
def test_a_troubled_download_is_tried_again(
    siteswap: Siteswap, env: Path, index: Index, demo: Path, trouble: list[str]
) -> None:
    """A server that is busy, and a connection that breaks half way, only delay an install."""
    index.fail = list(trouble)
    siteswap("install", "-e", env, "--index-url", f"{index.url}/simple", "demo").ok()
    assert not index.fail
    assert siteswap("list", "-e", env, "--json").json[0]["name"] == "demo"


def test_another_file_than_was_locked_is_refused(env: Path, index: Index, demo: Path, tmp_path: Path) -> None:
    """What arrives is held against the hash while it arrives; the message names both hashes."""
    index.fail = ["other"]
    artifact = Artifact("demo", "1.0", "wheel", f"{index.url}/files/{demo.name}", {"sha256": "0" * 64})
    with pytest.raises(SiteswapError, match="not the one that was locked") as caught:
        Fetcher(FileSystem()).fetch(artifact, tmp_path / "file", lambda _: None)
    assert "0" * 64 in (caught.value.detail or "")


def test_what_is_not_there_is_said_at_once(index: Index, demo: Path, tmp_path: Path) -> None:
    """A file that the server does not have is not asked for again and again."""
    index.fail = ["404", "404"]
    artifact = Artifact("demo", "1.0", "wheel", f"{index.url}/files/{demo.name}", {})
    with pytest.raises(SiteswapError, match=r"demo 1\.0 cannot be downloaded"):
        Fetcher(FileSystem()).fetch(artifact, tmp_path / "file", lambda _: None)
    assert index.fail == ["404"]


@pytest.mark.parametrize("way", ["url", "netrc", "variable"])
def test_passwords_reach_the_downloads(
    siteswap: Siteswap, env: Path, index: Index, demo: Path, tmp_path: Path, way: str
) -> None:
    """Passwords in the index URL, ~/.netrc or UV_INDEX_URL serve the download too; none is written down."""
    index.password = "s3cret"
    plain = f"{index.url}/simple"
    secret = plain.replace("http://", "http://me:s3cret@")
    variables = {"HOME": str(tmp_path)}
    words: list[str] = ["--index-url", secret if way == "url" else plain]
    if way == "netrc":
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
        (tmp_path / ".netrc").chmod(0o600)
    elif way == "variable":
        words, variables["UV_INDEX_URL"] = [], secret
    siteswap("install", "-e", env, *words, "demo", env=variables).ok()
    written = [path.read_bytes() for path in (env / ".siteswap").rglob("*") if path.is_file()]
    assert not any(b"s3cret" in content for content in written)


def test_a_wrong_password_is_refused(siteswap: Siteswap, env: Path, index: Index, demo: Path) -> None:
    """A password that the index does not take ends in one clear refusal, without the password in it."""
    index.password = "s3cret"
    wrong = f"{index.url}/simple".replace("http://", "http://me:wr0ng@")
    ran = siteswap("install", "-e", env, "--index-url", wrong, "demo")
    assert ran.status == 1
    assert "wr0ng" not in ran.err + ran.out
    assert "Traceback" not in ran.err


def test_the_users_proxy_is_used(siteswap: Siteswap, env: Path, index: Index, demo: Path) -> None:
    """HTTP_PROXY is obeyed by the resolver and by the downloads."""
    variables = {"HTTP_PROXY": index.url, "http_proxy": index.url, "NO_PROXY": "", "no_proxy": ""}
    siteswap("install", "-e", env, "--index-url", "http://index.invalid/simple", "demo", env=variables).ok()
    assert f"http://index.invalid/files/{demo.name}" in index.proxied


def test_six_downloads_at_once(siteswap: Siteswap, env: Path, index: Index, wheels: Path) -> None:
    """Many wheels arrive together; each is asked for once."""
    names = [f"part{number}" for number in range(6)]
    for name in names:
        wheel(wheels, name)
    siteswap("install", "-e", env, "--index-url", f"{index.url}/simple", *names).ok()
    assert len({path for path in index.served if path.endswith(".whl")}) == 6


def test_the_resolver_takes_the_systems_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """As downloads do; unless the user says otherwise."""
    seen: list[str] = []

    def run(*_: Any, env: dict[str, str], **__: Any) -> process.Finished:
        seen.append(env["UV_NATIVE_TLS"])
        return process.Finished(0, "", "")

    monkeypatch.setattr(process, "run", run)
    monkeypatch.delenv("UV_NATIVE_TLS", raising=False)
    uv.run(["--version"])
    monkeypatch.setenv("UV_NATIVE_TLS", "0")
    uv.run(["--version"])
    assert seen == ["1", "0"]
