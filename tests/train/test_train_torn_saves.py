"""Death at every instant of a save: what was there before is whole, and the next save goes well.

A save in the place of another needs a file system that can exchange two names, as those of Linux can.
"""

import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from artesian.train.directory import Directory
from artesian.train.manifest import Facts, parse_manifest
from artesian.train.storage import verified_pieces, write_checkpoint
from faults_orders import CALLS_OF_A_SAVE, tear

SABOTEUR = Path(__file__).parents[1] / "saboteur"
IMAGE = bytes(range(256)) * 64
KEPT = 2
SAVE = f"""
import sys
from pathlib import Path
from artesian.train.directory import Directory
from artesian.train.manifest import Facts
from artesian.train.storage import write_checkpoint
image = memoryview(bytes(range(256)) * 64)
write_checkpoint(Directory(Path(sys.argv[1])), Facts(step=int(sys.argv[2])), [image], 256, keep_last={KEPT}, keep_every=None)
"""


def save(storage: Directory, step: int) -> None:
    write_checkpoint(storage, Facts(step=step), [memoryview(IMAGE)], 256, keep_last=KEPT, keep_every=None)


def assert_whole(storage: Directory, step: int) -> None:
    manifest = parse_manifest(storage.manifest(step))
    assert manifest.step == step
    assert [zlib.crc32(piece) for piece in verified_pieces(storage, manifest)] == [zlib.crc32(IMAGE)]


@pytest.mark.parametrize("step", [16, 24])  # anew, and in the place of one that is there
def test_a_death_before_any_call_of_a_save_leaves_whole_checkpoints(tmp_path: Path, step: int) -> None:
    deaths = 0
    for calls in range(CALLS_OF_A_SAVE + 8):
        orders, checkpoints = tmp_path / f"orders-{calls}", tmp_path / f"{calls}" / "checkpoints"
        orders.mkdir()
        storage = Directory(checkpoints)
        for before in (8, 12, 24) if step == 24 else (8, 12):
            save(storage, before)
        tear(orders, 0, calls=calls, takes="worker")
        environ = {**os.environ, "PYTHONPATH": str(SABOTEUR), "FAULTS_ORDERS": str(orders)}
        code = subprocess.run(
            [sys.executable, "-c", SAVE, str(checkpoints), str(step)], env=environ, timeout=60
        ).returncode
        assert code in (0, -signal.SIGKILL)
        deaths += code != 0
        left = storage.steps()
        assert (24 if step == 24 else 12) in left
        for found in left:
            assert_whole(storage, found)
        save(storage, 32)
        assert_whole(storage, 32)
        assert len(storage.steps()) == KEPT
        assert [path.name for path in checkpoints.iterdir() if path.name.startswith(".tmp-")] == []
    assert CALLS_OF_A_SAVE - 4 <= deaths < CALLS_OF_A_SAVE + 8, "the calls of a save are not all tried"
