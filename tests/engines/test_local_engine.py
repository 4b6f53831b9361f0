"""What only the local engine can get wrong: its files, its supervisors, this machine."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.engines.base import HostNode
from artesian.engines.local import supervisor
from artesian.engines.local.environment import agent_options, environment_of
from artesian.engines.local.records import AttemptFolder, Claim
from artesian.model.job import Cause, Job, JobKind, RetryPolicy
from artesian.model.placement import NodeShare
from artesian.model.plan import Start
from builders import a_job, a_node, a_placement
from engines_harness import Harness, Session, harness_of, shell
from limits import needs


def supervise(folder: AttemptFolder, *command: str) -> subprocess.Popen[bytes]:
    """Start a supervisor by hand."""
    words = [sys.executable, "-I", "-S", supervisor.__file__, str(folder.path), "/", "10", *command]
    env = {"PATH": os.environ["PATH"], "ARTESIAN_PROGRESS_DIR": str(folder.progress)}
    return subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, start_new_session=True)


@pytest.fixture
def harness(tmp_path: Path, session: Session) -> Iterator[Harness]:
    with harness_of("local", tmp_path / "jobs", session) as harness:
        yield harness


@pytest.fixture
def folder(tmp_path: Path) -> AttemptFolder:
    folder = AttemptFolder(tmp_path / "attempt-1")
    folder.create()
    return folder


def test_however_many_supervisors_start_one_runs_the_command(folder: AttemptFolder, tmp_path: Path) -> None:
    racers = [supervise(folder, "sh", "-c", f"echo x >> {tmp_path}/runs") for _ in range(6)]
    assert [racer.wait() for racer in racers] == [0] * 6
    assert (tmp_path / "runs").read_text() == "x\n"
    assert not list(folder.path.glob(f"{supervisor.CLAIM}.*"))


def test_what_has_ended_long_ago_is_known_by_its_files(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artesian.engines.ended._MOST", 2)
    jobs = [shell(f"echo x >> {tmp_path}/runs", id=f"j{number}") for number in range(5)]

    async def test() -> None:
        async with harness.opened():
            for job in jobs:
                harness.events.clear()
                harness.start(job)
                await harness.outcome()
            assert len(harness.engine._ended) == 2  # type: ignore[attr-defined]
            for job in jobs[3:]:
                harness.start(job)
            harness.events.clear()
            harness.start(jobs[0])
            await harness.outcome()
            assert {event.job_id for event in harness.events} == {"j0"}  # type: ignore[union-attr]

    asyncio.run(test())
    assert (tmp_path / "runs").read_text() == "x\n" * len(jobs)


def test_a_fenced_attempt_never_starts(folder: AttemptFolder, tmp_path: Path) -> None:
    assert folder.fence()
    assert not folder.fence()
    assert supervise(folder, "touch", str(tmp_path / "ran")).wait() == 0
    assert not (tmp_path / "ran").exists()


def test_a_process_with_the_same_pid_and_another_start_is_another_process() -> None:
    me = supervisor.identity(os.getpid())
    assert me is not None
    assert Claim(**me).is_alive
    assert not Claim(**{**me, "start_ticks": me["start_ticks"] - 1}).is_alive
    assert not Claim(**{**me, "boot_id": "another boot"}).is_alive


def test_a_process_that_has_ended_and_was_not_reaped_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert supervisor.identity(child.pid) is None


def test_a_claim_without_content_names_nobody(folder: AttemptFolder) -> None:
    (folder.path / supervisor.CLAIM).touch()  # what a power failure can leave
    claim = folder.claim()
    assert claim is not None
    assert not claim.is_alive


async def until_survivors(harness: Harness, job: Job, count: int) -> None:
    await harness.until(lambda: len(harness.folder(job).survivors()) >= count)


def kill_supervisor(harness: Harness, job: Job) -> None:
    claim = harness.folder(job).claim()
    assert claim is not None
    os.kill(claim.pid, signal.SIGKILL)


def test_a_supervisor_that_is_killed_is_heard_and_its_attempt_does_not_live_on(harness: Harness) -> None:
    job = shell("setsid sleep 600 & exec sleep 600")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
            await until_survivors(harness, job, 3)
            kill_supervisor(harness, job)
            assert (await harness.outcome()).cause is Cause.NODE_LOST
            assert harness.folder(job).survivors() == []

    asyncio.run(test())


def test_a_supervisor_that_died_while_nobody_listened_is_found_dead(harness: Harness) -> None:
    job = shell("exec sleep 600")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
        kill_supervisor(harness, job)
        async with harness.opened():
            harness.start(job)
            assert (await harness.outcome()).cause is Cause.NODE_LOST
            assert harness.folder(job).survivors() == []

    asyncio.run(test())


def test_a_folder_that_cannot_be_made_is_a_failed_start(harness: Harness) -> None:
    job = shell("true")
    harness.root.mkdir()
    (harness.root / job.id).write_text("in the way")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            outcome = await harness.outcome()
            assert outcome.cause is Cause.START_FAILED
            assert str(harness.root / job.id) in outcome.message

    asyncio.run(test())


def test_a_node_that_is_not_this_machine_is_lost(harness: Harness) -> None:
    async def test() -> None:
        async with harness.opened():
            placement = a_placement(("elsewhere", [0]))
            harness.engine.start(
                Start(job_id="j1", epoch=1, placement=placement, reason="a test"), shell("true")
            )
            assert (await harness.outcome()).cause is Cause.NODE_LOST

    asyncio.run(test())


def test_a_gang_gets_torchruns_environment_and_reports_its_first_failure(
    harness: Harness, tmp_path: Path
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, signal, time, pathlib\n"
        "rank = os.environ['RANK']\n"
        f"pathlib.Path({str(tmp_path)!r}, rank).write_text(' '.join(os.environ[n] for n in "
        "('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')))\n"
        f"while not all(pathlib.Path({str(tmp_path)!r}, r).exists() for r in '01'): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else time.sleep(600)\n"
    )
    job = shell("", command=(sys.executable, str(script)), kind=JobKind.TRAIN, workers=2)

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            outcome = await harness.outcome()
            assert (outcome.cause, outcome.signal, outcome.worker) == (Cause.SIGNAL, signal.SIGKILL, 1)

    asyncio.run(test())
    assert (tmp_path / "0").read_text().split()[:2] == ["2", "0"]
    assert (tmp_path / "1").read_text().split()[:2] == ["2", "1"]


@pytest.mark.parametrize(
    ("devices", "workers", "env", "threads"),
    [
        ((0, 1), 2, {}, "1"),
        ((0, 1), 0, {}, "2"),
        ((0,), 4, {}, "1"),
        ((0, 1), 1, {"OMP_NUM_THREADS": "7"}, "7"),
    ],
)
def test_a_job_on_cpu_cores_computes_on_its_own_cores_only(
    folder: AttemptFolder, devices: tuple[int, ...], workers: int, env: dict[str, str], threads: str
) -> None:
    host = HostNode(node=a_node("here", devices=2), device_ids=("0", "1"))
    job = a_job(workers=workers, env=env)
    seen = environment_of(job, 1, NodeShare(node_id="here", devices=devices), host, folder, folder.path)
    assert seen["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize(
    ("vendor", "variable"), [("nvidia", "CUDA_VISIBLE_DEVICES"), ("ascend", "ASCEND_RT_VISIBLE_DEVICES")]
)
def test_a_job_sees_its_own_accelerators_only(folder: AttemptFolder, vendor: str, variable: str) -> None:
    node = a_node("here", devices=3, accelerator="some card", vendor=vendor)
    host = HostNode(node=node, device_ids=("a", "b", "c"))
    seen = environment_of(a_job(), 1, NodeShare(node_id="here", devices=(0, 2)), host, folder, folder.path)
    assert seen[variable] == "a,c"
    assert "OMP_NUM_THREADS" not in seen


# -- where it takes root: real memory limits, a real full disk --------------------------------------


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A cgroup with 64 MiB of memory, v1 or v2: its ``cgroup.procs``."""
    is_v1 = Path("/sys/fs/cgroup/memory").is_dir()
    group = Path("/sys/fs/cgroup/memory" if is_v1 else "/sys/fs/cgroup", f"artesian-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(64 * 2**20))
    except OSError:
        needs(False, "a cgroup that it may make, as root")
    yield group / "cgroup.procs"
    group.rmdir()


def test_the_out_of_memory_killer_is_told_from_other_signals(harness: Harness, small_memory: Path) -> None:
    hog = f"open({str(small_memory)!r}, 'w').write('0'); b'x' * (1 << 29)"
    job = shell("", command=(sys.executable, "-c", hog))

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            assert (await harness.outcome()).cause is Cause.OOM_KILL

    asyncio.run(test())


def test_on_a_full_disk_the_end_of_an_attempt_is_not_lost(harness: Harness) -> None:
    needs(os.geteuid() == 0, "root, to mount a small file system")
    job = shell("cat /dev/zero > $ARTESIAN_CHECKPOINT_DIR/fill; exit 9")
    harness.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", harness.root], check=True)
    try:

        async def test() -> None:
            async with harness.opened():
                harness.start(job)
                assert (await harness.outcome()).exit_code == 9
                assert (harness.root / job.id / "checkpoints" / "fill").stat().st_size > 0

        asyncio.run(test())
        ended = json.loads((harness.folder(job).path / supervisor.ENDED).read_bytes())
        assert ended["exit_code"] == 9
    finally:
        subprocess.run(["umount", harness.root], check=True)


@pytest.mark.parametrize(
    ("retry", "options"),
    [
        (RetryPolicy(), ["--max-restarts", "3", "--restart-on", "signal", "--command"]),
        (
            RetryPolicy(limit=5, causes=frozenset({Cause.USER_ERROR, Cause.OOM_KILL, Cause.NODE_LOST})),
            ["--max-restarts", "5", "--restart-on", "oom_kill,user_error", "--command"],
        ),
        (RetryPolicy(causes=frozenset({Cause.NODE_LOST})), ["--command"]),
        (RetryPolicy(limit=0), ["--command"]),
        (RetryPolicy(in_place=False), ["--no-python"]),
    ],
)
def test_the_launch_agent_is_told_what_the_jobs_retries_leave_to_it(
    retry: RetryPolicy, options: list[str]
) -> None:
    assert agent_options(a_job(retry=retry)) == options
    limited = agent_options(a_job(retry=retry, start_timeout_s=90.0))
    assert limited == ["--start-timeout", "90.0", *options]
