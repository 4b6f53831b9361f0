"""A callback for ``lightning.Trainer``: verified checkpoints, SIGTERM, exactly-once samples, and reports.

::

    from artesian.train.integrations.lightning import ArtesianCallback, JobBatches

    batches = JobBatches(dataset, global_batch=64)
    callback = ArtesianCallback("checkpoints", every=100, batches=batches)
    trainer = L.Trainer(callbacks=[callback], enable_checkpointing=False, max_steps=10_000)
    trainer.fit(module, train_dataloaders=batches, ckpt_path=callback.newest())

The Trainer's own state is saved and restored (loops, optimizers, schedulers, precision), and torch's random
generators of every rank; the callback says when, and which checkpoint is whole. On SIGTERM all ranks finish the same
step, which is saved, and the process leaves with 143. Where a later attempt of the job has come, an earlier one ends
with SupersededError and publishes nothing.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import default_collate

from artesian.train import fence
from artesian.train.errors import DataError, SupersededError
from artesian.train.integrations import seal
from artesian.train.integrations.companion import Companion, claim
from artesian.train.loader import Collate, Loader
from artesian.train.membership import Membership
from artesian.train.reporter import say
from artesian.train.signals import Preempted
from artesian.train.sources import MapDataset
from artesian.train.stragglers import StragglerPolicy
from artesian.wire.messages import Phase

_PREFIX, _FILE = "step-", "lightning.ckpt"


class JobBatches:
    """Batches of a map-style dataset, dealt to the ranks exactly once, whose position a checkpoint holds.

    An epoch has ``len(dataset) // global_batch`` steps; the samples that are left over begin the next one.
    """

    def __init__(
        self,
        dataset: MapDataset,
        *,
        global_batch: int,
        seed: int = 0,
        ahead: int = 0,
        workers: int = 1,
        collate: Collate = default_collate,
    ) -> None:
        """Deal ``global_batch`` samples a step, evenly: the trainer averages gradients over ranks without weights.

        The ranks are those of torchrun's variables. Raises DataError where the dataset is smaller than a
        global batch, ValueError where the ranks cannot share it evenly.
        """
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if global_batch % world_size:
            raise ValueError(
                f"the global batch must be a multiple of the {world_size} ranks for lightning, got {global_batch}"
            )
        if len(dataset) < global_batch:
            raise DataError(
                f"the dataset has {len(dataset)} samples, a global batch needs {global_batch}",
                hint="lower the global batch",
            )
        self.loader = Loader(
            dataset,
            global_batch=global_batch,
            rank=int(os.environ.get("RANK", "0")),
            world_size=world_size,
            seed=seed,
            ahead=ahead,
            workers=workers,
            collate=collate,
        )
        self._steps = len(dataset) // global_batch
        self._global_batch = global_batch

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Any]:
        """Yield what is left of the epoch, from the last committed step on."""
        done = self.loader.cursor.position // self._global_batch % self._steps
        for number, batch in enumerate(self.loader, start=done + 1):
            yield batch.data
            if number == self._steps:
                return

    def state_dict(self) -> dict[str, Any]:
        """Return the committed position."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``. Raises DataError where it does not fit the dataset."""
        self.loader.load_state_dict(state)


