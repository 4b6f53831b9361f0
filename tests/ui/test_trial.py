"""The simulator in a process of its own: what it refuses, how long it may take, and what it gets to know."""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from artesian.server.ui.trial import FILE_BYTES, MOST_POLICIES, TrialFailed, Trials
from proc import children, command_line

JOBS = "submit_s,duration_s,devices,name\n0,60,1,a\n60,60,1,b\n"


def run(jobs: str = JOBS, policies: tuple[str, ...] = ("fifo",), limit_s: float = 120.0) -> Mapping[str, Any]:
    def simulate() -> Mapping[str, Any]:
        return asyncio.run(Trials(limit_s=limit_s).run(jobs, policies, 0.9))

    # On a thread: in this one the event loop of the tests' browser may be running.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(simulate).result()


def test_a_simulation_says_what_came_of_it_and_that_it_is_one() -> None:
    found = run()
    assert (found["simulated"], found["jobs"]) == (True, 2)
    assert [one["policy"] for one in found["policies"]] == ["fifo"]


@pytest.mark.parametrize(
    ("jobs", "policies", "said"),
    [
        ("x" * (FILE_BYTES + 1), ("fifo",), "at most"),
        (JOBS, (), "1 to"),
        (JOBS, ("fifo",) * (MOST_POLICIES + 1), "1 to"),
        (JOBS, ("no-such",), "is not known"),
        ("nonsense\n", ("fifo",), "jobs.csv"),
    ],
)
def test_what_cannot_be_simulated_is_refused(jobs: str, policies: tuple[str, ...], said: str) -> None:
    with pytest.raises(TrialFailed, match=said) as caught:
        run(jobs, policies)
    assert "/tmp" not in str(caught.value)


def test_one_that_takes_too_long_is_ended_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where nobody else's come and go
    with pytest.raises(TrialFailed, match=r"up to 0\.01 s"):
        run(limit_s=0.01)
    assert list(tmp_path.iterdir()) == []
    assert [pid for pid in children(os.getpid()) if b"simulate" in command_line(pid)] == []
