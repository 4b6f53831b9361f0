"""The HTTP API with 100,000 jobs queued on 10,000 busy nodes: latencies at 200 requests/s, bulk submits, memory.

The server is ``artesian serve`` without its own driver; beside it a driver of nodes that only pretend
(``api_driver.py``) decides, and a third process sends the load (``api_load.py``). On two cores these three
share them, with whoever else is on the machine: who had how much of them is among the figures, and a run in
which others had more than a tenth is marked. Latencies count from when a request was due.
"""

import itertools
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

import harness
from artesian.kernel.state import Record
from artesian.model.events import AttemptStarted, JobSubmitted, NodeJoined
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Plan, Start
from artesian.model.resources import parse_devices
from artesian.server.config import StateDir
from artesian.store import SqliteJournal
from cores import Watch
from harness import Result

_FOLDER = Path(__file__).parent
_MODEL = "H100-SXM5-80GB"
_ENV = {name: f"/some/folder/of/{name.lower()}" for name in ("PATH", "HOME", "USER", "LANG", "VIRTUAL_ENV")}
_RATE = 200.0
_AT_ONCE = 5_000
_LATE_S = 0.025
_SYNCS_PER_S = 20


def run(is_quick: bool) -> Sequence[Result]:
    """Return the figures."""
    jobs, nodes, seconds = (100_000, 10_000, 10.0) if is_quick else (100_000, 10_000, 60.0)
    with tempfile.TemporaryDirectory() as folder:
        state = StateDir(Path(folder))
        state.create()
        harness.say(f"writing a journal of {nodes} busy nodes and {jobs} waiting jobs")
        _fill(state, jobs, nodes)
        with _driver(state) as driver, _server(state) as (url, pid):
            results = _requests(state, url, seconds, {"server": pid, "driver": driver})
            results.append(_memory(pid, "the server with them (RSS)", bar=250))
            results += _bulk(url, 5 if is_quick else 20)
            results += _listing(url, 3 if is_quick else 10)
            results.append(_memory(pid, "the server after some thousand more (RSS)"))
    return results


def _fill(state: StateDir, jobs: int, nodes: int) -> None:
    with SqliteJournal.open(state.journal) as journal:
        batch: list[Record] = []
        for number, record in enumerate(_records(jobs, nodes)):
            batch.append(record)
            if number % _AT_ONCE == _AT_ONCE - 1:
                journal.append(batch)
                batch = []
        journal.append(batch)
        loaded, seq = journal.load()
        journal.save_snapshot(loaded, seq)
    os.sync()  # else the kernel writes it back in the middle of the measurement, and commits wait for that


def _records(jobs: int, nodes: int) -> Iterator[Record]:
    now_s = time.time() - 3600
    starts = []
    for number in range(nodes):
        id_ = f"node-{number:05}"
        host = {"cpus": 192, "memory_bytes": 2**41, "vendor": "nvidia", "peak_flops": 989e12}
        yield NodeJoined(at_s=now_s, node=Node(id=id_, accelerator=_MODEL, devices=8, **host))  # type: ignore[arg-type]
        job = _job(f"running-{number:05}", number, "H100:8")
        yield JobSubmitted(at_s=now_s, job=job)
        place = Placement(shares=(NodeShare(node_id=id_, devices=tuple(range(8))),))
        starts.append(Start(job_id=job.id, epoch=1, placement=place, reason="the benchmark says so"))
    yield Plan(at_s=now_s, starts=tuple(starts))
    for start in starts:
        yield AttemptStarted(at_s=now_s, job_id=start.job_id, epoch=1)
    for number in range(jobs):
        devices = f"H100:{8 << number % 6}"
        yield JobSubmitted(at_s=now_s + number / 100, job=_job(f"queued-{number:06}", number, devices))


def _job(id_: str, number: int, devices: str) -> Job:
    return Job(
        id=id_,
        name=f"train-{number % 500}",
        team=f"team-{number % 20}",
        user=f"user-{number % 200}",
        command=("python", "train.py", "--size", "7b"),
        devices=parse_devices(devices),
        workdir="/data/project",
        env=_ENV,
    )


