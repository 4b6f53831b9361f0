"""The pictures of a waterfall and of a training job: they fit, they say everything, they need no colour."""

import io
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console, RenderableType

from artesian.cli.picture import (
    WaterfallPicture,
    amount_text,
    cause_label,
    percent_text,
    sparkline,
    training_panel,
)
from artesian.cli.plot import plot
from artesian.kernel.training import Recovery, RecoveryCause, TrainingSummary
from artesian.model.errors import ArtesianError
from artesian.model.ledger import US, Loss, Stage, StageResult, Waterfall
from artesian.model.stragglers import SlowWorker

WIDTHS = [40, 60, 80, 120, 200]
NOTE = "MFU against measured fp32, 61.2 GFLOP/s per device (nameplate unknown)"
STAGE_OF = {
    Stage.HEALTHY: [Loss.NODE_LOST, Loss.EXCLUDED],
    Stage.ALLOCATED: [Loss.IDLE, Loss.WAITING],
    Stage.PRODUCTIVE: [
        Loss.START_UP,
        Loss.DETECTION,
        Loss.RECOVERY,
        Loss.RESTORE,
        Loss.DATA_WAIT,
        Loss.CHECKPOINT_STALL,
        Loss.EVALUATION,
        Loss.STRAGGLER,
        Loss.LOST_WORK,
        Loss.WIND_DOWN,
        Loss.BETWEEN_STEPS,
        Loss.UNMEASURED,
    ],
    Stage.MODEL_FLOPS: [Loss.BELOW_CEILING],
}


def a_waterfall(
    nameplate_us: int = 100 * US,
    *,
    each_us: int = 3 * US,
    unknown: tuple[Stage, ...] = (),
    is_simulated: bool = False,
    notes: tuple[str, ...] = (NOTE,),
) -> Waterfall:
    """Every cause lost ``each_us``."""
    left, stages = nameplate_us, []
    for stage, causes in STAGE_OF.items():
        if stage in unknown:
            stages.append(StageResult(stage=stage, left_us=None, lost_us={}))
            continue
        left -= each_us * len(causes)
        lost = {cause.value: each_us for cause in causes} if each_us else {}
        stages.append(StageResult(stage=stage, left_us=left, lost_us=lost))
    return Waterfall(nameplate_us=nameplate_us, stages=tuple(stages), is_simulated=is_simulated, notes=notes)


def a_summary() -> TrainingSummary:
    return TrainingSummary(
        job_id="first-run",
        steps=200,
        first_loss=5.54,
        final_loss=2.0312,
        tokens=1_638_400,
        tokens_per_s=21_034.2,
        tokens_per_s_overall=15_010.1,
        model_flops_per_s=51.2e9,
        mfu=0.413,
        mfu_basis="measured fp32, 61.2 GFLOP/s per device",
        recoveries=(
            Recovery(cause=RecoveryCause.SIGNAL, failed_s=9.0, seconds=4.21, worker=1, resumed_from_step=50),
        ),
        losses=tuple((number, 5.0 - number / 80) for number in range(1, 201)),
    )


def shown(picture: RenderableType, width: int, encoding: str = "utf-8") -> str:
    """What a terminal of that width shows, without colour."""
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding)
    Console(file=file, width=width, highlight=False, no_color=True).print(picture)
    file.flush()
    return buffer.getvalue().decode(encoding)


def words(text: str) -> str:
    """The text without the frames and line ends that wrapping puts in."""
    return " ".join(text.replace("│", " ").replace("|", " ").split())


def test_the_waterfalls_of_these_tests_have_every_cause() -> None:
    assert sorted(cause for causes in STAGE_OF.values() for cause in causes) == sorted(Loss)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "gb18030"])
def test_the_picture_fits_and_names_every_stage_every_cause_and_every_note(width: int, encoding: str) -> None:
    text = shown(WaterfallPicture(a_waterfall()), width, encoding)
    assert max(map(len, text.splitlines())) <= width
    for name in ("nameplate", "healthy", "allocated", "productive", "model FLOPs", *map(cause_label, Loss)):
        assert sum(line.strip().startswith(name) for line in text.splitlines()) == 1, name
    assert NOTE in words(text)
    assert "3.0%" in text


