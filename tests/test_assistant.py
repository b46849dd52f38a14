"""From a wave to a spoken answer on the toy model: every stage ran, streaming equals batching, bad input is one sentence."""

import inspect
import json
import random
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from echox import ConfigError, InputError, ModelError, Question, SpeechAssistant
from echox.audio import save_wav
from echox.errors import OutputError
from echox.generate import answer, speech
from echox.generate.ears import Heard
from echox.generate.parts import check_voice
from echox.generate.pauses import within
from echox.models.decoding import Generated
from echox.models.echo import EchoDecoder
from echox.models.latent_vocoder import LatentVocoder, LatentVocoderConfig
from echox.models.llm import load_tokenizer, token_pieces
from echox.prepare.teachers import TINY
from echox.text.prompt import Turn, encode
from echox.text.segmenter import PhraseSegmenter, ends_sentence
from echox.train.stages import run_recipe
from echox.train.toy import sound_of
from tests.fuzz.world import write_model
from tests.toy_model import RECIPES, listening_model, toy_model  # noqa: F401 - fixtures


@pytest.fixture(scope="module")
def assistant(toy_model):  # noqa: F811
    return SpeechAssistant.load(str(toy_model), device="cpu", dtype="float32")


QUESTIONS = ["What is the capital of France?", "Who is the king?", "Is it?"]


def test_a_packed_model_may_speak_with_a_teachers_decoder(toy_model, monkeypatch):  # noqa: F811
    monkeypatch.chdir(toy_model.parents[2])
    changes = ["vocoder=out/debug/voice/final", "echo=null", "out=out/debug/model_voice"]
    changes += ["phrases={first_phrase: 3, early: 3}"]
    model = SpeechAssistant.load(str(run_recipe(RECIPES / "pack.yaml", changes)), device="cpu", dtype="float32")
    reply = model.say("The answer is Paris.")
    assert model.sample_rate == reply.sample_rate == 24_000 and reply.audio.dtype == np.float32
    assert np.isfinite(reply.audio).all()
    assert (model.parts.segmenter.first_phrase, model.parts.segmenter.early) == (3, 3)


def test_a_vocoder_may_read_the_state_of_every_word(toy_model, monkeypatch):  # noqa: F811
    model = SpeechAssistant.load(str(toy_model), device="cpu", dtype="float32")
    parts, wave = model.parts, sound_of(QUESTIONS[0])
    torch.manual_seed(1)
    sizes = {"num_units": parts.unit_tokenizer.units, "width": 16, "duration_width": 16}
    config = LatentVocoderConfig(**sizes, state_width=parts.t2c.config.width, decoder=TINY)
    parts.voice = replace(parts.voice, vocoder=LatentVocoder(config).eval())
    with pytest.raises(ModelError, match="learnt with another T2C than t2c/"):
        check_voice(toy_model, parts.voice, parts.reader.embeddings_VH.shape[1])
    parts.vocoder.writer_W.copy_(parts.t2c.mark)
    with pytest.raises(ModelError, match="learnt with another T2C than echo/: give one T2C to both"):
        check_voice(toy_model, parts.voice, parts.reader.embeddings_VH.shape[1])
    shared = EchoDecoder.from_t2c(parts.t2c, tokens=True, shares_decoder=True).eval()
    parts.voice = replace(parts.voice, echo=shared)
    check_voice(toy_model, parts.voice, parts.reader.embeddings_VH.shape[1])
    together, limited, alone = model.ask_many([wave])[0], model.ask_many([wave], max_seconds=100)[0], model.ask(wave)
    assert len(together.audio) and alone.units == together.units
    for one in (limited, alone):
        np.testing.assert_allclose(one.audio, together.audio, atol=1e-5)
    language = parts.unit_tokenizer
    words = sorted(range(3, language.vocab_size), key=lambda word: len(language.word(word)))[
        :: language.vocab_size // 5
    ]
    states, by_hand = list(torch.randn(len(words), parts.t2c.config.width)), []
    for word, state_W in list(zip(words, states, strict=True))[1:]:
        by_hand += [state_W] * len(language.word(word))
    looked_up, word = [], type(language).word
    with monkeypatch.context() as patch:
        patch.setattr(type(language), "word", lambda self, token: looked_up.append(token) or word(self, token))
        units, states_UW = speech.units_said(parts, Generated(words, states), first=1)
    assert looked_up == words[1:]
    assert len({len(language.word(word)) for word in words}) > 1 and units == language.decode(words[1:])
    torch.testing.assert_close(states_UW, torch.stack(by_hand))
    said = model.say("The answer is Paris.")
    torch.nn.init.zeros_(parts.vocoder.embedding.states.weight)
    assert np.abs(model.say("The answer is Paris.").audio - said.audio).max() > 1e-6
    np.testing.assert_allclose(model.say("The answer is Paris.").units, said.units)
    parts.voice.vocoder = LatentVocoder(LatentVocoderConfig(**config.to_dict() | {"state_width": 7}))
    with pytest.raises(ModelError, match="learnt with another T2C than t2c/"):
        check_voice(toy_model, parts.voice, parts.reader.embeddings_VH.shape[1])


