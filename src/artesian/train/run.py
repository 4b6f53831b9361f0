"""``Run``: makes a training loop restartable and measurable, in any script, with or without a server.

::

    with Run.from_env(model=model, optimizer=optimizer) as run:
        for batch in run.batches(dataset, global_batch=64, steps=1000):
            loss = ...
            loss.backward()
            run.commit(loss, tokens=...)

Without artesian's environment variables it reports to nobody and saves nothing, unless the arguments say
where; the loop is the same.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate

from artesian.train.checkpoint import Checkpoint, Checkpointer
from artesian.train.data import SampleOrder, rank_share
from artesian.train.errors import CheckpointError
from artesian.train.heartbeat import Activity
from artesian.train.injection import inject
from artesian.train.link import link
from artesian.train.membership import Membership, current
from artesian.train.reporter import Reporter, say
from artesian.train.signals import StopRequest
from artesian.train.vote import Vote
from artesian.wire import environment
from artesian.wire.faults import Fault, decode_faults
from artesian.wire.messages import Phase

PREEMPTED = 128 + signal.SIGTERM
"""Exit code of a worker that was asked to stop, and has saved its state: 143."""

_DATA_WAIT_S = 1e-4
_DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Dataset(Protocol):
    """Samples by index, such as a ``torch.utils.data.Dataset`` of the map style."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Stateful(Protocol):
    """What has a state to save: a scheduler, a scaler."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Scheduler(Stateful, Protocol):
    """A learning-rate scheduler: stepped once after every step of the optimizer."""

    def step(self) -> Any: ...


class Run:
    """One worker's part in a training run: its position, its checkpoints, its reports.

    Every rank makes one, with a model that is the same on all of them (DDP), and calls the same methods
    in the same order. ``step`` is the last committed step, ``position`` the samples the job has consumed.
    """

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None,
        member: Membership,
        reporter: Reporter,
        checkpointer: Checkpointer | None,
        checkpoint_every: int | None,
        faults: tuple[Fault, ...],
    ) -> None:
        """Use ``from_env``; this is for those who configure by other means than the environment."""
        if checkpoint_every is not None and checkpoint_every < 1:
            raise ValueError(f"checkpoint_every must be positive, got {checkpoint_every}")
        # DDP prefixes every name with "module."; a checkpoint should fit with and without it.
        self._model: Stateful = model.module if isinstance(model, DistributedDataParallel) else model
        self._optimizer = optimizer
        self._scheduler = scheduler
        self.member = member
        self._reporter = reporter
        self._link = link()
        self._checkpointer = checkpointer
        self._checkpoint_every = checkpoint_every
        self._faults = {fault.step: fault.kind for fault in faults}
        self._stop = StopRequest(member.control)
        self._all_saved = None if member.control is None else Vote(member.control, dist.ReduceOp.MIN)
        self.step = 0
        self.position = 0
        self.failed_saves = 0
        self._handed_out = 0
        self._saved_step: int | None = None
        self._step_start_s: float | None = None

    @classmethod
    def from_env(
        cls,
        *,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None = None,
        member: Membership | None = None,
        dtype: torch.dtype | None = None,
        progress_dir: Path | str | None = None,
        checkpoint_dir: Path | str | None = None,
        checkpoint_every: int | None = None,
        keep_last: int = 2,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """Return a run set up by artesian's environment variables; arguments win over them.

        ``member`` is what ``join`` returned; without it the worker is a member of the process group that
        the script has set up itself, or alone, on the device of the model.
        ``dtype`` is what the matrix products are computed in, for the report. ``checkpoint_every`` counts
        steps; without it only the end, and a stop, are saved.

        Raises ValueError for a variable that does not parse.
        """
        progress = progress_dir or environ.get(environment.PROGRESS_DIR)
        folder = checkpoint_dir or environ.get(environment.CHECKPOINT_DIR)
        if checkpoint_every is None:
            checkpoint_every = _whole_number(environ, environment.CHECKPOINT_EVERY)
        member = member or current(next(model.parameters()).device)
        epoch = _whole_number(environ, environment.EPOCH) or 1
        restart = _whole_number(environ, environment.RESTART) or 0
        return cls(
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            member=member,
            reporter=Reporter(
                member,
                None if dtype is None else _DTYPE_NAMES.get(dtype, str(dtype).removeprefix("torch.")),
                Path(progress) if progress else None,
            ),
            checkpointer=Checkpointer(folder, keep_last=keep_last) if folder else None,
            checkpoint_every=checkpoint_every,
            faults=tuple(
                fault
                for fault in decode_faults(environ.get(environment.FAULTS) or "[]")
                if (fault.worker, fault.epoch, fault.restart) == (member.rank, epoch, restart)
            ),
        )

    def __enter__(self) -> Self:
        """Report the start, restore the newest whole checkpoint, and take SIGTERM over.

        Raises CheckpointError when there are checkpoints but none is whole.
        """
        self._reporter.started()
        if self._checkpointer is not None:
            self._restore(self._checkpointer)
        self._stop.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save what is not saved yet, and leave the gang, unless an error is passing through.

        Raises CheckpointError when that last save fails.
        """
        try:
            if kind is None:
                self._save_last()
            if kind is None or kind is Preempted:
                self._stop.settle()
                self.member.leave()  # else the others may be stuck in a collective, and leaving would hang
        finally:
            self._stop.remove()
            self._reporter.close()
            if self._link is not None:
                self._link.heart.set(Activity.BUSY)  # what comes now is no step

    def batches(
        self, dataset: Dataset, *, global_batch: int, steps: int | None = None, seed: int = 0
    ) -> Iterator[Any]:
        """Yield this rank's share of one global batch after the other, on its device.

        The samples come in a shuffled order that depends on ``seed`` alone, from where the last committed
        step has left off, pass after pass; a sample that was handed out but not committed comes again
        after a restart. It ends when ``steps`` steps of the whole run are committed, and saves.

        Raises ValueError unless the ranks can share ``global_batch`` evenly, CheckpointError when the
        save at the end fails.
        """
        order = SampleOrder(len(dataset), seed)
        rank_share(0, global_batch, self.member.rank, self.member.world_size)
        self._handed_out = self.position
        self._reporter.ready()
        while steps is None or self.step < steps:
            wait_start_s = self._reporter.now_s()
            positions = rank_share(self._handed_out, global_batch, self.member.rank, self.member.world_size)
            batch = _to_device(
                default_collate([dataset[order[position]] for position in positions]), self.member.device
            )
            self._handed_out += global_batch
            now_s = self._reporter.now_s()
            if now_s - wait_start_s > _DATA_WAIT_S:
                self._reporter.phase(Phase.DATA_WAIT, wait_start_s, now_s)
            if self._step_start_s is None:  # else: more micro-batches for the same step
                self._step_start_s = now_s
            yield batch
        self._save_last()

    @property
    def lost_messages(self) -> int:
        """Progress messages that could not be written."""
        return self._reporter.lost_messages

    def commit(
        self,
        loss: Tensor | float | None = None,
        *,
        tokens: int | None = None,
        model_flops: float | None = None,
    ) -> None:
        """Apply the gradients: step the optimizer and the scheduler, clear the gradients, count, report.

        ``loss`` is this rank's own, ``tokens`` what it trained on in the step, ``model_flops`` their
        forward and backward FLOPs; None where you do not know. The loss is read after the optimizer's
        step, which waits for the device: the time reported is the time that the step took.

        Saves when a checkpoint is due; a save that fails is reported on stderr and counted in
        ``failed_saves``, and training goes on, as the checkpoint before is intact.

        Raises Preempted (SystemExit with code 143) when the job was asked to stop with SIGTERM: all ranks
        finish the same step, which is saved first.
        """
        self._inject_fault()
        if self._step_start_s is None:
            self._step_start_s = self._reporter.ready()
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        value = self._read(loss)
        self.step += 1
        self.position = self._handed_out
        self._reporter.step(self.step, self._step_start_s, value, tokens, model_flops)
        if self._link is not None:
            self._link.heart.beat(self.step)
            self._link.check()
        self._step_start_s = None
        must_stop = self._stop.is_granted()
        if must_stop:
            self._save_last()
            raise Preempted(self.step)
        if self._checkpoint_every is not None and self.step % self._checkpoint_every == 0:
            self._save(is_last=False)

    def _read(self, loss: Tensor | float | None) -> float | None:
        device = self.member.device
        if device.type != "cpu" and not (isinstance(loss, Tensor) and loss.device == device):
            torch.accelerator.synchronize(device)
        return loss.item() if isinstance(loss, Tensor) else loss

    def _inject_fault(self) -> None:
        if (kind := self._faults.get(self.step + 1)) is not None:
            inject(kind, self.step + 1)

    def _restore(self, checkpointer: Checkpointer) -> None:
        start_s = self._reporter.end_start_up()
        checkpoint = checkpointer.load_newest()
        for rejected in checkpoint.rejected if checkpoint else ():
            say(f"{rejected.path} is not whole, going back to an older one: {rejected.reason}")
        self._agree_on(checkpoint)
        if checkpoint is None:
            if self._link is not None:
                self._link.heart.restored(0, self._reporter.now_s() - start_s)
            return
        state = checkpoint.state
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scheduler is not None and state["scheduler"] is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        if self.member.rank == 0:  # the others have streams of their own, which are not saved
            torch.set_rng_state(state["rng"])
        self.step = self._saved_step = checkpoint.manifest.step
        self.position = self._handed_out = checkpoint.manifest.position
        self._reporter.restored(self.step, start_s)
        if self._link is not None:
            self._link.heart.restored(self.step, self._reporter.now_s() - start_s)

    def _agree_on(self, checkpoint: Checkpoint | None) -> None:
        """Raise CheckpointError on every rank unless all have found the same step."""
        if self.member.control is None:
            return
        step = -1 if checkpoint is None else checkpoint.manifest.step
        newest, oldest = Vote(self.member.control, dist.ReduceOp.MAX, 2).hold(step, -step)
        if newest != -oldest:
            assert self._checkpointer is not None
            raise CheckpointError(
                f"the ranks find different checkpoints in {self._checkpointer.folder}: "
                f"steps {-oldest} to {newest} (-1: none)",
                hint="the folder must be one that all nodes share",
            )

    def _save_last(self) -> None:
        if self._checkpointer is not None and self._saved_step != self.step and self.step:
            self._save(is_last=True)

    def _save(self, *, is_last: bool) -> None:
        if self._checkpointer is None:
            return
        if self._link is not None:
            self._link.heart.set(Activity.BUSY)
        start_s = self._reporter.now_s()
        failure: CheckpointError | None = None
        size_bytes = 0
        if self.member.rank == 0:
            try:
                size_bytes = self._checkpointer.save(
                    self.step, self._state(), position=self.position, world_size=self.member.world_size
                ).size_bytes
            except CheckpointError as error:
                failure = error
        is_saved = self._tell_all(failure is None)
        end_s = self._reporter.now_s()
        self._reporter.phase(Phase.CHECKPOINT_STALL, start_s, end_s)
        if self._link is not None:
            self._link.heart.set(Activity.STEPPING)
        if is_saved:
            self._saved_step = self.step
            if self.member.rank == 0:
                self._reporter.checkpoint(self.step, size_bytes)
            return
        self.failed_saves += 1
        if is_last:
            raise failure or CheckpointError(f"rank 0 could not save the checkpoint of step {self.step}")
        if failure is not None:
            say(f"{failure}; training goes on ({self.failed_saves} saves failed so far)")

    def _tell_all(self, is_saved: bool) -> bool:
        """Wait until rank 0 has saved, and return on every rank whether it has."""
        if self._all_saved is None:
            return is_saved
        return self._all_saved.hold(int(is_saved)) == (1,)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
            "rng": torch.get_rng_state(),
        }


class Preempted(SystemExit):
    """The job was asked to stop; ``step`` is saved. Leaves the process with code 143 unless caught."""

    def __init__(self, step: int) -> None:
        super().__init__(PREEMPTED)
        self.step = step


def _whole_number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise ValueError(f"${name} must be a whole number, got {text!r}")
    return int(text)


def _to_device(batch: Any, device: torch.device) -> Any:
    match batch:
        case Tensor():
            return batch.to(device, non_blocking=True)
        case dict():
            return {key: _to_device(value, device) for key, value in batch.items()}
        case list() | tuple():
            return [_to_device(value, device) for value in batch]
        case _:
            return batch
