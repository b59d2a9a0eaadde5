"""From examples to tensors: the prompt of training is that of generation, answers are whole, masks come from lengths."""

import copy
from types import SimpleNamespace

import pytest
import torch

from lab_utils import generation, models, pretrained
from lab_utils.batching import IGNORED, Collator, Encoder, SimilarLengths, pad_left, pad_right
from lab_utils.config import Data, Lengths, Prompt, load_recipe, resolve
from lab_utils.data import Example, load
from lab_utils.environment import Precision
from lab_utils.errors import LabError

LONG = Example("long", "Ann: We meet at ten.\nBen: Fine, at the station. 😀\n" * 40, ("Zoë & Ben meet at 10:30, déjà vu 😀.",))
SHORT = Example("short", "Ann: Hi.", ("They meet.",))
ROOMY = Lengths(document_tokens=400, summary_tokens=200)


def load_encoder(recipe: str) -> Encoder:
    from transformers import AutoTokenizer

    spec = load_recipe(recipe)
    tokenizer = AutoTokenizer.from_pretrained(pretrained.checkpoint_folder(spec.model))
    return Encoder(tokenizer, spec.model.family, spec.prompt, ROOMY)


@pytest.fixture(scope="module")
def encoder(recipe):
    return load_encoder(recipe)


