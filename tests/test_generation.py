import dataclasses
import json
import shutil

import pytest
import torch

from lab_utils import adapters, config, environment, generation, models, pretrained, training
from lab_utils.data import Example
from lab_utils.environment import Precision
from lab_utils.generation import Generated, Prediction

EXAMPLES = [
    Example(id, f"Ann: {words}\nBen: Well.", (f"Reference {id}.", f"Another {id}."))
    for id, words in [
        ("middle", "The boat is late, and I have hired a skipper for the first of July."),
        ("short", "Yes?"),
        ("long", "I have hired a skipper for the first of July. The boat is late. " * 4),
        ("empty", "."),
        ("other", "Could you feed the cat on Thursday evening, while I am at the concert?"),
    ]
]
# What a model can learn by heart: one answer that ends within 8 tokens and one that does not.
KNOWN = [Example("brief", "Ann: A?", ("ok",)), Example("wordy", "Ben: B!", ("the boat is late and somebody pays for the harbour tonight",))]


@pytest.fixture(scope="module", autouse=True)
def float32():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "precision", lambda family="causal", wanted="auto": Precision("float32", "set by a test"))
        yield


def load(recipe, method="zero_shot", **changes):
    return models.load(config.resolve(recipe, method, **changes))


def scatter(model):
    """Weights so large that answers hang on every token of the prompt: small ones answer everything with one repeated token."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(2 * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)


@pytest.fixture(scope="module")
def scattered(recipe):
    base = load(recipe, generation_batch=8)
    scatter(base.model)
    return base


@pytest.fixture(scope="module")
def learnt(recipe):
    """A model that knows the answers to KNOWN by heart."""
    base = load(recipe, "full", learning_rate=1e-2, batch_size=2, micro_batch=2, warmup=0.0, epochs=150, schedule="constant")
    history = training.train(base.model, base, KNOWN, say=lambda line: None)
    assert history.log[-1]["loss"] < 0.1
    return base


def with_generation(base, **changes):
    """The same weights under other generation settings."""
    recipe = base.settings.recipe
    recipe = recipe.model_copy(update={"generation": recipe.generation.model_copy(update=changes)})
    return dataclasses.replace(base, settings=base.settings.model_copy(update={"recipe": recipe}))


def summarize(base, examples=EXAMPLES, model=None, **options):
    return generation.summarize(model or base.model, base, examples, say=lambda line: None, **options)


def texts(generated):
    return {p.id: p.prediction for p in generated.predictions}


def test_a_batch_of_many_lengths_answers_as_one_by_one(scattered):
    together = summarize(scattered).predictions
    assert together == summarize(with_generation(scattered, generation_batch=1)).predictions
    assert together == summarize(with_generation(scattered, generation_batch=2)).predictions
    assert len({p.prediction for p in together}) == len(EXAMPLES)


def test_predictions_keep_the_order_and_the_references_of_the_examples(scattered):
    base = with_generation(scattered, generation_batch=2)
    there, back = summarize(base), summarize(base, EXAMPLES[::-1])
    assert [(p.id, p.references) for p in there.predictions] == [(e.id, e.references) for e in EXAMPLES]
    assert there.predictions == back.predictions[::-1]


def greedy_by_hand(base, prompt, count):
    """The likeliest token, again and again, from a whole forward pass without padding or cache, as text."""
    answer = []
    with torch.no_grad():
        for _ in range(count):
            if base.family == "causal":
                inputs = {"input_ids": torch.tensor([prompt + answer])}
            else:
                start = base.model.config.decoder_start_token_id
                inputs = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor([[start, *answer]])}
            inputs = {key: value.to(base.model.device) for key, value in inputs.items()}
            answer.append(int(base.model(**inputs, use_cache=False).logits[0, -1].argmax()))
    return base.tokenizer.decode(answer, skip_special_tokens=True).strip()


def test_answers_are_greedy(scattered):
    answers = texts(summarize(with_generation(scattered, max_new_tokens=5)))
    assert answers == {e.id: greedy_by_hand(scattered, scattered.encoder.prompt_of(e.document), 5) for e in EXAMPLES}


@pytest.mark.parametrize("limit", [1, 3])
def test_answers_have_at_most_max_new_tokens(scattered, limit):
    generated = summarize(with_generation(scattered, max_new_tokens=limit))
    assert max(p.tokens + p.stopped for p in generated.predictions) == limit


def test_a_checkpoints_own_generation_settings_do_not_change_the_answers(recipe, scattered, tmp_path):
    """Hub models bring beams, penalties and minimal lengths in their generation_config.json (facebook/bart-large-cnn has all three)."""
    shutil.copytree(pretrained.checkpoint_folder(config.load_recipe(recipe).model), tmp_path / "own")
    path = tmp_path / "own" / "generation_config.json"
    own = {"do_sample": True, "temperature": 5.0, "num_beams": 3, "min_new_tokens": 4, "repetition_penalty": 2.0, "no_repeat_ngram_size": 1}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    other = load(recipe, generation_batch=8, model_dir=str(tmp_path / "own"))
    scatter(other.model)
    assert texts(summarize(other)) == texts(summarize(scattered))


# --- how an answer ends


def answer_length(base, example):
    """Tokens of the answer, its end token left out."""
    row = base.encoder(example)
    prompt = len(base.encoder.prompt_of(example.document)) if base.family == "causal" else 0
    return len(row["labels"]) - prompt - 1


def test_an_answer_is_stopped_if_and_only_if_its_end_came(learnt):
    brief, wordy = summarize(with_generation(learnt, max_new_tokens=8), KNOWN).predictions
    assert answer_length(learnt, KNOWN[0]) < 8 < answer_length(learnt, KNOWN[1])
    assert (brief.stopped, brief.tokens, brief.prediction) == (True, answer_length(learnt, KNOWN[0]), "ok")
    assert (wordy.stopped, wordy.tokens) == (False, 8)
    assert wordy.prediction and KNOWN[1].summary.startswith(wordy.prediction)


def test_an_end_at_the_very_limit_counts_as_stopped(learnt):
    length = answer_length(learnt, KNOWN[1])
    (exact,) = summarize(with_generation(learnt, max_new_tokens=length + 1), KNOWN[1:]).predictions
    (short,) = summarize(with_generation(learnt, max_new_tokens=length), KNOWN[1:]).predictions
    assert (exact.stopped, exact.tokens, short.stopped, short.tokens) == (True, length, False, length)
    assert exact.prediction == short.prediction == KNOWN[1].summary


def test_what_follows_an_end_in_a_batch_is_neither_counted_nor_shown(learnt):
    """The brief answer waits for the wordy one, and its row is filled up."""
    brief, wordy = summarize(with_generation(learnt, max_new_tokens=60), KNOWN).predictions
    assert wordy.tokens > brief.tokens == answer_length(learnt, KNOWN[0])
    assert (brief.prediction, wordy.prediction) == (KNOWN[0].summary, KNOWN[1].summary)


def test_texts_hold_no_special_tokens(learnt):
    tokenizer = learnt.tokenizer
    words = tokenizer(" ok", add_special_tokens=False)["input_ids"]
    ids = [tokenizer.pad_token_id, tokenizer.unk_token_id, *words, tokenizer.eos_token_id]
    prediction = generation._prediction(learnt, KNOWN[0], ids)
    assert (prediction.prediction, prediction.stopped, prediction.tokens) == ("ok", True, len(words) + 2)


# --- modes


@pytest.mark.parametrize("mode", [True, False])
def test_evaluation_mode_is_set_and_the_former_mode_restored(scattered, mode):
    seen = []
    hook = scattered.model.register_forward_pre_hook(lambda model, inputs: seen.append(model.training))
    scattered.model.train(mode)
    try:
        summarize(scattered)
        assert scattered.model.training is mode
    finally:
        hook.remove()
        scattered.model.eval()
    assert set(seen) == {False}


@pytest.mark.parametrize("mode", [True, False])
def test_the_former_mode_is_restored_even_on_an_error(scattered, mode):
    def fail(*_):
        raise ZeroDivisionError

    hook = scattered.model.register_forward_pre_hook(fail)
    scattered.model.train(mode)
    try:
        with pytest.raises(ZeroDivisionError):
            summarize(scattered)
        assert scattered.model.training is mode
    finally:
        hook.remove()
        scattered.model.eval()


def test_dropout_does_not_touch_answers(recipe):
    base = load(recipe, "lora", dropout=0.9)
    scatter(base.model)
    model = adapters.attach_lora(base)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    calm = texts(summarize(base, model=model.eval()))
    model.train()
    assert texts(summarize(base, model=model)) == texts(summarize(base, model=model)) == calm
    with generation.evaluation_mode(model), model.disable_adapter():
        assert texts(summarize(base, model=model)) != calm


# --- prompts


def prompt_widths(base, **options):
    """Widths of the prompts that the model read."""
    widths = []
    module = base.model if base.family == "causal" else base.model.encoder
    hook = module.register_forward_pre_hook(lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    try:
        summarize(base, EXAMPLES[:1], **options)
    finally:
        hook.remove()
    return [width for width in widths if width > 1]


def test_worked_examples_lengthen_the_prompt_that_the_model_reads(scattered):
    shots = [Example("s1", "Ann: Late?\nBen: Yes.", ("Ben is late.",)), Example("s2", "Cy: Tea?\nDi: No.", ("Di wants no tea.",))]
    encoder, document = scattered.encoder, EXAMPLES[0].document
    added = [len(scattered.tokenizer(text, add_special_tokens=False)["input_ids"]) for s in shots for text in (s.document, s.summary)]
    none, one, two = (encoder.prompt_of(document, shots[:count]) for count in (0, 1, 2))
    assert len(one) >= len(none) + sum(added[:2]) and len(two) >= len(one) + sum(added[2:])
    assert (prompt_widths(scattered), prompt_widths(scattered, shots=shots)) == ([len(none)], [len(two)])


def test_documents_longer_than_the_limit_are_counted(recipe):
    base = load(recipe, document_tokens=30)
    lengths = [len(base.tokenizer(e.document, add_special_tokens=False)["input_ids"]) for e in EXAMPLES]
    expected = sum(length > 30 for length in lengths)
    generated = summarize(base)
    assert 0 < expected < len(EXAMPLES)
    assert generated.cut_documents == generated.describe()["cut_documents"] == expected


def test_costs_are_described_by_hand():
    predictions = [Prediction(str(n), "x", ("y",), tokens=n, stopped=n != 3) for n in (1, 2, 3)]
    described = Generated(predictions, seconds=4.0, peak_memory_gb=1.234, cut_documents=1).describe()
    assert described == {
        "examples": 3,
        "seconds": 4.0,
        "tokens_per_second": 1.5,
        "peak_memory_gb": 1.23,
        "stopped_share": 0.6667,
        "cut_documents": 1,
    }
