import json

import pytest

from lab_utils import config, data, generation, methods, runs, search
from lab_utils.errors import LabError


@pytest.mark.parametrize("method", ["zero_shot", "full", "lora", "qlora"])
def test_a_restored_model_gives_the_recorded_predictions(recipe, method, tmp_path):
    settings = config.resolve(recipe, method)
    methods.run(settings, tmp_path)
    recorded = runs.read(tmp_path, method)
    model, base = methods.restore(tmp_path, method)
    again = generation.summarize(model, base, data.load(settings.recipe.data).test)
    assert [p.prediction for p in again.predictions] == [p.prediction for p in recorded.predictions]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_record_holds_every_block_of_the_design(recipe, method, tmp_path):
    methods.run(config.resolve(recipe, method, seed=5), tmp_path)
    record = runs.read(tmp_path, method).record
    assert {
        "schema",
        "status",
        "method",
        "recipe",
        "seed",
        "config",
        "data",
        "model",
        "environment",
        "training",
        "generation",
        "metrics",
    } <= set(record)
    assert {"steps", "examples", "tokens", "seconds", "tokens_per_second", "peak_memory_gb", "first_loss", "last_loss"} <= set(
        record["training"]
    )
    assert {"fingerprint", "parameters", "trainable_parameters", "checkpoint_mb"} <= set(record["model"])
    assert record["training"]["examples"] == record["data"]["train"]
    assert record["seed"] == 5


def test_a_base_that_training_changed_is_an_error_and_a_failed_record(tmp_path, monkeypatch):
    train = methods.training.train

    def careless(model, *arguments, **options):
        history = train(model, *arguments, **options)
        model.get_base_model().get_input_embeddings().weight.data += 1
        return history

    monkeypatch.setattr(methods.training, "train", careless)
    with pytest.raises(LabError, match="changed the base model's weights"):
        methods.run(config.resolve("tiny-causal", "lora"), tmp_path)
    assert runs.status_of(tmp_path, "lora") == "failed"


def test_the_same_seed_gives_the_same_predictions_and_losses(recipe, tmp_path):
    records = [methods.run(config.resolve(recipe, "lora", seed=4), tmp_path / name) for name in ("a", "b")]
    lines = [(run.folder / "predictions.jsonl").read_text() for run in records]
    assert lines[0] == lines[1]
    assert records[0].record["training"]["last_loss"] == records[1].record["training"]["last_loss"]


def test_a_search_is_sorted_by_validation_loss_and_scores_no_test_set(write_lines, monkeypatch):
    folder = write_lines([json.dumps({"document": "Ann: hello\nBen: good morning", "summary": "Ann and Ben greet each other."})])
    monkeypatch.setattr(generation, "summarize", lambda *a, **k: pytest.fail("a search must not generate"))
    examples = {"train_examples": 1, "validation_examples": 1, "test_examples": 1}
    record = search.learning_rates("tiny-causal", "full", [1e-5, 1e-2], data_dir=str(folder), epochs=4, **examples)
    losses = [row["validation_loss"] for row in record["tried"]]
    assert losses == sorted(losses) and losses[0] < losses[1]
    assert {row["learning_rate"] for row in record["tried"]} == {1e-5, 1e-2}


def test_a_new_search_replaces_the_old_one_of_its_method_only(tmp_path):
    path = tmp_path / "searches.json"
    for method, loss in (("lora", 3.0), ("full", 2.0), ("lora", 1.0)):
        search.add({"recipe": "r", "method": method, "tried": [{"validation_loss": loss}]}, path)
    kept = {s["method"]: s["tried"][0]["validation_loss"] for s in json.loads(path.read_text())}
    assert kept == {"full": 2.0, "lora": 1.0}
