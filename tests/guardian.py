"""Ends what tests have started where pytest itself is killed: no fixture of a killed process cleans up.

``watch(...)`` before a service is started, and ``forget`` what it returned once the service is stopped. The first
``watch`` starts ``python tests/guardian.py PID``, a process of its own session: it sleeps until the process PID
is gone, however it went, and then ends what is still watched, and nothing else. It knows its own by what only
they have: words of their environment, or a file with their pid.
"""

import atexit
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from proc import command_line, processes, read

MARK = "ARTESIAN_TEST_SERVICE"
"""A variable by which the processes of one service are known: nobody else sets it to the same."""
_GRACE_S, _QUIET_S = 10.0, 1.0
_numbers = count(1)


def watch(
    *,
    environments: Sequence[Mapping[str, str]] = (),
    pid_file: Path | None = None,
    first: signal.Signals = signal.SIGTERM,
    folder: Path | None = None,
) -> int:
    """Have the service end with this process, and return what ``forget`` takes.

    Its processes are those whose environment has all that one of ``environments`` has, and the one that ``pid_file``
    names, if that was started with the file's folder among its arguments. They get the signal ``first``, and SIGKILL
    if they do not heed it; ``folder`` goes with them.
    """
    number = next(_numbers)
    _say(
        {
            "watch": number,
            "environments": [[f"{name}={value}" for name, value in one.items()] for one in environments],
            "pid_file": None if pid_file is None else str(pid_file),
            "first": int(first),
            "folder": None if folder is None else str(folder),
        }
    )
    return number


def forget(number: int) -> None:
    """The service is stopped."""
    _say({"forget": number})


def _say(told: Mapping[str, Any]) -> None:
    pipe = _guardian(os.getpid()).stdin
    assert pipe is not None
    pipe.write(json.dumps(told).encode() + b"\n")
    pipe.flush()


@functools.cache
def _guardian(pid: int) -> "subprocess.Popen[bytes]":
    """Start the guardian of this process; of a fork, another one."""
    guardian = subprocess.Popen(
        [sys.executable, __file__, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    atexit.register(_leave, guardian, pid)
    return guardian


def _leave(guardian: "subprocess.Popen[bytes]", pid: int) -> None:
    if os.getpid() == pid:
        _say({"leave": True})
        assert guardian.stdin is not None
        guardian.stdin.close()
        guardian.wait()


# -- the guardian's own process -----------------------------------------------------------------------


def guard(pid: int) -> None:
    """Wait for the end of the process, and end what it leaves behind."""
    watched: dict[int, dict[str, Any]] = {}
    is_killed = True
    with suppress(ProcessLookupError):  # it is gone already
        is_killed = _listen(os.pidfd_open(pid), watched)
    begun_s = last_s = time.monotonic()
    told: set[int] = set()
    while True:
        found = list(_found(watched.values()))
        now_s = time.monotonic()
        for one, first in found:
            last_s = now_s
            is_deaf = now_s > begun_s + _GRACE_S
            if one not in told or is_deaf:
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL if is_deaf else first)
            told.add(one)
        # What a killed process was about to start is there a little later.
        if not found and (not is_killed or now_s > last_s + _QUIET_S):
            break
        time.sleep(0.05)
    for entry in watched.values():
        if entry["folder"] is not None:
            shutil.rmtree(entry["folder"], ignore_errors=True)


def _listen(gone: int, watched: dict[int, dict[str, Any]]) -> bool:
    """Keep ``watched`` up to date until the process leaves or is ``gone``; return whether it did not say so."""
    rest = b""
    while True:
        ready, _, _ = select.select([0, gone], [], [])
        if 0 not in ready or not (data := os.read(0, 65536)):
            return True
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "leave" in told:
                return False
            if "forget" in told:
                watched.pop(told["forget"], None)
            else:
                watched[told["watch"]] = told


def _found(watched: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield the processes that are there of what is watched, each with the signal that it gets first."""
    wanted = []
    for entry in watched:
        wanted += [({os.fsencode(word) for word in words}, entry["first"]) for words in entry["environments"]]
        if entry["pid_file"] is not None and (pid := _pid_in(Path(entry["pid_file"]))) is not None:
            yield pid, entry["first"]
    for pid in processes() if wanted else ():
        environment = set(read(pid, "environ").split(b"\0"))
        first = next((first for words, first in wanted if words <= environment), None)
        if first is not None:
            yield pid, first


def _pid_in(path: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        pid = int(path.read_text().split()[0])
        if os.fsencode(path.parent) in command_line(pid).split(b"\0"):
            return pid
    return None


if __name__ == "__main__":
    guard(int(sys.argv[1]))
