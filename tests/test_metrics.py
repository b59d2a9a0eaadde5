"""ROUGE by hand-computed cases, and the reference handling around it."""

from dataclasses import dataclass

import pytest

from lab_utils import significance
from lab_utils.metrics import PROTOCOL, ROUGE, RougeProtocol, rouge, score, summarize


@dataclass
class Item:
    id: str
    prediction: str
    references: tuple[str, ...]


def f1(precision: float, recall: float) -> float:
    return 100 * 2 * precision * recall / (precision + recall)


def test_a_beginning_has_full_precision_and_half_the_recall():
    """3 of 3 words and 3 of 6; 2 of 2 pairs of words and 2 of 5; a longest common subsequence of 3."""
    found = rouge("the cat sat", "the cat sat on the mat")
    assert found == pytest.approx({"rouge1": f1(1, 3 / 6), "rouge2": f1(1, 2 / 5), "rougeL": f1(1, 3 / 6), "rougeLsum": f1(1, 3 / 6)})


def test_a_repeated_word_counts_only_as_often_as_the_reference_has_it():
    """'the' stands twice in the reference: 2 of 4 words and 2 of 6."""
    assert rouge("the the the the", "the cat sat on the mat")["rouge1"] == pytest.approx(f1(2 / 4, 2 / 6))


def test_rouge_2_and_l_see_the_order_of_words_and_rouge_1_does_not():
    """Backwards, no pair of words survives, and the longest common subsequence is 'the on the' (3 of 6)."""
    found = rouge("mat the on sat cat the", "the cat sat on the mat")
    assert (found["rouge1"], found["rouge2"], found["rougeL"]) == (pytest.approx(100), 0, pytest.approx(50))


def test_rouge_l_lets_words_stand_between():
    """'cat mat' is a common subsequence of length 2, though not a common pair: 2 of 3 words and 2 of 4."""
    found = rouge("cat likes mat", "cat on the mat")
    assert (found["rouge2"], found["rougeL"]) == (0, pytest.approx(f1(2 / 3, 2 / 4)))


def test_rouge_lsum_matches_sentences_wherever_they_stand():
    """Sentences swapped: as one sequence 3 of 6 words stay in order, sentence by sentence all do."""
    found = rouge("The dog ran. The cat sat.", "The cat sat. The dog ran.")
    assert (found["rougeL"], found["rougeLsum"]) == (pytest.approx(50), pytest.approx(100))


def test_sentences_on_one_line_score_as_sentences_on_lines_of_their_own():
    """rouge-score splits at line breaks only: unsplit, rougeLsum would silently be rougeL."""
    one_line, lines = "The dog ran. The cat sat.", "The dog ran.\nThe cat sat."
    reference = "The cat sat. The dog ran."
    assert rouge(one_line, reference) == rouge(lines, reference) == rouge(one_line, reference.replace(". ", ".\n"))


def test_the_reference_and_not_the_prediction_is_the_side_whose_sentences_rouge_lsum_goes_through():
    """Each 'yes' of two reference sentences finds one in the prediction (2 of 2); in one sentence both find the same one (1 of 2)."""
    assert rouge("Yes yes.", "Yes. Yes.")["rougeLsum"] == pytest.approx(100)
    assert rouge("Yes. Yes.", "Yes yes.")["rougeLsum"] == pytest.approx(50)


@pytest.mark.parametrize(("one", "other"), [("cats", "cat"), ("She agreed", "she agrees"), ("BOOKING", "booked")])
def test_words_are_compared_by_stem_without_case(one, other):
    assert rouge(one, other)["rouge1"] == pytest.approx(100)


def test_speaker_tags_are_words():
    """'person1' and 'person2' are different words: 2 of 3 are shared."""
    assert rouge("#Person1# calls Ann", "#Person2# calls Ann")["rouge1"] == pytest.approx(f1(2 / 3, 2 / 3))


@pytest.mark.parametrize("prediction", ["", "   ", "\n", "...", "😀"])
def test_a_prediction_without_words_scores_zero(prediction):
    assert rouge(prediction, "The cat sat.") == dict.fromkeys(ROUGE, 0)


def test_an_exact_answer_scores_100_in_everything():
    text = "Ann buys two lamps. Ben pays 3.50 for one!"
    assert rouge(text, text) == pytest.approx(dict.fromkeys(ROUGE, 100))


def test_a_document_scores_the_mean_over_its_references_and_its_best():
    """Against 'cat sat' 100, against 'cat ran' 1 of 2 words, against 'dog ran' none."""
    [row] = score([Item("a", "cat sat", ("cat ran", "cat sat", "dog ran"))])
    assert row["id"] == "a"
    assert row["rouge1"] == pytest.approx((50 + 100 + 0) / 3)
    assert row["best_rouge1"] == pytest.approx(100)
    assert row["rouge2"] == pytest.approx((0 + 100 + 0) / 3)


def test_the_best_reference_is_chosen_for_each_measure_by_itself():
    """'cat the' has all the words and no pair of them; 'the cat dog eats ham' has the pair: 1 of 1 and 1 of 4."""
    [row] = score([Item("a", "the cat", ("cat the", "the cat dog eats ham"))])
    assert row["best_rouge1"] == pytest.approx(100)
    assert row["best_rouge2"] == pytest.approx(f1(1, 1 / 4))


def test_one_reference_is_its_own_mean_and_best():
    [row] = score([Item("a", "cat sat", ("cat ran",))])
    assert row["rouge1"] == row["best_rouge1"] == pytest.approx(50)


