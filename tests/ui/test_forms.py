"""What is wrong with a field is said at the field, for eyes and for ears, until it is put right; in both languages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from artesian.server.ui.texts import LANGUAGES, Language, Texts
from artesian.server.ui.trial import FILE_BYTES, MOST_POLICIES
from ui_harness import PHONE, Dashboard, Looker


@pytest.fixture(params=LANGUAGES)
def texts(request: pytest.FixtureRequest) -> Texts:
    """The texts of each language."""
    language: Language = request.param
    return Texts(language)


@pytest.fixture
def looker(browser: Browser, dashboard: Dashboard, texts: Texts) -> Iterator[Looker]:
    """Somebody reads that language, on a phone."""
    looker = Looker(browser, dashboard.url, language=texts.language, size=PHONE)
    yield looker
    looker.end()
    assert looker.complaints == []


def check_wrong(field: Locator, why: str, how: str = "") -> None:
    """Check that the field is said to be wrong, why, and what is expected of it; and that the reader is there."""
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(f"{why} {how}".strip())
    expect(field.page.get_by_role("alert").filter(has_text=why)).to_be_visible()
    expect(field).to_be_focused()


def check_right(field: Locator, how: str = "") -> None:
    """Check that nothing is said to be wrong."""
    expect(field).not_to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(how)


def test_a_count_that_is_none(looker: Looker, texts: Texts) -> None:
    page = looker.open("/ui/jobs/wait-005")
    page.get_by_role("button", name=texts("resize")).click()
    field = page.get_by_role("dialog").get_by_role("textbox", name=texts("devices"))
    expect(field).to_be_focused()
    how = texts("resize_form")
    check_right(field, how)
    for given, why in (("8..4", texts("resize_wrong")), ("512", texts("resize_same"))):
        field.fill(given)
        page.keyboard.press("Enter")
        check_wrong(field, why, how)
    field.fill("8")
    check_right(field, how)
    field.fill("x")
    page.keyboard.press("Enter")
    check_wrong(field, texts("resize_wrong"), how)
    page.keyboard.press("Escape")
    page.get_by_role("button", name=texts("resize")).click()
    check_right(field, how)


def test_what_is_to_be_simulated(looker: Looker, texts: Texts, tmp_path: Path) -> None:
    page = looker.open("/ui/simulate")
    file = page.get_by_label(texts("jobs_file"))
    policies = page.get_by_role("combobox", name=texts("policies"))
    load = page.get_by_role("spinbutton", name=texts("load"))
    run = page.get_by_role("button", name=texts("run"))
    how = page.locator("#simulate-how").inner_text()
    for field, described in ((file, how), (policies, ""), (load, "")):
        check_right(field, described)
    run.click()
    check_wrong(file, texts("no_file"), how)
    (tmp_path / "large.csv").write_text("x" * (FILE_BYTES + 1))
    file.set_input_files(tmp_path / "large.csv")
    check_wrong(file, texts("too_large", name="large.csv"), how)
    (tmp_path / "jobs.csv").write_text("submit_s,duration_s,devices\n0,60,1\n")
    file.set_input_files(tmp_path / "jobs.csv")
    check_right(file, how)
    load.fill("")
    run.click()
    check_wrong(load, texts("load_wrong", least=0.05, most=10))
    check_right(file, how)
    load.fill("0.5")
    check_right(load)
    for _ in range(2):
        policies.press("Backspace")
    run.click()
    check_wrong(policies, texts("policies_wrong", most=MOST_POLICIES))
    assert not looker.is_wider_than_its_window()


def test_a_token_that_nobody_has(looker: Looker, texts: Texts) -> None:
    page = looker.page
    page.goto(f"{looker.url}/ui/login", wait_until="domcontentloaded")
    field = page.get_by_label(texts("token"))
    check_right(field, texts("login_how"))
    field.fill("nobody's")
    page.get_by_role("button", name=texts("login")).click()
    check_wrong(field, texts("login_wrong"), texts("login_how"))
    looker.complaints.clear()  # the answer's 401, which the browser writes to its console
