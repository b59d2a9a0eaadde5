"""The commands of a page run again: `python tests/transcript.py PAGE` writes what they say into it.

A block ```` ```console ```` holds commands, each behind `$ `, and what they say. A block with a file's name behind its language is
written to that file.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "notebooks" / "INSTRUCTORS.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
LIMIT_SECONDS = 900


def checkout(folder):
    """A copy of what the commands need, so that nothing is left in this one; returns the environment to run them in."""
    for part in ("lab_utils", "notebooks"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for part in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / part, folder)
    programs = folder / ".bin"
    programs.mkdir()
    (programs / "lab").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lab_utils "$@"\n')
    (programs / "lab").chmod(0o755)
    return programs


def run(page, folder, environment):
    """The page's text with what its commands say now, in that folder."""
    programs = checkout(folder)
    variables = environment | {
        "PATH": f"{programs}:{environment['PATH']}",
        "PYTHONPATH": str(folder),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
    }

    def again(block):
        language, name, text = block.groups()
        if name:
            (folder / name).write_text(text, encoding="utf-8")
        if language != "console":
            return block[0]
        said = []
        for command in re.findall(r"^\$ (.*)$", text, re.M):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT_SECONDS,
            )
            said.append(f"$ {command}\n{done.stdout.replace(str(folder), 'summarization-lab')}")
        return f"```console\n{''.join(said)}```"

    return BLOCK.sub(again, page)


def structure(page):
    """What must not change between machines: the words, not figures or hashes, and not how columns are padded for them."""
    return re.sub(r"[ \t]+", " ", re.sub(r"\d+(\.\d+)?", "#", re.sub(r"-[0-9a-f]{12}\b", "-#", page)))


if __name__ == "__main__":
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(run(PAGE.read_text(encoding="utf-8"), Path(scratch), dict(os.environ)), encoding="utf-8")
