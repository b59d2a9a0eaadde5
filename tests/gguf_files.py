"""Writes a small Llama with its byte-level tokenizer as a GGUF file, laid out as llama.cpp lays out one of its size."""

import json
from pathlib import Path

TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMAL, CONTROL = 1, 3  # kinds of tokens


def write(folder: Path, path: Path, architecture: str = "llama") -> Path:
    """The checkpoint in `folder` (safetensors) as the float32 GGUF file `path`, under an architecture's name."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, folder, config)
    for name, weight in load_file(folder / "model.safetensors").items():
        if name in TOP:
            writer.add_tensor(TOP[name], weight)
            continue
        layer, _, part = name.removeprefix("model.layers.").removesuffix(".weight").partition(".")
        if LAYER[part] in ("attn_q", "attn_k"):
            weight = _interleaved(weight, heads if LAYER[part] == "attn_q" else groups)
        writer.add_tensor(f"blk.{layer}.{LAYER[part]}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _interleaved(weight, heads: int):
    """Rotary halves of each head side by side, as GGUF keeps a Llama's queries and keys."""
    import numpy

    return numpy.ascontiguousarray(weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape))


def _add_tokenizer(writer, folder: Path, config: dict) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())
    special = {token["id"] for token in described["added_tokens"]}
    tokens = sorted(described["model"]["vocab"].items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([CONTROL if number in special else NORMAL for _, number in tokens])
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_unk_token_id(described["model"]["vocab"]["<unk>"])
    writer.add_pad_token_id(config["eos_token_id"])  # as published files have it
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
