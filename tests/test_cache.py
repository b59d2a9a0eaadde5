"""What is prepared once: whole or not at all, whoever else is at it, and one sentence where there is no room."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils import cache, files
from lab_utils.errors import LabError

CONTENT = bytes(range(256)) * 40


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
        cache.prepared("model-1", lambda theirs: (theirs / "theirs").touch())
        (target / "ours").touch()

    assert {path.name for path in cache.prepared("model-1", write).iterdir()} == {"theirs", cache.MANIFEST}
    assert list(folder.iterdir()) == [folder / "model-1"]


def test_one_that_another_process_left_unlisted_meanwhile_is_replaced(folder, capsys):
    def write(target):
        if not (folder / "model-1").exists():
            (folder / "model-1").mkdir()
            (folder / "model-1" / "theirs").touch()
        whole(target)

    assert {path.name for path in cache.prepared("model-1", write).iterdir()} == {"whole", cache.MANIFEST}
    assert list(folder.iterdir()) == [folder / "model-1"]


def test_a_cache_that_cannot_be_written_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabError) as caught:
        cache.prepared("model-1", whole)
    assert "set LAB_CACHE" in one_sentence(caught)


# --- damaged ones


def model(target: Path) -> None:
    (target / "inner").mkdir()
    (target / "model.safetensors").write_bytes(CONTENT)
    (target / "inner" / "config.json").write_text("{}", encoding="utf-8")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a byte": (lambda found: flip(found / "model.safetensors"), "model.safetensors is not as it was written"),
    "cut off": (lambda found: os.truncate(found / "model.safetensors", 100), "model.safetensors has 100 bytes, not 10,240"),
    "longer": (lambda found: (found / "model.safetensors").write_bytes(CONTENT + b"x"), "10,241 bytes"),
    "empty": (lambda found: (found / "inner" / "config.json").write_bytes(b""), "inner/config.json has 0 bytes"),
    "gone": (lambda found: (found / "model.safetensors").unlink(), "model.safetensors cannot be read"),
    "no list": (lambda found: (found / cache.MANIFEST).unlink(), "there is no list of its files"),
    "half a list": (lambda found: os.truncate(found / cache.MANIFEST, 30), "there is no list of its files"),
    "another list": (lambda found: (found / cache.MANIFEST).write_text('{"a": 1}', encoding="utf-8"), "there is no list of its files"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_one_is_named_in_one_line_and_prepared_again(folder, capsys, what):
    damage, words = DAMAGE[what]
    found = cache.prepared("model-1", model)
    damage(found)
    capsys.readouterr()
    assert cache.prepared("model-1", model) == found
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "'model-1' in the cache is damaged" in said and words in said and "prepared again" in said
    assert (found / "model.safetensors").read_bytes() == CONTENT and cache.damage(found) is None
    assert list(folder.iterdir()) == [found]


def test_one_that_may_not_be_read_is_prepared_again(folder, capsys, monkeypatch):
    """Permissions mean nothing to root, so the refusal is pretended."""
    cache.prepared("model-1", model)
    checksum = cache.sha256

    def refused_once(path):
        monkeypatch.setattr(cache, "sha256", checksum)
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(cache, "sha256", refused_once)
    cache.prepared("model-1", model)
    assert "cannot be read, Permission denied" in capsys.readouterr().out


def test_a_damaged_one_that_cannot_be_replaced_is_one_sentence(folder, monkeypatch):
    found = cache.prepared("model-1", model)
    flip(found / "model.safetensors")

    def refuse(path, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(LabError) as caught:
        cache.prepared("model-1", model)
    assert "delete it, or set LAB_CACHE" in one_sentence(caught) and "Permission denied" in str(caught.value)


def test_neither_the_clock_nor_the_times_of_files_decide_what_is_whole(folder, monkeypatch, capsys):
    written = []

    def write(target):
        written.append(target)
        model(target)

    found = cache.prepared("model-1", write)
    for moment in (0, 4_000_000_000):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        for path in [*found.rglob("*"), found]:
            os.utime(path, (moment, moment))
        assert cache.prepared("model-1", write) == found
    assert len(written) == 1 and capsys.readouterr().out == ""


# --- what a killed process leaves


KILLED = """
import os, signal, sys
from lab_utils import cache
def write(target):
    (target / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
cache.prepared("model-1", write)
"""


def test_what_a_killed_process_was_writing_is_never_used_and_is_removed(folder):
    ended = subprocess.run([sys.executable, "-c", KILLED], env=os.environ | {"LAB_CACHE": str(folder)})
    assert ended.returncode < 0
    (left,) = folder.iterdir()
    assert left.name.startswith(".model-1.") and (left / "model.safetensors").read_bytes() == b"half"
    assert (cache.prepared("model-2", whole) / "whole").exists()
    assert list(folder.iterdir()) == [folder / "model-2"]


def test_what_a_living_process_or_another_machine_writes_is_left_alone(folder, monkeypatch):
    folder.mkdir()
    living = files.unfinished(folder / "model-1")
    monkeypatch.setattr(socket, "gethostname", lambda: "another-node")
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)
    elsewhere = files.unfinished(folder / "model-1")
    monkeypatch.undo()
    monkeypatch.setenv("LAB_CACHE", str(folder))
    for path in (living, elsewhere):
        path.mkdir()
    cache.prepared("model-2", whole)
    assert living.is_dir() and elsewhere.is_dir()


def test_a_file_that_a_killed_process_was_writing_goes_when_the_file_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # a process that there is not
    left = [files.unfinished(tmp_path / name) for name in ("run.json", "other.json")]
    monkeypatch.undo()
    for path in left:
        path.write_text("ha", encoding="utf-8")
    files.write_json(tmp_path / "run.json", [1])
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "run.json", left[1]])
