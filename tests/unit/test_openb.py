"""The openb trace, and the protocol of FGD's authors: how much of a fleet a placement fills."""

from collections import Counter
from pathlib import Path

import pytest

from artesian.model.capacity import Capacity
from artesian.policy.registry import PLACES
from artesian.sim.inflation import arrivals, asked_milli, inflate
from artesian.sim.traces.errors import BadCell, MissingColumn, TraceError
from artesian.sim.traces.openb import read_demand, read_nodes, read_pods
from artesian.sim.traces.table import BadRows
from builders import GIB, a_job, nodes
from trace_files import lines, place, real, written

NODES = "sn,cpu_milli,memory_mib,gpu,model"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli"
TIMED = f"{PODS},gpu_spec,creation_time,deletion_time,scheduled_time"

# -- the files -------------------------------------------------------------------------------------------


def test_nodes_become_a_fleet_with_a_pool_for_each_model(tmp_path: Path) -> None:
    path = written(tmp_path, lines(NODES, "n0,64000,262144,2,T4", "n1,32000,1024,0,"))
    fleet = read_nodes(path).fleet
    assert fleet is not None
    first, second = fleet.nodes
    assert (first.id, first.accelerator, first.vendor, first.pool) == ("n0", "T4", "nvidia", "t4")
    assert (first.devices, first.cpus, first.memory_bytes) == (2, 64, 256 * GIB)
    assert (second.devices, second.accelerator) == (0, "none")


def test_pods_become_jobs_for_whole_devices_shares_and_the_host_alone(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        lines(TIMED, "a,8000,2048,2,1000,V100M16|V100M32,,,", "b,3152,0,1,810,,,,", "c,500,1,0,0,,,,"),
    )
    a, b, c = read_demand(path)
    assert [str(request) for request in a.devices] == ["V100M16:2", "V100M32:2"]
    assert (a.cpus_per_device, a.memory_bytes_per_device) == (4.0, GIB)
    assert (str(b.devices[0]), b.cpus_per_device, b.memory_bytes_per_device) == ("0.81", 3.152, None)
    assert (str(c.devices[0]), c.cpus_per_device) == ("host", 0.5)


def test_pods_that_ran_have_times_and_the_others_are_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        lines(TIMED, "b,1000,1,1,500,,70,100,80", "a,1000,1,1,1000,,50,90,50", "p,1,1,1,1000,,60,99,"),
    )
    trace = read_pods(path)
    assert [(entry.job.id, entry.submit_s, entry.duration_s) for entry in trace.jobs] == [
        ("a", 50, 40),
        ("b", 70, 20),
    ]
    assert [str(entry) for entry in trace.skipped] == [
        "1 row skipped: the pod was never scheduled, first in row 4, column scheduled_time: ''"
    ]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("p,-1,1,1,1000,,0,9,1", "cpu_milli"),
        ("p,nan,1,1,1000,,0,9,1", "cpu_milli"),
        ("p,1,1,1,1001,,0,9,1", "gpu_milli"),
        ("p,1,1,1,0,,0,9,1", "gpu_milli"),
        ("p,1,1,2,500,,0,9,1", "gpu_milli"),
        ("p,1,1,1025,1000,,0,9,1", "num_gpu"),
        ("p,1,1,1,1000,T4||P100,0,9,1", "gpu_spec"),
        ("P?,1,1,1,1000,,0,9,1", "name"),
        ("first,1,1,1,1000,,0,9,1", "name"),
        ("p,1,1,1,1000,,0,0,1", "deletion_time"),
        ("p,1,1,1,1000,,5,9,1", "scheduled_time"),
        ("p,1,1,1,1000,,nan,9,1", "creation_time"),
        ("p,1,1,1", "gpu_milli"),
    ],
)
def test_a_bad_cell_is_an_error_with_its_place_or_counted(tmp_path: Path, row: str, column: str) -> None:
    path = written(tmp_path, lines(TIMED, "first,1,1,1,1000,,0,9,1", row))
    with pytest.raises(BadCell) as caught:
        read_pods(path)
    assert place(caught.value) == ("trace.csv", 3, column)
    trace = read_pods(path, bad_rows=BadRows.SKIP)
    assert (len(trace.jobs), trace.skipped_rows, trace.skipped[0].column) == (1, 1, column)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("n0,1000,1,1,T4", "sn"),
        ("n1,0,1,1,T4", "cpu_milli"),
        ("n1,1500,1,1,T4", "cpu_milli"),
        ("n1,1000,-1,1,T4", "memory_mib"),
        ("n1,1000,1,1.5,T4", "gpu"),
        ("n1,1000,1,1,", "model"),
    ],
)
def test_a_bad_node_is_an_error_with_its_place(tmp_path: Path, row: str, column: str) -> None:
    path = written(tmp_path, lines(NODES, "n0,1000,1,1,T4", row))
    with pytest.raises(BadCell) as caught:
        read_nodes(path)
    assert place(caught.value) == ("trace.csv", 3, column)


