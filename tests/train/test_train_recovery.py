"""Every kind of fault in one run of two workers: the gang comes back each time, and the outcome is the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.wire.faults import Fault, FaultKind, encode_faults
from artesian.wire.messages import Layer
from recovery_harness import BATCH, STEPS, Job

pytestmark = pytest.mark.slow

KINDS = [FaultKind.KILL, FaultKind.EXCEPTION, FaultKind.SEGFAULT, FaultKind.STOP, FaultKind.GIL]
SIGNS = ["SIGKILL", "injected fault", "SIGSEGV", "no sign of life", "no sign of life"]
FAULTS = [
    Fault(kind=kind, worker=number % 2, step=4 + 2 * number, restart=number)
    for number, kind in enumerate(KINDS)
]
OPTIONS = ("--nproc-per-node", "2", "--max-restarts", "5")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("undisturbed")).run(*OPTIONS)


@pytest.fixture(scope="module", params=["forked", "in_process"])
def disturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    wrapped = "1" if request.param == "in_process" else ""
    job = Job(tmp_path_factory.mktemp("disturbed"), ARTESIAN_FAULTS=encode_faults(FAULTS), RESILIENT=wrapped)
    try:
        yield job.run(*OPTIONS)
    finally:
        job.end()


def test_each_fault_leaves_one_record_with_its_cause_and_its_worker(disturbed: Job) -> None:
    records = disturbed.records()
    assert [record.restart for record in records] == [1, 2, 3, 4, 5]
    assert [record.rank for record in records] == [fault.worker for fault in FAULTS]
    for record, sign in zip(records, SIGNS, strict=True):
        assert sign in record.cause
        assert record.layer in (Layer.FORK, Layer.IN_PROCESS)
        assert (record.detect_s is not None) == ("no sign" in sign)
        assert record.recomputed_steps is not None
        assert record.load_s is not None
        assert (record.recompute_s == 0.0) == (record.recomputed_steps == 0)


def test_the_final_loss_is_the_undisturbed_runs_to_the_bit(disturbed: Job, undisturbed: Job) -> None:
    told, expected = disturbed.losses(), undisturbed.losses()
    assert len(expected) == 2 * STEPS
    # A rank that dies in a step which another has saved does not tell its loss; the step counts all the same.
    assert told.items() <= expected.items()
    assert {step for _, step in told} == set(range(1, STEPS + 1))
    assert {(0, STEPS), (1, STEPS)} <= told.keys()


def test_every_sample_is_used_exactly_once(disturbed: Job, undisturbed: Job) -> None:
    assert disturbed.samples() == undisturbed.samples()
    counted = [sample for samples in disturbed.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


def test_a_run_without_faults_has_no_records(undisturbed: Job) -> None:
    assert undisturbed.records() == []


def test_a_survivor_that_does_not_come_back_in_its_process_is_forked_anew(
    tmp_path: Path, undisturbed: Job
) -> None:
    fault = encode_faults([Fault(kind=FaultKind.KILL, worker=1, step=4)])
    job = Job(tmp_path, ARTESIAN_FAULTS=fault, RESILIENT="1", HEARS_NOTHING="0")
    try:
        job.run(*OPTIONS)
    finally:
        job.end()
    (record,) = job.records()
    assert record.layer is Layer.FORK
    assert job.losses().items() <= undisturbed.losses().items()
    assert job.samples() == undisturbed.samples()


def test_a_gang_that_keeps_failing_ends_with_the_code_of_its_last_failure(tmp_path: Path) -> None:
    faults = [Fault(kind=FaultKind.KILL, worker=0, step=1 + number, restart=number) for number in range(2)]
    job = Job(tmp_path, ARTESIAN_FAULTS=encode_faults(faults))
    agent = job.start("--nproc-per-node", "2", "--max-restarts", "1")
    _, errors = agent.communicate(timeout=240)
    assert agent.returncode == 137, errors
    assert "restart 1 of 1" in errors
    assert {record.restart for record in job.records()} <= {1}  # worker 1 may have gone a step on meanwhile


def test_a_disk_that_is_full_at_the_very_end_ends_the_gang_at_once(tmp_path: Path) -> None:
    job = Job(tmp_path, FULL="1", ARTESIAN_CHECKPOINT_EVERY="1000")
    agent = job.start(*OPTIONS)
    _, errors = agent.communicate(timeout=240)
    assert agent.returncode == 1, errors
    assert f"cannot write the checkpoint of step {STEPS}" in errors
    assert "a restart would come to the same" in errors
    assert "restart 1 of 5" not in errors


@pytest.mark.parametrize("wrapped", ["", "1"])
def test_checkpoints_of_which_none_is_whole_end_the_gang_at_once(tmp_path: Path, wrapped: str) -> None:
    job = Job(tmp_path, RESILIENT=wrapped).run(*OPTIONS)
    for image in (tmp_path / "checkpoints").glob("*/*"):
        image.write_bytes(bytes(image.stat().st_size))
    agent = job.start(*OPTIONS)
    _, errors = agent.communicate(timeout=240)
    assert agent.returncode == 1, errors
    assert "is whole: " in errors
    assert "a restart would come to the same" in errors
    assert "restart 1 of 5" not in errors
