"""A state as plain data: what a snapshot stores."""

from msgspec import Struct, field

from artesian.kernel.archive import ArchiveImage, Block
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.nodes import NodeRecord
from artesian.model.speeds import Speed


class StateImage(Struct, kw_only=True, gc=False):
    """Everything in a state, as plain data: what a snapshot stores."""

    archive: ArchiveImage
    blocks: list[Block] = field(default_factory=list)
    submitted: int
    at_s: float
    first_s: float | None
    stale_events: int
    nodes: list[NodeRecord] = field(default_factory=list)
    jobs: list[JobRecord] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)