def test_states_of_words_are_not_kept_for_a_vocoder_that_reads_none(assistant, monkeypatch):
    said, units_said = [], speech.units_said
    monkeypatch.setattr(
        speech, "units_said", lambda parts, words, *a: said.append(words) or units_said(parts, words, *a)
    )
    assistant.say("The answer is Paris.")
    assistant.ask_many([sound_of(QUESTIONS[0])])
    assistant.ask_many([sound_of(QUESTIONS[0])], max_seconds=100)
    assert len(said) >= 3 and any(words.ids for words in said) and not any(words.states for words in said)


def test_spoken_question_to_spoken_answer(assistant, tmp_path):
    reply = assistant.ask(sound_of(QUESTIONS[0]))
    assert reply.sample_rate == 16_000 and reply.audio.dtype == np.float32
    assert reply.audio_seconds == len(reply.audio) / 16_000
    assert reply.finish in ("stop", "length", "empty")
    assert (reply.first_audio_seconds is None) == (len(reply.audio) == 0)
    again = assistant.ask(sound_of(QUESTIONS[0]))
    assert (reply.text, reply.units) == (again.text, again.units)
    reply.save(tmp_path / "answer.wav")
    assert (tmp_path / "answer.wav").stat().st_size == 44 + 2 * len(reply.audio)


def test_what_is_heard_can_be_had_alone(assistant):
    waves = [sound_of(question) for question in QUESTIONS]
    heard = [next(iter(assistant.stream(wave, text_only=True))).heard for wave in waves]
    assert assistant.transcribe(waves) == heard and any(heard) and assistant.transcribe([]) == []
    assert assistant.transcribe(waves[0]) == heard[0]


def test_stream_equals_ask_and_batch(assistant):
    waves = [sound_of(question) for question in QUESTIONS]
    batch = assistant.ask_many(waves)
    for wave, together in zip(waves, batch, strict=True):
        pieces = list(assistant.stream(wave))
        alone = assistant.ask(wave)
        assert "".join(p.text for p in pieces).strip() == alone.text == together.text.strip()
        assert [u for p in pieces for u in p.units] == alone.units == together.units
        streamed = np.concatenate([np.zeros(0, np.float32), *(p.audio for p in pieces if p.audio is not None)])
        np.testing.assert_allclose(streamed, together.audio, atol=1e-4)
        assert pieces[-1].finish == together.finish


def test_where_nothing_was_understood_there_is_no_answer(assistant, monkeypatch):
    def hear(waves, drafts=None):
        heard = ear.hear(waves)
        return [
            Heard(one.positions_NH[:0], "") if np.abs(wave).max() < 0.01 else one
            for one, wave in zip(heard, waves, strict=True)
        ]

    ear, wave, silence = assistant.parts.ear, sound_of(QUESTIONS[0]), 1e-3 * sound_of("Is it?")
    monkeypatch.setattr(assistant.parts, "ear", SimpleNamespace(hear=hear))
    reply = assistant.ask(silence)
    assert (reply.text, reply.heard, reply.units, reply.finish) == ("", "", [], "unheard") and not len(reply.audio)
    batch = assistant.ask_many([silence, wave, silence])
    assert [r.finish == "unheard" for r in batch] == [True, False, True]
    assert batch[1].text.strip() == assistant.ask(wave).text
    assert [r.finish for r in assistant.ask_many([silence])] == ["unheard"]


