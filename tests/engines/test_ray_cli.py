"""The command line with a Ray named in artesian.toml: a real cluster, and nothing else changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_harness import Cli
from engines_harness import Session
from ray_cluster import ray_cluster


@pytest.fixture
def cli(tmp_path: Path, session: Session) -> Iterator[Cli]:
    cluster = session.once("ray", ray_cluster)
    cli = Cli(tmp_path)
    settings = tmp_path / "artesian.toml"
    settings.write_text(
        f'[engines.cluster]\nkind = "ray"\naddress = "{cluster.address}"\nfolder = "{tmp_path}/shared"\n'
    )
    cli.env["ARTESIAN_CONFIG"] = str(settings)
    try:
        yield cli
    finally:
        cli.end()


def test_a_job_runs_on_ray_and_its_output_is_followed(cli: Cli) -> None:
    done = cli.run("tiny", "echo devices $ASCEND_RT_VISIBLE_DEVICES", devices="910b:2")
    assert "devices 0,1" in done.stderr
    (job,) = cli.json("jobs")
    assert job["state"] == "succeeded"
    assert (cli.folder / "shared" / job["id"] / "attempt-1" / "stdout.log").exists()


def test_a_cancelled_job_is_stopped_on_ray(cli: Cli) -> None:
    job_id = cli.submit(
        "sleeps", "trap 'echo saved; exit 0' TERM; while :; do sleep 0.05; done", devices="910b:8"
    )
    cli.until_in(job_id, "running")
    cli("cancel", job_id)
    cli.until_in(job_id, "cancelled")
    assert "saved" in cli("logs", job_id).stdout
