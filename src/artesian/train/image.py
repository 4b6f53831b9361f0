"""The image of a state: its bytes, the same in shared memory, on the wire and in a file.

::

    document     JSON: what the tensors are and where, and the tree of everything else (``plain``)
    padding      to a multiple of 4096 bytes, with room for the document to grow
    tensors      each contiguous, at a multiple of 64 bytes
    padding      to a multiple of 4096 bytes, so that the image can be written past the page cache

``Layout`` is where the tensors lie; it is kept from one snapshot to the next while their shapes stay.
"""

import json
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from artesian.train.plain import dtype_named, from_plain
from artesian.train.storage import PIECE_BYTES

PAGE_BYTES = 4096
_ALIGNMENT_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where one tensor lies: ``offset`` bytes from the start of the image."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count * self.dtype.itemsize

    def view(self, image: Tensor) -> Tensor:
        """Return this tensor as a view of ``image``, the image's bytes."""
        part = image[self.offset : self.offset + self.size_bytes]
        return part.view(self.dtype).view(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of the tensors in an image of ``size_bytes``, after ``room_bytes`` for the document."""

    slots: tuple[Slot, ...]
    room_bytes: int
    size_bytes: int
    table: str
    """The slots as JSON, made once: with thousands of tensors it is what takes longest."""

    @classmethod
    def of(cls, tensors: Sequence[Tensor], document_bytes: int) -> Self:
        """Lay out ``tensors`` after a document that takes about ``document_bytes`` without the table."""
        # The table's length depends on the offsets, and these on its length: 20 digits a tensor are enough.
        names = sum(len(_named(tensor.dtype)) + 8 * tensor.dim() + 40 for tensor in tensors)
        # A power of two: the next process of this rank, a digit further on, finds the same layout.
        room_bytes = 1 << (2 * document_bytes + names + PAGE_BYTES).bit_length()
        offset = room_bytes
        slots = []
        for tensor in tensors:
            slots.append(Slot(dtype=tensor.dtype, shape=tuple(tensor.shape), offset=offset))
            offset = _padded(offset + slots[-1].size_bytes, _ALIGNMENT_BYTES)
        table = json.dumps([[_named(slot.dtype), slot.shape, slot.offset] for slot in slots])
        return cls(tuple(slots), room_bytes, _padded(offset, PAGE_BYTES), table)

    def fits(self, tensors: Sequence[Tensor], document_bytes: int) -> bool:
        """Say whether ``tensors`` and such a document can be written with this layout."""
        return (
            len(tensors) == len(self.slots)
            and document_bytes + len(self.table) + 2 <= self.room_bytes
            and all(
                tensor.dtype == slot.dtype and tensor.shape == slot.shape
                for tensor, slot in zip(tensors, self.slots, strict=True)
            )
        )

    def document(self, tree: str) -> bytes:
        """Return the document: the table of the tensors, then ``tree``, which is JSON already."""
        return f"[{self.table},{tree}]".encode("ascii")


def encode_tree(meta: Mapping[str, Any], tree: Any) -> str:
    """Return meta and tree as the JSON that ``Layout.document`` takes."""
    return json.dumps([meta, tree])


def decode(document: bytes, tensor_at: Callable[[Slot], Tensor]) -> tuple[dict[str, Any], Any]:
    """Return the meta and the state of an image, whose tensors ``tensor_at`` gives.

    Raises ValueError for a document that is not one.
    """
    slots, meta, tree = parse(document)
    return meta, from_plain(tree, [tensor_at(slot) for slot in slots])


def parse(document: bytes) -> tuple[list[Slot], dict[str, Any], Any]:
    """Return the slots, the meta and the tree of a document. Raises ValueError if it is damaged."""
    try:
        table, (meta, tree) = json.loads(document)
        slots = [
            Slot(dtype=dtype_named(name), shape=tuple(shape), offset=offset) for name, shape, offset in table
        ]
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the document of the state is damaged: {error}") from error
    return slots, meta, tree


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _padded(size: int, to: int) -> int:
    return -(-size // to) * to


def pieces_of(layout: Layout, document: bytes, tensors: Sequence[Tensor]) -> Iterator[memoryview]:
    """Yield an image in pieces of 16 MiB, aligned to pages; each is valid until the next is asked for."""
    piece = memoryview(mmap.mmap(-1, PIECE_BYTES))
    start = 0
    for offset, data in _parts(layout, document, tensors):
        done = 0
        while done < len(data):
            if offset + done >= start + PIECE_BYTES:
                yield piece
                start += PIECE_BYTES
                continue
            at = offset + done - start
            count = min(len(data) - done, PIECE_BYTES - at)
            piece[at : at + count] = data[done : done + count]
            done += count
    while start + PIECE_BYTES < layout.size_bytes:
        yield piece
        start += PIECE_BYTES
    yield piece[: layout.size_bytes - start]


def _parts(layout: Layout, document: bytes, tensors: Sequence[Tensor]) -> Iterator[tuple[int, memoryview]]:
    yield 0, memoryview(document)
    for slot, tensor in zip(layout.slots, tensors, strict=True):
        if slot.size_bytes:
            data = tensor.to("cpu").contiguous().reshape(-1).view(torch.uint8)
            yield slot.offset, data.numpy().data
