"""What only the Slurm engine can get wrong, on a real cluster: its states, its silence, its several nodes."""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from artesian.engines.slurm.attempts import write_submission
from artesian.engines.slurm.client import SlurmClient
from artesian.engines.slurm.engine import SlurmEngine
from artesian.engines.slurm.runner import Done, LocalRunner
from artesian.engines.slurm.settings import SlurmSettings
from artesian.model.events import AttemptEnded
from artesian.model.job import Cause, Job, JobKind
from artesian.model.plan import Start
from builders import a_placement
from engine_slurm import slurm_engine
from engines_harness import Ground, Harness, Session, shell
from slurm_cluster import Kind, SlurmCluster, slurm_cluster

FAST = SlurmSettings(poll_interval_s=0.3)
GANG = (
    "import os, pathlib, signal, sys, time\n"
    "folder, rank = pathlib.Path(sys.argv[1]), os.environ['RANK']\n"
    "signal.signal(signal.SIGTERM, lambda *_: ((folder / f'saved-{rank}').touch(), sys.exit(0)))\n"
    "names = ('WORLD_SIZE', 'LOCAL_RANK', 'GROUP_RANK', 'SLURMD_NODENAME', 'CUDA_VISIBLE_DEVICES', 'MASTER_PORT')\n"
    "(folder / 'part').mkdir(exist_ok=True)\n"
    "(folder / 'part' / rank).write_text(' '.join(os.environ[name] for name in names))\n"
    "print('rank', rank, flush=True)\n"
    "(folder / 'part' / rank).rename(folder / f'rank-{rank}')\n"
    "while not (folder / 'go').exists(): time.sleep(0.01)\n"
    "sys.exit(3 if rank == sys.argv[2] else 0)\n"
)


@pytest.fixture
def cluster(session: Session) -> Iterator[SlurmCluster]:
    cluster = session.once("slurm", slurm_cluster)
    yield cluster
    cluster.revive()


def on(cluster: SlurmCluster, root: Path, settings: SlurmSettings = FAST) -> Harness:
    return Harness(root, Ground(make=lambda: slurm_engine(root, cluster, settings)))


@pytest.fixture
def harness(cluster: SlurmCluster, tmp_path: Path) -> Harness:
    return on(cluster, tmp_path / "jobs")


def run(harness: Harness, test: Callable[[], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with harness.opened():
            await test()

    asyncio.run(opened())


def start(harness: Harness, job: Job, *shares: tuple[str, range], epoch: int = 1) -> None:
    harness.engine.start(
        Start(job_id=job.id, epoch=epoch, placement=a_placement(*shares), reason="a test"), job
    )


def a_gang(folder: Path, failing_rank: str = "none") -> Job:
    script = folder / "worker.py"
    script.write_text(GANG)
    command = (sys.executable, str(script), str(folder), failing_rank)
    return shell("", command=command, kind=JobKind.TRAIN)


def test_nodes_know_their_rack_from_the_leaf_switches(harness: Harness, cluster: SlurmCluster) -> None:
    async def test() -> None:
        racks = {node.id: node.rack for node in harness.nodes}
        assert racks == {name: cluster.rack_of(name) for name in cluster.node_names}
        assert len(set(racks.values())) == 2

    run(harness, test)


# -- several nodes ----------------------------------------------------------------------------------


def test_a_gang_on_two_nodes_meets_as_torchrun_has_it(harness: Harness, tmp_path: Path) -> None:
    job = a_gang(tmp_path)

    async def test() -> None:
        start(harness, job, ("h2", range(2)), ("h1", range(2)))  # the first share's node holds rank 0
        await harness.until(lambda: all((tmp_path / f"rank-{rank}").exists() for rank in range(4)))
        (tmp_path / "go").touch()
        assert (await harness.outcome()).cause is Cause.COMPLETED

    run(harness, test)
    seen = [(tmp_path / f"rank-{rank}").read_text().split() for rank in range(4)]
    assert [entry[:4] for entry in seen] == [
        ["4", "0", "0", "h2"],
        ["4", "1", "0", "h2"],
        ["4", "0", "1", "h1"],
        ["4", "1", "1", "h1"],
    ]
    assert {entry[4] for entry in seen} == {"0,1"}
    assert len({entry[5] for entry in seen}) == 1
    assert harness.stdout(job) == "rank 0\n"
    for rank in (1, 2, 3):
        assert (harness.folder(job).logs / f"rank-{rank}.out").read_text() == f"rank {rank}\n"


def test_the_worker_that_failed_first_is_named_whatever_its_node(harness: Harness, tmp_path: Path) -> None:
    job = a_gang(tmp_path, failing_rank="3")

    async def test() -> None:
        start(harness, job, ("h1", range(2)), ("h2", range(2)))
        await harness.until(lambda: all((tmp_path / f"rank-{rank}").exists() for rank in range(4)))
        (tmp_path / "go").touch()
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.worker, outcome.exit_code) == (Cause.USER_ERROR, 3, 3)

    run(harness, test)


def test_a_gang_that_is_stopped_may_save_on_every_node(harness: Harness, tmp_path: Path) -> None:
    job = a_gang(tmp_path)

    async def test() -> None:
        start(harness, job, ("h1", range(1)), ("h2", range(1)))
        await harness.until(lambda: all((tmp_path / f"rank-{rank}").exists() for rank in range(2)))
        harness.stop(job)
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.signal) == (Cause.SIGNAL, signal.SIGTERM)

    run(harness, test)
    assert all((tmp_path / f"saved-{rank}").exists() for rank in range(2))


