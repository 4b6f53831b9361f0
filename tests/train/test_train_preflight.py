"""The check before a job: who meets whom, who is left out and why, and what a device says against itself."""

import ctypes
import json
import selectors
import socket
from collections import Counter
from itertools import combinations
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from artesian.train import faults, preflight
from artesian.train.crew import Crew
from artesian.train.elected import Elected
from artesian.train.faults import DeviceFaults, FaultWatch, Lookout
from artesian.train.gang import Formation, Gang
from artesian.train.heartbeat import make_page
from artesian.train.link import Link
from artesian.train.preflight import Finding, PairCheck, Preflight, RankCheck, check, judge, leave_out, rounds
from artesian.train.recovery import Failure
from artesian.train.terms import Terms
from artesian.train.unwanted import Unwanted
from artesian.train.worker_process import WorkerProcess
from gang_harness import in_gang
from recovery_harness import Idle

CPU = torch.device("cpu")


@given(world_size=st.integers(1, 40))
def test_in_the_rounds_every_pair_meets_once_and_nobody_twice_in_a_round(world_size: int) -> None:
    met: Counter[tuple[int, int]] = Counter()
    for pairs in rounds(world_size):
        ranks = [rank for pair in pairs for rank in pair]
        assert len(ranks) == len(set(ranks)) >= world_size - 1
        met.update(pairs)
    assert met == Counter(combinations(range(world_size), 2))


def gang_of(
    size: int,
    *,
    flops: dict[int, float] | None = None,
    wrong: set[int] = frozenset(),  # type: ignore[assignment]
    faults: dict[int, tuple[str, ...]] | None = None,
    links: dict[tuple[int, int], float | None] | None = None,
) -> Preflight:
    return Preflight(
        ranks=tuple(
            RankCheck(
                rank=rank,
                flops_per_s=(flops or {}).get(rank, 100.0),
                is_right=rank not in wrong,
                faults=(faults or {}).get(rank, ()),
            )
            for rank in range(size)
        ),
        pairs=tuple(
            PairCheck(ranks=pair, bytes_per_s=(links or {}).get(pair, 10.0))
            for pair in combinations(range(size), 2)
        ),
    )


def slow_links_of(rank: int, size: int, rate: float | None) -> dict[tuple[int, int], float | None]:
    return {pair: rate for pair in combinations(range(size), 2) if rank in pair}


@pytest.mark.parametrize(
    ("found", "findings"),
    [
        (gang_of(4), []),
        (
            gang_of(4, flops={2: 60.0}),
            [Finding(rank=2, reason="it multiplies at 60% of the middle rank's rate")],
        ),
        (gang_of(4, wrong={1}), [Finding(rank=1, reason="its matrix product is wrong, or fails")]),
        (gang_of(4, faults={3: ("Xid 79",)}), [Finding(rank=3, reason="Xid 79")]),
        (
            gang_of(4, links=slow_links_of(1, 4, 3.0)),
            [Finding(rank=1, reason="3 of its 3 links are slow or fail")],
        ),
        (
            gang_of(5, links=slow_links_of(1, 5, None) | slow_links_of(4, 5, 1.0)),
            [
                Finding(rank=1, reason="4 of its 4 links are slow or fail"),
                Finding(rank=4, reason="3 of its 3 links are slow or fail"),
            ],
        ),
        (gang_of(4, links={(0, 1): 1.0}), []),
        (gang_of(2, links={(0, 1): None}), []),
        (
            gang_of(2, flops={0: 50.0}),
            [Finding(rank=0, reason="it multiplies at 50% of the middle rank's rate")],
        ),
        (gang_of(1), []),
    ],
    ids=["good", "slow", "wrong", "faulty", "links", "two", "one link", "one pair", "slow of two", "alone"],
)
def test_who_is_left_out_and_why(found: Preflight, findings: list[Finding]) -> None:
    assert judge(found) == findings


@given(
    size=st.integers(4, 12),
    bad=st.integers(0, 3),
    jitter=st.lists(st.floats(0.9, 1.1), min_size=66, max_size=66),
)
def test_one_bad_rank_is_found_and_its_partners_are_not_blamed(
    size: int, bad: int, jitter: list[float]
) -> None:
    links = {
        pair: 10.0 * noise * (0.3 if bad in pair else 1.0)
        for pair, noise in zip(combinations(range(size), 2), jitter, strict=False)
    }
    assert [finding.rank for finding in judge(gang_of(size, links=dict(links)))] == [bad]


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="least_share must lie between 0 and 1, got 1"):
        judge(gang_of(2), least_share=1)


def test_a_worker_that_is_alone_checks_its_device_alone() -> None:
    found = check(rank=0, world_size=1, device=CPU, control=None, size=64)
    assert found.pairs == ()
    (alone,) = found.ranks
    assert alone.is_right
    assert alone.flops_per_s > 0
    assert alone.faults is None
    assert judge(found) == []


