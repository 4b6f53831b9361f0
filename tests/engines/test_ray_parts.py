"""The parts of the Ray engine that need no Ray: what it reads, what it writes, who outlives whom."""

import asyncio
import http.server
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.engines.local.records import AttemptFolder, Ended
from artesian.engines.options import OptionsError
from artesian.engines.ray import keeper
from artesian.engines.ray.client import RayClient, RayJob, RayNode
from artesian.engines.ray.engine import RayEngine
from artesian.engines.ray.files import read_request
from artesian.engines.ray.inventory import Offer, Stock, offers_of
from artesian.engines.ray.outcome import outcome_of_verdict, outcome_without_verdict
from artesian.engines.ray.part import NodePart
from artesian.engines.ray.request import (
    NodesGone,
    Unsuitable,
    bundle_of,
    entrypoint,
    place_alone,
    unplaced,
    write_request,
)
from artesian.engines.ray.settings import RaySettings
from artesian.engines.watching import Refused, Unreachable
from artesian.model.events import NodeJoined, NodeLost
from artesian.model.job import Cause, Job, JobKind
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Start, Stop
from builders import GIB, a_job, a_node, a_placement
from cli_harness import until
from engines_harness import shell

STOP = Stop(job_id="j1", epoch=1, grace_s=1.0, cause=Cause.PREEMPTED, reason="a test")


def a_ray_node(
    name: str = "n1",
    *,
    ray_id: str = "",
    labels: Mapping[str, str] | None = None,
    others: Mapping[str, float] | None = None,
    **more: float,
) -> RayNode:
    given = {"memory": 8.0 * GIB, "node:10.0.0.1": 1.0, **more, **(others or {})}
    return RayNode(
        ray_id=ray_id or f"{name}-id", name=name, address="10.0.0.1", resources=given, labels=labels or {}
    )


# -- inventory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (a_ray_node(CPU=16), ("cpu", None, 16, "CPU")),
        (a_ray_node(CPU=16, others={"910B3": 8}), ("910B3", "ascend", 8, "910B3")),
        (a_ray_node(CPU=16, others={"910B": 8}), ("910B", "ascend", 8, "910B")),
        (
            a_ray_node(CPU=16, GPU=4, labels={"ray.io/accelerator-type": "L4"}),
            ("L4", "nvidia", 4, "GPU"),
        ),
        (a_ray_node(CPU=16, GPU=4, others={"accelerator_type:H100": 1}), ("H100", "nvidia", 4, "GPU")),
        (a_ray_node(CPU=16, GPU=4), ("gpu", None, 4, "GPU")),
        (a_ray_node(CPU=16, GPU=4, others={"accelerator_type:A": 1}), ("H100-SXM5-80GB", "nvidia", 4, "GPU")),
        (a_ray_node(CPU=16, special_license=3), ("cpu", None, 16, "CPU")),
    ],
)
def test_devices_are_what_the_resources_say(node: RayNode, kind: tuple[object, ...]) -> None:
    (offer,) = offers_of([node], "default", {"A": "H100-SXM5-80GB"}).values()
    assert (offer.node.accelerator, offer.node.vendor, offer.node.devices, offer.resource) == kind
    assert offer.node.memory_bytes == 8 * GIB


def test_a_head_that_runs_no_work_is_not_offered() -> None:
    labels = {"artesian.io/rack": "r7"}
    assert offers_of([a_ray_node("n1", GPU=1, labels=labels)], "default", {})["n1"].node.rack == "r7"
    assert offers_of([a_ray_node("n1", GPU=1)], "default", {})["n1"].node.rack is None
    assert offers_of([a_ray_node("head", CPU=0)], "default", {}) == {}


def test_nodes_of_one_name_are_told_apart_by_their_ray_ids() -> None:
    nodes = [a_ray_node("n", ray_id=f"{number}aaaaaaaaa", CPU=1) for number in (1, 2)]
    assert set(offers_of(nodes, "default", {})) == {"n#1aaaaaaa", "n#2aaaaaaa"}


def test_a_raylet_that_was_started_anew_is_a_node_lost_and_joined(tmp_path: Path) -> None:
    stock = Stock(tmp_path / "ray-nodes.json", "default", {})
    stock.take_in([a_ray_node(CPU=2), a_ray_node("n2", CPU=2)], lambda: 1.0)
    assert stock.take_in([a_ray_node(CPU=2), a_ray_node("n2", CPU=2)], lambda: 2.0) == []
    events = stock.take_in([a_ray_node(CPU=2, ray_id="another")], lambda: 3.0)
    assert [event.node_id for event in events if isinstance(event, NodeLost)] == ["n1", "n2"]
    assert [event.node.id for event in events if isinstance(event, NodeJoined)] == ["n1"]


