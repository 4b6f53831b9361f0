"""All that a soak runs: a Slurm, a PostgreSQL, replicas, an API server. And what can be done to it."""

import heapq
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import psycopg

import harness
from artesian.client import Client
from artesian.model.errors import AlreadyOver, ArtesianError
from artesian.model.views import JobFile
from artesian.server.rules import Rules
from artesian.server.view import StateView
from artesian.wire import environment as names
from postgres_server import PostgresServer
from replicas_harness import Replicas, replicas_on
from slurm_cluster import Kind, SlurmCluster, slurm_cluster
from soak_checks import Outage, Witness
from soak_leaks import Life
from soak_plan import Act, Cancel, KillLeader, KillNode, PauseLeader, StopSlurm, Submit

DEVICES = 8
"""Of each node."""

_REPLICAS = 3
_ACCELERATOR = "h100"
_START_S = 60.0


class Arena:
    """What runs, what was done to it so far, and what is still to be made good."""

    def __init__(
        self, cluster: SlurmCluster, server: PostgresServer, replicas: Replicas, api: subprocess.Popen[str]
    ) -> None:
        self.cluster = cluster
        self.replicas = replicas
        self.witness = Witness(replicas.folder / "witness")
        self.view = StateView.open(replicas.journal)
        self.submitted: dict[str, Submit] = {}
        self.outages: list[Outage] = []
        self.refused: list[str] = []
        """What the API did not do, in its words."""
        self.counts = {"cancels": 0, "node kills": 0, "leader kills": 0, "leader pauses": 0, "Slurm stops": 0}
        self.lives = [Life(name="API server", pid=api.pid)]
        self._server = server
        self._api = api
        self._down: dict[str, float] = {}
        self._is_slurm_away = False
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._tickets = itertools.count()
        assert api.stdout is not None
        self._client = Client(api.stdout.readline().strip())

    # -- what is done to it -------------------------------------------------------------------------

    def carry_out(self, act: Act) -> None:
        """Let it happen."""
        match act:
            case Submit():
                self._submit(act)
            case Cancel():
                self._cancel(act)
            case KillNode():
                self._kill_node(act)
            case KillLeader():
                leader = self.replicas.leading()
                leader.kill()
                leader.wait()  # or the next sample would show a process half taken down
                self.counts["leader kills"] += 1
                self.start_replica()
            case PauseLeader():
                leader = self.replicas.leading()
                leader.send_signal(signal.SIGSTOP)
                self.counts["leader pauses"] += 1
                self._later(act.lasts_s, lambda: _go_on(leader))
            case StopSlurm():
                self._stop_slurm(act)

    def start_replica(self) -> None:
        """Start one more replica."""
        process = self.replicas.start()
        self.lives.append(Life(name=f"replica {len(self.replicas.processes)}", pid=process.pid))

    def make_good(self) -> float | None:
        """Do what is due: nodes come back, and so on. Return the seconds to the next of it; None: nothing is to come."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _submit(self, act: Submit) -> None:
        told = {
            "name": f"soak-{act.number}",
            "command": self.witness.command(act),
            "devices": f"{_ACCELERATOR}:{act.devices}",
            "workers": 0,
            "grace": "2s",
            "workdir": "/",
        }
        env = {"PATH": os.environ.get("PATH", os.defpath)}
        try:
            job = self._client.submit(
                JobFile(text=json.dumps(told), source="soak", base_dir="/", env=env, home=None)
            )
        except ArtesianError as error:
            self.refused.append(f"submit: {error}")
            return
        self.submitted[job.id] = act

    def _cancel(self, act: Cancel) -> None:
        jobs = self.view.state().jobs
        alive = sorted(id_ for id_ in self.submitted if id_ not in jobs or not jobs[id_].state.is_final)
        if not alive:
            return
        try:
            self._client.cancel(_picked(alive, act.pick))
        except AlreadyOver:
            return  # it was quicker
        except ArtesianError as error:
            self.refused.append(f"cancel: {error}")
        self.counts["cancels"] += 1

    def _kill_node(self, act: KillNode) -> None:
        running = self.view.state().running.values()
        busy = sorted({share.node_id for job in running for share in job.placement.shares} - set(self._down))
        idle = sorted(set(self.cluster.node_names) - set(self._down) - set(busy))
        name = _picked(busy or idle, act.pick)
        self._down[name] = time.time()
        self.cluster.kill_node(name)
        self.counts["node kills"] += 1
        self._later(act.down_s, lambda: self._restore(name))

    def _restore(self, name: str) -> None:
        self.cluster.start_node(name)
        self.outages.append(Outage(node=name, from_s=self._down.pop(name), until_s=time.time()))

    def _stop_slurm(self, act: StopSlurm) -> None:
        if self._is_slurm_away:
            return
        self._is_slurm_away, from_s = True, time.time()
        self.cluster.stop_controller()
        self.counts["Slurm stops"] += 1

        def start() -> None:
            self.cluster.start_controller()
            self._is_slurm_away = False
            self.outages.append(Outage(node="*", from_s=from_s, until_s=time.time()))

        self._later(act.lasts_s, start)

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._tickets), act))

    # -- looking ------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what the journal has, and a sample of every process."""
        while self.view.refresh():
            pass
        for process in self.replicas.processes:
            process.poll()  # those that were killed are not to stay as zombies
        leader = self.replicas.leader()
        pid = None if leader is None else int(leader.holder.rpartition(":")[2])
        for life in self.lives:
            life.sample(is_leading=life.pid == pid)

    @property
    def unfinished(self) -> int:
        """How many of the accepted jobs are not over."""
        jobs = self.view.state().jobs
        return sum(id_ not in jobs or not jobs[id_].state.is_final for id_ in self.submitted)

    def connections(self) -> int:
        """Return how many connections the database has, this question's own aside."""
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def dead(self) -> list[str]:
        """Return the processes that ended by themselves: there must be none."""
        ended = [] if self._api.poll() is None else [f"the API server ended with {self._api.returncode}"]
        for number, process in enumerate(self.replicas.processes):
            if process.poll() not in (None, -signal.SIGKILL):
                ended.append(f"replica {number + 1} ended with {process.returncode}")
        return ended

    def left(self) -> list[str]:
        """Return what is still there of jobs that are all over."""
        found = [f"Slurm still has job {id_}" for id_ in self.cluster.job_ids()]
        found += [f"something of {id_} is alive" for id_ in self.witness.alive()]
        for name in self.cluster.node_names:
            found += [f"process {pid} of a job is alive on {name}" for pid in self.cluster.processes_of(name)]
        jobs = self.replicas.folder / "state" / "jobs"
        found += [f"{path.relative_to(jobs)} was left" for path in jobs.rglob("*.part")]
        known = {
            f"{id_}/attempt-{a.epoch}" for id_, job in self.view.state().jobs.items() for a in job.attempts
        }
        folders = {str(path.relative_to(jobs)) for path in jobs.glob("*/attempt-*")}
        return [*found, *(f"folder {name} belongs to no attempt" for name in sorted(folders - known))]

    def close(self) -> None:
        """Let go of the server."""
        self._client.close()


