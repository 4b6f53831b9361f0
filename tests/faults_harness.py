"""Training jobs that go wrong in every way there is on one machine, and what has to be true in the end.

A ``Plan`` is one job of two workers with some faults in it, the same for the same seed. ``carry_out`` runs it and
tells of each fault whether new steps came after it, and of the job whether its losses, its state and its samples
are, bit by bit, those of the job that nothing happened to.
"""

import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from faults_driver import Driver
from faults_orders import BATCH

WORKERS = 2
_FIRST, _APART, _AFTER = 22, 15, 25
"""Steps before the first fault (two checkpoints), between two faults, and after the last."""
_EVERY = 8

IN_WORKER = (
    "kill",
    "segfault",
    "abort",
    "exception",
    "exit",
    "memory",
    "stop",
    "gil",
    "nan",
    "slow",
    "loader",
    "torn-memory",
)
"""What a worker does to itself; ``memory``: it is refused memory; ``torn-memory``: dies while it commits a snapshot."""
OF_SAVES = ("torn-storage", "torn-node", "torn-stop", "full", "corrupt")
"""Death in mid-save of the worker, of the whole node, of a job that was told to stop; a full disk; a newest
checkpoint that is damaged when memory is lost, too."""
OF_PARTS = ("store", "template", "helper", "stop-job", "lost")
"""The store's host, the template, the helper that saves; a job that is told to stop and goes on; all of the node."""
OF_NODES = ("node",)
"""A node of two, with a spare there."""
OUTSIDE = ("torn-stop", "full", "corrupt", *OF_PARTS, *OF_NODES)
KINDS = (*IN_WORKER, *OF_SAVES, *OF_PARTS, *OF_NODES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One fault: when, where, and on which side of the worker it is made."""

    number: int
    kind: str
    step: int
    rank: int
    place: str
    is_outside: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One job: on one node, or on two with a spare; with survivors that stay in their process, or without."""

    orders: tuple[Order, ...]
    is_on_nodes: bool
    is_resilient: bool

    @property
    def steps(self) -> int:
        return max((order.step for order in self.orders), default=_FIRST) + _AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a plan. ``recovered_s`` is the time from each fault to the first step that was new: None, never.

    ``problem`` says what differs from the job that nothing happened to, or why it did not end; None: nothing.
    """

    plan: Plan
    recovered_s: tuple[float | None, ...]
    problem: str | None


def plans(count: int, seed: int, *, per_job: int = 5, kinds: Sequence[str] = KINDS) -> list[Plan]:
    """Return jobs with ``count`` faults in all: every kind as often as the others, in a random order."""
    chance = random.Random(seed)
    deck = [kinds[at % len(kinds)] for at in range(count)]
    chance.shuffle(deck)
    found = []
    while deck:
        is_on_nodes = any(kind in OF_NODES for kind in deck) and (
            chance.random() < 0.25 or all(kind in OF_NODES for kind in deck)
        )
        fitting = [kind for kind in deck if kind in (IN_WORKER + OF_NODES if is_on_nodes else KINDS)]
        if not is_on_nodes:
            fitting = [kind for kind in fitting if kind not in OF_NODES]
        chosen = fitting[:per_job]
        if is_on_nodes:  # one at least that only such a job can have
            chosen = [OF_NODES[0], *[kind for kind in chosen if kind not in OF_NODES][: per_job - 1]]
            chance.shuffle(chosen)
        for kind in chosen:
            deck.remove(kind)
        found.append(
            Plan(
                orders=tuple(_order(number, kind, chance) for number, kind in enumerate(chosen)),
                is_on_nodes=is_on_nodes,
                is_resilient=chance.random() < 0.7,
            )
        )
    return found


def _order(number: int, kind: str, chance: random.Random) -> Order:
    return Order(
        number=number,
        kind=kind,
        step=_FIRST + number * _APART + chance.randrange(5),
        rank=chance.randrange(WORKERS),
        place=chance.choice(("forward", "backward", "commit")),
        is_outside=kind in OUTSIDE,
    )


@dataclass(frozen=True, slots=True)
class Trace:
    """What a job has done: the loss that counts by rank and step, the samples by step, each rank's final state."""

    losses: Mapping[tuple[int, int], float | None]
    samples: Mapping[str, frozenset[str]]
    digests: tuple[str, ...]


class Undisturbed:
    """The jobs that nothing happened to: one for each length and choice of samples that are no numbers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[int, tuple[Order, ...]], Trace] = {}

    def of(self, plan: Plan) -> Trace:
        """Return what ``plan`` comes to without its faults. A sample that is no number is part of the data."""
        spoiled = tuple(order for order in plan.orders if order.kind == "nan")
        key = (plan.steps, tuple(sorted(spoiled, key=lambda order: order.step)))
        if key not in self._known:
            folder = self._folder / f"undisturbed-{len(self._known)}"
            driver = _driver(plan, key[1], folder, step_s=0.0)
            with driver.running():
                driver.wait()
            if driver.problem is not None:
                raise RuntimeError(f"the undisturbed job did not end well: {driver.problem}")
            self._known[key] = _trace(driver)
        return self._known[key]


def carry_out(plan: Plan, folder: Path, undisturbed: Undisturbed, *, step_s: float = 0.03) -> Outcome:
    """Run a plan to its end, and compare."""
    expected = undisturbed.of(plan)
    driver = _driver(plan, plan.orders, folder, step_s=step_s)
    with driver.running():
        driver.drive(plan.orders, is_on_nodes=plan.is_on_nodes)
    recovered = tuple(driver.recovered_s(order.number) for order in plan.orders)
    problem = driver.problem or _difference(_trace(driver), expected, plan.steps)
    return Outcome(plan=plan, recovered_s=recovered, problem=problem)


def _driver(plan: Plan, orders: Sequence[Order], folder: Path, *, step_s: float) -> Driver:
    notes = folder / "orders"
    notes.mkdir(parents=True)
    told = {"steps": plan.steps, "orders": [asdict(order) for order in orders]}
    (notes / "orders.json").write_text(json.dumps(told))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ARTESIAN_")}
    here = Path(__file__).parent
    env = {
        **clean,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(here / "saboteur"), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "ARTESIAN_CHECKPOINT_DIR": str(folder / "checkpoints"),
        "ARTESIAN_CHECKPOINT_EVERY": str(_EVERY),
        "ARTESIAN_PROGRESS_DIR": str(folder / "progress"),
        "FAULTS_ORDERS": str(notes),
        "FAULTS_STEP_S": str(step_s),
        # Every step where a snapshot is to be torn, else as often as costs little.
        "FAULTS_MEMORY_EVERY": "1" if any(order.kind == "torn-memory" for order in orders) else "",
    }
    script = [str(here / "faults_job.py"), *(["--resilient"] if plan.is_resilient else [])]
    launch = [sys.executable, "-m", "artesian.train.launch", "--max-restarts", "100"]
    return Driver(folder, env, launch, script, nodes=WORKERS if plan.is_on_nodes and orders else 1)


def _trace(driver: Driver) -> Trace:
    notes = driver.orders
    samples: dict[str, set[str]] = {}
    for path in notes.glob("rank-*.txt"):
        # Each rank as it trained on the step for the last time: the others were not committed, or left behind.
        for step, told in dict(line.split(" ", 1) for line in path.read_text().splitlines()).items():
            samples.setdefault(step, set()).update(told.split())
    return Trace(
        losses=driver.losses(),
        samples={step: frozenset(found) for step, found in samples.items()},
        digests=tuple(
            path.read_text() if (path := notes / f"rank-{rank}.digest").exists() else "none"
            for rank in range(WORKERS)
        ),
    )


def _difference(found: Trace, expected: Trace, steps: int) -> str | None:
    """Return what of ``found`` is not as it would have been without the faults; None: nothing."""
    counted = [sample for samples in found.samples.values() for sample in samples]
    if len(counted) != len(set(counted)) or len(counted) != steps * BATCH:
        return (
            f"{len(counted)} samples were committed, {len(set(counted))} different ones, of {steps * BATCH}"
        )
    if found.samples != expected.samples:
        return "other samples were committed"
    if found.digests != expected.digests:
        return f"the final state is another one: {found.digests}, and not {expected.digests}"
    if {step for _, step in found.losses} != set(range(1, steps + 1)):
        return "not every step was told"
    others = {key for key, loss in found.losses.items() if loss != expected.losses.get(key)}
    return f"other losses were told: {sorted(others)[:5]}" if others else None
