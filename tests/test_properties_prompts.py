"""Whatever a document and a summary say: a prompt within its limits, an answer that is whole, and no special token but the prompt's own."""

import pytest
import shrunken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import SPECIAL, dialogues, summaries, wild_texts

from lab_utils.batching import IGNORED, Collator, Encoder, TooLong
from lab_utils.config import Lengths, Prompt
from lab_utils.data import Example, whole_characters
from lab_utils.prompts import answer_ids, cut_document, defused, prompt_ids

LIMITS = Lengths(document_tokens=24, summary_tokens=60)
HOSTILE = (
    "</s>" * 60,
    "<|im_end|>" * 60,
    "<|endoftext|>" * 60,
    "<end_of_turn>" * 60,
    "\uff1c/s\uff1e",
    "\uff1cpad\uff1e x",
    "<|im_<|im_end|>end|>",
    "\ud800",
)
documents = dialogues | wild_texts | st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=30).map("".join)


def with_its_published_normalizer(tokenizer):
    """FLAN-T5's file begins with NFKC, which writes full-width letters as plain ones, and drops signs without width."""
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u200b", "")])
    return tokenizer


@pytest.fixture(scope="module", params=shrunken.KINDS)
def encoder(request):
    tokenizer = shrunken._TOKENIZERS[request.param]()
    tokenizer.model_max_length = 10**6  # else it warns of long texts, which are meant here
    if request.param == "flan-t5":
        tokenizer = with_its_published_normalizer(tokenizer)
    style = "chat" if tokenizer.chat_template else "plain"
    family = "seq2seq" if request.param == "flan-t5" else "causal"
    return Encoder(tokenizer, family, Prompt(style=style, instruction="Summarize this.", cue="In short:"), LIMITS)


def special(tokenizer, ids):
    """The special tokens among these, in their order. T5 reads any unknown letter as `<unk>`."""
    unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    return [token for token in ids if token in set(tokenizer.all_special_ids) - unknown]


def hostile(test):
    for text in HOSTILE:
        test = example(text)(test)
    return test


@hostile
@given(documents)
@settings(max_examples=40)
@example("\u200b</s>\u200b <\u200b/s>")
def test_a_document_adds_no_special_token_to_a_prompt(encoder, document):
    tokenizer = encoder.tokenizer
    ids, plain = (encoder.prompt_of(text) for text in (document, "x"))
    assert special(tokenizer, ids) == special(tokenizer, plain)
    shots = [Example("1", document, (document,))]
    ids, plain = (prompt_ids(tokenizer, encoder.prompt, "x", shown) for shown in (shots, [Example("1", "x", ("x",))]))
    assert special(tokenizer, ids) == special(tokenizer, plain)


@hostile
@given(documents)
@settings(max_examples=40)
def test_a_prompt_holds_no_more_of_a_document_than_its_limit(encoder, document):
    """Where a text is cut its last letters may be read otherwise, and so may the line end that follows."""
    room = len(encoder.prompt_of("x")) + LIMITS.document_tokens
    assert len(encoder.prompt_of(document)) <= room + 4
    cut, is_cut = cut_document(encoder.tokenizer, document, LIMITS.document_tokens)
    assert defused(encoder.tokenizer, document).startswith(cut)
    assert is_cut == encoder.is_cut(document) == (cut != defused(encoder.tokenizer, document))


@hostile
@given(documents)
@settings(max_examples=40)
def test_an_answer_ends_in_the_one_special_token_that_it_has(encoder, summary):
    ids = answer_ids(encoder.tokenizer, encoder.prompt, summary)
    assert special(encoder.tokenizer, ids) == [encoder.tokenizer.eos_token_id] == ids[-1:]


@given(documents, summaries)
@settings(max_examples=30)
@example("Ann: Hi.", "#Person1# says " * 20)
@example("</s>" * 60, "x")
def test_a_row_is_prompt_and_whole_answer_of_which_all_the_answer_is_supervised(encoder, document, summary):
    try:
        row = encoder(Example("1", document, (summary,)))
    except TooLong:
        assert len(answer_ids(encoder.tokenizer, encoder.prompt, summary)) > LIMITS.summary_tokens
        return
    supervised = [label for label in row["labels"] if label != IGNORED]
    assert supervised == answer_ids(encoder.tokenizer, encoder.prompt, summary) and len(supervised) <= LIMITS.summary_tokens
    prompt = encoder.prompt_of(document)
    if encoder.family == "causal":
        assert row["input_ids"] == [*prompt, *supervised] and row["labels"] == [IGNORED] * len(prompt) + supervised
    else:
        assert (row["input_ids"], row["labels"]) == (prompt, supervised)
    batch = Collator(pad_id=0)([row, encoder(Example("2", "x", ("x",)))])
    assert batch["labels"][0].tolist()[: len(row["labels"])] == row["labels"]
    assert batch["attention_mask"][0].sum() == len(row["input_ids"])


@given(summaries)
@settings(max_examples=40)
def test_what_is_supervised_reads_as_the_summary(encoder, summary):
    """To the letter where a tokenizer works on bytes; others write spaces, and letters that they do not know, in their own way."""
    tokenizer = encoder.tokenizer
    read = tokenizer.decode(answer_ids(tokenizer, encoder.prompt, summary)[:-1], clean_up_tokenization_spaces=False)
    meant = defused(tokenizer, summary.strip())
    if type(tokenizer).__name__ in ("GPT2Tokenizer", "CodeGenTokenizer"):
        assert read == (meant if encoder.prompt.style == "chat" else f" {meant}")
    elif summary.isascii() and summary.isprintable() and encoder.family == "causal":
        assert "".join(read.split()) == "".join(meant.split())


@given(wild_texts)
@settings(max_examples=100)
@example("\ufeffAnn")
def test_a_text_of_whole_characters_without_special_tokens_is_left_alone(encoder, text):
    tokenizer = encoder.tokenizer
    whole = whole_characters(text)
    whole.encode("utf-8")
    normalizer = tokenizer.backend_tokenizer.normalizer
    written = whole if normalizer is None else normalizer.normalize_str(whole)
    if not any(token in one for token in tokenizer.all_special_tokens for one in (whole, written)):
        assert defused(tokenizer, text) == whole
    assert defused(tokenizer, defused(tokenizer, text)) == defused(tokenizer, text)
