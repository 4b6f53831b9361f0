"""``Run`` with sharded state: a part that was lost with its node comes back from another node's memory."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.wire.messages import Layer
from ports import free_port
from recovery_harness import (
    DEADLINE_S,
    HOLD,
    Job,
    lose_node,
    start_node,
    wait_until_bound,
)

pytestmark = pytest.mark.slow
STEPS, BATCH = 12, 4

SCRIPT = f"""
import os, sys, time
import torch
from torch.distributed.fsdp import fully_shard
from artesian.train import Run, join
from artesian.train.guards import Action, Policy

{HOLD}
torch.manual_seed(1)
member = join()
model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3))
for part in (model[0], model[2], model):
    fully_shard(part)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
data = [torch.full((6,), index / 100) for index in range(100)]
undone = int(os.environ.get("UNDONE", "0")) if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" else 0
guard = Policy(not_finite=Action.ROLL_BACK, back=3, forget=2) if "UNDONE" in os.environ else None
with Run.from_env(
    model=model, optimizer=optimizer, scheduler=scheduler, member=member, memory_every=1, guard=guard
) as run:
    for handed, batch in enumerate(run.batches(data, global_batch={BATCH}, steps={STEPS}), start=1):
        before = run.step
        loss = (model(batch) - 1).square().mean() * (float("inf") if handed == undone else 1.0)
        loss.backward()
        run.commit(loss)
        if run.step < before:
            torch.distributed.barrier()
            os._exit(9)
        hold(run)
"""


class Sharded(Job):
    """A job whose script shards its model, and saves to storage at its end only."""

    def __init__(self, folder: Path, **env: str) -> None:
        super().__init__(folder, ARTESIAN_CHECKPOINT_EVERY="", **env)
        self.script.write_text(SCRIPT)


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], float | None]:
    """What it comes to where nothing happens."""
    undisturbed = Sharded(tmp_path_factory.mktemp("undisturbed"))
    try:
        return undisturbed.run("--nproc-per-node", "2").losses()
    finally:
        undisturbed.end()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Sharded]:
    job = Sharded(tmp_path, HOLDS_AT="4")
    yield job
    job.end()


def test_a_spare_goes_on_with_the_part_of_a_lost_node_from_the_memory_of_its_neighbour(
    job: Sharded, losses: dict[tuple[int, int], float | None]
) -> None:
    port = free_port()
    nodes = [start_node(job, port, "2")]
    wait_until_bound(port)
    nodes.append(start_node(job, port, "2"))
    job.wait_until_held(0, 1)
    nodes.append(start_node(job, port, "2"))
    lose_node(nodes[1])
    job.let_go()
    for agent in (nodes[0], nodes[2]):
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    (record,) = job.records()
    assert record.layer is Layer.SPARE
    restored = {told.step for told in job.restored()}
    assert restored, "it began from nothing, as storage has nothing"
    assert min(restored) > 0
    assert job.losses() == losses
    assert [path.name for path in (job.folder / "checkpoints").iterdir()] == [f"step-{STEPS:08d}"]


def test_a_worker_that_is_killed_goes_on_from_its_own_memory(
    job: Sharded, losses: dict[tuple[int, int], float | None]
) -> None:
    agent = job.start("--nproc-per-node", "2", "--max-restarts", "1")
    job.wait_until_held(0, 1)
    os.kill(job.pid_of(1), signal.SIGKILL)
    job.let_go()
    _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 0, errors
    assert {told.step > 0 for told in job.restored()} == {True}
    assert job.losses() == losses


def test_a_gang_that_is_killed_once_it_has_gone_back_does_not_go_on_from_what_was_undone(
    tmp_path: Path,
) -> None:
    job = Sharded(tmp_path, UNDONE="8")
    try:
        options = ("--nproc-per-node", "2", "--max-restarts", "1")
        agent = job.start(*options, env={"ARTESIAN_CHECKPOINT_EVERY": "2"})
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
        went_back, came_back = [told.step for told in job.restored() if told.rank == 0]
        assert 0 < went_back <= 5
        assert came_back == went_back
    finally:
        job.end()
