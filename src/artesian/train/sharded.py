"""Checkpoints of sharded state (FSDP2), which any number of ranks loads through ``torch.distributed.checkpoint``.

Every rank writes its shards (``parts``), and takes back what its own shards need (``parts_reader``). The manifest, with
checksums of all parts, is written last and is the commit; what has none, or does not match it, is not loaded.

Every rank calls the same functions in the same order, with a folder that all nodes share or a URL.
"""

import contextlib
import os
import secrets
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.storage import StorageReader
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from artesian.train import fence
from artesian.train.checkpoint import Rejected, none_is_whole
from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.fence import Writer
from artesian.train.finality import is_lasting
from artesian.train.image import Layout, encode_tree, pieces_of
from artesian.train.manifest import MANIFEST, folder_name, seal_of
from artesian.train.membership import gathered
from artesian.train.parts import FORMAT, PartsManifest, Save, commit_parts, read_document, write_part
from artesian.train.parts_reader import PartsReader, StagedPlanner, read_manifest
from artesian.train.plain import to_plain
from artesian.train.shards import ShardTable, load_shards, local_shards, restore_shards
from artesian.train.storage import PIECE_BYTES, open_storage

__all__ = [
    "ShardedCheckpoint",
    "ShardedCheckpointer",
    "load_shards",
    "local_shards",
    "restore_shards",
]

_DCP_FORMAT = "dcp-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedCheckpoint:
    """A sharded checkpoint that was loaded. ``world_size`` is of the job that saved it.

    ``rest`` is what was saved beside model and optimizer: by this rank where as many ranks load as saved, else by
    rank 0. ``extra`` of it is what ``save`` was given.
    """

    step: int
    position: int
    world_size: int
    rest: Mapping[str, Any]
    rejected: tuple[Rejected, ...]

    @property
    def extra(self) -> Mapping[str, Any]:
        extra: Mapping[str, Any] = self.rest["extra"]
        return extra


