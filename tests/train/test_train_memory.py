"""Snapshots in shared memory: whole and of their step, or not there, whatever dies at whatever instant."""

import contextlib
import errno
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from artesian.train import CheckpointError, snapshot_copy
from artesian.train.image import Layout, decode, encode_tree
from artesian.train.memory import Memory, load
from artesian.train.plain import to_plain
from artesian.train.segment import JobFolder, reading, sweep
from limits import small_file_system

LARGE = 100_000
"""Elements of a tensor that is copied in the background."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[JobFolder]:
    folder = JobFolder("job", base=tmp_path)
    yield folder
    folder.leave(keep=False)


def state(value: float) -> dict[str, Any]:
    return {"w": torch.full((LARGE,), value), "b": torch.full((3,), value), "lr": value}


def loaded_value(folder: JobFolder, rank: int = 0) -> float | None:
    recalled = load(folder, rank)
    if recalled is None:
        return None
    value = recalled.state["lr"]
    assert torch.equal(recalled.state["w"], torch.full((LARGE,), value))
    assert torch.equal(recalled.state["b"], torch.full((3,), value))
    assert recalled.snapshot.step == value
    return float(value)


# What a state may hold.


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    match one:
        case Tensor():
            same_kind = one.dtype == other.dtype and one.shape == other.shape
            return bool(same_kind) and one.numpy().tobytes() == other.numpy().tobytes()
        case np.ndarray():
            return bool(one.dtype == other.dtype and one.tobytes() == other.tobytes())
        case dict():
            return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))
        case float():
            return one == other or (math.isnan(one) and math.isnan(other))
        case _:
            return bool(one == other)


DTYPES = [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16, torch.complex64]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    made = (torch.rand(shape) * 4).to(draw(st.sampled_from(DTYPES)))
    return made.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else made


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary(max_size=20)
    | st.complex_numbers(allow_nan=False)
    | st.sampled_from([torch.bfloat16, torch.Size([2, 3]), torch.device("cpu")])
)
keys = st.text(max_size=5) | st.integers() | st.tuples(st.integers(), st.booleans())
states = st.dictionaries(
    keys,
    st.recursive(
        atoms | tensors() | st.builds(np.arange, st.integers(0, 9)),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(keys, inner, max_size=3)
            | st.builds(OrderedDict, st.dictionaries(keys, inner, max_size=3))
            | st.builds(Counter, st.lists(st.integers(0, 3)))
            | st.frozensets(st.integers())
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(state=states, next_state=states)
def test_whatever_plain_state_is_saved_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, state: dict[Any, Any], next_state: dict[Any, Any]
) -> None:
    folder = JobFolder(uuid.uuid4().hex, base=tmp_path_factory.getbasetemp())
    memory = Memory(folder, 3)
    try:
        for step, saved in enumerate([state, next_state]):
            memory.begin(step, saved, {"position": 7})
            memory.wait()
            recalled = memory.load()
            assert recalled is not None
            assert same(recalled.state, saved)
            assert (recalled.snapshot.step, recalled.meta) == (step, {"position": 7})
    finally:
        memory.close()
        folder.leave(keep=False)


def test_tied_weights_are_kept_once_and_stay_tied(folder: JobFolder) -> None:
    weight = torch.rand(LARGE)
    memory = Memory(folder, 0)
    memory.begin(1, {"embedding": weight, "head": weight, "part": weight[: LARGE // 2]})
    recalled = memory.load()
    assert recalled is not None
    assert recalled.state["embedding"] is recalled.state["head"]
    assert recalled.snapshot.image_bytes < 1.6 * weight.nbytes
    memory.close()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.abort, ())


@pytest.mark.parametrize(
    "thing", [Evil(), lambda: None, signal.SIGTERM, torch.ones(2, device="meta"), torch.ones(2).to_sparse()]
)
def test_what_is_not_plain_is_refused_with_its_place(folder: JobFolder, thing: object) -> None:
    memory = Memory(folder, 0)
    memory.begin(1, state(1))
    with pytest.raises(CheckpointError, match=r"state\['a'\]\[1\] is a"):
        memory.begin(2, {"a": [0, thing]})
    assert loaded_value(folder) == 1
    memory.close()


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10_000), to=st.integers(0, 255))
def test_a_damaged_document_is_refused_or_read_as_data(at: int, to: int) -> None:
    tree, found = to_plain({"a": torch.ones(3), "d": (2.5, {1: b"c"})})
    text = encode_tree({}, tree)
    document = bytearray(Layout.of(list(found.values()), len(text)).document(text))
    document[at % len(document)] = to
    image = torch.zeros(1 << 16, dtype=torch.uint8)
    with contextlib.suppress(ValueError, RuntimeError):  # RuntimeError: a view that is out of range
        decode(bytes(document), lambda slot: slot.view(image))


# What is committed is what was there when `begin` was called.


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Background copies stand still until the event is set."""
    go = threading.Event()
    help_out = snapshot_copy.SnapshotCopy.help

    def wait_first(copy: Any) -> None:
        if threading.current_thread().name == "artesian-memory":
            go.wait()
        help_out(copy)

    monkeypatch.setattr(snapshot_copy.SnapshotCopy, "help", wait_first)
    return go


