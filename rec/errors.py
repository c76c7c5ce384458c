"""The three things a user can get wrong. Everything else that is raised is a defect of ours.

A message is one sentence: what is wrong, where (key, file and line), and the remedy. `launch` prints it without
a traceback and exits with code 2.
"""


class UserError(Exception):
    """Base of the errors that end a command with exit code 2."""

    told = False
    """Whether another rank tells it: what all ranks raise together is printed once."""


class ConfigError(UserError):
    """A configuration key or value, or a command-line argument."""


class DatasetError(UserError):
    """A log or a prepared dataset."""


class CheckpointError(UserError):
    """A run folder, a checkpoint or a saved model."""
