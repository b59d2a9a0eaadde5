"""From examples to padded tensors: documents are cut, answers never; labels are masked by position."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab_utils import processes
from lab_utils.config import Lengths, Prompt
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.prompts import answer_ids, cut_document, prompt_ids

IGNORED = -100  # the label that cross_entropy skips


class TooLong(LabError):
    """A summary over the limit: it must not be cut, so it cannot be trained on."""


@dataclass(frozen=True)
class Encoder:
    """Turns examples into token ids. A causal row is prompt + answer; an encoder-decoder keeps the two apart."""

    tokenizer: object
    family: str
    prompt: Prompt
    lengths: Lengths

    def prompt_of(self, document: str, shots: Sequence[Example] = ()) -> list[int]:
        document, _ = cut_document(self.tokenizer, document, self.lengths.document_tokens)
        return prompt_ids(self.tokenizer, self.prompt, document, shots)

    def is_cut(self, document: str) -> bool:
        return cut_document(self.tokenizer, document, self.lengths.document_tokens)[1]

    def __call__(self, example: Example) -> dict[str, list[int]]:
        """`input_ids` and `labels` of a training row.

        Raises:
            TooLong: the summary alone is longer than `summary_tokens`.
        """
        prompt = self.prompt_of(example.document)
        answer = answer_ids(self.tokenizer, self.prompt, example.summary)
        if len(answer) > self.lengths.summary_tokens:
            raise TooLong(
                f"The summary of '{example.id}' has {len(answer)} tokens, more than summary_tokens={self.lengths.summary_tokens}: "
                "raise that limit or shorten the summary (answers are never cut)."
            )
        if self.family == "causal":
            return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}
        return {"input_ids": prompt, "labels": answer}


@dataclass(frozen=True)
class Collator:
    """Pads rows on the right. The attention mask and the labels come from row lengths, never from token ids,
    so that a pad token that is also EOS cannot hide the EOS that the model must learn."""

    pad_id: int
    decoder_start_id: int | None = None  # set for encoder-decoders, which read the answer shifted by one

    def __call__(self, rows: Sequence[dict]) -> dict:
        import torch

        ids = [list(row["input_ids"]) for row in rows]
        labels = [list(row["labels"]) for row in rows]
        batch = {
            "input_ids": torch.tensor(pad_right(ids, self.pad_id)),
            "attention_mask": torch.tensor(pad_right([[1] * len(row) for row in ids], 0)),
            "labels": torch.tensor(pad_right(labels, IGNORED)),
        }
        if self.decoder_start_id is not None:
            shifted = [[self.decoder_start_id, *row[:-1]] for row in labels]
            batch["decoder_input_ids"] = torch.tensor(pad_right(shifted, self.pad_id))
        return batch


def pad_right(rows: Sequence[Sequence[int]], value: int) -> list[list[int]]:
    width = max(map(len, rows))
    return [[*row, *[value] * (width - len(row))] for row in rows]


def pad_left(rows: Sequence[Sequence[int]], value: int) -> list[list[int]]:
    width = max(map(len, rows))
    return [[*[value] * (width - len(row)), *row] for row in rows]


SORTED_TOGETHER = 50  # batches: enough to find rows of like length, few enough that batches of a large set differ in every epoch
BLUR = 0.05  # of a length, up or down, so that batches of a small set differ in every epoch too


@dataclass
class SimilarLengths:
    """Orders of rows in which every batch holds rows of similar length, so that there is little to pad.

    Batches come in random order, but the one with the longest row comes first, where too little memory shows at once, and an unfilled one
    comes last. transformers' own sampler sorts a quarter of the data at a time, which does nothing for small sets, and feeds each quarter
    from its longest rows to its shortest.
    """

    lengths: Sequence[int]
    batch_size: int
    _before: Any = None  # the random numbers' state before the last order was drawn
    _again: bool = False  # draw the next one from that state, and so the same

    @property
    def state(self) -> str | None:
        """What `go_on` must be given, in another process, to get the last order once more; None where none was drawn."""
        return None if self._before is None else self._before.numpy().tobytes().hex()

    def go_on(self, state: str) -> None:
        import torch

        self._before, self._again = torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8), True

    def __iter__(self) -> Iterator[int]:
        import torch

        if self._again:
            torch.set_rng_state(self._before)
        self._before, self._again = torch.get_rng_state(), False
        count, size = len(self.lengths), self.batch_size
        lengths = torch.tensor(self.lengths, dtype=torch.float)
        blurred = lengths * (1 + BLUR * (2 * torch.rand(count) - 1))
        shuffled = torch.randperm(count)
        together = [rows[blurred[rows].argsort(descending=True)] for rows in shuffled.split(SORTED_TOGETHER * size)]
        batches = list(torch.cat(together).split(size))
        unfilled = [batches.pop()] if count % size else []
        longest = max(range(len(batches)), key=lambda i: lengths[batches[i]].max(), default=None)
        first = [] if longest is None else [batches.pop(longest)]
        mixed = [batches[i] for i in torch.randperm(len(batches))]
        return iter(torch.cat([*first, *mixed, *unfilled]).tolist())


@dataclass(frozen=True)
class Shares:
    """The micro-batches of this process for one epoch, as indices of rows: every batch is the one that a single process reads.

    The main process draws the order for all. Where rows run out within a batch, they are dealt out evenly, and a process that gets none
    reads the row after the last, a filler.
    """

    sampler: Iterable[int]  # each time it is read, another order of the rows
    rows: int
    micro_batch: int  # of one process

    @property
    def _at_once(self) -> int:
        return self.micro_batch * processes.count()

    def __len__(self) -> int:
        return math.ceil(self.rows / self._at_once)

    def __iter__(self) -> Iterator[list[int]]:
        order = processes.gather(list(self.sampler) if processes.is_main() else None)[0]
        for start in range(0, len(order), self._at_once):
            rows = order[start : start + self._at_once]
            first, last = (len(rows) * i // processes.count() for i in (processes.index(), processes.index() + 1))
            yield rows[first:last] or [len(order)]


def filler(rows: Sequence[dict]) -> dict[str, list[int]]:
    """A row that supervises nothing, for a process that has no other in a step which all must take: it adds 0 to loss and gradient."""
    causal = rows[0]["labels"][0] == IGNORED  # prompt and answer in one; else the answer alone, of which a decoder reads the start
    return {"input_ids": list(rows[0]["input_ids"])[:2], "labels": [IGNORED] * (2 if causal else 1)}
