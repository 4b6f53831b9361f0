"""The example on a real device, through the whole control plane: bf16, a kill, a resume, an MFU."""

import json
import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretrain.py"


def test_the_example_trains_on_a_gpu_and_its_mfu_rests_on_a_known_ceiling(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"name: on-gpu\nkind: train\ndevices: 1\nworkers: 1\ncommand: [{sys.executable}, {EXAMPLE}, --steps, 40]\n"
        "checkpoint: {every: 10}\nretry: {limit: 1, backoff: 0s, on: [signal]}\n"
        "faults: [{kind: kill, worker: 0, step: 25}]\n"
    )
    artesian = [sys.executable, "-m", "artesian.cli.main"]
    done = subprocess.run(
        [*artesian, "run", str(job), "-o", "json"],
        env={**os.environ, "ARTESIAN_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    training = report["training"]
    assert training["steps"] == 40
    assert training["final_loss"] < training["first_loss"]
    (recovery,) = training["recoveries"]
    assert recovery["layer"] == "fork"
    assert 20 <= recovery["resumed_from_step"] < 25
    assert 0 < training["mfu"] < 1
    assert "bf16" in training["mfu_basis"]
