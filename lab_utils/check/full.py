"""The exercises of notebook 02_full_fine_tuning."""

from __future__ import annotations

import math
from typing import Any

from lab_utils.batching import IGNORED
from lab_utils.check.exercise import Almost, NotAttempted, ask, exercise, number

NOTEBOOK = "02_full_fine_tuning"


def _about(found: float, expected: float, tolerance: float) -> bool:
    """Whether a number is the expected one up to a share of it, however small it is."""
    return abs(found - expected) <= tolerance * abs(expected)


# --- a training row -----------------------------------------------------------------------------------------------------------

ROWS = (  # where, then prompt, answer, end, pad, length
    ("", [11, 12, 13], [21, 22], 2, 0, 9),
    ("Where pad and end are the same token: ", [11, 2, 12], [21, 22], 2, 2, 8),
    ("Where the answer holds the id of the pad token: ", [11, 12], [21, 0, 22], 2, 0, 8),
    ("Without a prompt, as in a decoder beside an encoder: ", [], [21, 22], 2, 0, 5),
    ("Where nothing is left to pad: ", [11, 12], [21], 2, 0, 4),
    ("Where the answer is empty: ", [11, 12], [], 2, 0, 5),
)


def _mask_labels():
    def row(prompt, answer, end, pad, length):
        padding = length - len(prompt) - len(answer) - 1
        input_ids = [*prompt, *answer, end] + [pad] * padding
        labels = [IGNORED] * len(prompt) + [*answer, end] + [IGNORED] * padding
        return input_ids, labels

    return row


@exercise(
    NOTEBOOK,
    "build",
    "Write a training row with its labels",
    hints=(
        "input_ids is prompt, then answer, then end, then as many pad as are missing up to length.",
        "labels has the same length: wherever the model is not to be graded stands -100, elsewhere the token of input_ids.",
        "Count instead of comparing: len(prompt) times -100, then the answer and end, then -100 for each position of padding.",
    ),
    solution=_mask_labels,
)
def mask_labels(answer):
    """Judges `f(prompt, answer, end, pad, length)`: lists of token ids and three ints in; the lists `input_ids` and `labels`, each of
    `length`, out. -100 is the label that `torch.nn.functional.cross_entropy` skips; labels are not shifted, as transformers wants them."""
    for where, *given in ROWS:
        found_ids, found_labels = _two_lists(ask(answer, *given), where)
        _judge_ids(where, found_ids, *given)
        _judge_labels(where, found_labels, *given)
    return "Only the answer and the end token are supervised, also where the pad token is the end token."


def _two_lists(found: Any, where: str) -> tuple[list, list]:
    if not hasattr(found, "__len__") or isinstance(found, str | dict) or len(found) != 2:
        raise Almost(f"{where}Two lists were expected: return input_ids, labels.")
    lists = [part.tolist() if hasattr(part, "tolist") else part for part in found]
    if any(part is ... for part in lists):
        raise NotAttempted
    for part in lists:
        if not isinstance(part, list | tuple):
            raise Almost(f"{where}Two lists were expected, and one of these is of type {type(part).__name__}.")
    return list(lists[0]), list(lists[1])


def _judge_ids(where: str, found: list, prompt: list, answer: list, end: int, pad: int, length: int) -> None:
    padding = [pad] * (length - len(prompt) - len(answer) - 1)
    if found == [*prompt, *answer, end, *padding]:
        return
    if found[: len(prompt)] == [IGNORED] * len(prompt) and prompt:
        raise Almost(f"{where}The prompt is -100 in input_ids. The model must still read it: -100 belongs into the labels.")
    if found == [*padding, *prompt, *answer, end] or found == [*padding, pad, *prompt, *answer]:
        raise Almost(f"{where}The padding stands on the left. That is right for generating; for training it comes last.")
    if found[: len(prompt) + len(answer)] == [*prompt, *answer] and (end != pad and end not in found[len(prompt) + len(answer) :]):
        raise Almost(f"{where}The end token is missing in input_ids.")
    if len(found) != length:
        raise Almost(f"{where}input_ids has {len(found)} tokens, and length is {length}.")
    raise Almost(f"{where}input_ids is {found}: its tokens or their order are not yet right.")