def test_an_attention_ear_and_an_untrained_echo_decoder_answer_too(listening_model):  # noqa: F811
    assistant = SpeechAssistant.load(str(listening_model), device="cpu", dtype="float32")
    wave = sound_of(QUESTIONS[0])
    reply, batch = assistant.ask(wave), assistant.ask_many([wave])
    assert (reply.heard, reply.text, reply.units) == (batch[0].heard, batch[0].text.strip(), batch[0].units)
    typed = assistant.ask(typed=reply.heard or "Who?", text_only=True)
    assert typed.text == reply.text or not reply.heard  # the LLM reads what was heard as if it had been typed
    said = assistant.say("The answer is Paris.")
    assert assistant.parts.echo.t2c is assistant.parts.t2c and len(said.units)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [("The FBI.", "The eff-bee-eye."), (" at 29,031 feet", " at twenty nine thousand and thirty one feet")],
)
def test_an_echo_decoder_of_tokens_alone_reads_a_text_as_it_is_said(listening_model, text, spoken):  # noqa: F811
    model = SpeechAssistant.load(str(listening_model), device="cpu", dtype="float32")
    parts = model.parts
    ids = encode(parts.tokenizer, text)
    segment = answer._Segment(
        token_pieces(parts.tokenizer, ids), ids, [torch.randn(parts.s2t.embeddings_VH.shape[1]) for _ in ids]
    )
    said = encode(parts.tokenizer, spoken)
    positions, layout, _ = answer._read(parts, segment)
    torch.testing.assert_close(positions, parts.s2t.embed(said).float())
    assert len(layout.owners_C.unique()) == len(said)
    assert model.say(text).units == model.say(spoken).units
    with torch.no_grad():
        parts.echo.gate.fill_(0.5)  # states count: their tokens stay
    positions, layout, _ = answer._read(parts, segment)
    assert len(positions) == len(layout.owners_C.unique()) == len(ids)


