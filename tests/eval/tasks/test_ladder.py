"""The ladder from a text to its speech: every rung is what it says, and the table names what each adds."""

import json

import numpy as np
import pytest
import torch
from eval_fakes import FakeJudge

from echox import SpeechAssistant
from echox.errors import ConfigError, InputError
from echox.eval.model_under_test import at_16k
from echox.eval.questions import Item
from echox.eval.tasks.ladder import ARMS, Ladder, ladder_tables, read_texts, run_ladder
from echox.eval.tasks.speech import ReferenceVoice
from echox.generate.pauses import trimmed
from echox.prepare.voices import ToneVoice

TEXT = "The answer is seven, and it was found in the box. It is green."


@pytest.fixture(scope="module")
def ladder(toy_model):
    return Ladder.load(SpeechAssistant.load(str(toy_model), device="cpu", dtype="float32"), ToneVoice())


def test_every_rung_is_what_it_says(ladder):
    waves = ladder.say(TEXT)
    assert list(waves) == list(ARMS)
    voice = ToneVoice()
    np.testing.assert_array_equal(waves["voice"], voice.speak(TEXT, "tones", 1.0, 0))
    cut = [" It is green.", "The answer is seven,", " and it was found in the box."]
    said = {text: voice.speak(text.strip(), "tones", 1.0, 0) for text in cut}
    heard = np.concatenate([trimmed(said[text], voice.sample_rate, text) for text in (cut[1], cut[2], cut[0])])
    np.testing.assert_array_equal(waves["segments"], heard)


def test_copies_differ_by_their_durations_alone(ladder, monkeypatch):
    spoken = []

    def speak(self, ids, durations=None, states_UW=None):
        spoken.append((list(ids), durations))
        return np.ones(480, np.float32)

    monkeypatch.setattr(type(ladder.model.parts.vocoder), "speak", speak)
    ladder.say(TEXT)
    timed, copied = spoken[:3], spoken[3:]
    assert [ids for ids, _ in timed] == [ids for ids, _ in copied] and len(spoken) == 6
    assert all(durations is None for _, durations in copied)
    assert all(len(ids) == len(durations) for ids, durations in timed)


def test_t2c_says_what_the_assistant_says(ladder):
    said = ladder.model.say(TEXT)
    np.testing.assert_array_equal(ladder.say(TEXT)["t2c"], at_16k(said.audio, said.sample_rate))


def test_the_voice_says_whole_sentences_where_t2c_goes_on_in_them(ladder, monkeypatch):
    segments = ["The answer is seven,", " and it was found in the box.", " It is green."]
    assert ladder.utterances(TEXT) == segments
    monkeypatch.setattr(ladder.model.parts.t2c.config, "past_words", 9)
    assert ladder.utterances(TEXT) == ["".join(segments[:2]), segments[2]]
    assert ladder.utterances(TEXT[:-1]) == ["".join(segments[:2]), segments[2][:-1]]


class Fixed:
    """Says one word more wrongly at every rung; cannot say one text at all."""

    def say(self, text):
        if text == "no":
            raise InputError("the voice cannot say this.")
        return {arm: np.full(10, rung, np.float32) for rung, arm in enumerate(ARMS)}


def test_table_names_what_each_rung_adds(tmp_path, monkeypatch):
    judge = FakeJudge()
    heard = [" ".join("a" * (4 - wrong) + "x" * wrong) for wrong in range(5)]
    monkeypatch.setattr(judge, "transcribe", lambda waves: [heard[int(w[0])] if len(w) else "" for w in waves])
    beside = ReferenceVoice("tones", ToneVoice(), judge)
    (table,) = run_ladder(
        [Item("1", "a a a a", ()), Item("2", "no", ())], Fixed(), beside, {"model": "m", "questions": "q"}, tmp_path
    )
    assert [row[0] for row in table.rows] == list(ARMS) and {row[2] for row in table.rows} == {"1"}
    assert [row[3].split()[0] for row in table.rows] == ["0.0", "25.0", "50.0", "75.0", "100.0"]
    assert [row[4].split()[0] for row in table.rows] == ["-", "+25.00", "+25.00", "+25.00", "+25.00"]
    assert table.note.endswith("left out: 1.")
    with pytest.raises(ConfigError, match="questions_mark was"):  # the same file's other field
        run_ladder([Item("1", "b b b b", ())], Fixed(), beside, {"model": "m", "questions": "q"}, tmp_path)
    items = [json.loads(line) for line in (tmp_path / "ladder.jsonl").read_text().splitlines()][1:]
    assert ladder_tables({"judge": "j", "wer_normaliser": "n", "voice": "v"}, items)[0].rows == table.rows


def test_bad_input_is_named(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"id": "a", "text": "yes"}\n')
    assert read_texts(path, "text") == [Item("a", "yes", ())]
    path.write_text('{"id": "a", "text": "yes"}\n{"id": "b"}\n')
    with pytest.raises(InputError, match="line 2 has no `id` or no `text`"):
        read_texts(path, "text")
    with pytest.raises(ConfigError, match="model folder"):
        Ladder.load(torch.nn.Identity(), ToneVoice())
