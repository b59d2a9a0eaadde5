import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from statistics import fmean

import pytest

from lab_utils import cli, config, plots, sweep, yamls
from lab_utils.errors import LabError

RATES = """
title: Rates
recipe: tiny-causal
method: lora
seeds: [0, 1]
grid: {rank: [4, 16], learning_rate: [1e-3, 2e-3]}
"""


@pytest.fixture
def points(tmp_path):
    """The points of a grid given as text."""

    def read(text: str) -> list[sweep.Point]:
        path = tmp_path / "grid.yaml"
        path.write_text(text, encoding="utf-8")
        return sweep.points(path)

    return read


@pytest.fixture
def mistakes(points):
    def read(text: str) -> str:
        with pytest.raises(LabError) as caught:
            points(text)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return read


def labels(found) -> list[str]:
    return [point.label for point in found]


# The points


def test_every_combination_of_values_and_seeds_is_a_point(points):
    found = points(RATES)
    assert [point.number for point in found] == list(range(1, 9))
    wanted = {(rank, rate, seed) for rank in (4, 16) for rate in (0.001, 0.002) for seed in (0, 1)}
    assert {(p.settings.training.rank, p.settings.training.learning_rate, p.settings.seed) for p in found} == wanted
    assert found[0].label == "lora rank 4 learning_rate 0.001 seed 0"


def test_single_points_stand_beside_the_grid_and_show_what_they_leave_to_the_recipe(points):
    found = points("recipe: tiny-causal\nmethod: lora\ngrid: {rank: [2]}\nalso: [{learning_rate: 5e-4}]")
    assert labels(found) == ["lora rank 2 learning_rate 0.01 seed 0", "lora rank 4 learning_rate 0.0005 seed 0"]


def test_without_a_grid_only_the_single_points_are_run(points):
    assert labels(points("recipe: tiny-causal\nmethod: lora\nalso: [{rank: 2}, {rank: 3}]")) == ["lora rank 2 seed 0", "lora rank 3 seed 0"]


def test_a_grid_of_methods_alone_has_a_point_for_each(points):
    found = points("recipe: tiny-causal\nmethods: [full, lora, full]\ncommon: {train_examples: 9}")
    assert labels(found) == ["full seed 0", "lora seed 0"]
    assert {point.settings.recipe.data.train_examples for point in found} == {9}


def test_combinations_that_a_method_cannot_tell_apart_are_one_point_and_it_is_said(points):
    found = points("recipe: tiny-causal\nmethods: [full, lora]\ngrid: {rank: [4, 16], learning_rate: [1e-3]}")
    once, *others = labels(found)
    assert once == "full learning_rate 0.001 seed 0"
    assert others == ["lora rank 4 learning_rate 0.001 seed 0", "lora rank 16 learning_rate 0.001 seed 0"]
    assert [point.combinations for point in found] == [2, 1, 1]
    assert "2 combinations come to 001 full learning_rate 0.001 seed 0" in sweep.merging(found)
    assert "(2 combinations of the grid)" in sweep.listing(found, "out").splitlines()[0]


def test_values_that_are_written_differently_and_equal_are_one_point(points):
    assert len(points("recipe: tiny-causal\nmethod: lora\ngrid: {learning_rate: [1e-3, 0.001, 1.0e-3]}")) == 1


def test_zero_shot_trains_nothing_and_so_has_one_seed(points):
    found = points("recipe: tiny-causal\nmethods: [zero_shot, lora]\nseeds: [3, 4]\ngrid: {rank: [1]}")
    assert labels(found) == ["zero_shot seed 3", "lora rank 1 seed 3", "lora rank 1 seed 4"]


def test_a_point_is_known_by_its_settings_and_not_by_its_number(points):
    first = points(RATES)
    second = points(RATES.replace("[4, 16]", "[2, 4, 16]").replace("Rates", "More rates"))
    assert {p.key for p in first} < {p.key for p in second} and len({p.key for p in second}) == 12
    by_key = {p.key: p.label for p in second}
    assert all(by_key[p.key] == p.label for p in first)


