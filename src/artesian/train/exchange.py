"""A few numbers of every rank, gathered in the background: sent at one step, read at a later one."""

import struct

import torch.distributed as dist

from artesian.train.vote import Vote


class Exchange:
    """Gathers one number from each rank over a group of CPUs, without waiting for it.

    Every rank calls ``settle`` and ``send`` at the same steps. A rank that is alone gathers its own.
    """

    def __init__(self, control: dist.ProcessGroup | None) -> None:
        self._rank = 0 if control is None else dist.get_rank(control)
        self._size = 1 if control is None else dist.get_world_size(control)
        # A sum in which every rank has a place of its own, and zeros in those of the others.
        self._sum = None if control is None else Vote(control, dist.ReduceOp.SUM, self._size)
        self._own: tuple[int, ...] | None = None

    def send(self, number: int) -> None:
        """Begin to gather ``number``, of 64 bits with a sign. The one before must be settled."""
        row = [0] * self._size
        row[self._rank] = number
        if self._sum is None:
            self._own = tuple(row)
        else:
            self._sum.start(*row)

    def settle(self) -> tuple[int, ...] | None:
        """Return the numbers that were sent last, by rank; None where nothing is under way.

        It waits where they are not all there yet: call it some steps after ``send``.
        """
        if self._sum is not None:
            return self._sum.settle()
        own, self._own = self._own, None
        return own


def bits_of(number: float) -> int:
    """Return the 64 bits of a float as a whole number, to be sent."""
    (bits,) = struct.unpack("<q", struct.pack("<d", number))
    assert isinstance(bits, int)
    return bits


def float_of(bits: int) -> float:
    """Return the float that has these 64 bits."""
    (number,) = struct.unpack("<d", struct.pack("<q", bits))
    assert isinstance(number, float)
    return number
