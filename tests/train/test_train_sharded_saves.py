"""Sharded saves in the background: whoever dies, whatever is full or damaged, a whole checkpoint is there.

Two workers of a gang, each with its helper, and storage that is a folder or an object store.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artesian.train.directory import Directory
from artesian.train.parts import Save, commit_parts, read_pieces, write_part
from artesian.train.parts_reader import read_manifest
from artesian.wire.messages import CheckpointCommitted
from faults_orders import CALLS_OF_A_SAVE, tear
from recovery_harness import DEADLINE_S, HOLD, Job, lose_node, wait_for

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]
STEPS, BATCH = 12, 4
IMAGE = bytes(range(256)) * 64

SCRIPT = f"""
import os, time
import torch
from torch.distributed.fsdp import fully_shard
from artesian.train import CheckpointError, Memory, Run, join

{HOLD}
torch.manual_seed(1)
member = join()
if os.environ.get("NO_ROOM") == str(member.rank):
    begin = Memory.begin
    def full(memory, step, *rest):
        if step >= 6:
            raise CheckpointError("/dev/shm has no room for a snapshot")
        begin(memory, step, *rest)
    Memory.begin = full
model = torch.nn.Sequential(torch.nn.Linear(6, 64), torch.nn.Dropout(0.2), torch.nn.Tanh(), torch.nn.Linear(64, 3))
for part in (model[0], model[3], model):
    fully_shard(part)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
data = [torch.full((6,), index / 100) for index in range(100)]
while os.environ["ARTESIAN_RESTART"] != "0" and not os.path.exists(os.environ.get("RESTARTS_WITH", "/")):
    time.sleep(0.02)
with Run.from_env(model=model, optimizer=optimizer, scheduler=scheduler, member=member) as run:
    for batch in run.batches(data, global_batch={BATCH}, steps=int(os.environ.get("STEPS", "{STEPS}"))):
        loss = (model(batch) - 1).square().mean()
        loss.backward()
        time.sleep(float(os.environ.get("STEP_S", "0")))
        run.commit(loss)
        hold(run)