@pytest.fixture
def other_llm(listening_model, tmp_path):  # noqa: F811
    """A text model of another width than the one in the model folder."""
    torch.manual_seed(0)
    shutil.copytree(listening_model / "llm", tmp_path / "other")
    tokenizer = load_tokenizer(tmp_path / "other")
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(
        LlamaConfig(**sizes, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    ).save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_any_text_model_stands_between_an_ear_and_a_voice_of_words(listening_model, other_llm):  # noqa: F811
    model = SpeechAssistant.load(listening_model, "cpu", "float32", llm=other_llm)
    own = SpeechAssistant.load(listening_model, "cpu", "float32")
    assert model.parts.s2t.embeddings_VH.shape[1] == 48 and model.parts.llm_folder == other_llm
    wave = sound_of(QUESTIONS[0])
    reply, batch = model.ask(wave), model.ask_many([wave])[0]
    assert (reply.heard, reply.text, reply.units) == (batch.heard, batch.text, batch.units)
    assert reply.heard == own.ask(wave).heard
    assert model.say("The answer is Paris.").units == own.say("The answer is Paris.").units
    pieces = token_pieces(model.parts.tokenizer, encode(model.parts.tokenizer, " is Paris."))
    segment = answer._Segment(pieces, [0] * len(pieces), [torch.zeros(48)] * len(pieces))
    ids = encode(own.parts.tokenizer, " is Paris.")
    positions, layout, _ = answer._read(model.parts, segment)
    torch.testing.assert_close(positions, own.parts.s2t.embed(ids).float())
    assert len(layout.owners_C.unique()) == len(ids)


def test_a_model_that_learnt_with_its_text_model_is_left_with_it(listening_model, toy_model, other_llm):  # noqa: F811
    with pytest.raises(ModelError, match="with its own text model, and .*other is another"):
        SpeechAssistant.load(toy_model, "cpu", "float32", llm=other_llm)
    (other_llm / "config.json").unlink()
    with pytest.raises(ConfigError, match="carries its own text model"):
        SpeechAssistant.load(listening_model, "cpu", "float32", llm=other_llm)


@pytest.mark.parametrize("kind", ["dialect", "segments", "decoding", "speech"])
def test_a_setting_that_does_not_exist_is_named(assistant, kind):
    with pytest.raises(ConfigError, match="^loudness is no setting of [^(]*$"):
        assistant.with_settings(**{kind: {"loudness": 1}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoding": {"max_new_tokens": "many"}}, "max_new_tokens many"),
        ({"decoding": {"to_dict": 3}}, "'to_dict'"),
        ({"decoding": {"system": "Be brief."}}, "system is settled"),
        ({"longest_windows": 1}, "hears no windows"),
    ],
)
def test_a_setting_that_would_do_nothing_or_harm_is_refused(listening_model, changes, words):  # noqa: F811
    with pytest.raises(ConfigError, match=words):
        SpeechAssistant.load(listening_model, "cpu", "float32").with_settings(**changes)


def test_an_answer_of_no_tokens_is_refused(assistant):
    assert len(assistant.at_most(2).ask(typed=QUESTIONS[0], text_only=True).text.split()) <= 2
    with pytest.raises(ConfigError, match="0 tokens"):
        assistant.at_most(0)


def test_the_assistant_without_weights_has_the_same_surface():
    fake = SpeechAssistant.fake()
    for name in ("stream", "ask", "ask_many", "converse", "say", "speak", "listen", "calling"):
        real, ours = (inspect.signature(getattr(kind, name)).parameters for kind in (SpeechAssistant, type(fake)))
        assert set(real) <= set(ours) or "options" in ours, name
    history = [Turn("user", "Hi."), Turn("assistant", "Hello.")]
    assert fake.transcribe([sound_of("Who?"), np.sin(np.arange(16_000, dtype=np.float32)) * 1e-3])[1] == ""
    assert fake.ask(typed="Who?", history=history, instructions="Be brief.").text == "You asked about Who."
    assert fake.converse([[*history, Turn("user", "Why?")]])[0].text == "You asked about Why."
    with pytest.raises(InputError, match="120"):  # a question is as short as for other assistants
        fake.ask(np.tile(sound_of("Who?"), 900))


def test_typed_batch_equals_typed_alone(assistant):
    batch = assistant.ask_many([Question(typed=text) for text in QUESTIONS], text_only=True)
    assert [r.text.strip() for r in batch] == [assistant.ask(typed=q, text_only=True).text for q in QUESTIONS]
    assert all(r.audio is None for r in batch)
    with pytest.raises(OutputError, match="no speech"):
        batch[0].save("x.wav")


def test_interleaved_streams_do_not_touch_each_other(assistant):
    first, second = (assistant.stream(sound_of(q)) for q in QUESTIONS[:2])
    expected = [assistant.ask(sound_of(q)).units for q in QUESTIONS[:2]]
    found: list[list[int]] = [[], []]
    streams = {0: first, 1: second}
    while streams:
        for number in list(streams):
            piece = next(streams[number], None)
            if piece is None:
                del streams[number]
            else:
                found[number] += piece.units
    assert found == expected


def test_say_and_limits(assistant):
    whole = assistant.say("The answer is Paris. A big red city.")
    assert len(whole.audio) > 0 and whole.units
    cut = assistant.say("The answer is Paris. A big red city.", max_seconds=0.05)
    assert len(cut.audio) == 800 and cut.finish == "length"
    np.testing.assert_allclose(cut.audio, within(whole.audio, 800, cut.sample_rate), atol=1e-5)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.7])
def test_a_batch_that_is_cut_ends_where_its_streams_do(assistant, seconds):
    model = assistant.with_settings(stop=set(), segments={"first_longest": 2, "longest": 3})
    waves = [sound_of(question) for question in QUESTIONS]
    whole, batch = model.ask_many(waves), model.ask_many(waves, max_seconds=seconds)
    for wave, full, cut in zip(waves, whole, batch, strict=True):
        alone = model.ask(wave, max_seconds=seconds)
        assert (alone.text, alone.units, alone.finish) == (cut.text, cut.units, cut.finish)
        np.testing.assert_allclose(alone.audio, cut.audio, atol=1e-4)
        assert full.text.startswith(cut.text)
    assert len(batch[0].audio) == int(seconds * model.sample_rate) and batch[0].finish == "length"
    assert len(batch[0].text) < len(whole[0].text) or seconds > 0.5


