"""Membership: who takes part in a step, and on what it computes.

``join`` meets the other workers of the attempt and leaves torch.distributed ready for DDP.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from artesian.wire import environment

T = TypeVar("T")
_RENDEZVOUS_TIMEOUT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """This worker's place in the gang. ``control`` is a gloo group for a few bytes a step between CPUs.

    ``control`` is None for a worker that is alone. ``is_joined`` says that ``join`` made the groups, so that
    leaving ends them.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    is_joined: bool = False

    def leave(self) -> None:
        """Leave the gang that ``join`` has joined. Calling it again does nothing."""
        if self.is_joined and dist.is_initialized():
            dist.destroy_process_group()


def alone(device: torch.device | str | None = None) -> Membership:
    """Return the membership of a worker without others, on ``device`` or the best one there is."""
    chosen = _device(0, 1) if device is None else torch.device(device)
    return Membership(rank=0, world_size=1, local_rank=0, device=chosen)


def current(device: torch.device) -> Membership:
    """Return the membership of a worker on ``device``, whose script has set torch.distributed up itself.

    All ranks call it together: it makes the control group. Where nothing is set up the worker is alone.
    """
    if not dist.is_initialized():
        return alone(device)
    return Membership(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        local_rank=dist.get_node_local_rank(fallback_rank=0),
        device=device,
        control=dist.new_group(backend="gloo"),
    )


def join(environ: Mapping[str, str] = os.environ) -> Membership:
    """Meet the other workers that torchrun's variables in ``environ`` speak of.

    Gradients go over NCCL (or the device's own) when every worker of the node has an accelerator to itself,
    over gloo otherwise. Without the variables there is no group. One worker that was launched with them has a group
    of its own, so that DDP takes it as it takes several; the gang may have been larger, too, or become so. Each
    attempt meets under a name of its own, so that a late worker of an older one is never mistaken for a member.

    Raises ValueError when the variables are incomplete, torch.distributed.DistStoreError when the others
    do not come.
    """
    world_size = _integer(environ, "WORLD_SIZE", 1)
    is_served = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_alone = world_size == 1 and not is_served
    if is_alone and (not {"RANK", "WORLD_SIZE"} <= environ.keys() or dist.is_initialized()):
        return alone()
    rank, local_rank = _integer(environ, "RANK"), _integer(environ, "LOCAL_RANK", 0 if is_alone else None)
    if not is_alone and not environ.get("MASTER_ADDR"):
        raise ValueError("$MASTER_ADDR must be set, as torchrun sets it, got nothing")
    device = _device(local_rank, _integer(environ, "LOCAL_WORLD_SIZE", world_size))
    if device.type != "cpu":
        torch.accelerator.set_device_index(local_rank)
    server = (
        dist.HashStore()  # type: ignore[attr-defined]  # exported, but not in __all__; there is nobody to meet
        if is_alone
        else dist.TCPStore(  # type: ignore[attr-defined]
            environ["MASTER_ADDR"],
            _integer(environ, "MASTER_PORT"),
            world_size,
            # torchrun's agent serves the store itself, and says so; so does ours.
            is_master=rank == 0 and not is_served,
            timeout=_RENDEZVOUS_TIMEOUT,
        )
    )
    if not dist.is_initialized():
        # An init that failed, of a gang that was lost on the way, has counted its group: under the next number
        # this worker and a peer that starts anew would look for each other in different places of the store.
        dist.distributed_c10d._world.group_count = 0
    epoch = environ.get(environment.EPOCH) or environ.get("TORCHELASTIC_RESTART_COUNT") or "0"
    dist.init_process_group(
        backend="gloo" if device.type == "cpu" else dist.get_default_backend_for_device(device),
        store=dist.PrefixStore(f"epoch-{epoch}", server),  # type: ignore[attr-defined]
        rank=rank,
        world_size=world_size,
        device_id=None if device.type == "cpu" else device,
    )
    return Membership(
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        device=device,
        control=dist.new_group(backend="gloo") if world_size > 1 else None,
        is_joined=True,
    )


def gathered(own: T, group: dist.ProcessGroup | None) -> list[T]:
    """Return what all ranks of ``group`` say, by rank; each of them calls this. None is a rank that is alone.

    ``own`` must be something that pickle takes.
    """
    if group is None:
        return [own]
    told: list[T] = [own] * dist.get_world_size(group)
    dist.all_gather_object(told, own, group=group)
    return told


def _device(local_rank: int, local_workers: int) -> torch.device:
    """Return the accelerator that is this worker's own, the CPU where there are too few for all."""
    if torch.accelerator.is_available() and torch.accelerator.device_count() >= local_workers:
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        return torch.device(kind.type, local_rank)
    return torch.device("cpu")


def _integer(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise ValueError(f"${name} must be a whole number, as torchrun sets it, got {text!r}")
    return int(text)
