"""The benchmark's child process: ``python -m artesian.census.probe REQUEST``.

It alone imports torch and opens devices, so that neither stays in the process that asked, and a device
that hangs can be left behind. REQUEST is a ``ProbeRequest`` as JSON; stdout carries one JSON object per
line: ``{"progress": TEXT}``, or ``{"measurement": {...}}`` for each target, in order.
"""

import os
import sys
from typing import BinaryIO

import msgspec

from artesian.census.request import ProbeRequest


def main(argument: str, out: BinaryIO) -> None:
    """Carry out the request in ``argument``; write progress and measurements to ``out``."""

    def emit(kind: str, value: object) -> None:
        out.write(msgspec.json.encode({kind: value}) + b"\n")
        out.flush()

    def say(text: str) -> None:
        emit("progress", text)

    request = msgspec.json.decode(argument, type=ProbeRequest)
    if request.gpus:
        from artesian.census.gpu_probe import measure_gpus

        for measurement in measure_gpus(request, say):
            emit("measurement", measurement)
    else:
        from artesian.census.cpu_probe import measure_cpu

        emit("measurement", measure_cpu(request, say))


if __name__ == "__main__":
    # Libraries print to stdout what they like; ours goes out on a descriptor that they do not have.
    with os.fdopen(os.dup(1), "wb") as protocol:
        os.dup2(2, 1)
        main(sys.argv[1], protocol)
