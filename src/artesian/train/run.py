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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from artesian.train.data import rank_share, to_device
from artesian.train.divergence import compared
from artesian.train.from_env import AnySaves, Every, read_parts
from artesian.train.guards import Action, Guard, Policy
from artesian.train.heartbeat import Activity
from artesian.train.injection import inject
from artesian.train.interval import Age
from artesian.train.link import link
from artesian.train.loader import Batch, Loader
from artesian.train.membership import Membership, current
from artesian.train.reporter import Reporter, say
from artesian.train.restorable import Restorable, Scheduler
from artesian.train.saves import Position
from artesian.train.signals import Preempted, StopRequest
from artesian.train.sources import MapDataset, Stream
from artesian.train.stragglers import StragglerPolicy, watched
from artesian.train.watchdog import START_LIMIT_S
from artesian.wire.faults import Fault
from artesian.wire.messages import Phase

_DATA_WAIT_S = 1e-4


class Run:
    """One worker's part in a training run: its position, its checkpoints, its reports.

    Every rank makes one, with a model that is the same on all of them (DDP), and calls the same methods
    in the same order. ``step`` is the last committed step, ``position`` the samples the job has consumed,
    ``batch`` the batch that was handed out last.
    """

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None,
        member: Membership,
        reporter: Reporter,
        saves: AnySaves,
        faults: tuple[Fault, ...] = (),
        age: Age | None = None,
        guard: Policy | None = None,
        check_replicas_every: int | None = None,
        stragglers: StragglerPolicy | None = None,
    ) -> None:
        """Use ``from_env``; this is for those who configure by other means than the environment."""
        self._optimizer = optimizer
        self._scheduler = scheduler
        self.member = member
        self._reporter = reporter
        self._link = link()
        if self._link is not None:
            self._link.watch_device(member.device)
        self._saves = saves
        self._faults = {fault.step: fault.kind for fault in faults}
        self._age = age or Age()
        self._stop = StopRequest(member.control)
        self._guard = None if guard is None else Guard(guard, control=member.control)
        every = check_replicas_every
        self._replicas = compared(every, model, member, reporter.replicas_diverged)
        ask = None if self._link is None else self._link.is_slow
        self._looks_for = {"seeks_stragglers": stragglers is not None, "checks_replicas": every is not None}
        self._slow = watched(stragglers, model, member, reporter.straggler, ask)
        self.step = 0
        self.position = 0
        self.batch: Batch | None = None
        self._loader: Loader | None = None
        self._data: Mapping[str, Any] | None = None
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
        checkpoint_every: Every | None = None,
        keep_last: int = 2,
        keep_every: int | None = None,
        memory: str | None = None,
        memory_every: int | None = None,
        guard: Policy | None = None,
        check_replicas_every: int | None = None,
        stragglers: StragglerPolicy | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """Return a run set up by artesian's environment variables; arguments win over them.

        ``member`` is what ``join`` returned; without it the worker is a member of the process group that
        the script has set up itself, or alone, on the device of the model.
        ``dtype`` is what the matrix products are computed in, for the report.
        ``checkpoint_dir`` is a folder, or a URL of fsspec's. ``checkpoint_every`` counts steps, or
        is a ``timedelta``; ``"auto"`` chooses by what a save costs and how often the job fails; without it only the
        end, and a stop, are saved there. The last ``keep_last`` checkpoints are kept, and those of every ``keep_every`` steps.
        ``memory`` names the node's shared memory that has the state of the last steps; the launch agent sets it.
        It is brought up to date every ``memory_every`` steps; None: as costs at most 2%, ten times a second at most.
        ``guard`` says what to do about losses that leap or are no numbers (None: nothing);
        ``check_replicas_every`` so many steps the ranks compare their parameters. ``stragglers`` says how to look for
        ranks that are slower than the others (None: not at all).

        Raises ValueError for a variable that does not parse, or what cannot be with sharded state.
        """
        member = member or current(next(model.parameters()).device)
        what = Restorable(model, optimizer, scheduler, member.device)
        if what.is_sharded and check_replicas_every is not None:
            raise ValueError(
                "check_replicas_every compares replicas, and of sharded parameters there are none"
            )
        parts = read_parts(
            what,
            member=member,
            dtype=dtype,
            progress_dir=progress_dir,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=checkpoint_every,
            keep_last=keep_last,
            keep_every=keep_every,
            memory=memory,
            memory_every=memory_every,
            environ=environ,
        )
        return cls(
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            member=member,
            reporter=parts.reporter,
            saves=parts.saves,
            faults=parts.faults,
            age=parts.age,
            guard=guard,
            check_replicas_every=check_replicas_every,
            stragglers=stragglers,
        )

    def __enter__(self) -> Self:
        """Report the start, restore the newest whole state, and take SIGTERM over.

        Raises CheckpointError when there are checkpoints but none is whole.
        """
        self._reporter.started(**self._looks_for)
        if self._link is not None:
            self._link.heart.set(Activity.STARTING, START_LIMIT_S)
        start_s = self._reporter.now_s()
        if (found := self._saves.restore()) is not None:
            self._stand_at(found)
        if self._link is not None:
            self._link.heart.restored(self.step, self._reporter.now_s() - start_s)
        self._stop.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save what is not saved yet, and leave the gang, unless an error is passing through.

        Raises CheckpointError when that last save fails.
        """
        is_well = kind is None or kind is Preempted
        try:
            if kind is None:
                self._save_now()
            if is_well:
                self._stop.settle()
            # After an error the agent may start a successor, which goes on from what memory has.
            self._saves.close(keep=not is_well and self._link is not None)
            if is_well:
                self.member.leave()  # else the others may be stuck in a collective, and leaving would hang
        finally:
            self._stop.remove()
            if self._slow is not None:
                self._slow.close()
            self._reporter.close()
            if self._link is not None:
                self._link.heart.set(Activity.BUSY)  # what comes now is no step

    def batches(
        self,
        dataset: MapDataset | Stream,
        *,
        global_batch: int,
        steps: int | None = None,
        seed: int = 0,
        ahead: int = 0,
        is_uneven: bool = False,
    ) -> Iterator[Any]:
        """Yield this rank's share of one global batch after the other, on its device.

        The samples come in a shuffled order that depends on ``seed`` alone, from where the last committed
        step has left off, pass after pass; a sample that was handed out but not committed comes again
        after a restart. It ends when ``steps`` steps of the whole run are committed, and saves.
        ``ahead`` batches are prepared in the background. With ``is_uneven`` the ranks may get unequal shares:
        then multiply the loss with ``run.batch.weight``.

        Raises ValueError unless the ranks can share ``global_batch`` evenly, CheckpointError when the
        save at the end fails.
        """
        member = self.member
        if not is_uneven:
            rank_share(0, global_batch, member.rank, member.world_size)
        loader = self._loader = Loader(
            dataset,
            global_batch=global_batch,
            rank=member.rank,
            world_size=member.world_size,
            seed=seed,
            ahead=ahead,
        )
        if self._data is not None and self._data["loader"] is not None:
            loader.load_state_dict(self._data["loader"])
        elif self.position:
            loader.seek(self.position)
        self._reporter.ready()
        handed_out = iter(loader)
        try:
            while steps is None or self.step < steps:
                wait_start_s = self._reporter.now_s()
                self.batch = next(handed_out)
                data = to_device(self.batch.data, member.device)
                now_s = self._reporter.now_s()
                if now_s - wait_start_s > _DATA_WAIT_S:
                    self._reporter.phase(Phase.DATA_WAIT, wait_start_s, now_s)
                if self._step_start_s is None:  # else: more micro-batches for the same step
                    self._step_start_s = now_s
                    if self._slow is not None:
                        self._slow.begin()
                yield data
        finally:
            loader.close()
        self._save_now()

    @property
    def failed_saves(self) -> int:
        """Saves that failed; training went on, as what was saved before is intact."""
        return self._saves.failed

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

        Saves to memory, and to storage when a checkpoint is due, beside the next step; a save that fails is
        reported on stderr and counted in ``failed_saves``, and training goes on. A guard may skip the batch, or
        go back to an earlier step; ``step`` tells.

        Raises Preempted (SystemExit with code 143) when the job was asked to stop with SIGTERM: all ranks finish the same
        step, which is saved first. Raises UnstableError when a guard says to stop, SupersededError when a later attempt saves.
        """
        if (kind := self._faults.get(self.step + 1)) is not None:
            inject(kind, self.step + 1)
        if self._step_start_s is None:
            self._step_start_s = self._reporter.ready()
        if self._guard is not None and not self._is_good(self._guard, loss):
            return
        self._saves.settle()
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        value = self._read(loss)
        self.step += 1
        if self._loader is not None:
            self._loader.commit()
            self.position = self._loader.cursor.position
        self._reporter.step(self.step, self._step_start_s, value, tokens, model_flops)
        self._step_start_s = None
        self._saves.begin(self._here())
        if self._link is not None:
            self._link.heart.beat(self.step)
            self._link.check()
        if self._replicas is not None:
            self._replicas.note(self.step)
        if self._slow is not None:
            self._slow.note(self.step)
        if self._stop.is_granted():
            self._save_now()
            raise Preempted(self.step)

    @contextmanager
    def paused(
        self, phase: Phase | str = Phase.EVALUATION, *, timeout_s: float | None = None
    ) -> Iterator[None]:
        """Say that no step comes for a while, such as in an evaluation, and count the time as ``phase``.

        The agent does not take it for a hang, unless it takes more than ``timeout_s`` (None: any time).
        Raises ValueError for a phase that there is not.
        """
        phase = Phase(phase)
        start_s = self._reporter.ready()
        if self._link is not None:
            self._link.heart.set(Activity.PAUSED, timeout_s)
        try:
            yield
        finally:
            if self._link is not None:
                self._link.heart.go_on()
            self._reporter.phase(phase, start_s, self._reporter.now_s())

    def _is_good(self, guard: Guard, loss: Tensor | float | None) -> bool:
        """Return whether to apply the gradients; if not, what the guard says is done."""
        taken = None if self.batch is None else self.batch.taken
        verdict = guard.inspect(loss, step=self.step + 1, taken=taken)
        if verdict.symptom is not None and self.member.rank == 0:
            say(str(verdict))
        if verdict.action is Action.GO_ON:
            return True
        if verdict.action is Action.STOP:
            raise guard.stop(verdict)
        self._optimizer.zero_grad(set_to_none=True)
        self._step_start_s = None
        if verdict.action is Action.SKIP:
            if self._loader is not None:
                self._loader.drop()
                self.position = self._loader.cursor.position
            return False
        assert verdict.to_step is not None
        self._saves.settle()
        found = self._saves.go_back(verdict.to_step)
        if found is None:
            raise guard.stop(verdict)
        self._stand_at(found)
        if self._loader is not None:
            if self._data is not None:
                self._loader.load_state_dict(self._data["loader"])
            self._loader.rewind(exclude=verdict.exclude)
        self._saves.forget_later(self._here())
        return False

    def _stand_at(self, at: Position) -> None:
        self.step, self.position, self._data = at.step, at.samples, at.data
        data = at.data or {}
        self._age.resume(data.get("ran_s", 0.0))  # checkpoints of earlier versions do not say
        if self._guard is not None and data.get("guard") is not None:
            self._guard.load_state_dict(data["guard"])

    def _here(self) -> Position:
        data = {
            "loader": (self._data or {}).get("loader") if self._loader is None else self._loader.state_dict(),
            "guard": None if self._guard is None else self._guard.state_dict(),
            "ran_s": self._age.seconds,
        }
        return Position(step=self.step, samples=self.position, data=data)

    def _read(self, loss: Tensor | float | None) -> float | None:
        device = self.member.device
        if device.type != "cpu" and not (isinstance(loss, Tensor) and loss.device == device):
            torch.accelerator.synchronize(device)
        return loss.item() if isinstance(loss, Tensor) else loss

    def _save_now(self) -> None:
        if self._link is not None:
            self._link.heart.set(Activity.BUSY)
        try:
            self._saves.save_now(self._here())
        finally:
            if self._link is not None:
                self._link.heart.go_on()
