"""BERTScore: the matching by hand-computed vectors, the whole over a random BERT of a few thousand parameters built here."""

import shutil
from dataclasses import dataclass

import pytest

from lab_utils import encoder_score
from lab_utils.encoder_score import greedy_match, score
from lab_utils.errors import LabError

WORDS = ["ann", "ben", "pays", "buys", "the", "car", "dog", "ten", "euros", "at", "noon", "a", "cat", "sat", "on", "mat"]
POSITIONS = 24


@dataclass
class Item:
    prediction: str
    references: tuple[str, ...]


@pytest.fixture(autouse=True)
def nothing_kept():
    encoder_score._load.cache_clear()
    yield
    encoder_score._load.cache_clear()


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def build(folder, tokenizer, config_name, model_name, **changes):
    import torch
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, config_name)(
        vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, initializer_range=0.5, **sizes | changes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, model_name)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory, tokenizer):
    return build(tmp_path_factory.mktemp("encoders") / "bert", tokenizer, "BertConfig", "BertModel")


# --- the matching


def test_each_side_is_matched_with_the_nearest_of_the_other():
    """Candidate (1, 0), (0, 1); reference (1, 0), (1, 0), (3, 4). Cosines with (3, 4): 0.6 and 0.8.

    Precision (1 + 0.8) / 2 = 0.9, recall (1 + 1 + 0.8) / 3 = 14/15, F1 = 2PR / (P + R).
    """
    precision, recall, f1 = greedy_match([[1, 0], [0, 1]], [[1, 0], [1, 0], [3, 4]])
    assert precision == pytest.approx(0.9)
    assert recall == pytest.approx(14 / 15)
    assert f1 == pytest.approx(2 * 0.9 * (14 / 15) / (0.9 + 14 / 15))


def test_one_vector_may_be_the_nearest_of_many():
    """Both candidates lie on the first reference; the second reference, at right angles, finds nothing: P 1, R 1/2."""
    assert greedy_match([[1, 0], [2, 0]], [[5, 0], [0, 1]]) == pytest.approx((1, 0.5, 2 / 3))


def test_length_of_vectors_does_not_count():
    assert greedy_match([[0.001, 0]], [[1000, 0]]) == pytest.approx((1, 1, 1))


def test_exchanging_the_sides_exchanges_precision_and_recall():
    one, other = [[1, 0], [1, 2]], [[3, 1], [0, 1], [1, 1]]
    precision, recall, f1 = greedy_match(one, other)
    assert greedy_match(other, one) == pytest.approx((recall, precision, f1))


@pytest.mark.parametrize(("one", "other"), [([], [[1, 0]]), ([[1, 0]], []), ([], []), ([[0, 0]], [[1, 0]]), ([[-1, 0]], [[1, 0]])])
def test_nothing_to_match_or_nothing_alike_is_0_and_no_division_by_zero(one, other):
    assert greedy_match(one, other)[2] == 0


# --- the whole

TEXTS = [
    "ann pays ben ten euros",
    "ben pays",
    "the cat sat on the mat",
    "",
    "a dog buys the car at noon",
    "ann",
    "the dog sat on the mat at noon and unknown words follow here",
]
ITEMS = [Item(text, (TEXTS[i - 1], TEXTS[i - 2])) for i, text in enumerate(TEXTS)]


def test_the_same_text_scores_1_and_another_one_less(bert):
    same, other = score([Item(TEXTS[0], (TEXTS[0],)), Item(TEXTS[0], (TEXTS[2],))], bert)
    assert same == pytest.approx(1, abs=1e-5) and other < 0.99