def checked(rank: int, **more: Any) -> Preflight:
    return check(
        rank=rank,
        world_size=4,
        device=CPU,
        control=dist.group.WORLD,
        size=64,
        buffer_bytes=4096,
        **more,
    )


def test_all_ranks_of_a_gang_get_the_figures_of_all_pairs() -> None:
    told = (None, DeviceFaults(), DeviceFaults(uncorrected_errors=0), DeviceFaults(xids=(79,)))
    found = in_gang(4, lambda rank: checked(rank, faults=told[rank]))
    assert all(each == found[0] for each in found)
    assert [pair.ranks for pair in found[0].pairs] == list(combinations(range(4), 2))
    assert all(pair.bytes_per_s is not None and pair.bytes_per_s > 0 for pair in found[0].pairs)
    assert all(each.is_right for each in found[0].ranks)
    assert [each.faults for each in found[0].ranks] == [None, None, (), ("Xid 79",)]
    assert [finding.rank for finding in judge(found[0], least_share=1e-6)] == [3]


def test_few_rounds_try_few_pairs() -> None:
    found = in_gang(4, lambda rank: checked(rank, most_rounds=1))
    assert [pair.ranks for pair in found[0].pairs] == [(0, 3), (1, 2)]


def test_a_rank_that_computes_or_sends_what_is_wrong_is_left_out() -> None:
    def work(rank: int) -> Preflight:
        if rank == 1:
            exchanged = preflight._exchanged
            preflight._exchanged = lambda *words: exchanged(*words) + 1e-3
        if rank == 2:
            preflight._multiply = lambda *_: (1e9, False)
        return checked(rank)

    found = in_gang(4, work)[0]
    assert {pair.ranks for pair in found.pairs if pair.bytes_per_s is None} == {(0, 1), (1, 2), (1, 3)}
    assert [finding.rank for finding in judge(found, least_share=1e-6)] == [1, 2]


def test_a_device_on_which_nothing_works_is_found_and_does_not_end_who_looks() -> None:
    def work(rank: int) -> Preflight:
        def fail(device: torch.device, size: int) -> tuple[float, bool]:
            raise RuntimeError(f"uncorrectable ECC error encountered on {device} in {size} rows")

        if rank == 1:
            preflight._multiply = fail
        return checked(rank)

    found = in_gang(4, work)[0]
    assert [finding.rank for finding in judge(found, least_share=1e-6)] == [1]


# -- faults ----------------------------------------------------------------------------------------------


class Nvml:
    """NVIDIA's library as it answers through ctypes; what is None it does not know."""

    def __init__(
        self, *, ecc: int | None = 0, remaps: tuple[int, int] | None = (0, 0), xids: Any = ()
    ) -> None:
        self.ecc, self.remaps = ecc, remaps
        self.xids = None if xids is None else list(xids)
        self.is_lost = False

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the library's name
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, device: Any) -> int:  # noqa: N802
        return 0 if uuid == b"GPU-1" else 6

    def nvmlEventSetCreate(self, events: Any) -> int:  # noqa: N802
        return 3 if self.xids is None else 0

    def nvmlDeviceRegisterEvents(self, device: Any, kind: Any, events: Any) -> int:  # noqa: N802
        assert kind.value == 8
        return 0

    def nvmlDeviceGetTotalEccErrors(self, device: Any, kind: int, counter: int, count: Any) -> int:  # noqa: N802
        assert (kind, counter) == (1, 0)
        if self.ecc is None:
            return 3
        count._obj.value = self.ecc
        return 0

    def nvmlDeviceGetRemappedRows(self, device: Any, *rows: Any) -> int:  # noqa: N802
        if self.remaps is None:
            return 3
        rows[2]._obj.value, rows[3]._obj.value = self.remaps
        return 0

    def nvmlEventSetWait_v2(self, events: Any, data: Any, timeout: int) -> int:  # noqa: N802
        assert timeout == 0, "reading never waits"
        if self.is_lost:
            return 15
        if not self.xids:
            return 10
        data._obj.event_data = self.xids.pop(0)
        return 0


def test_a_healthy_device_has_nothing_against_it() -> None:
    found = FaultWatch("GPU-1", Nvml()).read()
    assert found == DeviceFaults(
        uncorrected_errors=0, is_remap_pending=False, has_remap_failed=False, xids=()
    )
    assert found.reasons == ()


