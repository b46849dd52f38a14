"""The shipped model's parts, without the LLM that does not ship: each loads strictly, they fit, and they are small enough."""

from pathlib import Path

import pytest
import torch

import echox
from echox.generate.ears import TOKENIZER, special_ids
from echox.generate.parts import load_vocoder
from echox.models.echo import EchoDecoder
from echox.models.encoder import SpeechEncoder
from echox.models.io import read_config
from echox.models.listener import Listener
from echox.models.llm import load_text_tokenizer
from echox.models.t2c import TextToCodec
from echox.units.tokenizer import UnitTokenizer

MINI = Path(echox.__file__).parent / "mini"
pytestmark = pytest.mark.skipif(not (MINI / "config.json").exists(), reason="echox/mini is not in this checkout")


def test_parts_load_and_fit():
    t2c = TextToCodec.load(MINI / "t2c")
    echo, listener = EchoDecoder.load(MINI / "echo", t2c), Listener.load(MINI / "listener")
    units, vocoder = UnitTokenizer.load(MINI / "units"), load_vocoder(MINI / "vocoder")
    assert t2c.config.unit_vocab_size == echo.config.unit_vocab_size == units.vocab_size
    assert units.lexicon.units == vocoder.config.num_units
    assert t2c.config.spelling == echo.config.spelling
    encoder = SpeechEncoder.from_pretrained(MINI / "encoder")
    assert 1 <= read_config(MINI)["encoder_layer"] <= encoder.num_layers
    assert listener.config.width == encoder.width and not read_config(MINI / "s2t")["hears"]
    special_ids(load_text_tokenizer(MINI / "listener" / TOKENIZER), listener.config)
    assert echo.config.tokens and float(echo.gate) == 0.0  # it says what T2C says of the LLM's tokens


def test_unit_words_become_sound():
    units, vocoder = UnitTokenizer.load(MINI / "units"), load_vocoder(MINI / "vocoder").eval()
    words = list(range(10, 30))
    wave = vocoder.speak(units.decode(words))
    assert len(wave) > 1600 and torch.isfinite(torch.as_tensor(wave)).all()


def test_files_are_small_enough_to_ship():
    sizes = {path: path.stat().st_size / 1e6 for path in MINI.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 45 and sum(sizes.values()) < 95
