"""No English is left on the Chinese pages but names, units, and what people and programs wrote themselves."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from artesian.server.ui.texts import Texts
from ui_harness import PLIANT, SLOW, Dashboard, Looker

TEXTS = Texts("zh")
SAME = frozenset(
    [
        "artesian",
        "easy",
        "fifo",
        "CPU",
        "CSV",
        "FLOPs",
        "MFU",
        "Token",
        "bf16",
        "fp32",
        "TFLOP/s",
        "stdout",
        "stderr",
        "SIGTERM",
        "SIGKILL",
        "WebSocket",
    ]
)
"""What has one name in both languages: of this project, of policies, and of the trade."""
COMMANDS = (
    *(
        "artesian nodes return",
        "artesian launch",
        "artesian why JOB",
        "goodput",
        "artesian.train",
        "artesian census",
    ),
    *(
        "StragglerPolicy(replaces=True)",
        "Run.from_env(..., stragglers=StragglerPolicy())",
        "estimated_duration",
    ),
)
"""What is typed as it stands."""
TYPED = re.compile(r"artesian nodes exclude \S+ --stop --reason slow")
NAMES = re.compile(
    r"(?:gpu|l4|cpu|wait|eval|llm|vlm|doomed|restless|pliant)-\w+|(?:H100|L4)[\w.:-]*"
    r"|\b(?:amy|ben|nlp|vision|default|train|serve|cpu)\b"
)
"""Names of the seed's nodes, jobs, models of device, users, teams and pools."""
UNITS = re.compile(r"\d[\d.,]* ?(?:[KMGT]iB|kB|[PTG]FLOP/s)|(?:\d+[dhms])+|\d s\b")
PAGES = {
    "/ui/": "loss.idle",
    "/ui/fleet": "kinds",
    "/ui/queue": "why",
    "/ui/simulate": "policies",
    "/ui/jobs/llm-a1": "recoveries",
    f"/ui/jobs/{SLOW}": "stragglers",
    "/ui/jobs/eval-0": "no_training",
    "/ui/jobs/wait-001": "unblock",
    "/ui/jobs/nobody": "no_job",
}
"""Each page, and a text that is there once all of it is."""


def english(page: Page) -> set[str]:
    """Return the English words that a reader sees, or hears of a control."""
    said: str = page.evaluate(
        """() => {
          const body = document.body.cloneNode(true);
          // What programs print and people submit, times, icons by their names, and the links to the languages.
          const others = "script, style, pre, code, time, [lang], .q-icon";
          for (const one of body.querySelectorAll(others)) one.remove();
          const told = [];
          for (const one of body.querySelectorAll("*")) {
            for (const name of ["aria-label", "title", "placeholder"]) told.push(one.getAttribute(name) ?? "");
          }
          const walk = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
          while (walk.nextNode()) told.push(walk.currentNode.data);
          return told.join("\\n");
        }"""
    )
    for command in COMMANDS:
        said = said.replace(command, " ")
    for known in (TYPED, NAMES, UNITS):
        said = known.sub(" ", said)
    return set(re.findall(r"[A-Za-z][A-Za-z0-9]+(?:/[a-z]\b)?", said)) - SAME


@pytest.fixture
def page(browser: Browser, dashboard: Dashboard) -> Iterator[Page]:
    """Somebody reads Chinese."""
    looker = Looker(browser, dashboard.url, language="zh")
    yield looker.open("/ui/")
    looker.end()
    assert looker.complaints == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_english_but_names(page: Page, dashboard: Dashboard, path: str) -> None:
    page.goto(f"{dashboard.url}{path}", wait_until="domcontentloaded")
    expect(page.get_by_text(TEXTS(PAGES[path])).first).to_be_visible()
    expect(page.get_by_text(TEXTS("loading"))).to_have_count(0)
    assert english(page) == set()


def test_why_a_job_waits_is_told_in_chinese(page: Page, dashboard: Dashboard) -> None:
    page.goto(f"{dashboard.url}/ui/queue", wait_until="domcontentloaded")
    page.get_by_role("button", name=TEXTS("why_label", job="wait-000")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("作业请求 H100-SXM5-80GB:512，而整个集群最多只能提供 376 个设备")
    expect(dialog).to_contain_text("最多请求 376 个设备；或有节点加入")
    expect(dialog).to_contain_text("改为 312 个设备（现为 512 个）")
    assert english(page) == set()


def test_what_a_node_and_the_dialogs_of_a_job_say_is_chinese(page: Page, dashboard: Dashboard) -> None:
    page.goto(f"{dashboard.url}/ui/fleet", wait_until="domcontentloaded")
    page.locator("canvas").click(position={"x": 5, "y": 30})
    expect(page.locator("#content .card")).to_contain_text(TEXTS("devices_of", node="cpu-0"))
    assert english(page) == set()
    page.goto(f"{dashboard.url}/ui/jobs/{PLIANT}", wait_until="domcontentloaded")
    page.get_by_role("button", name=TEXTS("resize")).click()
    page.get_by_role("dialog").get_by_role("textbox").fill("9999")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("而整个集群最多只能提供 64 个设备")
    assert english(page) == set()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=TEXTS("cancel")).click()
    expect(page.get_by_role("dialog")).to_contain_text(PLIANT)
    assert english(page) == set()
