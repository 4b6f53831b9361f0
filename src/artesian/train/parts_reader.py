"""Reads checkpoints in parts through ``torch.distributed.checkpoint``: each rank takes what its own shards need.

::

    reader = open_parts("s3://bucket/run")              # the newest, or that of a step
    torch.distributed.checkpoint.load(state, storage_reader=reader)

``state`` is ``{"model": ..., "optimizer": ...}`` of ``get_state_dict``, sharded over any number of ranks. What is read
is checked, in pieces of 16 MiB, before it is used. Nothing in storage is pickled.
"""

import io
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from artesian.train.image import Slot, parse
from artesian.train.parts import FORMAT, Part, PartsManifest, parse_parts, read_document, read_pieces
from artesian.train.plain import from_plain
from artesian.train.shards import plain_name
from artesian.train.storage import PIECE_BYTES, Storage, open_storage

_STATE = ("model", "optimizer")


@dataclass(frozen=True, slots=True)
class _Range:
    """Some bytes of an image: the rows of a tensor that are wanted."""

    start: int
    stop: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class PartsReader(StorageReader):
    """One checkpoint in parts. A reader is for one load."""

    def __init__(
        self, storage: Storage, manifest: PartsManifest, documents: Mapping[int, bytes] | None = None
    ) -> None:
        """``documents`` are those of the parts, by rank, where somebody has read them already."""
        self.manifest = manifest
        self._storage = storage
        self._documents = dict(documents or {})
        self._plain: dict[str, Any] = {}
        self._places: dict[MetadataIndex, tuple[Part, Slot]] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Do nothing: a reader has one checkpoint."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:  # noqa: ARG003
        """Return False: it is made with ``open_parts``, not from an id."""
        return False

    def read_metadata(self) -> Metadata:
        """Return what there is. Raises ValueError for a damaged part, OSError for one that cannot be read."""
        found: dict[str, STORAGE_TYPES] = {}
        paths: dict[str, Any] = {}
        for part in self.manifest.parts:
            slots, meta, tree = parse(self._document(part))
            for key, path, leaf in _leaves(slots, meta, tree):
                paths[key] = path
                if not isinstance(leaf, Slot):
                    found.setdefault(key, BytesStorageMetadata())
                    self._plain.setdefault(key, leaf)
                    continue
                shape, offset = meta["shards"].get(key, (leaf.shape, [0] * len(leaf.shape)))
                about = found.setdefault(
                    key,
                    TensorStorageMetadata(TensorProperties(dtype=leaf.dtype), torch.Size(shape), []),
                )
                index = MetadataIndex(key, offset)
                is_empty = 0 in leaf.shape and 0 not in shape
                # Replicas have the same shard: the lowest rank's will do.
                if not is_empty and index not in self._places and isinstance(about, TensorStorageMetadata):
                    self._places[index] = (part, leaf)
                    about.chunks.append(ChunkStorageMetadata(torch.Size(offset), torch.Size(leaf.shape)))
        return Metadata(state_dict_metadata=found, planner_data=paths)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:
        """Do nothing: ``read_metadata`` has done it."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read what the plan says. Raises ValueError for a damaged part, OSError for one that cannot be read."""
        of_parts: dict[Part, list[tuple[ReadItem, Slot]]] = defaultdict(list)
        for item in plan.items:
            if item.type == LoadItemType.BYTE_IO:
                box = io.BytesIO()  # planners want a pickle: this one is made here, of plain data
                torch.save(self._plain[item.storage_index.fqn], box)
                box.seek(0)
                planner.load_bytes(item, box)
            else:
                part, slot = self._places[item.storage_index]
                of_parts[part].append((item, slot))
        for part, wanted in of_parts.items():
            ranges = [_rows(slot, item.storage_offsets, item.lengths) for item, slot in wanted]
            for number, tensor in self._read(part, ranges):
                item = wanted[number][0]
                for dim in range(1, tensor.dim()):
                    tensor = tensor.narrow(dim, item.storage_offsets[dim], item.lengths[dim])
                target = planner.resolve_tensor(item).detach()
                target.copy_(tensor)
                planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def rest(self, rank: int) -> dict[str, Any]:
        """Return what ``rank`` has saved beside model and optimizer. Raises as ``read_data`` does."""
        part = self.manifest.parts[rank]
        slots, _, tree = parse(self._document(part))
        rest = {key: value for key, value in tree["dict"].items() if key not in _STATE}
        found: dict[str, Any] = from_plain({"dict": rest}, _OnDemand(self, part, slots))
        return found

    def read_slot(self, part: Part, slot: Slot) -> Tensor:
        """Return one tensor of a part. Raises as ``read_data`` does."""
        wanted = _rows(slot, [0] * len(slot.shape), slot.shape)
        return next(tensor for _, tensor in self._read(part, [wanted]))

    def _document(self, part: Part) -> bytes:
        if part.rank not in self._documents:
            self._documents[part.rank] = read_document(self._storage, self.manifest, part)
        return self._documents[part.rank]

    def _read(self, part: Part, ranges: Sequence[_Range]) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of a range and its tensor, as soon as all of its bytes are there and checked."""
        order = sorted(range(len(ranges)), key=lambda number: ranges[number].start)
        numbers = {
            number
            for each in ranges
            for number in range(each.start // PIECE_BYTES, -(-each.stop // PIECE_BYTES))
        }
        open_ones: dict[int, Tensor] = {}
        ahead = iter(order)
        following = next(ahead, None)
        while following is not None and ranges[following].start == ranges[following].stop:
            yield following, _shaped(torch.empty(0, dtype=torch.uint8), ranges[following])
            following = next(ahead, None)
        for start, piece in read_pieces(self._storage, self.manifest, part, numbers):
            end = start + len(piece)
            while following is not None and ranges[following].start < end:
                wanted = ranges[following]
                open_ones[following] = torch.empty(wanted.stop - wanted.start, dtype=torch.uint8)
                following = next(ahead, None)
            for number in list(open_ones):
                wanted, data = ranges[number], open_ones[number]
                first, last = max(wanted.start, start), min(wanted.stop, end)
                if first < last:
                    target = data.numpy().data
                    target[first - wanted.start : last - wanted.start] = piece[first - start : last - start]
                if wanted.stop <= end:
                    del open_ones[number]
                    yield number, _shaped(data, wanted)
        while following is not None:  # empty ones behind the last piece
            yield following, _shaped(torch.empty(0, dtype=torch.uint8), ranges[following])
            following = next(ahead, None)


class StagedPlanner(DefaultLoadPlanner):
    """Plans a load whose tensors go to memory of their own first: ``apply`` them when all ranks have read theirs.

    So a state is left as it is by a checkpoint that turns out to be damaged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._staged: list[tuple[Tensor, Tensor]] = []

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        target: Tensor = super().resolve_tensor(read_item)
        staged = torch.empty(target.shape, dtype=target.dtype)
        self._staged.append((target.detach(), staged))
        return staged

    def apply(self) -> None:
        """Copy what was read to where it belongs."""
        for target, staged in self._staged:
            target.copy_(staged)
        self._staged.clear()


