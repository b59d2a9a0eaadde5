"""Models and data by hub id, from a stub of the hub on this machine: what is downloaded, what is not, and one sentence for each failure.

The hub's clients read their address when they are imported, so each of three situations (hub there, gone, switched off) is one process that
runs all its commands.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf_files
import hub_stub
import pytest

from lab_utils import data, models, pretrained
from lab_utils.config import Data, Model

COMMANDS = """
import contextlib, io, json, os, sys, time, traceback
import datasets
from lab_utils import cli

datasets.config.USE_PARQUET_EXPORT = False  # it asks another server
time.sleep = lambda seconds: None  # the clients wait 23 s for a hub that is gone
done = {}
for name, (arguments, variables) in json.load(sys.stdin).items():
    os.environ.update(variables)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(arguments)
        except BaseException:
            code = traceback.format_exc()
    for variable in variables:
        del os.environ[variable]
    done[name] = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
print(json.dumps(done))
"""
SMALL = {"test_examples": 2, "validation_examples": 1, "train_examples": 3, "max_new_tokens": 2}
GONE = "http://127.0.0.1:9"  # the discard port: nothing answers

LOADED = {
    "model and data": {"model": "me/tiny", "data": "me/chats"},
    "csv": {"data": "me/table", "document_column": "chat", "summary_column": "gist"},
    "configuration": {"data": "me/news", "configuration": "3.0.0"},
    "gguf": {"model": "me/packed/tiny.gguf"},
}
WITH_TOKEN = {"gated model": {"model": "me/guarded"}, "gated data": {"data": "me/secrets"}}
REFUSED = {
    "model unknown": ({"model": "me/tony"}, "No model 'me/tony'"),
    "model gated": ({"model": "me/guarded"}, "The model 'me/guarded' is gated: accept its terms"),
    "model revision": ({"model": "me/tiny", "model_revision": "v9"}, "The model 'me/tiny' has no revision 'v9'"),
    "model pickled": ({"model": "me/pickled"}, "The model 'me/pickled' could not be loaded"),
    "model file": ({"model": "me/tiny/other.gguf"}, "The model 'me/tiny' has no file 'other.gguf'"),
    "model broken": ({"model": "me/broken"}, "'me/broken'"),
    "model no id": ({"model": "tiny"}, "'tiny'"),
    "data unknown": ({"data": "me/chatter"}, "No data 'me/chatter'"),
    "data gated": ({"data": "me/secrets"}, "The data 'me/secrets' is gated: accept its terms"),
    "data revision": ({"data": "me/chats", "data_revision": "v9"}, "The data 'me/chats' has no revision 'v9'"),
    "data configuration": ({"data": "me/news", "configuration": "4.0.0"}, "'4.0.0' not found. Available: ['3.0.0', 'short']"),
    "data no configuration": ({"data": "me/news"}, "Config name is missing"),
    "data column": ({"data": "me/table"}, "no 'document' text (found chat, gist)"),
    "data split": ({"data": "me/half"}, "'half' has no validation and no test split (found train)"),
    "data empty": ({"data": "me/empty"}, "'me/empty'"),
    "data broken": ({"data": "me/broken"}, "'me/broken'"),
}
UNREACHABLE = {
    "model": (
        {"model": "me/never"},
        "The model 'me/never' is neither a folder here nor in the download cache, and the hub cannot be reached",
    ),
    "file": ({"model": "me/never/x.gguf"}, "The model 'me/never' is neither"),
    "data": ({"data": "me/nothing"}, "The data 'me/nothing' is neither a folder or file here nor in the download cache"),
}


def chats(split: str, count: int) -> list[dict]:
    return [
        {"id": f"{split}_{n}", "dialogue": f"Ann: Is {split} {n} ready?\nBen: Yes.", "summary": f"{split} {n} is ready."}
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def original():
    return Path(pretrained.checkpoint_folder(Model(source="random:causal", label="tiny", family="causal")))


@pytest.fixture(scope="module")
def root(original, tmp_path_factory):
    """What the stub serves."""
    import pyarrow
    from pyarrow import csv, parquet

    root = tmp_path_factory.mktemp("hub")

    def folder(kind, name):
        made = root / kind / "me" / name
        made.mkdir(parents=True)
        return made

    def splits(folder, write, suffix):
        for split, count in (("train", 4), ("validation", 2), ("test", 3)):
            write(pyarrow.Table.from_pylist(chats(split, count)), folder / f"{split}-00000-of-00001.{suffix}")

    tiny = folder("models", "tiny")
    shutil.copytree(original, tiny, dirs_exist_ok=True)
    gguf_files.write(original, folder("models", "packed") / "tiny.gguf")
    for unwanted in ("pytorch_model.bin", "consolidated.safetensors", "onnx/model.safetensors", "original/params.json"):
        (tiny / unwanted).parent.mkdir(exist_ok=True)
        (tiny / unwanted).write_bytes(b"gigabytes")
    shutil.copytree(original, folder("models", "guarded"), dirs_exist_ok=True)
    pickled = folder("models", "pickled")
    shutil.copytree(original, pickled, dirs_exist_ok=True)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")

    parts = chats("train", 4)
    for part, rows in enumerate((parts[:1], parts[1:])):
        (root / "datasets/me/chats/data").mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), root / f"datasets/me/chats/data/train-0000{part}-of-00002.parquet")
    for split, count in (("validation", 2), ("test", 3)):
        parquet.write_table(pyarrow.Table.from_pylist(chats(split, count)), root / f"datasets/me/chats/data/{split}-00000-of-00001.parquet")
    splits(folder("datasets", "secrets"), parquet.write_table, "parquet")
    table = folder("datasets", "table")
    for split, count in (("train", 4), ("validation", 2), ("test", 3)):
        rows = [{"chat": row["dialogue"], "gist": row["summary"]} for row in chats(split, count)]
        csv.write_csv(pyarrow.Table.from_pylist(rows), table / f"{split}.csv")
    news = folder("datasets", "news")
    for configuration in ("3.0.0", "short"):
        (news / configuration).mkdir()
        splits(news / configuration, parquet.write_table, "parquet")
    described = "".join(f"- config_name: {name}\n  data_files:\n{data_files(name)}" for name in ("3.0.0", "short"))
    (news / "README.md").write_text(f"---\nconfigs:\n{described}---\n")
    csv.write_csv(pyarrow.Table.from_pylist(chats("train", 4)), folder("datasets", "half") / "train.csv")
    (folder("datasets", "empty") / "README.md").write_text("Nothing yet.")
    return root


def data_files(configuration: str) -> str:
    return "".join(f"  - split: {split}\n    path: {configuration}/{split}-*\n" for split in ("train", "validation", "test"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def environment(work, endpoint, **more) -> dict[str, str]:
    """Of a process of its own: a hub cache of its own, no login of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    cache = {"HF_HOME": str(work / "home"), "LAB_CACHE": str(work / "cache")}
    return kept | cache | {"HF_ENDPOINT": endpoint, "HF_UPDATE_DOWNLOAD_COUNTS": "0"} | more


