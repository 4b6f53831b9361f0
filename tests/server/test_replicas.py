"""Several servers on one database, as real processes: one leads, and whatever happens to it, the work goes on."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.kernel.lifecycle import JobState
from postgres_server import PostgresServer
from replicas_harness import Replicas, replicas_on


@pytest.fixture
def replicas(postgres_url: str, tmp_path: Path) -> Iterator[Replicas]:
    with replicas_on(postgres_url, tmp_path) as replicas:
        yield replicas


def check_that_every_job_ran_once(replicas: Replicas, count: int) -> None:
    state = replicas.until_over()
    state.validate()
    assert replicas.journal.verify() == replicas.journal.last_seq
    assert len(state.jobs) == count, "a job was lost"
    assert {record.state for record in state.jobs.values()} == {JobState.SUCCEEDED}, replicas.logs()
    starts = replicas.starts()
    assert len(starts) == len(set(starts)), f"an attempt ran twice: {starts}\n{replicas.logs()}"


@pytest.mark.parametrize("seed", range(3))
def test_leaders_killed_at_any_moment_lose_no_job_and_start_none_twice(replicas: Replicas, seed: int) -> None:
    rng = random.Random(seed)
    count = 12
    for _ in range(2):
        replicas.start()
    for number in range(count):
        replicas.submit(replicas.noting_job(f"j{number}", sleeps_s=0.05))
        if number in (3, 7):
            leader = replicas.leading()
            plans = replicas.plans()
            time.sleep(rng.random() * 0.3)  # anywhere in what it does
            leader.kill()
            replicas.start()
            replicas.submit(
                replicas.noting_job(f"after-{number}")
            )  # whatever was planned before: there is more to plan
            replicas.until_planned(beyond=plans)
    check_that_every_job_ran_once(replicas, count + 2)


def test_a_leader_that_is_told_to_stop_hands_over_at_once(replicas: Replicas) -> None:
    first = replicas.start()
    assert replicas.leading() is first
    replicas.submit(replicas.noting_job("runs-on", sleeps_s=1.0))
    replicas.until(lambda: replicas.starts() == ["runs-on/1"])
    second = replicas.start()
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=180) == 0
    assert replicas.leading() is second
    replicas.submit(replicas.noting_job("next"))
    check_that_every_job_ran_once(replicas, 2)


def test_a_leader_that_stood_still_for_longer_than_its_lease_writes_and_starts_nothing(
    replicas: Replicas,
) -> None:
    first = replicas.start()
    assert replicas.leading() is first
    replicas.submit(replicas.noting_job("before"))
    replicas.until_over()
    first.send_signal(signal.SIGSTOP)
    second = replicas.start()
    replicas.until(lambda: replicas.leading() is second)
    replicas.submit(replicas.noting_job("meanwhile"))
    replicas.until_over()
    leader = replicas.leader()
    assert leader is not None
    first.send_signal(signal.SIGCONT)
    replicas.until(lambda: "epoch 1 is over" in replicas.logs())
    replicas.submit(*(replicas.noting_job(f"after-{number}") for number in range(5)))
    check_that_every_job_ran_once(replicas, 7)
    assert replicas.leader() == leader, "the one that woke up follows"
    assert first.poll() is None, replicas.logs()
    second.kill()
    second.wait()
    assert replicas.leading() is first, "and may lead again"
    replicas.submit(replicas.noting_job("last"))
    check_that_every_job_ran_once(replicas, 8)


def test_replicas_wait_for_a_database_that_is_away_and_go_on(
    replicas: Replicas, postgres: PostgresServer
) -> None:
    processes = [replicas.start(), replicas.start()]
    replicas.until_all_follow()
    replicas.leading()
    replicas.submit(replicas.noting_job("runs-on", sleeps_s=1.0))
    replicas.until(lambda: replicas.starts() == ["runs-on/1"])
    postgres.stop("immediate")
    time.sleep(1.5)  # the job ends meanwhile, and nobody can write it down
    postgres.start()
    replicas.reconnect()
    replicas.leading()
    replicas.submit(replicas.noting_job("next"))
    check_that_every_job_ran_once(replicas, 2)
    assert [process.poll() for process in processes] == [None, None], replicas.logs()
