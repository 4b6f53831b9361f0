"""A fleet in several centers: in a real Chromium, through the API, and by the commands with and without a server."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from artesian.server.ui.texts import Language, Texts
from ui_harness import DESKTOP, PHONE, Dashboard, Looker, a_dashboard

SETTINGS = """
[pools.train]
center = "north"

[pools.serve]
center = "south"

[pools.cpu]
center = "north"
"""
GPUS, L4S, CPUS = 48, 16, 4
"""Nodes of the pools train, serve and cpu."""


@pytest.fixture(scope="module")
def several(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard whose settings name the centers of the pools."""
    del browser  # without it nobody needs the server
    with a_dashboard(tmp_path_factory.mktemp("several"), settings=SETTINGS) as dashboard:
        yield dashboard


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nodes_are_grouped_by_center_and_then_by_pool(
    browser: Browser, several: Dashboard, language: Language, size: tuple[int, int]
) -> None:
    texts, looker = Texts(language), Looker(browser, several.url, language=language, size=size)
    page = looker.open("/ui/fleet")
    count = f"{GPUS + L4S + CPUS}"
    canvas = page.get_by_label(texts("map_centers", count=count))
    expect(canvas).to_be_visible()
    # Under the head of the center, and that of the pool, is its first square.
    canvas.click(position={"x": 5, "y": 60})
    card = page.locator("#content .card")
    expect(card).to_contain_text(f"{texts('node')} cpu-0")
    expect(card.locator("dt", has_text=texts("center")).locator("+ dd")).to_have_text("north")
    for _ in range(CPUS + GPUS):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(card).to_contain_text(f"{texts('node')} l4-00")
    expect(card.locator("dt", has_text=texts("center")).locator("+ dd")).to_have_text("south")
    kinds = page.get_by_role("table", name=texts("kinds_centers"))
    expect(kinds.get_by_role("row").filter(has_text="serve")).to_contain_text("south")
    assert not looker.is_wider_than_its_window()
    looker.end()
    assert looker.complaints == []


def test_in_one_center_none_is_told(browser: Browser, dashboard: Dashboard) -> None:
    looker = Looker(browser, dashboard.url)
    page = looker.open("/ui/fleet")
    canvas = page.get_by_label(Texts("en")("map", count=f"{GPUS + L4S + CPUS}"))
    canvas.click(position={"x": 5, "y": 30})
    expect(page.locator("#content .card")).to_contain_text("Node cpu-0")
    assert "Center" not in page.locator("#content").inner_text()
    assert "center" not in dashboard.cli("nodes").stdout
    looker.end()
    assert looker.complaints == []


@pytest.mark.parametrize("where", ["embedded", "served"])
def test_nodes_are_listed_by_center(several: Dashboard, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "served":
        monkeypatch.setitem(several.cli.env, "ARTESIAN_SERVER", several.url)
    nodes = several.cli.json("nodes")
    assert {(node["pool"], node["center"]) for node in nodes} == {
        ("cpu", "north"),
        ("serve", "south"),
        ("train", "north"),
    }
    north = several.cli.json("nodes", "--center", "north")
    assert [node["id"] for node in north] == [node["id"] for node in nodes if node["center"] == "north"]
    assert len(north) == GPUS + CPUS
    assert several.cli.json("nodes", "--center", "south", "--pool", "cpu") == []
    assert several.cli("nodes", "--center", "west").stderr.startswith("no node is known in center west")
    head, *rows = several.cli("nodes").stdout.splitlines()
    assert head.split()[:3] == ["node", "center", "pool"]
    assert ["cpu-0", "north", "cpu"] in [row.split()[:3] for row in rows]


def test_the_api_tells_the_center_of_nodes_and_kinds(several: Dashboard) -> None:
    api = f"{several.url}/api/v1"
    assert httpx.get(f"{api}/nodes/l4-00").json()["center"] == "south"
    page = httpx.get(f"{api}/nodes", params={"center": "south", "limit": 10}).json()
    rest = httpx.get(f"{api}/nodes", params={"center": "south", "limit": 10, "cursor": page["next"]}).json()
    assert len(page["nodes"]) + len(rest["nodes"]) == L4S
    assert {node["center"] for node in page["nodes"] + rest["nodes"]} == {"south"}
    kinds = httpx.get(f"{api}/fleet").json()["kinds"]
    assert {(kind["pool"], kind["center"]) for kind in kinds} == {
        ("cpu", "north"),
        ("serve", "south"),
        ("train", "north"),
    }
