"""An attempt on several nodes: a launch agent on each, through srun.

``gang all FOLDER SRUN SCANCEL`` runs on the first node, under the supervisor; it starts one
``gang node FOLDER`` per node, which becomes the launch agent there.

The supervisor passes SIGTERM on. srun would end the step at once on it, so it stands in a session of its
own, and the agents get theirs from Slurm: their workers may still save. Agents that start later find a file.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from artesian.engines.gang import Meeting, place_of
from artesian.engines.local.records import write_whole
from artesian.engines.slurm.batch import environment_of, read_attempt
from artesian.wire import environment as names

_MEETING_FILE = "meeting.json"
_STOPPING_FILE = "stopping"
"""The attempt was told to stop: who comes after that has nothing to save."""
_MEETING_WAIT_S = 300.0
"""How long the other nodes wait for the first one to say where its agent listens: nodes may take long to begin."""


def run_all(folder: str, srun: str, scancel: str) -> int:
    """Start an agent on every node, pass SIGTERM on to them, and return srun's exit code as a shell gives it."""
    words = _srun(srun, read_attempt(folder)["groups"], folder)
    job_id = os.environ["SLURM_JOB_ID"]
    process: subprocess.Popen[bytes] | None = None
    is_asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        nonlocal is_asked
        is_asked = True
        if process is not None:
            pass_on(process)

    def pass_on(process: subprocess.Popen[bytes]) -> None:
        # For agents that srun has not started yet: they are no part of a step that could be signalled.
        with suppress(OSError):
            write_whole(Path(folder, _STOPPING_FILE), b"")
        # Without --full it is for the steps only, and does not come back to us.
        done = subprocess.run([scancel, "--signal=TERM", job_id], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            process.terminate()  # the controller is away: better at once than not at all

    signal.signal(signal.SIGTERM, stop)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    if is_asked:  # while there was nobody to pass it on to
        pass_on(process)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _srun(srun: str, groups: Sequence[Mapping[str, int]], folder: str) -> list[str]:
    """Return the words that start an agent on every node; a part for each component of the batch job."""
    words = [srun]
    for number, group in enumerate(groups):
        if number:
            words.append(":")
        if len(groups) > 1:
            words.append(f"--het-group={number}")
        nodes = group["nodes"]
        words += [
            *("--mpi=none", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"),
            *(f"--cpus-per-task={group['cpus']}", "--cpu-bind=none", "--input=none", "--kill-on-bad-exit=1"),
            *("--quiet", sys.executable, "-I", "-m", "artesian.engines.slurm.gang", "node", folder),
        ]
    return words


def become_agent(folder: str) -> None:
    """Become the launch agent of this node."""
    attempt = read_attempt(folder)
    listed = [node["name"] for node in attempt["nodes"]]
    rank = listed.index(os.environ["SLURMD_NODENAME"])
    workers: list[int] = attempt["workers"]
    meeting = _meeting(folder, rank, attempt["nodes"][0]["address"])
    own = {**attempt["env"], names.WORKERS: str(workers[rank]), names.RDZV_TOKEN: meeting.token}
    env = environment_of({**attempt, "env": own}, os.environ, is_whole=False)
    os.chdir(attempt["workdir"])
    _redirect(folder, Path(env[names.LOG_DIR]), rank, first_rank=sum(workers[:rank]))
    if Path(folder, _STOPPING_FILE).exists():
        sys.exit(128 + signal.SIGTERM)
    words = [
        *(sys.executable, "-m", "artesian.train.launch", *place_of(rank, workers, meeting)),
        *attempt["command"],
    ]
    os.execve(sys.executable, words, env)  # noqa: S606 - a list of words, and no shell  # nosec B606


def _redirect(folder: str, logs: Path, rank: int, *, first_rank: int) -> None:
    """Write to the files of the attempt: the first node's agent as one on a single node, others to the log folder."""
    own = logs / f"rank-{first_rank}.out"
    paths = (Path(folder, "stdout.log"), Path(folder, "stderr.log")) if rank == 0 else (own, own)
    for number, path in zip((1, 2), paths, strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)


def _meeting(folder: str, rank: int, address: str) -> Meeting:
    """Return where the agents meet: the first node chooses a free port, and a secret, and the others read which."""
    path = Path(folder, _MEETING_FILE)
    if rank == 0:
        with socket.create_server(("", 0)) as server:
            meeting = Meeting.at(address, server.getsockname()[1])
        write_whole(path, json.dumps(meeting).encode())
        return meeting
    deadline_s = time.monotonic() + _MEETING_WAIT_S
    while (said := _read(path)) is None:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{path}: the first node has not said where its agent listens")
        time.sleep(0.05)
    return Meeting(*said)


def _read(path: Path) -> Sequence[Any] | None:
    try:
        said: Sequence[Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return said


if __name__ == "__main__":
    if sys.argv[1] == "all":
        sys.exit(run_all(*sys.argv[2:5]))
    become_agent(sys.argv[2])
