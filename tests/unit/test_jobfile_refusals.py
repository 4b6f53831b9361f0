"""Job files: what is refused, and in which words."""

import pytest

from artesian.model.document import Position
from artesian.model.jobfile import KEYS, JobFileError
from jobfiles import LEAST, mistakes, only_mistake, parse

# -- what is refused, and how -------------------------------------------------------------------------


def test_all_mistakes_are_reported_at_once_in_the_order_of_lines() -> None:
    found = mistakes(
        "name: First Run\n"
        "grace: 10\n"
        "devics: 2\n"
        "checkpoint: {every: 0, evry: 5}\n"
        "workers: two\n"
        "faults:\n"
        "- {kind: kil, worker: 0, step: 1}\n"
        "- {kind: kill}\n"
    )
    assert [(line, subject) for line, subject, _ in found] == [
        (1, "devices"),
        (1, "command"),
        (1, "name"),
        (2, "grace"),
        (3, "devics"),
        (4, "checkpoint.every"),
        (4, "checkpoint.evry"),
        (5, "workers"),
        (7, "faults[0].kind"),
        (8, "faults[1].worker"),
        (8, "faults[1].step"),
    ]


def test_an_error_names_the_place_the_subject_what_was_expected_and_what_came() -> None:
    with pytest.raises(JobFileError) as caught:
        parse(LEAST + "grace: 10\n")
    error = caught.value
    assert str(error) == (
        "job.yaml:4:8: grace: expected a number with a unit, such as 30m or 1h30m, got '10'"
    )
    assert error.hint == "write grace: 10s if seconds are meant; units are ms, s, m, h and d"
    assert error.mistakes[0].at == Position(4, 8)


