"""LoRA adapters on a base: attached, saved with the name of their base, loaded onto that base only."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lab_utils import architectures, files, layers, scrubbing
from lab_utils.config import Adapter
from lab_utils.errors import LabError
from lab_utils.fields import changed
from lab_utils.models import Base

ADAPTER_FILE, BASE_FILE = "adapter_model.safetensors", "base.json"  # the latter says which base an adapter belongs to


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
        except OSError as error:
            raise LabError(
                f"The first values of PiSSA cannot be written to the system's temporary folder ({error.strerror or error}): "
                "free some space there, set TMPDIR to another folder, or leave pissa out."
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