def test_a_missing_column_and_too_many_pods_are_errors(tmp_path: Path) -> None:
    path = written(tmp_path, lines(PODS, "a,1,1,1,1000", "b,1,1,1,1000"))
    with pytest.raises(MissingColumn, match="creation_time"):
        read_pods(path)
    with pytest.raises(TraceError, match="at most 1 jobs") as caught:
        read_demand(path, limit=1)
    assert caught.value.row == 3


# -- the protocol ----------------------------------------------------------------------------------------


def test_all_jobs_arrive_once_before_any_is_drawn_again() -> None:
    jobs = [a_job(f"j{number}", devices=1) for number in range(5)]
    drawn = arrivals(jobs, 9000, seed=3)
    assert sorted(job.id for job in drawn[:5]) == [job.id for job in jobs]
    assert len(drawn) == len({job.id for job in drawn}) == 9
    assert drawn == arrivals(jobs, 9000, seed=3)
    assert drawn != arrivals(jobs, 9000, seed=4)


def test_what_is_allocated_is_averaged_over_the_arrivals_at_each_load() -> None:
    # Two devices: the loads are 25, 50, ... %, and all that arrives finds room until the fleet is full.
    jobs = [a_job(f"j{number}", devices=0.5) for number in range(2)]
    found = inflate(PLACES["pack"](), nodes(2, devices=1), jobs, seed=0)
    assert found.allocated == {25: 25, 50: 50, 75: 75, 100: 100, 125: 100, 150: 100}
    assert (found.arrived, found.dropped) == (6, 2)


def test_a_job_that_does_not_fit_counts_as_arrived_and_is_dropped() -> None:
    jobs = [a_job("wide", devices=1)]
    found = inflate(PLACES["pack"](), [*nodes(1, devices=0), *nodes(1, devices=1)][1:], jobs, seed=0)
    assert (found.allocated, found.arrived, found.dropped) == ({100: 100, 200: 100}, 2, 1)


def test_the_same_seed_gives_the_same_run() -> None:
    jobs = [
        *(a_job(f"w{number}", devices=1, cpus_per_device=8.0) for number in range(30)),
        *(a_job(f"s{number}", devices=0.4, cpus_per_device=2.0) for number in range(30)),
        *(a_job(f"h{number}", devices="host", cpus_per_device=4.0) for number in range(10)),
    ]
    fleet = nodes(8, devices=4, cpus=32)
    for make in PLACES.values():
        assert inflate(make(), fleet, jobs, seed=1) == inflate(make(), fleet, jobs, seed=1)


# -- the trace -------------------------------------------------------------------------------------------


def test_the_published_fleet_and_its_jobs_are_what_they_are_known_to_be() -> None:
    fleet = read_nodes(real("openb/gpu_nodes.csv")).fleet
    assert fleet is not None
    assert (len(fleet.nodes), fleet.devices) == (1213, 6212)
    jobs = read_demand(real("openb/pods_default.csv"))
    assert (len(jobs), sum(asked_milli(job) == 0 for job in jobs)) == (8152, 1088)
    assert round(100 * sum(map(asked_milli, jobs)) / (1000 * fleet.devices)) == 98
    assert len({(job.devices, job.cpus_per_device) for job in jobs}) == 91
    assert len(read_demand(real("openb/pods_multigpu30.csv"))) == 8508
    assert Capacity(fleet.nodes).free_whole.sum() == 6212


def test_the_pods_of_the_trace_that_ran_have_their_times() -> None:
    trace = read_pods(real("openb/pods_default.csv"))
    assert (len(trace.jobs), Counter(entry.reason for entry in trace.skipped).total()) == (8152 - 897, 1)
    assert trace.skipped_rows == 897


def test_on_the_published_trace_best_fit_fills_what_was_published() -> None:
    fleet = read_nodes(real("openb/gpu_nodes.csv")).fleet
    assert fleet is not None
    jobs = read_demand(real("openb/pods_default.csv"))
    found = inflate(PLACES["best-fit"](), fleet.nodes, jobs, seed=42)
    assert found.allocated[100] == pytest.approx(92.86, abs=0.5)
    assert found.allocated[50] == pytest.approx(50, abs=0.1)
