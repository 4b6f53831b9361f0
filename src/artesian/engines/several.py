"""One engine made of several, so that one control plane spans them.

Node ``n1`` of the engine ``east`` is ``east/n1`` to the control plane; each engine keeps its own names.
"""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from artesian.engines.base import Clock, Engine, Report
from artesian.model.events import AttemptEnded, Event, NodeJoined, NodeLost
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.placement import Placement
from artesian.model.plan import Start, Stop


class Several:
    """Routes commands to the engine whose nodes they are for, by the name of the engine."""

    name = "several"

    def __init__(self, engines: Mapping[str, Engine], clock: Clock) -> None:
        self._engines = engines
        self._now_s = clock
        self._engine_of: dict[tuple[str, int], Engine] = {}
        self._report: Report | None = None

    async def open(self, report: Report) -> Sequence[Node]:
        """Open all, and return the nodes of all. Raises what one of them raises; then none is open."""
        self._report = report
        opened = await asyncio.gather(
            *(engine.open(self._reporter(name)) for name, engine in self._engines.items()),
            return_exceptions=True,
        )
        nodes: list[Node] = []
        for name, found in zip(self._engines, opened, strict=True):
            if isinstance(found, BaseException):
                await self.close()
                raise found
            nodes += [_outside(name, node) for node in found]
        return nodes

    async def close(self) -> None:
        """Close all; attempts run on."""
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))

    def start(self, command: Start, job: Job) -> None:
        """Have the attempt started by the engine that its nodes are of; no attempt spans two."""
        names = {share.node_id.partition("/")[0] for share in command.placement.shares}
        engine = self._engines.get(next(iter(names))) if len(names) == 1 else None
        if engine is None:
            is_known = names <= set(self._engines)
            cause = Cause.START_FAILED if is_known else Cause.NODE_LOST
            message = f"{command.placement}: no attempt can span several engines"
            if not is_known:
                message = f"{command.placement}: there is no such engine any more"
            self._end(command, Outcome(cause=cause, message=message))
            return
        self._engine_of[command.job_id, command.epoch] = engine
        shares = tuple(
            replace(share, node_id=share.node_id.partition("/")[2]) for share in command.placement.shares
        )
        engine.start(replace(command, placement=Placement(shares=shares)), job)

    def stop(self, command: Stop) -> None:
        """Have the attempt stopped by the engine that started it."""
        engine = self._engine_of.get((command.job_id, command.epoch))
        if engine is not None:
            engine.stop(command)

    def _reporter(self, name: str) -> Report:
        def report(event: Event) -> None:
            if isinstance(event, NodeJoined):
                event = replace(event, node=_outside(name, event.node))
            elif isinstance(event, NodeLost):
                event = replace(event, node_id=f"{name}/{event.node_id}")
            elif isinstance(event, AttemptEnded):
                self._engine_of.pop((event.job_id, event.epoch), None)
            self._say(event)

        return report

    def _end(self, command: Start, outcome: Outcome) -> None:
        self._say(
            AttemptEnded(at_s=self._now_s(), job_id=command.job_id, epoch=command.epoch, outcome=outcome)
        )

    def _say(self, event: Event) -> None:
        assert self._report is not None
        self._report(event)


def _outside(name: str, node: Node) -> Node:
    return replace(node, id=f"{name}/{node.id}")
