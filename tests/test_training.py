import logging
import math
import re
import warnings
from types import SimpleNamespace

import pytest
import torch

from lab_utils import adapters, config, environment, models, report, trainer, training
from lab_utils.batching import IGNORED, Collator
from lab_utils.data import Example
from lab_utils.environment import Precision
from lab_utils.errors import LabError, TrainingDiverged

WORDS = [
    "the",
    "ship",
    "is",
    "late",
    "because",
    "of",
    "a",
    "storm",
    "and",
    "nobody",
    "knows",
    "when",
    "it",
    "comes",
    "to",
    "the",
    "harbour",
]
# Documents and answers of many lengths: a mean of means would differ from the mean over tokens.
EXAMPLES = [
    Example(f"e{i}", f"Ann: {' '.join(WORDS[: 1 + 2 * i])}?\nBen: {' '.join(WORDS[i:])}.", (" ".join(WORDS[: 1 + (5 * i) % 13]) + ".",))
    for i in range(8)
]


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    use_precision(monkeypatch, "float32")


def use_precision(monkeypatch, name):
    monkeypatch.setattr(environment, "precision", lambda family="causal", wanted="auto": Precision(name, "set by a test"))


def load(recipe, method="full", seed=0, **changes):
    if method != "zero_shot":
        changes = {"warmup": 0.0} | changes  # a warmup would leave the first step without a learning rate
    return models.load(config.resolve(recipe, method, seed, **changes))


def train(model, base, examples=EXAMPLES, validation=(), **options):
    return training.train(model, base, examples, validation, say=lambda line: None, **options)


def losses(history):
    return [row["loss"] for row in history.log if "loss" in row]


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def on(model, batch):
    return {key: value.to(model.device) for key, value in batch.items()}


def loss_by_hand(model, base, example):
    """Sum of -log p over the answer's tokens, from all logits of the example alone, and their number."""
    row = base.encoder(example)
    answer = row["labels"]
    if base.family == "causal":
        start = len(base.encoder.prompt_of(example.document))
        answer = row["input_ids"][start:]
        inputs = {"input_ids": torch.tensor([row["input_ids"]])}
    else:
        start = 1
        inputs = {
            "input_ids": torch.tensor([row["input_ids"]]),
            "decoder_input_ids": torch.tensor([[base.model.config.decoder_start_token_id, *answer[:-1]]]),
        }
    with torch.no_grad():
        logits = model(**on(model, inputs)).logits[0].double()
    chances = logits.log_softmax(-1)
    return -sum(chances[start - 1 + i, token].item() for i, token in enumerate(answer)), len(answer)


# --- the loss


def test_the_loss_is_the_cross_entropy_of_the_answers_from_all_logits(recipe):
    base = load(recipe, "zero_shot")
    by_hand = [loss_by_hand(base.model, base, example) for example in EXAMPLES]
    with torch.no_grad():
        total, tokens = training.token_losses(base.model, on(base.model, base.collator([base.encoder(example) for example in EXAMPLES])))
    assert tokens == sum(count for _, count in by_hand)
    assert total.item() == pytest.approx(sum(loss for loss, _ in by_hand), rel=1e-5)


def test_a_loss_taken_in_parts_has_the_sum_and_the_gradient_of_one(monkeypatch):
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 11, requires_grad=True), torch.tensor([3, -100, 0, 10, -100, 5, 1])
    whole = training._cross_entropy(logits, targets)
    (expected,) = torch.autograd.grad(whole, logits)
    monkeypatch.setattr(training, "LOGITS_AT_ONCE", 2 * 11)
    parts = training._cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(parts, logits)
    assert torch.allclose(parts, whole) and torch.equal(gradient, expected)


def test_longer_rows_beside_it_do_not_change_a_rows_loss(recipe):
    base = load(recipe, "zero_shot")
    rows = [base.encoder(example) for example in EXAMPLES]

    def loss(chosen):
        with torch.no_grad():
            return training.token_losses(base.model, on(base.model, base.collator(chosen)))[0].item()

    alone = [loss([row]) for row in rows]
    for row, own in zip(rows[:-1], alone[:-1], strict=True):
        assert loss([row, rows[-1]]) - alone[-1] == pytest.approx(own, rel=1e-4)


