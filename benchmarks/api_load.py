"""Loads a server at a fixed rate, in a process of its own: ``python benchmarks/api_load.py URL RATE SECONDS``.

Requests are sent when they are due, whether earlier ones were answered or not, and a latency counts from when
its request was due: so a server that stands still shows it (no coordinated omission). Answers are not looked
into beyond their status, and TCP streams are used as they are, so that this takes little of a core. Prints JSON:
the latencies in milliseconds, by kind, and the CPU time that this process used meanwhile.
"""

import asyncio
import json
import random
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable

_JOB = json.dumps(
    {"name": "load", "devices": "H100:8", "command": ["python", "train.py"], "workdir": "/data/load"}
).encode()
_SUBMIT_SHARE = 0.25
_CONNECTIONS = 64


def _read(path: str) -> bytes:
    return f"GET /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def _submit() -> bytes:
    head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(_JOB)}\r\n\r\n"
    return head.encode() + _JOB


READS: dict[str, Callable[[random.Random], str]] = {
    "list": lambda _: "/jobs?limit=100",
    "list of a team": lambda chance: f"/jobs?team=team-{chance.randrange(20)}&state=queued&limit=100",
    "show": lambda chance: f"/jobs/queued-{chance.randrange(100_000):06}",
    "why": lambda chance: f"/jobs/queued-{chance.randrange(100_000):06}/why",
    "queue": lambda _: "/queue",
    "fleet": lambda _: "/fleet",
    "nodes": lambda _: "/nodes?limit=100",
}


class _Pool:
    """Keeps connections open; one more is made when all are in use.

    The one that was idle for longest is used next: a server closes those that nobody uses for seconds.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def warm(self, count: int) -> None:
        self._free.extend([await asyncio.open_connection(self._host, self._port) for _ in range(count)])

    async def ask(self, request: bytes) -> int:
        """Send a request, take the whole answer, and return its status."""
        reader, writer = (
            self._free.popleft() if self._free else await asyncio.open_connection(self._host, self._port)
        )
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)
        self._free.append((reader, writer))
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def load(host: str, port: int, rate: float, seconds: float) -> dict[str, list[float]]:
    """Return the latencies of all requests by kind, in milliseconds."""
    pool = _Pool(host, port)
    await pool.warm(_CONNECTIONS)
    chance = random.Random(0)
    latencies: dict[str, list[float]] = defaultdict(list)
    begun_s = time.perf_counter() + 0.1

    async def one(number: int) -> None:
        if chance.random() < _SUBMIT_SHARE:
            kind, request, right = "submit", _submit(), 201
        else:
            name = chance.choice(list(READS))
            kind, request, right = f"read: {name}", _read(READS[name](chance)), 200
        due_s = begun_s + number / rate
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        status = await pool.ask(request)
        if status != right:
            raise RuntimeError(f"{kind}: expected status {right}, got {status}")
        latencies[kind].append((time.perf_counter() - due_s) * 1000)

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            group.create_task(one(number))
    pool.close()
    return latencies


if __name__ == "__main__":
    address, port_, rate_, seconds_ = sys.argv[1:]
    begun_cpu_s = time.process_time()
    found = asyncio.run(load(address, int(port_), float(rate_), float(seconds_)))
    print(json.dumps({"latencies_ms": found, "cpu_s": time.process_time() - begun_cpu_s}))
