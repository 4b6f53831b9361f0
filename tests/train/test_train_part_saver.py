"""The saves of a sharded gang, by all ranks in step: whatever writes take or fail, all write parts of the same saves."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.train import part_saver
from artesian.train.part_saver import PartSaver
from artesian.train.persist import Report
from artesian.train.segment import Snapshot

RANKS, STEPS = 3, 40


class Writer:
    """Stands for a rank's helper: writes for as many steps as it is told, and may fail."""

    def __init__(self, *_: Any, on_report: Any, **__: Any) -> None:
        self.on_report = on_report
        self.step: int | None = None
        self.left = 0
        self.is_given_up = False

    def persist(self, snapshot: Snapshot) -> None:
        assert self.step is None, "one save at a time"
        self.step = snapshot.step

    def give_up(self, step: int) -> None:
        assert step == self.step
        self.is_given_up = True

    def detach(self) -> None: ...
    def close(self) -> None: ...

    def done(self, failure: str | None = None) -> None:
        assert self.step is not None
        step, self.step, self.is_given_up = self.step, None, False
        self.on_report(Report(step=step, failure=failure) if failure else Report(step=step, size_bytes=1))


class Held:
    """Stands for a hold on a snapshot."""

    held: list["Held"]

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        Held.held.append(self)

    def let_go(self) -> None:
        if self in Held.held:
            Held.held.remove(self)


@settings(deadline=None)
@given(
    durations=st.lists(st.integers(0, 6), min_size=30, max_size=30),
    failures=st.sets(st.integers(0, 29), max_size=4),
    spoiled=st.sets(st.tuples(st.integers(0, RANKS - 1), st.integers(1, STEPS)), max_size=4),
    late=st.sets(st.tuples(st.integers(0, RANKS - 1), st.integers(1, STEPS)), max_size=30),
    every=st.integers(1, 5),
)
def test_a_save_is_committed_when_all_have_its_part_and_none_waits_for_ever(
    durations: list[int],
    failures: set[int],
    spoiled: set[tuple[int, int]],
    late: set[tuple[int, int]],
    every: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_saver, "Persister", Writer)
        patch.setattr(part_saver, "Hold", Held)
        Held.held = []
        _run(iter(enumerate(durations * 10)), failures, spoiled, late, every)


def _run(
    plans: Any,
    failures: set[int],
    spoiled: set[tuple[int, int]],
    late: set[tuple[int, int]],
    every: int,
) -> None:
    reports: list[list[Report]] = [[] for _ in range(RANKS)]
    savers = [PartSaver({}, on_report=reports[rank].append) for rank in range(RANKS)]
    writers: list[Any] = [saver._persister for saver in savers]
    parts: dict[int, set[int]] = defaultdict(set)
    committed: list[int] = []
    broken: set[int] = set()
    plan: dict[int, tuple[int, bool]] = {}
    to_commit: list[tuple[int, int]] = []
    said = [(False, 0)] * RANKS
    for step in range(1, STEPS + 30):
        for rank, late_step in to_commit:
            savers[rank].committed(_snapshot(late_step))
        to_commit = []
        is_anybody_busy, failed_step = any(busy for busy, _ in said), max(step for _, step in said)
        if step <= STEPS and step % every == 0:
            for rank, saver in enumerate(savers):
                saver.want(step)
                if (rank, step) in spoiled:
                    saver.spoiled(step)
                    broken.add(step)
                elif (rank, step) in late:
                    to_commit.append((rank, step))
                else:
                    saver.committed(_snapshot(step))
        for saver in savers:
            saver.go_on(is_anybody_busy=is_anybody_busy, failed_step=failed_step)
        assert len(Held.held) <= 2 * RANKS
        for rank, writer in enumerate(writers):
            if writer.step is None:
                continue
            if rank not in plan:
                number, duration = next(plans)
                plan[rank] = (step + duration, number in failures)
            until, fails = plan[rank]
            if step < until:
                continue
            if fails:
                broken.add(writer.step)
                del plan[rank]
                writer.done("a full disk")
                continue
            parts[writer.step].add(rank)
            if rank != 0:
                del plan[rank]
                writer.done()
            elif len(parts[writer.step]) == RANKS:
                committed.append(writer.step)
                del plan[rank]
                writer.done()
            elif writer.is_given_up:
                del plan[rank]
                writer.done("given up")
        said = [(saver.is_busy, saver.failed_step) for saver in savers]
    assert not any(saver.is_busy for saver in savers), "somebody waits for ever"
    assert Held.held == []
    assert committed == sorted(set(committed))
    assert not broken & set(committed)
    last = STEPS // every * every
    assert last in committed or last in broken, "the newest is saved, unless it cannot be"
    told: Mapping[int, set[int]] = {
        rank: {report.step for report in reports[rank] if report.failure is None} for rank in range(RANKS)
    }
    for step in range(every, STEPS + 1, every):
        assert step in broken or all(step in told[rank] for rank in range(RANKS))


def _snapshot(step: int) -> Snapshot:
    return Snapshot(
        path=Path("of-a-test"),
        sequence=step,
        step=step,
        document_bytes=1,
        image_bytes=1,
        document_crc32=0,
    )


def test_a_save_whose_snapshot_has_not_come_when_the_next_is_due_is_given_up_by_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nobody takes the next one's part for its part: the others would wait for that for ever."""
    monkeypatch.setattr(part_saver, "Persister", Writer)
    monkeypatch.setattr(part_saver, "Hold", Held)
    Held.held = []
    first, other = savers = [PartSaver({}, on_report=lambda _: None) for _ in range(2)]
    writers: list[Any] = [saver._persister for saver in savers]
    for saver in savers:
        saver.want(1)
    first.committed(_snapshot(1))
    for saver in savers:
        saver.go_on(is_anybody_busy=False, failed_step=0)
    assert writers[0].step == 1
    for saver in savers:
        saver.want(2)
        saver.committed(_snapshot(2))
    other.committed(_snapshot(1))  # too late
    assert (writers[1].step, other.failed_step) == (None, 1)
    for saver in savers:
        saver.go_on(is_anybody_busy=True, failed_step=other.failed_step)
    assert writers[0].is_given_up
    writers[0].done("given up")
    for saver in savers:
        saver.go_on(is_anybody_busy=False, failed_step=1)
    assert [writer.step for writer in writers] == [2, 2]
    for writer in writers:
        writer.done()
    assert Held.held == []
