"""Jobs: submit, list, show, why, cancel, resize."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Header, Query, Request
from msgspec.structs import replace
from starlette.responses import Response

from artesian.kernel.lifecycle import JobState
from artesian.kernel.told import attempt_view, job_view
from artesian.model.job import Job, JobKind
from artesian.model.views import HOLDING, OVER, WAITING, JobIds
from artesian.server.board import Filter
from artesian.server.openmetrics import CONTENT_TYPE, render_openmetrics
from artesian.server.problems import Problem
from artesian.server.routes.common import (
    Cursor,
    JobName,
    Limit,
    Member,
    TheLedger,
    TheService,
    Viewer,
    answer,
    shows,
)
from artesian.server.submission import SUBMISSION_TYPE, Context, documents_of, job_from_text, submission
from artesian.server.tokens import Principal

router = APIRouter(prefix="/jobs", tags=["jobs"])

_T = TypeVar("_T")
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_AT_A_TIME = 20
"""Jobs of a bulk submit that are read before other requests get their turn: some two milliseconds."""
_SHORT = 2_000
"""Characters of a file that are read on the event loop's thread: YAML takes a millisecond for so many."""
_GROUPS = {"active": (*WAITING, *HOLDING), "over": OVER, "holding": HOLDING, "waiting": WAITING}


def _body(**schemas: dict[str, Any]) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


_JOB_FILE = _body(
    **{
        "application/json": {"$ref": "#/components/schemas/JobFile"},
        "application/yaml": {"type": "string"},
        SUBMISSION_TYPE: {"$ref": "#/components/schemas/Submission"},
    }
)
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "OpenMetrics.", "content": {CONTENT_TYPE: {"schema": {"type": "string"}}}}
}
_BULK = _body(**{"application/json": {"$ref": "#/components/schemas/Bulk"}})
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key again returns the same job, and submits nothing.",
    ),
]
States = Annotated[
    list[JobState | Literal["active", "over", "holding", "waiting"]] | None,
    Query(description="Only jobs in one of these states, or groups of states."),
]
Word = Annotated[str | None, Query(max_length=200)]


