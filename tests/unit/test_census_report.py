"""The report: verdicts, ceilings, and a census that survives being saved."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.census import (
    Baseline,
    Ceiling,
    Census,
    CensusError,
    Figure,
    Measurement,
    Verdict,
)
from censuses import CORES, DOUBTFUL, FAST, H100, census, figure


def verdict(measurement: Measurement, baseline: Baseline | None = None) -> Verdict:
    baselines = None if baseline is None else {measurement.accelerator: baseline}
    (only,) = census(H100, measurement).verdicts(baselines)
    return only


def test_a_device_is_compared_with_its_nameplate() -> None:
    result = verdict(FAST)
    assert result.nameplate_ratio == pytest.approx(0.8)
    assert result.bandwidth_ratio == pytest.approx(0.9)


def test_correct_results_are_functional_and_slowness_is_unknown_without_a_baseline() -> None:
    result = verdict(FAST)
    assert (result.is_functional, result.is_slow) == (True, None)
    assert result.reason == "correct results; no baseline for this SKU"


def test_wrong_results_are_not_functional_however_fast() -> None:
    result = verdict(replace(FAST, bf16_flops=figure(900e12, is_correct=False)))
    assert result.is_functional is False
    assert result.reason.startswith("wrong results in matmul")
    assert result.nameplate_ratio is None


@pytest.mark.parametrize(("reached", "is_slow"), [(1.2, False), (0.951, False), (0.949, True), (0.5, True)])
def test_more_than_five_percent_below_the_baseline_is_slow(reached: float, is_slow: bool) -> None:
    result = verdict(FAST, Baseline(bf16_flops=791.2e12 / reached, memory_bytes_per_s=3.015e12))
    assert result.is_slow is is_slow
    assert result.is_functional is True


def test_a_contended_figure_is_never_called_slow() -> None:
    disturbed = replace(FAST, bf16_flops=figure(1e12, valid_runs=0), fp32_flops=None, memory_bytes_per_s=None)
    result = verdict(disturbed, Baseline(bf16_flops=800e12))
    assert (result.is_functional, result.is_slow) == (True, None)


def test_a_device_that_was_not_measured_has_no_verdict_but_a_reason() -> None:
    hung = Measurement(accelerator=H100.name, index=0, uuid=None, devices=1, problem="the probe hung")
    result = verdict(hung)
    assert (result.is_functional, result.is_slow, result.nameplate_ratio) == (None, None, None)
    assert result.reason.startswith("not measured: the probe hung")


def test_the_ceiling_is_the_nameplate_where_it_is_trusted() -> None:
    taken = census(H100, FAST)
    assert taken.ceiling_flops("bf16", index=0) == Ceiling(flops=989e12, basis="nameplate bf16")
    assert taken.ceiling_flops("fp32", index=0) == Ceiling(flops=50e12, basis="measured fp32")


def test_the_ceiling_is_measured_where_the_nameplate_is_doubtful_or_unknown() -> None:
    measured = replace(FAST, accelerator=DOUBTFUL.name)
    assert census(DOUBTFUL, measured).ceiling_flops("bf16", index=0) == Ceiling(
        flops=791.2e12, basis="measured bf16"
    )
    unknown = replace(H100, model=None)
    assert census(unknown, FAST).ceiling_flops("bf16", index=0) == Ceiling(
        flops=791.2e12, basis="measured bf16"
    )
    assert census(unknown, FAST).verdicts()[0].nameplate_ratio is None


def test_the_ceiling_of_a_core_is_its_share_of_the_cores_together() -> None:
    assert census(None, CORES).ceiling_flops("fp32") == Ceiling(flops=100e9, basis="measured fp32")


def test_a_contended_or_missing_measurement_is_nobodys_ceiling() -> None:
    assert census(None, CORES).ceiling_flops("bf16") is None
    assert census(None, CORES).ceiling_flops("fp32", index=3) is None
    with pytest.raises(ValueError, match="dtype must be"):
        census(None, CORES).ceiling_flops("int8", index=3)


def test_a_saved_census_is_the_same_when_loaded_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "census.json"
    for taken in (census(None, CORES), census(H100, FAST)):
        taken.save(path)
        assert Census.load(path) == taken
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["census.json"]


def test_a_save_that_fails_leaves_the_old_census_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "census.json"
    census(None, CORES).save(path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        census(H100, FAST).save(path)
    assert Census.load(path) == census(None, CORES)
    assert [file.name for file in tmp_path.iterdir()] == ["census.json"]


@pytest.mark.parametrize("text", [b"", b"{}", b"[1, 2]", b'{"machine": 3}', b"\xff\xfe"])
def test_a_damaged_census_is_refused_with_its_path(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "census.json"
    path.write_bytes(text)
    with pytest.raises(CensusError, match=r"census\.json: not a census") as caught:
        Census.load(path)
    assert caught.value.hint is not None


def test_no_census_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Census.load(tmp_path / "census.json")


positive = st.floats(min_value=1e-3, max_value=1e18)
figures = st.none() | st.builds(
    Figure,
    kernel=st.text(max_size=20),
    best=positive,
    median=positive,
    runs=st.integers(1, 50),
    valid_runs=st.integers(0, 50),
    is_correct=st.booleans(),
    worst_error=st.none() | positive,
)
measurements = st.builds(
    Measurement,
    accelerator=st.sampled_from(["cpu", "NVIDIA H100 80GB HBM3"]),
    index=st.none() | st.integers(0, 7),
    uuid=st.none() | st.text(max_size=10),
    devices=st.integers(1, 256),
    fp32_flops=figures,
    bf16_flops=figures,
    memory_bytes_per_s=figures,
    problem=st.none() | st.text(max_size=20),
)


@given(measurement=measurements)
def test_every_census_survives_json_and_has_verdicts_that_follow_from_its_figures(
    measurement: Measurement,
) -> None:
    taken = census(H100, measurement)
    assert Census.from_json(taken.to_json()) == taken
    (result,) = taken.verdicts()
    if any(not figure.is_correct for figure in measurement.figures):
        assert result.is_functional is False
    assert result.is_slow is None
    assert result.reason
    ceiling = taken.ceiling_flops("fp32", index=measurement.index)
    assert (ceiling is None) == (measurement.fp32_flops is None or not measurement.fp32_flops.is_valid)
    assert len(taken.summary()["measurements"]) == 1


def test_the_summary_says_what_is_valid() -> None:
    summary = census(None, CORES).summary()
    (cores,) = summary["measurements"]
    assert summary["devices"] == {"cpu": 2}
    assert cores["fp32_flops"]["per_device"] == 100e9
    assert cores["fp32_flops"]["is_valid"] is True
    assert cores["bf16_flops"]["is_valid"] is False
    assert cores["is_contended"] is True
