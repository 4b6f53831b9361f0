"""The agent's watch: which silences are hangs, in starts as well as in steps. No process is started."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from artesian.train.crew import Crew
from artesian.train.heartbeat import Activity, Beat
from artesian.train.recovery import Failure
from artesian.train.watch import Watch

STARTING = Beat(
    alive_s=100.0,
    alive_pace_s=0.2,
    beats=0,
    beat_s=None,
    pace_s=None,
    activity=Activity.STARTING,
    step=None,
    restored_step=None,
    load_s=None,
)
STEPPING = replace(STARTING, beats=9, beat_s=100.0, pace_s=0.1, activity=Activity.STEPPING, step=9)


@dataclass
class FakeWorker:
    """What the watch asks of a worker; it is its own line."""

    rank: int
    said: Beat
    is_still: bool = False
    is_stopped: bool = False
    asked: int = 0
    told: tuple[Failure, float] | None = None

    @property
    def line(self) -> "FakeWorker":
        return self

    def beat(self) -> Beat:
        return self.said

    def lives_at(self, now_s: float, **more: Any) -> None:
        self.said = replace(self.said, alive_s=now_s, **more)


@dataclass
class FakeCrew:
    """Two workers, all there unless ``owed`` are still to come from the template; it is its own starter."""

    workers: list[FakeWorker]
    owed: int = 0
    has_template: bool = True
    running: dict[int, FakeWorker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.running = {worker.rank: worker for worker in self.workers}

    @property
    def is_whole(self) -> bool:
        return not self.owed

    @property
    def starter(self) -> "FakeCrew":
        return self

    def give_up_template(self) -> None:
        self.has_template = False

    def show_stacks(self) -> None:
        for worker in self.workers:
            worker.asked += 1


@pytest.fixture
def crew() -> FakeCrew:
    return FakeCrew([FakeWorker(rank, STARTING) for rank in range(2)])


@pytest.fixture
def watch(crew: FakeCrew) -> Watch:
    found = Watch(cast(Crew, crew))
    found.formed(100.0)
    return found


def hung(watch: Watch, now_s: float) -> list[int]:
    return [failure.rank for failure in watch.look(now_s)]


def start_took(crew: FakeCrew, watch: Watch, duration_s: float) -> None:
    """Let the first start take so long, and form the gang anew at 1000 s."""
    for worker in crew.workers:
        worker.said = replace(STEPPING, alive_s=100.0 + duration_s, beat_s=100.0 + duration_s)
    assert hung(watch, 100.0 + duration_s) == []
    watch.formed(1000.0)
    for worker in crew.workers:
        worker.said = replace(STARTING, alive_s=1000.0)


def test_the_first_start_may_take_any_time(crew: FakeCrew, watch: Watch) -> None:
    for worker in crew.workers:
        worker.lives_at(1e6)
    assert hung(watch, 1e6) == []


def test_a_later_start_may_take_some_times_as_long_as_the_longest_before(
    crew: FakeCrew, watch: Watch
) -> None:
    start_took(crew, watch, 10.0)
    crew.workers[0].lives_at(1080.5, activity=Activity.STEPPING, beats=1, beat_s=1005.0)
    crew.workers[1].lives_at(1080.5)
    assert hung(watch, 1079.5) == []
    (failure,) = watch.look(1080.5)
    assert failure.rank == 1
    assert "did not come to its first step for 80 s" in failure.text
    assert not failure.is_suspect


def test_a_restart_that_finds_all_steps_done_may_save_as_long_as_it_takes(
    crew: FakeCrew, watch: Watch
) -> None:
    start_took(crew, watch, 10.0)
    for worker in crew.workers:
        worker.lives_at(1e6, activity=Activity.BUSY)
    assert hung(watch, 1e6) == []


def test_a_start_that_was_too_slow_once_gets_twice_the_time(crew: FakeCrew, watch: Watch) -> None:
    start_took(crew, watch, 10.0)
    for worker in crew.workers:
        worker.lives_at(1081.0)
    assert hung(watch, 1081.0) == [0, 1]
    watch.formed(2000.0)
    for worker in crew.workers:
        worker.lives_at(2159.0)
    assert hung(watch, 2159.0) == []
    for worker in crew.workers:
        worker.lives_at(2161.0)
    assert hung(watch, 2161.0) == [0, 1]


@pytest.mark.parametrize("activity", [Activity.STARTING, Activity.BUSY])
def test_who_is_stopped_is_found_whatever_it_was_doing(
    crew: FakeCrew, watch: Watch, activity: Activity
) -> None:
    for worker in crew.workers:
        worker.said = replace(STARTING, activity=activity)
    crew.workers[1].is_stopped = crew.workers[1].is_still = True
    assert hung(watch, 101.0) == []
    assert hung(watch, 104.0) == [1]  # the other is as silent, and loads a library perhaps
    assert watch.patience == 1.0


def test_only_a_verdict_that_may_be_wrong_makes_patient(crew: FakeCrew, watch: Watch) -> None:
    for worker in crew.workers:
        worker.said = STEPPING
    crew.workers[0].lives_at(104.0, beat_s=104.0)
    crew.workers[1].is_still = True
    assert hung(watch, 104.0) == [1]
    assert watch.patience == 1.0
    crew.workers[1].is_still = False
    assert hung(watch, 104.0) == [1]
    assert watch.patience == 2.0
    assert all(worker.asked == 2 for worker in crew.workers)


def test_who_has_failed_and_does_not_end_is_the_cause_and_not_those_who_wait_for_it(
    crew: FakeCrew, watch: Watch
) -> None:
    for worker in crew.workers:
        worker.said = STEPPING
    assert hung(watch, 100.5) == []
    failed = crew.workers[1]
    failed.told = Failure(rank=1, text="worker 1 failed: KeyError", is_suspect=True, exit_code=1), 101.0
    failed.said = replace(STEPPING, activity=Activity.BUSY)
    crew.workers[0].lives_at(130.0)
    assert hung(watch, 130.0) == [], "it may still write something down"
    crew.workers[0].lives_at(131.0)
    (found,) = watch.look(131.0)
    assert (found.rank, found.exit_code) == (1, 1)
    assert found.text == "worker 1 failed: KeyError (and has not ended since)"


def test_who_has_failed_alone_and_does_not_end_is_ended(crew: FakeCrew, watch: Watch) -> None:
    del crew.running[0]
    failed = crew.workers[1]
    failed.told = Failure(rank=1, text="worker 1 failed", is_suspect=True, exit_code=1), 101.0
    assert hung(watch, 700.0) == []
    assert hung(watch, 702.0) == [1]


def test_a_template_that_hangs_in_the_first_start_is_given_up_after_the_time_that_the_user_gives_to_a_start() -> (
    None
):
    crew = FakeCrew([FakeWorker(0, STARTING)], owed=1)
    watch = Watch(cast(Crew, crew), start_limit_s=60.0)
    watch.formed(100.0)
    assert hung(watch, 159.0) == []
    assert crew.has_template
    assert hung(watch, 161.0) == []
    assert not crew.has_template


def test_a_template_that_does_not_answer_is_given_up(crew: FakeCrew, watch: Watch) -> None:
    start_took(crew, watch, 10.0)
    crew.owed = 1
    assert hung(watch, 1079.0) == []
    assert crew.has_template
    assert hung(watch, 1081.0) == []
    assert not crew.has_template
