"""A few numbers of every rank, gathered in the background: sent at one step, read at a later one."""

import torch
import torch.distributed as dist
from torch import Tensor


class Exchange:
    """Gathers a row of numbers from all ranks over a group of CPUs, without waiting for it.

    Every rank calls ``settle`` and ``send`` at the same steps. A rank that is alone gathers its own row.
    """

    def __init__(self, control: dist.ProcessGroup | None) -> None:
        self._control = control
        self._world_size = 1 if control is None else dist.get_world_size(control)
        self._pending: tuple[list[Tensor], dist.Work | None] | None = None

    def send(self, row: Tensor) -> None:
        """Begin to gather ``row``, of the same shape and type on all ranks."""
        rows = [torch.empty_like(row) for _ in range(self._world_size)]
        if self._control is None:
            rows[0].copy_(row)
            self._pending = rows, None
            return
        work = dist.all_gather(rows, row, group=self._control, async_op=True)
        self._pending = rows, work

    def settle(self) -> list[Tensor] | None:
        """Return the rows that were sent last, by rank; None where nothing is under way.

        It waits where they are not all there yet: call it some steps after ``send``.
        """
        if self._pending is None:
            return None
        rows, work = self._pending
        self._pending = None
        if work is not None:
            work.wait()
        return rows
