"""SpeechTranslator and `echox translate`: any recording form, batches, beams, limits, and refusals in one sentence."""

import json
import os

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from echox import SpeechAssistant, SpeechTranslator
from echox.audio import save_wav
from echox.cli import app
from echox.errors import ConfigError, InputError, ModelError
from echox.generate.pauses import within
from echox.generate.textless import TextlessConfig, evidence, white_noise
from echox.models.io import read_config
from tests.tiny_translator import write_translator

RATE = 16_000


def sound(seconds: float = 0.7, pitch: float = 220.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * pitch * time * (1 + time))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_translator(tmp_path_factory.mktemp("translator") / "tiny")


@pytest.fixture(scope="module")
def translator(folder):
    return SpeechTranslator.load(str(folder), dtype="float32")


@pytest.fixture
def wav(tmp_path):
    save_wav(tmp_path / "habla.wav", sound(), RATE)
    return tmp_path / "habla.wav"


def test_a_path_bytes_and_samples_are_one_translation(translator, wav):
    by_path = translator.translate(wav)
    by_bytes = translator.translate(wav.read_bytes())
    samples = np.frombuffer(wav.read_bytes()[44:], "<i2")
    by_samples = translator.translate(samples, sample_rate=RATE)
    assert by_path.units and by_path.units == by_bytes.units == by_samples.units
    assert np.array_equal(by_path.audio, by_samples.audio)
    assert by_path.question == str(wav) and by_path.text == ""
    said = [int(unit) for word in by_path.unit_words for unit in word.split("_")]
    assert said == by_path.units


def test_a_list_equals_one_at_a_time(translator):
    sounds = [sound(0.5), sound(1.3, 300), sound(0.9, 150)]
    together, alone = translator.translate(sounds), [translator.translate(one) for one in sounds]
    assert [one.units for one in together] == [one.units for one in alone]
    assert len({tuple(one.units) for one in together}) > 1
    assert translator.translate([]) == []


def test_half_precision_translates_and_beams_are_checked(folder):
    reply = SpeechTranslator.load(str(folder), dtype="bfloat16").translate(sound(), beams=2)
    assert np.isfinite(reply.audio).all() and reply.finish in ("stop", "empty", "length")
    with pytest.raises(ConfigError, match="beam is 0"):
        SpeechTranslator.load(str(folder)).translate(sound(), beams=0)


def test_speech_is_cut_at_max_seconds(translator):
    whole = translator.translate(sound())
    cut = translator.translate(sound(), max_seconds=0.05)
    assert cut.finish == "length" and len(cut.audio) == int(0.05 * cut.sample_rate)
    assert np.array_equal(cut.audio, within(whole.audio, len(cut.audio), cut.sample_rate))


