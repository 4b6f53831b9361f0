"""Makes the fixtures of services known to pytest."""

from pathlib import Path

import pytest

from artesian.store import journal_file
from postgres_server import postgres, postgres_template, postgres_url

__all__ = ["place", "postgres", "postgres_template", "postgres_url"]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a journal can be made that nobody else has."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return str(journal_file(tmp_path / "state"))
