"""Two processes on this machine (gloo), as `accelerate launch` and `torchrun` start them, against one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import accelerate
import psutil
import pytest
import several
import torch
from packaging.version import Version
from safetensors.torch import load_file
from transformers.trainer_pt_utils import LengthGroupedSampler

from lab_utils import config, environment, methods, models, processes, runs, trainer
from lab_utils.batching import IGNORED, Collator, Shares, filler
from lab_utils.errors import FAILED, LabError

ROOT = Path(__file__).parents[1]


def torchrun(*words, count=2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--nproc_per_node", str(count), "--master_addr", "127.0.0.1", "--master_port", str(port)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *address, str(ROOT / "tests/several.py"), *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    """The cases in two processes with micro-batches of 1, and here with micro-batches of 2."""
    folder = tmp_path_factory.mktemp("several")
    launched = torchrun("both", str(folder))
    precision = environment.precision
    try:
        one = several.cases(micro_batch=2) | {"echoed": several.echoed()}
    finally:
        environment.precision = precision
    _, error = launched.communicate(timeout=300)
    assert launched.returncode == 0, error
    return one, [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]


each_case = pytest.mark.parametrize("case", [" ".join(case) for case in several.CASES])


@each_case
def test_two_processes_give_the_losses_of_one_with_twice_the_micro_batch(case, one_and_two):
    one, two = one_and_two
    for found in two:
        assert found[case]["loss"] == pytest.approx(one[case]["loss"], rel=1e-5)
        assert found[case]["grad_norm"] == pytest.approx(one[case]["grad_norm"], rel=1e-4)
        assert found[case]["learning_rate"] == one[case]["learning_rate"]
        assert found[case]["validation_loss"] == pytest.approx(one[case]["validation_loss"], rel=1e-5)


@each_case
def test_two_processes_end_with_the_weights_of_one(case, one_and_two):
    one, two = one_and_two
    rate = config.resolve(*case.split()).training.learning_rate
    assert two[0][case]["weights"] == two[1][case]["weights"]
    for name, weights in one[case]["weights"].items():
        torch.testing.assert_close(torch.tensor(two[0][case]["weights"][name]), torch.tensor(weights), rtol=0, atol=0.01 * rate)


@each_case
def test_two_processes_count_and_summarize_as_one(case, one_and_two):
    one, two = one_and_two
    for found in two:
        assert found[case]["seen"] == one[case]["seen"] == [4, 13, one[case]["seen"][2]]
        assert found[case]["predictions"] == one[case]["predictions"]
    assert one[case]["said"].startswith("Training: 4 steps of 4 examples")
    assert two[0][case]["said"].startswith("Training in 2 processes: 4 steps of 4 examples")


def test_summaries_of_two_processes_come_in_the_order_of_the_examples(one_and_two):
    one, two = one_and_two
    assert two[0]["echoed"] == two[1]["echoed"] == one["echoed"]
    assert [name for name, _ in one["echoed"]] == [example.id for example in several.EXAMPLES]
    assert len({text for _, text in one["echoed"]}) > 8


# --- one run for all


@pytest.fixture
def launched(tmp_path):
    """Starts the command line in two processes, of which the last meets a mishap; nothing of it is left running."""
    started = []

    def launch(what, *words, method="full", folder=tmp_path):
        words = ("train", "--recipe", "tiny-causal", "--method", method, *words)
        started.append(torchrun("command", str(folder), what, *words))
        return started[-1]

    yield launch
    for process in started:
        for child in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else []:
            child.kill()


def sentences(error):
    return [line for line in error.splitlines() if line.startswith("error: ")]


def test_two_processes_leave_one_record_and_speak_with_one_voice(tmp_path, launched):
    process = launched("nothing", "-p", "dora=true", "-p", "activation_checkpointing=true", method="lora")
    said, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    finished = runs.read(tmp_path, "lora")
    assert finished.record["environment"]["processes"] == 2 and len(finished.predictions) == 6
    assert sorted(path.name for path in finished.folder.iterdir()) == ["adapter", "log.csv", "predictions.jsonl", "run.json"]
    assert len(said.splitlines()) == len(set(said.splitlines())) and said.count("ROUGE-1") == 1
    assert len((finished.folder / "log.csv").read_text().splitlines()) == 1 + 2 + 3  # header, steps, validations


def test_two_processes_that_were_interrupted_go_on_to_the_end_that_they_would_have_had(tmp_path, launched):
    words = ("-p", "dropout=0.1", "-p", "batch_size=4", "-p", "micro_batch=1")

    def end_of(what, folder):
        process = launched(what, *words, method="lora", folder=folder)
        said, error = process.communicate(timeout=300)
        return said, error, runs.status_of(folder, "lora")

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert end_of("nothing", whole)[2] == "finished"
    assert end_of("stopped", parts)[2] == "failed"
    assert [path.name for path in (parts / "lora/checkpoints").glob("step-*")] == ["step-000001"]
    said, error, status = end_of("nothing", parts)
    assert status == "finished", error
    assert "An earlier start came to step 1: going on from there." in said
    (one, other) = (runs.read(folder, "lora") for folder in (whole, parts))
    assert one.predictions == other.predictions
    same = ("steps", "examples", "tokens", "first_loss", "last_loss", "validation_losses")
    assert [one.record["training"][name] for name in same] == [other.record["training"][name] for name in same]
    weights = [load_file(run.folder / "adapter/adapter_model.safetensors") for run in (one, other)]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


@pytest.mark.parametrize("what", several.FULL_DISKS)
def test_a_checkpoint_that_one_process_cannot_write_leaves_none_waiting(what, tmp_path, launched):
    said, error = launched(what, "-p", "batch_size=4", "-p", "micro_batch=1", method="lora").communicate(timeout=120)
    assert runs.status_of(tmp_path, "lora") == "finished", error
    # Four steps: behind the last one only weights are kept, which these disks have room for.
    assert said.count("could not be kept (No space left on device): training goes on") == 3
    assert not (tmp_path / "lora/checkpoints").exists()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("LabError", "take a third of it"),
        ("KeyError", "Process 1 of 2 failed: KeyError: 'q_proj'"),
        ("killed", "another process was killed"),
    ],
)
def test_a_failure_of_one_process_ends_all_with_one_sentence_and_its_record(what, said, tmp_path, launched):
    process = launched(what)
    _, error = process.communicate(timeout=120)
    assert process.returncode == FAILED
    (sentence,) = sentences(error)
    assert said.lower() in sentence.lower()
    record = json.loads((tmp_path / "full/run.json").read_text())
    assert record["status"] == "failed" and said.lower() in record["error"].lower()


def test_a_batch_that_cannot_be_shared_is_one_sentence_and_keeps_the_older_record(tmp_path, launched):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/run.json").write_text('{"status": "finished"}')
    _, error = launched("nothing", "-p", "batch_size=6", "-p", "micro_batch=6").communicate(timeout=120)
    (sentence,) = sentences(error)
    assert "set micro_batch=3" in sentence
    assert runs.status_of(tmp_path, "full") == "finished"


def test_ctrl_c_ends_all_and_the_record_says_stopped(tmp_path, launched):
    process = launched("sleep")
    deadline = time.time() + 120
    while len(list(tmp_path.glob("*.pid"))) < 2 and time.time() < deadline:
        time.sleep(0.1)
    workers = [int((tmp_path / f"{index}.pid").read_text()) for index in range(2)]
    for pid in workers:
        os.kill(pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error.count("Stopped. What was finished is kept") == 1 and not sentences(error)
    assert runs.status_of(tmp_path, "full") == "stopped"
    assert not any(psutil.pid_exists(pid) for pid in workers)


@pytest.mark.skipif(Version(accelerate.__version__) < Version("1.15"), reason="accelerate 1.14 cannot split tied weights with torch 2.13")
def test_a_model_split_over_two_processes_learns_and_is_saved_as_in_one(tmp_path):
    words = ["-p", "precision=float32", "-p", "warmup=0"]
    process = torchrun("sharded", "train", "--recipe", "tiny-causal", "--method", "lora", "--out", str(tmp_path / "two"), *words)
    methods.run(config.resolve("tiny-causal", "lora", precision="float32", warmup=0), tmp_path / "one")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    one, two = (runs.read(tmp_path / name, "lora") for name in ("one", "two"))
    assert two.record["training"]["last_loss"] == pytest.approx(one.record["training"]["last_loss"], rel=1e-5)
    saved, expected = (load_file(run.folder / "adapter/adapter_model.safetensors") for run in (two, one))
    torch.testing.assert_close(saved, expected, rtol=0, atol=0.01 * config.resolve("tiny-causal", "lora").training.learning_rate)


@pytest.mark.parametrize("recipe, method", [("tiny-causal", "qlora"), ("tiny-seq2seq", "full")])
def test_what_cannot_be_split_is_refused(recipe, method, monkeypatch):
    monkeypatch.setattr(processes, "sharded", lambda: True)
    with pytest.raises(LabError, match="FSDP cannot split"):
        models.load(config.resolve(recipe, method))


# --- how work is dealt out


@pytest.fixture
def among(monkeypatch):
    """Makes this process one of several, without the others."""

    def be(index, count):
        monkeypatch.setattr(processes, "index", lambda: index)
        monkeypatch.setattr(processes, "count", lambda: count)

    return be


@pytest.mark.parametrize(("count", "micro_batch"), [(1, 4), (2, 2), (2, 1), (4, 1)])
@pytest.mark.parametrize("rows", [3, 8, 13, 40])
def test_the_shares_of_all_processes_make_up_the_batches_of_one(count, micro_batch, rows, among, monkeypatch):
    def dealt(count, micro_batch):
        shares = []
        for index in range(count):
            among(index, count)
            torch.manual_seed(0)
            order = list(sampler)
            monkeypatch.setattr(processes, "gather", lambda value, order=order: [order])
            shares.append(list(Shares(sampler, rows, micro_batch)))
            assert len(shares[-1]) == len(Shares(sampler, rows, micro_batch))
        assert len({len(share) for share in shares}) == 1  # all meet in every step
        read = [[i for share in shares for i in share[turn]] for turn in range(len(shares[0]))]
        steps = 4 // (micro_batch * count)
        return [sorted(i for turn in read[at : at + steps] for i in turn if i < rows) for at in range(0, len(read), steps)]

    sampler = LengthGroupedSampler(4, lengths=[7 + (5 * i) % 11 for i in range(rows)])
    assert dealt(count, micro_batch) == dealt(1, 4)
    assert sorted(sum(dealt(count, micro_batch), [])) == list(range(rows))


@pytest.mark.parametrize("start", [None, 0], ids=["causal", "seq2seq"])
def test_a_filler_supervises_nothing_and_can_be_read(start):
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7] if start is None else [6, 7, 2]}]
    batch = Collator(pad_id=0, decoder_start_id=start)([filler(rows)])
    assert batch["labels"].eq(IGNORED).all() and all((batch[key] >= 0).all() for key in batch if key != "labels")


def test_a_process_does_every_nth_part(among):
    among(1, 3)
    assert processes.share("abcdefgh") == ["b", "e", "h"]


@pytest.mark.parametrize(("batch_size", "micro_batch", "count", "steps"), [(8, 4, 1, 2), (8, 4, 2, 1), (8, 2, 2, 2), (16, 1, 4, 4)])
def test_processes_times_micro_batch_times_accumulation_is_the_batch(batch_size, micro_batch, count, steps, among):
    among(0, count)
    assert trainer.accumulation(config.resolve("tiny-causal", "full", batch_size=batch_size, micro_batch=micro_batch).training) == steps


@pytest.mark.parametrize(
    ("count", "cure"),
    [
        (4, "set micro_batch=2, or batch_size=16,"),
        (3, "start a number of processes that divides 8, or batch_size=12,"),
        (8, "micro_batch=1"),
    ],
)
def test_what_to_set_where_a_batch_cannot_be_shared(count, cure, among):
    among(0, count)
    with pytest.raises(LabError, match=cure):
        trainer.accumulation(config.resolve("tiny-causal", "full", batch_size=8, micro_batch=4).training)


def test_one_process_needs_no_launcher_and_two_need_all_its_words(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (processes.count(), processes.index(), processes.is_main()) == (1, 0, True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert (processes.count(), processes.index(), processes.is_main()) == (2, 1, False)


def test_only_the_main_process_speaks(among, capsys):
    among(1, 2)
    environment.say("silent")
    among(0, 2)
    environment.say("heard")
    assert capsys.readouterr().out == "· heard\n"
