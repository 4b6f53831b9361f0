"""Figures for Prometheus, in OpenMetrics. None is by job: their number would grow without end."""

import asyncio
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import Counter, Histogram
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from artesian.kernel.lifecycle import JobState
from artesian.model.ledger import US, Waterfall
from artesian.server.cycles import BUCKETS_S, Cycles, read_cycles
from artesian.server.fleet_board import FleetBoard
from artesian.server.ledger import Ledger
from artesian.server.mirror import STAGES, Mirror

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_WATERFALL_S = 30.0
"""How old the waterfall may be: it is made anew beside the scrapes, which do not wait for it."""


class Metrics:
    """Collects figures of one server."""

    def __init__(self, mirror: Mirror, fleet: FleetBoard, ledger: Ledger, *, cycles: Path) -> None:
        self._mirror, self._fleet, self._ledger = mirror, fleet, ledger
        self._cycles = cycles
        self._registry = CollectorRegistry()
        self._http = Histogram(
            "artesian_http_request_duration_seconds",
            "From a request to the end of its answer; streams count until they end.",
            ["method", "route", "status"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._records = Counter(
            "artesian_journal_records", "Records that this server has applied.", registry=self._registry
        )
        self._plans = Histogram(
            "artesian_plan_delay_seconds",
            "From the latest event that a plan knew of to when this server had the plan: the cycle, and its commit.",
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        mirror.on_plan = self._plans.observe
        self._appends = Histogram(
            "artesian_append_duration_seconds",
            "What a submit, or another change, waits for until it is accepted: queue (the commit before it), lock"
            " (other processes that write), commit (the disk), apply (the event loop).",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._of_stage = {stage: self._appends.labels(stage) for stage in STAGES}
        mirror.on_append = self._observe_append
        self._lag = Histogram(
            "artesian_event_loop_delay_seconds",
            "How late the event loop comes to what is due, looked at twenty times a second.",
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._counted_seq: int | None = None
        self._waterfall: Waterfall | None = None
        self._waterfall_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._registry.register(self)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        if route != "/metrics":
            self._http.labels(method, route, f"{status // 100}xx").observe(seconds)

    def observe_lag(self, seconds: float) -> None:
        """Count how late the event loop was."""
        self._lag.observe(seconds)

    def _observe_append(self, spent_s: Mapping[str, float]) -> None:
        for stage, seconds in spent_s.items():
            self._of_stage[stage].observe(seconds)

    async def page(self) -> bytes:
        """Return all figures in the format of OpenMetrics."""
        if self._task is None and time.monotonic() - self._waterfall_s > _WATERFALL_S:
            self._task = asyncio.create_task(self._renew())
            if self._waterfall is None:
                await self._task
        seq = self._mirror.seq
        if self._counted_seq is not None:
            self._records.inc(max(0, seq - self._counted_seq))
        self._counted_seq = seq
        page: bytes = generate_latest(self._registry)  # type: ignore[no-untyped-call]  # it has no types
        return page

    async def _renew(self) -> None:
        try:
            self._waterfall = await self._ledger.waterfall(start_s=None, end_s=None)
            self._waterfall_s = time.monotonic()
        finally:
            self._task = None

    # -- prometheus_client's collector ----------------------------------------------------------------

    def describe(self) -> Iterator[Metric]:
        """Nothing: the names are checked when they are collected."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield what is true now."""
        yield from self._queue()
        yield from self._devices()
        if (cycles := read_cycles(self._cycles)) is not None:
            yield _of_cycles(cycles)
            noticed = CounterMetricFamily(
                "artesian_scheduling_cycles_noticed",
                "Cycles whose plan came with a notice: its policy could not decide as it should, its solver failed, say;"
                " the driver's log says what. Of the last driver here, from its start on.",
            )
            noticed.add_metric([], cycles.noticed)
            yield noticed
        if self._waterfall is not None:
            yield from _of_waterfall(self._waterfall)
        yield _gauge(
            "artesian_process_resident_memory_peak_bytes",
            "Most memory that the server had.",
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def _queue(self) -> Iterator[Metric]:
        board = self._mirror.board
        jobs = GaugeMetricFamily("artesian_jobs", "Jobs by state.", labels=["state"])
        for state, count in board.counts().items():
            jobs.add_metric([state], count)
        yield jobs
        teams = GaugeMetricFamily(
            "artesian_team_jobs", "Jobs by team and state, of those not over.", labels=["team", "state"]
        )
        for team, counts in board.active_by_team().items():
            for state, count in counts.items():
                teams.add_metric([team, state], count)
        yield teams
        oldest = board.oldest(JobState.QUEUED)
        wait_s = 0.0 if oldest is None else max(0.0, time.time() - oldest.history[-1].at_s)
        yield _gauge(
            "artesian_queue_oldest_wait_seconds",
            "Since when the job submitted first of those queued waits.",
            wait_s,
        )
        yield _gauge(
            "artesian_submits_uncommitted", "Records that wait to be committed.", self._mirror.uncommitted
        )
        ended = CounterMetricFamily(
            "artesian_attempts_ended", "Attempts that have ended so.", labels=["team", "cause"]
        )
        for (team, cause), count in board.ended.items():
            ended.add_metric([team, cause], count)
        yield ended
        yield _gauge(
            "artesian_up", "1 while the server follows the journal.", int(self._mirror.failure is None)
        )

    def _devices(self) -> Iterator[Metric]:
        devices = GaugeMetricFamily(
            "artesian_devices",
            "Devices by state; the center is that of the pool.",
            labels=["accelerator", "center", "pool", "state"],
        )
        for kind in self._fleet.view().kinds:
            of_state = {"held": kind.held, "free": kind.free, "lost": kind.lost, "excluded": kind.excluded}
            for state, count in of_state.items():
                devices.add_metric([kind.accelerator, kind.center, kind.pool, state], count)
        yield devices


def _of_cycles(found: Cycles) -> Metric:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    return HistogramMetricFamily(
        "artesian_scheduling_cycle_duration_seconds",
        "How long the policy of the driver beside this server takes to plan; of the last driver here, from its start on.",
        buckets=list(zip(bounds, map(float, found.counts), strict=True)),
        sum_value=found.total_s,
    )


def _of_waterfall(found: Waterfall) -> Iterator[Metric]:
    left = GaugeMetricFamily(
        "artesian_waterfall_device_seconds",
        "Device-seconds left after each stage, since the first record; a stage that was not measured is not here.",
        labels=["stage"],
    )
    left.add_metric(["nameplate"], found.nameplate_us / US)
    lost = GaugeMetricFamily(
        "artesian_waterfall_lost_device_seconds",
        "Device-seconds lost, by stage and cause.",
        labels=["stage", "cause"],
    )
    for stage in found.stages:
        if stage.left_us is not None:
            left.add_metric([stage.stage.value], stage.left_us / US)
        for cause, amount in stage.lost_us.items():
            lost.add_metric([stage.stage.value, str(cause)], amount / US)
    yield left
    yield lost


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
