"""Companions by hand-computed cases; corpus measures against their formulas; METEOR with a WordNet of one synset and without any."""

import random
import time
import warnings
from dataclasses import dataclass

import pytest

from lab_utils import companions
from lab_utils.companions import LABELS, MEANINGS, corpus, describe, fragments


@dataclass
class Item:
    prediction: str
    references: tuple[str, ...]


DIALOGUE = "Ann: The cat sat on the mat, and the dog ran at half past seven.\nBen: Gus pays 40 euros.\nCid: Fine."


def test_words_and_length_ratio_count_words_and_compare_them_with_the_mean_reference():
    """4 words against references of 2 and 6, 4 on average; 'don't' and a tag are one word each."""
    found = describe("#Person1# don't eat fish!", ["a b", "a b c d e f"])
    assert (found["words"], found["length_ratio"]) == (4, 1)
    assert describe("a b", ["a b c d"])["length_ratio"] == 0.5


def test_compression_is_the_documents_words_for_each_word_of_the_summary():
    assert describe("a b", ["x"], "a b c d e")["compression"] == 2.5


def test_coverage_and_density_by_hand():
    """Cut greedily: 'the dog' 2, 'sat on the mat' 4, 'quietly' nowhere, 'the cat' 2. Coverage (2 + 4 + 2) / 9, density (4 + 16 + 4) / 9."""
    document, summary = "the cat sat on the mat and the dog ran", "the dog sat on the mat quietly the cat"
    assert fragments(summary.split(), document.split()) == [2, 4, 2]
    found = describe(summary, ["x"], document)
    assert found["coverage"] == pytest.approx(8 / 9)
    assert found["density"] == pytest.approx(24 / 9)


def test_a_copy_has_coverage_1_and_the_density_of_its_length():
    found = describe("sat on the mat", ["x"], "The cat sat on the mat.")
    assert (found["coverage"], found["density"], found["novel_bigrams"]) == (1, 4, 0)


def test_a_fragment_may_reach_over_what_began_elsewhere():
    """'a b a c' stands in 'a b a b a c' only from the third word on."""
    assert fragments(list("abac"), list("ababac")) == [4]


def test_fragments_are_those_of_the_definition_on_random_texts():
    """The definition, quadratic: from each place the longest passage that begins there and stands in the document."""

    def slow(summary, document):
        joined, lengths, i = f" {' '.join(document)} ", [], 0
        while i < len(summary):
            length = max((n for n in range(len(summary) - i + 1) if f" {' '.join(summary[i : i + n])} " in joined), default=0)
            lengths += [length] if length else []
            i += max(length, 1)
        return lengths

    draw = random.Random(0)
    for letters in ("ab", "abc", "abcdefgh"):
        for _ in range(100):
            summary, document = (draw.choices(letters, k=draw.randint(0, 25)) for _ in range(2))
            assert fragments([*summary, "z"], document) == slow(summary, document)


def test_novel_bigrams_are_the_pairs_that_the_document_has_not():
    """the dog yes, dog sat no, sat on yes, on mats no: 2 of 4."""
    assert describe("the dog sat on mats", ["x"], "the dog ran, the cat sat on the mat")["novel_bigrams"] == 0.5


