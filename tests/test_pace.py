"""What a step takes is its arithmetic at the rate of products, and what it moves at the rate of memory."""

import json

import pytest

from lab_utils import arithmetic, cli, config, pace, plan
from lab_utils.architectures import build
from lab_utils.devices import Device
from lab_utils.needs import Needs

SHAPE = build(
    {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
     "vocab_size": 10, "tie_word_embeddings": True}, "toy"
)  # fmt: skip


def needs(method, **changes):
    return Needs(config.resolve("tiny-causal", method, **changes), SHAPE, Device("toy", 1.0), "float32")


def test_a_step_is_its_arithmetic_and_its_elementwise_work():
    one = needs("lora", batch_size=3, rank=2)
    operations = 3 * arithmetic.training_flops(SHAPE, [(5, 2)], 2)
    elementwise = 3 * pace.ELEMENTWISE * one.kept(5, 2) + pace.OPTIMIZER * 2 * 68  # rank 2; inputs and outputs of seven layers
    assert pace.step_seconds(one, pace.Rates(1e3, float("inf")), 5, 2) == pytest.approx(operations / 1e3)
    assert pace.step_seconds(one, pace.Rates(float("inf"), 1e3), 5, 2) == pytest.approx(elementwise / 1e3)


def test_a_step_does_not_depend_on_how_the_batch_is_split():
    rates = pace.Rates(1e9, 1e9)
    together, split = (pace.step_seconds(needs("full", batch_size=4, micro_batch=size), rates, 5, 2) for size in (4, 1))
    assert together == split


def test_summaries_wait_for_each_turn_of_a_batch():
    one, never = needs("zero_shot", generation_batch=4), pace.Rates(float("inf"), float("inf"))
    assert pace.generation_seconds(one, never, 9, 5, 7) == pytest.approx(3 * 7 * pace.DISPATCH)  # three batches, one layer
    assert pace.generation_seconds(one, never, 0, 5, 7) == 0


def test_summaries_read_prompts_and_move_weights_for_a_turn_and_the_cache_for_a_row():
    one, moved = needs("zero_shot", generation_batch=2), pace.Rates(float("inf"), 1e3)
    single, pair = (pace.generation_seconds(one, moved, count, 5, 4) - count * pace.reading_seconds(one, moved, 5) for count in (1, 2))
    row = pace.CACHE * 4 * (5 + 4 / 2) * 2 * 4 * 4 / 1e3  # tokens written, average length, keys and values, width, bytes
    assert pair - single == pytest.approx(row)
    assert single == pytest.approx(row + pace.WEIGHTS * 4 * SHAPE.parameters * 4 / 1e3 + 4 * pace.DISPATCH)


def test_a_longer_answer_takes_the_products_of_its_tokens():
    one, computed = needs("zero_shot"), pace.Rates(1e3, float("inf"))
    operations = arithmetic.generation_flops(SHAPE, [(5, 4)])
    assert pace.generation_seconds(one, computed, 1, 5, 4) == pytest.approx(operations / 1e3 + 4 * pace.DISPATCH)


def test_rates_are_work_over_seconds(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(pace, "now", lambda device: next(ticks))  # whatever is measured seems to take one second
    assert pace.elementwise_rate("bfloat16", "cpu", rows=10, width=10, repeats=3) == 2 * 100 * 2
    assert pace.product_rate("float32", "cpu", size=8, repeats=3) == 2 * 8**3


def test_the_plan_tells_the_time_where_it_is_asked_to(monkeypatch, capsys):
    monkeypatch.setattr(pace, "measure", lambda precision, device: pace.Rates(1e9, 1e9))
    assert cli.main(["plan", "--recipe", "tiny-causal", "--method", "lora", "--time"]) == 0
    assert "a step" in capsys.readouterr().out
    assert cli.main(["plan", "--recipe", "tiny-causal", "--json", "--time"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["zero_shot"]["step_seconds"] is None and told["full"]["step_seconds"] > 0
    assert plan.make(config.resolve("tiny-causal", "lora")).step_seconds is None