def _judge_labels(where: str, found: list, prompt: list, answer: list, end: int, pad: int, length: int) -> None:
    before, ending = len(prompt), len(prompt) + len(answer)
    expected = [IGNORED] * before + [*answer, end] + [IGNORED] * (length - ending - 1)
    if found == expected:
        return
    if len(found) != length:
        raise Almost(f"{where}labels has {len(found)} entries, and length is {length}: there is one for each token that is read.")
    if found == [*expected[1:], IGNORED]:
        raise Almost(f"{where}The labels are shifted by one. The loss does that: the label at a position is the token at that position.")
    if prompt and found[:before] == prompt:
        raise Almost(f"{where}The prompt is supervised too: the model would learn to write documents.")
    skipped = {label for label, right in zip(found, expected, strict=True) if right == IGNORED} - {IGNORED}
    if skipped == {pad} and all(label == IGNORED for label in found[:before]):
        raise Almost(f"{where}The padding is supervised: the model would learn to write the pad token.")
    if skipped:
        others = ", ".join(sorted(map(str, skipped)))
        raise Almost(f"{where}Where nothing is supervised the labels are {others}; the loss skips only -100.")
    if found[ending] == IGNORED and pad == end:
        raise Almost(f"{where}The end token is masked with the padding: mask by position, not by the token's id.")
    if found[ending] == IGNORED:
        raise Almost(f"{where}The end token is not supervised: the model would never learn to stop.")
    if pad in answer:
        raise Almost(f"{where}A token of the answer is masked because of its id: mask by position.")
    raise Almost(f"{where}labels is {found}, and not every position is right yet.")


# --- the loss -----------------------------------------------------------------------------------------------------------------


def _mean_loss():
    def mean_loss(logits, labels):
        logits, targets = logits[:, :-1], labels[:, 1:]
        supervised = targets != IGNORED
        right = logits[supervised].log_softmax(-1).gather(1, targets[supervised].unsqueeze(1))
        return -right.mean()

    return mean_loss


@exercise(
    NOTEBOOK,
    "build",
    "Write the loss of a decoder",
    hints=(
        "The scores at position t belong to the label at t + 1: the last position's scores and the first label have no partner.",
        "Choose the supervised positions first, with a mask of the shifted labels. Both tensors can be indexed with it.",
        "logits[mask].log_softmax(-1) has a row for each supervised token; `gather` takes the right token's column. Then minus the mean.",
    ),
    solution=_mean_loss,
)
def mean_loss(answer):
    """Judges `f(logits, labels)`: float (rows, length, vocabulary) and int (rows, length) with -100 where nothing is supervised.

    The oracle is `torch.nn.functional.cross_entropy` over all supervised tokens of the batch, in nats."""
    import torch

    def labelled(*rows):
        return torch.tensor([[*row, *[IGNORED] * (7 - len(row))] for row in rows])

    def asked(logits, labels):
        return number(ask(answer, logits, labels), "loss")

    none = IGNORED
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 7, 9, generator=draw)
    labels = labelled([none, none, none, 4, 1, 8], [none, 5, 3, 2, 2, 0, 7], [none, none, 6])
    found = asked(logits, labels)
    if not _about(found, _oracle(logits, labels), 1e-4):
        raise Almost(_why_another_loss(found, logits, labels))
    for where, *given in (
        ("Where a row supervises nothing", logits, labelled([none, none, 3, 1], [none] * 7, [none, 2])),
        ("Where a single token is supervised", logits[:1, :2], torch.tensor([[none, 4]])),
        ("Where the first token of a row is supervised, which nothing before it can predict", logits[:2], labelled([3, 1], [none, 2, 2])),
        ("Where scores are large", 400 * logits, labels),
    ):
        found, expected = asked(*given), _oracle(*given)
        if not _about(found, expected, 1e-4):
            raise Almost(f"{where}, the loss is {found:.4g} instead of {expected:.4g}.{_not_a_number(found)}")
    return "It equals torch's cross_entropy of the shifted labels."


def _oracle(logits, labels, shift: int = 1, reduction: str = "mean"):
    from torch.nn.functional import cross_entropy

    scores, targets = logits[:, : logits.shape[1] - shift], labels[:, shift:]
    if shift < 0:
        scores, targets = logits[:, -shift:], labels[:, :shift]
    loss = cross_entropy(scores.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED, reduction=reduction)
    return loss.item() if loss.ndim == 0 else loss.view(targets.shape)


