"""A checkpoint in parts: an image of each rank's, and a manifest that names them all.

Each rank writes its part on its own, under the name of the save: ``part-00003.bin``, and when that is durable
``part-00003.json`` with the checksum of every 16 MiB. When all of them are there, rank 0 puts the manifest, which
holds what the others say and is the commit. Before that instant there is no checkpoint, and no part of it counts for
another save: the name has a number that no other save has, of whatever process.

Needs the standard library only.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import artesian
from artesian.train.fence import check, hold
from artesian.train.manifest import MANIFEST, folder_name, sealed, unsealed
from artesian.train.storage import PIECE_BYTES, Storage, not_saved, remove_old, verified

FORMAT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """One save of all ranks: ``number`` is the same on all of them, and of no other save.

    ``position`` is the number of samples that the job has consumed.
    """

    step: int
    position: int
    world_size: int
    number: str

    @property
    def name(self) -> str:
        return f"{folder_name(self.step)}-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one rank has written: its image, whose first ``document_bytes`` say what the tensors are."""

    rank: int
    file: str
    size_bytes: int
    document_bytes: int
    crc32s: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsManifest:
    """What a checkpoint in parts says about itself; ``parts`` in the order of their ranks."""

    format: int
    step: int
    position: int
    world_size: int
    size_bytes: int
    artesian: str
    save: str
    parts: tuple[Part, ...]


def write_part(
    storage: Storage, save: Save, rank: int, pieces: Iterable[memoryview], document_bytes: int
) -> Part:
    """Write a rank's image, given in pieces of 16 MiB; it is durable when this returns.

    Raises CheckpointError when it cannot be written (a full disk), SupersededError where a later attempt has come: the
    checkpoints from before are intact.
    """
    stem = f"part-{rank:05d}"
    try:
        check(storage)
        size_bytes, crc32s = storage.put_part(save.name, f"{stem}.bin", pieces)
        part = Part(
            rank=rank,
            file=f"{stem}.bin",
            size_bytes=size_bytes,
            document_bytes=document_bytes,
            crc32s=tuple(crc32s),
        )
        storage.put_note(save.name, f"{stem}.json", sealed({**asdict(save), **asdict(part)}))
    except OSError as error:
        what = f"part {rank} of the checkpoint of step {save.step}"
        raise not_saved("write", what, storage, error) from error
    return part


def commit_parts(
    storage: Storage, save: Save, *, keep_last: int, keep_every: int | None, is_tidying: bool = True
) -> PartsManifest | None:
    """Make a checkpoint of the parts of ``save``; None, and nothing is done, while not all of them are there.

    Then the older checkpoints are removed as ``write_checkpoint`` does; not by one that ``is_tidying`` no more, as
    its run may have been followed by another.

    Raises CheckpointError when it cannot be written, SupersededError where a later attempt has come: the checkpoints from
    before are intact.
    """
    try:
        parts = _parts_there(storage, save)
        if len(parts) < save.world_size:
            check(storage)  # which has swept them: they would be waited for in vain
            return None
        manifest = PartsManifest(
            format=FORMAT,
            step=save.step,
            position=save.position,
            world_size=save.world_size,
            size_bytes=sum(part.size_bytes for part in parts),
            artesian=artesian.__version__,
            save=save.name,
            parts=tuple(parts),
        )
        with storage.alone():
            hold(storage)
            storage.commit(save.name, save.step, sealed(asdict(manifest)))
            if is_tidying:
                with contextlib.suppress(OSError):  # tried again at the next save; the new one is safe
                    remove_old(storage, save.step, keep_last, keep_every)
    except OSError as error:
        raise not_saved("commit", f"the checkpoint of step {save.step}", storage, error) from error
    return manifest


def parse_parts(fields: Mapping[str, Any]) -> PartsManifest:
    """Return the manifest of format 3. Raises ValueError for one that is damaged or of another format."""
    try:
        found = unsealed(fields)
        parts = tuple(_part({**part, "crc32s": tuple(part["crc32s"])}) for part in found["parts"])
        manifest = PartsManifest(**{**found, "parts": parts})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error!r}") from error
    if [part.rank for part in parts] != list(range(manifest.world_size)):
        raise ValueError(f"{MANIFEST} is damaged: it should name the parts of {manifest.world_size} ranks")
    return manifest


def read_pieces(
    storage: Storage, manifest: PartsManifest, part: Part, wanted: Iterable[int] | None = None
) -> Iterator[tuple[int, memoryview]]:
    """Yield where a piece of a part begins, and the piece, checked: those whose numbers are ``wanted``, or all.

    A piece is valid until the next one is asked for. Raises ValueError where the part is not what the manifest says,
    OSError where it cannot be read.
    """
    numbers = range(len(part.crc32s)) if wanted is None else sorted(set(wanted))
    with storage.open_part(manifest.save, manifest.step, part.file) as file:
        yield from verified(file, part.file, part.size_bytes, part.crc32s, numbers)


def read_document(storage: Storage, manifest: PartsManifest, part: Part) -> bytes:
    """Return a part's document, checked. Raises as ``read_pieces`` does."""
    numbers = range(-(-part.document_bytes // PIECE_BYTES))
    document = b"".join(bytes(piece) for _, piece in read_pieces(storage, manifest, part, numbers))
    return document[: part.document_bytes]


def _parts_there(storage: Storage, save: Save) -> list[Part]:
    found = {}
    for note in storage.notes(save.name, save.world_size):
        try:
            fields = unsealed(json.loads(note))
            about, part = asdict(save), {key: fields[key] for key in Part.__dataclass_fields__}
        except (ValueError, KeyError, TypeError):  # it is being written
            continue
        if all(fields.get(key) == value for key, value in about.items()):
            found[part["rank"]] = _part(part)
    return [found[rank] for rank in sorted(found)]


def _part(fields: Mapping[str, Any]) -> Part:
    return Part(**{**fields, "crc32s": tuple(fields["crc32s"]), "file": os.path.basename(fields["file"])})
