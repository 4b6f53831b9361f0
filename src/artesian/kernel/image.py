"""A state as plain data: what a snapshot stores."""

from typing import TYPE_CHECKING

from msgspec import Struct, field

from artesian.kernel.archive import ArchiveImage, Block
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.nodes import NodeRecord
from artesian.model.speeds import Speed

if TYPE_CHECKING:
    from artesian.kernel.state import State


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


def image_of(state: "State", *, has_jobs: bool) -> StateImage:
    """Return everything as plain data. It shares the records: encode it before the next ``apply``.

    Without its jobs it is small; they are ``jobs`` then, for ``restore``, and ``archive.blocks``.
    """
    return StateImage(
        archive=state.archive.image(),
        blocks=list(state.archive.blocks) if has_jobs else [],
        submitted=state.submitted,
        at_s=state.at_s,
        first_s=state.first_s,
        stale_events=state.stale_events,
        nodes=list(state.nodes.values()),
        jobs=list(state.jobs.values()) if has_jobs else [],
        speeds=list(state.speeds),
    )
