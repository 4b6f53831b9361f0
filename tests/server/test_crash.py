"""kill -9 of the control plane at every step of a job's life: nothing is lost, nothing starts twice."""

import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from artesian.kernel.lifecycle import JobState
from artesian.model.events import CancelRequested, JobSubmitted
from artesian.model.job import Cause, Job
from artesian.server.config import StateDir
from artesian.store import SqliteJournal
from builders import a_job, retry
from cli_harness import TIMEOUT_S

POINTS = 50
SEED = 20
IDLE_EXIT_S = "0.1"
DAEMON = str(Path(__file__).with_name("crashing_daemon.py"))


def the_jobs(folder: Path) -> list[Job]:
    """One that is killed in its first attempt, one that takes long, and one that waits for both."""

    def scripted(id: str, script: str, devices: str) -> Job:
        note = f'echo "$ARTESIAN_JOB_ID/$ARTESIAN_EPOCH" >> {folder}/starts; '
        return a_job(
            id,
            devices=devices,
            workers=0,
            command=("sh", "-c", note + script),
            env={"PATH": os.environ["PATH"]},
            grace_s=1.0,
            retry=retry(3, Cause.SIGNAL, backoff_s=0.05),
        )

    return [
        scripted("dies-once", "[ $ARTESIAN_EPOCH = 2 ] || kill -KILL $$", "1"),
        scripted("takes-long", "sleep 0.4", "1"),
        scripted("waits", "true", "1"),
    ]


class Lives:
    """Runs the daemon again and again, each time in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def drive(self, state: StateDir, instant: int, count_file: Path) -> int:
        """Run the daemon to its end, or to its death at ``instant``; return its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = (str(state.path), IDLE_EXIT_S, str(instant), str(count_file))
        self._process.stdin.write("\t".join(words) + "\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], TIMEOUT_S)[0], f"instant {instant}: it hangs"
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def lives() -> Iterator[Lives]:
    with closing(Lives()) as lives:
        yield lives


def submit(state: StateDir, jobs: list[Job]) -> None:
    state.create()
    journal = SqliteJournal.open(state.journal)
    journal.append([JobSubmitted(at_s=time.time(), job=job) for job in jobs])
    journal.close()


@pytest.mark.slow
def test_a_daemon_killed_at_any_instant_loses_no_job_and_starts_none_twice(
    tmp_path: Path, lives: Lives
) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    state = StateDir(undisturbed / "state")
    submit(state, the_jobs(undisturbed))
    assert lives.drive(state, 0, tmp_path / "count") == 0
    assert starts_of(undisturbed) == ["dies-once/1", "dies-once/2", "takes-long/1", "waits/1"]
    instants = int((tmp_path / "count").read_text())
    rng = random.Random(SEED)
    for point in sorted(rng.sample(range(1, instants), POINTS)):
        folder = tmp_path / f"killed-at-{point}"
        folder.mkdir()
        check_kill_at(point, folder, lives)


def check_kill_at(point: int, folder: Path, lives: Lives) -> None:
    state = StateDir(folder / "state")
    jobs = the_jobs(folder)
    submit(state, jobs)
    # Timing moves the count a little from run to run: the last instants may not be reached.
    assert lives.drive(state, point, folder / "count") in (-9, 0), f"instant {point}"

    journal = SqliteJournal.open(state.journal)
    journal.append([CancelRequested(at_s=time.time(), job_id="takes-long", user="the test")])
    journal.close()
    assert lives.drive(state, 0, folder / "count") == 0, (
        f"after instant {point}: {state.daemon_log.read_text()}"
    )

    journal = SqliteJournal.open(state.journal)
    found, _ = journal.load()
    journal.verify()
    journal.close()
    found.validate()
    log = state.daemon_log.read_text()
    states = {id_: record.state for id_, record in found.jobs.items()}
    assert states.keys() == {job.id for job in jobs}, f"instant {point}: a job was lost"
    assert states["dies-once"] is JobState.SUCCEEDED, f"instant {point}: {states}\n{log}"
    assert states["waits"] is JobState.SUCCEEDED, f"instant {point}: {states}\n{log}"
    assert states["takes-long"] in (JobState.SUCCEEDED, JobState.CANCELLED), (
        f"instant {point}: {states}\n{log}"
    )
    starts = starts_of(folder)
    assert len(starts) == len(set(starts)), f"instant {point}: an attempt ran twice: {starts}\n{log}"
    assert {"dies-once/1", "dies-once/2", "waits/1"} <= set(starts), f"instant {point}: {starts}\n{log}"


def starts_of(folder: Path) -> list[str]:
    return sorted((folder / "starts").read_text().split())
