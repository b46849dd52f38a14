"""Every error a user can meet, in one tree; it knows nothing about audio, models or networks.

    EchoxError
    ├── InputError          an audio file, text, manifest or other file the user gave cannot be used
    ├── ConfigError         a recipe or setting is wrong
    ├── ModelError          a model is unknown, incomplete or does not fit its configuration
    ├── OutputError         a result cannot be written where it was asked for
    ├── EndpointError       a remote server did not answer as it should
    ├── Stopped             a run was told to end before it was done, and saved where it stood
    └── MissingDependency   an optional package is not installed

Each message is one sentence that names the thing and says what to do; the command line prints it and exits 1.
"""

from importlib import import_module
from types import ModuleType

LONGEST_REASON = 160  # characters of somebody else's message inside ours


class EchoxError(Exception):
    """Base of every error that a user can put right."""


class InputError(EchoxError):
    """Raised when a file or value the user gave cannot be used."""


class ConfigError(EchoxError):
    """Raised when a recipe or a setting is wrong."""


class ModelError(EchoxError):
    """Raised when a model is unknown, incomplete, or disagrees with its own configuration."""


class OutputError(EchoxError):
    """Raised when a result cannot be written."""


class EndpointError(EchoxError):
    """Raised when a remote server fails or answers in another shape than asked for."""


class Stopped(EchoxError):
    """Raised when a run was told to end before it was done; the same command goes on."""


class MissingDependency(EchoxError):
    """Raised when an optional package is absent; the message holds the exact install line."""


def reason_of(error: object) -> str:
    """Return what somebody else's error says as a part of a sentence: one line, cut between words where it is long."""
    return clipped(str(error).rstrip(". \n"), LONGEST_REASON) or type(error).__name__


def clipped(text: str, longest: int) -> str:
    """Return a text as one line, cut between words where it is long, and inside of a first word that alone is."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    end = longest - len(" ...")
    return f"{text[: cut if (cut := text.rfind(' ', 0, end + 1)) > 0 else end]} ..."


def require(module: str, extra: str = "", install: str = "", own: tuple[str, ...] = ()) -> ModuleType:
    """Import an optional `module`, or raise MissingDependency with the line that installs what is absent.

    That line is the `extra`'s, or `install`, which brings `module` and the packages called `own`; what else it needs is named.
    """
    line = install or f'pip install "openechox[{extra}]"'
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        absent = (error.name or module).partition(".")[0]
        line = line if absent in (module.partition(".")[0], *own) else f"pip install {absent}"
        what = "this" if absent == module.partition(".")[0] else module
        raise MissingDependency(f"{absent} is needed for {what} and is not installed: run {line}.") from error
    except ImportError as error:
        raise MissingDependency(f"{module} is installed but does not load ({error}): run {line} again.") from error
