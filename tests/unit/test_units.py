"""Durations, sizes and rates: text to numbers and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.errors import UnitError
from artesian.model.units import (
    format_duration,
    format_flops,
    format_size,
    parse_duration_s,
    parse_size_bytes,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("2d", 172800.0),
        ("1.5h", 5400.0),
        ("0s", 0.0),
        ("1m1ms", 60.001),
    ],
)
def test_a_duration_is_a_sum_of_numbers_with_units(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "30 m", "m", "-5s", "1h30", "5M", "1,5h", "30m ", "5 minutes", "1e3s", "½h"]
)
def test_a_duration_that_does_not_parse_is_named_with_the_units_there_are(text: str) -> None:
    with pytest.raises(UnitError, match="duration: expected") as caught:
        parse_duration_s(text)
    assert repr(text) in str(caught.value)
    assert caught.value.hint == "units are ms, s, m, h and d"


@given(whole=st.integers(0, 10**9), unit=st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_of_one_unit_is_the_number_times_the_unit(whole: int, unit: str) -> None:
    scale = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert parse_duration_s(f"{whole}{unit}") == whole * scale


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("80GB", 80 * 10**9),
        ("512MiB", 2**29),
        ("1.5 kb", 1500),
        ("0B", 0),
        (" 2TiB ", 2**41),
        ("80gib", 80 * 2**30),
        ("85.89934592GB", 80 * 2**30),
        pytest.param(f"{'9' * 400}B", 10**400 - 1, id="400 digits"),
    ],
)
def test_a_size_is_a_number_with_a_unit_in_any_letter_case(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "80", "GB", "-1GB", "80 G", "80GB8", "1e9B", "80,5GB", "eighty GB"])
def test_a_size_that_does_not_parse_is_named_with_the_units_there_are(text: str) -> None:
    with pytest.raises(UnitError, match="size: expected") as caught:
        parse_size_bytes(text)
    assert repr(text) in str(caught.value)
    assert "KiB" in str(caught.value.hint)


@given(
    size=st.integers(0, 2**60),
    unit=st.sampled_from(
        [("B", 1), ("KB", 10**3), ("KiB", 2**10), ("GB", 10**9), ("GiB", 2**30), ("TiB", 2**40)]
    ),
)
def test_a_whole_size_is_exact_at_any_magnitude(size: int, unit: tuple[str, int]) -> None:
    assert parse_size_bytes(f"{size}{unit[0]}") == size * unit[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.25, "0.25 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (42.0, "42.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1m00s"),
        (200.0, "3m20s"),
        (3599.4, "59m59s"),
        (3599.6, "1h00m"),
        (7500.0, "2h05m"),
        (86399.6, "1d00h"),
        (273600.0, "3d04h"),
    ],
)
def test_a_duration_is_written_as_people_write_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(seconds=st.floats(0, 50 * 86400))
def test_a_written_duration_never_reads_as_60_seconds_or_60_minutes(seconds: float) -> None:
    text = format_duration(seconds)
    assert not text.startswith("60")
    assert "60" not in text.replace("h", "m").split("m")[1:]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**29, "512 MiB"),
        (round(23.4 * 2**30), "23.4 GiB"),
        (round(99.97 * 2**10), "100 KiB"),
        (2**30 - 1, "1.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_a_size_is_written_with_a_binary_unit_and_three_digits(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(size_bytes=st.integers(1, 2**49))
def test_a_written_size_is_within_half_a_digit_of_the_truth(size_bytes: int) -> None:
    number, unit = format_size(size_bytes).split()
    assert float(number) <= 1023
    assert parse_size_bytes(f"{number}{unit}") == pytest.approx(size_bytes, rel=0.051)


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (61.2e9, "61.2 GFLOP/s"),
        (989e12, "989 TFLOP/s"),
        (999.4e9, "999 GFLOP/s"),
        (999.7e9, "1 TFLOP/s"),
        (1.5e15, "1.5 PFLOP/s"),
        (16_384 * 989e12, "16,204 PFLOP/s"),
        (2.5e6, "2.5 MFLOP/s"),
        (0.0, "0 MFLOP/s"),
    ],
)
def test_a_rate_has_three_digits_and_never_an_exponent(flops: float, text: str) -> None:
    assert format_flops(flops) == text
