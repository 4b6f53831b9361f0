"""What attempts tell of themselves: the price of stopping them, how fast they are, and how that gets to the kernel."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.engines.listening import LOOK_EVERY_S, SAY_EVERY_S, Heard, Listening
from artesian.engines.local.engine import attempt_folder
from artesian.kernel.image import StateImage
from artesian.kernel.state import State
from artesian.model.events import AttemptProgressed, Event
from artesian.model.job import Cause, JobKind
from artesian.model.plan import Start
from artesian.model.speeds import Speed, Speeds, family_of
from artesian.policy.backfill import EasyBackfill
from artesian.policy.base import Policy
from artesian.policy.order import AgedPriority
from artesian.policy.place import Pack
from artesian.policy.preemptive import Preemptive
from artesian.policy.rights import ByPriority
from artesian.policy.room import Limits
from artesian.sim import simulate
from artesian.store.codec import decode
from artesian.wire import Message, ProgressWriter
from artesian.wire.channel import worker_file
from builders import Kernel, a_job, a_node, a_placement, ended, progressed, started
from driver_harness import PretendEngine
from simulations import a_fleet, a_sim_job
from worker_messages import began, restored, saved, step

HIGH = 10


def by_priority() -> Policy:
    limits = Limits(min_runtime_s=0.0)
    return Preemptive(EasyBackfill(order=AgedPriority(), place=Pack()), Pack(), (ByPriority(),), limits)


# -- what it does in the kernel -------------------------------------------------------------------------


def test_who_has_just_saved_is_stopped_rather_than_who_began_a_little_later() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("old", devices="cpu:2"))
    kernel.run(a_job("young", devices="cpu:2"), at_s=50.0)
    kernel.step(progressed("old", at_s=90.0, saved_s=85.0))
    plan = kernel.submit(a_job("high", devices="cpu:2", priority=HIGH), at_s=100.0)
    assert [stop.job_id for stop in plan.stops] == ["old"]


def test_what_was_told_of_checkpoints_counts_more_than_what_the_user_said() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("promises", devices="cpu:2", checkpoint_every_s=10.0), a_job("plain", devices="cpu:2"))
    kernel.step(progressed("promises", at_s=20.0, saved_s=10.0), progressed("plain", at_s=90.0, saved_s=80.0))
    assert kernel.state.running["promises"].lost_s(100.0) == 90.0
    plan = kernel.submit(a_job("high", devices="cpu:2", priority=HIGH), at_s=100.0)
    assert [stop.job_id for stop in plan.stops] == ["plain"]


def test_who_told_of_a_checkpoint_can_be_moved() -> None:
    kernel = Kernel(a_node(devices=8), policy=by_priority())
    kernel.run(a_job("elastic", devices="cpu:2..8"))
    kernel.step(progressed("elastic", at_s=8.0, saved_s=8.0))
    plan = kernel.submit(a_job("other", devices="cpu:3"), at_s=9.0)
    assert [stop.job_id for stop in plan.stops] == ["elastic"]


def test_the_next_attempt_loses_what_it_has_done_itself_and_no_more() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.run(a_job())
    kernel.step(progressed(at_s=50.0, saved_s=40.0))
    kernel.step(ended(cause=Cause.NODE_LOST, at_s=100.0))
    assert kernel.state.running["j1"].epoch == 2
    assert kernel.state.running["j1"].saves
    assert kernel.state.running["j1"].lost_s(130.0) == 30.0


def test_an_interval_counts_from_when_the_processes_run() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_job(checkpoint_every_s=60.0))
    kernel.step(started(at_s=25.0))
    assert kernel.state.running["j1"].lost_s(25.0 + 130.0) == 10.0


def test_what_is_said_of_an_attempt_that_is_over_changes_nothing() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.run(a_job())
    kernel.step(ended(cause=Cause.NODE_LOST, at_s=10.0))
    before = msgspec.json.encode(kernel.state.image())
    kernel.step(progressed(epoch=1, at_s=10.0, saved_s=9.0, steps=9.0, steps_s=9.0))
    assert kernel.state.stale_events == 1
    kernel.state.stale_events = 0
    assert msgspec.json.encode(kernel.state.image()) == before


def test_no_plan_is_made_for_it_by_a_policy_that_does_not_look_at_time() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.run(a_job("runs"), a_job("waits"))
    changes = kernel.state.changes
    kernel.step(progressed("runs", at_s=5.0, saved_s=4.0))
    assert kernel.state.changes == changes


# -- speeds ---------------------------------------------------------------------------------------------


def test_steps_are_counted_once_however_often_they_are_told() -> None:
    kernel = Kernel(a_node(devices=4))
    kernel.run(a_job(devices="cpu:4", profile="bert"))
    for _ in range(2):
        kernel.step(progressed(at_s=60.0, steps=100.0, steps_s=50.0))
    kernel.step(progressed(at_s=120.0, steps=300.0, steps_s=100.0))
    assert list(kernel.state.speeds) == [
        Speed(family="bert", accelerator="cpu", devices=4.0, steps=300.0, seconds=100.0)
    ]
    assert kernel.state.speeds.steps_per_s("bert", "cpu", 4.0) == 3.0
    assert kernel.state.speeds.steps_per_s("bert", "cpu", 2.0) is None, "unknown stays unknown"


@given(
    told=st.lists(
        st.tuples(
            st.integers(1, 8),
            st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=8,
    ),
    is_told_twice=st.booleans(),
)
def test_steps_are_booked_under_the_number_of_devices_that_made_them(
    told: list[tuple[int, list[tuple[int, int]]]], is_told_twice: bool
) -> None:
    kernel = Kernel(a_node(devices=16))
    kernel.run(a_job(kind=JobKind.TRAIN, devices="cpu:16", workers=8, profile="bert"))
    steps = steps_s = 0
    made: Counter[tuple[float, str]] = Counter()
    for workers, parts in told:
        for more, more_s in parts:
            steps, steps_s = steps + more, steps_s + more_s
            for _ in range(1 + is_told_twice):
                kernel.step(progressed(steps=float(steps), steps_s=float(steps_s), workers=workers))
            made[2.0 * workers, "steps"] += more
            made[2.0 * workers, "seconds"] += more_s
    learnt = {speed.devices: (speed.steps, speed.seconds) for speed in kernel.state.speeds}
    assert learnt == {size: (made[size, "steps"], made[size, "seconds"]) for size, _ in made}
    image = msgspec.json.decode(msgspec.json.encode(kernel.state.image()), type=StateImage)
    assert State.from_image(image).speeds == kernel.state.speeds


def test_where_the_command_starts_its_workers_itself_all_are_the_most_that_it_told_of() -> None:
    kernel = Kernel(a_node(devices=8))
    kernel.run(a_job(devices="cpu:8"))
    assert kernel.job("j1").job.gang_size(8) == 0
    for number, workers in enumerate([4, 2, 4], start=1):
        kernel.step(progressed(steps=number * 10.0, steps_s=number * 5.0, workers=workers))
    assert [(speed.devices, speed.steps) for speed in kernel.state.speeds] == [(4.0, 10.0), (8.0, 20.0)]


def test_an_event_of_an_earlier_version_is_about_all_devices_of_the_placement() -> None:
    before = b'{"at_s":1.0,"job_id":"j1","epoch":1,"saved_s":null,"steps":4.0,"steps_s":2.0}'
    event = decode("AttemptProgressed", before)
    assert isinstance(event, AttemptProgressed)
    assert event.workers is None
    kernel = Kernel(a_node(devices=8))
    kernel.run(a_job(devices="cpu:8"))
    kernel.step(event)
    assert [(speed.devices, speed.steps) for speed in kernel.state.speeds] == [(8.0, 4.0)]


def test_a_family_is_a_profile_or_else_the_same_command_of_the_same_user_under_the_same_name() -> None:
    plain = a_job("a", name="train", user="ann", command=("python", "train.py"))
    again = a_job("b", name="train", user="ann", command=("python", "train.py"))
    assert family_of(plain) == family_of(again)
    others = [
        a_job("c", name="train", user="ann", command=("python", "train.py", "--lr=1")),
        a_job("d", name="train", user="bob", command=("python", "train.py")),
        a_job("e", name="eval", user="ann", command=("python", "train.py")),
        a_job("f", name="train", user="ann", command=("pythontrain.py",)),
    ]
    assert len({family_of(job) for job in (plain, *others)}) == 5
    assert family_of(a_job("g", profile="bert")) == family_of(a_job("h", name="x", profile="bert"))


def test_what_was_measured_long_ago_counts_less_and_less() -> None:
    speeds = Speeds()
    for _ in range(100):
        speeds.add(Speed(family="f", accelerator="A100", devices=1.0, steps=3600.0, seconds=3600.0))
    for _ in range(30):
        speeds.add(Speed(family="f", accelerator="A100", devices=1.0, steps=7200.0, seconds=3600.0))
    assert speeds.steps_per_s("f", "A100", 1.0) == pytest.approx(2.0, rel=0.02)


def test_the_longest_untouched_are_forgotten_where_there_are_too_many() -> None:
    speeds = Speeds()
    one = Speed(family="f0", accelerator="A100", devices=1.0, steps=1.0, seconds=1.0)
    for number in range(10_001):
        speeds.add(Speed(family=f"f{number}", accelerator="A100", devices=1.0, steps=1.0, seconds=1.0))
        speeds.add(one)
    assert len(speeds) == 10_000
    assert speeds.steps_per_s("f0", "A100", 1.0) == 1.0
    assert speeds.steps_per_s("f1", "A100", 1.0) is None


@given(
    told=st.lists(
        st.tuples(st.sampled_from([0.0, 5.0, 10.0, 40.0]), st.sampled_from([0.0, 3.0, 7.0])), max_size=6
    )
)
def test_a_state_from_its_image_has_the_same_speeds_and_checkpoints(told: list[tuple[float, float]]) -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.run(a_job(devices="cpu:2"))
    for number, (saved_s, steps) in enumerate(told):
        kernel.step(progressed(at_s=50.0 + number, saved_s=saved_s or None, steps=steps, steps_s=steps / 2))
    image = msgspec.json.decode(msgspec.json.encode(kernel.state.image()), type=StateImage)
    state = State.from_image(image)
    state.validate()
    assert state.speeds == kernel.state.speeds
    assert state.running == kernel.state.running
    lost_s = state.running["j1"].lost_s(100.0)
    assert lost_s == 100.0 - max((saved_s for saved_s, _ in told), default=0.0)


# -- how it is heard ------------------------------------------------------------------------------------


def test_the_first_step_and_what_lies_between_restarts_are_no_speed() -> None:
    heard = Heard()
    for number, (start_s, end_s) in enumerate([(0.0, 60.0), (60.0, 61.0), (61.0, 62.0)], start=1):
        heard.take(step(0, number, start_s, end_s))
    heard.take(step(0, 2, 162.0, 163.0))  # it went on from step 1
    heard.take(step(0, 3, 163.0, 164.0))
    assert (heard.steps, heard.steps_s) == (3, 3.0)


def test_a_checkpoint_has_the_work_up_to_the_end_of_its_step_however_late_it_is_durable() -> None:
    heard = Heard()
    heard.take(step(0, 1, 0.0, 10.0))
    heard.take(step(0, 2, 10.0, 20.0))
    heard.take(saved(1, 19.0))
    assert heard.saved_s == 10.0


def listened(
    tmp_path: Path, said: Sequence[tuple[float, Sequence[Message]]], until_s: float
) -> list[AttemptProgressed]:
    """Return what is reported of an attempt whose first worker says this at these times."""
    events: list[Event] = []
    clock = [0.0]

    async def listen() -> None:
        engine = Listening(PretendEngine(a_node(devices=1), lasts_s=1e6), tmp_path, lambda: clock[0])
        await engine.open(events.append)
        engine.start(Start(job_id="j1", epoch=1, placement=a_placement(("n1", [0])), reason="r"), a_job())
        writer = ProgressWriter(worker_file(attempt_folder(tmp_path, "j1", 1).progress, 0))
        left = sorted(said, key=lambda saying: saying[0])
        while clock[0] < until_s:
            clock[0] += LOOK_EVERY_S
            while left and left[0][0] <= clock[0]:
                for message in left.pop(0)[1]:
                    writer.send(message)
            await engine.look()
        await engine.close()
        writer.close()

    asyncio.run(listen())
    return [event for event in events if isinstance(event, AttemptProgressed)]


def test_a_checkpoint_is_reported_and_steps_at_the_same_speed_are_no_news(tmp_path: Path) -> None:
    steps = [(float(number), [step(0, number, number - 1.0, float(number))]) for number in range(1, 400)]
    events = listened(tmp_path, [*steps, (200.5, [saved(200, 200.5)])], until_s=400.0)
    assert [event.saved_s for event in events] == [None, 200.0]
    assert events[0].steps == events[0].steps_s > 0


def test_an_attempt_is_reported_at_most_once_a_minute(tmp_path: Path) -> None:
    said: list[tuple[float, list[Message]]] = [
        (float(number), [step(0, number, number - 1.0, float(number)), saved(number, float(number))])
        for number in range(1, 600)
    ]
    times_s = [event.at_s for event in listened(tmp_path, said, until_s=600.0)]
    assert len(times_s) > 1
    assert all(b - a >= SAY_EVERY_S for a, b in pairwise(times_s))


def test_another_speed_is_news(tmp_path: Path) -> None:
    quick = [(float(number), [step(0, number, number - 1.0, float(number))]) for number in range(1, 101)]
    slow = [
        (100.0 + 4.0 * number, [step(0, 100 + number, 96.0 + 4.0 * number, 100.0 + 4.0 * number)])
        for number in range(1, 50)
    ]
    events = listened(tmp_path, [*quick, *slow], until_s=300.0)
    assert len(events) > 1
    assert events[-1].steps / events[-1].steps_s < 0.75


def test_an_attempt_that_says_nothing_is_not_reported(tmp_path: Path) -> None:
    assert listened(tmp_path, [], until_s=200.0) == []


def resized_gang(sizes: Sequence[tuple[int, float]]) -> list[tuple[float, list[Message]]]:
    """What rank 0 says when the gang has each number of workers for 100 s, and a step takes so long then.

    Each time the first step is left out, as is the minute that the gang takes to form anew.
    """
    said: list[tuple[float, list[Message]]] = []
    at_s, number = 0.0, 0
    for workers, step_s in sizes:
        said.append((at_s, [began(0, at_s, workers), restored(0, number, at_s + 60.0)]))
        at_s += 60.0
        for _ in range(round(100 / step_s)):
            number += 1
            said.append((at_s + step_s, [step(0, number, at_s, at_s + step_s)]))
            at_s += step_s
    return said


@pytest.mark.parametrize("is_read_at_once", [False, True])
def test_each_size_of_a_gang_that_is_formed_anew_has_the_speed_that_it_had(
    tmp_path: Path, is_read_at_once: bool
) -> None:
    """Also where all of it is read at once, by a driver that comes back: what is booked by then counts once."""
    said = resized_gang([(4, 1.0), (2, 2.0), (1, 4.0), (2, 2.0), (4, 1.0)])
    kernel = Kernel(a_node(devices=8))
    kernel.run(a_job(kind=JobKind.TRAIN, devices="cpu:8", workers=4, profile="bert"))
    if is_read_at_once:
        first = listened(tmp_path / "before", said[: len(said) // 2], until_s=1200.0)
        said = [(0.0, [message for _, messages in said for message in messages])]
        kernel.step(*first)
    kernel.step(*listened(tmp_path / "after", said, until_s=1200.0))
    speeds = {speed.devices: speed for speed in kernel.state.speeds}
    assert {size: speed.steps_per_s for size, speed in speeds.items()} == {2.0: 0.25, 4.0: 0.5, 8.0: 1.0}
    assert (speeds[4.0].steps, speeds[2.0].steps) == (2 * 49, 24), "all that was made before it changed again"


# -- in a simulation --------------------------------------------------------------------------------------


def simulated_stops(young_saves_every_s: float | None) -> set[str]:
    """Return who is preempted at 100 s for a high job: ``old``, from 0 s on, or ``young``, from 50 s on."""
    jobs = [
        a_sim_job("old", "cpu:2", takes=500.0, saves_every_s=45.0),
        a_sim_job("young", "cpu:2", at=50.0, takes=500.0, saves_every_s=young_saves_every_s),
        a_sim_job("high", "cpu:2", at=100.0, takes=10.0, priority=HIGH),
    ]
    result = simulate(a_fleet(4), jobs, by_priority(), reports_every_s=1.0)
    result.state.validate()
    return {
        id for id, record in result.state.jobs.items() if record.attempts[0].stop_cause is Cause.PREEMPTED
    }


def test_simulated_attempts_tell_of_their_checkpoints() -> None:
    assert simulated_stops(young_saves_every_s=None) == {"old"}
    assert simulated_stops(young_saves_every_s=49.0) == {"young"}


def test_a_simulation_with_reports_comes_to_the_same_where_the_policy_does_not_look_at_them() -> None:
    jobs = [a_sim_job(f"j{n}", "cpu:2", at=7.0 * n, takes=40.0, saves_every_s=9.0) for n in range(12)]
    plain = simulate(a_fleet(4), jobs, EasyBackfill(order=AgedPriority(), place=Pack()))
    told = simulate(a_fleet(4), jobs, EasyBackfill(order=AgedPriority(), place=Pack()), reports_every_s=10.0)
    told_events = [record for record in told.records if isinstance(record, AttemptProgressed)]
    assert told_events
    assert [r for r in told.records if not isinstance(r, AttemptProgressed)] == list(plain.records)


def test_of_many_attempts_those_are_heard_first_that_were_not_for_longest(tmp_path: Path) -> None:
    heard: list[set[str]] = []
    clock = [0.0]

    async def listen() -> None:
        events: list[Event] = []
        engine = Listening(PretendEngine(a_node(devices=64), lasts_s=1e6), tmp_path, lambda: clock[0])
        await engine.open(events.append)
        writers = []
        for number in range(50):
            start = Start(job_id=f"j{number}", epoch=1, placement=a_placement(("n1", [number])), reason="r")
            engine.start(start, a_job(f"j{number}"))
            folder = attempt_folder(tmp_path, f"j{number}", 1).progress
            writers.append(ProgressWriter(worker_file(folder, 0)))
        events.clear()
        for look in range(1, 5):
            clock[0] += LOOK_EVERY_S
            for writer in writers:
                writer.send(saved(look, clock[0]))
            await engine.look()
            heard.append({event.job_id for event in events if isinstance(event, AttemptProgressed)})
            events.clear()
        await engine.close()
        for writer in writers:
            writer.close()

    asyncio.run(listen())
    assert [len(jobs) for jobs in heard] == [20, 20, 10, 20], "one a second"
    assert heard[0] | heard[1] | heard[2] == {f"j{number}" for number in range(50)}
    assert heard[3] == heard[0], "after a minute"
