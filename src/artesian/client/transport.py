"""HTTP to one server: tries again what may be tried again, and turns refusals into errors."""

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import httpx
import msgspec

from artesian import __version__
from artesian.client.errors import Refused, Unreachable, error_of

_T = TypeVar("_T")
_TRIES = 4
_WAIT_S = 0.25
_MOST_WAIT_S = 10.0
_SILENCE_S = 45.0
"""A stream tells at least every 15 s that it lives."""
_LOST_S = 30.0
"""How long a stream may be cut off before its reader gives up."""
_COME_BACK = (429, 502, 503, 504)


class Transport:
    """Sends requests to ``server``, with a token if there is one."""

    def __init__(
        self,
        server: str,
        token: str | None,
        timeout_s: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"User-Agent": f"artesian/{__version__}"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self.server = server
        try:
            self._http = httpx.Client(
                base_url=f"{server.rstrip('/')}/api/v1",
                headers=headers,
                timeout=timeout_s,
                transport=transport,
            )
            is_web = self._http.base_url.scheme in ("http", "https") and bool(self._http.base_url.host)
        except httpx.InvalidURL:
            is_web = False
        if not is_web:
            raise Unreachable(
                f"server: expected an address such as https://artesian.example, got {server!r}",
                hint="ARTESIAN_SERVER, or server in artesian.toml",
            )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, kind: type[_T], path: str, **query: Any) -> _T:
        """Read, and decode the answer as ``kind``."""
        return self._decode(kind, self._send("GET", path, query=query))

    def post(
        self,
        kind: type[_T],
        path: str,
        *,
        body: bytes = b"",
        media_type: str = "application/json",
        source: str = "job",
        **query: Any,
    ) -> _T:
        """Change something. The same request may reach the server twice, and counts once."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        if body:
            headers["Content-Type"] = media_type
        response = self._send("POST", path, query=query, body=body, headers=headers, source=source)
        return self._decode(kind, response) if response.content else None  # type: ignore[return-value]  # a dry run

    def delete(self, kind: type[_T], path: str) -> _T:
        """Take something away."""
        return self._decode(kind, self._send("DELETE", path))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        source: str = "job",
    ) -> httpx.Response:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        wait_s = _WAIT_S
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                response = self._http.request(method, path, params=given, content=body, headers=headers)
            except httpx.TransportError as error:
                if not tries_left:
                    raise self._unreachable(error) from error
            else:
                if response.is_success:
                    return response
                if response.status_code not in _COME_BACK or not tries_left:
                    raise self._refusal(response, source)
                with suppress(KeyError, ValueError):
                    wait_s = max(wait_s, float(response.headers["retry-after"]))
            time.sleep(min(wait_s, _MOST_WAIT_S))
            wait_s *= 2
        raise AssertionError("the last try returns or raises")

    def events(self, path: str) -> Iterator[tuple[str, bytes]]:
        """Yield name and data of server-sent events; goes on where it was when it is cut off."""
        last_id: str | None = None
        lost_s: float | None = None
        while True:
            headers = {"Accept": "text/event-stream"}
            if last_id is not None:
                headers["Last-Event-ID"] = last_id
            try:
                timeout = httpx.Timeout(self._http.timeout.connect or 5.0, read=_SILENCE_S)
                with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                    if not response.is_success:
                        response.read()
                        raise self._refusal(response, "job")
                    for id_, name, data in _parsed(response.iter_bytes()):
                        last_id, lost_s = id_, None
                        yield name, data
            except httpx.TransportError as error:
                if lost_s is not None and time.monotonic() - lost_s > _LOST_S:
                    raise self._unreachable(error) from error
            except Refused as error:
                if error.status not in _COME_BACK:
                    raise
                if lost_s is not None and time.monotonic() - lost_s > _LOST_S:
                    raise
            lost_s = lost_s or time.monotonic()
            time.sleep(_WAIT_S)

    def _decode(self, kind: type[_T], response: httpx.Response) -> _T:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.DecodeError, ValueError) as error:
            raise Unreachable(
                f"server {self.server}: expected an answer of artesian {__version__}, got another one: {error}",
                hint="does the address lead to artesian, and to the same version?",
            ) from error

    def _refusal(self, response: httpx.Response, source: str) -> Exception:
        problem: dict[str, Any] = {}
        with suppress(msgspec.DecodeError):
            problem = msgspec.json.decode(response.content, type=dict[str, Any])
        if "detail" not in problem:
            problem["detail"] = (
                f"server {self.server}: expected an answer of artesian, got HTTP status {response.status_code}"
            )
        return error_of(response.status_code, problem, source)

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        said = str(error) or type(error).__name__
        return Unreachable(
            f"server {self.server} cannot be reached: {said}",
            hint="does artesian serve run there? ARTESIAN_SERVER names the server",
        )


def _parsed(pieces: Iterator[bytes]) -> Iterator[tuple[str, str, bytes]]:
    """Yield id, name and data of each event. Lines are split at line feeds only, as ours are."""
    rest = b""
    for piece in pieces:
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
            if b"event" in fields:
                yield fields[b"id"].decode(), fields[b"event"].decode(), fields[b"data"]
