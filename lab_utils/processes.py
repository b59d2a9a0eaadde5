"""Several processes that train together, as `accelerate launch` and `torchrun` start them: who one is, and how they wait, share and end.

One process is the usual case: every function here then returns at once, and torch.distributed is not touched.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from lab_utils import scrubbing
from lab_utils.errors import FAILED, INTERRUPTED, STOPPED, LabError

PATIENCE = timedelta(hours=2)  # how long one waits for the others, of which the first may be downloading and the main one scoring
GONE = (
    "Another process was killed, as the system does when memory runs out: let each hold less (a smaller micro_batch, a quantized base) "
    "or start fewer."
)
TOLD = f"The launcher ended the run, because it was told to or for this reason: {GONE[0].lower()}{GONE[1:]}"
NETWORK_WORDS = ("gloo", "nccl", "connection", "peer")  # in what torch says when a process is gone
_marks: list[Callable[[str, str | None], None]] = []  # who writes down how the run ended; the innermost last


def count() -> int:
    """How many processes train together, on all nodes."""
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if launched else 1


def index() -> int:
    """Which of them this is. 0 is the main one: it alone writes, prints and scores."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_index() -> int:
    """Which of its node's processes this is: the number of its GPU, too."""
    return int(os.environ.get("LOCAL_RANK", index())) if count() > 1 else 0


def is_main() -> bool:
    return index() == 0


def sharded() -> bool:
    """Whether accelerate was told to split the model over the processes (FSDP), which must then take every pass through it together."""
    return count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def share(items: Sequence) -> list:
    """This process's part of what all together must do: every n-th, so that what is sorted is spread. All of it with a split model."""
    return list(items) if sharded() else list(items)[index() :: count()]


def gather(value: Any) -> list:
    """The value of each process, in their order. All must call it."""
    if count() == 1:
        return [value]
    import torch.distributed

    values = [None] * count()
    with meeting():
        torch.distributed.all_gather_object(values, value)
    return values


def wait() -> None:
    """Returns when all processes have come here."""
    gather(None)


@contextmanager
def first_on_each_node():
    """Lets one process of each node do it first, so that what it downloads or prepares lies ready for the others."""
    if local_index():
        wait()
    try:
        yield
    finally:
        if not local_index():
            wait()


@contextmanager
def meeting():
    """Around what waits for others: one that is gone becomes a sentence in place of a socket's complaint.

    Raises:
        LabError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if count() > 1 and any(word in str(error).lower() for word in NETWORK_WORDS):
            raise LabError(GONE) from error
        raise


@contextmanager
def marking(mark: Callable[[str, str | None], None]):
    """Inside, a process that must end at once first calls `mark(status, reason)`."""
    _marks.append(mark)
    try:
        yield
    finally:
        _marks.remove(mark)


@contextmanager
def joined():
    """Joins the processes that were started together, and parts when all are done.

    Inside, an error in one process ends all of them, and so does Ctrl-C: the main process marks the record and says one sentence,
    whichever failed. It needs a thread for that, since the others are likely to be waiting in a product or for each other, where
    Python hears nothing.

    Raises:
        LabError: more processes than GPUs.
    """
    if count() == 1:
        yield
        return
    watch = _Watch()
    try:
        _connect()
        yield
        wait()
    except BaseException as error:
        watch.failed(error)
        raise
    watch.close()
    import torch.distributed

    torch.distributed.destroy_process_group()


def _connect() -> None:
    import torch

    if not is_main():
        warnings.simplefilter("ignore")  # the main process gives the same warnings
    backend = "gloo"
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if local_index() >= gpus:
            hidden = " (CUDA_VISIBLE_DEVICES hides the others)" if os.environ.get("CUDA_VISIBLE_DEVICES") else ""
            raise LabError(f"A node has more processes than GPUs, of which there are {gpus} here{hidden}: start one process for each.")
        torch.cuda.set_device(local_index())
        backend = "cpu:gloo,cuda:nccl"
    else:  # accelerate would call it cpu:1, to which transformers 5.15 cannot load an optimizer
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    torch.distributed.init_process_group(backend, timeout=PATIENCE)


class _Watch:
    """Hears signals and other processes' failures beside the main thread, and ends this process."""

    FAILED, HEARD = "failed", "heard"  # keys that all processes see: why one of them ends, and that the main one has said so

    def __init__(self):
        from torch.distributed import PrefixStore, TCPStore

        hosts = is_main() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # else the launcher does
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=hosts, multi_tenant=True, wait_for_workers=False, timeout=timedelta(minutes=5))
        self._store = PrefixStore(f"lab/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        self._ending = threading.Lock()  # held by whoever ends this process
        self._left = threading.Event()
        self._ear, self._mouth = socket.socketpair()
        for end in (self._ear, self._mouth):
            end.setblocking(False)
        self._former_mouth = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._left.set()
        self._thread.join()
        signal.set_wakeup_fd(self._former_mouth)
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def failed(self, error: BaseException) -> None:
        """Called where this process fails. The main one returns, to say its sentence as always; another one tells the main one and ends."""
        if not self._ending.acquire(blocking=False):
            time.sleep(60)  # the listener is ending this process
        if is_main():
            self._tell(self.HEARD, "")
            return
        sentence = str(error)
        if not isinstance(error, LabError):
            print(scrubbing.without_secrets("".join(traceback.format_exception(error))), file=sys.stderr)
            sentence = f"Process {index()} of {count()} failed: {type(error).__name__}: {error}"
        self._report(sentence)
        _leave(FAILED)

    def _report(self, reason: str) -> None:
        """Tells the main process why this one ends, and waits until it has said so: the launcher ends all as soon as one is gone."""
        self._tell(self.FAILED, reason)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._told(self.HEARD) is None:
            time.sleep(0.1)

    def _listen(self) -> None:
        while not self._left.is_set():
            if select.select([self._ear], [], [], 0.2)[0]:
                self._end("" if self._ear.recv(1)[0] == signal.SIGINT else self._told(self.FAILED) or TOLD)
            elif is_main() and (reason := self._told(self.FAILED)) is not None:
                self._end(reason)

    def _end(self, reason: str) -> None:
        """Ends this process; without a reason, because of Ctrl-C."""
        if not self._ending.acquire(blocking=False):
            return  # the main thread is ending it
        if is_main():
            with contextlib.suppress(LabError):  # no disk to write on: the record keeps its first word, `stopped`
                for mark in _marks[-1:]:
                    mark("failed" if reason else "stopped", reason or None)
            print(f"error: {scrubbing.without_secrets(reason)}" if reason else f"\n{STOPPED}", file=sys.stderr)
            self._tell(self.HEARD, "")
        elif not reason:
            self._report("")
        _leave(FAILED if reason else INTERRUPTED)

    def _tell(self, key: str, words: str) -> None:
        with contextlib.suppress(RuntimeError):  # whoever keeps the store may be gone
            self._store.set(key, words)

    def _told(self, key: str) -> str | None:
        try:
            return self._store.get(key).decode() if self._store.check([key]) else None
        except RuntimeError:
            return "" if key == self.HEARD else None


def _leave(code: int) -> None:
    """Ends this process without waiting for its main thread, which may be waiting for a process that is gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
