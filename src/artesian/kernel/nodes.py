"""What the kernel knows of a node."""

from msgspec import Struct, field

from artesian.model.fleet import Node


class Outage(Struct, kw_only=True, gc=False):
    """A node was gone from ``start_s`` to ``end_s`` (None: it still is)."""

    start_s: float
    end_s: float | None = None


class Exclusion(Struct, kw_only=True, gc=False):
    """An operator kept a node out of use from ``start_s`` to ``end_s`` (None: it still is), and why."""

    start_s: float
    reason: str
    user: str = ""
    end_s: float | None = None


class NodeRecord(Struct, kw_only=True, gc=False):
    """A node, since when it is owned, and when it was gone or excluded.

    ``next_node`` is what the node last said of itself where an attempt still holds a device that it no
    longer has: it replaces ``node`` when such attempts have ended, and until then nothing starts there.
    """

    node: Node
    joined_s: float
    outages: list[Outage] = field(default_factory=list)
    next_node: Node | None = None
    exclusions: list[Exclusion] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        """Whether the node is there."""
        return not self.outages or self.outages[-1].end_s is not None

    @property
    def exclusion(self) -> Exclusion | None:
        """Why the node is kept out of use now; None where it is not."""
        last = self.exclusions[-1] if self.exclusions else None
        return last if last is not None and last.end_s is None else None

    def lose(self, at_s: float) -> None:
        """It is gone from now on."""
        self.outages.append(Outage(start_s=at_s))

    def come_back(self, at_s: float) -> None:
        """It is there again."""
        self.outages[-1].end_s = at_s

    def exclude(self, at_s: float, reason: str, user: str) -> None:
        """It is kept out of use from now on; where it is already, for another reason."""
        if self.exclusion is None:
            self.exclusions.append(Exclusion(start_s=at_s, reason=reason, user=user))
        else:
            self.exclusion.reason, self.exclusion.user = reason, user

    @property
    def is_open(self) -> bool:
        """Whether attempts may start on the node."""
        return self.is_up and self.next_node is None and self.exclusion is None
