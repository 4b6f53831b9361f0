"""Seals: which of another library's checkpoints is whole, whatever a crash has left."""

import json
from pathlib import Path

import pytest

from artesian.train.integrations.seal import SEAL, broken, keep_last, newest, seal


def checkpoint(parent: Path, step: int, *, is_sealed: bool = True) -> Path:
    folder = parent / f"checkpoint-{step}"
    (folder / "below").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights" * 10)
    (folder / "below" / "state.json").write_text("{}")
    if is_sealed:
        assert seal(folder) == 72
    return folder


def test_a_sealed_checkpoint_is_whole_and_can_be_sealed_again(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 3)
    assert broken(folder) is None
    (folder / "more").write_text("new")
    assert seal(folder) == 75
    assert broken(folder) is None


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 3)
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def after(name: str, content: bytes | None) -> str | None:
        for path, before in whole.items():
            path.write_bytes(before)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        return broken(folder)

    assert after("model.bin", None) == "model.bin is missing"
    assert after("model.bin", b"torn") == "model.bin should have 70 bytes, and has 4"
    assert after("model.bin", b"WEIGHTS" * 10) == "model.bin does not match its checksum"
    assert after(SEAL, None) == f"{SEAL} is missing"
    assert after(SEAL, b"{") is not None
    assert after(SEAL, json.dumps({"format": 9}).encode()) == "its seal has format 9, this version reads 1"
    assert after("model.bin", b"weights" * 10) is None


def test_the_newest_whole_one_is_taken_by_number_and_the_others_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert newest(tmp_path / "missing", "checkpoint-") is None
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 200, is_sealed=False)
    (tmp_path / "checkpoint-300").write_text("a file")
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-100" / "model.bin").write_bytes(b"")
    assert newest(tmp_path, "checkpoint-") == tmp_path / "checkpoint-10"
    said = capsys.readouterr().err
    assert f"checkpoint-200 is not whole, going back to an older one: {SEAL} is missing" in said
    assert "model.bin should have 70 bytes, and has 0" in said


def test_all_but_the_last_are_removed(tmp_path: Path) -> None:
    for step in (5, 20, 100):
        checkpoint(tmp_path, step)
    keep_last(tmp_path, "checkpoint-", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-20"]
    keep_last(tmp_path, "checkpoint-", 5)
    assert len(list(tmp_path.iterdir())) == 2
