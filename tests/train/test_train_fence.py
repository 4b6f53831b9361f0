"""Attempts of a job that save to one place: what an earlier one still does harms nothing of a later one."""

import errno
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch.nn import Linear

from artesian.train import Checkpointer, CheckpointError, Run, Saver, ShardedCheckpointer, SupersededError
from artesian.train import fence as fences
from artesian.train.errors import TrainError
from artesian.train.fence import Writer, claim, hold
from artesian.train.finality import is_final
from artesian.train.interval import EverySteps
from artesian.train.last_save import NOTE
from artesian.train.last_save_process import bring
from artesian.train.manifest import Facts
from artesian.train.object_names import newest_of, writer_of
from artesian.train.parts import Save, commit_parts, write_part
from artesian.train.persist import Report
from artesian.train.segment import JobFolder
from artesian.train.storage import Storage, open_storage, write_checkpoint
from recovery_harness import DEADLINE_S, Job, wait_for

IMAGE = bytes(1000)
WORLD = 2


def attempt(epoch: int, job: str = "j") -> dict[str, str]:
    """Return the environment of an attempt."""
    return {"ARTESIAN_JOB_ID": job, "ARTESIAN_EPOCH": str(epoch)}


def state(value: float) -> dict[str, Any]:
    return {"w": torch.full((1000,), float(value))}


@dataclass(frozen=True)
class Place:
    """A folder, or a bucket; ``files`` gives all that is in it."""

    where: str
    files: Callable[[], Mapping[str, bytes]]
    note: str
    put: Callable[[str, bytes], object]

    def checkpointer(self, environ: Mapping[str, str]) -> Checkpointer:
        return Checkpointer(self.where, environ=environ)

    def storage(self, epoch: int, job: str = "j") -> Storage:
        return open_storage(self.where, writer=Writer(job=job, epoch=epoch))

    def epochs(self) -> Mapping[str, int] | None:
        """Return the highest epochs of jobs, the last job last where the place remembers their order."""
        if self.note == "writers/":
            marks = [name.removeprefix("writers/") for name in self.files() if name.startswith("writers/")]
            return newest_of(filter(None, map(writer_of, marks))) or None
        note = self.files().get("writer.json")
        found: Mapping[str, int] | None = None if note is None else json.loads(note)["epochs"]
        return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["folder", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        folder = tmp_path / "run"

        def put(name: str, data: bytes) -> None:
            (folder / name).write_bytes(data)

        yield Place(str(folder), partial(files_of, folder), "writer.json", put)
        return
    fsspec = pytest.importorskip("fsspec")
    root = f"/{uuid.uuid4().hex}/run"
    files = fsspec.filesystem("memory")

    def all_files() -> dict[str, bytes]:
        return {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}

    yield Place(
        f"memory:/{root}", all_files, "writers/", lambda name, data: files.pipe_file(f"{root}/{name}", data)
    )
    if files.exists(root):
        files.rm(root, recursive=True)


def test_an_attempt_that_was_followed_publishes_nothing_and_removes_nothing(place: Place) -> None:
    old, new = place.checkpointer(attempt(1)), place.checkpointer(attempt(2))
    old.claim()
    for step in (10, 20):
        old.save(step, state(step))
    new.claim()
    assert place.epochs() == {"j": 2}
    for step in (30, 40):
        new.save(step, state(-step))
    before = place.files()
    for act in (lambda: old.save(21, state(21)), lambda: old.save(40, state(40)), old.sweep, old.claim):
        with pytest.raises(
            SupersededError, match="newest attempt of job j, which is 2: this is attempt 1"
        ) as caught:
            act()
        assert is_final(caught.value, is_first_start=False)
        assert f"remove {place.note} there" in (caught.value.hint or "")
        assert place.files() == before
    new.save(50, state(50))
    assert new.steps() == [40, 50]


def test_an_attempt_claims_with_its_first_save_too_and_is_not_in_its_own_way(place: Place) -> None:
    old = place.checkpointer(attempt(9))
    old.save(1, state(1))
    place.checkpointer(attempt(10)).save(2, state(2))
    again = place.checkpointer(attempt(10))  # restarted by its agent
    again.claim()
    again.save(3, state(3))
    with pytest.raises(SupersededError):
        old.save(4, state(4))
    assert again.steps() == [2, 3]
    assert place.epochs() == {"j": 10}


def test_another_job_begins_anew_and_jobs_that_are_over_stay_fenced(place: Place) -> None:
    first, second = place.checkpointer(attempt(1)), place.checkpointer(attempt(2))
    first.save(1, state(1))
    second.save(2, state(2))
    other = place.checkpointer(attempt(1, job="again"))
    other.claim()
    other.save(3, state(3))
    second.save(4, state(4))  # two jobs that share a place are not kept apart
    with pytest.raises(SupersededError):
        first.save(5, state(5))
    assert place.epochs() == {"j": 2, "again": 1}
    for number in range(100):
        hold(place.storage(1, job=f"job-{number}"))
    epochs = place.epochs()
    assert epochs is not None
    if place.note == "writer.json":
        assert list(epochs) == [f"job-{number}" for number in range(68, 100)]
    else:  # of which only names are read
        assert epochs == {"j": 2, "again": 1} | {f"job-{number}": 1 for number in range(100)}


@pytest.mark.parametrize("environ", [{}, {"ARTESIAN_JOB_ID": "j"}, {"ARTESIAN_EPOCH": "1"}])
def test_who_is_no_attempt_of_a_job_is_not_fenced_and_notes_nothing(
    place: Place, environ: Mapping[str, str]
) -> None:
    plain = place.checkpointer(environ)
    plain.claim()
    plain.save(1, state(1))
    assert place.epochs() is None
    place.checkpointer(attempt(2)).save(2, state(2))
    plain.save(3, state(3))
    assert place.epochs() == {"j": 2}


def test_who_only_reads_claims_nothing(place: Place) -> None:
    place.checkpointer({}).save(1, state(1))
    reader = place.checkpointer(attempt(3))
    assert reader.load_newest() is not None
    assert reader.steps() == [1]
    assert place.epochs() is None


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"epochs": {"j": "x"}}', b'{"epochs": 3, "before": 3}'])
def test_a_note_that_is_damaged_is_written_anew(place: Place, note: bytes) -> None:
    storage = place.storage(2)
    write_checkpoint(storage, Facts(step=1), [memoryview(IMAGE)], 10, keep_last=2, keep_every=None)
    where = "writer.json" if place.note == "writer.json" else "writers/2.j.json"
    whole = place.files()[where]
    place.put(where, note)
    write_checkpoint(place.storage(2), Facts(step=2), [memoryview(IMAGE)], 10, keep_last=2, keep_every=None)
    assert place.files()[where] != note
    assert json.loads(place.files()[where]).keys() == json.loads(whole).keys()
    assert place.epochs() == {"j": 2}


