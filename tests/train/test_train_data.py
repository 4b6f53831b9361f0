"""Training data: bytes of text, and an order in which every sample comes once a pass."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.train import ByteText, DataError, SampleOrder
from artesian.train.data import rank_share

sizes = st.integers(min_value=1, max_value=3000)
seeds = st.integers(min_value=0, max_value=2**63)


def write(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_files_follow_one_another_in_the_order_of_their_paths(tmp_path: Path) -> None:
    data = ByteText(write(tmp_path, b=b"beta", a=b"alpha", d__c=b"gamma"), context=15)
    assert bytes(data[0].tolist()) == b"alpha\0beta\0gamma"
    assert (len(data), data.files, data.skipped_files) == (1, 3, 0)


def test_windows_overlap_by_the_one_token_that_is_only_predicted(tmp_path: Path) -> None:
    data = ByteText(write(tmp_path, a=bytes(range(1, 12))), context=5)
    assert [data[i].tolist() for i in range(len(data))] == [[1, 2, 3, 4, 5, 6], [6, 7, 8, 9, 10, 11]]
    with pytest.raises(IndexError, match="there are 2 windows, got 2"):
        data[2]


def test_binary_and_hidden_files_are_left_out_and_the_former_counted(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("hidden" * 100)
    data = ByteText(
        write(tmp_path, text=b"x" * 50, image=b"PNG\0\1\2" * 50, **{".swp": b"y" * 50}), context=10
    )
    assert (data.files, data.skipped_files) == (1, 1)
    assert len(data) == 5


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    data = ByteText(write(tmp_path, a=b"a" * 100, b=b"b" * 100, c=b"c" * 100), context=10, max_bytes=150)
    assert (len(data), data.files) == (14, 2)


def test_without_a_folder_it_is_the_standard_library() -> None:
    data = ByteText(context=256)
    assert data.files > 300
    assert len(data) * 256 > 4_000_000
    assert max(int(data[i].max()) for i in range(20)) < 256
    assert b"import" in b"".join(bytes(data[i].tolist()) for i in range(50))


def test_a_missing_folder_and_too_little_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        ByteText(tmp_path / "missing")
    with pytest.raises(DataError, match=r"holds 0 bytes of text in 0 files \(0 binary ones skipped\)"):
        ByteText(tmp_path)
    with pytest.raises(DataError, match=r"holds 5 bytes of text in 1 files .* one window needs 11"):
        ByteText(write(tmp_path, a=b"text"), context=10)
    with pytest.raises(ValueError, match="context must be positive"):
        ByteText(tmp_path, context=0)


@given(size=sizes, seed=seeds, number=st.integers(min_value=0, max_value=2**40))
def test_every_pass_has_every_sample_once(size: int, seed: int, number: int) -> None:
    order = SampleOrder(size, seed)
    one_pass = [order[number * size + i] for i in range(size)]
    assert sorted(one_pass) == list(range(size))


def test_passes_and_seeds_differ_and_are_not_in_order() -> None:
    first, second, other = (
        [order[start + i] for i in range(1000)]
        for order, start in (
            (SampleOrder(1000, 1), 0),
            (SampleOrder(1000, 1), 1000),
            (SampleOrder(1000, 2), 0),
        )
    )
    assert len({tuple(first), tuple(second), tuple(other), tuple(range(1000))}) == 4
    neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(first))
    assert neighbours < 10  # about 2 are expected


def test_the_order_is_the_same_in_every_version() -> None:
    order = SampleOrder(1000, seed=42)
    assert [order[i] for i in (0, 1, 2, 999, 1000)] == [739, 397, 338, 750, 345]


def test_positions_and_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        SampleOrder(0)
    with pytest.raises(IndexError, match="position must not be negative"):
        SampleOrder(3)[-1]


@given(
    start=st.integers(min_value=0, max_value=2**40),
    world_size=st.integers(min_value=1, max_value=64),
    share=st.integers(min_value=1, max_value=64),
)
def test_the_ranks_share_a_batch_without_gap_or_overlap(start: int, world_size: int, share: int) -> None:
    batch = share * world_size
    dealt = [p for rank in range(world_size) for p in rank_share(start, batch, rank, world_size)]
    assert dealt == list(range(start, start + batch))


def test_a_batch_that_does_not_split_evenly_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a positive multiple of the 3 ranks, got 64"):
        rank_share(0, 64, 0, 3)
    with pytest.raises(ValueError, match="got 0"):
        rank_share(0, 0, 0, 1)
