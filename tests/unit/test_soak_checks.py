"""The judge of ``benchmarks/soak.py``: it must find what is wrong, or an hour without a violation says nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.kernel.state import Record
from artesian.model.events import NodeJoined
from artesian.model.job import Cause, Outcome
from artesian.model.plan import Plan, Start
from builders import a_job, a_node, a_placement, cancelled, ended, started, submitted
from cli_harness import until

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from soak_checks import Outage, Verdict, Witness, check, replayed
from soak_leaks import Life, Sample
from soak_plan import EXIT_CODE, KillLeader, Submit, plan


def a_submit(**more: object) -> Submit:
    given: dict[str, object] = {
        "at_s": 0.0,
        "number": 1,
        "devices": 1,
        "lasts_s": 1.0,
        "ending": "completes",
        "is_stubborn": False,
    }
    return Submit(**{**given, **more})  # type: ignore[arg-type]


def start(epoch: int = 1, at_s: float = 1.0) -> Plan:
    command = Start(job_id="j1", epoch=epoch, placement=a_placement(("n1", [0])), reason="a test")
    return Plan(at_s=at_s, starts=(command,))


WELL: tuple[Record, ...] = (
    NodeJoined(at_s=0.0, node=a_node()),
    submitted(a_job()),
    start(),
    started(at_s=2.0),
    ended(at_s=3.0),
)
LOST_ONCE: tuple[Record, ...] = (
    *WELL[:4],
    ended(cause=Cause.NODE_LOST, at_s=3.0),
    start(epoch=2, at_s=4.0),
    started(epoch=2, at_s=5.0),
    ended(epoch=2, at_s=6.0),
)
AWAY = Outage(node="n1", from_s=2.5, until_s=3.5)


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path)


def judged(
    witness: Witness,
    records: tuple[Record, ...] = WELL,
    notes: tuple[str, ...] = ("start j1 1",),
    *,
    submit: Submit | None = None,
    outages: tuple[Outage, ...] = (),
    left: tuple[str, ...] = (),
) -> Verdict:
    (witness.folder / "notes").write_text("".join(f"{note}\n" for note in notes))
    state, stopped = replayed(enumerate(records, start=1))
    return check({"j1": submit or a_submit()}, state, stopped, witness, outages, left)


def test_a_job_that_ran_once_to_its_end_is_well(witness: Witness) -> None:
    assert judged(witness).all == []


def test_a_job_in_no_journal_and_one_that_never_ends_are_lost(witness: Witness) -> None:
    assert judged(witness, WELL[:1], ()).lost == ["j1 was accepted, and is in no journal"]
    assert judged(witness, WELL[:4]).lost == ["j1 is running, and nothing becomes of it"]


def test_a_success_that_never_ran_is_lost(witness: Witness) -> None:
    assert judged(witness, notes=()).lost == ["j1 is succeeded, and its last attempt never ran"]


def test_a_second_start_and_two_at_once_are_twice(witness: Witness) -> None:
    assert judged(witness, notes=("start j1 1", "start j1 1")).twice == ["j1/1 started 2 times"]
    assert judged(witness, notes=("start j1 1", "overlap j1 1")).twice == [
        "j1/1 began while an earlier attempt ran"
    ]
    assert judged(witness, notes=("start j1 1", "start j1 2")).wrong == [
        "j1/2 ran, and the journal does not know it"
    ]


def test_an_end_that_is_not_the_commands_own_is_wrong(witness: Witness) -> None:
    assert judged(witness, submit=a_submit(ending="fails")).wrong
    other = ended(cause=Cause.USER_ERROR, at_s=3.0)
    assert judged(witness, (*WELL[:4], other)).wrong
    assert judged(witness, (*WELL[:4], other), submit=a_submit(ending="fails")).wrong, "not with that code"
    right = type(other)(
        at_s=3.0, job_id="j1", epoch=1, outcome=Outcome(cause=Cause.USER_ERROR, exit_code=EXIT_CODE)
    )
    assert judged(witness, (*WELL[:4], right), submit=a_submit(ending="fails")).all == []


def test_a_job_is_cancelled_where_somebody_asked_in_time_and_nowhere_else(witness: Witness) -> None:
    in_time = (*WELL[:4], cancelled(at_s=2.5), ended(cause=Cause.SIGNAL, at_s=3.0))
    assert judged(witness, in_time).all == []
    assert judged(witness, (*WELL, cancelled(at_s=4.0))).all == [], "it was over already"
    by_itself = (*WELL[:4], ended(cause=Cause.CANCELLED, at_s=3.0))
    assert judged(witness, by_itself).wrong


def test_a_lost_node_is_a_cause_only_where_the_node_was_away(witness: Witness) -> None:
    notes = ("start j1 1", "start j1 2")
    assert judged(witness, LOST_ONCE, notes, outages=(AWAY,)).all == []
    assert "none of n1 was away" in judged(witness, LOST_ONCE, notes).wrong[0]
    elsewhere = Outage(node="n2", from_s=2.5, until_s=3.5)
    assert judged(witness, LOST_ONCE, notes, outages=(elsewhere,)).wrong
    later = Outage(node="n1", from_s=100.0, until_s=101.0)
    assert judged(witness, LOST_ONCE, notes, outages=(later,)).wrong


def test_what_is_left_over_is_told(witness: Witness) -> None:
    assert judged(witness, left=("Slurm still has job 1",)).all == ["Slurm still has job 1"]


def test_the_jobs_themselves_notice_two_at_once(witness: Witness) -> None:
    submit = a_submit(lasts_s=600.0)
    words = witness.command(submit)

    def begin(epoch: int) -> "subprocess.Popen[bytes]":
        env = {"PATH": "/usr/bin:/bin", "ARTESIAN_JOB_ID": "j1", "ARTESIAN_EPOCH": str(epoch)}
        return subprocess.Popen(words, env=env, start_new_session=True)

    def ends(process: "subprocess.Popen[bytes]") -> Iterator[None]:
        subprocess.run(["kill", "-9", "--", f"-{process.pid}"], check=True)
        process.wait()
        yield

    first = begin(1)
    while not witness.starts():
        assert first.poll() is None
    assert witness.alive() == ["j1"]
    second = begin(2)
    while witness.starts().total() < 2:
        assert second.poll() is None
    assert witness.overlaps() == [("j1", 2)]
    for process in (first, second):
        next(ends(process))
    until(lambda: not witness.alive())  # a child of the shell lets go of the lock a moment after the shell
    third = begin(3)
    while witness.starts().total() < 3:
        assert third.poll() is None
    assert witness.overlaps() == [("j1", 2)], "one after the other is as it should be"
    next(ends(third))


def test_the_same_seed_is_the_same_plan_and_the_leader_is_left_alone_in_the_middle() -> None:
    assert plan(3, 600.0, 8) == plan(3, 600.0, 8)
    assert plan(3, 600.0, 8) != plan(4, 600.0, 8)
    kills = [act.at_s for act in plan(3, 6000.0, 8) if isinstance(act, KillLeader)]
    assert kills
    assert not [at_s for at_s in kills if 1800.0 <= at_s < 4800.0]


def a_sample(minute: int, *, files: int = 10, is_leading: bool = False) -> Sample:
    rss_bytes = 200_000_000 if minute == 0 else 100_000_000 + minute * 1_000_000
    return Sample(
        at_s=minute * 60.0,
        is_leading=is_leading,
        rss_bytes=rss_bytes,
        threads=3 + 4 * is_leading,
        files=files,
    )


def test_what_a_replica_takes_to_lead_is_no_growth() -> None:
    samples = [a_sample(minute, is_leading=20 <= minute < 50 or minute == 10) for minute in range(61)]
    life = Life(name="x", pid=1, samples=samples)
    assert (life.settled[0].at_s, life.settled[-1].at_s) == (25 * 60.0, 49 * 60.0)
    assert life.gained("threads") == 0


def test_growth_is_seen_behind_what_a_process_loads_at_first() -> None:
    life = Life(name="x", pid=1, samples=[a_sample(minute, files=10 + minute) for minute in range(61)])
    growth = life.growth_per_hour()
    assert growth["rss_mb"] == pytest.approx(60.0)
    assert growth["threads"] == pytest.approx(0.0)
    assert life.gained("threads") == 0
    assert life.gained("files") == pytest.approx(42, abs=2)
    assert life.span_s == 55 * 60
