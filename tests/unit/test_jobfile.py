"""Job files: what they mean."""

import pytest

from artesian.model.job import Cause, Job, JobKind, RetryPolicy
from artesian.model.jobfile import KEYS, JobFileError
from artesian.model.resources import DeviceRequest, parse_devices
from artesian.wire import Fault, FaultKind
from jobfiles import EVERYTHING, LEAST, parse

# -- what a file means --------------------------------------------------------------------------------


def test_every_key_reaches_the_job() -> None:
    assert parse(EVERYTHING) == Job(
        id="j-1",
        name="first-run",
        kind=JobKind.TRAIN,
        devices=(DeviceRequest(min_milli=1000, max_milli=2000),),
        workers=2,
        command=("python", "pretrain.py", "--steps", "300"),
        env={"KEY": "value", "COUNT": "010", "TIME": "1:30"},
        workdir="/srv/runs",
        dataset="/home/ada/text",
        deadline_s=28800.0,
        parallel_share=0.95,
        profile="decoder-1b",
        total_steps=300,
        checkpoint_every_steps=40,
        retry=RetryPolicy(
            limit=5, backoff_s=2.0, max_backoff_s=90.0, causes=frozenset({Cause.SIGNAL, Cause.NODE_LOST})
        ),
        priority=-3,
        team="vision",
        grace_s=0.5,
        start_timeout_s=1200.0,
        cpus_per_device=1.5,
        memory_bytes_per_device=2 * 10**9,
        estimated_duration_s=1800.0,
        faults=(Fault(kind=FaultKind.KILL, worker=1, step=150, epoch=2),),
    )


def test_the_example_has_every_key_that_there_is() -> None:
    assert tuple(line.partition(":")[0] for line in EVERYTHING.splitlines()) == KEYS


def test_defaults_are_those_of_a_job() -> None:
    assert parse(LEAST) == Job(
        id="j-1",
        name="a",
        devices=parse_devices(2),
        command=("python", "train.py"),
        workdir="/srv",
    )


@pytest.mark.parametrize(
    ("written", "same_as"),
    [
        ("8", "8"),
        ("0.5", "0.5"),
        ("H100:8 | 910B:16", "H100:8|910B:16"),
        ("nvidia:A100:80GB:4..8", "nvidia:A100:80GB:4..8"),
        ("{H100: 8, 910B: 4..16}", "H100:8|910B:4..16"),
        ("{'nvidia:A100:80GB': 8}", "nvidia:A100:80GB:8"),
        ("1e5X", "1e5X"),
    ],
)
def test_devices_are_a_string_a_number_or_a_mapping(written: str, same_as: str) -> None:
    job = parse(f"name: a\ncommand: [x]\ndevices: {written}")
    assert job.devices == parse_devices(same_as)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("python train.py --name 'two words'", ("python", "train.py", "--name", "two words")),
        ("[echo, 1_000, 0x10, on, 1.50, true]", ("echo", "1_000", "0x10", "on", "1.50", "true")),
        ("|\n  python train.py\n  --steps 3\n", ("python", "train.py", "--steps", "3")),
        ("[sh, -c, 'a | b']", ("sh", "-c", "a | b")),
        ("[printf, '']", ("printf", "")),
        ("echo $HOME", ("echo", "$HOME")),
    ],
)
def test_a_command_is_words_as_they_are_written(written: str, words: tuple[str, ...]) -> None:
    assert parse(f"name: a\ndevices: 1\ncommand: {written}").command == words


def test_the_files_environment_wins_over_the_submitters() -> None:
    job = parse(LEAST + "env: {A: file, C: 'yes'}", env={"A": "shell", "B": "shell"})
    assert job.env == {"A": "file", "B": "shell", "C": "yes"}


@pytest.mark.parametrize(
    ("written", "path"),
    [("text", "/srv/text"), ("../text", "/text"), ("/data/./text", "/data/text"), ("~/x", "/home/ada/x")],
)
def test_paths_are_relative_to_the_files_folder(written: str, path: str) -> None:
    job = parse(LEAST + f"data: {written}\nworkdir: {written}")
    assert job.dataset == job.workdir == path


def test_home_is_the_submitters_home_where_none_is_given() -> None:
    assert parse(LEAST + "data: ~/x", env={"HOME": "/home/bob"}, home=None).dataset == "/home/bob/x"
    with pytest.raises(JobFileError, match="no home folder is known"):
        parse(LEAST + "data: ~/x", home=None)


@pytest.mark.parametrize(
    ("written", "steps", "every_s", "is_best", "promised_s"),
    [
        ("{every: 40}", 40, None, False, None),
        ("{every: 10m}", None, 600.0, False, 600.0),
        ("{every: auto}", None, None, True, None),
        ("{every: auto, interval: 1h}", None, None, True, 3600.0),
        ("{every: 5m, interval: 1h}", None, 300.0, False, 3600.0),
        ("{interval: 1h}", None, None, False, 3600.0),
    ],
)
def test_checkpoints_come_by_steps_by_time_or_as_is_best(
    written: str, steps: int | None, every_s: float | None, is_best: bool, promised_s: float | None
) -> None:
    job = parse(LEAST + f"checkpoint: {written}")
    assert (job.checkpoint_every_steps, job.save_every_s, job.saves_when_best) == (steps, every_s, is_best)
    assert job.checkpoint_every_s == promised_s


def test_a_fault_may_come_after_a_restart_in_place() -> None:
    written = "faults: [{kind: kill, worker: 0, step: 7, restart: 2}, {kind: kill, worker: 0, step: 7}]"
    first, second = parse(LEAST + written).faults
    assert ((first.epoch, first.restart), (second.epoch, second.restart)) == ((1, 2), (1, 0))


def test_on_is_a_key_and_not_yamls_true() -> None:
    assert parse(LEAST + "retry:\n  on:\n  - oom_kill\n").retry.causes == {Cause.OOM_KILL}
    assert parse(LEAST + "retry: {on: []}").retry.causes == set()


def test_no_gang_takes_faults_for_workers_that_only_the_command_knows() -> None:
    job = parse(LEAST + "workers: 0\nfaults: [{kind: kill, worker: 7, step: 1}]")
    assert job.workers == 0
    assert job.faults[0].worker == 7


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake() -> None:
    assert parse("\ufeff" + LEAST.replace("\n", "\r\n")) == parse(LEAST)
