"""Workers that hold their gang up, as users are told of them."""

from msgspec import Struct

from artesian.model.units import format_duration


class SlowWorker(Struct, frozen=True, kw_only=True, gc=False):
    """A worker for which the others have waited: from ``since_s`` to ``until_s``, when it was last known to be slow.

    Of a worker that was slow several times in an attempt this is the last one. ``ratio`` is how many times as long as
    the middle rank it computed, by the last word on it. ``wait_s`` is how long the others have waited for it since
    ``since_s``, each of them; None where its script did not say. ``place`` is its node and devices,
    ``n1[0]``; None where they are not known, or on several nodes. ``has_other_nodes`` is whether the job is on
    others, too. ``is_now``: the job runs, and nothing says that it has become faster.
    """

    worker: int
    epoch: int
    since_s: float
    until_s: float
    ratio: float
    wait_s: float | None = None
    node: str | None = None
    place: str | None = None
    has_other_nodes: bool = False
    is_now: bool = False

    def __str__(self) -> str:
        """What is known of it, in words. What of a step it takes longer, the others wait."""
        where = "" if self.place is None else f" on {self.place}"
        lasted = format_duration(max(0.0, self.until_s - self.since_s))
        still = "so far" if self.is_now else "and no more"
        waited = (
            "" if self.wait_s is None else f"; each of the others has waited {format_duration(self.wait_s)}"
        )
        return (
            f"worker {self.worker}{where} computes {self.ratio:.2f} times as long as the middle one, which holds the "
            f"gang up by {1 - 1 / self.ratio:.0%} of its computing (attempt {self.epoch}, for {lasted} {still}{waited})"
        )

    @property
    def remedy(self) -> str:
        """What to do about it, in words."""
        replaces = "under artesian launch, Run.from_env(..., stragglers=StragglerPolicy(replaces=True)) has"
        if self.node is None or not self.has_other_nodes:
            return (
                "artesian census tells whether the device is slow; look for what else keeps it, or its cores, busy; "
                f"{replaces} its process started anew"
            )
        return (
            f"artesian nodes exclude {self.node} --stop --reason slow lets the job go on elsewhere, from its last "
            f"checkpoint (artesian census tells whether the node is slow); {replaces} a spare node take its place"
        )
