"""The bench counts, compares and records by rules; its contenders run here on toys."""

import json
import math
import sys

import pytest

from lab_utils import adapters, architectures, arithmetic, data, generation, models, pace, training
from lab_utils.bench import cases as bench_cases
from lab_utils.bench import measure as bench_measure
from lab_utils.bench import report as bench_report
from lab_utils.bench import results as bench_results
from lab_utils.bench import run as bench
from lab_utils.bench import switches as bench_switches
from lab_utils.bench.cases import Case, Size
from lab_utils.bench.results import Section, Spread
from lab_utils.errors import LabError

TINY = Size("tiny", examples=16, answers=6)
LONG = {"document_tokens": 300}  # so that most of the dialogues keep their lengths, and fit into the 512 tokens of the student script


def decoder():
    """One layer: 160 weights in its linear layers, 40 in the output layer."""
    return architectures.build(
        {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
         "vocab_size": 10, "tie_word_embeddings": True}, "toy"
    )  # fmt: skip


def encoder_decoder():
    """An encoder layer of 128 weights, a decoder layer of 192, an output layer of 40."""
    return architectures.build(
        {"model_type": "t5", "d_model": 4, "d_kv": 2, "num_heads": 2, "d_ff": 8, "num_layers": 1, "vocab_size": 10}, "toy"
    )  # fmt: skip


# --- the arithmetic floor -----------------------------------------------------------------------------------------------


def test_full_training_of_a_decoder_by_hand():
    # 2 prompt and 3 answer tokens: (160 x 5 + 40 x 3) products of two operations, and 15 visible pairs x 4 wide x 4, three times over
    assert arithmetic.training_flops(decoder(), [(2, 3)]) == 3 * 2 * (160 * 5 + 40 * 3) + 3 * 15 * 4 * 4


def test_an_adapter_adds_its_own_products_and_saves_the_gradient_of_frozen_weights():
    both_ways = 2 * 2 * (160 * 5 + 40 * 3) + 3 * 15 * 4 * 4
    adapters = 3 * 2 * 2 * 68 * 5  # rank 2; inputs and outputs of the seven layers: 4 x 8 + 3 x 12 = 68
    assert arithmetic.training_flops(decoder(), [(2, 3)], rank=2) == both_ways + adapters


def test_full_training_of_an_encoder_decoder_by_hand():
    # encoder 128 x 2, decoder's own layers 128 x 3, cross-attention: queries and outputs 32 x 3, keys and values 32 x 2, logits 40 x 3
    products = 128 * 2 + 128 * 3 + 32 * 3 + 32 * 2 + 40 * 3
    pairs = 2 * 2 + 6 + 2 * 3
    assert arithmetic.training_flops(encoder_decoder(), [(2, 3)]) == 3 * 2 * products + 3 * pairs * 4 * 4


def test_examples_add_up():
    one, other = (arithmetic.training_flops(decoder(), [pair]) for pair in ((2, 3), (7, 1)))
    assert arithmetic.training_flops(decoder(), [(2, 3), (7, 1)]) == one + other


def test_writing_reads_every_token_once_but_the_last():
    assert arithmetic.generation_flops(decoder(), [(2, 3)]) == 2 * (160 * 4 + 40 * 3) + 10 * 4 * 4
    products = 128 * 2 + 128 * 3 + 32 * 3 + 32 * 2 + 40 * 3  # an encoder-decoder reads a start token and all new ones but the last
    assert arithmetic.generation_flops(encoder_decoder(), [(2, 3)]) == 2 * products + 16 * 4 * 4


