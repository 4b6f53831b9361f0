"""The censuses of an engine's nodes, kept in the state folder, and the ceilings that follow from them.

Each node's latest census is a file of its own. What they say about ceilings is in one more file, made of them at
every census: the waterfall reads that one, however many nodes there are.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from artesian.catalog import matches
from artesian.census import Census, CensusError
from artesian.kernel.accounting import Ceilings
from artesian.model.fleet import Node
from artesian.model.ledger import Ceiling
from artesian.model.resources import CPU
from artesian.server.fleet import ceiling_of_each

_CEILINGS = "ceilings.json"
_SUFFIX = ".census.json"
_UNNAMED = frozenset({"gpu", "npu"})
"""What an engine calls devices of which it knows no model."""


@dataclass(frozen=True, slots=True)
class NodeCensuses:
    """The censuses in ``folder``, which need not be there yet."""

    folder: Path

    def save(self, found: Iterable[tuple[Node, Census]]) -> None:
        """Keep these, each in the place of an older one of its node; a disturbed one not in that of a good one.

        Raises OSError.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ceilings = self._read()
        for node, census in found:
            path = self.folder / f"{quote(node.id, safe='')}{_SUFFIX}"
            if not census.is_good and _has_good(path):
                continue
            census.save(path)
            ceilings[node.id] = {
                dtype: {"flops": ceiling.flops, "basis": ceiling.basis}
                for dtype, ceiling in ceilings_of_node(node, census).items()
            }
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=f".{_CEILINGS}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(ceilings, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.folder / _CEILINGS)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def __iter__(self) -> Iterator[tuple[str, Census]]:
        """Yield the latest census of each node, in the order of their ids. Raises CensusError."""
        found = {unquote(path.name.removesuffix(_SUFFIX)): path for path in self.folder.glob(f"*{_SUFFIX}")}
        for id_ in sorted(found):
            yield id_, Census.load(found[id_])

    def ceilings(self) -> Ceilings:
        """Return the FLOP/s of one device by node id and dtype."""
        return {
            (id_, dtype): Ceiling(**ceiling)
            for id_, ceilings in self._read().items()
            for dtype, ceiling in ceilings.items()
        }

    def _read(self) -> dict[str, dict[str, Any]]:
        with suppress(FileNotFoundError):
            try:
                found: dict[str, dict[str, Any]] = json.loads((self.folder / _CEILINGS).read_bytes())
            except ValueError as error:
                raise CensusError(
                    f"{self.folder / _CEILINGS}: {error}", hint="take a new one: artesian census --engine"
                ) from error
            return found
        return {}


def ceilings_of_node(node: Node, census: Census) -> Mapping[str, Ceiling]:
    """Return the ceilings of one device of the node by dtype.

    An engine often says only a family (``h100``), or nothing but that there are devices (``gpu``); the census knows
    the model. None where it found no devices that the engine can mean, or several kinds of them.
    """
    found = list(ceiling_of_each(census))
    if node.accelerator in _UNNAMED:
        meant = [ceilings for kind, ceilings in found if kind.accelerator != CPU]
    else:
        meant = [ceilings for kind, ceilings in found if matches(node.accelerator, kind.accelerator)]
    return meant[0] if len(meant) == 1 else {}


def _has_good(path: Path) -> bool:
    try:
        return Census.load(path).is_good
    except (FileNotFoundError, CensusError):
        return False
