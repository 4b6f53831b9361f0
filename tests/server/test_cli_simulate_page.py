"""The page of a simulation, and nodes that fail in it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cli_harness import Cli
from trace_files import FOUR_JOBS, SMALL_FLEET


@pytest.fixture
def files(cli: Cli) -> tuple[Path, Path]:
    jobs, fleet = cli.folder / "jobs.csv", cli.folder / "fleet.csv"
    jobs.write_text(FOUR_JOBS)
    fleet.write_text(SMALL_FLEET)
    return jobs, fleet


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_the_page_has_every_policy_and_chart_and_asks_nobody_for_anything(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    jobs, fleet = files
    page = cli.folder / "out.html"
    arguments = ("simulate", "--jobs", jobs, "--fleet", fleet, "--policy", "fifo,easy", "--html", page)
    cli(*arguments)
    text = page.read_text()
    found = _Page(text)
    assert found.text.count("fifo") >= 3
    assert found.text.count("easy") >= 3
    assert "simulated" in found.text
    tags = [tag for tag, _ in found.tags]
    assert tags.count("svg") == 4  # allocation, completion, and who ran where by policy
    assert "script" not in tags
    for tag, attributes in found.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), (tag, name, target)
    assert not re.search(r"url\((?!#)", text)
    before = page.read_bytes()
    cli(*arguments)
    assert page.read_bytes() == before


def test_a_page_that_cannot_be_written_is_told_before_the_work(cli: Cli, files: tuple[Path, Path]) -> None:
    jobs, fleet = files
    for path, expected in (("out.pdf", ".html"), ("no/such/out.html", "no folder")):
        done = cli("simulate", "--jobs", jobs, "--fleet", fleet, "--html", cli.folder / path, code=1)
        assert expected in done.stderr
        assert not done.stdout


def test_failures_cost_what_the_seed_says_and_show_in_the_waterfall(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    jobs, fleet = files
    arguments = (
        *("simulate", "--jobs", jobs, "--fleet", fleet, "--failures", "8/node-hour", "--repair", "1m"),
        *("--checkpoint-every", "30s", "--restart-cost", "5s"),
    )
    quiet, first, again, other = (
        cli.json(*arguments[:5]),
        *(cli.json(*arguments, "--seed", str(seed)) for seed in (1, 1, 2)),
    )
    assert first == again
    assert first["policies"][0]["jobs"] != other["policies"][0]["jobs"]
    (calm,), (disturbed,) = quiet["policies"], first["policies"]
    assert disturbed["makespan_s"] > calm["makespan_s"]
    lost = {loss["cause"] for stage in disturbed["waterfall"]["stages"] for loss in stage["lost"]}
    assert {"node_lost", "start_up", "recovery", "lost_work"} <= lost
    assert all(entry["state"] == "succeeded" for entry in disturbed["jobs"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--failures", "often"), "expected a rate with a unit"),
        (("--failures", "1/node-day", "--repair", "0s"), "repair_s"),
        (("--restart-cost", "3"), "3"),
    ],
)
def test_what_is_wrong_with_failures_is_told(
    cli: Cli, files: tuple[Path, Path], options: tuple[str, ...], expected: str
) -> None:
    jobs, fleet = files
    assert expected in cli("simulate", "--jobs", jobs, "--fleet", fleet, *options, code=2).stderr