def test_a_product_rate_is_operations_over_seconds(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(pace, "now", lambda device: next(ticks))  # each product seems to take one second
    assert pace.product_rate("float32", "cpu", size=8, repeats=3) == 2 * 8**3


# --- medians, ratios, tables --------------------------------------------------------------------------------------------


def result(tokens, seconds, peak_gb=1.0, **more):
    return {"tokens": tokens, "seconds": seconds, "peak_gb": peak_gb, "padded_tokens": 2 * tokens, "operations": 1000.0 * tokens,
            "precision": "float32", "taken_by_others": 0.0, "warmup_seconds": 1.0, "losses": [2.0, 1.0], "examples": 6, "steps": 2,
            "lengths": [[100, 30], [120, 50]]} | more  # fmt: skip


def record(results, **more):
    machine = {"hardware": "CPU (toy), 2 cores, 4 GB", "device": "cpu", "memory_gb": 4.0, "capability": None}
    machine |= {"threads": 2, "versions": {"torch": "9.9"}}
    size = {"examples": 16, "answers": 6, "batch": 8, "micro_batch": 2, "growth": 16}
    sections = {"cpu": {"machine": machine, "size": size, "results": results}}
    return {
        "schema": 1, "status": "finished", "date": "2026-11-21", "commit": "abc", "quick": False, "rounds": 3, "skipped": [],
        "course": None, "sections": sections,
    } | more  # fmt: skip


def rows_of(table):
    """Each row of a Markdown table as a dict."""
    head, _, *lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
    return [dict(zip(head, line, strict=False)) for line in lines]


def section(results):
    return Section(record(results)["sections"]["cpu"], bench.cases())


def test_medians_stand_with_the_lowest_and_highest():
    assert f"{Spread.of([30.0, 10.0, 20.0]):.0f}" == "20 (10 to 30)"
    assert bench_results.times(Spread.of([3.0, 1.0, 2.0])) == "2.00 x (1.00 to 3.00)"
    assert (f"{Spread.of([30.0]):.0f}", bench_results.times(Spread.of([3.0]))) == ("30", "3.00 x")  # one round has no range


def test_ratios_are_taken_within_a_round():
    # each round's machine was twice as slow as the last one's; 100/10, 50/10, 25/5
    assert bench_results.ratio([100, 50, 25], [10, 10, 5]) == Spread(5, 5, 10)


def test_the_training_table_compares_with_the_labs_own_row_of_the_same_method():
    results = {
        "products-float32": [{"operations_per_second": 4e6}],
        "causal-lora-student": [result(100, 1, 10.0), result(100, 2, 8.0), result(100, 1, 9.0)],
        "causal-lora-lab": [result(100, 0.25, 4.0), result(100, 0.5, 5.0), result(100, 0.5, 4.0)],
        "causal-full-lab": [result(100, 0.1)],
    }
    rows = {(row["method"], row["system"]): row for row in rows_of(bench_report.training_table(section(results)))}
    student = rows["LoRA", "student script"]
    assert student["tokens/s"] == "100 (50 to 100)" and student["peak GB"] == "10.00"
    assert student["this lab's speed"] == "4.00 x (2.00 to 4.00)"
    assert student["this lab's memory"] == "0.50 x"  # the most of all rounds: 5 of 10
    assert rows["LoRA", "the arithmetic alone, float32"]["tokens/s"] == "4,000"
    assert student["share of the floor"] == "2%"  # 4e6 operations a second at 1,000 a token: 4,000 tokens a second
    assert not any(rows[method, "this lab"].get("this lab's speed") for method in ("LoRA", "full fine-tuning"))


def test_a_finding_names_system_speed_and_memory():
    results = {
        "seq2seq-summaries-one_by_one": [result(100, 6, 3.0)],
        "seq2seq-summaries-lab": [result(100, 1, 1.5)],
        "causal-full-lab": [result(100, 1)],
    }
    assert bench_report.findings(section(results)) == [
        "Summaries, encoder-decoder, 140M: 6.00 x the tokens a second of one by one, float32, in 0.50 x its memory."
    ]


def test_a_promise_of_equal_losses_is_shown_as_the_largest_difference_of_a_step():
    beside = [result(100, 1), result(100, 1, losses=[3.0, 2.0])]
    all_logits = [result(100, 2, beside=beside[0]), result(100, 2, losses=[3.0, 2.5], beside=beside[1])]
    dropout = [result(100, 4, beside=beside[0]), result(100, 4, beside={"failed": "Too little memory."})]
    results = {"causal-lora-lab-all_logits": all_logits, "causal-lora-lab-dropout": dropout}
    all_logits, dropout = rows_of(bench_report.ablation_table(section(results)))
    assert all_logits["of the speed"] == "0.50 x" and all_logits["largest difference of a loss"] == "5.0e-01"
    assert dropout["of the speed"].startswith("0.25") and not dropout.get("largest difference of a loss")


def test_a_failed_case_stands_in_the_table_with_its_reason():
    results = {"causal-lora-lab": [result(100, 1)], "causal-lora-student": [{"failed": "Too little memory."}]}
    text = bench_report.text(record(results), bench.cases())
    assert "failed: Too little memory." in text and "| this lab | 100 |" in text


def test_other_processes_are_named_only_where_they_took_much():
    quiet, busy = result(100, 1, taken_by_others=0.05), result(100, 1, taken_by_others=0.4)
    assert "Other processes" not in bench_report.text(record({"causal-lora-lab": [quiet]}), bench.cases())
    assert "Other processes took up to 40%" in bench_report.text(record({"causal-lora-lab": [quiet, busy]}), bench.cases())


def test_compilation_pays_where_the_saved_time_has_covered_it():
    compiled = "causal-lora-lab-compile"
    results = {compiled: [result(100, 0.5, warmup_seconds=32, beside=result(100, 1, warmup_seconds=2))]}
    assert "costs 30 s" in bench_report.pay_back(section(results))[0] and "6,000 tokens" in bench_report.pay_back(section(results))[0]
    slower = {compiled: [result(100, 2, beside=result(100, 1))]}
    assert "brings nothing" in bench_report.pay_back(section(slower))[0]


def test_the_plan_stands_beside_what_was_measured():
    case = next(case for case in bench.cases() if case.name == "plan-lora-96")
    rates = {"products": 1e12, "elementwise": 1e12}
    found = section({case.name: [result(100, 8.0, 2.0, rates=rates), result(100, 12.0, 2.5, rates=rates)]})
    gigabytes, seconds = bench_report.predicted(found, case)
    (row,) = rows_of(bench_report.plan_table(found))
    assert row["peak GB"] == "2.50" and row["memory off by"] == f"{gigabytes / 2.5 - 1:+.0%}"
    assert row["s a step"] == "5.00" and row["time off by"] == f"{seconds / 5 - 1:+.0%}"  # 8 and 12 s for two steps
    assert bench_report.findings(found)[-1].startswith(
        f"`lab plan --time`, 1 case: peak memory {row['memory off by']} to {row['memory off by']} off"
    )
    faster = section({case.name: [result(100, 8.0, rates={name: 2e12 for name in rates})]})
    assert bench_report.predicted(faster, case)[1] == pytest.approx(seconds / 2)


def test_tables_and_figures_are_written_beside_the_record(tmp_path):
    names = [case.name for case in bench.cases() if case.system != "products"]
    floor = [{"operations_per_second": 1e9, "elementwise_bytes_per_second": 1e9}]
    rates = {"products": 1e9, "elementwise": 1e9}
    each = [result(100, seconds, rates=rates, beside=result(100, 1)) for seconds in (1, 2)]
    results = {"products-float32": floor} | dict.fromkeys(names, each)
    bench_report.write(record(results, skipped=["No GPU was found."]), bench.cases(), tmp_path / "toy.md")
    text = (tmp_path / "toy.md").read_text(encoding="utf-8")
    titles = ("### Training", "### Generation", "### One thing at a time", "### Growth", "### The plan")
    assert all(words in text for words in (*titles, "No GPU was found."))
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {"toy-cpu-speed", "toy-cpu-ablation", "toy-cpu-growth"}
    assert all((tmp_path / f"{name}.txt").read_text(encoding="utf-8").strip() for name in pictures)


# --- the runner ---------------------------------------------------------------------------------------------------------


def test_cases_take_turns_and_a_failing_one_is_recorded_while_the_others_go_on():
    chosen, order, saved = [Case(name, "training", name) for name in "abc"], [], []

    def execute(case, size):
        order.append(case.name)
        return {"failed": "It broke."} if case.name == "b" else result(100, len(order))

    results = bench.run(chosen, TINY, 3, execute, lambda so_far: saved.append({name: len(found) for name, found in so_far.items()}))
    assert "".join(order) == "abcacac"
    assert results["b"] == [{"failed": "It broke."}] and len(results["a"]) == len(results["c"]) == 3
    assert saved[1] == {"a": 1, "b": 1}  # written after every case


def test_what_is_compared_runs_right_after():
    order = []

    def execute(case, size):
        order.append(case.name)
        return result(100, len(order))

    turned = [case for case in bench.cases() if case.name in ("causal-lora-lab-dropout", "causal-summaries-lab-unsorted")]
    found = bench.run(turned, TINY, 1, execute, lambda so_far: None)
    assert order == ["causal-summaries-lab-unsorted", "causal-summaries-lab", "causal-lora-lab-dropout", "causal-lora-lab"]
    assert [found[case.name][0]["beside"]["seconds"] for case in turned] == [2, 4]


def test_whatever_a_contender_raises_becomes_a_sentence_without_folders(monkeypatch):
    def broken(case, size):
        raise RuntimeError("no file /home/someone/secret/model.bin\nmore")

    monkeypatch.setattr(bench_measure, "measure", broken)
    assert bench.one(Case("a", "training", "a"), TINY) == {"failed": "RuntimeError: no file model.bin"}


@pytest.fixture
def machine(monkeypatch):
    """A bench whose processes are played; returns the names of the cases that ran."""
    ran = []
    found = {"device": "cpu", "hardware": "CPU (toy), 2 cores, 4 GB", "threads": 2, "precisions": {}, "versions": {}}

    def process(words, device, limit):
        if words == ["--machine"]:
            return found
        ran.append(words[1])
        return {"operations_per_second": 1e9} if words[1].startswith("products") else result(100, 1)

    monkeypatch.setattr(bench, "_in_a_process", process)
    return ran


def test_without_trl_its_rows_are_left_out_and_that_is_said(machine, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    path = bench.bench(quick=True, out=tmp_path)
    assert machine and not any("trl" in name for name in machine)
    assert "pip install '.[bench]'" in capsys.readouterr().out
    assert "pip install '.[bench]'" in path.with_suffix(".md").read_text(encoding="utf-8")


def test_a_machine_without_gpu_says_so_and_keeps_one_record(machine, tmp_path, capsys):
    path = bench.bench(quick=True, out=tmp_path, only="causal-lora", rounds=2)
    assert path.name == "cpu-toy-2-cores-4-gb.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["status"] == "partial" and list(kept["sections"]) == ["cpu"] and kept["rounds"] == 2
    assert len(kept["sections"]["cpu"]["results"]["causal-lora-lab"]) == 2
    assert "GPU section is left out" in capsys.readouterr().out


def test_cases_that_run_once_run_in_the_first_round_only_and_the_report_says_so(machine, tmp_path):
    path = bench.bench(quick=True, out=tmp_path, only="causal-lora-(lab|student)$", once="student", rounds=3)
    assert sorted(machine) == ["causal-lora-lab"] * 3 + ["causal-lora-student"]
    assert "1 to 3 times" in path.with_suffix(".md").read_text(encoding="utf-8")


def stopped_after(cases, machine, monkeypatch, out, **options):
    """A quick bench of LoRA that Ctrl-C stopped after so many cases."""
    played = bench._in_a_process

    def until(words, device, limit):
        if words != ["--machine"] and len(machine) == cases:
            raise KeyboardInterrupt
        return played(words, device, limit)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bench, "_in_a_process", until)
        bench.bench(quick=True, out=out, only="causal-lora-(lab|student)$", rounds=2, **options)
    ran = list(machine)
    machine.clear()
    return ran


def test_a_stopped_bench_goes_on_where_it_stood(machine, monkeypatch, tmp_path):
    before = stopped_after(3, machine, monkeypatch, tmp_path)
    path = bench.bench(quick=True, out=tmp_path, only="causal-lora-(lab|student)$", rounds=2)
    assert (before, machine) == (["causal-lora-student", "causal-lora-lab", "causal-lora-student"], ["causal-lora-lab"])
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert [len(found) for found in kept["sections"]["cpu"]["results"].values()] == [2, 2]


def test_a_bench_of_chosen_cases_is_completed_by_the_others(machine, tmp_path):
    bench.bench(quick=True, out=tmp_path, only="seq2seq-lora-lab$")
    path = bench.bench(quick=True, out=tmp_path)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["status"] == "finished" and machine.count("seq2seq-lora-lab") == machine.count("causal-lora-student") == 2


@pytest.mark.parametrize("only", ["", "seq2seq-lora-lab$"])
def test_a_finished_bench_is_kept_unless_it_is_to_start_anew(machine, tmp_path, only):
    path = bench.bench(quick=True, out=tmp_path, rounds=1)
    kept = path.read_bytes()
    machine.clear()
    with pytest.raises(LabError, match="is finished.*--fresh"):
        bench.bench(quick=True, out=tmp_path, rounds=1, only=only)
    assert machine == [] and path.read_bytes() == kept
    bench.bench(quick=True, out=tmp_path, rounds=1, fresh=True)
    assert machine.count("causal-lora-student") == machine.count("seq2seq-lora-lab") == 1


def test_a_fresh_bench_leaves_nothing_of_the_one_that_was_stopped(machine, monkeypatch, tmp_path):
    stopped_after(1, machine, monkeypatch, tmp_path)
    bench.bench(quick=True, out=tmp_path, rounds=1, fresh=True)
    assert machine.count("causal-lora-student") == 1


def test_a_stopped_bench_of_another_size_is_kept_and_named(machine, monkeypatch, tmp_path):
    stopped_after(1, machine, monkeypatch, tmp_path)
    path = next(tmp_path.glob("*.json"))
    kept = path.read_text(encoding="utf-8")
    with pytest.raises(LabError, match="--fresh"):
        bench.bench(quick=True, out=tmp_path, only="causal-lora-(lab|student)$", rounds=2, examples=3)
    assert path.read_text(encoding="utf-8") == kept


def test_a_bench_of_nothing_names_the_cases(machine, tmp_path):
    with pytest.raises(LabError, match="causal-lora-lab"):
        bench.bench(quick=True, out=tmp_path, only="no such case")


def test_a_contender_without_trl_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    case = next(case for case in bench.cases() if case.name == "causal-lora-trl")
    assert "pip install '.[bench]'" in bench.one(case, TINY)["failed"]


def test_every_case_is_named_once_and_compared_with_one_that_exists():
    names = [case.name for case in bench.cases()]
    assert len(set(names)) == len(names)
    assert all(case.against in names for case in bench.cases() if case.against)
    switches = bench_switches.BEFORE_LOADING | bench_switches.AROUND_TRAINING | bench_switches.AROUND_GENERATION
    assert {case.switch for case in bench.cases()} - {None} == set(switches)
    for case in bench.cases():
        if case.system != "products":
            bench_cases.settings_of(case, TINY)  # no parameter that the method does not have


def test_a_case_runs_in_a_process_of_its_own_and_prints_one_line():
    case = next(case for case in bench.cases() if case.name == "causal-lora-lab")
    found = bench.in_a_process("cpu")(case, Size("tiny", examples=8, answers=2))
    assert found["tokens"] > 0 and found["steps"] == 1 and 0.1 < found["peak_gb"] < 4


def test_a_process_that_is_too_slow_or_dies_is_a_failed_case(monkeypatch):
    case = Case("no-such-case", "training", "none")
    assert "Unknown case" in bench.in_a_process("cpu")(case, TINY)["failed"]
    monkeypatch.setattr(bench.sys, "executable", "/bin/sleep")
    monkeypatch.setattr(bench.subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(bench.subprocess.TimeoutExpired("x", 1)))
    assert "more than 30 minutes" in bench.in_a_process("cpu")(case, TINY)["failed"]
    monkeypatch.setattr(bench.subprocess, "run", lambda *a, **k: bench.subprocess.CompletedProcess(a, -9, "", ""))
    assert "signal 9: too little memory" in bench.in_a_process("cpu")(case, TINY)["failed"]


def test_the_course_is_as_long_as_its_executed_notebooks(tmp_path):
    for name, seconds in (("01_zero_shot_baseline", 12.34), ("03_lora", 60.0)):
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"metadata": {"papermill": {"duration": seconds}}, "cells": []}))
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "run.json").write_text(
        json.dumps({"status": "finished", "training": {"seconds": 40}, "generation": {"seconds": 9}})
    )
    (tmp_path / "lora" / "predictions.jsonl").write_text("")
    taken = bench.course(tmp_path)
    assert taken["seconds"] == 72.3 and taken["methods"] == {"lora": {"training": 40, "generation": 9}}
    assert "**72**" in bench_report.course_table(taken) and "LoRA: training 40 s" in bench_report.course_table(taken)


