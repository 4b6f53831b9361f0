"""Placements: where a job goes."""

from dataclasses import dataclass

import numpy as np

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.levels import Levels, bits
from artesian.model.placement import NodeShare, Placement
from artesian.model.resources import DeviceRequest


@dataclass(frozen=True, slots=True)
class Pack:
    """Fill what is already in use, so that large gaps stay whole.

    Alternatives are tried in the job's own order. A gang goes to the one node that it leaves the
    fewest free devices on; if no node holds even its minimum, to as few nodes as possible, all with the
    same model of device: a mixed gang is as slow as its slowest member. A share of a device goes to the
    device with the least left that suffices.
    """

    def place(self, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
        """Return where the job goes, or None when no alternative fits on the allowed nodes."""
        for request in job.devices:
            placement = (
                _place_share(job, request, capacity, allowed)
                if request.is_fraction
                else place_gang(job, request, capacity, allowed)
            )
            if placement is not None:
                return placement
        return None


def place_gang(job: Job, request: DeviceRequest, capacity: Capacity, allowed: BoolArray) -> Placement | None:
    """Return where ``Pack`` puts whole devices: on one node if one holds them, else on as few as possible."""
    if request.min_devices > max(capacity.free_by_kind, default=0):
        return None  # the usual answer on a full fleet
    most = request.max_devices
    among = capacity.eligible_bits(request, allowed)
    levels = capacity.levels
    on_one = among
    if job.cpus_per_device is not None or job.memory_bytes_per_device is not None:
        on_one &= bits(capacity.hosted(job) >= max(1, most))
        levels = Levels(capacity.startable(job, request), max(1, capacity.free_milli.shape[1]))
    row = capacity.levels.lowest(most, on_one)
    if row is not None:
        return _placement(capacity, [(row, most)])
    if request.is_host_only:
        return None
    best = levels.highest(request.min_devices, among)
    if best is not None:
        return _placement(capacity, [best])
    sums = [levels.sum(among & of_kind) for of_kind in capacity.kind_bits()]
    kind = max(range(len(sums)), key=lambda kind: min(sums[kind], most), default=None)
    if kind is None or sums[kind] < request.min_devices:
        return None
    shares = []
    left = most
    for row, count in levels.falling(among & capacity.kind_bits()[kind]):
        shares.append((row, min(left, count)))
        left -= count
        if left <= 0:
            break
    return _placement(capacity, shares)


def _placement(capacity: Capacity, shares: list[tuple[int, int]]) -> Placement:
    return Placement(
        shares=tuple(
            [
                NodeShare(node_id=capacity.nodes[row].id, devices=capacity.whole_devices(row, taken))
                for row, taken in shares
            ]
        )
    )


def _place_share(
    job: Job, request: DeviceRequest, capacity: Capacity, allowed: BoolArray
) -> Placement | None:
    fits_host = capacity.eligible(request) & allowed & (capacity.hosted(job) >= 1)
    fits = (capacity.free_milli >= request.max_milli) & fits_host[:, None]
    if not fits.any():
        return None
    left = np.where(fits, capacity.free_milli, np.iinfo(np.int16).max)
    row, device = np.unravel_index(int(np.argmin(left)), left.shape)
    share = NodeShare(node_id=capacity.nodes[int(row)].id, devices=(int(device),), milli=request.max_milli)
    return Placement(shares=(share,))
