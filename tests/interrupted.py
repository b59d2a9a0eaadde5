"""Short runs in processes of their own that can be killed at any moment. A fork server imports torch once for all of them."""

import gc
import json
import multiprocessing
import os
import signal
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path

import lab_utils.cli
import lab_utils.methods
import lab_utils.models  # noqa: F401 - imported once, before the fork
from lab_utils import chores, config, environment, locks, methods, runs

LONGER = {"epochs": 2, "batch_size": 4, "micro_batch": 2, "generation_batch": 2}  # 8 steps and 3 batches of summaries, to be killed in
NOT_THE_SAME = ("seconds", "tokens_per_second", "peak_memory_gb", "continued_from_steps")  # of two equal runs


def preload():
    """Imports what every run needs, by a run without training: threads of a backward pass would not survive the fork."""
    environment.quiet()
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch._inductor.codecache  # noqa: F401
    import transformers.trainer  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        run("tiny-causal", "zero_shot", folder)
    gc.freeze()  # or the first collection in each process would copy all that it shares with this one


def settings(recipe, method):
    longer = LONGER if method != "zero_shot" else {"generation_batch": 1}
    return config.resolve(recipe, method, **({"dropout": 0.1} if method == "lora" else {}), **longer)


def run(recipe, method, folder, ready=None):
    """What a process does until it is done or killed: a checkpoint after every step."""
    import torch

    torch.set_num_threads(1)
    chores.EVERY, chores.SHARE = 0.0, float("inf")
    locks.PATIENCE = 30.0
    environment.say = lambda line: None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ready:
        ready.send("ready")
    methods.run(settings(recipe, method), folder)


def hold(folder, held=None):
    """Keeps others from writing into a folder, until it is killed if it is to say so, else for a moment."""
    mine = locks.hold(Path(folder), patience=0)
    if held:
        held.send("held")
        time.sleep(60)
    mine.lock.release()


def context():
    """Starts the fork server, which before Python 3.14 knows this folder only by PYTHONPATH, and passes over what it cannot import."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["interrupted_preloaded"])
    former = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [former])])
    try:
        forkserver.ensure_running()
    finally:
        if former is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = former
    return found


def until_done_or_killed(recipe, method, folder, after=None, by=signal.SIGKILL) -> tuple[int, float]:
    """Runs it in a process of its own and, if asked to, kills it so many seconds after its start. Gives exit code and seconds."""
    here, there = multiprocessing.Pipe()
    process = context().Process(target=run, args=(recipe, method, str(folder), there))
    process.start()
    there.close()
    assert here.recv() == "ready"  # else it ended before, and the pipe says so
    started = time.perf_counter()
    process.join(after)
    if process.is_alive():
        os.kill(process.pid, by)
    process.join(60)
    return process.exitcode, time.perf_counter() - started


def left_by(folder: Path, method: str) -> dict:
    """All that a finished run left, without what differs from run to run: times, memory, and where it went on from."""
    record = runs.read(folder, method).record
    files = sorted(path for path in (folder / method).rglob("*") if path.is_file())
    log = folder / method / "log.csv"
    return {
        "files": {str(path.relative_to(folder)) for path in files},
        "weights": {path.name: path.read_bytes() for path in files if path.suffix == ".safetensors"},
        "predictions": (folder / method / "predictions.jsonl").read_text(encoding="utf-8"),
        "log": [line.rsplit(",", 2)[0::2] for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else None,
        "metrics": record["metrics"],
        **{block: _same(record.get(block, {})) for block in ("training", "generation", "model", "data")},
    }


def _same(block: dict) -> dict:
    return {name: value for name, value in block.items() if name not in NOT_THE_SAME}


def status(folder: Path, method: str) -> str | None:
    """What the record says, which must be readable at any moment after it was first written."""
    path = folder / method / "run.json"
    return json.loads(path.read_text(encoding="utf-8"))["status"] if path.exists() else None
