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
    cli.configure(
        f'[engines.cluster]\nkind = "ray"\naddress = "{cluster.address}"\nfolder = "{tmp_path}/shared"\n'
    )
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
        "sleeps", "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done", devices="910b:8"
    )
    cli.until_printed(job_id, "ready")
    cli("cancel", job_id)
    cli.until_in(job_id, "cancelled")
    assert "saved" in cli("logs", job_id).stdout


def test_a_running_job_goes_on_with_as_many_devices_as_a_user_says(cli: Cli) -> None:
    script = (
        "trap 'echo saved; exit 0' TERM; echo attempt $ARTESIAN_EPOCH on $ASCEND_RT_VISIBLE_DEVICES;"
        " while [ ! -e go ]; do sleep 0.05; done"
    )
    id_ = cli.submit("shrinks", script, devices="910b:2", retry={"on": ["signal"]})
    cli.until_printed(id_, "attempt 1 on 0,1\n", 1)
    assert "is being stopped" in cli("resize", id_, "--devices", "1").stderr
    cli.until_printed(id_, "attempt 2 on 0\n", 2)
    cli.tell()
    cli.until_in(id_, "succeeded")
    attempts = cli.json("show", id_)["attempts"]
    assert [attempt["outcome"]["cause"] for attempt in attempts] == ["resized", "completed"]
    assert cli("logs", id_, "--attempt", "1").stdout == "attempt 1 on 0,1\nsaved\n"
