"""Estimates for jobs that have none: what their users might have said."""

import math

import numpy as np
from msgspec.structs import replace

from artesian.kernel.collector import collector_paused
from artesian.sim.traces.trace import Trace


def with_estimates(trace: Trace, *, error: float, seed: int) -> Trace:
    """Return the trace with an estimated duration for every job: the true one times a log-normal error.

    ``error`` is the standard deviation of its logarithm: 0 gives the truth, 0.7 estimates that are off by a
    factor of two as often as not. The same seed gives the same estimates. Estimates that the trace has are
    written over. Raises ValueError unless error is finite and at least 0.
    """
    if not 0 <= error < math.inf:
        raise ValueError(f"estimates: expected an error of at least 0, got {error}")
    factors = np.exp(error * np.random.default_rng(seed).standard_normal(len(trace.jobs))).tolist()
    with collector_paused():
        jobs = [
            replace(entry, job=replace(entry.job, estimated_duration_s=entry.duration_s * factor))
            for entry, factor in zip(trace.jobs, factors, strict=True)
        ]
    note = f"estimated durations are made up: the true ones, with a log-normal error of {error:g}"
    return replace(trace, jobs=tuple(jobs), notes=(*trace.notes, note))