def _why_another_loss(found: float, logits, labels) -> str:
    right, total = _oracle(logits, labels), _oracle(logits, labels, reduction="sum")
    each, supervised = _oracle(logits, labels, reduction="none"), labels[:, 1:] != IGNORED
    unshifted, ignored_too = _oracle(logits, labels, 0), _oracle(logits, labels.clamp(min=0))
    probabilities = (-each[supervised]).exp()
    for wrong, why in (
        (unshifted, "The labels are not shifted: the scores at a position belong to the token after it."),
        (_oracle(logits, labels, -1), "The shift goes the wrong way: the scores at a position belong to the token after it, not before."),
        (total, "This is the sum over the supervised tokens; the mean was asked for."),
        (total / supervised.numel(), "The sum is divided by all positions, also by those that are not supervised."),
        (total / labels.numel(), "The sum is divided by all positions, also by those that are not supervised."),
        (
            (each.sum(1) / supervised.sum(1)).mean().item(),
            "This is the mean of the rows' means, where a token of a short answer counts for more.",
        ),
        (total / len(labels), "The sum is divided by the number of rows, not of supervised tokens."),
        (ignored_too, "The -100 are taken for a token and not left out."),
        (-right, "The sign is wrong: probabilities are below 1, so their logarithms are negative, and a loss is not."),
        (right / math.log(2), "The logarithm has base 2. The natural one was asked for."),
        (probabilities.mean().item(), "This is the mean probability of the right tokens, without the logarithm."),
        (-probabilities.mean().log().item(), "This is the logarithm of the mean probability. Take the logarithm first, then the mean."),
        (math.exp(right), "This is the perplexity, exp(loss)."),
    ):
        if _about(found, wrong, 1e-4):
            return why
    return f"The loss is {found:.4g} where it should be {right:.4g}.{_not_a_number(found)}"


def _not_a_number(found: float) -> str:
    if math.isfinite(found):
        return ""
    return " Something overflowed, divided by nothing or took the logarithm of 0: log_softmax does not, and no row has a mean of its own."


# --- what training costs ------------------------------------------------------------------------------------------------------


@exercise(
    NOTEBOOK,
    "recall",
    "Predict the memory of full fine-tuning",
    hints=(
        "Count the float32 numbers for each parameter: weight, gradient and what Adam keeps. Each has 4 bytes.",
        "Adam keeps two running means for each parameter, so there are four numbers. A GB is 1e9 bytes.",
    ),
)
def memory_gb(answer, *, parameters):
    """Judges a number of GB (1e9 bytes): weights, gradients and Adam's two moments in float32, without activations.

    Args:
        parameters: of the model, all of them trained.
    """
    found, expected = number(answer, "memory"), 16 * parameters / 1e9
    if _about(found, expected, 0.02):
        return f"16 bytes for each of {parameters:,} parameters."
    for bytes_each, why in (
        (2, "This counts 2 bytes a parameter. Weights that are trained are float32 here, and not the only part."),
        (4, "This is the weights alone."),
        (8, "This is 8 bytes a parameter: two of the four numbers."),
        (12, "This is 12 bytes a parameter: one of the four numbers is missing."),
    ):
        if _about(found, bytes_each * parameters / 1e9, 0.02):
            raise Almost(why)
    for unit, factor in (("bytes", 1e9), ("KB", 1e6), ("MB", 1e3), ("GiB (2**30 bytes)", 1e9 / 2**30)):
        if _about(found, factor * expected, 0.005):
            raise Almost(f"The number is right in {unit}, and GB (1e9 bytes) were asked for.")
    raise Almost(f"That would be {found * 1e9 / parameters:.3g} bytes a parameter.")


