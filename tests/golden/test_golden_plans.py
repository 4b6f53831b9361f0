"""A refactor decides as before; a change of behaviour shows its difference."""

import pytest

from artesian.model.plan import HoldCode
from golden_traces import (
    POLICIES,
    decisions,
    decode_events,
    encode_events,
    events_path,
    plans_path,
    synthetic_trace,
)

HINT = "if the change is meant: python scripts/golden.py --update"


def lines(path_text: str) -> list[str]:
    return path_text.splitlines()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_decides_about_the_trace_as_it_always_did(policy: str) -> None:
    cycles = decode_events(lines(events_path().read_text(encoding="utf-8")))
    assert decisions(policy, cycles) == lines(plans_path(policy).read_text(encoding="utf-8")), HINT


def test_a_trace_reads_back_as_it_was_written() -> None:
    cycles = synthetic_trace(seed=1, jobs=5)
    assert decode_events(encode_events(cycles)) == cycles


def test_the_same_seed_gives_the_same_trace_and_another_one_another() -> None:
    assert synthetic_trace(seed=1, jobs=5) == synthetic_trace(seed=1, jobs=5)
    assert synthetic_trace(seed=1, jobs=5) != synthetic_trace(seed=2, jobs=5)


def test_the_trace_brings_about_every_command_and_every_reason_that_a_policy_gives() -> None:
    text = plans_path("fifo").read_text(encoding="utf-8")
    others = {
        HoldCode.BACKING_OFF,
        HoldCode.OVER_QUOTA,
        HoldCode.KEPT_FOR_TEAMS,
    }  # the kernel's own reason, and those of teams with limits
    for code in set(HoldCode) - others:
        assert f'"code": "{code.value}"' in text
    for command in ("start/", "stop/"):
        assert f'"command": "{command}' in text
    assert '"cause": "node_lost"' in text
    assert '"cause": "cancelled"' in text