def test_a_folder_without_executed_notebooks_is_no_course(tmp_path):
    with pytest.raises(LabError, match="make run-all"):
        bench.course(tmp_path)


# --- what the contenders do ---------------------------------------------------------------------------------------------


def measured(family="causal", system="lab", method="lora", switch=None, size=TINY, section="training", **changes):
    return bench_measure.measure(Case("x", section, "x", family, method, system, changes=LONG | changes, switch=switch), size)


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_all_contenders_see_the_same_real_tokens_and_the_student_pads_to_512(family):
    lab, student = measured(family), measured(family, "student")
    assert lab["tokens"] == student["tokens"] and lab["operations"] == student["operations"]
    assert student["padded_tokens"] == 16 * 512 * (2 if family == "seq2seq" else 1)
    assert lab["tokens"] < lab["padded_tokens"] < 1.5 * lab["tokens"]
    assert lab["steps"] == student["steps"] == 2
    if family == "seq2seq":
        best = measured(family, "stock_best")
        assert best["tokens"] == lab["tokens"] and best["padded_tokens"] >= lab["padded_tokens"]  # the lab sorts small sets too


def test_trl_sees_the_same_real_tokens_too():
    pytest.importorskip("trl", reason="the extra 'bench' is not installed")
    lab, default, best = measured(), measured(system="trl"), measured(system="trl_best")
    assert lab["tokens"] == default["tokens"] == best["tokens"]
    assert all(map(math.isfinite, default["losses"] + best["losses"]))


