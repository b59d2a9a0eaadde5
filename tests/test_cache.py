"""What is prepared once: whole or not at all, whoever else is at it, and one sentence where there is no room."""

import errno
from pathlib import Path

import pytest

from lab_utils import cache
from lab_utils.errors import LabError


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def one_sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text
    return text


def whole(target: Path) -> None:
    (target / "whole").touch()


def test_the_cache_is_lab_cache_or_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache.folder() == tmp_path / "a"
    monkeypatch.delenv("LAB_CACHE")
    assert cache.folder() == tmp_path / "b" / "summarization-lab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "summarization-lab"


def test_a_thing_is_prepared_once(folder):
    written = []

    def write(target):
        written.append(target)
        whole(target)

    assert cache.prepared("model-1", write) == cache.prepared("model-1", write) == folder / "model-1"
    assert len(written) == 1


def test_it_appears_under_its_name_at_once_as_a_whole(folder):
    written = []

    def write(target):
        (target / "model.safetensors").touch()
        written.append(target.stat().st_ino)
        assert not (folder / "model-1").exists()

    assert [cache.prepared("model-1", write).stat().st_ino] == written


def test_others_may_read_it(folder):
    assert cache.prepared("model-1", whole).stat().st_mode & 0o055 == 0o055


def test_a_name_may_lie_in_a_folder_of_its_kind(folder):
    assert cache.prepared("tokens/ab12", whole) == folder / "tokens" / "ab12"
    assert [path.name for path in (folder / "tokens").iterdir()] == ["ab12"]


@pytest.mark.parametrize(
    "trouble, seen",
    [
        (OSError(errno.ENOSPC, "No space left on device"), LabError),
        (RuntimeError("a broken GGUF file"), RuntimeError),
        (LabError("Something to mend."), LabError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_half_written_one_is_never_left(folder, trouble, seen):
    def write(target):
        (target / "model.safetensors").write_bytes(b"half")
        raise trouble

    with pytest.raises(seen):
        cache.prepared("model-1", write)
    assert list(folder.iterdir()) == []
    assert (cache.prepared("model-1", whole) / "whole").exists()


def test_a_full_disk_is_one_sentence_with_the_room_that_is_needed(folder):
    def write(target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LabError) as caught:
        cache.prepared("model-1", write, needs="3 MB")
    text = one_sentence(caught)
    assert "'model-1'" in text and "No space left on device" in text and "needs 3 MB" in text and "LAB_CACHE" in text


def test_one_that_another_process_prepared_meanwhile_is_used(folder):
    def write(target):
        (folder / "model-1").mkdir()
        (folder / "model-1" / "theirs").touch()
        (target / "ours").touch()

    assert [path.name for path in cache.prepared("model-1", write).iterdir()] == ["theirs"]
    assert list(folder.iterdir()) == [folder / "model-1"]


def test_a_cache_that_cannot_be_written_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabError) as caught:
        cache.prepared("model-1", whole)
    assert "set LAB_CACHE" in one_sentence(caught)
