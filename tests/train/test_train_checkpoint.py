"""Checkpoints: whole or not there, at whatever point a save is cut off and whatever is damaged later."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import artesian
from artesian.train import Checkpointer, CheckpointError
from limits import no_file_larger_than, small_file_system


def state(value: float) -> dict[str, Any]:
    return {"model": {"w": torch.full((64, 64), value)}, "lr": value, "steps": [1, 2], "scheduler": None}


def loaded_value(checkpointer: Checkpointer) -> float:
    checkpoint = checkpointer.load_newest()
    assert checkpoint is not None
    assert torch.equal(checkpoint.state["model"]["w"], torch.full((64, 64), checkpoint.state["lr"]))
    return float(checkpoint.state["lr"])


def newest_folder(folder: Path) -> Path:
    return max(folder.glob("step-*"))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "new" / "folder")
    saved = checkpointer.save(7, state(1.5), position=448, world_size=2)
    checkpoint = checkpointer.load_newest()
    assert checkpoint is not None
    assert checkpoint.manifest == saved
    assert (saved.step, saved.position, saved.world_size, saved.artesian) == (7, 448, 2, artesian.__version__)
    assert saved.size_bytes == (tmp_path / "new/folder/step-00000007/state.bin").stat().st_size
    assert checkpoint.state["steps"] == [1, 2]
    assert checkpoint.rejected == ()
    assert loaded_value(checkpointer) == 1.5


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert Checkpointer(tmp_path).load_newest() is None
    assert Checkpointer(tmp_path / "missing").load_newest() is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, keep_last=2)
    for step in (10, 20, 30, 40):
        checkpointer.save(step, state(step))
    assert checkpointer.steps() == [30, 40]
    assert loaded_value(checkpointer) == 40


def test_a_run_that_was_rolled_back_leaves_the_later_checkpoints_behind(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, keep_last=2)
    for step in (20, 40):
        checkpointer.save(step, state(step))
    checkpointer.save(30, state(-1))
    assert checkpointer.steps() == [20, 30]
    assert loaded_value(checkpointer) == -1


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(20, state(1))
    checkpointer.save(20, state(2))
    assert checkpointer.steps() == [20]
    assert loaded_value(checkpointer) == 2


class Crash(BaseException):
    """Stands for the end of the process: no handler for errors runs."""


@contextmanager
def crash_at(call: int) -> Iterator[Callable[[], int]]:
    """Crash just before the ``call``-th call that changes the file system; yields the calls so far."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Crash
            return function(*args, **kwargs)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (os, "fsync"),
            (os, "rename"),
            (shutil, "rmtree"),
            (Path, "mkdir"),
            (os, "write"),
            (json, "dumps"),
        ):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        yield lambda: calls


@pytest.mark.parametrize("is_saved_again", [False, True], ids=["a new step", "the same step again"])
def test_a_crash_at_any_point_of_a_save_leaves_a_whole_checkpoint(
    tmp_path: Path, is_saved_again: bool
) -> None:
    crashes = 0
    while True:
        folder = tmp_path / str(crashes)
        checkpointer = Checkpointer(folder, keep_last=2)
        for step in (10, 20):
            checkpointer.save(step, state(step))
        step = 20 if is_saved_again else 30
        with crash_at(crashes + 1) as calls:
            try:
                checkpointer.save(step, state(99))
            except Crash:
                crashes += 1
            else:
                break
        assert loaded_value(checkpointer) in ({10, 20, 99} if is_saved_again else {20, 99})
        # The job comes back: the leftovers go, and saving works.
        checkpointer.sweep()
        assert not [name for name in os.listdir(folder) if name.startswith(".")]
        checkpointer.save(step, state(100))
        assert loaded_value(checkpointer) == 100
    assert crashes == calls() >= 7


def truncate(folder: Path) -> None:
    os.truncate(folder / "state.bin", 100)


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "state.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.bin").write_bytes(data)


def lose_the_state(folder: Path) -> None:
    (folder / "state.bin").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def tear_the_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 20)


