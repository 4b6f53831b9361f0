"""Attempts of a job that save to one object store at once, in any order of their requests: the newest loses nothing."""

import io
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.train import SupersededError, fence
from artesian.train.errors import CheckpointError
from artesian.train.fence import Writer
from artesian.train.manifest import Facts, parse_manifest
from artesian.train.object_names import Name, counting, mark_of, writer_of
from artesian.train.object_store import ObjectStore
from artesian.train.parts import Save, commit_parts, parse_parts, read_pieces, write_part
from artesian.train.storage import Storage, verified_pieces, write_checkpoint

pytest.importorskip("fsspec")
JOB, WORLD, SAVES = "j", 2, 3
DEADLINE_S = 60.0


class Turns:
    """Lets one of several threads run at a time, each up to its next request, in the order of ``draws``."""

    def __init__(self, count: int, draws: Sequence[tuple[int, int]]) -> None:
        """A draw says which of those that are not through is next, and for how many requests; then come the last first."""
        self._alive = list(range(count))
        self._draws = iter([who for who, times in draws for _ in range(times)])
        self._changed = threading.Condition()
        self._current: int | None = None

    def next(self, me: int) -> None:
        """Give the turn on, and wait for the own one."""
        with self._changed:
            if self._current in (None, me):
                self._give_on()
            assert self._changed.wait_for(lambda: self._current == me, DEADLINE_S)

    def leave(self, me: int) -> None:
        """Be through."""
        with self._changed:
            self._alive.remove(me)
            self._give_on()

    def _give_on(self) -> None:
        if self._alive:
            self._current = self._alive[next(self._draws, -1) % len(self._alive)]
            self._changed.notify_all()