def test_repetition_is_the_share_of_triples_that_stood_before():
    """'a b c a b c' has abc, bca, cab, abc: one of four stood before."""
    assert describe("a b c a b c", ["x"])["repetition"] == pytest.approx(1 / 4)
    assert describe("a b c d", ["x"])["repetition"] == 0
    assert describe("a a a a a a", ["x"])["repetition"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("prediction", ["", " \n", "...", "😀"])
def test_a_summary_without_words_is_empty_and_has_no_shares_of_its_words(prediction):
    found = describe(prediction, ["Ann pays 40."], DIALOGUE, stopped=True)
    assert {key: value for key, value in found.items() if value is not None} == {
        "words": 0, "length_ratio": 0, "empty": 1, "unstopped": 0, "speaker_recall": 0, "name_recall": 0, "number_recall": 0,
    }  # fmt: skip


def test_unstopped_is_known_only_if_the_model_was_watched():
    assert [describe("a", ["a"], stopped=stopped)["unstopped"] for stopped in (True, False, None)] == [0, 1, None]


def test_speakers_are_compared_with_each_reference_and_averaged():
    """Summary: Ann, Cid. Reference 1: Ann, Ben, so precision 1/2, recall 1/2; reference 2: Ann, so precision 1/2, recall 1."""
    found = describe("Ann asks Cid.", ["Ann asks Ben.", "Ann asks Gus."], DIALOGUE)
    assert (found["speaker_precision"], found["speaker_recall"]) == (0.5, 0.75)


def test_swapped_speakers_leave_speaker_precision_and_recall_at_1():
    """What the measure cannot see, as its explanation says."""
    found = describe("Ben pays Ann.", ["Ann pays Ben."], DIALOGUE)
    assert (found["speaker_precision"], found["speaker_recall"]) == (1, 1)
    assert "exchanged" in MEANINGS["speaker_precision"]


def test_who_is_spoken_of_is_a_name_and_no_speaker():
    found = describe("Gus pays.", ["Gus pays."], DIALOGUE)
    assert (found["speaker_precision"], found["speaker_recall"], found["name_precision"], found["name_recall"]) == (None, None, 1, 1)


def test_an_invented_name_lowers_name_precision():
    """Ann and Gus stand in the document, Gavin does not: 2 of 3. 'Cats' begins a sentence, but 'cats' is written small as well."""
    found = describe("Ann and Gus meet Gavin. Cats are cats.", ["Ann"], DIALOGUE)
    assert found["name_precision"] == pytest.approx(2 / 3)


def test_a_name_left_out_lowers_name_recall():
    """Reference 1 names Ann and Gus, of which the summary has Ann: 1/2; reference 2 names Ann: 1; reference 3 nobody."""
    found = describe("Ann pays.", ["Ann pays Gus.", "They meet Ann.", "nobody pays"], DIALOGUE)
    assert found["name_recall"] == 0.75


def test_an_invented_number_lowers_number_precision():
    """7:30 stands in the document in words, 50 in a reference, 900 nowhere: 2 of 3."""
    found = describe("At 7:30 fifty pay 900.", ["Fifty come.", "Many come."], DIALOGUE)
    assert found["number_precision"] == pytest.approx(2 / 3)


def test_a_number_left_out_lowers_number_recall():
    """Reference 1 has 40 and 7:30, of which the summary has 40: 1/2; reference 2 has 40: 1; reference 3 has none."""
    found = describe("Gus pays forty.", ["Gus pays 40 at 7:30.", "40 euros.", "He pays."], DIALOGUE)
    assert found["number_recall"] == 0.75


def test_without_a_document_what_is_compared_with_it_is_not_known():
    found = describe("Ann pays 40 euros to Gus.", ["Ann pays 40."])
    unknown = {key for key, value in found.items() if value is None}
    assert unknown == {
        "compression", "coverage", "density", "novel_bigrams", "unstopped",
        "speaker_precision", "speaker_recall", "name_precision", "number_precision",
    }  # fmt: skip


def test_one_word_has_neither_pairs_nor_triples():
    found = describe("Ann", ["Ann"], DIALOGUE)
    assert (found["novel_bigrams"], found["repetition"], found["coverage"]) == (None, None, 1)


def test_every_measure_has_a_label_and_one_sentence_on_what_it_tells():
    assert list(MEANINGS) == list(LABELS) == [*describe("a", ["a"], "a"), "bleu", "chrf", "meteor", "bertscore"]
    for sentence in MEANINGS.values():
        assert sentence.endswith(".") and sentence.replace("et al.", "").count(". ") == 0


DRAW = random.Random(0)
LONG = {
    "one-word": "a " * 50_000,
    "two-words": " ".join(DRAW.choices("ab", k=50_000)),
    "few-words": " ".join(DRAW.choices([f"w{i}" for i in range(200)], k=25_000)),
    "many-words": " ".join(f"w{i}" for i in range(17_000)),
    "one-line": "x" * 100_000,
    "names": "Ann met Ben. " * 8_000,
    "numbers": "two hundred and 50 at half past ten " * 2_800,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_hundred_kilobytes_against_a_hundred_kilobytes_take_seconds_and_not_minutes(text):
    other = " ".join(reversed(text.split(" ")))
    started = time.process_time()
    describe(text, [other], other, stopped=False)
    assert time.process_time() - started < 10


HOSTILE = [
    "",
    " ",
    "\x00",
    "\ud800 \udfff",
    "<script>alert(1)</script>",
    "\u202eעברית: שלום",
    "👩\u200d👩\u200d👧 x² ½",
    "Ann:\n:\n::",
    "#" * 999,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_described_and_scored_like_any_other(text):
    for prediction, document in ((text, DIALOGUE), (text, text), ("Ann pays 40.", text)):
        found = describe(prediction, [text, "Ann"], document)
        assert all(value is None or value >= 0 for value in found.values())
    assert 0 <= corpus([Item(text, ("Ann", text)), Item("Ann", (text,))])["chrf"]["score"] <= 100


# --- measures of a test set


@pytest.fixture
def no_wordnet(monkeypatch, tmp_path):
    _fresh_wordnet(monkeypatch, tmp_path)


def _fresh_wordnet(monkeypatch, folder):
    """nltk looks for its data in this folder alone, and has read none yet."""
    import nltk
    from nltk.corpus.reader import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    monkeypatch.setattr(nltk.data, "path", [str(folder)])
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, None))


@pytest.fixture
def tiny_wordnet(monkeypatch, tmp_path):
    """WordNet's files with one synset, in which 'car' and 'auto' are synonyms."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    kinds = ("adj", "adv", "noun", "verb")
    for name in [
        "cntlist.rev",
        "index.sense",
        *(f"{what}.{kind}" for what in ("index", "data") for kind in kinds),
        *(f"{k}.exc" for k in kinds),
    ]:
        (folder / name).write_text("")
    (folder / "lexnames").write_text("00 noun.artifact 1\n")
    (folder / "data.noun").write_text("00000000 00 n 02 car 0 auto 0 000 | a thing to drive  \n")
    (folder / "index.noun").write_text("".join(f"{lemma} n 1 0 1 0 00000000  \n" for lemma in ("auto", "car")))
    _fresh_wordnet(monkeypatch, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk's, about other languages
        yield


SOME = [
    Item("the cat sat on the mat", ("the cat sat on a mat", "a cat was sitting on the mat")),
    Item("Ann pays ten euros", ("Ben pays Ann ten euros", "Ann gets ten euros from Ben")),
    Item("Ben leaves at noon today", ("Ben will leave at noon with Ann", "At noon Ben leaves")),
    Item("", ("The dog ran far away", "A dog ran")),
] * 5


def test_bleu_is_the_geometric_mean_of_four_precisions(no_wordnet):
    """4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples; no shortness: (4/5 * 3/4 * 2/3 * 1/2) ** (1/4)."""
    assert corpus([Item("a b c d e", ("a b c d f",))])["bleu"]["score"] == pytest.approx(100 * 0.2**0.25)


def test_bleu_adds_counts_over_documents_before_it_divides(no_wordnet):
    """A copy of 8 words and 2 wrong words: 8 of 10 words, 7 of 8 pairs, 6 of 6 and 5 of 5, not the mean of 100 and 0."""
    found = corpus([Item("a b c d e f g h", ("a b c d e f g h",)), Item("x y", ("v w",))])["bleu"]["score"]
    assert found == pytest.approx(100 * (8 / 10 * 7 / 8) ** 0.25)


def test_chrf_counts_recall_twice(no_wordnet):
    """'ab' against 'abc': 2 of 2 and 2 of 3 letters, 1 of 1 and 1 of 2 pairs, no triple: P 1, R 7/12, F2 = 5PR / (4P + R)."""
    assert corpus([Item("ab", ("abc",))])["chrf"]["score"] == pytest.approx(100 * 5 * (7 / 12) / (4 + 7 / 12))


def test_documents_may_have_different_numbers_of_references(no_wordnet):
    """The second document has one reference; the first finds its words in its third."""
    found = corpus([Item("a b c d", ("x", "y", "a b c d")), Item("e f g h", ("e f g h",))])
    assert [found[name]["score"] for name in ("bleu", "chrf")] == pytest.approx([100, 100])
    assert "nrefs:var" in found["bleu"]["signature"] and "nrefs:2" in corpus(SOME)["chrf"]["signature"]


def test_an_interval_stands_around_the_score_and_narrows_with_more_documents(no_wordnet):
    few, many = corpus(SOME[:8]), corpus(SOME * 4)
    for name in ("bleu", "chrf"):
        assert 0 <= few[name]["low"] < few[name]["score"] < few[name]["high"] <= 100
        assert many[name]["high"] - many[name]["low"] < (few[name]["high"] - few[name]["low"]) / 2


def test_an_interval_is_the_same_every_time_whatever_the_environment_says(no_wordnet, monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    found = corpus(SOME)
    monkeypatch.setenv("SACREBLEU_SEED", "none")
    assert corpus(SOME) == found


def test_an_interval_is_that_of_the_drawn_documents(no_wordnet):
    """Of two documents, a copy and one that shares nothing, a quarter of the samples holds the first alone and a quarter the second."""
    found = corpus([Item("a b c d e", ("a b c d e",)), Item("x", ("y",))])
    for measure in found.values():
        assert (measure["low"], measure["high"]) == (0, pytest.approx(100))


def test_an_interval_is_as_wide_as_that_of_sacrebleus_own_resampling_where_that_works(no_wordnet):
    """Its half width, from 1,000 samples, is half of our interval's width but for chance."""
    from sacrebleu.metrics import CHRF

    items = [item for item in SOME * 3 if item.prediction]
    references = [[item.references[i] for item in items] for i in range(2)]
    theirs = CHRF().corpus_score([item.prediction for item in items], references, n_bootstrap=1000)
    ours = corpus(items)["chrf"]
    assert ours["score"] == pytest.approx(theirs.score)
    assert (ours["high"] - ours["low"]) / 2 == pytest.approx(theirs._ci, rel=0.15)


def test_summaries_that_share_nothing_with_their_references_score_zero(no_wordnet):
    for measure in corpus([Item("", ("abc",)), Item("", ("def",))]).values():
        assert (measure["score"], measure["low"], measure["high"]) == (0, 0, 0)


def test_no_predictions_are_refused():
    with pytest.raises(ValueError, match="no predictions"):
        corpus([])


def test_without_wordnet_meteor_is_left_out_and_the_reason_is_a_sentence(no_wordnet):
    assert set(corpus(SOME)) == {"bleu", "chrf"}
    reason = companions.meteor_missing()
    assert "WordNet" in reason and reason.endswith(".") and "\n" not in reason


def test_with_wordnet_meteor_matches_synonyms(tiny_wordnet):
    """'auto' and 'car' match: P = R = 1 in one chunk of 4, penalty 0.5 * (1/4)^3. 'bike' does not: P = R = 3/4, penalty 0.5 * (1/3)^3."""
    assert companions.meteor_missing() is None
    assert companions.meteor("Ann buys the auto.", ["Ann buys the car."]) == pytest.approx(1 - 0.5 / 4**3)
    assert companions.meteor("Ann buys the bike.", ["Ann buys the car."]) == pytest.approx(3 / 4 * (1 - 0.5 / 3**3))


def test_meteor_takes_the_best_reference_and_the_mean_over_documents(tiny_wordnet):
    """The first document finds its synonym in its second reference; the second shares nothing: half of the first."""
    items = [Item("Ann buys the auto.", ("Ben ran", "Ann buys the car.")), Item("x", ("y",))]
    found = corpus(items)["meteor"]
    assert found["score"] == pytest.approx(100 * (1 - 0.5 / 4**3) / 2)
    assert (found["low"], found["high"]) == (0, pytest.approx(100 * (1 - 0.5 / 4**3)))
    assert found["signature"].startswith("nltk:")


def test_meteor_of_an_empty_summary_is_zero(tiny_wordnet):
    assert companions.meteor("", ["Ann buys the car."]) == companions.meteor("", [""]) == 0
