"""``Run`` with a guard, with memory, with an interval that chooses itself: what a loop sees of them."""

import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from artesian.train import Run
from artesian.train.checkpoint import Checkpointer
from artesian.train.errors import UnstableError
from artesian.train.from_env import every_of, interval_of
from artesian.train.guards import Action, Policy
from artesian.train.interval import BestInterval, EverySeconds, EverySteps
from artesian.train.segment import SHARED_MEMORY, JobFolder

STEPS, BATCH = 20, 4


class Numbers:
    """Sample i is the number i; what is asked for is noted."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> Tensor:
        self.asked.append(index)
        return torch.tensor([index / 1000])


class Training:
    def __init__(self, **options: Any) -> None:
        torch.manual_seed(3)
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.data = Numbers()
        self.steps: list[int] = []
        self.run = Run.from_env(model=self.model, optimizer=self.optimizer, **{"environ": {}, **options})

    def train(self, bad: dict[int, float] | None = None, steps: int = STEPS) -> None:
        """Train; the n-th batch has the loss that ``bad`` says, and gradients to match."""
        handed = 0
        with self.run as run:
            for batch in run.batches(self.data, global_batch=BATCH, steps=steps):
                handed += 1
                loss = self.model(batch).square().mean() * (bad or {}).get(handed, 1.0)
                loss.backward()
                run.commit(loss)
                self.steps.append(run.step)

    def train_and_fail(self, after: int) -> None:
        """Train so many steps, and fail in the next as a worker of the launch agent's does: its memory stays."""
        with self.run as run:
            for batch in run.batches(self.data, global_batch=BATCH, steps=STEPS):
                self.model(batch).square().mean().backward()
                if run.step == after:
                    run._saves.close(keep=True)
                    raise ZeroDivisionError
                run.commit()

    def train_and_fail_once_undone(self, bad: int) -> None:
        """Train until the run goes back for that batch, and fail then as ``train_and_fail`` does."""
        with self.run as run:
            batches = run.batches(self.data, global_batch=BATCH, steps=STEPS)
            for handed, batch in enumerate(batches, start=1):
                before = run.step
                saves: Any = run._saves  # so that there is a step to go back to
                saves._saver.memory.finish()
                saves._saver._persister.drain()
                loss = self.model(batch).square().mean() * (math.inf if handed == bad else 1.0)
                loss.backward()
                run.commit(loss)
                if run.step < before:
                    run._saves.close(keep=True)
                    raise ZeroDivisionError


@pytest.fixture
def memory_name() -> Iterator[str]:
    """A name in the machine's shared memory, held as by the agent: else others sweep what nobody uses for a moment."""
    name = f"test-{uuid.uuid4().hex}"
    folder = JobFolder(name)
    yield name
    assert folder.ranks() == []
    folder.leave(keep=False)
    assert not list(SHARED_MEMORY.glob(f"*{name}"))


def test_a_batch_whose_loss_is_no_number_is_passed_over_and_leaves_no_trace() -> None:
    training = Training(guard=Policy(not_finite=Action.SKIP))
    training.train({5: math.nan})
    assert training.steps[4] == 4  # nothing was committed by the fifth batch
    assert training.run.step == STEPS
    assert all(parameter.isfinite().all() for parameter in training.model.parameters())
    assert len(set(training.data.asked)) == len(training.data.asked) == (STEPS + 1) * BATCH
    assert training.run.position == (STEPS + 1) * BATCH


def test_without_a_guard_a_loss_that_is_no_number_spoils_the_model() -> None:
    training = Training()
    training.train({5: math.nan})
    assert not all(parameter.isfinite().all() for parameter in training.model.parameters())


def test_a_roll_back_goes_to_an_earlier_state_and_past_the_samples_that_led_to_it(
    tmp_path: Path, memory_name: str
) -> None:
    policy = Policy(not_finite=Action.ROLL_BACK, back=3, forget=2)
    training = Training(
        guard=policy, checkpoint_dir=tmp_path / "c", checkpoint_every=2, keep_last=9, memory=memory_name
    )
    training.train({8: math.inf})
    at = training.steps.index(7)
    assert training.steps[at + 1] <= 5  # back three steps or more, to a step that was saved
    assert training.run.step == STEPS
    assert all(parameter.isfinite().all() for parameter in training.model.parameters())


