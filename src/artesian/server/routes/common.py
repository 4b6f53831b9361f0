"""What all routes share."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Path, Query, Request
from starlette.responses import Response

from artesian.server.auth import allowed
from artesian.server.ledger import Ledger
from artesian.server.service import Service
from artesian.server.streams import Streams
from artesian.server.tokens import Principal, Role

Viewer = Annotated[Principal, Depends(allowed(Role.VIEWER))]
Member = Annotated[Principal, Depends(allowed(Role.MEMBER))]
Operator = Annotated[Principal, Depends(allowed(Role.OPERATOR))]
Admin = Annotated[Principal, Depends(allowed(Role.ADMIN))]
JobName = Annotated[
    str,
    Path(
        description="A job's id, the beginning of it, or a name; of several jobs of one name the latest.",
        min_length=1,
        max_length=200,
    ),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most rows on the page.")]
Cursor = Annotated[str | None, Query(max_length=300, description="`next` of the page before.")]

_encode = msgspec.json.Encoder().encode


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``value`` as JSON."""
    return Response(_encode(value), status, headers=headers, media_type="application/json")


# Coroutines, though they wait for nothing: FastAPI would run plain functions on a thread.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


async def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


TheService = Annotated[Service, Depends(_service)]
TheLedger = Annotated[Ledger, Depends(_ledger)]
TheStreams = Annotated[Streams, Depends(_streams)]


def shows(name: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of a good answer: the schema is the one with this name."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    content = {"application/json": {"schema": schema}}
    return {status: {"description": f"{name}, see its schema.", "content": content}}
