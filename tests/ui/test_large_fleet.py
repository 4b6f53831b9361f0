"""Ten thousand nodes: one picture and few elements, each node within reach, and what changes is seen."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from artesian.server.config import StateDir
from artesian.store import SqliteJournal
from builders import Kernel, a_node, joined
from cli_harness import until
from ui_harness import DESKTOP, PHONE, Looker, a_dashboard

POOLS, NODES = 5, 10_000
MOST_ELEMENTS = 400
AMBER = (176, 115, 14)
"""The colour of the stroke through a node that is excluded."""


def sow(state: StateDir) -> None:
    """Write a fleet, and nothing that runs on it."""
    kernel, at_s = Kernel(), time.time() - 600
    kinds: dict[str, Any] = {"accelerator": "H100-SXM5-80GB", "vendor": "nvidia"}
    kernel.step(
        *(
            joined(a_node(f"n{number:05}", pool=f"pool-{number * POOLS // NODES}", **kinds), at_s)
            for number in range(NODES)
        )
    )
    with SqliteJournal.open(state.journal) as journal:
        journal.append(kernel.journal)


def has_amber(page: Page) -> bool:
    """Whether the first pool's first square is struck."""
    found: bool = page.evaluate(
        """([red, green, blue]) => {
          // A copy: a canvas that is read often is another one to the browser.
          const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          pen.drawImage(document.querySelector("canvas"), 0, 0);
          const { data } = pen.getImageData(0, 24, 12, 12);
          for (let at = 0; at < data.length; at += 4)
            if (Math.abs(data[at] - red) + Math.abs(data[at + 1] - green) + Math.abs(data[at + 2] - blue) < 30)
              return true;
          return false;
        }""",
        list(AMBER),
    )
    return found


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_ten_thousand_nodes_are_one_picture_that_shows_each_and_follows_what_changes(
    browser: Browser, tmp_path: Path, size: tuple[int, int]
) -> None:
    with a_dashboard(tmp_path, sow=sow) as dashboard:
        looker = Looker(browser, dashboard.url, size=size)
        page = looker.open("/ui/fleet")
        canvas = page.get_by_label(f"Nodes by pool, {NODES:,} in all")
        expect(canvas).to_be_visible()
        assert page.evaluate("document.querySelectorAll('*').length") < MOST_ELEMENTS
        assert not looker.is_wider_than_its_window()
        canvas.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        card = page.locator("#content .card")
        expect(card).to_contain_text("Node n00001")
        height = canvas.evaluate("canvas => canvas.clientHeight")
        # The first square of the last row but one is of the last pool: 2,000 nodes fill many rows.
        canvas.click(position={"x": 2, "y": height - 12 - 8})
        expect(card).to_contain_text("pool-4")
        assert not has_amber(page)
        address = f"{dashboard.url}/api/v1/nodes/n00000/exclude"
        httpx.post(address, params={"reason": "slow"}).raise_for_status()
        expect(page.get_by_role("row").filter(has_text="pool-0").get_by_role("cell").last).to_have_text("8")
        until(lambda: has_amber(page))
        looker.end()
        assert looker.complaints == []
