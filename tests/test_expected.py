"""Expected results: bands from recorded runs, and a sentence that never judges unlike things silently."""

import copy
import json

import pytest

from lab_utils import config, expected, significance

MACHINE = "CPU (x86_64), 2 cores, 24 GB"


def record(method="lora", mean=36.0, seed=0, n=60, **changes):
    """A toy record of a recipe that exists; changes are parameters."""
    settings = config.resolve("tiny-causal", method, seed, **changes)
    scores = {name: {"mean": mean, "low": mean - 2, "high": mean + 2} for name in expected.MEASURES}
    return {
        "method": method,
        "recipe": "tiny-causal",
        "seed": seed,
        "date": "2026-11-21",
        "config": settings.model_dump(),
        "environment": {"packages": {"torch": "2.13.0+cpu", "peft": "0.21.2"}, "device": MACHINE, "precision": "bfloat16"},
        "data": {"name": "everyday", "source": "packaged", "fingerprint": "documents", "train": 240, "test": n},
        "model": {"name": "Toy", "fingerprint": "weights"},
        **({} if method == "zero_shot" else {"training": {"steps": 24}}),
        "generation": {"stopped_share": 0.98},
        "metrics": {"n": n, **scores},
    }


@pytest.fixture
def folder(tmp_path):
    """Recorded runs of one recipe: zero-shot at 21 to 25, full fine-tuning and LoRA at 34 to 38."""
    for method, mean in (("zero_shot", 23.0), ("full", 36.0), ("lora", 36.0)):
        (tmp_path / "tiny-causal" / method).mkdir(parents=True)
        (tmp_path / "tiny-causal" / method / "run.json").write_text(json.dumps(record(method, mean)), encoding="utf-8")
    return tmp_path


def test_bands_are_the_intervals_of_the_recorded_runs_with_n_machine_and_date(folder):
    band = expected.bands("tiny-causal", folder)["lora"]["rouge2"]
    assert (band.low, band.high, band.n, band.date) == (34.0, 38.0, 60, "2026-11-21")
    assert band.machine.startswith("CPU")
    assert list(expected.bands("tiny-causal", folder)) == ["zero_shot", "full", "lora"]


def test_a_recipe_without_recorded_runs_has_no_bands(folder):
    assert expected.bands("no-such-recipe", folder) == {}
    assert expected.recipes(folder) == ["tiny-causal"]


@pytest.mark.parametrize("recipe", expected.recipes())
def test_every_recorded_run_gives_a_band_of_each_measure_that_holds_its_own_mean(recipe):
    for method, measures in expected.bands(recipe).items():
        scores = json.loads((expected.RECORDED / recipe / method / "run.json").read_text(encoding="utf-8"))
        assert list(measures) == list(expected.MEASURES)
        for name, band in measures.items():
            assert band.low < scores["metrics"][name]["mean"] < band.high
            assert band.date and band.machine and band.n == scores["metrics"]["n"]
        assert ": inside " in expected.sentence(scores)


@pytest.mark.parametrize("recipe", expected.recipes())
def test_a_band_is_the_bootstrap_interval_over_the_recorded_scores_by_document(recipe):
    from lab_utils.plots import METHOD_NAMES

    lines = json.loads((expected.RECORDED / recipe / "scores.json").read_text(encoding="utf-8"))["lines"]
    for method, measures in expected.bands(recipe).items():
        again = significance.bootstrap([row["rouge1"] for row in lines[METHOD_NAMES[method]]])
        assert (measures["rouge1"].low, measures["rouge1"].high) == pytest.approx((again.low, again.high), abs=0.001)


@pytest.mark.parametrize(("value", "side"), [(33.9, "below"), (33.96, "inside"), (34.0, "inside"), (38.04, "inside"), (38.1, "above")])
def test_the_verdict_agrees_with_the_numbers_as_they_are_shown(value, side):
    assert expected.Band(34.0, 38.0, 60, "CPU", None).side(value) == side


def test_inside_is_said_with_band_n_machine_and_date(folder):
    said = expected.sentence(record(mean=36.1), folder=folder)
    assert said == "ROUGE-1 36.1: inside 34.0 to 38.0, measured with n = 60 on CPU (x86_64), 2 cores, 24 GB, 2026-11-21."


def test_a_hit_with_other_parameters_names_them(folder):
    assert "other parameters: rank=2 (recorded: 4)" in expected.sentence(record(rank=2), folder=folder)


