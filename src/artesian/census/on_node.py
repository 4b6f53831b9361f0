"""A census of the node that this runs on: ``python -m artesian.census.on_node [--no-benchmark]``.

It is what an engine's job runs there. stdout has the census as one line of JSON, and nothing else; what is going
on goes to stderr.
"""

import sys
import time

from artesian.census.benchmark import benchmark
from artesian.census.discover import discover
from artesian.census.report import Census

NO_BENCHMARK = "--no-benchmark"


def main(arguments: list[str]) -> None:
    """Take the census, and write it."""
    machine = discover()
    measurements = () if NO_BENCHMARK in arguments else benchmark(machine, progress=_say)
    found = Census(machine=machine, measurements=measurements, at_s=time.time())
    sys.stdout.buffer.write(found.to_json() + b"\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
