"""Goodput at Llama 3's failure rate: the closed form beside a Monte Carlo of the same process.

    python benchmarks/goodput.py [-o json] [--quick]

The rate is 419 unexpected interruptions in 54 days on 16,384 GPUs. Both figures are simulated, in the sense that no
device was used. The bar of a difference is what chance alone exceeds once in 370 times.
"""

import time

import harness
from artesian.formulas.goodput import best_goodput, exact_interval_s, mttf_s
from artesian.sim.goodput import simulate_goodput
from harness import Result

PER_NODE_DAY = 419 / 54 / (16_384 / 8)
CASES = (
    (16_384, 60.0, 1.0),
    (16_384, 10.0, 0.05),
    (100_000, 30.0, 0.25),
    (100_000, 10.0, 0.05),
    (100_000, 2.0, 0.02),
)
"""Devices, recovery and stall in seconds."""
FAILURES_PER_RUN, RUNS, QUICK_RUNS = 300, 2000, 100
MOST_ERRORS = 3.0
"""Standard errors between the two."""


def run(is_quick: bool) -> list[Result]:
    """Compare the two for each case at its best interval."""
    results = []
    times_s = []
    for seed, (devices, recovery_s, stall_s) in enumerate(CASES):
        mttf = mttf_s(devices // 8, PER_NODE_DAY)
        closed = best_goodput(stall_s, recovery_s, mttf)
        start_s = time.perf_counter()
        found = simulate_goodput(
            interval_s=exact_interval_s(stall_s, mttf),
            stall_s=stall_s,
            restart_s=recovery_s,
            mttf_s=mttf,
            failures_per_run=FAILURES_PER_RUN,
            runs=QUICK_RUNS if is_quick else RUNS,
            seed=seed,
        )
        times_s.append(time.perf_counter() - start_s)
        assert found.standard_error is not None
        case = f"{devices:,} GPUs, recovery {recovery_s:g} s, stall {stall_s:g} s"
        results += [
            Result(
                case=f"{case}: simulated goodput, closed form",
                value=100 * closed,
                unit="%",
                better="higher",
                peer="Monte Carlo",
                peer_value=100 * found.goodput,
            ),
            Result(
                case=f"{case}: apart",
                value=abs(found.goodput - closed) / found.standard_error,
                unit="standard errors",
                better="lower",
                bar=MOST_ERRORS,
            ),
        ]
    return [*results, harness.measured("Monte Carlo, one case", times_s, "s", "lower")]


if __name__ == "__main__":
    harness.main("goodput", run)