def test_a_miss_names_what_differs_with_the_usual_causes_first(folder):
    run = record(mean=30.0, seed=1, rank=2)
    run["training"]["steps"] = 3
    run["generation"]["stopped_share"] = 0.4
    run["environment"] = {"packages": {"torch": "2.12.0", "peft": "0.21.2"}, "device": "Tesla T4", "precision": "float16"}
    said = expected.sentence(run, folder=folder)
    causes = [
        "rank=2 (recorded: 4)", "a smoke run, 3 training steps (recorded: 24)", "40% of the answers ended by themselves",
        "torch 2.12.0 (recorded: 2.13.0)", "float16 products on a GPU (recorded: bfloat16 products on a CPU)", "seed 1 (recorded: 0)",
    ]  # fmt: skip
    places = [said.index(cause) for cause in causes]
    assert said.startswith("ROUGE-1 30.0: below 34.0 to 38.0")
    assert places == sorted(places)
    assert "peft" not in said


def test_answers_that_do_not_end_explain_a_miss_below_and_none_above(folder):
    run = record()
    run["generation"]["stopped_share"] = 0.4
    recorded = json.loads((folder / "tiny-causal/lora/run.json").read_text(encoding="utf-8"))
    assert expected.causes(run, recorded, "below") and not expected.causes(run, recorded, "above")


@pytest.mark.parametrize(
    ("method", "mean", "usual"),
    [
        ("lora", 30.0, "new adapter"),
        ("full", 30.0, "did not begin at the base"),
        ("lora", 45.0, "test documents among the training ones"),
        ("zero_shot", 15.0, "another prompt"),
        ("zero_shot", 40.0, "already trained"),
    ],
)
def test_a_miss_without_any_difference_names_the_usual_cause_for_its_method_and_direction(folder, method, mean, usual):
    said = expected.sentence(record(method, mean), folder=folder)
    assert usual in said and "restart the kernel" in said


def test_what_only_changes_time_and_memory_is_no_difference(folder):
    recorded = json.loads((folder / "tiny-causal/lora/run.json").read_text(encoding="utf-8"))
    assert expected.changes(record(micro_batch=1, activation_checkpointing=True), recorded) == []


def test_an_older_record_that_does_not_know_a_switch_differs_in_nothing(folder):
    recorded = json.loads((folder / "tiny-causal/lora/run.json").read_text(encoding="utf-8"))
    del recorded["config"]["recipe"]["lora"]["compile"], recorded["config"]["recipe"]["lora"]["dora"]
    assert expected.changes(record(), recorded) == []


def test_another_prompt_is_named_without_its_text(folder):
    run = record(mean=30.0)
    run["config"]["recipe"]["prompt"]["instruction"] = "Write a haiku about this text."
    assert "another prompt" in expected.sentence(run, folder=folder) and "haiku" not in expected.sentence(run, folder=folder)


def test_the_seed_is_no_cause_for_a_method_that_draws_nothing(folder):
    assert "seed 1" not in expected.sentence(record("zero_shot", 15.0, seed=1), folder=folder)


@pytest.mark.parametrize(("part", "what"), [("model", "another base model"), ("data", "another test set")])
def test_another_base_or_test_set_is_not_judged(folder, part, what):
    run = record(mean=10.0)
    run[part]["fingerprint"] = "other"
    said = expected.sentence(run, folder=folder)
    assert what in said and "nothing comparable" in said
    assert not any(word in said for word in ("below", "inside", "above"))


def test_fewer_test_documents_are_not_judged_and_have_an_interval_of_their_own(folder):
    run = record(mean=30.0, n=10)
    run["data"]["fingerprint"] = "fewer documents"
    said = expected.sentence(run, folder=folder)
    assert "n = 10, 95% interval 28.0 to 32.0: not judged" in said and "60 documents" in said


def test_a_recipe_or_method_that_was_not_recorded_is_said_in_one_sentence(folder):
    run = record("qlora")
    assert "nothing comparable was recorded for method qlora of recipe 'tiny-causal'" in expected.sentence(run, folder=folder)
    run["recipe"] = "mine"
    assert expected.sentence(run, folder=folder).count(". ") == 0


def test_a_run_without_scores_is_told_so(folder):
    run = copy.deepcopy(record())
    del run["metrics"]
    assert "no scores yet" in expected.sentence(run, folder=folder)
