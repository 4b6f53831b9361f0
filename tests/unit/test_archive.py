"""The archive: jobs that were over long ago are all still there, as they were, in less memory."""

import itertools
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from artesian.kernel import archive
from artesian.kernel.accounting import waterfall
from artesian.kernel.image import StateImage
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import Record, State
from artesian.model.plan import Plan
from builders import a_job, a_node, cancelled, ended, fifo, joined, started, submitted


def history(jobs: int) -> list[Record]:
    """One job after the other on one node; each third is cancelled while it waits."""
    scheduler, records = Scheduler(fifo()), list[Record]()

    def happens(*events: object) -> None:
        for event in events:
            records.append(event)  # type: ignore[arg-type]
            records.append(scheduler.step([event]))  # type: ignore[list-item]

    clock = itertools.count(1.0)
    happens(joined(a_node(devices=1), next(clock)))
    for number in range(jobs):
        id_ = f"j{number:04}"
        happens(submitted(a_job(id_, devices="cpu:1", team=f"t{number % 3}"), next(clock)))
        happens(submitted(a_job(f"{id_}-next", devices="cpu:1"), next(clock)))
        happens(started(id_, 1, next(clock)), cancelled(f"{id_}-next", next(clock)))
        happens(ended(id_, 1, at_s=next(clock)))
    return [record for record in records if not (isinstance(record, Plan) and record.is_empty)]


def by_id(state: State) -> dict[str, object]:
    return {record.job.id: record for record in state.records()}


@pytest.mark.parametrize("keeps", [0, 1, 7, 150])
def test_nothing_is_lost_and_nothing_changes(keeps: int) -> None:
    records = history(130)
    whole, packed = replay(records), replay(records, State(keeps_over=keeps))
    packed.validate()
    assert len(packed.archive) == 260 - keeps
    assert len(packed.jobs) == keeps
    assert by_id(packed) == by_id(whole) == whole.jobs
    assert all(packed.record(id_) == record for id_, record in whole.jobs.items())
    assert packed.record("nobody") is None
    assert ("j0000" in packed, "nobody" in packed) == (True, False)


def test_a_snapshot_and_what_follows_give_the_archive_of_a_full_replay() -> None:
    records = history(130)
    through = replay(records[: len(records) // 2], State(keeps_over=5))
    image = msgspec.json.decode(msgspec.json.encode(through.image()), type=StateImage)
    resumed = replay(records[len(records) // 2 :], State.from_image(image))
    assert resumed.image() == replay(records, State(keeps_over=5)).image()
    assert resumed.archive.blocks == replay(records, State(keeps_over=5)).archive.blocks


def test_an_id_of_the_archive_is_not_given_to_another_job() -> None:
    records = history(60)
    state = replay(records, State(keeps_over=0))
    before = state.record("j0000")
    state.apply(submitted(a_job("j0000", devices="cpu:1", team="another"), 9e9))
    state.apply(cancelled("j0000", 9e9))
    state.validate()
    assert state.record("j0000") == before
    assert "j0000" not in state.jobs


@pytest.mark.parametrize("window", [(0.0, 1e4), (100.0, 300.0), (290.0, 1e4)])
def test_the_ledger_counts_what_the_archive_has(window: tuple[float, float]) -> None:
    records = history(130)

    def found(state: State) -> object:
        return waterfall(
            state, {}, start_s=window[0], end_s=window[1], ceilings={}, is_simulated=False
        ).to_dict()

    assert found(replay(records, State(keeps_over=3))) == found(replay(records))


def test_those_that_ended_after_a_time_are_found_without_the_others() -> None:
    state = replay(history(130), State(keeps_over=0))
    cut_s = 400.0
    late = {record.job.id for record in state.archive.records(ended_after_s=cut_s)}
    assert late >= {r.job.id for r in state.records() if r.ended_s is not None and r.ended_s > cut_s}
    assert len(late) < len(state.archive)


def test_an_iteration_goes_on_over_what_was_there_when_it_began() -> None:
    records = history(130)
    state = replay(records[:500], State(keeps_over=0))
    there, going = len(state.archive), state.archive.records()
    replay(records[500:], state)
    assert len(list(going)) == there < len(state.archive)


def test_packed_jobs_take_a_fraction_of_the_memory() -> None:
    records = history(1500)
    copies = msgspec.json.encode(list(replay(records).records()))

    def held_bytes(make: Callable[[], object]) -> int:
        tracemalloc.start()
        kept = make()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del kept
        return held

    loose = held_bytes(lambda: msgspec.json.decode(copies, type=list[JobRecord]))

    def pack() -> archive.Archive:
        packed = archive.Archive(0)
        for record in msgspec.json.decode(copies, type=list[JobRecord]):
            packed.put(record)
        return packed

    assert held_bytes(pack) < loose / 3
