"""A notice of preemption: what the workers have in memory is in storage when the node is gone, whatever they do."""

import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from artesian.train import Checkpointer, CheckpointError
from artesian.train.interval import EverySteps
from artesian.train.last_save import NOTE, leave_note
from artesian.train.last_save_process import bring
from artesian.train.memory import Memory
from artesian.train.parts_reader import open_parts
from artesian.train.persist_process import in_parts, to_storage
from artesian.train.saver import Saver
from artesian.train.segment import JobFolder
from artesian.wire.environment import CHECKPOINT_DIR
from ports import free_port
from recovery_harness import DEADLINE_S, Job, start_node

STEPS, BATCH, LONG = 8, 4, 5

SCRIPT = f"""
import os, sys, time
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.distributed.fsdp import fully_shard
from artesian.train import Run, join

torch.manual_seed(1)
member = join()
# Of replicas storage has the random generators of rank 0, of parts each rank's own.
noise = torch.nn.Dropout(0.2) if "SHARDED" in os.environ else torch.nn.Tanh()
model = torch.nn.Sequential(torch.nn.Linear(6, 10), noise, torch.nn.Linear(10, 3))
if "SHARDED" in os.environ:
    for part in (model[0], model[2], model):
        fully_shard(part)
else:
    model = DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = [torch.full((6,), index / 100) for index in range(100)]
with Run.from_env(model=model, optimizer=optimizer, member=member, memory_every=1) as run:
    for batch in run.batches(data, global_batch={BATCH}, steps={STEPS}):
        loss = (model(batch) - 1).square().mean()
        loss.backward()
        if run.step == {LONG} and "LONG_S" in os.environ:
            saves = run._saves
            (saves._memory if "SHARDED" in os.environ else saves._saver.memory).finish()  # what this step began
            open(os.environ["HOLD"] + f"/held-{{member.rank}}", "w").close()
            time.sleep(float(os.environ["LONG_S"]))
        run.commit(loss)
"""


class Preempted(Job):
    """A job that saves to storage at its end only, and whose sixth step is longer than any grace."""

    def __init__(self, folder: Path, **env: str) -> None:
        super().__init__(folder, ARTESIAN_CHECKPOINT_EVERY="", **env)
        self.script.write_text(SCRIPT)
        self.is_sharded = "SHARDED" in env


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[list[Preempted]]:
    made: list[Preempted] = []
    yield made
    for job in made:
        job.end()


@pytest.fixture(scope="module", params=["sharded", "replicated"])
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Preempted]:
    """What it comes to where nothing happens."""
    env = {"SHARDED": "1"} if request.param == "sharded" else {}
    job = Preempted(tmp_path_factory.mktemp("undisturbed"), **env)
    try:
        job.run("--nproc-per-node", "2", "--max-restarts", "1")
        yield job
    finally:
        job.end()


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "takes long"])
def test_a_step_that_is_longer_than_the_grace_is_all_that_is_lost(
    tmp_path: Path, jobs: list[Preempted], undisturbed: Preempted, hangs: bool
) -> None:
    env = {"SHARDED": "1"} if undisturbed.is_sharded else {}
    here = Preempted(tmp_path / "here", LONG_S="600", **env)
    jobs.append(here)
    agent = here.start("--nproc-per-node", "2", "--max-restarts", "1", "--stop-grace", "4")
    here.wait_until_held(0, 1)
    if hangs:  # deaf to every notice
        for rank in (0, 1):
            os.kill(here.pid_of(rank), signal.SIGSTOP)
    agent.send_signal(signal.SIGUSR1 if hangs else signal.SIGTERM)
    _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 143, errors
    assert f"saved step {LONG}, the newest that the workers have in memory" in errors
    assert os.listdir(here.folder / "checkpoints") == [f"step-{LONG:08d}"]

    elsewhere = Preempted(tmp_path / "elsewhere", **{CHECKPOINT_DIR: str(here.folder / "checkpoints")}, **env)
    jobs.append(elsewhere)
    elsewhere.run("--nproc-per-node", "2", "--max-restarts", "1")
    assert {told.step for told in elsewhere.restored()} == {LONG}
    assert {**here.losses(), **elsewhere.losses()} == undisturbed.losses()


