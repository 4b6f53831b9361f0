"""What every engine promises. The same tests run against each of them."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import recovery_harness
from artesian.model.job import Cause, Job, JobKind, RetryPolicy
from artesian.model.plan import Start
from artesian.wire import ProgressReader, Recovered, Restored
from artesian.wire.faults import Fault, FaultKind
from builders import a_placement
from engines_harness import TIMEOUT_S, Harness, shell
from proc import command_line, running

STARTED_AND_ENDED = ["AttemptStarted", "AttemptEnded"]


def run(harness: Harness, test: Callable[[], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with harness.opened():
            await test()

    asyncio.run(opened())


def test_it_offers_nodes(harness: Harness) -> None:
    async def test() -> None:
        assert harness.nodes
        assert all(node.devices > 0 for node in harness.nodes)

    run(harness, test)


def test_a_command_that_ends_well_is_completed(harness: Harness) -> None:
    job = shell("echo out; echo err >&2")

    async def test() -> None:
        harness.start(job)
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.exit_code) == (Cause.COMPLETED, 0)
        assert harness.kinds == STARTED_AND_ENDED
        assert harness.events[0].at_s <= harness.events[1].at_s

    run(harness, test)
    assert harness.stdout(job) == "out\n"
    assert harness.folder(job).stderr.read_text() == "err\n"


def test_an_exit_code_other_than_0_is_the_users_error(harness: Harness) -> None:
    async def test() -> None:
        harness.start(shell("exit 3"))
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.exit_code, outcome.signal) == (Cause.USER_ERROR, 3, None)
        assert "exit code 3" in outcome.message

    run(harness, test)


def test_a_command_that_is_killed_ended_by_a_signal(harness: Harness) -> None:
    async def test() -> None:
        harness.start(shell("kill -SEGV $$"))
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.signal) == (Cause.SIGNAL, signal.SIGSEGV)
        assert "SIGSEGV" in outcome.message

    run(harness, test)


def test_a_shell_that_passes_on_a_signal_counts_as_killed(harness: Harness) -> None:
    async def test() -> None:
        harness.start(shell("exit 137"))
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.signal) == (Cause.SIGNAL, signal.SIGKILL)

    run(harness, test)


def test_a_command_that_does_not_exist_did_not_start(harness: Harness) -> None:
    async def test() -> None:
        harness.start(shell("", command=("no-such-program", "--flag")))
        outcome = await harness.outcome()
        assert outcome.cause is Cause.START_FAILED
        assert "command not found: no-such-program" in outcome.message
        assert harness.kinds == ["AttemptEnded"]

    run(harness, test)


def test_a_workdir_that_does_not_exist_is_named(harness: Harness) -> None:
    async def test() -> None:
        harness.start(shell("true", workdir="/no/such/folder"))
        outcome = await harness.outcome()
        assert outcome.cause is Cause.START_FAILED
        assert "workdir" in outcome.message
        assert "/no/such/folder" in outcome.message

    run(harness, test)


def test_a_start_carried_out_twice_starts_once(harness: Harness, tmp_path: Path) -> None:
    job = shell(f"echo x >> {tmp_path}/runs; sleep 0.2")

    async def test() -> None:
        harness.start(job)
        harness.start(job)
        await harness.outcome()
        harness.start(job)
        await asyncio.sleep(0)
        assert harness.kinds == STARTED_AND_ENDED

    run(harness, test)
    assert (tmp_path / "runs").read_text() == "x\n"


def test_the_next_epoch_is_another_attempt(harness: Harness, tmp_path: Path) -> None:
    job = shell(f"echo $ARTESIAN_EPOCH >> {tmp_path}/runs")

    async def test() -> None:
        for epoch in (1, 2):
            harness.events.clear()
            harness.start(job, epoch)
            await harness.outcome()

    run(harness, test)
    assert (tmp_path / "runs").read_text() == "1\n2\n"


def test_a_stop_is_a_sigterm(harness: Harness) -> None:
    job = shell("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.01; done")

    async def test() -> None:
        harness.start(job)
        await harness.until(lambda: harness.folder(job).stdout.exists() and "ready" in harness.stdout(job))
        harness.stop(job)
        harness.stop(job)
        await harness.outcome()
        assert harness.kinds == STARTED_AND_ENDED

    run(harness, test)
    assert "saved" in harness.stdout(job)


def test_who_ignores_sigterm_is_killed_after_the_grace(harness: Harness) -> None:
    job = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done")

    async def test() -> None:
        harness.start(job)
        await harness.until(lambda: harness.folder(job).stdout.exists() and "ready" in harness.stdout(job))
        harness.stop(job, grace_s=0.05)
        outcome = await harness.outcome()
        assert outcome.signal == signal.SIGKILL

    run(harness, test)


def test_a_stop_right_after_the_start_ends_the_attempt(harness: Harness) -> None:
    async def test() -> None:
        job = shell("sleep 600")
        harness.start(job)
        harness.stop(job)
        await harness.outcome()
        assert harness.kinds in (["AttemptEnded"], STARTED_AND_ENDED)

    run(harness, test)


def test_a_stop_of_an_attempt_that_is_over_changes_nothing(harness: Harness) -> None:
    async def test() -> None:
        job = shell("true")
        harness.start(job)
        await harness.outcome()
        harness.stop(job)
        await asyncio.sleep(0.05)
        assert harness.kinds == STARTED_AND_ENDED

    run(harness, test)


def test_nothing_of_an_attempt_survives_its_end(harness: Harness, tmp_path: Path) -> None:
    # A daemon in a session of its own, and a child of a child: both must go when the command ends.
    job = shell(
        f"setsid sh -c 'echo $$ > {tmp_path}/daemon; exec sleep 600' & (sleep 600 & echo $! > {tmp_path}/child) & "
        f"while ! [ -s {tmp_path}/daemon ] || ! [ -s {tmp_path}/child ]; do sleep 0.01; done"
    )

    async def test() -> None:
        harness.start(job)
        assert (await harness.outcome()).cause is Cause.COMPLETED

    run(harness, test)
    for name in ("daemon", "child"):
        pid = int((tmp_path / name).read_text())
        assert b"sleep" not in command_line(pid)


def test_arguments_are_never_joined_into_a_shell_line(harness: Harness) -> None:
    words = ("printf", "%s|", "$(id)", "; rm -rf /", "a b", "'\"", "*", "")
    job = shell("", command=words)

    async def test() -> None:
        harness.start(job)
        await harness.outcome()

    run(harness, test)
    assert harness.stdout(job) == "".join(f"{word}|" for word in words[2:])


def test_what_looks_like_a_shell_in_a_variable_or_a_folder_stays_data(
    harness: Harness, tmp_path: Path
) -> None:
    mark = tmp_path / "owned"
    evil = f"$(touch {mark}); `touch {mark}` | touch {mark} && touch {mark} '\" * #"
    folder = tmp_path / "a $(touch owned) `id` '\" ; b"
    folder.mkdir()
    env = {"PATH": os.environ["PATH"], "EVIL": evil}
    job = shell('printf "%s|%s" "$EVIL" "$PWD"', env=env, workdir=str(folder))

    async def test() -> None:
        harness.start(job)
        await harness.outcome()

    run(harness, test)
    assert harness.stdout(job) == f"{evil}|{folder}"
    assert not mark.exists()
    assert list(folder.iterdir()) == []


def test_an_attempt_sees_its_job_and_nothing_of_the_drivers_environment(harness: Harness) -> None:
    os.environ["A_SECRET_OF_THE_DRIVER"] = "not for jobs"  # noqa: S105 - no password
    job = shell("env", env={"PATH": os.environ["PATH"], "MINE": "yes"}, checkpoint_every_steps=7)

    async def test() -> None:
        harness.start(job, 4)
        await harness.outcome()

    try:
        run(harness, test)
    finally:
        del os.environ["A_SECRET_OF_THE_DRIVER"]
    seen = dict(line.split("=", 1) for line in harness.stdout(job, 4).splitlines())
    assert seen["MINE"] == "yes"
    assert seen["ARTESIAN_JOB_ID"] == job.id
    assert seen["ARTESIAN_EPOCH"] == "4"
    assert seen["ARTESIAN_CHECKPOINT_EVERY"] == "7"
    assert "A_SECRET_OF_THE_DRIVER" not in seen


def test_what_is_in_a_jobs_environment_is_on_no_command_line(harness: Harness) -> None:
    # Of a whole word: this test's own file has it in two parts.
    secret = "-".join(("hunter", "2a4f"))
    job = shell("exec sleep 600", env={"PATH": os.environ["PATH"], "TOKEN": secret}, kind=JobKind.TRAIN)

    async def test() -> None:
        seen: set[int] = set()
        harness.start(job)
        async with asyncio.timeout(TIMEOUT_S):
            while "AttemptStarted" not in harness.kinds:
                seen |= set(running(secret.encode()))
                await asyncio.sleep(0.01)
        assert seen | set(running(secret.encode())) == set()
        harness.stop(job, grace_s=1.0)
        await harness.outcome()

    run(harness, test)
    logs = [path for path in harness.folder(job).path.rglob("*.log") if path.is_file()]
    assert logs
    assert all(secret not in path.read_text() for path in logs)


def test_a_new_engine_takes_over_an_attempt_that_runs(harness: Harness, tmp_path: Path) -> None:
    job = shell(f"echo x >> {tmp_path}/runs; while ! [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 5")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
            (tmp_path / "go").touch()
            outcome = await harness.outcome()
            assert (outcome.cause, outcome.exit_code) == (Cause.USER_ERROR, 5)
            assert harness.kinds == STARTED_AND_ENDED

    asyncio.run(test())
    assert (tmp_path / "runs").read_text() == "x\n"


def test_a_new_engine_reports_an_end_that_nobody_heard(harness: Harness, tmp_path: Path) -> None:
    job = shell(f"echo x >> {tmp_path}/runs; while ! [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 6")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until((tmp_path / "runs").exists)
        (tmp_path / "go").touch()
        await harness.until(lambda: harness.folder(job).ended() is not None)
        async with harness.opened():
            harness.start(job)
            assert (await harness.outcome()).exit_code == 6
            assert harness.kinds == STARTED_AND_ENDED

    asyncio.run(test())
    assert (tmp_path / "runs").read_text() == "x\n"


def test_a_new_engine_can_stop_what_the_old_one_started(harness: Harness) -> None:
    job = shell("exec sleep 600")

    async def test() -> None:
        async with harness.opened():
            harness.start(job)
            await harness.until_started()
        async with harness.opened():
            harness.start(job)
            harness.stop(job)
            assert (await harness.outcome()).signal == signal.SIGTERM

    asyncio.run(test())


def test_a_node_that_dies_ends_the_attempt_on_it(harness: Harness) -> None:
    lose_node = harness.ground.lose_node
    if lose_node is None:
        pytest.skip("it has no node to spare: the engine of one machine dies with it")

    async def test() -> None:
        harness.start(shell("exec sleep 600"))
        await harness.until_started()
        lose_node(harness.nodes[0].id)
        assert (await harness.outcome()).cause is Cause.NODE_LOST
        await harness.until(lambda: "NodeLost" in harness.kinds)

    run(harness, test)


def like_nodes(harness: Harness) -> tuple[str, str]:
    """Two nodes with the same devices, at least three on each."""
    for first in harness.nodes:
        for second in harness.nodes:
            if first.id < second.id and first.accelerator == second.accelerator and second.devices >= 3:
                return first.id, second.id
    pytest.skip("it has no two nodes alike: the engine of one machine has one")


def start_on_two(harness: Harness, job: Job) -> None:
    """Start an attempt with a device on each of two nodes."""
    first, second = like_nodes(harness)
    place = a_placement((first, [0]), (second, [0]))
    harness.engine.start(Start(job_id=job.id, epoch=1, placement=place, reason="a test"), job)


def start_uneven(harness: Harness, job: Job, *, most_first: bool) -> None:
    """Start an attempt with three devices on one node and one on the other."""
    first, second = like_nodes(harness)
    sizes = (3, 1) if most_first else (1, 3)
    place = a_placement((second, range(sizes[0])), (first, range(sizes[1])))
    harness.engine.start(Start(job_id=job.id, epoch=1, placement=place, reason="a test"), job)


@pytest.mark.parametrize("most_first", [True, False])
def test_a_gang_has_as_many_workers_on_each_node_as_the_plan_has_devices(
    harness: Harness, tmp_path: Path, most_first: bool
) -> None:
    script = (
        f'echo "$WORLD_SIZE $GROUP_RANK $LOCAL_RANK $LOCAL_WORLD_SIZE $ARTESIAN_WORKERS" > {tmp_path}/part-$RANK'
        f" && mv {tmp_path}/part-$RANK {tmp_path}/rank-$RANK && echo rank $RANK"
        f" && while ! [ -e {tmp_path}/rank-3 ]; do sleep 0.02; done"
    )
    job = shell(script, kind=JobKind.TRAIN)

    async def test() -> None:
        start_uneven(harness, job, most_first=most_first)
        outcome = await harness.outcome()
        assert outcome.cause is Cause.COMPLETED, outcome

    run(harness, test)
    seen = [(tmp_path / f"rank-{rank}").read_text().split() for rank in range(4)]
    assert seen == (
        [
            ["4", "0", "0", "3", "3"],
            ["4", "0", "1", "3", "3"],
            ["4", "0", "2", "3", "3"],
            ["4", "1", "0", "1", "1"],
        ]
        if most_first
        else [
            ["4", "0", "0", "1", "1"],
            ["4", "1", "0", "3", "3"],
            ["4", "1", "1", "3", "3"],
            ["4", "1", "2", "3", "3"],
        ]
    )
    assert harness.stdout(job) == "rank 0\n"
    for rank in (1, 2, 3):
        assert (harness.folder(job).logs / f"rank-{rank}.out").read_text() == f"rank {rank}\n"


def test_an_attempt_on_nodes_with_different_shares_stops_when_it_is_told_to(harness: Harness) -> None:
    job = shell("trap 'exit 0' TERM; while :; do sleep 0.05; done")

    async def test() -> None:
        start_uneven(harness, job, most_first=True)
        await harness.until_started()
        harness.stop(job)
        assert (await harness.outcome()).cause is Cause.SIGNAL

    run(harness, test)


def test_many_attempts_at_once_end_once_each(harness: Harness) -> None:
    jobs = [shell("sleep 0.05", id=f"j{number}") for number in range(12)]

    async def test() -> None:
        for job in jobs:
            harness.start(job)
        await harness.until(lambda: harness.kinds.count("AttemptEnded") == len(jobs))
        assert harness.kinds.count("AttemptStarted") == len(jobs)

    run(harness, test)


TELLS_ITS_RESTART = """
import os, signal, sys
restart, rank = os.environ["ARTESIAN_RESTART"], os.environ["RANK"]
print(os.environ["ARTESIAN_EPOCH"], restart, rank, file=open(f"{sys.argv[1]}/{restart}-{rank}", "w"), flush=True)
if restart == "0" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("in_place", [True, False])
def test_a_gang_that_runs_python_is_restarted_within_its_attempt(
    harness: Harness, tmp_path: Path, in_place: bool
) -> None:
    script = tmp_path / "script.py"
    script.write_text(TELLS_ITS_RESTART)
    retry = RetryPolicy(limit=2, in_place=in_place)
    command = (sys.executable, str(script), str(tmp_path))
    job = shell("", command=command, kind=JobKind.TRAIN, workers=2, retry=retry)

    async def test() -> None:
        harness.start(job)
        outcome = await harness.outcome()
        expected = Cause.COMPLETED if in_place else Cause.SIGNAL
        assert (outcome.cause, outcome.restarts) == (expected, 0)  # a gang that made no step tells of none

    run(harness, test)
    told = {path.name: path.read_text().split() for path in tmp_path.glob("[0-9]-[0-9]")}
    assert told["0-1"] == ["1", "0", "1"]
    assert ("1-1" in told) == in_place
    if in_place:
        assert told["1-1"] == ["1", "1", "1"]