def _picked(names: Sequence[str], pick: float) -> str:
    return names[int(pick * len(names))]


def _go_on(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)


@contextmanager
def arena(nodes: int) -> Iterator[Arena]:
    """Everything up and running; gone at the end of the block, however it ends."""
    with ExitStack() as stack:
        harness.say(
            f"starting a Slurm of {nodes} nodes, a PostgreSQL, {_REPLICAS} replicas and an API server"
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="artesian-soak-")))
        folder.chmod(0o755)
        kinds = (Kind(name="n", nodes=nodes, accelerator=_ACCELERATOR, devices=DEVICES),)
        cluster = stack.enter_context(slurm_cluster(kinds, is_authentic=False, silent_s=4))
        (folder / "postgres").mkdir()
        server = PostgresServer(folder / "postgres")
        stack.callback(server.stop, "immediate")
        (folder / "plane").mkdir()
        rules = Rules(engines={"soak": {"kind": "slurm", "conf": str(cluster.conf)}})
        replicas = stack.enter_context(
            replicas_on(server.url(server.new_database()), folder / "plane", rules)
        )
        api = stack.enter_context(_api(replicas))
        made = Arena(cluster, server, replicas, api)
        stack.callback(made.close)
        for _ in range(_REPLICAS):
            made.start_replica()
        deadline_s = time.monotonic() + _START_S
        while len(made.view.state().nodes) < nodes:
            assert time.monotonic() < deadline_s, replicas.logs()
            made.refresh()
            time.sleep(0.1)
        yield made


@contextmanager
def _api(replicas: Replicas) -> Iterator["subprocess.Popen[str]"]:
    env = {
        **{name: value for name, value in os.environ.items() if name != names.CONFIG},
        "ARTESIAN_STATE": str(replicas.folder / "state"),
        "XDG_CONFIG_HOME": str(replicas.folder),
        names.DATABASE: replicas.url,
    }
    with (replicas.folder / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "artesian.cli.main", "serve", "--port", "0", "--no-driver"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
