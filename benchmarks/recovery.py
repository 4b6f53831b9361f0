"""How long training stands still after a fault: from the fault to the first new committed step.

A tiny DDP model on gloo, two workers, steps of 50 ms, a checkpoint of every step in memory (/dev/shm). The
fault is timed by the worker just before it happens, or by this script when it kills a node; the step by the
worker that commits it. Node faults emulate nodes: agents in sessions of their own on 127.0.0.1, of which one
is killed with all its workers. With ``--peer torchrun`` the same model with the same checkpoints runs under
``torchrun`` as well; kinds of faults that it recovers from only after its long timeouts are cut off at
``--limit`` seconds, and reported as that.

``--script FILE`` runs another training script, which must use ``Run`` (see examples/pretrain.py) and train for some
hundred steps: ``marked.py`` notes when the fault happens in it.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import agents
import harness
from artesian.wire.channel import ProgressReader
from artesian.wire.faults import Fault, FaultKind, encode_faults
from artesian.wire.messages import Restored, StepCommitted, WorkerStarted
from harness import Result, measured
from processes import descendants, folder_in_memory, kill_node

_BARS_S = {
    "kill": 1.5,
    "segfault": 1.5,
    "exception": 1.5,
    "stop": 5.0,
    "gil": 5.0,
    "node-spare": 5.0,
    "node-shrink": 5.0,
}
_MARKED = Path(__file__).with_name("marked.py")
_WARM_UP_STEPS = 15
_PATIENCE_S = 240.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    faults: tuple[str, ...]
    repeat: int
    peer: str | None
    script: Path
    is_resilient: bool
    limit_s: float


def run(options: Options) -> Sequence[Result]:
    """Measure every kind of fault."""
    results = []
    for fault in options.faults:
        ours = _samples(fault, options, _ours)
        theirs: list[float] = []
        if options.peer == "torchrun":
            theirs = _samples(fault, options, _torchrun)
        if ours:
            results.append(
                measured(
                    f"{fault}: fault -> first new step, {len(ours)} of {options.repeat} recovered",
                    ours,
                    "s",
                    "lower",
                    bar=_BARS_S[fault],
                    peer=options.peer,
                    peer_samples=theirs,
                )
            )
    return results


def _samples(fault: str, options: Options, once: Callable[[str, Options], float | None]) -> list[float]:
    found = []
    for number in range(options.repeat):
        taken_s = once(fault, options)
        harness.say(
            f"{once.__name__[1:]} {fault} {number + 1}/{options.repeat}: {taken_s and round(taken_s, 2)} s"
        )
        if taken_s is not None:
            found.append(taken_s)
    return found


def _ours(fault: str, options: Options) -> float | None:
    launch = [*agents.LAUNCH, "--max-restarts", "3"]
    if not fault.startswith("node-"):
        return _worker_fault(fault, options, [*launch, "--nproc-per-node", "2"])
    span = "1:2" if fault == "node-shrink" else "2"
    agent = [*launch, "--nnodes", span, "--nproc-per-node", "1"]
    command = [*agent, "--rdzv-endpoint", f"127.0.0.1:{agents.free_port()}", str(options.script)]
    return _node_fault(options, [command] * (3 if fault == "node-spare" else 2))


def _torchrun(fault: str, options: Options) -> float | None:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--max-restarts",
        "3",
        "--monitor-interval",
        "0.1",
    ]
    if not fault.startswith("node-"):
        return _worker_fault(fault, options, [*torchrun, "--standalone", "--nproc-per-node", "2"])
    span = "1:2" if fault == "node-shrink" else "2:2"
    agent = [*torchrun, "--nnodes", span, "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "x"]
    command = [*agent, "--rdzv-endpoint", f"127.0.0.1:{agents.free_port()}", str(options.script)]
    return _node_fault(options, [command] * (3 if fault == "node-spare" else 2))


def _worker_fault(fault: str, options: Options, launch: Sequence[str]) -> float | None:
    """Return the seconds from the fault that worker 1 injects into itself; None where it did not recover."""
    step = _WARM_UP_STEPS + 1
    faults = encode_faults([Fault(kind=FaultKind(fault), worker=1, step=step)])
    command = [*launch, str(_MARKED), str(options.script)]
    with _folder() as folder, agents.started([command], _environment(options, faults, folder), folder):
        mark = folder / "fault"
        if agents.until(lambda: mark.exists() or None, _PATIENCE_S) is None:
            return None
        return _recovery_s(folder, float(mark.read_text()), options.limit_s)


def _node_fault(options: Options, commands: Sequence[Sequence[str]]) -> float | None:
    """Return the seconds from the loss of the second agent with its workers."""
    with (
        _folder() as folder,
        agents.started(commands, _environment(options, "[]", folder), folder) as nodes,
    ):
        if agents.until(lambda: _has_step(folder, rank=1, step=_WARM_UP_STEPS), _PATIENCE_S) is None:
            return None
        victim = _agent_of_rank(1, folder, nodes)
        at_s = time.time()
        kill_node(victim.pid)
        return _recovery_s(folder, at_s, options.limit_s)


def _folder() -> AbstractContextManager[Path]:
    return folder_in_memory("recovery")


def _environment(options: Options, faults: str, folder: Path) -> dict[str, str]:
    return agents.environment(folder, every=1, is_resilient=options.is_resilient, faults=faults)


def _has_step(folder: Path, rank: int, step: int) -> bool | None:
    messages = ProgressReader(folder / "progress").read()
    return any(isinstance(m, StepCommitted) and m.rank == rank and m.step >= step for m in messages) or None


def _recovery_s(folder: Path, fault_s: float, limit_s: float) -> float | None:
    """Return the seconds from the fault to the first step that nobody had committed before; None: too late.

    A survivor may still commit the step that was under way: what counts comes after the restore.
    """

    def first_new() -> float | None:
        messages = ProgressReader(folder / "progress").read()
        restores = [m.at_s for m in messages if isinstance(m, Restored) and m.at_s > fault_s]
        if not restores:
            return None
        steps = [message for message in messages if isinstance(message, StepCommitted)]
        last = max(said.step for said in steps if said.end_s <= min(restores))
        return min((said.end_s for said in steps if said.step > last and said.end_s > fault_s), default=None)

    found = agents.until(first_new, limit_s)
    return None if found is None else found - fault_s


def _agent_of_rank(
    rank: int, folder: Path, nodes: Sequence[subprocess.Popen[bytes]]
) -> subprocess.Popen[bytes]:
    """Return the agent that has started the worker of ``rank``: which node is which is for them to say."""
    messages = ProgressReader(folder / "progress").read()
    (pid,) = {m.pid for m in messages if isinstance(m, WorkerStarted) and m.rank == rank}
    return next(node for node in nodes if pid in descendants(node.pid))


def _options() -> Options:
    """Take this benchmark's own options out of the command line; the harness reads what is left."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--faults", default=",".join(_BARS_S))
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--peer", choices=["torchrun"])
    parser.add_argument("--script", type=Path, default=agents.SCRIPT)
    parser.add_argument(
        "--no-wrapper", action="store_true", help="without `resilient`: the layer of the fork"
    )
    parser.add_argument("--limit", type=float, default=150.0)
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    faults = tuple(own.faults.split(","))
    if unknown := set(faults) - set(_BARS_S):
        parser.error(f"unknown faults {sorted(unknown)}; known are {', '.join(_BARS_S)}")
    repeat = own.repeat or (1 if "--quick" in rest else 10)
    return Options(faults, repeat, own.peer, own.script, not own.no_wrapper, own.limit)


if __name__ == "__main__":
    chosen = _options()
    harness.main("recovery", lambda _: run(chosen))
