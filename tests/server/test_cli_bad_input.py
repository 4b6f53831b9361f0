"""Bad input: a clear error that says what to do, and nothing is lost or half-done."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cli_harness import Cli, until
from limits import needs

FIVE_MISTAKES = """\
nam: five
devices: H100:x
command: [python, train.py]
workers: -1
retry: {limit: many}
grace: 10
name: five
"""


# -- the job file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "submit"])
def test_all_mistakes_of_a_job_file_are_listed_with_their_lines_and_nothing_is_submitted(
    cli: Cli, command: str
) -> None:
    (cli.folder / "five.yaml").write_text(FIVE_MISTAKES)
    done = cli(command, "five.yaml", code=2)
    lines = done.stderr.splitlines()
    assert lines[0] == "error: five.yaml has 5 mistakes"
    where = [line.split(": ")[:2] for line in lines if line.startswith("five.yaml:")]
    assert where == [
        ["five.yaml:1:1", "nam"],
        ["five.yaml:2:10", "devices"],
        ["five.yaml:4:10", "workers"],
        ["five.yaml:5:16", "retry.limit"],
        ["five.yaml:6:8", "grace"],
    ]
    assert "    hint: did you mean name?" in done.stderr
    assert done.stdout == ""
    assert cli.json("jobs") == []
    assert not cli.daemons()


def test_one_mistake_is_one_line_and_its_hint(cli: Cli) -> None:
    (cli.folder / "one.yaml").write_text("name: a\ndevices: 1\ncommand: [x]\ngrace: 10\n")
    error, hint = cli("submit", "one.yaml", code=2).stderr.splitlines()
    assert error.startswith("error: one.yaml:4:8: grace: expected a number with a unit")
    assert hint.startswith("hint: write grace: 10s")


def test_malformed_yaml_is_refused_with_its_line(cli: Cli) -> None:
    (cli.folder / "bad.yaml").write_text("name: [a\n  b: c")
    assert "error: bad.yaml:2:4: yaml: " in cli("run", "bad.yaml", code=2).stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "missing.yaml: No such file or directory"),
        (b"", "expected a job, got an empty file"),
        (b"a: \xff\n", "expected UTF-8 text, got byte 0xff at offset 3"),
        (b"#" * (2**20 + 1), "expected at most 1 MiB, got more"),
        (b"name: a\0b\n", "got the character"),
    ],
)
def test_a_file_that_is_no_job_file_is_refused(cli: Cli, content: bytes | None, said: str) -> None:
    if content is not None:
        (cli.folder / "missing.yaml").write_bytes(content)
    done = cli("submit", "missing.yaml", code=2)
    assert said in done.stderr
    assert "hint: " in done.stderr or content is not None
    assert cli.json("jobs") == []


def test_a_folder_is_no_job_file(cli: Cli) -> None:
    assert f"job file {cli.folder}: Is a directory" in cli("run", cli.folder, code=2).stderr


def test_a_job_file_may_come_through_a_pipe(cli: Cli) -> None:
    cli.file("tiny", "echo piped")
    done = cli.shell("$A run --no-census <(cat tiny.yaml)")
    assert done.returncode == 0, done.stderr
    assert cli("logs", "tiny").stdout == "piped\n"


def test_a_job_larger_than_the_fleet_is_refused_with_what_the_fleet_has(cli: Cli) -> None:
    error, hint = cli("submit", cli.file(devices=999_999), code=1).stderr.splitlines()
    assert "job tiny cannot run here" in error
    assert "the whole fleet could give it" in error
    assert hint.startswith("hint: ask for at most")
    assert cli.json("jobs") == []
    done = cli("run", cli.file(devices="MI300X:1"), code=1)
    assert "the fleet has" in done.stderr
    assert "census" not in done.stderr, "it is refused before anything is measured"


def test_where_a_picture_cannot_go_is_said_before_the_job_runs(cli: Cli) -> None:
    file = cli.file()
    assert "expected a file that ends in .svg or .png" in cli("run", file, "--plot", "x.pdf", code=1).stderr
    assert "no folder" in cli("run", file, "--plot", "no/x.svg", code=1).stderr
    assert "no folder" in cli("waterfall", "--plot", "no/x.svg", code=1).stderr
    assert cli.json("jobs") == []


@pytest.mark.parametrize("since", ["5", "-5m", "soon", ""])
def test_a_duration_without_a_unit_is_a_usage_error(cli: Cli, since: str) -> None:
    assert "expected a number with a unit" in cli("waterfall", f"--since={since}", code=2).stderr


def test_a_window_is_chosen_in_one_way(cli: Cli) -> None:
    assert "leave one out" in cli("waterfall", "--since", "5m", "--job", "x", code=2).stderr


# -- the state folder -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "actual"),
    [("a-file", "a file"), ("a-file/below", "Not a directory"), ("/proc/nowhere", "No such file")],
)
def test_a_state_folder_that_cannot_be_is_named_with_the_variable_to_set(
    cli: Cli, folder: str, actual: str
) -> None:
    (cli.folder / "a-file").touch()
    for words in (["jobs"], ["submit", cli.file()], ["waterfall"]):
        error, hint = cli(*words, code=1, ARTESIAN_STATE=folder).stderr.splitlines()
        assert error.startswith("error: state folder ")
        assert f"expected a folder that can be written, got: {actual}" in error
        assert hint == "hint: set ARTESIAN_STATE to a folder of yours"


def test_a_read_only_state_folder_is_refused(cli: Cli) -> None:
    with small_disk(cli.state.path, options="ro"):
        for words in (["jobs"], ["submit", cli.file()]):
            error = cli(*words, code=1).stderr
            assert "expected a folder that can be written, got: " in error


def test_the_state_goes_below_the_xdg_folder_unless_it_is_named(cli: Cli) -> None:
    cli("jobs", ARTESIAN_STATE="", XDG_STATE_HOME=str(cli.folder / "xdg"))
    assert (cli.folder / "xdg" / "artesian").is_dir()
    cli("jobs", ARTESIAN_STATE="", HOME=str(cli.folder / "home"))
    assert (cli.folder / "home" / ".local" / "state" / "artesian").is_dir()


# -- a full disk ------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, *, options: str) -> Iterator[None]:
    """A file system of its own at ``folder``."""
    needs(os.geteuid() == 0, "root, to mount a small file system")
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Take all the space that is left."""
    piece = b"\0" * 65536
    with path.open("wb", buffering=0) as file:
        while piece:
            try:
                file.write(piece)
            except OSError:
                piece = piece[: len(piece) // 2]


def test_on_a_full_disk_a_submit_fails_clearly_and_when_there_is_space_again_all_works(cli: Cli) -> None:
    with small_disk(cli.state.path, options="size=2m"):
        first = cli.submit("first")
        cli.until_in(first, "succeeded")
        cli.end()
        fill(cli.state.path / "filler")
        refused = 0
        # A page of the -wal may have room for a record still: that one is accepted, and has to run later.
        accepted = [first]
        while refused < 3:
            done = cli("submit", cli.file("more", env={"PADDING": "x" * 2000}), code=None)
            if done.returncode == 0:
                accepted.append(done.stdout.strip())
                continue
            refused += 1
            assert done.returncode == 1
            assert done.stdout == ""
            assert done.stderr.startswith("error: ")
            assert "full" in done.stderr or "No space left" in done.stderr
            assert "hint: " in done.stderr
        (cli.state.path / "filler").unlink()
        assert [job["id"] for job in cli.json("jobs", "--all")] == accepted, "nothing is half-accepted"
        cli.run("last", "echo works")
        for id_ in accepted:
            cli.until_in(id_, "succeeded")
        assert cli("logs", "last").stdout == "works\n"
        cli.end()


def test_a_disk_that_fills_up_under_a_running_job_loses_neither_job_nor_outcome(cli: Cli) -> None:
    with small_disk(cli.state.path, options="size=2m"):
        id_ = cli.submit(
            "greedy", "echo run >> starts; cat /dev/zero > $ARTESIAN_CHECKPOINT_DIR/fill; exit 9"
        )
        until(lambda: cli.attempt(id_).ended())
        (cli.state.jobs / id_ / "checkpoints" / "fill").unlink()
        assert "exit code 9" in cli("logs", "-f", id_, code=100).stderr
        assert (cli.folder / "starts").read_text() == "run\n"
        cli.end()


# -- the journal ------------------------------------------------------------------------------------


def with_three_records(cli: Cli) -> Path:
    """Leave a journal with at least three records that nobody holds open."""
    cli.until_in(cli.submit(), "succeeded")
    cli.end()
    return cli.state.journal


def damage(journal: Path, sql: str) -> None:
    """Change the journal behind its back."""
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute(sql)


def content(journal: Path) -> list[str]:
    """Return all that the journal says. Its bytes may change without that, when SQLite tidies its files up."""
    with closing(sqlite3.connect(journal)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return [f"version {version}", *connection.iterdump()]


def test_a_torn_last_record_is_set_aside_with_a_warning_and_the_command_goes_on(cli: Cli) -> None:
    journal = with_three_records(cli)
    damage(journal, "UPDATE records SET body = substr(body, 1, 9) WHERE seq = (SELECT max(seq) FROM records)")
    done = cli("jobs")
    assert done.stderr.startswith(f"warning: journal {journal}: record ")
    assert "is damaged" in done.stderr
    assert done.stderr.count("warning: ") == 1
    assert "tiny-" in done.stdout
    assert cli("jobs").stderr == "", "it is said once"
    cli.until_in(next(iter(cli.journal().jobs)), "succeeded")  # the engine tells again what was lost


def test_damage_in_the_middle_is_refused_with_its_position(cli: Cli) -> None:
    journal = with_three_records(cli)
    damage(journal, "UPDATE records SET body = substr(body, 1, 9) WHERE seq = 2")
    for words in (["jobs"], ["submit", cli.file()], ["waterfall"]):
        error, hint = cli(*words, code=1).stderr.splitlines()
        assert error.startswith(f"error: journal {journal}: record 2 is damaged")
        assert "keep the damaged file aside" in hint


def test_a_file_that_is_no_journal_is_left_as_it_is(cli: Cli) -> None:
    cli.state.create()
    cli.state.journal.write_bytes(b"my diary\n" * 500)
    assert f"error: journal {cli.state.journal}" in cli("jobs", code=1).stderr
    assert cli.state.journal.read_bytes() == b"my diary\n" * 500


def test_the_state_of_a_newer_artesian_is_refused_and_left_alone(cli: Cli) -> None:
    journal = with_three_records(cli)
    damage(journal, "PRAGMA user_version = 999")
    before = content(journal)
    for words in (["jobs"], ["submit", cli.file()]):
        error, hint = cli(*words, code=1).stderr.splitlines()
        assert "needs another version of artesian: it has schema version 999" in error
        assert hint == "hint: use the version that wrote it, or a later one; this one would misread it"
    assert content(journal) == before


def test_a_broken_census_is_no_reason_to_fail(cli: Cli) -> None:
    cli.run()
    cli.state.census.write_text("not a census")
    cli("waterfall")
    cli("show", "tiny")
    assert "no census was taken" in cli("census", "--cached", code=1).stderr
