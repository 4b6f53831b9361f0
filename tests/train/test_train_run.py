"""``Run`` in one process: restores, continues to the same bits, reports, survives full disks."""

import itertools
import math
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from artesian.train import CheckpointError, Preempted, Run
from artesian.train.checkpoint import Checkpointer
from artesian.train.reporter import process_age_s
from artesian.wire import environment
from artesian.wire.channel import ProgressReader
from artesian.wire.faults import Fault, FaultKind, encode_faults
from artesian.wire.messages import (
    CheckpointCommitted,
    Message,
    Phase,
    PhaseEnded,
    Restored,
    StepCommitted,
    WorkerStarted,
)
from limits import no_file_larger_than

SAMPLES, BATCH, STEPS = 40, 4, 14  # more than one pass


class Numbers:
    """Samples that are their own index, and a note of which were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Tensor:
        self.asked.append(index)
        return torch.tensor([index / SAMPLES, 1.0])


class Training:
    """A tiny model with everything that has state: momentum, a schedule, dropout."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(7)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(2, 8), torch.nn.Dropout(0.3), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.95)
        self.data = Numbers()
        self.losses: dict[int, float] = {}
        self.run = Run.from_env(
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            dtype=torch.float32,
            environ=options.pop("environ", {}),
            **options,
        )

    def train(self, steps: int = STEPS, at_step: Callable[[Run], None] = lambda run: None) -> None:
        with self.run as run:
            for batch in run.batches(self.data, global_batch=BATCH, steps=steps, seed=3):
                loss = (self.model(batch) - batch[:, :1].sin()).square().mean()
                loss.backward()
                at_step(run)
                run.commit(loss, tokens=BATCH, model_flops=100.0)
                self.losses[run.step] = loss.item()


def killed_at(step: int) -> str:
    return encode_faults([Fault(kind=FaultKind.EXCEPTION, worker=0, step=step)])


def messages(folder: Path, kind: type[Message]) -> list[Any]:
    reader = ProgressReader(folder)
    found = [message for message in reader.read() if isinstance(message, kind)]
    assert reader.malformed_lines == 0
    return found


