"""Jobs from their submit to their end: run, submit, jobs, show, why, logs, cancel."""

import fcntl
import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from artesian.wire.channel import ProgressWriter, worker_file
from cli_harness import ARTESIAN, UNTIL_TOLD, Cli, the_whole_node, until
from worker_messages import apart, began, slow, step


def test_a_job_that_is_run_succeeds_with_its_output_on_stderr_and_the_waterfall_on_stdout(cli: Cli) -> None:
    done = cli.run("tiny", "echo to-stdout; echo to-stderr >&2")
    assert "to-stdout\n" in done.stderr
    assert "to-stderr\n" in done.stderr
    assert done.stdout.startswith("Waterfall in device-")
    assert "started on" in done.stderr
    assert "succeeded after" in done.stderr


def test_a_job_that_fails_ends_with_100_and_shows_what_it_said(cli: Cli) -> None:
    done = cli.run("tiny", "echo no good >&2; exit 3", code=100)
    assert "no good\n" in done.stderr
    assert "exit code 3" in done.stderr


def test_run_as_json_is_one_document_on_stdout(cli: Cli) -> None:
    found = cli.json("run", "--no-census", cli.file("tiny", "echo x; exit 3"), code=100)
    assert found.keys() == {"job", "training", "goodput", "waterfall"}
    assert found["job"]["state"] == "failed"
    assert found["job"]["attempts"][0]["outcome"]["exit_code"] == 3


def test_a_detached_run_prints_the_id_and_says_how_to_follow(cli: Cli) -> None:
    done = cli("run", "--detach", cli.file())
    id_ = done.stdout.strip()
    assert done.stderr == f"follow it with: artesian logs -f {id_}\n"
    assert cli.until_in(id_, "succeeded")


def test_submit_prints_the_id_and_nothing_else(cli: Cli) -> None:
    done = cli("submit", cli.file("tiny"))
    assert done.stdout.startswith("tiny-")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert cli.json("submit", cli.file("other"))["state"] in ("queued", "starting", "running", "succeeded")


def test_a_long_output_is_followed_to_its_last_byte(cli: Cli) -> None:
    done = cli.run("tiny", "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo the-end")
    assert done.stderr.count("x" * 1000) == 5000
    assert "x\nthe-end\n" in done.stderr


def test_logs_are_the_bytes_that_the_job_wrote(cli: Cli) -> None:
    cli.run("tiny", "printf 'a\\000\\377\\r\\n\\033[31mred'; printf 'err' >&2")
    for words in (["logs", "tiny"], ["logs", "-f", "tiny"]):
        raw = subprocess.run([*ARTESIAN, *words], env=cli.env, capture_output=True, check=True)
        assert raw.stdout == b"a\x00\xff\r\n\x1b[31mred"
        assert b"err" in raw.stderr


def test_logs_are_those_of_the_attempt_asked_for(cli: Cli) -> None:
    script = 'echo "number $ARTESIAN_EPOCH"; [ $ARTESIAN_EPOCH = 2 ] || kill -KILL $$'
    cli.run("tiny", script, retry={"limit": 1, "backoff": "0s"})
    assert cli("logs", "tiny").stdout == "number 2\n"
    assert cli("logs", "tiny", "--attempt", "1").stdout == "number 1\n"
    assert "expected an attempt up to 2, got 3" in cli("logs", "tiny", "--attempt", "3", code=1).stderr
    cli("logs", "tiny", "--attempt", "0", code=2)
    cli("logs", "tiny", "-f", "--attempt", "1", code=2)


def test_logs_of_a_job_that_printed_nothing_say_so_on_stderr(cli: Cli) -> None:
    cli.run()
    done = cli("logs", "tiny")
    assert done.stdout == ""
    assert "has printed nothing in attempt 1" in done.stderr
    assert "worker 1 has printed nothing" in cli("logs", "tiny", "--worker", "1").stderr


def test_the_output_of_a_worker_is_asked_for_by_its_rank(cli: Cli) -> None:
    cli.run("gang", "echo I am $RANK of $WORLD_SIZE", workers=2)
    assert cli("logs", "gang").stdout == "I am 0 of 2\n"
    assert cli("logs", "gang", "--worker", "0").stdout == "I am 0 of 2\n"
    assert cli("logs", "gang", "--worker", "1").stdout == "I am 1 of 2\n"


def test_an_unknown_job_is_102_everywhere_with_the_way_to_the_known_ones(cli: Cli) -> None:
    for words in (["show"], ["why"], ["cancel"], ["logs"], ["logs", "-f"], ["waterfall", "--job"]):
        done = cli(*words, "nope", code=102)
        assert "job 'nope' is not known here" in done.stderr
        assert "hint: artesian jobs" in done.stderr


def test_a_job_is_found_by_its_id_its_beginning_and_its_name(cli: Cli) -> None:
    first, second = cli.submit("tiny"), cli.submit("tiny")
    assert cli.json("show", first)["id"] == first
    assert cli.json("show", first[:-1])["id"] == first
    assert cli.json("show", "tiny")["id"] == second, "of several of one name the latest"
    done = cli("show", "tin", code=102)
    assert first in done.stderr
    assert second in done.stderr


