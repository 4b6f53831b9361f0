"""``Checkpointer``: saves a state to storage and loads the newest one that is whole."""

import hashlib
import io
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artesian.train.errors import CheckpointError
from artesian.train.fence import Writer, claim, hold
from artesian.train.finality import is_lasting
from artesian.train.image import Layout, Slot, encode_tree, parse, pieces_of
from artesian.train.manifest import FORMAT, Facts, Manifest, parse_manifest
from artesian.train.plain import from_plain, to_plain
from artesian.train.storage import Storage, open_storage, verified_pieces, write_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A checkpoint that was passed over, and why; ``is_damaged`` unless it may only not have been read this time."""

    path: Path
    reason: str
    is_damaged: bool = True


def none_is_whole(storage: Storage, rejected: Sequence[Rejected]) -> CheckpointError:
    """Return the error of who found checkpoints, and could load none of them."""
    reasons = "; ".join(f"{item.path.name}: {item.reason}" for item in rejected)
    return CheckpointError(
        f"no checkpoint in {storage.name} is whole: {reasons}",
        hint="move them away to start from scratch",
        is_final=all(item.is_damaged for item in rejected),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was read and verified; ``rejected`` are the newer ones that were not whole."""

    manifest: Manifest
    state: Mapping[str, Any]
    rejected: tuple[Rejected, ...]