@pytest.fixture(scope="module")
def pad_is_eos(encoder):
    """The same encoder with a tokenizer whose pad token is its EOS, as TinyLlama's and phi-2's are."""
    tokenizer = copy.deepcopy(encoder.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    return Encoder(tokenizer, encoder.family, encoder.prompt, encoder.lengths)


@pytest.fixture(scope="module")
def smollm2():
    spec = load_recipe("smollm2-everyday")
    encoder = load_encoder("smollm2-everyday")
    return Encoder(encoder.tokenizer, encoder.family, encoder.prompt, spec.lengths)


@pytest.fixture(scope="module")
def dialogues():
    return [*load(Data(test_examples=12)).test, LONG, SHORT]


def with_limits(encoder: Encoder, **limits) -> Encoder:
    return Encoder(encoder.tokenizer, encoder.family, encoder.prompt, Lengths(**{**ROOMY.model_dump(), **limits}))


def collator(encoder: Encoder) -> Collator:
    return Collator(encoder.tokenizer.pad_token_id, 0 if encoder.family == "seq2seq" else None)


def supervised(labels) -> list[int]:
    return [label for label in labels if label != IGNORED]


def prompt_part(encoder: Encoder, row: dict) -> list[int]:
    """What a training row shows before the first supervised token."""
    return row["input_ids"] if encoder.family == "seq2seq" else row["input_ids"][: row["labels"].count(IGNORED)]


class Reader(torch.nn.Module):
    """Stands where a model would: keeps what generation lets it read, and answers EOS at once."""

    device, dtype = torch.device("cpu"), torch.float32
    config = SimpleNamespace(decoder_start_token_id=0, num_hidden_layers=1, num_attention_heads=1, hidden_size=1)

    def __init__(self):
        super().__init__()
        self.read = []

    def generate(self, input_ids, attention_mask, generation_config, logits_to_keep=None):
        self.read += [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        eos = torch.full((len(input_ids), 1), generation_config.eos_token_id[0])
        start = generation_config.decoder_start_token_id
        return torch.cat([input_ids if start is None else torch.full_like(eos, start), eos], dim=1)


def test_generation_reads_the_very_ids_that_training_shows_before_the_answer(recipe, dialogues):
    reader, settings = Reader(), resolve(recipe, "zero_shot")
    tokenizer = load_encoder(recipe).tokenizer
    stops = (tokenizer.eos_token_id,)
    base = models.Base(reader, tokenizer, settings, Precision("float32", "a toy"), checkpoint="", parameters=0, stops=stops)
    generation.summarize(reader, base, dialogues, say=lambda line: None)
    shown = [prompt_part(base.encoder, base.encoder(example)) for example in dialogues]
    assert sorted(reader.read) == sorted(shown)


def test_the_prompt_is_a_prefix_of_a_causal_row_and_the_whole_input_of_an_encoder(encoder, dialogues):
    for example in dialogues:
        row, prompt = encoder(example), encoder.prompt_of(example.document)
        assert row["input_ids"][: len(prompt)] == prompt
        assert (len(row["input_ids"]) == len(prompt)) == (encoder.family == "seq2seq")


def test_a_causal_rows_labels_are_its_own_ids_or_ignored():
    encoder = load_encoder("tiny-causal")
    row = encoder(LONG)
    prompt = len(encoder.prompt_of(LONG.document))
    assert len(row["labels"]) == len(row["input_ids"])
    assert row["labels"][:prompt] == [IGNORED] * prompt
    assert row["labels"][prompt:] == row["input_ids"][prompt:]


def test_the_supervised_labels_decode_to_exactly_the_summary(encoder, dialogues):
    for example in dialogues:
        *answer, end = supervised(encoder(example)["labels"])
        assert encoder.tokenizer.decode(answer).removeprefix(" ") == example.summary
        assert end == encoder.tokenizer.eos_token_id


def test_the_last_supervised_label_of_every_row_is_eos(encoder, dialogues):
    batch = collator(encoder)([encoder(example) for example in dialogues])
    for labels in batch["labels"].tolist():
        assert supervised(labels)[-1] == encoder.tokenizer.eos_token_id


def test_the_last_supervised_label_is_eos_even_when_pad_is_eos(pad_is_eos, dialogues):
    """Masking by token id would hide this EOS together with the padding, and the model would never learn to stop."""
    tokenizer = pad_is_eos.tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rows = [pad_is_eos(example) for example in dialogues]
    for labels, row in zip(collator(pad_is_eos)(rows)["labels"].tolist(), rows, strict=True):
        assert supervised(labels) == supervised(row["labels"])
        assert supervised(labels)[-1] == tokenizer.eos_token_id


def test_masks_come_from_lengths_even_when_pad_is_eos(pad_is_eos, dialogues):
    """A chat prompt holds EOS inside, and an encoder's input ends in it: a mask by token id would have holes."""
    rows = [pad_is_eos(example) for example in dialogues]
    assert all(pad_is_eos.tokenizer.pad_token_id in row["input_ids"] for row in rows)
    batch = collator(pad_is_eos)(rows)
    for mask, ids, row in zip(batch["attention_mask"].tolist(), batch["input_ids"].tolist(), rows, strict=True):
        length = len(row["input_ids"])
        assert mask == [1] * length + [0] * (len(mask) - length)
        assert ids[:length] == row["input_ids"]


def test_a_document_is_cut_and_an_answer_never(encoder):
    tight = with_limits(encoder, document_tokens=20)
    row, whole = tight(LONG), encoder(LONG)
    assert len(row["input_ids"]) < len(whole["input_ids"])
    assert supervised(row["labels"]) == supervised(whole["labels"])
    text = tight.tokenizer.decode(prompt_part(tight, row))
    assert LONG.document[:30] in text and LONG.document[:200] not in text


def test_what_stands_around_a_document_survives_the_cut(recipe):
    """Cutting the finished prompt instead would lose the cue, or the turn in which the assistant answers."""
    encoder = with_limits(load_encoder(recipe), document_tokens=20)
    end = "Summary:</s>" if encoder.family == "seq2seq" else "<|assistant|>\n"
    text = encoder.tokenizer.decode(encoder.prompt_of(LONG.document))
    assert encoder.prompt.instruction in text and text.endswith(end)


def test_a_cut_document_is_known_as_cut(encoder):
    length = len(encoder.tokenizer(SHORT.document, add_special_tokens=False)["input_ids"])
    assert not with_limits(encoder, document_tokens=length).is_cut(SHORT.document)
    assert with_limits(encoder, document_tokens=length - 1).is_cut(SHORT.document)


def test_shots_stand_before_the_document_and_are_not_cut_with_it(encoder):
    shot = Example("shot", "Cem: " + "We talk about tea. " * 10, ("Cem talks.",))
    ids = with_limits(encoder, document_tokens=20).prompt_of(LONG.document, [shot])
    text = encoder.tokenizer.decode(ids)
    assert text.index(shot.document.strip()) < text.index("Cem talks.") < text.index("Ann: We meet")


def test_a_summary_that_is_too_long_is_an_error_that_names_the_example(encoder):
    """EOS counts: the limit is on what the model must write."""
    length = len(supervised(encoder(LONG)["labels"]))
    assert supervised(with_limits(encoder, summary_tokens=length)(LONG)["labels"])[-1] == encoder.tokenizer.eos_token_id
    with pytest.raises(LabError, match=rf"'long' has {length} tokens, more than summary_tokens={length - 1}"):
        with_limits(encoder, summary_tokens=length - 1)(LONG)


def test_padding_on_the_right_and_on_the_left():
    rows = [[1, 2, 3], [4], []]
    assert pad_right(rows, 9) == [[1, 2, 3], [4, 9, 9], [9, 9, 9]]
    assert pad_left(rows, 9) == [[1, 2, 3], [9, 9, 4], [9, 9, 9]]
    assert rows == [[1, 2, 3], [4], []]


def test_a_causal_batch_is_padded_on_the_right_and_padding_is_not_supervised():
    batch = Collator(pad_id=0)([{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [8, 2], "labels": [IGNORED, 2]}])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 2, 0]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[IGNORED, 6, 7], [IGNORED, 2, IGNORED]],
    }


