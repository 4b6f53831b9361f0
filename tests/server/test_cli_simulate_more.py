"""``artesian simulate``: moves, deadlines, teams, reports and learning, as its user sees them."""

from pathlib import Path

import pytest

from cli_harness import Cli

JOBS = """\
submit_s,duration_s,devices,name,team,estimated_duration_s,deadline_s,checkpoint_every_s
0,9000,0.5,a1,nlp,,,100
0,1000,0.5,a2,nlp,,,
0,9000,0.5,b1,vision,,5000,100
0,1000,0.5,b2,vision,,2000,
1010,600,H100:1,whole,vision,,1700,
"""
FLEET = "name,nodes,accelerator,devices,cpus,memory\ntrain,1,H100,2,96,1TB\n"
TEAMS = '[teams]\nusage_half_life = "7d"\n[teams.vision]\nguaranteed = {H100 = 1}\n'


@pytest.fixture
def words(cli: Cli) -> tuple[str | Path, ...]:
    """The command, on two devices each of which is half free when ``whole`` comes."""
    for name, text in (("jobs.csv", JOBS), ("fleet.csv", FLEET), ("teams.toml", TEAMS)):
        (cli.folder / name).write_text(text)
    return "simulate", "--jobs", cli.folder / "jobs.csv", "--fleet", cli.folder / "fleet.csv"


def test_moves_are_counted_with_their_cost_and_whom_they_let_start(
    cli: Cli, words: tuple[str | Path, ...]
) -> None:
    found = {entry["policy"]: entry for entry in cli.json(*words, "--policy", "easy,priority")["policies"]}
    assert found["easy"]["moves"] == {"count": 0, "cost_device_s": 0, "let_start": [], "moves": []}
    moves = found["priority"]["moves"]
    assert (moves["count"], moves["cost_device_s"], moves["let_start"]) == (1, 35.0, ["whole"])
    dry = cli.json(*words, "--policy", "easy,priority", "--dry-run-moves")["policies"]
    assert [entry["moves"]["let_start"] for entry in dry] == [["whole"], ["whole"]]
    assert [entry["makespan_s"] for entry in dry] == 2 * [found["easy"]["makespan_s"]]


def test_deadlines_and_teams_are_in_the_table_the_json_form_and_the_page(
    cli: Cli, words: tuple[str | Path, ...]
) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs the extra plot")
    more = ("--policy", "easy,fair-share", "--teams", cli.folder / "teams.toml")
    page = cli.folder / "page.html"
    text = cli(*words, *more, "--html", page).stdout
    assert "2 of 3" in text
    assert "1 of 3" in text
    assert "58.4%" in text
    easy, fair = cli.json(*words, *more)["policies"]
    assert [entry["deadlines"]["missed"] for entry in (easy, fair)] == [2, 1]
    assert fair["teams"]["vision"]["satisfaction"] == 1.0
    assert fair["by_team"]["vision"]["missed_deadlines"] == 1
    html = page.read_text()
    assert "<h2>Deadlines</h2>" in html
    assert "<h2>What teams are entitled to</h2>" in html
    assert "<h2>Moves</h2>" in html


def test_reports_change_nothing_that_nobody_goes_by(cli: Cli, words: tuple[str | Path, ...]) -> None:
    plain = cli.json(*words, "--policy", "easy")["policies"][0]
    told = cli.json(*words, "--policy", "easy", "--reports-every", "1m")["policies"][0]
    assert told["jobs"] == plain["jobs"]
    assert "above 0" in cli(*words, "--reports-every", "0s", code=2).stderr
