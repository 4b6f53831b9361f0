"""One engine made of several: names, routes, and what cannot be."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from artesian.engines.base import Report
from artesian.engines.several import Several
from artesian.model.events import AttemptEnded, Event, NodeLost
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.plan import Start, Stop
from artesian.server.settings import Settings, SettingsError
from builders import a_job, a_node, a_placement, joined


class Fake:
    """An engine that only notes what it is told."""

    name = "fake"

    def __init__(self, *nodes: Node, error: Exception | None = None) -> None:
        self.nodes = nodes
        self.error = error
        self.told: list[Start | Stop] = []
        self.is_open = False
        self.say: Report = print

    async def open(self, report: Report) -> Sequence[Node]:
        if self.error is not None:
            raise self.error
        self.say, self.is_open = report, True
        return self.nodes

    def start(self, command: Start, job: Job) -> None:
        self.told.append(command)

    def stop(self, command: Stop) -> None:
        self.told.append(command)

    async def close(self) -> None:
        self.is_open = False


def a_start(job_id: str, *node_ids: str) -> Start:
    placement = a_placement(*((id_, [0]) for id_ in node_ids))
    return Start(job_id=job_id, epoch=1, placement=placement, reason="a test")


def a_stop(job_id: str) -> Stop:
    return Stop(job_id=job_id, epoch=1, grace_s=1.0, cause=Cause.CANCELLED, reason="a test")


def test_nodes_of_the_same_name_are_told_apart_and_commands_find_their_engine() -> None:
    east, west = Fake(a_node("n1")), Fake(a_node("n1"), a_node("n2"))
    both = Several({"east": east, "west": west}, lambda: 5.0)
    events: list[Event] = []
    nodes = asyncio.run(both.open(events.append))
    assert [node.id for node in nodes] == ["east/n1", "west/n1", "west/n2"]
    both.start(a_start("j1", "west/n1", "west/n2"), a_job("j1"))
    both.stop(a_stop("j1"))
    assert east.told == []
    assert west.told == [a_start("j1", "n1", "n2"), a_stop("j1")]
    west.say(joined(a_node("n3"), 1.0))
    east.say(NodeLost(at_s=2.0, node_id="n1"))
    west.say(AttemptEnded(at_s=3.0, job_id="j1", epoch=1, outcome=Outcome(cause=Cause.COMPLETED)))
    assert events[0] == joined(replace(a_node("n3"), id="west/n3"), 1.0)
    assert events[1] == NodeLost(at_s=2.0, node_id="east/n1")
    both.stop(a_stop("j1"))
    assert len(west.told) == 2, "its end is reported already"


@pytest.mark.parametrize(
    ("node_ids", "cause"),
    [
        (("east/n1", "west/n1"), Cause.START_FAILED),
        (("north/n1",), Cause.NODE_LOST),
        (("n1",), Cause.NODE_LOST),
    ],
)
def test_what_is_of_no_one_engine_ends_at_once(node_ids: tuple[str, ...], cause: Cause) -> None:
    both = Several({"east": Fake(a_node("n1")), "west": Fake(a_node("n1"))}, lambda: 5.0)
    events: list[Event] = []
    asyncio.run(both.open(events.append))
    both.start(a_start("j1", *node_ids), a_job("j1"))
    (end,) = events
    assert isinstance(end, AttemptEnded)
    assert (end.outcome.cause, end.at_s) == (cause, 5.0)


def test_where_one_does_not_open_none_stays_open() -> None:
    east = Fake(a_node("n1"))
    both = Several({"east": east, "west": Fake(error=RuntimeError("away"))}, lambda: 5.0)
    with pytest.raises(RuntimeError, match="away"):
        asyncio.run(both.open(print))
    assert not east.is_open


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('engines = "slurm"', "engines: expected tables", "[engines.cluster]"),
        ("[engines.a]", "engines.a: expected a table with a kind", "kind ="),
        ('[engines."a/b"]\nkind = "slurm"', "engines.a/b: expected a name", "[engines.cluster]"),
        ('[engines.a]\nkind = "slrum"', "engine 'slrum' is not known", "known engines: local, "),
        ('[engines.a]\nkind = "slurm"\npartitoin = "x"', "partitoin is no key", "did you mean partition?"),
        ('[engines.a]\nkind = "local"\nx = 1', "x is no key of an engine of kind local", ""),
    ],
)
def test_engines_that_cannot_be_are_named_with_a_hint(
    tmp_path: Path, text: str, said: str, hint: str
) -> None:
    path = tmp_path / "artesian.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        Settings.load(path)
    assert said in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_engines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "artesian.toml"
    path.write_text(
        'policy = "easy"\n[engines.here]\nkind = "local"\n[engines.far]\nkind = "slurm"\nssh = "far"\n'
    )
    found: Any = Settings.load(path)
    assert found.policy == "easy"
    assert found.engines == {"here": {"kind": "local"}, "far": {"kind": "slurm", "ssh": "far"}}
