"""Every error that a user of this package can meet, with the exit code of the command that stops on it.

Each message says, in one line, what was given, what was expected and what to do.
"""

import errno
from collections.abc import Iterable
from typing import Any

_MEMORY = (  # in lower case, with blanks for _
    "out of memory",
    "outofmemory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "failed to allocate",
    "not enough memory",
    "lack of memory",
    "memory allocation failed",
    "memoryallocation",
    "alloc failed",  # of cuBLAS, cuDNN and their like
    "bad alloc",
    "failed to map segment",  # of a library, at its import
)


class SevalError(Exception):
    """The base class of all errors here."""

    exit_code = 2  # bad input, or a file that cannot be used


class ConfigError(SevalError, ValueError):
    """A configuration, a table or a command line that cannot be used."""


class RecipeError(SevalError, ValueError):
    """A recipe, such as `mixmatch(alpha=0.5)`, that cannot be read or built."""


class PolicyError(RecipeError):
    """A policy, or a rule in a policy, that cannot be read or built."""


class DataError(SevalError, ValueError):
    """An image set or a raw file that cannot be used."""


class DamagedData(DataError):
    """A prepared file that is damaged or was altered: writing it again helps."""


class RecordError(SevalError, ValueError):
    """A file of a run that is damaged or belongs to something else."""


class OtherCode(RecordError):
    """A checkpoint that other code made; whether to go on with it is for the user to say."""


class MissingPrerequisite(SevalError, ValueError):
    """The run that this one depends on, `run`, has no record yet."""

    def __init__(self, run: Any) -> None:
        super().__init__(f"this run depends on run {run.id}, which has no record in {run.folder.parent}")
        self.run = run
        self.add_note("from Python: for each in run.chain(): each.execute()")  # shown below a traceback only


class TrainingError(SevalError, RuntimeError):
    """Training cannot continue, for example because a loss is not finite. The last checkpoint is kept."""

    exit_code = 3


class RunBusy(SevalError, RuntimeError):
    """Another live process holds the folder."""

    exit_code = 4


class Interrupted(SevalError, RuntimeError):
    """Training was asked to stop and has saved a checkpoint after `step` steps; this session began at step `begun`."""

    exit_code = 75  # EX_TEMPFAIL; 130 after Ctrl-C

    def __init__(self, step: int, begun: int, last: int) -> None:
        super().__init__(f"stopped after {step} of {last} steps")
        self.step, self.begun = step, begun


def one_line(error: BaseException) -> str:
    """The message of an error from another library in one line, to be part of a message of ours."""
    return " ".join(str(error).split()) or type(error).__name__


def memory_short(error: BaseException) -> bool:
    """Whether an error says that memory is short: on the GPU, on the host, or for a process that was killed for it."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return says(error, _MEMORY)


def says(error: BaseException, words: Iterable[str]) -> bool:
    """Whether one of the words, in lower case and with blanks for _, is in the name or the message of an error."""
    text = f"{type(error).__name__}: {error}".lower().replace("_", " ")
    return any(word in text for word in words)
