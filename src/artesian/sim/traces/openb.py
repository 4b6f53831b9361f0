"""Alibaba's openb trace, as FGD's authors published it (Weng et al., USENIX ATC 2023): nodes, and pods.

Nodes: ``sn``, ``cpu_milli``, ``memory_mib``, ``gpu``, ``model``. Pods: ``name``, ``cpu_milli`` and
``memory_mib`` in all, ``num_gpu`` devices with ``gpu_milli`` of each; in some lists ``gpu_spec`` (the models
that will do, parted by ``|``) and times in seconds: ``creation_time``, ``deletion_time``,
``scheduled_time`` (empty for a pod that never ran). A pod without devices is a job on the host alone.
"""

import re
from pathlib import Path

from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.resources import MILLI, DeviceRequest
from artesian.sim.jobs import SimJob
from artesian.sim.traces.nodes import collect_nodes, node_of
from artesian.sim.traces.table import BadRows, Row, Table
from artesian.sim.traces.trace import COMMAND, MAX_JOBS, NO_ENV, Trace, collect, too_many

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
TIME_COLUMNS = ("creation_time", "deletion_time", "scheduled_time")

NO_ACCELERATOR = "none"
"""The accelerator of nodes that have none."""

_MIB = 2**20
_MOST_MIB = 2**30
_MODELS = re.compile(r"[^\s|:,]+(\|[^\s|:,]+)*")


def read_nodes(path: Path, *, bad_rows: BadRows = BadRows.REFUSE) -> Trace:
    """Return the fleet; there are no jobs. Nodes of one model are a pool. Raises TraceError."""
    table = Table(path, required=NODE_COLUMNS, bad_rows=bad_rows)
    seen: set[str] = set()

    def node(row: Row) -> Node:
        devices = row.count("gpu", most=1024)
        accelerator = row.text("model") if devices else NO_ACCELERATOR
        cpu_milli = row.count("cpu_milli", least=MILLI)
        if cpu_milli % MILLI:
            row.refuse("cpu_milli", f"whole CPUs of {MILLI} each")
        return node_of(
            row.new("sn", row.text("sn"), seen),
            accelerator=accelerator,
            devices=devices,
            cpus=cpu_milli // MILLI,
            memory_bytes=row.count("memory_mib", most=_MOST_MIB) * _MIB,
        )

    return collect_nodes(path, table, node)


def read_demand(path: Path, *, limit: int | None = None) -> tuple[Job, ...]:
    """Return all pods of a list, in its order and without their times, which some lists do not have.

    Raises TraceError.
    """
    most = MAX_JOBS if limit is None else limit
    jobs: list[Job] = []
    for number, job in Table(path, required=POD_COLUMNS).rows(_Pods().job):
        if len(jobs) == most:
            raise too_many(path, most, number)
        jobs.append(job)
    return tuple(jobs)


def read_pods(path: Path, *, bad_rows: BadRows = BadRows.REFUSE, limit: int | None = None) -> Trace:
    """Return the pods that ran, as jobs; the first of the list is submitted when the trace says, not at 0.

    A job lasts from when its pod was scheduled until it was deleted. One that never ran is left out, and
    counted. Raises TraceError.
    """
    table = Table(path, required=(*POD_COLUMNS, *TIME_COLUMNS), bad_rows=bad_rows)
    pods = _Pods()

    def job(row: Row) -> SimJob:
        found = pods.job(row)
        created_s = row.figure("creation_time")
        deleted_s = row.figure("deletion_time")
        if not row.has("scheduled_time"):
            row.pass_over("the pod was never scheduled", "scheduled_time")
        scheduled_s = row.figure("scheduled_time", least=created_s)
        if deleted_s < scheduled_s:
            row.refuse("deletion_time", "a time not before scheduled_time")
        return SimJob(job=found, submit_s=created_s, duration_s=deleted_s - scheduled_s)

    return collect(path, table.rows(job), table.tally, limit=limit)


class _Pods:
    """Makes jobs of rows; jobs that ask for the same share what they ask for."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._requests: dict[tuple[int, str], tuple[DeviceRequest, ...]] = {}

    def job(self, row: Row) -> Job:
        name = row.new("name", row.text("name"), self._seen)
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?", name):
            row.refuse("name", "at most 63 of a-z, 0-9, '-', '.', '_', ends alphanumeric")
        devices = row.count("num_gpu", most=1024)
        milli = row.count("gpu_milli", least=1 if devices else 0, most=MILLI)
        if devices > 1 and milli < MILLI:
            row.refuse("gpu_milli", f"{MILLI} of each of several devices")
        cpu_milli = row.count("cpu_milli")
        memory_bytes = row.count("memory_mib", most=_MOST_MIB) * _MIB
        rations = max(1, devices)
        return Job(
            id=name,
            name=name,
            command=COMMAND,
            devices=self._devices(devices * milli, self._models(row)),
            workdir="/",
            env=NO_ENV,
            cpus_per_device=cpu_milli / MILLI / rations if cpu_milli else None,
            memory_bytes_per_device=memory_bytes // rations or None,
        )

    @staticmethod
    def _models(row: Row) -> str:
        if not row.has("gpu_spec"):
            return ""
        models = row.text("gpu_spec")
        if not _MODELS.fullmatch(models):
            row.refuse("gpu_spec", "models parted by |")
        return models

    def _devices(self, milli: int, models: str) -> tuple[DeviceRequest, ...]:
        key = (milli, models)
        if key not in self._requests:
            kinds = models.split("|") if models and milli else [None]
            self._requests[key] = tuple(
                DeviceRequest(min_milli=milli, max_milli=milli, accelerator=kind) for kind in kinds
            )
        return self._requests[key]
