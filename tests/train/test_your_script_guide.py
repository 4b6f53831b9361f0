"""The guide to one's own script: its code runs as it is printed."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from artesian.wire import ProgressReader, StepCommitted
from pages import GUIDES, blocks

PAGE = GUIDES / "your-script.md"
FIVE_LINES, FLOPS, ACCUMULATION = blocks(PAGE, "python")
[LAUNCH] = [shlex.split(line) for block in blocks(PAGE, "bash") for line in block.splitlines()]


def ran(folder: Path, script: str, command: list[str]) -> list[StepCommitted]:
    """Run ``script`` as ``train.py`` by the command, to a good end; return the steps that it has told."""
    (folder / "train.py").write_text(script)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ARTESIAN_")}
    env = {**clean, "OMP_NUM_THREADS": "1", "ARTESIAN_PROGRESS_DIR": str(folder / "progress")}
    # The commands of this environment, as it would be for who has activated it.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [told for told in ProgressReader(folder / "progress").read() if isinstance(told, StepCommitted)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "workers"),
    [
        (["python", "train.py"], 1),
        (["artesian", "launch", "train.py"], 1),
        (LAUNCH, 2),
    ],
    ids=["alone", "one worker", "as printed"],
)
def test_the_five_lines_train_however_they_are_started(
    tmp_path: Path, command: list[str], workers: int
) -> None:
    steps = ran(tmp_path, FIVE_LINES, command)
    assert [sum(told.rank == rank for told in steps) for rank in range(workers)] == [1000] * workers
    assert {told.tokens for told in steps} == {64 // workers}


@pytest.mark.slow
def test_one_worker_under_artesian_launch_needs_no_if(tmp_path: Path) -> None:
    condition = " if member.world_size > 1 else model"
    assert condition in FIVE_LINES
    assert ran(tmp_path, FIVE_LINES.replace(condition, ""), ["artesian", "launch", "train.py"])


@pytest.mark.slow
def test_several_batches_before_a_commit_are_one_step(tmp_path: Path) -> None:
    head, loop = FIVE_LINES.split("    for ", 1)
    assert "run.commit" in loop
    loss = "def loss_of(model, batch):\n    return (model(batch[0]) - batch[1]).square().mean()\n\n"
    body = "".join(f"    {line}" for line in ACCUMULATION.splitlines(keepends=True))
    counted = "\n    assert (run.step, run.position) == (1000, 4 * 1000 * 64)\n"
    steps = ran(tmp_path, loss + head + body + counted, ["python", "train.py"])
    assert [told.step for told in steps] == list(range(1, 1001))


def test_the_flops_of_a_decoder_come_out() -> None:
    found: dict[str, float] = {}
    exec(FLOPS, {}, found)  # noqa: S102  what the guide says is what is tested
    # Six for each of eight billion parameters, and what attention adds.
    assert 6 * 7e9 < found["flops_per_token"] < 6 * 12e9
