"""Azure's requests to language models (Patel et al., ISCA 2024), as the load of a service.

Columns ``TIMESTAMP``, ``ContextTokens``, ``GeneratedTokens``: one row a request. A scheduler of devices
does not see requests, it sees replicas. So requests are added up per interval (``read_load``), and the
replicas that an interval needs are

    replicas = ceil(sum(context / prefill_tokens_per_s + generated / decode_tokens_per_s)
                    / (interval_s * busy_share))

with the speed of one replica as the caller measured it: the trace does not tell it, and there is no
default. Replica k is then a job of kind ``service`` for every stretch of time in which k replicas or
more are needed. Work is counted where it arrives: what one interval leaves over is not carried on.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from artesian.model.job import Job, JobKind
from artesian.sim.jobs import SimJob
from artesian.sim.traces.errors import TooLarge
from artesian.sim.traces.table import BadRows, Row, Skipped, Table
from artesian.sim.traces.trace import COMMAND, NO_ENV, Requests, Trace

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

INTERVAL_S = 60.0
MAX_INTERVALS = 1_000_000
"""Most intervals between the first and the last request: two years of minutes."""

_MAX_TOKENS = 10**9


class Replica(Struct, frozen=True, kw_only=True, gc=False):
    """What one replica of the service does, and what it takes.

    ``prefill_tokens_per_s`` of context, ``decode_tokens_per_s`` generated, over all requests that it serves at
    once. ``busy_share`` is how busy it may be on average, so that latency stays within bounds.
    """

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    devices: int = 1
    accelerator: str | None = None
    busy_share: float = 1.0

    def __post_init__(self) -> None:
        speeds = (self.prefill_tokens_per_s, self.decode_tokens_per_s)
        if not all(0 < speed < math.inf for speed in speeds):
            raise ValueError(f"replica: expected tokens per second above 0, got {speeds}")
        if self.devices < 1 or not 0 < self.busy_share <= 1:
            raise ValueError(
                f"replica: expected a device and a busy share in (0, 1], got {self.devices} and {self.busy_share}"
            )


class ServiceLoad(Struct, frozen=True, kw_only=True, gc=False):
    """Requests per interval of ``interval_s``; the first interval begins with the first request.

    ``requests``, ``context_tokens`` and ``generated_tokens`` have one sum for each interval, 0 where nothing came.
    """

    source: str
    interval_s: float
    requests: Sequence[int]
    context_tokens: Sequence[int]
    generated_tokens: Sequence[int]
    skipped: tuple[Skipped, ...] = ()

    def replicas(self, replica: Replica) -> tuple[int, ...]:
        """Return how many replicas each interval needs."""
        capacity_s = self.interval_s * replica.busy_share
        return tuple(
            math.ceil(
                (context / replica.prefill_tokens_per_s + generated / replica.decode_tokens_per_s)
                / capacity_s
            )
            for context, generated in zip(self.context_tokens, self.generated_tokens, strict=True)
        )


def read_load(
    path: Path, *, interval_s: float = INTERVAL_S, bad_rows: BadRows = BadRows.REFUSE
) -> ServiceLoad:
    """Return the load in a table of requests, which may come in any order. Raises TraceError.

    Memory goes by the seconds with a request, not by the requests; which interval a request belongs to is told
    to the second. Raises ValueError unless interval_s is above 0.
    """
    if not 0 < interval_s < math.inf:
        raise ValueError(f"load: expected an interval above 0 s, got {interval_s}")
    table = Table(path, required=COLUMNS, bad_rows=bad_rows)

    def request(row: Row) -> tuple[float, int, int]:
        return (
            row.time_s("TIMESTAMP"),
            row.count("ContextTokens", most=_MAX_TOKENS),
            row.count("GeneratedTokens", most=_MAX_TOKENS),
        )

    # The first request may stand anywhere, so seconds are added up first and intervals afterwards.
    seconds: dict[float, list[int]] = {}
    step_s = min(interval_s, 1.0)
    first_s, last_s = math.inf, -math.inf
    for number, (at_s, context, generated) in table.rows(request):
        first_s, last_s = min(first_s, at_s), max(last_s, at_s)
        if last_s - first_s > MAX_INTERVALS * interval_s:
            raise TooLarge(
                path,
                f"expected at most {MAX_INTERVALS} intervals of {interval_s:g} s, got more",
                row=number,
                column="TIMESTAMP",
                hint="is the date of this row right? otherwise take a longer interval",
            )
        sums = seconds.setdefault(math.floor(at_s / step_s) * step_s, [0, 0, 0])
        sums[0] += 1
        sums[1] += context
        sums[2] += generated
    count = math.floor((last_s - first_s) / interval_s) + 1 if seconds else 0
    totals = [[0] * count for _ in range(3)]
    for at_s, sums in seconds.items():
        interval = min(count - 1, max(0, math.floor((at_s - first_s) / interval_s)))
        for total, value in zip(totals, sums, strict=True):
            total[interval] += value
    return ServiceLoad(
        source=str(path),
        interval_s=interval_s,
        requests=tuple(totals[0]),
        context_tokens=tuple(totals[1]),
        generated_tokens=tuple(totals[2]),
        skipped=table.tally.skipped,
    )


def service_jobs(load: ServiceLoad, replica: Replica, *, name: str = "service") -> tuple[SimJob, ...]:
    """Return a job for every stretch of time in which one more replica is needed, in order of their start."""
    needed = load.replicas(replica)
    devices = Requests(replica.accelerator).devices(replica.devices)
    jobs: list[SimJob] = []
    open_since: list[int] = []  # of replica k, the interval in which it came; they leave last come first

    def close(until: int) -> None:
        number, since = len(open_since), open_since.pop()
        id = f"{name}-{number}-{since}"
        jobs.append(
            SimJob(
                job=Job(
                    id=id,
                    name=id,
                    command=COMMAND,
                    devices=devices,
                    workdir="/",
                    kind=JobKind.SERVICE,
                    team=name,
                    env=NO_ENV,
                ),
                submit_s=since * load.interval_s,
                duration_s=(until - since) * load.interval_s,
            )
        )

    for interval, count in enumerate((*needed, 0)):
        while len(open_since) > count:
            close(interval)
        open_since += [interval] * (count - len(open_since))
    return tuple(sorted(jobs, key=lambda entry: (entry.submit_s, -entry.duration_s)))


def read(
    path: Path,
    *,
    replica: Replica,
    interval_s: float = INTERVAL_S,
    bad_rows: BadRows = BadRows.REFUSE,
    limit: int | None = None,
) -> Trace:
    """Return the service's replicas as jobs; the first request comes at 0. Raises TraceError."""
    load = read_load(path, interval_s=interval_s, bad_rows=bad_rows)
    return _trace(path, load, service_jobs(load, replica), limit)


def _trace(path: Path, load: ServiceLoad, jobs: Sequence[SimJob], limit: int | None) -> Trace:
    if limit is not None and len(jobs) > limit:
        raise TooLarge(path, f"expected at most {limit} jobs, got {len(jobs)}", hint="raise the limit")
    return Trace(
        source=str(path),
        jobs=tuple(jobs),
        skipped=load.skipped,
        notes=(
            f"{sum(load.requests)} requests, as the replicas that each interval of {load.interval_s:g} s needs",
        ),
    )
