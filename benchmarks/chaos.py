"""Training under a fault every twenty seconds or so: is what the ledger says what was lost?

    python benchmarks/chaos.py [--minutes 30] [--every 20] [--seed 0] [--script FILE] [-o json] [--quick]

Two workers with steps of 50 ms under ``artesian launch``. At random times (a Poisson process) a random worker is
killed, stopped, or gets SIGSEGV or SIGABRT. Three figures must agree: what was measured from outside (new steps
times the time that an undisturbed step takes, over the time in all), what the kernel's ledger makes of the
workers' messages, and the closed form for failures that come like this. ``--quick`` takes one minute.

``--script FILE`` runs another training script, which must use ``Run``.
"""

import argparse
import bisect
import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import agents
import harness
from artesian.formulas.goodput import goodput
from artesian.kernel.goodput import Goodput, job_goodput
from artesian.kernel.scheduler import Scheduler
from artesian.model.events import AttemptEnded, AttemptStarted, JobSubmitted, NodeJoined
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, JobKind, Outcome
from artesian.model.resources import parse_devices
from artesian.policy.registry import policy
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import Message, Recovered, Restored, StepCommitted, WorkerStarted
from harness import Result
from processes import Ended, folder_in_memory

_SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGABRT)
_BAR_POINTS = 2.0
_WARM_UP_S = 5.0
_STANDSTILL_S = 300.0


def run(is_quick: bool, minutes: float, every_s: float, seed: int, script: Path) -> Sequence[Result]:
    """Train, disturb, and compare."""
    span_s = 60.0 if is_quick else 60.0 * minutes
    with folder_in_memory("chaos") as folder:
        return _results(*_disturbed(folder, span_s, every_s, random.Random(seed), script))


def _disturbed(
    folder: Path, span_s: float, every_s: float, chance: random.Random, script: Path
) -> tuple[Sequence[Message], int]:
    """Return what the workers and their agent have told, and how many faults there were.

    Told to stop, or where the training stands still for long, it ends early: what was told until then counts.
    """
    env = {
        **agents.environment(folder, every=1000, is_resilient=True),
        "RECOVERY_STEPS": str(10**9),
    }
    command = [*agents.LAUNCH, "--max-restarts", "100000", "--nproc-per-node", "2", str(script)]
    reader = ProgressReader(folder / "progress")
    told: list[Message] = []
    hits, is_well = 0, True
    with agents.started([command], env, folder) as (agent,):
        try:
            time.sleep(_WARM_UP_S)
            end_s = time.monotonic() + span_s
            while (left_s := end_s - time.monotonic()) > 0 and (is_well := _goes_on(agent, told)):
                time.sleep(min(left_s, chance.expovariate(1 / every_s)))
                if time.monotonic() < end_s:
                    told += reader.read()  # what is new
                    hits += _hit(told, chance)
            time.sleep(_WARM_UP_S)  # the last recovery counts, too
            agent.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):  # what was told is told, however it ends
                agent.wait(60)
        except Ended:
            harness.say("told to stop: the figures are those of the time until now")
        if not is_well:
            harness.say((folder / "agent-0.log").read_text(errors="replace")[-20_000:])
        told += reader.read()
    return told, hits


def _goes_on(agent: "subprocess.Popen[bytes]", messages: Sequence[Message]) -> bool:
    """Say whether there was a step lately; what stands still for long does not come back by itself."""
    last_s = max((said.end_s for said in messages if isinstance(said, StepCommitted)), default=time.time())
    is_alive = agent.poll() is None and time.time() - last_s < _STANDSTILL_S
    if not is_alive:
        harness.say(
            f"no step for {time.time() - last_s:.0f} s, the agent's code is {agent.returncode}: giving up"
        )
    return is_alive


