"""Two real workers under the launch agent, over gloo: killed, stopped, resumed, and to the bit the same.

One story of three attempts, told once for all tests of this file, next to an undisturbed run.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from artesian.wire.channel import ProgressReader
from artesian.wire.faults import Fault, FaultKind, encode_faults
from artesian.wire.messages import (
    CheckpointCommitted,
    Message,
    Phase,
    PhaseEnded,
    Restored,
    StepCommitted,
    WorkerFailed,
    WorkerStarted,
)

T = TypeVar("T")

pytestmark = pytest.mark.slow

STEPS, BATCH, EVERY = 16, 4, 4
KILLED_AT, STOPPED_IN = 7, 9

SCRIPT = f"""
import os, signal, sys
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from artesian.train import ByteText, Run, join
from artesian.train.models import AttentionConfig, Decoder, DecoderConfig, MoEConfig, keep_balanced

class Noted:
    def __init__(self, data): self.data, self.asked = data, []
    def __len__(self): return len(self.data)
    def __getitem__(self, index):
        self.asked.append(index)
        return self.data[index]

torch.manual_seed(1)
member = join()
model = DistributedDataParallel(Decoder(DecoderConfig(
    dim=16, layers=2, hidden_dim=32, max_context=16,
    attention=AttentionConfig(heads=2, key_heads=1, head_dim=8),
    # Sixteen experts for 32 tokens a rank: in many a step one gets none.
    moe=MoEConfig(routed=16, shared=1, top_k=1, hidden_dim=8),
)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
keep_balanced(model, optimizer)
data = Noted(ByteText(sys.argv[1], context=16))
with open(f"{{sys.argv[2]}}/rank-{{member.rank}}.txt", "w", buffering=1) as seen:
    with Run.from_env(model=model, optimizer=optimizer, member=member) as run:
        for batch in run.batches(data, global_batch={BATCH}, steps={STEPS}):
            loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            if os.environ.get("ARTESIAN_EPOCH") == "2" and member.rank == 1 and run.step + 1 == {STOPPED_IN}:
                os.kill(os.getpid(), signal.SIGTERM)  # this rank alone is asked to stop
            step = run.step + 1
            print(step, *data.asked, file=seen)
            data.asked.clear()
            run.commit(loss, tokens=batch[:, 1:].numel())
        biases = [b.tolist() for name, b in model.named_buffers() if name.endswith("bias_E")]
        print("biases", biases, file=seen)
"""


@dataclass
class Attempt:
    """What one attempt left: its exit code, its messages, and what each rank noted by step."""

    code: int
    stderr: str
    messages: Sequence[Message]
    notes: list[dict[str, str]]

    def losses(self) -> dict[tuple[int, int], float | None]:
        return {(m.rank, m.step): m.loss for m in self.messages if isinstance(m, StepCommitted)}

    def only(self, kind: type[T]) -> list[T]:
        return [message for message in self.messages if isinstance(message, kind)]


def attempt(folder: Path, epoch: int, *, job: str, faults: str = "[]") -> Attempt:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    text = folder / "text"
    text.mkdir(exist_ok=True)
    (text / "text").write_bytes(bytes(range(1, 256)) * 20)
    notes, progress = folder / f"{job}-{epoch}-notes", folder / f"{job}-{epoch}-progress"
    notes.mkdir()
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "artesian.train.launch",
            "--nproc-per-node=2",
            str(script),
            str(text),
            str(notes),
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "ARTESIAN_EPOCH": str(epoch),
            "ARTESIAN_PROGRESS_DIR": str(progress),
            "ARTESIAN_CHECKPOINT_DIR": str(folder / f"{job}-checkpoints"),
            "ARTESIAN_CHECKPOINT_EVERY": str(EVERY),
            "ARTESIAN_FAULTS": faults,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Attempt(
        code=result.returncode,
        stderr=result.stderr,
        messages=ProgressReader(progress).read(),
        notes=[
            dict(line.split(" ", 1) for line in (notes / f"rank-{rank}.txt").read_text().splitlines())
            for rank in (0, 1)
        ],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gang")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Attempt:
    return attempt(folder, 1, job="undisturbed")


@pytest.fixture(scope="module")
def story(folder: Path) -> list[Attempt]:
    faults = encode_faults([Fault(kind=FaultKind.KILL, worker=1, step=KILLED_AT)])
    return [attempt(folder, epoch, job="story", faults=faults) for epoch in (1, 2, 3)]


def test_an_undisturbed_gang_ends_well_with_the_same_model_on_all_ranks(undisturbed: Attempt) -> None:
    assert undisturbed.code == 0, undisturbed.stderr
    assert len(undisturbed.losses()) == 2 * STEPS
    assert undisturbed.notes[0]["biases"] == undisturbed.notes[1]["biases"]
    assert "0.001" in undisturbed.notes[0]["biases"]
    assert sorted(started.rank for started in undisturbed.only(WorkerStarted)) == [0, 1]


def test_the_killed_worker_is_reported_and_the_gang_ends_with_its_code(story: list[Attempt]) -> None:
    assert story[0].code == 128 + signal.SIGKILL
    (failure,) = story[0].only(WorkerFailed)
    assert (failure.rank, failure.signal) == (1, signal.SIGKILL)
    assert max(step for rank, step in story[0].losses() if rank == 1) == KILLED_AT - 1


def test_all_ranks_stop_after_the_same_step_though_one_was_asked(story: list[Attempt]) -> None:
    assert story[1].code == 128 + signal.SIGTERM, story[1].stderr
    assert {restored.step for restored in story[1].only(Restored)} == {EVERY}
    last_steps = {max(step for rank, step in story[1].losses() if rank == of) for of in (0, 1)}
    assert last_steps == {STOPPED_IN + 1}
    assert story[1].only(CheckpointCommitted)[-1].step == STOPPED_IN + 1


def test_the_next_attempt_goes_on_from_there_and_finishes(story: list[Attempt]) -> None:
    assert story[2].code == 0, story[2].stderr
    assert {restored.step for restored in story[2].only(Restored)} == {STOPPED_IN + 1}
    assert min(step for _, step in story[2].losses()) == STOPPED_IN + 2


def test_every_loss_is_the_undisturbed_runs_to_the_bit(story: list[Attempt], undisturbed: Attempt) -> None:
    told = {**story[0].losses(), **story[1].losses(), **story[2].losses()}
    assert told == undisturbed.losses()
    assert story[2].notes[0]["biases"] == undisturbed.notes[0]["biases"]


def test_every_step_trains_on_the_undisturbed_runs_samples_each_once(
    story: list[Attempt], undisturbed: Attempt
) -> None:
    seen: list[str] = []
    for rank in (0, 1):
        merged = {**story[0].notes[rank], **story[1].notes[rank], **story[2].notes[rank]}
        assert merged == undisturbed.notes[rank]
        seen += [sample for step, samples in merged.items() if step != "biases" for sample in samples.split()]
    assert len(seen) == len(set(seen)) == STEPS * BATCH


def test_both_ranks_count_the_stall_of_a_save_and_the_restore(story: list[Attempt]) -> None:
    for phase in (Phase.CHECKPOINT_STALL, Phase.RESTORE):
        assert {item.rank for item in story[2].only(PhaseEnded) if item.phase is phase} == {0, 1}
    assert {item.rank for item in story[2].only(CheckpointCommitted)} == {0}
