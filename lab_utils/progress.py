"""How far something is, and how long the rest will take: a line now and then, as readable in a log as in a notebook."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from lab_utils import environment

FIRST, EVERY = 5.0, 10.0  # seconds until the first line, and from each line to the next
Item = TypeVar("Item")


class Lines:
    """When a line is due: some seconds after the beginning, and then now and again."""

    def __init__(self):
        self._next = time.perf_counter() + FIRST

    def due(self) -> bool:
        """Whether one is due, which is then said to be written."""
        now = time.perf_counter()
        due = now >= self._next
        if due:
            self._next = now + EVERY
        return due


class Progress:
    """Counts what is done of `total`, and says it when a line is due.

    Args:
        what: is counted, in the plural.
        say: takes a line; by default it is printed.
        done: how many an earlier start had done.
    """

    def __init__(self, total: int, what: str, say: Callable[[str], None] | None = None, done: int = 0):
        self._total, self._what, self._say, self._before = total, what, say or environment.say, done
        self._started, self._lines = time.perf_counter(), Lines()

    def at(self, done: int) -> None:
        if self._before < done < self._total and self._lines.due():
            left = _left(self._started, done - self._before, self._total - done)
            self._say(f"{done}/{self._total} {self._what}, {left} left")


def through(items: Sequence[Item], what: str, say: Callable[[str], None] | None = None) -> Iterator[Item]:
    """The items, one by one, with a line of progress where they take long."""
    progress = Progress(len(items), what, say)
    for number, item in enumerate(items, 1):
        yield item
        progress.at(number)


@contextmanager
def waiting(what: str, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Around something that cannot tell how far it is: says now and then that it goes on, and for how long."""
    ended, started = threading.Event(), time.perf_counter()

    def tell():
        pause = FIRST
        while not ended.wait(pause):
            (say or environment.say)(f"{what}: {duration(time.perf_counter() - started)} so far")
            pause = EVERY

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def downloads(say: Callable[[str], None] | None = None) -> type:
    """A `tqdm_class` for huggingface_hub that draws no bar: a line now and then says how many megabytes are there, and the time left."""
    from huggingface_hub.utils import tqdm

    lines = Lines()  # of all files together

    class Downloads(tqdm):
        def __init__(self, *args, **given):
            super().__init__(*args, **(given | {"disable": True}))
            # The hub's client also counts files, and bytes on their way to be put together: neither is what a reader waits for.
            self._counts = given.get("unit") == "B" and "ownloading bytes" not in (given.get("desc") or "")
            self._started, self._had = time.perf_counter(), self.n

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._counts and self._had < self.n < (self.total or 0) and lines.due():
                left = _left(self._started, self.n - self._had, self.total - self.n)
                (say or environment.say)(f"{self.n / 1e6:.0f} of {self.total / 1e6:.0f} MB, {left} left")

    return Downloads


def _left(started: float, done: float, to_do: float) -> str:
    """How long the rest takes, at the pace since the start."""
    return duration((time.perf_counter() - started) / done * to_do)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `45 s`, `3 min 05 s`."""
    seconds = round(seconds)
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60:02d} s"
