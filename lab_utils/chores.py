"""How often a run stops for what is not its work: checkpoints, copies to a second place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 60.0  # seconds from one time to the next, at least
SHARE = 0.05  # of the time, at most


class Chore:
    """One that is due once a minute at most, and less often where it would take more than a twentieth of the time."""

    def __init__(self, at_once: bool = False):
        self._spent, self._began = 0.0, None
        self._next = time.perf_counter() + (0.0 if at_once else EVERY)

    @property
    def due(self) -> bool:
        return time.perf_counter() >= self._next

    @property
    def seconds(self) -> float:
        """That it has taken so far, the time at hand included."""
        return self._spent + (time.perf_counter() - self._began if self._began else 0.0)

    @contextmanager
    def doing(self) -> Iterator[None]:
        self._began = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            took, self._began = ended - self._began, None
            self._spent += took
            self._next = ended + max(EVERY, took / SHARE)