def test_a_gang_on_two_nodes_goes_on_from_its_last_step_within_its_attempt(
    harness: Harness, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    script = tmp_path / "script.py"
    script.write_text(recovery_harness.SCRIPT)
    job = shell(
        "",
        command=(sys.executable, str(script), str(tmp_path / "notes")),
        kind=JobKind.TRAIN,
        checkpoint_every_steps=1,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        faults=(Fault(kind=FaultKind.KILL, worker=1, step=7),),
    )

    async def test() -> None:
        start_on_two(harness, job)
        outcome = await harness.outcome()
        assert outcome.cause is Cause.COMPLETED, outcome
        assert harness.kinds == STARTED_AND_ENDED
        assert outcome.restarts == 1

    run(harness, test)
    told = ProgressReader(harness.folder(job).progress).read()
    (record,) = [message for message in told if isinstance(message, Recovered)]
    assert (record.rank, record.restart, record.signal) == (1, 1, signal.SIGKILL)
    restored = {message.step for message in told if isinstance(message, Restored) and message.step}
    assert len(restored) == 1
    assert min(restored) >= 6  # one step at the most was under way


@pytest.mark.parametrize("script", ["exit 3", "sleep 600"])
def test_a_gang_on_two_nodes_that_cannot_be_mended_ends_on_both(
    harness: Harness, tmp_path: Path, script: str
) -> None:
    """Without restarts the first failure ends all; a stop lets all save, and no node's end cuts another short."""
    slow = f"trap 'sleep 1; touch {tmp_path}/saved; exit 0' TERM; touch {tmp_path}/up-$RANK; while :; do sleep 0.05; done"
    meet = f"touch {tmp_path}/up-$RANK; while ! [ -e {tmp_path}/up-0 ]; do sleep 0.02; done"
    quick = f"trap 'exit 0' TERM; {meet}; {script} & wait $!"
    job = shell(f'if [ "$RANK" = 0 ]; then {slow}; else {quick}; fi', kind=JobKind.TRAIN)

    async def test() -> None:
        start_on_two(harness, job)
        if script.startswith("exit"):
            outcome = await harness.outcome()
            assert (outcome.cause, outcome.exit_code, outcome.worker) == (Cause.USER_ERROR, 3, 1)
            return
        await harness.until(lambda: all((tmp_path / f"up-{rank}").exists() for rank in (0, 1)))
        harness.stop(job)
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.signal) == (Cause.SIGNAL, signal.SIGTERM)

    run(harness, test)
    assert (tmp_path / "saved").exists()


def test_restarts_within_an_attempt_are_counted_when_they_are_used_up(
    harness: Harness, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    command = (sys.executable, str(script))
    job = shell("", command=command, kind=JobKind.TRAIN, workers=1, retry=RetryPolicy(limit=2))

    async def test() -> None:
        harness.start(job)
        outcome = await harness.outcome()
        assert (outcome.cause, outcome.signal, outcome.restarts) == (Cause.SIGNAL, signal.SIGKILL, 2)

    run(harness, test)
