"""A full control plane: 100,000 jobs in the queue and 10,000 nodes, in memory, in snapshots, and on the way in;
and 100,000 jobs that are over, of which all but the latest 10,000 are packed.

Jobs come from 50 users with an environment each; every command, id and estimate is a job's own. Memory is that
of a new process which does nothing but load them. Bulk submits are durable appends of 1,000 jobs each.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import harness
from artesian.kernel.state import Record, State
from artesian.model.events import AttemptEnded, AttemptStarted, JobSubmitted, NodeJoined
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, JobKind, Outcome
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Plan, Start
from artesian.model.resources import parse_devices
from artesian.server.snapshotting import SnapshotProcess
from artesian.server.view import StateView
from artesian.store import journal_file, open_journal, snapshots
from artesian.store.chain import START
from artesian.store.chained import KEPT_OVER
from harness import Result, measured

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from postgres_server import PostgresServer

_BATCH = 1000
_USERS = 50
_DEVICES = [
    parse_devices(text) for text in ("H100:8", "A100:4", "910B:8", "H100:1", "0.5", "H100:8 | 910B:16")
]

_LOADER = """
import json, sys
from pathlib import Path
from artesian.store import open_journal


def rss_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


journal = open_journal(sys.argv[1])
before = rss_bytes()
state, seq = journal.load()
loaded = rss_bytes()
journal.close()
print(json.dumps({"before": before, "loaded": loaded}))
"""

_OVER = """
import gc, json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from artesian.kernel.state import State
from artesian.store import snapshots
from artesian.store.chain import START
from state import histories


def rss_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


gc.disable()
before = rss_bytes()
state = State(keeps_over=json.loads(sys.argv[3]))
for record in histories(int(sys.argv[2])):
    state.apply(record)
