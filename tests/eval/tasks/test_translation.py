"""ASR-BLEU of arms: a perfect arm scores as the reference does, a wrong one less and significantly so; nothing is done twice."""

import numpy as np
import pytest
from eval_fakes import RATE, Reply, read_back, voice

from echox.audio import save_wav
from echox.data.pairs import SpokenPair
from echox.errors import InputError
from echox.eval.report.summary import tables_of
from echox.eval.results import read_results
from echox.eval.tasks.translation import Arm, TranslationOptions, cascade_arm, model_arm, run_translation
from echox.eval.tasks.unit_references import units_of
from echox.generate.types import Reply as Spoken
from echox.models.encoder import SpeechEncoder
from echox.units.extractor import UnitExtractor, load_centroids
from tests.tiny_translator import write_translator

SENTENCES = [
    f"the {colour} house is near the {place} of {name}"
    for colour in ("red", "blue", "old")
    for place in ("river", "town")
    for name in ("paris", "lima")
]


class Judge:
    """Reads what the fake voice wrote."""

    name = "fake judge"

    def transcribe(self, waves):
        return [read_back(wave) if len(wave) else "" for wave in waves]


class Translator:
    """Says what it is told to for every recording; counts how often it is asked."""

    def __init__(self, change=lambda text: text):
        self.change, self.asked = change, 0

    def translate(self, path, beams=None):
        self.asked += 1
        number = int(path.stem)
        if self.change(SENTENCES[number]) is None:
            raise InputError("it cannot be heard.")
        reply = Reply(self.change(SENTENCES[number]), voice(self.change(SENTENCES[number])))
        reply.units = [number]
        return reply


@pytest.fixture
def pairs(tmp_path):
    rows = []
    for number, text in enumerate(SENTENCES):
        save_wav(tmp_path / f"{number}.wav", 0.1 * np.sin(np.arange(8000) * 0.1), RATE)
        rows.append(SpokenPair(str(number), tmp_path / f"{number}.wav", text))
    return rows


def test_arms_are_scored_compared_and_resumed(pairs, tmp_path):
    good, bad = Translator(), Translator(lambda text: text.replace("house", "horse").replace("near", "under"))
    arms = {"good": model_arm(good, 2), "bad": model_arm(bad, 2)}
    options = TranslationOptions(tmp_path / "out", Judge(), "test.tsv")
    tables = {table.title: table for table in run_translation(pairs, arms, options)}
    scores = {row[0]: float(row[2].split()[0]) for row in tables["Translation"].rows}
    assert scores["good"] == pytest.approx(100) and 20 < scores["bad"] < 80
    assert "nrefs:1" in tables["Translation"].note and "fake judge" in tables["Translation"].note
    difference = tables["Against good"].rows[0]
    assert float(difference[2]) < -20 and float(difference[3]) < 0.05
    assert (tmp_path / "out" / "audio" / "good" / "0.wav").is_file()
    run_translation(pairs, arms, options)
    assert good.asked == bad.asked == len(SENTENCES)
    settings, items = read_results(tmp_path / "out" / "translation.jsonl")
    assert [table.title for table in tables_of(settings, items)] == list(tables)


def test_a_recording_that_fails_counts_as_nothing_said(pairs, tmp_path):
    half = Translator(lambda text: None if "red" in text else text)
    (table, *_) = run_translation(
        pairs, {"half": model_arm(half, None)}, TranslationOptions(tmp_path / "o", Judge(), "t")
    )
    assert table.rows[0][-1] == "4" and float(table.rows[0][2].split()[0]) < 100


def test_the_reference_speech_is_the_ceiling_and_a_cascade_says_its_text(pairs, tmp_path):
    import soundfile

    with_speech = []
    for pair in pairs:
        soundfile.write(tmp_path / f"{pair.id}.ref.wav", voice(pair.target_text), RATE, subtype="FLOAT")
        with_speech.append(SpokenPair(pair.id, pair.audio, pair.target_text, "", tmp_path / f"{pair.id}.ref.wav"))

    class Recogniser:
        name = "translating"

        def transcribe(self, waves):
            return ["the house"] * len(waves)

    class Assistant:
        def say(self, text):
            reply = Reply(text, voice(text))
            reply.units = []
            return reply

    arms = {"cascade": cascade_arm(Recogniser(), Assistant())}
    tables = run_translation(with_speech, arms, TranslationOptions(tmp_path / "o", Judge(), "t"))
    rows = {row[0]: row for row in tables[0].rows}
    assert float(rows["reference"][2].split()[0]) == pytest.approx(100) and float(rows["cascade"][2].split()[0]) < 20
    assert rows["reference"][6] == rows["reference"][7] == "-" and int(rows["cascade"][8]) > 10


def test_units_are_scored_against_those_of_the_reference_speech(pairs, tmp_path):
    spoken = [SpokenPair(pair.id, pair.audio, pair.target_text, "", pair.audio) for pair in pairs]

    def arm(units):
        return Arm(
            lambda path: Spoken("", "red", voice("red"), RATE, units), lambda waves: [[1, 2, 3, 4, 5, 6] for _ in waves]
        )

    arms = {"same": arm([1, 2, 3, 4, 5, 6]), "half": arm([1, 2, 3, 4, 9, 8]), "none": Arm(arm([1]).translate)}
    table = run_translation(spoken, arms, TranslationOptions(tmp_path / "o", Judge(), "t"))[0]
    found = {row[0]: row[table.head.index("unit BLEU")] for row in table.rows}
    assert found["same"] == "100.0" and 20 < float(found["half"]) < 70 and found["none"] == found["reference"] == "-"


def test_a_model_that_shares_minis_voice_writes_references_in_its_units(tmp_path):
    from types import SimpleNamespace

    from echox.hub import resolve_model

    mini = resolve_model("mini")
    wave = (0.3 * np.sin(np.arange(8000) ** 1.5 / 90)).astype(np.float32)
    (units,) = units_of(SimpleNamespace(model=SimpleNamespace(voice=mini)))([wave])
    _, meta = load_centroids(mini / "units")
    (states,) = SpeechEncoder.from_pretrained(mini / "encoder").encode([wave], (meta.layer,))
    (alone,) = UnitExtractor.load(mini / "units", lambda _: [states[meta.layer].half().numpy()]).extract([wave])
    assert units == alone.ids.tolist() and len(set(units)) > 1
    assert units_of(SimpleNamespace(model=SimpleNamespace())) is None
    textless = write_translator(tmp_path / "own")
    assert units_of(SimpleNamespace(model=SimpleNamespace(voice=textless))) is None
