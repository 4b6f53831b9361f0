"""How long a job waits beyond the engine's own time: from submit to its first act, on a real cluster.

Slurm: four emulated nodes on this machine, as the tests have them. The peer is a bare ``sbatch`` of the
same command in the same run, taken in turn; what artesian adds is the difference.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import harness
from artesian.model.views import JobFile
from artesian.server.config import StateDir
from artesian.server.embedded import ControlPlane
from artesian.server.rules import Rules
from harness import Result, measured
from slurm_cluster import SlurmCluster, slurm_cluster

_STAMP = 'date +%s.%N > "$1.part" && mv "$1.part" "$1"'
_TIMEOUT_S = 60.0


def run(is_quick: bool) -> Sequence[Result]:
    """Measure every engine in turn."""
    samples = 5 if is_quick else 25
    return [result for measure in ENGINES for result in measure(samples)]


def _slurm(samples: int) -> Sequence[Result]:
    harness.say("starting a Slurm of four nodes")
    with slurm_cluster() as cluster, tempfile.TemporaryDirectory(prefix="artesian-engines-") as name:
        folder = Path(name)
        table = {"kind": "slurm", "conf": str(cluster.conf)}
        with _plane(folder, {"cluster": table}) as plane:
            bare: list[float] = []
            ours: list[float] = []
            _submit(plane, folder, "h100:1")  # the cold one, not counted
            for _ in range(samples):
                bare.append(_sbatch(cluster, folder))
                ours.append(_submit(plane, folder, "h100:1"))
    added = [(a - b) / 1000 for a, b in zip(ours, bare, strict=True)]
    return [
        measured(
            *("Slurm: submit -> the job's first act", [value / 1000 for value in ours], "s", "lower"),
            peer="sbatch alone",
            peer_samples=[value / 1000 for value in bare],
        ),
        measured("Slurm: what artesian adds to sbatch", added, "s", "lower", bar=1.5),
    ]


ENGINES: list[Callable[[int], Sequence[Result]]] = [_slurm]
"""What measures an engine, given the number of samples."""


@contextmanager
def _plane(folder: Path, engines: dict[str, dict[str, str]]) -> Iterator[ControlPlane]:
    """A control plane with these engines, whose daemon is gone at the end."""
    state = StateDir(folder / "state")
    try:
        with ControlPlane(state, rules=Rules(engines=engines)) as plane:
            yield plane
    finally:
        with suppress(OSError, ValueError):
            os.kill(int(state.lock.read_text()), 15)
            time.sleep(1.0)


def _sbatch(cluster: SlurmCluster, folder: Path) -> float:
    """Return the milliseconds from the call of sbatch to the job's first act."""
    stamp = _fresh(folder)
    start_s = time.time()
    script = f"#!/bin/sh\nset -- {stamp}\n{_STAMP}\n"
    path = folder / "bare.sh"
    path.write_text(script)
    cluster("sbatch", "--gres=gpu:h100:1", "--output=/dev/null", str(path))
    first_s = _read(stamp)
    return (first_s - start_s) * 1000


def _submit(plane: ControlPlane, folder: Path, devices: str) -> float:
    """Return the milliseconds from the call of submit to the job's first act."""
    stamp = _fresh(folder)
    told = {
        "name": "bench",
        "command": ["sh", "-c", _STAMP, "stamp", str(stamp)],
        "devices": devices,
        "workdir": str(folder),
    }
    env = {"PATH": os.environ.get("PATH", os.defpath)}
    file = JobFile(text=json.dumps(told), source="bench", base_dir=str(folder), env=env, home=None)
    start_s = time.time()
    job = plane.submit(file)
    first_s = _read(stamp)
    _until(lambda: plane.job(job.id).ended_s is not None)  # so that the next one finds the devices free
    return (first_s - start_s) * 1000


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
        time.sleep(0.005)


if __name__ == "__main__":
    harness.main("engines", run)