@given(
    nameplate=st.integers(0, 10**15),
    each=st.integers(0, 10**15),
    width=st.integers(30, 220),
    unknown=st.sampled_from([(), (Stage.MODEL_FLOPS,), (Stage.PRODUCTIVE, Stage.MODEL_FLOPS)]),
)
def test_no_amount_and_no_width_makes_a_line_too_long(
    nameplate: int, each: int, width: int, unknown: tuple[Stage, ...]
) -> None:
    waterfall = a_waterfall(nameplate, each_us=min(each, nameplate // len(Loss)), unknown=unknown)
    text = shown(WaterfallPicture(waterfall), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("unknown") >= len(unknown)


def test_bars_step_down_from_nameplate_and_shade_what_was_lost() -> None:
    stages = tuple(
        StageResult(stage=stage, left_us=left * US, lost_us={cause.value: lost * US} if lost else {})
        for stage, left, cause, lost in [
            (Stage.HEALTHY, 100, Loss.NODE_LOST, 0),
            (Stage.ALLOCATED, 50, Loss.IDLE, 50),
            (Stage.PRODUCTIVE, 25, Loss.START_UP, 25),
            (Stage.MODEL_FLOPS, 0, Loss.BELOW_CEILING, 25),
        ]
    )
    waterfall = Waterfall(nameplate_us=100 * US, stages=stages, is_simulated=False)
    text = shown(WaterfallPicture(waterfall), 60)  # leaves 28 characters for a bar
    bars = {line[:15].strip(): line[17:45].rstrip() for line in text.splitlines()[1:]}
    assert bars == {
        "nameplate": "█" * 28,
        "healthy": "█" * 28,
        "allocated": "█" * 14 + "░" * 14,
        "idle": " " * 14 + "░" * 14,
        "productive": "█" * 7 + "░" * 7,
        "start up": " " * 7 + "░" * 7,
        "model FLOPs": "░" * 7,
        "below ceiling": "░" * 7,
    }


def test_a_stage_that_was_not_measured_is_unknown() -> None:
    text = shown(WaterfallPicture(a_waterfall(unknown=(Stage.MODEL_FLOPS,))), 80)
    (line,) = (line for line in text.splitlines() if line.startswith("model FLOPs"))
    assert line.split() == ["model", "FLOPs", "unknown"]


def test_a_simulated_waterfall_says_so_in_its_title() -> None:
    assert "simulated" in shown(WaterfallPicture(a_waterfall(is_simulated=True)), 80).splitlines()[0]
    assert "simulated" not in shown(WaterfallPicture(a_waterfall()), 80)


def test_ascii_terminals_get_ascii() -> None:
    text = shown(WaterfallPicture(a_waterfall()), 80, "ascii")
    assert "#" in text
    assert text.isascii()
    assert shown(training_panel(a_summary()), 80, "ascii").isascii()


def test_long_times_are_in_device_hours() -> None:
    assert "device-seconds" in shown(WaterfallPicture(a_waterfall(7199 * US)), 80)
    hours = shown(WaterfallPicture(a_waterfall(7200 * US)), 80)
    assert "device-hours" in hours
    assert "2.0" in hours


def test_a_little_is_never_shown_as_nothing() -> None:
    assert (amount_text(1, US), amount_text(0, US), amount_text(US // 4, US)) == ("<0.1", "0.0", "0.2")
    assert (percent_text(1, 100 * US), percent_text(0, 100 * US), percent_text(0, 0)) == (
        "<0.1%",
        "0.0%",
        "-",
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_stragglers_are_named_none_is_said_and_what_is_unknown_is_not(width: int) -> None:
    found = SlowWorker(worker=3, epoch=1, since_s=0, until_s=60, ratio=1.5, place="n1[0]", is_now=True)
    slow = words(shown(training_panel(replace(a_summary(), stragglers=(found,))), width))
    for part in ("stragglers", "worker 3", "1.50", "33%"):
        assert part in slow, part
    assert "stragglers none" in words(shown(training_panel(replace(a_summary(), stragglers=())), width))
    assert "stragglers" not in shown(training_panel(a_summary()), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_training_panel_fits_and_says_everything(width: int) -> None:
    text = shown(training_panel(a_summary()), width)
    assert max(map(len, text.splitlines())) <= width
    said = words(text)
    assert "first-run" in said
    for part in ("2.0312", "21,034 in steps", "15,010", "41.3%", "measured fp32", "worker 1", "4.21 s", "50"):
        assert part in said, part


def test_a_training_of_which_nothing_is_known_says_unknown() -> None:
    nothing = replace(
        a_summary(),
        steps=None,
        first_loss=None,
        final_loss=None,
        tokens=None,
        tokens_per_s=None,
        tokens_per_s_overall=None,
        model_flops_per_s=None,
        mfu=None,
        mfu_basis=None,
        recoveries=(),
        losses=(),
    )
    text = shown(training_panel(nothing), 80)
    assert text.count("unknown") == 4
    assert "none" in text


@given(values=st.lists(st.floats(), min_size=1, max_size=300), width=st.integers(1, 80))
def test_a_sparkline_has_a_character_for_each_share_of_any_values(values: list[float], width: int) -> None:
    line = sparkline(values, width, "0123")
    assert len(line) == min(width, len(values))
    assert set(line) <= set("0123x")


def test_a_sparkline_falls_with_the_loss() -> None:
    assert sparkline([9, 9, 6, 6, 3, 3, 0, 0], 4, "0123") == "3210"
    assert sparkline([1.0, float("nan"), 2.0], 3, "0123") == "0x3"
    assert sparkline([5.0, 5.0], 3, "0123") == "00"


# -- SVG and PNG -------------------------------------------------------------------------------------


def svg_text(path: Path) -> list[str]:
    """Every text in an SVG file."""
    return ["".join(node.itertext()).strip() for node in ET.parse(path).iter() if node.tag.endswith("}text")]  # noqa: S314


def test_an_svg_names_every_stage_every_cause_with_its_share_and_every_note(tmp_path: Path) -> None:
    plot(a_waterfall(is_simulated=True), tmp_path / "a.svg")
    texts = svg_text(tmp_path / "a.svg")
    assert {f"{cause_label(cause)} 3.0%" for cause in Loss} <= set(texts)
    assert NOTE in texts
    assert any("simulated" in text for text in texts)
    for name in ("nameplate", "healthy", "allocated", "productive", "model FLOPs"):
        assert any(name in text for text in texts), name


def test_the_same_waterfall_gives_the_same_svg_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plot(a_waterfall(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()


@pytest.mark.parametrize(
    "waterfall",
    [
        a_waterfall(each_us=1),
        a_waterfall(unknown=(Stage.PRODUCTIVE, Stage.MODEL_FLOPS)),
        a_waterfall(0, each_us=0),
        a_waterfall(notes=(NOTE * 9, "a $ in a name")),
    ],
)
def test_a_png_is_drawn_of_any_waterfall(tmp_path: Path, waterfall: Waterfall) -> None:
    plot(waterfall, tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")


def test_labels_do_not_overlap(tmp_path: Path) -> None:
    plot(a_waterfall(each_us=US // 100), tmp_path / "a.svg")
    heights = sorted(
        float(node.attrib["y"])
        for node in ET.parse(tmp_path / "a.svg").iter()  # noqa: S314
        if node.tag.endswith("}text")
        and "".join(node.itertext()).strip().endswith("<0.1%")
        and "".join(node.itertext()).split("<")[0].strip() in map(cause_label, STAGE_OF[Stage.PRODUCTIVE])
    )
    assert len(heights) == len(STAGE_OF[Stage.PRODUCTIVE])
    assert all(lower - upper >= 9 for upper, lower in pairwise(heights))


@pytest.mark.parametrize("name", ["a.pdf", "a", "svg"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtesianError, match=r"ends in \.svg or \.png") as caught:
        plot(a_waterfall(), tmp_path / name)
    assert caught.value.hint is not None
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ArtesianError, match="matplotlib") as caught:
        plot(a_waterfall(), tmp_path / "a.svg")
    assert caught.value.hint == "pip install 'artesian[plot]'"


def test_a_folder_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ArtesianError, match=r"no folder .*missing") as caught:
        plot(a_waterfall(), tmp_path / "missing" / "a.svg")
    assert caught.value.hint is not None
