"""Shrunken models: architecture, tokenizer, special tokens and chat format of the recipes' models, in less than 100,000 random weights.

The hub is out of a test's reach. What a recipe can get wrong about a model, such as module names, a doubled BOS, a missing pad
token or a template that refuses a system message, it gets wrong about the shrunken one too. Shapes follow the published
configurations: tied or untied embeddings, grouped heads, a head width that is not hidden / heads, an embedding that is longer than
the tokenizer, the number format of the checkpoint. The vocabulary comes from the packaged dialogues.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from functools import cache
from pathlib import Path

from lab_utils import environment, tiny
from lab_utils.data import EVERYDAY, Example, read_jsonl

KINDS = ("flan-t5", "phi", "tinyllama", "smollm2", "gemma", "mistral", "qwen3")
ROWS = {"train": 16, "validation": 6, "test": 6}
SENTINELS = 4  # FLAN-T5 has a hundred of them

# The documented chat formats, in templates of our own.
ZEPHYR = """\
{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ eos_token ~ '\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""
CHATML = """\
{%- for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
SMOLLM2 = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}" + CHATML
)
QWEN3 = CHATML + "{% if add_generation_prompt and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
IN_TURNS = """\
{%- for m in messages %}{% if m.role != ['user', 'assistant'][loop.index0 % 2] %}
{{- raise_exception('Only user and assistant, in turns: no ' ~ m.role ~ ' role here') }}{% endif %}{% endfor %}"""
GEMMA = (
    IN_TURNS
    + """\
{{- bos_token }}
{%- for m in messages %}
{{- '<start_of_turn>' ~ ('model' if m.role == 'assistant' else 'user') ~ '\n' ~ (m.content | trim) ~ '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
)
MISTRAL = (
    IN_TURNS
    + """\
{{- bos_token }}
{%- for m in messages %}{{ '[INST] ' ~ m.content ~ ' [/INST]' if m.role == 'user' else m.content ~ eos_token }}{% endfor %}"""
)


def build(kind: str, folder: Path) -> Path:
    """The folder, now with a random model of that kind (`model.safetensors`, configurations) and its tokenizer."""
    environment.quiet()
    import torch
    import transformers

    tokenizer = _TOKENIZERS[kind]()
    architecture, number_format, shape, generation = _model(kind, tokenizer)
    architecture = getattr(transformers, architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KINDS.index(kind))
        model = architecture(architecture.config_class(**shape))
        if kind == "flan-t5":  # transformers ties every new T5; published checkpoints of FLAN-T5 hold an output layer of their own
            model.lm_head.weight = torch.nn.Parameter(0.4 * torch.randn(shape["vocab_size"], shape["d_model"]))
        if kind == "smollm2":  # pads with its EOS, and the row of a new pad token is zero: with tied weights it could never win
            torch.nn.init.normal_(model.get_input_embeddings().weight[tokenizer.eos_token_id], std=0.1)
    model.generation_config = transformers.GenerationConfig(**generation)
    model.to(getattr(torch, number_format)).save_pretrained(folder)
    if kind == "flan-t5":  # and their configuration says so
        path = folder / "config.json"
        values = json.loads(path.read_text(encoding="utf-8")) | {"tie_word_embeddings": False}
        del values["scale_decoder_outputs"]
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    return folder


def dialogues(folder: Path) -> Path:
    """The folder, now with packaged dialogues in the layout of DialogSum's authors: JSON lines, three summaries a test dialogue."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, examples in _examples().items():
        rows = [{"fname": f"{split}_{i}", "dialogue": e.document} | _dialogue_columns(split, e) for i, e in enumerate(examples)]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def articles(folder: Path) -> Path:
    """The folder, now with the same texts in CNN/DailyMail's columns, as CSV: fields of several lines, one highlight a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, examples in _examples().items():
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "article", "highlights"])
            for e in examples:
                writer.writerow([hashlib.sha1(e.document.encode()).hexdigest(), e.document, re.sub(r"(?<=[.!?]) ", "\n", e.summary)])
    return folder


def _examples() -> dict[str, list[Example]]:
    return {split: read_jsonl(EVERYDAY / f"{split}.jsonl")[:count] for split, count in ROWS.items()}


def _dialogue_columns(split: str, example: Example) -> dict[str, str]:
    if split != "test":
        return {"summary": example.summary, "topic": example.topic}
    numbered = enumerate(example.references, 1)
    return {f"{column}{n}": text for n, summary in numbered for column, text in (("summary", summary), ("topic", example.topic))}


# --- models -----------------------------------------------------------------------------------------------------------


