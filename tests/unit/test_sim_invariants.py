"""What must hold for any simulation, and the same bytes for the same input."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from artesian.kernel.lifecycle import JobState
from artesian.kernel.replay import replay
from artesian.kernel.state import Record
from artesian.model.events import AttemptEnded, Event
from artesian.model.fleet import Fleet
from artesian.model.job import Cause, Outcome
from artesian.model.ledger import to_us
from artesian.model.plan import Plan
from artesian.sim import (
    SimJob,
    SimResult,
    report,
)
from builders import a_node, cancelled, ended, joined, lost, retry
from simulations import SIGNALLED, a_fleet, a_sim_job, run

# -- whatever comes -----------------------------------------------------------------------------------

moments = st.integers(0, 40).map(lambda quarter: quarter / 4) | st.floats(0, 1e4)
fleets = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(lambda counts: a_fleet(*counts))


@st.composite
def sim_jobs(draw: st.DrawFn) -> list[SimJob]:
    jobs = []
    for number in range(draw(st.integers(0, 12))):
        takes = draw(moments)
        share = st.integers(1, 999).map(lambda milli: f"{milli / 1000}")
        jobs.append(
            a_sim_job(
                f"j{number}",
                draw(st.sampled_from(["cpu:1", "cpu:2", "cpu:3", "cpu:1..4", "cpu:9", "H100:1"]) | share),
                at=draw(moments),
                takes=takes,
                start_up_s=draw(st.just(0.0) | moments),
                fails=[
                    (after * takes, Outcome(cause=cause))
                    for after, cause in draw(
                        st.lists(
                            st.tuples(
                                st.floats(0, 1), st.sampled_from([c for c in Cause if c != "completed"])
                            ),
                            max_size=3,
                        )
                    )
                ],
                priority=draw(st.integers(-1, 1)),
                retry=retry(draw(st.integers(0, 2)), backoff_s=draw(st.sampled_from([0.0, 1.0]))),
            )
        )
    return jobs


@st.composite
def disturbances(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for _ in range(draw(st.integers(0, 4))):
        at_s, number = draw(moments), draw(st.integers(1, 4))
        choices: list[Event] = [
            lost(f"n{number}", at_s),
            cancelled(f"j{number}", at_s),
            ended(f"j{number}", 1, at_s=at_s),
        ]
        events.append(draw(st.sampled_from(choices)))
    return events


def held_by_the_journal(records: Sequence[Record]) -> dict[str, int]:
    """Return what each job held, in thousandths times microseconds, from starts and ends alone."""
    held: dict[str, int] = {}
    since: dict[tuple[str, int], tuple[float, int]] = {}
    for record in records:
        match record:
            case Plan():
                for start in record.starts:
                    milli = sum(len(share.devices) * share.milli for share in start.placement.shares)
                    since[start.job_id, start.epoch] = (record.at_s, milli)
            case AttemptEnded():
                if (entry := since.pop((record.job_id, record.epoch), None)) is not None:
                    started_s, milli = entry
                    amount = milli * (to_us(record.at_s) - to_us(started_s))
                    held[record.job_id] = held.get(record.job_id, 0) + amount
            case _:
                pass
    assert not since
    return held


@given(fleets, sim_jobs(), disturbances())
def test_what_is_held_adds_up_and_is_never_more_than_what_is_owned(
    fleet: Fleet, jobs: list[SimJob], events: list[Event]
) -> None:
    result = run(fleet, *jobs, events=events)
    figures = report(result)
    held = held_by_the_journal(result.records)
    assert {entry.job_id: entry.held_milli_us for entry in figures.jobs} == {
        entry.job.id: held.get(entry.job.id, 0) for entry in jobs
    }
    assert figures.allocated_milli_us == sum(held.values()) <= figures.owned_milli_us
    assert all(0 <= level.milli <= fleet.devices * 1000 for level in figures.allocation)
    if figures.allocation:
        assert figures.allocation[-1].milli == 0
    assert figures.waterfall.is_simulated


@given(fleets, sim_jobs(), disturbances())
def test_every_job_ends_or_waits_for_a_reason(fleet: Fleet, jobs: list[SimJob], events: list[Event]) -> None:
    result = run(fleet, *jobs, events=events)
    waiting = {id for id, record in result.state.jobs.items() if not record.state.is_final}
    assert all(result.state.jobs[id].state is JobState.QUEUED for id in waiting)
    assert set(result.reasons) == waiting
    assert all(reason.text and reason.unblock for reason in result.reasons.values())


@given(fleets, sim_jobs(), disturbances())
def test_the_same_input_gives_the_same_bytes_and_the_journal_the_same_state(
    fleet: Fleet, jobs: list[SimJob], events: list[Event]
) -> None:
    one, other = (run(fleet, *jobs, events=events) for _ in range(2))
    assert encoded(one) == encoded(other)
    assert replay(one.records).image() == one.state.image()
    times_s = [record.at_s for record in one.records]
    assert times_s == sorted(times_s)


def encoded(result: SimResult) -> bytes:
    return msgspec.json.encode(
        [[type(record).__name__, record] for record in result.records] + [report(result).to_dict()],
        order="deterministic",
    )


def a_busy_day() -> str:
    """Return the digest of a fixed simulation with everything in it."""
    jobs = [
        a_sim_job(
            f"j{number:03}",
            ["cpu:1", "cpu:2..4", "0.5", "cpu:6"][number % 4],
            at=number * 1.7,
            takes=5.0 + number % 13,
            fails=[(2.0, SIGNALLED)] * (number % 3 == 0),
            priority=number % 5,
        )
        for number in range(60)
    ]
    result = run(a_fleet(2, 4, 3), *jobs, events=[lost("n2", 30.0), joined(a_node("n2", devices=4), 45.0)])
    return hashlib.sha256(encoded(result)).hexdigest()


def test_the_order_of_hashes_does_not_matter() -> None:
    program = "import test_sim_invariants; print(test_sim_invariants.a_busy_day())"
    folder = os.path.dirname(__file__)
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join([folder, *sys.path]),
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {a_busy_day() + "\n"}
