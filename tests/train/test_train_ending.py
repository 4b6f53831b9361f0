"""How forked workers end: as under the interpreter, and well although threads are still in libraries."""

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from artesian.train.standby import Standby

pytest.importorskip("torch")

BUSY_THREADS = """
import threading, time, torch
def compute():
    matrix = torch.ones(100, 100)
    while True:
        torch.mm(matrix, matrix)
for _ in range(4):
    threading.Thread(target=compute, daemon=True).start()
time.sleep(0.3)
"""


def launched(folder: Path, script: str, *, preload: str = "json") -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(script)
    command = [sys.executable, "-m", "artesian.train.launch", "--preload", preload, str(path)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_run_that_is_complete_ends_well_although_a_librarys_threads_still_compute(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(BUSY_THREADS)
    plain = [sys.executable, "plain.py"]
    assert any(
        subprocess.run(plain, cwd=tmp_path, capture_output=True, timeout=120).returncode for _ in range(10)
    ), "the interpreter's own end breaks off now and then, which is why there is another"
    found = launched(tmp_path, BUSY_THREADS, preload="torch")
    assert (found.returncode, found.stderr) == (0, "")


def test_threads_exit_handlers_and_open_files_come_before_the_end(tmp_path: Path) -> None:
    found = launched(
        tmp_path,
        """
import atexit, ctypes, gzip, io, sys, threading, time
text = open("text", "w")
text.write("text")
binary = open("binary", "wb")
binary.write(b"binary")
packed = io.TextIOWrapper(gzip.open("packed.gz", "wb"))
packed.write("packed")
def late():
    time.sleep(0.3)
    print("thread")
threading.Thread(target=late).start()
atexit.register(print, "exit handler")
ctypes.CDLL(None).printf(b"library\\n")
print("script")
""",
    )
    assert (found.returncode, found.stderr) == (0, "")
    said = found.stdout.splitlines()
    assert "library" in said
    assert [line for line in said if line != "library"] == ["script", "thread", "exit handler"]
    assert (tmp_path / "text").read_text() == "text"
    assert (tmp_path / "binary").read_bytes() == b"binary"
    unpacked = subprocess.run(
        ["gzip", "-dc", "packed.gz"], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
    )
    assert unpacked.stdout == "packed"


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [("", 0, ""), ("None", 0, ""), ("7", 7, ""), ("-1", 255, ""), ("'no data'", 1, "no data")],
)
def test_exit_codes_are_the_interpreters(tmp_path: Path, asked: str, code: int, told: str) -> None:
    script = f"import sys\nsys.exit({asked})"
    (tmp_path / "plain.py").write_text(script)
    plain = subprocess.run([sys.executable, "plain.py"], cwd=tmp_path, capture_output=True, timeout=60)
    found = launched(tmp_path, script)
    assert found.returncode == plain.returncode == code
    assert told in found.stderr


def test_an_error_in_an_exit_handler_is_told_and_changes_nothing(tmp_path: Path) -> None:
    script = "import atexit\natexit.register(int, 'x')\natexit.register(print, 'the other')"
    found = launched(tmp_path, script)
    assert (found.returncode, found.stdout) == (0, "the other\n")
    assert "ValueError" in found.stderr


def test_a_template_that_ends_with_requests_unread_is_gone_and_nothing_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        standby = Standby(["no_such_module"], os.environ)
        try:
            standby.fork_store(listener)
            select.select([standby.control], [], [])
            assert standby.take() is None
            assert not standby.is_alive
        finally:
            standby.close()
