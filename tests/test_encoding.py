"""Tokenised rows: kept from some size on, found again only by all that they depend on, and never silently fewer."""

import pytest

from lab_utils import cache, encoding, pretrained
from lab_utils.batching import Encoder
from lab_utils.config import Lengths, Prompt, load_recipe
from lab_utils.data import Example
from lab_utils.errors import LabError

CHAT = Prompt(style="chat", instruction="Summarize this.")
PLAIN = Prompt(style="plain", instruction="Summarize this.")
EXAMPLES = [Example(f"e{n}", f"Ann: Number {n}?\nBen: Yes.", (f"Ann asks about {n}.",)) for n in range(encoding.KEPT_FROM)]
LONG = ("word " * 100,)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tokenizer, tmp_path):
    """After the tokenizer was read from the shared one."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer():
    return read_tokenizer("tiny-causal")


def read_tokenizer(recipe):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pretrained.checkpoint_folder(load_recipe(recipe).model))


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer, "causal", CHAT, Lengths(document_tokens=60, summary_tokens=40))


@pytest.fixture
def tokenised(monkeypatch):
    """The ids of the examples that were tokenised, in order."""
    seen = []
    encode = Encoder.__call__
    monkeypatch.setattr(Encoder, "__call__", lambda self, example: (seen.append(example.id), encode(self, example))[1])
    return seen


def kept():
    return sorted((cache.folder() / "tokens").glob("*/*.parquet"))


def test_few_examples_are_tokenised_each_time_and_not_kept(encoder, tokenised):
    few = EXAMPLES[:-1]
    assert encoding.rows(encoder, few) == encoding.rows(encoder, few)
    assert len(tokenised) == 2 * len(few) and kept() == []


def test_many_examples_are_tokenised_once(encoder, tokenised, capsys):
    first = encoding.rows(encoder, EXAMPLES)
    assert tokenised == [example.id for example in EXAMPLES] and len(kept()) == 1
    assert "Tokenising 500 examples" in capsys.readouterr().out
    assert encoding.rows(encoder, EXAMPLES) == first
    assert len(tokenised) == len(EXAMPLES) and capsys.readouterr().out == ""


@pytest.mark.parametrize("recipe, prompt", [("tiny-causal", CHAT), ("tiny-seq2seq", PLAIN)])
def test_rows_are_what_the_encoder_makes_kept_or_not(recipe, prompt):
    made = Encoder(read_tokenizer(recipe), load_recipe(recipe).model.family, prompt, Lengths())
    expected = [made(example) for example in EXAMPLES]
    assert encoding.rows(made, EXAMPLES) == expected  # tokenised
    assert encoding.rows(made, EXAMPLES) == expected  # read back
    assert encoding.rows(made, EXAMPLES[:3]) == expected[:3]
    assert all(type(row["input_ids"]) is list and type(row["labels"][0]) is int for row in encoding.rows(made, EXAMPLES))


def changed(tokenizer, change):
    """The tokenizer of its own with one thing changed."""
    import copy

    other = copy.deepcopy(tokenizer)
    change(other)
    return other


def with_another_template(tokenizer):
    tokenizer.chat_template = tokenizer.chat_template.replace("<|", "<<")


def with_another_token(tokenizer):
    tokenizer.add_tokens(["Ben:"])


def with_another_end(tokenizer):
    tokenizer.eos_token = "<unk>"


@pytest.mark.parametrize(
    "change",
    [
        lambda e: {"prompt": Prompt(style="chat", instruction="Summarize it.")},
        lambda e: {"prompt": Prompt(style="chat", instruction="Summarize this.", cue="In short:")},
        lambda e: {"prompt": Prompt(style="chat", instruction="Summarize this.", system="You summarize.")},
        lambda e: {"prompt": Prompt(style="plain", instruction="Summarize this.")},
        lambda e: {"prompt": Prompt(style="chat", instruction="Summarize this.", template_options={"enable_thinking": False})},
        lambda e: {"lengths": Lengths(document_tokens=61, summary_tokens=40)},
        lambda e: {"lengths": Lengths(document_tokens=60, summary_tokens=41)},
        lambda e: {"family": "seq2seq"},
        lambda e: {"tokenizer": changed(e.tokenizer, with_another_template)},
        lambda e: {"tokenizer": changed(e.tokenizer, with_another_token)},
        lambda e: {"tokenizer": changed(e.tokenizer, with_another_end)},
    ],
    ids=["instruction", "cue", "system", "style", "option", "document", "summary", "family", "template", "vocabulary", "end"],
)
def test_whatever_changes_the_rows_changes_the_fingerprint(encoder, change):
    import dataclasses

    other = dataclasses.replace(encoder, **change(encoder))
    assert encoding.fingerprint(other, EXAMPLES) != encoding.fingerprint(encoder, EXAMPLES)


def test_other_examples_have_another_fingerprint(encoder):
    one = encoding.fingerprint(encoder, EXAMPLES)
    for other in (EXAMPLES[::-1], EXAMPLES[1:], [Example("e0", EXAMPLES[0].document, ("Another.",)), *EXAMPLES[1:]]):
        assert encoding.fingerprint(encoder, other) != one


def test_the_same_tokenizer_read_again_and_used_has_the_same_fingerprint(encoder):
    again = Encoder(read_again(encoder.tokenizer), "causal", CHAT, encoder.lengths)
    before = encoding.fingerprint(encoder, EXAMPLES)
    encoder(EXAMPLES[0])
    assert encoding.fingerprint(encoder, EXAMPLES) == before == encoding.fingerprint(again, EXAMPLES)


def read_again(tokenizer):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer.name_or_path)


def test_another_version_of_how_rows_are_made_is_made_anew(encoder, monkeypatch):
    one = encoding.fingerprint(encoder, EXAMPLES)
    monkeypatch.setattr(encoding, "VERSION", encoding.VERSION + 1)
    assert encoding.fingerprint(encoder, EXAMPLES) != one


# --- summaries that are too long


def with_long(count, of):
    return [Example(f"long{n}", "Ann: Hi.", LONG) for n in range(count)] + EXAMPLES[: of - count]


@pytest.mark.parametrize("of", [100, 500], ids=["not-kept", "kept"])
def test_a_few_summaries_that_are_too_long_are_left_out_and_that_is_said_every_time(encoder, capsys, of):
    examples = with_long(of // 20, of)  # 5%
    for _ in range(2):
        assert encoding.rows(encoder, examples) == [encoder(example) for example in examples[of // 20 :]]
        said = capsys.readouterr().out
        assert f"{of // 20} of {of} training summaries have more than summary_tokens=40 tokens and are left out." in said


@pytest.mark.parametrize("of", [100, 500], ids=["not-kept", "kept"])
def test_more_than_one_in_twenty_too_long_is_refused_and_nothing_is_kept(encoder, of):
    with pytest.raises(LabError) as caught:
        encoding.rows(encoder, with_long(of // 20 + 1, of))
    text = str(caught.value)
    assert "'long0'" in text and "summary_tokens=40" in text and f"({of // 20 + 1} of {of} summaries are too long.)" in text
    assert kept() == []


# --- a damaged cache


@pytest.mark.parametrize("damage", ["truncated", "empty", "absent", "junk", "a byte"])
def test_rows_that_cannot_be_read_back_are_made_anew(encoder, tokenised, damage):
    first = encoding.rows(encoder, EXAMPLES)
    (file,) = kept()
    whole = file.read_bytes()
    if damage == "absent":
        file.unlink()
    else:
        file.write_bytes(
            {
                "truncated": whole[: len(whole) // 2],
                "empty": b"",
                "junk": bytes(range(256)) * 20,
                "a byte": whole[:999] + b"?" + whole[1000:],
            }[damage]
        )
    assert encoding.rows(encoder, EXAMPLES) == first
    assert len(tokenised) == 2 * len(EXAMPLES)
    assert encoding.rows(encoder, EXAMPLES) == first and len(tokenised) == 2 * len(EXAMPLES)


def test_a_cache_that_cannot_be_written_is_one_sentence(encoder, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabError, match="set LAB_CACHE"):
        encoding.rows(encoder, EXAMPLES)
