"""The second driver of the kernel: a heap of events and virtual time, no process and no clock.

What decides here is what decides live: ``kernel.Scheduler`` with a policy, unchanged. Only the engine
is another one, which knows in advance how long every attempt takes.

``run``     simulate a list of jobs on a fleet
``jobs``    a job and what will become of it
``engine``  carries commands out by foreseeing their events
``faults``  nodes that fail and are repaired
``fairness`` how much later a job ended than on its part of the fleet
``report``  waits, completion times, allocation, the waterfall
``fleet``   a fleet from YAML
"""

from artesian.sim.faults import NodeFaults
from artesian.sim.fleet import FleetFileError, parse_fleet
from artesian.sim.jobs import Failure, SimJob
from artesian.sim.report import JobResult, Report, Summary, report
from artesian.sim.run import NoProgress, SimResult, simulate

__all__ = [
    "Failure",
    "FleetFileError",
    "JobResult",
    "NoProgress",
    "NodeFaults",
    "Report",
    "SimJob",
    "SimResult",
    "Summary",
    "parse_fleet",
    "report",
    "simulate",
]
