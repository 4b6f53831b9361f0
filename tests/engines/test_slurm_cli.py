"""The command line with a Slurm named in artesian.toml: a real cluster, and nothing else changed."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.model.job import Cause
from artesian.wire import CheckpointCommitted, Message, ProgressReader, Restored, StepCommitted
from cli_harness import Cli, until
from engines_harness import Session
from slurm_cluster import SlurmCluster, slurm_cli, slurm_cluster

TINY = ("--batch", "2", "--context", "32", "--dim", "32", "--layers", "2", "--experts", "2")
PRETRAIN = Path(__file__).parents[2] / "examples" / "pretrain.py"


@pytest.fixture
def cluster(session: Session) -> Iterator[SlurmCluster]:
    cluster = session.once("slurm", slurm_cluster)
    yield cluster
    cluster.revive()


@pytest.fixture
def cli(tmp_path: Path, cluster: SlurmCluster) -> Iterator[Cli]:
    with slurm_cli(tmp_path, cluster) as cli:
        yield cli


def test_a_job_runs_on_slurm_and_its_output_is_followed(cli: Cli) -> None:
    done = cli.run("tiny", "echo on $SLURMD_NODENAME with $CUDA_VISIBLE_DEVICES", devices="h100:2")
    assert "on h1 with 0,1" in done.stderr
    (job,) = cli.json("jobs")
    assert job["state"] == "succeeded"
    assert (cli.folder / "shared" / job["id"] / "attempt-1" / "stdout.log").exists()


def test_a_job_that_no_node_of_slurms_could_hold_is_refused(cli: Cli) -> None:
    done = cli("submit", cli.file("large", devices="h100:64"), code=1)
    assert "the whole fleet could give it 16 devices" in done.stderr


def test_a_cancelled_job_is_gone_from_slurm(cli: Cli, cluster: SlurmCluster) -> None:
    job_id = cli.submit("sleeps", "exec sleep 600", devices="910b:8")
    cli.until_in(job_id, "running")
    cli("cancel", job_id)
    cli.until_in(job_id, "cancelled")
    assert cluster.job_ids() == []


def why(cli: Cli, job_id: str) -> str:
    return str(cli.json("why", job_id))


def test_jobs_wait_for_what_others_run_on_slurm(cli: Cli, cluster: SlurmCluster) -> None:
    foreign = [
        cluster("sbatch", "--parsable", f"--nodelist={node}", "--gres=gpu:h100:6", "--wrap=sleep 600").strip()
        for node in ("h1", "h2")
    ]
    cluster.until_running(*foreign)
    job_id = cli.submit("waits", devices="h100:8")
    cli.until_in(job_id, "queued")
    until(lambda: "others outside of artesian" in why(cli, job_id))
    assert len(cluster.job_ids()) == 2
    cluster("scancel", foreign[0])
    cli.until_in(job_id, "succeeded")


def progress(cli: Cli, job_id: str, epoch: int) -> list[Message]:
    return ProgressReader(cli.attempt(job_id, epoch).progress).read()


@pytest.mark.slow
def test_training_goes_on_from_its_checkpoint_on_another_node(cli: Cli, cluster: SlurmCluster) -> None:
    pytest.importorskip("torch")
    data = cli.folder / "data"
    data.mkdir()
    shutil.copy(PRETRAIN, data)
    job_id = cli.submit(
        "train",
        kind="train",
        devices="h100:2",
        workers=2,
        command=[sys.executable, str(PRETRAIN), "--steps", "40", *TINY],
        checkpoint={"every": 5},
        data=str(data),
        retry={"backoff": "0s"},
    )
    until(lambda: any(isinstance(said, CheckpointCommitted) for said in progress(cli, job_id, 1)))
    cluster.kill_node("h1")
    until(lambda: any(isinstance(said, Restored) for said in progress(cli, job_id, 2)))
    until(lambda: any(isinstance(said, StepCommitted) for said in progress(cli, job_id, 2)))
    restored = [said for said in progress(cli, job_id, 2) if isinstance(said, Restored)]
    steps = [said for said in progress(cli, job_id, 2) if isinstance(said, StepCommitted)]
    # Not necessarily the fifth: where Slurm has taken the node for dead before, what the workers had was saved at once.
    saved = [said.step for said in progress(cli, job_id, 1) if isinstance(said, CheckpointCommitted)]
    assert min(said.step for said in restored) >= max(saved), [progress(cli, job_id, 1), restored]
    assert min(said.step for said in steps) == min(said.step for said in restored) + 1
    first, second = cli.journal().jobs[job_id].attempts  # and none on the node that is lost
    assert first.outcome is not None
    assert first.outcome.cause is Cause.NODE_LOST
    assert [share.node_id for share in second.placement.shares] == ["h2"]


def test_a_running_job_grows_and_shrinks_when_a_user_says_so(cli: Cli, cluster: SlurmCluster) -> None:
    script = (
        "trap 'echo saved; exit 0' TERM; echo attempt $ARTESIAN_EPOCH on $CUDA_VISIBLE_DEVICES;"
        " while [ ! -e go ]; do sleep 0.05; done"
    )
    id_ = cli.submit("grows", script, devices="h100:2", retry={"on": ["signal"]})
    for epoch, (count, before) in enumerate((("4", "0,1"), ("1", "0,1,2,3")), 1):
        cli.until_printed(id_, f"attempt {epoch} on {before}\n", epoch)
        assert "is being stopped" in cli("resize", id_, "--devices", count).stderr
        cli.until_printed(id_, "saved", epoch)
    cli.until_printed(id_, "attempt 3 on 0\n", 3)
    assert len(cluster.job_ids()) == 1, "one attempt at a time"
    cli.tell()
    cli.until_in(id_, "succeeded")
    attempts = cli.json("show", id_)["attempts"]
    assert [attempt["outcome"]["cause"] for attempt in attempts] == ["resized", "resized", "completed"]
    assert [sum(len(share["devices"]) for share in one["placement"]) for one in attempts] == [2, 4, 1]