# -- what Slurm does by itself ----------------------------------------------------------------------


def test_an_attempt_that_slurm_preempts_is_preempted(harness: Harness, cluster: SlurmCluster) -> None:
    async def test() -> None:
        start(harness, shell("exec sleep 600"), ("a1", range(8)))
        await harness.until_started()
        words = ("--partition=urgent", "--nodelist=a1", "--gres=gpu:910b:8", "--wrap=sleep 600")
        urgent = cluster("sbatch", "--parsable", *words).strip()
        assert (await harness.outcome()).cause is Cause.PREEMPTED
        assert cluster.job_ids() == [urgent], (
            "Slurm, which requeues here, is to leave the next attempt to artesian"
        )

    run(harness, test)


def test_an_attempt_that_somebody_cancels_in_slurm_is_cancelled(
    harness: Harness, cluster: SlurmCluster
) -> None:
    async def test() -> None:
        start(harness, shell("exec sleep 600"), ("a1", range(1)))
        await harness.until_started()
        cluster("scancel", *cluster.job_ids())
        outcome = await harness.outcome()
        assert outcome.cause is Cause.CANCELLED
        assert "somebody cancelled it in Slurm" in outcome.message

    run(harness, test)


def test_a_gang_that_somebody_cancels_in_slurm_saves_on_every_node_and_is_cancelled(
    harness: Harness, cluster: SlurmCluster, tmp_path: Path
) -> None:
    """Slurm signals every process of it on each node, workers, agents and srun, in any order."""
    job = a_gang(tmp_path)

    async def test() -> None:
        start(harness, job, ("h1", range(1)), ("h2", range(1)))
        await harness.until(lambda: all((tmp_path / f"rank-{rank}").exists() for rank in range(2)))
        cluster("scancel", *cluster.job_ids())
        assert (await harness.outcome()).cause is Cause.CANCELLED

    run(harness, test)
    assert all((tmp_path / f"saved-{rank}").exists() for rank in range(2))


