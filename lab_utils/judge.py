"""A model as judge, pair by pair: an option to compare with people, never a stand-in for them.

Judging models prefer what they read first or last, what is long, and what they wrote themselves (Zheng et al. 2023, arXiv 2306.05685).
Against the first, each pair is shown in both orders and only a choice that survives counts; against the others there is no such cure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lab_utils import blind, config, environment, fields, models, runs
from lab_utils.blind import Task
from lab_utils.generation import evaluation_mode
from lab_utils.models import Base
from lab_utils.progress import through
from lab_utils.prompts import answer_ids, cut_document, prompt_ids
from lab_utils.sheets import TIE, printable

INSTRUCTION = (
    "Below are a text and two summaries of it, A and B. Which summary is better: true to the text, complete, and short? "
    "Answer with one letter, A or B."
)
Leaning = Callable[[str, str, str], float]


def run(run_dir: str | Path, documents: Mapping[str, str] | None, recipe: str, count: int = 20, seed: int = 0) -> None:
    """Lets the untrained model of a recipe choose in the pairs that people of this seed are shown, and keeps its choices as rater
    `model-<recipe>`.

    Raises:
        LabError: no such recipe or model, or nothing to judge.
    """
    settings = config.resolve(recipe, "zero_shot")
    finished = runs.read_all(run_dir)
    session = blind.start(run_dir, finished, documents, settings.recipe.name, count, seed, judge=True)
    todo = [task for task in session.tasks if task.identity not in session.answered]
    if not todo:
        environment.say(
            f"All {len(session.tasks)} pairs are judged." if session.tasks else "There are no two methods' summaries to choose from."
        )
        return
    base = models.load(settings)
    if any(run.record["model"]["fingerprint"] == base.checkpoint for run in finished):
        environment.say("This judge is the base of the models it judges: expect it to like what sounds like itself.")
    lean = leaning(base.model, base)
    for _ in through(todo, "pairs"):
        session.save(preferred=choose(session.task, lean))
    environment.say(f"{session.rater}: {len(todo)} pairs judged in both orders, in ratings/{session.path.name}.")


def choose(pair: Task, lean: Leaning) -> str:
    """`A` or `B` where both orders agree, else `tie`: the choice went with the order and not with the summary.

    Args:
        lean: how much the judge leans to the first of two summaries of a document; below zero to the second.
    """
    forward, backward = lean(pair.document, pair.summary, pair.other_summary), lean(pair.document, pair.other_summary, pair.summary)
    if forward > 0 > backward:
        return "A"
    return "B" if forward < 0 < backward else TIE


def leaning(model, base: Base) -> Leaning:
    """Log-probability of the answer "A" less that of "B", in nats, after a prompt built as for generation.

    The document is cut to the recipe's limit, the summaries to its limit for answers, so that the question always stands whole.
    """
    import torch

    recipe, tokenizer = base.settings.recipe, base.tokenizer
    prompt = fields.changed(recipe.prompt, instruction=INSTRUCTION, cue="The better summary is" if recipe.prompt.style == "plain" else "")
    letters = [answer_ids(tokenizer, prompt, letter)[:-1] for letter in "AB"]  # without EOS

    def lean(document: str, first: str, second: str) -> float:
        limits = (recipe.lengths.document_tokens, *[recipe.lengths.summary_tokens] * 2)
        shown = zip((document, first, second), limits, strict=True)
        document, first, second = (cut_document(tokenizer, printable(text), limit)[0] for text, limit in shown)
        question = prompt_ids(tokenizer, prompt, f"Text:\n{document}\n\nSummary A:\n{first}\n\nSummary B:\n{second}")
        with torch.no_grad(), evaluation_mode(model), base.precision.autocast(model.device.type):
            a, b = (_log_probability(model, base, question, letter) for letter in letters)
        return a - b

    return lean


def _log_probability(model, base: Base, question: list[int], answer: list[int]) -> float:
    """Of these answer tokens after the question, in nats."""
    import torch

    def tensor(ids):
        return torch.tensor([ids], device=model.device)

    if base.family == "causal":
        logits = model(input_ids=tensor(question + answer)).logits[0, len(question) - 1 : -1]
    else:
        started = [model.config.decoder_start_token_id, *answer[:-1]]
        logits = model(input_ids=tensor(question), decoder_input_ids=tensor(started)).logits[0]
    chosen = torch.tensor(answer, device=logits.device)
    return logits.float().log_softmax(-1).gather(1, chosen[:, None]).sum().item()
