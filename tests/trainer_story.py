"""The attempts of a job that somebody else's trainer runs: each a process, with what it left."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from artesian.train import SupersededError
from artesian.train.directory import Directory
from artesian.train.fence import Writer, claim
from artesian.wire import environment
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import Message, StepCommitted
from gang_harness import in_child


@dataclass
class Story:
    """What the attempts of a job left: exit codes, messages, the final weights.

    ``train`` gets the job's folder, the folder for progress, and what to call after each step with its number; with
    that made negative, while the step is saved.
    """

    train: Callable[[Path, Path, Callable[[int], None]], None]
    folder: Path
    codes: list[int] = field(default_factory=list)
    messages: list[list[Message]] = field(default_factory=list)

    def attempt(self, at_step: Callable[[int], None] = lambda _: None) -> None:
        progress = self.folder / f"progress-{len(self.codes)}"
        self.codes.append(in_child(lambda: self.train(self.folder, progress, at_step)))
        self.messages.append(list(ProgressReader(progress).read()))

    def only(self, attempt: int, kind: type[Any]) -> list[Any]:
        return [message for message in self.messages[attempt] if isinstance(message, kind)]

    def losses(self) -> dict[int, float | None]:
        return {
            said.step: said.loss for at in range(len(self.codes)) for said in self.only(at, StepCommitted)
        }

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = torch.load(self.folder / "final.pt")
        return found


def kill_after(step: int) -> Callable[[int], None]:
    return lambda now: os.kill(os.getpid(), signal.SIGKILL) if now == step else None


def stop_in(step: int) -> Callable[[int], None]:
    """Ask the job to stop, in its ``step``."""
    return lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == step else None


def followed(story: Story, checkpoints: Path, at: int) -> None:
    """Run the job's first attempt, which the second follows ``at`` a step; see it end, and not begin again."""
    train = story.train

    def refused(folder: Path, progress: Path, at_step: Callable[[int], None]) -> None:
        os.environ.update({environment.JOB_ID: "j", environment.EPOCH: "1"})
        with pytest.raises(SupersededError, match="this is attempt 1"):
            train(folder, progress, at_step)

    def come(now: int) -> None:
        if now == at:
            claim(Directory(checkpoints, Writer(job="j", epoch=2)))

    story.train = refused
    story.attempt(come)
    story.attempt()
    assert story.codes == [0, 0]
    assert story.messages[1] == []


def follow(story: Story) -> None:
    """Run the second attempt of such a job."""
    train = story.train

    def second(folder: Path, progress: Path, at_step: Callable[[int], None]) -> None:
        os.environ.update({environment.JOB_ID: "j", environment.EPOCH: "2"})
        train(folder, progress, at_step)

    story.train = second
    story.attempt()
