"""Several processes at one journal, and processes that are killed in the middle of it: on SQLite and PostgreSQL."""

import itertools
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from artesian.model.events import CancelRequested
from artesian.store import SqliteJournal, journal_file, open_journal
from builders import submitted

APPENDER = """
import sys
from artesian.model.events import CancelRequested
from artesian.store import open_journal

place, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()  # all start at once
for number in range(count):
    if number % 10 == 0:  # come and go, as commands do: the last to close runs a checkpoint
        journal = open_journal(place, busy_timeout_s=60)
    seq = journal.append([CancelRequested(at_s=0.0, job_id=f"{name}-{number}", user=name)])
    print(seq, number, flush=True)
    if number % 10 == 9:
        journal.close()
"""


def start(place: str, name: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", APPENDER, place, name, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def acknowledged(lines: str) -> list[tuple[int, int]]:
    """What a process said it had appended: sequence number and its own number. A torn last line says nothing."""
    complete = lines[: lines.rfind("\n") + 1]
    return [(int(seq), int(number)) for seq, number in (line.split() for line in complete.splitlines())]


def test_processes_that_append_at_once_lose_nothing_and_repeat_nothing(place: str) -> None:
    # On SQLite they also race to make it.
    names, count = ["a", "b", "c", "d"], 30
    processes = [start(place, name, count) for name in names]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {}
    for name, process in zip(names, processes, strict=True):
        out, err = process.communicate(timeout=180)
        assert (process.returncode, err) == (0, "")
        said.update({seq: f"{name}-{number}" for seq, number in acknowledged(out)})
    with closing(open_journal(place)) as journal:
        assert journal.verify() == len(names) * count
        stored = {seq: cancel.job_id for seq, cancel in journal.read() if isinstance(cancel, CancelRequested)}
        assert journal.problems == []
    assert stored == said, "dense, each once, and at the number that was acknowledged"
    assert list(stored) == list(range(1, len(names) * count + 1))
    for name in names:
        own = [job_id for job_id in stored.values() if job_id.startswith(f"{name}-")]
        assert own == [f"{name}-{number}" for number in range(count)], "in the order of appending"


def test_a_driver_sees_every_event_once_while_commands_append(place: str) -> None:
    open_journal(place).close()
    names, count = ["a", "b"], 30
    processes = [start(place, name, count) for name in names]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    seen: list[str] = []
    with closing(open_journal(place, busy_timeout_s=60)) as journal:
        position = 0
        while True:
            are_over = all(process.poll() is not None for process in processes)
            with journal.transaction() as transaction:
                new = transaction.read(after=position)
                seen += [record.job_id for _, record in new if isinstance(record, CancelRequested)]
                if new:
                    transaction.append([submitted()])
                position = transaction.last_seq
            if are_over:
                break
        assert journal.verify() == position
    for process in processes:
        _, err = process.communicate(timeout=180)
        assert (process.returncode, err) == (0, "")
    assert len(seen) == len(set(seen)) == len(names) * count


def read_lines(process: "subprocess.Popen[str]", least: int) -> str:
    """Return what the process has said, once that is at least ``least`` lines."""
    assert process.stdout is not None
    fd, said = process.stdout.fileno(), b""
    while said.count(b"\n") < least:
        ready, _, _ = select.select([fd], [], [], 180)
        chunk = os.read(fd, 65536) if ready else b""
        assert chunk, "the writer has ended, or hangs"
        said += chunk
    return said.decode()


@pytest.mark.parametrize("seed", range(5))
def test_a_writer_killed_at_any_moment_keeps_what_it_acknowledged(place: str, seed: int) -> None:
    rng = random.Random(seed)
    stored: Sequence[str] = []
    for life in range(2):
        process = start(place, f"life{life}", 100_000)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        said = read_lines(process, rng.randrange(1, 60))
        for _ in range(rng.randrange(200_000)):  # die anywhere between two acknowledgements
            pass
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=180)
        numbers = [number for _, number in acknowledged(said + rest)]
        assert numbers == list(range(len(numbers)))
        with closing(open_journal(place, busy_timeout_s=60)) as journal:
            with journal.transaction():
                pass  # a database may be about to commit what the killed one had asked for
            assert journal.problems == [], "a killed process damages nothing"
            journal.verify()
            before = stored
            stored = [cancel.job_id for _, cancel in journal.read() if isinstance(cancel, CancelRequested)]
        assert stored[: len(before)] == before
        own = stored[len(before) :]
        assert own == [f"life{life}-{number}" for number in range(len(own))]
        # The one more it may have is the append that was durable and not yet acknowledged.
        assert len(numbers) <= len(own) <= len(numbers) + 1


CREATOR = """
import sys
from pathlib import Path
from artesian.store import SqliteJournal

print("ready", flush=True)
for number in range(100_000):
    SqliteJournal.open(Path(sys.argv[1]) / str(number) / "journal.sqlite3").close()
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_process_killed_while_it_makes_a_journal_leaves_a_whole_one_or_none(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    process = subprocess.Popen(
        [sys.executable, "-c", CREATOR, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    read_lines(process, 1 + rng.randrange(1, 10))
    for _ in range(rng.randrange(500_000)):  # die anywhere between two
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=180)
    made = 0
    for number in itertools.count():
        folder = tmp_path / str(number)
        if not folder.exists():
            break
        with SqliteJournal.open(journal_file(folder)) as journal:
            assert journal.append([submitted()]) == journal.verify() == 1
        made += 1
    assert made >= 1
