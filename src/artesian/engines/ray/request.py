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
from artesian.engines.ray.files import REQUEST, words
from artesian.engines.ray.inventory import CPU_RESOURCE, KINDS, Offer
from artesian.model.job import Cause, Job, Outcome
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Stop
from artesian.model.resources import MILLI
from artesian.wire import environment as names

LABEL_SELECTOR = "entrypoint_label_selector"
"""What an older Ray does not know of a job."""
_TOLD_BY = {"GPU": "CUDA_VISIBLE_DEVICES", "NPU": "ASCEND_RT_VISIBLE_DEVICES"}
_LEAST_CPU = 0.001
"""What a bundle takes that asks for nothing else: Ray has none that is empty."""


class Unsuitable(Exception):  # noqa: N818 - reads as what it is
    """A placement that no Ray job can have."""


class NodesGone(Exception):  # noqa: N818 - reads as what it is
    """A placement on nodes that Ray does not offer any more."""


def entrypoint(python: str, folder: Path, *, is_alone: bool) -> str:
    """Return the line that Ray gives to a shell; it becomes the driver, so that Ray's signals are for that."""
    module = "artesian.engines.ray.alone" if is_alone else "artesian.engines.ray.gang"
    return f"exec {shlex.join((python, '-m', module, str(folder)))}"


def place_alone(job: Job, placement: Placement, offers: Mapping[str, Offer]) -> dict[str, Any] | None:
    """Return what Ray is asked for where the job's entrypoint itself can have the attempt's place: on one node.

    None where it cannot: on several nodes, or where Ray would choose devices and tell of them in a way that is not
    known here. Raises Unsuitable where the node does not have so much, NodesGone.
    """
    if len(placement.shares) > 1:
        return None
    [share] = placement.shares
    if (offer := offers.get(share.node_id)) is None:
        raise NodesGone(f"Ray offers {share.node_id} no more")
    visible = visible_devices(offer.node.vendor)
    if visible is not None and offer.resource in KINDS and _granted(offer) is None:
        return None
    bundle = bundle_of(job, share, offer.resource)
    if offer.has and (short := {name: n for name, n in bundle.items() if offer.has.get(name, 0) < n}):
        have = words({name: offer.has.get(name, 0) for name in short})
        raise Unsuitable(f"infeasible: {words(short)} of node {share.node_id}, which has {have}")
    memory = bundle.pop("memory", None)
    return {
        "entrypoint_num_cpus": bundle.pop(CPU_RESOURCE, 0),
        "entrypoint_num_gpus": bundle.pop("GPU", 0),
        "entrypoint_memory": None if memory is None else int(memory),
        "entrypoint_resources": bundle,
        LABEL_SELECTOR: {"ray.io/node-id": offer.ray_id},
    }


def _granted(offer: Offer) -> str | None:
    """Return the variable by which Ray tells an entrypoint the devices that it was granted, where it does."""
    variable = _TOLD_BY.get(offer.resource)
    return variable if variable == visible_devices(offer.node.vendor) else None


def unplaced(
    job: Job,
    placement: Placement,
    offers: Mapping[str, Offer],
    stop: Stop | None,
    *,
    waited_s: float,
    timeout_s: float,
) -> Outcome | None:
    """Return how an attempt ends that still waits for a place on its node; None where it goes on waiting."""
    if stop is not None:
        return Outcome(cause=stop.cause, message="stopped before it started")
    share = placement.shares[0]
    if (offer := offers.get(share.node_id)) is None:
        return Outcome(cause=Cause.NODE_LOST, message=f"node {share.node_id} is gone")
    if waited_s < timeout_s:
        return None
    wanted = f"{share.node_id}: {words(bundle_of(job, share, offer.resource))}"
    return Outcome(
        cause=Cause.PREEMPTED,
        message=f"no place after {timeout_s:g} s: others hold what it wants ({wanted})",
    )


def write_request(
    job: Job,
    epoch: int,
    placement: Placement,
    offers: Mapping[str, Offer],
    folder: AttemptFolder,
    checkpoints: Path,
    python: str,
    group_timeout_s: float,
    *,
    is_alone: bool,
) -> None:
    """Write the file, for its user only. ``is_alone``: for the driver of one node. Raises OSError, Unsuitable, NodesGone."""
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
        "is_alone": is_alone,
        "workdir": job.workdir,
        "grace_s": job.grace_s,
        "group_timeout_s": group_timeout_s,
        "python": python,
        "workers": parts,
        "command": [*agent_options(job), *job.command]
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
        "granted": _granted(offer),
        "env": {**env, names.WORKERS: str(workers)},
    }


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
