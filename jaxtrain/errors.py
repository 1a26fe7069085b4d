"""The errors that a caller may want to tell apart.

Every message reads `<function>: <argument> must be <rule>, got <value>; <fix>`.
"""


class ConfigError(ValueError):
    """An argument or a configuration is outside what the function allows."""


class DataError(ValueError):
    """A data set is empty, inconsistent, non-finite, or does not fit the model."""


class StateError(ValueError):
    """A params, state or optimizer tree is not the one that was asked for."""


class RunError(OSError):
    """A run folder cannot be used: not writable, taken, or of another configuration."""


class CheckpointCorrupt(RuntimeError):
    """The bytes of a checkpoint are not the bytes that were committed."""


class CheckpointNotFound(FileNotFoundError):
    """There is no committed checkpoint where one was asked for."""


class NonFinite(ArithmeticError):
    """Training stopped: too many steps in a row had a non-finite loss, gradient or state."""
