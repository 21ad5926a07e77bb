"""Servers that lie, change their minds or never end: refused in one line."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import shutil
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import hostile
from bench import Bench
from conftest import Ran, Siteswap
from crooked import Part, archive, parts_of, write
from hostile import FS, plain, refused, untouched
from siteswap import fetch
from siteswap.errors import SiteswapError
from siteswap.fetch import Fetcher
from siteswap.lockfile import Artifact


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.private_cache(tmp_path, monkeypatch)


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, siteswap: Siteswap) -> Bench:
    """One environment for all of these tests, with one distribution in it."""
    return hostile.inhabited(tmp_path_factory.getbasetemp() / Path(__file__).stem, siteswap)


class Server:
    """A server on this machine that answers as a function says, by http or https."""

    def __init__(self, tls: Path | None = None) -> None:
        self.answers: Callable[[http.server.BaseHTTPRequestHandler], None] = lambda _: None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):  # the other side may have seen enough
                    outer.answers(self)

            do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server by http."""
    found = Server()
    yield found
    found.close()


def send(request: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """An answer, with the right length unless `headers` say another."""
    request.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        if value:
            request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


def got(url: str, target: Path, content: bytes, size: int | None = None) -> None:
    """Fetch what should be `content`."""
    digest = {"sha256": hashlib.sha256(content).hexdigest()}
    Fetcher(FS).fetch(Artifact("w", "1.0", "wheel", url, digest, size), target, lambda _: None)


def test_redirect_to_a_place_without_encryption(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect from https to anything less is refused, however it is spelled; others are followed."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    tls = tmp_path / "tls.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tls,
         "-out", tmp_path / "c.pem",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls.write_bytes(tls.read_bytes() + (tmp_path / "c.pem").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c.pem"))
    safe = Server(tls)
    asked, where = list[str](), [""]

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path == "/start":
            send(request, b"", 302, Location=where[0])
        else:
            send(request, b"content")

    safe.answers = answer
    server.answers = lambda request: asked.append(request.path)
    try:
        for where[0] in (f"{server.url}/x", f"{server.url}/x".replace("http:", "HTTP:"), "ftp://h.invalid/x"):
            with pytest.raises(SiteswapError, match="redirects from https to"):
                got(f"{safe.url}/start", tmp_path / "file", b"content")
        where[0] = "//" + safe.url.partition("//")[2] + "/x"
        got(f"{safe.url}/start", tmp_path / "good", b"content")
        got(f"{safe.url}/x".replace("https:", "HTTPS:"), tmp_path / "good2", b"content")
    finally:
        safe.close()
    assert asked == []
    assert (tmp_path / "good").read_bytes() == b"content"


@pytest.mark.parametrize("announced", ["", "1000000000"])
def test_endless_bytes_end_where_the_lock_says(tmp_path: Path, server: Server, announced: str) -> None:
    """A server that sends more than the locked size is cut off there, not once the disk is full."""
    sent = list[int]()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        send(request, b"", Content_Length=announced)
        while len(sent) < 2000:
            request.wfile.write(bytes(1 << 20))
            sent.append(1)

    server.answers = answer
    with pytest.raises(SiteswapError, match="expected 1000 bytes, more than 1000 arrived"):
        got(f"{server.url}/w", tmp_path / "file", b"", size=1000)
    assert len(sent) < 100
    assert (tmp_path / "file").stat().st_size <= 1000


def test_trickle_without_end_is_given_up(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that sends a byte now and then, for ever, is not listened to for ever."""
    monkeypatch.setattr(fetch, "_PATIENCE", 0.5)

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        send(request, b"", Content_Length="100000")
        for _ in range(600):
            request.wfile.write(b"x")
            time.sleep(0.05)

    server.answers = answer
    begun = time.monotonic()
    with pytest.raises(SiteswapError, match="arrives too slowly"):
        got(f"{server.url}/w", tmp_path / "file", b"")
    assert time.monotonic() - begun < 10


def test_coding_and_type_that_a_server_claims_do_not_matter(tmp_path: Path, server: Server) -> None:
    """A file is what its hash says: a wrong type is passed over, and a coding is not undone, bomb or not."""
    packed = zlib.compress(bytes(50 << 20), 9)
    server.answers = lambda request: send(
        request, packed, Content_Type="text/html", Content_Encoding="deflate", Content_Disposition="a/../../x"
    )
    got(f"{server.url}/w", tmp_path / "file", packed, size=len(packed))
    assert (tmp_path / "file").read_bytes() == packed


def pages(server: Server, links: str, files: Mapping[str, list[bytes]]) -> None:
    """An index of one page, and files; of each, the next version with each whole download."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.path.rpartition("/")[2]
        if request.path == "/simple/w/":
            send(request, f"<html><body>{links}</body></html>".encode(), Content_Type="text/html")
        elif name in files:
            versions = files[name]
            mine = request.headers["User-Agent"] == "siteswap" and request.command == "GET"
            send(request, versions.pop(0) if mine and len(versions) > 1 else versions[0])
        else:
            send(request, b"", 404)

    server.answers = answer


def from_index(bench: Bench, server: Server) -> Ran:
    """Install `w` from the server; what is there already is known from elsewhere."""
    known = ("--find-links", bench.wheels)
    return bench.run("install", "--index-url", f"{server.url}/simple", *known, "w")


def test_file_that_changes_after_resolving(bench: Bench, server: Server) -> None:
    """An index that hands out another file than it announced changes nothing; both hashes are named."""
    name = "w-1.0-py3-none-any.whl"
    announced = hashlib.sha256(plain()).hexdigest()
    other = archive(parts_of("w", [Part("evil.py", b"evil\n")]))
    other_hash = hashlib.sha256(other).hexdigest()
    pages(server, f'<a href="/files/{name}#sha256={announced}">{name}</a>', {name: [other]})
    with untouched(bench):
        refused(from_index(bench, server), other_hash)


def test_links_that_are_no_files_of_an_index(bench: Bench, server: Server, tmp_path: Path) -> None:
    """Links to scripts are no files; one to a file of this machine brings that wheel, read like any other."""
    local = write(tmp_path / "local", "w", plain())
    links = "".join(
        f'<a href="{target}">w-1.0-py3-none-any.whl</a>'
        for target in ("javascript:alert(1)//w-1.0-py3-none-any.whl", "data:,w-1.0-py3-none-any.whl")
    )
    pages(server, links, {})
    with untouched(bench):
        refused(from_index(bench, server))
    pages(server, f'<a href="{local.as_uri()}">{local.name}</a>', {})
    from_index(bench, server).ok()
    assert (bench.site / "w.py").read_bytes() == b"x = 1\n"
    bench.run("rollback").ok()
