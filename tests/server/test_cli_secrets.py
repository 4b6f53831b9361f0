"""What is nobody's business: the environment of a job, and every file of the state."""

import os
import stat

from cli_harness import UNTIL_TOLD, Cli, until
from proc import command_line

WHISPER = "xyzzy-not-for-you"


def test_the_environment_of_a_job_is_shown_nowhere(cli: Cli) -> None:
    id_ = cli.submit(
        "tiny", f"echo begun; {UNTIL_TOLD}; [ ${{#TOKEN}} = {len(WHISPER)} ]", env={"TOKEN": WHISPER}
    )
    cli.until_printed(id_, "begun")
    pids = [*cli.attempt(id_).survivors(), *cli.daemons()]
    lines = [line for pid in pids if (line := command_line(pid))]
    assert len(lines) >= 3
    assert all(WHISPER.encode() not in line for line in lines)
    cli.tell()
    cli.until_in(id_, "succeeded")
    for words in (["jobs"], ["show", id_], ["why", id_], ["waterfall"]):
        for form in ("text", "json"):
            done = cli(*words, "-o", form)
            assert WHISPER not in done.stdout + done.stderr, words
    assert WHISPER not in cli("logs", id_).stdout
    assert WHISPER not in cli("run", "--no-census", "tiny.yaml", "-o", "json").stdout
    for path in cli.state.path.rglob("*"):
        if path.is_file() and not path.name.startswith(cli.state.journal.name):
            assert WHISPER.encode() not in path.read_bytes(), path


def test_what_a_job_did_not_ask_for_stays_with_its_submitter(cli: Cli) -> None:
    cli.env["AWS_SECRET_ACCESS_KEY"] = WHISPER
    cli.run("tiny", 'echo "[$AWS_SECRET_ACCESS_KEY]"')
    assert cli("logs", "tiny").stdout == "[]\n"
    cli.end()
    for path in cli.state.path.rglob("*"):
        assert not path.is_file() or WHISPER.encode() not in path.read_bytes(), path


def test_all_of_the_state_is_for_its_user_only(cli: Cli) -> None:
    before = os.umask(0)  # nothing may lean on a umask
    try:
        deaf = cli.submit("deaf", f"trap '' TERM; echo ready; {UNTIL_TOLD}")
        cli.until_printed(deaf, "ready")
        cli("cancel", deaf)
        until((cli.attempt(deaf).path / "stop").exists)
        cli.tell()
        cli.until_in(deaf, "cancelled")
        cli.run("gone", "exit 1", code=100)
        cli("waterfall")
        cli("census", "--no-benchmark")
    finally:
        os.umask(before)
    seen = set()
    for path in [cli.state.path, *cli.state.path.rglob("*")]:
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), path
        seen.add(path.name)
    assert {
        "stdout.log",
        "stderr.log",
        "stop",
        "claim.json",
        "ended.json",
        "daemon.log",
        "checkpoints",
    } <= seen


def test_a_rotated_daemon_log_is_private_too(cli: Cli) -> None:
    cli.state.create()
    cli.state.daemon_log.touch(0o600)
    with cli.state.daemon_log.open("w") as log:
        log.write("x" * 2**20)
    before = os.umask(0)
    try:
        cli.run()
    finally:
        os.umask(before)
    logs = sorted(cli.state.path.glob("daemon.log*"))
    assert len(logs) == 2
    assert [stat.S_IMODE(log.stat().st_mode) for log in logs] == [0o600, 0o600]
