"""Progress messages: there and back, and what is none."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.wire import Fault, FaultKind, Message, Phase, PhaseEnded, StepCommitted, decode, encode
from artesian.wire.clock import AnchoredClock
from artesian.wire.faults import decode_faults, encode_faults
from strategies import messages

STEP: dict[str, Any] = {
    "type": "step_committed",
    "rank": 0,
    "step": 1,
    "start_s": 1.0,
    "end_s": 2,
    "loss": 2.5,
    "tokens": 10,
    "model_flops": None,
}


def line(**fields: Any) -> bytes:
    """STEP as a line, with these fields instead."""
    return json.dumps({**STEP, **fields}).encode()


@given(message=messages())
def test_every_message_reads_back_as_it_was_said(message: Message) -> None:
    text = encode(message)
    again = decode(text)
    if isinstance(message, StepCommitted) and message.loss is not None and math.isnan(message.loss):
        assert isinstance(again, StepCommitted)
        assert again.loss is not None
        assert math.isnan(again.loss)
        assert encode(again) == text
    else:
        assert again == message


@given(message=messages())
def test_a_message_is_one_line_of_plain_json(message: Message) -> None:
    text = encode(message)
    assert text.endswith(b"\n")
    assert len(text.splitlines()) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_kept(loss: float) -> None:
    message = decode(line(loss=str(loss)))
    assert isinstance(message, StepCommitted)
    assert str(message.loss) == str(loss)
    assert f'"loss":"{loss}"'.encode() in encode(message)


def test_a_whole_number_is_a_time_too() -> None:
    message = decode(line(end_s=2))
    assert isinstance(message, StepCommitted)
    assert message.end_s == 2


def test_a_newer_worker_may_say_more_and_of_other_things() -> None:
    assert decode(line(colour="blue")) == decode(line())
    assert decode(b'{"type":"gradient_norm","rank":0}') is None


@pytest.mark.parametrize("ranks", [None, 1, "01", [0.5], [True], {}])
def test_ranks_that_are_none_are_refused(ranks: object) -> None:
    body = {
        "type": "replicas_diverged",
        "rank": 0,
        "at_s": 1.0,
        "step": 4,
        "ranks": ranks,
        "is_certain": True,
    }
    with pytest.raises(ValueError, match="a replicas_diverged message with the wrong fields"):
        decode(json.dumps(body).encode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"7",
        b'"step_committed"',
        b"[]",
        b"{}",
        b'{"type":[]}',
        b'{"type":{}}',
        b'{"rank":0}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"type":"restored","rank":' + b"9" * 5000 + b"}",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a progress message"):
        decode(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"rank": "0"},
        {"rank": 0.5},
        {"rank": True},
        {"rank": None},
        {"step": [1]},
        {"start_s": "now"},
        {"start_s": math.nan},
        {"end_s": math.inf},
        {"loss": "high"},
        {"loss": [2.5]},
        {"tokens": 1.5},
        {"model_flops": {}},
    ],
    ids=str,
)
def test_a_field_of_the_wrong_kind_is_refused_with_the_messages_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a step_committed message with the wrong fields"):
        decode(line(**fields))


def test_a_message_without_one_of_its_fields_is_refused() -> None:
    for field in set(STEP) - {"type"}:
        body = {key: value for key, value in STEP.items() if key != field}
        with pytest.raises(ValueError, match="wrong fields"):
            decode(json.dumps(body).encode())


def test_a_phase_that_is_none_is_refused() -> None:
    message = PhaseEnded(rank=0, phase=Phase.RESTORE, start_s=1.0, end_s=2.0)
    with pytest.raises(ValueError, match="a phase_ended message with the wrong fields"):
        decode(encode(message).replace(b"restore", b"lunch"))


@given(
    faults=st.lists(
        st.builds(
            Fault,
            kind=st.sampled_from(FaultKind),
            worker=st.integers(0, 99),
            step=st.integers(0, 10**6),
            epoch=st.integers(1, 9),
        )
    )
)
def test_faults_read_back_as_they_were_written(faults: list[Fault]) -> None:
    assert decode_faults(encode_faults(faults)) == tuple(faults)


def test_a_fault_happens_in_the_first_attempt_unless_it_says_another() -> None:
    assert decode_faults('[{"kind":"kill","worker":1,"step":60}]') == (
        Fault(kind=FaultKind.KILL, worker=1, step=60, epoch=1),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "7",
        "null",
        "{}",
        '""',
        "[7]",
        "[{}]",
        '[{"kind":"sleep","worker":1,"step":1}]',
        '[{"kind":[],"worker":1,"step":1}]',
        '[{"kind":"kill","worker":1}]',
        '[{"kind":"kill","worker":"1","step":1}]',
        '[{"kind":"kill","worker":1,"step":1.5}]',
        '[{"kind":"kill","worker":1,"step":1,"colour":2}]',
    ],
)
def test_what_is_no_list_of_faults_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a list of faults"):
        decode_faults(text)


def test_the_clock_starts_at_wall_time_and_ignores_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, monotonic = [1000.0], [5.0]
    monkeypatch.setattr("artesian.wire.clock.time.time", lambda: wall[0])
    monkeypatch.setattr("artesian.wire.clock.time.monotonic", lambda: monotonic[0])
    clock = AnchoredClock()
    assert clock.now_s() == 1000.0
    wall[0], monotonic[0] = 10.0, 6.5
    assert clock.now_s() == 1001.5