def test_the_last_word_on_the_nodes_is_remembered(tmp_path: Path) -> None:
    first, second = (
        Stock(tmp_path / "ray-nodes.json", "default", {}),
        Stock(tmp_path / "ray-nodes.json", "default", {}),
    )
    first.take_in([a_ray_node(CPU=2), a_ray_node("n2", CPU=2, others={"910B": 8})], lambda: 1.0)
    second.remember()
    assert second.offers == first.offers
    (tmp_path / "ray-nodes.json").write_text("{torn")
    third = Stock(tmp_path / "ray-nodes.json", "default", {})
    third.remember()
    assert third.nodes == []


# -- the request ------------------------------------------------------------------------------------


def offers(*ids: str, resource: str = "CPU") -> dict[str, Offer]:
    return {id_: Offer(node=a_node(id_), ray_id=f"{id_}-ray", resource=resource) for id_ in ids}


def written(folder: AttemptFolder, job: Job, placement: Placement, nodes: dict[str, Offer]) -> dict[str, Any]:
    folder.create()
    write_request(
        job, 1, placement, nodes, folder, folder.path / "checkpoints", sys.executable, 5.0, is_alone=False
    )
    return read_request(folder.path)


@given(
    devices=st.integers(0, 8),
    milli=st.integers(1, 1000),
    cpus=st.none() | st.floats(0.001, 64),
    memory=st.none() | st.integers(1, 2**40),
    resource=st.sampled_from(["CPU", "GPU", "910B"]),
)
def test_a_bundle_is_never_empty_and_never_less_than_the_share(
    devices: int, milli: int, cpus: float | None, memory: int | None, resource: str
) -> None:
    share = NodeShare(node_id="n1", devices=tuple(range(devices)), milli=milli)
    bundle = bundle_of(a_job(cpus_per_device=cpus, memory_bytes_per_device=memory), share, resource)
    assert bundle
    assert all(amount > 0 for amount in bundle.values())
    assert bundle.get(resource, 0) >= devices * milli / 1000
    assert bundle.get("CPU", 0) >= (cpus or 0) * max(1, devices)
    assert bundle.get("memory", 0) >= (memory or 0) * max(1, devices)


@pytest.mark.parametrize("folder", ["/a b/c'd", "/x; rm -rf *", "/$(id)", "/`id`"])
def test_the_line_for_ray_is_quoted(folder: str) -> None:
    for is_alone, module in ((False, "gang"), (True, "alone")):
        line = entrypoint("/opt/py thon", Path(folder), is_alone=is_alone)
        assert shlex.split(line) == ["exec", "/opt/py thon", "-m", f"artesian.engines.ray.{module}", folder]


def test_a_gang_is_divided_as_the_devices_of_its_nodes_are_or_refused(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path / "attempt-1")
    job = a_job(devices="cpu:4", kind=JobKind.TRAIN)
    request = written(folder, job, a_placement(("n1", [0, 1]), ("n2", [0, 1])), offers("n1", "n2"))
    assert request["workers"] == [2, 2]
    assert [node["ray_id"] for node in request["nodes"]] == ["n1-ray", "n2-ray"]
    uneven = a_placement(("n1", [0, 1, 2]), ("n2", [0]))
    assert written(folder, job, uneven, offers("n1", "n2"))["workers"] == [3, 1]
    with pytest.raises(Unsuitable, match="a worker on each of its 2 nodes, got 1 workers"):
        written(folder, replace(job, workers=1), uneven, offers("n1", "n2"))
    with pytest.raises(NodesGone, match="n2"):
        written(folder, job, a_placement(("n1", [0, 1]), ("n2", [0, 1])), offers("n1"))


# -- on one node: the entrypoint's own place -----------------------------------------------------------


def test_an_entrypoint_gets_the_bundle_on_its_node() -> None:
    nodes = offers_of([a_ray_node(CPU=16, GPU=4, labels={"ray.io/accelerator-type": "L4"})], "p", {})
    job = a_job(devices="L4:2", cpus_per_device=3, memory_bytes_per_device=GIB)
    assert place_alone(job, a_placement(("n1", [0, 3])), nodes) == {
        "entrypoint_num_cpus": 6,
        "entrypoint_num_gpus": 2.0,
        "entrypoint_memory": 2 * GIB,
        "entrypoint_resources": {},
        "entrypoint_label_selector": {"ray.io/node-id": "n1-id"},
    }


