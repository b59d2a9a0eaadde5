"""What the lab does to a model holds for every architecture that the recipes name, shown on shrunken models of the same build."""

import json
from types import SimpleNamespace

import pytest
import shrunken
import torch
import yaml
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import AutoTokenizer

from lab_utils import adapters, architectures, config, data, environment, fields, generation, methods, models, prompts, training
from lab_utils.batching import IGNORED
from lab_utils.data import Example
from lab_utils.environment import Precision
from lab_utils.errors import LabError

SHORT = [
    Example("a", "Ann: Are you coming?\nBen: At eight.", ("Ben comes at eight.",)),
    Example("b", "Ann: Is it ready?\nBen: Not yet, the paint is wet.", ("It is wet and not ready.",)),
]
# Linear layers without the output layer, and those of query and value. Two layers: seven each in a gated decoder, six in Phi's;
# FLAN-T5's encoder has 2 x (4 + 3), its decoder 2 x (8 + 3), and six attentions in all.
LINEAR = dict.fromkeys(shrunken.KINDS, 14) | {"flan-t5": 36, "phi": 12}
QUERY_VALUE = dict.fromkeys(shrunken.KINDS, 4) | {"flan-t5": 12}
LINEAR_NAMES = {"flan-t5": {"q", "k", "v", "o", "wi_0", "wi_1", "wo"}, "phi": {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}}
ADDS_BOS = ("tinyllama", "gemma", "mistral")  # the tokenizer puts a BOS before a text
BUDGET = {"warmup": 0.0, "schedule": "constant", "batch_size": 2, "micro_batch": 2, "epochs": 30}


def quiet(line):
    pass


def written_prompt(kind: str) -> dict:
    if kind in ("flan-t5", "phi"):
        return {"style": "plain", "instruction": "Instruct: Summarize the following conversation.", "cue": "Output:"}
    options = {"template_options": {"enable_thinking": False}} if kind == "qwen3" else {}
    return {"style": "chat", "instruction": "Summarize the following conversation.", "cue": "Summary:"} | options


@pytest.fixture(scope="module", autouse=True)
def float32():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "precision", lambda *family_and_wish: Precision("float32", "set by a test"))
        yield


@pytest.fixture(scope="module", params=shrunken.KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return data.load(config.Data(source=str(shrunken.dialogues(tmp_path_factory.mktemp("dialogues")))))


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory):
    """Kind -> path of a recipe whose model is a folder on this disk."""
    root, made = tmp_path_factory.mktemp("shrunken"), {}

    def write(kind):
        if kind not in made:
            adapter = BUDGET | {"learning_rate": 0.05, "rank": 4, "alpha": 8}
            source, family = str(shrunken.build(kind, root / kind)), "seq2seq" if kind == "flan-t5" else "causal"
            values = {
                "title": f"A shrunken {kind}",
                "model": {"source": source, "label": kind, "family": family},
                "data": {"source": str(shrunken.dialogues(root / "dialogues"))},
                "prompt": written_prompt(kind),
                "lengths": {"document_tokens": 48, "summary_tokens": 200},
                "generation": {"max_new_tokens": 24, "generation_batch": 4},
                "full": BUDGET | {"learning_rate": 0.01},
                "lora": adapter,
                "qlora": adapter | {"quantization": "nf4", "epochs": 1},
            }
            made[kind] = root / f"{kind}.yaml"
            made[kind].write_text(yaml.safe_dump(values), encoding="utf-8")
        return str(made[kind])

    return write


@pytest.fixture
def load(recipe_of):
    """Loads a kind's base for a method."""
    return lambda kind, method="lora", **changes: models.load(config.resolve(recipe_of(kind), method, **changes))


@pytest.fixture(scope="module")
def base(recipe_of, kind):
    """A base that no test changes."""
    return models.load(config.resolve(recipe_of(kind), "zero_shot"))


@pytest.fixture(scope="module")
def trained(recipe_of, kind, tmp_path_factory):
    """An adapter after 30 steps on two dialogues, with what was measured before and after."""
    base = models.load(config.resolve(recipe_of(kind), "lora"))
    untouched = models.fingerprint(base.model)
    model = adapters.attach_lora(base)
    ends = [ending(model, base)]
    training.train(model, base, SHORT, say=quiet)
    ends.append(ending(model, base))
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder, save_embedding_layers=False)
    return SimpleNamespace(base=base, model=model, untouched=untouched, ends=ends, folder=folder)


def batch_of(base):
    return base.collator([base.encoder(example) for example in SHORT])


