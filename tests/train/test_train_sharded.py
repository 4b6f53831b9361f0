"""Sharded checkpoints: saved by two ranks and loaded by one, and the other way round, bit for bit."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from artesian.train import CheckpointError
from artesian.train.parts_reader import open_parts
from artesian.train.sharded import ShardedCheckpointer
from sharded_harness import all_of_two, go_on_from_storage, load_and_compare, on_ranks, save_three, training

pytestmark = pytest.mark.slow


def test_two_ranks_save_and_one_loads(tmp_path: Path) -> None:
    on_ranks(2, tmp_path, all_of_two)
    assert sorted(os.listdir(tmp_path / "run")) == ["step-00000002", "step-00000003"]
    on_ranks(1, tmp_path, load_and_compare)
    on_ranks(1, tmp_path / "with-run", go_on_from_storage)
    on_ranks(1, tmp_path / "old", load_and_compare)
    read_by_the_tools_of_torch(tmp_path)
    # Damage is found before anything is loaded.
    data = max((tmp_path / "run/step-00000003").glob("*.bin"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    (tmp_path / "run/step-00000004").mkdir()
    model, optimizer = training(seed=3)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        ShardedCheckpointer(tmp_path / "run")._load(3, model, optimizer)
    for one, other in zip(before, model.parameters(), strict=True):
        assert torch.equal(one, other)
    found = ShardedCheckpointer(tmp_path / "run").load_newest(model, optimizer)
    assert found is not None
    assert (found.step, found.world_size) == (2, 2)
    assert [item.path.name for item in found.rejected] == ["step-00000004", "step-00000003"]
    shutil.rmtree(tmp_path / "run/step-00000002")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole"):
        ShardedCheckpointer(tmp_path / "run").load_newest(model, optimizer)


def read_by_the_tools_of_torch(folder: Path) -> None:
    """What was saved in parts can be read as any checkpoint of DCP's, with its own planner, tied to no model."""
    model, _ = training(seed=4)
    state = {"model": model.state_dict()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")
        dcp_load(state, storage_reader=open_parts(folder / "run"))
    expected: list[torch.Tensor] = torch.load(folder / "expected.pt")
    for one, other in zip(model.parameters(), expected[::4], strict=True):
        assert torch.equal(one, other)


def test_one_rank_saves_and_two_load(tmp_path: Path) -> None:
    on_ranks(1, tmp_path, save_three)
    on_ranks(2, tmp_path, load_and_compare)


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert ShardedCheckpointer(tmp_path / "none").load_newest(*training(seed=1)) is None
    with pytest.raises(ValueError, match="keep_last must be positive"):
        ShardedCheckpointer(tmp_path, keep_last=0)
