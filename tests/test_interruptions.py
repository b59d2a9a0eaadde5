"""Runs that are killed at any moment, and go on to the end that they would have had."""

import json
import random
import re
import shutil
import signal
from types import SimpleNamespace

import interrupted
import pytest

from lab_utils import checkpoints, chores, config, data, fields, generation, locks, methods, mirror, models, predictions, runs, training
from lab_utils.errors import LabError, TrainingDiverged

TRIALS, KILLS = 3, 3  # of each method, and in each of them
METHODS = ("zero_shot", "full", "lora", "qlora")


# --- killed at random


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_killed_at_random_moments_ends_as_one_that_was_not(method, tmp_path):
    whole = tmp_path / "whole"
    code, seconds = interrupted.until_done_or_killed("tiny-causal", method, whole)
    assert code == 0
    expected = interrupted.left_by(whole, method)
    moments, hits, went_on = random.Random(method), 0, 0
    for trial in range(TRIALS):
        folder = tmp_path / f"trial {trial}"
        for _ in range(KILLS):
            by = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            code, _ = interrupted.until_done_or_killed("tiny-causal", method, folder, moments.uniform(0, 0.6 * seconds), by)
            hits += code != 0
            assert interrupted.status(folder, method) in ((None, "stopped") if code else ("finished",))
            assert len(list((folder / method / "checkpoints").glob("step-*"))) <= 2  # the newest, and the one that it replaces
        assert interrupted.until_done_or_killed("tiny-causal", method, folder)[0] == 0
        assert interrupted.left_by(folder, method) == expected
        went_on += "continued_from_steps" in runs.read(folder, method).record.get("training", {})
        shutil.rmtree(folder)
    print(f"{method}: killed {hits} times; {went_on} of {TRIALS} trainings went on from a checkpoint")
    assert hits >= TRIALS  # else the runs are so short by now that the test is blind


# --- what is kept, and for whom


@pytest.fixture
def kept_always(monkeypatch):
    monkeypatch.setattr(chores, "EVERY", 0.0)
    monkeypatch.setattr(chores, "SHARE", float("inf"))


class Stop(Exception):
    pass


def stopped(settings, folder, at_step, monkeypatch):
    """A run that ends with an error behind a step, whose checkpoint is written."""
    complete = checkpoints.Keeper._complete

    def then_stop(self, step, progress):
        complete(self, step, progress)
        if step == at_step:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "_complete", then_stop)
        with pytest.raises(Stop):
            methods.run(settings, folder)


def said_by(settings, folder, capsys):
    capsys.readouterr()
    methods.run(settings, folder)
    return capsys.readouterr().out


SETTINGS = interrupted.settings("tiny-causal", "lora")


def test_a_training_goes_on_from_its_newest_checkpoint_and_the_record_says_so(tmp_path, kept_always, monkeypatch, capsys):
    stopped(SETTINGS, tmp_path, 5, monkeypatch)
    assert [path.name for path in (tmp_path / "lora/checkpoints").glob("step-*")] == ["step-000005"]
    assert "An earlier start came to step 5: going on from there." in said_by(SETTINGS, tmp_path, capsys)
    record = runs.read(tmp_path, "lora").record
    assert record["training"]["continued_from_steps"] == [5] and record["training"]["steps"] == 8
    assert not (tmp_path / "lora/checkpoints").exists()


def key_of(**changes):
    seed = changes.pop("seed", 0)
    settings = config.resolve("tiny-causal", "lora", seed, **({"dropout": 0.1} | interrupted.LONGER | changes))
    corpus = data.load(settings.recipe.data)
    base = SimpleNamespace(settings=settings, checkpoint="ab12", precision=SimpleNamespace(name="float32"))
    return checkpoints.key(base, corpus.train, corpus.validation, max_steps=None)


def test_a_checkpoint_is_for_one_training_only_whatever_the_micro_batch():
    others = {"learning_rate": 2e-2}, {"seed": 1}, {"train_examples": 15}, {"rank": 2}, {"document_tokens": 100}, {"epochs": 4}
    keys = [key_of(), *(key_of(**changes) for changes in others)]
    assert len(set(keys)) == len(keys)
    assert key_of(micro_batch=1) == key_of(max_new_tokens=3) == keys[0]


