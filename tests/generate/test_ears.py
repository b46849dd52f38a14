"""Both ears behind one interface: windows, long recordings cut at pauses, and nothing understood."""

import numpy as np
import pytest
import torch

from echox.errors import ModelError
from echox.features.cuts import cut_at_pauses
from echox.generate.ears import LONGEST, AttentionEar, fill_window, special_ids
from echox.models.encoder import SpeechEncoder
from echox.models.listener import Listener, ListenerConfig
from echox.models.llm import load_text_tokenizer
from echox.train.toy import write_whisper


class Letters:
    """Stands for the LLM's side: a token a letter, an embedding a token."""

    def embed(self, ids):
        return torch.tensor(ids, dtype=torch.float32)[:, None].expand(-1, 4)

    def __call__(self, text, add_special_tokens=False, **_):
        return type("Encoded", (), {"input_ids": [ord(letter) for letter in text]})


@pytest.fixture(scope="module")
def ear(tmp_path_factory):
    folder = write_whisper(tmp_path_factory.mktemp("whisper"))
    listener = Listener.from_whisper(folder).eval()
    tokenizer = load_text_tokenizer(folder / "tokenizer.json")
    return AttentionEar(SpeechEncoder.from_pretrained(folder), 2, listener, tokenizer, Letters(), Letters())


def waves(*seconds):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(int(s * 16_000))).astype(np.float32) for s in seconds]


def test_a_window_is_whole_seconds_with_silence_behind_the_words():
    for samples in (0, 1, 7_999, 8_000, 8_001, 16_000, 50_000):
        filled = fill_window(np.ones(samples, np.float32))
        assert len(filled) % 16_000 == 0 and 8_000 <= len(filled) - samples < 24_000
        assert not filled[samples:].any()


def test_heard_alone_as_in_company(ear):
    some = waves(0.7, 2.2, 1.4)
    together = ear.hear(some)
    for wave, heard in zip(some, together, strict=True):
        alone = ear.hear([wave])[0]
        assert alone.text == heard.text
        assert len(heard.positions_NH) == len(heard.text)  # a letter a position


def test_a_long_recording_is_the_sum_of_its_pieces(ear):
    wave = waves(40)[0]
    parts = [ear.hear([piece])[0].text for piece in cut_at_pauses(wave, LONGEST)]
    assert ear.hear([wave])[0].text == " ".join(part for part in parts if part)


def test_no_words_no_positions(ear, monkeypatch):
    monkeypatch.setattr(ear.listener, "generate", lambda *_: [[]])
    heard = ear.hear(waves(1.0))[0]
    assert heard.text == "" and len(heard.positions_NH) == 0


def test_a_tokenizer_without_the_special_tokens_is_refused(ear):
    with pytest.raises(ModelError, match="no token <|nothing|>".replace("|", r"\|")):
        special_ids(ear.listener_tokenizer, ListenerConfig(end="<|nothing|>"))
