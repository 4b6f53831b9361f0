"""A plan that is drafted while others write: what the journal says in the end is what the scheduler has."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.kernel.lifecycle import JobState
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import Record
from artesian.model.events import Event
from artesian.model.job import Cause
from builders import a_job, a_node, cancelled, ended, fifo, joined, lost, retry, started, submitted, ticked

JOBS = [f"j{number}" for number in range(6)]

job_ids = st.sampled_from(JOBS)
events = st.one_of(
    st.builds(
        lambda id, devices: submitted(a_job(id, devices=devices, retry=retry(2, *Cause))),
        job_ids,
        st.sampled_from(["cpu:1", "cpu:2", "cpu:1..3", "cpu:6", "0.5"]),
    ),
    st.builds(cancelled, job_ids),
    st.builds(started, job_ids, st.integers(1, 3)),
    st.builds(ended, job_ids, st.integers(1, 3), st.sampled_from(Cause)),
    st.builds(lambda devices: joined(a_node("n1", devices=devices)), st.integers(1, 4)),
    st.just(lost("n1")),
    st.just(ticked()),
)
cycles = st.lists(
    st.tuples(st.lists(events, max_size=4), st.lists(events, max_size=3), st.floats(0, 30)), max_size=15
)


def cycle(scheduler: Scheduler, known: Sequence[Event], late: Sequence[Event]) -> list[Record]:
    """One cycle as the driver has it; return what is in the journal then."""
    plan = scheduler.draft(known)
    if plan.is_empty:
        return [*known]
    if late:
        plan = scheduler.amend(plan, late)
    scheduler.adopt(plan)
    return [*known, *late, *([] if plan.is_empty else [plan])]


@settings(deadline=None, max_examples=150)
@given(given_cycles=cycles)
def test_whatever_happens_while_a_policy_thinks_the_state_is_the_journals(
    given_cycles: list[tuple[list[Event], list[Event], float]],
) -> None:
    scheduler = Scheduler(fifo())
    journal: list[Record] = cycle(scheduler, [joined(a_node("n1", devices=4))], [])
    at_s = 0.0
    for known, late, wait_s in given_cycles:
        at_s += wait_s
        journal += cycle(
            scheduler,
            [replace(event, at_s=at_s) for event in known],
            [replace(event, at_s=at_s + wait_s / 2) for event in late],
        )
        scheduler.state.validate()
        assert replay(journal).image() == scheduler.state.image()


def test_what_came_late_is_decided_in_the_next_cycle() -> None:
    scheduler = Scheduler(fifo())
    plan = scheduler.draft([joined(a_node(devices=2)), submitted(a_job("j1"))])
    plan = scheduler.amend(plan, [submitted(a_job("j2"), 5.0)])
    assert [start.job_id for start in plan.starts] == ["j1"], "a new job leaves a draft as it is"
    scheduler.adopt(plan)
    later = scheduler.draft([])
    assert [start.job_id for start in later.starts] == ["j2"]
    scheduler.adopt(later)
    assert scheduler.draft([]).is_empty


def test_a_draft_to_start_what_was_cancelled_meanwhile_is_dropped() -> None:
    scheduler = Scheduler(fifo())
    plan = scheduler.draft([joined(a_node(devices=2)), submitted(a_job("j1")), submitted(a_job("j2"))])
    plan = scheduler.amend(plan, [cancelled("j1")])
    assert plan.is_empty
    again = scheduler.draft([])
    assert [start.job_id for start in again.starts] == ["j2"]
    scheduler.adopt(again)
    assert scheduler.state.jobs["j1"].state is JobState.CANCELLED
    scheduler.state.validate()
