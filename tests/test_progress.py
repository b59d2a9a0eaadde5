"""Progress that a reader sees, and how long the rest takes."""

import queue
import threading
from types import SimpleNamespace

import pytest

from lab_utils import progress


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock.now)
    return clock


def went_through(count, seconds, clock):
    said = []
    for _ in progress.through(range(count), "batches", lambda line: said.append((clock.now - 100, line))):
        clock.now += seconds
    return said


def test_what_takes_less_than_five_seconds_says_nothing(clock):
    assert went_through(9, 0.5, clock) == []


def test_a_line_comes_after_five_seconds_and_then_every_ten(clock):
    said = went_through(40, 1, clock)
    assert [when for when, _ in said] == [5, 15, 25, 35]
    assert said[0][1] == "5/40 batches, 35 s left" and said[-1][1] == "35/40 batches, 5 s left"


def test_the_end_needs_no_line(clock):
    assert went_through(1, 60, clock) == []


def test_the_pace_is_that_of_this_start(clock):
    said = []
    counted = progress.Progress(100, "summaries", said.append, done=90)
    clock.now += 8
    counted.at(92)
    assert said == ["92/100 summaries, 32 s left"]


def test_what_cannot_tell_how_far_it_is_says_that_it_goes_on_until_it_ends(monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.01)
    monkeypatch.setattr(progress, "EVERY", 0.01)
    said = queue.Queue()
    with progress.waiting("Loading a model", said.put):
        assert [said.get(timeout=60) for _ in range(3)] == 3 * ["Loading a model: 0 s so far"]
    assert not [thread for thread in threading.enumerate() if "tell" in thread.name]


def test_a_download_says_its_megabytes_and_the_time_left(clock):
    said = []
    bar = progress.downloads(said.append)
    files, bytes_there = bar(total=4, unit="it", desc="Fetching 4 files"), bar(total=0, unit="B", desc="Reconstructing")
    on_their_way = bar(total=0, unit="B", desc="Downloading bytes")
    bytes_there.total = on_their_way.total = 100_000_000
    for _ in range(10):
        clock.now += 2
        for one in (files, on_their_way, bytes_there):
            one.update(1 if one is files else 10_000_000)
    assert said == ["30 of 100 MB, 14 s left", "80 of 100 MB, 4 s left"]


def test_a_download_that_goes_on_counts_the_pace_of_this_time_only(clock):
    said = []
    with progress.downloads(said.append)(total=100_000_000, initial=90_000_000, unit="B", desc="model.safetensors") as bar:
        clock.now += 8
        bar.update(2_000_000)
    assert said == ["92 of 100 MB, 32 s left"]


@pytest.mark.parametrize("seconds, words", [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s")])
def test_a_duration_reads_as_a_person_says_it(seconds, words):
    assert progress.duration(seconds) == words
