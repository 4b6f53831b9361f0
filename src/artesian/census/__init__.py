"""Census: which devices a machine has, what they really do, and whether they work.

``discover``     the machine, in milliseconds: CPUs, memory, NUMA nodes, accelerators
``benchmark``    matrix products and memory bandwidth of each device, checked, in a process of its own
``peers``        what healthy devices of a kind reach, from the censuses of many machines
``report``       both, against the nameplate, with a verdict per device; saved and loaded

A figure that was not measured is None with its reason; a measurement that others disturbed is kept, but
is nobody's ceiling.
"""

from artesian.census.benchmark import BenchmarkSettings, benchmark
from artesian.census.discover import discover
from artesian.census.errors import CensusError
from artesian.census.machine import CPU, FoundDevice, Host, Machine, NumaNode
from artesian.census.measurement import Figure, Measurement
from artesian.census.peers import Peers
from artesian.census.report import Baseline, Census, Verdict
from artesian.model.ledger import Ceiling

__all__ = [
    "CPU",
    "Baseline",
    "BenchmarkSettings",
    "Ceiling",
    "Census",
    "CensusError",
    "Figure",
    "FoundDevice",
    "Host",
    "Machine",
    "Measurement",
    "NumaNode",
    "Peers",
    "Verdict",
    "benchmark",
    "discover",
]