"""


class Sharded(Job):
    """A job whose script shards its model, and saves after every second step."""

    def __init__(self, folder: Path, **env: str) -> None:
        super().__init__(folder, **{"ARTESIAN_CHECKPOINT_EVERY": "2", **env})
        self.script.write_text(SCRIPT)
        self.checkpoints = folder / "checkpoints"

    def saved(self) -> list[int]:
        """Return the steps whose checkpoints were told to be durable."""
        return [message.step for message in self.messages() if isinstance(message, CheckpointCommitted)]

    def begun_at(self, before: Counter[int]) -> Counter[int]:
        """Return at which steps workers have begun, beside those that had ``before``."""
        return Counter(each.step for each in self.restored()) - before


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], float | None]:
    """What it comes to where nothing happens."""
    undisturbed = Sharded(tmp_path_factory.mktemp("undisturbed"))
    try:
        undisturbed.run("--nproc-per-node", "2")
        # It has no memory to save from beside the training: it saves within the step.
        assert undisturbed.saved() == [2, 4, 6, 8, 10, 12]
        return undisturbed.losses()
    finally:
        undisturbed.end()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Sharded]]:
    jobs: list[Sharded] = []

    def made(**env: str) -> Sharded:
        jobs.append(Sharded(tmp_path / f"job-{len(jobs)}", **env))
        return jobs[-1]

    yield made
    for job in jobs:
        job.end()


def assert_whole(storage: Directory) -> list[int]:
    """See that every checkpoint is whole, to the last byte, and return their steps."""
    for step in storage.steps():
        manifest = read_manifest(storage, step)
        assert [part.rank for part in manifest.parts] == list(range(manifest.world_size))
        for part in manifest.parts:
            assert sum(len(piece) for _, piece in read_pieces(storage, manifest, part)) == part.size_bytes
    return storage.steps()


def test_a_store_that_takes_long_does_not_hold_training_up(
    make: Callable[..., Sharded], tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    job = make(
        ARTESIAN_CHECKPOINT_DIR="bucket://run",
        BUCKETS=str(tmp_path),
        PYTHONPATH=str(TESTS / "buckets"),
        STEP_S="0.05",
    )
    agent = job.start("--nproc-per-node", "2", "--max-restarts", "1", env={"STEPS": "30"})
    job.wait_for_step(20, rank=1)
    assert job.saved() == []
    assert list(tmp_path.glob("objects/run/*")) == []
    (tmp_path / "hold").unlink()
    _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 0, errors
    assert "saves failed" not in errors
    saved = job.saved()
    # The one that was begun, the newest of those that were due meanwhile, and so on to the last step.
    assert saved[0] == 2
    assert 20 <= saved[1] <= 30
    assert saved[-1] == 30
    assert saved == sorted(saved)
    kept = sorted(path.name for path in (tmp_path / "objects/run").iterdir())
    assert len(kept) == 4, "two checkpoints, and their parts"
    assert [name for name in kept if len(name) == len("step-00000030")] == [
        f"step-{step:08d}" for step in saved[-2:]
    ]
    again = make(
        ARTESIAN_CHECKPOINT_DIR="bucket://run", BUCKETS=str(tmp_path), PYTHONPATH=str(TESTS / "buckets")
    )
    again.run("--nproc-per-node", "1")
    assert {told.step for told in again.restored()} == {30}


@pytest.mark.parametrize("seed", range(2))
def test_a_node_that_is_lost_at_any_instant_goes_on_from_a_whole_checkpoint(
    make: Callable[..., Sharded], losses: dict[tuple[int, int], float | None], seed: int
) -> None:
    chance = random.Random(seed)
    job = make(STEP_S="0.05")
    storage = Directory(job.checkpoints)

    def seen() -> set[str]:
        return {path.name for path in job.checkpoints.glob("*step-*")}

    for _ in range(3):
        before, told = seen(), job.begun_at(Counter())
        newest = max(storage.steps(), default=0)
        agent = job.start("--nproc-per-node", "2", "--max-restarts", "1")
        wait_for(lambda: bool(seen() - before) or agent.poll() is not None, "a save to begin")  # noqa: B023
        signal.sigtimedwait([], chance.uniform(0, 0.1))
        lose_node(agent)
        agent.wait()
        assert_whole(storage)
        assert set(job.begun_at(told)) == ({newest} if newest else set())
    newest = max(storage.steps(), default=0)
    told = job.begun_at(Counter())
    job.run("--nproc-per-node", "2", "--max-restarts", "1")
    assert set(job.begun_at(told)) == ({newest} if newest else set())
    assert job.losses() == losses
    assert assert_whole(storage)[-1] == STEPS
    assert list(job.checkpoints.glob(".tmp-*")) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_where_a_rank_has_no_room_in_memory_all_save_within_the_step(
    make: Callable[..., Sharded], losses: dict[tuple[int, int], float | None], rank: int
) -> None:
    job = make(NO_ROOM=str(rank), STEP_S="0.05")
    agent = job.start("--nproc-per-node", "2", "--max-restarts", "1")
    _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 0, errors
    assert "/dev/shm has no room for a snapshot; saving to storage only" in errors
    assert job.losses() == losses
    assert {8, 10, 12} <= set(job.saved())
    assert assert_whole(Directory(job.checkpoints)) == [10, 12]
    assert list(job.checkpoints.glob(".tmp-*")) == []


def test_helpers_finish_what_they_have_begun_when_their_workers_are_killed(
    make: Callable[..., Sharded], tmp_path: Path, losses: dict[tuple[int, int], float | None]
) -> None:
    (tmp_path / "hold").touch()
    job = make(
        ARTESIAN_CHECKPOINT_DIR="bucket://run",
        BUCKETS=str(tmp_path),
        PYTHONPATH=str(TESTS / "buckets"),
        HOLDS_AT="4",
        RESTARTS_WITH=str(tmp_path / "restart"),  # the next save would sweep what was begun
    )
    agent = job.start("--nproc-per-node", "2", "--max-restarts", "1")
    job.wait_until_held(0, 1)
    workers = job.pid_of(0), job.pid_of(1)
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the end of both")
    first = tmp_path / "objects/run/step-00000002/manifest.json"
    assert not first.exists()
    (tmp_path / "hold").unlink()
    wait_for(first.exists, "the checkpoint of those who are gone")
    job.let_go()
    (tmp_path / "restart").touch()
    _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 0, errors
    assert len(job.records()) == 1
    assert job.losses() == losses
    again = make(
        ARTESIAN_CHECKPOINT_DIR="bucket://run", BUCKETS=str(tmp_path), PYTHONPATH=str(TESTS / "buckets")
    )
    again.run("--nproc-per-node", "2")
    assert {told.step for told in again.restored()} == {STEPS}


SAVE = """
import sys
from pathlib import Path
from artesian.train.directory import Directory
from artesian.train.parts import Save, commit_parts, write_part
storage, step = Directory(Path(sys.argv[1])), int(sys.argv[2])
save = Save(step=step, position=0, world_size=2, number=sys.argv[3])
storage.sweep(save.name)
for rank in (0, 1):
    assert commit_parts(storage, save, keep_last=2, keep_every=None) is None
    write_part(storage, save, rank, [memoryview(bytes(range(256)) * 64)], 256)