def test_the_optimizer_waits_until_the_state_is_copied(folder: JobFolder, held: threading.Event) -> None:
    model = nn.Linear(400, 400)
    optimizer = torch.optim.AdamW(model.parameters())
    memory = Memory(folder, 0)
    handle = memory.wait_before(optimizer)
    before: list[Tensor] = []
    for step in range(3):
        model(torch.rand(4, 400)).sum().backward()
        optimizer.step()
        before.append(model.weight.detach().clone())
        memory.begin(step, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
        model(torch.rand(4, 400)).sum().backward()
        optimizer.step()
        held.set()
        recalled = memory.load()
        assert recalled is not None
        assert torch.equal(recalled.state["model"]["weight"], before[-1])
        assert recalled.state["optimizer"]["state"][0]["step"] == 2 * step + 1
        held.clear()
    handle.remove()
    held.set()
    memory.close()


def test_a_state_that_changed_under_the_copy_is_told_and_never_loaded(
    folder: JobFolder, held: threading.Event
) -> None:
    memory = Memory(folder, 0)
    now = state(1)
    memory.begin(1, now)
    held.set()
    memory.finish()
    held.clear()
    now["w"].add_(1), now["b"].add_(1)
    memory.begin(2, {**now, "lr": 2.0})
    now["w"].add_(1)
    with pytest.raises(CheckpointError, match=r"step 2 was spoiled: 1 tensors changed .* \(state\['w'\]\)"):
        memory.wait()
    held.set()
    memory.finish()
    assert loaded_value(folder) == 1
    # It has been learned which tensor changes under way: it is copied at once from then on.
    held.clear()
    memory.begin(3, state_of_3 := {"w": now["w"], "b": torch.full((3,), 3.0), "lr": 3.0})
    state_of_3["w"].add_(1)
    held.set()
    memory.wait()
    assert memory.finish() is not None
    assert loaded_value(folder) == 3
    memory.close()


def test_statistics_that_a_forward_pass_changes_are_those_of_the_step(
    folder: JobFolder, held: threading.Event
) -> None:
    model = nn.BatchNorm1d(8)
    memory = Memory(folder, 0)
    memory.begin(1, model.state_dict())
    model(torch.rand(16, 8))
    held.set()
    recalled = memory.load()
    assert recalled is not None
    assert recalled.state["num_batches_tracked"] == 0
    assert torch.equal(recalled.state["running_mean"], torch.zeros(8))
    memory.close()


# One is always whole.


@pytest.mark.parametrize("readers", [0, 1, 2, 3])
def test_no_snapshot_is_skipped_or_changed_while_others_are_read(folder: JobFolder, readers: int) -> None:
    memory = Memory(folder, 0)
    with contextlib.ExitStack() as blocks:
        _save_eight(folder, memory, readers, blocks)
    memory.close()


def _save_eight(folder: JobFolder, memory: Memory, readers: int, blocks: contextlib.ExitStack) -> None:
    for step in range(1, 9):
        memory.begin(step, state(step))
        memory.wait()
        newest = memory.finish()
        assert newest is not None
        assert newest.step == loaded_value(folder) == step
        if step <= readers:
            assert blocks.enter_context(reading(newest)) is not None
    held_steps = {snapshot.step for snapshot in folder.snapshots(0)}
    assert held_steps >= {8, *range(1, readers + 1)}
    assert len(folder.buffers(0)) <= 2 + readers


@settings(max_examples=40, deadline=None)
@given(
    is_new_shape=st.booleans(),
    pieces=st.integers(0, 7),
    attached=st.booleans(),
)
def test_a_copy_that_is_cut_off_leaves_the_snapshot_before(
    tmp_path_factory: pytest.TempPathFactory, is_new_shape: bool, pieces: int, attached: bool
) -> None:
    folder = JobFolder(uuid.uuid4().hex, base=tmp_path_factory.getbasetemp())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_copy, "_PIECE_BYTES", 1 << 16)
        memory = Memory(folder, 0)
        for step in (1, 2, 3):
            memory.begin(step, state(step))
            memory.wait()
        memory.finish()
        if attached:
            memory.close(keep=True)
            memory = Memory(folder, 0)
        # The process dies after some pieces: nobody else copies, and nobody commits.
        patch.setattr(memory, "_queue", SimpleQueue())
        big = {**state(4), "more": torch.ones(LARGE)} if is_new_shape else state(4)
        memory.begin(4, big)
        assert memory._copy is not None
        for piece in memory._copy._pieces[:pieces]:
            piece()
        assert loaded_value(folder) == 3
        assert [snapshot.step for snapshot in folder.snapshots(0)] == [3]
    successor = Memory(folder, 0)
    successor.begin(5, state(5))
    successor.wait()
    successor.finish()
    assert loaded_value(folder) == 5
    successor.close()
    folder.leave(keep=False)


