"""Checkpoints of sharded state (FSDP2), in the format of ``torch.distributed.checkpoint``.

Every rank writes its shards, and any number of ranks reads them back: each takes what its own shards need.
The folder of a checkpoint is one of DCP's, which its tools read too, with a manifest beside DCP's metadata: sizes
and checksums of all files, written last. It is the commit; what has none, or does not match it, is not loaded.

Every rank calls the same functions in the same order, with a folder that all nodes share.
"""

import contextlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

import artesian
from artesian.train.checkpoint import Rejected
from artesian.train.directory import sync_folder
from artesian.train.errors import CheckpointError
from artesian.train.manifest import MANIFEST, folder_name, steps_among

_FORMAT = "dcp-1"
_TEMPORARY = ".tmp-"
_PIECE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedCheckpoint:
    """A sharded checkpoint that was loaded. ``world_size`` is of the job that saved it."""

    step: int
    position: int
    world_size: int
    extra: Mapping[str, Any]
    rejected: tuple[Rejected, ...]


class ShardedCheckpointer:
    """Saves and loads a model and its optimizer, sharded or not, in one folder."""

    def __init__(
        self, folder: Path | str, *, keep_last: int = 2, group: dist.ProcessGroup | None = None
    ) -> None:
        """``group`` needs a CPU backend (gloo) for what the ranks tell each other; None: the default group."""
        if keep_last < 1:
            raise ValueError(f"keep_last must be positive, got {keep_last}")
        self.folder = Path(folder)
        self._keep_last = keep_last
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

        ``extra`` is rank 0's, and plain data that JSON can hold. The older checkpoints are removed then.

        Raises CheckpointError on every rank when one of them cannot write: those before are intact.
        """
        target = self.folder / folder_name(step)
        temporary = self.folder / f"{_TEMPORARY}{target.name}"
        with self._together(f"cannot write the checkpoint of step {step} to {self.folder}"):
            if self._is_first:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._sweep()
        with self._together(f"cannot write the checkpoint of step {step} to {self.folder}"), _quietly():
            dcp_save(_state(model, optimizer), checkpoint_id=temporary, process_group=self._group)
        with self._together(f"cannot commit the checkpoint of step {step} to {self.folder}"):
            if self._is_first:
                _commit(temporary, target, self._manifest(step, position, extra or {}))
                self._remove_old(step)

    def load_newest(
        self, model: nn.Module, optimizer: Optimizer, *, at_most: int | None = None
    ) -> ShardedCheckpoint | None:
        """Load the newest whole checkpoint into ``model`` and ``optimizer``; None where there is none.

        ``at_most``: of those of this step and before only.
        The world may be larger or smaller than the one that saved. Rank 0 verifies every file, and all load
        what it found whole. Raises CheckpointError when there are checkpoints, but none is whole.
        """
        found: list[Any] = [None, []]
        with self._together(f"cannot read the checkpoints in {self.folder}"):
            if self._is_first:
                found = self._newest_whole(at_most)
        self._broadcast(found)
        fields, rejected = found
        if fields is None:
            if rejected:
                reasons = "; ".join(f"{item.path.name}: {item.reason}" for item in rejected)
                raise CheckpointError(
                    f"no checkpoint in {self.folder} is whole: {reasons}",
                    hint="move them away to start from scratch",
                )
            return None
        with self._together(f"cannot load the checkpoint of step {fields['step']} from {self.folder}"):
            state = _state(model, optimizer)
            path = self.folder / folder_name(fields["step"])
            with _quietly():
                dcp_load(state, checkpoint_id=path, process_group=self._group)
            set_state_dict(
                model,
                optimizer,
                model_state_dict=state["model"],
                optim_state_dict=state["optimizer"],
            )
        return ShardedCheckpoint(
            step=fields["step"],
            position=fields["position"],
            world_size=fields["world_size"],
            extra=fields["extra"],
            rejected=tuple(rejected),
        )

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints in the folder, lowest first, unverified."""
        return steps_among(os.listdir(self.folder)) if self.folder.exists() else []

    def size_bytes(self, step: int) -> int:
        """Return how much the files of a checkpoint take in all."""
        return sum(path.stat().st_size for path in (self.folder / folder_name(step)).rglob("*"))

    @property
    def _is_first(self) -> bool:
        return not dist.is_initialized() or dist.get_rank(self._group) == 0

    def _manifest(self, step: int, position: int, extra: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "step": step,
            "position": position,
            "world_size": dist.get_world_size(self._group) if dist.is_initialized() else 1,
            "extra": dict(extra),
            "artesian": artesian.__version__,
        }

    def _newest_whole(self, at_most: int | None) -> list[Any]:
        rejected: list[Rejected] = []
        for step in reversed(self.steps()):
            if at_most is not None and step > at_most:
                continue
            path = self.folder / folder_name(step)
            try:
                return [_verified(path), rejected]
            except (OSError, ValueError) as error:
                rejected.append(Rejected(path=path, reason=str(error)))
        return [None, rejected]

    def _remove_old(self, step: int) -> None:
        steps = self.steps()
        kept = [older for older in steps if older <= step][-self._keep_last :]
        for other in steps:
            if other not in kept:
                shutil.rmtree(self.folder / folder_name(other), ignore_errors=True)

    def _sweep(self) -> None:
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(path)

    @contextlib.contextmanager
    def _together(self, what: str) -> Iterator[None]:
        """Raise CheckpointError on every rank when one of them has failed within the block."""
        failure: str | None = None
        try:
            yield
        except Exception as error:  # DCP wraps what a rank met in errors of its own
            failure = f"{type(error).__name__}: {error}"
        failures = [failure]
        if dist.is_initialized():
            failures = [None] * dist.get_world_size(self._group)
            dist.all_gather_object(failures, failure, group=self._group)
        told = [f"rank {rank}: {reason}" for rank, reason in enumerate(failures) if reason is not None]
        if told:
            raise CheckpointError(f"{what}: {'; '.join(told)}", hint="earlier checkpoints are intact")

    def _broadcast(self, found: list[Any]) -> None:
        if dist.is_initialized():
            dist.broadcast_object_list(found, group=self._group, group_src=0)


