"""``artesian serve``: the application in uvicorn, with the driver's process beside it."""

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import uvicorn
from fastapi import FastAPI

from artesian.model.errors import ArtesianError
from artesian.server.app import Parts, create_app
from artesian.server.auth import Auth, OpenListener
from artesian.server.bell import ring
from artesian.server.config import StateDir
from artesian.server.keeper import Keeper
from artesian.server.limits import Limits
from artesian.server.oidc_settings import OidcSettings, session_key
from artesian.server.rules import Rules
from artesian.server.streams import Streams
from artesian.server.tokens import Principal, Role, Tokens
from artesian.store import open_journal

if TYPE_CHECKING:
    from artesian.server.oidc import Oidc

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_END_S = 10.0
"""How long requests under way may take when the server is told to stop."""
_SOCKET_BYTES = 2**20
"""The largest message that a page may send: a click, or a file of jobs to simulate."""
_SWITCH_S = 0.001
"""How long another thread may keep the event loop from running: Python's 5 ms, several times in a request, add up."""


class CannotListen(ArtesianError):  # noqa: N818 - reads as what it is
    """The address cannot be listened on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where the server listens, and by which names it is called. ``port`` 0: any that is free."""

    host: str = "127.0.0.1"
    port: int = 8230
    allowed_hosts: tuple[str, ...] = ()
    certificate: str | None = None
    key: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def open(self) -> socket.socket:
        """Return the socket, bound. Raises CannotListen."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # Named TCP, so that asyncio turns Nagle's algorithm off: it would hold every answer back for 40 ms.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.host, self.port))
        except OSError as error:
            sock.close()
            raise CannotListen(
                f"{self.host}:{self.port}: expected an address to listen on, got: {error.strerror or error}",
                hint="artesian serve --port 0 takes any port that is free",
            ) from error
        sock.set_inheritable(False)
        return sock


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """All that a server is told. ``user`` is who everybody is on loopback while there are no tokens.

    ``has_dashboard``: with pages for a browser, where NiceGUI is installed.
    ``database`` is the URL of the PostgreSQL database that it shares with others; None: SQLite in ``state``.
    """

    state: StateDir
    user: str
    listener: Listener = field(default_factory=Listener)
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=Limits)
    is_log_json: bool = False
    has_driver: bool = True
    has_dashboard: bool = True
    database: str | None = None
    oidc: OidcSettings | None = None


def run(serving: Serving, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` gets the URL. Raises OpenListener, CannotListen, StoreError."""
    serving.state.create()
    _log_to_stderr(serving.is_log_json)
    oidc = _sign_on(serving)
    auth = authenticator(serving, oidc)
    sys.setswitchinterval(_SWITCH_S)
    app = create_app(
        Parts(
            open_journal=lambda: open_journal(serving.database or serving.state.journal),
            policy=serving.rules.make_policy(),
            teams=serving.rules.teams,
            centers=serving.rules.centers,
            dir=serving.state,
            auth=auth,
            wake=lambda: ring(serving.state.bell),
            limits=serving.limits,
            hosts=(*serving.listener.allowed_hosts, *_public_hosts(serving)),
            oidc=oidc,
        )
    )
    if serving.has_dashboard and find_spec("nicegui") is not None:
        from artesian.server.ui.dashboard import mount

        mount(app)
    with serving.listener.open() as sock:
        # Quicker by a third per request, where it is installed; NiceGUI brings it along on Linux.
        factory = import_module("uvloop").new_event_loop if find_spec("uvloop") is not None else None
        with asyncio.Runner(loop_factory=factory) as runner:
            try:
                runner.run(_serve(serving, app, sock, ready))
            finally:
                auth.tokens.close()


def _sign_on(serving: Serving) -> "Oidc | None":
    if serving.oidc is None:
        return None
    from artesian.server.oidc import Oidc

    if serving.database is None:
        return Oidc(serving.oidc, session_key(serving.state.session_key))
    from artesian.server.postgres_tokens import PostgresTokenStore

    with closing(PostgresTokenStore(serving.database)) as store:
        return Oidc(serving.oidc, store.signing_key())


def _public_hosts(serving: Serving) -> list[str]:
    host = None if serving.oidc is None else urlsplit(serving.oidc.public_url).hostname
    return [] if host is None else [host]


def authenticator(serving: Serving, oidc: "Oidc | None" = None) -> Auth:
    """Return what finds out who calls. Raises OpenListener where everybody could come in from elsewhere."""
    tokens = Tokens(serving.database or serving.state.tokens)
    if oidc is not None:  # who sets it up means people to log in, on loopback behind a proxy as well
        return Auth(tokens=tokens, sign_on=oidc.session)
    if serving.listener.is_loopback:
        return Auth(tokens=tokens, embedded=Principal(user=serving.user, role=Role.ADMIN))
    if not tokens.is_any:
        raise OpenListener(
            f"host {serving.listener.host}: expected a token to be there before others can reach the server, got none",
            hint="artesian token create --user NAME --role admin makes the first one",
        )
    return Auth(tokens=tokens)


class _Server(uvicorn.Server):
    """Ends the streams when it is told to stop: uvicorn would wait for them for ever."""

    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        self._streams.close()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as the word to stop. uvicorn would raise them again at its own end, before the
        driver is told."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def _serve(serving: Serving, app: FastAPI, sock: socket.socket, ready: Callable[[str], None]) -> None:
    listener = serving.listener
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(_END_S),
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=2**16,
        ssl_certfile=listener.certificate,
        ssl_keyfile=listener.key,
        ws="auto" if serving.has_dashboard else "none",
        ws_max_size=_SOCKET_BYTES,
        proxy_headers=False,
    )
    server = _Server(config, app.state.streams)
    keeper = Keeper(
        serving.state,
        serving.rules,
        database=serving.database,
    )
    if serving.has_driver:
        keeper.start()
    try:
        task = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started:
            scheme = "https" if listener.certificate else "http"
            host, port = sock.getsockname()[:2]
            ready(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        await task
    finally:
        await keeper.stop()
    failure = app.state.service.mirror.failure
    if failure is not None:
        raise failure


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told = {
            "at_s": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(told).decode()


def _log_to_stderr(is_json: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        _JsonLines() if is_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