def test_the_warm_up_step_leaves_no_trace_in_the_losses():
    case = Case("x", "training", "x", changes=LONG | {"precision": "float32"})
    settings = bench_cases.settings_of(case, TINY)
    base = models.load(settings)
    history = training.train(adapters.attach_lora(base), base, data.load(settings.recipe.data).train[:16], say=lambda line: None)
    alone = [row["loss"] for row in history.log]
    assert bench_measure.measure(case, TINY)["losses"] == pytest.approx(alone, abs=1e-6)


def output_rows(model, run):
    """How many positions pass through the output layer while `run` runs, and what it returns."""
    rows = []
    hook = model.get_output_embeddings().register_forward_hook(lambda module, given, made: rows.append(made[..., 0].numel()))
    try:
        return run(), sum(rows)
    finally:
        hook.remove()


def test_without_answer_only_logits_every_position_is_computed_and_the_loss_is_the_same(recipe):
    family = recipe.removeprefix("tiny-")
    settings = bench_cases.settings_of(Case("x", "training", "x", family, changes={"precision": "float32"}), TINY)
    base = models.load(settings)
    model = adapters.attach_lora(base)
    batch = base.collator([base.encoder(example) for example in data.load(settings.recipe.data).train[:3]])

    def loss():
        total, count = training.token_losses(model, batch)
        return (total / count).item()

    lab, few = output_rows(base.model, loss)
    with bench_switches.all_logits(model):
        plain, all_rows = output_rows(base.model, loss)
    assert plain == pytest.approx(lab, abs=1e-5)
    assert training.token_losses is not bench_switches.plain_token_losses  # restored
    if family == "causal":
        assert few < all_rows == batch["input_ids"].numel()