@pytest.mark.parametrize("change", ["common: {train_examples: 9}", "common: {alpha: 3}", "measure: test", "common: {document_tokens: 99}"])
def test_another_setting_is_another_point_though_the_label_is_the_same(points, change):
    base = "recipe: tiny-causal\nmethod: lora\n"
    one, other = points(base)[0], points(base + change)[0]
    assert one.label == other.label and one.folder != other.folder


def test_no_place_on_this_machine_stands_in_a_label_or_in_the_plan(points, tmp_path):
    found = points("recipe: tiny-causal\nmethod: lora\ngrid: {data_dir: [/home/somebody/secret/talks, 'C:\\Users\\Ann\\mails']}")
    sweep.keep_plan(found, tmp_path / "out")
    kept = (tmp_path / "out" / "sweep.json").read_text(encoding="utf-8") + "".join(p.label + p.folder for p in found)
    assert "talks" in kept and "mails" in kept and not any(folder in kept for folder in ("somebody", "secret", "Ann"))


@pytest.mark.parametrize("value", ["'a b'", "'<b>|*'", "'con:?*\"<>|'", "'../../up'", "'$x_1$'", "ümläut", "''", f"'{'x' * 3000}'"])
def test_a_folder_is_a_plain_name_whatever_the_values(points, value):
    [point] = points(f"recipe: tiny-causal\nmethod: lora\ngrid: {{target_modules: [{value}]}}")
    assert len(point.folder) < 100 and "/" not in point.folder and not set('\\:*?"<>| $') & set(point.folder)
    assert "\n" not in point.label


# Mistakes in a grid


def test_all_mistakes_are_told_at_once_with_their_lines_and_the_nearest_names(mistakes):
    said = mistakes(
        "title: T\nrecipe: tiny-causl\nmethods: [lora, qlorra]\nseedz: [1]\n"
        "common:\n  train_exampels: 3\ngrid:\n  rnak: [4]\nmeasure: tets\n"
    )
    for line, words in [
        (2, "did you mean 'tiny-causal'"), (3, "did you mean 'qlora'"), (4, "did you mean 'seeds'"),
        (6, "did you mean 'train_examples'"), (8, "did you mean 'rank'"), (9, "measure: input"),
    ]:  # fmt: skip
        part = next(part for part in said.split("; line") if words in part)
        assert f" {line}: " in part, said


def test_values_that_do_not_fit_are_told_with_wrong_names_each_once_and_by_its_own_line(mistakes):
    said = mistakes(
        "recipe: tiny-causal\nmethods: [lora, qlora]\ncommon:\n  batch_size: many\n  bogus: 1\ngrid:\n  rank:\n    - 4\n    - -1\n"
        "  learning_rate: [1e-3, fast]\nalso:\n  - dropout: 2\n"
    )
    for line, name in [(4, "batch_size"), (5, "bogus"), (9, "rank"), (10, "learning_rate"), (12, "dropout")]:
        assert said.count(f"line {line}: ") == 1, said
        assert name in said.partition(f"line {line}: ")[2].partition("line ")[0]


