"""Checkpoints in parts, in a folder and in an object store: whole or not there, and only what is kept stays."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artesian.train import CheckpointError
from artesian.train.directory import Directory
from artesian.train.object_store import ObjectStore
from artesian.train.parts import Save, commit_parts, parse_parts, read_document, read_pieces, write_part
from artesian.train.parts_reader import open_parts, read_manifest
from artesian.train.storage import Storage, open_storage

WORLD = 3


def image(rank: int) -> bytes:
    return bytes([rank]) * 5_000


@pytest.fixture(params=["folder", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "folder":
        yield open_storage(tmp_path / "run")
        return
    fsspec = pytest.importorskip("fsspec")
    name = uuid.uuid4().hex
    yield open_storage(f"memory://{name}/run")
    files = fsspec.filesystem("memory")
    if files.exists(f"/{name}"):
        files.rm(f"/{name}", recursive=True)


def write(storage: Storage, step: int, *ranks: int, number: str = "one") -> Save:
    save = Save(step=step, position=10 * step, world_size=WORLD, number=number)
    for rank in ranks:
        write_part(storage, save, rank, [memoryview(image(rank))], 100)
    return save


def save_all(storage: Storage, step: int, keep_last: int = 2, keep_every: int | None = None) -> None:
    save = write(storage, step, 2, 0, 1, number=f"of-{step}")
    storage.sweep(save.name)
    assert commit_parts(storage, save, keep_last=keep_last, keep_every=keep_every) is not None


def parts_in(store: ObjectStore) -> list[str]:
    return sorted(str(name) for name in store._folders() if name.number)


def test_it_is_there_when_the_last_part_has_come_and_holds_what_each_has_written(storage: Storage) -> None:
    for ranks in ((2,), (0,)):
        save = write(storage, 7, *ranks)
        assert commit_parts(storage, save, keep_last=2, keep_every=None) is None
        assert storage.steps() == []
    save = write(storage, 7, 1)
    assert commit_parts(storage, save, keep_last=2, keep_every=None) is not None
    assert storage.steps() == [7]
    manifest = read_manifest(storage, 7)
    assert (manifest.position, manifest.world_size, manifest.size_bytes) == (70, WORLD, WORLD * 5_000)
    for part in manifest.parts:
        assert b"".join(bytes(piece) for _, piece in read_pieces(storage, manifest, part)) == image(part.rank)
        assert read_document(storage, manifest, part) == image(part.rank)[:100]


def test_a_part_that_is_seen_is_durable_and_may_be_committed_before_its_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Directory(tmp_path)
    save = Save(step=4, position=40, world_size=1, number="a-1")
    committed: list[object] = []
    sync = os.fsync

    def fsync(file: int) -> None:
        """Look, as rank 0 does all the time, as soon as anything that the part's writer wants durable is."""
        sync(file)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", sync)
            manifest = commit_parts(theirs, save, keep_last=1, keep_every=None)
        if manifest is not None and not committed:
            committed.append(manifest)

    monkeypatch.setattr(os, "fsync", fsync)
    write_part(Directory(tmp_path), save, 0, [memoryview(bytes(100))], 10)
    monkeypatch.undo()
    (manifest,) = committed
    assert read_manifest(Directory(tmp_path), 4) == manifest


def test_what_is_to_be_kept_stays_with_its_parts_and_the_rest_goes(storage: Storage) -> None:
    for step in range(1, 8):
        write(storage, step, 0, 2, number="cut-off")  # a death has left it
        save_all(storage, step, keep_every=3)
    assert storage.steps() == [3, 6, 7]
    for step in storage.steps():
        manifest = read_manifest(storage, step)
        for part in manifest.parts:
            assert sum(len(piece) for _, piece in read_pieces(storage, manifest, part)) == part.size_bytes
    if isinstance(storage, ObjectStore):
        assert parts_in(storage) == ["step-00000003-of-3", "step-00000006-of-6", "step-00000007-of-7"]
        fresh = open_storage(storage.name)  # one that has not seen who names what
        assert fresh.sweep() == 0
        assert min(parts_in(storage)) == "step-00000003-of-3"
    else:
        assert storage.sweep() == 0