WORKER = """
    import sys, torch
    from artesian.train.memory import Memory
    from artesian.train.segment import JobFolder
    from pathlib import Path

    memory = Memory(JobFolder("job", base=Path(sys.argv[1])), 0)
    step = memory.finish().step if memory.finish() else 0
    w, b = torch.full((100_000,), float(step)), torch.full((3,), float(step))
    while True:
        step += 1
        memory.wait()
        w.fill_(step), b.fill_(step)
        memory.begin(step, {"w": w, "b": b, "lr": float(step)})
        print(step, flush=True)
"""


def test_a_worker_killed_at_any_instant_leaves_a_whole_snapshot_at_most_one_step_behind(
    folder: JobFolder,
) -> None:
    base = folder.path.parent
    reached = 0
    for kill_after in (3, 25):
        worker = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), str(base)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        for _ in range(kill_after):
            worker.stdout.readline()
        worker.kill()
        said = [int(line) for line in worker.stdout.read().split()]
        worker.stdout.close()
        worker.wait()
        value = loaded_value(folder)
        assert value is not None
        # The last line said that a copy has begun; the step before it is committed.
        assert value >= reached + kill_after - 1
        assert not said or value >= said[-1] - 1
        reached = int(value)


def test_who_has_waited_for_a_snapshot_finds_it_told(folder: JobFolder) -> None:
    """Else what it was taken for could go to the next one, on this rank alone."""
    may_tell, is_finished = threading.Event(), threading.Event()
    memory = Memory(folder, 0, on_commit=lambda _: may_tell.wait())
    memory.begin(1, {"x": torch.ones(10)})

    def finish() -> None:
        memory.finish()
        is_finished.set()

    waiting = threading.Thread(target=finish)
    waiting.start()
    try:
        assert not is_finished.wait(0.2)
    finally:
        may_tell.set()
        waiting.join()
    memory.close()


def test_who_cannot_pass_a_snapshot_on_is_told_and_the_next_ones_come(folder: JobFolder) -> None:
    passed_on: list[int] = []

    def pass_on(snapshot: Any) -> None:
        if snapshot.step == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        passed_on.append(snapshot.step)

    memory = Memory(folder, 0, on_commit=pass_on)
    memory.begin(1, state(1.0))
    finished_within(10.0, memory)
    with pytest.raises(CheckpointError, match=r"step 1 failed: OSError: .* Too many open files"):
        memory.wait()
    memory.begin(2, state(2.0))
    finished_within(10.0, memory)
    memory.wait()
    assert passed_on == [2]
    assert loaded_value(folder) == 2.0
    memory.close()


def test_a_tensor_that_cannot_be_copied_is_told_and_the_next_snapshot_comes(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise RuntimeError("its storage is gone")

    memory = Memory(folder, 0)
    monkeypatch.setattr(snapshot_copy, "_move", lost)
    memory.begin(1, state(1.0))
    finished_within(10.0, memory)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="step 1 failed: RuntimeError: its storage is gone"):
        memory.wait()
    assert loaded_value(folder) is None
    memory.begin(2, state(2.0))
    finished_within(10.0, memory)
    assert loaded_value(folder) == 2.0
    memory.close()


def finished_within(limit_s: float, memory: Memory) -> None:
    """Finish the snapshot, or fail instead of waiting for good."""
    waiter = threading.Thread(target=memory.finish, daemon=True)
    waiter.start()
    waiter.join(limit_s)
    assert not waiter.is_alive(), "nobody tells that the snapshot has ended"


def test_one_process_at_a_time_writes_a_rank(folder: JobFolder) -> None:
    memory = Memory(folder, 0)
    code = textwrap.dedent(WORKER)
    other = subprocess.run(
        [sys.executable, "-c", code, str(folder.path.parent)], capture_output=True, text=True
    )
    assert "the memory of rank 0" in other.stderr
    assert other.returncode == 1
    memory.close()


