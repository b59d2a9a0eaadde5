"""The one place where a prompt is written, for training and for generation alike."""

from __future__ import annotations

from collections.abc import Sequence

from lab_utils.config import Prompt
from lab_utils.data import Example, whole_characters
from lab_utils.errors import LabError


def user_message(prompt: Prompt, document: str) -> str:
    return "\n\n".join(part for part in (prompt.instruction, document, prompt.cue) if part)


def prompt_text(tokenizer, prompt: Prompt, document: str, shots: Sequence[Example] = ()) -> str:
    """The text a model reads before it answers. `shots` are worked examples shown first (few-shot prompting).

    A chat prompt ends where the assistant's turn begins, special tokens included; a plain prompt ends with the cue.
    """
    document = defused(tokenizer, document)
    shots = [(defused(tokenizer, shot.document), defused(tokenizer, shot.summary)) for shot in shots]
    if prompt.style == "chat":
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        for shown, answer in shots:
            messages.append({"role": "user", "content": user_message(prompt, shown)})
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": user_message(prompt, document)})
        return _from_template(tokenizer, prompt, messages)
    blocks = [f"{user_message(prompt, shown)} {answer}" for shown, answer in shots]
    return "\n\n".join([*blocks, user_message(prompt, document)])


def _from_template(tokenizer, prompt: Prompt, messages: list[dict]) -> str:
    from jinja2.exceptions import TemplateError

    if tokenizer.chat_template is None:
        raise LabError("This model has no chat template: set the recipe's prompt to style: plain.")
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **prompt.template_options)
    except TemplateError as error:
        hint = "; it may take no system message: write it into 'instruction'" if prompt.system else ""
        raise LabError(f"This model's chat template refuses the prompt ({error}){hint}.") from error


def prompt_ids(tokenizer, prompt: Prompt, document: str, shots: Sequence[Example] = ()) -> list[int]:
    """Token ids of the prompt, with exactly one BOS where the model has one.

    Most chat templates write it themselves, so the tokenizer must not add a second one; TinyLlama's does not, and gets it here.
    """
    ids = tokenizer(prompt_text(tokenizer, prompt, document, shots), add_special_tokens=prompt.style == "plain")["input_ids"]
    bos = tokenizer.bos_token_id
    wants_bos = bos is not None and tokenizer("")["input_ids"][:1] == [bos]
    return [bos, *ids] if wants_bos and ids[:1] != [bos] else ids


def answer_ids(tokenizer, prompt: Prompt, summary: str) -> list[int]:
    """Token ids of the answer, EOS last: a model that never sees EOS never learns to stop."""
    summary = defused(tokenizer, summary.strip())
    text = summary if prompt.style == "chat" else f" {summary}"
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def defused(tokenizer, text: str) -> str:
    """The text with special tokens that are spelled out in it broken up, so that data cannot end a turn or an answer.

    T5's tokenizer first writes full-width letters as plain ones and then finds `</s>` among its pieces: where that happens, the text is
    taken as the tokenizer writes it.
    """
    text = _broken_up(tokenizer, whole_characters(text))
    normalizer = tokenizer.backend_tokenizer.normalizer
    written = text if normalizer is None else normalizer.normalize_str(text)
    return _broken_up(tokenizer, written) if any(token in written for token in tokenizer.all_special_tokens) else text


def _broken_up(tokenizer, text: str) -> str:
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def cut_document(tokenizer, document: str, limit: int) -> tuple[str, bool]:
    """The document's text up to its `limit`-th token, and whether anything was cut.

    Tokens are counted as a prompt holds them: a special token that is spelled out in a document is one token in it, and several there.
    """
    document = defused(tokenizer, document)
    encoded = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)
    if len(encoded["input_ids"]) <= limit:
        return document, False
    spans = encoded["offset_mapping"]
    return document[: min(spans[limit - 1][1], spans[limit][0])], True  # a character of several tokens goes as a whole
