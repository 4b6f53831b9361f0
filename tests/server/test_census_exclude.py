"""A census of an engine's nodes tells which of them are slow against their like, and has them excluded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from artesian.census import Census, discover
from artesian.cli import survey
from artesian.server.fleet import nodes_of
from artesian.server.node_census import NodeCensuses
from artesian.server.survey import Request, Surveyed
from builders import a_node
from censuses import FAST, H100, census, figure
from cli_harness import Cli

REQUEST = Request(only=(), has_benchmark=True, waits=False, at_once=1)


def measured(bf16: float) -> Census:
    return census(H100, replace(FAST, bf16_flops=figure(bf16)))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """A state that has the censuses of three fast nodes; this machine's own, which is slow, comes in next."""
    cli = Cli(tmp_path)
    monkeypatch.setenv("ARTESIAN_STATE", str(cli.state.path))
    NodeCensuses(cli.state.node_censuses).save(
        (a_node(f"h{number}"), measured(700e12 + number)) for number in range(3)
    )
    node = nodes_of(discover())[0].node

    async def taken(*_: object) -> list[Surveyed]:
        return [Surveyed(node=node, census=measured(600e12))]

    monkeypatch.setattr(survey, "_survey", taken)
    try:
        yield cli
    finally:
        cli.end()


def test_a_slow_node_is_said_with_how_to_exclude_it(cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    survey.take("local", REQUEST, "text", excludes=False)
    said = capfd.readouterr()
    name = nodes_of(discover())[0].node.id
    assert "bf16 at 86% of the SKU's baseline" in said.out
    assert f"hint: artesian nodes exclude {name} --reason" in said.err
    cached = {node["node"]: node for node in cli.json("census", "--engine", "local", "--cached")["nodes"]}
    assert "at 86%" in cached[name]["unfit"]
    assert cached["h0"]["unfit"] is None
    assert cli.json("nodes")[0]["state"] == "up", "nobody asked"


def test_a_slow_node_is_excluded_where_that_is_asked_for(cli: Cli) -> None:
    assert cli.json("nodes")[0]["state"] == "up"  # from here on there is a daemon, and it is not ours
    survey.take("local", REQUEST, "text", excludes=True)
    (node,) = cli.json("nodes")
    assert node["state"] == "excluded"
    assert node["excluded"].startswith("census: device 0: ")
    assert "--exclude goes by a census that is taken now" in (
        cli("census", "--engine", "local", "--cached", "--exclude", code=2).stderr
    )
