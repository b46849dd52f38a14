"""The joint translator behind SpeechTranslator and its verbs: speech and text in, text out, streamed, in batches, refused."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from echox import SpeechTranslator
from echox.audio import save_wav
from echox.cli import app
from echox.errors import ConfigError, InputError, ModelError
from echox.generate.joint import JointTranslator
from echox.generate.translation import Said
from echox.models.speech_translator import SpeechTranslatorModel, TranslatorConfig
from echox.text.pieces import Pieces
from echox.train.stages import run_recipe
from echox.train.toy import sound_of
from tests.tiny_translator import write_translator
from tests.toy_model import RECIPES, run_stages

TEXT = "a big red king of Spain"
RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    stages = ("encode", "text_pairs", "vocabulary", "translate_text", "translate", "pack_joint")
    made = run_stages(tmp_path_factory.mktemp("joint"), stages)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.parents[1])
        run_recipe(RECIPES / "pack_joint.yaml", ["out=out/debug/int8", "int8=true"])
        text = ["out=out/debug/text", "translator=out/debug/translate_text/final", "encoder=null", "encoder_layer=0"]
        run_recipe(RECIPES / "pack_joint.yaml", text)
    return made


@pytest.fixture(scope="module")
def translator(folder):
    return SpeechTranslator.load(str(folder / "joint"))


def sounds():
    return [sound_of("where is the river"), sound_of("a"), sound_of("the king of france is big and red")]


def test_batches_say_what_each_says_alone(translator):
    together = translator.translate(sounds(), beams=3)
    assert [one.text for one in together] == [translator.translate(sound, beams=3).text for sound in sounds()]
    assert (
        [one.heard for one in together]
        == translator.transcribe(sounds())
        == [translator.transcribe(s) for s in sounds()]
    )
    texts = [TEXT, "the river", "a small blue queen of Paris"]
    assert [one.text for one in translator.translate(typed=texts)] == [
        translator.translate(typed=text).text for text in texts
    ]
    assert translator.translate(typed=[]) == [] and together[0].audio is None


def test_the_stream_is_the_translation_of_one_beam(translator):
    for given in ({"typed": TEXT}, {"sound": sounds()[0]}):
        pieces = list(translator.stream(**given))
        assert "".join(pieces) == translator.translate(**given, beams=1).text and (
            not pieces or len(pieces) > 1 or pieces[0]
        )


def test_long_recordings_are_heard_in_pieces(translator):
    long = np.concatenate([sound_of("the river of spain " * 12), np.zeros(RATE, np.float32), sound_of("a king " * 30)])
    assert len(long) > 20 * RATE
    assert translator.translate(long).finish in ("stop", "length") and isinstance(
        translator.transcribe(long, beam=4), str
    )


def test_long_typed_text_is_translated_sentence_by_sentence(translator):
    said = ["The river is big.", "Where is a big red king of Spain?"] * 4
    text = " ".join(said) + "\n?!"
    joined = " ".join(filter(None, (one.text for one in translator.translate(typed=said, beams=1))))
    assert translator.translate(typed=text, beams=1).text == joined == "".join(translator.stream(typed=text))


@pytest.mark.parametrize(
    ("said", "status", "sentence"),
    [
        (Said(None, "", finish="empty"), 1, "says nothing for"),
        (Said(None, "el", finish="length"), 0, "cut at the limit"),
    ],
)
def test_verbs_tell_of_no_translation_and_of_half_of_one(folder, monkeypatch, said, status, sentence):
    monkeypatch.setattr(JointTranslator, "_write", lambda self, states, wanted: [said] * len(states.states_BNW))
    done = invoke("translate", "--typed", TEXT, "--to", "text", "--model", folder / "joint")
    assert (done.exit_code, done.stdout.strip()) == (status, said.text) and sentence in done.stderr


def test_an_error_quotes_the_beginning_of_a_long_text(folder, monkeypatch):
    monkeypatch.setattr(
        JointTranslator, "_write", lambda self, states, _: [Said(None, "", finish="empty")] * len(states.states_BNW)
    )
    done = invoke("translate", "--typed", f"{TEXT}. " * 50, "--to", "text", "--model", folder / "joint")
    assert done.exit_code == 1 and f"says nothing for {TEXT}" in done.stderr and len(done.stderr) < 300


def test_where_nothing_is_heard_nothing_is_invented(folder, translator, tmp_path, monkeypatch):
    monkeypatch.setattr(JointTranslator, "words", lambda self, heard, beam=1: [""] * len(heard.logits_BTV))
    for found in translator.translate([sounds()[0], np.tile(sounds()[2], 30)]):
        assert (found.text, found.heard, found.finish) == ("", "", "unheard")
    assert list(translator.stream(sounds()[0])) == []
    save_wav(tmp_path / "a.wav", sounds()[0], RATE)
    shown = CliRunner().invoke(
        app, ["translate", str(tmp_path / "a.wav"), "--to", "text", "--model", str(folder / "joint")]
    )
    assert shown.exit_code == 1 and "nothing was understood in" in shown.stderr and not shown.stdout


def test_of_pieces_only_those_with_words_are_translated(translator, monkeypatch):
    waves = [sounds()[0], sounds()[1], sounds()[2]]
    wanted = translator.translate(waves)
    words = JointTranslator.words

    def deaf(self, heard, beam=1):
        found = words(self, heard, beam)
        return ["", *found[1:]]

    monkeypatch.setattr(JointTranslator, "words", deaf)
    first, *rest = translator.translate(waves)
    assert (first.text, first.finish) == ("", "unheard")
    assert [(one.text, one.heard, one.finish) for one in rest] == [
        (one.text, one.heard, one.finish) for one in wanted[1:]
    ]


def test_int8_is_the_same_model_nearly(folder):
    states = [SpeechTranslatorModel.load(folder / name / "translator").state_dict() for name in ("joint", "int8")]
    worst = max(
        float((a - states[1][name]).abs().max() / a.abs().max().clamp(min=1e-6)) for name, a in states[0].items()
    )
    assert worst < 0.01
    for part in ("translator", "encoder"):
        small, whole = (folder / name / part / "model.safetensors" for name in ("int8", "joint"))
        assert small.stat().st_size < whole.stat().st_size, part


def test_a_text_model_translates_text_only(folder):
    text = SpeechTranslator.load(str(folder / "text"))
    assert text.translate(typed=TEXT).finish in ("stop", "length", "empty")
    with pytest.raises(InputError, match="hears nothing"):
        text.translate(sounds()[0])


def test_what_cannot_be_translated_is_said(translator, folder, tmp_path):
    refusals = [
        ({"typed": " "}, "is empty"),
        ({"typed": "?!"}, "holds no words"),
        ({"typed": "日本語"}, "holds no words that the model can read"),  # a word of a translation was made up
        ({"typed": "?! " * 1000}, r"^.{,200} holds no words"),
        ({}, "give one thing"),
        ({"typed": "river " * 260}, "more than the model's"),
        ({"sound": tmp_path / "none.wav"}, "none.wav"),
    ]
    for given, message in refusals:
        with pytest.raises(InputError, match=message):
            translator.translate(**given)
    with pytest.raises(ConfigError, match="beam"):
        translator.translate(typed=TEXT, beams=0)
    with pytest.raises(ConfigError, match="width 16; the encoder has 0"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parents[1])
        run_recipe(RECIPES / "pack_joint.yaml", ["out=out/debug/wrong", "encoder=null", "encoder_layer=0"])
    with pytest.raises(ConfigError, match="30 s become 375 positions"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parents[1])
        run_recipe(RECIPES / "pack_joint.yaml", ["out=out/debug/wrong", "longest_seconds=30"])


def test_the_encoder_of_a_shipped_model_is_shared(folder, tmp_path):
    pieces = Pieces.load(folder / "translate" / "final")
    sizes = {"width": 8, "ffn": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "max_positions": 512}
    SpeechTranslatorModel(TranslatorConfig(vocab_size=pieces.size, encoder_width=384, **sizes)).save(tmp_path / "final")
    pieces.save(tmp_path / "final")
    options = [f"out={tmp_path}/packed", f"translator={tmp_path}/final", "encoder=null", "encoder_layer=4"]
    run_recipe(RECIPES / "pack_joint.yaml", [*options, "shares=mini"])
    assert not (tmp_path / "packed" / "encoder").exists()
    assert SpeechTranslator.load(tmp_path / "packed").translate(sounds()[0]).finish in ("stop", "length", "empty")
    with pytest.raises(ModelError, match="shares parts of 'other': choose mini"):
        run_recipe(RECIPES / "pack_joint.yaml", [*options, "shares=other"])


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_verbs_print_text(folder, translator, tmp_path):
    save_wav(tmp_path / "a.wav", sounds()[0], RATE)
    model = ["--model", folder / "joint"]
    done = invoke("translate", tmp_path / "a.wav", "--to", "text", "--json", *model)
    record = json.loads(done.stdout)
    assert record["text"] == translator.translate(tmp_path / "a.wav").text and record["heard"] == translator.transcribe(
        tmp_path / "a.wav"
    )
    done = invoke("translate", "--typed", TEXT, "--typed", "", "--to", "text", *model)
    assert done.exit_code == 1 and done.stdout.splitlines()[0] == translator.translate(typed=TEXT).text
    assert "the text to translate is empty" in done.stderr
    words = ["transcribe", "-", "--json", *map(str, model)]
    piped = json.loads(CliRunner().invoke(app, words, input=(tmp_path / "a.wav").read_bytes()).stdout)
    assert piped == {"recording": "standard input", "text": translator.transcribe(tmp_path / "a.wav"), "error": None}
    for verb, more in (("translate", ["--to", "text"]), ("transcribe", [])):
        said = invoke(verb, tmp_path / "a.wav", tmp_path / "none.wav", "--json", *more, *model).stdout.splitlines()
        assert json.loads(said[0]).keys() == json.loads(said[1]).keys() and "none.wav" in json.loads(said[1])["error"]
    done = invoke("transcribe", tmp_path / "a.wav", tmp_path / "none.wav", *model)
    assert (
        done.exit_code == 1
        and done.stdout.strip() == translator.transcribe(tmp_path / "a.wav")
        and "none.wav" in done.stderr
    )


def test_verbs_refuse_what_a_model_does_not_do(folder, tmp_path):
    save_wav(tmp_path / "a.wav", sounds()[0], RATE)
    done = invoke("translate", tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--model", folder / "joint")
    assert done.exit_code == 1 and "add --to text" in done.stderr and not (tmp_path / "b.wav").exists()
    textless = write_translator(tmp_path / "textless")
    done = invoke("translate", tmp_path / "a.wav", "--to", "text", "--model", textless)
    assert done.exit_code == 1 and "without --to" in done.stderr
    with pytest.raises(ModelError, match="passes through no text"):
        SpeechTranslator.load(str(textless)).transcribe(tmp_path / "a.wav")
    for words in ([], ["--typed", "a"], [tmp_path / "a.wav", "--to", "song"]):
        assert invoke("translate", *words, "--model", folder / "joint").exit_code == 2
