"""SmolLM2 itself, briefly: it must really learn."""

import pytest

from lab_utils import adapters, config, data, generation, metrics, models, training

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def settings():
    return config.resolve("smollm2-everyday", "lora", epochs=1, train_examples=48, test_examples=12, max_new_tokens=48)


def test_a_few_lora_steps_lower_the_loss_and_lift_rouge(settings):
    corpus, base = data.load(settings.recipe.data), models.load(settings)
    model = adapters.attach_lora(base)
    before = generation.summarize(model, base, corpus.test)
    loss_before = training.validation_loss(model, base, corpus.validation[:12])
    training.train(model, base, corpus.train)
    loss_after = training.validation_loss(model, base, corpus.validation[:12])
    after = generation.summarize(model, base, corpus.test)
    r1 = [metrics.summarize(metrics.score(g.predictions))["rouge1"]["mean"] for g in (before, after)]
    assert loss_after < loss_before - 0.2
    assert r1[1] > r1[0] + 3


def test_the_table_label_says_that_the_weights_were_dequantized(settings):
    assert "Q4_1-dequantized" in models.load(settings).describe()["name"]
