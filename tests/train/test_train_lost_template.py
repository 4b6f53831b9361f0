"""The template is lost, or is no good: the gang starts all the same, or ends with the reason, and nobody waits for ever."""

import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from artesian.train.gang import Formation, Gang
from artesian.train.starter import Starter
from artesian.train.worker_process import WorkerProcess
from recovery_harness import DEADLINE_S

FORMATION = Formation(
    number=0,
    node_rank=0,
    nodes=1,
    master_host="127.0.0.1",
    master_port=1,
    is_store_served=False,
)


class Started:
    """A starter, and what it tells."""

    def __init__(self, folder: Path, selector: selectors.BaseSelector) -> None:
        script = self.script = folder / "script.py"
        script.write_text("import signal; signal.pause()")
        gang = Gang(
            command=(sys.executable, str(script)),
            script=(str(script),),
            local_workers=2,
            preload=("json",),
        )
        self._selector = selector
        self.workers: list[WorkerProcess] = []
        self.losses: list[tuple[list[int], bool]] = []
        self.starter = Starter(
            gang,
            os.environ,
            selector,
            on_worker=self.workers.append,
            on_loss=lambda ranks, is_store_lost: self.losses.append((list(ranks), is_store_lost)),
        )

    def lose_template(self) -> None:
        """Kill the template, and leave the starter to find out."""
        assert self.starter._standby is not None
        os.kill(self.starter._standby.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.starter._standby.pid, os.WEXITED | os.WNOWAIT)

    def hear(self) -> None:
        events = self._selector.select(DEADLINE_S)
        assert events, "nothing has come"
        for key, _ in events:
            key.data()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    with selectors.DefaultSelector() as selector:
        found = Started(tmp_path, selector)
        found.starter.warm_up()
        while not found.starter.is_warm:
            found.hear()
        yield found
        found.starter.close()
        for worker in found.workers:
            worker.reap()


def test_a_worker_that_is_asked_of_a_template_that_has_just_ended_is_not_taken_for_one_that_cannot_start(
    started: Started,
) -> None:
    """The out-of-memory killer may take a worker and the template at once, and the worker is seen first."""
    started.lose_template()
    started.starter.start(FORMATION, 0)
    started.starter.start(FORMATION, 1)
    while not started.losses:
        started.hear()
    assert started.losses == [([0, 1], False)]


def test_a_store_that_a_template_leaves_unborn_is_told(started: Started) -> None:
    """Else those who all survive the loss of another node wait for it for minutes."""
    started.starter._gang = replace(started.starter._gang, preload=("torch",))
    started.lose_template()
    started.starter.open_store("127.0.0.1", None)
    while not started.losses:
        started.hear()
    assert started.losses == [([], True)]


def test_a_template_that_has_served_is_replaced_and_one_that_cannot_is_not(started: Started) -> None:
    started.starter.start(FORMATION, 0)
    while not started.workers:
        started.hear()
    started.lose_template()
    while not started.losses:
        started.hear()
    found = [started.starter.has_template]
    started.lose_template()  # in its imports
    started.starter.start(FORMATION, 1)
    while len(started.losses) < 2:
        started.hear()
    assert [*found, started.starter.has_template] == [True, False]
    started.starter.start(FORMATION, 1)
    assert len(started.workers) == 2, "the slow way"


def test_what_loses_its_parent_is_reaped_without_a_template_too(started: Started) -> None:
    for number in (1, 2):  # the second in its imports
        started.lose_template()
        while len(started.losses) < number:
            started.hear()
    assert not started.starter.has_template
    reader, writer = os.pipe()
    orphaning = "import os, sys\nif os.fork(): os._exit(0)\nos.write(int(sys.argv[1]), b'%d' % os.getpid())"
    subprocess.run([sys.executable, "-c", orphaning, str(writer)], pass_fds=[writer], check=True)
    os.close(writer)
    orphan = int(os.read(reader, 100))
    os.close(reader)
    ended = os.pidfd_open(orphan)
    assert select.select([ended], [], [], DEADLINE_S)[0]
    os.close(ended)
    started.starter.reap_orphans(started.workers)
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def test_a_worker_that_is_not_wanted_any_more_and_has_ended_before_it_is_heard_of_is_ended_by_nobody_else(
    started: Started,
) -> None:
    """Were it reaped before, its number might be another process's by the time that it is ended."""
    started.script.write_text("raise SystemExit")
    started.starter.start(FORMATION, 0)
    started.starter.forget()
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    started.starter.reap_orphans([])
    started.hear()
    assert started.workers == []
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    started.starter.reap_orphans([])


NO_FORKS = """
import errno, os
itself, fork = os.getpid(), os.fork

def refuse():
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

os.fork = refuse
"""


def test_a_template_that_can_fork_nothing_is_not_started_again_and_again(tmp_path: Path) -> None:
    """As where so many processes are not allowed: workers start the slow way, or that fails and is told."""
    (tmp_path / "no_forks.py").write_text(NO_FORKS)
    (tmp_path / "script.py").write_text("print('well')")
    done = subprocess.run(
        [sys.executable, "-m", "artesian.train.launch", "--preload", "no_forks", str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
    assert done.stderr.count("the template has ended; workers start the slow way") == 1


def test_a_port_that_is_taken_is_told_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import torch")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        place = ("--master-addr", "127.0.0.1", "--master-port", str(port), str(tmp_path / "script.py"))
        options = ("--nproc-per-node", "2", "--preload", "torch", *place)
        done = subprocess.run(
            [sys.executable, "-m", "artesian.train.launch", *options],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    assert done.returncode == 126
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"artesian launch: workers cannot meet at 127.0.0.1, port {port}: Address already in use"
    )
