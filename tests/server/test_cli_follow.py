"""Following a job through Ctrl-C, cancels, retries and the death of the daemon."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from cli_harness import UNTIL_TOLD, Cli, until

STARTS = "echo $ARTESIAN_EPOCH >> starts; "
"""A script's note of every time that it ran."""


def starts(cli: Cli) -> list[str]:
    return (cli.folder / "starts").read_text().split()


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(cli: Cli) -> None:
    run = cli.start(
        "run", "--no-census", cli.file("tiny", f"{STARTS}echo begun; {UNTIL_TOLD}; echo done; exit 3")
    )
    run.until_said("begun")
    run.interrupt()
    assert run.wait() == 130
    [id_] = cli.journal().jobs
    assert f"interrupted; {id_} goes on without you" in run.stderr
    assert f"come back:  artesian logs -f {id_}\n" in run.stderr
    assert f"stop it:    artesian cancel {id_}\n" in run.stderr
    assert run.stdout == ""
    cli.until_in(id_, "running")
    cli.tell()
    back = cli("logs", "-f", id_, code=100)
    assert back.stdout == "begun\ndone\n"
    assert "exit code 3" in back.stderr
    assert starts(cli) == ["1"]


def test_ctrl_c_on_the_terminal_of_a_follower_does_not_reach_the_job(cli: Cli) -> None:
    run = cli.start("run", "--no-census", cli.file("tiny", f"echo begun; {UNTIL_TOLD}"))
    run.until_said("begun")
    [id_] = cli.journal().jobs
    claim = cli.attempt(id_).claim()
    assert claim is not None
    assert os.getsid(claim.pid) != os.getsid(run.process.pid)
    assert os.getpgid(claim.pid) != os.getpgid(run.process.pid)
    cli.tell()
    assert run.wait() == 0


def test_ctrl_c_while_following_with_logs_is_130_too(cli: Cli) -> None:
    id_ = cli.submit("tiny", f"echo begun >&2; {UNTIL_TOLD}")
    logs = cli.start("logs", "-f", id_)
    logs.until_said("begun")
    logs.interrupt()
    assert logs.wait() == 130
    assert "goes on without you" in logs.stderr
    cli.tell()
    assert cli.until_in(id_, "succeeded")


def test_ctrl_c_during_the_census_submits_nothing(cli: Cli) -> None:
    run = cli.start("run", cli.file())
    run.until_said("taking a census of this machine")
    run.interrupt()
    assert run.wait() == 130
    assert "interrupted; nothing was submitted" in run.stderr
    assert cli.json("jobs") == []
    assert not cli.state.census.exists()


def test_ctrl_c_is_130_wherever_it_meets_a_command(tmp_path: Path) -> None:
    # Of a Ctrl-C within source that is executed as a string, such as a dataclass's, Python would die in the end,
    # where a module is what it runs.
    (tmp_path / "interrupted.py").write_text(
        "from artesian.cli import main\n"
        "main.cli.main = lambda **_: exec('raise KeyboardInterrupt')\n"
        "main.main()\n"
    )
    words = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_job_that_is_cancelled_while_it_is_followed_ends_the_follower_with_103(cli: Cli) -> None:
    run = cli.start("run", "--no-census", cli.file("tiny", "echo begun; exec sleep 600"))
    run.until_said("begun")
    [id_] = cli.journal().jobs
    cli("cancel", id_)
    assert run.wait() == 103
    assert "attempt 1 ended: cancelled" in run.stderr
    assert "cancelled after" in run.stderr
    assert run.stdout.startswith("Waterfall")
    assert cli("logs", "-f", id_, code=103).stdout == "begun\n"


