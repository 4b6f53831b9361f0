"""A worker that is killed and does not go, as one does that waits in the kernel: the agent waits for it, and not for ever.

Here its agent is kept from killing it: no test can make a process that outlives SIGKILL on any machine.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery_harness import DEADLINE_S

AGENT = """
import sys
from artesian.train import crew, launch
from artesian.train.worker_process import WorkerProcess

crew._GONE_S = 0.2
stuck, kill = set(), WorkerProcess.kill

def kill_others(worker):
    if worker.rank == 0 and not stuck:
        stuck.add(worker.pid)
    if worker.pid not in stuck:
        kill(worker)

WorkerProcess.kill = kill_others
sys.exit(launch.main(sys.argv[1:]))
"""
SCRIPT = """
import os, signal, sys
rank, is_first = os.environ["RANK"], os.environ["ARTESIAN_RESTART"] == "0"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if is_first and rank == "0":
    print(os.getpid(), flush=True)
    open(sys.argv[1], "w").close()  # a pipe: the other one may fail
    signal.pause()
elif is_first:
    open(sys.argv[1]).close()
    sys.exit(3)
print(rank, repr(os.environ["ARTESIAN_MEMORY"]), flush=True)
"""

Agent = subprocess.Popen[str]


@pytest.fixture
def agent(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Agent]:
    """An agent with these options, which cannot kill its first worker."""
    (tmp_path / "script.py").write_text(SCRIPT)
    os.mkfifo(tmp_path / "gate")
    paths = (str(tmp_path / "script.py"), str(tmp_path / "gate"))
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, "--preload", "none", *request.param, *paths],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def assert_ends(pidfd: int) -> None:
    """Wait for the process to end, as it does when its agent has."""
    assert select.select([pidfd], [], [], DEADLINE_S)[0], "a process is left"
    os.close(pidfd)


@pytest.mark.parametrize("agent", [["--nproc-per-node", "2", "--max-restarts", "1"]], indirect=True)
def test_a_gang_goes_on_without_the_worker_that_is_not_gone(agent: Agent) -> None:
    assert agent.stdout is not None
    stuck = os.pidfd_open(int(agent.stdout.readline()))
    said, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 0, errors
    first, second = sorted(said.splitlines())
    assert first == "0 ''", "its memory is still the other one's"
    assert second.startswith("1 'launch-")
    assert "was killed 0.2 s ago, and is not gone" in errors
    assert_ends(stuck)


@pytest.mark.parametrize("agent", [["--stop-grace", "0.1"]], indirect=True)
def test_an_agent_that_is_told_to_stop_does_not_wait_for_ever(agent: Agent, tmp_path: Path) -> None:
    assert agent.stdout is not None
    stuck = os.pidfd_open(int(agent.stdout.readline()))
    open(tmp_path / "gate").close()
    agent.terminate()
    _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 143
    assert "was killed 0.2 s ago, and is not gone" in errors
    assert_ends(stuck)


IMPATIENT = """
import sys
from artesian.train import launch, watch

watch._LEAVE_S = 0.2
sys.exit(launch.main(sys.argv[1:]))
"""
CANNOT_END = """
import threading

threading.Thread(target=threading.Event().wait).start()
raise KeyError("its own")
"""


def test_a_worker_that_has_failed_and_cannot_end_is_ended_and_reported(tmp_path: Path) -> None:
    """The interpreter waits for a thread that waits for ever. No restart is left, for which it would be killed."""
    (tmp_path / "script.py").write_text(CANNOT_END)
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, "--preload", "json", str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 1
    assert "failed: KeyError: 'its own' (and has not ended since)" in done.stderr
