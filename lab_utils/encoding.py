"""Training rows of a whole split, tokenised once and kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab_utils import cache, data
from lab_utils.batching import Encoder, TooLong
from lab_utils.data import Example
from lab_utils.environment import say
from lab_utils.errors import LabError

KEPT_FROM = 500  # fewer examples are tokenised faster than they are looked up
TOLERATED = 0.05  # share of training summaries that may be too long
FILE = "rows.parquet"
VERSION = 2  # of how rows are made: another one is made anew


def rows(encoder: Encoder, examples: Sequence[Example]) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each example. Large splits are kept in the cache, by the fingerprint of all that they depend on.

    An example whose summary is longer than `summary_tokens` is left out and counted, since an answer is never cut.

    Raises:
        LabError: more than 5% of the summaries are too long.
    """
    made = _encoded(encoder, examples) if len(examples) < KEPT_FROM else _kept(encoder, examples)
    if len(made) < len(examples):
        limit = encoder.lengths.summary_tokens
        left_out = len(examples) - len(made)
        say(f"{left_out} of {len(examples):,} training summaries have more than summary_tokens={limit} tokens and are left out.")
    return made


def _kept(encoder: Encoder, examples: Sequence[Example]) -> list[dict[str, list[int]]]:
    """The rows from the cache, made anew where the file there cannot be read."""
    import pyarrow
    from pyarrow import parquet

    def write(folder: Path) -> None:
        say(f"Tokenising {len(examples):,} examples (once; they are kept in the cache) ...")
        parquet.write_table(pyarrow.Table.from_pylist(_encoded(encoder, examples)), folder / FILE)

    def read() -> list[dict[str, list[int]]]:
        folder = cache.prepared(name, write, needs=f"{len(examples) // 100} MB")
        return parquet.read_table(folder / FILE).to_pylist()

    name = f"tokens/{fingerprint(encoder, examples)}"
    try:
        return read()
    except (pyarrow.ArrowException, OSError):  # a damaged file, or none in the folder
        shutil.rmtree(cache.folder() / name, ignore_errors=True)
        return read()


def fingerprint(encoder: Encoder, examples: Sequence[Example]) -> str:
    """Of everything that decides the rows: examples, tokenizer with its template, prompt, limits, family."""
    parts = {
        "version": VERSION,
        "examples": data.fingerprint(examples),
        "tokenizer": encoder.tokenizer.backend_tokenizer.to_str(),
        "special": encoder.tokenizer.special_tokens_map,
        "template": encoder.tokenizer.chat_template,
        "prompt": encoder.prompt.model_dump(),
        "lengths": encoder.lengths.model_dump(),
        "family": encoder.family,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _encoded(encoder: Encoder, examples: Sequence[Example]) -> list[dict[str, list[int]]]:
    made, too_long = [], []
    for example in examples:
        try:
            made.append(encoder(example))
        except TooLong as error:
            too_long.append(error)
    if len(too_long) > TOLERATED * len(examples):
        raise LabError(f"{too_long[0]} ({len(too_long)} of {len(examples):,} summaries are too long.)")
    return made
