"""Whatever words the commands get: an exit code that means what it says, one line, no traceback; and nothing is trained."""

import contextlib
import io
import json
import os
import sys
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import wild_texts
from test_properties_config import NAMES, file_contents, tame

from lab_utils import cli

# A system hands bytes over that are no text as halves of characters, and never a NUL.
words = st.one_of(
    wild_texts.map(lambda text: text.replace("\0", "")),
    st.sampled_from(["-", "--", "-x", "", "/", "..", "x" * 300, "\udcff", "nowhere.yaml", "a/b"]),
)
parameters = st.lists(st.builds("{}={}".format, st.sampled_from(NAMES), words) | words, max_size=2).map(
    lambda given: [f"-p{word}" for word in given]
)
recipes = st.one_of(words.map(lambda word: f"no-recipe{word}"), st.just("tiny-causal"))


def option(name, value, before=""):
    return st.builds("--{}={}{}".format, st.just(name), st.just(before), value)


# What would train or write much is given a name that nothing has.
NEVER = "no-such-"
COMMANDS = [
    ("plan", option("recipe", recipes), option("method", words | st.sampled_from(["lora", "full"]))),
    ("plan", option("assignment", words)),
    ("run", option("recipe", words, NEVER), option("only", words)),
    ("run", option("assignment", words, NEVER), option("student", words)),
    ("train", option("recipe", words, NEVER), option("method", words), option("seed", words | st.integers())),
    ("search", "--recipe=tiny-causal", option("method", words, NEVER), option("rates", words | st.sampled_from(["1e-4,nan", "1e400"]))),
    ("assignment", words.map(NEVER.__add__), "--out=out"),
    ("assignment", "first-week", "--out=out", option("students", words, "nowhere/")),
    ("assignment", "first-week", "--out=out", option("for", words, NEVER)),
    ("pack", words, option("student", words)),
    ("check", words.map("nowhere/".__add__), st.sampled_from(["--assignment=first-week", "--assignment=none"])),
    ("sweep", words.map("nowhere/".__add__), option("out", words), "--list"),
    ("report", words),
    ("rate", words, option("rater", words), option("items", words | st.integers())),
    ("summarize", option("run", words | st.just("nowhere/lora")), words.map("nowhere/".__add__)),
    ("publish", option("run", words | st.just("nowhere/lora")), option("to", words)),
    (words, words),
]
commands = st.one_of(*(st.tuples(*(st.just(word) if isinstance(word, str) else word for word in command)) for command in COMMANDS))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder of its own, so that no word is the name of a file here."""
    folder, before = tmp_path_factory.mktemp("cli"), os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def lab(*given):
    """Exit code and what was said on the error stream."""
    error, out = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2))
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out), mock.patch.object(sys, "stdin", io.StringIO("")):
        try:
            code = cli.main(given)
        except SystemExit as ended:  # argparse: help, or wrong use
            code = ended.code or 0
    error.flush()
    return code, error.buffer.getvalue().decode("utf-8")


def assert_is_said_in_a_line(code, said):
    assert code in (cli.DONE, cli.FAILED, cli.WRONG_USE) and "Traceback" not in said
    lines = said.splitlines()
    if code == cli.FAILED:
        assert said.startswith("error: ") and (len(lines) == 1 or all(line.startswith("  ") for line in lines[1:])), said
    if code == cli.WRONG_USE:
        assert said.startswith("usage: ")


@given(commands, parameters)
@settings(max_examples=150)
@example(("report", "a\nb\x1b[31m"), [])
@example(("search", "--recipe=tiny-causal", "--method=lora", "--rates=--"), [])
@example(("plan", "--recipe=tiny-causal"), ["-p--"])
@example(("plan", "--recipe=tiny-causal", "--method=lora"), ["-pepochs=1e308"])
@example(("plan", "--recipe=tiny-causal", "--method=lora"), ["-pbatch_size=1000000000", "-pepochs=1e-300"])
@example(("plan", "--recipe=tiny-causal", "--method=lora"), ["-pmodel=x\ny"])
@example(("plan", "--recipe=" + "x" * 300 + ".yaml", "--method=lora"), [])
@example(("assignment", "first-week", "--out=out", "--students=" + "x" * 300), [])
def test_any_words_end_in_an_exit_code_and_a_line(elsewhere, command, given):
    said = lab(*map(str, command), *(given if command[0] in ("plan", "run", "train", "search") else ()))
    assert_is_said_in_a_line(*said)


@given(file_contents, st.sampled_from(["students", "grid", "recipe", "assignment", "text"]))
@settings(max_examples=100)
@example(b"a" * 200_000, "students")
@example(b'"a', "students")
@example(b"\xff", "text")
def test_a_file_of_any_bytes_ends_in_an_exit_code_and_a_line(elsewhere, content, what):
    (elsewhere / "file.yaml").write_bytes(content)
    command = {
        "students": ["assignment", "no-assignment", "--out=out", "--students=file.yaml"],
        "grid": ["sweep", "file.yaml", "--out=out", "--list"],
        "recipe": ["plan", "--recipe=file.yaml"],
        "assignment": ["plan", "--assignment=file.yaml"],
        "text": ["summarize", "--run=nowhere/lora", "file.yaml"],
    }[what]
    assert_is_said_in_a_line(*lab(*command))


@given(
    st.sampled_from(["recipe", "method", "methods", "grid", "also", "common", "seeds", "title", "measure"]),
    tame,
    st.dictionaries(st.sampled_from(NAMES), tame, max_size=2),
)
@settings(max_examples=100)
def test_any_grid_ends_in_an_exit_code_and_a_line(elsewhere, field, value, varied):
    grid = {"recipe": "tiny-causal", "method": "lora", "grid": {name: [value, 1] for name, value in varied.items()}} | {field: value}
    (elsewhere / "grid.yaml").write_text(json.dumps(grid), encoding="utf-8")
    assert_is_said_in_a_line(*lab("sweep", "grid.yaml", "--out=out", "--list"))
