"""A summary that a model wrote, and how those of an interrupted pass are kept, so that it goes on behind the last batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lab_utils import files, processes
from lab_utils.errors import LabError

UNFINISHED = "predictions.unfinished.jsonl"


@dataclass(frozen=True)
class Prediction:
    id: str
    prediction: str
    references: tuple[str, ...]
    tokens: int  # of the answer, EOS left out
    stopped: bool  # ended by EOS rather than by the length limit

    @classmethod
    def of(cls, row: dict) -> Prediction:
        """The prediction that `asdict` wrote."""
        return cls(**{**row, "references": tuple(row["references"])})


class Kept:
    """The predictions of one pass so far, by the example's number. One line of the file is one batch.

    A pass with another `key` has other summaries, so what is kept of it is not used.
    """

    def __init__(self, path: Path, key: str, say: Callable[[str], None]):
        self.path = path.with_suffix(f".{processes.index()}.jsonl") if processes.count() > 1 else path
        self.predictions: dict[int, Prediction] = {}
        self.seconds = 0.0  # that they took
        self._say, self._writes = say, True
        lines = [json.dumps({"key": key}), *self._read(key)]
        self._try(lambda: files.write_text(self.path, "".join(f"{line}\n" for line in lines)))

    def add(self, numbers: Sequence[int], predictions: Sequence[Prediction], seconds: float) -> None:
        """Keeps a batch.

        Args:
            seconds: that the pass has taken by now.
        """
        self.predictions |= dict(zip(numbers, predictions, strict=True))
        self.seconds = seconds
        row = {"numbers": list(numbers), "seconds": seconds, "predictions": [asdict(prediction) for prediction in predictions]}
        self._try(lambda: self._append(json.dumps(row) + "\n"))  # ASCII, so that half of a surrogate pair can be written

    def _append(self, line: str) -> None:
        with self.path.open("a", encoding="ascii") as file:
            file.write(line)

    def _read(self, key: str) -> list[str]:
        """The complete lines of an earlier pass with the same key; fills `predictions` with what they say."""
        try:
            first, *lines = self.path.read_text(encoding="ascii").split("\n")
            if json.loads(first) != {"key": key}:
                return []
        except (OSError, ValueError):
            return []
        complete = []
        for line in lines:
            try:
                row = json.loads(line)
                self.predictions |= dict(zip(row["numbers"], map(Prediction.of, row["predictions"]), strict=True))
                self.seconds = float(row["seconds"])
            except (ValueError, KeyError, TypeError):  # the process was killed in the middle of it
                break
            complete.append(line)
        return complete

    def _try(self, write: Callable[[], None]) -> None:
        if not self._writes:
            return
        try:
            write()
        except (OSError, LabError) as error:
            self._writes = False
            reason = getattr(error, "strerror", None) or error
            self._say(f"Summaries cannot be kept on the way ({reason}): they go on, but would begin again if they were interrupted.")