def test_without_a_server_it_trains_reports_to_nobody_and_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    training = Training()
    training.train()
    assert training.run.step == STEPS
    assert training.run.position == STEPS * BATCH
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fault_step", [2, 7, 12])
def test_a_resumed_run_has_the_same_losses_to_the_bit_and_uses_every_sample_once(
    tmp_path: Path, fault_step: int
) -> None:
    undisturbed = Training()
    undisturbed.train()
    env = {
        environment.CHECKPOINT_DIR: str(tmp_path),
        environment.CHECKPOINT_EVERY: "3",
        environment.FAULTS: killed_at(fault_step),
    }
    first = Training(environ={**env, environment.EPOCH: "1"})
    with pytest.raises(RuntimeError, match=f"injected fault: exception before step {fault_step}"):
        first.train()
    restored_step = (fault_step - 1) // 3 * 3
    second = Training(environ={**env, environment.EPOCH: "2"})
    second.train()
    assert {**first.losses, **second.losses} == undisturbed.losses
    assert min(second.losses) == restored_step + 1
    for ours, theirs in zip(second.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    # What the final model has seen: the steps before the checkpoint, and those after the restart.
    seen = first.data.asked[: restored_step * BATCH] + second.data.asked
    assert seen == undisturbed.data.asked
    assert sorted(seen[:SAMPLES]) == list(range(SAMPLES))


def test_a_fault_fires_in_its_own_attempt_and_worker_only() -> None:
    faults = [
        Fault(kind=FaultKind.EXCEPTION, worker=1, step=2),
        Fault(kind=FaultKind.EXCEPTION, worker=0, step=3, epoch=5),
    ]
    training = Training(environ={environment.FAULTS: encode_faults(faults), environment.EPOCH: "4"})
    training.train()
    assert training.run.step == STEPS


def test_what_was_handed_out_but_not_committed_comes_again(tmp_path: Path) -> None:
    first = Training(checkpoint_dir=tmp_path, checkpoint_every=1)

    def stumble(run: Run) -> None:
        if run.step == 4:
            raise RuntimeError("between batch and commit")

    with pytest.raises(RuntimeError, match="between batch and commit"):
        first.train(at_step=stumble)
    second = Training(checkpoint_dir=tmp_path)
    second.train()
    assert second.data.asked[:BATCH] == first.data.asked[-BATCH:]


def test_several_batches_can_go_into_one_step(tmp_path: Path) -> None:
    training = Training(checkpoint_dir=tmp_path, progress_dir=tmp_path / "progress")
    with training.run as run:
        for number, batch in enumerate(run.batches(training.data, global_batch=BATCH, steps=3), start=1):
            training.model(batch).sum().backward()
            if number % 2 == 0:
                run.commit()
    assert (run.step, run.position) == (3, 6 * BATCH)
    steps = messages(tmp_path / "progress", StepCommitted)
    assert [(step.loss, step.tokens, step.model_flops) for step in steps] == [(None, None, None)] * 3


def test_a_loop_with_its_own_data_can_be_measured_too(tmp_path: Path) -> None:
    training = Training(progress_dir=tmp_path)
    with training.run as run:
        for _ in range(3):
            training.model(torch.ones(1, 2)).sum().backward()
            run.commit(0.5)
    assert [step.loss for step in messages(tmp_path, StepCommitted)] == [0.5] * 3


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    Training(checkpoint_dir=tmp_path).train(steps=5)
    again = Training(checkpoint_dir=tmp_path)
    again.train(steps=5)
    assert again.losses == {}
    assert again.run.step == 5


def test_reports_tell_where_the_time_went(tmp_path: Path) -> None:
    options = {"checkpoint_dir": tmp_path / "checkpoints", "checkpoint_every": 4}
    Training(progress_dir=tmp_path / "1", **options).train(steps=5)
    Training(progress_dir=tmp_path / "2", **options).train(steps=9)

    (started,) = messages(tmp_path / "1", WorkerStarted)
    assert (started.rank, started.world_size, started.pid) == (0, 1, os.getpid())
    assert (started.device, started.dtype) == ("cpu", "fp32")
    assert [(item.step, item.size_bytes > 0) for item in messages(tmp_path / "1", CheckpointCommitted)] == [
        (4, True),
        (5, True),
    ]
    (restored,) = messages(tmp_path / "2", Restored)
    assert restored.step == 5
    steps = messages(tmp_path / "2", StepCommitted)
    assert [(step.step, step.tokens, step.model_flops) for step in steps] == [
        (step, BATCH, 100.0) for step in (6, 7, 8, 9)
    ]
    phases = messages(tmp_path / "2", PhaseEnded)
    outside_of_data = [item.phase for item in phases if item.phase is not Phase.DATA_WAIT]
    assert outside_of_data == [
        Phase.START_UP,
        Phase.RESTORE,
        Phase.START_UP,
        Phase.CHECKPOINT_STALL,
        Phase.CHECKPOINT_STALL,
    ]
    # Laid side by side they do not overlap: a second is counted once.
    spans = sorted((item.start_s, item.end_s) for item in (*phases, *steps))
    assert spans[0][0] == messages(tmp_path / "2", WorkerStarted)[0].at_s
    assert all(start <= end for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_a_loss_that_is_no_number_is_reported_as_it_is(tmp_path: Path) -> None:
    training = Training(progress_dir=tmp_path)
    with training.run as run:
        run.commit(torch.tensor(math.nan))
    (step,) = messages(tmp_path, StepCommitted)
    assert math.isnan(step.loss)


def test_sigterm_ends_the_run_after_the_step_and_saves_it(tmp_path: Path) -> None:
    undisturbed = Training()
    undisturbed.train()
    before = signal.getsignal(signal.SIGTERM)
    first = Training(checkpoint_dir=tmp_path)

    def ask(run: Run) -> None:
        if run.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted) as raised:
        first.train(at_step=ask)
    assert raised.value.code == 143
    assert raised.value.step == 5
    assert signal.getsignal(signal.SIGTERM) is before
    second = Training(checkpoint_dir=tmp_path)
    second.train()
    assert min(second.losses) == 6
    assert {**first.losses, **second.losses, 5: undisturbed.losses[5]} == undisturbed.losses


class FullDisk:
    """A disk that is full from ``fill`` to ``free``, or to the end of the ``with`` block."""

    def __init__(self) -> None:
        self._until_free = ExitStack()

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    def fill(self) -> None:
        self._until_free.enter_context(no_file_larger_than(0))

    def free(self) -> None:
        self._until_free.close()


def test_training_goes_on_when_a_save_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("artesian.train.saves.say", said.append)
    training = Training(checkpoint_dir=tmp_path, checkpoint_every=2)

    def at_step(run: Run) -> None:
        if run.step == 3:
            disk.fill()
        if run.step == 7:
            disk.free()

    with FullDisk() as disk:
        training.train(steps=9, at_step=at_step)
    assert training.run.failed_saves == 2
    assert len(said) == 2
    assert "cannot write the checkpoint of step 4" in said[0]
    assert "training goes on (2 saves failed so far)" in said[1]
    assert sorted(os.listdir(tmp_path)) == ["step-00000008", "step-00000009"]


def test_the_save_at_the_end_must_not_fail(tmp_path: Path) -> None:
    training = Training(checkpoint_dir=tmp_path)

    def at_step(run: Run) -> None:
        if run.step == 3:
            disk.fill()

    with FullDisk() as disk, pytest.raises(CheckpointError, match="cannot write the checkpoint of step 5"):
        training.train(steps=5, at_step=at_step)


def test_reports_that_cannot_be_written_are_counted_and_do_not_end_the_training(
    tmp_path: Path,
) -> None:
    training = Training(progress_dir=tmp_path)

    def at_step(run: Run) -> None:
        disk.free()
        if run.step in (2, 3):
            disk.fill()

    with FullDisk() as disk:
        training.train(steps=5, at_step=at_step)
    assert training.run.step == 5
    assert training.run.lost_messages >= 2
    assert [step.step for step in messages(tmp_path, StepCommitted)] == [1, 2, 5]


def test_a_damaged_checkpoint_is_named_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Training(checkpoint_dir=tmp_path, checkpoint_every=2).train(steps=4)
    os.truncate(tmp_path / "step-00000004/state.bin", 10)
    again = Training(checkpoint_dir=tmp_path)
    again.train(steps=4)
    assert min(again.losses) == 3
    assert "step-00000004 is not whole, going back to an older one" in capsys.readouterr().err


def test_a_checkpoint_fits_a_model_without_a_scheduler(tmp_path: Path) -> None:
    Training(checkpoint_dir=tmp_path).train(steps=2)
    training = Training()
    with Run.from_env(
        model=training.model, optimizer=training.optimizer, checkpoint_dir=tmp_path, environ={}
    ) as run:
        assert run.step == 2


def test_a_checkpoint_of_another_kind_of_device_goes_on_here(tmp_path: Path) -> None:
    undisturbed = Training()
    undisturbed.train()
    Training(checkpoint_dir=tmp_path).train(steps=6)
    saved = Checkpointer(tmp_path).load_newest()
    assert saved is not None
    generator_of_cuda = torch.arange(16, dtype=torch.uint8)
    Checkpointer(tmp_path).save(
        6, {**saved.state, "device_rng": generator_of_cuda}, position=saved.manifest.position
    )
    resumed = Training(checkpoint_dir=tmp_path)
    resumed.train()
    assert resumed.losses == {step: loss for step, loss in undisturbed.losses.items() if step > 6}


def test_what_a_run_is_told_to_keep_stays(tmp_path: Path) -> None:
    Training(checkpoint_dir=tmp_path, checkpoint_every=1, keep_last=1, keep_every=5).train(steps=12)
    assert sorted(os.listdir(tmp_path)) == [f"step-{step:08}" for step in (5, 10, 12)]


def test_arguments_win_over_the_environment(tmp_path: Path) -> None:
    env = {
        environment.CHECKPOINT_DIR: str(tmp_path / "env"),
        environment.CHECKPOINT_EVERY: "1",
        environment.PROGRESS_DIR: str(tmp_path / "env"),
    }
    training = Training(
        environ=env, checkpoint_dir=tmp_path / "arg", checkpoint_every=100, progress_dir=tmp_path / "arg"
    )
    training.train(steps=3)
    assert sorted(os.listdir(tmp_path)) == ["arg"]
    assert sorted(os.listdir(tmp_path / "arg")) == ["rank-0.jsonl", "step-00000003"]


@pytest.mark.parametrize(
    ("environ", "options", "message"),
    [
        (
            {environment.CHECKPOINT_EVERY: "often"},
            {},
            "ARTESIAN_CHECKPOINT_EVERY must be a number of steps, seconds such as 600s, or auto",
        ),
        ({environment.EPOCH: "-1"}, {}, "ARTESIAN_EPOCH must be a whole number"),
        ({environment.FAULTS: "{}"}, {}, "not a list of faults"),
        ({}, {"checkpoint_every": 0}, "the interval must be at least one step, got 0"),
    ],
)
def test_settings_that_do_not_parse_are_refused(
    environ: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Training(environ=environ, **options)


def test_the_age_of_this_process_is_positive_and_grows() -> None:
    assert 0 < process_age_s() <= process_age_s()


def test_a_pause_is_told_as_what_it_is_for(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Run.from_env(model=model, optimizer=optimizer, progress_dir=tmp_path) as run:
        for batch in run.batches(Numbers(), global_batch=BATCH, steps=2):
            model(batch).square().mean().backward()
            run.commit()
            with run.paused():
                model(batch)
        with pytest.raises(ValueError, match="'a nap' is not a valid Phase"), run.paused("a nap"):
            pass
    evaluations = [told for told in messages(tmp_path, PhaseEnded) if told.phase is Phase.EVALUATION]
    steps = messages(tmp_path, StepCommitted)
    assert len(evaluations) == 2
    assert all(
        told.end_s >= told.start_s >= step.end_s for told, step in zip(evaluations, steps, strict=True)
    )
