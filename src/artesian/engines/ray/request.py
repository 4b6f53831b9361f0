"""An attempt as a file for the driver and the agents of its Ray job, and the job's one line.

Everything that a user can choose, the command and the environment first of all, is in the file, which is
for its user only; the line, which Ray shows on its dashboard, has two words of our own.
"""

import json
import math
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artesian.engines.base import HostNode
from artesian.engines.gang import divided
from artesian.engines.local.environment import agent_options, command_line, environment_of, visible_devices
from artesian.engines.local.records import AttemptFolder
from artesian.engines.ray.files import REQUEST
from artesian.engines.ray.inventory import CPU_RESOURCE, Offer
from artesian.model.job import Job
from artesian.model.placement import NodeShare, Placement
from artesian.model.resources import MILLI
from artesian.wire import environment as names

_LEAST_CPU = 0.001
"""What a bundle takes that asks for nothing else: Ray has none that is empty."""


class Unsuitable(Exception):  # noqa: N818 - reads as what it is
    """A placement that no Ray job can have."""


class NodesGone(Exception):  # noqa: N818 - reads as what it is
    """A placement on nodes that Ray does not offer any more."""


def entrypoint(python: str, folder: Path) -> str:
    """Return the line that Ray gives to a shell; it becomes the driver, so that Ray's signals are for that."""
    return f"exec {shlex.join((python, '-m', 'artesian.engines.ray.gang', str(folder)))}"


def write_request(
    job: Job,
    epoch: int,
    placement: Placement,
    offers: Mapping[str, Offer],
    folder: AttemptFolder,
    checkpoints: Path,
    python: str,
    group_timeout_s: float,
) -> None:
    """Write the file, for its user only. Raises OSError, Unsuitable, NodesGone."""
    missing = [share.node_id for share in placement.shares if share.node_id not in offers]
    if missing:
        raise NodesGone(f"Ray offers {', '.join(missing)} no more")
    workers = job.gang_size(placement.devices)
    is_gang = len(placement.shares) > 1 and workers > 0
    try:
        parts = divided(workers, placement) if is_gang else ()
    except ValueError as error:
        raise Unsuitable(str(error)) from error
    document: dict[str, Any] = {
        "workdir": job.workdir,
        "grace_s": job.grace_s,
        "group_timeout_s": group_timeout_s,
        "python": python,
        "workers": parts,
        "command": [*agent_options(job, nodes=len(placement.shares)), *job.command]
        if is_gang
        else command_line(job, placement.devices, python),
        "nodes": [
            _node(job, epoch, share, offers[share.node_id], folder, checkpoints, own)
            for share, own in zip(placement.shares, parts or (workers,) * len(placement.shares), strict=True)
        ],
    }
    path = folder.path / REQUEST
    private = path.with_suffix(".part")
    with open(private, "w", encoding="utf-8", opener=_private) as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    private.rename(path)


def bundle_of(job: Job, share: NodeShare, resource: str) -> dict[str, float]:
    """Return what the attempt takes of one node, in Ray's resources."""
    count = max(1, len(share.devices))
    bundle = {resource: len(share.devices) * share.milli / MILLI}
    if job.cpus_per_device is not None and resource != CPU_RESOURCE:
        bundle[CPU_RESOURCE] = job.cpus_per_device * count
    elif job.cpus_per_device is not None:
        bundle[CPU_RESOURCE] = max(bundle[CPU_RESOURCE], job.cpus_per_device * count)
    if job.memory_bytes_per_device is not None:
        bundle["memory"] = float(math.ceil(job.memory_bytes_per_device * count))
    return {name: amount for name, amount in bundle.items() if amount > 0} or {CPU_RESOURCE: _LEAST_CPU}


def _node(
    job: Job,
    epoch: int,
    share: NodeShare,
    offer: Offer,
    folder: AttemptFolder,
    checkpoints: Path,
    workers: int,
) -> dict[str, Any]:
    host = HostNode(node=offer.node, device_ids=tuple(map(str, range(offer.node.devices))))
    env = environment_of(job, epoch, share, host, folder, checkpoints)
    return {
        "name": share.node_id,
        "ray_id": offer.ray_id,
        "resource": offer.resource,
        "bundle": bundle_of(job, share, offer.resource),
        "visible": visible_devices(offer.node.vendor),
        "env": {**env, names.WORKERS: str(workers)},
    }


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
