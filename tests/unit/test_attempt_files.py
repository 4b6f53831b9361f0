"""The files of an attempt: written whole, and nothing read that somebody put in their place."""

import os
from pathlib import Path

import pytest

from artesian.engines.local.records import NotOfTheAttempt, read_regular, write_whole


def test_what_is_written_is_whole_private_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_has_the_name_of_a_file_is_replaced_and_not_written_to(tmp_path: Path, kind: str) -> None:
    folder, precious = tmp_path / "folder", tmp_path / "precious"
    folder.mkdir()
    precious.write_bytes(b"precious")
    path = folder / "file"
    path.symlink_to(precious) if kind == "link" else os.mkfifo(path)
    write_whole(path, b"new")
    assert read_regular(path) == b"new"
    assert precious.read_bytes() == b"precious"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder-in-its-place"
    path.mkdir()
    (path / "x").touch()
    with pytest.raises(OSError, match="directory"):
        write_whole(path, b"new")
    assert os.listdir(tmp_path) == [path.name]


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "file", 3, 4) == b"3456"
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(NotOfTheAttempt):
            read_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
