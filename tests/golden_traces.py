"""Golden traces: events that are kept in the repository, with what each policy decided about them.

A trace is ``golden/NAME.events.jsonl``: one line per event, ``cycle`` says which of them arrive
together. What a policy made of it is ``golden/NAME.POLICY.jsonl``: one line per decision. Change
neither by hand; ``python scripts/golden.py --update`` writes them and shows the difference.
"""

import heapq
import json
import random
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from artesian.kernel.scheduler import Scheduler
from artesian.model.events import EVENT_TYPES, Event
from artesian.model.job import Cause, Job
from artesian.model.plan import Plan, Start
from artesian.policy.registry import BUILT_IN, RANKINGS
from builders import GIB, a_job, a_node, cancelled, ended, joined, lost, retry, started, submitted, ticked

FOLDER = Path(__file__).parent / "golden"
TRACE = "mixed"
SEED = 20
JOBS = 40

_TYPES = {kind.__name__: kind for kind in EVENT_TYPES}
_DEVICES = (
    "cpu:1",
    "cpu:4",
    "cpu:8",
    "cpu:2..6",
    "0.5",
    "H100:2",
    "H100:8",
    "H100:8 | A100:8",
    "A100:2..4",
    "2",
)
_ENDS = (*[Cause.COMPLETED] * 6, Cause.SIGNAL, Cause.SIGNAL, Cause.USER_ERROR, Cause.OOM_KILL)


POLICIES = tuple(sorted(BUILT_IN.keys() - RANKINGS.keys()))
"""Whose decisions are kept. Those that solve linear programs are not among them: of several solutions that are
equally good, another version of the solver may choose another one."""


def events_path(name: str = TRACE) -> Path:
    """Where the events of a trace are."""
    return FOLDER / f"{name}.events.jsonl"


def plans_path(policy: str, name: str = TRACE) -> Path:
    """Where the decisions of a policy about a trace are."""
    return FOLDER / f"{name}.{policy}.jsonl"


def encode_events(cycles: list[list[Event]]) -> list[str]:
    """Return the lines of a trace."""
    return [
        json.dumps({"cycle": number, "type": type(event).__name__, "event": msgspec.to_builtins(event)})
        for number, events in enumerate(cycles)
        for event in events
    ]


def decode_events(lines: list[str]) -> list[list[Event]]:
    """Return the events of a trace, cycle by cycle."""
    rows = [json.loads(line) for line in lines]
    return [
        [msgspec.convert(row["event"], _TYPES[row["type"]]) for row in cycle]
        for _, cycle in groupby(rows, key=lambda row: row["cycle"])
    ]


def decisions(policy: str, cycles: list[list[Event]]) -> list[str]:
    """Return what ``policy`` decides about a trace, one line per command and reason."""
    scheduler = Scheduler(BUILT_IN[policy]())
    lines = []
    for number, events in enumerate(cycles):
        plan = scheduler.step(events)
        scheduler.state.validate()
        lines += [json.dumps({"cycle": number, "at_s": plan.at_s, **row}) for row in _rows(plan, scheduler)]
    return lines


def _rows(plan: Plan, scheduler: Scheduler) -> Iterator[dict[str, str | None]]:
    for stop in plan.stops:
        yield {"command": stop.id, "cause": stop.cause.value, "reason": stop.reason}
    for start in plan.starts:
        yield {"command": start.id, "on": str(start.placement), "reason": start.reason}
    for hold in plan.holds:
        reason = scheduler.why(hold.job_id)
        assert reason is not None, f"{hold.job_id} is held, and does not wait"
        yield {
            "hold": hold.job_id,
            "code": hold.code.value,
            "behind": hold.behind,
            "reason": reason.text,
            "unblock": reason.unblock,
        }


def synthetic_trace(seed: int = SEED, jobs: int = JOBS) -> list[list[Event]]:
    """Return a trace of a small mixed fleet: bursts of jobs, faults, cancels, a lost and a shrunk node.

    Everything is drawn from ``random.Random(seed)``. How long an attempt runs and how it ends is decided
    when `fifo` starts it; a policy that starts other attempts hears of these all the same,
    as it would from an engine that is late.
    """
    rng = random.Random(seed)
    scheduler = Scheduler(BUILT_IN["fifo"]())
    heap: list[tuple[float, int, Event]] = []
    count = iter(range(10**6))

    def later(event: Event) -> None:
        heapq.heappush(heap, (event.at_s, next(count), event))

    for event in _fleet_events():
        later(event)
    at_s = 1.0
    for number in range(jobs):
        at_s += rng.choice([0.0, 0.0, 1.0, 20.0])
        later(submitted(_job(f"j{number:02}", rng), at_s))
        if rng.random() < 0.1:
            later(cancelled(f"j{number:02}", at_s + rng.choice([0.0, 5.0, 200.0]), user="ann"))
    cycles = []
    while heap:
        now_s = heap[0][0]
        cycle = []
        while heap and heap[0][0] == now_s:
            cycle.append(heapq.heappop(heap)[2])
        cycles.append(cycle)
        plan = scheduler.step(cycle)
        for stop in plan.stops:
            later(ended(stop.job_id, stop.epoch, Cause.SIGNAL, now_s + 1.0))
        for start in plan.starts:
            _run(start, now_s, rng, later)
        due_s = scheduler.next_due_s
        if due_s is not None and (not heap or due_s < heap[0][0]):
            later(ticked(due_s))
    return cycles


def _run(start: Start, now_s: float, rng: random.Random, later: Callable[[Event], None]) -> None:
    later(started(start.job_id, start.epoch, now_s + 1.0))
    later(ended(start.job_id, start.epoch, rng.choice(_ENDS), now_s + float(rng.randint(10, 120))))


def _fleet_events() -> list[Event]:
    h100 = a_node(
        "h1", accelerator="H100-SXM5-80GB", vendor="nvidia", device_memory_bytes=80 * GIB, peak_flops=989e12
    )
    a100 = a_node("a1", accelerator="A100-SXM4-80GB", vendor="nvidia", device_memory_bytes=80 * GIB)
    cpus = [a_node(f"c{number}", devices=4) for number in (1, 2)]
    return [
        *(joined(node) for node in (h100, a100, *cpus)),
        lost("c2", 60.0),
        joined(cpus[1], 90.0),
        joined(a_node("c1", devices=2), 150.0),
        lost("h1", 200.0),
        joined(h100, 260.0),
    ]


def _job(id: str, rng: random.Random) -> Job:
    return a_job(
        id,
        devices=rng.choice(_DEVICES),
        priority=rng.choice([0, 0, 0, 1]),
        cpus_per_device=rng.choice([None, None, 2.0, 12.0]),
        retry=retry(rng.choice([0, 2]), backoff_s=5.0),
    )
