"""The model card of a finished run, written from its record alone: nothing in it is measured or guessed anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any

from lab_utils import __version__, prompts, scrubbing, sources
from lab_utils.config import Settings
from lab_utils.errors import LabError
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
base = {{ auto }}.from_pretrained(
    {{ base }},
)
base.generation_config = GenerationConfig(  # the base model's own may sample
    max_new_tokens={{ limit }}, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    decoder_start_token_id=getattr(base.config, "decoder_start_token_id", None),
)
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
messages = [
{% if system %}
    {"role": "system", "content": {{ system }}},
{% endif %}
    {"role": "user", "content": prompt},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"{{ options }})
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

{{ model.name }} after {{ method_name }} ({{ "{:,}".format(model.trainable_parameters) }} trained parameters), to summarize documents like
those in '{{ data.name }}': {{ what }}. Made in a course, to show what a training method does;
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
- decoding: greedy, to the end token ({{ "%.0f"|format(100 * generation.stopped_share) }}% of the answers) or \
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
| parameters | {{ "{:,}".format(model.parameters) }} in the base, {{ "{:,}".format(model.trainable_parameters) }} trained |
| budget | {{ training.steps }} steps, {{ training.examples }} examples (repetitions counted), {{ training.tokens }} tokens |
| cost | {{ training.seconds }} s, peak memory {{ training.peak_memory_gb }} GB; weights of {{ model.checkpoint_mb }} MB |
| loss | {{ "%.3f"|format(training.first_loss) }} at first, {{ "%.3f"|format(training.last_loss) }} at last |
| precision | {{ environment.precision }}: {{ environment.precision_reason }} |
{%- for key, value in config.recipe[method].items() if value is not none %}
| {{ key }} | {{ value|join(", ") if value is sequence and value is not string else value }} |
{%- endfor %}
| recipe, seed | {{ recipe }}, {{ seed }} |
| machine | {{ environment.platform }}; {{ environment.device }} |
| software | lab {{ lab }}{{ " at " + environment.commit if environment.commit }}, Python {{ environment.python }}
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
    from huggingface_hub import ModelCard, ModelCardData

    if finished.method == "zero_shot":
        raise LabError("zero_shot trains nothing, so there is nothing to publish: choose full, lora or qlora.")
    record = scrubbing.values(finished.record)
    data, source, metrics, licence = record["data"], record["model"]["source"], record["metrics"], _licence(record["data"])
    full, method = finished.method == "full", METHODS[finished.method]
    scores = {label: metrics[name] for name, label in SCORES.items()}
    best = {f"{label}, best reference": metrics[f"best_{name}"] for name, label in SCORES.items()}
    metadata = ModelCardData(  # without scores: `model-index` has no room for their interval and protocol
        library_name="transformers" if full or merged else "peft",
        base_model=source if sources.is_hub_id(source) else None,
        datasets=[data["name"]] if data["source"] == "hub" else None,
        license=licence.lower().replace(" ", "-") if "-NC" in licence else "other",  # nothing weaker than the data's terms is claimed
        pipeline_tag="summarization",
        tags=["summarization", method.lower().replace(" ", "-"), "summarization-lab"],
    )
    fields = each(record, _inert) | {
        "method_name": method,
        "what": "the whole model" if full else "the base with the adapter merged into it" if merged else "the adapter alone",
        "code": _code(record, full or merged, to),
        "scores": scores if list(scores.values()) == list(best.values()) else scores | best,  # the same with one reference a document
        "merged": merged and not full,
        "licence": licence,
        "lab": __version__,
    }
    return str(ModelCard.from_template(metadata, template_str=CARD, **fields))


def _code(record: dict, whole: bool, to: str | None) -> str:
    """Python that loads what is published and summarizes one document with this run's prompt. What it quotes are Python literals."""
    from jinja2 import Template

    settings = Settings.model_validate(record["config"])
    model, prompt, precision = settings.recipe.model, settings.recipe.prompt, record["environment"]["precision"]
    base = [_literal(model.source), f'dtype="{precision}"']
    if model.revision:
        base.append(f"revision={_literal(model.revision)}")
    if settings.quantization != "none":
        base.append(f"quantization_config=BitsAndBytesConfig({QUANTIZED[settings.quantization].format(precision=precision)})")
    return Template(CODE, trim_blocks=True).render(
        whole=whole,
        causal=model.family == "causal",
        auto="AutoModelForCausalLM" if model.family == "causal" else "AutoModelForSeq2SeqLM",
        name=_literal(to or "owner/name"),
        base=",\n    ".join(base) if sources.is_hub_id(record["model"]["source"]) else None,
        limit=settings.recipe.generation.max_new_tokens,
        prompt=_literal(prompts.user_message(prompt, "[document]")),
        chat=prompt.style == "chat",
        system=_literal(prompt.system) if prompt.system else None,
        options=f", **{_literal(prompt.template_options)}" if prompt.template_options else "",
    )


def _licence(data: dict) -> str:
    if data["source"] == "packaged":
        return "CC BY 4.0"
    return LICENCES.get(data["name"], "see the data's page") if data["source"] == "hub" else "the licence of your own data"


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


def _literal(value: Any) -> str:
    """A Python literal on one line that holds no HTML."""
    return repr(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
