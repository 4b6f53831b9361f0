"""Help, version, completion, and what a command makes of the streams that it finds."""

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

from artesian import __version__
from artesian.cli.main import COMMANDS
from cli_harness import ARTESIAN, Cli

ANSI = "\x1b["
AWKWARD = "[bold]x [/] :bug: \\"
"""What rich would take for markup and emoji, or choke on."""


def on_a_terminal(cli: Cli, *words: str, **env: str) -> str:
    """Return what a command prints on a terminal of 80 columns."""
    main, side = pty.openpty()
    given = {**cli.env, "TERM": "xterm", "COLUMNS": "80", **env}
    process = subprocess.Popen(
        [*ARTESIAN, *words], env=given, cwd=cli.folder, stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    printed = b""
    try:
        while piece := os.read(main, 65536):
            printed += piece
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(main)
    process.wait()
    assert b"Traceback" not in printed
    return printed.decode()


def test_the_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['artesian', '--help']; from artesian.cli.main import _run; _run();"
        "print(*{'numpy', 'torch', 'rich', 'yaml', 'msgspec', 'asyncio', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *said, imported = done.stdout.split("\n")[:-1]
    assert imported == ""
    assert all(any(line.split()[:1] == [name] for line in said) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_fits_80_columns(cli: Cli, name: str) -> None:
    help_ = cli(name, "--help").stdout
    assert help_.lower().startswith(f"usage: artesian {name}")
    assert all(len(line) <= 80 for line in help_.splitlines())
    assert not cli.state.path.exists(), "asking for help leaves nothing behind"


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli("--version").stdout == f"artesian, version {__version__}\n"


def test_without_a_command_the_help_goes_to_stderr_and_the_code_is_2(cli: Cli) -> None:
    done = cli(code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: artesian")


def test_a_wrong_command_gets_the_nearest_right_one_as_a_hint(cli: Cli) -> None:
    assert "did you mean jobs?" in cli("jbos", code=2).stderr
    assert "commands: run, submit" in cli("quux", code=2).stderr


def test_a_wrong_option_is_a_usage_error_with_the_way_to_the_help(cli: Cli) -> None:
    error = cli("jobs", "--nope", code=2).stderr
    assert error.startswith("error: ")
    assert "hint: artesian jobs --help" in error


# -- completion -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete")]
)
def test_completion_prints_a_script_for_the_shell(cli: Cli, shell: str, word: str) -> None:
    assert word in cli("completion", shell).stdout


def test_completion_of_an_unknown_shell_lists_the_known_ones(cli: Cli) -> None:
    assert "'bash', 'zsh', 'fish'" in cli("completion", "tcsh", code=2).stderr


def completed(cli: Cli, *words: str) -> list[str]:
    """Return what a shell would offer for the last word."""
    done = cli(_ARTESIAN_COMPLETE="bash_complete", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1))
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_options_and_job_ids_are_completed(cli: Cli) -> None:
    id_ = cli.submit("tiny")
    assert completed(cli, "artesian", "s") == ["submit", "show", "simulate", "serve"]
    assert completed(cli, "artesian", "run", "--no") == ["--no-census"]
    for command in ("show", "why", "cancel", "logs"):
        assert completed(cli, "artesian", command, "ti") == [id_]
    assert completed(cli, "artesian", "waterfall", "--job", "ti") == [id_]


def test_completion_says_nothing_where_there_is_nothing_to_say(cli: Cli) -> None:
    assert completed(cli, "artesian", "nope", "x") == []
    cli.state.path.write_text("a file")
    assert completed(cli, "artesian", "show", "x") == []


def test_completing_a_command_imports_none_of_them() -> None:
    script = (
        "import sys; from artesian.cli.main import cli; import click;"
        "print(len(cli.shell_complete(click.Context(cli), '')), 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(COMMANDS)), "False"]


# -- streams ----------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_ends_a_command_quietly(cli: Cli) -> None:
    cli.run("tiny", "echo x")
    for words in (
        "jobs",
        "jobs -o json",
        "waterfall",
        "show tiny",
        "logs tiny",
        "--help",
        "census --no-benchmark",
    ):
        done = cli.shell(f"$A {words} | head -0")
        assert done.stderr == "", words


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_disturb_nothing(cli: Cli, closing: str) -> None:
    cli.file("tiny", "echo x; exit 3")
    done = cli.shell(f"$A run --no-census tiny.yaml {closing}")
    assert done.returncode == 100
    assert "Traceback" not in done.stderr
    assert cli("logs", "tiny").stdout == "x\n"


def test_a_full_disk_below_stdout_is_said_once(cli: Cli) -> None:
    cli.run()
    for words in ("jobs", "jobs -o json", "waterfall", "show tiny", "--help"):
        done = cli.shell(f"$A {words} > /dev/full")
        assert done.returncode == 1, words
        assert done.stderr == "error: No space left on device\n", words


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_no_encoding_stops_a_command(cli: Cli, locale: dict[str, Any]) -> None:
    cli.run("tiny", "printf 'gr\\303\\274n \\377'", env={"WORD": "grün"})
    for words in (["--help"], ["waterfall"], ["show", "tiny"], ["census", "--no-benchmark"], ["jobs"]):
        cli(*words, **locale)
    assert json.loads(cli("show", "tiny", "-o", "json", **locale).stdout)["name"] == "tiny"
    raw = subprocess.run([*ARTESIAN, "logs", "tiny"], env={**cli.env, **locale}, capture_output=True)
    assert raw.stdout == b"gr\xc3\xbcn \xff", "what a job printed is handed on as it is"


def test_what_users_write_is_printed_as_they_wrote_it(cli: Cli) -> None:
    long = "x" * 5000
    words = ["sh", "-c", 'printf \'%s\\n\' "$0" "$@"', AWKWARD, "two\nlines", 'quo"te', long]
    done = cli.run("odd", command=words, env={"NOTE": 'a\n"b" [/]'})
    assert AWKWARD in done.stderr
    shown = cli("show", "odd").stdout
    assert AWKWARD in shown
    assert long in shown, "no line is cut, nor wrapped"
    assert cli.json("show", "odd")["command"] == words
    assert AWKWARD in on_a_terminal(cli, "show", "odd").replace("\r\n", "\n")


def test_control_characters_of_a_command_do_not_reach_the_terminal(cli: Cli) -> None:
    cli.submit("odd", "true", command=["true", "\x1b[31mred\x07"])
    shown = on_a_terminal(cli, "show", "odd", NO_COLOR="1")
    assert "\\x1b[31mred\\x07" in shown
    assert "\x1b[31m" not in shown


def test_piped_output_has_neither_colours_nor_cut_lines(cli: Cli) -> None:
    name = "n" * 63
    id_ = cli.submit(name)
    cli.until_in(id_, "succeeded")
    for words in (
        ["jobs"],
        ["show", id_],
        ["why", id_],
        ["waterfall"],
        ["census", "--no-benchmark"],
        ["show", "nope"],
    ):
        done = cli(*words, code=None, COLUMNS="40")
        assert ANSI not in done.stdout + done.stderr
        assert "…" not in done.stdout
    assert id_ in cli("jobs", COLUMNS="40").stdout


def test_a_narrow_terminal_cuts_no_job_id(cli: Cli) -> None:
    id_ = cli.submit("n" * 63)
    for words in (["jobs"], ["show", id_], ["why", id_]):
        assert id_ in on_a_terminal(cli, *words, COLUMNS="40")


def test_a_terminal_gets_colours_unless_it_asks_for_none(cli: Cli) -> None:
    cli.run()
    colour = re.compile(r"\x1b\[(\d+;)*3\d")
    for words in (["show", "nope"], ["waterfall"]):
        assert colour.search(on_a_terminal(cli, *words))
        assert not colour.search(on_a_terminal(cli, *words, NO_COLOR="1"))
        assert ANSI not in on_a_terminal(cli, *words, TERM="dumb")


def test_a_census_without_a_benchmark_finds_the_devices(cli: Cli) -> None:
    found = cli.json("census", "--no-benchmark")
    assert found["host"]["hostname"] == os.uname().nodename
    assert sum(found["devices"].values()) >= 1
    assert found["measurements"] == []
    text = cli("census", "--no-benchmark").stdout
    assert all(name in text for name in found["devices"])


def test_a_census_that_was_never_taken_cannot_be_shown(cli: Cli) -> None:
    assert "hint: artesian census" in cli("census", "--cached", code=1).stderr