def test_another_training_does_not_go_on_from_it(tmp_path, kept_always, monkeypatch, capsys):
    stopped(SETTINGS, tmp_path, 3, monkeypatch)
    said = said_by(config.resolve("tiny-causal", "lora", dropout=0.2, **interrupted.LONGER), tmp_path, capsys)
    assert "step-000003 is of a training with other settings, data or packages: it is removed." in said
    assert "continued_from_steps" not in runs.read(tmp_path, "lora").record["training"]


def test_after_a_lack_of_memory_it_goes_on_with_a_smaller_micro_batch(tmp_path, kept_always, monkeypatch):
    stopped(SETTINGS, tmp_path, 5, monkeypatch)
    methods.run(
        fields.changed(SETTINGS, recipe=SETTINGS.recipe.model_dump() | {"lora": SETTINGS.training.model_dump() | {"micro_batch": 1}}),
        tmp_path,
    )
    assert runs.read(tmp_path, "lora").record["training"]["continued_from_steps"] == [5]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "progress.json", "complete.json"])
def test_a_damaged_checkpoint_is_named_and_not_used(tmp_path, kept_always, monkeypatch, capsys, name):
    stopped(SETTINGS, tmp_path, 4, monkeypatch)
    file = tmp_path / "lora/checkpoints/step-000004" / name
    content = bytearray(file.read_bytes())
    content[-40] ^= 1
    file.write_bytes(bytes(content))
    named = r"\S+" if name == "complete.json" else re.escape(name)  # there, one of those that it speaks of
    assert re.search(rf"step-000004 is damaged \({named}\): it is removed", said_by(SETTINGS, tmp_path, capsys))
    assert "continued_from_steps" not in runs.read(tmp_path, "lora").record["training"]


def test_a_disk_that_is_too_full_for_checkpoints_stops_no_training(tmp_path, kept_always, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "file_hash", full)
    said = said_by(SETTINGS, tmp_path, capsys)
    assert "step 1 could not be kept (No space left on device): training goes on" in said
    assert runs.status_of(tmp_path, "lora") == "finished" and not (tmp_path / "lora/checkpoints").exists()


def test_a_loss_that_is_not_a_number_leaves_the_checkpoint_before_it(tmp_path, kept_always, monkeypatch):
    calls, of_the_lab = [], training.token_losses

    def spoilt(model, batch):
        calls.append(model.training)
        loss, tokens = of_the_lab(model, batch)
        return (loss * float("nan") if calls.count(True) == 9 else loss), tokens

    with monkeypatch.context() as patch:
        patch.setattr(training, "token_losses", spoilt)
        with pytest.raises(TrainingDiverged, match="at step 5"):
            methods.run(SETTINGS, tmp_path)
    assert runs.status_of(tmp_path, "lora") == "failed"
    assert [path.name for path in (tmp_path / "lora/checkpoints").glob("step-*")] == ["step-000004"]


def test_checkpoints_are_a_minute_apart_and_cost_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(chores.time, "perf_counter", lambda: clock.now)
    keeper = checkpoints.Keeper(tmp_path, "key", print)
    assert not keeper.is_due(left=900)
    clock.now += 61
    assert keeper.is_due(left=900) and not keeper.is_due(left=20)  # the end, which is kept anyway, is near
    with keeper._chore.doing():
        clock.now += 10
    assert keeper.seconds == 10
    clock.now += 199
    assert not keeper.is_due(left=900)
    clock.now += 2
    assert keeper.is_due(left=900)


KINDS = {
    "full, an encoder-decoder": ("tiny-seq2seq", "full", {"micro_batch": 4}),
    "LoRA, an encoder-decoder": ("tiny-seq2seq", "lora", {"dropout": 0.1}),
    "int8": ("tiny-causal", "qlora", {"quantization": "int8"}),
    "DoRA": ("tiny-causal", "lora", {"dora": True, "dropout": 0.1}),
    "PiSSA": ("tiny-causal", "lora", {"pissa": True}),
    "LoRA+": ("tiny-causal", "lora", {"loraplus_ratio": 4.0}),
    "8-bit AdamW": ("tiny-causal", "full", {"optimizer": "adamw_8bit"}),
    "Adafactor": ("tiny-causal", "full", {"optimizer": "adafactor"}),
    "checkpointed activations": ("tiny-causal", "full", {"activation_checkpointing": True}),
    "an epoch that ends in the middle of a batch": ("tiny-causal", "lora", {"train_examples": 15, "micro_batch": 2}),
}


