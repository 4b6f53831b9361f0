"""``Memory``: a rank's state in shared memory, one step behind at most, whatever happens to the process.

::

    memory = Memory(JobFolder(job), rank)
    for step in ...:
        loss = forward_and_backward()
        memory.wait()                   # the copy of the last step's state is done: it may change now
        optimizer.step()
        memory.begin(step, state)       # returns at once: the copy runs beside the next forward pass

What is committed is exactly the state of its step: between ``begin`` and ``wait`` nothing may write to
the tensors, and it is checked that nothing did (by torch's version counters). A snapshot whose tensors
changed under it is not committed, it is told, and what changed is copied inside of ``begin`` from then on.
"""

import contextlib
import itertools
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from artesian.train.device_copy import Pins
from artesian.train.errors import CheckpointError
from artesian.train.image import Layout, decode, encode_tree
from artesian.train.plain import to_plain
from artesian.train.segment import Buffer, JobFolder, Snapshot, Writer, reading
from artesian.train.snapshot_copy import Room, SnapshotCopy


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A snapshot read back: ``state`` is a copy, on the CPU, ``meta`` what ``begin`` was given with it."""

    snapshot: Snapshot
    meta: Mapping[str, Any]
    state: Any


class Memory:
    """The snapshots of one rank. One process at a time; its successor finds what it left."""

    def __init__(
        self,
        folder: JobFolder,
        rank: int,
        *,
        buffers: int = 2,
        on_commit: Callable[[Snapshot], object] | None = None,
    ) -> None:
        """Take over the memory of ``rank`` in ``folder``.

        ``buffers``: two, and one more for everything that reads snapshots for long (storage, a peer). More
        are made when every other one is being read. ``on_commit`` is called from any thread.

        Raises CheckpointError while another process has this rank's memory.
        """
        if buffers < 2:
            raise ValueError(f"buffers must be at least 2, so that one is always whole, got {buffers}")
        self._folder = folder
        self._rank = rank
        self._writer = Writer(folder, rank)
        self._on_commit = on_commit
        self._wanted_buffers = buffers
        self._buffers: dict[int, Buffer] = {}
        self._rooms: dict[Buffer, Room] = {}
        self._mapping = threading.Lock()
        self._layout: Layout | None = None
        self._pins = Pins()
        self._newest: Snapshot | None = next(iter(folder.snapshots(rank)), None)
        self._sequence = self._newest.sequence if self._newest else 0
        self._copy: SnapshotCopy | None = None
        self._changing: set[str] = set()
        self._queue: SimpleQueue[SnapshotCopy | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="artesian-memory", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> Snapshot | None:
        """The newest snapshot that is committed; None where there is none yet."""
        return self._newest

    def prepare(self, state: Mapping[str, Any]) -> None:
        """Make and map all buffers for states like ``state``, so that the first snapshots are quick too.

        It takes as long as the kernel needs to find the memory. Raises CheckpointError when /dev/shm is
        full, or when ``state`` holds what a checkpoint cannot.
        """
        self.finish()
        layout = self._lay_out(*to_plain(state), {})[0]
        self._fill_up(layout)

    def begin(self, step: int, state: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> None:
        """Start to copy ``state``, as the snapshot of ``step``; ``wait`` before anything changes it.

        ``meta`` is plain data that goes with it. A snapshot before that was not waited for is waited for
        first; that it failed is told by ``wait`` alone.

        Raises CheckpointError when /dev/shm is full, or when ``state`` holds what a checkpoint cannot.
        The snapshots from before are untouched.
        """
        self.finish()
        tree, tensors = to_plain(state)
        layout, document = self._lay_out(tree, tensors, meta or {})
        buffer = self._take(layout)
        room = self._rooms.get(buffer)
        if room is None or room.layout is not layout:
            room = self._rooms[buffer] = Room(buffer, layout)
        copy = SnapshotCopy(room, tensors, document, step, self._changing, self._pins)
        self._copy = copy
        if copy.is_copied and len(self._buffers) >= self._wanted_buffers:
            self._conclude(copy)  # waking the thread would take longer, and cost the next step as much again
        else:
            copy.is_finished = threading.Event()
            self._queue.put(copy)

    def wait(self) -> None:
        """Return when the state may change: the copy is done, or is ordered before this device's next work.

        The caller helps with what is left to copy. Raises CheckpointError when the snapshot was spoiled
        because something wrote to its tensors before this call, or when it could not be copied or passed on.
        """
        if self._copy is not None:
            self._copy.release()
            if self._copy.error is not None and not self._copy.is_told:
                self._copy.is_told = True
                raise self._copy.error

    def finish(self) -> Snapshot | None:
        """Return the newest snapshot, after the one that was begun is committed, and told, or has failed."""
        if self._copy is not None:
            self._copy.help()
            self._copy.is_finished.wait()
        return self._newest

    def wait_before(self, optimizer: Optimizer) -> RemovableHandle:
        """Call ``wait`` at the start of every ``optimizer.step()``; the handle removes that again."""
        return optimizer.register_step_pre_hook(lambda *_: self.wait())

    def load(self, step: int | None = None) -> Recalled | None:
        """Return a copy of the newest whole snapshot, or of the one of ``step``; None if there is none."""
        self.finish()
        return load(self._folder, self._rank, step)

    def close(self, *, keep: bool = False) -> None:
        """End it, and unlink the buffers unless ``keep``, which is for a successor of this process."""
        self.finish()
        self._queue.put(None)
        self._thread.join()
        for buffer in self._buffers.values():
            self._let_go(buffer)
        self._buffers.clear()
        if not keep:
            self._folder.remove(self._rank)
        self._writer.close()

    def _lay_out(
        self, tree: Any, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
    ) -> tuple[Layout, bytes]:
        text = encode_tree(meta, tree)
        listed = list(tensors.values())
        if self._layout is None or not self._layout.fits(listed, len(text)):
            self._layout = Layout.of(listed, len(text))
        return self._layout, self._layout.document(text)

    def _take(self, layout: Layout) -> Buffer:
        """Return a buffer to write to: never the newest, and none that is being read."""
        newest = self._newest
        for number in itertools.count():
            mapped = self._buffers.get(number)
            path = self._folder.buffer(self._rank, number) if mapped is None else mapped.path
            if newest is not None and newest.path == path:
                continue
            buffer = self._map(number, layout)
            if buffer.try_open():
                return buffer
        raise AssertionError("a count does not end")

    def _fill_up(self, layout: Layout) -> None:
        """Make all the buffers that are wanted, but leave the newest snapshot where it is."""
        for number in range(self._wanted_buffers):
            newest = self._newest
            is_newest = newest is not None and newest.path == self._folder.buffer(self._rank, number)
            if number not in self._buffers and not is_newest:
                self._map(number, layout)

    def _map(self, number: int, layout: Layout) -> Buffer:
        """Return buffer ``number`` with room for ``layout``, and remember it."""
        with self._mapping:  # the thread makes buffers that are not there yet, while `begin` may take one
            old = self._buffers.get(number)
            if old is not None:
                if old.image_bytes == layout.size_bytes:
                    return old
                del self._buffers[number]
                self._let_go(old)
            buffer = Buffer(self._folder.buffer(self._rank, number), layout.size_bytes)
            self._buffers[number] = buffer
            return buffer

    def _let_go(self, buffer: Buffer) -> None:
        self._rooms.pop(buffer, None)  # it holds the mapping
        self._pins.remove(buffer)
        buffer.close()

    def _work(self) -> None:
        while (copy := self._queue.get()) is not None:
            self._conclude(copy)
            # The other buffers are made beside the steps that follow. Where there is no room for them,
            # that is told by the `begin` that needs one.
            with contextlib.suppress(CheckpointError):
                self._fill_up(copy.layout)

    def _conclude(self, copy: SnapshotCopy) -> None:
        try:
            self._bring_home(copy)
        except Exception as error:  # who waits for it, or for one after it, would wait for good
            traceback.print_exception(error)  # `wait` may have been called already
            copy.fail(error)
        finally:
            copy.is_finished.set()  # what it was committed for is known to whoever has waited for it

    def _bring_home(self, copy: SnapshotCopy) -> None:
        snapshot = copy.run(self._sequence + 1)
        self._changing |= copy.changed
        if snapshot is None:
            return
        self._sequence += 1
        self._newest = snapshot
        if self._on_commit is not None:
            self._on_commit(snapshot)


def load(folder: JobFolder, rank: int, step: int | None = None) -> Recalled | None:
    """Return a copy of the rank's newest whole snapshot, or of the one of ``step``; None if there is none.

    For any process, also beside the one that writes.
    """
    for snapshot in folder.snapshots(rank):
        if step is not None and snapshot.step != step:
            continue
        with reading(snapshot) as image:
            if image is None:  # overwritten meanwhile, or damaged
                continue
            meta, state = _copied(image, snapshot.document_bytes)
        return Recalled(snapshot=snapshot, meta=meta, state=state)
    return None


def _copied(image: memoryview, document_bytes: int) -> tuple[dict[str, Any], Any]:
    whole = torch.frombuffer(image, dtype=torch.uint8)
    return decode(bytes(image[:document_bytes]), lambda slot: slot.view(whole).clone())
