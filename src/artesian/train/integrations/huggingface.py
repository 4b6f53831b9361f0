"""A callback for ``transformers.Trainer``: verified checkpoints, SIGTERM, and a report of every step.

::

    from artesian.train.integrations.huggingface import ArtesianCallback, newest_checkpoint

    trainer = Trainer(model=model, args=args, train_dataset=data, callbacks=[ArtesianCallback()])
    trainer.train(resume_from_checkpoint=newest_checkpoint(args.output_dir))

The Trainer saves and restores as ever (``save_steps``); it goes on from the newest checkpoint that is whole,
with the optimizer, the random generators and the position in the data. On SIGTERM all ranks finish
the same step, which is saved, and the process leaves with 143. Where a later attempt of the job has come, an earlier
one ends with SupersededError before its next save.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from artesian.train.integrations import seal
from artesian.train.integrations.companion import Companion, claim
from artesian.train.reporter import say
from artesian.train.signals import Preempted
from artesian.train.stragglers import StragglerPolicy
from artesian.wire.messages import Phase

_PREFIX = "checkpoint-"


def newest_checkpoint(output_dir: str | Path) -> str | None:
    """Return the newest whole checkpoint below ``output_dir``, for ``resume_from_checkpoint``; None for none.

    Checkpoints without a seal, which this callback did not see to their end, are not whole. In an attempt of a job
    it also keeps earlier ones from saving there. Raises SupersededError where a later one has come.
    """
    claim(output_dir)
    found = seal.newest(Path(output_dir), _PREFIX)
    return None if found is None else str(found)


class ArtesianCallback(TrainerCallback):
    """Seals the Trainer's checkpoints, reports to artesian where it runs under it, and stops on SIGTERM.

    A step's loss is reported where the Trainer logs it at that step (``logging_steps=1`` for all of them):
    the mean since it last logged. ``failed_saves`` counts checkpoints that could not be sealed.
    """

    def __init__(self, *, stragglers: StragglerPolicy | None = None) -> None:
        """``stragglers`` says how to look for ranks that are slower than the others (None: not at all)."""
        self._stragglers = stragglers
        self._companion: Companion | None = None
        self._waiting_step: int | None = None
        self._is_preempted = False
        self.failed_saves = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Start to report."""
        dtype = "bf16" if args.bf16 else "fp16" if args.fp16 else None
        self._companion = Companion(
            more["model"],
            torch.device(args.device),
            _folder(args),
            dtype=dtype,
            stragglers=self._stragglers,
        )
        self._is_preempted = False
        if state.global_step:
            self._companion.restored(state.global_step, None)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note that the batch is there."""
        self._is_there.step_begins()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Report the step, at once unless its loss is about to be logged; save and stop where that was asked for.

        Raises SupersededError where it is to be saved, and a later attempt of the job has come.
        """
        if control.should_log:
            self._waiting_step = state.global_step
            return self._looked(control)
        return self._step_ends(control, state.global_step, None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Report the step whose loss this is."""
        if self._waiting_step is None:
            return control
        step, self._waiting_step = self._waiting_step, None
        loss = (logs or {}).get("loss")
        return self._step_ends(control, step, None if loss is None else float(loss))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note what the time since the step went into; look again where a save is next, as that may have been long."""
        if self._companion is not None:  # else: an evaluation outside of training
            self._companion.phase(Phase.EVALUATION)
            self._looked(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Raise SupersededError where the epoch is to be saved, and a later attempt of the job has come."""
        self._looked(control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Seal the checkpoint, once all ranks have written theirs; not where a later attempt has come meanwhile."""
        companion = self._is_there
        companion.meet()
        companion.look()
        if companion.member.rank == 0:
            self._seal(companion, Path(_folder(args), f"{_PREFIX}{state.global_step}"), state.global_step)
        companion.phase(Phase.CHECKPOINT_STALL)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """End the reports. Raises Preempted (SystemExit with code 143) where training was asked to stop."""
        self._is_there.close()
        self._companion = None
        if self._is_preempted:
            raise Preempted(state.global_step)

    @property
    def _is_there(self) -> Companion:
        assert self._companion is not None, "the Trainer calls on_train_begin first"
        return self._companion

    def _step_ends(self, control: TrainerControl, step: int, loss: float | None) -> TrainerControl:
        if self._is_there.step_ends(step, loss):
            control.should_save = control.should_training_stop = True
            self._is_preempted = True
        return self._looked(control)

    def _looked(self, control: TrainerControl) -> TrainerControl:
        if control.should_save:
            self._is_there.look()
        return control

    def _seal(self, companion: Companion, folder: Path, step: int) -> None:
        try:
            size_bytes = seal.seal(folder)
        except OSError as error:
            self.failed_saves += 1
            say(f"cannot seal {folder}: {error.strerror or error}; training goes on without this checkpoint")
            return
        companion.saved(step, size_bytes)


def _folder(args: TrainingArguments) -> str:
    assert args.output_dir is not None, "the Trainer sets one where it is not told"
    return args.output_dir
