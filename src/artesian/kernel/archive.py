"""Jobs that were over long ago: kept for ever, and packed, so that a state does not grow by what it has done.

A job that is over changes no more. The latest of them stay as they are; the others are encoded, a block at a time,
in the order in which they ended: an eighth of the memory, nothing for the garbage collector to walk through, and
bytes that a snapshot only has to copy. Which ones are packed follows from the records alone, so that replay gives
the same archive, everywhere.
"""

import zlib
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct, field

from artesian.kernel.lifecycle import JobRecord

_BLOCK = 100
_OPEN = 16
"""Blocks that are kept unpacked, the latest used ones: jobs that are looked at lie close to each other."""
_COMPRESSION = 1

_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(tuple[JobRecord, ...])


class Block(Struct, frozen=True, kw_only=True, gc=False):
    """Some jobs, packed: their ids, when the last of them ended, and their records."""

    ids: tuple[str, ...]
    ended_s: float
    body: bytes


class ArchiveImage(Struct, kw_only=True, gc=False):
    """An archive but for its blocks, as plain data: for a snapshot.

    ``latest``: ids of those that are over and not packed yet, in the order in which they ended; ``loose``: packed
    next, when a block of them is full.
    """

    keeps: int | None
    latest: list[str] = field(default_factory=list)
    loose: list[JobRecord] = field(default_factory=list)


class Archive:
    """The jobs that are over, but for the latest ``keeps``; None: it takes none. Read-only records come out of it."""

    def __init__(self, keeps: int | None) -> None:
        self.keeps = keeps
        self.blocks: list[Block] = []
        self._latest: deque[str] = deque()
        self._loose: list[JobRecord] = []
        self._place: dict[str, int] = {}
        self._ids: list[str] = []
        self._open: OrderedDict[int, tuple[JobRecord, ...]] = OrderedDict()

    # -- reading ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._place

    @property
    def ids(self) -> Sequence[str]:
        """Ids in the order in which they came."""
        return self._ids

    def get(self, job_id: str) -> JobRecord | None:
        """Return the job; None where it is not here."""
        place = self._place.get(job_id)
        if place is None:
            return None
        block, slot = divmod(place, _BLOCK)
        return self._loose[slot] if block == len(self.blocks) else self._unpacked(block)[slot]

    def block_of(self, job_id: str) -> int:
        """Return the number of the block that a job of the archive is in: those of one cost one unpacking."""
        return self._place[job_id] // _BLOCK

    def records(self, *, ended_after_s: float | None = None) -> Iterator[JobRecord]:
        """Return the jobs, or at least those that ended after a time, as of now: also for another thread."""
        ends = [] if ended_after_s is None else [block.ended_s for block in self.blocks]
        first = 0 if ended_after_s is None else bisect_right(ends, ended_after_s)
        return _all_of(self.blocks[first:], tuple(self._loose))

    # -- what changes it ----------------------------------------------------------------------------

    def over(self, job_id: str) -> str | None:
        """A job is over: return which one's turn it is to be ``put`` here, if there are enough that are newer."""
        if self.keeps is None:
            return None
        self._latest.append(job_id)
        return self._latest.popleft() if len(self._latest) > self.keeps else None

    def put(self, record: JobRecord) -> None:
        """Take the job over."""
        self._note(record.job.id)
        self._loose.append(record)
        if len(self._loose) == _BLOCK:
            self.blocks.append(_packed(self._loose))
            self._loose = []

    # -- snapshots ----------------------------------------------------------------------------------

    def image(self) -> ArchiveImage:
        """Return everything but ``blocks``."""
        return ArchiveImage(keeps=self.keeps, latest=list(self._latest), loose=list(self._loose))

    def restore(self, image: ArchiveImage, blocks: Iterable[Block]) -> None:
        """Become, from nothing, the archive of which these are."""
        for block in blocks:
            self.restore_block(block)
        self._latest = deque(image.latest)
        for record in image.loose:
            self.put(record)

    def restore_block(self, block: Block) -> None:
        """Take a block over."""
        self.blocks.append(block)
        for job_id in block.ids:
            self._note(job_id)

    def _note(self, job_id: str) -> None:
        self._place[job_id] = len(self._ids)
        self._ids.append(job_id)

    def _unpacked(self, number: int) -> tuple[JobRecord, ...]:
        found = self._open.pop(number, None)
        if found is None:
            found = _unpack(self.blocks[number])
            if len(self._open) >= _OPEN:
                self._open.popitem(last=False)
        self._open[number] = found
        return found


def _packed(records: Sequence[JobRecord]) -> Block:
    ended_s = records[-1].ended_s
    assert ended_s is not None
    return Block(
        ids=tuple(record.job.id for record in records),
        ended_s=ended_s,
        body=zlib.compress(_ENCODER.encode(records), _COMPRESSION),
    )


def _unpack(block: Block) -> tuple[JobRecord, ...]:
    return _DECODER.decode(zlib.decompress(block.body))


def _all_of(blocks: Sequence[Block], loose: Sequence[JobRecord]) -> Iterator[JobRecord]:
    for block in blocks:
        yield from _unpack(block)
    yield from loose