# What is left is removed, and nothing else.


def test_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    folder = JobFolder("job", base=tmp_path)
    memories = [Memory(folder, rank) for rank in (0, 1)]
    for memory in memories:
        memory.begin(1, state(1))
    assert folder.ranks() == [0, 1]
    for memory in memories:
        memory.close()
    assert folder.ranks() == []
    other = JobFolder("job", base=tmp_path)
    folder.leave(keep=False)
    assert other.path.exists()  # somebody is still in there
    other.leave(keep=False)
    assert os.listdir(tmp_path) == []


def test_what_a_killed_job_left_is_swept_and_the_living_and_ones_own_are_not(tmp_path: Path) -> None:
    living = JobFolder("living", base=tmp_path)
    for job in ("dead", "mine"):
        folder = JobFolder(job, base=tmp_path)
        memory = Memory(folder, 0)
        memory.begin(4, state(4))
        memory.close(keep=True)
        folder.leave()
    (tmp_path / "artesian-99999999-other").mkdir()
    (tmp_path / f"artesian-{os.getuid()}-link").symlink_to(tmp_path)
    mine = JobFolder("mine", base=tmp_path)
    assert sweep(tmp_path) == ["dead"]
    assert sweep(tmp_path) == []
    assert loaded_value(mine) == 4
    assert sorted(path.name.split("-", 2)[2] for path in tmp_path.iterdir()) == [
        "link",
        "living",
        "mine",
        "other",
    ]
    living.leave(keep=False)
    mine.leave(keep=False)


class Killed(BaseException):
    """Goes past whatever handles errors, as a kill does."""


@pytest.mark.parametrize("after", range(5))
def test_what_a_kill_in_the_middle_of_a_removal_leaves_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    folder = JobFolder("job", base=tmp_path)
    for number in range(3):
        folder.buffer(0, number).write_bytes(b"gigabytes")
    unlink, left = os.unlink, after

    def unlink_some(*arguments: Any, **options: Any) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        unlink(*arguments, **options)

    def rmdir(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink_some)
        patched.setattr(os, "rmdir", rmdir)
        with pytest.raises(Killed):
            folder.leave(keep=False)
    assert folder.lock is not None
    os.close(folder.lock)  # as the kernel does
    folder.lock = None
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_maker_was_killed_before_it_had_a_lock_is_swept(tmp_path: Path) -> None:
    (tmp_path / f"artesian-{os.getuid()}-job").mkdir(mode=0o700)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_enters_while_the_last_one_leaves_keeps_what_it_puts_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = JobFolder("job", base=tmp_path)
    for number in range(3):
        leaving.buffer(0, number).write_bytes(b"of the one before")
    unlink = os.unlink
    entered: list[JobFolder] = []

    def unlink_late(name: Any, **options: Any) -> None:
        unlink(name, **options)
        if name == "lock":
            entered.append(JobFolder("job", base=tmp_path))
            for number in range(3):
                entered[0].buffer(0, number).write_bytes(b"of the next")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink_late)
        leaving.leave(keep=False)
    (folder,) = entered
    assert sweep(tmp_path) == []
    assert [path.read_bytes() for path in folder.buffers(0)] == 3 * [b"of the next"]
    folder.leave(keep=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_may_enter_is_not_used(tmp_path: Path) -> None:
    (tmp_path / f"artesian-{os.getuid()}-job").mkdir(mode=0o755)
    with pytest.raises(CheckpointError, match="nobody else may enter"):
        JobFolder("job", base=tmp_path)


@pytest.mark.parametrize("job", ["", "../job", "a/b", "a b"])
def test_a_job_whose_name_is_no_name_of_a_file_is_refused(tmp_path: Path, job: str) -> None:
    with pytest.raises(ValueError, match="a job is named by"):
        JobFolder(job, base=tmp_path)


def test_a_full_shared_memory_is_told_and_leaves_the_snapshot_before(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", size="2m") as small:
        folder = JobFolder("job", base=small)
        memory = Memory(folder, 0)
        memory.begin(1, state(1))
        memory.wait()
        with pytest.raises(
            CheckpointError, match=r"has no room for a snapshot: it takes 4,\d{3},\d{3} bytes"
        ):
            memory.begin(2, {"w": torch.ones(1_000_000)})
        assert loaded_value(folder) == 1
        memory.begin(3, state(3))
        memory.wait()
        memory.finish()
        assert loaded_value(folder) == 3
        memory.close()
        folder.leave(keep=False)
