"""What Slurm has for us: the nodes on offer, as the control plane was last told, and what changes.

The last word is kept in a file. Where Slurm does not answer as the control plane starts, its nodes are
still known, and what runs on them is not taken for lost.
"""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import asdict, replace

from artesian.engines.base import Clock
from artesian.engines.slurm.attempts import Submission
from artesian.engines.slurm.client import SlurmClient
from artesian.engines.slurm.inventory import Amount, Held, Offer, offers_of
from artesian.engines.slurm.parse import SlurmNode
from artesian.engines.slurm.settings import SlurmSettings
from artesian.engines.watching import Refused, Unreachable
from artesian.model.errors import ArtesianError
from artesian.model.events import NodeJoined, NodeLost
from artesian.model.fleet import Node

_RACKS_EVERY = 100
"""Looks at the nodes between two questions for their racks: these change when somebody configures Slurm anew."""


class SlurmUnreachable(ArtesianError):  # noqa: N818 - reads as what it is
    """Slurm does not answer, and never has: there is nothing to go on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one of our attempts takes. ``is_granted``: Slurm counts it as used."""

    submission: Submission
    is_granted: bool


class Stock:
    """The nodes on offer, kept in ``file``. ``offers`` is what Slurm last said; None while it has said nothing."""

    def __init__(self, file: Path, settings: SlurmSettings, client: SlurmClient) -> None:
        self._file = file
        self._settings = settings
        self._client = client
        self._partition: str | None = None
        self._told: dict[str, Node] = {}
        self._seen: dict[str, Node] = {}
        self._racks: Mapping[str, str] = {}
        self._racked: set[str] | None = None
        self._looks = 0
        self.offers: dict[str, Offer] | None = None

    async def open(self, taken: Sequence[Taken]) -> Sequence[Node]:
        """Return the nodes on offer. Raises Unreachable, Refused and ParseError."""
        await self._refresh(taken)
        self._told = dict(self._seen)
        await asyncio.to_thread(self._save)
        return list(self._told.values())

    async def open_blind(self, error: Exception) -> Sequence[Node]:
        """Return the nodes of the last time, closed for all that is new. Raises SlurmUnreachable without any."""
        try:
            nodes = await asyncio.to_thread(self._load)
        except OSError:
            raise SlurmUnreachable(
                f"Slurm cannot be used: {error}",
                hint=(error.hint if isinstance(error, Unreachable) else None)
                or "try sinfo where artesian calls it; see [engines] in artesian.toml: ssh, conf, partition",
            ) from error
        self._told = {node.id: replace(node, occupied=tuple(range(node.devices))) for node in nodes}
        return list(self._told.values())

    async def changes(self, taken: Sequence[Taken], clock: Clock) -> list[NodeJoined | NodeLost]:
        """Return what is new about the nodes.

        What others occupy counts once it was seen twice in a row: nodes and jobs are two questions, and a
        job that begins between them looks like somebody else's.
        """
        before = self._seen
        await self._refresh(taken)
        at_s = clock()
        events: list[NodeJoined | NodeLost] = [
            NodeLost(at_s=at_s, node_id=id_) for id_ in self._told if id_ not in self._seen
        ]
        for id_, node in self._seen.items():
            told = self._told.get(id_)
            is_same_otherwise = told is not None and replace(told, occupied=node.occupied) == node
            if node != told and (not is_same_otherwise or before.get(id_) == node):
                events.append(NodeJoined(at_s=at_s, node=node))
        for event in events:
            if isinstance(event, NodeJoined):
                self._told[event.node.id] = event.node
            else:
                del self._told[event.node_id]
        if events:
            await asyncio.to_thread(self._save)
        return events

    async def _refresh(self, taken: Sequence[Taken]) -> None:
        settings = self._settings
        if settings.partition is None and self._partition is None:
            self._partition = await self._client.default_partition()
        nodes: list[SlurmNode] = await self._client.nodes()
        racks = await self._racks_of({node.name for node in nodes})
        self.offers = offers_of(
            nodes,
            held_by_node(taken),
            partition=settings.partition or self._partition,
            pool=settings.pool,
            accelerators=settings.accelerators,
            racks=racks,
        )
        self._seen = {id_: offer.node for id_, offer in self.offers.items()}

    async def _racks_of(self, names: set[str]) -> Mapping[str, str]:
        """Return the racks of the nodes. Slurm is asked again for other nodes, and every now and then."""
        self._looks += 1
        if names != self._racked or self._looks >= _RACKS_EVERY:
            with suppress(Unreachable, Refused):  # racks are a preference: what was known is good enough
                self._racks = await self._client.racks()
                self._racked, self._looks = names, 0
        return self._racks

    def _save(self) -> None:
        private = self._file.with_suffix(f".{os.getpid()}")
        with suppress(OSError):  # without it, a start without Slurm has to wait for Slurm
            private.write_text(json.dumps([asdict(node) for node in self._told.values()]))
            private.rename(self._file)

    def _load(self) -> list[Node]:
        entries = json.loads(self._file.read_bytes())
        return [Node(**{**entry, "occupied": tuple(entry["occupied"])}) for entry in entries]


def held_by_node(taken: Sequence[Taken]) -> dict[str, Held]:
    """Return what our attempts have on each node."""
    held: dict[str, Held] = {}
    for entry in taken:
        for id_, devices in entry.submission.devices.items():
            known, amount = held.get(id_, Held()), entry.submission.amounts.get(id_, Amount())
            held[id_] = Held(
                devices=known.devices | devices,
                planned=known.planned + amount,
                granted=known.granted + (amount if entry.is_granted else Amount()),
            )
    return held
