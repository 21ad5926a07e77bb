"""Bring files here by URL or path, checked by hash while they arrive."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from siteswap.errors import Kind, SiteswapError
from siteswap.fs import FileSystem
from siteswap.lockfile import Artifact

_CHUNK = 1 << 18
_ATTEMPTS = 4
_CONNECT_TIMEOUT = 15.0
_READ_TIMEOUT = 60.0
_PATIENCE = 120.0
_SLOWEST = 1000
"""Bytes a second that a download must have brought on the average, once our patience is over."""
_INDEX_VARIABLES = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
)

Tick = Callable[[int], None]


class Fetcher:
    """Fetches artifacts, from several threads at once.

    Proxies, certificates and passwords come from where pip and uv users put
    them: the proxy variables, SSL_CERT_FILE / REQUESTS_CA_BUNDLE or the system's
    trust store, ~/.netrc, and user:password in the index URLs.
    """

    def __init__(self, fs: FileSystem, options: Sequence[str] = ()) -> None:
        self._fs = fs
        self._credentials = _credentials(options)
        self._cached_session: Any = None

    def fetch(self, artifact: Artifact, target: Path, tick: Tick) -> dict[str, str]:
        """Write the artifact to `target`; returns its hashes by algorithm, sha256 among them.

        Raises SiteswapError (requirement) when it cannot be had, or its size or
        any known hash differs. `tick` is told of bytes as they arrive.
        """
        if "://" not in artifact.location:
            return self._local(artifact, target, tick)
        if urlsplit(artifact.location).scheme.lower() not in ("http", "https"):
            where = without_password(artifact.location)
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"{artifact.title} is to come from {where}: neither http nor https",
                hint="name a web address or a file",
            )
        problem: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.5 * 2**attempt)
                self._fs.unlink(target)
            try:
                return self._remote(artifact, target, tick)
            except OSError as error:  # requests' errors are OSErrors, and so is a lost connection half way
                problem = error
                response = getattr(error, "response", None)
                if response is not None and response.status_code < 500 and response.status_code != 429:
                    break
        raise SiteswapError(
            Kind.REQUIREMENT,
            f"{artifact.title} cannot be downloaded from {without_password(artifact.location)}",
            hint="check the connection, and proxy or password settings",
            detail=str(problem),
        ) from problem

    def _remote(self, artifact: Artifact, target: Path, tick: Tick) -> dict[str, str]:
        parts = urlsplit(artifact.location)
        auth = self._credentials.get(parts.netloc.rpartition("@")[2])
        with self._session().get(
            artifact.location, stream=True, auth=auth, timeout=(_CONNECT_TIMEOUT, _READ_TIMEOUT)
        ) as response:
            response.raise_for_status()
            return self._take(artifact, target, _pieces(artifact, response), tick)

    def _local(self, artifact: Artifact, target: Path, tick: Tick) -> dict[str, str]:
        try:
            with self._fs.open(Path(artifact.location)) as stream:
                return self._take(artifact, target, iter(lambda: stream.read(_CHUNK), b""), tick)
        except OSError as error:
            raise SiteswapError(
                Kind.REQUIREMENT,
                f"{artifact.title}: cannot read {artifact.location}: {error.strerror}",
                hint="put the file back, or name another",
            ) from error

    def _take(self, artifact: Artifact, target: Path, chunks: Iterator[bytes], tick: Tick) -> dict[str, str]:
        digests = {
            name: hashlib.new(name)
            for name in {"sha256", *artifact.hashes}
            if name in hashlib.algorithms_available and not name.startswith("shake")  # no hash of one length
        }
        size = 0

        def hashed() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                size += len(chunk)
                if artifact.size is not None and size > artifact.size:
                    raise _wrong_size(artifact, f"more than {artifact.size}")
                for digest in digests.values():
                    digest.update(chunk)
                tick(len(chunk))
                yield chunk

        self._fs.write_stream(target, hashed())
        found = {name: digest.hexdigest() for name, digest in digests.items()}
        for name, expected in artifact.hashes.items():
            if found.get(name) != expected.lower():
                raise SiteswapError(
                    Kind.REQUIREMENT,
                    f"{artifact.title}: the file at {without_password(artifact.location)} "
                    "is not the one that was locked",
                    hint="nothing was installed; if the index is trusted, resolve again",
                    detail=f"expected {name} {expected}\n   found {name} {found.get(name)}",
                )
        if artifact.size is not None and size != artifact.size:
            raise _wrong_size(artifact, str(size))
        return found

    def _session(self) -> Any:
        if self._cached_session is None:
            self._cached_session = _new_session()
        return self._cached_session


def _wrong_size(artifact: Artifact, arrived: str) -> SiteswapError:
    return SiteswapError(
        Kind.REQUIREMENT,
        f"{artifact.title}: expected {artifact.size} bytes, {arrived} arrived",
        hint="try again; if it persists, resolve again",
    )


def _pieces(artifact: Artifact, response: Any) -> Iterator[bytes]:
    """The file as it is on the server, as it arrives; not unpacked, whatever the server says of its coding.

    Raises OSError where the connection breaks, SiteswapError (requirement) for a trickle without end.
    """
    from urllib3.exceptions import HTTPError

    begun, count = time.monotonic(), 0
    try:
        while piece := response.raw.read1(_CHUNK, decode_content=False):
            count += len(piece)
            seconds = time.monotonic() - begun
            if seconds > _PATIENCE and count < seconds * _SLOWEST:
                raise SiteswapError(
                    Kind.REQUIREMENT,
                    f"{artifact.title} arrives too slowly: {count} bytes in {seconds:.0f} s",
                    hint="try again later, or name another index",
                )
            yield piece
    except HTTPError as error:
        raise OSError(str(error)) from error


def _new_session() -> Any:
    # Imported here: most commands fetch nothing, and these take longer to import than they run.
    import ssl

    import requests
    import truststore
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(
                *args, **kwargs, ssl_context=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            )

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            return super().proxy_manager_for(
                proxy, **kwargs, ssl_context=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            )

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target = super().get_redirect_target(resp)
            there = urlsplit(urljoin(resp.url, target.strip())).scheme.lower() if target else "https"
            if there != "https" and resp.url.lower().startswith("https:"):
                raise SiteswapError(
                    Kind.REQUIREMENT,
                    f"{without_password(resp.url)} redirects from https to {there}: refused",
                    hint="name an index that stays with https",
                )
            return target

    session = Session()
    retry = Retry(total=5, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
    session.mount("https://", Adapter(max_retries=retry, pool_maxsize=16))
    session.mount("http://", HTTPAdapter(max_retries=retry, pool_maxsize=16))
    session.headers["User-Agent"] = "siteswap"
    # Without this the server may compress in transit, and sizes would not be those of the file.
    session.headers["Accept-Encoding"] = "identity"
    bundle = (
        os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    )
    if bundle:
        session.verify = bundle
    return session


def _credentials(options: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """user:password of every index URL we know of, by host."""
    urls = [word for word in options if "://" in word]
    for name in _INDEX_VARIABLES:
        urls += os.environ.get(name, "").split()
    found = {}
    for url in urls:
        parts = urlsplit(url.partition("=")[2] if "=" in url.partition("://")[0] else url)
        if parts.username:
            host = parts.netloc.rpartition("@")[2]
            found[host] = (unquote(parts.username), unquote(parts.password or ""))
    return found


def without_password(url: str) -> str:
    """The URL as it may be shown and written down."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