class Given(torch.nn.Module):
    """A model whose logits are its weights, so that their gradient shows which positions the loss looks at."""

    def __init__(self, rows, width, vocabulary=7):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.linspace(-1, 1, rows * width * vocabulary).view(rows, width, vocabulary))

    def forward(self, input_ids, attention_mask, use_cache, logits_to_keep=None, decoder_input_ids=None):
        return SimpleNamespace(logits=self.logits if logits_to_keep is None else self.logits[:, logits_to_keep])

    def seen(self, batch):
        training.token_losses(self, batch)[0].backward()
        return [row.nonzero().flatten().tolist() for row in self.logits.grad.abs().sum(-1)]


def test_prompt_and_padding_of_a_decoder_carry_no_gradient():
    rows = [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [IGNORED] * 3 + [4, 5]},
        {"input_ids": [1, 2, 3], "labels": [IGNORED] * 2 + [3]},
        {"input_ids": [1, 2, 3, 4], "labels": [IGNORED] + [2, 3, 4]},
    ]
    assert Given(3, 5).seen(Collator(pad_id=0)(rows)) == [[2, 3], [1], [0, 1, 2]]  # the positions before the answers' tokens


def test_padding_of_an_encoder_decoder_carries_no_gradient():
    rows = [{"input_ids": [1, 2, 3], "labels": [4, 5]}, {"input_ids": [1], "labels": [6, 2, 3, 5]}]
    assert Given(2, 4).seen(Collator(pad_id=0, decoder_start_id=0)(rows)) == [[0, 1], [0, 1, 2, 3]]


def test_the_answers_end_token_is_learnt_even_when_it_is_the_pad_token():
    batch = Collator(pad_id=5)([{"input_ids": [1, 2, 5], "labels": [IGNORED, 2, 5]}, {"input_ids": [1, 5], "labels": [IGNORED, 5]}])
    assert Given(2, 3).seen(batch) == [[0, 1], [0]]


# --- one step


