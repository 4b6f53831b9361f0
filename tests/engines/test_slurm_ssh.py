"""The Slurm engine whose login node is reached over ssh: a real sshd, and the system's client."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from artesian.engines.base import Site
from artesian.engines.slurm.runner import SshRunner, socket_folder
from artesian.engines.slurm.site import make
from artesian.engines.slurm.stock import SlurmUnreachable
from artesian.engines.watching import Unreachable
from artesian.model.job import Cause
from artesian.model.plan import Start
from builders import a_placement
from engines_harness import Ground, Harness, Session, shell
from slurm_cluster import SlurmCluster, slurm_cluster
from ssh_server import SshServer, ssh_server


@pytest.fixture
def cluster(session: Session) -> Iterator[SlurmCluster]:
    cluster = session.once("slurm", slurm_cluster)
    yield cluster
    cluster.revive()


@pytest.fixture
def server() -> Iterator[SshServer]:
    with ssh_server() as server:
        yield server


def on(cluster: SlurmCluster, root: Path, config: Path) -> Harness:
    """An engine as ``artesian.toml`` makes it: a user's own ssh has its configuration where ``-F`` points here."""
    table = {
        "ssh": "login",
        "ssh_args": ["-F", str(config)],
        "conf": str(cluster.conf),
        "poll_interval_s": 0.5,
    }
    site = Site(name="cluster", root=root, hosts=(), clock=time.time, options=table)
    return Harness(root, Ground(make=lambda: make(site)))


def run(harness: Harness, test: Callable[[], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with harness.opened():
            await test()

    asyncio.run(opened())


def test_attempts_start_and_stop_through_the_login_node(cluster: SlurmCluster, server: SshServer) -> None:
    harness = on(cluster, server.folder / "jobs", server.config)
    first = shell("echo it is $SLURMD_NODENAME; exit 3", id="first")
    second = shell("exec sleep 600", id="second")

    async def test() -> None:
        assert sorted(node.id for node in harness.nodes) == ["a1", "a2", "h1", "h2"]
        harness.start(first)
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.exit_code) == (Cause.USER_ERROR, 3)
        harness.events.clear()
        harness.start(second)
        await harness.until_started()
        harness.stop(second)
        assert (await harness.outcome()).cause is Cause.SIGNAL

    run(harness, test)
    assert harness.stdout(first).startswith("it is ")
    assert cluster.job_ids() == []
    assert "Accepted publickey" in (server.folder / "log").read_text()


def test_while_the_login_node_is_away_attempts_are_held(
    cluster: SlurmCluster, server: SshServer, tmp_path: Path
) -> None:
    harness = on(cluster, server.folder / "jobs", server.config)
    runs = shell(f"while ! [ -e {tmp_path}/go ]; do sleep 0.01; done", id="runs")
    late = shell(f"echo x >> {tmp_path}/late", id="late")

    async def test() -> None:
        harness.start(runs)
        await harness.until_started()
        server.stop()
        place = a_placement(("h2", [0]))
        harness.engine.start(Start(job_id=late.id, epoch=1, placement=place, reason="a test"), late)
        (tmp_path / "go").touch()
        await harness.until(lambda: harness.folder(runs).ended() is not None)
        await asyncio.sleep(1.0)
        assert harness.kinds == ["AttemptStarted"], "nobody said that anything ended, or began"
        server.start()
        await harness.until(lambda: harness.kinds.count("AttemptEnded") == 2)

    run(harness, test)
    assert (tmp_path / "late").read_text() == "x\n"


def refusal(harness: Harness) -> SlurmUnreachable:
    """Why the engine cannot be opened."""

    async def nothing() -> None:
        pytest.fail("it opened")

    with pytest.raises(SlurmUnreachable) as refused:
        run(harness, nothing)
    assert refused.value.hint is not None
    return refused.value


def test_a_host_whose_key_is_another_one_is_not_talked_to(cluster: SlurmCluster, server: SshServer) -> None:
    server.know(server.folder / "other_key.pub")
    error = refusal(on(cluster, server.folder / "jobs", server.config))
    assert "ssh login: Host key verification failed" in str(error)
    assert "compare the fingerprint" in str(error.hint)


def test_a_host_that_nobody_has_seen_before_is_not_talked_to(
    cluster: SlurmCluster, server: SshServer
) -> None:
    (server.folder / "known_hosts").write_text("")
    error = refusal(on(cluster, server.folder / "jobs", server.config))
    assert "Host key verification failed" in str(error)
    assert "known_hosts has another key for it, or none" in str(error.hint)


def test_a_host_that_does_not_know_our_key_is_told_from_one_that_is_away(
    cluster: SlurmCluster, server: SshServer
) -> None:
    error = refusal(on(cluster, server.folder / "stranger", server.stranger_config))
    assert "Permission denied (publickey)" in str(error)
    assert "ssh -o BatchMode=yes login true" in str(error.hint)
    server.stop()
    error = refusal(on(cluster, server.folder / "away", server.config))
    assert "Connection refused" in str(error)
    assert "ssh login true" in str(error.hint)


def test_words_arrive_as_they_are_whatever_is_in_them(server: SshServer) -> None:
    words = ["it's", "a $HOME", "b\nc", "`id`", "; exit 3", "", "-n", "*", "\\", '"', "é"]
    runner = SshRunner(
        host="login",
        root=server.folder,
        options=("-F", str(server.config)),
        extra_env={"SLURM_CONF": "/with a/space"},
    )
    script = 'printf "%s\\0" "$SLURM_CONF" "$@"; cat'
    done = asyncio.run(runner.run(["sh", "-c", script, "sh", *words], stdin="what is read\n"))
    assert done.code == 0
    assert done.stdout.split("\0") == ["/with a/space", *words, "what is read\n"]


def test_a_state_folder_with_a_long_path_has_its_sockets_elsewhere(server: SshServer, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    folder = socket_folder(deep)
    assert folder is not None
    try:
        assert folder.stat().st_mode & 0o077 == 0
        assert socket_folder(deep) == folder, "the next one finds the connection that is open"
        runner = SshRunner(host="login", root=deep, options=("-F", str(server.config)))
        assert asyncio.run(runner.run(["true"])).code == 0
        assert list(folder.iterdir()), "the connection is kept open"
        folder.chmod(0o755)
        assert socket_folder(deep) is None, "others could reach the socket"
    finally:
        server.stop()
        for path in folder.iterdir():
            path.unlink(missing_ok=True)  # the client that has lost its server takes its own away
        folder.rmdir()


def test_a_command_that_ends_with_code_255_was_not_necessarily_run(server: SshServer) -> None:
    runner = SshRunner(host="login", root=server.folder, options=("-F", str(server.config)))
    with pytest.raises(Unreachable):
        asyncio.run(runner.run(["sh", "-c", "exit 255"]))
