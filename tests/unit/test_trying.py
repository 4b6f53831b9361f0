"""A policy that decides on the scheduler's own trial: what it has taken stays taken, once it is what it starts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.kernel.scheduler import PlanRejected, Scheduler
from artesian.kernel.state import State
from artesian.model.capacity import Trial
from artesian.model.events import Event
from artesian.model.plan import Plan, Reason, Start
from artesian.model.snapshot import Snapshot
from artesian.policy.base import Policy, Trying
from artesian.policy.registry import policy
from builders import Kernel, a_job, a_node, a_placement, ended, free_of, joined, lost, started, submitted
from strategies import ENDS, fleet_nodes, jobs
from worlds import World

JOB_IDS = [f"j{number}" for number in range(6)]

Tries = Callable[[Snapshot, Trial], Sequence[Start]]


@dataclass(frozen=True)
class TriesOut:
    """A policy that takes and plans what the test says."""

    tries: Tries
    later_s: float = 0.0

    def plan_on(self, snapshot: Snapshot, trial: Trial) -> Plan:
        """Have the test take what it likes, and return what it says."""
        return Plan(at_s=snapshot.at_s + self.later_s, starts=tuple(self.tries(snapshot, trial)))

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the same."""
        with snapshot.capacity.trial() as trial:
            return self.plan_on(snapshot, trial)

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return nothing: nobody asks."""
        del snapshot, job_id
        return None


def a_start(job_id: str, *shares: tuple[str, list[int]]) -> Start:
    return Start(job_id=job_id, epoch=1, placement=a_placement(*shares), reason="the test says so")


def is_true(state: State) -> bool:
    """Whether what is free is what nobody holds."""
    kept, fresh = state.capacity, State.from_image(state.image()).capacity
    ends_s = [one.expected_ends_s(state.at_s).tolist() for one in (kept, fresh)]
    return (free_of(kept), kept.used, ends_s[0]) == (free_of(fresh), fresh.used, ends_s[1])


def takes(snapshot: Snapshot, trial: Trial, start: Start, at_s: float | None = None) -> Start:
    """Take what is started, and return it."""
    trial.take(snapshot.waiting[start.job_id].job, start.placement, at_s=at_s)
    return start


def honest(snapshot: Snapshot, trial: Trial) -> list[Start]:
    return [takes(snapshot, trial, a_start("j1", ("n1", [0, 1])), snapshot.at_s)]


def at_no_time(snapshot: Snapshot, trial: Trial) -> list[Start]:
    return [takes(snapshot, trial, a_start("j1", ("n1", [0, 1])))]


def elsewhere(snapshot: Snapshot, trial: Trial) -> list[Start]:
    takes(snapshot, trial, a_start("j1", ("n1", [0, 1])), snapshot.at_s)
    return [a_start("j1", ("n1", [1, 2]))]


def for_another(snapshot: Snapshot, trial: Trial) -> list[Start]:
    start = takes(snapshot, trial, a_start("j2", ("n1", [0, 1])), snapshot.at_s)
    return [Start(job_id="j1", epoch=1, placement=start.placement, reason="the test says so")]


def more_than_it_starts(snapshot: Snapshot, trial: Trial) -> list[Start]:
    starts = honest(snapshot, trial)
    takes(snapshot, trial, a_start("j2", ("n1", [2, 3])), snapshot.at_s)
    return starts


def less_than_it_starts(snapshot: Snapshot, trial: Trial) -> list[Start]:
    return [*honest(snapshot, trial), a_start("j2", ("n1", [2, 3]))]


def what_it_gives_back(snapshot: Snapshot, trial: Trial) -> list[Start]:
    runs = snapshot.running["runs"]
    trial.give(runs.job, runs.placement)
    return honest(snapshot, trial)


def what_it_charges_to_another(snapshot: Snapshot, trial: Trial) -> list[Start]:
    trial.charge(snapshot.running["runs"].job, snapshot.running["runs"].placement, -1)
    return honest(snapshot, trial)


def a_kernel(tries: Tries) -> Kernel:
    kernel = Kernel(a_node("n1", devices=5), a_node("down", devices=2))
    kernel.step(lost("down"))
    runs = TriesOut(lambda *_: [a_start("runs", ("n1", [4]))])
    assert isinstance(runs, Trying)
    kernel.scheduler = Scheduler(runs, kernel.state)
    kernel.submit(a_job("runs"))
    kernel.scheduler = Scheduler(TriesOut(tries), kernel.state)
    return kernel


@pytest.mark.parametrize(
    "tries",
    [
        honest,
        at_no_time,
        elsewhere,
        for_another,
        more_than_it_starts,
        less_than_it_starts,
        what_it_gives_back,
        what_it_charges_to_another,
    ],
)
def test_whatever_a_policy_tries_out_only_what_it_starts_is_taken(tries: Tries) -> None:
    kernel = a_kernel(tries)
    two = [a_job(id, devices="cpu:2", estimated_duration_s=9.0, team=id) for id in ("j1", "j2")]
    plan = kernel.submit(*two, at_s=3.0)
    assert plan.starts
    assert {"runs", *(start.job_id for start in plan.starts)} == set(kernel.state.running)
    assert is_true(kernel.state)


def test_what_starts_later_than_it_was_taken_is_held_from_then_on() -> None:
    kernel = a_kernel(honest)
    kernel.scheduler = Scheduler(TriesOut(honest, later_s=2.0), kernel.state)
    assert kernel.submit(a_job("j1", devices="cpu:2", estimated_duration_s=9.0)).starts
    assert is_true(kernel.state)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (a_start("j1", ("n1", [0])), r"n1\[0\] is no gang"),
        (a_start("j1", ("down", [0, 1])), "node down is not there, or takes no"),
        (a_start("hungry", ("n1", [0])), "has not the CPUs and the memory for 1"),
    ],
)
def test_what_may_not_be_is_rejected_though_it_could_be_taken(start: Start, said: str) -> None:
    kernel = a_kernel(lambda snapshot, trial: [takes(snapshot, trial, start, snapshot.at_s)])
    with pytest.raises(PlanRejected, match=said):
        kernel.submit(a_job("j1", devices="cpu:2"), a_job("hungry", cpus_per_device=500.0))
    assert list(kernel.state.running) == ["runs"]
    assert is_true(kernel.state)


def test_what_is_not_free_cannot_be_taken_and_leaves_what_is_free_as_it_was() -> None:
    def tries(snapshot: Snapshot, trial: Trial) -> list[Start]:
        return [*honest(snapshot, trial), takes(snapshot, trial, a_start("j2", ("n1", [3, 4])))]

    kernel = a_kernel(tries)
    with pytest.raises(AssertionError, match=r"n1\[3,4\] is oversubscribed"):
        kernel.submit(a_job("j1", devices="cpu:2"), a_job("j2", devices="cpu:2"))
    assert list(kernel.state.running) == ["runs"]
    assert is_true(kernel.state)


def test_of_a_draft_nothing_is_taken() -> None:
    kernel = a_kernel(honest)
    plan = kernel.scheduler.draft([submitted(a_job("j1", devices="cpu:2"))])
    assert plan.starts
    assert list(kernel.state.running) == ["runs"]
    assert is_true(kernel.state)


@pytest.mark.parametrize("name", ["easy", "shortest-aged", "fifo"])
@given(data=st.data())
def test_a_step_decides_and_leaves_what_a_draft_and_its_adoption_do(name: str, data: st.DataObject) -> None:
    nodes = [joined(data.draw(fleet_nodes(id))) for id in ("n1", "n2")]
    at_once, in_two = (Scheduler(made(name)) for made in (policy, policy))
    batch: list[Event] = [*nodes]
    for number, id in enumerate(JOB_IDS):
        at_s = float(number)
        batch.append(submitted(data.draw(jobs(id)), at_s))
        for running in sorted(at_once.state.running):
            epoch = at_once.state.running[running].epoch
            if data.draw(st.booleans()):
                cause = data.draw(st.sampled_from(ENDS))
                batch += [started(running, epoch, at_s), ended(running, epoch, cause, at_s)]
        plan = at_once.step(batch)
        draft = in_two.draft(batch)
        in_two.adopt(draft)
        assert plan == draft
        assert at_once.state.image() == in_two.state.image()
        for state in (at_once.state, in_two.state):
            state.validate()
            assert is_true(state)
        batch = []


def test_the_policies_that_are_such_say_so() -> None:
    tried: list[Policy] = [policy("easy"), policy("fifo")]
    assert all(isinstance(one, Trying) for one in tried)


@pytest.mark.parametrize("steps", [6, 10, 14])
@pytest.mark.parametrize("seed", [4, 7, 13, 23])  # in these, one of those who share a device has just left
def test_what_a_fleet_with_a_past_knows_of_its_devices_is_what_a_replay_would(seed: int, steps: int) -> None:
    assert is_true(World(seed, policy("easy"), steps=steps).scheduler.state)
