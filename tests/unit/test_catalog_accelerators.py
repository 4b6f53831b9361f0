"""The catalogue of accelerators: its rows, its names, and what a request matches."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian import catalog
from artesian.catalog import Accelerator, Confidence
from artesian.catalog.aliases import ALIASES

ROWS = catalog.accelerators()
NAMES = [*(row.model for row in ROWS), *(alias for names in ALIASES.values() for alias in names)]


def normalised(name: str) -> str:
    return " ".join(name.split()).casefold()


def known(name: str) -> Accelerator:
    accelerator = catalog.find(name)
    assert accelerator is not None, f"{name} is not in the catalogue"
    return accelerator


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.model)
def test_every_row_finds_itself_and_is_well_formed(row: Accelerator) -> None:
    assert catalog.find(row.model) is row
    assert row.family.strip()
    assert row.vendor == row.vendor.lower()
    assert row.vendor in catalog.vendors()
    for figure in (row.peak_flops, row.memory_bytes, row.memory_bytes_per_s, row.interconnect_bytes_per_s):
        assert figure is None or figure > 0
    assert row.peak_flops is None or 1e13 < row.peak_flops < 1e16
    assert row.memory_bytes_per_s is None or 1e11 < row.memory_bytes_per_s < 2e13


def test_no_name_means_two_things() -> None:
    counts = Counter(normalised(name) for name in NAMES)
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_alias_belongs_to_a_row_that_exists() -> None:
    assert set(ALIASES) <= {row.model for row in ROWS}


def test_a_name_that_is_also_a_family_means_a_model_of_that_family() -> None:
    families = {normalised(family): family for family in catalog.families()}
    for name in NAMES:
        if normalised(name) in families:
            assert known(name).family == families[normalised(name)]


@given(st.sampled_from(NAMES), st.sampled_from(["", " ", "  "]), st.booleans())
def test_case_and_whitespace_do_not_matter(name: str, padding: str, upper: bool) -> None:
    written = padding + (name.upper() if upper else name.lower()).replace(" ", " " + padding) + padding
    assert catalog.find(written) is known(name)


@given(st.sampled_from(NAMES), st.text(alphabet="abcXYZ0189-_", min_size=1, max_size=4))
def test_a_longer_name_is_another_device(name: str, suffix: str) -> None:
    longer = name + suffix
    if normalised(longer) not in {normalised(other) for other in NAMES}:
        assert catalog.find(longer) is None


@pytest.mark.parametrize(
    ("printed", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-SXM5-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIe-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL-94GB"),
        ("NVIDIA H200", "H200-SXM-141GB"),
        ("NVIDIA H20", "H20-96GB"),
        ("NVIDIA H800", "H800-SXM5-80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80GB"),
        ("Tesla V100-SXM2-32GB", "V100-SXM2-32GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA L40S", "L40S"),
        ("AMD Instinct MI300X OAM", "MI300X"),
        ("910B2", "910B2"),
        ("Ascend910B2", "910B2"),
        ("K100_AI", "DCU K100-AI"),
        ("MetaX C550", "C550"),
        ("Iluvatar BI-V150", "BI-V150"),
        ("TPU v5 lite", "TPU v5e"),
    ],
)
def test_what_the_vendors_tools_print_is_found(printed: str, model: str) -> None:
    assert known(printed).model == model


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 80GB HBM3e Custom",
        "NVIDIA H200 NVL",
        "NVIDIA H20-3e",
        "NVIDIA A10G",
        "NVIDIA GeForce RTX 4090 D",
        "Tesla V100-SXM2-16GB",
        "910B4-1",
        "Iluvatar BI-V150 OAM",
        "H100",
        "910B",
        "A1",
        "",
        "cpu",
    ],
)
def test_a_device_that_is_not_catalogued_is_unknown(name: str) -> None:
    assert catalog.find(name) is None


@pytest.mark.parametrize(
    ("requested", "device"),
    [
        ("H100", "NVIDIA H100 80GB HBM3"),
        ("h100", "NVIDIA H100 NVL"),
        ("A100", "NVIDIA A100 80GB PCIe"),
        ("910B", "Ascend910B3"),
        ("H100-PCIe-80GB", "NVIDIA H100 PCIe"),
        ("NVIDIA H100 PCIe", "H100-PCIe-80GB"),
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("H200", "h200"),
        ("cpu", "CPU"),
        ("Wonder Chip 1", "wonder  chip 1"),
    ],
)
def test_a_request_matches_a_device_of_its_family_model_or_name(requested: str, device: str) -> None:
    assert catalog.matches(requested, device)


@pytest.mark.parametrize(
    ("requested", "device"),
    [
        ("A10", "NVIDIA A100-SXM4-80GB"),
        ("A100", "NVIDIA A10"),
        ("H100-PCIe-80GB", "NVIDIA H100 80GB HBM3"),
        ("H20", "NVIDIA H200"),
        ("L40", "NVIDIA L40S"),
        ("H100", "NVIDIA H100 80GB HBM3e Custom"),
        ("H100", "cpu"),
        ("nvidia", "NVIDIA H100 PCIe"),
        ("", "NVIDIA H100 PCIe"),
    ],
)
def test_a_request_does_not_match_a_device_of_another_kind(requested: str, device: str) -> None:
    assert not catalog.matches(requested, device)


@given(st.sampled_from(ROWS), st.sampled_from(ROWS))
def test_a_family_matches_its_own_models_and_no_others(row: Accelerator, other: Accelerator) -> None:
    assert catalog.matches(other.family, row.model) == (other.family == row.family)


def test_a_doubtful_peak_is_published_but_not_trusted() -> None:
    doubtful = known("910B1")
    assert doubtful.confidence is Confidence.LOW
    assert doubtful.peak_flops == 414e12
    assert doubtful.trusted_peak_flops is None
    assert doubtful.trusted_memory_bytes_per_s is None


def test_a_trusted_peak_is_the_published_one_to_the_last_digit() -> None:
    assert known("RTX 4090").trusted_peak_flops == 165_200_000_000_000
    assert known("RTX 4090").trusted_memory_bytes_per_s == 1_008_000_000_000
    assert known("H100-SXM5-80GB").memory_bytes == 80 * 2**30


def test_a_peak_that_nobody_published_is_none() -> None:
    assert known("S60").confidence is Confidence.MEDIUM
    assert known("S60").trusted_peak_flops is None


def test_the_catalogue_lists_its_families_and_vendors_once() -> None:
    assert len(set(catalog.families())) == len(catalog.families())
    assert {"H100", "A100", "910B", "MI300X"} <= set(catalog.families())
    assert {"nvidia", "amd", "ascend", "cambricon", "hygon", "mthreads"} <= set(catalog.vendors())