def test_values_that_do_not_go_together_are_told_at_the_grid(mistakes):
    said = mistakes("recipe: tiny-causal\nmethod: lora\ngrid:\n  batch_size: [6]\n  micro_batch: [4]\n")
    assert "line 3: batch_size 6 is not a multiple of micro_batch 4" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: lora", "'recipe' is missing"),
        ("recipe: tiny-causal", "give 'method: lora' or 'methods: [full, lora]'"),
        ("recipe: tiny-causal\nmethod: lora\nmethods: [full]", "one of the two"),
        ("recipe: tiny-causal\nmethods: []", "give 'method: lora'"),
        ("recipe: tiny-causal\nmethods: lora", "list"),
        ("recipe: 3\nmethod: lora", "line 1: recipe"),
        ("recipe: missing.yaml\nmethod: lora", "no recipe file 'missing.yaml'"),
        ("recipe: flan-t5-xxl-samsum-int8\nmethod: full", "offers no full"),
        ("recipe: tiny-causal\nmethod: lora\nseeds: []", "seeds"),
        ("recipe: tiny-causal\nmethod: lora\nseeds: [-1]", "line 3: seeds"),
        ("recipe: tiny-causal\nmethod: lora\nseeds: [true]", "expected a number"),
        ("recipe: tiny-causal\nmethod: lora\ngrid: {rank: 4}", "line 3: grid.rank: input should be a valid list"),
        ("recipe: tiny-causal\nmethod: lora\ngrid: {rank: []}", "line 3: grid.rank"),
        ("recipe: tiny-causal\nmethod: lora\ngrid: [rank]", "line 3: grid"),
        ("recipe: tiny-causal\nmethod: lora\ngrid:", "line 3: grid"),
        ("recipe: tiny-causal\nmethod: lora\nalso: {rank: 4}", "line 3: also"),
        ("recipe: tiny-causal\nmethod: lora\ngrid: {rank: [true]}", "line 3: rank: expected a number, got true"),
        ("recipe: tiny-causal\nmethod: lora\ngrid: {rank: [[4]]}", "line 3: rank"),
        ("recipe: tiny-causal\nmethod: lora\ngrid: {learning_rate: [.nan, .inf]}", "line 3: learning_rate"),
        ("recipe: tiny-causal\nmethod: full\ngrid: {rank: [4, 8]}", "line 3: parameter 'rank' does not apply to full"),
        ("recipe: tiny-causal\nmethod: zero_shot\ncommon: {epochs: 2}", "line 3: parameter 'epochs' does not apply to zero_shot"),
        ("recipe: tiny-causal\nmethod: lora\ngrid: {seed: [0, 1]}", "line 3: 'seed' is no parameter of a sweep: give 'seeds:'"),
        ("recipe: tiny-causal\nmethod: lora\ncommon: {publish_to: me/it}", "a sweep publishes nothing"),
        ("recipe: tiny-causal\nmethod: lora\ncommon: {rank: 2}\ngrid: {rank: [4]}", "line 4: 'rank' stands under common, too"),
        (f"recipe: tiny-causal\nmethod: lora\ngrid: {{data_seed: {list(range(1000))}}}", "1,000 points are too many"),
        ('recipe: tiny-causal\nmethod: lora\ntitle: "\\ud83d"', "half of a character"),
        ("recipe: tiny-causal\nmethod: lora\ngrid: {rank: [4}", "line 3 is not valid YAML"),
        ("recipe: tiny-causal\nmethod: lora\nmethod: full", "line 3: 'method' is given a second time"),
        ("", "found nothing"),
        ("- recipe", "name: value"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_run_is_refused_in_words(mistakes, text, words):
    assert words in mistakes(text)


def test_a_recipe_that_publishes_is_refused(mistakes, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text((config.RECIPES / "tiny-causal.yaml").read_text(encoding="utf-8") + "publishing: {publish_to: me/mine}\n")
    assert "a sweep must not" in mistakes(f"recipe: '{recipe}'\nmethod: lora\n")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff\xfe", b"recipe: \x00", b"\xff\xfer\x00e\x00"])
def test_a_file_that_is_no_text_is_refused(tmp_path, content):
    (tmp_path / "grid.yaml").write_bytes(content)
    with pytest.raises(LabError, match="grid.yaml"):
        sweep.points(tmp_path / "grid.yaml")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(LabError, match="cannot be read"):
            sweep.points(path)


# Commands for other engines


@pytest.mark.parametrize("value", ["[q_proj, v_proj]", "attention", "'true'", "'a b; $(c) \"d\"'", "'2'"])
def test_a_listed_command_trains_exactly_its_point(points, value):
    text = f"recipe: tiny-causal\nmethods: [lora]\nseeds: [5]\ngrid: {{learning_rate: [1.0e-05], target_modules: [{value}], dora: [true]}}"
    [point] = points(text)
    number, label, command = sweep.listing([point], "some where/out").split("\t")
    assert (number, label) == ("1", point.label)
    arguments = cli.parser().parse_args(shlex.split(command)[1:])
    given = dict(word.split("=", 1) for word in arguments.parameters)
    parameters = {name: yamls.value(text, name) for name, text in given.items()}
    assert config.resolve(arguments.recipe, arguments.method, arguments.seed, **parameters) == point.settings
    assert arguments.out == os.path.join("some where/out", point.folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [("", None), (" ", None), ("3", {3}), ("1,4", {1, 4}), ("2-4", {2, 3, 4}), ("1, 3-3,7", {1, 3, 7})],
)
def test_only_names_points_by_number_and_range(text, found):
    assert sweep.numbers(text) == found


@pytest.mark.parametrize("text", ["x", "1,", "3-1", "-1", "1-", "1.5", "1-99999999999", "١", "1;2", "${SLURM_ARRAY_TASK_ID}"])
def test_anything_else_than_numbers_is_refused(text):
    with pytest.raises(LabError, match="--only takes the numbers of points"):
        sweep.numbers(text)


def test_a_number_that_no_point_has_is_refused_before_anything_is_written(points, tmp_path):
    with pytest.raises(LabError, match="No point 0, 9: this grid has points 1 to 8"):
        sweep.run(points(RATES), tmp_path / "out", {0, 8, 9})
    assert not (tmp_path / "out").exists()


# Running


def statuses(out) -> dict[str, str]:
    """Status by label, from sweep.csv's point of view."""
    return {path.parents[1].name[:3]: json.loads(path.read_text(encoding="utf-8"))["status"] for path in out.glob("*/*/run.json")}


TWO = "recipe: tiny-causal\nmethod: lora\ncommon: {train_examples: 8, epochs: 3}\ngrid: {learning_rate: [1e-3, 1e-2]}\n"


def test_a_sweep_measures_validation_only_goes_on_after_a_failure_and_keeps_what_is_finished(points, tmp_path, capsys):
    out = tmp_path / "out"
    diverging = TWO.replace("1e-2]", "1e-2, 1e30]")
    with pytest.raises(LabError, match=r"1 of 3 points failed: 003 .*became nan.*give the same command again"):
        sweep.run(points(diverging), out)
    assert statuses(out) == {"001": "finished", "002": "finished", "003": "failed"}
    said = capsys.readouterr().out
    assert "001 lora learning_rate 0.001" in said and "left for 2 more" in said and "failed: " in said
    records = {path: path.read_bytes() for path in sorted(out.glob("*/lora/run.json"))}
    for record in map(json.loads, list(records.values())[:2]):
        assert "metrics" not in record and record["validation"]["loss"] > 0 and record["validation"]["examples"] == 6
        assert record["training"]["steps"] == 3
    assert not list(out.glob("*/lora/adapter")) and not list(out.glob("*/lora/predictions.jsonl"))
    table = (out / "sweep.md").read_text(encoding="utf-8")
    assert "Failed: 003" in table and "TrainingDiverged" in table and "chosen on validation" in table and (out / "sweep.png").is_file()

    sweep.run(points(TWO.replace("[1e-3, 1e-2]", "[5e-3, 1e-2, 1e-3]")), out)  # other numbers, and one more
    assert {path: path.read_bytes() for path in records} == records
    assert len(list(out.glob("*/lora/run.json"))) == 4 and "2 of 3 are finished already" in capsys.readouterr().out


def test_measuring_the_test_set_is_the_whole_run_with_its_scores(points, tmp_path):
    found = points("recipe: tiny-causal\nmethods: [zero_shot, lora]\ncommon: {train_examples: 8}\nmeasure: test")
    sweep.run(found, tmp_path)
    for point in found:
        assert (tmp_path / point.folder / point.settings.method / "predictions.jsonl").is_file()
    with (tmp_path / "sweep.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert all(float(row["rouge1_low"]) <= float(row["rouge1"]) <= float(row["rouge1_high"]) for row in rows)
    assert rows[0]["validation_loss"] == "" and float(rows[1]["validation_loss"]) > 0


ONE = "recipe: tiny-causal\nmethod: zero_shot\n"


HOLDING = (
    "import sys, pathlib; from lab_utils import locks; mine = locks.hold(pathlib.Path(sys.argv[1])); print('held', flush=True); input()"
)


@pytest.fixture
def held(tmp_path, points):
    """The lock of the only point of `ONE`, held by another process until the test ends it."""
    lock = tmp_path / ".claims" / points(ONE)[0].key
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"held"
        yield process
        process.kill()


def test_a_point_that_another_process_runs_is_left_to_it(points, tmp_path, capsys, held):
    sweep.run(points(ONE), tmp_path, {1})
    assert "being run by another process" in capsys.readouterr().out and not statuses(tmp_path)


def test_the_point_of_a_killed_process_is_taken_over(points, tmp_path, held):
    held.kill()
    held.wait()
    sweep.run(points(ONE), tmp_path, {1})
    assert statuses(tmp_path) == {"001": "finished"}


# The report, on records made up here


def put(out, point, loss=2.0, rouge=None, status="finished", **blocks):
    """A record as a finished point leaves it."""
    record = {
        "status": status,
        "config": point.settings.model_dump(),
        "environment": {"device": "toy"},
        "data": {"validation": 6},
        "model": {"fingerprint": "base", "trainable_parameters": 1234},
        "training": {"seconds": 10.0, "peak_memory_gb": 1.5},
        "validation": {"loss": loss, "examples": 6},
    } | blocks
    if rouge is not None:
        record["metrics"] = {"rouge1": {"mean": rouge, "low": rouge - 2, "high": rouge + 2}}
    folder = out / point.folder / point.settings.method
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def reported(points, tmp_path):
    """Writes a record of each point by a function of its number, and returns the report's text."""

    def make(text, loss, **blocks):
        found, out = points(text), tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        sweep.keep_plan(found, out)
        for point in found:
            value = loss(point)
            if value is not None:
                put(out, point, value, **{name: block(point) if callable(block) else block for name, block in blocks.items()})
        return sweep.report(out).read_text(encoding="utf-8")

    return make


def row_of(text, *cells) -> list[str]:
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("| ")]
    return next(row for row in rows if row[: len(cells)] == list(cells))


def rate(point):
    return point.settings.training.learning_rate


def rank(point):
    return point.settings.training.rank


def test_seeds_are_put_together_as_mean_and_range(reported):
    text = reported(RATES, lambda p: 2 + p.settings.seed / 10 + rate(p) * 100)
    assert row_of(text, "lora", "4", "0.001")[3:] == ["2", "1,234", "**2.150 (2.100 to 2.200)** (best)", "10", "1.50"]
    assert row_of(text, "lora", "16", "0.002")[5] == f"{fmean([2.2, 2.3]):.3f} (2.200 to 2.300)"


def test_the_best_is_chosen_on_validation_even_where_test_scores_disagree(reported):
    text = reported(RATES, lambda p: 1.5 if rank(p) == 16 and rate(p) == 0.002 else 2.5, rouge=lambda p: 50 - rank(p))
    assert text.count("(best)") == 1 and "(best)" in row_of(text, "lora", "16", "0.002")[5]
    assert "Best, chosen on validation: lora rank 16 learning_rate 0.002, loss 1.500 on 6 documents. Test scores took no part." in text
    assert row_of(text, "lora", "4", "0.001")[6] == "46.0 [44.0, 48.0]"


def test_a_row_that_lacks_a_seed_is_not_chosen(reported):
    text = reported(RATES, lambda p: None if (p.number == 1) else 1.0 if p.number == 2 else 2.0 + p.number)
    assert row_of(text, "lora", "4", "0.001")[3:6] == ["1 of 2", "1,234", "1.000"]
    assert "(best)" in row_of(text, "lora", "4", "0.002")[5]
    assert "Not run: 001 lora rank 4 learning_rate 0.001 seed 0." in text
    assert "Not chosen from, since a seed is missing: lora rank 4 learning_rate 0.001." in text


@pytest.mark.parametrize(
    ("name", "values"),
    [("data_seed", [1, 2]), ("validation_examples", [3, 4]), ("document_tokens", [64, 128]), ("data", ["a/b", "c/d"])],
)
def test_losses_of_other_documents_or_limits_have_no_best(reported, name, values):
    text = reported(f"recipe: tiny-causal\nmethod: lora\ngrid: {{{name}: {values}}}", lambda p: p.number)
    assert "(best)" not in text and "No best is marked" in text


def test_losses_of_another_base_have_no_best(reported):
    text = reported(RATES, lambda p: p.number, model=lambda p: {"fingerprint": f"base {rank(p)}"})
    assert "(best)" not in text and "No best is marked" in text


def test_columns_keep_the_order_of_the_grid_where_a_method_lacks_its_first_parameter(reported):
    text = reported("recipe: tiny-causal\nmethods: [full, lora]\ngrid: {rank: [4], learning_rate: [1e-3]}", lambda p: p.number)
    assert row_of(text, "method")[:3] == ["method", "rank", "learning_rate"]
    assert row_of(text, "full")[:3] == ["full", "-", "0.001"]


def test_what_only_training_sees_does_not_keep_losses_apart(reported):
    assert "(best)" in reported("recipe: tiny-causal\nmethod: lora\ngrid: {train_examples: [4, 8]}", lambda p: p.number)


def test_a_best_at_the_end_of_what_was_tried_is_called_so(reported):
    grid = "recipe: tiny-causal\nmethod: lora\ngrid: {learning_rate: [1e-3, 2e-3, 4e-3]}"
    assert "learning_rate 0.004 is the highest that was tried" in reported(grid, lambda p: -p.number)
    assert "that was tried" not in reported(grid, lambda p: abs(p.number - 2))


def test_seeds_that_overlap_are_told_and_one_seed_is_told(reported):
    near = reported(RATES, lambda p: {4: 2.0, 16: 2.05}[rank(p)] + p.settings.seed / 10 + rate(p) * 1000)
    assert "overlap with the best's, so that the order may be chance: lora rank 16 learning_rate 0.001." in near
    assert "overlap" not in reported(RATES, lambda p: rank(p) + rate(p) * 1000 + p.settings.seed / 10)
    assert "One seed: how much" in reported(RATES.replace("[0, 1]", "[0]"), lambda p: p.number)


def test_failed_stopped_and_missing_points_are_named(reported):
    status = {1: "finished", 2: "failed", 3: "stopped"}
    text = reported(RATES, lambda p: 2.0 if p.number < 4 else None, status=lambda p: status[p.number], error="TrainingDiverged: <b>|nan")
    assert "- Failed: 002 lora rank 4 learning_rate 0.001 seed 1. TrainingDiverged: &lt;b&gt;|nan" in text
    assert "- Stopped, or still running: 003 lora rank 4 learning_rate 0.002 seed 0." in text
    assert "- Not run: 004 " in text and "008 lora rank 16 learning_rate 0.002 seed 1." in text
    assert row_of(text, "lora", "4", "0.002")[3:6] == ["0 of 2", "-", "-"]


def test_a_title_cannot_bring_markup_into_the_page(reported):
    text = reported(RATES.replace("title: Rates", "title: '<script>x</script> | a'"), lambda p: p.number)
    assert text.startswith("# &lt;script&gt;x&lt;/script&gt; | a\n")


def test_points_of_an_earlier_grid_are_left_out_and_named(points, tmp_path):
    earlier = points(RATES)
    for point in earlier:
        put(tmp_path, point, point.number)
    later = points(RATES.replace("[4, 16]", "[16]"))
    sweep.keep_plan(later, tmp_path)
    text = sweep.report(tmp_path).read_text(encoding="utf-8")
    assert "Not in this grid, and left out: " + ", ".join(point.folder for point in earlier[:4]) in text
    assert len([line for line in text.splitlines() if line.startswith("| lora")]) == 2 and "Not run" not in text


def test_other_machines_are_told_with_seconds_and_memory(reported):
    text = reported(RATES, lambda p: p.number, environment=lambda p: {"device": f"GPU {rank(p)}"})
    assert "of different machines: GPU 16; GPU 4." in text


def test_the_csv_has_a_line_for_each_point(reported, tmp_path):
    reported(RATES, lambda p: None if p.number == 8 else p.number / 3, rouge=30.0)
    with (tmp_path / "out" / "sweep.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_loss"] or 0) for row in rows] == [*(n / 3 for n in range(1, 8)), 0]
    assert (rows[0]["rank"], rows[0]["seed"], rows[0]["rouge1_high"], rows[7]["status"]) == ("4", "0", "32.0", "not run")
    assert "basis" not in rows[0]