@exercise(
    NOTEBOOK,
    "recall",
    "Predict the number of optimizer steps",
    hints=(
        "First the steps of one whole epoch: documents / batch_size. The last batch may be smaller, and is a step too.",
        "Multiply that by epochs and round up: math.ceil(epochs * math.ceil(documents / batch_size)).",
    ),
)
def optimizer_steps(answer, *, documents, epochs, batch_size, micro_batch=1):
    """Judges the number of optimizer steps as transformers' Trainer counts them."""
    found = number(answer, "number of steps")
    per_epoch = math.ceil(documents / batch_size)
    expected = math.ceil(epochs * per_epoch)
    if found == expected:
        return f"{per_epoch:,} steps would be an epoch."
    for wrong, why in (
        (documents * epochs, "These are the documents that are read. One step reads several."),
        (documents, "This is the number of documents."),
        (per_epoch, "These are the steps of one whole epoch."),
        (math.ceil(epochs * math.ceil(documents / micro_batch)), "These are the micro-batches. The weights change once for each batch."),
        (math.ceil(epochs * documents * batch_size), "A larger batch makes fewer steps, not more."),
        (epochs * documents / batch_size, "A step is whole: an unfilled batch is one too."),
        (math.floor(epochs * per_epoch), "Rounded down: an unfilled batch is a step too."),
        (epochs * (documents // batch_size), "Rounded down: an unfilled batch is a step too."),
        (
            math.ceil(epochs * documents / batch_size),
            "Every epoch ends with a batch that may be unfilled: round up before you multiply.",
        ),
    ):
        if _about(found, wrong, 1e-9):
            raise Almost(why)
    raise Almost(f"{found:g} is not the number of steps for {documents:,} documents, {epochs:g} epochs and batches of {batch_size}.")


# --- the learning rate --------------------------------------------------------------------------------------------------------


def _learning_rate():
    def rate(done, steps, warmup, peak):
        if done < warmup:
            return peak * done / warmup
        return peak * max(0, steps - done) / max(1, steps - warmup)

    return rate


@exercise(
    NOTEBOOK,
    "build",
    "Write the learning-rate schedule",
    hints=(
        "Two straight lines meet at done = warmup, where the rate is peak. The first begins at 0, the second ends at 0 when done = steps.",
        "The share of warm-up that is over is done / warmup. The share of the rest that is left is (steps - done) / (steps - warmup).",
        "Ask first whether done < warmup. Then warmup = 0 never divides, and max(0, ...) keeps the end at 0.",
    ),
    solution=_learning_rate,
)
def learning_rate_schedule(answer):
    """Judges `f(done, steps, warmup, peak)`: the rate of the next step when `done` of `steps` are finished; `warmup` of them warm up.

    The straight lines through (0, 0), (warmup, peak) and (steps, 0), as transformers' `linear` schedule draws them."""
    import numpy

    def curve(steps, warmup, peak, upto):
        return [number(ask(answer, done, steps, warmup, peak), "rate") for done in range(upto + 1)]

    def expected(steps, warmup, peak, upto):
        points = ([0, warmup, steps], [0.0, peak, 0.0]) if warmup else ([0, steps], [peak, 0.0])
        return numpy.interp(range(upto + 1), *points)

    ordinary = (20, 4, 2e-4)
    found, right = curve(*ordinary, 20), expected(*ordinary, 20)
    if not numpy.allclose(found, right, rtol=1e-6, atol=1e-12):
        raise Almost(_why_another_schedule(found, *ordinary))
    try:
        without = curve(10, 0, 1e-3, 10)
    except Almost as almost:
        raise Almost(f"Without warm-up (warmup = 0): {almost}") from almost
    if not numpy.allclose(without, expected(10, 0, 1e-3, 10), rtol=1e-6, atol=1e-12):
        raise Almost(f"Without warm-up (warmup = 0) the first step has the full rate; these begin with {without[0]:g}, {without[1]:g}.")
    later = curve(7, 3, 1.0, 9)
    if min(later) < 0:
        raise Almost("After the last step the rate falls below 0: the model would unlearn.")
    if not numpy.allclose(later, expected(7, 3, 1.0, 9), rtol=1e-6, atol=1e-12):
        raise Almost(f"For 7 steps, 3 of them warm-up, and a peak of 1, the rates are {', '.join(f'{rate:.3g}' for rate in later)}.")
    return "It is the schedule of transformers, called linear."


def _why_another_schedule(found: list[float], steps: int, warmup: int, peak: float) -> str:
    import numpy

    done = numpy.arange(steps + 1)
    rising, falling = done / warmup, (steps - done) / (steps - warmup)
    right = numpy.where(done < warmup, rising, falling)
    cosine = numpy.where(done < warmup, rising, (1 + numpy.cos(numpy.pi * (done - warmup) / (steps - warmup))) / 2)
    for wrong, why in (
        (numpy.ones(steps + 1), "The rate is the same at every step: warm-up and decay are missing."),
        ((steps - done) / steps, "There is no warm-up: it falls from the first step."),
        (numpy.minimum(falling, 1), "There is no warm-up: the first steps have the full rate."),
        (numpy.minimum(rising, 1), "There is no decay: after warm-up the rate stays at the peak."),
        (
            numpy.where(done < warmup, rising, (steps - done) / steps),
            "It drops where warm-up ends: the decay counts from the first step.",
        ),
        (numpy.where(done < warmup, 1 - rising, falling), "Warm-up goes down instead of up."),
        (cosine, "This decay is a cosine. A straight line was asked for."),
    ):
        if numpy.allclose(found, peak * wrong, rtol=1e-6, atol=1e-12):
            return why
    if numpy.allclose(found, right, rtol=1e-6):
        return "This is the share of the peak; the rate itself was asked for."
    for count, what in ((1, "later"), (-1, "earlier")):
        inside = slice(1, steps)
        if numpy.allclose(found[inside], peak * right[1 + count : steps + count], rtol=1e-6, atol=1e-12):
            return f"These are the rates of one step {what}: `done` counts finished steps, so the first step has done = 0."
    wrong_at = next(i for i in range(steps + 1) if not math.isclose(found[i], peak * right[i], rel_tol=1e-6, abs_tol=1e-12))
    share = f"{found[wrong_at] / peak:.3g} of the peak"
    return f"With {steps} steps, {warmup} of them warm-up, the rate after {wrong_at} steps is {share}, and that is not right."


# --- number formats -----------------------------------------------------------------------------------------------------------


@exercise(
    NOTEBOOK,
    "explore",
    "Find the smallest learning rate that still moves a bfloat16 weight",
    hints=(
        "Try powers of ten until one moves the weight and the next does not. Then look between the two.",
        "Halving the interval between a rate that moves it and one that does not finds any number of digits.",
        "The next bfloat16 number lies 1/256 to 1/128 of the weight away, and half of that is enough to be rounded up to it.",
    ),
)
def smallest_moving_rate(answer, *, weight):
    """Judges a learning rate: added to `weight` in bfloat16 it must change it, and nine tenths of it must not."""
    import torch

    rate = number(answer, "learning rate")
    if not 0 < rate < math.inf:
        raise Almost("A learning rate is a number above 0.")

    def is_smallest(rate, weight, dtype):
        return _moves(1.02 * rate, weight, dtype) and not _moves(0.9 * rate, weight, dtype)  # torch rounds the rate too

    if is_smallest(rate, weight, torch.bfloat16):
        share = "between 1/512 and 1/256 of the weight, for every size"
        return f"About 1/{abs(weight) / rate:.0f} of the weight. The threshold lies {share}: bfloat16 has 8 significant bits."
    if is_smallest(rate, weight, torch.float32):
        raise Almost("This is the smallest rate for float32, which has 24 significant bits.")
    if is_smallest(rate, weight, torch.float16):
        raise Almost("This is the smallest rate for float16. Use bfloat16.")
    if is_smallest(rate, 1.0, torch.bfloat16):
        raise Almost(f"This is the smallest rate for a weight of 1. Smaller weights have closer neighbours, and this one is {weight:.3g}.")
    if not _moves(rate, weight, torch.bfloat16):
        raise Almost(f"{rate:.3g} is rounded away: the weight of {weight:.3g} stays where it is.")
    stored = torch.tensor(weight, dtype=torch.bfloat16)
    gap = (torch.nextafter(stored, torch.tensor(math.inf, dtype=torch.bfloat16)).float() - stored.float()).item()
    if _about(rate, gap, 0.02):
        raise Almost("This is the whole way to the next bfloat16 number. Sums are rounded to the nearest one, so less is enough.")
    raise Almost(f"{rate:.3g} moves the weight, and so does nine tenths of it: go on downwards.")


def _moves(rate: float, weight: float, dtype) -> bool:
    import torch

    stored = torch.tensor(weight, dtype=dtype)
    return ((stored.double() + rate).to(dtype) != stored).item()