def change_the_format(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


DAMAGES = [
    (truncate, "should have"),
    (flip_a_bit, "does not match its checksum"),
    (lose_the_state, "state.bin"),
    (lose_the_manifest, "manifest.json"),
    (tear_the_manifest, "manifest.json is damaged"),
    (change_the_format, "it has format 99, this version reads 1 and 2"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    checkpointer = Checkpointer(tmp_path)
    for step in (10, 20):
        checkpointer.save(step, state(step))
    damage(newest_folder(tmp_path))
    checkpoint = checkpointer.load_newest()
    assert checkpoint is not None
    assert checkpoint.manifest.step == 10
    (rejected,) = checkpoint.rejected
    assert rejected.path.name == "step-00000020"
    assert reason in rejected.reason


def test_with_no_whole_checkpoint_nothing_is_started_from_scratch(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path)
    for step in (10, 20):
        checkpointer.save(step, state(step))
    for folder in tmp_path.glob("step-*"):
        truncate(folder)
    with pytest.raises(
        CheckpointError, match=r"no checkpoint in .* is whole: step-00000020: .*step-00000010"
    ):
        checkpointer.load_newest()


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.trace),))


def save_first_format(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write a checkpoint as artesian 0.1.0 did."""
    target = folder / f"step-{step:08d}"
    target.mkdir(parents=True)
    torch.save(state, target / "state.pt")
    data = (target / "state.pt").read_bytes()
    manifest = {
        "format": 1,
        "step": step,
        "position": 10 * step,
        "world_size": 2,
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "artesian": "0.1.0",
    }
    (target / "manifest.json").write_text(json.dumps(manifest))


def test_checkpoints_of_the_first_format_are_read_and_verified(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_first_format(tmp_path, step, state(step))
    data = bytearray((tmp_path / "step-00000003/state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "step-00000003/state.pt").write_bytes(data)
    checkpoint = Checkpointer(tmp_path).load_newest()
    assert checkpoint is not None
    assert (checkpoint.manifest.step, checkpoint.manifest.position) == (2, 20)
    assert "state.pt does not match its checksum" in checkpoint.rejected[0].reason
    assert loaded_value(Checkpointer(tmp_path)) == 2


def test_a_checkpoint_that_would_run_code_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    trace = tmp_path / "was here"
    with pytest.raises(CheckpointError, match=r"state\['evil'\] is a .*Evil"):
        Checkpointer(tmp_path / "new").save(1, {"evil": Evil(trace)})
    save_first_format(tmp_path / "old", 1, {"evil": Evil(trace)})
    with pytest.raises(CheckpointError, match="is whole"):
        Checkpointer(tmp_path / "old").load_newest()
    assert not trace.exists()


@settings(max_examples=80, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), is_manifest=st.booleans())
def test_a_checkpoint_with_any_bit_flipped_is_passed_over_or_is_still_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, where: float, bit: int, is_manifest: bool
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    checkpointer = Checkpointer(folder)
    checkpointer.save(10, {"w": torch.arange(100), "lr": 10}, position=5)
    saved = checkpointer.save(20, {"w": torch.arange(200), "lr": 20}, position=6)
    path = newest_folder(folder) / ("manifest.json" if is_manifest else "state.bin")
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    checkpoint = checkpointer.load_newest()
    assert checkpoint is not None
    if checkpoint.manifest.step == 20:  # white space, or a letter written differently
        assert is_manifest
        assert checkpoint.manifest == saved
    else:
        assert checkpoint.rejected[0].path.name == "step-00000020"
    assert checkpoint.state["lr"] == checkpoint.manifest.step
    assert torch.equal(checkpoint.state["w"], torch.arange(10 * checkpoint.manifest.step))


def test_what_is_kept_for_good_stays(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, keep_last=1, keep_every=100)
    for step in (50, 100, 150, 200, 250):
        checkpointer.save(step, state(step))
    assert checkpointer.steps() == [100, 200, 250]


def test_a_state_larger_than_a_piece_comes_back(tmp_path: Path) -> None:
    large: dict[str, Any] = {
        "a": torch.rand(6_000_000),
        "b": [torch.rand(3), torch.rand(3_000, 1_100).T],
        "c": torch.ones(()),
    }
    checkpointer = Checkpointer(tmp_path)
    assert len(checkpointer.save(1, large).crc32s) == 3
    checkpoint = checkpointer.load_newest()
    assert checkpoint is not None
    assert torch.equal(checkpoint.state["a"], large["a"])
    assert torch.equal(checkpoint.state["b"][1], large["b"][1])
    assert torch.equal(checkpoint.state["b"][0], large["b"][0])
    assert checkpoint.state["c"] == 1


@pytest.fixture
def bucket() -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    yield "memory://bucket/run"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_checkpoints_in_an_object_store_are_kept_verified_and_replaced(bucket: str) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    checkpointer = Checkpointer(bucket, keep_last=2)
    assert checkpointer.load_newest() is None
    for step in (10, 20, 30, 40):
        checkpointer.save(step, state(step))
    assert checkpointer.steps() == [30, 40]
    checkpointer.save(40, state(41))
    assert loaded_value(checkpointer) == 41
    assert len(files.ls("/bucket/run/step-00000040")) == 2
    (image,) = [
        path for path in files.ls("/bucket/run/step-00000040", detail=False) if "manifest" not in path
    ]
    files.pipe_file(image, b"x" * files.size(image))
    assert loaded_value(checkpointer) == 30
    checkpointer.save(20, state(20))
    assert checkpointer.steps() == [20]


def test_a_put_that_fails_leaves_the_checkpoint_before(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = Checkpointer(bucket)
    checkpointer.save(10, state(10))

    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("the bucket is gone")

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer.storage._files, "pipe_file", refuse)  # type: ignore[attr-defined]
        for step in (10, 20):
            with pytest.raises(CheckpointError, match="RuntimeError: the bucket is gone"):
                checkpointer.save(step, state(-1))
            assert loaded_value(checkpointer) == 10
    checkpointer.save(30, state(30))
    checkpointer.save(40, state(40))
    assert checkpointer.steps() == [30, 40]  # what the failed ones left is gone with them


def test_a_first_save_that_is_cut_off_in_an_object_store_leaves_no_checkpoint(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    checkpointer = Checkpointer(bucket)

    def die(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer.storage._files, "pipe_file", die)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            checkpointer.save(10, state(10))
    assert fsspec.filesystem("memory").find("/bucket/run") != []
    assert checkpointer.load_newest() is None, "the run can begin from scratch"
    checkpointer.save(20, state(20))
    assert loaded_value(checkpointer) == 20
    assert len(fsspec.filesystem("memory").find("/bucket/run")) == 2


def test_a_store_whose_package_is_missing_is_told() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(CheckpointError, match="cannot open nothing://x"):
        Checkpointer("nothing://x")


def test_a_small_disk_that_fills_up_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", size="1m") as disk:
        checkpointer = Checkpointer(disk, keep_last=1)
        checkpointer.save(10, state(10))
        with pytest.raises(CheckpointError, match="No space left on device"):
            checkpointer.save(20, {"w": torch.rand(1_000_000)})
        assert loaded_value(checkpointer) == 10
        checkpointer.save(20, state(20))
        assert loaded_value(checkpointer) == 20


@pytest.mark.parametrize("limit_bytes", [0, 100, 4096, 17_000])
def test_a_full_disk_is_told_and_leaves_the_checkpoints_before(tmp_path: Path, limit_bytes: int) -> None:
    checkpointer = Checkpointer(tmp_path)
    for step in (10, 20):
        checkpointer.save(step, state(step))
    with (
        no_file_larger_than(limit_bytes),
        pytest.raises(CheckpointError, match=r"cannot write the checkpoint of step 30 to .*: File too large"),
    ):
        checkpointer.save(30, state(30))
    assert sorted(os.listdir(tmp_path)) == ["step-00000010", "step-00000020"]
    assert loaded_value(checkpointer) == 20
    checkpointer.save(30, state(30))
    assert loaded_value(checkpointer) == 30


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Not a directory") as raised:
        Checkpointer(tmp_path / "file" / "folder").save(1, state(1))
    assert raised.value.hint is not None


def test_at_least_one_checkpoint_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_last must be positive, got 0"):
        Checkpointer(tmp_path, keep_last=0)


@pytest.mark.parametrize(
    ("errors", "is_final"),
    [
        ([errno.ENOENT], True),
        ([errno.EIO], False),
        ([errno.ESTALE], False),
        ([errno.ETIMEDOUT], False),
        ([errno.ENOENT, errno.EIO], False),
    ],
)
def test_what_could_not_be_read_this_time_may_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: list[int], is_final: bool
) -> None:
    checkpointer = Checkpointer(tmp_path)
    for step, _ in enumerate(errors, 1):
        checkpointer.save(step, {"x": 1})
    left = list(errors)

    def refuse(step: int) -> NoReturn:
        number = left.pop(0)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpointer, "_read", refuse)
    with pytest.raises(CheckpointError, match="is whole: ") as caught:
        checkpointer.load_newest()
    assert caught.value.is_final is is_final
