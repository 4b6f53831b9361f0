"""The jobs that run, as columns: what they say is what each job says, whatever came and went before."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.running import RunningJobs
from artesian.model.snapshot import RunningJob
from artesian.policy.order import LeastAttained
from artesian.policy.room import Limits
from builders import a_job, a_placement

AT_S = 1000.0

entries = st.builds(
    lambda number, team, every_s, since_s, epoch, is_stopping, devices, started_s, saved_s: RunningJob(
        job=a_job(f"j{number}", devices=devices, team=team, checkpoint_every_s=every_s),
        epoch=epoch,
        placement=a_placement(("n1", range(2))),
        since_s=since_s,
        is_stopping=is_stopping,
        started_s=started_s,
        saved_s=saved_s,
    ),
    number=st.integers(0, 20),
    team=st.sampled_from(["red", "blue"]),
    every_s=st.sampled_from([None, None, 0.0, 7.0, 600.0]),
    since_s=st.sampled_from([0.0, 1.0, 10.5, 400.0, 999.0]),
    epoch=st.integers(1, 4),
    is_stopping=st.booleans(),
    devices=st.sampled_from(["cpu:2", "cpu:1..2", "cpu:2..4"]),
    started_s=st.sampled_from([None, None, 402.0, 1003.0]),
    saved_s=st.sampled_from([None, None, None, 0.5, 700.0, 1001.0]),
)


def priced(entry: RunningJob) -> tuple[Any, ...]:
    return (entry.lost_s(AT_S), -entry.since_s, entry.job.id)


@given(changes=st.lists(st.tuples(st.booleans(), entries), max_size=40), data=st.data())
def test_columns_say_of_every_job_what_it_says_itself(
    changes: list[tuple[bool, RunningJob]], data: st.DataObject
) -> None:
    running = RunningJobs()
    made_at = data.draw(st.integers(0, len(changes)))
    for number, (is_in, entry) in enumerate(changes):
        if number == made_at:
            running.columns  # noqa: B018 - from now on they are kept
        if is_in:
            running.put(entry)
        elif entry.job.id in running:
            running.remove(entry.job.id)
    columns, limits = running.columns, Limits(min_runtime_s=300.0)
    everybody = sorted(running.values(), key=priced)
    lost_s = columns.lost_s(AT_S)

    def found(among: Any) -> list[RunningJob]:
        return list(columns.rising(among, lost_s))

    assert found(columns.is_held) == everybody
    assert running.stopping == {entry.job.id: entry for entry in everybody if entry.is_stopping}
    assert found(limits.may_stop(columns, AT_S)) == [
        entry
        for entry in everybody
        if entry.is_preemptible and entry.since_s + 300.0 * 2.0 ** (entry.epoch - 1) <= AT_S
    ]
    assert found(columns.is_held & columns.of({("red", 0), ("green", 0)})) == [
        entry for entry in everybody if entry.job.team == "red"
    ]
    assert found(columns.is_held & columns.saves) == [entry for entry in everybody if entry.saves]
    assert found(columns.is_growable & columns.is_held) == [
        entry for entry in everybody if entry.job.devices[0].max_devices > 2
    ]
    order = LeastAttained(levels_device_s=(100.0, 1000.0), step_s=50.0)
    served = columns.served_s(AT_S)
    sunk = columns.is_held & (order.levels(served) > 1)
    assert found(sunk) == [entry for entry in everybody if order.level(entry.served_s(AT_S)) > 1]
    assert columns.spare[columns.is_held].sum() == sum(2 - entry.job.fewest_devices for entry in everybody)


def test_many_come_in_the_order_of_their_prices() -> None:
    running = RunningJobs()
    for number in range(3000):
        job = a_job(f"j{number}", checkpoint_every_s=None if number % 3 else 50.0)
        running.put(
            RunningJob(
                job=job,
                epoch=1,
                placement=a_placement(("n1", [0])),
                since_s=float(number * 7919 % 600),
                is_stopping=False,
            )
        )
    columns = running.columns
    everybody = sorted(running.values(), key=priced)
    rising = columns.rising(columns.is_held, columns.lost_s(AT_S))
    begun = iter(rising)
    assert [next(begun) for _ in range(700)] == everybody[:700]
    # Others ask for some of them meanwhile, or for all: what has been sorted for one is there for the next.
    late = columns.is_held & (columns.since_s > 500.0)
    assert list(rising.within(late)) == [entry for entry in everybody if entry.since_s > 500.0]
    assert list(rising) == everybody
    assert list(begun) == everybody[700:]


def test_running_jobs_are_a_mapping_by_id() -> None:
    job = a_job("a")
    entry = RunningJob(job=job, epoch=1, placement=a_placement(("n1", [0])), since_s=0.0, is_stopping=True)
    running = RunningJobs([entry])
    assert RunningJobs.of(running) is running
    assert dict(RunningJobs.of({"a": entry})) == dict(running) == {"a": entry}
    assert (list(running), len(running), "b" in running, running.get("b")) == (["a"], 1, False, None)
    running.put(replace(entry, is_stopping=False))
    assert not running.stopping
    running.remove("a")
    assert not running
    assert not np.any(running.columns.is_held)
