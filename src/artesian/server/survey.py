"""A census of every node of an engine: one job of the engine on each, which measures it.

The jobs are not the control plane's: they go to the engine directly, under a name of their own, so that the
engine's own scheduler, and the control plane as well, see the nodes as taken by somebody else for that while. Each
takes all devices of its node: what is measured beside other work is nobody's ceiling.
"""

import asyncio
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artesian.census import Census, CensusError
from artesian.census.on_node import NO_BENCHMARK
from artesian.engines.base import Clock, Engine, HostNode, Site
from artesian.engines.local.engine import attempt_folder
from artesian.engines.registry import engine as kind_of
from artesian.model.errors import ArtesianError
from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Start, Stop
from artesian.model.resources import MILLI, DeviceRequest

_PATIENCE: Mapping[str, str] = {"slurm": "pending_limit_s", "ray": "group_timeout_s"}
"""The option of each kind of engine that says how long an attempt may wait for its devices."""
_IMPATIENT_S, _PATIENT_S = 15.0, 1e6
_GRACE_S = 5.0
_LAST_WORDS = 200


class NoSuchNode(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """A census was asked for of a node that the engine does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """What became of the census of one node: ``census``, or ``problem``, which says why there is none.

    ``is_busy``: others have devices of the node, so that it could not be measured now.
    """

    node: Node
    census: Census | None = None
    problem: str | None = None
    is_busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which nodes to measure, and how. ``only``: these nodes, without any, all.

    ``waits``: for nodes that are busy; otherwise they are passed over. ``at_once`` nodes are measured at one time.
    ``timeout_s`` is for one node, from its start.
    """

    only: Collection[str] = ()
    has_benchmark: bool = True
    waits: bool = False
    at_once: int = 64
    timeout_s: float = 900.0


async def survey(
    name: str,
    table: Mapping[str, Any],
    root: Path,
    hosts: Sequence[HostNode],
    clock: Clock,
    request: Request,
    tell: Callable[[Surveyed], None],
) -> list[Surveyed]:
    """Return what became of each node of the engine, in the order of their ids; ``tell`` hears of each at once.

    ``table`` is the engine's in ``artesian.toml``. Its files lie below ``root`` for that while. Raises NoSuchNode,
    and whatever opening the engine raises.
    """
    options = {key: value for key, value in table.items() if key != "kind"}
    if (patience := _PATIENCE.get(table["kind"])) is not None:
        options[patience] = _PATIENT_S if request.waits else _IMPATIENT_S
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = kind_of(table["kind"])(Site(name=name, root=root, hosts=hosts, clock=clock, options=options))
    asked = _Asked(engine, root, str(options.get("python", sys.executable)), request)
    nodes = await engine.open(asked.hear)
    try:
        chosen = _chosen(name, nodes, request.only)
        gate = asyncio.Semaphore(request.at_once)

        async def one(node: Node) -> Surveyed:
            async with gate:
                found = await asked.of(node)
            tell(found)
            return found

        return list(await asyncio.gather(*(one(node) for node in chosen)))
    finally:
        await engine.close()


def _chosen(name: str, nodes: Sequence[Node], only: Collection[str]) -> list[Node]:
    by_id = {node.id: node for node in nodes}
    for id_ in only:
        if id_ not in by_id:
            known = ", ".join(sorted(by_id)[:8]) + (", …" if len(by_id) > 8 else "")
            raise NoSuchNode(
                f"node {id_!r}: engine {name} has no such node", hint=f"its nodes: {known or 'none'}"
            )
    return [by_id[id_] for id_ in sorted(only or by_id)]


class _Asked:
    """The jobs under way."""

    def __init__(self, engine: Engine, root: Path, python: str, request: Request) -> None:
        self._engine = engine
        self._root = root
        self._python = python
        self._request = request
        self._run = secrets.token_hex(4)
        self._started: dict[str, asyncio.Event] = {}
        self._ends: dict[str, asyncio.Future[Outcome]] = {}

    def hear(self, event: Event) -> None:
        """Take in what the engine reports."""
        if isinstance(event, AttemptStarted) and event.job_id in self._started:
            self._started[event.job_id].set()
        elif isinstance(event, AttemptEnded) and event.job_id in self._ends:
            self._ends[event.job_id].set_result(event.outcome)

    async def of(self, node: Node) -> Surveyed:
        """Return the census of a node."""
        if node.occupied and not self._request.waits:
            taken = f"{len(node.occupied)} of its {node.devices} devices are taken"
            return Surveyed(node=node, is_busy=True, problem=taken)
        job = self._job(node)
        self._started[job.id] = asyncio.Event()
        end = self._ends[job.id] = asyncio.get_running_loop().create_future()
        place = Placement(shares=(NodeShare(node_id=node.id, devices=tuple(range(node.devices))),))
        self._engine.start(Start(job_id=job.id, epoch=1, placement=place, reason="a census"), job)
        try:
            return await self._end_of(node, job, end)
        finally:
            await asyncio.to_thread(self._tidy, job)

    async def _end_of(self, node: Node, job: Job, end: asyncio.Future[Outcome]) -> Surveyed:
        started = asyncio.create_task(self._started[job.id].wait())
        try:
            either: set[asyncio.Future[Any]] = {started, end}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({end}, timeout=self._request.timeout_s)
            if not end.done():
                self._stop(job)
                await end
                return Surveyed(node=node, problem=f"it did not end within {self._request.timeout_s:g} s")
        except asyncio.CancelledError:
            self._stop(job)
            with suppress(TimeoutError):  # the engine is told; whoever interrupts us need not wait for ever
                await asyncio.wait_for(asyncio.shield(end), 2 * _GRACE_S)
            raise
        finally:
            started.cancel()
        return await asyncio.to_thread(self._read, node, job, end.result())

    def _read(self, node: Node, job: Job, outcome: Outcome) -> Surveyed:
        folder = attempt_folder(self._root, job.id, 1)
        if outcome.cause is Cause.COMPLETED:
            try:
                return Surveyed(node=node, census=Census.from_json(folder.stdout.read_bytes()))
            except (OSError, CensusError) as error:
                return Surveyed(node=node, problem=f"its census cannot be read: {error}")
        said = ""
        with suppress(OSError):
            said = folder.stderr.read_text(errors="replace").strip()[-_LAST_WORDS:].rpartition("\n")[2]
        why = f"{outcome.cause.value.replace('_', ' ')}: {outcome.message}".removesuffix(": ")
        # Taken back before it began: others have the devices, whatever the engine said about them.
        is_busy = outcome.cause is Cause.PREEMPTED and not self._started[job.id].is_set()
        return Surveyed(node=node, problem=f"{why}; {said}" if said else why, is_busy=is_busy)

    def _job(self, node: Node) -> Job:
        command = [self._python, "-I", "-m", "artesian.census.on_node"]
        number, milli = len(self._ends), node.devices * MILLI
        return Job(
            id=f"census-{self._run}-{number}",
            name="census",
            command=(*command, *(() if self._request.has_benchmark else (NO_BENCHMARK,))),
            devices=(DeviceRequest(min_milli=milli, max_milli=milli),),
            workdir="/",
            workers=0,
            grace_s=_GRACE_S,
        )

    def _stop(self, job: Job) -> None:
        stop = Stop(job_id=job.id, epoch=1, grace_s=_GRACE_S, cause=Cause.CANCELLED, reason="a census")
        self._engine.stop(stop)

    def _tidy(self, job: Job) -> None:
        """Take the files of the job away: what they told is in the state."""
        folder = self._root / job.id
        shutil.rmtree(folder.resolve(), ignore_errors=True)
        if folder.is_symlink():  # the engine has a shared folder of its own
            folder.unlink(missing_ok=True)