class ArtesianCallback(lightning.Callback):
    """Saves every ``every`` steps of the optimizer and at the end, reports where it runs under artesian.

    ``failed_saves`` counts the checkpoints that could not be written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int,
        batches: JobBatches | None = None,
        keep_last: int = 2,
        stragglers: StragglerPolicy | None = None,
    ) -> None:
        """Save into ``folder``, which all nodes share. ``batches`` is what the trainer trains on.

        ``stragglers`` says how to look for ranks that are slower than the others (None: not at all).

        Raises ValueError unless every and keep_last are positive.
        """
        if every < 1 or keep_last < 1:
            raise ValueError(f"every and keep_last must be positive, got {every} and {keep_last}")
        self._folder = Path(folder)
        self._every, self._keep_last = every, keep_last
        self._batches = batches
        self._stragglers = stragglers
        self._companion: Companion | None = None
        self._step = 0
        self._is_in_step = False
        self._saved_step: int | None = None
        self.failed_saves = 0

    def newest(self) -> str | None:
        """Return the newest whole checkpoint, for ``ckpt_path``; None for none.

        In an attempt of a job earlier ones do not save there from now on. Raises SupersededError where a later has come.
        """
        claim(self._folder)
        found = seal.newest(self._folder, _PREFIX)
        return None if found is None else str(found / _FILE)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start to report."""
        self._companion = Companion(
            pl_module,
            torch.device(trainer.strategy.root_device),
            self._folder,
            dtype=_dtype(trainer),
            stragglers=self._stragglers,
        )
        self._step = trainer.global_step
        self._saved_step = self._step or None
        if self._step:
            self._companion.restored(self._step, None)
            self._restore_random(trainer, self._companion.member)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note that the batch is there; of micro-batches, the first."""
        if not self._is_in_step:
            self._is_in_step = True
            self._is_there.step_begins()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Commit the samples and report the step, if the optimizer has stepped; save when due.

        Raises Preempted (SystemExit with code 143) where training was asked to stop.
        """
        if trainer.global_step == self._step:
            return  # a micro-batch of a step to come
        self._step = trainer.global_step
        self._is_in_step = False
        if self._batches is not None:
            self._batches.loader.commit()
        must_stop = self._is_there.step_ends(self._step, _loss(outputs))
        if must_stop or self._step % self._every == 0:
            self._save(trainer)
        if must_stop:
            self._is_there.close()
            raise Preempted(self._step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note what the time since the step went into."""
        if self._companion is not None:  # else: a validation outside of training
            self._companion.phase(Phase.EVALUATION)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save what is not saved yet, and end the reports."""
        if self._saved_step != self._step:
            self._save(trainer)
        self._is_there.close()
        self._companion = None

    @property
    def _is_there(self) -> Companion:
        assert self._companion is not None, "the trainer calls on_train_start first"
        return self._companion

    def _save(self, trainer: lightning.Trainer) -> None:
        """Save on all ranks; the folder gets its name when all of it is there and sealed."""
        companion = self._is_there
        companion.mark()
        companion.look()
        name = f"{_PREFIX}{self._step:08d}"
        writer = companion.place.writer
        temporary = self._folder / f".tmp-{name}{'' if writer is None else f'-{writer.epoch}'}"
        error: OSError | SupersededError | None = None
        if companion.member.rank == 0:
            with contextlib.suppress(SupersededError):  # who has just come is seen below
                fence.sweep(companion.place)  # what a crash in the middle of a save has left
        companion.meet()
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            torch.save(
                _random_state(companion.member.device), temporary / f"random-{companion.member.rank}.pt"
            )
            trainer.save_checkpoint(temporary / _FILE)
        except OSError as met:
            error = met
        if companion.meet(is_well=error is None) and companion.member.rank == 0:
            error = self._finish(companion, temporary, self._folder / name)
        if companion.meet(is_well=error is None):
            self._saved_step = self._step
        else:
            companion.look()
            self.failed_saves += 1
        if isinstance(error, OSError):
            say(
                f"cannot save step {self._step} in {self._folder}: {error.strerror or error}; training goes on"
            )
        companion.phase(Phase.CHECKPOINT_STALL)

    def _finish(
        self, companion: Companion, temporary: Path, target: Path
    ) -> OSError | SupersededError | None:
        try:
            size_bytes = seal.seal(temporary)
            with companion.place.alone():
                fence.hold(companion.place)
                shutil.rmtree(target, ignore_errors=True)  # damaged, or of a run that was rolled back
                os.replace(temporary, target)
                seal.keep_last(self._folder, _PREFIX, self._keep_last)
        except SupersededError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            return error
        except OSError as error:
            return error
        companion.saved(self._step, size_bytes)
        return None

    def _restore_random(self, trainer: lightning.Trainer, member: Membership) -> None:
        """Go on with the random numbers where the checkpoint left off; lightning saves none of this."""
        path = Path(str(trainer.ckpt_path)).parent / f"random-{member.rank}.pt"
        if trainer.ckpt_path is None or not path.exists():  # one of lightning's own, or of a smaller gang
            return
        state = torch.load(path, weights_only=True)
        torch.set_rng_state(state["cpu"])
        if member.device.type == "cuda" and state["device"] is not None:
            torch.cuda.set_rng_state(state["device"], member.device)


def _random_state(device: torch.device) -> dict[str, Tensor | None]:
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "device": on_device}


def _loss(outputs: Any) -> float | None:
    """Return the loss that ``training_step`` returned; None where it returned none."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    return float(loss.item()) if isinstance(loss, Tensor) else None


def _dtype(trainer: lightning.Trainer) -> str | None:
    for name in ("bf16", "16"):
        if name in str(trainer.precision):
            return "bf16" if name == "bf16" else "fp16"
    return "fp32" if str(trainer.precision).startswith("32") else None