def test_a_run_that_went_back_leaves_the_later_checkpoints_behind(storage: Storage) -> None:
    for step in (4, 8, 6):
        save_all(storage, step)
    assert storage.steps() == [4, 6]


def test_who_does_not_tidy_any_more_removes_nothing(storage: Storage) -> None:
    for step in (4, 8):
        save_all(storage, step)
    save = write(storage, 6, 0, 1, 2, number="late")
    assert commit_parts(storage, save, keep_last=1, keep_every=None, is_tidying=False) is not None
    assert storage.steps() == [4, 6, 8]


def test_the_same_step_can_be_saved_again(storage: Storage) -> None:
    save_all(storage, 4)
    save = write(storage, 4, 0, 1, 2, number="again")
    assert commit_parts(storage, save, keep_last=2, keep_every=None) is not None
    assert read_manifest(storage, 4).save == "step-00000004-again"
    storage.sweep()
    for part in read_manifest(storage, 4).parts:
        assert list(read_pieces(storage, read_manifest(storage, 4), part))


def test_a_damaged_part_is_found_and_so_is_one_that_is_cut_off(storage: Storage) -> None:
    save_all(storage, 4)
    manifest = read_manifest(storage, 4)
    damaged = bytearray(image(1))
    damaged[2_500] ^= 1
    if isinstance(storage, ObjectStore):
        storage.put_part(manifest.save, "part-00001.bin", [memoryview(damaged)])
        storage.put_part(manifest.save, "part-00002.bin", [memoryview(image(2)[:4_000])])
    else:
        folder = Path(storage.name) / "step-00000004"
        (folder / "part-00001.bin").write_bytes(damaged)
        (folder / "part-00002.bin").write_bytes(image(2)[:4_000])
    with pytest.raises(ValueError, match=r"part-00001\.bin does not match its checksum"):
        list(read_pieces(storage, manifest, manifest.parts[1]))
    with pytest.raises(ValueError, match=r"part-00002\.bin should have 5000 bytes, and has 4000"):
        list(read_pieces(storage, manifest, manifest.parts[2]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    rank=st.integers(0, WORLD - 1), key=st.sampled_from(["file", "size_bytes", "document_bytes", "crc32s"])
)
def test_a_manifest_that_was_changed_is_not_believed(storage: Storage, rank: int, key: str) -> None:
    save_all(storage, 4)
    fields = dict(storage.manifest(4))
    assert parse_parts(fields) == read_manifest(storage, 4)
    parts = [dict(part) for part in fields["parts"]]
    parts[rank][key] = [1] if key == "crc32s" else "part-00009.bin" if key == "file" else 1
    for changed in ({**fields, "parts": parts}, {**fields, "step": 5}, {"format": 3}):
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            parse_parts(changed)


def test_a_checkpoint_of_another_kind_is_told(tmp_path: Path) -> None:
    from artesian.train import Checkpointer

    Checkpointer(tmp_path).save(3, {"x": 1})
    with pytest.raises(ValueError, match="it has format 2; in parts it has 3"):
        open_parts(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        open_parts(tmp_path / "none")
    save_all(open_storage(tmp_path / "parts"), 4)
    with pytest.raises(CheckpointError, match="it has format 3"):
        Checkpointer(tmp_path / "parts").load_newest()


def test_a_store_that_refuses_a_part_is_told_and_the_checkpoint_before_stays(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_all(storage, 4)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "put_part", refuse)
    with pytest.raises(
        CheckpointError, match=r"cannot write part 0 of the checkpoint of step 5 .*No space left"
    ):
        write(storage, 5, 0)
    assert storage.steps() == [4]
    assert read_manifest(storage, 4).step == 4