def test_a_decoder_reads_its_labels_shifted_by_one_after_the_start_token():
    rows = [{"input_ids": [5, 1], "labels": [6, 7, 8, 1]}, {"input_ids": [9, 9, 1], "labels": [4, 1]}]
    batch = Collator(pad_id=0, decoder_start_id=3)(rows)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 1, 0], [9, 9, 1]],
        "attention_mask": [[1, 1, 0], [1, 1, 1]],
        "labels": [[6, 7, 8, 1], [4, 1, IGNORED, IGNORED]],
        "decoder_input_ids": [[3, 6, 7, 8], [3, 4, 0, 0]],
    }


def test_a_start_token_with_id_zero_is_a_start_token():
    """T5 starts its decoder with the pad token, whose id is 0."""
    batch = Collator(pad_id=0, decoder_start_id=0)([{"input_ids": [5, 1], "labels": [6, 1]}])
    assert batch["decoder_input_ids"].tolist() == [[0, 6]]


def test_collating_leaves_the_rows_as_they_were(encoder):
    rows = [encoder(LONG), encoder(SHORT)]
    kept = copy.deepcopy(rows)
    collator(encoder)(rows)
    assert rows == kept


def test_the_models_own_collator_fits_its_family(recipe):
    base = models.load(resolve(recipe, "zero_shot"))
    batch = base.collator([base.encoder(SHORT)])
    assert base.collator.pad_id == base.tokenizer.pad_token_id
    assert ("decoder_input_ids" in batch) == (base.family == "seq2seq")
    if base.family == "seq2seq":
        assert batch["decoder_input_ids"][0, 0] == base.model.config.decoder_start_token_id


def test_a_plain_prompt_works_for_a_causal_model_too():
    """Prompt and answer meet at the cue with one space between, as phi-2's prompts need it."""
    encoder = load_encoder("tiny-causal")
    plain = Encoder(encoder.tokenizer, "causal", Prompt(style="plain", instruction="Summarize.", cue="Summary:"), ROOMY)
    row = plain(SHORT)
    assert encoder.tokenizer.decode(row["input_ids"]) == "Summarize.\n\nAnn: Hi.\n\nSummary: They meet.</s>"
    assert encoder.tokenizer.decode(supervised(row["labels"])) == " They meet.</s>"


@pytest.mark.model
def test_smollm2s_rows_follow_the_same_rules(smollm2):
    """The prompt first and unsupervised, then the summary and one EOS, nothing else supervised."""
    for example in load(Data(test_examples=12)).test:
        row, prompt = smollm2(example), smollm2.prompt_of(example.document)
        answer = row["input_ids"][len(prompt) :]
        assert row["input_ids"][: len(prompt)] == prompt
        assert row["labels"] == [IGNORED] * len(prompt) + answer
        assert smollm2.tokenizer.decode(answer) == example.summary + "<|im_end|>"


# --- batches of similar length ------------------------------------------------------------------------------------------


def batches_of(lengths, size, seed=0):
    torch.manual_seed(seed)
    order = list(SimilarLengths(lengths, size))
    return [order[i : i + size] for i in range(0, len(order), size)]


@pytest.mark.parametrize("count", [1, 3, 4, 7, 400, 1000])
def test_every_row_is_read_once_and_an_unfilled_batch_comes_last(count):
    lengths = [10 + 37 * i % 101 for i in range(count)]
    batches = batches_of(lengths, 4)
    assert sorted(row for batch in batches for row in batch) == list(range(count))
    assert all(len(batch) == 4 for batch in batches[:-1])


def test_the_longest_row_is_in_the_first_batch_and_the_others_come_in_no_order_of_length():
    lengths = [100 + i for i in range(80)] + [900, 1, 1, 1]
    batches = batches_of(lengths, 4)
    assert 80 in batches[0]
    longest = [max(lengths[row] for row in batch) for batch in batches[1:]]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_rows_of_a_batch_differ_by_little():
    lengths = list(range(100, 500))
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches_of(lengths, 8))
    assert padded < 1.06 * sum(lengths)  # at random it would be 1.4


def test_batches_differ_from_epoch_to_epoch_and_one_seed_gives_the_same():
    lengths = [100 + i for i in range(40)]
    assert batches_of(lengths, 4, seed=1) == batches_of(lengths, 4, seed=1)
    assert {frozenset(b) for b in batches_of(lengths, 4, seed=1)} != {frozenset(b) for b in batches_of(lengths, 4, seed=2)}
