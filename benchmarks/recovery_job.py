"""The training script of benchmarks/recovery.py: a tiny model whose step takes 50 ms."""

import os
import time

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from artesian.train import Run, join, resilient

_STEP_S = 0.05
_STEPS = int(os.environ.get("RECOVERY_STEPS", "4000"))


class Samples:
    """As many samples as are asked for, each of its own number."""

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((16,), index % 13 / 13)


def main() -> None:
    """Train until somebody ends it."""
    torch.manual_seed(1)
    member = join()
    layers = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    model = DistributedDataParallel(layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Run.from_env(model=model, optimizer=optimizer, member=member) as run:
        for batch in run.batches(Samples(), global_batch=8, steps=_STEPS):
            loss = (model(batch) - 1).square().mean()
            loss.backward()
            time.sleep(_STEP_S)
            run.commit(loss)


if os.environ.get("RECOVERY_RESILIENT"):
    resilient(main)()
else:
    main()
