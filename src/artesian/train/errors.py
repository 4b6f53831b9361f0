"""Errors of the training library.

::

    TrainError
    ├── CheckpointError     a checkpoint that cannot be written, or none that can be read
    │   └── SupersededError   a save by an attempt that a later one has followed
    ├── DataError           training data that is not there, or too little
    └── UnstableError       losses that leap or are no numbers, and a policy that says to stop

The library stands alone, so this is a tree of its own; like every error of artesian's, each carries a
``hint``: what to do about it.
"""


class TrainError(Exception):
    """Base of every error that the training library raises on purpose."""

    is_final = False
    """Whether the same would come of another try at once, also by a process that starts anew."""

    def __init__(self, message: str, *, hint: str | None = None, is_final: bool | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if is_final is not None:
            self.is_final = is_final
        if hint is not None:
            self.add_note(f"hint: {hint}")  # a traceback is how a training script shows an error


class CheckpointError(TrainError):
    """A checkpoint that could not be written; or checkpoints, of which none is whole."""


class SupersededError(CheckpointError):
    """A save by an attempt of a job that a later attempt has followed: nothing is published, nothing removed."""

    is_final = True  # of the same attempt; the later one has taken its place


class DataError(TrainError):
    """Training data that is missing, unreadable or too short."""


class UnstableError(TrainError):
    """Losses that leap or are no numbers, again and again, or under a policy that says to stop."""

    is_final = True  # the guard has tried what there is to try
