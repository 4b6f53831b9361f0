"""A hundred faults of all kinds: does the training come back each time, and to the same bits?

    python benchmarks/faults.py [--count 100] [--seed 0] [--kinds kill,stop,...] [--keep FOLDER] [-o json] [--quick]

Jobs of two workers, five faults in each, every kind as often as the others: a worker is killed, crashes, raises,
leaves, is refused memory, is stopped, holds the interpreter's lock, is slow, gets a loss that is no number or a data
loader that hangs; it dies while it commits a snapshot, and in the middle of a save to storage, before each call of
the file system in turn, alone, with all of its node, or when it was told to stop; the disk is full; the newest
checkpoint is damaged and memory is lost; the store's host, the template or the helper that saves is killed; a node is
lost where there is a spare, or all of them, and the job is started anew as an engine does.

A fault is recovered from when a step comes that is new. In the end the losses of all steps, model, optimizer, and the
samples of each step must be, bit by bit, those of the same job without faults; each sample is used exactly once. What
is different, or does not end, counts for every fault of its job. Exits with 1 unless all is as it should be.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import harness
from faults_harness import KINDS, Outcome, Undisturbed, carry_out, plans
from harness import Result, measured
from processes import folder_in_memory


def run(count: int, seed: int, kinds: Sequence[str], keep: Path | None) -> Sequence[Result]:
    """Carry out the plans one after the other."""
    outcomes = []
    with folder_in_memory("faults") as folder:
        undisturbed = Undisturbed(folder)
        for number, plan in enumerate(plans(count, seed, kinds=kinds)):
            start_s = time.monotonic()
            place = folder if keep is None else keep
            outcome = carry_out(plan, place / f"job-{number}", undisturbed)
            outcomes.append(outcome)
            told = ", ".join(
                f"{order.kind} {'never' if taken_s is None else f'{taken_s:.1f} s'}"
                for order, taken_s in zip(plan.orders, outcome.recovered_s, strict=True)
            )
            where = "nodes" if plan.is_on_nodes else "node"
            harness.say(
                f"job {number} ({where}{', in process' if plan.is_resilient else ''}), "
                f"{time.monotonic() - start_s:.0f} s: {told}: {outcome.problem or 'the same to the bit'}"
            )
    return _results(outcomes)


def _results(outcomes: Sequence[Outcome]) -> list[Result]:
    count = sum(len(outcome.plan.orders) for outcome in outcomes)
    came_back = sum(taken_s is not None for outcome in outcomes for taken_s in outcome.recovered_s)
    good = [outcome for outcome in outcomes if outcome.problem is None]
    same = sum(len(outcome.plan.orders) for outcome in good if None not in outcome.recovered_s)
    by_kind: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        for order, taken_s in zip(outcome.plan.orders, outcome.recovered_s, strict=True):
            if taken_s is not None:
                by_kind[order.kind].append(taken_s)
    return [
        Result(case="faults recovered from", value=came_back, unit="faults", better="higher", bar=count),
        Result(
            case=f"of which in jobs that are the same to the bit ({len(good)} of {len(outcomes)} jobs)",
            value=same,
            unit="faults",
            better="higher",
            bar=count,
        ),
        *(
            measured(f"{kind}: fault -> first new step, {len(by_kind[kind])}", by_kind[kind], "s", "lower")
            for kind in KINDS
            if by_kind[kind]
        ),
    ]


def main() -> None:
    """Read the arguments that only this benchmark has, and leave the others to the harness."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--keep", type=Path)
    own, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    kinds = tuple(own.kinds.split(","))
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds {sorted(unknown)}; known are {', '.join(KINDS)}")
    found: list[Result] = []

    def carry_out_all(is_quick: bool) -> Sequence[Result]:
        found.extend(run(own.count or (5 if is_quick else 100), own.seed, kinds, own.keep))
        return found

    harness.main("faults", carry_out_all)
    if not all(result.is_met in (None, True) for result in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
