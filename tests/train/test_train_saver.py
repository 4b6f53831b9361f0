"""A run's saves: to memory and storage, reported each, and the newest whole state found again."""

import errno
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import termios
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artesian.formulas.goodput import optimal_interval_s
from artesian.train import Checkpointer, CheckpointError, persist_process
from artesian.train import persist as persist_module
from artesian.train import saves as saves_module
from artesian.train.directory import Directory
from artesian.train.interval import Age, BestInterval, EverySteps
from artesian.train.membership import alone
from artesian.train.memory import Memory
from artesian.train.persist import Persister, Report
from artesian.train.persist_process import to_storage
from artesian.train.reporter import Reporter
from artesian.train.restorable import Restorable
from artesian.train.saver import Restored, Saver
from artesian.train.saves import Position, Saves
from artesian.train.segment import JobFolder, Snapshot, reading
from artesian.train.storage import verified
from limits import small_file_system
from proc import stat
from recovery_harness import wait_for


def state(step: int) -> dict[str, Any]:
    return {"w": torch.full((50_000,), float(step)), "lr": float(step)}


def value_of(state: Mapping[str, Any]) -> float:
    assert torch.equal(state["w"], torch.full((50_000,), state["lr"]))
    return float(state["lr"])


def run(saver: Saver, first: int, last: int) -> None:
    for step in range(first, last + 1):
        saver.wait()
        saver.begin(step, partial(state, step), position=10 * step)
    saver.wait()


def settle(saver: Saver) -> None:
    """Wait until what was begun is in memory and in storage."""
    assert saver.memory is not None
    assert saver._persister is not None
    saver.memory.finish()
    saver._persister.drain()


def test_a_successor_goes_on_from_memory_and_from_storage_when_memory_is_gone(tmp_path: Path) -> None:
    reports: list[Report] = []
    saver = Saver(
        tmp_path / "run", job="j", interval=EverySteps(4), shared_memory=tmp_path, on_report=reports.append
    )
    assert saver.restore() is None
    run(saver, 1, 4)
    settle(saver)
    run(saver, 5, 6)
    saver.close(keep=True)
    assert [(report.step, report.failure) for report in reports] == [(4, None)]

    successor = Saver(tmp_path / "run", job="j", shared_memory=tmp_path)
    assert successor.memory_step == 6
    before = successor.restore_from_memory(5)
    assert before is not None
    assert (before.step, before.position, value_of(before.state)) == (5, 50, 5)
    assert successor.restore_from_memory(3) is None
    found = successor.restore()
    assert found is not None
    assert (found.step, found.position, found.layer, value_of(found.state)) == (6, 60, "memory", 6)
    successor.close()

    elsewhere = Saver(tmp_path / "run", job="j", shared_memory=tmp_path)
    found = elsewhere.restore()
    assert found is not None
    assert (found.step, found.position, found.layer, value_of(found.state)) == (4, 40, "storage", 4)
    elsewhere.save_now(7, lambda: state(7), position=70)
    elsewhere.close()
    assert Checkpointer(tmp_path / "run").steps() == [4, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_newer_checkpoint_wins_over_what_is_left_in_memory(tmp_path: Path) -> None:
    saver = Saver(tmp_path / "run", job="j", shared_memory=tmp_path)
    run(saver, 1, 3)
    saver.close(keep=True)
    Checkpointer(tmp_path / "run").save(5, state(5), position=50)
    for is_damaged in (False, True):
        if is_damaged:
            os.truncate(tmp_path / "run/step-00000005/state.bin", 10)
        saver = Saver(tmp_path / "run", job="j", shared_memory=tmp_path)
        found = saver.restore()
        assert found is not None
        assert (found.step, found.layer) == ((3, "memory") if is_damaged else (5, "storage"))
        saver.close(keep=not is_damaged)


def test_a_full_shared_memory_is_reported_and_training_goes_on_with_storage(tmp_path: Path) -> None:
    reports: list[Report] = []
    with small_file_system(tmp_path / "shm", size="64k") as shm:
        saver = Saver(
            tmp_path / "run", job="j", interval=EverySteps(2), shared_memory=shm, on_report=reports.append
        )
        run(saver, 1, 4)
        assert saver.memory is None
        saver.close()
        assert list(shm.iterdir()) == []
    assert "has no room for a snapshot" in (reports[0].failure or "")
    assert [report.step for report in reports[1:]] == [2, 4]
    assert Checkpointer(tmp_path / "run").steps() == [2, 4]
    assert saver.failures == 1


def test_a_full_disk_is_reported_and_older_checkpoints_stay(tmp_path: Path) -> None:
    reports: list[Report] = []
    with small_file_system(tmp_path / "disk", size="500k") as disk:
        saver = Saver(
            disk / "run",
            job="j",
            interval=EverySteps(1),
            keep_last=1,
            shared_memory=tmp_path,
            on_report=reports.append,
        )
        run(saver, 1, 1)
        saver.save_now(1, lambda: state(1))
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(180 << 10))
        run(saver, 2, 2)
        settle(saver)
        with pytest.raises(CheckpointError, match="No space left on device"):
            saver.save_now(2, lambda: state(2))
        assert any("No space left on device" in (report.failure or "") for report in reports)
        assert Checkpointer(disk / "run").steps() == [1]
        ballast.unlink()
        saver.save_now(2, lambda: state(2))
        saver.close()
        found = Checkpointer(disk / "run").load_newest()
        assert found is not None
        assert value_of(found.state) == 2


