"""BERTScore (Zhang et al. 2020) over any text encoder on this machine or the hub: summaries matched token by token, by meaning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lab_utils import environment, scrubbing
from lab_utils.batching import pad_right
from lab_utils.companions import Scored
from lab_utils.errors import LabError
from lab_utils.progress import through

MOST_TOKENS = 512


def score(predictions: Sequence[Scored], encoder: str, layer: int | None = None, batch_size: int = 32) -> list[float]:
    """BERTScore F1 of each document with the reference that suits it best, as the paper does: 1 for the same text, 0 for an empty one.

    Scores are not rescaled by a baseline and no token weighs more than another (no idf), so unrelated texts score far above 0: compare
    systems under one encoder and layer, never across encoders. Texts are cut at 512 tokens, or at what the encoder can read; its own
    marks ([CLS], [SEP], </s>) take no part.

    Args:
        encoder: folder or hub id of a text encoder (BERT, RoBERTa, DeBERTa, DistilBERT, ...); of T5 the encoder is used.
        layer: whose vectors are compared, 0 (embeddings) to the number of layers; the last by default. Middle layers agree better with
            people (the paper's appendix): 9 of 12 in bert-base, 17 of 24 in roberta-large.

    Raises:
        LabError: no such encoder, a model that is none, or a layer that it has not.
    """
    tokenizer, model = _load(encoder)
    layers = model.config.num_hidden_layers
    if layer is not None and not 0 <= layer <= layers:
        raise LabError(f"The encoder '{encoder}' has no layer {layer}: give 0 to {layers}, or none for the last.")
    found = []
    for start in through(range(0, len(predictions), batch_size), "batches of summaries compared"):
        chosen = predictions[start : start + batch_size]
        texts = list(dict.fromkeys(text for item in chosen for text in (item.prediction, *item.references)))
        vectors = dict(zip(texts, _vectors(tokenizer, model, texts, layer, batch_size), strict=True))
        for item in chosen:
            found.append(max(greedy_match(vectors[item.prediction], vectors[reference])[2] for reference in item.references))
    return found


def greedy_match(candidate: Any, reference: Any) -> tuple[float, float, float]:
    """Precision, recall and F1 of two lists of token vectors, equations 1 to 3 of the paper.

    Each candidate token counts with its cosine to the nearest reference token (precision) and each reference token with that to the
    nearest candidate token (recall). All are 0 where one side has no token.

    Args:
        candidate, reference: arrays or tensors of shape (tokens, dimensions), of any length.
    """
    import torch
    from torch.nn.functional import normalize

    candidate, reference = (torch.as_tensor(vectors, dtype=torch.float32) for vectors in (candidate, reference))
    if not len(candidate) or not len(reference):
        return 0.0, 0.0, 0.0
    cosines = normalize(candidate, dim=-1) @ normalize(reference, dim=-1).T
    precision, recall = cosines.amax(dim=1).mean().item(), cosines.amax(dim=0).mean().item()
    return precision, recall, 2 * precision * recall / (precision + recall) if precision > 0 and recall > 0 else 0.0


def _vectors(tokenizer, model, texts: Sequence[str], layer: int | None, batch_size: int) -> list[Any]:
    """One tensor (tokens, dimensions) for each text, in order; batches hold texts of similar length."""
    import torch

    limit = _limit(tokenizer, model)
    written = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # tokenizers refuse lone surrogates
    rows = [tokenizer(text, truncation=True, max_length=limit, return_special_tokens_mask=True) for text in written]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    found: dict[int, Any] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        ids = [rows[i]["input_ids"] or [pad] for i in chosen]  # a tokenizer without marks makes nothing of an empty text
        mask = [[1] * len(row) for row in ids]
        with torch.inference_mode():
            output = model(
                input_ids=torch.tensor(pad_right(ids, pad), device=model.device),
                attention_mask=torch.tensor(pad_right(mask, 0), device=model.device),
                output_hidden_states=layer is not None,
            )
        states = output.last_hidden_state if layer is None else output.hidden_states[layer]
        for i, vectors in zip(chosen, states.float().cpu(), strict=True):
            kept = [position for position, special in enumerate(rows[i]["special_tokens_mask"]) if not special]
            found[i] = vectors[kept]
    return [found[i] for i in range(len(rows))]


def _limit(tokenizer, model) -> int:
    """Most tokens of a text: 512, the tokenizer's own limit, or the number of positions that the encoder has left after its padding."""
    positions = getattr(model.config, "max_position_embeddings", None) or MOST_TOKENS
    padding = getattr(getattr(getattr(model, "embeddings", None), "position_embeddings", None), "padding_idx", None)
    return min(MOST_TOKENS, tokenizer.model_max_length, positions - (0 if padding is None else padding + 1))


@lru_cache(maxsize=1)  # four methods are scored one after the other
def _load(encoder: str) -> tuple[Any, Any]:
    """Tokenizer and encoder in float32, ready to compute on this machine's device. Pickled weights are never loaded."""
    environment.quiet()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    options = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    named = scrubbing.text(f"'{encoder}'")
    try:
        config = AutoConfig.from_pretrained(encoder, trust_remote_code=False)
        kind = config.model_type
        if kind in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
            auto = AutoModelForTextEncoding
        elif kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder:
            auto = AutoModel
        else:
            raise LabError(f"The model {named} ({kind}) is no text encoder: give one such as BERT, RoBERTa, DeBERTa or T5.")
        model, loaded = auto.from_pretrained(encoder, **options)
        tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise LabError(
            f"The encoder {named} could not be loaded ({scrubbing.reason(error)}): give the folder of a text encoder with "
            "safetensors weights, or a hub id while the hub can be reached."
        ) from error
    if missing := sorted(name for name in loaded["missing_keys"] if "pooler" not in name):  # the pooler is not used
        raise LabError(
            f"The encoder {named} lacks {len(missing)} of its weights, such as {missing[0]}, and they would be "
            "random ones: get its files again."
        )
    return tokenizer, model.eval().requires_grad_(False).to(environment.machine().device)