def test_long_recordings_are_cut_at_pauses_and_joined(translator):
    first, second = sound(1.5), sound(0.9, 300)
    wave = np.concatenate([first, np.zeros(RATE // 4, np.float32), second])
    translator.model.longest = 2 * RATE
    try:
        from echox.features.cuts import cut_at_pauses

        pieces = cut_at_pauses(wave, 2 * RATE)
        assert len(pieces) == 2 and len(first) <= len(pieces[0]) <= len(first) + RATE // 4
        parts = [translator.translate(piece).units for piece in pieces]
        assert translator.translate(wave).units == parts[0] + parts[1]
    finally:
        translator.model.longest = 20 * RATE


def test_sentences_are_translated_one_by_one_and_silence_is_not(translator):
    first, second, pause = sound(1.5), sound(1.2, 300), np.zeros(RATE, np.float32)
    alone = [translator.translate(np.r_[first, pause]).units, translator.translate(np.r_[pause, second]).units]
    assert translator.translate(np.r_[first, np.zeros(30 * RATE, np.float32), second]).units == alone[0] + alone[1]


def test_a_phrase_in_which_nothing_is_understood_is_left_out(translator, monkeypatch):
    pause = np.zeros(RATE, np.float32)
    phrases = [np.r_[sound(1.5), pause], np.r_[pause, sound(1.2, 300), pause], np.r_[pause, sound(1.3, 150)]]
    whole = np.concatenate([sound(1.5), pause, pause, sound(1.2, 300), pause, pause, sound(1.3, 150)])
    model, alone = translator.model, [translator.translate(phrase).units for phrase in phrases]
    rows = zip(phrases, model.tokens(phrases), strict=True)
    scores = [
        evidence(model.translator, *model.features([wave, white_noise(len(wave))]), one.tokens, model.search)
        for wave, one in rows
    ]
    assert translator.translate(whole).units == sum(alone, [])
    worst, middle, best = sorted(scores)
    for least in (worst - 1, (worst + middle) / 2, (middle + best) / 2):
        monkeypatch.setattr(model, "least_evidence", least)
        kept = [units for units, score in zip(alone, scores, strict=True) if score >= least]
        said, *each = translator.translate([whole, *phrases])
        assert said.units == sum(kept, []) and len(said.audio) and said.finish != "unheard"
        assert [one.units for one in each if one.finish != "unheard"] == kept
    monkeypatch.setattr(model, "least_evidence", best + 1)
    for said in translator.translate([whole, *phrases]):
        assert (said.finish, said.text, said.units, said.unit_words) == ("unheard", "", [], []) and not len(said.audio)


def test_evidence_is_what_the_sound_adds_to_what_noise_says(translator):
    """Token by token through the model's steps, as the search scores them."""
    model = translator.model
    heard, noise = model.features([sound(1.3, 300), white_noise(len(sound(1.3)))])
    tokens = [5, 9, 4]

    def log_probability(features):
        state = model.translator.start(features[None], torch.tensor([len(features)]))
        total = 0.0
        for said, then in zip([model.search.bos, *tokens], [*tokens, model.search.eos], strict=True):
            step = model.translator.decoder.step(state, torch.tensor([[said]]), torch.tensor([[0]]))
            total += float(step[0, 0].log_softmax(-1)[then])
        return total

    with torch.inference_mode():
        slow = log_probability(heard) - log_probability(noise)
    assert abs(slow) > 1e-2 and len(heard) == len(noise)
    assert evidence(model.translator, heard, noise, tokens, model.search) == pytest.approx(slow / 4, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(b"", "empty"), (b"hello, no sound", "cannot be read"), (np.zeros(9000, np.float32), "silent")],
)
def test_what_is_no_speech_is_refused(translator, given, sentence):
    with pytest.raises(InputError, match=sentence):
        translator.translate(given)


def test_each_verb_says_which_one_fits(folder):
    with pytest.raises(ModelError, match="echox translate --model tiny"):
        SpeechAssistant.load(str(folder))
    with pytest.raises(ModelError, match="echox ask --model mini"):
        SpeechTranslator.load("mini")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "telepathic"}, "kind 'telepathic'"),
        ({"shares": "/etc"}, "shares parts of"),
        ({"beams": 10_000}, "beams"),
        ({"least_evidence": -0.5}, "least_evidence -0.5, which cannot be"),
        ({"least_evidence": float("nan")}, "least_evidence nan, which cannot be"),
        ({"surprise": 1}, "unknown setting 'surprise'"),
    ],
)
def test_a_config_that_cannot_be_is_refused(folder, change, sentence):
    config = folder / "config.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | change))
    try:
        with pytest.raises(ModelError, match=sentence):
            SpeechTranslator.load(str(folder))
    finally:
        config.write_text(before)


def test_a_shared_voice_says_the_words_of_the_folders_own_unit_language(tmp_path):
    from echox.train.pack_translator import Recipe, run
    from tests.tiny_translator import tiny_model, unit_language

    language = unit_language()
    language.save(tmp_path / "units")
    tiny_model(says="words", vocabulary=language.vocab_size).save(tmp_path / "translator")
    parts = {"translator": tmp_path / "translator", "units": tmp_path / "units", "out": tmp_path / "model"}
    recipe = Recipe(stage="pack_translator", source="es", target="en", shares="mini", beams=1, **parts)
    packed = SpeechTranslator.load(str(run(recipe)), dtype="float32")
    reply = packed.translate(sound())
    tokens = packed.model.tokens([sound()])[0].tokens
    assert reply.units == language.decode(tokens) and len(reply.audio) and packed.sample_rate == 24_000
    assert read_config(tmp_path / "model").keys() == TextlessConfig.__annotations__.keys()
    assert not (tmp_path / "model" / "vocoder").exists() and not (tmp_path / "model" / "units" / "config.json").exists()
    with pytest.raises(ConfigError, match="hold its own"):
        run(recipe.model_copy(update={"vocoder": tmp_path}))


