"""The journal as a stream: what happened and what was decided, for dashboards and for audits."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from artesian.server.problems import Problem
from artesian.server.routes.common import TheService, TheStreams, Viewer
from artesian.server.streams import events

router = APIRouter(tags=["events"])

_MOST = 2**53 - 1


@router.get(
    "/events",
    responses={200: {"description": "Events without end.", "content": {"text/event-stream": {}}}},
)
async def stream_events(
    service: TheService,
    streams: TheStreams,
    who: Viewer,
    after: Annotated[
        int | None,
        Query(ge=0, le=_MOST, description="Number of a record; what is behind it. Else: from now on."),
    ] = None,
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    """Follow the journal from a record on. The `id` of an event is its record's number."""
    if last is not None:
        if not (last.isascii() and last.isdigit()):
            raise Problem(
                422, "invalid-parameter", f"Last-Event-ID: expected a record's number, got {last!r}"
            )
        after = int(last)
    newest = service.mirror.seq
    if after is not None and after > newest:
        raise Problem(422, "invalid-parameter", f"after: expected at most {newest}, got {after}")
    return streams.response(events(service.mirror, streams, who, newest if after is None else after))
