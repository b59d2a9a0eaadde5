"""The one exception that a reader is meant to see, and how a command ends."""

import re

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130  # exit codes
STOPPED = "Stopped. What was finished is kept; the same command goes on from there."


class LabError(Exception):
    """Something the reader can mend. Its text says what was given, what is accepted and what to do next."""


class TrainingDiverged(LabError):
    """The loss or the gradient stopped being a number."""


def without_folders(text: str) -> str:
    """The text with absolute paths cut to their last part: a record is handed in, and where it was made is nobody's business."""
    return re.sub(r"(?<![\w.:/])(?:/|[A-Za-z]:\\)(?:[^\s/\\'\"]+[/\\])+", "", text)
