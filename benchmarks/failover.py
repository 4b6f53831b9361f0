"""Failover: how long nobody decides after the leader of two servers on one PostgreSQL is gone.

Jobs are submitted all the time, several a second, and run by the local engine. A sample is the time from the
leader's end to the first plan of the next one. After all of them every job must have run, each attempt once;
if not, the benchmark fails. The database is the tests' own, with ``fsync`` on.
"""

import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import Popen

import harness
from harness import Result, measured

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from artesian.kernel.lifecycle import JobState
from artesian.model.plan import Plan
from artesian.store.postgres_journal import PostgresJournal
from postgres_server import PostgresServer
from replicas_harness import Replicas, replicas_on

_SUBMIT_EVERY_S = 0.2


def run(is_quick: bool) -> Sequence[Result]:
    """Measure a killed, a paused and an orderly leader, each on a database of its own."""
    samples = 3 if is_quick else 15
    with tempfile.TemporaryDirectory(prefix="artesian-failover-") as name, _a_server(name) as server:
        return [
            _case(server, "kill -9 of the leader -> the next one's first plan", _kill, samples, bar=5.0),
            _case(server, "SIGSTOP of the leader -> the next one's first plan", _pause, samples, bar=None),
            _case(server, "SIGTERM of the leader -> the next one's first plan", _stop, samples, bar=None),
        ]


def _kill(leader: "Popen[bytes]") -> None:
    leader.kill()


def _pause(leader: "Popen[bytes]") -> None:
    leader.send_signal(signal.SIGSTOP)


def _stop(leader: "Popen[bytes]") -> None:
    leader.send_signal(signal.SIGTERM)


def _case(
    server: PostgresServer, case: str, end: Callable[["Popen[bytes]"], None], samples: int, bar: float | None
) -> Result:
    harness.say(f"{case}: {samples} times")
    with (
        tempfile.TemporaryDirectory(prefix="artesian-failover-") as name,
        replicas_on(server.url(server.new_database()), Path(name)) as replicas,
    ):
        with _submitting(replicas):
            times = [_sample(replicas, end) for _ in range(samples)]
        _check(replicas)
    return measured(case, times, "s", "lower", bar=bar)


def _sample(replicas: Replicas, end: Callable[["Popen[bytes]"], None]) -> float:
    """Return the seconds in which nobody decided."""
    while sum(process.poll() is None for process in replicas.processes) < 2:
        replicas.start()
    leader = replicas.leading()
    time.sleep(2.0)  # the other one starts, and follows
    before, begun_s = replicas.leader(), time.monotonic()
    end(leader)
    # Plans that the old leader decided before it heard of its end do not count.
    while (now := replicas.leader()) is None or now == before:
        time.sleep(0.005)
    seq = replicas.journal.last_seq
    while not any(isinstance(record, Plan) for _, record in replicas.journal.read(after=seq)):
        time.sleep(0.005)
    taken_s = time.monotonic() - begun_s
    if end is _pause:  # it goes on, must do no harm, and follows
        leader.send_signal(signal.SIGCONT)
    else:
        leader.wait()
    return taken_s


@contextmanager
def _submitting(replicas: Replicas) -> Iterator[None]:
    """Submit jobs from a thread, until the block is left."""
    is_over = threading.Event()

    def submit() -> None:
        with closing(PostgresJournal.open(replicas.url, busy_timeout_s=60.0)) as journal:
            number = 0
            while not is_over.wait(_SUBMIT_EVERY_S):
                number += 1
                journal.append([replicas.submission(replicas.noting_job(f"job-{number}", sleeps_s=0.1))])

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _check(replicas: Replicas) -> None:
    state = replicas.until_over()
    states = Counter(record.state for record in state.jobs.values())
    starts = Counter(replicas.starts())
    twice = [attempt for attempt, times in starts.items() if times > 1]
    lost = [id_ for id_ in state.jobs if not any(attempt.startswith(f"{id_}/") for attempt in starts)]
    assert set(states) == {JobState.SUCCEEDED}, states
    assert not twice, f"started twice: {twice}"
    assert not lost, f"lost: {lost}"
    harness.say(
        f"{len(state.jobs)} jobs, each of which ran, {len(starts)} attempts, each of which started once"
    )


@contextmanager
def _a_server(folder: str) -> Iterator[PostgresServer]:
    server = PostgresServer(Path(folder), is_durable=True)
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    harness.main("failover", run)