def test_several_mistakes_are_one_line_each_with_its_hint() -> None:
    with pytest.raises(JobFileError) as caught:
        parse(LEAST + "grace: 10\nkind: trian\n")
    assert str(caught.value).splitlines() == [
        "job.yaml:4:8: grace: expected a number with a unit, such as 30m or 1h30m, got '10'",
        "    hint: write grace: 10s if seconds are meant; units are ms, s, m, h and d",
        "job.yaml:5:7: kind: expected one of train, batch, service, got 'trian'",
        "    hint: did you mean train?",
    ]
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("line", "subject", "near"),
    [
        ("devcies: 2", "devcies", "devices"),
        ("Workers: 2", "Workers", "workers"),
        ("retry: {backof: 1s}", "retry.backof", "backoff"),
        ("checkpoint: {evry: 1, every: 1}", "checkpoint.evry", "every"),
        ("faults: [{kind: kill, worker: 0, steps: 1, step: 1}]", "faults[0].steps", "step"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(line: str, subject: str, near: str) -> None:
    got_subject, text, hint = only_mistake(line)
    assert got_subject == subject
    assert "expected a key of" in text
    assert hint.startswith(f"did you mean {near}? known keys: ")


def test_an_unknown_key_that_is_near_to_none_lists_the_known_ones() -> None:
    assert only_mistake("zzz: 1")[2] == f"known keys: {', '.join(KEYS)}"


@pytest.mark.parametrize(
    ("line", "subject", "text"),
    [
        ("name: []", "name", "expected a name, got an empty list"),
        ("kind: TRAIN", "kind", "expected one of train, batch, service, got 'TRAIN'"),
        ("workers: -1", "workers", "expected a whole number from 0 to 1000000, got '-1'"),
        ("workers: 2.0", "workers", "expected a whole number from 0 to 1000000, got '2.0'"),
        ("workers: 010", "workers", "expected a whole number from 0 to 1000000, got '010'"),
        ("workers: 1:30", "workers", "expected a whole number from 0 to 1000000, got '1:30'"),
        ("workers:", "workers", "expected a whole number from 0 to 1000000, got nothing"),
        ("workers: ~", "workers", "expected a whole number from 0 to 1000000, got nothing (~)"),
        ("workers: {a: 1}", "workers", "expected a whole number from 0 to 1000000, got a mapping of 1"),
        (
            "priority: highest",
            "priority",
            "expected a whole number, or low, normal, high, urgent, from -1000000000 to 1000000000, got 'highest'",
        ),
        ("team: ' '", "team", "expected a text, got ' '"),
        ("grace: -1s", "grace", "expected a number with a unit, such as 30m or 1h30m, got '-1s'"),
        ("grace: no", "grace", "expected a number with a unit, such as 30m or 1h30m, got 'no'"),
        ("grace: 9999999h", "grace", "expected at most 100 years, got '9999999h'"),
        (
            "memory_per_device: 80",
            "memory_per_device",
            "expected a number with a unit, such as 80GB or 512MiB, got '80'",
        ),
        ("memory_per_device: 9999999TB", "memory_per_device", "expected 1B to 1024PiB, got '9999999TB'"),
        (
            "cpus_per_device: .inf",
            "cpus_per_device",
            "expected a number from 0.001 to 1e+06 with at most three decimals, got '.inf'",
        ),
        (
            "cpus_per_device: 0.0001",
            "cpus_per_device",
            "expected a number from 0.001 to 1e+06 with at most three decimals, got '0.0001'",
        ),
        ("command: []", "command", "expected a command, got an empty list"),
        ("command: ' '", "command", "expected a command, got ' '"),
        ("command: [[a]]", "command[0]", "expected a word, got a list of 1"),
        (
            "command: [a, ]\ncommand: b",
            "command",
            "expected each key once, got it in line 1 and again in line 2",
        ),
        ("command: {a: b}", "command", "expected a list of words or one string, got a mapping of 1"),
        ("command: a 'b", "command", 'expected words, got "a \'b": no closing quotation'),
        (
            "command: a | b",
            "command",
            "expected one program and its arguments, got '|', which only a shell understands",
        ),
        ("env: [A]", "env", "expected a mapping of variables and their values, got a list of 1"),
        ("env: {A: true}", "env.A", "expected a text or a number, got 'true'"),
        ("env: {A: No}", "env.A", "expected a text or a number, got 'No'"),
        ("env: {A: }", "env.A", "expected a text or a number, got nothing"),
        ("env: {A=B: 1}", "env", "expected the name of a variable, got 'A=B'"),
        ("data: ~bob/x", "data", "expected a path, got '~bob/x'"),
        ("checkpoint: 40", "checkpoint", "expected checkpoint, which is a mapping, got '40'"),
        ("checkpoint: {}", "checkpoint.every", "expected the key every, got none"),
        (
            "checkpoint: {every: often}",
            "checkpoint.every",
            "expected steps such as 40, a duration such as 10m, or auto, got 'often'",
        ),
        (
            "checkpoint: {every: -1}",
            "checkpoint.every",
            "expected a whole number of steps from 1 to 1000000000000000, got '-1'",
        ),
        (
            "checkpoint: {every: 0s}",
            "checkpoint.every",
            "expected a duration above 0 and of at most 100 years, got '0s'",
        ),
        ("retry: 3", "retry", "expected retry, which is a mapping, got '3'"),
        ("retry: {backoff: 2m}", "retry.max_backoff", "expected at least the backoff of 120s, got 60s"),
        ("retry: {in_place: no}", "retry.in_place", "expected true or false, got 'no'"),
        ("retry: {on: signal}", "retry.on", "expected a list of causes, got 'signal'"),
        (
            "retry: {on: [completed]}",
            "retry.on[0]",
            "expected one of user_error, signal, oom_kill, node_lost, start_failed, preempted, got 'completed'",
        ),
        ("faults: {kind: kill}", "faults", "expected a list of faults, got a mapping of 1"),
        (
            "workers: 2\nfaults: [{kind: kill, worker: 2, step: 1}]",
            "faults[0].worker",
            "expected a worker of the gang, from 0 to 1, got 2",
        ),
        (
            "faults: [{kind: kill, worker: 0, step: 0}]",
            "faults[0].step",
            "expected a whole number from 1 to 1000000000000000, got '0'",
        ),
        ("devices: -1", "devices", "expected a count such as 8, 4..8 or 0.5, got -1"),
        ("devices: 1.5", "devices", "expected a count such as 8, 4..8 or 0.5, got 1.5"),
        ("devices: 4..2", "devices", "expected a count of at least 1, the smaller first, got 4..2"),
        ("devices: 8 H100", "devices", "expected a resource string, got '8 H100'"),
        ("devices: {}", "devices", "expected at least one kind of device, got an empty mapping"),
        ("devices: {H100: many}", "devices.H100", "expected a count of devices, got 'many'"),
        ("devices: [H100]", "devices", "expected a resource string, a number or a mapping, got a list of 1"),
        ("devices: 9999999", "devices", "expected at most 1000000 devices, got '9999999'"),
    ],
)
def test_a_wrong_value_is_refused_in_words(line: str, subject: str, text: str) -> None:
    assert only_mistake(line)[:2] == (subject, text)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("env: {A: true}", 'quote it: "true"'),
        ("env: {A: }", 'quote it: ""'),
        ("devices: 8xH100", "write H100:8"),
        ("memory_per_device: 80", "write memory_per_device: 80GB if gigabytes are meant"),
        ("workers:", "give it a value, or leave the key out"),
        ("command: a && b", "no shell runs the command"),
        ("kind: servce", "did you mean service?"),
    ],
)
def test_a_hint_says_what_to_write(line: str, hint: str) -> None:
    assert only_mistake(line)[2].startswith(hint)


def test_a_duplicate_key_names_both_lines() -> None:
    assert mistakes(LEAST + "retry:\n  limit: 1\n  limit: 2\nname: b\n") == [
        (6, "retry.limit", "expected each key once, got it in line 5 and again in line 6"),
        (7, "name", "expected each key once, got it in line 1 and again in line 7"),
    ]


def test_a_fault_is_checked_against_the_devices_where_training_names_no_workers() -> None:
    text = "name: a\nkind: train\ncommand: x\ndevices: 2..4\nfaults: [{kind: kill, worker: %d, step: 1}]"
    assert parse(text % 3).faults[0].worker == 3
    assert mistakes(text % 4)[0][1] == "faults[0].worker"
