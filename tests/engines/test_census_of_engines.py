"""A census of an engine's nodes, on the real engines: jobs of the engine take it, and the state keeps it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from artesian.kernel.notes import ceiling_text
from artesian.model.ledger import Ceiling
from artesian.server.node_census import NodeCensuses
from builders import a_node
from censuses import CORES
from cli_harness import Cli, until
from engines_harness import TIMEOUT_S, Session
from ray_cluster import RayCluster, ray_cluster
from slurm_cluster import Kind, SlurmCluster, slurm_cluster


@pytest.fixture
def slurm(session: Session) -> Iterator[SlurmCluster]:
    cluster = session.once("slurm", slurm_cluster)
    yield cluster
    cluster.revive()


@pytest.fixture
def ray(session: Session) -> Iterator[RayCluster]:
    cluster = session.once("ray", ray_cluster)
    yield cluster
    cluster.revive()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    try:
        yield cli
    finally:
        cli.end()


def name_slurm(cli: Cli, cluster: SlurmCluster, more: str = "") -> None:
    """Let the settings have this cluster as ``cluster``."""
    cli.configure(
        f'[engines.cluster]\nkind = "slurm"\nconf = "{cluster.conf}"\npoll_interval_s = 0.3\n'
        f'folder = "{cli.folder}/shared"\n{more}'
    )


def test_each_node_of_slurm_is_measured_by_a_job_and_the_state_keeps_it(
    cli: Cli, slurm: SlurmCluster
) -> None:
    name_slurm(cli, slurm)
    (taken,) = cli.json("census", "--engine", "cluster", "--nodes", "h2", "--wait")["nodes"]
    assert (taken["node"], taken["is_busy"], taken["problem"]) == ("h2", False, None)
    (measured,) = taken["census"]["measurements"]
    assert measured["fp32_flops"]["total"] > 0
    assert measured["is_functional"] is True
    assert cli.json("census", "--engine", "cluster", "--cached")["nodes"] == [taken]
    assert "h2" in cli("census", "--engine", "cluster", "--cached").stdout
    # Slurm says h100, the machine has cores: what was measured is no ceiling of an h100.
    assert NodeCensuses(cli.state.node_censuses).ceilings() == {}
    assert list((cli.folder / "shared").iterdir()) == [], "what the job had on the node is gone"
    assert slurm.job_ids() == []


def test_nodes_that_are_busy_are_said_and_not_waited_for(cli: Cli, slurm: SlurmCluster) -> None:
    name_slurm(cli, slurm)
    others = slurm("sbatch", "--parsable", "--nodelist=a1", "--gres=gpu:910b:3", "--wrap=sleep 600").strip()
    slurm.until_running(others)
    done = cli("census", "--engine", "cluster", "--no-benchmark", "-o", "json")
    found = {entry["node"]: entry for entry in json.loads(done.stdout)["nodes"]}
    assert sorted(found) == ["a1", "a2", "h1", "h2"]
    assert found["a1"]["is_busy"]
    assert found["a1"]["census"] is None
    assert "a1: busy, left out: 3 of its 8 devices are taken" in done.stderr
    for name in ("a2", "h1", "h2"):
        assert found[name]["problem"] is None
        assert found[name]["census"]["devices"] == found["a2"]["census"]["devices"]
    refused = cli("census", "--engine", "cluster", "--nodes", "a1", "--no-benchmark", code=1)
    assert "--wait waits for nodes that are busy" in refused.stderr


def test_who_asks_to_wait_gets_busy_nodes_when_they_are_free(cli: Cli, slurm: SlurmCluster) -> None:
    name_slurm(cli, slurm)
    others = slurm("sbatch", "--parsable", "--nodelist=a1", "--gres=gpu:910b:3", "--wrap=sleep 600").strip()
    slurm.until_running(others)
    running = cli.start(
        "census", "--engine", "cluster", "--nodes", "a1", "--no-benchmark", "--wait", "-o", "json"
    )
    until(lambda: len(slurm.job_ids()) == 2)
    slurm("scancel", others)
    assert running.process.wait(TIMEOUT_S) == 0, running.stderr
    assert json.loads(running.stdout)["nodes"][0]["census"] is not None


def test_a_census_that_is_interrupted_leaves_no_job_behind(cli: Cli, slurm: SlurmCluster) -> None:
    name_slurm(cli, slurm)
    running = cli.start("census", "--engine", "cluster", "--nodes", "h1")
    until(lambda: slurm("squeue", "--noheader", "--states=RUNNING", "--format=%i").split())
    running.process.terminate()
    assert running.process.wait(TIMEOUT_S) != 0
    until(lambda: slurm.job_ids() == [])


def test_a_node_or_an_engine_that_is_not_there_is_named_with_what_there_is(
    cli: Cli, slurm: SlurmCluster
) -> None:
    name_slurm(cli, slurm)
    done = cli("census", "--engine", "cluster", "--nodes", "h9", code=1)
    assert "node 'h9': engine cluster has no such node" in done.stderr
    assert "h1" in done.stderr
    done = cli("census", "--engine", "other", code=1)
    assert "its engines: cluster" in done.stderr


def test_each_node_of_ray_is_measured_by_a_job(cli: Cli, ray: RayCluster) -> None:
    cli.configure(
        f'[engines.cluster]\nkind = "ray"\naddress = "{ray.address}"\nfolder = "{cli.folder}/shared"\n'
        f'[engines.here]\nkind = "local"\n'
    )
    found = cli.json("census", "--engine", "cluster", "--no-benchmark", "--wait")["nodes"]
    assert len(found) == 4
    assert all(entry["node"].startswith("cluster/") for entry in found), "as the control plane calls them"
    assert [entry["problem"] for entry in found] == [None] * 4
    assert all(entry["census"]["host"]["hostname"] for entry in found)
    assert cli.json("census", "--engine", "cluster", "--cached")["nodes"] == found


ONLY_CORES = Kind(name="c", nodes=1, accelerator="", devices=0, cpus=2)
ONE_STEP = """
import os, time
from pathlib import Path
from artesian.wire import StepCommitted, WorkerStarted
from artesian.wire.channel import ProgressWriter, worker_file
writer = ProgressWriter(worker_file(Path(os.environ["ARTESIAN_PROGRESS_DIR"]), 0))
now = time.time()
writer.send(WorkerStarted(rank=0, at_s=now, world_size=1, pid=1, device="cpu", dtype="fp32"))
time.sleep(0.5)
writer.send(StepCommitted(rank=0, step=1, start_s=now, end_s=now + 0.5, loss=1.0, tokens=8, model_flops=1e8))
writer.close()
"""
"""A worker of one step, of half a second and 100 MFLOP."""


@pytest.mark.parametrize("kind", ["slurm", "ray"])
def test_mfu_on_an_engines_node_is_taken_against_what_the_engines_census_measured(
    cli: Cli, kind: str, request: pytest.FixtureRequest, session: Session
) -> None:
    if kind == "slurm":
        cores = session.once("slurm-cores", lambda: slurm_cluster((ONLY_CORES,), is_authentic=False))
        name_slurm(cli, cores)
    else:
        ray: RayCluster = request.getfixturevalue("ray")
        cli.configure(
            f'[engines.cluster]\nkind = "ray"\naddress = "{ray.address}"\nfolder = "{cli.folder}/shared"\n'
        )
    node, *others = (one["id"] for one in cli.json("nodes") if one["accelerator"] == "cpu")
    if others:
        cli("nodes", "exclude", *others, "--reason", "of these there is no census")
    ceiling = measured_by_the_engine(cli, node)
    with served_beside(cli) as url:
        told = httpx.get(f"{url}/api/v1/nodes/{node}").json()["ceilings"]
    assert told["fp32"] == {"flops": ceiling.flops, "basis": ceiling.basis}
    id_ = cli.submit(
        "steps", kind="train", workers=1, devices="cpu:1", command=[sys.executable, "-c", ONE_STEP]
    )
    assert cli.until_in(id_, "succeeded", "failed") == "succeeded", cli("why", id_).stdout
    shown = cli.json("show", id_)
    assert [share["node"] for share in shown["attempts"][0]["placement"]] == [node]
    assert shown["training"]["mfu"] == pytest.approx(1e8 / (0.5 * ceiling.flops), rel=1e-3)
    assert shown["training"]["mfu_basis"] == ceiling_text([ceiling])


def measured_by_the_engine(cli: Cli, node: str) -> Ceiling:
    """Have the engine take a census of the node, and return the ceiling that it gives.

    How fast it was is filled in: on a machine that others keep busy, what is measured is no ceiling of anything.
    """
    (taken,) = cli.json("census", "--engine", "cluster", "--nodes", node, "--no-benchmark", "--wait")["nodes"]
    assert taken["problem"] is None
    kept = NodeCensuses(cli.state.node_censuses)
    ((id_, census),) = kept
    cores = replace(CORES, devices=census.machine.host.usable_cores)
    kept.save([(a_node(id_, accelerator="cpu"), replace(census, measurements=(cores,)))])
    return kept.ceilings()[node, "fp32"]


@contextmanager
def served_beside(cli: Cli) -> Iterator[str]:
    """The URL of a server on the same state, which drives nothing."""
    running = cli.start("serve", "--port", "0", "--no-driver", "--no-dashboard")
    try:
        until(lambda: running.stdout)
        yield running.stdout.strip()
    finally:
        running.process.terminate()
        assert running.process.wait(TIMEOUT_S) == 0, running.stderr
