"""A node that Slurm has lost and whose workers live on: the job goes on elsewhere, and they spoil nothing of it."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from artesian.engines.local.records import AttemptFolder
from artesian.model.job import Cause
from artesian.wire import Message, ProgressReader, Restored, StepCommitted
from cli_harness import Cli, until
from engines_harness import Session
from slurm_cluster import SlurmCluster, slurm_cli, slurm_cluster

STEPS, EVERY, WORKERS = 16, 4, 2

SCRIPT = f"""
import os, sys, time
from pathlib import Path
import torch
from torch.nn.parallel import DistributedDataParallel
from artesian.train import Run, join

torch.set_num_threads(1)
torch.manual_seed(1)
notes, epoch, stays_at = Path(sys.argv[1]), os.environ["ARTESIAN_EPOCH"], dict(zip("12", map(int, sys.argv[2:])))

class Noted:
    def __init__(self): self.asked = []
    def __len__(self): return 1000
    def __getitem__(self, index):
        self.asked.append(index)
        return torch.full((6,), index / 1000)

member = join()
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = Noted()
with open(notes / f"{{epoch}}-{{member.rank}}.txt", "a", buffering=1) as seen:
    with Run.from_env(model=model, optimizer=optimizer, member=member) as run:
        for batch in run.batches(data, global_batch=4, steps={STEPS}):
            asked, data.asked = data.asked, []
            print(run.step + 1, *asked, file=seen)
            loss = (model(batch) - 1).square().mean()
            loss.backward()
            run.commit(loss)
            if run.step == stays_at.get(epoch):
                (notes / f"stays-{{epoch}}").touch()
                while not (notes / f"go-{{epoch}}").exists():
                    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Trained:
    """One job of the script, and what can be read about it."""

    cli: Cli
    job_id: str
    notes: Path

    def folder(self, epoch: int) -> AttemptFolder:
        return self.cli.attempt(self.job_id, epoch)

    def messages(self, epoch: int) -> list[Message]:
        return ProgressReader(self.folder(epoch).progress).read()

    def losses(self, epoch: int) -> dict[tuple[int, int], float | None]:
        """Return an attempt's losses by rank and step."""
        said = self.messages(epoch)
        return {(each.rank, each.step): each.loss for each in said if isinstance(each, StepCommitted)}

    def samples(self, epoch: int) -> dict[int, set[str]]:
        """Return an attempt's samples by step, of all ranks."""
        found: dict[int, set[str]] = {}
        for path in self.notes.glob(f"{epoch}-*.txt"):
            for line in path.read_text().splitlines():
                step, *asked = line.split()
                found.setdefault(int(step), set()).update(asked)
        return found

    def files(self) -> dict[str, bytes]:
        """Return all that is where the job's checkpoints lie."""
        folder = self.folder(1).path.parent / "checkpoints"
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }


@pytest.fixture
def cluster(session: Session) -> Iterator[SlurmCluster]:
    cluster = session.once("slurm", slurm_cluster)
    yield cluster
    cluster.revive()


@pytest.fixture
def cli(tmp_path: Path, cluster: SlurmCluster) -> Iterator[Cli]:
    with slurm_cli(tmp_path, cluster) as cli:
        yield cli


def train(cli: Cli, name: str, *stays_at: int) -> Trained:
    """Submit a job of the script, whose attempts wait for word after these steps, the first after the first."""
    notes, script = cli.folder / f"notes-{name}", cli.folder / "script.py"
    notes.mkdir()
    script.write_text(SCRIPT)
    job_id = cli.submit(
        name,
        kind="train",
        devices=f"h100:{WORKERS}",
        workers=WORKERS,
        command=[sys.executable, str(script), str(notes), *map(str, stays_at)],
        checkpoint={"every": EVERY},
        retry={"backoff": "0s"},
    )
    return Trained(cli, job_id, notes)


