"""A benchmark that is told to stop leaves no process and no folder behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DEADLINE_S = 60.0

# One child in a session of its own, as an agent is, and one that has lost its parent, as torchrun's workers do.
SCRIPT = """
import signal, subprocess
from processes import folder_in_memory, leaving_nothing

with leaving_nothing(), folder_in_memory("test") as folder:
    node = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    orphan = subprocess.run(["sh", "-c", "sleep 1000 >&2 & echo $!"], stdout=subprocess.PIPE, text=True)
    print(folder, node.pid, orphan.stdout, flush=True)
    while True:
        signal.pause()
"""


def test_nothing_is_left_of_a_benchmark_that_is_told_to_stop(tmp_path: Path) -> None:
    script = tmp_path / "benchmark.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
        stdout=subprocess.PIPE,
        text=True,
    ) as benchmark:
        assert benchmark.stdout is not None
        folder, *pids = benchmark.stdout.readline().split()
        ends = [os.pidfd_open(int(pid)) for pid in pids]
        assert Path(folder).is_dir()
        benchmark.send_signal(signal.SIGTERM)
        assert benchmark.wait(DEADLINE_S) == 128 + signal.SIGTERM
    assert len(ends) == 2
    for end in ends:
        assert select.select([end], [], [], DEADLINE_S)[0], "a process is left"
        os.close(end)
    assert not Path(folder).exists()