def test_a_resource_of_the_sites_own_is_asked_for_by_its_name() -> None:
    nodes = offers_of([a_ray_node(CPU=16, others={"910B": 8})], "p", {})
    place = place_alone(a_job(devices="910B:1"), a_placement(("n1", [0])), nodes)
    assert place is not None
    assert (place["entrypoint_resources"], place["entrypoint_num_gpus"]) == ({"910B": 1.0}, 0)


def test_what_needs_a_gang_has_no_place_alone() -> None:
    two = offers("n1", "n2")
    assert place_alone(a_job(devices="cpu:2"), a_placement(("n1", [0]), ("n2", [0])), two) is None
    # Ray grants these, and tells of them in a variable that is not this vendor's.
    node = replace(a_node("n1"), accelerator="MI300X", vendor="amd")
    amd = {"n1": Offer(node=node, ray_id="r", resource="GPU")}
    assert place_alone(a_job(devices="MI300X:1"), a_placement(("n1", [0])), amd) is None


def test_a_place_that_cannot_be_is_told_at_once() -> None:
    nodes = offers_of([a_ray_node(CPU=4)], "p", {})
    with pytest.raises(Unsuitable, match="infeasible: 99 CPU of node n1, which has 4 CPU"):
        place_alone(a_job(cpus_per_device=99), a_placement(("n1", [0])), nodes)
    with pytest.raises(NodesGone, match="n2"):
        place_alone(a_job(), a_placement(("n2", [0])), nodes)


@pytest.mark.parametrize(
    ("waited_s", "stop", "ids", "cause"),
    [
        (1.0, None, ["n1"], None),
        (5.0, None, ["n1"], Cause.PREEMPTED),
        (0.0, None, ["n2"], Cause.NODE_LOST),
        (0.0, STOP, ["n1"], Cause.PREEMPTED),
    ],
)
def test_who_waits_for_a_place_waits_for_so_long_and_where_there_is_one(
    waited_s: float, stop: Stop | None, ids: list[str], cause: Cause | None
) -> None:
    placement = a_placement(("n1", [0]))
    found = unplaced(a_job(), placement, offers(*ids), stop, waited_s=waited_s, timeout_s=5.0)
    assert (None if found is None else found.cause) == cause


class OldRay(RayClient):
    """A Ray that does not know label selectors of jobs."""

    def __init__(self) -> None:
        super().__init__(RaySettings())
        self.lines: list[str] = []

    def nodes(self) -> list[RayNode]:
        return [a_ray_node(CPU=4)]

    def jobs(self) -> dict[str, RayJob]:
        return {}

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        env: Mapping[str, str],
        metadata: Mapping[str, str],
        place: Mapping[str, Any] | None = None,
    ) -> None:
        if place is not None:
            raise Refused("TypeError: unexpected keyword argument 'entrypoint_label_selector'")
        self.lines.append(entrypoint)


def test_an_older_ray_gets_a_driver_that_asks_for_an_actor(tmp_path: Path) -> None:
    ray = OldRay()

    async def test() -> None:
        engine = RayEngine(tmp_path, RaySettings(), ray, time.time)
        await engine.open(lambda event: None)
        for number in (1, 2):
            placement = a_placement(("n1", [0]))
            start = Start(job_id=f"j{number}", epoch=1, placement=placement, reason="a test")
            engine.start(start, a_job(f"j{number}"))
        async with asyncio.timeout(180):
            while len(ray.lines) < 2:
                await asyncio.sleep(0.01)
        await engine.close()

    asyncio.run(test())
    assert all("artesian.engines.ray.gang" in line for line in ray.lines)
    assert not read_request(tmp_path / "j2" / "attempt-1")["is_alone"]


# -- causes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "stop", "expected"),
    [
        ("node_lost", None, Cause.NODE_LOST),
        ("start_failed", None, Cause.START_FAILED),
        ("preempted", None, Cause.PREEMPTED),
        ("cancelled", STOP, Cause.PREEMPTED),  # why it was stopped is for the command to say
        ("node_lost", STOP, Cause.NODE_LOST),
    ],
)
def test_a_verdict_of_the_driver_is_the_cause(
    tmp_path: Path, cause: str, stop: Stop | None, expected: Cause
) -> None:
    verdict = {"at_s": 1.0, "cause": cause, "message": "so it was", "first": 0}
    outcome = outcome_of_verdict(verdict, AttemptFolder(tmp_path), stop)
    assert (outcome.cause, outcome.message) == (expected, "so it was")


