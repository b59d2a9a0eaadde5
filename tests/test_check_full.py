"""The exercises of notebook 02: the right answer passes however it is written, and each usual mistake is named."""

import math

import pytest
from exercises import almost

from lab_utils import check
from lab_utils.check.exercise import ALMOST, NOT_ATTEMPTED

IGNORED = -100


# --- a training row


def with_loops(prompt, answer, end, pad, length):
    input_ids, labels = [], []
    for token in prompt:
        input_ids.append(token)
        labels.append(IGNORED)
    for token in [*answer, end]:
        input_ids.append(token)
        labels.append(token)
    while len(input_ids) < length:
        input_ids.append(pad)
        labels.append(IGNORED)
    return input_ids, labels


def as_arrays(prompt, answer, end, pad, length):
    import numpy

    input_ids = numpy.full(length, pad)
    used = len(prompt) + len(answer) + 1
    input_ids[:used] = [*prompt, *answer, end]
    labels = numpy.where((numpy.arange(length) >= len(prompt)) & (numpy.arange(length) < used), input_ids, IGNORED)
    return input_ids, labels


def as_tensors(*given):
    import torch

    return [torch.tensor(part) for part in with_loops(*given)]


@pytest.mark.parametrize("right", [with_loops, as_arrays, as_tensors, check.mask_labels.solution()], ids=lambda f: f.__name__)
def test_a_row_passes_however_it_is_written(right):
    assert check.mask_labels(right).passed


def row_of(labels=None, ids=None):
    """A right row, changed."""

    def changed(*given):
        input_ids, right = with_loops(*given)
        return (ids(input_ids, *given) if ids else input_ids), (labels(input_ids, right, *given) if labels else right)

    return changed


def by_value(ids, right, prompt, answer, end, pad, length):
    return [IGNORED if i < len(prompt) or token == pad else token for i, token in enumerate(ids)]


def by_value_but_the_end(ids, right, prompt, answer, end, pad, length):
    labels = by_value(ids, right, prompt, answer, end, pad, length)
    labels[len(prompt) + len(answer)] = end
    return labels


def end_masked(ids, right, prompt, answer, *rest):
    return [IGNORED if i == len(prompt) + len(answer) else label for i, label in enumerate(right)]


def left_padded(ids, prompt, answer, end, pad, length):
    return [pad] * (length - len(prompt + answer) - 1) + [*prompt, *answer, end]


def without_end(ids, prompt, answer, end, pad, length):
    return [*prompt, *answer] + [pad] * (length - len(prompt + answer))


@pytest.mark.parametrize(
    "wrong, said",
    [
        (row_of(labels=lambda ids, right, *given: ids), "The prompt is supervised too"),
        (row_of(labels=lambda ids, right, prompt, *given: [IGNORED] * len(prompt) + ids[len(prompt) :]), "The padding is supervised"),
        (row_of(labels=end_masked), "The end token is not supervised"),
        (row_of(labels=by_value), "The end token is masked with the padding"),
        (row_of(labels=by_value_but_the_end), "masked because of its id"),
        (row_of(labels=lambda ids, right, *given: [*right[1:], IGNORED]), "shifted by one"),
        (row_of(labels=lambda ids, right, *given: [0 if label == IGNORED else label for label in right]), "skips only -100"),
        (row_of(labels=lambda ids, right, prompt, answer, *given: [*answer, 2]), "one for each token that is read"),
        (row_of(ids=without_end), "end token is missing"),
        (row_of(ids=lambda ids, prompt, answer, end, *rest: [*prompt, *answer, end]), "length is 9"),
        (row_of(ids=lambda ids, prompt, *rest: [IGNORED] * len(prompt) + ids[len(prompt) :]), "must still read it"),
        (row_of(ids=left_padded), "on the left"),
        (lambda *given: with_loops(*given)[0], "Two lists"),
        (lambda *given: dict(zip(("input_ids", "labels"), with_loops(*given), strict=True)), "return input_ids, labels"),
    ],
)
def test_a_wrong_row_is_told_what_is_wrong(wrong, said):
    assert said in almost(check.mask_labels(wrong))


def test_a_row_of_stubs_is_not_attempted():
    assert check.mask_labels(lambda *given: (..., ...)).state == NOT_ATTEMPTED


# --- the loss


def in_numpy(logits, labels):
    import numpy

    logits, labels = logits.double().numpy(), labels.numpy()
    losses = []
    for scores, targets in zip(logits, labels, strict=True):
        for t in range(len(targets) - 1):
            if targets[t + 1] != IGNORED:
                high = scores[t].max()
                losses.append(high + numpy.log(numpy.exp(scores[t] - high).sum()) - scores[t][targets[t + 1]])
    return float(numpy.mean(losses))


