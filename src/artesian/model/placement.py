"""Where an attempt runs."""

from dataclasses import dataclass

from artesian.model.resources import MILLI


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShare:
    """Devices of one node: their indices, and the thousandths taken of each (1000 = the whole device)."""

    node_id: str
    devices: tuple[int, ...]
    milli: int = MILLI


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Devices per node for one attempt; the first share's node holds rank 0."""

    shares: tuple[NodeShare, ...]

    @property
    def devices(self) -> int:
        """Number of devices that the attempt holds, or has a share of."""
        return sum(len(share.devices) for share in self.shares)

    def __str__(self) -> str:
        return " + ".join(f"{share.node_id}[{','.join(map(str, share.devices))}]" for share in self.shares)
