"""The daemon, killed at a chosen instant.

Each line on stdin is one life of it, ``STATE_DIR IDLE_EXIT_S INSTANT COUNT_FILE`` with tabs between: a process of its
own, forked from this one, which has imported all that it needs. Its exit code is a line on stdout.

Instants are the calls that artesian's own code makes, built-in functions included, counted from the
start of the control plane: each database statement, each file, each signal is one. At instant
number INSTANT the process sends itself SIGKILL. With INSTANT 0 it lives, and writes into COUNT_FILE
how many there were.
"""

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from artesian.server import daemon


def live(state: str, idle_exit_s: str, instant_text: str, count_file: str) -> int:
    """Run the daemon under the counter."""
    instant = int(instant_text)
    passed = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal passed
        if event in ("call", "c_call") and frame.f_globals.get("__name__", "").startswith("artesian."):
            passed += 1
            if passed == instant:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    code = daemon.main([state, idle_exit_s])
    sys.setprofile(None)
    Path(count_file).write_text(str(passed))
    return code


def be_born(words: list[str]) -> int:
    """Live in a new process, without what this one talks on, and return the exit code."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
            code = live(*words)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(f"{be_born(line.rstrip(chr(10)).split(chr(9)))}\n")
        sys.stdout.flush()
