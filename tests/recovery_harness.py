"""What the tests of recovery share: a small script that notes what it trains on, and agents that run it."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from artesian.train.recovery import Failure
from artesian.train.terms import Address
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import Layer, Message, Recovered, Restored, StepCommitted, WorkerStarted
from proc import descendants, processes, session, stat

STEPS, BATCH = 14, 4
DEADLINE_S = 240.0

HOLD = """
def hold(run):
    # After step $HOLDS_AT, until the test lets go, or it is told to stop. It is no step that hangs.
    if str(run.step) == os.environ.get("HOLDS_AT"):
        folder = os.environ["HOLD"]
        with run.paused():
            open(f"{folder}/held-{run.member.rank}", "w").close()
            while not (os.path.exists(f"{folder}/go") or run._stop._is_requested):
                time.sleep(0.02)
        open(f"{folder}/went-{run.member.rank}", "w").close()
"""
"""For scripts: what a test does to a job that stands still happens neither before nor after its steps."""

SCRIPT = f"""
import os, resource, sys, time
import torch
from torch.nn.parallel import DistributedDataParallel
from artesian.train import Run, join, resilient
from artesian.train.faults import DeviceFaults
from artesian.train.link import link
from artesian.train.preflight import check, judge, leave_out

{HOLD}
class Noted:
    def __init__(self): self.asked = []
    def __len__(self): return 1000
    def __getitem__(self, index):
        self.asked.append(index)
        return torch.full((4,), index / 1000)

def main():
    torch.manual_seed(1)
    if "IS_BROKEN" in os.environ:
        sys.exit("its device is gone")
    member = join()
    if "CHECKS_FIRST" in os.environ:
        faults = DeviceFaults(xids=(79,) if "HAS_XID" in os.environ else ())
        place = {{"rank": member.rank, "world_size": member.world_size, "device": member.device}}
        found = check(**place, control=member.control, faults=faults, size=64, buffer_bytes=4096)
        while findings := judge(found, least_share=1e-6):
            leave_out(findings, rank=member.rank)  # until there is a spare, and the agent acts on it
            time.sleep(0.1)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = Noted()
    with open(f"{{sys.argv[1]}}/rank-{{member.rank}}.txt", "a", buffering=1) as seen:
        with Run.from_env(model=model, optimizer=optimizer, member=member) as run:
            for batch in run.batches(data, global_batch={BATCH}, steps={STEPS}):
                # Before the gradients are exchanged: from then on a peer may commit the step with this rank's part.
                asked, data.asked = data.asked, []
                print(run.step + 1, *asked, file=seen)
                loss = (model(batch) - 1).square().mean()
                try:
                    loss.backward()
                finally:  # a step in which it neither fails nor looks up
                    if run.step == 3 and os.environ.get("HEARS_NOTHING") == os.environ["RANK"]:
                        if os.environ["ARTESIAN_RESTART"] == "0":
                            time.sleep(10**6)
                time.sleep(float(os.environ.get("STEP_S", "0")))
                run.commit(loss)
                hold(run)
                if run.step == {STEPS} and "FULL" in os.environ:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # what takes more fails, as on a full disk
                while run.step == 4 and "SAYS_SLOW" in os.environ:
                    with run.paused():
                        link().is_slow("it says so")  # until there is a spare, and the agent acts on it
                        time.sleep(0.1)

if os.environ.get("RESILIENT"):
    main = resilient(main)
