"""What jobs print: in pieces, and as it comes."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from artesian.model.views import LogPage
from artesian.server.finding import known_attempt
from artesian.server.follow import PIECE_BYTES, Position, log_file, read_piece
from artesian.server.problems import Problem
from artesian.server.routes.common import JobName, TheService, TheStreams, Viewer, answer, shows
from artesian.server.streams import follow

router = APIRouter(prefix="/jobs", tags=["logs"])

_MOST_OFFSET = 2**53 - 1
Attempt = Annotated[int | None, Query(ge=1, le=10**6, description="Number of the attempt; the latest.")]
Worker = Annotated[int | None, Query(ge=0, le=10**6, description="Rank of a worker; the first.")]
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=100, description="Go on behind this event.")
]


@router.get("/{job}/logs", responses=shows("LogPage"))
async def read_logs(
    job: JobName,
    service: TheService,
    who: Viewer,
    attempt: Attempt = None,
    worker: Worker = None,
    is_err: Annotated[bool, Query(description="stderr rather than stdout.")] = False,
    offset: Annotated[int, Query(ge=0, le=_MOST_OFFSET)] = 0,
    limit: Annotated[int, Query(ge=1, le=PIECE_BYTES)] = PIECE_BYTES,
) -> Response:
    """Read a piece of what an attempt printed; `data` is base64."""
    record = service.find(job, who)
    epoch = known_attempt(record, attempt)
    path = log_file(service.dir.jobs, record.job.id, epoch, worker=worker, is_err=is_err)
    data = await asyncio.to_thread(read_piece, path, offset, limit)
    page = LogPage(
        job=record.job.id,
        attempt=epoch,
        offset=offset,
        next=offset + len(data),
        is_end=len(data) < limit,
        data=data,
    )
    return answer(page)


@router.get(
    "/{job}/follow",
    responses={200: {"description": "Events until the job is over.", "content": {"text/event-stream": {}}}},
)
async def follow_job(
    job: JobName, service: TheService, streams: TheStreams, who: Viewer, last: LastEventId = None
) -> Response:
    """Follow a job to its end: `started`, `ended`, `held`, `output` (base64), and at last `over`.

    A reader that sends the `id` of the last event that it got, as Last-Event-ID, misses nothing and gets
    nothing twice.
    """
    record = service.find(job, who)
    try:
        position = Position.parse(last) if last else None
    except ValueError as error:
        raise Problem(
            422, "invalid-parameter", f"Last-Event-ID: expected the id of an event, got {last!r}"
        ) from error
    return streams.response(follow(service, streams, record, position))
