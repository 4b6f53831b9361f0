"""Ground floor: published figures of accelerators, and the names by which they go. Standard library only.

``accelerators.csv``  one row per model, from public sources, with a confidence each
``accelerators``      the rows as data, and finding one by name
``aliases``           the names that vendors' tools print, and what people type

A device that is not in here is unknown: it has no peak, and so nothing is computed against one.
"""

from artesian.catalog.accelerators import (
    Accelerator,
    Confidence,
    accelerators,
    families,
    find,
    matches,
    vendors,
)

__all__ = ["Accelerator", "Confidence", "accelerators", "families", "find", "matches", "vendors"]