def test_a_stop_that_nobody_asked_artesian_for_is_a_signal(tmp_path: Path) -> None:
    verdict = {"at_s": 1.0, "cause": "cancelled", "message": "", "first": 0}
    outcome = outcome_of_verdict(verdict, AttemptFolder(tmp_path), None)
    assert (outcome.cause, outcome.signal) == (Cause.SIGNAL, signal.SIGTERM)


@pytest.mark.parametrize(
    ("job", "stop", "is_claimed", "expected"),
    [
        (None, None, False, Cause.NODE_LOST),
        (None, None, True, Cause.NODE_LOST),
        (None, STOP, False, Cause.PREEMPTED),
        (RayJob(submission_id="x", status="FAILED", exit_code=1), None, False, Cause.START_FAILED),
        (RayJob(submission_id="x", status="FAILED", exit_code=-9), None, False, Cause.NODE_LOST),
        (RayJob(submission_id="x", status="FAILED"), None, False, Cause.NODE_LOST),
        (RayJob(submission_id="x", status="FAILED", exit_code=1), None, True, Cause.NODE_LOST),
        (RayJob(submission_id="x", status="STOPPED"), STOP, False, Cause.PREEMPTED),
        # By Ray's own user, before the driver could say so itself.
        (RayJob(submission_id="x", status="STOPPED"), None, False, Cause.SIGNAL),
    ],
)
def test_a_driver_that_left_no_verdict_is_explained_by_what_ray_says(
    tmp_path: Path, job: RayJob | None, stop: Stop | None, is_claimed: bool, expected: Cause
) -> None:
    outcome = outcome_without_verdict(job, None, AttemptFolder(tmp_path), stop, is_claimed=is_claimed)
    assert outcome.cause is expected
    assert outcome.message


@pytest.mark.parametrize(
    ("status", "stop", "expected"),
    [("STOPPED", None, Cause.SIGNAL), ("FAILED", STOP, Cause.SIGNAL), ("FAILED", None, Cause.NODE_LOST)],
)
def test_who_was_stopped_although_nobody_asked_has_lost_its_driver(
    tmp_path: Path, status: str, stop: Stop | None, expected: Cause
) -> None:
    job = RayJob(submission_id="x", status=status)
    ended = Ended(at_s=1.0, signal=signal.SIGTERM, was_stopped=True)
    outcome = outcome_without_verdict(job, ended, AttemptFolder(tmp_path), stop, is_claimed=True)
    assert outcome.cause is expected


# -- the client -------------------------------------------------------------------------------------


