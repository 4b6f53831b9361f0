"""Fleets with a past, made from a seed through a real kernel: jobs run, stop, wait for each other, have claims.

Every policy is given the same events, but for those that answer its own plans.
"""

import random
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from artesian.kernel.scheduler import Scheduler
from artesian.model.capacity import Capacity
from artesian.model.events import Event
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job
from artesian.model.plan import Plan
from artesian.model.queue import WaitingJob, WaitingQueue
from artesian.model.running import RunningJobs
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Policy
from builders import (
    GIB,
    a_job,
    a_node,
    cancelled,
    ended,
    excluded,
    joined,
    lost,
    retry,
    returned,
    started,
    submitted,
    ticked,
)

TEAMS = ("vision", "speech", "default")
POOLS = ("default", "lab")
MODELS = (
    {"accelerator": "cpu"},
    {"accelerator": "cpu"},
    {"accelerator": "H100-SXM5-80GB", "vendor": "nvidia", "device_memory_bytes": 80 * GIB},
    {"accelerator": "A100-SXM4-40GB", "vendor": "nvidia", "device_memory_bytes": 40 * GIB},
)
WISHES = (
    *("cpu:1", "cpu:2", "cpu:2", "cpu:4", "cpu:6", "cpu:8", "cpu:12", "1", "2", "4", "2..6", "cpu:3..8"),
    *(
        "cpu:4 | H100:2",
        "H100:4 | A100:2",
        "A100:2",
        "H100:1",
        "nvidia:40GB:2..4",
        "host",
        "910B:2",
        "cpu:99",
    ),
    *("0.5", "0.5", "0.25", "0.75", "cpu:0.5", "cpu:0.75 | A100:1"),
)


class World:
    """A kernel under a policy, after ``steps`` cycles of what the seed has happen."""

    def __init__(self, seed: int, policy: Policy, *, steps: int = 14) -> None:
        self._random = random.Random(seed)
        self.scheduler = Scheduler(policy)
        self.at_s = 0.0
        self._jobs = 0
        self._held: dict[str, int] = {}
        self._leaving: dict[str, int] = {}
        self._step([joined(self._node(f"n{number}")) for number in range(self._random.randint(1, 5))])
        for _ in range(steps):
            self.at_s += self._random.choice([0.0, 10.0, 120.0, 400.0, 1500.0])
            self._step(self._events())

    def snapshot(self) -> Snapshot:
        """Return what the policy sees; often some time later, so that a round has ended."""
        snapshot = self.scheduler.snapshot()
        later_s = self._random.choice([0.0, 0.0, 45.0, 500.0])
        return replace(snapshot, at_s=snapshot.at_s + later_s, before_s=snapshot.at_s)

    def _step(self, events: Iterable[Event]) -> None:
        self._carry_out(self.scheduler.step([*events]))
        self.scheduler.state.validate()

    def _carry_out(self, plan: Plan) -> None:
        while plan.starts or plan.stops:
            self._leaving |= {stop.job_id: stop.epoch for stop in plan.stops}
            self._held |= {start.job_id: start.epoch for start in plan.starts}
            answers = [started(start.job_id, start.epoch, self.at_s) for start in plan.starts]
            if not answers:
                return
            plan = self.scheduler.step(answers)

    def _events(self) -> list[Event]:
        chance = self._random
        events: list[Event] = [ticked(self.at_s)]
        for job_id, epoch in sorted(self._leaving.items()):
            if chance.random() < 0.5:
                del self._leaving[job_id]
                self._held.pop(job_id, None)
                events.append(ended(job_id, epoch, Cause.SIGNAL, self.at_s))
        for job_id, epoch in sorted(self._held.items()):
            if job_id not in self._leaving and chance.random() < 0.12:
                del self._held[job_id]
                cause = chance.choice([Cause.COMPLETED, Cause.COMPLETED, Cause.SIGNAL])
                events.append(ended(job_id, epoch, cause, self.at_s))
        events += [submitted(self._job(), self.at_s) for _ in range(chance.randint(0, 4))]
        node_ids = sorted(self.scheduler.state.nodes)
        if chance.random() < 0.25:
            node_id = chance.choice(node_ids)
            happens: tuple[Event, ...] = (lost(node_id, self.at_s), excluded(node_id, self.at_s))
            events.append(chance.choice([*happens, returned(node_id, self.at_s)]))
        if chance.random() < 0.1:
            events.append(joined(self._node(f"n{len(node_ids)}"), self.at_s))
        if self._jobs and chance.random() < 0.1:
            events.append(cancelled(f"j{chance.randrange(self._jobs)}", self.at_s))
        return events

    def _node(self, node_id: str) -> Node:
        chance = self._random
        devices = chance.choice([1, 2, 4, 8, 8])
        more: dict[str, Any] = {
            "cpus": devices * chance.choice([2, 8]),
            "memory_bytes": devices * chance.choice([4, 64]) * GIB,
            "pool": chance.choice(POOLS),
            "occupied": tuple(range(min(devices, chance.choice([0, 0, 0, 1])))),
            **chance.choice(MODELS),
        }
        return a_node(node_id, devices=devices, **more)

    def _job(self) -> Job:
        chance = self._random
        self._jobs += 1
        return a_job(
            f"j{self._jobs - 1}",
            devices=chance.choice(WISHES),
            team=chance.choice(TEAMS),
            priority=chance.choice([0, 0, 0, 1, -10, 10, 20]),
            estimated_duration_s=chance.choice([None, 50.0, 300.0, 1000.0, 1000.0, 5000.0, 5000.0, 40000.0]),
            checkpoint_every_s=chance.choice([None, 60.0]),
            deadline_s=chance.choice([None, None, None, 2000.0]),
            cpus_per_device=chance.choice([None, None, 1.0, 4.0]),
            memory_bytes_per_device=chance.choice([None, None, 8 * GIB]),
            retry=retry(
                3, Cause.SIGNAL, Cause.PREEMPTED, Cause.NODE_LOST, backoff_s=chance.choice([0.0, 30.0])
            ),
        )


def rebuilt(
    snapshot: Snapshot,
    *,
    waiting: Iterable[WaitingJob] | None = None,
    running: Iterable[RunningJob] | None = None,
    back: Iterable[str] = (),
) -> Snapshot:
    """Return the same view made anew from its parts, with other jobs or with nodes that are ``back``."""
    running = list(snapshot.running.values() if running is None else running)
    capacity = Capacity(snapshot.capacity.nodes)
    for node, is_up in zip(capacity.nodes, snapshot.capacity.is_up.tolist(), strict=True):
        capacity.set_up(node.id, is_up or node.id in back)
    for entry in running:
        capacity.take(entry.job, entry.placement)
        capacity.expect(entry.job, entry.placement, entry.since_s)
    capacity.occupy()
    return replace(
        snapshot,
        waiting=WaitingQueue(snapshot.waiting.values() if waiting is None else waiting),
        running=RunningJobs(running),
        capacity=capacity,
    )