def first_step(recipe, method, micro_batch):
    base = load(recipe, method, batch_size=8, micro_batch=micro_batch)
    model = adapters.attach_lora(base) if method == "lora" else base.model
    before = weights(model)
    (row,) = train(model, base, max_steps=1).log
    return row, {name: value - before[name] for name, value in weights(model).items()}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_accumulation_changes_nothing(recipe, method):
    """The answers have 1 to 13 words, so that neither a mean of micro-batch means nor a sum of them passes."""
    whole, whole_change = first_step(recipe, method, 8)
    rate = config.resolve(recipe, method).training.learning_rate
    assert max(change.abs().max() for change in whole_change.values()) == pytest.approx(rate, rel=0.01)  # Adam's first step
    for micro_batch in (4, 2, 1):
        split, split_change = first_step(recipe, method, micro_batch)
        assert split["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert split["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
        for name, change in split_change.items():
            torch.testing.assert_close(change, whole_change[name], rtol=0, atol=0.01 * rate, msg=lambda text, name=name: f"{name}: {text}")


def test_the_logged_loss_is_the_mean_over_the_answer_tokens_of_the_batch(recipe):
    base = load(recipe, micro_batch=2)
    by_hand = [loss_by_hand(base.model, base, example) for example in EXAMPLES]
    expected = sum(loss for loss, _ in by_hand) / sum(count for _, count in by_hand)
    assert losses(train(base.model, base, max_steps=1)) == [pytest.approx(expected, rel=1e-4)]


def test_the_logged_gradient_norm_is_that_of_the_mean_loss_before_clipping(recipe):
    base = load(recipe, micro_batch=2, max_grad_norm=1e-3)
    total, tokens = training.token_losses(base.model, on(base.model, base.collator([base.encoder(example) for example in EXAMPLES])))
    gradients = torch.autograd.grad(total / tokens, list(base.model.parameters()))
    expected = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    (row,) = train(base.model, base, max_steps=1).log
    assert row["grad_norm"] == pytest.approx(expected, rel=1e-3)


# --- failures


def test_a_loss_that_is_not_a_number_stops_training_and_names_the_step(recipe):
    base = load(recipe)
    next(base.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"loss became nan at step 1, on e\d") as caught:
        train(base.model, base, max_steps=2)
    assert isinstance(caught.value, LabError) and "\n" not in str(caught.value)


def test_a_learning_rate_that_is_far_too_high_stops_training_and_is_named(recipe, tmp_path):
    base = load(recipe, learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match=r"at step 2, .*learning rate .*1e\+30"):
        train(base.model, base, max_steps=4, log_file=tmp_path / "log.csv")
    assert [row["step"] for row in report.read_log(tmp_path / "log.csv")] == [1]


def test_a_gradient_that_is_not_a_number_stops_training_though_the_loss_is_one(recipe):
    base = load(recipe)
    next(base.model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingDiverged, match=r"gradient became nan at step 1, on e\d"):
        train(base.model, base, max_steps=2)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_a_number_is_told_with_the_examples_of_its_batch(monkeypatch, what):
    base = load("tiny-causal", batch_size=4, micro_batch=2)
    order = []
    of_the_lab = training.token_losses

    def spoilt(model, batch):
        order.append(batch["input_ids"].shape[0])
        loss, tokens = of_the_lab(model, batch)
        if what == "loss" and len(order) == 3:
            return loss * float("nan"), tokens
        if what == "gradient" and len(order) == 3:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss, tokens

    monkeypatch.setattr(training, "token_losses", spoilt)
    with pytest.raises(TrainingDiverged) as caught:
        train(base.model, base)
    named = set(re.findall(r"\be\d\b", str(caught.value)))
    expected = 2 if what == "loss" else 4  # the micro-batch; the whole batch
    assert len(named) == expected and "at step 2, on " in str(caught.value)


# --- too little memory


class Full(RuntimeError):
    """What torch raises when a CPU's memory is full."""

    def __init__(self):
        super().__init__(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate ..."
        )


def memory_for(monkeypatch, rows, *, backward=False):
    """A memory that holds so many rows of a batch; it runs out in the forward or, with gradients half written, in the backward pass."""
    of_the_lab = training.token_losses

    def limited(model, batch):
        too_many = len(batch["input_ids"]) > rows
        if too_many and not backward:
            raise Full
        loss, tokens = of_the_lab(model, batch)
        if too_many:
            parameter = list(model.parameters())[-1]
            parameter.grad = torch.full_like(parameter, 7.0)
            loss.register_hook(lambda gradient: (_ for _ in ()).throw(Full()))
        return loss, tokens

    monkeypatch.setattr(training, "token_losses", limited)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_out_of_memory_halves_what_is_read_at_a_time_and_changes_no_step(recipe, method, backward, monkeypatch):
    def trained(micro_batch):
        base = load(recipe, method, batch_size=8, micro_batch=micro_batch, epochs=2)
        model = base.model if method == "full" else adapters.attach_lora(base)
        said = []
        return training.train(model, base, EXAMPLES, say=said.append), weights(model), said

    history, expected, _ = trained(8)
    memory_for(monkeypatch, 3, backward=backward)
    smaller, found, said = trained(8)
    assert losses(smaller) == pytest.approx(losses(history), rel=1e-5)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-5)
    first, second = (line for line in said if "Out of memory" in line)
    assert first.startswith(
        "Out of memory at step 1 with 8 examples at a time: going on with 4. The batch of 8 and its gradient stay the same"
    )
    assert second.startswith("Out of memory at step 1 with 4 examples at a time: going on with 2.")
    assert (smaller.micro_batch, smaller.describe()["micro_batch"]) == (2, 2) and "micro_batch" not in history.describe()
    assert (smaller.examples, smaller.tokens) == (history.examples, history.tokens)


def test_out_of_memory_in_a_later_micro_batch_begins_its_step_again(monkeypatch):
    def trained():
        base = load("tiny-causal", batch_size=8, micro_batch=4)
        return train(base.model, base), weights(base.model)

    history, expected = trained()
    calls, of_the_lab = [], training.token_losses

    def full_at_the_second(model, batch):
        calls.append(len(batch["input_ids"]))
        if len(calls) == 2:
            raise Full
        return of_the_lab(model, batch)

    monkeypatch.setattr(training, "token_losses", full_at_the_second)
    smaller, found = trained()
    assert calls == [4, 4, 2, 2, 2, 2]
    assert losses(smaller) == pytest.approx(losses(history), rel=1e-5) and smaller.tokens == history.tokens
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-6)


def test_out_of_memory_with_one_example_is_a_sentence_that_says_what_helps(monkeypatch):
    base = load("tiny-causal", batch_size=2, micro_batch=2)
    memory_for(monkeypatch, 0)
    with pytest.raises(LabError, match="step 1 with one example at a time: shorten document_tokens"):
        train(base.model, base)


