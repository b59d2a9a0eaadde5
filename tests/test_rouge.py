"""ROUGE as an evaluate.Metric: the lab's numbers through the interface that other tools expect."""

import evaluate
import pytest

from lab_utils import metrics, rouge
from lab_utils.rouge import Rouge

PREDICTIONS = ["The cat sat.", "dogs run", ""]
REFERENCES = [["The cat sat on the mat.", "A cat."], ["A dog ran.", "dogs run"], ["hen", "egg"]]


class Item:
    def __init__(self, number, prediction, references):
        self.id, self.prediction, self.references = str(number), prediction, references


def means(protocol=metrics.PROTOCOL):
    rows = metrics.score([Item(i, p, r) for i, (p, r) in enumerate(zip(PREDICTIONS, REFERENCES, strict=True))], protocol=protocol)
    return {name: sum(row[name] for row in rows) / len(rows) for name in [*metrics.ROUGE, *(f"best_{n}" for n in metrics.ROUGE)]}


def test_it_is_an_evaluate_metric_whose_numbers_are_the_labs_own():
    assert isinstance(Rouge(), evaluate.Metric)
    assert Rouge().compute(predictions=PREDICTIONS, references=REFERENCES) == pytest.approx(means())


def test_one_reference_needs_no_list():
    single = Rouge().compute(predictions=["the cat sat"], references=["the cat sat on the mat"])
    assert single["rouge1"] == pytest.approx(100 * 2 * 1 * 0.5 / 1.5)
    assert single == Rouge().compute(predictions=["the cat sat"], references=[["the cat sat on the mat"]])


def test_means_are_exact_and_the_same_every_time():
    """evaluate's own metric gives the median of random resamples here."""
    first = Rouge().compute(predictions=PREDICTIONS, references=REFERENCES)
    assert all(Rouge().compute(predictions=PREDICTIONS, references=REFERENCES) == first for _ in range(3))


def test_texts_can_be_added_in_batches():
    metric = Rouge()
    metric.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    metric.add(prediction=PREDICTIONS[2], reference=REFERENCES[2])
    assert metric.compute() == pytest.approx(means())


def test_the_protocol_can_be_changed_by_name():
    plain = Rouge().compute(predictions=PREDICTIONS, references=REFERENCES, stemmer=False)
    assert plain == pytest.approx(means(metrics.RougeProtocol(stemmer=False)))
    assert plain["rouge1"] < means()["rouge1"]


def test_evaluate_loads_it_from_its_file_without_a_network():
    metric = evaluate.load(rouge.__file__)
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES) == pytest.approx(means())
