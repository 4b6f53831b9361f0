"""What recovery costs while nothing fails: the share of a 50 ms step that heartbeats and their thread take.

Two figures. The first is what a worker does per step for its agent, timed alone: one beat and one check. The
second is the processor time of the thread that says "alive", as a share of wall time, from an idle process
with and without it. Both are set against a step of 50 ms. What the agent itself uses is given too: it looks
at two workers' pages four times a second.
"""

import os
import resource
import socket
import time
from collections.abc import Callable, Sequence

import harness
from artesian.train.heartbeat import make_page, read_page
from artesian.train.link import Link
from artesian.train.watchdog import CHECK_EVERY_S, verdict
from harness import Result, measured

_STEP_S = 0.05
_BAR_PERCENT = 1.0


def run(is_quick: bool) -> Sequence[Result]:
    """Measure in this process, with a line to an agent that says nothing."""
    rounds = 10 if is_quick else 50
    page = make_page()
    agent, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    idle = [_cpu_share(0.5) for _ in range(rounds // 5)]
    link = Link(os.dup(page), worker.detach(), 0)
    alive = [_cpu_share(1.0) for _ in range(rounds // 5)]

    def step() -> None:
        link.heart.beat(1)
        link.check()

    def look() -> None:
        now_s = time.monotonic()
        for _ in range(2):
            verdict(read_page(page), now_s)

    in_step = [_each(step) / _STEP_S * 100 for _ in range(rounds)]
    by_thread = [max(0.0, share - min(idle)) * 100 for share in alive]
    by_agent = [_each(look) / CHECK_EVERY_S * 100 for _ in range(rounds)]
    agent.close()
    return [
        measured("a beat and a check, of a 50 ms step", in_step, "%", "lower", bar=_BAR_PERCENT),
        measured("the thread that says alive, of one core", by_thread, "%", "lower", bar=_BAR_PERCENT),
        measured("the agent's look at two workers, of one core", by_agent, "%", "lower", bar=_BAR_PERCENT),
    ]


def _each(act: Callable[[], None]) -> float:
    """Return the seconds of one call, from a thousand."""
    start_s = time.perf_counter()
    for _ in range(1000):
        act()
    return (time.perf_counter() - start_s) / 1000


def _cpu_share(wall_s: float) -> float:
    """Return the share of a core that this process uses while its main thread sleeps."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(wall_s)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / wall_s


if __name__ == "__main__":
    harness.main("overhead", run)
