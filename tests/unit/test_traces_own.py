"""Our own formats: what a table and a document mean, and what is refused of them."""

from pathlib import Path

import pytest

from artesian.model.job import JobKind
from artesian.model.resources import parse_devices
from artesian.sim import parse_fleet
from artesian.sim.traces import (
    BadCell,
    BadDocument,
    BadRows,
    TooLarge,
    UnreadableTrace,
    own,
    own_yaml,
    read_trace,
)
from trace_files import lines, place, written

CSV = """\
name,submit_s,duration_s,devices,kind,team,user,priority,cpus_per_device,memory_per_device,\
estimated_duration_s,deadline_s,start_up_s,checkpoint_every_s,profile,steps,steps_per_s
late,60,7200,H100:8 | 910B:16,train,vision,ada,-3,12.5,64GB,9000,86400,30,600,resnet,1000,H100=3.2; 910B=1.1
,0.5,90,0.5,,,,,,,,,,,,,
"""

YAML = """\
jobs:
  - name: late
    submit: 1m
    duration: 2h
    devices: H100:8 | 910B:16
    kind: train
    team: vision
    user: ada
    priority: -3
    cpus_per_device: 12.5
    memory_per_device: 64GB
    estimated_duration: 2h30m
    deadline: 1d
    start_up: 30s
    checkpoint_every: 10m
    profile: resnet
    steps: 1000
    steps_per_s: {H100: 3.2, 910B: 1.1}
  - {submit: 500ms, duration: 90s, devices: "0.5", name: job-3}
"""

FLEET_CSV = """\
name,nodes,accelerator,devices,cpus,memory,center,vendor,device_memory
train,2,H100,8,96,1TB,,,
old,1,Tesla V100-SXM2-32GB,4,48,512GiB,north,acme,16GB
"""
FLEET_YAML = """\
pools:
  - {name: train, nodes: 2, accelerator: H100, devices: 8, cpus: 96, memory: 1TB}
  - {name: old, nodes: 1, accelerator: Tesla V100-SXM2-32GB, devices: 4, cpus: 48, memory: 512GiB,
     center: north, vendor: acme, device_memory: 16GB}
"""


def test_a_table_says_all_that_a_job_can_be(tmp_path: Path) -> None:
    second, first = own.read(written(tmp_path, CSV)).jobs
    job = first.job
    assert (first.submit_s, first.duration_s, first.start_up_s) == (60, 7200, 30)
    assert (first.deadline_s, first.checkpoint_every_s) == (86400, 600)
    assert first.steps_per_s == {"H100": 3.2, "910B": 1.1}
    assert (job.id, job.name, job.kind, job.team, job.user) == (
        "late",
        "late",
        JobKind.TRAIN,
        "vision",
        "ada",
    )
    assert job.devices == parse_devices("H100:8 | 910B:16")
    assert (job.priority, job.cpus_per_device, job.memory_bytes_per_device) == (-3, 12.5, 64 * 10**9)
    assert (job.estimated_duration_s, job.profile, job.total_steps) == (9000, "resnet", 1000)
    assert (second.job.name, second.submit_s, second.deadline_s) == ("job-3", 0.5, None)
    assert (second.job.kind, second.job.team, second.job.estimated_duration_s) == (
        JobKind.BATCH,
        "default",
        None,
    )


def test_a_document_says_the_same_as_a_table(tmp_path: Path) -> None:
    table, document = own.read(written(tmp_path, CSV)), own_yaml.read(written(tmp_path, YAML, "jobs.yaml"))
    assert document.jobs == table.jobs
    assert document.rows == (19, 2)


def test_a_fleet_is_the_same_as_table_and_as_document(tmp_path: Path) -> None:
    fleet = parse_fleet(FLEET_YAML, source="f")
    assert own.read_fleet(written(tmp_path, FLEET_CSV)).fleet == fleet
    assert own_yaml.read_fleet(written(tmp_path, FLEET_YAML, "f.yaml")).fleet == fleet


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("1,-1,1,", "duration_s", "expected a number from 0"),
        ("nan,1,1,", "submit_s", "expected a number from 0"),
        ("1,1,,", "devices", "expected a value"),
        ("1,1,H100:0,", "devices", "expected a resource string for at most 1000000 devices, got 'H100:0'"),
        ("1,1,H100:2000000,", "devices", "at most 1000000 devices"),
        ("1,1,H100:" + "9" * 5000 + ",", "devices", "at most 1000000 devices"),
        (
            "1,1,1,Über",
            "name",
            "expected at most 63 of a-z, 0-9, '-', '.', '_', ends alphanumeric, got 'Über'",
        ),
        ("1,1,1,first", "name", "expected a value that no row before has, got 'first'"),
    ],
)
def test_a_bad_job_is_refused_with_its_row_and_column(
    tmp_path: Path, row: str, column: str, words: str
) -> None:
    path = written(tmp_path, lines("submit_s,duration_s,devices,name", "0,1,1,first", row))
    with pytest.raises(BadCell) as caught:
        own.read(path)
    assert place(caught.value) == ("trace.csv", 3, column)
    assert words in str(caught.value)
    trace = own.read(path, bad_rows=BadRows.SKIP)
    assert [entry.column for entry in trace.skipped] == [column]


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("kind", "service!"),
        ("priority", "1.5"),
        ("cpus_per_device", "0"),
        ("memory_per_device", "64"),
        ("memory_per_device", "9" * 400 + "GB"),
        ("deadline_s", "-1"),
        ("checkpoint_every_s", "0"),
        ("start_up_s", "inf"),
        ("steps", "0"),
        ("steps_per_s", "V100"),
        ("steps_per_s", "V100=-1"),
        ("steps_per_s", "V100=1;V100=2"),
        ("steps_per_s", "=1"),
    ],
)
def test_an_optional_column_is_checked_like_the_others(tmp_path: Path, column: str, cell: str) -> None:
    path = written(tmp_path, lines(f"submit_s,duration_s,devices,{column}", f"0,1,1,{cell}"))
    with pytest.raises(BadCell) as caught:
        own.read(path)
    assert place(caught.value) == ("trace.csv", 2, column)


