"""echox: train, run and measure speech-to-speech language models.

Public names load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from echox.errors import ConfigError, EchoxError, EndpointError, InputError, MissingDependency, ModelError, OutputError

if TYPE_CHECKING:
    from echox.assistant import SpeechAssistant
    from echox.generate.translation import Translation
    from echox.generate.types import Assistant, Piece, Question, Reply
    from echox.translator import SpeechTranslator
    from echox.units.sequence import Units

__version__ = "0.1.0"

_LAZY = {
    "Assistant": "echox.generate.types",
    "SpeechAssistant": "echox.assistant",
    "SpeechTranslator": "echox.translator",
    "Translation": "echox.generate.translation",
    "Question": "echox.generate.types",
    "Reply": "echox.generate.types",
    "Piece": "echox.generate.types",
    "Units": "echox.units.sequence",
}

__all__ = [
    "Assistant",
    "ConfigError",
    "EchoxError",
    "EndpointError",
    "InputError",
    "MissingDependency",
    "ModelError",
    "OutputError",
    "Piece",
    "Question",
    "Reply",
    "SpeechAssistant",
    "SpeechTranslator",
    "Translation",
    "Units",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'echox' has no attribute {name!r}")
