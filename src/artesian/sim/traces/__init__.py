"""Traces: what others ran, read into fleets and jobs for the simulator, and made-up ones like them.

A reader takes the path of a file and returns a ``Trace``, or raises a ``TraceError`` that names file, row
and column. Nothing is left out silently: a row that cannot be right is refused, or skipped and counted if
the caller says so; a row that is no job for devices is counted always.

``registry``          formats by name, and by what a file begins with
``own``, ``own_yaml``  our own formats, for anyone's own trace
``sacct``             Slurm's accounting
``philly``, ``philly_deadlines``, ``gavel``, ``alibaba_spot``, ``openb``, ``azure``  public traces, one file each
``sizing``            a fleet for a load
``estimates``         what users might have said of their jobs
``synthetic``         seeded traces with the statistics of the public ones
``nodes``             files of nodes as a fleet
``table``             CSV with typed cells, read as a stream
"""

from artesian.sim.traces.errors import (
    BadCell,
    BadDocument,
    MissingColumn,
    MissingOption,
    TooLarge,
    TraceError,
    UnknownFormat,
    UnreadableTrace,
)
from artesian.sim.traces.estimates import with_estimates
from artesian.sim.traces.registry import FORMATS, Format, ReadOptions, read_trace, sniff
from artesian.sim.traces.sizing import fleet_for_load, load_of
from artesian.sim.traces.table import BadRows, Skipped
from artesian.sim.traces.trace import Trace

__all__ = [
    "FORMATS",
    "BadCell",
    "BadDocument",
    "BadRows",
    "Format",
    "MissingColumn",
    "MissingOption",
    "ReadOptions",
    "Skipped",
    "TooLarge",
    "Trace",
    "TraceError",
    "UnknownFormat",
    "UnreadableTrace",
    "fleet_for_load",
    "load_of",
    "read_trace",
    "sniff",
    "with_estimates",
]
