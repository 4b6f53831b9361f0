"""What must always hold of a state, whatever happened."""

from typing import TYPE_CHECKING

from artesian.kernel.lifecycle import JobState
from artesian.kernel.seen import as_running, as_waiting
from artesian.kernel.served import NOTHING, served_by
from artesian.model.resources import MILLI

if TYPE_CHECKING:
    from artesian.kernel.state import State


def check(state: "State") -> None:
    """Raise AssertionError when the state contradicts itself."""
    assert len({*state.jobs, *state.archive.ids}) == state.submitted
    _check_jobs(state)
    _check_devices(state)
    excluded = {id_ for id_, known in state.nodes.items() if known.exclusion is not None and known.is_up}
    assert {known.node.id for known in state.excluded} == excluded
    for node_id, known in state.nodes.items():
        assert known.next_node is None or state.holders_beyond(known.next_node), node_id


def _check_jobs(state: "State") -> None:
    to_stop = {record.job.id for record in state.to_stop}
    for job_id, job in state.jobs.items():
        served = NOTHING if job.state.is_final else served_by(job)
        assert state.served.get(job_id, NOTHING) == served, job_id
        is_queued, holds = job.state is JobState.QUEUED, job.state.holds_devices
        assert state.waiting.get(job_id) == (as_waiting(job, served) if is_queued else None), job_id
        assert state.running.get(job_id) == (as_running(job, served) if holds else None), job_id
        assert (job.due_s is not None) == (job.state is JobState.BACKING_OFF), job_id
        assert [a.epoch for a in job.attempts] == list(range(1, job.epoch + 1)), job_id
        assert all(a.ended_s is not None for a in job.attempts[:-1]), job_id
        if job.attempts:
            assert (job.attempt.ended_s is None) == holds, job_id
        assert job.history[-1].state is job.state, job_id
        is_due_to_stop = holds and job.attempt.stop_cause is not None
        assert is_due_to_stop == (job.state is JobState.STOPPING), job_id
        assert (job_id in to_stop) == (is_due_to_stop and not job.attempt.is_stop_decided), job_id


def _check_devices(state: "State") -> None:
    taken: dict[tuple[str, int], int] = {}
    for entry in state.running.values():
        for share in entry.placement.shares:
            for device in share.devices:
                taken[share.node_id, device] = taken.get((share.node_id, device), 0) + share.milli
    for (node_id, device), milli in taken.items():
        assert device < state.nodes[node_id].node.devices, (node_id, device)
        assert milli <= MILLI, f"device {node_id}[{device}] is oversubscribed: {milli}"
