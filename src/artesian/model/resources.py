"""Resource strings: which devices a job asks for, and how many.

Grammar (parts are separated by colons, in this order, all but one optional)::

    request      = alternative *( "|" alternative )        first choice first
    alternative  = "host" | [ "gpu:" ] [ vendor ":" ] [ accelerator ":" ] [ memory ":" ] [ count ]
    count        = INT | INT ".." INT | FRACTION            8, 4..8, 0.5

``H100:8``, ``nvidia:A100:80GB:4..8``, ``H100:8 | 910B:16``, ``0.5``, ``gpu:h100:8``, ``cpu:2``, ``host``.
Without a count it is 1; without an accelerator, any. ``host`` asks for no device, only for CPUs and memory
of one node, whatever devices that has (``cpu:2`` is for nodes whose devices are cores). In YAML a mapping is short for alternatives:
``{H100: 8, 910B: 16}``.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from artesian import catalog
from artesian.model.errors import UnitError
from artesian.model.fleet import Node
from artesian.model.units import parse_size_bytes

MILLI = 1000
"""Thousandths of a device: the unit in which shares of a device are counted."""

HOST = "host"
"""What a request for no device at all is called."""

CPU = "cpu"
"""The accelerator name of a CPU core on a node that has no accelerator."""

_HINT = "write it like H100:8, nvidia:A100:80GB:4..8, cpu:2, 0.5, or H100:8 | 910B:16"
_COUNT = re.compile(r"\d+(\.\.\d+)?|0?\.\d+")
_LIKE_A_COUNT = re.compile(r"[-+.\d]+([eE][-+.\d]*)?")
_MEMORY = re.compile(r"\d+(\.\d+)?[KMGT]i?B", re.IGNORECASE)


class DeviceRequest(Struct, frozen=True, kw_only=True, gc=False, cache_hash=True):
    """Devices of one kind: ``min_milli`` to ``max_milli`` thousandths of a device in all.

    ``vendor``, ``accelerator`` and ``memory_bytes`` (least memory per device) narrow the kind down;
    None means any. A request below one device is for a share of a single device, and one of 0 for no
    device: such a job has what it wants of the host (``cpus_per_device``, …) once, on one node.
    """

    min_milli: int
    max_milli: int
    vendor: str | None = None
    accelerator: str | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        whole = self.min_milli % MILLI == 0 and self.max_milli % MILLI == 0
        fraction = self.min_milli == self.max_milli < MILLI
        names_kind = (self.vendor, self.accelerator, self.memory_bytes) != (None, None, None)
        if self.is_host_only and not names_kind:
            return
        if not (0 < self.min_milli <= self.max_milli and (whole or fraction)):
            raise UnitError(
                f"devices: expected whole devices, or one share below 1, got {self.min_milli}..{self.max_milli} thousandths",
                hint=_HINT,
            )

    @property
    def min_devices(self) -> int:
        """Fewest devices that the gang runs on (1 for a share of a device)."""
        return -(-self.min_milli // MILLI)

    @property
    def max_devices(self) -> int:
        """Most devices that the gang makes use of."""
        return -(-self.max_milli // MILLI)

    @property
    def is_fraction(self) -> bool:
        """Whether it asks for a share of one device."""
        return 0 < self.max_milli < MILLI

    @property
    def is_host_only(self) -> bool:
        """Whether it asks for no device, only for CPUs and memory of one node."""
        return self.min_milli == self.max_milli == 0

    def suits(self, node: Node) -> bool:
        """Return whether the node's devices are of the kind."""
        if self.vendor is not None and self.vendor != (node.vendor or "").lower():
            return False
        if self.accelerator is not None and not catalog.matches(self.accelerator, node.accelerator):
            return False
        if self.memory_bytes is None:
            return True
        # A card sold as 80 GB reports a little less than 80·10⁹ bytes or a little more; 3% covers both.
        return node.device_memory_bytes is not None and node.device_memory_bytes >= 0.97 * self.memory_bytes

    def __str__(self) -> str:
        if self.is_host_only:
            return HOST
        kind = [part for part in (self.vendor, self.accelerator) if part]
        if self.memory_bytes is not None:
            kind.append(_memory(self.memory_bytes))
        if self.is_fraction:
            count = f"{self.max_milli / MILLI:g}"
        elif self.min_milli == self.max_milli:
            count = str(self.min_devices)
        else:
            count = f"{self.min_devices}..{self.max_devices}"
        return ":".join([*kind, count])