@pytest.mark.parametrize("recipe, method, changes", KINDS.values(), ids=KINDS)
def test_every_kind_of_training_goes_on_to_the_same_end(recipe, method, changes, tmp_path, kept_always, monkeypatch):
    few = {"validation_examples": 1, "test_examples": 2, "max_new_tokens": 2}
    settings = config.resolve(recipe, method, 3, **(interrupted.LONGER | few | changes))
    methods.run(settings, tmp_path / "whole")
    steps = [1, 4, 8]  # within an epoch, at its end, and when all is trained
    for step in steps:
        stopped(settings, tmp_path / "parts", step, monkeypatch)
    methods.run(settings, tmp_path / "parts")
    assert runs.read(tmp_path / "parts", method).record["training"]["continued_from_steps"] == steps
    assert interrupted.left_by(tmp_path / "parts", method) == interrupted.left_by(tmp_path / "whole", method)


# --- summaries


def answered(monkeypatch, stop_after=None):
    """Counts the batches that the model is asked for, and stops it."""
    asked, of_the_lab = [], generation._generate

    def counted(model, base, prompts):
        if len(asked) == stop_after:
            raise Stop
        asked.append(len(prompts))
        return of_the_lab(model, base, prompts)

    monkeypatch.setattr(generation, "_generate", counted)
    return asked


@pytest.fixture
def zero_shot():
    return models.load(config.resolve("tiny-causal", "zero_shot", generation_batch=2)), data.load(SETTINGS.recipe.data).test


def summarized(base, examples, path):
    return generation.summarize(base.model, base, examples, say=lambda line: None, unfinished=path)


def test_summaries_go_on_behind_the_last_batch(tmp_path, zero_shot, monkeypatch):
    base, examples = zero_shot
    expected = generation.summarize(base.model, base, examples, say=lambda line: None).predictions
    with monkeypatch.context() as patch, pytest.raises(Stop):
        answered(patch, stop_after=2)
        summarized(base, examples, tmp_path / "kept.jsonl")
    asked = answered(monkeypatch)
    assert summarized(base, examples, tmp_path / "kept.jsonl").predictions == expected
    assert asked == [2]


@pytest.mark.parametrize("cut", [2, 40, 400])
def test_half_a_line_of_a_killed_process_is_written_again(tmp_path, zero_shot, monkeypatch, cut):
    base, examples = zero_shot
    path = tmp_path / "kept.jsonl"
    expected = summarized(base, examples, path).predictions
    path.write_bytes(path.read_bytes()[:-cut])
    asked = answered(monkeypatch)
    assert summarized(base, examples, path).predictions == expected
    assert len(asked) in (1, 2) and path.read_text(encoding="ascii").count("\n") == 4


@pytest.mark.parametrize("what", ["weights", "prompts", "decoding"])
def test_summaries_of_another_model_prompt_or_decoding_are_not_taken(tmp_path, zero_shot, monkeypatch, what):
    base, examples = zero_shot
    summarized(base, examples, tmp_path / "kept.jsonl")
    asked = answered(monkeypatch)
    if what == "weights":
        next(base.model.parameters()).data += 0.5
    if what == "decoding":
        base.settings = config.resolve("tiny-causal", "zero_shot", generation_batch=2, max_new_tokens=4)
    summarized(base, examples[::-1] if what == "prompts" else examples, tmp_path / "kept.jsonl")
    assert asked == [2, 2, 2]


