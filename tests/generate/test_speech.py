"""The speech of an answer where T2C goes on in a sentence: the stream equals the batch, and the sentence said at once."""

import numpy as np
import pytest
import torch

from echox import SpeechAssistant
from echox.generate import answer, speech
from echox.generate.speech import Speech
from echox.models.decoding import alone
from echox.models.llm import text_of_pieces, token_pieces
from echox.text.prompt import encode
from echox.text.segmenter import PhraseSegmenter, cut_text
from echox.train.toy import sound_of
from tests.toy_model import listening_model, toy_model  # noqa: F401 - fixtures

TEXT = "The capital of France is Paris, which lies on the river Seine. It is old"
LONGEST = 24  # unit words a segment of these tests: an untrained decoder would not end


@pytest.fixture
def model(listening_model):  # noqa: F811
    model = SpeechAssistant.load(str(listening_model), device="cpu", dtype="float32")
    model.parts.segmenter = PhraseSegmenter(first_phrase=2, first_longest=3, early=9, longest=4)
    model.parts.t2c.config.past_words, model.parts.t2c.config.longest = 9, LONGEST
    return model


def segments(parts, text):
    ids = encode(parts.reader.tokenizer, text)
    pieces = token_pieces(parts.reader.tokenizer, ids)
    for first, end in cut_text(pieces, parts.segmenter):
        positions_NH = parts.t2c.embed_text(ids[first:end], parts.reader.embeddings_VH).float()
        yield positions_NH, parts.t2c.layout(pieces[first:end]), text_of_pieces(pieces[first:end])


def test_a_sentence_is_one_utterance_and_the_next_begins_anew(model, monkeypatch):
    """The slow twin: all segments of a sentence through T2C one after the other, their units at once through the vocoder."""
    monkeypatch.setattr(speech, "SETTLED", 0)
    parts, whole, units = model.parts, [], []
    parts.trims = False
    for sentence in (["The capital of France is Paris, which lies on the river Seine."], [" It is old"]):
        past, said = [], []
        for positions_NH, layout, text in segments(parts, TEXT):
            if text.strip() in sentence[0]:
                made = parts.t2c.generate([positions_NH], [layout], past=[past[-9:]])[0].ids
                past += made
                said += parts.unit_tokenizer.decode(made)
        assert len(past) > 2 * LONGEST or "old" in sentence[0]
        units += said
        whole.append(parts.vocoder.speak(said))
    made, speaking = [], Speech(parts, parts.t2c)
    for positions_NH, layout, text in segments(parts, TEXT):
        made += speaking.say(positions_NH, layout, text, alone)
    made += speaking.end()
    assert [unit for piece in made for unit in piece.units] == units
    np.testing.assert_allclose(np.concatenate([p.audio for p in made]), np.concatenate(whole), atol=1e-4)


@pytest.mark.parametrize("settled", [0, 2])
def test_stream_equals_ask_and_batch(model, monkeypatch, settled):
    monkeypatch.setattr(speech, "SETTLED", settled)
    waves = [sound_of("What is the capital of France?"), sound_of("Who is the king?")]
    for together, wave in zip(model.ask_many(waves), waves, strict=True):
        pieces = list(model.stream(wave))
        assert [u for p in pieces for u in p.units] == together.units and len(together.units) > LONGEST
        streamed = np.concatenate([p.audio for p in pieces if p.audio is not None])
        np.testing.assert_allclose(streamed, together.audio, atol=1e-4)
        limit = 0.6 * len(streamed) / model.sample_rate
        short, batch = model.ask(wave, max_seconds=limit), model.ask_many([wave], max_seconds=limit)[0]
        assert len(short.audio) == int(limit * model.sample_rate) and short.finish == batch.finish == "length"
        assert short.text == batch.text.strip()
        np.testing.assert_allclose(short.audio, batch.audio, atol=1e-4)


def test_a_segment_goes_on_from_the_last_words_of_its_sentence(model, monkeypatch):
    t2c, past = type(model.parts.t2c), []
    line = t2c.line
    monkeypatch.setattr(t2c, "line", lambda self, *given: past.append(len(given[2])) or line(self, *given))
    model.say(TEXT)
    assert past[0] == 0 and past[1] == 9 and past.count(0) == 2  # the second sentence begins anew
    past.clear()
    model.parts.t2c.config.past_words = 0
    model.say(TEXT)
    assert not any(past) and len(past) > 3


def test_settled_speech_comes_sooner(model, monkeypatch):
    positions_NH, layout, text = next(segments(model.parts, TEXT))

    def first(settled):
        monkeypatch.setattr(speech, "SETTLED", settled)
        speaking = Speech(model.parts, model.parts.t2c)
        return sum(len(piece.audio) for piece in speaking.say(positions_NH, layout, text, alone))

    assert first(1) > first(0)


def test_nothing_said_is_nothing_heard(model):
    with torch.inference_mode():
        assert not list(Speech(model.parts, model.parts.t2c).end())
    reply = answer.Answer([], "", [], None, "empty")
    answer.speak_batch(model.parts, [reply], [answer._Said()], None)
    assert reply.audio is not None and not len(reply.audio)


def test_an_answer_ends_where_its_stream_does_whatever_is_left_of_a_sentence(model):
    """The budget may run out in what is left open, and a sentence may end with a number."""
    parts, wave = model.parts, sound_of("What is the capital of France?")
    whole = model.ask(wave)
    assert not whole.text.endswith(".")  # so that the end is left open
    for missing in (1, 500):
        limit = (len(whole.audio) - missing) / model.sample_rate
        short, batch = model.ask(wave, max_seconds=limit), model.ask_many([wave], max_seconds=limit)[0]
        assert short.finish == batch.finish == "length" and len(short.audio) == len(batch.audio)
    assert parts.t2c.past_of([3, 4], " It was 42.") == [] == parts.t2c.past_of([3, 4], " It was forty two.")
    speaking = Speech(parts, parts.t2c)
    positions_NH, layout, _ = next(segments(parts, TEXT))
    made = [*speaking.say(positions_NH, layout, "", alone), *speaking.end()]  # a special token has no text
    assert not speaking.past and sum(len(piece.audio) for piece in made) > 0
