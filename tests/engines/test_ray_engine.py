"""What only the Ray engine can get wrong, on a real Ray with emulated nodes."""

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artesian.engines.local.records import AttemptFolder
from artesian.engines.ray.client import RayClient, RayJob
from artesian.engines.ray.engine import RayEngine
from artesian.engines.ray.files import REQUEST, node_folder
from artesian.engines.ray.settings import RaySettings
from artesian.engines.watching import Unreachable
from artesian.kernel.lifecycle import JobState
from artesian.kernel.scheduler import Scheduler
from artesian.model.events import JobSubmitted, NodeLost
from artesian.model.job import Cause, Job, JobKind, RetryPolicy
from artesian.model.placement import Placement
from artesian.model.plan import Start
from artesian.server.driver import Driver
from artesian.store import SqliteJournal
from artesian.wire import CheckpointCommitted, ProgressReader, Restored, StepCommitted
from builders import a_job, a_placement, fifo
from engine_ray import ray_engine
from engines_harness import TIMEOUT_S, Ground, Harness, Session, harness_of, shell
from proc import command_line, running
from ray_cluster import RayCluster, ray_cluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretrain.py"
TINY = [
    "--batch",
    "4",
    "--context",
    "32",
    "--dim",
    "32",
    "--layers",
    "2",
    "--experts",
    "4",
    "--warmup",
    "5",
    "--steps",
    "1000000",
]


@pytest.fixture
def harness(tmp_path: Path, session: Session) -> Iterator[Harness]:
    with harness_of("ray", tmp_path / "jobs", session) as harness:
        yield harness


@pytest.fixture
def cluster(session: Session) -> RayCluster:
    return session.once("ray", ray_cluster)


def start_on(harness: Harness, job: Job, placement: Placement, epoch: int = 1) -> None:
    harness.engine.start(Start(job_id=job.id, epoch=epoch, placement=placement, reason="a test"), job)


def survivors(harness: Harness, job: Job) -> list[int]:
    return harness.folder(job).survivors()


def drivers(harness: Harness) -> list[int]:
    """The drivers of the harness's Ray jobs."""
    return running(b"artesian.engines.ray.", bytes(harness.root))


def test_nodes_are_known_by_their_names_and_accelerators(harness: Harness) -> None:
    async def test() -> None:
        async with harness.opened():
            offered = {node.id: node for node in harness.nodes}
            kinds = {id_: (node.accelerator, node.vendor, node.devices) for id_, node in offered.items()}
            assert kinds == {
                "c1": ("cpu", None, 4),
                "c2": ("cpu", None, 4),
                "h1": ("H100", "nvidia", 8),
                "b1": ("910B", "ascend", 8),
            }
            assert all(node.memory_bytes > 2**30 for node in harness.nodes)
            assert offered["h1"].peak_flops is None  # a family has none

    asyncio.run(test())


def test_a_gang_on_two_nodes_gets_torchruns_environment_and_reports_its_first_failure(
    harness: Harness, tmp_path: Path
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, signal, time, pathlib\n"
        "rank = os.environ['RANK']\n"
        "print('I am', rank, flush=True)\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "names = ('WORLD_SIZE', 'LOCAL_RANK', 'GROUP_RANK', 'MASTER_ADDR', 'MASTER_PORT')\n"
        "(here / f'{rank}.part').write_text(' '.join(os.environ[n] for n in names))\n"
        "(here / f'{rank}.part').rename(here / rank)\n"
        "while not all((here / r).exists() for r in '0123'): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL) if rank == '3' else time.sleep(600)\n"
    )
    job = a_job(
        devices="cpu:4",
        command=(sys.executable, str(script)),
        kind=JobKind.TRAIN,
        env={"PATH": os.environ["PATH"]},
        retry=RetryPolicy(limit=0),
    )

    async def test() -> None:
        async with harness.opened():
            start_on(harness, job, a_placement(("c1", [0, 1]), ("c2", [0, 1])))
            outcome = await harness.outcome()
            assert (outcome.cause, outcome.signal, outcome.worker) == (Cause.SIGNAL, signal.SIGKILL, 3)
            assert survivors(harness, job) == []

    asyncio.run(test())
    seen = [(tmp_path / str(rank)).read_text().split() for rank in range(4)]
    assert [words[:3] for words in seen] == [
        ["4", "0", "0"],
        ["4", "1", "0"],
        ["4", "0", "1"],
        ["4", "1", "1"],
    ]
    assert len({tuple(words[3:]) for words in seen}) == 1  # all of them meet in one place
    logs = harness.folder(job).logs
    assert harness.stdout(job) == "I am 0\n"
    for rank in (1, 2, 3):
        assert f"I am {rank}\n" in (logs / f"rank-{rank}.out").read_text()