def test_what_slurm_refuses_did_not_start_and_its_words_are_kept(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    harness = on(
        cluster,
        tmp_path / "jobs",
        SlurmSettings(poll_interval_s=0.3, sbatch_args=("--constraint=none-such",)),
    )

    async def test() -> None:
        start(harness, shell("true"), ("a1", range(1)))
        outcome = await harness.outcome()
        assert outcome.cause is Cause.START_FAILED
        assert "Invalid feature specification" in outcome.message

    run(harness, test)


def test_an_attempt_that_slurm_does_not_start_in_time_is_taken_back(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    harness = on(cluster, tmp_path / "jobs", SlurmSettings(poll_interval_s=0.3, pending_limit_s=1.0))

    async def test() -> None:
        cluster("sbatch", "--nodelist=a1", "--gres=gpu:910b:8", "--wrap=sleep 600")
        cluster.until_running(*cluster.job_ids())
        start(harness, shell("true"), ("a1", range(8)))
        outcome = await harness.outcome()
        assert outcome.cause is Cause.PREEMPTED
        assert "did not start it in time" in outcome.message

    run(harness, test)


# -- nodes ------------------------------------------------------------------------------------------


def test_nodes_say_what_others_occupy_and_not_what_is_ours(harness: Harness, cluster: SlurmCluster) -> None:
    async def test() -> None:
        nodes = {node.id: node for node in harness.nodes}
        assert sorted(nodes) == ["a1", "a2", "h1", "h2"]
        assert (nodes["h1"].accelerator, nodes["h1"].devices, nodes["h1"].occupied) == ("h100", 8, ())
        start(harness, shell("exec sleep 600"), ("h1", range(6, 8)))
        await harness.until_started()
        cluster("sbatch", "--nodelist=h1", "--gres=gpu:h100:3", "--wrap=sleep 600")
        await harness.until(lambda: "NodeJoined" in harness.kinds)
        (said,) = [event.node for event in harness.events if hasattr(event, "node")]
        assert (said.id, said.occupied) == ("h1", (3, 4, 5))  # none that ours was planned on

    run(harness, test)


def test_what_an_attempt_on_unlike_nodes_has_counts_once_after_a_restart(harness: Harness) -> None:
    job = shell("exec sleep 600")

    async def test() -> None:
        async with harness.opened():
            start(harness, job, ("h1", range(3)), ("h2", range(1)))
            await harness.until_started()
        async with harness.opened():
            assert {node.id: node.occupied for node in harness.nodes if node.accelerator == "h100"} == {
                "h1": (),
                "h2": (),
            }
            start(harness, job, ("h1", range(3)), ("h2", range(1)))
            await harness.until_started()
            harness.stop(job)
            assert (await harness.outcome()).signal == signal.SIGTERM

    asyncio.run(test())


def test_a_node_that_is_drained_finishes_what_runs_and_takes_nothing_new(
    harness: Harness, cluster: SlurmCluster
) -> None:
    async def test() -> None:
        job = shell("exec sleep 600")
        start(harness, job, ("h1", range(2)))
        await harness.until_started()
        cluster("scontrol", "update", "nodename=h1", "state=drain", "reason=test")
        await harness.until(lambda: "NodeJoined" in harness.kinds)
        (said,) = [event.node for event in harness.events if hasattr(event, "node")]
        assert (said.id, said.occupied) == ("h1", tuple(range(2, 8)))
        harness.stop(job)
        await harness.until(lambda: "NodeLost" in harness.kinds)
        assert (await harness.outcome()).signal == signal.SIGTERM

    run(harness, test)


class OldSlurm(SlurmClient):
    """Speaks to a Slurm as to one that has no JSON yet."""

    async def version(self) -> tuple[int, int]:
        return (20, 11)


def test_a_slurm_without_json_is_understood_by_its_text(cluster: SlurmCluster, tmp_path: Path) -> None:
    root = tmp_path / "jobs"

    class Told(LocalRunner):
        """Keeps what was asked."""

        asked: ClassVar[list[str]] = []

        async def run(self, words: Sequence[str], *, stdin: str = "", user: str | None = None) -> Done:
            self.asked.extend(words)
            return await super().run(words, stdin=stdin, user=user)

    runner = Told(extra_env={"SLURM_CONF": str(cluster.conf)})
    harness = Harness(root, Ground(make=lambda: SlurmEngine(root, FAST, OldSlurm(runner), time.time)))
    fails = shell("exit 3", id="fails")
    stays = shell("exec sleep 600", id="stays")

    async def test() -> None:
        assert sorted((node.id, node.devices) for node in harness.nodes) == [
            *(("a1", 8), ("a2", 8), ("h1", 8), ("h2", 8))
        ]
        harness.start(fails)
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.exit_code) == (Cause.USER_ERROR, 3)
        harness.events.clear()
        cluster("sbatch", "--nodelist=h2", "--gres=gpu:h100:3", "--wrap=sleep 600")
        await harness.until(lambda: "NodeJoined" in harness.kinds)
        (said,) = [event.node for event in harness.events if hasattr(event, "node")]
        assert (said.id, said.occupied) == ("h2", (5, 6, 7))
        harness.events.clear()
        harness.start(stays)
        await harness.until_started()
        cluster("scancel", "--name=stays")
        assert (await harness.outcome()).cause is Cause.CANCELLED

    run(harness, test)
    assert "--json" not in runner.asked


# -- nobody answers, nothing is remembered ----------------------------------------------------------


def test_while_slurm_is_away_attempts_are_held_and_nothing_is_made_up(
    harness: Harness, cluster: SlurmCluster, tmp_path: Path
) -> None:
    runs = shell(f"while ! [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 4", id="runs")
    late = shell(f"echo x >> {tmp_path}/late", id="late")

    async def test() -> None:
        start(harness, runs, ("h1", range(1)))
        await harness.until_started()
        cluster.stop_controller()
        start(harness, late, ("h2", range(1)))
        harness.stop(shell("", id="unknown"))
        (tmp_path / "go").touch()
        await harness.until(lambda: harness.folder(runs).ended() is not None)
        await asyncio.sleep(1.0)
        assert harness.kinds == ["AttemptStarted"], "nobody said that anything ended, or began"
        cluster.start_controller()
        await harness.until(lambda: harness.kinds.count("AttemptEnded") == 2)
        ends = {e.job_id: e.outcome for e in harness.events if isinstance(e, AttemptEnded)}
        assert (ends["runs"].cause, ends["runs"].exit_code) == (Cause.USER_ERROR, 4)
        assert ends["late"].cause is Cause.COMPLETED

    run(harness, test)
    assert (tmp_path / "late").read_text() == "x\n"


def test_an_engine_that_opens_while_slurm_is_away_knows_its_nodes_and_adopts_later(
    harness: Harness, cluster: SlurmCluster, tmp_path: Path
) -> None:
    job = shell(f"echo x >> {tmp_path}/runs; while ! [ -e {tmp_path}/go ]; do sleep 0.01; done")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
        cluster.stop_controller()
        async with harness.opened():
            assert sorted(node.id for node in harness.nodes) == ["a1", "a2", "h1", "h2"]
            assert all(len(node.occupied) == node.devices for node in harness.nodes)
            harness.start(job)
            await harness.until_started()
            cluster.start_controller()
            await harness.until(lambda: harness.kinds.count("NodeJoined") == 4)
            (tmp_path / "go").touch()
            assert (await harness.outcome()).cause is Cause.COMPLETED

    asyncio.run(test())
    assert (tmp_path / "runs").read_text() == "x\n"


def test_a_submit_whose_answer_was_lost_is_found_and_not_repeated(
    harness: Harness, cluster: SlurmCluster, tmp_path: Path
) -> None:
    job = shell(f"echo x >> {tmp_path}/runs; while ! [ -e {tmp_path}/go ]; do sleep 0.01; done")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
            (attempt,) = harness.engine._attempts.values()  # type: ignore[attr-defined]
        attempt.slurm_id = None  # killed after sbatch, before its answer was written down
        write_submission(attempt.folder, attempt.submission)
        (attempt.folder.path / "slurm.json").unlink()
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
            (tmp_path / "go").touch()
            assert (await harness.outcome()).cause is Cause.COMPLETED

    asyncio.run(test())
    assert (tmp_path / "runs").read_text() == "x\n"
    assert len(cluster("squeue", "--noheader", "--states=all", "--format=%k").split()) >= 1


def test_of_two_jobs_for_one_attempt_one_runs_it(
    harness: Harness, cluster: SlurmCluster, tmp_path: Path
) -> None:
    job = shell(f"echo x >> {tmp_path}/runs; while ! [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 7")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
            (attempt,) = harness.engine._attempts.values()  # type: ignore[attr-defined]
            first = attempt.slurm_id
            folder = attempt.folder.path
            second = cluster(
                *("sbatch", "--parsable", "--output=/dev/null"),
                f"--wrap=exec {sys.executable} -I -m artesian.engines.slurm.batch {folder}",
            ).strip()
            attempt.slurm_id = int(second)  # the engine watches the one that came too late
            await harness.until(lambda: attempt.slurm_id == first)
            (tmp_path / "go").touch()
            assert (await harness.outcome()).exit_code == 7

    asyncio.run(test())
    assert (tmp_path / "runs").read_text() == "x\n"


def test_jobs_of_ours_that_no_command_speaks_of_are_cancelled_and_others_are_not(
    harness: Harness, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artesian.engines.watching.ORPHANS_AFTER_S", 0.5)
    foreign = cluster("sbatch", "--parsable", "--wrap=sleep 600", "--comment=artesian/other/j1/1").strip()

    async def test() -> None:
        async with harness.opened():
            harness.start(shell("exec sleep 600"))
            await harness.until_started()
        async with harness.opened():
            await harness.until(lambda: cluster.job_ids() == [foreign])
            assert "AttemptEnded" not in harness.kinds, "for whom it ran, it is over"

    asyncio.run(test())


# -- many nodes -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_64_nodes_take_a_job_each(tmp_path: Path) -> None:
    kinds = (Kind(name="n", nodes=64, accelerator="h100"),)
    with slurm_cluster(kinds, is_authentic=False) as cluster:
        harness = on(cluster, tmp_path / "jobs")
        jobs = [shell("sleep 0.1", id=f"j{number}") for number in range(64)]

        async def test() -> None:
            assert len(harness.nodes) == 64
            for job, node in zip(jobs, harness.nodes, strict=True):
                start(harness, job, (node.id, range(8)))
            await harness.until(lambda: harness.kinds.count("AttemptEnded") == 64)
            ends = [event.outcome.cause for event in harness.events if isinstance(event, AttemptEnded)]
            assert set(ends) == {Cause.COMPLETED}
            assert harness.kinds.count("AttemptStarted") == 64

        run(harness, test)