def test_the_table_is_the_same_where_the_records_were_copied_to(reported, tmp_path):
    text = reported(RATES, lambda p: p.number)
    shutil.copytree(tmp_path / "out", tmp_path / "collected [2]")
    assert sweep.report(tmp_path / "collected [2]").read_text(encoding="utf-8") == text
    assert str(tmp_path) not in "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("sweep.[cmt]*"))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"3", b'"finished"', b"null", b'{"status": "finished"}'])
def test_a_record_that_cannot_be_read_is_no_result(points, tmp_path, content):
    found = points(RATES)
    sweep.keep_plan(found, tmp_path)
    put(tmp_path, found[0])
    (tmp_path / found[0].folder / "lora" / "run.json").write_bytes(content)
    text = sweep.report(tmp_path).read_text(encoding="utf-8")
    assert "(best)" not in text and row_of(text, "lora", "4", "0.001")[5] == "-"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"title": "x", "points": []}', '{"title": "x", "points": [{"number": 1}]}'])
def test_a_folder_without_a_readable_plan_is_refused_with_what_to_do(tmp_path, content):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content, encoding="utf-8")
    with pytest.raises(LabError, match="lab sweep GRID.yaml --out DIR"):
        sweep.report(tmp_path)


# The figure


@pytest.fixture
def drawn(reported, monkeypatch):
    """The axes of a report's figure."""
    figures = []

    class Kept(plots.Picture):
        def __init__(self, figure, alt):
            super().__init__(figure, alt)
            figures.append(figure)

    monkeypatch.setattr(plots, "Picture", Kept)

    def make(*arguments):
        reported(*arguments)
        return figures.pop().axes[0] if figures else None

    return make