def test_a_place_that_does_not_answer_is_a_save_that_failed_and_no_fence(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[Report] = []
    place.checkpointer(attempt(1)).save(1, state(1))
    saver = Saver(place.where, interval=EverySteps(1), on_report=reports.append, environ=attempt(2))

    def fail() -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    assert saver._checkpointer is not None
    with monkeypatch.context() as patch:
        patch.setattr(saver._checkpointer.storage, "epochs", fail)
        found = saver.restore()
        assert found is not None
        assert found.step == 1
        saver.begin(2, lambda: state(2))
        with pytest.raises(CheckpointError, match="Input/output error") as caught:
            saver.save_now(3, lambda: state(3))
    assert not isinstance(caught.value, SupersededError)
    assert not caught.value.is_final
    assert [(report.size_bytes, "Input/output error" in (report.failure or "")) for report in reports] == [
        (None, True)
    ] * 2
    assert place.checkpointer({}).steps() == [1]
    saver.begin(4, lambda: state(4))
    saver.close()
    assert place.checkpointer({}).steps() == [1, 4]
    assert place.epochs() == {"j": 2}


def test_a_successor_that_comes_while_a_save_is_written_is_noticed_before_it_is_published(
    place: Place,
) -> None:
    """As it can where the place knows no locks."""
    old, new = place.storage(1), place.storage(2)
    write_checkpoint(old, Facts(step=10), [memoryview(IMAGE)], 10, keep_last=2, keep_every=None)

    def pieces() -> Iterator[memoryview]:
        yield memoryview(IMAGE)
        hold(new)
        new.save(Facts(step=10), [memoryview(IMAGE)], 10)
        new.save(Facts(step=11), [memoryview(IMAGE)], 10)
        yield memoryview(IMAGE)

    with pytest.raises(CheckpointError):  # whose folder was swept, or that was refused
        write_checkpoint(old, Facts(step=12), pieces(), 10, keep_last=1, keep_every=None)
    assert new.steps() == [10, 11]


def test_a_successor_that_has_done_nothing_but_come_is_noticed_after_the_write(place: Place) -> None:
    """It has swept nothing yet, so that nothing else is in the way of who has looked before."""
    old = place.storage(1)
    write_checkpoint(old, Facts(step=10), [memoryview(IMAGE)], 10, keep_last=2, keep_every=None)
    seen: list[set[str]] = []

    def pieces() -> Iterator[memoryview]:
        yield memoryview(IMAGE)
        hold(place.storage(2))
        seen.append(set(place.files()))
        yield memoryview(IMAGE)

    with pytest.raises(SupersededError, match="this is attempt 1"):
        write_checkpoint(old, Facts(step=12), pieces(), 10, keep_last=1, keep_every=None)
    # Nothing of it is left, not even what it had written by then, and nothing is removed.
    assert set(place.files()) == {name for name in seen[0] if "step-00000012" not in name}
    assert place.storage(2).steps() == [10]


def test_a_save_that_is_under_way_is_waited_for_and_restored(tmp_path: Path) -> None:
    old, new = (open_storage(tmp_path, writer=Writer(job="j", epoch=epoch)) for epoch in (1, 2))
    is_writing = threading.Event()
    found: list[list[int]] = []

    def take_over() -> None:
        is_writing.wait()
        claim(new)
        found.append(new.steps())

    successor = threading.Thread(target=take_over)
    successor.start()

    def pieces() -> Iterator[memoryview]:
        is_writing.set()
        successor.join(0.3)  # it would be through by now, if it did not wait
        yield memoryview(IMAGE)

    write_checkpoint(old, Facts(step=7), pieces(), 10, keep_last=2, keep_every=None)
    successor.join()
    assert found == [[7]]


def part_of(storage: Storage, rank: int, number: str, step: int = 8) -> Save:
    save = Save(step=step, position=0, world_size=WORLD, number=number)
    write_part(storage, save, rank, [memoryview(IMAGE)], 10)
    return save


def test_saves_in_parts_are_fenced_at_every_part_and_at_the_commit(place: Place) -> None:
    old, new = place.storage(1), place.storage(2)
    for rank in range(WORLD):
        save = part_of(old, rank, "old")
    claim(new)
    theirs = part_of(new, 0, "new", step=7)
    before = place.files()
    for act in (
        lambda: commit_parts(old, save, keep_last=1, keep_every=None),
        lambda: commit_parts(old, save, keep_last=1, keep_every=None, is_tidying=False),
        lambda: fences.sweep(old),
        lambda: part_of(old, 0, "another"),
    ):
        with pytest.raises(SupersededError):
            act()
        assert place.files() == before
    fences.sweep(new, theirs.name)  # with what is left of the old one's
    with pytest.raises(SupersededError):  # and does not wait for parts that will never be there
        commit_parts(old, save, keep_last=1, keep_every=None)
    part_of(new, 1, "new", step=7)
    assert commit_parts(new, theirs, keep_last=1, keep_every=None) is not None
    assert new.steps() == [7]


def test_a_sharded_save_is_refused_on_the_way_in_and_a_claim_too(tmp_path: Path) -> None:
    model = Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).square().mean().backward()
    optimizer.step()
    old = ShardedCheckpointer(tmp_path, environ=attempt(1))
    old.save(1, model, optimizer)
    new = ShardedCheckpointer(tmp_path, environ=attempt(2))
    new.claim()
    new.save(2, model, optimizer)
    (tmp_path / ".tmp-step-00000003-x").mkdir()  # of a save of the new one
    before = files_of(tmp_path)
    acts: tuple[Callable[[], object], ...] = (lambda: old.save(1, model, optimizer), old.claim)
    for act in acts:
        with pytest.raises(SupersededError, match=r"rank 0: .*this is attempt 1") as caught:
            act()
        assert caught.value.hint
    assert files_of(tmp_path) == before
    assert (tmp_path / ".tmp-step-00000003-x").exists()


