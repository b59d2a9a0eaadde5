"""Random models of a few thousand parameters, with a tokenizer trained on the packaged dialogues: for tests and demonstrations."""

from __future__ import annotations

from pathlib import Path

FAMILIES = ("causal", "seq2seq")
VOCABULARY = 600
VERSION = 2  # of what is built: another one is built anew in the cache
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def build(family: str, folder: Path) -> None:
    """Saves a random model of that family (`causal`: Llama, `seq2seq`: T5) with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

    tokenizer = _tokenizer(family)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "causal":
            config = LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id, **ids,
            )  # fmt: skip
            model = LlamaForCausalLM(config)
        else:
            config = T5Config(
                vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
                decoder_start_token_id=tokenizer.pad_token_id, dropout_rate=0.0, initializer_factor=0.4, **ids,
            )  # fmt: skip
            model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(family: str):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from lab_utils.data import EVERYDAY, read_jsonl

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = [text for e in read_jsonl(EVERYDAY / "train.jsonl") for text in (e.document, e.summary)]
    core.train_from_iterator(texts, trainer)
    if family == "seq2seq":  # T5's encoder input ends in EOS and has no BOS
        core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", core.token_to_id("</s>"))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>" if family == "causal" else None
    )
    tokenizer.model_max_length = 1024
    if family == "causal":
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
