"""Both ears behind one interface: windows, long recordings cut at pauses, and nothing understood."""

import numpy as np
import pytest
import torch

from echox.errors import ModelError
from echox.features.cuts import cut_at_pauses
from echox.generate import ears
from echox.generate.beam import Hypothesis
from echox.generate.ears import FEWER_WORDS, LONGEST, AttentionEar, fill_window, special_ids
from echox.models.encoder import SpeechEncoder
from echox.models.listener import Greedy, Listener, ListenerConfig
from echox.models.llm import load_text_tokenizer
from echox.train.toy import write_whisper


class Letters:
    """Stands for the LLM's side: a token a letter, an embedding a token; it likes one text."""

    bos_token_id, eos_token_id, likes = None, 0, ""

    def log_likelihoods(self, before, texts):
        assert before == [0]
        return [0.0 if "".join(map(chr, text)) == self.likes else -1e6 for text in texts]

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
    monkeypatch.setattr(ear.listener, "generate", lambda *_: [Greedy([], [[0.0, 0.0]], ended=True)])
    heard = ear.hear(waves(1.0))[0]
    assert heard.text == "" and len(heard.positions_NH) == 0


def hypotheses(ear, monkeypatch):
    """Return the texts between which the text model last chose, with the listener's scores; every sound is in doubt."""
    found, kept = {}, ears.n_best
    monkeypatch.setattr(ear.listener.config, "doubt", 1000.0)
    logits = ear.listener.logits

    def unsure(hidden):
        found = 0.05 * logits(hidden)
        found[..., ear.end] = found.topk(2).values[..., 1]  # a text may end anywhere
        return found

    monkeypatch.setattr(ear.listener, "logits", unsure)

    def n_best(*given):
        [row] = kept(*given)
        found.update(
            {ear.listener_tokenizer.decode(one.tokens).strip(): one for one in row}
        )  # all from the first token on
        return [row]

    monkeypatch.setattr(ears, "n_best", n_best)
    return found


def test_in_doubt_the_text_model_chooses_between_the_likeliest_texts(ear, monkeypatch):
    found, [wave] = hypotheses(ear, monkeypatch), waves(1.2)
    ear.transcribe([wave])
    assert len(found) > 2
    best = max(one.score for one in found.values())
    monkeypatch.setattr(
        ear.listener.config, "doubt", best - sorted(one.score for one in found.values())[1]
    )  # all but one
    near = [text for text, one in found.items() if text and one.score >= best - ear.listener.config.doubt]
    assert 1 < len(near) < len(found)
    for text in near:
        monkeypatch.setattr(ear.s2t, "likes", text)
        ear.known.clear()
        assert ear.transcribe([wave]) == [text]
    monkeypatch.setattr(ear.listener.config, "rescoring", 0.0)
    assert found[ear.transcribe([wave])[0]].score == max(one.score for text, one in found.items() if text)


def test_the_text_model_is_asked_once(ear, monkeypatch):
    asked, likelihoods = [], Letters.log_likelihoods
    ear.known.clear()
    monkeypatch.setattr(Letters, "log_likelihoods", lambda *given: asked.append(given[2]) or likelihoods(*given))
    hypotheses(ear, monkeypatch)
    [first], [again] = ear.transcribe(waves(1.2)), ear.transcribe(waves(1.2))
    assert first == again and len(asked) == 1 and len(asked[0]) > 2
    monkeypatch.setattr(ears, "KNOWN", 1)
    ear._prior(("new", "newer"))
    assert len(asked) == 2 and list(ear.known) == [("new", "newer")]


