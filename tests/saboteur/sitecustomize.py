"""Loaded by every Python process of a job that ``faults_harness`` disturbs: makes saves to storage go wrong.

A file ``torn-N`` in the job's folder of orders asks for a death in the middle of a save: the process that saves next
dies before its n-th call of the file system from the start of the save on. A file ``full`` makes its writes fail
as on a full disk, where the test may not mount one of its own. Without such a file nothing is different.
"""

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_ORDERS = os.environ.get("FAULTS_ORDERS", "")
_CALLS = ("mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir")
_SAVING = "/checkpoints/.tmp-"


class _Torn:
    """A death that is due: after how many more calls of this thread."""

    thread = 0
    left = 0
    number = 0
    takes = "worker"


def _sabotaged(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if name == "mkdir" and _SAVING in os.fspath(args[0]):
            _claim()
        if _Torn.thread == threading.get_ident():
            if _Torn.left == 0:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                _die()
            _Torn.left -= 1
        if name == "write" and _is_full(args[0]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    return call


def _claim() -> None:
    for name in os.listdir(_ORDERS):
        if not name.startswith("torn-"):
            continue
        claimed = f"{_ORDERS}/claimed-{name}"
        with suppress(FileNotFoundError):  # another process has been quicker
            _REAL["rename"](f"{_ORDERS}/{name}", claimed)
            with open(claimed, encoding="ascii") as file:
                order = json.load(file)
            _Torn.number, _Torn.left, _Torn.takes = order["number"], order["calls"], order["takes"]
            _Torn.thread = threading.get_ident()
            return


def _die() -> None:
    """Die, and take the worker that this helper writes for along, or all of the node."""
    with open(f"{_ORDERS}/{_Torn.number}.begun", "w", encoding="ascii") as file:
        file.write(str(time.time()))
    victims = _node() if _Torn.takes == "node" else [os.getppid()] if _is_helper() else []
    for pid in victims:
        with suppress(OSError):
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _node() -> list[int]:
    """Return the agent that this process comes from, and all that has come from it."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    agent = os.getpid()
    while b"artesian.train.launch" not in _command_line(agent):
        agent = parents[agent]
    found = [agent]
    for parent in found:  # which grows
        found += [pid for pid, of in parents.items() if of == parent]
    return found


def _is_helper() -> bool:
    return b"persist_process" in _command_line(os.getpid())


def _command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def _is_full(fd: int) -> bool:
    if not os.path.exists(f"{_ORDERS}/full"):
        return False
    return _SAVING in os.readlink(f"/proc/self/fd/{fd}")


_REAL = {name: getattr(os, name) for name in _CALLS}
if _ORDERS:
    for _name, _real in _REAL.items():
        setattr(os, _name, _sabotaged(_name, _real))
