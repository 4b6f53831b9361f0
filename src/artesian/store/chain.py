"""The chain: every record's checksum covers the record itself and the checksum before it.

So a record that was changed, is missing, or stands in another's place is found, not only one whose own
bytes are torn. The first record follows ``START``. CRC-32 finds damage, not malice: whoever can write
the file can write another chain.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from artesian.store import codec

if TYPE_CHECKING:
    from artesian.kernel.state import Record

_HEAD = struct.Struct(">qd")


class Link(NamedTuple):
    """A place in the chain: the sequence number and checksum of the record that stands there."""

    seq: int
    crc: int


START = Link(0, 0)
"""The place before the first record, whose sequence number is 1."""


class Row(NamedTuple):
    """A record as it is stored."""

    seq: int
    at_s: float
    type: str
    body: bytes
    crc: int

    @property
    def link(self) -> Link:
        """The row's place in the chain."""
        return Link(self.seq, self.crc)


def _checksum(before: int, seq: int, at_s: float, name: str, body: bytes) -> int:
    return crc32(body, crc32(_HEAD.pack(seq, at_s) + name.encode(), before))


def extend(after: Link, records: Iterable[Record]) -> list[Row]:
    """Return the rows that continue the chain with ``records``. Raises UnstorableRecord."""
    rows = []
    seq, crc = after
    for record in records:
        name, body = codec.encode(record)
        seq += 1
        crc = _checksum(crc, seq, record.at_s, name, body)
        rows.append(Row(seq, record.at_s, name, body, crc))
    return rows


def fault(row: Row, after: Link) -> str | None:
    """Return what keeps ``row`` from being the record that follows ``after``; None when it is."""
    seq, at_s, name, body, crc = row
    if seq != after.seq + 1:
        return f"it is missing; the record after {after.seq} has number {seq}"
    try:
        expected = _checksum(after.crc, seq, at_s, name, body)
    except (struct.error, AttributeError, TypeError, UnicodeError):
        return "its columns have types that no record has"
    if expected != crc:
        return f"expected checksum {expected}, got {crc!r}"
    return None
