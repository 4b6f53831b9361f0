"""``artesian simulate``: the figures of a small fleet by hand, and what a planner gets wrong."""

from pathlib import Path

import pytest

from cli_harness import Cli
from trace_files import FOUR_JOBS, SMALL_FLEET


@pytest.fixture
def files(cli: Cli) -> tuple[Path, Path]:
    jobs, fleet = cli.folder / "jobs.csv", cli.folder / "fleet.csv"
    jobs.write_text(FOUR_JOBS)
    fleet.write_text(SMALL_FLEET)
    return jobs, fleet


def test_backfill_lets_the_short_job_into_the_gap_and_fifo_does_not(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    jobs, fleet = files
    found = cli.json("simulate", "--jobs", jobs, "--fleet", fleet, "--policy", "fifo,easy")
    assert (found["simulated"], found["jobs"], found["devices"]) == (True, 4, 4)
    ends = {
        entry["policy"]: {job["job_id"]: job["ended_s"] for job in entry["jobs"]}
        for entry in found["policies"]
    }
    # In turn: first until 100, big until 150, then short until 240 and long until 650 side by side.
    assert ends["fifo"] == {"first": 100, "big": 150, "short": 240, "long": 650}
    # short is over at 92, before big is due at 100; long would put big off, and waits.
    assert ends["easy"] == {"first": 100, "big": 150, "short": 92, "long": 650}


def test_the_table_says_that_it_is_simulated_and_has_a_row_for_each_policy(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    jobs, fleet = files
    text = cli("simulate", "--jobs", jobs, "--fleet", fleet, "--policy", "fifo,easy,least-waste").stdout
    title, header, *rows = [line for line in text.splitlines() if line.strip()]
    assert title.strip() == "simulated: 4 jobs on 4 devices of 1 nodes"
    assert header.split()[:3] == ["policy", "mean", "JCT"]
    assert [row.split()[0] for row in rows] == ["fifo", "easy", "least-waste"]


def test_the_same_input_gives_the_same_bytes(cli: Cli, files: tuple[Path, Path]) -> None:
    jobs, fleet = files
    words = ("simulate", "--jobs", jobs, "--fleet", fleet, "--policy", "easy", "--estimate-error", "0.5")
    assert cli(*words, "-o", "json").stdout == cli(*words, "-o", "json").stdout
    assert cli(*words, "--seed", "1", "-o", "json").stdout == cli(*words, "--seed", "1", "-o", "json").stdout


def test_a_job_that_no_pool_could_hold_is_counted_and_named_by_its_row(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    jobs, fleet = files
    jobs.write_text(FOUR_JOBS + "4,10,H100:64,huge,10\n")
    done = cli("simulate", "--jobs", jobs, "--fleet", fleet)
    assert "1 row skipped: the gang fits no devices of the fleet, first in row 6" in done.stderr
    assert "4 jobs" in done.stdout


def test_bad_rows_are_refused_or_left_out_counted_and_named(cli: Cli, files: tuple[Path, Path]) -> None:
    jobs, fleet = files
    header, *rows = FOUR_JOBS.splitlines()
    column = header.split(",").index("duration_s")
    for row, value in ((1, "nan"), (3, "-5")):
        cells = rows[row].split(",")
        cells[column] = value
        rows[row] = ",".join(cells)
    jobs.write_text("\n".join([header, *rows]) + "\n")
    words = ("simulate", "--jobs", jobs, "--fleet", fleet)
    refused = cli(*words, code=1)
    assert "jobs.csv: row 3, column duration_s: expected a number" in refused.stderr
    assert "--skip-bad-rows" in refused.stderr
    found = cli.json(*words, "--skip-bad-rows")
    assert (found["jobs"], found["skipped"]) == (2, 2)
    [skipped] = found["skipped_by_reason"]
    assert (skipped["count"], skipped["row"], skipped["column"]) == (2, 3, "duration_s")


def test_a_column_that_is_missing_is_named(cli: Cli, files: tuple[Path, Path]) -> None:
    jobs, fleet = files
    jobs.write_text("submit_s,devices\n0,H100:2\n")
    assert (
        "jobs.csv: row 1, column duration_s"
        in cli("simulate", "--jobs", jobs, "--fleet", fleet, code=1).stderr
    )


def test_requests_become_replicas_of_the_speed_that_is_told(cli: Cli, files: tuple[Path, Path]) -> None:
    jobs, fleet = files
    jobs.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:00:00.0,1000,10\n2023-11-16 18:00:01.0,5000,10\n2023-11-16 18:01:30.0,1000,10\n"
    )
    words = ("simulate", "--jobs", jobs, "--fleet", fleet)
    assert "--replica" in cli(*words, code=1).stderr
    assert "tokens per second" in cli(*words, "--replica", "fast", code=2).stderr
    # 6,020 tokens at 100 a second take 60.2 s of the first minute: two replicas; one in the second.
    found = cli.json(*words, "--replica", "100/100", "--replica-devices", "2", "--policy", "fifo")
    [policy] = found["policies"]
    assert (found["jobs"], policy["allocated_device_s"]) == (2, 2 * (120 + 60))


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("--jobs", "jobs.csv"), "does not tell what the jobs ran on: give --fleet or --load", 2),
        (("--jobs", "jobs.csv", "--fleet", "fleet.csv", "--load", "0.9"), "leave one out", 2),
        (
            ("--jobs", "jobs.csv", "--fleet", "fleet.csv", "--policy", "magic"),
            "policy 'magic' is not known",
            1,
        ),
        (("--jobs", "missing.csv", "--load", "0.9"), "missing.csv", 1),
        (("--jobs", "broken.csv", "--load", "0.9"), "row 2", 1),
    ],
)
def test_what_is_wrong_is_told(
    cli: Cli, files: tuple[Path, Path], words: tuple[str, ...], said: str, code: int
) -> None:
    (cli.folder / "broken.csv").write_text("submit_s,duration_s,devices\n0,-5,H100:2\n")
    assert said in cli("simulate", *words, code=code).stderr
    assert files
