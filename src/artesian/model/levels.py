"""Nodes by how many of their devices are free, as sets of bits: the best node is found without a look at each.

A set of nodes is an int, of which bit r stands for the node in row r. What is done to whole sets, such as what two of
them share or which node is the first, takes a microsecond for 10,000 nodes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def bits(mask: BoolArray) -> int:
    """Return the set of the rows where ``mask`` [N] holds."""
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


def first(rows: int) -> int:
    """Return the lowest of the rows, of which there must be one."""
    return (rows & -rows).bit_length() - 1


def each(rows: int) -> Iterator[int]:
    """Yield the rows, the lowest first."""
    while rows:
        row = first(rows)
        yield row
        rows ^= 1 << row


class Levels:
    """The rows by a count: ``at[c]`` is the set of those that have c."""

    def __init__(self, count: IntArray, most: int) -> None:
        """Sort the rows by ``count`` [N], each from 0 to ``most``."""
        self.at = [bits(count == level) for level in range(most + 1)]

    def copy(self) -> "Levels":
        """Return a copy of its own."""
        twin = object.__new__(Levels)
        twin.at = list(self.at)
        return twin

    def move(self, row: int, before: int, after: int) -> None:
        """Take note that the count of a row has changed."""
        bit = 1 << row
        self.at[before] ^= bit
        self.at[after] ^= bit

    def lowest(self, least: int, among: int) -> int | None:
        """Return the first of the rows in ``among`` with the lowest count of at least ``least``; None without one."""
        for rows in self.at[least:]:
            if found := rows & among:
                return first(found)
        return None

    def highest(self, least: int, among: int) -> tuple[int, int] | None:
        """Return the first of the rows with the highest count of at least ``least``, and that count."""
        for level in range(len(self.at) - 1, least - 1, -1):
            if found := self.at[level] & among:
                return first(found), level
        return None

    def falling(self, among: int) -> Iterator[tuple[int, int]]:
        """Yield the rows in ``among`` and their counts above 0, the highest first, rows of one count in order."""
        for level in range(len(self.at) - 1, 0, -1):
            for row in each(self.at[level] & among):
                yield row, level

    def sum(self, among: int) -> int:
        """Return what the rows in ``among`` have together."""
        return sum(level * (rows & among).bit_count() for level, rows in enumerate(self.at))
