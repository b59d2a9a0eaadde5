"""The one exception that a reader is meant to see."""


class LabError(Exception):
    """Something the reader can mend. Its text says what was given, what is accepted and what to do next."""


class TrainingDiverged(LabError):
    """The loss or the gradient stopped being a number."""
