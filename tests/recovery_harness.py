"""What the tests of recovery share: a small script that notes what it trains on, and agents that run it."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from artesian.train.recovery import Failure
from artesian.train.terms import Address
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import Layer, Message, Recovered, Restored, StepCommitted, WorkerStarted

STEPS, BATCH = 14, 4
DEADLINE_S = 240.0

SCRIPT = f"""
import os, resource, sys, time
import torch
from torch.nn.parallel import DistributedDataParallel
from artesian.train import Run, join, resilient
from artesian.train.faults import DeviceFaults
from artesian.train.link import link
from artesian.train.preflight import check, judge, leave_out

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
                while run.step == 4 and "WAITS_TO_GO" in os.environ and not run._stop._is_requested:
                    time.sleep(0.05)  # until it is to make room for another
                if run.step == {STEPS} and "FULL" in os.environ:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # what takes more fails, as on a full disk
                while run.step == 4 and "SAYS_SLOW" in os.environ:
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
    """Kill the agent and all that runs in its session, as the loss of a machine does."""
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and os.getsid(int(name)) == agent.pid:
                os.kill(int(name), signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


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
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        if any(isinstance(m, StepCommitted) and m.rank == rank and m.step >= step for m in job.messages()):
            return
        select.select([], [], [], 0.05)
    for agent in job.agents:
        lose_node(agent)
    said = "\n".join(agent.communicate()[1] for agent in job.agents)
    raise TimeoutError(f"rank {rank} does not come to step {step}; what the agents have said:\n{said}")
