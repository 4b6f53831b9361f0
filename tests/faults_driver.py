"""Runs the agents of one disturbed job, and does to them what comes from outside."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from artesian.train.segment import sweep
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import Message, StepCommitted, WorkerStarted
from faults_orders import begins, tear
from ports import free_port
from proc import children, command_line, descendants, processes, read
from recovery_harness import lose_node

LIMIT_S = 240.0
"""Without a new step for so long, the job is given up."""
_PREEMPTED = 143
_READY_STEPS = 5


class Due(Protocol):
    """An order, as far as this side needs to know it."""

    @property
    def number(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def instant(self) -> int: ...
    @property
    def is_outside(self) -> bool: ...


class Driver:
    """One job in ``folder``: its agents, one for a node, and what they have told."""

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        launch: Sequence[str],
        script: Sequence[str],
        *,
        nodes: int,
    ) -> None:
        self.folder = folder
        self.orders = folder / "orders"
        self.problem: str | None = None
        self._env = dict(env)
        self._launch = [*launch, "--stop-grace", "20"]
        self._script = list(script)
        self._nodes = nodes
        self._agents: list[subprocess.Popen[bytes]] = []
        self._attempts = 0
        self._reader = ProgressReader(folder / "progress")
        self._messages: list[Message] = []
        self._port = 0
        self._newcomers: list[subprocess.Popen[bytes]] = []
        """Agents that were started for lost ones."""
        self._dismissed: list[subprocess.Popen[bytes]] = []
        self._lost_by: set[int] = set()
        """Orders after which all was started anew."""

    # Running

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the job, and leave nothing of it after the block."""
        checkpoints = self.folder / "checkpoints"
        checkpoints.mkdir()
        is_mounted = os.getuid() == 0 and _mount(checkpoints)
        try:
            self._start_all()
            yield
        finally:
            for agent in self._agents:
                lose_node(agent)
                agent.wait()
            if is_mounted:
                subprocess.run(["umount", "--lazy", str(checkpoints)], check=True)
            sweep()

    def wait(self) -> None:
        """Wait for a good end; what is in the way of one is the ``problem``."""
        self.drive((), is_on_nodes=False)

    def drive(self, orders: Sequence[Due], *, is_on_nodes: bool) -> None:
        """Bring about what is due until the job has ended."""
        outside = [order for order in orders if order.is_outside]
        last_s = time.monotonic()
        while self.problem is None:
            told = self._read()
            if any(isinstance(message, StepCommitted) for message in told):
                last_s = time.monotonic()
            if time.monotonic() - last_s > LIMIT_S:
                self.problem = f"no step for {LIMIT_S:.0f} s"
                return
            for order in [order for order in outside if (self.orders / f"{order.number}.due").exists()]:
                outside.remove(order)
                self._make(order)
                (self.orders / f"{order.number}.over").touch()
            codes = [agent.poll() for agent in self._agents]
            if 0 in codes and None in codes and self._newcomers:
                with contextlib.suppress(TimeoutError):  # those who had a part in it end by themselves
                    self._until(lambda: all(it.poll() is not None for it in self._agents) or None, 10.0)
                self._dismiss()
            if codes and all(code is not None for code in codes):
                if not any(
                    code
                    for code, agent in zip(codes, self._agents, strict=True)
                    if agent not in self._dismissed
                ):
                    break
                if self._is_lost(orders):
                    self._settle()
                    self._start_all()
                else:
                    self.problem = f"the agents ended with {codes}:\n{self.log_tail()}"
            time.sleep(0.05)
        self._read()

    def _is_lost(self, orders: Sequence[Due]) -> bool:
        """Say whether the node has died of a fault that takes all of it: an engine starts such a job anew, once."""
        taken = {order.number for order in orders if order.kind == "torn-node"}
        begun = {number for number in taken if (self.orders / f"{number}.begun").exists()}
        is_new = bool(begun - self._lost_by)
        self._lost_by |= begun
        return is_new and all(agent.returncode == -signal.SIGKILL for agent in self._agents)

    def _dismiss(self) -> None:
        """Stop the spares that have come when all was over: they wait for a gang that never comes."""
        for agent in [agent for agent in self._newcomers if agent.poll() is None]:
            agent.send_signal(signal.SIGTERM)
            self._dismissed.append(agent)
            if (code := agent.wait(LIMIT_S)) != _PREEMPTED:
                self.problem = f"told to stop, a spare ended with {code}:\n{self.log_tail()}"
        self._newcomers = []

    def _start_all(self) -> None:
        self._agents = []
        self._attempts += 1
        self._port = free_port()
        for _ in range(1 if self._nodes == 1 else self._nodes + 1):
            self._start_one()

    def _start_one(self) -> None:
        options = ["--nproc-per-node", "2"]
        if self._nodes > 1:
            options = ["--nnodes", str(self._nodes), "--nproc-per-node", "1"]
            options += ["--rdzv-endpoint", f"127.0.0.1:{self._port}"]
        with (self.folder / "agents.log").open("ab") as log:
            self._agents.append(
                subprocess.Popen(
                    [*self._launch, *options, *self._script],
                    env={**self._env, "ARTESIAN_EPOCH": str(self._attempts)},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    # What comes from outside

    def _make(self, order: Due) -> None:
        if order.kind not in ("torn-stop", "full"):
            begins(self.orders, order.number)
        match order.kind:
            case "lost":
                self._lose_all()
                self._start_all()
            case "corrupt":
                self._until(lambda: len(self._checkpoints()) > 1 or None)
                self._lose_all()
                _damage(self._checkpoints()[-1], random.Random(order.number))
                self._start_all()
            case "stop-job" | "torn-stop":
                if order.kind == "torn-stop":
                    tear(self.orders, order.number, calls=order.instant, takes="worker")
                self._stop()
                begins(self.orders, order.number)  # where there was nothing to save
                self._start_all()
            case "full":
                self._fill_the_disk(order)
            case "node":
                self._lose_a_node(order.rank)
            case "store" | "template" | "helper":
                _kill(self._part(order.kind))
            case _:
                raise ValueError(f"nobody makes a fault of kind {order.kind!r}")

    def _lose_all(self) -> None:
        for agent in self._agents:
            lose_node(agent)
            agent.wait()
        self._settle()

    def _stop(self) -> None:
        for agent in self._agents:
            agent.send_signal(signal.SIGTERM)
        for agent in self._agents:
            if (code := agent.wait(LIMIT_S)) not in (_PREEMPTED, 0):
                self.problem = f"told to stop, the agent ended with {code}:\n{self.log_tail()}"
        self._settle()

    def _settle(self) -> None:
        """Wait until nothing runs any more that has the job's folder in its environment: helpers finish a save."""
        sign = f"FAULTS_ORDERS={self.orders}".encode()

        def is_over() -> bool | None:
            return None if any(sign in read(pid, "environ") for pid in processes()) else True

        self._until(is_over)

    def _fill_the_disk(self, order: Due) -> None:
        """Fill it until a save has failed, and kill a worker in that time."""
        checkpoints, flag = self.folder / "checkpoints", self.orders / "full"
        before = self._failed_saves()
        ballast = checkpoints / "ballast"
        if os.path.ismount(checkpoints):
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1))
        flag.touch()
        self._until(lambda: self._failed_saves() > before or None)
        begins(self.orders, order.number)
        _kill(self._pids().get(order.rank))
        step = self._last_step()
        # It may have come as far as it goes before the order is over: to see a new step, let it go on.
        (self.orders / f"{order.number}.over").touch()
        self._until(lambda: self._last_step() > step or None)
        flag.unlink()
        ballast.unlink(missing_ok=True)

    def _failed_saves(self) -> int:
        return (self.folder / "agents.log").read_text(errors="replace").count("training goes on")

    def _lose_a_node(self, rank: int) -> None:
        """Lose the node of a worker; its machine comes back, as a spare."""
        pid = self._pids()[rank]
        victim = next((agent for agent in self._agents if pid in descendants(agent.pid)), None)
        if victim is not None:  # else the worker has ended meanwhile
            lose_node(victim)
            victim.wait()
            self._agents.remove(victim)
        self._start_one()
        self._newcomers.append(self._agents[-1])

    def _part(self, kind: str) -> int | None:
        """Return the process of the agent's that has this part; None where there is none now."""
        agent = self._agents[0].pid
        workers = set(self._pids().values())
        if kind == "helper":
            return next((pid for pid in descendants(agent) if b"persist_process" in command_line(pid)), None)
        others = [pid for pid in children(agent) if pid not in workers]
        ours = sorted(pid for pid in others if b"artesian.train.template" in command_line(pid))
        if not ours:
            return None
        if kind == "template":
            return ours[0]
        return ours[-1] if len(ours) > 1 else None

    # What was told

    def _read(self) -> list[Message]:
        new = self._reader.read()
        self._messages += new
        return new

    def _pids(self) -> dict[int, int]:
        self._read()
        return {m.rank: m.pid for m in self._messages if isinstance(m, WorkerStarted)}

    def _last_step(self) -> int:
        self._read()
        return max((m.step for m in self._messages if isinstance(m, StepCommitted)), default=0)

    def _checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step-*"))

    def losses(self) -> dict[tuple[int, int], float | None]:
        """Return the loss that counts by rank and step: the last that was told."""
        return {(m.rank, m.step): m.loss for m in self._messages if isinstance(m, StepCommitted)}

    def recovered_s(self, number: int) -> float | None:
        """Return the seconds from a fault to the first step that was new after it; None: it never came.

        A loader has some batches ready when it hangs: of the first steps after the fault, the one that took longest.
        """
        begun = self.orders / f"{number}.begun"
        if not begun.exists():
            return None
        at_s = float(begun.read_text())
        ends: dict[int, float] = {}
        for message in self._messages:
            if isinstance(message, StepCommitted):
                ends[message.step] = min(message.end_s, ends.get(message.step, message.end_s))
        new_s = sorted(end_s for end_s in ends.values() if end_s > at_s)[:_READY_STEPS]
        return max((later - earlier for earlier, later in pairwise([at_s, *new_s])), default=None)

    def log_tail(self) -> str:
        return (self.folder / "agents.log").read_text(errors="replace")[-6000:]

    def _until(self, ask: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        """Wait until ``ask`` returns something. Raises TimeoutError when it does not."""
        deadline_s = time.monotonic() + limit_s
        while ask() is None:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"it does not come about: {ask.__qualname__}\n{self.log_tail()}")
            time.sleep(0.05)


def _mount(folder: Path) -> bool:
    """Mount a disk of 4 MiB there; False where that is not for us to do, as in a container."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _damage(checkpoint: Path, chance: random.Random) -> None:
    """Damage a checkpoint as disks, hands and half-done copies do."""
    image, manifest = checkpoint / "state.bin", checkpoint / "manifest.json"
    match chance.randrange(5):
        case 0:
            data = bytearray(image.read_bytes())
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            image.write_bytes(data)
        case 1:
            os.truncate(image, image.stat().st_size // 2)
        case 2:
            os.truncate(manifest, manifest.stat().st_size // 2)
        case 3:
            manifest.unlink()
        case _:
            image.unlink()


def _kill(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