def test_a_saver_with_a_helper_raises_at_the_next_step(tmp_path: Path) -> None:
    reports: list[Report] = []
    old = Saver(
        tmp_path / "run",
        job="j",
        interval=EverySteps(2),
        shared_memory=tmp_path,
        on_report=reports.append,
        environ=attempt(1),
    )
    assert old.restore() is None
    Checkpointer(tmp_path / "run", environ=attempt(2)).save(1, state(-1))
    before = files_of(tmp_path / "run")
    for step in (1, 2):
        old.begin(step, partial(state, step))
    assert old.memory is not None
    assert old._persister is not None
    old.memory.finish()
    old._persister.drain()
    for act in (old.wait, lambda: old.begin(3, lambda: state(3)), lambda: old.save_now(3, lambda: state(3))):
        with pytest.raises(SupersededError, match="this is attempt 1"):
            act()
    assert [(report.step, report.is_superseded) for report in reports] == [(2, True)]
    assert files_of(tmp_path / "run") == before
    # Nor does the agent bring what is in memory there, at a notice.
    folder = JobFolder("j", base=tmp_path)
    assert (folder.path / NOTE).exists()
    with pytest.raises(SupersededError):
        bring(folder, 0)
    assert files_of(tmp_path / "run") == before
    old.close()
    folder.leave(keep=False)


