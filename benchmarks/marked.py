"""Runs the training script that it is given, and notes when a fault is injected into it: for benchmarks/recovery.py."""

import os
import runpy
import sys
import time

import artesian.train.run
from artesian.train.injection import inject
from artesian.wire.faults import FaultKind

_MARK = os.environ["RECOVERY_MARK"]


def _inject(kind: FaultKind, step: int) -> None:
    with open(_MARK + ".part", "w") as file:
        file.write(str(time.time()))
    os.rename(_MARK + ".part", _MARK)
    inject(kind, step)


if __name__ == "__main__":
    if os.path.exists(_MARK):
        os.environ["ARTESIAN_FAULTS"] = "[]"  # it has happened; torchrun's workers cannot know by themselves
    artesian.train.run.inject = _inject  # type: ignore[attr-defined]  # where Run calls it
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
