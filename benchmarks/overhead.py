"""What recovery costs while nothing fails: the share of a 50 ms step that heartbeats and their thread take.

    python benchmarks/overhead.py [--script FILE] [-o json] [--quick]

Figures against a step of 50 ms. The first is what a worker does per step for its agent, timed alone: one beat and one
check. The second is the processor time of the thread that says "alive", as a share of wall time, from an idle process
with and without it. What the agent itself uses is given too: it looks at two workers' pages four times a second. Then
what two ranks over gloo do to find stragglers: a timer, and an exchange every 16 steps.

The last two are all of it at once, with the state kept in memory: the step of two workers under ``artesian launch
--max-restarts`` against that of the same script under ``torchrun``, and against that of a plain loop without artesian
(plain_job.py) under ``torchrun``, in turn. A step is the mean of the middle half: that not every step is followed by a
snapshot must not hide what they take. Differences that small need a quiet machine. ``--script FILE`` measures another
training script, which must use ``Run``; there is no plain loop to measure it against.
"""

import argparse
import json
import multiprocessing
import os
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

import agents
import harness
from artesian.train.heartbeat import make_page, read_page
from artesian.train.link import Link
from artesian.train.membership import current
from artesian.train.stragglers import StragglerPolicy, StragglerWatch
from artesian.train.watchdog import CHECK_EVERY_S, verdict
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import StepCommitted
from harness import Result, measured
from processes import folder_in_memory

_STEP_S = 0.05
_BAR_PERCENT = 1.0
_WARM_UP_STEPS = 15
_PATIENCE_S = 240.0
_PLAIN = Path(__file__).with_name("plain_job.py")
_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")


EndsOf = Callable[[Path, int], list[float] | None]
"""Returns when the steps of a job in a folder ended, in seconds; None before there are so many."""


def run(is_quick: bool, script: Path) -> Sequence[Result]:
    """Measure in this process, with a line to an agent that says nothing."""
    rounds = 10 if is_quick else 50
    page = make_page()
    agent, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    idle = [_cpu_share(0.5) for _ in range(rounds // 5)]
    link = Link(os.dup(page), worker.detach(), 0)
    alive = [_cpu_share(1.0) for _ in range(rounds // 5)]

    def step() -> None:
        link.heart.beat(1)
        link.check()

    def look() -> None:
        now_s = time.monotonic()
        for _ in range(2):
            verdict(read_page(page), now_s)

    in_step = [_each(step) / _STEP_S * 100 for _ in range(rounds)]
    by_thread = [max(0.0, share - min(idle)) * 100 for share in alive]
    by_agent = [_each(look) / CHECK_EVERY_S * 100 for _ in range(rounds)]
    agent.close()
    watched = [seconds / _STEP_S * 100 for seconds in _watching(rounds)]
    steps = 40 if is_quick else 200
    found = [
        measured("a beat and a check, of a 50 ms step", in_step, "%", "lower", bar=_BAR_PERCENT),
        measured("the thread that says alive, of one core", by_thread, "%", "lower", bar=_BAR_PERCENT),
        measured("the agent's look at two workers, of one core", by_agent, "%", "lower", bar=_BAR_PERCENT),
        measured("finding stragglers, of a 50 ms step", watched, "%", "lower", bar=_BAR_PERCENT),
    ]
    under_torchrun, plain = _whole(script, steps, 1 if is_quick else 10)
    name = f"a step of {script.name}, more than"
    found.append(measured(f"{name} under torchrun", under_torchrun, "%", "lower", bar=_BAR_PERCENT))
    if plain:
        found.append(measured(f"{name} one without artesian", plain, "%", "lower", bar=_BAR_PERCENT))
    return found


def _whole(script: Path, steps: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return by how much a step is longer, in percent: than under torchrun, and than one of the plain loop, if any."""
    launch = (*agents.LAUNCH, "--max-restarts", "3")
    under_torchrun, plain = [], []
    for _ in range(rounds):
        ours_s = _step_s(launch, script, _ends_of_run, steps)
        under_torchrun.append(100 * (ours_s / _step_s(_TORCHRUN, script, _ends_of_run, steps) - 1))
        if script == agents.SCRIPT:
            plain.append(100 * (ours_s / _step_s(_TORCHRUN, _PLAIN, _ends_of_plain, steps) - 1))
    return under_torchrun, plain


def _step_s(launch: Sequence[str], script: Path, ends_of: EndsOf, steps: int) -> float:
    """Return what a step of two workers takes, in seconds, from so many. Raises RuntimeError when they do not come."""
    command = [*launch, "--nproc-per-node", "2", str(script)]
    count = _WARM_UP_STEPS + steps + 1
    with folder_in_memory("overhead") as folder:
        env = agents.environment(folder, every=10**9, is_resilient=False)
        env |= {"PLAIN_STEPS": str(count), "PLAIN_STEPS_FILE": str(folder / "plain.json")}
        with agents.started([command], env, folder):
            found = agents.until(lambda: ends_of(folder, count), _PATIENCE_S)
        if found is None:
            told = (folder / "agent-0.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{script} does not come to {count} steps:\n{told}")
    took_s = sorted(later - earlier for earlier, later in pairwise(found[_WARM_UP_STEPS:count]))
    return statistics.fmean(took_s[len(took_s) // 4 : -(len(took_s) // 4)])


def _ends_of_run(folder: Path, count: int) -> list[float] | None:
    messages = ProgressReader(folder / "progress").read()
    found = [said.end_s for said in messages if isinstance(said, StepCommitted) and said.rank == 0]
    return found if len(found) >= count else None


def _ends_of_plain(folder: Path, _count: int) -> list[float] | None:
    file = folder / "plain.json"
    return json.loads(file.read_text()) if file.exists() else None


def _each(act: Callable[[], None]) -> float:
    """Return the seconds of one call, from a thousand."""
    start_s = time.perf_counter()
    for _ in range(1000):
        act()
    return (time.perf_counter() - start_s) / 1000


def _watching(rounds: int) -> list[float]:
    """Return what rank 0 of two spends per step on finding stragglers, in seconds, from windows of 16 steps each."""
    context = multiprocessing.get_context("spawn")  # a thread runs here, which is in the way of a fork
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=_watch, args=(rank, f"{folder}/store", rounds, theirs))
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        theirs.close()
        found: list[float] = ours.recv()
        for process in ranks:
            process.join()
    return found


def _watch(rank: int, store: str, rounds: int, answers: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = torch.nn.Linear(8, 8)
    watch = StragglerWatch(StragglerPolicy(), model, current(torch.device("cpu")), lambda **_: None, None)
    windows, step = [], 0
    for _ in range(rounds + 1):
        spent_s = 0.0
        for _ in range(16):
            step += 1
            start_s = time.perf_counter()
            watch.begin()
            spent_s += time.perf_counter() - start_s
            model(torch.ones(1, 8)).sum().backward()
            time.sleep(0.005)  # in a step there is time for the exchange to arrive
            start_s = time.perf_counter()
            watch.note(step)
            spent_s += time.perf_counter() - start_s
        windows.append(spent_s / 16)
    if rank == 0:
        answers.send(windows[1:])  # the first finds everything cold
    dist.barrier()
    dist.destroy_process_group()


def _cpu_share(wall_s: float) -> float:
    """Return the share of a core that this process uses while its main thread sleeps."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(wall_s)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / wall_s


def main() -> None:
    """Read the argument that only this benchmark has, and leave the others to the harness."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--script", type=Path, default=agents.SCRIPT)
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    harness.main("overhead", lambda is_quick: run(is_quick, own.script))


if __name__ == "__main__":
    main()
