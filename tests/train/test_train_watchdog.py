"""Signs of life and what is made of them, and who is let into the council of agents: no process is started."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.train.heartbeat import Activity, Beat, Heart, make_page, read_page
from artesian.train.neighbour import admit, ask, introduce
from artesian.train.recovery import Failure, Recovery, cause_of, describe
from artesian.train.watchdog import verdict
from artesian.wire.messages import Layer, decode, encode

WELL = Beat(
    alive_s=100.0,
    alive_pace_s=0.2,
    beats=50,
    beat_s=100.0,
    pace_s=0.06,
    activity=Activity.STEPPING,
    step=50,
    restored_step=0,
    load_s=0.1,
)


@pytest.fixture
def page() -> Iterator[int]:
    fd = make_page()
    yield fd
    os.close(fd)


def test_a_page_says_what_was_beaten_into_it(page: int) -> None:
    heart = Heart(page)
    assert read_page(page).beat_s is None
    assert read_page(page).activity is Activity.STARTING
    heart.restored(6, 0.5)
    heart.alive()
    heart.beat(7)
    assert read_page(page).pace_s is None
    heart.beat(8)
    beat = read_page(page)
    assert (beat.beats, beat.step, beat.restored_step, beat.load_s) == (2, 8, 6, 0.5)
    assert beat.first_s is not None
    assert beat.beat_s is not None
    assert beat.first_s < beat.beat_s
    heart.set(Activity.STARTING)  # it is called back
    heart.beat(9)
    again = read_page(page)
    assert again.first_s == again.beat_s
    assert beat.activity is Activity.STEPPING
    assert beat.pace_s is not None
    assert beat.alive_s is not None
    assert beat.alive_s <= time.monotonic()


def test_time_outside_of_steps_does_not_count_as_the_pace(page: int) -> None:
    heart = Heart(page)
    heart.beat()
    heart.set(Activity.BUSY)
    heart.beat()
    assert read_page(page).pace_s is None


def test_a_pause_is_no_step_and_what_comes_after_it_is_no_wait(page: int) -> None:
    heart = Heart(page)
    heart.set(Activity.STARTING, 60.0)
    heart.set(Activity.PAUSED, 5.0)
    paused = read_page(page)
    assert (paused.activity, paused.limit_s) == (Activity.PAUSED, 5.0)
    heart.go_on()
    assert (read_page(page).activity, read_page(page).limit_s) == (Activity.STARTING, 60.0)
    heart.beat(1)
    first = read_page(page)
    assert (first.activity, first.limit_s, first.pace_s) == (Activity.STEPPING, 60.0, None)
    heart.beat(2)
    before = read_page(page)
    heart.set(Activity.PAUSED)
    heart.go_on()
    after = read_page(page)
    assert (after.activity, after.limit_s, after.pace_s) == (Activity.STEPPING, None, before.pace_s)
    assert after.beat_s is not None
    assert before.beat_s is not None
    assert after.beat_s > before.beat_s


@pytest.mark.parametrize(
    ("activity", "pace_s", "what"),
    [
        (Activity.STARTING, None, "has not come to its first step within 9.0 s"),
        (Activity.STEPPING, None, "has not come to its second step within 9.0 s"),
        (Activity.BUSY, 0.06, "is not done with what it does between its steps within 9.0 s"),
        (Activity.PAUSED, 0.06, "is not done with what it has paused for within 9.0 s"),
    ],
)
def test_what_is_no_step_may_take_as_long_as_the_worker_says(
    activity: Activity, pace_s: float | None, what: str
) -> None:
    beat = replace(WELL, activity=activity, pace_s=pace_s, since_s=100.0, alive_s=109.0)
    assert verdict(beat, 109.1) is None
    assert verdict(replace(beat, limit_s=9.0), 108.9) is None
    hang = verdict(replace(beat, limit_s=9.0), 109.1)
    assert hang is not None
    assert (hang.what, hang.since_s, hang.is_frozen) == (what, 100.0, False)


def test_a_limit_for_the_start_that_the_user_sets_goes_before_the_workers_own() -> None:
    beat = replace(WELL, activity=Activity.STARTING, pace_s=None, since_s=100.0, limit_s=9.0)
    assert verdict(beat, 110.0, 1.0, 30.0) is None
    assert verdict(beat, 131.0, 1.0, 30.0) is not None


def test_a_worker_that_is_stopped_in_a_pause_is_frozen() -> None:
    frozen = verdict(replace(WELL, activity=Activity.PAUSED, since_s=100.0), 104.0)
    assert frozen is not None
    assert frozen.is_frozen


def test_a_worker_that_shows_nothing_but_lives_is_stuck_and_one_that_shows_nothing_is_frozen() -> None:
    assert verdict(WELL, 101.0) is None
    frozen = verdict(WELL, 104.0)
    assert frozen is not None
    assert frozen.is_frozen
    stuck = verdict(replace(WELL, alive_s=140.0), 140.1)
    assert stuck is not None
    assert not stuck.is_frozen
    assert verdict(replace(WELL, alive_s=140.0, step=None), 140.1) is None


@given(activity=st.sampled_from([Activity.STARTING, Activity.BUSY]), silence_s=st.floats(0, 1e6))
def test_a_worker_that_starts_or_says_that_it_is_busy_may_be_silent(
    activity: Activity, silence_s: float
) -> None:
    assert verdict(replace(WELL, activity=activity), 100.0 + silence_s) is None


@given(st.floats(0, 1e4), st.floats(1, 16))
def test_more_patience_never_finds_more_hangs(silence_s: float, patience: float) -> None:
    now_s = 100.0 + silence_s
    if verdict(WELL, now_s) is None:
        assert verdict(WELL, now_s, patience) is None


def test_a_stop_and_a_death_are_the_cause_sooner_than_an_error() -> None:
    error = Failure(rank=0, text="error", is_suspect=True, exit_code=1)
    death = Failure(rank=1, text="death", is_suspect=False, signal=9)
    stop = Failure(rank=2, text="stop", is_suspect=True, exit_code=143)
    assert cause_of([error, death]) is death
    assert cause_of([error]) is error
    assert cause_of([error, death, stop]) is stop
    slow = Failure(rank=3, text="slow", is_suspect=False, is_straggler=True)
    assert cause_of([slow, error]) is slow
    assert cause_of([slow, death]) is death


def test_a_recovery_is_over_with_the_first_step_that_is_new_on_all_workers() -> None:
    death = Failure(rank=1, text="death", is_suspect=False, signal=9)
    recovery = Recovery(
        restart=1, failures=1, cause=death, layer=Layer.FORK, detected_s=200.0, step_before=60
    )
    back = replace(WELL, beat_s=203.0, step=61, restored_step=58, load_s=0.5, first_s=201.5)
    assert recovery.record([back, WELL], 204.0, 1004.0) is None
    assert recovery.record([back, replace(back, step=60)], 204.0, 1004.0) is None
    record = recovery.record([back, replace(back, beat_s=203.5)], 204.0, 1004.0)
    assert record is not None
    assert (record.at_s, record.restart_s, record.load_s, record.recomputed_steps) == (1003.5, 1.0, 0.5, 2)
    assert (record.recompute_s, record.verdict_s) == (2.0, 1000.0)
    assert decode(encode(record)) == record
    assert "2 steps trained again in 2.00 s; cause: death" in describe(record)
    # Nothing was trained again: it was over with the first step, however late somebody looked.
    nothing = replace(back, step=65, restored_step=60)
    record = recovery.record([nothing, replace(nothing, first_s=201.75)], 204.0, 1004.0)
    assert record is not None
    assert (record.at_s, record.restart_s, record.recompute_s) == (1001.75, 1.25, 0.0)


@pytest.mark.parametrize(("token", "is_let_in"), [("secret", True), ("guess", False), ("", False)])
def test_only_an_agent_that_knows_the_token_is_let_in(token: str, is_let_in: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = []

        def lead() -> None:
            guest = ask(listener.accept()[0])
            found.append((guest.peer, admit(guest, "secret")))

        leader = threading.Thread(target=lead)
        leader.start()
        peer = introduce(listener.getsockname(), token, {"id": "x", "address": ["127.0.0.1", 1]})
        leader.join()
    ((member, told),) = found
    assert (peer is not None) == (told is not None) == is_let_in
    if peer is not None:
        # What is sent right behind the handshake is not lost with it.
        assert member.send({"form": 1})
        assert peer.wait_for(10.0) == {"form": 1}
        peer.close()
        member.close()
