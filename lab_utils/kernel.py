"""A notebook's kernel and the file that it writes: how the one ended, and the other whole at every moment."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lab_utils import files, scrubbing
from lab_utils.errors import LabError

START_SECONDS = 120  # for a kernel to answer on a slow machine
OUTPUT_SECONDS = 600  # for what a cell printed to arrive once it has ended: on a busy machine nbclient's 4 s can be too short


class Kept:
    """Where papermill writes an executed notebook, before every cell that runs; a file that was there is replaced as a whole.

    The first writing must succeed. A later one that fails is noted in `failure`, and the notebook goes on: what it trains is worth more
    than the copy of its cells.
    """

    def __init__(self, path: Path):
        self.path = path
        self.last = ""
        self.failure: LabError | None = None

    def write(self, text: str, path: str) -> None:
        begun, self.last = bool(self.last), text
        try:
            files.write_text(self.path, scrubbing.without_secrets(text))  # as text: only `settle` knows what is an image
            self.failure = None
        except LabError as error:
            if not begun:
                raise
            self.failure = error

    def pretty_path(self, path: str) -> str:
        return path

    def settle(self, seconds: float, ended: bool) -> None:
        """Puts into the file what papermill does not know, and takes secrets out, which cells may have printed or errors quoted.

        Args:
            seconds: that it took, by a clock that nobody sets.
            ended: whether it ran to its end. papermill notes errors of cells only: with a dead kernel a notebook looks as if it had.

        Raises:
            LabError: it cannot be written.
        """
        if not self.last:
            return
        made = json.loads(self.last)
        papermill = made["metadata"].setdefault("papermill", {})
        papermill["duration"] = round(seconds, 3)
        if not ended:
            papermill["exception"] = True
        files.write_json(self.path, scrubbing.without_secrets(made))
        self.failure = None

    def cell(self) -> str:
        """The cell that was begun last, as `cell 3 (its first line)`."""
        cells = json.loads(self.last)["cells"] if self.last else []
        begun = [number for number, cell in enumerate(cells, 1) if cell["metadata"].get("papermill", {}).get("start_time")]
        return f"cell {begun[-1]} ({first_line(''.join(cells[begun[-1] - 1]['source']))})" if begun else "its start"


def first_line(source: str) -> str:
    """The first line of a cell that says something, cut for a message."""
    return next((line for line in source.splitlines() if line.strip()), "").strip()[:60]


class Watch:
    """Over one kernel: how it ended, and what it wrote as it died.

    What cells print, compiled libraries too, goes into the notebook. The kernel's own stderr holds only what went wrong at its start and
    its end, and now and then a complaint of ZeroMQ about the order in which a kernel that is done closes its sockets.
    """

    def __init__(self):
        self._started: list[subprocess.Popen] = []
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - read when the kernel is gone, and gone with this

    def options(self) -> dict[str, Any]:
        """What nbclient is told beyond papermill's own."""
        from jupyter_client.manager import AsyncKernelManager

        words, started = self._words, self._started

        class Watched(AsyncKernelManager):
            async def start_kernel(self, **given) -> None:
                await super().start_kernel(stderr=words, **given)
                started.append(self.provisioner.process)

        return {"kernel_manager_class": Watched, "iopub_timeout": OUTPUT_SECONDS}

    def end(self) -> None:
        """Ends the kernel where nbclient left it running, which it does if it is stopped in the middle of a message."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()

    def death(self, name: str, cell: str) -> str:
        """Why the kernel is gone, and what to do: a killed one most often lacked memory, and others did not."""
        code = self._started[-1].poll() if self._started else None
        if code in (None, -getattr(signal, "SIGKILL", 9), 137):
            return (
                f"The kernel of {name} was killed at {cell}, most often for lack of memory: close other programs or give -p micro_batch=1."
            )
        if code < 0:
            try:
                how = signal.Signals(-code).name
            except ValueError:
                how = f"signal {-code}"
            cause = f"{how}{self._last_words()}"
            return f"The kernel of {name} crashed at {cell} ({cause}), in a compiled library: run `lab doctor`, and the same command again."
        cause = f"exit code {code}{self._last_words()}"
        return f"The kernel of {name} ended at {cell} by itself ({cause}): look for what ends Python there, and run again."

    def no_start(self, name: str, error: BaseException) -> str:
        return (
            f"The kernel of {name} did not start or does not answer ({scrubbing.reason(error)}{self._last_words()}): run `lab doctor`, "
            "close other programs, free some space, and run again."
        )

    def _last_words(self) -> str:
        self._words.seek(0)
        lines = [line.strip() for line in self._words.read().decode("utf-8", errors="replace").splitlines() if line.strip()]
        return f"; its last words: {scrubbing.without_secrets(lines[-1])[:200]}" if lines else ""


def engine() -> type:
    """papermill's, which writes the notebook before each cell that runs, while that prints, and at the end.

    papermill itself writes it before and after every cell, those of text as well: 164 times, a fifth of a short notebook's time.
    """
    from papermill.engines import NBClientEngine

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            save = nb_man.save

            def save_while_code_runs(**given):
                running = [cell for cell in nb_man.nb.cells if cell.metadata.papermill["status"] == nb_man.RUNNING]
                if any(cell.cell_type == "code" for cell in running):
                    save(**given)

            nb_man.save = save_while_code_runs
            try:
                return super().execute_managed_notebook(nb_man, kernel_name, **options)
            finally:
                nb_man.save = save

    return Engine