def test_a_run_that_was_followed_ends_with_its_next_save_and_does_not_start_again(tmp_path: Path) -> None:
    def make(epoch: int) -> Run:
        model = Linear(4, 1)
        return Run.from_env(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            checkpoint_dir=tmp_path / "run",
            checkpoint_every=2,
            environ=attempt(epoch),
        )

    data = [torch.ones(4) for _ in range(100)]
    done = []

    def train_while_the_next_attempt_comes() -> None:
        with make(1) as run:
            for _ in run.batches(data, global_batch=1, steps=10):
                run.commit(1.0)
                done.append(run.step)
                if run.step == 3:
                    with make(2) as successor:
                        assert successor.step == 2
                        for _ in successor.batches(data, global_batch=1, steps=3):
                            successor.commit(1.0)

    with pytest.raises(SupersededError):
        train_while_the_next_attempt_comes()
    assert done == [1, 2, 3]
    with pytest.raises(TrainError) as caught:
        make(1).__enter__()
    assert isinstance(caught.value, SupersededError)
    assert Checkpointer(tmp_path / "run").steps() == [2, 3]


SCRIPT = """
import os, sys, time
from pathlib import Path
import torch
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from artesian.train import Run, join

torch.manual_seed(1)
member = join()
model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3))
if "SHARDED" in os.environ:
    for part in (model[0], model[2], model):
        fully_shard(part)
else:
    model = DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = [torch.full((6,), index / 100) for index in range(100)]
with Run.from_env(model=model, optimizer=optimizer, member=member, memory_every=1) as run:
    for batch in run.batches(data, global_batch=4, steps=20):
        loss = (model(batch) - 1).square().mean()
        loss.backward()
        run.commit(loss)
        if run.step == int(os.environ["STAYS_AT"]):
            run._save_now()  # so that nothing is under way
            if member.rank == 0:
                Path(sys.argv[1], "stays").touch()
            with run.paused():
                while not Path(sys.argv[1], "go").exists():
                    time.sleep(0.02)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("restarts", "env"),
    [("2", {}), ("0", {}), ("2", {"SHARDED": "1"}), ("0", {"SHARDED": "1"})],
    ids=["replicated", "replicated, in the step", "sharded", "sharded, in the step"],
)
def test_an_attempt_on_a_node_that_was_cut_off_ends_and_its_successor_loses_nothing(
    tmp_path: Path, restarts: str, env: Mapping[str, str]
) -> None:
    checkpoints = tmp_path / "checkpoints"
    where = {"ARTESIAN_CHECKPOINT_DIR": str(checkpoints)}
    old = Job(tmp_path / "old", STAYS_AT="4", **where, **env, **attempt(1))
    new = Job(tmp_path / "new", STAYS_AT="8", **where, **env, **attempt(2))
    options = ("--nproc-per-node", "2", "--max-restarts", restarts)

    try:
        for job in (old, new):
            job.script.write_text(SCRIPT)
        zombie = old.start(*options)
        wait_for((old.notes / "stays").exists, "the old one")
        successor = new.start(*options)
        wait_for((new.notes / "stays").exists, "the new one")
        assert {told.step for told in new.restored()} == {4}
        before = files_of(checkpoints)
        assert "step-00000008/manifest.json" in before

        (old.notes / "go").touch()
        _, errors = zombie.communicate(timeout=DEADLINE_S)
        assert zombie.returncode not in (0, None), errors
        assert "SupersededError" in errors
        assert "this is attempt 1" in errors
        assert old.records() == []  # it was not started again
        assert files_of(checkpoints) == before

        (new.notes / "go").touch()
        _, errors = successor.communicate(timeout=DEADLINE_S)
        assert successor.returncode == 0, errors
        assert new.records() == []
        assert max(path.name for path in checkpoints.glob("step-*")) == "step-00000020"
    finally:
        old.end()
        new.end()