def test_jobs_lists_what_is_there_and_the_last_ten_that_are_over(cli: Cli) -> None:
    assert "no jobs yet" in cli("jobs").stderr
    assert cli.json("jobs") == []
    ids = [cli.submit("tiny") for _ in range(12)]
    for id_ in ids:
        cli.until_in(id_, "succeeded")
    assert [job["id"] for job in cli.json("jobs")] == ids[2:]
    assert [job["id"] for job in cli.json("jobs", "--all")] == ids
    done = cli("jobs")
    assert done.stdout.split()[:5] == ["job", "state", "devices", "attempts", "age"]
    assert done.stderr == "2 more: artesian jobs --all\n"


# -- why, in every state ----------------------------------------------------------------------------


def test_why_a_job_runs_waits_and_is_cancelled_before_it_started(cli: Cli) -> None:
    first = cli.submit("first", UNTIL_TOLD, devices=the_whole_node())
    cli.until_in(first, "running")
    runs = cli.json("why", first)
    assert runs["state"] == "running"
    assert "first in the queue" in runs["reason"]
    assert runs["unblock"] is None

    second = cli.submit("second", devices=the_whole_node())
    until(lambda: cli.journal().jobs[second].hold)
    waits = cli.json("why", second)
    assert waits["state"] == "queued"
    assert "held by first" in waits["reason"]
    assert "free" in waits["unblock"]
    assert "to unblock: " in cli("why", second).stdout
    assert waits["reason"] in cli("show", second).stdout
    logs = cli("logs", second, code=1)
    assert f"hint: artesian why {second}" in logs.stderr

    third = cli.submit("third", devices=the_whole_node())
    until(lambda: f"second ({second}) is ahead of it" in cli.json("why", third)["reason"])

    assert "will not start" in cli("cancel", second).stderr
    assert cli.json("why", second)["reason"] == "a user cancelled it before it started"
    assert f"{second} is cancelled: " in cli("why", second).stdout
    cli.tell()
    cli.until_in(third, "succeeded")
    assert not cli.attempt(second).path.exists()


def test_why_of_a_job_that_runs_says_who_holds_it_up_and_whose_replica_went_apart(cli: Cli) -> None:
    id_ = cli.submit("held-up", UNTIL_TOLD)
    cli.until_in(id_, "running")
    found = cli.json("why", id_)
    assert (found["stragglers"], found["divergences"]) == (None, None), "nobody looks for them"
    now_s = time.time()
    for rank in (1, 0):
        writer = ProgressWriter(worker_file(cli.attempt(id_).progress, rank))
        writer.send(replace(began(rank, now_s), seeks_stragglers=True, checks_replicas=True))
        for number in range(1, 5):
            writer.send(step(rank, number, now_s + number, now_s + number + 1))
        if rank == 0:
            assert cli.json("why", id_)["stragglers"] == []
            writer.send(slow(1, 4, now_s + 5.5, window=4, excess_s=2.0))
            assert cli.json("why", id_)["divergences"] == []
            writer.send(apart((0, 1), 4, now_s + 5.5, is_certain=False))
        writer.close()
    [found] = cli.json("why", id_)["stragglers"]
    assert (found["worker"], found["ratio"], found["wait_s"], found["is_now"]) == (1, 2.0, 2.0, True)
    assert found["since_s"] == pytest.approx(now_s + 1)
    said = cli("why", id_).stdout
    assert f"straggler: worker 1 on {found['place']} computes 2.00 times as long" in said
    assert "to mend: artesian census tells whether the device is slow" in said
    [told] = cli.json("why", id_)["divergences"]
    assert (told["workers"], told["step"], told["is_certain"], told["is_now"]) == ([0, 1], 4, False, True)
    assert "replicas: after step 4, the parameters of workers 0, 1 differ, and no majority says" in said
    assert "to mend: resume it from a checkpoint before step 4" in said
    assert "differ, and no majority says which is right (attempt 1)" in cli("show", id_).stdout.replace(
        "\n", " "
    )
    cli.tell()
    cli.until_in(id_, "succeeded")
    assert cli.json("why", id_)["stragglers"] is None
    assert cli.json("why", id_)["divergences"] is None


def test_why_a_job_stops_and_was_cancelled(cli: Cli) -> None:
    id_ = cli.submit("deaf", f"trap '' TERM; echo ready; {UNTIL_TOLD}", grace="50s")
    cli.until_printed(id_, "ready")
    assert "what has not ended in 50.0 s is killed" in cli("cancel", id_).stderr
    cli.until_in(id_, "stopping")
    assert "cancelled by " in cli.json("why", id_)["reason"]
    assert cli.json("cancel", id_) == {"job": id_, "cancel": "requested"}, "again: nothing changes"
    cli.tell()
    cli.until_in(id_, "cancelled")
    assert "cancelled by " in cli.json("why", id_)["reason"]
    done = cli("cancel", id_, code=1)
    assert f"{id_} is over already: cancelled" in done.stderr


