"""Where the compute went."""

import time
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from artesian.server.problems import Problem
from artesian.server.routes.common import TheLedger, TheService, Viewer, answer, shows

router = APIRouter(tags=["waterfall"])

Time = Annotated[float | None, Query(ge=0, le=1e11, description="Seconds since the epoch.")]


@router.get("/waterfall", responses=shows("Waterfall"))
async def show_waterfall(
    service: TheService,
    ledger: TheLedger,
    who: Viewer,
    job: Annotated[str | None, Query(max_length=200, description="Only while this job was there.")] = None,
    since: Annotated[float | None, Query(gt=0, le=1e9, description="Only the last so many seconds.")] = None,
    start_s: Time = None,
    end_s: Time = None,
) -> Response:
    """Show where device-seconds went, from nameplate to model FLOPs; unknown figures are null."""
    if sum((job is not None, since is not None, start_s is not None or end_s is not None)) > 1:
        raise Problem(
            422, "invalid-parameter", "window: expected one of job, since, start_s with end_s, got several"
        )
    if start_s is not None and end_s is not None and end_s < start_s:
        raise Problem(422, "invalid-parameter", f"end_s: expected at least {start_s:g}, got {end_s:g}")
    if job is not None:
        record = service.find(job, who)
        start_s, end_s = record.submitted_s, record.ended_s
    elif since is not None:
        start_s = time.time() - since
    found = await ledger.waterfall(start_s=start_s, end_s=end_s)
    return answer(found.to_dict())