assert commit_parts(storage, save, keep_last=2, keep_every=None) is not None
"""


def save_parts(storage: Directory, step: int, number: str) -> None:
    save = Save(step=step, position=0, world_size=2, number=number)
    storage.sweep(save.name)
    for rank in (1, 0):
        write_part(storage, save, rank, [memoryview(IMAGE)], 256)
    assert commit_parts(storage, save, keep_last=2, keep_every=None) is not None


@pytest.mark.parametrize("step", [16, 24])  # anew, and in the place of one that is there
def test_a_death_before_any_call_of_a_save_leaves_whole_checkpoints(tmp_path: Path, step: int) -> None:
    deaths = 0
    for calls in range(0, 2 * CALLS_OF_A_SAVE + 8, 2 if step == 24 else 1):
        orders = tmp_path / f"orders-{calls}"
        orders.mkdir()
        storage = Directory(tmp_path / f"{calls}" / "checkpoints")
        for before in (8, 12, 24) if step == 24 else (8, 12):
            save_parts(storage, before, "before")
        tear(orders, 0, calls=calls, takes="worker")
        environ = {**os.environ, "PYTHONPATH": str(TESTS / "saboteur"), "FAULTS_ORDERS": str(orders)}
        command = [sys.executable, "-c", SAVE, str(storage.folder), str(step), "torn"]
        code = subprocess.run(command, env=environ, timeout=60).returncode
        assert code in (0, -signal.SIGKILL)
        deaths += code != 0
        left = assert_whole(storage)
        assert (24 if step == 24 else 12) in left
        save_parts(storage, 32, "after")
        assert len(assert_whole(storage)) == 2
        assert list(storage.folder.glob(".tmp-*")) == []
    assert deaths >= CALLS_OF_A_SAVE // 2, "the calls of a save are not all tried"


def test_parts_of_another_save_of_the_same_step_are_no_parts_of_this_one(tmp_path: Path) -> None:
    storage = Directory(tmp_path)
    for number, rank in (("one", 0), ("other", 1)):
        save = Save(step=8, position=0, world_size=2, number=number)
        write_part(storage, save, rank, [memoryview(IMAGE)], 256)
        assert commit_parts(storage, save, keep_last=2, keep_every=None) is None
    assert storage.steps() == []


def test_a_full_disk_is_told_and_training_goes_on_from_what_was_there(
    make: Callable[..., Sharded], tmp_path: Path, losses: dict[tuple[int, int], float | None]
) -> None:
    orders = tmp_path / "orders"
    orders.mkdir()
    job = make(
        FAULTS_ORDERS=str(orders), PYTHONPATH=str(TESTS / "saboteur"), HOLDS_AT=str(STEPS - 1), STEP_S="0.3"
    )
    agent = job.start("--nproc-per-node", "2", "--max-restarts", "1")
    wait_for(lambda: job.saved() != [], "the first checkpoint")
    (orders / "full").touch()
    job.wait_until_held(0, 1)
    kept = assert_whole(Directory(job.checkpoints))
    assert kept, "what was there before stays"
    (orders / "full").unlink()
    job.let_go()
    _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 0, errors
    assert "No space left on device; training goes on" in errors
    assert job.losses() == losses
    assert assert_whole(Directory(job.checkpoints))[-1] == STEPS
    assert list(job.checkpoints.glob(".tmp-*")) == []


def test_two_then_one_then_two_workers_go_on_and_a_damaged_part_is_passed_over(
    make: Callable[..., Sharded], losses: dict[tuple[int, int], float | None]
) -> None:
    job = make()
    started: list[set[int]] = []
    for workers, steps in ((2, 4), (1, 8), (2, STEPS)):
        told = job.begun_at(Counter())
        agent = job.start("--nproc-per-node", str(workers), "--max-restarts", "1", env={"STEPS": str(steps)})
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
        started.append(set(job.begun_at(told)))
    assert started == [set(), {4}, {8}]
    storage = Directory(job.checkpoints)
    assert assert_whole(storage) == [10, 12]
    assert [read_manifest(storage, step).position for step in (10, 12)] == [10 * BATCH, 12 * BATCH]
    made = {step for _, step in job.losses()}
    assert made == set(range(1, STEPS + 1)), "each step was made once, by two or by one"
    first = {key: loss for key, loss in job.losses().items() if key[1] <= 4}
    assert first == {key: loss for key, loss in losses.items() if key[1] <= 4}

    damaged = storage.path(12) / "part-00001.bin"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    told = job.begun_at(Counter())
    agent = job.start("--nproc-per-node", "1", "--max-restarts", "1")
    _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 0, errors
    assert set(job.begun_at(told)) == {10}
    assert "step-00000012 is not whole, going back to an older one" in errors
    assert "part-00001.bin does not match its checksum" in errors
    assert assert_whole(storage) == [10, 12]
    assert json.loads((storage.path(12) / "manifest.json").read_text())["world_size"] == 1
