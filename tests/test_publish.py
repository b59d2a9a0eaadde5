import json
import shutil
import sys
import threading
import types
from base64 import b64decode
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, constants
from test_card import NAME, code_of, with_changes

from lab_utils import adapters, cache, config, data, methods, models, pretrained, prompts, publish, runs
from lab_utils.errors import LabError

SECRET = "hf_NobodyMayReadThis"
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
BESIDE = {"README.md", "run.json"}
ADAPTER = {"adapter_model.safetensors", "adapter_config.json", "base.json"}
WHOLE = {"model.safetensors", "config.json", "generation_config.json"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with every method that leaves something behind; tests copy what they touch."""
    folder = tmp_path_factory.mktemp("trained")
    for method in ("lora", "qlora", "full"):
        methods.run(config.resolve("tiny-causal", method), folder / "tiny-causal")
    methods.run(config.resolve("tiny-seq2seq", "lora"), folder / "tiny-seq2seq")
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


# --- the folder


@pytest.mark.parametrize(
    "method, merged, files", [("lora", False, ADAPTER), ("lora", True, WHOLE), ("full", False, WHOLE), ("full", True, WHOLE)]
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


@pytest.mark.parametrize("merged", [False, True])
def test_nothing_published_holds_a_reference_or_a_trace_of_this_machine(finished, tmp_path, merged):
    run = with_changes(finished(), config__recipe__notes=["Made in /home/somebody/course/data."])
    folder = publish.prepare(run, merged)
    text = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix != ".safetensors")
    assert not [trace for trace in ("somebody", str(tmp_path), str(cache.folder()), "local_files_only") if trace in text]
    assert not [r for p in run.predictions for r in p.references if r in text]
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"] == run.record["metrics"]


def test_a_record_that_holds_a_reference_is_not_published(finished):
    run = finished()
    reference = 'Ann says "no"\nto Bob today.'
    run.predictions[0] = replace(run.predictions[0], references=(reference,))
    run = with_changes(run, config__recipe__prompt__instruction=f"Write like this: {reference}")
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
        adapted = adapters.load_adapter(base, run.folder / "adapter").eval()(**ids).logits
        found = merged.float()(**ids).logits
    assert (adapted - alone).abs().max() > 0
    assert (found - adapted).norm() < 0.5 * (adapted - alone).norm(), "the adapter's change is lost in the merged weights"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_whole_weights_know_where_an_answer_ends(finished, method):
    folder = publish.prepare(finished(method), merged=True)
    decoding = json.loads((folder / "generation_config.json").read_text())
    settings = json.loads((folder / "config.json").read_text())
    assert (decoding["eos_token_id"], decoding["max_new_tokens"], decoding["do_sample"]) == ([settings["eos_token_id"]], 8, False)
    assert settings["use_cache"]


@pytest.mark.parametrize(
    "recipe, method, merged, on_hub",
    [
        ("tiny-causal", "full", False, False),
        ("tiny-causal", "qlora", True, False),
        ("tiny-causal", "qlora", False, False),
        ("tiny-causal", "qlora", False, True),
        ("tiny-seq2seq", "lora", False, False),
        ("tiny-seq2seq", "lora", False, True),
    ],
)
def test_the_cards_code_loads_what_is_published_and_writes_a_summary(finished, monkeypatch, recipe, method, merged, on_hub):
    run = finished(method, recipe)
    base = pretrained.checkpoint_folder(config.Settings.model_validate(run.record["config"]).recipe.model)
    if on_hub:
        run = with_changes(run, model__source="toy/base", config__recipe__model__source="toy/base")
    folder = publish.prepare(run, merged, to="ada/toy", model_dir=base)
    Path("toy").mkdir()
    Path("toy/base").symlink_to(base)
    Path("ada").mkdir()
    folder.rename("ada/toy")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: Path(name) / file)
    said, values = [], {}
    values["print"] = said.append
    exec(code_of(Path("ada/toy/README.md").read_text(encoding="utf-8")), values)
    assert len(said) == 1 and isinstance(said[0], str)
    recipe = config.Settings.model_validate(run.record["config"]).recipe
    assert values["inputs"]["input_ids"][0].tolist() == prompts.prompt_ids(values["tokenizer"], recipe.prompt, "...")
    assert len(values["output"]) <= values["inputs"]["input_ids"].shape[1] + recipe.generation.max_new_tokens
    assert not values["model"].training


def test_zero_shot_has_nothing_to_publish(finished):
    with pytest.raises(LabError, match="zero_shot trains nothing"):
        publish.prepare(runs.Finished("zero_shot", {}, [], Path("runs")))


def test_weights_that_are_gone_are_one_sentence(finished):
    run = finished()
    shutil.rmtree(run.folder / "adapter")
    with pytest.raises(LabError) as caught:
        publish.prepare(run)
    assert "runs/tiny-causal/lora/adapter" in one_sentence(caught)


@pytest.mark.parametrize("kind", ["local folder", "local file"])
def test_a_local_base_is_taken_from_model_dir_and_never_looked_for_on_the_hub(finished, monkeypatch, kind):
    base = pretrained.checkpoint_folder(config.Settings.model_validate(finished().record["config"]).recipe.model)
    run = with_changes(finished(), model__source=kind, config__recipe__model__source="gpt2")
    assert names(publish.prepare(run, model_dir=base)) == ADAPTER | TOKENIZER | BESIDE
    assert names(publish.prepare(run, merged=True, model_dir=base)) == WHOLE | TOKENIZER | BESIDE
    assert str(base) not in (run.folder / "hub" / "README.md").read_text()
    monkeypatch.setattr(pretrained, "checkpoint_folder", lambda spec: pytest.fail("looked for a stranger's model"))
    assert names(publish.prepare(run)) == ADAPTER | BESIDE
    with pytest.raises(LabError) as caught:
        publish.prepare(run, merged=True)
    assert "'gpt2'" in one_sentence(caught) and "--model-dir" in one_sentence(caught)


def test_merging_into_another_base_than_the_adapters_is_one_sentence(finished, tmp_path):
    run = finished()
    other = shutil.copytree(finished("full").folder / "model", tmp_path / "other")
    with pytest.raises(LabError) as caught:
        publish.prepare(run, merged=True, model_dir=str(other))
    assert "was trained on" in one_sentence(caught) and "hub" not in names(run.folder)


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


@pytest.mark.parametrize("method, merged, files", [("lora", False, ADAPTER), ("qlora", True, WHOLE), ("full", False, WHOLE)])
def test_exactly_the_prepared_files_are_uploaded_with_the_token(finished, hub, method, merged, files):
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
    assert card.data.pipeline_tag == "summarization" and f"NAME = '{NAME}'" in card.text


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


@pytest.mark.parametrize("to", ["dialogues", "ada/a/b", "ada/", "ada/a b", "ada/..", "https://huggingface.co/ada/a", ""])
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


@pytest.mark.parametrize(
    "where, status, words",
    [
        ("/api/repos/create", 401, "does not accept the token from HF_TOKEN"),
        ("/api/repos/create", 403, "may not write"),
        ("/preupload/main", 403, "may not write"),
        ("/commit/main", 400, "status 400"),
    ],
)
def test_a_refusal_is_one_sentence(finished, hub, where, status, words):
    hub.answers = {where: status, f"/api/models/{NAME}": status}
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), NAME)
    assert words in stays(caught) and caught.value.__cause__ is None


def test_a_repository_that_exists_is_used(finished, hub):
    hub.answers["/api/repos/create"] = 409
    assert publish.publish(finished(), NAME) == f"{hub.address}/{NAME}"
    assert hub.files.keys() > ADAPTER


@pytest.mark.parametrize("address", [f"http://user:{SECRET}@127.0.0.1:9", "http://hub.example", "nonsense"])
def test_a_hub_that_cannot_be_reached_is_one_sentence(finished, hub, monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(LabError) as caught:
        publish.publish(finished(), NAME)
    assert "check the network" in stays(caught)


def test_publishing_needs_no_data_set(finished, hub, monkeypatch):
    monkeypatch.setattr(data, "load", lambda spec: pytest.fail("publishing read the data"))
    assert publish.publish(finished(), NAME).endswith(f"/{NAME}")
