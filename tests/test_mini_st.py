"""The shipped translator: what it hears and writes of the example, of text, and through its verbs' defaults."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from echox import SpeechTranslator
from echox.cli import app

QUESTION = Path(__file__).parents[1] / "examples" / "question.wav"


@pytest.fixture(scope="module")
def translator():
    return SpeechTranslator.load("mini-st")


def test_speech_is_heard_and_translated(translator):
    found = translator.translate(QUESTION)
    assert found.heard.startswith("what is the capital") and found.heard == translator.transcribe(QUESTION)
    assert found.text.startswith("¿Cuál es") and found.finish == "stop"


def test_text_is_translated(translator):
    texts = ["Where is the train station?", "I like bright colors."]
    station, colours = (found.text for found in translator.translate(typed=texts))
    assert station == "¿Dónde está la estación de tren?" and colours.startswith("Me gustan los colores")


def test_it_is_what_writes_unless_another_is_named():
    done = CliRunner().invoke(app, ["translate", "--typed", "Where is the train station?", "--to", "text"])
    assert done.exit_code == 0 and done.stdout == "¿Dónde está la estación de tren?\n"
