"""Writing a translation: the beam with kept keys beside whole sequences, and one beam beside the stream."""

import pytest
import torch

from echox.generate.beam import Search
from echox.generate.written import NEVER, write_best, write_stream
from echox.models.speech_translator import BLANK, END, SpeechTranslatorModel, TranslatorConfig
from tests.generate.slow_beam import beam_search_reference


@pytest.fixture
def world():
    torch.manual_seed(3)
    sizes = {"vocab_size": 24, "width": 16, "ffn": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 2}
    model = SpeechTranslatorModel(TranslatorConfig(**sizes, max_positions=32, dropout=0.0)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(2.0)  # so that sentences differ
    tokens = torch.tensor([[5, 6, 7, 8, 2], [9, 4, 2, 1, 1]])
    return model, model.read(tokens, tokens != 1), [tokens[:1], tokens[1:, :3]]


@pytest.mark.parametrize("beams", [1, 4])
def test_the_beam_equals_its_slow_twin(world, beams):
    model, states, alone = world
    found = write_best(model, states, most=8, beams=beams)
    for row, tokens in enumerate(alone):
        one = model.read(tokens, torch.ones_like(tokens, dtype=torch.bool))

        def score(prefix, one=one):
            targets = torch.tensor([[*prefix[1:], END]])  # the last is only there to be asked for
            with torch.no_grad():
                return model.logits(one, targets)[0, -1]

        search = Search(BLANK, END, beams, 1.0, 8, never=NEVER)
        assert found[row][0] == beam_search_reference(score, search).tokens


def test_the_stream_is_a_beam_of_one(world):
    model, _, alone = world
    for tokens in alone:
        states = model.read(tokens, torch.ones_like(tokens, dtype=torch.bool))
        assert list(write_stream(model, states, 8)) == write_best(model, states, 8, beams=1)[0][0]
