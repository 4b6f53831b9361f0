"""What Slurm prints, as recorded from a real 22.05; later forms as its documentation has them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.engines.slurm import parse
from artesian.engines.slurm.parse import ParseError, SlurmJob

RECORDINGS = Path(__file__).parent.parent / "recordings" / "slurm"


def recorded(name: str) -> str:
    return (RECORDINGS / name).read_text()


def by_name(jobs: list[SlurmJob]) -> dict[str, SlurmJob]:
    return {job.comment.split("/")[2]: job for job in jobs if job.comment}


FROM = [
    by_name(parse.jobs_of_json(recorded("squeue-22.05.json"))),
    by_name(parse.jobs_of_text(recorded("squeue-22.05.txt"))),
]


@pytest.mark.parametrize("jobs", FROM, ids=["json", "text"])
@pytest.mark.parametrize(
    ("name", "state", "exit_code", "signal"),
    [
        ("completed", "COMPLETED", 0, None),
        ("failed", "FAILED", 3, None),
        ("signal", "FAILED", 0, 9),
        ("cancelled", "CANCELLED", 143, None),
        ("timeout", "TIMEOUT", 0, 15),
        ("preempted", "PREEMPTED", 0, 15),
        ("node-fail", "NODE_FAIL", 0, None),
        ("pending", "PENDING", None, None),
        ("urgent", "RUNNING", None, None),
    ],
)
def test_every_state_is_read(
    jobs: dict[str, SlurmJob], name: str, state: str, exit_code: int | None, signal: int | None
) -> None:
    job = jobs[name]
    assert (job.state, job.exit_code, job.signal) == (state, exit_code, signal)
    assert parse.is_over(job.state) == (exit_code is not None)
    assert parse.is_granted(job.state) == (name == "urgent")


def test_json_and_text_say_the_same() -> None:
    assert {job.id: job for job in FROM[0].values()} == {job.id: job for job in FROM[1].values()}
    of_json = {node.name: node for node in parse.nodes_of_json(recorded("sinfo-22.05.json"))}
    of_text = {node.name: node for node in parse.nodes_of_text(recorded("scontrol-nodes-22.05.txt"))}
    assert of_json == of_text


def test_nodes_are_read() -> None:
    nodes = {node.name: node for node in parse.nodes_of_json(recorded("sinfo-22.05.json"))}
    assert nodes["a1"].gres == {"910b": 8}
    assert nodes["a1"].gres_used == {"910b": 8}
    assert (nodes["a1"].cpus, nodes["a1"].cpus_used, nodes["a1"].memory_bytes) == (32, 1, 64000 * 2**20)
    assert nodes["a1"].partitions == {"all", "urgent"}
    assert nodes["h1"].states == {"DOWN", "NOT_RESPONDING"}
    assert "DRAIN" in nodes["a2"].states


def test_jobs_and_nodes_of_later_versions_are_read() -> None:
    # Lists of states, objects for numbers: data_parser/v0.0.40 and later, written by hand from its documentation.
    job = {
        "job_id": 7,
        "job_state": ["FAILED"],
        "comment": "artesian/x.y/j1/1",
        "state_reason": "NonZeroExitCode",
        "exit_code": {
            "status": ["ERROR"],
            "return_code": {"set": True, "infinite": False, "number": 3},
            "signal": {"id": {"set": False, "infinite": False, "number": 0}, "name": ""},
        },
    }
    (found,) = parse.jobs_of_json(json.dumps({"jobs": [job], "errors": []}))
    assert (found.state, found.exit_code, found.signal) == ("FAILED", 3, None)
    node = {
        "name": "n1",
        "state": ["IDLE", "DRAIN"],
        "cpus": 8,
        "real_memory": 1,
        "gres": "gpu:h100:8(S:0-1)",
        "features": ["x"],
        "partitions": ["p"],
    }
    (seen,) = parse.nodes_of_json(json.dumps({"nodes": [node]}))
    assert seen.states == {"IDLE", "DRAIN"}
    assert (dict(seen.gres), seen.memory_bytes) == ({"h100": 8}, 0)


@pytest.mark.parametrize("name", ["squeue-22.05-down.json", "sinfo-22.05-down.json"])
def test_an_empty_list_of_a_controller_that_is_down_tells_nothing(name: str) -> None:
    with pytest.raises(ParseError, match="got an error"):
        (parse.jobs_of_json if name.startswith("squeue") else parse.nodes_of_json)(recorded(name))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"jobs": 3}', '{"jobs": {}}', "slurm_load_jobs error"]
)
def test_what_is_no_list_of_jobs_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse.jobs_of_json(text)


@pytest.mark.parametrize(
    ("text", "version"),
    [("slurm-wlm 22.05.8\n", (22, 5)), ("slurm 23.11.10", (23, 11)), ("slurm 20.02", (20, 2))],
)
def test_the_version_is_read(text: str, version: tuple[int, int]) -> None:
    assert parse.version_of(text) == version


@pytest.mark.parametrize(
    ("gres", "devices"),
    [
        ("gpu:h100:8", {"h100": 8}),
        ("gpu:8", {"": 8}),
        ("gpu:h100", {"h100": 1}),
        ("gpu:h100:2(IDX:0-1)", {"h100": 2}),
        ("gpu:a30:4(S:0),gpu:h100:4(S:1),license:1", {"a30": 4, "h100": 4}),
        ("gpu:h100:0(IDX:N/A)", {"h100": 0}),
        ("gpu:a:b:3", {"a:b": 3}),
        ("(null)", {}),
        ("", {}),
    ],
)
def test_devices_are_counted_by_type(gres: str, devices: dict[str, int]) -> None:
    assert parse.gpus_of(gres) == devices


@given(text=st.text())
def test_text_of_somebody_elses_comment_breaks_nothing(text: str) -> None:
    lines = f"1|RUNNING|{text}|0|None|me|\n2|COMPLETED|artesian/i/j1/1|0|None|me|"
    jobs = [job for job in parse.jobs_of_text(lines) if job.id == 2]
    assert [job.comment for job in jobs if job.comment == "artesian/i/j1/1"] == ["artesian/i/j1/1"]
