"""The training script that ``faults_harness`` disturbs: it does to itself what it is ordered to, each thing once.

``FAULTS_ORDERS`` names a folder with ``orders.json``. A fault that the worker is to make itself comes at its place
in its step; of one that is made from outside it says when it is due, and waits for it some steps later, so that
no run ends before its faults.
"""

import ctypes
import hashlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from artesian.train import Run, join, resilient, segment
from artesian.train.guards import Policy
from artesian.train.injection import inject
from artesian.wire.faults import FaultKind
from faults_orders import BATCH, begins, tear

_FOLDER = Path(os.environ["FAULTS_ORDERS"])
_STEP_S = float(os.environ.get("FAULTS_STEP_S", "0"))
_MEMORY_EVERY = int(os.environ.get("FAULTS_MEMORY_EVERY") or 0) or None
_SLACK = 10
"""Steps that a fault from outside may be late."""


class Samples:
    """Samples that know their number. One that is asked for while ``hang`` is there never comes."""

    def __len__(self) -> int:
        return 1 << 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        for hang in _FOLDER.glob("hang-*"):
            if begins(_FOLDER, int(hang.name.removeprefix("hang-"))):
                time.sleep(10**6)
        return {"index": torch.tensor(index), "x": torch.full((16,), index % 13 / 13)}


class Orders:
    """What goes wrong with this worker, and when."""

    def __init__(self, rank: int) -> None:
        told = json.loads((_FOLDER / "orders.json").read_text())
        self._rank = rank
        self.steps = int(told["steps"])
        self._mine = [order for order in told["orders"] if order["rank"] == rank]
        self._outside = [order for order in told["orders"] if order["is_outside"]] if rank == 0 else []
        self.spoiled = {int(order["step"]) * BATCH for order in self._mine if order["kind"] == "nan"}

    def come(self, place: str, step: int) -> None:
        """Do what is due at this place of this step."""
        for order in self._mine:
            if (order["step"], order["place"]) == (step, place) and not order["is_outside"]:
                _act(order["kind"], order["number"], step)
        if place == "forward":
            self._call_for_outside(step)

    def is_spoiled(self, taken: Any) -> bool:
        """Say whether the global batch has a sample on whose account this rank's loss is no number."""
        for at in self.spoiled:
            if any(at in positions for positions in taken.ranges):
                begins(_FOLDER, next(order["number"] for order in self._mine if order["step"] * BATCH == at))
                return True
        return False

    def _call_for_outside(self, step: int) -> None:
        for order in self._outside:
            if step >= order["step"]:
                (_FOLDER / f"{order['number']}.due").touch()
            while step >= order["step"] + _SLACK and not (_FOLDER / f"{order['number']}.over").exists():
                time.sleep(0.02)


def _act(kind: str, number: int, step: int) -> None:
    match kind:
        case "nan":
            return
        case "slow":
            begins(_FOLDER, number)
            time.sleep(0.3)
        case "loader":
            (_FOLDER / f"hang-{number}").touch()
        case "torn-storage" | "torn-node":
            if not (_FOLDER / f"{number}.begun").exists():
                tear(_FOLDER, number, takes="worker" if kind == "torn-storage" else "node")
        case _:
            if begins(_FOLDER, number):
                _end(kind, number, step)


def _end(kind: str, number: int, step: int) -> None:
    match kind:
        case "exit":
            os._exit(9)
        case "abort":
            os.abort()
        case "memory":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(
                resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), resource.RLIM_INFINITY)
            )
            torch.empty(8 << 30, dtype=torch.uint8)
        case "torn-memory":
            _die_in(segment.Buffer, "commit" if number % 2 else "try_open", is_after=bool(number % 3))
        case _:
            inject(FaultKind(kind), step)


def _die_in(owner: type, name: str, *, is_after: bool) -> None:
    """Die in the next call of a method, before or after it has done its work."""
    real = getattr(owner, name)

    def last(*args: Any) -> None:
        if is_after:
            real(*args)
        inject(FaultKind.KILL, 0)

    setattr(owner, name, last)


def digest(*parts: Any) -> str:
    """Return a checksum of every bit of what is to be the same."""
    found = hashlib.sha256()

    def add(part: Any) -> None:
        match part:
            case Tensor():
                data = part.detach().contiguous()
                found.update(ctypes.string_at(data.data_ptr(), data.nbytes))
            case dict():
                for key in sorted(part, key=str):
                    found.update(str(key).encode())
                    add(part[key])
            case list() | tuple():
                for each in part:
                    add(each)
            case _:
                found.update(repr(part).encode())

    add(parts)
    return found.hexdigest()


def main() -> None:
    """Train to the end, whatever happens."""
    torch.manual_seed(1)
    member = join()
    layers = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    model = DistributedDataParallel(layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    orders = Orders(member.rank)
    with (
        (_FOLDER / f"rank-{member.rank}.txt").open("a", buffering=1) as seen,
        Run.from_env(
            model=model, optimizer=optimizer, member=member, memory_every=_MEMORY_EVERY, guard=Policy()
        ) as run,
    ):
        for batch in run.batches(Samples(), global_batch=BATCH, steps=orders.steps, ahead=2):
            step = run.step + 1
            orders.come("forward", step)
            loss = (model(batch["x"]) - 1).square().mean()
            assert run.batch is not None
            if orders.is_spoiled(run.batch.taken):
                loss = loss * float("nan")
            time.sleep(_STEP_S / 2)
            orders.come("backward", step)
            loss.backward()
            time.sleep(_STEP_S / 2)
            print(step, *batch["index"].tolist(), file=seen)
            orders.come("commit", step)
            run.commit(loss)
        end = digest(layers.state_dict(), optimizer.state_dict(), run.step, run.position)
        (_FOLDER / f"rank-{member.rank}.digest").write_text(end)


if __name__ == "__main__":
    if "--resilient" in sys.argv:
        main = resilient(main)
    main()
