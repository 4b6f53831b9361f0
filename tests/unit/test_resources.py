"""Resource strings: every form of the grammar, there and back; everything else refused, by name."""

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian import catalog
from artesian.model.errors import UnitError
from artesian.model.resources import MILLI, DeviceRequest, parse_devices
from artesian.model.units import parse_size_bytes


def one(text: str | float | Mapping[str, str | int | float]) -> DeviceRequest:
    (request,) = parse_devices(text)
    return request


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", DeviceRequest(min_milli=8000, max_milli=8000)),
        ("4..8", DeviceRequest(min_milli=4000, max_milli=8000)),
        ("0.5", DeviceRequest(min_milli=500, max_milli=500)),
        (".25", DeviceRequest(min_milli=250, max_milli=250)),
        ("gpu", DeviceRequest(min_milli=1000, max_milli=1000)),
        ("gpu:2", DeviceRequest(min_milli=2000, max_milli=2000)),
        ("H100", DeviceRequest(min_milli=1000, max_milli=1000, accelerator="H100")),
        ("H100:8", DeviceRequest(min_milli=8000, max_milli=8000, accelerator="H100")),
        ("gpu:h100:8", DeviceRequest(min_milli=8000, max_milli=8000, accelerator="h100")),
        ("cpu:2", DeviceRequest(min_milli=2000, max_milli=2000, accelerator="cpu")),
        ("NVIDIA:8", DeviceRequest(min_milli=8000, max_milli=8000, vendor="nvidia")),
        ("80GB:2", DeviceRequest(min_milli=2000, max_milli=2000, memory_bytes=80 * 10**9)),
        (
            "nvidia:A100:80GB:4..8",
            DeviceRequest(
                min_milli=4000, max_milli=8000, vendor="nvidia", accelerator="A100", memory_bytes=80 * 10**9
            ),
        ),
        ("GB200 (per GPU) : 4", DeviceRequest(min_milli=4000, max_milli=4000, accelerator="GB200 (per GPU)")),
        (
            "A100:80GiB:1",
            DeviceRequest(min_milli=1000, max_milli=1000, accelerator="A100", memory_bytes=80 * 2**30),
        ),
    ],
)
def test_every_form_of_the_grammar_parses(text: str, expected: DeviceRequest) -> None:
    assert one(text) == expected
    assert one(str(expected)) == expected


def test_alternatives_keep_their_order() -> None:
    assert [str(r) for r in parse_devices("H100:8 | 910B:16|0.5")] == ["H100:8", "910B:16", "0.5"]
    assert parse_devices({"H100": 8, "910B": "4..16"}) == parse_devices("H100:8 | 910B:4..16")


def test_a_bare_number_is_a_count_or_a_share() -> None:
    assert one(4) == one("4")
    assert one(0.5) == one("0.5")


def parts() -> st.SearchStrategy[str]:
    """A valid alternative from its optional parts."""
    names = sorted(
        {row.model for row in catalog.accelerators()} | set(catalog.families()) | {"cpu", "LocalChip"}
    )
    count = st.one_of(
        st.integers(1, 10**6).map(str),
        st.tuples(st.integers(1, 500), st.integers(0, 500)).map(lambda pair: f"{pair[0]}..{sum(pair)}"),
        st.integers(1, MILLI - 1).map(lambda milli: f"{milli / MILLI:.3f}"),
    )
    memory = st.tuples(st.integers(1, 4000), st.sampled_from(["MB", "GB", "GiB", "TB", "kib"])).map(
        lambda pair: f"{pair[0]}{pair[1]}"
    )
    return st.tuples(
        st.sampled_from(["", "gpu"]),
        st.sampled_from(["", *catalog.vendors()]),
        st.sampled_from(["", *(name for name in names if name.lower() not in catalog.vendors())]),
        st.just("") | memory,
        count,
    ).map(lambda given: ":".join(part for part in given if part))


@given(text=parts())
def test_a_request_reads_back_as_it_was_written(text: str) -> None:
    request = one(text)
    assert one(str(request)) == request
    sizes = [part for part in text.split(":") if re.fullmatch(r"\d+(MB|GB|GiB|TB|kib)", part)]
    assert request.memory_bytes == (parse_size_bytes(sizes[0]) if sizes else None)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("", "''"),
        ("  ", "''"),
        ("H100:", "'H100:'"),
        (":8", "':8'"),
        ("H100::8", "'H100::8'"),
        ("H100:8|", "''"),
        ("H100:0", "0"),
        ("0", "0"),
        ("8..4", "8..4"),
        ("0..4", "0..4"),
        ("0.0", "0.0"),
        ("0.0004", "0.0004"),
        ("0.9996", "0.9996"),
        ("1.5", "1.5"),
        ("H100:1.5", "1.5"),
        ("H100:-2", "-2"),
        ("H100:4-8", "4-8"),
        ("H100:4...8", "4...8"),
        ("2.0", "2.0"),
        ("1e3", "1e3"),
        (2.0, "2.0"),
        (1e-5, "1e-05"),
        (-1, "-1"),
        (0, "0"),
        (True, "True"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("acme:H100:8", "'acme'"),
        ("H100:eight", "'eight'"),
        ("nvidia:H100:many:8", "'many'"),
        ("H100:80GB:H200:8", "'80GB'"),
        ("nvidia:H100:80:8", "80"),
        ({}, "empty mapping"),
        ({"": 8}, "':8'"),
        ({"H100": True}, "'True'"),
        ({"H100": -1}, "-1"),
        ({"H100|A100": 8}, "'H100|A100:8'"),
        ({"H100": "8|4"}, "'H100:8|4'"),
    ],
)
def test_what_does_not_parse_is_refused_and_the_part_named(
    value: str | float | Mapping[str, str | int | float], named: str
) -> None:
    with pytest.raises(UnitError, match="devices: ") as caught:
        parse_devices(value)
    assert named in str(caught.value)
    assert caught.value.hint


@given(text=st.text(max_size=20))
def test_any_text_is_a_request_that_reads_back_or_a_unit_error(text: str) -> None:
    try:
        requests = parse_devices(text)
    except UnitError as error:
        assert error.hint  # noqa: PT017 - either outcome is right
        return
    assert all(request.min_devices >= 1 for request in requests)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1000), (-1, 1), (2000, 1000), (1500, 1500), (500, 1000), (500, 600)]
)
def test_a_request_is_for_whole_devices_or_one_share(low: int, high: int) -> None:
    with pytest.raises(UnitError, match=f"{low}..{high} thousandths"):
        DeviceRequest(min_milli=low, max_milli=high)


def test_a_share_counts_as_one_device() -> None:
    share = one("0.25")
    assert (share.min_devices, share.max_devices, share.is_fraction) == (1, 1, True)
    gang = one("4..8")
    assert (gang.min_devices, gang.max_devices, gang.is_fraction) == (4, 8, False)
