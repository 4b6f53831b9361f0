#!/usr/bin/env python3
"""Fit the parameters of the synthetic traces to the real ones, and print them as they stand in the code.

::

    python scripts/fit_traces.py [--data DIR]       all of them
    python scripts/fit_traces.py philly             one of them

``DIR`` is a folder with ``traces`` in it (``ARTESIAN_DATA``, or ``../shared/data`` beside the repository).
How each parameter is fitted stands at the function that does it; the method is the same for all: maximum
likelihood by expectation maximisation for mixtures, plain frequencies for the rest, rounded to four digits.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src")]

from artesian.sim.traces import gavel  # noqa: E402 - found on the path above
from artesian.sim.traces.table import Row, Table  # noqa: E402

FloatArray = npt.NDArray[np.float64]

DAY_S = 86400.0
ROUNDS = 500


def log_normals(values: FloatArray, parts: int) -> list[tuple[float, float, float]]:
    """Return share, mean and standard deviation of the logarithm for each part of a log-normal mixture.

    Expectation maximisation from the quantiles of the values, by rising mean.
    """
    logs = np.log(np.maximum(values, 1.0))
    means = np.quantile(logs, (np.arange(parts) + 0.5) / parts)
    sigmas = np.full(parts, logs.std() / parts)
    shares = np.full(parts, 1 / parts)
    for _ in range(ROUNDS):
        density = np.log(shares / sigmas) - 0.5 * ((logs[:, None] - means) / sigmas) ** 2
        member = np.exp(density - np.logaddexp.reduce(density, axis=1, keepdims=True))
        count = member.sum(axis=0)
        shares = count / len(logs)
        means = (member * logs[:, None]).sum(axis=0) / count
        sigmas = np.maximum(0.05, np.sqrt((member * (logs[:, None] - means) ** 2).sum(axis=0) / count))
    order = np.argsort(means)
    mean = float((shares * np.exp(means + sigmas**2 / 2)).sum())
    say(f"# the mixture's mean is {mean:.4g}, that of the values {values.mean():.4g}")
    return [(float(shares[k]), float(means[k]), float(sigmas[k])) for k in order]


def hyper_exponential(gaps: FloatArray, phases: int) -> list[tuple[float, float]]:
    """Return share and mean (the mean of all gaps being 1) of each phase, by expectation maximisation.

    The mean over the phases is that of the gaps, as maximum likelihood has it.
    """
    scaled = gaps / gaps.mean()
    means = np.quantile(scaled[scaled > 0], (np.arange(phases) + 0.5) / phases)
    shares = np.full(phases, 1 / phases)
    say(f"# gaps: squared coefficient of variation {scaled.var():.4g}")
    for _ in range(ROUNDS):
        density = np.log(shares / means) - scaled[:, None] / means  # in logarithms: the tail is long
        member = np.exp(density - np.logaddexp.reduce(density, axis=1, keepdims=True))
        count = member.sum(axis=0)
        shares = count / len(scaled)
        means = (member * scaled[:, None]).sum(axis=0) / count
    order = np.argsort(means)
    return [(float(shares[k]), float(means[k])) for k in order]


def rhythm(times_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return how many jobs come in each hour of the day and on each day of the week, the mean being 1.

    Days are counted, not jobs: each day's hours are first divided by that day's jobs, so that one day with a
    flood of jobs does not make the rhythm. 1970-01-01 was a Thursday; weeks begin on Monday.
    """
    days = np.floor(times_s / DAY_S).astype(int)
    first = days.min()
    grid = np.zeros((days.max() - first + 1, 24))
    np.add.at(grid, (days - first, np.floor(times_s % DAY_S / 3600).astype(int)), 1)
    full = grid[1:-1]
    full = full[full.sum(axis=1) > 0]
    hours = (full / full.sum(axis=1, keepdims=True)).mean(axis=0)
    week = np.array(
        [
            np.median(grid[1:-1].sum(axis=1)[(np.arange(1, len(grid) - 1) + first + 3) % 7 == day])
            for day in range(7)
        ]
    )
    return hours / hours.mean(), week / week.mean()


def shares_of(values: Sequence[object], least: float = 0.0) -> dict[object, float]:
    """Return the share of each value, most frequent first, without those rarer than ``least``."""
    return {v: n / len(values) for v, n in Counter(values).most_common() if n / len(values) >= least}


