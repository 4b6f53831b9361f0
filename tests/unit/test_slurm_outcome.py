"""Slurm's states as causes, and its nodes as ours."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.engines.local.records import Ended
from artesian.engines.slurm.inventory import Amount, Held, offers_of
from artesian.engines.slurm.outcome import outcome_of_job
from artesian.engines.slurm.parse import SlurmJob
from artesian.model.job import Cause
from slurm_builders import a_slurm_node


@pytest.mark.parametrize(
    ("state", "ended", "cause"),
    [
        ("COMPLETED", Ended(at_s=1.0, exit_code=0), Cause.COMPLETED),
        ("FAILED", Ended(at_s=1.0, exit_code=3), Cause.USER_ERROR),
        ("FAILED", Ended(at_s=1.0, signal=11), Cause.SIGNAL),
        ("FAILED", Ended(at_s=1.0, signal=9, is_oom_kill=True), Cause.OOM_KILL),
        ("FAILED", Ended(at_s=1.0, start_error="no such program"), Cause.START_FAILED),
        ("COMPLETED", Ended(at_s=1.0, exit_code=0, was_stopped=True), Cause.SIGNAL),
        ("BOOT_FAIL", None, Cause.NODE_LOST),
        ("NODE_FAIL", None, Cause.NODE_LOST),
        ("NODE_FAIL", Ended(at_s=1.0, signal=15, was_stopped=True), Cause.NODE_LOST),
        ("PREEMPTED", Ended(at_s=1.0, exit_code=0, was_stopped=True), Cause.PREEMPTED),
        ("REQUEUED", None, Cause.PREEMPTED),
        ("REVOKED", None, Cause.PREEMPTED),
        ("OUT_OF_MEMORY", Ended(at_s=1.0, signal=9), Cause.OOM_KILL),
        ("TIMEOUT", Ended(at_s=1.0, exit_code=0, was_stopped=True), Cause.SIGNAL),
        ("DEADLINE", None, Cause.SIGNAL),
        ("CANCELLED", Ended(at_s=1.0, signal=15, was_stopped=True), Cause.CANCELLED),
        # Slurm's signal ended the command before its supervisor was told of it.
        ("CANCELLED", Ended(at_s=1.0, signal=15), Cause.CANCELLED),
        ("CANCELLED", Ended(at_s=1.0, signal=9), Cause.CANCELLED),
        ("CANCELLED", Ended(at_s=1.0, exit_code=143), Cause.CANCELLED),
        # The cancel came too late.
        ("CANCELLED", Ended(at_s=1.0, exit_code=0), Cause.COMPLETED),
        ("CANCELLED", Ended(at_s=1.0, exit_code=3), Cause.USER_ERROR),
        ("CANCELLED", Ended(at_s=1.0, signal=9, is_oom_kill=True), Cause.OOM_KILL),
        ("NO_SUCH_JOB", Ended(at_s=1.0, exit_code=0), Cause.COMPLETED),
        ("NO_SUCH_JOB", None, Cause.NODE_LOST),
        ("FAILED", None, Cause.NODE_LOST),
    ],
)
def test_every_state_has_its_cause(state: str, ended: Ended | None, cause: Cause) -> None:
    job = None if state == "NO_SUCH_JOB" else SlurmJob(id=1, state=state, comment="", signal=9)
    outcome = outcome_of_job(state, job, ended, None, is_claimed=True, log="")
    assert outcome.cause is cause
    assert outcome.message or cause is Cause.COMPLETED


def test_an_attempt_that_never_began_did_not_start_for_the_reason_that_the_batch_script_gave() -> None:
    job = SlurmJob(id=1, state="FAILED", comment="", exit_code=127)
    outcome = outcome_of_job("FAILED", job, None, None, is_claimed=False, log="exec: python9: not found")
    assert (outcome.cause, outcome.message) == (Cause.START_FAILED, "exec: python9: not found")


def test_where_the_record_does_not_come_slurms_exit_code_counts() -> None:
    for code, cause in ((0, Cause.COMPLETED), (3, Cause.USER_ERROR)):
        job = SlurmJob(id=1, state="COMPLETED" if code == 0 else "FAILED", comment="", exit_code=code)
        assert outcome_of_job(job.state, job, None, None, is_claimed=True, log="").cause is cause


# -- nodes ------------------------------------------------------------------------------------------


def occupied(node: dict[str, Any], held: Held | None = None) -> tuple[int, ...]:
    offers = offers_of(
        [a_slurm_node(**node)], {"h1": held or Held()}, partition="all", pool="p", accelerators={}
    )
    return offers["h1"].node.occupied


@pytest.mark.parametrize(
    ("node", "count"),
    [
        ({}, 0),
        ({"gres_used": {"h100": 3}, "cpus_used": 1}, 3),
        ({"cpus_used": 32}, 8),  # others have taken the whole node's CPUs: its devices are of no use
        ({"cpus_used": 17}, 5),
        ({"memory_used_bytes": 33 * 2**30}, 5),
        ({"states": frozenset({"MIXED", "DRAIN"})}, None),
        ({"states": frozenset({"IDLE", "NOT_RESPONDING"})}, 8),
        ({"states": frozenset({"UNKNOWN"})}, 8),
    ],
)
def test_what_others_use_or_leave_without_a_host_is_occupied(node: dict[str, Any], count: int | None) -> None:
    if count is None:
        assert offers_of([a_slurm_node(**node)], {}, partition="all", pool="p", accelerators={}) == {}
    else:
        assert len(occupied(node)) == count


@pytest.mark.parametrize("state", ["DOWN", "FAIL", "DRAINED"])
def test_nodes_that_are_gone_or_taken_out_are_not_offered(state: str) -> None:
    node = a_slurm_node(states=frozenset({state}))
    assert offers_of([node], {}, partition="all", pool="p", accelerators={}) == {}
    assert offers_of([a_slurm_node()], {}, partition="other", pool="p", accelerators={}) == {}


def test_the_catalogue_says_what_a_type_is_where_the_site_says_which() -> None:
    (offer,) = offers_of(
        [a_slurm_node()], {}, partition=None, pool="east", accelerators={"h100": "H100-SXM5-80GB"}
    ).values()
    assert (offer.node.accelerator, offer.node.vendor, offer.node.pool) == (
        "H100-SXM5-80GB",
        "nvidia",
        "east",
    )
    assert offer.node.peak_flops
    assert offer.gres_type == "h100"


@given(
    ours=st.sets(st.integers(0, 7)),
    is_granted=st.booleans(),
    foreign=st.integers(0, 8),
)
def test_what_is_ours_and_what_others_have_is_counted_once(
    ours: set[int], is_granted: bool, foreign: int
) -> None:
    amount = Amount(devices=len(ours), cpus=4 * len(ours))
    held = Held(devices=frozenset(ours), planned=amount, granted=amount if is_granted else Amount())
    granted = len(ours) if is_granted else 0
    used = min(8, foreign + granted)
    foreign = used - granted
    seen = occupied({"gres_used": {"h100": used}, "cpus_used": held.granted.cpus}, held)
    assert not set(seen) & ours
    assert len(seen) == min(foreign, 8 - len(ours))
