"""The application: routes, errors, what they share. ``serve`` runs it; the dashboard is mounted on it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from artesian import __version__
from artesian.model.document import DocumentError
from artesian.model.errors import (
    AlreadyOver,
    ArtesianError,
    AttemptUnknown,
    JobImpossible,
    NotExcluded,
    UnknownJob,
    UnknownNode,
)
from artesian.model.quota import Teams
from artesian.policy.base import Policy
from artesian.server import openapi
from artesian.server.auth import Auth
from artesian.server.board import BadCursor
from artesian.server.config import StateDir
from artesian.server.fleet_board import FleetBoard
from artesian.server.gate import Gate
from artesian.server.ledger import Ledger
from artesian.server.limits import Buckets, Limits
from artesian.server.metrics import Metrics
from artesian.server.mirror import Mirror, QueueFull
from artesian.server.problems import Problem, answer_problem, of_document, of_status, of_validation
from artesian.server.pulse import pulse
from artesian.server.routes import events, fleet, health, jobs, login, logs, tokens, waterfall
from artesian.server.service import KeyReused, NotYours, Service
from artesian.server.streams import Streams
from artesian.store import Journal, StoreError, UnstorableRecord

if TYPE_CHECKING:
    from artesian.server.oidc import Oidc

_STATUS: dict[type[ArtesianError], tuple[int, str]] = {
    UnknownJob: (404, "unknown-job"),
    UnknownNode: (404, "unknown-node"),
    NotExcluded: (409, "not-excluded"),
    AttemptUnknown: (404, "unknown-attempt"),
    AlreadyOver: (409, "already-over"),
    JobImpossible: (422, "job-impossible"),
    KeyReused: (422, "idempotency-key-reused"),
    BadCursor: (422, "invalid-parameter"),
    NotYours: (403, "forbidden"),
    UnstorableRecord: (422, "invalid-document"),
}
"""The status and the kind of each error that a caller can bring about."""
_RETRY_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an application is made of. ``hosts``: names that it is called by, beside loopback."""

    open_journal: Callable[[], Journal]
    policy: Policy
    dir: StateDir
    auth: Auth
    wake: Callable[[], object]
    limits: Limits = field(default_factory=Limits)
    hosts: Sequence[str] = ()
    oidc: "Oidc | None" = None
    teams: Teams = field(default_factory=Teams)


def create_app(parts: Parts) -> FastAPI:
    """Return the application. Its state is loaded when it starts up."""
    mirror = Mirror(parts.open_journal, parts.policy, wake=parts.wake, teams=parts.teams)
    streams = Streams(most=parts.limits.streams)
    service = Service(
        mirror=mirror, dir=parts.dir, limits=parts.limits, fleet=FleetBoard(mirror, parts.teams)
    )
    ledger = Ledger(mirror, parts.dir)
    metrics = Metrics(mirror, service.fleet, ledger, cycles=parts.dir.cycles)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await mirror.open()
        try:
            async with pulse(metrics.observe_lag):
                yield
        finally:
            streams.close()
            await mirror.close()

    app = FastAPI(
        title="artesian",
        version=__version__,
        summary="Find, schedule and keep productive the AI compute you already own.",
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
        docs_url=None,  # its pages load their scripts from elsewhere
        redoc_url=None,
    )
    app.state.auth, app.state.buckets = parts.auth, Buckets(parts.limits.requests_per_s, parts.limits.burst)
    app.state.service, app.state.ledger, app.state.streams = service, ledger, streams
    app.state.metrics, app.state.oidc = metrics, parts.oidc
    for module in (jobs, logs, events, fleet, waterfall, tokens):
        app.include_router(module.router, prefix="/api/v1", responses=openapi.REFUSALS)
    app.include_router(health.router)
    app.include_router(login.router, responses=openapi.REFUSALS)
    _handle_errors(app)
    app.add_middleware(Gate, limits=parts.limits, hosts=tuple(parts.hosts), observe=metrics.observe)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def _handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(Problem, answer_problem)
    app.add_exception_handler(ArtesianError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(Exception, _answer_bug)


async def _answer_error(request: Request, error: Exception) -> Response:
    del request
    return problem_of(error).response()


def problem_of(error: Exception) -> Problem:
    """Return the problem that an error is told as."""
    match error:
        case Problem():
            return error
        case DocumentError():
            return of_document(error)
        case RequestValidationError():
            return of_validation(error)
        case HTTPException():
            return of_status(error)
        case QueueFull():
            headers = {"Retry-After": str(_RETRY_S)}
            return Problem(429, "queue-full", str(error), hint=error.hint, headers=headers)
    for cls, (status, kind) in _STATUS.items():
        if isinstance(error, cls):
            return Problem(status, kind, str(error), hint=error.hint)
    if isinstance(error, StoreError):
        headers = {"Retry-After": str(_RETRY_S)}
        return Problem(503, "store-unavailable", str(error), hint=error.hint, headers=headers)
    assert isinstance(error, ArtesianError)
    return Problem(400, "refused", str(error), hint=error.hint)


async def _answer_bug(request: Request, error: Exception) -> Response:
    """Say that it is our fault, and nothing else: what broke is in the log, not for everybody."""
    del request, error
    return Problem(500, "internal-error", "the server failed; its log says where").response()


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description="Errors are application/problem+json (RFC 9457), lists have cursors, streams resume.",
            routes=app.routes,
        )
        app.openapi_schema = openapi.completed(found)
    return app.openapi_schema


__all__ = ["Parts", "create_app", "problem_of"]
