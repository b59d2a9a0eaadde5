"""The one exception that a reader is meant to see."""

import re


class LabError(Exception):
    """Something the reader can mend. Its text says what was given, what is accepted and what to do next."""


class TrainingDiverged(LabError):
    """The loss or the gradient stopped being a number."""


def without_folders(text: str) -> str:
    """The text with absolute paths cut to their last part: a record is handed in, and where it was made is nobody's business."""
    return re.sub(r"(?<![\w.:/])(?:/|[A-Za-z]:\\)(?:[^\s/\\'\"]+[/\\])+", "", text)
