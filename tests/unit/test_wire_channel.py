"""The progress channel: what a worker appended is read once, whole, and nothing is dropped in silence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.wire import Message, ProgressReader, ProgressWriter, Restored, encode
from artesian.wire.channel import agent_file, worker_file
from limits import no_file_larger_than
from strategies import messages


def restored(step: int, rank: int = 0) -> Restored:
    return Restored(rank=rank, at_s=1.0, step=step)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_reader_returns_what_is_new_since_the_last_time(tmp_path: Path) -> None:
    writer, reader = ProgressWriter(worker_file(tmp_path, 0)), ProgressReader(tmp_path)
    assert reader.read() == []
    writer.send(restored(1))
    writer.send(restored(2))
    assert reader.read() == [restored(1), restored(2)]
    assert reader.read() == []
    writer.send(restored(3))
    writer.close()
    assert reader.read() == [restored(3)]


def test_a_folder_that_is_not_there_yet_holds_no_messages(tmp_path: Path) -> None:
    reader = ProgressReader(tmp_path / "later")
    assert reader.read() == []
    writer = ProgressWriter(worker_file(tmp_path / "later", 3))
    writer.send(restored(1, rank=3))
    writer.close()
    assert reader.read() == [restored(1, rank=3)]


def test_files_are_read_in_the_order_of_their_names_and_other_files_not_at_all(tmp_path: Path) -> None:
    append(worker_file(tmp_path, 1), encode(restored(2, rank=1)))
    append(worker_file(tmp_path, 0), encode(restored(1)))
    append(agent_file(tmp_path), encode(restored(0)))
    append(tmp_path / "notes.txt", b"hello\n")
    reader = ProgressReader(tmp_path)
    assert reader.read() == [restored(0), restored(1), restored(2, rank=1)]
    assert reader.malformed_lines == 0
    assert agent_file(tmp_path, 2).name == "agent-2.jsonl"


def test_a_torn_last_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path, reader = worker_file(tmp_path, 0), ProgressReader(tmp_path)
    text = encode(restored(7))
    append(path, encode(restored(6)) + text[:10])
    assert reader.read() == [restored(6)]
    assert reader.read() == []
    append(path, text[10:-1])
    assert reader.read() == []
    append(path, b"\n")
    assert reader.read() == [restored(7)]
    assert reader.malformed_lines == 0


def test_malformed_lines_are_counted_and_unknown_types_skipped(tmp_path: Path) -> None:
    path, reader = worker_file(tmp_path, 0), ProgressReader(tmp_path)
    append(path, b"garbage\n" + encode(restored(1)) + b'{"type":"newer"}\n{"type":"restored"}\n{"type":[]}\n')
    assert reader.read() == [restored(1)]
    assert reader.malformed_lines == 3
    assert reader.read() == []
    assert reader.malformed_lines == 3


@given(said=st.lists(messages(), max_size=6), data=st.data())
def test_whatever_pieces_a_file_arrives_in_the_messages_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, said: list[Message], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("progress")
    text = b"".join(encode(message) for message in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reader = ProgressReader(folder)
    read: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        append(worker_file(folder, 0), text[start:end])
        read += reader.read()
    assert [encode(message) for message in read] == [encode(message) for message in said]
    assert reader.malformed_lines == 0


def test_a_writer_goes_on_where_an_earlier_one_stopped(tmp_path: Path) -> None:
    for step in (1, 2):
        writer = ProgressWriter(worker_file(tmp_path, 0))
        writer.send(restored(step))
        writer.close()
        writer.close()
    assert ProgressReader(tmp_path).read() == [restored(1), restored(2)]


def test_a_progress_file_is_for_its_owner_only(tmp_path: Path) -> None:
    ProgressWriter(worker_file(tmp_path, 0)).close()
    assert worker_file(tmp_path, 0).stat().st_mode & 0o777 == 0o600


def test_a_write_that_was_cut_short_is_an_error_and_costs_only_its_own_message(
    tmp_path: Path,
) -> None:
    path, reader = worker_file(tmp_path, 0), ProgressReader(tmp_path)
    writer = ProgressWriter(path)
    with no_file_larger_than(80):
        writer.send(restored(1))
        with pytest.raises(OSError, match="No space left"):
            writer.send(restored(2))
        assert path.stat().st_size == 80
        with pytest.raises(OSError, match="too large"):
            writer.send(restored(3))
    writer.send(restored(4))
    writer.close()
    assert reader.read() == [restored(1), restored(4)]
    assert reader.malformed_lines == 1