main()
"""


class Job:
    """One training job in ``folder``, whose agents share checkpoints and progress files."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.notes, self.progress = folder / "notes", folder / "progress"
        self.notes.mkdir(parents=True)
        self.script = folder / "script.py"
        self.script.write_text(SCRIPT)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ARTESIAN_")}
        self._env = {
            **clean,
            "OMP_NUM_THREADS": "1",
            "ARTESIAN_CHECKPOINT_DIR": str(folder / "checkpoints"),
            "ARTESIAN_CHECKPOINT_EVERY": "1",
            "ARTESIAN_PROGRESS_DIR": str(self.progress),
            "HOLD": str(folder),
            **env,
        }
        self.agents: list[subprocess.Popen[str]] = []

    def start(self, *options: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start an agent, in a session of its own as a node would be."""
        command = [sys.executable, "-m", "artesian.train.launch", *options, str(self.script), str(self.notes)]
        agent = subprocess.Popen(
            command,
            env={**self._env, **(env or {})},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.agents.append(agent)
        return agent

    def run(self, *options: str) -> "Job":
        """Run one agent to its end, which must be a good one."""
        agent = self.start(*options)
        _, errors = agent.communicate(timeout=240)
        assert agent.returncode == 0, errors
        return self

    def wait_until_held(self, *ranks: int) -> None:
        """Wait until these workers stand still, after step ``$HOLDS_AT``."""
        for rank in ranks:
            self._wait_for((self.folder / f"held-{rank}").exists, f"rank {rank} does not come to its hold")

    def wait_until_gone_on(self, rank: int) -> None:
        """Wait until this worker stands still no more, as it was told to stop."""
        self._wait_for((self.folder / f"went-{rank}").exists, f"rank {rank} does not hear that it is to stop")

    def let_go(self) -> None:
        """Let workers that stand still go on, and none stand still any more."""
        (self.folder / "go").touch()

    def wait_for_step(self, step: int, rank: int) -> None:
        def is_there() -> bool:
            return any(
                isinstance(m, StepCommitted) and m.rank == rank and m.step >= step for m in self.messages()
            )

        self._wait_for(is_there, f"rank {rank} does not come to step {step}")

    def _wait_for(self, is_so: Callable[[], bool], problem: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            have_ended = all(
                agent.poll() is not None for agent in self.agents
            )  # before the look, not after it
            if is_so():
                return
            if have_ended or time.monotonic() > deadline_s:
                self._fail(problem)
            select.select([], [], [], 0.02)

    def _fail(self, problem: str) -> NoReturn:
        for agent in self.agents:
            lose_node(agent)
        said = "\n".join(agent.communicate()[1] for agent in self.agents)
        raise TimeoutError(f"{problem}; what the agents have said:\n{said}")

    def messages(self) -> Sequence[Message]:
        return ProgressReader(self.progress).read()

    def records(self) -> list[Recovered]:
        return [message for message in self.messages() if isinstance(message, Recovered)]

    def restored(self) -> list[Restored]:
        """Return what the workers have taken over from before."""
        return [message for message in self.messages() if isinstance(message, Restored)]

    def pid_of(self, rank: int) -> int:
        """Return the process of a worker, the last one where there were several."""
        return [m.pid for m in self.messages() if isinstance(m, WorkerStarted) and m.rank == rank][-1]

    def losses(self) -> dict[tuple[int, int], float | None]:
        """Return the loss that counts by rank and step: the last that was told."""
        return {(m.rank, m.step): m.loss for m in self.messages() if isinstance(m, StepCommitted)}

    def samples(self) -> dict[str, set[str]]:
        """Return the samples of each step: of all ranks, each as it trained on the step for the last time."""
        found: dict[str, set[str]] = {}
        for path in self.notes.glob("rank-*.txt"):
            for step, told in dict(line.split(" ", 1) for line in path.read_text().splitlines()).items():
                found.setdefault(step, set()).update(told.split())
        return found

    def end(self) -> None:
        """Kill what is left."""
        for agent in self.agents:
            lose_node(agent)
            agent.communicate()


class Idle:
    """A node that does as it is told, which is nothing."""

    def pause(self, duration_s: float) -> bool:
        return duration_s > 0

    def open_store(self, host: str) -> tuple[int, bool]:
        return len(host), True

    def form(
        self,
        number: int,
        nodes: int,
        node_rank: int | None,
        master: Address,
        layer: Layer | None,
        cause: Failure | None,
        *,
        is_served: bool,
    ) -> None: ...

    def show_stacks(self) -> None: ...

    def give_way(self) -> None: ...

    def blame(self, cause: Failure, restarts: int) -> None: ...

    def end(self, exit_code: int) -> None: ...


def lose_node(agent: subprocess.Popen[Any]) -> None:
    """Kill the agent and all that it has started, as the loss of a machine does; return when nothing runs.

    Each worker has a session of its own, in which its helpers are, too.
    """
    sessions = {agent.pid, *filter(None, map(session, descendants(agent.pid)))}
    deadline_s = time.monotonic() + DEADLINE_S
    while sum(_kill_if_of(pid, sessions) for pid in processes()):  # all of them, again and again
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"processes of the sessions {sessions} outlive SIGKILL")
        select.select([], [], [], 0.005)


def _kill_if_of(pid: int, sessions: Collection[int]) -> bool:
    """Kill the process if it is of one of the sessions; say whether it was, and had not ended."""
    with suppress(OSError):
        if session(pid) in sessions and (fields := stat(pid)) and fields[0] not in (b"Z", b"X"):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def start_node(
    job: Job, port: int, nodes: str, *, options: Sequence[str] = (), **env: str
) -> subprocess.Popen[str]:
    options = ("--nnodes", nodes, "--nproc-per-node", "1", "--max-restarts", "3", *options)
    return job.start(*options, "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-backend", "c10d", env=env)


def start_placed_node(
    job: Job, port: int, rank: int, *, options: Sequence[str] = (), **env: str
) -> subprocess.Popen[str]:
    """Start the agent of one of two nodes that are told their places, as an engine does it."""
    size = ("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3")
    place = ("--node-rank", str(rank), "--master-addr", "127.0.0.1", "--master-port", str(port))
    return job.start(*size, *place, *options, env=env)


def wait_until_bound(port: int) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        select.select([], [], [], 0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_so():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"still waiting for {what}")
        select.select([], [], [], 0.01)


def wait_for_step(job: Job, step: int, rank: int) -> None:
    job.wait_for_step(step, rank)