def test_scores_of_texts_are_those_of_reading_each_by_itself(ear, monkeypatch):
    found, [wave] = hypotheses(ear, monkeypatch), waves(1.2)
    ear.transcribe([wave])
    assert len(found) > 2
    states_TW = ear.encoder.encode([fill_window(wave)], (ear.layer,))[0][ear.layer]
    for one in found.values():
        tokens = [*ear.begin, *one.tokens, ear.end]
        state = ear.listener.start(states_TW[None], torch.tensor([len(states_TW)]))
        with torch.no_grad():
            logits_NV = ear.listener.logits(ear.listener(torch.tensor([tokens[:-1]]), state))[0, len(ear.begin) - 1 :]
        each = logits_NV.log_softmax(-1)[range(len(one.tokens) + 1), tokens[len(ear.begin) :]]
        assert one.score == pytest.approx(float(each.sum()), abs=0.02)


def test_tokens_before_the_first_doubt_stay(ear, monkeypatch):
    found, [wave] = hypotheses(ear, monkeypatch), waves(1.2)
    states_TW = ear.encoder.encode([fill_window(wave)], (ear.layer,))[0][ear.layer]
    sound = states_TW[None], torch.tensor([len(states_TW)])
    for sure in (0, 3):
        found.clear()
        greedy = Greedy([51, 52, 53, 54], [[0.0, -9999.0]] * sure + [[-9.0, -9.1]] * (5 - sure))
        assert ear.likeliest(greedy, *sound)[:sure] == [51, 52, 53][:sure]
        tokens = [*ear.begin, 51, 52, 53][: len(ear.begin) + sure]
        with torch.no_grad():
            logits_V = ear.listener.logits(ear.listener(torch.tensor([tokens]), ear.listener.start(*sound)))[0, -1]
        assert {one.tokens[0] for one in found.values() if one.tokens} <= set(logits_V.topk(5).indices.tolist())


@pytest.mark.parametrize(
    ("left_out", "ended"), [(FEWER_WORDS, True), (FEWER_WORDS + 1, True), (FEWER_WORDS + 1, False)]
)
def test_a_text_that_breaks_off_is_not_chosen_for_being_likelier(ear, monkeypatch, left_out, ended):
    words = "we sat in the shade of the tall tree".split()
    whole, short, other = (
        ear.listener_tokenizer.encode(" ".join(some), add_special_tokens=False).ids
        for some in (words, words[: len(words) - left_out], [*words[:-1], "trees"])
    )
    found = [Hypothesis(short, -2.5), Hypothesis(other, -5.4), Hypothesis(whole, -5.5)]
    monkeypatch.setattr(ears, "n_best", lambda *_: [found])
    monkeypatch.setattr(ear.s2t, "likes", " ".join(words))
    ear.known.clear()
    sound = torch.zeros(1, 50, ear.listener.config.width), torch.tensor([50])
    greedy = Greedy(whole, [[-0.5, -0.9]] * (len(whole) + 1), ended)  # a text that never ended may be a loop
    assert ear.likeliest(greedy, *sound) == (whole if ended and left_out > FEWER_WORDS else short)
    monkeypatch.setattr(ears, "n_best", lambda *_: [found[:1]])
    assert ear.likeliest(greedy, *sound) == (whole if ended and left_out > FEWER_WORDS else short)


@pytest.mark.parametrize(("setting", "value"), [("doubt", 0.0), ("beams", 1)])
def test_without_doubt_or_beams_what_is_heard_is_greedy(ear, monkeypatch, setting, value):
    monkeypatch.setattr(ear.listener.config, setting, value)
    monkeypatch.setattr(ears, "n_best", None)
    wave = waves(1.2)[0]
    states_TW = ear.encoder.encode([fill_window(wave)], (ear.layer,))[0][ear.layer]
    [heard] = ear.listener.generate(states_TW[None], torch.tensor([len(states_TW)]), ear.begin, ear.end, [1.2])
    assert ear.transcribe([wave]) == [ear.listener_tokenizer.decode(heard.tokens).strip()] != [""]


def test_a_tokenizer_without_the_special_tokens_is_refused(ear):
    with pytest.raises(ModelError, match="no token <|nothing|>".replace("|", r"\|")):
        special_ids(ear.listener_tokenizer, ListenerConfig(end="<|nothing|>"))
