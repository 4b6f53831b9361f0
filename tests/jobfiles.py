"""Job files for tests, and short ways to read them."""

from collections.abc import Mapping

import pytest

from artesian.model.job import Job
from artesian.model.jobfile import JobFileError, parse_job

EVERYTHING = """\
name: first-run
kind: train
devices: 1..2
workers: 2
command: [python, pretrain.py, --steps, 300]
env: {KEY: value, COUNT: 010, TIME: 1:30}
workdir: runs
data: ~/text
checkpoint: {every: 40}
retry: {limit: 5, backoff: 2s, max_backoff: 1m30s, on: [signal, node_lost]}
priority: -3
team: vision
grace: 500ms
start_timeout: 20m
cpus_per_device: 1.5
memory_per_device: 2GB
estimated_duration: 30m
deadline: 8h
parallel_share: 0.95
profile: decoder-1b
steps: 300
faults: [{kind: kill, worker: 1, step: 150, epoch: 2}]
"""
LEAST = "name: a\ndevices: 2\ncommand: [python, train.py]\n"


def parse(text: str, *, env: Mapping[str, str] | None = None, home: str | None = "/home/ada") -> Job:
    return parse_job(text, source="job.yaml", job_id="j-1", base_dir="/srv", env=env or {}, home=home)


def mistakes(text: str) -> list[tuple[int, str, str]]:
    """Return line, subject and text of every mistake in ``text``."""
    with pytest.raises(JobFileError) as caught:
        parse(text)
    return [(mistake.at.line, mistake.subject, mistake.text) for mistake in caught.value.mistakes]


def only_mistake(line: str) -> tuple[str, str, str]:
    """Return subject, text and hint of the one mistake of a job that has ``line`` besides the least."""
    keys = line.partition(":")[0]
    rest = "".join(least for least in LEAST.splitlines(keepends=True) if not least.startswith(f"{keys}:"))
    with pytest.raises(JobFileError) as caught:
        parse(f"{line}\n{rest}")
    [mistake] = caught.value.mistakes
    return mistake.subject, mistake.text, mistake.hint or ""