def train_and_cut_off(cli: Cli, cluster: SlurmCluster, *stays_at: int) -> tuple[Trained, str]:
    """Train on a node that is cut off; return when the next attempt is there, and waits, with the node's name."""
    job = train(cli, "train", *stays_at)
    until((job.notes / "stays-1").exists)
    until(lambda: f"step-{EVERY:08d}/manifest.json" in job.files())
    (share,) = cli.journal().jobs[job.job_id].attempts[0].placement.shares
    cluster.cut_off(share.node_id)
    until((job.notes / "stays-2").exists)
    first, second = cli.journal().jobs[job.job_id].attempts
    assert first.outcome is not None
    assert first.outcome.cause is Cause.NODE_LOST
    assert share.node_id not in [other.node_id for other in second.placement.shares]
    assert {each.step for each in job.messages(2) if isinstance(each, Restored)} == {EVERY}
    assert json.loads(job.files()["writer.json"])["epochs"] == {job.job_id: 2}
    assert cluster.tasks_on(share.node_id), "the old workers live on"
    return job, share.node_id


@pytest.mark.slow
def test_workers_on_a_node_that_is_cut_off_are_refused_and_the_job_ends_as_if_undisturbed(
    cli: Cli, cluster: SlurmCluster
) -> None:
    pytest.importorskip("torch")
    undisturbed = train(cli, "undisturbed")
    cli.until_in(undisturbed.job_id, "succeeded")
    job, node = train_and_cut_off(cli, cluster, EVERY + 2, 2 * EVERY + 2)
    until(lambda: f"step-{2 * EVERY:08d}/manifest.json" in job.files())
    before = job.files()

    # The old ones come to their next save, which is of the step that the new ones have saved already.
    (job.notes / "go-1").touch()
    until(lambda: not cluster.tasks_on(node))
    errors = job.folder(1).stderr.read_text()
    assert "SupersededError" in errors
    assert "this is attempt 1" in errors
    assert max(step for _, step in job.losses(1)) >= 2 * EVERY
    assert job.files() == before

    (job.notes / "go-2").touch()
    cli.until_in(job.job_id, "succeeded")
    expected = {at: loss for at, loss in undisturbed.losses(1).items() if at[1] > EVERY}
    assert job.losses(2) == expected  # to the last bit
    samples = {step: asked for step, asked in job.samples(1).items() if step <= EVERY} | job.samples(2)
    assert samples == undisturbed.samples(1)
    assert sorted(samples) == list(range(1, STEPS + 1))
    until_all_is_well(cli, cluster, job, node)


@pytest.mark.slow
def test_a_node_that_is_back_has_its_old_workers_ended_by_slurm_and_they_save_nothing(
    cli: Cli, cluster: SlurmCluster
) -> None:
    """They have a newer step in memory than the next attempt has saved, and their agent would bring it there."""
    pytest.importorskip("torch")
    stays_at = EVERY + 3
    job, node = train_and_cut_off(cli, cluster, stays_at, EVERY + 1)
    before = job.files()
    cluster.reconnect(node)
    until(lambda: not cluster.processes_of(node))
    assert job.files() == before
    (job.notes / "go-2").touch()
    cli.until_in(job.job_id, "succeeded")
    assert max(step for _, step in job.losses(1)) == stays_at
    assert sorted({step for _, step in job.losses(2)}) == list(range(EVERY + 1, STEPS + 1))
    until_all_is_well(cli, cluster, job, None)


def until_all_is_well(cli: Cli, cluster: SlurmCluster, job: Trained, node: str | None) -> None:
    """See that the newest checkpoint is the newest attempt's and that nothing is left, also when ``node`` is back."""
    newest = max(name.partition("/")[0] for name in job.files() if name.startswith("step-"))
    assert newest == f"step-{STEPS:08d}"
    assert json.loads(job.files()["writer.json"])["epochs"] == {job.job_id: 2}
    if node is not None:
        cluster.reconnect(node)
    cluster.until_states("idle", cluster.node_names)
    assert cluster.job_ids() == []
    assert [pid for name in cluster.node_names for pid in cluster.processes_of(name)] == []
    attempts = cli.json("show", job.job_id)["attempts"]
    assert [attempt["outcome"]["cause"] for attempt in attempts] == ["node_lost", "completed"]
    assert cli.is_in(job.job_id) == "succeeded"