def logits(model, base):
    """Of the positions that are not padding."""
    batch = batch_of(base)
    labels = batch.pop("labels")
    with generation.evaluation_mode(model), torch.no_grad():
        found = model(**batch).logits
    return found[labels != IGNORED] if base.family == "seq2seq" else found[batch["attention_mask"] == 1]


def ending(model, base):
    """Probability of EOS where each answer ends."""
    batch = batch_of(base)
    labels = batch.pop("labels")
    shift = 1 if base.family == "causal" else 0
    last = [(row != IGNORED).nonzero().max() - shift for row in labels]
    with generation.evaluation_mode(model), torch.no_grad():
        chances = model(**batch).logits.softmax(-1)[..., base.tokenizer.eos_token_id]
    return torch.stack([row[i] for row, i in zip(chances, last, strict=True)])


def answers(model, base, examples=SHORT):
    return [p.prediction for p in generation.summarize(model, base, examples, say=quiet).predictions]


def linear_layers(model):
    """Names of the linear layers other than the output layer, whatever they are stored in."""
    output = model.get_output_embeddings()
    return {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not output}


def adapted_layers(model):
    found = {name for name, module in model.named_modules() if "default" in getattr(module, "lora_A", ())}
    return {name.removeprefix("base_model.model.") for name in found}


# --- the shrunken models themselves


