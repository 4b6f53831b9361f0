"""The template touches no accelerator: a process that has, and forks, has children that cannot use it.

No accelerator is needed to see it: whatever is done on a CUDA device goes through ``torch.cuda._lazy_init``, in a build
of torch without CUDA, too. A module that all share notes who comes there.
"""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from artesian.train.standby import TORCH_MODULES
from artesian.train.template import NVML_CHECK

SPY = f"""
import os, pathlib
import torch

def note(what):
    with open(pathlib.Path(__file__).with_name("noted"), "a") as file:
        file.write(f"{{what}} {{os.getpid()}}\\n")

note("imports")
note("asks-nvml" if os.environ.get("{NVML_CHECK}") == "1" else "asks-cuda")
original = torch.cuda._lazy_init

def noted():
    note("touches")
    return original()

torch.cuda._lazy_init = noted
"""
TOUCHES = """
import contextlib
import torch

with contextlib.suppress(AssertionError, RuntimeError):  # where there is none
    torch.zeros(1, device="cuda")
"""
SCRIPT = """
import os, sys
import spy
from artesian.train import join

spy.note("works")
assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ
join()
import touches
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    sys.exit("to be forked again")
"""


@pytest.mark.parametrize("is_touched", [False, True], ids=["the template", "one that touches it"])
def test_an_accelerator_is_touched_only_after_the_fork(tmp_path: Path, is_touched: bool) -> None:
    for name, code in {"spy": SPY, "touches": TOUCHES, "script": SCRIPT}.items():
        (tmp_path / f"{name}.py").write_text(code)
    modules = ["spy", *TORCH_MODULES, *(["touches"] if is_touched else [])]
    options = ["--nproc-per-node", "2", "--max-restarts", "1", "--preload", ",".join(modules)]
    done = subprocess.run(
        [sys.executable, "-m", "artesian.train.launch", *options, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    noted = defaultdict(set)
    for line in (tmp_path / "noted").read_text().splitlines():
        what, pid = line.split()
        noted[what].add(int(pid))
    [template] = noted["imports"]
    assert noted["asks-nvml"] == {template}, "what only asks whether there is a device is not to start CUDA"
    assert template not in noted["works"]
    assert len(noted["works"]) in (3, 4), "both, and again those that had to be forked anew"
    if is_touched:
        assert noted["touches"] == {template}, "a module's code runs once"
    else:
        assert noted["touches"] <= noted["works"]
        assert len(noted["touches"]) >= 3
