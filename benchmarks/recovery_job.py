"""The training script of benchmarks/recovery.py: a tiny model whose step takes 50 ms."""

import os
import time

import torch
from torch.nn.parallel import DistributedDataParallel

from artesian.train import Run, join, resilient
from tiny_training import GLOBAL_BATCH, STEP_S, Samples, tiny_model

_STEPS = int(os.environ.get("RECOVERY_STEPS", "4000"))


def main() -> None:
    """Train until somebody ends it."""
    torch.manual_seed(1)
    member = join()
    model = DistributedDataParallel(tiny_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Run.from_env(model=model, optimizer=optimizer, member=member) as run:
        for batch in run.batches(Samples(), global_batch=GLOBAL_BATCH, steps=_STEPS):
            loss = (model(batch) - 1).square().mean()
            loss.backward()
            time.sleep(STEP_S)
            run.commit(loss)


if os.environ.get("RECOVERY_RESILIENT"):
    resilient(main)()
else:
    main()