held = rss_bytes()
row = snapshots.encode(state, START)
begun_s = time.perf_counter()
assert snapshots.decode(row, START).submitted == state.submitted
print(json.dumps({"bytes": held - before, "load_s": time.perf_counter() - begun_s}))
"""


def nodes(count: int) -> Iterator[Record]:
    """Yield nodes of two kinds that join."""
    for number in range(count):
        is_nvidia = number % 2 == 0
        node = Node(
            id=f"node-{number:05d}",
            accelerator="H100-SXM5-80GB" if is_nvidia else "910B",
            vendor="nvidia" if is_nvidia else "huawei",
            devices=8,
            cpus=128,
            memory_bytes=2**40,
            device_memory_bytes=80 * 2**30,
            peak_flops=989e12 if is_nvidia else None,
        )
        yield NodeJoined(at_s=1.0, node=node)


def jobs(count: int) -> Iterator[Record]:
    """Yield submits."""
    environments = [
        {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": f"/home/user-{user}",
            "LANG": "C.UTF-8",
            "MODEL": "llama",
        }
        for user in range(_USERS)
    ]
    for number in range(count):
        user = number % _USERS
        job = Job(
            id=f"train-{number:06d}",
            name=f"train-{number % 1000}",
            kind=JobKind.TRAIN,
            command=("python", "train.py", "--lr", f"{number * 1e-6:.6f}", "--seed", str(number)),
            devices=_DEVICES[number % len(_DEVICES)],
            workdir=f"/home/user-{user}/project",
            env=dict(environments[user]),
            team=f"team-{user % 10}",
            user=f"user-{user}",
            estimated_duration_s=3600.0 + number,
        )
        yield JobSubmitted(at_s=2.0 + number * 0.001, job=job)


def histories(count: int) -> Iterator[Record]:
    """Yield jobs that run one after the other on a node, to their end."""
    [node] = nodes(1)
    yield node
    for submit in jobs(count):
        assert isinstance(submit, JobSubmitted)
        id_, at_s = submit.job.id, submit.at_s
        placement = Placement(shares=(NodeShare(node_id="node-00000", devices=tuple(range(8))),))
        yield submit
        yield Plan(at_s=at_s, starts=(Start(job_id=id_, epoch=1, placement=placement, reason="it fits"),))
        yield AttemptStarted(at_s=at_s, job_id=id_, epoch=1)
        outcome = Outcome(cause=Cause.COMPLETED, exit_code=0)
        yield AttemptEnded(at_s=at_s, job_id=id_, epoch=1, outcome=outcome)


def over(count: int, samples: int) -> list[Result]:
    """Measure what jobs that are over cost, packed and as they are."""
    found: dict[int | None, list[dict[str, float]]] = {KEPT_OVER: [], None: []}
    for _ in range(samples):
        for keeps, measured_ in found.items():
            words = [sys.executable, "-c", _OVER, str(Path(__file__).parent), str(count), json.dumps(keeps)]
            measured_.append(json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout))
    return [
        measured(
            f"{case}, {count:,} jobs that are over",
            [one[key] / scale for one in found[KEPT_OVER]],
            unit,
            "lower",
            peer="none of them packed",
            peer_samples=[one[key] / scale for one in found[None]],
        )
        for case, key, scale, unit in (
            ("memory", "bytes", 2**20, "MiB"),
            ("load from a snapshot", "load_s", 1.0, "s"),
        )
    ]


def batches(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """Yield the records in lists of ``size``."""
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def filled(place: str, job_count: int, node_count: int) -> list[float]:
    """Make the journal, and return how many submits a second each batch came to."""
    with closing(open_journal(place)) as journal:
        journal.append(nodes(node_count))
        return [
            len(batch) / seconds(partial(journal.append, batch)) for batch in batches(jobs(job_count), _BATCH)
        ]


def seconds(call: Callable[[], object]) -> float:
    """Return how long the call takes."""
    begun_s = time.perf_counter()
    call()
    return time.perf_counter() - begun_s


def memory(place: str) -> dict[str, int]:
    """Return the resident bytes of a new process, before and after it has loaded the state."""
    done = subprocess.run([sys.executable, "-c", _LOADER, place], check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def followed(place: str) -> list[float]:
    """Return how many milliseconds each page of a follower that catches up keeps everybody else waiting."""
    with closing(open_journal(place)) as journal:
        view, pages = StateView(journal, State(), 0), []
        while True:
            begun_s = time.perf_counter()
            is_more = view.refresh()
            pages.append((time.perf_counter() - begun_s) * 1000)
            if not is_more:
                return pages


def saved(place: str, samples: int) -> list[Result]:
    """Measure snapshots of the state at ``place``."""
    loads, encodes, stalls, sizes = [], [], [], []
    with closing(open_journal(place)) as journal:
        state, seq = journal.load()
        for _ in range(samples):
            encodes.append(seconds(partial(snapshots.encode, state, START)))
            sizes.append(len(snapshots.encode(state, START).body) / 1e6)
            process = SnapshotProcess(place)
            stalls.append(seconds(partial(process.save, state, seq)) * 1000)
            process.wait()
            loads.append(seconds(journal.load))
    return [
        measured("size of a snapshot", sizes, "MB", "lower"),
        measured("making a snapshot, in a process of its own", encodes, "s", "lower"),
        measured("the driver stands still for a snapshot", stalls, "ms", "lower", bar=100),
        measured("load from a snapshot", loads, "s", "lower"),
    ]


def run(is_quick: bool) -> Sequence[Result]:
    """Measure everything on the disk that holds the folder for temporary files."""
    job_count, node_count, samples = (20_000, 2_000, 2) if is_quick else (100_000, 10_000, 3)
    queue = f"{job_count:,} jobs, {node_count:,} nodes"
    with tempfile.TemporaryDirectory(prefix="artesian-state-") as name:
        place = str(journal_file(Path(name)))
        harness.say(f"filling a journal on SQLite: {queue}")
        sqlite_rates = filled(place, job_count, node_count)
        with closing(open_journal(place)) as journal:
            replayed = [seconds(journal.load) for _ in range(samples)]
        found = [memory(place) for _ in range(samples)]
        pages = followed(place)
        with _a_server(name) as server:
            harness.say("filling a journal on PostgreSQL")
            postgres_rates = filled(server.url(server.new_database()), job_count // 5, 0)
        return [
            measured(
                f"memory of the state: {queue}",
                [_mib(one, "loaded", "before") for one in found],
                "MiB",
                "lower",
            ),
            measured(
                "memory of the process that has it", [_mib(one, "loaded") for one in found], "MiB", "lower"
            ),
            measured("replay of its journal", replayed, "s", "lower"),
            *saved(place, samples),
            *over(job_count, samples),
            measured("a follower catches up: one page of it", pages, "ms", "lower"),
            measured("bulk submits, SQLite", sqlite_rates, "jobs/s", "higher", bar=1000),
            measured("bulk submits, PostgreSQL", postgres_rates, "jobs/s", "higher", bar=1000),
        ]


def _mib(found: dict[str, Any], after: str, before: str | None = None) -> float:
    return float(found[after] - (0 if before is None else found[before])) / 2**20


@contextmanager
def _a_server(folder: str) -> Iterator[PostgresServer]:
    path = Path(folder) / "postgres"
    path.mkdir()
    Path(folder).chmod(0o755)
    server = PostgresServer(path, is_durable=True)
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    harness.main("state", run)
