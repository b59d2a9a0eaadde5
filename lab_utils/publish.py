"""A trained adapter or model on the hub: its card, the folder that goes there, and the upload."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab_utils import __version__, environment, models
from lab_utils.cache import WRITE_ERRORS
from lab_utils.config import Settings
from lab_utils.errors import LabError, without_folders
from lab_utils.runs import Finished, write_text

HUB = "https://huggingface.co"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "base.json", "config.json", "generation_config.json")
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab.*", "merges.txt", "*.model")
SCORES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
METHODS = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}


@dataclass(frozen=True)
class Terms:
    """A licence of data. `identifier` is the hub's word for it."""

    name: str
    identifier: str = ""


PACKAGED = Terms("CC BY 4.0", "cc-by-4.0")
ON_HUB = {
    "knkarthick/dialogsum": Terms("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
    "knkarthick/samsum": Terms("CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0"),
    "abisee/cnn_dailymail": Terms("Apache-2.0, as the data's page says", "apache-2.0"),
}


# --- the card ---------------------------------------------------------------------------------------------------------


def card(finished: Finished, merged: bool = False, to: str | None = None) -> str:
    """A model card (YAML metadata and Markdown) from the run's record alone: nothing in it is measured or guessed anew.

    Words of the recipe are escaped for HTML and Markdown, and absolute paths are cut to their last part.

    Args:
        merged: the adapter was merged into its base, which changes what the card must say about scores and loading.
        to: the name on the hub, for the code that loads it.

    Raises:
        LabError: nothing was trained in this run.
    """
    from huggingface_hub import ModelCard

    _trained(finished)
    record, merged = finished.record, merged and finished.method != "full"
    whole = merged or finished.method == "full"
    parts = [
        f"# {_words(record['model']['name'])}, {METHODS[finished.method]}, {_words(record['data']['name'])}",
        _introduction(record, merged),
        "## How to load it",
        f"```python\n{_code(record, whole, to or 'owner/name')}\n```",
        "## Scores",
        *_scores(record, merged),
        "## Decoding and prompt",
        *_decoding(record),
        "## Data",
        *_data(record),
        "## Training",
        *_training(record),
        "## Limits",
        _list(_limits(record)),
        "## Software and machine",
        _software(record),
    ]
    body = "\n\n".join(parts)
    return str(ModelCard(f"---\n{_metadata(record, whole).to_yaml()}\n---\n\n{body}\n"))


def _metadata(record: dict, whole: bool):
    """What the hub sorts and links by. Scores stand here only for data of the hub, since `model-index` must name a dataset there."""
    from huggingface_hub import EvalResult, ModelCardData

    data, metrics, chosen = record["data"], record["metrics"], record["config"]["recipe"]["data"]
    dataset = _hub_id(data["name"]) if data["source"] == "hub" else None
    results = [
        EvalResult(
            task_type="summarization",
            dataset_type=dataset,
            dataset_name=f"{dataset}, {metrics['n']} documents",
            dataset_config=chosen.get("configuration"),
            dataset_split=chosen.get("test_from", "test"),
            dataset_revision=chosen.get("data_revision"),
            metric_type="rouge",
            metric_name=f"{label}, mean over references",
            metric_value=round(metrics[name]["mean"], 2),
        )
        for name, label in SCORES.items()
        if dataset
    ]
    return ModelCardData(
        library_name="transformers" if whole else "peft",
        base_model=_hub_id(record["model"]["source"]),
        datasets=[dataset] if dataset else None,
        license=_licence(data),
        pipeline_tag="summarization",
        tags=["summarization", "full-fine-tuning" if record["method"] == "full" else record["method"], "summarization-lab"],
        model_name=re.sub(r"[^\w.-]+", "-", f"{record['recipe']}-{record['method']}") if results else None,
        eval_results=results or None,
    )


def _terms(data: dict) -> Terms:
    if data["source"] == "packaged":
        return PACKAGED
    return ON_HUB.get(data["name"], Terms("see the data's page")) if data["source"] == "hub" else Terms("the licence of your own data")


def _licence(data: dict) -> str:
    """The data's licence where it forbids commercial use, since nothing weaker may then be claimed; otherwise `other`, since the base
    model's terms bind too and no record knows them."""
    return _terms(data).identifier if "-nc" in _terms(data).identifier else "other"


def _introduction(record: dict, merged: bool) -> str:
    model, method = record["model"], METHODS[record["method"]]
    trained, total, name = model["trainable_parameters"], model["parameters"], _words(model["name"])
    share = f"{trained:,} trained parameters, {trained / (total + trained):.2%} of the total"
    if record["method"] == "full":
        what = f"{name} after full fine-tuning of its {trained:,} parameters"
    else:
        what = f"{name} with a {method} adapter merged into it ({share})" if merged else f"A {method} adapter for {name} ({share})"
    return (
        f"{what}, to summarize documents like those in '{_words(record['data']['name'])}'. Made in the Summarization Fine-Tuning Lab, "
        "a course: it shows what a training method does, and nobody tested it for anything else. "
        "This card was written from the record of the run, the file `run.json` here."
    )


_WHOLE = """\
from transformers import {auto}, AutoTokenizer, GenerationConfig

NAME = {name}
model = {auto}.from_pretrained(NAME, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(NAME)
"""
_ADAPTER = """\
from peft import PeftModel
from transformers import {auto}, AutoTokenizer, {quantizer}GenerationConfig

NAME = {name}
base = {auto}.from_pretrained({base}{options})
model = PeftModel.from_pretrained(base, NAME)
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
"""
_LAB_ADAPTER = """\
import json

from huggingface_hub import hf_hub_download
from peft import PeftModel
from transformers import GenerationConfig

from lab_utils import config, models  # the Summarization Fine-Tuning Lab prepares this base model

NAME = {name}
with open(hf_hub_download(NAME, "run.json"), encoding="utf-8") as file:
    settings = config.Settings.model_validate(json.load(file)["config"])
base = models.load(settings)
model = PeftModel.from_pretrained(base.model, NAME)
tokenizer = base.tokenizer
"""
_GENERATE = """
document = "..."
inputs = {inputs}

model.eval()
{holder}.generation_config = GenerationConfig(  # instead of the base model's own
    do_sample=False,
    max_new_tokens={limit},
    eos_token_id=tokenizer.eos_token_id,
    pad_token_id=tokenizer.pad_token_id,{start}
)
output = model.generate(**inputs.to(model.device))[0]
print(tokenizer.decode(output{new}, skip_special_tokens=True))"""
_QUANTIZED = {
    "int8": "load_in_8bit=True",
    "nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="{precision}"',
}


def _code(record: dict, whole: bool, name: str) -> str:
    """Python that loads what is published and summarizes one document with this run's prompt and decoding."""
    recipe, precision = record["config"]["recipe"], record["environment"]["precision"]
    causal, source = recipe["model"]["family"] == "causal", record["model"]["source"]
    quantization = _quantization(record)
    on_hub, options = _hub_id(source), f', dtype="{precision}"'
    base = _string(on_hub or recipe["model"]["source"])
    if on_hub and recipe["model"].get("revision"):
        options = f", revision={_string(recipe['model']['revision'])}{options}"
    if quantization != "none":
        options += f", quantization_config=BitsAndBytesConfig({_QUANTIZED[quantization].format(precision=precision)})"
    by_lab = _is_prepared_by_the_lab(source)
    loading = _WHOLE if whole else _LAB_ADAPTER if by_lab else _ADAPTER
    return loading.format(
        auto="AutoModelForCausalLM" if causal else "AutoModelForSeq2SeqLM",
        name=_string(name),
        base=base,
        options=options,
        quantizer="BitsAndBytesConfig, " if quantization != "none" else "",
        tokenizer="NAME" if on_hub else base,
    ) + _GENERATE.format(
        inputs=_inputs(recipe["prompt"]),
        holder="model" if whole else "base.model" if by_lab else "base",  # peft hands generation over to the model inside
        limit=recipe["generation"]["max_new_tokens"],
        start="" if causal else "\n    decoder_start_token_id=model.config.decoder_start_token_id,",
        new='[inputs["input_ids"].shape[1] :]' if causal else "",
    )


def _inputs(prompt: dict) -> str:
    """The expression that writes this recipe's prompt around `document`."""
    before = [_string(f"{prompt['instruction']}\n\n")] if prompt["instruction"] else []
    after = [_string(f"\n\n{prompt['cue']}")] if prompt["cue"] else []
    text = " + ".join([*before, "document", *after])
    if prompt["style"] == "plain":
        return f'tokenizer({text}, return_tensors="pt")'
    message = '{{"role": "{}", "content": {}}}'.format
    messages = [message("system", _string(prompt["system"]))] if prompt.get("system") else []
    messages = "\n".join(f"        {m}," for m in [*messages, message("user", text)])
    options = "".join(f"\n    {key}={_literal(value)}," for key, value in prompt.get("template_options", {}).items())
    fixed = '\n    add_generation_prompt=True,\n    return_dict=True,\n    return_tensors="pt",'
    return f"tokenizer.apply_chat_template(\n    [\n{messages}\n    ],{fixed}{options}\n)"


def _quantization(record: dict) -> str:
    return record["config"]["recipe"][record["method"]].get("quantization", "none")


def _scores(record: dict, merged: bool) -> list[str]:
    metrics = record["metrics"]
    rows = {label: metrics[name] for name, label in SCORES.items()}
    best = {f"{label}, best reference": metrics[f"best_{name}"] for name, label in SCORES.items()}
    if list(best.values()) != list(rows.values()):  # else every document has one reference
        rows |= best
    table = [(label, f"{i['mean']:.1f}", f"{i['low']:.1f} to {i['high']:.1f}") for label, i in rows.items()]
    protocol = [f"{_words(key)}: {_words(value)}" for key, value in metrics["protocol"].items()]
    parts = [_table(("measure", "mean", "95% interval"), table), f"n = {metrics['n']} test documents. Protocol:", _list(protocol)]
    if merged:
        quantized = f" quantized to {_quantization(record)}" if _quantization(record) != "none" else ""
        parts.append(
            f"**These are the scores of the adapter on its base{quantized}, taken before the two were merged.** The merged weights are the "
            "unquantized base plus the adapter, rounded anew, so answers can differ: score them again before quoting a number for them."
        )
    return parts


def _decoding(record: dict) -> list[str]:
    recipe, generation = record["config"]["recipe"], record["generation"]
    prompt, cut = recipe["prompt"], generation.get("cut_documents")
    longer = f" ({cut} of {generation['examples']} test documents were longer)" if cut is not None else ""
    how = (
        f"Greedy, until the end token or {recipe['generation']['max_new_tokens']} new tokens; {generation['stopped_share']:.0%} of the "
        f"test answers ended by themselves. Documents were cut after {recipe['lengths']['document_tokens']} tokens{longer}."
    )
    text = "\n\n".join(part for part in (prompt["instruction"], "[document]", prompt["cue"]) if part)
    system = f"[system message] {prompt['system']}\n\n" if prompt.get("system") else ""
    style = "in the tokenizer's chat template" if prompt["style"] == "chat" else "as plain text"
    return [how, f"The prompt, {style}:", f"<pre>\n{escape(without_folders(system + text), quote=False)}\n</pre>"]


def _data(record: dict) -> list[str]:
    data, chosen = record["data"], record["config"]["recipe"]["data"]
    dataset = _hub_id(data["name"]) if data["source"] == "hub" else None
    facts = {
        "name": f"[{_words(dataset)}]({HUB}/datasets/{dataset})" if dataset else _words(data["name"]),
        "source": _words(data["source"]),
        "configuration": chosen.get("configuration"),
        "revision": chosen.get("data_revision"),
        "documents": f"{data['train']:,} for training, {data['validation']:,} for validation, {data['test']:,} for testing",
        "fingerprint of the test set": data["fingerprint"],
        "licence of the data": _terms(data).name,
    }
    notes = [_words(note) for note in data.get("notes", [])]
    if data["source"] == "packaged":
        notes.append("The packaged dialogues were written by language models: scores on them do not predict scores on people's dialogues.")
    terms = "Both the terms of the data and those of the base model bind whoever uses this model."
    return [_facts("data", facts), *([_list(notes)] if notes else []), terms]


def _training(record: dict) -> list[str]:
    model, cost, machine = record["model"], record["training"], record["environment"]
    base = _hub_id(model["source"])
    source = f"[{_words(base)}]({HUB}/{base})" if base else _words(model["source"])
    facts = {
        "base model": f"{_words(model['name'])} ({source}), {model['parameters']:,} parameters",
        "fingerprint of the base": model["fingerprint"],
        "trained parameters": f"{model['trainable_parameters']:,} ({model['checkpoint_mb']} MB)",
        "budget": f"{cost['steps']:,} steps, {cost['examples']:,} examples (repetitions counted), {cost['tokens']:,} tokens",
        "cost": f"{cost['seconds']:,} s at {cost['tokens_per_second']:,} tokens/s, peak memory {cost['peak_memory_gb']} GB",
        "training loss": f"{cost['first_loss']:.3f} at first, {cost['last_loss']:.3f} at last",
        "precision": _words(f"{machine['precision']}: {machine['precision_reason']}"),
        "seed": record["seed"],
    }
    chosen = {
        _words(name): _words(", ".join(value) if isinstance(value, list) else value)
        for name, value in record["config"]["recipe"][record["method"]].items()
    }
    return [_facts("training", facts), _facts("hyperparameter", chosen)]


def _limits(record: dict) -> list[str]:
    seen, given, n = record["training"]["examples"], record["data"]["train"], record["metrics"]["n"]
    return [
        f"Trained on few examples, {given:,} ({seen:,} seen, repetitions counted): what is rare among them was not learnt.",
        f"One run with one seed ({record['seed']}). Another seed gives other weights and scores; the intervals do not show how different.",
        f"The intervals show what other documents than these {n} would have changed; smaller differences are not detectable.",
        "ROUGE counts words shared with a reference. It does not see whether a summary is true, complete or harmless: read the answers.",
        "Nothing is known about other kinds of documents, other lengths or other languages.",
        *map(_words, record["config"]["recipe"].get("notes", [])),
    ]


def _software(record: dict) -> str:
    machine = record["environment"]
    facts = {
        "lab": f"{__version__}" + (f", commit {_words(machine['commit'])}" if machine.get("commit") else ""),
        "recipe": _words(record["recipe"]),
        "machine": _words(f"{machine['platform']}; {machine['device']}"),
        "Python": machine["python"],
        "packages": _words(", ".join(f"{package} {version}" for package, version in machine["packages"].items())),
    }
    return _facts("software", facts)


def _words(text: Any) -> str:
    """Words of a recipe or record as they may stand in a card: one line, inert as HTML and as Markdown, without absolute paths."""
    line = escape(without_folders(" ".join(str(text).split())), quote=False)
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", line)


def _string(text: str) -> str:
    """A Python string literal on one line that holds no HTML."""
    literal = json.dumps(without_folders(text))
    return literal.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _literal(value: bool | str) -> str:
    return _string(value) if isinstance(value, str) else str(value)


def _facts(title: str, facts: dict[str, Any]) -> str:
    return _table((title, ""), [(name, str(value)) for name, value in facts.items() if value not in (None, "None")])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ("---",) * len(head), *rows])


