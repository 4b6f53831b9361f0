"""What starts the agents of a gang under Slurm, and passes a stop on to them, wherever srun is by then."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.engines.slurm.batch import ATTEMPT_FILE
from artesian.model.job import Cause, JobKind
from artesian.model.plan import Start
from builders import a_placement
from cli_harness import until
from engines_harness import Harness, Session, harness_of, shell


@pytest.fixture
def harness(tmp_path: Path, session: Session) -> Iterator[Harness]:
    with harness_of("slurm", tmp_path / "jobs", session) as harness:
        yield harness


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def start_all(folder: Path, srun: Path, scancel: Path) -> subprocess.Popen[bytes]:
    """Start what starts the agents, with programs in the place of Slurm's."""
    (folder / ATTEMPT_FILE).write_text(json.dumps({"groups": [{"nodes": 2, "cpus": 1}]}))
    words = ["-I", "-m", "artesian.engines.slurm.gang", "all", str(folder), str(srun), str(scancel)]
    return subprocess.Popen([sys.executable, *words], env={**os.environ, "SLURM_JOB_ID": "7"})


@pytest.mark.parametrize(("end", "code"), [("exit 3", 3), ("kill -TERM $$", 128 + signal.SIGTERM)])
def test_it_ends_as_srun_does_and_as_a_shell_says_it(tmp_path: Path, end: str, code: int) -> None:
    """Slurm cancels a job by signals for each of its processes, and srun is one of them."""
    srun, scancel = program(tmp_path / "srun", end), program(tmp_path / "scancel", "exit 1")
    assert start_all(tmp_path, srun, scancel).wait() == code


def test_where_slurm_cannot_signal_the_agents_srun_is_ended(tmp_path: Path) -> None:
    srun = program(tmp_path / "srun", f"touch {tmp_path}/up; while :; do sleep 0.01; done")
    process = start_all(tmp_path, srun, program(tmp_path / "scancel", "exit 1"))
    until((tmp_path / "up").exists)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM


def test_agents_that_srun_starts_after_a_stop_leave_at_once(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm signals the steps that there are, and has none of the gang yet."""
    real = {name: shutil.which(name) for name in ("srun", "scancel")}
    programs = tmp_path / "programs"
    programs.mkdir()
    program(
        programs / "srun",
        f'touch {tmp_path}/up; while ! [ -e {tmp_path}/go ]; do sleep 0.01; done; exec {real["srun"]} "$@"',
    )
    program(
        programs / "scancel",
        f'{real["scancel"]} "$@"; code=$?; echo "$@" >> {tmp_path}/told; exit $code',
    )
    job = shell(f"touch {tmp_path}/ran-$RANK; while :; do sleep 0.05; done", kind=JobKind.TRAIN)

    def is_told() -> bool:
        path = tmp_path / "told"
        lines = path.read_text().splitlines() if path.exists() else []
        return any("--signal=TERM" in line and "--batch" not in line for line in lines)

    async def test() -> None:
        async with harness.opened():
            monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
            place = a_placement(("h1", [0]), ("h2", [0]))
            harness.engine.start(Start(job_id=job.id, epoch=1, placement=place, reason="a test"), job)
            await harness.until((tmp_path / "up").exists)
            harness.stop(job, grace_s=120.0)
            await harness.until(is_told)
            (tmp_path / "go").touch()
            outcome = await harness.outcome()
            assert (outcome.cause, outcome.signal) == (Cause.SIGNAL, signal.SIGTERM)

    asyncio.run(test())
    assert not list(tmp_path.glob("ran-*"))
