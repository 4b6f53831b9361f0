"""The callback in a real Trainer: killed, damaged, asked to stop, resumed, and to the bit the same."""

import os
import signal
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from artesian.train import SupersededError
from artesian.train.directory import Directory
from artesian.train.fence import Writer, claim
from artesian.train.integrations.companion import Companion
from artesian.train.stragglers import StragglerPolicy
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import (
    CheckpointCommitted,
    Phase,
    PhaseEnded,
    Restored,
    StepCommitted,
    StragglerFound,
    WorkerStarted,
)
from gang_harness import in_gang
from trainer_story import Story, follow, followed, kill_after, stop_in

pytestmark = pytest.mark.slow

STEPS, EVERY = 10, 3
KILLED_AFTER, STOPPED_IN = 8, 7


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Import it once, here, so that the forked processes need not."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import accelerate  # type: ignore[import-untyped]  # noqa: F401
        from transformers import GPT2LMHeadModel, Trainer  # noqa: F401


class Tokens(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(index, index + 8) % 16
        return {"input_ids": ids, "labels": ids}


def train(folder: Path, progress: Path, at_step: Callable[[int], None]) -> None:
    """Train a tiny GPT-2 with dropout; ``at_step`` is called after each step."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    from artesian.train.integrations.huggingface import ArtesianCallback, newest_checkpoint

    class AtStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            at_step(state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            at_step(-state.global_step)

    os.environ.update(ARTESIAN_PROGRESS_DIR=str(progress), CUDA_VISIBLE_DEVICES="")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        save_steps=EVERY,
        logging_steps=1,
        per_device_train_batch_size=4,
        eval_strategy="steps",
        eval_steps=5,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=1,
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=Tokens(),
        eval_dataset=Tokens(),
        callbacks=[AtStep(), ArtesianCallback(stragglers=StragglerPolicy())],
    )
    trainer.train(resume_from_checkpoint=newest_checkpoint(folder))
    torch.save(model.state_dict(), folder / "final.pt")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Story:
    story = Story(train, tmp_path_factory.mktemp("undisturbed"))
    story.attempt()
    return story


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    story = Story(train, tmp_path_factory.mktemp("story"))
    story.attempt(kill_after(KILLED_AFTER))
    with (story.folder / "checkpoint-6" / "optimizer.pt").open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    story.attempt(stop_in(STOPPED_IN))
    story.attempt()
    return story


def test_the_killed_job_goes_on_from_the_newest_checkpoint_that_is_whole(story: Story) -> None:
    assert story.codes == [-signal.SIGKILL, 128 + signal.SIGTERM, 0]
    assert [said.step for said in story.only(0, CheckpointCommitted)] == [3, 6]
    assert [said.step for said in story.only(1, Restored)] == [3]
    assert [said.step for said in story.only(2, Restored)] == [STOPPED_IN]
    assert story.only(1, CheckpointCommitted)[-1].step == STOPPED_IN


def test_every_loss_and_the_final_weights_are_the_undisturbed_ones_to_the_bit(
    story: Story, undisturbed: Story
) -> None:
    assert undisturbed.codes == [0]
    assert sorted(undisturbed.losses()) == list(range(1, STEPS + 1))
    assert story.losses() == undisturbed.losses()
    assert story.weights.keys() == undisturbed.weights.keys()
    assert all(torch.equal(story.weights[name], value) for name, value in undisturbed.weights.items())


def test_a_rank_that_computes_longer_is_found_by_the_callback_too(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        os.environ["ARTESIAN_PROGRESS_DIR"] = str(tmp_path)
        model = torch.nn.Linear(1, 1)
        companion = Companion(
            model,
            torch.device("cpu"),
            tmp_path,
            stragglers=StragglerPolicy(every=2, patience=2),
            environ=os.environ,
        )
        assert companion._slow is not None
        timer = companion._slow._timer
        for number in range(1, 9):
            companion.step_begins()
            model(torch.ones(1, 1)).sum().backward()
            timer._begin, timer._end = 0.0, 2.0 if rank == 1 else 1.0
            companion.step_ends(number, None)
        companion.close()
        companion.close()

    in_gang(2, work)
    found = ProgressReader(tmp_path).read()
    assert all(said.seeks_stragglers for said in found if isinstance(said, WorkerStarted))
    slow = [said for said in found if isinstance(said, StragglerFound)]
    assert [(said.rank, said.step, said.ratio, said.excess_s) for said in slow] == [
        (1, 4, 2.0, 4.0),
        (1, 6, 2.0, 2.0),
    ]


def test_a_callback_says_that_it_replaces_no_straggler() -> None:
    with pytest.raises(ValueError, match="does not replace them: expected replaces=False"):
        Companion(
            torch.nn.Linear(1, 1),
            torch.device("cpu"),
            "checkpoints",
            stragglers=StragglerPolicy(replaces=True),
            environ={},
        )


def test_all_ranks_end_together_where_one_finds_that_it_was_followed(tmp_path: Path) -> None:
    """Whatever the others see: else they would wait in a collective for one that has left."""

    def work(rank: int) -> None:
        environ = {"ARTESIAN_JOB_ID": "j", "ARTESIAN_EPOCH": "1"}
        companion = Companion(torch.nn.Linear(1, 1), torch.device("cpu"), tmp_path, environ=environ)
        companion.look()
        companion.meet()
        if rank == 1:
            claim(Directory(tmp_path, Writer(job="j", epoch=2)))
        else:
            companion.place = Directory(tmp_path / "elsewhere", Writer(job="j", epoch=1))
        why = "another rank has found" if rank == 0 else "this is attempt 1"
        with pytest.raises(SupersededError, match=why):
            companion.look()

    in_gang(2, work)


def test_saving_evaluating_and_waiting_for_data_are_told_apart_from_steps(undisturbed: Story) -> None:
    phases = undisturbed.only(0, PhaseEnded)
    assert {said.phase for said in phases} >= {Phase.START_UP, Phase.CHECKPOINT_STALL, Phase.EVALUATION}
    steps = sorted((said.start_s, said.end_s) for said in undisturbed.only(0, StepCommitted))
    later = [(said.start_s, said.end_s) for said in phases if said.phase is not Phase.START_UP]
    assert all(before[1] <= after[0] for before, after in pairwise(sorted([*steps, *later])))


@pytest.mark.parametrize("at", [4, -6], ids=["before a save", "in a save"])
def test_an_attempt_that_was_followed_seals_nothing_and_ends(
    tmp_path: Path, undisturbed: Story, at: int
) -> None:
    from artesian.train.integrations.huggingface import newest_checkpoint

    story = Story(train, tmp_path)
    followed(story, tmp_path, at)
    # What the Trainer itself has written by then is not sealed, so nobody goes on from it.
    names = ["checkpoint-3"] if at > 0 else ["checkpoint-3", "checkpoint-6"]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == names
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    assert [said.step for said in story.only(0, CheckpointCommitted)] == [3]
    story.train = train
    follow(story)
    assert [said.step for said in story.only(2, Restored)] == [3]
    assert story.codes == [0, 0, 0]
    assert all(torch.equal(story.weights[name], value) for name, value in undisturbed.weights.items())
