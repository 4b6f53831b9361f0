"""Every page in a real Chromium: in both languages, on a desk and on a phone, by mouse and by keyboard."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from artesian.engines.local.engine import attempt_folder
from artesian.server.ui.queue import PAGE
from artesian.server.ui.texts import Language, Texts
from artesian.server.ui.trial import FILE_BYTES
from cli_harness import until
from ui_harness import DESKTOP, DOOMED, PHONE, RESTLESS, SCRIPT, SLOW, WAITING, Dashboard, Looker, a_dashboard

Look = Callable[..., Looker]


@pytest.fixture
def look(browser: Browser, dashboard: Dashboard) -> Iterator[Look]:
    """Somebody looks at the dashboard; at the end nothing may have been complained of."""
    lookers: list[Looker] = []

    def begin(language: str = "en", size: tuple[int, int] = DESKTOP) -> Looker:
        lookers.append(Looker(browser, dashboard.url, language=language, size=size))
        return lookers[-1]

    yield begin
    for looker in lookers:
        looker.end()
        assert looker.complaints == []


def content(page: Page) -> str:
    return page.locator("#content").inner_text()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_says_what_it_knows(look: Look, language: Language, size: tuple[int, int]) -> None:
    texts, looker = Texts(language), look(language, size)

    page = looker.open("/ui/")
    expect(page.get_by_role("heading", name=texts("waterfall"))).to_be_visible()
    expect(page.locator(".waterfall > li")).to_have_count(5)
    assert page.evaluate("document.documentElement.lang").startswith(language)
    for key in (
        "stage.productive",
        "losses",
        "loss.node_lost",
        "recover.idle",
        "state.running",
        "state.failed",
    ):
        assert texts(key) in content(page), key
    assert not looker.is_wider_than_its_window()

    page = looker.open("/ui/fleet")
    expect(page.locator("canvas")).to_be_visible()
    assert "H100-SXM5-80GB" in content(page)
    assert not looker.is_wider_than_its_window()

    page = looker.open("/ui/queue")
    expect(page.locator("tbody").last.locator("tr")).to_have_count(PAGE)
    assert texts("queue_order", count=WAITING) in content(page)
    vision = page.get_by_role("row").filter(has_text="vision").first
    expect(vision.get_by_role("cell")).to_contain_text(["vision", "64", "2", "32 H100", "48", "32"])
    for key in ("weight", "guaranteed", "may_borrow", "borrowed", "no_limit"):
        assert texts(key) in content(page), key
    assert not looker.is_wider_than_its_window()

    page = looker.open("/ui/jobs/llm-a1")
    expect(page.locator(".curve canvas").first).to_be_visible()
    expect(page.locator("pre")).to_contain_text("step 150 loss")
    for key in ("attempts", "recoveries", "training", "tokens_per_s", "state.running", "log"):
        assert texts(key) in content(page), key
    assert texts("cause.node_lost") in content(page)
    assert texts("role.admin") in page.locator("header").inner_text()
    assert not looker.is_wider_than_its_window()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_job_shows_who_holds_it_up_what_to_do_about_it_and_what_is_unknown(
    look: Look, language: Language, size: tuple[int, int]
) -> None:
    texts, looker = Texts(language), look(language, size)
    page = looker.open(f"/ui/jobs/{SLOW}")
    expect(page.get_by_role("heading", name=texts("stragglers"))).to_be_visible()
    slow = page.get_by_role("listitem").filter(has_text="1.60")
    expect(slow).to_contain_text(re.compile(r"l4-\d\d\[0,1,2,3\].*12\.0 s"))
    expect(slow.locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d UTC$"))
    node = re.search(r"l4-\d\d", slow.inner_text())
    assert node is not None
    expect(slow).to_contain_text(texts("straggler_exclude", node=node[0]))
    assert not looker.is_wider_than_its_window()
    page = looker.open("/ui/jobs/llm-a1")
    expect(page.locator("#content")).to_contain_text(texts("stragglers_unknown"))


def test_what_a_job_prints_is_text_and_no_script(look: Look) -> None:
    page = look().open("/ui/jobs/llm-a1")
    expect(page.locator("pre")).to_contain_text(SCRIPT.strip())
    assert page.title() == "llm-a1 · artesian"


def test_what_a_job_prints_comes_to_the_open_page(look: Look, dashboard: Dashboard) -> None:
    page = look().open(f"/ui/jobs/{SLOW}")
    expect(page.get_by_text("Nothing was printed yet.")).to_be_visible()
    printed = attempt_folder(dashboard.state.jobs, SLOW, 1)
    for said in ("the first line\n", "and another\n"):
        with printed.stdout.open("a") as out:
            out.write(said)
        expect(page.get_by_role("log", name="stdout")).to_contain_text(said.strip())
    printed.stderr.write_text("a warning\n")
    expect(page.get_by_role("log", name="stderr")).to_have_text("a warning")


def test_a_job_tells_on_demand_why_it_waits_and_more_of_the_queue_is_shown(look: Look) -> None:
    page = look().open("/ui/queue")
    page.get_by_role("button", name="Why does wait-000 wait?").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Why wait-000 waits")
    expect(dialog).to_contain_text("H100-SXM5-80GB")
    page.keyboard.press("Enter")
    expect(dialog).not_to_be_visible()
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("tbody").last.locator("tr")).to_have_count(WAITING)
    expect(page.get_by_role("button", name="Show more")).not_to_be_visible()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_node_shows_each_of_its_devices_and_who_holds_them(
    look: Look, language: Language, size: tuple[int, int]
) -> None:
    texts, looker = Texts(language), look(language, size)
    page = looker.open("/ui/fleet")
    page.locator("canvas").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    card = page.locator("#content .card")
    expect(card).to_contain_text(texts("devices_of", node="l4-00"))
    devices = card.locator("tbody tr")
    expect(devices).to_have_count(4)
    expect(devices.last.get_by_role("cell")).to_contain_text(["3", "1", "eval-"])
    assert not looker.is_wider_than_its_window()


def test_a_node_is_chosen_with_the_mouse_and_with_the_keys(look: Look) -> None:
    page = look().open("/ui/fleet")
    canvas = page.locator("canvas")
    canvas.click(position={"x": 5, "y": 30})
    expect(page.locator("#content .card")).to_contain_text("Node cpu-0")
    canvas.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#content .card")).to_contain_text("Node l4-00")
    page.locator("#content .card").get_by_role("link").first.click()
    page.wait_for_url("**/ui/jobs/eval-*")


def test_the_keyboard_reaches_the_pages_and_shows_where_it_is(look: Look) -> None:
    page = look().open("/ui/")
    expect(page.locator(".waterfall")).to_be_visible()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width != "0px", reached
    assert reached[:7] == [
        "Skip to the content",
        "artesian",
        "Overview",
        "Fleet",
        "Queue",
        "Simulate",
        "English",
    ]
    page.get_by_role("link", name="Fleet").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/fleet")


def test_a_link_keeps_the_focus_when_what_it_is_in_changes(look: Look, dashboard: Dashboard) -> None:
    page = look().open("/ui/")
    link = page.locator("#content").get_by_role("link", name="wait-225")
    link.focus()
    httpx.post(f"{dashboard.url}/api/v1/jobs/{RESTLESS}/cancel").raise_for_status()
    expect(page.locator("#content tbody")).to_contain_text("stopping")
    expect(link).to_be_focused()


def test_the_language_is_chosen_and_kept(look: Look) -> None:
    page = look("en").open("/ui/queue")
    page.get_by_role("link", name="中文").click()
    expect(page.get_by_role("heading", name="队列")).to_be_visible()
    assert page.url.endswith("/ui/queue")
    page.get_by_role("link", name="总览").click()
    expect(page.get_by_role("heading", name="算力去向")).to_be_visible()


def test_a_job_is_cancelled_after_a_question(look: Look, dashboard: Dashboard) -> None:
    page = look().open(f"/ui/jobs/{DOOMED}")
    page.get_by_role("button", name="Cancel job").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"Cancel {DOOMED}?")
    expect(page.get_by_role("button", name="No, keep it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).not_to_be_visible()
    assert dashboard.cli.is_in(DOOMED) == "running"
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("button", name="Yes, cancel it").click()
    expect(page.get_by_text(f"{DOOMED} was told to stop.")).to_be_visible()
    until(lambda: dashboard.cli.is_in(DOOMED) == "stopping")
    expect(page.get_by_role("button", name="Cancel job")).not_to_be_visible()


def test_what_is_not_there_is_said(
    look: Look, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = look().open("/ui/jobs/nobody")
    expect(page.get_by_role("heading", name="This job is not known here.")).to_be_visible()
    missing = httpx.get(f"{look().url}/ui/nothing", headers={"Accept-Language": "zh"})
    assert missing.status_code == 404
    assert "没有这个页面。" in missing.text
    with a_dashboard(tmp_path_factory.mktemp("empty"), is_seeded=False) as empty:
        looker = Looker(browser, empty.url)
        expect(looker.open("/ui/").locator("#content")).to_contain_text("artesian submit job.yaml")
        expect(looker.page.locator("#content")).to_contain_text("no node has joined")
        expect(looker.open("/ui/fleet").locator("#content")).to_contain_text("No nodes yet")
        expect(looker.open("/ui/queue").locator("#content")).to_contain_text("Nothing waits.")
        assert looker.complaints == []
        empty.running.process.terminate()
        expect(looker.page.get_by_text("Connection lost")).to_be_visible()
        looker.end()


JOBS = "submit_s,duration_s,devices,name\n" + "".join(
    f"{n * 60},3600,{1 + n % 8},job-{n}\n" for n in range(40)
)


def test_policies_are_compared_on_a_file_of_jobs(look: Look, tmp_path: Path) -> None:
    looker = look("en", PHONE)
    page = looker.open("/ui/simulate")
    page.get_by_role("button", name="Simulate").click()
    expect(page.get_by_text("Choose a file with jobs first.")).to_be_visible()
    (tmp_path / "jobs.csv").write_text(JOBS)
    page.get_by_label("File with the jobs").set_input_files(tmp_path / "jobs.csv")
    expect(page.get_by_text("jobs.csv is read.")).to_be_visible()
    page.get_by_role("button", name="Simulate").click()
    table = page.get_by_role("table")
    expect(table).to_contain_text("Simulated: 40 jobs")
    expect(table.locator("tbody tr")).to_have_count(2)
    assert not looker.is_wider_than_its_window()
    (tmp_path / "wrong.csv").write_text("<b>no</b> jobs at all\n")
    page.get_by_label("File with the jobs").set_input_files(tmp_path / "wrong.csv")
    page.get_by_role("button", name="Simulate").click()
    expect(page.get_by_role("alert").last).to_contain_text("<b>no</b>")
    (tmp_path / "large.csv").write_text("x" * (FILE_BYTES + 1))
    page.get_by_label("File with the jobs").set_input_files(tmp_path / "large.csv")
    expect(page.get_by_text("large.csv is too large.")).to_be_visible()
