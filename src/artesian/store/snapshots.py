"""Snapshots: a state as bytes, tied to its place in the chain.

A snapshot is only a shortcut. It is used when it is whole, when the version that saved it is the one
that reads it (another version's ``apply`` may come to another state from the same records), and when
the record at its place still has the checksum it had. In every other case replay is the truth.
"""

from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import msgspec

from artesian import __version__
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.state import NodeRecord, State, StateImage
from artesian.store.chain import Link


@dataclass(slots=True, kw_only=True)
class _StoredImage:
    """A ``StateImage`` whose jobs are not decoded yet: all at once they would take three times the memory."""

    at_s: float
    first_s: float | None
    stale_events: int
    nodes: list[NodeRecord]
    jobs: list[msgspec.Raw]

    def state(self) -> State:
        image = StateImage(
            at_s=self.at_s, first_s=self.first_s, stale_events=self.stale_events, nodes=self.nodes
        )
        return State.from_image(image, map(_JOB.decode, self.jobs))


_ENCODER = msgspec.json.Encoder(order="deterministic")
_IMAGE = msgspec.json.Decoder(_StoredImage)
_JOB = msgspec.json.Decoder(JobRecord)


class SnapshotRow(NamedTuple):
    """A snapshot as it is stored. ``record_crc`` is the checksum of record ``seq``, where it was taken."""

    seq: int
    record_crc: int
    version: str
    body: bytes
    crc: int


class UnusableSnapshot(Exception):  # noqa: N818 - reads as what it is
    """The snapshot is damaged. ``str`` says how."""


def _checksum(at: Link, version: str, body: bytes) -> int:
    return crc32(body, crc32(f"{at.seq} {at.crc} {version}".encode()))


def encode(state: State, at: Link) -> SnapshotRow:
    """Return the snapshot of ``state``, which is the one after the record at ``at``."""
    body = _ENCODER.encode(state.image())
    return SnapshotRow(at.seq, at.crc, __version__, body, _checksum(at, __version__, body))


def decode(row: SnapshotRow, at: Link) -> State | None:
    """Return the state after the record at ``at``, where the snapshot is found.

    None when another version saved it. Raises UnusableSnapshot when it is not what was saved, or was
    taken of another record.
    """
    try:
        expected = _checksum(Link(row.seq, row.record_crc), row.version, row.body)
        if expected == row.crc and row.record_crc == at.crc:
            return _IMAGE.decode(row.body).state() if row.version == __version__ else None
    except (TypeError, ValueError) as error:
        raise UnusableSnapshot(f"it is no state: {error}") from error
    if expected != row.crc:
        raise UnusableSnapshot(f"expected checksum {expected}, got {row.crc!r}")
    raise UnusableSnapshot(f"it was taken of a record with checksum {row.record_crc}, here is {at.crc}")
