"""Processes and folders that end with the benchmark, however it ends, SIGKILL aside.

A benchmark that is told to stop, as by ``timeout``, would leave agents, workers and folders in shared memory
behind: ``leaving_nothing`` turns the signal into an exception, so that each ``with`` and ``finally`` runs, and
then kills every process that descends from this one, those in sessions of their own included.
"""

import ctypes
import os
import select
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_PR_SET_CHILD_SUBREAPER = 36
_SHARED = Path("/dev/shm")  # noqa: S108  memory, not a place to guess names in


class Ended(SystemExit):
    """The benchmark was told to stop. What catches it may still tell what was measured so far."""


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """Raise ``Ended`` within the block on SIGTERM and SIGHUP, and kill all descendants after it."""
    # A descendant that loses its parent becomes a child of this process, and is found.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    stops = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _end) for number in stops}
    try:
        yield
    finally:
        for number in stops:  # the end is not to be interrupted
            signal.signal(number, signal.SIG_IGN)
        _kill_descendants()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise Ended(128 + number)


def _kill_descendants() -> None:
    """Kill all children until there are none: as they die, theirs turn up as ours."""
    while True:
        for pid in _children(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            ended, _ = os.waitpid(-1, 0)
            while ended:  # all that have ended meanwhile: a soak leaves thousands, and each look goes through all of /proc
                ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return


def descendants(pid: int) -> list[int]:
    """Return the processes that descend from ``pid``, in whatever session they are."""
    parents = {child: int(facts[1]) for child, facts in _living()}
    found = [pid]
    for parent in found:  # which grows
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


def _children(parent: int) -> list[int]:
    return [pid for pid, facts in _living() if int(facts[1]) == parent]


def _living() -> Iterator[tuple[int, list[str]]]:
    """Yield every process that has not ended: its pid, and its ``/proc`` stat from the state on."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                # The name, in parentheses, may hold anything.
                facts = (path / "stat").read_text().rpartition(")")[2].split()
                if facts[0] not in "ZX":
                    yield int(path.name), facts


@contextmanager
def folder_in_memory(name: str) -> Iterator[Path]:
    """Yield a new folder in shared memory, where there is some, and remove it after the block."""
    folder = Path(tempfile.mkdtemp(prefix=f"artesian-{name}-", dir=_SHARED if _SHARED.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kill_node(agent: int) -> None:
    """Kill an agent and all that it has started, as the loss of a machine does; they are gone when it returns.

    The workers have sessions of their own, in which their helpers are.
    """
    tree = {agent, *descendants(agent)}
    sessions = {agent, *(int(facts[3]) for pid, facts in _living() if pid in tree)}
    while left := [
        pid for pid, facts in _living() if int(facts[3]) in sessions
    ]:  # what was forked meanwhile, too
        kill(left)


def kill(pids: Iterable[int]) -> None:
    """Kill processes; they are gone when it returns."""
    ends = []
    for pid in pids:
        with suppress(ProcessLookupError):
            ends.append(os.pidfd_open(pid))
            os.kill(pid, signal.SIGKILL)
    for end in ends:
        select.select([end], [], [])  # of all its threads: until then it has its files, and its locks
        os.close(end)