def test_a_shrunken_model_has_the_parts_that_recipes_stumble_over(kind, base):
    model, tokenizer = base.model, base.tokenizer
    words, output = model.get_input_embeddings(), model.get_output_embeddings()
    assert (output.weight is words.weight) == (kind in ("smollm2", "gemma", "qwen3"))
    assert (words.num_embeddings > len(tokenizer)) == (kind in ("flan-t5", "phi", "qwen3"))
    assert any(name.endswith("q_norm") for name, _ in model.named_modules()) == (kind == "qwen3")
    assert base.parameters < 250_000
    assert tokenizer.is_fast
    assert (tokenizer.chat_template is None) == (kind in ("flan-t5", "phi"))
    assert (tokenizer.bos_token is None) == (kind in ("flan-t5", "qwen3"))
    assert (tokenizer("Hello")["input_ids"][0] == tokenizer.bos_token_id) == (kind in ADDS_BOS)
    assert (tokenizer("Hello")["input_ids"][-1] == tokenizer.eos_token_id) == (kind == "flan-t5")
    names = {name.rsplit(".", 1)[-1] for name in linear_layers(model)}
    assert names == LINEAR_NAMES.get(kind, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


@pytest.mark.parametrize("kind", ["phi", "mistral"], scope="module")
def test_a_checkpoint_without_a_pad_token_is_padded_with_one_that_it_has(kind, recipe_of, base):
    published = AutoTokenizer.from_pretrained(config.load_recipe(recipe_of(kind)).model.source)
    assert published.pad_token is None
    assert base.tokenizer.pad_token == published.unk_token
    assert len(base.tokenizer) == len(published)


def test_a_model_is_the_same_whenever_it_is_built(kind, base, tmp_path):
    assert models.checkpoint_fingerprint(shrunken.build(kind, tmp_path)) == base.checkpoint


def test_dialogues_load_as_documents_with_three_references_in_the_test_split(corpus):
    packaged = data.load(config.Data())
    for split, count in shrunken.ROWS.items():
        written = getattr(corpus, split)
        assert [e.document for e in written] == [e.document for e in getattr(packaged, split)[:count]]
        assert {len(e.references) for e in written} == {3 if split == "test" else 1}


def test_articles_are_the_same_texts_in_other_columns(corpus, tmp_path):
    articles = data.load(config.Data(source=str(shrunken.articles(tmp_path))))
    for split in shrunken.ROWS:
        pairs = list(zip(getattr(articles, split), getattr(corpus, split), strict=True))
        assert all(a.document == d.document for a, d in pairs)
        assert all(" ".join(a.summary.split()) == " ".join(d.summary.split()) for a, d in pairs)


# --- rule 1: target modules


def test_all_linear_adapts_every_linear_layer_but_the_output_layer(kind, load):
    base = load(kind)
    wanted = linear_layers(base.model)
    assert len(wanted) == LINEAR[kind]
    assert adapted_layers(adapters.attach_lora(base, target_modules="all-linear")) == wanted


def test_a_list_of_query_and_value_adapts_two_layers_an_attention(kind, load):
    names = ["q", "v"] if kind == "flan-t5" else ["q_proj", "v_proj"]
    found = adapted_layers(adapters.attach_lora(load(kind), target_modules=names))
    assert len(found) == QUERY_VALUE[kind]
    assert {name.rsplit(".", 1)[-1] for name in found} == set(names)
    assert any("EncDecAttention" in name for name in found) == (kind == "flan-t5")


@pytest.mark.parametrize("targets", ["all-linear", "attention", "query-value"])
def test_the_sizes_told_from_the_configuration_are_those_of_the_model(kind, recipe_of, load, targets):
    told = architectures.shape_of(config.load_recipe(recipe_of(kind)).model.source)
    base = load(kind)
    assert told.parameters == base.parameters
    assert told.adapter_parameters(4, targets) == models.trainable_parameters(adapters.attach_lora(base, target_modules=targets))


# --- rule 2: the beginning of a prompt


def first_ids(base, shots=()):
    return base.encoder.prompt_of(SHORT[0].document, shots)


def test_a_model_with_a_bos_reads_exactly_one_and_no_prompt_begins_with_a_doubled_token(kind, base):
    for shots in ((), SHORT[1:]):
        ids = first_ids(base, shots)
        assert ids[0] != ids[1]
        if kind in ADDS_BOS:
            assert ids[0] == base.tokenizer.bos_token_id
            assert ids.count(base.tokenizer.bos_token_id) == 1
        if kind == "phi":
            assert base.tokenizer.bos_token_id not in ids


def test_a_chatml_prompt_opens_each_turn_once(load):
    for kind, turns in (("smollm2", 3), ("qwen3", 2)):  # SmolLM2's template adds a system turn of its own
        base = load(kind, "zero_shot")
        opening = base.tokenizer.convert_tokens_to_ids("<|im_start|>")
        assert first_ids(base).count(opening) == turns
        assert first_ids(base, SHORT[1:]).count(opening) == turns + 2


def test_a_few_shot_prompt_holds_the_worked_example_before_the_document(kind, base):
    text = base.tokenizer.decode(first_ids(base, SHORT[1:]))
    assert 0 < text.find("It is wet and not ready.") < text.find("At eight.")
    assert "Ben comes at eight." not in text


def test_an_encoder_input_ends_in_one_eos(load):
    base = load("flan-t5", "zero_shot")
    assert first_ids(base)[-1] == base.tokenizer.eos_token_id
    assert first_ids(base).count(base.tokenizer.eos_token_id) == 1


def test_a_special_token_spelled_out_in_a_document_stays_text(kind, base):
    spelled = " ".join(base.tokenizer.all_special_tokens)
    plain, attacked = (prompts.prompt_ids(base.tokenizer, base.encoder.prompt, f"Ann: Hello{words}") for words in ("", f" {spelled}"))
    for special in set(base.tokenizer.all_special_ids) - {base.tokenizer.unk_token_id}:
        assert attacked.count(special) == plain.count(special), base.tokenizer.convert_ids_to_tokens(special)


def test_thinking_that_is_switched_off_leaves_an_empty_block_at_the_prompts_end(load):
    base = load("qwen3", "zero_shot")
    end = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert base.tokenizer.decode(first_ids(base)).endswith(end)
    assert base.tokenizer.decode(base.encoder(SHORT[0])["input_ids"]).endswith(f"{end}Ben comes at eight.<|im_end|>")


@pytest.mark.parametrize("kind", ["gemma", "mistral"], scope="module")
def test_a_system_message_that_a_template_refuses_is_named(kind, base):
    prompt = fields.changed(base.encoder.prompt, system="You summarize.")
    with pytest.raises(LabError, match="system"):
        prompts.prompt_ids(base.tokenizer, prompt, "Ann: Hello")


# --- rules 3 and 4: EOS is learnt, and training reads what generation reads


def test_every_training_row_ends_in_a_supervised_eos(kind, base, corpus):
    rows = [base.encoder(example) for example in corpus.train]
    assert len(rows) == 16
    eos = base.tokenizer.eos_token_id
    batch = base.collator(rows)
    for row, labels, mask in zip(rows, batch["labels"], batch["attention_mask"], strict=True):
        assert row["labels"][-1] == eos and row["labels"].count(eos) == 1
        supervised = (labels != IGNORED).nonzero().squeeze(1)
        assert labels[supervised[-1]] == eos
        assert mask.sum() == len(row["input_ids"])
        if base.family == "causal":
            assert row["input_ids"][-1] == eos and mask[supervised[-1]] == 1


def test_an_adapter_learns_to_stop(kind, trained):
    before, after = trained.ends
    assert after.mean() > 10 * before.mean(), (before, after)


def test_a_summary_learnt_by_heart_comes_back_word_for_word_and_stops(kind, load):
    base = load(kind, "full")
    training.train(base.model, base, SHORT, say=quiet)
    found = generation.summarize(base.model, base, SHORT, say=quiet).predictions
    assert [p.prediction for p in found] == [e.summary for e in SHORT]
    assert all(p.stopped for p in found)


def test_generation_reads_the_prompt_of_the_training_row(kind, base, corpus, monkeypatch):
    examples = [*SHORT, *corpus.train[:2]]
    assert [base.encoder.is_cut(e.document) for e in examples] == [False, False, True, True]
    seen, generate = [], base.model.generate

    def watched(input_ids, attention_mask, **options):
        seen.extend(row[mask == 1].tolist() for row, mask in zip(input_ids, attention_mask, strict=True))
        return generate(input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(base.model, "generate", watched)
    generation.summarize(base.model, base, examples, say=quiet)
    rows = [base.encoder(example) for example in examples]
    if base.family == "causal":
        trained_on = [[i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED] for row in rows]
    else:
        trained_on = [row["input_ids"] for row in rows]
    assert sorted(seen) == sorted(trained_on)


# --- rules 5 and 7: what was trained, saved and loaded again


def test_a_fully_trained_model_answers_as_before_when_it_is_loaded_again(kind, recipe_of, corpus, tmp_path):
    record = methods.run(config.resolve(recipe_of(kind), "full", epochs=2), tmp_path)
    recorded = [json.loads(line)["prediction"] for line in (record.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    model, base = methods.restore(tmp_path, "full")
    assert answers(model, base, corpus.test) == recorded
    assert any(recorded)


def test_a_saved_adapter_on_a_fresh_base_answers_as_before(kind, trained, load):
    base = load(kind)
    untrained = logits(base.model, base)
    again = adapters.load_adapter(base, trained.folder)
    assert torch.equal(logits(again, base), logits(trained.model, trained.base))
    assert answers(again, base) == answers(trained.model, trained.base)
    assert (logits(again, base) - untrained).abs().max() > 1


@pytest.mark.filterwarnings("ignore:Input and output embeddings")
def test_a_merged_adapter_computes_what_the_adapter_computes_and_so_does_its_copy_on_disk(kind, trained, load, tmp_path):
    base = load(kind)
    adapter = adapters.load_adapter(base, trained.folder)
    wanted = logits(adapter, base)
    merged = adapter.merge_and_unload()
    assert not adapted_layers(merged)
    torch.testing.assert_close(logits(merged, base), wanted, atol=2e-4, rtol=1e-4)
    for part in (merged, base.tokenizer):
        part.save_pretrained(tmp_path)
    again = load(kind, "zero_shot", model_dir=str(tmp_path))
    assert torch.equal(logits(again.model, again), logits(merged, base))


def test_training_an_adapter_leaves_the_base_as_it_was(kind, trained, load):
    assert models.fingerprint(trained.model) == trained.untouched == models.fingerprint(load(kind).model)


# --- rule 6: quantized bases


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_every_linear_layer_but_the_output_layer_is_quantized(kind, load, quantization):
    model = load(kind, "qlora", quantization=quantization).model
    stored = Linear8bitLt if quantization == "int8" else Linear4bit
    quantized = {name for name, module in model.named_modules() if isinstance(module, stored)}
    assert quantized == {name for name in linear_layers(model) if not name.endswith(".wo")}
    assert len(quantized) == LINEAR[kind] - (4 if kind == "flan-t5" else 0)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_one_step_on_a_quantized_base_moves_every_adapter_and_no_base_weight(kind, load, quantization):
    steps = []
    for recompute in (False, True):
        base = load(kind, "qlora", quantization=quantization, activation_checkpointing=recompute)
        before = models.fingerprint(base.model)
        model = adapters.attach_lora(base)
        history = training.train(model, base, SHORT, say=quiet)
        assert history.steps == 1
        assert models.fingerprint(model) == before
        moved = {name: p.detach() for name, p in model.named_parameters() if "lora_B" in name}
        assert len(moved) == LINEAR[kind]
        assert all(p.any() for p in moved.values()), [name for name, p in moved.items() if not p.any()]
        steps.append((history.log[0]["grad_norm"], moved))
    (norm, moved), (norm_again, moved_again) = steps
    assert norm_again == pytest.approx(norm, rel=1e-4), "recomputed activations give another gradient"
    assert moved.keys() == moved_again.keys()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_t5s_output_projections_are_never_quantized_and_float32(load, monkeypatch, quantization, precision):
    monkeypatch.setattr(environment, "precision", lambda *family_and_wish: Precision(precision, "set by a test"))
    model = load("flan-t5", "qlora", quantization=quantization).model
    projections = [module for name, module in model.named_modules() if name.endswith(".wo")]
    assert len(projections) == 4
    assert {(type(p), p.weight.dtype) for p in projections} == {(torch.nn.Linear, torch.float32)}