def test_a_gang_that_loses_one_of_its_nodes_ends_on_the_others(harness: Harness, cluster: RayCluster) -> None:
    job = a_job(
        devices="cpu:2", command=("sleep", "600"), kind=JobKind.TRAIN, env={"PATH": os.environ["PATH"]}
    )

    async def test() -> None:
        async with harness.opened():
            start_on(harness, job, a_placement(("c1", [0]), ("c2", [0])))
            await harness.until(
                lambda: AttemptFolder(node_folder(harness.folder(job).path, 1)).started_s() is not None
            )
            await harness.until_started()
            cluster.kill_node("c2")
            outcome = await harness.outcome()
            assert outcome.cause is Cause.NODE_LOST
            assert "c2" in outcome.message
            assert survivors(harness, job) == []
            await harness.until(lambda: "NodeLost" in harness.kinds)
            assert [event.node_id for event in harness.events if isinstance(event, NodeLost)] == ["c2"]

    asyncio.run(test())


def test_a_driver_that_is_killed_takes_its_attempt_along(harness: Harness) -> None:
    job = shell("setsid sleep 600 & exec sleep 600")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
            (driver,) = drivers(harness)
            os.kill(driver, signal.SIGKILL)
            outcome = await harness.outcome()
            assert outcome.cause is Cause.NODE_LOST
            assert survivors(harness, job) == []

    asyncio.run(test())


def test_devices_are_those_that_ray_grants_where_it_counts_them(harness: Harness) -> None:
    gpu = shell("echo $CUDA_VISIBLE_DEVICES/$ARTESIAN_DEVICES", id="gpu")
    npu = shell("echo $ASCEND_RT_VISIBLE_DEVICES/$ARTESIAN_DEVICES", id="npu")

    async def test() -> None:
        async with harness.opened():
            start_on(harness, gpu, a_placement(("h1", [4, 6])))
            start_on(harness, npu, a_placement(("b1", [4, 6])))
            await harness.until(lambda: harness.kinds.count("AttemptEnded") == 2)

    asyncio.run(test())
    visible, devices = harness.stdout(gpu).strip().split("/")
    assert visible == devices
    assert len(set(visible.split(","))) == 2
    assert harness.stdout(npu) == "4,6/4,6\n"


def test_a_group_that_cannot_be_is_told_from_one_that_others_are_in_the_way_of(
    harness: Harness, cluster: RayCluster, tmp_path: Path
) -> None:
    impatient = RaySettings(address=cluster.address, poll_interval_s=0.3, group_timeout_s=1.0)
    other = Harness(
        tmp_path / "other", Ground(make=lambda: ray_engine(tmp_path / "other", cluster, impatient))
    )
    blocker = shell("exec sleep 600", id="blocker", devices="cpu:4")

    async def test() -> None:
        async with harness.opened(), other.opened():
            start_on(harness, blocker, a_placement(("c1", range(4))))
            await harness.until_started()
            start_on(other, shell("true", id="behind"), a_placement(("c1", [0])))
            outcome = await other.outcome()
            assert outcome.cause is Cause.PREEMPTED
            assert "others hold what it wants (c1: 1 CPU)" in outcome.message
            other.events.clear()
            start_on(other, shell("true", id="large", cpus_per_device=99), a_placement(("c2", [0])))
            outcome = await other.outcome()
            assert outcome.cause is Cause.START_FAILED
            assert "infeasible: 99 CPU of node c2, which has 4 CPU" in outcome.message
            harness.stop(blocker, grace_s=0.1)
            await harness.outcome()

    asyncio.run(test())


def test_the_environment_is_nowhere_but_in_a_private_file(harness: Harness, cluster: RayCluster) -> None:
    job = shell("exec sleep 600", env={"PATH": os.environ["PATH"], "TOKEN": "hunter2"})
    client = RayClient(RaySettings(address=cluster.address))

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
            said = client._call("GET", "/api/jobs/")
            assert job.id in json.dumps(said)
            assert "hunter2" not in json.dumps(said)
            for pid in [*drivers(harness), *survivors(harness, job)]:
                assert b"hunter2" not in command_line(pid)
            harness.stop(job, grace_s=1.0)
            await harness.outcome()

    asyncio.run(test())
    request = harness.folder(job).path / REQUEST
    assert "hunter2" in request.read_text()
    assert stat.S_IMODE(request.stat().st_mode) == 0o600