def test_other_errors_of_a_step_are_not_taken_for_a_lack_of_memory(monkeypatch):
    base = load("tiny-causal")
    monkeypatch.setattr(training, "token_losses", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(base.model, base)


# --- what training leaves


def test_the_model_is_left_in_evaluation_mode_without_gradients(recipe):
    base = load(recipe)
    train(base.model, base, validation=EXAMPLES[:2], max_steps=1)
    assert not any(module.training for module in base.model.modules())
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_history_and_log_file_agree_with_one_row_per_step(recipe, tmp_path):
    base = load(recipe, batch_size=2, micro_batch=2)
    history = train(base.model, base, validation=EXAMPLES[:2], validations=2, log_file=tmp_path / "log.csv")
    written = [{key: value for key, value in row.items() if value is not None} for row in report.read_log(tmp_path / "log.csv")]
    assert written == [pytest.approx(row) for row in history.log]
    assert [row["step"] for row in history.log if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in history.log if "validation_loss" in row] == [0, 2, 4]
    assert all({"grad_norm", "learning_rate", "epoch", "seconds"} <= set(row) for row in history.log if "loss" in row)


def test_a_log_file_of_an_earlier_run_is_replaced(tmp_path):
    base = load("tiny-causal")
    for _ in range(2):
        train(base.model, base, max_steps=1, log_file=tmp_path / "log.csv")
    assert len(report.read_log(tmp_path / "log.csv")) == 1


def test_history_counts_steps_examples_and_tokens_without_padding(recipe):
    base = load(recipe, batch_size=4, micro_batch=2)
    history = train(base.model, base)
    rows = [base.encoder(example) for example in EXAMPLES]
    read = sum(len(row["input_ids"]) + (len(row["labels"]) if base.family == "seq2seq" else 0) for row in rows)
    assert (history.steps, history.examples, history.tokens) == (2, 8, read)
    assert history.describe()["first_loss"] == losses(history)[0] and history.describe()["last_loss"] == losses(history)[-1]


def test_max_steps_ends_training_and_shrinks_its_schedule(recipe):
    base = load(recipe, batch_size=1, micro_batch=1, learning_rate=1e-3, schedule="linear")
    history = train(base.model, base, max_steps=4)
    assert (history.steps, history.examples) == (4, 4)
    assert [row["learning_rate"] for row in history.log] == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


def test_epochs_repeat_the_examples(recipe):
    base = load(recipe, batch_size=4, micro_batch=4, epochs=1.5)
    history = train(base.model, base)
    assert (history.steps, history.examples, history.log[-1]["epoch"]) == (3, 12, 1.5)


def test_one_seed_gives_one_set_of_weights(recipe):
    found = []
    for _ in range(2):
        base = load(recipe, "lora", seed=3, dropout=0.3, batch_size=2, micro_batch=1)
        model = adapters.attach_lora(base)
        train(model, base)
        found.append(weights(model))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_another_seed_reads_the_same_examples_in_another_order(recipe):
    def order(seed):
        base = load(recipe, seed=seed, learning_rate=1e-30, batch_size=1, micro_batch=1)
        return losses(train(base.model, base))

    first, again, other = order(0), order(0), order(1)
    assert first == again != other
    assert sorted(first) == pytest.approx(sorted(other))
    assert len({round(loss, 4) for loss in first}) == len(EXAMPLES)


def test_the_loss_falls_when_two_examples_are_learnt_by_heart(recipe):
    base = load(recipe, learning_rate=1e-2, batch_size=2, micro_batch=2, epochs=120, schedule="constant")
    found = losses(train(base.model, base, EXAMPLES[:2]))
    assert found[-1] < 0.1 * found[0]


def test_the_loss_falls_when_only_an_adapter_learns(recipe):
    base = load(recipe, "lora", learning_rate=3e-2, batch_size=2, micro_batch=2, epochs=25)
    found = losses(train(adapters.attach_lora(base), base, EXAMPLES[:2]))
    assert found[-1] < 0.95 * found[0]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_trainable_weights_stay_float32_under_bfloat16_products(monkeypatch, recipe, method):
    use_precision(monkeypatch, "bfloat16")
    base = load(recipe, method)
    model = adapters.attach_lora(base) if method == "lora" else base.model
    before = weights(model)
    train(model, base, validation=EXAMPLES[:2], max_steps=1)
    after = weights(model)
    assert {value.dtype for value in after.values()} == {torch.float32}
    if method == "lora":
        assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    changed = torch.cat([(value - before[name]).abs().flatten() for name, value in after.items()])
    rounded = torch.cat([(value - value.bfloat16().float()).abs().flatten() for name, value in after.items()])
    assert changed.max() > 0 and rounded.max() > 0  # a step too small for bfloat16 is kept


def test_bfloat16_products_end_with_training(monkeypatch, recipe):
    use_precision(monkeypatch, "bfloat16")
    base = load(recipe)
    train(base.model, base, max_steps=1)
    use_precision(monkeypatch, "float32")
    fresh = load(recipe)
    fresh.model.load_state_dict(base.model.state_dict())
    assert loss_by_hand(base.model, base, EXAMPLES[3]) == loss_by_hand(fresh.model.eval(), fresh, EXAMPLES[3])


# --- validation


def test_a_model_that_is_trained_again_is_trained_in_the_same_precision(monkeypatch, recipe):
    use_precision(monkeypatch, "bfloat16")
    base = load(recipe)
    seen = []
    base.model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for _ in range(2):
        train(base.model, base, max_steps=1)
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_validation_loss_is_the_mean_over_all_answer_tokens(recipe, batch_size):
    base = load(recipe, "zero_shot")
    by_hand = [loss_by_hand(base.model, base, example) for example in EXAMPLES]
    expected = sum(loss for loss, _ in by_hand) / sum(count for _, count in by_hand)
    assert training.validation_loss(base.model, base, EXAMPLES, batch_size) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_validation_restores_the_models_mode_even_when_it_fails(mode):
    base = load("tiny-causal", "zero_shot")
    base.model.train(mode)
    training.validation_loss(base.model, base, EXAMPLES)
    assert base.model.training is mode

    def fail(*_):
        raise MemoryError

    base.model.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        training.validation_loss(base.model, base, EXAMPLES)
    assert base.model.training is mode


def test_validation_ignores_dropout(recipe):
    base = load(recipe, "lora", dropout=0.5)
    model = adapters.attach_lora(base)
    with torch.no_grad():
        for parameter in weights(model):
            model.get_parameter(parameter).normal_(0, 0.2)
    model.eval()
    expected = training.validation_loss(model, base, EXAMPLES)
    model.train()
    assert training.validation_loss(model, base, EXAMPLES) == training.validation_loss(model, base, EXAMPLES) == expected


def test_validation_within_training_does_not_change_the_training(recipe):
    def trained(validation):
        base = load(recipe, "lora", dropout=0.3, batch_size=2, micro_batch=2)
        model = adapters.attach_lora(base)
        return losses(train(model, base, validation=validation, validations=4))

    assert trained(EXAMPLES[:3]) == trained(())


# --- the Trainer's arguments


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_trainers_arguments_are_accepted_without_warnings(schedule, precision, tmp_path):
    plan = config.resolve("tiny-causal", "lora", schedule=schedule).training
    heard = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            arguments = trainer.training_arguments(plan, str(tmp_path), 5, Precision(precision, ""), "cpu")
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
    assert heard == []
    assert (arguments.seed, arguments.lr_scheduler_type, arguments.bf16, arguments.fp16) == (5, schedule, precision == "bfloat16", False)


def test_a_step_sees_batch_size_examples_in_micro_batches(tmp_path):
    plan = config.resolve("tiny-causal", "full", batch_size=12, micro_batch=3).training
    arguments = trainer.training_arguments(plan, str(tmp_path), 0, Precision("float32", ""), "cpu")
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (3, 4)


def test_a_micro_batch_that_memory_has_no_room_for_is_lowered_aloud_and_the_steps_stay(monkeypatch):
    base = load("tiny-causal", batch_size=4, micro_batch=4)
    expected = losses(train(base.model, base))
    base = load("tiny-causal", batch_size=4, micro_batch=4)
    monkeypatch.setattr(training, "fitting_micro_batch", lambda settings: 2)
    said = []
    assert losses(training.train(base.model, base, EXAMPLES, say=said.append)) == pytest.approx(expected, abs=1e-5)
    assert any("micro_batch=4 would not fit into memory: 2 at a time" in line for line in said)


def test_compiling_lasts_as_long_as_training_and_asks_for_a_compiler(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: compiled.append((type(module).__name__, options)))
    monkeypatch.setattr(training.shutil, "which", lambda name: "/usr/bin/c++" if name == "c++" else None)
    base = load("tiny-causal", "lora", compile=True)
    adapted = adapters.attach_lora(base)
    train(adapted, base, max_steps=1)
    assert compiled == [(type(base.model).__name__, {"dynamic": True})] and base.model._compiled_call_impl is None
    monkeypatch.setattr(training.shutil, "which", lambda name: None)
    with pytest.raises(LabError, match=r"compile=true needs a C\+\+ compiler"):
        train(adapted, base, max_steps=1)