def with_torch(logits, labels):
    import torch

    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.parametrize("right", [in_numpy, with_torch, check.mean_loss.solution()], ids=lambda f: f.__name__)
def test_a_loss_passes_however_it_is_computed(right):
    assert check.mean_loss(right).passed


def losses_of(logits, labels):
    """Loss of each position, 0 where nothing is supervised, and which are."""
    import torch

    targets = labels[:, 1:]
    each = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none")
    return each, targets != IGNORED


def naive(logits, labels):
    each, supervised = logits[:, :-1].exp() / logits[:, :-1].exp().sum(-1, keepdim=True), labels[:, 1:] != IGNORED
    return -each[supervised].gather(1, labels[:, 1:][supervised].unsqueeze(1)).log().mean()


def mean_of_rows(logits, labels):
    each, supervised = losses_of(logits, labels)
    return (each.sum(1) / supervised.sum(1)).mean()


def unshifted(logits, labels):
    import torch

    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def shifted_back(logits, labels):
    import torch

    return torch.nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())


def counting_the_ignored(logits, labels):
    return with_torch(logits, labels.clamp(min=0))


@pytest.mark.parametrize(
    "wrong, said",
    [
        (unshifted, "not shifted"),
        (shifted_back, "wrong way"),
        (mean_of_rows, "mean of the rows' means"),
        (lambda *given: losses_of(*given)[0].mean(), "divided by all positions"),
        (lambda logits, labels: losses_of(logits, labels)[0].sum() / labels.numel(), "divided by all positions"),
        (lambda *given: losses_of(*given)[0].sum(), "This is the sum"),
        (lambda logits, labels: losses_of(logits, labels)[0].sum() / len(labels), "number of rows"),
        (counting_the_ignored, "-100 are taken for a token"),
        (lambda *given: -with_torch(*given), "sign"),
        (lambda *given: with_torch(*given) / math.log(2), "base 2"),
        (lambda *given: with_torch(*given).exp(), "perplexity"),
        (naive, "Where scores are large, the loss is nan"),
        (lambda *given: losses_of(*given)[0], "should be one number"),
        (lambda logits, labels: logits.log_softmax(-1).gather(2, labels.unsqueeze(2)).mean(), "gather"),
    ],
)
def test_a_wrong_loss_is_told_what_is_wrong(wrong, said):
    assert said in almost(check.mean_loss(wrong))


# --- what training costs


@pytest.mark.parametrize("answer", [16 * 134_515_008 / 1e9, 2.15, 2.2])
def test_memory_passes_rounded_to_two_digits(answer):
    verdict = check.memory_gb(answer, parameters=134_515_008)
    assert verdict.passed == (answer != 2.2)


@pytest.mark.parametrize(
    "bytes_each, said",
    [
        (2, "2 bytes"),
        (4, "weights alone"),
        (8, "two of the four"),
        (12, "one of the four"),
        (64, "64 bytes"),
        (16 * 1e9 / 2**30, "GiB"),
        (16e3, "in MB"),
        (16e9, "in bytes"),
    ],
)
@pytest.mark.parametrize("parameters", [102_000, 134_515_008])
def test_wrong_memory_is_told_what_it_counts(parameters, bytes_each, said):
    assert said in almost(check.memory_gb(bytes_each * parameters / 1e9, parameters=parameters))


@pytest.mark.parametrize("answer", [float("nan"), 0, -1, "2 GB", None])
def test_no_nonsense_is_a_number_of_gb(answer):
    assert check.memory_gb(answer, parameters=102_000).state == ALMOST


@pytest.mark.parametrize("documents, epochs, batch_size", [(240, 0.4, 4), (16, 1, 8), (9, 3, 4), (5, 1, 8), (1000, 2.5, 7)])
def test_steps_are_those_that_the_trainer_counts(documents, epochs, batch_size):
    from lab_utils import config, plan

    settings = config.resolve("tiny-causal", "full", epochs=epochs, batch_size=batch_size)
    steps = plan.optimizer_steps(settings, documents)
    assert check.optimizer_steps(steps, documents=documents, epochs=epochs, batch_size=batch_size).passed
    assert not check.optimizer_steps(steps + 1, documents=documents, epochs=epochs, batch_size=batch_size).passed


@pytest.mark.parametrize(
    "answer, said",
    [
        (30, "documents that are read"),
        (10, "number of documents"),
        (3, "one whole epoch"),
        (15, "micro-batches"),
        (7.5, "A step is whole"),
        (6, "Rounded down"),
        (8, "Every epoch ends"),
        (120, "fewer steps"),
        (50, "50 is not"),
    ],
)
def test_wrong_steps_are_told_what_they_count(answer, said):
    assert said in almost(check.optimizer_steps(answer, documents=10, epochs=3, batch_size=4, micro_batch=2))