def test_every_mistake_of_a_document_is_named_with_its_line(tmp_path: Path) -> None:
    text = YAML.replace("1m", "1").replace("90s", "-1s").replace("job-3", "late").replace("10m", "0s")
    with pytest.raises(BadDocument) as caught:
        own_yaml.read(written(tmp_path, text, "jobs.yaml"))
    found = [(mistake.at.line, mistake.subject) for mistake in caught.value.mistakes]
    assert found == [
        (3, "jobs[0].submit"),
        (15, "jobs[0].checkpoint_every"),
        (19, "jobs[1].duration"),
        (19, "jobs[1].name"),
    ]
    assert "jobs.yaml:15:23: jobs[0].checkpoint_every" in str(caught.value)
    assert (caught.value.row, caught.value.column) == (3, "jobs[0].submit")


@pytest.mark.parametrize(
    "text", [b"jobs: [\xff]", b"\xff" * 2_000_000, b"jobs: 3", b"", b"jobs: [{submit: 0s}]"]
)
def test_a_document_that_is_none_is_an_error_of_traces(tmp_path: Path, text: bytes) -> None:
    path = written(tmp_path, text, "jobs.yaml")
    with pytest.raises((BadDocument, UnreadableTrace)) as caught:
        own_yaml.read(path)
    assert str(path) in str(caught.value)
    with pytest.raises((BadDocument, UnreadableTrace)):
        own_yaml.read_fleet(path)


def test_racks_are_the_same_as_table_and_as_document(tmp_path: Path) -> None:
    pools = [("a", 5, "2", "2"), ("b", 3, "1;2", "[1, 2]"), ("c", 1, "", None)]
    header = "name,nodes,accelerator,devices,cpus,memory,rack_nodes"
    table = written(
        tmp_path, lines(header, *(f"{name},{count},A,8,8,1TB,{racks}" for name, count, racks, _ in pools))
    )
    told = [
        f"{{name: {name}, nodes: {count}, accelerator: A, devices: 8, cpus: 8, memory: 1TB"
        + ("}" if racks is None else f", rack_nodes: {racks}}}")
        for name, count, _, racks in pools
    ]
    fleet = read_trace(table).fleet
    assert fleet == parse_fleet(f"pools: [{', '.join(told)}]", source="f")
    assert fleet is not None
    assert [node.rack for node in fleet.nodes][5:] == ["rack-0", "rack-1", "rack-1", None]


@pytest.mark.parametrize("racks", ["0", "2;2", "x", "1.5", "-1", "nan", ";"])
def test_racks_that_do_not_hold_the_nodes_are_refused_with_their_row(tmp_path: Path, racks: str) -> None:
    header = "name,nodes,accelerator,devices,cpus,memory,rack_nodes"
    with pytest.raises(BadCell) as caught:
        own.read_fleet(written(tmp_path, lines(header, f"train,3,A,8,8,1TB,{racks}")))
    assert place(caught.value) == ("trace.csv", 2, "rack_nodes")


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("train,1,A,8,8,1TB", "name"),
        ("new,0,A,8,8,1TB", "nodes"),
        ("new,1,,8,8,1TB", "accelerator"),
        ("new,1,A,2000,8,1TB", "devices"),
        ("new,1,A,8,0,1TB", "cpus"),
        ("new,1,A,8,8,lots", "memory"),
        ("new,1,A,8,8,", "memory"),
    ],
)
def test_a_bad_pool_is_refused_with_its_row_and_column(tmp_path: Path, row: str, column: str) -> None:
    header = "name,nodes,accelerator,devices,cpus,memory"
    with pytest.raises(BadCell) as caught:
        own.read_fleet(written(tmp_path, lines(header, "train,1,A,8,8,1TB", row)))
    assert place(caught.value) == ("trace.csv", 3, column)


def test_a_fleet_of_too_many_nodes_is_refused(tmp_path: Path) -> None:
    rows = ["a,60000,A,8,8,1TB", "b,60000,A,8,8,1TB"]
    with pytest.raises(TooLarge) as caught:
        own.read_fleet(written(tmp_path, lines("name,nodes,accelerator,devices,cpus,memory", *rows)))
    assert place(caught.value) == ("trace.csv", 3, "nodes")
