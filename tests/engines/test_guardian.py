"""Services that tests have started end where pytest is killed, and those of others go on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_harness import until
from engines_harness import Session
from postgres_server import PostgresServer
from proc import command_line, processes, read
from slurm_cluster import SlurmCluster, slurm_cluster

TESTS = Path(__file__).parents[1]
STARTS_ALL = """
import sys, tempfile, time
from pathlib import Path
from postgres_server import PostgresServer
from slurm_cluster import Kind, slurm_cluster
kinds = (Kind(name="x", nodes=1, accelerator="", devices=0, cpus=1),)
with slurm_cluster(kinds, is_authentic=False) as cluster:
    job = cluster("sbatch", "--parsable", "--wrap=sleep 600").strip()
    cluster.until_running(job)
    folder = Path(tempfile.mkdtemp(prefix="artesian-postgres-"))
    folder.chmod(0o755)
    PostgresServer(folder)
    print(cluster.folder, folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def slurm(session: Session) -> Iterator[SlurmCluster]:
    cluster = session.once("slurm", slurm_cluster)
    yield cluster
    cluster.revive()


def of_folder(folder: str) -> list[int]:
    """The processes that have to do with a folder."""
    sought = os.fsencode(folder)
    return [
        pid
        for pid in processes()
        if sought in command_line(pid) + read(pid, "environ") and pid != os.getpid()
    ]


def test_a_cluster_and_a_database_end_with_a_killed_process_and_those_of_others_go_on(
    slurm: SlurmCluster, postgres: PostgresServer
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ALL],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
    ) as killed:
        assert killed.stdout is not None
        folders = killed.stdout.readline().decode().split()
        assert len(folders) == 2
        assert all(of_folder(folder) for folder in folders)
        killed.send_signal(signal.SIGKILL)
    until(lambda: not any(of_folder(folder) or Path(folder).exists() for folder in folders))
    assert set(slurm.states().values()) == {"idle"}
    assert postgres.new_database()
