"""The hardware side of the nouns: Device, Node, Pool, Center, Fleet."""

from msgspec import Struct


class Device(Struct, frozen=True, kw_only=True, gc=False):
    """One accelerator of a node. ``index`` is its place on the node, ``uuid`` the vendor's own name."""

    index: int
    accelerator: str
    uuid: str | None = None
    memory_bytes: int | None = None


class Node(Struct, frozen=True, kw_only=True, gc=False):
    """A machine with ``devices`` devices of one kind, ``accelerator`` (``cpu`` for cores without one).

    ``peak_flops`` is the dense FP16/BF16 nameplate of one device in FLOP/s, None where unknown.
    ``memory_bytes`` is the host's memory, ``device_memory_bytes`` that of each device.
    ``occupied`` are the indices of devices that others use, who did not ask artesian: nothing starts there,
    and what artesian itself has there goes on.
    ``rack`` is the link domain within the pool that it shares with its neighbours, None where nobody told.
    """

    id: str
    accelerator: str
    devices: int
    cpus: int
    memory_bytes: int
    pool: str = "default"
    vendor: str | None = None
    device_memory_bytes: int | None = None
    peak_flops: float | None = None
    occupied: tuple[int, ...] = ()
    rack: str | None = None

    def __post_init__(self) -> None:
        if self.devices < 0 or self.cpus < 1:
            raise ValueError(f"node {self.id}: devices={self.devices} and cpus={self.cpus} are out of range")
        if len(set(self.occupied)) < len(self.occupied) or not all(
            0 <= index < self.devices for index in self.occupied
        ):
            raise ValueError(
                f"node {self.id}: occupied={self.occupied} are not some of {self.devices} devices"
            )


class Pool(Struct, frozen=True, kw_only=True, gc=False):
    """Like nodes behind one engine of one center."""

    name: str
    engine: str
    center: str = "default"


class Center(Struct, frozen=True, kw_only=True, gc=False):
    """A site. None where it is not known: a price that nobody told is not zero."""

    name: str
    price_per_device_hour: float | None = None
    carbon_g_per_kwh: float | None = None
    pue: float | None = None
    latency_ms: float | None = None


class Fleet(Struct, frozen=True, kw_only=True, gc=False):
    """All that an organisation owns."""

    nodes: tuple[Node, ...]
    pools: tuple[Pool, ...] = ()
    centers: tuple[Center, ...] = ()

    @property
    def devices(self) -> int:
        """Number of devices over all nodes."""
        return sum(node.devices for node in self.nodes)