class Checkpointer:
    """Saves to and loads from one place. One process at a time may save; any number may load."""

    def __init__(
        self,
        where: Path | str,
        *,
        keep_last: int = 2,
        keep_every: int | None = None,
        options: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Use a folder, or a URL of fsspec's with its ``options``.

        ``environ`` says which attempt of a job this is: an earlier one than has saved there may not save.

        Keep the newest ``keep_last`` checkpoints; two, so that one is whole if the other is damaged; and
        for good those of every ``keep_every`` steps.
        """
        if keep_last < 1:
            raise ValueError(f"keep_last must be positive, got {keep_last}")
        if keep_every is not None and keep_every < 1:
            raise ValueError(f"keep_every must be positive, got {keep_every}")
        self.folder = Path(where)
        self.storage: Storage = open_storage(where, options, writer=Writer.from_env(environ))
        self._keep_last = keep_last
        self._keep_every = keep_every

    def save(
        self, step: int, state: Mapping[str, Any], *, position: int = 0, world_size: int = 1
    ) -> Manifest:
        """Write ``state`` as the checkpoint of ``step``; it is durable when this returns.

        Then the older ones are removed, and those of later steps too: a run that saves ``step`` has left
        them behind. ``state`` may hold tensors on any device, arrays, plain data and containers of them.

        Raises CheckpointError when it cannot be written (a full disk), or when ``state`` holds what a
        checkpoint cannot; SupersededError when a later attempt of this job has come: the checkpoints from before are
        untouched.
        """
        tree, tensors = to_plain(state)
        text = encode_tree({}, tree)
        layout = Layout.of(list(tensors.values()), len(text))
        document = layout.document(text)
        return write_checkpoint(
            self.storage,
            Facts(step=step, position=position, world_size=world_size),
            pieces_of(layout, document, list(tensors.values())),
            len(document),
            keep_last=self._keep_last,
            keep_every=self._keep_every,
        )

    def claim(self) -> None:
        """Keep earlier attempts of this job from saving here. For a run that restores; who only reads leaves it.

        Raises SupersededError when a later one has come, CheckpointError when that cannot be read or noted.
        """
        claim(self.storage)

    def load_newest(self, *, at_most: int | None = None) -> Checkpoint | None:
        """Return the newest whole checkpoint, its tensors on the CPU; None where none was ever saved.

        ``at_most``: of those of this step and before only.

        Raises CheckpointError when there are checkpoints but none is whole: starting from scratch is not
        for this library to decide.
        """
        rejected: list[Rejected] = []
        for step in reversed(self.steps()):
            if at_most is not None and step > at_most:
                continue
            try:
                manifest, state = self._read(step)
            except (OSError, ValueError) as error:
                path = self.folder / f"step-{step:08d}"
                rejected.append(Rejected(path=path, reason=str(error), is_damaged=is_lasting(error)))
                continue
            return Checkpoint(manifest=manifest, state=state, rejected=tuple(rejected))
        if rejected:
            raise none_is_whole(self.storage, rejected)
        return None

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints, lowest first, unverified. Raises CheckpointError where they cannot be listed."""
        try:
            return self.storage.steps()
        except OSError as error:
            raise CheckpointError(
                f"cannot list the checkpoints in {self.storage.name}: {error.strerror or error}",
                is_final=is_lasting(error),
            ) from error

    def sweep(self) -> int:
        """Remove what a crash in the middle of a save has left, and return how many leftovers there were.

        For the process that saves. Raises OSError when a leftover cannot be removed, SupersededError when it may be
        of a later attempt.
        """
        with self.storage.alone():
            hold(self.storage)
            return self.storage.sweep()

    def _read(self, step: int) -> tuple[Manifest, Mapping[str, Any]]:
        """Raises OSError or ValueError, which say what is wrong with it."""
        fields = self.storage.manifest(step)
        match fields.get("format"):
            case 1:
                return _read_first_format(self.storage, step, fields)
            case 2:
                manifest = parse_manifest(fields)
            case other:
                raise ValueError(f"it has format {other}, this version reads 1 and {FORMAT}")
        if manifest.step != step:
            raise ValueError(f"it is of step {manifest.step}")
        return manifest, read_state(verified_pieces(self.storage, manifest), manifest.document_bytes)


def read_state(pieces: Iterator[memoryview], document_bytes: int) -> Any:
    """Return the state of an image that comes in verified pieces, each tensor in memory of its own.

    Raises ValueError for an image that does not hold together.
    """
    start = b""
    while len(start) < document_bytes:
        start += bytes(next(pieces, b"")) or _fail("the image ends within its document")
    slots, _, tree = parse(start[:document_bytes])
    tensors = [torch.empty(slot.shape, dtype=slot.dtype) for slot in slots]
    filled = _scatter(memoryview(start), 0, slots, tensors, 0)
    offset = len(start)
    for piece in pieces:
        filled = _scatter(piece, offset, slots, tensors, filled)
        offset += len(piece)
    return from_plain(tree, tensors)


def _scatter(
    piece: memoryview, offset: int, slots: Sequence[Slot], tensors: Sequence[Tensor], filled: int
) -> int:
    """Copy what ``piece``, which lies at ``offset``, holds of the tensors after the first ``filled``.

    Returns how many are filled then: the slots lie in the order of their offsets.
    """
    end = offset + len(piece)
    for slot, tensor in zip(slots[filled:], tensors[filled:], strict=True):
        if slot.offset >= end:
            break
        first, last = max(slot.offset, offset), min(slot.offset + slot.size_bytes, end)
        if first < last:
            target = tensor.view(-1).view(torch.uint8).numpy().data
            target[first - slot.offset : last - slot.offset] = piece[first - offset : last - offset]
        if slot.offset + slot.size_bytes > end:
            break
        filled += 1
    return filled


def _fail(reason: str) -> bytes:
    raise ValueError(reason)


def _read_first_format(
    storage: Storage, step: int, fields: Mapping[str, Any]
) -> tuple[Manifest, Mapping[str, Any]]:
    """Read a checkpoint of artesian 0.1: a file of ``torch.save`` and its SHA-256."""
    try:
        sha256 = fields["sha256"]
        manifest = Manifest(
            **{
                key: fields[key]
                for key in ("format", "step", "position", "world_size", "size_bytes", "artesian")
            },
            file="state.pt",
            document_bytes=0,
            crc32s=(),
        )
    except KeyError as error:
        raise ValueError(f"manifest.json is damaged: {error} is missing") from error
    with storage.open(step, manifest.file) as raw:
        data = raw.read()
    if len(data) != manifest.size_bytes:
        raise ValueError(f"{manifest.file} should have {manifest.size_bytes} bytes, and has {len(data)}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{manifest.file} does not match its checksum")
    try:
        state: Mapping[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{manifest.file} holds more than tensors and plain data: {error}") from error
    return manifest, state
