"""A command's standard output, which whatever reads it may leave early: `lab recipes | head -1`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO


class Left(KeyboardInterrupt):
    """Nobody reads the output any more. It ends a command as Ctrl-C does: what is finished is kept, and records say `stopped`."""


@contextmanager
def watched() -> Iterator[None]:
    """Inside, and where it ends, an output that nobody reads raises `Left`; one that cannot be written is named in the OSError."""
    stream = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - none where it was closed before the start
    watching = _Watching(stream)
    with redirect_stdout(watching):
        try:
            yield
        finally:
            watching.flush()


class _Watching:
    """The stream, but for writing."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._watched():
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with self._watched():
            self._stream.flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if threading.current_thread() is not threading.main_thread():
                return  # the main thread meets it when it next writes
            self._drop()
            if isinstance(error, BrokenPipeError):
                raise Left from error
            raise OSError(error.errno, error.strerror, "the output") from error

    def _drop(self) -> None:
        """Leads what is still to be written nowhere: Python tries once more, and complains, when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