def _hit(messages: Sequence[Message], chance: random.Random) -> bool:
    """Disturb a worker, and say so; False where it is being restarted already: that fault hits nobody."""
    latest = {message.rank: message.pid for message in messages if isinstance(message, WorkerStarted)}
    number = chance.choice(_SIGNALS)
    try:
        os.kill(latest[chance.choice(sorted(latest))], number)
    except ProcessLookupError:
        return False
    harness.say(f"{number.name} after {len(messages):,} messages")
    return True


def _results(messages: Sequence[Message], hits: int) -> list[Result]:
    steps = [message for message in messages if isinstance(message, StepCommitted)]
    records = [message for message in messages if isinstance(message, Recovered)]
    if not steps or not records:
        raise SystemExit("chaos: it ended before the first recovery, and there is nothing to compare")
    start_s, end_s = min(step.start_s for step in steps), max(step.end_s for step in steps)
    step_s = statistics.fmean(step.end_s - step.start_s for step in steps)
    new = max(step.step for step in steps) - min(step.step for step in steps) + 1
    # The time between steps is the loop's own: what an undisturbed step takes is from one end to the next.
    # A mean, as goodput is about sums: on a busy machine the median step takes less than the average one.
    ends = sorted(step.end_s for step in steps if step.rank == 0)
    restored = sorted(message.at_s for message in messages if isinstance(message, Restored))
    pace_s = statistics.fmean(
        later - earlier
        for earlier, later in itertools.pairwise(ends)
        if bisect.bisect(restored, earlier) == bisect.bisect(restored, later)
    )
    measured = 100 * new * pace_s / (end_s - start_s)
    ledger = _ledger(messages, start_s, end_s).cumulative
    assert ledger is not None
    assert ledger.share is not None
    told = 100 * ledger.share * pace_s / step_s
    restart_s = statistics.fmean((r.detect_s or 0.0) + r.restart_s + (r.load_s or 0.0) for r in records)
    down_s = restart_s * len(records)
    closed = 100 * goodput(pace_s, 0.0, restart_s, (end_s - start_s - down_s) / len(records))
    harness.say(
        f"{len(records)} recoveries of {restart_s:.2f} s on average in {end_s - start_s:,.0f} s, {new:,} steps"
    )
    return [
        Result(
            case=f"goodput, measured, {hits} faults, {len(records)} recoveries",
            value=measured,
            unit="%",
            better="higher",
        ),
        Result(case="goodput by the ledger", value=told, unit="%", better="higher"),
        Result(case="goodput by the closed form", value=closed, unit="%", better="higher"),
        Result(
            case="largest difference",
            value=max(measured, told, closed) - min(measured, told, closed),
            unit="points",
            better="lower",
            bar=_BAR_POINTS,
        ),
        Result(case="mean recovery", value=restart_s, unit="s", better="lower"),
    ]


def _ledger(messages: Sequence[Message], start_s: float, end_s: float) -> Goodput:
    """Return what the kernel makes of the messages, told of one job on one node with two devices."""
    job = Job(
        id="chaos", name="chaos", command=("x",), devices=parse_devices(2), workdir="/", kind=JobKind.TRAIN
    )
    node = Node(id="n", pool="p", accelerator="cpu", devices=2, cpus=2, memory_bytes=2**30)
    scheduler = Scheduler(policy("fifo"))
    scheduler.step([NodeJoined(at_s=start_s, node=node)])
    scheduler.step([JobSubmitted(at_s=start_s, job=job)])
    scheduler.step([AttemptStarted(at_s=start_s, job_id=job.id, epoch=1)])
    ended = Outcome(cause=Cause.COMPLETED, exit_code=0)
    scheduler.step([AttemptEnded(at_s=end_s, job_id=job.id, epoch=1, outcome=ended)])
    record = scheduler.state.jobs[job.id]
    return job_goodput(scheduler.state, record, {(job.id, 1): list(messages)}, at_s=end_s)


def main() -> None:
    """Read the arguments that only this benchmark has, and leave the others to the harness."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--script", type=Path, default=agents.SCRIPT)
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    harness.main("chaos", lambda is_quick: run(is_quick, own.minutes, own.every, own.seed, own.script))


if __name__ == "__main__":
    main()
