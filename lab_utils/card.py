"""The model card of a finished run, written from its record alone: nothing in it is measured or guessed anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import Any

from lab_utils import __version__, prompts
from lab_utils.config import Settings
from lab_utils.errors import LabError, without_folders
from lab_utils.runs import Finished

METHODS = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
SCORES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
LICENCES = {  # of data on the hub, as its pages say
    "knkarthick/dialogsum": "CC BY-NC-SA 4.0",
    "knkarthick/samsum": "CC BY-NC-ND 4.0",
    "abisee/cnn_dailymail": "Apache-2.0",
}
QUANTIZED = {
    "int8": "load_in_8bit=True",
    "nf4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="{precision}"',
}

CODE = """\
{% if whole %}
from transformers import {{ auto }}, AutoTokenizer

NAME = {{ name }}
model = {{ auto }}.from_pretrained(NAME, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(NAME)
{% elif base %}
from peft import PeftModel
from transformers import {{ auto }}, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

NAME = {{ name }}
tokenizer = AutoTokenizer.from_pretrained(NAME)
base = {{ auto }}.from_pretrained({{ base }}{{ options }})
tokens = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
{% if not causal %}
tokens["decoder_start_token_id"] = base.config.decoder_start_token_id
{% endif %}
base.generation_config = GenerationConfig(max_new_tokens={{ limit }}, **tokens)  # the base model's own may sample
model = PeftModel.from_pretrained(base, NAME)
{% else %}
import json

from huggingface_hub import hf_hub_download
from lab_utils import config, generation, models  # the Summarization Fine-Tuning Lab, which prepares this base model
from peft import PeftModel

NAME = {{ name }}
record = json.load(open(hf_hub_download(NAME, "run.json"), encoding="utf-8"))
base = models.load(config.Settings.model_validate(record["config"]))
base.model.generation_config = generation.decoding(base)
model, tokenizer = PeftModel.from_pretrained(base.model, NAME), base.tokenizer
{% endif %}

document = "..."
prompt = {{ prompt }}.replace("[document]", document)
{% if chat %}
messages = [{{ system }}{"role": "user", "content": prompt}]
options = {{ template_options }}
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt", **options)
{% else %}
inputs = tokenizer(prompt, return_tensors="pt")
{% endif %}
output = model.generate(**inputs.to(model.device))[0]
print(tokenizer.decode(output{{ '[inputs["input_ids"].shape[1] :]' if causal }}, skip_special_tokens=True))"""

CARD = """\
---
{{ card_data }}
---

# {{ model.name }}, {{ method_name }}, {{ data.name }}

{{ model.name }} after {{ method_name }} of {{ "{:,}".format(model.trainable_parameters) }} parameters, to summarize documents like
those in '{{ data.name }}': {{ what }}. Made in the Summarization Fine-Tuning Lab, a course: it shows what a training method does, and
nobody tested it for anything else. This card was written from the record of the run, the file `run.json` here.

## How to load it

```python
{{ code }}
```

## Scores

| measure, n = {{ metrics.n }} test documents | mean | 95% interval |
| --- | --- | --- |
{%- for label, score in scores.items() %}
| {{ label }} | {{ "%.1f"|format(score.mean) }} | {{ "%.1f to %.1f"|format(score.low, score.high) }} |
{%- endfor %}

{% for key, value in metrics.protocol.items() -%}
- {{ key }}: {{ value }}
{% endfor -%}
- decoding: greedy, until the end token ({{ "%.0f"|format(100 * generation.stopped_share) }}% of the answers) or
  {{ config.recipe.generation.max_new_tokens }} new tokens
- prompt: the one in the code above, with documents cut after {{ config.recipe.lengths.document_tokens }} tokens
{%- if merged %}

**These are the scores of the adapter on its base (quantization: {{ config.recipe[method].quantization }}), taken before the two were
merged.** The merged weights are the unquantized base plus the adapter, rounded anew, so answers can differ: score them again before
quoting a number for them.
{%- endif %}

## Data

{{ data.name }} ({{ data.source }}): {{ data.train }} documents for training, {{ data.validation }} for validation, {{ data.test }} for
testing; fingerprint of the test set {{ data.fingerprint }}. Licence of the data: {{ licence }}. The base model's terms bind as well.
{% for note in data.notes %}
- {{ note }}
{%- endfor %}

## Training

| | |
| --- | --- |
| base model | {{ model.name }} ({{ model.source }}), fingerprint {{ model.fingerprint }} |
| parameters | {{ "{:,}".format(model.parameters) }}, of which or to which {{ "{:,}".format(model.trainable_parameters) }} trained |
| budget | {{ training.steps }} steps, {{ training.examples }} examples (repetitions counted), {{ training.tokens }} tokens |
| cost | {{ training.seconds }} s, peak memory {{ training.peak_memory_gb }} GB; weights of {{ model.checkpoint_mb }} MB |
| loss | {{ "%.3f"|format(training.first_loss) }} at first, {{ "%.3f"|format(training.last_loss) }} at last |
| precision | {{ environment.precision }}: {{ environment.precision_reason }} |
{%- for key, value in config.recipe[method].items() %}
| {{ key }} | {{ value|join(", ") if value is sequence and value is not string else value }} |
{%- endfor %}
| seed, recipe | {{ seed }}, {{ recipe }} |
| machine | {{ environment.platform }}; {{ environment.device }} |
| software | lab {{ lab }} ({{ environment.commit }}), Python {{ environment.python }}
{%- for package, version in environment.packages.items() %}, {{ package }} {{ version }}{% endfor %} |

## Limits

- Trained on few examples, {{ data.train }} ({{ training.examples }} seen, repetitions counted): what is rare among them was not learnt.
- One run with one seed ({{ seed }}). Another seed gives other weights and scores; the intervals do not show how different.
- The intervals show what other documents than these {{ metrics.n }} would have changed; smaller differences are not detectable.
- ROUGE counts words shared with a reference. It does not see whether a summary is true, complete or harmless: read the answers.
- Nothing is known about other kinds of documents, other lengths or other languages.
{%- if data.source == "packaged" %}
- The packaged dialogues were written by language models: scores on them do not predict scores on people's dialogues.
{%- endif %}
{%- for note in config.recipe.notes %}
- {{ note }}
{%- endfor %}
"""


def card(finished: Finished, merged: bool = False, to: str | None = None) -> str:
    """A model card: the hub's metadata (YAML), then Markdown, in which words of the recipe cannot become HTML or code.

    Args:
        merged: the adapter was merged into its base, which changes what must be said about scores and loading.
        to: the name on the hub, for the code that loads it.

    Raises:
        LabError: nothing was trained in this run.
    """
    from huggingface_hub import ModelCard
    from jinja2 import Template

    if finished.method == "zero_shot":
        raise LabError("zero_shot trains nothing, so there is nothing to publish: choose full, lora or qlora.")
    record = each(finished.record, without_folders)
    settings = Settings.model_validate(record["config"])
    full, metrics = finished.method == "full", record["metrics"]
    scores = {label: metrics[name] for name, label in SCORES.items()}
    best = {f"{label}, best reference": metrics[f"best_{name}"] for name, label in SCORES.items()}
    fields = each(record, _inert) | {
        "method_name": METHODS[finished.method],
        "what": "the whole model" if full else "the base with the adapter merged into it" if merged else "the adapter alone",
        "code": Template(CODE, trim_blocks=True).render(_code(record, settings, full or merged, to)),
        "scores": scores if list(scores.values()) == list(best.values()) else scores | best,  # the same with one reference a document
        "merged": merged and not full,
        "licence": _licence(record["data"]),
        "lab": __version__,
    }
    return str(ModelCard.from_template(_metadata(record, full or merged), template_str=CARD, **fields))


def _code(record: dict, settings: Settings, whole: bool, to: str | None) -> dict[str, Any]:
    """What CODE needs to load what is published and to summarize with this run's prompt. Texts are Python literals."""
    model, prompt, precision = settings.recipe.model, settings.recipe.prompt, record["environment"]["precision"]
    options = f', dtype="{precision}"' + (f", revision={_literal(model.revision)}" if model.revision else "")
    if settings.quantization != "none":
        options += f", quantization_config=BitsAndBytesConfig({QUANTIZED[settings.quantization].format(precision=precision)})"
    return {
        "whole": whole,
        "causal": model.family == "causal",
        "auto": "AutoModelForCausalLM" if model.family == "causal" else "AutoModelForSeq2SeqLM",
        "name": _literal(to or "owner/name"),
        "base": _literal(model.source) if hub_id(record["model"]["source"]) else None,
        "options": options,
        "limit": settings.recipe.generation.max_new_tokens,
        "chat": prompt.style == "chat",
        "prompt": _literal(prompts.user_message(prompt, "[document]")),
        "system": f'{{"role": "system", "content": {_literal(prompt.system)}}}, ' if prompt.system else "",
        "template_options": _literal(prompt.template_options),
    }


def _metadata(record: dict, whole: bool):
    """What the hub sorts and links by. Scores stay out of it: `model-index` has no room for their interval and protocol."""
    from huggingface_hub import ModelCardData

    data, licence, method = record["data"], _licence(record["data"]), METHODS[record["method"]]
    return ModelCardData(
        library_name="transformers" if whole else "peft",
        base_model=hub_id(record["model"]["source"]),
        datasets=[data["name"]] if data["source"] == "hub" else None,
        license=licence.lower().replace(" ", "-") if "-NC" in licence else "other",  # nothing weaker than the data's terms is claimed
        pipeline_tag="summarization",
        tags=["summarization", method.lower().replace(" ", "-"), "summarization-lab"],
    )


def _licence(data: dict) -> str:
    if data["source"] == "packaged":
        return "CC BY 4.0"
    return LICENCES.get(data["name"], "see the data's page") if data["source"] == "hub" else "the licence of your own data"


def hub_id(source: str) -> str | None:
    """The source if it is "owner/name", a name on the hub."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    with suppress(HFValidationError):
        validate_repo_id(source)
        return source if source.count("/") == 1 and not source.endswith(".gguf") else None
    return None


def each(value: Any, change: Callable[[str], str]) -> Any:
    """A record, or a part of one, with every text in it changed."""
    if isinstance(value, dict):
        return {key: each(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [each(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _inert(text: str) -> str:
    """A text as it may stand in a card: one line that is neither HTML nor Markdown."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", escape(" ".join(text.split()), quote=False))


def _literal(value: str | dict) -> str:
    """A Python literal on one line that holds no HTML."""
    return repr(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