# --- the learning rate


def from_transformers(done, steps, warmup, peak):
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    return peak * schedule.lr_lambdas[0](done)


def the_lower_line(done, steps, warmup, peak):
    rising = done / warmup if warmup else 1
    return peak * max(0, min(rising, (steps - done) / (steps - warmup)))


@pytest.mark.parametrize("right", [from_transformers, the_lower_line, check.learning_rate_schedule.solution()], ids=lambda f: f.__name__)
def test_a_schedule_passes_however_it_is_written(right):
    assert check.learning_rate_schedule(right).passed


def right_rate(done, steps, warmup, peak):
    return check.learning_rate_schedule.solution()(done, steps, warmup, peak)


def cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


WRONG_SHARES = {  # of the peak
    "warm-up and decay are missing": lambda done, steps, warmup: 1,
    "no warm-up: it falls": lambda done, steps, warmup: (steps - done) / steps,
    "no warm-up: the first steps": lambda done, steps, warmup: min(1, (steps - done) / (steps - warmup)),
    "no decay": lambda done, steps, warmup: min(1, done / max(1, warmup)),
    "It drops where warm-up ends": lambda done, steps, warmup: done / warmup if done < warmup else (steps - done) / steps,
    "one step later": lambda done, steps, warmup: right_rate(done + 1, steps, warmup, 1),
    "one step earlier": lambda done, steps, warmup: right_rate(done - 1, steps, warmup, 1),
    "cosine": lambda done, steps, warmup: done / warmup if done < warmup else cosine((done - warmup) / (steps - warmup)),
    "Without warm-up (warmup = 0): The code stopped": lambda done, steps, warmup: min(done / warmup, (steps - done) / (steps - warmup)),
    "full rate": lambda done, steps, warmup: 0 if done == 0 else right_rate(done, steps, warmup, 1),
    "below 0": lambda done, steps, warmup: done / warmup if done < warmup else (steps - done) / (steps - warmup),
    "after 10 steps": lambda done, steps, warmup: right_rate(done, steps, warmup, 1) * (1 if done < steps / 2 else 1.1),
}


def scaled(share):
    return lambda done, steps, warmup, peak: peak * share(done, steps, warmup)


WRONG_RATES = {said: scaled(share) for said, share in WRONG_SHARES.items()}
WRONG_RATES["share of the peak"] = lambda done, steps, warmup, peak: right_rate(done, steps, warmup, 1)
WRONG_RATES["one number"] = lambda *given: [0, 1]


@pytest.mark.parametrize("said, wrong", WRONG_RATES.items(), ids=list(WRONG_RATES))
def test_a_wrong_schedule_is_told_what_is_wrong(said, wrong):
    assert said in almost(check.learning_rate_schedule(wrong))


# --- number formats


def found_by_halving(weight, dtype):
    """The smallest rate that moves a weight, to three digits."""
    import torch

    low, high = 0.0, 1.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        moved = torch.tensor(weight, dtype=dtype)
        moved += middle
        low, high = (low, middle) if moved != torch.tensor(weight, dtype=dtype) else (middle, high)
    return high


@pytest.mark.parametrize("weight", [1.0, 0.05, 0.031, 0.0009, 1.99, 0.125])
def test_the_smallest_rate_is_what_halving_finds_for_every_weight(weight):
    import torch

    verdict = check.smallest_moving_rate(found_by_halving(weight, torch.bfloat16), weight=weight)
    assert verdict.passed and "of the weight" in verdict.says, verdict
    assert "smallest rate for float32" in almost(check.smallest_moving_rate(found_by_halving(weight, torch.float32), weight=weight))
    if weight > 0.01:  # below, float16 rounds the rate itself by more than ten per cent
        assert "smallest rate for float16" in almost(check.smallest_moving_rate(found_by_halving(weight, torch.float16), weight=weight))


@pytest.mark.parametrize(
    "answer, said",
    [
        (1e-4, "rounded away"),
        (1e-3, "go on downwards"),
        (2**-12, "whole way"),
        (1.01 * 2**-8, "for a weight of 1"),
        (0, "above 0"),
        (-1e-3, "above 0"),
        (float("nan"), "above 0"),
        ("1e-4", "should be a number"),
    ],
)
def test_a_rate_that_is_not_the_smallest_is_told_why(answer, said):
    assert said in almost(check.smallest_moving_rate(answer, weight=0.05))