def test_enough_is_a_whole_sentence(assistant):
    tokenizer = assistant.parts.tokenizer
    ids = encode(tokenizer, "The king is red. It is big! Is it?")
    ends = [n for n in range(1, len(ids) + 1) if answer.Limits(99, enough_tokens=1).is_over(tokenizer)(ids[:n])]
    assert [tokenizer.decode(ids[:n])[-4:] for n in ends] == ["red.", "big!", " it?"]
    assert not answer.Limits(99, enough_tokens=ends[0] + 1).is_over(tokenizer)(ids[: ends[0]])
    assert answer.Limits(2).is_over(tokenizer)(ids[:2]) and not answer.Limits(99).is_over(tokenizer)(ids)
    assert ends_sentence("It has 12.\n") and not ends_sentence("It has 12. ")
    ids = encode(tokenizer, "It is 3.5 or 61.2 in the U.S.A. by 1969.")
    ends = [n for n in range(1, len(ids) + 1) if answer.Limits(99, enough_tokens=1).is_over(tokenizer)(ids[:n])]
    assert ends == [len(ids)]


def test_an_answer_of_enough_tokens_ends_with_its_sentence(assistant, monkeypatch):
    endless = assistant.parts.changed(stop=set(), decoding={"no_repeat_ngram": 0})
    asked = answer.understand(endless, [[Turn("user", QUESTIONS[0])]])
    (long,) = answer.answer_batch(endless, asked, answer.Limits(40), speak=False)
    pieces = token_pieces(endless.tokenizer, long.ids)
    monkeypatch.setattr(answer, "ends_sentence", lambda text: text.endswith(pieces[6]))  # the toy says no full stop
    whole = [end for end, piece in enumerate(pieces, start=1) if piece == pieces[6]]
    for enough in (1, 7, 8, None):
        limits = answer.Limits(40, enough_tokens=enough)
        (said,) = answer.answer_batch(endless, asked, limits, speak=False)
        assert len(said.ids) == (40 if enough is None else next((end for end in whole if end >= enough), 40))
        assert said.ids == long.ids[: len(said.ids)] and said.finish == ("stop" if len(said.ids) < 40 else "length")
        streamed = list(answer.answer_stream(endless, asked[0], limits, speak=False))
        assert "".join(piece.text for piece in streamed) == said.text and streamed[-1].finish == said.finish


def test_states_are_those_that_predict_the_answer(assistant, monkeypatch):
    monkeypatch.setattr(assistant.parts.s2t.config, "no_repeat_ngram", 0)  # plain argmax, as the comparison takes it
    asked = answer.understand(assistant.parts, [[Turn("user", QUESTIONS[0])]])
    question = answer.read(assistant.parts, QUESTIONS[0])
    limits = answer.Limits(6)
    made = answer.answer_batch(assistant.parts, asked, limits, speak=False)[0]
    assert made.ids
    states = answer.answer_states(assistant.parts, [question], [made.ids])[0]
    assert assistant.parts.s2t.token_logits(states).argmax(-1).tolist() == made.ids


def test_earlier_turns_and_instructions_are_read(assistant):
    history = [Turn("user", "Who is the king?"), Turn("assistant", "The king is Paris.")]
    rows = [
        answer.understand(assistant.parts, [[*turns, Turn("user", "Is it?")]], system)[0].row.inputs_NW
        for turns, system in (([], ""), (history, ""), ([], "Be red."))
    ]
    assert len(rows[1]) > len(rows[0]) and not (rows[2].shape == rows[0].shape and rows[2].equal(rows[0]))
    asked = assistant.ask(typed="Is it?", history=history, text_only=True)
    assert asked.text == assistant.converse([[*history, Turn("user", "Is it?")]], text_only=True)[0].text
    assert assistant.ask(typed="Is it?", instructions="Be red.", text_only=True).finish in ("stop", "length", "empty")
    with pytest.raises(InputError, match="end with a user turn"):
        assistant.converse([history])