def train(situation, name, parameters) -> list[str]:
    words = [word for key, value in (SMALL | parameters).items() for word in ("-p", f"{key}={value}")]
    return ["train", "--recipe", "tiny-causal", "--method", "zero_shot", *words, "--out", f"{situation}/{name.replace(' ', '-')}"]


def record(work, situation, name) -> dict:
    return json.loads((work / situation / name.replace(" ", "-") / "zero_shot" / "run.json").read_text())


def run(work, situation, endpoint, cases, **more) -> dict[str, dict]:
    """How each command ended: code, out, err. `cases`: name -> parameters, or (parameters, environment variables)."""
    commands = {}
    for name, case in cases.items():
        parameters, variables = case if isinstance(case, tuple) else (case, {})
        commands[name] = (train(situation, name, parameters), variables)
    code = [sys.executable, "-c", COMMANDS]
    done = subprocess.run(
        code, input=json.dumps(commands), env=environment(work, endpoint, **more), cwd=work, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def there(root, work):
    """All commands with the hub there: how they ended, and the hub."""
    cases = LOADED | {name: parameters for name, (parameters, _) in REFUSED.items()}
    cases |= {f"{name}, with a token": (parameters, {"HF_TOKEN": hub_stub.TOKEN}) for name, parameters in WITH_TOKEN.items()}
    with hub_stub.serving(root, gated=("me/guarded", "me/secrets"), broken=("me/broken",)) as hub:
        yield run(work, "there", hub.address, cases), hub


@pytest.fixture(scope="module")
def gone(there, work):
    """After that, with the hub gone: what was loaded before, and what was not."""
    return run(work, "gone", GONE, LOADED | {name: parameters for name, (parameters, _) in UNREACHABLE.items()})


def one_sentence(done) -> str:
    """The one sentence that a refused run ends in."""
    assert done["code"] == 1, done["code"]
    errors = [line for line in done["err"].splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].endswith("."), done["err"]
    assert "Traceback" not in done["err"]
    assert "/home/" not in errors[0] and "hf_" not in errors[0]
    return errors[0]


@pytest.mark.parametrize("name", [*LOADED, *(f"{name}, with a token" for name in WITH_TOKEN)])
def test_a_hub_id_loads(there, name):
    assert there[0][name]["code"] == 0, there[0][name]


def test_a_model_by_hub_id_is_the_model_in_the_folder(there, work, original):
    assert record(work, "there", "model and data")["model"] | {"parameters": 0} == {
        "name": "tiny",
        "source": "me/tiny",
        "fingerprint": models.checkpoint_fingerprint(original),
        "parameters": 0,
    }
    assert record(work, "there", "gguf")["model"]["source"] == "me/packed/tiny.gguf"


def test_a_dataset_by_hub_id_is_the_dataset_in_the_folder(there, work, root):
    local = data.load(Data(source=str(root / "datasets/me/chats/data"), train_examples=3, validation_examples=1, test_examples=2))
    for name in ("model and data", "configuration"):
        assert record(work, "there", name)["data"]["fingerprint"] == local.fingerprint
    found = record(work, "there", "model and data")["data"]
    assert found | {"fingerprint": ""} == local.describe() | {"name": "me/chats", "source": "hub", "fingerprint": ""}


def test_only_the_models_own_safetensors_and_small_files_are_downloaded(there):
    hub = there[1]
    fetched = {name for name in hub.fetched if not name.endswith((".csv", ".parquet"))}
    assert {"model.safetensors", "config.json", "tokenizer.json", "tiny.gguf"} <= fetched
    asked = " ".join(path for _, path in hub.requests)
    assert not [name for name in ("pytorch_model.bin", "consolidated", "onnx/model", "original/params") if name in asked]


def test_each_file_is_downloaded_once(there):
    fetched = [path for command, path in there[1].requests if command == "GET" and "/tiny/resolve/" in path]
    assert len(fetched) == len(set(fetched))


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_hub_refuses_is_one_sentence(there, name):
    assert REFUSED[name][1] in one_sentence(there[0][name])


@pytest.mark.parametrize("name", LOADED)
def test_what_was_loaded_before_loads_when_the_hub_is_gone(gone, work, name):
    assert gone[name]["code"] == 0, gone[name]
    before, after = record(work, "there", name), record(work, "gone", name)
    assert [before[part]["fingerprint"] for part in ("data", "model")] == [after[part]["fingerprint"] for part in ("data", "model")]


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_hub_that_cannot_be_reached_is_one_sentence(gone, name):
    assert UNREACHABLE[name][1] in one_sentence(gone[name])


def test_hf_hub_offline_loads_what_was_loaded_before_and_says_what_was_not(there, work):
    cases = {"model and data": LOADED["model and data"]} | {name: parameters for name, (parameters, _) in UNREACHABLE.items()}
    done = run(work, "off", GONE, cases, HF_HUB_OFFLINE="1")
    assert done["model and data"]["code"] == 0, done["model and data"]
    for name, (_, sentence) in UNREACHABLE.items():
        assert sentence in one_sentence(done[name])


def test_the_command_line_says_no_more_than_that(there, work):
    """The same as above, through `python -m lab_utils` itself."""
    command = [sys.executable, "-m", "lab_utils", *train("command", "model unknown", {"model": "me/tony"})]
    done = subprocess.run(command, env=environment(work, there[1].address), cwd=work, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: No model 'me/tony'")