@router.get("", responses=shows("JobPage"))
async def list_jobs(
    service: TheService,
    who: Viewer,
    state: States = None,
    team: Word = None,
    user: Word = None,
    name: Word = None,
    kind: JobKind | None = None,
    order: Literal["newest", "oldest"] = "newest",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """List jobs, page by page, in the order of their submits.

    A page may be short without being the last: that is the one whose `next` is null. `waits_for` is told of
    single jobs only.
    """
    states = frozenset(JobState(one) for given in state or () for one in _GROUPS.get(given, (given,)))
    wanted = Filter(states=states, team=team, user=user, name=name, kind=None if kind is None else kind.value)
    page = service.page(wanted, who, limit=limit, cursor=cursor, newest_first=order == "newest")
    return answer(page)


@router.post(
    "",
    status_code=201,
    openapi_extra=_JOB_FILE,
    responses={**shows("JobView", 201), 204: {"description": "A dry run found nothing wrong."}},
)
async def submit_job(
    request: Request,
    service: TheService,
    who: Member,
    base_dir: Annotated[
        str, Query(max_length=4096, description="What the file's paths are relative to.")
    ] = "/",
    dry_run: Annotated[bool, Query(description="Only check the file.")] = False,
    key: Key = None,
) -> Response:
    """Submit a job: a job file, as YAML or as JSON with the same keys.

    The answer comes when the job is durable; no cycle has seen it then, and `waits_for` is null.
    `application/vnd.artesian.submission+json` brings the file's
    text with the submitter's environment, as the command line does.
    """
    kind, body = _kind(request), await request.body()
    if kind == SUBMISSION_TYPE:
        given = _checked(lambda: submission(body))
        text, context = (
            given.file,
            Context(source=given.source, base_dir=given.base_dir, env=given.env, home=given.home),
        )
    elif kind == "application/json" or kind in _YAML:
        text, context = _text(body), _checked(lambda: Context(base_dir=base_dir))
    else:
        raise _unsupported(kind, "application/json or application/yaml")
    job = service.admit(await _job(text, context, who), who)
    if dry_run:
        return Response(status_code=204)
    [record] = await service.submit([job], who, key=key)
    return answer(
        replace(job_view(record), waits_for=None), 201, {"Location": f"/api/v1/jobs/{record.job.id}"}
    )


@router.post("/bulk", status_code=201, openapi_extra=_BULK, responses=shows("JobIds", 201))
async def submit_jobs(request: Request, service: TheService, who: Member, key: Key = None) -> Response:
    """Submit many jobs, all or none: `{"jobs": [job file, …], "base_dir": …, "env": …}`."""
    if (kind := _kind(request)) != "application/json":
        raise _unsupported(kind, "application/json")
    body = await request.body()
    texts, context = _checked(lambda: documents_of(body))
    most = service.limits.bulk_jobs
    if not 0 < len(texts) <= most:
        raise Problem(422, "invalid-document", f"jobs: expected 1 to {most} job files, got {len(texts)}")
    jobs: list[Job] = []
    for number, text in enumerate(texts):
        if number % _AT_A_TIME == _AT_A_TIME - 1:
            await asyncio.sleep(0)
        jobs.append(service.admit(await _job(text, replace(context, source=f"jobs[{number}]"), who), who))
    records = await service.submit(jobs, who, key=key)
    return answer(JobIds(jobs=tuple(record.job.id for record in records)), 201)


@router.get("/{job}", responses=shows("JobView"))
async def show_job(job: JobName, service: TheService, who: Viewer) -> Response:
    """Show a job, its attempts, and why it waits."""
    return answer(service.view(service.find(job, who)))


@router.get("/{job}/why", responses=shows("Decision"))
async def why_job(job: JobName, service: TheService, ledger: TheLedger, who: Viewer) -> Response:
    """Say what was last decided for the job, why, and what would unblock it; and what its workers have found."""
    record = service.find(job, who)
    found = service.decision(record)
    return answer(replace(found, **(await ledger.detections(record))._asdict()))


@router.get("/{job}/attempts", responses=shows("AttemptList"))
async def list_attempts(job: JobName, service: TheService, who: Viewer) -> Response:
    """List the attempts of a job, the first one first."""
    return answer({"attempts": [attempt_view(one) for one in service.find(job, who).attempts]})


@router.get("/{job}/training", responses=shows("TrainingSummary"))
async def show_training(job: JobName, service: TheService, ledger: TheLedger, who: Viewer) -> Response:
    """Show what a job has trained: loss, tokens, MFU, recoveries."""
    return answer(await ledger.training(service.find(job, who)))


@router.get("/{job}/report", responses=shows("JobReport"))
async def report_job(job: JobName, service: TheService, ledger: TheLedger, who: Viewer) -> Response:
    """Show a job, what it has trained, and where the compute went while it was there."""
    return answer(await ledger.report(service.find(job, who)))


@router.get("/{job}/metrics", response_class=Response, responses=_METRICS)
async def show_metrics_of_job(job: JobName, service: TheService, ledger: TheLedger, who: Viewer) -> Response:
    """Show the goodput of a job in the format of OpenMetrics: device time by cause, in all and lately; and what its workers have found."""
    record = service.find(job, who)
    goodput = await ledger.goodput(record)
    found = {record.job.id: await ledger.detections(record)}
    return Response(render_openmetrics([goodput], found), media_type=CONTENT_TYPE)


@router.post("/{job}/cancel", status_code=202, responses=shows("JobView", 202))
async def cancel_job(job: JobName, service: TheService, who: Member) -> Response:
    """Stop a job: SIGTERM, and SIGKILL after its grace. One that waits never starts.

    The answer is the job as it was when it was asked to stop.
    """
    record = service.find(job, who)
    before = service.view(record)
    await service.cancel(record, who)
    return answer(before, 202)


@router.post("/{job}/resize", status_code=202, responses=shows("JobView", 202))
async def resize_job(
    job: JobName,
    service: TheService,
    who: Member,
    devices: Annotated[
        str,
        Query(
            max_length=40,
            description="How many, of each of the kinds that it accepts: `8`, or `4..8` for as many as there are.",
        ),
    ],
) -> Response:
    """Change how many devices a job asks for. Doing it again changes nothing.

    One that waits asks for as many at once. One that runs, and does not hold as many, gets SIGTERM, and SIGKILL after
    its grace, and goes on with them from its latest checkpoint. The answer is the job as it is then.
    """
    record = service.find(job, who)
    await service.resize(record, who, devices=devices)
    return answer(service.view(record), 202)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unsupported(kind: str, expected: str) -> Problem:
    return Problem(
        415,
        "unsupported-media-type",
        f"content-type: expected {expected}, got {kind or 'none'!r}",
        hint="-H 'Content-Type: application/yaml' --data-binary @job.yaml",
    )


def _checked(read: Callable[[], _T]) -> _T:
    """Return what ``read`` returns. Raises Problem where the body is not what it should be."""
    try:
        return read()
    except RecursionError as error:
        raise Problem(
            422, "invalid-document", "body: expected a few levels of nesting, got too many"
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise Problem(
            422, "invalid-document", f"body: {error}", hint="see /api/v1/openapi.json for its form"
        ) from error


async def _job(text: str, context: Context, who: Principal) -> Job:
    def read() -> Job:
        return job_from_text(text, context, user=who.user)

    return read() if len(text) <= _SHORT else await asyncio.to_thread(read)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem(
            422,
            "invalid-document",
            f"body: expected UTF-8 text, got byte {body[error.start]:#04x} at offset {error.start}",
        ) from error
