"""The callback in a real Lightning Trainer: killed, damaged, asked to stop, resumed, and to the bit the same."""

import logging
import os
import signal
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from artesian.train import DataError
from artesian.train.stragglers import StragglerPolicy
from artesian.wire.messages import CheckpointCommitted, Phase, PhaseEnded, Restored
from trainer_story import Story, follow, followed, kill_after, stop_in

pytestmark = pytest.mark.slow

SAMPLES, BATCH, STEPS, EVERY = 22, 4, 12, 3
KILLED_AFTER, STOPPED_IN = 8, 7


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Import it once, here, so that the forked processes need not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning  # noqa: F401


class Points(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), 1.0])


def train(folder: Path, progress: Path, at_step: Callable[[int], None]) -> None:
    import lightning

    from artesian.train.integrations.lightning import ArtesianCallback, JobBatches

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(2, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
            )

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            with (folder / "samples.txt").open("a") as file:
                print(self.global_step + 1, *batch[:, 0].int().tolist(), file=file)
            loss: torch.Tensor = ((self.layers(batch / 10) - batch.sum(1, keepdim=True) / 10) ** 2).mean()
            return loss

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            at_step(-self.global_step)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    class AtStep(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            at_step(trainer.global_step)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ.update(ARTESIAN_PROGRESS_DIR=str(progress), CUDA_VISIBLE_DEVICES="")
    torch.manual_seed(0)
    model = Model()
    batches = JobBatches(Points(), global_batch=BATCH)
    callback = ArtesianCallback(
        folder / "checkpoints", every=EVERY, batches=batches, stragglers=StragglerPolicy()
    )
    trainer = lightning.Trainer(
        callbacks=[AtStep(), callback],
        accelerator="cpu",
        devices=1,
        max_steps=STEPS,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    torch.manual_seed(1)
    trainer.fit(model, train_dataloaders=batches, ckpt_path=callback.newest())
    torch.save(model.state_dict(), folder / "final.pt")
    assert len(list((folder / "checkpoints").glob("step-*"))) == 2
    assert list((folder / "checkpoints").glob(".*")) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Story:
    story = Story(train, tmp_path_factory.mktemp("undisturbed"))
    story.attempt()
    return story


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    story = Story(train, tmp_path_factory.mktemp("story"))
    story.attempt(kill_after(KILLED_AFTER))
    with (story.folder / "checkpoints" / "step-00000006" / "lightning.ckpt").open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    story.attempt(stop_in(STOPPED_IN))
    story.attempt()
    return story


def samples(story: Story) -> dict[int, list[str]]:
    """The samples of each step, as the last attempt at it has used them."""
    lines = (story.folder / "samples.txt").read_text().splitlines()
    return {int(words[0]): words[1:] for words in map(str.split, lines)}


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
    assert all(torch.equal(story.weights[name], value) for name, value in undisturbed.weights.items())


def test_every_sample_is_used_once_a_pass_over_epochs_that_leave_some_over(
    story: Story, undisturbed: Story
) -> None:
    assert samples(story) == samples(undisturbed)
    used = Counter(sample for step in samples(story).values() for sample in step)
    assert sum(used.values()) == STEPS * BATCH
    assert set(used.values()) == {2, 3}, "48 of 22 samples: each twice, four of them a third time"
    assert sum(count == 3 for count in used.values()) == STEPS * BATCH - 2 * SAMPLES


def test_saving_is_told_apart_from_steps(undisturbed: Story) -> None:
    stalls = [said for said in undisturbed.only(0, PhaseEnded) if said.phase is Phase.CHECKPOINT_STALL]
    assert len(stalls) == STEPS // EVERY


def test_batches_that_cannot_be_dealt_evenly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from artesian.train.integrations.lightning import ArtesianCallback, JobBatches

    with pytest.raises(DataError, match="the dataset has 22 samples, a global batch needs 23"):
        JobBatches(Points(), global_batch=23)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="must be a multiple of the 3 ranks for lightning, got 4"):
        JobBatches(Points(), global_batch=4)
    with pytest.raises(ValueError, match="every and keep_last must be positive"):
        ArtesianCallback("x", every=0)


@pytest.mark.parametrize("at", [4, -6], ids=["before a save", "in a save"])
def test_an_attempt_that_was_followed_publishes_nothing_and_ends(
    tmp_path: Path, undisturbed: Story, at: int
) -> None:
    story, checkpoints = Story(train, tmp_path), tmp_path / "checkpoints"
    followed(story, checkpoints, at)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000003", "writer.json"]
    assert [said.step for said in story.only(0, CheckpointCommitted)] == [3]
    story.train = train
    follow(story)
    assert [said.step for said in story.only(2, Restored)] == [3]
    assert story.codes == [0, 0, 0]
    assert all(torch.equal(story.weights[name], value) for name, value in undisturbed.weights.items())