def test_a_run_that_is_killed_after_a_roll_back_goes_on_from_there_past_the_same_samples(
    tmp_path: Path, memory_name: str
) -> None:
    options: dict[str, Any] = {
        "guard": Policy(not_finite=Action.ROLL_BACK, back=3, forget=2),
        "checkpoint_dir": tmp_path / "c",
        "checkpoint_every": 2,
        "keep_last": 9,
        "memory": memory_name,
        "memory_every": 1,
    }
    first = Training(**options)
    with pytest.raises(ZeroDivisionError):
        first.train_and_fail_once_undone(bad=8)
    bad = first.data.asked[7 * BATCH : 8 * BATCH]
    second = Training(**options)
    second.train()
    assert second.steps[0] == first.run.step + 1
    assert not set(second.data.asked) & set(bad)


def test_losses_that_stay_bad_end_the_run_with_an_error(tmp_path: Path) -> None:
    training = Training(guard=Policy(not_finite=Action.SKIP, limit=2), checkpoint_dir=tmp_path)
    with pytest.raises(UnstableError, match="not finite"):
        training.train(dict.fromkeys(range(5, 20), math.nan))
    assert training.run.step == 4


def test_what_the_guard_knows_goes_with_the_checkpoint(tmp_path: Path) -> None:
    first = Training(guard=Policy(), checkpoint_dir=tmp_path)
    first.train({3: math.nan}, steps=10)
    second = Training(guard=Policy(), checkpoint_dir=tmp_path)
    second.train(steps=12)
    assert second.steps == [11, 12]
    used = first.data.asked + second.data.asked
    assert len(set(used)) == len(used) == 13 * BATCH  # the one that was passed over stays so


def test_a_run_with_memory_comes_back_from_its_last_step_and_leaves_nothing(
    tmp_path: Path, memory_name: str
) -> None:
    undisturbed = Training()
    undisturbed.train()
    first = Training(memory=memory_name, memory_every=1)
    with pytest.raises(ZeroDivisionError):
        first.train_and_fail(after=9)
    second = Training(memory=memory_name, memory_every=1)
    second.train()
    assert second.steps[0] == 10
    for one, other in zip(undisturbed.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("text", "interval"),
    [("40", EverySteps(40)), ("600.0s", EverySeconds(600.0)), ("auto", BestInterval), ("", None)],
)
def test_the_environment_says_when_to_save(text: str, interval: Any) -> None:
    every = every_of({"ARTESIAN_CHECKPOINT_EVERY": text})
    found = None if every is None else interval_of(every, nodes=4)
    if interval is BestInterval:
        assert isinstance(found, BestInterval)
        assert found.mttf_s == pytest.approx(86400 / 3.8e-3 / 4)
    else:
        assert found == interval


def test_an_interval_in_seconds_is_over_with_the_first_step_after_it() -> None:
    interval = EverySeconds(2.0)
    assert not interval.is_due(5, 4, 1.9)
    assert interval.is_due(5, 4, 2.0)
    assert not interval.is_due(4, 4, 9.0)


def test_an_interval_that_chooses_itself_saves_and_the_end_is_saved_in_any_case(tmp_path: Path) -> None:
    training = Training(checkpoint_dir=tmp_path, checkpoint_every="auto")
    training.train()
    again = Training(checkpoint_dir=tmp_path, checkpoint_every="auto")
    again.train(steps=STEPS + 1)
    assert again.steps == [STEPS + 1]


def test_an_interval_that_chooses_itself_knows_how_long_and_how_often_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, float]] = []
    monkeypatch.setattr(
        BestInterval, "observed", lambda _, failures, duration_s: told.append((failures, duration_s))
    )
    Training(checkpoint_dir=tmp_path, checkpoint_every="auto").train()
    saved = Checkpointer(tmp_path).load_newest()
    assert saved is not None
    ran_s = saved.state["data"]["ran_s"]
    assert ran_s > 0
    # The third attempt, restarted once.
    before = {"ARTESIAN_EPOCH": "3", "ARTESIAN_RESTART": "1"}
    Training(checkpoint_dir=tmp_path, checkpoint_every="auto", environ=before).train(steps=STEPS + 1)
    failures, duration_s = told[-1]
    assert failures == 3
    assert duration_s >= ran_s
    again = Checkpointer(tmp_path).load_newest()
    assert again is not None
    assert again.state["data"]["ran_s"] > ran_s