ITEMS = [
    Item("a", "the cat sat on the mat", ("the cat sat", "a cat sat down")),
    Item("b", "", ("the dog ran", "dogs run")),
    Item("c", "Ann pays ten.", ("Ann pays ten.", "Ten is paid by Ann.")),
    Item("d", "Ben leaves at noon", ("Ben will leave at noon with Ann", "At noon Ben goes")),
]


def test_a_documents_row_depends_on_that_document_alone():
    assert score(ITEMS[::-1]) == score(ITEMS)[::-1]
    assert [score([item])[0] for item in ITEMS] == score(ITEMS)


def test_a_summary_of_scores_does_not_depend_on_the_order_of_rows():
    """The means agree but for rounding; resampled bounds agree but for the chance of resampling."""
    rows = score(ITEMS * 5)
    one, other = summarize(rows), summarize(rows[::2] + rows[1::2][::-1])
    for name in ROUGE:
        spread = one[name]["high"] - one[name]["low"]
        assert other[name]["mean"] == pytest.approx(one[name]["mean"])
        assert other[name]["low"] == pytest.approx(one[name]["low"], abs=0.06 * spread)
        assert other[name]["high"] == pytest.approx(one[name]["high"], abs=0.06 * spread)


def test_means_are_taken_over_documents_not_over_pairs():
    """One document with three perfect references and one that shares no word with its only one: 50, not 75."""
    rows = score([Item("a", "cat", ("cat", "cat", "cat")), Item("b", "dog", ("hen",))])
    assert summarize(rows)["rouge1"]["mean"] == pytest.approx(50)


def test_every_measure_comes_with_an_interval_n_and_the_protocol():
    found = summarize(score(ITEMS))
    names = {*ROUGE, *(f"best_{name}" for name in ROUGE)}
    assert found["n"] == 4
    assert found["protocol"] == PROTOCOL.describe()
    assert set(found) == {"n", "protocol", "companions", *names}
    for name in names:
        assert 0 <= found[name]["low"] <= found[name]["mean"] <= found[name]["high"] <= 100


def test_a_companion_is_a_mean_over_the_documents_it_applies_to_and_says_how_many():
    """Summaries of 2 and 4 words; only the first document's text is known, and both its summary's words stand in it."""
    rows = score([Item("a", "cat sat", ("cat",)), Item("b", "the dog ran off", ("dog",))], {"a": "The cat sat down."})
    found = summarize(rows)["companions"]
    assert (found["words"]["mean"], found["words"]["n"]) == (3, 2)
    assert (found["coverage"]["mean"], found["coverage"]["n"]) == (1, 1)
    assert "number_precision" not in found


def test_the_protocol_says_what_the_code_does():
    assert PROTOCOL.stemmer is (rouge("cats", "cat")["rouge1"] > 0)
    told = PROTOCOL.describe()
    assert f"{significance.RESAMPLES:,} resamples" in told["interval"]
    values = [float(value) for value in range(20)]
    assert "seed 0" in told["interval"] and significance.bootstrap(values) == significance.bootstrap(values, seed=0)


def test_without_the_stemmer_other_forms_of_a_word_do_not_match():
    assert rouge("cats", "cat")["rouge1"] == pytest.approx(100)
    assert rouge("cats", "cat", RougeProtocol(stemmer=False))["rouge1"] == 0


def test_without_the_sentence_split_rouge_lsum_is_rouge_l_even_where_the_text_has_line_breaks():
    whole = RougeProtocol(sentences="none")
    for text in ("The dog ran. The cat sat.", "The dog ran.\nThe cat sat."):
        found = rouge(text, "The cat sat.\nThe dog ran.", whole)
        assert found["rougeLsum"] == found["rougeL"] == pytest.approx(50)


@pytest.mark.parametrize(("references", "expected"), [("mean", 50), ("best", 100), ("first", 0)])
def test_the_protocol_decides_what_several_references_are_worth(references, expected):
    [row] = score([Item("a", "cat sat", ("dog ran", "cat sat"))], protocol=RougeProtocol(references=references))
    assert row["rouge1"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (PROTOCOL, ["with stemmer", "split by rule", "mean over"]),
        (RougeProtocol(False, "none", "best"), ["without stemmer", "one sentence", "the best of"]),
        (RougeProtocol(references="first"), ["first reference"]),
    ],
)
def test_a_printed_protocol_names_every_choice(protocol, words):
    assert all(word in str(protocol) for word in ["rouge-score", "F1", "95%", *words])


@pytest.mark.parametrize("stemmer", [True, False])
def test_scores_are_those_of_rouge_score_itself(stemmer):
    """The lab's tokenizer only remembers stems: nothing else may differ."""
    from rouge_score.rouge_scorer import RougeScorer

    texts = [
        "Running dogs ran; the runner's 3 dogs RUN!",
        "naïve cafés, e-mails and U.S. dollars",
        "generalizations of generalization",
        "a",
    ]
    plain = RougeScorer(list(ROUGE), use_stemmer=stemmer)
    for prediction in texts:
        for reference in texts:
            expected = {name: 100 * score.fmeasure for name, score in plain.score(reference, prediction).items()}
            found = rouge(prediction, reference, RougeProtocol(stemmer, "none"))
            assert {name: found[name] for name in ("rouge1", "rouge2", "rougeL")} == {k: v for k, v in expected.items() if k != "rougeLsum"}
