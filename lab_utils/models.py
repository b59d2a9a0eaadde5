"""Loading, quantizing, counting and fingerprinting models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils import environment, pretrained, processes, scrubbing
from lab_utils.batching import Collator, Encoder
from lab_utils.config import Settings
from lab_utils.errors import LabError
from lab_utils.integrity import checkpoint_fingerprint
from lab_utils.progress import waiting


@dataclass
class Base:
    """A pretrained model, ready for one method, with what belongs to it."""

    model: Any
    tokenizer: Any
    settings: Settings
    precision: environment.Precision
    checkpoint: str  # fingerprint of the weights as they lie on disk: the same for every quantization
    parameters: int
    stops: tuple[int, ...] = ()  # token ids that end an answer: EOS, and the turn ends that the checkpoint itself names
    pissa_start: Any = None  # temporary folder with the first A and B, which a saved PiSSA adapter must be told apart from

    @property
    def family(self) -> str:
        return self.settings.recipe.model.family

    @property
    def encoder(self) -> Encoder:
        recipe = self.settings.recipe
        return Encoder(self.tokenizer, recipe.model.family, recipe.prompt, recipe.lengths)

    @property
    def collator(self) -> Collator:
        start = self.model.config.decoder_start_token_id if self.family == "seq2seq" else None
        return Collator(self.tokenizer.pad_token_id, start)

    def describe(self) -> dict:
        spec = self.settings.recipe.model
        source = "local folder" if Path(spec.source).is_dir() else "local file" if Path(spec.source).is_file() else spec.source
        return {"name": spec.label, "source": source, "fingerprint": self.checkpoint, "parameters": self.parameters}


def load(settings: Settings, quantization: str | None = None) -> Base:
    """The recipe's base model and tokenizer, on this machine's device.

    A model that will be trained in full has float32 weights; a frozen one is stored in the precision of the matrix products.

    Args:
        quantization: `none`, `int8` or `nf4`; by default what the settings say.
    """
    environment.quiet()
    environment.keep_large_blocks()
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

    machine, spec = environment.machine(), settings.recipe.model
    precision = environment.precision(spec.family, spec.precision)
    quantization = settings.quantization if quantization is None else quantization
    dtype = torch.float32 if settings.method == "full" else precision.dtype
    auto = AutoModelForCausalLM if spec.family == "causal" else AutoModelForSeq2SeqLM
    device = processes.local_index() if machine.device == "cuda" and processes.count() > 1 else machine.device
    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}  # unless told, transformers asks the reader
    if not processes.sharded():  # else no device holds it as a whole
        options["device_map"] = {"": device}
    elif quantization != "none" or spec.family == "seq2seq":
        what = "an encoder-decoder, whose halves share their embeddings," if quantization == "none" else f"a base stored as {quantization}"
        raise LabError(f"FSDP cannot split {what} here: launch without FSDP, where each process holds all of it.")
    if quantization != "none":
        options["quantization_config"] = quantization_config(quantization, precision)
    with processes.first_on_each_node():
        folder = pretrained.checkpoint_folder(spec)
    try:
        checkpoint = checkpoint_fingerprint(Path(folder))
        with waiting(f"Loading {spec.label}"):
            model, loaded = auto.from_pretrained(folder, output_loading_info=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # transformers and tokenizers raise many kinds for damaged files, a bare Exception among them
        raise LabError(
            f"The model '{spec.source}' could not be loaded ({scrubbing.reason(error)}): check that it is a {spec.family} model, "
            "and its files."
        ) from error
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise LabError(
            f"The model '{spec.source}' lacks {len(missing)} of its weights, such as {missing[0]}, and they would be random ones: "
            "get its files again."
        )
    if quantization != "none":
        _refuse_4bit_rows_that_end_within_a_block(model)
        _keep_gradients_through_4bit_layers(model)
        _keep_t5_output_projections_exact(model)
    named = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig()  # a checkpoint's own sampling or penalties would slip into our decoding
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    model.requires_grad_(settings.method == "full")
    stops = _stops(tokenizer, named)
    return Base(model, tokenizer, settings, precision, checkpoint, _count_of_base(model), stops)


def _stops(tokenizer, named: int | list[int] | None) -> tuple[int, ...]:
    """EOS first, then what else the checkpoint stops at, pad left out: with pad among them, answers can come out empty."""
    more = named if isinstance(named, list) else [] if named is None else [named]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *(i for i in more if i != tokenizer.pad_token_id)]))


def quantization_config(quantization: str, precision: environment.Precision):
    """bitsandbytes settings: NF4 with double quantization as in QLoRA (Dettmers et al. 2023), or LLM.int8() (Dettmers et al. 2022).

    Raises:
        LabError: bitsandbytes does not work on this platform.
    """
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise LabError(
            f"quantization={quantization} needs bitsandbytes, which does not work here ({str(error).splitlines()[0]}): "
            "choose a method without quantization, such as lora with quantization=none, or another machine."
        ) from error
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=precision.dtype
    )


def _refuse_4bit_rows_that_end_within_a_block(model) -> None:
    """NF4 has one scale for every 64 weights in memory order. Where a row of weights ends within such a block, bitsandbytes' CPU kernel
    can take a neighbour's scale, silently: errors of 60% to 98% on rows of unlike size (`tests/test_models.py`)."""
    import bitsandbytes as bnb

    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit) and module.weight.device.type == "cpu" and module.in_features % 64:
            raise LabError(
                f"On a CPU bitsandbytes unpacks 4-bit layers wrongly whose inputs are no multiple of 64 ({name} has {module.in_features}): "
                "choose quantization=int8 or none, a GPU, or another model."
            )


def _keep_gradients_through_4bit_layers(model) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first evaluation pass, into a form that has no backward:
    training would go on with wrong gradients and one warning. The flag keeps the form that has one."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _keep_t5_output_projections_exact(model) -> None:
    """T5's feed-forward output projection `wo` overflows in float16. transformers never quantizes it; here it is float32 as well."""
    if model.config.model_type == "t5":
        for name, module in model.named_modules():
            if name.endswith(".wo"):
                module.float()


def trainable_parameters(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _count_of_base(model) -> int:
    """Number of weights, tied ones once, 4-bit ones unpacked (two lie in each stored byte)."""
    return sum(p.numel() * (2 if type(p).__name__ == "Params4bit" else 1) for p in model.parameters())


def fingerprint(model) -> str:
    """Hash of the base weights in memory, adapters left out: the same before and after anything that must not touch the base."""
    return weights_hash((_base_name(name), p) for name, p in model.named_parameters() if "lora_" not in name)


def weights_hash(named: Iterable[tuple[str, Any]]) -> str:
    """First 16 hex digits of SHA-256 over names and bytes of these weights, in the order of their names."""
    import torch

    digest = hashlib.sha256()
    for name, weight in sorted(named, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(whole(weight.detach()).cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def whole(weight):
    """A weight as one tensor, also where FSDP split it over the processes, which must then all ask for it."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def _base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
