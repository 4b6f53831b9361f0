"""How much of a fleet each placement fills: openb, 6,212 GPUs, as FGD's authors ran it.

    python benchmarks/openb.py [--nodes F] [--pods F] [--policies A,B] [--seeds 42-51] [-o json] [--quick]

Jobs arrive in random order until they have asked for 1.3 times the fleet; nothing departs. The figure is
the share of the devices that is allocated when jobs have asked for 100% of them: the mean over the seeds.
The peer is what the authors published, the mean over ten seeds of their own simulator. ``fgd`` and
``least-waste`` are told what the list of jobs is like, as FGD's authors do; those "-learnt" see only what
runs. The trace is traces/openb in the folder ARTESIAN_DATA, or in ../shared/data beside the repository.
"""

import argparse
import csv
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import harness
from artesian.model.job import Job
from artesian.policy.base import Place
from artesian.policy.fragmentation import Gradient
from artesian.policy.mix import Mix
from artesian.policy.registry import PLACES
from artesian.policy.scored import Scored
from artesian.policy.worth import LeastWaste
from artesian.sim.inflation import inflate
from artesian.sim.traces import openb
from harness import Result

PEERS = {
    "random": "01-Random",
    "dot-product": "02-DotProd",
    "clustering": "03-GpuClustering",
    "packing": "04-GpuPacking",
    "best-fit": "05-BestFit",
    "fgd": "06-FGD",
}
FGD = "06-FGD"

CLOSE_POINTS = {"fgd": 0.3}
"""How far from the peer's mean a placement of theirs may lie here; 0.5 for the others."""

QUICK_SEEDS = 2


def placements(jobs: Sequence[Job]) -> dict[str, Callable[[], Place]]:
    """Return what is measured, by name; the mix of ``jobs`` is known to those that need one."""
    known = {name: PLACES[name] for name in PEERS if name != "fgd"}
    return {
        **known,
        "fgd": lambda: Scored(Gradient(Mix.of(jobs, covered=0.95))),
        "fgd-learnt": PLACES["fgd"],
        "least-waste": lambda: Scored(LeastWaste(Mix.of(jobs))),
        "least-waste-learnt": PLACES["least-waste"],
    }


def results_of(
    name: str, values: Sequence[float], times_s: Sequence[float], peers: dict[str, float]
) -> list[Result]:
    """Return the results of one placement: what it fills, how near that is to the peer's, and how long a seed takes."""
    quantiles = statistics.quantiles(values, n=5, method="inclusive") if len(values) > 1 else None
    mean = statistics.fmean(values)
    own = name not in PEERS
    peer = FGD if own else PEERS[name]
    results = [
        Result(
            case=name,
            value=mean,
            unit="% allocated at 100% arrived",
            better="higher",
            bar=peers.get(FGD) if name == "least-waste" else None,
            peer=f"{peer}, published" if peer in peers else None,
            peer_value=peers.get(peer),
            spread=None if quantiles is None else (quantiles[0], quantiles[-1]),
        )
    ]
    if not own and peer in peers:
        results.append(
            Result(
                case=f"{name}, away from the published mean",
                value=abs(mean - peers[peer]),
                unit="points",
                better="lower",
                bar=CLOSE_POINTS.get(name, 0.5),
            )
        )
    results.append(harness.measured(f"{name}, one seed", times_s, "s", "lower"))
    return results


def published(path: Path, load: int) -> dict[str, float]:
    """Return the published mean over the seeds for each policy at this load, in percent; {} without the file."""
    if not path.exists():
        return {}
    found: dict[str, list[float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["sc_policy"], []).append(float(row[str(load)]))
    return {policy: statistics.fmean(values) for policy, values in found.items()}


def run(
    is_quick: bool, nodes: Path, pods: Path, expected: Path, names: Sequence[str], seeds: Sequence[int]
) -> list[Result]:
    """Measure each placement on each seed."""
    fleet = openb.read_nodes(nodes).fleet
    assert fleet is not None
    jobs = openb.read_demand(pods)
    # The published curves are for one list of pods on one fleet.
    peers = (
        published(expected, 100) if pods.name == "pods_default.csv" and nodes.name == "gpu_nodes.csv" else {}
    )
    made = placements(jobs)
    results = []
    for name in names:
        place = made[name]()
        values, times_s = [], []
        for seed in seeds[:QUICK_SEEDS] if is_quick else seeds:
            begun_s = time.perf_counter()
            values.append(inflate(place, fleet.nodes, jobs, seed=seed).allocated[100])
            times_s.append(time.perf_counter() - begun_s)
        harness.say(f"{name}: {statistics.fmean(values):.2f}")
        results += results_of(name, values, times_s, peers)
    return results


def main() -> None:
    """Read the arguments that only this benchmark has, and leave the others to the harness."""
    root = Path(__file__).resolve().parent.parent
    data = Path(os.environ.get("ARTESIAN_DATA") or root.parent / "shared" / "data") / "traces" / "openb"
    known = list(placements(()))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--nodes", type=Path, default=data / "gpu_nodes.csv")
    parser.add_argument("--pods", type=Path, default=data / "pods_default.csv")
    parser.add_argument("--policies", type=lambda text: text.split(","), default=known)
    parser.add_argument("--seeds", default="42-51")
    own, rest = parser.parse_known_args()
    unknown = [name for name in own.policies if name not in known]
    if unknown:
        parser.error(f"no placement {unknown[0]!r}; there are: {', '.join(known)}")
    first, _, last = own.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    sys.argv[1:] = rest
    harness.main(
        "openb",
        lambda is_quick: run(
            is_quick, own.nodes, own.pods, data / "expected_alloc_default.csv", own.policies, seeds
        ),
    )


if __name__ == "__main__":
    main()
