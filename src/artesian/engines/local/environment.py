"""What the processes of an attempt get to see, and the command line that starts them.

``attempt_environment`` and ``command_line`` hold for every engine that starts processes on nodes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from artesian.engines.base import HostNode
from artesian.engines.local.records import AttemptFolder
from artesian.model.job import Cause, Job
from artesian.model.placement import NodeShare
from artesian.model.resources import CPU
from artesian.wire import environment as names
from artesian.wire.faults import encode_faults

_LAUNCH = ("-m", "artesian.train.launch")
_OF_WORKERS = frozenset({Cause.SIGNAL, Cause.OOM_KILL, Cause.USER_ERROR})
"""Causes that the launch agent sees itself, as it watches the workers."""
_VISIBLE_DEVICES = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "HIP_VISIBLE_DEVICES",
    "ascend": "ASCEND_RT_VISIBLE_DEVICES",
    "cambricon": "MLU_VISIBLE_DEVICES",
    "hygon": "HIP_VISIBLE_DEVICES",
    "iluvatar": "CUDA_VISIBLE_DEVICES",
    "metax": "CUDA_VISIBLE_DEVICES",
    "mthreads": "MUSA_VISIBLE_DEVICES",
}
"""The variable by which each vendor's runtime is told its devices."""


def command_line(job: Job, devices: int, python: str = sys.executable) -> list[str]:
    """Return the words that start the job on one node: its command, under the launch agent where it is a gang.

    ``python`` is the interpreter there that has artesian.
    """
    workers = job.gang_size(devices)
    if workers == 0:
        return list(job.command)
    return [python, *_LAUNCH, "--nproc-per-node", str(workers), *agent_options(job), *job.command]


def agent_options(job: Job) -> list[str]:
    """Return how the launch agent is to take the job's command, whose words follow, and how often it restarts it."""
    retry = job.retry
    limits = [] if job.start_timeout_s is None else ["--start-timeout", str(job.start_timeout_s)]
    if not retry.in_place:
        return [*limits, "--no-python"]
    causes = sorted(cause.value for cause in retry.causes & _OF_WORKERS)
    if not retry.limit or not causes:
        return [*limits, "--command"]
    return [*limits, "--max-restarts", str(retry.limit), "--restart-on", ",".join(causes), "--command"]


def visible_devices(vendor: str | None) -> str | None:
    """Return the variable by which the vendor's runtime is told its devices; None where it is not known."""
    return _VISIBLE_DEVICES.get(vendor or "")


def environment_of(
    job: Job, epoch: int, share: NodeShare, host: HostNode, folder: AttemptFolder, checkpoints: Path
) -> dict[str, str]:
    """Return the whole environment: the job's own variables, the devices it may use, artesian's names."""
    env = attempt_environment(job, epoch, share.devices, folder, checkpoints)
    if (variable := visible_devices(host.node.vendor)) is not None:
        env[variable] = ",".join(host.device_ids[index] for index in share.devices)
    if host.node.accelerator == CPU:
        # The job's own cores and no more: numerical libraries would start a thread on each of the machine's.
        threads = len(share.devices) // max(1, job.gang_size(len(share.devices)))
        env.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
    return env


def attempt_environment(
    job: Job, epoch: int, devices: Sequence[int], folder: AttemptFolder, checkpoints: Path
) -> dict[str, str]:
    """Return the job's own variables and artesian's names; ``devices`` are those of one node."""
    env = {
        **job.env,
        names.JOB_ID: job.id,
        names.EPOCH: str(epoch),
        names.PROGRESS_DIR: str(folder.progress),
        names.LOG_DIR: str(folder.logs),
        names.CHECKPOINT_DIR: str(checkpoints),
        names.WORKERS: str(job.gang_size(len(devices))),
        names.DEVICES: ",".join(map(str, devices)),
        names.STOP_GRACE: str(job.grace_s),
    }
    if job.checkpoint_every_steps is not None:
        env[names.CHECKPOINT_EVERY] = str(job.checkpoint_every_steps)
    elif job.save_every_s is not None:
        env[names.CHECKPOINT_EVERY] = f"{job.save_every_s!r}s"
    elif job.saves_when_best:
        env[names.CHECKPOINT_EVERY] = "auto"
    if job.dataset is not None:
        env[names.DATASET] = job.dataset
    if job.faults:
        env[names.FAULTS] = encode_faults(job.faults)
    return env
