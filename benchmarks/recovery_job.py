"""The training script of benchmarks/recovery.py: a tiny model whose step takes 50 ms."""

import os
import time

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from artesian.train import Run, join, resilient
from artesian.wire.faults import decode_faults

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
    mark = os.environ["RECOVERY_MARK"]
    if os.path.exists(mark):
        os.environ["ARTESIAN_FAULTS"] = "[]"  # it has happened; torchrun's workers cannot know by themselves
    fault_at = [
        fault.step for fault in decode_faults(os.environ["ARTESIAN_FAULTS"]) if fault.worker == member.rank
    ]
    with Run.from_env(model=model, optimizer=optimizer, member=member) as run:
        for batch in run.batches(Samples(), global_batch=8, steps=_STEPS):
            loss = (model(batch) - 1).square().mean()
            loss.backward()
            time.sleep(_STEP_S)
            if run.step + 1 in fault_at:
                with open(mark + ".part", "w") as file:
                    file.write(str(time.time()))
                os.rename(mark + ".part", mark)
            run.commit(loss)


if os.environ.get("RECOVERY_RESILIENT"):
    resilient(main)()
else:
    main()