def parse_devices(value: str | int | float | Mapping[str, str | int | float]) -> tuple[DeviceRequest, ...]:
    """Return the alternatives in a resource string, a bare number or a mapping, first choice first.

    Raises UnitError, which names the part that does not parse.
    """
    if isinstance(value, Mapping):
        if not value:
            raise UnitError("devices: expected at least one kind of device, got an empty mapping", hint=_HINT)
        return tuple(_parse_alternative(f"{kind}:{count}") for kind, count in value.items())
    if not isinstance(value, str) and not _COUNT.fullmatch(str(value)):
        raise _not_a_count(str(value))
    return tuple(_parse_alternative(part.strip()) for part in str(value).split("|"))


def _parse_alternative(text: str) -> DeviceRequest:
    if text.lower() == HOST:
        return DeviceRequest(min_milli=0, max_milli=0)
    parts = [part.strip() for part in text.split(":")]
    if not all(parts) or "|" in text:
        raise UnitError(f"devices: expected a resource string, got {text!r}", hint=_HINT)
    if parts[0].lower() == "gpu":
        parts.pop(0)  # Slurm's gres form
    min_milli = max_milli = MILLI
    if parts and _COUNT.fullmatch(parts[-1]):
        min_milli, max_milli = _parse_count(parts.pop())
    elif parts and _LIKE_A_COUNT.fullmatch(parts[-1]):
        raise _not_a_count(parts[-1])
    memory_bytes = parse_size_bytes(parts.pop()) if parts and _MEMORY.fullmatch(parts[-1]) else None
    vendor = parts.pop(0).lower() if parts and parts[0].lower() in catalog.vendors() else None
    if len(parts) > 1 and (vendor is not None or _is_accelerator(parts[0])):
        raise UnitError(f"devices: {text!r}: {parts[1]!r} is neither a memory size nor a count", hint=_HINT)
    if len(parts) > 1:
        raise UnitError(
            f"devices: expected vendor:accelerator:memory:count, got {text!r} with {parts[0]!r} as its vendor",
            hint=f"known vendors: {', '.join(sorted(catalog.vendors()))}",
        )
    accelerator = parts[0] if parts else None
    return DeviceRequest(
        min_milli=min_milli,
        max_milli=max_milli,
        vendor=vendor,
        accelerator=accelerator,
        memory_bytes=memory_bytes,
    )


def _is_accelerator(name: str) -> bool:
    families = {family.casefold() for family in catalog.families()}
    return catalog.find(name) is not None or name.casefold() in {CPU, *families}


def _not_a_count(text: str) -> UnitError:
    return UnitError(f"devices: expected a count such as 8, 4..8 or 0.5, got {text}", hint=_HINT)


def _memory(size_bytes: int) -> str:
    if size_bytes % 2**30 == 0:
        return f"{size_bytes // 2**30}GiB"
    return f"{(Decimal(size_bytes) / 10**9).normalize():f}GB"


def _parse_count(text: str) -> tuple[int, int]:
    if ".." in text:
        low, high = (int(part) for part in text.split(".."))
    elif "." in text:
        milli = round(float(text) * MILLI)
        if not 0 < milli < MILLI:
            raise UnitError(f"devices: a share must lie between 0.001 and 0.999, got {text}", hint=_HINT)
        return milli, milli
    else:
        low = high = int(text)
    if not 1 <= low <= high:
        raise UnitError(f"devices: expected a count of at least 1, the smaller first, got {text}", hint=_HINT)
    return low * MILLI, high * MILLI
