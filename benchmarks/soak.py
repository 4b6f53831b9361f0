"""A soak: random submits, cancels, deaths of nodes and of leaders, on a real Slurm. Is any job lost, or run twice?

    python benchmarks/soak.py [--minutes 60] [--seed 0] [--nodes 64] [-o json] [--quick]

The nodes are emulated on this machine; the daemons are Slurm's own. Three replicas share a PostgreSQL, jobs come
in through the API. What happens follows from the seed (``soak_plan.py``): nodes die with all that runs on them and
come back, leaders are killed or stand still for longer than their lease, Slurm's controller is away for a while.

At the end every accepted job must have run to the end that its command has, or been cancelled because somebody
asked; no attempt may have started twice, or beside another of its job; nothing may be left. What the processes
hold must not grow. Violations are told on stderr, and the exit code is 1. ``--quick`` takes 40 s and 16 nodes.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import harness
from harness import Result
from soak_arena import DEVICES, Arena, arena
from soak_checks import Verdict, check, replayed
from soak_leaks import Life
from soak_plan import plan

_LOOK_S = 1.0
_SAY_S = 60.0
_DRAIN_S = 300.0
"""How long the last jobs may take to be over when nothing more happens to them."""
_RSS_BAR_MB_PER_HOUR = 30.0
_SETTLED_S = 900.0
"""A process that lived for less tells nothing about its growth."""


def run(span_s: float, seed: int, nodes: int) -> tuple[Sequence[Result], Verdict]:
    """Let it all happen, and judge."""
    with arena(nodes) as ground:
        before = ground.connections()
        harness.say(f"soaking for {span_s / 60:g} minutes, seed {seed}")
        try:
            _soak(ground, span_s, seed)
            _drain(ground)
        except BaseException:
            harness.say(ground.replicas.logs()[-20_000:])
            raise
        ground.refresh()
        state, cancelled = replayed(ground.replicas.journal.read())
        left = [*ground.left(), *ground.dead(), *ground.refused]
        verdict = check(ground.submitted, state, cancelled, ground.witness, ground.outages, left)
        ground.replicas.journal.verify()
        for violation in verdict.all:
            harness.say(f"VIOLATION: {violation}")
        if verdict.all:
            _keep_logs(ground)
        return [*_counts(ground, verdict), *_growth(ground, before)], verdict


def _soak(ground: Arena, span_s: float, seed: int) -> None:
    acts = list(plan(seed, span_s, DEVICES))
    begun_s = said_s = time.monotonic()
    while acts or time.monotonic() - begun_s < span_s:
        now_s = time.monotonic()
        while acts and begun_s + acts[0].at_s <= now_s:
            ground.carry_out(acts.pop(0))
        next_s = min(_LOOK_S, begun_s + acts[0].at_s - time.monotonic() if acts else _LOOK_S)
        due_s = ground.make_good()
        ground.refresh()
        time.sleep(max(0.0, next_s if due_s is None else min(next_s, due_s)))
        if now_s - said_s >= _SAY_S:
            said_s = now_s
            _say(ground, now_s - begun_s)


def _drain(ground: Arena) -> None:
    """Let all that was done be made good, and wait until every job is over, or too much time has passed."""
    deadline_s = time.monotonic() + _DRAIN_S
    while ground.make_good() is not None or ground.unfinished:
        if time.monotonic() > deadline_s:
            return  # the check tells which
        ground.refresh()
        time.sleep(0.2)
    time.sleep(3.0)  # what Slurm has to clean up behind a job that is over for us
    ground.refresh()


def _say(ground: Arena, elapsed_s: float) -> None:
    states = Counter(job.state.value for job in ground.view.state().jobs.values())
    done = ", ".join(f"{count} {name}" for name, count in sorted(states.items()))
    acts = ", ".join(f"{count} {name}" for name, count in ground.counts.items())
    rss = ", ".join(f"{life.samples[-1].rss_bytes / 1e6:.0f}" for life in _living(ground) if life.samples)
    overlaps = len(ground.witness.overlaps())
    twice = sum(times > 1 for times in ground.witness.starts().values())
    harness.say(
        f"{elapsed_s / 60:.0f} min: {len(ground.submitted)} jobs: {done}; {acts}; RSS {rss} MB; "
        f"{overlaps + twice} ran twice, {len(ground.dead())} processes died by themselves"
    )


def _living(ground: Arena) -> list[Life]:
    return [life for life in ground.lives if Path(f"/proc/{life.pid}").exists()]


def _counts(ground: Arena, verdict: Verdict) -> list[Result]:
    jobs = ground.view.state().jobs.values()
    states = Counter(job.state.value for job in jobs)
    attempts = sum(len(job.attempts) for job in jobs)
    told = [("jobs", len(jobs)), ("attempts", attempts), *sorted(states.items()), *ground.counts.items()]
    judged = [
        ("jobs lost", verdict.lost),
        ("attempts that ran twice, or two at once", verdict.twice),
        ("ends or causes that are wrong", verdict.wrong),
        ("things left over, requests refused", verdict.left),
    ]
    return [
        *(
            Result(case=name, value=float(len(found)), unit="", better="lower", bar=0.0)
            for name, found in judged
        ),
        *(Result(case=name, value=float(count), unit="", better="higher") for name, count in told),
    ]


def _growth(ground: Arena, connections_before: int) -> list[Result]:
    """Return how the API server grew, and the replica that led longest while it led."""
    api, *replicas = ground.lives
    longest = max(replicas, key=lambda life: life.span_s if any(s.is_leading for s in life.samples) else 0.0)
    results = []
    for what, life in (("API server", api), ("leader that led longest", longest)):
        if life.span_s < _SETTLED_S:
            continue
        minutes = life.span_s / 60
        growth = life.growth_per_hour()
        case = f"{what}, {minutes:.0f} min"
        results += [
            Result(case=f"{case}: RSS", value=life.settled[-1].rss_bytes / 1e6, unit="MB", better="lower"),
            Result(
                case=f"{case}: RSS grows",
                value=growth["rss_mb"],
                unit="MB/h",
                better="lower",
                bar=_RSS_BAR_MB_PER_HOUR,
            ),
            Result(
                case=f"{case}: open files gained",
                value=life.gained("files"),
                unit="",
                better="lower",
                bar=2.0,
            ),
            Result(
                case=f"{case}: threads gained", value=life.gained("threads"), unit="", better="lower", bar=2.0
            ),
        ]
    gained = float(ground.connections() - connections_before)
    return [
        *results,
        Result(case="connections to the database gained", value=gained, unit="", better="lower", bar=0.0),
    ]


def _keep_logs(ground: Arena) -> None:
    """Copy what tells why into a folder that stays."""
    kept = Path(tempfile.mkdtemp(prefix="artesian-soak-violated-"))
    for path in [*ground.replicas.folder.glob("*.log"), *(ground.cluster.folder / "log").glob("*")]:
        shutil.copy(path, kept)
    shutil.copytree(ground.replicas.folder / "state" / "jobs", kept / "jobs", symlinks=True)
    harness.say(f"the logs are in {kept}")


def main() -> None:
    """Read the arguments that only this benchmark has, and leave the others to the harness."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=64)
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    signal.signal(signal.SIGTERM, _end)
    verdicts: list[Verdict] = []

    def measure(is_quick: bool) -> Sequence[Result]:
        span_s, nodes = (40.0, 16) if is_quick else (own.minutes * 60, own.nodes)
        results, verdict = run(span_s, own.seed, nodes)
        verdicts.append(verdict)
        return results

    harness.main("soak", measure)
    sys.exit(1 if any(verdict.all for verdict in verdicts) else 0)


def _end(number: int, frame: FrameType | None) -> None:
    """End in order: the blocks that are left clean up."""
    del number, frame
    sys.exit(143)


if __name__ == "__main__":
    main()
