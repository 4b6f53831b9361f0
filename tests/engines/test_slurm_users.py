"""Jobs on Slurm that run as the user who submitted them: another Unix user, made for the test by root."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from artesian.engines.slurm.client import SlurmClient
from artesian.engines.slurm.engine import SlurmEngine
from artesian.engines.slurm.runner import SshRunner
from artesian.engines.slurm.settings import SlurmSettings
from artesian.model.job import Cause, JobKind
from artesian.model.plan import Start
from builders import a_placement
from engine_slurm import slurm_engine
from engines_harness import Ground, Harness, Session, shell
from limits import needs
from slurm_cluster import SlurmCluster, slurm_cluster
from ssh_server import ssh_server
from unix_users import UnixUser, unix_user


@pytest.fixture
def cluster(session: Session) -> Iterator[SlurmCluster]:
    cluster = session.once("slurm", slurm_cluster)
    yield cluster
    cluster.revive()


@pytest.fixture(scope="module")
def user() -> Iterator[UnixUser]:
    with unix_user() as user:
        yield user


@pytest.fixture(scope="module")
def settings(user: UnixUser) -> SlurmSettings:
    return SlurmSettings(submit_as_user=True, poll_interval_s=0.3, python=str(user.python()))


@pytest.fixture
def root(user: UnixUser, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder of the jobs, which another user can get through."""
    path = user.folder / request.node.name[:40]
    path.mkdir(mode=0o755)
    yield path / "jobs"
    shutil.rmtree(path)


def run(harness: Harness, test: Callable[[], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with harness.opened():
            await test()

    asyncio.run(opened())


def test_a_job_runs_as_its_user_and_nobody_elses_files_are_theirs(
    cluster: SlurmCluster, user: UnixUser, settings: SlurmSettings, root: Path
) -> None:
    harness = Harness(root, Ground(make=lambda: slurm_engine(root, cluster, settings)))
    env = {"PATH": "/usr/bin:/bin", "SECRET": "xyzzy"}
    job = shell('id -un; touch "$ARTESIAN_CHECKPOINT_DIR/saved"', user=user.name, env=env)
    other = shell("sleep 600", id="other", user=user.name)

    async def test() -> None:
        harness.start(job)
        assert (await harness.outcome()).cause is Cause.COMPLETED
        harness.events.clear()
        harness.start(other)
        await harness.until_started()
        assert cluster("squeue", "--noheader", "--format=%u").split() == [user.name]
        harness.stop(other)  # root stops it for them
        assert (await harness.outcome()).cause is Cause.SIGNAL

    run(harness, test)
    assert harness.stdout(job) == f"{user.name}\n"
    folder = harness.folder(job).path
    assert (folder.parent / "checkpoints" / "saved").stat().st_uid == user.uid
    for path in (folder, folder / "attempt.json"):
        assert path.stat().st_uid == user.uid
        assert path.stat().st_mode & 0o077 == 0, "what is in a job's environment is for its user only"
    for path in (root, folder.parent):
        assert (path.stat().st_uid, path.stat().st_mode & 0o066) == (0, 0), (
            "nobody else lists or writes there"
        )


def test_a_gang_on_two_nodes_runs_as_its_user(
    cluster: SlurmCluster, user: UnixUser, settings: SlurmSettings, root: Path
) -> None:
    harness = Harness(root, Ground(make=lambda: slurm_engine(root, cluster, settings)))
    job = shell(
        'echo "$(id -un) $RANK" >> "$ARTESIAN_CHECKPOINT_DIR/who"', user=user.name, kind=JobKind.TRAIN
    )

    async def test() -> None:
        place = a_placement(("h1", range(2)), ("h2", range(2)))
        harness.engine.start(Start(job_id=job.id, epoch=1, placement=place, reason="a test"), job)
        assert (await harness.outcome()).cause is Cause.COMPLETED

    run(harness, test)
    who = (harness.folder(job).path.parent / "checkpoints" / "who").read_text().splitlines()
    assert sorted(who) == [f"{user.name} {rank}" for rank in range(4)]


@pytest.mark.parametrize(
    ("name", "message"),
    [("nobody-of-that-name", "is not known on this machine"), ("root", "jobs do not run as root")],
)
def test_who_cannot_run_jobs_is_refused_and_nothing_runs(
    cluster: SlurmCluster, settings: SlurmSettings, root: Path, name: str, message: str
) -> None:
    harness = Harness(root, Ground(make=lambda: slurm_engine(root, cluster, settings)))
    job = shell("echo ran", user=name)

    async def test() -> None:
        harness.start(job)
        outcome = await harness.outcome()
        assert outcome.cause is Cause.START_FAILED
        assert message in outcome.message

    run(harness, test)
    assert not harness.folder(job).stdout.exists()
    assert cluster.job_ids() == []


def test_over_ssh_sudo_submits_as_the_user(
    cluster: SlurmCluster, user: UnixUser, settings: SlurmSettings, root: Path
) -> None:
    needs(shutil.which("sudo") is not None, "sudo: see scripts/services.sh")
    job = shell("id -un", user=user.name)
    with ssh_server() as server:
        runner = SshRunner(
            host="login",
            root=server.folder,
            options=("-F", str(server.config)),
            extra_env={"SLURM_CONF": str(cluster.conf)},
        )
        harness = Harness(
            root, Ground(make=lambda: SlurmEngine(root, settings, SlurmClient(runner), time.time))
        )

        async def test() -> None:
            harness.start(job)
            outcome = await harness.outcome()
            assert outcome.cause is Cause.COMPLETED, outcome

        run(harness, test)
    assert harness.stdout(job) == f"{user.name}\n"


def test_a_user_cannot_lead_root_astray_by_what_they_put_into_their_folder(
    cluster: SlurmCluster, user: UnixUser, settings: SlurmSettings, root: Path
) -> None:
    harness = Harness(root, Ground(make=lambda: slurm_engine(root, cluster, settings)))
    precious = user.folder / "precious"
    precious.write_text("root's own")
    victim = cluster("sbatch", "--parsable", "--nodelist=a2", "--wrap=sleep 600").strip()
    script = (
        f'cd "$1" && ln -s {precious} stop && ln -sf {precious} attempt.json.part'
        f" && printf '{{\"slurm_id\": {victim}}}' > runs && rm -f slurm.json && mv runs slurm.json"
        f" && touch ready && trap 'exit 0' TERM && while :; do sleep 0.05; done"
    )
    job = shell("", user=user.name, command=("sh", "-c", script, "sh", str(root / "j1" / "attempt-1")))

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until((harness.folder(job).path / "ready").exists)
        async with harness.opened():
            harness.start(job)  # as after a crash: the number of the job is in the folder
            await harness.until_started()
            harness.stop(job, grace_s=20.0)
            assert (await harness.outcome()).cause is Cause.SIGNAL

    asyncio.run(test())
    assert precious.read_text() == "root's own"
    assert precious.stat().st_uid == 0
    stop = harness.folder(job).path / "stop"
    assert (stop.is_symlink(), stop.read_text(), stop.stat().st_uid) == (False, "20.0", user.uid)
    assert cluster.job_ids() == [victim], "somebody else's job is not cancelled"