def test_a_disk_that_is_too_full_to_keep_summaries_stops_none(tmp_path, zero_shot, monkeypatch):
    base, examples = zero_shot
    said = []
    monkeypatch.setattr(predictions.Kept, "_append", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    found = generation.summarize(base.model, base, examples, say=said.append, unfinished=tmp_path / "kept.jsonl").predictions
    assert len(found) == 6 and len([line for line in said if "cannot be kept on the way (No space left on device)" in line]) == 1


def test_generation_that_runs_out_of_memory_takes_fewer_at_a_time(zero_shot, monkeypatch):
    base, examples = zero_shot
    base.settings = config.resolve("tiny-causal", "zero_shot", generation_batch=6)
    expected = generation.summarize(base.model, base, examples, say=lambda line: None).predictions
    asked, of_the_lab, said = [], generation._generate, []

    def limited(model, base, prompts):
        asked.append(len(prompts))
        if len(prompts) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return of_the_lab(model, base, prompts)

    monkeypatch.setattr(generation, "_generate", limited)
    found = generation.summarize(base.model, base, examples, say=said.append).predictions
    assert [p.id for p in found] == [p.id for p in expected] and asked == [6, 3, 1, 1, 1, 1, 1, 1]
    assert said[0] == "Out of memory with 6 documents at a time: going on with 3."


def test_generation_without_memory_for_one_document_is_a_sentence(zero_shot, monkeypatch):
    base, examples = zero_shot
    monkeypatch.setattr(generation, "_generate", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(LabError, match="Out of memory with one of the documents at a time: close other programs"):
        generation.summarize(base.model, base, examples, say=lambda line: None)


# --- two writers


def test_two_processes_do_not_write_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    here, there = interrupted.context().Pipe()
    process = interrupted.context().Process(target=interrupted.hold, args=(str(tmp_path / "lora"), there))
    process.start()
    assert here.recv() == "held"
    with pytest.raises(locks.Busy, match="'.*lora' is being written by another process, such as a notebook that is still open"):
        runs.start(tmp_path, SETTINGS)
    assert not (tmp_path / "lora").exists()
    process.kill()
    process.join()
    assert runs.start(tmp_path, SETTINGS).record["status"] == "stopped"


def test_a_run_that_ended_lets_others_write(tmp_path):
    for end in (runs.Run.finish, lambda run: run.mark("failed", "why")):
        end(runs.start(tmp_path, SETTINGS))
        process = interrupted.context().Process(target=interrupted.hold, args=(str(tmp_path / "lora"), None))
        process.start()
        process.join(60)
        assert process.exitcode == 0


# --- a second place


@pytest.fixture
def drive(tmp_path, monkeypatch):
    folder = tmp_path / "drive"
    monkeypatch.setenv("LAB_MIRROR", str(folder))
    monkeypatch.setattr(chores, "EVERY", 0.0)
    monkeypatch.setattr(chores, "SHARE", float("inf"))
    monkeypatch.setattr(mirror, "_copying", chores.Chore(at_once=True))
    return folder


def test_a_run_goes_on_from_its_mirror_on_another_machine(tmp_path, kept_always, monkeypatch, drive, capsys):
    stopped(SETTINGS, tmp_path / "runs/week", 5, monkeypatch)
    shutil.rmtree(tmp_path / "runs")
    assert "An earlier start came to step 5" in said_by(SETTINGS, tmp_path / "elsewhere/week", capsys)
    names = {path.name for path in (drive / "week/lora").iterdir()}
    assert names == {"run.json", "predictions.jsonl", "log.csv", "adapter"}


def test_finished_runs_are_read_from_the_mirror_where_there_are_no_others(tmp_path, drive):
    methods.run(SETTINGS, tmp_path / "runs/week")
    here = interrupted.left_by(tmp_path / "runs/week", "lora")
    assert interrupted.left_by(tmp_path / "elsewhere/week", "lora") == here
    assert not runs.read_all(tmp_path / "elsewhere/another week")


def test_a_mirror_that_cannot_be_written_stops_no_run(tmp_path, drive, capsys):
    drive.write_text("a file, where a folder should be")
    said = said_by(SETTINGS, tmp_path / "runs/week", capsys)
    assert "run.json could not be copied to LAB_MIRROR" in said and runs.status_of(tmp_path / "runs/week", "lora") == "finished"


def test_without_a_mirror_nothing_is_copied(tmp_path, monkeypatch):
    monkeypatch.delenv("LAB_MIRROR", raising=False)
    assert mirror.place_of(tmp_path / "lora") is None


def test_kept_summaries_are_json_that_any_text_survives(tmp_path):
    odd = predictions.Prediction("\ud83c", "a\u2028b\nc\x00", ("d",), 3, True)
    predictions.Kept(tmp_path / "kept.jsonl", "key", print).add([4], [odd], 2.5)
    again = predictions.Kept(tmp_path / "kept.jsonl", "key", print)
    assert again.predictions == {4: odd} and again.seconds == 2.5
    assert json.loads((tmp_path / "kept.jsonl").read_text(encoding="ascii").split("\n")[0]) == {"key": "key"}
