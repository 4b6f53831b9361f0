"""What a figure rests on, in words."""

from collections.abc import Collection, Iterable, Mapping

from artesian.model.ledger import Ceiling
from artesian.model.units import format_flops

_NAMED = 3
"""Names in a list before it says how many more there are."""


def ceiling_text(ceilings: Iterable[Ceiling]) -> str:
    """Return what MFU is taken against: ``measured fp32, 61.2 GFLOP/s per device``."""
    by_basis: dict[str, list[float]] = {}
    for ceiling in ceilings:
        by_basis.setdefault(ceiling.basis, []).append(ceiling.flops)
    return " and ".join(f"{basis}, {_range(by_basis[basis])} per device" for basis in sorted(by_basis))


def ceiling_note(has_nameplate: Mapping[Ceiling, bool]) -> tuple[str, ...]:
    """Return the note about the ceilings that were used; none when none was.

    ``has_nameplate`` says of each whether a nameplate is known for its devices.
    """
    if not has_nameplate:
        return ()
    is_unknown = not any(has_nameplate.values())
    return (
        f"MFU against {ceiling_text(has_nameplate)}{' (nameplate unknown)' if is_unknown else ''}",
        "model FLOPs: by the formula, causal attention counted half",
    )


def unknown_flops_notes(
    *,
    is_flops_missing: bool,
    no_ceiling: Collection[tuple[str, str | None]],
    above_ceiling: Collection[str],
) -> tuple[str, ...]:
    """Return why the model FLOPs are unknown."""
    notes = []
    if is_flops_missing:
        notes.append("model FLOPs are unknown: not every step told its FLOPs")
    if no_ceiling:
        named = _names(f"{dtype or 'an untold dtype'} on {node}" for node, dtype in no_ceiling)
        notes.append(f"model FLOPs are unknown: no ceiling is known for {named}")
    if above_ceiling:
        notes.append(
            f"model FLOPs are unknown: more FLOPs were told than the ceiling allows, in {_names(above_ceiling)}"
        )
    return tuple(notes)


def _range(flops: list[float]) -> str:
    low, high = format_flops(min(flops)), format_flops(max(flops))
    return low if low == high else f"{low} to {high}"


def _names(names: Iterable[str]) -> str:
    known = sorted(names)
    more = len(known) - _NAMED
    return ", ".join(known[:_NAMED]) + (f" and {more} more" if more > 0 else "")