@contextmanager
def _driver(state: StateDir) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, str(_FOLDER / "api_driver.py"), str(state.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "driving\n", "the driver died"
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def _server(state: StateDir) -> Iterator[tuple[str, int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "artesian.cli.main", "serve", "--port", "0", "--no-driver"],
        env={**os.environ, "ARTESIAN_STATE": str(state.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        begun_s = time.perf_counter()
        url = process.stdout.readline().strip()
        harness.say(f"the server was ready after {time.perf_counter() - begun_s:.1f} s")
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _requests(state: StateDir, url: str, seconds: float, pids: Mapping[str, int]) -> list[Result]:
    parts = httpx.URL(url)
    command = [sys.executable, str(_FOLDER / "api_load.py"), parts.host, str(parts.port), str(_RATE)]
    harness.say("warming up")
    subprocess.run([*command, "3"], check=True, capture_output=True)
    harness.say(f"sending {_RATE:g} requests/s for {seconds:g} s")
    watch, late = Watch(pids), _late(url)
    with _bare_syncs(state.path) as syncs_ms:
        done = subprocess.run([*command, str(seconds)], check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(done.stdout)
    found: dict[str, list[float]] = told["latencies_ms"]
    watch.ended("load generator", told["cpu_s"])
    served_s, use = watch.cpu_s("server"), watch.use()
    looks, later = (now - before for now, before in zip(_late(url), late, strict=True))
    harness.say(f"cores: {use}")
    submits = found.pop("submit")
    reads = [value for values in found.values() for value in values]
    mark = " (contended)" if use.is_contended else ""
    return [
        *_percentiles("reads", mark, reads, bar=50.0),
        *_percentiles("submits", mark, submits, bar=100.0),
        _p99(f"the disk meanwhile: a bare fdatasync of 4 KiB, {_SYNCS_PER_S} a second", syncs_ms),
        Result(
            case="the disk meanwhile: the longest fdatasync", value=max(syncs_ms), unit="ms", better="lower"
        ),
        *(_p99(f"{name}{mark}", values) for name, values in sorted(found.items())),
        Result(
            case="CPU time of the server, a request",
            value=1000 * served_s / (len(reads) + len(submits)),
            unit="ms",
            better="lower",
        ),
        Result(
            case=f"the event loop was later than {_LATE_S * 1000:g} ms{mark}",
            value=100 * later / looks,
            unit="% of looks",
            better="lower",
        ),
        *(
            Result(case=f"cores in use: {name}", value=used, unit="cores", better="lower")
            for name, used in {**use.ours, "others on the machine": use.others}.items()
        ),
    ]


@contextmanager
def _bare_syncs(folder: Path) -> Iterator[list[float]]:
    """Write and sync a small file in ``folder`` inside the block: its milliseconds are what no submit can beat."""
    took_ms: list[float] = []
    over = threading.Event()
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(64 * 4096))
        file.flush()
        os.fsync(file.fileno())

        def sync() -> None:
            for number in itertools.count():
                begun_s = time.perf_counter()
                os.pwrite(file.fileno(), os.urandom(4096), number % 64 * 4096)
                os.fdatasync(file.fileno())
                took_ms.append((time.perf_counter() - begun_s) * 1000)
                if over.wait(1 / _SYNCS_PER_S):
                    return

        thread = threading.Thread(target=sync)
        thread.start()
        try:
            yield took_ms
        finally:
            over.set()
            thread.join()


def _late(url: str) -> tuple[int, int]:
    """Return how often the server has looked at its event loop, and how often that came late."""
    page = httpx.get(f"{url}/metrics", timeout=60.0).text
    name = "artesian_event_loop_delay_seconds"
    figures = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith(name))
    looks = int(float(figures[f"{name}_count"]))
    return looks, looks - int(float(figures[f'{name}_bucket{{le="{_LATE_S}"}}']))


def _percentiles(case: str, mark: str, samples: list[float], *, bar: float) -> list[Result]:
    return [
        Result(
            case=f"{case} at {_RATE:g} requests/s{mark}: p50",
            value=statistics.median(samples),
            unit="ms",
            better="lower",
        ),
        _p99(f"{case} at {_RATE:g} requests/s{mark}", samples, bar),
    ]


def _p99(case: str, samples: list[float], bar: float | None = None) -> Result:
    ordered = sorted(samples)
    value = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return Result(case=f"{case}: p99", value=value, unit="ms", better="lower", bar=bar)


def _bulk(url: str, requests: int) -> list[Result]:
    harness.say("submitting in bulk")
    job = {"name": "bulk", "devices": "H100:8", "command": ["python", "train.py"], "workdir": "/data/bulk"}
    body = json.dumps({"jobs": [job] * 1000, "env": _ENV}).encode()
    rates = []
    with httpx.Client(base_url=url, timeout=60.0) as http:
        for _ in range(requests):
            begun_s = time.perf_counter()
            response = http.post(
                "/api/v1/jobs/bulk", content=body, headers={"Content-Type": "application/json"}
            )
            assert response.status_code == 201, response.text
            rates.append(1000 / (time.perf_counter() - begun_s))
    return [
        harness.measured("bulk submits, 1,000 a request, one client", rates, "jobs/s", "higher", bar=1000)
    ]


def _listing(url: str, samples: int) -> list[Result]:
    harness.say("listing by the command line")
    env = {**os.environ, "ARTESIAN_SERVER": url}
    times, cpu_times = [], []
    for _ in range(samples):
        begun_s, begun_cpu_s = time.perf_counter(), _children_s()
        subprocess.run(
            [sys.executable, "-m", "artesian.cli.main", "jobs"], env=env, check=True, capture_output=True
        )
        times.append(time.perf_counter() - begun_s)
        cpu_times.append(_children_s() - begun_cpu_s)
    return [
        harness.measured("`artesian jobs`", times, "s", "lower", bar=0.5),
        harness.measured("`artesian jobs`: CPU time", cpu_times, "s", "lower"),
    ]


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(pid: int, case: str, bar: float | None = None) -> Result:
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return Result(
        case=f"memory of {case}",
        value=kib * 1024 / 1e6,
        unit="MB",
        better="lower",
        bar=bar,
    )


if __name__ == "__main__":
    harness.main("api", run)