def fit_philly(data: Path) -> None:
    """Print rhythm, gaps, gangs, teams, and durations by gang (1, 2 to 7, 8 and more).

    Gaps are taken in the time of the rhythm, in which arrivals would be even were there nothing but the
    rhythm; what is left over is bursts.
    """

    def job(row: Row) -> tuple[float, float, int, str]:
        return row.time_s("timestamp"), row.figure("duration"), row.count("num_gpus"), row.text("cluster")

    table = Table(data / "philly" / "philly.csv", required=("timestamp", "duration", "num_gpus", "cluster"))
    rows = sorted(row for _, row in table.rows(job))
    times_s = np.array([row[0] for row in rows])
    gangs = np.array([row[2] for row in rows])
    durations_s = np.array([row[1] for row in rows])
    hours, week = rhythm(times_s)
    show("hours", hours)
    show("weekdays", week)
    edges_s = np.arange(np.floor(times_s[0] / 3600), np.ceil(times_s[-1] / 3600) + 1)
    rate = hours[(edges_s % 24).astype(int)] * week[((edges_s // 24 + 3) % 7).astype(int)]
    elapsed = np.concatenate([[0.0], np.cumsum(rate[:-1])])
    gaps = np.diff(np.interp(times_s / 3600, edges_s, elapsed))
    show("gaps", hyper_exponential(np.maximum(gaps, 0.5 / 3600), 3))  # times are whole seconds
    show("gangs", shares_of(gangs.tolist()))
    show("teams", list(shares_of([row[3] for row in rows]).values()))
    for least, most in ((1, 1), (2, 7), (8, 1000)):
        chosen = durations_s[(gangs >= least) & (gangs <= most)]
        say(f"# gangs of {least} to {most}: mean {chosen.mean():.4g} s, median {np.median(chosen):.4g} s")
        say(f"# the longest {chosen.max():.4g} s")
        show(f"durations from {least}", log_normals(chosen, 4))


def fit_openb(data: Path) -> None:
    """Print the mix of shares and gangs, CPUs and memory with each device, durations, and the nodes.

    Without the pods that ask for no device. Shares are rounded to 5%; CPUs and memory are the medians of
    each class; a duration is the time from scheduling to deletion.
    """

    def pod(row: Row) -> tuple[int, int, int, float, float]:
        gang, milli = row.count("num_gpu"), row.count("gpu_milli")
        if gang == 0:
            row.pass_over("no device")
        if not (row.has("scheduled_time") and row.has("deletion_time")):
            row.pass_over("never scheduled")
        ran_s = row.figure("deletion_time") - row.figure("scheduled_time")
        asked = milli if gang == 1 and milli < 1000 else 1000 * gang
        return asked, gang, row.count("cpu_milli"), row.figure("memory_mib"), ran_s

    columns = ("num_gpu", "gpu_milli", "cpu_milli", "memory_mib", "scheduled_time", "deletion_time")
    rows = [row for _, row in Table(data / "openb" / "pods_default.csv", required=columns).rows(pod)]
    asked = [row[0] if row[0] >= 1000 else max(50, round(row[0] / 50) * 50) for row in rows]
    show("milli", shares_of(asked, 0.001))
    classes = np.array([0 if value < 1000 else value // 1000 for value in asked])
    for kind in sorted(set(classes.tolist())):
        members = [row for row, of in zip(rows, classes, strict=True) if of == kind]
        cpus = np.median([row[2] / 1000 / row[1] for row in members])
        memory_gib = np.median([row[3] / 1024 / row[1] for row in members])
        say(f"# {kind or 'a share'}: {len(members)} pods, {cpus:g} CPUs, {memory_gib:g} GiB with each")
    say(f"# the longest duration: {max(row[4] for row in rows):.4g} s")
    show("durations", log_normals(np.array([row[4] for row in rows if row[4] > 0]), 3))

    def node(row: Row) -> tuple[str, int, int, int]:
        cpus = row.count("cpu_milli", most=10**9) // 1000
        return row.text("model"), row.count("gpu"), cpus, row.count("memory_mib", most=10**9) // 1024

    nodes = Table(data / "openb" / "gpu_nodes.csv", required=("cpu_milli", "memory_mib", "gpu", "model"))
    show("nodes", shares_of([row for _, row in nodes.rows(node)], 0.004))


def fit_gavel(data: Path) -> None:
    """Print the logarithms of a job type's speed on a V100, and of how much faster that is than the others.

    Mean and standard deviation over the single-device job types.
    """
    speeds = gavel.read_throughputs(data / "gavel" / "throughputs.json")
    rates = np.array(
        [
            [speeds.steps_per_s(model, 1, name) or np.nan for name in gavel.ACCELERATORS]
            for model in speeds.models
        ]
    )
    logs = np.log(rates[~np.isnan(rates).any(axis=1)])
    say(f"# {len(logs)} of {len(rates)} job types run on all of {', '.join(gavel.ACCELERATORS)}")
    show("steps_per_s", [(float(logs[:, 0].mean()), float(logs[:, 0].std()))])
    ratios = logs[:, :1] - logs[:, 1:]
    show("speed-ups", [(float(r.mean()), float(r.std())) for r in ratios.T])
    show("correlation", [float(np.corrcoef(ratios.T)[0, 1])])


FITS: dict[str, Callable[[Path], None]] = {"philly": fit_philly, "openb": fit_openb, "gavel": fit_gavel}


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def show(name: str, values: object) -> None:
    """Print one parameter."""
    say(f"{name} = {_rounded(values)}")


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list | np.ndarray):
        return tuple(
            _rounded(entry) for entry in (value.tolist() if isinstance(value, np.ndarray) else value)
        )
    return value


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description="Fit the synthetic traces to the real ones.")
    parser.add_argument("trace", nargs="*", help=f"which of {', '.join(FITS)}; all of them without")
    default = os.environ.get("ARTESIAN_DATA") or str(ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder that has traces in it")
    args = parser.parse_args()
    if unknown := [name for name in args.trace if name not in FITS]:
        parser.error(f"expected a trace of {', '.join(FITS)}, got {unknown[0]!r}")
    for name in args.trace or FITS:
        say(f"# {name}")
        FITS[name](args.data / "traces")
    return 0


if __name__ == "__main__":
    sys.exit(main())
