"""What every request passes before anything reads it: known host, same origin, size, and a clock that runs.

Plain ASGI rather than Starlette's BaseHTTPMiddleware, which would buffer streams.
"""

import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artesian.server.limits import Limits
from artesian.server.problems import Problem

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_METHODS = _READING | {"POST", "PUT", "PATCH", "DELETE"}
API = "/api/v1"
BULK_PATH = "/api/v1/jobs/bulk"
Observe = Callable[[str, str, int, float], None]
"""Gets method, route, status and seconds of every answer."""


class Gate:
    """Wraps the application. ``hosts`` are the names that it is called by, beside loopback; ``*``: any."""

    def __init__(self, app: ASGIApp, *, limits: Limits, hosts: Sequence[str], observe: Observe) -> None:
        self._app = app
        self._limits = limits
        self._hosts = frozenset({*hosts, *_LOOPBACK})
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._fault(scope, headers)
        if scope["type"] == "websocket":
            if problem is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        begun_s = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _harden(MutableHeaders(scope=message))
            await send(message)

        try:
            if problem is not None:
                await problem.response()(scope, receive, watched)
            else:
                await self._app(scope, _Limited(receive, self._most(scope)), watched)
        finally:
            self._observe(_method(scope), _route(scope), status, time.perf_counter() - begun_s)

    def _most(self, scope: Scope) -> int:
        return self._limits.bulk_bytes if scope["path"] == BULK_PATH else self._limits.body_bytes

    def _fault(self, scope: Scope, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if "*" not in self._hosts and _hostname(host) not in self._hosts:
            # A name that leads here and is not ours: a page of somebody else's may have been told to use it.
            return Problem(
                421,
                "misdirected-request",
                f"host: expected {' or '.join(sorted(self._hosts))}, got {host!r}",
                hint="artesian serve --allow-host NAME lets the server be called by another name",
            )
        origin = headers.get("origin")
        is_changing = scope["type"] == "websocket" or scope["method"] not in _READING
        if is_changing and origin is not None and urlsplit(origin).netloc != host:
            return Problem(403, "cross-origin", f"origin: expected {host}, got {origin!r}")
        if is_changing and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return Problem(403, "cross-origin", "a page of another site cannot change anything here")
        length = headers.get("content-length")
        if scope["type"] == "http" and length is not None:
            if not (length.isascii() and length.isdigit()):
                return Problem(400, "bad-request", f"content-length: expected a number, got {length!r}")
            if int(length) > self._most(scope):
                return too_large(self._most(scope))
        return None


class _Limited:
    """Receives a body up to a size, whatever its header said."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = self._most = most

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise too_large(self._most)
        return message


def too_large(most: int) -> Problem:
    """Return the problem of a body that is too large."""
    return Problem(
        413,
        "content-too-large",
        f"body: expected at most {most} bytes, got more",
        hint="put data into files, and name them",
    )


def _route(scope: Scope) -> str:
    """Return the route's own path, with the names of its parameters: what is asked for has no end of forms."""
    path: str = getattr(scope.get("route"), "path", "other")
    is_below = scope["path"].startswith(API) and path.startswith("/") and not path.startswith(API)
    return f"{API}{path}" if is_below else path


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "other"


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _harden(headers: MutableHeaders) -> None:
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault(
        "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
    )  # data, no page
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Cache-Control", "no-store")
