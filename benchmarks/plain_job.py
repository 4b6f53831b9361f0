"""What recovery_job.py does, as a loop without artesian: what benchmarks/overhead.py measures against.

It writes the ends of its steps, seconds since the epoch, to the file ``$PLAIN_STEPS_FILE`` when it has made
``$PLAIN_STEPS`` of them, and trains on.
"""

import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from tiny_training import GLOBAL_BATCH, STEP_S, Samples, tiny_model


def main() -> None:
    """Train until somebody ends it."""
    torch.manual_seed(1)
    dist.init_process_group("gloo")
    model = DistributedDataParallel(tiny_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    samples = Samples()
    loader: DataLoader[torch.Tensor] = DataLoader(
        samples,  # type: ignore[arg-type]  # it has what a dataset needs
        batch_size=GLOBAL_BATCH // dist.get_world_size(),
        sampler=DistributedSampler(samples),  # type: ignore[arg-type]
    )
    ends_s: list[float] = []
    for batch in loader:
        loss = (model(batch) - 1).square().mean()
        loss.backward()
        time.sleep(STEP_S)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        ends_s.append(time.time())
        if len(ends_s) == int(os.environ["PLAIN_STEPS"]) and dist.get_rank() == 0:
            whole = Path(os.environ["PLAIN_STEPS_FILE"])
            private = whole.with_suffix(".part")
            private.write_text(json.dumps(ends_s))
            private.rename(whole)


if __name__ == "__main__":
    main()
