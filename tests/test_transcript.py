"""The instructors' page: its commands say what it shows."""

import difflib
import os

import pytest
import transcript


def test_blocks_are_run_and_files_written(tmp_path):
    page = "Look:\n\n```text a.txt\none\ntwo\n```\n\n```console\n$ cat a.txt\nold\n$ exit 3\n```\n\n```\n$ untouched\n```\n"
    found = transcript.run(page, tmp_path, dict(os.environ))
    assert "```console\n$ cat a.txt\none\ntwo\n$ exit 3\n```" in found and "```\n$ untouched\n```" in found


def test_figures_may_differ_and_words_may_not():
    assert transcript.structure("wrong 3   2.5 GB") == transcript.structure("wrong 4 12.25 GB")
    assert transcript.structure("wrong 3") != transcript.structure("right 3")


@pytest.mark.course
def test_every_command_of_the_page_says_what_the_page_shows(tmp_path):
    page = transcript.PAGE.read_text(encoding="utf-8")
    again = transcript.run(page, tmp_path, dict(os.environ))
    before, after = (transcript.structure(text).splitlines() for text in (page, again))
    assert before == after, "\n".join(difflib.unified_diff(before, after, "page", "now", lineterm=""))