def open_parts(
    where: Path | str, step: int | None = None, *, options: Mapping[str, Any] | None = None
) -> PartsReader:
    """Return a reader of the checkpoint of ``step`` in a folder or at a URL of fsspec's; None: of the newest.

    Raises ValueError where it is damaged, or not in parts, OSError where there is none.
    """
    storage = open_storage(where, options)
    steps = storage.steps()
    if step is None and not steps:
        raise FileNotFoundError(f"{storage.name} holds no checkpoint")
    return PartsReader(storage, read_manifest(storage, steps[-1] if step is None else step))


def read_manifest(storage: Storage, step: int) -> PartsManifest:
    """Return the manifest of a checkpoint in parts. Raises ValueError or OSError, which say what is wrong."""
    fields = storage.manifest(step)
    if fields.get("format") != FORMAT:
        raise ValueError(f"it has format {fields.get('format')!r}; in parts it has {FORMAT}")
    manifest = parse_parts(fields)
    if manifest.step != step:
        raise ValueError(f"it is of step {manifest.step}")
    return manifest


class _OnDemand(Sequence[Tensor]):
    """The tensors of a part, of which few are wanted."""

    def __init__(self, reader: PartsReader, part: Part, slots: Sequence[Slot]) -> None:
        self._reader, self._part, self._slots = reader, part, slots

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, number: Any) -> Any:
        return self._reader.read_slot(self._part, self._slots[number])


def _leaves(
    slots: Sequence[Slot], meta: Mapping[str, Any], tree: Any
) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Yield key, path and value of all that model and optimizer hold, as DCP names them; of a tensor, its slot."""
    shapes = [torch.empty(slot.shape, dtype=slot.dtype, device="meta") for slot in slots]
    of = {id(shape): slot for shape, slot in zip(shapes, slots, strict=True)}
    state = from_plain({"dict": {key: tree["dict"][key] for key in _STATE}}, shapes)
    names, optimizer = meta["names"], state["optimizer"]
    nested = {
        "model": {plain_name(name): value for name, value in state["model"].items()},
        "optimizer": {
            "state": {names[number]: entry for number, entry in optimizer["state"].items()},
            "param_groups": [
                {**group, "params": [names[number] for number in group["params"]]}
                for group in optimizer["param_groups"]
            ],
        },
    }
    flat, paths = flatten_state_dict(nested)
    for key, leaf in flat.items():
        yield key, paths[key], of.get(id(leaf), leaf)


def _rows(slot: Slot, offsets: Sequence[int], lengths: Sequence[int]) -> _Range:
    """Return the range of a tensor that holds the part of it which is wanted: whole rows."""
    if not slot.shape:
        return _Range(slot.offset, slot.offset + slot.size_bytes, slot.dtype, ())
    row_bytes = slot.size_bytes // max(1, slot.shape[0])
    start = slot.offset + offsets[0] * row_bytes
    shape = (lengths[0], *slot.shape[1:])
    return _Range(start, start + lengths[0] * row_bytes, slot.dtype, shape)


def _shaped(data: Tensor, wanted: _Range) -> Tensor:
    return data.view(wanted.dtype).view(wanted.shape)