@pytest.mark.parametrize("switch", ["all_logits", "usual_pass", "usual_allocator", "unfused"])
def test_rows_that_promise_the_same_losses_keep_them_in_float32(switch):
    lab, turned = measured(precision="float32"), measured(precision="float32", switch=switch)
    assert turned["losses"] == pytest.approx(lab["losses"], abs=1e-5)


def test_without_grouping_batches_hold_more_padding():
    # transformers' sampler sorts within (examples / 4 batches) batches: small batches here, so that there is something to sort
    few = {"batch_size": 2, "micro_batch": 2, "size": Size("tiny", examples=32, answers=6)}
    grouped, ungrouped = measured(**few), measured(switch="ungrouped", **few)
    assert grouped["tokens"] == ungrouped["tokens"] and grouped["padded_tokens"] < ungrouped["padded_tokens"]


def test_without_the_lean_pass_adapted_layers_are_pefts_own_classes():
    from peft.tuners.lora import Linear

    settings = bench_cases.settings_of(Case("x", "training", "x"), TINY)

    def classes():
        return {type(module) for module in adapters.attach_lora(models.load(settings)).modules() if hasattr(module, "lora_A")}

    assert Linear not in classes()
    with bench_switches.BEFORE_LOADING["usual_pass"]():
        assert classes() == {Linear}


