"""What each rank of a sharded training does in the tests; a module that a spawned process can import."""

import errno
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from artesian.train import CheckpointError, Run
from artesian.train.memory import Memory
from artesian.train.segment import JobFolder
from artesian.train.sharded import ShardedCheckpointer, local_shards, restore_shards


def training(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    if dist.is_initialized():
        for layer in (model[0], model[2], model):
            fully_shard(layer)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """All ranks see the same batch, so that the gradients do not depend on how many there are."""
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.rand(4, 6, generator=generator)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def whole(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters and the moments, gathered."""
    found = []
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"], state["step"]):
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            found.append(full.detach().clone())
    return found


def entry(rank: int, world_size: int, folder: Path, act: Callable[[Path], None]) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store-{world_size}", rank=rank, world_size=world_size
    )
    try:
        act(folder)
    finally:
        dist.destroy_process_group()


def on_ranks(world_size: int, folder: Path, act: Callable[[Path], None]) -> None:
    (folder / f"store-{world_size}").unlink(missing_ok=True)
    if world_size == 1:
        entry(0, 1, folder, act)  # in this process: another takes seconds to start
        return
    multiprocessing.spawn(entry, args=(world_size, folder, act), nprocs=world_size)  # type: ignore[attr-defined, no-untyped-call]


def save_three(folder: Path) -> None:
    model, optimizer = training(seed=1)
    checkpointer = ShardedCheckpointer(folder / "run")
    for step in (1, 2, 3):
        train(model, optimizer, 1)
        checkpointer.save(step, model, optimizer, position=8 * step, extra={"lr": 0.1})
    gathered = whole(model, optimizer)
    if dist.get_rank() == 0:
        torch.save(gathered, folder / "expected.pt")


def save_as_the_first_release_did(folder: Path) -> None:
    """Save step 3 in the format of artesian 0.1: a folder of DCP's, and a manifest of its files beside it."""
    model, optimizer = training(seed=1)
    train(model, optimizer, 3)
    gathered = whole(model, optimizer)
    model_state, optimizer_state = get_state_dict(model, optimizer)
    path = folder / "run/step-00000003"
    dcp_save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=path)
    if dist.get_rank() == 0:
        files = {each.name: [each.stat().st_size, zlib.crc32(each.read_bytes())] for each in path.iterdir()}
        manifest: dict[str, Any] = {
            "format": "dcp-1",
            "step": 3,
            "position": 24,
            "world_size": dist.get_world_size(),
            "extra": {"lr": 0.1},
            "artesian": "0.1.0",
            "files": files,
        }
        manifest["check"] = zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
        (path / "manifest.json").write_text(json.dumps(manifest))
        torch.save(gathered, folder / "expected.pt")
    dist.barrier()


def load_and_compare(folder: Path) -> None:
    model, optimizer = training(seed=2)
    found = ShardedCheckpointer(folder / "run").load_newest(model, optimizer)
    assert found is not None
    assert (found.step, found.position, found.extra, found.rejected) == (3, 24, {"lr": 0.1}, ())
    expected: list[Tensor] = torch.load(folder / "expected.pt")
    for one, other in zip(whole(model, optimizer), expected, strict=True):
        assert torch.equal(one, other)
    train(model, optimizer, 1)  # and it trains on


def fail_on_a_file_in_the_way(folder: Path) -> None:
    """Every rank is told, none waits for the other, and the checkpoints before stay."""
    model, optimizer = training(seed=1)
    train(model, optimizer, 1)
    checkpointer = ShardedCheckpointer(folder / "run")

    put_part = checkpointer.storage.put_part

    def full(save: str, name: str, pieces: Any) -> tuple[int, list[int]]:
        if dist.get_rank() == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put_part(save, name, pieces)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointer.storage, "put_part", full)
        with pytest.raises(CheckpointError, match=r"rank 1: cannot write part 1 .*No space left on device"):
            checkpointer.save(4, model, optimizer)
    dist.barrier()  # rank 0 has removed what there was of it
    assert sorted(path.name for path in (folder / "run").iterdir()) == ["step-00000002", "step-00000003"]
    load_and_compare(folder)


def remember_in_memory(folder: Path) -> None:
    """A rank's shards survive in its shared memory, too."""
    model, optimizer = training(seed=1)
    train(model, optimizer, 2)
    jobs = JobFolder("j", base=folder)
    memory = Memory(jobs, dist.get_rank())
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    memory.begin(2, local_shards(state))
    memory.wait()
    before = whole(model, optimizer)
    train(model, optimizer, 2)
    recalled = memory.load()
    assert recalled is not None
    restore_shards({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, recalled.state)
    for one, other in zip(whole(model, optimizer), before, strict=True):
        assert torch.equal(one, other)
    memory.close()
    jobs.leave(keep=False)


def train_with_run(folder: Path) -> None:
    """Make five steps with ``Run``, which are saved at the end."""
    folder.mkdir(exist_ok=True)
    model, optimizer = training(seed=1)
    data = [torch.full((6,), index / 100) for index in range(100)]
    with Run.from_env(model=model, optimizer=optimizer, checkpoint_dir=folder / "run", environ={}) as run:
        for batch in run.batches(data, global_batch=4, steps=5):
            model(batch).square().mean().backward()
            run.commit()
    gathered = whole(model, optimizer)
    if dist.get_rank() == 0:
        torch.save(gathered, folder / "expected.pt")


def go_on_from_storage(folder: Path) -> None:
    model, optimizer = training(seed=9)
    with Run.from_env(model=model, optimizer=optimizer, checkpoint_dir=folder / "run", environ={}) as run:
        assert (run.step, run.position) == (5, 20)
    expected: list[Tensor] = torch.load(folder / "expected.pt")
    for one, other in zip(whole(model, optimizer), expected, strict=True):
        assert torch.equal(one, other)


def all_of_two(folder: Path) -> None:
    save_three(folder)
    load_and_compare(folder)
    fail_on_a_file_in_the_way(folder)
    remember_in_memory(folder)
    train_with_run(folder / "with-run")
    (folder / "old").mkdir(exist_ok=True)
    save_as_the_first_release_did(folder / "old")
    load_and_compare(folder / "old")
