"""The command line with a Slurm named in artesian.toml: a real cluster, and nothing else changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_harness import Cli, until
from engines_harness import Session
from slurm_cluster import SlurmCluster, slurm_cluster


@pytest.fixture
def cluster(session: Session) -> Iterator[SlurmCluster]:
    cluster = session.once("slurm", slurm_cluster)
    yield cluster
    cluster.revive()


@pytest.fixture
def cli(tmp_path: Path, cluster: SlurmCluster) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    settings = tmp_path / "artesian.toml"
    settings.write_text(
        f'[engines.cluster]\nkind = "slurm"\nconf = "{cluster.conf}"\npoll_interval_s = 0.5\n'
        f'folder = "{tmp_path}/shared"\n'
    )
    cli.env["ARTESIAN_CONFIG"] = str(settings)
    try:
        yield cli
    finally:
        cli.end()


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
