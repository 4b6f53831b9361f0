"""The benchmark's child process: ``python -m artesian.census.probe REQUEST``.

It alone imports torch and opens devices, so that neither stays in the process that asked, and a device
that hangs can be left behind. REQUEST is a ``ProbeRequest`` as JSON; stdout carries one JSON object per
line: ``{"progress": TEXT}``, or ``{"measurement": {...}}`` for each target, in order.
"""

import ctypes
import os
import signal
import sys
from typing import BinaryIO

import msgspec

from artesian.census.request import ProbeRequest

_PR_SET_PDEATHSIG = 1


def main(argument: str, out: BinaryIO) -> None:
    """Carry out the request in ``argument``; write progress and measurements to ``out``."""

    def emit(kind: str, value: object) -> None:
        out.write(msgspec.json.encode({kind: value}) + b"\n")
        out.flush()

    def say(text: str) -> None:
        emit("progress", text)

    request = msgspec.json.decode(argument, type=ProbeRequest)
    if request.parent_pid is not None:
        _die_with(request.parent_pid)
    if request.gpus:
        from artesian.census.gpu_probe import measure_gpus

        for measurement in measure_gpus(request, say):
            emit("measurement", measurement)
    else:
        from artesian.census.cpu_probe import measure_cpu

        emit("measurement", measure_cpu(request, say))


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, however that comes; leave at once where it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    # Libraries print to stdout what they like; ours goes out on a descriptor that they do not have.
    with os.fdopen(os.dup(1), "wb") as protocol:
        os.dup2(2, 1)
        main(sys.argv[1], protocol)
