"""Optional packages of the harness: imported when they are needed, or refused with the line that installs them."""

from importlib import import_module
from types import ModuleType

from echox.errors import MissingDependency

EXTRA = 'pip install "openechox[eval]"'


def need(module: str, install: str = EXTRA, own: tuple[str, ...] = ()) -> ModuleType:
    """Return an optional module, or raise MissingDependency with the exact line that installs what is absent.

    `install` brings the module and the packages called `own`; something else that they import is named by itself.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        absent = (error.name or module).partition(".")[0]
        line = install if absent in (module.partition(".")[0], *own) else f"pip install {absent}"
        what = "this" if absent == module else module
        raise MissingDependency(f"{absent} is needed for {what} and is not installed: run {line}.") from error
    except ImportError as error:
        raise MissingDependency(f"{module} is installed but does not load ({error}): run {install} again.") from error
