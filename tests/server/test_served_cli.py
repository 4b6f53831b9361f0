"""The same commands with the embedded control plane and with a server: the same results."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_harness import JOB, RealServer
from cli_harness import ARTESIAN, TIMEOUT_S, UNTIL_TOLD, Cli, the_whole_node, until
from ports import free_port
from resize_story import resize_story


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    own = Cli(tmp_path_factory.mktemp("server"))
    server = RealServer(own)
    try:
        yield server
        assert server.stop() == 0, server.running.stderr
        assert "Traceback" not in server.running.stderr
    finally:
        server.running.process.kill()
        own.end()


@pytest.fixture(params=["embedded", "served"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    """The command line with its own state folder, or asking a server that knows nothing of the folder."""
    cli = Cli(tmp_path)
    if request.param == "served":
        server: RealServer = request.getfixturevalue("server")
        cli.env["ARTESIAN_SERVER"] = server.url
        cli.env["ARTESIAN_STATE"] = str(tmp_path / "not-used")
    try:
        yield cli
        if request.param == "served":
            assert not (tmp_path / "not-used").exists()
    finally:
        cli.end()


def until_state(cli: Cli, job: str, *states: str) -> None:
    until(lambda: cli.json("show", job)["state"] in states)


def test_a_job_from_its_submit_to_its_end(either: Cli) -> None:
    done = either("submit", either.file("first", "echo out; echo err >&2"))
    id_ = done.stdout.strip()
    assert id_.startswith("first-")
    followed = either("logs", "-f", id_)
    assert followed.stdout == "out\n"
    assert "err\n" in followed.stderr
    assert f"{id_} started on" in followed.stderr
    assert f"{id_} succeeded after" in followed.stderr
    found = either.json("show", id_)
    assert (found["state"], found["team"], found["waits_for"]) == ("succeeded", "default", None)
    assert found["workdir"] == str(either.folder)
    assert either.json("why", id_) == {
        "job": id_, "state": "succeeded", "reason": "completed", "unblock": None,
        "nearest_start_s": None, "would_start": [], "stragglers": None, "divergences": None,
    }  # fmt: skip
    assert id_ in [job["id"] for job in either.json("jobs")]
    assert id_ in either("jobs").stdout
    assert either("logs", id_).stdout == "out\n"
    assert either("logs", id_).stderr == "err\n"


def test_a_run_prints_the_waterfall_and_ends_with_the_jobs_code(either: Cli) -> None:
    done = either.run("fails", "echo no good >&2; exit 3", code=100)
    assert "no good\n" in done.stderr
    assert "exit code 3" in done.stderr
    assert done.stdout.startswith("Waterfall in device-")
    found = either.json("run", "--no-census", either.file("good"))
    assert found.keys() == {"job", "training", "goodput", "waterfall"}
    stages = found["waterfall"]["stages"]
    assert [stage["name"] for stage in stages] == ["healthy", "allocated", "productive", "model_flops"]
    assert either.json("waterfall")["unit"] == "device_seconds"
    assert either.json("waterfall", "--job", found["job"]["id"])["nameplate"] > 0


def test_logs_are_the_bytes_that_the_job_wrote(either: Cli) -> None:
    either.run("bytes", "printf 'a\\000\\377\\r\\n\\342\\200\\250\\033[31mred'; printf 'err' >&2")
    for words in (["logs", "bytes"], ["logs", "-f", "bytes"]):
        raw = subprocess.run([*ARTESIAN, *words], env=either.env, capture_output=True, check=True)
        assert raw.stdout == b"a\x00\xff\r\n\xe2\x80\xa8\x1b[31mred"
        assert b"err" in raw.stderr


def test_attempts_are_followed_one_after_the_other(either: Cli) -> None:
    script = 'echo "number $ARTESIAN_EPOCH"; [ $ARTESIAN_EPOCH = 2 ] || kill -KILL $$'
    done = either.run("again", script, retry={"limit": 1, "backoff": "0s"})
    assert (
        done.stderr.index("number 1") < done.stderr.index("it is tried again") < done.stderr.index("number 2")
    )
    assert either("logs", "again", "--attempt", "1").stdout == "number 1\n"
    assert "expected an attempt up to 2, got 3" in either("logs", "again", "--attempt", "3", code=1).stderr


def test_a_cancel_stops_a_job_and_a_second_one_says_that_it_is_over(either: Cli) -> None:
    id_ = either.submit("long", f"echo begun; {UNTIL_TOLD}")
    until(lambda: "begun" in either("logs", id_, code=None).stdout)
    follower = either.start("logs", "-f", id_)
    follower.until_said("started on")
    assert "is being stopped" in either("cancel", id_).stderr
    assert follower.wait() == 103
    until_state(either, id_, "cancelled")
    again = either("cancel", id_, code=1)
    assert f"job {id_} is over already: cancelled" in again.stderr
    assert f"hint: artesian show {id_}" in again.stderr


def test_an_unknown_job_is_102_with_the_way_to_the_known_ones(either: Cli) -> None:
    for words in (["show"], ["why"], ["cancel"], ["logs"], ["logs", "-f"], ["waterfall", "--job"]):
        done = either(*words, "nope", code=102)
        assert "job 'nope' is not known here" in done.stderr
        assert "hint: artesian jobs" in done.stderr


def test_mistakes_in_a_file_are_told_in_the_same_words(either: Cli) -> None:
    path = either.folder / "bad.yaml"
    path.write_text("name: Bad Name\ndevices: 1\ncommand: 'true'\ntypo: 1\n")
    done = either("submit", path, code=2)
    assert f"{path} has 2 mistakes" in done.stderr
    assert f"{path}:1:7: name: expected at most 63" in done.stderr
    assert f"{path}:4:" in done.stderr
    impossible = either("submit", either.file("huge", devices=100_000), code=1)
    assert "job huge cannot run here" in impossible.stderr


def test_a_job_gets_the_environment_of_its_submitter_and_no_more(either: Cli) -> None:
    either.env["LC_TEST"], either.env["AWS_SECRET_ACCESS_KEY"] = "yes", "xyzzy"
    either.run("env", 'echo "[$LC_TEST$AWS_SECRET_ACCESS_KEY$ARTESIAN_TOKEN]"')
    assert either("logs", "env").stdout == "[yes]\n"


def test_the_moves_that_would_let_a_waiting_job_start_are_listed_and_not_made(either: Cli) -> None:
    assert either.json("moves")["moves"] == []
    assert "no move would let a waiting job start" in either("moves").stderr
    kind, _, devices = the_whole_node().rpartition(":")
    halves = [
        either.submit(f"half{number}", UNTIL_TOLD, devices=f"{kind}:0.5", checkpoint={"every": "10m"})
        for number in range(2 * int(devices))
    ]

    def listed(*states: str) -> dict[str, Any]:
        found = {job["id"]: job for job in either.json("jobs")}
        is_so = {found[half]["state"] for half in halves} <= set(states)
        return {half: found[half] for half in halves} if is_so else {}

    jobs = until(lambda: listed("running"))
    place = {half: job["attempts"][0]["placement"][0]["devices"] for half, job in jobs.items()}
    same = [half for half in halves if place[half] == place[halves[0]]]
    gone = [same[1], next(half for half in halves if half not in same)]
    whole = either.submit("whole", devices=f"{kind}:1")
    for half in gone:
        either("cancel", half)
    until(lambda: sum(job["state"] == "cancelled" for job in listed("running", "cancelled").values()) == 2)
    found = either.json("moves")
    assert not found["by_itself"]
    (move,) = found["moves"]
    assert (move["kind"], move["lets_start"], move["starts_on"]) == ("moves", whole, move["now"])
    assert move["job"] in halves
    assert move["lost_device_s"] == move["lost_s"] / 2 < 300.0
    assert move["cost_device_s"] == pytest.approx(move["lost_device_s"] + 30.0)
    assert move["standing"] == "held_back"
    assert "left alone for another" in move["held_back_by"]
    told = either("moves")
    assert f"{whole}  {move['now']}  held back: has not run for long" in told.stdout
    assert "1 move would let 1 waiting job start" in told.stderr
    assert either.json("show", move["job"])["state"] == "running", "nobody was moved"
    either("cancel", whole)
    either.tell()
    until(lambda: listed("succeeded", "cancelled"))


def test_the_server_that_the_settings_name_is_asked_and_one_that_is_gone_is_named(
    server: RealServer, tmp_path: Path
) -> None:
    cli = Cli(tmp_path)
    cli.configure(f'server = "{server.url}"\n')
    id_ = cli.submit("set")
    assert id_ in server.cli("jobs").stdout, "the server's own state folder has it"
    cli.env["ARTESIAN_SERVER"] = "http://127.0.0.1:9"
    done = cli("jobs", code=1)
    assert "server http://127.0.0.1:9 cannot be reached" in done.stderr
    assert "expected an address such as https://" in cli("jobs", code=1, ARTESIAN_SERVER="nonsense").stderr


def test_tokens_close_the_server_and_are_told_once(tmp_path: Path) -> None:
    own = Cli(tmp_path)
    server = RealServer(own)
    try:
        admin = own("token", "create", "--user", "amy", "--role", "admin").stdout.strip()
        own.env["ARTESIAN_SERVER"] = server.url
        assert "this server asks for a token" in own("jobs", code=1).stderr
        own.env["ARTESIAN_TOKEN"] = admin
        assert own.json("jobs") == []
        made = own.json("token", "create", "--user", "bob", "--role", "viewer", "--lasts", "1h")
        [_, listed] = own.json("token", "list")
        assert listed == made["token"]
        assert made["secret"] not in json.dumps(own.json("token", "list"))
        bob = {"ARTESIAN_TOKEN": made["secret"]}
        assert own("jobs", **bob).returncode == 0
        assert "expected the role member" in own("submit", own.file(), code=1, **bob).stderr
        own("token", "revoke", made["token"]["id"])
        assert "revoked" in own("jobs", code=1, **bob).stderr
        assert "revoked" in own("token", "list").stdout
        id_ = own.submit("mine")
        until_state(own, id_, "succeeded")
        assert own.json("show", id_)["user"] == "amy"
        assert server.stop() == 0
    finally:
        server.running.process.kill()
        own.end()
    for path in own.state.path.rglob("*"):
        if path.is_file():
            assert admin.encode() not in path.read_bytes(), path
    assert admin not in server.running.stderr


def test_a_server_that_is_told_to_stop_ends_its_streams_and_followers_go_on_at_the_next_one(
    tmp_path: Path,
) -> None:
    own = Cli(tmp_path)
    port = free_port()  # which nobody takes while no server has it
    server = RealServer(own, port=port)
    own.env["ARTESIAN_SERVER"] = server.url
    try:
        id_ = own.submit("long", f"echo begun; {UNTIL_TOLD}; echo done")
        follower = own.start("logs", "-f", id_)
        until(lambda: "begun" in follower.stdout)
        assert server.stop() == 0
        assert not own.daemons(), "the driver has gone with its server"
        again = own.start("serve", "--port", str(port))
        until(lambda: "http" in again.stdout)
        own.tell()
        assert follower.wait() == 0
        assert follower.stdout == "begun\ndone\n"
        again.process.terminate()
        assert again.process.wait(TIMEOUT_S) == 0
    finally:
        server.running.process.kill()
        own.end()


def test_a_request_under_way_is_answered_when_the_server_is_told_to_stop(tmp_path: Path) -> None:
    own = Cli(tmp_path)
    server = RealServer(own)
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    body = json.dumps(JOB).encode()
    head = (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    try:
        with (
            socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as line,
            line.makefile("rb") as said,
        ):
            line.sendall(head.encode())
            assert b"100 Continue" in said.readline(), "it waits for the body"
            server.running.process.terminate()
            until(lambda: not is_listening(host, int(port)))
            line.sendall(body)
            answer = said.read()
        assert b"201 Created" in answer
        assert server.running.wait() == 0
        [job] = own.journal().jobs
        assert job.encode() in answer
    finally:
        server.running.process.kill()
        own.end()


def is_listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except ConnectionError:
        return False
    return True


def test_a_node_is_kept_out_of_use_and_returned(either: Cli) -> None:
    ((node,),) = [[one["id"] for one in either.json("nodes")]]
    assert either("nodes", "exclude", node, "nope", "--reason", "x", code=1).stderr.startswith(
        "error: node 'nope' is not known here"
    )
    assert either.json("nodes")[0]["state"] == "up", "all of them or none"
    assert either("nodes", "exclude", node, "--reason", "a fan \x1b[31m").stderr == f"{node} is excluded\n"
    try:
        assert "excluded: a fan \\x1b[31m (" in either("nodes").stdout
        id_ = either("submit", either.file("waits")).stdout.strip()
        until(lambda: f"if node {node} came back" in either("why", id_).stdout)
        (healthy, *_) = either.json("waterfall")["stages"]
        assert "excluded" in {loss["cause"] for loss in healthy["lost"]}
    finally:
        either("nodes", "return", node)
    until_state(either, id_, "succeeded")
    assert either("nodes", "return", node, code=1).stderr.startswith(
        f"error: node {node}: expected one that is"
    )
    assert either.json("nodes", "--pool", "none") == []


def test_a_running_job_is_resized_and_goes_on(either: Cli) -> None:
    resize_story(either)
