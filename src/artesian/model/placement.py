"""Where an attempt runs."""

from msgspec import Struct

from artesian.model.resources import MILLI


class NodeShare(Struct, frozen=True, kw_only=True, gc=False):
    """Devices of one node: their indices, and the thousandths taken of each (1000 = the whole device).

    Without devices it holds CPUs and memory of the node only.
    """

    node_id: str
    devices: tuple[int, ...]
    milli: int = MILLI

    def __post_init__(self) -> None:
        devices = self.devices
        if devices and (min(devices) < 0 or len(set(devices)) < len(devices)):
            raise ValueError(f"node {self.node_id}: expected distinct device indices, got {self.devices}")
        if not 0 < self.milli <= MILLI:
            raise ValueError(f"node {self.node_id}: expected 1 to {MILLI} thousandths, got {self.milli}")


class Worked(Struct, frozen=True, gc=False):
    """An attempt was at work with so many ``devices`` of those that it holds for ``seconds``, start-ups included."""

    devices: float
    seconds: float


class Placement(Struct, frozen=True, kw_only=True, gc=False):
    """Devices per node for one attempt; the first share's node holds rank 0."""

    shares: tuple[NodeShare, ...]

    def __post_init__(self) -> None:
        if len(self.shares) == 1:
            return  # nearly always
        ids = [share.node_id for share in self.shares]
        if not ids or len(set(ids)) < len(ids):
            raise ValueError(f"placement: expected one share per node, got shares of {ids}")

    @property
    def devices(self) -> int:
        """Number of devices that the attempt holds, or has a share of."""
        return sum([len(share.devices) for share in self.shares])

    @property
    def whole_devices(self) -> float:
        """Devices that the attempt holds, shares counted as what they are."""
        return self.milli / MILLI

    @property
    def milli(self) -> int:
        """Thousandths of devices that the attempt holds."""
        return sum([len(share.devices) * share.milli for share in self.shares])

    def share_on(self, node_id: str) -> NodeShare | None:
        """Return what the attempt holds of a node; None where that is nothing."""
        return next((share for share in self.shares if share.node_id == node_id), None)

    def worked_on(self, before: tuple[Worked, ...], seconds: float) -> tuple[Worked, ...]:
        """Return ``before`` and so many seconds more with the latest number of devices; at first that is all of them."""
        return with_work(before, before[-1].devices if before else self.whole_devices, seconds)

    def __str__(self) -> str:
        return " + ".join([f"{share.node_id}[{','.join(map(str, share.devices))}]" for share in self.shares])


def with_work(before: tuple[Worked, ...], devices: float, seconds: float) -> tuple[Worked, ...]:
    """Return ``before`` and so many seconds more with so many devices: each number once, the latest last."""
    same_s = sum(part.seconds for part in before if part.devices == devices)
    return (*(part for part in before if part.devices != devices), Worked(devices, same_s + seconds))
