"""What the scheduler, the engines and the ledger say has its Chinese: every sentence of the why-contract's worlds,
and every pattern of the phrasebook is one that somebody still says."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import artesian
from artesian.engines.local.outcome import outcome_of
from artesian.engines.local.records import Ended
from artesian.engines.slurm.outcome import BY_SLURM
from artesian.kernel.notes import ceiling_note, unknown_flops_notes
from artesian.kernel.told import decision
from artesian.model.job import Cause, Outcome
from artesian.model.ledger import Ceiling
from artesian.policy import configurations, matching, outlook, rights, shares
from artesian.policy.explain import backing_off
from artesian.server.ui import phrasebook
from artesian.server.ui.phrases import in_words, phrase, translated
from artesian.server.ui.texts import Texts
from artesian.wire import WorkerFailed
from builders import (
    Kernel,
    a_job,
    a_node,
    cancelled,
    ended,
    excluded,
    lost,
    resized,
    retry,
    started,
)
from world_policies import POLICIES, SEEDS, TEAMS
from worlds import World, rebuilt

ENGLISH = Texts("en")
CHINESE = Texts("zh")
COMMANDS = ("artesian logs ", "artesian simulate ")
"""What is the same in both languages."""


def check(english: str) -> None:
    """Check that a sentence has its Chinese, with the same figures and no English but names."""
    chinese = translated(english)
    assert chinese is not None, f"the phrasebook has nothing for {english!r}"
    assert re.search(r"[\u4e00-\u9fff]", chinese), chinese
    assert sorted(re.findall(r"\d+", chinese)) == sorted(re.findall(r"\d+", english)), (english, chinese)
    for command in COMMANDS:
        chinese = chinese.replace(command, "")
    assert not re.search(r"[a-z]{2,} [a-z]{2,}", chinese), chinese


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_reason_of_every_world_is_in_the_phrasebook(name: str) -> None:
    policy = POLICIES[name]()
    for seed in SEEDS:
        snapshot = rebuilt(World(seed, policy).snapshot())
        plan = policy.plan(snapshot)
        for command in plan.commands:
            check(command.reason)
        waiting = sorted(snapshot.waiting)
        for job_id in waiting:
            if (reason := policy.explain(snapshot, job_id)) is not None:
                check(reason.text)
                check(reason.unblock)
        for job_id in waiting[:1]:
            for change in outlook.outlook(policy, snapshot, job_id, TEAMS).would_start:
                check(change)


def told(kernel: Kernel, job_id: str = "j1") -> str:
    """Check what is told of a job of a kernel, and return it in English."""
    record = kernel.job(job_id)
    found = decision(record, kernel.scheduler.why(job_id), None)
    check(found.reason)
    if found.unblock is not None:
        check(found.unblock)
    return found.reason


def test_all_that_becomes_of_a_job_is_in_the_phrasebook() -> None:
    kernel = Kernel(a_node(devices=4))
    kernel.submit(a_job(devices="cpu:2", name="train"))
    assert "is first in the queue" in told(kernel)
    kernel.step(started())
    kernel.step(resized(devices="cpu:4", user="amy"))
    assert told(kernel) == "resized to cpu:4 by amy"
    kernel.step(cancelled(user="ben"))
    assert told(kernel) == "cancelled by ben"
    kernel.step(ended(cause=Cause.SIGNAL))
    assert told(kernel) == "cancelled by ben; its command had ended"
    kernel.run(a_job("j2", devices="cpu:2"), a_job("j3", devices="0.5"), a_job("j4", devices="host"))
    for id_ in ("j2", "j3", "j4"):
        told(kernel, id_)
    kernel.submit(a_job("j5", devices="cpu:4"))
    kernel.step(cancelled("j5"))
    assert told(kernel, "j5") == "a user cancelled it before it started"
    kernel.step(excluded())
    kernel.step(lost())
    told(kernel, "j2")


@pytest.mark.parametrize("cause", Cause)
def test_the_end_of_a_job_is_in_the_phrasebook_whatever_it_ended_with(cause: Cause) -> None:
    for policy in (retry(0, cause), retry(0)):
        kernel = Kernel(a_node())
        kernel.run(a_job(retry=policy))
        kernel.step(ended(cause=cause))
        assert told(kernel)
    reason = backing_off(3, Outcome(cause=cause), 90.0)
    check(reason.text)
    check(reason.unblock)


def test_how_a_command_ended_is_in_the_phrasebook() -> None:
    said = [
        outcome_of(how, None).message
        for how in (
            Ended(at_s=0.0, exit_code=3),
            Ended(at_s=0.0, signal=9),
            Ended(at_s=0.0, signal=63),
            Ended(at_s=0.0, exit_code=1, is_oom_kill=True),
            Ended(at_s=0.0, exit_code=0, was_stopped=True),
        )
    ]
    failure = WorkerFailed(
        rank=2, at_s=0.0, exit_code=5, signal=None, is_oom_kill=False, message="", restarts=0
    )
    said.append(outcome_of(Ended(at_s=0.0, exit_code=1), failure).message)
    assert said[-1].startswith("worker 2")
    for message in said:
        check(message)
    for _, text in BY_SLURM.values():
        check(f"Slurm: {text}")
        check(f"Slurm: {text} (NonZeroExitCode)")


def test_what_decides_has_a_name_and_a_right_to_preempt_has_its_words() -> None:
    for name in (
        *(shares.MaxMin().name, shares.MaxMin(is_aware=False).name, shares.Makespan().name),
        *(shares.FinishTimeFairness().name, configurations.Configurations().name),
        *(matching.ShortestRemaining().name, matching.AlloX().name),
    ):
        check(f"the round is over, and by {name} others go before it")
        check(f"the round is over, and by {name} it goes on on n1[0,1]")
        check(f"its turn by {name}, in rounds of 6m00s: n1[0]")
    for right in (rights.ByPriority, rights.Reclaim, rights.ByDeadline, rights.ByService):
        why = vars(right)["text"].fget(None)
        check(f"makes room for big (big-1): {why}; it goes on at once: n1[0] + n2[0,1]")
        check(f"makes room for big (big-1): {why}; it goes on when devices are free")


def test_what_a_figure_rests_on_is_in_the_phrasebook() -> None:
    measured, rated = (
        Ceiling(flops=6.1e10, basis="measured fp32"),
        Ceiling(flops=9.89e14, basis="nameplate bf16"),
    )
    faster = Ceiling(flops=8.2e10, basis="measured fp32")
    missing = [("bf16", "n1"), (None, "n2"), ("fp32", "n3"), ("fp32", "n4")]
    nodes = ((node, dtype) for dtype, node in missing)
    for note in (
        *ceiling_note({measured: False, faster: False}),
        *ceiling_note({measured: True, rated: True}),
        *unknown_flops_notes(is_flops_missing=True, no_ceiling=list(nodes), above_ceiling=["a-1", "b-1"]),
    ):
        check(note)
    assert translated("nameplate bf16", "basis") == "标称 bf16"


# -- the phrasebook itself ----------------------------------------------------------------------------


@cache
def said_in_english() -> str:
    """All string constants of the package but the dashboard's: implicit concatenations are one."""
    root = Path(artesian.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        if not path.is_relative_to(root / "server" / "ui") or path.name == "trial.py":
            found += [
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return "\n".join(found)


def pieces(pattern: str) -> Iterator[str]:
    """Yield the words of a pattern between its places and its choices."""
    for piece in re.split(r"\{\w+:\w+\}|\(\?:[^)]*\)\??|\\[()]|'|\w\?", pattern):
        yield piece.replace("\\", "")


@pytest.mark.parametrize("family", phrasebook.PHRASES)
def test_each_phrase_is_still_said_by_somebody(family: str) -> None:
    english = said_in_english()
    longest = [max(pieces(pattern), key=len).strip() for pattern in phrasebook.PHRASES[family]]
    assert [piece for piece in longest if piece not in english] == []


@pytest.mark.parametrize("family", phrasebook.PHRASES)
def test_a_phrase_names_all_that_its_pattern_found(family: str) -> None:
    for pattern, chinese in phrasebook.PHRASES[family].items():
        assert set(re.findall(r"\{(\w+):\w+\}", pattern)) == set(re.findall(r"\{(\w+)\}", chinese)), pattern
        re.compile(re.sub(r"\{\w+:\w+\}", "x", pattern))


def test_what_nobody_knows_is_said_as_it_is_and_marked_as_english() -> None:
    own = "[Errno 2] No such file or directory: '<b>; x'"
    assert phrase(own, ENGLISH) == "[Errno 2] No such file or directory: &#x27;&lt;b&gt;; x&#x27;"
    assert phrase(own, CHINESE) == f'<span lang="en">{phrase(own, ENGLISH)}</span>'
    assert in_words(own, CHINESE) == in_words(own, ENGLISH) == own
    assert phrase(f"cancelled by amy; {own}", CHINESE).startswith("被 amy 取消；<span")
    assert translated(f"user error: {own}; artesian logs a shows what it printed") is not None


def test_what_the_administrator_wrote_of_a_node_is_kept() -> None:
    found = in_words("node n1 is excluded: ECC errors; see ticket 7", CHINESE)
    assert found == "节点 n1 已停用：ECC errors; see ticket 7"


def test_names_and_lists_are_told_with_chinese_commas() -> None:
    held = (
        "needs 8 devices (H100:8), 3 can be had now; held by a (3), others outside of artesian (2) and 4 more"
    )
    assert in_words(held, CHINESE) == (
        "需要 8 个设备（H100:8），目前可得 3 个；占用者：a（3）、artesian 之外的用户（2），另有 4 个"
    )
    assert in_words(held, ENGLISH) == held


@given(st.text())
def test_any_text_is_said_somehow(text: str) -> None:
    assert in_words(text, ENGLISH) == text
    assert isinstance(in_words(text, CHINESE), str)
    assert "<script" not in phrase(text + "<script>", CHINESE)
