"""One browser and one seeded dashboard for all tests of a file.

Not for the whole run: while Playwright lives, its event loop runs in this thread, and asyncio.run refuses to.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from ui_harness import Dashboard, a_browser, a_dashboard


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium."""
    with a_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def dashboard(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A server with a seeded state. After the browser, without which nobody needs it."""
    del browser
    with a_dashboard(tmp_path_factory.mktemp("dashboard")) as dashboard:
        yield dashboard
