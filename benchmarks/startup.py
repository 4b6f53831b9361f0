"""How long people and jobs wait for artesian: the help, the start of a worker, a job that does nothing.

"Warm" means that the control plane's daemon is up, as it is while jobs run and for a while after them.
The worker's start is its process's own first act, a time stamp; the gang's launch agent is on the way.
The peer of the worker's start is the same command started with ``artesian launch`` from a shell script,
or directly, without any control plane; samples are taken in turn.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import harness
from artesian.model.views import JobFile
from artesian.server.config import StateDir
from artesian.server.embedded import ControlPlane
from harness import Result, measured

_ARTESIAN = str(Path(sys.executable).with_name("artesian"))
_PATH = os.environ.get("PATH", os.defpath)
_STAMP = 'date +%s.%N > "$1.part" && mv "$1.part" "$1"'
_TIMEOUT_S = 60.0


def run(is_quick: bool) -> Sequence[Result]:
    """Measure everything in one temporary state folder."""
    samples = 5 if is_quick else 25
    with tempfile.TemporaryDirectory(prefix="artesian-startup-") as name:
        folder = Path(name)
        state = StateDir(folder / "state")
        results = [
            _timed("artesian --help", lambda: _call("--help"), samples, bar_s=0.3),
            _timed("python -c pass, for comparison", _python, samples),
        ]
        try:
            with ControlPlane(state) as plane:
                results += _worker_starts(plane, folder, samples)
                results += _noop_runs(folder, state, samples)
        finally:
            _end_daemon(state)
    return results


def _worker_starts(plane: ControlPlane, folder: Path, samples: int) -> list[Result]:
    direct: list[float] = []
    single: list[float] = []
    launched: list[float] = []
    gang: list[float] = []
    by_command: list[float] = []
    harness.say("starting the daemon, and one worker after the other")
    _submit(plane, folder, workers=0)  # the cold one, not counted
    for _ in range(samples):
        direct.append(_direct(folder))
        single.append(_submit(plane, folder, workers=0))
        launched.append(_direct(folder, "launch", "--nproc-per-node", "1", "--no-python"))
        gang.append(_submit(plane, folder, workers=1))
        by_command.append(_submit_by_command(plane, folder))
    return [
        measured(
            "submit -> worker process, no gang, warm",
            single,
            "ms",
            "lower",
            bar=150,
            peer="the command alone",
            peer_samples=direct,
        ),
        measured(
            "submit -> first worker process of a gang, warm",
            gang,
            "ms",
            "lower",
            bar=150,
            peer="artesian launch alone",
            peer_samples=launched,
        ),
        measured(
            "`artesian submit` called -> first worker process of a gang, warm", by_command, "ms", "lower"
        ),
    ]


def _submit(plane: ControlPlane, folder: Path, *, workers: int) -> float:
    """Return the milliseconds from the call of submit to the worker's first act."""
    stamp = _fresh(folder)
    document = {
        "name": "bench",
        "kind": "train",
        "workers": workers,
        "command": ["sh", "-c", _STAMP, "stamp", str(stamp)],
        "devices": 1,
    }
    file = JobFile(
        text=json.dumps(document), source="bench", base_dir=str(folder), env={"PATH": _PATH}, home=None
    )
    start_s = time.time()
    job_id = plane.submit(file).id
    first_s = _read(stamp)
    _until(lambda: plane.job(job_id).is_over)  # so that the next one finds the devices free
    return (first_s - start_s) * 1000


def _submit_by_command(plane: ControlPlane, folder: Path) -> float:
    stamp = _fresh(folder)
    file = folder / "job.yaml"
    file.write_text(
        f"name: bench\nkind: train\ndevices: 1\nworkers: 1\ncommand: [sh, -c, '{_STAMP}', stamp, {stamp}]\n"
    )
    start_s = time.time()
    job_id = subprocess.run(
        [_ARTESIAN, "submit", str(file)],
        env={**os.environ, "ARTESIAN_STATE": str(plane.dir.path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    first_s = _read(stamp)
    _until(lambda: plane.job(job_id).is_over)
    return (first_s - start_s) * 1000


def _direct(folder: Path, *through: str) -> float:
    """Return the milliseconds to the same worker's first act without a control plane."""
    stamp = _fresh(folder)
    prefix = [_ARTESIAN, *through] if through else []
    start_s = time.time()
    subprocess.run([*prefix, "sh", "-c", _STAMP, "stamp", str(stamp)], check=True)
    return (_read(stamp) - start_s) * 1000


def _noop_runs(folder: Path, state: StateDir, samples: int) -> list[Result]:
    harness.say("running a job that does nothing")
    file = folder / "noop.yaml"
    file.write_text("name: noop\ndevices: 1\nworkers: 0\ncommand: ['true']\n")

    def once() -> None:
        _call("run", "--no-census", str(file), state=state)

    return [_timed("`artesian run` of a job that does nothing, warm, to the waterfall", once, samples)]


def _timed(case: str, act: Callable[[], None], samples: int, bar_s: float | None = None) -> Result:
    act()  # brings the files into memory
    times = []
    for _ in range(samples):
        start_s = time.perf_counter()
        act()
        times.append((time.perf_counter() - start_s) * 1000)
    return measured(case, times, "ms", "lower", bar=None if bar_s is None else bar_s * 1000)


def _call(*arguments: str, state: StateDir | None = None) -> None:
    env = dict(os.environ) if state is None else {**os.environ, "ARTESIAN_STATE": str(state.path)}
    subprocess.run([_ARTESIAN, *arguments], env=env, check=True, capture_output=True)


def _python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def _fresh(folder: Path) -> Path:
    stamp = folder / "stamp"
    stamp.unlink(missing_ok=True)
    return stamp


def _read(stamp: Path) -> float:
    _until(stamp.exists)
    return float(stamp.read_text())


def _until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError("the job does not get on; see daemon.log in the state folder")
        time.sleep(0.002)


def _end_daemon(state: StateDir) -> None:
    with suppress(OSError, ValueError):
        os.kill(int(state.lock.read_text()), signal.SIGTERM)


if __name__ == "__main__":
    harness.main("startup", run)
