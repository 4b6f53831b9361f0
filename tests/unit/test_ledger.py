"""The waterfall adds up exactly, or there is none."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.ledger import US, Stage, StageResult, Waterfall, to_us

Losses = dict[str, int]


def a_waterfall(nameplate_us: int, *stages: tuple[int | None, Losses]) -> Waterfall:
    results = tuple(
        StageResult(stage=stage, left_us=left, lost_us=lost)
        for stage, (left, lost) in zip(Stage, stages, strict=True)
    )
    return Waterfall(nameplate_us=nameplate_us, stages=results, is_simulated=False)


@st.composite
def waterfalls(draw: st.DrawFn, most_us: int) -> Waterfall:
    """Losses are drawn and the nameplate is their sum; stages are unknown at times."""
    amounts = st.integers(0, most_us // 12)
    losses = [draw(st.dictionaries(st.sampled_from("abc"), amounts)) for _ in Stage]
    is_known = [draw(st.booleans()) for _ in Stage]
    left = draw(amounts)
    stages: list[tuple[int | None, Losses]] = []
    for known, lost in zip(reversed(is_known), reversed(losses), strict=True):
        stages.append((left, lost) if known else (None, {}))
        left += sum(lost.values()) if known else 0
    return a_waterfall(left, *reversed(stages))


@given(waterfall=waterfalls(2**33 * US))
def test_the_json_form_adds_up_exactly_in_decimal(waterfall: Waterfall) -> None:
    body = json.loads(json.dumps(waterfall.to_dict()), parse_float=Decimal)
    assert body["unit"] == "device_seconds"
    left = body["nameplate"]
    for stage in body["stages"]:
        if stage["left"] is None:
            assert stage["lost"] == []
            continue
        assert stage["left"] + sum(loss["device_s"] for loss in stage["lost"]) == left
        left = stage["left"]


@given(waterfall=waterfalls(10**19), cause=st.sampled_from("abc"), error_us=st.sampled_from([-1, 1]))
def test_a_single_microsecond_too_many_or_too_few_is_refused(
    waterfall: Waterfall, cause: str, error_us: int
) -> None:
    known = [number for number, result in enumerate(waterfall.stages) if result.left_us is not None]
    for number in known:
        stages: list[tuple[int | None, Losses]] = [(r.left_us, dict(r.lost_us)) for r in waterfall.stages]
        lost = stages[number][1]
        lost[cause] = lost.get(cause, 0) + error_us
        with pytest.raises(ValueError, match="stage "):
            a_waterfall(waterfall.nameplate_us, *stages)


def test_the_largest_loss_of_a_stage_comes_first() -> None:
    lost = {"idle": 1, "start_up": 3 * US, "broken": 1}
    waterfall = a_waterfall(10 * US, (7 * US - 2, lost), (None, {}), (None, {}), (None, {}))
    assert waterfall.to_dict()["stages"][0] == {
        "name": "healthy",
        "left": 6.999998,
        "lost": [
            {"cause": "start_up", "device_s": 3.0},
            {"cause": "broken", "device_s": 0.000001},
            {"cause": "idle", "device_s": 0.000001},
        ],
    }


def test_what_was_not_measured_is_none_and_the_next_stage_takes_its_losses() -> None:
    waterfall = a_waterfall(100, (None, {}), (90, {"idle": 10}), (None, {}), (30, {"slow": 60}))
    assert [waterfall.left_us(stage) for stage in Stage] == [None, 90, None, 30]
    assert [stage["left"] for stage in waterfall.to_dict()["stages"]] == [None, 0.00009, None, 0.00003]


@pytest.mark.parametrize(
    ("nameplate_us", "first", "said"),
    [
        (10, (5, {"idle": 4}), "10 µs came in, 4 µs were lost, 5 µs are left"),
        (10, (-5, {"idle": 15}), "more was lost than came in"),
        (10, (12, {"idle": -2}), "a loss is negative"),
        (10, (10, {"idle": 5, "gain": -5}), "a loss is negative"),
        (10, (None, {"idle": 4}), "is unknown, but has losses"),
        (-1, (-1, {}), "nameplate must not be negative"),
    ],
)
def test_what_does_not_add_up_is_refused_with_its_figures(
    nameplate_us: int, first: tuple[int | None, Losses], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        a_waterfall(nameplate_us, first, (None, {}), (None, {}), (None, {}))


@pytest.mark.parametrize("stages", [(), (Stage.HEALTHY,), tuple(reversed(Stage)), (*Stage, Stage.HEALTHY)])
def test_a_waterfall_has_the_four_stages_in_order(stages: tuple[Stage, ...]) -> None:
    with pytest.raises(ValueError, match="in this order"):
        Waterfall(
            nameplate_us=0,
            stages=tuple(StageResult(stage=stage, left_us=0, lost_us={}) for stage in stages),
            is_simulated=True,
        )


@given(us=st.integers(-(2**52), 2**52))
def test_whole_microseconds_survive_the_way_to_seconds_and_back(us: int) -> None:
    assert to_us(us / US) == us
