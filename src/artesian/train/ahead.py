"""An iterator that is run ahead of, by a thread."""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead_of(items: Generator[T], most: int) -> Generator[T]:
    """Yield what ``items`` yields, of which a thread keeps up to ``most`` ready.

    An error of ``items`` is raised when its turn has come. Closing the generator ends the thread, after the
    item it is at.
    """
    runner = _Runner(items, most)
    try:
        yield from runner
    finally:
        runner.end()


class _Runner(Iterator[T]):
    def __init__(self, items: Generator[T], most: int) -> None:
        self._items = items
        self._most = most
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._is_over = self._must_end = False
        self._thread = threading.Thread(target=self._run, name="artesian-ahead", daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._is_over)
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise StopIteration

    def end(self) -> None:
        with self._changed:
            self._must_end = True
            self._changed.notify_all()
        self._thread.join()
        self._items.close()

    def _run(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: len(self._ready) < self._most or self._must_end)
                    if self._must_end:
                        return
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