def test_the_whole_is_the_matching_of_the_encoders_vectors_without_its_marks(bert, tokenizer):
    """Computed here once more, one text at a time: rows 1 to the last but one lie between [CLS] and [SEP]."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(bert).eval()

    def vectors(text, layer):
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False), output_hidden_states=True).hidden_states[
                layer
            ][0, 1:-1]

    for layer, given in ((2, None), (2, 2), (1, 1), (0, 0)):
        expected = greedy_match(vectors(TEXTS[0], layer), vectors(TEXTS[2], layer))[2]
        assert score([Item(TEXTS[0], (TEXTS[2],))], bert, layer=given) == pytest.approx([expected], abs=1e-5)


def test_scores_depend_neither_on_the_batch_nor_on_padding_nor_on_order(bert):
    alone = [score([item], bert, batch_size=1)[0] for item in ITEMS]
    for size in (1, 2, 3, 32):
        assert score(ITEMS, bert, batch_size=size) == pytest.approx(alone, abs=1e-5)
    assert score(ITEMS[::-1], bert) == pytest.approx(alone[::-1], abs=1e-5)
    assert score(ITEMS, bert) == score(ITEMS, bert)


def test_of_several_references_the_best_counts(bert):
    text, near, far = TEXTS[0], "ann pays ben ten", "the mat"
    each = score([Item(text, (near,)), Item(text, (far,))], bert)
    assert each[0] != pytest.approx(each[1])
    assert score([Item(text, (far, near)), Item(text, (near, far))], bert) == pytest.approx([max(each)] * 2, abs=1e-5)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_summary_scores_0(bert, text):
    assert score([Item(text, (TEXTS[0],)), Item(text, ("",)), Item(TEXTS[0], (TEXTS[0],))], bert) == pytest.approx([0, 0, 1], abs=1e-5)


def test_a_text_is_cut_at_what_the_encoder_can_read(bert):
    """22 words and two marks fill the 24 positions: what follows makes no difference."""
    head = (WORDS + WORDS)[: POSITIONS - 2]
    items = [Item(" ".join([*head, *["dog"] * 40_000]), (" ".join(head),)), Item(" ".join(head[:-1]), (" ".join(head),))]
    first, second = score(items, bert)
    assert first == pytest.approx(1, abs=1e-5) and second < 0.9999


def test_positions_that_belong_to_padding_are_not_used(tmp_path, tokenizer):
    """RoBERTa counts positions from its padding id on: of 24 it can use 23, and longer texts would leave the table."""
    folder = build(tmp_path / "roberta", tokenizer, "RobertaConfig", "RobertaModel", pad_token_id=0)
    assert score([Item("dog " * 100, ("dog " * 200,))], folder) == pytest.approx([1], abs=1e-5)


@pytest.mark.parametrize("text", ["\x00", "ann \ud800 pays", "<script>ann</script>", "\u202eשלום", "😀", "x" * 100_000])
def test_hostile_text_is_scored_like_any_other(bert, text):
    found = score([Item(text, (TEXTS[0], text))], bert)
    assert 0 <= found[0] <= 1.00001


def test_the_layer_counts_and_one_that_there_is_not_is_refused(bert):
    item = [Item(TEXTS[0], (TEXTS[2],))]
    assert len({round(score(item, bert, layer=layer)[0], 6) for layer in (0, 1, 2)}) == 3
    for layer in (3, -1):
        with pytest.raises(LabError, match=f"has no layer {layer}: give 0 to 2"):
            score(item, bert, layer=layer)


def test_of_t5_the_encoder_is_used(tmp_path):
    from lab_utils import tiny

    tiny.build("seq2seq", tmp_path / "t5")
    same, other = score([Item("Ann pays.", ("Ann pays.",)), Item("Ann pays.", ("A dog sleeps here.",))], str(tmp_path / "t5"))
    assert same == pytest.approx(1, abs=1e-5) and other < 0.999


def refusal(encoder) -> str:
    with pytest.raises(LabError) as caught:
        score([Item("a", ("a",))], str(encoder))
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    return message


@pytest.mark.parametrize("name", ["LlamaConfig", "GPT2Config", "BartConfig"])
def test_decoders_and_encoder_decoders_other_than_t5_are_refused(tmp_path, name):
    import transformers

    getattr(transformers, name)().save_pretrained(tmp_path / "model")
    message = refusal(tmp_path / "model")
    assert "is no text encoder" in message and "'model'" in message


@pytest.mark.parametrize("encoder", ["no/such-model", "no such folder", "./nowhere"])
def test_an_encoder_that_is_nowhere_is_refused_with_what_to_give(encoder):
    message = refusal(encoder)
    assert "could not be loaded" in message and "give the folder of a text encoder" in message


def test_an_empty_folder_is_no_encoder_and_its_place_is_not_told(tmp_path):
    (tmp_path / "empty").mkdir()
    message = refusal(tmp_path / "empty")
    assert "could not be loaded" in message and str(tmp_path) not in message


def test_an_encoder_with_missing_weights_is_refused(bert, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(bert, folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    assert "lacks 16 of its weights" in refusal(folder)


def test_pickled_weights_are_never_loaded(bert, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "bert"
    shutil.copytree(bert, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "could not be loaded" in refusal(folder)