def _list(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _hub_id(source: str) -> str | None:
    """The source if it is "owner/name", a name on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(source)
    except HFValidationError:
        return None
    return source if source.count("/") == 1 and not source.endswith(".gguf") else None


def _is_prepared_by_the_lab(source: str) -> bool:
    """True for packaged and random models and for a GGUF file on the hub (owner/name/file.gguf)."""
    return source.startswith(("package:", "random:")) or (source.endswith(".gguf") and source.count("/") > 1 and source[0] not in "./")


# --- the folder -------------------------------------------------------------------------------------------------------


def prepare(finished: Finished, merged: bool = False, to: str | None = None) -> Path:
    """The folder `<run>/<method>/hub` with the files to publish and no others: weights, configuration, tokenizer, card and record.

    Predictions stay at home: they stand beside references, which many datasets do not allow to be passed on.

    Args:
        merged: publish the base with the adapter merged into it. The base is loaded unquantized for that, since weights of 4 or 8 bits
            cannot hold the sum. After full fine-tuning there is nothing to merge.
        to: the name on the hub, for the card.

    Raises:
        LabError: nothing was trained, its files are gone, the base cannot be loaded, or the disk is full.
    """
    trained = _trained(finished)
    merged = merged and finished.method != "full"
    if not any(trained.glob("*.safetensors")):
        raise LabError(f"There are no weights in '{_place(trained)}': run {finished.method} again.")
    unfinished, target = None, finished.folder / "hub"
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=".hub-", dir=finished.folder))
        if merged:
            _save_merged(finished, unfinished)
        else:
            _copy(finished, trained, unfinished)
        _clean(unfinished)
        record = _public(finished.record, _references(finished))
        write_text(unfinished / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        write_text(unfinished / "README.md", card(finished, merged, to))
        unfinished.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    except WRITE_ERRORS as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise LabError(f"The files to publish cannot be written to '{_place(target)}' ({reason}): free some space there.") from error
    finally:
        if unfinished:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _trained(finished: Finished) -> Path:
    """The folder with what was trained."""
    if finished.method == "zero_shot":
        raise LabError("zero_shot trains nothing, so there is nothing to publish: choose full, lora or qlora.")
    return finished.folder / ("model" if finished.method == "full" else "adapter")


def _copy(finished: Finished, trained: Path, target: Path) -> None:
    """Copies what was trained, with the base's tokenizer beside an adapter."""
    from transformers import AutoTokenizer

    for path in sorted(trained.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in WEIGHTS + TOKENIZER):
            shutil.copyfile(path, target / path.name)
    if finished.method == "full":
        _save_decoding(finished, AutoTokenizer.from_pretrained(trained), target)
        return
    settings = Settings.model_validate(finished.record["config"])
    if _base_is_here(finished):
        AutoTokenizer.from_pretrained(models.checkpoint_folder(settings.recipe.model)).save_pretrained(target)


def _save_merged(finished: Finished, target: Path) -> None:
    """Saves the base with the adapter merged into it, in the precision of the run.

    Each layer is summed in float32 and rounded once; only one layer at a time takes that room.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    settings = Settings.model_validate(finished.record["config"])
    if not _base_is_here(finished):
        raise LabError(
            f"Merging needs the base model's folder '{Path(settings.recipe.model.source).name}', which is not here: "
            "run this where it lies, or publish the adapter alone (publish_merged=false)."
        )
    base = models.load(settings, quantization="none")
    model = models.load_adapter(base, finished.folder / "adapter")
    dtype = getattr(torch, finished.record["environment"]["precision"])
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.get_base_layer().float()
            layer.merge(safe_merge=True)
            layer.get_base_layer().to(dtype)
    model.unload().to(dtype).save_pretrained(target)
    base.tokenizer.save_pretrained(target)
    _save_decoding(finished, base.tokenizer, target)


def _base_is_here(finished: Finished) -> bool:
    """False for a base from a local folder that is not found again: the record keeps its name and not its place, and on the hub that
    name may be somebody else's model."""
    source, kept = finished.record["model"]["source"], finished.record["config"]["recipe"]["model"]["source"]
    return bool(_hub_id(source)) or _is_prepared_by_the_lab(source) or Path(kept).exists()


def _save_decoding(finished: Finished, tokenizer, folder: Path) -> None:
    """The run's decoding as the model's own: without it `generate` would not know where an answer ends."""
    from transformers import GenerationConfig

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    GenerationConfig(
        do_sample=False,
        max_new_tokens=finished.record["config"]["recipe"]["generation"]["max_new_tokens"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=config.get("decoder_start_token_id"),
    ).save_pretrained(folder)


def _clean(folder: Path) -> None:
    """Takes traces of training and of this machine out of the configurations: folders, flags for local files, the cache switched off."""
    traces = ("_name_or_path", "name_or_path", "is_local", "local_files_only", "use_cache")
    for name in ("config.json", "tokenizer_config.json", "adapter_config.json"):
        if (path := folder / name).is_file():
            values = json.loads(path.read_text(encoding="utf-8"))
            values = {key: value for key, value in values.items() if key not in traces}
            if "base_model_name_or_path" in values:
                values["base_model_name_or_path"] = without_folders(values["base_model_name_or_path"] or "")
            write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _references(finished: Finished) -> set[str]:
    """The reference summaries, but for those so short that a recipe may well hold the same words."""
    texts = (" ".join(reference.split()) for prediction in finished.predictions for reference in prediction.references)
    return {text for text in texts if text.count(" ") > 2}


def _public(value: Any, references: set[str]) -> Any:
    """A record without absolute paths.

    Raises:
        LabError: a reference summary stands in it. The lab writes none there, but a recipe's prompt may hold one.
    """
    if isinstance(value, dict):
        return {key: _public(item, references) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item, references) for item in value]
    if not isinstance(value, str):
        return value
    if any(reference in " ".join(value.split()) for reference in references):
        raise LabError("Nothing was published, since a reference summary stands in run.json: take it out of the recipe and run again.")
    return without_folders(value)


def _place(path: Path) -> Path:
    """A path to show: as seen from here, or its last three parts."""
    here = Path.cwd()
    if not path.is_absolute():
        return path
    return path.relative_to(here) if path.is_relative_to(here) else Path(*path.parts[-3:])


# --- the upload -------------------------------------------------------------------------------------------------------


def token() -> tuple[str | None, str]:
    """The hub token and, in words, where it was found; without one, None and where it was looked for. It is never shown or written."""
    places = {"HF_TOKEN": lambda: os.environ.get("HF_TOKEN"), "the saved login": _saved_login}
    places |= {"colab": {"Colab's secrets": _colab_secret}, "kaggle": {"Kaggle's secrets": _kaggle_secret}}.get(environment.where(), {})
    for name, look in places.items():
        try:
            found = (look() or "").strip()
        except Exception:  # each platform has errors of its own for a secret that is missing or may not be read
            continue
        if found:
            return found, name
    return None, " or ".join(places)


def _saved_login() -> str | None:
    """The hub client's login. On Colab the client looks into the secrets too; that is left to the place that says so."""
    from huggingface_hub import constants, get_token

    if environment.where() == "colab" and not Path(constants.HF_TOKEN_PATH).is_file():
        return None
    return get_token()


def _colab_secret() -> str | None:
    from google.colab import userdata

    return userdata.get("HF_TOKEN")


def _kaggle_secret() -> str | None:
    from kaggle_secrets import UserSecretsClient

    return UserSecretsClient().get_secret("HF_TOKEN")


CURES = {
    "colab": "add the secret HF_TOKEN (the key on the left) and let this notebook read it",
    "kaggle": "add the secret HF_TOKEN under Add-ons > Secrets and attach it to this notebook",
    "local": "set HF_TOKEN in the environment or run `hf auth login`",
}


def publish(finished: Finished, to: str, merged: bool = False) -> str:
    """Uploads a finished run's model to the hub, public unless the owner's settings say otherwise, and returns its address.

    The repository is created if there is none. Weights of another kind that an earlier upload left there are taken away, since an
    adapter beside a merged model is what transformers would load; other files are left alone.

    Args:
        to: "owner/name". HF_ENDPOINT chooses another hub.

    Raises:
        LabError: a name that is none, no token, offline, unreachable or refused. The prepared folder stays, and the message says where.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(to, str) or not _hub_id(to):
        given = "a token" if str(to).startswith("hf_") else repr(to)
        raise LabError(f"publish_to takes owner/name: your user name on the hub and a name made of letters, digits, - _ or .; got {given}.")
    folder = prepare(finished, merged, to)
    ready = f"the files are ready in {_place(folder)}"
    if constants.HF_HUB_OFFLINE:
        raise LabError(f"Nothing was published, since HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it and start again; {ready}.")
    secret, where = token()
    if secret is None:
        raise LabError(f"Nothing was published, since {where} hold no token: {CURES[environment.where()]}, then publish again; {ready}.")
    _refuse_secret(folder, secret)
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    api = HfApi(endpoint=endpoint, token=secret)
    message = f"Publish {finished.method} of {finished.record['recipe']}"
    try:
        api.create_repo(to, exist_ok=True)
        api.upload_folder(repo_id=to, folder_path=folder, commit_message=message, delete_patterns=_left_over(api, to, folder) or None)
    except HfHubHTTPError as error:
        raise LabError(f"Nothing was published: {_refusal(error, to, where)}; {ready}.") from None  # the cause holds the request
    except Exception as error:  # a network that fails has errors of several libraries
        host = urlsplit(endpoint).hostname or "the hub"
        reason = f"{host} cannot be reached or the upload broke off ({type(error).__name__})"
        raise LabError(f"Nothing was published, since {reason}: check the network and publish again; {ready}.") from None
    return f"{endpoint}/{to}"


def _left_over(api, to: str, folder: Path) -> list[str]:
    """Weights and configurations in the repository that this upload would not replace."""
    try:
        names = [str(name) for name in api.list_repo_files(to)]
    except Exception:  # without a list nothing is taken away
        return []
    return [name for name in names if any(fnmatch(name, p) for p in WEIGHTS) and "/" not in name and not (folder / name).exists()]


def _refusal(error, to: str, where: str) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return f"the hub does not accept the token from {where} (401), so make one with write permission on {HUB}/settings/tokens"
    if status == 403:
        return f"the token from {where} may not write to '{to}' (403), so give it write permission there, or use your own user name"
    return f"the hub refused '{to}' (status {status}), so check the name on {HUB} and publish again"


def _refuse_secret(folder: Path, secret: str) -> None:
    for path in folder.iterdir():
        if path.suffix != ".safetensors" and secret.encode() in path.read_bytes():
            raise LabError(f"Nothing was published, since your token stands in {path.name}: take it out of the recipe and run again.")