class Cut(RayClient):
    """A client whose line to Ray can be cut."""

    is_cut = False

    def _call(self, *args: object, **kwargs: object) -> object:
        if self.is_cut:
            raise Unreachable("the line is cut")
        return super()._call(*args, **kwargs)  # type: ignore[arg-type]


def test_while_ray_is_out_of_reach_nothing_is_lost_and_nothing_starts_twice(
    harness: Harness, cluster: RayCluster, tmp_path: Path
) -> None:
    settings = RaySettings(address=cluster.address, poll_interval_s=0.2)
    client = Cut(settings)
    harness.ground = Ground(make=lambda: RayEngine(harness.root, settings, client, time.time))
    first = shell(f"echo x >> {tmp_path}/runs; while ! [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 5")
    second = shell(f"echo y >> {tmp_path}/runs", id="j2")

    async def test() -> None:
        async with harness.opened():
            harness.start(first)
            await harness.until_started()
        client.is_cut = True
        async with harness.opened():
            assert {node.id for node in harness.nodes} == {"c1", "c2", "h1", "b1"}  # those of the last time
            harness.start(first)
            harness.start(second)
            await asyncio.sleep(1.0)
            assert harness.kinds == []  # unknown is not lost
            client.is_cut = False
            await harness.until(lambda: "AttemptEnded" in harness.kinds)
            (tmp_path / "go").touch()
            await harness.until(lambda: harness.kinds.count("AttemptEnded") == 2)
            assert harness.kinds.count("AttemptStarted") == 2

    asyncio.run(test())
    assert sorted((tmp_path / "runs").read_text().split()) == ["x", "y"]


def test_a_job_that_no_command_speaks_of_is_stopped(
    harness: Harness, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artesian.engines.watching.ORPHANS_AFTER_S", 0.0)
    client = RayClient(RaySettings(address=cluster.address))
    job = shell("exec sleep 600")

    def own() -> list[RayJob]:
        instance = (harness.root / "instance").read_text()
        return [entry for id_, entry in client.jobs().items() if instance in id_]

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
        async with harness.opened():
            await harness.until(lambda: own()[0].is_over)
            assert survivors(harness, job) == []
            assert harness.kinds == []  # nobody asked for it

    asyncio.run(test())


def test_training_goes_on_from_its_checkpoint_on_another_node(
    harness: Harness, cluster: RayCluster, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "poem").write_text("well water wells up well\n" * 200)
    job = a_job(
        devices="cpu:2",
        kind=JobKind.TRAIN,
        command=(sys.executable, str(EXAMPLE), *TINY),
        env={"PATH": os.environ["PATH"]},
        dataset=str(text),
        checkpoint_every_steps=5,
        grace_s=1.0,
    )

    def said(epoch: int) -> list[object]:
        return list(ProgressReader(harness.folder(job, epoch).progress).read())

    def has(epoch: int, kind: type) -> bool:
        return any(isinstance(message, kind) for message in said(epoch))

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                await asyncio.sleep(0.1)

    async def test() -> None:
        with SqliteJournal.open(tmp_path / "journal") as journal:
            driver = Driver(journal, Scheduler(fifo()), 0, ray_engine(harness.root, cluster), time.time)
            await driver.open()
            with journal.transaction() as transaction:
                transaction.append([JobSubmitted(at_s=time.time(), job=job)])
            running = asyncio.create_task(driver.run(idle_exit_s=None))
            await until(lambda: has(1, CheckpointCommitted))
            first = journal.load()[0].jobs[job.id].attempt.placement.shares[0].node_id
            cluster.kill_node(first)
            # The loss of the node is told before that of the attempt: the next one is not placed there.
            await until(lambda: has(2, StepCommitted))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            record = journal.load()[0].jobs[job.id]
            outcome = record.attempts[0].outcome
            assert outcome is not None
            assert outcome.cause is Cause.NODE_LOST
            assert record.state is JobState.RUNNING
            assert record.attempt.placement.shares[0].node_id not in (first, "h1", "b1")
            await driver.close()
        (restored, *_) = (message for message in said(2) if isinstance(message, Restored))
        saved = [message.step for message in said(1) if isinstance(message, CheckpointCommitted)]
        assert restored.step >= saved[0] > 0
        async with harness.opened():
            start_on(harness, job, record.attempt.placement, epoch=2)
            harness.stop(job, 2, grace_s=1.0)
            await harness.outcome()

    asyncio.run(test())
