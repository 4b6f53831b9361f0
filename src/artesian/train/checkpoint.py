"""Checkpoints in a folder: whole or not there, checked before they are believed.

A checkpoint is a folder ``step-00000040`` with ``state.pt`` and ``manifest.json``. It is written under a
temporary name, flushed to the device, and renamed: a crash at any instant leaves the checkpoints before
it as they were. The manifest holds the size and SHA-256 of the state; what does not match is not loaded.
"""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch

import artesian
from artesian.train.errors import CheckpointError

_FORMAT = 1
_STATE, _MANIFEST = "state.pt", "manifest.json"
_PREFIX, _TEMPORARY = "step-", ".tmp-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint says about itself. ``position`` is the number of samples the job has consumed."""

    format: int
    step: int
    position: int
    world_size: int
    size_bytes: int
    sha256: str
    artesian: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A checkpoint that was passed over, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was read and verified; ``rejected`` are the newer ones that were not whole."""

    manifest: Manifest
    state: Mapping[str, Any]
    rejected: tuple[Rejected, ...]


class Checkpointer:
    """Saves to and loads from one folder. One process at a time may save; any number may load."""

    def __init__(self, folder: Path | str, *, keep_last: int = 2) -> None:
        """Keep the newest ``keep_last`` checkpoints; two, so that one is whole if the other is damaged."""
        if keep_last < 1:
            raise ValueError(f"keep_last must be positive, got {keep_last}")
        self.folder = Path(folder)
        self._keep_last = keep_last

    def save(
        self, step: int, state: Mapping[str, Any], *, position: int = 0, world_size: int = 1
    ) -> Manifest:
        """Write ``state`` as the checkpoint of ``step``; it is durable when this returns.

        Then the older ones are removed, and those of later steps too: a run that saves ``step`` has left
        them behind. ``state`` may hold tensors on any device, numbers, strings, lists and dicts.

        Raises CheckpointError when it cannot be written (a full disk): the checkpoints from before are
        untouched.
        """
        target = self.folder / f"{_PREFIX}{step:08d}"
        temporary = self.folder / f"{_TEMPORARY}{target.name}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.sweep()
            manifest = _write(temporary, state, step, position, world_size)
            if target.exists():  # damaged, or of a run that was rolled back to before it
                os.rename(target, self.folder / f"{_TEMPORARY}old-{target.name}")
            os.rename(temporary, target)
            _sync_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):  # what is left is swept at the next save
                shutil.rmtree(temporary)
            raise CheckpointError(
                f"cannot write the checkpoint of step {step} to {self.folder}: {error.strerror or error}",
                hint="free space or name another folder; earlier checkpoints are intact",
            ) from error
        self._remove_all_but(step)
        return manifest

    def load_newest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint, its tensors on the CPU; None where none was ever saved.

        Raises CheckpointError when there are checkpoints but none is whole: starting from scratch is not
        for this library to decide.
        """
        rejected: list[Rejected] = []
        for step in reversed(self.steps()):
            path = self.folder / f"{_PREFIX}{step:08d}"
            try:
                manifest, state = _read(path)
            except (OSError, ValueError) as error:
                rejected.append(Rejected(path=path, reason=str(error)))
                continue
            return Checkpoint(manifest=manifest, state=state, rejected=tuple(rejected))
        if rejected:
            reasons = "; ".join(f"{item.path.name}: {item.reason}" for item in rejected)
            raise CheckpointError(
                f"no checkpoint in {self.folder} is whole: {reasons}",
                hint="move them away to start from scratch",
            )
        return None

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints in the folder, lowest first, unverified."""
        if not self.folder.exists():
            return []
        names = [name.removeprefix(_PREFIX) for name in os.listdir(self.folder) if name.startswith(_PREFIX)]
        return sorted(int(name) for name in names if name.isdigit())

    def sweep(self) -> int:
        """Remove what a crash in the middle of a save has left, and return how many leftovers there were.

        For the process that saves. Raises OSError when a leftover cannot be removed.
        """
        leftovers = list(self.folder.glob(f"{_TEMPORARY}*"))
        for path in leftovers:
            shutil.rmtree(path)
        return len(leftovers)

    def _remove_all_but(self, step: int) -> None:
        steps = self.steps()
        kept = [older for older in steps if older <= step][-self._keep_last :]
        for other in steps:
            if other not in kept:
                # What cannot be removed is tried again at the next save; the new checkpoint is safe.
                shutil.rmtree(self.folder / f"{_PREFIX}{other:08d}", ignore_errors=True)
        with contextlib.suppress(OSError):
            self.sweep()


class _Digest:
    """A file that hashes and counts what is written to it, and remembers the error that stopped it.

    torch turns an OSError of the file it writes to into a RuntimeError about positions.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


def _write(folder: Path, state: Mapping[str, Any], step: int, position: int, world_size: int) -> Manifest:
    folder.mkdir()
    # Unbuffered: torch writes in large pieces, and an error must come from the write that met it.
    with (folder / _STATE).open("wb", buffering=0) as file:
        digest = _Digest(file)
        try:
            torch.save(dict(state), cast(IO[bytes], digest))
        except RuntimeError:
            if digest.error is None:
                raise
            raise digest.error from None
        os.fsync(file.fileno())
    manifest = Manifest(
        format=_FORMAT,
        step=step,
        position=position,
        world_size=world_size,
        size_bytes=digest.size_bytes,
        sha256=digest.sha256.hexdigest(),
        artesian=artesian.__version__,
    )
    with (folder / _MANIFEST).open("w") as text:
        json.dump(asdict(manifest), text)
        text.flush()
        os.fsync(text.fileno())
    _sync_folder(folder)
    return manifest


def _read(folder: Path) -> tuple[Manifest, Mapping[str, Any]]:
    """Raises OSError or ValueError, which say what is wrong with it."""
    manifest = _read_manifest(folder / _MANIFEST)
    path = folder / _STATE
    if (size := path.stat().st_size) != manifest.size_bytes:
        raise ValueError(f"{_STATE} should have {manifest.size_bytes} bytes, and has {size}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != manifest.sha256:
            raise ValueError(f"{_STATE} does not match its checksum")
        file.seek(0)
        try:
            state: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(f"{_STATE} holds more than tensors and plain data: {error}") from error
    return manifest, state


def _read_manifest(path: Path) -> Manifest:
    try:
        fields = json.loads(path.read_text())
        if fields["format"] != _FORMAT:
            raise ValueError(f"it has format {fields['format']}, this version reads {_FORMAT}")
        return Manifest(**fields)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{_MANIFEST} is damaged: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
