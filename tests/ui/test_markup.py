"""HTML from pieces that anybody may have named, curves from what workers told, and the squares of a fleet."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.kernel.state import State
from artesian.model.ledger import Ceiling
from artesian.model.views import DeviceView, NodeView
from artesian.server.ui.curves import mfu_by_step, read_tail, thinned, tokens_per_s
from artesian.server.ui.fleet import Cells, node_detail
from artesian.server.ui.markup import tag
from artesian.server.ui.texts import Texts
from builders import Kernel, a_job, a_node, lost
from worker_messages import step


@given(st.text(), st.text())
def test_no_text_becomes_an_element_or_an_attribute(content: str, value: str) -> None:
    seen: list[tuple[str, list[str]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, [name for name, _ in attrs]))

    Reader().feed(tag("p", content, title=value))
    assert seen == [("p", ["title"])]


def test_markup_is_kept_and_flags_have_no_value() -> None:
    assert tag("p", tag("b", 1), None, hidden=True, lang=None) == "<p hidden><b>1</b></p>"


def test_tokens_of_a_step_are_those_of_all_ranks_by_the_time_of_the_slowest() -> None:
    steps = [step(0, 1, 0.0, 2.0), step(1, 1, 0.0, 4.0), step(0, 2, 4.0, 6.0)]
    assert tokens_per_s(steps) == ((1, 4.0), (2, 4.0))


def test_the_mfu_of_steps_has_the_mfu_of_the_job_as_its_mean() -> None:
    steps = [step(0, 1, 0.0, 2.0, flops=4e9), step(0, 2, 2.0, 6.0, flops=4e9)]
    found = dict(mfu_by_step(steps, 0.4))
    assert found == {1: pytest.approx(0.6), 2: pytest.approx(0.3)}
    assert (2 * found[1] + 4 * found[2]) / 6 == pytest.approx(0.4)
    assert mfu_by_step(steps, None) == ()


def test_a_step_of_which_a_rank_told_no_flops_has_no_mfu() -> None:
    steps = [step(0, 1, 0.0, 2.0), step(1, 1, 0.0, 2.0, flops=None), step(0, 2, 2.0, 4.0)]
    assert [number for number, _ in mfu_by_step(steps, 0.4)] == [2]


def test_a_node_tells_what_was_measured_of_it_and_who_has_which_device() -> None:
    node = NodeView(
        id="n1",
        accelerator="H100-SXM5-80GB",
        devices=2,
        held=0.5,
        is_up=True,
        pool="train",
        cpus=8,
        memory_bytes=2**30,
        device_memory_bytes=None,
        peak_flops=None,
        joined_s=0.0,
        jobs=("<b>-1",),
        each=(
            DeviceView(index=0, held=0.5, is_occupied=False, jobs=("<b>-1",)),
            DeviceView(index=1, held=0.0, is_occupied=True, jobs=()),
        ),
        ceilings={"bf16": Ceiling(flops=7e14, basis="measured bf16")},
    )
    found = node_detail(node, Texts("en"))
    assert "700 TFLOP/s (measured bf16)" in found
    assert "by others, outside of artesian" in found
    assert "&lt;b&gt;-1" in found
    assert "<b>" not in found


@given(st.integers(0, 3000), st.integers(2, 50))
def test_a_thinned_curve_keeps_its_ends_and_its_order(count: int, most: int) -> None:
    points = [(number, float(number)) for number in range(count)]
    found = thinned(points, most)
    assert len(found) == min(count, most)
    assert list(found) == sorted(set(found))
    if points:
        assert (found[0], found[-1]) == (points[0], points[-1])


def test_the_tail_of_a_log_begins_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read_tail(path, 10) == ""
    path.write_bytes(b"first line\nsecond\nthird\xff\n")
    assert read_tail(path, 1000) == "first line\nsecond\nthird\N{REPLACEMENT CHARACTER}\n"
    assert read_tail(path, 12) == "third\N{REPLACEMENT CHARACTER}\n"
    path.write_bytes(b"x" * 100)
    assert read_tail(path, 10) == "x" * 10


def test_a_square_tells_how_full_its_node_is_or_that_it_is_gone() -> None:
    fleet = [
        a_node(name, devices=8, pool=pool) for name, pool in (("c", "b"), ("b", "b"), ("a", "a"), ("d", "b"))
    ]
    kernel = Kernel(*fleet)
    kernel.run(a_job("whole", devices="cpu:8"), a_job("some", devices="cpu:0.1"))
    kernel.step(lost("d"))
    state: State = kernel.state
    cells = Cells.of(state, lambda pool: "default")
    assert [(name, len(rows)) for _, name, rows in cells.pools] == [("a", 1), ("b", 3)]
    shown = cells.drawn(state, Texts("en"))
    assert [heading for heading, _, _ in shown] == ["", ""]
    drawn = {name: marks for _, name, marks in shown}
    assert drawn["b"][2] == "x"
    assert sorted(drawn["a"] + drawn["b"][:2]) == ["0", "1", "9"]


def test_pools_are_drawn_by_center_under_a_heading_each_where_there_are_several() -> None:
    centers = {"a": "south", "b": "north", "d": "north"}
    kernel = Kernel(*(a_node(f"n-{pool}", pool=pool) for pool in "abcd"))
    cells = Cells.of(kernel.state, lambda pool: centers.get(pool, "default"))
    drawn = cells.drawn(kernel.state, Texts("en"))
    assert [(heading, name) for heading, name, _ in drawn] == [
        ("Center default · nodes: 1", "c"),
        ("Center north · nodes: 2", "b"),
        ("", "d"),
        ("Center south · nodes: 1", "a"),
    ]
    assert [kernel.state.capacity.nodes[row].id for _, _, rows in cells.pools for row in rows] == [
        "n-c",
        "n-b",
        "n-d",
        "n-a",
    ]