@pytest.fixture
def slow_storage(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writes in this process, the first of which waits for the event."""
    go = threading.Event()
    written = persist_process.deliver

    def slowly(*arguments: Any, **options: Any) -> dict[str, Any]:
        go.wait()
        return written(*arguments, **options)

    monkeypatch.setattr(persist_module, "deliver", slowly)
    return go


def test_when_storage_is_slow_the_newest_is_next_and_the_others_are_reported(
    tmp_path: Path, slow_storage: threading.Event
) -> None:
    fsspec = pytest.importorskip("fsspec")
    reports: list[Report] = []
    saver = Saver(
        "memory://slow", job="j", interval=EverySteps(1), shared_memory=tmp_path, on_report=reports.append
    )
    run(saver, 1, 8)
    assert saver.memory is not None
    saver.memory.finish()
    slow_storage.set()
    saver.close()
    done = {report.step for report in reports if report.size_bytes is not None}
    replaced = {report.step: report.replaced_by for report in reports if report.replaced_by is not None}
    assert max(done) == 8
    assert done | set(replaced) == set(range(1, 9))
    assert all(step < by for step, by in replaced.items())
    found = Checkpointer("memory://slow").load_newest()
    assert found is not None
    assert value_of(found.state) == found.manifest.step == 8
    fsspec.filesystem("memory").rm("/slow", recursive=True)


def test_a_snapshot_that_is_being_persisted_does_not_change_under_it(tmp_path: Path) -> None:
    folder = JobFolder("j", base=tmp_path)
    memory = Memory(folder, 0, buffers=3)
    memory.begin(1, state(1))
    first = memory.finish()
    assert first is not None
    with reading(first) as image:
        assert image is not None
        before = bytes(image)
        for step in range(2, 6):
            memory.begin(step, state(step))
            memory.wait()
        assert bytes(image) == before
    memory.close()
    folder.leave(keep=False)


@contextmanager
def persisting(
    tmp_path: Path, on_report: Callable[[Report], object]
) -> Iterator[tuple[Persister, subprocess.Popen[str], Snapshot]]:
    """Yield a persister, its first helper, and a snapshot of step 1 for it."""
    folder = JobFolder("j", base=tmp_path)
    memory = Memory(folder, 0)
    memory.begin(1, state(1))
    snapshot = memory.finish()
    assert snapshot is not None
    persister = Persister(to_storage(tmp_path / "run"), newest=lambda: memory.newest, on_report=on_report)
    assert persister._helper is not None
    yield persister, persister._helper._process, snapshot
    persister.close()
    memory.close()
    folder.leave(keep=False)


def unread(helper: subprocess.Popen[str]) -> int:
    """Return how many bytes that were written to the helper it has not read."""
    assert helper.stdin is not None
    return int.from_bytes(fcntl.ioctl(helper.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)


def is_stopped(helper: subprocess.Popen[str]) -> bool:
    """Return whether all its threads are."""
    threads = os.listdir(f"/proc/{helper.pid}/task")
    return all(stat(helper.pid, int(thread))[:1] == [b"T"] for thread in threads)


def test_a_helper_that_was_killed_is_reported_and_started_anew(tmp_path: Path) -> None:
    reports: list[Report] = []
    with persisting(tmp_path, reports.append) as (persister, helper, snapshot):
        wait_for(lambda: unread(helper) == 0, "the helper to have its settings")
        os.kill(helper.pid, signal.SIGSTOP)
        wait_for(lambda: is_stopped(helper), "the helper to be stopped")
        persister.persist(snapshot)
        wait_for(lambda: unread(helper) > 0, "the helper to be asked")
        os.kill(helper.pid, signal.SIGKILL)
        persister.drain()
        persister.persist(snapshot)
        persister.drain()
    assert (reports[-1].step, reports[-1].failure) == (1, None)
    assert "the process that writes it ended with code -9" in (reports[0].failure or "")


def drained_within(limit_s: float, persister: Persister) -> None:
    """Wait for what was given to it, or fail instead of waiting for good."""
    waiter = threading.Thread(target=persister.drain, daemon=True)
    waiter.start()
    waiter.join(limit_s)
    assert not waiter.is_alive(), "nobody tells what has become of the snapshot"


def test_where_no_helper_can_be_started_that_is_reported_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[Report] = []
    with persisting(tmp_path, reports.append) as (persister, helper, snapshot):
        helper.kill()
        helper.wait()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", str(tmp_path / "missing"))
            persister.persist(snapshot)
            drained_within(10.0, persister)
        persister.persist(snapshot)
        drained_within(60.0, persister)
    assert "the process that writes it cannot start" in (reports[0].failure or "")
    assert (reports[-1].step, reports[-1].failure) == (1, None)


def test_a_listener_that_fails_does_not_end_the_saves(tmp_path: Path) -> None:
    reports: list[Report] = []

    def listen(report: Report) -> None:
        reports.append(report)
        if len(reports) == 1:
            raise ZeroDivisionError

    folder = JobFolder("j", base=tmp_path)
    memory = Memory(folder, 0)
    persister = Persister(to_storage(tmp_path / "run"), newest=lambda: memory.newest, on_report=listen)
    for step in (1, 2):
        memory.begin(step, state(step))
        snapshot = memory.finish()
        assert snapshot is not None
        persister.persist(snapshot)
        drained_within(60.0, persister)
    persister.close()
    memory.close()
    folder.leave(keep=False)
    assert [(report.step, report.failure) for report in reports] == [(1, None), (2, None)]


def test_a_successor_does_not_wait_for_a_storage_that_takes_long(
    tmp_path: Path, slow_storage: threading.Event
) -> None:
    fsspec = pytest.importorskip("fsspec")
    saver = Saver("memory://long", job="j", interval=EverySteps(2), shared_memory=tmp_path)
    run(saver, 1, 2)
    persister = saver._persister
    assert persister is not None
    wait_for(lambda: persister._is_busy, "a save to begin")
    closing = threading.Thread(target=partial(saver.close, keep=True), daemon=True)
    closing.start()
    closing.join(10.0)
    is_closed = not closing.is_alive()
    successor = Saver(None, job="j", shared_memory=tmp_path) if is_closed else None
    slow_storage.set()
    persister._thread.join()
    assert successor is not None
    assert successor.memory_step == 2
    successor.close()
    assert Checkpointer("memory://long").steps() == [2]  # what had begun goes on
    fsspec.filesystem("memory").rm("/long", recursive=True)


@pytest.mark.parametrize("is_over", [False, True])
def test_a_killed_workers_helper_does_not_remove_what_its_successor_has_saved(
    tmp_path: Path, is_over: bool
) -> None:
    """Stores without locks have no order of the saves."""
    where = tmp_path / "run"
    folder = JobFolder("j", base=tmp_path)
    memory = Memory(folder, 0)
    memory.begin(4, state(4))
    snapshot = memory.finish()
    assert snapshot is not None
    Checkpointer(where).save(6, state(6))  # before the helper is done with step 4
    words = persist_process.Words()
    words.is_over = is_over
    assert "size_bytes" in persist_process.deliver(to_storage(where), snapshot, words)
    assert Checkpointer(where).steps() == ([4, 6] if is_over else [4])  # else the run has gone back
    memory.close()
    folder.leave(keep=False)


NOISY = """
    from artesian.train import persist_process

    def deliver(settings, snapshot, words):
        print("a library says something")
        return {"step": snapshot.step, "size_bytes": 1, "duration_s": 0.0}

    persist_process.deliver = deliver
    persist_process.main()
"""


def test_a_helper_answers_only_what_it_is_asked_and_ends_at_half_a_line(tmp_path: Path) -> None:
    snapshot = {"path": "p", "sequence": 1, "step": 7, "document_bytes": 1, "image_bytes": 1}
    said = f'{{}}\n{json.dumps({**snapshot, "document_crc32": 0})}\n{{"path": '
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NOISY)],
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    assert [json.loads(line)["step"] for line in done.stdout.splitlines()] == [7]
    assert "a library says something" in done.stderr


def test_a_storage_that_cannot_be_listed_does_not_hide_what_memory_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = Saver(tmp_path / "run", job="j", shared_memory=tmp_path)
    run(saver, 1, 3)
    saver.close(keep=True)

    def gone(_: Directory) -> list[int]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Directory, "steps", gone)
    reports: list[Report] = []
    successor = Saver(tmp_path / "run", job="j", shared_memory=tmp_path, on_report=reports.append)
    found = successor.restore()
    assert found is not None
    assert (found.step, found.layer) == (3, "memory")
    assert "cannot list the checkpoints" in (reports[-1].failure or "")
    successor.close()
    without_memory = Saver(tmp_path / "run")
    with pytest.raises(CheckpointError, match="cannot list the checkpoints"):
        without_memory.restore()
    without_memory.close()


class Model:
    """What a gang's saves bring back."""

    def __init__(self) -> None:
        self.loaded: list[float] = []

    def load(self, state: dict[str, Any], *, is_own: bool) -> None:
        self.loaded.append(value_of(state))


@pytest.mark.parametrize("way", ["restore", "go_back"])
def test_what_rank_0_cannot_read_in_storage_another_ranks_memory_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    Checkpointer(tmp_path / "run").save(3, state(3))
    (tmp_path / "run" / "step-00000003" / "state.bin").write_bytes(b"damaged")
    others: list[Restored | None] = [
        Restored(step=5, position=50, state=state(5), layer="memory"),
        None,
    ]
    monkeypatch.setattr(saves_module, "newest_of_all", lambda own, _: (own or others.pop(0), own is not None))
    model, member = Model(), alone("cpu")
    saves = Saves(
        Saver(tmp_path / "run"),
        deque(),
        cast(Restorable, model),
        member,
        Reporter(member, None, None),
        has_storage=True,
    )
    bring_back: Callable[[], Position | None] = (
        saves.restore if way == "restore" else partial(saves.go_back, 9)
    )
    found = bring_back()
    assert found is not None
    assert (found.step, found.samples, model.loaded) == (5, 50, [5.0])
    with pytest.raises(CheckpointError, match="is whole"):  # nobody has anything: that is no beginning
        bring_back()
    saves.close(keep=False)


def test_a_save_on_its_way_when_the_run_goes_back_is_none_of_the_step_that_comes_again(
    tmp_path: Path, slow_storage: threading.Event
) -> None:
    fsspec = pytest.importorskip("fsspec")
    saver = Saver("memory://back", job="j", interval=EverySteps(4), shared_memory=tmp_path)
    run(saver, 1, 4)
    assert saver.memory is not None
    saver.memory.finish()
    assert saver.restore_at_most(3) is not None
    slow_storage.set()
    saver.save_now(4, partial(state, 40))
    saver.close()
    found = Checkpointer("memory://back").load_newest()
    assert found is not None
    assert value_of(found.state) == 40
    fsspec.filesystem("memory").rm("/back", recursive=True)


@pytest.mark.parametrize("has_memory", [True, False])
@pytest.mark.parametrize("steps_after", [0, 1])
def test_nobody_goes_on_from_what_was_undone(tmp_path: Path, has_memory: bool, steps_after: int) -> None:
    """A run that has gone back, and is killed before it has saved again."""

    def new_saver() -> Saver:
        job = "undone" if has_memory else None
        return Saver(tmp_path / "run", job=job, interval=EverySteps(2), keep_last=9, shared_memory=tmp_path)

    folder = JobFolder("undone", base=tmp_path)  # as the agent holds it
    saver = new_saver()
    for step in range(1, 9):
        run(saver, step, step)
        if has_memory:
            settle(saver)
    found = saver.restore_at_most(5)
    assert found is not None
    assert found.step in (4, 5)
    saver.forget_later(found.step, partial(state, found.step), position=found.position)
    if steps_after:
        run(saver, found.step + 1, found.step + 1)
    saver.close(keep=True)
    successor = new_saver()
    again = successor.restore()
    assert again is not None
    assert found.step <= again.step <= found.step + steps_after
    assert value_of(again.state) == again.step
    successor.close()
    folder.leave(keep=False)


def test_a_file_that_refuses_to_be_read_is_no_reason_to_try_for_good(tmp_path: Path) -> None:
    class Refusing(io.FileIO):
        def readinto(self, _: Any) -> int:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    path = tmp_path / "image"
    path.write_bytes(b"1234")
    with Refusing(path) as file, pytest.raises(OSError, match="Invalid argument"):
        list(verified(cast(BinaryIO, file), "image", 4, [0], [0]))


WORKER = """
    import os, sys, signal, torch
    from pathlib import Path
    from artesian.train.interval import EverySteps
    from artesian.train.saver import Saver

    base = Path(sys.argv[1])
    saver = Saver(base / "run", job="j", interval=EverySteps(1), shared_memory=base)
    step = 0
    print(step, flush=True)
    while True:
        step += 1
        saver.wait()
        saver.begin(step, lambda: {"w": torch.full((1_000_000,), float(step))})
        print(step, flush=True)
"""


def test_killed_while_it_persists_it_leaves_whole_checkpoints_and_goes_on(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    for _ in range(9):
        reached = int(worker.stdout.readline()) - 1
    worker.kill()
    worker.stdout.close()
    worker.wait()
    checkpoint = Checkpointer(tmp_path / "run").load_newest()  # raises if none of those there is whole
    if checkpoint is not None:
        assert checkpoint.rejected == ()
        assert torch.equal(checkpoint.state["w"], torch.full((1_000_000,), float(checkpoint.manifest.step)))
    saver = Saver(None, job="j", shared_memory=tmp_path)
    found = saver.restore()
    assert found is not None
    assert found.step >= reached
    saver.close()


# The interval.


def test_a_fixed_interval_counts_steps() -> None:
    assert [step for step in range(1, 10) if EverySteps(3).is_due(step, 0, 0)] == [3, 6, 9]
    with pytest.raises(ValueError, match="at least one step"):
        EverySteps(0)


@given(
    stall_s=st.floats(1e-4, 1e4),
    failures=st.integers(0, 1000),
    duration_s=st.floats(0, 1e7),
    nodes=st.integers(1, 10_000),
)
def test_the_best_interval_is_dalys_within_its_bounds(
    stall_s: float, failures: int, duration_s: float, nodes: int
) -> None:
    interval = BestInterval(nodes=nodes, least_s=2, most_s=900, clock=lambda: 5.0)
    assert interval.seconds == 2
    interval.observed(failures=failures, duration_s=duration_s)
    interval.stalled(stall_s)
    prior_s = 86_400 / (nodes * 3.8e-3)
    assert interval.mttf_s == pytest.approx((prior_s + duration_s) / (1 + failures))
    expected_s = (
        optimal_interval_s(stall_s, interval.mttf_s) if stall_s < interval.mttf_s / 2 else interval.mttf_s
    )
    assert interval.seconds == min(max(expected_s, 2), 900)
    assert interval.is_due(2, 1, interval.seconds)
    assert not interval.is_due(2, 1, interval.seconds * 0.99)
    assert not interval.is_due(1, 1, 1e9)


def test_more_failures_and_cheaper_saves_shorten_the_interval() -> None:
    interval = BestInterval(nodes=100)
    interval.stalled(1.0)
    calm_s = interval.seconds
    interval.observed(failures=50, duration_s=10_000)
    assert interval.seconds < calm_s
    failing_s = interval.seconds
    for _ in range(30):
        interval.stalled(0.01)
    assert interval.seconds < failing_s


def test_calm_time_that_passes_makes_the_interval_longer() -> None:
    now_s = [0.0]
    interval = BestInterval(nodes=100, clock=lambda: now_s[0])
    interval.stalled(1.0)
    interval.observed(failures=3, duration_s=1000.0)
    before_s, known_s = interval.seconds, interval.mttf_s
    now_s[0] = 4000.0
    assert interval.mttf_s == pytest.approx(known_s + 4000.0 / (1 + 3))
    assert interval.seconds > before_s


def test_a_jobs_age_counts_all_its_attempts_and_never_falls() -> None:
    now_s = [50.0]
    interval = BestInterval(nodes=1, clock=lambda: now_s[0])
    fresh_s = interval.mttf_s
    age = Age(interval, failures=1, clock=lambda: now_s[0])
    age.resume(300.0)
    assert interval.mttf_s == pytest.approx((fresh_s + 300.0) / (1 + 1))
    now_s[0] = 60.0
    age.resume(290.0)  # it goes back to a state of before
    assert age.seconds == 310.0
    assert interval.mttf_s == pytest.approx((fresh_s + 310.0) / (1 + 1))


def test_an_interval_whose_bounds_are_no_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="0 < least_s <= most_s"):
        BestInterval(least_s=5, most_s=1)
    with pytest.raises(ValueError, match="must not be negative"):
        BestInterval().observed(failures=-1, duration_s=0)