def test_without_the_fused_optimizer_the_arguments_name_the_plain_one():
    settings = bench_cases.settings_of(Case("x", "training", "x"), TINY)
    given = (settings.training, "folder", 0, models.environment.precision("causal", "float32"), "cpu")
    with bench_switches.AROUND_TRAINING["unfused"](None):
        assert training.training_arguments(*given).optim == "adamw_torch"
    assert training.training_arguments(*given).optim == "adamw_torch_fused"


def test_the_lab_answers_as_one_by_one_does_and_sorting_saves_padding():
    exact = {"precision": "float32", "generation_batch": 3, "document_tokens": 512}
    exact |= {"section": "generation", "size": Size("tiny", examples=16, answers=12)}
    one, lab, unsorted = measured(system="one_by_one", **exact), measured(**exact), measured(switch="unsorted", **exact)
    assert one["tokens"] == lab["tokens"] == unsorted["tokens"]
    assert one["padded_tokens"] < lab["padded_tokens"] < unsorted["padded_tokens"]
    assert not hasattr(generation, "sorted")


def test_growth_with_length_fills_every_document_to_the_limit():
    case = Case("x", "growth", "x", changes={"document_tokens": 200}, growth=("length", 200))
    settings = bench_cases.settings_of(case, TINY)
    encoder = bench_cases.encoder_of(settings)
    examples = bench_cases.examples_of(case, settings, encoder, 4)
    assert all(encoder.is_cut(example.document) for example in examples)
    prompts = {bench_cases.tokens_of(encoder, example)[0] for example in examples}
    assert max(prompts) - min(prompts) <= 3  # a character of several tokens goes as a whole


def test_growth_with_examples_trains_on_so_many():
    case = Case("x", "growth", "x", growth=("examples", 8))
    assert bench_measure.measure(case, TINY)["steps"] == 1
