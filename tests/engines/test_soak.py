"""The soak, in small: the same benchmark that runs for an hour, on a few nodes and for some seconds."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import postgres_server
from cli_harness import until
from limits import needs
from proc import running

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(autouse=True)
def services() -> None:
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    missing = [name for name in ("slurmctld", "slurmd", "flock") if shutil.which(name, path=path) is None]
    needs(not missing, f"{', '.join(missing)}: see scripts/services.sh")
    needs(postgres_server.programs() is not None, "PostgreSQL's server programs")


def words(minutes: float) -> list[str]:
    return [
        sys.executable,
        str(SOAK),
        "--minutes",
        str(minutes),
        "--nodes",
        "6",
        "--seed",
        "25",
        "-o",
        "json",
    ]


@pytest.mark.slow
def test_nothing_is_lost_or_runs_twice_while_nodes_and_leaders_die() -> None:
    done = subprocess.run(words(0.3), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = {entry["case"]: entry["value"] for entry in json.loads(done.stdout)["results"]}
    assert found["jobs"] > 0
    assert found["node kills"] > 0
    assert found["leader kills"] > 0
    assert found["jobs lost"] == found["attempts that ran twice, or two at once"] == 0


@pytest.mark.slow
def test_a_soak_that_is_told_to_stop_leaves_nothing_behind() -> None:
    with tempfile.TemporaryDirectory(prefix="artesian-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)  # PostgreSQL's user gets through it
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": name}
        with (place / "err").open("wb") as err:
            process = subprocess.Popen(words(5.0), stdout=subprocess.DEVNULL, stderr=err, env=env)
        until(lambda: "soaking" in (place / "err").read_text() or process.poll() is not None)
        (folder,) = place.glob("artesian-soak-*")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143, (place / "err").read_text()
        assert not folder.exists()
    assert running(bytes(folder)) == []
