"""Snapshots: a state as bytes, tied to its place in the chain.

A snapshot is only a shortcut. It is used when it is whole, when the version that saved it is the one
that reads it (another version's ``apply`` may come to another state from the same records), and when
the record at its place still has the checksum it had. In every other case replay is the truth.

The bytes are lines of JSON, compressed: the image without its jobs, then a block of the archive in each line, then
some jobs in each line. So neither who saves nor who loads 100,000 jobs ever has them all in memory as text.
"""

import zlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple
from zlib import crc32

import msgspec

from artesian import __version__
from artesian.kernel.archive import Block
from artesian.kernel.image import StateImage
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.state import State
from artesian.store.chain import Link

_ENCODER = msgspec.json.Encoder(order="deterministic")
_IMAGE = msgspec.json.Decoder(StateImage)
_BLOCK = msgspec.json.Decoder(Block)
_JOBS = msgspec.json.Decoder(list[JobRecord])

_LINE = 100
"""Jobs in a line."""
_COMPRESSION = 1  # three times as quick as the default, for a sixth more bytes
_CHUNK_BYTES = 2**14


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
    packer = zlib.compressobj(_COMPRESSION)
    body = b"".join([*(packer.compress(line + b"\n") for line in _lines(state)), packer.flush()])
    version = _version()
    return SnapshotRow(at.seq, at.crc, version, body, _checksum(at, version, body))


def decode(row: SnapshotRow, at: Link) -> State | None:
    """Return the state after the record at ``at``, where the snapshot is found.

    None when another version saved it. Raises UnusableSnapshot when it is not what was saved, or was
    taken of another record.
    """
    try:
        expected = _checksum(Link(row.seq, row.record_crc), row.version, row.body)
        if expected == row.crc and row.record_crc == at.crc:
            return _restored(row.body) if row.version == _version() else None
    except (TypeError, ValueError, zlib.error) as error:
        raise UnusableSnapshot(f"it is no state: {error}") from error
    if expected != row.crc:
        raise UnusableSnapshot(f"expected checksum {expected}, got {row.crc!r}")
    raise UnusableSnapshot(f"it was taken of a record with checksum {row.record_crc}, here is {at.crc}")


def _version() -> str:
    return f"{__version__}, blocks and lines, with work"


def _lines(state: State) -> Iterator[bytes]:
    yield _ENCODER.encode(state.image(has_jobs=False))
    for block in state.archive.blocks:
        yield _ENCODER.encode(block)
    jobs = iter(state.jobs.values())
    while line := list(islice(jobs, _LINE)):
        yield _ENCODER.encode(line)


def _restored(body: bytes) -> State:
    lines = _unpacked(body)
    image = _IMAGE.decode(next(lines))
    line = next(lines, None)
    while line is not None and line.startswith(b"{"):
        image.blocks.append(_BLOCK.decode(line))
        line = next(lines, None)
    state = State.from_image(image)
    while line is not None:
        state.restore(_JOBS.decode(line))
        line = next(lines, None)
    return state


def _unpacked(body: bytes) -> Iterator[bytes]:
    unpacker = zlib.decompressobj()
    left = b""
    for start in range(0, len(body), _CHUNK_BYTES):
        *lines, left = (left + unpacker.decompress(body[start : start + _CHUNK_BYTES])).split(b"\n")
        yield from lines