def _model(kind: str, tokenizer) -> tuple[str, str, dict, dict]:
    """Architecture, number format of the checkpoint, configuration, generation configuration."""
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    words = len(tokenizer)
    rounded = -(-words // 64) * 64 + 64  # some embeddings have rows that no token uses
    decoder = {
        "vocab_size": words, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 2048, "bos_token_id": bos, "eos_token_id": eos, "initializer_range": 0.1,
    }  # fmt: skip
    ends = {"bos_token_id": bos, "eos_token_id": eos}
    if kind == "flan-t5":
        shape = {
            "vocab_size": rounded, "d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.1,
            "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": pad, "pad_token_id": pad,
            "eos_token_id": eos, "initializer_factor": 0.4,
        }  # fmt: skip
        ends = {"decoder_start_token_id": pad, "eos_token_id": eos, "pad_token_id": pad}
        return "T5ForConditionalGeneration", "float32", shape, ends
    if kind == "phi":
        own = {
            "vocab_size": rounded,
            "hidden_act": "gelu_new",
            "partial_rotary_factor": 0.5,
            "resid_pdrop": 0.1,
            "tie_word_embeddings": False,
        }
        return "PhiForCausalLM", "float16", decoder | own, ends
    if kind == "tinyllama":
        own = {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
        return "LlamaForCausalLM", "bfloat16", decoder | own, ends | {"pad_token_id": 0, "max_length": 2048}
    if kind == "smollm2":
        own = {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "pad_token_id": pad}
        return "LlamaForCausalLM", "bfloat16", decoder | own, ends | {"pad_token_id": pad}
    if kind == "gemma":  # head_dim is not hidden_size / heads
        own = {"num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True, "pad_token_id": pad}
        return "GemmaForCausalLM", "bfloat16", decoder | own, ends | {"pad_token_id": pad}
    if kind == "mistral":
        own = {"num_key_value_heads": 2, "sliding_window": None, "tie_word_embeddings": False}
        return "MistralForCausalLM", "bfloat16", decoder | own, ends
    own = {"vocab_size": rounded, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True, "bos_token_id": pad}
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    return "Qwen3ForCausalLM", "bfloat16", decoder | own, {"bos_token_id": pad, "eos_token_id": [eos, pad], "pad_token_id": pad} | sampling


# --- tokenizers -------------------------------------------------------------------------------------------------------


def _flan_t5():
    """Whole words from scored pieces, line breaks read as spaces, `</s>` after every text, no BOS."""
    from transformers import T5Tokenizer

    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(SENTINELS))]
    return T5Tokenizer(vocab=[*_unigram_pieces(), *sentinels], extra_ids=SENTINELS, model_max_length=512)


def _phi():
    """Bytes; one token is end and, by name, beginning, but nothing adds it; no pad token and no chat format."""
    from transformers import CodeGenTokenizer

    tokens, merges = _byte_pieces()
    return CodeGenTokenizer(vocab=_numbered([*tokens, "<|endoftext|>"]), merges=merges, model_max_length=2048)


def _tinyllama():
    """`▁` for spaces, bytes for unknown letters, `<s>` before every text; padded with `</s>`; a template that writes no `<s>`."""
    from transformers import LlamaTokenizer

    tokens, merges = _metaspace_pieces()
    vocabulary = _numbered(["<unk>", "<s>", "</s>", *tokens])
    special = {"add_bos_token": True, "pad_token": "</s>", "padding_side": "right", "model_max_length": 2048}
    return _with_template(LlamaTokenizer(vocab=vocabulary, merges=merges, **special), ZEPHYR)


def _smollm2():
    from transformers import GPT2Tokenizer

    tokens, merges = _byte_pieces()
    vocabulary = _numbered(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *tokens])
    special = {"unk_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return _with_template(GPT2Tokenizer(vocab=vocabulary, merges=merges, **special, model_max_length=8192), SMOLLM2)


def _gemma():
    """A turn ends with `<end_of_turn>`, a text with `<eos>`; `<bos>` before every text and in the template."""
    from transformers import GemmaTokenizer

    tokens, merges = _metaspace_pieces()
    turns = ["<start_of_turn>", "<end_of_turn>"]
    vocabulary = _numbered(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *turns, "\n", *tokens])
    special = {"add_bos_token": True, "extra_special_tokens": turns}
    return _with_template(GemmaTokenizer(vocab=vocabulary, merges=merges, **special), GEMMA)


def _mistral():
    """The published file keeps `▁` in a normalizer; transformers loads it as it stands, without a class of the model's own."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens, merges = _metaspace_pieces()
    core = Tokenizer(models.BPE(_numbered(["<unk>", "<s>", "</s>", *tokens]), merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _with_template(PreTrainedTokenizerFast(tokenizer_object=core, **special), MISTRAL)


def _qwen3():
    """No BOS at all; `<think>` and `</think>` are tokens, but not special ones."""
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    tokens, merges = _byte_pieces()
    vocabulary = _numbered([*tokens, "<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "extra_special_tokens": ["<|im_start|>"]}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, unk_token=None, model_max_length=131072, **special)
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in ("<think>", "</think>")])
    return _with_template(tokenizer, QWEN3)


_TOKENIZERS = {
    "flan-t5": _flan_t5,
    "phi": _phi,
    "tinyllama": _tinyllama,
    "smollm2": _smollm2,
    "gemma": _gemma,
    "mistral": _mistral,
    "qwen3": _qwen3,
}


def _with_template(tokenizer, template: str):
    tokenizer.chat_template = template
    return tokenizer


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


def _texts() -> list[str]:
    return [text for e in read_jsonl(EVERYDAY / "train.jsonl") for text in (e.document, e.summary)]


@cache
def _byte_pieces() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens in order and merges of the lab's own tiny tokenizer, its special tokens left out."""
    tokenizer = tiny._tokenizer("causal")
    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(core["vocab"].keys() - set(tokenizer.all_special_tokens), key=core["vocab"].get)
    return tokens, [tuple(merge) for merge in core["merges"]]


@cache
def _metaspace_pieces() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges in the manner of SentencePiece: `▁` opens a word, rare letters and line breaks are bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Metaspace()])
    core.train_from_iterator(_texts(), trainers.BpeTrainer(vocab_size=tiny.VOCABULARY - 256, limit_alphabet=64, show_progress=False))
    learnt = json.loads(core.to_str())["model"]
    return [*(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]], [tuple(merge) for merge in learnt["merges"]]


@cache
def _unigram_pieces() -> tuple[tuple[str, float], ...]:
    """Pieces with their log probabilities; the special tokens first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(
        vocab_size=tiny.VOCABULARY, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    core.train_from_iterator(_texts(), trainer)
    return tuple((piece, score) for piece, score in json.loads(core.to_str())["model"]["vocab"])
