"""``artesian launch``: a torchrun script runs unchanged, and its exit code is ours."""

import json
from pathlib import Path

import pytest

from cli_harness import Cli

SCRIPT = """
import json, os, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
with open(f"rank-{os.environ['RANK']}.json", "w") as file:
    json.dump({"words": sys.argv[1:], **{name: os.environ[name] for name in names}}, file)
sys.exit(int(os.environ.get("CODE", 0)) if os.environ["RANK"] == "0" else 0)
"""


@pytest.fixture
def script(cli: Cli) -> Path:
    path = cli.folder / "train.py"
    path.write_text(SCRIPT)
    return path


def test_a_torchrun_script_runs_unchanged_and_gets_its_words_as_they_are(cli: Cli, script: Path) -> None:
    words = ["--lr", "0.1", "--", "-o", "json", "--help", "--nproc-per-node", "7"]
    cli("launch", "--standalone", "--nproc_per_node=2", script, *words)
    ranks = [json.loads((cli.folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["words"] for rank in ranks] == [words, words]
    assert [(rank["RANK"], rank["LOCAL_RANK"], rank["WORLD_SIZE"]) for rank in ranks] == [
        ("0", "0", "2"),
        ("1", "1", "2"),
    ]
    assert ranks[0]["MASTER_PORT"] == ranks[1]["MASTER_PORT"]
    assert not cli.state.path.exists(), "launching needs no state"


def test_the_code_of_the_worker_that_failed_is_passed_on(cli: Cli, script: Path) -> None:
    assert "exited with code 7" in cli("launch", script, code=7, CODE="7").stderr
    cli("launch", "--no-python", "sh", "-c", "kill -KILL $$", code=137)
    cli("launch", "--no-python", "sh", "-c", "exit 0", code=0)


def test_the_help_and_the_errors_are_those_of_launch(cli: Cli) -> None:
    help_ = cli("launch", "--help").stdout
    assert help_.startswith("usage: artesian launch [OPTIONS] SCRIPT [ARGS]")
    assert "--nproc-per-node" in help_
    assert "SCRIPT" in cli("launch", code=2).stderr
    assert (
        "expected a whole number of at least 1"
        in cli("launch", "--nproc-per-node", "0", "x.py", code=2).stderr
    )


def test_a_script_that_is_not_there_is_refused_before_anything_starts(cli: Cli) -> None:
    refusal = cli("launch", "missing.py", code=2).stderr
    assert refusal.endswith("error: SCRIPT: expected a Python file, found nothing at missing.py\n")
