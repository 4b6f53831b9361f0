"""Votes of two ranks over gloo, and that a rank may leave right after one."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
import torch.distributed as dist
from artesian.train.vote import Vote

store, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
votes = Vote(dist.group.WORLD, dist.ReduceOp.MAX, 2)
assert votes.settle() is None
assert votes.hold(rank, -rank) == (1, 0)
assert votes.hold(-5, 2**62) == (-5, 2**62)
votes.start(rank, 3)
# A thread of gloo's that wants the interpreter's lock from here on gets it when Python is finalised,
# and not before: that has killed workers which had done all their work.
sys.setswitchinterval(1000)
assert votes.settle() == (1, 3)
sum(range(3_000_000))
"""


def test_a_rank_may_leave_right_after_a_vote(tmp_path: Path) -> None:
    script = tmp_path / "vote.py"
    script.write_text(SCRIPT)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "store"), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
