"""Replicas that went apart, as users are told of them."""

from msgspec import Struct


class DivergedReplicas(Struct, frozen=True, kw_only=True, gc=False):
    """Workers whose parameters were not the others', found at ``at_s`` after ``step`` of attempt ``epoch``.

    ``workers`` are all, and ``is_certain`` is False, where no majority says who is right. ``is_now``: the job runs, and
    has not been given a state since that is the same for all.
    """

    workers: tuple[int, ...]
    epoch: int
    step: int
    at_s: float
    is_certain: bool
    is_now: bool = False

    def __str__(self) -> str:
        """What is known of it, in words."""
        who = "worker" if len(self.workers) == 1 else "workers"
        names = ", ".join(map(str, self.workers))
        how = (
            "differ from those of the others"
            if self.is_certain
            else "differ, and no majority says which is right"
        )
        return f"after step {self.step}, the parameters of {who} {names} {how} (attempt {self.epoch})"

    @property
    def remedy(self) -> str:
        """What to do about it, in words. Rank 0 writes the checkpoints."""
        again = f"resume it from a checkpoint before step {self.step}, which gives all workers the same state"
        if self.is_certain and 0 not in self.workers:
            again = "cancel and resume it, which gives all workers the same state, from a checkpoint of worker 0's"
        return f"{again}; artesian census tells whether a device computes wrong"
