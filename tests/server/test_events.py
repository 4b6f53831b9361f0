"""The journal as a stream, from a real server: an audit trail that a reader who was cut off goes on with."""

import json
import os
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_harness import Served, a_server
from artesian.server.limits import Limits
from cli_harness import TIMEOUT_S, Cli, until

Told = tuple[str, str, dict[str, Any]]
"""Id, name and data of an event."""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    try:
        yield cli
    finally:
        cli.end()


def told(url: str, count: int, *, after: int | None = None, last: str | None = None) -> list[Told]:
    """Read so many events, and hang up."""

    def events(lines: Iterator[str]) -> Iterator[Told]:
        fields: dict[str, str] = {}
        for line in lines:
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}

    params = {} if after is None else {"after": after}
    headers = {} if last is None else {"Last-Event-ID": last}
    with httpx.stream(
        "GET", f"{url}/api/v1/events", params=params, headers=headers, timeout=TIMEOUT_S
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(islice(events(answer.iter_lines()), count))


def test_the_journal_tells_who_asked_for_what_and_a_reader_goes_on_behind_any_event(cli: Cli) -> None:
    server = cli.start("serve", "--port", "0", "--log-json")
    url = until(lambda: server.stdout.strip() or "")
    cli.env["ARTESIAN_SERVER"] = url
    secret = "-".join(("hunter", "2b5e"))
    id_ = cli.submit("audited", "exec sleep 600", env={"TOKEN": secret})
    until(lambda: cli.is_in(id_) == "running")
    cli("cancel", id_)
    cli.until_in(id_, "cancelled")
    count = 6  # the node, the submit, the plan, its start, the cancel, and then a plan or the end
    everything = told(url, count, after=0)
    names = [name for _, name, _ in everything]
    assert names.index("JobSubmitted") < names.index("Plan") < names.index("AttemptStarted")
    by_name = {name: data for _, name, data in everything}
    user = cli.json("show", id_)["user"]
    assert user
    for name in ("JobSubmitted", "CancelRequested"):
        assert (by_name[name]["job"], by_name[name]["user"]) == (id_, user)
    assert secret not in json.dumps(everything)
    for number, (seq, _, _) in enumerate(everything[:-1]):
        assert told(url, count - number - 1, last=seq) == everything[number + 1 :]
    (driver,) = cli.daemons()
    os.kill(driver, signal.SIGKILL)
    until(lambda: server.stderr.endswith("\n"))  # something to log: it starts another one
    server.process.terminate()
    assert server.wait() == 0
    logged = [json.loads(line) for line in server.stderr.splitlines()]
    assert logged
    assert all({"level", "message"} <= entry.keys() for entry in logged), logged[0]
    assert secret not in server.stderr + cli.state.daemon_log.read_text()


def test_more_streams_than_there_may_be_are_refused_and_may_come_back(tmp_path: Path) -> None:
    with a_server(tmp_path, limits=Limits(streams=0)) as served:
        answer = ask_for_events(served)
        assert (answer.status_code, answer.json()["type"]) == (429, "urn:artesian:problem:too-many-requests")
        assert int(answer.headers["retry-after"]) >= 1


def ask_for_events(served: Served) -> httpx.Response:
    return served.http.get("/api/v1/events")