def test_the_figure_tells_lines_apart_without_color_and_says_what_it_shows(drawn, reported, tmp_path):
    axis = drawn(RATES, lambda p: p.number)
    lines = [container.lines[0] for container in axis.containers]
    assert len(lines) == 2 and len({line.get_marker() for line in lines}) == len({line.get_linestyle() for line in lines}) == 2
    assert axis.get_xlabel() == "rank" and axis.get_xscale() == "linear"
    text = reported(RATES, lambda p: p.number)
    assert "![Validation loss against rank. lora learning_rate 0.001: 1.500 at 4, 5.500 at 16; lora learning_rate 0.002: " in text
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("values", "scale"), [("[1, 8]", "linear"), ("[1, 9]", "log"), ("[1, 3, 64]", "log")])
def test_an_axis_that_spans_more_than_eightfold_is_logarithmic(drawn, values, scale):
    axis = drawn(f"recipe: tiny-causal\nmethod: lora\ngrid: {{rank: {values}}}", lambda p: p.number)
    assert axis.get_xscale() == scale
    assert [label.get_text() for label in axis.get_xticklabels()] == values.strip("[]").split(", ")


def test_an_axis_with_zero_is_not_logarithmic(drawn):
    axis = drawn("recipe: tiny-causal\nmethod: lora\ngrid: {weight_decay: [0, 0.01, 1]}", lambda p: p.number)
    assert axis.get_xscale() == "linear"


def test_a_method_without_the_axis_is_a_level_line(drawn):
    axis = drawn("recipe: tiny-causal\nmethods: [full, lora]\ngrid: {rank: [4, 16]}", lambda p: p.number)
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {"full", "lora"} and len(axis.containers) == 1


@pytest.mark.parametrize("grid", ["{target_modules: [attention, query-value]}", "{dora: [true, false]}", "{rank: [4]}"])
def test_without_a_numeric_axis_there_is_no_figure_and_no_old_one(reported, tmp_path, grid):
    out = tmp_path / "out"
    assert "sweep.png" in reported(RATES, lambda p: p.number) and (out / "sweep.png").is_file()
    sweep.keep_plan(sweep.points(write(tmp_path, f"recipe: tiny-causal\nmethod: lora\ngrid: {grid}")), out)
    assert "sweep.png" not in sweep.report(out).read_text(encoding="utf-8")
    assert not (out / "sweep.png").exists() and not (out / "sweep.txt").exists()


def write(folder, text):
    path = folder / "other.yaml"
    path.write_text(text, encoding="utf-8")
    return path
