"""A device against its like: baselines from the censuses of many machines."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from artesian.census import Census, Peers
from censuses import CORES, FAST, H100, HOST, census, figure


def machine(bf16: float, *, memory: float = 3e12, is_correct: bool = True) -> Census:
    return census(
        H100,
        replace(
            FAST,
            bf16_flops=figure(bf16, is_correct=is_correct),
            memory_bytes_per_s=figure(memory, is_correct=is_correct),
        ),
    )


def cores(fp32: float, model: str) -> Census:
    found = census(None, replace(CORES, fp32_flops=figure(fp32), is_contended=False, contention=None))
    host = replace(HOST, cpu_model=model)
    return replace(found, machine=replace(found.machine, host=host))


def test_a_device_that_is_slower_than_its_like_is_unfit_and_why_is_said() -> None:
    fast = [machine(700e12), machine(690e12), machine(710e12)]
    slow = machine(600e12)
    peers = Peers([*fast, slow])
    assert [peers.unfit(one) for one in fast] == [None] * 3
    unfit = peers.unfit(slow)
    assert unfit is not None
    assert unfit.startswith("device 0: ")
    assert "bf16 at 86% of the SKU's baseline" in unfit


def test_two_machines_cannot_tell_which_of_them_is_slow() -> None:
    peers = Peers([machine(700e12), machine(350e12)])
    assert peers.baselines(machine(1e12)) == {}
    assert peers.unfit(machine(1e12)) is None


def test_a_device_that_computes_wrong_results_is_unfit_without_any_like_it() -> None:
    wrong = machine(700e12, is_correct=False)
    assert "wrong results in matmul" in (Peers([wrong]).unfit(wrong) or "")


def test_cores_are_compared_with_those_of_the_same_cpu_only() -> None:
    new = [cores(200e9, "new") for _ in range(3)]
    old = cores(90e9, "old")
    peers = Peers([*new, old])
    assert peers.unfit(old) is None
    assert "fp32 at 45%" in (peers.unfit(cores(90e9, "new")) or "")


def test_what_was_contended_or_not_measured_is_nobodys_baseline() -> None:
    contended = census(H100, replace(FAST, bf16_flops=figure(1e12, valid_runs=0), is_contended=True))
    peers = Peers([contended, contended, contended, machine(700e12)])
    (baseline,) = peers.baselines(contended).values()
    assert baseline.bf16_flops is None
    assert baseline.memory_bytes_per_s is not None


@given(figures=st.lists(st.floats(1e9, 1e15), min_size=3, max_size=9))
def test_never_more_than_half_of_a_kind_is_slow(figures: list[float]) -> None:
    found = [machine(one) for one in figures]
    peers = Peers(found)
    assert sum(peers.unfit(one) is not None for one in found) <= len(found) / 2
