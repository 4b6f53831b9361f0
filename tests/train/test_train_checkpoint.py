"""Checkpoints: whole or not there, at whatever point a save is cut off and whatever is damaged later."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import artesian
from artesian.train import Checkpointer, CheckpointError
from limits import no_file_larger_than


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
    assert saved.size_bytes == (tmp_path / "new/folder/step-00000007/state.pt").stat().st_size
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
            (torch, "save"),
            (json, "dump"),
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
    os.truncate(folder / "state.pt", 100)


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)


def lose_the_state(folder: Path) -> None:
    (folder / "state.pt").unlink()


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
    (lose_the_state, "state.pt"),
    (lose_the_manifest, "manifest.json"),
    (tear_the_manifest, "manifest.json is damaged"),
    (change_the_format, "it has format 99, this version reads 1"),
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


def test_a_checkpoint_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "was here"),))

    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, {"evil": Evil()})
    with pytest.raises(CheckpointError, match="is whole"):
        checkpointer.load_newest()
    assert not (tmp_path / "was here").exists()


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