def local_shards(state: Any) -> Any:
    """Return ``state`` with each DTensor replaced by this rank's shard, for ``Memory``: no copy is made.

    The shard is a view: what is loaded back is copied into it with ``restore_shards``.
    """
    match state:
        case DTensor():
            return state.to_local()
        case dict():
            return {key: local_shards(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(local_shards(value) for value in state)
        case _:
            return state


def restore_shards(state: Any, shards: Any) -> None:
    """Copy ``shards``, which ``local_shards`` of a state like ``state`` were, into its tensors.

    For ranks that shard as those that saved; another number of ranks loads from storage.
    """
    match state:
        case DTensor():
            state.to_local().detach().copy_(shards)
        case torch.Tensor():
            state.detach().copy_(shards)
        case dict():
            for key, value in state.items():
                restore_shards(value, shards[key])
        case list() | tuple():
            for value, shard in zip(state, shards, strict=True):
                restore_shards(value, shard)


def load_shards(model: nn.Module, optimizer: Optimizer, shards: Mapping[str, Any]) -> None:
    """Go back to ``shards``, which ``local_shards`` of the two state dicts were, on a rank that has the same part.

    The optimizer need not have made a step yet, as in a process that has just begun.
    """
    with torch.no_grad():
        restore_shards(model.state_dict(), shards["model"])
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    saved = shards["optimizer"]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    of = dict(zip(numbers, parameters, strict=True))
    moments = {
        number: {name: _sharded_like(value, of[number]) for name, value in entry.items()}
        for number, entry in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": moments})


def _sharded_like(value: Any, parameter: torch.Tensor) -> Any:
    """Return a shard of an optimizer's state as a DTensor, where it is one of its parameter's shape."""
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor):
        return value
    local = parameter.to_local()
    if value.dim() == 0 or value.shape != local.shape:
        return value
    return DTensor.from_local(
        value.to(local.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Let DCP be without a process group; it warns, and its argument to say that is younger than torch 2.6."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {"model": model_state, "optimizer": optimizer_state}


def _commit(temporary: Path, target: Path, manifest: dict[str, Any]) -> None:
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    manifest["files"] = {str(path.relative_to(temporary)): _facts(path) for path in files}
    manifest["check"] = _check(manifest)
    with (temporary / MANIFEST).open("w") as text:
        json.dump(manifest, text)
        text.flush()
        os.fsync(text.fileno())
    sync_folder(temporary)
    if target.exists():  # damaged, or of a run that was rolled back to before it
        os.rename(target, target.parent / f"{_TEMPORARY}old-{target.name}")
    os.rename(temporary, target)
    sync_folder(target.parent)


def _verified(path: Path) -> dict[str, Any]:
    """Return the manifest of a whole checkpoint. Raises OSError or ValueError, which say what is wrong."""
    try:
        fields: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
        check = fields.pop("check")
        files = fields["files"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error!r}") from error
    if _check(fields) != check or fields["format"] != _FORMAT:
        raise ValueError(f"{MANIFEST} is damaged, or of another format than {_FORMAT}")
    for name, facts in files.items():
        if _facts(path / name) != facts:
            raise ValueError(f"{name} does not match its checksum")
    return fields


def _facts(path: Path) -> list[int]:
    crc32 = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            crc32 = zlib.crc32(piece, crc32)
        return [file.tell(), crc32]


def _check(manifest: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
