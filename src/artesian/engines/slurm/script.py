"""An attempt as arguments of sbatch, a batch script, and a file for the nodes.

The script has two words of its own, quoted in ``batch_script`` and nowhere else; everything that a user
can choose, the command and the environment first of all, is in the file.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artesian.engines.gang import divided
from artesian.engines.local.environment import agent_options, attempt_environment, command_line
from artesian.engines.local.records import AttemptFolder, write_whole
from artesian.engines.slurm.batch import ATTEMPT_FILE
from artesian.engines.slurm.inventory import Amount, Offer
from artesian.engines.slurm.settings import SlurmSettings
from artesian.model.job import Job
from artesian.model.placement import NodeShare, Placement
from artesian.model.resources import MILLI

SLURM_LOG = "slurm.log"
"""What the batch script and Slurm itself had to say; the command's output is in the files of the attempt."""

_MIB = 2**20


class Unsuitable(Exception):  # noqa: N818 - reads as what it is
    """A placement that no batch job can have."""


class NodesGone(Exception):  # noqa: N818 - reads as what it is
    """A placement on nodes that Slurm does not offer any more."""


def batch_script(python: str, folder: Path) -> str:
    """Return the script: it becomes the supervisor, so that a signal for the batch script is one for it."""
    words = (python, "-I", "-m", "artesian.engines.slurm.batch", str(folder))
    return f"#!/bin/sh\nexec {shlex.join(words)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Nodes on each of which an attempt takes ``amount``: one component of the batch job."""

    shares: tuple[NodeShare, ...]
    amount: Amount


def groups_of(job: Job, placement: Placement, offers: Mapping[str, Offer]) -> list[Group]:
    """Return what the attempt takes on its nodes, those with as many devices together; the first node's first.

    CPUs and memory that the job does not ask for are the node's own share for so many devices, as the
    inventory counts them; memory is 0 where it is not known. Raises Unsuitable, NodesGone.
    """
    if any(share.milli != MILLI for share in placement.shares):
        raise Unsuitable(f"{placement}: Slurm hands out whole devices only")
    missing = [share.node_id for share in placement.shares if share.node_id not in offers]
    if missing:
        raise NodesGone(f"Slurm offers {', '.join(missing)} no more")
    by_count: dict[int, list[NodeShare]] = {}
    for share in placement.shares:
        by_count.setdefault(len(share.devices), []).append(share)
    return [
        Group(shares=tuple(shares), amount=_amount(job, count, [offers[share.node_id] for share in shares]))
        for count, shares in by_count.items()
    ]


def _amount(job: Job, count: int, chosen: Sequence[Offer]) -> Amount:
    if job.cpus_per_device is None:
        cpus = min(int(offer.cpus_per_device * count) for offer in chosen)
    else:
        cpus = math.ceil(job.cpus_per_device * max(1, count))
    if job.memory_bytes_per_device is None:
        memory_bytes = min(int(offer.memory_bytes_per_device * count) for offer in chosen)
    else:
        memory_bytes = job.memory_bytes_per_device * max(1, count)
    return Amount(devices=count, cpus=max(1, cpus), memory_bytes=memory_bytes)


def options_of(
    job: Job,
    groups: Sequence[Group],
    offers: Mapping[str, Offer],
    folder: Path,
    comment: str,
    settings: SlurmSettings,
) -> list[str]:
    """Return sbatch's options for an attempt; a job of several components where its nodes are not alike."""
    options: list[str] = []
    for group in groups:
        if options:
            options.append(":")
        options += _options_of_group(job, group, offers, folder, comment, settings)
    return options


def _options_of_group(
    job: Job,
    group: Group,
    offers: Mapping[str, Offer],
    folder: Path,
    comment: str,
    settings: SlurmSettings,
) -> list[str]:
    chosen, amount = [offers[share.node_id] for share in group.shares], group.amount
    options = [
        f"--job-name={job.name}",
        f"--comment={comment}",
        f"--nodes={len(chosen)}",
        f"--ntasks={len(chosen)}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(offer.slurm.name for offer in chosen)}",
        f"--cpus-per-task={amount.cpus}",
        f"--signal=B:TERM@{max(1, math.ceil(job.grace_s))}",
        "--no-requeue",  # artesian decides about the next attempt
        "--open-mode=append",
        f"--output={_escaped(folder / SLURM_LOG)}",
        "--chdir=/",
    ]
    if amount.memory_bytes:
        options.append(f"--mem={max(1, amount.memory_bytes // _MIB)}M")
    if amount.devices and (type_ := chosen[0].gres_type) is not None:
        options.append(f"--gres=gpu:{type_}:{amount.devices}" if type_ else f"--gres=gpu:{amount.devices}")
    if settings.partition is not None:
        options.append(f"--partition={settings.partition}")
    if settings.account is not None:
        options.append(f"--account={settings.account}")
    return [*options, *settings.sbatch_args]


def _escaped(path: Path) -> str:
    # sbatch puts a job's number in for ``%j`` in a file's name, and takes a backslash away.
    return str(path).replace("\\", "\\\\").replace("%", "%%")


def write_attempt(
    job: Job,
    epoch: int,
    placement: Placement,
    groups: Sequence[Group],
    offers: Mapping[str, Offer],
    folder: AttemptFolder,
    checkpoints: Path,
    python: str,
) -> None:
    """Write the file that tells the nodes all about the attempt, for its user only. Raises OSError, Unsuitable."""
    workers = job.gang_size(placement.devices)
    is_gang = len(placement.shares) > 1 and workers > 0
    try:
        parts = divided(workers, placement) if is_gang else ()
    except ValueError as error:
        raise Unsuitable(str(error)) from error
    document: dict[str, Any] = {
        "command": [*agent_options(job), *job.command]
        if is_gang
        else command_line(job, placement.devices, python),
        "workdir": job.workdir,
        "grace_s": job.grace_s,
        "env": attempt_environment(job, epoch, placement.shares[0].devices, folder, checkpoints),
        "python": python,
        "nodes": [
            {"name": offers[share.node_id].slurm.name, "address": offers[share.node_id].slurm.address}
            for share in placement.shares
        ],
        "workers": parts,
        "groups": [{"nodes": len(group.shares), "cpus": group.amount.cpus} for group in groups],
    }
    write_whole(folder.path / ATTEMPT_FILE, json.dumps(document).encode())
