"""What a user sets in artesian.toml, and what is said of what cannot be."""

from pathlib import Path

import pytest

from artesian.model.quota import Team
from artesian.policy.registry import DEFAULT
from artesian.server.settings import Settings, SettingsError, load_teams


def written(folder: Path, text: str) -> Path:
    path = folder / "artesian.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_a_file_everything_is_as_it_comes(tmp_path: Path) -> None:
    assert Settings.from_env({"XDG_CONFIG_HOME": str(tmp_path)}) == Settings(policy=DEFAULT)


def test_the_file_in_the_xdg_folder_is_found_and_one_that_is_named_goes_before_it(tmp_path: Path) -> None:
    written(tmp_path / "artesian", 'policy = "easy"\n')
    other = written(tmp_path / "other", 'policy = "least-waste"\n')
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert Settings.from_env(env).policy == "easy"
    assert Settings.from_env({**env, "ARTESIAN_CONFIG": str(other)}).policy == "least-waste"


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        Settings.from_env({"ARTESIAN_CONFIG": str(tmp_path / "missing.toml")})


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('polcy = "easy"', "polcy is no key of theirs", "did you mean policy?"),
        ("policy = 3", "policy: expected a name in quotes, got 3", 'policy = "shortest-aged"'),
        ('policy = "magic"', "policy 'magic' is not known", "known policies: "),
        ("policy = ", "Invalid value", "a settings file has lines like"),
    ],
)
def test_what_is_wrong_is_named_with_a_hint(tmp_path: Path, text: str, said: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(written(tmp_path, text))
    assert said in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_teams_are_tables_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "artesian.toml"
    path.write_text('policy = "fair-share"\n[teams.vision]\nweight = 2\nguaranteed = {H100 = 8}\n')
    assert Settings.load(path).teams == load_teams(path)
    assert load_teams(path).teams == (Team(name="vision", weight=2.0, guaranteed=(("H100", 8),)),)


@pytest.mark.parametrize("text", ["teams = 3", "[teams.a]\nborow = true"])
def test_wrong_teams_are_refused_by_the_name_of_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "artesian.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=str(path)):
        Settings.load(path)
