"""What the tests of several processes run, in one process or in two: `torchrun ... tests/several.py FOLDER` (see test_processes)."""

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

from transformers import Trainer

from lab_utils import adapters, checkpoints, chores, cli, config, environment, generation, methods, models, processes, runs, training
from lab_utils.data import Example
from lab_utils.environment import Precision
from lab_utils.errors import LabError

WORDS = "the ship is late because of a storm and nobody knows when it comes to the harbour again".split()  # noqa: SIM905
# Thirteen: the last step of an epoch has one example for two processes. Answers of 1 to 13 words: a mean of means is another loss.
EXAMPLES = [
    Example(f"e{i}", f"Ann: {' '.join(WORDS[: 1 + 2 * i])}?\nBen: {' '.join(WORDS[i:])}.", (" ".join(WORDS[: 1 + (5 * i) % 13]) + ".",))
    for i in range(13)
]
FULL_DISKS = ("full disk of the first", "full disk of the last")
CASES = [(recipe, method) for recipe in ("tiny-causal", "tiny-seq2seq") for method in ("full", "lora")]


def case(recipe, method, micro_batch):
    """Four steps of four examples (the last one of one), with accumulation. Returns what must not depend on the number of processes."""
    settings = config.resolve(recipe, method, seed=1, batch_size=4, micro_batch=micro_batch, warmup=0.0, generation_batch=2)
    base = models.load(settings)
    model = adapters.attach_lora(base) if method == "lora" else base.model
    said = []
    history = training.train(model, base, EXAMPLES, EXAMPLES[:5], say=said.append)
    trained = {name: p.detach().flatten().tolist() for name, p in model.named_parameters() if p.requires_grad}
    predictions = generation.summarize(model, base, EXAMPLES[:5], say=said.append).predictions
    return {
        "loss": [row["loss"] for row in history.log if "loss" in row],
        "grad_norm": [row["grad_norm"] for row in history.log if "loss" in row],
        "learning_rate": [row["learning_rate"] for row in history.log if "loss" in row],
        "validation_loss": [row["validation_loss"] for row in history.log if "validation_loss" in row],
        "seen": [history.steps, history.examples, history.tokens],
        "predictions": [[p.id, p.prediction, p.tokens, p.stopped] for p in predictions],
        "weights": trained,
        "said": said[0],
    }


def echoed():
    """What summaries would be if the model answered each prompt with a token of its own, so that their order shows."""
    base = models.load(config.resolve("tiny-causal", "zero_shot", generation_batch=2))
    of_the_model = generation._generate
    generation._generate = lambda model, base, prompts: [[10 + sum(prompt) % 500] for prompt in prompts]
    try:
        return [[p.id, p.prediction] for p in generation.summarize(base.model, base, EXAMPLES, say=lambda line: None).predictions]
    finally:
        generation._generate = of_the_model


def cases(micro_batch):
    environment.precision = lambda family="causal", wanted="auto": Precision("float32", "set by a test")
    return {f"{recipe} {method}": case(recipe, method, micro_batch) for recipe, method in CASES}


def both(folder):
    """Runs the cases in each of the launched processes, and leaves what each found."""
    with processes.joined():
        found = cases(micro_batch=1) | {"echoed": echoed()}
        (Path(folder) / f"{processes.index()}.json").write_text(json.dumps(found))


def command(folder, what, *words):
    """The command line, in which the last process meets a mishap while the others wait for it, or nothing of the kind."""
    last = processes.index() == processes.count() - 1

    def mishap(settings, run_dir):
        with runs.start(run_dir, settings).watched():
            processes.wait()
            (Path(folder) / f"{processes.index()}.pid").write_text(str(os.getpid()))
            if what == "LabError" and last:
                raise LabError("The learning rate is too high: take a third of it.")
            if what == "KeyError" and last:
                raise KeyError("q_proj")
            if what == "killed" and last:
                os.kill(os.getpid(), signal.SIGKILL)
            if last:
                time.sleep(60)
            processes.wait()

    if what == "stopped":
        stop_behind_the_first_checkpoint()
    elif what in FULL_DISKS:
        chores.EVERY, chores.SHARE = 0.0, float("inf")
        if last == (what == "full disk of the last"):
            fill_the_disk_for_checkpoints()
    elif what != "nothing":
        methods.run = mishap
    sys.exit(cli.main([*words, "--out", folder]))


def fill_the_disk_for_checkpoints():
    """As this process meets it: the main one writes the optimizer's state, each one its random numbers."""

    def full(self, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Trainer._save_optimizer_and_scheduler = Trainer._save_rng_state = full


def stop_behind_the_first_checkpoint():
    chores.EVERY, chores.SHARE = 0.0, float("inf")
    complete = checkpoints.Keeper._complete

    def then_stop(self, step, progress):
        complete(self, step, progress)
        processes.wait()
        raise RuntimeError("the session is over")

    checkpoints.Keeper._complete = then_stop


def sharded(*words):
    """The command line with a model split over the processes (FSDP). accelerate offers it on GPUs only, so it is told of some."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    wrap = {
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    }
    os.environ |= wrap | {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_TORCH_DEVICE": "cpu"}
    PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_GPU)
    sys.exit(cli.main(words))


if __name__ == "__main__":
    {"both": both, "command": command, "sharded": sharded}[sys.argv[1]](*sys.argv[2:])