@pytest.mark.slow
def test_nodes_that_are_lost_together_leave_a_whole_checkpoint_of_their_parts(
    tmp_path: Path, jobs: list[Preempted]
) -> None:
    job = Preempted(tmp_path / "here", LONG_S="600", SHARDED="1")
    jobs.append(job)
    port = free_port()
    nodes = [start_node(job, port, "2", options=("--stop-grace", "10")) for _ in range(2)]
    job.wait_until_held(0, 1)
    for node in nodes:
        node.send_signal(signal.SIGTERM)
    errors = [node.communicate(timeout=DEADLINE_S)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [143, 143], errors
    assert sum("the newest that the workers have in memory" in text for text in errors) == 1, errors
    reader = open_parts(job.folder / "checkpoints")
    # A snapshot is not begun before the one before has arrived at the neighbour.
    assert LONG - 2 <= reader.manifest.step <= LONG
    assert [part.rank for part in reader.manifest.parts] == [0, 1]
    elsewhere = Preempted(
        tmp_path / "elsewhere", **{CHECKPOINT_DIR: str(job.folder / "checkpoints")}, SHARDED="1"
    )
    jobs.append(elsewhere)
    elsewhere.run("--nproc-per-node", "1")
    assert {told.step for told in elsewhere.restored()} == {reader.manifest.step}


def state(step: int) -> dict[str, Any]:
    return {"w": torch.full((50_000,), float(step))}


def test_only_what_is_newer_than_storage_is_brought_there_and_nothing_is_removed(tmp_path: Path) -> None:
    saver = Saver(
        tmp_path / "run", job="j", rank=1, interval=EverySteps(100), shared_memory=tmp_path, keep_last=1
    )
    folder = JobFolder("j", base=tmp_path)
    assert (folder.path / NOTE).stat().st_mode & 0o777 == 0o600
    for step in (3, 4):
        saver.begin(step, lambda: state(step), position=10 * step)  # noqa: B023
        saver.wait()
    assert saver.memory is not None
    saver.memory.finish()
    assert bring(folder, 0) == 4
    assert bring(folder, 0) is None
    checkpoint = Checkpointer(tmp_path / "run").load_newest()
    assert checkpoint is not None
    assert (checkpoint.manifest.step, checkpoint.manifest.position) == (4, 40)
    assert torch.equal(checkpoint.state["w"], state(4)["w"])
    saver.begin(5, lambda: state(5))
    saver.memory.finish()
    Checkpointer(tmp_path / "run").save(6, state(6))
    assert bring(folder, 0) is None
    assert Checkpointer(tmp_path / "run").steps() == [4, 6]
    saver.close()
    folder.leave(keep=False)


def test_where_nobody_saves_nothing_is_brought(tmp_path: Path) -> None:
    folder = JobFolder("j", base=tmp_path)
    assert bring(folder, 0) is None
    leave_note(folder, {"where": "memory://run"})  # of that process alone
    assert bring(folder, 0) is None
    folder.leave(keep=False)


def sharded_node(
    base: Path, rank: int, steps: tuple[int, ...], *, world_size: int = 2
) -> tuple[JobFolder, Memory]:
    """Return a node that has one rank of two, with its parts of two steps at most in its memory."""
    base.mkdir()
    folder = JobFolder("j", base=base)
    leave_note(folder, in_parts(to_storage(base.parent / "run")))
    memory = Memory(folder, 0)
    for step in steps:
        meta = {
            "position": 4 * step,
            "world_size": world_size,
            "rank": rank,
            "save": f"run-{step}",
            "names": [],
        }
        tree = {"model": {"w": torch.full((4,), float(rank))}, "optimizer": {"state": {}, "param_groups": []}}
        shards = {"model.w": [[8], [4 * rank]]}
        memory.begin(step, tree, {**meta, "shards": shards})
        memory.finish()
    return folder, memory


def test_nodes_bring_the_newest_step_that_all_of_them_have(tmp_path: Path) -> None:
    nodes = [
        sharded_node(tmp_path / "a", 0, (3, 4, 5)),
        sharded_node(tmp_path / "b", 1, (3, 4)),
    ]
    brought: list[int | None] = [None]

    def first() -> None:
        brought[0] = bring(nodes[0][0], time.monotonic() + DEADLINE_S)

    thread = threading.Thread(target=first)
    thread.start()
    assert bring(nodes[1][0], 0) is None, "the commit is the other node's"
    thread.join()
    assert brought == [4]
    reader = open_parts(tmp_path / "run")
    assert reader.manifest.position == 16
    whole = {"model": {"w": torch.full((8,), -1.0)}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")
        dcp_load(whole, storage_reader=reader)
    assert whole["model"]["w"].tolist() == [0.0] * 4 + [1.0] * 4
    for folder, memory in nodes:
        memory.close()
        folder.leave(keep=False)


def test_what_a_rank_has_left_that_is_no_more_does_not_hold_the_others_up(tmp_path: Path) -> None:
    folder, memory = sharded_node(tmp_path / "a", 0, (5, 6), world_size=1)
    before = Memory(folder, 1)  # of the run before, which had two ranks here
    meta = {"position": 8, "world_size": 2, "rank": 1, "save": "earlier-2", "names": [], "shards": {}}
    before.begin(2, {"model": {}, "optimizer": {"state": {}, "param_groups": []}}, meta)
    before.close(keep=True)
    assert bring(folder, 0) == 6
    assert open_parts(tmp_path / "run").manifest.step == 6
    memory.close()
    folder.leave(keep=False)


def test_parts_that_do_not_come_in_time_are_no_checkpoint(tmp_path: Path) -> None:
    folder, memory = sharded_node(tmp_path / "a", 0, (3, 4))
    with pytest.raises(CheckpointError, match="not all parts of the checkpoint of step 4"):
        bring(folder, 0)
    assert [name for name in os.listdir(tmp_path / "run") if not name.startswith(".tmp-")] == []
    assert json.loads((folder.path / NOTE).read_text())["is_in_parts"] is True
    memory.close()
    folder.leave(keep=False)
