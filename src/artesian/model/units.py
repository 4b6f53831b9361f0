"""Durations and sizes: text to numbers and back."""

import re
from fractions import Fraction

from artesian.model.errors import UnitError

_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)")
_SIZE_NAMES = {name.lower(): size for name, size in _SIZE_BYTES.items()}


def parse_duration_s(text: str) -> float:
    """Return the seconds in a duration such as ``30m``, ``1h30m``, ``250ms`` or ``2d``.

    Raises UnitError for anything else, a bare number included: a number without a unit is a guess.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UnitError(
            f"duration: expected a number with a unit, such as 30m or 1h30m, got {text!r}",
            hint="units are ms, s, m, h and d",
        )
    return sum(float(number) * _DURATION_S[unit] for number, unit in parts)


def parse_size_bytes(text: str) -> int:
    """Return the bytes in a size such as ``80GB`` (10⁹) or ``512MiB`` (2²⁰), in any letter case.

    Raises UnitError for anything else.
    """
    match = re.fullmatch(_SIZE.pattern, text.strip(), re.IGNORECASE)
    if match is None:
        raise UnitError(
            f"size: expected a number with a unit, such as 80GB or 512MiB, got {text!r}",
            hint="units are B, KB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (powers of 1024)",
        )
    return round(Fraction(match[1]) * _SIZE_NAMES[match[2].lower()])


def format_duration(seconds: float) -> str:
    """Return ``seconds`` as people write it: ``0.25 s``, ``42.0 s``, ``3m20s``, ``2h05m``, ``3d04h``."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def format_size(size_bytes: int) -> str:
    """Return ``size_bytes`` with a binary unit and three digits: ``512 MiB``, ``23.4 GiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.5:
            return f"{value:.0f} {unit}" if value >= 99.95 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_flops(flops: float) -> str:
    """Return a rate in FLOP/s with a decimal unit: ``61.2 GFLOP/s``, ``989 TFLOP/s``."""
    for unit, scale in (("PFLOP/s", 1e15), ("TFLOP/s", 1e12), ("GFLOP/s", 1e9)):
        if flops >= 0.9995 * scale:
            return f"{_three_digits(flops / scale)} {unit}"
    return f"{_three_digits(flops / 1e6)} MFLOP/s"


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