@pytest.mark.parametrize(
    ("library", "reasons"),
    [
        (Nvml(ecc=2), ("2 uncorrected memory errors",)),
        (Nvml(remaps=(1, 0)), ("a row of memory awaits a reset to be remapped",)),
        (Nvml(remaps=(0, 1)), ("a row of memory could not be remapped",)),
        (Nvml(xids=[79, 48]), ("Xid 79, 48",)),
        (Nvml(xids=[31, 43]), ()),
        (Nvml(ecc=None, remaps=None, xids=None), ()),
    ],
)
def test_what_speaks_against_a_device_is_said_and_what_is_the_applications_fault_is_not(
    library: Nvml, reasons: tuple[str, ...]
) -> None:
    assert FaultWatch("GPU-1", library).read().reasons == reasons


def test_what_is_not_told_is_unknown_and_events_are_remembered() -> None:
    assert FaultWatch("GPU-1", Nvml(ecc=None, remaps=None, xids=None)).read() == DeviceFaults()
    assert FaultWatch("GPU-2", Nvml()).read() == DeviceFaults()
    assert FaultWatch(None, Nvml()).read() == DeviceFaults()
    library = Nvml(xids=[79])
    watch = FaultWatch("GPU-1", library)
    assert watch.read().xids == watch.read().xids == (79,)
    library.is_lost = True
    assert watch.read().xids is None


