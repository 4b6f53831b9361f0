"""What a command that only asks a server does not load: half a second of imports is half a second of waiting."""

import subprocess
import sys

import pytest

HEAVY = {"numpy", "torch", "fastapi", "sqlalchemy", "nicegui"}


@pytest.mark.parametrize("name", ["artesian.cli.jobs", "artesian.client", "artesian.cli.remote"])
def test_commands_that_ask_a_server_load_nothing_heavy(name: str) -> None:
    code = f"import sys, {name}; sys.exit(', '.join({HEAVY!r} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
