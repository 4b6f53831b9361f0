"""A server: in this process on an event loop of its own, or as ``artesian serve`` beside the tests."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from artesian.client import Client
from artesian.kernel.state import Record
from artesian.model.fleet import Node
from artesian.policy.registry import policy
from artesian.server.app import Parts, create_app
from artesian.server.auth import Auth
from artesian.server.config import StateDir
from artesian.server.limits import Limits
from artesian.server.tokens import Principal, Role, Tokens
from artesian.store import SqliteJournal
from builders import a_node, joined
from cli_harness import TIMEOUT_S, Cli, Running, until

T = TypeVar("T")
ADMIN = Principal(user="root", role=Role.ADMIN)
JOB = {"name": "tiny", "devices": 1, "workers": 0, "command": ["true"], "workdir": "/"}


class Loop(httpx.BaseTransport):
    """Runs an application, and its start and end, on an event loop in a thread; requests go to it without a socket."""

    def __init__(self, app: FastAPI, host: str = "127.0.0.1") -> None:
        self.app = app
        self._host = host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._lifespan = app.router.lifespan_context(app)
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False, client=(host, 50000))
        self.wait(self._lifespan.__aenter__())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> tuple[int, httpx.Headers, bytes]:
            body = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
            response = await self._inner.handle_async_request(body)
            content = b"".join([piece async for piece in response.aiter_raw()])
            return response.status_code, response.headers, content

        status, headers, content = self.wait(ask())
        return httpx.Response(status, headers=headers, content=content, request=request)

    def end(self) -> None:
        """Shut the application down, and stop the loop."""
        self.wait(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()


class Served:
    """An application on a state folder, without a driver: what waits goes on waiting."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits | None = None,
        is_open: bool = True,
        centers: Mapping[str, str] | None = None,
    ) -> None:
        self.state = StateDir(folder)
        self.state.create()
        self.tokens = Tokens(self.state.tokens)
        self.app = create_app(
            Parts(
                open_journal=lambda: SqliteJournal.open(self.state.journal),
                policy=policy("fifo"),
                dir=self.state,
                auth=Auth(tokens=self.tokens, embedded=ADMIN if is_open else None),
                wake=lambda: None,
                limits=limits or Limits(),
                centers=centers or {},
            )
        )
        self.loop = Loop(self.app)
        self.http = httpx.Client(transport=self.loop, base_url="http://127.0.0.1")

    def client(self, token: str | None = None) -> Client:
        """Return a client of it."""
        return Client("http://127.0.0.1", token=token, transport=self.loop)

    def token(self, role: str, *, user: str = "", team: str | None = None) -> str:
        """Make a token, and return its secret."""
        return self.tokens.create(user=user or role, role=Role(role), team=team).secret

    def tell(self, *records: Record) -> None:
        """Let the journal have these records, as from a driver, and the server know them."""
        with SqliteJournal.open(self.state.journal) as journal:
            seq = journal.append(records)
        self.loop.wait(self.app.state.service.mirror.beyond(seq - 1))

    def end(self) -> None:
        """Shut it down."""
        self.http.close()
        self.loop.end()


@contextmanager
def a_server(
    folder: Path,
    fleet: Sequence[Node] = (a_node(),),
    *,
    limits: Limits | None = None,
    is_open: bool = True,
    centers: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """A server that knows of the nodes of ``fleet``; ``centers`` are those of its pools."""
    served = Served(folder, limits=limits, is_open=is_open, centers=centers)
    try:
        if fleet:
            served.tell(*(joined(node, at_s=1.0) for node in fleet))
        yield served
    finally:
        served.end()


class RealServer:
    """``artesian serve`` in a process, with its driver, on the state folder of a command line's harness."""

    def __init__(self, cli: Cli, *, port: int = 0) -> None:
        self.cli = cli
        self.running: Running = cli.start("serve", "--port", str(port))
        self.url = until(lambda: self.running.stdout.strip() or self._died())

    def _died(self) -> str:
        assert self.running.process.poll() is None, self.running.stderr
        return ""

    def stop(self) -> int:
        """Tell it to stop, and return its exit code."""
        self.running.process.terminate()
        return self.running.process.wait(TIMEOUT_S)
