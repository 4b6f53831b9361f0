"""On the node: ``python -I -m artesian.engines.slurm.batch FOLDER``, the whole of the batch script.

It becomes the supervisor of the attempt in FOLDER, with the attempt's own environment in place of
Slurm's, and ends with the command's own exit code, so that Slurm's accounting has it, too.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artesian.engines.local import supervisor
from artesian.wire import environment as names

ATTEMPT_FILE = "attempt.json"
RUNS_AS_FILE = "slurm.json"
"""The Slurm job that runs the attempt; made by ``link``, so that of several jobs one goes on."""

_DEVICES_OF_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_KEPT = (
    "CUDA_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "SLURMD_NODENAME",
    "SLURM_CLUSTER_NAME",
    "SLURM_CONF",
    "SLURM_CPUS_ON_NODE",
    "TMPDIR",
)
_KEPT_PREFIX = "SLURM_JOB_"


def main(folder: str) -> int:
    """Run the attempt, and return the exit code of its command; 0 where another Slurm job runs it."""
    attempt = read_attempt(folder)
    if not _is_ours(folder, os.environ["SLURM_JOB_ID"]):
        return 0
    is_gang, command = bool(attempt["workers"]), list(attempt["command"])
    if is_gang:
        srun, scancel = (shutil.which(name) or name for name in ("srun", "scancel"))
        command = [sys.executable, "-I", "-m", "artesian.engines.slurm.gang", "all", folder, srun, scancel]
    # A command of its own may call srun, which reads everything; torchrun's readers take SLURM_NTASKS amiss.
    needs_slurm = is_gang or int(attempt["env"][names.WORKERS]) == 0
    env = environment_of(attempt, os.environ, is_whole=needs_slurm)
    os.environ.clear()
    os.environ.update(env)
    supervisor.main(folder, attempt["workdir"], attempt["grace_s"], command)
    return _exit_code(folder)


def read_attempt(folder: str) -> dict[str, Any]:
    """Return what the control plane wrote down for the nodes."""
    attempt: dict[str, Any] = json.loads(Path(folder, ATTEMPT_FILE).read_bytes())
    return attempt


def environment_of(attempt: Mapping[str, Any], slurm: Mapping[str, str], *, is_whole: bool) -> dict[str, str]:
    """Return the attempt's environment on this node: the job's own, and what only Slurm knows.

    Which devices those are is Slurm's choice. ``is_whole`` keeps all of Slurm's variables.
    """
    env = {
        name: value
        for name, value in slurm.items()
        if name in _KEPT or name.startswith("SLURM_" if is_whole else _KEPT_PREFIX)
    }
    cpus, workers = int(slurm.get("SLURM_CPUS_ON_NODE", 1)), int(attempt["env"][names.WORKERS])
    # The job's own CPUs and no more: numerical libraries would start a thread on each of the node's.
    env["OMP_NUM_THREADS"] = str(max(1, cpus // max(1, workers)))
    granted = next((slurm[name] for name in _DEVICES_OF_SLURM if name in slurm), None)
    return {**env, **attempt["env"], **({} if granted is None else {names.DEVICES: granted})}


def _is_ours(folder: str, slurm_id: str) -> bool:
    """Whether this Slurm job is the one that runs the attempt: a submit may have been repeated."""
    path, private = Path(folder, RUNS_AS_FILE), Path(folder, f"{RUNS_AS_FILE}.{slurm_id}")
    private.write_text(json.dumps({"slurm_id": int(slurm_id), "node": os.environ.get("SLURMD_NODENAME")}))
    try:
        os.link(private, path)
    except FileExistsError:
        return bool(json.loads(path.read_bytes())["slurm_id"] == int(slurm_id))
    finally:
        private.unlink()
    return True


def _exit_code(folder: str) -> int:
    try:
        ended = json.loads(Path(folder, supervisor.ENDED).read_bytes())
    except (OSError, ValueError):
        return 0  # fenced: the attempt was stopped before it began
    if ended.get("start_error") is not None:
        return 127
    code = ended["exit_code"]
    return int(code) if code is not None else 128 + int(ended["signal"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
