"""The journal: durable appends, replay, and loading from a snapshot. Every append is durable.

The peer is sqlite3 itself, in the same mode (WAL, synchronous = FULL) on the same disk, storing the same
bytes without encoding, checksums or locks of ours; its samples and ours are taken in turn.
"""

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import harness
from artesian.kernel.state import Record
from artesian.model.events import AttemptEnded, AttemptStarted, JobSubmitted, NodeJoined
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Plan, Start
from artesian.model.resources import parse_devices
from artesian.store import SqliteJournal, journal_file
from artesian.store.chain import START, Row, extend
from harness import Result, measured

_BATCH = 1000
_PEER = "sqlite3, same bytes"


def history(count: int) -> Iterator[Record]:
    """Yield ``count`` records of a machine that runs one job after the other: submit, start, end."""
    yield NodeJoined(at_s=0.0, node=Node(id="n1", accelerator="cpu", devices=8, cpus=8, memory_bytes=2**36))
    devices = parse_devices("cpu:2")
    placement = Placement(shares=(NodeShare(node_id="n1", devices=(0, 1)),))
    completed = Outcome(cause=Cause.COMPLETED, exit_code=0)
    for number in range(1, count):
        at_s, id_ = float(number), f"job-{(number - 1) // 4}"
        match (number - 1) % 4:
            case 0:
                job = Job(id=id_, name=id_, command=("python", "train.py"), devices=devices, workdir="/home")
                yield JobSubmitted(at_s=at_s, job=job)
            case 1:
                start = Start(job_id=id_, epoch=1, placement=placement, reason="2 devices of n1 are free")
                yield Plan(at_s=at_s, starts=(start,))
            case 2:
                yield AttemptStarted(at_s=at_s, job_id=id_, epoch=1)
            case _:
                yield AttemptEnded(at_s=at_s, job_id=id_, epoch=1, outcome=completed)


def batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Yield the records in lists of ``size``."""
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class Peer:
    """A bare table of the same columns."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE records (seq INTEGER PRIMARY KEY, at_s REAL, type TEXT, body BLOB, crc INTEGER)"
        )

    def append(self, rows: Sequence[Row]) -> None:
        """Append the rows in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")


def rate(count: int, call: Callable[[], object]) -> float:
    """Return how many of ``count`` things that the call does it does per second."""
    begun_s = time.perf_counter()
    call()
    return count / (time.perf_counter() - begun_s)


def appends(folder: Path, case: str, size: int, samples: int, per_sample: int, bar: float | None) -> Result:
    """Measure durable appends of ``size`` records each, in records per second."""
    groups = list(batches(history(size * samples * per_sample), size))
    rows = list(batches_of_rows(groups))
    own, others = [], []
    peer = Peer(folder / f"peer-{size}.sqlite3")
    with SqliteJournal.open(journal_file(folder / f"own-{size}")) as journal:
        for start in range(0, len(groups), per_sample):
            part = slice(start, start + per_sample)
            own.append(rate(size * per_sample, partial(each, journal.append, groups[part])))
            others.append(rate(size * per_sample, partial(each, peer.append, rows[part])))
    return measured(case, own, "records/s", "higher", bar=bar, peer=_PEER, peer_samples=others)


def each(call: Callable[[Any], object], items: Iterable[Any]) -> None:
    """Call with one item after the other."""
    for item in items:
        call(item)


def batches_of_rows(groups: Iterable[Sequence[Record]]) -> Iterator[list[Row]]:
    """Yield each group as the rows that a journal stores."""
    link = START
    for group in groups:
        rows = extend(link, group)
        link = rows[-1].link
        yield rows


def replays(folder: Path, count: int, samples: int) -> list[Result]:
    """Measure verification, replay, and loading from a snapshot, on a journal of ``count`` records."""
    path = journal_file(folder / "long")
    harness.say(f"writing a journal of {count:,} records")
    with SqliteJournal.open(path) as journal:
        for batch in batches(history(count), 10_000):
            journal.append(batch)
    with SqliteJournal.open(path) as journal:
        verified = [rate(count, partial(drain, journal)) for _ in range(samples)]
        replayed = [rate(count, journal.load) for _ in range(samples)]  # there is no snapshot yet
        state, _ = journal.load()
        saved, loaded = [], []
        for _ in range(samples):
            saved.append(1 / rate(1, partial(journal.save_snapshot, state, count)))
            loaded.append(1 / rate(1, journal.load))
    return [
        measured("read and verify", verified, "records/s", "higher"),
        measured(f"replay {count:,} records", replayed, "records/s", "higher", bar=50_000),
        measured("memory to read them", [reading_mib(path)], "MiB", "lower"),
        measured("save a snapshot of them", saved, "s", "lower"),
        measured("load from that snapshot", loaded, "s", "lower"),
    ]


def drain(journal: SqliteJournal) -> None:
    """Read every record, and do nothing with it."""
    deque(journal.read(), maxlen=0)


_READER = """
import sys
from collections import deque
from pathlib import Path
from artesian.store import SqliteJournal


def peak_kib():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


with SqliteJournal.open(Path(sys.argv[1]), read_only=True) as journal:
    before_kib = peak_kib()
    deque(journal.read(), maxlen=0)
    print(peak_kib() - before_kib)
"""


def reading_mib(path: Path) -> float:
    """Return what the peak of a new process's memory grows by when it reads every record."""
    # getrusage would answer with the peak of the process that this one was forked from.
    reader = subprocess.run(
        [sys.executable, "-c", _READER, str(path)], check=True, capture_output=True, text=True
    )
    return int(reader.stdout) / 1024


def run(is_quick: bool) -> list[Result]:
    """Measure everything, on the disk that holds the folder for temporary files."""
    samples = 3 if is_quick else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            appends(folder, "append one by one", 1, 5 * samples, 20 if is_quick else 100, None),
            appends(folder, f"append {_BATCH} at once", _BATCH, 5 * samples, 1 if is_quick else 4, 50_000),
            *replays(folder, 100_000 if is_quick else 1_000_000, 3),
        ]


if __name__ == "__main__":
    harness.main("journal", run)