def test_why_a_job_backs_off(cli: Cli) -> None:
    id_ = cli.submit("tiny", "kill -KILL $$", retry={"limit": 3, "backoff": "1h", "max_backoff": "1h"})
    cli.until_in(id_, "backing_off")
    answer = cli.json("why", id_)
    assert "attempt 1 ended with signal; the next one may start in " in answer["reason"]
    assert f"{id_} is backing off: " in cli("why", id_).stdout
    cli("cancel", id_)
    assert cli.is_in(id_) == "cancelled"
    assert cli.json("why", id_)["state"] == "cancelled"


def test_why_a_job_succeeded_and_failed(cli: Cli) -> None:
    cli.run("good")
    assert "has succeeded: completed" in cli("why", "good").stdout
    cli.run("bad", "exit 4", code=100)
    bad = cli.json("why", "bad")
    assert "exit code 4" in bad["reason"]
    assert "not tried again after user_error" in bad["reason"]
    assert bad["unblock"].startswith("artesian logs bad-")
    cli.run("worn-out", "kill -KILL $$", code=100, retry={"limit": 1, "backoff": "0s"})
    assert "the limit of 1 retries is reached" in cli.json("why", "worn-out")["reason"]


def test_why_a_job_waits_that_nobody_has_looked_at_yet(cli: Cli) -> None:
    cli.state.create()
    with cli.state.lock.open("w") as lock:  # no daemon gets it, and so none drives
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = cli.json("why", cli.submit())
    assert answer["state"] == "queued"
    assert answer["reason"] == "the scheduler has not looked at it yet"


# -- how it starts ----------------------------------------------------------------------------------


def test_a_command_that_does_not_exist_fails_clearly(cli: Cli) -> None:
    done = cli.run("tiny", command=["no-such-program", "x"], code=100)
    assert "start failed: command not found: no-such-program" in done.stderr
    assert cli.json("why", "tiny")["unblock"] == "mend the command in the job file, and submit it again"


def test_a_job_runs_in_the_folder_of_its_file_with_its_own_variables(cli: Cli) -> None:
    cli.run("tiny", "pwd; echo $WORD; echo ${SECRET-none}", env={"WORD": "a\nb"})
    assert cli("logs", "tiny").stdout == f"{cli.folder}\na b\nnone\n"


def test_two_submits_at_once_are_two_jobs(cli: Cli) -> None:
    files = [cli.file(name) for name in ("one", "two", "three", "four")]
    running = [cli.start("submit", file) for file in files]
    assert [each.wait() for each in running] == [0, 0, 0, 0]
    ids = [each.stdout.strip() for each in running]
    for id_ in ids:
        cli.until_in(id_, "succeeded")
    assert sorted(job["id"] for job in cli.json("jobs")) == sorted(ids)
    assert len(cli.daemons()) == 1 or until(lambda: len(cli.daemons()) == 1)


def test_a_state_folder_may_lie_deep(tmp_path: Path) -> None:
    folder = tmp_path
    for number in range(4):
        folder /= f"{number}" * 60
    folder.mkdir(parents=True)
    cli = Cli(folder)
    try:
        cli.run("tiny", "echo deep")
        assert cli("logs", "tiny").stdout == "deep\n"
    finally:
        cli.end()


def test_show_tells_all_of_a_job(cli: Cli) -> None:
    cli.run("tiny", "exit 5", code=100, priority=3, team="vision")
    found = cli.json("show", "tiny")
    assert found.keys() == {
        "id", "name", "kind", "state", "team", "user", "priority", "command", "workdir", "grace_s",
        "devices", "submitted_s", "ended_s", "waits_for", "attempts", "training",
        "goodput",
    }  # fmt: skip
    assert (found["priority"], found["team"], found["state"]) == (3, "vision", "failed")
    [attempt] = found["attempts"]
    assert attempt["decided_s"] <= attempt["started_s"] <= attempt["ended_s"]
    assert attempt["outcome"]["cause"] == "user_error"
    text = cli("show", "tiny").stdout
    assert [line.split("  ")[0] for line in text.splitlines()] == [
        "job", "state", "kind", "asked for", "command", "in", "submitted", "attempt 1", "goodput",
    ]  # fmt: skip
    assert json.loads(json.dumps(found)) == found


def test_a_fleet_that_is_full_says_so_to_who_runs_the_next_job(cli: Cli) -> None:
    first = cli.submit("first", UNTIL_TOLD, devices=the_whole_node())
    cli.until_in(first, "running")
    second = cli.start("run", "--no-census", cli.file("second", devices=the_whole_node()))
    second.until_said("waits: ")
    assert "held by first" in second.stderr
    cli.tell()
    assert second.wait() == 0
    assert second.stderr.count("waits: ") == 1
