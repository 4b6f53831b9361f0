"""Accelerators: what the vendors say that a device can do, and how far that is to be believed.

Figures are per device as sold: a card with two chips (MI250X, 910C) is one row, though its driver may
show each chip as a device of half the size.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import cache
from pathlib import Path

from artesian.catalog.aliases import ALIASES

_TABLE = Path(__file__).with_name("accelerators.csv")

_VENDOR_KEYS = {
    "NVIDIA": "nvidia",
    "AMD": "amd",
    "Huawei Ascend": "ascend",
    "Cambricon": "cambricon",
    "Hygon": "hygon",
    "Kunlunxin": "kunlunxin",
    "Moore Threads": "mthreads",
    "Biren": "biren",
    "MetaX": "metax",
    "Enflame": "enflame",
    "Iluvatar CoreX": "iluvatar",
    "Intel": "intel",
    "Google": "google",
    "AWS": "aws",
    "T-Head": "thead",
}


class Confidence(StrEnum):
    """How far a row's figures are to be believed."""

    HIGH = "high"
    """The vendor's own figures, or several independent sources that agree."""
    MEDIUM = "medium"
    """One good source, or sources that differ by a little."""
    LOW = "low"
    """Sources contradict each other, or there is hardly one: measure the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A device model. A figure that is not published is None.

    ``vendor`` is the lower-case key used in resource strings, ``vendor_name`` its spelling.
    ``family`` groups models that a user may mean by one word: ``H100`` is the SXM5, PCIe and NVL models.
    ``peak_flops`` is dense FP16/BF16 with FP32 accumulation, in FLOP/s. ``memory_bytes`` counts a
    card sold as "80 GB" as 80 GiB, which is what its memory chips hold. Bandwidths are in bytes/s,
    that of the interconnect both directions together; ``tdp_w`` is in watts.
    """

    vendor: str
    vendor_name: str
    model: str
    family: str
    form_factor: str
    peak_flops: float | None
    memory_bytes: int | None
    memory_bytes_per_s: float | None
    interconnect: str | None
    interconnect_bytes_per_s: float | None
    tdp_w: float | None
    confidence: Confidence
    notes: str

    @property
    def trusted_peak_flops(self) -> float | None:
        """``peak_flops``, or None where the published figure is too doubtful to compute with."""
        return None if self.confidence is Confidence.LOW else self.peak_flops

    @property
    def trusted_memory_bytes_per_s(self) -> float | None:
        """``memory_bytes_per_s``, or None where the published figure is too doubtful to compute with."""
        return None if self.confidence is Confidence.LOW else self.memory_bytes_per_s


def accelerators() -> tuple[Accelerator, ...]:
    """Return every accelerator of the catalogue, in its order."""
    return _rows()


def find(name: str) -> Accelerator | None:
    """Return the accelerator that goes by ``name``: its model name or an alias, or None.

    Case and runs of whitespace do not matter; everything else does. There is no guessing by prefix:
    ``NVIDIA H100 80GB HBM3e Custom`` is None, and so is the name of a family with several models.
    """
    return _by_name().get(_normalised(name))


def matches(requested: str, accelerator_name: str) -> bool:
    """Return whether a device called ``accelerator_name`` is what ``requested`` asks for.

    ``requested`` is a family (``H100``), a model or an alias. A device that the catalogue does not
    know matches by equality of the names only, case aside.
    """
    wanted = _normalised(requested)
    if wanted == _normalised(accelerator_name):
        return True
    accelerator = find(accelerator_name)
    if accelerator is None:
        return False
    return wanted == _normalised(accelerator.family) or find(requested) is accelerator


def families() -> tuple[str, ...]:
    """Return the names of the families, in the catalogue's order."""
    return tuple(dict.fromkeys(row.family for row in _rows()))


def vendors() -> tuple[str, ...]:
    """Return the vendors' keys, lower case, in the catalogue's order."""
    return tuple(dict.fromkeys(row.vendor for row in _rows()))


@cache
def _rows() -> tuple[Accelerator, ...]:
    with _TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(_accelerator(row) for row in csv.DictReader(file))


@cache
def _by_name() -> Mapping[str, Accelerator]:
    names = {_normalised(row.model): row for row in _rows()}
    for row in _rows():
        for alias in ALIASES.get(row.model, ()):
            names.setdefault(_normalised(alias), row)
    return names


def _normalised(name: str) -> str:
    return " ".join(name.split()).casefold()


def _accelerator(row: Mapping[str, str]) -> Accelerator:
    memory_gib = _number(row["memory_gb"])
    return Accelerator(
        vendor=_VENDOR_KEYS[row["vendor"]],
        vendor_name=row["vendor"],
        model=row["model"],
        family=row["family"],
        form_factor=row["form_factor"],
        peak_flops=_scaled(row["peak_bf16_fp16_dense_tflops"], 12),
        memory_bytes=None if memory_gib is None else int(memory_gib * 2**30),
        memory_bytes_per_s=_scaled(row["mem_bw_tb_s"], 12),
        interconnect=row["interconnect"] or None,
        interconnect_bytes_per_s=_scaled(row["interconnect_gb_s"], 9),
        tdp_w=_scaled(row["tdp_w"], 0),
        confidence=Confidence(row["confidence"]),
        notes=row["notes"],
    )


def _number(text: str) -> Decimal | None:
    return Decimal(text) if text else None


def _scaled(text: str, exponent: int) -> float | None:
    # In decimal, so that 165.2 TFLOPS is 165200000000000 and not one rounding error less.
    number = _number(text)
    return None if number is None else float(number.scaleb(exponent))
