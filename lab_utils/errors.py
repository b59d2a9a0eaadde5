"""The one exception that a reader is meant to see, and how a command ends."""

DONE, FAILED, WRONG_USE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141  # exit codes
STOPPED = "Stopped. What was finished is kept; the same command goes on from there."


class LabError(Exception):
    """Something the reader can mend. Its text says what was given, what is accepted and what to do next."""


class TrainingDiverged(LabError):
    """The loss or the gradient stopped being a number."""