def test_a_dictionary_that_does_not_fit_the_decoder_is_refused(folder, tmp_path):
    other = write_translator(tmp_path / "other")
    from tests.tiny_translator import tiny_model

    tiny_model(vocabulary=40).save(other / "translator")
    with pytest.raises(ModelError, match="writes 40 units, units/ knows 15"):
        SpeechTranslator.load(str(other))


def run(*words):
    return CliRunner().invoke(app, ["translate", *map(str, words)], catch_exceptions=True)


def test_the_command_writes_a_file(folder, wav, tmp_path):
    done = run(wav, "--model", folder, "-o", tmp_path / "speech.wav", "--dtype", "float32")
    assert done.exit_code == 0 and (tmp_path / "speech.wav").stat().st_size > 44
    assert "speech.wav" in done.stdout


def test_the_command_writes_json_for_several_and_goes_on_after_a_bad_one(folder, wav, tmp_path):
    done = run(
        wav, tmp_path / "missing.wav", wav, "--model", folder, "--out-dir", tmp_path / "out", "--json", "--beam", 2
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 1 and [row["error"] is None for row in rows] == [True, False, True]
    assert rows[0].keys() == rows[1].keys()
    assert rows[0]["text"] is None and rows[0]["units"] and rows[0]["unit_words"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["habla-2.wav", "habla.wav"]


def test_the_command_writes_nothing_where_nothing_was_understood(wav, tmp_path):
    deaf = write_translator(tmp_path / "deaf", least_evidence=1000.0)
    plain = run(wav, "--model", deaf, "-o", tmp_path / "speech.wav")
    assert plain.exit_code == 1 and "nothing was understood in" in plain.stderr and not plain.stdout
    shown = run(wav, "--model", deaf, "-o", tmp_path / "speech.wav", "--json")
    row = json.loads(shown.stdout)
    assert shown.exit_code == 1 and "nothing was understood in" in row.pop("error")
    assert row.pop("question") == str(wav) and not any(row.values())
    assert not (tmp_path / "speech.wav").exists()


def test_help_names_the_file_that_is_written(folder, wav, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(wav, "--model", folder).exit_code == 0 and (tmp_path / "translation.wav").exists()
    assert "default translation.wav" in " ".join(run("--help").stdout.replace("│", " ").split())


def test_wrong_usage_ends_with_two(folder, wav, tmp_path):
    assert run(wav, wav, "--model", folder).exit_code == 2
    assert run(wav, "--model", folder, "-o", wav).exit_code == 2


def test_a_recording_comes_and_speech_goes_through_pipes(folder, wav, tmp_path):
    by_name = run(wav, "--model", folder, "-o", tmp_path / "a.wav", "--dtype", "float32")
    words = ["translate", "-", "-o", "-", "--model", str(folder), "--dtype", "float32"]
    piped = CliRunner().invoke(app, words, input=wav.read_bytes())
    assert by_name.exit_code == piped.exit_code == 0
    assert piped.stdout_bytes == (tmp_path / "a.wav").read_bytes() and "recording: standard input" in piped.stderr
    empty = CliRunner().invoke(app, ["translate", "-", "--model", str(folder)], input=b"")
    assert empty.exit_code == 1 and "is empty" in empty.stderr


def test_the_translation_of_a_pipe_has_a_name_of_its_own(folder, wav, tmp_path):
    end, begin = os.pipe()
    os.write(begin, wav.read_bytes()[: 1 << 15])
    os.close(begin)
    done = run(f"/dev/fd/{end}", wav, "--model", folder, "--out-dir", tmp_path / "out", "--json")
    os.close(end)
    assert [json.loads(line)["question"] for line in done.stdout.splitlines()] == [f"/dev/fd/{end}", str(wav)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["habla.wav", "translation.wav"]
