"""``artesian simulate goodput``: published figures, both methods side by side, and wrong units."""

from pathlib import Path
from typing import Any

import pytest

from cli_harness import Cli
from pages import GUIDES, coded, rows

LLAMA_3 = "3.788e-3/node-day"


def plan(
    cli: Cli, *words: str | Path, devices: int = 16_384, stall: str = "0.25s", recovery: str = "10s"
) -> Any:
    return cli.json(
        *("simulate", "goodput", "--devices", str(devices), "--failures", LLAMA_3),
        *("--stall", stall, "--recovery", recovery, "--runs", "40", *words),
    )


@pytest.mark.parametrize(
    ("devices", "recovery", "stall", "percent"),
    [
        (16_384, "60s", "1s", 98.1),
        (16_384, "10s", "50ms", 99.6),
        (100_000, "30s", "250ms", 96.8),
        (100_000, "10s", "50ms", 98.7),
        (100_000, "2s", "20ms", 99.4),
    ],
)
def test_both_methods_give_what_is_known_of_llama_3s_rate(
    cli: Cli, devices: int, recovery: str, stall: str, percent: float
) -> None:
    found = plan(cli, devices=devices, stall=stall, recovery=recovery)
    assert found["simulated"] is True
    assert round(100 * found["closed_form"]["goodput"], 1) == percent
    monte_carlo = found["monte_carlo"]
    assert abs(found["difference"]) < 4.5 * monte_carlo["standard_error"]
    assert found["difference"] == monte_carlo["goodput"] - found["closed_form"]["goodput"]


def test_the_best_interval_is_on_top_of_the_curve_and_larger_jobs_do_worse(cli: Cli) -> None:
    found = plan(cli)
    by_interval = [point["goodput"] for point in found["by_interval"]]
    assert max(by_interval) == by_interval[len(by_interval) // 2] == found["closed_form"]["goodput"]
    by_devices = [point["goodput"] for point in found["by_devices"]]
    assert by_devices == sorted(by_devices, reverse=True)
    assert found["intervals"]["daly_s"] == pytest.approx(found["intervals"]["best_s"], rel=0.01)
    assert found["intervals"]["young_s"] - found["intervals"]["daly_s"] == pytest.approx(0.25)


def test_an_interval_of_ones_own_is_taken_and_can_only_be_worse(cli: Cli) -> None:
    own = plan(cli, "--interval", "10m")
    assert own["interval_s"] == 600.0
    assert own["closed_form"]["goodput"] < plan(cli)["closed_form"]["goodput"]
    assert {point["interval_s"] for point in own["by_devices"]} == {600.0}


def test_spares_are_as_many_as_replace_99_percent_at_once(cli: Cli) -> None:
    found = plan(cli, "--repair", "12h")["spares"]
    assert found["replaced_share"] >= found["wanted_share"] == 0.99
    assert found["monte_carlo"]["replaced_share"] == pytest.approx(found["replaced_share"], abs=0.01)
    assert found["nodes"] > plan(cli, "--repair", "1h")["spares"]["nodes"]


def test_a_rate_may_be_that_of_a_device_or_of_another_span(cli: Cli) -> None:
    def mttf(rate: str) -> float:
        words = ("--failures", rate, "--stall", "1s", "--recovery", "10s", "--runs", "2", "--days", "1")
        found: float = cli.json("simulate", "goodput", "--devices", "80", *words)["mttf_s"]
        return found

    assert mttf("0.08/node-day") == pytest.approx(108_000)
    assert mttf("0.01/device-day") == pytest.approx(mttf("0.08/node-day"))
    assert mttf("0.01/node-hour") == pytest.approx(mttf("0.24/node-day"))
    assert mttf("29.22/node-year") == pytest.approx(mttf("0.08/node-day"))


def test_the_table_says_that_it_is_simulated_and_the_picture_is_drawn(cli: Cli) -> None:
    words = ("--devices", "1000", "--failures", LLAMA_3, "--stall", "1s", "--recovery", "1m", "--runs", "20")
    picture = cli.folder / "curves.svg"
    printed = cli("simulate", "goodput", *words, "--plot", picture).stdout
    assert printed.startswith("simulated: 1,000 devices on 125 nodes, a failure every 2d02h")
    for word in ("closed form", "Monte Carlo", "difference", "best", "Young", "Daly", "spares"):
        assert word in printed
    drawn = picture.read_bytes()
    assert b"simulated: goodput of 1,000 devices" in drawn
    cli("simulate", "goodput", *words, "--plot", picture)
    assert picture.read_bytes() == drawn


@pytest.mark.parametrize(
    ("changed", "said", "code"),
    [
        ({"--failures": "3.8e-3"}, "such as 3.8e-3/node-day, got '3.8e-3'; units are node-hour", 2),
        ({"--failures": "1/rack-day"}, "units are node-hour", 2),
        ({"--failures": "0/node-day"}, "without failures only the stall is lost", 2),
        ({"--stall": "0.25"}, "expected a number with a unit, such as 30m", 2),
        ({"--interval": "often"}, "got 'often', or auto; units are ms, s", 2),
        ({"--interval": "0s"}, "expected a duration above 0, or auto", 2),
        ({"--stall": "0s"}, "must be above 0 and below half the mean time to failure", 1),
        ({"--stall": "3d"}, "give a shorter --stall", 1),
        ({"--plot": "x.pdf"}, "expected a file that ends in .svg or .png", 1),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(
    cli: Cli, changed: dict[str, str], said: str, code: int
) -> None:
    words = {"--devices": "16384", "--failures": LLAMA_3, "--stall": "1s", "--recovery": "1m", **changed}
    flat = [word for pair in words.items() for word in pair]
    assert said in cli("simulate", "goodput", *flat, code=code).stderr


def test_options_before_the_command_are_refused_and_without_it_jobs_are_needed(cli: Cli) -> None:
    assert "options before goodput" in cli("simulate", "--seed", "1", "goodput", code=2).stderr
    assert "missing option --jobs" in cli("simulate", code=2).stderr
    assert "'goodput'" in cli("simulate", "gootput", code=2).stderr


def test_the_guide_has_every_key_of_the_json_form(cli: Cli) -> None:
    named = {name for row in rows(GUIDES / "goodput.md", "As JSON") for name in coded(" ".join(row))}
    assert keys_of(plan(cli)) == named


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()
