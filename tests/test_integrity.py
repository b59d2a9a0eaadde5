"""Weights that are not as they were published or saved are named or fetched again, and never used."""

import hashlib
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from lab_utils import config, integrity, methods, models, pretrained, publish, runs
from lab_utils.config import Model
from lab_utils.errors import LabError


@pytest.fixture(scope="module")
def original():
    """The folder of the tiny causal model."""
    return Path(pretrained.checkpoint_folder(Model(source="random:causal", label="tiny", family="causal")))


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text
    return text


# --- the hub's download cache


@pytest.fixture
def snapshot(original, tmp_path):
    """A model as huggingface_hub keeps it: files under their hashes, and a folder of links to them."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "c0ffee"
    blobs.mkdir()
    folder.mkdir(parents=True)
    for path in original.iterdir():
        large = path.suffix == ".safetensors"  # the others are kept under git's hash, which is shorter
        name = hashlib.sha256(path.read_bytes()).hexdigest() if large else hashlib.sha1(path.read_bytes()).hexdigest()
        shutil.copy(path, blobs / name)
        (folder / path.name).symlink_to(blobs / name)
    return folder


@pytest.fixture
def hub(snapshot, original, monkeypatch):
    """A hub whose download cache is the snapshot; what is fetched again is the original, unless it is `gone` or itself `damaged`."""

    class Hub:
        fetched, gone, damaged = [], False, False

    def fetch(source, name, revision, force_download, tqdm_class):
        assert force_download
        if Hub.gone:
            raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder.")
        Hub.fetched.append(name)
        shutil.copy(original / name, (snapshot / name).resolve())
        if Hub.damaged:
            flip((snapshot / name).resolve())

    Hub.fetched = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    return Hub


def load(source="me/tiny"):
    return models.load(config.resolve("tiny-causal", "zero_shot", model=source))


def test_weights_as_the_hub_has_them_are_used(hub, original):
    assert load().checkpoint == models.checkpoint_fingerprint(original) and hub.fetched == []


@pytest.mark.parametrize("place", [-1, 0], ids=["a-weight", "the-header"])
def test_damaged_weights_in_the_download_cache_are_named_and_fetched_again(hub, snapshot, original, capsys, place):
    flip((snapshot / "model.safetensors").resolve(), place)
    assert load().checkpoint == models.checkpoint_fingerprint(original)
    assert hub.fetched == ["model.safetensors"]
    assert "'model.safetensors' of me/tiny is damaged on this disk: it is downloaded again" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["gone", "damaged"])
def test_damaged_weights_that_cannot_be_fetched_again_are_one_sentence(hub, snapshot, what):
    flip((snapshot / "model.safetensors").resolve())
    setattr(hub, what, True)
    with pytest.raises(LabError) as caught:
        load()
    assert "cannot be downloaded again" in sentence(caught) and "model_dir" in str(caught.value)


def test_a_snapshot_given_as_a_folder_is_compared_too(snapshot):
    assert models.load(config.resolve("tiny-causal", "zero_shot", model_dir=str(snapshot)))
    flip((snapshot / "model.safetensors").resolve())
    with pytest.raises(LabError) as caught:
        models.load(config.resolve("tiny-causal", "zero_shot", model_dir=str(snapshot)))
    assert "'model.safetensors' in the model's folder is damaged" in sentence(caught)


def test_a_hash_is_known_of_files_that_the_hub_keeps_under_theirs_and_of_no_others(snapshot, original):
    digest = hashlib.sha256((original / "model.safetensors").read_bytes()).hexdigest()
    assert integrity.hub_hash(snapshot / "model.safetensors") == digest
    assert integrity.hub_hash(snapshot / "config.json") is None and integrity.hub_hash(original / "model.safetensors") is None


def test_the_fingerprint_is_the_same_whether_the_hash_was_known_or_not(original, tmp_path):
    shutil.copytree(original, tmp_path / "own")
    assert models.checkpoint_fingerprint(original) == models.checkpoint_fingerprint(tmp_path / "own")


# --- a model's own folder


def test_a_changed_weight_in_a_folder_of_ones_own_cannot_be_known_and_shows_in_the_records_fingerprint(original, tmp_path):
    shutil.copytree(original, tmp_path / "own")
    before = models.load(config.resolve("tiny-causal", "zero_shot", model_dir=str(tmp_path / "own"))).checkpoint
    flip(tmp_path / "own" / "model.safetensors")
    assert models.load(config.resolve("tiny-causal", "zero_shot", model_dir=str(tmp_path / "own"))).checkpoint != before


@pytest.mark.parametrize("file, text, other", [
    ("model.safetensors", b'"dtype":"F32"', b'"dtype":"F33"'),
    ("model.safetensors", b'"shape":[', b'"shape":{'),
    ("model.safetensors", b"model.norm.weight", b"model.norn.weight"),
    ("model.safetensors", b'"data_offsets":[', b'"data_offsets":[9'),
    ("config.json", b'"hidden_size": 64', b'"hidden_size": "x"'),
    ("config.json", b'"num_attention_heads": 4', b'"num_attention_heads": 0'),
    ("tokenizer.json", b'"type": "ByteLevel"', b'"type": "BiteLevel"'),  # tokenizers raises a bare Exception
    ("tokenizer.json", b'"vocab": {', b'"vocab": ['),
])  # fmt: skip
def test_a_changed_description_is_one_sentence(original, tmp_path, file, text, other):
    shutil.copytree(original, tmp_path / "own")
    whole = (tmp_path / "own" / file).read_bytes()
    assert text in whole
    (tmp_path / "own" / file).write_bytes(whole.replace(text, other, 1))
    with pytest.raises(LabError) as caught:
        models.load(config.resolve("tiny-causal", "zero_shot", model_dir=str(tmp_path / "own")))
    assert "could not be loaded" in sentence(caught) or "lacks" in str(caught.value)


# --- what a run saved


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    small = {"train_examples": 4, "validation_examples": 1, "test_examples": 2, "max_new_tokens": 2}
    for method in ("lora", "full"):
        methods.run(config.resolve("tiny-causal", method, **small), folder)
    return folder


@pytest.fixture
def run_dir(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


WEIGHTS = {"lora": "adapter/adapter_model.safetensors", "full": "model/model.safetensors"}


@pytest.mark.parametrize("method", WEIGHTS)
@pytest.mark.parametrize(
    "use", [methods.restore, lambda run_dir, method: publish.prepare(runs.read(run_dir, method))], ids=["restore", "publish"]
)
@pytest.mark.parametrize("keep", [0.5, 0.0], ids=["cut-off", "empty"])
def test_saved_weights_that_were_cut_off_are_one_sentence_wherever_they_are_used(run_dir, method, use, keep):
    path = run_dir / method / WEIGHTS[method]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(LabError) as caught:
        use(run_dir, method)
    sentence(caught)
    assert not (run_dir / method / "hub").exists()


@pytest.mark.parametrize("name", ["adapter_config.json", "base.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"peft_type": "LORE"}', b"\xff\xfe"])
def test_a_damaged_description_of_an_adapter_is_one_sentence(run_dir, name, content):
    (run_dir / "lora" / "adapter" / name).write_bytes(content)
    with pytest.raises(LabError) as caught:
        methods.restore(run_dir, "lora")
    sentence(caught)


def test_an_adapter_without_weights_is_one_sentence(run_dir):
    (run_dir / "lora" / WEIGHTS["lora"]).unlink()
    with pytest.raises(LabError) as caught:
        methods.restore(run_dir, "lora")
    sentence(caught)


def test_saved_weights_are_compared_with_what_was_noted(run_dir):
    folder = run_dir / "lora" / "adapter"
    noted = models.checkpoint_fingerprint(folder)
    integrity.check_saved(folder, noted)
    flip(run_dir / "lora" / WEIGHTS["lora"])
    integrity.check_saved(folder)  # whole, as far as can be told without a note
    with pytest.raises(LabError, match=rf"'lora/adapter' are not those that the run saved .*{noted}") as caught:
        integrity.check_saved(folder, noted)
    sentence(caught)


def test_changed_weights_are_not_published_where_the_record_notes_their_hash(run_dir):
    path = run_dir / "lora" / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["model"]["saved"] = models.checkpoint_fingerprint(run_dir / "lora" / "adapter")
    path.write_text(json.dumps(record), encoding="utf-8")
    publish.prepare(runs.read(run_dir, "lora"))
    flip(run_dir / "lora" / WEIGHTS["lora"])
    with pytest.raises(LabError, match="not those that the run saved"):
        publish.prepare(runs.read(run_dir, "lora"))
