"""The table of texts: whole in both languages, and complete for all that the pages name."""

import re
import string
from pathlib import Path

import pytest

import artesian.server.ui
from artesian.kernel.lifecycle import JobState
from artesian.model.job import Cause
from artesian.model.ledger import Loss, Stage
from artesian.server.tokens import Role
from artesian.server.ui.texts import language_of
from artesian.server.ui.wording import TABLE


@pytest.mark.parametrize("key", TABLE)
def test_every_text_is_there_in_both_languages_with_the_same_fields(key: str) -> None:
    english, chinese = TABLE[key]
    assert english.strip()
    assert chinese.strip()
    assert _fields(english) == _fields(chinese)


def _fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_states_stages_and_losses_have_names() -> None:
    names = [f"state.{one.value}" for one in JobState]
    names += [f"cause.{one.value}" for one in Cause]
    names += [f"role.{one.value}" for one in Role]
    names += [f"stage.{one.value}" for one in Stage]
    names += [f"{kind}.{one.value}" for one in Loss for kind in ("loss", "recover")]
    assert set(names) <= TABLE.keys()


def test_no_page_names_a_text_that_is_not_there_and_no_text_is_left_over() -> None:
    folder = Path(artesian.server.ui.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "texts.py")
    assert set(re.findall(r'\btexts\(\s*"([a-z_.]+)"', source)) <= TABLE.keys()
    plain = {key for key in TABLE if "." not in key}
    assert [key for key in plain if f'"{key}"' not in source] == []


@pytest.mark.parametrize(
    ("chosen", "accepted", "expected"),
    [
        (None, None, "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "de,en;q=0.3,zh;q=0.7", "zh"),
        (None, "fr;q=1,zh;q=x", "zh"),
        ("en", "zh-CN", "en"),
        ("zh", "en", "zh"),
        ("xx", "zh-TW", "zh"),
        (None, "de, fr", "en"),
    ],
)
def test_the_language_is_the_chosen_one_else_the_browsers(
    chosen: str | None, accepted: str | None, expected: str
) -> None:
    assert language_of(chosen, accepted) == expected
