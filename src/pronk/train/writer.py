"""Files that training does not wait for: they are written in order by a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from pronk.model.memory.sizes import machine_memory

ROOM = 4 * 2**30  # bytes that may wait to be written, if a quarter of the free memory is as much


class Writer:
    """Does what it is given, one thing after another, beside the training.

    What fails ends it: the error is raised in the training by the next call, and what was to come after it is not
    written, so that nothing refers to a file that is not there. Leaving the `with` waits until all is written, but
    for an insisting Ctrl-C, which waits for the file in hand only.
    """

    def __init__(self, room: int | None = None) -> None:
        """room: bytes of what may wait in memory."""
        if room is None:
            free = machine_memory()[1]
            room = ROOM if free is None else min(ROOM, free // 4)
        self.room, self._waiting = room, 0
        self._tasks: deque[tuple[Callable[[], None], int]] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._closed = self._ended = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            if isinstance(error, KeyboardInterrupt):
                self.drop()
            self._closed = True
            self._changed.notify_all()
        try:
            self._until_ended()
        except KeyboardInterrupt:
            self.drop()
            self._until_ended()
            raise
        if error is None:
            self.check()

    def later(self, task: Callable[[], None], size: int = 0) -> None:
        """Have something done in the background. size: bytes that it keeps in memory until then."""
        with self._changed:
            self.check()
            self._tasks.append((task, size))
            self._waiting += size
            if self._thread is None:
                # a daemon, so that a drive that hangs does not outlive a training that was killed
                self._thread = threading.Thread(target=self._work, name="pronk writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def make_room(self, size: int) -> None:
        """Wait until so many bytes more may wait; what is larger than all the room waits alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._tasks or self._waiting + size <= self.room)
        self.check()

    def wait(self) -> None:
        """Until everything is written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._tasks)
        self.check()

    def drop(self) -> None:
        """Leave what has not been begun."""
        with self._changed:
            self._tasks.clear()
            self._waiting = 0
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _until_ended(self) -> None:
        # not by joining the thread: interrupted, that takes it for ended
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None or self._ended)

    def _work(self) -> None:
        try:
            self._do_all()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _do_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tasks or self._closed)
                if not self._tasks:
                    return
                task, size = self._tasks[0]  # it stays until it is done: then only nothing waits
            failure = None
            try:
                task()
            except BaseException as error:  # whatever it is, the training is to hear of it
                failure = error
            del task  # with the weights that it holds
            with self._changed:
                self._changed.notify_all()
                if failure is not None:
                    self._failure = failure
                    self.drop()
                    return
                if self._tasks:
                    self._tasks.popleft()
                    self._waiting -= size
