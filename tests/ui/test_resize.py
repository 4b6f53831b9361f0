"""A job is resized on its page, by mouse and by keyboard; what cannot be is said in words, in both languages."""

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from artesian.server.ui.texts import Language, Texts
from ui_harness import DESKTOP, PHONE, PLIANT, Dashboard, Looker, a_dashboard

WAITS = {"en": "wait-001", "zh": "wait-003"}
"""Jobs that wait: the first language's, and the other's."""


def asked_for(dashboard: Dashboard, job: str) -> list[str]:
    found: list[str] = httpx.get(f"{dashboard.url}/api/v1/jobs/{job}").json()["devices"]
    return found


def opened(page: Page, texts: Texts) -> tuple[Locator, Locator]:
    """Press the button; return the dialog and its field."""
    page.get_by_role("button", name=texts("resize")).click()
    dialog = page.get_by_role("dialog")
    field = dialog.get_by_role("textbox", name=texts("devices"))
    expect(field).to_be_focused()
    return dialog, field


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_no_count_or_can_never_be_is_said_and_changes_nothing(
    browser: Browser, dashboard: Dashboard, language: Language, size: tuple[int, int]
) -> None:
    texts, job = Texts(language), "wait-005"
    looker = Looker(browser, dashboard.url, language=language, size=size)
    page = looker.open(f"/ui/jobs/{job}")
    dialog, field = opened(page, texts)
    expect(dialog).to_contain_text(texts("resize_of", job=job))
    expect(dialog).to_contain_text(texts("resize_asks", devices="H100-SXM5-80GB:512"))
    expect(field).to_have_value("512")
    never = texts("resize_impossible", why="")
    wrong = texts("resize_wrong")
    for given, said in (
        ("512", texts("resize_same")),
        ("", wrong),
        ("0", wrong),
        ("-1", wrong),
        ("8..4", wrong),
        ("1e3", wrong),
        ("H100:8", wrong),
        ("9" * 39, wrong),
        ("<b>8</b>", wrong),
        ("9999", never),
    ):
        field.fill(given)
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_contain_text(said)
        expect(field).to_be_focused()
        assert not looker.is_wider_than_its_window()
    field.fill("8")
    expect(dialog.get_by_role("alert")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    expect(page.get_by_role("button", name=texts("resize"))).to_be_focused()
    assert asked_for(dashboard, job) == ["H100-SXM5-80GB:512"]
    looker.end()
    assert looker.complaints == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_one_that_waits_asks_for_as_many_at_once_by_keyboard(
    browser: Browser, dashboard: Dashboard, language: Language
) -> None:
    texts, job = Texts(language), WAITS[language]
    looker = Looker(browser, dashboard.url, language=language)
    page = looker.open(f"/ui/jobs/{job}")
    button = page.get_by_role("button", name=texts("resize"))
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("textbox")).to_be_focused()
    expect(dialog).to_contain_text(texts("resize_waiting"))
    page.keyboard.press("Control+A")
    page.keyboard.type(" 4..8 ")
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name=texts("resize_no"))).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog).not_to_be_visible()
    expect(page.get_by_text(texts("resized_waiting", job=job, devices="H100-SXM5-80GB:4..8"))).to_be_visible()
    expect(page.locator("dd", has_text="H100-SXM5-80GB:4..8")).to_be_visible()
    assert asked_for(dashboard, job) == ["H100-SXM5-80GB:4..8"]
    dialog, field = opened(page, texts)
    expect(field).to_have_value("4..8")
    dialog.get_by_role("button", name=texts("resize_no")).click()
    expect(dialog).not_to_be_visible()
    looker.end()
    assert looker.complaints == []


def test_one_that_runs_runs_on_where_it_holds_as_many_and_is_stopped_where_not(
    browser: Browser, dashboard: Dashboard
) -> None:
    texts = Texts("en")
    looker = Looker(browser, dashboard.url)
    page = looker.open(f"/ui/jobs/{PLIANT}")
    for count, key, state in (("1..2", "resized_holding", "running"), ("4", "resized_stopping", "stopping")):
        dialog, field = opened(page, texts)
        expect(dialog).to_contain_text("goes on from its latest checkpoint")
        field.fill(count)
        dialog.get_by_role("button", name=texts("resize_yes"), exact=True).click()
        expect(page.get_by_text(texts(key, job=PLIANT, devices=f"L4:{count}"))).to_be_visible()
        expect(page.locator("dd .state")).to_have_text(texts(f"state.{state}"))
    looker.end()
    assert looker.complaints == []


def test_a_job_that_is_over_has_no_buttons_and_one_that_ends_meanwhile_says_so(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = Texts("en")
    with a_dashboard(tmp_path_factory.mktemp("ends")) as dashboard:
        looker = Looker(browser, dashboard.url)
        page = looker.open("/ui/jobs/eval-1")
        expect(page.get_by_text("succeeded").first).to_be_visible()
        expect(page.get_by_role("button", name=texts("resize"))).not_to_be_visible()
        expect(page.get_by_role("button", name=texts("cancel"))).not_to_be_visible()
        page = looker.open("/ui/jobs/wait-001")
        dialog, field = opened(page, texts)
        field.fill("8")
        httpx.post(f"{dashboard.url}/api/v1/jobs/wait-001/cancel").raise_for_status()
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_contain_text(texts("resize_over"))
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name=texts("resize"))).not_to_be_visible()
        looker.end()
        assert looker.complaints == []