class ShardedCheckpointer:
    """Saves and loads a model and its optimizer, sharded or not, in one place."""

    def __init__(
        self,
        folder: Path | str,
        *,
        keep_last: int = 2,
        keep_every: int | None = None,
        group: dist.ProcessGroup | None = None,
        options: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """``folder`` is one that all nodes share, or a URL of fsspec's with its ``options``.

        Keep the newest ``keep_last``, and for good those of every ``keep_every`` steps. ``group`` needs a CPU backend
        (gloo) for what the ranks tell each other; None: the default group. ``environ`` says which attempt of a job
        this is: an earlier one than has saved there may not save.
        """
        if keep_last < 1:
            raise ValueError(f"keep_last must be positive, got {keep_last}")
        if keep_every is not None and keep_every < 1:
            raise ValueError(f"keep_every must be positive, got {keep_every}")
        self.folder = Path(folder)
        self.storage = open_storage(folder, options, writer=Writer.from_env(environ))
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._group = group

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        position: int = 0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the checkpoint of ``step``; it is durable when this returns on any rank.

        ``extra`` is plain data. The older checkpoints are removed then, and those of later steps.

        Raises CheckpointError on every rank when one of them cannot write, SupersededError when a later attempt of this
        job has come: those before are intact.
        """
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        state = {"model": inner.state_dict(), "optimizer": optimizer.state_dict(), "extra": dict(extra or {})}
        self.save_state(step, state, ShardTable(inner, optimizer), position=position)

    def save_state(
        self, step: int, state: Mapping[str, Any], table: ShardTable, *, position: int = 0
    ) -> int | None:
        """Write ``state``, the two state dicts and what goes with them, and return its bytes in all, on rank 0.

        Raises as ``save`` does.
        """
        number = [secrets.token_hex(6)]
        self._broadcast(number)
        save = Save(step=step, position=position, world_size=self._world_size, number=number[0])
        what = f"the checkpoint of step {step} to {self.storage.name}"
        size_bytes = None
        try:
            with self._together(f"cannot write {what}"):
                if self._is_first:
                    fence.sweep(self.storage)  # what is in the way is told by the write
            with self._together(f"cannot write {what}"):
                tree, tensors = to_plain(local_shards(state))
                text = encode_tree(table.meta(state), tree)
                layout = Layout.of(list(tensors.values()), len(text))
                document = layout.document(text)
                pieces = pieces_of(layout, document, list(tensors.values()))
                write_part(self.storage, save, self._rank, pieces, len(document))
            with self._together(f"cannot commit {what}"):
                if self._is_first:
                    manifest = commit_parts(
                        self.storage, save, keep_last=self._keep_last, keep_every=self._keep_every
                    )
                    size_bytes = _size_of(manifest)
        except CheckpointError:
            if self._is_first:
                with contextlib.suppress(SupersededError):  # it is the later attempt's to sweep
                    fence.sweep(self.storage)
            raise
        return size_bytes

    def claim(self) -> None:
        """Keep earlier attempts of this job from saving here. For a run that restores, on all ranks.

        Raises on every rank: SupersededError when a later attempt has come, CheckpointError when that cannot be noted.
        """
        with self._together(f"cannot save to {self.storage.name}"):
            if self._is_first:
                fence.claim(self.storage)

    def load_newest(
        self, model: nn.Module, optimizer: Optimizer, *, at_most: int | None = None
    ) -> ShardedCheckpoint | None:
        """Load the newest whole checkpoint into ``model`` and ``optimizer``; None where there is none.

        ``at_most``: of those of this step and before only.
        The world may be larger or smaller than the one that saved. Every rank checks what it reads, and nothing
        changes before all have read theirs. Raises CheckpointError when there are checkpoints, but none is whole.
        """
        found: list[Any] = [None]
        with self._together(f"cannot read the checkpoints in {self.storage.name}"):
            if self._is_first:
                found = [[step for step in self.steps() if at_most is None or step <= at_most]]
        self._broadcast(found)
        rejected: list[Rejected] = []
        for step in reversed(found[0]):
            try:
                loaded = self._load(step, model, optimizer)
            except CheckpointError as error:
                path = self.folder / folder_name(step)
                rejected.append(Rejected(path=path, reason=str(error), is_damaged=error.is_final))
                continue
            return ShardedCheckpoint(**loaded, rejected=tuple(rejected))
        if rejected:
            raise none_is_whole(self.storage, rejected)
        return None

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints, lowest first, unverified."""
        return self.storage.steps()

    @property
    def _rank(self) -> int:
        return dist.get_rank(self._group) if dist.is_initialized() else 0

    @property
    def _world_size(self) -> int:
        return dist.get_world_size(self._group) if dist.is_initialized() else 1

    @property
    def _is_first(self) -> bool:
        return self._rank == 0

    def _load(self, step: int, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Load the checkpoint of ``step``, and return what it says. Raises CheckpointError on all ranks."""
        told: list[Any] = [None]
        with self._together("it cannot be read"):
            if self._is_first:
                fields = self.storage.manifest(step)
                if fields.get("format") == _DCP_FORMAT:
                    told = [_verified(self.folder / folder_name(step), fields)]
                else:
                    told = [read_manifest(self.storage, step)]
        self._broadcast(told)
        manifest = told[0]
        if isinstance(manifest, dict):
            self._take(FileSystemReader(self.folder / folder_name(step)), model, optimizer)
            # Saved by artesian 0.1, whose runs told two things apart.
            rest = {**manifest["extra"].get("rest", {}), "data": manifest["extra"].get("data")}
            rest["extra"] = manifest["extra"]
            about = {key: manifest[key] for key in ("step", "position", "world_size")}
            return {**about, "rest": rest}
        documents: dict[int, bytes] = {}
        with self._together("it cannot be read"):
            for part in manifest.parts[self._rank :: self._world_size]:
                documents[part.rank] = read_document(self.storage, manifest, part)
        for others in self._gathered(documents):
            documents.update(others)
        reader = PartsReader(self.storage, manifest, documents)
        rest = {}
        with self._together("it cannot be read"):
            rest = reader.rest(self._rank if manifest.world_size == self._world_size else 0)
        self._take(reader, model, optimizer)
        return {
            "step": manifest.step,
            "position": manifest.position,
            "world_size": manifest.world_size,
            "rest": rest,
        }

    def _take(self, reader: StorageReader, model: nn.Module, optimizer: Optimizer) -> None:
        """Have DCP read the shards of this rank, and bring them into the state when all ranks have theirs."""
        state: dict[str, Any] = {}
        planner = StagedPlanner()
        with self._together("it does not fit"):
            state = _state(model, optimizer)
        with self._together("it cannot be loaded"), _quietly():
            dcp_load(state, storage_reader=reader, planner=planner, process_group=self._group)
        planner.apply()
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])

    @contextlib.contextmanager
    def _together(self, what: str) -> Iterator[None]:
        """Raise CheckpointError on every rank when one of them has failed within the block."""
        failure: tuple[str, bool] | None = None
        refused: str | None = None
        try:
            yield
        except CheckpointException as error:  # DCP's, the same on all ranks, with a trace of each
            first, _ = next(iter(error.failures.values()))
            failure = f"{type(first).__name__}: {first}", is_lasting(first)
        except SupersededError as error:
            failure, refused = (str(error), True), error.hint
        except CheckpointError as error:
            failure = str(error), error.is_final
        except Exception as error:
            failure = f"{type(error).__name__}: {error}", isinstance(error, OSError) and is_lasting(error)
        said = self._gathered((failure, refused))
        told = {rank: failure for rank, (failure, _) in enumerate(said) if failure is not None}
        hint = next((hint for _, hint in said if hint is not None), None)
        if told:
            reasons = "; ".join(f"rank {rank}: {reason}" for rank, (reason, _) in told.items())
            if hint is not None:
                raise SupersededError(f"{what}: {reasons}", hint=hint)
            raise CheckpointError(
                f"{what}: {reasons}",
                hint="earlier checkpoints are intact",
                is_final=all(is_final for _, is_final in told.values()),
            )

    def _gathered(self, own: Any) -> list[Any]:
        return gathered(own, self._group or (dist.group.WORLD if dist.is_initialized() else None))

    def _broadcast(self, found: list[Any]) -> None:
        if dist.is_initialized():
            dist.broadcast_object_list(found, group=self._group, group_src=0)


def _size_of(manifest: PartsManifest | None) -> int:
    if manifest is None:
        raise CheckpointError("not all of the parts are there", hint="name a place that all ranks see")
    return manifest.size_bytes


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Let DCP be without a process group; it warns, and its argument to say that is younger than torch 2.6."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")
        yield


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {"model": model_state, "optimizer": optimizer_state}


def _verified(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a checkpoint of artesian 0.1, a folder of DCP's, when all of its files are whole.

    Raises OSError or ValueError, which say what is wrong.
    """
    found = dict(fields)
    try:
        check = found.pop("check")
        files = found["files"].items()
    except (KeyError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error!r}") from error
    if seal_of(found) != check:
        raise ValueError(f"{MANIFEST} is damaged, or of another format than {_DCP_FORMAT} and {FORMAT}")
    for name, facts in files:
        crc32 = 0
        with (path / name).open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                crc32 = zlib.crc32(piece, crc32)
            if [file.tell(), crc32] != facts:
                raise ValueError(f"{name} does not match its checksum")
    return found
