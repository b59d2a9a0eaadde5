"""Tests use toy objects, no network and no GPU."""

import gc
import os
import socket

import pytest
import versions

from lab_utils import assignments, check

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side, and toy models are no faster on more threads
    os.environ["OMP_NUM_THREADS"] = "1"

LOOPBACK = ("127.", "::1", "localhost")


def pytest_collection_modifyitems(config, items):
    """Files that execute notebooks or a real model come first: with two workers, what takes long must not come last."""
    if "hf" in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("notebook") or item.get_closest_marker("model") or versions.hf_layer(item.path):
                item.add_marker("hf")
    long = {item.path for item in items if item.get_closest_marker("notebook") or item.get_closest_marker("model")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """Trainings collect garbage, which takes a second where the libraries' own objects are looked through every time."""
    gc.freeze()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Connections to anything but this machine fail, as they do where the lab must run."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise OSError(f"the tests must not reach the network (tried {address[0]})")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def no_hints_yet(monkeypatch):
    """An exercise counts wrong answers; every test starts at none."""
    for exercise in check.EXERCISES.values():
        monkeypatch.setattr(exercise, "wrong_answers", 0)


@pytest.fixture(scope="session", params=["tiny-causal", "tiny-seq2seq"])
def recipe(request):
    """Both model families."""
    return request.param


@pytest.fixture(scope="module")
def load_assignment(tmp_path_factory):
    """Reads an assignment from the text of its file."""

    def load(text, name="week"):
        path = tmp_path_factory.mktemp("assignments") / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return assignments.load(path)

    return load


@pytest.fixture
def write_lines(tmp_path):
    """Writes a JSON-lines data folder from lists of raw lines; returns its path. A split not given holds one document of its own."""
    others = {split: [f'{{"document": "A document of the {split} split.", "summary": "One."}}'] for split in ("validation", "test")}

    def write(train, validation=None, test=None):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for name, lines in (("train", train), ("validation", validation or others["validation"]), ("test", test or others["test"])):
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    return write