def test_a_fault_that_comes_while_the_device_is_in_use_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Nvml(remaps=(1, 0))
    told: list[str] = []
    lookout = Lookout(FaultWatch("GPU-1", library), told.append)
    lookout.look()
    assert told == []  # what was against it before is not new
    library.xids = [31, 48]
    library.ecc = 1
    lookout.look()
    lookout.look()
    assert told == ["1 uncorrected memory errors", "Xid 48"]
    # In its thread, and by the way that a worker takes.
    monkeypatch.setattr(faults, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(FaultWatch, "of", lambda _: FaultWatch("GPU-1", library))
    agent, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with agent:
        found = Link(make_page(), worker.detach(), 0)
        found.watch_device(torch.device("cpu"))
        found.watch_device(torch.device("cuda", 0))
        found.watch_device(torch.device("cuda", 0))
        before = ["1 uncorrected memory errors", "a row of memory awaits a reset to be remapped"]
        assert json.loads(agent.recv(4096)) == {"against": before, "device": "cuda:0", "round": 0}
        library.remaps = (1, 1)
        assert json.loads(agent.recv(4096)) == {"unfit": "a row of memory could not be remapped", "round": 0}
        library.ecc = 7  # the next word: had two been watching, the first would come again
        assert json.loads(agent.recv(4096)) == {"unfit": "7 uncorrected memory errors", "round": 0}


def test_a_fault_that_grows_or_comes_again_is_told_once() -> None:
    library = Nvml(ecc=3)
    told: list[str] = []
    watch = FaultWatch("GPU-1", library)
    lookout = Lookout(watch, told.append)
    for count in range(4, 1000):
        library.ecc = count
        library.xids = [48, 63, 48]
        lookout.look()
    assert told == ["4 uncorrected memory errors", "Xid 48, 63"]
    assert watch.read().xids == (48, 63)


def test_a_machine_without_the_library_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert FaultWatch("GPU-1").read() == DeviceFaults()
    assert FaultWatch.of(CPU).read() == DeviceFaults()


class Hall(Elected):
    """The council of a gang of which so many nodes are there, and train."""

    def __init__(self, *, there: int, train: int, least: int) -> None:
        terms = Terms(
            endpoints=(("127.0.0.1", 1),), token="", min_nodes=least, max_nodes=train, max_restarts=1
        )
        super().__init__(terms, Idle(), selectors.DefaultSelector(), print)
        self._members = {str(number): ("127.0.0.1", number) for number in range(there)}
        self._nodes = tuple(map(str, range(train)))


@pytest.mark.parametrize(
    ("there", "least", "ahead", "said"),
    [
        (3, 2, 0, "this node makes room for a spare one"),
        (3, 2, None, "this node makes room for a spare one"),
        (3, 2, 1, "training goes on with it: no spare node is there, and without it there would be too few"),
        (2, 2, 0, "training goes on with it: no spare node is there, and without it there would be too few"),
        (2, 1, 0, "this node is left out, and no other takes its place"),
        (3, 1, 1, "this node is left out, and no other takes its place"),
        (2, 1, None, "training goes on with it: no spare node is there"),
    ],
)
def test_an_unfit_node_goes_where_others_can_do_without_it(
    there: int, least: int, ahead: int | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    council = Hall(there=there, train=2, least=least)
    unwanted = Unwanted(council, council.budget)
    told = {"unfit": "Xid 79"} if ahead is None else {"unfit": "Xid 79", "ahead": ahead}
    judged = [unwanted.judge("worker 1", 1, told) for _ in range(2)]
    lines = capsys.readouterr().err.splitlines()
    assert {line.removeprefix("artesian launch: worker 1 is unfit: Xid 79; ") for line in lines} == {said}
    if said.startswith("training"):
        assert judged == [None, None]
        assert len(lines) == 1, "once"
    else:
        cause = Failure(rank=-1, text="worker 1 is unfit: Xid 79", is_suspect=False, exit_code=1)
        assert judged == [(cause, True)] * 2
        council.budget.restarts = 1
        assert unwanted.judge("worker 1", 1, told) is None
        assert capsys.readouterr().err.endswith("training goes on with it: no restart is left\n")


def test_a_node_that_stayed_for_want_of_a_spare_one_goes_when_one_comes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    council = Hall(there=2, train=2, least=2)
    unwanted = Unwanted(council, council.budget)
    assert unwanted.again(formed(0, node_rank=1), 0.0) is None, "nothing is wrong with it"
    assert unwanted.judge("worker 1", 1, {"unfit": "Xid 79"}) is None
    assert unwanted.again(formed(0, node_rank=1), 100.0) is None
    council._members["spare"] = ("127.0.0.1", 3)
    assert unwanted.again(formed(0, node_rank=1), 200.0) is None, "another may be as bad, and goes first"
    assert unwanted.again(formed(1, node_rank=1), 300.0) is None, (
        "it has gone, and there was a second spare one"
    )
    cause = Failure(rank=-1, text="worker 1 is unfit: Xid 79", is_suspect=False, exit_code=1)
    assert unwanted.again(formed(1, node_rank=1), 310.0) == (cause, True)
    stays, goes = capsys.readouterr().err.splitlines()
    assert stays.endswith("training goes on with it: no spare node is there")
    assert goes.endswith("this node makes room for a spare one")


def test_a_fault_that_ended_its_worker_is_known_by_what_the_next_one_finds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    council = Hall(there=3, train=2, least=2)
    unwanted = Unwanted(council, council.budget)
    told = {"device": "cuda:0", "against": ["2 uncorrected memory errors"]}
    assert unwanted.judge("worker 1", 1, told) is None, "it was so before"
    assert unwanted.judge("worker 1", 1, told) is None
    assert unwanted.judge("worker 0", 0, {**told, "device": "cuda:1", "against": ["x"]}) is None
    judged = unwanted.judge("worker 1", 1, {**told, "against": ["3 uncorrected memory errors"]})
    text = "worker 1 is unfit: 3 uncorrected memory errors"
    assert judged == (Failure(rank=-1, text=text, is_suspect=False, exit_code=1), True)
    assert capsys.readouterr().err == f"artesian launch: {text}; this node makes room for a spare one\n"


def formed(number: int, *, node_rank: int) -> Formation:
    return Formation(
        number=number,
        node_rank=node_rank,
        nodes=2,
        master_host="127.0.0.1",
        master_port=1,
        is_store_served=True,
    )


def test_that_a_device_is_no_good_is_heard_in_a_later_round_too() -> None:
    """It is said once; and a fault that ends a worker has often formed the gang anew by then."""

    class Worker:
        rank, pid, can_rejoin, is_unclear = 0, 1, False, False

        def __init__(self, control: socket.socket) -> None:
            self.line = SimpleNamespace(control=control)

    heard: list[dict[str, Any]] = []
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ours, selectors.DefaultSelector() as selector:
        worker = cast(WorkerProcess, Worker(ours))
        crew = Crew(
            Gang(command=("true",), local_workers=1),
            {},
            selector,
            on_end=lambda _: None,
            on_word=lambda _, word: heard.append(word),
            on_failure=lambda _: None,
            on_loss=lambda *_: None,
        )
        crew.running[0], crew._formation = worker, formed(1, node_rank=0)
        for word in ({"failed": "a peer is gone", "round": 0}, {"unfit": "Xid 79", "round": 0}):
            theirs.send(json.dumps(word).encode())
            crew._hear(worker)
    assert heard == [{"unfit": "Xid 79", "round": 0}]


def test_of_several_bad_nodes_each_lets_those_before_it_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        def is_unfit(self, text: str, *, ahead: int) -> None:
            told.append((text, ahead))

    told: list[tuple[str, int]] = []
    monkeypatch.setattr(preflight, "link", Told)
    findings = [Finding(rank=rank, reason=f"reason {rank}") for rank in (1, 2, 3, 7)]
    for rank in (0, 1, 3, 7):
        leave_out(findings, rank=rank, ranks_per_node=2)
    assert told == [("reason 1", 0), ("reason 3", 1), ("reason 7", 2)]


def test_without_a_launch_agent_it_is_said_that_training_goes_on_with_a_bad_node(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "link", lambda: None)
    leave_out([Finding(rank=1, reason="it is slow")], rank=0)
    leave_out([Finding(rank=1, reason="it is slow")], rank=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert "rank 1 should be left out: it is slow; no launch agent" in line
    assert line.endswith("training goes on with it")
