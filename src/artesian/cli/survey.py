"""``artesian census --engine NAME``: every node of an engine, measured by a job of its own."""

import asyncio
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
from msgspec import structs
from rich.console import Console, Group
from rich.text import Text

from artesian.census import Census, Peers, discover
from artesian.cli.measured import COLUMNS, measured_rows, measured_table
from artesian.cli.output import Failure, print_json, stderr, stdout
from artesian.cli.state import control_plane
from artesian.model.units import format_duration
from artesian.server.config import StateDir
from artesian.server.fleet import nodes_of
from artesian.server.node_census import NodeCensuses
from artesian.server.settings import Settings
from artesian.server.survey import Request, Surveyed, survey

_MOST_REASON = 500
"""Characters of a reason that a server takes."""

Tables = Mapping[str, Mapping[str, Any]]


def take(engine: str, request: Request, output: str, *, excludes: bool) -> None:
    """Take a census of the engine's nodes, keep what was measured, print it, and exclude the unfit if asked to."""
    tables = _tables(engine)
    state, talk = StateDir.from_env(), stderr()
    state.create()
    found = _named(tables, engine, asyncio.run(_survey(engine, tables[engine], state, request, talk)))
    kept = NodeCensuses(state.node_censuses)
    measured = [(each.node, each.census) for each in found if each.census is not None]
    kept.save(measured)
    peers = Peers(census for _, census in kept)
    if output == "json":
        print_json({"engine": engine, "nodes": [_plain(each, peers) for each in found]})
    else:
        _print([(node.id, census) for node, census in measured], peers)
    unfit = {node.id: why for node, census in measured if (why := peers.unfit(census)) is not None}
    if excludes and unfit:
        _exclude(unfit)
    elif unfit:
        talk.print(f"hint: artesian nodes exclude {shlex.join(unfit)} --reason TEXT", soft_wrap=True)
    if not any(each.census for each in found):
        raise Failure(
            f"no node of engine {engine} was measured",
            hint="--wait waits for nodes that are busy" if any(each.is_busy for each in found) else None,
        )


def show_latest(engine: str, output: str) -> None:
    """Print the latest census of each node of the engine."""
    tables = _tables(engine)
    prefix = _prefix(tables, engine)
    kept = NodeCensuses(StateDir.from_env().node_censuses)
    found = [(id_, census) for id_, census in kept if id_.startswith(prefix)]
    if not found:
        raise Failure(
            f"no census was taken of the nodes of engine {engine} yet",
            hint=f"artesian census --engine {engine}",
        )
    peers = Peers(census for _, census in kept)
    if output == "json":
        print_json({"engine": engine, "nodes": [_entry(id_, census, peers) for id_, census in found]})
    else:
        _print(found, peers)


def _exclude(unfit: Mapping[str, str]) -> None:
    with control_plane() as plane:
        for id_, why in unfit.items():
            node = plane.exclude(id_, reason=f"census: {why}"[:_MOST_REASON])
            click.echo(f"{node.id} is excluded", err=True)


def _tables(engine: str) -> Tables:
    tables: Tables = Settings.from_env().engines or {"local": {"kind": "local"}}
    if engine not in tables:
        raise Failure(
            f"engine {engine!r}: expected one of artesian.toml's, got a name that it has not",
            hint=f"its engines: {', '.join(sorted(tables))}",
        )
    return tables


async def _survey(
    engine: str, table: Mapping[str, Any], state: StateDir, request: Request, talk: Console
) -> list[Surveyed]:
    """Take the survey; SIGTERM ends it as Ctrl-C does, and its jobs with it."""
    hosts = nodes_of(discover()) if table["kind"] == "local" else ()
    taking = survey(engine, table, state.surveys / engine, hosts, time.time, request, _teller(talk))
    task = asyncio.ensure_future(taking)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _teller(talk: Console) -> Callable[[Surveyed], None]:
    def tell(each: Surveyed) -> None:
        if each.is_busy:
            talk.print(f"{each.node.id}: busy, left out: {each.problem}", soft_wrap=True)
        elif each.problem:
            talk.print(f"{each.node.id}: not measured: {each.problem}", soft_wrap=True)
        else:
            talk.print(f"{each.node.id}: done", style="dim")

    return tell


def _prefix(tables: Tables, engine: str) -> str:
    """Return what the control plane puts before the nodes' own names: that of one of several engines."""
    return f"{engine}/" if len(tables) > 1 else ""


def _named(tables: Tables, engine: str, found: Sequence[Surveyed]) -> list[Surveyed]:
    prefix = _prefix(tables, engine)
    return [replace(each, node=structs.replace(each.node, id=f"{prefix}{each.node.id}")) for each in found]


def _plain(each: Surveyed, peers: Peers) -> dict[str, Any]:
    entry = _entry(each.node.id, each.census, peers)
    return {**entry, "is_busy": each.is_busy, "problem": each.problem}


def _entry(id_: str, census: Census | None, peers: Peers) -> dict[str, Any]:
    return {
        "node": id_,
        "is_busy": False,
        "problem": None,
        "unfit": None if census is None else peers.unfit(census),
        "census": None if census is None else census.summary(peers.baselines(census)),
    }


def _print(found: Sequence[tuple[str, Census]], peers: Peers) -> None:
    table = measured_table(("node", *COLUMNS, "age"))
    notes = []
    for id_, census in found:
        age = format_duration(max(0.0, time.time() - census.at_s))
        for row in measured_rows(census, peers.baselines(census)):
            table.add_row(id_, *row, age)
        notes += [f"{id_}: {problem}" for problem in census.machine.problems]
        if not census.measurements:
            devices = ", ".join(f"{count} × {name}" for name, count in census.machine.device_counts.items())
            notes.append(f"{id_}: {devices}, not measured")
        if (unfit := peers.unfit(census)) is not None:
            notes.append(f"{id_}: {unfit}")
        notes += [f"{id_}: contended: {m.contention}" for m in census.measurements if m.contention]
    if found:
        stdout().print(Group(table, *(Text(note, style="dim") for note in notes)))