class Shared:
    """One actor's way to the store: each request waits for its turn, and is then carried out at once."""

    def __init__(self, files: Any, turns: Turns, me: int) -> None:
        self._files, self._turns, self._me = files, turns, me

    def __getattr__(self, name: str) -> Any:
        assert name in ("find", "ls", "cat_file", "pipe_file", "rm_file"), name

        def ask(*words: Any, **options: Any) -> Any:
            self._turns.next(self._me)
            return getattr(self._files, name)(*words, **options)

        return ask

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: there are no folders."""

    def invalidate_cache(self) -> None:
        """Do nothing: there is none."""

    def rm(self, path: str, recursive: bool) -> None:
        assert recursive
        for found in self.find(path):
            self.rm_file(found)

    def open(self, path: str, mode: str) -> io.BytesIO:
        return io.BytesIO(self.cat_file(path)) if mode == "rb" else _Put(self, path)


class _Put(io.BytesIO):
    def __init__(self, files: Shared, path: str) -> None:
        super().__init__()
        self._to, self._path = files, path

    def close(self) -> None:
        if not self.closed:
            self._to.pipe_file(self._path, self.getvalue())
        super().close()


@dataclass
class Attempt:
    """One that comes, restores and saves, until it is refused or through."""

    storage: Storage
    epoch: int
    is_in_parts: bool
    keep_last: int
    stride: int
    restored: int | None = None
    done: list[int] = field(default_factory=list)
    refused: BaseException | None = None
    failure: BaseException | None = None

    def train(self) -> None:
        try:
            fence.claim(self.storage)
            self.restored = self.storage.steps()[-1]
            whose(self.storage, self.restored)
            for number in range(1, SAVES + 1):
                step = self.restored + number * self.stride
                self.save(step)
                self.done.append(step)
        except SupersededError as error:
            self.refused = error
        except (CheckpointError, OSError, ValueError, IndexError, AssertionError) as error:
            self.failure = error  # what it read was removed: it may not be the newest any more

    def save(self, step: int) -> None:
        image = [memoryview(f"{self.epoch}-{step}".encode())]
        if not self.is_in_parts:
            write_checkpoint(
                self.storage, Facts(step=step), image, 1, keep_last=self.keep_last, keep_every=None
            )
            return
        save = Save(step=step, position=0, world_size=WORLD, number=uuid.uuid4().hex)
        fence.sweep(self.storage, save.name)
        for rank in range(WORLD):
            write_part(self.storage, save, rank, image, 1)
        assert commit_parts(self.storage, save, keep_last=self.keep_last, keep_every=None) is not None


def whose(storage: Storage, step: int) -> int:
    """Return which attempt has saved a step, having read and verified it."""
    fields = storage.manifest(step)
    if fields["format"] == 2:
        images = [b"".join(map(bytes, verified_pieces(storage, parse_manifest(fields))))]
    else:
        parts = parse_parts(fields)
        images = [b"".join(bytes(piece) for _, piece in read_pieces(storage, parts, p)) for p in parts.parts]
        assert len(images) == WORLD
    (image,) = set(images)
    epoch, _, of = image.decode().partition("-")
    assert int(of) == step
    return int(epoch)


def store(root: str, epoch: int) -> ObjectStore:
    return ObjectStore(f"memory:/{root}", {}, Writer(job=JOB, epoch=epoch))


@st.composite
def attempts(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        {
            "is_in_parts": draw(st.booleans()),
            "keep_last": draw(st.integers(1, 2)),
            "stride": draw(st.sampled_from((3, 4))),
        }
        for _ in range(draw(st.integers(2, 3)))
    ]


@settings(max_examples=300, deadline=None)
@given(attempts(), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), max_size=12))
def test_in_any_order_of_requests_the_newest_attempt_loses_nothing_and_nothing_is_left(
    who: list[dict[str, Any]], draws: list[tuple[int, int]]
) -> None:
    root = f"/{uuid.uuid4().hex}/run"
    first = Attempt(store(root, 1), 1, False, 2, 4)
    fence.claim(first.storage)
    first.save(4)
    first.save(8)
    turns = Turns(len(who), draws)
    actors, threads = [], []
    for me, about in enumerate(who):
        storage = store(root, 2 + me)
        files, storage._files = storage._files, Shared(storage._files, turns, me)
        actors.append(Attempt(storage, 2 + me, **about))

        def run(me: int = me) -> None:
            try:
                actors[me].train()
            finally:
                turns.leave(me)

        threads.append(threading.Thread(target=run, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()

    newest = actors[-1]
    try:
        assert (newest.refused, newest.failure) == (None, None)
        assert newest.restored is not None
        # Whatever was told as saved before it came, it goes on from.
        assert newest.restored >= max([8, *(step for actor in actors[:-1] for step in actor.done)])
        assert newest.done == [newest.restored + number * newest.stride for number in range(1, SAVES + 1)]
        # A third party finds what it has saved, and what it had when it came; not what others put there later.
        reader = ObjectStore(f"memory:/{root}", {})
        assert reader.steps() == newest.done[-newest.keep_last :]
        assert {whose(reader, step) for step in reader.steps()} == {newest.epoch}
        # And with its next save all that is left of the others goes.
        newest.storage = store(root, newest.epoch)
        for _ in range(2):
            newest.save(newest.done[-1] + newest.stride)
            newest.done.append(newest.done[-1] + newest.stride)
        folders = {path.removeprefix(f"{root}/").partition("/")[0] for path in files.find(root)} - {"writers"}
        names = [Name.parse(folder) for folder in folders]
        assert {name and name.writer for name in names} == {Writer(job=JOB, epoch=newest.epoch)}
        assert {name.step for name in names if name} == set(newest.done[-newest.keep_last :])
    finally:
        with suppress(FileNotFoundError):
            files.rm(root, recursive=True)


def found(*names: str) -> list[Name]:
    return [name for name in map(Name.parse, names) if name is not None]


def counted(names: Sequence[str], marks: dict[str, Sequence[str] | None]) -> dict[int, str]:
    """Return what counts of ``names``; ``marks`` has what was there when each attempt came."""
    writers = [writer for mark in marks if (writer := writer_of(mark)) is not None]
    assert len(writers) == len(marks)
    kept = counting(found(*names), writers, lambda writer: marks[mark_of(writer)])
    return {step: str(name) for step, name in kept.items()}


OLD, LATE, NEW = "step-00000008.1.j", "step-00000012.1.j", "step-00000010.2.j"


def test_of_an_attempt_that_was_followed_counts_what_did_when_the_next_one_came() -> None:
    marks: dict[str, Sequence[str] | None] = {"1.j.json": []}
    assert counted([OLD, LATE], marks) == {8: OLD, 12: LATE}
    assert counted([OLD, LATE], {**marks, "2.j.json": [OLD]}) == {8: OLD}
    assert counted([OLD, LATE, NEW], {**marks, "2.j.json": [OLD]}) == {8: OLD, 10: NEW}
    # One that has come and has not written down yet what it found changes nothing.
    assert counted([OLD, LATE], {**marks, "2.j.json": None}) == {8: OLD, 12: LATE}
    assert counted([OLD, LATE, NEW], {"2.j.json": [OLD], "3.j.json": None}) == {8: OLD, 10: NEW}
    assert counted([OLD, LATE, NEW], {"2.j.json": [OLD], "3.j.json": [NEW]}) == {10: NEW}
    # Other jobs, and whoever is none's, are not fenced.
    others = ["step-00000020", "step-00000021.1.k"]
    assert counted([OLD, *others], {"2.j.json": [], "1.k.json": [OLD]}) == {20: others[0], 21: others[1]}


def test_of_two_of_one_step_that_one_counts_whose_writer_found_the_other() -> None:
    again = "step-00000008.2.j"
    marks: dict[str, Sequence[str] | None] = {"1.j.json": [], "2.j.json": [OLD]}
    assert counted([OLD, again], marks) == counted([again, OLD], marks) == {8: again}
    job = "step-00000008.1.k"  # submitted anew, with the folder of the one before
    assert counted([again, job], {**marks, "1.k.json": [again]}) == {8: job}
    assert counted([again, job], {"1.k.json": [], "2.j.json": [job]}) == {8: again}
    plain = "step-00000008"
    assert counted([plain, job], {"1.k.json": [plain]}) == {8: job}


@given(
    st.integers(0, 10**9),
    st.text("0123456789abcdef-", max_size=20).filter(lambda text: not text.startswith("-")),
    st.none() | st.builds(Writer, job=st.text(min_size=1, max_size=20), epoch=st.integers(1, 10**6)),
)
def test_a_name_says_what_it_was_made_of(step: int, number: str, writer: Writer | None) -> None:
    name = Name(step, number, writer)
    assert Name.parse(str(name)) == name
    assert "/" not in str(name)
    if writer is not None:
        assert writer_of(mark_of(writer)) == writer


def test_other_names_are_none_of_ours() -> None:
    for text in (
        "",
        "step-",
        "step-x",
        "step-1.2",
        "step-1.x.j",
        "writers",
        "step-00000008-.1.j",
        "x-step-1",
    ):
        assert Name.parse(text) is None
    for text in ("", "1.json", "x.j.json", "1.j"):
        assert writer_of(text) is None


def test_who_was_killed_as_it_came_comes_again() -> None:
    import fsspec

    root = f"/{uuid.uuid4().hex}/run"
    old, new = store(root, 1), store(root, 2)
    write_checkpoint(old, Facts(step=8), [memoryview(b"1-8")], 1, keep_last=2, keep_every=None)

    class Killed(BaseException):
        pass

    def find(*_: object, **__: object) -> Iterator[str]:
        raise Killed

    files, new._files = new._files, _With(new._files, find)
    with pytest.raises(Killed):
        fence.claim(new)
    with pytest.raises(SupersededError):
        fence.claim(old)
    assert ObjectStore(f"memory:/{root}", {}).steps() == [8]
    again = store(root, 2)
    fence.claim(again)
    files.pipe_file(f"{root}/step-00000012.1.j/manifest.json", b"{}")
    assert again.steps() == [8]
    fsspec.filesystem("memory").rm(root, recursive=True)


class _With:
    def __init__(self, files: Any, find: Any) -> None:
        self._files, self.find = files, find

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)
