"""For probes and for Prometheus: at the root, where they look."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from artesian.server.auth import allowed
from artesian.server.metrics import CONTENT_TYPE, Metrics
from artesian.server.routes.common import TheService, TheStreams, answer
from artesian.server.tokens import Principal, Role

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def is_alive() -> Response:
    """Answer at all. Needs no token, tells nothing."""
    return answer({"status": "ok"})


@router.get("/readyz")
async def is_ready(service: TheService, streams: TheStreams) -> Response:
    """Answer 200 while the server follows the journal, else 503. Needs no token."""
    is_good = service.mirror.failure is None and not streams.is_closing
    return answer({"status": "ok" if is_good else "unavailable"}, 200 if is_good else 503)


@router.get("/metrics")
async def show_metrics(
    request: Request, who: Annotated[Principal, Depends(allowed(Role.VIEWER))]
) -> Response:
    """Show the figures of the server in the format of OpenMetrics."""
    del who
    metrics: Metrics = request.app.state.metrics
    return Response(await metrics.page(), media_type=CONTENT_TYPE)
