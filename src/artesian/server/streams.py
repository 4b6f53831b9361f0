"""Server-sent events: what happens is told as it happens, and a reader who was cut off goes on where they were."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field

import msgspec
from starlette.responses import StreamingResponse

from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.state import Record
from artesian.model.events import (
    AttemptEnded,
    AttemptProgressed,
    AttemptStarted,
    CancelRequested,
    ClockTicked,
    JobSubmitted,
    NodeExcluded,
    NodeJoined,
    NodeLost,
    NodeReturned,
    ResizeRequested,
)
from artesian.model.plan import Plan, Reason
from artesian.model.views import Happening, Over
from artesian.server.auth import too_many
from artesian.server.follow import Follower, Position
from artesian.server.mirror import Mirror
from artesian.server.service import Service
from artesian.server.tokens import Principal

_LOOK_S = 0.1
"""Between two looks for output of an attempt."""
_EXPLAIN_S = 1.0
_ALIVE_S = 15.0
_PAGE = 200

_encode = msgspec.json.Encoder().encode
_ALIVE = b": still here\n\n"


def event(name: str, id_: str, data: bytes) -> bytes:
    """Return one event. ``data`` is JSON, which has no line break in it."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (id_.encode(), name.encode(), data)


@dataclass(slots=True)
class Streams:
    """The open streams of a server: how many there may be, and the end of all of them."""

    most: int
    open: int = 0
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        """End every stream soon: the server is about to stop. Readers come back to another one."""
        self._closing.set()

    @property
    def is_closing(self) -> bool:
        """Whether streams are to end."""
        return self._closing.is_set()

    def response(self, events: AsyncIterator[bytes]) -> StreamingResponse:
        """Return the answer that sends these events. Raises Problem 429."""
        if self.open >= self.most:
            raise too_many(f"streams: expected at most {self.most} open at once, got more", 5.0)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._counted(events), media_type="text/event-stream", headers=headers)

    async def _counted(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            async for one in events:
                yield one
        finally:
            self.open -= 1

    async def pause(self, occasion: Awaitable[None], timeout_s: float) -> bool:
        """Wait for the occasion, up to a time; False where the streams are to end, or nothing came."""
        waiting = asyncio.ensure_future(occasion)
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            done, _ = await asyncio.wait(
                {waiting, closing}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            return waiting in done and not self.is_closing
        finally:
            waiting.cancel()
            closing.cancel()


async def follow(
    service: Service, streams: Streams, record: JobRecord, position: Position | None
) -> AsyncIterator[bytes]:
    """Yield what happens to a job until it is over, from ``position`` on."""
    mirror = service.mirror
    follower = Follower(service.dir.jobs, position)
    explained_s = told_s = 0.0
    reason: Reason | None = None
    while not streams.is_closing:
        seq = mirror.seq
        if (now_s := time.monotonic()) - explained_s >= _EXPLAIN_S:
            explained_s, reason = now_s, mirror.why(record)
        for happening in follower.look(record, reason if not record.state.holds_devices else None):
            yield _told(happening, follower.position)
            told_s = now_s
            if isinstance(happening, Over):
                return
            await asyncio.sleep(0)  # a long output is not to keep others waiting
        if now_s - told_s >= _ALIVE_S:
            told_s = now_s
            yield _ALIVE
        await streams.pause(mirror.beyond(seq), _LOOK_S if record.state.holds_devices else _EXPLAIN_S)
        if not record.state.holds_devices and not record.state.is_final:
            await asyncio.sleep(_LOOK_S)  # while others come and go it need not look at each of them


def _told(happening: Happening, position: Position) -> bytes:
    return event(type(happening).__name__.lower(), str(position), _encode(happening))


async def events(mirror: Mirror, streams: Streams, who: Principal, after: int) -> AsyncIterator[bytes]:
    """Yield what is in the journal behind record ``after``, and then what comes to it."""
    while not streams.is_closing:
        if after >= mirror.seq:
            if not await streams.pause(mirror.beyond(after), _ALIVE_S):
                yield _ALIVE
            continue
        for seq, record in await mirror.read(after=after, most=_PAGE):
            after = seq
            told = audited(record, mirror, who)
            if told is not None:
                yield event(type(record).__name__, str(seq), _encode(told))


def audited(record: Record, mirror: Mirror, who: Principal) -> dict[str, object] | None:
    """Return what is told of a record: nothing of a job's environment, and only of jobs that one may see.

    None where nothing is left.
    """

    def is_seen(job_id: str) -> bool:
        if who.team is None:
            return True
        found = mirror.state.record(job_id)
        return found is not None and found.job.team == who.team

    told: dict[str, object] = {"at_s": record.at_s}
    match record:
        case JobSubmitted(job=job):
            if who.team not in (None, job.team):
                return None
            return told | {"job": job.id, "name": job.name, "team": job.team, "user": job.user}
        case CancelRequested(job_id=job_id, user=user):
            return told | {"job": job_id, "user": user} if is_seen(job_id) else None
        case ResizeRequested(job_id=job_id, devices=devices, user=user):
            to = [str(request) for request in devices]
            return told | {"job": job_id, "devices": to, "user": user} if is_seen(job_id) else None
        case AttemptStarted(job_id=job_id, epoch=epoch):
            return told | {"job": job_id, "epoch": epoch} if is_seen(job_id) else None
        case AttemptEnded(job_id=job_id, epoch=epoch, outcome=outcome):
            return told | {"job": job_id, "epoch": epoch, "outcome": outcome} if is_seen(job_id) else None
        case NodeJoined(node=node):
            return told | {"node": node}
        case NodeLost(node_id=node_id):
            return told | {"node": node_id}
        case NodeExcluded(node_id=node_id, reason=reason, user=user, is_stopping=is_stopping):
            return told | {"node": node_id, "reason": reason, "user": user, "is_stopping": is_stopping}
        case NodeReturned(node_id=node_id, user=user):
            return told | {"node": node_id, "user": user}
        case Plan():
            parts: dict[str, object] = {
                "starts": [
                    {"job": one.job_id, "epoch": one.epoch, "place": str(one.placement), "reason": one.reason}
                    for one in record.starts
                    if is_seen(one.job_id)
                ],
                "stops": [
                    {"job": one.job_id, "epoch": one.epoch, "cause": one.cause, "reason": one.reason}
                    for one in record.stops
                    if is_seen(one.job_id)
                ],
                "holds": [
                    {"job": one.job_id, "code": one.code} for one in record.holds if is_seen(one.job_id)
                ],
            }
            return told | parts if any(parts.values()) else None
        case AttemptProgressed() | ClockTicked():
            return None