def test_a_job_that_is_tried_again_is_followed_through_both_attempts(cli: Cli) -> None:
    script = 'echo "this is $ARTESIAN_EPOCH"; [ $ARTESIAN_EPOCH = 2 ] || kill -KILL $$'
    done = cli.run("tiny", script, retry={"limit": 1, "backoff": "10ms"})
    told = [line.partition(" on ")[0].partition(" after ")[0] for line in done.stderr.splitlines()]
    id_ = next(iter(cli.journal().jobs))
    order = [
        f"{id_} started",
        "this is 1",
        f"{id_} attempt 1 ended: signal: the command was ended by SIGKILL; it is tried again",
        f"{id_} attempt 2 started",
        "this is 2",
        f"{id_} attempt 2 ended: completed",
        f"{id_} succeeded",
    ]
    assert [line for line in told if line in order] == order
    assert cli("logs", "-f", id_).stdout == "this is 1\nthis is 2\n"


def test_a_daemon_that_is_killed_is_revived_by_the_follower_and_the_job_runs_once(cli: Cli) -> None:
    script = f"{STARTS}echo begun; {UNTIL_TOLD}; exit 7"
    run = cli.start("run", "--no-census", cli.file("tiny", script))
    run.until_said("begun")
    first = cli.kill_daemon()
    until(lambda: cli.state.lock.read_text() not in ("", f"{first}\n"))
    cli.tell()
    assert run.wait() == 100
    assert "exit code 7" in run.stderr
    assert starts(cli) == ["1"]
    [job] = cli.json("jobs")
    assert [attempt["outcome"]["exit_code"] for attempt in job["attempts"]] == [7]


def test_a_job_that_ended_while_no_daemon_lived_has_its_outcome_at_the_next_command(cli: Cli) -> None:
    id_ = cli.submit("tiny", f"{STARTS}echo begun; {UNTIL_TOLD}; exit 7")
    cli.until_printed(id_, "begun")
    cli.until_in(id_, "running")
    cli.kill_daemon()
    cli.tell()
    until(lambda: cli.attempt(id_).ended())
    cli("jobs")  # is enough to wake it
    cli.until_in(id_, "failed")
    assert cli.json("show", id_)["attempts"][0]["outcome"]["exit_code"] == 7
    assert starts(cli) == ["1"]


def test_a_daemon_that_cannot_live_ends_the_follower_with_its_last_words(cli: Cli) -> None:
    cli.state.create()
    cli.state.bell.mkdir()  # no FIFO can be made there
    done = cli.run(code=1)
    assert "the control plane's daemon ended 5 times" in done.stderr
    assert f"hint: see {cli.state.daemon_log}" in done.stderr
    cli.state.bell.rmdir()
    [id_] = cli.journal().jobs
    assert cli("logs", "-f", id_).returncode == 0, "what was accepted is done as soon as that is possible"


def test_a_daemon_with_nothing_to_do_leaves_and_the_next_submit_starts_another(cli: Cli) -> None:
    cli.state.create()
    words = [sys.executable, "-m", "artesian.server.daemon", str(cli.state.path), "0.1"]
    assert subprocess.run(words, check=True, env=cli.env).returncode == 0
    assert not cli.daemons()
    cli.run("tiny", "echo works")
    assert cli("logs", "tiny").stdout == "works\n"


def test_a_second_daemon_leaves_at_once_when_the_first_is_done(cli: Cli) -> None:
    cli.state.create()
    words = [sys.executable, "-m", "artesian.server.daemon", str(cli.state.path), "0.1"]
    with cli.state.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert subprocess.run(words, check=True, env=cli.env).returncode == 0, "one lives already"
    assert not cli.state.journal.exists(), "it has touched nothing"


def test_sigterm_ends_the_daemon_and_leaves_its_jobs_running(cli: Cli) -> None:
    id_ = cli.submit("tiny", f"{STARTS}echo begun; {UNTIL_TOLD}")
    cli.until_in(id_, "running")
    os.kill(int(cli.state.lock.read_text()), signal.SIGTERM)
    until(lambda: not cli.daemons())
    assert "told to stop; attempts run on" in cli.state.daemon_log.read_text()
    claim = cli.attempt(id_).claim()
    assert claim is not None
    assert claim.is_alive
    cli.tell()
    assert cli("logs", "-f", id_).returncode == 0
    assert starts(cli) == ["1"]
