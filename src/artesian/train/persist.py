"""``Persister``: brings snapshots from shared memory to storage, or to a peer, in the background.

When that is slower than the snapshots that are to be kept, the newest is written next; those that it
replaces are reported, each, as not saved.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.persist_process import deliver, encode_snapshot
from artesian.train.segment import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a snapshot that was to be persisted.

    ``size_bytes`` and ``duration_s`` are known of one that is durable now. ``failure`` says why it is not;
    ``replaced_by`` is the step that was written in its place, because storage was still busy. With ``is_superseded``
    no other will be saved either: a later attempt of the job has come.
    """

    step: int
    size_bytes: int | None = None
    duration_s: float | None = None
    failure: str | None = None
    hint: str | None = None
    replaced_by: int | None = None
    is_superseded: bool = False

    def raise_superseded(self) -> None:
        """Raise SupersededError where that is what has become of it."""
        if self.is_superseded:
            raise SupersededError(str(self.failure), hint=self.hint)


@contextmanager
def failures_told(step: int, on_report: Callable[[Report], object]) -> Iterator[None]:
    """Tell of a CheckpointError within the block as a failure of ``step``, and go on; but SupersededError passes."""
    try:
        yield
    except SupersededError:
        raise
    except CheckpointError as error:
        on_report(Report(step=step, failure=str(error), hint=error.hint))


class Persister:
    """Brings one snapshot at a time to where it is told; the newest that it was given is next."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        newest: Callable[[], Snapshot | None],
        on_report: Callable[[Report], object],
    ) -> None:
        """Start the helper with ``settings`` that ``to_storage`` or ``to_peer`` gave.

        ``newest`` tells the newest snapshot, for when the one to write is overwritten. ``on_report`` is called
        from another thread, once for every snapshot given to ``persist``.
        """
        self._settings = settings
        self._newest = newest
        self._on_report = on_report
        # fsspec's memory:// is a dictionary of this process.
        is_here = str(settings.get("where", "")).startswith("memory://")
        self._helper = None if is_here else _Helper(settings)
        self._changed = threading.Condition()
        self._next: Snapshot | None = None
        self._is_busy = False
        self._is_closed = self._is_left = False
        self._thread = threading.Thread(target=self._work, name="artesian-persist", daemon=True)
        self._thread.start()

    def persist(self, snapshot: Snapshot) -> None:
        """Write ``snapshot`` to storage, soon. Returns at once."""
        with self._changed:
            replaced, self._next = self._next, snapshot
            self._changed.notify_all()
        if replaced is not None:
            self._on_report(Report(step=replaced.step, replaced_by=snapshot.step))

    def drain(self) -> None:
        """Wait until everything that was given to ``persist`` is reported."""
        with self._changed:
            self._changed.wait_for(lambda: self._next is None and not self._is_busy)

    def close(self, *, waits: bool = True) -> None:
        """Finish what was given to ``persist``, and end the helper; unless it ``waits``, one that is busy is let go."""
        with self._changed:
            is_busy = self._is_busy or self._next is not None
        if is_busy and not waits:
            self.detach()
            return
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()
        if self._helper is not None:
            self._helper.close()

    def give_up(self, step: int) -> None:
        """Have the helper wait no longer for the other ranks' parts of the save of ``step``."""
        if self._helper is not None:
            self._helper.tell({"give_up": step})

    def detach(self) -> None:
        """Let the helper finish what it has begun on its own, and do not wait for that."""
        with self._changed:
            self._is_closed = self._is_left = True
            self._next = None
            self._changed.notify_all()
        if self._helper is not None:
            self._helper.leave()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._is_closed)
                snapshot, self._next = self._next, None
                if snapshot is None:
                    break
                self._is_busy = True
            try:
                for report in self._written(snapshot):
                    self._on_report(report)
            except Exception as error:  # of who is told: whoever waits in `drain` would wait for good
                traceback.print_exception(error)
            finally:
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()
        if self._is_left and self._helper is not None:
            self._helper.close()

    def _written(self, wanted: Snapshot) -> list[Report]:
        snapshot: Snapshot | None = wanted
        while snapshot is not None:
            answer = self._ask(snapshot)
            if "gone" not in answer:
                report = Report(**answer)
                is_other = report.step != wanted.step
                return [report, Report(step=wanted.step, replaced_by=report.step)] if is_other else [report]
            newer = self._newest()
            snapshot = newer if newer != snapshot else None
        return [Report(step=wanted.step, failure="the snapshot is gone from shared memory")]

    def _ask(self, snapshot: Snapshot) -> dict[str, Any]:
        if self._helper is not None:
            return self._helper.ask(snapshot)
        return deliver(self._settings, snapshot)


class _Helper:
    """The process that writes; started anew when it has died."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._process = self._start()

    def ask(self, snapshot: Snapshot) -> dict[str, Any]:
        if self._process.poll() is not None:
            self.close()
            try:
                self._process = self._start()
            except OSError as error:  # no room for another process; there may be for the next snapshot
                return {"step": snapshot.step, "failure": f"the process that writes it cannot start: {error}"}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(encode_snapshot(snapshot) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            code = self._process.wait()
            return {"step": snapshot.step, "failure": f"the process that writes it ended with code {code}"}
        return answer

    def tell(self, word: Mapping[str, Any]) -> None:
        """Say something while an answer is waited for."""
        with contextlib.suppress(OSError, ValueError):  # it has ended: there is nothing to be told
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(word) + "\n")
            self._process.stdin.flush()

    def leave(self) -> None:
        """Say no more: it ends when it has answered."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                assert pipe is not None
                pipe.close()
            except BrokenPipeError:
                pass
        self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "artesian.train.persist_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            process_group=0,  # a signal that ends the worker's group leaves it to finish
        )
        assert process.stdin is not None
        # One that has ended at once is found so by who asks it first.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(self._settings) + "\n")
            process.stdin.flush()
        return process
