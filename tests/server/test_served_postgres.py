"""Two servers on one database: what is submitted to one is seen at the other, and runs once."""

import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx

from api_harness import JOB, RealServer
from cli_harness import TIMEOUT_S, Cli, until
from proc import command_line, running
from resize_story import resize_story


def drivers(folder: Path) -> list[int]:
    """The processes that drive for servers whose state folders are below ``folder``."""
    return running(b"artesian.server.headless", bytes(folder))


def check_that_a_key_submits_once(urls: Sequence[str]) -> None:
    """Submit under one key at all servers at the same time, again and again."""

    def submit(url: str, key: str) -> str:
        headers = {"Idempotency-Key": key}
        answer = httpx.post(f"{url}/api/v1/jobs", json=JOB, headers=headers, timeout=TIMEOUT_S)
        assert answer.status_code == 201, answer.text
        id_: str = answer.json()["id"]
        return id_

    with ThreadPoolExecutor() as threads:
        for key in ("k1", "k2", "k3", "k4", "k5"):
            ids = list(threads.map(submit, [*urls, *urls], [key] * 4))
            assert len(set(ids)) == 1, ids


def test_two_servers_share_a_database_and_its_url_stays_out_of_the_list_of_processes(
    tmp_path: Path, postgres_url: str
) -> None:
    url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}application_name=xyzzy"
    clis = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cli = Cli(tmp_path / name)
        cli.env["ARTESIAN_DATABASE"] = url
        clis.append(cli)
    servers: list[RealServer] = []
    try:
        servers += [RealServer(cli) for cli in clis]
        for cli, server in zip(clis, servers, strict=True):
            cli.env["ARTESIAN_SERVER"] = server.url
        until(lambda: clis[0]("submit", clis[0].file("early"), code=None).returncode == 0)
        id_ = clis[0].submit("shared", "echo ran >> ran")
        until(lambda: any(job["id"] == id_ for job in clis[1].json("jobs")))
        until(lambda: clis[1].json("show", id_)["state"] == "succeeded")
        assert (tmp_path / "a" / "ran").read_text() == "ran\n"
        assert len(clis[1].json("show", id_)["attempts"]) == 1
        shown = until(
            lambda: both if len(both := [command_line(pid) for pid in drivers(tmp_path)]) == 2 else []
        )
        assert all(shown), "both live"
        assert not any(b"application_name=xyzzy" in words for words in shown)
        check_that_a_key_submits_once([server.url for server in servers])
        made = clis[0].json("token", "create", "--user", "amy", "--role", "admin")
        until(lambda: "asks for a token" in clis[1]("jobs", code=None).stderr)  # it looks once a second
        clis[1].env["ARTESIAN_TOKEN"] = made["secret"]
        assert id_ in clis[1]("jobs").stdout, "made at one server, good at the other"
        servers[0].running.process.kill()
        late = clis[1].submit("late")
        assert clis[1].json("show", late)["state"] in ("queued", "starting", "running", "succeeded")
    finally:
        for server in servers:
            server.stop()
        for cli in clis:
            cli.end()
        for pid in drivers(tmp_path):  # that of a server that was killed goes on without it
            with suppress(ProcessLookupError):  # another one may be leaving
                os.kill(pid, signal.SIGKILL)


def test_a_running_job_is_resized_and_goes_on(tmp_path: Path, postgres_url: str) -> None:
    cli = Cli(tmp_path)
    cli.env["ARTESIAN_DATABASE"] = postgres_url
    server = RealServer(cli)
    try:
        cli.env["ARTESIAN_SERVER"] = server.url
        until(lambda: cli.json("nodes"))
        resize_story(cli)
    finally:
        server.stop()
        cli.end()
