"""A page runs its own scripts, and no other: each has the nonce of its answer, which the policy names."""

import re

import httpx
from nicegui import client
from playwright.sync_api import Browser, expect

from artesian.server.ui.nonces import add_nonces
from ui_harness import Dashboard, Looker

PAGES = ("/ui/", "/ui/fleet", "/ui/queue", "/ui/jobs/llm-a1", "/ui/simulate")
INJECTED = """() => {
  const refused = new Promise((found) => {
    document.addEventListener("securitypolicyviolation", (event) => found(event.violatedDirective), {once: true});
  });
  document.body.insertAdjacentHTML("beforeend", `<img src="data:," onerror="document.title = 'owned'">`);
  return refused;
}"""
WRITTEN = """() => {
  const refused = new Promise((found) => {
    document.addEventListener("securitypolicyviolation", (event) => found(event.violatedDirective), {once: true});
  });
  document.body.append(Object.assign(document.createElement("script"), {textContent: "document.title = 'owned'"}));
  return refused;
}"""


def test_each_script_of_a_page_has_the_nonce_that_its_policy_names_and_each_answer_another(
    dashboard: Dashboard,
) -> None:
    nonces = set()
    for path in PAGES * 2:
        page = httpx.get(f"{dashboard.url}{path}")
        assert page.status_code == 200
        policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
        found = re.fullmatch(r"'self' 'nonce-([\w-]{20,})' 'unsafe-eval'", policy["script-src"])
        assert found, policy["script-src"]
        nonces.add(found[1])
        scripts = re.findall(r"<script\b[^>]*>", page.text)
        assert len(scripts) >= 6
        assert all(f' nonce="{found[1]}"' in script for script in scripts), scripts
    assert len(nonces) == 2 * len(PAGES)


def test_what_is_put_into_a_page_does_not_run(browser: Browser, dashboard: Dashboard) -> None:
    looker = Looker(browser, dashboard.url)
    page = looker.open("/ui/")
    title = page.title()
    assert page.evaluate(INJECTED) == "script-src-attr"
    assert page.evaluate(WRITTEN) == "script-src-elem"
    expect(page).to_have_title(title)
    looker.end()


def test_nonces_are_added_once() -> None:
    add_nonces()
    loader = client.templates.env.loader
    add_nonces()
    assert client.templates.env.loader is loader
