"""The process around one attempt: ``python -I -S supervisor.py FOLDER WORKDIR GRACE_S COMMAND...``.

It outlives the driver, so it knows nothing of it: it claims the attempt, starts the command with its
own environment, waits, sees to it that nothing of the attempt survives the command, and writes down
how it ended. It imports little, because a job waits for it: a fresh interpreter without ``site``
takes 15 ms. Standard library only, and of ours one file of the ground, ``wire/oom.py``, by its path.

Files in FOLDER, each made whole or not at all:

``claim.json``    who runs the attempt: pid, start time in clock ticks, boot id. Made by ``link``, which
                  fails where it exists: however many supervisors start, one goes on.
``started.json``  the command runs: its pid, and when
``stop``          the driver wants it stopped; holds the grace in seconds
``ended.json``    how it ended. Its blocks are allocated before the start, so that a full disk cannot lose it.
``stdout.log``, ``stderr.log``
"""

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from ctypes import CDLL
from typing import TYPE_CHECKING, Any

if not TYPE_CHECKING and __name__ == "__main__":
    # The file alone: its package would bring much more along.
    sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../wire"))
    import oom
else:
    from artesian.wire import oom

CLAIM, STARTED, STOP, ENDED = "claim.json", "started.json", "stop", "ended.json"
_RESERVED = "ended.reserved"
_RECORD_BYTES = 4096
_PR_SET_CHILD_SUBREAPER = 36
_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def identity(pid: int) -> dict[str, Any] | None:
    """Return what tells this process from all others, past ones with the same pid included; None if gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may hold anything; the 22nd field is the 20th behind it.
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None  # it has ended, and only its parent has not asked yet
    return {"pid": pid, "start_ticks": int(fields[19]), "boot_id": boot}


def claim(folder: str, owner: dict[str, Any]) -> bool:
    """Make ``owner`` the one who runs the attempt; False where somebody is already."""
    private = os.path.join(folder, f"{CLAIM}.{os.getpid()}")
    try:
        _write(private, json.dumps(owner).encode())
        os.link(private, os.path.join(folder, CLAIM))
    except FileExistsError:
        return False
    finally:
        if os.path.exists(private):
            os.unlink(private)
    return True


def children(parent: int) -> list[int]:
    """Return the living children of ``parent``."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] not in (b"Z", b"X"):
                found.append(int(name))
    return found


def main(folder: str, workdir: str, grace_s: float, command: list[str]) -> None:
    """Run the attempt from the claim to the written end."""
    # Blocked before the claim: whoever sees the claim may send SIGTERM, and it must not kill us.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    me = identity(os.getpid())
    if me is None or not claim(folder, me):
        return
    CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whatever the command leaves behind becomes ours
    kills_before = oom.oom_counts()
    try:
        reserved = _reserve(folder)
        child = _spawn(folder, workdir, command)
    except OSError as error:
        _write_end_somehow(folder, {"start_error": _explained(error, workdir, command), "at_s": time.time()})
        return
    _tell_start(folder, child)
    status, was_stopped = _wait(folder, child, grace_s)
    _end_everything()
    code = os.waitstatus_to_exitcode(status)
    record = {
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "is_oom_kill": code == -signal.SIGKILL
        and not was_stopped
        and oom.was_oom_killed(child, kills_before),
        "was_stopped": was_stopped,
        "at_s": time.time(),
    }
    os.pwrite(reserved, json.dumps(record).encode().ljust(_RECORD_BYTES), 0)
    os.fsync(reserved)
    os.rename(os.path.join(folder, _RESERVED), os.path.join(folder, ENDED))


def _reserve(folder: str) -> int:
    descriptor = os.open(os.path.join(folder, _RESERVED), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(descriptor, b" " * _RECORD_BYTES)
    os.fsync(descriptor)
    return descriptor


def _spawn(folder: str, workdir: str, command: list[str]) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    logs = [(number, os.path.join(folder, name)) for number, name in ((1, "stdout.log"), (2, "stderr.log"))]
    for _, path in logs:
        os.close(os.open(path, flags, 0o600))  # here, so that an error names the file and not the command
    os.chdir(workdir)
    return os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            *[(os.POSIX_SPAWN_OPEN, number, path, flags, 0o600) for number, path in logs],
        ],
        setpgroup=0,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two; a command expects the default
    )


def _tell_start(folder: str, child: int) -> None:
    try:
        _replace(folder, STARTED, {"pid": child, "at_s": time.time()})
    except OSError:
        return  # a full disk: the record of its end, whose blocks we have, will tell that it started


def _wait(folder: str, child: int, grace_s: float) -> tuple[int, bool]:
    """Return the child's wait status, and whether it was told to stop."""
    deadline_s: float | None = None
    while True:
        if deadline_s is None:
            received = signal.sigwaitinfo(_WATCHED).si_signo
        else:
            info = signal.sigtimedwait(_WATCHED, max(0.0, deadline_s - time.monotonic()))
            received = info.si_signo if info is not None else 0
        if received in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) and deadline_s is None:
            deadline_s = time.monotonic() + _grace_s(folder, grace_s)
            _signal(os.killpg, child, signal.SIGTERM)
        elif received == 0:
            _signal(os.killpg, child, signal.SIGKILL)
            deadline_s = time.monotonic() + 1.0  # until the kernel has taken it down
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                return status, deadline_s is not None
            if pid == 0:
                break


def _grace_s(folder: str, default_s: float) -> float:
    try:
        with open(os.path.join(folder, STOP), encoding="ascii") as file:
            return float(file.read())
    except (OSError, ValueError):
        return default_s


def _signal(send: Callable[[int, int], None], target: int, number: int) -> None:
    try:
        send(target, number)
    except ProcessLookupError:
        return  # it was quicker


def _end_everything() -> None:
    """Kill every descendant that is left; as they die, their own children become ours."""
    while True:
        for pid in children(os.getpid()):
            _signal(os.kill, pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)  # one at a time: a child's own children turn up here as it dies
        except ChildProcessError:
            return


def _explained(error: OSError, workdir: str, command: list[str]) -> str:
    if error.filename is None and error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR):
        error.filename = command[0]
    if error.filename == workdir:
        return f"workdir: {error.strerror}: {workdir}"
    if error.errno == errno.ENOENT and error.filename == command[0]:
        return f"command not found: {command[0]}"
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)


def _write_end_somehow(folder: str, record: dict[str, Any]) -> None:
    while True:
        try:
            _replace(folder, ENDED, record)
        except OSError:
            time.sleep(1.0)  # the disk is full, perhaps: whoever waits for us waits for that, too
        else:
            return


def _replace(folder: str, name: str, record: dict[str, Any]) -> None:
    private = os.path.join(folder, f"{name}.{os.getpid()}")
    _write(private, json.dumps(record).encode())
    os.rename(private, os.path.join(folder, name))


def _write(path: str, data: bytes) -> None:
    # An engine that is root fences an attempt in a folder of the job's user: a link there must not lead it astray.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])