@contextmanager
def dashboard(answer: Callable[[str, str], tuple[int, str]]) -> Iterator[str]:
    """A server that answers what ``answer(method, path)`` returns."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, text = answer(self.command, f"{self.path} {self.headers.get('Authorization')}")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_nobody_there_is_unreachable() -> None:
    with dashboard(lambda method, path: (200, "{}")) as address:
        client = RayClient(RaySettings(address=address))
    with pytest.raises(Unreachable, match="refused"):
        client.jobs()


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (500, "a trace\nNo available agent", Unreachable),
        (503, "", Unreachable),
        (400, "bad runtime_env", Refused),
        (401, "who are you", Unreachable),
        (200, "<html>", Unreachable),
    ],
)
def test_an_error_that_may_pass_is_told_from_one_that_stays(
    status: int, text: str, error: type[Exception]
) -> None:
    with dashboard(lambda method, path: (status, text)) as address, pytest.raises(error):
        RayClient(RaySettings(address=address)).jobs()


def test_a_submit_that_was_answered_by_an_error_and_went_through_is_a_success() -> None:
    def answer(method: str, path: str) -> tuple[int, str]:
        if method == "POST":
            return 500, "ValueError: Job with submission_id x already exists."
        return 200, json.dumps({"submission_id": "x", "status": "RUNNING"})

    with dashboard(answer) as address:
        RayClient(RaySettings(address=address)).submit("x", "true", {}, {})


def test_a_token_is_read_when_it_is_needed(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, str]:
        asked.append(path)
        return 200, "[]"

    token = tmp_path / "token"
    with dashboard(answer) as address:
        client = RayClient(RaySettings(address=address, token_file=token))
        with pytest.raises(Unreachable):
            client.jobs()  # not there yet
        token.write_text("hunter2\n")
        assert client.jobs() == {}
    assert asked == ["/api/jobs/ Bearer hunter2"]


# -- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"address": "head:8265"}, "address"),
        ({"address": "file:///etc/passwd"}, "address"),
        ({"folder": "relative"}, "folder"),
        ({"token_file": "relative"}, "token_file"),
        ({"group_timeout_s": 0}, "group_timeout_s"),
        ({"adress": "http://head:8265"}, "adress"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_their_key(table: dict[str, Any], key: str) -> None:
    with pytest.raises(OptionsError, match=key):
        RaySettings.of(table)


def test_settings_are_what_the_table_says() -> None:
    settings = RaySettings.of({"kind": "ray", "address": "https://head/ray/", "pool": "big"})
    assert (settings.address, settings.pool) == ("https://head/ray", "big")


def test_the_control_plane_does_without_rays_library() -> None:
    script = (
        "import sys, artesian.engines.ray.site, artesian.engines.ray.alone; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


# -- the keeper -------------------------------------------------------------------------------------


class Kept:
    """A keeper as an agent starts it, and the attempt's folder."""

    def __init__(self, folder: AttemptFolder, script: str) -> None:
        self.folder = folder
        folder.create()
        words = [sys.executable, "-I", "-S", keeper.__file__, str(folder.path), "/", "30", "sh", "-c", script]
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "ARTESIAN_PROGRESS_DIR": str(folder.progress)},
            start_new_session=True,
        )
        assert self.process.wait() == 0  # at once: it goes into the background

    def until_printed(self) -> None:
        deadline_s = time.monotonic() + 30
        while not (self.folder.stdout.exists() and self.folder.stdout.read_text()):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def wait(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stdout.read() == b""
        self.process.stdout.close()
        self.process.stdin.close()


@pytest.fixture
def folder(tmp_path: Path) -> AttemptFolder:
    return AttemptFolder(tmp_path / "attempt-1")


def test_a_keeper_lets_the_command_end(folder: AttemptFolder) -> None:
    kept = Kept(folder, "exit 3")
    kept.wait()
    ended = folder.ended()
    assert ended is not None
    assert (ended.exit_code, ended.was_stopped) == (3, False)


def test_an_attempt_does_not_outlive_its_agent(folder: AttemptFolder) -> None:
    kept = Kept(folder, "trap '' TERM; (setsid sleep 600 &) ; echo ready; while :; do sleep 0.01; done")
    kept.until_printed()
    assert kept.process.stdin is not None
    kept.process.stdin.close()  # as the kernel does when the agent is killed
    kept.wait()
    ended = folder.ended()
    assert ended is not None
    assert ended.signal == signal.SIGKILL
    assert folder.survivors() == []


def test_a_stop_has_its_grace_even_when_the_agent_is_gone(folder: AttemptFolder) -> None:
    kept = Kept(folder, "trap 'sleep 0.3; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    kept.until_printed()
    assert kept.process.stdin is not None
    kept.process.stdin.write(b"20\n")
    kept.process.stdin.close()
    kept.wait()
    ended = folder.ended()
    assert ended is not None
    assert (ended.exit_code, ended.was_stopped) == (0, True)
    assert folder.stdout.read_text() == "ready\nsaved\n"


# -- one node's part --------------------------------------------------------------------------------


@pytest.fixture
def part(folder: AttemptFolder) -> Iterator[NodePart]:
    """The part of an attempt that lasts until it is stopped."""
    written(folder, shell("exec sleep 600"), a_placement(("n1", [0])), offers("n1"))
    part = NodePart(str(folder.path), 0, lambda own: {})
    yield part
    process = part._keeper
    assert process is not None
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()


def test_a_stop_that_overtakes_the_start_is_kept_for_it(part: NodePart) -> None:
    part.stop(20.0)
    ended = part.run(None)
    assert ended is not None
    assert (ended["signal"], ended["was_stopped"]) == (signal.SIGTERM, True)


def test_a_keeper_that_is_told_to_stop_before_it_is_in_the_background_leaves_word(
    part: NodePart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray stops a driver, and each of its children by itself, whatever they are doing."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, sys, time\n"
        f"open({str(tmp_path / 'part')!r}, 'w').write(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'part')!r}, {str(tmp_path / 'pid')!r})\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        f"os.execv(sys.executable, [sys.executable, '-I', '-S', {keeper.__file__!r}, *sys.argv[1:]])\n"
    )
    monkeypatch.setattr(keeper, "__file__", str(slow))
    ended: list[dict[str, Any] | None] = []
    runs = threading.Thread(target=lambda: ended.append(part.run(None)))
    runs.start()
    until((tmp_path / "pid").exists)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    (tmp_path / "go").touch()
    part.stop(20.0)  # as its driver does, who was told, too
    runs.join()
    assert ended[0] is not None
    assert (ended[0]["signal"], ended[0]["was_stopped"]) == (signal.SIGTERM, True)