def test_paths_samples_and_typed_texts_mix_in_one_batch(assistant, tmp_path):
    waves = [sound_of(question) for question in QUESTIONS[:2]]
    save_wav(tmp_path / "q.wav", waves[0], 16_000)
    asked = [str(tmp_path / "q.wav"), Question(typed=QUESTIONS[2]), Question(waves[1]), tmp_path / "q.wav"]
    alone = [assistant.ask(question) for question in asked]
    assert [r.text.strip() for r in assistant.ask_many(asked)] == [r.text for r in alone]
    assert [r.question for r in alone] == [str(tmp_path / "q.wav"), QUESTIONS[2], "audio", str(tmp_path / "q.wav")]
    for nothing in (Question(), Question(waves[0], "and typed")):
        with pytest.raises(InputError, match="one question"):
            assistant.ask_many([waves[0], nothing])


def test_bad_questions(assistant, tmp_path):
    for question, words in (
        (np.zeros(16_000, np.float32), "silent"),
        (np.full(16_000, np.nan, np.float32), "question"),
        (np.ones(100, np.float32), "question"),
        (str(tmp_path / "missing.wav"), "missing.wav"),
        (str(tmp_path), str(tmp_path)),
    ):
        with pytest.raises(InputError, match=words):
            assistant.ask(question)
    with pytest.raises(InputError, match="empty"):
        assistant.ask(typed="  ")
    with pytest.raises(InputError, match="either"):
        assistant.ask()
    with pytest.raises(ConfigError, match="max_seconds"):
        assistant.ask(typed="Hi", max_seconds=0)


def test_models_are_what_their_files_say_or_refused(toy_model, tmp_path):  # noqa: F811
    with pytest.raises(ModelError, match="nowhere"):
        SpeechAssistant.load("nowhere")
    with pytest.raises(ConfigError, match="device"):
        SpeechAssistant.load(str(toy_model), device="tpu")
    with pytest.raises(ConfigError, match="dtype"):
        SpeechAssistant.load(str(toy_model), dtype="int3")
    broken = tmp_path / "debug" / "model"
    shutil.copytree(toy_model, broken)
    shutil.copytree(toy_model.parent / "llm", tmp_path / "debug" / "llm")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"phrases": {"first_phrase": 3, "first_longest": 5}}))
    assert SpeechAssistant.load(str(broken)).parts.segmenter == PhraseSegmenter(first_phrase=3, first_longest=5)
    config = json.loads((broken / "echo" / "config.json").read_text())
    (broken / "echo" / "config.json").write_text(json.dumps(config | {"unit_vocab_size": 3}))
    with pytest.raises(ModelError, match="echo"):
        SpeechAssistant.load(str(broken))


def test_what_was_heard_comes_with_the_answer(assistant):
    wave = sound_of("what is the capital")
    assert assistant.ask(wave).heard == assistant.ask_many([wave])[0].heard != ""
    assert assistant.ask(typed="What?").heard == ""


def test_random_numbers_of_the_host_program_are_its_own(tmp_path):
    write_model(tmp_path / "model")

    def states():
        kind, numbers, *place = np.random.get_state()
        return torch.get_rng_state().tolist(), (kind, numbers.tolist(), *place), random.getstate()

    before = states()
    assistant = SpeechAssistant.load(str(tmp_path / "model"), device="cpu", dtype="float32")
    assert states() == before
    assistant.ask(sound_of(QUESTIONS[0]), max_seconds=0.5)
    assistant.ask(typed=QUESTIONS[0], max_seconds=0.5)
    assistant.ask_many([sound_of(QUESTIONS[0]), Question(typed=QUESTIONS[1])], max_seconds=0.5)
    list(assistant.stream(sound_of(QUESTIONS[0]), max_seconds=0.5))
    assistant.say(QUESTIONS[0], max_seconds=0.5)
    assert states() == before
